// Attention over a selection, forward, on GPUs, where many heads share a kv head: small matrix products in local memory.
//
//   out[b,s,h,:] = sum_j p_j v[b,t_j,h',:],  p = softmax_j(scale * q[b,s,h,:] . k[b,t_j,h',:]),  t = indices[b,s,:]
//
// One work-group of 16 x 16 work-items (tx, ty) per (row b,s; HEADS heads of one kv head h'; part of the selection). It
// walks its places 64 gathered keys at a time with a running maximum and sum per head (online softmax); work-item (tx,
// ty) has heads ty * ROWS + r, keys tx * 4 .. + 3 of the scores, and columns pass * 64 + tx * 4 .. + 3 of the output.
//
//   stage    [32 columns][heads | 64 keys]  q and k, transposed, 4 floats further every 4 columns (banks); or
//            [64 keys][64 columns]          values
//   weights  [HEADS][64 keys]
//
// What is staged next is on its way through registers while the last is multiplied. With PARTIAL the group's part goes
// to scratch as attention_combine.cl wants it. Exponentials are powers of two: `scale` has log2(e) in it.
// Called by cldsa_sparse_attention (variant tile): groups (B*S, Hk * ceil(GROUP / HEADS), parts).

#include "attention_combine.clh"
#include "head_tile.clh"
#include "sparse_attention.clh"

#ifndef O_DTYPE
#define O_DTYPE F32
#endif
#ifndef HAS_LSE
#define HAS_LSE 1 // 1: lse is wanted
#endif
#ifndef PARTIAL
#define PARTIAL 0 // 1: a part of the keys, to scratch
#endif
#ifndef V_VEC
#define V_VEC 0 // 1: so do rows of v, and DV is a multiple of 4
#endif

#define COLUMNS 64 // of the values staged at a time
#define PASSES ((DV + COLUMNS - 1) / COLUMNS)
#define WEIGHT_ROW (KEYS + 4)
#define STAGE_V (KEYS * COLUMNS)
#define STAGE_FLOATS (STAGE_PRODUCTS > STAGE_V ? STAGE_PRODUCTS : STAGE_V)
#define V_LOADS (KEYS * COLUMNS / 4 / GROUP_SIZE)
#define LARGER(a, b) ((a) > (b) ? (a) : (b))

// Its share of columns c0 .. of the values.
inline void fetch_values(__global const ELEM(KV_DTYPE) *v, __local const uint *list, uint c0, float4 *from_v)
{
    const uint item = get_local_id(0), row = item / (COLUMNS / 4), c = c0 + item % (COLUMNS / 4) * 4;
#pragma unroll
    for (uint n = 0; n < V_LOADS; ++n) {
        uint key = list[row + n * (GROUP_SIZE / (COLUMNS / 4))];
        from_v[n] = (float4)(0.0f);
        if (key != NO_ROW)
            from_v[n] = LOAD_COLUMNS(KV_DTYPE, V_VEC, DV, v, (ulong)key * V_WIDTH, c);
    }
}

inline void put_values(__local float *stage, const float4 *from_v)
{
#pragma unroll
    for (uint n = 0; n < V_LOADS; ++n)
        TO_LOCAL4(stage + (n * GROUP_SIZE + get_local_id(0)) * 4) = from_v[n];
}

// o[r] += the weights of this work-item's heads times the staged values.
inline void multiply_values(__local const float *stage, __local const float *weights, float4 *o)
{
    const uint tx = get_local_id(0) % 16, ty = get_local_id(0) / 16;
#pragma unroll 2
    for (uint j = 0; j < KEYS; j += 4) {
        __local const float *v = stage + j * COLUMNS + tx * 4;
        float4 v0 = LOCAL4(v), v1 = LOCAL4(v + COLUMNS), v2 = LOCAL4(v + 2 * COLUMNS), v3 = LOCAL4(v + 3 * COLUMNS);
#pragma unroll
        for (uint r = 0; r < ROWS; ++r) {
            float4 w = LOCAL4(weights + (ty * ROWS + r) * WEIGHT_ROW + j);
            o[r] = fma((float4)(w.x), v0, o[r]);
            o[r] = fma((float4)(w.y), v1, o[r]);
            o[r] = fma((float4)(w.z), v2, o[r]);
            o[r] = fma((float4)(w.w), v3, o[r]);
        }
    }
}

// Folds the 16 work-items of a head; every one of them gets the result. `red` is [TILE_HEADS][16].
#define ADD(a, b) ((a) + (b))
#define FOLD4(v4, FOLD) FOLD(FOLD((v4).x, (v4).y), FOLD((v4).z, (v4).w))
#define FOLD_ROWS(value, red, FOLD)                                                                                    \
    {                                                                                                                  \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        _Pragma("unroll") for (uint r_ = 0; r_ < ROWS; ++r_) (red)[(ty * ROWS + r_) * 16 + tx] = (value)[r_];          \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        _Pragma("unroll") for (uint r_ = 0; r_ < ROWS; ++r_)                                                           \
        {                                                                                                              \
            __local const float *all_ = (red) + (ty * ROWS + r_) * 16;                                                 \
            float4 low_ = (float4)(FOLD4(LOCAL4(all_), FOLD), FOLD4(LOCAL4(all_ + 4), FOLD),                           \
                                   FOLD4(LOCAL4(all_ + 8), FOLD), FOLD4(LOCAL4(all_ + 12), FOLD));                     \
            (value)[r_] = FOLD4(low_, FOLD);                                                                           \
        }                                                                                                              \
    }

__kernel __attribute__((reqd_work_group_size(GROUP_SIZE, 1, 1))) void
sparse_attention_tile(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(KV_DTYPE) *k_, ulong k_off,
                      __global const ELEM(KV_DTYPE) *v_, ulong v_off, __global const int *indices_, ulong indices_off,
                      __global const int *topk_length_, ulong topk_length_off, __global const float *attn_sink_,
                      ulong attn_sink_off, __global ELEM(O_DTYPE) *out_, ulong out_off, __global float *lse_,
                      ulong lse_off, __global float *parts_, ulong parts_off, uint num_queries, uint num_keys,
                      uint num_heads, uint topk, uint part_size, float scale)
{
    __local float stage[STAGE_FLOATS] ALIGNED, weights[TILE_HEADS * WEIGHT_ROW] ALIGNED, red[TILE_HEADS * 16] ALIGNED;
    __local uint list[KEYS];
    const uint item = get_local_id(0), tx = item % 16, ty = item / 16;
    const uint num_kv_heads = num_heads / GROUP, head_blocks = (GROUP + TILE_HEADS - 1) / TILE_HEADS;
    const uint block = get_group_id(1) % head_blocks, kv_head = get_group_id(1) / head_blocks, part = get_group_id(2);
    const ulong row = get_group_id(0);
    const uint b = row / num_queries, first_head = kv_head * GROUP + block * TILE_HEADS;
    const uint live = min((uint)TILE_HEADS, GROUP - block * TILE_HEADS);
    const uint end = min(row_end(topk_length_ + topk_length_off, row, topk), (part + 1) * part_size);
    __global const ELEM(Q_DTYPE) *q = q_ + q_off + (row * num_heads + first_head) * D;
    __global const ELEM(KV_DTYPE) *k = k_ + k_off, *v = v_ + v_off;
    __global const int *indices = indices_ + indices_off + row * topk;

    float top[ROWS], sum[ROWS];
    float4 o[PASSES][ROWS];
#pragma unroll
    for (uint r = 0; r < ROWS; ++r) {
        top[r] = -INFINITY;
        sum[r] = 0.0f;
#pragma unroll
        for (uint pass = 0; pass < PASSES; ++pass)
            o[pass][r] = (float4)(0.0f);
    }

    for (uint at = part * part_size; at < end; at += KEYS) {
        barrier(CLK_LOCAL_MEM_FENCE); // the last tile's readers are done
        if (item < KEYS)
            list[item] = gathered_row(indices, at + item, end, num_keys, num_kv_heads, b, kv_head);
        barrier(CLK_LOCAL_MEM_FENCE);

        float4 s[ROWS], from_q[Q_LOADS], from_k[K_LOADS], from_v[V_LOADS];
#pragma unroll
        for (uint r = 0; r < ROWS; ++r)
            s[r] = (float4)(0.0f);
        DOT_PRODUCTS(q, live, k, list, stage, s, from_q, from_k)
        fetch_values(v, list, 0, from_v);

        const uint4 keys = *(__local const uint4 *)(list + tx * 4);
        float higher[ROWS], alpha[ROWS];
#pragma unroll
        for (uint r = 0; r < ROWS; ++r) {
            s[r] = keys != NO_ROW ? s[r] * scale : (float4)(-INFINITY);
            higher[r] = FOLD4(s[r], LARGER);
        }
        FOLD_ROWS(higher, red, LARGER)
#pragma unroll
        for (uint r = 0; r < ROWS; ++r) {
            higher[r] = LARGER(higher[r], top[r]);
            // Nothing yet, or all -inf: subtracting 0 gives weights of 0, not NaN.
            float base = higher[r] == -INFINITY ? 0.0f : higher[r];
            float4 p = exp2(s[r] - base);
            alpha[r] = exp2(top[r] - base);
            top[r] = higher[r];
            sum[r] = fma(sum[r], alpha[r], FOLD4(p, ADD)); // of this work-item's keys; folded at the end
            TO_LOCAL4(weights + (ty * ROWS + r) * WEIGHT_ROW + tx * 4) = p;
        }
#pragma unroll
        for (uint pass = 0; pass < PASSES; ++pass) {
            put_values(stage, from_v);
            barrier(CLK_LOCAL_MEM_FENCE);
            if (pass + 1 < PASSES)
                fetch_values(v, list, (pass + 1) * COLUMNS, from_v);
#pragma unroll
            for (uint r = 0; r < ROWS; ++r)
                o[pass][r] *= alpha[r];
            multiply_values(stage, weights, o[pass]);
            barrier(CLK_LOCAL_MEM_FENCE);
        }
    }

    FOLD_ROWS(sum, red, ADD)
#pragma unroll
    for (uint r = 0; r < ROWS; ++r) {
        const uint h = ty * ROWS + r;
        if (h >= live)
            continue;
        const ulong to = row * num_heads + first_head + h;
#if PARTIAL
        const ulong rows = (ulong)get_num_groups(0) * num_heads;
        __global float *parts = parts_ + parts_off;
        if (tx == 0)
            store_part(parts, get_num_groups(2), rows, part, to, top[r], sum[r]);
        __global float *sums = parts + PART_SUMS(rows, part, to);
#else
        float lse, factor = row_factor(top[r], sum[r], attn_sink_ + attn_sink_off, first_head + h, &lse);
#if HAS_LSE
        if (tx == 0)
            lse_[lse_off + to] = lse;
#endif
#endif
#pragma unroll
        for (uint pass = 0; pass < PASSES; ++pass) {
            float x[4];
            vstore4(o[pass][r], 0, x);
#pragma unroll
            for (uint i = 0; i < 4; ++i) {
                const uint c = pass * COLUMNS + tx * 4 + i;
                if (c < DV) {
#if PARTIAL
                    sums[c] = x[i];
#else
                    STORE(O_DTYPE, out_, out_off + to * DV + c, x[i] * factor);
#endif
                }
            }
        }
    }
}
