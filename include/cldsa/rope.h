/*
 * Rotary position embedding of the last rope_dim elements of each head, angles pos * theta^(-2i/rope_dim). Sines and
 * cosines are right to about 1e-6 at any position below 2^24: the angles are reduced before they are rounded to float.
 *
 * mla_pack lays out multi-head latent attention's queries, keys and values from the projections' outputs and
 * rotates them on the way, in one pass.
 */
#ifndef CLDSA_ROPE_H
#define CLDSA_ROPE_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cldsa_rope_style {
    CLDSA_ROPE_HALF = 0,    /* pairs (i, i + rope_dim/2) */
    CLDSA_ROPE_INTERLEAVED, /* pairs (2i, 2i+1), result in place */
    CLDSA_ROPE_REGROUP      /* pairs (2i, 2i+1) are read, the result is written as halves (the experiment's form) */
} cldsa_rope_style;

typedef struct cldsa_rope_args {
    cldsa_tensor x;         /* f32 [B,S,H,D]; row s has position positions[b,s], or s */
    cldsa_tensor positions; /* i32 [B,S], optional */
    cldsa_tensor y;         /* out f32 [B,S,H,D]; may be x itself only for HALF and INTERLEAVED */
    int rope_dim;           /* even, 2 .. D; elements before D - rope_dim are copied */
    float theta;            /* 10000 usually */
    cldsa_rope_style style;
    bool inverse; /* the transpose: rotates back; the backward pass */
} cldsa_rope_args;

CLDSA_API cldsa_status cldsa_rope(cldsa_context *ctx, const cldsa_rope_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_rope_workspace(cldsa_context *ctx, const cldsa_rope_args *args, size_t *bytes);

/* P = nope + rope. Position of row s is s. */
typedef struct cldsa_mla_pack_args {
    cldsa_tensor q_in; /* f32 [B,S,H,P]: nope ++ rope per head */
    cldsa_tensor kv;   /* f32 [B,S,H,nope+Dv]: key nope ++ value per head */
    cldsa_tensor kv_a; /* f32 [B,S,L+rope]: the last `rope` columns are the key's shared rotary part */
    cldsa_tensor q;    /* out f32 [B,S,H,P] */
    cldsa_tensor k;    /* out f32 [B,S,H,P]: nope ++ rotated shared part */
    cldsa_tensor v;    /* out f32 [B,S,H,Dv] */
    int rope_dim;
    float theta;
    cldsa_rope_style style;
} cldsa_mla_pack_args;

CLDSA_API cldsa_status cldsa_mla_pack(cldsa_context *ctx, const cldsa_mla_pack_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_mla_pack_workspace(cldsa_context *ctx, const cldsa_mla_pack_args *args, size_t *bytes);

typedef struct cldsa_mla_pack_backward_args {
    cldsa_tensor dq, dk, dv; /* f32, shapes of q, k, v */
    cldsa_tensor dq_in;      /* out f32 [B,S,H,P] */
    cldsa_tensor dkv;        /* out f32 [B,S,H,nope+Dv] */
    cldsa_tensor dkv_a;      /* out f32 [B,S,L+rope]: only the last `rope` columns are written (summed over heads) */
    int rope_dim;
    float theta;
    cldsa_rope_style style;
} cldsa_mla_pack_backward_args;

CLDSA_API cldsa_status cldsa_mla_pack_backward(cldsa_context *ctx, const cldsa_mla_pack_backward_args *args,
                                               const cldsa_call *call);
CLDSA_API cldsa_status cldsa_mla_pack_backward_workspace(cldsa_context *ctx, const cldsa_mla_pack_backward_args *args,
                                                         size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
