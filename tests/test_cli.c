/* The command line from outside: exit codes, one-line errors, --help, and the commands that need no training. */
#include "host/io/file.h"
#include "host/io/safetensors.h"
#include "host/runtime/runtime.h"
#include "tests/cli_runner.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *in_path, *out_path;

static int begin(void **state) {
    int failed = cli_make_directory(state);
    in_path = strdup(cli_path("in.safetensors"));
    out_path = strdup(cli_path("out.safetensors"));
    return failed;
}

static int end(void **state) {
    free((void *)in_path);
    free((void *)out_path);
    return cli_remove_directory(state);
}

static void explains_itself(void **state) {
    (void)state;
    cli_run("--help");
    cli_assert_ok();
    char commands[CLI_OUTPUT_LIMIT / 16];
    snprintf(commands, sizeof commands, "%s", strstr(cli_result.out, "commands:\n") + strlen("commands:\n"));
    char *rest = NULL;
    int count = 0;
    for (char *line = strtok_r(commands, "\n", &rest); line && line[0] == ' '; line = strtok_r(NULL, "\n", &rest)) {
        char name[64];
        if (sscanf(line, " %63s", name) != 1)
            break;
        cli_run("%s --help", name);
        cli_assert_ok();
        if (!strstr(cli_result.out, "usage: cldsa") || !strstr(cli_result.out, "examples:\n  cldsa "))
            fail_msg("%s --help lacks usage or examples", name);
        ++count;
    }
    assert_true(count >= 3);
    cli_run("tune --help");
    assert_null(strstr(cli_result.out, "--worker"));
    cli_run("--version");
    cli_assert_ok();
}

/* Takes the escapes of the hyphens out of a manual's text. */
static void unescape(char *text) {
    char *to = text;
    for (const char *from = text; *from; ++from)
        if (from[0] != '\\' || from[1] != '-')
            *to++ = *from;
    *to = '\0';
}

static void manual_knows_every_option(void **state) {
    (void)state;
    static const char *const commands[] = {"devices", "op",     "check",   "train", "experiment",
                                           "bench",   "report", "compare", "tune"};
    char *text = NULL;
    size_t size = 0;
    assert_int_equal(cldsa_file_read(CLDSA_TEST_MANUAL, 1 << 20, &text, &size), CLDSA_SUCCESS);
    unescape(text);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; ++i) {
        /* What experiment shares with train stands with train, right before it; tune has two sections. */
        char start[64], end[64];
        snprintf(start, sizeof start, ".SS \"cldsa %s", strcmp(commands[i], "experiment") ? commands[i] : "train");
        const char *last = i + 1 < sizeof commands / sizeof *commands ? commands[i + 1] : NULL;
        snprintf(end, sizeof end, last ? ".SS \"cldsa %s" : ".SH EXIT", last ? last : "");
        char *from = strstr(text, start), *to = strstr(text, end);
        assert_true(from && to && from < to);
        char kept = *to;
        *to = '\0';
        cli_run("%s --help", commands[i]);
        cli_assert_ok();
        for (const char *line = cli_result.out; (line = strstr(line, "\n  --")); ++line) {
            char option[64];
            snprintf(option, sizeof option, "%.*s", (int)strcspn(line + 3, " "), line + 3);
            bool common =
                strcmp(option, "--device") == 0 || strcmp(option, "--json") == 0 || strcmp(option, "--help") == 0;
            if (!common && !strstr(from, option))
                fail_msg("docs/cldsa.1 does not say what cldsa %s %s is", commands[i], option);
        }
        *to = kept;
    }
    free(text);
}

static void refuses_wrong_usage(void **state) {
    (void)state;
    cli_run(" ");
    cli_assert_error(2, "a command is needed");
    cli_run("devcies");
    cli_assert_error(2, "did you mean devices");
    cli_run("devices --jsno");
    cli_assert_error(2, "did you mean --json");
    cli_run("devices extra");
    cli_assert_error(2, "extra");
    cli_run("devices --device");
    cli_assert_error(2, "needs an argument");
    cli_run("devices --device 'no such device'");
    cli_assert_error(3, "no such device");
    cli_run("check");
    cli_assert_error(2, "a file is needed");
    cli_run("op");
    cli_assert_error(2, "--list");
    cli_run("op layer_nrom --in x --out y");
    cli_assert_error(2, "layer_norm");
    cli_run("op layer_norm --in x");
    cli_assert_error(2, "--out");
    cli_run("devices >/dev/full");
    cli_assert_error(3, "standard output");
}

/* The ICD loader finds nothing: a message, not a crash. */
static void needs_a_platform(void **state) {
    (void)state;
    cli_must_hide_drivers();
    cli_run_in("OCL_ICD_VENDORS=/nonexistent", "devices");
    cli_assert_error(3, "OpenCL");
}

/* ---- devices ------------------------------------------------------------------------------------------------- */

/* Lines "[PLATFORM/INDEX] PROPERTY value" of clinfo, in the order of devices. */
static bool clinfo_value(const char *raw, const char *property, int device, char value[256]) {
    for (const char *line = raw; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        char key[128];
        int index, at = 0;
        if (sscanf(line, "[%*[^/]/%d] %127s %n", &index, key, &at) != 2 || !at || strcmp(key, property) != 0)
            continue;
        if (device-- > 0)
            continue;
        snprintf(value, 256, "%.*s", (int)strcspn(line + at, "\n"), line + at);
        size_t length = strlen(value);
        while (length && value[length - 1] == ' ')
            value[--length] = '\0';
        return true;
    }
    return false;
}

static void agrees_with_clinfo(void **state) {
    (void)state;
    cli_shell("clinfo --raw");
    if (cli_result.code == 127)
        skip();
    char *raw = strdup(cli_result.out), value[256];
    assert_non_null(raw);
    cli_run("devices --json");
    cli_assert_ok();
    cJSON *devices = cJSON_Parse(cli_result.out);
    assert_true(cJSON_IsArray(devices));
    static const char *const texts[][2] = {{"name", "CL_DEVICE_NAME"},
                                           {"vendor", "CL_DEVICE_VENDOR"},
                                           {"version", "CL_DEVICE_VERSION"},
                                           {"driver", "CL_DRIVER_VERSION"}};
    static const char *const numbers[][2] = {{"compute_units", "CL_DEVICE_MAX_COMPUTE_UNITS"},
                                             {"max_work_group_size", "CL_DEVICE_MAX_WORK_GROUP_SIZE"},
                                             {"local_mem_bytes", "CL_DEVICE_LOCAL_MEM_SIZE"}};
    int count = cJSON_GetArraySize(devices);
    assert_false(clinfo_value(raw, "CL_DEVICE_NAME", count, value));
    for (int i = 0; i < count; ++i) {
        const cJSON *device = cJSON_GetArrayItem(devices, i);
        for (size_t t = 0; t < sizeof texts / sizeof texts[0]; ++t) {
            assert_true(clinfo_value(raw, texts[t][1], i, value));
            assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(device, texts[t][0])), value);
        }
        for (size_t n = 0; n < sizeof numbers / sizeof numbers[0]; ++n) {
            assert_true(clinfo_value(raw, numbers[n][1], i, value));
            assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(device, numbers[n][0])) == strtod(value, NULL));
        }
    }
    cJSON_Delete(devices);
    free(raw);
}

/* ---- op and check -------------------------------------------------------------------------------------------- */

enum { ROWS = 3, WIDTH = 5 };

static void write_layer_norm_input(const char *bias_name, const char *params) {
    float x[ROWS * WIDTH], weight[WIDTH], bias[WIDTH];
    for (int i = 0; i < ROWS * WIDTH; ++i)
        x[i] = sinf((float)i);
    for (int i = 0; i < WIDTH; ++i)
        weight[i] = 1, bias[i] = (float)i;
    const cldsa_st_entry entries[] = {
        {.name = "in.x", .dtype = CLDSA_ST_F32, .rank = 2, .shape = {ROWS, WIDTH}, .data = x},
        {.name = "in.weight", .dtype = CLDSA_ST_F32, .rank = 1, .shape = {WIDTH}, .data = weight},
        {.name = bias_name, .dtype = CLDSA_ST_F32, .rank = 1, .shape = {WIDTH}, .data = bias},
    };
    assert_int_equal(cldsa_safetensors_write(in_path, entries, 3, &(cldsa_st_metadata){"params", params}, 1), 0);
}

static void runs_an_operation(void **state) {
    (void)state;
    unlink(out_path);
    write_layer_norm_input("in.bias", "{\"eps\": 0}");
    cli_run("op layer_norm --in %s --out %s", in_path, out_path);
    cli_assert_ok();
    cldsa_safetensors *file;
    assert_int_equal(cldsa_safetensors_open(out_path, &file), CLDSA_SUCCESS);
    const cldsa_st_tensor *y = cldsa_safetensors_find(file, "out.y");
    assert_non_null(y);
    assert_int_equal(y->numel, ROWS * WIDTH);
    for (int r = 0; r < ROWS; ++r) {
        double sum = 0, squares = 0;
        for (int i = 0; i < WIDTH; ++i) {
            double normal = cldsa_st_value(y, r * WIDTH + i) - i;
            sum += normal;
            squares += normal * normal;
        }
        assert_true(fabs(sum) < 1e-5 && fabs(squares - WIDTH) < 1e-4);
    }
    cldsa_safetensors_close(file);
}

static void refuses_wrong_inputs(void **state) {
    (void)state;
    unlink(out_path);
    write_layer_norm_input("in.bais", "{}");
    cli_run("op layer_norm --in %s --out %s", in_path, out_path);
    cli_assert_error(2, "bias");
    write_layer_norm_input("in.bias", "{\"epz\": 0}");
    cli_run("op layer_norm --in %s --out %s", in_path, out_path);
    cli_assert_error(2, "\"epz\"; did you mean \"eps\"");
    write_layer_norm_input("in.bias", "{\"eps\": -1}");
    cli_run("op layer_norm --in %s --out %s", in_path, out_path);
    cli_assert_error(2, "eps is -1");
    write_layer_norm_input("in.bias", "{}");
    cli_run("op layer_norm --in %s --out %s --set eps=x", in_path, out_path);
    cli_assert_error(2, "eps=x");
    cli_run("op layer_norm --in %s --out %s --variant none", in_path, out_path);
    cli_assert_error(2, "no variant \"none\"");
    cli_run("op layer_norm --in %s --out /nonexistent/x", in_path);
    cli_assert_error(3, "/nonexistent/x");
    cli_run("op layer_norm --in /nonexistent/x --out %s", out_path);
    cli_assert_error(3, "/nonexistent/x");
    assert_int_equal(cldsa_file_write_all(in_path, "\xff\xff\xff\xff\xff\xff\xff\xff", 8), CLDSA_SUCCESS);
    cli_run("op layer_norm --in %s --out %s", in_path, out_path);
    cli_assert_error(2, "header length");
    cli_run("check %s", in_path);
    cli_assert_error(2, "header length");
    assert_int_not_equal(access(out_path, F_OK), 0); /* nothing was written */
}

static void lists_operations(void **state) {
    (void)state;
    cli_run("op --list --json");
    cli_assert_ok();
    cJSON *list = cJSON_Parse(cli_result.out);
    assert_true(cJSON_GetArraySize(list) > 0);
    const cJSON *op;
    cJSON_ArrayForEach(op, list) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(op, "name"));
        assert_non_null(name);
        if (!*cJSON_GetStringValue(cJSON_GetObjectItem(op, "summary")))
            fail_msg("%s has no summary", name);
    }
    cJSON_Delete(list);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(explains_itself),      cmocka_unit_test(manual_knows_every_option),
        cmocka_unit_test(refuses_wrong_usage),  cmocka_unit_test(needs_a_platform),
        cmocka_unit_test(agrees_with_clinfo),   cmocka_unit_test(runs_an_operation),
        cmocka_unit_test(refuses_wrong_inputs), cmocka_unit_test(lists_operations),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
