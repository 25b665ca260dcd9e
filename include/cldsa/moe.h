/*
 * Mixture of experts: routing, and moving tokens to their experts and back. The experts' products are cldsa_gemm
 * with group_offsets, so each token is multiplied by its own experts only.
 *
 * Names: N tokens, E experts, X experts per token (top_k), R = N*X rows sorted by expert, ties by token.
 */
#ifndef CLDSA_MOE_H
#define CLDSA_MOE_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The X largest logits per token (ties to the lowest expert) and softmax weights over those.
 * With noise_std > 0, N(0, noise_std^2) from the counter-based generator is added to the logits first.
 */
typedef struct cldsa_moe_route_args {
    cldsa_tensor logits;        /* f32 [N,E], E <= 256 */
    cldsa_tensor experts;       /* out i32 [N,X], descending logit */
    cldsa_tensor weights;       /* out f32 [N,X], each row sums to 1 */
    cldsa_tensor group_offsets; /* out i32 [E+1]: rows of expert e in sorted order */
    cldsa_tensor position;      /* out i32 [N,X]: the sorted row of each (token, choice) */
    float noise_std;
    uint64_t seed;
    uint32_t stream;
} cldsa_moe_route_args;

CLDSA_API cldsa_status cldsa_moe_route(cldsa_context *ctx, const cldsa_moe_route_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_moe_route_workspace(cldsa_context *ctx, const cldsa_moe_route_args *args, size_t *bytes);

typedef struct cldsa_moe_route_backward_args {
    cldsa_tensor experts;  /* i32 [N,X] */
    cldsa_tensor weights;  /* f32 [N,X] */
    cldsa_tensor dweights; /* f32 [N,X] */
    cldsa_tensor dlogits;  /* out f32 [N,E]; zero for experts not chosen */
} cldsa_moe_route_backward_args;

CLDSA_API cldsa_status cldsa_moe_route_backward(cldsa_context *ctx, const cldsa_moe_route_backward_args *args,
                                                const cldsa_call *call);
CLDSA_API cldsa_status cldsa_moe_route_backward_workspace(cldsa_context *ctx, const cldsa_moe_route_backward_args *args,
                                                          size_t *bytes);

/* rows[position[n,x],:] = x[n,:] */
typedef struct cldsa_moe_dispatch_args {
    cldsa_tensor x;        /* f32 [N,D] */
    cldsa_tensor position; /* i32 [N,X], each of 0 .. R-1 once */
    cldsa_tensor rows;     /* out f32 [R,D] */
} cldsa_moe_dispatch_args;

CLDSA_API cldsa_status cldsa_moe_dispatch(cldsa_context *ctx, const cldsa_moe_dispatch_args *args,
                                          const cldsa_call *call);
CLDSA_API cldsa_status cldsa_moe_dispatch_workspace(cldsa_context *ctx, const cldsa_moe_dispatch_args *args,
                                                    size_t *bytes);

/* dx[n,:] = sum_x drows[position[n,x],:] (+ dx if accumulate) */
typedef struct cldsa_moe_dispatch_backward_args {
    cldsa_tensor drows;    /* f32 [R,D] */
    cldsa_tensor position; /* i32 [N,X] */
    cldsa_tensor dx;       /* out f32 [N,D] */
    bool accumulate;
} cldsa_moe_dispatch_backward_args;

CLDSA_API cldsa_status cldsa_moe_dispatch_backward(cldsa_context *ctx, const cldsa_moe_dispatch_backward_args *args,
                                                   const cldsa_call *call);
CLDSA_API cldsa_status cldsa_moe_dispatch_backward_workspace(cldsa_context *ctx,
                                                             const cldsa_moe_dispatch_backward_args *args,
                                                             size_t *bytes);

/* out[n,:] = sum_x weights[n,x] * rows[position[n,x],:] */
typedef struct cldsa_moe_combine_args {
    cldsa_tensor rows;     /* f32 [R,D] */
    cldsa_tensor position; /* i32 [N,X] */
    cldsa_tensor weights;  /* f32 [N,X] */
    cldsa_tensor out;      /* out f32 [N,D] */
} cldsa_moe_combine_args;

CLDSA_API cldsa_status cldsa_moe_combine(cldsa_context *ctx, const cldsa_moe_combine_args *args,
                                         const cldsa_call *call);
CLDSA_API cldsa_status cldsa_moe_combine_workspace(cldsa_context *ctx, const cldsa_moe_combine_args *args,
                                                   size_t *bytes);

typedef struct cldsa_moe_combine_backward_args {
    cldsa_tensor rows, position, weights; /* as given to the forward call */
    cldsa_tensor dout;                    /* f32 [N,D] */
    cldsa_tensor drows;                   /* out f32 [R,D] */
    cldsa_tensor dweights;                /* out f32 [N,X] */
} cldsa_moe_combine_backward_args;

CLDSA_API cldsa_status cldsa_moe_combine_backward(cldsa_context *ctx, const cldsa_moe_combine_backward_args *args,
                                                  const cldsa_call *call);
CLDSA_API cldsa_status cldsa_moe_combine_backward_workspace(cldsa_context *ctx,
                                                            const cldsa_moe_combine_backward_args *args, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
