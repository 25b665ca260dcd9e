/* The indexer's loss and its gradients: indexer_scores, rows, indexer_scores_backward. Own kernels: cl/indexer_kl.cl.
 */
#include <cldsa/indexer_kl.h>
#include <cldsa/reduce.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/ops/host_tensor.h"
#include "host/ops/slab.h"

extern const cldsa_op cldsa_op_indexer_kl, cldsa_op_indexer_kl_backward, cldsa_op_reduce;

typedef cldsa_indexer_kl_args forward_args;
typedef cldsa_indexer_kl_backward_args backward_args;

static const char *const dims[] = {CLDSA_INDEXER_DIMS, NULL};
enum { T = 2 }; /* in CLDSA_INDEXER_DIMS */

#define TARGET_FIELDS(args)                                                                                            \
    CLDSA_IN(args, p, "B S T", CLDSA_ACCEPT_F32, "the distribution that the scores' softmax shall have"),              \
        CLDSA_IN_OPT(args, selected, "B S #T", CLDSA_ACCEPT_MASK, "selected keys, bytes or bits")

static const cldsa_field forward_fields[] = {
    CLDSA_INDEXER_FIELDS(forward_args),
    TARGET_FIELDS(forward_args),
    CLDSA_OUT(forward_args, loss, "1", CLDSA_ACCEPT_F32, "sum over all rows"),
    CLDSA_OUT_OPT(forward_args, row_loss, "B S", CLDSA_ACCEPT_F32, "of each row, in nats"),
    CLDSA_INDEXER_PARAMS(forward_args),
    {0},
};
enum { P = CLDSA_INDEXER_NUM_INPUTS, SELECTED, LOSS, ROW_LOSS }; /* in the table above */

static const cldsa_field backward_fields[] = {
    CLDSA_INDEXER_FIELDS(backward_args),
    TARGET_FIELDS(backward_args),
    {.name = "dloss",
     .kind = CLDSA_FIELD_IN,
     .at = offsetof(backward_args, dloss),
     .shape = "1",
     .dtypes = CLDSA_ACCEPT_F32,
     .optional = true,
     .grad = "in.dloss",
     .help = "upstream gradient; 1 if not given"},
    CLDSA_OUT(backward_args, dq, "B S H D", CLDSA_ACCEPT_F32, "gradient of q"),
    CLDSA_OUT(backward_args, dk, "B T Hk D", CLDSA_ACCEPT_F32, "gradient of k"),
    CLDSA_OUT(backward_args, dw, "H|B S H", CLDSA_ACCEPT_F32, "gradient of w, in its shape"),
    CLDSA_OUT_OPT(backward_args, loss, "1", CLDSA_ACCEPT_F32, "as the forward call gives it"),
    CLDSA_OUT_OPT(backward_args, row_loss, "B S", CLDSA_ACCEPT_F32, "as the forward call gives it"),
    CLDSA_INDEXER_PARAMS(backward_args),
    {0},
};
enum { DLOSS = SELECTED + 1, DQ, DK, DW, BACKWARD_LOSS, BACKWARD_ROW_LOSS }; /* in the table above */

/* What both operations know about a call. */
typedef struct kl_call {
    cldsa_indexer_inputs in;
    const cldsa_tensor *p, *selected, *loss, *row_loss;
} kl_call;

#define KL_CALL(args, dims)                                                                                            \
    ((kl_call){CLDSA_INDEXER_INPUTS(args, dims), &(args)->p, &(args)->selected, &(args)->loss, &(args)->row_loss})

static kl_call forward_call(const cldsa_run *run) {
    return KL_CALL((const forward_args *)run->args, run->dims);
}

static kl_call backward_call(const cldsa_run *run) {
    return KL_CALL((const backward_args *)run->args, run->dims);
}

static cldsa_status check_forward(const cldsa_run *run) {
    const kl_call call = forward_call(run);
    return cldsa_indexer_check(run, &call.in);
}

static cldsa_status check_backward(const cldsa_run *run) {
    const backward_args *a = run->args;
    const kl_call call = backward_call(run);
    CLDSA_TRY(cldsa_indexer_check(run, &call.in));
    if (a->dw.rank != a->w.rank)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: dw has rank %d; it must have the shape of w, rank %d",
                          run->op->name, a->dw.rank, a->w.rank);
    return CLDSA_SUCCESS;
}

/* ---- the sum of the rows' losses --------------------------------------------------------------------------------- */

enum { ALIGNMENT = 256 };

/* Rows' losses lie at the workspace's start, unless the caller wants them; then the sum's scratch. */
typedef struct loss_scratch {
    size_t sum_at, sum_bytes, end;
} loss_scratch;

static cldsa_tensor row_losses(const cldsa_run *run, const kl_call *call) {
    if (call->row_loss->mem || !call->loss->mem)
        return *call->row_loss;
    cldsa_tensor rows = cldsa_run_scratch(run, 0, CLDSA_F32, call->in.B * call->in.S);
    return CLDSA_TENSOR(rows.mem, rows.offset, CLDSA_F32, call->in.B, call->in.S);
}

static loss_scratch lay_out_loss(const cldsa_run *run, const kl_call *call) {
    loss_scratch s = {0};
    if (!call->loss->mem)
        return s;
    const int64_t rows = call->in.B * call->in.S;
    if (!call->row_loss->mem)
        s.sum_at = (size_t)cldsa_round_up(rows * (int64_t)sizeof(cl_float), ALIGNMENT);
    cldsa_reduce_args sum = {.x = CLDSA_TENSOR(NULL, 0, CLDSA_F32, rows), .y = *call->loss, .scale = 1};
    size_t minimum = 0;
    cldsa_run_sub_workspace(run, &cldsa_op_reduce, &sum, &s.sum_bytes, &minimum);
    s.end = s.sum_at + (size_t)cldsa_round_up((int64_t)s.sum_bytes, ALIGNMENT);
    return s;
}

static cldsa_status enqueue_sum(cldsa_run *run, const kl_call *call) {
    if (!call->loss->mem)
        return CLDSA_SUCCESS;
    const loss_scratch s = lay_out_loss(run, call);
    const cldsa_reduce_args sum = {.x = row_losses(run, call), .y = *call->loss, .scale = 1};
    return cldsa_run_sub(run, &cldsa_op_reduce, &sum, s.sum_at, s.sum_bytes);
}

/* ---- the scores of a slab, and its rows -------------------------------------------------------------------------- */

enum { SLAB_MIB, ROWS, WG = 1, PER_LANE }; /* places of tunables: ROWS of vec, WG and PER_LANE of simt */

/* `dloss` NULL: losses only. Otherwise the scores become the loss's gradient. */
static cldsa_status enqueue_rows(cldsa_run *run, const kl_call *call, const cldsa_slab *slab, cldsa_tensor scores,
                                 const cldsa_tensor *dloss) {
    const bool vec = strcmp(run->variant->name, "vec") == 0;
    const cldsa_tensor p = cldsa_slab_rows(*call->p, slab), selected = cldsa_slab_rows(*call->selected, slab),
                       row_loss = cldsa_slab_rows(row_losses(run, call), slab),
                       upstream = dloss ? *dloss : (cldsa_tensor){0};
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DMASK=%d -DHAS_LOSS=%d -DHAS_GRADIENT=%d -DHAS_UPSTREAM=%d",
                      !selected.mem                ? 0
                      : selected.dtype == CLDSA_U8 ? 1
                                                   : 2,
                      row_loss.mem != NULL, dloss != NULL, upstream.mem != NULL);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, vec ? "indexer_kl_vec" : "indexer_kl_simt", options, &kernel));
    const int64_t rows = slab->batches * slab->rows;
    const size_t local = vec ? 1 : (size_t)run->tune[WG];
    const size_t global = (size_t)(vec ? cldsa_ceil_div(rows, run->tune[ROWS]) : rows) * local;
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(scores), CLDSA_ARG_TENSOR(p),
                         CLDSA_ARG_TENSOR(selected), CLDSA_ARG_TENSOR(row_loss), CLDSA_ARG_TENSOR(upstream),
                         CLDSA_ARG_U64(rows), CLDSA_ARG_U32(slab->keys > 0 ? slab->keys : 0),
                         CLDSA_ARG_U32(call->in.T));
}

/* Scores of the slab in `scratch`, and enqueue_rows on them. */
static cldsa_status enqueue_scores(cldsa_run *run, const kl_call *call, const cldsa_slab *slab, cldsa_tensor scratch,
                                   const cldsa_tensor *dloss) {
    if (slab->keys > 0) {
        const cldsa_indexer_scores_args scores = cldsa_slab_scores(&call->in, slab, scratch);
        CLDSA_TRY(cldsa_run_sub(run, &cldsa_op_indexer_scores, &scores, 0, 0));
    }
    return enqueue_rows(run, call, slab, scratch, dloss);
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

static size_t forward_scratch_bytes(const cldsa_run *run, const cldsa_slab *slab) {
    const kl_call call = forward_call(run);
    return lay_out_loss(run, &call).end + cldsa_slab_scores_bytes(slab);
}

static void forward_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const kl_call call = forward_call(run);
    const cldsa_slab one = cldsa_slab_of(&call.in, 1, 1),
                     best = cldsa_slab_largest(run, &call.in, (size_t)run->tune[SLAB_MIB] << 20, forward_scratch_bytes);
    *minimum = forward_scratch_bytes(run, &one);
    *preferred = forward_scratch_bytes(run, &best);
}

static cldsa_status forward_slab(cldsa_run *run, const cldsa_slab *slab) {
    const kl_call call = forward_call(run);
    const int64_t keys = slab->keys > 0 ? slab->keys : 0;
    const cldsa_tensor scratch =
        cldsa_run_scratch(run, lay_out_loss(run, &call).end, CLDSA_F32, slab->batches * slab->rows * keys);
    return enqueue_scores(run, &call, slab, scratch, NULL);
}

static cldsa_status enqueue_forward(cldsa_run *run) {
    const kl_call call = forward_call(run);
    const cldsa_slab size = cldsa_slab_largest(run, &call.in, run->workspace_bytes, forward_scratch_bytes);
    CLDSA_TRY(cldsa_slab_each(run, &call.in, &size, forward_slab));
    return enqueue_sum(run, &call);
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* The second step, from dI on. */
static cldsa_indexer_scores_backward_args scores_backward_args(const cldsa_run *run, const cldsa_slab *slab,
                                                               cldsa_tensor scratch) {
    const backward_args *a = run->args;
    const kl_call call = backward_call(run);
    const cldsa_indexer_scores_args scores = cldsa_slab_scores(&call.in, slab, scratch);
    return (cldsa_indexer_scores_backward_args){
        .q = scores.q,
        .k = scores.k,
        .w = scores.w,
        .k_scale = scores.k_scale,
        .ks = scores.ks,
        .ke = scores.ke,
        .dscores = scores.scores,
        .dq = cldsa_slab_rows(a->dq, slab),
        .dk = cldsa_slab_keys(a->dk, slab),
        .dw = a->dw.rank == 1 ? a->dw : cldsa_slab_rows(a->dw, slab),
        .range = a->range,
        .relu_out = a->relu_out,
    };
}

/* Behind the losses' scratch: dI, then that of indexer_scores_backward, which takes what is there: at least up to
 * least_end, at best up to end. */
typedef struct backward_scratch {
    size_t scores_at, rest_at, least_end, end;
} backward_scratch;

static backward_scratch lay_out_backward(const cldsa_run *run, const cldsa_slab *slab) {
    const kl_call call = backward_call(run);
    backward_scratch s = {.scores_at = lay_out_loss(run, &call).end};
    s.rest_at = s.scores_at + cldsa_slab_scores_bytes(slab);
    const cldsa_indexer_scores_backward_args rest = scores_backward_args(run, slab, *call.p); /* any buffer will do */
    size_t preferred = 0, minimum = 0;
    cldsa_run_sub_workspace(run, &cldsa_op_indexer_scores_backward, &rest, &preferred, &minimum);
    s.least_end = s.rest_at + minimum;
    s.end = s.rest_at + preferred;
    return s;
}

static size_t backward_scratch_bytes(const cldsa_run *run, const cldsa_slab *slab) {
    return lay_out_backward(run, slab).least_end;
}

/* Whole sequences: as many as fit into `bytes`, and all where dw is a sum over them. */
static cldsa_slab backward_slabs(const cldsa_run *run, size_t bytes) {
    const kl_call call = backward_call(run);
    if (call.in.w->rank == 1)
        return cldsa_slab_of(&call.in, call.in.B, call.in.S);
    const cldsa_slab largest = cldsa_slab_largest(run, &call.in, bytes, backward_scratch_bytes);
    return cldsa_slab_of(&call.in, largest.batches, call.in.S);
}

static void backward_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    const size_t most = (size_t)run->tune[SLAB_MIB] << 20;
    const cldsa_slab least = backward_slabs(run, 0), best = backward_slabs(run, most);
    const backward_scratch s = lay_out_backward(run, &best);
    *minimum = backward_scratch_bytes(run, &least);
    *preferred = s.end <= most ? s.end : s.least_end >= most ? s.least_end : most;
}

static cldsa_status backward_slab(cldsa_run *run, const cldsa_slab *slab) {
    const backward_args *a = run->args;
    const kl_call call = backward_call(run);
    const backward_scratch s = lay_out_backward(run, slab);
    const cldsa_tensor scratch =
        cldsa_run_scratch(run, s.scores_at, CLDSA_F32, slab->batches * slab->rows * slab->keys);
    CLDSA_TRY(enqueue_scores(run, &call, slab, scratch, &a->dloss));
    const cldsa_indexer_scores_backward_args rest = scores_backward_args(run, slab, scratch);
    return cldsa_run_sub(run, &cldsa_op_indexer_scores_backward, &rest, s.rest_at, run->workspace_bytes - s.rest_at);
}

static cldsa_status enqueue_backward(cldsa_run *run) {
    const kl_call call = backward_call(run);
    const cldsa_slab size = backward_slabs(run, run->workspace_bytes);
    CLDSA_TRY(cldsa_slab_each(run, &call.in, &size, backward_slab));
    return enqueue_sum(run, &call);
}

/* ---- the definition ---------------------------------------------------------------------------------------------- */

static bool is_selected(const cldsa_host_tensor *selected, int64_t row, int64_t j, int64_t keys) {
    if (!selected->data)
        return true;
    if (selected->dtype == CLDSA_U8)
        return selected->data[row * keys + j] != 0;
    return (uint32_t)selected->data[row * ((keys + 31) / 32) + j / 32] >> (j % 32) & 1;
}

/* One row's loss; x, its scores with -inf where nothing is seen, becomes the gradient for an upstream gradient of 1. */
static double row_reference(double *x, const double *p, int64_t keys) {
    double top = -INFINITY, sum = 0, mass = 0, loss = 0;
    for (int64_t j = 0; j < keys; ++j)
        top = x[j] > top ? x[j] : top;
    for (int64_t j = 0; j < keys; ++j)
        if (x[j] != -INFINITY) {
            sum += exp(x[j] - top);
            mass += p[j];
        }
    for (int64_t j = 0; j < keys; ++j) {
        if (x[j] == -INFINITY) {
            x[j] = 0;
            continue;
        }
        if (p[j] != 0)
            loss += p[j] * (log(p[j]) - (x[j] - top - log(sum)));
        x[j] = mass * exp(x[j] - top) / sum - p[j];
    }
    return loss;
}

/* Losses of all rows, for whichever outputs are given; the gradient of the scores [B,S,T], which the caller frees. */
static double *rows_reference(const cldsa_reference_call *call, const kl_call *kl, cldsa_host_tensor *loss,
                              cldsa_host_tensor *row_loss) {
    const cldsa_indexer_inputs *in = &kl->in;
    double *scores = malloc((size_t)(in->B * in->S * in->T) * sizeof *scores), total = 0;
    if (!scores)
        abort();
    const cldsa_indexer_scores_args args = {.range = in->range, .relu_out = in->relu_out};
    cldsa_host_tensor tensors[CLDSA_INDEXER_NUM_INPUTS + 1];
    memcpy(tensors, call->tensors, CLDSA_INDEXER_NUM_INPUTS * sizeof *tensors);
    tensors[CLDSA_INDEXER_NUM_INPUTS] =
        (cldsa_host_tensor){.data = scores, .dtype = CLDSA_F32, .rank = 3, .shape = {in->B, in->S, in->T}};
    cldsa_op_indexer_scores.reference(&(cldsa_reference_call){&args, call->dims, tensors});
    for (int64_t r = 0; r < in->B * in->S; ++r) {
        for (int64_t j = 0; j < in->T; ++j)
            if (!is_selected(&call->tensors[SELECTED], r, j, in->T))
                scores[r * in->T + j] = -INFINITY;
        const double row = row_reference(scores + r * in->T, call->tensors[P].data + r * in->T, in->T);
        total += row;
        if (row_loss->data)
            row_loss->data[r] = row;
    }
    if (loss->data)
        loss->data[0] = total;
    return scores;
}

static void forward_reference(const cldsa_reference_call *call) {
    const kl_call kl = KL_CALL((const forward_args *)call->args, call->dims);
    free(rows_reference(call, &kl, &call->tensors[LOSS], &call->tensors[ROW_LOSS]));
}

static void backward_reference(const cldsa_reference_call *call) {
    const backward_args *a = call->args;
    const kl_call kl = KL_CALL(a, call->dims);
    cldsa_host_tensor *t = call->tensors, tensors[CLDSA_INDEXER_NUM_INPUTS + 4];
    double *gradient = rows_reference(call, &kl, &t[BACKWARD_LOSS], &t[BACKWARD_ROW_LOSS]);
    const int64_t pairs = kl.in.B * kl.in.S * kl.in.T;
    for (int64_t e = 0; t[DLOSS].data && e < pairs; ++e)
        gradient[e] *= t[DLOSS].data[0];
    memcpy(tensors, t, CLDSA_INDEXER_NUM_INPUTS * sizeof *tensors);
    tensors[CLDSA_INDEXER_NUM_INPUTS] = t[P]; /* dscores has its shape */
    tensors[CLDSA_INDEXER_NUM_INPUTS].data = gradient;
    memcpy(tensors + CLDSA_INDEXER_NUM_INPUTS + 1, t + DQ, 3 * sizeof *tensors);
    const cldsa_indexer_scores_backward_args args = {.range = a->range, .relu_out = a->relu_out};
    cldsa_op_indexer_scores_backward.reference(&(cldsa_reference_call){&args, call->dims, tensors});
    free(gradient);
}

/* ---- cost -------------------------------------------------------------------------------------------------------- */

static double forward_flops(const cldsa_run *run) {
    const kl_call call = forward_call(run);
    return 2 * cldsa_indexer_pairs(&call.in) * (double)(call.in.H * call.in.D);
}

/* The scores, and two products more: dots are useful once. */
static double backward_flops(const cldsa_run *run) {
    const kl_call call = backward_call(run);
    return 6 * cldsa_indexer_pairs(&call.in) * (double)(call.in.H * call.in.D);
}

static double input_bytes(const kl_call *call) {
    const cldsa_tensor *mask = call->selected;
    return (double)(cldsa_tensor_numel(call->in.q) + cldsa_tensor_numel(call->in.k)) *
               (double)cldsa_dtype_size(call->in.q->dtype) +
           cldsa_indexer_pairs(&call->in) * sizeof(cl_float) +
           (mask->rank ? (double)cldsa_tensor_numel(mask) * (double)cldsa_dtype_size(mask->dtype) : 0);
}

static double forward_bytes(const cldsa_run *run) {
    const kl_call call = forward_call(run);
    return input_bytes(&call);
}

static double backward_bytes(const cldsa_run *run) {
    const kl_call call = backward_call(run);
    return input_bytes(&call) +
           (double)(cldsa_tensor_numel(call.in.q) + cldsa_tensor_numel(call.in.k)) * sizeof(cl_float);
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static void vec_defaults(const cldsa_run *run, int *tune) {
    (void)run;
    tune[SLAB_MIB] = 32; /* so that the rows find part of the scores in the caches */
}

/* Long rows by large groups: what a row has too much for the registers is read twice. */
static void simt_defaults(const cldsa_run *run, int *tune) {
    const int64_t keys = run->dims[T];
    const size_t most = cldsa_context_device_info(run->ctx)->max_work_group_size;
    tune[WG] = keys <= 256 ? 64 : keys <= 8192 || most < 512 ? 256 : 512;
    while (tune[PER_LANE] < 16 && (int64_t)tune[WG] * tune[PER_LANE] < keys)
        tune[PER_LANE] *= 2;
}

static bool simt_legal(const cldsa_run *run, const int *tune) {
    return (size_t)tune[WG] <= cldsa_context_device_info(run->ctx)->max_work_group_size;
}

#define TUNE_SLAB                                                                                                      \
    { "SLAB_MIB", 192, {4, 8, 16, 32, 64, 128, 192}, "MiB of scratch asked for, if the least is no more" }

#define VARIANTS(direction)                                                                                            \
    static const cldsa_variant direction##_vec = {                                                                     \
        .name = "vec",                                                                                                 \
        .file = "indexer_kl.cl",                                                                                       \
        .tunables = {TUNE_SLAB, {"ROWS", 1, {1, 2, 4, 8, 16}, "rows per work-item"}},                                  \
        .defaults = vec_defaults,                                                                                      \
        .workspace = direction##_workspace,                                                                            \
        .enqueue = enqueue_##direction,                                                                                \
    };                                                                                                                 \
    static const cldsa_variant direction##_simt = {                                                                    \
        .name = "simt",                                                                                                \
        .file = "indexer_kl.cl",                                                                                       \
        .tunables = {TUNE_SLAB,                                                                                        \
                     {"WG", 256, {64, 128, 256, 512, 1024}, "work-items per row"},                                     \
                     {"PER_LANE", 4, {1, 2, 4, 8, 16}, "of a row's keys in a work-item's registers"}},                 \
        .defaults = simt_defaults,                                                                                     \
        .legal = simt_legal,                                                                                           \
        .workspace = direction##_workspace,                                                                            \
        .enqueue = enqueue_##direction,                                                                                \
    };                                                                                                                 \
    static const cldsa_variant *const direction##_variants[] = {&direction##_vec, &direction##_simt, NULL};

VARIANTS(forward)
VARIANTS(backward)

const cldsa_op cldsa_op_indexer_kl = {
    .name = "indexer_kl",
    .summary = "the loss that trains the indexer: divergence of its softmax from attention's weights",
    .args_size = sizeof(forward_args),
    .dims = dims,
    .fields = forward_fields,
    .variants = forward_variants,
    .choose = cldsa_choose_vec_or_simt,
    .check = check_forward,
    .reference = forward_reference,
    .flops = forward_flops,
    .bytes = forward_bytes,
    .tolerance_abs = 5e-5,
    .tolerance_rel = 2e-5,
};
CLDSA_DEFINE_OP(indexer_kl)

const cldsa_op cldsa_op_indexer_kl_backward = {
    .name = "indexer_kl_backward",
    .summary = "gradients of indexer_kl for q, k and w, and the loss itself",
    .args_size = sizeof(backward_args),
    .dims = dims,
    .fields = backward_fields,
    .variants = backward_variants,
    .choose = cldsa_choose_vec_or_simt,
    .check = check_backward,
    .reference = backward_reference,
    .flops = backward_flops,
    .bytes = backward_bytes,
    .tolerance_abs = 1e-4,
    .tolerance_rel = 5e-5,
};
CLDSA_DEFINE_OP(indexer_kl_backward)

cldsa_status cldsa_indexer_kl_workspace_min(cldsa_context *ctx, const cldsa_indexer_kl_args *args, size_t *bytes) {
    return cldsa_op_workspace(ctx, &cldsa_op_indexer_kl, args, NULL, bytes);
}

cldsa_status cldsa_indexer_kl_backward_workspace_min(cldsa_context *ctx, const cldsa_indexer_kl_backward_args *args,
                                                     size_t *bytes) {
    return cldsa_op_workspace(ctx, &cldsa_op_indexer_kl_backward, args, NULL, bytes);
}
