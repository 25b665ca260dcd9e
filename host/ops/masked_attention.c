/* masked_attention and its backward pass: softmax(q k^T) v over the keys that a mask or range leaves visible. Variants
 * for heads that share a kv head are in masked_attention_heads.c. */
#include "host/ops/masked_attention.h"
#include "host/ops/pair_tile.h"
#include "host/ops/philox.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const dims[] = {"B", "S", "H", "D", "T", "Hk", "Dv", NULL};

typedef cldsa_masked_attention_args forward_args;
typedef cldsa_masked_attention_backward_args backward_args;

static const char *const range_names[] = {"all", "causal", "rows", NULL};

/* ---- checks and costs ---------------------------------------------------------------------------------------- */

static cldsa_status check_call(const cldsa_run *run, const cldsa_masked_call *call) {
    if (run->dims[MASKED_HK] > 0 && run->dims[MASKED_H] % run->dims[MASKED_HK] != 0)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: k has %lld heads; they must divide q's %lld", run->op->name,
                          (long long)run->dims[MASKED_HK], (long long)run->dims[MASKED_H]);
    if (call->k->dtype != call->q->dtype || call->v->dtype != call->q->dtype)
        return cldsa_fail(CLDSA_INVALID_DTYPE, "%s: q, k and v are %s, %s and %s; they must be the same", run->op->name,
                          cldsa_dtype_name(call->q->dtype), cldsa_dtype_name(call->k->dtype),
                          cldsa_dtype_name(call->v->dtype));
    if (call->range == CLDSA_RANGE_ROWS && (!call->ks->mem || !call->ke->mem))
        return cldsa_fail(CLDSA_MISSING_TENSOR, "%s: range \"rows\" needs ks and ke", run->op->name);
    if (!(call->dropout_p >= 0 && call->dropout_p < 1))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: dropout_p is %g; it must be at least 0 and below 1",
                          run->op->name, (double)call->dropout_p);
    return CLDSA_SUCCESS;
}

static cldsa_status check_forward(const cldsa_run *run) {
    const cldsa_masked_call call = CLDSA_MASKED_CALL((const forward_args *)run->args);
    return check_call(run, &call);
}

static cldsa_status check_backward(const cldsa_run *run) {
    const cldsa_masked_call call = CLDSA_MASKED_CALL((const backward_args *)run->args);
    return check_call(run, &call);
}

/* Pairs of a query and a key it sees, as far as the host knows: masks and row ranges count as dense. */
static double visible_pairs(const cldsa_run *run, cldsa_range range) {
    const double s = (double)run->dims[MASKED_S], t = (double)run->dims[MASKED_T];
    double pairs = s * t;
    if (range == CLDSA_RANGE_CAUSAL)
        pairs = t >= s ? s * t - s * (s - 1) / 2 : t * (t + 1) / 2;
    return pairs * (double)(run->dims[MASKED_B] * run->dims[MASKED_H]);
}

static double forward_flops(const cldsa_run *run) {
    return 2 * visible_pairs(run, ((const forward_args *)run->args)->range) *
           (double)(run->dims[MASKED_D] + run->dims[MASKED_DV]);
}

static double backward_flops(const cldsa_run *run) {
    return visible_pairs(run, ((const backward_args *)run->args)->range) *
           (6 * (double)run->dims[MASKED_D] + 4 * (double)run->dims[MASKED_DV]);
}

static double tensor_bytes(const cldsa_tensor *tensor) {
    return tensor->rank ? (double)cldsa_tensor_numel(tensor) * (double)cldsa_dtype_size(tensor->dtype) : 0;
}

static double forward_bytes(const cldsa_run *run) {
    const forward_args *a = run->args;
    return tensor_bytes(&a->q) + tensor_bytes(&a->k) + tensor_bytes(&a->v) + tensor_bytes(&a->mask) +
           tensor_bytes(&a->out) + tensor_bytes(&a->lse);
}

static double backward_bytes(const cldsa_run *run) {
    const backward_args *a = run->args;
    return tensor_bytes(&a->q) + tensor_bytes(&a->k) + tensor_bytes(&a->v) + tensor_bytes(&a->mask) +
           tensor_bytes(&a->out) + tensor_bytes(&a->lse) + tensor_bytes(&a->dout) + tensor_bytes(&a->dq) +
           tensor_bytes(&a->dk) + tensor_bytes(&a->dv);
}

/* ---- kernels ------------------------------------------------------------------------------------------------- */

void cldsa_masked_options(const cldsa_run *run, const cldsa_masked_call *call, const char *more, char *options) {
    cldsa_run_options(run, options, "-DD=%d -DDV=%d -DH=%d -DHK=%d -DDTYPE=%s -DMASK=%d -DRANGE=%d -DDROPOUT=%d %s",
                      (int)run->dims[MASKED_D], (int)run->dims[MASKED_DV], (int)run->dims[MASKED_H],
                      (int)run->dims[MASKED_HK], cldsa_dtype_macro(call->q->dtype),
                      !call->mask->mem                ? 0
                      : call->mask->dtype == CLDSA_U8 ? 1
                                                      : 2,
                      (int)call->range, call->dropout_p > 0, more);
}

static void forward_options(const cldsa_run *run, const cldsa_masked_call *call, const char *more, char *options) {
    const forward_args *args = run->args;
    char all[96];
    snprintf(all, sizeof all, "-DOUT_DTYPE=%s -DHAS_LSE=%d%s", cldsa_dtype_macro(args->out.dtype),
             args->lse.mem != NULL, more);
    cldsa_masked_options(run, call, all, options);
}

#define SHAPE_ARGS(run) CLDSA_ARG_I32((run)->dims[MASKED_S]), CLDSA_ARG_I32((run)->dims[MASKED_T])
#define DROPOUT_ARGS(call)                                                                                             \
    CLDSA_ARG_U32(cldsa_dropout_threshold((call)->dropout_p)), CLDSA_ARG_F32(cldsa_masked_dropout_scale(call)),        \
        CLDSA_ARG_U32((call)->stream), CLDSA_ARG_U64((call)->seed)

static int64_t query_tiles(const cldsa_run *run, int64_t queries) {
    return cldsa_ceil_div(run->dims[MASKED_S], queries);
}

cldsa_attention_rows cldsa_masked_rows(const cldsa_run *run) {
    const forward_args *args = run->args;
    const int64_t *n = run->dims;
    return (cldsa_attention_rows){.out = args->out,
                                  .lse = args->lse,
                                  .rows = n[MASKED_B] * n[MASKED_S] * n[MASKED_H],
                                  .heads = n[MASKED_H],
                                  .columns = n[MASKED_DV]};
}

void cldsa_masked_split_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const cldsa_attention_rows rows = cldsa_masked_rows(run);
    *preferred = cldsa_attention_parts_bytes(
        &rows, cldsa_attention_cut(run->dims[MASKED_T], MASKED_KEYS, cldsa_run_tune(run, "SPLIT")).count);
    *minimum = 0;
}

/* ---- vec ----------------------------------------------------------------------------------------------------- */

/* A work-item's tiles lie on its thread's stack; beyond this the other variant is the safe one. */
enum { VEC_STACK_BYTES = 2 << 20 };

static bool fits_stack(const cldsa_run *run, int64_t queries) {
    const int64_t columns = cldsa_round_up(run->dims[MASKED_D], 16) + cldsa_round_up(run->dims[MASKED_DV], 16);
    return 4 * (3 * MASKED_KEYS * columns + 2 * queries * columns + 2 * queries * MASKED_KEYS) <= VEC_STACK_BYTES;
}

/* Nor has a GPU that much private memory: compilers for AMD's refuse it. */
static bool vec_can_run(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->is_cpu && fits_stack(run, 32);
}

static bool vec_legal(const cldsa_run *run, const int *tune) {
    return (tune[0] == 16 || (tune[0] > 0 && tune[0] % 32 == 0)) && MASKED_KEYS % tune[1] == 0 &&
           tune[0] % tune[1] == 0 && fits_stack(run, tune[0]);
}

/* Rows of two float16 that the CPU's vector registers hold: 32 of 16 floats, else 16 of which a float16 takes 2 or 4.
 */
static int register_rows(const cldsa_run *run) {
    const int width = cldsa_context_capabilities(run->ctx)->vector_width;
    return width >= 16 ? 8 : 2;
}

/*
 * A query whose heads all read the same keys: its heads become rows, which a tile takes together. A mask or a range of
 * its own, and dropout's counters, would need the row's query.
 */
static void heads_as_rows(const forward_args *args, int64_t *n) {
    if (n[MASKED_S] == 1 && n[MASKED_HK] == 1 && !args->mask.mem && args->range != CLDSA_RANGE_ROWS &&
        args->dropout_p == 0) {
        n[MASKED_S] = n[MASKED_H];
        n[MASKED_H] = 1;
    }
}

/*
 * A large tile reads keys and values less often; a small one wastes less of a short sequence or of a causal edge, and
 * feeds more cores. Where even the smallest leave cores idle, as for one query, the keys are cut into parts.
 */
static void vec_forward_defaults(const cldsa_run *run, int *tune) {
    tune[1] = register_rows(run);
    const int64_t units = cldsa_context_device_info(run->ctx)->compute_units;
    cldsa_run tiled = *run;
    heads_as_rows(run->args, tiled.dims);
    const bool one_query = run->dims[MASKED_S] == 1;
    const bool causal = ((const forward_args *)run->args)->range == CLDSA_RANGE_CAUSAL && !one_query;
    const int64_t heads = tiled.dims[MASKED_B] * tiled.dims[MASKED_H], enough = one_query ? units : 4 * units;
    const int64_t rows = causal ? tiled.dims[MASKED_S] / 4 : tiled.dims[MASKED_S];
    for (tune[0] = 128; tune[0] > 32; tune[0] /= 2)
        if (rows > tune[0] / 2 && heads * query_tiles(&tiled, tune[0]) >= enough && fits_stack(run, tune[0]))
            break;
    if (tiled.dims[MASKED_S] <= 16) {
        tune[0] = 16;
        tune[1] *= 2; /* rows of one float16 */
    }
    tune[2] = cldsa_attention_default_split(run, heads * query_tiles(&tiled, tune[0]),
                                            cldsa_ceil_div(run->dims[MASKED_T], MASKED_KEYS), 1);
}

static cldsa_status vec_forward(cldsa_run *run) {
    cldsa_run tiled = *run;
    forward_args args = *(const forward_args *)run->args;
    heads_as_rows(&args, tiled.dims);
    if (run->dims[MASKED_S] == 1 && args.range == CLDSA_RANGE_CAUSAL)
        args.range = CLDSA_RANGE_ALL; /* the last query sees all keys, and so do its heads */
    tiled.args = &args;
    const cldsa_masked_call call = CLDSA_MASKED_CALL(&args);
    const cldsa_attention_rows rows = cldsa_masked_rows(run);
    const cldsa_attention_parts parts =
        cldsa_attention_cut_to_fit(run, &rows, run->dims[MASKED_T], MASKED_KEYS, cldsa_run_tune(run, "SPLIT"));
    char options[CLDSA_OPTIONS_MAX];
    forward_options(&tiled, &call, parts.count > 1 ? " -DPARTIAL=1" : "", options);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(&tiled, "masked_attention_vec", options, &kernel));
    const int64_t *n = tiled.dims;
    const size_t global[] = {(size_t)query_tiles(&tiled, cldsa_run_tune(run, "QUERIES")), (size_t)n[MASKED_H],
                             (size_t)(n[MASKED_B] * parts.count)};
    const size_t local[] = {1, 1, 1};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 3, global, local, MASKED_INPUT_ARGS(&args),
                            CLDSA_ARG_TENSOR(args.out), CLDSA_ARG_TENSOR(args.lse), SHAPE_ARGS(&tiled),
                            CLDSA_ARG_F32(cldsa_masked_scale(&call, n[MASKED_D]) * CLDSA_LOG2_E), DROPOUT_ARGS(&call),
                            CLDSA_ARG_TENSOR(cldsa_attention_scratch(run, &rows, parts.count)),
                            CLDSA_ARG_I32(parts.count), CLDSA_ARG_I32(parts.size)));
    return parts.count > 1 ? cldsa_attention_combine(run, &rows, parts.count) : CLDSA_SUCCESS;
}

/* Work-items own key blocks; where heads alone do not keep the device busy, the keys are cut into chunks. */
typedef struct chunk_plan {
    int64_t chunks, blocks; /* blocks of MASKED_KEYS keys in a chunk */
} chunk_plan;

static chunk_plan plan_chunks(const cldsa_run *run) {
    const int64_t units = cldsa_context_device_info(run->ctx)->compute_units;
    const int64_t blocks = cldsa_ceil_div(run->dims[MASKED_T], MASKED_KEYS),
                  heads = run->dims[MASKED_B] * run->dims[MASKED_HK];
    int64_t chunks = heads > 0 ? cldsa_ceil_div(units * cldsa_run_tune(run, "ITEMS_PER_UNIT"), heads) : 1;
    chunks = chunks > blocks ? blocks : chunks;
    chunks = chunks < 1 ? 1 : chunks;
    const int64_t size = cldsa_ceil_div(blocks, chunks);
    return (chunk_plan){.chunks = size > 0 ? cldsa_ceil_div(blocks, size) : 1, .blocks = size};
}

static size_t aligned(int64_t floats) {
    return (size_t)cldsa_round_up(floats * 4, 256);
}

/* delta per chunk; with several chunks their copies of dq too. */
static size_t delta_bytes(const cldsa_run *run, int64_t chunks) {
    return aligned(chunks * run->dims[MASKED_B] * run->dims[MASKED_S] * run->dims[MASKED_H]);
}

static void vec_backward_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const chunk_plan plan = plan_chunks(run);
    *preferred = delta_bytes(run, plan.chunks);
    if (plan.chunks > 1)
        *preferred += aligned(plan.chunks * run->dims[MASKED_B] * run->dims[MASKED_S] * run->dims[MASKED_H] *
                              run->dims[MASKED_D]);
    *minimum = delta_bytes(run, 1); /* then all keys are one chunk */
}

static void vec_backward_defaults(const cldsa_run *run, int *tune) {
    tune[1] = register_rows(run);
}

static cldsa_status vec_backward(cldsa_run *run) {
    const backward_args *args = run->args;
    const cldsa_masked_call call = CLDSA_MASKED_CALL(args);
    chunk_plan plan = plan_chunks(run);
    size_t preferred, minimum;
    vec_backward_workspace(run, &preferred, &minimum);
    if (run->workspace_bytes < preferred)
        plan = (chunk_plan){.chunks = 1, .blocks = cldsa_ceil_div(run->dims[MASKED_T], MASKED_KEYS)};

    const int64_t rows = run->dims[MASKED_B] * run->dims[MASKED_S] * run->dims[MASKED_H],
                  count = rows * run->dims[MASKED_D];
    const cldsa_tensor delta = cldsa_run_scratch(run, 0, CLDSA_F32, plan.chunks * rows);
    const cldsa_tensor parts =
        plan.chunks == 1 ? args->dq
                         : cldsa_run_scratch(run, delta_bytes(run, plan.chunks), CLDSA_F32, plan.chunks * count);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_masked_options(run, &call, "", options);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "masked_attention_backward_vec", options, &kernel));
    const size_t one[] = {1, 1, 1};
    const size_t global[] = {(size_t)plan.chunks, (size_t)run->dims[MASKED_HK], (size_t)run->dims[MASKED_B]};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 3, global, one, MASKED_INPUT_ARGS(args), CLDSA_ARG_TENSOR(args->out),
                            CLDSA_ARG_TENSOR(args->lse), CLDSA_ARG_TENSOR(args->dout), CLDSA_ARG_TENSOR(parts),
                            CLDSA_ARG_TENSOR(args->dk), CLDSA_ARG_TENSOR(args->dv), CLDSA_ARG_TENSOR(delta),
                            SHAPE_ARGS(run), CLDSA_ARG_I32(plan.blocks),
                            CLDSA_ARG_F32(cldsa_masked_scale(&call, run->dims[MASKED_D])), DROPOUT_ARGS(&call)));
    if (plan.chunks == 1)
        return CLDSA_SUCCESS;
    CLDSA_TRY(cldsa_run_kernel(run, "masked_attention_backward_sum", options, &kernel));
    const size_t sums = (size_t)cldsa_ceil_div(count, 16);
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &sums, NULL, CLDSA_ARG_TENSOR(parts), CLDSA_ARG_TENSOR(args->dq),
                         CLDSA_ARG_U64(count), CLDSA_ARG_I32(plan.chunks));
}

/* ---- simt ---------------------------------------------------------------------------------------------------- */

enum { ROWS = PAIR_ROWS, WG = PAIR_WG, DEPTH = PAIR_DEPTH, UNROLL = PAIR_TUNABLES };
_Static_assert((int)PAIR_TILE_KEYS == (int)MASKED_KEYS, "a tile has the keys of one of dropout's counters");

static bool simt_legal(const cldsa_run *run, const int *tune) {
    return cldsa_pair_tile_legal(run, tune, 20); /* of `red` */
}

/*
 * NVIDIA's GPUs have the registers for twice as many sums in half as many work-items, as long as rows are narrow; with
 * 32 columns at a time some would spill.
 */
static void simt_defaults(const cldsa_run *run, int *tune) {
    const bool nvidia = cldsa_context_capabilities(run->ctx)->nv_ptx;
    const int64_t columns = run->dims[MASKED_D] > run->dims[MASKED_DV] ? run->dims[MASKED_D] : run->dims[MASKED_DV];
    tune[UNROLL] = cldsa_default_unroll(run);
    if (nvidia)
        tune[DEPTH] = 16;
    if (nvidia && columns <= 64) {
        tune[ROWS] = 8;
        tune[WG] = 128;
    } else if (cldsa_few_registers(run) || (!nvidia && run->dims[MASKED_DV] > 256)) {
        tune[ROWS] = 2;
    }
    while (tune[ROWS] > 1 && !simt_legal(run, tune))
        tune[ROWS] /= 2;
}

/* Keys have two gradients: twice the sums in registers. */
static void simt_backward_defaults(const cldsa_run *run, int *tune) {
    simt_defaults(run, tune);
    if (!cldsa_few_registers(run))
        return;
    if (run->dims[MASKED_D] > 64 || run->dims[MASKED_DV] > 64)
        tune[ROWS] = 1;
    else
        tune[DEPTH] = 16;
}

static bool simt_can_run(const cldsa_run *run) {
    return simt_legal(run, (int[]){[ROWS] = 1, [WG] = 256});
}

/* Whether rows can be read four elements at a time, which is a load instead of four. */
static void rows_in_fours(const cldsa_run *run, const cldsa_masked_call *call, const cldsa_tensor *dout,
                          char text[64]) {
    const int64_t d = run->dims[MASKED_D], dv = run->dims[MASKED_DV];
    snprintf(text, 64, " -DQ_VEC=%d -DK_VEC=%d -DV_VEC=%d -DDOUT_VEC=%d", cldsa_rows_in_fours(call->q, d),
             cldsa_rows_in_fours(call->k, d), cldsa_rows_in_fours(call->v, dv), dout && cldsa_rows_in_fours(dout, dv));
}

static cldsa_status simt_forward(cldsa_run *run) {
    const forward_args *args = run->args;
    const cldsa_masked_call call = CLDSA_MASKED_CALL(args);
    char options[CLDSA_OPTIONS_MAX], fours[64];
    rows_in_fours(run, &call, NULL, fours);
    forward_options(run, &call, fours, options);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "masked_attention_simt", options, &kernel));
    const size_t global[] = {(size_t)query_tiles(run, cldsa_pair_tile_queries(run->tune)) * (size_t)run->tune[WG],
                             (size_t)run->dims[MASKED_H], (size_t)run->dims[MASKED_B]};
    const size_t local[] = {(size_t)run->tune[WG], 1, 1};
    return CLDSA_ENQUEUE(&run->stream, kernel, 3, global, local, MASKED_INPUT_ARGS(args), CLDSA_ARG_TENSOR(args->out),
                         CLDSA_ARG_TENSOR(args->lse), SHAPE_ARGS(run),
                         CLDSA_ARG_F32(cldsa_masked_scale(&call, run->dims[MASKED_D]) * CLDSA_LOG2_E),
                         DROPOUT_ARGS(&call));
}

static void simt_backward_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    *preferred = *minimum = delta_bytes(run, 1);
}

static cldsa_status simt_backward(cldsa_run *run) {
    const backward_args *args = run->args;
    const cldsa_masked_call call = CLDSA_MASKED_CALL(args);
    const int64_t rows = run->dims[MASKED_B] * run->dims[MASKED_S] * run->dims[MASKED_H];
    const cldsa_tensor delta = cldsa_run_scratch(run, 0, CLDSA_F32, rows);
    const size_t local[] = {(size_t)run->tune[WG], 1, 1};
    const cl_float scale = (cl_float)cldsa_masked_scale(&call, run->dims[MASKED_D]);
    char options[CLDSA_OPTIONS_MAX], fours[64];
    rows_in_fours(run, &call, &args->dout, fours);
    cldsa_masked_options(run, &call, fours, options);
    cldsa_kernel *kernel;

    CLDSA_TRY(cldsa_run_kernel(run, "masked_attention_backward_delta", options, &kernel));
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 1, &(size_t){(size_t)rows}, local, CLDSA_ARG_TENSOR(args->out),
                            CLDSA_ARG_TENSOR(args->dout), CLDSA_ARG_TENSOR(delta), CLDSA_ARG_U64(rows)));

    CLDSA_TRY(cldsa_run_kernel(run, "masked_attention_backward_dq", options, &kernel));
    const size_t query_groups[] = {(size_t)query_tiles(run, cldsa_pair_tile_queries(run->tune)) * (size_t)run->tune[WG],
                                   (size_t)run->dims[MASKED_H], (size_t)run->dims[MASKED_B]};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 3, query_groups, local, MASKED_INPUT_ARGS(args),
                            CLDSA_ARG_TENSOR(args->lse), CLDSA_ARG_TENSOR(args->dout), CLDSA_ARG_TENSOR(delta),
                            CLDSA_ARG_TENSOR(args->dq), SHAPE_ARGS(run), CLDSA_ARG_F32(scale), DROPOUT_ARGS(&call)));

    CLDSA_TRY(cldsa_run_kernel(run, "masked_attention_backward_dkv", options, &kernel));
    const size_t key_groups[] = {(size_t)cldsa_ceil_div(run->dims[MASKED_T], MASKED_KEYS) * (size_t)run->tune[WG],
                                 (size_t)run->dims[MASKED_HK], (size_t)run->dims[MASKED_B]};
    return CLDSA_ENQUEUE(&run->stream, kernel, 3, key_groups, local, MASKED_INPUT_ARGS(args),
                         CLDSA_ARG_TENSOR(args->lse), CLDSA_ARG_TENSOR(args->dout), CLDSA_ARG_TENSOR(delta),
                         CLDSA_ARG_TENSOR(args->dk), CLDSA_ARG_TENSOR(args->dv), SHAPE_ARGS(run), CLDSA_ARG_F32(scale),
                         DROPOUT_ARGS(&call));
}

/* ---- tables -------------------------------------------------------------------------------------------------- */

static int prefer_vec_on_cpu(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->is_cpu && vec_can_run(run) ? 0 : 1;
}

/* Queries are the rows of simt's tiles, heads of one kv head those of tile's; whichever are more fill theirs better. */
static int choose_forward(const cldsa_run *run) {
    enum { TILE = 2, SLAB = 3, SIMT_QUERIES = 64, TILE_HEADS = 16 };
    const int chosen = prefer_vec_on_cpu(run);
    if (chosen == 0)
        return chosen;
    if (cldsa_masked_slab_pays(run))
        return SLAB;
    const int64_t queries = run->dims[MASKED_S], group = run->dims[MASKED_H] / run->dims[MASKED_HK];
    const bool few = queries < SIMT_QUERIES && queries * TILE_HEADS < group * SIMT_QUERIES;
    return few && cldsa_masked_attention_tile.can_run(run) ? TILE : chosen;
}

#define TILE_ROWS_TUNABLE                                                                                              \
    { "TILE_ROWS", 8, {1, 2, 4, 8, 16}, "rows of a register tile" }

static const cldsa_variant forward_vec = {
    .name = "vec",
    .file = "masked_attention_vec.cl",
    .tunables = {{"QUERIES", 64, {16, 32, 64, 128}, "queries of a work-item"},
                 TILE_ROWS_TUNABLE,
                 CLDSA_TUNE_ATTENTION_SPLIT},
    .can_run = vec_can_run,
    .defaults = vec_forward_defaults,
    .legal = vec_legal,
    .workspace = cldsa_masked_split_workspace,
    .enqueue = vec_forward,
};

static const cldsa_variant forward_simt = {
    .name = "simt",
    .file = "masked_attention_simt.cl",
    .tunables = {CLDSA_TUNE_PAIR_TILE, CLDSA_TUNE_UNROLL},
    .can_run = simt_can_run,
    .defaults = simt_defaults,
    .legal = simt_legal,
    .enqueue = simt_forward,
};

static const cldsa_variant backward_vec = {
    .name = "vec",
    .file = "masked_attention_backward_vec.cl",
    .tunables = {{"QUERIES", 64, {32, 64, 128}, "queries of a step"},
                 TILE_ROWS_TUNABLE,
                 {"ITEMS_PER_UNIT", 2, {1, 2, 4}, "work-items wanted for each compute unit"}},
    .can_run = vec_can_run,
    .defaults = vec_backward_defaults,
    .legal = vec_legal,
    .workspace = vec_backward_workspace,
    .enqueue = vec_backward,
};

static const cldsa_variant backward_simt = {
    .name = "simt",
    .file = "masked_attention_backward_simt.cl",
    .tunables = {CLDSA_TUNE_PAIR_TILE, CLDSA_TUNE_UNROLL},
    .can_run = simt_can_run,
    .defaults = simt_backward_defaults,
    .legal = simt_legal,
    .workspace = simt_backward_workspace,
    .enqueue = simt_backward,
};

#define PARAMS(A)                                                                                                      \
    CLDSA_PARAM_ENUM(A, range, range_names, "which keys a row may see"),                                               \
        CLDSA_PARAM(A, softmax_scale, FLOAT, 0, -1e30, 1e30, "0 means D^-1/2"),                                        \
        CLDSA_PARAM(A, dropout_p, FLOAT, 0, 0, 1, "probability of dropping a weight"),                                 \
        CLDSA_PARAM(A, dropout_seed, U64, 0, 0, 18446744073709551615.0, "seed of the dropout words"),                  \
        CLDSA_PARAM(A, dropout_stream, U32, 0, 0, 4294967295.0, "stream of the dropout words"), {                      \
        .name = NULL                                                                                                   \
    }

/* The tensors' order is that of F_Q, F_K, ... above. */
static const cldsa_field forward_fields[] = {
    CLDSA_IN(forward_args, q, "B S H D", CLDSA_ACCEPT_FLOAT, "queries"),
    CLDSA_IN(forward_args, k, "B T Hk D", CLDSA_ACCEPT_FLOAT, "keys, in the dtype of q"),
    CLDSA_IN(forward_args, v, "B T Hk Dv", CLDSA_ACCEPT_FLOAT, "values, in the dtype of q"),
    CLDSA_IN_OPT(forward_args, mask, "B S #T", CLDSA_ACCEPT_MASK, "visible keys, bytes or bits"),
    CLDSA_IN_OPT(forward_args, ks, "B S", CLDSA_ACCEPT_I32, "first visible key of a row"),
    CLDSA_IN_OPT(forward_args, ke, "B S", CLDSA_ACCEPT_I32, "end of the visible keys of a row"),
    CLDSA_OUT(forward_args, out, "B S H Dv", CLDSA_ACCEPT_FLOAT, "weighted values"),
    CLDSA_OUT_OPT(forward_args, lse, "B S H", CLDSA_ACCEPT_F32, "log of the sum of exponentials; +inf without keys"),
    PARAMS(forward_args),
};

static const cldsa_field backward_fields[] = {
    CLDSA_IN(backward_args, q, "B S H D", CLDSA_ACCEPT_FLOAT, "queries"),
    CLDSA_IN(backward_args, k, "B T Hk D", CLDSA_ACCEPT_FLOAT, "keys, in the dtype of q"),
    CLDSA_IN(backward_args, v, "B T Hk Dv", CLDSA_ACCEPT_FLOAT, "values, in the dtype of q"),
    CLDSA_IN_OPT(backward_args, mask, "B S #T", CLDSA_ACCEPT_MASK, "as given to the forward call"),
    CLDSA_IN_OPT(backward_args, ks, "B S", CLDSA_ACCEPT_I32, "as given to the forward call"),
    CLDSA_IN_OPT(backward_args, ke, "B S", CLDSA_ACCEPT_I32, "as given to the forward call"),
    CLDSA_IN(backward_args, out, "B S H Dv", CLDSA_ACCEPT_F32, "of the forward call"),
    CLDSA_IN(backward_args, lse, "B S H", CLDSA_ACCEPT_F32, "of the forward call"),
    {.name = "dout",
     .kind = CLDSA_FIELD_IN,
     .at = offsetof(backward_args, dout),
     .shape = "B S H Dv",
     .dtypes = CLDSA_ACCEPT_F32,
     .grad = "in.dout",
     .help = "upstream gradient"},
    CLDSA_OUT(backward_args, dq, "B S H D", CLDSA_ACCEPT_F32, "gradient of q"),
    CLDSA_OUT(backward_args, dk, "B T Hk D", CLDSA_ACCEPT_F32, "gradient of k"),
    CLDSA_OUT(backward_args, dv, "B T Hk Dv", CLDSA_ACCEPT_F32, "gradient of v"),
    PARAMS(backward_args),
};

static const cldsa_variant *const forward_variants[] = {&forward_vec, &forward_simt, &cldsa_masked_attention_tile,
                                                        &cldsa_masked_attention_slab, NULL};
static const cldsa_variant *const backward_variants[] = {&backward_vec, &backward_simt, NULL};

const cldsa_op cldsa_op_masked_attention = {
    .name = "masked_attention",
    .summary = "attention over the keys that a mask or range leaves visible",
    .args_size = sizeof(forward_args),
    .dims = dims,
    .fields = forward_fields,
    .variants = forward_variants,
    .choose = choose_forward,
    .check = check_forward,
    .reference = cldsa_masked_attention_reference,
    .flops = forward_flops,
    .bytes = forward_bytes,
    .tolerance_abs = 1e-5,
    .tolerance_rel = 1e-5,
};

const cldsa_op cldsa_op_masked_attention_backward = {
    .name = "masked_attention_backward",
    .summary = "gradients of masked_attention",
    .args_size = sizeof(backward_args),
    .dims = dims,
    .fields = backward_fields,
    .variants = backward_variants,
    .choose = prefer_vec_on_cpu,
    .check = check_backward,
    .reference = cldsa_masked_attention_backward_reference,
    .flops = backward_flops,
    .bytes = backward_bytes,
    .tolerance_abs = 4e-5,
    .tolerance_rel = 4e-5,
};

CLDSA_DEFINE_OP(masked_attention)
CLDSA_DEFINE_OP(masked_attention_backward)

cldsa_status cldsa_masked_attention_workspace_min(cldsa_context *ctx, const cldsa_masked_attention_args *args,
                                                  size_t *bytes) {
    return cldsa_op_workspace(ctx, &cldsa_op_masked_attention, args, NULL, bytes);
}
