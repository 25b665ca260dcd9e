/* Matching rows, and bootstrap intervals of their changes. */
#include "bench/compare.h"

#include <gsl/gsl_math.h>
#include <gsl/gsl_rng.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Five against five is the least with which even a complete separation is rarer by chance than the intervals allow. */
enum { RESAMPLES = 4000, LEAST_SAMPLES = 5 };

const double bench_compare_confidence = 0.99;
const char *const bench_verdict_names[] = {"regression", "broken", "slower", "faster",
                                           "fixed",      "same",   "unsure", "no time"};

/* ---- intervals --------------------------------------------------------------------------------------------------- */

/* The median of as many samples, drawn in blocks that may wrap around the end. */
static double resampled_median(const bench_quantity *quantity, gsl_rng *random) {
    double drawn[BENCH_KEPT_SAMPLES];
    size_t block = (size_t)lround(cbrt((double)quantity->count));
    for (size_t i = 0, at = 0; i < quantity->count; ++i, ++at) {
        if (i % block == 0)
            at = gsl_rng_uniform_int(random, quantity->count);
        drawn[i] = quantity->values[at % quantity->count];
    }
    return gsl_stats_median(drawn, 1, quantity->count);
}

static double change_of(double before, double after, bool rate) {
    return (rate ? before / after : after / before) - 1;
}

static void find_interval(const bench_quantity *a, const bench_quantity *b, bench_difference *out) {
    if (a->count < LEAST_SAMPLES || b->count < LEAST_SAMPLES)
        return;
    double *changes = malloc(RESAMPLES * sizeof *changes);
    gsl_rng *random = gsl_rng_alloc(gsl_rng_taus2); /* its default seed: the same files give the same verdict */
    if (changes && random) {
        for (int i = 0; i < RESAMPLES; ++i)
            changes[i] = change_of(resampled_median(a, random), resampled_median(b, random), a->rate);
        gsl_sort(changes, 1, RESAMPLES);
        double tail = (1 - bench_compare_confidence) / 2;
        out->low = gsl_stats_quantile_from_sorted_data(changes, 1, RESAMPLES, tail);
        out->high = gsl_stats_quantile_from_sorted_data(changes, 1, RESAMPLES, 1 - tail);
    }
    if (random)
        gsl_rng_free(random);
    free(changes);
}

/* ---- one row ----------------------------------------------------------------------------------------------------- */

static bench_verdict judge(const bench_difference *difference, double threshold) {
    if (isnan(difference->low) || isnan(difference->high))
        return BENCH_UNSURE;
    if (difference->low > 0)
        return difference->change > threshold ? BENCH_REGRESSION : BENCH_SLOWER;
    return difference->high < 0 ? BENCH_FASTER : BENCH_SAME;
}

static bench_difference compare_measures(const bench_quantity *a, const bench_quantity *b, double threshold) {
    bench_difference out = {.quantity = a->name,
                            .unit = a->unit,
                            .a = a->middle,
                            .b = b->middle,
                            .change = change_of(a->middle, b->middle, a->rate),
                            .low = NAN,
                            .high = NAN};
    find_interval(a, b, &out);
    out.verdict = judge(&out, threshold);
    return out;
}

static bench_difference compare_statuses(const cJSON *a, const cJSON *b) {
    bench_difference out = {.quantity = "",
                            .unit = "",
                            .verdict = BENCH_NO_TIME,
                            .a = NAN,
                            .b = NAN,
                            .change = NAN,
                            .low = NAN,
                            .high = NAN};
    bool skipped = bench_is(b, "status", bench_status_names[BENCH_SKIPPED]);
    if (bench_row_is_ok(a) && !bench_row_is_ok(b) && !skipped)
        out.verdict = BENCH_BROKEN;
    if (!bench_row_is_ok(a) && bench_row_is_ok(b))
        out.verdict = BENCH_FIXED;
    return out;
}

/* ---- two files --------------------------------------------------------------------------------------------------- */

/* The rows of a file by key; a key that comes again is told apart by its place. */
typedef struct row_list {
    struct listed_row {
        char key[BENCH_KEY_SIZE];
        const cJSON *row;
        bool matched;
    } * rows;
    size_t count;
} row_list;

static bool list_rows(const cJSON *result, row_list *list) {
    const cJSON *rows = bench_member(result, "rows"), *row;
    list->rows = calloc((size_t)cJSON_GetArraySize(rows) + 1, sizeof *list->rows);
    list->count = 0;
    if (list->rows)
        cJSON_ArrayForEach(row, rows) {
            list->rows[list->count].row = row;
            bench_row_key(row, list->rows[list->count++].key);
        }
    return list->rows != NULL;
}

static struct listed_row *find_match(row_list *list, const char *key) {
    for (size_t i = 0; i < list->count; ++i)
        if (!list->rows[i].matched && strcmp(list->rows[i].key, key) == 0)
            return &list->rows[i];
    return NULL;
}

static void add(bench_comparison *out, const struct listed_row *a, const struct listed_row *b,
                bench_difference difference) {
    memcpy(difference.row, a->key, BENCH_KEY_SIZE);
    difference.reason_a = bench_text(a->row, "reason");
    difference.reason_b = bench_text(b->row, "reason");
    out->of_verdict[difference.verdict]++;
    out->differences[out->count++] = difference;
}

static void compare_rows(const struct listed_row *a, const struct listed_row *b, double threshold,
                         bench_comparison *out) {
    bench_quantity before[BENCH_MAX_QUANTITIES], after[BENCH_MAX_QUANTITIES];
    int num_before = bench_row_quantities(a->row, before), num_after = bench_row_quantities(b->row, after);
    if (!num_before || !num_after) {
        add(out, a, b, compare_statuses(a->row, b->row));
        return;
    }
    for (int i = 0; i < num_before; ++i)
        for (int j = 0; j < num_after; ++j)
            if (strcmp(before[i].name, after[j].name) == 0)
                add(out, a, b, compare_measures(&before[i], &after[j], threshold));
}

static int by_verdict(const void *left, const void *right) {
    const bench_difference *a = left, *b = right;
    if (a->verdict != b->verdict)
        return a->verdict < b->verdict ? -1 : 1;
    double size_a = fabs(a->change), size_b = fabs(b->change);
    if (size_a != size_b && !isnan(size_a) && !isnan(size_b))
        return size_a > size_b ? -1 : 1;
    return strcmp(a->row, b->row);
}

static void match(row_list *a, row_list *b, double threshold, bench_comparison *out) {
    for (size_t i = 0; i < a->count; ++i) {
        struct listed_row *other = find_match(b, a->rows[i].key);
        if (!other) {
            memcpy(out->only_a[out->num_only_a++], a->rows[i].key, BENCH_KEY_SIZE);
            continue;
        }
        other->matched = true;
        compare_rows(&a->rows[i], other, threshold, out);
    }
    for (size_t i = 0; i < b->count; ++i)
        if (!b->rows[i].matched)
            memcpy(out->only_b[out->num_only_b++], b->rows[i].key, BENCH_KEY_SIZE);
    qsort(out->differences, out->count, sizeof *out->differences, by_verdict);
}

cldsa_status bench_compare(const cJSON *a, const cJSON *b, double threshold, bench_comparison *out) {
    *out = (bench_comparison){0};
    row_list before = {0}, after = {0};
    bool room = list_rows(a, &before) && list_rows(b, &after);
    if (room) {
        out->differences = calloc(before.count * BENCH_MAX_QUANTITIES + 1, sizeof *out->differences);
        out->only_a = calloc(before.count + 1, sizeof *out->only_a);
        out->only_b = calloc(after.count + 1, sizeof *out->only_b);
        room = out->differences && out->only_a && out->only_b;
    }
    if (room)
        match(&before, &after, threshold, out);
    else
        bench_comparison_free(out);
    free(before.rows);
    free(after.rows);
    return room ? CLDSA_SUCCESS : cldsa_fail(CLDSA_OUT_OF_MEMORY, "compare: out of memory");
}

void bench_comparison_free(bench_comparison *comparison) {
    free(comparison->differences);
    free(comparison->only_a);
    free(comparison->only_b);
    *comparison = (bench_comparison){0};
}

size_t bench_comparison_regressions(const bench_comparison *comparison) {
    return comparison->of_verdict[BENCH_REGRESSION] + comparison->of_verdict[BENCH_BROKEN];
}
