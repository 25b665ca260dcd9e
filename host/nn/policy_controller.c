/*
 * The published sparsity controller: from the hidden states of a sequence to the part of its keys every row keeps.
 *
 * Three factors (length, complexity, entropy; controller.h states them) make one ratio per sequence. top-k and round()
 * cut its gradient off, so its parameters never move: "adaptive" k is a fixed function of the initial weights, and that
 * is reproduced here. The forms with a single factor come from `controller_use`; what they leave out is not computed.
 *
 * In a causal model every row still uses the one ratio of its whole sequence, so the number of keys (not what they hold)
 * depends on later tokens. That is how the controller is defined; a policy per row would not have it.
 *
 * Some parameters (diversity_proj, out_proj, entropy_proj, the value rows of in_proj) take part in nothing. They
 * exist because the reference's files have them.
 */
#include "host/nn/policy.h"

#include <stdio.h>
#include <string.h>

enum { ENTROPY_PROJ_DIM = 32 };

typedef struct controller_layer {
    cldsa_policy_layer base;
    int length_w1, length_b1, length_w2, length_b2; /* handles of parameters */
    int combiner_w, combiner_b;
    int predict_w1, predict_b1, predict_w2, predict_b2, norm_w, norm_b;
    int in_proj_w, in_proj_b;
    int adapter_w1, adapter_b1, adapter_w2, adapter_b2;
    int mix; /* base sparsity, then the three weights, joined */
    cldsa_tensor mean;
    cldsa_tensor diversity, perplexity, variance, entropy;
    cldsa_tensor factors, ratio, k;
    cldsa_tensor predict_hidden, predicted, qk; /* scratch */
} controller_layer;

/* ---- parameters ----------------------------------------------------------------------------------------------- */

/* Adds NAME.weight [rows,columns] and NAME.bias [rows]; *weight and *bias may be the same throw-away variable. */
static cldsa_status add_linear(cldsa_params *params, const char *prefix, const char *name, int rows, int columns,
                               float scale, int *weight, int *bias) {
    char rest[CLDSA_PARAM_NAME_MAX];
    snprintf(rest, sizeof rest, "%s.weight", name);
    const cldsa_param_spec w = {.rank = 2, .shape = {rows, columns}, .init = CLDSA_INIT_NORMAL, .scale = scale};
    CLDSA_TRY(cldsa_params_add_in(params, prefix, prefix, rest, w, weight));
    snprintf(rest, sizeof rest, "%s.bias", name);
    const cldsa_param_spec b = {.rank = 1, .shape = {rows}, .init = CLDSA_INIT_CONSTANT};
    return cldsa_params_add_in(params, prefix, prefix, rest, b, bias);
}

static cldsa_status add_constant(cldsa_params *params, const char *prefix, const char *name, int rank, int numel,
                                 float value, bool joined, int *index) {
    const cldsa_param_spec spec = {
        .rank = rank, .shape = {numel}, .init = CLDSA_INIT_CONSTANT, .scale = value, .joined = joined};
    return cldsa_params_add_in(params, prefix, prefix, name, spec, index);
}

static cldsa_status declare(cldsa_policy_layer *base, cldsa_params *params, const cldsa_config *config,
                            const char *prefix) {
    controller_layer *layer = (controller_layer *)base;
    const int d = config->hidden_size, wide = config->controller_dim;
    const float scale = (float)config->initializer_range;
    int unused = 0;
    CLDSA_TRY(add_linear(params, prefix, "length_predictor.0", config->controller_length_dim, d, scale,
                         &layer->length_w1, &layer->length_b1));
    CLDSA_TRY(add_linear(params, prefix, "length_predictor.2", 1, config->controller_length_dim, scale,
                         &layer->length_w2, &layer->length_b2));

    CLDSA_TRY(add_linear(params, prefix, "complexity_analyzer.diversity_proj", 1, d, scale, &unused, &unused));
    CLDSA_TRY(add_linear(params, prefix, "complexity_analyzer.perplexity_estimator.0", wide, d, scale,
                         &layer->predict_w1, &layer->predict_b1));
    CLDSA_TRY(add_linear(params, prefix, "complexity_analyzer.perplexity_estimator.2", d, wide, scale,
                         &layer->predict_w2, &layer->predict_b2));
    CLDSA_TRY(add_constant(params, prefix, "complexity_analyzer.perplexity_estimator.3.weight", 1, d, 1, false,
                           &layer->norm_w));
    CLDSA_TRY(add_constant(params, prefix, "complexity_analyzer.perplexity_estimator.3.bias", 1, d, 0, false,
                           &layer->norm_b));
    CLDSA_TRY(add_linear(params, prefix, "complexity_analyzer.complexity_combiner.0", 1, 3, scale, &layer->combiner_w,
                         &layer->combiner_b));

    const cldsa_param_spec in_proj = {.rank = 2, .shape = {3 * d, d}, .init = CLDSA_INIT_XAVIER, .scale = 1};
    CLDSA_TRY(cldsa_params_add_in(params, prefix, prefix, "entropy_estimator.attention_proxy.in_proj_weight", in_proj,
                                  &layer->in_proj_w));
    CLDSA_TRY(add_constant(params, prefix, "entropy_estimator.attention_proxy.in_proj_bias", 1, 3 * d, 0, false,
                           &layer->in_proj_b));
    CLDSA_TRY(add_linear(params, prefix, "entropy_estimator.attention_proxy.out_proj", d, d, scale, &unused, &unused));
    CLDSA_TRY(
        add_linear(params, prefix, "entropy_estimator.entropy_proj.0", ENTROPY_PROJ_DIM, d, scale, &unused, &unused));
    CLDSA_TRY(
        add_linear(params, prefix, "entropy_estimator.entropy_proj.2", 1, ENTROPY_PROJ_DIM, scale, &unused, &unused));

    CLDSA_TRY(add_constant(params, prefix, "k_calculator.base_sparsity", 0, 1, 0.5f, false, &layer->mix));
    CLDSA_TRY(add_constant(params, prefix, "k_calculator.length_weight", 0, 1, 0.4f, true, &unused));
    CLDSA_TRY(add_constant(params, prefix, "k_calculator.complexity_weight", 0, 1, 0.3f, true, &unused));
    CLDSA_TRY(add_constant(params, prefix, "k_calculator.entropy_weight", 0, 1, 0.3f, true, &unused));
    CLDSA_TRY(add_linear(params, prefix, "k_calculator.length_adapter.0", config->controller_adapter_dim, 1, scale,
                         &layer->adapter_w1, &layer->adapter_b1));
    return add_linear(params, prefix, "k_calculator.length_adapter.2", 1, config->controller_adapter_dim, scale,
                      &layer->adapter_w2, &layer->adapter_b2);
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

static void place(cldsa_policy_layer *base, const cldsa_nn *nn, cldsa_arena *kept, cldsa_arena *scratch) {
    controller_layer *layer = (controller_layer *)base;
    const int64_t d = nn->config->hidden_size;
    layer->mean = CLDSA_PLACE(kept, CLDSA_F32, nn->batch, d);
    layer->diversity = CLDSA_PLACE(kept, CLDSA_F32, nn->batch);
    layer->perplexity = CLDSA_PLACE(kept, CLDSA_F32, nn->batch);
    layer->variance = CLDSA_PLACE(kept, CLDSA_F32, nn->batch);
    layer->entropy = CLDSA_PLACE(kept, CLDSA_F32, nn->batch);
    layer->factors = CLDSA_PLACE(kept, CLDSA_F32, nn->batch, 3);
    layer->ratio = CLDSA_PLACE(kept, CLDSA_F32, nn->batch);
    layer->k = CLDSA_PLACE(kept, CLDSA_I32, nn->batch);
    layer->base.k_rows = nn->config->causal ? CLDSA_PLACE(kept, CLDSA_I32, nn->batch, nn->seq_len) : layer->k;

    layer->predict_hidden = CLDSA_PLACE(scratch, CLDSA_F32, nn->tokens, nn->config->controller_dim);
    layer->predicted = CLDSA_PLACE(scratch, CLDSA_F32, nn->batch, nn->seq_len, d);
    layer->qk = CLDSA_PLACE(scratch, CLDSA_F32, nn->batch, nn->seq_len, 2 * d);
}

/* The factors a form leaves out are read and weighted by zero: they must at least be numbers. */
static cldsa_status prepare(cldsa_policy_layer *base, cldsa_nn *nn) {
    controller_layer *layer = (controller_layer *)base;
    const cldsa_tensor inputs[] = {layer->mean, layer->diversity, layer->perplexity, layer->variance, layer->entropy};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; ++i) {
        cl_int error = clEnqueueFillBuffer(nn->call.queue, inputs[i].mem, &(cl_float){0}, sizeof(cl_float),
                                           inputs[i].offset * sizeof(float),
                                           (size_t)cldsa_tensor_numel(&inputs[i]) * sizeof(float), 0, NULL, NULL);
        if (error)
            return cldsa_fail(error, "zeroing the controller's inputs failed");
    }
    return CLDSA_SUCCESS;
}

/* ---- forward -------------------------------------------------------------------------------------------------- */

static cldsa_status measure_complexity(controller_layer *layer, cldsa_nn *nn, cldsa_tensor hidden) {
    const cldsa_params *params = nn->params;
    const int64_t d = nn->config->hidden_size;
    CLDSA_TRY(cldsa_linear(nn, cldsa_as_matrix(hidden, nn->tokens, d), cldsa_param_value(params, layer->predict_w1),
                           cldsa_param_value(params, layer->predict_b1), CLDSA_ACT_RELU, layer->predict_hidden));
    CLDSA_TRY(cldsa_linear(nn, layer->predict_hidden, cldsa_param_value(params, layer->predict_w2),
                           cldsa_param_value(params, layer->predict_b2), CLDSA_ACT_NONE,
                           cldsa_as_matrix(layer->predicted, nn->tokens, d)));
    CLDSA_NN_OP(nn, controller_perplexity, .pred = layer->predicted, .h = hidden,
                .weight = cldsa_param_value(params, layer->norm_w), .bias = cldsa_param_value(params, layer->norm_b),
                .perplexity = layer->perplexity, .eps = (float)nn->config->layer_norm_eps);
    return CLDSA_SUCCESS;
}

/* Queries and keys in one product: the first 2d rows of the packed projection. */
static cldsa_status measure_entropy(controller_layer *layer, cldsa_nn *nn, cldsa_tensor hidden) {
    const int64_t d = nn->config->hidden_size;
    cldsa_tensor bias = cldsa_param_value(nn->params, layer->in_proj_b);
    bias.shape[0] = 2 * d;
    CLDSA_TRY(cldsa_linear(nn, cldsa_as_matrix(hidden, nn->tokens, d),
                           cldsa_as_matrix(cldsa_param_value(nn->params, layer->in_proj_w), 2 * d, d), bias,
                           CLDSA_ACT_NONE, cldsa_as_matrix(layer->qk, nn->tokens, 2 * d)));
    CLDSA_NN_OP(nn, controller_entropy, .qk = layer->qk, .entropy = layer->entropy,
                .num_heads = nn->config->controller_heads, .d_model = (int)d);
    return CLDSA_SUCCESS;
}

static cldsa_status forward(cldsa_policy_layer *base, cldsa_nn *nn, const cldsa_policy_view *view) {
    controller_layer *layer = (controller_layer *)base;
    const cldsa_params *params = nn->params;
    const int use = nn->config->controller_use;
    if (use & (CLDSA_CONTROLLER_LENGTH | CLDSA_CONTROLLER_COMPLEXITY))
        CLDSA_NN_OP(nn, controller_moments, .h = view->hidden, .mean = layer->mean, .diversity = layer->diversity,
                    .variance = layer->variance);
    if (use & CLDSA_CONTROLLER_COMPLEXITY)
        CLDSA_TRY(measure_complexity(layer, nn, view->hidden));
    if (use & CLDSA_CONTROLLER_ENTROPY)
        CLDSA_TRY(measure_entropy(layer, nn, view->hidden));

    cldsa_tensor mix = cldsa_param_value(params, layer->mix);
    mix.rank = 1;
    mix.shape[0] = 4;
    CLDSA_NN_OP(nn, controller_k, .mean = layer->mean, .diversity = layer->diversity, .perplexity = layer->perplexity,
                .variance = layer->variance, .entropy = layer->entropy,
                .length_w1 = cldsa_param_value(params, layer->length_w1),
                .length_b1 = cldsa_param_value(params, layer->length_b1),
                .length_w2 = cldsa_param_value(params, layer->length_w2),
                .length_b2 = cldsa_param_value(params, layer->length_b2),
                .combiner_w = cldsa_param_value(params, layer->combiner_w),
                .combiner_b = cldsa_param_value(params, layer->combiner_b),
                .adapter_w1 = cldsa_param_value(params, layer->adapter_w1),
                .adapter_b1 = cldsa_param_value(params, layer->adapter_b1),
                .adapter_w2 = cldsa_param_value(params, layer->adapter_w2),
                .adapter_b2 = cldsa_param_value(params, layer->adapter_b2), .mix = mix, .factors = layer->factors,
                .ratio = layer->ratio, .k = layer->k, .seq_len = (int)nn->seq_len,
                .max_seq_len = nn->config->max_positions, .use = use);
    if (nn->config->causal)
        CLDSA_NN_OP(nn, keep_rows, .ratio = layer->ratio, .k_rows = layer->base.k_rows, .causal = true);
    return CLDSA_SUCCESS;
}

/* The three factors lie interleaved, [B,3]; "factors" gives them whole. */
static cldsa_tensor inspect(const cldsa_policy_layer *base, const char *name) {
    const controller_layer *layer = (const controller_layer *)base;
    const struct {
        const char *name;
        cldsa_tensor value;
    } known[] = {{"factors", layer->factors}, {"ratio", layer->ratio}, {"entropy", layer->entropy}};
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
        if (strcmp(name, known[i].name) == 0)
            return known[i].value;
    return (cldsa_tensor){0};
}

const cldsa_policy cldsa_policy_controller = {
    .name = "controller",
    .summary = "the published controller: a part per sequence from its length, complexity and entropy",
    .layer_bytes = sizeof(controller_layer),
    .wrapped = true,
    .declare = declare,
    .place = place,
    .prepare = prepare,
    .forward = forward,
    .inspect = inspect,
};
