// Top-k of rows for CPUs (host/ops/topk.c). A work-item selects whole rows, every `workers`-th of them.
//
//   row --key--> keys [n] in scratch --bisection--> cut --one ordered pass--> indices, mask
//
// Keys are unsigned integers in the order of the scores. The threshold is found by bisection on its value: each step
// counts the keys at or above a candidate, 16 at a time, and the search ends as soon as exactly k are. That beats a
// histogram while the keys stay in the caches: no scattered writes, no dependence on how the scores are spread.
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
#define SAMPLE 1024 // keys in a sample; a multiple of 16 (256 .. 4096)
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

// The selection among keys[0 .. n): those at or above `cut`, and from position `turn` on only those above it.
typedef struct cut_t {
    uint cut, turn;
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

// The k largest, ties to the lowest position. 1 <= k <= keys above 0; `top` is the largest key.
inline cut_t search_cut(__global const uint *keys, uint n, uint k, uint top)
{
    // At least k keys are >= low; fewer, namely `above`, are >= high.
    uint low = 1, high = top + 1, above = 0;
    while (high - low > 1) {
        uint middle = low + (high - low) / 2;
        uint found = count_from(keys, n, middle);
        if (found == k)
            return (cut_t){middle, n};
        if (found > k) {
            low = middle;
        } else {
            high = middle;
            above = found;
        }
    }
    return (cut_t){low, after_ties(keys, low, k - above)};
}

// ---- reading rows -----------------------------------------------------------------------------------------------

typedef struct summary_t {
    uint top;        // the largest key
    uint selectable; // keys above 0
} summary_t;

inline uint max16u(uint16 v)
{
    uint8 a = max(v.lo, v.hi);
    uint4 b = max(a.lo, a.hi);
    uint2 c = max(b.lo, b.hi);
    return max(c.x, c.y);
}

// keys[j] of row position j for 0 <= j < n; 0 before `first` and, up to the next multiple of 32, behind the end.
inline summary_t read_row(__global const ELEM(S_DTYPE) *row, uint first, uint n, __global uint *keys)
{
    uint16 top = (uint16)(0), selectable = top;
    uint j = 0;
    for (; j + 16 <= n; j += 16) {
        uint16 key = topk_key16(LOAD16(S_DTYPE, row, j));
        if (j < first)
            key = (uint16)(j) + (uint16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) < (uint16)(first)
                      ? (uint16)(0)
                      : key;
        vstore16(key, 0, keys + j);
        top = max(top, key);
        selectable -= as_uint16(key != (uint16)(0));
    }
    summary_t sum = {max16u(top), sum16u(selectable)};
    for (; j < n; ++j) {
        uint key = j < first ? 0 : topk_key(LOAD(S_DTYPE, row, j));
        keys[j] = key;
        sum.top = max(sum.top, key);
        sum.selectable += key != 0;
    }
    for (; j % 32; ++j)
        keys[j] = 0;
    return sum;
}

// A cut that about `aim` of the n > SAMPLE keys should pass, from a strided sample; uses keys[0 .. SAMPLE).
inline uint sample_cut(__global const ELEM(S_DTYPE) *row, uint n, uint aim, __global uint *keys)
{
    uint stride = n / SAMPLE, top = 0, selectable = 0;
    for (uint i = 0; i < SAMPLE; ++i) {
        uint key = topk_key(LOAD(S_DTYPE, row, i * stride));
        keys[i] = key;
        top = max(top, key);
        selectable += key != 0;
    }
    uint rank = (uint)((ulong)aim * SAMPLE / n);
    if (rank >= selectable)
        return 1;
    return search_cut(keys, SAMPLE, max(rank, 1u), top).cut;
}

// Collects the keys from `cut` up, and their positions, in order; returns their number, or 0 if they exceed `room`.
inline uint collect(__global const ELEM(S_DTYPE) *row, uint n, uint cut, __global uint *keys, __global uint *at,
                    uint room, uint *top)
{
    uint m = 0, j = 0;
    uint16 most = (uint16)(0);
    for (; j + 16 <= n; j += 16) {
        uint16 key = topk_key16(LOAD16(S_DTYPE, row, j));
        int16 hit = key >= (uint16)(cut);
        if (!any(hit))
            continue;
        if (m + 16 > room)
            return 0;
        most = max(most, key);
        uint lane[16];
        vstore16(key, 0, lane);
        for (uint i = 0; i < 16; ++i) {
            keys[m] = lane[i];
            at[m] = j + i;
            m += lane[i] >= cut;
        }
    }
    *top = max16u(most);
    for (; j < n; ++j) {
        uint key = topk_key(LOAD(S_DTYPE, row, j));
        if (key < cut)
            continue;
        if (m == room)
            return 0;
        *top = max(*top, key);
        keys[m] = key;
        at[m++] = j;
    }
    for (uint pad = m; pad % 32 && pad < room; ++pad)
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

inline void write_picks(output_t *out, const uint *picks, uint n)
{
    for (uint i = 0; i < n; ++i) {
        uint index = out->base + (out->at ? out->at[picks[i]] : picks[i]);
#if MASK_BITS
        if (out->at) {
#if MASK_BITS == 8
            out->mask[index] = 1;
#else
            out->mask[index / 32] |= 1u << index % 32;
#endif
        }
#endif
#if HAS_INDICES && BY_SCORE
        out->pairs[out->written + i] = (ulong)~out->keys[picks[i]] << 32 | index;
#elif HAS_INDICES
        out->indices[out->written + i] = (int)index;
#if HAS_VALUES
        out->values[out->written + i] = LOAD(S_DTYPE, out->scores, index);
#endif
#endif
    }
    out->written += n;
}

// All picks in order. The loops are free of branches on the data: each key is stored, and counted only if it is picked.
inline void write_selection(output_t *out, cut_t cut, uint n)
{
    uint picks[PICKS + 16], m = 0;
    for (uint part = 0; part < 2; ++part) {
        uint j = part ? cut.turn : 0, end = part ? n : cut.turn, from = cut.cut + part;
        for (; j + 16 <= end; j += 16) {
            for (uint i = 0; i < 16; ++i) {
                picks[m] = j + i;
                m += out->keys[j + i] >= from;
            }
            if (m >= PICKS) {
                write_picks(out, picks, m);
                m = 0;
            }
        }
        for (; j < end; ++j) {
            picks[m] = j;
            m += out->keys[j] >= from;
        }
    }
    write_picks(out, picks, m);
}

#if MASK_BITS
// Bit i of the result is the lowest bit of byte i.
inline uint gather_bits(ulong bytes)
{
    return (uint)(((bytes & 0x0101010101010101ul) * 0x0102040810204080ul) >> 56);
}

// The mask of positions 0 .. n, a multiple of 32 but for the row's end; base is a multiple of 32 too.
inline void write_mask(__global mask_t *mask, __global const uint *keys, cut_t cut, uint base, uint n)
{
    const uint16 step = (uint16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (uint j = 0; j < n; j += 32) {
        uchar16 on[2];
        for (uint h = 0; h < 2; ++h) {
            uint16 late = as_uint16((uint16)(j + 16 * h) + step >= (uint16)(cut.turn)) & (uint16)(1);
            int16 hit = vload16(0, keys + j + 16 * h) >= (uint16)(cut.cut) + late;
            on[h] = as_uchar16(convert_char16(hit)) & (uchar16)(1);
        }
#if MASK_BITS == 8
        if (j + 32 <= n) {
            vstore16(on[0], 0, mask + base + j);
            vstore16(on[1], 0, mask + base + j + 16);
        } else {
            for (uint i = 0; i < n - j; ++i)
                mask[base + j + i] = ((const uchar *)on)[i];
        }
#else
        ulong2 low = as_ulong2(on[0]), high = as_ulong2(on[1]);
        mask[(base + j) / 32] =
            gather_bits(low.x) | gather_bits(low.y) << 8 | gather_bits(high.x) << 16 | gather_bits(high.y) << 24;
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
    uint top, m = collect(row, n, sample_cut(row, n, aim, keys), keys, at, room, &top);
    if (m < wanted)
        return false;
    cut_t cut = search_cut(keys, (m + 31) / 32 * 32, wanted, top);
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

// Selects over all keys of the row; returns how many it kept. Positions start at a multiple of 32, for the mask's words.
inline uint select_dense(output_t *out, uint2 range, uint wanted, __global uint *keys, uint T)
{
    uint base = range.x & ~31u, n = range.y - base;
    summary_t sum = read_row(out->scores + base, range.x - base, n, keys);
    uint kept = min(wanted, sum.selectable);
    cut_t cut = {sum.top + 1, n};
    if (kept)
        cut = search_cut(keys, (n + 31) / 32 * 32, kept, sum.top);
    out->base = base;
    cut.turn = min(cut.turn, n);
#if HAS_INDICES
    if (kept)
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
    return kept;
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
