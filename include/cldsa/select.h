/*
 * Indexer scores and top-k together, in bounded memory: the scores of a slab of rows at a time.
 *
 * The same result as cldsa_indexer_scores followed by cldsa_topk, but the score matrix never exists whole: any
 * workspace from the minimum up works, and more is used for larger slabs.
 */
#ifndef CLDSA_SELECT_H
#define CLDSA_SELECT_H

#include <cldsa/indexer_scores.h>
#include <cldsa/topk.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_select_args {
    cldsa_tensor q, k, w, k_scale, ks, ke; /* as cldsa_indexer_scores_args */
    cldsa_tensor k_rows;                   /* i32 [B,S] or [B], optional */
    cldsa_tensor indices;                  /* out i32 [B,S,K], -1 in unused places */
    cldsa_tensor values;                   /* out f32 [B,S,K], optional */
    cldsa_tensor count;                    /* out i32 [B,S], optional */
    cldsa_range range;
    bool relu_out;
    int k_max; /* used when k_rows is not given; 1 .. T */
    cldsa_order order;
} cldsa_select_args;

CLDSA_API cldsa_status cldsa_select(cldsa_context *ctx, const cldsa_select_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_select_workspace(cldsa_context *ctx, const cldsa_select_args *args, size_t *bytes);

/* The least workspace with which the call works (one row at a time), in bytes. */
CLDSA_API cldsa_status cldsa_select_workspace_min(cldsa_context *ctx, const cldsa_select_args *args, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
