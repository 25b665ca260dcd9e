/* The row sum of cl/reduce.cl for other operations' partial results. */
#ifndef CLDSA_OPS_REDUCE_H
#define CLDSA_OPS_REDUCE_H

#include "host/ops/op.h"

/*
 * Enqueues y[b, c] = sum of x[r, c] over the `per_block` rows of block b. Columns at and above `split` go to
 * second[c - split] instead (only with one block). The variant is called vec or simt and has tunables COLS and, simt,
 * SLICES.
 */
typedef struct cldsa_sum_rows {
    cldsa_tensor x, y, second;
    int64_t rows, columns, per_block, split;
} cldsa_sum_rows;
cldsa_status cldsa_run_sum_rows(cldsa_run *run, const char *options, const cldsa_sum_rows *sum);

/* Tunables of cldsa_run_sum_rows, for variants' tables. */
#define CLDSA_TUNE_COLS(fallback_)                                                                                     \
    { "COLS", (fallback_), {16, 32, 64}, "columns per work-item (vec) or group (simt) of the row sum" }
#define CLDSA_TUNE_SLICES                                                                                              \
    { "SLICES", 8, {4, 8, 16}, "row slices per group of the row sum" }

/* The first and last of ROWS, WG, PER_LANE, COLS and SLICES, the tunables of a norm's backward pass by groups. */
void cldsa_norm_rows_defaults(const cldsa_run *run, int64_t rows, int *tune);

#endif
