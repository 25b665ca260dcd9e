// Indexer scores on GPUs.
//
//   scores[b,i,j] = k_scale[b,j] * sum_h w[b,i,h] * relu(q[b,i,h,:] . k[b,j,h',:])      (relu of it if RELU_OUT)
//   q [B,S,HEADS,DIM]   k [B,T,KEY_HEADS,DIM]   w [HEADS] or [B,S,HEADS]   scores [B,S,T]
//
// A work-group scores TM queries against TN keys, a work-item RM x RN of them. KC columns of q and k at a time go through
// local memory, transposed, in two buffers: while one is multiplied, the next is on its way through registers.
//
//                       keys  [KC][TN]                  work-item (x, y) has columns 4x .. 4x+3 of every group of
//                     +----------------+                4 * TN/RN columns, and rows likewise: reads of four floats
//     queries         |  acc: one head |                that neither collide in banks nor waste a broadcast.
//     [KC][TM]        |  total: all    |
//                     +----------------+
//
// The loop runs over all heads and chunks; after the last chunk of a head, total += w * relu(acc). The scores of single
// heads never leave registers. Tiles without a visible key run no step of it and store -inf.
// Enqueued by host/ops/indexer_scores.c over (T / TN * WG, S / TM, B) in groups of WG = TM/RM * TN/RN.

#include "indexer_scores.clh"
#include "raw.clh"
#include "registers.clh"

#ifndef TM
#define TM 128 // queries of a tile (16 .. 128)
#endif
#ifndef TN
#define TN 128 // keys of a tile (32 .. 128)
#endif
#ifndef RM
#define RM 8 // queries of a work-item (4, 8)
#endif
#ifndef RN
#define RN 8 // keys of a work-item (4, 8)
#endif
#ifndef KC
#define KC 16 // columns in local memory at a time (8, 16, 32)
#endif
#ifndef Q_VEC
#define Q_VEC 0 // 1: rows of q begin on 4 elements, and DIM is a multiple of 4
#endif
#ifndef K_VEC
#define K_VEC 0 // 1: so do rows of k
#endif

#define LANES_M (TM / RM)
#define LANES_N (TN / RN)
#define WG (LANES_M * LANES_N)
#define PAD 4 // floats behind a row of local memory, against bank conflicts
#define CHUNKS ((DIM + KC - 1) / KC)
#define STEPS (HEADS * CHUNKS)
#define Q_LOADS ((TM * KC / 4 + WG - 1) / WG) // fours that a work-item fetches per chunk
#define K_LOADS ((TN * KC / 4 + WG - 1) / WG)

// Place in the tile of a work-item's row (or column) r.
#define ROW(y, r) (((r) / 4 * LANES_M + (y)) * 4 + (r) % 4)
#define COLUMN(x, c) (((c) / 4 * LANES_N + (x)) * 4 + (c) % 4)

// Fetches this work-item's share of a chunk of columns d0 .. of `count` rows, those behind which repeat the last: nobody
// sees their scores. The share is widened only when it is put into local memory, `rows` rows transposed, with zeros for
// columns beyond DIM.
#define FETCH(into, loads, vec, base, stride, count, d0)                                                               \
    _Pragma("unroll") for (int n_ = 0; n_ < (loads); ++n_)                                                             \
    {                                                                                                                  \
        const int e_ = n_ * WG + lane, row_ = min(e_ / (KC / 4), (count) - 1);                                         \
        (into)[n_] = RAW_COLUMNS(Q_DTYPE, vec, DIM, base, row_ * (stride), (d0) + e_ % (KC / 4) * 4);                  \
    }
#define PUT(from, loads, rows, tile, d0)                                                                               \
    _Pragma("unroll") for (int n_ = 0; n_ < (loads); ++n_)                                                             \
    {                                                                                                                  \
        const int e_ = n_ * WG + lane, d_ = e_ % (KC / 4) * 4;                                                         \
        const float4 x_ = UP_TO(DIM, KC, FROM_RAW4(Q_DTYPE, (from)[n_]), (d0) + d_);                                   \
        __local float *to_ = (tile) + d_ * ((rows) + PAD) + e_ / (KC / 4);                                             \
        if ((rows) * KC / 4 % WG == 0 || e_ < (rows) * KC / 4) {                                                       \
            to_[0] = x_.x;                                                                                             \
            to_[(rows) + PAD] = x_.y;                                                                                  \
            to_[2 * ((rows) + PAD)] = x_.z;                                                                            \
            to_[3 * ((rows) + PAD)] = x_.w;                                                                            \
        }                                                                                                              \
    }

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
indexer_scores_simt(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(Q_DTYPE) *k_, ulong k_off,
                    __global const float *w_, ulong w_off, __global const float *k_scale_, ulong k_scale_off,
                    __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off,
                    __global ELEM(SCORES_DTYPE) *scores_, ulong scores_off, int S, int T)
{
    __local float q_tile[2][KC * (TM + PAD)] __attribute__((aligned(16)));
    __local float k_tile[2][KC * (TN + PAD)] __attribute__((aligned(16)));
    const int lane = get_local_id(0), x = lane % LANES_N, y = lane / LANES_N;
    const int i0 = (int)get_group_id(1) * TM, j0 = (int)get_group_id(0) * TN;
    const size_t b = get_group_id(2);
    const int rows = min(TM, S - i0), keys = min(TN, T - j0);
    __global const ELEM(Q_DTYPE) *q = q_ + q_off + (b * S + i0) * (HEADS * DIM);
    __global const ELEM(Q_DTYPE) *k = k_ + k_off + (b * T + j0) * (KEY_HEADS * DIM);
    __global const float *w = w_ + w_off + (W_PER_ROW ? (b * S + i0) * HEADS : 0);
    __global const int *ks = ks_ + ks_off + b * S;
    __global const int *ke = ke_ + ke_off + b * S;

    const int2 seen = tile_range(ks, ke, i0, rows, S, T);
    const int steps = j0 < seen.y && j0 + keys > seen.x ? STEPS : 0;

    float acc[RM][RN], total[RM][RN];
#pragma unroll
    for (int r = 0; r < RM; ++r)
#pragma unroll
        for (int c = 0; c < RN; ++c)
            acc[r][c] = total[r][c] = 0.0f;

    RAW4(Q_DTYPE) q_next[Q_LOADS], k_next[K_LOADS];
    FETCH(q_next, Q_LOADS, Q_VEC, q, HEADS * DIM, rows, 0)
    FETCH(k_next, K_LOADS, K_VEC, k, KEY_HEADS * DIM, keys, 0)
    for (int step = 0; step < steps; ++step) {
        __local float *q_now = q_tile[step & 1], *k_now = k_tile[step & 1];
        PUT(q_next, Q_LOADS, TM, q_now, step % CHUNKS * KC)
        PUT(k_next, K_LOADS, TN, k_now, step % CHUNKS * KC)
        barrier(CLK_LOCAL_MEM_FENCE);
        if (step + 1 < steps) {
            const int h = (step + 1) / CHUNKS, d0 = (step + 1) % CHUNKS * KC;
            FETCH(q_next, Q_LOADS, Q_VEC, q + h * DIM, HEADS * DIM, rows, d0)
            FETCH(k_next, K_LOADS, K_VEC, k + (KEY_HEADS == 1 ? 0 : h) * DIM, KEY_HEADS * DIM, keys, d0)
        }
        UNROLL_AT_MOST(8)
        for (int d = 0; d < KC; ++d) {
            float a[RM], p[RN];
#pragma unroll
            for (int r = 0; r < RM; r += 4)
                vstore4(*(__local const float4 *)(q_now + d * (TM + PAD) + ROW(y, r)), 0, a + r);
#pragma unroll
            for (int c = 0; c < RN; c += 4)
                vstore4(*(__local const float4 *)(k_now + d * (TN + PAD) + COLUMN(x, c)), 0, p + c);
#pragma unroll
            for (int r = 0; r < RM; ++r)
#pragma unroll
                for (int c = 0; c < RN; ++c)
                    acc[r][c] = fma(a[r], p[c], acc[r][c]);
        }
        if (step % CHUNKS == CHUNKS - 1) {
            const int h = step / CHUNKS;
#pragma unroll
            for (int r = 0; r < RM; ++r) {
                const float weight = w[(W_PER_ROW ? min(ROW(y, r), rows - 1) * HEADS : 0) + h];
#pragma unroll
                for (int c = 0; c < RN; ++c) {
                    total[r][c] = fma(weight, RELU(acc[r][c]), total[r][c]);
                    acc[r][c] = 0.0f;
                }
            }
        }
    }

    __global ELEM(SCORES_DTYPE) *scores = scores_ + scores_off + (b * S + i0) * T;
#pragma unroll
    for (int r = 0; r < RM; ++r) {
        const int i = ROW(y, r);
        if (i < rows) {
            const int2 range = row_range(ks, ke, i0 + i, S, T);
#pragma unroll
            for (int c = 0; c < RN; ++c) {
                const int j = j0 + COLUMN(x, c);
                if (j < T) {
                    float score = total[r][c];
#if HAS_K_SCALE
                    score *= k_scale_[k_scale_off + b * T + j];
#endif
#if RELU_OUT
                    score = RELU(score);
#endif
                    score = j >= range.x && j < range.y ? score : -INFINITY;
                    STORE(SCORES_DTYPE, scores, (size_t)i * T + j, score);
                }
            }
        }
    }
}
