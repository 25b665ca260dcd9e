/*
 * cldsa tune from outside: candidates that are wrong, hang, crash or do not compile never win; a killed tuning goes on;
 * two at once lose nothing. The faults are in a copy of one kernel, for some values of its tunable.
 * ctest: full, for the hanging candidate and the kernels it builds
 */
#include "host/io/json.h"
#include "tests/cli_runner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_RECORDS = 256 };

/* What is tuned: the smallest space there is, five values of ROWS of the kernel for CPUs. */
#define TUNE "tune cross_entropy --shapes N=300,V=1000 --deadline 8 --budget 60s"

/* ---- the log ----------------------------------------------------------------------------------------------------- */

static cJSON *records[MAX_RECORDS];
static int num_records;

static void forget_log(void) {
    while (num_records)
        cJSON_Delete(records[--num_records]);
}

static void read_log(const char *path) {
    char line[4096];
    forget_log();
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) && num_records < MAX_RECORDS) {
        cJSON *record = cJSON_Parse(line);
        if (record)
            records[num_records++] = record;
    }
    fclose(file);
}

static const char *text(const cJSON *record, const char *key) {
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(record, key));
    return value ? value : "";
}

/* How many records have `kind`, these tunables and this outcome; NULL matches all. */
static int count(const char *kind, const char *tunables, const char *outcome) {
    int found = 0;
    for (int i = 0; i < num_records; ++i)
        found += cJSON_HasObjectItem(records[i], kind) &&
                 (!tunables || !strcmp(text(records[i], "tunables"), tunables)) &&
                 (!outcome || !strcmp(text(records[i], "outcome"), outcome));
    return found;
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

/* A directory with a kernel that does nothing for ROWS=2 (and would be fastest), hangs for 8, crashes for 1. */
static void make_faulty_kernels(void) {
    static const char faults[] = "#if ROWS == 2\\n    return;\\n"
                                 "#elif ROWS == 8\\n    for (volatile int i = 0; i < 2; i = 0)\\n        ;\\n"
                                 "#elif ROWS == 1\\n    *(volatile __global int *)8 = 1;\\n"
                                 "#elif ROWS == 16\\n#error \"an injected failure\"\\n#endif";
    cli_shell("mkdir -p '%s' && sed 's|^ *uint first = get_global_id(0) \\* ROWS.*|&\\n%s|' "
              "'" CLDSA_KERNELS "/cross_entropy.cl' >'%s' && grep -c 'an injected failure' '%s'",
              cli_path("kernels"), faults, cli_path("kernels/cross_entropy.cl"), cli_path("kernels/cross_entropy.cl"));
    cli_assert_ok();
}

/* `jobs`: how many processes check candidates ahead; their findings count as the trials' own. */
static void tune_faulty_kernels(int jobs) {
    char before[256];
    forget_log();
    make_faulty_kernels();
    snprintf(before, sizeof before, "CLDSA_KERNEL_DIR='%s'", cli_path("kernels"));
    cli_run_in(before, TUNE " --jobs %d --log '%s' --database '%s'", jobs, cli_path("faults.jsonl"),
               cli_path("faults.json"));
    cli_assert_ok();
    read_log(cli_path("faults.jsonl"));
    assert_int_equal(count("trial", "ROWS=2", "wrong"), 1);
    assert_int_equal(count("trial", "ROWS=8", "hang"), 1);
    assert_int_equal(count("trial", "ROWS=16", "build"), 1);
    assert_int_equal(count("trial", "ROWS=1", "crash"), 1);
    assert_int_equal(count("trial", "ROWS=4", "ok"), 1);
    assert_int_equal(count("winner", "ROWS=4", NULL), 1);
    for (int rows = 1; rows <= 16; rows *= 2) {
        char tunables[32];
        snprintf(tunables, sizeof tunables, "ROWS=%d", rows);
        assert_int_equal(count("winner", tunables, NULL), rows == 4);
    }
    assert_int_equal(count("end", NULL, NULL), 1);
    /* 4 is the default, which goes in without values. */
    cli_shell("grep -q '\"vec\"' '%s' && ! grep '\"ROWS\"' '%s'", cli_path("faults.json"), cli_path("faults.json"));
    cli_assert_ok();
}

static void faulty_candidates_never_win(void **state) {
    (void)state;
    tune_faulty_kernels(1);
}

static void nor_where_they_are_checked_ahead(void **state) {
    (void)state;
    tune_faulty_kernels(2); /* the default alone, then two batches */
}

/* ---- interruption ------------------------------------------------------------------------------------------------ */

static void a_killed_tuning_goes_on(void **state) {
    (void)state;
    char log[CLI_PATH_SIZE];
    snprintf(log, sizeof log, "%s", cli_path("killed.jsonl"));
    /* Killed as soon as two trials are on record, and the last line is cut off as if it had been half written. */
    cli_shell(
        "'%s' " TUNE " --log '%s' --database '%s' >/dev/null & pid=$!\n"
        "for i in $(seq 600); do [ \"$(grep -c '\"trial\"' '%s' 2>/dev/null)\" -ge 2 ] 2>/dev/null && break; sleep "
        "0.05; done\n"
        "kill -9 $pid; wait $pid 2>/dev/null; printf '{\"trial\": \"cross' >>'%s'",
        CLDSA_TEST_CLI, log, cli_path("killed.json"), log, log);
    read_log(log);
    const int before = count("trial", NULL, NULL);
    assert_in_range(before, 2, 7);
    assert_int_equal(count("end", NULL, NULL), 0);
    cli_run("tune --resume --log '%s'", log);
    cli_assert_ok();
    read_log(log);
    assert_int_equal(count("end", NULL, NULL), 1);
    assert_true(count("trial", NULL, NULL) > before);
    for (int i = 0; i < num_records; ++i) /* none twice */
        if (cJSON_HasObjectItem(records[i], "trial"))
            assert_int_equal(count("trial", text(records[i], "tunables"), NULL), 1);
    for (int rows = 1; rows <= 16; rows *= 2) {
        char tunables[32];
        snprintf(tunables, sizeof tunables, "ROWS=%d", rows);
        assert_int_equal(count("trial", tunables, NULL), 1);
    }
    cli_run("tune --resume --log '%s'", cli_path("none.jsonl"));
    cli_assert_error(3, "none.jsonl");
}

/* The drivers' list is emptied while it tunes: the next process, after a candidate that crashes, finds no device. */
static void a_device_that_disappears_is_reported(void **state) {
    (void)state;
    cli_must_hide_drivers();
    char log[CLI_PATH_SIZE];
    snprintf(log, sizeof log, "%s", cli_path("gone.jsonl"));
    make_faulty_kernels();
    cli_shell("mkdir -p '%s' && cp ${OCL_ICD_VENDORS:-/etc/OpenCL/vendors}/*.icd '%s'", cli_path("icd"),
              cli_path("icd"));
    cli_assert_ok();
    cli_shell("export OCL_ICD_VENDORS='%s' CLDSA_KERNEL_DIR='%s'\n'%s' " TUNE
              " --log '%s' --database '%s' >/dev/null & "
              "pid=$!\nfor i in $(seq 600); do grep -q '\"trial\"' '%s' 2>/dev/null && break; sleep 0.05; done\n"
              "rm '%s'/*; wait $pid",
              cli_path("icd"), cli_path("kernels"), CLDSA_TEST_CLI, log, cli_path("gone.json"), log, cli_path("icd"));
    cli_assert_error(3, "the device no longer answers");
    read_log(log);
    assert_int_equal(count("end", NULL, NULL), 0);
    /* It is back, and with it the kernel without faults: what is known of another source does not count. */
    cli_run("tune --resume --log '%s'", log);
    cli_assert_ok();
    read_log(log);
    assert_int_equal(count("end", NULL, NULL), 1);
    assert_int_equal(count("trial", "ROWS=4", "ok"), 2);
    assert_int_equal(count("trial", NULL, "error"), 0);
}

static void two_at_once_lose_nothing(void **state) {
    (void)state;
    const char *database = cli_path("both.json");
    cli_shell(
        "'%s' tune cross_entropy --shapes N=300,V=1000 --quick --budget 20s --log '%s' --database '%s' >/dev/null & "
        "'%s' tune rms_norm --shapes R=300 --quick --budget 20s --log '%s' --database '%s' >/dev/null && wait $!",
        CLDSA_TEST_CLI, cli_path("one.jsonl"), database, CLDSA_TEST_CLI, cli_path("two.jsonl"), database);
    cli_assert_ok();
    cli_shell("grep -q cross_entropy '%s' && grep -q rms_norm '%s'", database, database);
    cli_assert_ok();
}

/* All defaults are built before any is timed; one that hangs or is wrong there is judged where it counts. */
static void quick_builds_ahead(void **state) {
    (void)state;
    char before[256];
    make_faulty_kernels();
    snprintf(before, sizeof before, "CLDSA_KERNEL_DIR='%s'", cli_path("kernels"));
    cli_run_in(before, TUNE " --quick --jobs 2 --log '%s' --database '%s'", cli_path("quick.jsonl"),
               cli_path("quick.json"));
    cli_assert_ok();
    assert_non_null(strstr(cli_result.out, "built the defaults of 1 cases"));
    read_log(cli_path("quick.jsonl"));
    assert_int_equal(count("trial", "ROWS=4", "ok"), 1); /* checked and timed all the same */
    assert_int_equal(count("winner", "ROWS=4", NULL), 1);
    assert_int_equal(count("end", NULL, NULL), 1);
}

static const char *second_trial(void) {
    for (int i = 0, seen = 0; i < num_records; ++i)
        if (cJSON_HasObjectItem(records[i], "trial") && seen++ == 1)
            return text(records[i], "tunables");
    return "";
}

/* Makes ROWS=16 of `vec` the only winner of the database's only entry, and better than it can be. */
static void claim(const char *path) {
    cJSON *root = NULL;
    assert_int_equal(cldsa_json_read(path, &root), CLDSA_SUCCESS);
    cJSON *database = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(root, "databases"), 0);
    cJSON *entry = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(database, "entries"), 0);
    cJSON *winner = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(entry, "variants"), 0);
    assert_string_equal(text(winner, "variant"), "vec");
    cJSON *tunables = cJSON_CreateObject();
    cJSON_AddNumberToObject(tunables, "ROWS", 16);
    assert_true(cJSON_ReplaceItemInObjectCaseSensitive(winner, "tunables", tunables));
    assert_true(cJSON_ReplaceItemInObjectCaseSensitive(winner, "default_seconds", cJSON_CreateNumber(1)));
    assert_int_equal(cldsa_json_write(path, root), CLDSA_SUCCESS);
    cJSON_Delete(root);
}

/* What a database knows is tried right after the defaults, and believed no further. */
static void what_is_known_is_tried_first(void **state) {
    (void)state;
    char before[256];
    const char *tune = "tune cross_entropy --shapes N=300,V=1000 --quick --budget 20s --log '%s' --database '%s'";
    cli_run(tune, cli_path("unknown.jsonl"), cli_path("known.json"));
    cli_assert_ok();
    read_log(cli_path("unknown.jsonl"));
    assert_string_not_equal(second_trial(), "ROWS=16");
    claim(cli_path("known.json"));
    snprintf(before, sizeof before, "CLDSA_TUNING='%s'", cli_path("known.json"));
    cli_run_in(before, tune, cli_path("known.jsonl"), cli_path("new.json"));
    cli_assert_ok();
    read_log(cli_path("known.jsonl"));
    assert_string_equal(second_trial(), "ROWS=16");
    assert_int_equal(count("trial", "ROWS=4", "ok"), 1); /* the default, which the claim does not replace */
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static void wrong_words_are_named(void **state) {
    (void)state;
    cli_run("tune --budget 0");
    cli_assert_error(2, "--budget|\"0\"|more than 0");
    cli_run("tune --budget 5x");
    cli_assert_error(2, "--budget|\"5x\"");
    cli_run("tune topkk");
    cli_assert_error(2, "topkk|did you mean topk");
    cli_run("tune topk --shapes experimant");
    cli_assert_error(2, "experimant|did you mean experiment");
    cli_run("tune --shapes N=300");
    cli_assert_error(2, "--shapes N=300|name the operations");
    cli_run("tune gemm --shapes M=64,Q=3 --log '%s' --database '%s'", cli_path("words.jsonl"), cli_path("words.json"));
    cli_assert_error(2, "gemm has no extent \"Q\"|M=64");
    cli_run("tune --strategy anneall");
    cli_assert_error(2, "--strategy|exhaustive, random|did you mean anneal");
    cli_run("tune gemm --shapes ''");
    cli_assert_error(2, "--shapes");
    cli_run("tune gemm --shapes ,");
    cli_assert_error(2, "--shapes");
    static const char *const extents[] = {"M=", "M=0", "M=-4", "M=64,N=9x", "M=64,64"};
    for (size_t i = 0; i < sizeof extents / sizeof *extents; ++i) {
        cli_run("tune gemm --shapes %s", extents[i]);
        cli_assert_error(2, "--shapes|NAME=NUMBER");
    }
    cli_run("tune --show gemm");
    cli_assert_error(2, "--show|gemm");
    cli_shell("echo '{\"x\": 1}' >'%s'", cli_path("not.jsonl"));
    cli_run("tune --resume --log '%s'", cli_path("not.jsonl"));
    cli_assert_error(2, "not.jsonl|not a log");
}

/* What is no log is not taken out of the way, and what was measured elsewhere is not gone on with. */
static void other_files_stay(void **state) {
    (void)state;
    cli_write("notes.txt", "mine\n", 5);
    cli_run("tune reduce --shapes N=512 --log '%s' --database '%s'", cli_path("notes.txt"), cli_path("mine.json"));
    cli_assert_error(2, "notes.txt|no log");
    cli_shell("grep -qx mine '%s' && mkfifo '%s'", cli_path("notes.txt"), cli_path("pipe"));
    cli_assert_ok();
    cli_run("tune reduce --shapes N=512 --log '%s' --database '%s'", cli_path("pipe"), cli_path("mine.json"));
    cli_assert_error(2, "pipe|no log");
    cli_shell("test -p '%s'", cli_path("pipe"));
    cli_assert_ok();
    static const char other[] =
        "{\"tuning\":1,\"device\":\"Another\",\"driver\":\"7\",\"seed\":1,\"arguments\":[\"reduce\","
        "\"--shapes\",\"N=512\"],\"at\":0}\n";
    cli_write("other.jsonl", other, strlen(other));
    cli_run("tune --resume --log '%s' --database '%s'", cli_path("other.jsonl"), cli_path("mine.json"));
    cli_assert_error(2, "other.jsonl|Another");
}

/* Found before the search, whose winners would be lost. */
static void an_unwritable_database_is_found_at_once(void **state) {
    (void)state;
    cli_write("file", "", 0);
    cli_run("tune reduce --shapes N=512 --log '%s' --database '%s'", cli_path("unwritable.jsonl"),
            cli_path("file/tuning.json"));
    cli_assert_error(3, "file");
    assert_string_equal(cli_result.out, "");
}

static int end(void **state) {
    forget_log();
    return cli_remove_directory(state);
}

int main(void) {
    setenv("CLDSA_DEVICE", "cpu", 1); /* whose kernel has the faults; a GPU may not survive a hang */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_words_are_named),
        cmocka_unit_test(other_files_stay),
        cmocka_unit_test(an_unwritable_database_is_found_at_once),
        cmocka_unit_test(faulty_candidates_never_win),
        cmocka_unit_test(nor_where_they_are_checked_ahead),
        cmocka_unit_test(quick_builds_ahead),
        cmocka_unit_test(what_is_known_is_tried_first),
        cmocka_unit_test(a_killed_tuning_goes_on),
        cmocka_unit_test(a_device_that_disappears_is_reported),
        cmocka_unit_test(two_at_once_lose_nothing),
    };
    return cmocka_run_group_tests(tests, cli_make_directory, end);
}
