/*
 * Elementwise y = dropout(activation(x)), one pass. Dropout draws element e of stream dropout_stream from the
 * counter-based generator of cl/philox.clh and scales what it keeps by 1/(1-p).
 */
#ifndef CLDSA_ACTIVATION_H
#define CLDSA_ACTIVATION_H

#include <cldsa/gemm.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_activation_args {
    cldsa_tensor x; /* f32, any shape */
    cldsa_tensor y; /* out f32, same shape; may be x itself */
    cldsa_act activation;
    float dropout_p;
    uint64_t dropout_seed;
    uint32_t dropout_stream;
} cldsa_activation_args;

CLDSA_API cldsa_status cldsa_activation(cldsa_context *ctx, const cldsa_activation_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_activation_workspace(cldsa_context *ctx, const cldsa_activation_args *args, size_t *bytes);

typedef struct cldsa_activation_backward_args {
    cldsa_tensor x;  /* f32: the forward call's input */
    cldsa_tensor dy; /* f32, same shape */
    cldsa_tensor dx; /* out f32, same shape; may be dy itself */
    cldsa_act activation;
    float dropout_p;
    uint64_t dropout_seed;
    uint32_t dropout_stream;
} cldsa_activation_backward_args;

CLDSA_API cldsa_status cldsa_activation_backward(cldsa_context *ctx, const cldsa_activation_backward_args *args,
                                                 const cldsa_call *call);
CLDSA_API cldsa_status cldsa_activation_backward_workspace(cldsa_context *ctx,
                                                           const cldsa_activation_backward_args *args, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
