/* What the bench says of a device and writes down: peaks, rooflines, the result file and its validation. */
/* ctest: full, for what it measures */
#include "bench/peak.h"
#include "bench/schema.h"
#include "tests/cli_runner.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the roofline, on figures that need no device ---------------------------------------------------------------- */

static bench_peaks some_peaks(void) {
    return (bench_peaks){
        .flops = 1e12, .launch = 1e-6, .levels = {{1 << 16, 8e11}, {1 << 20, 4e11}, {1 << 24, 1e11}}, .num_levels = 3};
}

static void roofline_takes_the_slowest(void **state) {
    (void)state;
    bench_peaks peaks = some_peaks();
    bench_roofline line = bench_roofline_of(&peaks, 1e9, 1e6, 1e8, 2e-3);
    assert_string_equal(line.limit, "compute");
    assert_true(fabs(line.seconds - 1e-3) < 1e-12 && fabs(line.percent - 50) < 1e-9);
    line = bench_roofline_of(&peaks, 1e3, 1e8, 1e8, 4e-3);
    assert_string_equal(line.limit, "memory");
    assert_true(fabs(line.seconds - 1e-3) < 1e-12 && fabs(line.percent - 25) < 1e-9);
    line = bench_roofline_of(&peaks, 10, 10, 10, 1e-5);
    assert_string_equal(line.limit, "launch");
    assert_true(fabs(line.percent - 10) < 1e-9);
}

/* The bandwidth is that of the size of the call's tensors: as measured, between two sizes, or beyond them. */
static void roofline_knows_levels(void **state) {
    (void)state;
    bench_peaks peaks = some_peaks();
    const struct {
        double set, bandwidth;
    } cases[] = {{1, 8e11},       {1 << 16, 8e11}, {1 << 18, 5.656854e11}, {1 << 20, 4e11}, {1 << 22, 2e11},
                 {1 << 24, 1e11}, {1e12, 1e11}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        double got = bench_roofline_of(&peaks, 0, 1, cases[i].set, 1).bytes_per_second;
        assert_true(fabs(got / cases[i].bandwidth - 1) < 1e-6);
    }
    peaks.flops = 0; /* it could not be measured */
    assert_true(bench_roofline_of(&peaks, 1, 1, 1, 1).seconds == 0);
}

/* ---- a run of the command, read back ----------------------------------------------------------------------------- */

static cJSON *result; /* of `bench peak` and two operations */

static int measure(void **state) {
    if (cli_make_directory(state))
        return -1;
    cli_run("bench peak --out '%s'", cli_path("peak.json"));
    if (cli_result.code || bench_load(cli_path("peak.json"), &result) != CLDSA_SUCCESS)
        return -1;
    cli_run("bench ops topk --preset cpu --budget 0.02 --out '%s'", cli_path("ops.json"));
    return cli_result.code;
}

static int clean(void **state) {
    cJSON_Delete(result);
    return cli_remove_directory(state);
}

static double number(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

static const char *text(const cJSON *object, const char *key) {
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return value ? value : "";
}

static const cJSON *rows_of(const cJSON *document) {
    return cJSON_GetObjectItemCaseSensitive(document, "rows");
}

static void peaks_are_sane(void **state) {
    (void)state;
    const cJSON *row;
    int arithmetic = 0, memory = 0, latency = 0, transfer = 0;
    cJSON_ArrayForEach(row, rows_of(result)) {
        const char *unit = text(row, "unit"), *status = text(row, "status");
        assert_string_equal(text(row, "suite"), "peak");
        assert_string_not_equal(status, "error");
        if (strcmp(status, "ok") != 0) {
            assert_true(strlen(text(row, "reason")) > 10);
            continue;
        }
        double value = number(row, "value"), bytes = number(row, "bytes");
        if (strcmp(unit, "s") == 0)
            assert_true(++latency && value > 1e-9 && value < 0.1);
        else if (strcmp(unit, "B/s") == 0)
            assert_true((strncmp(text(row, "name"), "to ", 3) ? ++memory : ++transfer) && bytes > 0 && value > 1e7 &&
                        value < 1e15);
        else
            assert_true(++arithmetic && value > 1e8 && value < 1e16);
    }
    assert_true(arithmetic >= 2 && memory >= 10 && latency >= 2 && transfer == 4);
}

/* The forms that only GPUs take, on whatever device there is, over small sets: right here, if not fast. */
static void forms_of_gpus_are_right(void **state) {
    (void)state;
    cldsa_device_info info;
    cldsa_context *ctx;
    cl_int code;
    assert_int_equal(cldsa_select_device(NULL, &info), CLDSA_SUCCESS);
    cl_context context =
        clCreateContext((cl_context_properties[]){CL_CONTEXT_PLATFORM, (cl_context_properties)info.platform, 0}, 1,
                        &info.device, NULL, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    assert_int_equal(cldsa_context_create(context, info.device, NULL, &ctx), CLDSA_SUCCESS);
    cl_command_queue queue = clCreateCommandQueue(context, info.device, CL_QUEUE_PROFILING_ENABLE, &code);
    assert_int_equal(code, CL_SUCCESS);
    bench_peaks peaks = {0};
    const bench_peak_options options = {.whole = false};
    info.global_mem_bytes = 16 << 20; /* an eighth of it is the largest set */
    peak_suite suite = {.ctx = ctx,
                        .caps = cldsa_context_capabilities(ctx),
                        .info = &info,
                        .queue = queue,
                        .options = &options,
                        .peaks = &peaks};
    peak_compute(&suite, false);
    peak_memory(&suite);
    peak_launches(&suite);
    assert_true(peaks.num_rows >= 6);
    for (int i = 0; i < peaks.num_rows; ++i)
        if (peaks.rows[i]->status != BENCH_OK)
            fail_msg("%s: %s", peaks.rows[i]->name, peaks.rows[i]->reason);
    assert_true(peaks.flops > 0 && peaks.launch > 0 && peaks.num_levels >= 2);
    bench_peaks_free(&peaks);
    clReleaseCommandQueue(queue);
    cldsa_context_destroy(ctx);
    clReleaseContext(context);
}

static void levels_never_rise(void **state) {
    (void)state;
    const cJSON *peaks = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(result, "system"), "peaks");
    const cJSON *level, *before = NULL;
    cJSON_ArrayForEach(level, cJSON_GetObjectItemCaseSensitive(peaks, "levels")) {
        if (before) {
            assert_true(number(level, "bytes") > number(before, "bytes"));
            assert_true(number(level, "bytes_per_second") <= number(before, "bytes_per_second"));
        }
        before = level;
    }
    assert_non_null(before);
}

static void operations_have_a_roofline(void **state) {
    (void)state;
    cJSON *document;
    assert_int_equal(bench_load(cli_path("ops.json"), &document), CLDSA_SUCCESS);
    const cJSON *row;
    int count = 0;
    cJSON_ArrayForEach(row, rows_of(document)) {
        const cJSON *roofline = cJSON_GetObjectItemCaseSensitive(row, "roofline");
        assert_string_equal(text(row, "status"), "ok");
        assert_true(number(roofline, "percent") > 0 && number(roofline, "percent") < 1000);
        double median = number(cJSON_GetObjectItemCaseSensitive(row, "seconds"), "median");
        double percent = 100 * number(roofline, "seconds") / median;
        assert_true(fabs(percent / number(roofline, "percent") - 1) < 1e-9);
        ++count;
    }
    assert_true(count >= 4);
    cJSON_Delete(document);
}

/* Forced tunables stand for tuned ones: the defaults are measured in turn with them. */
static void gain_is_against_defaults(void **state) {
    (void)state;
    cJSON *document;
    cli_run("bench ops rms_norm --preset dsa-decode --budget 0.02 --gain --out '%s' --variant vec --tune ROWS=2",
            cli_path("gain.json"));
    cli_assert_ok();
    assert_int_equal(bench_load(cli_path("gain.json"), &document), CLDSA_SUCCESS);
    const cJSON *row = cJSON_GetArrayItem(rows_of(document), 0);
    const cJSON *usual = cJSON_GetObjectItemCaseSensitive(row, "default");
    assert_string_equal(text(cJSON_GetObjectItemCaseSensitive(row, "tuning"), "match"), "forced");
    assert_string_not_equal(text(row, "tunables"), text(usual, "tunables"));
    double own = number(cJSON_GetObjectItemCaseSensitive(row, "seconds"), "median");
    double other = number(cJSON_GetObjectItemCaseSensitive(usual, "seconds"), "median");
    assert_true(own > 0 && other > 0 && fabs(number(row, "gain") / (other / own) - 1) < 1e-9);
    cJSON_Delete(document);
}

/* Nothing is silently absent: what cannot run has a row with the reason. */
static void failures_have_reasons(void **state) {
    (void)state;
    cJSON *document;
    cli_run("bench ops rms_norm --preset dsa-decode --budget 0.02 --out '%s' --variant vec --tune NONSENSE=2",
            cli_path("failed.json"));
    assert_int_equal(cli_result.code, 1);
    assert_int_equal(bench_load(cli_path("failed.json"), &document), CLDSA_SUCCESS);
    const cJSON *row = cJSON_GetArrayItem(rows_of(document), 0);
    assert_string_equal(text(row, "status"), "error");
    assert_non_null(strstr(text(row, "reason"), "NONSENSE"));
    assert_null(cJSON_GetObjectItemCaseSensitive(row, "seconds"));
    cJSON_Delete(document);
    assert_int_equal(bench_status_of(CLDSA_UNSUPPORTED), BENCH_UNSUPPORTED);
    assert_int_equal(bench_status_of(CL_MEM_OBJECT_ALLOCATION_FAILURE), BENCH_SKIPPED);
    assert_int_equal(bench_status_of(CLDSA_CHECK_FAILED), BENCH_ERROR);
}

/* One length, at which every key is kept: both forms have a time, and the crossover says what was measured. */
static void sparse_is_set_against_dense(void **state) {
    (void)state;
    cJSON *document;
    cldsa_device_info device;
    assert_int_equal(cldsa_select_device(NULL, &device), CLDSA_SUCCESS);
    const int first = device.type & CL_DEVICE_TYPE_CPU ? 256 : 1024;
    if (first > 256) { /* the least that --keys takes */
        cli_run("bench end-to-end --keys 256");
        cli_assert_error(2, "1024|256");
    }
    cli_run("bench end-to-end --keys %d --budget 0.02 --out '%s'", first, cli_path("end.json"));
    cli_assert_ok();
    assert_int_equal(bench_load(cli_path("end.json"), &document), CLDSA_SUCCESS);
    const cJSON *row, *crossover;
    int rows = 0, crossovers = 0;
    cJSON_ArrayForEach(row, rows_of(document)) {
        const cJSON *sparse = cJSON_GetObjectItemCaseSensitive(row, "sparse");
        const cJSON *dense = cJSON_GetObjectItemCaseSensitive(row, "dense");
        double ours = number(cJSON_GetObjectItemCaseSensitive(sparse, "seconds"), "median");
        double theirs = number(cJSON_GetObjectItemCaseSensitive(dense, "seconds"), "median");
        assert_string_equal(text(row, "status"), "ok");
        assert_true(ours > 0 && fabs(number(row, "ratio") / (theirs / ours) - 1) < 1e-9);
        ++rows;
    }
    cJSON_ArrayForEach(crossover, cJSON_GetObjectItemCaseSensitive(document, "crossovers")) {
        row = cJSON_GetArrayItem(rows_of(document), crossovers++);
        assert_string_equal(text(crossover, "mode"), text(row, "mode"));
        assert_true(number(crossover, "from") == first && number(crossover, "to") == first);
        assert_true((number(row, "ratio") > 1) == (number(crossover, "T") == first));
    }
    assert_int_equal(rows, 2);
    assert_int_equal(crossovers, 2);
    cJSON_Delete(document);
}

static void files_round_trip(void **state) {
    (void)state;
    char path[CLI_PATH_SIZE];
    cJSON *again;
    snprintf(path, sizeof path, "%s", cli_path("again.json"));
    assert_int_equal(cldsa_json_write(path, result), CLDSA_SUCCESS);
    assert_int_equal(bench_load(path, &again), CLDSA_SUCCESS);
    assert_true(cJSON_Compare(result, again, true));
    cJSON_Delete(again);
}

/* ---- what is not a result ---------------------------------------------------------------------------------------- */

static void assert_refused(const cJSON *document, const char *message) {
    assert_int_equal(bench_validate(document, "some.json"), CLDSA_INVALID_FILE);
    if (!strstr(cldsa_error_message(), message) || strncmp(cldsa_error_message(), "some.json: ", 11) != 0 ||
        strchr(cldsa_error_message(), '\n'))
        fail_msg("\"%s\" does not say \"%s\"", cldsa_error_message(), message);
}

/* Every key that an object has, taken away and given back, is missed if the page calls it required. */
static void missing_keys_are_named(void **state) {
    (void)state;
    const char *const optional[] = {"reason", "tuning", "crossovers", "preset", "peaks"};
    cJSON *row = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(result, "rows"), 0);
    assert_string_equal(text(row, "status"), "ok");
    cJSON *objects[] = {result, cJSON_GetObjectItemCaseSensitive(result, "system"),
                        cJSON_GetObjectItemCaseSensitive(result, "run"), row,
                        cJSON_GetObjectItemCaseSensitive(row, "seconds")};
    int refused = 0;
    for (size_t i = 0; i < sizeof objects / sizeof *objects; ++i)
        for (int k = cJSON_GetArraySize(objects[i]) - 1; k >= 0; --k) {
            cJSON *item = cJSON_DetachItemFromArray(objects[i], k);
            bool needed = true;
            for (size_t o = 0; o < sizeof optional / sizeof *optional; ++o)
                needed = needed && strcmp(item->string, optional[o]) != 0;
            if (needed)
                assert_refused(result, item->string);
            refused += needed;
            /* At its place again: cJSON has no insertion into objects that keeps names, so it goes to the end. */
            cJSON_AddItemToObject(objects[i], item->string, item);
            assert_int_equal(bench_validate(result, "some.json"), CLDSA_SUCCESS);
        }
    assert_true(refused > 30);
}

static void other_files_are_refused(void **state) {
    (void)state;
    cJSON *copy = cJSON_Duplicate(result, true);
    cJSON_SetNumberValue(cJSON_GetObjectItemCaseSensitive(copy, "schema"), 1);
    assert_refused(copy, "its schema is 1; this cldsa reads 2");
    cJSON_Delete(copy);
    copy = cJSON_CreateObject();
    assert_refused(copy, "no result of cldsa bench");
    cJSON_Delete(copy);
    copy = cJSON_Duplicate(result, true);
    cJSON *row = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(copy, "rows"), 0);
    cJSON_ReplaceItemInObjectCaseSensitive(row, "status", cJSON_CreateString("fine"));
    assert_refused(copy, "rows[0]: status is \"fine\"");
    cJSON_ReplaceItemInObjectCaseSensitive(row, "status", cJSON_CreateString("skipped"));
    assert_refused(copy, "rows[0] lacks \"reason\"");
    cJSON_ReplaceItemInObjectCaseSensitive(row, "status", cJSON_CreateString("ok"));
    cJSON_ReplaceItemInObjectCaseSensitive(row, "value", cJSON_CreateString("12"));
    assert_refused(copy, "rows[0].value must be a number");
    cJSON_ReplaceItemInObjectCaseSensitive(row, "suite", cJSON_CreateString("opps"));
    assert_refused(copy, "no suite \"opps\"");
    cJSON_Delete(copy);
}

static void truncated_files_are_refused(void **state) {
    (void)state;
    char *whole = cJSON_PrintUnformatted(result);
    size_t length = strlen(whole);
    cJSON *document;
    for (size_t cut = 0; cut < length; cut += length / 97 + 1) {
        assert_int_equal(bench_load(cli_write("cut.json", whole, cut), &document), CLDSA_INVALID_FILE);
        assert_null(document);
        assert_non_null(strstr(cldsa_error_message(), "cut.json: "));
    }
    cJSON_free(whole);
    assert_int_not_equal(bench_load(cli_path("absent.json"), &document), CLDSA_SUCCESS);
}

static void names_are_corrected(void **state) {
    (void)state;
    cli_run("bench peek");
    cli_assert_error(2, "did you mean peak");
    cli_run("bench");
    cli_assert_error(2, "a suite is needed");
    cli_run("bench ops --preset experimint");
    cli_assert_error(2, "did you mean experiment");
    cli_run("bench ops topkk");
    cli_assert_error(2, "did you mean topk");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roofline_takes_the_slowest),
        cmocka_unit_test(roofline_knows_levels),
        cmocka_unit_test(peaks_are_sane),
        cmocka_unit_test(forms_of_gpus_are_right),
        cmocka_unit_test(levels_never_rise),
        cmocka_unit_test(operations_have_a_roofline),
        cmocka_unit_test(gain_is_against_defaults),
        cmocka_unit_test(failures_have_reasons),
        cmocka_unit_test(sparse_is_set_against_dense),
        cmocka_unit_test(files_round_trip),
        cmocka_unit_test(missing_keys_are_named),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(names_are_corrected),
    };
    return cmocka_run_group_tests(tests, measure, clean);
}
