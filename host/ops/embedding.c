/* Token embedding with learned positions. Kernels: cl/embedding.cl. */
#include <cldsa/embedding.h>

#include <string.h>

#include "host/ops/op.h"

#define F32 CLDSA_ACCEPT_F32
#define I32 CLDSA_ACCEPT_I32

enum { B, S, V, D, P };
static const char *const embedding_dims[] = {"B", "S", "V", "D", "P", NULL};

static bool is_vec(const cldsa_run *run) {
    return strcmp(run->variant->name, "vec") == 0;
}

static int64_t num_tokens(const cldsa_run *run) {
    return run->dims[B] * run->dims[S];
}

static cldsa_status check_positions(const cldsa_run *run, const cldsa_tensor *positions) {
    if (positions->mem && run->dims[P] < run->dims[S])
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: there are %lld positions; sequences of %lld need as many",
                          run->op->name, (long long)run->dims[P], (long long)run->dims[S]);
    return CLDSA_SUCCESS;
}

/* ---- embedding ------------------------------------------------------------------------------------------------ */

static const cldsa_field forward_fields[] = {
    CLDSA_IN(cldsa_embedding_args, ids, "B S", I32, "tokens; outside 0 .. V-1 they read as zeros"),
    CLDSA_IN(cldsa_embedding_args, table, "V D", F32, "a row per token"),
    CLDSA_IN_OPT(cldsa_embedding_args, positions, "P D", F32, "a row per position, P >= S"),
    CLDSA_OUT(cldsa_embedding_args, out, "B S D", F32, "their sum"),
    {0},
};

static cldsa_status forward_check(const cldsa_run *run) {
    return check_positions(run, &((const cldsa_embedding_args *)run->args)->positions);
}

static cldsa_status forward_enqueue(cldsa_run *run) {
    const cldsa_embedding_args *a = run->args;
    bool vec = is_vec(run);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DHAS_POSITIONS=%d", a->positions.mem != NULL);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, vec ? "embedding_vec" : "embedding_simt", options, &kernel));
    int64_t n = num_tokens(run);
    size_t local = vec ? 1 : (size_t)cldsa_run_tune(run, "WG");
    int64_t columns = vec ? 0 : (int64_t)local * cldsa_run_tune(run, "UNROLL");
    size_t global = (size_t)(vec ? cldsa_ceil_div(n, cldsa_run_tune(run, "ROWS"))
                                 : n * cldsa_ceil_div(run->dims[D], columns) * (int64_t)local);
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(a->ids), CLDSA_ARG_TENSOR(a->table),
                         CLDSA_ARG_TENSOR(a->positions), CLDSA_ARG_TENSOR(a->out), CLDSA_ARG_U32(n),
                         CLDSA_ARG_U32(run->dims[S]), CLDSA_ARG_U32(run->dims[V]), CLDSA_ARG_U32(run->dims[D]));
}

static void forward_reference(const cldsa_reference_call *call) {
    const cldsa_host_tensor *t = call->tensors;
    int64_t dim = call->dims[D], length = call->dims[S];
    for (int64_t n = 0; n < call->dims[B] * length; ++n) {
        double id = t[0].data[n];
        bool known = id >= 0 && id < (double)call->dims[V];
        for (int64_t d = 0; d < dim; ++d)
            t[3].data[n * dim + d] =
                (known ? t[1].data[(int64_t)id * dim + d] : 0) + (t[2].data ? t[2].data[n % length * dim + d] : 0);
    }
}

static double forward_flops(const cldsa_run *run) {
    return (double)num_tokens(run) * (double)run->dims[D];
}
static double forward_bytes(const cldsa_run *run) {
    return 8.0 * (double)num_tokens(run) * (double)run->dims[D];
}

static const cldsa_variant forward_vec = {
    .name = "vec",
    .file = "embedding.cl",
    .tunables = {{"ROWS", 16, {4, 8, 16, 32}, "tokens per work-item"}},
    .enqueue = forward_enqueue,
};
/* Loads in flight where rows are long, work-items enough where they are short. */
static void forward_simt_defaults(const cldsa_run *run, int *tune) {
    tune[1] = run->dims[D] >= 4 * tune[0] ? 4 : run->dims[D] >= 2 * tune[0] ? 2 : 1;
}

static const cldsa_variant forward_simt = {
    .name = "simt",
    .file = "embedding.cl",
    .tunables = {{"WG", 128, {64, 128, 256}, "work-items per group"},
                 {"UNROLL", 4, {1, 2, 4, 8}, "columns per work-item"}},
    .defaults = forward_simt_defaults,
    .enqueue = forward_enqueue,
};
static const cldsa_variant *const forward_variants[] = {&forward_vec, &forward_simt, NULL};

const cldsa_op cldsa_op_embedding = {
    .name = "embedding",
    .summary = "table rows by token, plus learned positions",
    .args_size = sizeof(cldsa_embedding_args),
    .dims = embedding_dims,
    .fields = forward_fields,
    .variants = forward_variants,
    .choose = cldsa_choose_vec_or_simt,
    .check = forward_check,
    .reference = forward_reference,
    .flops = forward_flops,
    .bytes = forward_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-6,
};
CLDSA_DEFINE_OP(embedding)

/* ---- embedding_backward --------------------------------------------------------------------------------------- */

static const cldsa_field backward_fields[] = {
    CLDSA_IN(cldsa_embedding_backward_args, ids, "B S", I32, "tokens"),
    CLDSA_GRAD(cldsa_embedding_backward_args, dout, "B S D", F32, "in.dout", "gradient of out"),
    CLDSA_OUT(cldsa_embedding_backward_args, dtable, "V D", F32, "sum over each row's tokens, in order"),
    CLDSA_OUT_OPT(cldsa_embedding_backward_args, dpositions, "P D", F32, "sum over the batch; zeros from row S on"),
    {0},
};

static cldsa_status backward_check(const cldsa_run *run) {
    return check_positions(run, &((const cldsa_embedding_backward_args *)run->args)->dpositions);
}

static cldsa_status backward_enqueue(cldsa_run *run) {
    const cldsa_embedding_backward_args *a = run->args;
    bool vec = is_vec(run);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "%s", "");
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, vec ? "embedding_backward_vec" : "embedding_backward_simt", options, &kernel));
    int64_t dim = run->dims[D], rows = run->dims[V], position_rows = a->dpositions.mem ? run->dims[P] : 0;
    size_t local[2] = {1, 1}, global[2];
    if (vec) {
        int64_t owned = cldsa_run_tune(run, "ROWS");
        global[0] = (size_t)cldsa_ceil_div(dim, cldsa_run_tune(run, "COLS"));
        global[1] = (size_t)(cldsa_ceil_div(rows, owned) + cldsa_ceil_div(position_rows, owned));
    } else {
        local[0] = (size_t)cldsa_run_tune(run, "WG");
        global[0] = (size_t)((rows + position_rows) * cldsa_round_up(dim, (int64_t)local[0]));
    }
    return CLDSA_ENQUEUE(&run->stream, kernel, vec ? 2 : 1, global, local, CLDSA_ARG_TENSOR(a->ids),
                         CLDSA_ARG_TENSOR(a->dout), CLDSA_ARG_TENSOR(a->dtable), CLDSA_ARG_TENSOR(a->dpositions),
                         CLDSA_ARG_U32(num_tokens(run)), CLDSA_ARG_U32(run->dims[S]), CLDSA_ARG_U32(rows),
                         CLDSA_ARG_U32(position_rows), CLDSA_ARG_U32(dim));
}

static void backward_reference(const cldsa_reference_call *call) {
    const cldsa_host_tensor *t = call->tensors;
    int64_t dim = call->dims[D], length = call->dims[S];
    double *dtable = t[2].data, *dpositions = t[3].data;
    memset(dtable, 0, (size_t)(call->dims[V] * dim) * sizeof(double));
    if (dpositions)
        memset(dpositions, 0, (size_t)(call->dims[P] * dim) * sizeof(double));
    for (int64_t n = 0; n < call->dims[B] * length; ++n) {
        double id = t[0].data[n];
        for (int64_t d = 0; d < dim; ++d) {
            double v = t[1].data[n * dim + d];
            if (id >= 0 && id < (double)call->dims[V])
                dtable[(int64_t)id * dim + d] += v;
            if (dpositions)
                dpositions[n % length * dim + d] += v;
        }
    }
}

static double backward_flops(const cldsa_run *run) {
    const cldsa_embedding_backward_args *a = run->args;
    return (a->dpositions.mem ? 2.0 : 1.0) * (double)num_tokens(run) * (double)run->dims[D];
}
static double backward_bytes(const cldsa_run *run) {
    const cldsa_embedding_backward_args *a = run->args;
    int64_t written = run->dims[V] + (a->dpositions.mem ? run->dims[P] : 0);
    return 4.0 * (double)(num_tokens(run) + written) * (double)run->dims[D];
}

static const cldsa_variant backward_vec = {
    .name = "vec",
    .file = "embedding.cl",
    .tunables = {{"ROWS", 8, {4, 8, 16, 32}, "output rows per work-item"},
                 {"COLS", 64, {32, 64, 128, 256}, "columns per work-item"}},
    .enqueue = backward_enqueue,
};
static const cldsa_variant backward_simt = {
    .name = "simt",
    .file = "embedding.cl",
    .tunables = {{"WG", 128, {64, 128, 256}, "work-items per group, a column each"},
                 {"PER_LANE", 8, {4, 8, 16}, "ids that a work-item looks at together"}},
    .enqueue = backward_enqueue,
};
static const cldsa_variant *const backward_variants[] = {&backward_vec, &backward_simt, NULL};

const cldsa_op cldsa_op_embedding_backward = {
    .name = "embedding_backward",
    .summary = "gradients of embedding, deterministic",
    .args_size = sizeof(cldsa_embedding_backward_args),
    .dims = embedding_dims,
    .fields = backward_fields,
    .variants = backward_variants,
    .choose = cldsa_choose_vec_or_simt,
    .check = backward_check,
    .reference = backward_reference,
    .flops = backward_flops,
    .bytes = backward_bytes,
    .tolerance_abs = 2e-5,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(embedding_backward)
