/* The tuning database as the tuner and the command line write it: complete, mergeable, and nobody's loss. */
#include "autotune/tuner.h"
#include "host/io/file.h"
#include "tests/cli_runner.h"
#include "tests/tuning_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- writing -------------------------------------------------------------------------------------------------------
 */

static tuner_winner winner_of(const char *dims, bool fastest) {
    return (tuner_winner){.op = "gemm",
                          .shape_class = "test",
                          .dims = dims,
                          .params = "layout=nn,activation=none",
                          .dtypes = "F32,F32",
                          .variant = "simt",
                          .tunables = "TM=32,TN=32,TK=16,WM=4,WN=4,SPLIT=1",
                          .source = source,
                          .seconds = 1e-3,
                          .default_seconds = 2e-3,
                          .spread = 0.02,
                          .fastest = fastest};
}

static void reads_what_was_written(void **state) {
    (void)state;
    const char *path = cli_path("deep/er/written.json");
    tuner_winner winner = winner_of("Z=1 M=100 N=100 K=100", true);
    assert_int_equal(tuner_database_add(path, &device, &winner, 1), CLDSA_SUCCESS);
    assert_int_equal(cldsa_tuning_use(ctx, path), CLDSA_SUCCESS);
    assert_int_equal(plan(100).match, CLDSA_TUNING_EXACT);
    /* Another variant of the same call joins the entry; a better measurement takes the old one's place. */
    tuner_winner other = winner;
    other.variant = "clblast";
    other.tunables = other.source = "";
    other.fastest = false;
    winner.tunables = "TM=64,TN=32,TK=16,WM=4,WN=4,SPLIT=1";
    assert_int_equal(tuner_database_add(path, &device, (tuner_winner[]){other, winner}, 2), CLDSA_SUCCESS);
    cJSON *root;
    assert_int_equal(cldsa_json_read(path, &root), CLDSA_SUCCESS);
    cJSON *database = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "databases"), 0);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(root, "databases")), 1);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(database, "entries")), 1);
    cJSON *entry = cJSON_GetArrayItem(cJSON_GetObjectItem(database, "entries"), 0);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(entry, "variants")), 2);
    cJSON_Delete(root);
    assert_int_equal(cldsa_tuning_use(ctx, path), CLDSA_SUCCESS);
    cldsa_run run = plan(100);
    assert_string_equal(run.variant->name, "simt");
    assert_int_equal(cldsa_run_tune(&run, "TM"), 64);
    winner.dims = "M:100";
    assert_int_equal(tuner_database_add(path, &device, &winner, 1), CLDSA_INVALID_ARGUMENT);
}

static void loses_nothing_of_many_writers(void **state) {
    (void)state;
    enum { WRITERS = 6, WINNERS = 15 };
    char *path = strdup(cli_path("shared.json"));
    cldsa_device_info described = device;
    described.device = NULL; /* the driver's threads did not come along into these processes */
    pid_t writers[WRITERS];
    for (int w = 0; w < WRITERS; ++w) {
        writers[w] = fork();
        assert_true(writers[w] >= 0);
        if (writers[w] > 0)
            continue;
        int failures = 0;
        for (int i = 0; i < WINNERS; ++i) {
            char dims[64];
            snprintf(dims, sizeof dims, "Z=1 M=%d N=%d K=8", 1 + w, 1 + i);
            tuner_winner winner = winner_of(dims, true);
            failures += tuner_database_add(path, &described, &winner, 1) != CLDSA_SUCCESS;
        }
        _exit(failures);
    }
    for (int w = 0; w < WRITERS; ++w) {
        int status;
        assert_int_equal(waitpid(writers[w], &status, 0), writers[w]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    cJSON *root;
    assert_int_equal(cldsa_json_read(path, &root), CLDSA_SUCCESS);
    const cJSON *database = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "databases"), 0);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(database, "entries")), WRITERS * WINNERS);
    cJSON_Delete(root);
    free(path);
}

static void keeps_what_it_cannot_read(void **state) {
    (void)state;
    tuner_winner winner = winner_of("Z=1 M=100 N=100 K=100", true);
    char *path = strdup(write_text("torn.json", "{\"schema\":1,\"databa"));
    assert_int_equal(tuner_database_add(path, &device, &winner, 1), CLDSA_SUCCESS);
    assert_int_equal(cldsa_tuning_use(ctx, path), CLDSA_SUCCESS);
    assert_int_equal(tuned_tile(100), 32);
    char *text;
    size_t size;
    assert_int_equal(cldsa_file_read(cli_path("torn.json.damaged"), 1000, &text, &size), CLDSA_SUCCESS);
    assert_string_equal(text, "{\"schema\":1,\"databa");
    free(text);
    free(path);
    /* Not ours to replace: another schema, another program's file, a directory. */
    static const char *const foreign[] = {"{\"schema\":2,\"databases\":[]}", "{\"name\":\"mine\"}"};
    for (int i = 0; i < 2; ++i) {
        path = strdup(write_text("foreign.json", foreign[i]));
        assert_int_equal(tuner_database_add(path, &device, &winner, 1), CLDSA_INVALID_FILE);
        assert_int_equal(cldsa_file_read(path, 1000, &text, &size), CLDSA_SUCCESS);
        assert_string_equal(text, foreign[i]);
        free(text);
        free(path);
    }
    assert_int_equal(mkdir(cli_path("directory.json"), 0777), 0);
    assert_int_equal(tuner_database_add(cli_path("directory.json"), &device, &winner, 1), CLDSA_INVALID_FILE);
    assert_int_equal(access(cli_path("directory.json"), F_OK), 0);
}

/* ---- CLBlast -------------------------------------------------------------------------------------------------------
 */

static int told;

static void take_kernel(cldsa_context *of, const cldsa_tuning_clblast_kernel *kernel) {
    assert_ptr_equal(of, ctx);
    assert_string_equal(kernel->kernel, "Xgemm");
    assert_int_equal(kernel->precision, 32);
    assert_int_equal(kernel->count, 2);
    assert_string_equal(kernel->names[1], "NWG");
    assert_int_equal(kernel->values[1], 64);
    ++told;
}

static void tells_clblast_once(void **state) {
    (void)state;
    const char *path = cli_path("clblast.json");
    for (int i = 0; i < 2; ++i)
        assert_int_equal(
            tuner_database_add_clblast(path, &device, "Xgemm", 32, i ? "MWG=32,NWG=64" : "MWG=16,NWG=16", 1e-3, 3e-3),
            CLDSA_SUCCESS);
    assert_int_equal(cldsa_tuning_use(ctx, path), CLDSA_SUCCESS);
    cldsa_tuning_clblast(ctx, take_kernel);
    cldsa_tuning_clblast(ctx, take_kernel);
    assert_int_equal(told, 1);
    assert_int_equal(cldsa_tuning_use(ctx, ""), CLDSA_SUCCESS);
    cldsa_tuning_clblast(ctx, take_kernel);
    assert_int_equal(told, 1);
}

/* A product by CLBlast; what was logged on the way. */
static const char *multiply_with(const char *parameters) {
    const char *path = cli_path("clblast.json");
    remove(path);
    assert_int_equal(tuner_database_add_clblast(path, &device, "XgemmDirect", 32, parameters, 1e-3, 3e-3), 0);
    assert_int_equal(cldsa_tuning_use(ctx, path), CLDSA_SUCCESS);
    assert_int_equal(cldsa_op_force(ctx, &cldsa_op_gemm, "clblast", NULL), CLDSA_SUCCESS);
    cl_int code;
    cl_command_queue queue = clCreateCommandQueue(context, device.device, 0, &code);
    assert_int_equal(code, CL_SUCCESS);
    cldsa_gemm_args args = product(16, 16, 16);
    args.c.offset = 1 << 20;
    log_text[0] = '\0';
    assert_int_equal(cldsa_op_enqueue(ctx, &cldsa_op_gemm, &args, &(cldsa_call){.queue = queue}), CLDSA_SUCCESS);
    assert_int_equal(clFinish(queue), CL_SUCCESS);
    clReleaseCommandQueue(queue);
    assert_int_equal(cldsa_op_force(ctx, &cldsa_op_gemm, NULL, NULL), CLDSA_SUCCESS);
    return log_text;
}

static void clblast_takes_whole_sets_only(void **state) {
    (void)state;
    assert_non_null(strstr(multiply_with("WGD=16,TURBO=1"), "XgemmDirect"));
    assert_string_equal(multiply_with("KWID=2,MDIMAD=8,MDIMCD=8,NDIMBD=8,NDIMCD=8,PADA=1,PADB=1,VWMD=1,VWND=1,WGD=16"),
                        "");
}

/* ---- the command line ----------------------------------------------------------------------------------------------
 */

static void shows_exports_and_imports(void **state) {
    (void)state;
    char mine[512];
    snprintf(mine, sizeof mine, "CLDSA_TUNING='%s'", cli_path("mine.json"));
    cli_run_in(mine, "tune --show");
    cli_assert_ok();
    cli_run_in(mine, "tune --export %s", cli_path("export.json"));
    cli_assert_error(3, "mine.json");
    tuner_winner winner = winner_of("Z=1 M=100 N=100 K=100", true);
    assert_int_equal(tuner_database_add(cli_path("mine.json"), &device, &winner, 1), CLDSA_SUCCESS);
    assert_int_equal(tuner_database_add_clblast(cli_path("mine.json"), &device, "Xgemm", 32, "MWG=32", 1e-3, 3e-3), 0);
    cli_run_in(mine, "tune --show");
    cli_assert_ok();
    assert_non_null(strstr(cli_result.out, "gemm Z=1 M=100 N=100 K=100"));
    assert_non_null(strstr(cli_result.out, "*simt"));
    char *line = strstr(cli_result.out, "2.00 x"); /* shipped files may be older than a kernel, this entry is not */
    assert_non_null(line);
    line[strcspn(line, "\n")] = '\0';
    assert_null(strstr(line, "unused"));
    cli_run_in(mine, "tune --show --json");
    cli_assert_ok();
    cJSON *root = cJSON_Parse(cli_result.out);
    const cJSON *shown = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "databases"), 0);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(shown, "match")), "exact");
    cJSON_Delete(root);

    /* The database may hold other devices, which an export onto it would lose. */
    cli_run_in(mine, "tune --export %s", cli_path("mine.json"));
    cli_assert_error(2, "mine.json|database itself");

    /* There and back: the same file, made twice. */
    cli_run_in(mine, "tune --export %s", cli_path("export.json"));
    cli_assert_ok();
    snprintf(mine, sizeof mine, "CLDSA_TUNING='%s'", cli_path("theirs.json"));
    cli_run_in(mine, "tune --import %s", cli_path("export.json"));
    cli_assert_ok();
    cli_run_in(mine, "tune --export %s", cli_path("again.json"));
    cli_assert_ok();
    cli_shell("cmp '%s' '%s'", cli_path("export.json"), cli_path("again.json"));
    cli_assert_ok();
    assert_int_equal(cldsa_tuning_use(ctx, cli_path("again.json")), CLDSA_SUCCESS);
    assert_int_equal(tuned_tile(100), 32);
}

static void refuses_bad_files_by_name(void **state) {
    (void)state;
    cli_run("tune --import /nonexistent/x.json --database %s", cli_path("mine.json"));
    cli_assert_error(3, "/nonexistent/x.json");
    cli_run("tune --import %s --database %s", write_text("bad.json", "{\"schema\":9}"), cli_path("mine.json"));
    cli_assert_error(2, "bad.json|schema 1");
    cli_run_in("CLDSA_TUNING=none", "tune --import %s", cli_path("export.json"));
    cli_assert_error(2, "CLDSA_TUNING");
    cli_run("tune --show --database %s", write_text("bad.json", "{\"schema\":1,"));
    cli_assert_error(2, "bad.json|line 1");
    cli_run("tune --export /nonexistent/y.json --database %s", cli_path("mine.json"));
    cli_assert_error(3, "/nonexistent/y.json");
    cli_run("tune --shwo");
    cli_assert_error(2, "--show");
}

int main(void) {
    setenv("CLDSA_TUNING", "none", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_was_written),        cmocka_unit_test(loses_nothing_of_many_writers),
        cmocka_unit_test(keeps_what_it_cannot_read),     cmocka_unit_test(tells_clblast_once),
        cmocka_unit_test(clblast_takes_whole_sets_only), cmocka_unit_test(shows_exports_and_imports),
        cmocka_unit_test(refuses_bad_files_by_name),
    };
    return cmocka_run_group_tests(tests, tuning_begin, tuning_end);
}
