/*
 * Mixture of experts: each token goes through its top experts, y = sum_e w_e W2_e dropout(silu(W1_e x)).
 *
 * Tokens are gathered by expert, so each is multiplied by its own experts only; the first matrices of all experts are
 * one block in memory, and so are the second, as the grouped products want. The load-balancing loss of the reference
 * is not part of its training loss and not computed here.
 */
#ifndef CLDSA_NN_MOE_H
#define CLDSA_NN_MOE_H

#include "host/nn/nn.h"

typedef struct cldsa_moe {
    int gate, first, second;                        /* handles: the router, and expert 0's two matrices */
    cldsa_tensor logits;                            /* scratch f32 [N,E] */
    cldsa_tensor experts;                           /* i32 [N,X] */
    cldsa_tensor weights;                           /* f32 [N,X] */
    cldsa_tensor offsets;                           /* i32 [E+1] */
    cldsa_tensor position;                          /* i32 [N,X] */
    cldsa_tensor rows;                              /* f32 [R,d]: gathered tokens */
    cldsa_tensor pre, hidden;                       /* f32 [R,F]: before and after activation and dropout */
    cldsa_tensor expert_out;                        /* f32 [R,d] */
    cldsa_tensor drows, dhidden, dweights, dlogits; /* backward scratch */
} cldsa_moe;

cldsa_status cldsa_moe_declare(cldsa_moe *moe, cldsa_params *params, const cldsa_config *config, const char *prefix,
                               const char *common);
void cldsa_moe_place(cldsa_moe *moe, const cldsa_nn *nn, cldsa_arena *kept, cldsa_arena *scratch);
void cldsa_moe_place_backward(cldsa_moe *moe, const cldsa_nn *nn, cldsa_arena *scratch);

/* x, y: f32 [N,d]. */
cldsa_status cldsa_moe_forward(cldsa_moe *moe, cldsa_nn *nn, int layer, cldsa_tensor x, cldsa_tensor y);

/* dy, dx: f32 [N,d]; writes dx and the parameters' gradients. */
cldsa_status cldsa_moe_backward(cldsa_moe *moe, cldsa_nn *nn, int layer, cldsa_tensor x, cldsa_tensor dy,
                                cldsa_tensor dx);

#endif
