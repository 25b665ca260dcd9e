/* Exact top-k of rows. Kernels: cl/topk_vec.cl, cl/topk_bitonic.cl, cl/topk_radix.cl and cl/topk_sort.cl,
 * common to them cl/topk.clh. */
#include <cldsa/topk.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/ops/op.h"

typedef cldsa_topk_args args_t;

enum { R, T, K, B };
static const char *const dims[] = {"R", "T", "K", "B", NULL};

enum { SCORES, K_ROWS, KS, KE, INDICES, VALUES, COUNT, MASK };
static const char *const order_names[] = {"index", "score", NULL};

enum { MAX_ROW = 1 << 24 };

enum { MAX_BITONIC = 4096 };  /* longest row of the bitonic variant; log^2 steps beyond are no use */
enum { BITONIC_BEST = 1024 }; /* up to here it is the faster one */
enum { RADIX_BINS = 2048 };   /* BINS of cl/topk_radix.cl */
enum { SHORT_ROW = 4096 };    /* SHORT of the same */
enum { MAX_SLAB = 32768 };    /* rows of a launch's second dimension */
enum { GROUPS_EACH = 3 };     /* radix: groups per compute unit below which none takes several rows */

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

/* The same of cl/topk_sort.cl. */
static cldsa_status get_sort_kernel(cldsa_run *run, const char *name, bool last, cldsa_kernel **out) {
    const args_t *a = run->args;
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DS_DTYPE=%s -DHAS_VALUES=%d -DLAST=%d", cldsa_dtype_macro(a->scores.dtype),
                      a->values.mem != NULL, last);
    return cldsa_get_kernel(run->ctx, "topk_sort.cl", name, options, out);
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
                 {"SAMPLE", 1024, {256, 512, 1024, 2048}, "keys in a sample of a long row"},
                 {"EVEN_STEPS", 12, {1, 6, 12}, "steps of a search that take scores as evenly spread"}},
    .workspace = vec_workspace,
    .enqueue = vec_enqueue,
};

/* ---- bitonic: a group sorts short rows ------------------------------------------------------------------------- */

/* Pairs per row: T as a power of two, and whole words of the bit set. */
static int64_t bitonic_pairs(const cldsa_run *run) {
    int64_t pairs = 32;
    while (pairs < run->dims[T])
        pairs *= 2;
    return pairs;
}

static int64_t bitonic_rows(const cldsa_run *run, const int *tune) {
    int64_t rows = 2 * tune[0] / bitonic_pairs(run);
    return rows > 1 ? rows : 1;
}

static bool bitonic_legal(const cldsa_run *run, const int *tune) {
    int64_t pairs = bitonic_pairs(run) * bitonic_rows(run, tune);
    size_t bytes = (size_t)pairs * sizeof(cl_ulong) + (size_t)pairs / 32 * 2 * sizeof(cl_uint);
    return bytes <= cldsa_context_capabilities(run->ctx)->local_mem_bytes &&
           (size_t)tune[0] <= cldsa_context_device_info(run->ctx)->max_work_group_size;
}

static bool bitonic_can_run(const cldsa_run *run) {
    return bitonic_pairs(run) <= MAX_BITONIC && bitonic_legal(run, (const int[]){64});
}

static void bitonic_defaults(const cldsa_run *run, int *tune) {
    int64_t half = bitonic_pairs(run) / 2;
    tune[0] = half < 128 ? 128 : half > 512 ? 512 : (int)half;
    while (tune[0] > 64 && !bitonic_legal(run, tune))
        tune[0] /= 2;
}

static cldsa_status bitonic_enqueue(cldsa_run *run) {
    const args_t *a = run->args;
    char more[32];
    snprintf(more, sizeof more, " -DN=%d", (int)bitonic_pairs(run));
    cldsa_kernel *kernel;
    CLDSA_TRY(get_kernel(run, "topk_bitonic", more, &kernel));
    size_t local = (size_t)run->tune[0];
    size_t global = (size_t)cldsa_ceil_div(run->dims[R], bitonic_rows(run, run->tune)) * local;
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, TOPK_ARGS(a, run->dims));
}

static const cldsa_variant bitonic = {
    .name = "bitonic",
    .file = "topk_bitonic.cl",
    .tunables = {{"WG", 128, {64, 128, 256, 512}, "work-items per group"}},
    .can_run = bitonic_can_run,
    .defaults = bitonic_defaults,
    .legal = bitonic_legal,
    .enqueue = bitonic_enqueue,
};

/* ---- radix: a group for a few rows, one by one, and a sort where scores give the order -------------------------- */

/* Local memory of topk_radix (shared_t) with these tunables. */
static size_t radix_local_bytes(int wg, int candidates) {
    return sizeof(cl_uint) * (size_t)(2 * candidates + RADIX_BINS + wg + 3 * (wg / 32) + 16);
}

static bool radix_legal(const cldsa_run *run, const int *tune) {
    const cldsa_device_info *info = cldsa_context_device_info(run->ctx);
    size_t local = cldsa_context_capabilities(run->ctx)->local_mem_bytes;
    size_t sort_bytes = (size_t)tune[4] * sizeof(cl_ulong);
    return 2 * tune[0] <= RADIX_BINS && 4 * tune[0] <= tune[1] && 2 * tune[3] <= tune[4] &&
           (size_t)tune[0] <= info->max_work_group_size && (size_t)tune[3] <= info->max_work_group_size &&
           radix_local_bytes(tune[0], tune[1]) <= local && sort_bytes <= local;
}

static const int radix_least[] = {64, 512, 1, 64, 512, 1};

static bool radix_can_run(const cldsa_run *run) {
    return radix_legal(run, radix_least);
}

/* A group that has seen a row needs no sample of the next, so it takes as many as leave enough groups. Short rows take
 * no sample and collect no candidates: small groups with little local memory. A few long rows that have the device for
 * themselves are read by larger groups, which take larger samples (on an H200 one row of 131072 in 0.030 instead of
 * 0.064 ms, 16 of 65536 in 0.025 instead of 0.053). */
enum { LONG_ROW = 32768 };

static void radix_defaults(const cldsa_run *run, int *tune) {
    int64_t units = cldsa_context_device_info(run->ctx)->compute_units;
    if (run->dims[T] <= SHORT_ROW) {
        tune[0] = 256;
        tune[1] = 1024;
        tune[5] = 1;
    }
    while (tune[5] > 1 && run->dims[R] < GROUPS_EACH * units * tune[5])
        tune[5] /= 2;
    if (run->dims[T] > LONG_ROW && run->dims[R] <= units) {
        tune[0] *= 2;
        tune[2] *= 2;
    }
    while (!radix_legal(run, tune) && tune[1] > radix_least[1])
        for (int i = 0; i < 5; ++i)
            tune[i] = tune[i] / 2 > radix_least[i] ? tune[i] / 2 : radix_least[i];
}

static bool needs_runs(const cldsa_run *run) {
    return by_score(run) && run->dims[K] > cldsa_run_tune(run, "CHUNK");
}

/* Two lists of pairs for as many rows at a time as there is room for. */
static void radix_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    *minimum = needs_runs(run) ? (size_t)run->dims[K] * 2 * sizeof(cl_ulong) : 0;
    *preferred = *minimum * (size_t)run->dims[R];
}

/* Scratch as 64-bit pairs, which no dtype names: offset and size count pairs. */
static cldsa_tensor pairs_at(const cldsa_run *run, int64_t at, int64_t n) {
    cldsa_tensor pairs = cldsa_run_scratch(run, (size_t)at * sizeof(cl_ulong), CLDSA_U32, 2 * n);
    pairs.offset /= 2;
    return pairs;
}

/* Merges sorted chunks of `rows` rows from `first`; the last merge writes the results. */
static cldsa_status merge_runs(cldsa_run *run, cl_uint first, int64_t rows, cldsa_tensor from, cldsa_tensor to) {
    const args_t *a = run->args;
    size_t global[2] = {(size_t)run->dims[K], (size_t)rows};
    for (int64_t length = cldsa_run_tune(run, "CHUNK"); length < run->dims[K]; length *= 2) {
        cldsa_kernel *merge;
        bool last = 2 * length >= run->dims[K];
        CLDSA_TRY(get_sort_kernel(run, "topk_merge", last, &merge));
        CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, merge, 2, global, NULL, CLDSA_ARG_TENSOR(a->scores),
                                CLDSA_ARG_TENSOR(a->indices), CLDSA_ARG_TENSOR(a->values), CLDSA_ARG_TENSOR(from),
                                CLDSA_ARG_TENSOR(to), CLDSA_ARG_U32(run->dims[T]), CLDSA_ARG_U32(run->dims[K]),
                                CLDSA_ARG_U32(first), CLDSA_ARG_U32(length)));
        cldsa_tensor swap = from;
        from = to;
        to = swap;
    }
    return CLDSA_SUCCESS;
}

static cldsa_status sort_selection(cldsa_run *run) {
    const args_t *a = run->args;
    const int64_t *d = run->dims;
    int64_t chunks = cldsa_ceil_div(d[K], cldsa_run_tune(run, "CHUNK")), slab = d[R] < MAX_SLAB ? d[R] : MAX_SLAB;
    cldsa_tensor lists[2] = {{0}};
    if (needs_runs(run)) {
        int64_t room = (int64_t)(run->workspace_bytes / ((size_t)d[K] * 2 * sizeof(cl_ulong)));
        slab = room < slab ? room : slab;
        for (int i = 0; i < 2; ++i)
            lists[i] = pairs_at(run, i * slab * d[K], slab * d[K]);
    }
    size_t local[2] = {(size_t)cldsa_run_tune(run, "SORT_WG"), 1};
    for (int64_t first = 0; first < d[R]; first += slab) {
        int64_t rows = d[R] - first < slab ? d[R] - first : slab;
        size_t global[2] = {(size_t)chunks * local[0], (size_t)rows};
        cldsa_kernel *sort;
        CLDSA_TRY(get_sort_kernel(run, "topk_sort_chunks", chunks == 1, &sort));
        CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, sort, 2, global, local, CLDSA_ARG_TENSOR(a->scores),
                                CLDSA_ARG_TENSOR(a->indices), CLDSA_ARG_TENSOR(a->values), CLDSA_ARG_TENSOR(lists[0]),
                                CLDSA_ARG_U32(d[T]), CLDSA_ARG_U32(d[K]), CLDSA_ARG_U32(first)));
        CLDSA_TRY(merge_runs(run, (cl_uint)first, rows, lists[0], lists[1]));
    }
    return CLDSA_SUCCESS;
}

static cldsa_status radix_enqueue(cldsa_run *run) {
    const args_t *a = run->args;
    bool aligned = a->scores.dtype == CLDSA_F32 && a->scores.offset % 4 == 0 && run->dims[T] % 4 == 0;
    cldsa_kernel *kernel;
    CLDSA_TRY(get_kernel(run, "topk_radix", aligned ? " -DALIGNED=1" : "", &kernel));
    size_t local = (size_t)cldsa_run_tune(run, "WG"),
           global = (size_t)cldsa_ceil_div(run->dims[R], cldsa_run_tune(run, "ROWS")) * local;
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, TOPK_ARGS(a, run->dims)));
    return by_score(run) ? sort_selection(run) : CLDSA_SUCCESS;
}

static const cldsa_variant radix = {
    .name = "radix",
    .file = "topk_radix.cl",
    .tunables = {{"WG", 512, {128, 256, 512, 1024}, "work-items per row"},
                 {"CANDIDATES", 4096, {1024, 2048, 4096, 8192}, "keys that local memory takes"},
                 {"UNROLL", 1, {1, 2, 4}, "loads of four keys in flight"},
                 {"SORT_WG", 512, {128, 256, 512, 1024}, "work-items per chunk of the sort"},
                 {"CHUNK", 2048, {1024, 2048, 4096}, "pairs sorted in local memory"},
                 {"ROWS", 8, {1, 2, 4, 8, 16}, "rows per group, one after the other"}},
    .can_run = radix_can_run,
    .defaults = radix_defaults,
    .legal = radix_legal,
    .workspace = radix_workspace,
    .enqueue = radix_enqueue,
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

static const cldsa_variant *const variants[] = {&vec, &bitonic, &radix, NULL};

static int choose(const cldsa_run *run) {
    if (cldsa_context_capabilities(run->ctx)->is_cpu)
        return 0;
    return run->dims[T] <= BITONIC_BEST ? 1 : 2;
}

const cldsa_op cldsa_op_topk = {
    .name = "topk",
    .summary = "exact top-k of rows: indices, values, mask",
    .args_size = sizeof(args_t),
    .dims = dims,
    .fields = fields,
    .variants = variants,
    .choose = choose,
    .check = check,
    .reference = reference,
    .flops = flops,
    .bytes = bytes,
};
CLDSA_DEFINE_OP(topk)
