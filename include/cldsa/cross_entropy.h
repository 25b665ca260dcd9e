/*
 * Softmax cross-entropy per row, with its gradient in the same pass.
 *   row_loss[n] = logsumexp(logits[n,:]) - logits[n, labels[n]];  dlogits = grad_scale * (softmax - onehot).
 * Rows whose label is negative (-100 by custom) or >= V give loss 0, correct 0 and gradient 0.
 * -inf rules a class out; NaN or +inf in a scored row makes its loss and gradient NaN, no other row's.
 */
#ifndef CLDSA_CROSS_ENTROPY_H
#define CLDSA_CROSS_ENTROPY_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_cross_entropy_args {
    cldsa_tensor logits;      /* f32 [N,V] */
    cldsa_tensor labels;      /* i32 [N] */
    cldsa_tensor row_loss;    /* out f32 [N] */
    cldsa_tensor row_correct; /* out f32 [N], optional: 1 if the largest logit (lowest index on ties) is the label */
    cldsa_tensor dlogits;     /* out f32 [N,V], optional; may be logits itself */
    float grad_scale;         /* usually 1 / number of scored rows */
} cldsa_cross_entropy_args;

CLDSA_API cldsa_status cldsa_cross_entropy(cldsa_context *ctx, const cldsa_cross_entropy_args *args,
                                           const cldsa_call *call);
CLDSA_API cldsa_status cldsa_cross_entropy_workspace(cldsa_context *ctx, const cldsa_cross_entropy_args *args,
                                                     size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
