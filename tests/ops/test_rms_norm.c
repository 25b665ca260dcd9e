/* rms_norm and its backward pass. */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_rms_norm, cldsa_op_rms_norm_backward;

static const harness_case forward_cases[] = {
    {.name = "the experiment's latent", .dims = "R=24 X=80 D=64", .shapes = "x=4 6 X", .give = "rstd"},
    {.name = "whole rows", .dims = "R=33 X=100 D=100"},
    {.name = "odd, wide rows", .dims = "R=3 X=1603 D=1501", .give = "*"},
    {.name = "one element", .dims = "R=1 X=1 D=1", .params = "eps=0.5"},
    {.name = "rows too short", .dims = "R=2 X=3 D=4", .expect = CLDSA_INVALID_SHAPE, .message = "weight has 4"},
};

static const harness_case backward_cases[] = {
    {.name = "the experiment's latent", .dims = "R=40 X=80 D=64", .shapes = "x=4 10 X; dy=4 10 D; dx=4 10 X"},
    {.name = "odd", .dims = "R=150 X=101 D=101"},
    {.name = "one row", .dims = "R=1 X=30 D=20"},
    {.name = "many rows", .dims = "R=1030 X=18 D=17"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_rms_norm, HARNESS_CASES(forward_cases)},
        {.op = &cldsa_op_rms_norm_backward,
         .forward = &cldsa_op_rms_norm,
         .tunables = "simt:ROWS=4,WG=8,PER_LANE=2",
         HARNESS_CASES(backward_cases)},
    };
    return harness_main(suites, 2, argc, argv);
}
