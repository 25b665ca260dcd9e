/* rope, mla_pack and its backward pass. */
/* ctest: full, for the kernels it builds */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_rope, cldsa_op_mla_pack, cldsa_op_mla_pack_backward;

static const harness_case rope_cases[] = {
    {.name = "regrouped, last half", .dims = "B=2 S=9 H=3 D=32", .params = "rope_dim=16 style=regroup"},
    {.name = "half-split, whole head", .dims = "B=1 S=33 H=2 D=64", .params = "rope_dim=64 style=half"},
    {.name = "interleaved, odd head", .dims = "B=2 S=5 H=1 D=11", .params = "rope_dim=6 style=interleaved"},
    {.name = "two elements", .dims = "B=1 S=3 H=1 D=2", .params = "rope_dim=2 style=half theta=100"},
    {.name = "given positions",
     .dims = "B=2 S=4 H=2 D=8",
     .params = "rope_dim=8 style=half",
     .give = "positions",
     .fill = "positions=whole 0 500"},
    {.name = "far positions, many pairs",
     .dims = "B=1 S=40 H=2 D=80",
     .params = "rope_dim=76 style=half",
     .give = "positions",
     .fill = "positions=whole -1000 1000000"},
    {.name = "half-split in place", .dims = "B=1 S=9 H=2 D=24", .params = "rope_dim=20 style=half", .alias = "y=x"},
    {.name = "inverse regrouped", .dims = "B=2 S=7 H=2 D=20", .params = "rope_dim=16 style=regroup inverse=1"},
    {.name = "inverse interleaved", .dims = "B=1 S=7 H=2 D=16", .params = "rope_dim=16 style=interleaved inverse=1"},
    {.name = "odd rope_dim",
     .dims = "B=1 S=2 H=1 D=8",
     .params = "rope_dim=3",
     .expect = CLDSA_INVALID_ARGUMENT,
     .message = "must be even"},
    {.name = "rope_dim beyond the head",
     .dims = "B=1 S=2 H=1 D=8",
     .params = "rope_dim=10",
     .expect = CLDSA_INVALID_ARGUMENT,
     .message = "at most 8"},
};

static const harness_case pack_cases[] = {
    {.name = "the experiment", .dims = "B=2 S=13 H=8 P=32 W=48 V=32 A=80", .params = "rope_dim=16 style=regroup"},
    {.name = "odd", .dims = "B=1 S=5 H=3 P=9 W=10 V=5 A=4", .params = "rope_dim=4 style=half"},
    {.name = "interleaved, no nope", .dims = "B=2 S=3 H=2 P=6 W=7 V=7 A=9", .params = "rope_dim=6 style=interleaved"},
    {.name = "kv too narrow",
     .dims = "B=1 S=2 H=1 P=8 W=5 V=4 A=8",
     .params = "rope_dim=4",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "need 8"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_rope, HARNESS_CASES(rope_cases)},
        {.op = &cldsa_op_mla_pack, HARNESS_CASES(pack_cases)},
        {.op = &cldsa_op_mla_pack_backward,
         .forward = &cldsa_op_mla_pack,
         .gradient_of = "dq_in=q_in dkv=kv dkv_a=kv_a",
         HARNESS_CASES(pack_cases)},
    };
    return harness_main(suites, 3, argc, argv);
}
