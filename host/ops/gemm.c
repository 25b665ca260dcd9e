/* Matrix products. Kernels: cl/gemm_vec.cl (gemm_vec.c), cl/gemm_dot.cl (gemm_dot.c), cl/gemm_simt.cl (gemm_simt.c),
 * cl/gemm_thin.cl (gemm_thin.c), CLBlast (gemm_clblast.c). */
#include "host/ops/gemm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const dim_names[] = {"Z", "M", "N", "K", "E", NULL};
static const char *const layout_names[] = {"nn", "nt", "tn", NULL};
static const char *const activation_names[] = {"none", "relu", "silu", "sigmoid", NULL};

/* Shapes of a, b, c and pre depend on the layout: bind() knows them. */
enum { FIELD_A, FIELD_B, FIELD_C, FIELD_BIAS, FIELD_PRE, FIELD_OFFSETS };
static const cldsa_field fields[] = {
    CLDSA_IN(cldsa_gemm_args, a, NULL, CLDSA_ACCEPT_FLOAT, "[Z,M,K]; tn: [Z,K,M]"),
    CLDSA_IN(cldsa_gemm_args, b, NULL, CLDSA_ACCEPT_FLOAT, "[Z,K,N]; nt: [Z,N,K]; grouped nn and nt: E for Z"),
    CLDSA_INOUT(cldsa_gemm_args, c, NULL, CLDSA_ACCEPT_F32, "[Z,M,N]; grouped tn: [E,M,N]; read if beta is not 0"),
    CLDSA_IN_OPT(cldsa_gemm_args, bias, "N", CLDSA_ACCEPT_F32, "added to every row"),
    CLDSA_OUT_OPT(cldsa_gemm_args, pre, NULL, CLDSA_ACCEPT_F32, "like c: the value before the activation"),
    CLDSA_IN_OPT(cldsa_gemm_args, group_offsets, NULL, CLDSA_ACCEPT_I32, "[E+1], ascending from 0: rows per expert"),
    CLDSA_PARAM_ENUM(cldsa_gemm_args, layout, layout_names, "which operand is transposed"),
    CLDSA_PARAM_ENUM(cldsa_gemm_args, activation, activation_names, "applied last"),
    CLDSA_PARAM(cldsa_gemm_args, alpha, FLOAT, 1, 0, 0, "factor of the product"),
    CLDSA_PARAM(cldsa_gemm_args, beta, FLOAT, 0, 0, 0, "factor of the old c; 0 does not read it"),
    CLDSA_PARAM(cldsa_gemm_args, lda, I64, 0, 0, INT32_MAX, "elements between rows of a; 0: dense"),
    CLDSA_PARAM(cldsa_gemm_args, ldb, I64, 0, 0, INT32_MAX, "elements between rows of b; 0: dense"),
    CLDSA_PARAM(cldsa_gemm_args, ldc, I64, 0, 0, INT32_MAX, "elements between rows of c and pre; 0: dense"),
    CLDSA_PARAM(cldsa_gemm_args, stride_a, I64, 0, 0, 0x1p60, "elements between matrices of a; 0: dense"),
    CLDSA_PARAM(cldsa_gemm_args, stride_b, I64, 0, 0, 0x1p60, "elements between matrices of b; 0: dense"),
    CLDSA_PARAM(cldsa_gemm_args, stride_c, I64, 0, 0, 0x1p60, "elements between matrices of c and pre; 0: dense"),
    {0},
};

/* ---- shapes ---------------------------------------------------------------------------------------------------- */

/* Planning without buffers (no context yet) goes by the shape; a call by the buffer. */
static bool given(const cldsa_run *run, const cldsa_tensor *tensor) {
    return run->ctx ? tensor->mem != NULL : tensor->rank > 0;
}

typedef struct matrix {
    int64_t count, rows, columns;
} matrix;

static cldsa_status as_matrix(const cldsa_tensor *tensor, const char *name, matrix *out) {
    if (tensor->rank != 2 && tensor->rank != 3)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "gemm: %s has rank %d; it must be 2 (rows, columns) or 3 (batch first)",
                          name, tensor->rank);
    const int64_t *shape = tensor->shape + tensor->rank - 2;
    *out = (matrix){tensor->rank == 3 ? tensor->shape[0] : 1, shape[0], shape[1]};
    if (out->rows > INT32_MAX || out->columns > INT32_MAX || out->count > INT32_MAX)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "gemm: %s is [%lld,%lld,%lld]; no extent may exceed %d", name,
                          (long long)out->count, (long long)out->rows, (long long)out->columns, INT32_MAX);
    return CLDSA_SUCCESS;
}

/* `count` 0 accepts 1 or `batch`. */
static cldsa_status must_be(const char *name, const char *layout, matrix is, int64_t count, int64_t batch, int64_t rows,
                            int64_t columns) {
    bool fits = count ? is.count == count : is.count == 1 || is.count == batch;
    if (fits && is.rows == rows && is.columns == columns)
        return CLDSA_SUCCESS;
    return cldsa_fail(CLDSA_INVALID_SHAPE,
                      "gemm: %s is [%lld,%lld,%lld]; layout %s with the other shapes needs "
                      "[%lld,%lld,%lld]",
                      name, (long long)is.count, (long long)is.rows, (long long)is.columns, layout,
                      (long long)(count ? count : batch), (long long)rows, (long long)columns);
}

/* The number of groups, and that the tensors that are not grouped have one matrix. */
static cldsa_status bind_groups(cldsa_run *run, const cldsa_gemm_args *args) {
    const cldsa_tensor *offsets = &args->group_offsets;
    if (offsets->rank != 1 || offsets->shape[0] < 2 || offsets->shape[0] > INT32_MAX)
        return cldsa_fail(CLDSA_INVALID_SHAPE,
                          "gemm: group_offsets has rank %d and %lld elements; it must be [E+1] "
                          "with at least one group",
                          offsets->rank, (long long)offsets->shape[0]);
    run->dims[GEMM_E] = offsets->shape[0] - 1;
    return CLDSA_SUCCESS;
}

static cldsa_status bind(cldsa_run *run) {
    const cldsa_gemm_args *args = run->args;
    matrix a = {0}, b = {0}, c = {0}, pre = {0};
    CLDSA_TRY(as_matrix(&args->a, "a", &a));
    CLDSA_TRY(as_matrix(&args->b, "b", &b));
    CLDSA_TRY(as_matrix(&args->c, "c", &c));
    int64_t bias = run->dims[GEMM_N], *dims = run->dims;
    const char *layout = layout_names[args->layout];
    bool tn = args->layout == CLDSA_GEMM_TN, nt = args->layout == CLDSA_GEMM_NT;
    dims[GEMM_M] = tn ? a.columns : a.rows;
    dims[GEMM_K] = tn ? a.rows : a.columns;
    dims[GEMM_N] = nt ? b.rows : b.columns;
    dims[GEMM_E] = 0;
    int64_t of_a = 0, of_b = 0, of_c = c.count, batch = c.count;
    if (given(run, &args->group_offsets)) {
        CLDSA_TRY(bind_groups(run, args));
        of_a = 1;
        of_b = tn ? 1 : dims[GEMM_E];
        of_c = tn ? dims[GEMM_E] : 1;
        batch = 1;
    }
    dims[GEMM_Z] = batch;
    CLDSA_TRY(must_be("a", layout, a, of_a, batch, a.rows, a.columns));
    CLDSA_TRY(must_be("b", layout, b, of_b, batch, nt ? dims[GEMM_N] : dims[GEMM_K], nt ? dims[GEMM_K] : dims[GEMM_N]));
    CLDSA_TRY(must_be("c", layout, c, of_c, batch, dims[GEMM_M], dims[GEMM_N]));
    if (given(run, &args->pre)) {
        CLDSA_TRY(as_matrix(&args->pre, "pre", &pre));
        CLDSA_TRY(must_be("pre", layout, pre, of_c, batch, dims[GEMM_M], dims[GEMM_N]));
    }
    if (bias && bias != dims[GEMM_N])
        return cldsa_fail(CLDSA_INVALID_SHAPE, "gemm: bias is [%lld]; it must be [%lld]", (long long)bias,
                          (long long)dims[GEMM_N]);
    return CLDSA_SUCCESS;
}

static int64_t batch_of(const cldsa_tensor *tensor) {
    return tensor->rank == 3 ? tensor->shape[0] : 1;
}

static int64_t or_dense(int64_t asked, int64_t dense) {
    return asked ? asked : dense;
}

/* A matrix that the batch shares has stride 0. */
static int64_t matrix_stride(const cldsa_tensor *tensor, int64_t asked, int64_t ld) {
    return batch_of(tensor) == 1 ? 0 : or_dense(asked, tensor->shape[tensor->rank - 2] * ld);
}

gemm_problem gemm_resolve(const cldsa_run *run) {
    const cldsa_gemm_args *args = run->args;
    gemm_problem p = {.args = args,
                      .grouped = run->dims[GEMM_E] > 0,
                      .has_bias = given(run, &args->bias),
                      .has_pre = given(run, &args->pre),
                      .z = run->dims[GEMM_Z],
                      .m = run->dims[GEMM_M],
                      .n = run->dims[GEMM_N],
                      .k = run->dims[GEMM_K]};
    p.matrices = p.grouped ? run->dims[GEMM_E] : p.z;
    p.lda = or_dense(args->lda, args->a.shape[args->a.rank - 1]);
    p.ldb = or_dense(args->ldb, args->b.shape[args->b.rank - 1]);
    p.ldc = or_dense(args->ldc, args->c.shape[args->c.rank - 1]);
    p.stride_a = matrix_stride(&args->a, args->stride_a, p.lda);
    p.stride_b = matrix_stride(&args->b, args->stride_b, p.ldb);
    p.stride_c = matrix_stride(&args->c, args->stride_c, p.ldc);
    return p;
}

/* ---- checks ---------------------------------------------------------------------------------------------------- */

/* The buffer must hold the last element that strides reach. */
static cldsa_status check_reach(const char *name, const cldsa_tensor *tensor, int64_t ld, int64_t stride) {
    int64_t columns = tensor->shape[tensor->rank - 1], rows = tensor->shape[tensor->rank - 2];
    if (ld < columns)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "gemm: the rows of %s are %lld elements apart; they have %lld", name,
                          (long long)ld, (long long)columns);
    size_t bytes = 0;
    cl_int code = clGetMemObjectInfo(tensor->mem, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    if (code)
        return cldsa_fail(code, "gemm: %s is not a valid buffer", name);
    double need = (double)tensor->offset + (double)(batch_of(tensor) - 1) * (double)stride +
                  (double)(rows - 1) * (double)ld + (double)columns;
    if (need > (double)(bytes / cldsa_dtype_size(tensor->dtype)))
        return cldsa_fail(CLDSA_BUFFER_TOO_SMALL,
                          "gemm: %s reaches element %.0f with its strides, its buffer holds %zu", name, need,
                          bytes / cldsa_dtype_size(tensor->dtype));
    return CLDSA_SUCCESS;
}

static cldsa_status check(const cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    const cldsa_gemm_args *args = p.args;
    CLDSA_TRY(check_reach("a", &args->a, p.lda, p.stride_a));
    CLDSA_TRY(check_reach("b", &args->b, p.ldb, p.stride_b));
    CLDSA_TRY(check_reach("c", &args->c, p.ldc, p.stride_c));
    int64_t rows = args->c.shape[args->c.rank - 2];
    if (p.stride_c && p.stride_c < (rows - 1) * p.ldc + p.n)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT,
                          "gemm: matrices of c are %lld elements apart; they overlap below %lld", (long long)p.stride_c,
                          (long long)((rows - 1) * p.ldc + p.n));
    return p.has_pre ? check_reach("pre", &args->pre, p.ldc, p.stride_c) : CLDSA_SUCCESS;
}

/* ---- reference and cost ---------------------------------------------------------------------------------------- */

static double reference_activation(cldsa_act activation, double x) {
    switch (activation) {
    case CLDSA_ACT_RELU:
        return x > 0 || isnan(x) ? x : 0;
    case CLDSA_ACT_SILU:
        return x / (1 + exp(-x));
    case CLDSA_ACT_SIGMOID:
        return 1 / (1 + exp(-x));
    default:
        return x;
    }
}

/* One product: rows [m0,m1) of matrix z of C, summed over k in [k0,k1). */
static void reference_matrix(const cldsa_reference_call *call, const gemm_problem *p, int64_t z, int64_t m0, int64_t m1,
                             int64_t k0, int64_t k1) {
    const cldsa_gemm_args *args = p->args;
    const cldsa_host_tensor *t = call->tensors;
    const double *a = t[FIELD_A].data + z * p->stride_a, *b = t[FIELD_B].data + z * p->stride_b;
    for (int64_t m = m0; m < m1; ++m)
        for (int64_t n = 0; n < p->n; ++n) {
            double sum = 0;
            for (int64_t k = k0; k < k1; ++k)
                sum += (args->layout == CLDSA_GEMM_TN ? a[k * p->lda + m] : a[m * p->lda + k]) *
                       (args->layout == CLDSA_GEMM_NT ? b[n * p->ldb + k] : b[k * p->ldb + n]);
            int64_t at = z * p->stride_c + m * p->ldc + n;
            double x = (double)args->alpha * sum;
            if (args->beta != 0)
                x += (double)args->beta * t[FIELD_C].data[at];
            if (t[FIELD_BIAS].data)
                x += t[FIELD_BIAS].data[n];
            if (t[FIELD_PRE].data)
                t[FIELD_PRE].data[at] = x;
            t[FIELD_C].data[at] = reference_activation(args->activation, x);
        }
}

static void reference(const cldsa_reference_call *call) {
    cldsa_run run = {.args = call->args};
    memcpy(run.dims, call->dims, sizeof run.dims);
    gemm_problem p = gemm_resolve(&run);
    const double *offsets = call->tensors[FIELD_OFFSETS].data;
    for (int64_t z = 0; z < p.matrices; ++z) {
        int64_t low = offsets ? (int64_t)offsets[z] : 0, high = offsets ? (int64_t)offsets[z + 1] : 0;
        if (!offsets)
            reference_matrix(call, &p, z, 0, p.m, 0, p.k);
        else if (p.args->layout == CLDSA_GEMM_TN)
            reference_matrix(call, &p, z, 0, p.m, low, high);
        else
            reference_matrix(call, &p, z, low, high, 0, p.k);
    }
}

/* With groups every row belongs to one (rows behind the last group are not known here). */
static double flops(const cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    return 2.0 * (double)p.z * (double)p.m * (double)p.n * (double)p.k;
}

static double bytes(const cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    const cldsa_gemm_args *args = p.args;
    double c = (double)cldsa_tensor_numel(&args->c) * sizeof(cl_float);
    return (double)cldsa_tensor_numel(&args->a) * (double)cldsa_dtype_size(args->a.dtype) +
           (double)cldsa_tensor_numel(&args->b) * (double)cldsa_dtype_size(args->b.dtype) +
           c * (1 + (args->beta != 0) + p.has_pre);
}

/* ---- what the variants share ----------------------------------------------------------------------------------- */

void gemm_options(const cldsa_run *run, const gemm_problem *p, bool epilogue, char *options, const char *rest) {
    const cldsa_gemm_args *args = p->args;
    cldsa_run_options(run, options,
                      "-DLAYOUT=%d -DA_DTYPE=%s -DB_DTYPE=%s -DGROUPED=%d -DACT=%d -DHAS_BIAS=%d -DHAS_PRE=%d "
                      "-DHAS_BETA=%d %s",
                      (int)args->layout, cldsa_dtype_macro(args->a.dtype), cldsa_dtype_macro(args->b.dtype),
                      (int)p->grouped, epilogue ? (int)args->activation : 0, epilogue && p->has_bias,
                      epilogue && p->has_pre, epilogue && args->beta != 0, rest);
}

cldsa_status gemm_enqueue_epilogue(cldsa_run *run, const gemm_problem *p, cldsa_tensor partial, int parts) {
    const cldsa_gemm_args *args = p->args;
    char options[CLDSA_OPTIONS_MAX];
    snprintf(options, sizeof options, "-DACT=%d -DHAS_BIAS=%d -DHAS_PRE=%d -DHAS_BETA=%d -DPARTS=%d",
             (int)args->activation, p->has_bias, p->has_pre, parts > 0 && args->beta != 0, parts);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_get_kernel(run->ctx, "gemm_epilogue.cl", "gemm_epilogue", options, &kernel));
    int64_t matrices = p->stride_c ? p->matrices : 1;
    const size_t global[2] = {(size_t)p->n, (size_t)(matrices * p->m)}, local[2] = {64, 1};
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(partial), CLDSA_ARG_TENSOR(args->c),
                         CLDSA_ARG_TENSOR(args->bias), CLDSA_ARG_TENSOR(args->pre), CLDSA_ARG_U64(matrices * p->m),
                         CLDSA_ARG_I32(p->m), CLDSA_ARG_I32(p->n), CLDSA_ARG_U64(p->ldc), CLDSA_ARG_U64(p->stride_c),
                         CLDSA_ARG_F32(args->alpha), CLDSA_ARG_F32(args->beta));
}

static const cldsa_variant *const variants[] = {&gemm_vec, &gemm_simt, &gemm_thin, &gemm_clblast, &gemm_dot, NULL};

/*
 * Few rows leave a GPU's tiles mostly empty. A CPU's kernel packs its operands, which few rows or columns do not pay
 * for; but products along less than a vector are not dot products.
 */
static int choose(const cldsa_run *run) {
    enum { VEC, SIMT, THIN, CLBLAST, DOT, FEW_ROWS = 16, FEW_STEPS = 16 };
    if (cldsa_context_capabilities(run->ctx)->is_cpu)
        return run->dims[GEMM_K] >= FEW_STEPS && gemm_dot.can_run(run) ? DOT : VEC;
    return run->dims[GEMM_M] <= FEW_ROWS && gemm_thin.can_run(run) ? THIN : SIMT;
}

const cldsa_op cldsa_op_gemm = {
    .name = "gemm",
    .summary = "Matrix products: plain, batched, grouped; bias and activation",
    .args_size = sizeof(cldsa_gemm_args),
    .dims = dim_names,
    .fields = fields,
    .variants = variants,
    .choose = choose,
    .bind = bind,
    .check = check,
    .reference = reference,
    .flops = flops,
    .bytes = bytes,
    .tolerance_abs = 2e-5,
    .tolerance_rel = 2e-5,
};
CLDSA_DEFINE_OP(gemm)
