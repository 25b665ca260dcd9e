/* Enqueueing kernels in a call's order. */
#include "host/runtime/context.h"

#include <stdio.h>
#include <string.h>

cldsa_status cldsa_stream_begin(cldsa_stream *stream, cldsa_context *ctx, const cldsa_call *call, const char *label) {
    *stream = (cldsa_stream){.ctx = ctx, .call = call, .label = label};
    cl_command_queue_properties properties = 0;
    cl_int code = clGetCommandQueueInfo(call->queue, CL_QUEUE_PROPERTIES, sizeof properties, &properties, NULL);
    if (code)
        return cldsa_fail(code, "%s: the call's queue is not valid (%s)", label, cldsa_status_name(code));
    if (call->num_wait > 0 && !call->wait)
        return cldsa_fail(CL_INVALID_EVENT_WAIT_LIST, "%s: the call's wait is NULL; num_wait says %u events", label,
                          call->num_wait);
    stream->chain = (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) != 0;
    return CLDSA_SUCCESS;
}

void cldsa_stream_wait_list(const cldsa_stream *stream, cl_uint *num_wait, const cl_event **wait) {
    if (stream->launches == 0) {
        *num_wait = stream->call->num_wait;
        *wait = stream->call->num_wait ? stream->call->wait : NULL;
    } else {
        *num_wait = stream->chain ? 1 : 0;
        *wait = stream->chain ? &stream->last : NULL;
    }
}

void cldsa_stream_took(cldsa_stream *stream, const char *kernel_name, cl_event event) {
    ++stream->launches;
    if (!event)
        return;
    if (stream->ctx->profiling)
        cldsa_profile_add(stream->ctx, stream->label, kernel_name, event);
    if (stream->last)
        clReleaseEvent(stream->last);
    stream->last = event;
}

cldsa_status cldsa_enqueue(cldsa_stream *stream, cldsa_kernel *kernel, int dims, const size_t *global,
                           const size_t *local, const cldsa_arg *args, int num_args) {
    size_t rounded[3];
    for (int i = 0; i < dims; ++i) {
        if (global[i] == 0)
            return CLDSA_SUCCESS;
        rounded[i] = local ? (global[i] + local[i] - 1) / local[i] * local[i] : global[i];
    }
    cl_uint num_wait;
    const cl_event *wait;
    cldsa_stream_wait_list(stream, &num_wait, &wait);
    bool want_event = stream->chain || stream->call->event || stream->ctx->profiling;
    cl_event event = NULL;

    pthread_mutex_lock(&kernel->lock);
    cl_int code = CL_SUCCESS;
    int bad = 0;
    for (int i = 0; i < num_args && !code; ++i) {
        code = clSetKernelArg(kernel->kernel, (cl_uint)i, args[i].size, args[i].value);
        bad = i;
    }
    if (code) {
        pthread_mutex_unlock(&kernel->lock);
        return cldsa_fail(code, "%s: argument %d of kernel %s: %s", stream->label, bad, kernel->name,
                          cldsa_status_text(code));
    }
    code = clEnqueueNDRangeKernel(stream->call->queue, kernel->kernel, (cl_uint)dims, NULL, rounded, local, num_wait,
                                  wait, want_event ? &event : NULL);
    pthread_mutex_unlock(&kernel->lock);
    if (code)
        return cldsa_fail(code, "%s: kernel %s could not be enqueued: %s", stream->label, kernel->name,
                          cldsa_status_text(code));
    cldsa_stream_took(stream, kernel->name, event);
    return CLDSA_SUCCESS;
}

/* A call that launched nothing still owes its caller an event that completes after the wait list. */
static cldsa_status empty_call_event(cldsa_stream *stream) {
    const cldsa_call *call = stream->call;
    cl_int code =
        clEnqueueMarkerWithWaitList(call->queue, call->num_wait, call->num_wait ? call->wait : NULL, call->event);
    return code ? cldsa_fail(code, "%s: %s", stream->label, cldsa_status_text(code)) : CLDSA_SUCCESS;
}

cldsa_status cldsa_stream_end(cldsa_stream *stream, cldsa_status status) {
    const cldsa_call *call = stream->call;
    if (status == CLDSA_SUCCESS && call->event) {
        if (stream->last) {
            *call->event = stream->last;
            stream->last = NULL;
        } else {
            status = empty_call_event(stream);
        }
    }
    if (stream->last)
        clReleaseEvent(stream->last);
    stream->last = NULL;
    return status;
}
