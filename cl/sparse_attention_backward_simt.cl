// Attention over a selection, backward, on GPUs.
//
//   L = lse, with a sink log(exp(lse) + exp(sink));   P_j = exp(scale * q . k_j - L);   delta = out . dout
//   dS_j = scale * P_j (dout . v_j - delta);   dq = sum_j dS_j k_j;   dk_t += dS_j q;   dv_t += P_j dout
//
//   backward_dq   one work-group per (row, HEADS heads): gathers k and v
//   backward_dkv  one work-group per (key, kv head): gathers q and dout of the queries that chose the key, from the
//                 inverted index of sparse_attention_index.cl, in query order; every head of the group is a row
//
// With HOLD each gathered row is read once. Without, those of k are read twice, and so are those of q and dout.
//
// L and delta are those of sparse_attention_backward_rows.cl.
// Called by cldsa_sparse_attention_backward (variant simt).

#define KINDS 2 // scores, and products with dout
#include "sparse_attention_simt.clh"

#ifndef DOUT_VEC
#define DOUT_VEC 0 // 1: rows of dout begin on 4 elements, and DV is a multiple of 4
#endif
#define PLACES STEP(HEADS)

DEFINE_LOAD_FIXED(load_queries, HEADS, Q_DTYPE, Q_VEC, D, D)
DEFINE_LOAD_FIXED(load_douts, HEADS, F32, DOUT_VEC, DV, DV)
DEFINE_TEAM_ROWS(rows_k, HEADS, KV_DTYPE, K_VEC, D, D)
DEFINE_TEAM_ROWS(rows_v, HEADS, KV_DTYPE, V_VEC, V_WIDTH, DV)
DEFINE_TEAM_DOTS(dots_k, 0, rows_k, HEADS, KV_DTYPE, D)
DEFINE_TEAM_DOTS(dots_v, 1, rows_v, HEADS, KV_DTYPE, DV)
DEFINE_TEAM_SUM(sum_k, rows_k, HEADS, KV_DTYPE, D)

DEFINE_LOAD_FIXED(load_key, 1, KV_DTYPE, K_VEC, D, D)
DEFINE_LOAD_FIXED(load_value, 1, KV_DTYPE, V_VEC, V_WIDTH, DV)
DEFINE_TEAM_ROWS(rows_q, 1, Q_DTYPE, Q_VEC, D, D)
DEFINE_TEAM_ROWS(rows_dout, 1, F32, DOUT_VEC, DV, DV)
DEFINE_TEAM_DOTS(dots_q, 0, rows_q, 1, Q_DTYPE, D)
DEFINE_TEAM_DOTS(dots_dout, 1, rows_dout, 1, F32, DV)
DEFINE_TEAM_SUM(sum_q, rows_q, 1, Q_DTYPE, D)
DEFINE_TEAM_SUM(sum_dout, rows_dout, 1, F32, DV)

// The work-item's four columns of a row of `width`, from column c on.
inline void store_columns(float4 x, uint c, uint width, __global float *row)
{
    float column[4] = {x.x, x.y, x.z, x.w};
    for (uint n = 0; n < 4; ++n)
        if (c + n < width)
            row[c + n] = column[n];
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
backward_dq(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(KV_DTYPE) *k_, ulong k_off,
            __global const ELEM(KV_DTYPE) *v_, ulong v_off, __global const int *indices_, ulong indices_off,
            __global const int *topk_length_, ulong topk_length_off, __global const float *dout_, ulong dout_off,
            __global const float *rows_, ulong rows_off, __global float *dq_, ulong dq_off, uint num_queries,
            uint num_keys, uint num_heads, uint topk, float scale)
{
    LOCAL_PARTIAL;
    __local float ds[WG / KINDS];
    __local uint list[PLACES];
    const uint num_kv_heads = num_heads / GROUP, head_blocks = (GROUP + HEADS - 1) / HEADS;
    uint id = get_local_id(0), head = id / PLACES % HEADS, place = id % PLACES;
    uint block = get_group_id(1) % head_blocks, kv_head = get_group_id(1) / head_blocks;
    uint b = get_group_id(0) / num_queries;
    ulong row = get_group_id(0), first = row * num_heads + kv_head * GROUP + block * HEADS;
    uint live = min((uint)HEADS, GROUP - block * HEADS);
    uint end = row_end(topk_length_ + topk_length_off, row, topk);
    __global const float *own = rows_ + rows_off + 2 * (first + min(head, live - 1)); // L and delta

    float4 q[HEADS * OWNED(D)], dout[HEADS * OWNED(DV)], sum[HEADS * OWNED(D)];
    load_queries(q_ + q_off, first, live, q);
    load_douts(dout_ + dout_off, first, live, dout);
    clear(sum, HEADS * OWNED(D));
    for (uint at = 0; at < end; at += PLACES) {
        load_list(indices_ + indices_off + row * topk, at, end, PLACES, num_keys, num_kv_heads, b, kv_head, list);
        float4 k[HELD(HEADS, D)], v[HELD(HEADS, DV)];
        rows_k_hold(k_ + k_off, list, k);
        rows_v_hold(v_ + v_off, list, v);
        dots_k(q, k_ + k_off, list, k, partial);
        dots_v(dout, v_ + v_off, list, v, partial);
        finish_dots(partial);
        if (id < HEADS * PLACES) {
            float score = partial[id * PITCH], dp = partial[(id + HEADS * PLACES) * PITCH];
            bool counts = list[place] != NO_ROW && head < live;
            ds[id] = counts ? scale * exp(fma(scale, score, -own[0])) * (dp - own[1]) : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        sum_k(k_ + k_off, list, k, ds, sum);
    }
    _Pragma("unroll") for (uint h = 0; h < HEADS; ++h) _Pragma("unroll") for (uint i = 0; i < OWNED(D); ++i)
    {
        float4 x = over_teams(sum[h * OWNED(D) + i], partial);
        if (id < LANES && h < live)
            store_columns(x, COLUMN(i), D, dq_ + dq_off + (first + h) * D);
    }
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
backward_dkv(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(KV_DTYPE) *k_, ulong k_off,
             __global const ELEM(KV_DTYPE) *v_, ulong v_off, __global const float *dout_, ulong dout_off,
             __global const float *rows_, ulong rows_off, __global const uint *start_, ulong start_off,
             __global const uint *entry_, ulong entry_off, __global float *dk_, ulong dk_off, __global float *dv_,
             ulong dv_off, uint num_queries, uint num_keys, uint num_heads, uint topk, float scale)
{
    LOCAL_PARTIAL;
    __local float p[STEP(1)], ds[STEP(1)];
    __local uint list[STEP(1)];
    const uint num_kv_heads = num_heads / GROUP;
    uint id = get_local_id(0), place = id % STEP(1), kv_head = get_group_id(1), t = get_group_id(0) % num_keys;
    uint b = get_group_id(0) / num_keys;
    ulong key = (ulong)get_group_id(0) * num_kv_heads + kv_head;
    __global const uint *start = start_ + start_off + (ulong)b * (num_keys + 1) + t;
    __global const uint *entry = entry_ + entry_off + (ulong)b * num_queries * topk + start[0];
    ulong end = (ulong)(start[1] - start[0]) * GROUP;

    float4 k[OWNED(D)], v[OWNED(DV)], sum_key[OWNED(D)], sum_value[OWNED(DV)];
    load_key(k_ + k_off, key, 1, k);
    load_value(v_ + v_off, key, 1, v);
    clear(sum_key, OWNED(D));
    clear(sum_value, OWNED(DV));
    for (ulong at = 0; at < end; at += STEP(1)) {
        ulong i = at + place;
        uint query = i < end ? b * num_queries + entry[i / GROUP] / topk : 0;
        uint row = i < end ? query * num_heads + kv_head * GROUP + (uint)(i % GROUP) : NO_ROW;
        barrier(CLK_LOCAL_MEM_FENCE); // the last step's readers are done
        if (id < STEP(1))
            list[id] = row;
        barrier(CLK_LOCAL_MEM_FENCE);
        float4 q[HELD(1, D)], dout[HELD(1, DV)];
        rows_q_hold(q_ + q_off, list, q);
        rows_dout_hold(dout_ + dout_off, list, dout);
        dots_q(k, q_ + q_off, list, q, partial);
        dots_dout(v, dout_ + dout_off, list, dout, partial);
        finish_dots(partial);
        if (id < STEP(1)) {
            __global const float *r = rows_ + rows_off + (row != NO_ROW ? 2 * (ulong)row : 0); // L and delta
            float score = partial[id * PITCH], dp = partial[(id + STEP(1)) * PITCH];
            float weight = row != NO_ROW ? exp(fma(scale, score, -r[0])) : 0.0f;
            p[id] = weight;
            ds[id] = row != NO_ROW ? scale * weight * (dp - r[1]) : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        sum_q(q_ + q_off, list, q, ds, sum_key);
        sum_dout(dout_ + dout_off, list, dout, p, sum_value);
    }
#if LATENT
    // Values are the front of the keys, and a work-item's columns of both are the same.
    _Pragma("unroll") for (uint i = 0; i < OWNED(DV); ++i) sum_key[i] += sum_value[i];
#else
    _Pragma("unroll") for (uint i = 0; i < OWNED(DV); ++i)
    {
        float4 x = over_teams(sum_value[i], partial);
        if (id < LANES)
            store_columns(x, COLUMN(i), DV, dv_ + dv_off + key * DV);
    }
#endif
    _Pragma("unroll") for (uint i = 0; i < OWNED(D); ++i)
    {
        float4 x = over_teams(sum_key[i], partial);
        if (id < LANES)
            store_columns(x, COLUMN(i), D, dk_ + dk_off + key * D);
    }
}
