/* AdamW over one flat range of parameters. Kernels: cl/adamw.cl. */
#include <cldsa/adamw.h>

#include <math.h>
#include <string.h>

#include "host/ops/op.h"

#define F32 CLDSA_ACCEPT_F32

enum { P };
static const char *const adamw_dims[] = {"P", NULL};

static const cldsa_field adamw_fields[] = {
    CLDSA_INOUT(cldsa_adamw_args, param, "P", F32, "parameters, updated"),
    CLDSA_IN(cldsa_adamw_args, grad, "P", F32, "their gradient"),
    CLDSA_INOUT(cldsa_adamw_args, m, "P", F32, "first moment, updated"),
    CLDSA_INOUT(cldsa_adamw_args, v, "P", F32, "second moment, updated; not negative"),
    CLDSA_IN_OPT(cldsa_adamw_args, norm2, "1", F32, "squared global norm of the gradient, for clipping"),
    CLDSA_PARAM(cldsa_adamw_args, lr, FLOAT, 1e-3, 0, 1e6, "learning rate"),
    CLDSA_PARAM(cldsa_adamw_args, beta1, FLOAT, 0.9, 0, 0.9999999, "decay of the first moment"),
    CLDSA_PARAM(cldsa_adamw_args, beta2, FLOAT, 0.999, 0, 0.9999999, "decay of the second moment"),
    CLDSA_PARAM(cldsa_adamw_args, eps, FLOAT, 1e-8, 0, 1, "added to the denominator"),
    CLDSA_PARAM(cldsa_adamw_args, weight_decay, FLOAT, 0.01, 0, 1e6, "decoupled from the gradient"),
    CLDSA_PARAM(cldsa_adamw_args, max_norm, FLOAT, 0, 0, 1e30,
                "with norm2: largest norm of the gradient; 0 is no limit"),
    CLDSA_PARAM(cldsa_adamw_args, step, INT, 1, 1, 2147483647, "1 for the first update"),
    {0},
};

/* What depends on the step alone; float would lose 1 - beta2^step at the first steps. */
typedef struct adamw_rates {
    double decay, step_size, v_scale;
} adamw_rates;

static adamw_rates rates_at(const cldsa_adamw_args *a) {
    return (adamw_rates){
        .decay = 1 - (double)a->lr * (double)a->weight_decay,
        .step_size = (double)a->lr / (1 - pow((double)a->beta1, a->step)),
        .v_scale = 1 / sqrt(1 - pow((double)a->beta2, a->step)),
    };
}

static bool clips(const cldsa_adamw_args *a, bool has_norm) {
    return has_norm && a->max_norm > 0;
}

static cldsa_status adamw_enqueue(cldsa_run *run) {
    const cldsa_adamw_args *a = run->args;
    bool vec = strcmp(run->variant->name, "vec") == 0;
    adamw_rates rate = rates_at(a);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DCLIP=%d", clips(a, a->norm2.mem != NULL));
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, vec ? "adamw_vec" : "adamw_simt", options, &kernel));
    size_t local = vec ? 1 : (size_t)cldsa_run_tune(run, "WG");
    size_t global = (size_t)(vec ? cldsa_ceil_div(run->dims[P], cldsa_run_tune(run, "ITEMS")) : run->dims[P]);
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(a->param),
                         CLDSA_ARG_TENSOR(a->grad), CLDSA_ARG_TENSOR(a->m), CLDSA_ARG_TENSOR(a->v),
                         CLDSA_ARG_TENSOR(a->norm2), CLDSA_ARG_U64(run->dims[P]), CLDSA_ARG_F32(rate.decay),
                         CLDSA_ARG_F32(a->beta1), CLDSA_ARG_F32(1 - (double)a->beta1), CLDSA_ARG_F32(a->beta2),
                         CLDSA_ARG_F32(1 - (double)a->beta2), CLDSA_ARG_F32(rate.step_size),
                         CLDSA_ARG_F32(rate.v_scale), CLDSA_ARG_F32(a->eps), CLDSA_ARG_F32(a->max_norm));
}

static void adamw_reference(const cldsa_reference_call *call) {
    const cldsa_adamw_args *a = call->args;
    const cldsa_host_tensor *t = call->tensors;
    double *p = t[0].data, *m = t[2].data, *v = t[3].data, b1 = (double)a->beta1, b2 = (double)a->beta2;
    adamw_rates rate = rates_at(a);
    double factor = 1;
    if (clips(a, t[4].data != NULL) && sqrt(t[4].data[0]) > (double)a->max_norm)
        factor = (double)a->max_norm / sqrt(t[4].data[0]);
    for (int64_t i = 0; i < call->dims[P]; ++i) {
        double g = t[1].data[i] * factor;
        m[i] = b1 * m[i] + (1 - b1) * g;
        v[i] = b2 * v[i] + (1 - b2) * g * g;
        p[i] = p[i] * rate.decay - rate.step_size * m[i] / (sqrt(v[i]) * rate.v_scale + (double)a->eps);
    }
}

static double adamw_flops(const cldsa_run *run) {
    return 14.0 * (double)run->dims[P];
}
static double adamw_bytes(const cldsa_run *run) {
    return 28.0 * (double)run->dims[P];
}

static const cldsa_variant adamw_vec = {
    .name = "vec",
    .file = "adamw.cl",
    .tunables = {{"ITEMS", 4096, {256, 1024, 4096, 16384}, "elements per work-item"}},
    .enqueue = adamw_enqueue,
};
static const cldsa_variant adamw_simt = {
    .name = "simt",
    .file = "adamw.cl",
    .tunables = {{"WG", 256, {64, 128, 256}, "work-items per group"}},
    .enqueue = adamw_enqueue,
};
static const cldsa_variant *const adamw_variants[] = {&adamw_vec, &adamw_simt, NULL};

const cldsa_op cldsa_op_adamw = {
    .name = "adamw",
    .summary = "one AdamW update of a flat range of parameters",
    .args_size = sizeof(cldsa_adamw_args),
    .dims = adamw_dims,
    .fields = adamw_fields,
    .variants = adamw_variants,
    .choose = cldsa_choose_vec_or_simt,
    .reference = adamw_reference,
    .flops = adamw_flops,
    .bytes = adamw_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(adamw)
