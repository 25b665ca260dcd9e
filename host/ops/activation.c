/* Elementwise activation with dropout. Kernels: cl/activation.cl. */
#include <cldsa/activation.h>

#include <math.h>
#include <string.h>

#include "host/ops/op.h"
#include "host/ops/philox.h"

#define F32 CLDSA_ACCEPT_F32

/* An element that is dropped with probability 1 would need an infinite scale. */
#define MAX_DROPOUT 0.999

enum { N };
static const char *const activation_dims[] = {"N", NULL};
static const char *const act_names[] = {"none", "relu", "silu", "sigmoid", NULL};

/* What both directions share. */
typedef struct dropout {
    float p;
    uint64_t seed;
    uint32_t stream;
} dropout;

static cldsa_status enqueue(cldsa_run *run, bool gradient, cldsa_act activation, dropout drop, const cldsa_tensor *x,
                            const cldsa_tensor *in, const cldsa_tensor *out) {
    bool vec = strcmp(run->variant->name, "vec") == 0;
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DGRADIENT=%d -DACT=%d -DDROPOUT=%d", gradient, (int)activation, drop.p > 0);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, vec ? "activation_vec" : "activation_simt", options, &kernel));
    size_t local = vec ? 1 : (size_t)cldsa_run_tune(run, "WG");
    /* simt: 16 counters for each block of 64 elements, the last block's included. */
    size_t global =
        (size_t)(vec ? cldsa_ceil_div(run->dims[N], cldsa_run_tune(run, "ITEMS"))
                     : cldsa_ceil_div(cldsa_ceil_div(run->dims[N], 64) * 16, cldsa_run_tune(run, "COUNTERS")));
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(*x), CLDSA_ARG_TENSOR(*in),
                         CLDSA_ARG_TENSOR(*out), CLDSA_ARG_U64(run->dims[N]),
                         CLDSA_ARG_U32(cldsa_dropout_threshold(drop.p)), CLDSA_ARG_F32(1 / (1 - (double)drop.p)),
                         CLDSA_ARG_U32(drop.stream), CLDSA_ARG_U64(drop.seed));
}

/* 0 where the element is dropped, else 1/(1-p). */
static double dropout_factor(dropout drop, int64_t e) {
    if (drop.p <= 0)
        return 1;
    bool keep = cldsa_philox_element((uint64_t)e, drop.stream, drop.seed) >= cldsa_dropout_threshold(drop.p);
    return keep ? 1 / (1 - (double)drop.p) : 0;
}

#define TUNE_ITEMS                                                                                                     \
    { "ITEMS", 4096, {256, 1024, 4096, 16384}, "elements per work-item, a multiple of 64" }
#define TUNE_WG                                                                                                        \
    { "WG", 256, {64, 128, 256}, "work-items per group" }
#define TUNE_COUNTERS                                                                                                  \
    { "COUNTERS", 1, {1, 2, 4}, "of four elements each, per work-item" }

/* Blocks of the generator are 64 elements. */
static bool vec_legal(const cldsa_run *run, const int *tune) {
    (void)run;
    return tune[0] % 64 == 0;
}

/* ---- activation ----------------------------------------------------------------------------------------------- */

static const cldsa_field forward_fields[] = {
    CLDSA_IN(cldsa_activation_args, x, "N*", F32, "any shape"),
    CLDSA_OUT(cldsa_activation_args, y, "N*", F32, "the same shape; may be x itself"),
    CLDSA_PARAM_ENUM(cldsa_activation_args, activation, act_names, "function"),
    CLDSA_PARAM(cldsa_activation_args, dropout_p, FLOAT, 0, 0, MAX_DROPOUT, "probability of dropping an element"),
    CLDSA_PARAM(cldsa_activation_args, dropout_seed, U64, 0, 0, 0, "seed of dropout"),
    CLDSA_PARAM(cldsa_activation_args, dropout_stream, U32, 0, 0, 0, "stream of dropout"),
    {0},
};

static cldsa_status forward_enqueue(cldsa_run *run) {
    const cldsa_activation_args *a = run->args;
    dropout drop = {a->dropout_p, a->dropout_seed, a->dropout_stream};
    return enqueue(run, false, a->activation, drop, &a->x, &a->x, &a->y);
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double activate(cldsa_act activation, double x) {
    switch (activation) {
    case CLDSA_ACT_RELU:
        return x < 0 ? 0 : x;
    case CLDSA_ACT_SILU:
        return x * sigmoid(x);
    case CLDSA_ACT_SIGMOID:
        return sigmoid(x);
    default:
        return x;
    }
}

static void forward_reference(const cldsa_reference_call *call) {
    const cldsa_activation_args *a = call->args;
    dropout drop = {a->dropout_p, a->dropout_seed, a->dropout_stream};
    for (int64_t e = 0; e < call->dims[N]; ++e) {
        double factor = dropout_factor(drop, e);
        call->tensors[1].data[e] = factor > 0 ? factor * activate(a->activation, call->tensors[0].data[e]) : 0;
    }
}

static double forward_flops(const cldsa_run *run) {
    return 8.0 * (double)run->dims[N];
}
static double forward_bytes(const cldsa_run *run) {
    return 8.0 * (double)run->dims[N];
}

static const cldsa_variant forward_vec = {
    .name = "vec", .file = "activation.cl", .tunables = {TUNE_ITEMS}, .legal = vec_legal, .enqueue = forward_enqueue};
static const cldsa_variant forward_simt = {
    .name = "simt", .file = "activation.cl", .tunables = {TUNE_WG, TUNE_COUNTERS}, .enqueue = forward_enqueue};
static const cldsa_variant *const forward_variants[] = {&forward_vec, &forward_simt, NULL};

const cldsa_op cldsa_op_activation = {
    .name = "activation",
    .summary = "elementwise activation with dropout",
    .args_size = sizeof(cldsa_activation_args),
    .dims = activation_dims,
    .fields = forward_fields,
    .variants = forward_variants,
    .choose = cldsa_choose_vec_or_simt,
    .reference = forward_reference,
    .flops = forward_flops,
    .bytes = forward_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(activation)

/* ---- activation_backward -------------------------------------------------------------------------------------- */

static const cldsa_field backward_fields[] = {
    CLDSA_IN(cldsa_activation_backward_args, x, "N*", F32, "the forward call's input"),
    CLDSA_GRAD(cldsa_activation_backward_args, dy, "N*", F32, "in.dy", "gradient of y"),
    CLDSA_OUT(cldsa_activation_backward_args, dx, "N*", F32, "gradient of x; may be dy itself"),
    CLDSA_PARAM_ENUM(cldsa_activation_backward_args, activation, act_names, "function"),
    CLDSA_PARAM(cldsa_activation_backward_args, dropout_p, FLOAT, 0, 0, MAX_DROPOUT, "as in the forward call"),
    CLDSA_PARAM(cldsa_activation_backward_args, dropout_seed, U64, 0, 0, 0, "as in the forward call"),
    CLDSA_PARAM(cldsa_activation_backward_args, dropout_stream, U32, 0, 0, 0, "as in the forward call"),
    {0},
};

static cldsa_status backward_enqueue(cldsa_run *run) {
    const cldsa_activation_backward_args *a = run->args;
    dropout drop = {a->dropout_p, a->dropout_seed, a->dropout_stream};
    return enqueue(run, true, a->activation, drop, &a->x, &a->dy, &a->dx);
}

static double gradient(cldsa_act activation, double x) {
    double s = sigmoid(x);
    switch (activation) {
    case CLDSA_ACT_RELU:
        return x > 0;
    case CLDSA_ACT_SILU:
        return s * (1 + x * (1 - s));
    case CLDSA_ACT_SIGMOID:
        return s * (1 - s);
    default:
        return 1;
    }
}

static void backward_reference(const cldsa_reference_call *call) {
    const cldsa_activation_backward_args *a = call->args;
    const cldsa_host_tensor *t = call->tensors;
    dropout drop = {a->dropout_p, a->dropout_seed, a->dropout_stream};
    for (int64_t e = 0; e < call->dims[N]; ++e)
        t[2].data[e] = dropout_factor(drop, e) * t[1].data[e] * gradient(a->activation, t[0].data[e]);
}

static double backward_flops(const cldsa_run *run) {
    return 10.0 * (double)run->dims[N];
}
static double backward_bytes(const cldsa_run *run) {
    return 12.0 * (double)run->dims[N];
}

static const cldsa_variant backward_vec = {
    .name = "vec", .file = "activation.cl", .tunables = {TUNE_ITEMS}, .legal = vec_legal, .enqueue = backward_enqueue};
static const cldsa_variant backward_simt = {
    .name = "simt", .file = "activation.cl", .tunables = {TUNE_WG, TUNE_COUNTERS}, .enqueue = backward_enqueue};
static const cldsa_variant *const backward_variants[] = {&backward_vec, &backward_simt, NULL};

const cldsa_op cldsa_op_activation_backward = {
    .name = "activation_backward",
    .summary = "gradient of activation",
    .args_size = sizeof(cldsa_activation_backward_args),
    .dims = activation_dims,
    .fields = backward_fields,
    .variants = backward_variants,
    .choose = cldsa_choose_vec_or_simt,
    .reference = backward_reference,
    .flops = backward_flops,
    .bytes = backward_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(activation_backward)
