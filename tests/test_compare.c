/* cldsa compare on made-up files: verdicts, intervals, exit codes, refusals. */
#include "bench/compare.h"
#include "tests/bench_results.h"
#include "tests/cli_runner.h"

#include <gsl/gsl_randist.h>
#include <gsl/gsl_rng.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static cJSON *before, *after;

static int make_files(void **state) {
    (void)state;
    before = result_file("Device", "2026-01-01T00:00:00Z");
    after = result_file("Device", "2026-01-02T00:00:00Z");
    return 0;
}

static int delete_files(void **state) {
    (void)state;
    cJSON_Delete(before);
    cJSON_Delete(after);
    return 0;
}

static const bench_difference *find(const bench_comparison *comparison, const char *part) {
    for (size_t i = 0; i < comparison->count; ++i)
        if (strstr(comparison->differences[i].row, part))
            return &comparison->differences[i];
    fail_msg("no row with %s", part);
    return NULL;
}

static void assert_verdict(const bench_comparison *comparison, const char *part, bench_verdict verdict) {
    const bench_difference *found = find(comparison, part);
    if (found->verdict != verdict)
        fail_msg("%s: %s instead of %s; %g in [%g, %g]", part, bench_verdict_names[found->verdict],
                 bench_verdict_names[verdict], found->change, found->low, found->high);
}

static void add_pair(const char *shape, double factor, double spread) {
    static unsigned seed = 1;
    result_add_op(before, "topk", shape, 1e-3, spread, seed++);
    result_add_op(after, "topk", shape, factor * 1e-3, spread, seed++);
}

static void verdicts(void **state) {
    (void)state;
    add_pair("R=same", 1.0, 0.02);
    add_pair("R=regression", 1.2, 0.02);
    add_pair("R=slower", 1.03, 0.005);
    add_pair("R=faster", 0.8, 0.02);
    add_pair("R=noise", 1.06, 0.5);
    bench_comparison comparison;
    assert_int_equal(bench_compare(before, after, 0.05, &comparison), CLDSA_SUCCESS);
    assert_int_equal(comparison.count, 5);
    assert_verdict(&comparison, "R=same", BENCH_SAME);
    assert_verdict(&comparison, "R=regression", BENCH_REGRESSION);
    assert_verdict(&comparison, "R=slower", BENCH_SLOWER);
    assert_verdict(&comparison, "R=faster", BENCH_FASTER);
    assert_verdict(&comparison, "R=noise", BENCH_SAME);
    assert_int_equal(bench_comparison_regressions(&comparison), 1);
    const bench_difference *regression = &comparison.differences[0]; /* the worst first */
    assert_non_null(strstr(regression->row, "R=regression"));
    assert_true(regression->low < 0.2 && regression->high > 0.2 && regression->low > 0.15 && regression->high < 0.25);
    bench_comparison_free(&comparison);
    /* With another threshold it is only slower, and what was only slower is a regression. */
    assert_int_equal(bench_compare(before, after, 0.5, &comparison), CLDSA_SUCCESS);
    assert_verdict(&comparison, "R=regression", BENCH_SLOWER);
    bench_comparison_free(&comparison);
    assert_int_equal(bench_compare(before, after, 0.01, &comparison), CLDSA_SUCCESS);
    assert_verdict(&comparison, "R=slower", BENCH_REGRESSION);
    bench_comparison_free(&comparison);
}

/* Rates count the other way round, and two quantities of one row are two differences. */
static void rates_and_pairs(void **state) {
    (void)state;
    result_add_train(before, 64, "dense", 1000);
    result_add_train(after, 64, "dense", 800);
    result_add_peak(before, "read", "B/s", 4096, 1e10);
    result_add_peak(after, "read", "B/s", 4096, 2e10);
    result_add_peak(before, "launch", "s", 0, 1e-5);
    result_add_peak(after, "launch", "s", 0, 2e-5);
    result_add_end_to_end(before, "decode", 4096, 1e-3, 2e-3);
    result_add_end_to_end(after, "decode", 4096, 1e-3, 4e-3);
    bench_comparison comparison;
    assert_int_equal(bench_compare(before, after, 0.05, &comparison), CLDSA_SUCCESS);
    assert_int_equal(comparison.count, 5);
    assert_verdict(&comparison, "train", BENCH_REGRESSION);
    assert_true(fabs(find(&comparison, "train")->change - 0.25) < 1e-9);
    assert_verdict(&comparison, "read", BENCH_FASTER);
    assert_verdict(&comparison, "launch", BENCH_REGRESSION);
    assert_int_equal(comparison.of_verdict[BENCH_REGRESSION], 3);
    for (size_t i = 0; i < comparison.count; ++i)
        if (strstr(comparison.differences[i].row, "end-to-end"))
            assert_int_equal(comparison.differences[i].verdict,
                             strcmp(comparison.differences[i].quantity, "dense") == 0 ? BENCH_REGRESSION : BENCH_SAME);
    bench_comparison_free(&comparison);
}

static void add_status(const char *shape, const char *status_before, const char *status_after) {
    cJSON *row = result_add_op(before, "gemm", shape, 1e-3, 0.01, 1);
    if (status_before)
        result_fail(row, status_before, "because of A");
    row = result_add_op(after, "gemm", shape, 1e-3, 0.01, 1);
    if (status_after)
        result_fail(row, status_after, "because of B");
}

static void statuses_and_lone_rows(void **state) {
    (void)state;
    add_status("M=broken", NULL, "error");
    add_status("M=gone", NULL, "unsupported");
    add_status("M=fixed", "error", NULL);
    add_status("M=never", "unsupported", "unsupported");
    add_status("M=skipped", NULL, "skipped");
    result_add_op(before, "gemm", "M=A", 1e-3, 0.01, 1);
    result_add_op(after, "gemm", "M=B", 1e-3, 0.01, 1);
    bench_comparison comparison;
    assert_int_equal(bench_compare(before, after, 0.05, &comparison), CLDSA_SUCCESS);
    assert_verdict(&comparison, "M=broken", BENCH_BROKEN);
    assert_verdict(&comparison, "M=gone", BENCH_BROKEN);
    assert_verdict(&comparison, "M=fixed", BENCH_FIXED);
    assert_verdict(&comparison, "M=never", BENCH_NO_TIME);
    assert_verdict(&comparison, "M=skipped", BENCH_NO_TIME);
    assert_string_equal(find(&comparison, "M=broken")->reason_b, "because of B");
    assert_int_equal(bench_comparison_regressions(&comparison), 2);
    assert_int_equal(comparison.num_only_a, 1);
    assert_int_equal(comparison.num_only_b, 1);
    assert_string_equal(comparison.only_a[0], "ops gemm M=A");
    assert_string_equal(comparison.only_b[0], "ops gemm M=B");
    bench_comparison_free(&comparison);
}

/* The same call twice in a file (two variants forced, say) is matched by its place; dtypes and masks tell calls apart.
 */
static void rows_are_told_apart(void **state) {
    (void)state;
    for (int i = 0; i < 2; ++i) {
        result_add_op(before, "topk", "R=1", i ? 1e-3 : 2e-3, 0.01, 1);
        result_add_op(after, "topk", "R=1", i ? 1e-3 : 2e-3, 0.01, 1);
    }
    result_set(result_add_op(before, "rope", "R=1", 1e-3, 0.01, 1), "dtypes", cJSON_CreateString("x=BF16"));
    result_add_op(after, "rope", "R=1", 1e-3, 0.01, 1);
    bench_comparison comparison;
    assert_int_equal(bench_compare(before, after, 0.05, &comparison), CLDSA_SUCCESS);
    assert_int_equal(comparison.of_verdict[BENCH_SAME], 2);
    assert_int_equal(comparison.count, 2);
    assert_int_equal(comparison.num_only_a, 1);
    assert_int_equal(comparison.num_only_b, 1);
    bench_comparison_free(&comparison);
}

static void few_samples_prove_nothing(void **state) {
    (void)state;
    cJSON *row = result_add_op(before, "topk", "R=1", 1e-3, 0.01, 1);
    result_set(row, "seconds", result_statistics(1e-3, 0.01, 4, 1));
    result_add_op(after, "topk", "R=1", 9e-3, 0.01, 2);
    bench_comparison comparison;
    assert_int_equal(bench_compare(before, after, 0.05, &comparison), CLDSA_SUCCESS);
    assert_verdict(&comparison, "R=1", BENCH_UNSURE);
    assert_int_equal(bench_comparison_regressions(&comparison), 0);
    bench_comparison_free(&comparison);
}

/* Samples whose neighbours resemble each other, as on a machine with moods. */
static cJSON *moody_statistics(gsl_rng *random, double moodiness) {
    cJSON *out = result_statistics(1e-3, 0.01, 100, 1), *values = cJSON_CreateArray();
    double mood = gsl_ran_gaussian(random, 0.05);
    for (int i = 0; i < 100; ++i) {
        mood = moodiness * mood + gsl_ran_gaussian(random, 0.05 * sqrt(1 - moodiness * moodiness));
        cJSON_AddItemToArray(values, cJSON_CreateNumber(1e-3 * exp(mood)));
    }
    result_set(out, "values", values);
    return out;
}

static size_t false_alarms(double moodiness, int rows) {
    gsl_rng *random = gsl_rng_alloc(gsl_rng_taus2);
    char shape[32];
    for (int i = 0; i < rows; ++i) {
        snprintf(shape, sizeof shape, "R=%d", i);
        result_set(result_add_op(before, "topk", shape, 1e-3, 0, 1), "seconds", moody_statistics(random, moodiness));
        result_set(result_add_op(after, "topk", shape, 1e-3, 0, 1), "seconds", moody_statistics(random, moodiness));
    }
    gsl_rng_free(random);
    bench_comparison comparison;
    assert_int_equal(bench_compare(before, after, 0.05, &comparison), CLDSA_SUCCESS);
    size_t alarms = (size_t)rows - comparison.of_verdict[BENCH_SAME];
    bench_comparison_free(&comparison);
    return alarms;
}

/* Nothing changed in 200 rows: at 99 % two false alarms are to be expected, and some more if neighbours correlate. */
static void intervals_keep_their_promise(void **state) {
    (void)state;
    assert_in_range(false_alarms(0, 200), 0, 6);
}

static void intervals_allow_for_moods(void **state) {
    (void)state;
    assert_in_range(false_alarms(0.5, 200), 0, 6);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static void save(const char *name, const cJSON *file) {
    assert_int_equal(cldsa_json_write(cli_path(name), file), CLDSA_SUCCESS);
}

static void compare(const char *options) {
    save("a.json", before);
    save("b.json", after);
    cli_run("compare '%s' '%s' %s", cli_path("a.json"), cli_path("b.json"), options);
}

static void assert_said(const char *part) {
    if (!strstr(cli_result.out, part))
        fail_msg("\"%s\" is not in:\n%s", part, cli_result.out);
}

static void exit_codes(void **state) {
    (void)state;
    add_pair("R=1", 1.1, 0.01);
    result_add_op(before, "gemm", "M=lone", 1e-3, 0.01, 1);
    compare("");
    assert_int_equal(cli_result.code, 1);
    assert_said("regression");
    assert_said("+10.");
    assert_said("only in A  ops gemm M=lone");
    compare("--threshold 20%");
    assert_int_equal(cli_result.code, 0);
    compare("--threshold 8");
    assert_int_equal(cli_result.code, 1);
    compare("--json");
    assert_int_equal(cli_result.code, 1);
    cJSON *json = cJSON_Parse(cli_result.out);
    assert_non_null(json);
    assert_true(bench_number(json, "regressions") == 1);
    const cJSON *row = cJSON_GetArrayItem(bench_member(json, "rows"), 0);
    assert_true(bench_is(row, "verdict", "regression"));
    assert_true(bench_number(row, "low") > 0.05 && bench_number(row, "low") < bench_number(row, "high"));
    assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(bench_member(json, "only_a"), 0)), "ops gemm M=lone");
    cJSON_Delete(json);
}

static void other_causes_are_named(void **state) {
    (void)state;
    add_pair("R=1", 1, 0.01);
    compare("");
    assert_int_equal(cli_result.code, 0);
    assert_null(strstr(cli_result.out, "note:"));
    result_set(cJSON_GetObjectItem(after, "system"), "driver", cJSON_CreateString("1.3"));
    compare("");
    assert_said("note: another driver");
    result_set(cJSON_GetObjectItem(cJSON_GetObjectItem(after, "system"), "host"), "load_before", cJSON_CreateNumber(2));
    compare("");
    assert_said("note: B was measured on a busy machine");
}

static void bad_input(void **state) {
    (void)state;
    add_pair("R=1", 1, 0.01);
    save("a.json", before);
    char good[CLI_PATH_SIZE];
    snprintf(good, sizeof good, "%s", cli_path("a.json"));
    cli_run("compare '%s'", good);
    cli_assert_error(2, "two result files");
    cli_run("compare '%s' '%s' '%s'", good, good, good);
    cli_assert_error(2, "third");
    cli_run("compare '%s' '%s' --treshold 5", good, good);
    cli_assert_error(2, "treshold|--threshold");
    cli_run("compare '%s' '%s' --threshold -5%%", good, good);
    cli_assert_error(2, "threshold|-5");
    cli_run("compare '%s' '%s' --threshold five", good, good);
    cli_assert_error(2, "threshold|five");
    cli_run("compare '%s' '%s'", good, cli_path("absent.json"));
    cli_assert_error(2, "absent.json");
    cli_run("compare '%s' '%s'", good, cli_write("empty.json", "", 0));
    cli_assert_error(2, "empty.json");
    char *text = cJSON_Print(before);
    cli_run("compare '%s' '%s'", good, cli_write("cut.json", text, strlen(text) / 2));
    cli_assert_error(2, "cut.json|not valid JSON");
    cJSON_free(text);
    cli_run("compare '%s' '%s'", good, cli_write("other.json", "{\"name\": 1}", 11));
    cli_assert_error(2, "other.json|schema");
    result_set(after, "schema", cJSON_CreateNumber(1));
    save("old.json", after);
    cli_run("compare '%s' '%s'", good, cli_path("old.json"));
    cli_assert_error(2, "old.json|schema|1|2");
}

int main(void) {
#define on_files(test) cmocka_unit_test_setup_teardown(test, make_files, delete_files)
    const struct CMUnitTest tests[] = {
        on_files(verdicts),
        on_files(rates_and_pairs),
        on_files(statuses_and_lone_rows),
        on_files(rows_are_told_apart),
        on_files(few_samples_prove_nothing),
        on_files(intervals_keep_their_promise),
        on_files(intervals_allow_for_moods),
        on_files(exit_codes),
        on_files(other_causes_are_named),
        on_files(bad_input),
    };
    return cmocka_run_group_tests(tests, cli_make_directory, cli_remove_directory);
}
