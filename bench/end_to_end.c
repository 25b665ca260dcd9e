/* The suite end-to-end: sparse against dense attention over the length of the context. */
#include "bench/end_to_end.h"

#include "bench/place.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 2, TEXT = 192, LATENT_WIDTH = 576, VALUE_WIDTH = 512, INDEX_WIDTH = 128, CHECK_KEYS = 96 };

static const double warm_up_seconds = 0.05;

/* A longer run is not tried: three of them and a warm-up would take too long. */
static const double longest_run = 1.5;

/* Both errors are within what their operations allow; so their distance is within twice that. */
static const double allowed_distance = 2;

/* DeepSeek's proportions: the indexer costs about a sixteenth of dense attention per pair of query and key. */
typedef struct form {
    int index_heads, heads;
    int64_t k;
    const char *dtype;
    int64_t first, most[BENCH_END_MODES]; /* of T: decode, prefill */
} form;
static const form cpu_form = {8, 16, 256, "F32", 256, {32768, 4096}};
static const form gpu_form = {64, 128, 2048, "BF16", 1024, {131072, 16384}};

static const char *const mode_names[BENCH_END_MODES] = {"decode", "prefill"};

typedef struct end_suite {
    const bench_end_options *options;
    cldsa_context *ctx;
    cl_command_queue queue;
    bool on_cpu;
    const form *form;
} end_suite;

/* The calls of one length. dense[1]: one query's heads taken as queries of one head, which is the same product. */
typedef struct calls {
    bench_placed select, attend, dense[2];
    int num_dense;
} calls;

/* ---- placing ----------------------------------------------------------------------------------------------------- */

static cldsa_status place_one(end_suite *suite, const bench_case *test, bench_placed *on) {
    return bench_place(suite->ctx, suite->queue, test, test->spec.dims, false, on);
}

/* The tensor `name` of `on` becomes that of `from`. */
static void share(bench_placed *on, const char *name, const bench_placed *from, const char *from_name) {
    int field = cldsa_op_field(on->work.op, name), source = cldsa_op_field(from->work.op, from_name);
    cldsa_field_tensor(on->work.args, &on->work.op->fields[field])->mem = from->buffers[source];
}

/* Dense attention's v: the first columns of the latent rows. */
static cldsa_status write_values(const calls *c, bench_placed *dense) {
    const cldsa_workload *work = &c->attend.work;
    int k = cldsa_op_field(work->op, "k"), v = cldsa_op_field(dense->work.op, "v");
    size_t size = cldsa_dtype_size(work->tensors[k].dtype);
    const size_t zero[3] = {0, 0, 0};
    const size_t region[3] = {VALUE_WIDTH * size, (size_t)work->tensors[k].shape[1], 1};
    cl_int code = clEnqueueWriteBufferRect(dense->queue, dense->buffers[v], CL_TRUE, zero, zero, region,
                                           VALUE_WIDTH * size, 0, LATENT_WIDTH * size, 0, work->raw[k], 0, NULL, NULL);
    return code ? cldsa_fail(code, "writing the values: %s", cldsa_status_text(code)) : CLDSA_SUCCESS;
}

static cldsa_status place_dense(end_suite *suite, calls *c, int64_t s, int64_t t, bool fold) {
    const form *f = suite->form;
    char dims[TEXT], dtypes[TEXT];
    bench_placed *dense = &c->dense[c->num_dense++];
    snprintf(dims, sizeof dims, "B=1 S=%lld T=%lld H=%d Hk=1 D=%d Dv=%d", (long long)(fold ? f->heads : s),
             (long long)t, fold ? 1 : f->heads, LATENT_WIDTH, VALUE_WIDTH);
    snprintf(dtypes, sizeof dtypes, "q=%s k=%s v=%s", f->dtype, f->dtype, f->dtype);
    const bench_case test = {
        .op = "masked_attention",
        .spec = {.dims = dims, .params = fold ? "range=all" : "range=causal", .dtypes = dtypes, .period = 1 << 20}};
    CLDSA_TRY(place_one(suite, &test, dense));
    share(dense, "q", &c->attend, "q");
    share(dense, "k", &c->attend, "k");
    return write_values(c, dense);
}

static cldsa_status place_sparse(end_suite *suite, calls *c, int64_t s, int64_t t, int64_t k) {
    const form *f = suite->form;
    char dims[TEXT], params[TEXT], dtypes[TEXT];
    snprintf(dims, sizeof dims, "B=1 S=%lld T=%lld H=%d Hk=1 D=%d K=%lld", (long long)s, (long long)t, f->index_heads,
             INDEX_WIDTH, (long long)k);
    snprintf(params, sizeof params, "range=causal k_max=%lld", (long long)k);
    snprintf(dtypes, sizeof dtypes, "q=%s k=%s", f->dtype, f->dtype);
    const bench_case select = {.op = "select",
                               .spec = {.dims = dims,
                                        .params = params,
                                        .shapes = "w=B S H",
                                        .dtypes = dtypes,
                                        .fill = "w=positive",
                                        .period = 1 << 20}};
    CLDSA_TRY(place_one(suite, &select, &c->select));
    snprintf(dims, sizeof dims, "B=1 S=%lld T=%lld K=%lld H=%d Hk=1 D=%d Dv=%d", (long long)s, (long long)t,
             (long long)k, f->heads, LATENT_WIDTH, VALUE_WIDTH);
    snprintf(params, sizeof params, "v_dim=%d", VALUE_WIDTH);
    const bench_case attend = {
        .op = "sparse_attention",
        .spec = {.dims = dims, .params = params, .dtypes = dtypes, .fill = "indices=const -1", .period = 1 << 20}};
    CLDSA_TRY(place_one(suite, &attend, &c->attend));
    share(&c->attend, "indices", &c->select, "indices");
    return CLDSA_SUCCESS;
}

static cldsa_status place_calls(end_suite *suite, int64_t s, int64_t t, int64_t k, calls *c) {
    CLDSA_TRY(place_sparse(suite, c, s, t, k));
    CLDSA_TRY(place_dense(suite, c, s, t, false));
    return s == 1 ? place_dense(suite, c, s, t, true) : CLDSA_SUCCESS;
}

static void release_calls(calls *c) {
    bench_place_release(&c->select);
    bench_place_release(&c->attend);
    for (int i = 0; i < c->num_dense; ++i)
        bench_place_release(&c->dense[i]);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Both sparse calls, the second after the first: the queue is in order. */
static cldsa_status enqueue_sparse(void *user, const cldsa_call *call) {
    calls *c = user;
    cldsa_call first = bench_place_call(&c->select), second = bench_place_call(&c->attend);
    CLDSA_TRY(bench_place_enqueue(&c->select, &first));
    second.event = call->event;
    return bench_place_enqueue(&c->attend, &second);
}

static bench_task task_of(bench_placed *on) {
    return (bench_task){.enqueue = bench_place_enqueue, .user = on, .call = bench_place_call(on)};
}

static cldsa_status time_once(const bench_task *task, double *seconds) {
    double start = bench_now();
    CLDSA_TRY(bench_warm_up(task, 0));
    *seconds = bench_now() - start;
    return CLDSA_SUCCESS;
}

/* The dense form that is faster here, and about how long it takes. */
static cldsa_status choose_dense(calls *c, bench_placed **best, double *seconds) {
    *best = NULL;
    for (int i = 0; i < c->num_dense; ++i) {
        bench_task task = task_of(&c->dense[i]);
        double once;
        CLDSA_TRY(time_once(&task, &once)); /* builds */
        CLDSA_TRY(time_once(&task, &once));
        if (!*best || once < *seconds) {
            *best = &c->dense[i];
            *seconds = once;
        }
    }
    return CLDSA_SUCCESS;
}

static cldsa_status read_outputs(bench_placed *on, size_t bytes, float *to) {
    int out = cldsa_op_field(on->work.op, "out");
    cl_int code = clEnqueueReadBuffer(on->queue, on->buffers[out], CL_TRUE, 0, bytes, to, 0, NULL, NULL);
    return code ? cldsa_fail(code, "reading a result: %s", cldsa_status_text(code)) : CLDSA_SUCCESS;
}

/* Where every key is kept, sparse and dense attention are the same function. */
static cldsa_status compare(calls *c, int64_t s, int heads) {
    size_t numel = (size_t)s * (size_t)heads * VALUE_WIDTH;
    float *sparse = malloc(numel * sizeof *sparse), *dense = malloc(numel * sizeof *dense);
    cldsa_status status = sparse && dense ? read_outputs(&c->attend, numel * sizeof *sparse, sparse)
                                          : cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %zu results", numel);
    for (int f = 0; f < c->num_dense && status == CLDSA_SUCCESS; ++f) {
        status = read_outputs(&c->dense[f], numel * sizeof *dense, dense);
        for (size_t i = 0; i < numel && status == CLDSA_SUCCESS; ++i)
            if (!(cldsa_error(c->attend.work.op, CLDSA_F32, sparse[i], dense[i], 1) <= allowed_distance))
                status = cldsa_fail(CLDSA_CHECK_FAILED, "wrong: with all keys kept out[%zu] is %.9g, dense %.9g", i,
                                    (double)sparse[i], (double)dense[i]);
    }
    free(sparse);
    free(dense);
    return status;
}

static cldsa_status check_mode(end_suite *suite, int64_t s) {
    calls c = {.num_dense = 0};
    cldsa_status status = place_calls(suite, s, CHECK_KEYS, CHECK_KEYS, &c);
    bench_task sparse = {.enqueue = enqueue_sparse, .user = &c, .call = {.queue = suite->queue}};
    bench_placed *best;
    double seconds;
    if (status == CLDSA_SUCCESS)
        status = bench_warm_up(&sparse, 0);
    if (status == CLDSA_SUCCESS)
        status = choose_dense(&c, &best, &seconds);
    if (status == CLDSA_SUCCESS)
        status = compare(&c, s, suite->form->heads);
    release_calls(&c);
    return status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static cldsa_status measure_tasks(end_suite *suite, const bench_task tasks[4], bench_end_row *row) {
    bench_samples *samples[4] = {&row->sparse, &row->select, &row->attend, &row->dense};
    for (int round = 0; round < ROUNDS; ++round)
        for (int i = 0; i < 4; ++i) {
            CLDSA_TRY(bench_warm_up(&tasks[i], warm_up_seconds));
            CLDSA_TRY(bench_measure(&tasks[i], suite->on_cpu, suite->options->budget / (4 * ROUNDS), samples[i]));
        }
    return CLDSA_SUCCESS;
}

static cldsa_status measure_calls(end_suite *suite, calls *c, bench_end_row *row, double *dense_seconds) {
    bench_placed *dense;
    const bench_task sparse = {.enqueue = enqueue_sparse, .user = c, .call = {.queue = suite->queue}};
    CLDSA_TRY(bench_warm_up(&sparse, 0));
    CLDSA_TRY(bench_place_check_written(&c->select));
    CLDSA_TRY(bench_place_check_written(&c->attend));
    CLDSA_TRY(choose_dense(c, &dense, dense_seconds));
    CLDSA_TRY(bench_place_check_written(dense));
    row->workspace = c->select.workspace_bytes + c->attend.workspace_bytes;
    row->dense_form = dense == &c->dense[1] ? "heads as queries" : "heads apart";
    return measure_tasks(suite, (const bench_task[]){sparse, task_of(&c->select), task_of(&c->attend), task_of(dense)},
                         row);
}

static void finish_row(end_suite *suite, bench_end_row *row, cldsa_status status) {
    bench_samples *samples[] = {&row->sparse, &row->select, &row->attend, &row->dense};
    row->status = bench_status_of(status);
    if (status != CLDSA_SUCCESS)
        snprintf(row->reason, sizeof row->reason, "%s", cldsa_error_message());
    for (int i = 0; i < 4 && status != CLDSA_SUCCESS; ++i)
        bench_samples_free(samples[i]);
    suite->options->row(suite->options->user, row);
}

static void note_crossover(const bench_end_row *row, bench_crossover *crossover) {
    if (row->status != BENCH_OK)
        return;
    crossover->k = row->k;
    crossover->from = crossover->from ? crossover->from : row->t;
    crossover->to = row->t;
    if (!(bench_ratio(&row->sparse, &row->dense, true) > 1))
        crossover->t = 0;
    else if (!crossover->t)
        crossover->t = row->t;
}

static cldsa_status run_length(end_suite *suite, bench_end_row *row, double expected, double *dense_seconds) {
    if (expected > longest_run)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY /* a limit: skipped */,
                          "one dense run would take about %.1f s; at most %.1f are given to it", expected, longest_run);
    calls c = {.num_dense = 0};
    cldsa_status status = place_calls(suite, row->s, row->t, row->k, &c);
    if (status == CLDSA_SUCCESS)
        status = measure_calls(suite, &c, row, dense_seconds);
    release_calls(&c);
    return status;
}

static void run_mode(end_suite *suite, int mode, bench_crossover *crossover) {
    const form *f = suite->form;
    bool decode = mode == 0;
    cldsa_status checked = check_mode(suite, decode ? 1 : CHECK_KEYS);
    char why[2 * BENCH_TEXT];
    snprintf(why, sizeof why, "%s", cldsa_error_message());
    int64_t most = f->most[mode];
    double dense_seconds = 0;
    if (suite->options->most_keys && suite->options->most_keys < most)
        most = suite->options->most_keys;
    *crossover = (bench_crossover){.mode = mode_names[mode], .k = f->k};
    for (int64_t t = f->first; t <= most; t *= 2) {
        bench_end_row row = {.mode = mode_names[mode], .s = decode ? 1 : t, .t = t, .k = f->k < t ? f->k : t};
        snprintf(row.shape, sizeof row.shape, "indexer %dx%d, attention %dx%d of which %d are the value",
                 f->index_heads, INDEX_WIDTH, f->heads, LATENT_WIDTH, VALUE_WIDTH);
        snprintf(row.dtype, sizeof row.dtype, "%s", f->dtype);
        double expected = dense_seconds * (decode ? 2 : 4);
        cldsa_status status = checked == CLDSA_SUCCESS ? run_length(suite, &row, expected, &dense_seconds)
                                                       : cldsa_fail(checked, "%.400s", why);
        if (status != CLDSA_SUCCESS)
            dense_seconds = expected; /* for the next length */
        finish_row(suite, &row, status);
        note_crossover(&row, crossover);
        bench_samples *samples[] = {&row.sparse, &row.select, &row.attend, &row.dense};
        for (int i = 0; i < 4; ++i)
            bench_samples_free(samples[i]);
    }
}

cldsa_status bench_end_to_end(cldsa_context *ctx, const bench_end_options *options, bench_crossover *crossovers) {
    end_suite suite = {.options = options, .ctx = ctx, .on_cpu = cldsa_context_capabilities(ctx)->is_cpu};
    suite.form = suite.on_cpu ? &cpu_form : &gpu_form;
    if (options->most_keys && options->most_keys < suite.form->first)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "end-to-end: contexts start at %lld keys here, not at %lld",
                          (long long)suite.form->first, (long long)options->most_keys);
    cl_int code;
    suite.queue =
        clCreateCommandQueue(cldsa_context_cl(ctx), cldsa_context_device(ctx), CL_QUEUE_PROFILING_ENABLE, &code);
    if (code)
        return cldsa_fail(code, "clCreateCommandQueue: %s", cldsa_status_text(code));
    for (int mode = 0; mode < BENCH_END_MODES; ++mode)
        run_mode(&suite, mode, &crossovers[mode]);
    clReleaseCommandQueue(suite.queue);
    return CLDSA_SUCCESS;
}
