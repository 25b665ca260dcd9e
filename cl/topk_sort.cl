// Puts the selection of topk_radix by descending score, ties by ascending index (host/ops/topk.c).
//
//   indices [K] --> pairs (~key, index) --chunks of CHUNK, bitonic--> sorted runs --merges--> indices, values
//
// topk_sort_chunks sorts in local memory; where a row has one chunk that is all. Otherwise topk_merge doubles the
// sorted runs in scratch, [rows, K] pairs to and fro, until one is left: each pair finds its place by a binary search
// in the neighbouring run. Unused places are pairs of ones and stay behind.
#include "topk.clh"

#ifndef SORT_WG
#define SORT_WG 512 // work-items per group; a power of two (128 .. 1024)
#endif
#ifndef CHUNK
#define CHUNK 2048 // pairs that local memory sorts; a power of two, at least 2 * SORT_WG (1024 .. 4096)
#endif
#ifndef LAST
#define LAST 0 // this launch writes indices and values
#endif

#define UNUSED_PAIR ULONG_MAX

inline void write_pair(ulong pair, size_t place, __global const ELEM(S_DTYPE) *row, __global int *indices,
                       __global float *values)
{
    bool used = pair != UNUSED_PAIR;
    indices[place] = used ? (int)(uint)pair : -1;
#if HAS_VALUES
    values[place] = used ? LOAD(S_DTYPE, row, (uint)pair) : -INFINITY;
#endif
}

// Group (c, r): chunk c of row first_row + r.
__kernel __attribute__((reqd_work_group_size(SORT_WG, 1, 1))) void
topk_sort_chunks(__global const ELEM(S_DTYPE) *scores, ulong scores_off, __global int *indices, ulong indices_off,
                 __global float *values, ulong values_off, __global ulong *runs, ulong runs_off, uint T, uint K,
                 uint first_row)
{
    __local ulong pairs[CHUNK];
    uint first = get_group_id(0) * CHUNK, lane = get_local_id(0);
    size_t r = first_row + get_group_id(1);
    __global const ELEM(S_DTYPE) *row = scores + scores_off + r * T;
    indices += indices_off + r * K;
    values += values_off + r * K;
    for (uint i = lane; i < CHUNK; i += SORT_WG) {
        int index = first + i < K ? indices[first + i] : -1;
        pairs[i] = UNUSED_PAIR;
        if (index >= 0)
            pairs[i] = (ulong)~topk_key(LOAD(S_DTYPE, row, index)) << 32 | (uint)index;
    }
    for (uint size = 2; size <= CHUNK; size *= 2)
        for (uint stride = size / 2; stride > 0; stride /= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint i = lane; i < CHUNK / 2; i += SORT_WG) {
                uint a = 2 * i - (i & (stride - 1)), b = a + stride;
                ulong x = pairs[a], y = pairs[b];
                if ((x > y) == ((a & size) == 0 || size == CHUNK)) {
                    pairs[a] = y;
                    pairs[b] = x;
                }
            }
        }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = lane; i < CHUNK && first + i < K; i += SORT_WG) {
#if LAST
        write_pair(pairs[i], first + i, row, indices, values);
#else
        runs[runs_off + (size_t)get_group_id(1) * K + first + i] = pairs[i];
#endif
    }
}

// How many of the sorted run[0 .. n) are below `pair`, or, `with_equal`, not above it.
inline uint rank_in(__global const ulong *run, uint n, ulong pair, bool with_equal)
{
    uint low = 0, high = n;
    while (low < high) {
        uint middle = (low + high) / 2;
        if (run[middle] < pair || (with_equal && run[middle] == pair))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Work-item (p, r): the pair at place p of row first_row + r. Runs of `length` become runs of twice that.
__kernel void topk_merge(__global const ELEM(S_DTYPE) *scores, ulong scores_off, __global int *indices,
                         ulong indices_off, __global float *values, ulong values_off, __global const ulong *from,
                         ulong from_off, __global ulong *to, ulong to_off, uint T, uint K, uint first_row, uint length)
{
    uint p = get_global_id(0);
    if (p >= K)
        return;
    size_t r = first_row + get_global_id(1);
    from += from_off + (size_t)get_global_id(1) * K;
    uint run = p / length, other = (run ^ 1) * length;
    uint n = other < K ? min(length, K - other) : 0;
    ulong pair = from[p];
    uint place = run / 2 * 2 * length + p % length + rank_in(from + other, n, pair, run & 1);
#if LAST
    write_pair(pair, place, scores + scores_off + r * T, indices + indices_off + r * K, values + values_off + r * K);
#else
    to[to_off + (size_t)get_global_id(1) * K + place] = pair;
#endif
}
