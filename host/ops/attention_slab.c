/* Scratch, launches and tunables of cl/attention_slab.clh. */
#include "host/ops/attention_slab.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* The kernels, and what each is built with (PASS). */
typedef enum slab_pass { PASS_SCORES, PASS_WEIGHTS, PASS_OUT, PASSES } slab_pass;

enum { WEIGHTS_WG = 256, WEIGHTS_LANES = 16 }; /* work-items of attention_weights, and in a row of scores, at most */

/* ---- tiles ----------------------------------------------------------------------------------------------------- */

typedef struct tile {
    int64_t rows, columns; /* of a work-group */
    int64_t items;
} tile;

static tile tile_of(const int *tune, slab_pass pass) {
    const int64_t rows = tune[pass == PASS_SCORES ? SLAB_KEY_TILE : SLAB_HEAD_TILE];
    const int64_t columns = tune[pass == PASS_SCORES ? SLAB_HEAD_TILE : SLAB_COLUMN_TILE];
    return (tile){rows, columns, rows / tune[SLAB_WM] * (columns / tune[SLAB_WN])};
}

/* Whether the pairs of local tiles fit, beside the places' keys; and whether the second operand's have room for what
 * the work-items that share a column fold at the end of the scores. */
static bool tile_legal(const cldsa_run *run, const int *tune, slab_pass pass) {
    enum { PAD = 4 };
    const tile t = tile_of(tune, pass);
    const int64_t second = 2 * tune[SLAB_TK] * (t.columns + PAD), first = 2 * tune[SLAB_TK] * (t.rows + PAD);
    const int64_t folded = pass == PASS_SCORES ? t.rows / tune[SLAB_WM] * t.columns : 0;
    return t.rows % tune[SLAB_WM] == 0 && t.columns % tune[SLAB_WN] == 0 &&
           (pass == PASS_SCORES || t.items % (t.rows / 4) == 0) && /* a work-item's weights are of the same heads */
           folded <= second && (size_t)t.items <= cldsa_context_device_info(run->ctx)->max_work_group_size &&
           (size_t)(first + second + t.rows) * sizeof(cl_float) <=
               cldsa_context_capabilities(run->ctx)->local_mem_bytes;
}

bool cldsa_attention_slab_legal(const cldsa_run *run, const int *tune) {
    return tune[SLAB_TK] % 4 == 0 && tune[SLAB_WM] % 4 == 0 && tune[SLAB_WN] % 4 == 0 && tune[SLAB_MIB] > 0 &&
           tile_legal(run, tune, PASS_SCORES) && tile_legal(run, tune, PASS_OUT);
}

/* What every device that can run such a variant has room for. */
static const int smallest_tiles[] = {
    [SLAB_HEAD_TILE] = 16, [SLAB_KEY_TILE] = 64, [SLAB_COLUMN_TILE] = 64, [SLAB_TK] = 8,
    [SLAB_WM] = 8,         [SLAB_WN] = 8,        [SLAB_MIB] = 32};

bool cldsa_attention_slab_can_run(const cldsa_run *run, const cldsa_attention_shape *shape) {
    return shape->queries > 0 && shape->kv_heads > 0 && shape->places > 0 &&
           cldsa_attention_slab_legal(run, smallest_tiles) &&
           cldsa_context_device_info(run->ctx)->max_work_group_size >= WEIGHTS_WG &&
           shape->queries * shape->kv_heads * shape->group < UINT32_MAX && /* row numbers, and floats of a kv head */
           (shape->places + 64) * cldsa_round_up(shape->group, 4) < INT32_MAX;
}

/* Large tiles reuse most; but none of heads, places or columns that do not exist. */
void cldsa_attention_slab_defaults(const cldsa_run *run, const cldsa_attention_shape *shape, int *tune) {
    enum { SMALL = 64 };
    const bool few = cldsa_few_registers(run);
    tune[SLAB_UNROLL] = cldsa_default_unroll(run);
    if (few)
        tune[SLAB_HEAD_TILE] = SMALL;
    while (tune[SLAB_HEAD_TILE] > smallest_tiles[SLAB_HEAD_TILE] && shape->group <= tune[SLAB_HEAD_TILE] / 2)
        tune[SLAB_HEAD_TILE] /= 2;
    if (few || shape->places <= SMALL)
        tune[SLAB_KEY_TILE] = SMALL;
    if (few || shape->columns <= SMALL)
        tune[SLAB_COLUMN_TILE] = SMALL;
    if (few)
        tune[SLAB_WM] = tune[SLAB_WN] = 4;
    cldsa_halve_to_fit(run, &tune[SLAB_MIB], smallest_tiles[SLAB_MIB]);
    while (tune[SLAB_TK] > smallest_tiles[SLAB_TK] && !cldsa_attention_slab_legal(run, tune))
        tune[SLAB_TK] /= 2;
    if (!cldsa_attention_slab_legal(run, tune))
        memcpy(tune, smallest_tiles, sizeof smallest_tiles);
}

/* With few queries and few columns there are too few tiles. On an H200, 128 heads, 2048 keys of 576 columns: 4 queries
 * in 0.33 ms where a work-group per query and some keys (attention_tile.clh) takes 0.16, 16 in 0.38 against 0.50. */
bool cldsa_attention_slab_pays(const cldsa_run *run, const cldsa_attention_shape *shape, int64_t many_heads) {
    enum { UNITS_PER_GROUP = 4, COLUMN_TILE = 128 };
    const int64_t groups = shape->queries * shape->kv_heads * cldsa_ceil_div(shape->columns, COLUMN_TILE);
    return shape->group >= many_heads &&
           UNITS_PER_GROUP * groups >= (int64_t)cldsa_context_device_info(run->ctx)->compute_units;
}

/* ---- scratch --------------------------------------------------------------------------------------------------- */

/* 4 bytes each, of a query: its scores; a top and a total for every tile of places; its keys. */
typedef struct query_scratch {
    int64_t scores, tiles, keys;
} query_scratch;

static query_scratch query_scratch_of(const cldsa_run *run, const cldsa_attention_shape *shape) {
    const int64_t pitch = shape->kv_heads * cldsa_round_up(shape->group, 4);
    const int64_t places = shape->places + 2 * run->tune[SLAB_TK]; /* the kernels' PLACES */
    return (query_scratch){.scores = places * pitch,
                           .tiles = cldsa_ceil_div(shape->places, run->tune[SLAB_KEY_TILE]) * pitch,
                           .keys = places * shape->kv_heads};
}

static int64_t query_bytes(const query_scratch *each) {
    return (each->scores + 2 * each->tiles + each->keys) * (int64_t)sizeof(cl_float);
}

/* At least one, no more than there are. */
static int64_t queries_in(const cldsa_attention_shape *shape, const query_scratch *each, size_t bytes) {
    const int64_t most = (int64_t)bytes / query_bytes(each);
    return most < 1 ? 1 : most < shape->queries ? most : shape->queries;
}

void cldsa_attention_slab_workspace(const cldsa_run *run, const cldsa_attention_shape *shape, size_t *preferred,
                                    size_t *minimum) {
    const query_scratch each = query_scratch_of(run, shape);
    *minimum = (size_t)query_bytes(&each);
    *preferred = *minimum * (size_t)queries_in(shape, &each, (size_t)run->tune[SLAB_MIB] << 20);
}

typedef struct scratch {
    int64_t queries; /* at a time */
    cldsa_tensor scores, tops, totals, keys;
} scratch;

static scratch scratch_of(const cldsa_run *run, const cldsa_attention_shape *shape) {
    const query_scratch each = query_scratch_of(run, shape);
    size_t preferred, minimum;
    cldsa_attention_slab_workspace(run, shape, &preferred, &minimum);
    const size_t bytes = preferred < run->workspace_bytes ? preferred : run->workspace_bytes;
    const int64_t queries = queries_in(shape, &each, bytes);
    const int64_t tops_at = queries * each.scores, totals_at = tops_at + queries * each.tiles;
    const int64_t keys_at = totals_at + queries * each.tiles;
    return (scratch){
        .queries = queries,
        .scores = cldsa_run_scratch(run, 0, CLDSA_F32, queries * each.scores),
        .tops = cldsa_run_scratch(run, (size_t)tops_at * sizeof(cl_float), CLDSA_F32, queries * each.tiles),
        .totals = cldsa_run_scratch(run, (size_t)totals_at * sizeof(cl_float), CLDSA_F32, queries * each.tiles),
        .keys = cldsa_run_scratch(run, (size_t)keys_at * sizeof(cl_uint), CLDSA_U32, queries * each.keys)};
}

/* ---- launches -------------------------------------------------------------------------------------------------- */

typedef struct pass_kernel {
    cldsa_kernel *kernel;
    int64_t groups; /* of a query */
    size_t items;   /* of a group */
} pass_kernel;

static cldsa_status get_pass(cldsa_run *run, const cldsa_attention_slab_call *call, slab_pass pass, pass_kernel *out) {
    static const char *const names[] = {"attention_scores", "attention_weights", "attention_out"};
    const cldsa_attention_shape *shape = &call->shape;
    const int *tune = run->tune;
    if (pass == PASS_WEIGHTS) {
        const int64_t fours = cldsa_ceil_div(shape->group, 4), lanes = fours < WEIGHTS_LANES ? fours : WEIGHTS_LANES;
        out->groups = shape->kv_heads * cldsa_ceil_div(fours, lanes);
        out->items = (size_t)(WEIGHTS_WG / lanes * lanes);
    } else {
        const int64_t tiles = pass == PASS_SCORES ? cldsa_ceil_div(shape->places, tune[SLAB_KEY_TILE])
                                                  : cldsa_ceil_div(shape->columns, tune[SLAB_COLUMN_TILE]);
        out->groups = shape->kv_heads * cldsa_ceil_div(shape->group, tune[SLAB_HEAD_TILE]) * tiles;
        out->items = (size_t)tile_of(tune, pass).items;
    }
    char options[CLDSA_OPTIONS_MAX];
    snprintf(options, sizeof options, "%s -DPASS=%d -DWEIGHTS_WG=%d", call->options, (int)pass, WEIGHTS_WG);
    return cldsa_run_kernel(run, names[pass], options, &out->kernel);
}

typedef struct arguments {
    cldsa_arg all[40];
    int count;
} arguments;

static void add(arguments *to, const cldsa_arg *args, int count) {
    assert(to->count + count <= (int)(sizeof to->all / sizeof *to->all));
    memcpy(to->all + to->count, args, (size_t)count * sizeof *args);
    to->count += count;
}
/* Not in an if: what the arguments point at lives as long as the block. */
#define ADD(to, ...)                                                                                                   \
    add((to), (const cldsa_arg[]){__VA_ARGS__}, (int)(sizeof((const cldsa_arg[]){__VA_ARGS__}) / sizeof(cldsa_arg)))

#define SHAPE_ARGS(call, first)                                                                                        \
    CLDSA_ARG_U32(first), CLDSA_ARG_U32((call)->num_queries), CLDSA_ARG_U32((call)->num_keys),                         \
        CLDSA_ARG_U32((call)->shape.kv_heads), CLDSA_ARG_U32((call)->shape.places)

static cldsa_status enqueue(cldsa_run *run, const pass_kernel *pass, int64_t queries, const arguments *args) {
    const size_t global = (size_t)(queries * pass->groups) * pass->items;
    return cldsa_enqueue(&run->stream, pass->kernel, 1, &global, &pass->items, args->all, args->count);
}

/* All passes over queries first .. first + queries - 1, counted through all batch elements. */
static cldsa_status enqueue_slab(cldsa_run *run, const cldsa_attention_slab_call *call, const scratch *s,
                                 const pass_kernel *passes, int64_t first, int64_t queries) {
    arguments scores = {.count = 0}, weights = {.count = 0}, out = {.count = 0};
    ADD(&scores, CLDSA_ARG_TENSOR(call->q), CLDSA_ARG_TENSOR(call->k));
    add(&scores, call->keys, call->num_keys_args);
    ADD(&scores, CLDSA_ARG_TENSOR(s->scores), CLDSA_ARG_TENSOR(s->tops), CLDSA_ARG_TENSOR(s->totals),
        SHAPE_ARGS(call, first), CLDSA_ARG_F32(call->scale * CLDSA_LOG2_E));
    CLDSA_TRY(enqueue(run, &passes[PASS_SCORES], queries, &scores));

    add(&weights, call->keys, call->num_keys_args);
    ADD(&weights, CLDSA_ARG_TENSOR(s->scores), CLDSA_ARG_TENSOR(s->tops), CLDSA_ARG_TENSOR(s->totals),
        SHAPE_ARGS(call, first), CLDSA_ARG_TENSOR(s->keys), CLDSA_ARG_TENSOR(call->lse));
    CLDSA_TRY(enqueue(run, &passes[PASS_WEIGHTS], queries, &weights));

    ADD(&out, CLDSA_ARG_TENSOR(call->v));
    add(&out, call->keys, call->num_keys_args);
    ADD(&out, CLDSA_ARG_TENSOR(s->scores), CLDSA_ARG_TENSOR(s->keys), SHAPE_ARGS(call, first),
        CLDSA_ARG_TENSOR(call->out));
    return enqueue(run, &passes[PASS_OUT], queries, &out);
}

cldsa_status cldsa_attention_slab_enqueue(cldsa_run *run, const cldsa_attention_slab_call *call) {
    const scratch s = scratch_of(run, &call->shape);
    pass_kernel passes[PASSES];
    for (slab_pass pass = 0; pass < PASSES; ++pass)
        CLDSA_TRY(get_pass(run, call, pass, &passes[pass]));
    for (int64_t first = 0; first < call->shape.queries; first += s.queries) {
        const int64_t left = call->shape.queries - first;
        CLDSA_TRY(enqueue_slab(run, call, &s, passes, first, left < s.queries ? left : s.queries));
    }
    return CLDSA_SUCCESS;
}
