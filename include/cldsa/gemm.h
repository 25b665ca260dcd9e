/*
 * Matrix products, row-major: C = activation(alpha * op(A) op(B) + beta * C + bias).
 *
 * Plain, batched, and grouped (one matrix B or C per expert over consecutive rows, whose limits the
 * device reads from a buffer). Accumulation is f32.
 */
#ifndef CLDSA_GEMM_H
#define CLDSA_GEMM_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cldsa_act { CLDSA_ACT_NONE = 0, CLDSA_ACT_RELU, CLDSA_ACT_SILU, CLDSA_ACT_SIGMOID } cldsa_act;

typedef enum cldsa_gemm_layout {
    CLDSA_GEMM_NN = 0, /* A [M,K], B [K,N] */
    CLDSA_GEMM_NT,     /* A [M,K], B [N,K]: y = x W^T, the linear layer */
    CLDSA_GEMM_TN      /* A [K,M], B [K,N]: the weight gradient */
} cldsa_gemm_layout;

/*
 * Shapes for NN (the other layouts as above), Z the batch; tensors of rank 2 have Z = 1:
 *   a [Z,M,K]  b [Z,K,N]  c [Z,M,N]  bias [N] (optional)  pre [Z,M,N] (optional)
 * A or B may have Z = 1 against a batched C: it is then shared by the batch.
 *
 * With group_offsets [E+1] (i32, ascending, first 0, read on the device; Z = 1 for all):
 *   NN, NT: rows group_offsets[e] .. group_offsets[e+1] of A [M,K] are multiplied with matrix e of
 *           b [E,K,N] (NT: [E,N,K]); rows at and above group_offsets[E] are left untouched.
 *   TN:     c [E,M,N], matrix e = A[rows of e]^T B[rows of e]; an empty group gives zeros (+ beta C).
 */
typedef struct cldsa_gemm_args {
    cldsa_tensor a, b; /* f32, f16 or bf16 */
    cldsa_tensor c;    /* f32; read only if beta != 0 */
    cldsa_tensor bias; /* f32 [N], optional */
    cldsa_tensor pre;  /* f32, shape, ldc and stride_c of c, optional: receives the value before the activation */
    cldsa_tensor group_offsets; /* i32 [E+1], optional */
    cldsa_gemm_layout layout;
    cldsa_act activation;
    float alpha; /* usually 1 */
    float beta;  /* 0 overwrites C without reading it; 1 accumulates */
    /* Elements between rows; 0 means dense (the last extent). At least the last extent otherwise. */
    int64_t lda, ldb, ldc;
    /* Elements between batch matrices; 0 means dense (rows x ld). */
    int64_t stride_a, stride_b, stride_c;
} cldsa_gemm_args;

CLDSA_API cldsa_status cldsa_gemm(cldsa_context *ctx, const cldsa_gemm_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_gemm_workspace(cldsa_context *ctx, const cldsa_gemm_args *args, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
