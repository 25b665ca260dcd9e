#include "host/nn/block.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- LayerNorm on the residual stream ------------------------------------------------------------------------- */

cldsa_status cldsa_residual_norm_declare(cldsa_residual_norm *norm, cldsa_params *params, const cldsa_config *config,
                                         const char *name) {
    cldsa_param_spec spec = {
        .rank = 1, .shape = {config->hidden_size}, .init = CLDSA_INIT_CONSTANT, .scale = 1, .trainable = true};
    CLDSA_TRY(cldsa_params_add_in(params, name, name, ".weight", spec, &norm->weight));
    spec.scale = 0;
    return cldsa_params_add_in(params, name, name, ".bias", spec, &norm->bias);
}

void cldsa_residual_norm_place(cldsa_residual_norm *norm, const cldsa_nn *nn, cldsa_arena *kept) {
    const int64_t d = nn->config->hidden_size;
    norm->sum = CLDSA_PLACE(kept, CLDSA_F32, nn->tokens, d);
    norm->out = CLDSA_PLACE(kept, CLDSA_F32, nn->tokens, d);
    norm->mean = CLDSA_PLACE(kept, CLDSA_F32, nn->tokens);
    norm->rstd = CLDSA_PLACE(kept, CLDSA_F32, nn->tokens);
}

cldsa_status cldsa_residual_norm_forward(cldsa_residual_norm *norm, cldsa_nn *nn, cldsa_tensor x, cldsa_tensor addend) {
    const cldsa_tensor none = {0};
    if (!addend.mem)
        norm->sum = x;
    CLDSA_NN_OP(nn, layer_norm, .x = x, .residual = addend, .weight = cldsa_param_value(nn->params, norm->weight),
                .bias = cldsa_param_value(nn->params, norm->bias), .sum = addend.mem ? norm->sum : none, .y = norm->out,
                .mean = norm->mean, .rstd = norm->rstd, .eps = (float)nn->config->layer_norm_eps);
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_residual_norm_backward(cldsa_residual_norm *norm, cldsa_nn *nn, cldsa_tensor dout, cldsa_tensor dx) {
    CLDSA_NN_OP(nn, layer_norm_backward, .x = norm->sum, .weight = cldsa_param_value(nn->params, norm->weight),
                .mean = norm->mean, .rstd = norm->rstd, .dy = dout, .dresidual = dx, .dx = dx,
                .dweight = cldsa_param_grad(nn->params, norm->weight),
                .dbias = cldsa_param_grad(nn->params, norm->bias));
    return CLDSA_SUCCESS;
}

/* ---- the block ------------------------------------------------------------------------------------------------ */

/* Where the reference's two variants keep their modules; `common` names are the fixed variant's. */
cldsa_status cldsa_block_declare(cldsa_block *block, cldsa_params *params, const cldsa_config *config,
                                 const cldsa_policy *policy, int layer) {
    char base[32], prefix[CLDSA_PARAM_NAME_MAX], common[CLDSA_PARAM_NAME_MAX];
    block->layer = layer;
    block->policy = policy;
    block->policy_layer = calloc(1, policy->layer_bytes);
    if (!block->policy_layer)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for layer %d", layer);
    snprintf(base, sizeof base, "layers.%d.", layer);

    snprintf(common, sizeof common, "%sattention.", base);
    snprintf(prefix, sizeof prefix, "%sattention.%s", base, policy->wrapped ? "deepseek_attention." : "");
    CLDSA_TRY(cldsa_attention_declare(&block->attention, params, config, prefix, common));
    snprintf(common, sizeof common, "%sindexer.", base);
    snprintf(prefix, sizeof prefix, "%s%sindexer.", base, policy->wrapped ? "attention." : "");
    CLDSA_TRY(cldsa_indexer_declare(&block->indexer, params, config, prefix, common));
    if (policy->declare) {
        snprintf(prefix, sizeof prefix, "%sattention.sparsity_controller.", base);
        CLDSA_TRY(policy->declare(block->policy_layer, params, config, prefix));
    }
    snprintf(prefix, sizeof prefix, "%smoe.", base);
    CLDSA_TRY(cldsa_moe_declare(&block->moe, params, config, prefix, prefix));
    snprintf(prefix, sizeof prefix, "%sattention_norm", base);
    CLDSA_TRY(cldsa_residual_norm_declare(&block->attention_norm, params, config, prefix));
    snprintf(prefix, sizeof prefix, "%smoe_norm", base);
    return cldsa_residual_norm_declare(&block->moe_norm, params, config, prefix);
}

void cldsa_block_free(cldsa_block *block) {
    free(block->policy_layer);
}

void cldsa_block_place(cldsa_block *block, const cldsa_nn *nn, bool backward, cldsa_arena *kept, cldsa_arena *scratch) {
    const size_t mark = scratch->used;
    cldsa_residual_norm_place(&block->attention_norm, nn, kept);
    cldsa_residual_norm_place(&block->moe_norm, nn, kept);
    block->attention_out = CLDSA_PLACE(kept, CLDSA_F32, nn->tokens, nn->config->hidden_size);
    block->moe_out = CLDSA_PLACE(kept, CLDSA_F32, nn->tokens, nn->config->hidden_size);

    /* Scratch of the parts overlaps: each is done before the next begins. */
    cldsa_indexer_place(&block->indexer, nn, block->policy, kept, scratch);
    if (block->policy->place)
        block->policy->place(block->policy_layer, nn, kept, scratch);
    scratch->used = mark;
    cldsa_attention_place(&block->attention, nn, kept, scratch);
    scratch->used = mark;
    cldsa_moe_place(&block->moe, nn, kept, scratch);
    scratch->used = mark;
    if (!backward)
        return;
    cldsa_attention_place_backward(&block->attention, nn, scratch);
    scratch->used = mark;
    cldsa_moe_place_backward(&block->moe, nn, scratch);
    scratch->used = mark;
}

cldsa_status cldsa_block_prepare(cldsa_block *block, cldsa_nn *nn) {
    return block->policy->prepare ? block->policy->prepare(block->policy_layer, nn) : CLDSA_SUCCESS;
}

cldsa_status cldsa_block_forward(cldsa_block *block, cldsa_nn *nn, cldsa_tensor x, cldsa_tensor addend) {
    CLDSA_TRY(cldsa_residual_norm_forward(&block->attention_norm, nn, x, addend));
    const cldsa_tensor normed = block->attention_norm.out;
    if (cldsa_indexer_wanted(nn, block->policy)) {
        /* The published fixed variant's indexer saw the block's raw input, the adaptive one's the normalised. */
        cldsa_tensor seen = block->policy->wrapped ? normed : block->attention_norm.sum;
        seen = cldsa_as_rank3(seen, nn->batch, nn->seq_len, nn->config->hidden_size);
        CLDSA_TRY(cldsa_indexer_forward(&block->indexer, nn, block->layer, seen, block->policy, block->policy_layer));
    }
    CLDSA_TRY(cldsa_attention_forward(&block->attention, nn, block->layer, normed, block->indexer.mask,
                                      block->attention_out));
    CLDSA_TRY(cldsa_residual_norm_forward(&block->moe_norm, nn, block->attention_norm.sum, block->attention_out));
    return cldsa_moe_forward(&block->moe, nn, block->layer, block->moe_norm.out, block->moe_out);
}

static cldsa_status policy_backward(cldsa_block *block, cldsa_nn *nn) {
    const cldsa_attention *attention = &block->attention;
    const cldsa_tensor seen = block->policy->wrapped ? block->attention_norm.out : block->attention_norm.sum;
    const cldsa_policy_view view = {
        .layer = block->layer,
        .hidden = cldsa_as_rank3(seen, nn->batch, nn->seq_len, nn->config->hidden_size),
        .q = attention->q,
        .k = attention->k,
        .v = attention->v,
        .mask = attention->mask,
        .out = attention->heads,
        .lse = attention->lse,
        .dout = attention->dheads,
    };
    return block->policy->backward(block->policy_layer, nn, &view);
}

cldsa_status cldsa_block_backward(cldsa_block *block, cldsa_nn *nn, cldsa_tensor dx, cldsa_tensor dh) {
    CLDSA_TRY(cldsa_moe_backward(&block->moe, nn, block->layer, block->moe_norm.out, dx, dh));
    CLDSA_TRY(cldsa_residual_norm_backward(&block->moe_norm, nn, dh, dx));
    CLDSA_TRY(cldsa_attention_backward(&block->attention, nn, block->layer, block->attention_norm.out, dx, dh));
    if (block->policy->backward)
        CLDSA_TRY(policy_backward(block, nn));
    return cldsa_residual_norm_backward(&block->attention_norm, nn, dh, dx);
}
