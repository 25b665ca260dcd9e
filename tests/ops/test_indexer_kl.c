/* indexer_kl and its backward pass against their references, and the bound on the scratch of both.
 * (ctest: full, for the kernels it builds) */
#include <math.h>
#include <stdio.h>

#include <cldsa/indexer_kl.h>

#include "host/ops/op.h"
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_indexer_kl, cldsa_op_indexer_kl_backward;

/* About as a model has them: scores of a size of 1, and a target whose rows sum to something like 1, but not to 1. */
#define FILL     "w=normal 0.3; p=uniform 0 0.05"
#define RANGES   "; ks=range_start T; ke=range_end T"
#define SELECTED "; selected=mask 0.5"

/* ---- prepare hooks ----------------------------------------------------------------------------------------------- */

/* Rows of the target become distributions, with zeros among them. */
static void normalise(harness_data *data) {
    cldsa_host_tensor *p = harness_tensor(data, "p");
    const int64_t keys = harness_dim(data, "T");
    for (int64_t r = 0; r < harness_numel(p) / keys; ++r) {
        double sum = 0;
        for (int64_t j = 0; j < keys; ++j) {
            p->data[r * keys + j] = j % 3 == 1 ? 0 : p->data[r * keys + j];
            sum += p->data[r * keys + j];
        }
        for (int64_t j = 0; j < keys; ++j)
            p->data[r * keys + j] /= sum;
    }
}

/* Of U8 masks: every third row selects nothing, the next one a single key, the last of all. */
static void select_nothing(harness_data *data) {
    cldsa_host_tensor *selected = harness_tensor(data, "selected");
    const int64_t keys = harness_dim(data, "T");
    for (int64_t r = 0; r < harness_numel(selected) / keys; ++r)
        for (int64_t j = 0; j < keys && r % 3 < 2; ++j)
            selected->data[r * keys + j] = r % 3 == 1 && j == keys - 1;
}

/* One element of row `row` of a tensor [B,rows,...], in every batch element. */
static void spoil_row(cldsa_host_tensor *x, int64_t row, double value) {
    const int64_t size = harness_numel(x) / (x->shape[0] * x->shape[1]);
    for (int64_t b = 0; b < x->shape[0]; ++b)
        x->data[(b * x->shape[1] + row) * size + row % size] = value;
}

/* The last keys, which only late queries of a causal call see. */
static void spoil_keys(harness_data *data) {
    cldsa_host_tensor *k = harness_tensor(data, "k");
    const int64_t last = harness_dim(data, "T") - 1;
    spoil_row(k, last, NAN);
    spoil_row(k, last - 1, INFINITY);
    spoil_row(k, last - 2, -INFINITY);
}

static void spoil_queries(harness_data *data) {
    cldsa_host_tensor *q = harness_tensor(data, "q");
    spoil_row(q, 0, NAN);
    spoil_row(q, 1, INFINITY);
    spoil_row(q, 2, -INFINITY);
}

static void spoil_target(harness_data *data) {
    cldsa_host_tensor *p = harness_tensor(data, "p");
    const int64_t keys = harness_dim(data, "T");
    p->data[0] = NAN;            /* seen by a causal call's first query */
    p->data[2 * keys - 1] = NAN; /* not seen by its second */
}

/* Nobody sees what is spoilt. */
static void hide_spoilt(harness_data *data) {
    cldsa_host_tensor *selected = harness_tensor(data, "selected"), *p = harness_tensor(data, "p");
    const int64_t keys = harness_dim(data, "T");
    for (int64_t r = 0; r < harness_numel(selected) / keys; ++r)
        for (int64_t j = keys - 3; j < keys; ++j) {
            selected->data[r * keys + j] = 0;
            p->data[r * keys + j] = r % 2 ? NAN : INFINITY;
        }
    spoil_keys(data);
}

/* With positive queries and negative weights, some keys' scores are -inf: those are not seen. */
static void rule_out(harness_data *data) {
    for (int64_t j = 0; j < harness_dim(data, "T"); j += 3)
        spoil_row(harness_tensor(data, "k"), j, INFINITY);
}
#define RULED_OUT .fill = "q=uniform 0.1 1; w=uniform -0.3 -0.1; p=uniform 0 0.05", .prepare = rule_out, .finite = true

/* ---- forward ----------------------------------------------------------------------------------------------------- */

static const harness_case forward_cases[] = {
    {.name = "dense", .dims = "B=2 S=19 T=70 H=4 Hk=4 D=16", .give = "row_loss", .fill = FILL, .prepare = normalise},
    {.name = "one of everything", .dims = "B=1 S=1 T=1 H=1 Hk=1 D=1", .fill = FILL},
    {.name = "small, bytes",
     .dims = "B=1 S=5 T=19 H=2 Hk=1 D=4",
     .give = "selected row_loss",
     .params = "range=causal",
     .shapes = "w=B S H",
     .fill = FILL SELECTED},
    {.name = "small, bits",
     .dims = "B=1 S=4 T=35 H=1 Hk=1 D=4",
     .give = "selected",
     .dtypes = "selected=U32",
     .fill = FILL SELECTED},
    {.name = "causal, one key for all heads, bits",
     .dims = "B=2 S=45 T=131 H=8 Hk=1 D=24",
     .params = "range=causal",
     .give = "selected row_loss",
     .dtypes = "selected=U32",
     .shapes = "w=B S H",
     .fill = FILL SELECTED},
    {.name = "causal, several sequences, bytes",
     .dims = "B=3 S=33 T=33 H=2 Hk=2 D=8",
     .params = "range=causal",
     .give = "selected",
     .fill = FILL SELECTED},
    {.name = "more queries than keys",
     .dims = "B=2 S=40 T=9 H=2 Hk=1 D=16",
     .params = "range=causal relu_out=1",
     .give = "row_loss",
     .fill = FILL},
    {.name = "empty ranges, factor of keys",
     .dims = "B=2 S=33 T=50 H=3 Hk=3 D=20",
     .params = "range=rows",
     .give = "ks ke k_scale row_loss",
     .shapes = "w=B S H",
     .fill = FILL RANGES},
    {.name = "ranges and a selection",
     .dims = "B=1 S=40 T=70 H=3 Hk=1 D=20",
     .params = "range=rows relu_out=1",
     .give = "ks ke selected row_loss",
     .dtypes = "selected=U32",
     .fill = FILL RANGES SELECTED},
    {.name = "rows without a selected key",
     .dims = "B=2 S=13 T=37 H=2 Hk=1 D=12",
     .give = "selected row_loss",
     .fill = FILL SELECTED,
     .prepare = select_nothing,
     .finite = true},
    {.name = "one row, many keys", .dims = "B=1 S=1 T=5003 H=2 Hk=1 D=8", .fill = FILL, .prepare = normalise},
    {.name = "many rows, bits",
     .dims = "B=1 S=700 T=21 H=1 Hk=1 D=4",
     .params = "range=causal",
     .give = "selected row_loss",
     .dtypes = "selected=U32",
     .fill = FILL SELECTED},
    {.name = "ties: all scores 0",
     .dims = "B=1 S=7 T=90 H=2 Hk=1 D=8",
     .give = "row_loss",
     .fill = "w=const 0; p=uniform 0 0.05",
     .prepare = normalise},
    {.name = "scores that leave one key",
     .dims = "B=1 S=9 T=60 H=2 Hk=1 D=8",
     .give = "row_loss",
     .fill = "w=const 40; p=uniform 0 0.05"},
    {.name = "half storage", .dims = "B=2 S=13 T=77 H=4 Hk=4 D=33", .dtypes = "q=F16 k=F16", .fill = FILL},
    {.name = "bfloat storage",
     .dims = "B=2 S=13 T=77 H=4 Hk=1 D=48",
     .dtypes = "q=BF16 k=BF16 selected=U32",
     .params = "range=causal",
     .give = "k_scale selected row_loss",
     .fill = FILL SELECTED},
    {.name = "not finite keys",
     .dims = "B=2 S=30 T=40 H=2 Hk=1 D=18",
     .params = "range=causal",
     .give = "row_loss",
     .fill = "w=positive; p=uniform 0 0.05",
     .prepare = spoil_keys},
    {.name = "not finite queries",
     .dims = "B=2 S=30 T=40 H=2 Hk=1 D=18",
     .params = "range=causal",
     .give = "row_loss",
     .fill = "w=positive; p=uniform 0 0.05",
     .prepare = spoil_queries},
    {.name = "not finite target",
     .dims = "B=2 S=30 T=40 H=2 Hk=1 D=18",
     .params = "range=causal",
     .give = "row_loss",
     .fill = FILL,
     .prepare = spoil_target},
    {.name = "not finite and not selected",
     .dims = "B=2 S=30 T=40 H=2 Hk=2 D=18",
     .give = "selected row_loss",
     .fill = FILL SELECTED,
     .prepare = hide_spoilt,
     .finite = true},
    {.name = "scores of -inf", .dims = "B=1 S=12 T=40 H=2 Hk=1 D=6", .give = "row_loss", RULED_OUT},
    {.name = "heads of k",
     .dims = "B=1 S=3 T=4 H=4 Hk=2 D=8",
     .fill = FILL,
     .expect = CLDSA_INVALID_SHAPE,
     .message = "k has 2 heads"},
    {.name = "ranges not given",
     .dims = "B=1 S=3 T=4 H=4 Hk=1 D=8",
     .params = "range=rows",
     .fill = FILL,
     .expect = CLDSA_MISSING_TENSOR,
     .message = "needs ks and ke"},
    {.name = "bits of too few keys",
     .dims = "B=1 S=3 T=40 H=4 Hk=1 D=8",
     .give = "selected",
     .dtypes = "selected=U32",
     .shapes = "selected=B S 1",
     .fill = FILL SELECTED,
     .expect = CLDSA_INVALID_SHAPE,
     .message = "selected has shape [1,3,1]"},
};

/* ---- backward ---------------------------------------------------------------------------------------------------- */

#define PER_ROW .shapes = "w=B S H; dw=B S H"

static const harness_case backward_cases[] = {
    {.name = "dense",
     .dims = "B=2 S=7 T=21 H=4 Hk=4 D=10",
     .give = "dloss loss row_loss",
     .fill = FILL,
     .prepare = normalise,
     PER_ROW},
    {.name = "one of everything", .dims = "B=1 S=1 T=1 H=1 Hk=1 D=1", .give = "dloss", .fill = FILL},
    {.name = "small, bytes",
     .dims = "B=1 S=4 T=18 H=2 Hk=1 D=4",
     .params = "range=causal",
     .give = "selected dloss",
     .fill = FILL SELECTED},
    {.name = "small, bits",
     .dims = "B=1 S=3 T=33 H=1 Hk=1 D=4",
     .give = "selected dloss loss",
     .dtypes = "selected=U32",
     .fill = FILL SELECTED},
    {.name = "causal, a sequence at a time, bits",
     .dims = "B=3 S=13 T=19 H=3 Hk=1 D=12",
     .params = "range=causal",
     .give = "selected dloss loss",
     .dtypes = "selected=U32",
     .fill = FILL SELECTED,
     PER_ROW},
    {.name = "weights of all sequences",
     .dims = "B=3 S=9 T=14 H=2 Hk=2 D=8",
     .params = "range=causal",
     .give = "selected dloss row_loss",
     .fill = FILL SELECTED},
    {.name = "no upstream gradient",
     .dims = "B=2 S=33 T=70 H=2 Hk=1 D=16",
     .fill = FILL,
     .no_differences = true,
     PER_ROW},
    {.name = "several tiles",
     .dims = "B=2 S=141 T=150 H=2 Hk=1 D=36",
     .params = "range=causal",
     .give = "selected dloss loss",
     .dtypes = "selected=U32",
     .fill = FILL SELECTED,
     PER_ROW},
    {.name = "more queries than keys",
     .dims = "B=1 S=40 T=9 H=2 Hk=1 D=16",
     .params = "range=causal",
     .give = "dloss",
     .fill = FILL},
    {.name = "empty ranges, factor of keys",
     .dims = "B=2 S=16 T=20 H=3 Hk=3 D=8",
     .params = "range=rows",
     .give = "ks ke k_scale dloss row_loss",
     .fill = FILL RANGES,
     PER_ROW},
    {.name = "ranges and a selection, relu",
     .dims = "B=2 S=40 T=70 H=3 Hk=1 D=20",
     .params = "range=rows relu_out=1",
     .give = "ks ke selected dloss loss",
     .dtypes = "selected=U32",
     .fill = FILL RANGES SELECTED,
     .no_differences = true,
     PER_ROW},
    {.name = "rows without a selected key",
     .dims = "B=2 S=13 T=37 H=2 Hk=1 D=12",
     .give = "selected loss",
     .fill = FILL SELECTED,
     .prepare = select_nothing,
     .no_differences = true,
     .finite = true,
     PER_ROW},
    {.name = "long rows",
     .dims = "B=1 S=2 T=3001 H=1 Hk=1 D=4",
     .give = "dloss",
     .fill = "w=normal; p=uniform 0 0.001",
     .no_differences = true},
    {.name = "half storage",
     .dims = "B=1 S=13 T=77 H=4 Hk=4 D=33",
     .dtypes = "q=F16 k=F16",
     .fill = FILL,
     .no_differences = true},
    {.name = "bfloat storage",
     .dims = "B=2 S=13 T=77 H=4 Hk=1 D=48",
     .dtypes = "q=BF16 k=BF16",
     .give = "k_scale",
     .params = "range=causal",
     .fill = FILL,
     .no_differences = true,
     PER_ROW},
    {.name = "not finite keys",
     .dims = "B=2 S=30 T=40 H=2 Hk=1 D=18",
     .params = "range=causal",
     .give = "row_loss",
     .fill = "w=positive; p=uniform 0 0.05",
     .prepare = spoil_keys,
     .no_differences = true,
     PER_ROW},
    {.name = "not finite queries",
     .dims = "B=2 S=30 T=40 H=2 Hk=1 D=18",
     .params = "range=causal",
     .give = "row_loss",
     .fill = "w=positive; p=uniform 0 0.05",
     .prepare = spoil_queries,
     .no_differences = true,
     PER_ROW},
    {.name = "not finite target",
     .dims = "B=2 S=30 T=40 H=2 Hk=1 D=18",
     .params = "range=causal",
     .give = "row_loss",
     .fill = FILL,
     .prepare = spoil_target,
     .no_differences = true,
     PER_ROW},
    {.name = "not finite and not selected",
     .dims = "B=2 S=30 T=40 H=2 Hk=2 D=18",
     .give = "selected",
     .fill = FILL SELECTED,
     .prepare = hide_spoilt,
     .no_differences = true,
     .finite = true,
     PER_ROW},
    {.name = "scores of -inf",
     .dims = "B=1 S=12 T=40 H=2 Hk=1 D=6",
     .give = "row_loss",
     .no_differences = true,
     RULED_OUT},
    {.name = "shape of dw",
     .dims = "B=1 S=3 T=4 H=4 Hk=1 D=8",
     .shapes = "dw=B S H",
     .fill = FILL,
     .expect = CLDSA_INVALID_SHAPE,
     .message = "dw has rank 3"},
};

/* ---- the bounds on scratch --------------------------------------------------------------------------------------- */

enum { MIB = 1 << 20 };

static cldsa_tensor tensor(cl_context cl, cldsa_tensor shape) {
    shape.mem = clCreateBuffer(cl, CL_MEM_READ_WRITE,
                               (size_t)cldsa_tensor_numel(&shape) * cldsa_dtype_size(shape.dtype), NULL, NULL);
    return shape;
}

static int report(const char *name, cldsa_status status, size_t preferred, size_t least, size_t most, size_t few) {
    const bool ok = status == CLDSA_SUCCESS && preferred <= most && least <= few && least <= preferred;
    printf("%s asks for %zu bytes, at least %zu: %s\n", name, preferred, least,
           ok       ? "ok"
           : status ? cldsa_error_message()
                    : "FAILED");
    return !ok;
}

/* All scores would be 512 MiB; it takes one row of them, and 4 bytes for each. */
static int check_forward_bound(cldsa_context *ctx, cl_context cl) {
    enum { S = 2048, T = 65536 };
    cldsa_indexer_kl_args args = {.q = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, 1, S, 1, 1)),
                                  .k = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, 1, T, 1, 1)),
                                  .w = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, 1)),
                                  .p = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, 1, S, T)),
                                  .loss = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, 1)),
                                  .range = CLDSA_RANGE_CAUSAL};
    size_t preferred = 0, least = 0;
    cldsa_status status = cldsa_indexer_kl_workspace(ctx, &args, &preferred);
    if (status == CLDSA_SUCCESS)
        status = cldsa_indexer_kl_workspace_min(ctx, &args, &least);
    const cl_mem made[] = {args.q.mem, args.k.mem, args.w.mem, args.p.mem, args.loss.mem};
    for (size_t i = 0; i < sizeof made / sizeof *made; ++i)
        clReleaseMemObject(made[i]);
    return report("indexer_kl", status, preferred, least, (size_t)192 * MIB, MIB / 2);
}

/* dI of a sequence is 64 MiB, and four there are. */
static int check_backward_bound(cldsa_context *ctx, cl_context cl) {
    enum { B = 4, S = 4096 };
    cldsa_indexer_kl_backward_args args = {.q = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, B, S, 1, 1)),
                                           .w = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, B, S, 1)),
                                           .p = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, B, S, S)),
                                           .range = CLDSA_RANGE_CAUSAL};
    args.k = args.dq = args.dk = args.q;
    args.dw = args.w;
    size_t preferred = 0, least = 0;
    cldsa_status status = cldsa_indexer_kl_backward_workspace(ctx, &args, &preferred);
    if (status == CLDSA_SUCCESS)
        status = cldsa_indexer_kl_backward_workspace_min(ctx, &args, &least);
    const cl_mem made[] = {args.q.mem, args.w.mem, args.p.mem};
    for (size_t i = 0; i < sizeof made / sizeof *made; ++i)
        clReleaseMemObject(made[i]);
    return report("indexer_kl_backward", status, preferred, least, (size_t)192 * MIB, (size_t)64 * MIB);
}

static int check_bounds(void) {
    cl_command_queue queue;
    cldsa_context *ctx = harness_context(&queue);
    cl_context cl;
    clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof cl, &cl, NULL);
    return check_forward_bound(ctx, cl) + check_backward_bound(ctx, cl);
}

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_indexer_kl, .tunables = "vec:ROWS=4; simt:WG=64,PER_LANE=1", HARNESS_CASES(forward_cases)},
        {.op = &cldsa_op_indexer_kl_backward,
         .forward = &cldsa_op_indexer_kl,
         .tunables = "vec:ROWS=4; simt:WG=64,PER_LANE=2",
         HARNESS_CASES(backward_cases)},
    };
    const int failed = harness_work_limit() == 0 ? check_bounds() : 0;
    return harness_main(suites, 2, argc, argv) || failed;
}
