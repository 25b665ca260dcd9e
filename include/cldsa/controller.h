/*
 * The published sparsity controller: from hidden states to a number of keys per sequence, all on the device.
 *
 * The factors' definitions (experiment's publication): length sigmoid(MLP(mean over positions)); complexity
 * sigmoid(W [diversity, perplexity, variance] + b); entropy sigmoid(E) of an averaged attention distribution.
 */
#ifndef CLDSA_CONTROLLER_H
#define CLDSA_CONTROLLER_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Per sequence: mean over positions, and two variances (unbiased). S >= 2. */
typedef struct cldsa_controller_moments_args {
    cldsa_tensor h;         /* f32 [B,S,D] */
    cldsa_tensor mean;      /* out f32 [B,D] */
    cldsa_tensor diversity; /* out f32 [B]: mean over features of the variance over positions */
    cldsa_tensor variance;  /* out f32 [B]: variance over positions and features together */
} cldsa_controller_moments_args;

CLDSA_API cldsa_status cldsa_controller_moments(cldsa_context *ctx, const cldsa_controller_moments_args *args,
                                                const cldsa_call *call);
CLDSA_API cldsa_status cldsa_controller_moments_workspace(cldsa_context *ctx, const cldsa_controller_moments_args *args,
                                                          size_t *bytes);

/* perplexity[b] = mean over s < S-1 and d of (LN(pred[b,s,:]) - h[b,s+1,:])^2. */
typedef struct cldsa_controller_perplexity_args {
    cldsa_tensor pred;       /* f32 [B,S,D]: the predictor's output before its LayerNorm; row S-1 is not read */
    cldsa_tensor h;          /* f32 [B,S,D] */
    cldsa_tensor weight;     /* f32 [D] */
    cldsa_tensor bias;       /* f32 [D] */
    cldsa_tensor perplexity; /* out f32 [B] */
    float eps;
} cldsa_controller_perplexity_args;

CLDSA_API cldsa_status cldsa_controller_perplexity(cldsa_context *ctx, const cldsa_controller_perplexity_args *args,
                                                   const cldsa_call *call);
CLDSA_API cldsa_status cldsa_controller_perplexity_workspace(cldsa_context *ctx,
                                                             const cldsa_controller_perplexity_args *args,
                                                             size_t *bytes);

/*
 * p[b,j] = mean over heads and queries of softmax_j(q_i . k_j * (D/H)^-1/2); entropy[b] = -sum_j p_j' ln p_j' with
 * p' = p + 1e-8. qk holds the packed projection: row s is q (D) ++ k (D) (++ anything).
 */
typedef struct cldsa_controller_entropy_args {
    cldsa_tensor qk;      /* f32 [B,S,W], W >= 2*D */
    cldsa_tensor entropy; /* out f32 [B] */
    int num_heads;        /* divides D */
    int d_model;          /* D */
} cldsa_controller_entropy_args;

CLDSA_API cldsa_status cldsa_controller_entropy(cldsa_context *ctx, const cldsa_controller_entropy_args *args,
                                                const cldsa_call *call);
CLDSA_API cldsa_status cldsa_controller_entropy_workspace(cldsa_context *ctx, const cldsa_controller_entropy_args *args,
                                                          size_t *bytes);

/*
 * The three factors and k (one launch): the length MLP over mean, the complexity combiner, the entropy averaged over
 * the batch, then ratio = clamp(base * (wL fL g(S/2048) + wC fC + wE fE), 0.1, 0.9) with w divided by their sum, k =
 * clamp(round(S * ratio), 1, S-1). Rounding is to even on ties, as PyTorch's.
 */
typedef struct cldsa_controller_k_args {
    cldsa_tensor mean;                            /* f32 [B,D] */
    cldsa_tensor diversity, perplexity, variance; /* f32 [B] */
    cldsa_tensor entropy;                         /* f32 [B] */
    cldsa_tensor length_w1, length_b1;            /* f32 [32,D], [32] (32 is any width) */
    cldsa_tensor length_w2, length_b2;            /* f32 [1,32], [1] */
    cldsa_tensor combiner_w, combiner_b;          /* f32 [1,3], [1] */
    cldsa_tensor adapter_w1, adapter_b1;          /* f32 [16,1], [16] (16 is any width) */
    cldsa_tensor adapter_w2, adapter_b2;          /* f32 [1,16], [1] */
    cldsa_tensor mix;                             /* f32 [4]: base sparsity, length, complexity and entropy weight */
    cldsa_tensor factors;                         /* out f32 [B,3]: length, complexity, entropy factor */
    cldsa_tensor ratio;                           /* out f32 [B]: the keep-ratio before rounding */
    cldsa_tensor k;                               /* out i32 [B] */
    int seq_len;                                  /* S, at least 2 */
    int max_seq_len;                              /* 2048 in the publication */
    int use; /* bit 0 length, 1 complexity, 2 entropy: forms with fewer factors; 7 is the hybrid */
} cldsa_controller_k_args;

CLDSA_API cldsa_status cldsa_controller_k(cldsa_context *ctx, const cldsa_controller_k_args *args,
                                          const cldsa_call *call);
CLDSA_API cldsa_status cldsa_controller_k_workspace(cldsa_context *ctx, const cldsa_controller_k_args *args,
                                                    size_t *bytes);

/*
 * Keys kept per row from a keep-ratio per sequence: k_rows[b,i] = clamp(round(ratio[b] * visible), 1, visible), where
 * visible is i+1 (causal) or S.
 */
typedef struct cldsa_keep_rows_args {
    cldsa_tensor ratio;  /* f32 [B] */
    cldsa_tensor k_rows; /* out i32 [B,S] */
    bool causal;
} cldsa_keep_rows_args;

CLDSA_API cldsa_status cldsa_keep_rows(cldsa_context *ctx, const cldsa_keep_rows_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_keep_rows_workspace(cldsa_context *ctx, const cldsa_keep_rows_args *args, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
