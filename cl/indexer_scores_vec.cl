// Indexer scores on CPUs.
//
//   scores[b,i,j] = k_scale[b,j] * sum_h w[b,i,h] * relu(q[b,i,h,:] . k[b,j,h',:])      (relu of it if RELU_OUT)
//   q [B,S,HEADS,DIM]   k [B,T,KEY_HEADS,DIM]   w [HEADS] or [B,S,HEADS]   scores [B,S,T]
//
// One work-item scores CHUNK queries against PANELS panels of NR = 16 * NV keys:
//
//            panels, transposed once per work-item       the register tile, MR x NV vectors, of one head is a
//            [PANELS][heads][DIM][NR]                    plain product q k^T; relu, times w, added to `total`.
//              +-- NR --+-- NR --+-- keys                Only the total of all heads is stored, so the scores of
//     q rows   |        |        |                       single heads never touch memory.
//     MR ----> |  acc,  |        |                       A tile's rows are MR queries or, where queries are few and
//              |  total |  total |                       heads share their key, MR heads of one query (HEAD_ROWS).
//              +--------+--------+                       They are copied once for all panels.
//
// Tiles without a visible key are filled with -inf and cost nothing else; panels are packed when first needed.
// No barriers and no local memory. Enqueued by host/ops/indexer_scores.c over (T / WIDTH, S / ROWS, B), WIDTH being the
// keys of all panels and ROWS being CHUNK in whole tiles.

#ifndef HEAD_ROWS
#define HEAD_ROWS 0 // 1: a tile's rows are heads of one query, which share their key, 0: queries of one head
#endif
#ifndef MR
#define MR 6 // rows of a register tile (1 .. 14)
#endif
#ifndef NV
#define NV 4 // float16 vectors of keys in a tile (1 .. 4)
#endif
#ifndef PANELS
#define PANELS 1 // panels of a work-item, which share its copies of queries (1 .. 8)
#endif
#ifndef CHUNK
#define CHUNK 256 // queries of a work-item, over which packing the panel is spread (64 .. 1024)
#endif
#ifndef PANEL_HEADS
#define PANEL_HEADS 4 // heads packed at once when every head has its own key (1 .. HEADS)
#endif

#include "indexer_scores_vec.clh"

#if HEAD_ROWS
#define TILE_QUERIES 1
#define TILE_HEADS MR
#else
#define TILE_QUERIES MR
#define TILE_HEADS 1
#endif
#define ROW_STRIDE (HEAD_ROWS ? DIM : HEADS * DIM)                      // of a tile's rows in q
#define ROWS ((CHUNK + TILE_QUERIES - 1) / TILE_QUERIES * TILE_QUERIES) // queries of a work-item: whole tiles
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
#define WIDTH (NR * PANELS)
#define PANEL (PACKED_HEADS * DIM * NV) // vectors of a panel
#define TILE (TILE_QUERIES * NV)        // vectors of a tile's scores

#if KEY_HEADS == 1
#define PANEL_OF(panel, h) (panel)
#else
#define PANEL_OF(panel, h) ((panel) + (h)*DIM * NV)
#endif

// Packs the keys of heads h0 .. h0 + heads of one panel.
inline void pack_heads(rows_ptr k, int h0, int heads, int count, float16 *panel)
{
#if KEY_HEADS == 1
    pack_panel(k, DIM, count, panel);
#else
    for (int h = 0; h < heads; ++h)
        pack_panel(k + (h0 + h) * DIM, KEY_HEADS * DIM, count, PANEL_OF(panel, h));
#endif
}

// The tile's own copy of its `rows` rows of q, the last of which is repeated: one base address, and f16 and bf16 are
// widened once.
inline void copy_tile(rows_ptr q, int rows, float16 *copies)
{
    for (int r = 0; r < MR; ++r)
        copy_row(q + min(r, rows - 1) * ROW_STRIDE, copies + r * DIM_VECTORS);
}

// total += w * relu(q . panel), of each of the tile's `rows` rows and one panel.
inline void score_panel(const float *tile, int rows, __global const float *w, const float16 *panel, float16 *total)
{
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
#if HEAD_ROWS
        if (r >= rows)
            break;
        const float16 weight = (float16)(w[r]);
        float16 *sum = total;
#else
        const float16 weight = (float16)(w[W_PER_ROW ? min(r, rows - 1) * HEADS : 0]);
        float16 *sum = total + r * NV;
#endif
#pragma unroll
        for (int v = 0; v < NV; ++v)
            sum[v] = fma(weight, RELU16(acc[r][v]), sum[v]);
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
    const int j0 = (int)get_global_id(0) * WIDTH;
    const int first = (int)get_global_id(1) * ROWS;
    const size_t b = get_global_id(2);
    if (j0 >= T || first >= S)
        return;
    const int last = min(first + ROWS, S);
    const int count = min(WIDTH, T - j0), panels = (count + NR - 1) / NR;
    rows_ptr q = q_ + q_off + b * S * (HEADS * DIM);
    rows_ptr k = k_ + k_off + (b * T + j0) * (KEY_HEADS * DIM);
    __global const float *w = w_ + w_off + (W_PER_ROW ? b * S * HEADS : 0);
    __global const int *ks = ks_ + ks_off + b * S;
    __global const int *ke = ke_ + ke_off + b * S;
    __global ELEM(SCORES_DTYPE) *scores = scores_ + scores_off + b * S * T + j0;

    float16 scale[PANELS * NV];
    for (int v = 0; v < PANELS * NV; ++v)
        scale[v] = (float16)(1.0f);
#if HAS_K_SCALE
    for (int j = 0; j < count; ++j)
        ((float *)scale)[j] = k_scale_[k_scale_off + b * T + j0 + j];
#endif

    float16 all[PANELS * PANEL];
    float16 partial[ONE_BLOCK ? 1 : ROWS * NV * PANELS]; // totals of the heads so far
    for (int h0 = 0; h0 < HEADS; h0 += BLOCK_HEADS) {
        const int heads = min(BLOCK_HEADS, HEADS - h0);
        const bool last_heads = h0 + heads == HEADS;
        bool packed = false;
        for (int i = first; i < last; i += TILE_QUERIES) {
            const int queries = min(TILE_QUERIES, last - i);
            const int2 seen = tile_range(ks, ke, i, queries, S, T);
            if (j0 >= seen.y || j0 + count <= seen.x) {
                if (last_heads)
                    hide_tile(scores + (size_t)i * T, queries, count, T);
                continue;
            }
            for (int p = 0; !packed && p < panels; ++p)
                pack_heads(k + (size_t)p * NR * (KEY_HEADS * DIM), h0, heads, min(NR, count - p * NR), all + p * PANEL);
            packed = true;
            const int from = max(seen.x - j0, 0) / NR, to = min(count, seen.y - j0); // panels with a visible key, keys
            float16 totals[PANELS * TILE];
            for (int n = 0; n < PANELS * TILE; ++n)
                totals[n] = ONE_BLOCK || h0 == 0 ? (float16)(0.0f) : partial[(i - first) * NV * PANELS + n];
            for (int h = 0; h < heads; h += TILE_HEADS) {
                const int rows = HEAD_ROWS ? min(MR, heads - h) : queries;
                float16 copies[MR * DIM_VECTORS];
                copy_tile(q + (size_t)i * (HEADS * DIM) + (h0 + h) * DIM, rows, copies);
                for (int p = from; p * NR < to; ++p)
                    score_panel((const float *)copies, rows, w + (W_PER_ROW ? (size_t)i * HEADS : 0) + h0 + h,
                                PANEL_OF(all + p * PANEL, h), totals + p * TILE);
            }
            if (!last_heads) {
                for (int n = 0; n < PANELS * TILE; ++n)
                    partial[(i - first) * NV * PANELS + n] = totals[n];
                continue;
            }
            for (int r = 0; r < queries; ++r) {
                const int2 range = row_range(ks, ke, i + r, S, T);
                for (int p = 0; p < panels; ++p)
                    store_row(totals + p * TILE + r * NV, scale + p * NV, range, j0 + p * NR, T,
                              scores + (size_t)(i + r) * T + p * NR);
            }
        }
    }
}
