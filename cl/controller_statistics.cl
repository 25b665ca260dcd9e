// The controller's statistics over hidden states h [B,S,D], and everything after them.
//
//   controller_moments_columns   mean[b,d] and the sum of squared deviations m2[b,d] over positions (two passes, so
//                                a large mean costs no accuracy)
//   controller_moments           diversity = mean_d m2/(S-1);  variance = (sum_d m2 + S sum_d (mean - mean of all)^2)
//                                / (S*D - 1)
//   controller_perplexity_rows   per tile of ROWS positions: sum of (LN(pred[s,:]) - h[s+1,:])^2, s < S-1
//   controller_perplexity        mean of the tiles' sums, in order
//   controller_entropy           -sum_j p' ln p', p' = 1e-8 + the mean of the score kernels' partial sums
//   controller_k                 three factors, their mix, and k (see include/cldsa/controller.h)
//   keep_rows                    k per row from a ratio per sequence
//
// Work-groups of WG work-items share a column block, row tile or sequence and sum through local memory; WG = 1 on
// CPUs, where the VEC lanes of a work-item do that work. Called by the operations of host/ops/controller.c.

#include "inline.clh"

#ifndef WG
#define WG 1 // work-items per group, a power of two (1 on CPUs, 64 to 256 on GPUs)
#endif
#ifndef VEC
#define VEC 16 // columns per load (1 on GPUs for moments, else 4; 16 on CPUs)
#endif
#ifndef ROWS
#define ROWS 32 // positions per work-group of controller_perplexity_rows (8 to 64)
#endif
#ifndef CAUSAL
#define CAUSAL 0 // 1: row i of keep_rows sees i + 1 keys
#endif

// ---- sums over a work-group -----------------------------------------------------------------------------------------

// Every work-item gets the sum of all `value`s, always added in the same order.
inline float group_sum(float value, __local float *scratch)
{
#if WG == 1
    return value;
#else
    uint lane = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE); // earlier readers of scratch are done
    scratch[lane] = value;
    for (uint width = WG / 2; width > 0; width /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane < width)
            scratch[lane] += scratch[lane + width];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return scratch[0];
#endif
}

// ---- moments --------------------------------------------------------------------------------------------------------

#ifndef LANES
#define LANES 16 // columns per group of controller_moments_columns (16 on CPUs, 32 on GPUs)
#endif

#if WG == 1

// CPUs: a work-item owns LANES = 16 columns and keeps them in a register.
__kernel void controller_moments_columns(__global const float *h_, ulong h_off, __global float *mean_, ulong mean_off,
                                         __global float *m2_, ulong m2_off, uint num_positions, uint dim)
{
    uint c = get_global_id(0) * 16, b = get_global_id(1);
    __global const float *h = h_ + h_off + (ulong)b * num_positions * dim + c;
    __global float *mean_out = mean_ + mean_off + (ulong)b * dim + c;
    __global float *m2_out = m2_ + m2_off + (ulong)b * dim + c;
    if (c + 16 <= dim) {
        float16 sum = (float16)(0.0f), m2 = (float16)(0.0f);
        for (uint s = 0; s < num_positions; ++s)
            sum += vload16(0, h + (ulong)s * dim);
        float16 mean = sum / (float)num_positions;
        for (uint s = 0; s < num_positions; ++s) {
            float16 x = vload16(0, h + (ulong)s * dim) - mean;
            m2 = fma(x, x, m2);
        }
        vstore16(mean, 0, mean_out);
        vstore16(m2, 0, m2_out);
        return;
    }
    for (uint i = 0; i + c < dim; ++i) {
        float sum = 0.0f, m2 = 0.0f;
        for (uint s = 0; s < num_positions; ++s)
            sum += h[(ulong)s * dim + i];
        float mean = sum / (float)num_positions;
        for (uint s = 0; s < num_positions; ++s) {
            float x = h[(ulong)s * dim + i] - mean;
            m2 = fma(x, x, m2);
        }
        mean_out[i] = mean;
        m2_out[i] = m2;
    }
}

#else

// GPUs: LANES columns side by side, WG / LANES work-items down each column.
inline float column_sum(float value, __local float *scratch)
{
    uint lane = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    scratch[lane] = value;
    for (uint width = WG / 2; width >= LANES; width /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane < width)
            scratch[lane] += scratch[lane + width];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return scratch[lane % LANES];
}

__kernel void controller_moments_columns(__global const float *h_, ulong h_off, __global float *mean_, ulong mean_off,
                                         __global float *m2_, ulong m2_off, uint num_positions, uint dim)
{
    __local float scratch[WG];
    uint lane = get_local_id(0), c = get_group_id(0) * LANES + lane % LANES, b = get_global_id(1);
    uint first = c < dim ? lane / LANES : num_positions; // work-items beyond the last column sum nothing
    __global const float *h = h_ + h_off + (ulong)b * num_positions * dim + c;

    float sum = 0.0f, m2 = 0.0f;
    for (uint s = first; s < num_positions; s += WG / LANES)
        sum += h[(ulong)s * dim];
    float mean = column_sum(sum, scratch) / (float)num_positions;
    for (uint s = first; s < num_positions; s += WG / LANES) {
        float x = h[(ulong)s * dim] - mean;
        m2 = fma(x, x, m2);
    }
    m2 = column_sum(m2, scratch);
    if (lane < LANES && c < dim) {
        mean_[mean_off + (ulong)b * dim + c] = mean;
        m2_[m2_off + (ulong)b * dim + c] = m2;
    }
}

#endif

__kernel void controller_moments(__global const float *mean_, ulong mean_off, __global const float *m2_, ulong m2_off,
                                 __global float *diversity_, ulong diversity_off, __global float *variance_,
                                 ulong variance_off, uint num_positions, uint dim)
{
    __local float scratch[WG];
    uint lane = get_local_id(0), b = get_group_id(0);
    __global const float *mean = mean_ + mean_off + (ulong)b * dim;
    __global const float *m2 = m2_ + m2_off + (ulong)b * dim;
    float sum = 0.0f, within = 0.0f, between = 0.0f;
    for (uint d = lane; d < dim; d += WG) {
        sum += mean[d];
        within += m2[d];
    }
    float centre = group_sum(sum, scratch) / (float)dim;
    within = group_sum(within, scratch);
    for (uint d = lane; d < dim; d += WG) {
        float x = mean[d] - centre;
        between = fma(x, x, between);
    }
    between = group_sum(between, scratch) * (float)num_positions;
    if (lane == 0) {
        diversity_[diversity_off + b] = within / ((float)dim * (float)(num_positions - 1));
        variance_[variance_off + b] = (within + between) / ((float)num_positions * (float)dim - 1.0f);
    }
}

// ---- perplexity -----------------------------------------------------------------------------------------------------

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#if VEC == 1
#define FLOATV float
#define VLOAD(p) (*(p))
#else
#define FLOATV CAT(float, VEC)
#define VLOAD(p) CAT(vload, VEC)(0, p)
#endif

inline float lanes_sum(FLOATV v)
{
    float lane[VEC];
#if VEC == 1
    lane[0] = v;
#else
    CAT(vstore, VEC)(v, 0, lane);
#endif
    for (int width = VEC / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i)
            lane[i] += lane[i + width];
    return lane[0];
}

// Sums expression(s) over this work-item's share of a row: EACH on FLOATVs at column c, EACH1 on single columns t.
#define ROW_SUM(total, EACH, EACH1)                                                                                    \
    {                                                                                                                  \
        FLOATV sum_ = (FLOATV)(0.0f);                                                                                  \
        float tail_ = 0.0f;                                                                                            \
        for (uint c = lane * VEC; c < dim; c += WG * VEC) {                                                            \
            if (c + VEC <= dim)                                                                                        \
                sum_ += EACH;                                                                                          \
            else                                                                                                       \
                for (uint t = c; t < dim; ++t)                                                                         \
                    tail_ += EACH1;                                                                                    \
        }                                                                                                              \
        total = lanes_sum(sum_) + tail_;                                                                               \
    }

#define SQUARE(x) ((x) * (x))

__kernel void controller_perplexity_rows(__global const float *pred_, ulong pred_off, __global const float *h_,
                                         ulong h_off, __global const float *weight_, ulong weight_off,
                                         __global const float *bias_, ulong bias_off, __global float *partial_,
                                         ulong partial_off, uint num_positions, uint dim, float eps)
{
    __local float scratch[WG];
    __global const float *weight = weight_ + weight_off, *bias = bias_ + bias_off;
    uint lane = get_local_id(0), tile = get_group_id(0), b = get_global_id(1);
    float total = 0.0f;
    uint end = min(tile * ROWS + ROWS, num_positions - 1);
    for (uint s = tile * ROWS; s < end; ++s) {
        __global const float *p = pred_ + pred_off + ((ulong)b * num_positions + s) * dim;
        __global const float *next = h_ + h_off + ((ulong)b * num_positions + s + 1) * dim;
        float mean, m2, error;
        ROW_SUM(mean, VLOAD(p + c), p[t]);
        mean = group_sum(mean, scratch) / (float)dim;
        ROW_SUM(m2, SQUARE(VLOAD(p + c) - mean), SQUARE(p[t] - mean));
        float scale = rsqrt(group_sum(m2, scratch) / (float)dim + eps);
        ROW_SUM(error, SQUARE((VLOAD(p + c) - mean) * scale * VLOAD(weight + c) + VLOAD(bias + c) - VLOAD(next + c)),
                SQUARE((p[t] - mean) * scale * weight[t] + bias[t] - next[t]));
        total += error;
    }
    total = group_sum(total, scratch);
    if (lane == 0)
        partial_[partial_off + (ulong)b * get_num_groups(0) + tile] = total;
}

__kernel void controller_perplexity(__global const float *partial_, ulong partial_off, __global float *perplexity_,
                                    ulong perplexity_off, uint num_tiles, uint num_positions, uint dim)
{
    __local float scratch[WG];
    uint lane = get_local_id(0), b = get_group_id(0);
    float sum = 0.0f;
    for (uint i = lane; i < num_tiles; i += WG)
        sum += partial_[partial_off + (ulong)b * num_tiles + i];
    sum = group_sum(sum, scratch);
    if (lane == 0)
        perplexity_[perplexity_off + b] = sum / ((float)(num_positions - 1) * (float)dim);
}

// ---- entropy --------------------------------------------------------------------------------------------------------

// partial [B, num_partials, S]: sums of attention weights over some heads and queries, from controller_entropy_*.cl.
__kernel void controller_entropy(__global const float *partial_, ulong partial_off, __global float *entropy_,
                                 ulong entropy_off, uint num_partials, uint num_positions, float scale)
{
    __local float scratch[WG];
    uint lane = get_local_id(0), b = get_group_id(0);
    __global const float *partial = partial_ + partial_off + (ulong)b * num_partials * num_positions;
    FLOATV sum = (FLOATV)(0.0f);
    float tail = 0.0f;
    for (uint j = lane * VEC; j < num_positions; j += WG * VEC) {
        if (j + VEC <= num_positions) {
            FLOATV p = (FLOATV)(0.0f);
            for (uint i = 0; i < num_partials; ++i)
                p += VLOAD(partial + (ulong)i * num_positions + j);
            p = fma(p, (FLOATV)(scale), (FLOATV)(1e-8f));
            sum -= p * log(p);
        } else {
            for (uint t = j; t < num_positions; ++t) {
                float p = 0.0f;
                for (uint i = 0; i < num_partials; ++i)
                    p += partial[(ulong)i * num_positions + t];
                p = fma(p, scale, 1e-8f);
                tail -= p * log(p);
            }
        }
    }
    float total = group_sum(lanes_sum(sum) + tail, scratch);
    if (lane == 0)
        entropy_[entropy_off + b] = total;
}

// ---- k --------------------------------------------------------------------------------------------------------------

inline float sigmoid(float x)
{
    return 1.0f / (1.0f + exp(-x));
}

inline float dot_row(__global const float *a, __global const float *b, uint n)
{
    float16 sum = (float16)(0.0f);
    float tail = 0.0f;
    uint i = 0;
    for (; i + 16 <= n; i += 16)
        sum = fma(vload16(0, a + i), vload16(0, b + i), sum);
    for (; i < n; ++i)
        tail = fma(a[i], b[i], tail);
    float8 s8 = sum.lo + sum.hi;
    float4 s4 = s8.lo + s8.hi;
    return s4.x + s4.y + s4.z + s4.w + tail;
}

// One work-group per sequence; its work-items share the hidden units of the length network.
__kernel void controller_k(__global const float *mean_, ulong mean_off, __global const float *diversity_,
                           ulong diversity_off, __global const float *perplexity_, ulong perplexity_off,
                           __global const float *variance_, ulong variance_off, __global const float *entropy_,
                           ulong entropy_off, __global const float *length_w1_, ulong length_w1_off,
                           __global const float *length_b1_, ulong length_b1_off, __global const float *length_w2_,
                           ulong length_w2_off, __global const float *length_b2_, ulong length_b2_off,
                           __global const float *combiner_w_, ulong combiner_w_off, __global const float *combiner_b_,
                           ulong combiner_b_off, __global const float *adapter_w1_, ulong adapter_w1_off,
                           __global const float *adapter_b1_, ulong adapter_b1_off, __global const float *adapter_w2_,
                           ulong adapter_w2_off, __global const float *adapter_b2_, ulong adapter_b2_off,
                           __global const float *mix_, ulong mix_off, __global float *factors_, ulong factors_off,
                           __global float *ratio_, ulong ratio_off, __global int *k_, ulong k_off, uint batch,
                           uint dim, uint length_width, uint adapter_width, int seq_len, int max_seq_len, int use)
{
    __local float scratch[WG];
    uint lane = get_local_id(0), b = get_group_id(0);
    __global const float *mean = mean_ + mean_off + (ulong)b * dim;
    __global const float *w1 = length_w1_ + length_w1_off;

    float sum = 0.0f;
    for (uint u = lane; u < length_width; u += WG) {
        float unit = length_b1_[length_b1_off + u] + dot_row(w1 + (ulong)u * dim, mean, dim);
        sum = fma(length_w2_[length_w2_off + u], fmax(unit, 0.0f), sum);
    }
    float length = sigmoid(group_sum(sum, scratch) + length_b2_[length_b2_off]);

    sum = 0.0f;
    for (uint u = lane; u < adapter_width; u += WG) {
        float unit = fma((float)seq_len / (float)max_seq_len, adapter_w1_[adapter_w1_off + u],
                         adapter_b1_[adapter_b1_off + u]);
        sum = fma(adapter_w2_[adapter_w2_off + u], fmax(unit, 0.0f), sum);
    }
    float adapted = sigmoid(group_sum(sum, scratch) + adapter_b2_[adapter_b2_off]);

    sum = 0.0f;
    for (uint i = lane; i < batch; i += WG) // all sequences share one entropy factor
        sum += entropy_[entropy_off + i];
    float entropy = sigmoid(group_sum(sum, scratch) / (float)batch);
    if (lane != 0)
        return;

    __global const float *combiner = combiner_w_ + combiner_w_off;
    float complexity = sigmoid(combiner[0] * diversity_[diversity_off + b] +
                               combiner[1] * perplexity_[perplexity_off + b] +
                               combiner[2] * variance_[variance_off + b] + combiner_b_[combiner_b_off]);
    __global const float *mix = mix_ + mix_off;
    float wl = use & 1 ? mix[1] : 0.0f, wc = use & 2 ? mix[2] : 0.0f, we = use & 4 ? mix[3] : 0.0f;
    float blend = (wl * length * adapted + wc * complexity + we * entropy) / (wl + wc + we);
    float ratio = clamp(mix[0] * blend, 0.1f, 0.9f);

    __global float *factors = factors_ + factors_off + (ulong)b * 3;
    factors[0] = length;
    factors[1] = complexity;
    factors[2] = entropy;
    ratio_[ratio_off + b] = ratio;
    k_[k_off + b] = clamp(convert_int_sat_rte((float)seq_len * ratio), 1, seq_len - 1);
}

__kernel void keep_rows(__global const float *ratio_, ulong ratio_off, __global int *k_rows_, ulong k_rows_off,
                        uint batch, uint num_rows)
{
    uint i = get_global_id(0), b = get_global_id(1);
    if (i >= num_rows || b >= batch)
        return;
    int visible = CAUSAL ? (int)i + 1 : (int)num_rows;
    float keep = ratio_[ratio_off + b] * (float)visible;
    k_rows_[k_rows_off + (ulong)b * num_rows + i] = clamp(convert_int_sat_rte(keep), 1, visible);
}
