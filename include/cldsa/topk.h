/*
 * Exact top-k of every row.
 *
 * Ties go to the lowest index; -inf is never selected and NaN counts as -inf, so a row may yield fewer than k.
 * The same inputs give the same bits, run after run. Rows up to 2^24 long.
 */
#ifndef CLDSA_TOPK_H
#define CLDSA_TOPK_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cldsa_order {
    CLDSA_ORDER_INDEX = 0, /* ascending index */
    CLDSA_ORDER_SCORE      /* descending score, ties by ascending index */
} cldsa_order;

/*
 * R is the product of the leading extents. At least one of indices and mask is wanted.
 * The number kept of row r is min(k of the row, selectable keys, K if indices is given).
 */
typedef struct cldsa_topk_args {
    cldsa_tensor scores;  /* [R...,T] f32, f16 or bf16 */
    cldsa_tensor k_rows;  /* i32 [R], or [B] with B dividing R (rows r*B/R share an entry), optional; read on the
                             device. Values below 1 select nothing, values above T count as T */
    cldsa_tensor ks, ke;  /* i32 [R], optional: only ks <= t < ke takes part */
    cldsa_tensor indices; /* out i32 [R...,K], optional; unused places hold -1 */
    cldsa_tensor values;  /* out f32 [R...,K], optional, the scores of `indices`; unused places hold -inf */
    cldsa_tensor count;   /* out i32 [R], optional */
    cldsa_tensor mask;    /* out u8 [R...,T] or u32 [R..., ceil(T/32)], optional */
    int k;                /* used when k_rows is not given; 1 .. T */
    cldsa_order order;
} cldsa_topk_args;

CLDSA_API cldsa_status cldsa_topk(cldsa_context *ctx, const cldsa_topk_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_topk_workspace(cldsa_context *ctx, const cldsa_topk_args *args, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
