/* Between the files of the operation gemm: one problem with every default resolved. */
#ifndef CLDSA_OPS_GEMM_H
#define CLDSA_OPS_GEMM_H

#include <cldsa/gemm.h>

#include "host/ops/op.h"

enum { GEMM_Z, GEMM_M, GEMM_N, GEMM_K, GEMM_E }; /* dims; E is 0 without group_offsets */

typedef struct gemm_problem {
    const cldsa_gemm_args *args;
    bool grouped, has_bias, has_pre;
    int64_t z, m, n, k;
    int64_t matrices; /* of C, or of B where rows are grouped: Z or E */
    int64_t lda, ldb, ldc, stride_a, stride_b, stride_c;
} gemm_problem;

gemm_problem gemm_resolve(const cldsa_run *run);

/* The -D flags of cl/gemm.clh (after the tunables), then the printf-style rest. */
void gemm_options(const cldsa_run *run, const gemm_problem *p, bool epilogue, char *options, const char *rest);

/* The arguments that every gemm kernel begins with: A, B, C, bias, pre, offsets, M, N, K, leading extents, strides. */
#define GEMM_KERNEL_ARGS(p)                                                                                            \
    CLDSA_ARG_TENSOR((p).args->a), CLDSA_ARG_TENSOR((p).args->b), CLDSA_ARG_TENSOR((p).args->c),                       \
        CLDSA_ARG_TENSOR((p).args->bias), CLDSA_ARG_TENSOR((p).args->pre), CLDSA_ARG_TENSOR((p).args->group_offsets),  \
        CLDSA_ARG_I32((p).m), CLDSA_ARG_I32((p).n), CLDSA_ARG_I32((p).k), CLDSA_ARG_U64((p).lda),                      \
        CLDSA_ARG_U64((p).ldb), CLDSA_ARG_U64((p).ldc), CLDSA_ARG_U64((p).stride_a), CLDSA_ARG_U64((p).stride_b),      \
        CLDSA_ARG_U64((p).stride_c)

/*
 * cl/gemm_epilogue.cl over all of C: C = act(alpha * (sum of `parts` matrices of [matrices,M,N] at `partial`) + beta *
 * C
 * + bias), the parts added in order; with `parts` 0, C = act(C + bias).
 */
cldsa_status gemm_enqueue_epilogue(cldsa_run *run, const gemm_problem *p, cldsa_tensor partial, int parts);

extern const cldsa_variant gemm_vec, gemm_dot, gemm_simt, gemm_thin, gemm_clblast;

#endif
