// Column sums of softmax(q k^T * scale) for the controller's entropy, on GPUs.
//
//   partial[b, h*P + p, j] = sum over queries i of split p of softmax_j(q[b,h,i] . k[b,h,j] * scale)
//
// qk [B,S,W]: row s holds q (H heads of HEAD_DIM) and, k_at columns further, k. One work-group of 256 per (split,
// b*H + h) takes TILE = 64 queries at a time; work-item (ty, tx) owns a 4 x 4 piece of each 64 x 64 score tile. Two
// passes over the keys, recomputing the scores, need no memory for them:
//
//   pass 1   running maximum m and sum z of the work-item's own columns; merged over tx at the end
//   pass 2   exp(s - m) / z, summed over the 64 rows through local memory, added to partial[j]
//
// Called by cldsa_controller_entropy.

#include "inline.clh"

#ifndef HEAD_DIM
#define HEAD_DIM 64 // columns of a head
#endif
#ifndef DEPTH
#define DEPTH 16 // head columns per step through local memory (a multiple of 4)
#endif

#define WG 256
#define TILE 64
#define PITCH (TILE + 4) // keeps float4 alignment and spreads the transposing stores over banks
#define LOWEST (-3.0e38f)

// 64 rows of DEPTH columns, transposed into local memory; rows past the end and columns past the head are zeros.
inline void load_tile(__global const float *from, ulong width, uint first, uint num_positions, uint d0,
                      __local float *to)
{
    for (uint e = get_local_id(0); e < TILE * (DEPTH / 4); e += WG) {
        uint r = e / (DEPTH / 4), d = e % (DEPTH / 4) * 4;
        float4 v = (float4)(0.0f);
        if (first + r < num_positions) {
            __global const float *row = from + (first + r) * width + d0 + d;
            if (d0 + d + 4 <= HEAD_DIM)
                v = vload4(0, row);
            else {
                v.x = d0 + d < HEAD_DIM ? row[0] : 0.0f;
                v.y = d0 + d + 1 < HEAD_DIM ? row[1] : 0.0f;
                v.z = d0 + d + 2 < HEAD_DIM ? row[2] : 0.0f;
            }
        }
        to[d * PITCH + r] = v.x;
        to[(d + 1) * PITCH + r] = v.y;
        to[(d + 2) * PITCH + r] = v.z;
        to[(d + 3) * PITCH + r] = v.w;
    }
}

// s[i] = scores of query 4*ty + i against keys 4*tx ..; the barriers also protect the tiles' next use.
inline void score_tile(__global const float *q, __global const float *k, ulong width, uint first_q, uint first_k,
                       uint num_positions, float scale, __local float *tile_q, __local float *tile_k, float4 *s)
{
    uint tx = get_local_id(0) % 16, ty = get_local_id(0) / 16;
    for (int i = 0; i < 4; ++i)
        s[i] = (float4)(0.0f);
    for (uint d0 = 0; d0 < HEAD_DIM; d0 += DEPTH) {
        load_tile(q, width, first_q, num_positions, d0, tile_q);
        load_tile(k, width, first_k, num_positions, d0, tile_k);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint d = 0; d < DEPTH; ++d) {
            float4 a = vload4(ty, tile_q + d * PITCH), b = vload4(tx, tile_k + d * PITCH);
            s[0] = fma((float4)(a.x), b, s[0]);
            s[1] = fma((float4)(a.y), b, s[1]);
            s[2] = fma((float4)(a.z), b, s[2]);
            s[3] = fma((float4)(a.w), b, s[3]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int i = 0; i < 4; ++i)
        s[i] *= scale;
}

// 1 for the keys of this work-item that exist, else 0.
inline float4 live_keys(uint first_k, uint num_positions)
{
    float4 key = (float4)(0, 1, 2, 3) + (float)(first_k + get_local_id(0) % 16 * 4);
    return key < (float4)((float)num_positions) ? (float4)(1.0f) : (float4)(0.0f);
}

inline float sum4(float4 v)
{
    return (v.x + v.y) + (v.z + v.w);
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
controller_entropy_scores(__global const float *qk_, ulong qk_off, __global float *partial_, ulong partial_off,
                          __global float *scratch_, ulong scratch_off, uint num_heads, uint num_positions, uint width,
                          uint k_at, float scale)
{
    __local float tile_q[DEPTH * PITCH], tile_k[DEPTH * PITCH];
    __local float red_m[16 * TILE], red_z[16 * TILE];
    uint lane = get_local_id(0), tx = lane % 16, ty = lane / 16;
    uint split = get_group_id(0), num_splits = get_num_groups(0);
    uint head = get_group_id(1) % num_heads, b = get_group_id(1) / num_heads;
    __global const float *q = qk_ + qk_off + (ulong)b * num_positions * width + head * HEAD_DIM;
    __global const float *k = q + k_at;
    __global float *partial = partial_ + partial_off + ((ulong)get_group_id(1) * num_splits + split) * num_positions;
    float4 s[4];

    for (uint first_q = split * TILE; first_q < num_positions; first_q += num_splits * TILE) {
        float m[4], z[4];
        for (int i = 0; i < 4; ++i) {
            m[i] = LOWEST;
            z[i] = 0.0f;
        }
        for (uint first_k = 0; first_k < num_positions; first_k += TILE) {
            score_tile(q, k, width, first_q, first_k, num_positions, scale, tile_q, tile_k, s);
            float4 live = live_keys(first_k, num_positions);
            for (int i = 0; i < 4; ++i) {
                float4 masked = live > 0.0f ? s[i] : (float4)(LOWEST);
                float top = fmax(fmax(fmax(masked.x, masked.y), fmax(masked.z, masked.w)), m[i]);
                z[i] = z[i] * exp(m[i] - top) + sum4(live * exp(masked - top));
                m[i] = top;
            }
        }
        for (int i = 0; i < 4; ++i) {
            red_m[(ty * 4 + i) * 16 + tx] = m[i];
            red_z[(ty * 4 + i) * 16 + tx] = z[i];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = 0; i < 4; ++i) {
            __local const float *ms = red_m + (ty * 4 + i) * 16, *zs = red_z + (ty * 4 + i) * 16;
            m[i] = ms[0];
            for (int x = 1; x < 16; ++x)
                m[i] = fmax(m[i], ms[x]);
            float sum = 0.0f;
            for (int x = 0; x < 16; ++x)
                sum = fma(zs[x], exp(ms[x] - m[i]), sum);
            z[i] = first_q + ty * 4 + i < num_positions ? 1.0f / sum : 0.0f;
        }
        for (uint first_k = 0; first_k < num_positions; first_k += TILE) {
            score_tile(q, k, width, first_q, first_k, num_positions, scale, tile_q, tile_k, s);
            float4 live = live_keys(first_k, num_positions), column = (float4)(0.0f);
            for (int i = 0; i < 4; ++i)
                column = fma(exp((live > 0.0f ? s[i] : (float4)(LOWEST)) - m[i]), (float4)(z[i]), column);
            vstore4(column, tx, red_m + ty * TILE); // readers of the last tile passed score_tile's barriers
            barrier(CLK_LOCAL_MEM_FENCE);
            if (lane < TILE && first_k + lane < num_positions) {
                float sum = first_q == split * TILE ? 0.0f : partial[first_k + lane];
                for (int y = 0; y < 16; ++y)
                    sum += red_m[y * TILE + lane];
                partial[first_k + lane] = sum;
            }
        }
    }
}
