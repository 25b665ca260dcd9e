/* The command line from outside: exit codes, one-line errors, --help, and the commands that need no training. */
#include "host/io/file.h"
#include "host/io/safetensors.h"
#include "host/runtime/runtime.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { OUTPUT_LIMIT = 1 << 20, COMMAND_SIZE = 1024 };

static char directory[] = "/tmp/cldsa-cli-XXXXXX";
static char in_path[64], out_path[64], error_path[64];

/* What a command left behind. */
static struct {
    int code;
    char out[OUTPUT_LIMIT];
    char error[4096];
} result;

static int make_directory(void **state) {
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(in_path, sizeof in_path, "%s/in.safetensors", directory);
    snprintf(out_path, sizeof out_path, "%s/out.safetensors", directory);
    snprintf(error_path, sizeof error_path, "%s/error", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    unlink(in_path);
    unlink(out_path);
    unlink(error_path);
    return rmdir(directory);
}

static void shell(const char *command) {
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t length = fread(result.out, 1, sizeof result.out - 1, pipe);
    result.out[length] = '\0';
    int status = pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    char *text;
    size_t size;
    result.error[0] = '\0';
    if (cldsa_file_read(error_path, OUTPUT_LIMIT, &text, &size) == CLDSA_SUCCESS) {
        snprintf(result.error, sizeof result.error, "%s", text);
        free(text);
    }
}

static void cldsa(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void cldsa(const char *format, ...) {
    char arguments[COMMAND_SIZE], command[2 * COMMAND_SIZE];
    va_list list;
    va_start(list, format);
    vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    snprintf(command, sizeof command, "'%s' %s 2>%s", CLDSA_TEST_CLI, arguments, error_path);
    shell(command);
}

static void assert_ok(void) {
    if (result.code != 0)
        fail_msg("exit code %d: %s", result.code, result.error);
}

/* One line on the error stream that begins as all do, and says `part`. */
static void assert_error(int code, const char *part) {
    const char *end = strchr(result.error, '\n');
    if (result.code != code || strncmp(result.error, "cldsa: ", 7) != 0 || !end || end[1] ||
        !strstr(result.error, part))
        fail_msg("wanted %d and \"%s\", got %d: %s", code, part, result.code, result.error);
}

static void explains_itself(void **state) {
    (void)state;
    cldsa("--help");
    assert_ok();
    char commands[OUTPUT_LIMIT / 16];
    snprintf(commands, sizeof commands, "%s", strstr(result.out, "commands:\n") + strlen("commands:\n"));
    char *rest = NULL;
    int count = 0;
    for (char *line = strtok_r(commands, "\n", &rest); line && line[0] == ' '; line = strtok_r(NULL, "\n", &rest)) {
        char name[64];
        if (sscanf(line, " %63s", name) != 1)
            break;
        cldsa("%s --help", name);
        assert_ok();
        if (!strstr(result.out, "usage: cldsa") || !strstr(result.out, "examples:\n  cldsa "))
            fail_msg("%s --help lacks usage or examples", name);
        ++count;
    }
    assert_true(count >= 3);
    cldsa("--version");
    assert_ok();
}

static void refuses_wrong_usage(void **state) {
    (void)state;
    cldsa(" ");
    assert_error(2, "a command is needed");
    cldsa("devcies");
    assert_error(2, "did you mean devices");
    cldsa("devices --jsno");
    assert_error(2, "did you mean --json");
    cldsa("devices extra");
    assert_error(2, "extra");
    cldsa("devices --device");
    assert_error(2, "needs an argument");
    cldsa("devices --device 'no such device'");
    assert_error(3, "no such device");
    cldsa("check");
    assert_error(2, "a file is needed");
    cldsa("op");
    assert_error(2, "--list");
    cldsa("op layer_nrom --in x --out y");
    assert_error(2, "layer_norm");
    cldsa("op layer_norm --in x");
    assert_error(2, "--out");
    cldsa("devices >/dev/full");
    assert_error(3, "standard output");
}

/* The ICD loader finds nothing: a message, not a crash. */
static void needs_a_platform(void **state) {
    (void)state;
    char command[COMMAND_SIZE];
    snprintf(command, sizeof command, "OCL_ICD_VENDORS=/nonexistent '%s' devices 2>%s", CLDSA_TEST_CLI, error_path);
    shell(command);
    assert_error(3, "OpenCL");
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
    shell("clinfo --raw 2>/dev/null");
    if (result.code == 127)
        skip();
    char *raw = strdup(result.out), value[256];
    assert_non_null(raw);
    cldsa("devices --json");
    assert_ok();
    cJSON *devices = cJSON_Parse(result.out);
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
    cldsa("op layer_norm --in %s --out %s", in_path, out_path);
    assert_ok();
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
    cldsa("op layer_norm --in %s --out %s", in_path, out_path);
    assert_error(2, "bias");
    write_layer_norm_input("in.bias", "{\"epz\": 0}");
    cldsa("op layer_norm --in %s --out %s", in_path, out_path);
    assert_error(2, "\"epz\"; did you mean \"eps\"");
    write_layer_norm_input("in.bias", "{\"eps\": -1}");
    cldsa("op layer_norm --in %s --out %s", in_path, out_path);
    assert_error(2, "eps is -1");
    write_layer_norm_input("in.bias", "{}");
    cldsa("op layer_norm --in %s --out %s --set eps=x", in_path, out_path);
    assert_error(2, "eps=x");
    cldsa("op layer_norm --in %s --out %s --variant none", in_path, out_path);
    assert_error(3, "no variant \"none\"");
    cldsa("op layer_norm --in %s --out /nonexistent/x", in_path);
    assert_error(3, "/nonexistent/x");
    cldsa("op layer_norm --in /nonexistent/x --out %s", out_path);
    assert_error(3, "/nonexistent/x");
    assert_int_equal(cldsa_file_write_all(in_path, "\xff\xff\xff\xff\xff\xff\xff\xff", 8), CLDSA_SUCCESS);
    cldsa("op layer_norm --in %s --out %s", in_path, out_path);
    assert_error(2, "header length");
    cldsa("check %s", in_path);
    assert_error(2, "header length");
    assert_int_not_equal(access(out_path, F_OK), 0); /* nothing was written */
}

static void lists_operations(void **state) {
    (void)state;
    cldsa("op --list --json");
    assert_ok();
    cJSON *list = cJSON_Parse(result.out);
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
        cmocka_unit_test(explains_itself),   cmocka_unit_test(refuses_wrong_usage),
        cmocka_unit_test(needs_a_platform),  cmocka_unit_test(agrees_with_clinfo),
        cmocka_unit_test(runs_an_operation), cmocka_unit_test(refuses_wrong_inputs),
        cmocka_unit_test(lists_operations),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
