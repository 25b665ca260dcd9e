/*
 * Sparse attention of the DeepSeek kind at serving and training sizes: an indexer of 64 heads of 128 with one key, 2048
 * keys kept, latent attention of 128 heads over rows of 576. CPUs get the same forms with fewer queries, heads and
 * keys.
 */
#include "bench/cases.h"
#include "bench/presets.h"

/* The rotation of the indexer's queries, and the norm of its keys. */
#define ROPE(S, H)                                                                                                     \
    {                                                                                                                  \
        .op = "rope",                                                                                                  \
        .spec = {.dims = "B=1 S=" S " H=" H " D=128", .params = "rope_dim=64 style=interleaved", PERIOD},              \
        .check_dims = "B=1 S=37 H=" H " D=128"                                                                         \
    }
#define KEY_NORM(S)                                                                                                    \
    { .op = "layer_norm", .spec = {.dims = "R=" S " D=128", .give = "mean rstd", PERIOD}, .check_dims = "R=201 D=128" }
#define LATENT_NORM(S)                                                                                                 \
    {                                                                                                                  \
        .op = "rms_norm", .spec = {.dims = "R=" S " X=576 D=512", .give = "rstd", PERIOD},                             \
        .check_dims = "R=201 X=576 D=512"                                                                              \
    }

/* ---- many queries at once ---------------------------------------------------------------------------------------- */

static const bench_case gpu_prefill[] = {
    GEMM_NT("4096", "1536", "7168"),
    GEMM_NT("4096", "8192", "1536"),
    GEMM_CASE("4096", "8192", "1536", "nt", "M K", "N K", NULL, "a=BF16 b=BF16"),
    GEMM_NT("4096", "128", "7168"),
    ROPE("4096", "64"),
    KEY_NORM("4096"),
    LATENT_NORM("4096"),
    SCORES_DSA("4096", "4096", "F32", "causal"),
    SCORES_DSA("4096", "32768", "F32", "causal"),
    SCORES_DSA("4096", "32768", "F16", "causal"),
    SCORES_DSA("4096", "32768", "BF16", "causal"),
    SCORES_DSA_BACKWARD("2048", "2048", "BF16"),
    KL("2048", "8192", "BF16", NULL, ""),
    KL("2048", "8192", "BF16", "selected", " selected=U32"),
    KL_BACKWARD("2048", "2048", "BF16", "loss", ""),
    KL_BACKWARD("2048", "2048", "BF16", "selected loss", " selected=U32"),
    TOPK("4096", "4096", "2048", "64"),
    TOPK("4096", "32768", "2048", "16"),
    SELECT("4096", "4096", "2048", "BF16"),
    SELECT("4096", "32768", "2048", "F32"),
    SELECT("4096", "32768", "2048", "BF16"),
    LATENT("4096", "4096", "2048", "128", "BF16"),
    LATENT("4096", "32768", "2048", "128", "BF16"),
    LATENT_DENSE("4096", "4096", "128", "BF16"),
    LATENT_BACKWARD("4096", "8192", "2048", "128", "BF16"),
    SPARSE("4096", "8192", "2048", "16", "16", "128"),
    SPARSE("4096", "8192", "2048", "32", "8", "128"),
    SPARSE_BACKWARD("4096", "8192", "2048", "16", "16", "128"),
    SPARSE_BACKWARD("4096", "8192", "2048", "32", "8", "128"),
};

static const bench_case cpu_prefill[] = {
    GEMM_NT("512", "1536", "2048"),
    GEMM_CASE("512", "1536", "2048", "nt", "M K", "N K", NULL, "a=BF16 b=BF16"),
    GEMM_NT("512", "128", "2048"),
    ROPE("512", "64"),
    KEY_NORM("512"),
    LATENT_NORM("512"),
    SCORES_DSA("512", "512", "F32", "causal"),
    SCORES_DSA("256", "4096", "F32", "causal"),
    SCORES_DSA("256", "4096", "F16", "causal"),
    SCORES_DSA("256", "4096", "BF16", "causal"),
    SCORES_DSA_BACKWARD("256", "512", "BF16"),
    KL("256", "2048", "BF16", NULL, ""),
    KL("256", "2048", "BF16", "selected", " selected=U32"),
    KL_BACKWARD("256", "512", "BF16", "loss", ""),
    KL_BACKWARD("256", "512", "BF16", "selected loss", " selected=U32"),
    TOPK("512", "512", "256", "64"),
    TOPK("256", "4096", "512", "32"),
    SELECT("256", "4096", "512", "F32"),
    SELECT("256", "4096", "512", "BF16"),
    LATENT("256", "4096", "512", "16", "F32"),
    LATENT("256", "4096", "512", "16", "BF16"),
    LATENT_DENSE("256", "4096", "16", "BF16"),
    LATENT_BACKWARD("256", "4096", "512", "16", "F32"),
    SPARSE("512", "2048", "256", "8", "8", "64"),
    SPARSE("512", "2048", "256", "16", "4", "64"),
    SPARSE_BACKWARD("512", "2048", "256", "8", "8", "64"),
    SPARSE_BACKWARD("512", "2048", "256", "16", "4", "64"),
};

/* ---- one query, or one of each of a few sequences ---------------------------------------------------------------- */

/* Checked with as many rows: some variants are for few of them only. */
#define ROWS_OF_ONE(M, N, K, dtype)                                                                                    \
    GEMM_CHECKED(M, N, K, "nt", "M K", "N K", NULL, "a=" dtype " b=" dtype, "M=" M " N=187 K=211")

/* Scoring, selecting and attending of one query, beside attending to all. */
#define DECODE(T, k, H, dtype, small)                                                                                  \
    SCORES_DSA("1", T, dtype, "causal"), TOPK("1", T, k, small), SELECT("1", T, k, dtype),                             \
        LATENT("1", T, k, H, dtype), LATENT_DENSE("1", T, H, dtype)

static const bench_case gpu_decode[] = {
    ROWS_OF_ONE("1", "8192", "1536", "BF16"),
    ROWS_OF_ONE("16", "8192", "1536", "BF16"),
    ROWS_OF_ONE("1", "1536", "7168", "F32"),
    ROPE("1", "64"),
    LATENT_NORM("16"),
    DECODE("4096", "2048", "128", "BF16", "1"),
    DECODE("16384", "2048", "128", "BF16", "1"),
    DECODE("65536", "2048", "128", "BF16", "1"),
    DECODE("131072", "2048", "128", "BF16", "1"),
    SCORES_DSA("1", "131072", "F32", "causal"),
    SCORES_DSA("16", "65536", "BF16", "causal"),
    TOPK("16", "65536", "2048", "8"),
    SELECT("16", "65536", "2048", "BF16"),
    LATENT("16", "65536", "2048", "128", "BF16"),
};

static const bench_case cpu_decode[] = {
    ROWS_OF_ONE("1", "1536", "2048", "F32"),
    ROWS_OF_ONE("8", "1536", "2048", "BF16"),
    ROPE("1", "64"),
    LATENT_NORM("8"),
    DECODE("1024", "512", "16", "F32", "1"),
    DECODE("4096", "512", "16", "F32", "1"),
    DECODE("16384", "512", "16", "F32", "1"),
    SCORES_DSA("1", "16384", "BF16", "causal"),
    SELECT("1", "16384", "512", "BF16"),
    LATENT("1", "16384", "512", "16", "BF16"),
    LATENT_DENSE("1", "16384", "16", "BF16"),
    SCORES_DSA("8", "16384", "F32", "causal"),
    TOPK("8", "16384", "512", "8"),
    SELECT("8", "16384", "512", "F32"),
    LATENT("8", "16384", "512", "16", "F32"),
};

/* ---- contexts longer than dense attention is made for ------------------------------------------------------------ */

static const bench_case gpu_long[] = {
    SCORES_DSA("1024", "131072", "BF16", "causal"),
    TOPK("512", "262144", "2048", "2"),
    TOPK("64", "1048576", "2048", "1"),
    TOPK("4096", "131072", "2048", "4"),
    SELECT("1024", "131072", "2048", "BF16"),
    SELECT("1024", "262144", "2048", "BF16"),
    LATENT("1024", "131072", "2048", "128", "BF16"),
    LATENT("1024", "262144", "2048", "128", "BF16"),
    LATENT_BACKWARD("1024", "131072", "2048", "128", "BF16"),
    LATENT_DENSE("1", "262144", "128", "BF16"),
    LATENT("1", "262144", "2048", "128", "BF16"),
};

static const bench_case cpu_long[] = {
    SCORES_DSA("16", "65536", "F32", "causal"),
    SCORES_DSA("16", "65536", "BF16", "causal"),
    TOPK("64", "65536", "2048", "4"),
    TOPK("4", "1048576", "2048", "1"),
    SELECT("16", "65536", "2048", "F32"),
    LATENT("16", "65536", "2048", "16", "F32"),
    LATENT("16", "65536", "2048", "16", "BF16"),
    LATENT_BACKWARD("16", "65536", "2048", "16", "F32"),
    LATENT_DENSE("1", "65536", "16", "F32"),
    LATENT("1", "65536", "2048", "16", "F32"),
};

#define PRESET(stem, name_, summary_, kind_, table)                                                                    \
    const bench_preset stem = {.name = name_, .summary = summary_, .kind = kind_, CASES(table)}

PRESET(bench_preset_prefill_gpu, "dsa-prefill", "many queries over up to 32K keys, forward and backward", BENCH_ON_GPU,
       gpu_prefill);
PRESET(bench_preset_prefill_cpu, "dsa-prefill", "many queries over up to 4K keys, forward and backward", BENCH_ON_CPU,
       cpu_prefill);
PRESET(bench_preset_decode_gpu, "dsa-decode", "one query over up to 128K keys", BENCH_ON_GPU, gpu_decode);
PRESET(bench_preset_decode_cpu, "dsa-decode", "one query over up to 16K keys", BENCH_ON_CPU, cpu_decode);
PRESET(bench_preset_long_gpu, "long-context", "128K to 1M keys", BENCH_ON_GPU, gpu_long);
PRESET(bench_preset_long_cpu, "long-context", "64K to 1M keys", BENCH_ON_CPU, cpu_long);
