/*
 * The GPU variants of sparse attention's backward pass (cl/sparse_attention_backward_{simt,tile}.cl). Both sum a key's
 * gradients through an index of the places that name it.
 */
#include <cldsa/sparse_attention.h>

#include <stdio.h>
#include <string.h>

#include "host/ops/attention_tile.h"
#include "host/ops/sparse_attention.h"

/* ---- rows and index: what both keep in scratch ------------------------------------------------------------------- */

#define TUNE_CHUNK                                                                                                     \
    { "CHUNK", 32, {8, 16, 32, 64}, "queries per block of the inverted index" }

/* The counters of the inverted index stay below this: more queries share a chunk where there are too many. */
enum { COUNT_MAX = 64 << 20 };

/* In this order, 4 bytes each. */
typedef struct layout {
    int64_t chunk, chunks;              /* queries per chunk of the index, and their number */
    int64_t rows;                       /* floats: (L, delta) per row and head */
    int64_t count, total, start, entry; /* of the index: see cl/sparse_attention_index.cl */
} layout;

static layout lay_out(const cldsa_run *run) {
    const int64_t *d = run->dims;
    int64_t keys = d[SPARSE_B] * d[SPARSE_T], most = COUNT_MAX / (keys * (int64_t)sizeof(cl_uint));
    layout l = {.chunk = cldsa_run_tune(run, "CHUNK")};
    if (cldsa_ceil_div(d[SPARSE_S], l.chunk) > (most > 1 ? most : 1))
        l.chunk = cldsa_ceil_div(d[SPARSE_S], most > 1 ? most : 1);
    l.chunks = cldsa_ceil_div(d[SPARSE_S], l.chunk);
    l.rows = 2 * d[SPARSE_B] * d[SPARSE_S] * d[SPARSE_H];
    l.count = keys * l.chunks;
    l.total = keys;
    l.start = keys + d[SPARSE_B];
    l.entry = d[SPARSE_B] * d[SPARSE_S] * d[SPARSE_K];
    return l;
}

static size_t layout_bytes(const layout *l) {
    return (size_t)(l->rows + l->count + l->total + l->start + l->entry) * sizeof(cl_uint);
}

static bool index_can_run(const cldsa_run *run) {
    return cldsa_sparse_simt_can_run(run) && run->dims[SPARSE_S] * run->dims[SPARSE_K] < UINT32_MAX;
}

typedef struct scratch {
    cldsa_tensor rows, start, entry;
} scratch;

static scratch scratch_of(const cldsa_run *run, const layout *l) {
    const size_t start_at = (size_t)(l->rows + l->count + l->total) * sizeof(cl_uint);
    return (scratch){.rows = cldsa_run_scratch(run, 0, CLDSA_F32, l->rows),
                     .start = cldsa_run_scratch(run, start_at, CLDSA_U32, l->start),
                     .entry =
                         cldsa_run_scratch(run, start_at + (size_t)l->start * sizeof(cl_uint), CLDSA_U32, l->entry)};
}

static cldsa_status make_index(cldsa_run *run, const layout *l, const scratch *s) {
    static const char file[] = "sparse_attention_index.cl";
    const cldsa_sparse_attention_backward_args *a = run->args;
    const int64_t *d = run->dims;
    const char *options = a->topk_length.mem ? "-DHAS_LENGTH=1" : "-DHAS_LENGTH=0";
    cldsa_tensor count = cldsa_run_scratch(run, (size_t)l->rows * sizeof(cl_uint), CLDSA_U32, l->count);
    cldsa_tensor total = cldsa_run_scratch(run, (size_t)(l->rows + l->count) * sizeof(cl_uint), CLDSA_U32, l->total);
    cldsa_kernel *counting, *offsets, *starts, *fill;
    CLDSA_TRY(cldsa_get_kernel(run->ctx, file, "index_count", options, &counting));
    CLDSA_TRY(cldsa_get_kernel(run->ctx, file, "index_offsets", options, &offsets));
    CLDSA_TRY(cldsa_get_kernel(run->ctx, file, "index_starts", options, &starts));
    CLDSA_TRY(cldsa_get_kernel(run->ctx, file, "index_fill", options, &fill));

    size_t local[2] = {SPARSE_INDEX_WG, 1};
    size_t chunks[2] = {(size_t)l->chunks * SPARSE_INDEX_WG, (size_t)d[SPARSE_B]};
    size_t keys[2] = {(size_t)d[SPARSE_T], (size_t)d[SPARSE_B]};
    size_t batches = (size_t)d[SPARSE_B] * SPARSE_INDEX_WG;
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, counting, 2, chunks, local, CLDSA_ARG_TENSOR(a->indices),
                            CLDSA_ARG_TENSOR(a->topk_length), CLDSA_ARG_TENSOR(count), CLDSA_ARG_U32(d[SPARSE_S]),
                            CLDSA_ARG_U32(d[SPARSE_T]), CLDSA_ARG_U32(d[SPARSE_K]), CLDSA_ARG_U32(l->chunk)));
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, offsets, 2, keys, local, CLDSA_ARG_TENSOR(count), CLDSA_ARG_TENSOR(total),
                            CLDSA_ARG_U32(d[SPARSE_T]), CLDSA_ARG_U32(l->chunks)));
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, starts, 1, &batches, local, CLDSA_ARG_TENSOR(total),
                            CLDSA_ARG_TENSOR(s->start), CLDSA_ARG_U32(d[SPARSE_T])));
    return CLDSA_ENQUEUE(&run->stream, fill, 2, chunks, local, CLDSA_ARG_TENSOR(a->indices),
                         CLDSA_ARG_TENSOR(a->topk_length), CLDSA_ARG_TENSOR(count), CLDSA_ARG_TENSOR(s->start),
                         CLDSA_ARG_TENSOR(s->entry), CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]),
                         CLDSA_ARG_U32(d[SPARSE_K]), CLDSA_ARG_U32(l->chunk));
}

/* L and delta of all rows, and from them the sinks' gradients. */
static cldsa_status make_rows(cldsa_run *run, const scratch *s) {
    static const char file[] = "sparse_attention_backward_rows.cl";
    const cldsa_sparse_attention_backward_args *a = run->args;
    const int64_t *d = run->dims, queries = d[SPARSE_B] * d[SPARSE_S];
    char options[64];
    snprintf(options, sizeof options, "-DDV=%d -DHAS_SINK=%d", (int)d[SPARSE_DV], a->attn_sink.mem != NULL);
    cldsa_kernel *rows, *sink;
    CLDSA_TRY(cldsa_get_kernel(run->ctx, file, "backward_rows", options, &rows));
    size_t local = SPARSE_ROWS_WG, each = (size_t)(queries * d[SPARSE_H]) * SPARSE_ROWS_WG;
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, rows, 1, &each, &local, CLDSA_ARG_TENSOR(a->out), CLDSA_ARG_TENSOR(a->dout),
                            CLDSA_ARG_TENSOR(a->lse), CLDSA_ARG_TENSOR(a->attn_sink), CLDSA_ARG_TENSOR(s->rows),
                            CLDSA_ARG_U32(d[SPARSE_H])));
    if (!a->dsink.mem)
        return CLDSA_SUCCESS;
    CLDSA_TRY(cldsa_get_kernel(run->ctx, file, "backward_sink", options, &sink));
    size_t heads = (size_t)d[SPARSE_H] * SPARSE_ROWS_WG;
    return CLDSA_ENQUEUE(&run->stream, sink, 1, &heads, &local, CLDSA_ARG_TENSOR(s->rows),
                         CLDSA_ARG_TENSOR(a->attn_sink), CLDSA_ARG_TENSOR(a->dsink), CLDSA_ARG_U64(queries),
                         CLDSA_ARG_U32(d[SPARSE_H]));
}

/* What both variants' kernels are built with. */
static void kernel_options(const cldsa_run *run, const cldsa_sparse_inputs *in, int heads, char *options) {
    const cldsa_sparse_attention_backward_args *a = run->args;
    cldsa_sparse_gpu_options(run, in, heads, options);
    const size_t used = strlen(options);
    snprintf(options + used, CLDSA_OPTIONS_MAX - used, " -DDOUT_VEC=%d",
             cldsa_rows_in_fours(&a->dout, run->dims[SPARSE_DV]));
}

/* ---- simt: few heads to a kv head ------------------------------------------------------------------------------ */

enum { SIMT_HOLD = SIMT_OWN, SIMT_CHUNK, SIMT_UNROLL };
#define TUNE_HOLD                                                                                                      \
    { "HOLD", 0, {0, 1}, "1: gathered rows stay in registers and are read once" }

static void simt_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const layout l = lay_out(run);
    *preferred = *minimum = layout_bytes(&l);
}

static cldsa_status simt_enqueue(cldsa_run *run) {
    const cldsa_sparse_attention_backward_args *a = run->args;
    const int64_t *d = run->dims;
    cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    cldsa_tensor v = in.v.mem ? a->v : a->k;
    const layout l = lay_out(run);
    const scratch s = scratch_of(run, &l);

    int heads = cldsa_sparse_simt_heads(run, run->tune[SIMT_MAX_HEADS]);
    char options[CLDSA_OPTIONS_MAX];
    kernel_options(run, &in, heads, options);
    cldsa_kernel *make_dq, *make_dkv;
    CLDSA_TRY(cldsa_run_kernel(run, "backward_dq", options, &make_dq));
    CLDSA_TRY(cldsa_run_kernel(run, "backward_dkv", options, &make_dkv));
    CLDSA_TRY(make_index(run, &l, &s));
    CLDSA_TRY(make_rows(run, &s));

    size_t local[2] = {(size_t)run->tune[SIMT_WG], 1};
    int64_t groups = d[SPARSE_HK] * cldsa_ceil_div(cldsa_sparse_group(run), heads);
    size_t queries[2] = {(size_t)(d[SPARSE_B] * d[SPARSE_S]) * local[0], (size_t)groups};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, make_dq, 2, queries, local, CLDSA_ARG_TENSOR(a->q), CLDSA_ARG_TENSOR(a->k),
                            CLDSA_ARG_TENSOR(v), CLDSA_ARG_TENSOR(a->indices), CLDSA_ARG_TENSOR(a->topk_length),
                            CLDSA_ARG_TENSOR(a->dout), CLDSA_ARG_TENSOR(s.rows), CLDSA_ARG_TENSOR(a->dq),
                            CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]), CLDSA_ARG_U32(d[SPARSE_H]),
                            CLDSA_ARG_U32(d[SPARSE_K]), CLDSA_ARG_F32(in.softmax_scale)));
    size_t keys[2] = {(size_t)(d[SPARSE_B] * d[SPARSE_T]) * local[0], (size_t)d[SPARSE_HK]};
    return CLDSA_ENQUEUE(&run->stream, make_dkv, 2, keys, local, CLDSA_ARG_TENSOR(a->q), CLDSA_ARG_TENSOR(a->k),
                         CLDSA_ARG_TENSOR(v), CLDSA_ARG_TENSOR(a->dout), CLDSA_ARG_TENSOR(s.rows),
                         CLDSA_ARG_TENSOR(s.start), CLDSA_ARG_TENSOR(s.entry), CLDSA_ARG_TENSOR(a->dk),
                         CLDSA_ARG_TENSOR(a->dv), CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]),
                         CLDSA_ARG_U32(d[SPARSE_H]), CLDSA_ARG_U32(d[SPARSE_K]), CLDSA_ARG_F32(in.softmax_scale));
}

enum { SIMT_KINDS = 2 }; /* of dot products */

static bool simt_legal(const cldsa_run *run, const int *tune) {
    return cldsa_sparse_simt_legal(run, SIMT_KINDS, tune);
}

/* Rows are held where a work-item's share of a step's, at most a key's and a value's divided by the kinds, leaves room
 * for the rest in its registers. CPUs have none to spare. */
static void simt_defaults(const cldsa_run *run, int *tune) {
    enum { MOST_HELD = 128 };
    cldsa_sparse_simt_defaults(run, 2, 1, tune); /* q and the sums of k, and dout */
    const int64_t owned = 4 * tune[SIMT_LANES];
    const int64_t row = cldsa_round_up(run->dims[SPARSE_D], owned) + cldsa_round_up(run->dims[SPARSE_DV], owned);
    tune[SIMT_HOLD] =
        !cldsa_context_capabilities(run->ctx)->is_cpu && !cldsa_few_registers(run) && row / SIMT_KINDS <= MOST_HELD;
    tune[SIMT_UNROLL] = cldsa_default_unroll(run);
}

const cldsa_variant cldsa_sparse_attention_backward_simt = {
    .name = "simt",
    .file = "sparse_attention_backward_simt.cl",
    .tunables = {CLDSA_SPARSE_SIMT_TUNABLES, TUNE_HOLD, TUNE_CHUNK, CLDSA_TUNE_UNROLL},
    .can_run = index_can_run,
    .defaults = simt_defaults,
    .legal = simt_legal,
    .workspace = simt_workspace,
    .enqueue = simt_enqueue,
};

/* ---- tile: many heads of one latent key head ----------------------------------------------------------------------
 */

enum {
    TUNE_HEAD_TILE,
    TUNE_KEY_TILE,
    TUNE_COLUMN_TILE,
    TUNE_TK,
    TUNE_WH,
    TUNE_WP,
    TUNE_WN,
    TUNE_SLAB,
    TILE_CHUNK,
    TILE_UNROLL
};

/* The kernels, and what each is built with (PASS). */
typedef enum pass { PASS_WEIGHTS, PASS_GRADIENTS, PASS_DQ, PASS_DKV, PASS_SUM } pass;

typedef struct tile_shape {
    int rows, columns;           /* of a work-group */
    int item_rows, item_columns; /* of a work-item */
} tile_shape;

static tile_shape shape_of(const int *tune, pass which) {
    return (tile_shape){.rows = tune[which == PASS_DKV ? TUNE_KEY_TILE : TUNE_HEAD_TILE],
                        .columns = tune[which <= PASS_GRADIENTS ? TUNE_KEY_TILE : TUNE_COLUMN_TILE],
                        .item_rows = tune[which == PASS_DKV ? TUNE_WP : TUNE_WH],
                        .item_columns = tune[TUNE_WN]};
}

static size_t items_of(const tile_shape *t) {
    return (size_t)(t->rows / t->item_rows * (t->columns / t->item_columns));
}

/* The kernels' local arrays: two pairs of tiles. */
static bool tile_legal(const cldsa_run *run, const int *tune) {
    enum { PAD = 4 };
    const size_t most = cldsa_context_device_info(run->ctx)->max_work_group_size;
    if (tune[TUNE_TK] % 4 || tune[TUNE_SLAB] < 1)
        return false;
    for (pass which = PASS_WEIGHTS; which <= PASS_DKV; ++which) {
        const tile_shape t = shape_of(tune, which);
        const size_t local = (size_t)(2 * tune[TUNE_TK] * (t.rows + t.columns + 2 * PAD)) * sizeof(cl_float);
        if (t.item_rows % 4 || t.item_columns % 4 || t.rows % t.item_rows || t.columns % t.item_columns ||
            items_of(&t) > most || local > cldsa_context_capabilities(run->ctx)->local_mem_bytes)
            return false;
    }
    return true;
}

/* What every device that can run the variant has room for. */
static const int smallest_tiles[] = {
    [TUNE_HEAD_TILE] = 16, [TUNE_KEY_TILE] = 64, [TUNE_COLUMN_TILE] = 64, [TUNE_TK] = 8,
    [TUNE_WH] = 4,         [TUNE_WP] = 8,        [TUNE_WN] = 8,           [TUNE_SLAB] = 32};

/* Large tiles reuse most; but none of heads or places that do not exist, and work-items enough. Columns in tiles of 64:
 * 576 of them in 160 ms on an H200, in tiles of 128 in 175, of 192 in 164. */
static void tile_defaults(const cldsa_run *run, int *tune) {
    enum { SMALL = 64, LARGE = 128 };
    const int64_t *d = run->dims;
    const bool few = cldsa_few_registers(run);
    tune[TILE_UNROLL] = cldsa_default_unroll(run);
    tune[TUNE_HEAD_TILE] = few ? SMALL : LARGE;
    while (tune[TUNE_HEAD_TILE] > smallest_tiles[TUNE_HEAD_TILE] && d[SPARSE_H] <= tune[TUNE_HEAD_TILE] / 2)
        tune[TUNE_HEAD_TILE] /= 2;
    tune[TUNE_KEY_TILE] = few || d[SPARSE_K] <= SMALL ? SMALL : LARGE;
    tune[TUNE_WH] = few || tune[TUNE_HEAD_TILE] < SMALL ? 4 : 8;
    tune[TUNE_WP] = tune[TUNE_WN] = few ? 4 : 8;
    cldsa_halve_to_fit(run, &tune[TUNE_SLAB], smallest_tiles[TUNE_SLAB]);
    while (tune[TUNE_TK] > smallest_tiles[TUNE_TK] && !tile_legal(run, tune))
        tune[TUNE_TK] /= 2;
    if (!tile_legal(run, tune))
        memcpy(tune, smallest_tiles, sizeof smallest_tiles);
}

/* Latent, and one key head. */
static bool tile_can_run(const cldsa_run *run) {
    const cldsa_sparse_attention_backward_args *a = run->args;
    return index_can_run(run) && !a->v.mem && run->dims[SPARSE_HK] == 1 && tile_legal(run, smallest_tiles);
}

/* What a query needs of a slab, in floats. */
typedef struct slab_query {
    int64_t pitch;           /* of a head's row of weights */
    int64_t weights, places; /* weights (and gradients) of all heads; rows of all places */
} slab_query;

static slab_query slab_query_of(const cldsa_run *run) {
    const int64_t *d = run->dims, pitch = cldsa_round_up(d[SPARSE_K], 4);
    return (slab_query){pitch, d[SPARSE_H] * pitch, d[SPARSE_K] * cldsa_round_up(d[SPARSE_D], 4)};
}

static size_t slab_query_bytes(const slab_query *each) {
    return (size_t)(2 * each->weights + each->places) * sizeof(cl_float);
}

/* The slab follows rows and index on whole vectors. */
static size_t slab_at(const layout *l) {
    return (size_t)cldsa_round_up((int64_t)layout_bytes(l), 16);
}

/* At most SLAB MiB of queries, if that holds one. */
static int64_t slab_queries(const cldsa_run *run, const slab_query *each) {
    const int64_t all = run->dims[SPARSE_B] * run->dims[SPARSE_S];
    const int64_t most = ((int64_t)run->tune[TUNE_SLAB] << 20) / (int64_t)slab_query_bytes(each);
    return most < 1 ? 1 : most < all ? most : all;
}

static void tile_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const layout l = lay_out(run);
    const slab_query each = slab_query_of(run);
    *preferred = slab_at(&l) + (size_t)slab_queries(run, &each) * slab_query_bytes(&each);
    *minimum = slab_at(&l) + slab_query_bytes(&each);
}

typedef struct tile_call {
    scratch s;
    cldsa_kernel *kernels[PASS_SUM + 1];
    int64_t pitch;
    cldsa_tensor weights, gradients, places; /* of a slab's queries */
} tile_call;

static cldsa_status tile_kernels(cldsa_run *run, const cldsa_sparse_inputs *in, tile_call *c) {
    static const char *const names[] = {"backward_weights", "backward_gradients", "backward_dq", "backward_dkv",
                                        "backward_sum"};
    for (pass which = PASS_WEIGHTS; which <= PASS_SUM; ++which) {
        char options[CLDSA_OPTIONS_MAX];
        kernel_options(run, in, 1, options);
        const size_t used = strlen(options);
        snprintf(options + used, sizeof options - used, " -DPASS=%d", (int)which);
        CLDSA_TRY(cldsa_run_kernel(run, names[which], options, &c->kernels[which]));
    }
    return CLDSA_SUCCESS;
}

typedef struct launch {
    size_t global, local;
} launch;

/* A pass over queries first .. first + queries - 1, counted through all batch elements. */
static launch launch_of(const cldsa_run *run, pass which, int64_t first, int64_t queries) {
    enum { SUM_WG = 64 };
    const int *tune = run->tune;
    const int64_t *d = run->dims, heads = cldsa_ceil_div(d[SPARSE_H], tune[TUNE_HEAD_TILE]);
    const int64_t places = cldsa_ceil_div(d[SPARSE_K], tune[TUNE_KEY_TILE]);
    const int64_t columns = cldsa_ceil_div(d[SPARSE_D], tune[TUNE_COLUMN_TILE]);
    if (which == PASS_SUM) {
        const int64_t batches = (first + queries - 1) / d[SPARSE_S] - first / d[SPARSE_S] + 1;
        return (launch){(size_t)(batches * d[SPARSE_T]) * SUM_WG, SUM_WG};
    }
    const int64_t tiles = which <= PASS_GRADIENTS ? heads * places
                          : which == PASS_DQ      ? heads * columns
                                                  : places * columns;
    const tile_shape t = shape_of(tune, which);
    return (launch){(size_t)(queries * tiles) * items_of(&t), items_of(&t)};
}

static cldsa_status tile_slab(cldsa_run *run, const tile_call *c, int64_t first, int64_t queries, float scale) {
    const cldsa_sparse_attention_backward_args *a = run->args;
    const int64_t *d = run->dims;
    launch on[PASS_SUM + 1];
    for (pass which = PASS_WEIGHTS; which <= PASS_SUM; ++which)
        on[which] = launch_of(run, which, first, queries);
#define ENQUEUE_PASS(which, ...)                                                                                       \
    CLDSA_ENQUEUE(&run->stream, c->kernels[which], 1, &on[which].global, &on[which].local, __VA_ARGS__)
    CLDSA_TRY(ENQUEUE_PASS(PASS_WEIGHTS, CLDSA_ARG_TENSOR(a->q), CLDSA_ARG_TENSOR(a->k), CLDSA_ARG_TENSOR(a->indices),
                           CLDSA_ARG_TENSOR(a->topk_length), CLDSA_ARG_TENSOR(c->s.rows), CLDSA_ARG_TENSOR(c->weights),
                           CLDSA_ARG_U32(first), CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]),
                           CLDSA_ARG_U32(d[SPARSE_K]), CLDSA_ARG_U32(c->pitch), CLDSA_ARG_F32(scale)));
    CLDSA_TRY(ENQUEUE_PASS(PASS_GRADIENTS, CLDSA_ARG_TENSOR(a->dout), CLDSA_ARG_TENSOR(a->k),
                           CLDSA_ARG_TENSOR(a->indices), CLDSA_ARG_TENSOR(a->topk_length), CLDSA_ARG_TENSOR(c->s.rows),
                           CLDSA_ARG_TENSOR(c->weights), CLDSA_ARG_TENSOR(c->gradients), CLDSA_ARG_U32(first),
                           CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]), CLDSA_ARG_U32(d[SPARSE_K]),
                           CLDSA_ARG_U32(c->pitch), CLDSA_ARG_F32(scale)));
    CLDSA_TRY(ENQUEUE_PASS(PASS_DQ, CLDSA_ARG_TENSOR(a->k), CLDSA_ARG_TENSOR(a->indices),
                           CLDSA_ARG_TENSOR(a->topk_length), CLDSA_ARG_TENSOR(c->gradients), CLDSA_ARG_TENSOR(a->dq),
                           CLDSA_ARG_U32(first), CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]),
                           CLDSA_ARG_U32(d[SPARSE_K]), CLDSA_ARG_U32(c->pitch)));
    CLDSA_TRY(ENQUEUE_PASS(PASS_DKV, CLDSA_ARG_TENSOR(a->q), CLDSA_ARG_TENSOR(a->topk_length),
                           CLDSA_ARG_TENSOR(a->dout), CLDSA_ARG_TENSOR(c->weights), CLDSA_ARG_TENSOR(c->gradients),
                           CLDSA_ARG_TENSOR(c->places), CLDSA_ARG_U32(first), CLDSA_ARG_U32(d[SPARSE_K]),
                           CLDSA_ARG_U32(c->pitch)));
    return ENQUEUE_PASS(PASS_SUM, CLDSA_ARG_TENSOR(c->places), CLDSA_ARG_TENSOR(c->s.start),
                        CLDSA_ARG_TENSOR(c->s.entry), CLDSA_ARG_TENSOR(a->dk), CLDSA_ARG_U32(first),
                        CLDSA_ARG_U32(queries), CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]),
                        CLDSA_ARG_U32(d[SPARSE_K]));
#undef ENQUEUE_PASS
}

static cldsa_status tile_enqueue(cldsa_run *run) {
    const cldsa_sparse_attention_backward_args *a = run->args;
    const cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    const layout l = lay_out(run);
    const slab_query each = slab_query_of(run);
    const int64_t all = run->dims[SPARSE_B] * run->dims[SPARSE_S];
    const int64_t held = (int64_t)((run->workspace_bytes - slab_at(&l)) / slab_query_bytes(&each));
    const int64_t wanted = slab_queries(run, &each), queries = wanted < held ? wanted : held;
    const size_t weights_bytes = (size_t)(queries * each.weights) * sizeof(cl_float);
    tile_call c = {
        .s = scratch_of(run, &l),
        .pitch = each.pitch,
        .weights = cldsa_run_scratch(run, slab_at(&l), CLDSA_F32, queries * each.weights),
        .gradients = cldsa_run_scratch(run, slab_at(&l) + weights_bytes, CLDSA_F32, queries * each.weights),
        .places = cldsa_run_scratch(run, slab_at(&l) + 2 * weights_bytes, CLDSA_F32, queries * each.places),
    };
    CLDSA_TRY(tile_kernels(run, &in, &c));
    CLDSA_TRY(make_index(run, &l, &c.s));
    CLDSA_TRY(make_rows(run, &c.s));
    for (int64_t first = 0; first < all; first += queries)
        CLDSA_TRY(tile_slab(run, &c, first, first + queries < all ? queries : all - first, in.softmax_scale));
    return CLDSA_SUCCESS;
}

const cldsa_variant cldsa_sparse_attention_backward_tile = {
    .name = "tile",
    .file = "sparse_attention_backward_tile.cl",
    .tunables = {{"HEAD_TILE", 128, {16, 32, 64, 128}, "heads of a work-group"},
                 {"KEY_TILE", 128, {64, 128}, "places of a work-group"},
                 {"COLUMN_TILE", 64, {64, 128}, "columns of a work-group"},
                 {"TK", 16, {8, 16, 32}, "steps of a reduction per local tile"},
                 {"WH", 8, {4, 8}, "heads of a work-item"},
                 {"WP", 8, {4, 8}, "places of a work-item where they are the rows"},
                 {"WN", 8, {4, 8}, "places of a work-item where they are the columns, and its columns"},
                 {"SLAB", 512, {32, 128, 512, 2048}, "MiB of scratch for the queries taken together, at most"},
                 TUNE_CHUNK,
                 CLDSA_TUNE_UNROLL},
    .can_run = tile_can_run,
    .defaults = tile_defaults,
    .legal = tile_legal,
    .workspace = tile_workspace,
    .enqueue = tile_enqueue,
};
