// Matrix products with few rows for GPUs, layout NT: C = act(alpha * A B^T + beta * C + bias), plain or batched.
//
// The memory's speed bounds them: every element of B is read once, by neighbouring work-items side by side. A work-group
// owns ROWS x COLUMNS elements of C and cuts the reduction among its work-items, four steps at a time; their sums meet
// in local memory and are added in order. Groups: x = COLUMNS columns, y = ROWS rows, z = matrix.
#include "gemm.clh"
#include "registers.clh"

#ifndef WG
#define WG 64 // work-items of a group (32, 64, 128)
#endif
#ifndef COLUMNS
#define COLUMNS 4 // columns of a group (1, 2, 4, 8)
#endif
#ifndef ROWS
#define ROWS 1 // rows of a group (1, 2, 4, 8, 16)
#endif
#ifndef A_VEC
#define A_VEC 0 // 1: rows of A begin on 4 elements, and K is a multiple of 4
#endif
#ifndef B_VEC
#define B_VEC 0 // 1: so do those of B
#endif

#define SUMS (ROWS * COLUMNS)
#define PITCH (WG + 1) // work-items that add neighbouring sums use different banks

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
gemm_thin(__global const ELEM(A_DTYPE) *a_, ulong a_off, __global const ELEM(B_DTYPE) *b_, ulong b_off,
          __global float *c_, ulong c_off, __global const float *bias_, ulong bias_off, __global float *pre_,
          ulong pre_off, __global const int *offsets_, ulong offsets_off, int M, int N, int K, ulong lda, ulong ldb,
          ulong ldc, ulong stride_a, ulong stride_b, ulong stride_c, float alpha, float beta)
{
    __local float all[SUMS * PITCH];
    const int item = get_local_id(0), column0 = get_group_id(0) * COLUMNS, row0 = get_group_id(1) * ROWS;
    const ulong matrix = get_group_id(2);
    __global const ELEM(A_DTYPE) *a = a_ + a_off + matrix * stride_a;
    __global const ELEM(B_DTYPE) *b = b_ + b_off + matrix * stride_b;

    // Rows and columns that do not exist repeat the last one; their sums go nowhere.
    float sum[ROWS][COLUMNS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
            sum[r][c] = 0.0f;
    for (int k = item * 4; k < K; k += WG * 4) {
        float4 y[COLUMNS];
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
            y[c] = LOAD4_WITHIN(B_DTYPE, B_VEC, K, b, min(column0 + c, N - 1) * ldb, k);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float4 x = LOAD4_WITHIN(A_DTYPE, A_VEC, K, a, min(row0 + r, M - 1) * lda, k);
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c)
                sum[r][c] = fma(x.x, y[c].x, fma(x.y, y[c].y, fma(x.z, y[c].z, fma(x.w, y[c].w, sum[r][c]))));
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
            all[(r * COLUMNS + c) * PITCH + item] = sum[r][c];
    barrier(CLK_LOCAL_MEM_FENCE);

    for (int e = item; e < SUMS; e += WG) {
        const int row = row0 + e / COLUMNS, column = column0 + e % COLUMNS;
        if (row >= M || column >= N)
            continue;
        float x = 0.0f;
        for (int i = 0; i < WG; ++i)
            x += all[e * PITCH + i];
        const ulong at = matrix * stride_c + row * ldc + column;
        x *= alpha;
#if HAS_BETA
        x = fma(beta, c_[c_off + at], x);
#endif
#if HAS_BIAS
        x += bias_[bias_off + column];
#endif
#if HAS_PRE
        pre_[pre_off + at] = x;
#endif
        c_[c_off + at] = activate(x);
    }
}
