/* masked_attention and its gradients: every variant against the reference, and the reference against differences.
 * */
/* ctest: full, for the kernels it builds */
#include "harness.h"

extern const cldsa_op cldsa_op_masked_attention, cldsa_op_masked_attention_backward;

#define DROP "dropout_p=0.3 dropout_seed=77 dropout_stream=5"

/* Row 1 of the mask is cleared: that row sees no key. */
static void clear_a_row(harness_data *data) {
    cldsa_host_tensor *mask = harness_tensor(data, "mask");
    const int64_t row = mask->shape[mask->rank - 1];
    for (int64_t e = 0; e < row; ++e)
        mask->data[row + e] = 0;
}

static const harness_case forward_cases[] = {
    {.name = "dense", .dims = "B=2 S=9 T=9 H=2 Hk=2 D=7 Dv=5", .give = "lse"},
    {.name = "byte mask, a row without keys",
     .dims = "B=2 S=24 T=24 H=8 Hk=8 D=32 Dv=32",
     .give = "mask lse",
     .fill = "mask=mask 0.5",
     .prepare = clear_a_row},
    {.name = "bit mask",
     .dims = "B=2 S=37 T=133 H=2 Hk=1 D=20 Dv=48",
     .give = "mask lse",
     .dtypes = "mask=U32",
     .fill = "mask=mask 0.4",
     .prepare = clear_a_row},
    {.name = "causal, grouped heads",
     .dims = "B=1 S=70 T=200 H=6 Hk=2 D=48 Dv=64",
     .params = "range=causal",
     .give = "lse"},
    {.name = "causal, more queries than keys",
     .dims = "B=2 S=80 T=33 H=2 Hk=2 D=16 Dv=16",
     .params = "range=causal",
     .give = "lse"},
    {.name = "row ranges and a mask",
     .dims = "B=2 S=35 T=150 H=2 Hk=2 D=16 Dv=17",
     .params = "range=rows",
     .give = "ks ke mask lse",
     .fill = "ks=range_start T; ke=range_end T; mask=mask 0.7"},
    {.name = "dropout", .dims = "B=2 S=33 T=130 H=3 Hk=3 D=32 Dv=32", .params = DROP, .give = "lse"},
    {.name = "dropout, mask, causal",
     .dims = "B=1 S=66 T=66 H=2 Hk=1 D=32 Dv=32",
     .params = "range=causal " DROP,
     .give = "mask lse",
     .fill = "mask=mask 0.5"},
    {.name = "one key, no lse", .dims = "B=1 S=1 T=1 H=1 Hk=1 D=1 Dv=1"},
    {.name = "one query, many keys", .dims = "B=3 S=1 T=513 H=4 Hk=4 D=64 Dv=64", .give = "lse"},
    {.name = "large scores",
     .dims = "B=1 S=20 T=100 H=2 Hk=2 D=32 Dv=32",
     .params = "softmax_scale=4",
     .give = "lse",
     .tolerance = 20},
    {.name = "half", .dims = "B=1 S=40 T=70 H=2 Hk=2 D=32 Dv=32", .give = "lse", .dtypes = "q=F16 k=F16 v=F16 out=F16"},
    {.name = "bfloat16, odd columns",
     .dims = "B=1 S=40 T=70 H=2 Hk=2 D=19 Dv=35",
     .give = "lse",
     .dtypes = "q=BF16 k=BF16 v=BF16 out=BF16"},
    {.name = "wide rows", .dims = "B=1 S=33 T=70 H=2 Hk=1 D=192 Dv=128", .params = "range=causal", .give = "lse"},
    {.name = "latent width", .dims = "B=1 S=5 T=70 H=2 Hk=1 D=576 Dv=512", .give = "lse"},
    {.name = "heads that do not divide",
     .dims = "B=1 S=4 T=4 H=3 Hk=2 D=8 Dv=8",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "k has 2 heads"},
    {.name = "mixed dtypes",
     .dims = "B=1 S=4 T=4 H=2 Hk=2 D=8 Dv=8",
     .dtypes = "k=F16",
     .expect = CLDSA_INVALID_DTYPE,
     .message = "they must be the same"},
    {.name = "ranges without ks",
     .dims = "B=1 S=4 T=4 H=2 Hk=2 D=8 Dv=8",
     .params = "range=rows",
     .expect = CLDSA_MISSING_TENSOR,
     .message = "needs ks and ke"},
};

/* Keys cut into parts, of which some rows see none. */
static const harness_case split_cases[] = {
    {.name = "few queries, many heads",
     .dims = "B=2 S=3 T=300 H=36 Hk=2 D=72 Dv=68",
     .params = "range=rows",
     .give = "ks ke mask lse",
     .dtypes = "mask=U32",
     .fill = "ks=range_start T; ke=range_end T; mask=mask 0.7",
     .prepare = clear_a_row},
    {.name = "one query, bfloat16, causal",
     .dims = "B=1 S=1 T=260 H=20 Hk=1 D=44 Dv=20",
     .params = "range=causal",
     .give = "lse",
     .dtypes = "q=BF16 k=BF16 v=BF16 out=BF16"},
    {.name = "one query of several, one key head",
     .dims = "B=3 S=1 T=150 H=37 Hk=1 D=24 Dv=16",
     .params = "range=causal",
     .give = "lse"},
    {.name = "dropout, mask, causal, in parts",
     .dims = "B=2 S=7 T=300 H=2 Hk=1 D=32 Dv=32",
     .params = "range=causal " DROP,
     .give = "mask lse",
     .fill = "mask=mask 0.5",
     .prepare = clear_a_row},
    {.name = "one query, one key head, dropout",
     .dims = "B=2 S=1 T=70 H=5 Hk=1 D=8 Dv=8",
     .params = "dropout_p=0.3 dropout_seed=7"},
};

static const harness_case backward_cases[] = {
    {.name = "dense", .dims = "B=2 S=9 T=9 H=2 Hk=2 D=7 Dv=5"},
    {.name = "byte mask, a row without keys",
     .dims = "B=2 S=24 T=24 H=4 Hk=4 D=32 Dv=32",
     .give = "mask",
     .fill = "mask=mask 0.5",
     .prepare = clear_a_row,
     .no_differences = true},
    {.name = "bit mask, a row without keys",
     .dims = "B=1 S=5 T=70 H=2 Hk=1 D=6 Dv=4",
     .give = "mask",
     .dtypes = "mask=U32",
     .fill = "mask=mask 0.4",
     .prepare = clear_a_row},
    {.name = "causal, grouped heads",
     .dims = "B=1 S=70 T=200 H=6 Hk=2 D=48 Dv=64",
     .params = "range=causal",
     .no_differences = true},
    {.name = "causal, more queries than keys", .dims = "B=1 S=11 T=6 H=2 Hk=2 D=5 Dv=4", .params = "range=causal"},
    {.name = "row ranges and a mask",
     .dims = "B=2 S=35 T=150 H=2 Hk=2 D=16 Dv=17",
     .params = "range=rows",
     .give = "ks ke mask",
     .fill = "ks=range_start T; ke=range_end T; mask=mask 0.7",
     .no_differences = true},
    {.name = "dropout, small", .dims = "B=1 S=5 T=9 H=4 Hk=2 D=4 Dv=3", .params = DROP},
    {.name = "dropout", .dims = "B=2 S=70 T=130 H=2 Hk=1 D=32 Dv=32", .params = DROP, .no_differences = true},
    {.name = "one key", .dims = "B=1 S=1 T=1 H=1 Hk=1 D=1 Dv=1"},
    {.name = "half",
     .dims = "B=1 S=40 T=70 H=2 Hk=2 D=32 Dv=32",
     .dtypes = "q=F16 k=F16 v=F16",
     .no_differences = true},
    {.name = "wide rows",
     .dims = "B=1 S=33 T=70 H=2 Hk=1 D=192 Dv=128",
     .params = "range=causal",
     .no_differences = true},
};

/* For shapes of work-groups that are the default on some GPUs only: tiles that queries, keys and columns do not fill.
 */
static const harness_case tile_cases[] = {
    {.name = "row ranges, bit mask, dropout",
     .dims = "B=1 S=70 T=133 H=2 Hk=1 D=36 Dv=20",
     .params = "range=rows " DROP,
     .give = "ks ke mask lse",
     .dtypes = "mask=U32",
     .fill = "ks=range_start T; ke=range_end T; mask=mask 0.7",
     .no_differences = true},
    {.name = "odd columns, byte mask",
     .dims = "B=2 S=67 T=66 H=2 Hk=2 D=33 Dv=67",
     .give = "mask lse",
     .fill = "mask=mask 0.5",
     .prepare = clear_a_row,
     .no_differences = true},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_masked_attention, HARNESS_CASES(forward_cases)},
        {.op = &cldsa_op_masked_attention,
         .tunables = "tile:SPLIT=3,ROWS=1; slab:HEAD_TILE=32,KEY_TILE=64,COLUMN_TILE=64,TK=8,WM=8,WN=4",
         HARNESS_CASES(split_cases)},
        {.op = &cldsa_op_masked_attention, .tunables = "vec:SPLIT=3,QUERIES=32", HARNESS_CASES(split_cases)},
        {.op = &cldsa_op_masked_attention, .tunables = "simt:ROWS=8,WG=128,DEPTH=16", HARNESS_CASES(tile_cases)},
        {.op = &cldsa_op_masked_attention_backward,
         .forward = &cldsa_op_masked_attention,
         HARNESS_CASES(backward_cases)},
        {.op = &cldsa_op_masked_attention_backward,
         .forward = &cldsa_op_masked_attention,
         .tunables = "simt:ROWS=8,WG=128,DEPTH=16; simt:ROWS=1,WG=256",
         HARNESS_CASES(tile_cases)},
    };
    return harness_main(suites, sizeof suites / sizeof suites[0], argc, argv);
}
