// Combines the parts of attention rows whose keys several work-groups shared (attention_combine.clh), in the order of
// the parts. Global size (DV rounded up to WG, rows).

#include "attention_combine.clh"
#include "dtype.clh"

#ifndef O_DTYPE
#define O_DTYPE F32
#endif
#ifndef HAS_LSE
#define HAS_LSE 1 // 1: lse is wanted
#endif

#define WG 64

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
attention_combine(__global const float *parts_, ulong parts_off, __global const float *attn_sink_, ulong attn_sink_off,
                  __global ELEM(O_DTYPE) *out_, ulong out_off, __global float *lse_, ulong lse_off, uint num_heads,
                  uint parts)
{
    const ulong rows = get_global_size(1), row = get_global_id(1);
    const uint c = get_global_id(0);
    __global const float *scratch = parts_ + parts_off;
    __global const float *stats = scratch + PART_STATS(parts, rows, 0, row), *sums = scratch + PART_SUMS(rows, 0, row);

    float maximum = -INFINITY;
    for (uint p = 0; p < parts; ++p) {
        float x = stats[p * rows * 2];
        maximum = maximum > x ? maximum : x;
    }
    const float base = maximum == -INFINITY ? 0.0f : maximum;
    float total = 0.0f, sum = 0.0f;
#pragma unroll 4
    for (uint p = 0; p < parts; ++p) {
        float factor = exp2(stats[p * rows * 2] - base);
        total = fma(stats[p * rows * 2 + 1], factor, total);
        if (c < DV)
            sum = fma(sums[p * rows * DV + c], factor, sum);
    }
    float lse, factor = row_factor(maximum, total, attn_sink_ + attn_sink_off, row % num_heads, &lse);
    if (c < DV)
        STORE(O_DTYPE, out_, out_off + row * DV + c, sum * factor);
#if HAS_LSE
    if (c == 0)
        lse_[lse_off + row] = lse;
#endif
}
