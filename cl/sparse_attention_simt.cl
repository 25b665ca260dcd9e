// Attention over a selection, forward, on GPUs.
//
//   out[b,s,h,:] = sum_j p_j v[b,t_j,h',:],  p = softmax_j(scale * q[b,s,h,:] . k[b,t_j,h',:]),  t = indices[b,s,:]
//
// One work-group of 128 per (row b,s; HEADS heads of one kv head h'); online softmax over 32 gathered keys at a time:
// dots through local memory, then every work-item follows all heads' maxima and sums (it needs the factors for the
// output columns that it owns). With PARTIAL a group has a part of the places, and its result goes to scratch as
// attention_combine.cl wants it. Exponentials are powers of two: `scale` has log2(e) in it.
// Called by cldsa_sparse_attention (variant simt): groups (B*S, Hk * ceil(GROUP / HEADS), parts).

#include "attention_combine.clh"
#include "sparse_attention_simt.clh"

#ifndef O_DTYPE
#define O_DTYPE F32
#endif
#ifndef HAS_LSE
#define HAS_LSE 1 // 1: lse is wanted
#endif
#ifndef PARTIAL
#define PARTIAL 0 // 1: a part of the keys, to scratch
#endif

DEFINE_TILE_DOTS(dots_k, HEADS, Q_DTYPE, D, KV_DTYPE, D, D)
DEFINE_TILE_SUM(sum_v, HEADS, KV_DTYPE, V_WIDTH, DV)

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
sparse_attention_simt(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(KV_DTYPE) *k_, ulong k_off,
                      __global const ELEM(KV_DTYPE) *v_, ulong v_off, __global const int *indices_, ulong indices_off,
                      __global const int *topk_length_, ulong topk_length_off, __global const float *attn_sink_,
                      ulong attn_sink_off, uint topk, __global ELEM(O_DTYPE) *out_, ulong out_off, __global float *lse_,
                      ulong lse_off, __global float *parts_, ulong parts_off, uint num_queries, uint num_keys,
                      uint num_heads, uint part_size, float scale)
{
    __local float tile[ROWS * PITCH], front[HEADS * DEPTH], dots[HEADS * ROWS], weight[HEADS * ROWS];
    __local uint list[ROWS];
    const uint num_kv_heads = num_heads / GROUP, head_blocks = (GROUP + HEADS - 1) / HEADS;
    uint lane = get_local_id(0), block = get_group_id(1) % head_blocks, kv_head = get_group_id(1) / head_blocks;
    uint b = get_group_id(0) / num_queries;
    ulong row = get_group_id(0);
    uint live = min((uint)HEADS, GROUP - block * HEADS), first_head = kv_head * GROUP + block * HEADS;
    ulong first = row * num_heads + first_head;
    uint part = get_group_id(2);
    uint end = min(row_end(topk_length_ + topk_length_off, row, topk), (part + 1) * part_size);

    float maximum[HEADS], total[HEADS], sum[HEADS * OWNED(DV)];
    for (uint h = 0; h < HEADS; ++h) {
        maximum[h] = -INFINITY;
        total[h] = 0.0f;
    }
    for (uint i = 0; i < HEADS * OWNED(DV); ++i)
        sum[i] = 0.0f;

    for (uint at = part * part_size; at < end; at += ROWS) {
        load_list(indices_ + indices_off + row * topk, at, end, num_keys, num_kv_heads, b, kv_head, list);
        dots_k(q_ + q_off, first, live, k_ + k_off, list, tile, front, dots);
        float keep[HEADS], centre[HEADS];
        for (uint h = 0; h < HEADS; ++h) {
            float m = maximum[h];
            for (uint j = 0; j < ROWS; ++j) {
                float x = scale * dots[h * ROWS + j];
                m = list[j] != NO_ROW && x > m ? x : m;
            }
            centre[h] = m == -INFINITY ? 0.0f : m; // nothing yet, or all -inf: weights of 0, not NaN
            keep[h] = exp2(maximum[h] - centre[h]);
            maximum[h] = m;
        }
        for (uint h = 0; h < HEADS; ++h)
            if (h % PARTS == lane / ROWS) {
                uint j = lane % ROWS;
                weight[h * ROWS + j] = list[j] != NO_ROW ? exp2(scale * dots[h * ROWS + j] - centre[h]) : 0.0f;
            }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint h = 0; h < HEADS; ++h) {
            float z = 0.0f;
            for (uint j = 0; j < ROWS; ++j)
                z += weight[h * ROWS + j];
            total[h] = fma(total[h], keep[h], z);
            for (uint i = 0; i < OWNED(DV); ++i)
                sum[h * OWNED(DV) + i] *= keep[h];
        }
        sum_v(v_ + v_off, list, weight, sum);
    }
    for (uint h = 0; h < HEADS; ++h) {
        if (h >= live)
            break;
        ulong to = first + h;
#if PARTIAL
        ulong rows = (ulong)get_num_groups(0) * num_heads;
        __global float *parts = parts_ + parts_off;
        if (lane == 0)
            store_part(parts, get_num_groups(2), rows, part, to, maximum[h], total[h]);
        for (uint i = 0; i < OWNED(DV); ++i)
            if (lane + i * WG < DV)
                parts[PART_SUMS(rows, part, to) + lane + i * WG] = sum[h * OWNED(DV) + i];
#else
        float lse, factor = row_factor(maximum[h], total[h], attn_sink_ + attn_sink_off, first_head + h, &lse);
        for (uint i = 0; i < OWNED(DV); ++i)
            if (lane + i * WG < DV)
                STORE(O_DTYPE, out_, out_off + to * DV + lane + i * WG, sum[h * OWNED(DV) + i] * factor);
#if HAS_LSE
        if (lane == 0)
            lse_[lse_off + to] = lse;
#endif
#endif
    }
}
