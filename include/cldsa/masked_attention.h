/*
 * Attention over all keys that a mask or range leaves visible.
 *
 *   out[b,i,h,:] = sum_j p_ij v[b,j,h',:],  p_i = softmax_j(softmax_scale * q[b,i,h,:] . k[b,j,h',:])
 *
 * h' = h / (H / Hk) (grouped-query attention). A row that sees no key gives zeros and lse = +inf.
 * NaN and infinities in k and v reach only rows that see them, those in q and dout only their row and the keys it sees.
 * A key whose weight is 0 (hidden, dropped, or with a score of -inf) counts as not seen.
 * Dropout acts on p, after normalisation, by the counter-based generator of cl/philox.clh: element index
 * ((b*H + h)*S + i) * roundup(T,64) + j of stream dropout_stream; the backward call repeats it exactly.
 */
#ifndef CLDSA_MASKED_ATTENTION_H
#define CLDSA_MASKED_ATTENTION_H

#include <cldsa/indexer_scores.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_masked_attention_args {
    cldsa_tensor q;      /* [B,S,H,D] f32, f16 or bf16 */
    cldsa_tensor k;      /* [B,T,Hk,D], Hk divides H; dtype of q */
    cldsa_tensor v;      /* [B,T,Hk,Dv]; dtype of q */
    cldsa_tensor mask;   /* u8 [B,S,T] or u32 bits [B,S,ceil(T/32)], optional; combines with the range */
    cldsa_tensor ks, ke; /* i32 [B,S], for CLDSA_RANGE_ROWS */
    cldsa_tensor out;    /* out [B,S,H,Dv], f32, f16 or bf16 */
    cldsa_tensor lse;    /* out f32 [B,S,H], natural log; optional (the backward call needs it) */
    cldsa_range range;
    float softmax_scale; /* 0 means D^-1/2 */
    float dropout_p;     /* 0 <= p < 1 */
    uint64_t dropout_seed;
    uint32_t dropout_stream;
} cldsa_masked_attention_args;

CLDSA_API cldsa_status cldsa_masked_attention(cldsa_context *ctx, const cldsa_masked_attention_args *args,
                                              const cldsa_call *call);
CLDSA_API cldsa_status cldsa_masked_attention_workspace(cldsa_context *ctx, const cldsa_masked_attention_args *args,
                                                        size_t *bytes);

/*
 * The least workspace with which the call works, in bytes: 0, but where GPUs compute a slab of queries at a time (slab,
 * the default for 64 heads of a kv head and more and hundreds of queries, without dropout), of which it holds one:
 * about 4 T H. The result does not depend on how many it holds.
 */
CLDSA_API cldsa_status cldsa_masked_attention_workspace_min(cldsa_context *ctx, const cldsa_masked_attention_args *args,
                                                            size_t *bytes);

typedef struct cldsa_masked_attention_backward_args {
    cldsa_tensor q, k, v, mask, ks, ke; /* as given to the forward call */
    cldsa_tensor out, lse;              /* as the forward call wrote them; out f32 */
    cldsa_tensor dout;                  /* f32 [B,S,H,Dv] */
    cldsa_tensor dq, dk, dv;            /* out f32, shapes of q, k, v; overwritten */
    cldsa_range range;
    float softmax_scale;
    float dropout_p;
    uint64_t dropout_seed;
    uint32_t dropout_stream;
} cldsa_masked_attention_backward_args;

CLDSA_API cldsa_status cldsa_masked_attention_backward(cldsa_context *ctx,
                                                       const cldsa_masked_attention_backward_args *args,
                                                       const cldsa_call *call);
CLDSA_API cldsa_status cldsa_masked_attention_backward_workspace(cldsa_context *ctx,
                                                                 const cldsa_masked_attention_backward_args *args,
                                                                 size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
