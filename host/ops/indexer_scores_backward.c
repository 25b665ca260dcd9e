/* Gradients of the indexer's scores. Kernels: cl/indexer_scores_backward_vec.cl, cl/indexer_scores_backward_simt.cl. */
#include <cldsa/reduce.h>

#include "host/ops/host_tensor.h"
#include "host/ops/indexer_scores.h"
#include "host/ops/pair_tile.h"

#include <stdio.h>

extern const cldsa_op cldsa_op_column_sum;

typedef cldsa_indexer_scores_backward_args args_t;

static const char *const dims[] = {CLDSA_INDEXER_DIMS, NULL};

static const cldsa_field fields[] = {
    CLDSA_INDEXER_FIELDS(args_t),
    CLDSA_GRAD(args_t, dscores, "B S T", CLDSA_ACCEPT_F32, "in.dI", "gradient of the scores"),
    CLDSA_OUT(args_t, dq, "B S H D", CLDSA_ACCEPT_F32, "gradient of q"),
    CLDSA_OUT(args_t, dk, "B T Hk D", CLDSA_ACCEPT_F32, "gradient of k"),
    CLDSA_OUT(args_t, dw, "H|B S H", CLDSA_ACCEPT_F32, "gradient of w, in its shape"),
    CLDSA_INDEXER_PARAMS(args_t),
    {0},
};
enum { DSCORES = CLDSA_INDEXER_NUM_INPUTS, DQ, DK, DW }; /* in the table above */

static cldsa_indexer_inputs inputs(const cldsa_run *run) {
    return CLDSA_INDEXER_INPUTS((const args_t *)run->args, run->dims);
}

static cldsa_status check(const cldsa_run *run) {
    const args_t *a = run->args;
    cldsa_indexer_inputs in = inputs(run);
    CLDSA_TRY(cldsa_indexer_check(run, &in));
    if (a->dw.rank != a->w.rank)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: dw has rank %d; it must have the shape of w, rank %d",
                          run->op->name, a->dw.rank, a->w.rank);
    return CLDSA_SUCCESS;
}

/* ---- scratch --------------------------------------------------------------------------------------------------- */

/*
 * gate: with relu_out, the forward's scores; the gradient passes where they are above 0.
 * rows: with w [H], dw of every query [B,S,H], of which dw is the sum; sum_at is the scratch of that sum.
 * parts: if more than one, dk of every part [parts, B*T*Hk*D], of which dk is the sum; part_sum_at likewise.
 */
typedef struct scratch {
    int parts;
    size_t gate_at, rows_at, sum_at, sum_bytes, parts_at, part_sum_at, part_sum_bytes, total;
} scratch;

static cldsa_column_sum_args sum_args(const cldsa_run *run, cldsa_tensor rows) {
    const args_t *a = run->args;
    cldsa_indexer_inputs in = inputs(run);
    return (cldsa_column_sum_args){.x = CLDSA_TENSOR(rows.mem, rows.offset, CLDSA_F32, in.B * in.S, in.H), .y = a->dw};
}

static int64_t dk_numel(const cldsa_run *run) {
    const cldsa_indexer_inputs in = inputs(run);
    return in.B * in.T * in.Hk * in.D;
}

static cldsa_column_sum_args part_sum_args(const cldsa_run *run, int parts, cldsa_tensor all) {
    const args_t *a = run->args;
    return (cldsa_column_sum_args){.x = CLDSA_TENSOR(all.mem, all.offset, CLDSA_F32, parts, dk_numel(run)),
                                   .y = CLDSA_TENSOR(a->dk.mem, a->dk.offset, CLDSA_F32, dk_numel(run))};
}

static scratch lay_out(const cldsa_run *run, int parts) {
    enum { ALIGNMENT = 256 };
    cldsa_indexer_inputs in = inputs(run);
    scratch s = {.parts = parts};
    size_t minimum = 0;
    if (in.relu_out)
        s.rows_at = (size_t)cldsa_round_up(in.B * in.S * in.T * (int64_t)sizeof(cl_float), ALIGNMENT);
    s.sum_at = s.total = s.rows_at;
    if (in.w->rank == 1) {
        s.sum_at += (size_t)cldsa_round_up(in.B * in.S * in.H * (int64_t)sizeof(cl_float), ALIGNMENT);
        cldsa_column_sum_args sum = sum_args(run, *in.w);
        cldsa_run_sub_workspace(run, &cldsa_op_column_sum, &sum, &s.sum_bytes, &minimum);
        s.total = s.sum_at + s.sum_bytes;
    }
    if (parts > 1) {
        s.parts_at = (size_t)cldsa_round_up((int64_t)s.total, ALIGNMENT);
        s.part_sum_at =
            s.parts_at + (size_t)cldsa_round_up(parts * dk_numel(run) * (int64_t)sizeof(cl_float), ALIGNMENT);
        cldsa_column_sum_args sum = part_sum_args(run, parts, *in.w);
        cldsa_run_sub_workspace(run, &cldsa_op_column_sum, &sum, &s.part_sum_bytes, &minimum);
        s.total = s.part_sum_at + s.part_sum_bytes;
    }
    return s;
}

/* As many parts as wanted, or as there is room for. */
static scratch lay_out_to_fit(const cldsa_run *run) {
    int parts = cldsa_run_tune(run, "SPLIT");
    while (parts > 1 && lay_out(run, parts).total > run->workspace_bytes)
        parts /= 2;
    return lay_out(run, parts);
}

static void workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    *preferred = lay_out(run, cldsa_run_tune(run, "SPLIT")).total;
    *minimum = lay_out(run, 1).total;
}

/* ---- launches, common to both variants ------------------------------------------------------------------------- */

/* What one work-group owns of queries or of keys, its work-items, and how many share the columns. */
typedef struct launch_shape {
    const char *queries, *keys; /* kernel names */
    int64_t query_tile, key_tile, column_groups;
    size_t items;
} launch_shape;

/* With relu_out, computes the scores again: only their sign matters, but it depends on all heads. */
static cldsa_status enqueue_gate(cldsa_run *run, cldsa_tensor gate) {
    const args_t *a = run->args;
    cldsa_indexer_inputs in = inputs(run);
    cldsa_indexer_scores_args forward = {.q = a->q,
                                         .k = a->k,
                                         .w = a->w,
                                         .k_scale = a->k_scale,
                                         .ks = a->ks,
                                         .ke = a->ke,
                                         .scores = CLDSA_TENSOR(gate.mem, gate.offset, CLDSA_F32, in.B, in.S, in.T),
                                         .range = a->range,
                                         .relu_out = true};
    return cldsa_run_sub(run, &cldsa_op_indexer_scores, &forward, 0, 0);
}

static cldsa_status enqueue_gradients(cldsa_run *run, const launch_shape *shape, const char *more) {
    const args_t *a = run->args;
    cldsa_indexer_inputs in = inputs(run);
    const scratch s = lay_out_to_fit(run);
    cldsa_tensor dk = a->dk, gate = a->dscores, rows = a->dw; /* stand-ins where there is no scratch */
    if (in.relu_out) {
        gate = cldsa_run_scratch(run, s.gate_at, CLDSA_F32, in.B * in.S * in.T);
        CLDSA_TRY(enqueue_gate(run, gate));
    }
    if (a->w.rank == 1)
        rows = cldsa_run_scratch(run, s.rows_at, CLDSA_F32, in.B * in.S * in.H);

    char options[CLDSA_OPTIONS_MAX];
    cldsa_indexer_options(run, &in, options, more);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, shape->queries, options, &kernel));
    size_t local[3] = {shape->items, 1, 1};
    size_t over_queries[3] = {(size_t)cldsa_ceil_div(in.S, shape->query_tile) * shape->items,
                              (size_t)(in.H * shape->column_groups), (size_t)in.B};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 3, over_queries, local, CLDSA_ARG_TENSOR(a->q),
                            CLDSA_ARG_TENSOR(a->k), CLDSA_ARG_TENSOR(a->w), CLDSA_ARG_TENSOR(a->k_scale),
                            CLDSA_ARG_TENSOR(a->ks), CLDSA_ARG_TENSOR(a->ke), CLDSA_ARG_TENSOR(a->dscores),
                            CLDSA_ARG_TENSOR(gate), CLDSA_ARG_TENSOR(a->dq), CLDSA_ARG_TENSOR(rows),
                            CLDSA_ARG_I32(in.S), CLDSA_ARG_I32(in.T)));
    CLDSA_TRY(cldsa_run_kernel(run, shape->keys, options, &kernel));
    if (s.parts > 1)
        dk = cldsa_run_scratch(run, s.parts_at, CLDSA_F32, s.parts * dk_numel(run));
    size_t over_keys[3] = {(size_t)cldsa_ceil_div(in.T, shape->key_tile) * shape->items,
                           (size_t)(in.Hk * shape->column_groups * s.parts), (size_t)in.B};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 3, over_keys, local, CLDSA_ARG_TENSOR(a->q), CLDSA_ARG_TENSOR(a->k),
                            CLDSA_ARG_TENSOR(a->w), CLDSA_ARG_TENSOR(a->k_scale), CLDSA_ARG_TENSOR(a->ks),
                            CLDSA_ARG_TENSOR(a->ke), CLDSA_ARG_TENSOR(a->dscores), CLDSA_ARG_TENSOR(gate),
                            CLDSA_ARG_TENSOR(dk), CLDSA_ARG_I32(in.S), CLDSA_ARG_I32(in.T), CLDSA_ARG_I32(s.parts)));
    if (s.parts > 1) {
        cldsa_column_sum_args sum = part_sum_args(run, s.parts, dk);
        CLDSA_TRY(cldsa_run_sub(run, &cldsa_op_column_sum, &sum, s.part_sum_at, s.part_sum_bytes));
    }
    if (a->w.rank > 1)
        return CLDSA_SUCCESS;
    cldsa_column_sum_args sum = sum_args(run, rows);
    return cldsa_run_sub(run, &cldsa_op_column_sum, &sum, s.sum_at, s.sum_bytes);
}

/* The parts of the keys' pass: enough for every compute unit to have several work-groups. */
#define TUNE_SPLIT                                                                                                     \
    { "SPLIT", 1, {1, 2, 4, 8, 16, 32, 64}, "parts of the queries whose gradients of k are added at the end, at most" }

static int default_split(const cldsa_run *run, int64_t groups, int per_unit) {
    enum { MOST = 64, MOST_BYTES = 256 << 20 };
    const int64_t wanted = (int64_t)cldsa_context_device_info(run->ctx)->compute_units * per_unit;
    const int64_t bytes = dk_numel(run) * (int64_t)sizeof(cl_float);
    int split = 1;
    while (groups * split < wanted && split < MOST && 2 * split * bytes <= MOST_BYTES)
        split *= 2;
    return split;
}

/* ---- vec ------------------------------------------------------------------------------------------------------- */

enum { NV, MR, MD, BLOCK_TILES, VEC_SPLIT };

static bool vec_can_run(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->is_cpu; /* panels lie in private memory: a GPU has little of it */
}

static void vec_defaults(const cldsa_run *run, int *tune) {
    int width = cldsa_context_capabilities(run->ctx)->vector_width;
    if (width < 16) { /* half as many registers, or each a quarter of a vector */
        tune[NV] = 1;
        tune[MR] = tune[MD] = width == 8 ? 6 : 4;
    }
    const cldsa_indexer_inputs in = inputs(run);
    tune[VEC_SPLIT] = default_split(run, in.B * in.Hk * cldsa_ceil_div(in.T, 16 * tune[NV]), 1);
}

static cldsa_status vec_enqueue(cldsa_run *run) {
    const int64_t tile = 16 * run->tune[NV];
    const launch_shape shape = {
        "indexer_scores_backward_queries_vec", "indexer_scores_backward_keys_vec", tile, tile, 1, 1};
    return enqueue_gradients(run, &shape, "");
}

static const cldsa_variant vec = {
    .name = "vec",
    .file = "indexer_scores_backward_vec.cl",
    .tunables = {{"NV", 4, {1, 2, 4}, "float16 vectors of queries or keys that a work-item owns"},
                 {"MR", 6, {4, 6, 8, 12}, "rows of the other side in a register tile of products"},
                 {"MD", 6, {2, 4, 6, 8}, "columns of the other side in a register tile of the gradient"},
                 {"BLOCK_TILES", 8, {4, 8, 16}, "register tiles per block of the other side"},
                 TUNE_SPLIT},
    .can_run = vec_can_run,
    .defaults = vec_defaults,
    .workspace = workspace,
    .enqueue = vec_enqueue,
};

/* ---- simt ------------------------------------------------------------------------------------------------------ */

enum { ROWS = PAIR_ROWS, WG = PAIR_WG, DBLOCK = PAIR_TUNABLES, UNROLL, SIMT_SPLIT };
enum { GROUPS_PER_UNIT = 8 };

static bool simt_legal(const cldsa_run *run, const int *tune) {
    return cldsa_pair_tile_legal(run, tune, 0);
}

static bool simt_can_run(const cldsa_run *run) {
    return simt_legal(run, (int[]){[ROWS] = 1, [WG] = 256});
}

static void simt_defaults(const cldsa_run *run, int *tune) {
    const bool few = cldsa_few_registers(run);
    tune[ROWS] = few ? 2 : 4;
    while (tune[ROWS] > 1 && !simt_legal(run, tune))
        tune[ROWS] /= 2;
    tune[DBLOCK] = inputs(run).D > 64 && !few ? 128 : 64;
    tune[UNROLL] = cldsa_default_unroll(run);
    if (tune[DBLOCK] > 64 && cldsa_context_capabilities(run->ctx)->nv_ptx)
        tune[WG] = 128; /* as the tuner found on an H200: 1.1 x */
    const cldsa_indexer_inputs in = inputs(run);
    tune[SIMT_SPLIT] = default_split(
        run, in.B * in.Hk * cldsa_ceil_div(in.T, PAIR_TILE_KEYS) * cldsa_ceil_div(in.D, tune[DBLOCK]), GROUPS_PER_UNIT);
}

static cldsa_status simt_enqueue(cldsa_run *run) {
    const cldsa_indexer_inputs in = inputs(run);
    const launch_shape shape = {"indexer_scores_backward_queries_simt",  "indexer_scores_backward_keys_simt",
                                cldsa_pair_tile_queries(run->tune),      PAIR_TILE_KEYS,
                                cldsa_ceil_div(in.D, run->tune[DBLOCK]), (size_t)run->tune[WG]};
    char more[INDEXER_FOURS];
    cldsa_indexer_fours(&in, more);
    return enqueue_gradients(run, &shape, more);
}

static const cldsa_variant simt = {
    .name = "simt",
    .file = "indexer_scores_backward_simt.cl",
    .tunables = {CLDSA_TUNE_PAIR_TILE,
                 {"DBLOCK", 64, {64, 128}, "columns of a gradient that a work-group owns"},
                 CLDSA_TUNE_UNROLL,
                 TUNE_SPLIT},
    .can_run = simt_can_run,
    .defaults = simt_defaults,
    .legal = simt_legal,
    .workspace = workspace,
    .enqueue = simt_enqueue,
};

/* ---- the definition -------------------------------------------------------------------------------------------- */

/*
 * Adds what one visible pair contributes for an upstream gradient `up` of its score. A factor of 0 is no contribution,
 * whatever it multiplies.
 */
static void add_pair(const cldsa_reference_call *call, const cldsa_indexer_inputs *in, int64_t b, int64_t i, int64_t j,
                     double up) {
    const cldsa_host_tensor *t = call->tensors;
    double total = 0, dot[in->H];
    for (int64_t h = 0; h < in->H; ++h) {
        const double *x = t[0].data + ((b * in->S + i) * in->H + h) * in->D;
        const double *y = t[1].data + ((b * in->T + j) * in->Hk + (in->Hk == 1 ? 0 : h)) * in->D;
        dot[h] = 0;
        for (int64_t d = 0; d < in->D; ++d)
            dot[h] += x[d] * y[d];
        total += t[2].data[t[2].rank == 1 ? h : (b * in->S + i) * in->H + h] * cldsa_indexer_relu(dot[h]);
    }
    if (t[3].data) {
        up *= t[3].data[b * in->T + j];
        total *= t[3].data[b * in->T + j];
    }
    if (up == 0 || (in->relu_out && !(total > 0)))
        return;
    for (int64_t h = 0; h < in->H; ++h) {
        int64_t w_at = t[2].rank == 1 ? h : (b * in->S + i) * in->H + h;
        int64_t q_at = ((b * in->S + i) * in->H + h) * in->D;
        int64_t k_at = ((b * in->T + j) * in->Hk + (in->Hk == 1 ? 0 : h)) * in->D;
        double weight = dot[h] > 0 ? up * t[2].data[w_at] : 0;
        t[DW].data[w_at] += up * cldsa_indexer_relu(dot[h]);
        for (int64_t d = 0; d < in->D && weight != 0; ++d) {
            t[DQ].data[q_at + d] += weight * t[1].data[k_at + d];
            t[DK].data[k_at + d] += weight * t[0].data[q_at + d];
        }
    }
}

static void reference(const cldsa_reference_call *call) {
    const cldsa_indexer_inputs in = CLDSA_INDEXER_INPUTS((const args_t *)call->args, call->dims);
    for (int out = DQ; out <= DW; ++out)
        for (int64_t e = 0; e < cldsa_host_numel(&call->tensors[out]); ++e)
            call->tensors[out].data[e] = 0;
    for (int64_t b = 0; b < in.B; ++b)
        for (int64_t i = 0; i < in.S; ++i)
            for (int64_t j = 0; j < in.T; ++j)
                if (cldsa_indexer_visible(&in, call->tensors, b, i, j))
                    add_pair(call, &in, b, i, j, call->tensors[DSCORES].data[(b * in.S + i) * in.T + j]);
}

/* Useful are three products: the dots, dq and dk. */
static double flops(const cldsa_run *run) {
    cldsa_indexer_inputs in = inputs(run);
    return 6 * cldsa_indexer_pairs(&in) * (double)(in.H * in.D);
}

static double bytes(const cldsa_run *run) {
    const args_t *a = run->args;
    return (double)(cldsa_tensor_numel(&a->q) + cldsa_tensor_numel(&a->k)) *
               (double)(cldsa_dtype_size(a->q.dtype) + sizeof(cl_float)) +
           (double)cldsa_tensor_numel(&a->dscores) * sizeof(cl_float);
}

static const cldsa_variant *const variants[] = {&vec, &simt, NULL};

const cldsa_op cldsa_op_indexer_scores_backward = {
    .name = "indexer_scores_backward",
    .summary = "gradients of indexer_scores for q, k and w",
    .args_size = sizeof(args_t),
    .dims = dims,
    .fields = fields,
    .variants = variants,
    .choose = cldsa_choose_vec_or_simt,
    .check = check,
    .reference = reference,
    .flops = flops,
    .bytes = bytes,
    .tolerance_abs = 1e-4,
    .tolerance_rel = 5e-5,
};
CLDSA_DEFINE_OP(indexer_scores_backward)
