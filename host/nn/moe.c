#include "host/nn/moe.h"

#include <stdio.h>

cldsa_status cldsa_moe_declare(cldsa_moe *moe, cldsa_params *params, const cldsa_config *config, const char *prefix,
                               const char *common) {
    const int64_t d = config->hidden_size, wide = config->expert_size;
    cldsa_param_spec spec = {.rank = 2,
                             .shape = {config->num_experts, d},
                             .init = CLDSA_INIT_NORMAL,
                             .scale = (float)config->initializer_range,
                             .trainable = true};
    CLDSA_TRY(cldsa_params_add_in(params, prefix, common, "router.gate.weight", spec, &moe->gate));
    for (int linear = 1; linear <= 2; ++linear)
        for (int expert = 0; expert < config->num_experts; ++expert) {
            char rest[64];
            int index = 0;
            snprintf(rest, sizeof rest, "experts.%d.linear%d.weight", expert, linear);
            spec.shape[0] = linear == 1 ? wide : d;
            spec.shape[1] = linear == 1 ? d : wide;
            spec.joined = expert > 0;
            CLDSA_TRY(cldsa_params_add_in(params, prefix, common, rest, spec, &index));
            if (expert == 0)
                *(linear == 1 ? &moe->first : &moe->second) = index;
        }
    return CLDSA_SUCCESS;
}

void cldsa_moe_place(cldsa_moe *moe, const cldsa_nn *nn, cldsa_arena *kept, cldsa_arena *scratch) {
    const cldsa_config *config = nn->config;
    const int64_t n = nn->tokens, x = config->experts_per_token, rows = n * x;
    moe->logits = CLDSA_PLACE(scratch, CLDSA_F32, n, config->num_experts);
    moe->experts = CLDSA_PLACE(kept, CLDSA_I32, n, x);
    moe->weights = CLDSA_PLACE(kept, CLDSA_F32, n, x);
    moe->offsets = CLDSA_PLACE(kept, CLDSA_I32, config->num_experts + 1);
    moe->position = CLDSA_PLACE(kept, CLDSA_I32, n, x);
    moe->rows = CLDSA_PLACE(kept, CLDSA_F32, rows, config->hidden_size);
    moe->pre = CLDSA_PLACE(kept, CLDSA_F32, rows, config->expert_size);
    moe->hidden = CLDSA_PLACE(kept, CLDSA_F32, rows, config->expert_size);
    moe->expert_out = CLDSA_PLACE(kept, CLDSA_F32, rows, config->hidden_size);
}

void cldsa_moe_place_backward(cldsa_moe *moe, const cldsa_nn *nn, cldsa_arena *scratch) {
    const cldsa_config *config = nn->config;
    const int64_t n = nn->tokens, x = config->experts_per_token, rows = n * x;
    moe->drows = CLDSA_PLACE(scratch, CLDSA_F32, rows, config->hidden_size);
    moe->dhidden = CLDSA_PLACE(scratch, CLDSA_F32, rows, config->expert_size);
    moe->dweights = CLDSA_PLACE(scratch, CLDSA_F32, n, x);
    moe->dlogits = CLDSA_PLACE(scratch, CLDSA_F32, n, config->num_experts);
}

/* The matrices of all experts, from the first one's tensor. */
static cldsa_tensor all_experts(cldsa_tensor first, const cldsa_config *config) {
    return cldsa_as_rank3(first, config->num_experts, first.shape[0], first.shape[1]);
}

cldsa_status cldsa_moe_forward(cldsa_moe *moe, cldsa_nn *nn, int layer, cldsa_tensor x, cldsa_tensor y) {
    const cldsa_config *config = nn->config;
    const cldsa_tensor first = all_experts(cldsa_param_value(nn->params, moe->first), config);
    const cldsa_tensor second = all_experts(cldsa_param_value(nn->params, moe->second), config);
    const float dropout = nn->training ? (float)config->expert_dropout : 0;

    CLDSA_TRY(
        cldsa_linear(nn, x, cldsa_param_value(nn->params, moe->gate), (cldsa_tensor){0}, CLDSA_ACT_NONE, moe->logits));
    CLDSA_NN_OP(nn, moe_route, .logits = moe->logits, .experts = moe->experts, .weights = moe->weights,
                .group_offsets = moe->offsets, .position = moe->position,
                .noise_std = nn->training ? (float)config->router_noise : 0, .seed = nn->seed,
                .stream = cldsa_draw_stream(layer, CLDSA_DRAW_ROUTER));
    CLDSA_NN_OP(nn, moe_dispatch, .x = x, .position = moe->position, .rows = moe->rows);
    if (dropout > 0) {
        CLDSA_NN_OP(nn, gemm, .a = moe->rows, .b = first, .c = moe->pre, .group_offsets = moe->offsets,
                    .layout = CLDSA_GEMM_NT, .alpha = 1);
        CLDSA_NN_OP(nn, activation, .x = moe->pre, .y = moe->hidden, .activation = CLDSA_ACT_SILU, .dropout_p = dropout,
                    .dropout_seed = nn->seed, .dropout_stream = cldsa_draw_stream(layer, CLDSA_DRAW_EXPERTS));
    } else {
        CLDSA_NN_OP(nn, gemm, .a = moe->rows, .b = first, .c = moe->hidden, .pre = moe->pre,
                    .group_offsets = moe->offsets, .layout = CLDSA_GEMM_NT, .activation = CLDSA_ACT_SILU, .alpha = 1);
    }
    CLDSA_NN_OP(nn, gemm, .a = moe->hidden, .b = second, .c = moe->expert_out, .group_offsets = moe->offsets,
                .layout = CLDSA_GEMM_NT, .alpha = 1);
    CLDSA_NN_OP(nn, moe_combine, .rows = moe->expert_out, .position = moe->position, .weights = moe->weights, .out = y);
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_moe_backward(cldsa_moe *moe, cldsa_nn *nn, int layer, cldsa_tensor x, cldsa_tensor dy,
                                cldsa_tensor dx) {
    const cldsa_config *config = nn->config;
    const cldsa_params *params = nn->params;
    const cldsa_tensor first = all_experts(cldsa_param_value(params, moe->first), config);
    const cldsa_tensor second = all_experts(cldsa_param_value(params, moe->second), config);

    CLDSA_NN_OP(nn, moe_combine_backward, .rows = moe->expert_out, .position = moe->position, .weights = moe->weights,
                .dout = dy, .drows = moe->drows, .dweights = moe->dweights);
    CLDSA_NN_OP(nn, gemm, .a = moe->drows, .b = moe->hidden,
                .c = all_experts(cldsa_param_grad(params, moe->second), config), .group_offsets = moe->offsets,
                .layout = CLDSA_GEMM_TN, .alpha = 1);
    CLDSA_NN_OP(nn, gemm, .a = moe->drows, .b = second, .c = moe->dhidden, .group_offsets = moe->offsets,
                .layout = CLDSA_GEMM_NN, .alpha = 1);
    CLDSA_NN_OP(nn, activation_backward, .x = moe->pre, .dy = moe->dhidden, .dx = moe->dhidden,
                .activation = CLDSA_ACT_SILU, .dropout_p = nn->training ? (float)config->expert_dropout : 0,
                .dropout_seed = nn->seed, .dropout_stream = cldsa_draw_stream(layer, CLDSA_DRAW_EXPERTS));
    CLDSA_NN_OP(nn, gemm, .a = moe->dhidden, .b = moe->rows,
                .c = all_experts(cldsa_param_grad(params, moe->first), config), .group_offsets = moe->offsets,
                .layout = CLDSA_GEMM_TN, .alpha = 1);
    /* drows has served: it takes the gradient of the gathered tokens next. */
    CLDSA_NN_OP(nn, gemm, .a = moe->dhidden, .b = first, .c = moe->drows, .group_offsets = moe->offsets,
                .layout = CLDSA_GEMM_NN, .alpha = 1);
    CLDSA_NN_OP(nn, moe_route_backward, .experts = moe->experts, .weights = moe->weights, .dweights = moe->dweights,
                .dlogits = moe->dlogits);
    CLDSA_TRY(cldsa_linear_backward(nn, x, cldsa_param_value(params, moe->gate), moe->dlogits, 0, dx,
                                    cldsa_param_grad(params, moe->gate)));
    CLDSA_NN_OP(nn, moe_dispatch_backward, .drows = moe->drows, .position = moe->position, .dx = dx,
                .accumulate = true);
    return CLDSA_SUCCESS;
}
