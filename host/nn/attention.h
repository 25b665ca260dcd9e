/*
 * Multi-head latent attention (source: DeepSeek-V2; the experiment's sizes): queries, keys and values come from
 * low-rank projections, one rotary key is shared by all heads.
 *
 *   q = q_b(RMSNorm(q_a x));  [c ++ r] = kv_a x;  [k_nope ++ v] = kv_b(RMSNorm c);  k = k_nope ++ rope(r)
 *   y = o_proj(softmax(q k^T / sqrt(P) over the kept keys, with dropout) v)
 */
#ifndef CLDSA_NN_ATTENTION_H
#define CLDSA_NN_ATTENTION_H

#include "host/nn/nn.h"

typedef struct cldsa_attention {
    int q_a, kv_a; /* handles of parameters; kv_a is joined to q_a, so one product makes both */
    int q_norm, q_b, kv_norm, kv_b, o_proj;
    cldsa_tensor latent;             /* f32 [N, Rq + Rkv + rope]: q_a x ++ kv_a x */
    cldsa_tensor q_latent, q_rstd;   /* f32 [N,Rq], [N] */
    cldsa_tensor kv_latent, kv_rstd; /* f32 [N,Rkv], [N] */
    cldsa_tensor q, k, v;            /* f32 [B,S,H,P], [B,S,H,P], [B,S,H,Dv] */
    cldsa_tensor heads, lse;         /* f32 [B,S,H,Dv], [B,S,H] */
    cldsa_tensor mask;               /* the selection of the last forward pass; mem NULL: none */
    cldsa_tensor q_flat, kv_flat;    /* scratch: before packing */
    cldsa_tensor dheads, dq, dk, dv, dq_flat, dkv_flat, dq_latent, dkv_latent, dlatent; /* backward scratch */
} cldsa_attention;

cldsa_status cldsa_attention_declare(cldsa_attention *attention, cldsa_params *params, const cldsa_config *config,
                                     const char *prefix, const char *common);
void cldsa_attention_place(cldsa_attention *attention, const cldsa_nn *nn, cldsa_arena *kept, cldsa_arena *scratch);
void cldsa_attention_place_backward(cldsa_attention *attention, const cldsa_nn *nn, cldsa_arena *scratch);

/* x, y: f32 [N,d]; mask: u32 bits [B,S,*], or mem NULL for every key. */
cldsa_status cldsa_attention_forward(cldsa_attention *attention, cldsa_nn *nn, int layer, cldsa_tensor x,
                                     cldsa_tensor mask, cldsa_tensor y);

/* dy, dx: f32 [N,d]; writes dx and the parameters' gradients. */
cldsa_status cldsa_attention_backward(cldsa_attention *attention, cldsa_nn *nn, int layer, cldsa_tensor x,
                                      cldsa_tensor dy, cldsa_tensor dx);

#endif
