// Deterministic sums (host/ops/reduce.c): over everything, and over the rows of a matrix. Each kernel reduces equal
// pieces to one value (or row) apiece and is launched again over those until one is left: the order of addition depends
// on the shape alone.
//
//   reduce:    y[i] = scale * sum of x[e] or x[e]^2 over piece i (+ y[i])
//   sum_rows:  y[b, c] = sum of x[r, c] over row block b, r = b * per_block ...
//
// sum_rows also ends the norms' backward passes: columns at and above `split` then go to a second tensor.
#include "math.clh"

#ifndef WG
#define WG 256 // work-items per group of reduce_simt; a power of two (64 .. 256)
#endif
#ifndef COLS
#define COLS 32 // columns per work-item (vec, a multiple of 16) or per group (simt) (16 .. 64)
#endif
#ifndef SLICES
#define SLICES 8 // row slices per group of sum_rows_simt, each of COLS work-items (4 .. 16)
#endif
#ifndef SQUARE
#define SQUARE 0 // reduce: sum the squares
#endif
#include "rows.clh"

#if SQUARE
#define ADD_TERM(v, acc) fma(v, v, acc)
#else
#define ADD_TERM(v, acc) ((acc) + (v))
#endif

// ---- reduce -----------------------------------------------------------------------------------------------------

__kernel void reduce_vec(__global const float *x, ulong x_off, __global float *y, ulong y_off, ulong numel,
                         ulong per_piece, float scale, int accumulate)
{
    size_t first = get_global_id(0) * per_piece;
    if (first >= numel)
        return;
    size_t last = min(first + per_piece, (size_t)numel);
    x += x_off;
    float16 a = (float16)(0.0f), b = a, c = a, d = a;
    size_t e = first;
    for (; e + 64 <= last; e += 64) {
        a = ADD_TERM(vload16(0, x + e), a);
        b = ADD_TERM(vload16(0, x + e + 16), b);
        c = ADD_TERM(vload16(0, x + e + 32), c);
        d = ADD_TERM(vload16(0, x + e + 48), d);
    }
    float rest = 0.0f;
    for (; e < last; ++e)
        rest = ADD_TERM(x[e], rest);
    float total = scale * (sum16((a + b) + (c + d)) + rest);
    y += y_off + get_global_id(0);
    *y = accumulate ? *y + total : total;
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void reduce_simt(__global const float *x, ulong x_off,
                                                                          __global float *y, ulong y_off, ulong numel,
                                                                          ulong per_piece, float scale, int accumulate)
{
    __local float scratch[WG];
    size_t first = get_group_id(0) * per_piece, last = min(first + per_piece, (size_t)numel);
    x += x_off;
    float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
    size_t e = first + get_local_id(0);
    for (; e + 3 * WG < last; e += 4 * WG) {
        a = ADD_TERM(x[e], a);
        b = ADD_TERM(x[e + WG], b);
        c = ADD_TERM(x[e + 2 * WG], c);
        d = ADD_TERM(x[e + 3 * WG], d);
    }
    for (; e < last; e += WG)
        a = ADD_TERM(x[e], a);
    float total = scale * group_sum(scratch, (a + b) + (c + d));
    y += y_off + get_group_id(0);
    if (get_local_id(0) == 0)
        *y = accumulate ? *y + total : total;
}

// ---- sum_rows ---------------------------------------------------------------------------------------------------

#define SUM_ROWS_ARGS                                                                                                  \
    __global const float *x, ulong x_off, __global float *y, ulong y_off, __global float *second, ulong second_off,    \
        uint rows, uint columns, uint per_block, uint split

inline void store_columns(float16 v, __global float *y, __global float *second, uint c, uint split)
{
    if (c + 16 <= split) {
        vstore16(v, 0, y + c);
    } else if (c >= split) {
        vstore16(v, 0, second + (c - split));
    } else {
        float lanes[16];
        vstore16(v, 0, lanes);
        for (uint i = 0; i < 16; ++i)
            *(c + i < split ? y + c + i : second + (c + i - split)) = lanes[i];
    }
}

// Work-item (i, b): columns i * COLS ... of row block b.
__kernel void sum_rows_vec(SUM_ROWS_ARGS)
{
    uint c = get_global_id(0) * COLS, end = min(c + COLS, columns);
    uint first = get_global_id(1) * per_block, last = min(first + per_block, rows);
    x += x_off;
    y += y_off + get_global_id(1) * columns;
    second += second_off;
    for (; c + 64 <= end; c += 64) {
        float16 a = (float16)(0.0f), b = a, e = a, f = a;
        for (uint r = first; r < last; ++r) {
            __global const float *row = x + (size_t)r * columns + c;
            a += vload16(0, row);
            b += vload16(0, row + 16);
            e += vload16(0, row + 32);
            f += vload16(0, row + 48);
        }
        store_columns(a, y, second, c, split);
        store_columns(b, y, second, c + 16, split);
        store_columns(e, y, second, c + 32, split);
        store_columns(f, y, second, c + 48, split);
    }
    for (; c + 16 <= end; c += 16) {
        float16 a = (float16)(0.0f);
        for (uint r = first; r < last; ++r)
            a += vload16(0, x + (size_t)r * columns + c);
        store_columns(a, y, second, c, split);
    }
    for (; c < end; ++c) {
        float a = 0.0f;
        for (uint r = first; r < last; ++r)
            a += x[(size_t)r * columns + c];
        *(c < split ? y + c : second + (c - split)) = a;
    }
}

// Group (i, b): COLS columns of row block b; the slices take every SLICES-th row and meet in local memory.
__kernel __attribute__((reqd_work_group_size(COLS *SLICES, 1, 1))) void sum_rows_simt(SUM_ROWS_ARGS)
{
    __local float part[SLICES][COLS];
    uint column = get_local_id(0) % COLS, slice = get_local_id(0) / COLS;
    uint c = get_group_id(0) * COLS + column;
    uint first = get_group_id(1) * per_block, last = min(first + per_block, rows);
    x += x_off;
    float acc[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (c < columns) {
        uint r = first + slice;
        for (; r + 3 * SLICES < last; r += 4 * SLICES)
            for (uint i = 0; i < 4; ++i)
                acc[i] += x[(size_t)(r + i * SLICES) * columns + c];
        for (; r < last; r += SLICES)
            acc[0] += x[(size_t)r * columns + c];
    }
    part[slice][column] = (acc[0] + acc[1]) + (acc[2] + acc[3]);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (slice == 0 && c < columns) {
        float total = 0.0f;
        for (uint s = 0; s < SLICES; ++s)
            total += part[s][column];
        *(c < split ? y + y_off + (size_t)get_group_id(1) * columns + c : second + second_off + (c - split)) = total;
    }
}
