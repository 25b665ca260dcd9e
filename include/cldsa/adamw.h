/*
 * AdamW over one flat range of parameters, in one launch (decoupled weight decay, bias correction; PyTorch's order).
 *   p -= lr * weight_decay * p;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;
 *   p -= lr / (1 - b1^step) * m / (sqrt(v / (1 - b2^step)) + eps)
 */
#ifndef CLDSA_ADAMW_H
#define CLDSA_ADAMW_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_adamw_args {
    cldsa_tensor param; /* in, out f32 [P] */
    cldsa_tensor grad;  /* f32 [P] */
    cldsa_tensor m, v;  /* in, out f32 [P] */
    cldsa_tensor norm2; /* f32 [1], optional: the squared global norm, read on the device, for clipping */
    float lr, beta1, beta2, eps, weight_decay;
    float max_norm; /* with norm2: g is scaled by min(1, max_norm / sqrt(norm2)); 0 disables */
    int step;       /* 1 for the first update */
} cldsa_adamw_args;

CLDSA_API cldsa_status cldsa_adamw(cldsa_context *ctx, const cldsa_adamw_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_adamw_workspace(cldsa_context *ctx, const cldsa_adamw_args *args, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
