/* Named sets of shapes. A new case is one entry; a new preset one table and a line at the end. */
#include "bench/bench.h"

#include <string.h>

/* Inputs repeat after about this many elements: the values do not matter to speed, and drawing them takes time. */
#define PERIOD .period = 1 << 20

/* What lies in C beforehand must not matter: beta is 0. */
#define GEMM(M, N, K, layout, b_shape)                                                                                 \
    {                                                                                                                  \
        .op = "gemm",                                                                                                  \
        .spec = {.dims = "M=" M " N=" N " K=" K,                                                                       \
                 .params = "layout=" layout,                                                                           \
                 .shapes = "a=M K; b=" b_shape "; c=M N",                                                              \
                 .fill = "c=const nan",                                                                                \
                 PERIOD},                                                                                              \
        .check_dims = "M=203 N=187 K=211"                                                                              \
    }
#define GEMM_NN(M, N, K) GEMM(M, N, K, "nn", "K N")
#define GEMM_NT(M, N, K) GEMM(M, N, K, "nt", "N K")

/* DSA's form: one key head, a weight per query. */
#define SCORES_DSA(S, T, dtype, range_)                                                                                \
    {                                                                                                                  \
        .op = "indexer_scores",                                                                                        \
        .spec = {.dims = "B=1 S=" S " T=" T " H=64 Hk=1 D=128",                                                        \
                 .params = "range=" range_,                                                                            \
                 .shapes = "w=B S H",                                                                                  \
                 .dtypes = "q=" dtype " k=" dtype,                                                                     \
                 PERIOD},                                                                                              \
        .check_dims = "B=1 S=37 T=133 H=64 Hk=1 D=128"                                                                 \
    }
/* The experiment's form: a key per head, one weight per head. */
#define SCORES_EXPERIMENT(B, S, small)                                                                                 \
    {                                                                                                                  \
        .op = "indexer_scores",                                                                                        \
        .spec = {.dims = "B=" B " S=" S " T=" S " H=4 Hk=4 D=64", .params = "relu_out=1", PERIOD},                     \
        .check_dims = "B=2 S=" small " T=" small " H=4 Hk=4 D=64"                                                      \
    }

/* Indices only, ascending. */
#define TOPK(R, T, k, small)                                                                                           \
    {                                                                                                                  \
        .op = "topk", .spec = {.dims = "R=" R " T=" T " K=" k, .params = "k=" k, .give = "indices", PERIOD},           \
        .check_dims = "R=" small " T=" T " K=" k                                                                       \
    }

#define ATTENTION_DIMS(B, S, H, D) "B=" B " S=" S " T=" S " H=" H " Hk=" H " D=" D " Dv=" D
#define ATTENTION(B, S, H, D, give_, fill_, small)                                                                     \
    {                                                                                                                  \
        .op = "masked_attention",                                                                                      \
        .spec = {.dims = ATTENTION_DIMS(B, S, H, D), .give = "lse" give_, .fill = fill_, PERIOD},                      \
        .check_dims = ATTENTION_DIMS("1", small, H, D)                                                                 \
    }
#define ATTENTION_BACKWARD(B, S, H, D, give_, fill_, small)                                                            \
    {                                                                                                                  \
        .op = "masked_attention_backward", .forward = "masked_attention",                                              \
        .spec = {.dims = ATTENTION_DIMS(B, S, H, D), .give = give_, .fill = fill_, PERIOD},                            \
        .check_dims = ATTENTION_DIMS("1", small, "2", D)                                                               \
    }

/* Keys and values apart, as many key heads as query heads. */
#define SPARSE_DIMS(S, T, K, H, D) "B=1 S=" S " T=" T " K=" K " H=" H " Hk=" H " D=" D " Dv=" D
#define SPARSE(S, T, K, H, D)                                                                                          \
    {                                                                                                                  \
        .op = "sparse_attention",                                                                                      \
        .spec = {.dims = SPARSE_DIMS(S, T, K, H, D), .give = "v lse", .fill = "indices=distinct T", PERIOD},           \
        .check_dims = SPARSE_DIMS("33", "300", "70", H, D)                                                             \
    }
#define SPARSE_BACKWARD(S, T, K, H, D)                                                                                 \
    {                                                                                                                  \
        .op = "sparse_attention_backward", .forward = "sparse_attention",                                              \
        .spec = {.dims = SPARSE_DIMS(S, T, K, H, D), .give = "v dv", .fill = "indices=distinct T", PERIOD},            \
        .check_dims = SPARSE_DIMS("33", "300", "70", H, D)                                                             \
    }

/* Latent form, 576 wide of which the first 512 are the value. */
#define LATENT_DIMS(S, T, K, H) "B=1 S=" S " T=" T " K=" K " H=" H " Hk=1 D=576 Dv=512"
#define LATENT(S, T, K, H, dtype)                                                                                      \
    {                                                                                                                  \
        .op = "sparse_attention",                                                                                      \
        .spec = {.dims = LATENT_DIMS(S, T, K, H),                                                                      \
                 .params = "v_dim=512",                                                                                \
                 .give = "lse",                                                                                        \
                 .fill = "indices=distinct T",                                                                         \
                 .dtypes = "q=" dtype " k=" dtype,                                                                     \
                 PERIOD},                                                                                              \
        .check_dims = LATENT_DIMS("5", "300", "70", H)                                                                 \
    }
#define LATENT_BACKWARD(S, T, K, H, dtype)                                                                             \
    {                                                                                                                  \
        .op = "sparse_attention_backward", .forward = "sparse_attention",                                              \
        .spec = {.dims = LATENT_DIMS(S, T, K, H),                                                                      \
                 .params = "v_dim=512",                                                                                \
                 .fill = "indices=distinct T",                                                                         \
                 .dtypes = "q=" dtype " k=" dtype,                                                                     \
                 PERIOD},                                                                                              \
        .check_dims = LATENT_DIMS("5", "300", "70", H)                                                                 \
    }

#define SELECT(S, T, k)                                                                                                \
    {                                                                                                                  \
        .op = "select",                                                                                                \
        .spec = {.dims = "B=1 S=" S " T=" T " H=64 Hk=1 D=128 K=" k,                                                   \
                 .params = "range=causal k_max=" k,                                                                    \
                 .shapes = "w=B S H",                                                                                  \
                 PERIOD},                                                                                              \
        .check_dims = "B=1 S=9 T=3000 H=64 Hk=1 D=128 K=" k                                                            \
    }

static const bench_case cpu_cases[] = {
    GEMM_NN("1024", "1024", "1024"),
    GEMM_NT("1024", "1024", "1024"),
    GEMM_NN("2048", "1024", "256"),
    GEMM_NT("2048", "1024", "256"),
    SCORES_EXPERIMENT("8", "256", "67"),
    SCORES_EXPERIMENT("1", "2048", "67"),
    SCORES_DSA("256", "4096", "F32", "all"),
    TOPK("2048", "256", "128", "2048"),
    TOPK("2048", "2048", "512", "100"),
    TOPK("1024", "8192", "2048", "32"),
    TOPK("256", "65536", "2048", "8"),
    ATTENTION("8", "256", "8", "32", "", NULL, "100"),
    ATTENTION("8", "256", "8", "32", " mask", "mask=mask 0.5", "100"),
    ATTENTION("1", "2048", "8", "64", "", NULL, "150"),
    ATTENTION("1", "2048", "8", "64", " mask", "mask=mask 0.5", "150"),
    ATTENTION_BACKWARD("8", "256", "8", "32", "", NULL, "100"),
    ATTENTION_BACKWARD("8", "256", "8", "32", "mask", "mask=mask 0.5", "100"),
    ATTENTION_BACKWARD("1", "2048", "8", "64", "", NULL, "150"),
    ATTENTION_BACKWARD("1", "2048", "8", "64", "mask", "mask=mask 0.5", "150"),
    SPARSE("2048", "2048", "256", "8", "64"),
    SPARSE_BACKWARD("2048", "2048", "256", "8", "64"),
    LATENT("128", "8192", "512", "16", "F32"),
    LATENT_BACKWARD("128", "8192", "512", "16", "F32"),
};

static const bench_case gpu_cases[] = {
    GEMM_NN("4096", "4096", "4096"),
    GEMM_NT("4096", "4096", "4096"),
    GEMM_NT("2048", "1024", "256"),
    SCORES_EXPERIMENT("8", "256", "67"),
    SCORES_DSA("4096", "4096", "F32", "causal"),
    SCORES_DSA("4096", "32768", "F32", "causal"),
    SCORES_DSA("4096", "32768", "BF16", "causal"),
    TOPK("4096", "4096", "2048", "64"),
    TOPK("4096", "32768", "2048", "16"),
    TOPK("4096", "65536", "2048", "8"),
    TOPK("4096", "131072", "2048", "4"),
    SELECT("4096", "32768", "2048"),
    ATTENTION("8", "256", "8", "32", "", NULL, "100"),
    ATTENTION("1", "2048", "8", "64", "", NULL, "150"),
    ATTENTION("1", "2048", "8", "64", " mask", "mask=mask 0.5", "150"),
    ATTENTION_BACKWARD("8", "256", "8", "32", "", NULL, "100"),
    ATTENTION_BACKWARD("1", "2048", "8", "64", "", NULL, "150"),
    SPARSE("2048", "2048", "256", "8", "64"),
    SPARSE_BACKWARD("2048", "2048", "256", "8", "64"),
    LATENT("4096", "8192", "2048", "128", "BF16"),
    LATENT("4096", "32768", "2048", "128", "BF16"),
    LATENT_BACKWARD("4096", "8192", "2048", "128", "BF16"),
};

#define CASES(array) array, sizeof(array) / sizeof *(array)

const bench_preset bench_presets[] = {
    {"cpu", "shapes that take a CPU milliseconds: the experiment's, and small ones of long contexts", CASES(cpu_cases)},
    {"gpu", "shapes that fill a GPU: the experiment's, and prefill over long contexts", CASES(gpu_cases)},
    {0},
};

enum { MAX_PRESETS = 16 };

cldsa_status bench_find_preset(const char *name, bool is_cpu, const bench_preset **out) {
    const char *names[MAX_PRESETS];
    size_t count = 0;
    if (!name)
        name = is_cpu ? "cpu" : "gpu";
    for (; bench_presets[count].name; ++count) {
        names[count] = bench_presets[count].name;
        if (strcmp(names[count], name) == 0) {
            *out = &bench_presets[count];
            return CLDSA_SUCCESS;
        }
    }
    const char *near = cldsa_nearest_name(name, names, count);
    return cldsa_fail(CLDSA_NOT_FOUND, "there is no preset \"%s\"; %s%s%s", name, near ? "did you mean " : "",
                      near ? near : "known are cpu and gpu", near ? "?" : "");
}
