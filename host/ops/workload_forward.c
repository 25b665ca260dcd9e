/* The forward call that belongs to a backward workload. */
#include "host/ops/fields.h"
#include "host/ops/workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool wants_gradient(const cldsa_workload *work, const cldsa_field *field) {
    char gradient[CLDSA_WORKLOAD_TEXT];
    snprintf(gradient, sizeof gradient, "d%s", field->name);
    int index = cldsa_op_field(work->op, gradient);
    return index >= 0 && work->given[index];
}

static cldsa_status take_tensor(const cldsa_workload *work, cldsa_forward_call *call, int index) {
    const cldsa_field *field = &call->op->fields[index];
    int same = cldsa_op_field(work->op, field->name);
    bool known = same >= 0 && work->given[same], output = cldsa_field_is_output(field);
    if (!known && field->optional && (output || !wants_gradient(work, field)))
        return CLDSA_SUCCESS;
    cldsa_host_tensor *tensor = &call->tensors[index];
    if (known)
        *tensor = work->tensors[same];
    else
        CLDSA_TRY(cldsa_workload_shape(work, field->shape, tensor));
    if (output || !known) {
        tensor->data = calloc((size_t)cldsa_host_numel(tensor), sizeof(double));
        if (!tensor->data)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for the forward call's %s", field->name);
        call->owned[index] = true;
    }
    cldsa_tensor *view = cldsa_field_tensor(call->args, field);
    if (known) /* buffers too, for a forward call on the device */
        *view = *cldsa_field_tensor(work->args, &work->op->fields[same]);
    view->dtype = tensor->dtype;
    view->rank = tensor->rank;
    memcpy(view->shape, tensor->shape, sizeof view->shape);
    return CLDSA_SUCCESS;
}

static cldsa_status begin(const cldsa_workload *work, cldsa_forward_call *call) {
    call->args = calloc(1, call->op->args_size);
    if (!call->args)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for the arguments of %s", call->op->name);
    cldsa_op_default_args(call->op, call->args);
    for (int i = 0; call->op->fields[i].name; ++i) {
        const cldsa_field *field = &call->op->fields[i];
        int same = cldsa_op_field(work->op, field->name);
        if (cldsa_field_is_tensor(field))
            CLDSA_TRY(take_tensor(work, call, i));
        else if (same >= 0)
            CLDSA_TRY(
                cldsa_field_set(call->op, field, call->args, cldsa_field_get(&work->op->fields[same], work->args)));
    }
    call->run = (cldsa_run){.op = call->op, .args = call->args};
    return cldsa_bind_args(&call->run, false);
}

cldsa_status cldsa_forward_begin(const cldsa_workload *work, cldsa_forward_call *call) {
    *call = (cldsa_forward_call){.op = work->spec.forward};
    cldsa_status status = begin(work, call);
    if (status != CLDSA_SUCCESS) {
        cldsa_forward_end(call);
        return cldsa_fail_prefix(status, "forward");
    }
    return CLDSA_SUCCESS;
}

void cldsa_forward_compute(cldsa_forward_call *call) {
    call->op->reference(&(cldsa_reference_call){call->args, call->run.dims, call->tensors});
}

void cldsa_forward_end(cldsa_forward_call *call) {
    for (int i = 0; i < CLDSA_MAX_FIELDS; ++i)
        if (call->owned[i])
            free(call->tensors[i].data);
    free(call->args);
    *call = (cldsa_forward_call){0};
}
