/* embedding and its backward pass: repeated, absent and invalid tokens. */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_embedding, cldsa_op_embedding_backward;

static const harness_case forward_cases[] = {
    {.name = "with positions", .dims = "B=3 S=20 V=100 D=64 P=32", .give = "positions", .fill = "ids=labels V"},
    {.name = "without", .dims = "B=2 S=9 V=17 D=37", .fill = "ids=wild V"},
    {.name = "one token", .dims = "B=1 S=1 V=1 D=3 P=1", .give = "positions", .fill = "ids=const 0"},
    {.name = "too few positions",
     .dims = "B=1 S=4 V=2 D=3 P=3",
     .give = "positions",
     .fill = "ids=const 0",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "3 positions"},
};

static const harness_case backward_cases[] = {
    {.name = "with positions", .dims = "B=3 S=100 V=100 D=64 P=110", .give = "dpositions", .fill = "ids=labels V"},
    {.name = "repeated tokens, odd width",
     .dims = "B=5 S=75 V=9 D=101 P=75",
     .give = "dpositions",
     .fill = "ids=wild V"},
    {.name = "many tokens", .dims = "B=2 S=1500 V=300 D=20", .fill = "ids=labels V"},
    {.name = "all the same", .dims = "B=8 S=40 V=12 D=16", .fill = "ids=const 11", .tolerance = 3},
    {.name = "one token", .dims = "B=1 S=1 V=3 D=1 P=2", .give = "dpositions", .fill = "ids=const 1"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_embedding, HARNESS_CASES(forward_cases)},
        {.op = &cldsa_op_embedding_backward, .forward = &cldsa_op_embedding, HARNESS_CASES(backward_cases)},
    };
    return harness_main(suites, 2, argc, argv);
}
