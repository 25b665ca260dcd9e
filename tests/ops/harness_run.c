/* One case on the device: guarded buffers, every variant, comparison with what the reference wants. */
#include "tests/ops/harness_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD_BYTES = 256, WORKSPACE_ALIGNMENT = 256, SHOWN_MISMATCHES = 3 };

/* ---- the device ---------------------------------------------------------------------------------------------- */

static struct {
    cldsa_device_info info;
    cl_context context;
    cl_command_queue in_order, out_of_order; /* the latter NULL if the device has none */
    cldsa_context *ctx;
} device;

static void print_log(cldsa_log_level level, const char *text, void *user) {
    (void)user;
    if (level >= CLDSA_LOG_WARNING)
        print_error("%s\n", text);
}

static void need(cldsa_status status) {
    if (status == CLDSA_SUCCESS)
        return;
    fprintf(stderr, "no device for the tests: %s %s\n", cldsa_status_name(status), cldsa_error_message());
    exit(EXIT_FAILURE);
}

cldsa_context *harness_context(cl_command_queue *queue) {
    if (!device.ctx) {
        cl_int code;
        need(cldsa_select_device(NULL, &device.info));
        cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)device.info.platform, 0};
        device.context = clCreateContext(properties, 1, &device.info.device, NULL, NULL, &code);
        need(code);
        device.in_order = clCreateCommandQueue(device.context, device.info.device, 0, &code);
        need(code);
        device.out_of_order =
            clCreateCommandQueue(device.context, device.info.device, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, &code);
        need(cldsa_context_create(device.context, device.info.device, &(cldsa_context_options){.log = print_log},
                                  &device.ctx));
    }
    if (queue)
        *queue = device.in_order;
    return device.ctx;
}

void harness_release_device(void) {
    if (!device.ctx)
        return;
    cldsa_context_destroy(device.ctx);
    clReleaseCommandQueue(device.in_order);
    if (device.out_of_order)
        clReleaseCommandQueue(device.out_of_order);
    clReleaseContext(device.context);
    memset(&device, 0, sizeof device);
}

static void check_cl(cl_int code, const char *what) {
    if (code)
        fail_msg("%s: %s", what, cldsa_status_name(code));
}

/* ---- guarded buffers ------------------------------------------------------------------------------------------- */

/* What one cl_mem holds before the call: guard, `bytes` of content from `at`, guard. */
typedef struct guarded {
    cl_mem mem;
    size_t size, at, bytes;
    unsigned char *before, *after;
} guarded;

typedef struct device_case {
    guarded buffers[CLDSA_MAX_FIELDS];
    guarded workspace;
    unsigned char *first_result[CLDSA_MAX_FIELDS]; /* of the run that a repetition must equal */
} device_case;

/* Reading a guard or an unwritten output gives NaN, or an index far out of range. */
static void fill_poison(unsigned char *bytes, size_t count, cldsa_dtype dtype, unsigned char low) {
    for (size_t i = 0; i < count; ++i)
        bytes[i] = cldsa_dtype_is_float(dtype) ? (unsigned char)(i % 2 ? 0xff : low) : 0xab;
}

static void make_guarded(guarded *buffer, size_t lead, size_t bytes, cldsa_dtype dtype, const void *content) {
    *buffer = (guarded){.size = lead + bytes + GUARD_BYTES, .at = lead, .bytes = bytes};
    buffer->before = malloc(buffer->size);
    buffer->after = malloc(buffer->size);
    assert_true(buffer->before && buffer->after);
    fill_poison(buffer->before, buffer->size, dtype, 0xff);
    if (content)
        memcpy(buffer->before + lead, content, bytes);
    else /* an odd NaN, told apart from the one that arithmetic yields */
        fill_poison(buffer->before + lead, bytes, dtype, 0xa5);
    cl_int code;
    buffer->mem = clCreateBuffer(device.context, CL_MEM_READ_WRITE, buffer->size, NULL, &code);
    check_cl(code, "clCreateBuffer");
}

static void release_guarded(guarded *buffer) {
    if (buffer->mem)
        clReleaseMemObject(buffer->mem);
    free(buffer->before);
    free(buffer->after);
    *buffer = (guarded){0};
}

static void upload(cl_command_queue queue, const guarded *buffer) {
    check_cl(clEnqueueWriteBuffer(queue, buffer->mem, CL_TRUE, 0, buffer->size, buffer->before, 0, NULL, NULL),
             "clEnqueueWriteBuffer");
}

static void download(cl_command_queue queue, guarded *buffer) {
    check_cl(clEnqueueReadBuffer(queue, buffer->mem, CL_TRUE, 0, buffer->size, buffer->after, 0, NULL, NULL),
             "clEnqueueReadBuffer");
}

static bool guards_hold(const guarded *buffer) {
    size_t end = buffer->at + buffer->bytes;
    return memcmp(buffer->before, buffer->after, buffer->at) == 0 &&
           memcmp(buffer->before + end, buffer->after + end, buffer->size - end) == 0;
}

static size_t tensor_bytes(const harness_data *data, int field) {
    return (size_t)harness_numel(&data->work.tensors[field]) * cldsa_dtype_size(data->work.tensors[field].dtype);
}

static void make_buffers(harness_data *data, device_case *on) {
    for (int i = 0; i < data->work.num_fields; ++i) {
        if (!data->work.given[i] || data->alias[i] >= 0)
            continue;
        cldsa_dtype dtype = data->work.tensors[i].dtype;
        size_t offset = GUARD_BYTES / cldsa_dtype_size(dtype) + (size_t)(7 * i + 3 * data->index + 1) % 16;
        make_guarded(&on->buffers[i], offset * cldsa_dtype_size(dtype), tensor_bytes(data, i), dtype,
                     data->work.raw[i]);
        cldsa_tensor *view = cldsa_field_tensor(data->work.args, &data->work.op->fields[i]);
        view->mem = on->buffers[i].mem;
        view->offset = offset;
    }
    for (int i = 0; i < data->work.num_fields; ++i)
        if (data->work.given[i] && data->alias[i] >= 0) {
            cldsa_tensor *view = cldsa_field_tensor(data->work.args, &data->work.op->fields[i]);
            const cldsa_tensor *target = cldsa_field_tensor(data->work.args, &data->work.op->fields[data->alias[i]]);
            view->mem = target->mem;
            view->offset = target->offset;
        }
}

static void release_buffers(device_case *on) {
    for (int i = 0; i < CLDSA_MAX_FIELDS; ++i) {
        release_guarded(&on->buffers[i]);
        free(on->first_result[i]);
    }
    release_guarded(&on->workspace);
}

/* ---- one call ------------------------------------------------------------------------------------------------ */

typedef struct way {
    const char *variant; /* NULL: the default choice */
    cl_command_queue queue;
    bool gated; /* wait for an event that completes after the call */
    size_t workspace_bytes;
    bool repeat; /* the result must equal the previous one's bits */
} way;

static const char *describe(const way *how, char text[HARNESS_TEXT]) {
    snprintf(text, HARNESS_TEXT, "%s%s, workspace %zu", how->variant ? how->variant : "default choice",
             how->queue == device.out_of_order ? ", out-of-order queue" : "", how->workspace_bytes);
    return text;
}

/* A marker waits for what the call waited for, and not for its kernels: only a call without a launch may return one. */
static void check_event(harness_data *data, const way *how, cl_event event) {
    cl_command_type type = 0;
    check_cl(clGetEventInfo(event, CL_EVENT_COMMAND_TYPE, sizeof type, &type, NULL), "clGetEventInfo");
    char label[HARNESS_TEXT];
    for (int i = 0; i < data->work.num_fields && type == CL_COMMAND_MARKER; ++i)
        if (data->work.given[i] && cldsa_field_is_output(&data->work.op->fields[i]) &&
            harness_numel(&data->work.tensors[i]) > 0) {
            harness_failed(data, "%s: the call's event is a marker, not its last launch", describe(how, label));
            return;
        }
}

static cldsa_status call_device(harness_data *data, device_case *on, const way *how) {
    cl_int code = CL_SUCCESS;
    cl_event gate = how->gated ? clCreateUserEvent(device.context, &code) : NULL, done = NULL;
    check_cl(code, "clCreateUserEvent");
    cldsa_call call = {.queue = how->queue,
                       .workspace = on->workspace.mem,
                       .workspace_offset = on->workspace.at,
                       .workspace_bytes = how->workspace_bytes,
                       .num_wait = gate ? 1 : 0,
                       .wait = gate ? &gate : NULL,
                       .event = how->gated ? &done : NULL};
    cldsa_status status = cldsa_op_enqueue(device.ctx, data->work.op, data->work.args, &call);
    if (gate) {
        clSetUserEventStatus(gate, CL_COMPLETE);
        clReleaseEvent(gate);
    }
    if (done) {
        check_event(data, how, done);
        code = clWaitForEvents(1, &done);
        clReleaseEvent(done);
    }
    cl_int finish = clFinish(how->queue);
    check_cl(code ? code : finish, "waiting for the call");
    return status;
}

/* ---- comparison ---------------------------------------------------------------------------------------------- */

static void compare_output(harness_data *data, device_case *on, int field, const char *label) {
    const cldsa_host_tensor *want = &data->work.tensors[field];
    const guarded *buffer = &on->buffers[data->alias[field] >= 0 ? data->alias[field] : field];
    int64_t numel = harness_numel(want), wrong = 0;
    size_t element = cldsa_dtype_size(want->dtype);
    double *got = malloc((size_t)numel * sizeof *got), worst = 0;
    double scale = data->test->tolerance > 0 ? data->test->tolerance : 1;
    assert_non_null(got);
    cldsa_unpack(want->dtype, buffer->after + buffer->at, numel, got);
    for (int64_t e = 0; e < numel; ++e) {
        size_t at = buffer->at + (size_t)e * element;
        bool untouched = cldsa_is_untouched(want->data[e]);
        double error = untouched ? (memcmp(buffer->before + at, buffer->after + at, element) == 0 ? 0 : INFINITY)
                                 : cldsa_error(data->work.op, want->dtype, got[e], want->data[e], scale);
        worst = error > worst ? error : worst;
        if (error <= 1)
            continue;
        if (wrong++ < SHOWN_MISMATCHES) {
            char wanted[32] = "to be left alone";
            if (!untouched)
                snprintf(wanted, sizeof wanted, "%.9g", want->data[e]);
            harness_failed(data, "%s: %s[%lld] is %.9g, want %s (error %.3g x allowed)", label,
                           data->work.op->fields[field].name, (long long)e, got[e], wanted, error);
        }
    }
    if (wrong > SHOWN_MISMATCHES)
        harness_failed(data, "%s: %s: %lld of %lld elements are wrong, the worst by %.3g x allowed", label,
                       data->work.op->fields[field].name, (long long)wrong, (long long)numel, worst);
    free(got);
}

static void compare_case(harness_data *data, device_case *on, const way *how) {
    char label[HARNESS_TEXT];
    describe(how, label);
    bool written[CLDSA_MAX_FIELDS] = {false};
    for (int i = 0; i < data->work.num_fields; ++i)
        if (data->work.given[i] && cldsa_field_is_output(&data->work.op->fields[i]))
            written[data->alias[i] >= 0 ? data->alias[i] : i] = true;
    for (int i = 0; i < data->work.num_fields; ++i) {
        guarded *buffer = &on->buffers[i];
        if (!buffer->mem)
            continue;
        const char *name = data->work.op->fields[i].name;
        if (!guards_hold(buffer))
            harness_failed(data, "%s: wrote outside of %s", label, name);
        if (!written[i]) {
            if (memcmp(buffer->before, buffer->after, buffer->size) != 0)
                harness_failed(data, "%s: the input %s was changed", label, name);
            continue;
        }
        if (how->repeat && memcmp(on->first_result[i], buffer->after, buffer->size) != 0)
            harness_failed(data, "%s: %s differs from the run before: not deterministic", label, name);
        if (!on->first_result[i])
            on->first_result[i] = malloc(buffer->size);
        assert_non_null(on->first_result[i]);
        memcpy(on->first_result[i], buffer->after, buffer->size);
    }
    if (on->workspace.mem && !guards_hold(&on->workspace))
        harness_failed(data, "%s: wrote outside of the workspace", label);
    for (int i = 0; i < data->work.num_fields && !how->repeat; ++i)
        if (data->work.given[i] && cldsa_field_is_output(&data->work.op->fields[i]))
            compare_output(data, on, i, label);
}

/* A repetition finds the workspace as the run before left it. */
static void run_way(harness_data *data, device_case *on, const way *how) {
    char label[HARNESS_TEXT];
    for (int i = 0; i < data->work.num_fields; ++i)
        if (on->buffers[i].mem)
            upload(how->queue, &on->buffers[i]);
    if (!how->repeat) {
        release_guarded(&on->workspace);
        if (how->workspace_bytes) {
            make_guarded(&on->workspace, WORKSPACE_ALIGNMENT, how->workspace_bytes, CLDSA_F32, NULL);
            upload(how->queue, &on->workspace);
        }
    }
    cldsa_status status = call_device(data, on, how);
    if (status != CLDSA_SUCCESS) {
        harness_failed(data, "%s: %s: %s", describe(how, label), cldsa_status_name(status), cldsa_error_message());
        return;
    }
    for (int i = 0; i < data->work.num_fields; ++i)
        if (on->buffers[i].mem)
            download(how->queue, &on->buffers[i]);
    if (on->workspace.mem)
        download(how->queue, &on->workspace);
    compare_case(data, on, how);
}

/* ---- the case ------------------------------------------------------------------------------------------------ */

/* Is the forced variant one that says that it cannot run here? Any other refusal is a failure. */
static bool declines(const harness_data *data, const cldsa_variant *variant) {
    cldsa_run run;
    cldsa_op_force(device.ctx, data->work.op, NULL, NULL);
    if (cldsa_op_plan(device.ctx, data->work.op, data->work.args, &run) == CLDSA_UNSUPPORTED)
        return true;
    run.variant = variant;
    return variant->can_run && !variant->can_run(&run);
}

/* A CPU tests what is meant for GPUs too, but need not optimise it. */
static bool meant_for_cpus(const cldsa_variant *variant) {
    static const char *const names[] = {"vec", "dot", "any", "clblast", NULL};
    for (const char *const *name = names; *name; ++name)
        if (strcmp(variant->name, *name) == 0)
            return true;
    return false;
}

/* Preferred workspace twice, least workspace, and in the first case the out-of-order queue. */
static bool run_variant(harness_data *data, device_case *on, const cldsa_variant *variant, const char *tunables) {
    if (variant && declines(data, variant))
        return false;
    size_t preferred, minimum;
    cldsa_context_optimize(device.ctx,
                           !variant || meant_for_cpus(variant) || !cldsa_context_capabilities(device.ctx)->is_cpu);
    cldsa_op_force(device.ctx, data->work.op, variant ? variant->name : NULL, tunables);
    cldsa_status status = cldsa_op_workspace(device.ctx, data->work.op, data->work.args, &preferred, &minimum);
    if (status != CLDSA_SUCCESS) {
        harness_failed(data, "%s: workspace query: %s: %s", variant ? variant->name : "default choice",
                       cldsa_status_name(status), cldsa_error_message());
        return true;
    }
    way how = {.variant = variant ? variant->name : NULL, .queue = device.in_order, .workspace_bytes = preferred};
    int failures = data->failures;
    run_way(data, on, &how);
    if (harness_work_limit() > 0)
        return true;
    if (data->failures == failures) {
        how.repeat = true;
        run_way(data, on, &how);
        how.repeat = false;
    }
    if (minimum != preferred) {
        how.workspace_bytes = minimum;
        run_way(data, on, &how);
    }
    if (data->index == 0 && device.out_of_order) {
        how.workspace_bytes = preferred;
        how.queue = device.out_of_order;
        how.gated = true;
        run_way(data, on, &how);
    }
    return true;
}

/* Tunables of the tests suit devices with 48 KiB of local memory; with less, some leave no room. */
static bool leave_no_room(harness_data *data, const cldsa_variant *variant, const char *tunables) {
    if (cldsa_context_capabilities(device.ctx)->local_mem_bytes >= 48 << 10)
        return false;
    cldsa_op_force(device.ctx, data->work.op, variant->name, tunables);
    return cldsa_op_workspace(device.ctx, data->work.op, data->work.args, NULL, NULL) == CLDSA_UNSUPPORTED;
}

/* "VARIANT:NAME=VALUE,...", or the first variant with "NAME=VALUE,..."; several separated by "; ". */
static void run_with_tunables(harness_data *data, device_case *on) {
    for (const char *at = data->suite->tunables; *at; at += strspn(at, "; ")) {
        char text[HARNESS_TEXT], *colon;
        snprintf(text, sizeof text, "%.*s", (int)strcspn(at, ";"), at);
        at += strcspn(at, ";");
        if ((colon = strchr(text, ':')))
            *colon = '\0';
        const cldsa_variant *variant = colon ? cldsa_find_variant(data->work.op, text) : data->work.op->variants[0];
        const char *tunables = colon ? colon + 1 : text;
        if (!variant)
            harness_failed(data, "no such variant: %s", text);
        else if (!leave_no_room(data, variant, tunables))
            run_variant(data, on, variant, tunables);
    }
    cldsa_op_force(device.ctx, data->work.op, NULL, NULL); /* other operations may build on this one */
}

static void expect_failure(harness_data *data, cldsa_status expected, const char *message) {
    cldsa_status status =
        cldsa_op_enqueue(device.ctx, data->work.op, data->work.args, &(cldsa_call){.queue = device.in_order});
    if (status != expected)
        harness_failed(data, "returned %s; %s is right", cldsa_status_name(status), cldsa_status_name(expected));
    else if (message && !strstr(cldsa_error_message(), message))
        harness_failed(data, "the message is \"%s\"; it should have \"%s\"", cldsa_error_message(), message);
}

/* What every operation must refuse, tried on one good call. */
static void check_refusals(harness_data *data) {
    for (int i = 0; i < data->work.num_fields; ++i) {
        const cldsa_field *field = &data->work.op->fields[i];
        if (!data->work.given[i])
            continue;
        cldsa_tensor *view = cldsa_field_tensor(data->work.args, field), kept = *view;
        if (!field->optional) {
            view->mem = NULL;
            expect_failure(data, CLDSA_MISSING_TENSOR, field->name);
            *view = kept;
        }
        for (int d = 0; d < CLDSA_NUM_DTYPES; ++d)
            if (!(field->dtypes & CLDSA_ACCEPT(d))) {
                view->dtype = (cldsa_dtype)d;
                expect_failure(data, CLDSA_INVALID_DTYPE, field->name);
                break;
            }
        *view = kept;
        view->offset += GUARD_BYTES + 1; /* past the guard even with one byte an element */
        expect_failure(data, CLDSA_BUFFER_TOO_SMALL, field->name);
        *view = kept;
        if (view->rank) {
            view->shape[0] = 0;
            expect_failure(data, CLDSA_INVALID_SHAPE, field->name);
        }
        *view = kept;
    }
    size_t minimum = 0;
    cldsa_op_workspace(device.ctx, data->work.op, data->work.args, NULL, &minimum);
    if (minimum)
        expect_failure(data, CLDSA_INSUFFICIENT_WORKSPACE, NULL);
}

void harness_run_device(harness_data *data) {
    harness_context(NULL);
    device_case on = {0};
    make_buffers(data, &on);
    if (data->test->expect) {
        expect_failure(data, data->test->expect, data->test->message);
        release_buffers(&on);
        return;
    }
    char ran[HARNESS_TEXT] = "";
    for (int i = 0; data->work.op->variants[i]; ++i)
        if (run_variant(data, &on, data->work.op->variants[i], NULL)) {
            size_t used = strlen(ran);
            snprintf(ran + used, sizeof ran - used, " %s", data->work.op->variants[i]->name);
        }
    if (harness_work_limit() == 0)
        run_variant(data, &on, NULL, NULL);
    if (data->suite->tunables)
        run_with_tunables(data, &on);
    if (data->index == 0 && harness_work_limit() == 0)
        check_refusals(data);
    if (!*ran)
        harness_failed(data, "no variant can run on %s", device.info.name);
    print_message("             ran:%s\n", ran);
    release_buffers(&on);
}
