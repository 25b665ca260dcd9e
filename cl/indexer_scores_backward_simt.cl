// Gradients of the indexer's scores on GPUs.
//
//   z[i,j] = dscores[b,i,j] * k_scale[b,j]       where query i sees key j (and, with relu_out, the score is above 0)
//   s[i,j] = q[b,i,h,:] . k[b,j,h',:]            recomputed, never stored
//   dw[b,i,h]   = sum_j z[i,j] * relu(s[i,j])
//   dq[b,i,h,:] = sum_j p[i,j] * k[b,j,h',:]     p[i,j] = z[i,j] * w[b,i,h] * [s[i,j] > 0]
//   dk[b,j,h',:] = sum_h sum_i p[i,j] * q[b,i,h,:]
//
// Two kernels, each of which owns what it writes, so that sums have one order and no atomics:
//   .._queries_simt: a work-group owns QUERIES queries of a head and walks over all tiles of keys;
//   .._keys_simt:    a work-group owns 64 keys and walks over all tiles of queries (of all heads that share the key).
// A step of the walk is a tile of pairs (pair_tile.clh): s, then p into local memory, then what p adds to the gradient.
// Gradients stay in registers for the whole walk. DIM beyond DBLOCK is split over work-groups, which repeat s.
// Few tiles of keys leave most of a device idle: then their walk is cut into `parts`, each with a dk of its own.
// Enqueued by host/ops/indexer_scores_backward.c over (ceil(S / QUERIES) * WG, HEADS * D blocks, B) and
// (ceil(T / 64) * WG, KEY_HEADS * D blocks * parts, B).

#include "indexer_scores.clh"
#include "pair_tile.clh"

#ifndef Q_VEC
#define Q_VEC 0 // 1: rows of q begin on multiples of 4 elements
#endif
#ifndef K_VEC
#define K_VEC 0
#endif
#ifndef DBLOCK
#define DBLOCK 64 // columns of a gradient that a work-group owns (64, 128)
#endif

#define D_BLOCKS ((DIM + DBLOCK - 1) / DBLOCK)
#define OWNED (DIM < DBLOCK ? DIM : DBLOCK)
#define GATED RELU_OUT // the gradient passes only where the gate, the forward's scores, is above 0

typedef __global const ELEM(Q_DTYPE) *rows_ptr;

// The tile of queries from i0 on and of keys from j0 on.
#define FETCH_QK_AT(i0, j0, c0)                                                                                        \
    FETCH_SCORES(Q_DTYPE, Q_VEC, HEADS, q + (size_t)(i0) * (HEADS * DIM), min(QUERIES, S - (i0)), Q_DTYPE, K_VEC,      \
                 KEY_HEADS, k + (size_t)(j0) * (KEY_HEADS * DIM), min(KEYS, T - (j0)), DIM, c0)
#define FETCH_QK(c0) FETCH_QK_AT(i0, j0, c0)
#define FETCH_K(pass)                                                                                                  \
    FETCH_COLUMNS(Q_DTYPE, K_VEC, KEY_HEADS, k + (size_t)j0 * (KEY_HEADS * DIM), min(KEYS, T - j0), KEYS, DIM,         \
                  d0 + (pass) * 16 * WIDTH(OWNED))
#define FETCH_Q(pass)                                                                                                  \
    FETCH_COLUMNS(Q_DTYPE, Q_VEC, HEADS, q + (size_t)i0 * (HEADS * DIM), min(QUERIES, S - i0), QUERIES, DIM,           \
                  d0 + (pass) * 16 * WIDTH(OWNED))

// z of a query's keys j + 16 * c; 0 where the query does not see the key. dscores and gate are the query's rows.
inline float4 upstream(__global const float *dscores, __global const float *gate, __global const float *k_scale,
                       int2 range, int T, int j)
{
    float z[4];
#pragma unroll
    for (int c = 0; c < 4; ++c, j += 16) {
        const int at = min(j, T - 1); // read anyway: a branch would wait for each
        bool on = j >= range.x && j < range.y;
#if GATED
        on = on & (gate[at] > 0.0f);
#endif
        z[c] = dscores[at];
#if HAS_K_SCALE
        z[c] *= k_scale[at];
#endif
        z[c] = on ? z[c] : 0.0f;
    }
    return (float4)(z[0], z[1], z[2], z[3]);
}

// Of all rows of a work-item in the tile whose queries are i0 .. i0 + rows; also the weights of head h there.
#define UPSTREAM(z, weight)                                                                                            \
    EACH_ROW(r)                                                                                                        \
    {                                                                                                                  \
        const int i = i0 + min(ty * ROWS + r, rows - 1);                                                               \
        const int2 range = ty * ROWS + r < rows ? row_range(ks, ke, i, S, T) : (int2)(0, 0);                           \
        const size_t row = (b * S + i) * T;                                                                            \
        weight[r] = w_[w_off + (W_PER_ROW ? (b * S + i) * HEADS : 0) + h];                                             \
        z[r] = upstream(dscores_ + dscores_off + row, gate_ + gate_off + row, k_scale_ + k_scale_off + b * T, range,   \
                        T, j0 + tx);                                                                                   \
    }

// p of a row's keys to local memory.
#define STORE_WEIGHTS(z, weight, s)                                                                                    \
    EACH_ROW(r)                                                                                                        \
    TO_LOCAL4(weights + (ty * ROWS + r) * WEIGHT_ROW + tx * 4) =                                                       \
        z[r] != (float4)(0.0f) && s[r] > (float4)(0.0f) ? z[r] * weight[r] : (float4)(0.0f);

#define INPUTS                                                                                                         \
    __global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(Q_DTYPE) *k_, ulong k_off,                      \
        __global const float *w_, ulong w_off, __global const float *k_scale_, ulong k_scale_off,                      \
        __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off, __global const float *dscores_,  \
        ulong dscores_off, __global const float *gate_, ulong gate_off

#define FETCH_NEXT(c0)                                                                                                 \
    if (j0 + KEYS < seen.y) {                                                                                          \
        FETCH_QK_AT(i0, j0 + KEYS, c0)                                                                                 \
    }

// dq and, as rows [B,S,HEADS], dw.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
indexer_scores_backward_queries_simt(INPUTS, __global float *dq_, ulong dq_off, __global float *dw_, ulong dw_off,
                                     int S, int T)
{
    PAIR_TILE
    const int i0 = (int)get_group_id(0) * QUERIES, h = (int)get_group_id(1) / D_BLOCKS;
    const int d0 = (int)get_group_id(1) % D_BLOCKS * DBLOCK;
    const size_t b = get_group_id(2);
    const int rows = min(QUERIES, S - i0);
    rows_ptr q = q_ + q_off + (b * S * HEADS + h) * DIM;
    rows_ptr k = k_ + k_off + (b * T * KEY_HEADS + (KEY_HEADS == 1 ? 0 : h)) * DIM;
    __global const int *ks = ks_ + ks_off + b * S, *ke = ke_ + ke_off + b * S;

    float dw[ROWS];
    float grad[PASSES(OWNED)][ROWS][WIDTH(OWNED)];
    const int2 seen = tile_range(ks, ke, i0, rows, S, T);
    bool exact = false;
    do {
        EACH(pass, PASSES(OWNED)) EACH_ROW(r) EACH(c, WIDTH(OWNED)) grad[pass][r][c] = 0.0f;
        EACH_ROW(r) dw[r] = 0.0f;
        SCORE_OPERANDS
        ROW_OPERANDS(KEYS, OWNED)
        if (EARLY && seen.x < seen.y) {
            FETCH_QK_AT(i0, seen.x, 0)
        }
        for (int j0 = seen.x; j0 < seen.y; j0 += KEYS) {
            float4 s[ROWS], z[ROWS];
            float weight[ROWS];
            EACH_ROW(r) s[r] = (float4)(0.0f);
            UPSTREAM(z, weight)
            SCORE_PRODUCT(DIM, s, FETCH_QK, FETCH_K)
            EACH_ROW(r)
            {
                float4 shares = z[r] == (float4)(0.0f) ? (float4)(0.0f) : z[r] * RELU4(s[r]);
                dw[r] += (shares.x + shares.y) + (shares.z + shares.w);
            }
            STORE_WEIGHTS(z, weight, s)
            ROW_PRODUCT(OWNED, grad, FETCH_K, FETCH_NEXT)
        }
        float zeros = 0.0f;
        EACH(pass, PASSES(OWNED)) EACH_ROW(r) EACH(c, WIDTH(OWNED)) zeros = fma(grad[pass][r][c], 0.0f, zeros);
        REPEAT_EXACT(exact, zeros, stage)
    } while (exact);

    // dw: every item has the sums over its own columns; one adds up those of a row in order.
    barrier(CLK_LOCAL_MEM_FENCE);
    EACH_ROW(r) weights[(ty * ROWS + r) * 16 + tx] = dw[r];
    barrier(CLK_LOCAL_MEM_FENCE);
    if (d0 == 0)
        for (int i = (int)get_local_id(0); i < rows; i += WG) {
            float sum = 0.0f;
            for (int n = 0; n < 16; ++n)
                sum += weights[i * 16 + n];
            dw_[dw_off + (b * S + i0 + i) * HEADS + h] = sum;
        }
    EACH(pass, PASSES(OWNED)) EACH_ROW(r) EACH(c, WIDTH(OWNED))
    {
        const int i = ty * ROWS + r, column = d0 + (pass * 16 + tx) * WIDTH(OWNED) + c;
        if (i < rows && column < DIM)
            dq_[dq_off + ((b * S + i0 + i) * HEADS + h) * DIM + column] = grad[pass][r][c];
    }
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
indexer_scores_backward_keys_simt(INPUTS, __global float *dk_, ulong dk_off, int S, int T, int parts)
{
    PAIR_TILE
    const int j0 = (int)get_group_id(0) * KEYS, part = (int)get_group_id(1) % parts;
    const int key_head = (int)get_group_id(1) / parts / D_BLOCKS;
    const int d0 = (int)get_group_id(1) / parts % D_BLOCKS * DBLOCK;
    const size_t b = get_group_id(2);
    rows_ptr k = k_ + k_off + (b * T * KEY_HEADS + key_head) * DIM;
    __global const int *ks = ks_ + ks_off + b * S, *ke = ke_ + ke_off + b * S;
    __global float *dk = dk_ + dk_off + part * (get_num_groups(2) * T * KEY_HEADS * DIM);

    float4 grad[PASSES(OWNED)][FOURS][WIDTH(OWNED)];
    // Causal: the first query that sees key j0 is S - T + j0.
    const int first = RANGE == 1 ? max(S - T + j0, 0) : 0;
    const int tiles = first < S ? (S - first + QUERIES - 1) / QUERIES : 0;
    const int heads = KEY_HEADS == 1 ? HEADS : 1;
    const int steps = (tiles * heads + parts - 1) / parts; // of a part
    bool exact = false;
    do {
        EACH_SUM_OF_KEYS(OWNED) grad[pass][f][c] = (float4)(0.0f);
        for (int step = part * steps; step < min((part + 1) * steps, tiles * heads); ++step) {
            const int h = KEY_HEADS == 1 ? step / tiles : key_head;
            const int i0 = first + step % tiles * QUERIES, rows = min(QUERIES, S - i0);
            rows_ptr q = q_ + q_off + (b * S * HEADS + h) * DIM;
            SCORE_OPERANDS
            ROW_OPERANDS(QUERIES, OWNED)
            if (EARLY) {
                FETCH_QK(0)
            }
            float4 s[ROWS], z[ROWS];
            float weight[ROWS];
            EACH_ROW(r) s[r] = (float4)(0.0f);
            UPSTREAM(z, weight)
            SCORE_PRODUCT(DIM, s, FETCH_QK, FETCH_Q)
            STORE_WEIGHTS(z, weight, s)
            KEY_PRODUCT(OWNED, grad, FETCH_Q, NOTHING)
        }
        float4 zeros = (float4)(0.0f);
        EACH_SUM_OF_KEYS(OWNED) zeros = fma(grad[pass][f][c], (float4)(0.0f), zeros);
        REPEAT_EXACT(exact, (zeros.x + zeros.y) + (zeros.z + zeros.w), stage)
    } while (exact);
    STORE_KEYS(OWNED, grad, dk + ((b * T + j0) * KEY_HEADS + key_head) * DIM + d0, KEY_HEADS * DIM, min(KEYS, T - j0),
               DIM - d0, 1.0f)
}
