// Gradients of masked_attention for GPUs, with p recomputed from the row's lse (flash attention's backward pass):
//
//     delta_i = dout_i . out_i      dp_ij = dout_i . v_j      ds_ij = p_ij (dp_ij - delta_i)
//     dv_j = sum_i p_ij dout_i      dk_j = scale * sum_i ds_ij q_i      dq_i = scale * sum_j ds_ij k_j
//
// With dropout dp and the p of dv carry the mask and 1/(1-p); delta needs nothing more, since out did already.
//
// Three kernels in this order: _delta, one work-item per row and head; _dq, a work-group per query tile that walks the
// key tiles; _dkv, a work-group per key tile that walks the query tiles of all heads of the group. Every sum belongs to
// one work-item, so the result needs no atomics and is the same in every run. See masked_attention_simt.clh.
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

// p and ds of the tile (i0, j0) from its products s = q k^T and dp = dout v^T. `seen` are a row's bits.
// p becomes what multiplied v. Where p is 0, so is ds; where a weight is dropped, p and dp are. Rows beyond the tile's
// last see no key, whatever lse2 and delta are: they read the last row's. A branch around those loads makes Intel's CPU
// runtime 2026.2 compute wrong addresses of `weights` from the same row numbers, behind the next barrier.
#define TILE_GRADIENTS(s, dp, seen, lse2, delta, block, p, ds)                                                         \
    float4 p = BITS4(seen) ? exp2(fma(s, (float4)(scale * LOG2_E), (float4)(-(lse2)))) : (float4)(0.0f);               \
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

__kernel __attribute__((reqd_work_group_size(GROUP_SIZE, 1, 1))) MANY_REGISTERS void masked_attention_backward_dq(
    __global const ELEM(DTYPE) *q_, ulong q_off, __global const ELEM(DTYPE) *k_, ulong k_off,
    __global const ELEM(DTYPE) *v_, ulong v_off, __global const MASK_ELEM *mask_, ulong mask_off,
    __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off, __global const float *lse_,
    ulong lse_off, __global const float *dout_, ulong dout_off, __global const float *delta_, ulong delta_off,
    __global float *dq_, ulong dq_off, int S, int T, float scale, uint threshold, float dropout_scale, uint stream,
    ulong seed)
{
    __local float stage[STAGE_FLOATS] ALIGNED, weights[QUERIES * WEIGHT_ROW] ALIGNED;
    const int tx = get_local_id(0) % 16, ty = get_local_id(0) / 16;
    const int i0 = get_group_id(0) * QUERIES, h = get_group_id(1), b = get_group_id(2);
    const int rows = min(QUERIES, S - i0);
    const ulong row0 = (ulong)b * S + i0;
    __global const ELEM(DTYPE) *q = q_ + q_off + (row0 * H + h) * D;
    __global const ELEM(DTYPE) *k = k_ + k_off + ((ulong)b * T * HK + h / GROUP) * D;
    __global const ELEM(DTYPE) *v = v_ + v_off + ((ulong)b * T * HK + h / GROUP) * DV;
    __global const float *dout = dout_ + dout_off + (row0 * H + h) * DV;
    __global const int *ks = ks_ + ks_off + (ulong)b * S, *ke = ke_ + ke_off + (ulong)b * S;

    float lse2[ROWS], delta[ROWS], dq[PASSES(D)][ROWS][WIDTH(D)];
    int2 range[ROWS];
    for (int r = 0; r < ROWS; ++r) {
        int i = ty * ROWS + r;
        range[r] = i < rows ? row_range(i0 + i, S, T, ks, ke) : (int2)(0, 0);
        const ulong at = (row0 + min(i, rows - 1)) * H + h;
        lse2[r] = lse_[lse_off + at] * LOG2_E;
        delta[r] = delta_[delta_off + at];
    }

    const int2 seen = tile_range(i0, rows, S, T, ks, ke);
    bool exact = false;
    do {
        for (int pass = 0; pass < PASSES(D); ++pass)
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < WIDTH(D); ++c)
                    dq[pass][r][c] = 0.0f;
        for (int j0 = seen.x / KEYS * KEYS; j0 < seen.y; j0 += KEYS) {
            const int keys = min(KEYS, T - j0);
            float4 s[ROWS], dp[ROWS];
            for (int r = 0; r < ROWS; ++r)
                s[r] = dp[r] = (float4)(0.0f);
            SCORE_PRODUCT(DTYPE, DTYPE, D, s, q, H, 0, rows, k, HK, j0, keys)
            SCORE_PRODUCT(F32, DTYPE, DV, dp, dout, H, 0, rows, v, HK, j0, keys)
            for (int r = 0; r < ROWS; ++r) {
                int i = ty * ROWS + r;
                uint bits = visible_bits(range[r], mask_ + mask_off + (row0 + i) * MASK_ROW(T), j0 + tx);
                TILE_GRADIENTS(s[r], dp[r], bits, lse2[r], delta[r], DROPOUT_BLOCK(i0 + i, j0), p, ds)
                TO_LOCAL4(weights + i * WEIGHT_ROW + tx * 4) = ds;
            }
            for (int pass = 0; pass < PASSES(D); ++pass) {
                barrier(CLK_LOCAL_MEM_FENCE);
                STAGE_ROWS(DTYPE, D, HK, stage, k, j0, keys, KEYS, pass * 16 * WIDTH(D))
                barrier(CLK_LOCAL_MEM_FENCE);
                ROW_PRODUCT(D, dq[pass])
            }
        }
        float zeros = 0.0f;
        for (int pass = 0; pass < PASSES(D); ++pass)
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < WIDTH(D); ++c)
                    zeros = fma(dq[pass][r][c], 0.0f, zeros);
        REPEAT_EXACT(exact, zeros, stage)
    } while (exact);

    for (int r = 0; r < ROWS; ++r)
        for (int pass = 0; pass < PASSES(D); ++pass)
            for (int c = 0; c < WIDTH(D); ++c) {
                int i = ty * ROWS + r, column = (pass * 16 + tx) * WIDTH(D) + c;
                if (i < rows && column < D)
                    dq_[dq_off + ((row0 + i) * H + h) * D + column] = dq[pass][r][c] * scale;
            }
}

// acc[key][column] += sum over the tile's queries of weights[i][key] * rows[i][column]; the work-item's keys are the
// positions ty * 4 .. ty * 4 + 3.
#define KEY_PRODUCT(DT, columns, acc, p_, first, count)                                                                \
    for (int pass = 0; pass < PASSES(columns); ++pass) {                                                               \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        STAGE_ROWS(DT, columns, H, stage, p_, first, count, QUERIES, pass * 16 * WIDTH(columns))                       \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        if (exact)                                                                                                     \
            for (int i = 0; i < QUERIES; ++i) {                                                                        \
                float4 w = LOCAL4(weights + i * WEIGHT_ROW + ty * 4);                                                  \
                for (int c = 0; c < WIDTH(columns); ++c)                                                               \
                    acc[pass][c] = w == (float4)(0.0f)                                                                 \
                                       ? acc[pass][c]                                                                  \
                                       : fma(w, (float4)(stage[(i * 16 + tx) * WIDTH(columns) + c]), acc[pass][c]);    \
            }                                                                                                          \
        else                                                                                                           \
            _Pragma("unroll 4") for (int i = 0; i < QUERIES; ++i)                                                      \
            {                                                                                                          \
                float4 w = LOCAL4(weights + i * WEIGHT_ROW + ty * 4);                                                  \
                LOCAL_N(WIDTH(columns), x, stage + (i * 16 + tx) * WIDTH(columns))                                     \
                _Pragma("unroll") for (int c = 0; c < WIDTH(columns); ++c) acc[pass][c] =                              \
                    fma(w, (float4)(x[c]), acc[pass][c]);                                                              \
            }                                                                                                          \
    }

#define STORE_KEYS(columns, acc, p_, factor)                                                                           \
    for (int pass = 0; pass < PASSES(columns); ++pass)                                                                 \
        for (int c = 0; c < WIDTH(columns); ++c) {                                                                     \
            int column = (pass * 16 + tx) * WIDTH(columns) + c;                                                        \
            float4 x = acc[pass][c] * (factor);                                                                        \
            __global float *to = (p_) + (ulong)(j0 + ty) * (HK * (columns)) + column;                                  \
            if (column < (columns)) {                                                                                  \
                if (ty < keys)                                                                                         \
                    to[0] = x.x;                                                                                       \
                if (ty + 16 < keys)                                                                                    \
                    to[16 * HK * (columns)] = x.y;                                                                     \
                if (ty + 32 < keys)                                                                                    \
                    to[32 * HK * (columns)] = x.z;                                                                     \
                if (ty + 48 < keys)                                                                                    \
                    to[48 * HK * (columns)] = x.w;                                                                     \
            }                                                                                                          \
        }

__kernel __attribute__((reqd_work_group_size(GROUP_SIZE, 1, 1))) MANY_REGISTERS void masked_attention_backward_dkv(
    __global const ELEM(DTYPE) *q_, ulong q_off, __global const ELEM(DTYPE) *k_, ulong k_off,
    __global const ELEM(DTYPE) *v_, ulong v_off, __global const MASK_ELEM *mask_, ulong mask_off,
    __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off, __global const float *lse_,
    ulong lse_off, __global const float *dout_, ulong dout_off, __global const float *delta_, ulong delta_off,
    __global float *dk_, ulong dk_off, __global float *dv_, ulong dv_off, int S, int T, float scale, uint threshold,
    float dropout_scale, uint stream, ulong seed)
{
    __local float stage[STAGE_FLOATS] ALIGNED, weights[QUERIES * WEIGHT_ROW] ALIGNED;
    const int tx = get_local_id(0) % 16, ty = get_local_id(0) / 16;
    const int j0 = get_group_id(0) * KEYS, hk = get_group_id(1), b = get_group_id(2);
    const int keys = min(KEYS, T - j0);
    const ulong batch_row = (ulong)b * S;
    __global const ELEM(DTYPE) *k = k_ + k_off + ((ulong)b * T * HK + hk) * D;
    __global const ELEM(DTYPE) *v = v_ + v_off + ((ulong)b * T * HK + hk) * DV;
    __global const int *ks = ks_ + ks_off + batch_row, *ke = ke_ + ke_off + batch_row;

    float4 dk[PASSES(D)][WIDTH(D)], dv[PASSES(DV)][WIDTH(DV)];
    bool exact = false;
    do {
        for (int pass = 0; pass < PASSES(D); ++pass)
            for (int c = 0; c < WIDTH(D); ++c)
                dk[pass][c] = (float4)(0.0f);
        for (int pass = 0; pass < PASSES(DV); ++pass)
            for (int c = 0; c < WIDTH(DV); ++c)
                dv[pass][c] = (float4)(0.0f);

        for (int h = hk * GROUP; h < (hk + 1) * GROUP; ++h) {
            __global const ELEM(DTYPE) *q = q_ + q_off + (batch_row * H + h) * D;
            __global const float *dout = dout_ + dout_off + (batch_row * H + h) * DV;
            for (int i0 = 0; i0 < S; i0 += QUERIES) {
                const int rows = min(QUERIES, S - i0);
                const int2 seen = tile_range(i0, rows, S, T, ks, ke);
                if (j0 >= seen.y || j0 + keys <= seen.x) // the same for the whole work-group
                    continue;
                float4 s[ROWS], dp[ROWS], ds[ROWS];
                for (int r = 0; r < ROWS; ++r)
                    s[r] = dp[r] = (float4)(0.0f);
                SCORE_PRODUCT(DTYPE, DTYPE, D, s, q, H, i0, rows, k, HK, j0, keys)
                SCORE_PRODUCT(F32, DTYPE, DV, dp, dout, H, i0, rows, v, HK, j0, keys)
                for (int r = 0; r < ROWS; ++r) {
                    int i = ty * ROWS + r;
                    ulong row = batch_row + i0 + i;
                    int2 range = i < rows ? row_range(i0 + i, S, T, ks, ke) : (int2)(0, 0);
                    uint bits = visible_bits(range, mask_ + mask_off + row * MASK_ROW(T), j0 + tx);
                    const ulong at = (batch_row + i0 + min(i, rows - 1)) * H + h;
                    float lse2 = lse_[lse_off + at] * LOG2_E, delta = delta_[delta_off + at];
                    TILE_GRADIENTS(s[r], dp[r], bits, lse2, delta, DROPOUT_BLOCK(i0 + i, j0), p, gradient)
                    TO_LOCAL4(weights + i * WEIGHT_ROW + tx * 4) = p;
                    ds[r] = gradient;
                }
                KEY_PRODUCT(F32, DV, dv, dout, i0, rows)
                barrier(CLK_LOCAL_MEM_FENCE);
                for (int r = 0; r < ROWS; ++r)
                    TO_LOCAL4(weights + (ty * ROWS + r) * WEIGHT_ROW + tx * 4) = ds[r];
                KEY_PRODUCT(DTYPE, D, dk, q, i0, rows)
            }
        }
        float4 zeros = (float4)(0.0f);
        for (int pass = 0; pass < PASSES(D); ++pass)
            for (int c = 0; c < WIDTH(D); ++c)
                zeros = fma(dk[pass][c], (float4)(0.0f), zeros);
        for (int pass = 0; pass < PASSES(DV); ++pass)
            for (int c = 0; c < WIDTH(DV); ++c)
                zeros = fma(dv[pass][c], (float4)(0.0f), zeros);
        REPEAT_EXACT(exact, (zeros.x + zeros.y) + (zeros.z + zeros.w), stage)
    } while (exact);
    STORE_KEYS(D, dk, dk_ + dk_off + ((ulong)b * T * HK + hk) * D, scale)
    STORE_KEYS(DV, dv, dv_ + dv_off + ((ulong)b * T * HK + hk) * DV, 1.0f)
}
