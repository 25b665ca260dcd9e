/*
 * Attention over a selection: each query row attends to the keys its indices name. The cost follows K, not T.
 *
 * Indices that are -1, negative or >= T are skipped, whoever produced them; a repeated index counts as often as it
 * stands there. A row without a valid key gives zeros and lse = +inf. With attn_sink a head's output is
 * scaled by 1 / (1 + exp(sink - lse)); lse itself is unaffected; +-inf sinks are legal.
 */
#ifndef CLDSA_SPARSE_ATTENTION_H
#define CLDSA_SPARSE_ATTENTION_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_sparse_attention_args {
    cldsa_tensor q;           /* [B,S,H,D] f32, f16 or bf16 */
    cldsa_tensor k;           /* [B,T,Hk,D], Hk divides H; in latent form (v not given) the value is the first v_dim */
    cldsa_tensor v;           /* [B,T,Hk,Dv], optional: not given means latent */
    cldsa_tensor indices;     /* i32 [B,S,K] */
    cldsa_tensor topk_length; /* i32 [B,S], optional: only the first topk_length[b,i] places of a row count */
    cldsa_tensor attn_sink;   /* f32 [H], optional */
    cldsa_tensor out;         /* out [B,S,H,Dv], f32, f16 or bf16 */
    cldsa_tensor lse;         /* out f32 [B,S,H], natural log, optional */
    int v_dim;                /* Dv in latent form, 1 .. D */
    float softmax_scale;      /* 0 means D^-1/2 */
} cldsa_sparse_attention_args;

CLDSA_API cldsa_status cldsa_sparse_attention(cldsa_context *ctx, const cldsa_sparse_attention_args *args,
                                              const cldsa_call *call);
CLDSA_API cldsa_status cldsa_sparse_attention_workspace(cldsa_context *ctx, const cldsa_sparse_attention_args *args,
                                                        size_t *bytes);

/*
 * The least workspace with which the call works, in bytes: 0, but where GPUs compute a slab of queries at a time (slab,
 * the default for 64 heads of a kv head and more and hundreds of queries), of which it holds one: about 4 K H. The
 * result does not depend on how many it holds.
 */
CLDSA_API cldsa_status cldsa_sparse_attention_workspace_min(cldsa_context *ctx, const cldsa_sparse_attention_args *args,
                                                            size_t *bytes);

/*
 * Deterministic, without float atomics: contributions to a key are summed in query order, through an inverted index of
 * the selection (simt, tile) or by work-items that own their sums (vec; how many depends on the workspace given). GPUs
 * compute the latent form of many heads (tile) for a slab of queries at a time, as many as the workspace holds; the
 * result does not depend on it.
 */
typedef struct cldsa_sparse_attention_backward_args {
    cldsa_tensor q, k, v, indices, topk_length, attn_sink; /* as given to the forward call */
    cldsa_tensor out, lse;                                 /* as the forward call wrote them; out f32 */
    cldsa_tensor dout;                                     /* f32 [B,S,H,Dv] */
    cldsa_tensor dq;                                       /* out f32, shape of q */
    cldsa_tensor dk;    /* out f32, shape of k; in latent form it holds the value's gradient too */
    cldsa_tensor dv;    /* out f32, shape of v; only with v */
    cldsa_tensor dsink; /* out f32 [H], optional, with attn_sink */
    int v_dim;
    float softmax_scale;
} cldsa_sparse_attention_backward_args;

CLDSA_API cldsa_status cldsa_sparse_attention_backward(cldsa_context *ctx,
                                                       const cldsa_sparse_attention_backward_args *args,
                                                       const cldsa_call *call);
CLDSA_API cldsa_status cldsa_sparse_attention_backward_workspace(cldsa_context *ctx,
                                                                 const cldsa_sparse_attention_backward_args *args,
                                                                 size_t *bytes);

/* The least workspace with which the call works (tile: one query at a time), in bytes. */
CLDSA_API cldsa_status cldsa_sparse_attention_backward_workspace_min(cldsa_context *ctx,
                                                                     const cldsa_sparse_attention_backward_args *args,
                                                                     size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
