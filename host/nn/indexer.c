#include "host/nn/indexer.h"

#include <math.h>

cldsa_status cldsa_indexer_declare(cldsa_indexer *indexer, cldsa_params *params, const cldsa_config *config,
                                   const char *prefix, const char *common) {
    const int64_t width = (int64_t)config->index_heads * config->index_head_dim;
    const cldsa_param_spec weight = {.rank = 2,
                                     .shape = {width, config->hidden_size},
                                     .init = CLDSA_INIT_NORMAL,
                                     .scale = (float)config->initializer_range};
    const cldsa_param_spec bias = {.rank = 1, .shape = {width}, .init = CLDSA_INIT_CONSTANT};
    const cldsa_param_spec heads = {
        .rank = 1, .shape = {config->index_heads}, .init = CLDSA_INIT_ABS_NORMAL, .scale = 0.1f};
    CLDSA_TRY(cldsa_params_add_in(params, prefix, common, "q_indexer.weight", weight, &indexer->q_weight));
    CLDSA_TRY(cldsa_params_add_in(params, prefix, common, "q_indexer.bias", bias, &indexer->q_bias));
    CLDSA_TRY(cldsa_params_add_in(params, prefix, common, "k_indexer.weight", weight, &indexer->k_weight));
    CLDSA_TRY(cldsa_params_add_in(params, prefix, common, "k_indexer.bias", bias, &indexer->k_bias));
    return cldsa_params_add_in(params, prefix, common, "indexer_weights", heads, &indexer->head_weights);
}

bool cldsa_indexer_wanted(const cldsa_nn *nn, const cldsa_policy *policy) {
    return !policy->keeps_all || nn->capture;
}

void cldsa_indexer_place(cldsa_indexer *indexer, const cldsa_nn *nn, const cldsa_policy *policy, cldsa_arena *kept,
                         cldsa_arena *scratch) {
    const cldsa_config *config = nn->config;
    indexer->mask = (cldsa_tensor){0};
    if (!cldsa_indexer_wanted(nn, policy))
        return;
    indexer->q = CLDSA_PLACE(scratch, CLDSA_F32, nn->batch, nn->seq_len, config->index_heads, config->index_head_dim);
    indexer->k = CLDSA_PLACE(scratch, CLDSA_F32, nn->batch, nn->seq_len, config->index_heads, config->index_head_dim);
    indexer->scores = CLDSA_PLACE(nn->capture ? kept : scratch, CLDSA_F32, nn->batch, nn->seq_len, nn->seq_len);
    if (!policy->keeps_all)
        indexer->mask = CLDSA_PLACE(kept, CLDSA_U32, nn->batch, nn->seq_len, cldsa_ceil_div(nn->seq_len, 32));
}

cldsa_status cldsa_indexer_forward(cldsa_indexer *indexer, cldsa_nn *nn, int layer, cldsa_tensor hidden,
                                   const cldsa_policy *policy, cldsa_policy_layer *policy_layer) {
    const cldsa_params *params = nn->params;
    const int64_t width = (int64_t)nn->config->index_heads * nn->config->index_head_dim;
    cldsa_tensor x = cldsa_as_matrix(hidden, nn->tokens, nn->config->hidden_size);
    CLDSA_TRY(cldsa_linear(nn, x, cldsa_param_value(params, indexer->q_weight),
                           cldsa_param_value(params, indexer->q_bias), CLDSA_ACT_NONE,
                           cldsa_as_matrix(indexer->q, nn->tokens, width)));
    CLDSA_TRY(cldsa_linear(nn, x, cldsa_param_value(params, indexer->k_weight),
                           cldsa_param_value(params, indexer->k_bias), CLDSA_ACT_NONE,
                           cldsa_as_matrix(indexer->k, nn->tokens, width)));
    CLDSA_NN_OP(nn, indexer_scores, .q = indexer->q, .k = indexer->k,
                .w = cldsa_param_value(params, indexer->head_weights), .scores = indexer->scores,
                .range = nn->config->causal ? CLDSA_RANGE_CAUSAL : CLDSA_RANGE_ALL, .relu_out = true);
    if (policy->keeps_all)
        return CLDSA_SUCCESS;

    if (policy->forward) {
        const cldsa_policy_view view = {.layer = layer, .hidden = hidden, .scores = indexer->scores};
        CLDSA_TRY(policy->forward(policy_layer, nn, &view));
    }
    cldsa_tensor k_rows = policy_layer->k_rows;
    k_rows.shape[0] = cldsa_tensor_numel(&k_rows);
    k_rows.rank = 1;
    CLDSA_NN_OP(nn, topk, .scores = indexer->scores, .k_rows = k_rows, .mask = indexer->mask);
    return CLDSA_SUCCESS;
}
