// masked_attention for GPUs:
//
//     out[b,i,h,:] = sum_j p_ij v[b,j,h',:],  p_i = softmax_j(scale * q[b,i,h,:] . k[b,j,h',:]),  lse[b,i,h]
//
// One work-group per (query tile, head, batch element), global size (256 * ceil(S / QUERIES), H, B), local (256, 1, 1).
// It walks the visible tiles of 64 keys with a running maximum and sum per row (online softmax): scores in registers,
// weights through local memory, the output in registers. See masked_attention_simt.clh for the layout.
#include "masked_attention_simt.clh"

#ifndef OUT_DTYPE
#define OUT_DTYPE F32 // storage of out
#endif
#ifndef HAS_LSE
#define HAS_LSE 1 // lse is written
#endif

#define W WIDTH(DV)

// Folds the 16 work-items of a row; every one of them gets the result. `red` is [QUERIES][16].
#define FOLD_ROWS(value, red, FOLD)                                                                                    \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    for (int r = 0; r < ROWS; ++r)                                                                                     \
        red[(ty * ROWS + r) * 16 + tx] = value[r];                                                                     \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    for (int r = 0; r < ROWS; ++r)                                                                                     \
        for (int t = 0; t < 16; ++t)                                                                                   \
            value[r] = t == 0 ? red[(ty * ROWS + r) * 16] : FOLD(value[r], red[(ty * ROWS + r) * 16 + t]);

#define ADD(a, b) ((a) + (b))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))

__kernel __attribute__((reqd_work_group_size(GROUP_SIZE, 1, 1))) MANY_REGISTERS void
masked_attention_simt(__global const ELEM(DTYPE) *q_, ulong q_off, __global const ELEM(DTYPE) *k_, ulong k_off,
                      __global const ELEM(DTYPE) *v_, ulong v_off, __global const MASK_ELEM *mask_, ulong mask_off,
                      __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off,
                      __global ELEM(OUT_DTYPE) *out_, ulong out_off, __global float *lse_, ulong lse_off, int S, int T,
                      float scale, uint threshold, float dropout_scale, uint stream, ulong seed)
{
    __local float stage[STAGE_FLOATS] ALIGNED, weights[QUERIES * WEIGHT_ROW] ALIGNED, red[QUERIES * 16];
    const int tx = get_local_id(0) % 16, ty = get_local_id(0) / 16;
    const int i0 = get_group_id(0) * QUERIES, h = get_group_id(1), b = get_group_id(2);
    const int rows = min(QUERIES, S - i0);
    const ulong row0 = (ulong)b * S + i0; // the tile's first row of [B,S]
    __global const ELEM(DTYPE) *q = q_ + q_off + (row0 * H + h) * D;
    __global const ELEM(DTYPE) *k = k_ + k_off + ((ulong)b * T * HK + h / GROUP) * D;
    __global const ELEM(DTYPE) *v = v_ + v_off + ((ulong)b * T * HK + h / GROUP) * DV;
    __global const int *ks = ks_ + ks_off + (ulong)b * S, *ke = ke_ + ke_off + (ulong)b * S;

    float top[ROWS], sum[ROWS], o[PASSES(DV)][ROWS][W];
    int2 range[ROWS];
    for (int r = 0; r < ROWS; ++r) {
        int i = ty * ROWS + r;
        range[r] = i < rows ? row_range(i0 + i, S, T, ks, ke) : (int2)(0, 0);
    }

    const int2 seen = tile_range(i0, rows, S, T, ks, ke);
    bool exact = false;
    do {
        for (int r = 0; r < ROWS; ++r) {
            top[r] = -INFINITY;
            sum[r] = 0.0f;
            for (int pass = 0; pass < PASSES(DV); ++pass)
                for (int c = 0; c < W; ++c)
                    o[pass][r][c] = 0.0f;
        }
        for (int j0 = seen.x / KEYS * KEYS; j0 < seen.y; j0 += KEYS) {
            const int keys = min(KEYS, T - j0);
            float4 s[ROWS];
            for (int r = 0; r < ROWS; ++r)
                s[r] = (float4)(0.0f);
            SCORE_PRODUCT(DTYPE, DTYPE, D, s, q, H, 0, rows, k, HK, j0, keys)

            float higher[ROWS], alpha[ROWS];
            for (int r = 0; r < ROWS; ++r) {
                uint bits = visible_bits(range[r], mask_ + mask_off + (row0 + ty * ROWS + r) * MASK_ROW(T), j0 + tx);
                s[r] = BITS4(bits) ? s[r] * scale : (float4)(-INFINITY);
                higher[r] = LARGER(LARGER(s[r].x, s[r].y), LARGER(s[r].z, s[r].w));
            }
            FOLD_ROWS(higher, red, LARGER)
            for (int r = 0; r < ROWS; ++r) {
                higher[r] = LARGER(higher[r], top[r]);
                // A row that has seen no key yet keeps -inf; subtracting 0 instead gives it weights of 0, not NaN.
                float base = higher[r] == -INFINITY ? 0.0f : higher[r];
                float4 p = exp2(s[r] - base);
                alpha[r] = exp2(top[r] - base);
                top[r] = higher[r];
                // Of this work-item's keys; folded at the end.
                sum[r] = sum[r] * alpha[r] + ((p.x + p.y) + (p.z + p.w));
#if DROPOUT
                ulong block = (((ulong)b * H + h) * S + i0 + ty * ROWS + r) * ((T + 63) / 64) + j0 / 64;
                p *= dropout_factor(block, tx, stream, seed, threshold, dropout_scale);
#endif
                TO_LOCAL4(weights + (ty * ROWS + r) * WEIGHT_ROW + tx * 4) = p;
            }

            for (int pass = 0; pass < PASSES(DV); ++pass) {
                barrier(CLK_LOCAL_MEM_FENCE);
                STAGE_ROWS(DTYPE, DV, HK, stage, v, j0, keys, KEYS, pass * 16 * W)
                barrier(CLK_LOCAL_MEM_FENCE);
                for (int r = 0; r < ROWS; ++r)
                    for (int c = 0; c < W; ++c)
                        o[pass][r][c] *= alpha[r];
                ROW_PRODUCT(DV, o[pass])
            }
        }
        float zeros = 0.0f;
        for (int pass = 0; pass < PASSES(DV); ++pass)
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < W; ++c)
                    zeros = fma(o[pass][r][c], 0.0f, zeros);
        REPEAT_EXACT(exact, zeros, stage)
    } while (exact);

    FOLD_ROWS(sum, red, ADD)
    for (int r = 0; r < ROWS; ++r) {
        int i = ty * ROWS + r;
        if (i >= rows)
            continue;
        bool empty = sum[r] == 0.0f;
        float factor = empty ? 0.0f : 1.0f / sum[r];
        ulong at = (row0 + i) * H + h;
#if HAS_LSE
        if (tx == 0)
            lse_[lse_off + at] = empty ? INFINITY : (top[r] + log2(sum[r])) * LN_2;
#endif
        for (int pass = 0; pass < PASSES(DV); ++pass)
            for (int c = 0; c < W; ++c) {
                int column = (pass * 16 + tx) * W + c;
                if (column < DV)
                    STORE(OUT_DTYPE, out_, out_off + at * DV + column, o[pass][r][c] * factor);
            }
    }
}
