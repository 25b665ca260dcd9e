// Column sums of softmax(q k^T * scale) for the controller's entropy, on CPUs.
//
//   partial[b, h*P + p, j] = sum over queries i of split p of softmax_j(q[b,h,i] . k[b,h,j] * scale)
//
// qk [B,S,W]: row s holds q (H heads of HEAD_DIM) and, k_at columns further, k. One work-item per (split, b*H + h). It
// takes its 32 queries at a time, one per vector lane, so that softmax runs along memory:
//
//   scores [S][32]      = K rows (KEYS at a time, broadcast) x packed queries [HEAD_DIM][32]; kept in scratch (L2)
//   e = exp(s - max), z = sum e;   partial[j] += sum over lanes e[j] / z
//
// Called by cldsa_controller_entropy.

#include "math.clh"

#ifndef HEAD_DIM
#define HEAD_DIM 64 // columns of a head
#endif
#ifndef KEYS
#define KEYS 12 // keys per register tile: KEYS x 32 accumulators (6 to 14)
#endif

#define QUERIES 32

// The packed queries of positions first .. first+31; those past the end are zeros.
inline void pack_queries(__global const float *q, ulong width, uint first, uint num_positions, float scale,
                         __global float *packed)
{
    for (uint i = 0; i < QUERIES; ++i) {
        bool live = first + i < num_positions;
        __global const float *row = q + (live ? first + i : 0) * width;
        for (uint d = 0; d < HEAD_DIM; ++d)
            packed[d * QUERIES + i] = live ? row[d] * scale : 0.0f;
    }
}

// Scores of all keys against the packed queries; returns the lanes' maxima.
inline void score_tile(__global const float *k, ulong width, uint num_positions, __global const float *packed,
                       __global float *scores, float16 *max0, float16 *max1)
{
    float16 m0 = (float16)(-INFINITY), m1 = (float16)(-INFINITY);
    for (uint j = 0; j < num_positions; j += KEYS) {
        // The last tile steps back over keys that are already done rather than past the end.
        uint first = j + KEYS <= num_positions ? j : num_positions >= KEYS ? num_positions - KEYS : 0;
        uint count = min((uint)KEYS, num_positions);
        __global const float *row[KEYS];
        float16 s[KEYS][2];
#pragma unroll
        for (uint i = 0; i < KEYS; ++i) {
            row[i] = k + (first + min(i, count - 1)) * width;
            s[i][0] = (float16)(0.0f);
            s[i][1] = (float16)(0.0f);
        }
        for (uint d = 0; d < HEAD_DIM; ++d) {
            float16 q0 = vload16(0, packed + d * QUERIES), q1 = vload16(1, packed + d * QUERIES);
#pragma unroll
            for (uint i = 0; i < KEYS; ++i) {
                float16 x = (float16)(row[i][d]);
                s[i][0] = fma(x, q0, s[i][0]);
                s[i][1] = fma(x, q1, s[i][1]);
            }
        }
#pragma unroll
        for (uint i = 0; i < KEYS; ++i) {
            if (i < count) {
                vstore16(s[i][0], 0, scores + (first + i) * QUERIES);
                vstore16(s[i][1], 1, scores + (first + i) * QUERIES);
                m0 = MAX_OF(s[i][0], m0);
                m1 = MAX_OF(s[i][1], m1);
            }
        }
    }
    *max0 = m0;
    *max1 = m1;
}

__kernel void controller_entropy_scores(__global const float *qk_, ulong qk_off, __global float *partial_,
                                        ulong partial_off, __global float *scratch_, ulong scratch_off, uint num_heads,
                                        uint num_positions, uint width, uint k_at, float scale)
{
    uint split = get_global_id(0), num_splits = get_global_size(0);
    uint head = get_global_id(1) % num_heads, b = get_global_id(1) / num_heads;
    ulong item = (ulong)get_global_id(1) * num_splits + split;
    __global const float *q = qk_ + qk_off + (ulong)b * num_positions * width + head * HEAD_DIM;
    __global const float *k = q + k_at;
    __global float *packed = scratch_ + scratch_off + item * (HEAD_DIM + num_positions) * QUERIES;
    __global float *scores = packed + HEAD_DIM * QUERIES;
    __global float *partial = partial_ + partial_off + item * num_positions;
    const float16 lane = (float16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    for (uint j = 0; j < num_positions; ++j)
        partial[j] = 0.0f;
    for (uint first = split * QUERIES; first < num_positions; first += num_splits * QUERIES) {
        float16 m0, m1, z0 = (float16)(0.0f), z1 = (float16)(0.0f);
        pack_queries(q, width, first, num_positions, scale, packed);
        score_tile(k, width, num_positions, packed, scores, &m0, &m1);
        for (uint j = 0; j < num_positions; ++j) {
            float16 e0 = exp_fast16(vload16(0, scores + j * QUERIES) - m0);
            float16 e1 = exp_fast16(vload16(1, scores + j * QUERIES) - m1);
            vstore16(e0, 0, scores + j * QUERIES);
            vstore16(e1, 1, scores + j * QUERIES);
            z0 += e0;
            z1 += e1;
        }
        float16 live = (float16)((float)(num_positions - first));
        float16 w0 = lane < live ? 1.0f / z0 : (float16)(0.0f);
        float16 w1 = lane + 16.0f < live ? 1.0f / z1 : (float16)(0.0f);
        for (uint j = 0; j < num_positions; ++j)
            partial[j] += sum16(
                fma(vload16(0, scores + j * QUERIES), w0, vload16(1, scores + j * QUERIES) * w1));
    }
}
