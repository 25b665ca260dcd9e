/* Scores and top-k in bounded memory: indexer_scores and topk on slabs of rows. Own kernel: cl/select.cl. */
#include <cldsa/select.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/ops/slab.h"

extern const cldsa_op cldsa_op_select, cldsa_op_topk;

typedef cldsa_select_args args_t;

enum { K = 6 }; /* behind CLDSA_INDEXER_DIMS */
static const char *const dims[] = {CLDSA_INDEXER_DIMS, "K", NULL};
static const char *const order_names[] = {"index", "score", NULL};

enum { MAX_ROW = 1 << 24 };

static const cldsa_field fields[] = {
    CLDSA_INDEXER_FIELDS(args_t),
    CLDSA_IN_OPT(args_t, k_rows, "B S|B", CLDSA_ACCEPT_I32, "k of each row or each sequence"),
    CLDSA_OUT(args_t, indices, "B S K", CLDSA_ACCEPT_I32, "selected keys, -1 in unused places"),
    CLDSA_OUT_OPT(args_t, values, "B S K", CLDSA_ACCEPT_F32, "their scores, -inf in unused places"),
    CLDSA_OUT_OPT(args_t, count, "B S", CLDSA_ACCEPT_I32, "selected keys of each row"),
    CLDSA_INDEXER_PARAMS(args_t),
    CLDSA_PARAM(args_t, k_max, INT, 1, 0, MAX_ROW, "keys per row where k_rows is not given"),
    CLDSA_PARAM_ENUM(args_t, order, order_names, "of indices: ascending, or by descending score"),
    {0},
};
enum { K_ROWS = CLDSA_INDEXER_NUM_INPUTS, INDICES, VALUES, COUNT }; /* in the table above */

static cldsa_indexer_inputs inputs(const cldsa_run *run) {
    return CLDSA_INDEXER_INPUTS((const args_t *)run->args, run->dims);
}

static cldsa_status check(const cldsa_run *run) {
    const args_t *a = run->args;
    cldsa_indexer_inputs in = inputs(run);
    CLDSA_TRY(cldsa_indexer_check(run, &in));
    if (in.T > MAX_ROW || run->dims[K] > MAX_ROW)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "select: T is %lld and K %lld; they must not exceed 2^24",
                          (long long)in.T, (long long)run->dims[K]);
    if (!a->k_rows.mem && (a->k_max < 1 || a->k_max > in.T))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "select: k_max is %d; it must be 1 to %lld, the number of keys",
                          a->k_max, (long long)in.T);
    return CLDSA_SUCCESS;
}

/* ---- slabs ----------------------------------------------------------------------------------------------------- */

static cldsa_topk_args topk_args(const cldsa_run *run, const cldsa_slab *s, cldsa_tensor scores) {
    const args_t *a = run->args;
    cldsa_topk_args topk = {
        .scores = CLDSA_TENSOR(scores.mem, scores.offset, CLDSA_F32, s->batches, s->rows, s->keys),
        .k_rows = a->k_rows.rank == 2 ? cldsa_slab_rows(a->k_rows, s) : a->k_rows,
        .indices = cldsa_slab_rows(a->indices, s),
        .values = cldsa_slab_rows(a->values, s),
        .count = cldsa_slab_rows(a->count, s),
        .k = a->k_max < s->keys ? a->k_max : (int)s->keys,
        .order = a->order,
    };
    if (a->k_rows.mem && a->k_rows.rank == 1) {
        topk.k_rows.offset += (size_t)s->first_batch;
        topk.k_rows.shape[0] = s->batches;
    }
    if (a->range == CLDSA_RANGE_ROWS) { /* topk then need not look at what is -inf anyway */
        topk.ks = cldsa_slab_rows(a->ks, s);
        topk.ke = cldsa_slab_rows(a->ke, s);
    }
    return topk;
}

/* Scratch of a slab: its scores, then topk's. */
static void slab_bytes(const cldsa_run *run, const cldsa_slab *s, size_t *preferred, size_t *minimum) {
    const args_t *a = run->args;
    cldsa_topk_args topk = topk_args(run, s, a->q); /* any buffer will do for planning */
    *preferred = *minimum = 0;
    cldsa_run_sub_workspace(run, &cldsa_op_topk, &topk, preferred, minimum);
    *preferred += cldsa_slab_scores_bytes(s);
    *minimum += cldsa_slab_scores_bytes(s);
}

static size_t preferred_bytes(const cldsa_run *run, const cldsa_slab *s) {
    size_t preferred, minimum;
    slab_bytes(run, s, &preferred, &minimum);
    return preferred;
}

static cldsa_slab largest_slab(const cldsa_run *run, size_t bytes) {
    cldsa_indexer_inputs in = inputs(run);
    return cldsa_slab_largest(run, &in, bytes, preferred_bytes);
}

/* ---- the call -------------------------------------------------------------------------------------------------- */

enum { SLAB_MIB };

static void workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    cldsa_indexer_inputs in = inputs(run);
    cldsa_slab one = cldsa_slab_of(&in, 1, 1), best = largest_slab(run, (size_t)run->tune[SLAB_MIB] << 20);
    size_t unused;
    slab_bytes(run, &one, &unused, minimum);
    slab_bytes(run, &best, preferred, &unused);
}

static void defaults(const cldsa_run *run, int *tune) {
    if (cldsa_context_capabilities(run->ctx)->is_cpu)
        tune[SLAB_MIB] = 32; /* so that topk finds part of the scores in the caches */
}

/* Rows that see no key. */
static cldsa_status enqueue_none(cldsa_run *run, const cldsa_slab *s) {
    const args_t *a = run->args;
    cldsa_tensor indices = cldsa_slab_rows(a->indices, s), values = cldsa_slab_rows(a->values, s),
                 count = cldsa_slab_rows(a->count, s);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DHAS_VALUES=%d -DHAS_COUNT=%d", values.mem != NULL, count.mem != NULL);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "select_none", options, &kernel));
    size_t rows = (size_t)(s->batches * s->rows);
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &rows, NULL, CLDSA_ARG_TENSOR(indices), CLDSA_ARG_TENSOR(values),
                         CLDSA_ARG_TENSOR(count), CLDSA_ARG_I32(rows), CLDSA_ARG_I32(run->dims[K]));
}

static cldsa_status enqueue_slab(cldsa_run *run, const cldsa_slab *s) {
    if (s->keys <= 0)
        return enqueue_none(run, s);
    size_t topk_at = cldsa_slab_scores_bytes(s);
    cldsa_indexer_inputs in = inputs(run);
    cldsa_tensor scratch = cldsa_run_scratch(run, 0, CLDSA_F32, s->batches * s->rows * s->keys);
    cldsa_indexer_scores_args scores = cldsa_slab_scores(&in, s, scratch);
    cldsa_topk_args topk = topk_args(run, s, scratch);
    CLDSA_TRY(cldsa_run_sub(run, &cldsa_op_indexer_scores, &scores, 0, 0));
    return cldsa_run_sub(run, &cldsa_op_topk, &topk, topk_at, run->workspace_bytes - topk_at);
}

static cldsa_status enqueue(cldsa_run *run) {
    cldsa_indexer_inputs in = inputs(run);
    cldsa_slab size = largest_slab(run, run->workspace_bytes);
    return cldsa_slab_each(run, &in, &size, enqueue_slab);
}

static const cldsa_variant any = {
    .name = "any",
    .file = "select.cl",
    .tunables = {{"SLAB_MIB", 192, {4, 8, 16, 32, 64, 128, 192}, "MiB of scratch asked for, if one row needs no more"}},
    .defaults = defaults,
    .workspace = workspace,
    .enqueue = enqueue,
};

/* ---- the definition: scores, then top-k ------------------------------------------------------------------------ */

static cldsa_host_tensor *place(const cldsa_op *op, cldsa_host_tensor *tensors, const char *name) {
    int at = 0;
    while (strcmp(op->fields[at].name, name) != 0)
        ++at;
    return &tensors[at];
}

static void reference(const cldsa_reference_call *call) {
    const args_t *a = call->args;
    const cldsa_indexer_inputs in = CLDSA_INDEXER_INPUTS(a, call->dims);
    cldsa_host_tensor scores = {.data = malloc((size_t)(in.B * in.S * in.T) * sizeof(double)),
                                .dtype = CLDSA_F32,
                                .rank = 3,
                                .shape = {in.B, in.S, in.T}};
    if (!scores.data)
        abort();

    cldsa_indexer_scores_args scores_args_ = {.range = a->range, .relu_out = a->relu_out};
    cldsa_host_tensor scores_tensors[CLDSA_MAX_FIELDS] = {{0}};
    memcpy(scores_tensors, call->tensors, CLDSA_INDEXER_NUM_INPUTS * sizeof *scores_tensors);
    *place(&cldsa_op_indexer_scores, scores_tensors, "scores") = scores;
    cldsa_op_indexer_scores.reference(&(cldsa_reference_call){&scores_args_, call->dims, scores_tensors});

    cldsa_topk_args topk_args_ = {.k = a->k_max, .order = a->order};
    const cldsa_host_tensor *k_rows = &call->tensors[K_ROWS];
    int64_t topk_dims[CLDSA_MAX_DIMS] = {in.B * in.S, in.T, call->dims[K], 0}; /* R T K B */
    if (k_rows->data)
        topk_dims[3] = k_rows->rank == 1 ? in.B : 0;
    cldsa_host_tensor topk_tensors[CLDSA_MAX_FIELDS] = {{0}};
    *place(&cldsa_op_topk, topk_tensors, "scores") = scores;
    *place(&cldsa_op_topk, topk_tensors, "k_rows") = *k_rows;
    *place(&cldsa_op_topk, topk_tensors, "indices") = call->tensors[INDICES];
    *place(&cldsa_op_topk, topk_tensors, "values") = call->tensors[VALUES];
    *place(&cldsa_op_topk, topk_tensors, "count") = call->tensors[COUNT];
    cldsa_op_topk.reference(&(cldsa_reference_call){&topk_args_, topk_dims, topk_tensors});
    free(scores.data);
}

static double flops(const cldsa_run *run) {
    cldsa_indexer_inputs in = inputs(run);
    return 2 * cldsa_indexer_pairs(&in) * (double)(in.H * in.D);
}

static double bytes(const cldsa_run *run) {
    const args_t *a = run->args;
    return (double)(cldsa_tensor_numel(&a->q) + cldsa_tensor_numel(&a->k)) * (double)cldsa_dtype_size(a->q.dtype) +
           (double)cldsa_tensor_numel(&a->indices) * sizeof(cl_int);
}

static const cldsa_variant *const variants[] = {&any, NULL};

const cldsa_op cldsa_op_select = {
    .name = "select",
    .summary = "indexer scores and top-k together in bounded memory",
    .args_size = sizeof(args_t),
    .dims = dims,
    .fields = fields,
    .variants = variants,
    .check = check,
    .reference = reference,
    .flops = flops,
    .bytes = bytes,
    .tolerance_abs = 2e-5,
    .tolerance_rel = 2e-5,
};
CLDSA_DEFINE_OP(select)

cldsa_status cldsa_select_workspace_min(cldsa_context *ctx, const cldsa_select_args *args, size_t *bytes_) {
    return cldsa_op_workspace(ctx, &cldsa_op_select, args, NULL, bytes_);
}
