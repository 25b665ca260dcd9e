/* topk against its reference. (ctest: full, for the kernels it builds) */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_topk;

/* Rows that a sample misjudges: all large keys in a few places, and a plateau at zero. */
static void clustered(harness_data *data) {
    cldsa_host_tensor *scores = harness_tensor(data, "scores");
    int64_t t = harness_dim(data, "T");
    for (int64_t i = 0; i < harness_numel(scores); ++i) {
        int64_t row = i / t, at = i % t;
        if (row == 0)
            scores->data[i] = at % 8 == 3 ? 1 + scores->data[i] * 1e-3 : scores->data[i] * 1e-3;
        else if (row == 1)
            scores->data[i] = scores->data[i] > 0 ? scores->data[i] : 0;
        else if (row == 2)
            scores->data[i] = at >= t - 700 ? (double)at : -(double)at;
    }
}

/* Rows that say nothing about the next one: wider and narrower, shifted, without negatives, of denormals, all alike. */
static void unlike(harness_data *data) {
    cldsa_host_tensor *scores = harness_tensor(data, "scores");
    int64_t t = harness_dim(data, "T");
    for (int64_t i = 0; i < harness_numel(scores); ++i) {
        double x = scores->data[i];
        const double kinds[] = {x, 1000 * x, 1e-3 * x, x > 0 ? x : 0, x - 20, 1e-39 * x, 1e-20 * x, x, x + 20, 1.5};
        scores->data[i] = kinds[i / t % 10];
    }
}

static const harness_case cases[] = {
    {.name = "everything",
     .dims = "R=9 T=100 K=20 B=3",
     .give = "*",
     .shapes = "k_rows=B",
     .fill = "k_rows=whole 0 25; ks=range_start T; ke=range_end T"},
    {.name = "experiment",
     .dims = "R=64 T=64 K=64 B=4",
     .give = "k_rows mask count",
     .shapes = "k_rows=B",
     .dtypes = "mask=U32",
     .fill = "k_rows=whole 1 64"},
    {.name = "byte mask", .dims = "R=6 T=131 K=1", .give = "mask count", .params = "k=70", .dtypes = "mask=U8"},
    {.name = "k = 1", .dims = "R=5 T=37 K=1", .give = "indices values", .params = "k=1"},
    {.name = "k = T", .dims = "R=3 T=75 K=75", .give = "indices values count", .params = "k=75"},
    {.name = "k = T by score", .dims = "R=3 T=75 K=75", .give = "indices values count", .params = "k=75 order=score"},
    {.name = "more places than k", .dims = "R=3 T=75 K=90", .give = "indices values count mask", .params = "k=12"},
    {.name = "fewer places than k",
     .dims = "R=3 T=75 K=9",
     .give = "indices mask",
     .dtypes = "mask=U32",
     .params = "k=12"},
    {.name = "one element", .dims = "R=1 T=1 K=1", .give = "indices mask", .params = "k=1"},
    {.name = "k outside of the row", .dims = "R=40 T=9 K=9", .give = "k_rows indices count", .fill = "k_rows=wild 9"},
    {.name = "ties",
     .dims = "R=20 T=257 K=100",
     .give = "k_rows indices count mask",
     .dtypes = "mask=U32",
     .fill = "scores=whole 0 3; k_rows=whole 1 100"},
    {.name = "all equal",
     .dims = "R=4 T=300 K=77",
     .give = "indices count",
     .params = "k=77",
     .fill = "scores=const 1.5"},
    {.name = "ties by score",
     .dims = "R=20 T=257 K=100",
     .give = "indices values",
     .params = "k=100 order=score",
     .fill = "scores=ties 2"},
    {.name = "special",
     .dims = "R=30 T=200 K=150",
     .give = "indices count mask",
     .params = "k=150",
     .fill = "scores=special"},
    {.name = "special by score",
     .dims = "R=30 T=200 K=200",
     .give = "indices count",
     .params = "k=200 order=score",
     .fill = "scores=special"},
    {.name = "all -inf",
     .dims = "R=3 T=50 K=10",
     .give = "indices values count mask",
     .params = "k=10",
     .fill = "scores=const -inf"},
    {.name = "half, ranges",
     .dims = "R=21 T=700 K=130",
     .give = "ks ke indices values count",
     .params = "k=130",
     .dtypes = "scores=F16",
     .fill = "ks=range_start T; ke=range_end T"},
    {.name = "bf16, ranges, mask",
     .dims = "R=21 T=700 K=1",
     .give = "ks ke mask count",
     .params = "k=130",
     .dtypes = "scores=BF16 mask=U32",
     .fill = "ks=range_start T; ke=range_end T"},
    {.name = "only ke", .dims = "R=14 T=120 K=40", .give = "ke indices", .params = "k=40", .fill = "ke=whole 0 120"},
    {.name = "long", .dims = "R=6 T=20011 K=500", .give = "indices values count mask", .params = "k=500"},
    {.name = "long by score", .dims = "R=3 T=20011 K=5000", .give = "indices values", .params = "k=5000 order=score"},
    {.name = "long, half of it", .dims = "R=3 T=33000 K=16500", .give = "indices count", .params = "k=16500"},
    {.name = "long, ranges, mask",
     .dims = "R=9 T=40000 K=300",
     .give = "ks ke indices count mask",
     .dtypes = "mask=U32",
     .params = "k=300",
     .fill = "ks=range_start T; ke=range_end T"},
    {.name = "long, special",
     .dims = "R=3 T=16384 K=1000",
     .give = "indices count",
     .params = "k=1000",
     .fill = "scores=special"},
    {.name = "misleading samples",
     .dims = "R=3 T=30000 K=600",
     .give = "indices count",
     .params = "k=600",
     .prepare = clustered},
    {.name = "rows alike", .dims = "R=50 T=9001 K=600", .give = "indices count", .params = "k=600"},
    {.name = "half of rows about zero", .dims = "R=50 T=5002 K=2501", .give = "indices count", .params = "k=2501"},
    {.name = "rows unlike the one before",
     .dims = "R=50 T=9002 K=700",
     .give = "indices values count",
     .params = "k=700",
     .prepare = unlike},
    {.name = "rows unlike the one before, ranges",
     .dims = "R=60 T=9002 K=700",
     .give = "k_rows ks ke indices count mask",
     .dtypes = "scores=BF16 mask=U32",
     .fill = "k_rows=whole 690 700; ks=range_start T; ke=range_end T",
     .prepare = unlike},
    {.name = "threshold far from the cut", .dims = "R=3 T=9001 K=2500", .give = "indices count", .params = "k=2500"},
    {.name = "very long",
     .dims = "R=1 T=1000003 K=2048",
     .give = "indices count mask",
     .params = "k=2048",
     .dtypes = "mask=U32"},
    {.name = "very long plateau",
     .dims = "R=1 T=600000 K=90000",
     .give = "indices count",
     .params = "k=90000",
     .fill = "scores=whole 0 2"},
    {.name = "k too large",
     .dims = "R=2 T=8 K=9",
     .give = "indices",
     .params = "k=9",
     .expect = CLDSA_INVALID_ARGUMENT,
     .message = "k is 9; it must be 1 to 8"},
    {.name = "k of 0",
     .dims = "R=2 T=8 K=9",
     .give = "indices",
     .params = "k=0",
     .expect = CLDSA_INVALID_ARGUMENT,
     .message = "k is 0"},
    {.name = "nothing wanted",
     .dims = "R=2 T=8 K=9",
     .give = "count",
     .expect = CLDSA_MISSING_TENSOR,
     .message = "neither indices nor mask"},
    {.name = "values without indices",
     .dims = "R=2 T=8 K=9",
     .give = "values mask",
     .expect = CLDSA_MISSING_TENSOR,
     .message = "indices has no buffer"},
    {.name = "entries that do not divide the rows",
     .dims = "R=8 T=8 K=2 B=3",
     .give = "k_rows indices",
     .shapes = "k_rows=B",
     .fill = "k_rows=const 2",
     .expect = CLDSA_INVALID_SHAPE,
     .message = "k_rows has 3 entries"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {{.op = &cldsa_op_topk, HARNESS_CASES(cases)}};
    return harness_main(suites, 1, argc, argv);
}
