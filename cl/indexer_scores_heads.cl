// Indexer scores on GPUs for few queries, where all heads share the keys: the heads of a query are the rows of the tile.
//
//   scores[b,i,j] = k_scale[b,j] * sum_h w[b,i,h] * relu(q[b,i,h,:] . k[b,j,:])      (relu of it if RELU_OUT)
//
// A work-group scores one query against 64 keys, 16 * ROWS heads at a time (head_tile.clh); work-item (tx, ty) sums its
// heads' share of keys tx * 4 .. + 3, and 64 of them add the 16 shares of a key in order. Tiles without a visible key
// run no step and store -inf.
// Enqueued by host/ops/indexer_scores.c over (T / 64 * 256, S, B) in groups of 256.

#include "indexer_scores.clh"

#define D DIM
#define KV_DTYPE Q_DTYPE
#include "head_tile.clh"

__kernel __attribute__((reqd_work_group_size(GROUP_SIZE, 1, 1))) MANY_REGISTERS void
indexer_scores_heads(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(Q_DTYPE) *k_, ulong k_off,
                     __global const float *w_, ulong w_off, __global const float *k_scale_, ulong k_scale_off,
                     __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off,
                     __global ELEM(SCORES_DTYPE) *scores_, ulong scores_off, int S, int T)
{
    __local float stage[STAGE_PRODUCTS] ALIGNED, shares[16 * KEYS] ALIGNED;
    __local uint list[KEYS];
    const uint item = get_local_id(0), tx = item % 16, ty = item / 16;
    const int j0 = (int)get_group_id(0) * KEYS, i = get_group_id(1), j = j0 + (int)item;
    const ulong b = get_group_id(2), row = b * S + i;
    __global const ELEM(Q_DTYPE) *q = q_ + q_off + row * (HEADS * DIM), *k = k_ + k_off;
    __global const float *w = w_ + w_off + (W_PER_ROW ? row * HEADS : 0);
    const int2 seen = row_range(ks_ + ks_off + b * S, ke_ + ke_off + b * S, i, S, T);
    const uint heads = j0 < seen.y && j0 + KEYS > seen.x ? HEADS : 0;

    if (item < KEYS)
        list[item] = j < T ? (uint)(b * T + j) : NO_ROW;
    barrier(CLK_LOCAL_MEM_FENCE);
    float4 total = (float4)(0.0f);
    for (uint h0 = 0; h0 < heads; h0 += TILE_HEADS) {
        float4 s[ROWS], from_q[Q_LOADS], from_k[K_LOADS];
#pragma unroll
        for (uint r = 0; r < ROWS; ++r)
            s[r] = (float4)(0.0f);
        DOT_PRODUCTS(q + h0 * DIM, min((uint)TILE_HEADS, HEADS - h0), k, list, stage, s, from_q, from_k)
#pragma unroll
        for (uint r = 0; r < ROWS; ++r) {
            const uint h = h0 + ty * ROWS + r;
            if (h < HEADS)
                total = fma((float4)(w[h]), RELU4(s[r]), total);
        }
    }
    TO_LOCAL4(shares + ty * KEYS + tx * 4) = total;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item >= KEYS || j >= T)
        return;
    float score = 0.0f;
    for (uint y = 0; y < 16; ++y)
        score += shares[y * KEYS + item];
#if HAS_K_SCALE
    score *= k_scale_[k_scale_off + b * T + j];
#endif
#if RELU_OUT
    score = RELU(score);
#endif
    score = j >= seen.x && j < seen.y ? score : -INFINITY;
    STORE(SCORES_DTYPE, scores_, scores_off + row * T + j, score);
}
