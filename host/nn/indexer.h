/*
 * The lightning indexer and the selection: scores for every pair, the policy's k, and the bits of the keys kept.
 *
 * No gradient reaches the indexer (top-k cuts it off), so nothing is kept for a backward pass but the selection.
 */
#ifndef CLDSA_NN_INDEXER_H
#define CLDSA_NN_INDEXER_H

#include "host/nn/policy.h"

typedef struct cldsa_indexer {
    int q_weight, q_bias, k_weight, k_bias, head_weights; /* handles of parameters */
    cldsa_tensor q, k;                                    /* scratch f32 [B,S,Hi,Di] */
    cldsa_tensor scores;                                  /* f32 [B,S,S]: scratch, or kept while capturing */
    cldsa_tensor mask;                                    /* u32 [B,S,ceil(S/32)]: bit j of row i: key j is kept */
} cldsa_indexer;

cldsa_status cldsa_indexer_declare(cldsa_indexer *indexer, cldsa_params *params, const cldsa_config *config,
                                   const char *prefix, const char *common);

void cldsa_indexer_place(cldsa_indexer *indexer, const cldsa_nn *nn, const cldsa_policy *policy, cldsa_arena *kept,
                         cldsa_arena *scratch);

/* hidden: f32 [B,S,d]. Fills scores, the policy's k_rows and the mask. */
cldsa_status cldsa_indexer_forward(cldsa_indexer *indexer, cldsa_nn *nn, int layer, cldsa_tensor hidden,
                                   const cldsa_policy *policy, cldsa_policy_layer *policy_layer);

/* Whether this step must run the indexer at all. */
bool cldsa_indexer_wanted(const cldsa_nn *nn, const cldsa_policy *policy);

#endif
