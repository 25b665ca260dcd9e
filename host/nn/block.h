/*
 * One transformer block, pre-norm: x += attention(LN x); x += experts(LN x).
 *
 * Residual sums are formed inside the following LayerNorm, so a block hands on two addends (mid and the experts'
 * output) and the next norm adds them.
 */
#ifndef CLDSA_BLOCK_H
#define CLDSA_BLOCK_H

#include "host/nn/attention.h"
#include "host/nn/indexer.h"
#include "host/nn/moe.h"
#include "host/nn/policy.h"

/* A LayerNorm of a residual stream; all f32. */
typedef struct cldsa_residual_norm {
    int weight, bias;        /* handles of parameters */
    cldsa_tensor sum;        /* [N,d]: the input, or input + addend */
    cldsa_tensor out;        /* [N,d] */
    cldsa_tensor mean, rstd; /* [N] */
} cldsa_residual_norm;

cldsa_status cldsa_residual_norm_declare(cldsa_residual_norm *norm, cldsa_params *params, const cldsa_config *config,
                                         const char *name);
void cldsa_residual_norm_place(cldsa_residual_norm *norm, const cldsa_nn *nn, cldsa_arena *kept);

/* sum = x + addend (or x itself, without a copy, if addend.mem is NULL); out = LN(sum). */
cldsa_status cldsa_residual_norm_forward(cldsa_residual_norm *norm, cldsa_nn *nn, cldsa_tensor x, cldsa_tensor addend);

/* dx += gradient through the norm of dout; dx holds the residual path's gradient. */
cldsa_status cldsa_residual_norm_backward(cldsa_residual_norm *norm, cldsa_nn *nn, cldsa_tensor dout, cldsa_tensor dx);

typedef struct cldsa_block {
    int layer;
    const cldsa_policy *policy;
    cldsa_policy_layer *policy_layer; /* owned */
    cldsa_residual_norm attention_norm, moe_norm;
    cldsa_indexer indexer;
    cldsa_attention attention;
    cldsa_moe moe;
    cldsa_tensor attention_out, moe_out; /* f32 [N,d] */
} cldsa_block;

cldsa_status cldsa_block_declare(cldsa_block *block, cldsa_params *params, const cldsa_config *config,
                                 const cldsa_policy *policy, int layer);
void cldsa_block_free(cldsa_block *block);

/* `kept` is the layer's own memory; scratch is shared by all layers. The backward pass's part is placed if `backward`.
 */
void cldsa_block_place(cldsa_block *block, const cldsa_nn *nn, bool backward, cldsa_arena *kept, cldsa_arena *scratch);

/* Constants of the batch shape. */
cldsa_status cldsa_block_prepare(cldsa_block *block, cldsa_nn *nn);

/* Input x + addend, f32 [N,d]; output moe_norm.sum + moe_out. */
cldsa_status cldsa_block_forward(cldsa_block *block, cldsa_nn *nn, cldsa_tensor x, cldsa_tensor addend);

/* dx f32 [N,d]: the output's gradient on entry, the input's on return. dh f32 [N,d]: scratch. */
cldsa_status cldsa_block_backward(cldsa_block *block, cldsa_nn *nn, cldsa_tensor dx, cldsa_tensor dh);

#endif
