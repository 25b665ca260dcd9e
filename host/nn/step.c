/*
 * One step: forward, loss, backward, update. Everything here only enqueues.
 */
#include "host/nn/model_state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

cldsa_train_options cldsa_train_options_default(void) {
    return (cldsa_train_options){
        .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01, .seed = 42};
}

/* ---- the batch ------------------------------------------------------------------------------------------------ */

/* A free staging slot with room for `count` words; waits only if the device is CLDSA_STAGING_SLOTS batches behind. */
static cldsa_status next_staging(cldsa_model *model, size_t count, cldsa_staging **out) {
    cldsa_staging *slot = &model->staging[model->next_staging];
    model->next_staging = (model->next_staging + 1) % CLDSA_STAGING_SLOTS;
    if (slot->read) {
        cl_int error = clWaitForEvents(1, &slot->read);
        clReleaseEvent(slot->read);
        slot->read = NULL;
        if (error)
            return cldsa_fail(error, "an earlier step failed on the device");
    }
    if (slot->count < count) {
        int32_t *data = realloc(slot->data, count * sizeof *data);
        if (!data)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for a batch of %zu words", count);
        slot->data = data;
        slot->count = count;
    }
    *out = slot;
    return CLDSA_SUCCESS;
}

/* ids and labels lie one behind the other in the arena up to its rounding; each travels by itself. */
static cldsa_status upload(cldsa_model *model, const cldsa_batch *batch) {
    const size_t count = (size_t)batch->batch * (size_t)batch->seq_len, bytes = count * sizeof(int32_t);
    cldsa_staging *slot = NULL;
    CLDSA_TRY(next_staging(model, 2 * count, &slot));
    memcpy(slot->data, batch->ids, bytes);
    cl_int error = CL_SUCCESS;
    if (batch->labels) {
        memcpy(slot->data + count, batch->labels, bytes);
        error = clEnqueueWriteBuffer(model->queue, model->labels.mem, CL_FALSE, model->labels.offset * sizeof(int32_t),
                                     bytes, slot->data + count, 0, NULL, NULL);
    }
    /* In order: when the ids have arrived, so have the labels. */
    if (!error)
        error = clEnqueueWriteBuffer(model->queue, model->ids.mem, CL_FALSE, model->ids.offset * sizeof(int32_t), bytes,
                                     slot->data, 0, NULL, &slot->read);
    return error ? cldsa_fail(error, "sending a batch to the device failed") : CLDSA_SUCCESS;
}

static double loss_scale_of(const cldsa_model *model, const cldsa_batch *batch) {
    if (batch->loss_scale != 0 || !batch->labels)
        return batch->loss_scale;
    const int64_t count = (int64_t)batch->batch * batch->seq_len;
    int64_t scored = 0;
    for (int64_t i = 0; i < count; ++i)
        scored += batch->labels[i] >= 0 && batch->labels[i] < model->config.vocab_size;
    return scored > 0 ? 1.0 / (double)scored : 0;
}

/* ---- forward -------------------------------------------------------------------------------------------------- */

static cldsa_status forward(cldsa_model *model) {
    cldsa_nn *nn = &model->nn;
    const cldsa_params *params = &model->params;
    CLDSA_NN_OP(nn, embedding, .ids = model->ids, .table = cldsa_param_value(params, model->token_embedding),
                .positions = cldsa_param_value(params, model->position_embedding), .out = model->embedded);
    cldsa_tensor x = cldsa_as_matrix(model->embedded, nn->tokens, model->config.hidden_size), addend = {0};
    for (int i = 0; i < model->config.num_layers; ++i) {
        CLDSA_TRY(cldsa_block_forward(&model->blocks[i], nn, x, addend));
        x = model->blocks[i].moe_norm.sum;
        addend = model->blocks[i].moe_out;
    }
    CLDSA_TRY(cldsa_residual_norm_forward(&model->final_norm, nn, x, addend));
    return cldsa_linear(nn, model->final_norm.out, cldsa_param_value(params, model->head_weight),
                        cldsa_param_value(params, model->head_bias), CLDSA_ACT_NONE, model->logits);
}

/* A place in the next result's row of the ring. */
static cldsa_tensor result_place(const cldsa_model *model, int column) {
    const size_t row = (size_t)(model->runs % CLDSA_RESULT_RING);
    return CLDSA_TENSOR(model->results, row * CLDSA_RESULT_WIDTH + (size_t)column, CLDSA_F32, 1);
}

/* Loss and hits into the ring; with `backward` the logits' gradient too. */
static cldsa_status score(cldsa_model *model, float scale, bool backward) {
    cldsa_nn *nn = &model->nn;
    const cldsa_tensor none = {0};
    cldsa_tensor labels = model->labels;
    labels.rank = 1;
    labels.shape[0] = nn->tokens;
    CLDSA_NN_OP(nn, cross_entropy, .logits = model->logits, .labels = labels, .row_loss = model->row_loss,
                .row_correct = model->row_correct, .dlogits = backward ? model->dlogits : none, .grad_scale = scale);
    CLDSA_NN_OP(nn, reduce, .x = model->row_loss, .y = result_place(model, 0), .scale = scale);
    CLDSA_NN_OP(nn, reduce, .x = model->row_correct, .y = result_place(model, 1), .scale = scale);
    return CLDSA_SUCCESS;
}

/* ---- backward and update -------------------------------------------------------------------------------------- */

/* Every gradient is overwritten, so none needs zeroing. */
static cldsa_status backward(cldsa_model *model) {
    cldsa_nn *nn = &model->nn;
    const cldsa_params *params = &model->params;
    CLDSA_NN_OP(nn, column_sum, .x = model->dlogits, .y = cldsa_param_grad(params, model->head_bias));
    CLDSA_TRY(cldsa_linear_backward(nn, model->final_norm.out, cldsa_param_value(params, model->head_weight),
                                    model->dlogits, 0, model->dh, cldsa_param_grad(params, model->head_weight)));
    /* Nothing but the norm reads the last sum: there is no residual path yet. */
    CLDSA_NN_OP(nn, layer_norm_backward, .x = model->final_norm.sum,
                .weight = cldsa_param_value(params, model->final_norm.weight), .mean = model->final_norm.mean,
                .rstd = model->final_norm.rstd, .dy = model->dh, .dx = model->dx,
                .dweight = cldsa_param_grad(params, model->final_norm.weight),
                .dbias = cldsa_param_grad(params, model->final_norm.bias));
    for (int i = model->config.num_layers - 1; i >= 0; --i)
        CLDSA_TRY(cldsa_block_backward(&model->blocks[i], nn, model->dx, model->dh));
    CLDSA_NN_OP(nn, embedding_backward, .ids = model->ids,
                .dout = cldsa_as_rank3(model->dx, nn->batch, nn->seq_len, model->config.hidden_size),
                .dtable = cldsa_param_grad(params, model->token_embedding),
                .dpositions = cldsa_param_grad(params, model->position_embedding));
    return CLDSA_SUCCESS;
}

/* Clipping reads the norm on the device. */
static cldsa_status update(cldsa_model *model, const cldsa_train_options *options) {
    cldsa_nn *nn = &model->nn;
    const cldsa_params *params = &model->params;
    const bool clip = options->max_norm > 0;
    const cldsa_tensor none = {0}, norm2 = result_place(model, 2);
    const cldsa_tensor grad = CLDSA_TENSOR(params->grad, 0, CLDSA_F32, params->trainable);
    if (clip)
        CLDSA_NN_OP(nn, reduce, .x = grad, .y = norm2, .kind = CLDSA_REDUCE_SUM_SQUARES, .scale = 1);
    CLDSA_NN_OP(nn, adamw, .param = CLDSA_TENSOR(params->value, 0, CLDSA_F32, params->trainable), .grad = grad,
                .m = CLDSA_TENSOR(params->m, 0, CLDSA_F32, params->trainable),
                .v = CLDSA_TENSOR(params->v, 0, CLDSA_F32, params->trainable), .norm2 = clip ? norm2 : none,
                .lr = (float)options->lr, .beta1 = (float)options->beta1, .beta2 = (float)options->beta2,
                .eps = (float)options->eps, .weight_decay = (float)options->weight_decay,
                .max_norm = (float)options->max_norm, .step = (int)(model->step + 1));
    return CLDSA_SUCCESS;
}

/* ---- whole steps ---------------------------------------------------------------------------------------------- */

/* splitmix64: a step's own seed, so that a resumed run needs to know only the seed and the step. */
static uint64_t step_seed(uint64_t seed, uint64_t step) {
    uint64_t z = seed + 0x9E3779B97F4A7C15u * (step + 1);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

cldsa_status cldsa_model_plan(cldsa_model *model) {
    cldsa_train_options options = cldsa_train_options_default();
    options.max_norm = 1;
    cldsa_nn *nn = &model->nn;
    nn->planning = true;
    nn->workspace_needed = 0;
    /* Evaluation and training differ in a few calls; both are walked. */
    nn->training = false;
    cldsa_status status = forward(model);
    if (status == CLDSA_SUCCESS)
        status = score(model, 1, false);
    if (status == CLDSA_SUCCESS && model->trains) {
        nn->training = true;
        status = forward(model);
        if (status == CLDSA_SUCCESS)
            status = score(model, 1, true);
        if (status == CLDSA_SUCCESS)
            status = backward(model);
        if (status == CLDSA_SUCCESS)
            status = update(model, &options);
    }
    nn->planning = false;
    return status;
}

/* What a run does besides the forward pass. */
typedef struct run_plan {
    bool noise, backward;
    const cldsa_train_options *update; /* NULL: none */
    uint64_t seed;
} run_plan;

static cldsa_status run(cldsa_model *model, const cldsa_batch *batch, run_plan plan) {
    if (plan.backward && !model->trains)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "model: it was created without training");
    if (plan.backward && !batch->labels)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "model: a training step needs labels");
    CLDSA_TRY(cldsa_model_fit(model, batch->batch, batch->seq_len));
    CLDSA_TRY(upload(model, batch));
    model->nn.training = plan.noise;
    model->nn.seed = plan.seed;
    CLDSA_TRY(forward(model));
    if (batch->labels)
        CLDSA_TRY(score(model, (float)loss_scale_of(model, batch), plan.backward));
    if (plan.backward)
        CLDSA_TRY(backward(model));
    if (plan.update) {
        CLDSA_TRY(update(model, plan.update));
        ++model->step;
    }
    if (batch->labels) {
        model->has_norm[model->runs % CLDSA_RESULT_RING] = plan.update && plan.update->max_norm > 0;
        ++model->runs;
    }
    cl_int error = clFlush(model->queue);
    return error ? cldsa_fail(error, "handing a step to the device failed") : CLDSA_SUCCESS;
}

cldsa_status cldsa_model_train_step(cldsa_model *model, const cldsa_batch *batch, const cldsa_train_options *options) {
    const run_plan plan = {.noise = !options->no_noise,
                           .backward = true,
                           .update = options,
                           .seed = step_seed(options->seed, (uint64_t)model->step)};
    return run(model, batch, plan);
}

cldsa_status cldsa_model_evaluate(cldsa_model *model, const cldsa_batch *batch) {
    return run(model, batch, (run_plan){0});
}

cldsa_status cldsa_model_gradients(cldsa_model *model, const cldsa_batch *batch, bool noise, uint64_t seed) {
    return run(model, batch, (run_plan){.noise = noise, .backward = true, .seed = step_seed(seed, 0)});
}

cldsa_status cldsa_model_read_results(cldsa_model *model, int count, cldsa_step_result *results) {
    if (count < 0 || count > CLDSA_RESULT_RING || (uint64_t)count > model->runs)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "model: %d results are wanted; %llu were made and %d are kept", count,
                          (unsigned long long)model->runs, CLDSA_RESULT_RING);
    if (count == 0)
        return CLDSA_SUCCESS;
    const size_t bytes = sizeof(float) * CLDSA_RESULT_RING * CLDSA_RESULT_WIDTH;
    float *ring = malloc(bytes);
    if (!ring)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory to read results");
    cl_int error = clEnqueueReadBuffer(model->queue, model->results, CL_TRUE, 0, bytes, ring, 0, NULL, NULL);
    for (int i = 0; i < count && !error; ++i) {
        const uint64_t row = (model->runs - (uint64_t)count + (uint64_t)i) % CLDSA_RESULT_RING;
        const float *values = ring + row * CLDSA_RESULT_WIDTH;
        results[i] = (cldsa_step_result){values[0], values[1], model->has_norm[row] ? sqrtf(values[2]) : NAN};
    }
    free(ring);
    return error ? cldsa_fail(error, "reading results failed: an earlier step failed on the device") : CLDSA_SUCCESS;
}
