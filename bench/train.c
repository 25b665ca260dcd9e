/* The training suite: tokens per second of the experiment's model, cell by cell. */
#include "bench/bench.h"

#include "host/nn/model.h"
#include "host/train/experiment.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { WARM_STEPS = 3, READINGS = 10, MOST_STRETCH = CLDSA_RESULT_RING, ROUNDS = 2, MAX_ARGUMENTS = 24 };

static const double cell_timeout = 1200;

/* ---- in this process --------------------------------------------------------------------------------------------- */

typedef struct cell {
    const bench_train_options *options;
    cldsa_context *ctx;
    cldsa_experiment_config config;
    cldsa_data *data;
    cldsa_model *model;
    int32_t *ids, *labels; /* [batch, S] */
} cell;

/* The published protocol, which the peers repeat: uniform tokens, no causal mask, labels shifted twice. */
static cldsa_status open_cell(cell *c, cl_command_queue queue) {
    const bench_train_options *options = c->options;
    c->config = cldsa_experiment_config_default(CLDSA_RECIPE_SEED, false);
    cldsa_experiment_settle(&c->config);
    cldsa_run_config *run = &c->config.run;
    CLDSA_TRY(cldsa_config_set_variant(&run->model, options->variant));
    run->data.seq_len = options->length;
    if (options->length > run->model.max_positions)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "length is %d; it must be 2 to %d", options->length,
                          run->model.max_positions);
    CLDSA_TRY(cldsa_data_open(&run->data, &c->data));
    size_t numel = (size_t)options->batch * (size_t)options->length;
    c->ids = malloc(numel * sizeof *c->ids);
    c->labels = malloc(numel * sizeof *c->labels);
    if (!c->ids || !c->labels)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for a batch of %zu tokens", numel);
    CLDSA_TRY(cldsa_model_create(c->ctx, queue, &run->model, true, &c->model));
    return cldsa_model_init(c->model, run->seed);
}

static void close_cell(cell *c) {
    cldsa_model_destroy(c->model);
    cldsa_data_close(c->data);
    free(c->ids);
    free(c->labels);
}

/* `count` steps without a round trip, then their losses; *seconds is what that took. */
static cldsa_status run_steps(cell *c, int count, double *seconds, cldsa_step_result *last) {
    const bench_train_options *options = c->options;
    cldsa_step_result results[MOST_STRETCH];
    double start = bench_now();
    for (int i = 0; i < count; ++i) {
        int scored = cldsa_data_batch(c->data, false, cldsa_model_step(c->model), options->batch, c->ids, c->labels);
        cldsa_batch batch = {.batch = options->batch,
                             .seq_len = options->length,
                             .ids = c->ids,
                             .labels = c->labels,
                             .loss_scale = scored ? 1.0 / scored : 0};
        CLDSA_TRY(cldsa_model_train_step(c->model, &batch, &c->config.run.options));
    }
    CLDSA_TRY(cldsa_model_read_results(c->model, count, results));
    *seconds = bench_now() - start;
    *last = results[count - 1];
    if (!isfinite(last->loss))
        return cldsa_fail(CLDSA_CHECK_FAILED, "wrong: the loss is %g", (double)last->loss);
    return CLDSA_SUCCESS;
}

static cldsa_status take_profile(cell *c, int steps, bench_train_row *row) {
    cldsa_profile_row *kernels;
    size_t count;
    CLDSA_TRY(cldsa_profile_collect(c->ctx, &kernels, &count));
    if (steps) {
        row->kernels = cJSON_CreateArray();
        for (size_t i = 0; i < count; ++i) {
            cJSON *kernel = cJSON_CreateObject();
            cJSON_AddStringToObject(kernel, "kernel", kernels[i].name);
            cJSON_AddNumberToObject(kernel, "launches", (double)kernels[i].launches / steps);
            cJSON_AddNumberToObject(kernel, "milliseconds", 1e3 * kernels[i].seconds / steps);
            cJSON_AddItemToArray(row->kernels, kernel);
        }
    }
    free(kernels);
    return CLDSA_SUCCESS;
}

static cldsa_status measure_cell(cell *c, bench_train_row *row) {
    const bench_train_options *options = c->options;
    int stretch = options->steps / READINGS, done = 0;
    stretch = stretch < 1 ? 1 : stretch > MOST_STRETCH ? MOST_STRETCH : stretch;
    double seconds;
    cldsa_step_result last;
    CLDSA_TRY(run_steps(c, 1, &seconds, &last)); /* builds the kernels */
    row->first_loss = last.loss;
    CLDSA_TRY(run_steps(c, WARM_STEPS - 1, &seconds, &last));
    if (options->profile)
        CLDSA_TRY(take_profile(c, 0, row));
    while (done < options->steps) {
        int count = options->steps - done < stretch ? options->steps - done : stretch;
        CLDSA_TRY(run_steps(c, count, &seconds, &last));
        bench_samples_add(&row->samples, (double)count * options->batch * options->length / seconds);
        done += count;
    }
    row->last_loss = last.loss;
    return options->profile ? take_profile(c, done, row) : CLDSA_SUCCESS;
}

static void fail_row(bench_train_row *row, cldsa_status status) {
    row->status = status == CLDSA_UNSUPPORTED ? BENCH_UNSUPPORTED : BENCH_ERROR;
    snprintf(row->reason, sizeof row->reason, "%s", cldsa_error_message());
    bench_samples_free(&row->samples);
}

static void begin_row(const bench_train_options *options, bench_train_row *row) {
    *row = (bench_train_row){.length = options->length};
    snprintf(row->variant, sizeof row->variant, "%s", options->variant);
}

void bench_train_here(cldsa_context *ctx, cl_command_queue queue, const bench_train_options *options,
                      bench_train_row *row) {
    begin_row(options, row);
    cell c = {.options = options, .ctx = ctx};
    cldsa_status status = open_cell(&c, queue);
    if (status == CLDSA_SUCCESS)
        status = measure_cell(&c, row);
    if (status != CLDSA_SUCCESS)
        fail_row(row, status);
    if (c.model)
        row->peak_device_bytes = (double)cldsa_model_peak_device_bytes(c.model);
    close_cell(&c);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    row->peak_rss_bytes = 1024.0 * (double)usage.ru_maxrss;
}

void bench_train_row_free(bench_train_row *row) {
    bench_samples_free(&row->samples);
    for (int i = 0; i < row->num_peers; ++i)
        bench_samples_free(&row->peers[i].samples);
    cJSON_Delete(row->kernels);
}

/* ---- in processes of their own ----------------------------------------------------------------------------------- */

static double number_of(const cJSON *object, const char *key) {
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(number) ? number->valuedouble : NAN;
}

static double larger(double a, double b) {
    return a > b ? a : b;
}

/* A row that another process measured joins this one. */
static cldsa_status take_row(const cJSON *answer, bench_train_row *row) {
    const cJSON *found = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(answer, "rows"), 0);
    const cJSON *rate = cJSON_GetObjectItemCaseSensitive(found, "tokens_per_second"), *value;
    if (!rate) {
        const char *reason = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(found, "reason"));
        return cldsa_fail(CLDSA_CHECK_FAILED, "%s", reason ? reason : "the cell's process gave no result");
    }
    cJSON_ArrayForEach(value, cJSON_GetObjectItemCaseSensitive(rate, "values"))
        bench_samples_add(&row->samples, value->valuedouble);
    row->first_loss = number_of(found, "first_loss");
    row->last_loss = number_of(found, "last_loss");
    row->peak_device_bytes = larger(row->peak_device_bytes, number_of(found, "peak_device_bytes"));
    row->peak_rss_bytes = larger(row->peak_rss_bytes, number_of(found, "peak_rss_bytes"));
    cJSON_Delete(row->kernels);
    row->kernels = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(found, "kernels"), true);
    return CLDSA_SUCCESS;
}

static cldsa_status answer_of(char *const argv[], cJSON **answer) {
    bench_process process;
    *answer = NULL;
    CLDSA_TRY(bench_process_start(argv, &process));
    cldsa_status status = bench_process_ask(&process, NULL, cell_timeout, answer);
    bench_process_stop(&process);
    return status;
}

/* "--name value" pairs that both programs understand. */
typedef struct cell_arguments {
    char length[16], batch[16], steps[16];
} cell_arguments;

static void write_arguments(const bench_train_options *options, int steps, cell_arguments *text) {
    snprintf(text->length, sizeof text->length, "%d", options->length);
    snprintf(text->batch, sizeof text->batch, "%d", options->batch);
    snprintf(text->steps, sizeof text->steps, "%d", steps);
}

static cldsa_status run_self(const bench_train_options *options, int steps, bench_train_row *row) {
    cell_arguments text;
    write_arguments(options, steps, &text);
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0)
        return cldsa_fail(CLDSA_IO_ERROR, "this program's own file is not known");
    self[length] = '\0';
    char *argv[MAX_ARGUMENTS] = {self,        "bench",      "train",
                                 "--here",    "--json",     "--lengths",
                                 text.length, "--variants", (char *)options->variant,
                                 "--batch",   text.batch,   "--steps",
                                 text.steps};
    int count = 13;
    if (options->device) {
        argv[count++] = "--device";
        argv[count++] = (char *)options->device;
    }
    if (options->profile)
        argv[count++] = "--profile";
    cJSON *answer;
    cldsa_status status = answer_of(argv, &answer);
    if (status == CLDSA_SUCCESS)
        status = take_row(answer, row);
    cJSON_Delete(answer);
    return status;
}

static void run_peer(const bench_train_options *options, int steps, bench_train_row *row) {
    if (!options->peers || !options->peers->python || !options->peers->scripts)
        return;
    cell_arguments text;
    write_arguments(options, steps, &text);
    char script[4096];
    snprintf(script, sizeof script, "%s/experiment.py", options->peers->scripts);
    char *argv[] = {(char *)options->peers->python,
                    script,
                    "--length",
                    text.length,
                    "--variant",
                    (char *)options->variant,
                    "--batch",
                    text.batch,
                    "--steps",
                    text.steps,
                    NULL};
    cJSON *answer;
    if (answer_of(argv, &answer) == CLDSA_SUCCESS)
        bench_peers_add(row->peers, &row->num_peers, answer);
    else
        bench_peers_add_failure(row->peers, &row->num_peers, "pytorch", BENCH_ERROR, cldsa_error_message());
    cJSON_Delete(answer);
}

void bench_train(const bench_train_options *options, bench_train_row *row) {
    begin_row(options, row);
    int rounds = options->peers ? ROUNDS : 1, steps = (options->steps + rounds - 1) / rounds;
    for (int i = 0; i < rounds && row->status == BENCH_OK; ++i) {
        cldsa_status status = run_self(options, steps, row);
        if (status != CLDSA_SUCCESS)
            fail_row(row, status);
        run_peer(options, steps, row);
    }
}
