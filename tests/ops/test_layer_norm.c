/* layer_norm and its backward pass. */
/* ctest: full, for the kernels it builds */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_layer_norm, cldsa_op_layer_norm_backward;

static const harness_case forward_cases[] = {
    {.name = "the experiment's width", .dims = "R=24 D=256", .shapes = "x=4 6 D", .give = "mean rstd"},
    {.name = "residual and sum", .dims = "R=13 D=100", .give = "*"},
    {.name = "residual without sum", .dims = "R=9 D=37", .give = "residual rstd"},
    {.name = "nothing optional", .dims = "R=5 D=16"},
    {.name = "one element", .dims = "R=1 D=1", .give = "*", .params = "eps=0.1"},
    {.name = "wide", .dims = "R=3 D=1500", .give = "sum mean"},
    {.name = "far from zero", .dims = "R=7 D=64", .fill = "x=normal 1 1000", .give = "mean rstd", .tolerance = 30},
};

static const harness_case backward_cases[] = {
    {.name = "the experiment's width", .dims = "R=40 D=256", .shapes = "x=4 10 D; dy=4 10 D; dx=4 10 D"},
    {.name = "residual", .dims = "R=150 D=100", .give = "dresidual", .no_differences = true},
    {.name = "residual in place",
     .dims = "R=21 D=48",
     .give = "dresidual",
     .alias = "dx=dresidual",
     .no_differences = true},
    {.name = "odd", .dims = "R=19 D=37"},
    {.name = "one row", .dims = "R=1 D=20"},
    {.name = "many rows", .dims = "R=1030 D=18"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_layer_norm, HARNESS_CASES(forward_cases)},
        {.op = &cldsa_op_layer_norm_backward,
         .forward = &cldsa_op_layer_norm,
         .tunables = "simt:ROWS=4,WG=8,PER_LANE=2",
         HARNESS_CASES(backward_cases)},
    };
    return harness_main(suites, 2, argc, argv);
}
