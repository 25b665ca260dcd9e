/*
 * Masked attention's forward variants for GPUs where many heads share a kv head: they make the rows of a tile
 * (cl/masked_attention_{tile,slab}.cl).
 */
#include "host/ops/attention_slab.h"
#include "host/ops/masked_attention.h"

#include <stdio.h>

_Static_assert((int)ATTENTION_TILE_KEYS == (int)MASKED_KEYS, "parts are whole tiles of either kernel");

typedef cldsa_masked_attention_args forward_args;

/* ---- shared ---------------------------------------------------------------------------------------------------- */

static cldsa_attention_shape shape_of(const cldsa_run *run) {
    const int64_t *n = run->dims;
    return (cldsa_attention_shape){.queries = n[MASKED_B] * n[MASKED_S],
                                   .kv_heads = n[MASKED_HK],
                                   .group = n[MASKED_H] / n[MASKED_HK],
                                   .columns = n[MASKED_DV],
                                   .places = n[MASKED_T]};
}

/* Neither knows dropout, and row numbers are 32-bit. */
static bool can_run(const cldsa_run *run) {
    const int64_t *n = run->dims;
    return ((const forward_args *)run->args)->dropout_p == 0 && n[MASKED_HK] > 0 &&
           n[MASKED_B] * n[MASKED_T] * n[MASKED_HK] < UINT32_MAX &&
           n[MASKED_B] * n[MASKED_S] * n[MASKED_H] < UINT32_MAX;
}

static void kernel_options(const cldsa_run *run, const char *more, char *options) {
    const forward_args *args = run->args;
    const cldsa_masked_call call = CLDSA_MASKED_CALL(args);
    const int64_t *n = run->dims;
    char all[160];
    snprintf(all, sizeof all, "-DO_DTYPE=%s -DHAS_LSE=%d -DQ_VEC=%d -DK_VEC=%d -DV_VEC=%d%s",
             cldsa_dtype_macro(args->out.dtype), args->lse.mem != NULL, cldsa_rows_in_fours(&args->q, n[MASKED_D]),
             cldsa_rows_in_fours(&args->k, n[MASKED_D]), cldsa_rows_in_fours(&args->v, n[MASKED_DV]), more);
    cldsa_masked_options(run, &call, all, options);
}

static double scale_of(const cldsa_run *run) {
    const cldsa_masked_call call = CLDSA_MASKED_CALL((const forward_args *)run->args);
    return cldsa_masked_scale(&call, run->dims[MASKED_D]);
}

/* ---- tile: few queries ----------------------------------------------------------------------------------------- */

static bool tile_can_run(const cldsa_run *run) {
    return can_run(run) && cldsa_context_device_info(run->ctx)->max_work_group_size >= ATTENTION_TILE_WG &&
           cldsa_attention_tile_legal(run, (int[]){1});
}

static void tile_defaults(const cldsa_run *run, int *tune) {
    const cldsa_attention_shape shape = shape_of(run);
    cldsa_attention_tile_defaults(run, &shape, tune);
}

static cldsa_status tile_forward(cldsa_run *run) {
    const forward_args *args = run->args;
    const int64_t *n = run->dims;
    const cldsa_attention_shape shape = shape_of(run);
    const cldsa_attention_rows rows = cldsa_masked_rows(run);
    const cldsa_attention_parts parts =
        cldsa_attention_cut_to_fit(run, &rows, n[MASKED_T], MASKED_KEYS, cldsa_run_tune(run, "SPLIT"));
    char options[CLDSA_OPTIONS_MAX];
    kernel_options(run, parts.count > 1 ? " -DPARTIAL=1" : "", options);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "masked_attention_tile", options, &kernel));
    const size_t local[] = {ATTENTION_TILE_WG, 1, 1};
    const size_t global[] = {(size_t)(n[MASKED_B] * n[MASKED_S] * ATTENTION_TILE_WG),
                             (size_t)cldsa_attention_tile_head_groups(&shape, cldsa_run_tune(run, "ROWS")),
                             (size_t)parts.count};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 3, global, local, MASKED_INPUT_ARGS(args),
                            CLDSA_ARG_TENSOR(args->out), CLDSA_ARG_TENSOR(args->lse),
                            CLDSA_ARG_TENSOR(cldsa_attention_scratch(run, &rows, parts.count)),
                            CLDSA_ARG_U32(n[MASKED_S]), CLDSA_ARG_U32(n[MASKED_T]), CLDSA_ARG_U32(n[MASKED_H]),
                            CLDSA_ARG_U32(parts.size), CLDSA_ARG_F32(scale_of(run) * CLDSA_LOG2_E)));
    return parts.count > 1 ? cldsa_attention_combine(run, &rows, parts.count) : CLDSA_SUCCESS;
}

const cldsa_variant cldsa_masked_attention_tile = {
    .name = "tile",
    .file = "masked_attention_tile.cl",
    .tunables = {CLDSA_TUNE_ATTENTION_TILE},
    .can_run = tile_can_run,
    .defaults = tile_defaults,
    .legal = cldsa_attention_tile_legal,
    .workspace = cldsa_masked_split_workspace,
    .enqueue = tile_forward,
};

/* ---- slab: many queries ---------------------------------------------------------------------------------------- */

static bool slab_can_run(const cldsa_run *run) {
    const cldsa_attention_shape shape = shape_of(run);
    return can_run(run) && cldsa_attention_slab_can_run(run, &shape);
}

/* Queries share the keys of simt's tiles, so that it takes more heads than in sparse attention: 16 of them over rows of
 * 576 columns, S=T=2048 and causal, take 2.7 ms on an H200, and 4.0 with simt. */
bool cldsa_masked_slab_pays(const cldsa_run *run) {
    enum { MANY_HEADS = 16 };
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

static cldsa_status slab_forward(cldsa_run *run) {
    const forward_args *args = run->args;
    char options[CLDSA_OPTIONS_MAX];
    kernel_options(run, "", options);
    const cldsa_arg keys[] = {CLDSA_ARG_TENSOR(args->mask), CLDSA_ARG_TENSOR(args->ks), CLDSA_ARG_TENSOR(args->ke)};
    const cldsa_attention_slab_call call = {.shape = shape_of(run),
                                            .q = args->q,
                                            .k = args->k,
                                            .v = args->v,
                                            .out = args->out,
                                            .lse = args->lse,
                                            .num_queries = run->dims[MASKED_S],
                                            .num_keys = run->dims[MASKED_T],
                                            .scale = scale_of(run),
                                            .options = options,
                                            .keys = keys,
                                            .num_keys_args = sizeof keys / sizeof *keys};
    return cldsa_attention_slab_enqueue(run, &call);
}

const cldsa_variant cldsa_masked_attention_slab = {
    .name = "slab",
    .file = "masked_attention_slab.cl",
    .tunables = {CLDSA_TUNE_ATTENTION_SLAB},
    .can_run = slab_can_run,
    .defaults = slab_defaults,
    .legal = cldsa_attention_slab_legal,
    .workspace = slab_workspace,
    .enqueue = slab_forward,
};
