/* Mixture of experts: routing, dispatch and combination of rows. Kernels: cl/moe_route.cl, cl/moe_rows.cl. */
#include <cldsa/moe.h>

#include <math.h>
#include <string.h>

#include "host/ops/op.h"
#include "host/ops/philox.h"

enum { N, E, X, D, R, G };
static const char *const moe_dims[] = {"N", "E", "X", "D", "R", "G", NULL};

/* A group keeps all its tokens' choices in local memory; this many per token always fit. */
enum { MAX_CHOICES = 32, MAX_EXPERTS = 256 };

#define F32 CLDSA_ACCEPT_F32
#define I32 CLDSA_ACCEPT(CLDSA_I32)

static bool on_cpu(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->is_cpu;
}

/* ---- moe_route ------------------------------------------------------------------------------------------------ */

static const cldsa_field route_fields[] = {
    CLDSA_IN(cldsa_moe_route_args, logits, "N E", F32, "router logits"),
    CLDSA_OUT(cldsa_moe_route_args, experts, "N X", I32, "the X largest, descending by logit"),
    CLDSA_OUT(cldsa_moe_route_args, weights, "N X", F32, "softmax over the chosen logits"),
    CLDSA_OUT(cldsa_moe_route_args, group_offsets, "G", I32, "first sorted row of each expert; G = E + 1"),
    CLDSA_OUT(cldsa_moe_route_args, position, "N X", I32, "sorted row of each (token, choice)"),
    CLDSA_PARAM(cldsa_moe_route_args, noise_std, FLOAT, 0, 0, 1e30, "standard deviation of the logits' noise"),
    CLDSA_PARAM(cldsa_moe_route_args, seed, U64, 0, 0, 0, "seed of the noise"),
    CLDSA_PARAM(cldsa_moe_route_args, stream, U32, 0, 0, 0, "stream of the noise"),
    {0},
};

static cldsa_status route_check(const cldsa_run *run) {
    const int64_t *d = run->dims;
    if (d[E] > MAX_EXPERTS)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "moe_route: %lld experts; at most %d", (long long)d[E], MAX_EXPERTS);
    if (d[X] > d[E] || d[X] > MAX_CHOICES)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "moe_route: %lld experts per token of %lld; at most all, and %d",
                          (long long)d[X], (long long)d[E], MAX_CHOICES);
    if (d[G] != d[E] + 1)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "moe_route: group_offsets has %lld elements; %lld experts need %lld",
                          (long long)d[G], (long long)d[E], (long long)d[E] + 1);
    if (d[N] * d[X] > INT32_MAX)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "moe_route: %lld rows in all, N * X; below 2^31",
                          (long long)(d[N] * d[X]));
    return CLDSA_SUCCESS;
}

static void route_defaults(const cldsa_run *run, int *tune) {
    (void)tune;
    if (on_cpu(run))
        tune[1] = 1;
}

static bool route_legal(const cldsa_run *run, const int *tune) {
    return tune[0] % tune[1] == 0 && (size_t)tune[1] <= cldsa_context_device_info(run->ctx)->max_work_group_size;
}

static void route_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    int64_t blocks = cldsa_ceil_div(run->dims[N], cldsa_run_tune(run, "BLOCK"));
    *preferred = *minimum = (size_t)(blocks * run->dims[E]) * sizeof(cl_int);
}

static cldsa_status route_enqueue(cldsa_run *run) {
    const cldsa_moe_route_args *a = run->args;
    size_t wg = (size_t)cldsa_run_tune(run, "WG");
    int64_t blocks = cldsa_ceil_div(run->dims[N], cldsa_run_tune(run, "BLOCK"));
    cldsa_tensor count = cldsa_run_scratch(run, 0, CLDSA_I32, blocks * run->dims[E]);

    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DEXPERTS=%d -DCHOICES=%d -DNOISE=%d", (int)run->dims[E], (int)run->dims[X],
                      a->noise_std > 0);
    cldsa_kernel *choose, *place;
    CLDSA_TRY(cldsa_run_kernel(run, "moe_route_choose", options, &choose));
    CLDSA_TRY(cldsa_run_kernel(run, "moe_route_place", options, &place));
    size_t global = (size_t)blocks * wg;
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, choose, 1, &global, &wg, CLDSA_ARG_TENSOR(a->logits),
                            CLDSA_ARG_TENSOR(a->experts), CLDSA_ARG_TENSOR(a->weights), CLDSA_ARG_TENSOR(count),
                            CLDSA_ARG_U32(run->dims[N]), CLDSA_ARG_F32(a->noise_std), CLDSA_ARG_U64(a->seed),
                            CLDSA_ARG_U32(a->stream)));
    return CLDSA_ENQUEUE(&run->stream, place, 1, &global, &wg, CLDSA_ARG_TENSOR(a->experts), CLDSA_ARG_TENSOR(count),
                         CLDSA_ARG_TENSOR(a->group_offsets), CLDSA_ARG_TENSOR(a->position), CLDSA_ARG_U32(run->dims[N]),
                         CLDSA_ARG_U32(blocks));
}

static const cldsa_variant route_any = {
    .name = "any",
    .file = "moe_route.cl",
    .tunables = {{"BLOCK", 128, {64, 128, 256}, "tokens per work-group"},
                 {"WG", 128, {1, 32, 64, 128, 256}, "work-items per work-group; divides BLOCK"}},
    .defaults = route_defaults,
    .legal = route_legal,
    .workspace = route_workspace,
    .enqueue = route_enqueue,
};

/* Expert e comes before expert f for this token. */
static bool comes_before(const double *logits, int64_t e, int64_t f) {
    return logits[e] > logits[f] || (logits[e] == logits[f] && e < f);
}

static void choose_reference(const double *noisy, const int64_t *d, double *experts, double *weights) {
    for (int64_t e = 0; e < d[E]; ++e) {
        int64_t rank = 0;
        for (int64_t f = 0; f < d[E]; ++f)
            rank += comes_before(noisy, f, e);
        if (rank < d[X])
            experts[rank] = (double)e;
    }
    double best = noisy[(int)experts[0]], sum = 0;
    for (int64_t x = 0; x < d[X]; ++x) {
        double v = noisy[(int)experts[x]];
        sum += weights[x] = v == best ? 1 : exp(v - best);
    }
    for (int64_t x = 0; x < d[X]; ++x)
        weights[x] /= sum;
}

static void route_reference(const cldsa_reference_call *call) {
    const cldsa_moe_route_args *a = call->args;
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    double *experts = t[1].data;
    for (int64_t n = 0; n < d[N]; ++n) {
        double noisy[MAX_EXPERTS];
        for (int64_t e = 0; e < d[E]; ++e) {
            int64_t at = n * d[E] + e;
            double v = t[0].data[at];
            if (a->noise_std > 0)
                v += (double)a->noise_std * cldsa_philox_normal((uint64_t)at, a->stream, a->seed);
            noisy[e] = isnan(v) ? -INFINITY : v;
        }
        choose_reference(noisy, d, experts + n * d[X], t[2].data + n * d[X]);
    }
    int64_t row = 0;
    for (int64_t e = 0; e < d[E]; ++e) {
        t[3].data[e] = (double)row;
        for (int64_t i = 0; i < d[N] * d[X]; ++i)
            if ((int64_t)experts[i] == e)
                t[4].data[i] = (double)row++;
    }
    t[3].data[d[E]] = (double)row;
}

static double route_flops(const cldsa_run *run) {
    return (double)run->dims[N] * (double)run->dims[E];
}
static double route_bytes(const cldsa_run *run) {
    return 4.0 * (double)run->dims[N] * (double)(run->dims[E] + 3 * run->dims[X]);
}

static const cldsa_variant *const route_variants[] = {&route_any, NULL};
const cldsa_op cldsa_op_moe_route = {
    .name = "moe_route",
    .summary = "choose experts per token and sort the rows by expert",
    .args_size = sizeof(cldsa_moe_route_args),
    .dims = moe_dims,
    .fields = route_fields,
    .variants = route_variants,
    .check = route_check,
    .reference = route_reference,
    .flops = route_flops,
    .bytes = route_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(moe_route)

/* ---- moe_route_backward --------------------------------------------------------------------------------------- */

static const cldsa_field route_backward_fields[] = {
    CLDSA_IN(cldsa_moe_route_backward_args, experts, "N X", I32, "as the forward call chose"),
    CLDSA_IN(cldsa_moe_route_backward_args, weights, "N X", F32, "as the forward call weighted"),
    {.name = "dweights",
     .kind = CLDSA_FIELD_IN,
     .at = offsetof(cldsa_moe_route_backward_args, dweights),
     .shape = "N X",
     .dtypes = F32,
     .grad = "in.dweights",
     .help = "gradient of weights"},
    CLDSA_OUT(cldsa_moe_route_backward_args, dlogits, "N E", F32, "zero for experts not chosen"),
    {0},
};

static void route_backward_defaults(const cldsa_run *run, int *tune) {
    if (on_cpu(run)) {
        tune[0] = 64;
        tune[1] = MAX_EXPERTS;
        tune[2] = 1;
    }
}

static cldsa_status route_backward_enqueue(cldsa_run *run) {
    const cldsa_moe_route_backward_args *a = run->args;
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DEXPERTS=%d -DCHOICES=%d", (int)run->dims[E], (int)run->dims[X]);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "moe_route_backward", options, &kernel));
    size_t local[2] = {1, (size_t)cldsa_run_tune(run, "LY")};
    size_t global[2] = {(size_t)cldsa_ceil_div(run->dims[E], cldsa_run_tune(run, "COLS")),
                        (size_t)cldsa_ceil_div(run->dims[N], cldsa_run_tune(run, "ROWS"))};
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(a->experts),
                         CLDSA_ARG_TENSOR(a->weights), CLDSA_ARG_TENSOR(a->dweights), CLDSA_ARG_TENSOR(a->dlogits),
                         CLDSA_ARG_U32(run->dims[N]));
}

static const cldsa_variant route_backward_any = {
    .name = "any",
    .file = "moe_route.cl",
    .tunables = {{"ROWS", 1, {1, 4, 16, 64, 256}, "tokens per work-item"},
                 {"COLS", 4, {1, 2, 4, 8, 256}, "experts per work-item"},
                 {"LY", 64, {1, 32, 64, 128, 256}, "work-items per group"}},
    .defaults = route_backward_defaults,
    .enqueue = route_backward_enqueue,
};

static void route_backward_reference(const cldsa_reference_call *call) {
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    for (int64_t i = 0; i < d[N] * d[E]; ++i)
        t[3].data[i] = 0;
    for (int64_t n = 0; n < d[N]; ++n) {
        const double *w = t[1].data + n * d[X], *dw = t[2].data + n * d[X];
        double mean = 0;
        for (int64_t x = 0; x < d[X]; ++x)
            mean += w[x] * dw[x];
        for (int64_t x = 0; x < d[X]; ++x) {
            int64_t e = (int64_t)t[0].data[n * d[X] + x];
            if (e >= 0 && e < d[E])
                t[3].data[n * d[E] + e] = w[x] * (dw[x] - mean);
        }
    }
}

static double route_backward_flops(const cldsa_run *run) {
    return 5.0 * (double)(run->dims[N] * run->dims[X]);
}
static double route_backward_bytes(const cldsa_run *run) {
    return 4.0 * (double)run->dims[N] * (double)(run->dims[E] + 3 * run->dims[X]);
}

static const cldsa_variant *const route_backward_variants[] = {&route_backward_any, NULL};
const cldsa_op cldsa_op_moe_route_backward = {
    .name = "moe_route_backward",
    .summary = "gradient of the router's softmax over the chosen experts",
    .args_size = sizeof(cldsa_moe_route_backward_args),
    .dims = moe_dims,
    .fields = route_backward_fields,
    .variants = route_backward_variants,
    .reference = route_backward_reference,
    .flops = route_backward_flops,
    .bytes = route_backward_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(moe_route_backward)

/* ---- rows between tokens and experts: what the three streaming operations share -------------------------------- */

#define ROWS_TUNABLES                                                                                                  \
    {                                                                                                                  \
        {"VEC", 4, {4, 8, 16}, "floats per load"},                                                                     \
            {"COLS", 4, {4, 8, 16, 1024, 4096}, "columns per work-item, a multiple of VEC"},                           \
            {"ROWS", 1, {1, 2, 4, 8, 16, 64}, "rows per work-item"},                                                   \
            {"LX", 64, {1, 16, 32, 64}, "work-items of a group along the columns"}, {                                  \
            "LY", 4, {1, 2, 4, 8}, "work-items of a group along the rows"                                              \
        }                                                                                                              \
    }

static void rows_defaults(const cldsa_run *run, int *tune) {
    if (on_cpu(run))
        memcpy(tune, (int[]){16, 4096, 16, 1, 1}, 5 * sizeof *tune);
}

static bool rows_legal(const cldsa_run *run, const int *tune) {
    return tune[1] % tune[0] == 0 &&
           (size_t)(tune[3] * tune[4]) <= cldsa_context_device_info(run->ctx)->max_work_group_size;
}

/* Builds `name` and sets the launch shape for `rows` rows of D columns. */
static cldsa_status rows_kernel(cldsa_run *run, const char *name, int64_t rows, bool accumulate, cldsa_kernel **kernel,
                                size_t global[2], size_t local[2]) {
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DCHOICES=%d -DACCUMULATE=%d", (int)(run->dims[X] ? run->dims[X] : 1), accumulate);
    local[0] = (size_t)cldsa_run_tune(run, "LX");
    local[1] = (size_t)cldsa_run_tune(run, "LY");
    global[0] = (size_t)cldsa_ceil_div(run->dims[D], cldsa_run_tune(run, "COLS"));
    global[1] = (size_t)cldsa_ceil_div(rows, cldsa_run_tune(run, "ROWS"));
    return cldsa_run_kernel(run, name, options, kernel);
}

static cldsa_status sorted_rows_check(const cldsa_run *run) {
    const int64_t *d = run->dims;
    if (d[R] != d[N] * d[X])
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: %lld sorted rows; N * X is %lld", run->op->name, (long long)d[R],
                          (long long)(d[N] * d[X]));
    return CLDSA_SUCCESS;
}

/* ---- moe_dispatch --------------------------------------------------------------------------------------------- */

static const cldsa_field dispatch_fields[] = {
    CLDSA_IN(cldsa_moe_dispatch_args, x, "N D", F32, "tokens"),
    CLDSA_IN(cldsa_moe_dispatch_args, position, "N X", I32, "sorted row of each (token, choice), each row once"),
    CLDSA_OUT(cldsa_moe_dispatch_args, rows, "R D", F32, "sorted rows"),
    {0},
};

static cldsa_status dispatch_enqueue(cldsa_run *run) {
    const cldsa_moe_dispatch_args *a = run->args;
    cldsa_kernel *kernel;
    size_t global[2], local[2];
    CLDSA_TRY(rows_kernel(run, "moe_dispatch", run->dims[N], false, &kernel, global, local));
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(a->x), CLDSA_ARG_TENSOR(a->position),
                         CLDSA_ARG_TENSOR(a->rows), CLDSA_ARG_U32(run->dims[N]), CLDSA_ARG_U32(run->dims[D]));
}

static const cldsa_variant dispatch_any = {
    .name = "any",
    .file = "moe_rows.cl",
    .tunables = ROWS_TUNABLES,
    .defaults = rows_defaults,
    .legal = rows_legal,
    .enqueue = dispatch_enqueue,
};

static void dispatch_reference(const cldsa_reference_call *call) {
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    for (int64_t i = 0; i < d[N] * d[X]; ++i)
        memcpy(t[2].data + (int64_t)t[1].data[i] * d[D], t[0].data + i / d[X] * d[D], (size_t)d[D] * sizeof(double));
}

static double no_flops(const cldsa_run *run) {
    (void)run;
    return 0;
}
static double dispatch_bytes(const cldsa_run *run) {
    return 4.0 * (double)run->dims[D] * (double)(run->dims[R] + run->dims[N]) + 4.0 * (double)run->dims[R];
}

static const cldsa_variant *const dispatch_variants[] = {&dispatch_any, NULL};
const cldsa_op cldsa_op_moe_dispatch = {
    .name = "moe_dispatch",
    .summary = "copy tokens to their experts' rows",
    .args_size = sizeof(cldsa_moe_dispatch_args),
    .dims = moe_dims,
    .fields = dispatch_fields,
    .check = sorted_rows_check,
    .variants = dispatch_variants,
    .reference = dispatch_reference,
    .flops = no_flops,
    .bytes = dispatch_bytes,
};
CLDSA_DEFINE_OP(moe_dispatch)

/* ---- moe_dispatch_backward ------------------------------------------------------------------------------------ */

static const cldsa_field dispatch_backward_fields[] = {
    {.name = "drows",
     .kind = CLDSA_FIELD_IN,
     .at = offsetof(cldsa_moe_dispatch_backward_args, drows),
     .shape = "R D",
     .dtypes = F32,
     .grad = "in.drows",
     .help = "gradient of the sorted rows"},
    CLDSA_IN(cldsa_moe_dispatch_backward_args, position, "N X", I32, "sorted row of each (token, choice)"),
    {.name = "dx",
     .kind = CLDSA_FIELD_INOUT,
     .at = offsetof(cldsa_moe_dispatch_backward_args, dx),
     .shape = "N D",
     .dtypes = F32,
     .help = "gradient of the tokens; read only if accumulate"},
    CLDSA_PARAM(cldsa_moe_dispatch_backward_args, accumulate, BOOL, 0, 0, 1, "add to dx"),
    {0},
};

static cldsa_status dispatch_backward_enqueue(cldsa_run *run) {
    const cldsa_moe_dispatch_backward_args *a = run->args;
    cldsa_kernel *kernel;
    size_t global[2], local[2];
    CLDSA_TRY(rows_kernel(run, "moe_dispatch_backward", run->dims[N], a->accumulate, &kernel, global, local));
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(a->drows),
                         CLDSA_ARG_TENSOR(a->position), CLDSA_ARG_TENSOR(a->dx), CLDSA_ARG_U32(run->dims[N]),
                         CLDSA_ARG_U32(run->dims[D]));
}

static const cldsa_variant dispatch_backward_any = {
    .name = "any",
    .file = "moe_rows.cl",
    .tunables = ROWS_TUNABLES,
    .defaults = rows_defaults,
    .legal = rows_legal,
    .enqueue = dispatch_backward_enqueue,
};

static void dispatch_backward_reference(const cldsa_reference_call *call) {
    const cldsa_moe_dispatch_backward_args *a = call->args;
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    for (int64_t i = 0; i < d[N] * d[D]; ++i) {
        double sum = a->accumulate ? t[2].data[i] : 0;
        for (int64_t x = 0; x < d[X]; ++x)
            sum += t[0].data[(int64_t)t[1].data[i / d[D] * d[X] + x] * d[D] + i % d[D]];
        t[2].data[i] = sum;
    }
}

static double dispatch_backward_flops(const cldsa_run *run) {
    return (double)(run->dims[R] * run->dims[D]);
}

static const cldsa_variant *const dispatch_backward_variants[] = {&dispatch_backward_any, NULL};
const cldsa_op cldsa_op_moe_dispatch_backward = {
    .name = "moe_dispatch_backward",
    .summary = "sum the gradients of each token's rows",
    .args_size = sizeof(cldsa_moe_dispatch_backward_args),
    .dims = moe_dims,
    .fields = dispatch_backward_fields,
    .variants = dispatch_backward_variants,
    .check = sorted_rows_check,
    .reference = dispatch_backward_reference,
    .flops = dispatch_backward_flops,
    .bytes = dispatch_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-6,
};
CLDSA_DEFINE_OP(moe_dispatch_backward)

/* ---- moe_combine ---------------------------------------------------------------------------------------------- */

static const cldsa_field combine_fields[] = {
    CLDSA_IN(cldsa_moe_combine_args, rows, "R D", F32, "the experts' outputs, sorted rows"),
    CLDSA_IN(cldsa_moe_combine_args, position, "N X", I32, "sorted row of each (token, choice)"),
    CLDSA_IN(cldsa_moe_combine_args, weights, "N X", F32, "weight of each choice"),
    CLDSA_OUT(cldsa_moe_combine_args, out, "N D", F32, "weighted sums"),
    {0},
};

static cldsa_status combine_enqueue(cldsa_run *run) {
    const cldsa_moe_combine_args *a = run->args;
    cldsa_kernel *kernel;
    size_t global[2], local[2];
    CLDSA_TRY(rows_kernel(run, "moe_combine", run->dims[N], false, &kernel, global, local));
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(a->rows),
                         CLDSA_ARG_TENSOR(a->position), CLDSA_ARG_TENSOR(a->weights), CLDSA_ARG_TENSOR(a->out),
                         CLDSA_ARG_U32(run->dims[N]), CLDSA_ARG_U32(run->dims[D]));
}

static const cldsa_variant combine_any = {
    .name = "any",
    .file = "moe_rows.cl",
    .tunables = ROWS_TUNABLES,
    .defaults = rows_defaults,
    .legal = rows_legal,
    .enqueue = combine_enqueue,
};

static void combine_reference(const cldsa_reference_call *call) {
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    for (int64_t i = 0; i < d[N] * d[D]; ++i) {
        double sum = 0;
        for (int64_t x = 0; x < d[X]; ++x) {
            int64_t at = i / d[D] * d[X] + x;
            sum += t[2].data[at] * t[0].data[(int64_t)t[1].data[at] * d[D] + i % d[D]];
        }
        t[3].data[i] = sum;
    }
}

static double combine_flops(const cldsa_run *run) {
    return 2.0 * (double)(run->dims[R] * run->dims[D]);
}

static const cldsa_variant *const combine_variants[] = {&combine_any, NULL};
const cldsa_op cldsa_op_moe_combine = {
    .name = "moe_combine",
    .summary = "weighted sum of each token's rows",
    .args_size = sizeof(cldsa_moe_combine_args),
    .dims = moe_dims,
    .fields = combine_fields,
    .variants = combine_variants,
    .check = sorted_rows_check,
    .reference = combine_reference,
    .flops = combine_flops,
    .bytes = dispatch_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-6,
};
CLDSA_DEFINE_OP(moe_combine)

/* ---- moe_combine_backward ------------------------------------------------------------------------------------- */

static const cldsa_field combine_backward_fields[] = {
    CLDSA_IN(cldsa_moe_combine_backward_args, rows, "R D", F32, "as given to the forward call"),
    CLDSA_IN(cldsa_moe_combine_backward_args, position, "N X", I32, "as given to the forward call"),
    CLDSA_IN(cldsa_moe_combine_backward_args, weights, "N X", F32, "as given to the forward call"),
    {.name = "dout",
     .kind = CLDSA_FIELD_IN,
     .at = offsetof(cldsa_moe_combine_backward_args, dout),
     .shape = "N D",
     .dtypes = F32,
     .grad = "in.dout",
     .help = "gradient of the sums"},
    CLDSA_OUT(cldsa_moe_combine_backward_args, drows, "R D", F32, "gradient of rows"),
    CLDSA_OUT(cldsa_moe_combine_backward_args, dweights, "N X", F32, "gradient of weights"),
    {0},
};

static void combine_backward_defaults(const cldsa_run *run, int *tune) {
    if (on_cpu(run)) {
        memcpy(tune, (int[]){16, 16, 1}, 3 * sizeof *tune);
        return;
    }
    size_t most = cldsa_context_device_info(run->ctx)->max_work_group_size;
    for (tune[2] = 64; tune[2] < 256 && 2 * (size_t)tune[2] <= most && 4 * tune[0] * tune[2] < run->dims[D];)
        tune[2] *= 2;
}

static cldsa_status combine_backward_enqueue(cldsa_run *run) {
    const cldsa_moe_combine_backward_args *a = run->args;
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DCHOICES=%d", (int)run->dims[X]);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "moe_combine_backward", options, &kernel));
    size_t local = (size_t)cldsa_run_tune(run, "WG");
    size_t global = (size_t)cldsa_ceil_div(run->dims[N], cldsa_run_tune(run, "ROWS")) * local;
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(a->rows),
                         CLDSA_ARG_TENSOR(a->position), CLDSA_ARG_TENSOR(a->weights), CLDSA_ARG_TENSOR(a->dout),
                         CLDSA_ARG_TENSOR(a->drows), CLDSA_ARG_TENSOR(a->dweights), CLDSA_ARG_U32(run->dims[N]),
                         CLDSA_ARG_U32(run->dims[D]));
}

static const cldsa_variant combine_backward_any = {
    .name = "any",
    .file = "moe_rows.cl",
    .tunables = {{"VEC", 4, {4, 8, 16}, "floats per load"},
                 {"ROWS", 1, {1, 2, 4, 16}, "tokens per work-group"},
                 {"WG", 64, {1, 32, 64, 128, 256}, "work-items per work-group, a power of two"}},
    .defaults = combine_backward_defaults,
    .enqueue = combine_backward_enqueue,
};

static void combine_backward_reference(const cldsa_reference_call *call) {
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    for (int64_t i = 0; i < d[N] * d[X]; ++i) {
        int64_t row = (int64_t)t[1].data[i];
        const double *dout = t[3].data + i / d[X] * d[D], *rows = t[0].data + row * d[D];
        double dot = 0;
        for (int64_t c = 0; c < d[D]; ++c) {
            dot += rows[c] * dout[c];
            t[4].data[row * d[D] + c] = t[2].data[i] * dout[c];
        }
        t[5].data[i] = dot;
    }
}

static double combine_backward_flops(const cldsa_run *run) {
    return 3.0 * (double)(run->dims[R] * run->dims[D]);
}
static double combine_backward_bytes(const cldsa_run *run) {
    return 4.0 * (double)run->dims[D] * (double)(2 * run->dims[R] + run->dims[N]) + 12.0 * (double)run->dims[R];
}

static const cldsa_variant *const combine_backward_variants[] = {&combine_backward_any, NULL};
const cldsa_op cldsa_op_moe_combine_backward = {
    .name = "moe_combine_backward",
    .summary = "gradients of the experts' rows and of their weights",
    .args_size = sizeof(cldsa_moe_combine_backward_args),
    .dims = moe_dims,
    .fields = combine_backward_fields,
    .variants = combine_backward_variants,
    .check = sorted_rows_check,
    .reference = combine_backward_reference,
    .flops = combine_backward_flops,
    .bytes = combine_backward_bytes,
    .tolerance_abs = 1e-5,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(moe_combine_backward)
