#include "host/train/trainer.h"
#include "host/io/file.h"
#include "host/io/json.h"
#include "host/runtime/runtime.h"
#include "host/train/checkpoint.h"
#include "host/train/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A run in progress. */
typedef struct trainer {
    const cldsa_run_config *config;
    const cldsa_run_hooks *hooks;
    cldsa_model *model;
    cldsa_data *data;
    cldsa_metrics metrics;
    int32_t *ids, *labels; /* [batch, S] */
    double train_seconds;  /* spent in counted training steps ... */
    int64_t train_tokens;  /* ... on this many tokens */
    double tail_loss;      /* sum of losses over the last tenth of the steps */
    int64_t tail_steps;
    bool warm; /* kernels are built: time counts from here */
    cldsa_run_result *result;
} trainer;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double tokens_per_second(const trainer *t) {
    return t->train_tokens ? (double)t->train_tokens / t->train_seconds : NAN;
}

static cldsa_batch next_batch(trainer *t, bool validation, int64_t number) {
    const cldsa_run_config *config = t->config;
    int scored = cldsa_data_batch(t->data, validation, number, config->batch, t->ids, t->labels);
    return (cldsa_batch){.batch = config->batch,
                         .seq_len = config->data.seq_len,
                         .ids = t->ids,
                         .labels = t->labels,
                         .loss_scale = scored ? 1.0 / scored : 0};
}

static cldsa_status evaluate(trainer *t) {
    const cldsa_run_config *config = t->config;
    cldsa_run_result *result = t->result;
    double loss = 0, correct = 0;
    for (int i = 0; i < config->evaluate_batches; ++i) {
        cldsa_batch batch = next_batch(t, true, i);
        CLDSA_TRY(cldsa_model_evaluate(t->model, &batch));
        cldsa_step_result step;
        CLDSA_TRY(cldsa_model_read_results(t->model, 1, &step));
        loss += step.loss;
        correct += step.correct;
    }
    if (!isfinite(loss))
        return cldsa_fail(CLDSA_CHECK_FAILED,
                          "%s: the validation loss after step %lld is %g; a lower learning rate or --max-norm helps",
                          config->directory, (long long)cldsa_model_step(t->model), loss);
    result->validation_loss = loss / config->evaluate_batches;
    result->validation_accuracy = correct / config->evaluate_batches;
    result->bits_per_byte = config->data.task == CLDSA_TASK_TEXT ? result->validation_loss / M_LN2 : NAN;
    result->num_layers =
        config->model.num_layers < CLDSA_MAX_REPORTED_LAYERS ? config->model.num_layers : CLDSA_MAX_REPORTED_LAYERS;
    for (int layer = 0; layer < result->num_layers; ++layer)
        CLDSA_TRY(cldsa_model_read_sparsity(t->model, layer, &result->layers[layer]));
    return cldsa_metrics_evaluation(&t->metrics, cldsa_model_step(t->model), result);
}

/* Runs steps up to `last`, then reads their losses; *seconds is what that took. */
static cldsa_status run_steps(trainer *t, int64_t last) {
    int64_t first = cldsa_model_step(t->model);
    int count = (int)(last - first);
    cldsa_step_result results[CLDSA_RESULT_RING];
    double start = now(), sum = 0;
    for (int64_t step = first; step < last; ++step) {
        cldsa_batch batch = next_batch(t, false, step);
        CLDSA_TRY(cldsa_model_train_step(t->model, &batch, &t->config->options));
    }
    CLDSA_TRY(cldsa_model_read_results(t->model, count, results));
    if (t->warm) {
        t->train_seconds += now() - start;
        t->train_tokens += (int64_t)count * t->config->batch * t->config->data.seq_len;
    }
    t->warm = true;
    for (int i = 0; i < count; ++i) {
        if (!isfinite(results[i].loss))
            return cldsa_fail(CLDSA_CHECK_FAILED,
                              "%s: the loss of step %lld is %g; a lower learning rate or --max-norm helps",
                              t->config->directory, (long long)(first + i + 1), (double)results[i].loss);
        CLDSA_TRY(cldsa_metrics_step(&t->metrics, first + i + 1, results[i].loss));
        sum += results[i].loss;
    }
    if (t->hooks && t->hooks->progress)
        t->hooks->progress(t->hooks->user, last, t->config->steps, sum / count, tokens_per_second(t));
    return cldsa_metrics_flush(&t->metrics);
}

/* Mean training loss over the last tenth of the steps, from the metrics: a resumed run says the same. */
typedef struct tail_mean {
    int64_t from;
    double sum;
    int64_t count;
} tail_mean;

static void add_to_tail(void *user, const cJSON *object) {
    tail_mean *tail = user;
    const cJSON *step = cJSON_GetObjectItemCaseSensitive(object, "step");
    const cJSON *loss = cJSON_GetObjectItemCaseSensitive(object, "loss");
    if (cJSON_IsNumber(step) && cJSON_IsNumber(loss) && step->valuedouble > (double)tail->from) {
        tail->sum += loss->valuedouble;
        ++tail->count;
    }
}

static cldsa_status read_train_loss(trainer *t) {
    int steps = t->config->steps;
    tail_mean tail = {.from = steps - (steps + 9) / 10};
    CLDSA_TRY(cldsa_metrics_flush(&t->metrics));
    CLDSA_TRY(cldsa_metrics_read(t->metrics.path, add_to_tail, &tail));
    t->result->train_loss = tail.count ? tail.sum / (double)tail.count : NAN;
    return CLDSA_SUCCESS;
}

static bool stop_asked(const trainer *t) {
    return t->hooks && t->hooks->stop && *t->hooks->stop;
}

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* The next step at which something other than stepping happens. */
static int64_t next_pause(const trainer *t, int64_t step) {
    const cldsa_run_config *config = t->config;
    /* The first stretch is one step: it builds the kernels, and its time says nothing. */
    int64_t pause = earlier(config->steps, t->warm ? (step / config->log_every + 1) * config->log_every : step + 1);
    if (config->evaluate_every)
        pause = earlier(pause, (step / config->evaluate_every + 1) * config->evaluate_every);
    if (config->checkpoint_every)
        pause = earlier(pause, (step / config->checkpoint_every + 1) * config->checkpoint_every);
    return pause;
}

static cldsa_status interrupted(trainer *t) {
    CLDSA_TRY(cldsa_checkpoint_save(t->model, t->config));
    return cldsa_fail(CLDSA_INTERRUPTED, "stopped after step %lld of %d; saved in %s",
                      (long long)cldsa_model_step(t->model), t->config->steps, t->config->directory);
}

/* Between steps; the validation at the end is not one of these. */
static bool evaluation_due(const cldsa_run_config *config, int64_t step) {
    return step > 0 && step < config->steps && config->evaluate_every && step % config->evaluate_every == 0;
}

static cldsa_status loop(trainer *t) {
    const cldsa_run_config *config = t->config;
    int64_t step = cldsa_model_step(t->model);
    if (evaluation_due(config, step)) /* the run that is continued stopped before it, or its line was taken back */
        CLDSA_TRY(evaluate(t));
    while (step < config->steps) {
        CLDSA_TRY(run_steps(t, next_pause(t, step)));
        step = cldsa_model_step(t->model);
        if (stop_asked(t))
            return interrupted(t);
        if (evaluation_due(config, step))
            CLDSA_TRY(evaluate(t));
        if (step < config->steps && config->checkpoint_every && step % config->checkpoint_every == 0)
            CLDSA_TRY(cldsa_checkpoint_save(t->model, config));
    }
    CLDSA_TRY(evaluate(t));
    CLDSA_TRY(read_train_loss(t));
    return cldsa_checkpoint_save(t->model, config);
}

static cldsa_status check_config(const cldsa_run_config *config) {
    const struct {
        const char *name;
        int value, min, max;
    } ranges[] = {{"batch", config->batch, 1, 1 << 20},
                  {"steps", config->steps, 1, INT32_MAX},
                  {"log_every", config->log_every, 1, CLDSA_RESULT_RING},
                  {"evaluate_every", config->evaluate_every, 0, INT32_MAX},
                  {"evaluate_batches", config->evaluate_batches, 1, INT32_MAX},
                  {"checkpoint_every", config->checkpoint_every, 0, INT32_MAX},
                  {"seq_len", config->data.seq_len, 2, config->model.max_positions}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; ++i)
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max)
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s is %d; it must be %d to %d", ranges[i].name, ranges[i].value,
                              ranges[i].min, ranges[i].max);
    return cldsa_config_check_length(&config->model, config->data.seq_len);
}

static cldsa_status open_run(trainer *t, cldsa_context *ctx, cl_command_queue queue) {
    const cldsa_run_config *config = t->config;
    CLDSA_TRY(check_config(config));
    CLDSA_TRY(cldsa_data_open(&config->data, &t->data));
    if (cldsa_data_vocab(t->data) > config->model.vocab_size)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "vocab_size is %d; task %s needs at least %d",
                          config->model.vocab_size, cldsa_task_names[config->data.task], cldsa_data_vocab(t->data));
    size_t numel = (size_t)config->batch * (size_t)config->data.seq_len;
    t->ids = malloc(numel * sizeof *t->ids);
    t->labels = malloc(numel * sizeof *t->labels);
    if (!t->ids || !t->labels)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "out of memory for a batch of %zu tokens", numel);
    if (!config->resume)
        CLDSA_TRY(cldsa_checkpoint_none(config->directory));
    CLDSA_TRY(cldsa_model_create(ctx, queue, &config->model, true, &t->model));
    int64_t step = 0;
    if (config->resume)
        CLDSA_TRY(cldsa_checkpoint_load(t->model, config, &step));
    if (step > config->steps)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT,
                          "%s: its checkpoint is of step %lld; steps is %d, it must be at least that",
                          config->directory, (long long)step, config->steps);
    CLDSA_TRY(cldsa_make_directories(config->directory));
    if (step == 0)
        CLDSA_TRY(cldsa_model_init(t->model, config->seed));
    return cldsa_metrics_open(&t->metrics, config->directory, step);
}

cldsa_status cldsa_train(cldsa_context *ctx, cl_command_queue queue, const cldsa_run_config *config,
                         const cldsa_run_hooks *hooks, cldsa_run_result *result) {
    /* One seed rules initialisation, data and noise. */
    cldsa_run_config seeded = *config;
    seeded.data.seed = seeded.options.seed = config->seed;
    memset(result, 0, sizeof *result);
    trainer t = {.config = &seeded, .hooks = hooks, .result = result};
    cldsa_status status = open_run(&t, ctx, queue);
    if (status == CLDSA_SUCCESS)
        status = loop(&t);
    if (t.model) {
        result->steps = cldsa_model_step(t.model);
        result->peak_device_bytes = cldsa_model_peak_device_bytes(t.model);
        result->num_parameters = cldsa_config_num_parameters(&config->model);
        result->tokens_per_second = tokens_per_second(&t);
    }
    cldsa_metrics_close(&t.metrics);
    cldsa_model_destroy(t.model);
    cldsa_data_close(t.data);
    free(t.ids);
    free(t.labels);
    return status;
}
