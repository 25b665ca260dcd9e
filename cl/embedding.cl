// Token embedding with learned positions, forward and backward (host/ops/embedding.c). N = B * S tokens of D columns.
//
//   out[n,:] = table[ids[n],:] + positions[n mod S,:]
//   dtable[v,:] = sum of dout[n,:] over the tokens with ids[n] = v;  dpositions[s,:] = sum over those with n mod S = s
//
// The backward pass needs neither sorting nor atomics: whoever owns an output row looks through all ids for its tokens
// and adds them in order, so one launch does it and the bits are always the same. Looking costs little: 4 bytes a token,
// while every match moves a row.
// vec: a work-item owns ROWS table rows and COLS columns, and compares 16 ids at a time against the whole range; the
// work-items behind the table's own the position rows.
// simt: a work-group owns one output row (table's, then positions') and WG columns. It notes the row's tokens of a CHUNK
// of ids in local memory, in order, then a lane per column adds them.
#include "inline.clh"

#ifndef ROWS
#define ROWS 8 // vec: tokens per work-item forward, table rows per work-item backward (4 .. 32)
#endif
#ifndef COLS
#define COLS 64 // vec, backward: columns per work-item; a multiple of 16 (32 .. 256)
#endif
#ifndef WG
#define WG 128 // simt: work-items per group, a power of two; each has a column (64 .. 256)
#endif
#ifndef UNROLL
#define UNROLL 4 // simt, forward: columns per work-item, WG apart (1 .. 8)
#endif
#ifndef PER_LANE
#define PER_LANE 8 // simt, backward: ids that one lane looks at in a chunk (8 .. 16)
#endif
#ifndef HAS_POSITIONS
#define HAS_POSITIONS 1
#endif

// ---- forward ----------------------------------------------------------------------------------------------------

#define EMBEDDING_ARGS                                                                                                 \
    __global const int *ids, ulong ids_off, __global const float *table, ulong table_off,                              \
        __global const float *positions, ulong positions_off, __global float *out, ulong out_off, uint tokens,         \
        uint length, uint rows, uint dim

__kernel void embedding_vec(EMBEDDING_ARGS)
{
    uint first = get_global_id(0) * ROWS, last = min(first + ROWS, tokens);
    for (uint n = first; n < last; ++n) {
        int id = ids[ids_off + n];
        int known = id >= 0 && (uint)id < rows;
        __global const float *t = table + table_off + (size_t)(known ? id : 0) * dim;
        __global const float *p = positions + positions_off + (size_t)(n % length) * dim;
        __global float *o = out + out_off + (size_t)n * dim;
        uint d = 0;
        for (; d + 16 <= dim; d += 16) {
            float16 v = known ? vload16(0, t + d) : (float16)(0.0f);
#if HAS_POSITIONS
            v += vload16(0, p + d);
#endif
            vstore16(v, 0, o + d);
        }
        for (; d < dim; ++d) {
            float v = known ? t[d] : 0.0f;
#if HAS_POSITIONS
            v += p[d];
#endif
            o[d] = v;
        }
    }
}

// simt groups are numbered in one dimension, a row's column tiles side by side: some devices allow few groups in the
// others. Forward, the same position of all sequences comes together, so that its row is read from memory once.
#define TILES(columns) ((dim + (columns)-1) / (columns))

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void embedding_simt(EMBEDDING_ARGS)
{
    uint tiles = TILES(WG * UNROLL), first = get_group_id(0) % tiles * (WG * UNROLL) + get_local_id(0);
    uint row = get_group_id(0) / tiles, sequences = tokens / length;
    uint n = row % sequences * length + row / sequences;
    int id = ids[ids_off + n];
    int known = id >= 0 && (uint)id < rows;
    table += table_off + (size_t)(known ? id : 0) * dim;
    positions += positions_off + (size_t)(n % length) * dim;
    out += out_off + (size_t)n * dim;
    float v[UNROLL];
    for (uint i = 0; i < UNROLL; ++i) {
        uint d = first + i * WG;
        v[i] = known && d < dim ? table[d] : 0.0f;
#if HAS_POSITIONS
        v[i] += d < dim ? positions[d] : 0.0f;
#endif
    }
    for (uint i = 0; i < UNROLL; ++i)
        if (first + i * WG < dim)
            out[first + i * WG] = v[i];
}

// ---- backward ---------------------------------------------------------------------------------------------------

#define EMBEDDING_BACKWARD_ARGS                                                                                        \
    __global const int *ids, ulong ids_off, __global const float *dout, ulong dout_off, __global float *dtable,        \
        ulong dtable_off, __global float *dpositions, ulong dpositions_off, uint tokens, uint length, uint rows,       \
        uint position_rows, uint dim

inline void add_row(__global float *to, __global const float *from, uint columns)
{
    uint d = 0;
    for (; d + 16 <= columns; d += 16)
        vstore16(vload16(0, to + d) + vload16(0, from + d), 0, to + d);
    for (; d < columns; ++d)
        to[d] += from[d];
}

inline void clear_row(__global float *to, uint columns)
{
    uint d = 0;
    for (; d + 16 <= columns; d += 16)
        vstore16((float16)(0.0f), 0, to + d);
    for (; d < columns; ++d)
        to[d] = 0.0f;
}

inline int any_below(uint16 v, uint limit)
{
    uint16 a = v < limit ? (uint16)(1u) : (uint16)(0u);
    uint8 b = a.lo | a.hi;
    uint4 c = b.lo | b.hi;
    uint2 e = c.lo | c.hi;
    return (e.x | e.y) != 0u;
}

// Work-item (i, b): columns i * COLS ... of table rows b * ROWS ..., or, past the table, of position rows.
__kernel void embedding_backward_vec(EMBEDDING_BACKWARD_ARGS)
{
    uint d = get_global_id(0) * COLS, columns = min((uint)COLS, dim - d);
    uint table_blocks = (rows + ROWS - 1) / ROWS, block = get_global_id(1);
    ids += ids_off;
    dout += dout_off + d;
    if (block >= table_blocks) {
        uint first = (block - table_blocks) * ROWS, last = min(first + ROWS, position_rows);
        for (uint s = first; s < last; ++s) {
            __global float *to = dpositions + dpositions_off + (size_t)s * dim + d;
            clear_row(to, columns);
            for (uint n = s; s < length && n < tokens; n += length)
                add_row(to, dout + (size_t)n * dim, columns);
        }
        return;
    }
    uint first = block * ROWS, count = min((uint)ROWS, rows - first);
    dtable += dtable_off + (size_t)first * dim + d;
    for (uint v = 0; v < count; ++v)
        clear_row(dtable + (size_t)v * dim, columns);
    uint n = 0;
    for (; n + 16 <= tokens; n += 16) {
        if (!any_below(as_uint16(vload16(0, ids + n)) - first, count))
            continue;
        for (uint i = n; i < n + 16; ++i) {
            uint v = (uint)ids[i] - first;
            if (v < count)
                add_row(dtable + (size_t)v * dim, dout + (size_t)i * dim, columns);
        }
    }
    for (; n < tokens; ++n) {
        uint v = (uint)ids[n] - first;
        if (v < count)
            add_row(dtable + (size_t)v * dim, dout + (size_t)n * dim, columns);
    }
}

#define CHUNK (WG * PER_LANE)

// A group has WG columns of one output row. A table row and a position row differ only in what matches.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void embedding_backward_simt(EMBEDDING_BACKWARD_ARGS)
{
    __local uint found[CHUNK], counts[WG];
    uint lane = get_local_id(0), row = get_group_id(0) / TILES(WG), d = get_group_id(0) % TILES(WG) * WG + lane;
    int is_position = row >= rows;
    uint wanted = is_position ? row - rows : row;
    ids += ids_off;
    dout += dout_off;

    float acc = 0.0f;
    for (uint chunk = 0; chunk < tokens; chunk += CHUNK) {
        uint first = chunk + lane * PER_LANE, mask = 0;
        for (uint i = 0; i < PER_LANE; ++i) {
            uint n = first + i;
            if (n < tokens && (is_position ? n % length : (uint)ids[n]) == wanted)
                mask |= 1u << i;
        }
        counts[lane] = popcount(mask);
        barrier(CLK_LOCAL_MEM_FENCE);
        // Inclusive prefix sums give every lane its place, so that the tokens stay in order.
        for (uint step = 1; step < WG; step *= 2) {
            uint other = lane >= step ? counts[lane - step] : 0;
            barrier(CLK_LOCAL_MEM_FENCE);
            counts[lane] += other;
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        uint place = counts[lane] - popcount(mask), total = counts[WG - 1];
        for (uint i = 0; i < PER_LANE; ++i)
            if (mask >> i & 1u)
                found[place++] = first + i;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (d < dim) {
            uint i = 0;
            for (; i + 4 <= total; i += 4) {
                float a = dout[(size_t)found[i] * dim + d], b = dout[(size_t)found[i + 1] * dim + d],
                      c = dout[(size_t)found[i + 2] * dim + d], e = dout[(size_t)found[i + 3] * dim + d];
                acc += (a + b) + (c + e);
            }
            for (; i < total; ++i)
                acc += dout[(size_t)found[i] * dim + d];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (d < dim) {
        if (is_position)
            dpositions[dpositions_off + (size_t)wanted * dim + d] = acc;
        else
            dtable[dtable_off + (size_t)wanted * dim + d] = acc;
    }
}
