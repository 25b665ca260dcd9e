/* The suite of operations: every case of a preset, timed, compared with the reference, beside its peers. */
#include "bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 2, WORKSPACE_ALIGNMENT = 256 };

/* Fill of outputs before the first run: a NaN, and no sensible index. */
static const cl_uint poison = 0xffa5ffa5u;

static const double warm_up_seconds = 0.2;

typedef struct ops_suite {
    const bench_ops_options *options;
    cldsa_context *ctx;
    cl_command_queue queue;
    bool on_cpu;
    bench_op_peers peers;
} ops_suite;

/* A workload on the device. */
typedef struct placed {
    ops_suite *suite;
    cldsa_workload work;
    const cldsa_op *forward;
    cl_mem buffers[CLDSA_MAX_FIELDS];
    cl_mem workspace;
    size_t workspace_bytes;
} placed;

/* ---- buffers ----------------------------------------------------------------------------------------------------- */

static size_t bytes_of(const cldsa_host_tensor *tensor) {
    return (size_t)cldsa_host_numel(tensor) * cldsa_dtype_size(tensor->dtype);
}

static cldsa_status check_cl(cl_int code, const char *what) {
    return code ? cldsa_fail(code, "%s: %s", what, cldsa_status_text(code)) : CLDSA_SUCCESS;
}

static cldsa_status make_buffer(ops_suite *suite, size_t bytes, cl_mem *out) {
    cl_int code;
    /* Whole words, for the poison. */
    *out = clCreateBuffer(cldsa_context_cl(suite->ctx), CL_MEM_READ_WRITE, (bytes + 3) / 4 * 4, NULL, &code);
    return code ? cldsa_fail(code, "a buffer of %.0f MiB: %s", (double)bytes / (1 << 20), cldsa_status_text(code))
                : CLDSA_SUCCESS;
}

static cldsa_status place_tensors(placed *on) {
    cldsa_workload *work = &on->work;
    for (int i = 0; i < work->num_fields; ++i) {
        if (!work->given[i])
            continue;
        size_t bytes = bytes_of(&work->tensors[i]);
        CLDSA_TRY(make_buffer(on->suite, bytes, &on->buffers[i]));
        cldsa_field_tensor(work->args, &work->op->fields[i])->mem = on->buffers[i];
        cl_int code = work->raw[i] ? clEnqueueWriteBuffer(on->suite->queue, on->buffers[i], CL_TRUE, 0, bytes,
                                                          work->raw[i], 0, NULL, NULL)
                                   : clEnqueueFillBuffer(on->suite->queue, on->buffers[i], &poison, sizeof poison, 0,
                                                         (bytes + 3) / 4 * 4, 0, NULL, NULL);
        CLDSA_TRY(check_cl(code, "filling a buffer"));
    }
    return CLDSA_SUCCESS;
}

static cldsa_status place_workspace(placed *on, size_t bytes) {
    if (bytes <= on->workspace_bytes)
        return CLDSA_SUCCESS;
    if (on->workspace)
        clReleaseMemObject(on->workspace);
    on->workspace = NULL;
    on->workspace_bytes = 0;
    CLDSA_TRY(make_buffer(on->suite, bytes, &on->workspace));
    on->workspace_bytes = bytes;
    return CLDSA_SUCCESS;
}

static cldsa_call call_of(const placed *on) {
    return (cldsa_call){.queue = on->suite->queue, .workspace = on->workspace, .workspace_bytes = on->workspace_bytes};
}

/* A backward operation's out and lse come from its forward on the device, at the size that is measured. */
static cldsa_status run_forward(placed *on) {
    cldsa_forward_call forward;
    CLDSA_TRY(cldsa_forward_begin(&on->work, &forward));
    size_t bytes = 0;
    cldsa_status status = cldsa_op_workspace(on->suite->ctx, on->forward, forward.args, &bytes, NULL);
    if (status == CLDSA_SUCCESS)
        status = place_workspace(on, bytes);
    cldsa_call call = call_of(on);
    if (status == CLDSA_SUCCESS)
        status = cldsa_op_enqueue(on->suite->ctx, on->forward, forward.args, &call);
    if (status == CLDSA_SUCCESS)
        status = check_cl(clFinish(on->suite->queue), "the forward call");
    cldsa_forward_end(&forward);
    return status;
}

static void release(placed *on) {
    for (int i = 0; i < CLDSA_MAX_FIELDS; ++i)
        if (on->buffers[i])
            clReleaseMemObject(on->buffers[i]);
    if (on->workspace)
        clReleaseMemObject(on->workspace);
    cldsa_workload_free(&on->work);
}

/* Inputs drawn and uploaded, outputs poisoned, workspace as preferred. `dims` are the case's, or smaller. */
static cldsa_status place(ops_suite *suite, const cldsa_op *op, const bench_case *test, const char *dims,
                          bool reference, placed *on) {
    *on = (placed){.suite = suite};
    if (test->forward)
        CLDSA_TRY(cldsa_find_op(test->forward, &on->forward));
    cldsa_workload_spec spec = test->spec;
    spec.dims = dims;
    spec.forward = on->forward;
    CLDSA_TRY(cldsa_workload_make(op, &spec, 1, &on->work));
    cldsa_status status = cldsa_workload_store(&on->work);
    if (status == CLDSA_SUCCESS && reference)
        status = cldsa_workload_reference(&on->work);
    if (status == CLDSA_SUCCESS)
        status = place_tensors(on);
    if (status == CLDSA_SUCCESS && on->forward && !reference)
        status = run_forward(on);
    size_t bytes = 0;
    if (status == CLDSA_SUCCESS)
        status = cldsa_op_workspace(suite->ctx, op, on->work.args, &bytes, NULL);
    if (status == CLDSA_SUCCESS)
        status = place_workspace(on, bytes);
    return status;
}

static cldsa_status enqueue(void *user, const cldsa_call *call) {
    placed *on = user;
    return cldsa_op_enqueue(on->suite->ctx, on->work.op, on->work.args, call);
}

/* ---- is it right ------------------------------------------------------------------------------------------------- */

static cldsa_status download(placed *on, int field, double **values) {
    const cldsa_host_tensor *tensor = &on->work.tensors[field];
    size_t bytes = bytes_of(tensor);
    int64_t numel = cldsa_host_numel(tensor);
    void *raw = malloc(bytes);
    *values = malloc((size_t)numel * sizeof **values);
    cldsa_status status =
        raw && *values
            ? check_cl(clEnqueueReadBuffer(on->suite->queue, on->buffers[field], CL_TRUE, 0, bytes, raw, 0, NULL, NULL),
                       "reading a result")
            : cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %lld results", (long long)numel);
    if (status == CLDSA_SUCCESS)
        cldsa_unpack(tensor->dtype, raw, numel, *values);
    free(raw);
    if (status != CLDSA_SUCCESS) {
        free(*values);
        *values = NULL;
    }
    return status;
}

static cldsa_status compare_field(placed *on, int field, bench_op_row *row) {
    const cldsa_host_tensor *want = &on->work.tensors[field];
    const char *name = on->work.op->fields[field].name;
    double *got;
    CLDSA_TRY(download(on, field, &got));
    int64_t worst = -1;
    for (int64_t e = 0; e < cldsa_host_numel(want); ++e) {
        if (cldsa_is_untouched(want->data[e]))
            continue;
        double error = cldsa_error(on->work.op, want->dtype, got[e], want->data[e], 1);
        if (error > row->error) {
            row->error = error;
            worst = e;
        }
        double distance = fabs(got[e] - want->data[e]);
        if (cldsa_dtype_is_float(want->dtype) && distance > row->worst_abs)
            row->worst_abs = distance;
    }
    cldsa_status status = CLDSA_SUCCESS;
    if (row->error > 1 && worst >= 0)
        status = cldsa_fail(CLDSA_CHECK_FAILED, "wrong: %s[%lld] is %.9g, want %.9g (at %s)", name, (long long)worst,
                            got[worst], want->data[worst], row->checked);
    free(got);
    return status;
}

/* The same variant and tunables at extents that the reference can do. */
static cldsa_status check(ops_suite *suite, const cldsa_op *op, bench_op_row *row) {
    const bench_case *test = row->test;
    snprintf(row->checked, sizeof row->checked, "%s", test->check_dims ? test->check_dims : test->spec.dims);
    placed on;
    cldsa_status status = place(suite, op, test, row->checked, true, &on);
    cldsa_call call = call_of(&on);
    if (status == CLDSA_SUCCESS)
        status = enqueue(&on, &call);
    if (status == CLDSA_SUCCESS)
        status = check_cl(clFinish(suite->queue), "clFinish");
    for (int i = 0; i < on.work.num_fields && status == CLDSA_SUCCESS; ++i)
        if (on.work.given[i] && cldsa_field_is_output(&op->fields[i]))
            status = compare_field(&on, i, row);
    release(&on);
    return status;
}

/* At full size: nothing left unwritten, nothing NaN. Bytes and bit words cannot show it. */
static cldsa_status check_written(placed *on) {
    for (int i = 0; i < on->work.num_fields; ++i) {
        const cldsa_host_tensor *tensor = &on->work.tensors[i];
        const cldsa_field *field = &on->work.op->fields[i];
        if (!on->work.given[i] || !cldsa_field_is_output(field) || tensor->dtype == CLDSA_U8 ||
            tensor->dtype == CLDSA_U32)
            continue;
        double *got;
        CLDSA_TRY(download(on, i, &got));
        int64_t bad = -1;
        for (int64_t e = 0; e < cldsa_host_numel(tensor) && bad < 0; ++e)
            if (isnan(got[e]) || (tensor->dtype == CLDSA_I32 && got[e] == (double)(int32_t)poison))
                bad = e;
        free(got);
        if (bad >= 0)
            return cldsa_fail(CLDSA_CHECK_FAILED, "wrong: %s[%lld] was not written, or is NaN", field->name,
                              (long long)bad);
    }
    return CLDSA_SUCCESS;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void describe_tunables(const cldsa_run *run, char *text, size_t size) {
    *text = '\0';
    for (int i = 0; i < CLDSA_MAX_TUNABLES && run->variant->tunables[i].name; ++i) {
        size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%s=%d", used ? "," : "", run->variant->tunables[i].name, run->tune[i]);
    }
}

static cldsa_status plan(ops_suite *suite, const cldsa_op *op, const placed *on, bench_op_row *row) {
    cldsa_run run;
    CLDSA_TRY(cldsa_op_plan(suite->ctx, op, on->work.args, &run));
    snprintf(row->variant, sizeof row->variant, "%s", run.variant->name);
    describe_tunables(&run, row->tunables, sizeof row->tunables);
    row->flops = op->flops ? op->flops(&run) : 0;
    row->bytes = op->bytes ? op->bytes(&run) : 0;
    return cldsa_op_workspace(suite->ctx, op, on->work.args, &row->workspace, NULL);
}

/* Once more on a context of its own that keeps every kernel's time. */
static cldsa_status profile(ops_suite *suite, placed *on, bench_op_row *row) {
    cldsa_context *ctx;
    CLDSA_TRY(cldsa_context_create(cldsa_context_cl(suite->ctx), cldsa_context_device(suite->ctx),
                                   &(cldsa_context_options){.profiling = true}, &ctx));
    cldsa_call call = call_of(on);
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

static cldsa_status time_case(ops_suite *suite, placed *on, bench_op_row *row) {
    const bench_ops_options *options = suite->options;
    bench_task task = {.enqueue = enqueue, .user = on, .call = call_of(on)};
    CLDSA_TRY(bench_warm_up(&task, warm_up_seconds));
    CLDSA_TRY(check_written(on));
    for (int round = 0; round < ROUNDS; ++round) {
        CLDSA_TRY(bench_warm_up(&task, warm_up_seconds / 4));
        CLDSA_TRY(bench_measure(&task, suite->on_cpu, options->budget / ROUNDS, &row->samples));
        bench_op_peers_ask(&suite->peers, options->budget / ROUNDS, row);
    }
    return options->profile ? profile(suite, on, row) : CLDSA_SUCCESS;
}

static cldsa_status measure_case(ops_suite *suite, const cldsa_op *op, bench_op_row *row) {
    placed on;
    cldsa_status status = place(suite, op, row->test, row->test->spec.dims, false, &on);
    if (status == CLDSA_SUCCESS)
        status = plan(suite, op, &on, row);
    if (status == CLDSA_SUCCESS)
        status = cldsa_op_force(suite->ctx, op, row->variant, row->tunables);
    if (status == CLDSA_SUCCESS)
        status = check(suite, op, row);
    if (status == CLDSA_SUCCESS)
        status = time_case(suite, &on, row);
    release(&on);
    return status;
}

/* What the failure of a case says about it. */
static bench_status status_of(cldsa_status status) {
    switch (status) {
    case CLDSA_SUCCESS:
        return BENCH_OK;
    case CLDSA_UNSUPPORTED:
        return BENCH_UNSUPPORTED;
    case CLDSA_OUT_OF_MEMORY:
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_INVALID_BUFFER_SIZE:
        return BENCH_SKIPPED;
    default:
        return BENCH_ERROR;
    }
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
    row.status = status_of(status);
    if (status != CLDSA_SUCCESS) {
        snprintf(row.reason, sizeof row.reason, "%s", cldsa_error_message());
        bench_samples_free(&row.samples);
    }
    options->row(options->user, &row);
    bench_op_row_free(&row);
}

void bench_op_row_free(bench_op_row *row) {
    bench_samples_free(&row->samples);
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

cldsa_status bench_ops(cldsa_context *ctx, const bench_ops_options *options) {
    ops_suite suite = {.options = options, .ctx = ctx, .on_cpu = cldsa_context_capabilities(ctx)->is_cpu};
    cl_int code;
    suite.queue =
        clCreateCommandQueue(cldsa_context_cl(ctx), cldsa_context_device(ctx), CL_QUEUE_PROFILING_ENABLE, &code);
    CLDSA_TRY(check_cl(code, "clCreateCommandQueue"));
    bench_op_peers_start(options->peers, suite.on_cpu, &suite.peers);
    for (size_t i = 0; i < options->preset->count; ++i)
        if (wanted(options, &options->preset->cases[i]))
            run_case(&suite, &options->preset->cases[i]);
    bench_op_peers_stop(&suite.peers);
    clReleaseCommandQueue(suite.queue);
    return CLDSA_SUCCESS;
}
