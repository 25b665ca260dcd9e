#include "host/nn/check.h"

#include "host/io/json.h"
#include "host/nn/model.h"
#include "host/nn/policy_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GOLDEN_STEPS = 8 };

/* ---- the report ----------------------------------------------------------------------------------------------- */

/* |got - want| may be absolute + relative * the tensor's largest magnitude. */
typedef struct tolerance {
    double absolute, relative;
} tolerance;

/*
 * The goldens are f32 results themselves, summed in another order; errors grow with depth and, in gradients, with the
 * cancellation of large terms, so they are measured against a tensor's scale and not against each element.
 */
static const tolerance exact = {0, 0};
static const tolerance activation_tolerance = {1e-6, 2e-5};
static const tolerance gradient_tolerance = {1e-8, 1e-4};
static const tolerance losses_tolerance = {0, 2e-4};

void cldsa_check_report_free(cldsa_check_report *report) {
    free(report->rows);
    *report = (cldsa_check_report){0};
}

static cldsa_status add_row(cldsa_check_report *report, const char *name, double error, double worst_abs) {
    if (report->count == report->capacity) {
        const size_t capacity = report->capacity ? 2 * report->capacity : 64;
        cldsa_check_row *rows = realloc(report->rows, capacity * sizeof *rows);
        if (!rows)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for a report");
        report->rows = rows;
        report->capacity = capacity;
    }
    if (report->count == 0)
        report->ok = true;
    cldsa_check_row *row = &report->rows[report->count++];
    *row = (cldsa_check_row){.error = error, .worst_abs = worst_abs, .ok = error <= 1};
    snprintf(row->name, sizeof row->name, "%s", name);
    report->ok = report->ok && row->ok;
    return CLDSA_SUCCESS;
}

/* Compares `count` values got from the device. */
static cldsa_status compare(cldsa_check_report *report, const cldsa_st_tensor *want, const double *got, int64_t count,
                            tolerance allowed) {
    if (count != want->numel)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s has %lld elements; the model makes %lld", want->name,
                          (long long)want->numel, (long long)count);
    double scale = 0, worst = 0;
    bool finite = true;
    for (int64_t i = 0; i < count; ++i) {
        const double expected = cldsa_st_value(want, i), difference = fabs(got[i] - expected);
        finite = finite && isfinite(difference);
        scale = fmax(scale, fabs(expected));
        worst = fmax(worst, difference);
    }
    const double limit = allowed.absolute + allowed.relative * scale;
    const double error = !finite ? INFINITY : limit > 0 ? worst / limit : worst > 0 ? INFINITY : 0;
    return add_row(report, want->name, error, finite ? worst : INFINITY);
}

/* A device tensor as doubles, malloc'ed. Waits. */
static cldsa_status fetch(cl_command_queue queue, cldsa_tensor tensor, double **out) {
    const int64_t count = cldsa_tensor_numel(&tensor);
    const size_t bytes = (size_t)count * sizeof(cl_uint);
    double *values = malloc((size_t)count * sizeof *values);
    cl_uint *words = malloc(bytes);
    cl_int error = CL_OUT_OF_HOST_MEMORY;
    if (values && words)
        error = clEnqueueReadBuffer(queue, tensor.mem, CL_TRUE, tensor.offset * sizeof(cl_uint), bytes, words, 0, NULL,
                                    NULL);
    for (int64_t i = 0; i < count && !error; ++i) {
        float value;
        memcpy(&value, &words[i], sizeof value);
        values[i] = tensor.dtype == CLDSA_F32   ? value
                    : tensor.dtype == CLDSA_I32 ? (double)(cl_int)words[i]
                                                : (double)words[i];
    }
    free(words);
    if (error) {
        free(values);
        return cldsa_fail(error, "reading %lld values from the device failed", (long long)count);
    }
    *out = values;
    return CLDSA_SUCCESS;
}

static cldsa_status compare_device(cldsa_check_report *report, cl_command_queue queue, const cldsa_st_tensor *want,
                                   cldsa_tensor tensor, tolerance allowed) {
    double *got = NULL;
    CLDSA_TRY(fetch(queue, tensor, &got));
    cldsa_status status = compare(report, want, got, cldsa_tensor_numel(&tensor), allowed);
    free(got);
    return status;
}

/* ---- the golden's config -------------------------------------------------------------------------------------- */

/* From the reference's own field names to ours; head sizes follow from the width, as there. */
static cldsa_status config_from_golden(const cJSON *json, const char *path, cldsa_config *config) {
    const struct {
        const char *key;
        int *value;
    } ints[] = {
        {"d_model", &config->hidden_size},
        {"n_layers", &config->num_layers},
        {"n_heads", &config->num_heads},
        {"d_ff", &config->expert_size},
        {"vocab_size", &config->vocab_size},
        {"max_position_embeddings", &config->max_positions},
        {"max_seq_len", &config->max_positions},
        {"num_experts", &config->num_experts},
        {"top_k", &config->experts_per_token},
        {"q_lora_rank", &config->q_lora_rank},
        {"kv_lora_rank", &config->kv_lora_rank},
        {"indexer_heads", &config->index_heads},
        {"indexer_dim", &config->index_head_dim},
        {"complexity_dim", &config->controller_dim},
        {"entropy_heads", &config->controller_heads},
        {"num_proxy_heads", &config->controller_heads},
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; ++i)
        CLDSA_TRY(cldsa_json_get_int(json, path, ints[i].key, 1, 1 << 24, ints[i].value));
    config->v_head_dim = config->hidden_size / config->num_heads;
    config->qk_nope_head_dim = config->qk_rope_head_dim = config->v_head_dim / 2;
    const char *variant = "adaptive";
    CLDSA_TRY(cldsa_json_get_string(json, path, "variant", &variant));
    CLDSA_TRY(cldsa_config_set_variant(config, variant));
    return cldsa_config_check(config, path);
}

static cldsa_status read_config(const cldsa_safetensors *file, cldsa_config *config) {
    const char *path = cldsa_safetensors_path(file), *text = cldsa_safetensors_metadata(file, "config");
    if (!text)
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: the metadata has no \"config\"", path);
    cJSON *json = NULL;
    CLDSA_TRY(cldsa_json_parse(path, text, strlen(text), &json));
    *config = cldsa_config_default();
    cldsa_status status = config_from_golden(json, path, config);
    cJSON_Delete(json);
    return status;
}

/* ---- models --------------------------------------------------------------------------------------------------- */

typedef struct model_check {
    cldsa_check_report *report;
    const cldsa_safetensors *file;
    cl_command_queue queue;
    cldsa_model *model;
    cldsa_batch batch;
} model_check;

/* "layers.I.selected": the device has bits, the file bytes; a model that keeps all keys has neither. */
static cldsa_status compare_selection(const model_check *check, const cldsa_st_tensor *want, const char *name) {
    const int64_t seq_len = check->batch.seq_len, rows = (int64_t)check->batch.batch * seq_len;
    const int64_t words = (seq_len + 31) / 32;
    cldsa_tensor bits = {0};
    double *packed = NULL, *got = malloc((size_t)(rows * seq_len) * sizeof *got);
    if (!got)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for a selection");
    cldsa_status status = CLDSA_SUCCESS;
    if (cldsa_model_inspect(check->model, name, &bits) == CLDSA_SUCCESS)
        status = fetch(check->queue, bits, &packed);
    for (int64_t i = 0; i < rows * seq_len && status == CLDSA_SUCCESS; ++i) {
        const int64_t row = i / seq_len, key = i % seq_len;
        got[i] = packed ? ((uint32_t)packed[row * words + key / 32] >> (key % 32)) & 1 : 1;
    }
    if (status == CLDSA_SUCCESS)
        status = compare(check->report, want, got, rows * seq_len, exact);
    free(packed);
    free(got);
    return status;
}

/* "layers.I.k": without a policy's count every key is kept. */
static cldsa_status compare_k(const model_check *check, const cldsa_st_tensor *want, const char *name) {
    cldsa_tensor k = {0};
    if (cldsa_model_inspect(check->model, name, &k) == CLDSA_SUCCESS)
        return compare_device(check->report, check->queue, want, k, exact);
    for (int64_t i = 0; i < want->numel; ++i)
        if (cldsa_st_value(want, i) != check->batch.seq_len)
            return add_row(check->report, want->name, INFINITY, INFINITY);
    return add_row(check->report, want->name, 0, 0);
}

/* One column of the controller's [B,3] factors. */
static cldsa_status compare_factor(cldsa_check_report *report, cl_command_queue queue, const cldsa_st_tensor *want,
                                   cldsa_tensor factors, int column) {
    double *got = NULL;
    CLDSA_TRY(fetch(queue, factors, &got));
    for (int64_t i = 0; i < factors.shape[0]; ++i)
        got[i] = got[3 * i + column];
    cldsa_status status = compare(report, want, got, factors.shape[0], activation_tolerance);
    free(got);
    return status;
}

static const char *const factor_suffixes[] = {"length_factor", "complexity_factor", "entropy_factor"};

/* The factor's column, or -1. */
static int factor_of(const char *name) {
    const char *dot = strrchr(name, '.');
    for (int i = 0; i < 3; ++i)
        if (strcmp(dot ? dot + 1 : name, factor_suffixes[i]) == 0)
            return i;
    return -1;
}

/*
 * The files' per-layer outputs and factors were recorded in the last of the eight steps, index scores, k and selection
 * in the first forward pass. (At any other step the outputs differ in the second digit, so the wrong one shows.)
 */
static bool recorded_first(const char *name) {
    const char *what = strrchr(name, '.');
    return what && (strcmp(what, ".index_scores") == 0 || strcmp(what, ".k") == 0 || strcmp(what, ".selected") == 0);
}

static cldsa_status compare_activation(const model_check *check, const cldsa_st_tensor *want, const char *name) {
    const char *what = strrchr(name, '.');
    const int column = factor_of(name);
    cldsa_tensor tensor = {0};
    if (what && strcmp(what, ".selected") == 0)
        return compare_selection(check, want, name);
    if (what && strcmp(what, ".k") == 0)
        return compare_k(check, want, name);
    if (column >= 0) {
        char factors[64];
        snprintf(factors, sizeof factors, "%.*s.factors", (int)(what - name), name);
        CLDSA_TRY(cldsa_model_inspect(check->model, factors, &tensor));
        return compare_factor(check->report, check->queue, want, tensor, column);
    }
    CLDSA_TRY(cldsa_model_inspect(check->model, name, &tensor));
    return compare_device(check->report, check->queue, want, tensor, activation_tolerance);
}

/* Gradients: those in the file, and none where the file has none. */
static cldsa_status compare_gradients(const model_check *check) {
    const cldsa_params *params = cldsa_model_params(check->model);
    for (int i = 0; i < params->count; ++i) {
        char name[CLDSA_PARAM_NAME_MAX + 16];
        snprintf(name, sizeof name, "grad.%s", params->list[i].name);
        const cldsa_st_tensor *want = cldsa_safetensors_find(check->file, name);
        if (!want != !params->list[i].spec.trainable)
            CLDSA_TRY(add_row(check->report, name, INFINITY, INFINITY));
        else if (want)
            CLDSA_TRY(
                compare_device(check->report, check->queue, want, cldsa_param_grad(params, i), gradient_tolerance));
    }
    return CLDSA_SUCCESS;
}

/*
 * The first update is lr * g / (|g| + eps): where g is of eps' size or drowned in its own rounding error, any value up
 * to lr is right to the eye of f32. The allowance per element is therefore how far the step can move when g errs by
 * the gradient's tolerance, besides the rounding of the parameter.
 */
static cldsa_status compare_update(const model_check *check, int index, const cldsa_train_options *options) {
    const cldsa_params *params = cldsa_model_params(check->model);
    const char *name = params->list[index].name;
    char updated[CLDSA_PARAM_NAME_MAX + 16], gradient[CLDSA_PARAM_NAME_MAX + 16];
    snprintf(updated, sizeof updated, "adamw1.%s", name);
    snprintf(gradient, sizeof gradient, "grad.%s", name);
    const cldsa_st_tensor *want = NULL, *grad = cldsa_safetensors_find(check->file, gradient);
    CLDSA_TRY(cldsa_safetensors_get(check->file, updated, &want));
    const cldsa_tensor value = cldsa_param_value(params, index);
    if (!grad)
        return compare_device(check->report, check->queue, want, value, exact);
    double *got = NULL, error = 0, worst = 0, scale = 0;
    CLDSA_TRY(fetch(check->queue, value, &got));
    for (int64_t i = 0; i < grad->numel; ++i)
        scale = fmax(scale, fabs(cldsa_st_value(grad, i)));
    const double slack = gradient_tolerance.absolute + gradient_tolerance.relative * scale;
    for (int64_t i = 0; i < want->numel; ++i) {
        const double expected = cldsa_st_value(want, i), g = fabs(cldsa_st_value(grad, i));
        const double swing = fmin(2, slack / (g + options->eps));
        const double allowed = options->lr * swing + 1e-6 * fabs(expected) + 1e-9;
        const double difference = fabs(got[i] - expected);
        error = isfinite(difference) ? fmax(error, difference / allowed) : INFINITY;
        worst = fmax(worst, difference);
    }
    free(got);
    return add_row(check->report, updated, error, worst);
}

static cldsa_status compare_training(const model_check *check) {
    cldsa_train_options options = cldsa_train_options_default();
    options.no_noise = true;
    CLDSA_TRY(cldsa_model_train_step(check->model, &check->batch, &options));
    const cldsa_params *params = cldsa_model_params(check->model);
    for (int i = 0; i < params->count; ++i)
        CLDSA_TRY(compare_update(check, i, &options));
    for (int step = 1; step < GOLDEN_STEPS; ++step)
        CLDSA_TRY(cldsa_model_train_step(check->model, &check->batch, &options));
    cldsa_step_result results[GOLDEN_STEPS];
    double losses[GOLDEN_STEPS];
    CLDSA_TRY(cldsa_model_read_results(check->model, GOLDEN_STEPS, results));
    for (int step = 0; step < GOLDEN_STEPS; ++step)
        losses[step] = results[step].loss;
    const cldsa_st_tensor *want = NULL;
    CLDSA_TRY(cldsa_safetensors_get(check->file, "out.losses8", &want));
    return compare(check->report, want, losses, GOLDEN_STEPS, losses_tolerance);
}

/* Intermediate values of the first forward pass, or of the last. */
static cldsa_status compare_activations(const model_check *check, bool first) {
    for (size_t i = 0; i < cldsa_safetensors_count(check->file); ++i) {
        const cldsa_st_tensor *want = cldsa_safetensors_at(check->file, i);
        if (strncmp(want->name, "act.", 4) == 0 && recorded_first(want->name) == first)
            CLDSA_TRY(compare_activation(check, want, want->name + 4));
    }
    return CLDSA_SUCCESS;
}

static cldsa_status run_model(const model_check *check) {
    cldsa_params *params = cldsa_model_params(check->model);
    CLDSA_TRY(cldsa_params_read(params, params->value, check->file, "param.", true));
    CLDSA_TRY(cldsa_model_capture(check->model, true));
    CLDSA_TRY(cldsa_model_gradients(check->model, &check->batch, false, 0));
    CLDSA_TRY(compare_activations(check, true));
    const cldsa_st_tensor *want = NULL;
    cldsa_tensor logits = {0};
    CLDSA_TRY(cldsa_safetensors_get(check->file, "out.logits", &want));
    CLDSA_TRY(cldsa_model_inspect(check->model, "logits", &logits));
    CLDSA_TRY(compare_device(check->report, check->queue, want, logits, activation_tolerance));
    cldsa_step_result result;
    CLDSA_TRY(cldsa_model_read_results(check->model, 1, &result));
    CLDSA_TRY(cldsa_safetensors_get(check->file, "out.loss", &want));
    CLDSA_TRY(compare(check->report, want, &(double){result.loss}, 1, activation_tolerance));
    CLDSA_TRY(compare_gradients(check));
    CLDSA_TRY(compare_training(check));
    return compare_activations(check, false);
}

/* The batch, with the labels moved as the original's loss moves them: position i is scored against labels[i+1]. */
static cldsa_status read_batch(const cldsa_safetensors *file, cldsa_batch *batch, int32_t **words) {
    const cldsa_st_tensor *ids = NULL, *labels = NULL;
    CLDSA_TRY(cldsa_safetensors_get(file, "in.ids", &ids));
    CLDSA_TRY(cldsa_safetensors_get(file, "in.labels", &labels));
    if (ids->rank != 2 || labels->numel != ids->numel || ids->numel < 2 || ids->shape[1] < 2)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: in.ids must be [B,S] with S above 1, and in.labels like it",
                          cldsa_safetensors_path(file));
    const int64_t count = ids->numel, seq_len = ids->shape[1];
    *words = malloc(2 * (size_t)count * sizeof **words);
    if (!*words)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for a batch");
    for (int64_t i = 0; i < count; ++i) {
        (*words)[i] = (int32_t)cldsa_st_value(ids, i);
        (*words)[count + i] = (i + 1) % seq_len ? (int32_t)cldsa_st_value(labels, i + 1) : -100;
    }
    *batch =
        (cldsa_batch){.batch = (int)ids->shape[0], .seq_len = (int)seq_len, .ids = *words, .labels = *words + count};
    return CLDSA_SUCCESS;
}

static cldsa_status check_model(cldsa_context *ctx, cl_command_queue queue, const cldsa_safetensors *file,
                                cldsa_check_report *report) {
    cldsa_config config;
    model_check check = {.report = report, .file = file, .queue = queue};
    int32_t *words = NULL;
    CLDSA_TRY(read_config(file, &config));
    CLDSA_TRY(read_batch(file, &check.batch, &words));
    cldsa_status status = cldsa_model_create(ctx, queue, &config, true, &check.model);
    if (status == CLDSA_SUCCESS)
        status = run_model(&check);
    cldsa_model_destroy(check.model);
    free(words);
    return status == CLDSA_SUCCESS ? status : cldsa_fail_prefix(status, "%s", cldsa_safetensors_path(file));
}

/* ---- the controller alone ------------------------------------------------------------------------------------- */

/* Compares one case; `prefix` is "case0.". */
static cldsa_status compare_case(cldsa_check_report *report, const cldsa_safetensors *file, const cldsa_policy_run *run,
                                 const char *prefix) {
    char name[64];
    const cldsa_st_tensor *want = NULL;
    cl_command_queue queue = run->nn.call.queue;
    snprintf(name, sizeof name, "%sk", prefix);
    CLDSA_TRY(cldsa_safetensors_get(file, name, &want));
    CLDSA_TRY(compare_device(report, queue, want, run->layer->k_rows, exact));
    const cldsa_tensor factors = run->policy->inspect(run->layer, "factors");
    for (int i = 0; i < 3; ++i) {
        snprintf(name, sizeof name, "%s%s", prefix, factor_suffixes[i]);
        CLDSA_TRY(cldsa_safetensors_get(file, name, &want));
        CLDSA_TRY(compare_factor(report, queue, want, factors, i));
    }
    return CLDSA_SUCCESS;
}

static cldsa_status run_cases(cldsa_check_report *report, const cldsa_safetensors *file, cldsa_policy_run *run) {
    CLDSA_TRY(cldsa_params_read(&run->params, run->params.value, file, "param.", true));
    int width = run->nn.config->hidden_size;
    for (int i = 0;; ++i) {
        char prefix[32], name[64];
        snprintf(prefix, sizeof prefix, "case%d.", i);
        snprintf(name, sizeof name, "%sh", prefix);
        const cldsa_st_tensor *hidden = cldsa_safetensors_find(file, name);
        if (!hidden)
            return CLDSA_SUCCESS;
        if (hidden->rank != 3 || hidden->shape[1] < 2 || hidden->shape[2] != width)
            return cldsa_fail(CLDSA_INVALID_SHAPE, "%s must be [B,S,%d] with S above 1", name, width);
        CLDSA_TRY(cldsa_policy_run_shape(run, hidden->shape[0], hidden->shape[1]));
        CLDSA_TRY(cldsa_policy_run_forward(run, hidden->data));
        CLDSA_TRY(compare_case(report, file, run, prefix));
    }
}

static cldsa_status check_controller(cldsa_context *ctx, cl_command_queue queue, const cldsa_safetensors *file,
                                     cldsa_check_report *report) {
    cldsa_config config;
    CLDSA_TRY(read_config(file, &config));
    cldsa_policy_run run = {0};
    cldsa_status status = cldsa_policy_run_open(&run, ctx, queue, &config, &cldsa_policy_controller);
    if (status == CLDSA_SUCCESS)
        status = run_cases(report, file, &run);
    cldsa_policy_run_close(&run);
    return status == CLDSA_SUCCESS ? status : cldsa_fail_prefix(status, "%s", cldsa_safetensors_path(file));
}

cldsa_status cldsa_check_golden(cldsa_context *ctx, cl_command_queue queue, const cldsa_safetensors *file,
                                cldsa_check_report *report) {
    const char *op = cldsa_safetensors_metadata(file, "op");
    if (op && strcmp(op, "model") == 0)
        return check_model(ctx, queue, file, report);
    if (op && strcmp(op, "controller") == 0)
        return check_controller(ctx, queue, file, report);
    return cldsa_fail(CLDSA_NOT_FOUND, "%s: the metadata's op is %s; it must be model or controller",
                      cldsa_safetensors_path(file), op ? op : "missing");
}
