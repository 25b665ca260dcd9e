/*
 * Two result files side by side: which rows became slower or faster, and how sure that is.
 *
 * A change is that of the time: 0.1 is a tenth slower, whether the file holds seconds or a rate. Its interval is a
 * bootstrap of the ratio of medians over blocks of samples that follow each other, since a machine's moods last longer
 * than one sample. It knows what varied within the two runs, not what differs from run to run.
 */
#ifndef CLDSA_BENCH_COMPARE_H
#define CLDSA_BENCH_COMPARE_H

#include "bench/result.h"

typedef enum bench_verdict {
    BENCH_REGRESSION, /* significantly slower, and by more than the threshold */
    BENCH_BROKEN,     /* had a time, and is an error or unsupported now: a regression too */
    BENCH_SLOWER,     /* significantly, but within the threshold */
    BENCH_FASTER,     /* significantly */
    BENCH_FIXED,      /* has a time now */
    BENCH_SAME,       /* the interval holds "no change" */
    BENCH_UNSURE,     /* too few samples for an interval */
    BENCH_NO_TIME,    /* no time in both, or skipped now */
    BENCH_NUM_VERDICTS
} bench_verdict;
extern const char *const bench_verdict_names[];

typedef struct bench_difference {
    char row[BENCH_KEY_SIZE];    /* bench_row_key's words */
    const char *quantity, *unit; /* "" where a side has no time */
    bench_verdict verdict;
    double a, b;                     /* in the unit */
    double change, low, high;        /* of the time, with its interval; NaN if unknown */
    const char *reason_a, *reason_b; /* why there is no time, "" else; point into the files */
} bench_difference;

typedef struct bench_comparison {
    bench_difference *differences; /* by verdict, the worst first */
    size_t count;
    size_t of_verdict[BENCH_NUM_VERDICTS];
    char (*only_a)[BENCH_KEY_SIZE], (*only_b)[BENCH_KEY_SIZE]; /* rows of one file only */
    size_t num_only_a, num_only_b;
} bench_comparison;

extern const double bench_compare_confidence; /* of the intervals */

/* Of two valid result files, which must outlive it. `threshold` 0.05: regressions are more than 5 % slower. */
cldsa_status bench_compare(const cJSON *a, const cJSON *b, double threshold, bench_comparison *out);
void bench_comparison_free(bench_comparison *comparison);

/* Regressions and broken rows. */
size_t bench_comparison_regressions(const bench_comparison *comparison);

#endif
