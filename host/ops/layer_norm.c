/* LayerNorm, optionally of a residual sum. Kernels: cl/layer_norm.cl, and cl/reduce.cl for the parameters' gradients.
 */
#include <cldsa/layer_norm.h>

#include <math.h>
#include <string.h>

#include "host/ops/reduce.h"

#define F32 CLDSA_ACCEPT_F32

enum { R, D };
static const char *const norm_dims[] = {"R", "D", NULL};

static bool is_vec(const cldsa_run *run) {
    return strcmp(run->variant->name, "vec") == 0;
}

/* ---- layer_norm ----------------------------------------------------------------------------------------------- */

static const cldsa_field norm_fields[] = {
    CLDSA_IN(cldsa_layer_norm_args, x, "R* D", F32, "input"),
    CLDSA_IN_OPT(cldsa_layer_norm_args, residual, "R* D", F32, "added to x first"),
    CLDSA_IN(cldsa_layer_norm_args, weight, "D", F32, "scale"),
    CLDSA_IN(cldsa_layer_norm_args, bias, "D", F32, "shift"),
    CLDSA_OUT_OPT(cldsa_layer_norm_args, sum, "R* D", F32, "x + residual"),
    CLDSA_OUT(cldsa_layer_norm_args, y, "R* D", F32, "normalised rows"),
    CLDSA_OUT_OPT(cldsa_layer_norm_args, mean, "R*", F32, "of each row"),
    CLDSA_OUT_OPT(cldsa_layer_norm_args, rstd, "R*", F32, "of each row"),
    CLDSA_PARAM(cldsa_layer_norm_args, eps, FLOAT, 1e-5, 0, 1, "added to the variance"),
    {0},
};

static cldsa_status norm_enqueue(cldsa_run *run) {
    const cldsa_layer_norm_args *a = run->args;
    bool vec = is_vec(run);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DHAS_RESIDUAL=%d -DHAS_SUM=%d -DHAS_STATS=%d", a->residual.mem != NULL,
                      a->sum.mem != NULL, (a->mean.mem ? 1 : 0) | (a->rstd.mem ? 2 : 0));
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, vec ? "layer_norm_vec" : "layer_norm_simt", options, &kernel));
    size_t local = vec ? 1 : (size_t)cldsa_run_tune(run, "WG");
    size_t global =
        vec ? (size_t)cldsa_ceil_div(run->dims[R], cldsa_run_tune(run, "ROWS")) : (size_t)run->dims[R] * local;
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(a->x),
                         CLDSA_ARG_TENSOR(a->residual), CLDSA_ARG_TENSOR(a->weight), CLDSA_ARG_TENSOR(a->bias),
                         CLDSA_ARG_TENSOR(a->sum), CLDSA_ARG_TENSOR(a->y), CLDSA_ARG_TENSOR(a->mean),
                         CLDSA_ARG_TENSOR(a->rstd), CLDSA_ARG_U32(run->dims[R]), CLDSA_ARG_U32(run->dims[D]),
                         CLDSA_ARG_F32(a->eps));
}

static void norm_reference(const cldsa_reference_call *call) {
    const cldsa_layer_norm_args *a = call->args;
    const cldsa_host_tensor *t = call->tensors;
    int64_t dim = call->dims[D];
    for (int64_t r = 0; r < call->dims[R]; ++r) {
        double *y = t[5].data + r * dim, mean = 0, variance = 0;
        for (int64_t d = 0; d < dim; ++d) {
            y[d] = t[0].data[r * dim + d] + (t[1].data ? t[1].data[r * dim + d] : 0);
            mean += y[d] / (double)dim;
            if (t[4].data)
                t[4].data[r * dim + d] = y[d];
        }
        for (int64_t d = 0; d < dim; ++d)
            variance += (y[d] - mean) * (y[d] - mean) / (double)dim;
        double rstd = 1 / sqrt(variance + (double)a->eps);
        for (int64_t d = 0; d < dim; ++d)
            y[d] = (y[d] - mean) * rstd * t[2].data[d] + t[3].data[d];
        if (t[6].data)
            t[6].data[r] = mean;
        if (t[7].data)
            t[7].data[r] = rstd;
    }
}

static double norm_flops(const cldsa_run *run) {
    return 8.0 * (double)run->dims[R] * (double)run->dims[D];
}
static double norm_bytes(const cldsa_run *run) {
    const cldsa_layer_norm_args *a = run->args;
    int tensors = 2 + (a->residual.mem != NULL) + (a->sum.mem != NULL);
    return 4.0 * tensors * (double)run->dims[R] * (double)run->dims[D];
}

/* A row's columns in registers, up to 8 a lane. */
static void columns_in_registers(const cldsa_run *run, int *wg, int *per_lane) {
    const cldsa_device_info *info = cldsa_context_device_info(run->ctx);
    int most = info->max_work_group_size < 512 ? (int)info->max_work_group_size : 512;
    for (*wg = 64; 2 * *wg <= most && 8 * *wg < run->dims[D];)
        *wg *= 2;
    for (*per_lane = 1; *per_lane < 8 && *wg * *per_lane < run->dims[D];)
        *per_lane *= 2;
}

static void simt_defaults(const cldsa_run *run, int *tune) {
    columns_in_registers(run, &tune[0], &tune[1]);
}

static bool norm_simt_legal(const cldsa_run *run, const int *tune) {
    return (size_t)tune[0] <= cldsa_context_device_info(run->ctx)->max_work_group_size;
}

static const cldsa_variant norm_vec = {
    .name = "vec",
    .file = "layer_norm.cl",
    .tunables = {{"ROWS", 8, {2, 4, 8, 16, 32}, "rows per work-item"}},
    .enqueue = norm_enqueue,
};
static const cldsa_variant norm_simt = {
    .name = "simt",
    .file = "layer_norm.cl",
    .tunables = {{"WG", 64, {32, 64, 128, 256, 512, 1024}, "work-items per row"},
                 {"PER_LANE", 4, {1, 2, 4, 8, 16}, "columns of a row in a work-item's registers"}},
    .defaults = simt_defaults,
    .legal = norm_simt_legal,
    .enqueue = norm_enqueue,
};
static const cldsa_variant *const norm_variants[] = {&norm_vec, &norm_simt, NULL};

const cldsa_op cldsa_op_layer_norm = {
    .name = "layer_norm",
    .summary = "LayerNorm over the last extent, optionally of a residual sum",
    .args_size = sizeof(cldsa_layer_norm_args),
    .dims = norm_dims,
    .fields = norm_fields,
    .variants = norm_variants,
    .choose = cldsa_choose_vec_or_simt,
    .reference = norm_reference,
    .flops = norm_flops,
    .bytes = norm_bytes,
    .tolerance_abs = 1e-5,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(layer_norm)

/* ---- layer_norm_backward -------------------------------------------------------------------------------------- */

static const cldsa_field backward_fields[] = {
    CLDSA_IN(cldsa_layer_norm_backward_args, x, "R* D", F32, "what was normalised: x + residual"),
    CLDSA_IN(cldsa_layer_norm_backward_args, weight, "D", F32, "scale"),
    CLDSA_IN(cldsa_layer_norm_backward_args, mean, "R*", F32, "from the forward call"),
    CLDSA_IN(cldsa_layer_norm_backward_args, rstd, "R*", F32, "from the forward call"),
    CLDSA_GRAD(cldsa_layer_norm_backward_args, dy, "R* D", F32, "in.dy", "gradient of y"),
    {.name = "dresidual",
     .kind = CLDSA_FIELD_IN,
     .at = offsetof(cldsa_layer_norm_backward_args, dresidual),
     .shape = "R* D",
     .dtypes = F32,
     .optional = true,
     .grad = "in.dresidual",
     .help = "gradient that reaches the sum past the norm"},
    CLDSA_OUT(cldsa_layer_norm_backward_args, dx, "R* D", F32, "gradient of the sum"),
    CLDSA_OUT(cldsa_layer_norm_backward_args, dweight, "D", F32, "gradient of weight"),
    CLDSA_OUT(cldsa_layer_norm_backward_args, dbias, "D", F32, "gradient of bias"),
    {0},
};

static int64_t backward_blocks(const cldsa_run *run) {
    return cldsa_ceil_div(run->dims[R], cldsa_run_tune(run, "ROWS"));
}

static void backward_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    *preferred = *minimum = (size_t)(backward_blocks(run) * 2 * run->dims[D]) * sizeof(cl_float);
}

static cldsa_status backward_enqueue(cldsa_run *run) {
    const cldsa_layer_norm_backward_args *a = run->args;
    bool vec = is_vec(run);
    int64_t blocks = backward_blocks(run), d = run->dims[D];
    cldsa_tensor partial = cldsa_run_scratch(run, 0, CLDSA_F32, blocks * 2 * d);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DHAS_RESIDUAL=%d", a->dresidual.mem != NULL);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, vec ? "layer_norm_backward_vec" : "layer_norm_backward_simt", options, &kernel));
    size_t local = vec ? 1 : (size_t)cldsa_run_tune(run, "WG"), global = (size_t)blocks * local;
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(a->x),
                            CLDSA_ARG_TENSOR(a->weight), CLDSA_ARG_TENSOR(a->mean), CLDSA_ARG_TENSOR(a->rstd),
                            CLDSA_ARG_TENSOR(a->dy), CLDSA_ARG_TENSOR(a->dresidual), CLDSA_ARG_TENSOR(a->dx),
                            CLDSA_ARG_TENSOR(partial), CLDSA_ARG_U32(run->dims[R]), CLDSA_ARG_U32(d)));
    cldsa_run_options(run, options, "%s", "");
    return cldsa_run_sum_rows(run, options,
                              &(cldsa_sum_rows){.x = partial,
                                                .y = a->dweight,
                                                .second = a->dbias,
                                                .rows = blocks,
                                                .columns = 2 * d,
                                                .per_block = blocks,
                                                .split = d});
}

static void backward_reference(const cldsa_reference_call *call) {
    const cldsa_host_tensor *t = call->tensors;
    int64_t dim = call->dims[D];
    double *dweight = t[7].data, *dbias = t[8].data;
    for (int64_t d = 0; d < dim; ++d)
        dweight[d] = dbias[d] = 0;
    for (int64_t r = 0; r < call->dims[R]; ++r) {
        const double *x = t[0].data + r * dim, *dy = t[4].data + r * dim;
        double mean = t[2].data[r], rstd = t[3].data[r], c1 = 0, c2 = 0;
        for (int64_t d = 0; d < dim; ++d) {
            double xhat = (x[d] - mean) * rstd, g = dy[d] * t[1].data[d];
            c1 += g / (double)dim;
            c2 += g * xhat / (double)dim;
            dweight[d] += dy[d] * xhat;
            dbias[d] += dy[d];
        }
        for (int64_t d = 0; d < dim; ++d) {
            double xhat = (x[d] - mean) * rstd;
            t[6].data[r * dim + d] =
                (t[5].data ? t[5].data[r * dim + d] : 0) + rstd * (dy[d] * t[1].data[d] - c1 - xhat * c2);
        }
    }
}

static double backward_flops(const cldsa_run *run) {
    return 14.0 * (double)run->dims[R] * (double)run->dims[D];
}
static double backward_bytes(const cldsa_run *run) {
    const cldsa_layer_norm_backward_args *a = run->args;
    return 4.0 * (3 + (a->dresidual.mem != NULL)) * (double)run->dims[R] * (double)run->dims[D];
}

/* Enough row blocks for every core, few enough that their partial sums cost little. */
static void backward_vec_defaults(const cldsa_run *run, int *tune) {
    int64_t items = 8 * (int64_t)cldsa_context_device_info(run->ctx)->compute_units;
    int64_t rows = cldsa_ceil_div(run->dims[R], items);
    tune[0] = (int)(rows < 8 ? 8 : rows > 128 ? 128 : cldsa_round_up(rows, 8));
}

/* A row's columns in registers where they fit: more than 8 a lane spill (five arrays of them; 0.97 against 2.5 TB/s on
 * an H200 at 4096 columns). Then some groups per compute unit, the fewer the larger they are, before groups get longer.
 */
static void backward_simt_defaults(const cldsa_run *run, int *tune) {
    columns_in_registers(run, &tune[1], &tune[2]);
    cldsa_norm_rows_defaults(run, run->dims[R], tune);
}

static bool simt_legal(const cldsa_run *run, const int *tune) {
    return (size_t)tune[1] <= cldsa_context_device_info(run->ctx)->max_work_group_size;
}

static const cldsa_variant backward_vec = {
    .name = "vec",
    .file = "layer_norm.cl",
    .tunables = {{"ROWS", 64, {8, 16, 32, 64, 128}, "rows per work-item"}, CLDSA_TUNE_COLS(16)},
    .defaults = backward_vec_defaults,
    .workspace = backward_workspace,
    .enqueue = backward_enqueue,
};
static const cldsa_variant backward_simt = {
    .name = "simt",
    .file = "layer_norm.cl",
    .tunables = {{"ROWS", 16, {2, 4, 8, 16, 32, 64, 128}, "rows per group"},
                 {"WG", 64, {32, 64, 128, 256, 512}, "work-items per group"},
                 {"PER_LANE", 4, {1, 2, 4, 8, 16}, "columns of a row in a work-item's registers"},
                 CLDSA_TUNE_COLS(32),
                 CLDSA_TUNE_SLICES},
    .defaults = backward_simt_defaults,
    .legal = simt_legal,
    .workspace = backward_workspace,
    .enqueue = backward_enqueue,
};
static const cldsa_variant *const backward_variants[] = {&backward_vec, &backward_simt, NULL};

const cldsa_op cldsa_op_layer_norm_backward = {
    .name = "layer_norm_backward",
    .summary = "gradients of layer_norm, the residual's added",
    .args_size = sizeof(cldsa_layer_norm_backward_args),
    .dims = norm_dims,
    .fields = backward_fields,
    .variants = backward_variants,
    .choose = cldsa_choose_vec_or_simt,
    .reference = backward_reference,
    .flops = backward_flops,
    .bytes = backward_bytes,
    .tolerance_abs = 2e-5,
    .tolerance_rel = 2e-5,
};
CLDSA_DEFINE_OP(layer_norm_backward)
