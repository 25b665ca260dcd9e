/* A backward operation beside its forward: the outputs it reads, and its gradients against central differences. */
#include "tests/ops/harness_internal.h"

#include "host/ops/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES_PER_TENSOR = 10 };

/* fp64 step: truncation and rounding errors are both about 1e-10. */
static const double STEP = 1e-5, DIFFERENCE_TOLERANCE = 1e-6;

typedef struct forward_call {
    const cldsa_op *op;
    void *args;
    cldsa_run run; /* dims */
    cldsa_host_tensor tensors[CLDSA_MAX_FIELDS];
    bool owned[CLDSA_MAX_FIELDS]; /* allocated here */
} forward_call;

static void set_output_shape(const harness_data *data, const cldsa_field *field, cldsa_host_tensor *tensor) {
    char rule[HARNESS_TEXT], *rest = NULL;
    snprintf(rule, sizeof rule, "%.*s", (int)strcspn(field->shape, "|"), field->shape);
    for (char *word = strtok_r(rule, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        bool packed = *word == '#';
        word += packed;
        word[strcspn(word, "*")] = '\0';
        int64_t extent = (int64_t)harness_operand(data, word);
        tensor->shape[tensor->rank++] = packed && tensor->dtype == CLDSA_U32 ? (extent + 31) / 32 : extent;
    }
}

static bool wants_gradient(const harness_data *data, const cldsa_field *field) {
    char gradient[HARNESS_TEXT];
    snprintf(gradient, sizeof gradient, "d%s", field->name);
    int index = harness_field(data->op, gradient);
    return index >= 0 && data->given[index];
}

/*
 * Inputs are shared with the backward's tensors of the same name, outputs are the forward call's own. So are inputs
 * that the backward does not read, because the forward is linear in them: zeros.
 */
static void take_tensor(const harness_data *data, forward_call *call, int index) {
    const cldsa_field *field = &call->op->fields[index];
    int same = harness_field(data->op, field->name);
    bool known = same >= 0 && data->given[same], output = harness_is_output(field);
    if (!known && field->optional && (output || !wants_gradient(data, field)))
        return;
    cldsa_host_tensor *tensor = &call->tensors[index];
    if (known)
        *tensor = data->tensors[same];
    else
        set_output_shape(data, field, tensor);
    if (output || !known) {
        tensor->data = calloc((size_t)harness_numel(tensor), sizeof(double));
        assert_non_null(tensor->data);
        call->owned[index] = true;
    }
    cldsa_tensor *view = cldsa_field_tensor(call->args, field);
    view->dtype = tensor->dtype;
    view->rank = tensor->rank;
    memcpy(view->shape, tensor->shape, sizeof view->shape);
}

static void begin_forward(const harness_data *data, forward_call *call) {
    *call = (forward_call){.op = data->suite->forward, .args = calloc(1, data->suite->forward->args_size)};
    assert_non_null(call->args);
    cldsa_op_default_args(call->op, call->args);
    for (int i = 0; call->op->fields[i].name; ++i) {
        const cldsa_field *field = &call->op->fields[i];
        int same = harness_field(data->op, field->name);
        if (cldsa_field_is_tensor(field))
            take_tensor(data, call, i);
        else if (same >= 0)
            cldsa_field_set(call->op, field, call->args, cldsa_field_get(&data->op->fields[same], data->args));
    }
    call->run = (cldsa_run){.op = call->op, .args = call->args};
    if (cldsa_bind_args(&call->run, false) != CLDSA_SUCCESS)
        fail_msg("case \"%s\": forward: %s", data->test->name, cldsa_error_message());
}

static void compute_forward(forward_call *call) {
    call->op->reference(&(cldsa_reference_call){call->args, call->run.dims, call->tensors});
}

static void end_forward(forward_call *call) {
    for (int i = 0; i < CLDSA_MAX_FIELDS; ++i)
        if (call->owned[i])
            free(call->tensors[i].data);
    free(call->args);
}

void harness_forward_outputs(harness_data *data) {
    forward_call call;
    begin_forward(data, &call);
    compute_forward(&call);
    for (int i = 0; call.op->fields[i].name; ++i) {
        int same = harness_field(data->op, call.op->fields[i].name);
        if (!call.owned[i] || same < 0 || !data->given[same] || !harness_is_input(&data->op->fields[same]))
            continue;
        size_t bytes = (size_t)harness_numel(&call.tensors[i]) * sizeof(double);
        data->unrounded[same] = malloc(bytes);
        assert_non_null(data->unrounded[same]);
        memcpy(data->unrounded[same], call.tensors[i].data, bytes);
        memcpy(data->tensors[same].data, call.tensors[i].data, bytes);
    }
    end_forward(&call);
}

/* sum of out * dout over all outputs that have an upstream gradient; masked scores (-inf) carry none. */
static double loss(const harness_data *data, forward_call *call) {
    compute_forward(call);
    double sum = 0;
    for (int i = 0; call->op->fields[i].name; ++i) {
        char upstream[HARNESS_TEXT];
        snprintf(upstream, sizeof upstream, "d%s", call->op->fields[i].name);
        int gradient = harness_field(data->op, upstream);
        if (!call->owned[i] || gradient < 0 || !data->given[gradient] ||
            data->op->fields[gradient].kind != CLDSA_FIELD_IN)
            continue;
        for (int64_t e = 0; e < harness_numel(&call->tensors[i]); ++e)
            if (isfinite(call->tensors[i].data[e]))
                sum += call->tensors[i].data[e] * data->tensors[gradient].data[e];
    }
    return sum;
}

/* The forward input whose gradient a backward output is, or -1. */
static int input_of(const harness_data *data, const forward_call *call, const char *output) {
    char name[HARNESS_TEXT];
    if (!harness_option(data->suite->gradient_of, ' ', output, name)) {
        if (output[0] != 'd')
            return -1;
        snprintf(name, sizeof name, "%s", output + 1);
    }
    int input = harness_field(call->op, name);
    return input >= 0 && call->op->fields[input].kind == CLDSA_FIELD_IN && call->tensors[input].data ? input : -1;
}

static void check_tensor(harness_data *data, forward_call *call, int output, const double *gradient) {
    const char *name = data->op->fields[output].name;
    int input = input_of(data, call, name);
    if (input < 0)
        return;
    cldsa_host_tensor *tensor = &call->tensors[input];
    int64_t numel = harness_numel(tensor);
    for (int sample = 0; sample < SAMPLES_PER_TENSOR && sample < numel; ++sample) {
        int64_t e = numel <= SAMPLES_PER_TENSOR ? sample : cldsa_philox_element((uint64_t)sample, 7, 7) % numel;
        if (harness_is_untouched(gradient[e]))
            continue;
        double kept = tensor->data[e];
        tensor->data[e] = kept + STEP;
        double above = loss(data, call);
        tensor->data[e] = kept - STEP;
        double below = loss(data, call);
        tensor->data[e] = kept;
        double want = (above - below) / (2 * STEP);
        double allowed = DIFFERENCE_TOLERANCE * (1 + fabs(want)) + 1e-10 * (fabs(above) + fabs(below));
        if (!(fabs(gradient[e] - want) <= allowed)) {
            harness_failed(data, "reference %s[%lld] is %.9g; the difference quotient is %.9g", name, (long long)e,
                           gradient[e], want);
            return;
        }
    }
}

/* The backward reference once more, on forward outputs that were not rounded to storage. */
void harness_check_differences(harness_data *data) {
    cldsa_host_tensor tensors[CLDSA_MAX_FIELDS];
    memcpy(tensors, data->tensors, sizeof tensors);
    for (int i = 0; i < data->num_fields; ++i) {
        if (data->unrounded[i])
            tensors[i].data = data->unrounded[i];
        if (data->given[i] && data->op->fields[i].kind == CLDSA_FIELD_OUT) {
            tensors[i].data = malloc((size_t)harness_numel(&tensors[i]) * sizeof(double));
            assert_non_null(tensors[i].data);
            harness_untouch(tensors[i].data, harness_numel(&tensors[i]));
        }
    }
    data->op->reference(&(cldsa_reference_call){data->args, data->dims, tensors});
    forward_call call;
    begin_forward(data, &call);
    for (int i = 0; i < data->num_fields; ++i)
        if (data->given[i] && data->op->fields[i].kind == CLDSA_FIELD_OUT) {
            check_tensor(data, &call, i, tensors[i].data);
            free(tensors[i].data);
        }
    end_forward(&call);
}
