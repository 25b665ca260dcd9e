/* Cases on the device: buffers, the call, and whether its result is right. */
#include "bench/place.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fill of outputs before the first run: a NaN, and no sensible index. */
static const cl_uint poison = 0xffa5ffa5u;

/* ---- buffers ----------------------------------------------------------------------------------------------------- */

static size_t bytes_of(const cldsa_host_tensor *tensor) {
    return (size_t)cldsa_host_numel(tensor) * cldsa_dtype_size(tensor->dtype);
}

static cldsa_status check_cl(cl_int code, const char *what) {
    return code ? cldsa_fail(code, "%s: %s", what, cldsa_status_text(code)) : CLDSA_SUCCESS;
}

static cldsa_status make_buffer(const bench_placed *on, size_t bytes, cl_mem *out) {
    cl_int code;
    /* Whole words, for the poison. */
    *out = clCreateBuffer(cldsa_context_cl(on->ctx), CL_MEM_READ_WRITE, (bytes + 3) / 4 * 4, NULL, &code);
    return code ? cldsa_fail(code, "a buffer of %.0f MiB: %s", (double)bytes / (1 << 20), cldsa_status_text(code))
                : CLDSA_SUCCESS;
}

/* An input as it was drawn; poison where there is nothing to upload. */
static cldsa_status fill(bench_placed *on, int field) {
    const cldsa_workload *work = &on->work;
    size_t bytes = bytes_of(&work->tensors[field]);
    cl_int code = work->raw[field] ? clEnqueueWriteBuffer(on->queue, on->buffers[field], CL_TRUE, 0, bytes,
                                                          work->raw[field], 0, NULL, NULL)
                                   : clEnqueueFillBuffer(on->queue, on->buffers[field], &poison, sizeof poison, 0,
                                                         (bytes + 3) / 4 * 4, 0, NULL, NULL);
    return check_cl(code, "filling a buffer");
}

double bench_place_bytes(const bench_placed *on) {
    double bytes = 0;
    for (int i = 0; i < on->work.num_fields; ++i)
        if (on->work.given[i])
            bytes += (double)bytes_of(&on->work.tensors[i]);
    return bytes;
}

/* Said before anything is allocated: on CPUs the system would end the program instead. */
static cldsa_status check_memory(const bench_placed *on) {
    double bytes = bench_place_bytes(on), there = (double)cldsa_context_device_info(on->ctx)->global_mem_bytes;
    return bytes <= there ? CLDSA_SUCCESS
                          : cldsa_fail(CLDSA_OUT_OF_MEMORY, "its tensors are %.0f MiB; the device has %.0f",
                                       bytes / (1 << 20), there / (1 << 20));
}

static cldsa_status place_tensors(bench_placed *on) {
    cldsa_workload *work = &on->work;
    CLDSA_TRY(check_memory(on));
    for (int i = 0; i < work->num_fields; ++i) {
        if (!work->given[i])
            continue;
        CLDSA_TRY(make_buffer(on, bytes_of(&work->tensors[i]), &on->buffers[i]));
        cldsa_field_tensor(work->args, &work->op->fields[i])->mem = on->buffers[i];
        CLDSA_TRY(fill(on, i));
    }
    return CLDSA_SUCCESS;
}

cldsa_status bench_place_reset(bench_placed *on) {
    for (int i = 0; i < on->work.num_fields; ++i)
        if (on->work.given[i] && cldsa_field_is_output(&on->work.op->fields[i]))
            CLDSA_TRY(fill(on, i));
    return CLDSA_SUCCESS;
}

static cldsa_status grow_workspace(bench_placed *on, size_t bytes) {
    if (bytes <= on->workspace_bytes)
        return CLDSA_SUCCESS;
    if (on->workspace)
        clReleaseMemObject(on->workspace);
    on->workspace = NULL;
    on->workspace_bytes = 0;
    CLDSA_TRY(make_buffer(on, bytes, &on->workspace));
    on->workspace_bytes = bytes;
    return CLDSA_SUCCESS;
}

cldsa_status bench_place_workspace(bench_placed *on) {
    size_t bytes = 0;
    CLDSA_TRY(cldsa_op_workspace(on->ctx, on->work.op, on->work.args, &bytes, NULL));
    return grow_workspace(on, bytes);
}

cldsa_call bench_place_call(const bench_placed *on) {
    return (cldsa_call){.queue = on->queue, .workspace = on->workspace, .workspace_bytes = on->workspace_bytes};
}

/* A backward operation's out and lse come from its forward on the device, at the size that is measured. */
static cldsa_status run_forward(bench_placed *on) {
    cldsa_forward_call forward;
    CLDSA_TRY(cldsa_forward_begin(&on->work, &forward));
    size_t bytes = 0;
    cldsa_status status = cldsa_op_workspace(on->ctx, on->forward, forward.args, &bytes, NULL);
    if (status == CLDSA_SUCCESS)
        status = grow_workspace(on, bytes);
    cldsa_call call = bench_place_call(on);
    if (status == CLDSA_SUCCESS)
        status = cldsa_op_enqueue(on->ctx, on->forward, forward.args, &call);
    if (status == CLDSA_SUCCESS)
        status = check_cl(clFinish(on->queue), "the forward call");
    cldsa_forward_end(&forward);
    return status;
}

void bench_place_release(bench_placed *on) {
    for (int i = 0; i < CLDSA_MAX_FIELDS; ++i)
        if (on->buffers[i])
            clReleaseMemObject(on->buffers[i]);
    if (on->workspace)
        clReleaseMemObject(on->workspace);
    cldsa_workload_free(&on->work);
    *on = (bench_placed){0};
}

cldsa_status bench_place(cldsa_context *ctx, cl_command_queue queue, const bench_case *test, const char *dims,
                         bool reference, bench_placed *on) {
    *on = (bench_placed){.ctx = ctx, .queue = queue, .partial = test->partial};
    const cldsa_op *op;
    CLDSA_TRY(cldsa_find_op(test->op, &op));
    if (test->forward)
        CLDSA_TRY(cldsa_find_op(test->forward, &on->forward));
    cldsa_workload_spec spec = test->spec;
    spec.dims = dims;
    spec.forward = on->forward;
    CLDSA_TRY(cldsa_workload_make(op, &spec, 1, &on->work));
    CLDSA_TRY(cldsa_workload_store(&on->work));
    if (reference)
        CLDSA_TRY(cldsa_workload_reference(&on->work));
    CLDSA_TRY(place_tensors(on));
    if (on->forward && !reference)
        CLDSA_TRY(run_forward(on));
    return bench_place_workspace(on);
}

cldsa_status bench_place_enqueue(void *user, const cldsa_call *call) {
    bench_placed *on = user;
    return cldsa_op_enqueue(on->ctx, on->work.op, on->work.args, call);
}

/* ---- is it right ------------------------------------------------------------------------------------------------- */

static cldsa_status download(bench_placed *on, int field, double **values) {
    const cldsa_host_tensor *tensor = &on->work.tensors[field];
    size_t bytes = bytes_of(tensor);
    int64_t numel = cldsa_host_numel(tensor);
    void *raw = malloc(bytes);
    *values = malloc((size_t)numel * sizeof **values);
    cldsa_status status =
        raw && *values
            ? check_cl(clEnqueueReadBuffer(on->queue, on->buffers[field], CL_TRUE, 0, bytes, raw, 0, NULL, NULL),
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

static cldsa_status compare_field(bench_placed *on, int field, bench_accuracy *accuracy) {
    const cldsa_host_tensor *want = &on->work.tensors[field];
    const char *name = on->work.op->fields[field].name;
    double *got;
    CLDSA_TRY(download(on, field, &got));
    int64_t worst = -1;
    for (int64_t e = 0; e < cldsa_host_numel(want); ++e) {
        if (cldsa_is_untouched(want->data[e]))
            continue;
        double error = cldsa_error(on->work.op, want->dtype, got[e], want->data[e], 1);
        if (error > accuracy->error) {
            accuracy->error = error;
            worst = e;
        }
        double distance = fabs(got[e] - want->data[e]);
        if (cldsa_dtype_is_float(want->dtype) && distance > accuracy->worst_abs)
            accuracy->worst_abs = distance;
    }
    cldsa_status status = CLDSA_SUCCESS;
    if (accuracy->error > 1 && worst >= 0)
        status = cldsa_fail(CLDSA_CHECK_FAILED, "wrong: %s[%lld] is %.9g, want %.9g (at %s)", name, (long long)worst,
                            got[worst], want->data[worst], on->work.spec.dims);
    free(got);
    return status;
}

cldsa_status bench_place_check(bench_placed *on, bench_accuracy *accuracy) {
    const cldsa_op *op = on->work.op;
    cldsa_call call = bench_place_call(on);
    CLDSA_TRY(bench_place_enqueue(on, &call));
    CLDSA_TRY(check_cl(clFinish(on->queue), "clFinish"));
    for (int i = 0; i < on->work.num_fields; ++i)
        if (on->work.given[i] && cldsa_field_is_output(&op->fields[i]))
            CLDSA_TRY(compare_field(on, i, accuracy));
    return CLDSA_SUCCESS;
}

cldsa_status bench_place_check_written(bench_placed *on) {
    for (int i = 0; i < on->work.num_fields; ++i) {
        const cldsa_host_tensor *tensor = &on->work.tensors[i];
        const cldsa_field *field = &on->work.op->fields[i];
        if (!on->work.given[i] || !cldsa_field_is_output(field) || tensor->dtype == CLDSA_U8 ||
            tensor->dtype == CLDSA_U32 || (on->partial && strcmp(field->name, on->partial) == 0))
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

void bench_describe_tunables(const cldsa_run *run, char *text, size_t size) {
    *text = '\0';
    for (int i = 0; i < CLDSA_MAX_TUNABLES && run->variant->tunables[i].name; ++i) {
        size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%s=%d", used ? "," : "", run->variant->tunables[i].name, run->tune[i]);
    }
}
