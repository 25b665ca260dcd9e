// Gradients of the indexer's scores on CPUs.
//
//   z[i,j] = dscores[b,i,j] * k_scale[b,j]       where query i sees key j (and, with relu_out, the score is above 0)
//   s[i,j] = q[b,i,h,:] . k[b,j,h',:]            recomputed, never stored
//   dw[b,i,h]   = sum_j z[i,j] * relu(s[i,j])
//   dq[b,i,h,:] = sum_j p[i,j] * k[b,j,h',:]     p[i,j] = z[i,j] * w[b,i,h] * [s[i,j] > 0]
//   dk[b,j,h',:] = sum_h sum_i p[i,j] * q[b,i,h,:]
//
// Two kernels, each of which owns what it writes, so that sums have one order and no atomics:
//   .._queries_vec: a work-item owns NR queries of a head, which lie in the lanes, and streams all keys past them;
//   .._keys_vec:    a work-item owns NR keys, which lie in the lanes, and streams all queries (of all heads that share
//                   the key) past them.
// Both go through the streamed side in blocks of BLOCK rows:
//
//      own panel [DIM][NR]    x    stream [BLOCK][DIM]    ->  dots [BLOCK][NR]      (rows of the stream are broadcast)
//      dots, z, w                                         ->  p    [BLOCK][NR]
//      grad [DIM][NR]         +=   stream^T x p                                     (columns of the stream likewise)
//
// The stream past keys is cut into `parts`, each with a dk of its own, where there are fewer panels than compute units.
// Enqueued by host/ops/indexer_scores_backward.c over (S / NR, HEADS, B) and (T / NR, KEY_HEADS * parts, B).

#ifndef NV
#define NV 4 // float16 vectors of queries or keys that a work-item owns (1 .. 4)
#endif
#ifndef MR
#define MR 6 // rows of the stream in a register tile of dots (1 .. 14)
#endif
#ifndef MD
#define MD 6 // columns of the stream in a register tile of the gradient (1 .. 8)
#endif
#ifndef BLOCK_TILES
#define BLOCK_TILES 8 // register tiles of dots in a block of the stream (2 .. 16)
#endif

#include "exact.clh"
#include "indexer_scores_vec.clh"

#define BLOCK (BLOCK_TILES * MR) // rows of the stream at a time
#define ROW_FLOATS (16 * DIM_VECTORS)
#define GATED RELU_OUT           // the gradient passes only where the gate, the forward's scores, is above 0

#define LANES (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

// block[r] = rows[r], widened; the last row is repeated up to the end of the block.
inline void load_block(rows_ptr rows, size_t stride, int count, float16 *block)
{
    for (int r = 0; r < BLOCK; ++r)
        copy_row(rows + min(r, count - 1) * stride, block + r * DIM_VECTORS);
}

// dots[r][NR] = block[r] . panel for `count` rows, rounded up to whole tiles.
inline void block_dots(const float *block, int count, const float16 *panel, float16 *dots)
{
    for (int r0 = 0; r0 < count; r0 += MR) {
        float16 acc[MR][NV];
#pragma unroll
        for (int r = 0; r < MR; ++r)
#pragma unroll
            for (int v = 0; v < NV; ++v)
                acc[r][v] = (float16)(0.0f);
        for (int d = 0; d < DIM; ++d) {
            float16 own[NV];
#pragma unroll
            for (int v = 0; v < NV; ++v)
                own[v] = panel[d * NV + v];
#pragma unroll
            for (int r = 0; r < MR; ++r) {
                const float16 x = (float16)(block[(r0 + r) * ROW_FLOATS + d]);
#pragma unroll
                for (int v = 0; v < NV; ++v)
                    acc[r][v] = fma(x, own[v], acc[r][v]);
            }
        }
#pragma unroll
        for (int r = 0; r < MR; ++r)
#pragma unroll
            for (int v = 0; v < NV; ++v)
                dots[(r0 + r) * NV + v] = acc[r][v];
    }
}

// grad[d0 .. d0 + N)[NR] += the sum over `count` rows of block[r][d] * p[r]. N is a compile-time constant.
#define ADD_COLUMNS(N, block, count, p, grad, d0)                                                                      \
    do {                                                                                                               \
        float16 acc_[N][NV];                                                                                           \
        _Pragma("unroll") for (int c_ = 0; c_ < (N); ++c_)                                                             \
            _Pragma("unroll") for (int v_ = 0; v_ < NV; ++v_) acc_[c_][v_] = (grad)[((d0) + c_) * NV + v_];            \
        for (int r_ = 0; r_ < (count); ++r_) {                                                                         \
            _Pragma("unroll") for (int c_ = 0; c_ < (N); ++c_)                                                         \
            {                                                                                                          \
                const float16 x_ = (float16)((block)[r_ * ROW_FLOATS + (d0) + c_]);                                           \
                _Pragma("unroll") for (int v_ = 0; v_ < NV; ++v_) acc_[c_][v_] =                                       \
                    fma(x_, (p)[r_ * NV + v_], acc_[c_][v_]);                                                          \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("unroll") for (int c_ = 0; c_ < (N); ++c_)                                                             \
            _Pragma("unroll") for (int v_ = 0; v_ < NV; ++v_)(grad)[((d0) + c_) * NV + v_] = acc_[c_][v_];             \
    } while (0)

// The same, but a p of 0 adds nothing even where the block is not finite.
inline void add_block_exact(const float *block, int count, const float16 *p, float16 *grad)
{
    for (int d = 0; d < DIM; ++d)
        for (int r = 0; r < count; ++r)
            for (int v = 0; v < NV; ++v) {
                const float16 weight = p[r * NV + v], old = grad[d * NV + v];
                grad[d * NV + v] = select(old, fma((float16)(block[r * ROW_FLOATS + d]), weight, old),
                                          weight != (float16)(0.0f));
            }
}

inline void add_block(const float *block, int count, const float16 *p, float16 *grad, bool exact)
{
    if (exact) {
        add_block_exact(block, count, p, grad);
        return;
    }
    int d = 0;
    for (; d + MD <= DIM; d += MD)
        ADD_COLUMNS(MD, block, count, p, grad, d);
    for (; d < DIM; ++d)
        ADD_COLUMNS(1, block, count, p, grad, d);
}

// out[r][d] = grad[d][r] for the first `count` of the NR rows.
inline void store_grad(const float16 *grad, int count, __global float *out, size_t stride)
{
    for (int v = 0; v < NV; ++v) {
        const int left = count - 16 * v;
        for (int d = 0; d < DIM / 16 * 16; d += 16) {
            float16 r[16];
#pragma unroll
            for (int c = 0; c < 16; ++c)
                r[c] = grad[(d + c) * NV + v];
            transpose16(r);
#pragma unroll
            for (int c = 0; c < 16; ++c)
                if (c < left)
                    STORE16(F32, out, (16 * v + c) * stride + d, r[c]);
        }
        for (int d = DIM / 16 * 16; d < DIM; ++d)
            for (int c = 0; c < 16 && c < left; ++c)
                out[(16 * v + c) * stride + d] = ((const float *)grad)[d * NR + 16 * v + c];
    }
}

// z[i, j .. j + 16) of one query; row, gate and scale point at key j of their rows.
inline float16 upstream(__global const float *row, __global const float *gate, __global const float *scale, int2 range,
                        int j, int T)
{
    float16 z = (float16)(0.0f);
    if (j >= range.y || j + 16 <= range.x)
        return z;
    const int16 seen = (LANES + j >= range.x) & (LANES + j < range.y);
    if (j + 16 <= T) {
        z = LOAD_ROW16(F32, row, 0);
#if HAS_K_SCALE
        z *= LOAD_ROW16(F32, scale, 0);
#endif
#if GATED
        z = select((float16)(0.0f), z, LOAD_ROW16(F32, gate, 0) > (float16)(0.0f));
#endif
    } else {
        for (int l = 0; j + l < T; ++l) {
            float one = row[l];
#if HAS_K_SCALE
            one *= scale[l];
#endif
#if GATED
            one = gate[l] > 0.0f ? one : 0.0f;
#endif
            ((float *)&z)[l] = one;
        }
    }
    return select((float16)(0.0f), z, seen);
}

// dq and, as rows [B,S,HEADS], dw.
__kernel void indexer_scores_backward_queries_vec(
    __global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(Q_DTYPE) *k_, ulong k_off,
    __global const float *w_, ulong w_off, __global const float *k_scale_, ulong k_scale_off, __global const int *ks_,
    ulong ks_off, __global const int *ke_, ulong ke_off, __global const float *dscores_, ulong dscores_off,
    __global const float *gate_, ulong gate_off, __global float *dq_, ulong dq_off, __global float *dw_, ulong dw_off,
    int S, int T)
{
    const int i0 = (int)get_global_id(0) * NR, h = get_global_id(1);
    const size_t b = get_global_id(2);
    if (i0 >= S)
        return;
    const int own = min(NR, S - i0);
    rows_ptr q = q_ + q_off + ((b * S + i0) * HEADS + h) * DIM;
    rows_ptr k = k_ + k_off + (b * T * KEY_HEADS + (KEY_HEADS == 1 ? 0 : h)) * DIM;
    __global const int *ks = ks_ + ks_off + b * S;
    __global const int *ke = ke_ + ke_off + b * S;
    const size_t corner = (b * S + i0) * T;

    float16 panel[DIM * NV], grad[DIM * NV], weight[NV], dw[NV];
    pack_panel(q, HEADS * DIM, own, panel);
    for (int v = 0; v < NV; ++v)
        weight[v] = (float16)(0.0f);
    for (int r = 0; r < own; ++r)
        ((float *)weight)[r] = w_[w_off + (W_PER_ROW ? (b * S + i0 + r) * HEADS : 0) + h];

    float16 block[BLOCK * DIM_VECTORS];
    float16 p[BLOCK * NV], z[(BLOCK + 15) / 16 * 16 * NV];
    const int2 seen = tile_range(ks, ke, i0, own, S, T);
    bool exact = false; // see exact.clh
    do {
        for (int d = 0; d < DIM * NV; ++d)
            grad[d] = (float16)(0.0f);
        for (int v = 0; v < NV; ++v)
            dw[v] = (float16)(0.0f);
        for (int j0 = seen.x; j0 < seen.y; j0 += BLOCK) {
            const int count = min(BLOCK, seen.y - j0);
            for (int v = 0; v < NV; ++v) {
                for (int j = 0; j < count; j += 16) {
                    float16 rows[16];
                    for (int r = 0; r < 16; ++r) {
                        const int i = 16 * v + r;
                        rows[r] = (float16)(0.0f);
                        if (i < own) {
                            const size_t at = corner + (size_t)i * T + j0 + j;
                            rows[r] = upstream(dscores_ + dscores_off + at, gate_ + gate_off + at,
                                               k_scale_ + k_scale_off + b * T + j0 + j, row_range(ks, ke, i0 + i, S, T),
                                               j0 + j, T);
                        }
                    }
                    transpose16(rows);
#pragma unroll
                    for (int c = 0; c < 16; ++c)
                        z[(j + c) * NV + v] = rows[c];
                }
            }
            load_block(k + (size_t)j0 * (KEY_HEADS * DIM), KEY_HEADS * DIM, count, block);
            block_dots((const float *)block, count, panel, p);
            for (int r = 0; r < count; ++r) {
#pragma unroll
                for (int v = 0; v < NV; ++v) {
                    const float16 dot = p[r * NV + v], up = z[r * NV + v];
                    const int16 counts = up != (float16)(0.0f);
                    dw[v] = select(dw[v], fma(up, RELU16(dot), dw[v]), counts);
                    p[r * NV + v] = select((float16)(0.0f), up * weight[v], counts & (dot > (float16)(0.0f)));
                }
            }
            add_block((const float *)block, count, p, grad, exact);
        }
        exact = !exact && !all_finite((const float *)grad, DIM * NR);
    } while (exact);
    store_grad(grad, own, dq_ + dq_off + ((b * S + i0) * HEADS + h) * DIM, HEADS * DIM);
    for (int r = 0; r < own; ++r)
        dw_[dw_off + (b * S + i0 + r) * HEADS + h] = ((const float *)dw)[r];
}

__kernel void indexer_scores_backward_keys_vec(
    __global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(Q_DTYPE) *k_, ulong k_off,
    __global const float *w_, ulong w_off, __global const float *k_scale_, ulong k_scale_off, __global const int *ks_,
    ulong ks_off, __global const int *ke_, ulong ke_off, __global const float *dscores_, ulong dscores_off,
    __global const float *gate_, ulong gate_off, __global float *dk_, ulong dk_off, int S, int T, int parts)
{
    const int j0 = (int)get_global_id(0) * NR;
    const int key_head = (int)get_global_id(1) / parts, part = (int)get_global_id(1) % parts;
    const size_t b = get_global_id(2);
    if (j0 >= T)
        return;
    const int own = min(NR, T - j0);
    rows_ptr q = q_ + q_off + b * S * (HEADS * DIM);
    __global const float *w = w_ + w_off + (W_PER_ROW ? b * S * HEADS : 0);
    __global const int *ks = ks_ + ks_off + b * S;
    __global const int *ke = ke_ + ke_off + b * S;
    const size_t first = ((b * T + j0) * KEY_HEADS + key_head) * DIM;
    __global float *dk = dk_ + dk_off + part * (get_global_size(2) * T * KEY_HEADS * DIM);
    const int rows = ((S + BLOCK - 1) / BLOCK + parts - 1) / parts * BLOCK; // of a part

    float16 panel[DIM * NV], grad[DIM * NV];
    pack_panel(k_ + k_off + first, KEY_HEADS * DIM, own, panel);

    float16 block[BLOCK * DIM_VECTORS];
    float16 p[BLOCK * NV], z[BLOCK * NV];
    bool exact = false; // see exact.clh
    do {
        for (int d = 0; d < DIM * NV; ++d)
            grad[d] = (float16)(0.0f);
        for (int i0 = part * rows; i0 < min(S, (part + 1) * rows); i0 += BLOCK) {
            const int count = min(BLOCK, S - i0);
            const int2 seen = tile_range(ks, ke, i0, count, S, T);
            if (j0 >= seen.y || j0 + own <= seen.x)
                continue;
            for (int r = 0; r < count; ++r) {
                const int2 range = row_range(ks, ke, i0 + r, S, T);
                const size_t at = (b * S + i0 + r) * T + j0;
                for (int v = 0; v < NV; ++v)
                    z[r * NV + v] = upstream(dscores_ + dscores_off + at + 16 * v, gate_ + gate_off + at + 16 * v,
                                             k_scale_ + k_scale_off + b * T + j0 + 16 * v, range, j0 + 16 * v, T);
            }
            for (int h = KEY_HEADS == 1 ? 0 : key_head; h < (KEY_HEADS == 1 ? HEADS : key_head + 1); ++h) {
                load_block(q + ((size_t)i0 * HEADS + h) * DIM, HEADS * DIM, count, block);
                block_dots((const float *)block, count, panel, p);
                for (int r = 0; r < count; ++r) {
                    const float16 weight = (float16)(w[(W_PER_ROW ? (i0 + r) * HEADS : 0) + h]);
#pragma unroll
                    for (int v = 0; v < NV; ++v) {
                        const float16 dot = p[r * NV + v], up = z[r * NV + v];
                        p[r * NV + v] = select((float16)(0.0f), up * weight,
                                               (up != (float16)(0.0f)) & (dot > (float16)(0.0f)));
                    }
                }
                add_block((const float *)block, count, p, grad, exact);
            }
        }
        exact = !exact && !all_finite((const float *)grad, DIM * NR);
    } while (exact);
    store_grad(grad, own, dk + first, KEY_HEADS * DIM);
}
