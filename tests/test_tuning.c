/*
 * The tuning database as calls read it: which entry a call takes, and what is passed over. Databases are written for
 * the device at hand with parts of its description changed.
 */
#include "host/io/json.h"
#include "host/ops/tuning_database.h"
#include "host/runtime/embedded.h"
#include "tests/cli_runner.h"
#include "tests/tuning_fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- databases -----------------------------------------------------------------------------------------------------
 */

/* The device's description; NULL members are as they are. */
typedef struct description {
    const char *platform, *vendor, *name, *type, *architecture, *driver;
} description;

static const char *or_own(const char *text, const char *own) {
    return text ? text : own;
}

static const char *database_text(description is, const char *entries) {
    static char texts[4][16384];
    static int next;
    char architecture[CLDSA_ARCHITECTURE_MAX];
    cldsa_device_architecture(&device, architecture);
    next = (next + 1) % 4;
    snprintf(texts[next], sizeof texts[next],
             "{\"schema\":1,\"device\":{\"platform\":\"%s\",\"vendor\":\"%s\",\"name\":\"%s\",\"type\":\"%s\","
             "\"architecture\":\"%s\",\"driver\":\"%s\",\"compute_units\":%u},\"entries\":[%s]}",
             or_own(is.platform, device.platform_name), or_own(is.vendor, device.vendor), or_own(is.name, device.name),
             or_own(is.type, cldsa_device_type_name(device.type)), or_own(is.architecture, architecture),
             or_own(is.driver, device.driver), device.compute_units, entries);
    return texts[next];
}

/* A product of this size, fastest by simt, whose tunables gained this against the defaults. */
static const char *gaining_text(int size, const char *params, const char *tunables, const char *hash, double gain) {
    static char texts[8][1024];
    static int next;
    next = (next + 1) % 8;
    snprintf(texts[next], sizeof texts[next],
             "{\"op\":\"gemm\",\"class\":\"size%d\",\"dims\":{\"Z\":1,\"M\":%d,\"N\":%d,\"K\":%d},"
             "\"params\":\"%s\",\"dtypes\":\"F32,F32\",\"variant\":\"simt\",\"variants\":[{\"variant\":\"simt\","
             "\"tunables\":%s,\"source\":\"%s\",\"seconds\":1e-3,\"default_seconds\":%g}]}",
             size, size, size, size, params, tunables, hash, gain * 1e-3);
    return texts[next];
}

static const char *entry_text(int size, const char *params, const char *tunables, const char *hash) {
    return gaining_text(size, params, tunables, hash, 2);
}

/* Uses a database of the device as described with these entries. */
static void use(description is, const char *entries) {
    const char *path = write_text("used.json", database_text(is, entries));
    log_text[0] = '\0';
    assert_int_equal(cldsa_tuning_use(ctx, path), CLDSA_SUCCESS);
}

static const description same, no_driver = {.driver = "other"},
                               no_architecture = {.driver = "other", .architecture = "other"},
                               only_vendor = {.driver = "other", .architecture = "other", .platform = "other"},
                               stranger = {.driver = "other", .platform = "other", .vendor = "other"};

/* ---- which database ------------------------------------------------------------------------------------------------
 */

static void takes_the_nearest_device(void **state) {
    (void)state;
    const char *entry = entry_text(100, "layout=nn,activation=none", TILES_32, source);
    const struct {
        description is;
        cldsa_tuning_match match;
    } cases[] = {
        {same, CLDSA_TUNING_EXACT},
        {no_driver, CLDSA_TUNING_ARCHITECTURE},
        {no_architecture, CLDSA_TUNING_VENDOR},
        {only_vendor, CLDSA_TUNING_VENDOR},
        {stranger, CLDSA_TUNING_NONE},
        {{.type = "accelerator"}, CLDSA_TUNING_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        use(cases[i].is, entry);
        cldsa_run run = plan(100);
        assert_int_equal(run.match, cases[i].match);
        if (run.match) {
            assert_string_equal(run.variant->name, "simt");
            assert_string_equal(run.tuned_from, "size100, given file");
            assert_int_equal(cldsa_run_tune(&run, "TM"), 32);
        } else {
            assert_string_equal(run.tuned_from, "defaults");
        }
    }
}

/* Several in one file: the nearest device that has an answer, wherever it stands. */
static void asks_nearer_databases_first(void **state) {
    (void)state;
    char text[40000];
    const char *nn = entry_text(100, "", TILES_32, source), *nearer = entry_text(100, "", TILES_64, source),
               *nt = entry_text(100, "layout=nt", TILES_32, source);
    for (int i = 0; i < 2; ++i) {
        snprintf(text, sizeof text, "{\"schema\":1,\"databases\":[%s,%s]}",
                 database_text(i ? same : no_architecture, i ? nearer : nn),
                 database_text(i ? no_driver : same, i ? nn : nearer));
        assert_int_equal(cldsa_tuning_use(ctx, write_text("several.json", text)), CLDSA_SUCCESS);
        assert_int_equal(tuned_tile(100), 64);
    }
    snprintf(text, sizeof text, "{\"schema\":1,\"databases\":[%s,%s]}", database_text(same, nt),
             database_text(no_driver, nn));
    assert_int_equal(cldsa_tuning_use(ctx, write_text("several.json", text)), CLDSA_SUCCESS);
    assert_int_equal(plan(100).match, CLDSA_TUNING_ARCHITECTURE);
}

/* ---- which entry ---------------------------------------------------------------------------------------------------
 */

static void takes_the_nearest_shape(void **state) {
    (void)state;
    char entries[4096];
    snprintf(entries, sizeof entries, "%s,%s", entry_text(1024, "", TILES_64, source),
             entry_text(64, "", TILES_32, source));
    use(same, entries);
    assert_int_equal(tuned_tile(64), 32);
    assert_int_equal(tuned_tile(200), 32); /* 256 lies in the middle of 64 and 1024 */
    assert_int_equal(tuned_tile(300), 64);
    assert_int_equal(tuned_tile(1500), 64);
    assert_int_equal(tuned_tile(16), 32); /* 4 times smaller each */
    assert_int_equal(tuned_tile(15), 0);
    cldsa_gemm_args long_rows = product(64, 16, 64);
    assert_int_equal(plan_args(&long_rows).match, CLDSA_TUNING_EXACT);
    long_rows = product(64, 15, 64);
    assert_int_equal(plan_args(&long_rows).match, CLDSA_TUNING_NONE);
}

/* A tenth of the gain per doubling, and a product has three extents. */
static void small_gains_stay_near(void **state) {
    (void)state;
    cldsa_gemm_args wide = product(64, 128, 64);
    use(same, gaining_text(64, "", TILES_32, source, 1.11));
    assert_int_equal(tuned_tile(64), 32);
    assert_int_equal(plan_args(&wide).tune[0], 32); /* one doubling */
    assert_int_equal(plan(128).match, CLDSA_TUNING_EXACT);
    assert_string_equal(plan(128).variant->name, "simt"); /* what is fastest there is the best guess */
    assert_int_not_equal(plan(128).tune[0], 32);          /* with the defaults for 128 */
    use(same, gaining_text(64, "", TILES_32, source, 1.09));
    assert_int_equal(tuned_tile(64), 32);
    assert_int_not_equal(plan_args(&wide).tune[0], 32);
    use(same, gaining_text(64, "", TILES_32, source, 1.34));
    assert_int_equal(tuned_tile(128), 32);
    use(same, gaining_text(64, "", TILES_32, source, 0)); /* nobody knows */
    assert_int_equal(tuned_tile(64), 32);
    assert_int_not_equal(plan(65).tune[0], 32);
}

static void holds_params_and_dtypes_apart(void **state) {
    (void)state;
    use(same, entry_text(100, "layout=nt,activation=none", TILES_32, source));
    cldsa_gemm_args args = product(100, 100, 100);
    assert_int_equal(plan_args(&args).match, CLDSA_TUNING_NONE);
    args.layout = CLDSA_GEMM_NT;
    cldsa_run run = plan_args(&args);
    assert_int_equal(run.match, CLDSA_TUNING_EXACT);
    char text[256];
    cldsa_tuning_params(&run, text, sizeof text);
    assert_string_equal(text, "layout=nt,activation=none");
    cldsa_tuning_dtypes(&run, text, sizeof text);
    assert_string_equal(text, "F32,F32");
    args.b.dtype = CLDSA_BF16;
    run = plan_args(&args);
    assert_int_equal(run.match, CLDSA_TUNING_NONE);
    cldsa_tuning_dtypes(&run, text, sizeof text);
    assert_string_equal(text, "F32,BF16");
}

static void asserts_passed_over(const char *entry, const char *logged) {
    use(same, entry);
    assert_int_equal(plan(100).match, CLDSA_TUNING_NONE);
    assert_int_equal(plan(100).match, CLDSA_TUNING_NONE);
    const char *line = logged ? strstr(log_text, logged) : log_text;
    if (!line)
        fail_msg("\"%s\" is not logged: %s", logged, log_text);
    if (logged)
        assert_null(strstr(line + 1, logged)); /* once */
    else
        assert_string_equal(log_text, "");
}

static void passes_over_what_does_not_fit(void **state) {
    (void)state;
    asserts_passed_over(entry_text(100, "", TILES_32, "0123456789abcdef"), NULL);
    asserts_passed_over(entry_text(100, "", "{\"TM\":32,\"TURBO\":1}", source), "has no tunable \"TURBO\"");
    asserts_passed_over(entry_text(100, "", "{\"TM\":32.5}", source), "whole number for \"TM\"");
    asserts_passed_over(entry_text(100, "", "{\"TM\":33}", source), NULL);
    asserts_passed_over(entry_text(100, "", "{\"SPLIT\":3}", source), NULL); /* legal, but nobody tries it */
    asserts_passed_over(entry_text(100, "", "{\"TM\":-1000000000}", source), NULL);
    /* More work-items than a tile has elements to load. */
    asserts_passed_over(entry_text(100, "", "{\"TM\":128,\"TN\":128,\"TK\":16,\"WM\":4,\"WN\":4}", source), NULL);
    asserts_passed_over(entry_text(100, "layout=sideways", TILES_32, source), "do not exist");
    asserts_passed_over("{\"op\":\"gemmm\",\"variants\":[{}]}", "do not exist");
    asserts_passed_over("{\"op\":\"gemm\",\"dtypes\":\"F32,F32\",\"variants\":[{\"variant\":\"fast\"}]}",
                        "has no variant \"fast\"");
    asserts_passed_over("17,null,[],\"x\"", "do not exist");
    asserts_passed_over("{\"op\":7,\"dims\":3,\"params\":{},\"dtypes\":[],\"variants\":\"x\"}", "do not exist");
    asserts_passed_over(entry_text(100, "", "[1,2]", "0"), NULL);
    /* The next best stands. */
    char entries[4096];
    snprintf(entries, sizeof entries, "%s,%s", entry_text(100, "", "{\"TM\":33}", source),
             entry_text(200, "", TILES_32, source));
    use(same, entries);
    assert_int_equal(tuned_tile(100), 32);
}

static void forced_beats_database_beats_default(void **state) {
    (void)state;
    assert_int_equal(cldsa_tuning_use(ctx, ""), CLDSA_SUCCESS);
    cldsa_run run = plan(100);
    assert_int_equal(run.match, CLDSA_TUNING_NONE);
    assert_string_equal(run.variant->name, cldsa_context_capabilities(ctx)->is_cpu ? "vec" : "simt");
    use(same, entry_text(100, "", TILES_32, source));
    run = plan(100);
    assert_string_equal(run.variant->name, "simt");
    assert_int_equal(cldsa_run_tune(&run, "TM"), 32);

    assert_int_equal(cldsa_op_force(ctx, &cldsa_op_gemm, "simt", "TM=64,TN=64"), CLDSA_SUCCESS);
    run = plan(100);
    assert_int_equal(cldsa_run_tune(&run, "TM"), 64);
    assert_string_equal(run.tuned_from, "forced");
    assert_int_equal(run.match, CLDSA_TUNING_NONE);
    /* A variant alone: with the tunables measured for it, if there are any. */
    assert_int_equal(cldsa_op_force(ctx, &cldsa_op_gemm, "simt", NULL), CLDSA_SUCCESS);
    assert_int_equal(tuned_tile(100), 32);
    assert_int_equal(cldsa_op_force(ctx, &cldsa_op_gemm, "clblast", NULL), CLDSA_SUCCESS);
    run = plan(100);
    assert_string_equal(run.variant->name, "clblast");
    assert_string_equal(run.tuned_from, "defaults");
    assert_int_equal(cldsa_op_force(ctx, &cldsa_op_gemm, NULL, NULL), CLDSA_SUCCESS);
}

/* A variant that is not the fastest: only by name, or where the heuristic takes it. */
static void knows_the_other_variants(void **state) {
    (void)state;
    char entry[1024];
    snprintf(entry, sizeof entry,
             "{\"op\":\"gemm\",\"class\":\"x\",\"dims\":{\"Z\":1,\"M\":100,\"N\":100,\"K\":100},\"params\":\"\","
             "\"dtypes\":\"F32,F32\",\"variant\":\"clblast\",\"variants\":[{\"variant\":\"simt\",\"tunables\":%s,"
             "\"source\":\"%s\"},{\"variant\":\"clblast\",\"tunables\":{},\"source\":\"\"}]}",
             TILES_32, source);
    use(same, entry);
    cldsa_gemm_args args = product(100, 100, 100);
    cldsa_run run = plan_args(&args);
    assert_string_equal(run.variant->name, "clblast");
    assert_int_equal(run.match, CLDSA_TUNING_EXACT);
    cldsa_tuning_choice choice;
    cldsa_tuning_lookup(&run, "simt", &choice);
    assert_int_equal(choice.match, CLDSA_TUNING_EXACT);
    assert_string_equal(choice.chosen->name, "simt");
    assert_int_equal(choice.tune[cldsa_find_tunable(choice.chosen, "TM", 2)], 32);
    cldsa_tuning_lookup(&run, "vec", &choice);
    assert_int_equal(choice.match, CLDSA_TUNING_NONE);
    /* CLBlast does not know groups: this very call takes another way. */
    args.group_offsets = CLDSA_TENSOR(buffer, 0, CLDSA_I32, 2);
    args.b.rank = 3;
    memcpy(args.b.shape, (int64_t[]){1, 100, 100}, 3 * sizeof(int64_t));
    run = plan_args(&args);
    assert_string_not_equal(run.variant->name, "clblast");
}

/* ---- files that are no databases -----------------------------------------------------------------------------------
 */

static void reports_bad_files(void **state) {
    (void)state;
    const char *whole = database_text(same, entry_text(100, "", TILES_32, source));
    const struct {
        const char *text, *says;
    } files[] = {
        {"", "not valid JSON"},
        {"{\"schema\":1,\"device\":{\"platform\":\"Port", "not valid JSON"},
        {"[1,2]", "an object"},
        {"{\"schema\":2,\"device\":{},\"entries\":[]}", "schema 1"},
        {"{\"schema\":\"1\"}", "schema 1"},
        {"{\"name\":\"something else\"}", "schema 1"},
        {"{\"schema\":1}", "neither"},
    };
    use(same, entry_text(100, "", TILES_32, source));
    for (size_t i = 0; i < sizeof files / sizeof *files; ++i) {
        const char *path = write_text("bad.json", files[i].text);
        assert_int_equal(cldsa_tuning_use(ctx, path), CLDSA_INVALID_FILE);
        assert_non_null(strstr(cldsa_error_message(), files[i].says));
        assert_non_null(strstr(cldsa_error_message(), path));
        assert_int_equal(tuned_tile(100), 32); /* nothing changed */
        /* As the usual file: logged once, and calls work. */
        setenv("CLDSA_TUNING", path, 1);
        log_text[0] = '\0';
        cldsa_context *own = ctx;
        ctx = new_context();
        plan(100);
        plan(100);
        const char *line = strstr(log_text, files[i].says);
        assert_non_null(line);
        assert_null(strstr(line + 1, files[i].says));
        cldsa_context_destroy(ctx);
        ctx = own;
    }
    assert_int_equal(cldsa_tuning_use(ctx, cli_path("none.json")), CLDSA_NOT_FOUND);
    assert_int_equal(cldsa_tuning_use(ctx, cli_path("")), CLDSA_INVALID_FILE); /* a directory */
    setenv("CLDSA_TUNING", write_text("whole.json", whole), 1);
    assert_int_equal(cldsa_tuning_use(ctx, NULL), CLDSA_SUCCESS);
    assert_string_equal(plan(100).tuned_from, "size100, user file");
    setenv("CLDSA_TUNING", "none", 1);
    assert_int_equal(cldsa_tuning_use(ctx, NULL), CLDSA_SUCCESS);
    assert_int_equal(plan(100).match, CLDSA_TUNING_NONE);
}

static void finds_the_users_file(void **state) {
    (void)state;
    char path[256];
    assert_false(cldsa_tuning_user_path(path, sizeof path)); /* CLDSA_TUNING=none */
    char *home = strdup(getenv("HOME") ? getenv("HOME") : "");
    unsetenv("CLDSA_TUNING");
    setenv("XDG_DATA_HOME", "/data", 1);
    assert_true(cldsa_tuning_user_path(path, sizeof path));
    assert_string_equal(path, "/data/cldsa/tuning.json");
    unsetenv("XDG_DATA_HOME");
    setenv("HOME", "/home/x", 1);
    assert_true(cldsa_tuning_user_path(path, sizeof path));
    assert_string_equal(path, "/home/x/.local/share/cldsa/tuning.json");
    assert_false(cldsa_tuning_user_path(path, 12));
    setenv("HOME", home, 1);
    setenv("CLDSA_TUNING", "none", 1);
    free(home);
}

typedef struct shipped_count {
    int databases, current, stale;
} shipped_count;

/* A hash of the kernel's source as it is or was; none where there is no source. */
static void check_source(const cldsa_variant *variant, const char *stored, shipped_count *count) {
    char hash[17];
    cldsa_tuning_source_hash(NULL, variant, hash);
    assert_int_equal(strspn(stored, "0123456789abcdef"), strlen(hash));
    assert_int_equal(strlen(stored), strlen(hash));
    ++*(strcmp(stored, hash) == 0 ? &count->current : &count->stale);
}

/* Every shipped file: of this schema, and nothing in it that does not exist. */
static void check_shipped(void *user, const cJSON *database) {
    const cJSON *entry, *measured, *value;
    shipped_count *count = user;
    ++count->databases;
    cJSON_ArrayForEach(entry, cJSON_GetObjectItem(database, "entries")) {
        const cldsa_op *op;
        assert_int_equal(cldsa_find_op(cJSON_GetStringValue(cJSON_GetObjectItem(entry, "op")), &op), CLDSA_SUCCESS);
        cJSON_ArrayForEach(measured, cJSON_GetObjectItem(entry, "variants")) {
            const cldsa_variant *variant =
                cldsa_find_variant(op, cJSON_GetStringValue(cJSON_GetObjectItem(measured, "variant")));
            assert_non_null(variant);
            check_source(variant, cldsa_json_text(measured, "source"), count);
            cJSON_ArrayForEach(value, cJSON_GetObjectItem(measured, "tunables"))
                assert_true(cldsa_find_tunable(variant, value->string, strlen(value->string)) >= 0);
        }
    }
}

/* Measurements of kernels that have changed since are no fault, only worth a word. */
static void ships_sound_files(void **state) {
    (void)state;
    for (const cldsa_embedded_file *file = cldsa_embedded_devices; file->name; ++file) {
        cJSON *root;
        shipped_count count = {0};
        assert_int_equal(cldsa_json_parse(file->name, file->text, strlen(file->text), &root), CLDSA_SUCCESS);
        assert_int_equal(tuning_each_database(root, file->name, check_shipped, &count), CLDSA_SUCCESS);
        assert_true(count.databases > 0);
        print_message("%s: %d measurements of the present kernels, %d of other ones\n", file->name, count.current,
                      count.stale);
        cJSON_Delete(root);
    }
}

/* ---- several threads -----------------------------------------------------------------------------------------------
 */

static void *plan_often(void *wrong) {
    cldsa_gemm_args args = product(100, 100, 100);
    for (int i = 0; i < 2000; ++i) {
        cldsa_run run;
        if (cldsa_op_plan(ctx, &cldsa_op_gemm, &args, &run) != CLDSA_SUCCESS ||
            (run.match && cldsa_run_tune(&run, "TM") != 32))
            *(bool *)wrong = true;
    }
    return NULL;
}

static void serves_threads_while_files_change(void **state) {
    (void)state;
    use(same, entry_text(100, "", TILES_32, source));
    char *path = strdup(cli_path("used.json"));
    pthread_t threads[3];
    bool wrong[3] = {false};
    for (int i = 0; i < 3; ++i)
        assert_int_equal(pthread_create(&threads[i], NULL, plan_often, &wrong[i]), 0);
    for (int i = 0; i < 20; ++i)
        assert_int_equal(cldsa_tuning_use(ctx, i % 2 ? path : ""), CLDSA_SUCCESS);
    for (int i = 0; i < 3; ++i) {
        pthread_join(threads[i], NULL);
        assert_false(wrong[i]);
    }
    assert_int_equal(tuned_tile(100), 32);
    free(path);
}

int main(void) {
    setenv("CLDSA_TUNING", "none", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_the_nearest_device),
        cmocka_unit_test(asks_nearer_databases_first),
        cmocka_unit_test(takes_the_nearest_shape),
        cmocka_unit_test(small_gains_stay_near),
        cmocka_unit_test(holds_params_and_dtypes_apart),
        cmocka_unit_test(passes_over_what_does_not_fit),
        cmocka_unit_test(forced_beats_database_beats_default),
        cmocka_unit_test(knows_the_other_variants),
        cmocka_unit_test(reports_bad_files),
        cmocka_unit_test(finds_the_users_file),
        cmocka_unit_test(ships_sound_files),
        cmocka_unit_test(serves_threads_while_files_change),
    };
    return cmocka_run_group_tests(tests, tuning_begin, tuning_end);
}
