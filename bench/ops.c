/* The suite of operations: every case of a preset, timed, compared with the reference, beside its peers. */
#include "bench/peak.h"
#include "bench/place.h"
#include "host/ops/tuning.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 2 };

static const double warm_up_seconds = 0.2;

typedef struct ops_suite {
    const bench_ops_options *options;
    cldsa_context *ctx;
    cldsa_context *untuned; /* with --gain: knows no tuning database */
    cl_command_queue queue;
    bool on_cpu;
    bench_op_peers peers;
} ops_suite;

static cldsa_status check_cl(cl_int code, const char *what) {
    return code ? cldsa_fail(code, "%s: %s", what, cldsa_status_text(code)) : CLDSA_SUCCESS;
}

/* The same variant and tunables at extents that the reference can do. */
static cldsa_status check(ops_suite *suite, bench_op_row *row) {
    const bench_case *test = row->test;
    snprintf(row->checked, sizeof row->checked, "%s", test->check_dims ? test->check_dims : test->spec.dims);
    bench_placed on;
    bench_accuracy accuracy = {0};
    cldsa_status status = bench_place(suite->ctx, suite->queue, test, row->checked, true, &on);
    if (status == CLDSA_SUCCESS)
        status = bench_place_check(&on, &accuracy);
    row->error = accuracy.error;
    row->worst_abs = accuracy.worst_abs;
    bench_place_release(&on);
    return status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void describe_tuning(const cldsa_run *run, bench_op_row *row) {
    static const char *const names[] = {"none", "vendor", "architecture", "exact"};
    bool forced = strcmp(run->tuned_from, "forced") == 0;
    snprintf(row->tuning, sizeof row->tuning, "%s", forced ? "forced" : names[run->match]);
    snprintf(row->tuned_from, sizeof row->tuned_from, "%s", run->tuned_from);
}

static cldsa_status plan(ops_suite *suite, const cldsa_op *op, const bench_placed *on, bench_op_row *row) {
    cldsa_run run;
    CLDSA_TRY(cldsa_op_plan(suite->ctx, op, on->work.args, &run));
    snprintf(row->variant, sizeof row->variant, "%s", run.variant->name);
    bench_describe_tunables(&run, row->tunables, sizeof row->tunables);
    describe_tuning(&run, row);
    row->flops = op->flops ? op->flops(&run) : 0;
    row->bytes = op->bytes ? op->bytes(&run) : 0;
    row->working_set = bench_place_bytes(on);
    if (row->bytes > 0 && row->bytes < row->working_set) /* only some keys are touched */
        row->working_set = row->bytes;
    if (suite->untuned) {
        CLDSA_TRY(cldsa_op_plan(suite->untuned, op, on->work.args, &run));
        row->has_default = true;
        snprintf(row->default_variant, sizeof row->default_variant, "%s", run.variant->name);
        bench_describe_tunables(&run, row->default_tunables, sizeof row->default_tunables);
    }
    return cldsa_op_workspace(suite->ctx, op, on->work.args, &row->workspace, NULL);
}

static bool is_default(const bench_op_row *row) {
    return strcmp(row->variant, row->default_variant) == 0 && strcmp(row->tunables, row->default_tunables) == 0;
}

/* Once more on a context of its own that keeps every kernel's time. */
static cldsa_status profile(ops_suite *suite, bench_placed *on, bench_op_row *row) {
    cldsa_context *ctx;
    CLDSA_TRY(cldsa_context_create(cldsa_context_cl(suite->ctx), cldsa_context_device(suite->ctx),
                                   &(cldsa_context_options){.profiling = true}, &ctx));
    cldsa_call call = bench_place_call(on);
    cldsa_status status = cldsa_op_force(ctx, on->work.op, row->variant, row->tunables);
    for (int i = 0; i < 2 && status == CLDSA_SUCCESS; ++i) { /* the first one builds and warms */
        free(row->kernels);
        row->kernels = NULL;
        status = cldsa_op_enqueue(ctx, on->work.op, on->work.args, &call);
        if (status == CLDSA_SUCCESS)
            status = cldsa_profile_collect(ctx, &row->kernels, &row->num_kernels);
    }
    clFinish(suite->queue);
    cldsa_context_destroy(ctx);
    return status;
}

/* Forces the row's variant and tunables, or the default ones, and gives them their workspace. */
static cldsa_status take(ops_suite *suite, bench_placed *on, const bench_op_row *row, bool by_default) {
    CLDSA_TRY(cldsa_op_force(suite->ctx, on->work.op, by_default ? row->default_variant : row->variant,
                             by_default ? row->default_tunables : row->tunables));
    return bench_place_workspace(on);
}

static cldsa_status time_round(ops_suite *suite, bench_placed *on, bench_samples *samples) {
    bench_task task = {.enqueue = bench_place_enqueue, .user = on, .call = bench_place_call(on)};
    CLDSA_TRY(bench_warm_up(&task, warm_up_seconds / 4));
    return bench_measure(&task, suite->on_cpu, suite->options->budget / ROUNDS, samples);
}

/* The tuned call, the same with defaults, and the peers, in turn. */
static cldsa_status time_case(ops_suite *suite, bench_placed *on, bench_op_row *row) {
    const bench_ops_options *options = suite->options;
    bench_task task = {.enqueue = bench_place_enqueue, .user = on, .call = bench_place_call(on)};
    CLDSA_TRY(bench_warm_up(&task, warm_up_seconds));
    CLDSA_TRY(bench_place_check_written(on));
    bool in_turn = row->has_default && !is_default(row);
    for (int round = 0; round < ROUNDS; ++round) {
        CLDSA_TRY(time_round(suite, on, &row->samples));
        if (in_turn) {
            CLDSA_TRY(take(suite, on, row, true));
            CLDSA_TRY(time_round(suite, on, &row->default_samples));
            CLDSA_TRY(take(suite, on, row, false));
        }
        bench_op_peers_ask(&suite->peers, options->budget / ROUNDS, row);
    }
    for (size_t i = 0; row->has_default && !in_turn && i < row->samples.count; ++i)
        bench_samples_add(&row->default_samples, row->samples.values[i]);
    return options->profile ? profile(suite, on, row) : CLDSA_SUCCESS;
}

static cldsa_status check_both(ops_suite *suite, bench_placed *on, bench_op_row *row) {
    if (row->has_default && !is_default(row)) {
        CLDSA_TRY(take(suite, on, row, true));
        cldsa_status status = check(suite, row);
        if (status != CLDSA_SUCCESS)
            return cldsa_fail_prefix(status, "with defaults");
    }
    CLDSA_TRY(take(suite, on, row, false));
    return check(suite, row);
}

static cldsa_status measure_case(ops_suite *suite, const cldsa_op *op, bench_op_row *row) {
    bench_placed on;
    cldsa_status status = bench_place(suite->ctx, suite->queue, row->test, row->test->spec.dims, false, &on);
    if (status == CLDSA_SUCCESS)
        status = plan(suite, op, &on, row);
    if (status == CLDSA_SUCCESS)
        status = check_both(suite, &on, row);
    if (status == CLDSA_SUCCESS)
        status = time_case(suite, &on, row);
    if (status == CLDSA_SUCCESS && suite->options->peaks)
        row->roofline = bench_roofline_of(suite->options->peaks, row->flops, row->bytes, row->working_set,
                                          bench_samples_quantile(&row->samples, 0.5));
    bench_place_release(&on);
    return status;
}

static void run_case(ops_suite *suite, const bench_case *test) {
    const bench_ops_options *options = suite->options;
    bench_op_row row = {.test = test};
    const cldsa_op *op;
    cldsa_status status = cldsa_find_op(test->op, &op);
    if (status == CLDSA_NOT_FOUND)
        status = CLDSA_UNSUPPORTED;
    if (status == CLDSA_SUCCESS) {
        status = cldsa_op_force(suite->ctx, op, options->variant, options->tunables);
        if (status == CLDSA_SUCCESS)
            status = measure_case(suite, op, &row);
        cldsa_op_force(suite->ctx, op, NULL, NULL);
    }
    row.status = bench_status_of(status);
    if (status != CLDSA_SUCCESS) {
        snprintf(row.reason, sizeof row.reason, "%s", cldsa_error_message());
        bench_samples_free(&row.samples);
        bench_samples_free(&row.default_samples);
    }
    options->row(options->user, &row);
    bench_op_row_free(&row);
}

void bench_op_row_free(bench_op_row *row) {
    bench_samples_free(&row->samples);
    bench_samples_free(&row->default_samples);
    for (int i = 0; i < row->num_peers; ++i)
        bench_samples_free(&row->peers[i].samples);
    free(row->kernels);
}

static bool wanted(const bench_ops_options *options, const bench_case *test) {
    for (size_t i = 0; i < options->num_ops; ++i)
        if (strcmp(options->ops[i], test->op) == 0)
            return true;
    return options->num_ops == 0;
}

cldsa_status bench_ops_check(const bench_ops_options *options) {
    for (size_t i = 0; i < options->preset->count; ++i) {
        const bench_case *test = &options->preset->cases[i];
        if (wanted(options, test))
            CLDSA_TRY(bench_check_extents(test->op, test->spec.dims, options->extents));
    }
    return CLDSA_SUCCESS;
}

static bool same_words(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") == 0;
}

/* Whether the extents given make the same call of an earlier case. */
static bool is_repeated(const bench_ops_options *options, size_t index, const char *dims) {
    const bench_case *test = &options->preset->cases[index];
    for (size_t i = 0; i < index; ++i) {
        const bench_case *other = &options->preset->cases[i];
        char others[BENCH_TEXT], check_dims[BENCH_TEXT];
        bench_replace_extents(other, options->extents, others, check_dims);
        if (same_words(test->op, other->op) && same_words(dims, others) &&
            same_words(test->spec.params, other->spec.params) && same_words(test->spec.give, other->spec.give) &&
            same_words(test->spec.dtypes, other->spec.dtypes))
            return true;
    }
    return false;
}

static void run_with_extents(ops_suite *suite, size_t index) {
    char dims[BENCH_TEXT], check_dims[BENCH_TEXT];
    bench_case own = suite->options->preset->cases[index];
    bench_replace_extents(&own, suite->options->extents, dims, check_dims);
    own.spec.dims = dims;
    own.check_dims = check_dims;
    if (!suite->options->extents || !is_repeated(suite->options, index, dims))
        run_case(suite, &own);
}

static cldsa_status open_suite(ops_suite *suite) {
    cl_context context = cldsa_context_cl(suite->ctx);
    cl_device_id device = cldsa_context_device(suite->ctx);
    cl_int code;
    suite->queue = clCreateCommandQueue(context, device, CL_QUEUE_PROFILING_ENABLE, &code);
    CLDSA_TRY(check_cl(code, "clCreateCommandQueue"));
    if (!suite->options->gain)
        return CLDSA_SUCCESS;
    CLDSA_TRY(cldsa_context_create(context, device, NULL, &suite->untuned));
    return cldsa_tuning_use(suite->untuned, "");
}

static void close_suite(ops_suite *suite) {
    cldsa_context_destroy(suite->untuned);
    if (suite->queue)
        clReleaseCommandQueue(suite->queue);
}

cldsa_status bench_ops(cldsa_context *ctx, const bench_ops_options *options) {
    ops_suite suite = {.options = options, .ctx = ctx, .on_cpu = cldsa_context_capabilities(ctx)->is_cpu};
    cldsa_status status = open_suite(&suite);
    if (status == CLDSA_SUCCESS) {
        bench_op_peers_start(options->peers, suite.on_cpu, &suite.peers);
        for (size_t i = 0; i < options->preset->count; ++i)
            if (wanted(options, &options->preset->cases[i]))
                run_with_extents(&suite, i);
        bench_op_peers_stop(&suite.peers);
    }
    close_suite(&suite);
    return status;
}
