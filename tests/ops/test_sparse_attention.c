/* Attention over a selection, forward and backward. (ctest: full, for the kernels it builds) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/place.h"
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_sparse_attention, cldsa_op_sparse_attention_backward;

/*
 * A case is built for its D, Dv, heads per key head, dtypes and optional tensors: cases that need no extents of their
 * own share them, since compiling is what takes the time.
 *
 * Of both tables of cases the first: what the width of vectors (LANES) may matter to, in shapes and dtypes.
 */
enum { LANE_CASES = 9 };
#define HARNESS_LANE_CASES(array) .cases = (array), .num_cases = LANE_CASES

static const harness_case cases[] = {
    {.name = "one key per row",
     .dims = "B=1 S=3 T=5 H=1 Hk=1 D=4 Dv=4 K=1",
     .give = "v lse",
     .fill = "indices=indices T"},
    {.name = "heads of their own",
     .dims = "B=2 S=9 T=70 H=4 Hk=4 D=64 Dv=64 K=33",
     .give = "v lse",
     .fill = "indices=indices T"},
    {.name = "grouped heads",
     .dims = "B=1 S=7 T=90 H=6 Hk=2 D=32 Dv=48 K=70",
     .give = "v lse",
     .fill = "indices=indices T"},
    {.name = "odd everything",
     .dims = "B=2 S=5 T=37 H=10 Hk=2 D=19 Dv=23 K=13",
     .give = "v lse",
     .fill = "indices=indices T"},
    {.name = "latent",
     .dims = "B=1 S=6 T=200 H=16 Hk=1 D=72 Dv=64 K=130",
     .params = "v_dim=64 softmax_scale=0.1",
     .give = "lse",
     .fill = "indices=indices T"},
    {.name = "latent, all columns",
     .dims = "B=2 S=3 T=20 H=3 Hk=1 D=24 Dv=24 K=20",
     .params = "v_dim=24",
     .give = "lse",
     .fill = "indices=indices T"},
    {.name = "latent, many heads",
     .dims = "B=1 S=2 T=60 H=37 Hk=1 D=40 Dv=8 K=40",
     .params = "v_dim=8",
     .give = "lse",
     .fill = "indices=indices T"},
    {.name = "hostile indices",
     .dims = "B=2 S=8 T=30 H=4 Hk=2 D=16 Dv=16 K=40",
     .give = "v lse",
     .fill = "indices=wild T"},
    {.name = "half",
     .dims = "B=1 S=9 T=33 H=4 Hk=2 D=40 Dv=24 K=17",
     .give = "v lse",
     .dtypes = "q=F16 k=F16 v=F16 out=F16",
     .fill = "indices=indices T"},
    {.name = "no valid key",
     .dims = "B=1 S=4 T=30 H=4 Hk=2 D=16 Dv=16 K=10",
     .give = "v lse attn_sink",
     .fill = "indices=const -1"},
    {.name = "lengths",
     .dims = "B=2 S=6 T=40 H=3 Hk=1 D=24 Dv=16 K=9",
     .params = "v_dim=16",
     .give = "topk_length lse",
     .fill = "indices=indices T; topk_length=whole -1 K+2"},
    {.name = "sinks",
     .dims = "B=2 S=6 T=40 H=4 Hk=2 D=24 Dv=16 K=9",
     .give = "v attn_sink lse topk_length",
     .fill = "indices=wild T; topk_length=whole 0 K"},
    {.name = "sink of everything",
     .dims = "B=1 S=3 T=20 H=4 Hk=2 D=24 Dv=16 K=9",
     .give = "v attn_sink lse topk_length",
     .fill = "indices=indices T; attn_sink=const inf; topk_length=const 9"},
    {.name = "sink of nothing",
     .dims = "B=1 S=3 T=20 H=4 Hk=2 D=24 Dv=16 K=9",
     .give = "v attn_sink lse topk_length",
     .fill = "indices=indices T; attn_sink=const -inf; topk_length=const 9"},
    {.name = "no lse", .dims = "B=1 S=3 T=20 H=4 Hk=2 D=16 Dv=16 K=9", .give = "v", .fill = "indices=indices T"},
    {.name = "latent, many heads and tiles",
     .dims = "B=2 S=2 T=300 H=36 Hk=1 D=72 Dv=68 K=200",
     .params = "v_dim=68",
     .give = "lse topk_length attn_sink",
     .fill = "indices=wild T; topk_length=whole 0 K"},
    {.name = "many heads twice",
     .dims = "B=1 S=3 T=150 H=40 Hk=2 D=36 Dv=132 K=140",
     .give = "v lse",
     .fill = "indices=indices T"},
    {.name = "bfloat16, latent, few rows",
     .dims = "B=1 S=1 T=99 H=8 Hk=1 D=48 Dv=32 K=50",
     .params = "v_dim=32",
     .give = "lse",
     .dtypes = "q=BF16 k=BF16 out=BF16",
     .fill = "indices=indices T"},
    {.name = "large scores",
     .dims = "B=1 S=4 T=64 H=4 Hk=2 D=16 Dv=16 K=40",
     .params = "softmax_scale=8",
     .give = "v lse",
     .fill = "indices=indices T",
     .tolerance = 30},
    {.name = "heads that do not group",
     .dims = "B=1 S=1 T=4 H=3 Hk=2 D=8 Dv=8 K=2",
     .give = "v",
     .fill = "indices=const 0",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "must divide H"},
    {.name = "latent without width",
     .dims = "B=1 S=1 T=4 H=3 Hk=1 D=8 Dv=8 K=2",
     .fill = "indices=const 0",
     .expect = CLDSA_INVALID_ARGUMENT,
     .message = "v_dim is 0"},
    {.name = "two dtypes",
     .dims = "B=1 S=1 T=4 H=1 Hk=1 D=8 Dv=8 K=2",
     .give = "v",
     .dtypes = "v=F16",
     .fill = "indices=const 0",
     .expect = CLDSA_INVALID_DTYPE,
     .message = "as k"},
};

/* Rows side by side in several steps each, and the last work-item not full. */
static const harness_case row_cases[] = {
    {.name = "few rows", .dims = "B=1 S=5 T=40 H=1 Hk=1 D=16 Dv=16 K=35", .give = "v lse", .fill = "indices=indices T"},
    {.name = "many rows, unordered",
     .dims = "B=1 S=150 T=350 H=2 Hk=2 D=48 Dv=32 K=300",
     .give = "v lse topk_length",
     .fill = "indices=wild T; topk_length=whole -1 K+2"},
    {.name = "many rows, two heads",
     .dims = "B=1 S=70 T=350 H=4 Hk=2 D=20 Dv=20 K=40",
     .give = "v lse",
     .fill = "indices=indices T"},
};

/* Tiles that heads, places and columns do not fill. */
static const harness_case slab_tile_cases[] = {
    {.name = "slab, many heads and tiles",
     .dims = "B=2 S=2 T=300 H=70 Hk=1 D=75 Dv=67 K=201",
     .params = "v_dim=67",
     .give = "lse topk_length attn_sink",
     .fill = "indices=wild T; topk_length=whole 0 K"},
    {.name = "slab, heads of two key heads, half",
     .dims = "B=1 S=3 T=150 H=40 Hk=2 D=36 Dv=132 K=140",
     .give = "v lse",
     .dtypes = "q=BF16 k=F16 v=F16 out=F16",
     .fill = "indices=indices T"},
};

static const harness_case backward_cases[] = {
    {.name = "one key per row",
     .dims = "B=1 S=3 T=5 H=1 Hk=1 D=4 Dv=4 K=1",
     .give = "v dv",
     .fill = "indices=indices T"},
    {.name = "heads of their own",
     .dims = "B=2 S=9 T=30 H=4 Hk=4 D=64 Dv=64 K=21",
     .give = "v dv",
     .fill = "indices=indices T",
     .no_differences = true},
    {.name = "grouped heads",
     .dims = "B=1 S=7 T=90 H=6 Hk=2 D=32 Dv=48 K=70",
     .give = "v dv",
     .fill = "indices=indices T",
     .no_differences = true},
    {.name = "odd everything",
     .dims = "B=2 S=5 T=17 H=4 Hk=2 D=19 Dv=23 K=13",
     .give = "v dv",
     .fill = "indices=indices T"},
    {.name = "latent",
     .dims = "B=1 S=6 T=150 H=16 Hk=1 D=72 Dv=64 K=130",
     .params = "v_dim=64 softmax_scale=0.1",
     .fill = "indices=indices T",
     .no_differences = true},
    {.name = "latent, all columns",
     .dims = "B=2 S=3 T=20 H=3 Hk=1 D=24 Dv=24 K=20",
     .params = "v_dim=24",
     .fill = "indices=indices T"},
    {.name = "latent, many heads",
     .dims = "B=1 S=2 T=60 H=37 Hk=1 D=40 Dv=8 K=40",
     .params = "v_dim=8",
     .fill = "indices=indices T",
     .no_differences = true},
    {.name = "hostile indices",
     .dims = "B=2 S=8 T=30 H=4 Hk=2 D=16 Dv=16 K=40",
     .give = "v dv",
     .fill = "indices=wild T"},
    {.name = "half",
     .dims = "B=1 S=9 T=33 H=4 Hk=2 D=40 Dv=24 K=17",
     .give = "v dv",
     .dtypes = "q=F16 k=F16 v=F16",
     .fill = "indices=indices T",
     .no_differences = true},
    {.name = "one key for all",
     .dims = "B=1 S=70 T=9 H=2 Hk=1 D=16 Dv=16 K=3",
     .params = "v_dim=16",
     .fill = "indices=const 4"},
    {.name = "no valid key",
     .dims = "B=1 S=4 T=30 H=4 Hk=2 D=16 Dv=16 K=10",
     .give = "v dv attn_sink dsink",
     .fill = "indices=const -1"},
    {.name = "lengths",
     .dims = "B=2 S=6 T=40 H=3 Hk=1 D=24 Dv=16 K=9",
     .params = "v_dim=16",
     .give = "topk_length",
     .fill = "indices=indices T; topk_length=whole -1 K+2"},
    {.name = "sinks",
     .dims = "B=2 S=6 T=40 H=4 Hk=2 D=24 Dv=16 K=9",
     .give = "v dv attn_sink dsink topk_length",
     .fill = "indices=wild T; topk_length=whole 0 K"},
    {.name = "sinks, gradient not wanted",
     .dims = "B=1 S=3 T=20 H=4 Hk=2 D=24 Dv=16 K=9",
     .give = "v dv attn_sink topk_length",
     .fill = "indices=indices T; topk_length=const 9"},
    {.name = "sink of everything",
     .dims = "B=1 S=3 T=20 H=4 Hk=2 D=24 Dv=16 K=9",
     .give = "v dv attn_sink dsink topk_length",
     .fill = "indices=indices T; attn_sink=const inf; topk_length=const 9",
     .no_differences = true},
    {.name = "sink of nothing",
     .dims = "B=1 S=3 T=20 H=4 Hk=2 D=24 Dv=16 K=9",
     .give = "v dv attn_sink dsink topk_length",
     .fill = "indices=indices T; attn_sink=const -inf; topk_length=const 9",
     .no_differences = true},
    {.name = "long",
     .dims = "B=1 S=300 T=400 H=4 Hk=2 D=16 Dv=16 K=20",
     .give = "v dv",
     .fill = "indices=indices T",
     .no_differences = true},
    {.name = "latent, many heads and tiles",
     .dims = "B=2 S=3 T=90 H=36 Hk=1 D=76 Dv=68 K=70",
     .params = "v_dim=68",
     .give = "topk_length attn_sink dsink",
     .fill = "indices=wild T; topk_length=whole 0 K",
     .no_differences = true},
    {.name = "latent, bfloat16, rows not in fours",
     .dims = "B=1 S=4 T=40 H=18 Hk=1 D=67 Dv=65 K=21",
     .params = "v_dim=65",
     .dtypes = "q=BF16 k=BF16",
     .fill = "indices=indices T",
     .no_differences = true},
    {.name = "latent, no valid key",
     .dims = "B=1 S=2 T=9 H=3 Hk=1 D=16 Dv=8 K=5",
     .params = "v_dim=8",
     .give = "attn_sink dsink",
     .fill = "indices=const -1"},
    {.name = "no place for dv",
     .dims = "B=1 S=1 T=4 H=1 Hk=1 D=8 Dv=8 K=2",
     .give = "v",
     .fill = "indices=const 0",
     .expect = CLDSA_MISSING_TENSOR,
     .message = "without dv"},
};

/* The same; with the least workspace gradients are scattered, else summed key by key through an index. */
static const harness_case row_backward_cases[] = {
    {.name = "few rows", .dims = "B=1 S=5 T=12 H=1 Hk=1 D=16 Dv=16 K=10", .give = "v dv", .fill = "indices=indices T"},
    {.name = "many rows, unordered",
     .dims = "B=2 S=75 T=60 H=4 Hk=2 D=20 Dv=40 K=70",
     .give = "v dv attn_sink dsink topk_length",
     .fill = "indices=wild T; topk_length=whole -1 K+2",
     .no_differences = true},
    {.name = "latent, few heads",
     .dims = "B=1 S=9 T=30 H=2 Hk=1 D=24 Dv=16 K=20",
     .params = "v_dim=16",
     .fill = "indices=wild T"},
};

/* ---- slabs ---------------------------------------------------------------------------------------------------- */

#define SLAB_QUERIES 6 /* B S */

typedef struct slab_case {
    const cldsa_op *op;
    const char *variant;
    const char *outputs[3]; /* all f32 */
    bench_case test;
} slab_case;

#define SLAB_SPEC                                                                                                      \
    {                                                                                                                  \
        .dims = "B=2 S=3 T=40 H=20 Hk=1 D=24 Dv=16 K=30", .params = "v_dim=16", .give = "topk_length lse",             \
        .fill = "indices=wild T; topk_length=whole 0 K"                                                                \
    }
static const slab_case slab_cases[] = {
    {.op = &cldsa_op_sparse_attention,
     .variant = "slab",
     .outputs = {"out", "lse"},
     .test = {.op = "sparse_attention", .spec = SLAB_SPEC}},
    {.op = &cldsa_op_sparse_attention_backward,
     .variant = "tile",
     .outputs = {"dq", "dk"},
     .test = {.op = "sparse_attention_backward", .forward = "sparse_attention", .spec = SLAB_SPEC}},
};

static size_t output_bytes(const bench_placed *on, const slab_case *c) {
    size_t bytes = 0;
    for (const char *const *name = c->outputs; *name; ++name)
        bytes += (size_t)harness_numel(&on->work.tensors[cldsa_op_field(on->work.op, *name)]) * sizeof(float);
    return bytes;
}

/* The outputs, one behind the other, of a call with so much workspace; false if it fails. */
static bool run_slabs(bench_placed *on, const slab_case *c, size_t workspace_bytes, unsigned char *results) {
    cldsa_call call = bench_place_call(on);
    call.workspace_bytes = workspace_bytes;
    if (bench_place_reset(on) != CLDSA_SUCCESS || bench_place_enqueue(on, &call) != CLDSA_SUCCESS)
        return false;
    for (const char *const *name = c->outputs; *name; ++name) {
        const int field = cldsa_op_field(on->work.op, *name);
        const size_t bytes = (size_t)harness_numel(&on->work.tensors[field]) * sizeof(float);
        if (clEnqueueReadBuffer(on->queue, on->buffers[field], CL_TRUE, 0, bytes, results, 0, NULL, NULL))
            return false;
        results += bytes;
    }
    return true;
}

/* However many queries the workspace holds, a result is the same sum: each size must give the same bits. */
static bool same_in_slabs(bench_placed *on, const slab_case *c) {
    size_t preferred = 0, least = 0;
    if (cldsa_op_workspace(on->ctx, on->work.op, on->work.args, &preferred, &least) != CLDSA_SUCCESS ||
        preferred <= least)
        return false;
    const size_t query = (preferred - least) / (SLAB_QUERIES - 1), bytes = output_bytes(on, c);
    unsigned char *want = malloc(bytes), *got = malloc(bytes);
    bool same = want && got && run_slabs(on, c, preferred, want);
    for (size_t held = least; same && held < preferred; held += query)
        same = run_slabs(on, c, held, got) && memcmp(want, got, bytes) == 0;
    free(want);
    free(got);
    return same;
}

static int check_slabs(const slab_case *c) {
    cl_command_queue queue;
    bench_placed on = {0};
    cldsa_context *ctx = harness_context(&queue);
    cldsa_status status = cldsa_op_force(ctx, c->op, c->variant, NULL);
    if (status == CLDSA_SUCCESS)
        status = bench_place(ctx, queue, &c->test, c->test.spec.dims, true, &on);
    const bool ok = status == CLDSA_SUCCESS && same_in_slabs(&on, c);
    printf("%s: slabs of 1 to %d queries: %s\n", c->op->name, SLAB_QUERIES,
           ok       ? "ok"
           : status ? cldsa_error_message()
                    : "FAILED");
    bench_place_release(&on);
    cldsa_op_force(ctx, c->op, NULL, NULL);
    return !ok;
}

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_sparse_attention,
         .tunables = "simt:SPLIT=4,WG=128; tile:SPLIT=3,ROWS=2",
         HARNESS_CASES(cases)},
        {.op = &cldsa_op_sparse_attention,
         .tunables = "slab:HEAD_TILE=32,KEY_TILE=64,COLUMN_TILE=64,TK=8,WM=8,WN=4,UNROLL=4; "
                     "slab:HEAD_TILE=64,KEY_TILE=128,COLUMN_TILE=128,TK=32,WM=4,WN=8",
         HARNESS_CASES(slab_tile_cases)},
        {.op = &cldsa_op_sparse_attention, .tunables = "LANES=8; LANES=16", HARNESS_LANE_CASES(cases)},
        {.op = &cldsa_op_sparse_attention,
         .tunables = "QUERIES=4,KEYS=32,LANES=8; QUERIES=4,KEYS=32,LANES=16; simt:LANES=8,MAX_HEADS=2; "
                     "simt:LANES=32,MAX_HEADS=8",
         HARNESS_CASES(row_cases)},
        {.op = &cldsa_op_sparse_attention_backward,
         .forward = &cldsa_op_sparse_attention,
         .gradient_of = "dsink=attn_sink",
         .tunables = "simt:WG=64,HOLD=1; "
                     "tile:HEAD_TILE=32,KEY_TILE=64,COLUMN_TILE=64,TK=8,WH=8,WP=4,WN=4,UNROLL=4",
         HARNESS_CASES(backward_cases)},
        {.op = &cldsa_op_sparse_attention_backward,
         .forward = &cldsa_op_sparse_attention,
         .gradient_of = "dsink=attn_sink",
         .tunables = "LANES=8; LANES=16",
         HARNESS_LANE_CASES(backward_cases)},
        {.op = &cldsa_op_sparse_attention_backward,
         .forward = &cldsa_op_sparse_attention,
         .gradient_of = "dsink=attn_sink",
         .tunables = "QUERIES=4,KEYS=32,LANES=8; QUERIES=4,KEYS=32,LANES=16; simt:LANES=8,MAX_HEADS=2; "
                     "simt:LANES=32,MAX_HEADS=8",
         HARNESS_CASES(row_backward_cases)},
    };
    int failed = 0;
    for (size_t i = 0; harness_work_limit() == 0 && i < sizeof slab_cases / sizeof *slab_cases; ++i)
        failed |= check_slabs(&slab_cases[i]);
    return harness_main(suites, sizeof suites / sizeof suites[0], argc, argv) || failed;
}
