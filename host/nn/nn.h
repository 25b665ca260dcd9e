/*
 * What all parts of the model share: the environment of a step, memory placement, and the way operations are called.
 *
 * A step is written once, as straight calls. Walked with `planning` set it enqueues nothing and only learns how much
 * workspace its operations want; so the one shared workspace is right by construction, whatever a layer does.
 */
#ifndef CLDSA_NN_H
#define CLDSA_NN_H

#include "host/nn/config.h"
#include "host/nn/params.h"
#include "host/runtime/runtime.h"

#include <cldsa/cldsa.h>

/* A bump allocator over one cl_mem. With mem NULL it only measures. Places are multiples of 256 bytes. */
typedef struct cldsa_arena {
    cl_mem mem;
    size_t used, peak; /* bytes; setting `used` back releases what was placed since */
} cldsa_arena;

cldsa_tensor cldsa_arena_place(cldsa_arena *arena, cldsa_dtype dtype, int rank, const int64_t *shape);
#define CLDSA_PLACE(arena, dtype, ...)                                                                                 \
    cldsa_arena_place((arena), (dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                     \
                      (const int64_t[]){__VA_ARGS__})

/* One batch shape's environment; layers read it and never keep it. */
typedef struct cldsa_nn {
    cldsa_context *ctx;
    const cldsa_config *config;
    const cldsa_params *params;
    cldsa_call call;        /* queue and workspace for every operation */
    int64_t batch, seq_len; /* B, S */
    int64_t tokens;         /* N = B*S */
    bool training;          /* dropout and router noise on; activations kept for the backward pass */
    bool capture;           /* keep scores, logits and layer outputs for reading back */
    uint64_t seed;          /* of this step's dropout and noise */
    bool planning;
    size_t workspace_needed; /* bytes, the largest want seen while planning */
} cldsa_nn;

/* Calls cldsa_STEM with the named arguments, e.g. CLDSA_NN_OP(nn, gemm, .a = x, .b = w, ...); returns on failure. */
#define CLDSA_NN_OP(nn, stem, ...)                                                                                     \
    do {                                                                                                               \
        const cldsa_##stem##_args op_args_ = {__VA_ARGS__};                                                            \
        if ((nn)->planning) {                                                                                          \
            size_t op_bytes_ = 0;                                                                                      \
            CLDSA_TRY(cldsa_##stem##_workspace((nn)->ctx, &op_args_, &op_bytes_));                                     \
            if (op_bytes_ > (nn)->workspace_needed)                                                                    \
                (nn)->workspace_needed = op_bytes_;                                                                    \
        } else {                                                                                                       \
            CLDSA_TRY(cldsa_##stem((nn)->ctx, &op_args_, &(nn)->call));                                                \
        }                                                                                                              \
    } while (0)

/* y = x W^T (+ bias), W [out,in]; and its two gradients: dx = dy W (+ dx if beta 1), dW = dy^T x. */
cldsa_status cldsa_linear(cldsa_nn *nn, cldsa_tensor x, cldsa_tensor weight, cldsa_tensor bias, cldsa_act activation,
                          cldsa_tensor y);
cldsa_status cldsa_linear_backward(cldsa_nn *nn, cldsa_tensor x, cldsa_tensor weight, cldsa_tensor dy, float beta,
                                   cldsa_tensor dx, cldsa_tensor dweight);

/* A view of the same elements with another shape of rank 2. */
cldsa_tensor cldsa_as_matrix(cldsa_tensor tensor, int64_t rows, int64_t columns);
cldsa_tensor cldsa_as_rank3(cldsa_tensor tensor, int64_t a, int64_t b, int64_t c);
cldsa_tensor cldsa_as_rank4(cldsa_tensor tensor, int64_t a, int64_t b, int64_t c, int64_t d);

/* Streams of the counter-based generator within a step: one per layer and place, so no two draws coincide. */
typedef enum cldsa_draw { CLDSA_DRAW_ATTENTION, CLDSA_DRAW_ROUTER, CLDSA_DRAW_EXPERTS, CLDSA_DRAW_COUNT } cldsa_draw;
static inline uint32_t cldsa_draw_stream(int layer, cldsa_draw draw) {
    return (uint32_t)layer * CLDSA_DRAW_COUNT + (uint32_t)draw;
}

#endif
