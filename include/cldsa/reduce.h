/*
 * Deterministic sums. The order of addition depends on the shape alone, so the same inputs give the same bits.
 */
#ifndef CLDSA_REDUCE_H
#define CLDSA_REDUCE_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cldsa_reduce_kind { CLDSA_REDUCE_SUM = 0, CLDSA_REDUCE_SUM_SQUARES } cldsa_reduce_kind;

/* y = scale * reduction over all elements of x (+ y if accumulate). */
typedef struct cldsa_reduce_args {
    cldsa_tensor x; /* f32, any shape */
    cldsa_tensor y; /* out f32 [1] */
    cldsa_reduce_kind kind;
    float scale;
    bool accumulate;
} cldsa_reduce_args;

CLDSA_API cldsa_status cldsa_reduce(cldsa_context *ctx, const cldsa_reduce_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_reduce_workspace(cldsa_context *ctx, const cldsa_reduce_args *args, size_t *bytes);

/* y[d] = sum over rows of x[r,d]: a bias gradient. */
typedef struct cldsa_column_sum_args {
    cldsa_tensor x; /* f32 [R...,D] */
    cldsa_tensor y; /* out f32 [D] */
} cldsa_column_sum_args;

CLDSA_API cldsa_status cldsa_column_sum(cldsa_context *ctx, const cldsa_column_sum_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_column_sum_workspace(cldsa_context *ctx, const cldsa_column_sum_args *args, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
