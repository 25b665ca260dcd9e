// LayerNorm of rows [rows, dim], optionally of a residual sum, forward and backward (host/ops/layer_norm.c).
//
//   sum = x + residual;  y = (sum - mean) * rstd * weight + bias;  rstd = 1 / sqrt(variance + eps)
//
//   xhat = (x - mean) * rstd;  g = dy * weight
//   dx = dresidual + rstd * (g - average(g) - xhat * average(g * xhat))
//   dweight = sum over rows of dy * xhat;  dbias = sum over rows of dy
//
// vec: a work-item walks ROWS rows, 16 columns at a time; a row stays in the first-level cache over its passes.
// simt: forward, a work-group per row; backward, a work-group per ROWS rows.
// The backward kernels leave one partial (dweight ++ dbias) per row block, [blocks, 2 * dim], which sum_rows of
// cl/reduce.cl adds up in order: two launches in all, and the same bits every time.
#include "math.clh"

#ifndef ROWS
#define ROWS 8 // rows per work-item (vec) or per work-group (simt, backward only) (2 .. 128)
#endif
#ifndef WG
#define WG 64 // work-items per group, simt; a power of two (32 .. 512)
#endif
#ifndef PER_LANE
#define PER_LANE 4 // columns of a row that a work-item keeps in registers, simt (1 .. 16)
#endif
#ifndef HAS_RESIDUAL
#define HAS_RESIDUAL 0 // forward: residual is given; backward: dresidual is given
#endif
#ifndef HAS_SUM
#define HAS_SUM 0
#endif
#ifndef HAS_STATS
#define HAS_STATS 1 // bit 0: mean is wanted; bit 1: rstd is wanted
#endif
#include "rows.clh"

// ---- vec --------------------------------------------------------------------------------------------------------

inline float16 input16(__global const float *x, __global const float *residual, uint d)
{
#if HAS_RESIDUAL
    return vload16(0, x + d) + vload16(0, residual + d);
#else
    return vload16(0, x + d);
#endif
}

inline float input1(__global const float *x, __global const float *residual, uint d)
{
#if HAS_RESIDUAL
    return x[d] + residual[d];
#else
    return x[d];
#endif
}

// The squares of the deviations are summed in a pass of their own: x^2 - mean^2 would cancel.
inline float2 row_statistics(__global const float *x, __global const float *residual, __global float *sum, uint dim,
                             float eps)
{
    float16 acc = (float16)(0.0f);
    float rest = 0.0f;
    uint d = 0;
    for (; d + 16 <= dim; d += 16) {
        float16 v = input16(x, residual, d);
#if HAS_SUM
        vstore16(v, 0, sum + d);
#endif
        acc += v;
    }
    for (; d < dim; ++d) {
        float v = input1(x, residual, d);
#if HAS_SUM
        sum[d] = v;
#endif
        rest += v;
    }
    float mean = (sum16(acc) + rest) / (float)dim;

    acc = (float16)(0.0f);
    rest = 0.0f;
    for (d = 0; d + 16 <= dim; d += 16) {
        float16 c = input16(x, residual, d) - mean;
        acc = fma(c, c, acc);
    }
    for (; d < dim; ++d) {
        float c = input1(x, residual, d) - mean;
        rest = fma(c, c, rest);
    }
    return (float2)(mean, 1.0f / sqrt((sum16(acc) + rest) / (float)dim + eps));
}

__kernel void layer_norm_vec(__global const float *x_, ulong x_off, __global const float *residual_, ulong residual_off,
                             __global const float *weight, ulong weight_off, __global const float *bias, ulong bias_off,
                             __global float *sum_, ulong sum_off, __global float *y_, ulong y_off, __global float *mean,
                             ulong mean_off, __global float *rstd, ulong rstd_off, uint rows, uint dim, float eps)
{
    uint first = get_global_id(0) * ROWS;
    uint last = min(first + ROWS, rows);
    weight += weight_off;
    bias += bias_off;
    for (uint r = first; r < last; ++r) {
        size_t at = (size_t)r * dim;
        __global const float *x = x_ + x_off + at, *residual = residual_ + residual_off + at;
        __global float *y = y_ + y_off + at;
        float2 s = row_statistics(x, residual, sum_ + sum_off + at, dim, eps);
        uint d = 0;
        for (; d + 16 <= dim; d += 16) {
            float16 xhat = (input16(x, residual, d) - s.x) * s.y;
            vstore16(fma(xhat, vload16(0, weight + d), vload16(0, bias + d)), 0, y + d);
        }
        for (; d < dim; ++d)
            y[d] = fma((input1(x, residual, d) - s.x) * s.y, weight[d], bias[d]);
#if HAS_STATS & 1
        mean[mean_off + r] = s.x;
#endif
#if HAS_STATS & 2
        rstd[rstd_off + r] = s.y;
#endif
    }
}

__kernel void layer_norm_backward_vec(__global const float *x_, ulong x_off, __global const float *weight,
                                      ulong weight_off, __global const float *mean, ulong mean_off,
                                      __global const float *rstd, ulong rstd_off, __global const float *dy_,
                                      ulong dy_off, __global const float *dresidual_, ulong dresidual_off,
                                      __global float *dx_, ulong dx_off, __global float *partial, ulong partial_off,
                                      uint rows, uint dim)
{
    uint first = get_global_id(0) * ROWS;
    uint last = min(first + ROWS, rows);
    if (first >= rows)
        return;
    weight += weight_off;
    __global float *dweight = partial + partial_off + get_global_id(0) * 2 * dim, *dbias = dweight + dim;
    for (uint d = 0; d < dim; ++d)
        dweight[d] = dbias[d] = 0.0f;

    for (uint r = first; r < last; ++r) {
        size_t at = (size_t)r * dim;
        __global const float *x = x_ + x_off + at, *dy = dy_ + dy_off + at;
        __global float *dx = dx_ + dx_off + at;
#if HAS_RESIDUAL
        __global const float *dresidual = dresidual_ + dresidual_off + at;
#endif
        float mu = mean[mean_off + r], rs = rstd[rstd_off + r];
        float16 sum_g16 = (float16)(0.0f), sum_gx16 = (float16)(0.0f);
        float sum_g = 0.0f, sum_gx = 0.0f;
        uint d = 0;
        for (; d + 16 <= dim; d += 16) {
            float16 xhat = (vload16(0, x + d) - mu) * rs, up = vload16(0, dy + d), g = up * vload16(0, weight + d);
            sum_g16 += g;
            sum_gx16 = fma(g, xhat, sum_gx16);
            vstore16(fma(up, xhat, vload16(0, dweight + d)), 0, dweight + d);
            vstore16(vload16(0, dbias + d) + up, 0, dbias + d);
        }
        for (; d < dim; ++d) {
            float xhat = (x[d] - mu) * rs, g = dy[d] * weight[d];
            sum_g += g;
            sum_gx = fma(g, xhat, sum_gx);
            dweight[d] = fma(dy[d], xhat, dweight[d]);
            dbias[d] += dy[d];
        }
        float c1 = (sum16(sum_g16) + sum_g) / (float)dim, c2 = (sum16(sum_gx16) + sum_gx) / (float)dim;
        for (d = 0; d + 16 <= dim; d += 16) {
            float16 xhat = (vload16(0, x + d) - mu) * rs, g = vload16(0, dy + d) * vload16(0, weight + d);
            float16 v = rs * (g - fma(xhat, (float16)(c2), (float16)(c1)));
#if HAS_RESIDUAL
            v += vload16(0, dresidual + d);
#endif
            vstore16(v, 0, dx + d);
        }
        for (; d < dim; ++d) {
            float xhat = (x[d] - mu) * rs;
            float v = rs * (dy[d] * weight[d] - fma(xhat, c2, c1));
#if HAS_RESIDUAL
            v += dresidual[d];
#endif
            dx[d] = v;
        }
    }
}

// ---- simt -------------------------------------------------------------------------------------------------------

#if HAS_SUM
#define STORE_SUM(d, v) sum[d] = v
#else
#define STORE_SUM(d, v)
#endif
#define STORE_ROW(d, v)                                                                                                \
    {                                                                                                                  \
        STORE_SUM(d, v);                                                                                               \
        y[d] = fma(((v) - mu) * rs, weight[weight_off + (d)], bias[bias_off + (d)]);                                   \
    }

// A lane keeps PER_LANE columns of its row in registers; columns beyond those are read three times.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
layer_norm_simt(__global const float *x_, ulong x_off, __global const float *residual_, ulong residual_off,
                __global const float *weight, ulong weight_off, __global const float *bias, ulong bias_off,
                __global float *sum_, ulong sum_off, __global float *y_, ulong y_off, __global float *mean,
                ulong mean_off, __global float *rstd, ulong rstd_off, uint rows, uint dim, float eps)
{
    __local float scratch[WG];
    size_t r = get_group_id(0);
    uint lane = get_local_id(0), beyond = lane + PER_LANE * WG;
    __global const float *x = x_ + x_off + r * dim, *residual = residual_ + residual_off + r * dim;
    __global float *y = y_ + y_off + r * dim;
#if HAS_SUM
    __global float *sum = sum_ + sum_off + r * dim;
#endif

    float v[PER_LANE], total = 0.0f;
    for (uint i = 0; i < PER_LANE; ++i) {
        uint d = lane + i * WG;
        v[i] = d < dim ? input1(x, residual, d) : 0.0f;
    }
    for (uint i = 0; i < PER_LANE; ++i)
        total += v[i];
    for (uint d = beyond; d < dim; d += WG)
        total += input1(x, residual, d);
    float mu = group_sum(scratch, total) / (float)dim;
    float squares = 0.0f;
    for (uint i = 0; i < PER_LANE; ++i) {
        float c = lane + i * WG < dim ? v[i] - mu : 0.0f;
        squares = fma(c, c, squares);
    }
    for (uint d = beyond; d < dim; d += WG) {
        float c = input1(x, residual, d) - mu;
        squares = fma(c, c, squares);
    }
    float rs = 1.0f / sqrt(group_sum(scratch, squares) / (float)dim + eps);
    for (uint i = 0; i < PER_LANE; ++i) {
        uint d = lane + i * WG;
        if (d < dim)
            STORE_ROW(d, v[i])
    }
    for (uint d = beyond; d < dim; d += WG) {
        float value = input1(x, residual, d);
        STORE_ROW(d, value)
    }
    if (lane == 0) {
#if HAS_STATS & 1
        mean[mean_off + r] = mu;
#endif
#if HAS_STATS & 2
        rstd[rstd_off + r] = rs;
#endif
    }
}

// Row `row` of the group, which begins at x + at and dy + at.
#define READ_ROW(row, at)                                                                                              \
    {                                                                                                                  \
        next_mu = mean[row];                                                                                           \
        next_rs = rstd[row];                                                                                           \
        for (uint i = 0; i < PER_LANE; ++i) {                                                                          \
            uint d = lane + i * WG;                                                                                    \
            next_up[i] = d < dim ? dy[(at) + d] : 0.0f;                                                                \
            next_x[i] = d < dim ? x[(at) + d] : 0.0f;                                                                  \
        }                                                                                                              \
    }

// A group walks ROWS rows. A lane keeps PER_LANE columns of a row in registers, and their sums for dweight and dbias over
// the rows; columns beyond those are read again, and summed where the partial sums lie. The next row's are asked for
// before the group adds up this one, whose barriers take as long.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
layer_norm_backward_simt(__global const float *x, ulong x_off, __global const float *weight, ulong weight_off,
                         __global const float *mean, ulong mean_off, __global const float *rstd, ulong rstd_off,
                         __global const float *dy, ulong dy_off, __global const float *dresidual, ulong dresidual_off,
                         __global float *dx, ulong dx_off, __global float *partial, ulong partial_off, uint rows,
                         uint dim)
{
    __local float2 scratch[WG];
    uint lane = get_local_id(0), beyond = lane + PER_LANE * WG;
    size_t first = (size_t)get_group_id(0) * ROWS;
    uint count = min((uint)ROWS, (uint)(rows - first));
    x += x_off + first * dim;
    dy += dy_off + first * dim;
    dx += dx_off + first * dim;
    weight += weight_off;
    mean += mean_off + first;
    rstd += rstd_off + first;
#if HAS_RESIDUAL
    dresidual += dresidual_off + first * dim;
#define RESIDUAL(d) dresidual[d]
#else
#define RESIDUAL(d) 0.0f
#endif
    __global float *to_weight = partial + partial_off + (size_t)get_group_id(0) * 2 * dim, *to_bias = to_weight + dim;

    float w[PER_LANE], dweight[PER_LANE], dbias[PER_LANE];
    for (uint i = 0; i < PER_LANE; ++i) {
        uint d = lane + i * WG;
        w[i] = d < dim ? weight[d] : 0.0f;
        dweight[i] = dbias[i] = 0.0f;
    }
    for (uint d = beyond; d < dim; d += WG)
        to_weight[d] = to_bias[d] = 0.0f;

    float next_x[PER_LANE], next_up[PER_LANE], next_mu, next_rs;
    READ_ROW(0, 0)
    for (uint r = 0; r < count; ++r) {
        float mu = next_mu, rs = next_rs;
        float xhat[PER_LANE], up[PER_LANE], past[PER_LANE]; // `past`: the gradient that goes past the norm
        float2 sums = (float2)(0.0f); // of g, and of g * xhat
        for (uint i = 0; i < PER_LANE; ++i) {
            uint d = lane + i * WG;
            past[i] = d < dim ? RESIDUAL(d) : 0.0f;
            up[i] = next_up[i];
            xhat[i] = d < dim ? (next_x[i] - mu) * rs : 0.0f;
            float g = up[i] * w[i];
            sums += (float2)(g, g * xhat[i]);
        }
        if (r + 1 < count)
            READ_ROW(r + 1, dim)
        for (uint d = beyond; d < dim; d += WG) {
            float g = dy[d] * weight[d];
            sums += (float2)(g, g * ((x[d] - mu) * rs));
        }
        float2 c = group_sum2(scratch, sums) / (float)dim;
        for (uint i = 0; i < PER_LANE; ++i) {
            uint d = lane + i * WG;
            if (d < dim)
                dx[d] = rs * (up[i] * w[i] - fma(xhat[i], c.y, c.x)) + past[i];
            dweight[i] = fma(up[i], xhat[i], dweight[i]);
            dbias[i] += up[i];
        }
        for (uint d = beyond; d < dim; d += WG) {
            float g = dy[d], xh = (x[d] - mu) * rs;
            dx[d] = rs * (g * weight[d] - fma(xh, c.y, c.x)) + RESIDUAL(d);
            to_weight[d] = fma(g, xh, to_weight[d]);
            to_bias[d] += g;
        }
        x += dim;
        dy += dim;
        dx += dim;
#if HAS_RESIDUAL
        dresidual += dim;
#endif
    }
    for (uint i = 0; i < PER_LANE; ++i) {
        uint d = lane + i * WG;
        if (d < dim) {
            to_weight[d] = dweight[i];
            to_bias[d] = dbias[i];
        }
    }
}
