/*
 * NaN and infinities stay where they are seen: a query that does not see a spoilt key (by causality, range, mask,
 * selection or dropout) has the result of a sound one, and a spoilt query leaves other queries, and the keys that it
 * does not see, alone. What sees them has what the reference has: NaN or infinities.
 * (ctest: full, for the kernels it builds)
 */
#include <math.h>
#include <string.h>

#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_masked_attention, cldsa_op_masked_attention_backward, cldsa_op_indexer_scores,
    cldsa_op_indexer_scores_backward, cldsa_op_sparse_attention, cldsa_op_sparse_attention_backward;

enum { SPOILT_KEYS = 6 }; /* the last ones, which only late queries of a causal call see */

/* The NaN of NVIDIA's hardware, as a float 0x7fffffff: integer arithmetic on its bits would make a number of it. */
static double gpu_nan(void) {
    const uint64_t bits = UINT64_C(0x7fffffffe0000000);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* One element of row `row` of a tensor [B,rows,...], in every batch element. */
static void spoil_row(cldsa_host_tensor *x, int64_t row, double value) {
    const int64_t size = harness_numel(x) / (x->shape[0] * x->shape[1]);
    for (int64_t b = 0; b < x->shape[0]; ++b)
        x->data[(b * x->shape[1] + row) * size + row % size] = value;
}

static void spoil_keys(harness_data *data) {
    const int64_t last = harness_dim(data, "T") - 1;
    cldsa_host_tensor *k = harness_tensor(data, "k");
    spoil_row(k, last, NAN);
    spoil_row(k, last - 1, INFINITY);
    spoil_row(k, last - 2, -INFINITY);
    spoil_row(k, last - 3, gpu_nan());
}

static void spoil_values(harness_data *data) {
    const int64_t last = harness_dim(data, "T") - 1;
    cldsa_host_tensor *v = harness_tensor(data, "v");
    spoil_row(v, last - 5, INFINITY);
    spoil_row(v, last - 4, -INFINITY);
    spoil_row(v, last - 1, NAN);
    spoil_row(v, last, gpu_nan());
}

static void spoil_keys_and_values(harness_data *data) {
    spoil_keys(data);
    spoil_values(data);
}

/* No query sees the spoilt keys, all see the first. */
static void hide_spoilt_keys(harness_data *data) {
    cldsa_host_tensor *mask = harness_tensor(data, "mask");
    const int64_t rows = harness_dim(data, "B") * harness_dim(data, "S"), keys = harness_dim(data, "T");
    for (int64_t r = 0; r < rows; ++r) {
        mask->data[r * keys] = 1;
        for (int64_t j = keys - SPOILT_KEYS; j < keys; ++j)
            mask->data[r * keys + j] = 0;
    }
    spoil_keys_and_values(data);
}

/* The first queries, which see few keys of a causal call. */
static void spoil_queries(harness_data *data) {
    cldsa_host_tensor *q = harness_tensor(data, "q");
    spoil_row(q, 0, gpu_nan());
    spoil_row(q, 1, INFINITY);
    spoil_row(q, 2, -INFINITY);
}

static void spoil_upstream(harness_data *data) {
    cldsa_host_tensor *dout = harness_tensor(data, "dout");
    spoil_row(dout, 0, NAN);
    spoil_row(dout, 1, INFINITY);
    spoil_row(dout, 2, -INFINITY);
}

/* ---- masked attention ------------------------------------------------------------------------------------------ */

/* Few combinations of what a kernel is built for: most of the time goes into building. */
#define DROP   "dropout_p=0.4 dropout_seed=77 dropout_stream=5"
#define RANGES "ks=range_start T; ke=range_end T"
#define HEADS  "H=2 Hk=1 D=20 Dv=24"
#define SMALL  "B=1 S=8 T=10 " HEADS
#define LARGE  "B=2 S=70 T=150 " HEADS

#define SPOILT(text) .name = text, .no_differences = true

#define ATTENTION_CASES(own)                                                                                            \
    {SPOILT("small, causal"), .dims = SMALL, .params = "range=causal", .give = own, .prepare = spoil_keys_and_values},  \
        {SPOILT("small, hidden from all"), .dims = SMALL, .give = "mask " own, .fill = "mask=mask 0.5",                 \
         .prepare = hide_spoilt_keys,      .finite = true},                                                             \
        {SPOILT("hidden from all"),   .dims = LARGE, .give = "mask " own, .fill = "mask=mask 0.5",                      \
         .prepare = hide_spoilt_keys, .finite = true},                                                                  \
        {SPOILT("hidden from all, dropout"), .dims = LARGE, .params = DROP, .give = "mask " own, .fill = "mask=mask 1", \
         .prepare = hide_spoilt_keys,        .finite = true},                                                           \
        {SPOILT("keys and values, causal"), .dims = LARGE, .params = "range=causal", .give = own,                       \
         .prepare = spoil_keys_and_values},                                                                             \
        {SPOILT("keys, mask"), .dims = LARGE, .give = "mask " own, .fill = "mask=mask 0.3", .prepare = spoil_keys},     \
        {SPOILT("values, mask"), .dims = LARGE, .give = "mask " own, .fill = "mask=mask 0.3",                           \
         .prepare = spoil_values},                                                                                      \
        {SPOILT("values, row ranges"), .dims = LARGE,  .params = "range=rows",                                          \
         .give = "ks ke " own,         .fill = RANGES, .prepare = spoil_values},                                        \
        {SPOILT("values, dropped"), .dims = LARGE,         .params = DROP,                                              \
         .give = "mask " own,       .fill = "mask=mask 1", .prepare = spoil_values},                                    \
    {                                                                                                                   \
        SPOILT("queries, causal"), .dims = LARGE, .params = "range=causal", .give = own, .prepare = spoil_queries       \
    }

static const harness_case attention_cases[] = {ATTENTION_CASES("lse")};

static const harness_case attention_backward_cases[] = {
    ATTENTION_CASES(""),
    {SPOILT("upstream, causal"), .dims = LARGE, .params = "range=causal", .fill = "v=positive",
     .prepare = spoil_upstream},
    {SPOILT("upstream, mask"), .dims = LARGE, .give = "mask", .fill = "v=positive; mask=mask 0.3",
     .prepare = spoil_upstream},
    {SPOILT("upstream, dropout"), .dims = LARGE, .params = DROP, .give = "mask", .fill = "v=positive; mask=mask 0.8",
     .prepare = spoil_upstream},
    {SPOILT("upstream of rows without keys"), .dims = LARGE, .params = "range=rows", .give = "ks ke",
     .fill = "ks=whole 3 3; ke=whole 3 4", .prepare = spoil_upstream},
};

/* ---- the indexer ----------------------------------------------------------------------------------------------- */

static void spoil_keys_and_scales(harness_data *data) {
    spoil_keys(data);
    spoil_row(harness_tensor(data, "k_scale"), harness_dim(data, "T") - 5, NAN);
    spoil_row(harness_tensor(data, "k_scale"), harness_dim(data, "T") - 6, INFINITY);
}

static void spoil_weights(harness_data *data) {
    spoil_row(harness_tensor(data, "w"), 0, NAN);
    spoil_row(harness_tensor(data, "w"), 1, INFINITY);
}

/* Of pairs of the first query, which sees none of the last keys. */
static void spoil_unseen(harness_data *data) {
    cldsa_host_tensor *dscores = harness_tensor(data, "dscores");
    const int64_t keys = harness_dim(data, "T");
    dscores->data[keys - 1] = NAN;
    dscores->data[keys - 2] = INFINITY;
    spoil_keys_and_scales(data);
}

#define PER_ROW      .shapes = "w=B S H"
#define GRAD_PER_ROW .shapes = "w=B S H; dw=B S H"

static const harness_case indexer_cases[] = {
    {SPOILT("small, causal"), .dims = "B=1 S=8 T=10 H=2 Hk=1 D=20", .params = "range=causal", .give = "k_scale",
     .prepare = spoil_keys_and_scales, PER_ROW},
    {SPOILT("keys, causal"), .dims = "B=2 S=70 T=150 H=2 Hk=1 D=20", .params = "range=causal", .give = "k_scale",
     .prepare = spoil_keys_and_scales, PER_ROW},
    {SPOILT("queries, causal"), .dims = "B=2 S=70 T=150 H=2 Hk=1 D=20", .params = "range=causal", .give = "k_scale",
     .prepare = spoil_queries, PER_ROW},
    {SPOILT("weights, causal"), .dims = "B=2 S=70 T=150 H=2 Hk=1 D=20", .params = "range=causal", .give = "k_scale",
     .prepare = spoil_weights, PER_ROW},
    {SPOILT("keys of every head, row ranges, relu"), .dims = "B=2 S=70 T=150 H=2 Hk=2 D=20",
     .params = "range=rows relu_out=1", .give = "ks ke", .fill = RANGES, .prepare = spoil_keys},
};

static const harness_case indexer_backward_cases[] = {
    {SPOILT("small, causal"), .dims = "B=1 S=8 T=10 H=2 Hk=1 D=20", .params = "range=causal", .give = "k_scale",
     .prepare = spoil_unseen, GRAD_PER_ROW},
    {SPOILT("keys, causal"), .dims = "B=2 S=70 T=150 H=2 Hk=1 D=20", .params = "range=causal", .give = "k_scale",
     .prepare = spoil_unseen, GRAD_PER_ROW},
    {SPOILT("keys, causal, relu"), .dims = "B=2 S=70 T=150 H=2 Hk=1 D=20", .params = "range=causal relu_out=1",
     .give = "k_scale", .prepare = spoil_unseen, GRAD_PER_ROW},
    {SPOILT("unseen by all"), .dims = "B=2 S=70 T=150 H=2 Hk=2 D=20", .params = "range=rows", .give = "ks ke k_scale",
     .fill = "ks=whole -2 9; ke=whole -2 T-6", .prepare = spoil_unseen, .finite = true, GRAD_PER_ROW},
    {SPOILT("keys of every head, row ranges"), .dims = "B=2 S=70 T=150 H=2 Hk=2 D=20", .params = "range=rows",
     .give = "ks ke k_scale", .fill = RANGES, .prepare = spoil_keys_and_scales, GRAD_PER_ROW},
    {SPOILT("queries, causal"), .dims = "B=2 S=70 T=150 H=2 Hk=1 D=20", .params = "range=causal", .give = "k_scale",
     .prepare = spoil_queries, GRAD_PER_ROW},
    {SPOILT("weights, causal"), .dims = "B=2 S=70 T=150 H=2 Hk=1 D=20", .params = "range=causal", .give = "k_scale",
     .prepare = spoil_weights, GRAD_PER_ROW},
};

/* ---- attention over a selection -------------------------------------------------------------------------------- */

#define SPARSE_SMALL "B=1 S=6 T=12 H=4 Hk=2 D=24 Dv=16 K=4"
#define SPARSE_LARGE "B=2 S=40 T=90 H=4 Hk=2 D=24 Dv=16 K=20"

#define SPARSE_CASES(own, with_v)                                                                                      \
    {SPOILT("small"), .dims = SPARSE_SMALL, .give = with_v own, .fill = "indices=indices T",                           \
     .prepare = spoil_keys_and_values},                                                                                \
        {SPOILT("unselected"),                                                                                         \
         .dims = SPARSE_LARGE,                                                                                         \
         .give = with_v own,                                                                                           \
         .fill = "indices=distinct T-6",                                                                               \
         .prepare = spoil_keys_and_values,                                                                             \
         .finite = true},                                                                                              \
        {SPOILT("keys and values"), .dims = SPARSE_LARGE, .give = with_v own, .fill = "indices=indices T",             \
         .prepare = spoil_keys_and_values},                                                                            \
        {SPOILT("selected beyond a row's length"), .dims = SPARSE_LARGE, .give = "topk_length attn_sink " with_v own,  \
         .fill = "indices=distinct T; topk_length=whole 0 K", .prepare = spoil_keys_and_values},                       \
        {SPOILT("latent keys, hostile indices"),                                                                       \
         .dims = SPARSE_LARGE,                                                                                         \
         .params = "v_dim=16",                                                                                         \
         .give = own,                                                                                                  \
         .fill = "indices=wild T",                                                                                     \
         .prepare = spoil_keys},                                                                                       \
    {                                                                                                                  \
        SPOILT("queries"), .dims = SPARSE_LARGE, .give = with_v own, .fill = "indices=indices T",                      \
                           .prepare = spoil_queries                                                                    \
    }

static const harness_case sparse_cases[] = {SPARSE_CASES("lse", "v ")};

#define SPARSE_LATENT "B=2 S=20 T=90 H=20 Hk=1 D=24 Dv=16 K=20"

static const harness_case sparse_backward_cases[] = {
    SPARSE_CASES("", "v dv"),
    {SPOILT("latent, unselected"), .dims = SPARSE_LATENT, .params = "v_dim=16", .fill = "indices=distinct T-6",
     .prepare = spoil_keys, .finite = true},
    {SPOILT("latent, beyond a row's length"), .dims = SPARSE_LATENT, .params = "v_dim=16",
     .give = "topk_length attn_sink", .fill = "indices=distinct T; topk_length=whole 0 K", .prepare = spoil_keys},
    {SPOILT("latent, queries"), .dims = SPARSE_LATENT, .params = "v_dim=16", .fill = "indices=indices T",
     .prepare = spoil_queries},
    {SPOILT("latent, upstream"), .dims = SPARSE_LATENT, .params = "v_dim=16", .fill = "k=positive; indices=indices T",
     .prepare = spoil_upstream},
    {SPOILT("upstream"), .dims = SPARSE_LARGE, .give = "v dv", .fill = "v=positive; indices=indices T",
     .prepare = spoil_upstream},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_masked_attention, HARNESS_CASES(attention_cases)},
        {.op = &cldsa_op_masked_attention_backward,
         .forward = &cldsa_op_masked_attention,
         HARNESS_CASES(attention_backward_cases)},
        {.op = &cldsa_op_indexer_scores, HARNESS_CASES(indexer_cases)},
        {.op = &cldsa_op_indexer_scores_backward,
         .forward = &cldsa_op_indexer_scores,
         HARNESS_CASES(indexer_backward_cases)},
        {.op = &cldsa_op_sparse_attention, HARNESS_CASES(sparse_cases)},
        {.op = &cldsa_op_sparse_attention_backward,
         .forward = &cldsa_op_sparse_attention,
         HARNESS_CASES(sparse_backward_cases)},
    };
    return harness_main(suites, sizeof suites / sizeof suites[0], argc, argv);
}
