// Matrix products for GPUs: C = act(alpha * op(A) op(B) + beta * C + bias), plain, batched and grouped.
//
// The walk over the reduction, and how the tiles lie: product_tile.clh.
//
// PARTIAL: the reduction is cut into `parts` slices, whose sums go to `partial` [part][matrix][M][N]; cl/gemm_epilogue.cl
// adds them in order. That fills a device on which C alone has too few tiles.
//
// Groups: x = column tile, y = row tile, z = matrix * parts + part. Grouped rows: y counts the row tiles of all groups,
// the host launches as many as there can be, and each work-group finds its own from group_offsets.
#include "gemm.clh"
#ifndef PARTIAL
#define PARTIAL 0 // 1: raw sums to `partial`
#endif
#ifndef A_VEC
#define A_VEC 0 // 1: all rows of A begin on 4 elements, and have a multiple of 4
#endif
#ifndef B_VEC
#define B_VEC 0 // 1: so do those of B
#endif
#ifndef WHOLE
#define WHOLE 0 // 1: rows, columns and steps are whole tiles, so that nothing lies beyond the last
#endif
#ifndef C_VEC
#define C_VEC 0 // 1: all rows of C and pre, or of `partial`, begin on 16 bytes
#endif

#define A_ALONG_K (LAYOUT != LAYOUT_TN)
#define B_ALONG_K (LAYOUT == LAYOUT_NT)
#include "product_tile.clh"
#include "raw.clh"

typedef __global const ELEM(A_DTYPE) *a_ptr;
typedef __global const ELEM(B_DTYPE) *b_ptr;

#if WHOLE
#define AT_MOST(last, i) (i)
#define COLUMNS(dtype, vec, count, p, at, c)                                                                           \
    ((vec) ? LOAD4_RAW(dtype, p, (at) + (c))                                                                           \
           : LOAD_RAW(dtype, p, (at) + (c), (at) + (c) + 1, (at) + (c) + 2, (at) + (c) + 3))
#else
#define AT_MOST(last, i) min(i, last)
#define COLUMNS RAW_COLUMNS
#endif

// The work-item's share of the tiles of step k0: `rows` rows of A, `columns` of B and `steps` steps are left, one of
// each at least. What lies beyond repeats others.
inline void fetch_tiles(a_ptr a, b_ptr b, ulong lda, ulong ldb, int item, int k0, int rows, int columns, int steps,
                        RAW4(A_DTYPE) *raw_a, RAW4(B_DTYPE) *raw_b)
{
#pragma unroll
    for (int l = 0; l < A_LOADS; ++l) {
        int w = A_W(A_LOAD(l)), k = k0 + A_K(A_LOAD(l));
#if LAYOUT == LAYOUT_TN
        raw_a[l] = COLUMNS(A_DTYPE, A_VEC, rows, a, AT_MOST(steps - 1, k) * lda, w);
#else
        raw_a[l] = COLUMNS(A_DTYPE, A_VEC, steps, a, AT_MOST(rows - 1, w) * lda, k);
#endif
    }
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l) {
        int w = B_W(B_LOAD(l)), k = k0 + B_K(B_LOAD(l));
#if LAYOUT == LAYOUT_NT
        raw_b[l] = COLUMNS(B_DTYPE, B_VEC, steps, b, AT_MOST(columns - 1, w) * ldb, k);
#else
        raw_b[l] = COLUMNS(B_DTYPE, B_VEC, columns, b, AT_MOST(steps - 1, k) * ldb, w);
#endif
    }
}

// Elements of steps k .. k + 3, or all of step k, with zeros for what lies beyond the last step.
#define WITHIN(along_k, x, k, steps) ((along_k) ? cldsa_up_to(steps, x, k) : (k) < (steps) ? (x) : (float4)(0.0f))

// Rows and columns beyond the last ones go into sums that nobody sees.
inline void widen_tiles(const RAW4(A_DTYPE) *raw_a, const RAW4(B_DTYPE) *raw_b, int item, int k0, int steps,
                        float4 *from_a, float4 *from_b)
{
#pragma unroll
    for (int l = 0; l < A_LOADS; ++l)
        from_a[l] = FROM_RAW4(A_DTYPE, raw_a[l]);
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l)
        from_b[l] = FROM_RAW4(B_DTYPE, raw_b[l]);
    if (WHOLE || k0 + TK <= steps)
        return;
#pragma unroll
    for (int l = 0; l < A_LOADS; ++l)
        from_a[l] = WITHIN(A_ALONG_K, from_a[l], k0 + A_K(A_LOAD(l)), steps);
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l)
        from_b[l] = WITHIN(B_ALONG_K, from_b[l], k0 + B_K(B_LOAD(l)), steps);
}

#define FETCH_TILES(k)                                                                                                 \
    if (steps > 0)                                                                                                     \
        fetch_tiles(a, b, lda, ldb, item, k, rows, columns, steps, raw_a, raw_b);
#define WIDEN_TILES(k) widen_tiles(raw_a, raw_b, item, k, steps, from_a, from_b);

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

    RAW4(A_DTYPE) raw_a[A_LOADS];
    RAW4(B_DTYPE) raw_b[B_LOADS];
    float4 sum[WM][BLOCKS_N], from_a[A_LOADS], from_b[B_LOADS];
    clear_sums(sum);
    ADD_PRODUCTS(steps, FETCH_TILES, WIDEN_TILES)

#if PARTIAL
    __global float *c = partial_ + partial_off + ((ulong)part * matrices + matrix) * M * N + column0;
    ldc = N;
#else
    __global float *c = c_ + c_off + c_at;
#endif
#pragma unroll
    for (int i = 0; i < WM; ++i) {
        int row = SUM_ROW(i);
#pragma unroll
        for (int j = 0; j < BLOCKS_N; ++j) {
            int column = SUM_COLUMN(j);
            ulong at = (row0 + row) * ldc + column;
            if (WHOLE || (row < rows && column < columns))
                finish(sum[i][j], WHOLE ? 4 : columns - column, c + at, pre_ + (HAS_PRE ? pre_off + c_at + at : 0),
                       bias_ + (HAS_BIAS ? bias_off + column0 + column : 0), alpha, beta);
        }
    }
}
