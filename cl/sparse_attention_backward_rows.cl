// What the gradients of attention over a selection need of every row and head, and the sinks' gradients, on GPUs.
//
//   L = lse, with a sink log(exp(lse) + exp(sink));   delta = out . dout
//   dsink = -sum over rows of exp(sink - L) delta
//
//   backward_rows  (L, delta) per row and head
//   backward_sink  one work-group per head
// Called by cldsa_sparse_attention_backward (variants simt and tile).

#include "inline.clh"
#include "sparse_attention_sink.clh"

#ifndef DV
#define DV 64 // columns of out
#endif
#ifndef HAS_SINK
#define HAS_SINK 0 // 1: attn_sink is given
#endif

#define WG 128

// Tree sum of WG values; every work-item gets it.
inline float group_sum(float value, __local float *scratch)
{
    uint lane = get_local_id(0);
    scratch[lane] = value;
    for (uint width = WG / 2; width > 0; width /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane < width)
            scratch[lane] += scratch[lane + width];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return scratch[0];
}

// rows[i] = (L, delta) of row i = (b*S + s)*H + h.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
backward_rows(__global const float *out_, ulong out_off, __global const float *dout_, ulong dout_off,
              __global const float *lse_, ulong lse_off, __global const float *attn_sink_, ulong attn_sink_off,
              __global float *rows_, ulong rows_off, uint num_heads)
{
    __local float scratch[WG];
    ulong i = get_group_id(0);
    float sum = 0.0f;
    for (uint c = get_local_id(0); c < DV; c += WG)
        sum = fma(out_[out_off + i * DV + c], dout_[dout_off + i * DV + c], sum);
    float delta = group_sum(sum, scratch);
    if (get_local_id(0) != 0)
        return;
    float log_sum = lse_[lse_off + i];
#if HAS_SINK
    log_sum = with_sink(log_sum, attn_sink_[attn_sink_off + i % num_heads]);
#endif
    rows_[rows_off + 2 * i] = log_sum;
    rows_[rows_off + 2 * i + 1] = delta;
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
backward_sink(__global const float *rows_, ulong rows_off, __global const float *attn_sink_, ulong attn_sink_off,
              __global float *dsink_, ulong dsink_off, ulong num_rows, uint num_heads)
{
    __local float scratch[WG];
    uint h = get_group_id(0);
    float sink = attn_sink_[attn_sink_off + h], sum = 0.0f;
    for (ulong i = get_local_id(0); i < num_rows; i += WG) {
        __global const float *r = rows_ + rows_off + 2 * (i * num_heads + h);
        if (!isinf(r[0]))
            sum -= exp(sink - r[0]) * r[1];
    }
    sum = group_sum(sum, scratch);
    if (get_local_id(0) == 0)
        dsink_[dsink_off + h] = sum;
}
