/*
 * From which context length on does sparsity pay on this device? Scoring, selecting and attending to what was selected
 * (select, sparse_attention), against attending to everything (masked_attention), in latent form over one sequence:
 * decode (one query) and prefill (as many queries as keys).
 */
#ifndef CLDSA_BENCH_END_TO_END_H
#define CLDSA_BENCH_END_TO_END_H

#include "bench/bench.h"

typedef struct bench_end_row {
    const char *mode; /* "decode" or "prefill" */
    int64_t s, t, k;
    char shape[BENCH_TEXT], dtype[16];
    const char *dense_form; /* which form of dense attention was the faster one */
    bench_status status;
    char reason[2 * BENCH_TEXT];
    bench_samples sparse, select, attend, dense; /* seconds; sparse: both calls in one stream */
    size_t workspace;                            /* bytes given to the sparse calls */
} bench_end_row;

/* The smallest T from which on sparsity pays at every measured length; t 0: not within from .. to. */
typedef struct bench_crossover {
    const char *mode;
    int64_t k, from, to, t;
} bench_crossover;

enum { BENCH_END_MODES = 2 };

typedef struct bench_end_options {
    int64_t most_keys; /* longer contexts are left out; 0: as the device's kind allows */
    double budget;     /* seconds of measuring per row */
    void (*row)(void *user, const bench_end_row *row);
    void *user;
} bench_end_options;

/* Failures are rows; CLDSA_INVALID_ARGUMENT where most_keys allows none (below 256 on CPUs, 1024 elsewhere).
 * crossovers[] has BENCH_END_MODES entries; one whose `to` is 0 had no row that is ok. */
cldsa_status bench_end_to_end(cldsa_context *ctx, const bench_end_options *options, bench_crossover *crossovers);

cJSON *bench_end_row_json(const bench_end_row *row);
cJSON *bench_crossover_json(const bench_crossover *crossover);
void bench_end_head(void);
void bench_end_row_print(const bench_end_row *row);
void bench_crossover_print(const bench_crossover *crossover);

#endif
