// Gradients of masked_attention for CPUs, with p recomputed from the row's lse (flash attention's backward pass):
//
//     delta_i = dout_i . out_i      dp_ij = dout_i . v_j      ds_ij = p_ij (dp_ij - delta_i)
//     dv_j = sum_i p_ij dout_i      dk_j = scale * sum_i ds_ij q_i      dq_i = scale * sum_j ds_ij k_j
//
// With dropout dp and the p of dv carry the mask and 1/(1-p); delta needs nothing more, since out did already.
//
// One work-item per (chunk of key blocks, key head, batch element); global size (chunks, HK, B). It owns its keys' dk
// and dv, walks the queries of all heads of the group, and adds into the chunk's own dq, so that each of the five
// products is computed once, without atomics and always in the same order. With one chunk that dq is the result;
// otherwise masked_attention_backward_sum adds the chunks' copies.
//
//     p, ds [QUERIES][KEYS], keys in the lanes:      q (spread) x k^T (vectors),  dout (spread) x v^T (vectors)
//     dv, dk [KEYS][columns]:                        p, ds (spread) x dout, q (vectors)
//     dq [QUERIES][columns]:                         ds (spread) x k (vectors)
//
// Where the head's q, dout or delta or the block's k or v are not finite, all that multiplies p or ds is exact
// (exact.clh). dq is in memory and cannot be started again, so here the inputs are looked at, not the results.
#include "masked_attention_vec.clh"

#ifndef QUERIES
#define QUERIES 64 // queries of a step, a multiple of 16 and of TILE_ROWS (32, 64)
#endif

// c[0 .. rows)[0 .. columns) += a b over n steps, in register tiles; a(i, t) = a[i * a_row + t * a_step].
#define ADD_PRODUCT(c, a, a_row, a_step, b, rows, columns, n)                                                          \
    {                                                                                                                  \
        for (int column = 0; column + 32 <= (columns); column += 32)                                                   \
            ADD_PRODUCT_TILES(2, c, a, a_row, a_step, b, rows, columns, n, column)                                     \
        if ((columns) % 32)                                                                                            \
            ADD_PRODUCT_TILES(1, c, a, a_row, a_step, b, rows, columns, n, (columns)-16)                               \
    }

#define ADD_PRODUCT_TILES(V, c, a, a_row, a_step, b, rows, columns, n, column)                                         \
    for (int i = 0; i < (rows); i += TILE_ROWS) {                                                                      \
        float16 t[TILE_ROWS][V];                                                                                       \
        TILE_LOAD(V, t, c + i * (columns) + (column), columns)                                                         \
        TILE_PRODUCT(V, t, n, a + i * (a_row), a_row, a_step, b + (column), columns)                                   \
        TILE_STORE(V, t, c + i * (columns) + (column), columns)                                                        \
    }

#define ADD_PRODUCT_OR_EXACT(exact, c, a, a_row, a_step, b, rows, columns, n)                                          \
    if (exact)                                                                                                         \
        add_product_exact(c, a, a_row, a_step, b, rows, columns, n);                                                   \
    else                                                                                                               \
        ADD_PRODUCT(c, a, a_row, a_step, b, rows, columns, n)

// The lanes of 16 keys whose bits are on in a word; `upper` picks bits 16 .. 31.
#define LANE_BITS(word, upper)                                                                                         \
    ((((uint16)(word) >> (uint16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)) &                             \
      (uint16)((upper) ? 0x10000u : 1u)) != (uint16)(0))

// p[QUERIES][KEYS] = exp2(log2(e) * q k^T - lse2), 0 where the words' bits are off.
inline void weights(float *p, const float *q, const float *kt, const float *lse2, const uint *words, bool all)
{
    for (int i = 0; i < QUERIES; i += TILE_ROWS)
        for (int word = 0; word < 2; ++word) {
            float16 c[TILE_ROWS][2];
            TILE_ZERO(2, c)
            TILE_PRODUCT(2, c, D, q + i * DP, DP, 1, kt + word * 32, KEYS)
#pragma unroll
            for (int r = 0; r < TILE_ROWS; ++r) {
                float16 base = (float16)(-lse2[i + r]);
                c[r][0] = exp2_fast16(fma(c[r][0], (float16)(LOG2_E), base));
                c[r][1] = exp2_fast16(fma(c[r][1], (float16)(LOG2_E), base));
                if (!all) {
                    uint bits = words[word * QUERIES + i + r];
                    c[r][0] = LANE_BITS(bits, 0) ? c[r][0] : (float16)(0.0f);
                    c[r][1] = LANE_BITS(bits, 1) ? c[r][1] : (float16)(0.0f);
                }
            }
            TILE_STORE(2, c, p + i * KEYS + word * 32, KEYS)
        }
}

#if DROPOUT
// What the tile's weights are multiplied with.
inline void dropout_factors(float *factors, ulong block, ulong step, uint stream, ulong seed, uint threshold,
                            float dropout_scale)
{
    for (int i = 0; i < QUERIES; ++i) {
        uint16 w[4];
        philox_block(block + i * step, stream, seed, w, w + 1, w + 2, w + 3);
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            float16 factor = DROPOUT_KEEP(w[u], threshold) ? (float16)(dropout_scale) : (float16)(0.0f);
            vstore16(factor, u, factors + i * KEYS);
        }
    }
}
#endif

// ds[QUERIES][KEYS] = p * (dp - delta). With dropout ds holds the factors at first, and p becomes what multiplied v.
inline void weight_gradients(float *ds, float *p, const float *dout, const float *vt, const float *delta)
{
    for (int i = 0; i < QUERIES; i += TILE_ROWS)
        for (int word = 0; word < 2; ++word) {
            float16 c[TILE_ROWS][2];
            TILE_ZERO(2, c)
            TILE_PRODUCT(2, c, DV, dout + i * DVP, DVP, 1, vt + word * 32, KEYS)
#pragma unroll
            for (int r = 0; r < TILE_ROWS; ++r) {
                int at = (i + r) * KEYS + word * 32;
                float16 base = (float16)(delta[i + r]);
#pragma unroll
                for (int u = 0; u < 2; ++u) {
                    float16 weight = vload16(u, p + at);
#if DROPOUT
                    float16 factor = vload16(u, ds + at);
                    vstore16(weight * factor, u, p + at);
                    c[r][u] = weight * fma(c[r][u], factor, -base);
#else
                    c[r][u] = weight * (c[r][u] - base);
#endif
                }
            }
            TILE_STORE(2, c, ds + i * KEYS + word * 32, KEYS)
        }
}

// The same, exact: where p is 0, so is ds; where a weight is dropped, so are its p and dp.
inline void weight_gradients_exact(float *ds, float *p, const float *dout, const float *vt, const float *delta)
{
    for (int i = 0; i < QUERIES; ++i)
        for (int at = i * KEYS; at < (i + 1) * KEYS; at += 16) {
            float16 dp = (float16)(0.0f), weight = vload16(0, p + at);
            for (int c = 0; c < DV; ++c)
                dp = fma((float16)(dout[i * DVP + c]), vload16(0, vt + c * KEYS + at % KEYS), dp);
#if DROPOUT
            float16 factor = vload16(0, ds + at);
            vstore16(factor != (float16)(0.0f) ? weight * factor : (float16)(0.0f), 0, p + at);
            dp = factor != (float16)(0.0f) ? dp * factor : (float16)(0.0f);
#endif
            vstore16(weight != (float16)(0.0f) ? weight * (dp - delta[i]) : (float16)(0.0f), 0, ds + at);
        }
}

// Copies rows of whole private vectors to [.., rows, heads, columns] f32, times `scale`.
#define STORE_ROWS(columns, heads, to, from, first, count, scale)                                                      \
    for (int r_ = 0; r_ < (count); ++r_) {                                                                             \
        __global float *to_ = (to) + (ulong)((first) + r_) * ((heads) * (columns));                                    \
        const float *from_ = (from) + r_ * (((columns) + 15) / 16 * 16);                                               \
        _Pragma("unroll") for (int c_ = 0; c_ + 16 <= (columns); c_ += 16)                                             \
            vstore16(vload16(0, from_ + c_) * (scale), 0, to_ + c_);                                                   \
        for (int c_ = (columns) / 16 * 16; c_ < (columns); ++c_)                                                       \
            to_[c_] = from_[c_] * (scale);                                                                             \
    }

// delta of all rows of one head, and its dq cleared. Pointers are at the head's first row. Returns whether its q, dout
// and delta are all finite.
inline bool prepare_head(__global float *delta, __global float *dq, __global const ELEM(DTYPE) *q,
                         __global const float *dout, __global const float *out, int S)
{
    // NaN from the first number on that is not finite: of q, dout, and of delta and what lies behind whole vectors.
    float16 q_zeros = (float16)(0.0f), dout_zeros = q_zeros;
    float rest_zeros = 0.0f;
    for (int i = 0; i < S; ++i) {
        float16 sum = (float16)(0.0f);
        ulong at = (ulong)i * (H * DV);
        for (int c = 0; c + 16 <= DV; c += 16) {
            float16 x = vload16(0, dout + at + c);
            sum = fma(x, vload16(0, out + at + c), sum);
            dout_zeros = fma(x, (float16)(0.0f), dout_zeros);
        }
        float rest = 0.0f;
        for (int c = DV / 16 * 16; c < DV; ++c) {
            rest = fma(dout[at + c], out[at + c], rest);
            rest_zeros = fma(dout[at + c], 0.0f, rest_zeros);
        }
        rest += sum16(sum);
        rest_zeros = fma(rest, 0.0f, rest_zeros);
        delta[(ulong)i * H] = rest;
        at = (ulong)i * (H * D);
        for (int c = 0; c + 16 <= D; c += 16)
            q_zeros = fma(LOAD16(DTYPE, q, at + c), (float16)(0.0f), q_zeros);
        for (int c = D / 16 * 16; c < D; ++c)
            rest_zeros = fma(LOAD(DTYPE, q, at + c), 0.0f, rest_zeros);
        for (int c = 0; c < D; ++c)
            dq[at + c] = 0.0f;
    }
    return !any(isnan(q_zeros + dout_zeros)) && !isnan(rest_zeros);
}

// dq_ [chunks][B,S,H,D] and delta_ [chunks][B,S,H]; a chunk is `blocks` blocks of keys.
__kernel void masked_attention_backward_vec(
    __global const ELEM(DTYPE) *q_, ulong q_off, __global const ELEM(DTYPE) *k_, ulong k_off,
    __global const ELEM(DTYPE) *v_, ulong v_off, __global const MASK_ELEM *mask_, ulong mask_off,
    __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off, __global const float *out_,
    ulong out_off, __global const float *lse_, ulong lse_off, __global const float *dout_, ulong dout_off,
    __global float *dq_, ulong dq_off, __global float *dk_, ulong dk_off, __global float *dv_, ulong dv_off,
    __global float *delta_, ulong delta_off, int S, int T, int blocks, float scale, uint threshold, float dropout_scale,
    uint stream, ulong seed)
{
    const int chunk = get_global_id(0), hk = get_global_id(1), b = get_global_id(2);
    const ulong batch_row = (ulong)b * S;
    const ulong chunk_rows = (ulong)chunk * get_global_size(2) * S;
    __global const ELEM(DTYPE) *k = k_ + k_off + ((ulong)b * T * HK + hk) * D;
    __global const ELEM(DTYPE) *v = v_ + v_off + ((ulong)b * T * HK + hk) * DV;
    __global float *dk_out = dk_ + dk_off + ((ulong)b * T * HK + hk) * D;
    __global float *dv_out = dv_ + dv_off + ((ulong)b * T * HK + hk) * DV;

    // Vector arrays, so that they are aligned to whole vectors.
    float16 k_rows_[KEYS * DP / 16], kt_[KEYS * DP / 16], vt_[KEYS * DVP / 16];
    float16 dk_rows_[KEYS * DP / 16], dv_rows_[KEYS * DVP / 16];
    float16 q_rows_[QUERIES * DP / 16], dq_rows_[QUERIES * DP / 16], dout_rows_[QUERIES * DVP / 16];
    float16 p_[QUERIES * KEYS / 16], ds_[QUERIES * KEYS / 16];
    float *k_rows = (float *)k_rows_, *kt = (float *)kt_, *vt = (float *)vt_;
    float *dk_rows = (float *)dk_rows_, *dv_rows = (float *)dv_rows_;
    float *q_rows = (float *)q_rows_, *dq_rows = (float *)dq_rows_, *dout_rows = (float *)dout_rows_;
    float *p = (float *)p_, *ds = (float *)ds_;
    float lse2[QUERIES], delta[QUERIES];
    uint words[2 * QUERIES];
    int start[QUERIES], end[QUERIES];

    bool finite = true;
    for (int h = hk * GROUP; h < (hk + 1) * GROUP; ++h)
        finite &= prepare_head(delta_ + delta_off + (chunk_rows + batch_row) * H + h,
                               dq_ + dq_off + ((chunk_rows + batch_row) * H + h) * D,
                               q_ + q_off + (batch_row * H + h) * D, dout_ + dout_off + (batch_row * H + h) * DV,
                               out_ + out_off + (batch_row * H + h) * DV, S);

    const int last = min(T, (chunk + 1) * blocks * KEYS);
    for (int j0 = chunk * blocks * KEYS; j0 < last; j0 += KEYS) {
        const int keys = min(KEYS, T - j0);
        LOAD_ROWS(DTYPE, DV, HK, dv_rows, v, j0, keys, KEYS, 1.0f)
        transpose_rows(dv_rows, DVP, vt, KEYS, KEYS / 16, DVP);
        LOAD_ROWS(DTYPE, D, HK, k_rows, k, j0, keys, KEYS, scale) // the scale goes into the scores and dq with it
        transpose_rows(k_rows, DP, kt, KEYS, KEYS / 16, DP);
        const bool exact = !finite || !all_finite(k_rows, KEYS * DP) || !all_finite(dv_rows, KEYS * DVP);
        for (int j = 0; j < KEYS; ++j) {
            zero_row(dk_rows + j * DP, DP);
            zero_row(dv_rows + j * DVP, DVP);
        }

        for (int i0 = 0; i0 < S; i0 += QUERIES) {
            const int rows = min(QUERIES, S - i0);
            for (int i = 0; i < QUERIES; ++i) {
                int2 range = (int2)(0, 0);
                if (i < rows)
                    range = row_range(i0 + i, S, T, ks_ + ks_off + batch_row, ke_ + ke_off + batch_row);
                start[i] = range.x;
                end[i] = range.y;
            }
            visible_keys seen;
            VISIBLE_KEYS(QUERIES, seen, words, start, end, rows,
                         (mask_ + mask_off + (batch_row + i0) * MASK_ROW(T)), j0, T)
            if (seen.none)
                continue;

            for (int h = hk * GROUP; h < (hk + 1) * GROUP; ++h) {
                __global float *dq = dq_ + dq_off + ((chunk_rows + batch_row) * H + h) * D;
                LOAD_ROWS(DTYPE, D, H, q_rows, (q_ + q_off + (batch_row * H + h) * D), i0, rows, QUERIES, 1.0f)
                LOAD_ROWS(F32, DV, H, dout_rows, (dout_ + dout_off + (batch_row * H + h) * DV), i0, rows, QUERIES, 1.0f)
                LOAD_ROWS(F32, D, H, dq_rows, dq, i0, rows, QUERIES, 1.0f)
                for (int i = 0; i < QUERIES; ++i) {
                    ulong row = (batch_row + i0 + i) * H + h;
                    lse2[i] = i < rows ? lse_[lse_off + row] * LOG2_E : 0.0f;
                    delta[i] = i < rows ? delta_[delta_off + chunk_rows * H + row] : 0.0f;
                }
                weights(p, q_rows, kt, lse2, words, seen.all);
#if DROPOUT
                ulong dropout_step = (T + 63) / 64;
                dropout_factors(ds, (((ulong)b * H + h) * S + i0) * dropout_step + j0 / 64, dropout_step, stream, seed,
                                threshold, dropout_scale);
#endif
                if (exact)
                    weight_gradients_exact(ds, p, dout_rows, vt, delta);
                else
                    weight_gradients(ds, p, dout_rows, vt, delta);
                ADD_PRODUCT_OR_EXACT(exact, dv_rows, p, 1, KEYS, dout_rows, KEYS, DVP, QUERIES)
                ADD_PRODUCT_OR_EXACT(exact, dk_rows, ds, 1, KEYS, q_rows, KEYS, DP, QUERIES)
                ADD_PRODUCT_OR_EXACT(exact, dq_rows, ds, KEYS, 1, k_rows, QUERIES, DP, KEYS)
                STORE_ROWS(D, H, dq, dq_rows, i0, rows, 1.0f)
            }
        }
        STORE_ROWS(D, HK, dk_out, dk_rows, j0, keys, scale)
        STORE_ROWS(DV, HK, dv_out, dv_rows, j0, keys, 1.0f)
    }
}

// dq[e] = sum of the chunks' copies, in their order; one work-item per 16 elements.
__kernel void masked_attention_backward_sum(__global const float *parts_, ulong parts_off, __global float *dq_,
                                            ulong dq_off, ulong count, int chunks)
{
    ulong e = (ulong)get_global_id(0) * 16;
    ulong end = e + 16 < count ? e + 16 : count;
    for (; e < end; ++e) {
        float sum = 0.0f;
        for (int c = 0; c < chunks; ++c)
            sum += parts_[parts_off + c * count + e];
        dq_[dq_off + e] = sum;
    }
}
