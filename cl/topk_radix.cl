// Top-k of long rows for GPUs (host/ops/topk.c): a work-group per row.
//
//   sample --> cut --one read--> candidates in local memory --radix rounds--> threshold --bit set--> indices, mask
//     \-- no good --> radix rounds over the row itself until the candidates fit, or the threshold is known
//
// A strided sample of the row gives a cut that somewhat more than k keys pass; one read of the row collects those in
// local memory, and everything after that happens there: two reads less than a histogram of the row. A cut that lets
// too few or too many pass costs time, never the result.
//
// A radix round splits the range of keys that holds the threshold into BINS equal bins, counts the keys in each and
// keeps the bin with the k-th. Candidates are collected in any order and counted by integer atomics, so counts and sets
// are the same every time; the order of the output comes from a bit set over WINDOW keys of the row at a time, whose
// running counts are the places. Of the keys that equal the threshold the first ones are taken.
//
// With ascending indices that is all; topk_sort.cl puts them by score where asked.
#include "topk.clh"

#ifndef WG
#define WG 1024 // work-items per group; a power of two (256 .. 1024)
#endif
#ifndef CANDIDATES
#define CANDIDATES 4096 // keys that local memory takes, with their indices (1024 .. 8192)
#endif
#ifndef UNROLL
#define UNROLL 2 // loads of four keys in flight per work-item (1 .. 8)
#endif
#ifndef ALIGNED
#define ALIGNED 0 // f32 rows start at multiples of 16 bytes
#endif

#define BINS     2048 // of a radix round
#define BIN_BITS 11
#define WINDOW   (32 * WG) // keys of a row whose bits are handled at a time
#define LANES    32        // stretch that one work-item sums in a scan
#define SAMPLE   (4 * WG)
#define SPARE    (BINS > 2 * WG ? BINS : 2 * WG)
#define ZERO_KEY 0x80000000u // of a score of 0

// ---- what a group shares ----------------------------------------------------------------------------------------

typedef struct shared_t {
    uint key[CANDIDATES], index[CANDIDATES];
    uint spare[SPARE];            // bins of a radix round; bit sets above and equal [2][WG]
    uint scan[WG + WG / LANES];   // padded against bank conflicts
    uint part[WG / LANES];
    uint collected;
    uint low, high, above, from; // see search_t
    uint found;
} shared_t;

// At least `wanted` keys are >= low, exactly `from`; fewer, `above`, are >= high.
typedef struct search_t {
    uint low, high, above, from, wanted;
} search_t;

#define SYNC() barrier(CLK_LOCAL_MEM_FENCE)

// Sum of `value` over the work-items before this one; the sum over all in *total. Starts and ends in step.
inline uint scan_group(__local shared_t *s, uint value, uint *total)
{
    uint lane = get_local_id(0), at = lane + lane / LANES;
    s->scan[at] = value;
    SYNC();
    if (lane < WG / LANES) {
        uint sum = 0;
        for (uint i = 0; i < LANES; ++i) {
            uint here = s->scan[lane * (LANES + 1) + i];
            s->scan[lane * (LANES + 1) + i] = sum;
            sum += here;
        }
        s->part[lane] = sum;
    }
    SYNC();
    uint before = 0, all = 0;
    for (uint i = 0; i < WG / LANES; ++i) {
        before = i == lane / LANES ? all : before;
        all += s->part[i];
    }
    uint result = before + s->scan[at];
    *total = all;
    SYNC();
    return result;
}

// ---- radix rounds -----------------------------------------------------------------------------------------------

// The bin width of the next round, as a shift.
inline uint round_shift(search_t at)
{
    uint bits = 32 - clz(at.high - at.low - 1);
    return bits > BIN_BITS ? bits - BIN_BITS : 0;
}

// Ready for a round's counts.
inline void clear_bins(__local shared_t *s)
{
    for (uint i = get_local_id(0); i < BINS; i += WG)
        s->spare[i] = 0;
    if (get_local_id(0) == 0)
        s->found = s->collected = 0;
    SYNC();
}

// Keeps the bin of the wanted-th key; if there are not that many keys, wants those that there are.
inline search_t narrow(__local shared_t *s, search_t at, uint shift)
{
    const uint each = BINS / WG > 0 ? BINS / WG : 1;
    uint lane = get_local_id(0), top = BINS - lane * each, sum = 0, total;
    SYNC();
    for (uint i = 1; i <= each; ++i)
        sum += s->spare[top - i];
    uint above = at.above + scan_group(s, sum, &total);
    for (uint i = 1; i <= each; ++i) {
        uint here = s->spare[top - i];
        if (above < at.wanted && above + here >= at.wanted) {
            uint low = at.low + ((top - i) << shift);
            s->low = low;
            s->high = at.high - low > 1u << shift ? low + (1u << shift) : at.high;
            s->above = above;
            s->from = above + here;
            s->found = 1;
        }
        above += here;
    }
    SYNC();
    if (s->found) {
        at.low = s->low;
        at.high = s->high;
        at.above = s->above;
        at.from = s->from;
    } else {
        at.from = at.wanted = at.above + total;
    }
    SYNC();
    return at;
}

inline bool is_known(search_t at)
{
    return at.from == at.wanted || at.high - at.low == 1;
}

inline void count_key(__local shared_t *s, search_t at, uint shift, uint key, uint times)
{
    if (key - at.low < at.high - at.low)
        atomic_add(&s->spare[(key - at.low) >> shift], times);
}

// Counts the first m of s->key for a round.
inline void count_local(__local shared_t *s, search_t at, uint shift, uint m)
{
    for (uint i = get_local_id(0); i < m; i += WG)
        count_key(s, at, shift, s->key[i], 1);
}

// ---- reading the row --------------------------------------------------------------------------------------------

// Keys t .. t+3 of the row, t a multiple of 4; 0 outside of the range.
inline uint4 row_keys(__global const ELEM(S_DTYPE) *row, uint t, uint2 range)
{
    if (t >= range.x && t + 4 <= range.y) {
#if ALIGNED
        return topk_key4(*(__global const float4 *)(row + t));
#else
        return topk_key4(LOAD4(S_DTYPE, row, t));
#endif
    }
    uint key[4];
    for (uint i = 0; i < 4; ++i)
        key[i] = t + i >= range.x && t + i < range.y ? topk_key(LOAD(S_DTYPE, row, t + i)) : 0;
    return (uint4)(key[0], key[1], key[2], key[3]);
}

// Counts the row for a round. A plateau must not serialise: equal neighbours are counted at once, and zeros, where relu
// leaves many, in a register.
inline void count_row(__local shared_t *s, search_t at, uint shift, __global const ELEM(S_DTYPE) *row, uint2 range)
{
    uint zeros = 0;
    for (uint t = (range.x & ~3u) + 4 * get_local_id(0); t < range.y; t += 4 * WG) {
        uint4 four = row_keys(row, t, range);
        uint key[4] = {four.x, four.y, four.z, four.w};
        uint run = 0;
        for (uint i = 0; i < 4; ++i) {
            ++run;
            if (i < 3 && key[i + 1] == key[i])
                continue;
            if (key[i] == ZERO_KEY)
                zeros += run;
            else
                count_key(s, at, shift, key[i], run);
            run = 0;
        }
    }
    if (zeros)
        count_key(s, at, shift, ZERO_KEY, zeros);
}

// Collects the keys from `cut` up; s->collected becomes their number, of which the first CANDIDATES are there.
inline void collect(__local shared_t *s, __global const ELEM(S_DTYPE) *row, uint2 range, uint cut)
{
    for (uint t0 = (range.x & ~3u) + 4 * get_local_id(0); t0 < range.y; t0 += 4 * WG * UNROLL) {
        uint4 four[UNROLL];
        uint hits = 0;
#pragma unroll
        for (uint u = 0; u < UNROLL; ++u) {
            four[u] = (uint4)(0);
            if (t0 + 4 * WG * u < range.y)
                four[u] = row_keys(row, t0 + 4 * WG * u, range);
        }
#pragma unroll
        for (uint u = 0; u < UNROLL; ++u)
            hits += (four[u].x >= cut) + (four[u].y >= cut) + (four[u].z >= cut) + (four[u].w >= cut);
        if (!hits)
            continue;
        uint place = atomic_add(&s->collected, hits);
#pragma unroll
        for (uint u = 0; u < UNROLL; ++u) {
            uint key[4] = {four[u].x, four[u].y, four[u].z, four[u].w};
#pragma unroll
            for (uint i = 0; i < 4; ++i)
                if (key[i] >= cut && place < CANDIDATES) {
                    s->key[place] = key[i];
                    s->index[place++] = t0 + 4 * WG * u + i;
                }
        }
    }
}

// A sample of n > SAMPLE keys into s->key: fours of neighbours at equal strides.
inline void take_sample(__local shared_t *s, __global const ELEM(S_DTYPE) *row, uint2 range)
{
    uint n = range.y - range.x, lane = get_local_id(0);
    vstore4(row_keys(row, (range.x + (uint)((ulong)n * lane / WG)) & ~3u, range), lane, s->key);
}

// ---- the search -------------------------------------------------------------------------------------------------

// The rank in a sample that somewhat more than `wanted` of n keys reach, or 0 if the row is not worth a sample. A
// sample's rank errs by the root of it: five times that, and an eighth for neighbours that are alike.
inline uint sample_rank(uint wanted, uint n)
{
    uint aim = wanted + wanted / 8 + (uint)(5.0f * sqrt((float)wanted * (float)n / SAMPLE));
    if (n <= 2 * CANDIDATES || aim > CANDIDATES - CANDIDATES / 8)
        return 0;
    return max((uint)((ulong)aim * SAMPLE / n), 1u);
}

enum { ON_SAMPLE, ON_ROW, ON_CANDIDATES, DONE };

// Finds the threshold of the at.wanted > 0 largest. *m becomes the number of candidates, which hold the selection, or 0
// if it is to be found in the row. One loop, so that every barrier stands in it once, outside of any condition.
inline search_t search(__local shared_t *s, search_t start, __global const ELEM(S_DTYPE) *row, uint2 range, uint *m)
{
    search_t at = start;
    uint rank = sample_rank(start.wanted, range.y - range.x), state = ON_ROW, rounds = 0;
    *m = 0;
    if (rank) {
        take_sample(s, row, range);
        state = ON_SAMPLE;
        at.wanted = rank;
    }
    while (state != DONE) {
        uint shift = round_shift(at);
        clear_bins(s);
        if (state == ON_ROW)
            count_row(s, at, shift, row, range);
        else
            count_local(s, at, shift, state == ON_SAMPLE ? SAMPLE : *m);
        at = narrow(s, at, shift);
        ++rounds;

        // Two rounds resolve a cut to ten bits below the leading ones: fine enough for a guess.
        bool sampled = state == ON_SAMPLE && (rounds == 2 || is_known(at));
        bool collecting = sampled || (state == ON_ROW && at.from <= CANDIDATES);
        if (collecting)
            collect(s, row, range, at.low);
        SYNC();
        uint collected = s->collected;
        SYNC();
        if (sampled && (collected < start.wanted || collected > CANDIDATES)) {
            at = start;
            state = ON_ROW;
        } else if (collecting) {
            *m = collected;
            if (sampled)
                at = (search_t){at.low, start.high, 0, collected, start.wanted};
            state = ON_CANDIDATES;
        }
        if (state != ON_SAMPLE && is_known(at))
            state = DONE;
    }
    return at;
}

// ---- writing ----------------------------------------------------------------------------------------------------

// Sets the bits of the window's keys: those at or above `take` in the first set, those equal to `tie` in the second.
inline void mark_key(__local shared_t *s, uint t, uint key, uint take, uint tie)
{
    if (key >= take)
        atomic_or(&s->spare[t / 32], 1u << t % 32);
    else if (key == tie)
        atomic_or(&s->spare[WG + t / 32], 1u << t % 32);
}

inline void mark_row(__local shared_t *s, __global const ELEM(S_DTYPE) *row, uint window, uint2 range, uint take,
                     uint tie)
{
    for (uint t = 4 * get_local_id(0); t < WINDOW && window + t < range.y; t += 4 * WG) {
        uint4 key = row_keys(row, window + t, range);
        uint4 high = as_uint4(key >= (uint4)(take)) & (uint4)(1, 2, 4, 8);
        uint4 same = as_uint4(key == (uint4)(tie)) & (uint4)(1, 2, 4, 8);
        uint first = high.x | high.y | high.z | high.w, second = (same.x | same.y | same.z | same.w) & ~first;
        if (first)
            atomic_or(&s->spare[t / 32], first << t % 32);
        if (second)
            atomic_or(&s->spare[WG + t / 32], second << t % 32);
    }
}

typedef struct output_t {
    __global const ELEM(S_DTYPE) *row;
    __global int *indices;
    __global float *values;
    __global mask_t *mask;
} output_t;

inline void write_word(output_t out, uint t, uint bits, uint place, uint T)
{
#if MASK_BITS == 1
    if (t < T)
        out.mask[t / 32] = bits;
#elif MASK_BITS == 8
    for (uint i = 0; i < 32 && t + i < T; ++i)
        out.mask[t + i] = bits >> i & 1;
#endif
#if HAS_INDICES
    for (; bits; bits &= bits - 1) {
        uint index = t + popcount(~bits & (bits - 1));
        out.indices[place] = (int)index;
#if HAS_VALUES
        out.values[place] = LOAD(S_DTYPE, out.row, index);
#endif
        ++place;
    }
#endif
}

// Writes the selection in order. With m > 0 all of it is among the m candidates, otherwise the row is read once more.
inline void write_selection(__local shared_t *s, output_t out, search_t at, uint2 range, uint m, uint T)
{
    bool exact = at.from == at.wanted;
    uint take = exact ? at.low : at.high, tie = exact ? TOPK_INFINITY + 1 : at.low;
    uint ties = exact ? 0 : at.wanted - at.above;
    uint lane = get_local_id(0), placed = 0, tied = 0;
#if MASK_BITS
    uint window = 0, end = T;
#else
    uint window = range.x & ~31u, end = range.y;
#endif
    for (; window < end; window += WINDOW) {
        s->spare[lane] = 0;
        s->spare[WG + lane] = 0;
        SYNC();
        if (m) {
            for (uint i = lane; i < m; i += WG)
                if (s->index[i] - window < WINDOW)
                    mark_key(s, s->index[i] - window, s->key[i], take, tie);
        } else {
            mark_row(s, out.row, window, range, take, tie);
        }
        SYNC();
        uint high = s->spare[lane], same = s->spare[WG + lane], total;
        // Both counts in one scan: a window has at most 2^15 keys.
        uint before = scan_group(s, popcount(high) << 16 | popcount(same), &total);
        uint tied_before = tied + (before & 0xffffu);
        uint room = ties > tied_before ? ties - tied_before : 0;
        while (popcount(same) > room)
            same &= ~(0x80000000u >> clz(same));
        write_word(out, window + 32 * lane, high | same, placed + (before >> 16) + min(tied_before, ties), T);
        placed += total >> 16;
        tied += total & 0xffffu;
    }
}

// ---- the kernel -------------------------------------------------------------------------------------------------

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void topk_radix(TOPK_ARGS)
{
    __local shared_t shared;
    __local shared_t *s = &shared;
    uint r = get_group_id(0), lane = get_local_id(0);
    output_t out = {.row = scores + scores_off + (size_t)r * T};
    uint2 range = topk_range(ks + ks_off, ke + ke_off, r, T);
    uint n = range.y - range.x;
    // How many can be selected at all is not known yet: `from` stays above what is wanted until it is.
    search_t at = {1, TOPK_INFINITY + 1, 0, n + 1, min(topk_wanted(k_rows + k_rows_off, r, T, K, k, share), n)};
#if HAS_INDICES
    out.indices = indices + indices_off + (size_t)r * K;
#endif
#if HAS_VALUES
    out.values = values + values_off + (size_t)r * K;
#endif
#if MASK_BITS
    out.mask = mask + mask_off + (size_t)r * MASK_ROW(T);
#endif

    uint m = 0;
    if (at.wanted)
        at = search(s, at, out.row, range, &m);
    write_selection(s, out, at, range, m, T);
#if HAS_INDICES
    for (uint p = at.wanted + lane; p < K; p += WG) {
        out.indices[p] = -1;
#if HAS_VALUES
        out.values[p] = -INFINITY;
#endif
    }
#endif
#if HAS_COUNT
    if (lane == 0)
        count[count_off + r] = (int)at.wanted;
#endif
}
