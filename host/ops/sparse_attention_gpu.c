/*
 * The GPU variants of sparse attention's forward pass (cl/sparse_attention_{simt,tile,slab}.cl). The first two cut the
 * places of a row into parts where there are too few rows to fill the device.
 */
#include <cldsa/sparse_attention.h>

#include <stdio.h>
#include <string.h>

#include "host/ops/attention_slab.h"
#include "host/ops/sparse_attention.h"

/* How a variant lies on the device. */
typedef struct launch {
    const char *kernel;
    int64_t items; /* of a work-group */
    int heads;     /* of one kv head that a work-group takes */
    int64_t keys;  /* places that a work-group takes at a time */
} launch;

static cldsa_attention_rows rows_of(const cldsa_run *run) {
    const cldsa_sparse_attention_args *a = run->args;
    const int64_t *d = run->dims;
    return (cldsa_attention_rows){.out = a->out,
                                  .lse = a->lse,
                                  .attn_sink = a->attn_sink,
                                  .rows = d[SPARSE_B] * d[SPARSE_S] * d[SPARSE_H],
                                  .heads = d[SPARSE_H],
                                  .columns = d[SPARSE_DV]};
}

static int64_t head_groups(const cldsa_run *run, int heads) {
    return run->dims[SPARSE_HK] * cldsa_ceil_div(cldsa_sparse_group(run), heads);
}

static int64_t groups(const cldsa_run *run, int heads) {
    return run->dims[SPARSE_B] * run->dims[SPARSE_S] * head_groups(run, heads);
}

/* For as many parts as SPLIT says, or half a GiB holds. */
static size_t preferred_bytes(const cldsa_run *run, const launch *how) {
    enum { MOST = 512 << 20 };
    const cldsa_attention_rows rows = rows_of(run);
    int split = cldsa_run_tune(run, "SPLIT");
    size_t bytes;
    do {
        bytes = cldsa_attention_parts_bytes(&rows, cldsa_attention_cut(run->dims[SPARSE_K], how->keys, split).count);
        --split;
    } while (bytes > MOST);
    return bytes;
}

void cldsa_sparse_gpu_options(const cldsa_run *run, const cldsa_sparse_inputs *in, int heads, char *options) {
    const int64_t d = run->dims[SPARSE_D], dv = run->dims[SPARSE_DV];
    cldsa_sparse_options(run, in, false, heads, options);
    const size_t used = strlen(options);
    snprintf(options + used, CLDSA_OPTIONS_MAX - used, " -DQ_VEC=%d -DK_VEC=%d -DV_VEC=%d",
             cldsa_rows_in_fours(&in->q, d), cldsa_rows_in_fours(&in->k, d),
             dv % 4 == 0 && (in->v.mem ? cldsa_rows_in_fours(&in->v, dv) : cldsa_rows_in_fours(&in->k, d)));
}

/* What all three are built with. */
static void kernel_options(const cldsa_run *run, const cldsa_sparse_inputs *in, int heads, const char *more,
                           char *options) {
    const cldsa_sparse_attention_args *a = run->args;
    cldsa_sparse_gpu_options(run, in, heads, options);
    const size_t used = strlen(options);
    snprintf(options + used, CLDSA_OPTIONS_MAX - used, " -DO_DTYPE=%s -DHAS_LSE=%d%s", cldsa_dtype_macro(a->out.dtype),
             a->lse.mem != NULL, more);
}

static cldsa_status enqueue(cldsa_run *run, const launch *how) {
    const cldsa_sparse_attention_args *a = run->args;
    const int64_t *d = run->dims;
    const cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    const cldsa_attention_rows rows = rows_of(run);
    const cldsa_attention_parts parts =
        cldsa_attention_cut_to_fit(run, &rows, d[SPARSE_K], how->keys, cldsa_run_tune(run, "SPLIT"));
    char options[CLDSA_OPTIONS_MAX];
    kernel_options(run, &in, how->heads, parts.count > 1 ? " -DPARTIAL=1" : "", options);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, how->kernel, options, &kernel));
    const size_t local[3] = {(size_t)how->items, 1, 1};
    const size_t global[3] = {(size_t)(d[SPARSE_B] * d[SPARSE_S] * how->items), (size_t)head_groups(run, how->heads),
                              (size_t)parts.count};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 3, global, local, CLDSA_ARG_TENSOR(a->q), CLDSA_ARG_TENSOR(a->k),
                            CLDSA_ARG_TENSOR(in.v.mem ? a->v : a->k), CLDSA_ARG_TENSOR(a->indices),
                            CLDSA_ARG_TENSOR(a->topk_length), CLDSA_ARG_TENSOR(a->attn_sink),
                            CLDSA_ARG_U32(d[SPARSE_K]), CLDSA_ARG_TENSOR(a->out), CLDSA_ARG_TENSOR(a->lse),
                            CLDSA_ARG_TENSOR(cldsa_attention_scratch(run, &rows, parts.count)),
                            CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]), CLDSA_ARG_U32(d[SPARSE_H]),
                            CLDSA_ARG_U32(parts.size), CLDSA_ARG_F32((double)in.softmax_scale * CLDSA_LOG2_E)));
    return parts.count > 1 ? cldsa_attention_combine(run, &rows, parts.count) : CLDSA_SUCCESS;
}

/* ---- simt: few heads to a kv head ------------------------------------------------------------------------------ */

bool cldsa_sparse_simt_can_run(const cldsa_run *run) {
    const int64_t *d = run->dims;
    return cldsa_context_device_info(run->ctx)->max_work_group_size >= SPARSE_INDEX_WG &&
           d[SPARSE_B] * d[SPARSE_T] * d[SPARSE_HK] < UINT32_MAX &&
           d[SPARSE_B] * d[SPARSE_S] * d[SPARSE_H] < UINT32_MAX; /* row numbers are 32-bit */
}

int cldsa_sparse_simt_heads(const cldsa_run *run, int most) {
    int heads = 1;
    while (heads < cldsa_sparse_group(run) && 2 * heads <= most)
        heads *= 2;
    return heads;
}

/* Vectors of four columns that a work-item has of a row. */
static int owned(int64_t width, int lanes) {
    return (int)cldsa_ceil_div(width, 4 * lanes);
}

void cldsa_sparse_simt_defaults(const cldsa_run *run, int rows_of_d, int rows_of_dv, int *tune) {
    enum { MOST_FLOATS = 96 }; /* in registers, of the rows that a work-item keeps */
    const int64_t d = run->dims[SPARSE_D], dv = run->dims[SPARSE_DV], widest = d > dv ? d : dv;
    tune[SIMT_LANES] = widest <= 64 ? 8 : widest <= 128 ? 16 : 32;
    const int floats = 4 * (rows_of_d * owned(d, tune[SIMT_LANES]) + rows_of_dv * owned(dv, tune[SIMT_LANES]));
    while (tune[SIMT_MAX_HEADS] > 1 && tune[SIMT_MAX_HEADS] * floats > MOST_FLOATS)
        tune[SIMT_MAX_HEADS] /= 2;
    if (cldsa_context_capabilities(run->ctx)->sub_group_size <= 32)
        tune[SIMT_WG] = 32;
}

bool cldsa_sparse_simt_legal(const cldsa_run *run, int kinds, const int *tune) {
    return kinds * cldsa_sparse_simt_heads(run, tune[SIMT_MAX_HEADS]) <= tune[SIMT_LANES] &&
           tune[SIMT_LANES] <= tune[SIMT_WG];
}

static bool simt_legal(const cldsa_run *run, const int *tune) {
    return cldsa_sparse_simt_legal(run, 1, tune);
}

static launch simt_launch(const cldsa_run *run, const int *tune) {
    const int heads = cldsa_sparse_simt_heads(run, tune[SIMT_MAX_HEADS]), items = tune[SIMT_WG];
    return (launch){.kernel = "sparse_attention_simt", .items = items, .heads = heads, .keys = items / heads};
}

enum { SIMT_SPLIT = SIMT_OWN, SIMT_UNROLL };

static void simt_defaults(const cldsa_run *run, int *tune) {
    enum { GROUPS_PER_UNIT = 8 };
    cldsa_sparse_simt_defaults(run, 1, 1, tune); /* q and the sums of v */
    const launch how = simt_launch(run, tune);
    tune[SIMT_SPLIT] = cldsa_attention_default_split(run, groups(run, how.heads),
                                                     cldsa_ceil_div(run->dims[SPARSE_K], how.keys), GROUPS_PER_UNIT);
    tune[SIMT_UNROLL] = cldsa_default_unroll(run);
}

static void simt_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const launch how = simt_launch(run, run->tune);
    *preferred = preferred_bytes(run, &how);
    *minimum = 0;
}

static cldsa_status simt_enqueue(cldsa_run *run) {
    const launch how = simt_launch(run, run->tune);
    return enqueue(run, &how);
}

const cldsa_variant cldsa_sparse_attention_simt = {
    .name = "simt",
    .file = "sparse_attention_simt.cl",
    .tunables = {CLDSA_SPARSE_SIMT_TUNABLES, CLDSA_TUNE_ATTENTION_SPLIT, CLDSA_TUNE_UNROLL},
    .can_run = cldsa_sparse_simt_can_run,
    .defaults = simt_defaults,
    .legal = simt_legal,
    .workspace = simt_workspace,
    .enqueue = simt_enqueue,
};

/* ---- tile: many heads to a kv head ----------------------------------------------------------------------------- */

static cldsa_attention_shape shape_of(const cldsa_run *run) {
    const int64_t *d = run->dims;
    return (cldsa_attention_shape){.queries = d[SPARSE_B] * d[SPARSE_S],
                                   .kv_heads = d[SPARSE_HK],
                                   .group = cldsa_sparse_group(run),
                                   .columns = d[SPARSE_DV],
                                   .places = d[SPARSE_K]};
}

static launch tile_launch(const int *tune) {
    return (launch){.kernel = "sparse_attention_tile",
                    .items = ATTENTION_TILE_WG,
                    .heads = 16 * tune[0],
                    .keys = ATTENTION_TILE_KEYS};
}

static bool tile_can_run(const cldsa_run *run) {
    return cldsa_sparse_simt_can_run(run) && cldsa_attention_tile_legal(run, (int[]){1});
}

static void tile_defaults(const cldsa_run *run, int *tune) {
    const cldsa_attention_shape shape = shape_of(run);
    cldsa_attention_tile_defaults(run, &shape, tune);
}

static void tile_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const launch how = tile_launch(run->tune);
    *preferred = preferred_bytes(run, &how);
    *minimum = 0;
}

static cldsa_status tile_enqueue(cldsa_run *run) {
    const launch how = tile_launch(run->tune);
    return enqueue(run, &how);
}

const cldsa_variant cldsa_sparse_attention_tile = {
    .name = "tile",
    .file = "sparse_attention_tile.cl",
    .tunables = {CLDSA_TUNE_ATTENTION_TILE},
    .can_run = tile_can_run,
    .defaults = tile_defaults,
    .legal = cldsa_attention_tile_legal,
    .workspace = tile_workspace,
    .enqueue = tile_enqueue,
};

/* ---- slab: many heads to a kv head, many queries --------------------------------------------------------------- */

static bool slab_can_run(const cldsa_run *run) {
    const cldsa_attention_shape shape = shape_of(run);
    return cldsa_sparse_simt_can_run(run) && cldsa_attention_slab_can_run(run, &shape);
}

/* 1024 queries, 2048 keys of 576 columns on an H200: 8 heads in 2.3 ms where tile takes 6.5, 64 in 6.9 where it takes
 * 11.9. Of groups of 4 heads simt is faster: 11.8 instead of 21 ms (32 heads of 128, 4096 queries). */
bool cldsa_sparse_slab_pays(const cldsa_run *run) {
    enum { MANY_HEADS = 8 };
    const cldsa_attention_shape shape = shape_of(run);
    return slab_can_run(run) && cldsa_attention_slab_pays(run, &shape, MANY_HEADS);
}

static void slab_defaults(const cldsa_run *run, int *tune) {
    const cldsa_attention_shape shape = shape_of(run);
    cldsa_attention_slab_defaults(run, &shape, tune);
}

static void slab_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const cldsa_attention_shape shape = shape_of(run);
    cldsa_attention_slab_workspace(run, &shape, preferred, minimum);
}

static cldsa_status slab_enqueue(cldsa_run *run) {
    const cldsa_sparse_attention_args *a = run->args;
    const int64_t *d = run->dims;
    const cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    char options[CLDSA_OPTIONS_MAX];
    kernel_options(run, &in, 1, "", options);
    const cldsa_arg keys[] = {CLDSA_ARG_TENSOR(a->indices), CLDSA_ARG_TENSOR(a->topk_length),
                              CLDSA_ARG_TENSOR(a->attn_sink), CLDSA_ARG_U32(d[SPARSE_K])};
    const cldsa_attention_slab_call call = {.shape = shape_of(run),
                                            .q = a->q,
                                            .k = a->k,
                                            .v = in.v.mem ? a->v : a->k,
                                            .out = a->out,
                                            .lse = a->lse,
                                            .num_queries = d[SPARSE_S],
                                            .num_keys = d[SPARSE_T],
                                            .scale = (double)in.softmax_scale,
                                            .options = options,
                                            .keys = keys,
                                            .num_keys_args = sizeof keys / sizeof *keys};
    return cldsa_attention_slab_enqueue(run, &call);
}

const cldsa_variant cldsa_sparse_attention_slab = {
    .name = "slab",
    .file = "sparse_attention_slab.cl",
    .tunables = {CLDSA_TUNE_ATTENTION_SLAB},
    .can_run = slab_can_run,
    .defaults = slab_defaults,
    .legal = cldsa_attention_slab_legal,
    .workspace = slab_workspace,
    .enqueue = slab_enqueue,
};
