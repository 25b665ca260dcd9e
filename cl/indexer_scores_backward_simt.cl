// Gradients of the indexer's scores on GPUs.
//
//   z[i,j] = dscores[b,i,j] * k_scale[b,j]       where query i sees key j (and, with relu_out, the score is above 0)
//   s[i,j] = q[b,i,h,:] . k[b,j,h',:]            recomputed, never stored
//   dw[b,i,h]   = sum_j z[i,j] * relu(s[i,j])
//   dq[b,i,h,:] = sum_j p[i,j] * k[b,j,h',:]     p[i,j] = z[i,j] * w[b,i,h] * [s[i,j] > 0]
//   dk[b,j,h',:] = sum_h sum_i p[i,j] * q[b,i,h,:]
//
// Two kernels, each of which owns what it writes, so that sums have one order and no atomics:
//   .._queries_simt: a work-group owns TILE queries of a head and walks over all tiles of keys;
//   .._keys_simt:    a work-group owns TILE keys and walks over all tiles of queries (of all heads that share the key).
// A step of the walk, for a group of 16 x 16 work-items (x, y):
//   1. s: TILE x TILE, rows 4y .. 4y+3 (queries) and columns 4x .. 4x+3 (keys) per item, KC columns of q and k at a time;
//   2. p into local memory as [walked][owned];
//   3. grad [owned][DBLOCK] += p^T * walked rows, KC rows at a time: rows 4y .. 4y+3 and columns 4x .. 4x+3 of every 64.
// Gradients stay in registers for the whole walk. DIM beyond DBLOCK is split over work-groups, which repeat 1 and 2.
// Few tiles of keys leave most of a device idle: then their walk is cut into `parts`, each with a dk of its own.
// Enqueued by host/ops/indexer_scores_backward.c over (S / TILE * 256, HEADS * D blocks, B) and
// (T / TILE * 256, KEY_HEADS * D blocks * parts, B).

#include "dtype.clh"
#include "exact.clh"
#include "indexer_scores.clh"
#include "registers.clh"

#ifndef KC
#define KC 16 // columns (step 1) or rows (step 3) in local memory at a time (8, 16)
#endif
#ifndef DBLOCK
#define DBLOCK 64 // columns of a gradient that a work-group owns (64, 128)
#endif

#define TILE 64
#define WG 256
#define ROW_FLOATS (TILE + 4) // a row of local memory, padded against bank conflicts
#define D_BLOCKS ((DIM + DBLOCK - 1) / DBLOCK)
#define D_GROUPS (DBLOCK / 64)
#define COLUMN(x, c) ((c) / 4 * 64 + (x) * 4 + (c) % 4)
#define GATED RELU_OUT // the gradient passes only where the gate, the forward's scores, is above 0

typedef __global const ELEM(Q_DTYPE) *rows_ptr;

// Local memory: q and k chunks of step 1 share their place with the walked rows of step 3.
#define CHUNK_FLOATS (2 * KC * ROW_FLOATS > KC * (DBLOCK + 4) ? 2 * KC * ROW_FLOATS : KC * (DBLOCK + 4))

// tile[c][r] = rows[r][d0 + c] for KC columns of TILE rows, zeros outside.
inline void load_columns(rows_ptr rows, size_t stride, int count, int d0, __local float *tile)
{
    const int lane = get_local_id(0);
#pragma unroll
    for (int n = 0; n < TILE * KC / WG; ++n) {
        const int e = n * WG + lane, r = e / KC, c = e % KC;
        tile[c * ROW_FLOATS + r] = r < count && d0 + c < DIM ? LOAD(Q_DTYPE, rows, r * stride + d0 + c) : 0.0f;
    }
}

// tile[r][c] = rows[r0 + r][d0 + c] for KC rows of DBLOCK columns, zeros outside.
inline void load_rows(rows_ptr rows, size_t stride, int count, int r0, int d0, __local float *tile)
{
    const int lane = get_local_id(0);
#pragma unroll
    for (int n = 0; n < KC * DBLOCK / WG; ++n) {
        const int e = n * WG + lane, r = e / DBLOCK, c = e % DBLOCK;
        tile[r * (DBLOCK + 4) + c] =
            r0 + r < count && d0 + c < DIM ? LOAD(Q_DTYPE, rows, (r0 + r) * stride + d0 + c) : 0.0f;
    }
}

// Step 1: acc[r][c] = q row 4y + r . k row 4x + c. A macro, as barriers must stand in the kernel.
#define TILE_DOTS(acc, q, q_stride, q_count, k, k_stride, k_count, chunk)                                              \
    _Pragma("unroll") for (int r_ = 0; r_ < 4; ++r_)                                                                   \
        _Pragma("unroll") for (int c_ = 0; c_ < 4; ++c_) acc[r_][c_] = 0.0f;                                           \
    for (int d0_ = 0; d0_ < DIM; d0_ += KC) {                                                                          \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        load_columns(q, q_stride, q_count, d0_, chunk);                                                                \
        load_columns(k, k_stride, k_count, d0_, chunk + KC * ROW_FLOATS);                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        UNROLL_STEPS for (int d_ = 0; d_ < KC; ++d_)                                                                   \
        {                                                                                                              \
            float a_[4], b_[4];                                                                                        \
            vstore4(vload4(0, chunk + d_ * ROW_FLOATS + 4 * y), 0, a_);                                                \
            vstore4(vload4(0, chunk + (KC + d_) * ROW_FLOATS + 4 * x), 0, b_);                                         \
            _Pragma("unroll") for (int r_ = 0; r_ < 4; ++r_)                                                           \
                _Pragma("unroll") for (int c_ = 0; c_ < 4; ++c_) acc[r_][c_] = fma(a_[r_], b_[c_], acc[r_][c_]);       \
        }                                                                                                              \
    }

// Step 3: grad[r][c] += the sum over walked rows s of p[s][4y + r] * walked[s][column c]. If `exact`, a p of 0 adds
// nothing.
#define ADD_WALKED(grad, p, walked, stride, count, d0, chunk)                                                          \
    for (int s0_ = 0; s0_ < TILE; s0_ += KC) {                                                                         \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        load_rows(walked, stride, count, s0_, d0, chunk);                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        if (exact)                                                                                                     \
            for (int s_ = 0; s_ < KC; ++s_)                                                                            \
                for (int r_ = 0; r_ < 4; ++r_) {                                                                       \
                    float a_ = (p)[(s0_ + s_) * ROW_FLOATS + 4 * y + r_];                                              \
                    for (int c_ = 0; c_ < 4 * D_GROUPS; ++c_)                                                          \
                        grad[r_][c_] =                                                                                 \
                            a_ == 0.0f ? grad[r_][c_]                                                                  \
                                       : fma(a_, (chunk)[s_ * (DBLOCK + 4) + COLUMN(x, c_)], grad[r_][c_]);            \
                }                                                                                                      \
        else                                                                                                           \
            UNROLL_STEPS for (int s_ = 0; s_ < KC; ++s_)                                                               \
            {                                                                                                          \
                float a_[4], b_[4 * D_GROUPS];                                                                         \
                vstore4(vload4(0, (p) + (s0_ + s_) * ROW_FLOATS + 4 * y), 0, a_);                                      \
                _Pragma("unroll") for (int g_ = 0; g_ < D_GROUPS; ++g_)                                                \
                    vstore4(vload4(0, (chunk) + s_ * (DBLOCK + 4) + 64 * g_ + 4 * x), 0, b_ + 4 * g_);                 \
                _Pragma("unroll") for (int r_ = 0; r_ < 4; ++r_)                                                       \
                    _Pragma("unroll") for (int c_ = 0; c_ < 4 * D_GROUPS; ++c_) grad[r_][c_] =                         \
                        fma(a_[r_], b_[c_], grad[r_][c_]);                                                             \
            }                                                                                                          \
    }

#define CLEAR(grad)                                                                                                    \
    _Pragma("unroll") for (int r_ = 0; r_ < 4; ++r_)                                                                   \
        _Pragma("unroll") for (int c_ = 0; c_ < 4 * D_GROUPS; ++c_) grad[r_][c_] = 0.0f;

// NaN where a gradient is not finite.
inline float times_zero(float grad[4][4 * D_GROUPS])
{
    float zeros = 0.0f;
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4 * D_GROUPS; ++c)
            zeros = fma(grad[r][c], 0.0f, zeros);
    return zeros;
}

// z of one pair; 0 where the query does not see the key. `at` is the pair's place in dscores and gate.
inline float upstream(__global const float *dscores, __global const float *gate, __global const float *k_scale,
                      size_t at, int2 range, int j)
{
    if (j < range.x || j >= range.y)
        return 0.0f;
#if GATED
    if (!(gate[at] > 0.0f))
        return 0.0f;
#endif
#if HAS_K_SCALE
    return dscores[at] * k_scale[j];
#else
    return dscores[at];
#endif
}

#define INPUTS                                                                                                         \
    __global const ELEM(Q_DTYPE) *q_, ulong q_off, __global const ELEM(Q_DTYPE) *k_, ulong k_off,                      \
        __global const float *w_, ulong w_off, __global const float *k_scale_, ulong k_scale_off,                      \
        __global const int *ks_, ulong ks_off, __global const int *ke_, ulong ke_off, __global const float *dscores_,  \
        ulong dscores_off, __global const float *gate_, ulong gate_off

// dq and, as rows [B,S,HEADS], dw.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
indexer_scores_backward_queries_simt(INPUTS, __global float *dq_, ulong dq_off, __global float *dw_, ulong dw_off,
                                     int S, int T)
{
    __local float chunk[CHUNK_FLOATS];
    __local float p[TILE * ROW_FLOATS];
    const int x = (int)get_local_id(0) % 16, y = (int)get_local_id(0) / 16;
    const int i0 = (int)get_group_id(0) * TILE, h = (int)get_group_id(1) / D_BLOCKS;
    const int d0 = (int)get_group_id(1) % D_BLOCKS * DBLOCK;
    const size_t b = get_group_id(2);
    const int own = min(TILE, S - i0);
    rows_ptr q = q_ + q_off + ((b * S + i0) * HEADS + h) * DIM;
    __global const int *ks = ks_ + ks_off + b * S;
    __global const int *ke = ke_ + ke_off + b * S;

    float weight[4], dw[4];
    int2 range[4];
    float grad[4][4 * D_GROUPS];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
        const int i = i0 + min(4 * y + r, own - 1);
        weight[r] = w_[w_off + (W_PER_ROW ? (b * S + i) * HEADS : 0) + h];
        range[r] = 4 * y + r < own ? row_range(ks, ke, i, S, T) : (int2)(0, 0);
    }
    const int2 seen = tile_range(ks, ke, i0, own, S, T);
    bool exact = false;
    do {
        CLEAR(grad)
        dw[0] = dw[1] = dw[2] = dw[3] = 0.0f;
        for (int j0 = seen.x; j0 < seen.y; j0 += TILE) {
            rows_ptr k = k_ + k_off + ((b * T + j0) * KEY_HEADS + (KEY_HEADS == 1 ? 0 : h)) * DIM;
            const int count = min(TILE, T - j0);
            float s[4][4];
            TILE_DOTS(s, q, HEADS * DIM, own, k, KEY_HEADS * DIM, count, chunk)
#pragma unroll
            for (int r = 0; r < 4; ++r) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    const int j = j0 + 4 * x + c;
                    const float z = upstream(dscores_ + dscores_off, gate_ + gate_off, k_scale_ + k_scale_off + b * T,
                                             (b * S + i0 + 4 * y + r) * T + j, range[r], j);
                    dw[r] = z == 0.0f ? dw[r] : fma(z, RELU(s[r][c]), dw[r]);
                    p[(4 * x + c) * ROW_FLOATS + 4 * y + r] = z != 0.0f && s[r][c] > 0.0f ? z * weight[r] : 0.0f;
                }
            }
            ADD_WALKED(grad, p, k, KEY_HEADS * DIM, count, d0, chunk)
        }
        REPEAT_EXACT(exact, times_zero(grad), chunk)
    } while (exact);

    // dw: every item has the sum over its own columns; the first of a row of 16 adds them up in order.
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int r = 0; r < 4; ++r)
        p[(4 * y + r) * 16 + x] = dw[r];
    barrier(CLK_LOCAL_MEM_FENCE);
    if (x < 4 && 4 * y + x < own && d0 == 0) {
        float sum = 0.0f;
        for (int n = 0; n < 16; ++n)
            sum += p[(4 * y + x) * 16 + n];
        dw_[dw_off + (b * S + i0 + 4 * y + x) * HEADS + h] = sum;
    }
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4 * D_GROUPS; ++c)
            if (4 * y + r < own && d0 + COLUMN(x, c) < DIM)
                dq_[dq_off + ((b * S + i0 + 4 * y + r) * HEADS + h) * DIM + d0 + COLUMN(x, c)] = grad[r][c];
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) MANY_REGISTERS void
indexer_scores_backward_keys_simt(INPUTS, __global float *dk_, ulong dk_off, int S, int T, int parts)
{
    __local float chunk[CHUNK_FLOATS];
    __local float p[TILE * ROW_FLOATS];
    const int x = (int)get_local_id(0) % 16, y = (int)get_local_id(0) / 16;
    const int j0 = (int)get_group_id(0) * TILE, part = (int)get_group_id(1) % parts;
    const int key_head = (int)get_group_id(1) / parts / D_BLOCKS;
    const int d0 = (int)get_group_id(1) / parts % D_BLOCKS * DBLOCK;
    const size_t b = get_group_id(2);
    const int own = min(TILE, T - j0);
    rows_ptr k = k_ + k_off + ((b * T + j0) * KEY_HEADS + key_head) * DIM;
    __global const int *ks = ks_ + ks_off + b * S;
    __global const int *ke = ke_ + ke_off + b * S;
    __global float *dk = dk_ + dk_off + part * (get_num_groups(2) * T * KEY_HEADS * DIM);

    float grad[4][4 * D_GROUPS];
    // Causal: the first query that sees key j0 is S - T + j0.
    const int first = RANGE == 1 ? max(S - T + j0, 0) : 0;
    const int tiles = first < S ? (S - first + TILE - 1) / TILE : 0;
    const int heads = KEY_HEADS == 1 ? HEADS : 1;
    const int steps = (tiles * heads + parts - 1) / parts; // of a part
    bool exact = false;
    do {
        CLEAR(grad)
        for (int step = part * steps; step < min((part + 1) * steps, tiles * heads); ++step) {
            const int h = KEY_HEADS == 1 ? step / tiles : key_head;
            const int i0 = first + step % tiles * TILE, count = min(TILE, S - i0);
            rows_ptr q = q_ + q_off + ((b * S + i0) * HEADS + h) * DIM;
            float s[4][4];
            TILE_DOTS(s, q, HEADS * DIM, count, k, KEY_HEADS * DIM, own, chunk)
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const int i = i0 + min(4 * y + r, count - 1);
                const int2 range = 4 * y + r < count ? row_range(ks, ke, i, S, T) : (int2)(0, 0);
                const float weight = w_[w_off + (W_PER_ROW ? (b * S + i) * HEADS : 0) + h];
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    const int j = j0 + 4 * x + c;
                    const float z = upstream(dscores_ + dscores_off, gate_ + gate_off, k_scale_ + k_scale_off + b * T,
                                             (b * S + i) * T + j, range, j);
                    p[(4 * y + r) * ROW_FLOATS + 4 * x + c] = z != 0.0f && s[r][c] > 0.0f ? z * weight : 0.0f;
                }
            }
            ADD_WALKED(grad, p, q, HEADS * DIM, count, d0, chunk)
        }
        REPEAT_EXACT(exact, times_zero(grad), chunk)
    } while (exact);
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4 * D_GROUPS; ++c)
            if (4 * y + r < own && d0 + COLUMN(x, c) < DIM)
                dk[((b * T + j0 + 4 * y + r) * KEY_HEADS + key_head) * DIM + d0 + COLUMN(x, c)] = grad[r][c];
}
