// Top-k of rows for CPUs (host/ops/topk.c). A work-item selects whole rows, every `workers`-th of them.
//
//   row --key--> keys [n] in scratch --search--> cut --one ordered pass--> indices, mask
//
// Keys are unsigned integers in the order of the scores. The threshold is found by trying values: each step counts
// the keys at or above one, 16 at a time, and the search ends as soon as exactly k are. That beats a histogram while
// the keys stay in the caches: no scattered writes, and many equal scores cost nothing.
//
// Long rows are thinned first: a sample of the row gives a cut that somewhat more than k keys pass, one pass collects
// those with their positions, and the search runs over them. A cut that lets too few or too many pass costs time,
// never the result: the search then runs over the whole row.
//
// Scratch of a work-item: `keys` [T rounded up to 32] (collected keys in its first half, their positions in the
// second), and behind it, for descending scores, two lists [K] of 64-bit (key, index) pairs to sort.
#include "topk.clh"

#ifndef DENSE
#define DENSE 8192 // shorter rows are not sampled (2048 .. 32768)
#endif
#ifndef SAMPLE
#define SAMPLE 1024 // keys in a sample; a multiple of 32 (256 .. 4096)
#endif
#ifndef EVEN_STEPS
#define EVEN_STEPS 12 // steps of a search that take scores as evenly spread, before it halves (0 .. 16)
#endif

#define PICKS 512 // picked positions on their way out

// ---- counting and searching -------------------------------------------------------------------------------------

inline uint sum16u(uint16 v)
{
    uint8 a = v.lo + v.hi;
    uint4 b = a.lo + a.hi;
    uint2 c = b.lo + b.hi;
    return c.x + c.y;
}

// How many of keys[0 .. n), n a multiple of 32, are at or above `cut`.
inline uint count_from(__global const uint *keys, uint n, uint cut)
{
    uint16 a = (uint16)(0), b = a;
    for (uint j = 0; j < n; j += 32) {
        a -= as_uint16(vload16(0, keys + j) >= (uint16)(cut));
        b -= as_uint16(vload16(0, keys + j + 16) >= (uint16)(cut));
    }
    return sum16u(a + b);
}

inline uint max16u(uint16 v)
{
    uint8 a = max(v.lo, v.hi);
    uint4 b = max(a.lo, a.hi);
    uint2 c = max(b.lo, b.hi);
    return max(c.x, c.y);
}

// The selection among keys[0 .. n): those at or above `cut`, and from position `turn` on only those above it; `kept`
// in number.
typedef struct cut_t {
    uint cut, turn, kept;
} cut_t;

// Position behind the ties-th key that equals `cut`.
inline uint after_ties(__global const uint *keys, uint cut, uint ties)
{
    uint j = 0;
    for (;; j += 16) {
        uint equal = sum16u(as_uint16(-(vload16(0, keys + j) == (uint16)(cut))));
        if (equal >= ties)
            break;
        ties -= equal;
    }
    for (; ties; ++j)
        ties -= keys[j] == cut;
    return j;
}

// Where to try next: at least k keys, namely `from`, are >= low, and fewer, namely `above`, are >= high. Early steps
// take the scores as spread evenly between the two, which needs a third of the steps of bisection on ordinary rows;
// later ones halve, which no row can spoil.
inline uint next_cut(uint low, uint high, uint from, uint above, uint k, uint step)
{
    if (step < EVEN_STEPS) {
        float a = topk_unkey(low), b = topk_unkey(high);
        uint even = topk_key(a + (b - a) * ((float)(from - k) / (float)(from - above)));
        if (even > low && even < high)
            return even;
    }
    return low + (high - low) / 2;
}

// The k largest, or all that can be selected, ties to the lowest position. n is a multiple of 32.
inline cut_t search_cut(__global const uint *keys, uint n, uint k)
{
    uint16 most = (uint16)(0), least = most, none = most;
    for (uint j = 0; j < n; j += 16) {
        uint16 key = vload16(0, keys + j);
        most = max(most, key);
        least = max(least, ~(key - (uint16)(1))); // the complement, for which a key of 0 does not count
        none -= as_uint16(key == (uint16)(0));
    }
    uint from = n - sum16u(none), above = 0, low = ~max16u(least) + 1, high = max16u(most) + 1;
    if (k == 0 || from == 0)
        return (cut_t){TOPK_INFINITY + 1, n, 0};
    if (k >= from)
        return (cut_t){low, n, from};
    for (uint step = 0; high - low > 1; ++step) {
        uint cut = next_cut(low, high, from, above, k, step), found = count_from(keys, n, cut);
        if (found == k)
            return (cut_t){cut, n, k};
        if (found > k) {
            low = cut;
            from = found;
        } else {
            high = cut;
            above = found;
        }
    }
    return (cut_t){low, after_ties(keys, low, k - above), k};
}

// ---- reading rows -----------------------------------------------------------------------------------------------

// keys[j] of row position j for 0 <= j < n; 0 before `first` and, up to the next multiple of 32, behind the end.
inline void read_row(__global const ELEM(S_DTYPE) *row, uint first, uint n, __global uint *keys)
{
    uint j = 0;
    for (; j + 16 <= n; j += 16)
        vstore16(topk_key16(LOAD16(S_DTYPE, row, j)), 0, keys + j);
    for (; j < n; ++j)
        keys[j] = topk_key(LOAD(S_DTYPE, row, j));
    for (; j % 32; ++j)
        keys[j] = 0;
    for (j = 0; j < first; ++j)
        keys[j] = 0;
}

// A cut that about `aim` of the n > SAMPLE keys should pass, from sixteens of neighbours at equal strides; uses
// keys[0 .. SAMPLE).
inline uint sample_cut(__global const ELEM(S_DTYPE) *row, uint n, uint aim, __global uint *keys)
{
    uint stride = n / (SAMPLE / 16);
    for (uint i = 0; i < SAMPLE / 16; ++i)
        vstore16(topk_key16(LOAD16(S_DTYPE, row, i * stride)), 0, keys + 16 * i);
    return search_cut(keys, SAMPLE, max((uint)((ulong)aim * SAMPLE / n), 1u)).cut;
}

// Bit i of the result is the lowest bit of byte i.
inline uint gather_bits(ulong bytes)
{
    return (uint)(((bytes & 0x0101010101010101ul) * 0x0102040810204080ul) >> 56);
}

// One bit for each true lane of a comparison.
inline uint bits32(int16 low, int16 high)
{
    ulong2 a = as_ulong2(convert_char16(low)), b = as_ulong2(convert_char16(high));
    return gather_bits(a.x) | gather_bits(a.y) << 8 | gather_bits(b.x) << 16 | gather_bits(b.y) << 24;
}

// positions[b]: a byte for each set bit of b, from the lowest up: where it stands. The bytes behind are 0.
#define BIT(b, i) ((ulong)((b) >> (i)&1))
#define BELOW(b, i)                                                                                                    \
    (BIT(b, 0) * ((i) > 0) + BIT(b, 1) * ((i) > 1) + BIT(b, 2) * ((i) > 2) + BIT(b, 3) * ((i) > 3) +                   \
     BIT(b, 4) * ((i) > 4) + BIT(b, 5) * ((i) > 5) + BIT(b, 6) * ((i) > 6))
#define PLACE(b, i) (BIT(b, i) * (i) << 8 * BELOW(b, i))
#define OF_1(b) PLACE(b, 1) | PLACE(b, 2) | PLACE(b, 3) | PLACE(b, 4) | PLACE(b, 5) | PLACE(b, 6) | PLACE(b, 7)
#define OF_4(b) OF_1(b), OF_1((b) + 1), OF_1((b) + 2), OF_1((b) + 3)
#define OF_16(b) OF_4(b), OF_4((b) + 4), OF_4((b) + 8), OF_4((b) + 12)
#define OF_64(b) OF_16(b), OF_16((b) + 16), OF_16((b) + 32), OF_16((b) + 48)
__constant ulong positions[256] = {OF_64(0), OF_64(64), OF_64(128), OF_64(192)};

// to[m ..] = first + i for each set bit i of `hits`, of 32; m goes up by their number. Up to eight words behind them
// are overwritten. No branch depends on how many there are, which no CPU would foresee.
#define PUT_POSITIONS(hits, first, to, m)                                                                              \
    _Pragma("unroll") for (uint byte_ = 0; byte_ < 4; ++byte_)                                                         \
    {                                                                                                                  \
        const uint b_ = (hits) >> 8 * byte_ & 255;                                                                     \
        vstore8(convert_uint8(as_uchar8(positions[b_])) + (uint8)((first) + 8 * byte_), 0, (to) + (m));                \
        (m) += popcount(b_);                                                                                           \
    }

// Collects the keys from `cut` up, and their positions, in order; returns their number, or 0 if they exceed `room`.
// Floats are compared, not keys: one instruction, and monotone even on a device that flushes denormals, so that what
// is collected is the upper end of the row in any case.
inline uint collect(__global const ELEM(S_DTYPE) *row, uint n, uint cut, __global uint *keys, __global uint *at,
                    uint room)
{
    const float least = topk_unkey(cut);
    uint m = 0, j = 0;
    for (; j + 64 <= n; j += 64) {
        int16 hit[4];
#pragma unroll
        for (uint h = 0; h < 4; ++h)
            hit[h] = LOAD16(S_DTYPE, row, j + 16 * h) >= (float16)(least);
        const ulong2 some = as_ulong2(convert_char16(hit[0] | hit[1] | hit[2] | hit[3])); // any() looks lane by lane
        if ((some.x | some.y) == 0)
            continue;
        if (m + 64 > room)
            return 0;
#pragma unroll
        for (uint h = 0; h < 2; ++h) {
            const uint hits = bits32(hit[2 * h], hit[2 * h + 1]);
            PUT_POSITIONS(hits, j + 32 * h, at, m)
        }
    }
    for (; j < n; ++j) {
        if (!(LOAD(S_DTYPE, row, j) >= least))
            continue;
        if (m == room)
            return 0;
        at[m++] = j;
    }
    for (uint i = 0; i < m; ++i)
        keys[i] = topk_key(LOAD(S_DTYPE, row, at[i]));
    for (uint pad = m; pad % 32; ++pad)
        keys[pad] = 0;
    return m;
}

// ---- writing ----------------------------------------------------------------------------------------------------

// Where a row's results go. Positions are those of `keys`; `at` turns a collected key's into the row's, if not NULL,
// and `base` is the key that position 0 of the row stands for.
typedef struct output_t {
    __global const ELEM(S_DTYPE) *scores; // of the whole row
    __global const uint *keys, *at;
    uint base;
    __global int *indices;
    __global float *values;
    __global mask_t *mask;
    __global ulong *pairs; // unsorted (~key, index)
    uint written;
} output_t;

// What is read of *out in a loop that stores is read again in each round: hence the copies.
inline void write_picks(output_t *out, const uint *picks, uint n)
{
    __global const uint *at = out->at;
    const uint base = out->base;
#define INDEX(pick) (base + (at ? at[pick] : (pick)))
#if HAS_INDICES && BY_SCORE
    __global const uint *keys = out->keys;
    __global ulong *pairs = out->pairs + out->written;
    for (uint i = 0; i < n; ++i)
        pairs[i] = (ulong)~keys[picks[i]] << 32 | INDEX(picks[i]);
#elif HAS_INDICES
    __global int *indices = out->indices + out->written;
    for (uint i = 0; i < n; ++i)
        indices[i] = (int)INDEX(picks[i]);
#if HAS_VALUES
    __global const ELEM(S_DTYPE) *scores = out->scores;
    __global float *values = out->values + out->written;
    for (uint i = 0; i < n; ++i)
        values[i] = LOAD(S_DTYPE, scores, INDEX(picks[i]));
#endif
#endif
#if MASK_BITS
    __global mask_t *mask = out->mask;
    for (uint i = 0; at && i < n; ++i) {
        const uint index = INDEX(picks[i]);
#if MASK_BITS == 8
        mask[index] = 1;
#else
        mask[index / 32] |= 1u << index % 32;
#endif
    }
#endif
    out->written += n;
}

// The lanes of keys[j .. j + 16) that are selected.
inline int16 selected16(__global const uint *keys, cut_t cut, uint j)
{
    const uint16 step = (uint16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const uint16 late = as_uint16((uint16)(j) + step >= (uint16)(cut.turn)) & (uint16)(1);
    return vload16(0, keys + j) >= (uint16)(cut.cut) + late;
}

// All picks in order, among keys[0 .. n) and, up to a multiple of 32, zeros, which are never selected.
inline void write_selection(output_t *out, cut_t cut, uint n)
{
    uint picks[PICKS + 32], m = 0;
    for (uint j = 0; j < n; j += 32) {
        const uint hits = bits32(selected16(out->keys, cut, j), selected16(out->keys, cut, j + 16));
        PUT_POSITIONS(hits, j, picks, m)
        if (m >= PICKS) {
            write_picks(out, picks, m);
            m = 0;
        }
    }
    write_picks(out, picks, m);
}

#if MASK_BITS
// The mask of positions 0 .. n, a multiple of 32 but for the row's end; base is a multiple of 32 too.
inline void write_mask(__global mask_t *mask, __global const uint *keys, cut_t cut, uint base, uint n)
{
    for (uint j = 0; j < n; j += 32) {
        const int16 hit[2] = {selected16(keys, cut, j), selected16(keys, cut, j + 16)};
#if MASK_BITS == 1
        mask[(base + j) / 32] = bits32(hit[0], hit[1]);
#else
        uchar16 on[2];
        for (uint h = 0; h < 2; ++h)
            on[h] = as_uchar16(convert_char16(hit[h])) & (uchar16)(1);
        if (j + 32 <= n) {
            vstore16(on[0], 0, mask + base + j);
            vstore16(on[1], 0, mask + base + j + 16);
        } else {
            for (uint i = 0; i < n - j; ++i)
                mask[base + j + i] = ((const uchar *)on)[i];
        }
#endif
    }
}
#endif

#if BY_SCORE
// Stable counting sorts by the four bytes of the high word; `pairs` ends up sorted.
inline void sort_pairs(__global ulong *pairs, __global ulong *other, uint n)
{
    for (uint shift = 32; shift < 64; shift += 8) {
        uint start[256];
        for (uint d = 0; d < 256; ++d)
            start[d] = 0;
        for (uint i = 0; i < n; ++i)
            ++start[pairs[i] >> shift & 255];
        for (uint d = 0, sum = 0; d < 256; ++d) {
            uint here = start[d];
            start[d] = sum;
            sum += here;
        }
        for (uint i = 0; i < n; ++i)
            other[start[pairs[i] >> shift & 255]++] = pairs[i];
        __global ulong *sorted = other;
        other = pairs;
        pairs = sorted;
    }
}
#endif

// What a selection of `kept` leaves to do: sort, and fill the unused places.
inline void finish_row(output_t *out, uint kept, uint K)
{
#if HAS_INDICES
#if BY_SCORE
    sort_pairs(out->pairs, out->pairs + K, kept);
    for (uint i = 0; i < kept; ++i) {
        uint index = (uint)out->pairs[i];
        out->indices[i] = (int)index;
#if HAS_VALUES
        out->values[i] = LOAD(S_DTYPE, out->scores, index);
#endif
    }
#endif
    for (uint i = kept; i < K; ++i) {
        out->indices[i] = -1;
#if HAS_VALUES
        out->values[i] = -INFINITY;
#endif
    }
#endif
}

// ---- the kernel -------------------------------------------------------------------------------------------------

// Selects over a thinned row. False if the cut was no good, and then nothing is written.
inline bool select_sampled(output_t *out, uint2 range, uint wanted, __global uint *keys, uint T)
{
    uint n = range.y - range.x, room = n / 2 / 32 * 32;
    uint aim = wanted + wanted / 4 + n / SAMPLE * 8;
    if (n < DENSE || aim > room - room / 4)
        return false;
    __global const ELEM(S_DTYPE) *row = out->scores + range.x;
    __global uint *at = keys + room;
    uint m = collect(row, n, sample_cut(row, n, aim, keys), keys, at, room);
    if (m < wanted)
        return false;
    cut_t cut = search_cut(keys, (m + 31) / 32 * 32, wanted);
    cut.turn = min(cut.turn, m);
    out->at = at;
    out->base = range.x;
#if MASK_BITS
    for (uint i = 0; i < MASK_ROW(T); ++i)
        out->mask[i] = 0;
#endif
    write_selection(out, cut, m);
    return true;
}

// Selects over all keys of the row; returns how many it kept. Positions start at a multiple of 32, for the words of the
// mask.
inline uint select_dense(output_t *out, uint2 range, uint wanted, __global uint *keys, uint T)
{
    uint base = range.x & ~31u, n = range.y - base;
    read_row(out->scores + base, range.x - base, n, keys);
    cut_t cut = search_cut(keys, (n + 31) / 32 * 32, wanted);
    out->base = base;
    cut.turn = min(cut.turn, n);
#if HAS_INDICES
    if (cut.kept)
        write_selection(out, cut, n);
#endif
#if MASK_BITS
    size_t words = MASK_ROW(T), from = base / (32 / MASK_ROW(32)), to = from + MASK_ROW(n);
    for (size_t i = 0; i < from; ++i)
        out->mask[i] = 0;
    write_mask(out->mask, keys, cut, base, n);
    for (size_t i = to; i < words; ++i)
        out->mask[i] = 0;
#endif
    return cut.kept;
}

__kernel void topk_vec(TOPK_ARGS, __global uint *scratch, ulong scratch_off, ulong scratch_each, uint workers)
{
    uint worker = get_global_id(0);
    __global uint *keys = scratch + scratch_off + worker * scratch_each;
    k_rows += k_rows_off;
    ks += ks_off;
    ke += ke_off;
    for (uint r = worker; r < rows; r += workers) {
        output_t out = {.scores = scores + scores_off + (size_t)r * T, .keys = keys};
#if HAS_INDICES
        out.indices = indices + indices_off + (size_t)r * K;
#if BY_SCORE
        out.pairs = (__global ulong *)(keys + (T + 31) / 32 * 32);
#endif
#endif
#if HAS_VALUES
        out.values = values + values_off + (size_t)r * K;
#endif
#if MASK_BITS
        out.mask = mask + mask_off + (size_t)r * MASK_ROW(T);
#endif
        uint2 range = topk_range(ks, ke, r, T);
        uint wanted = topk_wanted(k_rows, r, T, K, k, share), kept = wanted;
        if (!wanted || !select_sampled(&out, range, wanted, keys, T))
            kept = select_dense(&out, range, wanted, keys, T);
        finish_row(&out, kept, K);
#if HAS_COUNT
        count[count_off + r] = (int)kept;
#endif
    }
}
