// Matrix products with few rows or few columns for CPUs: C = act(alpha * A op(B) + beta * C + bias), plain or batched.
//
// The large operand is read once, where it lies, a row of it along the reduction; the small one's FEW rows or columns
// are copied, KC steps at a time. 16 sums at a time: RT rows of the large operand by ST of the small, each a vector
// over the reduction, whose lanes are added up at the end of a block.
//
//     N few, layouts NN and NT:   A is large,    C[l][s]
//     M few, layout NT:           B is large,    C[s][l]      (SWAPPED)
//
// Global size: x = blocks of ROWS rows of the large operand, y = matrices; local size 1.
#include "gemm.clh"
#include "rows_vec.clh"

#ifndef ROWS
#define ROWS 64 // rows of the large operand of a work-item, a multiple of 16 (16 .. 256)
#endif
#ifndef KC
#define KC 1024 // steps of the reduction per block, a multiple of 16 (256 .. 2048)
#endif
#ifndef FEW
#define FEW 1 // rows or columns of the small operand (1 .. 8)
#endif
#ifndef SWAPPED
#define SWAPPED 0 // 1: B is the large operand
#endif

#define ST (FEW < 3 ? FEW : 4)      // of the small operand at a time: those beyond FEW are zeros
#define RT (16 / ST)                // rows of the large operand at a time
#define RP (RT < 8 ? RT : 8)        // of them in the inner loop: more addresses than that do not fit the registers
#define PASSES ((FEW + ST - 1) / ST) // over a tile's rows
#define KV (KC / 16)

// Where in a vector of 16 sums stand row r and s of the small operand: so that they are side by side in C.
#define SUM_AT(r, s) (SWAPPED ? (s)*RT + (r) : (r)*ST + (s))

#if SWAPPED
#define X_DTYPE B_DTYPE
#define Y_DTYPE A_DTYPE
#else
#define X_DTYPE A_DTYPE
#define Y_DTYPE B_DTYPE
#endif

typedef __global const ELEM(X_DTYPE) *x_ptr;
typedef __global const ELEM(Y_DTYPE) *y_ptr;

// to[s][k] = the small operand's element (s, k) for kc steps, zeros up to a whole vector and from FEW on.
INLINE void copy_small(y_ptr y, ulong row, ulong step, int kc, float *to)
{
    for (int s = 0; s < PASSES * ST; ++s)
        for (int k = 0; k < (kc + 15) / 16 * 16; ++k)
            to[s * KC + k] = s < FEW && k < kc ? LOAD(Y_DTYPE, y, s * row + k * step) : 0.0f;
}

// `n` elements of a row, fewer than 16, and zeros.
INLINE float16 load_tail(x_ptr x, ulong at, int n)
{
    float part[16];
    for (int l = 0; l < 16; ++l)
        part[l] = l < n ? LOAD(X_DTYPE, x, at + l) : 0.0f;
    return vload16(0, part);
}

// 16 sums over kc steps: rows at `at` of x by ST rows of y. The next tile's rows, `ahead` elements on, are asked for.
INLINE float16 tile_dots(x_ptr x, const ulong *at, ulong ahead, const float16 *y, int kc)
{
    float16 sum[16];
#pragma unroll
    for (int i = 0; i < 16; ++i)
        sum[i] = (float16)(0.0f);
#pragma unroll
    for (int r0 = 0; r0 < RT; r0 += RP)
        for (int c = 0; c <= kc / 16; ++c) {
            const int left = kc - 16 * c;
            if (left == 0)
                break;
            float16 small[ST];
#pragma unroll
            for (int s = 0; s < ST; ++s)
                small[s] = y[s * KV + c];
#pragma unroll
            for (int r = r0; r < r0 + RP; ++r) {
                PREFETCH(x + at[r] + ahead + 16 * c);
                float16 row = left >= 16 ? LOAD16(X_DTYPE, x, at[r] + 16 * c) : load_tail(x, at[r] + 16 * c, left);
#pragma unroll
                for (int s = 0; s < ST; ++s)
                    sum[SUM_AT(r, s)] = fma(row, small[s], sum[SUM_AT(r, s)]);
            }
        }
    return lane_sums(sum);
}

// Stores a tile's sums for rows l .. l + RT and s .. s + ST, as far as they exist.
INLINE void finish(float16 sum, int l, int rows, int s0, __global float *c, __global float *pre,
                   __global const float *bias, ulong ldc, float alpha, float beta)
{
    float old[16], add[16], before[16], after[16];
#pragma unroll
    for (int i = 0; i < 16; ++i)
        old[i] = add[i] = 0.0f;
#pragma unroll
    for (int r = 0; r < RT; ++r)
#pragma unroll
        for (int s = 0; s < ST; ++s) {
            const int row = min(l + r, rows - 1), few = min(s0 + s, FEW - 1);
            if (HAS_BETA)
                old[SUM_AT(r, s)] = c[SWAPPED ? few * ldc + row : row * ldc + few];
            if (HAS_BIAS)
                add[SUM_AT(r, s)] = bias[SWAPPED ? row : few];
        }
    float16 x = sum * alpha;
    if (HAS_BETA)
        x = fma((float16)(beta), vload16(0, old), x);
    if (HAS_BIAS)
        x += vload16(0, add);
    vstore16(x, 0, before);
    vstore16(activate16(x), 0, after);
#pragma unroll
    for (int r = 0; r < RT; ++r)
#pragma unroll
        for (int s = 0; s < ST; ++s)
            if (l + r < rows && s0 + s < FEW) {
                const ulong at = SWAPPED ? (s0 + s) * ldc + l + r : (l + r) * ldc + s0 + s;
                if (HAS_PRE)
                    pre[at] = before[SUM_AT(r, s)];
                c[at] = after[SUM_AT(r, s)];
            }
}

__kernel void gemm_dot(__global const ELEM(A_DTYPE) *a_, ulong a_off, __global const ELEM(B_DTYPE) *b_, ulong b_off,
                       __global float *c_, ulong c_off, __global const float *bias_, ulong bias_off,
                       __global float *pre_, ulong pre_off, __global const int *offsets_, ulong offsets_off, int M,
                       int N, int K, ulong lda, ulong ldb, ulong ldc, ulong stride_a, ulong stride_b, ulong stride_c,
                       float alpha, float beta)
{
    const ulong z = get_global_id(1);
    __global const ELEM(A_DTYPE) *a = a_ + a_off + z * stride_a;
    __global const ELEM(B_DTYPE) *b = b_ + b_off + z * stride_b;
#if SWAPPED
    x_ptr x = b;
    y_ptr y = a;
    const ulong ldx = ldb, y_row = lda, y_step = 1;
    const int rows = N;
#else
    x_ptr x = a;
    y_ptr y = b;
    const ulong ldx = lda, y_row = LAYOUT == LAYOUT_NT ? ldb : 1, y_step = LAYOUT == LAYOUT_NT ? 1 : ldb;
    const int rows = M;
#endif
    const int first = get_global_id(0) * ROWS, last = min(first + ROWS, rows);

    float16 small[PASSES * ST * KV], sums[ROWS / RT * PASSES];
    for (int k0 = 0; k0 < K; k0 += KC) {
        const int kc = min(KC, K - k0);
        copy_small(y + k0 * y_step, y_row, y_step, kc, (float *)small);
        for (int l = first, n = 0; l < last; l += RT) {
            ulong at[RT];
            for (int r = 0; r < RT; ++r)
                at[r] = min(l + r, last - 1) * ldx + k0;
            for (int pass = 0; pass < PASSES; ++pass, ++n) {
                float16 sum = tile_dots(x, at, RT * ldx, small + pass * ST * KV, kc);
                sums[n] = k0 == 0 ? sum : sums[n] + sum;
            }
        }
    }
    for (int l = first, n = 0; l < last; l += RT)
        for (int pass = 0; pass < PASSES; ++pass, ++n)
            finish(sums[n], l, last, pass * ST, c_ + c_off + z * stride_c, pre_ + (HAS_PRE ? pre_off + z * stride_c : 0),
                   bias_ + (HAS_BIAS ? bias_off : 0), ldc, alpha, beta);
}
