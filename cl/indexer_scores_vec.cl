// Indexer scores on CPUs.
//
//   scores[b,i,j] = k_scale[b,j] * sum_h w[b,i,h] * relu(q[b,i,h,:] . k[b,j,h',:])      (relu of it if RELU_OUT)
//   q [B,S,HEADS,DIM]   k [B,T,KEY_HEADS,DIM]   w [HEADS] or [B,S,HEADS]   scores [B,S,T]
//
// One work-item scores CHUNK queries against a panel of NR = 16 * NV keys:
//
//            panel, transposed once per work-item        the register tile, MR x NV vectors, of one head is a
//            [heads][DIM][NR]                            plain product q k^T; relu, times w, added to `total`.
//              +---- NR keys ----+                       Only the total of all heads is stored, so the scores of
//     q rows   |                 |                       single heads never touch memory.
//     MR ----> |  acc, total     |
//              +-----------------+
//
// Tiles without a visible key are filled with -inf and cost nothing else; a panel is packed when first needed.
// No barriers and no local memory. Enqueued by host/ops/indexer_scores.c over (T / NR, S / ROWS, B), ROWS being CHUNK in whole tiles.

#ifndef MR
#define MR 6 // queries of a register tile (1 .. 14)
#endif
#ifndef NV
#define NV 4 // float16 vectors of keys in a tile (1 .. 4)
#endif
#ifndef CHUNK
#define CHUNK 256 // queries of a work-item, over which packing the panel is spread (64 .. 1024)
#endif
#ifndef PANEL_HEADS
#define PANEL_HEADS 4 // heads packed at once when every head has its own key (1 .. HEADS)
#endif

#include "indexer_scores_vec.clh"

#define ROWS ((CHUNK + MR - 1) / MR * MR) // queries of a work-item: whole tiles
#if KEY_HEADS == 1
#define BLOCK_HEADS HEADS // one panel serves all heads
#define PACKED_HEADS 1
#elif PANEL_HEADS < HEADS
#define BLOCK_HEADS PANEL_HEADS
#define PACKED_HEADS PANEL_HEADS
#else
#define BLOCK_HEADS HEADS
#define PACKED_HEADS HEADS
#endif
#define ONE_BLOCK (BLOCK_HEADS == HEADS)

#if KEY_HEADS == 1
#define PANEL_OF(panel, h) (panel)
#else
#define PANEL_OF(panel, h) ((panel) + (h)*DIM * NV)
#endif

// Packs the keys of heads h0 .. h0 + heads.
inline void pack_heads(rows_ptr k, int h0, int heads, int count, float16 *panel)
{
#if KEY_HEADS == 1
    pack_panel(k, DIM, count, panel);
#else
    for (int h = 0; h < heads; ++h)
        pack_panel(k + (h0 + h) * DIM, KEY_HEADS * DIM, count, PANEL_OF(panel, h));
#endif
}

// Zeros, or the totals of the heads before.
inline void start_total(float16 total[MR][NV], bool first, const float16 *partial)
{
#pragma unroll
    for (int r = 0; r < MR; ++r)
#pragma unroll
        for (int v = 0; v < NV; ++v)
            total[r][v] = ONE_BLOCK || first ? (float16)(0.0f) : partial[r * NV + v];
}

// total[r] += w[r] * relu(q[r] . panel) for one head and `rows` queries; the tile's other rows repeat the last one.
inline void score_head(rows_ptr q, int rows, __global const float *w, const float16 *panel, float16 total[MR][NV])
{
    // The tile's own copy of the queries: one base address for all rows, and f16 and bf16 are widened once.
    float16 copies[MR * DIM_VECTORS];
    for (int r = 0; r < MR; ++r)
        copy_row(q + min(r, rows - 1) * (HEADS * DIM), copies + r * DIM_VECTORS);
    const float *tile = (const float *)copies;
    float16 acc[MR][NV];
#pragma unroll
    for (int r = 0; r < MR; ++r)
#pragma unroll
        for (int v = 0; v < NV; ++v)
            acc[r][v] = (float16)(0.0f);
    for (int d = 0; d < DIM; ++d) {
        float16 key[NV];
#pragma unroll
        for (int v = 0; v < NV; ++v)
            key[v] = panel[d * NV + v];
#pragma unroll
        for (int r = 0; r < MR; ++r) {
            const float16 x = (float16)(tile[r * (16 * DIM_VECTORS) + d]);
#pragma unroll
            for (int v = 0; v < NV; ++v)
                acc[r][v] = fma(x, key[v], acc[r][v]);
        }
    }
#pragma unroll
    for (int r = 0; r < MR; ++r) {
        const float16 weight = (float16)(w[W_PER_ROW ? min(r, rows - 1) * HEADS : 0]);
#pragma unroll
        for (int v = 0; v < NV; ++v)
            total[r][v] = fma(weight, RELU16(acc[r][v]), total[r][v]);
    }
}

// Scales, masks and stores one row of a tile. Lanes are keys j0 .. j0 + NR.
inline void store_row(const float16 *total, const float16 *scale, int2 range, int j0, int T,
                      __global ELEM(SCORES_DTYPE) *out)
{
    const int16 lane = (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#pragma unroll
    for (int v = 0; v < NV; ++v) {
        const int j = j0 + 16 * v;
        float16 x = total[v] * scale[v];
#if RELU_OUT
        x = RELU16(x);
#endif
        if (j < range.x || j + 16 > range.y)
            x = select((float16)(-INFINITY), x, (lane + j >= range.x) & (lane + j < range.y));
        if (j + 16 <= T) {
            STORE16(SCORES_DTYPE, out, 16 * v, x);
        } else {
            for (int l = 0; j + l < T; ++l)
                STORE(SCORES_DTYPE, out, 16 * v + l, ((const float *)&x)[l]);
        }
    }
}

// Stores -inf over a tile that nobody sees.
inline void hide_tile(__global ELEM(SCORES_DTYPE) *out, int rows, int count, int T)
{
    const float16 hidden = (float16)(-INFINITY);
    for (int r = 0; r < rows; ++r, out += T) {
        int j = 0;
        for (; j + 16 <= count; j += 16)
            STORE16(SCORES_DTYPE, out, j, hidden);
        for (; j < count; ++j)
            STORE(SCORES_DTYPE, out, j, -INFINITY);
    }
}

__kernel void indexer_scores_vec(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(Q_DTYPE) *k_,
                                 ulong k_off, __global const float *w_, ulong w_off, __global const float *k_scale_,
                                 ulong k_scale_off, __global const int *ks_, ulong ks_off, __global const int *ke_,
                                 ulong ke_off, __global ELEM(SCORES_DTYPE) *scores_, ulong scores_off, int S, int T)
{
    const int j0 = (int)get_global_id(0) * NR;
    const int first = (int)get_global_id(1) * ROWS;
    const size_t b = get_global_id(2);
    if (j0 >= T || first >= S)
        return;
    const int last = min(first + ROWS, S);
    const int count = min(NR, T - j0);
    rows_ptr q = q_ + q_off + b * S * (HEADS * DIM);
    rows_ptr k = k_ + k_off + (b * T + j0) * (KEY_HEADS * DIM);
    __global const float *w = w_ + w_off + (W_PER_ROW ? b * S * HEADS : 0);
    __global const int *ks = ks_ + ks_off + b * S;
    __global const int *ke = ke_ + ke_off + b * S;
    __global ELEM(SCORES_DTYPE) *scores = scores_ + scores_off + b * S * T + j0;

    float16 scale[NV];
    for (int v = 0; v < NV; ++v)
        scale[v] = (float16)(1.0f);
#if HAS_K_SCALE
    for (int j = 0; j < count; ++j)
        ((float *)scale)[j] = k_scale_[k_scale_off + b * T + j0 + j];
#endif

    float16 panel[PACKED_HEADS * DIM * NV];
    float16 partial[ONE_BLOCK ? 1 : ROWS * NV]; // totals of the heads so far
    for (int h0 = 0; h0 < HEADS; h0 += BLOCK_HEADS) {
        const int heads = min(BLOCK_HEADS, HEADS - h0);
        const bool last_heads = h0 + heads == HEADS;
        bool packed = false;
        for (int i = first; i < last; i += MR) {
            const int rows = min(MR, last - i);
            const int2 seen = tile_range(ks, ke, i, rows, S, T);
            if (j0 >= seen.y || j0 + count <= seen.x) {
                if (last_heads)
                    hide_tile(scores + (size_t)i * T, rows, count, T);
                continue;
            }
            if (!packed)
                pack_heads(k, h0, heads, count, panel);
            packed = true;
            float16 total[MR][NV];
            start_total(total, h0 == 0, partial + (i - first) * NV);
            for (int h = 0; h < heads; ++h)
                score_head(q + (size_t)i * (HEADS * DIM) + (h0 + h) * DIM, rows,
                           w + (W_PER_ROW ? (size_t)i * HEADS : 0) + h0 + h, PANEL_OF(panel, h), total);
            if (!last_heads) {
                for (int n = 0; n < MR * NV; ++n)
                    partial[(i - first) * NV + n] = total[n / NV][n % NV];
                continue;
            }
            for (int r = 0; r < rows; ++r)
                store_row(total[r], scale, row_range(ks, ke, i + r, S, T), j0, T, scores + (size_t)(i + r) * T);
        }
    }
}
