/* Exact top-k of rows. Kernels: cl/topk_vec.cl, cl/topk_bitonic.cl, cl/topk_radix.cl, common to them cl/topk.clh. */
#include <cldsa/topk.h>

#include <math.h>
#include <stdlib.h>

#include "host/ops/op.h"

typedef cldsa_topk_args args_t;

enum { R, T, K, B };
static const char *const dims[] = {"R", "T", "K", "B", NULL};

enum { SCORES, K_ROWS, KS, KE, INDICES, VALUES, COUNT, MASK };
static const char *const order_names[] = {"index", "score", NULL};

enum { MAX_ROW = 1 << 24 };

static const cldsa_field fields[] = {
    CLDSA_IN(args_t, scores, "R* T", CLDSA_ACCEPT_FLOAT, "what to select from"),
    CLDSA_IN_OPT(args_t, k_rows, "R*|B", CLDSA_ACCEPT_I32, "k of each row, or of each R/B rows"),
    CLDSA_IN_OPT(args_t, ks, "R*", CLDSA_ACCEPT_I32, "first key that takes part"),
    CLDSA_IN_OPT(args_t, ke, "R*", CLDSA_ACCEPT_I32, "end of the keys that take part"),
    CLDSA_OUT_OPT(args_t, indices, "R* K", CLDSA_ACCEPT_I32, "selected keys, -1 in unused places"),
    CLDSA_OUT_OPT(args_t, values, "R* K", CLDSA_ACCEPT_F32, "their scores, -inf in unused places"),
    CLDSA_OUT_OPT(args_t, count, "R*", CLDSA_ACCEPT_I32, "selected keys of each row"),
    CLDSA_OUT_OPT(args_t, mask, "R* #T", CLDSA_ACCEPT_MASK, "1 for each selected key"),
    CLDSA_PARAM(args_t, k, INT, 1, 0, MAX_ROW, "keys per row where k_rows is not given"),
    CLDSA_PARAM_ENUM(args_t, order, order_names, "of indices: ascending, or by descending score"),
    {0},
};

static cldsa_status check(const cldsa_run *run) {
    const args_t *a = run->args;
    const int64_t *d = run->dims;
    if (!a->indices.mem && !a->mask.mem)
        return cldsa_fail(CLDSA_MISSING_TENSOR, "topk: neither indices nor mask has a buffer; one is required");
    if (a->values.mem && !a->indices.mem)
        return cldsa_fail(CLDSA_MISSING_TENSOR, "topk: values are wanted, but indices has no buffer");
    if (d[T] > MAX_ROW || d[R] > INT32_MAX)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "topk: scores has %lld rows of %lld; at most 2^31 - 1 of 2^24 will do",
                          (long long)d[R], (long long)d[T]);
    if (d[K] > MAX_ROW)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "topk: indices has %lld places a row; at most 2^24 will do",
                          (long long)d[K]);
    if (d[B] && d[R] % d[B])
        return cldsa_fail(CLDSA_INVALID_SHAPE, "topk: k_rows has %lld entries; it must be the %lld rows or divide them",
                          (long long)d[B], (long long)d[R]);
    if (!a->k_rows.mem && (a->k < 1 || a->k > d[T]))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "topk: k is %d; it must be 1 to %lld, the length of a row", a->k,
                          (long long)d[T]);
    return CLDSA_SUCCESS;
}

static bool by_score(const cldsa_run *run) {
    const args_t *a = run->args;
    return a->indices.mem && a->order == CLDSA_ORDER_SCORE;
}

/* ---- common to the variants ------------------------------------------------------------------------------------ */

/* The variant's options with those of cl/topk.clh, and `more`. */
static cldsa_status get_kernel(cldsa_run *run, const char *name, const char *more, cldsa_kernel **out) {
    const args_t *a = run->args;
    int mask_bits = !a->mask.mem ? 0 : a->mask.dtype == CLDSA_U8 ? 8 : 1;
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options,
                      "-DS_DTYPE=%s -DHAS_K=%d -DHAS_KS=%d -DHAS_KE=%d -DHAS_INDICES=%d -DHAS_VALUES=%d -DHAS_COUNT=%d "
                      "-DMASK_BITS=%d -DBY_SCORE=%d%s",
                      cldsa_dtype_macro(a->scores.dtype), a->k_rows.mem != NULL, a->ks.mem != NULL, a->ke.mem != NULL,
                      a->indices.mem != NULL, a->values.mem != NULL, a->count.mem != NULL, mask_bits, by_score(run),
                      more);
    return cldsa_run_kernel(run, name, options, out);
}

/* TOPK_ARGS of cl/topk.clh. */
#define TOPK_ARGS(a, d)                                                                                                \
    CLDSA_ARG_TENSOR((a)->scores), CLDSA_ARG_TENSOR((a)->k_rows), CLDSA_ARG_TENSOR((a)->ks),                           \
        CLDSA_ARG_TENSOR((a)->ke), CLDSA_ARG_TENSOR((a)->indices), CLDSA_ARG_TENSOR((a)->values),                      \
        CLDSA_ARG_TENSOR((a)->count), CLDSA_ARG_TENSOR((a)->mask), CLDSA_ARG_U32((d)[R]), CLDSA_ARG_U32((d)[T]),       \
        CLDSA_ARG_U32((d)[K]), CLDSA_ARG_I32((a)->k), CLDSA_ARG_U32((d)[B] ? (d)[R] / (d)[B] : 1)

/* ---- vec: whole rows per work-item ----------------------------------------------------------------------------- */

/* 32-bit words of scratch for one work-item; see the banner of cl/topk_vec.cl. */
static int64_t vec_scratch(const cldsa_run *run) {
    int64_t pairs = by_score(run) ? 4 * run->dims[K] : 0;
    return cldsa_round_up(cldsa_round_up(run->dims[T], 32) + pairs, 64);
}

static void vec_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    int64_t items = (int64_t)cldsa_run_tune(run, "ITEMS") * cldsa_context_device_info(run->ctx)->compute_units;
    int64_t workers = items < run->dims[R] ? items : run->dims[R];
    *minimum = (size_t)vec_scratch(run) * sizeof(cl_uint);
    *preferred = *minimum * (size_t)workers;
}

static cldsa_status vec_enqueue(cldsa_run *run) {
    const args_t *a = run->args;
    size_t preferred, each, local = 1;
    vec_workspace(run, &preferred, &each);
    size_t usable = run->workspace_bytes < preferred ? run->workspace_bytes : preferred, workers = usable / each;
    cldsa_tensor scratch = cldsa_run_scratch(run, 0, CLDSA_U32, (int64_t)(usable / sizeof(cl_uint)));
    cldsa_kernel *kernel;
    CLDSA_TRY(get_kernel(run, "topk_vec", "", &kernel));
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &workers, &local, TOPK_ARGS(a, run->dims), CLDSA_ARG_TENSOR(scratch),
                         CLDSA_ARG_U64(each / sizeof(cl_uint)), CLDSA_ARG_U32(workers));
}

static const cldsa_variant vec = {
    .name = "vec",
    .file = "topk_vec.cl",
    .tunables = {{"ITEMS", 4, {1, 2, 4, 8, 16}, "work-items per compute unit"},
                 {"DENSE", 8192, {2048, 4096, 8192, 16384, 32768}, "shorter rows are not sampled"},
                 {"SAMPLE", 1024, {256, 512, 1024, 2048}, "keys in a sample of a long row"}},
    .workspace = vec_workspace,
    .enqueue = vec_enqueue,
};

/* ---- reference, costs, description ----------------------------------------------------------------------------- */

typedef struct scored {
    double score;
    int64_t index;
} scored;

static int descending(const void *a_, const void *b_) {
    const scored *a = a_, *b = b_;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static int ascending_index(const void *a_, const void *b_) {
    const scored *a = a_, *b = b_;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Writes the n best of row r, which are `best` in the wanted order. */
static void reference_write(const cldsa_reference_call *call, int64_t r, const scored *best, int64_t n) {
    const cldsa_host_tensor *t = call->tensors;
    for (int64_t i = 0; i < call->dims[K]; ++i) {
        if (t[INDICES].data)
            t[INDICES].data[r * call->dims[K] + i] = i < n ? (double)best[i].index : -1;
        if (t[VALUES].data)
            t[VALUES].data[r * call->dims[K] + i] = i < n ? best[i].score : -INFINITY;
    }
    if (t[COUNT].data)
        t[COUNT].data[r] = (double)n;
    if (!t[MASK].data)
        return;
    int64_t pack = t[MASK].dtype == CLDSA_U32 ? 32 : 1, words = cldsa_ceil_div(call->dims[T], pack);
    double *mask = t[MASK].data + r * words;
    for (int64_t i = 0; i < words; ++i)
        mask[i] = 0;
    for (int64_t i = 0; i < n; ++i)
        mask[best[i].index / pack] += (double)(1u << best[i].index % pack);
}

static void reference(const cldsa_reference_call *call) {
    const args_t *a = call->args;
    const cldsa_host_tensor *t = call->tensors;
    const int64_t *d = call->dims;
    scored *row = malloc((size_t)d[T] * sizeof *row);
    if (!row)
        abort();
    for (int64_t r = 0; r < d[R]; ++r) {
        double k = t[K_ROWS].data ? t[K_ROWS].data[d[B] ? r * d[B] / d[R] : r] : a->k;
        int64_t n = 0;
        for (int64_t i = 0; i < d[T]; ++i) {
            double score = t[SCORES].data[r * d[T] + i];
            bool in_range = (!t[KS].data || i >= t[KS].data[r]) && (!t[KE].data || i < t[KE].data[r]);
            if (in_range && score > -INFINITY)
                row[n++] = (scored){score, i};
        }
        qsort(row, (size_t)n, sizeof *row, descending);
        if (t[INDICES].data && k > (double)d[K])
            k = (double)d[K];
        if (k < 0)
            k = 0;
        n = (double)n < k ? n : (int64_t)k;
        if (a->order == CLDSA_ORDER_INDEX)
            qsort(row, (size_t)n, sizeof *row, ascending_index);
        reference_write(call, r, row, n);
    }
    free(row);
}

/* Comparisons, counted as one per score. */
static double flops(const cldsa_run *run) {
    return (double)run->dims[R] * (double)run->dims[T];
}

static double bytes(const cldsa_run *run) {
    const args_t *a = run->args;
    double row = (double)run->dims[T] * (double)cldsa_dtype_size(a->scores.dtype);
    row += 4.0 * (double)run->dims[K] * (a->values.mem ? 2 : 1);
    if (a->mask.mem)
        row += (double)run->dims[T] * (a->mask.dtype == CLDSA_U8 ? 1 : 0.125);
    return row * (double)run->dims[R];
}

static const cldsa_variant *const variants[] = {&vec, NULL};

const cldsa_op cldsa_op_topk = {
    .name = "topk",
    .summary = "exact top-k of rows: indices, values, mask",
    .args_size = sizeof(args_t),
    .dims = dims,
    .fields = fields,
    .variants = variants,
    .check = check,
    .reference = reference,
    .flops = flops,
    .bytes = bytes,
};
CLDSA_DEFINE_OP(topk)
