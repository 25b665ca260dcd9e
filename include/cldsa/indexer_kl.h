/*
 * The loss that trains the lightning indexer: how far its softmax is from where attention went, over the keys that a
 * query sees.
 *
 *   row_loss[b,i] = sum_j p[b,i,j] * (ln p[b,i,j] - ln softmax_j(I[b,i,:])),  0 ln 0 = 0,  in nats
 *   loss          = sum over all rows
 *
 * I are the scores of cldsa_indexer_scores. A query sees the keys that are in its range, selected (if `selected` is
 * given) and whose score is not -inf; softmax and sum are over those alone, so p elsewhere is not read, or has no
 * effect. p is usually attention's weights, summed over heads and normalised to 1 per row; nothing here asks for that:
 * the loss is as written, and its gradient takes the row's sum of p into account. p must not be negative. A row that
 * sees no key has loss 0 and no gradient. NaN or +inf in a row's scores makes its row_loss, its gradient, and thereby
 * the loss NaN, but no other row's row_loss or gradient. Deterministic: the sum over rows has a fixed order. Source:
 * DeepSeek-V3.2-Exp's training of the indexer, dense (warm-up) and over the selected keys.
 *
 * Cost: that of the scores, 2 H D operations per pair of a query and a key in its range. The scores are made and used
 * for a slab of rows at a time: a workspace of one row's scores, 4 T bytes, and 4 bytes per row of all will do, and
 * what is asked for makes slabs large enough to keep the device busy.
 */
#ifndef CLDSA_INDEXER_KL_H
#define CLDSA_INDEXER_KL_H

#include <cldsa/indexer_scores.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_indexer_kl_args {
    cldsa_tensor q, k, w, k_scale, ks, ke; /* as cldsa_indexer_scores_args */
    cldsa_tensor p;                        /* f32 [B,S,T], at least 0 */
    cldsa_tensor selected;                 /* u8 [B,S,T] or u32 bits [B,S,ceil(T/32)], optional; combines with range */
    cldsa_tensor loss;                     /* out f32 [1] */
    cldsa_tensor row_loss;                 /* out f32 [B,S], optional */
    cldsa_range range;
    bool relu_out;
} cldsa_indexer_kl_args;

/* Errors: those of cldsa_indexer_scores; CLDSA_INSUFFICIENT_WORKSPACE below the least. */
CLDSA_API cldsa_status cldsa_indexer_kl(cldsa_context *ctx, const cldsa_indexer_kl_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_indexer_kl_workspace(cldsa_context *ctx, const cldsa_indexer_kl_args *args, size_t *bytes);

/* The least workspace with which the call works (one row at a time), in bytes. */
CLDSA_API cldsa_status cldsa_indexer_kl_workspace_min(cldsa_context *ctx, const cldsa_indexer_kl_args *args,
                                                      size_t *bytes);

/*
 * Gradients. Of the scores: dI = dloss * (sum(p) * softmax(I) - p) over the keys that a query sees, 0 elsewhere; from
 * there on as cldsa_indexer_scores_backward, whose cost is added: 8 H D operations per pair in all. The loss may be
 * had from the same call, which costs next to nothing, so that training needs no forward call.
 *
 * Scratch: 4 S T bytes per sequence for dI (twice that with relu_out), for as many sequences at a time as the workspace
 * holds, one at least: a key's gradient is a sum over all queries of its sequence. With w [H], whose gradient is a sum
 * over all sequences, all of them at once.
 */
typedef struct cldsa_indexer_kl_backward_args {
    cldsa_tensor q, k, w, k_scale, ks, ke; /* as given to the forward call */
    cldsa_tensor p, selected;              /* as given to the forward call */
    cldsa_tensor dloss;                    /* f32 [1], optional (1): upstream gradient of the loss */
    cldsa_tensor dq;                       /* out, shape of q, f32 */
    cldsa_tensor dk;                       /* out, shape of k, f32 */
    cldsa_tensor dw;                       /* out, shape of w, f32 */
    cldsa_tensor loss;                     /* out f32 [1], optional */
    cldsa_tensor row_loss;                 /* out f32 [B,S], optional */
    cldsa_range range;
    bool relu_out;
} cldsa_indexer_kl_backward_args;

CLDSA_API cldsa_status cldsa_indexer_kl_backward(cldsa_context *ctx, const cldsa_indexer_kl_backward_args *args,
                                                 const cldsa_call *call);
CLDSA_API cldsa_status cldsa_indexer_kl_backward_workspace(cldsa_context *ctx,
                                                           const cldsa_indexer_kl_backward_args *args, size_t *bytes);

/* The least workspace with which the call works (one sequence at a time, if w is [B,S,H]), in bytes. */
CLDSA_API cldsa_status cldsa_indexer_kl_backward_workspace_min(cldsa_context *ctx,
                                                               const cldsa_indexer_kl_backward_args *args,
                                                               size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
