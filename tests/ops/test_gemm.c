/* gemm: layouts, batches, groups, epilogues; strided operands and forced tile sizes beside the table. */
/* ctest: full, for the kernels it builds */
#include "tests/ops/harness.h"

#include <cldsa/gemm.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

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
    /* without checks of extents: cl/gemm_simt.cl, WHOLE */
    {.name = "nt, whole tiles",
     .dims = "M=128 N=64 K=48",
     .shapes = NT(""),
     .params = "layout=nt alpha=2 beta=-1 activation=silu",
     .give = "bias pre"},
    {.name = "nt, whole large tiles", .dims = "M=256 N=128 K=24", .shapes = NT(""), .params = "layout=nt"},
    {.name = "nt, whole tiles, bfloat16",
     .dims = "Z=2 M=64 N=128 K=32",
     .shapes = "a=Z M K; b=Z N K; c=Z M N",
     .params = "layout=nt",
     .dtypes = "a=BF16 b=F16"},
    {.name = "nt, whole tiles and slices",
     .dims = "M=64 N=64 K=1040",
     .shapes = NT(""),
     .params = "layout=nt",
     .tolerance = 8},
    {.name = "tn, odd", .dims = "M=51 N=33 K=27", .shapes = TN(""), .params = "layout=tn"},
    {.name = "one element", .dims = "M=1 N=1 K=1", .shapes = NT(""), .params = "layout=nt"},
    {.name = "one row", .dims = "M=1 N=130 K=65", .shapes = NT(""), .params = "layout=nt", .give = "bias"},
    {.name = "few rows",
     .dims = "M=3 N=101 K=83",
     .shapes = NT(""),
     .params = "layout=nt activation=silu beta=1",
     .give = "bias pre",
     .dtypes = "b=BF16"},
    {.name = "few rows, several blocks of the reduction",
     .dims = "M=5 N=37 K=1100",
     .shapes = NT(""),
     .params = "layout=nt",
     .give = "bias",
     .tolerance = 8},
    {.name = "few columns",
     .dims = "M=149 N=4 K=64",
     .shapes = NT(""),
     .params = "layout=nt alpha=2 beta=-1 activation=relu",
     .give = "bias pre",
     .dtypes = "a=F16"},
    {.name = "few columns, nn", .dims = "Z=2 M=37 N=7 K=90", .shapes = "a=Z M K; b=K N; c=Z M N", .give = "bias"},
    {.name = "few of both", .dims = "M=8 N=2 K=40", .shapes = NT(""), .params = "layout=nt", .give = "bias"},
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

/* ---- strided operands, and tile sizes that the defaults would not take here -------------------------------------- */

typedef struct strided_case {
    cldsa_gemm_layout layout;
    int z, m, n, k;
    int pad_a, pad_b, pad_c; /* elements between rows beyond the dense ones */
    int gap;                 /* elements between matrices beyond their rows */
} strided_case;

enum { LEAD = 5, UNTOUCHED = 12345 };

typedef struct operand {
    int64_t rows, columns, ld, stride, numel;
    float *host;
    cl_mem mem;
    cldsa_tensor view;
} operand;

static operand make_operand(cl_command_queue queue, const strided_case *test, int64_t rows, int64_t columns, int pad,
                            bool input) {
    operand o = {.rows = rows, .columns = columns, .ld = columns + pad};
    o.stride = rows * o.ld + test->gap;
    o.numel = LEAD + test->z * o.stride;
    o.host = malloc((size_t)o.numel * sizeof(float));
    assert_non_null(o.host);
    for (int64_t i = 0; i < o.numel; ++i)
        o.host[i] = input ? (float)(i * 37 % 17) - 8 : UNTOUCHED;
    cl_context context;
    cl_int code = clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof context, &context, NULL);
    assert_int_equal(code, CL_SUCCESS);
    o.mem = clCreateBuffer(context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, (size_t)o.numel * sizeof(float), o.host,
                           &code);
    assert_int_equal(code, CL_SUCCESS);
    o.view = CLDSA_TENSOR(o.mem, LEAD, CLDSA_F32, test->z, rows, columns);
    return o;
}

static void release_operand(operand *o) {
    clReleaseMemObject(o->mem);
    free(o->host);
}

/* Small whole numbers: every sum is exact, in any order. */
static float wanted(const strided_case *test, const operand *a, const operand *b, int z, int64_t m, int64_t n) {
    const float *from_a = a->host + LEAD + z * a->stride, *from_b = b->host + LEAD + z * b->stride;
    double sum = 0;
    for (int k = 0; k < test->k; ++k)
        sum += (double)(test->layout == CLDSA_GEMM_TN ? from_a[k * a->ld + m] : from_a[m * a->ld + k]) *
               (double)(test->layout == CLDSA_GEMM_NT ? from_b[n * b->ld + k] : from_b[k * b->ld + n]);
    return (float)sum;
}

/* Nothing to check where the variant cannot run at all (vec on GPUs). */
static bool can_run(cldsa_context *ctx, const cldsa_gemm_args *args, const char *variant) {
    cldsa_op_force(ctx, &cldsa_op_gemm, variant, "");
    size_t bytes;
    return cldsa_gemm_workspace(ctx, args, &bytes) != CLDSA_UNSUPPORTED;
}

static void check_strided(const strided_case *test, const char *variant, const char *tunables) {
    cl_command_queue queue;
    cldsa_context *ctx = harness_context(&queue);
    bool tn = test->layout == CLDSA_GEMM_TN, nt = test->layout == CLDSA_GEMM_NT;
    operand a = make_operand(queue, test, tn ? test->k : test->m, tn ? test->m : test->k, test->pad_a, true);
    operand b = make_operand(queue, test, nt ? test->n : test->k, nt ? test->k : test->n, test->pad_b, true);
    operand c = make_operand(queue, test, test->m, test->n, test->pad_c, false);
    cldsa_gemm_args args = {.a = a.view,
                            .b = b.view,
                            .c = c.view,
                            .layout = test->layout,
                            .alpha = 1,
                            .lda = a.ld,
                            .ldb = b.ld,
                            .ldc = c.ld,
                            .stride_a = a.stride,
                            .stride_b = b.stride,
                            .stride_c = c.stride};
    if (!can_run(ctx, &args, variant)) {
        print_message("%s cannot run here\n", variant);
        cldsa_op_force(ctx, &cldsa_op_gemm, NULL, NULL);
        release_operand(&a);
        release_operand(&b);
        release_operand(&c);
        return;
    }
    size_t bytes = 0;
    assert_int_equal(cldsa_op_force(ctx, &cldsa_op_gemm, variant, tunables), CLDSA_SUCCESS);
    cldsa_status status = cldsa_gemm_workspace(ctx, &args, &bytes);
    if (status != CLDSA_SUCCESS)
        fail_msg("%s %s: %s", variant, tunables, cldsa_error_message());
    operand scratch = make_operand(queue, &(strided_case){.z = 1}, 1, (int64_t)(bytes / sizeof(float)) + 1, 0, false);
    status = cldsa_gemm(
        ctx, &args, &(cldsa_call){.queue = queue, .workspace = bytes ? scratch.mem : NULL, .workspace_bytes = bytes});
    if (status != CLDSA_SUCCESS)
        fail_msg("%s %s: %s", variant, tunables, cldsa_error_message());
    clEnqueueReadBuffer(queue, c.mem, CL_TRUE, 0, (size_t)c.numel * sizeof(float), c.host, 0, NULL, NULL);
    for (int64_t i = 0; i < c.numel; ++i) {
        int64_t z = i < LEAD ? 0 : (i - LEAD) / c.stride, at = i - LEAD - z * c.stride, m = at / c.ld, n = at % c.ld;
        bool inside = i >= LEAD && m < c.rows && n < c.columns;
        float want = inside ? wanted(test, &a, &b, (int)z, m, n) : UNTOUCHED;
        if (c.host[i] != want)
            fail_msg("%s %s, layout %d, %d x [%d,%d,%d]: element %lld is %g, want %g", variant, tunables,
                     (int)test->layout, test->z, test->m, test->n, test->k, (long long)i, (double)c.host[i],
                     (double)want);
    }
    cldsa_op_force(ctx, &cldsa_op_gemm, NULL, NULL);
    release_operand(&a);
    release_operand(&b);
    release_operand(&c);
    release_operand(&scratch);
}

static void strided(void **state) {
    (void)state;
    static const strided_case tests[] = {
        {CLDSA_GEMM_NN, 1, 37, 45, 33, 3, 7, 5, 0},
        {CLDSA_GEMM_NT, 3, 20, 36, 40, 4, 8, 4, 12},
        {CLDSA_GEMM_TN, 2, 31, 50, 70, 1, 2, 3, 9},
    };
    static const strided_case thin[] = {
        {CLDSA_GEMM_NN, 2, 37, 3, 33, 3, 7, 5, 4},
        {CLDSA_GEMM_NT, 3, 45, 6, 40, 4, 8, 4, 12},
        {CLDSA_GEMM_NT, 2, 1, 45, 40, 4, 8, 4, 12},
    };
    static const char *const variants[] = {"vec", "simt", "clblast"};
    for (size_t t = 0; t < sizeof tests / sizeof tests[0]; ++t)
        for (size_t v = 0; v < sizeof variants / sizeof variants[0]; ++v)
            check_strided(&tests[t], variants[v], "");
    for (size_t t = 0; t < sizeof thin / sizeof thin[0]; ++t) {
        check_strided(&thin[t], "dot", "");
        check_strided(&thin[t], "dot", "ROWS=16,KC=16");
    }
}

static void forced_tiles(void **state) {
    (void)state;
    static const char *const ways[][2] = {
        {"vec", "MR=6,NV=1,KC=32,NB=48"},
        {"vec", "MR=8,NV=2,KC=16,NB=64,AT=3"},
        {"vec", "MR=14,KC=64"},
        {"simt", "TM=64,TN=64,WN=4,SPLIT=1"},
        {"simt", "TM=64,TN=64,TK=8,WM=8,WN=4,SPLIT=1"},
        {"simt", "TM=32,TN=32,WM=4,WN=4,SPLIT=4"},
        {"simt", "TM=64,TN=128,SPLIT=2"},
    };
    bool small = harness_work_limit() > 0;
    for (int layout = CLDSA_GEMM_NN; layout <= CLDSA_GEMM_TN; ++layout) {
        strided_case test = {.layout = (cldsa_gemm_layout)layout, .z = 2, .m = 75, .n = 92, .k = 139};
        if (small)
            test = (strided_case){.layout = test.layout, .z = 1, .m = 41, .n = 44, .k = 19};
        for (size_t w = 0; w < sizeof ways / sizeof ways[0]; ++w)
            check_strided(&test, ways[w][0], ways[w][1]);
    }
}

int main(int argc, char **argv) {
    const harness_suite suites[] = {{.op = &cldsa_op_gemm, HARNESS_CASES(cases)}};
    const struct CMUnitTest beside[] = {cmocka_unit_test(strided), cmocka_unit_test(forced_tiles)};
    int failed = argc > 1 ? 0 : cmocka_run_group_tests_name("gemm beside the table", beside, NULL, NULL);
    return harness_main(suites, 1, argc, argv) || failed;
}
