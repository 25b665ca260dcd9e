/* Routing of tokens to experts, and their rows' ways there and back. */
/* ctest: full, for the kernels it builds */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_moe_route, cldsa_op_moe_route_backward, cldsa_op_moe_dispatch,
    cldsa_op_moe_dispatch_backward, cldsa_op_moe_combine, cldsa_op_moe_combine_backward;

static const harness_case route_cases[] = {
    {.name = "the experiment", .dims = "N=515 E=4 X=2 G=5"},
    {.name = "noise", .dims = "N=301 E=4 X=2 G=5", .params = "noise_std=0.5 seed=7 stream=3"},
    {.name = "noise, odd number of experts", .dims = "N=150 E=7 X=3 G=8", .params = "noise_std=1 seed=123456789"},
    {.name = "ties", .dims = "N=200 E=8 X=3 G=9", .fill = "logits=ties 1"},
    {.name = "all equal", .dims = "N=130 E=5 X=2 G=6", .fill = "logits=const 1"},
    {.name = "not finite", .dims = "N=129 E=6 X=2 G=7", .fill = "logits=special"},
    {.name = "all NaN", .dims = "N=3 E=6 X=2 G=7", .fill = "logits=const nan"},
    {.name = "one token", .dims = "N=1 E=4 X=1 G=5"},
    {.name = "one expert", .dims = "N=65 E=1 X=1 G=2"},
    {.name = "all experts", .dims = "N=33 E=5 X=5 G=6"},
    {.name = "most experts", .dims = "N=700 E=256 X=8 G=257"},
    {.name = "most choices", .dims = "N=140 E=40 X=32 G=41"},
    {.name = "too many choices",
     .dims = "N=4 E=3 X=4 G=4",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "4 experts per token of 3"},
    {.name = "too many experts",
     .dims = "N=4 E=257 X=2 G=258",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "at most 256"},
    {.name = "too few offsets", .dims = "N=4 E=4 X=2 G=4", .expect = CLDSA_INVALID_SHAPE, .message = "need 5"},
};

/* position becomes a permutation of the rows, and experts distinct per token, as routing makes them. */
static void distinct_experts(harness_data *data) {
    cldsa_host_tensor *experts = harness_tensor(data, "experts");
    int64_t choices = harness_dim(data, "X"), num_experts = harness_dim(data, "E");
    for (int64_t i = 0; i < harness_numel(experts); ++i) {
        int64_t first = (int64_t)(harness_uniform(data, 92, (uint64_t)(i / choices)) * (double)num_experts);
        experts->data[i] = (double)((first + i % choices) % num_experts);
    }
}

static const harness_case route_backward_cases[] = {
    {.name = "the experiment", .dims = "N=131 E=4 X=2", .fill = "weights=uniform 0.1 0.9", .prepare = distinct_experts},
    {.name = "many experts", .dims = "N=70 E=67 X=5", .fill = "weights=uniform 0.1 0.9", .prepare = distinct_experts},
    {.name = "one expert", .dims = "N=9 E=1 X=1", .fill = "weights=const 1", .prepare = distinct_experts},
};

static const harness_case dispatch_cases[] = {
    {.name = "the experiment", .dims = "N=120 X=2 D=256 R=240", .fill = "position=permutation"},
    {.name = "odd width", .dims = "N=37 X=3 D=53 R=111", .fill = "position=permutation"},
    {.name = "narrow", .dims = "N=5 X=1 D=3 R=5", .fill = "position=permutation"},
    {.name = "wide", .dims = "N=3 X=2 D=5003 R=6", .fill = "position=permutation"},
    {.name = "rows that do not fit",
     .dims = "N=4 X=2 D=8 R=7",
     .fill = "position=const 0",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "N * X is 8"},
};

static const harness_case dispatch_backward_cases[] = {
    {.name = "the experiment", .dims = "N=120 X=2 D=256 R=240", .fill = "position=permutation"},
    {.name = "accumulate", .dims = "N=37 X=3 D=53 R=111", .params = "accumulate=1", .fill = "position=permutation"},
    {.name = "one choice", .dims = "N=5 X=1 D=3 R=5", .fill = "position=permutation"},
    {.name = "rows that do not fit",
     .dims = "N=5 X=2 D=3 R=9",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "N * X is 10",
     .fill = "position=const 0"},
};

static const harness_case combine_cases[] = {
    {.name = "the experiment", .dims = "N=120 X=2 D=256 R=240", .fill = "position=permutation"},
    {.name = "odd width", .dims = "N=37 X=3 D=53 R=111", .fill = "position=permutation"},
    {.name = "one choice", .dims = "N=5 X=1 D=1 R=5", .fill = "position=permutation"},
};

static const harness_case combine_backward_cases[] = {
    {.name = "the experiment", .dims = "N=50 X=2 D=256 R=100", .fill = "position=permutation", .no_differences = true},
    {.name = "odd width", .dims = "N=17 X=3 D=53 R=51", .fill = "position=permutation"},
    {.name = "one choice", .dims = "N=5 X=1 D=1 R=5", .fill = "position=permutation"},
    {.name = "wide",
     .dims = "N=3 X=2 D=1501 R=6",
     .fill = "position=permutation",
     .no_differences = true,
     .tolerance = 4},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_moe_route, .tunables = "WG=64", HARNESS_CASES(route_cases)},
        {.op = &cldsa_op_moe_route_backward, .tunables = "ROWS=1,COLS=4,LY=64", HARNESS_CASES(route_backward_cases)},
        {.op = &cldsa_op_moe_dispatch, .tunables = "VEC=4,COLS=4,ROWS=1,LX=64,LY=4", HARNESS_CASES(dispatch_cases)},
        {.op = &cldsa_op_moe_dispatch_backward,
         .tunables = "VEC=4,COLS=4,ROWS=1,LX=64,LY=4",
         HARNESS_CASES(dispatch_backward_cases)},
        {.op = &cldsa_op_moe_combine, .tunables = "VEC=4,COLS=4,ROWS=1,LX=64,LY=4", HARNESS_CASES(combine_cases)},
        {.op = &cldsa_op_moe_combine_backward,
         .forward = &cldsa_op_moe_combine,
         .tunables = "VEC=4,ROWS=1,WG=64",
         HARNESS_CASES(combine_backward_cases)},
    };
    return harness_main(suites, sizeof suites / sizeof *suites, argc, argv);
}
