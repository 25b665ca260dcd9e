// Attention over a selection, forward, on CPUs.
//
//   out[b,s,h,:] = sum_j p_j v[b,t_j,h',:],  p = softmax_j(scale * q[b,s,h,:] . k[b,t_j,h',:]),  t = indices[b,s,:]
//
// One work-item per (QUERIES rows s, HEADS heads of one kv head h'); online softmax over KEYS gathered rows at a time:
//
//   list    the next valid indices of each row                            (-1 and hostile ones never get here)
//   dots    [QUERIES][HEADS][KEYS]  q . k                                 rows of k in L1 for all heads and queries
//   p       exp(dots - running maximum)                                   and its running sum
//   sum     [QUERIES][HEADS][DV] = sum * exp(old maximum - new) + p v     rows of v in L1
//
// Work-items of a kv head are neighbours in the launch, so its packed rows stay in L2. Called by
// cldsa_sparse_attention (variant vec).

#include "sparse_attention_vec.clh"

#ifndef O_DTYPE
#define O_DTYPE F32
#endif
#ifndef HAS_LSE
#define HAS_LSE 1 // 1: lse is wanted
#endif

DEFINE_DOTS(dots_k, KVEC, D, K_ROW)
DEFINE_WEIGHTED_SUM(weighted_sum_v, VVEC, DV, V_ROW, DIVISOR(VVEC, SUM_MOST))

// Scores to weights in place for one head; lanes from n up to a multiple of 16 become 0. Returns the factor by which
// earlier sums shrink.
INLINE float softmax_step(float *dots, int n, float *maximum, float *sum)
{
    for (int j = n; j % 16 != 0; ++j)
        dots[j] = -INFINITY;
    float16 *tile = (float16 *)dots, top = tile[0];
    for (int i = 1; 16 * i < n; ++i)
        top = MAX_OF(tile[i], top);
    float m = max16(top), old = *maximum;
    m = MAX_OF(m, old);
    float centre = m == -INFINITY ? 0.0f : m; // all -inf: weights of 0, not NaN
    float16 z = (float16)(0.0f);
    for (int i = 0; 16 * i < n; ++i) {
        tile[i] = exp_fast16(tile[i] - centre);
        z += tile[i];
    }
    float keep = exp_fast(old - centre);
    *maximum = m;
    *sum = *sum * keep + sum16(z);
    return keep;
}

// Whole f32 vectors go straight out: by way of an array, its loads would wait for all earlier stores to leave the CPU.
#define STORE_WHOLE(dt)  CLDSA_CAT(STORE_WHOLE_, dt)
#define STORE_WHOLE_F32  1
#define STORE_WHOLE_F16  0
#define STORE_WHOLE_BF16 0

INLINE void store_out(wide v, __global ELEM(O_DTYPE) *out, ulong at, int c)
{
    bool whole = DV % 16 == 0 || LANES * c + LANES <= DV;
    if (STORE_WHOLE(O_DTYPE) && whole) {
        *(__global wide_loose *)((__global float *)out + at + LANES * c) = v;
        return;
    }
    float x[LANES];
    WIDE_TO(v, x);
    int end = min(LANES, DV - LANES * c);
    for (int i = 0; i < end; ++i)
        STORE(O_DTYPE, out, at + LANES * c + i, x[i]);
}

__kernel void sparse_attention_vec(__global const ELEM(Q_DTYPE) *q_, ulong q_off, kv_elem *k_, ulong k_off,
                                   kv_elem *v_, ulong v_off, __global const int *indices_, ulong indices_off,
                                   __global const int *topk_length_, ulong topk_length_off,
                                   __global const float *attn_sink_, ulong attn_sink_off, __global ELEM(O_DTYPE) *out_,
                                   ulong out_off, __global float *lse_, ulong lse_off, uint num_queries, uint num_keys,
                                   uint num_heads, uint topk, ulong k_batch, ulong k_head, ulong v_batch, ulong v_head,
                                   float scale)
{
    const uint num_kv_heads = num_heads / GROUP, head_blocks = (GROUP + HEADS - 1) / HEADS;
    uint block = get_global_id(1) % head_blocks, kv_head = get_global_id(1) / head_blocks % num_kv_heads;
    uint b = get_global_id(1) / (head_blocks * num_kv_heads);
    uint first_head = kv_head * GROUP + block * HEADS, live_heads = min((uint)HEADS, GROUP - block * HEADS);
    kv_elem *k = k_ + k_off + b * k_batch + kv_head * k_head;
    kv_elem *v = v_ + v_off + b * v_batch + kv_head * v_head;

    uint first = get_global_id(0) * QUERIES;
    int rows = (int)min((uint)QUERIES, num_queries - first);
    wide q[QUERIES * HEADS * KVEC], sum[QUERIES * HEADS * VVEC];
    float maximum[QUERIES * HEADS], total[QUERIES * HEADS];
    int next[QUERIES], end[QUERIES];
    for (int i = 0; i < QUERIES; ++i) {
        ulong row = (ulong)b * num_queries + first + i;
        next[i] = 0;
        end[i] = i < rows ? (int)topk : 0;
#if HAS_LENGTH
        if (i < rows)
            end[i] = min(end[i], topk_length_[topk_length_off + row]);
#endif
        for (int h = 0; h < HEADS && i < rows; ++h) {
            ulong at = q_off + (row * num_heads + first_head + min((uint)h, live_heads - 1)) * D;
            for (int c = 0; c < KVEC; ++c)
                q[(i * HEADS + h) * KVEC + c] = scale * load_q(q_, at, c, D);
            for (int c = 0; c < VVEC; ++c)
                sum[(i * HEADS + h) * VVEC + c] = (wide)(0.0f);
            maximum[i * HEADS + h] = -INFINITY;
            total[i * HEADS + h] = 0.0f;
        }
    }
    for (;;) {
        uint list[QUERIES * PLACES];
        float16 tiles[QUERIES * HEADS * PLACES / 16];
        float *weight = (float *)tiles, keep[QUERIES * HEADS];
        int n[QUERIES], most = 0;
        for (int i = 0; i < QUERIES; ++i) {
            __global const int *indices = indices_ + indices_off + ((ulong)b * num_queries + first + i) * topk;
            n[i] = gather_list(indices, next + i, end[i], num_keys, list + i * PLACES);
            most = max(most, n[i]);
        }
        if (most == 0)
            break;
        FOR_PLACES(i, at, n, most)
        dots_k(k, list + i * PLACES + at, min(n[i] - at, STEP), q + i * HEADS * KVEC, weight + i * HEADS * PLACES + at);
        for (int i = 0; i < QUERIES; ++i)
            for (int h = i * HEADS; h < (i + 1) * HEADS && n[i] > 0; ++h)
                keep[h] = softmax_step(weight + h * PLACES, n[i], maximum + h, total + h);
        FOR_PLACES(i, at, n, most)
        {
            weighted_sum_v(v, list + i * PLACES + at, min(n[i] - at, STEP), weight + i * HEADS * PLACES + at,
                           keep + i * HEADS, sum + i * HEADS * VVEC);
            for (int h = i * HEADS; h < (i + 1) * HEADS; ++h)
                keep[h] = 1.0f;
        }
    }
    for (int i = 0; i < rows; ++i)
        for (uint h = 0; h < live_heads; ++h) {
            ulong at = ((ulong)b * num_queries + first + i) * num_heads + first_head + h;
            float m = maximum[i * HEADS + h], z = total[i * HEADS + h];
            float lse = z == 0.0f ? INFINITY : m + log(z);
            float factor = z == 0.0f ? 0.0f : 1.0f / z;
#if HAS_SINK
            if (z != 0.0f)
                factor /= 1.0f + exp(attn_sink_[attn_sink_off + first_head + h] - lse);
#endif
            for (int c = 0; c < VVEC; ++c)
                store_out(sum[(i * HEADS + h) * VVEC + c] * factor, out_ + out_off, at * DV, c);
#if HAS_LSE
            lse_[lse_off + at] = lse;
#endif
        }
}
