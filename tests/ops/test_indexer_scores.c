/* indexer_scores and its backward pass against their references. (ctest: full, for the kernels it builds) */
#include <math.h>

#include "host/ops/indexer_scores.h"
#include "tests/ops/harness.h"

#define RANGES .give = "ks ke", .fill = "ks=range_start T; ke=range_end T"

/* NaN and infinities in three rows of one head; no other row may notice. */
static void spoil(cldsa_host_tensor *x) {
    const int64_t row = x->shape[2] * x->shape[3];
    x->data[3 * row + 1] = NAN;
    x->data[5 * row + 2] = INFINITY;
    x->data[x->shape[1] * row - 1] = -INFINITY;
}
static void spoil_queries(harness_data *data) {
    spoil(harness_tensor(data, "q"));
}
static void spoil_keys(harness_data *data) {
    spoil(harness_tensor(data, "k"));
}

static const harness_case forward_cases[] = {
    {.name = "a key per head", .dims = "B=2 S=19 T=70 H=4 Hk=4 D=64", .params = "relu_out=1"},
    {.name = "one key for all heads, weights per row",
     .dims = "B=1 S=17 T=45 H=8 Hk=1 D=128",
     .params = "range=causal",
     .shapes = "w=B S H"},
    {.name = "one of everything", .dims = "B=1 S=1 T=1 H=1 Hk=1 D=1"},
    {.name = "odd everything", .dims = "B=3 S=7 T=131 H=3 Hk=3 D=37", .shapes = "w=B S H"},
    {.name = "several tiles", .dims = "B=2 S=141 T=300 H=2 Hk=1 D=24", .params = "range=causal"},
    {.name = "several chunks of queries", .dims = "B=1 S=531 T=67 H=2 Hk=2 D=16", .params = "range=causal"},
    {.name = "more queries than keys", .dims = "B=1 S=40 T=9 H=2 Hk=1 D=16", .params = "range=causal"},
    {.name = "more heads than a panel holds", .dims = "B=1 S=9 T=66 H=19 Hk=19 D=128", .shapes = "w=B S H"},
    {.name = "many heads, one key",
     .dims = "B=2 S=3 T=150 H=70 Hk=1 D=72",
     .params = "range=rows relu_out=1",
     .give = "ks ke k_scale",
     .fill = "ks=range_start T; ke=range_end T",
     .shapes = "w=B S H"},
    {.name = "many heads, bfloat16", .dims = "B=1 S=2 T=70 H=24 Hk=1 D=44", .dtypes = "q=BF16 k=BF16 scores=BF16"},
    {.name = "one query", .dims = "B=2 S=1 T=513 H=6 Hk=1 D=40", .params = "range=causal"},
    {.name = "ranges", .dims = "B=2 S=33 T=150 H=3 Hk=1 D=40", .params = "range=rows", RANGES, .shapes = "w=B S H"},
    {.name = "ranges, factor of keys, relu",
     .dims = "B=1 S=21 T=40 H=2 Hk=2 D=20",
     .params = "range=rows relu_out=1",
     .give = "ks ke k_scale",
     .fill = "ks=range_start T; ke=range_end T"},
    {.name = "half storage", .dims = "B=2 S=13 T=77 H=4 Hk=4 D=33", .dtypes = "q=F16 k=F16 scores=F16"},
    {.name = "bfloat storage",
     .dims = "B=2 S=13 T=77 H=4 Hk=1 D=48",
     .dtypes = "q=BF16 k=BF16 scores=BF16",
     .params = "range=causal",
     .give = "k_scale"},
    {.name = "half in, float out", .dims = "B=1 S=20 T=65 H=2 Hk=1 D=64", .dtypes = "q=F16 k=F16"},
    {.name = "exact whole numbers",
     .dims = "B=1 S=50 T=90 H=3 Hk=3 D=30",
     .fill = "q=whole -3 3; k=whole -3 3; w=whole -2 2"},
    {.name = "not finite queries",
     .dims = "B=1 S=30 T=40 H=2 Hk=1 D=18",
     .fill = "w=positive",
     .prepare = spoil_queries},
    {.name = "not finite keys",
     .dims = "B=1 S=30 T=40 H=2 Hk=2 D=18",
     .fill = "w=positive",
     .params = "range=causal relu_out=1",
     .prepare = spoil_keys},
    {.name = "heads of k",
     .dims = "B=1 S=3 T=4 H=4 Hk=2 D=8",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "k has 2 heads"},
    {.name = "dtype of k",
     .dims = "B=1 S=3 T=4 H=4 Hk=1 D=8",
     .dtypes = "q=F16",
     .expect = CLDSA_INVALID_DTYPE,
     .message = "k is F32 but q is F16"},
    {.name = "ranges not given",
     .dims = "B=1 S=3 T=4 H=4 Hk=1 D=8",
     .params = "range=rows",
     .expect = CLDSA_MISSING_TENSOR,
     .message = "needs ks and ke"},
};

/* The tiles that a large GPU gets. */
static const harness_case large_tile_cases[] = {
    {.name = "large tiles, odd everything",
     .dims = "B=2 S=131 T=150 H=3 Hk=1 D=37",
     .params = "range=causal",
     .shapes = "w=B S H"},
    {.name = "large tiles, a key per head", .dims = "B=1 S=129 T=257 H=2 Hk=2 D=32", .dtypes = "q=BF16 k=BF16"},
};

static const harness_case backward_cases[] = {
    {.name = "a key per head, relu",
     .dims = "B=2 S=19 T=21 H=4 Hk=4 D=24",
     .params = "relu_out=1",
     .no_differences = true},
    {.name = "one key for all heads, weights per row",
     .dims = "B=1 S=7 T=11 H=3 Hk=1 D=10",
     .params = "range=causal",
     .shapes = "w=B S H; dw=B S H"},
    {.name = "one of everything", .dims = "B=1 S=1 T=1 H=1 Hk=1 D=1"},
    {.name = "several tiles", .dims = "B=2 S=141 T=150 H=2 Hk=1 D=36", .params = "range=causal"},
    {.name = "a key per head, several tiles", .dims = "B=1 S=70 T=131 H=2 Hk=2 D=64", .shapes = "w=B S H; dw=B S H"},
    {.name = "more queries than keys", .dims = "B=1 S=90 T=9 H=2 Hk=1 D=16", .params = "range=causal"},
    {.name = "wide heads", .dims = "B=1 S=5 T=33 H=2 Hk=1 D=200"},
    {.name = "ranges, factor of keys",
     .dims = "B=2 S=33 T=50 H=3 Hk=3 D=20",
     .params = "range=rows",
     .give = "ks ke k_scale",
     .fill = "ks=range_start T; ke=range_end T",
     .shapes = "w=B S H; dw=B S H"},
    {.name = "ranges, factor of keys, relu",
     .dims = "B=1 S=40 T=70 H=3 Hk=1 D=20",
     .params = "range=rows relu_out=1",
     .give = "ks ke k_scale",
     .fill = "ks=range_start T; ke=range_end T",
     .no_differences = true},
    {.name = "half storage", .dims = "B=1 S=13 T=77 H=4 Hk=4 D=33", .dtypes = "q=F16 k=F16", .no_differences = true},
    {.name = "shape of dw",
     .dims = "B=1 S=3 T=4 H=4 Hk=1 D=8",
     .shapes = "dw=B S H",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "dw has rank 3"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_indexer_scores, HARNESS_CASES(forward_cases)},
        {.op = &cldsa_op_indexer_scores, .tunables = "simt:TM=128,TN=128,RM=8,RN=8", HARNESS_CASES(large_tile_cases)},
        {.op = &cldsa_op_indexer_scores_backward,
         .forward = &cldsa_op_indexer_scores,
         .tunables = "SPLIT=1; SPLIT=8; simt:ROWS=8,WG=128,DEPTH=16,SPLIT=2",
         HARNESS_CASES(backward_cases)},
    };
    return harness_main(suites, 3, argc, argv);
}
