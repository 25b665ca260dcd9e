// Attention over a selection, backward, on GPUs.
//
//   L = lse, with a sink log(exp(lse) + exp(sink));   P_j = exp(scale * q . k_j - L);   delta = out . dout
//   dS_j = scale * P_j (dout . v_j - delta);   dq = sum_j dS_j k_j;   dk_t += dS_j q;   dv_t += P_j dout
//
//   backward_dq   one work-group per (row, HEADS heads): gathers k and v
//   backward_dkv  one work-group per (key, kv head): gathers q and dout of the queries that chose the key, from the
//                 inverted index of sparse_attention_index.cl, in query order; every head of the group is a row
//
// L and delta are those of sparse_attention_backward_rows.cl.
// Called by cldsa_sparse_attention_backward (variant simt).

#include "sparse_attention_simt.clh"

DEFINE_TILE_DOTS(dots_k, HEADS, Q_DTYPE, D, KV_DTYPE, D, D)
DEFINE_TILE_DOTS(dots_v, HEADS, F32, DV, KV_DTYPE, V_WIDTH, DV)
DEFINE_TILE_SUM(sum_k, HEADS, KV_DTYPE, D, D)
DEFINE_TILE_DOTS(dots_q, 1, KV_DTYPE, D, Q_DTYPE, D, D)
DEFINE_TILE_DOTS(dots_dout, 1, KV_DTYPE, V_WIDTH, F32, DV, DV)
DEFINE_TILE_SUM(sum_q, 1, Q_DTYPE, D, D)
DEFINE_TILE_SUM(sum_dout, 1, F32, DV, DV)

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
backward_dq(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(KV_DTYPE) *k_, ulong k_off,
            __global const ELEM(KV_DTYPE) *v_, ulong v_off, __global const int *indices_, ulong indices_off,
            __global const int *topk_length_, ulong topk_length_off, __global const float *dout_, ulong dout_off,
            __global const float *rows_, ulong rows_off, __global float *dq_, ulong dq_off, uint num_queries,
            uint num_keys, uint num_heads, uint topk, float scale)
{
    __local float tile[ROWS * PITCH], front[HEADS * DEPTH], score[HEADS * ROWS], ds[HEADS * ROWS];
    __local uint list[ROWS];
    const uint num_kv_heads = num_heads / GROUP, head_blocks = (GROUP + HEADS - 1) / HEADS;
    uint lane = get_local_id(0), block = get_group_id(1) % head_blocks, kv_head = get_group_id(1) / head_blocks;
    uint b = get_group_id(0) / num_queries;
    ulong row = get_group_id(0), first = row * num_heads + kv_head * GROUP + block * HEADS;
    uint live = min((uint)HEADS, GROUP - block * HEADS);
    uint end = row_end(topk_length_ + topk_length_off, row, topk);

    float sum[HEADS * OWNED(D)];
    for (uint i = 0; i < HEADS * OWNED(D); ++i)
        sum[i] = 0.0f;
    for (uint at = 0; at < end; at += ROWS) {
        load_list(indices_ + indices_off + row * topk, at, end, num_keys, num_kv_heads, b, kv_head, list);
        dots_k(q_ + q_off, first, live, k_ + k_off, list, tile, front, score);
        dots_v(dout_ + dout_off, first, live, v_ + v_off, list, tile, front, ds);
        for (uint e = lane; e < HEADS * ROWS; e += WG) {
            uint h = e / ROWS;
            float gradient = 0.0f;
            if (h < live && list[e % ROWS] != NO_ROW) {
                __global const float *r = rows_ + rows_off + 2 * (first + h);
                gradient = scale * exp(fma(scale, score[e], -r[0])) * (ds[e] - r[1]);
            }
            ds[e] = gradient;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        sum_k(k_ + k_off, list, ds, sum);
    }
    for (uint h = 0; h < HEADS; ++h)
        for (uint i = 0; i < OWNED(D); ++i)
            if (h < live && lane + i * WG < D)
                dq_[dq_off + (first + h) * D + lane + i * WG] = sum[h * OWNED(D) + i];
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
backward_dkv(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(KV_DTYPE) *k_, ulong k_off,
             __global const ELEM(KV_DTYPE) *v_, ulong v_off, __global const float *dout_, ulong dout_off,
             __global const float *rows_, ulong rows_off, __global const uint *start_, ulong start_off,
             __global const uint *entry_, ulong entry_off, __global float *dk_, ulong dk_off, __global float *dv_,
             ulong dv_off, uint num_queries, uint num_keys, uint num_heads, uint topk, float scale)
{
    __local float tile[ROWS * PITCH], front[DEPTH], p[ROWS], ds[ROWS];
    __local uint list[ROWS];
    const uint num_kv_heads = num_heads / GROUP;
    uint lane = get_local_id(0), kv_head = get_group_id(1), t = get_group_id(0) % num_keys;
    uint b = get_group_id(0) / num_keys;
    ulong key = (ulong)get_group_id(0) * num_kv_heads + kv_head;
    __global const uint *start = start_ + start_off + (ulong)b * (num_keys + 1) + t;
    __global const uint *entry = entry_ + entry_off + (ulong)b * num_queries * topk + start[0];
    ulong end = (ulong)(start[1] - start[0]) * GROUP;

    float sum_key[OWNED(D)], sum_value[OWNED(DV)];
    for (uint i = 0; i < OWNED(D); ++i)
        sum_key[i] = 0.0f;
    for (uint i = 0; i < OWNED(DV); ++i)
        sum_value[i] = 0.0f;
    for (ulong at = 0; at < end; at += ROWS) {
        barrier(CLK_LOCAL_MEM_FENCE); // the last tile's readers are done
        if (lane < ROWS) {
            ulong i = at + lane;
            uint query = i < end ? b * num_queries + entry[i / GROUP] / topk : 0;
            list[lane] = i < end ? query * num_heads + kv_head * GROUP + (uint)(i % GROUP) : NO_ROW;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        dots_q(k_ + k_off, key, 1, q_ + q_off, list, tile, front, p);
        dots_dout(v_ + v_off, key, 1, dout_ + dout_off, list, tile, front, ds);
        if (lane < ROWS) {
            float weight = 0.0f, gradient = 0.0f;
            if (list[lane] != NO_ROW) {
                __global const float *r = rows_ + rows_off + 2 * (ulong)list[lane];
                weight = exp(fma(scale, p[lane], -r[0]));
                gradient = scale * weight * (ds[lane] - r[1]);
            }
            p[lane] = weight;
            ds[lane] = gradient;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        sum_q(q_ + q_off, list, ds, sum_key);
        sum_dout(dout_ + dout_off, list, p, sum_value);
    }
    for (uint i = 0; i < OWNED(D); ++i)
        if (lane + i * WG < D) {
            float x = sum_key[i];
#if LATENT
            if (lane + i * WG < DV) // DV <= D, so the column's value gradient is this work-item's too
                x += sum_value[min(i, (uint)OWNED(DV) - 1)];
#endif
            dk_[dk_off + key * D + lane + i * WG] = x;
        }
#if !LATENT
    for (uint i = 0; i < OWNED(DV); ++i)
        if (lane + i * WG < DV)
            dv_[dv_off + key * DV + lane + i * WG] = sum_value[i];
#endif
}
