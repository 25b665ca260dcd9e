/* Softmax cross-entropy per row with its gradient. Kernels: cl/cross_entropy.cl. */
#include <cldsa/cross_entropy.h>

#include <math.h>
#include <string.h>

#include "host/ops/op.h"

#define F32 CLDSA_ACCEPT_F32

enum { N, V };
static const char *const cross_entropy_dims[] = {"N", "V", NULL};

static const cldsa_field cross_entropy_fields[] = {
    CLDSA_IN(cldsa_cross_entropy_args, logits, "N* V", F32, "scores of the classes"),
    CLDSA_IN(cldsa_cross_entropy_args, labels, "N*", CLDSA_ACCEPT_I32,
             "right class; outside 0 .. V-1 the row is not scored"),
    CLDSA_OUT(cldsa_cross_entropy_args, row_loss, "N*", F32, "negative log-probability of the label"),
    CLDSA_OUT_OPT(cldsa_cross_entropy_args, row_correct, "N*", F32, "1 if the label's logit is the largest"),
    CLDSA_OUT_OPT(cldsa_cross_entropy_args, dlogits, "N* V", F32, "gradient; may be logits itself"),
    CLDSA_PARAM(cldsa_cross_entropy_args, grad_scale, FLOAT, 1, -1e30, 1e30, "factor of the gradient"),
    {0},
};

static cldsa_status cross_entropy_enqueue(cldsa_run *run) {
    const cldsa_cross_entropy_args *a = run->args;
    bool vec = strcmp(run->variant->name, "vec") == 0;
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DHAS_CORRECT=%d -DHAS_GRADIENT=%d", a->row_correct.mem != NULL,
                      a->dlogits.mem != NULL);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, vec ? "cross_entropy_vec" : "cross_entropy_simt", options, &kernel));
    size_t local = vec ? 1 : (size_t)cldsa_run_tune(run, "WG");
    int64_t items = vec ? cldsa_ceil_div(run->dims[N], cldsa_run_tune(run, "ROWS")) : run->dims[N];
    size_t global = (size_t)items * local;
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(a->logits),
                         CLDSA_ARG_TENSOR(a->labels), CLDSA_ARG_TENSOR(a->row_loss), CLDSA_ARG_TENSOR(a->row_correct),
                         CLDSA_ARG_TENSOR(a->dlogits), CLDSA_ARG_U32(run->dims[N]), CLDSA_ARG_U32(run->dims[V]),
                         CLDSA_ARG_F32(a->grad_scale));
}

static void reference_row(const double *x, int64_t classes, int64_t label, double *loss, bool *correct,
                          double *probability) {
    double best = -INFINITY, sum = 0;
    for (int64_t j = 0; j < classes; ++j)
        if (x[j] > best)
            best = x[j];
    for (int64_t j = 0; j < classes; ++j)
        sum += exp(x[j] - best);
    *loss = log(sum) + best - x[label];
    *correct = x[label] == best;
    for (int64_t j = 0; j < label; ++j)
        *correct = *correct && x[j] != best;
    for (int64_t j = 0; probability && j < classes; ++j)
        probability[j] = exp(x[j] - best) / sum;
}

static void cross_entropy_reference(const cldsa_reference_call *call) {
    const cldsa_cross_entropy_args *a = call->args;
    const cldsa_host_tensor *t = call->tensors;
    int64_t classes = call->dims[V];
    for (int64_t n = 0; n < call->dims[N]; ++n) {
        double loss = 0, *gradient = t[4].data ? t[4].data + n * classes : NULL;
        bool correct = false, scored = t[1].data[n] >= 0 && t[1].data[n] < (double)classes;
        int64_t label = scored ? (int64_t)t[1].data[n] : 0;
        if (scored)
            reference_row(t[0].data + n * classes, classes, label, &loss, &correct, gradient);
        for (int64_t j = 0; gradient && j < classes; ++j)
            gradient[j] = scored ? (double)a->grad_scale * (gradient[j] - (j == label)) : 0;
        t[2].data[n] = loss;
        if (t[3].data)
            t[3].data[n] = correct;
    }
}

static double cross_entropy_flops(const cldsa_run *run) {
    return 12.0 * (double)run->dims[N] * (double)run->dims[V];
}
static double cross_entropy_bytes(const cldsa_run *run) {
    const cldsa_cross_entropy_args *a = run->args;
    return (a->dlogits.mem ? 8.0 : 4.0) * (double)run->dims[N] * (double)run->dims[V];
}

/* Long rows by large groups: what a row has too much for the registers is read twice. */
static void simt_defaults(const cldsa_run *run, int *tune) {
    size_t most = cldsa_context_device_info(run->ctx)->max_work_group_size;
    int64_t classes = run->dims[V];
    tune[0] = classes <= 256 ? 64 : classes <= 8192 || most < 512 ? 256 : 512;
    for (tune[1] = 4; tune[1] < 32 && (int64_t)tune[0] * tune[1] < classes;)
        tune[1] *= 2;
}

static bool simt_legal(const cldsa_run *run, const int *tune) {
    return (size_t)tune[0] <= cldsa_context_device_info(run->ctx)->max_work_group_size;
}

static const cldsa_variant cross_entropy_vec = {
    .name = "vec",
    .file = "cross_entropy.cl",
    .tunables = {{"ROWS", 4, {1, 2, 4, 8, 16}, "rows per work-item"}},
    .enqueue = cross_entropy_enqueue,
};
static const cldsa_variant cross_entropy_simt = {
    .name = "simt",
    .file = "cross_entropy.cl",
    .tunables = {{"WG", 256, {64, 128, 256, 512, 1024}, "work-items per row"},
                 {"PER_LANE", 4, {4, 8, 16, 32}, "of a row's classes in a work-item's registers"}},
    .defaults = simt_defaults,
    .legal = simt_legal,
    .enqueue = cross_entropy_enqueue,
};
static const cldsa_variant *const cross_entropy_variants[] = {&cross_entropy_vec, &cross_entropy_simt, NULL};

const cldsa_op cldsa_op_cross_entropy = {
    .name = "cross_entropy",
    .summary = "softmax cross-entropy per row, with its gradient",
    .args_size = sizeof(cldsa_cross_entropy_args),
    .dims = cross_entropy_dims,
    .fields = cross_entropy_fields,
    .variants = cross_entropy_variants,
    .choose = cldsa_choose_vec_or_simt,
    .reference = cross_entropy_reference,
    .flops = cross_entropy_flops,
    .bytes = cross_entropy_bytes,
    .tolerance_abs = 1e-5,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(cross_entropy)
