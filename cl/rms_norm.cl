// RMSNorm of the first dim columns of rows of ld, forward and backward (host/ops/rms_norm.c).
//
//   y = x * rstd * weight;  rstd = 1 / sqrt(average(x^2) + eps)
//
//   xhat = x * rstd;  g = dy * weight
//   dx = rstd * (g - xhat * average(g * xhat));  dweight = sum over rows of dy * xhat
//
// Built as cl/layer_norm.cl is: vec walks ROWS rows per work-item, simt takes a work-group per row (forward) or per ROWS
// rows (backward), and the backward kernels leave [blocks, dim] partial sums of dweight for sum_rows of cl/reduce.cl.
#include "math.clh"

#ifndef ROWS
#define ROWS 8 // rows per work-item (vec) or per work-group (simt, backward only) (2 .. 128)
#endif
#ifndef WG
#define WG 64 // work-items per group, simt; a power of two (32 .. 512)
#endif
#ifndef PER_LANE
#define PER_LANE 4 // columns of a row that a work-item keeps in registers, simt, backward (1 .. 16)
#endif
#ifndef HAS_RSTD
#define HAS_RSTD 1 // rstd is wanted
#endif
#include "rows.clh"

// ---- vec --------------------------------------------------------------------------------------------------------

__kernel void rms_norm_vec(__global const float *x_, ulong x_off, __global const float *weight, ulong weight_off,
                           __global float *y_, ulong y_off, __global float *rstd, ulong rstd_off, uint rows, uint dim,
                           uint ld, float eps)
{
    uint first = get_global_id(0) * ROWS;
    uint last = min(first + ROWS, rows);
    weight += weight_off;
    for (uint r = first; r < last; ++r) {
        __global const float *x = x_ + x_off + (size_t)r * ld;
        __global float *y = y_ + y_off + (size_t)r * dim;
        float16 acc = (float16)(0.0f);
        float rest = 0.0f;
        uint d = 0;
        for (; d + 16 <= dim; d += 16) {
            float16 v = vload16(0, x + d);
            acc = fma(v, v, acc);
        }
        for (; d < dim; ++d)
            rest = fma(x[d], x[d], rest);
        float rs = 1.0f / sqrt((sum16(acc) + rest) / (float)dim + eps);
        for (d = 0; d + 16 <= dim; d += 16)
            vstore16(vload16(0, x + d) * rs * vload16(0, weight + d), 0, y + d);
        for (; d < dim; ++d)
            y[d] = x[d] * rs * weight[d];
#if HAS_RSTD
        rstd[rstd_off + r] = rs;
#endif
    }
}

__kernel void rms_norm_backward_vec(__global const float *x_, ulong x_off, __global const float *weight,
                                    ulong weight_off, __global const float *rstd, ulong rstd_off,
                                    __global const float *dy_, ulong dy_off, __global float *dx_, ulong dx_off,
                                    __global float *partial, ulong partial_off, uint rows, uint dim, uint ld)
{
    uint first = get_global_id(0) * ROWS;
    uint last = min(first + ROWS, rows);
    if (first >= rows)
        return;
    weight += weight_off;
    __global float *dweight = partial + partial_off + get_global_id(0) * dim;
    for (uint d = 0; d < dim; ++d)
        dweight[d] = 0.0f;

    for (uint r = first; r < last; ++r) {
        __global const float *x = x_ + x_off + (size_t)r * ld, *dy = dy_ + dy_off + (size_t)r * dim;
        __global float *dx = dx_ + dx_off + (size_t)r * ld;
        float rs = rstd[rstd_off + r];
        float16 acc = (float16)(0.0f);
        float rest = 0.0f;
        uint d = 0;
        for (; d + 16 <= dim; d += 16) {
            float16 upx = vload16(0, dy + d) * (vload16(0, x + d) * rs);
            acc = fma(upx, vload16(0, weight + d), acc);
            vstore16(vload16(0, dweight + d) + upx, 0, dweight + d);
        }
        for (; d < dim; ++d) {
            float upx = dy[d] * (x[d] * rs);
            rest = fma(upx, weight[d], rest);
            dweight[d] += upx;
        }
        float c = (sum16(acc) + rest) / (float)dim;
        for (d = 0; d + 16 <= dim; d += 16) {
            float16 g = vload16(0, dy + d) * vload16(0, weight + d);
            vstore16(rs * (g - vload16(0, x + d) * rs * c), 0, dx + d);
        }
        for (; d < dim; ++d)
            dx[d] = rs * (dy[d] * weight[d] - x[d] * rs * c);
    }
}

// ---- simt -------------------------------------------------------------------------------------------------------

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
rms_norm_simt(__global const float *x, ulong x_off, __global const float *weight, ulong weight_off, __global float *y,
              ulong y_off, __global float *rstd, ulong rstd_off, uint rows, uint dim, uint ld, float eps)
{
    __local float scratch[WG];
    size_t r = get_group_id(0);
    uint lane = get_local_id(0);
    x += x_off + r * ld;
    y += y_off + r * dim;
    float squares = 0.0f;
    for (uint d = lane; d < dim; d += WG)
        squares = fma(x[d], x[d], squares);
    float rs = 1.0f / sqrt(group_sum(scratch, squares) / (float)dim + eps);
    for (uint d = lane; d < dim; d += WG)
        y[d] = x[d] * rs * weight[weight_off + d];
#if HAS_RSTD
    if (lane == 0)
        rstd[rstd_off + r] = rs;
#endif
}

// Row `row` of the group, of which x and dy are `ahead` rows behind.
#define READ_ROW(row, ahead)                                                                                           \
    {                                                                                                                  \
        next_rs = rstd[row];                                                                                           \
        for (uint i = 0; i < PER_LANE; ++i) {                                                                          \
            uint d = lane + i * WG;                                                                                    \
            next_up[i] = d < dim ? dy[d + (ahead) * dim] : 0.0f;                                                       \
            next_x[i] = d < dim ? x[d + (ahead) * ld] : 0.0f;                                                          \
        }                                                                                                              \
    }

// A group walks ROWS rows. A lane keeps PER_LANE columns of a row in registers, and their sums for dweight over the
// rows; columns beyond those are read again, and summed where the partial sums lie. The next row's are asked for before
// the group adds up this one, whose barriers take as long.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
rms_norm_backward_simt(__global const float *x, ulong x_off, __global const float *weight, ulong weight_off,
                       __global const float *rstd, ulong rstd_off, __global const float *dy, ulong dy_off,
                       __global float *dx, ulong dx_off, __global float *partial, ulong partial_off, uint rows,
                       uint dim, uint ld)
{
    __local float scratch[WG];
    uint lane = get_local_id(0), beyond = lane + PER_LANE * WG;
    size_t first = (size_t)get_group_id(0) * ROWS;
    uint count = min((uint)ROWS, (uint)(rows - first));
    x += x_off + first * ld;
    dx += dx_off + first * ld;
    dy += dy_off + first * dim;
    weight += weight_off;
    rstd += rstd_off + first;
    partial += partial_off + (size_t)get_group_id(0) * dim;

    float w[PER_LANE], dweight[PER_LANE];
    for (uint i = 0; i < PER_LANE; ++i) {
        uint d = lane + i * WG;
        w[i] = d < dim ? weight[d] : 0.0f;
        dweight[i] = 0.0f;
    }
    for (uint d = beyond; d < dim; d += WG)
        partial[d] = 0.0f;

    float next_x[PER_LANE], next_up[PER_LANE], next_rs;
    READ_ROW(0, 0)
    for (uint r = 0; r < count; ++r, x += ld, dx += ld, dy += dim) {
        float rs = next_rs, sum = 0.0f, xhat[PER_LANE], up[PER_LANE];
        for (uint i = 0; i < PER_LANE; ++i) {
            up[i] = next_up[i];
            xhat[i] = next_x[i] * rs;
            sum = fma(up[i] * w[i], xhat[i], sum);
        }
        if (r + 1 < count)
            READ_ROW(r + 1, 1)
        for (uint d = beyond; d < dim; d += WG)
            sum = fma(dy[d] * weight[d], x[d] * rs, sum);
        float c = group_sum(scratch, sum) / (float)dim;
        for (uint i = 0; i < PER_LANE; ++i) {
            uint d = lane + i * WG;
            if (d < dim)
                dx[d] = rs * (up[i] * w[i] - xhat[i] * c);
            dweight[i] = fma(up[i], xhat[i], dweight[i]);
        }
        for (uint d = beyond; d < dim; d += WG) {
            float g = dy[d], xh = x[d] * rs;
            dx[d] = rs * (g * weight[d] - xh * c);
            partial[d] = fma(g, xh, partial[d]);
        }
    }
    for (uint i = 0; i < PER_LANE; ++i)
        if (lane + i * WG < dim)
            partial[lane + i * WG] = dweight[i];
}
