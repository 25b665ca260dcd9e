/*
 * RMSNorm over the last extent: y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + eps).
 *
 * x may be the leading columns of wider rows (ld_x), as the latent part of a projection is.
 */
#ifndef CLDSA_RMS_NORM_H
#define CLDSA_RMS_NORM_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_rms_norm_args {
    cldsa_tensor x;      /* f32 [R...,Dx], Dx >= D: the first D columns of each row are normalised */
    cldsa_tensor weight; /* f32 [D] */
    cldsa_tensor y;      /* out f32 [R...,D] */
    cldsa_tensor rstd;   /* out f32 [R], optional (the backward call needs it) */
    float eps;
} cldsa_rms_norm_args;

CLDSA_API cldsa_status cldsa_rms_norm(cldsa_context *ctx, const cldsa_rms_norm_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_rms_norm_workspace(cldsa_context *ctx, const cldsa_rms_norm_args *args, size_t *bytes);

typedef struct cldsa_rms_norm_backward_args {
    cldsa_tensor x;       /* f32 [R...,Dx] */
    cldsa_tensor weight;  /* f32 [D] */
    cldsa_tensor rstd;    /* f32 [R] */
    cldsa_tensor dy;      /* f32 [R...,D] */
    cldsa_tensor dx;      /* out f32 [R...,Dx]: only the first D columns of each row are written */
    cldsa_tensor dweight; /* out f32 [D] */
} cldsa_rms_norm_backward_args;

CLDSA_API cldsa_status cldsa_rms_norm_backward(cldsa_context *ctx, const cldsa_rms_norm_backward_args *args,
                                               const cldsa_call *call);
CLDSA_API cldsa_status cldsa_rms_norm_backward_workspace(cldsa_context *ctx, const cldsa_rms_norm_backward_args *args,
                                                         size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
