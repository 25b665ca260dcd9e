/*
 * The tuning database: which entry a call takes, what is passed over, and that writers lose nothing.
 *
 * Databases are written for the device at hand with parts of its description changed. Calls are products of the variant
 * simt, which runs everywhere; its default tiles are 64 or 128, so tiles of 32 came from a database.
 */
#include "autotune/tuner.h"
#include "host/io/file.h"
#include "host/ops/tuning_database.h"
#include "host/runtime/embedded.h"
#include "tests/cli_runner.h"

#include <cldsa/gemm.h>
#include <pthread.h>
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

#define TILES_32 "{\"TM\":32,\"TN\":32,\"TK\":16,\"WM\":4,\"WN\":4,\"SPLIT\":1}"
#define TILES_64 "{\"TM\":64,\"TN\":32,\"TK\":16,\"WM\":4,\"WN\":4,\"SPLIT\":1}"

extern const cldsa_op cldsa_op_gemm;

static cldsa_device_info device;
static cl_context context;
static cldsa_context *ctx;
static cl_mem buffer;
static char log_text[16384];
static char source[17]; /* of simt's kernel */

static void keep_log(cldsa_log_level level, const char *text, void *user) {
    (void)user;
    size_t used = strlen(log_text);
    if (level >= CLDSA_LOG_WARNING)
        snprintf(log_text + used, sizeof log_text - used, "%s\n", text);
}

static cldsa_context *new_context(void) {
    cldsa_context *fresh;
    assert_int_equal(cldsa_context_create(context, device.device, &(cldsa_context_options){.log = keep_log}, &fresh),
                     0);
    return fresh;
}

static int begin(void **state) {
    cl_int code;
    assert_int_equal(cli_make_directory(state), 0);
    assert_int_equal(cldsa_select_device(NULL, &device), CLDSA_SUCCESS);
    context = clCreateContext(NULL, 1, &device.device, NULL, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    buffer = clCreateBuffer(context, CL_MEM_READ_WRITE, 64 << 20, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    ctx = new_context();
    cldsa_tuning_source_hash(ctx, cldsa_find_variant(&cldsa_op_gemm, "simt"), source);
    assert_int_equal(strlen(source), 16);
    return 0;
}

static int end(void **state) {
    cldsa_context_destroy(ctx);
    clReleaseMemObject(buffer);
    clReleaseContext(context);
    return cli_remove_directory(state);
}

/* ---- calls ---------------------------------------------------------------------------------------------------------
 */

static cldsa_gemm_args product(int64_t m, int64_t n, int64_t k) {
    cldsa_gemm_args args;
    cldsa_op_default_args(&cldsa_op_gemm, &args);
    args.a = CLDSA_TENSOR(buffer, 0, CLDSA_F32, m, k);
    args.b = CLDSA_TENSOR(buffer, 0, CLDSA_F32, k, n);
    args.c = CLDSA_TENSOR(buffer, 0, CLDSA_F32, m, n);
    return args;
}

static cldsa_run plan_args(const cldsa_gemm_args *args) {
    cldsa_run run;
    assert_int_equal(cldsa_op_plan(ctx, &cldsa_op_gemm, args, &run), CLDSA_SUCCESS);
    return run;
}

/* run.args is not for use afterwards. */
static cldsa_run plan(int64_t size) {
    cldsa_gemm_args args = product(size, size, size);
    return plan_args(&args);
}

/* Rows of the tile if the call is simt's by the database, else 0. */
static int tuned_tile(int64_t size) {
    cldsa_run run = plan(size);
    return run.match ? cldsa_run_tune(&run, "TM") : 0;
}

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

/* A product of this size, fastest by simt. */
static const char *entry_text(int size, const char *params, const char *tunables, const char *hash) {
    static char texts[8][1024];
    static int next;
    next = (next + 1) % 8;
    snprintf(texts[next], sizeof texts[next],
             "{\"op\":\"gemm\",\"class\":\"size%d\",\"dims\":{\"Z\":1,\"M\":%d,\"N\":%d,\"K\":%d},"
             "\"params\":\"%s\",\"dtypes\":\"F32,F32\",\"variant\":\"simt\",\"variants\":[{\"variant\":\"simt\","
             "\"tunables\":%s,\"source\":\"%s\",\"seconds\":1e-3,\"default_seconds\":2e-3}]}",
             size, size, size, size, params, tunables, hash);
    return texts[next];
}

static const char *write_text(const char *name, const char *text) {
    return cli_write(name, text, strlen(text));
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
    assert_string_equal(choice.tunables, "TM=32,TN=32,TK=16,WM=4,WN=4,SPLIT=1");
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

/* Every shipped file: of this schema, and nothing in it that does not exist. */
static void check_shipped(void *user, const cJSON *database) {
    const cJSON *entry, *measured, *value;
    ++*(int *)user;
    cJSON_ArrayForEach(entry, cJSON_GetObjectItem(database, "entries")) {
        const cldsa_op *op;
        assert_int_equal(cldsa_find_op(cJSON_GetStringValue(cJSON_GetObjectItem(entry, "op")), &op), CLDSA_SUCCESS);
        cJSON_ArrayForEach(measured, cJSON_GetObjectItem(entry, "variants")) {
            const cldsa_variant *variant =
                cldsa_find_variant(op, cJSON_GetStringValue(cJSON_GetObjectItem(measured, "variant")));
            assert_non_null(variant);
            cJSON_ArrayForEach(value, cJSON_GetObjectItem(measured, "tunables"))
                assert_true(cldsa_find_tunable(variant, value->string, strlen(value->string)) >= 0);
        }
    }
}

static void ships_sound_files(void **state) {
    (void)state;
    for (const cldsa_embedded_file *file = cldsa_embedded_devices; file->name; ++file) {
        cJSON *root;
        int databases = 0;
        assert_int_equal(cldsa_json_parse(file->name, file->text, strlen(file->text), &root), CLDSA_SUCCESS);
        assert_int_equal(tuning_each_database(root, file->name, check_shipped, &databases), CLDSA_SUCCESS);
        assert_true(databases > 0);
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
        cmocka_unit_test(takes_the_nearest_device),
        cmocka_unit_test(asks_nearer_databases_first),
        cmocka_unit_test(takes_the_nearest_shape),
        cmocka_unit_test(holds_params_and_dtypes_apart),
        cmocka_unit_test(passes_over_what_does_not_fit),
        cmocka_unit_test(forced_beats_database_beats_default),
        cmocka_unit_test(knows_the_other_variants),
        cmocka_unit_test(reports_bad_files),
        cmocka_unit_test(finds_the_users_file),
        cmocka_unit_test(ships_sound_files),
        cmocka_unit_test(serves_threads_while_files_change),
        cmocka_unit_test(reads_what_was_written),
        cmocka_unit_test(loses_nothing_of_many_writers),
        cmocka_unit_test(keeps_what_it_cannot_read),
        cmocka_unit_test(tells_clblast_once),
        cmocka_unit_test(clblast_takes_whole_sets_only),
        cmocka_unit_test(shows_exports_and_imports),
        cmocka_unit_test(refuses_bad_files_by_name),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
