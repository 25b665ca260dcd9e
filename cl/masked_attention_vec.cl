// masked_attention for CPUs:
//
//     out[b,i,h,:] = sum_j p_ij v[b,j,h',:],  p_i = softmax_j(scale * q[b,i,h,:] . k[b,j,h',:]),  lse[b,i,h]
//
// One work-item per (query tile, head, batch element and part of the keys); global size (ceil(S / QUERIES), H,
// B * parts). It walks the visible blocks of 64 keys with a running maximum and sum per row (online softmax); nothing
// of size S x T is stored. Several parts, where there are fewer tiles than cores, are put together by
// attention_combine.cl.
//
//     scores, transposed                       values
//            QUERIES lanes                             DV lanes
//           +-------------+                           +---------+
//     64    | k (spread)  |   exp2, sum    QUERIES    | p (spr.) |   v rows are the vectors,
//     keys  | x q^T (vec) |   ------->     rows       | x v (vec)|   p is spread
//           +-------------+                           +---------+
//
// With a query per lane the softmax never reduces across lanes, and k and v are read in their natural layout: only the
// query tile is transposed, once. Scores carry log2(e), so that exp2 serves.
#include "masked_attention_vec.clh"

#include "attention_combine.clh"

#ifndef QUERIES
#define QUERIES 64 // queries of a work-item, 16 or a multiple of 32, and one of TILE_ROWS (16 .. 128)
#endif
#ifndef OUT_DTYPE
#define OUT_DTYPE F32 // storage of out
#endif
#ifndef HAS_LSE
#define HAS_LSE 1 // lse is written
#endif
#ifndef PARTIAL
#define PARTIAL 0 // 1: there are several parts, whose sums go to scratch
#endif

#define LANES (QUERIES / 16)        // vectors of queries
#define PAIR  (LANES > 1 ? 2 : 1) // of them in a register tile

// o[0 .. QUERIES)[0 .. DVP) = o * alpha + p * v over one key block. p is [KEYS][QUERIES].
#define ADD_VALUES(V, column)                                                                                          \
    for (int i = 0; i < QUERIES; i += TILE_ROWS) {                                                                     \
        float16 c[TILE_ROWS][V];                                                                                       \
        _Pragma("unroll") for (int r = 0; r < TILE_ROWS; ++r)                                                          \
            _Pragma("unroll") for (int u = 0; u < V; ++u)                                                              \
                c[r][u] = vload16(u, o + (i + r) * DVP + (column)) * (float16)(alpha[i + r]);                          \
        TILE_PRODUCT(V, c, KEYS, p + i, 1, QUERIES, v + (column), DVP)                                                 \
        TILE_STORE(V, c, o + i * DVP + (column), DVP)                                                                  \
    }

inline void add_values(float *o, const float *alpha, const float *p, const float *v)
{
    for (int column = 0; column + 32 <= DVP; column += 32)
        ADD_VALUES(2, column)
#if DVP % 32
    ADD_VALUES(1, DVP - 16)
#endif
}

// The same, where v is not finite and some weights are 0.
inline void add_values_exact(float *o, const float *alpha, const float *p, const float *v)
{
    for (int i = 0; i < QUERIES; ++i)
        for (int column = 0; column < DVP; column += 16)
            vstore16(vload16(0, o + i * DVP + column) * alpha[i], 0, o + i * DVP + column);
    add_product_exact(o, p, 1, QUERIES, v, QUERIES, DVP, KEYS);
}

// s[KEYS][QUERIES] = k q^T, -inf where the words' bits are off; `top` becomes each query's maximum.
inline void score_block(float *s, float16 *top, const float *k, const float *qt, const uint *words, bool all)
{
    for (int lane = 0; lane < LANES; lane += PAIR) {
        float16 highest[PAIR];
#pragma unroll
        for (int u = 0; u < PAIR; ++u)
            highest[u] = (float16)(-INFINITY);
        for (int j = 0; j < KEYS; j += TILE_ROWS) {
            float16 c[TILE_ROWS][PAIR];
            TILE_ZERO(PAIR, c)
            TILE_PRODUCT(PAIR, c, D, k + j * DP, DP, 1, qt + lane * 16, QUERIES)
#pragma unroll
            for (int u = 0; u < PAIR; ++u) {
                if (!all) {
                    uint16 word = vload16(lane + u, words + j / 32 * QUERIES);
#pragma unroll
                    for (int r = 0; r < TILE_ROWS; ++r) {
                        uint16 bit = word & (uint16)(1u << ((j + r) & 31));
                        c[r][u] = bit != (uint16)(0) ? c[r][u] : (float16)(-INFINITY);
                    }
                }
#pragma unroll
                for (int r = 0; r < TILE_ROWS; ++r)
                    highest[u] = MAX_OF(c[r][u], highest[u]);
            }
            TILE_STORE(PAIR, c, s + j * QUERIES + lane * 16, QUERIES)
        }
#pragma unroll
        for (int u = 0; u < PAIR; ++u)
            top[lane + u] = highest[u];
    }
}

#if DROPOUT
// Bits of the keys that dropout keeps, as VISIBLE_KEYS lays them out. Row i's block of dropout words is
// first + i * step; a counter serves keys c, c+16, c+32 and c+48 of 16 rows at once.
inline void keep_words(uint *words, ulong first, ulong step, uint stream, ulong seed, uint threshold)
{
    uint low[QUERIES], high[QUERIES];
    for (int i = 0; i < QUERIES; ++i) {
        ulong counter = (first + i * step) * 16;
        low[i] = (uint)counter;
        high[i] = (uint)(counter >> 32);
    }
    for (int lane = 0; lane < LANES; ++lane) {
        uint16 base = vload16(lane, low), top = vload16(lane, high);
        uint16 w0 = (uint16)(0), w1 = w0;
        for (int c = 0; c < 16; ++c) {
            uint16 c0 = base + (uint)c, c1 = top, c2 = (uint16)(stream), c3 = (uint16)(0);
            philox16(&c0, &c1, &c2, &c3, seed);
            uint16 bit = (uint16)(1u << c);
            w0 |= DROPOUT_KEEP(c0, threshold) ? bit : (uint16)(0);
            w0 |= DROPOUT_KEEP(c1, threshold) ? bit << 16u : (uint16)(0);
            w1 |= DROPOUT_KEEP(c2, threshold) ? bit : (uint16)(0);
            w1 |= DROPOUT_KEEP(c3, threshold) ? bit << 16u : (uint16)(0);
        }
        vstore16(w0, lane, words);
        vstore16(w1, lane, words + QUERIES);
    }
}
#endif

// s becomes the weights exp2(s - top), dropped ones 0; returns the queries' sums before dropout.
inline float16 weigh_block(float *s, int lane, float16 top, const uint *keep)
{
    float16 sum0 = (float16)(0.0f), sum1 = sum0;
    for (int half_block = 0; half_block < 2; ++half_block) {
        float *p = s + half_block * 32 * QUERIES + lane * 16;
#if DROPOUT
        uint16 word = vload16(lane, keep + half_block * QUERIES);
#endif
#pragma unroll 4
        for (int j = 0; j < 32; j += 2) {
            float16 x = exp2_fast16(vload16(0, p + j * QUERIES) - top);
            float16 y = exp2_fast16(vload16(0, p + (j + 1) * QUERIES) - top);
            sum0 += x;
            sum1 += y;
#if DROPOUT
            x = (word & (uint16)(1u << j)) != (uint16)(0) ? x : (float16)(0.0f);
            y = (word & (uint16)(2u << j)) != (uint16)(0) ? y : (float16)(0.0f);
#endif
            vstore16(x, 0, p + j * QUERIES);
            vstore16(y, 0, p + (j + 1) * QUERIES);
        }
    }
    return sum0 + sum1;
}

#if PARTIAL
// The sums of a part; `row` is the tile's first of `all` rows [B,S,H].
inline void store_part_rows(__global float *scratch, ulong parts, ulong part, ulong all, ulong row, int rows,
                            const float *o, const float *sum, const float *top, float dropout_scale)
{
    for (int i = 0; i < rows; ++i) {
        store_part(scratch, parts, all, part, row + (ulong)i * H, top[i], sum[i]);
        for (int c = 0; c < DV; ++c)
            scratch[PART_SUMS(all, part, row + (ulong)i * H) + c] = o[i * DVP + c] * dropout_scale;
    }
}
#else
// out rows [QUERIES] at stride H * DV; sums and tops per query. A row without keys (sum 0) gives zeros and +inf.
inline void store_rows(__global ELEM(OUT_DTYPE) *out, __global float *lse, int rows, const float *o, const float *sum,
                       const float *top, float dropout_scale)
{
    for (int i = 0; i < rows; ++i) {
        bool empty = sum[i] == 0.0f;
        float scale = empty ? 0.0f : dropout_scale / sum[i];
#if HAS_LSE
        lse[(ulong)i * H] = empty ? INFINITY : (top[i] + log2(sum[i])) * LN_2;
#endif
        ulong at = (ulong)i * (H * DV);
        for (int c = 0; c < DV; ++c)
            STORE(OUT_DTYPE, out, at + c, o[i * DVP + c] * scale);
    }
}
#endif

__kernel void masked_attention_vec(__global const ELEM(DTYPE) *q_, ulong q_off, __global const ELEM(DTYPE) *k_,
                                   ulong k_off, __global const ELEM(DTYPE) *v_, ulong v_off,
                                   __global const MASK_ELEM *mask_, ulong mask_off, __global const int *ks_,
                                   ulong ks_off, __global const int *ke_, ulong ke_off, __global ELEM(OUT_DTYPE) *out_,
                                   ulong out_off, __global float *lse_, ulong lse_off, int S, int T, float scale,
                                   uint threshold, float dropout_scale, uint stream, ulong seed,
                                   __global float *scratch_, ulong scratch_off, int parts, int part_keys)
{
    const int i0 = get_global_id(0) * QUERIES, h = get_global_id(1);
    const int b = get_global_id(2) / parts, part = get_global_id(2) % parts;
    const int rows = min(QUERIES, S - i0);
    const ulong row0 = (ulong)b * S + i0; // the tile's first row of [B,S]
    __global const ELEM(DTYPE) *q = q_ + q_off + (row0 * H + h) * D;
    __global const ELEM(DTYPE) *k = k_ + k_off + ((ulong)b * T * HK + h / GROUP) * D;
    __global const ELEM(DTYPE) *v = v_ + v_off + ((ulong)b * T * HK + h / GROUP) * DV;

    // Vector arrays, so that they are aligned to whole vectors.
    float16 qt_[DP * LANES], p_[KEYS * LANES], k_block_[KEYS * DP / 16], v_block_[KEYS * DVP / 16];
    float16 o_[QUERIES * DVP / 16];
    float *qt = (float *)qt_, *p = (float *)p_, *k_block = (float *)k_block_, *v_block = (float *)v_block_;
    float *o = (float *)o_;
    float16 top[LANES], sum[LANES], alpha[LANES];
    uint16 words[2 * LANES], keep[2 * LANES];
    int start[QUERIES], end[QUERIES];

    int first = T, last = 0; // the keys that any of the rows sees
    for (int i = 0; i < QUERIES; ++i) {
        int2 range = (int2)(0, 0);
        if (i < rows)
            range = row_range(i0 + i, S, T, ks_ + ks_off + (ulong)b * S, ke_ + ke_off + (ulong)b * S);
        range = (int2)(max(range.x, part * part_keys), min(range.y, (part + 1) * part_keys));
        start[i] = range.x;
        end[i] = range.y;
        if (range.x < range.y) {
            first = min(first, range.x);
            last = max(last, range.y);
        }
    }

    {
        float16 rows_[QUERIES * DP / 16];
        LOAD_ROWS(DTYPE, D, H, (float *)rows_, q, 0, rows, QUERIES, scale)
        transpose_rows((float *)rows_, DP, qt, QUERIES, LANES, DP);
    }
    bool exact = false; // see exact.clh
    do {
        for (int lane = 0; lane < LANES; ++lane) {
            top[lane] = (float16)(-INFINITY);
            sum[lane] = (float16)(0.0f);
        }
        for (int i = 0; i < QUERIES; ++i)
            zero_row(o + i * DVP, DVP);

        for (int j0 = first / KEYS * KEYS; j0 < last; j0 += KEYS) {
            visible_keys seen;
            VISIBLE_KEYS(QUERIES, seen, ((uint *)words), start, end, rows,
                         (mask_ + mask_off + row0 * MASK_ROW(T)), j0, T)
            if (seen.none)
                continue;
            int keys = min(KEYS, T - j0);
            LOAD_ROWS(DTYPE, D, HK, k_block, k, j0, keys, KEYS, 1.0f)
            LOAD_ROWS(DTYPE, DV, HK, v_block, v, j0, keys, KEYS, 1.0f)
#if DROPOUT
            keep_words((uint *)keep, (((ulong)b * H + h) * S + i0) * ((T + 63) / 64) + j0 / 64, (T + 63) / 64, stream,
                       seed, threshold);
#endif
            float16 block_top[LANES];
            score_block(p, block_top, k_block, qt, (uint *)words, seen.all);
            for (int lane = 0; lane < LANES; ++lane) {
                float16 higher = MAX_OF(block_top[lane], top[lane]);
                // A row that has seen no key yet keeps -inf; subtracting 0 instead gives it weights of 0, not NaN.
                float16 base = higher == (float16)(-INFINITY) ? (float16)(0.0f) : higher;
                alpha[lane] = exp2_fast16(top[lane] - base);
                sum[lane] = sum[lane] * alpha[lane] + weigh_block(p, lane, base, (uint *)keep);
                top[lane] = higher;
            }
            if (exact)
                add_values_exact(o, (float *)alpha, p, v_block);
            else
                add_values(o, (float *)alpha, p, v_block);
        }
        exact = !exact && !all_finite(o, QUERIES * DVP);
    } while (exact);
#if PARTIAL
    store_part_rows(scratch_ + scratch_off, parts, part, get_global_size(2) / parts * S * H, row0 * H + h, rows, o,
                    (float *)sum, (float *)top, dropout_scale);
#else
    store_rows(out_ + out_off + (row0 * H + h) * DV, lse_ + lse_off + row0 * H + h, rows, o, (float *)sum,
               (float *)top, dropout_scale);
#endif
}
