// Attention over a selection, backward, on CPUs.
//
//   L = lse, with a sink log(exp(lse) + exp(sink));   P_j = exp(scale * q . k_j - L);   delta = out . dout
//   dS_j = scale * P_j (dout . v_j - delta);   dq = sum_j dS_j k_j;   dk_t += dS_j q;   dv_t += P_j dout
//   dsink = -sum over rows of exp(sink - L) delta
//
// One work-item per (split of the queries, kv head) walks its queries in order and adds to its own dk and dv, so there
// are neither races nor atomics; sparse_attention_backward_sum then adds the splits in order.
//
//   partial [splits, B*Hk, T, 16*KVEC (+ 16*VVEC)]    dk ++ dv of a key side by side: one pair of rows in cache
//   partial_sink [splits, B*Hk, GROUP]
//
// Called by cldsa_sparse_attention_backward (variant vec).

#include "sparse_attention_sink.clh"
#include "sparse_attention_vec.clh"

// A key's gradients in `partial`: dk, then dv. In latent form dv goes into the front of dk.
#define GRAD_PITCH (16 * (KVEC + (LATENT ? 0 : VVEC)))
#define DV_AT (LATENT ? 0 : 16 * KVEC)

DEFINE_DOTS(dots_k, KVEC, D, K_ROW)
DEFINE_DOTS(dots_v, VVEC, DV, V_ROW)
DEFINE_WEIGHTED_SUM(weighted_sum_k, KVEC, D, K_ROW, KCT)

// What a work-item keeps of one query for HEADS heads.
typedef struct {
    float16 q[HEADS * KVEC], dout[HEADS * VVEC], dq[HEADS * KVEC];
    float log_sum[HEADS], delta[HEADS];
} query_rows;

// gradient[t] += sum over heads of weight[h][j] * rows[h], for the j-th gathered key t, in order: a key that stands
// twice in the list is added to twice.
#define DEFINE_SCATTER(name, NVEC, CT)                                                                                 \
    INLINE void name(__global float *gradient, const uint *list, int n, const float *weight, const float16 *rows)      \
    {                                                                                                                  \
        for (int j = 0; j < n; ++j) {                                                                                  \
            __global float16 *to = (__global float16 *)(gradient + (ulong)list[j] * GRAD_PITCH);                       \
            for (int c = 0; c < NVEC; c += CT) {                                                                       \
                float16 a[CT];                                                                                         \
                _Pragma("unroll") for (int v = 0; v < CT; ++v) a[v] = to[c + v];                                       \
                for (int h = 0; h < HEADS; ++h) {                                                                      \
                    float16 w = (float16)(weight[h * KEYS + j]);                                                       \
                    _Pragma("unroll") for (int v = 0; v < CT; ++v) a[v] = fma(w, rows[h * NVEC + c + v], a[v]);        \
                }                                                                                                      \
                _Pragma("unroll") for (int v = 0; v < CT; ++v) to[c + v] = a[v];                                       \
            }                                                                                                          \
        }                                                                                                              \
    }
DEFINE_SCATTER(scatter_k, KVEC, KCT)
DEFINE_SCATTER(scatter_v, VVEC, VCT)

// dots of q.k and dout.v to P and dS for one head; lanes from n up to a multiple of 16 become 0.
INLINE void gradients_step(float *p, float *ds, int n, float log_sum, float delta, float scale)
{
    for (int j = n; j % 16 != 0; ++j) {
        p[j] = -INFINITY;
        ds[j] = 0.0f;
    }
    for (int j = 0; j < n; j += 16) {
        float16 *weight = (float16 *)(p + j), *gradient = (float16 *)(ds + j);
        *weight = exp_fast16(fma(*weight, (float16)(scale), (float16)(-log_sum)));
        *gradient = *weight * (*gradient - delta) * scale;
    }
}

__kernel void sparse_attention_backward_vec(
    __global const ELEM(Q_DTYPE) *q_, ulong q_off, kv_elem *k_, ulong k_off, kv_elem *v_, ulong v_off,
    __global const int *indices_, ulong indices_off, __global const int *topk_length_, ulong topk_length_off,
    __global const float *attn_sink_, ulong attn_sink_off, __global const float *out_, ulong out_off,
    __global const float *lse_, ulong lse_off, __global const float *dout_, ulong dout_off, __global float *dq_,
    ulong dq_off, __global float *partial_, ulong partial_off, __global float *partial_sink_, ulong partial_sink_off,
    uint num_queries, uint num_keys, uint num_heads, uint topk, ulong k_batch, ulong k_head, ulong v_batch,
    ulong v_head, float scale)
{
    const uint num_kv_heads = num_heads / GROUP;
    uint split = get_global_id(1), num_splits = get_global_size(1);
    uint kv_head = get_global_id(0) % num_kv_heads, b = get_global_id(0) / num_kv_heads;
    ulong item = (ulong)split * get_global_size(0) + get_global_id(0);
    kv_elem *k = k_ + k_off + b * k_batch + kv_head * k_head;
    kv_elem *v = v_ + v_off + b * v_batch + kv_head * v_head;
    __global float *partial = partial_ + partial_off + item * num_keys * GRAD_PITCH;
    uint first = (uint)((ulong)num_queries * split / num_splits);
    uint last = (uint)((ulong)num_queries * (split + 1) / num_splits);

    for (ulong i = 0; i < (ulong)num_keys * GRAD_PITCH; i += 16)
        *(__global float16 *)(partial + i) = (float16)(0.0f);
    for (uint block = 0; block < GROUP; block += HEADS) {
        uint first_head = kv_head * GROUP + block, live_heads = min((uint)HEADS, GROUP - block);
        float sink_gradient[HEADS];
        for (int h = 0; h < HEADS; ++h)
            sink_gradient[h] = 0.0f;
        for (uint s = first; s < last; ++s) {
            ulong row = (ulong)b * num_queries + s;
            query_rows r;
            for (uint h = 0; h < HEADS; ++h) {
                // Heads beyond the last repeat it with an infinite L, so that their weights are 0.
                ulong at = row * num_heads + first_head + min(h, live_heads - 1);
                float16 product = (float16)(0.0f);
                for (int c = 0; c < KVEC; ++c) {
                    r.q[h * KVEC + c] = load_q(q_, q_off + at * D, c, D);
                    PREFETCH(q_ + q_off + (at + num_heads) * D + 16 * c); // the next row's: nothing else asks for it
                    r.dq[h * KVEC + c] = (float16)(0.0f);
                }
                for (int c = 0; c < VVEC; ++c) {
                    float16 g = load_f32(dout_, dout_off + at * DV, c, DV);
                    r.dout[h * VVEC + c] = g;
                    PREFETCH(dout_ + dout_off + (at + num_heads) * DV + 16 * c);
                    PREFETCH(out_ + out_off + (at + num_heads) * DV + 16 * c);
                    product = fma(g, load_f32(out_, out_off + at * DV, c, DV), product);
                }
                float lse = h < live_heads ? lse_[lse_off + at] : INFINITY;
                r.delta[h] = sum16(product);
                r.log_sum[h] = lse;
#if HAS_SINK
                float sink = attn_sink_[attn_sink_off + first_head + min(h, live_heads - 1)];
                r.log_sum[h] = with_sink(lse, sink);
                if (!isinf(r.log_sum[h]))
                    sink_gradient[h] -= exp(sink - r.log_sum[h]) * r.delta[h];
#endif
            }
            int end = (int)topk;
#if HAS_LENGTH
            end = min(end, topk_length_[topk_length_off + row]);
#endif
            for (int next = 0; next < end;) {
                uint list[KEYS];
                float16 p_tiles[HEADS * KEYS / 16], ds_tiles[HEADS * KEYS / 16];
                float *p = (float *)p_tiles, *ds = (float *)ds_tiles, keep[HEADS];
                int n = gather_list(indices_ + indices_off + row * topk, &next, end, num_keys, list);
                if (n == 0)
                    break;
                dots_k(k, list, n, r.q, p);
                dots_v(v, list, n, r.dout, ds);
                for (int h = 0; h < HEADS; ++h) {
                    gradients_step(p + h * KEYS, ds + h * KEYS, n, r.log_sum[h], r.delta[h], scale);
                    keep[h] = 1.0f;
                }
                weighted_sum_k(k, list, n, ds, keep, r.dq);
                scatter_k(partial, list, n, ds, r.q);
                scatter_v(partial + DV_AT, list, n, p, r.dout);
            }
            for (uint h = 0; h < live_heads; ++h)
                for (int c = 0; c < KVEC; ++c)
                    store_f32(r.dq[h * KVEC + c], dq_, dq_off + (row * num_heads + first_head + h) * D, c, D);
        }
#if HAS_SINK
        for (uint h = 0; h < live_heads; ++h)
            partial_sink_[partial_sink_off + item * GROUP + block + h] = sink_gradient[h];
#endif
    }
}

#ifndef ROWS
#define ROWS 16 // keys per work-item of the sum (8 to 64)
#endif
#ifndef WANT_SINK
#define WANT_SINK 0 // 1: the sum writes dsink
#endif

// dk [B,T,Hk,D] and dv [B,T,Hk,DV] from the splits; the first work-item also sums dsink [H] over splits and batch.
__kernel void sparse_attention_backward_sum(__global const float *partial_, ulong partial_off,
                                            __global const float *partial_sink_, ulong partial_sink_off,
                                            __global float *dk_, ulong dk_off, __global float *dv_, ulong dv_off,
                                            __global float *dsink_, ulong dsink_off, uint num_splits, uint num_keys,
                                            uint num_kv_heads)
{
    uint kv_head = get_global_id(1) % num_kv_heads, b = get_global_id(1) / num_kv_heads;
    uint items = get_global_size(1);
    uint first = get_global_id(0) * ROWS, last = min(first + ROWS, num_keys);
    for (uint t = first; t < last; ++t) {
        ulong at = partial_off + ((ulong)get_global_id(1) * num_keys + t) * GRAD_PITCH;
        ulong to = ((ulong)b * num_keys + t) * num_kv_heads + kv_head;
        for (int c = 0; c < GRAD_PITCH / 16; ++c) {
            float16 sum = vload16(c, partial_ + at);
            for (uint i = 1; i < num_splits; ++i)
                sum += vload16(c, partial_ + at + (ulong)i * items * num_keys * GRAD_PITCH);
            if (c < KVEC)
                store_f32(sum, dk_, dk_off + to * D, c, D);
            else
                store_f32(sum, dv_, dv_off + to * DV, c - KVEC, DV);
        }
    }
#if WANT_SINK
    if (get_global_id(0) == 0 && get_global_id(1) == 0)
        for (uint h = 0; h < num_kv_heads * GROUP; ++h) {
            float sum = 0.0f;
            for (uint i = 0; i < num_splits * (items / num_kv_heads); ++i)
                sum += partial_sink_[partial_sink_off + (ulong)i * num_kv_heads * GROUP + h];
            dsink_[dsink_off + h] = sum;
        }
#endif
}
