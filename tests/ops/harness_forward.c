/* A backward operation beside its forward: its gradients against central differences. */
#include "tests/ops/harness_internal.h"

#include "host/ops/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES_PER_TENSOR = 10 };

/* fp64 step: truncation and rounding errors are both about 1e-10. */
static const double STEP = 1e-5, DIFFERENCE_TOLERANCE = 1e-6;

/* sum of out * dout over all outputs that have an upstream gradient; masked scores (-inf) carry none. */
static double loss(const harness_data *data, cldsa_forward_call *call) {
    cldsa_forward_compute(call);
    double sum = 0;
    for (int i = 0; call->op->fields[i].name; ++i) {
        char upstream[HARNESS_TEXT];
        snprintf(upstream, sizeof upstream, "d%s", call->op->fields[i].name);
        int gradient = cldsa_op_field(data->work.op, upstream);
        if (!call->owned[i] || gradient < 0 || !data->work.given[gradient] ||
            data->work.op->fields[gradient].kind != CLDSA_FIELD_IN)
            continue;
        for (int64_t e = 0; e < harness_numel(&call->tensors[i]); ++e)
            if (isfinite(call->tensors[i].data[e]))
                sum += call->tensors[i].data[e] * data->work.tensors[gradient].data[e];
    }
    return sum;
}

/* The forward input whose gradient a backward output is, or -1. */
static int input_of(const harness_data *data, const cldsa_forward_call *call, const char *output) {
    char name[HARNESS_TEXT];
    if (!cldsa_workload_option(data->suite->gradient_of, ' ', output, name)) {
        if (output[0] != 'd')
            return -1;
        snprintf(name, sizeof name, "%s", output + 1);
    }
    int input = cldsa_op_field(call->op, name);
    return input >= 0 && call->op->fields[input].kind == CLDSA_FIELD_IN && call->tensors[input].data ? input : -1;
}

static void check_tensor(harness_data *data, cldsa_forward_call *call, int output, const double *gradient) {
    const char *name = data->work.op->fields[output].name;
    int input = input_of(data, call, name);
    if (input < 0)
        return;
    cldsa_host_tensor *tensor = &call->tensors[input];
    int64_t numel = harness_numel(tensor);
    for (int sample = 0; sample < SAMPLES_PER_TENSOR && sample < numel; ++sample) {
        int64_t e = numel <= SAMPLES_PER_TENSOR ? sample : cldsa_philox_element((uint64_t)sample, 7, 7) % numel;
        if (cldsa_is_untouched(gradient[e]))
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
    memcpy(tensors, data->work.tensors, sizeof tensors);
    for (int i = 0; i < data->work.num_fields; ++i) {
        if (data->work.unrounded[i])
            tensors[i].data = data->work.unrounded[i];
        if (data->work.given[i] && data->work.op->fields[i].kind == CLDSA_FIELD_OUT) {
            tensors[i].data = malloc((size_t)harness_numel(&tensors[i]) * sizeof(double));
            assert_non_null(tensors[i].data);
            cldsa_untouch(tensors[i].data, harness_numel(&tensors[i]));
        }
    }
    data->work.op->reference(&(cldsa_reference_call){data->work.args, data->work.dims, tensors});
    cldsa_forward_call call;
    if (cldsa_forward_begin(&data->work, &call) != CLDSA_SUCCESS)
        fail_msg("case \"%s\": %s", data->test->name, cldsa_error_message());
    for (int i = 0; i < data->work.num_fields; ++i)
        if (data->work.given[i] && data->work.op->fields[i].kind == CLDSA_FIELD_OUT) {
            check_tensor(data, &call, i, tensors[i].data);
            free(tensors[i].data);
        }
    cldsa_forward_end(&call);
}
