// Matrix products for CPUs: C = act(alpha * op(A) op(B) + beta * C + bias), plain, batched and grouped.
//
// One work-item owns a block of C: some rows of one matrix by `nb` columns. Per KC steps of the reduction it copies its
// part of B into panels of 16*NV columns (transposing for NT), then walks down its rows, MR at a time:
//
//              nb                    A's MR rows are copied too: with a constant row stride the inner loop addresses
//          +---+---+---+  panels     them by displacement, and a leading dimension that is a power of two cannot
//       KC |   |   |   |  [k][16*NV] crowd them into one cache set.
//          +---+---+---+
//     KC                             The inner loop is MR broadcasts and MR*NV fused multiply-adds on registers per k.
//   MR +--+ +---+---+---+            With 12 x 32 and AVX-512: 24 accumulators, 2 of B, 1 of A, of 32 registers.
//      |  | | C |   |   |
//      +--+ +---+---+---+            Sums of earlier KC blocks wait in C itself.
//
// No workspace and one launch (a launch costs a CPU about as much as a million multiply-adds). What is copied lies in
// private memory: on a CPU that is the thread's stack, at the same hot addresses for every work-item.
//
// Global size: x = matrices * splits (row blocks), y = column blocks; local size 1. Matrices run fastest: threads that
// take consecutive work-groups share out the columns, then the splits, and unequal groups do not unbalance them.
#include "gemm.clh"
#include "vec_tile.clh"

#ifndef MR
#define MR 12 // rows of a register tile (6 .. 14 with 32 vector registers, 6 with 16)
#endif
#ifndef NV
#define NV 2 // vectors of 16 columns of a register tile (1, 2)
#endif
#ifndef KC
#define KC 256 // steps of the reduction per block, a multiple of 16 (a panel is KC * NV * 64 bytes: about the L1 cache)
#endif
#ifndef AT
#define AT 1 // register tiles of rows that are copied together (TN 4, otherwise 1)
#endif
#ifndef NB
#define NB 512 // most columns per work-item, a multiple of 16 * NV
#endif

#ifndef PREFETCH
#define PREFETCH 0 // 1: the lines of C and pre are asked for while their sums are formed (2 to 4 %)
#endif

#define NR (16 * NV)

// A's copy: AT tiles, NN and NT [MR][KC], TN [KC][MR] and room for what the last vector store reaches beyond.
#if LAYOUT == LAYOUT_TN
#define A_AT(i, k) ((k) * MR + (i))
#else
#define A_AT(i, k) ((i) * KC + (k))
#endif
#define A_TILE (MR * KC + 16)

// Clang's builtin, since PoCL's prefetch() does nothing; translators to SPIR-V do not know it. The same for the next rows of
// A or B gained nothing.
#if PREFETCH && defined(__clang__) && (defined(__x86_64__) || defined(__aarch64__))
#define PREFETCH_TO_WRITE(p) __builtin_prefetch((const void *)(size_t)(p), 1)
#else
#define PREFETCH_TO_WRITE(p) (void)0
#endif

typedef __global const ELEM(A_DTYPE) *a_ptr;
typedef __global const ELEM(B_DTYPE) *b_ptr;

// One block of the reduction on a register tile: out[i][v] = sum over k of A(i, k) * panel[k][v].
#define DEFINE_TILE(name, rows, vectors)                                                                               \
    inline void name(const float *a, const float *panel, int kc, float *out)                                           \
    {                                                                                                                  \
        float16 sum[rows][vectors];                                                                                    \
        _Pragma("unroll") for (int i = 0; i < rows; ++i)                                                               \
            _Pragma("unroll") for (int v = 0; v < vectors; ++v) sum[i][v] = (float16)(0.0f);                           \
        for (int k = 0; k < kc; ++k)                                                                                   \
        {                                                                                                              \
            float16 b[vectors];                                                                                        \
            _Pragma("unroll") for (int v = 0; v < vectors; ++v) b[v] = vload16(v, panel + k * NR);                     \
            _Pragma("unroll") for (int i = 0; i < rows; ++i)                                                           \
            {                                                                                                          \
                float16 x = (float16)(a[A_AT(i, k)]);                                                                  \
                _Pragma("unroll") for (int v = 0; v < vectors; ++v) sum[i][v] = fma(x, b[v], sum[i][v]);               \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("unroll") for (int i = 0; i < rows; ++i)                                                               \
            _Pragma("unroll") for (int v = 0; v < vectors; ++v) vstore16(sum[i][v], v, out + i * NR);                  \
    }
// The last rows of a block, and a last panel of 16 columns or fewer, take the smallest tile that holds them.
#define TWO_THIRDS (MR * 2 / 3)
#define THIRD (MR / 3)
DEFINE_TILE(multiply_whole, MR, NV)
DEFINE_TILE(multiply_two_thirds, TWO_THIRDS, NV)
DEFINE_TILE(multiply_third, THIRD, NV)
#if NV > 1
DEFINE_TILE(multiply_whole_narrow, MR, 1)
DEFINE_TILE(multiply_two_thirds_narrow, TWO_THIRDS, 1)
DEFINE_TILE(multiply_third_narrow, THIRD, 1)
#endif

inline void multiply(const float *a, const float *panel, int rows, int columns, int kc, float *out)
{
#if NV > 1
    if (columns <= 16) {
        if (rows > TWO_THIRDS)
            multiply_whole_narrow(a, panel, kc, out);
        else if (rows > THIRD)
            multiply_two_thirds_narrow(a, panel, kc, out);
        else
            multiply_third_narrow(a, panel, kc, out);
        return;
    }
#endif
    if (rows > TWO_THIRDS)
        multiply_whole(a, panel, kc, out);
    else if (rows > THIRD)
        multiply_two_thirds(a, panel, kc, out);
    else
        multiply_third(a, panel, kc, out);
}

// `rows` rows of A from a (element 0 is A(row, k0)) into the copy, AT tiles at most. The last tile's missing rows repeat
// the last row: their sums are never stored. `inside` rows of A are there from a.
inline void copy_a(a_ptr a, ulong lda, int rows, int inside, int kc, float *to)
{
#if LAYOUT == LAYOUT_TN
    // Every row of A [K,M] is a page of its own where M is large: all tiles take theirs while it is there. A vector's
    // lanes beyond the tile are overwritten by the next step.
    for (int k = 0; k < kc; ++k)
        for (int i = 0, t = 0; i < rows; i += MR, ++t) {
            float *tile = to + t * A_TILE + k * MR;
            if (inside - i >= 16)
                vstore16(LOAD16(A_DTYPE, a, k * lda + i), 0, tile);
            else
                for (int l = 0; l < MR; ++l)
                    tile[l] = LOAD(A_DTYPE, a, k * lda + min(i + l, rows - 1));
        }
#else
    for (int i = 0; i < (rows + MR - 1) / MR * MR; ++i) {
        a_ptr row = a + min(i, rows - 1) * lda;
        float *line = to + i / MR * A_TILE + i % MR * KC;
        int k = 0;
        for (; k + 16 <= kc; k += 16)
            vstore16(LOAD16(A_DTYPE, row, k), 0, line + k);
        for (; k < kc; ++k)
            line[k] = LOAD(A_DTYPE, row, k);
    }
#endif
}

#if LAYOUT == LAYOUT_NT
// Columns j .. j+16 of a panel from 16 rows of B, by transposing 16 x 16.
inline void transpose_b16(b_ptr b, ulong ldb, int kc, float *to)
{
    int k = 0;
    for (; k + 16 <= kc; k += 16) {
        float16 x[16];
#pragma unroll
        for (int j = 0; j < 16; ++j)
            x[j] = LOAD16(B_DTYPE, b, j * ldb + k);
        transpose16(x);
#pragma unroll
        for (int j = 0; j < 16; ++j)
            vstore16(x[j], 0, to + (k + j) * NR);
    }
    for (; k < kc; ++k)
        for (int j = 0; j < 16; ++j)
            to[k * NR + j] = LOAD(B_DTYPE, b, j * ldb + k);
}
#define B_AT(k, j) ((j) * ldb + (k))
#else
#define B_AT(k, j) ((k) * ldb + (j))
#endif

// `columns` columns of B as panels [column / NR][kc][NR]; columns that complete a vector are zero.
inline void copy_b(b_ptr b, ulong ldb, int columns, int kc, float *panels)
{
    const int whole = columns / 16 * 16;
#if LAYOUT == LAYOUT_NT
    for (int j = 0; j < whole; j += 16)
        transpose_b16(b + j * ldb, ldb, kc, panels + (j / NR) * (KC * NR) + j % NR);
#else
    // A few rows at a time, each along all columns: rows may be pages apart.
    for (int k0 = 0; k0 < kc; k0 += 8)
        for (int j = 0; j < whole; j += 16)
            for (int k = k0; k < min(k0 + 8, kc); ++k)
                vstore16(LOAD16(B_DTYPE, b, k * ldb + j), 0, panels + (j / NR) * (KC * NR) + k * NR + j % NR);
#endif
    if (whole < columns) {
        float *to = panels + (whole / NR) * (KC * NR) + whole % NR;
        for (int k = 0; k < kc; ++k)
            for (int l = 0; l < 16; ++l)
                to[k * NR + l] = whole + l < columns ? LOAD(B_DTYPE, b, B_AT(k, whole + l)) : 0.0f;
    }
}

// What happens to a block's sums: 16 of them, `columns` of which exist.
typedef struct epilogue {
    float alpha, beta; // beta of this block of the reduction: the caller's first, 1 later
    int first, last;   // blocks of the reduction
} epilogue;

inline float16 finish16(float16 sum, float16 old, float16 bias, epilogue how, float16 *pre)
{
    float16 x = sum * how.alpha;
    if (HAS_BETA || !how.first)
        x = fma((float16)(how.beta), old, x);
    if (!how.last)
        return x;
    x += bias;
    *pre = x;
    return activate16(x);
}

inline void finish(const float *sums, int rows, int columns, __global float *c, __global float *pre,
                   __global const float *bias, ulong ldc, epilogue how)
{
    for (int j = 0; j < columns; j += 16) {
        int n = min(columns - j, 16);
        float16 bias16 = (float16)(0.0f);
        float tail[16];
        if (HAS_BIAS && n == 16) {
            bias16 = vload16(0, bias + j);
        } else if (HAS_BIAS) {
            for (int l = 0; l < 16; ++l)
                tail[l] = bias[j + min(l, n - 1)];
            bias16 = vload16(0, tail);
        }
        for (int i = 0; i < rows; ++i) {
            __global float *to = c + i * ldc + j;
            float16 old = (float16)(0.0f), before;
            if (n == 16) {
                if (HAS_BETA || !how.first)
                    old = vload16(0, to);
                vstore16(finish16(vload16(0, sums + i * NR + j), old, bias16, how, &before), 0, to);
                if (HAS_PRE && how.last)
                    vstore16(before, 0, pre + i * ldc + j);
            } else {
                if (HAS_BETA || !how.first) {
                    for (int l = 0; l < 16; ++l)
                        tail[l] = to[min(l, n - 1)];
                    old = vload16(0, tail);
                }
                vstore16(finish16(vload16(0, sums + i * NR + j), old, bias16, how, &before), 0, tail);
                for (int l = 0; l < n; ++l)
                    to[l] = tail[l];
                if (HAS_PRE && how.last) {
                    vstore16(before, 0, tail);
                    for (int l = 0; l < n; ++l)
                        pre[i * ldc + j + l] = tail[l];
                }
            }
        }
    }
}

__kernel void gemm_vec(__global const ELEM(A_DTYPE) * a_, ulong a_off, __global const ELEM(B_DTYPE) * b_, ulong b_off,
                       __global float *c_, ulong c_off, __global const float *bias_, ulong bias_off,
                       __global float *pre_, ulong pre_off, __global const int *offsets_, ulong offsets_off, int M,
                       int N, int K, ulong lda, ulong ldb, ulong ldc, ulong stride_a, ulong stride_b, ulong stride_c,
                       int matrices, int splits, int nb, float alpha, float beta)
{
    int z = get_global_id(0) % matrices, split = get_global_id(0) / matrices;
    int column = get_global_id(1) * nb;
    int columns = min(nb, N - column);
    a_ptr a = a_ + a_off;
    b_ptr b = b_ + b_off;
    ulong c_at = column;
    int rows = M, steps = K;
#if GROUPED
    int low = clamp(offsets_[offsets_off + z], 0, LAYOUT == LAYOUT_TN ? K : M);
    int high = clamp(offsets_[offsets_off + z + 1], low, LAYOUT == LAYOUT_TN ? K : M);
    a += low * lda;
#if LAYOUT == LAYOUT_TN
    steps = high - low;
    b += low * ldb;
    c_at += z * stride_c;
#else
    rows = high - low;
    b += z * stride_b;
    c_at += low * ldc;
#endif
#else
    a += z * stride_a;
    b += z * stride_b;
    c_at += z * stride_c;
#endif
    int tiles = (rows + MR - 1) / MR;
    int row0 = (int)((long)tiles * split / splits) * MR;
    int row1 = min((int)((long)tiles * (split + 1) / splits) * MR, rows);
    if (row0 >= row1)
        return;
    b += B_AT(0, (ulong)column);

    float16 a_copy[AT * A_TILE / 16], panels[NB * KC / 16], sums[MR * NV];
    // Blocks of about equal length, so that no short one runs with the overhead of a long one. A group without rows
    // still has one, of no steps, that writes zeros.
    int blocks = max((steps + KC - 1) / KC, 1);
    int block = ((steps + blocks - 1) / blocks + 15) / 16 * 16;
    for (int k0 = 0, n = 0; n < blocks; ++n, k0 += block) {
        int kc = min(block, steps - k0);
        epilogue how = {alpha, n ? 1.0f : beta, n == 0, n == blocks - 1};
        copy_b(b + B_AT((ulong)k0, 0), ldb, columns, kc, (float *)panels);
        for (int row = row0; row < row1; row += AT * MR) {
            int copied = min(AT * MR, row1 - row);
#if LAYOUT == LAYOUT_TN
            copy_a(a + k0 * lda + row, lda, copied, M - row, kc, (float *)a_copy);
#else
            copy_a(a + row * lda + k0, lda, copied, 0, kc, (float *)a_copy);
#endif
            // A panel stays in the L1 cache for AT tiles.
            for (int j = 0; j < columns; j += NR)
                for (int i = 0; i < copied; i += MR) {
                    int tile = min(MR, copied - i), width = min(NR, columns - j);
                    ulong at = c_at + (row + i) * ldc + j;
                    for (int l = 0; l < tile; ++l)
                        for (int v = 0; v < NV; ++v) {
                            PREFETCH_TO_WRITE(c_ + c_off + at + l * ldc + v * 16);
                            if (HAS_PRE)
                                PREFETCH_TO_WRITE(pre_ + pre_off + at + l * ldc + v * 16);
                        }
                    multiply((const float *)a_copy + i / MR * A_TILE, (const float *)panels + j * KC, tile, width, kc,
                             (float *)sums);
                    finish((const float *)sums, tile, width, c_ + c_off + at, pre_ + (HAS_PRE ? pre_off + at : 0),
                           bias_ + (HAS_BIAS ? bias_off + column + j : 0), ldc, how);
                }
        }
    }
}
