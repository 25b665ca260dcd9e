/* Words for presets: cases of the operations that several presets measure. */
#ifndef CLDSA_BENCH_CASES_H
#define CLDSA_BENCH_CASES_H

#include "bench/bench.h"

/* Inputs repeat after about this many elements: the values do not matter to speed, and drawing them takes time. */
#define PERIOD .period = 1 << 20

#define PLAIN(op_, dims_, ...)                                                                                         \
    {                                                                                                                  \
        .op = op_, .spec = {.dims = dims_, PERIOD, __VA_ARGS__ }                                                       \
    }

/* What lies in C beforehand must not matter: beta is 0. */
#define GEMM_CHECKED(M, N, K, layout, a_shape, b_shape, give_, dtypes_, small)                                         \
    {                                                                                                                  \
        .op = "gemm",                                                                                                  \
        .spec = {.dims = "M=" M " N=" N " K=" K,                                                                       \
                 .params = "layout=" layout,                                                                           \
                 .give = give_,                                                                                        \
                 .dtypes = dtypes_,                                                                                    \
                 .shapes = "a=" a_shape "; b=" b_shape "; c=M N",                                                      \
                 .fill = "c=const nan",                                                                                \
                 PERIOD},                                                                                              \
        .check_dims = small                                                                                            \
    }
#define GEMM_CASE(M, N, K, layout, a_shape, b_shape, give, dtypes)                                                     \
    GEMM_CHECKED(M, N, K, layout, a_shape, b_shape, give, dtypes, "M=203 N=187 K=211")
#define GEMM_NN(M, N, K) GEMM_CASE(M, N, K, "nn", "M K", "K N", NULL, NULL)
#define GEMM_NT(M, N, K) GEMM_CASE(M, N, K, "nt", "M K", "N K", NULL, NULL)
#define GEMM_TN(M, N, K) GEMM_CASE(M, N, K, "tn", "K M", "K N", NULL, NULL)

/*
 * DSA's form: one key head, a weight per query. The weights are positive: a sum of 64 heads that cancel has no
 * meaningful relative error.
 */
#define SCORES_DSA(S, T, dtype, range_)                                                                                \
    {                                                                                                                  \
        .op = "indexer_scores",                                                                                        \
        .spec = {.dims = "B=1 S=" S " T=" T " H=64 Hk=1 D=128",                                                        \
                 .params = "range=" range_,                                                                            \
                 .shapes = "w=B S H",                                                                                  \
                 .dtypes = "q=" dtype " k=" dtype,                                                                     \
                 .fill = "w=positive",                                                                                 \
                 PERIOD},                                                                                              \
        .check_dims = "B=1 S=37 T=133 H=64 Hk=1 D=128"                                                                 \
    }
#define SCORES_DSA_BACKWARD(S, T, dtype)                                                                               \
    {                                                                                                                  \
        .op = "indexer_scores_backward",                                                                               \
        .spec = {.dims = "B=1 S=" S " T=" T " H=64 Hk=1 D=128",                                                        \
                 .params = "range=causal",                                                                             \
                 .shapes = "w=B S H; dw=B S H",                                                                        \
                 .dtypes = "q=" dtype " k=" dtype,                                                                     \
                 PERIOD},                                                                                              \
        .check_dims = "B=1 S=37 T=133 H=64 Hk=1 D=128"                                                                 \
    }
/*
 * Its training: weights as they are in the model, H^-1/2 D^-1/2, so that the softmax is no choice of one key; a target
 * that does not care about them. `more`: the dtype of the selected keys, where they are given.
 */
#define KL_DIMS(S, T) "B=1 S=" S " T=" T " H=64 Hk=1 D=128"
#define KL_FILL       "w=normal 0.011; p=uniform 0 0.01; selected=mask 0.5"
#define KL(S, T, dtype, give_, more)                                                                                   \
    {                                                                                                                  \
        .op = "indexer_kl",                                                                                            \
        .spec = {.dims = KL_DIMS(S, T),                                                                                \
                 .params = "range=causal",                                                                             \
                 .give = give_,                                                                                        \
                 .shapes = "w=B S H",                                                                                  \
                 .dtypes = "q=" dtype " k=" dtype more,                                                                \
                 .fill = KL_FILL,                                                                                      \
                 PERIOD},                                                                                              \
        .check_dims = KL_DIMS("37", "133")                                                                             \
    }
#define KL_BACKWARD(S, T, dtype, give_, more)                                                                          \
    {                                                                                                                  \
        .op = "indexer_kl_backward",                                                                                   \
        .spec = {.dims = KL_DIMS(S, T),                                                                                \
                 .params = "range=causal",                                                                             \
                 .give = give_,                                                                                        \
                 .shapes = "w=B S H; dw=B S H",                                                                        \
                 .dtypes = "q=" dtype " k=" dtype more,                                                                \
                 .fill = KL_FILL,                                                                                      \
                 PERIOD},                                                                                              \
        .check_dims = KL_DIMS("37", "133")                                                                             \
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

#define SELECT(S, T, k, dtype)                                                                                         \
    {                                                                                                                  \
        .op = "select",                                                                                                \
        .spec = {.dims = "B=1 S=" S " T=" T " H=64 Hk=1 D=128 K=" k,                                                   \
                 .params = "range=causal k_max=" k,                                                                    \
                 .shapes = "w=B S H",                                                                                  \
                 .dtypes = "q=" dtype " k=" dtype,                                                                     \
                 PERIOD},                                                                                              \
        .check_dims = "B=1 S=9 T=3000 H=64 Hk=1 D=128 K=" k                                                            \
    }

#define ATTENTION_DIMS(B, S, H, D) "B=" B " S=" S " T=" S " H=" H " Hk=" H " D=" D " Dv=" D
#define ATTENTION_CASE(B, S, H, D, params_, give_, fill_, dtypes_, small)                                              \
    {                                                                                                                  \
        .op = "masked_attention",                                                                                      \
        .spec = {.dims = ATTENTION_DIMS(B, S, H, D),                                                                   \
                 .params = params_,                                                                                    \
                 .give = "lse" give_,                                                                                  \
                 .fill = fill_,                                                                                        \
                 .dtypes = dtypes_,                                                                                    \
                 PERIOD},                                                                                              \
        .check_dims = ATTENTION_DIMS("1", small, H, D)                                                                 \
    }
#define ATTENTION(B, S, H, D, give_, fill_, small) ATTENTION_CASE(B, S, H, D, NULL, give_, fill_, NULL, small)
#define ATTENTION_BACKWARD_CASE(B, S, H, D, params_, give_, fill_, dtypes_, small)                                     \
    {                                                                                                                  \
        .op = "masked_attention_backward", .forward = "masked_attention",                                              \
        .spec = {.dims = ATTENTION_DIMS(B, S, H, D),                                                                   \
                 .params = params_,                                                                                    \
                 .give = give_,                                                                                        \
                 .fill = fill_,                                                                                        \
                 .dtypes = dtypes_,                                                                                    \
                 PERIOD},                                                                                              \
        .check_dims = ATTENTION_DIMS("1", small, "2", D)                                                               \
    }
#define ATTENTION_BACKWARD(B, S, H, D, give_, fill_, small)                                                            \
    ATTENTION_BACKWARD_CASE(B, S, H, D, NULL, give_, fill_, NULL, small)

/* Keys and values apart. */
#define SPARSE_DIMS(S, T, K, H, Hk, D) "B=1 S=" S " T=" T " K=" K " H=" H " Hk=" Hk " D=" D " Dv=" D
#define SPARSE(S, T, K, H, Hk, D)                                                                                      \
    {                                                                                                                  \
        .op = "sparse_attention",                                                                                      \
        .spec = {.dims = SPARSE_DIMS(S, T, K, H, Hk, D), .give = "v lse", .fill = "indices=distinct T", PERIOD},       \
        .check_dims = SPARSE_DIMS("33", "300", "70", H, Hk, D)                                                         \
    }
#define SPARSE_BACKWARD(S, T, K, H, Hk, D)                                                                             \
    {                                                                                                                  \
        .op = "sparse_attention_backward", .forward = "sparse_attention",                                              \
        .spec = {.dims = SPARSE_DIMS(S, T, K, H, Hk, D), .give = "v dv", .fill = "indices=distinct T", PERIOD},        \
        .check_dims = SPARSE_DIMS("33", "300", "70", H, Hk, D)                                                         \
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
/* The same without selection. */
#define LATENT_DENSE(S, T, H, dtype)                                                                                   \
    {                                                                                                                  \
        .op = "masked_attention",                                                                                      \
        .spec = {.dims = "B=1 S=" S " T=" T " H=" H " Hk=1 D=576 Dv=512",                                              \
                 .params = "range=causal",                                                                             \
                 .give = "lse",                                                                                        \
                 .dtypes = "q=" dtype " k=" dtype " v=" dtype,                                                         \
                 PERIOD},                                                                                              \
        .check_dims = "B=1 S=5 T=300 H=" H " Hk=1 D=576 Dv=512"                                                        \
    }

/* A table and its length, for bench_preset. */
#define CASES(array) .cases = array, .count = sizeof(array) / sizeof *(array)

#endif
