/* The published sparsity controller, from hidden states to keys per row. */
/* ctest: full, for the kernels it builds */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_controller_moments, cldsa_op_controller_perplexity, cldsa_op_controller_entropy,
    cldsa_op_controller_k, cldsa_op_keep_rows;

static const harness_case moments_cases[] = {
    {.name = "the experiment", .dims = "B=3 S=64 D=256"},
    {.name = "two positions", .dims = "B=2 S=2 D=128"},
    {.name = "odd", .dims = "B=3 S=41 D=53"},
    {.name = "narrow", .dims = "B=1 S=7 D=1"},
    {.name = "far from zero", .dims = "B=1 S=100 D=40", .fill = "h=normal 1 300", .tolerance = 30},
    {.name = "one position", .dims = "B=1 S=1 D=8", .expect = CLDSA_INVALID_SHAPE, .message = "at least 2"},
};

static const harness_case perplexity_cases[] = {
    {.name = "the experiment", .dims = "B=2 S=64 D=256", .params = "eps=1e-5"},
    {.name = "two positions", .dims = "B=3 S=2 D=128", .params = "eps=1e-5"},
    {.name = "odd", .dims = "B=2 S=35 D=53", .params = "eps=1e-3"},
    {.name = "narrow", .dims = "B=1 S=18 D=3", .params = "eps=1e-5"},
    {.name = "long", .dims = "B=1 S=1100 D=20", .params = "eps=1e-5"},
};

static const harness_case entropy_cases[] = {
    {.name = "the experiment", .dims = "B=3 S=64 W=768", .params = "num_heads=4 d_model=256"},
    {.name = "two positions", .dims = "B=2 S=2 W=256", .params = "num_heads=4 d_model=128"},
    {.name = "one position", .dims = "B=1 S=1 W=16", .params = "num_heads=1 d_model=8"},
    {.name = "odd", .dims = "B=2 S=77 W=131", .params = "num_heads=5 d_model=65"},
    {.name = "more tiles than splits", .dims = "B=5 S=300 W=48", .params = "num_heads=3 d_model=24"},
    {.name = "sharp",
     .dims = "B=1 S=130 W=32",
     .params = "num_heads=1 d_model=16",
     .fill = "qk=normal 20",
     .tolerance = 30},
    {.name = "heads that do not divide",
     .dims = "B=1 S=4 W=32",
     .params = "num_heads=3 d_model=16",
     .expect = CLDSA_INVALID_ARGUMENT,
     .message = "must divide d_model"},
    {.name = "no room for k",
     .dims = "B=1 S=4 W=31",
     .params = "num_heads=4 d_model=16",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "q and k need 32"},
};

#define STATISTICS                                                                                                     \
    "diversity=uniform 0.1 2; perplexity=uniform 0.1 2; variance=uniform 0.1 2; entropy=uniform 1 5; mix=uniform 0.2 " \
    "0.8; length_w1=normal 0.1; mean=normal 0.3; length_w2=normal 0.3"

static const harness_case k_cases[] = {
    {.name = "hybrid",
     .dims = "B=8 D=256 U=32 A=16",
     .params = "seq_len=256 max_seq_len=2048 use=7",
     .fill = STATISTICS},
    {.name = "odd widths",
     .dims = "B=3 D=53 U=33 A=7",
     .params = "seq_len=41 max_seq_len=512 use=7",
     .fill = STATISTICS},
    {.name = "length only",
     .dims = "B=5 D=64 U=32 A=16",
     .params = "seq_len=2048 max_seq_len=2048 use=1",
     .fill = STATISTICS},
    {.name = "complexity only",
     .dims = "B=5 D=64 U=32 A=16",
     .params = "seq_len=128 max_seq_len=2048 use=2",
     .fill = STATISTICS},
    {.name = "entropy only",
     .dims = "B=70 D=64 U=32 A=16",
     .params = "seq_len=100 max_seq_len=2048 use=4",
     .fill = STATISTICS},
    {.name = "two positions",
     .dims = "B=2 D=16 U=1 A=1",
     .params = "seq_len=2 max_seq_len=2048 use=7",
     .fill = STATISTICS},
    {.name = "clamped", .dims = "B=2 D=16 U=4 A=4", .params = "seq_len=10 max_seq_len=16 use=7", .fill = "mix=const 9"},
};

static const harness_case keep_rows_cases[] = {
    {.name = "whole", .dims = "B=3 S=70", .fill = "ratio=uniform 0.1 0.9"},
    {.name = "causal", .dims = "B=3 S=70", .params = "causal=1", .fill = "ratio=uniform 0.1 0.9"},
    {.name = "halves round to even", .dims = "B=1 S=33", .params = "causal=1", .fill = "ratio=const 0.5"},
    {.name = "nothing and more than all", .dims = "B=2 S=5", .fill = "ratio=iota"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_controller_moments, .tunables = "WG=256,LANES=32", HARNESS_CASES(moments_cases)},
        {.op = &cldsa_op_controller_perplexity, .tunables = "WG=64,VEC=4,ROWS=8", HARNESS_CASES(perplexity_cases)},
        {.op = &cldsa_op_controller_entropy, HARNESS_CASES(entropy_cases)},
        {.op = &cldsa_op_controller_k, .tunables = "WG=32", HARNESS_CASES(k_cases)},
        {.op = &cldsa_op_keep_rows, HARNESS_CASES(keep_rows_cases)},
    };
    return harness_main(suites, sizeof suites / sizeof *suites, argc, argv);
}
