/*
 * The lightning indexer: a cheap score for every (query, key) pair.
 *
 *   scores[b,i,j] = k_scale[b,j] * sum_h w[b,i,h] * relu(q[b,i,h,:] . k[b,j,h',:])
 *
 * with h' = h (Hk = H: a key per head) or 0 (Hk = 1: one key for all heads), then relu() of the whole if
 * relu_out. Keys outside a row's range score -inf. Source: DeepSeek-V3.2-Exp's indexer; with per-head keys and
 * relu_out the published experiment's.
 */
#ifndef CLDSA_INDEXER_SCORES_H
#define CLDSA_INDEXER_SCORES_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which keys j a query row i may see. */
typedef enum cldsa_range {
    CLDSA_RANGE_ALL = 0, /* 0 <= j < T */
    CLDSA_RANGE_CAUSAL,  /* 0 <= j < T - S + i + 1: the last query sees the last key */
    CLDSA_RANGE_ROWS     /* ks[b,i] <= j < ke[b,i], clipped to 0 .. T */
} cldsa_range;

typedef struct cldsa_indexer_scores_args {
    cldsa_tensor q;       /* [B,S,H,D] f32, f16 or bf16 */
    cldsa_tensor k;       /* [B,T,Hk,D], Hk = H or 1; dtype of q */
    cldsa_tensor w;       /* [H] or [B,S,H] f32 */
    cldsa_tensor k_scale; /* [B,T] f32, optional (1) */
    cldsa_tensor ks, ke;  /* [B,S] i32, for CLDSA_RANGE_ROWS */
    cldsa_tensor scores;  /* out [B,S,T] f32, f16 or bf16; every element is written */
    cldsa_range range;
    bool relu_out;
} cldsa_indexer_scores_args;

CLDSA_API cldsa_status cldsa_indexer_scores(cldsa_context *ctx, const cldsa_indexer_scores_args *args,
                                            const cldsa_call *call);
CLDSA_API cldsa_status cldsa_indexer_scores_workspace(cldsa_context *ctx, const cldsa_indexer_scores_args *args,
                                                      size_t *bytes);

/*
 * Gradients for an upstream gradient dscores. Positions outside the range contribute nothing, nor do those whose
 * upstream gradient is 0, whatever q and k hold there. Deterministic.
 */
typedef struct cldsa_indexer_scores_backward_args {
    cldsa_tensor q, k, w, k_scale, ks, ke; /* as given to the forward call */
    cldsa_tensor dscores;                  /* [B,S,T] f32 */
    cldsa_tensor dq;                       /* out, shape of q, f32 */
    cldsa_tensor dk;                       /* out, shape of k, f32 */
    cldsa_tensor dw;                       /* out, shape of w, f32 */
    cldsa_range range;
    bool relu_out;
} cldsa_indexer_scores_backward_args;

CLDSA_API cldsa_status cldsa_indexer_scores_backward(cldsa_context *ctx, const cldsa_indexer_scores_backward_args *args,
                                                     const cldsa_call *call);
CLDSA_API cldsa_status cldsa_indexer_scores_backward_workspace(cldsa_context *ctx,
                                                               const cldsa_indexer_scores_backward_args *args,
                                                               size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
