// Attention over a selection, backward, on CPUs.
//
//   L = lse, with a sink log(exp(lse) + exp(sink));   P_j = exp(scale * q . k_j - L);   delta = out . dout
//   dS_j = scale * P_j (dout . v_j - delta);   dq = sum_j dS_j k_j;   dk_t += dS_j q;   dv_t += P_j dout
//   dsink = -sum over rows of exp(sink - L) delta
//
// One work-item per (split of the queries, kv head) walks its queries in order, QUERIES at a time, and adds to its own
// dk and dv, so there are neither races nor atomics; sparse_attention_backward_sum then adds the splits in order. Few
// heads to a kv head sum dk and dv key by key through an index (BY_KEY), many scatter them list by list.
//
//   partial [splits, B*Hk, T*LANES*KVEC (+ T*LANES*VVEC)]    dk of all keys, then dv of all keys
//   partial_sink [splits, B*Hk, GROUP]
//
// Called by cldsa_sparse_attention_backward (variant vec).

#include "sparse_attention_sink.clh"
#include "sparse_attention_vec.clh"

// Floats of a key's gradients in `partial`: dk and dv. In latent form dv goes into the front of dk.
#define GRAD_PITCH (LANES * (KVEC + (LATENT ? 0 : VVEC)))
#define DV_PITCH   (LANES * (LATENT ? KVEC : VVEC))

DEFINE_DOTS(dots_k, KVEC, D, K_ROW)
DEFINE_DOTS(dots_v, VVEC, DV, V_ROW)
DEFINE_WEIGHTED_SUM(weighted_sum_k, KVEC, D, K_ROW, DIVISOR(KVEC, SUM_MOST))

#ifndef BY_KEY
#define BY_KEY 0 // 1: an index says which places of a work-item's lists name a key; not in latent form
#endif

// Words of the index of one step of QUERIES lists: the number of words in use, then per key that is named, in ascending
// order, the key, the number of its places, and those: query << 16 | where its weight stands for the first head.
#define INDEX_WORDS(num_keys) (1 + 2 * min(num_keys, (uint)(QUERIES * KEYS)) + QUERIES * KEYS)

// One work-item per (QUERIES rows, batch). count has num_keys words for each of them.
__kernel void sparse_attention_backward_index(__global const int *indices_, ulong indices_off,
                                              __global const int *topk_length_, ulong topk_length_off,
                                              __global uint *count_, ulong count_off, __global uint *index_,
                                              ulong index_off, uint num_queries, uint num_keys, uint topk, uint steps)
{
    uint b = get_global_id(1);
    ulong item = (ulong)b * get_global_size(0) + get_global_id(0);
    __global uint *count = count_ + count_off + item * num_keys;
    __global uint *index = index_ + index_off + item * steps * INDEX_WORDS(num_keys);
    int next[QUERIES];
    for (int i = 0; i < QUERIES; ++i)
        next[i] = 0;
    for (uint t = 0; t < num_keys; ++t)
        count[t] = 0;
    for (uint step = 0; step < steps; ++step, index += INDEX_WORDS(num_keys)) {
        uint list[QUERIES * PLACES];
        int n[QUERIES];
        for (int i = 0; i < QUERIES; ++i) {
            ulong row = (ulong)b * num_queries + get_global_id(0) * QUERIES + i;
            int end = get_global_id(0) * QUERIES + i < num_queries ? (int)topk : 0;
#if HAS_LENGTH
            if (end > 0)
                end = min(end, topk_length_[topk_length_off + row]);
#endif
            n[i] = gather_list(indices_ + indices_off + row * topk, next + i, end, num_keys, list + i * PLACES);
            for (int j = 0; j < n[i]; ++j)
                ++count[list[i * PLACES + j]];
        }
        uint words = 1;
        for (uint t = 0; t < num_keys; ++t) {
            uint places = count[t];
            if (places == 0)
                continue;
            index[words] = t;
            index[words + 1] = places;
            count[t] = words + 2; // where the next of them goes
            words += 2 + places;
        }
        index[0] = words;
        for (int i = 0; i < QUERIES; ++i)
            for (int j = 0; j < n[i]; ++j)
                index[count[list[i * PLACES + j]]++] = (uint)i << 16 | (i * HEADS * PLACES + j);
        for (uint w = 1; w < words; w += 2 + index[w + 1])
            count[index[w]] = 0;
    }
}

// Both gradients' accumulators take registers at a time.
#define KEY_KCT DIVISOR(KVEC, 4)
#define KEY_VCT DIVISOR(VVEC, 4)

// Key by key, dk += ds q and dv += p dout of the places that the index names, KEY_KCT and KEY_VCT vectors of columns at
// a time.
INLINE void add_by_key(__global float *dk_, __global float *dv_, __global const uint *index, const float *ds,
                       const float *p, const wide *q, const wide *dout)
{
    uint words = index[0];
    for (uint w = 1; w < words; w += 2 + index[w + 1]) {
        __global wide *dk = (__global wide *)(dk_ + (ulong)index[w] * LANES * KVEC);
        __global wide *dv = (__global wide *)(dv_ + (ulong)index[w] * LANES * VVEC);
        uint end = w + 2 + index[w + 1];
        for (int k0 = 0, v0 = 0; k0 < KVEC || v0 < VVEC; k0 += KEY_KCT, v0 += KEY_VCT) {
            wide a[KEY_KCT], g[KEY_VCT];
            _Pragma("unroll") for (int c = 0; c < KEY_KCT; ++c) a[c] = k0 < KVEC ? dk[k0 + c] : (wide)(0.0f);
            _Pragma("unroll") for (int c = 0; c < KEY_VCT; ++c) g[c] = v0 < VVEC ? dv[v0 + c] : (wide)(0.0f);
            for (uint e = w + 2; e < end; ++e)
                for (int h = 0; h < HEADS; ++h) {
                    uint row = (index[e] >> 16) * HEADS + h, at = (index[e] & 0xffff) + h * PLACES;
                    wide x = (wide)(ds[at]), y = (wide)(p[at]);
                    if (k0 < KVEC)
                        _Pragma("unroll") for (int c = 0; c < KEY_KCT; ++c) a[c] = fma(x, q[row * KVEC + k0 + c], a[c]);
                    if (v0 < VVEC)
                        _Pragma("unroll") for (int c = 0; c < KEY_VCT; ++c) g[c] =
                            fma(y, dout[row * VVEC + v0 + c], g[c]);
                }
            if (k0 < KVEC)
                _Pragma("unroll") for (int c = 0; c < KEY_KCT; ++c) dk[k0 + c] = a[c];
            if (v0 < VVEC)
                _Pragma("unroll") for (int c = 0; c < KEY_VCT; ++c) dv[v0 + c] = g[c];
        }
    }
}

// gradient[t] += sum over heads of weight[h][j] * rows[h], for the j-th gathered key t, in order: a key that stands
// twice in the list is added to twice.
#define DEFINE_SCATTER(name, NVEC, PITCH, CT)                                                                          \
    INLINE void name(__global float *gradient, const uint *list, int n, const float *weight, const wide *rows)      \
    {                                                                                                                  \
        for (int j = 0; j < n; ++j) {                                                                                  \
            __global wide *to = (__global wide *)(gradient + (ulong)list[j] * PITCH);                            \
            for (int c = 0; c < NVEC; c += CT) {                                                                       \
                wide a[CT];                                                                                         \
                _Pragma("unroll") for (int v = 0; v < CT; ++v) a[v] = to[c + v];                                       \
                for (int h = 0; h < HEADS; ++h) {                                                                      \
                    wide w = (wide)(weight[h * PLACES + j]);                                                     \
                    _Pragma("unroll") for (int v = 0; v < CT; ++v) a[v] = fma(w, rows[h * NVEC + c + v], a[v]);        \
                }                                                                                                      \
                _Pragma("unroll") for (int v = 0; v < CT; ++v) to[c + v] = a[v];                                       \
            }                                                                                                          \
        }                                                                                                              \
    }
DEFINE_SCATTER(scatter_k, KVEC, LANES * KVEC, KCT)
DEFINE_SCATTER(scatter_v, VVEC, DV_PITCH, VCT)

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
    __global const uint *index_, ulong index_off, uint num_queries, uint num_keys, uint num_heads, uint topk,
    uint steps, ulong k_batch, ulong k_head, ulong v_batch, ulong v_head, float scale)
{
    const uint num_kv_heads = num_heads / GROUP;
    uint split = get_global_id(1), num_splits = get_global_size(1);
    uint kv_head = get_global_id(0) % num_kv_heads, b = get_global_id(0) / num_kv_heads;
    ulong item = (ulong)split * get_global_size(0) + get_global_id(0);
    kv_elem *k = k_ + k_off + b * k_batch + kv_head * k_head;
    kv_elem *v = v_ + v_off + b * v_batch + kv_head * v_head;
    __global float *partial = partial_ + partial_off + item * num_keys * GRAD_PITCH;
    uint blocks = (num_queries + QUERIES - 1) / QUERIES;
    uint first = (uint)((ulong)blocks * split / num_splits) * QUERIES;
    uint last = min((uint)((ulong)blocks * (split + 1) / num_splits) * QUERIES, num_queries);

    __global float *partial_v = partial + (LATENT ? 0 : (ulong)num_keys * LANES * KVEC);
    float keep[HEADS];
    for (int h = 0; h < HEADS; ++h)
        keep[h] = 1.0f;

    for (ulong i = 0; i < (ulong)num_keys * GRAD_PITCH; i += LANES)
        *(__global wide *)(partial + i) = (wide)(0.0f);
    for (uint block = 0; block < GROUP; block += HEADS) {
        uint first_head = kv_head * GROUP + block, live_heads = min((uint)HEADS, GROUP - block);
        float sink_gradient[HEADS];
        for (int h = 0; h < HEADS; ++h)
            sink_gradient[h] = 0.0f;
        for (uint s = first; s < last; s += QUERIES) {
            wide q[QUERIES * HEADS * KVEC], dq[QUERIES * HEADS * KVEC], dout[QUERIES * HEADS * VVEC];
            float log_sum[QUERIES * HEADS], delta[QUERIES * HEADS];
            int rows = (int)min((uint)QUERIES, last - s), next[QUERIES], end[QUERIES];
            for (int i = 0; i < QUERIES; ++i) {
                ulong row = (ulong)b * num_queries + s + i;
                next[i] = 0;
                end[i] = i < rows ? (int)topk : 0;
#if HAS_LENGTH
                if (i < rows)
                    end[i] = min(end[i], topk_length_[topk_length_off + row]);
#endif
                for (uint h = 0; h < HEADS && i < rows; ++h) {
                    // Heads beyond the last repeat it with an infinite L, so that their weights are 0.
                    ulong at = row * num_heads + first_head + min(h, live_heads - 1);
                    uint r = i * HEADS + h;
                    wide product = (wide)(0.0f);
                    for (int c = 0; c < KVEC; ++c) {
                        q[r * KVEC + c] = load_q(q_, q_off + at * D, c, D);
                        dq[r * KVEC + c] = (wide)(0.0f);
                    }
                    for (int c = 0; c < VVEC; ++c) {
                        wide g = load_f32(dout_, dout_off + at * DV, c, DV);
                        dout[r * VVEC + c] = g;
                        product = fma(g, load_f32(out_, out_off + at * DV, c, DV), product);
                    }
                    float lse = h < live_heads ? lse_[lse_off + at] : INFINITY;
                    delta[r] = WIDE_SUM(product);
                    log_sum[r] = lse;
#if HAS_SINK
                    float sink = attn_sink_[attn_sink_off + first_head + min(h, live_heads - 1)];
                    log_sum[r] = with_sink(lse, sink);
                    if (!isinf(log_sum[r]))
                        sink_gradient[h] -= exp(sink - log_sum[r]) * delta[r];
#endif
                }
            }
            __global const uint *index = index_ + index_off;
            index += ((ulong)b * blocks + s / QUERIES) * steps * INDEX_WORDS(num_keys);
            for (;; index += INDEX_WORDS(num_keys)) {
                uint list[QUERIES * PLACES];
                float16 p_tiles[QUERIES * HEADS * PLACES / 16], ds_tiles[QUERIES * HEADS * PLACES / 16];
                float *p = (float *)p_tiles, *ds = (float *)ds_tiles;
                int n[QUERIES], most = 0;
                for (int i = 0; i < QUERIES; ++i) {
                    __global const int *indices = indices_ + indices_off + ((ulong)b * num_queries + s + i) * topk;
                    n[i] = gather_list(indices, next + i, end[i], num_keys, list + i * PLACES);
                    most = max(most, n[i]);
                }
                if (most == 0)
                    break;
                FOR_PLACES(i, at, n, most)
                dots_k(k, list + i * PLACES + at, min(n[i] - at, STEP), q + i * HEADS * KVEC,
                       p + i * HEADS * PLACES + at);
                FOR_PLACES(i, at, n, most)
                dots_v(v, list + i * PLACES + at, min(n[i] - at, STEP), dout + i * HEADS * VVEC,
                       ds + i * HEADS * PLACES + at);
                for (int i = 0; i < QUERIES; ++i)
                    for (int h = i * HEADS; h < (i + 1) * HEADS; ++h)
                        gradients_step(p + h * PLACES, ds + h * PLACES, n[i], log_sum[h], delta[h], scale);
                FOR_PLACES(i, at, n, most)
                weighted_sum_k(k, list + i * PLACES + at, min(n[i] - at, STEP), ds + i * HEADS * PLACES + at, keep,
                               dq + i * HEADS * KVEC);
#if BY_KEY
                add_by_key(partial, partial_v, index, ds, p, q, dout);
#else
                FOR_PLACES(i, at, n, most)
                scatter_k(partial, list + i * PLACES + at, min(n[i] - at, STEP), ds + i * HEADS * PLACES + at,
                          q + i * HEADS * KVEC);
                FOR_PLACES(i, at, n, most)
                scatter_v(partial_v, list + i * PLACES + at, min(n[i] - at, STEP), p + i * HEADS * PLACES + at,
                          dout + i * HEADS * VVEC);
#endif
            }
            for (int i = 0; i < rows; ++i)
                for (uint h = 0; h < live_heads; ++h)
                    for (int c = 0; c < KVEC; ++c) {
                        ulong at = ((ulong)b * num_queries + s + i) * num_heads + first_head + h;
                        store_f32(dq[(i * HEADS + h) * KVEC + c], dq_, dq_off + at * D, c, D);
                    }
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

INLINE wide sum_splits(__global const float *from, ulong vector, uint num_splits, ulong split)
{
    wide sum = WIDE_AT(vector, from);
    for (uint i = 1; i < num_splits; ++i)
        sum += WIDE_AT(vector, from + i * split);
    return sum;
}

// dk [B,T,Hk,D] and dv [B,T,Hk,DV] from the splits; the first work-item also sums dsink [H] over splits and batch.
__kernel void sparse_attention_backward_sum(__global const float *partial_, ulong partial_off,
                                            __global const float *partial_sink_, ulong partial_sink_off,
                                            __global float *dk_, ulong dk_off, __global float *dv_, ulong dv_off,
                                            __global float *dsink_, ulong dsink_off, uint num_splits, uint num_keys,
                                            uint num_kv_heads)
{
    uint kv_head = get_global_id(1) % num_kv_heads, b = get_global_id(1) / num_kv_heads;
    uint items = get_global_size(1);
    __global const float *item = partial_ + partial_off + (ulong)get_global_id(1) * num_keys * GRAD_PITCH;
    ulong split = (ulong)items * num_keys * GRAD_PITCH;
    uint first = get_global_id(0) * ROWS, last = min(first + ROWS, num_keys);
    for (ulong t = first; t < last; ++t) {
        ulong to = ((ulong)b * num_keys + t) * num_kv_heads + kv_head;
        for (int c = 0; c < KVEC; ++c)
            store_f32(sum_splits(item, t * KVEC + c, num_splits, split), dk_, dk_off + to * D, c, D);
#if !LATENT
        for (int c = 0; c < VVEC; ++c)
            store_f32(sum_splits(item, num_keys * KVEC + t * VVEC + c, num_splits, split), dv_, dv_off + to * DV, c,
                      DV);
#endif
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
