// How far the softmax of the indexer's scores is from a target, row by row, with the gradient (host/ops/indexer_kl.c).
//
//   seen     = the selected keys of a row whose score is not -inf, as it is outside of the row's range
//   row_loss = sum over seen of p * (log p - log softmax(scores)), with 0 log 0 = 0
//   gradient = dloss * (mass * softmax(scores) - p), mass the sum of p over seen; 0 where unseen; in the scores' place
//
//   scores [rows,keys]   p [rows,T]   selected u8 [rows,T] or u32 bits [rows,ceil(T/32)]   row_loss [rows]   keys <= T
//
// The rows are those of a slab: scores are packed, with fewer keys than T where a causal slab ends before it.
// Keys that are not seen have the score -inf from their reading on, and no part in any sum: whatever q, k and p hold
// there stays there. NaN or +inf in a seen score makes its row NaN, and no other. A row that sees nothing gives zeros.
// vec: a work-item takes ROWS rows, and walks over each up to three times: maximum; sums; loss and gradient. simt: a
// work-group per row, and two walks; the first finds the maximum and the sum together.
#include "math.clh"

#ifndef ROWS
#define ROWS 1 // rows per work-item, vec (1 .. 16)
#endif
#ifndef WG
#define WG 256 // work-items per row, simt; a power of two (64 .. 1024)
#endif
#ifndef PER_LANE
#define PER_LANE 4 // of a row's keys in a work-item's registers, simt (1 .. 16)
#endif
#ifndef MASK
#define MASK 0 // of selected keys: 0: none, 1: bytes, 2: bits
#endif
#ifndef HAS_LOSS
#define HAS_LOSS 1 // row_loss is wanted
#endif
#ifndef HAS_GRADIENT
#define HAS_GRADIENT 1 // the gradient is wanted
#endif
#ifndef HAS_UPSTREAM
#define HAS_UPSTREAM 1 // dloss is given; else it is 1
#endif
#include "rows.clh"

#if MASK == 1
#define MASK_ELEM uchar
#define MASK_ROW(T) (T) // elements of a row of the mask
#define SELECTED(selected, j) ((selected)[j] != 0)
#else
#define MASK_ELEM uint
#define MASK_ROW(T) (((T) + 31) / 32)
#if MASK == 2
#define SELECTED(selected, j) ((((selected)[(j) / 32] >> ((j) & 31)) & 1u) != 0)
#else
#define SELECTED(selected, j) 1 // not read
#endif
#endif

#define INDEXER_KL_ARGS                                                                                                \
    __global float *scores, ulong scores_off, __global const float *p, ulong p_off,                                    \
        __global const MASK_ELEM *selected, ulong selected_off, __global float *row_loss, ulong row_loss_off,          \
        __global const float *dloss, ulong dloss_off, ulong rows, uint keys, uint T

#if HAS_UPSTREAM
#define UPSTREAM dloss[dloss_off]
#else
#define UPSTREAM 1.0f
#endif

// ---- vec --------------------------------------------------------------------------------------------------------

// Scores j .. j + 15 of a row; -inf where a key is not selected, and behind the last.
inline float16 seen_scores(__global const float *x, __global const MASK_ELEM *selected, uint j, uint keys)
{
    if (j + 16 > keys) {
        float lanes[16];
        for (uint i = 0; i < 16; ++i)
            lanes[i] = j + i < keys && SELECTED(selected, j + i) ? x[j + i] : -INFINITY;
        return vload16(0, lanes);
    }
    float16 v = vload16(0, x + j);
#if MASK == 1
    v = convert_int16(vload16(0, selected + j)) != (int16)(0) ? v : (float16)(-INFINITY);
#elif MASK == 2
    const uint16 lane = (uint16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    v = (((uint16)(selected[j / 32] >> (j & 31)) >> lane) & 1u) != (uint16)(0) ? v : (float16)(-INFINITY);
#endif
    return v;
}

// The target beside them; 0 where a score is -inf.
inline float16 seen_target(__global const float *p, uint j, uint keys, float16 v)
{
    float16 t;
    if (j + 16 > keys) {
        float lanes[16];
        for (uint i = 0; i < 16; ++i)
            lanes[i] = j + i < keys ? p[j + i] : 0.0f;
        t = vload16(0, lanes);
    } else {
        t = vload16(0, p + j);
    }
    return v == (float16)(-INFINITY) ? (float16)(0.0f) : t;
}

inline void store_gradient(float16 g, __global float *x, uint j, uint keys)
{
    if (j + 16 > keys) {
        float lanes[16];
        vstore16(g, 0, lanes);
        for (uint i = 0; j + i < keys; ++i)
            x[j + i] = lanes[i];
    } else {
        vstore16(g, 0, x + j);
    }
}

__kernel void indexer_kl_vec(INDEXER_KL_ARGS)
{
    const size_t first = get_global_id(0) * ROWS, last = min(first + ROWS, (size_t)rows);
    const float up = UPSTREAM;
    for (size_t r = first; r < last; ++r) {
        __global float *x = scores + scores_off + r * keys;
        __global const float *target = p + p_off + r * T;
        __global const MASK_ELEM *mask = selected + selected_off + r * MASK_ROW(T);

        float16 tops = (float16)(-INFINITY);
        for (uint j = 0; j < keys; j += 16)
            tops = MAX_OF(seen_scores(x, mask, j, keys), tops);
        const float top = max16(tops), shift = top == -INFINITY ? 0.0f : top;

        float16 sums = (float16)(0.0f), masses = sums;
        for (uint j = 0; j < keys; j += 16) {
            const float16 v = seen_scores(x, mask, j, keys);
            sums += exp_fast16(v - shift);
            masses += seen_target(target, j, keys, v);
        }
        const float sum = sum16(sums), scale = up * sum16(masses) / sum, log_sum = log(sum);

        float16 terms = (float16)(0.0f);
        for (uint j = 0; j < keys; j += 16) {
            const float16 v = seen_scores(x, mask, j, keys), t = seen_target(target, j, keys, v);
#if HAS_LOSS
            terms += t == (float16)(0.0f) ? (float16)(0.0f) : t * (log(t) + (log_sum - (v - shift)));
#endif
#if HAS_GRADIENT
            const float16 g = fma(exp_fast16(v - shift), (float16)(scale), -up * t);
            store_gradient(v == (float16)(-INFINITY) ? (float16)(0.0f) : g, x, j, keys);
#endif
        }
#if HAS_LOSS
        row_loss[row_loss_off + r] = sum16(terms);
#endif
    }
}

// ---- simt -------------------------------------------------------------------------------------------------------

#define STEP (PER_LANE * WG) // keys that a group holds in registers at once; a lane's are WG apart

#define READ_STEP(first)                                                                                               \
    _Pragma("unroll") for (uint i = 0; i < PER_LANE; ++i)                                                              \
    {                                                                                                                  \
        const uint j = (first) + lane + i * WG;                                                                        \
        const bool on = j < keys && SELECTED(mask, j);                                                                 \
        v[i] = on ? x[j] : -INFINITY;                                                                                  \
        t[i] = on ? target[j] : 0.0f;                                                                                  \
    }                                                                                                                  \
    _Pragma("unroll") for (uint i = 0; i < PER_LANE; ++i) t[i] = v[i] == -INFINITY ? 0.0f : t[i];

// What a sum of exp(x - from) is worth as a sum of exp(x - to), from <= to.
inline float carried(float sum, float from, float to)
{
    return from == to ? sum : sum * exp_fast(from - to);
}

// The second walk goes backwards: it begins with the keys that are still in registers.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void indexer_kl_simt(INDEXER_KL_ARGS)
{
    __local float scratch[WG];
    const size_t r = get_group_id(0);
    const uint lane = get_local_id(0), last = keys == 0 ? 0 : (keys - 1) / STEP * STEP;
    __global float *x = scores + scores_off + r * keys;
    __global const float *target = p + p_off + r * T;
    __global const MASK_ELEM *mask = selected + selected_off + r * MASK_ROW(T);
    float v[PER_LANE], t[PER_LANE];

    float top = -INFINITY, sum = 0.0f, mass = 0.0f;
    for (uint first = 0; first <= last; first += STEP) {
        READ_STEP(first)
        float larger = top;
        _Pragma("unroll") for (uint i = 0; i < PER_LANE; ++i) larger = MAX_OF(v[i], larger);
        sum = carried(sum, top, larger);
        top = larger;
        const float shift = top == -INFINITY ? 0.0f : top;
        _Pragma("unroll") for (uint i = 0; i < PER_LANE; ++i)
        {
            sum += exp_fast(v[i] - shift);
            mass += t[i];
        }
    }
    const float best = group_max(scratch, top), shift = best == -INFINITY ? 0.0f : best, up = UPSTREAM;
    sum = group_sum(scratch, carried(sum, top, best));
    mass = group_sum(scratch, mass);

    const float scale = up * mass / sum, log_sum = log(sum);
    float terms = 0.0f;
    for (uint first = last;; first -= STEP) {
        if (first != last) {
            READ_STEP(first)
        }
        _Pragma("unroll") for (uint i = 0; i < PER_LANE; ++i)
        {
#if HAS_LOSS
            terms += t[i] == 0.0f ? 0.0f : t[i] * (log(t[i]) + (log_sum - (v[i] - shift)));
#endif
#if HAS_GRADIENT
            const uint j = first + lane + i * WG;
            const float g = fma(exp_fast(v[i] - shift), scale, -up * t[i]);
            if (j < keys)
                x[j] = v[i] == -INFINITY ? 0.0f : g;
#endif
        }
        if (first == 0)
            break;
    }
#if HAS_LOSS
    terms = group_sum(scratch, terms);
    if (lane == 0)
        row_loss[row_loss_off + r] = terms;
#endif
}
