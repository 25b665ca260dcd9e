/* Attention over a selection, forward. The GPU variants are in
 * sparse_attention_gpu.c. Kernels of this file: cl/sparse_attention_{vec,pack}.cl. */
#include <cldsa/sparse_attention.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/ops/sparse_attention.h"

#define F32    CLDSA_ACCEPT_F32
#define I32    CLDSA_ACCEPT(CLDSA_I32)
#define FLOATS CLDSA_ACCEPT_FLOAT

const char *const cldsa_sparse_dims[] = {"B", "S", "T", "H", "Hk", "D", "Dv", "K", NULL};

static const cldsa_field fields[] = {
    CLDSA_IN(cldsa_sparse_attention_args, q, "B S H D", FLOATS, "queries"),
    CLDSA_IN(cldsa_sparse_attention_args, k, "B T Hk D", FLOATS, "keys; in latent form keys and values"),
    CLDSA_IN_OPT(cldsa_sparse_attention_args, v, "B T Hk Dv", FLOATS, "values; not given means latent"),
    CLDSA_IN(cldsa_sparse_attention_args, indices, "B S K", I32, "selected keys; outside 0 .. T-1 is skipped"),
    CLDSA_IN_OPT(cldsa_sparse_attention_args, topk_length, "B S", I32, "places of a row that count"),
    CLDSA_IN_OPT(cldsa_sparse_attention_args, attn_sink, "H", F32, "logit of a key whose value is 0"),
    CLDSA_OUT(cldsa_sparse_attention_args, out, "B S H Dv", FLOATS, "attention output"),
    CLDSA_OUT_OPT(cldsa_sparse_attention_args, lse, "B S H", F32, "log of the sum of exponentials"),
    CLDSA_PARAM(cldsa_sparse_attention_args, v_dim, INT, 0, 0, INT32_MAX, "Dv in latent form"),
    CLDSA_PARAM(cldsa_sparse_attention_args, softmax_scale, FLOAT, 0, -1e30, 1e30, "0 means D^-1/2"),
    {0},
};

/* ---- shared with the backward operation ----------------------------------------------------------------------- */

float cldsa_sparse_scale(const int64_t *dims, float softmax_scale) {
    return softmax_scale != 0 ? softmax_scale : (float)(1 / sqrt((double)dims[SPARSE_D]));
}

cldsa_status cldsa_sparse_check(const cldsa_run *run, const cldsa_sparse_inputs *in) {
    const int64_t *d = run->dims;
    const char *name = run->op->name;
    if (d[SPARSE_H] % d[SPARSE_HK])
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: Hk is %lld; it must divide H (%lld)", name, (long long)d[SPARSE_HK],
                          (long long)d[SPARSE_H]);
    if (!in->v.mem && (in->v_dim < 1 || in->v_dim > d[SPARSE_D]))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: v_dim is %d; without v it must be 1 to D (%lld)", name,
                          in->v_dim, (long long)d[SPARSE_D]);
    if (!in->v.mem && in->v_dim != d[SPARSE_DV])
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: out has %lld columns; v_dim is %d", name, (long long)d[SPARSE_DV],
                          in->v_dim);
    if (in->v.mem && in->v.dtype != in->k.dtype)
        return cldsa_fail(CLDSA_INVALID_DTYPE, "%s: v is %s; it must be %s as k", name, cldsa_dtype_name(in->v.dtype),
                          cldsa_dtype_name(in->k.dtype));
    return CLDSA_SUCCESS;
}

void cldsa_sparse_options(const cldsa_run *run, const cldsa_sparse_inputs *in, bool packed, int heads, char *options) {
    cldsa_run_options(run, options,
                      "-DD=%d -DDV=%d -DLATENT=%d -DGROUP=%d -DHEADS=%d -DQ_DTYPE=%s -DKV_DTYPE=%s -DKV_PACKED=%d "
                      "-DHAS_LENGTH=%d -DHAS_SINK=%d",
                      (int)run->dims[SPARSE_D], (int)run->dims[SPARSE_DV], in->v.mem == NULL,
                      (int)cldsa_sparse_group(run), heads, cldsa_dtype_macro(in->q.dtype),
                      cldsa_dtype_macro(packed ? CLDSA_F32 : in->k.dtype), packed, in->topk_length.mem != NULL,
                      in->attn_sink.mem != NULL);
}

/* Rows of [B,T,Hk,width] where they lie. */
static cldsa_sparse_rows rows_in_place(const cldsa_run *run, cldsa_tensor tensor, int64_t width) {
    const int64_t *d = run->dims;
    return (cldsa_sparse_rows){tensor, d[SPARSE_T] * d[SPARSE_HK] * width, width, d[SPARSE_HK] * width};
}

/* Rows of [B,Hk,T,width], each rounded up to whole vectors, at a float of the scratch. */
static cldsa_sparse_rows rows_packed(const cldsa_run *run, int64_t at, int64_t width) {
    const int64_t *d = run->dims;
    int64_t row = cldsa_round_up(width, 16), floats = d[SPARSE_B] * d[SPARSE_HK] * d[SPARSE_T] * row;
    return (cldsa_sparse_rows){cldsa_run_scratch(run, (size_t)at * sizeof(float), CLDSA_F32, floats),
                               d[SPARSE_HK] * d[SPARSE_T] * row, d[SPARSE_T] * row, row};
}

size_t cldsa_sparse_pack_bytes(const cldsa_run *run, const cldsa_sparse_inputs *in) {
    const int64_t *d = run->dims;
    bool awkward = d[SPARSE_HK] > 1 || d[SPARSE_D] % 16 || d[SPARSE_DV] % 16 || in->k.dtype != CLDSA_F32;
    if (!awkward || d[SPARSE_S] * d[SPARSE_K] < 2 * d[SPARSE_T])
        return 0;
    int64_t row = cldsa_round_up(d[SPARSE_D], 16) + (in->v.mem ? cldsa_round_up(d[SPARSE_DV], 16) : 0);
    return (size_t)(d[SPARSE_B] * d[SPARSE_HK] * d[SPARSE_T] * row) * sizeof(float);
}

/* Copies `from` [B,T,Hk,width] to packed rows. */
static cldsa_status pack(cldsa_run *run, cldsa_tensor from, int64_t width, const cldsa_sparse_rows *to) {
    enum { ROWS = 32 };
    const int64_t *d = run->dims;
    char options[CLDSA_OPTIONS_MAX];
    snprintf(options, sizeof options, "-DDTYPE=%s -DWIDTH=%d -DROWS=%d", cldsa_dtype_macro(from.dtype), (int)width,
             ROWS);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_get_kernel(run->ctx, "sparse_attention_pack.cl", "sparse_attention_pack", options, &kernel));
    size_t global[2] = {(size_t)cldsa_ceil_div(d[SPARSE_T], ROWS), (size_t)(d[SPARSE_B] * d[SPARSE_HK])};
    size_t local[2] = {1, 1};
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(from), CLDSA_ARG_TENSOR(to->tensor),
                         CLDSA_ARG_U32(d[SPARSE_T]), CLDSA_ARG_U32(d[SPARSE_HK]));
}

cldsa_status cldsa_sparse_rows_of(cldsa_run *run, const cldsa_sparse_inputs *in, bool packed, cldsa_sparse_rows *k,
                                  cldsa_sparse_rows *v) {
    const int64_t *d = run->dims;
    if (!packed) {
        *k = rows_in_place(run, in->k, d[SPARSE_D]);
        *v = in->v.mem ? rows_in_place(run, in->v, d[SPARSE_DV]) : *k;
        return CLDSA_SUCCESS;
    }
    *k = *v = rows_packed(run, 0, d[SPARSE_D]);
    CLDSA_TRY(pack(run, in->k, d[SPARSE_D], k));
    if (!in->v.mem)
        return CLDSA_SUCCESS;
    *v = rows_packed(run, d[SPARSE_B] * k->batch, d[SPARSE_DV]);
    return pack(run, in->v, d[SPARSE_DV], v);
}

void cldsa_sparse_row_options(const cldsa_sparse_rows *k, const cldsa_sparse_rows *v, char *options) {
    size_t used = strlen(options);
    snprintf(options + used, CLDSA_OPTIONS_MAX - used, " -DK_ROW=%lld -DV_ROW=%lld", (long long)k->row,
             (long long)v->row);
}

int cldsa_sparse_heads(const cldsa_run *run, int most) {
    int64_t group = cldsa_sparse_group(run);
    return (int)(group < most ? group : most);
}

/* ---- CPUs ----------------------------------------------------------------------------------------------------- */

static void vec_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const cldsa_sparse_attention_args *a = run->args;
    cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    *preferred = cldsa_sparse_pack_bytes(run, &in);
    *minimum = 0;
}

static cldsa_status vec_enqueue(cldsa_run *run) {
    const cldsa_sparse_attention_args *a = run->args;
    const int64_t *d = run->dims;
    cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    size_t pack_bytes = cldsa_sparse_pack_bytes(run, &in);
    bool packed = pack_bytes > 0 && run->workspace && run->workspace_bytes >= pack_bytes;
    cldsa_sparse_rows k, v;
    CLDSA_TRY(cldsa_sparse_rows_of(run, &in, packed, &k, &v));

    int heads = cldsa_sparse_heads(run, cldsa_run_tune(run, "MAX_HEADS"));
    char options[CLDSA_OPTIONS_MAX];
    cldsa_sparse_options(run, &in, packed, heads, options);
    cldsa_sparse_row_options(&k, &v, options);
    size_t used = strlen(options);
    snprintf(options + used, sizeof options - used, " -DO_DTYPE=%s -DHAS_LSE=%d", cldsa_dtype_macro(a->out.dtype),
             a->lse.mem != NULL);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "sparse_attention_vec", options, &kernel));
    size_t local[2] = {1, 1};
    size_t global[2] = {(size_t)cldsa_ceil_div(d[SPARSE_S], cldsa_run_tune(run, "QUERIES")),
                        (size_t)(d[SPARSE_B] * d[SPARSE_HK] * cldsa_ceil_div(cldsa_sparse_group(run), heads))};
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(a->q), CLDSA_ARG_TENSOR(k.tensor),
                         CLDSA_ARG_TENSOR(v.tensor), CLDSA_ARG_TENSOR(a->indices), CLDSA_ARG_TENSOR(a->topk_length),
                         CLDSA_ARG_TENSOR(a->attn_sink), CLDSA_ARG_TENSOR(a->out), CLDSA_ARG_TENSOR(a->lse),
                         CLDSA_ARG_U32(d[SPARSE_S]), CLDSA_ARG_U32(d[SPARSE_T]), CLDSA_ARG_U32(d[SPARSE_H]),
                         CLDSA_ARG_U32(d[SPARSE_K]), CLDSA_ARG_STRIDES(k), CLDSA_ARG_STRIDES(v),
                         CLDSA_ARG_F32(in.softmax_scale));
}

/* What a work-item of the larger kernel, the backward one, keeps in private memory: it must fit a thread's stack. */
static bool fits(const cldsa_run *run, int queries, int keys, int heads) {
    enum { PRIVATE_MAX = 320 << 10 };
    const int64_t *d = run->dims;
    int64_t rows = 2 * cldsa_round_up(d[SPARSE_D], 16) + cldsa_round_up(d[SPARSE_DV], 16);
    int64_t places = keys + 16;
    return queries * (heads * (rows + 2 * places) + places) * (int64_t)sizeof(float) <= PRIVATE_MAX;
}

bool cldsa_sparse_vec_legal(const cldsa_run *run, const int *tune) {
    return tune[0] == 1 || fits(run, tune[0], tune[1], cldsa_sparse_heads(run, tune[2]));
}

void cldsa_sparse_vec_defaults(const cldsa_run *run, int *tune) {
    enum { MOST = 64, ITEMS_PER_UNIT = 4 };
    const int64_t *d = run->dims;
    int64_t heads = cldsa_sparse_group(run), rows = d[SPARSE_B] * d[SPARSE_HK] * d[SPARSE_S];
    int64_t units = cldsa_context_device_info(run->ctx)->compute_units, items = ITEMS_PER_UNIT * units;
    while (tune[2] > 4 && rows * cldsa_ceil_div(heads, tune[2]) < units)
        tune[2] /= 2; /* a query's heads go to several cores where there are more of those than queries */
    tune[3] = cldsa_context_capabilities(run->ctx)->vector_width >= 16 ? 16 : 8;
    if (heads >= 4)
        return;
    tune[1] = 256;
    while (2 * tune[0] * heads <= MOST && 2 * tune[0] * items <= rows && fits(run, 2 * tune[0], tune[1], (int)heads))
        tune[0] *= 2;
}

static const cldsa_variant vec = {
    .name = "vec",
    .file = "sparse_attention_vec.cl",
    .tunables = {{"QUERIES", 1, {1, 2, 4, 8, 16, 32, 64, 128}, "queries per work-item, taken together"},
                 {"KEYS", 64, {32, 64, 128, 256}, "gathered rows per query and step"},
                 {"MAX_HEADS", 16, {4, 8, 16, 32}, "heads per work-item, at most"},
                 CLDSA_SPARSE_LANES},
    .can_run = cldsa_sparse_vec_can_run,
    .defaults = cldsa_sparse_vec_defaults,
    .legal = cldsa_sparse_vec_legal,
    .workspace = vec_workspace,
    .enqueue = vec_enqueue,
};

/* ---- the operation -------------------------------------------------------------------------------------------- */

static cldsa_status check(const cldsa_run *run) {
    const cldsa_sparse_attention_args *a = run->args;
    cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    return cldsa_sparse_check(run, &in);
}

/* One row of one head: out [Dv] and lse. `weights` holds K doubles. */
static void attend(const cldsa_reference_call *call, int64_t b, int64_t s, int64_t h, double scale, double *weights,
                   double *out, double *lse) {
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    const cldsa_host_tensor *value = t[2].data ? &t[2] : &t[1];
    int64_t width = t[2].data ? d[SPARSE_DV] : d[SPARSE_D], row = b * d[SPARSE_S] + s;
    int64_t kv_head = h / (d[SPARSE_H] / d[SPARSE_HK]);
    const double *q = t[0].data + (row * d[SPARSE_H] + h) * d[SPARSE_D];
    const double *indices = t[3].data + row * d[SPARSE_K];
    int64_t end = d[SPARSE_K];
    if (t[4].data && t[4].data[row] < (double)end)
        end = (int64_t)t[4].data[row];
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < end; ++j) {
        weights[j] = -INFINITY;
        if (indices[j] < 0 || indices[j] >= (double)d[SPARSE_T])
            continue;
        int64_t key = (b * d[SPARSE_T] + (int64_t)indices[j]) * d[SPARSE_HK] + kv_head;
        weights[j] = 0;
        for (int64_t c = 0; c < d[SPARSE_D]; ++c)
            weights[j] += scale * q[c] * t[1].data[key * d[SPARSE_D] + c];
        top = weights[j] > top ? weights[j] : top;
    }
    for (int64_t c = 0; c < d[SPARSE_DV]; ++c)
        out[c] = 0;
    *lse = INFINITY;
    for (int64_t j = 0; j < end; ++j)
        sum += weights[j] = weights[j] == -INFINITY ? 0 : exp(weights[j] - top);
    if (sum == 0)
        return;
    *lse = top + log(sum);
    double sink = t[5].data ? 1 / (1 + exp(t[5].data[h] - *lse)) : 1;
    for (int64_t j = 0; j < end; ++j) {
        if (indices[j] < 0 || indices[j] >= (double)d[SPARSE_T])
            continue;
        int64_t key = (b * d[SPARSE_T] + (int64_t)indices[j]) * d[SPARSE_HK] + kv_head;
        for (int64_t c = 0; c < d[SPARSE_DV]; ++c)
            out[c] += sink * weights[j] / sum * value->data[key * width + c];
    }
}

static void reference(const cldsa_reference_call *call) {
    const cldsa_sparse_attention_args *a = call->args;
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    double scale = a->softmax_scale != 0 ? (double)a->softmax_scale : 1 / sqrt((double)d[SPARSE_D]);
    double *weights = malloc((size_t)d[SPARSE_K] * sizeof *weights);
    for (int64_t i = 0; weights && i < d[SPARSE_B] * d[SPARSE_S] * d[SPARSE_H]; ++i) {
        int64_t h = i % d[SPARSE_H], row = i / d[SPARSE_H];
        double lse;
        attend(call, row / d[SPARSE_S], row % d[SPARSE_S], h, scale, weights, t[6].data + i * d[SPARSE_DV], &lse);
        if (t[7].data)
            t[7].data[i] = lse;
    }
    free(weights);
}

static double pairs(const cldsa_run *run) {
    const int64_t *d = run->dims;
    return (double)d[SPARSE_B] * (double)d[SPARSE_S] * (double)d[SPARSE_H] * (double)d[SPARSE_K];
}
static double flops(const cldsa_run *run) {
    return 2 * pairs(run) * (double)(run->dims[SPARSE_D] + run->dims[SPARSE_DV]);
}
double cldsa_sparse_key_bytes(const cldsa_run *run, const cldsa_sparse_inputs *in) {
    const int64_t *d = run->dims;
    double named = (double)d[SPARSE_S] * (double)d[SPARSE_K];
    double rows = (double)(d[SPARSE_B] * d[SPARSE_HK]) * (named < (double)d[SPARSE_T] ? named : (double)d[SPARSE_T]);
    return rows * (double)(d[SPARSE_D] + (in->v.mem ? d[SPARSE_DV] : 0)) * (double)cldsa_dtype_size(in->k.dtype);
}
static double bytes(const cldsa_run *run) {
    const int64_t *d = run->dims;
    const cldsa_sparse_attention_args *a = run->args;
    const cldsa_sparse_inputs in = CLDSA_SPARSE_INPUTS(run, a);
    double rows = (double)(d[SPARSE_B] * d[SPARSE_S]);
    double heads = (double)cldsa_dtype_size(a->q.dtype) * (double)d[SPARSE_D] +
                   (double)cldsa_dtype_size(a->out.dtype) * (double)d[SPARSE_DV] + (a->lse.mem ? 4 : 0);
    return rows * ((double)d[SPARSE_H] * heads + 4 * (double)d[SPARSE_K]) + cldsa_sparse_key_bytes(run, &in);
}

static const cldsa_variant *const variants[] = {&vec, &cldsa_sparse_attention_simt, &cldsa_sparse_attention_tile,
                                                &cldsa_sparse_attention_slab, NULL};

/* Matrix products pay from a good half of their smallest tile's heads on. */
static int choose(const cldsa_run *run) {
    enum { VEC, SIMT, TILE, SLAB, MANY_HEADS = 8 };
    if (cldsa_context_capabilities(run->ctx)->is_cpu)
        return VEC;
    if (cldsa_sparse_slab_pays(run))
        return SLAB;
    return cldsa_sparse_group(run) >= MANY_HEADS && variants[TILE]->can_run(run) ? TILE : SIMT;
}

const cldsa_op cldsa_op_sparse_attention = {
    .name = "sparse_attention",
    .summary = "attention over selected keys",
    .args_size = sizeof(cldsa_sparse_attention_args),
    .dims = cldsa_sparse_dims,
    .fields = fields,
    .variants = variants,
    .choose = choose,
    .check = check,
    .reference = reference,
    .flops = flops,
    .bytes = bytes,
    .tolerance_abs = 2e-6,
    .tolerance_rel = 2e-5,
};
CLDSA_DEFINE_OP(sparse_attention)

cldsa_status cldsa_sparse_attention_workspace_min(cldsa_context *ctx, const cldsa_sparse_attention_args *args,
                                                  size_t *bytes) {
    return cldsa_op_workspace(ctx, &cldsa_op_sparse_attention, args, NULL, bytes);
}
