// Top-k of long rows for GPUs (host/ops/topk.c): a work-group takes ROWS rows, one after the other.
//
//   row before --> cut --one read--> candidates in local memory --radix rounds--> threshold --bit set--> indices, mask
//     \-- no good, or the first: a sample --> cut --^
//           \-- no good --> radix rounds over the row itself until the candidates fit, or the threshold is known
//
// A cut that somewhat more than k keys pass comes from what the row before held around its threshold, or from a strided
// sample of the row; one read of the row collects those keys in local memory, and everything after that happens there:
// two reads less than a histogram of the row. A cut that lets too few or too many pass costs time, never the result.
//
// A radix round splits the range of keys that holds the threshold into BINS equal bins, counts the keys in each and
// keeps the bin with the k-th. Candidates are collected in any order and counted by integer atomics, so counts and sets
// are the same every time; the order of the output comes from a bit set over WINDOW keys of the row at a time, whose
// running counts are the places. Of the keys that equal the threshold the first ones are taken.
//
// A row of up to SHORT keys lies in the cache after its first read: the rounds take it from there, without a cut.
//
// With ascending indices that is all; topk_sort.cl puts them by score where asked.
#include "topk.clh"

#ifndef WG
#define WG 512 // work-items per group; a power of two (128 .. 1024)
#endif
#ifndef CANDIDATES
#define CANDIDATES 4096 // keys that local memory takes, with their indices (1024 .. 8192)
#endif
#ifndef UNROLL
#define UNROLL 1 // loads of four keys in flight per work-item (1 .. 4)
#endif
#ifndef ROWS
#define ROWS 8 // rows per group, one after the other (1 .. 16)
#endif
#ifndef ALIGNED
#define ALIGNED 0 // f32 rows start at multiples of 16 bytes
#endif

#define BINS      2048 // of a radix round
#define BIN_BITS  11
#define WORDS     (BINS / 2) // of each of two bit sets in the place of the bins
#define WINDOW    (32 * WORDS) // keys of a row whose bits are handled at a time
#define SHORT     4096 // keys of a row that the cache holds; as in host/ops/topk.c
#define PIECE     8 // keys of a bit set that a work-item writes where many are selected; divides 32
#define LANES     32 // a stretch: what one work-item sums in a scan
#define STRETCHES (WG / LANES)
#define SAMPLE    (4 * WG)
#define ZERO_KEY  0x80000000u // of a score of 0

// Of -FLT_MIN and FLT_MIN: denormals and zeros lie between.
#define LEAST_BELOW_ZERO 0x7f7fffffu
#define LEAST_ABOVE_ZERO 0x80800000u

// ---- what a group shares ----------------------------------------------------------------------------------------

// At least `wanted` keys are >= low, exactly `from`; fewer, `above`, are >= high. The bins of a round cover the keys
// from low to low + span; what lies above them counts as the last bin.
typedef struct search_t {
    uint low, high, span, above, from, wanted;
} search_t;

// What a row suggests for the next one: the key that about as many should pass as leave room for fewer and for more,
// and the span of the first round. Good for the same number of wanted keys; 0 if the row suggests nothing.
typedef struct guess_t {
    uint cut, span, wanted;
} guess_t;

typedef struct shared_t {
    uint2 candidate[CANDIDATES];                 // key and index
    uint spare[BINS];                            // bins of a radix round; bit sets above and equal [2][WORDS]
    uint scan[WG + STRETCHES];                   // padded against bank conflicts
    uint part[STRETCHES], before[STRETCHES + 1]; // sums of stretches, and of all before each
    uint collected, found;

    // Here rather than in registers: with more than 32 of those a group less is in flight on NVIDIA's GPUs.
    search_t at;
    guess_t guess;
    uint m; // candidates, which hold the selection; 0: it is to be found in the row
} shared_t;

#define SYNC() barrier(CLK_LOCAL_MEM_FENCE)

// Sum of `value` over the work-items before this one; the sum over all in *total. Starts and ends in step.
inline uint scan_group(__local shared_t *s, uint value, uint *total)
{
    uint lane = get_local_id(0), at = lane + lane / LANES;
    s->scan[at] = value;
    SYNC();
    if (lane < STRETCHES) {
        uint sum = 0;
        for (uint i = 0; i < LANES; ++i) {
            uint here = s->scan[lane * (LANES + 1) + i];
            s->scan[lane * (LANES + 1) + i] = sum;
            sum += here;
        }
        s->part[lane] = sum;
    }
    SYNC();
    if (lane <= STRETCHES) {
        uint before = 0;
        for (uint i = 0; i < STRETCHES; ++i)
            before += i < lane ? s->part[i] : 0;
        s->before[lane] = before;
    }
    SYNC();
    uint result = s->before[lane / LANES] + s->scan[at];
    *total = s->before[STRETCHES];
    SYNC();
    return result;
}

// ---- radix rounds -----------------------------------------------------------------------------------------------

// The bin width of the next round, as a shift.
inline uint round_shift(__local const shared_t *s)
{
    uint bits = 32 - clz(s->at.span - 1);
    return bits > BIN_BITS ? bits - BIN_BITS : 0;
}

// Ready for a round's counts, or for two bit sets.
inline void clear_bins(__local shared_t *s)
{
    for (uint i = get_local_id(0); i < BINS / 4; i += WG)
        vstore4((uint4)(0), i, s->spare);
    if (get_local_id(0) == 0)
        s->found = s->collected = 0;
    SYNC();
}

// Keeps the bin of the wanted-th key; if there are not that many keys, wants those that there are.
inline void narrow(__local shared_t *s, uint shift)
{
    const uint each = BINS / WG;
    uint lane = get_local_id(0), top = BINS - lane * each, sum = 0, total;
    uint low = s->at.low, high = s->at.high, wanted = s->at.wanted, before = s->at.above;
    SYNC();
    for (uint i = 1; i <= each; ++i)
        sum += s->spare[top - i];
    uint above = before + scan_group(s, sum, &total);
    if (above < wanted && above + sum >= wanted) {
        uint bin = top - 1, here = s->spare[bin];
        while (above + here < wanted) {
            above += here;
            here = s->spare[--bin];
        }
        uint start = low + (bin << shift);
        uint end = bin < BINS - 1 && high - start > 1u << shift ? start + (1u << shift) : high;
        s->at = (search_t){start, end, end - start, above, above + here, wanted};
        s->found = 1;
    }
    SYNC();
    if (lane == 0 && !s->found) {
        s->at.from = s->at.wanted = before + total;
        s->at.span = high - low;
    }
    SYNC();
}

inline bool is_known(__local const shared_t *s)
{
    return s->at.from == s->at.wanted || s->at.high - s->at.low == 1;
}

inline void count_key(__local shared_t *s, uint low, uint range, uint shift, uint key, uint times)
{
    if (key - low < range)
        atomic_add(&s->spare[min((key - low) >> shift, (uint)BINS - 1)], times);
}

// Counts the keys of the first n candidates for a round.
inline void count_local(__local shared_t *s, uint shift, uint n)
{
    uint low = s->at.low, range = s->at.high - low;
    for (uint i = get_local_id(0); i < n; i += WG)
        count_key(s, low, range, shift, s->candidate[i].x, 1);
}

// ---- reading the row --------------------------------------------------------------------------------------------

// Scores t .. t+3 of the row, t a multiple of 4.
inline float4 row_scores(__global const ELEM(S_DTYPE) *row, uint t)
{
#if ALIGNED
    return *(__global const float4 *)(row + t);
#else
    return LOAD4(S_DTYPE, row, t);
#endif
}

// Their keys; 0 outside of the range.
inline uint4 row_keys(__global const ELEM(S_DTYPE) *row, uint t, uint2 range)
{
    if (t >= range.x && t + 4 <= range.y)
        return topk_key4(row_scores(row, t));
    uint key[4];
    for (uint i = 0; i < 4; ++i)
        key[i] = t + i >= range.x && t + i < range.y ? topk_key(LOAD(S_DTYPE, row, t + i)) : 0;
    return (uint4)(key[0], key[1], key[2], key[3]);
}

// Counts the row for a round. A plateau must not serialise: equal neighbours are counted at once, and zeros, where relu
// leaves many, in a register.
inline void count_row(__local shared_t *s, uint shift, __global const ELEM(S_DTYPE) *row, uint2 range)
{
    uint zeros = 0, low = s->at.low, span = s->at.high - low;
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
                count_key(s, low, span, shift, key[i], run);
            run = 0;
        }
    }
    if (zeros)
        count_key(s, low, span, shift, ZERO_KEY, zeros);
}

// The nearest key to `cut` whose score may be compared as a float: a device may take denormals for zeros.
inline uint exact_cut(uint cut, bool upwards)
{
    bool exact = cut <= LEAST_BELOW_ZERO || cut >= LEAST_ABOVE_ZERO;
    return exact ? max(cut, TOPK_LOWEST) : upwards ? LEAST_ABOVE_ZERO : LEAST_BELOW_ZERO;
}

// Collects the scores from `cut`, an exact one, up, with their indices; s->collected becomes their number. If that is
// above CANDIDATES, some are missing. Scores are compared as they are: making keys of all of them, of which few pass,
// took a tenth of the kernel's time (NVIDIA H200), which instructions bound.
inline void collect(__local shared_t *s, __global const ELEM(S_DTYPE) *row, uint2 range, uint cut)
{
    float least = topk_unkey(cut);
    uint lane = get_local_id(0), first = (range.x + 3) & ~3u, last = range.y & ~3u;
    for (uint t0 = first + 4 * lane; t0 < last; t0 += 4 * WG * UNROLL) {
        float4 four[UNROLL];
        uint hits = 0;
#pragma unroll
        for (uint u = 0; u < UNROLL; ++u)
            four[u] = u == 0 || t0 + 4 * WG * u < last ? row_scores(row, t0 + 4 * WG * u) : (float4)(-INFINITY);
#pragma unroll
        for (uint u = 0; u < UNROLL; ++u)
            hits += (four[u].x >= least) + (four[u].y >= least) + (four[u].z >= least) + (four[u].w >= least);
        if (!hits)
            continue;
        uint place = atomic_add(&s->collected, hits);
        if (place + hits > CANDIDATES)
            continue;
#pragma unroll
        for (uint u = 0; u < UNROLL; ++u) {
            float score[4] = {four[u].x, four[u].y, four[u].z, four[u].w};
#pragma unroll
            for (uint i = 0; i < 4; ++i) {
                if (score[i] >= least)
                    s->candidate[place] = (uint2)(as_uint(score[i]), t0 + 4 * WG * u + i);
                place += score[i] >= least;
            }
        }
    }

    // Up to three scores before the first whole four, and up to three behind the last.
    uint t = lane < 4 ? range.x + lane : max(first, last) + lane - 4;
    if (lane < 8 && t < (lane < 4 ? min(first, range.y) : range.y) && LOAD(S_DTYPE, row, t) >= least) {
        uint place = atomic_inc(&s->collected);
        if (place < CANDIDATES)
            s->candidate[place] = (uint2)(as_uint(LOAD(S_DTYPE, row, t)), t);
    }
}

// Makes keys of the m scores collected; each work-item those that it counts later.
inline void convert(__local shared_t *s, uint m)
{
    for (uint i = get_local_id(0); i < m; i += WG)
        s->candidate[i].x = topk_key(as_float(s->candidate[i].x));
}

// Keys of a sample of the row into candidates: fours of neighbours at equal strides, of s->at.from - 1 >= SAMPLE keys.
// Taken from local memory, their number keeps the compiler from working out places ahead of the loop and holding them
// meanwhile.
inline void take_sample(__local shared_t *s, __global const ELEM(S_DTYPE) *row, uint2 range)
{
    uint stride = s->at.from / WG, lane = get_local_id(0);
    uint4 four = row_keys(row, (range.x + stride * lane) & ~3u, range);
    uint key[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (uint i = 0; i < 4; ++i)
        s->candidate[4 * lane + i].x = key[i];
}

// ---- the search -------------------------------------------------------------------------------------------------

// The rank in a sample that somewhat more than `wanted` of n keys reach, or 0 if the row is not worth a sample. A
// sample's rank errs by the root of it: five times that, and an eighth for neighbours that are alike.
inline uint sample_rank(uint wanted, uint n)
{
    uint aim = wanted + wanted / 8 + (uint)(5.0f * native_sqrt((float)wanted * (float)n / SAMPLE));
    if (n <= 2 * CANDIDATES || aim > CANDIDATES - CANDIDATES / 8)
        return 0;
    return max(aim * SAMPLE / n, 1u);
}

// What a row whose `wanted` keys were found at `threshold`, among m candidates from `cut` up, suggests for the next:
// scores are taken to be as dense below the threshold as between it and the cut, and to reach eight times as far above
// the cut as there are wanted. From above zero no cut is lowered to where relu leaves many zeros, if there may be more
// than local memory takes.
inline guess_t next_guess(uint cut, uint threshold, uint wanted, uint m, uint n)
{
    uint spare = min(3 * wanted / 8 + 64, (CANDIDATES - min(wanted, (uint)CANDIDATES)) / 2);
    if (m == 0 || spare < wanted / 8)
        return (guess_t){0, 0, 0};
    float at = topk_unkey(threshold), each = (float)spare * native_recip((float)max(m - wanted, 16u));
    uint next = topk_key(at - each * (at - topk_unkey(cut))); // 0, no guess, where that is no number
    if (next)
        next = clamp(next, cut > ZERO_KEY && n > CANDIDATES ? ZERO_KEY + 1 : TOPK_LOWEST, threshold);
    return (guess_t){next, 8 * clamp(threshold - next, (uint)BINS, 1u << 28), wanted};
}

enum { ON_GUESS, ON_SAMPLE, ON_SAMPLE_AGAIN, ON_ROW, ON_SHORT_ROW, ON_CANDIDATES, DONE };

// The search begins with all keys; how many can be selected at all is not known yet, so `from` stays above what is
// wanted.
inline search_t whole_row(uint wanted, uint2 range)
{
    return (search_t){1, TOPK_INFINITY + 1, TOPK_INFINITY, 0, range.y - range.x + 1, wanted};
}

// Finds the threshold of the `wanted` largest: s->at and s->m. Begins with s->guess, which becomes that for the next
// row. One loop, so that every barrier and every read of the row stands in it once.
inline void search(__local shared_t *s, uint wanted, __global const ELEM(S_DTYPE) *row, uint2 range)
{
    bool is_short = range.y - range.x <= SHORT;
    uint lane = get_local_id(0), state = !wanted ? DONE : is_short ? ON_SHORT_ROW : ON_GUESS;
    if (lane == 0) {
        s->at = whole_row(wanted, range);
        s->m = 0;
        s->guess.cut = s->guess.wanted == wanted ? s->guess.cut : 0;
    }
    SYNC();
    while (state != DONE) {
        clear_bins(s);
        if (state != ON_GUESS) {
            uint shift = round_shift(s);
            if (state == ON_ROW || state == ON_SHORT_ROW)
                count_row(s, shift, row, range);
            else
                count_local(s, shift, state == ON_CANDIDATES ? s->m : SAMPLE);
            narrow(s, shift);
        }

        // Two rounds resolve a sample's cut to ten bits below the leading ones: fine enough for a guess.
        bool guessed = state == ON_SAMPLE_AGAIN || (state == ON_SAMPLE && is_known(s));
        bool whole = state == ON_ROW && s->at.from <= CANDIDATES;
        uint cut = state == ON_GUESS ? s->guess.cut : guessed || whole ? s->at.low : 0;
        if (cut) {
            cut = exact_cut(cut, !whole && cut > ZERO_KEY);
            collect(s, row, range, cut);
        }
        SYNC();
        uint collected = s->collected;
        if (cut && (whole || collected >= wanted) && collected <= CANDIDATES) {
            convert(s, collected);
            if (lane == 0) {
                uint high = TOPK_INFINITY + 1, span = state == ON_GUESS ? s->guess.span : high - cut;
                if (!whole)
                    s->at = (search_t){cut, high, span, 0, collected, wanted};
                s->m = collected;
                s->guess.cut = cut;
            }
            state = ON_CANDIDATES;
        } else if (state == ON_GUESS) {
            uint rank = sample_rank(wanted, s->at.from - 1);
            if (rank)
                take_sample(s, row, range);
            if (rank && lane == 0)
                s->at.wanted = rank;
            state = rank ? ON_SAMPLE : ON_ROW;
        } else if (guessed) {
            if (lane == 0)
                s->at = whole_row(wanted, range);
            state = ON_ROW;
        } else if (state == ON_SAMPLE) {
            state = ON_SAMPLE_AGAIN;
        }
        SYNC();
        if (state >= ON_ROW && is_known(s))
            state = DONE;
    }
    if (lane == 0)
        s->guess = next_guess(s->guess.cut, s->at.low, wanted, s->m, range.y - range.x);
}

// ---- writing ----------------------------------------------------------------------------------------------------

// Sets the bits of the window's keys: those at or above `take` in the first set, those equal to `tie` in the second.
inline void mark_key(__local shared_t *s, uint t, uint key, uint take, uint tie)
{
    if (key >= take)
        atomic_or(&s->spare[t / 32], 1u << t % 32);
    else if (key == tie)
        atomic_or(&s->spare[WORDS + t / 32], 1u << t % 32);
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
            atomic_or(&s->spare[WORDS + t / 32], second << t % 32);
    }
}

typedef struct output_t {
    __global const ELEM(S_DTYPE) *row;
    __global int *indices;
    __global float *values;
    __global mask_t *mask;
} output_t;

inline void write_mask(output_t out, uint t, uint bits, uint T)
{
#if MASK_BITS == 1
    if (t < T)
        out.mask[t / 32] = bits;
#elif MASK_BITS == 8
    for (uint i = 0; i < 32 && t + i < T; ++i)
        out.mask[t + i] = bits >> i & 1;
#endif
}

// Writes the keys t + i of the bits i to places from `place` on.
inline void write_places(output_t out, uint t, uint bits, uint place)
{
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

// Whether a piece holds about one selected key or more. Asked where it matters: the answer, kept, costs registers.
inline bool is_dense(__local const shared_t *s, uint2 range)
{
    return HAS_INDICES && s->at.wanted * PIECE >= range.y - range.x;
}

// Writes a window's keys, a piece to a work-item, so that neighbours write to neighbouring places: a work-item with
// whole words full of bits would write to a line of memory by itself, again and again. Words and their places are in
// the two bit sets.
inline void write_pieces(__local const shared_t *s, output_t out, uint window, uint2 range)
{
    for (uint t = PIECE * get_local_id(0); t < WINDOW && window + t < range.y; t += PIECE * WG) {
        uint word = s->spare[t / 32], shift = t % 32, below = word & ((1u << shift) - 1);
        uint piece = word & (((1u << PIECE) - 1) << shift);
        write_places(out, window + t - shift, piece, s->spare[WORDS + t / 32] + popcount(below));
    }
}

// Writes the selection in order.
inline void write_selection(__local shared_t *s, output_t out, uint2 range, uint T)
{
    search_t at = s->at;
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
        clear_bins(s);
        if (s->m) {
            for (uint i = lane; i < s->m; i += WG) {
                uint2 one = s->candidate[i];
                if (one.y - window < WINDOW)
                    mark_key(s, one.y - window, one.x, take, tie);
            }
        } else {
            mark_row(s, out.row, window, range, take, tie);
        }
        SYNC();
        // Both counts in one scan: a window has 2^15 keys.
        const uint each = WORDS / WG;
        uint here = 0, total;
        for (uint w = each * lane; w < each * (lane + 1); ++w)
            here += popcount(s->spare[w]) << 16 | popcount(s->spare[WORDS + w]);
        uint before = scan_group(s, here, &total);
        uint place = placed + (before >> 16), tied_before = tied + (before & 0xffffu);
        place += min(tied_before, ties);
        for (uint w = each * lane; w < each * (lane + 1); ++w) {
            uint bits = s->spare[WORDS + w], room = ties > tied_before ? ties - tied_before : 0;
            tied_before += popcount(bits);
            while (popcount(bits) > room)
                bits &= ~(0x80000000u >> clz(bits));
            bits |= s->spare[w];
            write_mask(out, window + 32 * w, bits, T);
            if (is_dense(s, range)) {
                s->spare[w] = bits;
                s->spare[WORDS + w] = place;
            } else {
                write_places(out, window + 32 * w, bits, place);
            }
            place += popcount(bits);
        }
        placed += total >> 16;
        tied += total & 0xffffu;
        SYNC();
        if (is_dense(s, range)) {
            write_pieces(s, out, window, range);
            SYNC();
        }
    }
}

// ---- the kernel -------------------------------------------------------------------------------------------------

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void topk_radix(TOPK_ARGS)
{
    __local shared_t shared;
    __local shared_t *s = &shared;
    uint lane = get_local_id(0), end = min(rows, ROWS * ((uint)get_group_id(0) + 1));
    if (lane == 0)
        s->guess.wanted = 0;
    for (uint r = ROWS * get_group_id(0); r < end; ++r) {
        uint2 range = topk_range(ks + ks_off, ke + ke_off, r, T);
        uint wanted = min(topk_wanted(k_rows + k_rows_off, r, T, K, k, share), range.y - range.x);
        search(s, wanted, scores + scores_off + (size_t)r * T, range);

        output_t out = {.row = scores + scores_off + (size_t)r * T};
#if HAS_INDICES
        out.indices = indices + indices_off + (size_t)r * K;
#endif
#if HAS_VALUES
        out.values = values + values_off + (size_t)r * K;
#endif
#if MASK_BITS
        out.mask = mask + mask_off + (size_t)r * MASK_ROW(T);
#endif
        write_selection(s, out, range, T);
        wanted = s->at.wanted; // there may be fewer
#if HAS_INDICES
        for (uint p = wanted + lane; p < K; p += WG) {
            out.indices[p] = -1;
#if HAS_VALUES
            out.values[p] = -INFINITY;
#endif
        }
#endif
#if HAS_COUNT
        if (lane == 0)
            count[count_off + r] = (int)wanted;
#endif
        SYNC(); // local memory serves the next row
    }
}
