// Rotary position embedding, and the packing of latent attention's heads that goes with it (host/ops/rope.c).
//
//   angle(s, i) = position(s) * theta^(-2i / ROPE),  i = 0 .. ROPE/2
//   (a, b) -> (a cos - b sin, a sin + b cos);  back: the rotation by -angle, which is the transpose
//
// A rotated vector's pairs lie as halves (i, i + ROPE/2) or interleaved (2i, 2i + 1). Read -> written:
//   HALF halves -> halves;  INTERLEAVED interleaved -> interleaved;  REGROUP interleaved -> halves
//
// vec: a work-item takes ROWS rows with all their heads; frequencies are found once per work-item, sines once per row.
// simt: a work-item takes one element to copy or one pair to turn, of HEADS heads; neighbours take neighbours.
#include "inline.clh"

#ifndef ROPE
#define ROPE 16 // rotated elements per head, even
#endif
#ifndef STYLE
#define STYLE 2 // cldsa_rope_style: 0 HALF, 1 INTERLEAVED, 2 REGROUP
#endif
#ifndef INVERSE
#define INVERSE 0 // rope: turn back
#endif
#ifndef HAS_POSITIONS
#define HAS_POSITIONS 0 // rope: positions are given, else a row's own index
#endif
#ifndef ROWS
#define ROWS 8 // vec: rows per work-item (1 .. 32)
#endif
#ifndef WG
#define WG 128 // simt: work-items per group (64 .. 256)
#endif
#ifndef HEADS
#define HEADS 8 // simt: heads per work-item (1 .. 16)
#endif

#define PAIRS (ROPE / 2)
#define PAIRS_PADDED ((PAIRS + 7) / 8 * 8)
#define PLAIN_INTERLEAVED (STYLE != 0)
#define TURNED_INTERLEAVED (STYLE == 1)

// ---- angles -----------------------------------------------------------------------------------------------------

// A float's error in an angle grows with the position: at 2^18 it is 0.01. So frequencies are kept in two floats, as
// turns per position, and whole turns are dropped before anything is rounded: fma gives the product's fraction exactly.

// Product of two numbers of two floats each. No sum is split into high and low again, so that contracting any of
// these operations leaves the result as good.
inline float2 product2(float2 a, float2 b)
{
    float high = a.x * b.x;
    return (float2)(high, fma(a.x, b.x, -high) + fma(a.x, b.y, a.y * b.x));
}

// Turns per position of pair i: ratio^i / (2 pi), ratio = theta^(-2 / ROPE).
inline float2 frequency(uint i, float2 ratio)
{
    float2 f = (float2)(0.15915493667125702f, 6.4206383e-9f);
    for (; i > 0; i >>= 1) {
        if (i & 1u)
            f = product2(f, ratio);
        ratio = product2(ratio, ratio);
    }
    return f;
}

// Sine and cosine of position * frequency turns: the nearest quarter turn is taken off, Cephes' polynomials do the rest.
#define ROPE_SINCOS(F, I, CONVERT, position, high, low, cosine, sine)                                                  \
    {                                                                                                                  \
        F whole_ = rint((position) * (high));                                                                          \
        F turns_ = fma((F)(position), high, -whole_) + (position) * (low);                                             \
        F quarters_ = rint(4.0f * turns_);                                                                             \
        F x_ = fma(quarters_, (F)(-0.25f), turns_) * 6.2831853f, z_ = x_ * x_;                                         \
        F s_ = fma(fma(fma(z_, (F)(-1.9515295891e-4f), (F)(8.3321608736e-3f)), z_, (F)(-1.6666654611e-1f)), z_ * x_,   \
                   x_);                                                                                                \
        F c_ = fma(fma(fma(z_, (F)(2.443315711809948e-5f), (F)(-1.388731625493765e-3f)), z_,                           \
                       (F)(4.166664568298827e-2f)),                                                                    \
                   z_ * z_, fma(z_, (F)(-0.5f), (F)(1.0f)));                                                           \
        I q_ = CONVERT(quarters_);                                                                                     \
        F from_s_ = (q_ & 1) != 0 ? c_ : s_, from_c_ = (q_ & 1) != 0 ? s_ : c_;                                        \
        sine = (q_ & 2) != 0 ? -from_s_ : from_s_;                                                                     \
        cosine = ((q_ + 1) & 2) != 0 ? -from_c_ : from_c_;                                                             \
    }

// ---- pairs ------------------------------------------------------------------------------------------------------

inline float2 load_pair(int interleaved, __global const float *x, uint i)
{
    return interleaved ? (float2)(x[2 * i], x[2 * i + 1]) : (float2)(x[i], x[i + PAIRS]);
}

inline void store_pair(int interleaved, __global float *y, uint i, float2 pair)
{
    y[interleaved ? 2 * i : i] = pair.x;
    y[interleaved ? 2 * i + 1 : i + PAIRS] = pair.y;
}

inline float2 turn_pair(float2 pair, float cosine, float sine)
{
    return (float2)(fma(pair.x, cosine, -pair.y * sine), fma(pair.y, cosine, pair.x * sine));
}

// ---- vec --------------------------------------------------------------------------------------------------------

// Pairs i .. i+7 as (a, b).
inline float16 load_pairs8(int interleaved, __global const float *x, uint i)
{
    if (interleaved) {
        float16 v = vload16(0, x + 2 * i);
        return (float16)(v.even, v.odd);
    }
    return (float16)(vload8(0, x + i), vload8(0, x + PAIRS + i));
}

inline void store_pairs8(int interleaved, __global float *y, uint i, float16 pairs)
{
    if (interleaved) {
        float16 v;
        v.even = pairs.lo;
        v.odd = pairs.hi;
        vstore16(v, 0, y + 2 * i);
    } else {
        vstore8(pairs.lo, 0, y + i);
        vstore8(pairs.hi, 0, y + PAIRS + i);
    }
}

inline float16 turn_pairs8(float16 pairs, float8 cosine, float8 sine)
{
    return (float16)(fma(pairs.lo, cosine, -pairs.hi * sine), fma(pairs.hi, cosine, pairs.lo * sine));
}

// y = x turned, or turned back where `back`. y may be x if both layouts are the same.
inline void turn_row(int back, __global const float *x, __global float *y, const float *cosine, const float *sine)
{
    int from = back ? TURNED_INTERLEAVED : PLAIN_INTERLEAVED, to = back ? PLAIN_INTERLEAVED : TURNED_INTERLEAVED;
    float sign = back ? -1.0f : 1.0f;
    uint i = 0;
    for (; i + 8 <= PAIRS; i += 8)
        store_pairs8(to, y, i, turn_pairs8(load_pairs8(from, x, i), vload8(0, cosine + i), sign * vload8(0, sine + i)));
    for (; i < PAIRS; ++i)
        store_pair(to, y, i, turn_pair(load_pair(from, x, i), cosine[i], sign * sine[i]));
}

inline void all_frequencies(float2 ratio, float *high, float *low)
{
    for (uint i = 0; i < PAIRS_PADDED; ++i) {
        float2 f = frequency(i, ratio);
        high[i] = f.x;
        low[i] = f.y;
    }
}

inline void all_sines(float position, const float *high, const float *low, float *cosine, float *sine)
{
    for (uint i = 0; i < PAIRS_PADDED; i += 8) {
        float8 c, s;
        ROPE_SINCOS(float8, int8, convert_int8, position, vload8(0, high + i), vload8(0, low + i), c, s);
        vstore8(c, 0, cosine + i);
        vstore8(s, 0, sine + i);
    }
}

inline void copy(__global const float *from, __global float *to, uint count)
{
    uint d = 0;
    for (; d + 16 <= count; d += 16)
        vstore16(vload16(0, from + d), 0, to + d);
    for (; d < count; ++d)
        to[d] = from[d];
}

#define ROPE_ARGS                                                                                                      \
    __global const float *x, ulong x_off, __global const int *positions, ulong positions_off, __global float *y,       \
        ulong y_off, float ratio_high, float ratio_low, uint rows, uint length, uint heads, uint dim

inline float position_of(__global const int *positions, uint row, uint length)
{
#if HAS_POSITIONS
    return (float)positions[row];
#else
    return (float)(row % length);
#endif
}

__kernel void rope_vec(ROPE_ARGS)
{
    float high[PAIRS_PADDED], low[PAIRS_PADDED], cosine[PAIRS_PADDED], sine[PAIRS_PADDED];
    all_frequencies((float2)(ratio_high, ratio_low), high, low);
    uint first = get_global_id(0) * ROWS, last = min(first + ROWS, rows), plain = dim - ROPE;
    for (uint row = first; row < last; ++row) {
        all_sines(position_of(positions + positions_off, row, length), high, low, cosine, sine);
        for (uint h = 0; h < heads; ++h) {
            size_t at = ((size_t)row * heads + h) * dim;
            copy(x + x_off + at, y + y_off + at, plain);
            turn_row(INVERSE, x + x_off + at + plain, y + y_off + at + plain, cosine, sine);
        }
    }
}

// P = nope + ROPE. Forward: q_in [rows, heads, P], kv [rows, heads, nope + value], kv_a [rows, shared], of which the
// last ROPE columns count -> q, k [rows, heads, P], v [rows, heads, value]. Backward: the gradients, the other way.
#define PACK_ARGS                                                                                                      \
    __global const float *q_in, ulong q_in_off, __global const float *kv, ulong kv_off, __global const float *kv_a,    \
        ulong kv_a_off, __global float *q, ulong q_off, __global float *k, ulong k_off, __global float *v,             \
        ulong v_off, float ratio_high, float ratio_low, uint rows, uint length, uint heads, uint nope, uint value,     \
        uint shared
#define PACK_BACKWARD_ARGS                                                                                             \
    __global const float *dq, ulong dq_off, __global const float *dk, ulong dk_off, __global const float *dv,          \
        ulong dv_off, __global float *dq_in, ulong dq_in_off, __global float *dkv, ulong dkv_off,                      \
        __global float *dkv_a, ulong dkv_a_off, float ratio_high, float ratio_low, uint rows, uint length, uint heads, \
        uint nope, uint value, uint shared

__kernel void mla_pack_vec(PACK_ARGS)
{
    float high[PAIRS_PADDED], low[PAIRS_PADDED], cosine[PAIRS_PADDED], sine[PAIRS_PADDED];
    all_frequencies((float2)(ratio_high, ratio_low), high, low);
    uint first = get_global_id(0) * ROWS, last = min(first + ROWS, rows);
    for (uint row = first; row < last; ++row) {
        all_sines((float)(row % length), high, low, cosine, sine);
        size_t head = (size_t)row * heads;
        __global const float *key = kv_a + kv_a_off + (size_t)(row + 1) * shared - ROPE;
        __global const float *q_from = q_in + q_in_off + head * (nope + ROPE);
        __global const float *kv_from = kv + kv_off + head * (nope + value);
        __global float *q_to = q + q_off + head * (nope + ROPE), *k_to = k + k_off + head * (nope + ROPE);
        __global float *v_to = v + v_off + head * value;
        for (uint h = 0; h < heads; ++h) {
            copy(q_from, q_to, nope);
            turn_row(0, q_from + nope, q_to + nope, cosine, sine);
            copy(kv_from, k_to, nope);
            turn_row(0, key, k_to + nope, cosine, sine);
            copy(kv_from + nope, v_to, value);
            q_from += nope + ROPE;
            q_to += nope + ROPE;
            kv_from += nope + value;
            k_to += nope + ROPE;
            v_to += value;
        }
    }
}

// The shared key's gradient is the sum over the heads, in order, turned back.
inline void shared_key_gradient(__global const float *dk, __global float *to, uint heads, uint width,
                                const float *cosine, const float *sine)
{
    uint i = 0;
    for (; i + 8 <= PAIRS; i += 8) {
        float16 sum = load_pairs8(TURNED_INTERLEAVED, dk, i);
        for (uint h = 1; h < heads; ++h)
            sum += load_pairs8(TURNED_INTERLEAVED, dk + (size_t)h * width, i);
        store_pairs8(PLAIN_INTERLEAVED, to, i, turn_pairs8(sum, vload8(0, cosine + i), -vload8(0, sine + i)));
    }
    for (; i < PAIRS; ++i) {
        float2 sum = load_pair(TURNED_INTERLEAVED, dk, i);
        for (uint h = 1; h < heads; ++h)
            sum += load_pair(TURNED_INTERLEAVED, dk + (size_t)h * width, i);
        store_pair(PLAIN_INTERLEAVED, to, i, turn_pair(sum, cosine[i], -sine[i]));
    }
}

__kernel void mla_pack_backward_vec(PACK_BACKWARD_ARGS)
{
    float high[PAIRS_PADDED], low[PAIRS_PADDED], cosine[PAIRS_PADDED], sine[PAIRS_PADDED];
    all_frequencies((float2)(ratio_high, ratio_low), high, low);
    uint first = get_global_id(0) * ROWS, last = min(first + ROWS, rows);
    for (uint row = first; row < last; ++row) {
        all_sines((float)(row % length), high, low, cosine, sine);
        size_t head = (size_t)row * heads;
        __global const float *q_from = dq + dq_off + head * (nope + ROPE), *k_from = dk + dk_off + head * (nope + ROPE);
        __global const float *v_from = dv + dv_off + head * value;
        __global float *q_to = dq_in + dq_in_off + head * (nope + ROPE), *kv_to = dkv + dkv_off + head * (nope + value);
        shared_key_gradient(k_from + nope, dkv_a + dkv_a_off + (size_t)(row + 1) * shared - ROPE, heads, nope + ROPE,
                            cosine, sine);
        for (uint h = 0; h < heads; ++h) {
            copy(q_from, q_to, nope);
            turn_row(1, q_from + nope, q_to + nope, cosine, sine);
            copy(k_from, kv_to, nope);
            copy(v_from, kv_to + nope, value);
            q_from += nope + ROPE;
            q_to += nope + ROPE;
            k_from += nope + ROPE;
            kv_to += nope + value;
            v_from += value;
        }
    }
}

// ---- simt -------------------------------------------------------------------------------------------------------

// One dimension of groups, `tiles` of them per row: some devices allow few groups in the others.
#define TILE_OF_ROW(units)                                                                                             \
    uint tiles = ((units) + WG - 1) / WG, row = get_group_id(0) / tiles;                                               \
    uint unit = get_group_id(0) % tiles * WG + get_local_id(0);                                                        \
    if (unit >= (units))                                                                                               \
        return;

// Unit u of the heads h0 .. h0 + HEADS: the same element or pair of each, so that an angle's sine is found once.
#define BLOCKS(heads) (((heads) + HEADS - 1) / HEADS)
#define UNIT_OF_BLOCK(per_head)                                                                                        \
    uint h0 = unit / (per_head) * HEADS, count = min((uint)HEADS, heads - h0), u = unit % (per_head);                  \
    size_t head = (size_t)row * heads + h0;

// All heads are read before one is written: loads in flight.
static inline void copy_heads(__global const float *x, size_t x_step, __global float *y, size_t y_step, uint count)
{
    float value[HEADS];
    for (uint h = 0; h < HEADS; ++h)
        value[h] = x[min(h, count - 1) * x_step];
    for (uint h = 0; h < HEADS; ++h)
        if (h < count)
            y[h * y_step] = value[h];
}

// Heads of nope elements, which are copied, and ROPE that are turned; x_rope may lie elsewhere than behind x.
static inline void turn_heads(int back, __global const float *x, size_t x_step, __global const float *x_rope,
                              size_t rope_step, __global float *y, size_t y_step, uint count, uint u, uint nope,
                              float position, float2 ratio)
{
    if (u < nope) {
        copy_heads(x + u, x_step, y + u, y_step, count);
        return;
    }
    float2 f = frequency(u - nope, ratio), pair[HEADS];
    for (uint h = 0; h < HEADS; ++h)
        pair[h] = load_pair(back ? TURNED_INTERLEAVED : PLAIN_INTERLEAVED, x_rope + min(h, count - 1) * rope_step,
                            u - nope);
    float cosine, sine;
    ROPE_SINCOS(float, int, convert_int, position, f.x, f.y, cosine, sine);
    for (uint h = 0; h < HEADS; ++h)
        if (h < count)
            store_pair(back ? PLAIN_INTERLEAVED : TURNED_INTERLEAVED, y + h * y_step + nope, u - nope,
                       turn_pair(pair[h], cosine, back ? -sine : sine));
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void rope_simt(ROPE_ARGS)
{
    uint per_head = dim - PAIRS, plain = dim - ROPE;
    TILE_OF_ROW(BLOCKS(heads) * per_head)
    UNIT_OF_BLOCK(per_head)
    x += x_off + head * dim;
    turn_heads(INVERSE, x, dim, x + plain, dim, y + y_off + head * dim, dim, count, u, plain,
               position_of(positions + positions_off, row, length), (float2)(ratio_high, ratio_low));
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void mla_pack_simt(PACK_ARGS)
{
    uint per_q = nope + PAIRS, width = nope + ROPE;
    TILE_OF_ROW(BLOCKS(heads) * (2 * per_q + value))
    UNIT_OF_BLOCK(2 * per_q + value)
    float2 ratio = (float2)(ratio_high, ratio_low);
    float position = (float)(row % length);
    __global const float *kv_from = kv + kv_off + head * (nope + value);
    if (u < per_q) {
        __global const float *from = q_in + q_in_off + head * width;
        turn_heads(0, from, width, from + nope, width, q + q_off + head * width, width, count, u, nope, position,
                   ratio);
    } else if (u < 2 * per_q) {
        turn_heads(0, kv_from, nope + value, kv_a + kv_a_off + (size_t)(row + 1) * shared - ROPE, 0,
                   k + k_off + head * width, width, count, u - per_q, nope, position, ratio);
    } else {
        u -= 2 * per_q;
        copy_heads(kv_from + nope + u, nope + value, v + v_off + head * value + u, value, count);
    }
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void mla_pack_backward_simt(PACK_BACKWARD_ARGS)
{
    uint per_q = nope + PAIRS, per_head = per_q + nope + value, width = nope + ROPE, units = BLOCKS(heads) * per_head;
    TILE_OF_ROW(units + PAIRS)
    float2 ratio = (float2)(ratio_high, ratio_low);
    float position = (float)(row % length);
    if (unit >= units) {
        uint u = unit - units;
        __global const float *from = dk + dk_off + (size_t)row * heads * width + nope;
        float2 f = frequency(u, ratio), sum = load_pair(TURNED_INTERLEAVED, from, u);
        for (uint h = 1; h < heads; ++h)
            sum += load_pair(TURNED_INTERLEAVED, from + (size_t)h * width, u);
        float cosine, sine;
        ROPE_SINCOS(float, int, convert_int, position, f.x, f.y, cosine, sine);
        store_pair(PLAIN_INTERLEAVED, dkv_a + dkv_a_off + (size_t)(row + 1) * shared - ROPE, u,
                   turn_pair(sum, cosine, -sine));
        return;
    }
    UNIT_OF_BLOCK(per_head)
    __global float *kv_to = dkv + dkv_off + head * (nope + value);
    if (u < per_q) {
        __global const float *from = dq + dq_off + head * width;
        turn_heads(1, from, width, from + nope, width, dq_in + dq_in_off + head * width, width, count, u, nope,
                   position, ratio);
    } else if (u < per_q + nope) {
        u -= per_q;
        copy_heads(dk + dk_off + head * width + u, width, kv_to + u, nope + value, count);
    } else {
        u -= per_q + nope;
        copy_heads(dv + dv_off + head * value + u, value, kv_to + nope + u, nope + value, count);
    }
}
