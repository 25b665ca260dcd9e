/* RMSNorm of rows' leading columns. Kernels: cl/rms_norm.cl, and cl/reduce.cl for the weight's gradient. */
#include <cldsa/rms_norm.h>

#include <math.h>
#include <string.h>

#include "host/ops/reduce.h"

#define F32 CLDSA_ACCEPT_F32

enum { R, X, D };
static const char *const norm_dims[] = {"R", "X", "D", NULL};

static bool is_vec(const cldsa_run *run) {
    return strcmp(run->variant->name, "vec") == 0;
}

static cldsa_status norm_check(const cldsa_run *run) {
    if (run->dims[X] < run->dims[D])
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: rows of x have %lld elements; weight has %lld, and x needs as many",
                          run->op->name, (long long)run->dims[X], (long long)run->dims[D]);
    return CLDSA_SUCCESS;
}

/* ---- rms_norm ------------------------------------------------------------------------------------------------- */

static const cldsa_field norm_fields[] = {
    CLDSA_IN(cldsa_rms_norm_args, x, "R* X", F32, "rows, of which the first D columns are normalised"),
    CLDSA_IN(cldsa_rms_norm_args, weight, "D", F32, "scale"),
    CLDSA_OUT(cldsa_rms_norm_args, y, "R* D", F32, "normalised rows"),
    CLDSA_OUT_OPT(cldsa_rms_norm_args, rstd, "R*", F32, "of each row"),
    CLDSA_PARAM(cldsa_rms_norm_args, eps, FLOAT, 1e-6, 0, 1, "added to the mean square"),
    {0},
};

static cldsa_status norm_enqueue(cldsa_run *run) {
    const cldsa_rms_norm_args *a = run->args;
    bool vec = is_vec(run);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DHAS_RSTD=%d", a->rstd.mem != NULL);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, vec ? "rms_norm_vec" : "rms_norm_simt", options, &kernel));
    size_t local = vec ? 1 : (size_t)cldsa_run_tune(run, "WG");
    int64_t items = vec ? cldsa_ceil_div(run->dims[R], cldsa_run_tune(run, "ROWS")) : run->dims[R];
    size_t global = (size_t)items * local;
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(a->x), CLDSA_ARG_TENSOR(a->weight),
                         CLDSA_ARG_TENSOR(a->y), CLDSA_ARG_TENSOR(a->rstd), CLDSA_ARG_U32(run->dims[R]),
                         CLDSA_ARG_U32(run->dims[D]), CLDSA_ARG_U32(run->dims[X]), CLDSA_ARG_F32(a->eps));
}

static void norm_reference(const cldsa_reference_call *call) {
    const cldsa_rms_norm_args *a = call->args;
    const cldsa_host_tensor *t = call->tensors;
    int64_t dim = call->dims[D], ld = call->dims[X];
    for (int64_t r = 0; r < call->dims[R]; ++r) {
        const double *x = t[0].data + r * ld;
        double squares = 0;
        for (int64_t d = 0; d < dim; ++d)
            squares += x[d] * x[d] / (double)dim;
        double rstd = 1 / sqrt(squares + (double)a->eps);
        for (int64_t d = 0; d < dim; ++d)
            t[2].data[r * dim + d] = x[d] * rstd * t[1].data[d];
        if (t[3].data)
            t[3].data[r] = rstd;
    }
}

static double norm_flops(const cldsa_run *run) {
    return 4.0 * (double)run->dims[R] * (double)run->dims[D];
}
static double norm_bytes(const cldsa_run *run) {
    return 8.0 * (double)run->dims[R] * (double)run->dims[D];
}

static void simt_defaults(const cldsa_run *run, int *tune) {
    if (run->dims[D] >= 1024)
        tune[0] = 256;
}

static const cldsa_variant norm_vec = {
    .name = "vec",
    .file = "rms_norm.cl",
    .tunables = {{"ROWS", 16, {4, 8, 16, 32, 64}, "rows per work-item"}},
    .enqueue = norm_enqueue,
};
static const cldsa_variant norm_simt = {
    .name = "simt",
    .file = "rms_norm.cl",
    .tunables = {{"WG", 64, {32, 64, 128, 256}, "work-items per row"}},
    .defaults = simt_defaults,
    .enqueue = norm_enqueue,
};
static const cldsa_variant *const norm_variants[] = {&norm_vec, &norm_simt, NULL};

const cldsa_op cldsa_op_rms_norm = {
    .name = "rms_norm",
    .summary = "RMSNorm of the leading columns of rows",
    .args_size = sizeof(cldsa_rms_norm_args),
    .dims = norm_dims,
    .fields = norm_fields,
    .variants = norm_variants,
    .choose = cldsa_choose_vec_or_simt,
    .check = norm_check,
    .reference = norm_reference,
    .flops = norm_flops,
    .bytes = norm_bytes,
    .tolerance_abs = 1e-5,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(rms_norm)

/* ---- rms_norm_backward ---------------------------------------------------------------------------------------- */

static const cldsa_field backward_fields[] = {
    CLDSA_IN(cldsa_rms_norm_backward_args, x, "R* X", F32, "the forward call's input"),
    CLDSA_IN(cldsa_rms_norm_backward_args, weight, "D", F32, "scale"),
    CLDSA_IN(cldsa_rms_norm_backward_args, rstd, "R*", F32, "from the forward call"),
    CLDSA_GRAD(cldsa_rms_norm_backward_args, dy, "R* D", F32, "in.dy", "gradient of y"),
    CLDSA_OUT(cldsa_rms_norm_backward_args, dx, "R* X", F32, "the first D columns of each row are written"),
    CLDSA_OUT(cldsa_rms_norm_backward_args, dweight, "D", F32, "gradient of weight"),
    {0},
};

static int64_t backward_blocks(const cldsa_run *run) {
    return cldsa_ceil_div(run->dims[R], cldsa_run_tune(run, "ROWS"));
}

static void backward_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    *preferred = *minimum = (size_t)(backward_blocks(run) * run->dims[D]) * sizeof(cl_float);
}

static cldsa_status backward_enqueue(cldsa_run *run) {
    const cldsa_rms_norm_backward_args *a = run->args;
    bool vec = is_vec(run);
    int64_t blocks = backward_blocks(run), d = run->dims[D];
    cldsa_tensor partial = cldsa_run_scratch(run, 0, CLDSA_F32, blocks * d);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "%s", "");
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, vec ? "rms_norm_backward_vec" : "rms_norm_backward_simt", options, &kernel));
    size_t local = vec ? 1 : (size_t)cldsa_run_tune(run, "WG"), global = (size_t)blocks * local;
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(a->x),
                            CLDSA_ARG_TENSOR(a->weight), CLDSA_ARG_TENSOR(a->rstd), CLDSA_ARG_TENSOR(a->dy),
                            CLDSA_ARG_TENSOR(a->dx), CLDSA_ARG_TENSOR(partial), CLDSA_ARG_U32(run->dims[R]),
                            CLDSA_ARG_U32(d), CLDSA_ARG_U32(run->dims[X])));
    cldsa_sum_rows sum = {.x = partial, .y = a->dweight, .rows = blocks, .columns = d, .per_block = blocks, .split = d};
    return cldsa_run_sum_rows(run, options, &sum);
}

static void backward_reference(const cldsa_reference_call *call) {
    const cldsa_host_tensor *t = call->tensors;
    int64_t dim = call->dims[D], ld = call->dims[X];
    for (int64_t d = 0; d < dim; ++d)
        t[5].data[d] = 0;
    for (int64_t r = 0; r < call->dims[R]; ++r) {
        const double *x = t[0].data + r * ld, *dy = t[3].data + r * dim;
        double rstd = t[2].data[r], c = 0;
        for (int64_t d = 0; d < dim; ++d) {
            c += dy[d] * t[1].data[d] * x[d] * rstd / (double)dim;
            t[5].data[d] += dy[d] * x[d] * rstd;
        }
        for (int64_t d = 0; d < dim; ++d)
            t[4].data[r * ld + d] = rstd * (dy[d] * t[1].data[d] - x[d] * rstd * c);
    }
}

static double backward_flops(const cldsa_run *run) {
    return 9.0 * (double)run->dims[R] * (double)run->dims[D];
}
static double backward_bytes(const cldsa_run *run) {
    return 12.0 * (double)run->dims[R] * (double)run->dims[D];
}

/* Enough row blocks for every core, few enough that their partial sums cost little. */
static void backward_vec_defaults(const cldsa_run *run, int *tune) {
    int64_t items = 8 * (int64_t)cldsa_context_device_info(run->ctx)->compute_units;
    int64_t rows = cldsa_ceil_div(run->dims[R], items);
    tune[0] = (int)(rows < 8 ? 8 : rows > 128 ? 128 : cldsa_round_up(rows, 8));
}

/* A row's columns in registers where they fit; some groups per compute unit before groups get longer. */
static void backward_simt_defaults(const cldsa_run *run, int *tune) {
    for (tune[1] = 64; tune[1] < 256 && 4 * tune[1] < run->dims[D];)
        tune[1] *= 2;
    for (tune[2] = 1; tune[2] < 16 && tune[1] * tune[2] < run->dims[D];)
        tune[2] *= 2;
    cldsa_norm_rows_defaults(run, run->dims[R], tune);
}

static bool simt_legal(const cldsa_run *run, const int *tune) {
    return (size_t)tune[1] <= cldsa_context_device_info(run->ctx)->max_work_group_size;
}

static const cldsa_variant backward_vec = {
    .name = "vec",
    .file = "rms_norm.cl",
    .tunables = {{"ROWS", 64, {8, 16, 32, 64, 128}, "rows per work-item"}, CLDSA_TUNE_COLS(16)},
    .defaults = backward_vec_defaults,
    .workspace = backward_workspace,
    .enqueue = backward_enqueue,
};
static const cldsa_variant backward_simt = {
    .name = "simt",
    .file = "rms_norm.cl",
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

const cldsa_op cldsa_op_rms_norm_backward = {
    .name = "rms_norm_backward",
    .summary = "gradients of rms_norm",
    .args_size = sizeof(cldsa_rms_norm_backward_args),
    .dims = norm_dims,
    .fields = backward_fields,
    .variants = backward_variants,
    .choose = cldsa_choose_vec_or_simt,
    .check = norm_check,
    .reference = backward_reference,
    .flops = backward_flops,
    .bytes = backward_bytes,
    .tolerance_abs = 2e-5,
    .tolerance_rel = 2e-5,
};
CLDSA_DEFINE_OP(rms_norm_backward)
