/*
 * Every operation that a training step of the experiment's adaptive model calls, at its shapes: batch 8, width 256, 8
 * heads of 32, latent ranks 64, 4 experts of which each token takes 2, at S = 64, 128 and 256.
 *
 * N are the tokens, 8 S, and R = 2 N the rows of the experts. The gemms are the forward layers (nt), the gradients of
 * their inputs (nn) and of their weights (tn); those of one shape stand once.
 */
#include "bench/cases.h"
#include "bench/presets.h"

/* Matrix e of b (nn, nt) or c (tn) belongs to a quarter of the rows. */
#define EXPERTS(M, N, K, layout, shapes_, rows, small)                                                                 \
    {                                                                                                                  \
        .op = "gemm",                                                                                                  \
        .spec = {.dims = "M=" M " N=" N " K=" K " E=4",                                                                \
                 .params = "layout=" layout,                                                                           \
                 .give = "group_offsets",                                                                              \
                 .shapes = shapes_ "; group_offsets=E+1",                                                              \
                 .fill = "c=const nan; group_offsets=steps " rows,                                                     \
                 PERIOD},                                                                                              \
        .check_dims = small " E=4"                                                                                     \
    }
#define EXPERTS_NT(R, out, in) EXPERTS(R, out, in, "nt", "a=M K; b=E N K; c=M N", "M", "M=203 N=187 K=211")
#define EXPERTS_NN(R, out, in) EXPERTS(R, out, in, "nn", "a=M K; b=E K N; c=M N", "M", "M=203 N=187 K=211")
#define EXPERTS_TN(out, in, R) EXPERTS(out, in, R, "tn", "a=K M; b=K N; c=E M N", "K", "M=187 N=211 K=203")

/* Its few columns are what its kernel variant is for. */
#define ROUTER(N) GEMM_CHECKED(N, "4", "256", "nt", "M K", "N K", NULL, NULL, "M=203 N=4 K=211")
#define GEMMS(N)                                                                                                       \
    GEMM_NT(N, "144", "256"),                                         /* latents of queries and keys */                \
        GEMM_NT(N, "256", "64"), GEMM_NT(N, "384", "64"),             /* out of the latents */                         \
        GEMM_NT(N, "256", "256"),                                     /* output, and the indexer's queries and keys */ \
        ROUTER(N), GEMM_NT(N, "64", "256"), GEMM_NT(N, "512", "256"), /* controller: predictor, entropy */             \
        GEMM_CASE(N, "1000", "256", "nt", "M K", "N K", "bias", NULL), /* head */                                      \
        GEMM_NN(N, "256", "256"), GEMM_NN(N, "256", "1000"), GEMM_NN(N, "64", "384"), GEMM_NN(N, "256", "144"),        \
        GEMM_TN("256", "256", N), GEMM_TN("1000", "256", N), GEMM_TN("384", "64", N), GEMM_TN("144", "256", N)

#define MOE(N, R)                                                                                                      \
    PLAIN("moe_route", "N=" N " E=4 X=2 G=5", .params = "noise_std=0.1 seed=7"),                                       \
        PLAIN("moe_dispatch", "N=" N " X=2 D=256 R=" R, .fill = "position=permutation"), EXPERTS_NT(R, "1024", "256"), \
        PLAIN("activation", "N=" R " F=1024", .params = "activation=silu dropout_p=0.1 dropout_seed=5",                \
              .shapes = "x=N F; y=N F"),                                                                               \
        EXPERTS_NT(R, "256", "1024"),                                                                                  \
        PLAIN("moe_combine", "N=" N " X=2 D=256 R=" R, .fill = "position=permutation; weights=uniform 0.1 0.9"),       \
        PLAIN("moe_combine_backward", "N=" N " X=2 D=256 R=" R,                                                        \
              .fill = "position=permutation; weights=uniform 0.1 0.9"),                                                \
        EXPERTS_TN("256", "1024", R), EXPERTS_NN(R, "1024", "256"),                                                    \
        PLAIN("activation_backward", "N=" R " F=1024", .params = "activation=silu dropout_p=0.1 dropout_seed=5",       \
              .shapes = "x=N F; dy=N F; dx=N F"),                                                                      \
        EXPERTS_TN("1024", "256", R), EXPERTS_NN(R, "256", "1024"),                                                    \
        PLAIN("moe_route_backward", "N=" N " E=4 X=2", .fill = "experts=distinct E; weights=uniform 0.1 0.9"),         \
        PLAIN("moe_dispatch_backward", "N=" N " X=2 D=256 R=" R, .params = "accumulate=1",                             \
              .fill = "position=permutation")

#define NORMS(N)                                                                                                       \
    PLAIN("layer_norm", "R=" N " D=256", .give = "residual sum mean rstd"),                                            \
        PLAIN("layer_norm_backward", "R=" N " D=256", .give = "dresidual", .fill = "rstd=positive"),                   \
        PLAIN("rms_norm", "R=" N " X=144 D=64", .give = "rstd"), {                                                     \
        .op = "rms_norm_backward", .partial = "dx", .spec = {                                                          \
            .dims = "R=" N " X=144 D=64",                                                                              \
            .fill = "rstd=positive",                                                                                   \
            PERIOD                                                                                                     \
        }                                                                                                              \
    }

#define PACK_DIMS(S) "B=8 S=" S " H=8 P=32 W=48 V=32 A=144"
#define ATTEND(S, small)                                                                                               \
    PLAIN("mla_pack", PACK_DIMS(S), .params = "rope_dim=16 style=regroup"),                                            \
        PLAIN("rope", "B=8 S=" S " H=8 D=32", .params = "rope_dim=16 style=regroup"),                                  \
        ATTENTION_CASE("8", S, "8", "32", "dropout_p=0.1 dropout_seed=5", "", NULL, NULL, small),                      \
        ATTENTION_CASE("8", S, "8", "32", "dropout_p=0.1 dropout_seed=5", " mask", "mask=mask 0.5", "mask=U32",        \
                       small),                                                                                         \
        ATTENTION_BACKWARD_CASE("8", S, "8", "32", "dropout_p=0.1 dropout_seed=5", "", NULL, NULL, small),             \
        ATTENTION_BACKWARD_CASE("8", S, "8", "32", "dropout_p=0.1 dropout_seed=5", "mask", "mask=mask 0.5",            \
                                "mask=U32", small),                                                                    \
    {                                                                                                                  \
        .op = "mla_pack_backward", .partial = "dkv_a", .spec = {                                                       \
            .dims = PACK_DIMS(S),                                                                                      \
            .params = "rope_dim=16 style=regroup",                                                                     \
            PERIOD                                                                                                     \
        }                                                                                                              \
    }

#define CHOOSE(S, N, small)                                                                                            \
    SCORES_EXPERIMENT("8", S, small),                                                                                  \
        {.op = "indexer_scores_backward",                                                                              \
         .spec = {.dims = "B=8 S=" S " T=" S " H=4 Hk=4 D=64", .params = "relu_out=1", PERIOD},                        \
         .check_dims = "B=1 S=" small " T=" small " H=4 Hk=4 D=64"},                                                   \
        PLAIN("controller_moments", "B=8 S=" S " D=256", .fill = "h=normal"),                                          \
        PLAIN("controller_perplexity", "B=8 S=" S " D=256", .params = "eps=1e-5"),                                     \
        PLAIN("controller_entropy", "B=8 S=" S " W=512", .params = "num_heads=4 d_model=256"),                         \
        PLAIN("controller_k", "B=8 D=256 U=32 A=16", .params = "seq_len=" S " max_seq_len=2048 use=7",                 \
              .fill = "diversity=uniform 0.1 2; perplexity=uniform 0.1 2; variance=uniform 0.1 2; "                    \
                      "entropy=uniform 1 5; mix=uniform 0.2 0.8; length_w1=normal 0.1; length_w2=normal 0.3"),         \
        PLAIN("keep_rows", "B=8 S=" S, .params = "causal=1", .fill = "ratio=uniform 0.1 0.9"),                         \
        PLAIN("topk", "R=" N " T=" S " B=8", .give = "k_rows mask", .shapes = "k_rows=B", .dtypes = "mask=U32",        \
              .fill = "k_rows=whole 1 T-1")

#define ENDS(S, N)                                                                                                     \
    PLAIN("embedding", "B=8 S=" S " V=1000 D=256 P=2048", .give = "positions", .fill = "ids=whole 0 V-1"),             \
        PLAIN("cross_entropy", "N=" N " V=1000", .give = "row_correct dlogits", .params = "grad_scale=0.001",          \
              .fill = "labels=labels V"),                                                                              \
        PLAIN("column_sum", "R=" N " D=1000", .fill = "x=normal"), PLAIN("reduce", "N=" N, .params = "scale=0.001"),   \
        PLAIN("embedding_backward", "B=8 S=" S " V=1000 D=256 P=2048", .give = "dpositions",                           \
              .fill = "ids=whole 0 V-1")

#define LENGTH(S, N, R, small) ENDS(S, N), NORMS(N), ATTEND(S, small), CHOOSE(S, N, small), MOE(N, R), GEMMS(N)

static const bench_case cases[] = {
    LENGTH("64", "512", "1024", "64"),
    LENGTH("128", "1024", "2048", "100"),
    LENGTH("256", "2048", "4096", "100"),
    /* Once per step: the parameters that are trained. */
    {.op = "reduce", .spec = {.dims = "N=10534904", .params = "kind=sum_squares", PERIOD}, .check_dims = "N=270000"},
    {.op = "adamw", .spec = {.dims = "P=10534904", .fill = "v=uniform 0 1", PERIOD}, .check_dims = "P=5003"},
};

const bench_preset bench_preset_experiment = {
    .name = "experiment",
    .summary = "every operation of the experiment's training step, at S = 64, 128 and 256",
    CASES(cases)};
