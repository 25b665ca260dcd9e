/* Deterministic sums: reduce over all elements, column_sum over rows. Kernels: cl/reduce.cl. */
#include <cldsa/reduce.h>

#include <string.h>

#include "host/ops/reduce.h"

#define F32 CLDSA_ACCEPT_F32

static bool is_vec(const cldsa_run *run) {
    return strcmp(run->variant->name, "vec") == 0;
}

/* ---- reduce --------------------------------------------------------------------------------------------------- */

enum { N };
static const char *const reduce_dims[] = {"N", NULL};
static const char *const kind_names[] = {"sum", "sum_squares", NULL};

static const cldsa_field reduce_fields[] = {
    CLDSA_IN(cldsa_reduce_args, x, "N*", F32, "any shape"),
    CLDSA_INOUT(cldsa_reduce_args, y, "1", F32, "the sum; read only if accumulate"),
    CLDSA_PARAM_ENUM(cldsa_reduce_args, kind, kind_names, "what is summed"),
    CLDSA_PARAM(cldsa_reduce_args, scale, FLOAT, 1, -1e30, 1e30, "factor of the sum"),
    CLDSA_PARAM(cldsa_reduce_args, accumulate, BOOL, 0, 0, 1, "add to y instead of overwriting it"),
    {0},
};

static int64_t reduce_pieces(const cldsa_run *run) {
    return cldsa_ceil_div(run->dims[N], cldsa_run_tune(run, "PIECE"));
}

/* Partial sums of the first launch; those of a second one (beyond PIECE^2 elements) lie behind them. */
static void reduce_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    size_t bytes = 0;
    for (int64_t n = reduce_pieces(run); n > 1; n = cldsa_ceil_div(n, cldsa_run_tune(run, "PIECE")))
        bytes += (size_t)n * sizeof(cl_float);
    *preferred = *minimum = bytes;
}

static cldsa_status reduce_enqueue(cldsa_run *run) {
    const cldsa_reduce_args *a = run->args;
    bool vec = is_vec(run);
    const char *name = vec ? "reduce_vec" : "reduce_simt";
    int64_t piece = cldsa_run_tune(run, "PIECE");
    size_t local = vec ? 1 : (size_t)cldsa_run_tune(run, "WG");
    char first_options[CLDSA_OPTIONS_MAX], options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, first_options, "-DSQUARE=%d", a->kind == CLDSA_REDUCE_SUM_SQUARES);
    cldsa_run_options(run, options, "-DSQUARE=0");

    cldsa_tensor x = a->x;
    size_t scratch_at = 0;
    for (int64_t n = run->dims[N], level = 0;; ++level) {
        int64_t pieces = cldsa_ceil_div(n, piece);
        bool last = pieces == 1;
        cldsa_tensor y = last ? a->y : cldsa_run_scratch(run, scratch_at, CLDSA_F32, pieces);
        cldsa_kernel *kernel;
        CLDSA_TRY(cldsa_run_kernel(run, name, level == 0 ? first_options : options, &kernel));
        size_t global = (size_t)pieces * local;
        CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(x), CLDSA_ARG_TENSOR(y),
                                CLDSA_ARG_U64(n), CLDSA_ARG_U64(piece), CLDSA_ARG_F32(last ? a->scale : 1.0f),
                                CLDSA_ARG_I32(last && a->accumulate)));
        if (last)
            return CLDSA_SUCCESS;
        scratch_at += (size_t)pieces * sizeof(cl_float);
        x = y;
        n = pieces;
    }
}

static void reduce_reference(const cldsa_reference_call *call) {
    const cldsa_reduce_args *a = call->args;
    const double *x = call->tensors[0].data;
    double *y = call->tensors[1].data, sum = 0;
    for (int64_t i = 0; i < call->dims[N]; ++i)
        sum += a->kind == CLDSA_REDUCE_SUM_SQUARES ? x[i] * x[i] : x[i];
    y[0] = (double)a->scale * sum + (a->accumulate ? y[0] : 0);
}

static double reduce_flops(const cldsa_run *run) {
    return (double)run->dims[N];
}
static double reduce_bytes(const cldsa_run *run) {
    return 4.0 * (double)run->dims[N];
}

static const cldsa_variant reduce_vec = {
    .name = "vec",
    .file = "reduce.cl",
    .tunables = {{"PIECE", 32768, {8192, 16384, 32768, 65536}, "elements per work-item; so many need one launch"}},
    .workspace = reduce_workspace,
    .enqueue = reduce_enqueue,
};
static const cldsa_variant reduce_simt = {
    .name = "simt",
    .file = "reduce.cl",
    .tunables = {{"WG", 256, {128, 256, 512}, "work-items per group"},
                 {"PIECE", 8192, {4096, 8192, 16384, 32768}, "elements per group; so many need one launch"}},
    .workspace = reduce_workspace,
    .enqueue = reduce_enqueue,
};
static const cldsa_variant *const reduce_variants[] = {&reduce_vec, &reduce_simt, NULL};

const cldsa_op cldsa_op_reduce = {
    .name = "reduce",
    .summary = "sum of all elements, or of their squares",
    .args_size = sizeof(cldsa_reduce_args),
    .dims = reduce_dims,
    .fields = reduce_fields,
    .variants = reduce_variants,
    .choose = cldsa_choose_vec_or_simt,
    .reference = reduce_reference,
    .flops = reduce_flops,
    .bytes = reduce_bytes,
    .tolerance_abs = 1e-4,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(reduce)

/* ---- column_sum ----------------------------------------------------------------------------------------------- */

enum { R, D };
static const char *const column_dims[] = {"R", "D", NULL};

static const cldsa_field column_fields[] = {
    CLDSA_IN(cldsa_column_sum_args, x, "R* D", F32, "rows"),
    CLDSA_OUT(cldsa_column_sum_args, y, "D", F32, "sum over all rows"),
    {0},
};

cldsa_status cldsa_run_sum_rows(cldsa_run *run, const char *options, const cldsa_sum_rows *sum) {
    bool vec = is_vec(run);
    size_t cols = (size_t)cldsa_run_tune(run, "COLS");
    size_t tiles = (size_t)cldsa_ceil_div(sum->columns, (int64_t)cols);
    size_t local[2] = {vec ? 1 : cols * (size_t)cldsa_run_tune(run, "SLICES"), 1};
    size_t global[2] = {tiles * local[0], (size_t)cldsa_ceil_div(sum->rows, sum->per_block)};
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_get_kernel(run->ctx, "reduce.cl", vec ? "sum_rows_vec" : "sum_rows_simt", options, &kernel));
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(sum->x), CLDSA_ARG_TENSOR(sum->y),
                         CLDSA_ARG_TENSOR(sum->second), CLDSA_ARG_U32(sum->rows), CLDSA_ARG_U32(sum->columns),
                         CLDSA_ARG_U32(sum->per_block), CLDSA_ARG_U32(sum->split));
}

/*
 * Some groups per compute unit before groups get longer, since each leaves a row of partial sums. Slices share the few
 * groups that add those up (on an H200 16 instead of 8 gained a tenth of rms_norm_backward at 256 columns).
 */
void cldsa_norm_rows_defaults(const cldsa_run *run, int64_t rows, int *tune) {
    const cldsa_device_info *info = cldsa_context_device_info(run->ctx);
    int64_t groups = (tune[1] < 256 ? 8 : 2) * (int64_t)info->compute_units;
    for (tune[0] = 4; tune[0] < 128 && rows / (2 * tune[0]) >= groups;)
        tune[0] *= 2;
    tune[4] = info->max_work_group_size >= 16 * (size_t)tune[3] ? 16 : 8;
}

/* Blocks of the first launch; one means that it is the only one. */
static int64_t column_blocks(const cldsa_run *run) {
    return cldsa_ceil_div(run->dims[R], cldsa_run_tune(run, "BLOCK"));
}

static void column_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    int64_t blocks = column_blocks(run);
    *preferred = *minimum = blocks > 1 ? (size_t)(blocks * run->dims[D]) * sizeof(cl_float) : 0;
}

static cldsa_status column_enqueue(cldsa_run *run) {
    const cldsa_column_sum_args *a = run->args;
    int64_t blocks = column_blocks(run), d = run->dims[D];
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "%s", "");
    cldsa_sum_rows sum = {.x = a->x, .y = a->y, .rows = run->dims[R], .columns = d, .split = d};
    sum.per_block = sum.rows;
    if (blocks > 1) {
        sum.per_block = cldsa_run_tune(run, "BLOCK");
        sum.y = cldsa_run_scratch(run, 0, CLDSA_F32, blocks * d);
        CLDSA_TRY(cldsa_run_sum_rows(run, options, &sum));
        sum.x = sum.y;
        sum.y = a->y;
        sum.rows = sum.per_block = blocks;
    }
    return cldsa_run_sum_rows(run, options, &sum);
}

static void column_reference(const cldsa_reference_call *call) {
    const double *x = call->tensors[0].data;
    double *y = call->tensors[1].data;
    int64_t dim = call->dims[D];
    for (int64_t d = 0; d < dim; ++d) {
        y[d] = 0;
        for (int64_t r = 0; r < call->dims[R]; ++r)
            y[d] += x[r * dim + d];
    }
}

static double column_flops(const cldsa_run *run) {
    return (double)run->dims[R] * (double)run->dims[D];
}
static double column_bytes(const cldsa_run *run) {
    return 4.0 * (double)(run->dims[R] + 1) * (double)run->dims[D];
}

static const cldsa_variant column_vec = {
    .name = "vec",
    .file = "reduce.cl",
    .tunables = {CLDSA_TUNE_COLS(64),
                 {"BLOCK", 256, {64, 128, 256, 512}, "rows per work-item; so many need one launch"}},
    .workspace = column_workspace,
    .enqueue = column_enqueue,
};
static const cldsa_variant column_simt = {
    .name = "simt",
    .file = "reduce.cl",
    .tunables = {CLDSA_TUNE_COLS(32),
                 CLDSA_TUNE_SLICES,
                 {"BLOCK", 128, {32, 64, 128, 256}, "rows per group; so many need one launch"}},
    .workspace = column_workspace,
    .enqueue = column_enqueue,
};
static const cldsa_variant *const column_variants[] = {&column_vec, &column_simt, NULL};

const cldsa_op cldsa_op_column_sum = {
    .name = "column_sum",
    .summary = "sum over rows, a bias gradient",
    .args_size = sizeof(cldsa_column_sum_args),
    .dims = column_dims,
    .fields = column_fields,
    .variants = column_variants,
    .choose = cldsa_choose_vec_or_simt,
    .reference = column_reference,
    .flops = column_flops,
    .bytes = column_bytes,
    .tolerance_abs = 1e-4,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(column_sum)
