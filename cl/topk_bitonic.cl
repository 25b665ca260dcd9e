// Top-k of short rows for GPUs (host/ops/topk.c): a full sort in local memory.
//
//   row --(~key, index)--> pairs [N] --bitonic sort--> the first k are the selection, by descending score
//
// A group sorts ROWS rows of N pairs each: N is T rounded up to a power of two, and ROWS fills the group. The rows
// lie one behind the other, so that one network of depth log N * (log N + 1) / 2 sorts them all at once. 64-bit pairs
// are all different, hence the result does not depend on the network. For ascending indices the selection passes
// through a bit set, whose running counts are the places.
#include "topk.clh"

#ifndef WG
#define WG 128 // work-items per group; a power of two (64 .. 512)
#endif
#ifndef N
#define N 256 // T rounded up to a power of two, at least 32
#endif

#define ROWS  (2 * WG > N ? 2 * WG / N : 1) // rows per group
#define WORDS (N / 32)                      // of a row's bit set

inline void compare_exchange(__local ulong *pairs, uint a, uint b, bool up)
{
    ulong x = pairs[a], y = pairs[b];
    if ((x > y) == up) {
        pairs[a] = y;
        pairs[b] = x;
    }
}

// Every N pairs ascending.
inline void sort_rows(__local ulong *pairs)
{
    for (uint size = 2; size <= N; size *= 2)
        for (uint stride = size / 2; stride > 0; stride /= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint i = get_local_id(0); i < ROWS * N / 2; i += WG) {
                uint a = 2 * i - (i & (stride - 1));
                compare_exchange(pairs, a, a + stride, size == N || (a & size) == 0);
            }
        }
    barrier(CLK_LOCAL_MEM_FENCE);
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void topk_bitonic(TOPK_ARGS)
{
    __local ulong pairs[ROWS * N];
    __local uint chosen[ROWS * WORDS], before[ROWS * WORDS]; // bit set, and bits in the words before
    uint lane = get_local_id(0), first_row = get_group_id(0) * ROWS;
    scores += scores_off;
    k_rows += k_rows_off;
    ks += ks_off;
    ke += ke_off;
    indices += indices_off;
    values += values_off;
    count += count_off;
    mask += mask_off;

    for (uint i = lane; i < ROWS * N; i += WG) {
        uint r = first_row + i / N, t = i % N, key = 0;
        if (r < rows) {
            uint2 range = topk_range(ks, ke, r, T);
            if (t >= range.x && t < range.y)
                key = topk_key(LOAD(S_DTYPE, scores, (size_t)r * T + t));
        }
        pairs[i] = (ulong)~key << 32 | t;
    }
    for (uint i = lane; i < ROWS * WORDS; i += WG)
        chosen[i] = 0;
    sort_rows(pairs);

    // Selected pairs are the first ones of their row: the last of them knows the count.
    for (uint i = lane; i < ROWS * N; i += WG) {
        uint r = first_row + i / N, p = i % N;
        if (r >= rows)
            continue;
        uint wanted = topk_wanted(k_rows, r, T, K, k, share);
        bool selected = p < wanted && (uint)(pairs[i] >> 32) != 0xffffffffu;
        bool next = p + 1 < wanted && p + 1 < N && (uint)(pairs[i + 1] >> 32) != 0xffffffffu;
        uint t = (uint)pairs[i];
        if (selected)
            atomic_or(&chosen[i / N * WORDS + t / 32], 1u << t % 32);
#if HAS_COUNT
        if (selected && !next)
            count[r] = (int)p + 1;
        else if (p == 0 && !selected)
            count[r] = 0;
#endif
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = lane; i < ROWS * WORDS; i += WG) {
        uint sum = 0;
        for (uint w = i / WORDS * WORDS; w < i; ++w)
            sum += popcount(chosen[w]);
        before[i] = sum;
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    for (uint row = 0; row < ROWS && first_row + row < rows; ++row) {
        uint r = first_row + row, last = row * WORDS + WORDS - 1;
        uint kept = before[last] + popcount(chosen[last]);
#if HAS_INDICES
        for (uint p = lane; p < kept; p += WG) {
            uint t = (uint)pairs[row * N + p], place = p;
#if !BY_SCORE
            uint word = chosen[row * WORDS + t / 32];
            place = before[row * WORDS + t / 32] + popcount(word & ((1u << t % 32) - 1));
#endif
            indices[(size_t)r * K + place] = (int)t;
#if HAS_VALUES
            values[(size_t)r * K + place] = LOAD(S_DTYPE, scores, (size_t)r * T + t);
#endif
        }
        for (uint p = kept + lane; p < K; p += WG) {
            indices[(size_t)r * K + p] = -1;
#if HAS_VALUES
            values[(size_t)r * K + p] = -INFINITY;
#endif
        }
#endif
#if MASK_BITS == 8
        for (uint t = lane; t < T; t += WG)
            mask[(size_t)r * T + t] = chosen[row * WORDS + t / 32] >> t % 32 & 1;
#elif MASK_BITS == 1
        for (uint w = lane; w < MASK_ROW(T); w += WG)
            mask[(size_t)r * MASK_ROW(T) + w] = chosen[row * WORDS + w];
#endif
    }
}
