/* Attention over a selection, backward. The GPU variants are in sparse_attention_backward_gpu.c. Kernels of this file:
 * cl/sparse_attention_backward_vec.cl. */
#include <cldsa/sparse_attention.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/ops/sparse_attention.h"

#define F32    CLDSA_ACCEPT_F32
#define I32    CLDSA_ACCEPT(CLDSA_I32)
#define FLOATS CLDSA_ACCEPT_FLOAT

static const cldsa_field fields[] = {
    CLDSA_IN(cldsa_sparse_attention_backward_args, q, "B S H D", FLOATS, "as given to the forward call"),
    CLDSA_IN(cldsa_sparse_attention_backward_args, k, "B T Hk D", FLOATS, "as given to the forward call"),
    CLDSA_IN_OPT(cldsa_sparse_attention_backward_args, v, "B T Hk Dv", FLOATS, "as given to the forward call"),
    CLDSA_IN(cldsa_sparse_attention_backward_args, indices, "B S K", I32, "as given to the forward call"),
    CLDSA_IN_OPT(cldsa_sparse_attention_backward_args, topk_length, "B S", I32, "as given to the forward call"),
    CLDSA_IN_OPT(cldsa_sparse_attention_backward_args, attn_sink, "H", F32, "as given to the forward call"),
    CLDSA_IN(cldsa_sparse_attention_backward_args, out, "B S H Dv", F32, "as the forward call wrote it"),
    CLDSA_IN(cldsa_sparse_attention_backward_args, lse, "B S H", F32, "as the forward call wrote it"),
    {.name = "dout",
     .kind = CLDSA_FIELD_IN,
     .at = offsetof(cldsa_sparse_attention_backward_args, dout),
     .shape = "B S H Dv",
     .dtypes = F32,
     .grad = "in.dout",
     .help = "gradient of out"},
    CLDSA_OUT(cldsa_sparse_attention_backward_args, dq, "B S H D", F32, "gradient of q"),
    CLDSA_OUT(cldsa_sparse_attention_backward_args, dk, "B T Hk D", F32, "gradient of k, in latent form of v too"),
    CLDSA_OUT_OPT(cldsa_sparse_attention_backward_args, dv, "B T Hk Dv", F32, "gradient of v; with v"),
    CLDSA_OUT_OPT(cldsa_sparse_attention_backward_args, dsink, "H", F32, "gradient of attn_sink"),
    CLDSA_PARAM(cldsa_sparse_attention_backward_args, v_dim, INT, 0, 0, INT32_MAX, "Dv in latent form"),
    CLDSA_PARAM(cldsa_sparse_attention_backward_args, softmax_scale, FLOAT, 0, -1e30, 1e30, "0 means D^-1/2"),
    {0},
};

static cldsa_status check(const cldsa_run *run) {
    const cldsa_sparse_attention_backward_args *a = run->args;
    cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    if ((a->v.mem != NULL) != (a->dv.mem != NULL))
        return cldsa_fail(CLDSA_MISSING_TENSOR, "sparse_attention_backward: %s is given without %s",
                          a->v.mem ? "v" : "dv", a->v.mem ? "dv" : "v");
    if (a->dsink.mem && !a->attn_sink.mem)
        return cldsa_fail(CLDSA_MISSING_TENSOR, "sparse_attention_backward: dsink is given without attn_sink");
    return cldsa_sparse_check(run, &in);
}

/* ---- CPUs ----------------------------------------------------------------------------------------------------- */

/* The sums of the splits together stay below this, unless one split alone is larger. */
enum { VEC_PARTIAL_MAX = 256 << 20 };

/* Bytes of one split's gradients of all keys, and of its part of dsink. */
static size_t split_bytes(const cldsa_run *run, bool latent) {
    const int64_t *d = run->dims;
    int64_t pitch = cldsa_round_up(d[SPARSE_D], 16) + (latent ? 0 : cldsa_round_up(d[SPARSE_DV], 16));
    return (size_t)(d[SPARSE_B] * (d[SPARSE_HK] * d[SPARSE_T] * pitch + d[SPARSE_H])) * sizeof(float);
}

/* Enough splits to fill the device. */
static int64_t wanted_splits(const cldsa_run *run, size_t bytes) {
    const int64_t *d = run->dims;
    int64_t items = (int64_t)cldsa_run_tune(run, "WAVES") * cldsa_context_device_info(run->ctx)->compute_units;
    int64_t splits = cldsa_ceil_div(items, d[SPARSE_B] * d[SPARSE_HK]);
    if (splits > d[SPARSE_S])
        splits = d[SPARSE_S];
    int64_t most = VEC_PARTIAL_MAX / (int64_t)bytes;
    return splits < most ? splits : most > 1 ? most : 1;
}

/* The index of places by key: see cl/sparse_attention_backward_vec.cl. Counters, then the index, 4 bytes each. */
typedef struct vec_index {
    int64_t blocks, steps; /* work-items per batch, and steps of each through its lists */
    int64_t count, words;
    size_t bytes; /* 0: gradients are better scattered */
} vec_index;

/* Pays where a work-item's queries choose a key often enough, and the counters are not many. */
static vec_index index_of(const cldsa_run *run, bool latent) {
    const int64_t *d = run->dims;
    int64_t queries = cldsa_run_tune(run, "QUERIES"), keys = cldsa_run_tune(run, "KEYS"), places = queries * keys;
    vec_index x = {.blocks = cldsa_ceil_div(d[SPARSE_S], queries), .steps = cldsa_ceil_div(d[SPARSE_K], keys)};
    x.count = d[SPARSE_B] * x.blocks * d[SPARSE_T];
    x.words = d[SPARSE_B] * x.blocks * x.steps * (1 + 2 * (d[SPARSE_T] < places ? d[SPARSE_T] : places) + places);
    int64_t bytes = (x.count + x.words) * (int64_t)sizeof(cl_uint);
    bool pays = queries > 1 && queries * d[SPARSE_K] >= 2 * d[SPARSE_T] && d[SPARSE_T] <= 4 * places;
    if (!latent && pays && bytes <= VEC_PARTIAL_MAX)
        x.bytes = (size_t)cldsa_round_up(bytes, 64); /* vectors follow */
    return x;
}

static cldsa_status vec_index_enqueue(cldsa_run *run, const vec_index *x, const char *options, cldsa_tensor count,
                                      cldsa_tensor index) {
    const cldsa_sparse_attention_backward_args *a = run->args;
    const int64_t *d = run->dims;
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "sparse_attention_backward_index", options, &kernel));
    size_t global[2] = {(size_t)x->blocks, (size_t)d[SPARSE_B]}, local[2] = {1, 1};
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(a->indices),
                         CLDSA_ARG_TENSOR(a->topk_length), CLDSA_ARG_TENSOR(count), CLDSA_ARG_TENSOR(index),
                         CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]), CLDSA_ARG_U32(d[SPARSE_K]),
                         CLDSA_ARG_U32(x->steps));
}

static void vec_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const cldsa_sparse_attention_backward_args *a = run->args;
    cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    size_t split = split_bytes(run, !in.v.mem);
    *preferred =
        cldsa_sparse_pack_bytes(run, &in) + index_of(run, !in.v.mem).bytes + (size_t)wanted_splits(run, split) * split;
    *minimum = split;
}

static cldsa_status vec_sum(cldsa_run *run, const char *options, cldsa_tensor partial, cldsa_tensor partial_sink,
                            int64_t splits) {
    const cldsa_sparse_attention_backward_args *a = run->args;
    const int64_t *d = run->dims;
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "sparse_attention_backward_sum", options, &kernel));
    size_t local[2] = {1, 1};
    size_t global[2] = {(size_t)cldsa_ceil_div(d[SPARSE_T], cldsa_run_tune(run, "ROWS")),
                        (size_t)(d[SPARSE_B] * d[SPARSE_HK])};
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(partial),
                         CLDSA_ARG_TENSOR(partial_sink), CLDSA_ARG_TENSOR(a->dk), CLDSA_ARG_TENSOR(a->dv),
                         CLDSA_ARG_TENSOR(a->dsink), CLDSA_ARG_U32(splits), CLDSA_ARG_U32(d[SPARSE_T]),
                         CLDSA_ARG_U32(d[SPARSE_HK]));
}

static cldsa_status vec_enqueue(cldsa_run *run) {
    const cldsa_sparse_attention_backward_args *a = run->args;
    const int64_t *d = run->dims;
    cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    size_t split = split_bytes(run, !in.v.mem), pack_bytes = cldsa_sparse_pack_bytes(run, &in);
    bool packed = pack_bytes > 0 && run->workspace_bytes >= pack_bytes + split;
    size_t index_at = packed ? pack_bytes : 0;
    vec_index x = index_of(run, !in.v.mem);
    bool by_key = x.bytes > 0 && run->workspace_bytes >= index_at + x.bytes + split;
    cldsa_tensor count = {0}, index = {0};
    if (by_key) {
        count = cldsa_run_scratch(run, index_at, CLDSA_U32, x.count);
        index = cldsa_run_scratch(run, index_at + (size_t)x.count * sizeof(cl_uint), CLDSA_U32, x.words);
    }
    size_t at = index_at + (by_key ? x.bytes : 0);
    int64_t splits = wanted_splits(run, split), fitting = (int64_t)((run->workspace_bytes - at) / split);
    if (splits > fitting)
        splits = fitting;
    int64_t sinks = splits * d[SPARSE_B] * d[SPARSE_H], floats = splits * (int64_t)(split / sizeof(float)) - sinks;
    cldsa_tensor partial = cldsa_run_scratch(run, at, CLDSA_F32, floats);
    cldsa_tensor partial_sink = cldsa_run_scratch(run, at + (size_t)floats * sizeof(float), CLDSA_F32, sinks);
    cldsa_sparse_rows k, v;
    CLDSA_TRY(cldsa_sparse_rows_of(run, &in, packed, &k, &v));

    int heads = cldsa_sparse_heads(run, cldsa_run_tune(run, "MAX_HEADS"));
    char options[CLDSA_OPTIONS_MAX];
    cldsa_sparse_options(run, &in, packed, heads, options);
    cldsa_sparse_row_options(&k, &v, options);
    strcat(options, by_key ? " -DBY_KEY=1" : " -DBY_KEY=0");
    if (by_key)
        CLDSA_TRY(vec_index_enqueue(run, &x, options, count, index));
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "sparse_attention_backward_vec", options, &kernel));
    size_t global[2] = {(size_t)(d[SPARSE_B] * d[SPARSE_HK]), (size_t)splits}, local[2] = {1, 1};
    CLDSA_TRY(CLDSA_ENQUEUE(
        &run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(a->q), CLDSA_ARG_TENSOR(k.tensor),
        CLDSA_ARG_TENSOR(v.tensor), CLDSA_ARG_TENSOR(a->indices), CLDSA_ARG_TENSOR(a->topk_length),
        CLDSA_ARG_TENSOR(a->attn_sink), CLDSA_ARG_TENSOR(a->out), CLDSA_ARG_TENSOR(a->lse), CLDSA_ARG_TENSOR(a->dout),
        CLDSA_ARG_TENSOR(a->dq), CLDSA_ARG_TENSOR(partial), CLDSA_ARG_TENSOR(partial_sink), CLDSA_ARG_TENSOR(index),
        CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]), CLDSA_ARG_U32(d[SPARSE_H]), CLDSA_ARG_U32(d[SPARSE_K]),
        CLDSA_ARG_U32(x.steps), CLDSA_ARG_STRIDES(k), CLDSA_ARG_STRIDES(v), CLDSA_ARG_F32(in.softmax_scale)));
    /* The sum skips dsink where it is not asked for. */
    strcat(options, a->dsink.mem ? " -DWANT_SINK=1" : " -DWANT_SINK=0");
    return vec_sum(run, options, partial, partial_sink, splits);
}

static const cldsa_variant vec = {
    .name = "vec",
    .file = "sparse_attention_backward_vec.cl",
    .tunables = {{"QUERIES", 1, {1, 2, 4, 8, 16, 32, 64, 128}, "queries taken together"},
                 {"KEYS", 64, {32, 64, 128, 256}, "gathered rows per query and step"},
                 {"MAX_HEADS", 16, {4, 8, 16}, "heads per work-item at a time, at most"},
                 CLDSA_SPARSE_LANES,
                 {"WAVES", 1, {1, 2, 4}, "work-items per compute unit"},
                 {"ROWS", 16, {8, 16, 32, 64}, "keys per work-item of the sum over splits"}},
    .can_run = cldsa_sparse_vec_can_run,
    .defaults = cldsa_sparse_vec_defaults,
    .legal = cldsa_sparse_vec_legal,
    .workspace = vec_workspace,
    .enqueue = vec_enqueue,
};

/* ---- the operation -------------------------------------------------------------------------------------------- */

/* Adds one row of one head to the gradients. */
static void add_gradients(const cldsa_reference_call *call, int64_t b, int64_t s, int64_t h, double scale) {
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    bool latent = !t[2].data;
    int64_t row = b * d[SPARSE_S] + s, at = row * d[SPARSE_H] + h, width = latent ? d[SPARSE_D] : d[SPARSE_DV];
    int64_t end = d[SPARSE_K], kv_head = h / (d[SPARSE_H] / d[SPARSE_HK]);
    const double *q = t[0].data + at * d[SPARSE_D], *dout = t[8].data + at * d[SPARSE_DV];
    double lse = t[7].data[at], delta = 0, *dq = t[9].data + at * d[SPARSE_D];
    if (t[4].data && t[4].data[row] < (double)end)
        end = (int64_t)t[4].data[row];
    if (isinf(lse))
        return;
    for (int64_t c = 0; c < d[SPARSE_DV]; ++c)
        delta += dout[c] * t[6].data[at * d[SPARSE_DV] + c];
    double kept = t[5].data ? 1 / (1 + exp(t[5].data[h] - lse)) : 1;
    if (t[12].data)
        t[12].data[h] -= (1 - kept) * delta;
    for (int64_t j = 0; j < end; ++j) {
        double index = t[3].data[row * d[SPARSE_K] + j], score = 0, dp = 0;
        if (index < 0 || index >= (double)d[SPARSE_T])
            continue;
        int64_t key = (b * d[SPARSE_T] + (int64_t)index) * d[SPARSE_HK] + kv_head;
        const double *k = t[1].data + key * d[SPARSE_D], *v = (latent ? t[1].data : t[2].data) + key * width;
        double *dk = t[10].data + key * d[SPARSE_D], *dv = (latent ? t[10].data : t[11].data) + key * width;
        for (int64_t c = 0; c < d[SPARSE_D]; ++c)
            score += scale * q[c] * k[c];
        for (int64_t c = 0; c < d[SPARSE_DV]; ++c)
            dp += dout[c] * v[c];
        double p = kept * exp(score - lse), ds = scale * p * (dp - delta);
        for (int64_t c = 0; c < d[SPARSE_D]; ++c) {
            dq[c] += ds * k[c];
            dk[c] += ds * q[c];
        }
        for (int64_t c = 0; c < d[SPARSE_DV]; ++c)
            dv[c] += p * dout[c];
    }
}

static void reference(const cldsa_reference_call *call) {
    const cldsa_sparse_attention_backward_args *a = call->args;
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    double scale = a->softmax_scale != 0 ? (double)a->softmax_scale : 1 / sqrt((double)d[SPARSE_D]);
    int64_t rows = d[SPARSE_B] * d[SPARSE_S] * d[SPARSE_H], keys = d[SPARSE_B] * d[SPARSE_T] * d[SPARSE_HK];
    memset(t[9].data, 0, (size_t)(rows * d[SPARSE_D]) * sizeof(double));
    memset(t[10].data, 0, (size_t)(keys * d[SPARSE_D]) * sizeof(double));
    if (t[11].data)
        memset(t[11].data, 0, (size_t)(keys * d[SPARSE_DV]) * sizeof(double));
    if (t[12].data)
        memset(t[12].data, 0, (size_t)d[SPARSE_H] * sizeof(double));
    for (int64_t i = 0; i < rows; ++i) {
        int64_t row = i / d[SPARSE_H];
        add_gradients(call, row / d[SPARSE_S], row % d[SPARSE_S], i % d[SPARSE_H], scale);
    }
}

/* Five products: scores, dP, dq, dk, dv. */
static double flops(const cldsa_run *run) {
    const int64_t *d = run->dims;
    double pairs = (double)d[SPARSE_B] * (double)d[SPARSE_S] * (double)d[SPARSE_H] * (double)d[SPARSE_K];
    return 2 * pairs * (double)(3 * d[SPARSE_D] + 2 * d[SPARSE_DV]);
}
/* Of the keys' gradients all rows are written. */
static double bytes(const cldsa_run *run) {
    const int64_t *d = run->dims;
    const cldsa_sparse_attention_backward_args *a = run->args;
    const cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    double rows = (double)(d[SPARSE_B] * d[SPARSE_S]), keys = (double)(d[SPARSE_B] * d[SPARSE_T] * d[SPARSE_HK]);
    double heads =
        (double)cldsa_dtype_size(a->q.dtype) * (double)d[SPARSE_D] + 4 * (double)(d[SPARSE_D] + 2 * d[SPARSE_DV] + 1);
    return rows * ((double)d[SPARSE_H] * heads + 4 * (double)d[SPARSE_K]) + cldsa_sparse_key_bytes(run, &in) +
           4 * keys * (double)(d[SPARSE_D] + (a->v.mem ? d[SPARSE_DV] : 0));
}

static const cldsa_variant *const variants[] = {&vec, &cldsa_sparse_attention_backward_simt,
                                                &cldsa_sparse_attention_backward_tile, NULL};

/* Matrix products pay from a good half of their smallest tile's heads on, and where there are places for a tile. */
static int choose(const cldsa_run *run) {
    enum { VEC, SIMT, TILE, MANY_HEADS = 8, MANY_KEYS = 32 };
    if (cldsa_context_capabilities(run->ctx)->is_cpu)
        return VEC;
    const bool many = cldsa_sparse_group(run) >= MANY_HEADS && run->dims[SPARSE_K] >= MANY_KEYS;
    return many && variants[TILE]->can_run(run) ? TILE : SIMT;
}

const cldsa_op cldsa_op_sparse_attention_backward = {
    .name = "sparse_attention_backward",
    .summary = "gradients of attention over selected keys",
    .args_size = sizeof(cldsa_sparse_attention_backward_args),
    .dims = cldsa_sparse_dims,
    .fields = fields,
    .variants = variants,
    .choose = choose,
    .check = check,
    .reference = reference,
    .flops = flops,
    .bytes = bytes,
    .tolerance_abs = 1e-5,
    .tolerance_rel = 1e-4,
};
CLDSA_DEFINE_OP(sparse_attention_backward)

cldsa_status cldsa_sparse_attention_backward_workspace_min(cldsa_context *ctx,
                                                           const cldsa_sparse_attention_backward_args *args,
                                                           size_t *bytes_) {
    return cldsa_op_workspace(ctx, &cldsa_op_sparse_attention_backward, args, NULL, bytes_);
}
