// Attention over a selection, forward, on GPUs.
//
//   out[b,s,h,:] = sum_j p_j v[b,t_j,h',:],  p = softmax_j(scale * q[b,s,h,:] . k[b,t_j,h',:]),  t = indices[b,s,:]
//
// One work-group per (row b,s; HEADS heads of one kv head h'); online softmax over STEP(HEADS) gathered keys at a time,
// one work-item for each (head, place). With PARTIAL a group has a part of the places, and its result goes to scratch as
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

#define PLACES STEP(HEADS)

DEFINE_LOAD_FIXED(load_queries, HEADS, Q_DTYPE, Q_VEC, D, D)
DEFINE_TEAM_ROWS(rows_k, HEADS, KV_DTYPE, K_VEC, D, D)
DEFINE_TEAM_ROWS(rows_v, HEADS, KV_DTYPE, V_VEC, V_WIDTH, DV)
DEFINE_TEAM_DOTS(dots_k, 0, rows_k, HEADS, KV_DTYPE, D)
DEFINE_TEAM_SUM(sum_v, rows_v, HEADS, KV_DTYPE, DV)

// The largest of a head's scores and `most`; a NaN is passed over, and comes out as a weight.
inline float largest(__local const float *score, float most)
{
    for (uint j = 0; j < PLACES; j += 4) {
        float4 x = *(__local const float4 *)(score + j);
        most = fmax(most, fmax(fmax(x.x, x.y), fmax(x.z, x.w)));
    }
    return most;
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
sparse_attention_simt(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(KV_DTYPE) *k_, ulong k_off,
                      __global const ELEM(KV_DTYPE) *v_, ulong v_off, __global const int *indices_, ulong indices_off,
                      __global const int *topk_length_, ulong topk_length_off, __global const float *attn_sink_,
                      ulong attn_sink_off, uint topk, __global ELEM(O_DTYPE) *out_, ulong out_off, __global float *lse_,
                      ulong lse_off, __global float *parts_, ulong parts_off, uint num_queries, uint num_keys,
                      uint num_heads, uint part_size, float scale)
{
    LOCAL_PARTIAL;
    __local float score[WG] __attribute__((aligned(16))), weight[WG], of_head[HEADS];
    __local uint list[PLACES];
    const uint num_kv_heads = num_heads / GROUP, head_blocks = (GROUP + HEADS - 1) / HEADS;
    uint id = get_local_id(0), head = id / PLACES, place = id % PLACES;
    uint block = get_group_id(1) % head_blocks, kv_head = get_group_id(1) / head_blocks;
    uint b = get_group_id(0) / num_queries;
    ulong row = get_group_id(0);
    uint live = min((uint)HEADS, GROUP - block * HEADS), first_head = kv_head * GROUP + block * HEADS;
    ulong first = row * num_heads + first_head;
    uint part = get_group_id(2);
    uint end = min(row_end(topk_length_ + topk_length_off, row, topk), (part + 1) * part_size);

    float4 q[HEADS * OWNED(D)], sum[HEADS * OWNED(DV)];
    load_queries(q_ + q_off, first, live, q);
    clear(sum, HEADS * OWNED(DV));
    float maximum = -INFINITY, total = 0.0f; // of this work-item's head; and of its own places
    for (uint at = part * part_size; at < end; at += PLACES) {
        load_list(indices_ + indices_off + row * topk, at, end, PLACES, num_keys, num_kv_heads, b, kv_head, list);
        dots_k(q, k_ + k_off, list, 0, partial);
        finish_dots(partial);
        float x = list[place] != NO_ROW ? scale * partial[id * PITCH] : -INFINITY;
        score[id] = x;
        barrier(CLK_LOCAL_MEM_FENCE);
        float m = largest(score + head * PLACES, maximum);
        float centre = m == -INFINITY ? 0.0f : m; // nothing yet, or all -inf: weights of 0, not NaN
        float keep = exp2(maximum - centre), w = list[place] != NO_ROW ? exp2(x - centre) : 0.0f;
        maximum = m;
        total = fma(total, keep, w);
        weight[id] = w;
        if (place == 0)
            of_head[head] = keep;
        barrier(CLK_LOCAL_MEM_FENCE);
        _Pragma("unroll") for (uint h = 0; h < HEADS; ++h) _Pragma("unroll") for (uint i = 0; i < OWNED(DV); ++i)
            sum[h * OWNED(DV) + i] *= of_head[h];
        sum_v(v_ + v_off, list, 0, weight, sum);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    score[id] = total;
    if (place == 0)
        of_head[head] = maximum;
    barrier(CLK_LOCAL_MEM_FENCE);
    _Pragma("unroll") for (uint h = 0; h < HEADS; ++h)
    {
        const bool lives = h < live; // those beyond repeat the last, and write nothing
        const uint own = min(h, live - 1);
        ulong to = first + own;
        float all = 0.0f;
        for (uint j = 0; j < PLACES; ++j)
            all += score[h * PLACES + j];
#if PARTIAL
        ulong rows = (ulong)get_num_groups(0) * num_heads;
        __global float *parts = parts_ + parts_off;
        if (lives && id == 0)
            store_part(parts, get_num_groups(2), rows, part, to, of_head[h], all);
#else
        float lse, factor = row_factor(of_head[h], all, attn_sink_ + attn_sink_off, first_head + own, &lse);
#if HAS_LSE
        if (lives && id == 0)
            lse_[lse_off + to] = lse;
#endif
#endif
        _Pragma("unroll") for (uint i = 0; i < OWNED(DV); ++i)
        {
            float4 x = over_teams(sum[h * OWNED(DV) + i], partial);
            float column[4] = {x.x, x.y, x.z, x.w};
            for (uint n = 0; n < 4; ++n)
                if (lives && id < LANES && COLUMN(i) + n < DV) {
#if PARTIAL
                    parts[PART_SUMS(rows, part, to) + COLUMN(i) + n] = column[n];
#else
                    STORE(O_DTYPE, out_, out_off + to * DV + COLUMN(i) + n, column[n] * factor);
#endif
                }
        }
    }
}
