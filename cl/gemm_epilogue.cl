// The end of a matrix product whose sums come from elsewhere: C = act(alpha * sum + beta * C + bias).
//
//   PARTS > 0: sum = the PARTS matrices [row][N] at `partial`, one after another, added in order (gemm_simt's split
//              reductions); PARTS 0: the value is in C already (CLBlast), and only bias and activation are left.
//
// One work-item per element; x = column, y = row of all matrices.
#include "gemm.clh"

#ifndef PARTS
#define PARTS 0 // partial sums per element
#endif

__kernel void gemm_epilogue(__global const float *partial_, ulong partial_off, __global float *c_, ulong c_off,
                            __global const float *bias_, ulong bias_off, __global float *pre_, ulong pre_off,
                            ulong rows, int M, int N, ulong ldc, ulong stride_c, float alpha, float beta)
{
    int j = get_global_id(0);
    ulong row = get_global_id(1);
    if (j >= N)
        return;
    ulong at = row / M * stride_c + row % M * ldc + j;
    float x;
#if PARTS > 0
    float sum = 0.0f;
    for (int part = 0; part < PARTS; ++part)
        sum += partial_[partial_off + (part * rows + row) * N + j];
    x = alpha * sum;
#if HAS_BETA
    x = fma(beta, c_[c_off + at], x);
#endif
#else
    x = c_[c_off + at];
#endif
#if HAS_BIAS
    x += bias_[bias_off + j];
#endif
#if HAS_PRE
    pre_[pre_off + at] = x;
#endif
    c_[c_off + at] = activate(x);
}
