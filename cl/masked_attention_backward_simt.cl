// Gradients of masked_attention for GPUs, with p recomputed from the row's lse (flash attention's backward pass):
//
//     delta_i = dout_i . out_i      dp_ij = dout_i . v_j      ds_ij = p_ij (dp_ij - delta_i)
//     dv_j = sum_i p_ij dout_i      dk_j = scale * sum_i ds_ij q_i      dq_i = scale * sum_j ds_ij k_j
//
// With dropout dp and the p of dv carry the mask and 1/(1-p); delta needs nothing more, since out did already.
//
// Three kernels in this order: _delta, one work-item per row and head; _dq, a work-group per query tile that walks the
// key tiles; _dkv, a work-group per key tile that walks the query tiles of all heads of the group. Every sum belongs to
// one work-item, so the result needs no atomics and is the same in every run. See pair_tile.clh.
#include "masked_attention_simt.clh"

// delta[row] = dout[row] . out[row]; rows of [B,S,H].
__kernel void masked_attention_backward_delta(__global const float *out_, ulong out_off, __global const float *dout_,
                                              ulong dout_off, __global float *delta_, ulong delta_off, ulong rows)
{
    ulong row = get_global_id(0);
    if (row >= rows)
        return;
    float sum = 0.0f;
    for (int c = 0; c < DV; ++c)
        sum = fma(out_[out_off + row * DV + c], dout_[dout_off + row * DV + c], sum);
    delta_[delta_off + row] = sum;
}

// p and ds of row r of a tile from its products s = q k^T and dp = dout v^T. `seen` are tile_bits.
// p becomes what multiplied v. Where p is 0, so is ds; where a weight is dropped, p and dp are. Rows beyond the tile's
// last see no key, whatever lse2 and delta are: they read the last row's. A branch around those loads makes Intel's CPU
// runtime 2026.2 compute wrong addresses of `weights` from the same row numbers, behind the next barrier.
#define TILE_GRADIENTS(s, dp, seen, lse2, delta, block, p, ds)                                                         \
    float4 p = SEES(seen, r) ? exp2(fma(s, (float4)(scale * LOG2_E), (float4)(-(lse2)))) : (float4)(0.0f);             \
    float4 ds = dp, weight_ = p;                                                                                       \
    DROPOUT_TILE(block, p, ds)                                                                                         \
    ds = weight_ != (float4)(0.0f) ? weight_ * (ds - (delta)) : (float4)(0.0f);

#if DROPOUT
#define DROPOUT_TILE(block, p, ds)                                                                                     \
    float4 factor_ = dropout_factor(block, tx, stream, seed, threshold, dropout_scale);                                \
    p = factor_ != (float4)(0.0f) ? p * factor_ : (float4)(0.0f);                                                      \
    ds = factor_ != (float4)(0.0f) ? ds * factor_ : (float4)(0.0f);
#else
#define DROPOUT_TILE(block, p, ds)
#endif

#define DROPOUT_BLOCK(i, j0) ((((ulong)b * H + h) * S + (i)) * ((T + 63) / 64) + (j0) / 64)

// The tile of queries from i0 on and of keys from j0 on, whose rows begin there.
#define FETCH_QK_AT(i0, j0, c0)                                                                                        \
    FETCH_SCORES(DTYPE, Q_VEC, H, q + (ulong)(i0) * (H * D), min(QUERIES, S - (i0)), DTYPE, K_VEC, HK,                 \
                 k + (ulong)(j0) * (HK * D), min(KEYS, T - (j0)), D, c0)
#define FETCH_QK(c0) FETCH_QK_AT(i0, j0, c0)
#define FETCH_DOUT_V(c0)                                                                                               \
    FETCH_SCORES(F32, DOUT_VEC, H, dout + (ulong)i0 * (H * DV), min(QUERIES, S - i0), DTYPE, V_VEC, HK,                \
                 v + (ulong)j0 * (HK * DV), min(KEYS, T - j0), DV, c0)
#define FETCH_K(pass)                                                                                                  \
    FETCH_COLUMNS(DTYPE, K_VEC, HK, k + (ulong)j0 * (HK * D), min(KEYS, T - j0), KEYS, D, (pass) * 16 * WIDTH(D))
#define FETCH_Q(pass)                                                                                                  \
    FETCH_COLUMNS(DTYPE, Q_VEC, H, q + (ulong)i0 * (H * D), min(QUERIES, S - i0), QUERIES, D, (pass) * 16 * WIDTH(D))
#define FETCH_DOUT(pass)                                                                                               \
    FETCH_COLUMNS(F32, DOUT_VEC, H, dout + (ulong)i0 * (H * DV), min(QUERIES, S - i0), QUERIES, DV,                    \
                  (pass) * 16 * WIDTH(DV))

// lse2 and delta of a work-item's rows.
#define FETCH_STATISTICS                                                                                               \
    EACH_ROW(r)                                                                                                        \
    {                                                                                                                  \
        const ulong at_ = (row0 + i0 + min(ty * ROWS + r, rows - 1)) * H + h;                                          \
        lse2[r] = lse_[lse_off + at_] * LOG2_E;                                                                        \
        delta[r] = delta_[delta_off + at_];                                                                            \
    }

#define FETCH_NEXT(c0)                                                                                                 \
    if (j0 + KEYS < seen.y) {                                                                                          \
        FETCH_QK_AT(i0, j0 + KEYS, c0)                                                                                 \
    }

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void masked_attention_backward_dq(
    __global const ELEM(DTYPE) *q_, ulong q_off, __global const ELEM(DTYPE) *k_, ulong k_off,
    __global const ELEM(DTYPE) *v_, ulong v_off, __global const MASK_ELEM *mask_, ulong mask_off,
    __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off, __global const float *lse_,
    ulong lse_off, __global const float *dout_, ulong dout_off, __global const float *delta_, ulong delta_off,
    __global float *dq_, ulong dq_off, int S, int T, float scale, uint threshold, float dropout_scale, uint stream,
    ulong seed)
{
    PAIR_TILE
    const int i0 = get_group_id(0) * QUERIES, h = get_group_id(1), b = get_group_id(2);
    const int rows = min(QUERIES, S - i0);
    const ulong row0 = (ulong)b * S; // of the sequence
    __global const ELEM(DTYPE) *q = q_ + q_off + (row0 * H + h) * D;
    __global const ELEM(DTYPE) *k = k_ + k_off + ((ulong)b * T * HK + h / GROUP) * D;
    __global const ELEM(DTYPE) *v = v_ + v_off + ((ulong)b * T * HK + h / GROUP) * DV;
    __global const float *dout = dout_ + dout_off + (row0 * H + h) * DV;
    __global const int *ks = ks_ + ks_off + row0, *ke = ke_ + ke_off + row0;
    __global const MASK_ELEM *mask = mask_ + mask_off + (row0 + i0) * MASK_ROW(T);

    float lse2[ROWS], delta[ROWS], dq[PASSES(D)][ROWS][WIDTH(D)];
    FETCH_STATISTICS

    const int2 seen = tile_range(i0, rows, S, T, ks, ke);
    const int first = seen.x / KEYS * KEYS;
    bool exact = false;
    do {
        EACH(pass, PASSES(D)) EACH_ROW(r) EACH(c, WIDTH(D)) dq[pass][r][c] = 0.0f;

        SCORE_OPERANDS
        ROW_OPERANDS(KEYS, D)
        if (EARLY && first < seen.y) {
            FETCH_QK_AT(i0, first, 0)
        }
        for (int j0 = first; j0 < seen.y; j0 += KEYS) {
            const uint bits = tile_bits(mask, ks, ke, i0, rows, j0, S, T, tx, ty);
            float4 s[ROWS], dp[ROWS];
            EACH_ROW(r) s[r] = dp[r] = (float4)(0.0f);
            SCORE_PRODUCT(D, s, FETCH_QK, FETCH_DOUT_V)
            SCORE_PRODUCT(DV, dp, FETCH_DOUT_V, NOTHING)
            EACH_ROW(r)
            {
                const int i = ty * ROWS + r;
                TILE_GRADIENTS(s[r], dp[r], bits, lse2[r], delta[r], DROPOUT_BLOCK(i0 + i, j0), p, ds)
                TO_LOCAL4(weights + i * WEIGHT_ROW + tx * 4) = ds;
            }
            if (EARLY) { // not before: that would be more registers than there are
                FETCH_K(0)
            }
            ROW_PRODUCT(D, dq, FETCH_K, FETCH_NEXT)
        }
        float zeros = 0.0f;
        EACH(pass, PASSES(D)) EACH_ROW(r) EACH(c, WIDTH(D)) zeros = fma(dq[pass][r][c], 0.0f, zeros);
        REPEAT_EXACT(exact, zeros, stage)
    } while (exact);

    EACH(pass, PASSES(D)) EACH_ROW(r) EACH(c, WIDTH(D))
    {
        int i = ty * ROWS + r, column = (pass * 16 + tx) * WIDTH(D) + c;
        if (i < rows && column < D)
            dq_[dq_off + ((row0 + i0 + i) * H + h) * D + column] = dq[pass][r][c] * scale;
    }
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void masked_attention_backward_dkv(
    __global const ELEM(DTYPE) *q_, ulong q_off, __global const ELEM(DTYPE) *k_, ulong k_off,
    __global const ELEM(DTYPE) *v_, ulong v_off, __global const MASK_ELEM *mask_, ulong mask_off,
    __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off, __global const float *lse_,
    ulong lse_off, __global const float *dout_, ulong dout_off, __global const float *delta_, ulong delta_off,
    __global float *dk_, ulong dk_off, __global float *dv_, ulong dv_off, int S, int T, float scale, uint threshold,
    float dropout_scale, uint stream, ulong seed)
{
    PAIR_TILE
    const int j0 = get_group_id(0) * KEYS, hk = get_group_id(1), b = get_group_id(2);
    const int keys = min(KEYS, T - j0);
    const ulong row0 = (ulong)b * S;
    __global const ELEM(DTYPE) *k = k_ + k_off + ((ulong)b * T * HK + hk) * D;
    __global const ELEM(DTYPE) *v = v_ + v_off + ((ulong)b * T * HK + hk) * DV;
    __global const int *ks = ks_ + ks_off + row0, *ke = ke_ + ke_off + row0;

    float4 dk[PASSES(D)][FOURS][WIDTH(D)], dv[PASSES(DV)][FOURS][WIDTH(DV)];
    bool exact = false;
    do {
        EACH_SUM_OF_KEYS(D) dk[pass][f][c] = (float4)(0.0f);
        EACH_SUM_OF_KEYS(DV) dv[pass][f][c] = (float4)(0.0f);

        for (int h = hk * GROUP; h < (hk + 1) * GROUP; ++h) {
            __global const ELEM(DTYPE) *q = q_ + q_off + (row0 * H + h) * D;
            __global const float *dout = dout_ + dout_off + (row0 * H + h) * DV;
            for (int i0 = 0; i0 < S; i0 += QUERIES) {
                const int rows = min(QUERIES, S - i0);
                const int2 seen = tile_range(i0, rows, S, T, ks, ke);
                if (j0 >= seen.y || j0 + keys <= seen.x) // the same for the whole work-group
                    continue;
                SCORE_OPERANDS
                ROW_OPERANDS(QUERIES, D > DV ? D : DV)
                if (EARLY) {
                    FETCH_QK(0)
                }
                __global const MASK_ELEM *mask = mask_ + mask_off + (row0 + i0) * MASK_ROW(T);
                float lse2[ROWS], delta[ROWS];
                float4 s[ROWS], dp[ROWS];
                uint bits = 0;
                if (EARLY) {
                    bits = tile_bits(mask, ks, ke, i0, rows, j0, S, T, tx, ty);
                    FETCH_STATISTICS
                }
                EACH_ROW(r) s[r] = dp[r] = (float4)(0.0f);
                SCORE_PRODUCT(D, s, FETCH_QK, FETCH_DOUT_V)
                SCORE_PRODUCT(DV, dp, FETCH_DOUT_V, NOTHING)
                if (!EARLY) {
                    bits = tile_bits(mask, ks, ke, i0, rows, j0, S, T, tx, ty);
                    FETCH_STATISTICS
                }
                EACH_ROW(r)
                {
                    const int i = ty * ROWS + r;
                    TILE_GRADIENTS(s[r], dp[r], bits, lse2[r], delta[r], DROPOUT_BLOCK(i0 + i, j0), p, ds)
                    TO_LOCAL4(weights + i * WEIGHT_ROW + tx * 4) = p;
                    s[r] = ds;
                }
                if (EARLY) { // not before: that would be more registers than there are
                    FETCH_DOUT(0)
                }
                KEY_PRODUCT(DV, dv, FETCH_DOUT, FETCH_Q)
                barrier(CLK_LOCAL_MEM_FENCE);
                EACH_ROW(r) TO_LOCAL4(weights + (ty * ROWS + r) * WEIGHT_ROW + tx * 4) = s[r];
                KEY_PRODUCT(D, dk, FETCH_Q, NOTHING)
            }
        }
        float4 zeros = (float4)(0.0f);
        EACH_SUM_OF_KEYS(D) zeros = fma(dk[pass][f][c], (float4)(0.0f), zeros);
        EACH_SUM_OF_KEYS(DV) zeros = fma(dv[pass][f][c], (float4)(0.0f), zeros);
        REPEAT_EXACT(exact, (zeros.x + zeros.y) + (zeros.z + zeros.w), stage)
    } while (exact);
    STORE_KEYS(D, dk, dk_ + dk_off + (((ulong)b * T + j0) * HK + hk) * D, HK * D, keys, D, scale)
    STORE_KEYS(DV, dv, dv_ + dv_off + (((ulong)b * T + j0) * HK + hk) * DV, HK * DV, keys, DV, 1.0f)
}
