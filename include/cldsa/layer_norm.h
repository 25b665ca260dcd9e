/*
 * LayerNorm over the last extent, optionally of a residual sum:
 *   sum = x + residual;  y = (sum - mean) * rstd * weight + bias;  rstd = 1 / sqrt(variance + eps).
 */
#ifndef CLDSA_LAYER_NORM_H
#define CLDSA_LAYER_NORM_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_layer_norm_args {
    cldsa_tensor x;        /* f32 [R...,D] */
    cldsa_tensor residual; /* f32 [R...,D], optional */
    cldsa_tensor weight;   /* f32 [D] */
    cldsa_tensor bias;     /* f32 [D] */
    cldsa_tensor sum;      /* out f32 [R...,D], optional: x + residual */
    cldsa_tensor y;        /* out f32 [R...,D] */
    cldsa_tensor mean;     /* out f32 [R], optional (the backward call needs it) */
    cldsa_tensor rstd;     /* out f32 [R], optional (the backward call needs it) */
    float eps;
} cldsa_layer_norm_args;

CLDSA_API cldsa_status cldsa_layer_norm(cldsa_context *ctx, const cldsa_layer_norm_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_layer_norm_workspace(cldsa_context *ctx, const cldsa_layer_norm_args *args, size_t *bytes);

/* dx = dresidual + gradient through the norm: the residual path and the norm's in one pass. */
typedef struct cldsa_layer_norm_backward_args {
    cldsa_tensor x;          /* f32 [R...,D]: the normalised input (x + residual) */
    cldsa_tensor weight;     /* f32 [D] */
    cldsa_tensor mean, rstd; /* f32 [R] */
    cldsa_tensor dy;         /* f32 [R...,D] */
    cldsa_tensor dresidual;  /* f32 [R...,D], optional: added to dx; may be the same buffer as dx */
    cldsa_tensor dx;         /* out f32 [R...,D] */
    cldsa_tensor dweight;    /* out f32 [D] */
    cldsa_tensor dbias;      /* out f32 [D] */
} cldsa_layer_norm_backward_args;

CLDSA_API cldsa_status cldsa_layer_norm_backward(cldsa_context *ctx, const cldsa_layer_norm_backward_args *args,
                                                 const cldsa_call *call);
CLDSA_API cldsa_status cldsa_layer_norm_backward_workspace(cldsa_context *ctx,
                                                           const cldsa_layer_norm_backward_args *args, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
