/* From an args struct to enqueued kernels: check, choose variant and tunables, enqueue. */
#include "host/ops/op.h"
#include "host/ops/fields.h"
#include "host/ops/tuning.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKSPACE_ALIGNMENT = 256 };

cldsa_status cldsa_op_force(cldsa_context *ctx, const cldsa_op *op, const char *variant, const char *tunables) {
    return cldsa_override_set(ctx, op, variant, tunables);
}

static bool runs(const cldsa_run *run, const cldsa_variant *variant) {
    return !variant->can_run || variant->can_run(run);
}

const cldsa_variant *cldsa_find_variant(const cldsa_op *op, const char *name) {
    for (int i = 0; op->variants[i]; ++i)
        if (strcmp(op->variants[i]->name, name) == 0)
            return op->variants[i];
    return NULL;
}

static cldsa_status no_variant(const cldsa_op *op, const char *name) {
    char known[256] = "";
    for (int i = 0; op->variants[i]; ++i) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", op->variants[i]->name);
    }
    return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s has no variant \"%s\"; it has %s", op->name, name, known);
}

static cldsa_status no_tunable(const cldsa_run *run, const char *text, size_t length) {
    char known[256] = "";
    for (int i = 0; i < CLDSA_MAX_TUNABLES && run->variant->tunables[i].name; ++i) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", run->variant->tunables[i].name);
    }
    return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s/%s has no tunable \"%.*s\"; it has %s", run->op->name,
                      run->variant->name, (int)length, text, *known ? known : "none");
}

static cldsa_status take_forced(cldsa_run *run, const char *forced) {
    run->variant = cldsa_find_variant(run->op, forced);
    if (!run->variant)
        return no_variant(run->op, forced);
    if (!runs(run, run->variant))
        return cldsa_fail(CLDSA_UNSUPPORTED, "%s: variant %s cannot run this shape on this device", run->op->name,
                          forced);
    return CLDSA_SUCCESS;
}

/* Where nothing is measured: the operation's heuristic, else the first that can run. */
static cldsa_status take_usual(cldsa_run *run) {
    const cldsa_op *op = run->op;
    if (op->choose) {
        run->variant = op->variants[op->choose(run)];
        if (runs(run, run->variant))
            return CLDSA_SUCCESS;
    }
    for (int i = 0; op->variants[i]; ++i) {
        run->variant = op->variants[i];
        if (runs(run, run->variant))
            return CLDSA_SUCCESS;
    }
    return cldsa_fail(CLDSA_UNSUPPORTED, "%s: no variant can run this shape on this device", op->name);
}

int cldsa_find_tunable(const cldsa_variant *variant, const char *name, size_t length) {
    for (int i = 0; i < CLDSA_MAX_TUNABLES && variant->tunables[i].name; ++i)
        if (strlen(variant->tunables[i].name) == length && memcmp(variant->tunables[i].name, name, length) == 0)
            return i;
    return -1;
}

/* "NAME=VALUE,NAME=VALUE" over what is in run->tune. */
static cldsa_status apply_tunables(cldsa_run *run, const char *text) {
    while (*text) {
        size_t length = strcspn(text, "=");
        int index = cldsa_find_tunable(run->variant, text, length);
        if (index < 0 || text[length] != '=')
            return no_tunable(run, text, length);
        run->tune[index] = atoi(text + length + 1);
        text += strcspn(text, ",");
        text += *text == ',';
    }
    return CLDSA_SUCCESS;
}

void cldsa_run_defaults(const cldsa_run *run, const cldsa_variant *variant, int tune[CLDSA_MAX_TUNABLES]) {
    for (int i = 0; i < CLDSA_MAX_TUNABLES; ++i)
        tune[i] = variant->tunables[i].fallback;
    if (variant->defaults)
        variant->defaults(run, tune);
}

static bool is_legal(const cldsa_run *run) {
    return !run->variant->legal || run->variant->legal(run, run->tune);
}

/* `variant` NULL: the fastest. False, and nothing changed, where the database is silent. */
static bool take_tuned(cldsa_run *run, const char *variant) {
    cldsa_tuning_choice choice;
    cldsa_tuning_lookup(run, variant, &choice);
    if (choice.match == CLDSA_TUNING_NONE)
        return false;
    run->variant = choice.chosen;
    memcpy(run->tune, choice.tune, sizeof run->tune);
    run->match = choice.match;
    memcpy(run->tuned_from, choice.from, sizeof run->tuned_from);
    return true;
}

/*
 * What is forced, else what was measured, else defaults. Tunables that are forced stand on the defaults alone, so that
 * they mean the same on every machine.
 */
static cldsa_status choose(cldsa_run *run, const char *variant, const char *tunables) {
    if (!*variant && take_tuned(run, NULL))
        return CLDSA_SUCCESS;
    CLDSA_TRY(*variant ? take_forced(run, variant) : take_usual(run));
    if (!*tunables && take_tuned(run, run->variant->name))
        return CLDSA_SUCCESS;
    snprintf(run->tuned_from, sizeof run->tuned_from, "%s", *tunables ? "forced" : "defaults");
    cldsa_run_defaults(run, run->variant, run->tune);
    CLDSA_TRY(apply_tunables(run, tunables));
    return is_legal(run) ? CLDSA_SUCCESS
                         : cldsa_fail(CLDSA_UNSUPPORTED, "%s/%s: these tunables are not legal on this device",
                                      run->op->name, run->variant->name);
}

static cldsa_status plan(cldsa_context *ctx, const cldsa_op *op, const void *args, bool check_buffers, cldsa_run *run) {
    if (!ctx || !args)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: the %s is NULL", op->name,
                          ctx ? "arguments' struct" : "context");
    memset(run, 0, sizeof *run);
    run->ctx = ctx;
    run->op = op;
    run->args = args;
    CLDSA_TRY(cldsa_bind_args(run, check_buffers));
    if (op->check)
        CLDSA_TRY(op->check(run));
    char variant[32] = "", tunables[256] = "";
    cldsa_override_get(ctx, op, variant, tunables);
    CLDSA_TRY(choose(run, variant, tunables));
    snprintf(run->label, sizeof run->label, "%s/%s", op->name, run->variant->name);
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_op_plan(cldsa_context *ctx, const cldsa_op *op, const void *args, cldsa_run *run) {
    return plan(ctx, op, args, true, run);
}

static void workspace_sizes(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    *preferred = *minimum = 0;
    if (run->variant->workspace)
        run->variant->workspace(run, preferred, minimum);
}

cldsa_status cldsa_op_workspace(cldsa_context *ctx, const cldsa_op *op, const void *args, size_t *preferred,
                                size_t *minimum) {
    cldsa_run run;
    CLDSA_TRY(cldsa_op_plan(ctx, op, args, &run));
    size_t most, least;
    workspace_sizes(&run, &most, &least);
    if (preferred)
        *preferred = most;
    if (minimum)
        *minimum = least;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_run_sub_workspace(const cldsa_run *run, const cldsa_op *op, const void *args, size_t *preferred,
                                     size_t *minimum) {
    cldsa_run sub;
    CLDSA_TRY(plan(run->ctx, op, args, false, &sub));
    workspace_sizes(&sub, preferred, minimum);
    return CLDSA_SUCCESS;
}

static cldsa_status check_workspace(const cldsa_run *run) {
    size_t preferred, minimum;
    workspace_sizes(run, &preferred, &minimum);
    if (minimum == 0 && (preferred == 0 || !run->workspace))
        return CLDSA_SUCCESS;
    if (!run->workspace || run->workspace_bytes < minimum)
        return cldsa_fail(
            CLDSA_INSUFFICIENT_WORKSPACE, "%s: the workspace is %zu bytes; this call needs at least %zu%s", run->label,
            run->workspace ? run->workspace_bytes : 0, minimum, preferred > minimum ? " (more makes it faster)" : "");
    if (run->workspace_offset % WORKSPACE_ALIGNMENT)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: workspace_offset is %zu; it must be a multiple of %d",
                          run->label, run->workspace_offset, WORKSPACE_ALIGNMENT);
    size_t size = 0;
    cl_int code = clGetMemObjectInfo(run->workspace, CL_MEM_SIZE, sizeof size, &size, NULL);
    if (code || run->workspace_offset > size || run->workspace_bytes > size - run->workspace_offset)
        return cldsa_fail(CLDSA_BUFFER_TOO_SMALL, "%s: the workspace's buffer holds %zu bytes, not %zu from offset %zu",
                          run->label, size, run->workspace_bytes, run->workspace_offset);
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_op_enqueue(cldsa_context *ctx, const cldsa_op *op, const void *args, const cldsa_call *call) {
    cldsa_run run;
    if (!call)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: the cldsa_call is NULL; it must name a queue", op->name);
    CLDSA_TRY(cldsa_op_plan(ctx, op, args, &run));
    run.workspace = call->workspace;
    run.workspace_offset = call->workspace_offset;
    run.workspace_bytes = call->workspace_bytes;
    CLDSA_TRY(check_workspace(&run));
    CLDSA_TRY(cldsa_stream_begin(&run.stream, ctx, call, run.label));
    return cldsa_stream_end(&run.stream, run.variant->enqueue(&run));
}

cldsa_status cldsa_run_sub(cldsa_run *run, const cldsa_op *op, const void *args, size_t scratch_at,
                           size_t scratch_bytes) {
    cldsa_run sub;
    CLDSA_TRY(cldsa_op_plan(run->ctx, op, args, &sub));
    sub.workspace = run->workspace;
    sub.workspace_offset = run->workspace_offset + scratch_at;
    sub.workspace_bytes = scratch_bytes;
    CLDSA_TRY(check_workspace(&sub));
    sub.stream = run->stream;
    sub.stream.label = sub.label;
    cldsa_status status = sub.variant->enqueue(&sub);
    run->stream.last = sub.stream.last;
    run->stream.launches = sub.stream.launches;
    return status;
}

void cldsa_run_options(const cldsa_run *run, char *options, const char *format, ...) {
    size_t used = 0;
    for (int i = 0; i < CLDSA_MAX_TUNABLES && run->variant->tunables[i].name; ++i)
        used += (size_t)snprintf(options + used, CLDSA_OPTIONS_MAX - used, "-D%s=%d ", run->variant->tunables[i].name,
                                 run->tune[i]);
    va_list list;
    va_start(list, format);
    vsnprintf(options + used, CLDSA_OPTIONS_MAX - used, format, list);
    va_end(list);
}

cldsa_status cldsa_run_kernel(cldsa_run *run, const char *name, const char *options, cldsa_kernel **out) {
    return cldsa_get_kernel(run->ctx, run->variant->file, name, options, out);
}

int cldsa_run_tune(const cldsa_run *run, const char *name) {
    int index = cldsa_find_tunable(run->variant, name, strlen(name));
    assert(index >= 0);
    return run->tune[index];
}

const char *cldsa_dtype_macro(cldsa_dtype dtype) {
    return cldsa_dtype_name(dtype);
}

cldsa_tensor cldsa_run_scratch(const cldsa_run *run, size_t at, cldsa_dtype dtype, int64_t numel) {
    size_t byte = run->workspace_offset + at;
    assert(byte % cldsa_dtype_size(dtype) == 0);
    assert(at + (size_t)numel * cldsa_dtype_size(dtype) <= run->workspace_bytes);
    return CLDSA_TENSOR(run->workspace, byte / cldsa_dtype_size(dtype), dtype, numel);
}
