// Matrix products for GPUs: C = act(alpha * op(A) op(B) + beta * C + bias), plain, batched and grouped.
//
// A work-group owns a TM x TN tile of C and walks the reduction TK at a time through two pairs of local tiles: while one
// pair is multiplied, the next is on its way from global memory into registers, so each step needs one barrier.
//
//              TN                    A work-item owns WM x WN elements as blocks of 4 x 4 that lie TM / (WM/4) rows and
//          +---------+               TN / (WN/4) columns apart: neighbours then read neighbouring float4 of local
//       TK |  local  |               memory, which no two of a warp take from the same bank.
//     TK   +---------+
//    +--+  +---------+               Both local tiles are [k][row or column], whatever the layout; the operand that is
//    |  |  | TM x TN |               contiguous along k (A in NN and NT, B in NT) is transposed on its way in.
//    +--+  +---------+
//
// PARTIAL: the reduction is cut into `parts` slices, whose sums go to `partial` [part][matrix][M][N]; cl/gemm_epilogue.cl
// adds them in order. That fills a device on which C alone has too few tiles.
//
// Groups: x = column tile, y = row tile, z = matrix * parts + part. Grouped rows: y counts the row tiles of all groups,
// the host launches as many as there can be, and each work-group finds its own from group_offsets.
#include "gemm.clh"
#include "registers.clh"

#ifndef TM
#define TM 128 // rows of a work-group's tile (64, 128)
#endif
#ifndef TN
#define TN 128 // columns of a work-group's tile (64, 128)
#endif
#ifndef TK
#define TK 16 // steps of the reduction per local tile (8, 16, 32)
#endif
#ifndef WM
#define WM 8 // rows per work-item (4, 8)
#endif
#ifndef WN
#define WN 8 // columns per work-item (4, 8)
#endif
#ifndef PARTIAL
#define PARTIAL 0 // 1: raw sums to `partial`
#endif
#ifndef A_VEC
#define A_VEC 0 // 1: A is f32 and all its rows begin on 16 bytes
#endif
#ifndef B_VEC
#define B_VEC 0
#endif
#ifndef C_VEC
#define C_VEC 0 // 1: so do those of C and pre, or of `partial`
#endif

#define ITEMS_M (TM / WM)
#define ITEMS_N (TN / WN)
#define ITEMS (ITEMS_M * ITEMS_N)
#define BLOCKS_M (WM / 4)
#define BLOCKS_N (WN / 4)
#define PAD 4 // spreads a transposed column over the banks and keeps float4 alignment
#define A_ROW (TM + PAD)
#define B_ROW (TN + PAD)
#define A_LOADS (TM * TK / 4 / ITEMS)
#define B_LOADS (TN * TK / 4 / ITEMS)

typedef __global const ELEM(A_DTYPE) *a_ptr;
typedef __global const ELEM(B_DTYPE) *b_ptr;

// Four elements of which the first n exist, zeros for the others.
#if A_VEC
#define LOAD4_A(p, at) (*(__global const float4 *)((p) + (at)))
#else
#define LOAD4_A(p, at) LOAD4(A_DTYPE, p, at)
#endif
#if B_VEC
#define LOAD4_B(p, at) (*(__global const float4 *)((p) + (at)))
#else
#define LOAD4_B(p, at) LOAD4(B_DTYPE, p, at)
#endif
#define DEFINE_FETCH(name, ptr, dtype, load4)                                                                          \
    inline float4 name(ptr p, ulong at, int n)                                                                         \
    {                                                                                                                  \
        if (n >= 4)                                                                                                    \
            return load4(p, at);                                                                                       \
        float4 x = (float4)(0.0f);                                                                                     \
        if (n > 0)                                                                                                     \
            x.x = LOAD(dtype, p, at);                                                                                  \
        if (n > 1)                                                                                                     \
            x.y = LOAD(dtype, p, at + 1);                                                                              \
        if (n > 2)                                                                                                     \
            x.z = LOAD(dtype, p, at + 2);                                                                              \
        return x;                                                                                                      \
    }
DEFINE_FETCH(fetch_a, a_ptr, A_DTYPE, LOAD4_A)
DEFINE_FETCH(fetch_b, b_ptr, B_DTYPE, LOAD4_B)

// Load q of a tile with `wide` rows or columns: where it begins, along the reduction (k) and along C (w).
#define ALONG_K_W(q) ((q) / (TK / 4))
#define ALONG_K_K(q) ((q) % (TK / 4) * 4)
#define ALONG_W_W(q, wide) ((q) % ((wide) / 4) * 4)
#define ALONG_W_K(q, wide) ((q) / ((wide) / 4))

inline void store_along_k(__local float *tile, int row, int w, int k, float4 x)
{
    tile[(k + 0) * row + w] = x.x;
    tile[(k + 1) * row + w] = x.y;
    tile[(k + 2) * row + w] = x.z;
    tile[(k + 3) * row + w] = x.w;
}

inline void store_along_w(__local float *tile, int row, int w, int k, float4 x)
{
    *(__local float4 *)(tile + k * row + w) = x;
}

// The work-item's share of the tiles of step k0: `rows` rows of A, `columns` of B and `steps` steps are left.
inline void fetch_tiles(a_ptr a, b_ptr b, ulong lda, ulong ldb, int item, int k0, int rows, int columns, int steps,
                        float4 *from_a, float4 *from_b)
{
#pragma unroll
    for (int l = 0; l < A_LOADS; ++l) {
        int q = item + l * ITEMS;
#if LAYOUT == LAYOUT_TN
        int w = ALONG_W_W(q, TM), k = k0 + ALONG_W_K(q, TM);
        from_a[l] = fetch_a(a, k * lda + w, k < steps ? rows - w : 0);
#else
        int w = ALONG_K_W(q), k = k0 + ALONG_K_K(q);
        from_a[l] = fetch_a(a, w * lda + k, w < rows ? steps - k : 0);
#endif
    }
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l) {
        int q = item + l * ITEMS;
#if LAYOUT == LAYOUT_NT
        int w = ALONG_K_W(q), k = k0 + ALONG_K_K(q);
        from_b[l] = fetch_b(b, w * ldb + k, w < columns ? steps - k : 0);
#else
        int w = ALONG_W_W(q, TN), k = k0 + ALONG_W_K(q, TN);
        from_b[l] = fetch_b(b, k * ldb + w, k < steps ? columns - w : 0);
#endif
    }
}

inline void store_tiles(__local float *a_tile, __local float *b_tile, int item, const float4 *from_a,
                        const float4 *from_b)
{
#pragma unroll
    for (int l = 0; l < A_LOADS; ++l) {
        int q = item + l * ITEMS;
#if LAYOUT == LAYOUT_TN
        store_along_w(a_tile, A_ROW, ALONG_W_W(q, TM), ALONG_W_K(q, TM), from_a[l]);
#else
        store_along_k(a_tile, A_ROW, ALONG_K_W(q), ALONG_K_K(q), from_a[l]);
#endif
    }
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l) {
        int q = item + l * ITEMS;
#if LAYOUT == LAYOUT_NT
        store_along_k(b_tile, B_ROW, ALONG_K_W(q), ALONG_K_K(q), from_b[l]);
#else
        store_along_w(b_tile, B_ROW, ALONG_W_W(q, TN), ALONG_W_K(q, TN), from_b[l]);
#endif
    }
}

inline void multiply_tiles(__local const float *a_tile, __local const float *b_tile, int item_m, int item_n,
                           float4 (*sum)[BLOCKS_N])
{
    UNROLL_STEPS
    for (int k = 0; k < TK; ++k) {
        float4 a[BLOCKS_M], b[BLOCKS_N];
#pragma unroll
        for (int i = 0; i < BLOCKS_M; ++i)
            a[i] = *(__local const float4 *)(a_tile + k * A_ROW + (i * ITEMS_M + item_m) * 4);
#pragma unroll
        for (int j = 0; j < BLOCKS_N; ++j)
            b[j] = *(__local const float4 *)(b_tile + k * B_ROW + (j * ITEMS_N + item_n) * 4);
#pragma unroll
        for (int i = 0; i < BLOCKS_M; ++i)
#pragma unroll
            for (int j = 0; j < BLOCKS_N; ++j) {
                sum[i * 4 + 0][j] = fma((float4)(a[i].x), b[j], sum[i * 4 + 0][j]);
                sum[i * 4 + 1][j] = fma((float4)(a[i].y), b[j], sum[i * 4 + 1][j]);
                sum[i * 4 + 2][j] = fma((float4)(a[i].z), b[j], sum[i * 4 + 2][j]);
                sum[i * 4 + 3][j] = fma((float4)(a[i].w), b[j], sum[i * 4 + 3][j]);
            }
    }
}

inline void store_elements(__global float *to, float4 x, int n)
{
    if (n >= 4) {
#if C_VEC
        *(__global float4 *)to = x;
#else
        vstore4(x, 0, to);
#endif
        return;
    }
    if (n > 0)
        to[0] = x.x;
    if (n > 1)
        to[1] = x.y;
    if (n > 2)
        to[2] = x.z;
}

inline float4 load_elements(__global const float *from, int n)
{
    if (n >= 4)
        return vload4(0, from);
    return (float4)(from[0], n > 1 ? from[1] : 0.0f, n > 2 ? from[2] : 0.0f, 0.0f);
}

// Four sums of one row, n of which exist (at least 1).
inline void finish(float4 sum, int n, __global float *c, __global float *pre, __global const float *bias, float alpha,
                   float beta)
{
#if PARTIAL
    store_elements(c, sum, n);
#else
    float4 x = sum * alpha;
#if HAS_BETA
    x = fma((float4)(beta), load_elements(c, n), x);
#endif
#if HAS_BIAS
    x += load_elements(bias, n);
#endif
#if HAS_PRE
    store_elements(pre, x, n);
#endif
    store_elements(c, activate4(x), n);
#endif
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) MANY_REGISTERS void
gemm_simt(__global const ELEM(A_DTYPE) * a_, ulong a_off, __global const ELEM(B_DTYPE) * b_, ulong b_off,
          __global float *c_, ulong c_off, __global const float *bias_, ulong bias_off, __global float *pre_,
          ulong pre_off, __global const int *offsets_, ulong offsets_off, int M, int N, int K, ulong lda, ulong ldb,
          ulong ldc, ulong stride_a, ulong stride_b, ulong stride_c, int matrices, int parts,
          __global float *partial_, ulong partial_off, float alpha, float beta)
{
    __local float a_tiles[2][TK * A_ROW] __attribute__((aligned(16)));
    __local float b_tiles[2][TK * B_ROW] __attribute__((aligned(16)));

    int item = get_local_id(0), item_n = item % ITEMS_N, item_m = item / ITEMS_N;
    int matrix = get_group_id(2) / parts;
    int row0 = get_group_id(1) * TM, column0 = get_group_id(0) * TN;
    int rows = M - row0, columns = N - column0;
    a_ptr a = a_ + a_off;
    b_ptr b = b_ + b_off;
    ulong c_at = column0;
    int low = 0, high = K; // of the reduction

#if GROUPED && LAYOUT != LAYOUT_TN
    int tile = get_group_id(1), first = 0, next = 0;
    rows = 0;
    row0 = 0;
    for (matrix = 0; matrix < matrices; ++matrix) {
        first = clamp(offsets_[offsets_off + matrix], 0, M);
        next = clamp(offsets_[offsets_off + matrix + 1], first, M);
        int tiles = (next - first + TM - 1) / TM;
        if (tile < tiles) {
            row0 = first + tile * TM;
            rows = next - row0;
            break;
        }
        tile -= tiles;
    }
    high = rows > 0 ? K : 0;
    matrix = min(matrix, matrices - 1);
    b += matrix * stride_b;
#elif GROUPED
    low = clamp(offsets_[offsets_off + matrix], 0, K);
    high = clamp(offsets_[offsets_off + matrix + 1], low, K);
    c_at += matrix * stride_c;
#else
    a += matrix * stride_a;
    b += matrix * stride_b;
    c_at += matrix * stride_c;
#endif
#if PARTIAL
    int slice = ((high - low + parts - 1) / parts + TK - 1) / TK * TK;
    int part = get_group_id(2) % parts;
    low = min(low + part * slice, high);
    high = min(low + slice, high);
#endif
#if LAYOUT == LAYOUT_TN
    a += low * lda + row0;
#else
    a += row0 * lda + low;
#endif
#if LAYOUT == LAYOUT_NT
    b += column0 * ldb + low;
#else
    b += low * ldb + column0;
#endif
    int steps = high - low;

    float4 sum[WM][BLOCKS_N], from_a[A_LOADS], from_b[B_LOADS];
#pragma unroll
    for (int i = 0; i < WM; ++i)
#pragma unroll
        for (int j = 0; j < BLOCKS_N; ++j)
            sum[i][j] = (float4)(0.0f);

    fetch_tiles(a, b, lda, ldb, item, 0, rows, columns, steps, from_a, from_b);
    store_tiles(a_tiles[0], b_tiles[0], item, from_a, from_b);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int k = 0, now = 0; k < steps; k += TK, now ^= 1) {
        bool more = k + TK < steps;
        if (more)
            fetch_tiles(a, b, lda, ldb, item, k + TK, rows, columns, steps, from_a, from_b);
        multiply_tiles(a_tiles[now], b_tiles[now], item_m, item_n, sum);
        if (more)
            store_tiles(a_tiles[now ^ 1], b_tiles[now ^ 1], item, from_a, from_b);
        barrier(CLK_LOCAL_MEM_FENCE);
    }

#if PARTIAL
    __global float *c = partial_ + partial_off + ((ulong)part * matrices + matrix) * M * N + column0;
    ldc = N;
#else
    __global float *c = c_ + c_off + c_at;
#endif
#pragma unroll
    for (int i = 0; i < WM; ++i) {
        int row = ((i / 4) * ITEMS_M + item_m) * 4 + i % 4;
#pragma unroll
        for (int j = 0; j < BLOCKS_N; ++j) {
            int column = (j * ITEMS_N + item_n) * 4;
            ulong at = (row0 + row) * ldc + column;
            if (row < rows && column < columns)
                finish(sum[i][j], columns - column, c + at, pre_ + (HAS_PRE ? pre_off + c_at + at : 0),
                       bias_ + (HAS_BIAS ? bias_off + column0 + column : 0), alpha, beta);
        }
    }
}
