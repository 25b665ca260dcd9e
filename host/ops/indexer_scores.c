/* The indexer's scores. Kernels: cl/indexer_scores_{vec,simt,heads}.cl. */
#include "host/ops/indexer_scores.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- shared with the backward pass and select ----------------------------------------------------------------- */

const char *const cldsa_range_names[] = {"all", "causal", "rows", NULL};

cldsa_status cldsa_indexer_check(const cldsa_run *run, const cldsa_indexer_inputs *in) {
    const char *op = run->op->name;
    if (in->Hk != 1 && in->Hk != in->H)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: k has %lld heads; it must have 1 or as many as q, %lld", op,
                          (long long)in->Hk, (long long)in->H);
    if (in->k->dtype != in->q->dtype)
        return cldsa_fail(CLDSA_INVALID_DTYPE, "%s: k is %s but q is %s; they must be the same", op,
                          cldsa_dtype_name(in->k->dtype), cldsa_dtype_name(in->q->dtype));
    if (in->range == CLDSA_RANGE_ROWS && (!in->ks->mem || !in->ke->mem))
        return cldsa_fail(CLDSA_MISSING_TENSOR, "%s: range \"rows\" needs ks and ke; %s has no buffer", op,
                          in->ks->mem ? "ke" : "ks");
    const int64_t limit = (int64_t)1 << 30;
    if (in->S > limit || in->T > limit || in->H * in->D > (int64_t)1 << 24)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: S=%lld, T=%lld, H*D=%lld; they must not exceed 2^30, 2^30 and 2^24",
                          op, (long long)in->S, (long long)in->T, (long long)(in->H * in->D));
    return CLDSA_SUCCESS;
}

double cldsa_indexer_pairs(const cldsa_indexer_inputs *in) {
    if (in->range != CLDSA_RANGE_CAUSAL)
        return (double)in->B * (double)in->S * (double)in->T;
    double pairs = 0;
    for (int64_t i = in->S > in->T ? in->S - in->T : 0; i < in->S; ++i)
        pairs += (double)(in->T - in->S + i + 1);
    return (double)in->B * pairs;
}

bool cldsa_indexer_visible(const cldsa_indexer_inputs *in, const cldsa_host_tensor *tensors, int64_t b, int64_t i,
                           int64_t j) {
    if (in->range == CLDSA_RANGE_CAUSAL)
        return j < in->T - in->S + i + 1;
    if (in->range == CLDSA_RANGE_ROWS)
        return j >= tensors[CLDSA_INDEXER_KS].data[b * in->S + i] && j < tensors[CLDSA_INDEXER_KE].data[b * in->S + i];
    return true;
}

void cldsa_indexer_options(const cldsa_run *run, const cldsa_indexer_inputs *in, char *options, const char *more) {
    cldsa_run_options(run, options,
                      "-DHEADS=%d -DDIM=%d -DKEY_HEADS=%d -DQ_DTYPE=%s -DW_PER_ROW=%d -DHAS_K_SCALE=%d "
                      "-DRELU_OUT=%d -DRANGE=%d %s",
                      (int)in->H, (int)in->D, (int)in->Hk, cldsa_dtype_macro(in->q->dtype), in->w->rank > 1,
                      in->k_scale->mem != NULL, in->relu_out, (int)in->range, more);
}

/* ---- the operation -------------------------------------------------------------------------------------------- */

typedef cldsa_indexer_scores_args args_t;

static const char *const dims[] = {CLDSA_INDEXER_DIMS, NULL};

static const cldsa_field fields[] = {
    CLDSA_INDEXER_FIELDS(args_t),
    CLDSA_OUT(args_t, scores, "B S T", CLDSA_ACCEPT_FLOAT, "-inf outside a query's range"),
    CLDSA_INDEXER_PARAMS(args_t),
    {0},
};

static cldsa_indexer_inputs inputs(const cldsa_run *run) {
    return CLDSA_INDEXER_INPUTS((const args_t *)run->args, run->dims);
}

static cldsa_status check(const cldsa_run *run) {
    cldsa_indexer_inputs in = inputs(run);
    return cldsa_indexer_check(run, &in);
}

void cldsa_indexer_fours(const cldsa_indexer_inputs *in, char options[INDEXER_FOURS]) {
    snprintf(options, INDEXER_FOURS, "-DQ_VEC=%d -DK_VEC=%d", cldsa_rows_in_fours(in->q, in->D),
             cldsa_rows_in_fours(in->k, in->D));
}

/*
 * The launch, common to all variants: a tile of `rows` x `keys` scores per work-group of `items` items. `more`: the
 * variant's own options.
 */
static cldsa_status enqueue_tiles(cldsa_run *run, const char *name, int64_t rows, int64_t keys, size_t items,
                                  const char *more) {
    const args_t *a = run->args;
    cldsa_indexer_inputs in = inputs(run);
    char options[CLDSA_OPTIONS_MAX];
    char rest[64];
    snprintf(rest, sizeof rest, "-DSCORES_DTYPE=%s %s", cldsa_dtype_macro(a->scores.dtype), more);
    cldsa_indexer_options(run, &in, options, rest);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, name, options, &kernel));
    size_t local[3] = {items, 1, 1};
    size_t global[3] = {(size_t)cldsa_ceil_div(in.T, keys) * items, (size_t)cldsa_ceil_div(in.S, rows), (size_t)in.B};
    return CLDSA_ENQUEUE(&run->stream, kernel, 3, global, local, CLDSA_ARG_TENSOR(a->q), CLDSA_ARG_TENSOR(a->k),
                         CLDSA_ARG_TENSOR(a->w), CLDSA_ARG_TENSOR(a->k_scale), CLDSA_ARG_TENSOR(a->ks),
                         CLDSA_ARG_TENSOR(a->ke), CLDSA_ARG_TENSOR(a->scores), CLDSA_ARG_I32(in.S),
                         CLDSA_ARG_I32(in.T));
}

/* ---- vec: a panel of keys and a chunk of queries per work-item ------------------------------------------------- */

enum { MR, NV, CHUNK, PANEL_HEADS, PANELS };

static bool vec_can_run(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->is_cpu; /* panels lie in private memory: a GPU has little of it */
}

/* Few queries do not fill a tile; heads that share a key do. Many queries are 4 to 6 % faster as rows than heads. */
static bool vec_head_rows(const cldsa_indexer_inputs *in) {
    return in->Hk == 1 && in->H > in->S;
}

static void vec_defaults(const cldsa_run *run, int *tune) {
    enum { PANEL_BYTES = 128 << 10, LEAST_CHUNK = 32, ITEMS_PER_UNIT = 4 };
    cldsa_indexer_inputs in = inputs(run);
    const int64_t rows = vec_head_rows(&in) ? in.H : in.S;
    /* As many registers as the tile can fill: 32 of 16 floats, 16 of 8, 16 or 32 of 4. */
    int width = cldsa_context_capabilities(run->ctx)->vector_width;
    tune[NV] = width >= 16 ? 4 : 1;
    tune[MR] = width >= 8 ? 6 : 4;
    while (tune[MR] > rows)
        tune[MR] -= tune[MR] > 2 ? 2 : 1;
    /* Few rows, of which the last tile would be half empty: tiles that they fill better. */
    if (cldsa_round_up(rows, tune[MR]) > rows * 9 / 8)
        for (int fewer = tune[MR] - 1; fewer >= 4; --fewer)
            if (cldsa_round_up(rows, fewer) < cldsa_round_up(rows, tune[MR]))
                tune[MR] = fewer;
    const int64_t panel_bytes = in.D * tune[NV] * 16 * (int64_t)sizeof(cl_float);
    /* Narrow tiles share their queries: copies of 6 rows for 16 keys took a quarter of the time on a CPU with AVX2. */
    tune[PANELS] = width >= 16 ? 1 : 8;
    while (tune[PANELS] > 1 && tune[PANELS] * panel_bytes > PANEL_BYTES)
        tune[PANELS] /= 2;
    const int64_t head_bytes = tune[PANELS] * panel_bytes;
    tune[PANEL_HEADS] = (int)(PANEL_BYTES / head_bytes > 1 ? PANEL_BYTES / head_bytes : 1);
    if (tune[PANEL_HEADS] > in.H)
        tune[PANEL_HEADS] = (int)in.H;
    /* Smaller chunks where there are too few work-items to go round. */
    int64_t panels = in.B * cldsa_ceil_div(in.T, 16 * tune[NV] * tune[PANELS]);
    int64_t wanted = (int64_t)cldsa_context_device_info(run->ctx)->compute_units * ITEMS_PER_UNIT;
    while (tune[CHUNK] > LEAST_CHUNK && panels * cldsa_ceil_div(in.S, tune[CHUNK]) < wanted)
        tune[CHUNK] /= 2;
    while (tune[PANELS] > 1 && panels * cldsa_ceil_div(in.S, tune[CHUNK]) < wanted) {
        tune[PANELS] /= 2;
        panels *= 2;
    }
}

static cldsa_status vec_enqueue(cldsa_run *run) {
    const cldsa_indexer_inputs in = inputs(run);
    const bool head_rows = vec_head_rows(&in);
    return enqueue_tiles(run, "indexer_scores_vec",
                         head_rows ? run->tune[CHUNK] : cldsa_round_up(run->tune[CHUNK], run->tune[MR]),
                         16 * run->tune[NV] * run->tune[PANELS], 1, head_rows ? "-DHEAD_ROWS=1" : "-DHEAD_ROWS=0");
}

static const cldsa_variant vec = {
    .name = "vec",
    .file = "indexer_scores_vec.cl",
    .tunables = {{"MR", 6, {1, 2, 4, 5, 6, 7, 8, 12}, "rows of a register tile: queries, or heads that share a key"},
                 {"NV", 4, {1, 2, 3, 4}, "float16 vectors of keys in a register tile"},
                 {"CHUNK", 256, {32, 64, 128, 256, 512, 1024}, "queries of a work-item"},
                 {"PANEL_HEADS", 4, {1, 2, 4, 8, 16}, "heads packed at once where each has its own key"},
                 {"PANELS", 1, {1, 2, 4, 8}, "panels of keys that share a work-item's copies of queries"}},
    .can_run = vec_can_run,
    .defaults = vec_defaults,
    .enqueue = vec_enqueue,
};

/* ---- simt: a tile per work-group ------------------------------------------------------------------------------- */

enum { TM, TN, RM, RN, KC, UNROLL };

static int64_t simt_items(const int *tune) {
    return (int64_t)(tune[TM] / tune[RM]) * (tune[TN] / tune[RN]);
}

static bool simt_legal(const cldsa_run *run, const int *tune) {
    enum { PAD = 4, BUFFERS = 2 }; /* as in the kernel */
    size_t local = (size_t)BUFFERS * (size_t)tune[KC] * (size_t)(tune[TM] + tune[TN] + 2 * PAD) * sizeof(cl_float);
    return tune[RM] % 4 == 0 && tune[RN] % 4 == 0 && tune[TM] % tune[RM] == 0 && tune[TN] % tune[RN] == 0 &&
           simt_items(tune) <= (int64_t)cldsa_context_device_info(run->ctx)->max_work_group_size &&
           local <= cldsa_context_device_info(run->ctx)->local_mem_bytes;
}

/* Tiles in which a query sees a key; the others cost next to nothing. */
static int64_t seen_tiles(const cldsa_indexer_inputs *in, const int *tune) {
    if (in->range != CLDSA_RANGE_CAUSAL)
        return in->B * cldsa_ceil_div(in->S, tune[TM]) * cldsa_ceil_div(in->T, tune[TN]);
    int64_t tiles = 0;
    for (int64_t i = 0; i < in->S; i += tune[TM]) {
        const int64_t end = i + tune[TM] < in->S ? i + tune[TM] : in->S, keys = in->T - in->S + end;
        tiles += keys > 0 ? cldsa_ceil_div(keys, tune[TN]) : 0;
    }
    return in->B * tiles;
}

/*
 * The tiles of which the compute unit that gets most is done first. The weights are what a score of such a tile costs:
 * on an H200, 64 heads of 128, a unit takes 0.89 ms for 128 x 128, 0.47 for 64 x 128, some 0.27 for 64 x 64.
 */
static void simt_defaults(const cldsa_run *run, int *tune) {
    static const struct {
        int tile[4], weight;
    } shapes[] = {{{128, 128, 8, 8}, 20},
                  {{64, 128, 8, 8}, 21},
                  {{64, 64, 4, 4}, 24},
                  {{32, 64, 4, 4}, 28},
                  {{16, 64, 4, 4}, 32}};
    enum { SHAPES = sizeof shapes / sizeof shapes[0] };
    const cldsa_indexer_inputs in = inputs(run);
    const int64_t units = cldsa_context_device_info(run->ctx)->compute_units;
    int64_t least = INT64_MAX;
    int best = SHAPES - 1;
    tune[UNROLL] = cldsa_default_unroll(run);
    for (int s = 0; s < SHAPES; ++s) {
        memcpy(tune, shapes[s].tile, sizeof shapes[s].tile);
        if (!simt_legal(run, tune) || (cldsa_few_registers(run) && tune[RM] * tune[RN] > 16))
            continue;
        const int64_t rounds = cldsa_ceil_div(seen_tiles(&in, tune), units);
        const int64_t cost = rounds * tune[TM] * tune[TN] * shapes[s].weight;
        if (cost < least) {
            least = cost;
            best = s;
        }
    }
    memcpy(tune, shapes[best].tile, sizeof shapes[best].tile);
}

static cldsa_status simt_enqueue(cldsa_run *run) {
    const cldsa_indexer_inputs in = inputs(run);
    char more[INDEXER_FOURS];
    cldsa_indexer_fours(&in, more);
    return enqueue_tiles(run, "indexer_scores_simt", run->tune[TM], run->tune[TN], (size_t)simt_items(run->tune), more);
}

static const cldsa_variant simt = {
    .name = "simt",
    .file = "indexer_scores_simt.cl",
    .tunables = {{"TM", 128, {16, 32, 64, 128}, "queries of a tile"},
                 {"TN", 128, {32, 64, 128}, "keys of a tile"},
                 {"RM", 8, {4, 8}, "queries of a work-item"},
                 {"RN", 8, {4, 8}, "keys of a work-item"},
                 {"KC", 16, {8, 16, 32}, "columns of q and k in local memory at a time"},
                 CLDSA_TUNE_UNROLL},
    .legal = simt_legal,
    .defaults = simt_defaults,
    .enqueue = simt_enqueue,
};

/* ---- heads: the heads of one query as the rows of a tile -------------------------------------------------------- */

enum { HEADS_WG = 256, HEADS_KEYS = 64, HEADS_LANES = 16 }; /* as in the kernel */

static bool heads_legal(const cldsa_run *run, const int *tune) {
    const int64_t depth = 32, heads = HEADS_LANES * tune[0];
    const int64_t floats = depth * (heads + HEADS_KEYS + 2) + (HEADS_LANES + 1) * HEADS_KEYS;
    return (size_t)floats * sizeof(cl_float) <= cldsa_context_device_info(run->ctx)->local_mem_bytes;
}

static bool heads_can_run(const cldsa_run *run) {
    cldsa_indexer_inputs in = inputs(run);
    return in.Hk == 1 && in.B * in.T < UINT32_MAX && /* row numbers are 32-bit */
           cldsa_context_device_info(run->ctx)->max_work_group_size >= HEADS_WG && heads_legal(run, (int[]){1});
}

static void heads_defaults(const cldsa_run *run, int *tune) {
    while (tune[0] > 1 && (!heads_legal(run, tune) || inputs(run).H <= HEADS_LANES * tune[0] / 2))
        tune[0] /= 2;
}

static cldsa_status heads_enqueue(cldsa_run *run) {
    const cldsa_indexer_inputs in = inputs(run);
    char more[INDEXER_FOURS];
    cldsa_indexer_fours(&in, more);
    return enqueue_tiles(run, "indexer_scores_heads", 1, HEADS_KEYS, HEADS_WG, more);
}

static const cldsa_variant heads = {
    .name = "heads",
    .file = "indexer_scores_heads.cl",
    .tunables = {{"ROWS", 4, {1, 2, 4}, "heads of a work-item; a tile has 16 times as many"}},
    .can_run = heads_can_run,
    .legal = heads_legal,
    .defaults = heads_defaults,
    .enqueue = heads_enqueue,
};

/* ---- the definition -------------------------------------------------------------------------------------------- */

static void reference(const cldsa_reference_call *call) {
    const cldsa_indexer_inputs in = CLDSA_INDEXER_INPUTS((const args_t *)call->args, call->dims);
    const cldsa_host_tensor *q = &call->tensors[0], *k = &call->tensors[1], *w = &call->tensors[2],
                            *k_scale = &call->tensors[3], *scores = &call->tensors[CLDSA_INDEXER_NUM_INPUTS];
    for (int64_t b = 0; b < in.B; ++b) {
        for (int64_t i = 0; i < in.S; ++i) {
            for (int64_t j = 0; j < in.T; ++j) {
                double total = 0;
                for (int64_t h = 0; h < in.H; ++h) {
                    const double *x = q->data + ((b * in.S + i) * in.H + h) * in.D;
                    const double *y = k->data + ((b * in.T + j) * in.Hk + (in.Hk == 1 ? 0 : h)) * in.D;
                    double dot = 0;
                    for (int64_t d = 0; d < in.D; ++d)
                        dot += x[d] * y[d];
                    total += w->data[w->rank == 1 ? h : (b * in.S + i) * in.H + h] * cldsa_indexer_relu(dot);
                }
                if (k_scale->data)
                    total *= k_scale->data[b * in.T + j];
                if (in.relu_out)
                    total = cldsa_indexer_relu(total);
                scores->data[(b * in.S + i) * in.T + j] =
                    cldsa_indexer_visible(&in, call->tensors, b, i, j) ? total : -INFINITY;
            }
        }
    }
}

static double flops(const cldsa_run *run) {
    cldsa_indexer_inputs in = inputs(run);
    return 2 * cldsa_indexer_pairs(&in) * (double)(in.H * in.D);
}

static double bytes(const cldsa_run *run) {
    const args_t *a = run->args;
    return (double)(cldsa_tensor_numel(&a->q) + cldsa_tensor_numel(&a->k)) * (double)cldsa_dtype_size(a->q.dtype) +
           (double)cldsa_tensor_numel(&a->scores) * (double)cldsa_dtype_size(a->scores.dtype);
}

static const cldsa_variant *const variants[] = {&vec, &simt, &heads, NULL};

/* A tile of queries is mostly empty where there are few, one of heads where these are few. */
static int choose(const cldsa_run *run) {
    enum { VEC, SIMT, HEADS, FEW_QUERIES = 16, MANY_HEADS = 16 };
    cldsa_indexer_inputs in = inputs(run);
    if (cldsa_context_capabilities(run->ctx)->is_cpu)
        return VEC;
    return in.S <= FEW_QUERIES && in.H >= MANY_HEADS && heads_can_run(run) ? HEADS : SIMT;
}

const cldsa_op cldsa_op_indexer_scores = {
    .name = "indexer_scores",
    .summary = "cheap scores of keys: weighted sum over heads of relu(q . k)",
    .args_size = sizeof(args_t),
    .dims = dims,
    .fields = fields,
    .variants = variants,
    .choose = choose,
    .check = check,
    .reference = reference,
    .flops = flops,
    .bytes = bytes,
    .tolerance_abs = 2e-5,
    .tolerance_rel = 2e-5,
};
CLDSA_DEFINE_OP(indexer_scores)
