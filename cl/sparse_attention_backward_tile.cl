// Attention over a selection in latent form, backward, on GPUs: the many heads of the one key head make matrix products
// of a query's work (product_tile.clh). With v the front of k, and L and delta of sparse_attention_backward_rows.cl:
//
//   P[h,j] = exp(scale * q_h . k_j - L_h);   G[h,j] = scale * P[h,j] (dout_h . v_j - delta_h)
//   dq_h = sum_j G[h,j] k_j
//   row_j = sum_h G[h,j] q_h + P[h,j] dout_h;   dk_t = the sum of row_j over all places j that name t
//
// Every pass is a program of its own, since the tile is its own. They take a slab of queries at a time:
//
//   backward_weights    P [queries][heads][pitch]      work-group: HEAD_TILE heads x KEY_TILE places of a query
//   backward_gradients  G [queries][heads][pitch]      the same
//   backward_dq         dq                             work-group: HEAD_TILE heads x COLUMN_TILE columns
//   backward_dkv        row [queries][K][ROW]          work-group: KEY_TILE places x COLUMN_TILE columns
//   backward_sum        dk, the slabs before included  work-group: a key
//
// A key's rows are added one by one in the order of queries (sparse_attention_index.cl), so how many queries a slab has
// is not seen in the result. Places that name no key have weights of 0, those behind a row's end are not touched.
// Called by cldsa_sparse_attention_backward (variant tile).

#include "dtype.clh"
#include "raw.clh"
#include "sparse_attention.clh"

#define PASS_WEIGHTS 0
#define PASS_GRADIENTS 1
#define PASS_DQ 2
#define PASS_DKV 3
#define PASS_SUM 4

#ifndef PASS
#define PASS PASS_WEIGHTS // which kernel
#endif
#ifndef HEAD_TILE
#define HEAD_TILE 128 // heads of a work-group (16, 32, 64, 128)
#endif
#ifndef KEY_TILE
#define KEY_TILE 128 // places of a work-group (64, 128)
#endif
#ifndef COLUMN_TILE
#define COLUMN_TILE 64 // columns of a work-group (64, 128)
#endif
#ifndef WH
#define WH 8 // heads of a work-item (4, 8)
#endif
#ifndef WP
#define WP 8 // places of a work-item where they are the rows (4, 8)
#endif
#ifndef Q_VEC
#define Q_VEC 0 // 1: rows of q begin on 4 elements, and D is a multiple of 4
#endif
#ifndef K_VEC
#define K_VEC 0 // 1: so do rows of k
#endif
#ifndef V_VEC
#define V_VEC 0 // 1: and DV is a multiple of 4
#endif
#ifndef DOUT_VEC
#define DOUT_VEC 0 // 1: rows of dout begin on 4 elements, and DV is a multiple of 4
#endif

#if PASS <= PASS_GRADIENTS
#define TM HEAD_TILE
#define TN KEY_TILE
#define WM WH
#define A_ALONG_K 1
#define B_ALONG_K 1
#elif PASS == PASS_DQ
#define TM HEAD_TILE
#define TN COLUMN_TILE
#define WM WH
#define A_ALONG_K 1
#define B_ALONG_K 0
#else
#define TM KEY_TILE
#define TN COLUMN_TILE
#define WM WP
#define A_ALONG_K 0
#define B_ALONG_K 0
#endif
#include "product_tile.clh"

#define NO_ROW 0xffffffffu
#define ROW ((D + 3) / 4 * 4) // floats of a place's row
#define HEAD_TILES ((GROUP + HEAD_TILE - 1) / HEAD_TILE)
#define COLUMN_TILES ((D + COLUMN_TILE - 1) / COLUMN_TILE)
#define ALIGNED __attribute__((aligned(16)))
#define GLOBAL4(p) (*(__global const float4 *)(p))
#define TO_GLOBAL4(p) (*(__global float4 *)(p))

#define LOCAL_TILES __local float a_tiles[2][TK * A_ROW] ALIGNED, b_tiles[2][TK * B_ROW] ALIGNED
#define THIS_ITEM const int item = get_local_id(0), item_m = item / ITEMS_N, item_n = item % ITEMS_N

// A head of a work-group, those beyond the last repeat it: nobody sees their sums.
#define HEAD(w) (GROUP % HEAD_TILE == 0 ? (w) : min((w), heads - 1))

// The row number of the key at a place of a query of batch element b. No branch, so that fetches need not wait for it.
inline uint key_at(__global const int *indices, uint place, uint topk, uint end, uint b, uint num_keys)
{
    const uint t = (uint)indices[min(place, topk - 1)];
    return place < end && t < num_keys ? b * num_keys + t : NO_ROW;
}

#if PASS <= PASS_GRADIENTS

inline uint4 keys_at(__global const int *indices, uint place, uint topk, uint end, uint b, uint num_keys)
{
    return (uint4)(key_at(indices, place, topk, end, b, num_keys), key_at(indices, place + 1, topk, end, b, num_keys),
                   key_at(indices, place + 2, topk, end, b, num_keys),
                   key_at(indices, place + 3, topk, end, b, num_keys));
}

// What the two passes over columns multiply with the keys: queries, or upstream gradients.
#if PASS == PASS_WEIGHTS
#define ROWS_DTYPE Q_DTYPE
#define ROWS_VEC Q_VEC
#define KEYS_VEC K_VEC
#define WIDTH D
#else
#define ROWS_DTYPE F32
#define ROWS_VEC DOUT_VEC
#define KEYS_VEC V_VEC
#define WIDTH DV
#endif

// Steps are columns: four of them from a head's row and from a key's. Keys that do not exist are others: nobody sees
// their sums.
inline void fetch_rows(__global const ELEM(ROWS_DTYPE) *rows, int heads, __global const ELEM(KV_DTYPE) *k,
                       const uint *keys, int item, int c0, RAW4(ROWS_DTYPE) *raw_a, RAW4(KV_DTYPE) *raw_b)
{
#pragma unroll
    for (int l = 0; l < A_LOADS; ++l)
        raw_a[l] = RAW_COLUMNS(ROWS_DTYPE, ROWS_VEC, WIDTH, rows, (ulong)HEAD(A_W(A_LOAD(l))) * WIDTH,
                               c0 + A_K(A_LOAD(l)));
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l)
        raw_b[l] = RAW_COLUMNS(KV_DTYPE, KEYS_VEC, WIDTH, k, (ulong)keys[l] * D, c0 + B_K(B_LOAD(l)));
}

// Columns beyond the last one count as zeros.
inline void widen_rows(const RAW4(ROWS_DTYPE) *raw_a, const RAW4(KV_DTYPE) *raw_b, int item, int c0, float4 *from_a,
                       float4 *from_b)
{
#pragma unroll
    for (int l = 0; l < A_LOADS; ++l)
        from_a[l] = UP_TO(WIDTH, TK, FROM_RAW4(ROWS_DTYPE, raw_a[l]), c0 + A_K(A_LOAD(l)));
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l)
        from_b[l] = UP_TO(WIDTH, TK, FROM_RAW4(KV_DTYPE, raw_b[l]), c0 + B_K(B_LOAD(l)));
}

#define FETCH_ROWS(c) fetch_rows(rows, heads, k_ + k_off, keys, item, c, raw_a, raw_b);
#define WIDEN_ROWS(c) widen_rows(raw_a, raw_b, item, c, from_a, from_b);

// One kernel with both products keeps what both need in registers, and those decide how many work-groups run at a time.
#if PASS == PASS_WEIGHTS
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) MANY_REGISTERS void
backward_weights(__global const ELEM(Q_DTYPE) *rows_, ulong rows_off, __global const ELEM(KV_DTYPE) *k_, ulong k_off,
                 __global const int *indices_, ulong indices_off, __global const int *topk_length_,
                 ulong topk_length_off, __global const float *stats_, ulong stats_off, __global float *weights_,
                 ulong weights_off, uint first_query, uint num_queries, uint num_keys, uint topk, uint pitch,
                 float scale)
#else
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) MANY_REGISTERS void
backward_gradients(__global const float *rows_, ulong rows_off, __global const ELEM(KV_DTYPE) *k_, ulong k_off,
                   __global const int *indices_, ulong indices_off, __global const int *topk_length_,
                   ulong topk_length_off, __global const float *stats_, ulong stats_off,
                   __global const float *weights_, ulong weights_off, __global float *gradients_, ulong gradients_off,
                   uint first_query, uint num_queries, uint num_keys, uint topk, uint pitch, float scale)
#endif
{
    LOCAL_TILES;
    THIS_ITEM;
    const uint tile = get_group_id(0) / HEAD_TILES, tiles = (topk + TN - 1) / TN;
    const uint first_head = get_group_id(0) % HEAD_TILES * TM, first_place = tile % tiles * TN;
    const ulong row = first_query + tile / tiles, head_row = row * GROUP + first_head;
    const uint b = row / num_queries, end = row_end(topk_length_ + topk_length_off, row, topk);
    const int heads = min((uint)TM, GROUP - first_head);
    const bool any = first_place < end; // PoCL miscompiles a return ahead of barriers
    __global const int *indices = indices_ + indices_off + row * topk;
    __global const ELEM(ROWS_DTYPE) *rows = rows_ + rows_off + head_row * WIDTH;
    __global const float *stats = stats_ + stats_off + 2 * head_row;
    const ulong to = ((ulong)(tile / tiles) * GROUP + first_head) * pitch + first_place;

    uint keys[B_LOADS];
    RAW4(ROWS_DTYPE) raw_a[A_LOADS];
    RAW4(KV_DTYPE) raw_b[B_LOADS];
    float4 sum[WM][BLOCKS_N], from_a[A_LOADS], from_b[B_LOADS];
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l) {
        const uint key = key_at(indices, first_place + B_W(B_LOAD(l)), topk, end, b, num_keys);
        keys[l] = key == NO_ROW ? 0 : key;
    }

    clear_sums(sum);
    ADD_PRODUCTS(any ? WIDTH : 0, FETCH_ROWS, WIDEN_ROWS)
#pragma unroll
    for (int j = 0; j < BLOCKS_N; ++j) {
        const uint place = first_place + SUM_COLUMN(j);
        const int4 seen = keys_at(indices, place, topk, end, b, num_keys) != (uint4)(NO_ROW);
#pragma unroll
        for (int i = 0; i < WM; ++i) {
            const ulong at = to + SUM_ROW(i) * pitch + SUM_COLUMN(j);
            if (SUM_ROW(i) < heads && place < pitch) {
#if PASS == PASS_WEIGHTS
                float4 p = exp(fma((float4)(scale), sum[i][j], (float4)(-stats[2 * SUM_ROW(i)])));
                TO_GLOBAL4(weights_ + weights_off + at) = seen ? p : (float4)(0.0f);
#else
                float4 g = scale * GLOBAL4(weights_ + weights_off + at) * (sum[i][j] - stats[2 * SUM_ROW(i) + 1]);
                TO_GLOBAL4(gradients_ + gradients_off + at) = seen ? g : (float4)(0.0f);
#endif
            }
        }
    }
}

#elif PASS == PASS_DQ

// Steps are places: four of them from a head's row of G, and the columns of their keys. Places beyond the last repeat
// it and have no key; columns beyond repeat others, and nobody sees them.
inline void fetch_dq(__global const float *gradients, uint pitch, int heads, __global const ELEM(KV_DTYPE) *k,
                     const uint *keys, int item, uint first, uint c0, float4 *from_a, RAW4(KV_DTYPE) *raw_k,
                     bool *exists)
{
#pragma unroll
    for (int l = 0; l < A_LOADS; ++l)
        from_a[l] = GLOBAL4(gradients + (ulong)HEAD(A_W(A_LOAD(l))) * pitch + min(first + A_K(A_LOAD(l)), pitch - 4));
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l) {
        exists[l] = keys[l] != NO_ROW;
        raw_k[l] = RAW_COLUMNS(KV_DTYPE, K_VEC, D, k, (ulong)(exists[l] ? keys[l] : 0) * D, c0 + B_W(B_LOAD(l)));
    }
}

inline void widen_dq(const RAW4(KV_DTYPE) *raw_k, const bool *exists, float4 *from_b)
{
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l)
        from_b[l] = exists[l] ? FROM_RAW4(KV_DTYPE, raw_k[l]) : (float4)(0.0f);
}

// The keys of the places from `first` on, of which this work-item fetches columns.
inline void fetch_keys(__global const int *indices, uint first, uint topk, uint end, uint b, uint num_keys, int item,
                       uint *keys)
{
#pragma unroll
    for (int l = 0; l < B_LOADS; ++l)
        keys[l] = key_at(indices, first + B_K(B_LOAD(l)), topk, end, b, num_keys);
}

// Keys are fetched a step ahead.
#define FETCH_DQ(place)                                                                                                \
    fetch_dq(gradients, pitch, heads, k_ + k_off, keys, item, place, first_column, from_a, raw_k, exists);             \
    fetch_keys(indices, (place) + TK, topk, end, b, num_keys, item, keys);
#define WIDEN_DQ(place) widen_dq(raw_k, exists, from_b);

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) MANY_REGISTERS void
backward_dq(__global const ELEM(KV_DTYPE) *k_, ulong k_off, __global const int *indices_, ulong indices_off,
            __global const int *topk_length_, ulong topk_length_off, __global const float *gradients_,
            ulong gradients_off, __global float *dq_, ulong dq_off, uint first_query, uint num_queries, uint num_keys,
            uint topk, uint pitch)
{
    LOCAL_TILES;
    THIS_ITEM;
    const uint tile = get_group_id(0) / COLUMN_TILES, query = tile / HEAD_TILES;
    const uint first_column = get_group_id(0) % COLUMN_TILES * TN, first_head = tile % HEAD_TILES * TM;
    const ulong row = first_query + query;
    const uint b = row / num_queries, end = row_end(topk_length_ + topk_length_off, row, topk);
    const int heads = min((uint)TM, GROUP - first_head);
    __global const int *indices = indices_ + indices_off + row * topk;
    __global const float *gradients = gradients_ + gradients_off + ((ulong)query * GROUP + first_head) * pitch;
    __global float *dq = dq_ + dq_off + (row * GROUP + first_head) * D;

    uint keys[B_LOADS];
    bool exists[B_LOADS];
    RAW4(KV_DTYPE) raw_k[B_LOADS];
    float4 sum[WM][BLOCKS_N], from_a[A_LOADS], from_b[B_LOADS];
    fetch_keys(indices, 0, topk, end, b, num_keys, item, keys);
    clear_sums(sum);
    ADD_PRODUCTS((int)end, FETCH_DQ, WIDEN_DQ)
#pragma unroll
    for (int i = 0; i < WM; ++i)
#pragma unroll
        for (int j = 0; j < BLOCKS_N; ++j) {
            float x[4];
            vstore4(sum[i][j], 0, x);
#pragma unroll
            for (uint e = 0; e < 4; ++e)
                if (SUM_ROW(i) < heads && first_column + SUM_COLUMN(j) + e < D)
                    dq[(ulong)SUM_ROW(i) * D + first_column + SUM_COLUMN(j) + e] = x[e];
        }
}

#elif PASS == PASS_DKV

// Steps are heads: places of their rows of P or G, and columns of their queries or upstream gradients. Places beyond the
// last repeat others, and nobody sees them. Heads beyond the last and columns of dout beyond its last are zeros.
#define STEP_HEAD(h) (GROUP % TK == 0 ? (h) : min((h), GROUP - 1))

inline void fetch_places(__global const float *weights, uint pitch, uint first_place, int item, int first,
                         float4 *from_a)
{
#pragma unroll
    for (int l = 0; l < A_LOADS; ++l)
        from_a[l] = GLOBAL4(weights + (ulong)STEP_HEAD(first + A_K(A_LOAD(l))) * pitch +
                            min(first_place + A_W(A_LOAD(l)), pitch - 4));
}

#define DEFINE_FETCH_COLUMNS(fetch, widen, dtype, vec, width)                                                          \
    inline void fetch(__global const ELEM(dtype) *heads, uint first_column, int item, int first, RAW4(dtype) *raw)     \
    {                                                                                                                  \
        _Pragma("unroll") for (int l = 0; l < B_LOADS; ++l) raw[l] =                                                   \
            RAW_COLUMNS(dtype, vec, width, heads, (ulong)STEP_HEAD(first + B_K(B_LOAD(l))) * width,                    \
                        first_column + B_W(B_LOAD(l)));                                                                \
    }                                                                                                                  \
    inline void widen(const RAW4(dtype) *raw, uint first_column, int item, int first, float4 *from_b)                  \
    {                                                                                                                  \
        _Pragma("unroll") for (int l = 0; l < B_LOADS; ++l) from_b[l] =                                                \
            GROUP % TK == 0 || first + B_K(B_LOAD(l)) < GROUP                                                          \
                ? UP_TO(width, COLUMN_TILE, FROM_RAW4(dtype, raw[l]), first_column + B_W(B_LOAD(l)))                   \
                : (float4)(0.0f);                                                                                      \
    }
DEFINE_FETCH_COLUMNS(fetch_q, widen_q, Q_DTYPE, Q_VEC, D)
DEFINE_FETCH_COLUMNS(fetch_dout, widen_dout, F32, DOUT_VEC, DV)

#define FETCH_DK(head)                                                                                                 \
    fetch_places(gradients, pitch, first_place, item, head, from_a);                                                   \
    fetch_q(q, first_column, item, head, raw_q);
#define WIDEN_DK(head) widen_q(raw_q, first_column, item, head, from_b);
#define FETCH_DV(head)                                                                                                 \
    fetch_places(weights, pitch, first_place, item, head, from_a);                                                     \
    fetch_dout(dout, first_column, item, head, raw_dout);
#define WIDEN_DV(head) widen_dout(raw_dout, first_column, item, head, from_b);

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) MANY_REGISTERS void
backward_dkv(__global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const int *topk_length_, ulong topk_length_off,
             __global const float *dout_, ulong dout_off, __global const float *weights_, ulong weights_off,
             __global const float *gradients_, ulong gradients_off, __global float *places_, ulong places_off,
             uint first_query, uint topk, uint pitch)
{
    LOCAL_TILES;
    THIS_ITEM;
    const uint tile = get_group_id(0) / COLUMN_TILES, tiles = (topk + TM - 1) / TM, query = tile / tiles;
    const uint first_column = get_group_id(0) % COLUMN_TILES * TN, first_place = tile % tiles * TM;
    const ulong row = first_query + query;
    const uint end = row_end(topk_length_ + topk_length_off, row, topk);
    const int heads = first_place < end ? GROUP : 0; // PoCL miscompiles a return ahead of barriers
    __global const ELEM(Q_DTYPE) *q = q_ + q_off + row * GROUP * D;
    __global const float *dout = dout_ + dout_off + row * GROUP * DV;
    __global const float *weights = weights_ + weights_off + (ulong)query * GROUP * pitch;
    __global const float *gradients = gradients_ + gradients_off + (ulong)query * GROUP * pitch;
    __global float *places = places_ + places_off + ((ulong)query * topk + first_place) * ROW + first_column;

    RAW4(Q_DTYPE) raw_q[B_LOADS];
    float4 raw_dout[B_LOADS];
    float4 sum[WM][BLOCKS_N], from_a[A_LOADS], from_b[B_LOADS];
    clear_sums(sum);
    ADD_PRODUCTS(heads, FETCH_DK, WIDEN_DK)
    ADD_PRODUCTS(first_column < DV ? heads : 0, FETCH_DV, WIDEN_DV)
#pragma unroll
    for (int i = 0; i < WM; ++i)
#pragma unroll
        for (int j = 0; j < BLOCKS_N; ++j)
            if (first_place + SUM_ROW(i) < end && first_column + SUM_COLUMN(j) < ROW)
                TO_GLOBAL4(places + (ulong)SUM_ROW(i) * ROW + SUM_COLUMN(j)) = sum[i][j];
}

#else

#define SUM_WG 64
#define OWNED ((D + SUM_WG - 1) / SUM_WG) // columns of a work-item

// The first of entries i .. end - 1, which ascend by query, that is not before place `from` of the batch element.
inline uint first_entry(__global const uint *entry, uint i, uint end, uint from)
{
    while (i < end) {
        uint middle = i + (end - i) / 2;
        if (entry[middle] < from)
            i = middle + 1;
        else
            end = middle;
    }
    return i;
}

__kernel __attribute__((reqd_work_group_size(SUM_WG, 1, 1))) void
backward_sum(__global const float *places_, ulong places_off, __global const uint *start_, ulong start_off,
             __global const uint *entry_, ulong entry_off, __global float *dk_, ulong dk_off, uint first_query,
             uint slab_queries, uint num_queries, uint num_keys, uint topk)
{
    const uint b = first_query / num_queries + get_group_id(0) / num_keys, t = get_group_id(0) % num_keys;
    // The slab's queries of this batch element, counted from its first.
    const uint before = b * num_queries, low = max(first_query, before) - before;
    const uint high = min(first_query + slab_queries, before + num_queries) - before;
    __global const uint *start = start_ + start_off + (ulong)b * (num_keys + 1) + t;
    __global const uint *entry = entry_ + entry_off + (ulong)b * num_queries * topk;
    __global const float *places = places_ + places_off + ((long)before - (long)first_query) * topk * ROW;
    __global float *dk = dk_ + dk_off + ((ulong)b * num_keys + t) * D;
    const uint first = first_entry(entry, start[0], start[1], low * topk);
    const uint end = first_entry(entry, first, start[1], high * topk);

    float sum[OWNED];
#pragma unroll
    for (uint i = 0; i < OWNED; ++i) {
        uint c = get_local_id(0) + i * SUM_WG;
        sum[i] = low > 0 && c < D ? dk[c] : 0.0f;
    }
    for (uint at = first; at < end; ++at) {
        __global const float *row = places + (ulong)entry[at] * ROW;
#pragma unroll
        for (uint i = 0; i < OWNED; ++i) {
            uint c = get_local_id(0) + i * SUM_WG;
            sum[i] += c < D ? row[c] : 0.0f;
        }
    }
#pragma unroll
    for (uint i = 0; i < OWNED; ++i) {
        uint c = get_local_id(0) + i * SUM_WG;
        if (c < D)
            dk[c] = sum[i];
    }
}

#endif
