/* select against its reference (whole numbers, so that scores are exact and ties real), and the bound on its scratch.
 * (ctest: full, for the kernels it builds) */
#include <stdio.h>

#include <cldsa/select.h>

#include "host/ops/op.h"
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_select;

#define EXACT "q=whole -3 3; k=whole -3 3; w=whole -2 2"

static const harness_case cases[] = {
    {.name = "all keys", .dims = "B=2 S=19 T=70 H=4 Hk=4 D=16 K=9", .params = "k_max=9 relu_out=1", .fill = EXACT},
    {.name = "causal, values and counts by score",
     .dims = "B=1 S=45 T=130 H=2 Hk=1 D=24 K=20",
     .params = "k_max=20 range=causal order=score",
     .give = "values count",
     .fill = EXACT,
     .shapes = "w=B S H"},
    {.name = "causal, several sequences",
     .dims = "B=3 S=33 T=33 H=2 Hk=2 D=8 K=12",
     .params = "k_max=12 range=causal",
     .give = "count",
     .fill = EXACT},
    {.name = "more queries than keys",
     .dims = "B=2 S=40 T=9 H=2 Hk=1 D=16 K=9",
     .params = "k_max=9 range=causal",
     .give = "values count",
     .fill = EXACT},
    {.name = "k of each row",
     .dims = "B=2 S=13 T=50 H=2 Hk=1 D=16 K=50",
     .give = "k_rows count",
     .fill = EXACT "; k_rows=whole 0 60",
     .shapes = "k_rows=B S"},
    {.name = "k of each sequence",
     .dims = "B=3 S=5 T=40 H=1 Hk=1 D=8 K=10",
     .give = "k_rows values",
     .params = "range=causal",
     .fill = EXACT "; k_rows=whole 1 10",
     .shapes = "k_rows=B"},
    {.name = "ranges, factor of keys",
     .dims = "B=2 S=21 T=60 H=2 Hk=1 D=8 K=7",
     .params = "range=rows k_max=7",
     .give = "ks ke k_scale count",
     .fill = EXACT "; k_scale=whole 0 2; ks=range_start T; ke=range_end T"},
    {.name = "more places than keys", .dims = "B=1 S=4 T=5 H=1 Hk=1 D=4 K=8", .params = "k_max=5", .fill = EXACT},
    {.name = "one of everything", .dims = "B=1 S=1 T=1 H=1 Hk=1 D=1 K=1", .fill = EXACT},
    {.name = "half storage",
     .dims = "B=1 S=30 T=90 H=2 Hk=2 D=16 K=16",
     .params = "k_max=16 range=causal",
     .dtypes = "q=F16 k=F16",
     .fill = EXACT},
    {.name = "k above T",
     .dims = "B=1 S=4 T=5 H=1 Hk=1 D=4 K=8",
     .params = "k_max=6",
     .fill = EXACT,
     .expect = CLDSA_INVALID_ARGUMENT,
     .message = "k_max is 6; it must be 1 to 5"},
};

static cldsa_tensor tensor(cl_context cl, cldsa_tensor shape) {
    shape.mem = clCreateBuffer(cl, CL_MEM_READ_WRITE,
                               (size_t)cldsa_tensor_numel(&shape) * cldsa_dtype_size(shape.dtype), NULL, NULL);
    return shape;
}

/* At S=8192, T=262144 the preferred workspace stays below 256 MiB, whatever k; the least is a few rows of scores. */
static int check_bound(int64_t k) {
    enum { S = 8192, T = 262144 };
    const size_t most = (size_t)256 << 20, few = (size_t)64 << 20;
    cl_command_queue queue;
    cldsa_context *ctx = harness_context(&queue);
    cl_context cl;
    clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof cl, &cl, NULL);
    cldsa_select_args args = {.q = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, 1, S, 1, 1)),
                              .k = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, 1, T, 1, 1)),
                              .w = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_F32, 1)),
                              .indices = tensor(cl, CLDSA_TENSOR(NULL, 0, CLDSA_I32, 1, S, k)),
                              .range = CLDSA_RANGE_CAUSAL,
                              .k_max = (int)k,
                              .order = CLDSA_ORDER_SCORE};
    size_t preferred = 0, least = 0;
    cldsa_status status = cldsa_select_workspace(ctx, &args, &preferred);
    if (status == CLDSA_SUCCESS)
        status = cldsa_select_workspace_min(ctx, &args, &least);
    bool ok = status == CLDSA_SUCCESS && preferred < most && least < few && least <= preferred;
    printf("select: S=%d T=%d k=%lld asks for %zu bytes, at least %zu: %s\n", S, T, (long long)k, preferred, least,
           ok       ? "ok"
           : status ? cldsa_error_message()
                    : "FAILED");
    clReleaseMemObject(args.q.mem);
    clReleaseMemObject(args.k.mem);
    clReleaseMemObject(args.w.mem);
    clReleaseMemObject(args.indices.mem);
    return !ok;
}

int main(int argc, char **argv) {
    const harness_suite suites[] = {{.op = &cldsa_op_select, HARNESS_CASES(cases)}};
    int failed = 0;
    if (harness_work_limit() == 0)
        failed = check_bound(1) + check_bound(2048) + check_bound(16384);
    return harness_main(suites, 1, argc, argv) || failed;
}
