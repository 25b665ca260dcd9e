/*
 * The model's making, its memory, and looking inside. What a step does is in step.c.
 */
#include "host/nn/model.h"

#include "host/nn/model_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- making --------------------------------------------------------------------------------------------------- */

/* All parameters in the reference's order of modules; handles go into the model and its blocks. */
static cldsa_status declare(cldsa_model *model, const cldsa_policy *policy) {
    const cldsa_config *config = &model->config;
    cldsa_params *params = &model->params;
    cldsa_param_spec spec = {.rank = 2,
                             .shape = {config->vocab_size, config->hidden_size},
                             .init = CLDSA_INIT_NORMAL,
                             .scale = (float)config->initializer_range,
                             .trainable = true};
    const char *name = "token_embedding.weight";
    CLDSA_TRY(cldsa_params_add(params, name, name, spec, &model->token_embedding));
    spec.shape[0] = config->max_positions;
    name = "position_embedding.weight";
    CLDSA_TRY(cldsa_params_add(params, name, name, spec, &model->position_embedding));
    for (int i = 0; i < config->num_layers; ++i)
        CLDSA_TRY(cldsa_block_declare(&model->blocks[i], params, config, policy, i));
    CLDSA_TRY(cldsa_residual_norm_declare(&model->final_norm, params, config, "layer_norm"));
    spec.shape[0] = config->vocab_size;
    name = "output_projection.weight";
    CLDSA_TRY(cldsa_params_add(params, name, name, spec, &model->head_weight));
    spec.rank = 1;
    spec.init = CLDSA_INIT_CONSTANT;
    spec.scale = 0;
    name = "output_projection.bias";
    CLDSA_TRY(cldsa_params_add(params, name, name, spec, &model->head_bias));
    cldsa_params_layout(params);
    return CLDSA_SUCCESS;
}

/* Host side of a model: tables only, no device memory. */
static cldsa_status describe(cldsa_model *model, const cldsa_config *config) {
    const cldsa_policy *policy = NULL;
    CLDSA_TRY(cldsa_config_check(config, "model"));
    CLDSA_TRY(cldsa_find_policy(config->policy, &policy));
    model->config = *config;
    model->blocks = calloc((size_t)config->num_layers, sizeof *model->blocks);
    model->kept = calloc((size_t)config->num_layers, sizeof *model->kept);
    model->kept_bytes = calloc((size_t)config->num_layers, sizeof *model->kept_bytes);
    if (!model->blocks || !model->kept || !model->kept_bytes)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %d layers", config->num_layers);
    return declare(model, policy);
}

static void release_host(cldsa_model *model) {
    for (int i = 0; model->blocks && i < model->config.num_layers; ++i)
        cldsa_block_free(&model->blocks[i]);
    free(model->blocks);
    free(model->kept);
    free(model->kept_bytes);
    cldsa_params_free(&model->params);
}

int64_t cldsa_config_num_parameters(const cldsa_config *config) {
    cldsa_model model = {0};
    int64_t count = describe(&model, config) == CLDSA_SUCCESS ? model.params.numel : 0;
    release_host(&model);
    return count;
}

/* A device buffer, counted. */
static cldsa_status allocate(cldsa_model *model, size_t bytes, const char *what, cl_mem *out) {
    cl_int error = CL_SUCCESS;
    *out = clCreateBuffer(cldsa_context_cl(model->ctx), CL_MEM_READ_WRITE, bytes, NULL, &error);
    if (error) {
        *out = NULL;
        return cldsa_fail(
            error,
            "allocating %.1f MiB for %s failed (%s, %.1f MiB in use); a smaller batch, length or model needs less",
            (double)bytes / 1048576, what, cldsa_status_name(error), (double)cldsa_model_device_bytes(model) / 1048576);
    }
    /* Zeroed once, so that gaps and never-written values are the same in every run. */
    error = clEnqueueFillBuffer(model->queue, *out, &(cl_uint){0}, sizeof(cl_uint), 0, bytes / 4 * 4, 0, NULL, NULL);
    if (error)
        return cldsa_fail(error, "zeroing %.1f MiB for %s failed", (double)bytes / 1048576, what);
    model->device_bytes += bytes;
    if (cldsa_model_device_bytes(model) > model->peak_device_bytes)
        model->peak_device_bytes = cldsa_model_device_bytes(model);
    return CLDSA_SUCCESS;
}

static void release(cldsa_model *model, cl_mem *buffer, size_t bytes) {
    if (*buffer) {
        clReleaseMemObject(*buffer);
        model->device_bytes -= bytes;
    }
    *buffer = NULL;
}

static cldsa_status check_queue(cldsa_context *ctx, cl_command_queue queue) {
    cl_command_queue_properties properties = 0;
    cl_device_id device = NULL;
    cl_int error = clGetCommandQueueInfo(queue, CL_QUEUE_PROPERTIES, sizeof properties, &properties, NULL);
    if (!error)
        error = clGetCommandQueueInfo(queue, CL_QUEUE_DEVICE, sizeof device, &device, NULL);
    if (error)
        return cldsa_fail(error, "model: the queue cannot be asked for its properties");
    if (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "model: the queue is out of order; a model needs one in order");
    if (device != cldsa_context_device(ctx))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "model: the queue belongs to another device than the context");
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_model_create(cldsa_context *ctx, cl_command_queue queue, const cldsa_config *config, bool training,
                                cldsa_model **out) {
    CLDSA_TRY(check_queue(ctx, queue));
    cldsa_model *model = calloc(1, sizeof *model);
    if (!model)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for a model");
    clRetainCommandQueue(queue);
    model->ctx = ctx;
    model->queue = queue;
    model->trains = training;
    cldsa_status status = describe(model, config);
    if (status == CLDSA_SUCCESS)
        status = cldsa_params_allocate(&model->params, cldsa_context_cl(ctx), queue, training);
    if (status == CLDSA_SUCCESS)
        status = allocate(model, sizeof(float) * CLDSA_RESULT_RING * CLDSA_RESULT_WIDTH, "results", &model->results);
    if (status != CLDSA_SUCCESS) {
        cldsa_model_destroy(model);
        return status;
    }
    model->nn = (cldsa_nn){.ctx = ctx, .config = &model->config, .params = &model->params};
    model->nn.call.queue = queue;
    *out = model;
    return CLDSA_SUCCESS;
}

void cldsa_model_destroy(cldsa_model *model) {
    if (!model)
        return;
    clFinish(model->queue);
    for (int i = 0; model->kept && i < model->config.num_layers; ++i)
        release(model, &model->kept[i].mem, model->kept_bytes[i]);
    release(model, &model->shared.mem, model->shared_bytes);
    release(model, &model->nn.call.workspace, model->workspace_bytes);
    release(model, &model->results, 0);
    for (int i = 0; i < CLDSA_STAGING_SLOTS; ++i) {
        if (model->staging[i].read)
            clReleaseEvent(model->staging[i].read);
        free(model->staging[i].data);
    }
    release_host(model);
    clReleaseCommandQueue(model->queue);
    free(model);
}

const cldsa_config *cldsa_model_config(const cldsa_model *model) {
    return &model->config;
}
cldsa_params *cldsa_model_params(cldsa_model *model) {
    return &model->params;
}
int64_t cldsa_model_step(const cldsa_model *model) {
    return model->step;
}

cldsa_status cldsa_model_init(cldsa_model *model, uint64_t seed) {
    CLDSA_TRY(cldsa_params_init(&model->params, seed));
    model->step = 0;
    return CLDSA_SUCCESS;
}

size_t cldsa_model_device_bytes(const cldsa_model *model) {
    return model->device_bytes + model->params.device_bytes;
}
size_t cldsa_model_peak_device_bytes(const cldsa_model *model) {
    return model->peak_device_bytes;
}

/* ---- memory for a batch shape --------------------------------------------------------------------------------- */

/* Places everything; with all arenas' mem NULL this measures. */
static void place(cldsa_model *model) {
    cldsa_nn *nn = &model->nn;
    const int64_t d = model->config.hidden_size, vocabulary = model->config.vocab_size;
    cldsa_arena *shared = &model->shared;
    shared->used = shared->peak = 0;
    model->ids = CLDSA_PLACE(shared, CLDSA_I32, nn->batch, nn->seq_len);
    model->labels = CLDSA_PLACE(shared, CLDSA_I32, nn->batch, nn->seq_len);
    model->embedded = CLDSA_PLACE(shared, CLDSA_F32, nn->batch, nn->seq_len, d);
    cldsa_residual_norm_place(&model->final_norm, nn, shared);
    model->row_loss = CLDSA_PLACE(shared, CLDSA_F32, nn->tokens);
    model->row_correct = CLDSA_PLACE(shared, CLDSA_F32, nn->tokens);
    model->logits = CLDSA_PLACE(shared, CLDSA_F32, nn->tokens, vocabulary);
    model->dlogits = nn->capture ? CLDSA_PLACE(shared, CLDSA_F32, nn->tokens, vocabulary) : model->logits;
    if (model->trains) {
        model->dx = CLDSA_PLACE(shared, CLDSA_F32, nn->tokens, d);
        model->dh = CLDSA_PLACE(shared, CLDSA_F32, nn->tokens, d);
    }
    for (int i = 0; i < model->config.num_layers; ++i) {
        model->kept[i].used = model->kept[i].peak = 0;
        cldsa_block_place(&model->blocks[i], nn, model->trains, &model->kept[i], shared);
    }
}

/* Replaces a buffer that is too small. The queue is idle. */
static cldsa_status grow(cldsa_model *model, cl_mem *mem, size_t *have, size_t want, const char *what) {
    if (want <= *have)
        return CLDSA_SUCCESS;
    release(model, mem, *have);
    *have = 0;
    CLDSA_TRY(allocate(model, want, what, mem));
    *have = want;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_model_fit(cldsa_model *model, int batch, int seq_len) {
    cldsa_nn *nn = &model->nn;
    if (nn->batch == batch && nn->seq_len == seq_len)
        return CLDSA_SUCCESS;
    if (batch < 1)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "model: the batch is %d; it must be at least 1", batch);
    if (seq_len < 2 || seq_len > model->config.max_positions)
        return cldsa_fail(CLDSA_INVALID_SHAPE,
                          "model: the sequence length is %d; it must be 2 .. %d (max_position_embeddings)", seq_len,
                          model->config.max_positions);
    clFinish(model->queue);
    nn->batch = batch;
    nn->seq_len = seq_len;
    nn->tokens = (int64_t)batch * seq_len;

    place(model);
    cldsa_status status = grow(model, &model->shared.mem, &model->shared_bytes, model->shared.peak, "activations");
    for (int i = 0; i < model->config.num_layers && status == CLDSA_SUCCESS; ++i)
        status = grow(model, &model->kept[i].mem, &model->kept_bytes[i], model->kept[i].peak, "a layer's activations");
    if (status == CLDSA_SUCCESS) {
        place(model);
        status = cldsa_model_plan(model);
    }
    if (status == CLDSA_SUCCESS)
        status = grow(model, &nn->call.workspace, &model->workspace_bytes, nn->workspace_needed, "workspace");
    nn->call.workspace_bytes = model->workspace_bytes;
    for (int i = 0; i < model->config.num_layers && status == CLDSA_SUCCESS; ++i)
        status = cldsa_block_prepare(&model->blocks[i], nn);
    if (status != CLDSA_SUCCESS)
        nn->batch = 0; /* whatever comes next must fit again */
    return status;
}

/* ---- looking inside ------------------------------------------------------------------------------------------- */

cldsa_status cldsa_model_capture(cldsa_model *model, bool capture) {
    if (model->nn.capture != capture) {
        model->nn.capture = capture;
        model->nn.batch = 0;
    }
    return CLDSA_SUCCESS;
}

static cldsa_tensor find_in_block(const cldsa_model *model, int i, const char *name) {
    const cldsa_block *block = &model->blocks[i];
    const bool last = i + 1 == model->config.num_layers;
    const struct {
        const char *name;
        cldsa_tensor value;
    } known[] = {
        {"index_scores", block->indexer.scores},
        {"selected", block->indexer.mask},
        {"k", block->policy->keeps_all ? (cldsa_tensor){0} : block->policy_layer->k_rows},
        {"attention", block->attention_out},
        {"moe", block->moe_out},
        {"out", last ? model->final_norm.sum : model->blocks[i + 1].attention_norm.sum},
    };
    for (size_t j = 0; j < sizeof known / sizeof *known; ++j)
        if (strcmp(name, known[j].name) == 0)
            return known[j].value;
    return block->policy->inspect ? block->policy->inspect(block->policy_layer, name) : (cldsa_tensor){0};
}

cldsa_status cldsa_model_inspect(cldsa_model *model, const char *name, cldsa_tensor *out) {
    int layer = -1, length = 0;
    *out = (cldsa_tensor){0};
    if (!model->nn.capture || !model->nn.batch)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "model: %s is not kept; capture and run a forward pass first", name);
    if (strcmp(name, "logits") == 0)
        *out = model->logits;
    else if (sscanf(name, "layers.%d.%n", &layer, &length) == 1 && length > 0 && layer >= 0 &&
             layer < model->config.num_layers)
        *out = find_in_block(model, layer, name + length);
    return out->mem ? CLDSA_SUCCESS : cldsa_fail(CLDSA_NOT_FOUND, "model: there is no value \"%s\"", name);
}

/* ---- sparsity ------------------------------------------------------------------------------------------------- */

/* Keys kept by row i of sequence b; k_rows has a count per sequence or per row. */
static double kept_of(const int32_t *k, bool per_row, int64_t b, int64_t i, int64_t seq_len, double seen) {
    double kept = per_row ? k[b * seq_len + i] : k[b];
    return kept > seen ? seen : kept;
}

cldsa_status cldsa_model_read_sparsity(cldsa_model *model, int layer, cldsa_layer_sparsity *out) {
    const cldsa_nn *nn = &model->nn;
    if (!nn->batch || layer < 0 || layer >= model->config.num_layers)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "model: no step was run, or there is no layer %d", layer);
    const cldsa_block *block = &model->blocks[layer];
    const cldsa_tensor k_rows = block->policy_layer->k_rows;
    const int64_t count = block->policy->keeps_all ? 0 : cldsa_tensor_numel(&k_rows);
    const bool per_row = count == nn->tokens && nn->seq_len > 1;
    int32_t *k = NULL;
    if (count > 0) {
        k = malloc((size_t)count * sizeof *k);
        if (!k)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory to read a layer's k");
        cl_int error = clEnqueueReadBuffer(model->queue, k_rows.mem, CL_TRUE, k_rows.offset * sizeof *k,
                                           (size_t)count * sizeof *k, k, 0, NULL, NULL);
        if (error) {
            free(k);
            return cldsa_fail(error, "reading a layer's k failed");
        }
    }
    double sum = 0, squares = 0, part = 0;
    *out = (cldsa_layer_sparsity){.min_k = INFINITY, .max_k = 0};
    for (int64_t b = 0; b < nn->batch; ++b)
        for (int64_t i = 0; i < nn->seq_len; ++i) {
            const double seen = (double)(model->config.causal ? i + 1 : nn->seq_len);
            const double kept = k ? kept_of(k, per_row, b, i, nn->seq_len, seen) : seen;
            sum += kept;
            squares += kept * kept;
            part += kept / seen;
            out->min_k = fmin(out->min_k, kept);
            out->max_k = fmax(out->max_k, kept);
        }
    free(k);
    const double rows = (double)nn->tokens;
    out->mean_k = sum / rows;
    out->std_k = sqrt(fmax(0, squares / rows - out->mean_k * out->mean_k));
    out->sparsity = 1 - part / rows;
    return CLDSA_SUCCESS;
}
