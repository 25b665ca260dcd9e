/* gemm: layouts, batches, groups, epilogues; strided operands and forced tile sizes beside the table. */
/* ctest: full, for the kernels it builds */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_gemm;

#define NN(prefix) "a=" prefix "M K; b=" prefix "K N; c=" prefix "M N; pre=" prefix "M N"
#define NT(prefix) "a=" prefix "M K; b=" prefix "N K; c=" prefix "M N; pre=" prefix "M N"
#define TN(prefix) "a=" prefix "K M; b=" prefix "K N; c=" prefix "M N; pre=" prefix "M N"
#define GROUPED_NN "a=M K; b=E K N; c=M N; pre=M N; group_offsets=E+1"
#define GROUPED_NT "a=M K; b=E N K; c=M N; pre=M N; group_offsets=E+1"
#define GROUPED_TN "a=K M; b=K N; c=E M N; pre=E M N; group_offsets=E+1"

/* Rows behind the last group, and an empty group in between. */
static void leave_rows(harness_data *data) {
    cldsa_host_tensor *offsets = harness_tensor(data, "group_offsets");
    const double values[] = {0, 13, 13, 30};
    for (int e = 0; e < 4; ++e)
        offsets->data[e] = values[e];
}

static const harness_case cases[] = {
    {.name = "nn", .dims = "M=64 N=64 K=48", .shapes = NN("")},
    {.name = "nt", .dims = "M=24 N=96 K=64", .shapes = NT(""), .params = "layout=nt"},
    {.name = "tn", .dims = "M=40 N=48 K=80", .shapes = TN(""), .params = "layout=tn"},
    {.name = "nn, odd", .dims = "M=37 N=45 K=19", .shapes = NN("")},
    {.name = "nt, odd", .dims = "M=29 N=83 K=71", .shapes = NT(""), .params = "layout=nt"},
    {.name = "tn, odd", .dims = "M=51 N=33 K=27", .shapes = TN(""), .params = "layout=tn"},
    {.name = "one element", .dims = "M=1 N=1 K=1", .shapes = NT(""), .params = "layout=nt"},
    {.name = "one row", .dims = "M=1 N=130 K=65", .shapes = NT(""), .params = "layout=nt", .give = "bias"},
    {.name = "one column", .dims = "M=133 N=1 K=65", .shapes = NN("")},
    {.name = "one step", .dims = "M=30 N=20 K=1", .shapes = TN(""), .params = "layout=tn"},
    {.name = "several blocks of the reduction",
     .dims = "M=21 N=52 K=700",
     .shapes = NT(""),
     .params = "layout=nt activation=silu",
     .give = "bias pre",
     .tolerance = 4},
    {.name = "several tiles", .dims = "M=200 N=270 K=90", .shapes = NN(""), .tolerance = 2},
    {.name = "c is not read with beta 0", .dims = "M=20 N=40 K=30", .shapes = NN(""), .fill = "c=const nan"},
    {.name = "alpha and beta", .dims = "M=33 N=41 K=300", .shapes = TN(""), .params = "layout=tn alpha=-0.5 beta=2"},
    {.name = "relu", .dims = "M=17 N=36 K=20", .shapes = NN(""), .params = "activation=relu", .give = "bias"},
    {.name = "silu",
     .dims = "M=26 N=50 K=32",
     .shapes = NT(""),
     .params = "layout=nt activation=silu",
     .give = "bias pre"},
    {.name = "sigmoid", .dims = "M=18 N=34 K=9", .shapes = NN(""), .params = "activation=sigmoid", .give = "pre"},
    {.name = "infinities stay in their row and column",
     .dims = "M=30 N=40 K=50",
     .shapes = NN(""),
     .fill = "a=special; b=positive"},
    {.name = "everything",
     .dims = "M=35 N=47 K=18",
     .shapes = NN(""),
     .params = "alpha=1.5 beta=1",
     .give = "bias pre"},
    {.name = "batch", .dims = "Z=3 M=19 N=37 K=33", .shapes = NN("Z ")},
    {.name = "batch, nt",
     .dims = "Z=2 M=20 N=24 K=40",
     .shapes = NT("Z "),
     .params = "layout=nt beta=1",
     .give = "bias pre"},
    {.name = "batch, tn", .dims = "Z=4 M=16 N=16 K=16", .shapes = TN("Z "), .params = "layout=tn"},
    {.name = "batch, b shared", .dims = "Z=3 M=15 N=35 K=20", .shapes = "a=Z M K; b=K N; c=Z M N"},
    {.name = "batch, a shared", .dims = "Z=3 M=15 N=35 K=20", .shapes = "a=1 M K; b=Z K N; c=Z M N"},
    {.name = "groups, nn",
     .dims = "M=70 N=40 K=36 E=4",
     .shapes = GROUPED_NN,
     .give = "group_offsets",
     .fill = "group_offsets=offsets M"},
    {.name = "groups, nt",
     .dims = "M=300 N=50 K=33 E=5",
     .shapes = GROUPED_NT,
     .params = "layout=nt activation=silu",
     .give = "group_offsets pre bias",
     .fill = "group_offsets=offsets M"},
    {.name = "groups, tn",
     .dims = "M=44 N=53 K=310 E=6",
     .shapes = GROUPED_TN,
     .params = "layout=tn",
     .give = "group_offsets",
     .fill = "group_offsets=offsets K"},
    {.name = "groups, tn, accumulated",
     .dims = "M=12 N=20 K=30 E=3",
     .shapes = GROUPED_TN,
     .params = "layout=tn beta=1",
     .give = "group_offsets pre",
     .prepare = leave_rows},
    {.name = "rows behind the last group stay",
     .dims = "M=41 N=35 K=24 E=3",
     .shapes = GROUPED_NT,
     .params = "layout=nt beta=0.5",
     .give = "group_offsets pre",
     .prepare = leave_rows},
    {.name = "f16", .dims = "M=31 N=39 K=45", .shapes = NT(""), .params = "layout=nt", .dtypes = "a=F16 b=F16"},
    {.name = "bf16", .dims = "M=31 N=39 K=45", .shapes = NN(""), .dtypes = "a=BF16 b=BF16"},
    {.name = "mixed", .dims = "M=34 N=30 K=29", .shapes = TN(""), .params = "layout=tn", .dtypes = "a=F16 b=BF16"},
    {.name = "k disagrees",
     .dims = "M=4 N=5 K=6",
     .shapes = "a=M K; b=K+1 N; c=M N",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "b is [1,7,5]; layout nn with the other shapes needs [1,6,5]"},
    {.name = "bias disagrees",
     .dims = "M=4 N=5 K=6",
     .shapes = "a=M K; b=K N; c=M N; bias=N+1",
     .give = "bias",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "bias is [6]; it must be [5]"},
    {.name = "rank 1",
     .dims = "M=4 N=5 K=6",
     .shapes = "a=K; b=K N; c=M N",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "a has rank 1"},
    {.name = "rows overlap",
     .dims = "M=4 N=5 K=6",
     .shapes = NN(""),
     .params = "lda=5",
     .expect = CLDSA_INVALID_ARGUMENT,
     .message = "the rows of a are 5 elements apart; they have 6"},
    {.name = "strides leave the buffer",
     .dims = "M=40 N=5 K=6",
     .shapes = NN(""),
     .params = "ldc=50",
     .expect = CLDSA_BUFFER_TOO_SMALL,
     .message = "c reaches element"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {{.op = &cldsa_op_gemm, HARNESS_CASES(cases)}};
    return harness_main(suites, 1, argc, argv);
}
