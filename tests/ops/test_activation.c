/* activation and its backward pass, with and without dropout. */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_activation, cldsa_op_activation_backward;

static const harness_case forward_cases[] = {
    {.name = "silu", .dims = "N=4096", .shapes = "x=8 512; y=8 512", .params = "activation=silu", .fill = "x=normal 4"},
    {.name = "relu, odd", .dims = "N=131", .params = "activation=relu"},
    {.name = "sigmoid, large", .dims = "N=700", .params = "activation=sigmoid", .fill = "x=uniform -120 120"},
    {.name = "sigmoid, not finite", .dims = "N=300", .params = "activation=sigmoid", .fill = "x=special"},
    {.name = "relu, not finite", .dims = "N=300", .params = "activation=relu", .fill = "x=special"},
    {.name = "dropout alone", .dims = "N=5003", .params = "dropout_p=0.25 dropout_seed=12345678901 dropout_stream=7"},
    {.name = "silu with dropout in place",
     .dims = "N=9000",
     .params = "activation=silu dropout_p=0.1 dropout_seed=5",
     .alias = "y=x"},
    {.name = "one", .dims = "N=1", .params = "activation=silu dropout_p=0.5"},
    {.name = "all dropped",
     .dims = "N=10",
     .params = "dropout_p=1",
     .expect = CLDSA_INVALID_ARGUMENT,
     .message = "dropout_p is 1"},
};

static const harness_case backward_cases[] = {
    {.name = "silu", .dims = "N=4100", .params = "activation=silu", .fill = "x=normal 4"},
    {.name = "silu with dropout in place",
     .dims = "N=9001",
     .params = "activation=silu dropout_p=0.1 dropout_seed=5",
     .alias = "dx=dy"},
    {.name = "relu", .dims = "N=77", .params = "activation=relu dropout_p=0.5"},
    {.name = "sigmoid", .dims = "N=200", .params = "activation=sigmoid", .fill = "x=uniform -30 30"},
    {.name = "none", .dims = "N=64"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_activation, HARNESS_CASES(forward_cases)},
        {.op = &cldsa_op_activation_backward, .forward = &cldsa_op_activation, HARNESS_CASES(backward_cases)},
    };
    return harness_main(suites, 2, argc, argv);
}
