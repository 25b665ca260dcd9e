/* adamw: first and later steps, clipping. */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_adamw;

static const harness_case cases[] = {
    {.name = "first step", .dims = "P=5000", .fill = "m=const 0; v=const 0"},
    {.name = "late step", .dims = "P=4097", .params = "step=20000 lr=0.01", .fill = "v=positive"},
    {.name = "clipped",
     .dims = "P=333",
     .params = "step=3 max_norm=1",
     .give = "norm2",
     .fill = "v=positive; norm2=const 333"},
    {.name = "within the norm",
     .dims = "P=333",
     .params = "max_norm=100",
     .give = "norm2",
     .fill = "v=positive; norm2=const 333"},
    {.name = "no limit", .dims = "P=17", .give = "norm2", .fill = "v=positive; norm2=const 333"},
    {.name = "one, no decay", .dims = "P=1", .params = "weight_decay=0 beta1=0 step=7", .fill = "v=positive"},
    {.name = "zero gradient", .dims = "P=100", .fill = "grad=const 0; m=const 0; v=const 0"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {{.op = &cldsa_op_adamw, HARNESS_CASES(cases)}};
    return harness_main(suites, 1, argc, argv);
}
