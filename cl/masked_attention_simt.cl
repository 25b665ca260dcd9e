// masked_attention for GPUs:
//
//     out[b,i,h,:] = sum_j p_ij v[b,j,h',:],  p_i = softmax_j(scale * q[b,i,h,:] . k[b,j,h',:]),  lse[b,i,h]
//
// One work-group per (query tile, head, batch element), global size (WG * ceil(S / QUERIES), H, B), local (WG, 1, 1).
// It walks the visible tiles of 64 keys with a running maximum and sum per row (online softmax): scores in registers,
// weights through local memory, the output in registers. See pair_tile.clh for the layout.
#include "masked_attention_simt.clh"

#ifndef OUT_DTYPE
#define OUT_DTYPE F32 // storage of out
#endif
#ifndef HAS_LSE
#define HAS_LSE 1 // lse is written
#endif

#define W WIDTH(DV)
#define FETCH_QK_AT(j, c0)                                                                                             \
    FETCH_SCORES(DTYPE, Q_VEC, H, q, rows, DTYPE, K_VEC, HK, k + (ulong)(j) * (HK * D), min(KEYS, T - (j)), D, c0)
#define FETCH_QK(c0) FETCH_QK_AT(j0, c0)
#define FETCH_V(pass)                                                                                                  \
    FETCH_COLUMNS(DTYPE, V_VEC, HK, v + (ulong)j0 * (HK * DV), min(KEYS, T - j0), KEYS, DV, (pass) * 16 * W)

// Folds the 16 work-items of a row; every one of them gets the result. `red` is [QUERIES][RED_ROW]; who has read it has
// met a barrier before it is written again.
#define RED_ROW 20
#define FOLD_ROWS(value, red, FOLD)                                                                                    \
    EACH_ROW(r) red[(ty * ROWS + r) * RED_ROW + tx] = value[r];                                                        \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    if ((int)get_local_id(0) < QUERIES) {                                                                              \
        __local float *row_ = red + (int)get_local_id(0) * RED_ROW;                                                    \
        float4 all_ = FOLD(FOLD(LOCAL4(row_), LOCAL4(row_ + 4)), FOLD(LOCAL4(row_ + 8), LOCAL4(row_ + 12)));           \
        row_[0] = FOLD(FOLD(all_.x, all_.y), FOLD(all_.z, all_.w));                                                    \
    }                                                                                                                  \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    EACH_ROW(r) value[r] = red[(ty * ROWS + r) * RED_ROW];

#define ADD(a, b) ((a) + (b))

#define FETCH_NEXT(c0)                                                                                                 \
    if (j0 + KEYS < seen.y) {                                                                                          \
        FETCH_QK_AT(j0 + KEYS, c0)                                                                                     \
    }

#define EACH_SUM EACH(pass, PASSES(DV)) EACH_ROW(r) EACH(c, W)

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
masked_attention_simt(__global const ELEM(DTYPE) *q_, ulong q_off, __global const ELEM(DTYPE) *k_, ulong k_off,
                      __global const ELEM(DTYPE) *v_, ulong v_off, __global const MASK_ELEM *mask_, ulong mask_off,
                      __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off,
                      __global ELEM(OUT_DTYPE) *out_, ulong out_off, __global float *lse_, ulong lse_off, int S, int T,
                      float scale, uint threshold, float dropout_scale, uint stream, ulong seed)
{
    PAIR_TILE
    __local float red[QUERIES * RED_ROW] ALIGNED;
    const int i0 = get_group_id(0) * QUERIES, h = get_group_id(1), b = get_group_id(2);
    const int rows = min(QUERIES, S - i0);
    const ulong row0 = (ulong)b * S + i0; // the tile's first row of [B,S]
    __global const ELEM(DTYPE) *q = q_ + q_off + (row0 * H + h) * D;
    __global const ELEM(DTYPE) *k = k_ + k_off + ((ulong)b * T * HK + h / GROUP) * D;
    __global const ELEM(DTYPE) *v = v_ + v_off + ((ulong)b * T * HK + h / GROUP) * DV;
    __global const int *ks = ks_ + ks_off + (ulong)b * S, *ke = ke_ + ke_off + (ulong)b * S;
    __global const MASK_ELEM *mask = mask_ + mask_off + row0 * MASK_ROW(T);

    float top[ROWS], sum[ROWS], o[PASSES(DV)][ROWS][W];
    const int2 seen = tile_range(i0, rows, S, T, ks, ke);
    const int first = seen.x / KEYS * KEYS;
    bool exact = false;
    do {
        EACH_ROW(r)
        {
            top[r] = -INFINITY;
            sum[r] = 0.0f;
        }
        EACH_SUM o[pass][r][c] = 0.0f;

        SCORE_OPERANDS
        ROW_OPERANDS(KEYS, DV)
        if (EARLY && first < seen.y) {
            FETCH_QK_AT(first, 0)
        }
        for (int j0 = first; j0 < seen.y; j0 += KEYS) {
            const uint bits = tile_bits(mask, ks, ke, i0, rows, j0, S, T, tx, ty);
            float4 s[ROWS];
            EACH_ROW(r) s[r] = (float4)(0.0f);
            SCORE_PRODUCT(D, s, FETCH_QK, NOTHING)

            float higher[ROWS];
            EACH_ROW(r)
            {
                s[r] = SEES(bits, r) ? s[r] * scale : (float4)(-INFINITY);
                higher[r] = fmax(fmax(s[r].x, s[r].y), fmax(s[r].z, s[r].w));
            }
            FOLD_ROWS(higher, red, fmax)
            EACH_ROW(r)
            {
                higher[r] = fmax(higher[r], top[r]);
                // A row that has seen no key yet keeps -inf; subtracting 0 instead gives it weights of 0, not NaN.
                float base = higher[r] == -INFINITY ? 0.0f : higher[r];
                float4 p = exp2(s[r] - base);
                const float alpha = exp2(top[r] - base);
                top[r] = higher[r];
                EACH(pass, PASSES(DV)) EACH(c, W) o[pass][r][c] *= alpha;
                // Of this work-item's keys; folded at the end.
                sum[r] = sum[r] * alpha + ((p.x + p.y) + (p.z + p.w));
#if DROPOUT
                ulong block = (((ulong)b * H + h) * S + i0 + ty * ROWS + r) * ((T + 63) / 64) + j0 / 64;
                p *= dropout_factor(block, tx, stream, seed, threshold, dropout_scale);
#endif
                TO_LOCAL4(weights + (ty * ROWS + r) * WEIGHT_ROW + tx * 4) = p;
            }

            if (EARLY) { // not before: that would be more registers than there are
                FETCH_V(0)
            }
            ROW_PRODUCT(DV, o, FETCH_V, FETCH_NEXT)
        }
        float zeros = 0.0f;
        EACH_SUM zeros = fma(o[pass][r][c], 0.0f, zeros);
        REPEAT_EXACT(exact, zeros, stage)
    } while (exact);

    FOLD_ROWS(sum, red, ADD)
    EACH_ROW(r)
    {
        int i = ty * ROWS + r;
        bool empty = sum[r] == 0.0f;
        float factor = empty ? 0.0f : 1.0f / sum[r];
        ulong at = (row0 + i) * H + h;
#if HAS_LSE
        if (tx == 0 && i < rows)
            lse_[lse_off + at] = empty ? INFINITY : (top[r] + log2(sum[r])) * LN_2;
#endif
        EACH(pass, PASSES(DV)) EACH(c, W)
        {
            int column = (pass * 16 + tx) * W + c;
            if (column < DV && i < rows)
                STORE(OUT_DTYPE, out_, out_off + at * DV + column, o[pass][r][c] * factor);
        }
    }
}
