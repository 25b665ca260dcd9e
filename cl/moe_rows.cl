// Rows moved between tokens and their experts. R = N * CHOICES sorted rows; p = position[n,x], w = weights[n,x].
//
//   moe_dispatch           rows[p,:] = x[n,:]
//   moe_dispatch_backward  dx[n,:]   = sum_x drows[p,:]  (+ dx)
//   moe_combine            out[n,:]  = sum_x w rows[p,:]
//   moe_combine_backward   drows[p,:] = w dout[n,:];  dweights[n,x] = rows[p,:] . dout[n,:]
//
// All bound by memory. The first three: work-item (i, j) takes columns i*COLS .. and rows j*ROWS .., VEC at a time, so
// a GPU's neighbours read neighbouring VECs (COLS = VEC) and a CPU's work-item streams whole rows. The last:
// one work-group of WG work-items per ROWS tokens, because it sums over the columns.
// Called by the operations of these names (moe.c).

#include "inline.clh"

#ifndef CHOICES
#define CHOICES 2 // experts per token X
#endif
#ifndef ACCUMULATE
#define ACCUMULATE 0 // 1: moe_dispatch_backward adds to dx
#endif
#ifndef VEC
#define VEC 4 // floats per load (4 on GPUs, 16 on CPUs)
#endif
#ifndef COLS
#define COLS 4 // columns per work-item, a multiple of VEC (VEC on GPUs, thousands on CPUs)
#endif
#ifndef ROWS
#define ROWS 1 // rows per work-item or group (1 on GPUs, 16 on CPUs)
#endif
#ifndef WG
#define WG 64 // work-items that share a row in moe_combine_backward, a power of two (1 on CPUs)
#endif

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define FLOATV CAT(float, VEC)
#define VLOAD(p) CAT(vload, VEC)(0, p)
#define VSTORE(v, p) CAT(vstore, VEC)(v, 0, p)

// By tokens and not by rows: a token is read once, and rows are written in stretches that need no order.
__kernel void moe_dispatch(__global const float *x_, ulong x_off, __global const int *position_, ulong position_off,
                           __global float *rows_, ulong rows_off, uint num_tokens, uint dim)
{
    uint c0 = get_global_id(0) * COLS, c1 = min(c0 + COLS, dim);
    uint n0 = get_global_id(1) * ROWS, n1 = min(n0 + ROWS, num_tokens);
    for (uint n = n0; n < n1; ++n) {
        __global const int *position = position_ + position_off + (ulong)n * CHOICES;
        __global const float *from = x_ + x_off + (ulong)n * dim;
        __global float *rows = rows_ + rows_off;
        ulong to[CHOICES];
        for (int x = 0; x < CHOICES; ++x)
            to[x] = (ulong)position[x] * dim;
        uint c = c0;
        for (; c + VEC <= c1; c += VEC) {
            FLOATV v = VLOAD(from + c);
            for (int x = 0; x < CHOICES; ++x)
                VSTORE(v, rows + to[x] + c);
        }
        for (; c < c1; ++c)
            for (int x = 0; x < CHOICES; ++x)
                rows[to[x] + c] = from[c];
    }
}

__kernel void moe_dispatch_backward(__global const float *drows_, ulong drows_off, __global const int *position_,
                                    ulong position_off, __global float *dx_, ulong dx_off, uint num_tokens, uint dim)
{
    __global const float *drows = drows_ + drows_off;
    uint c0 = get_global_id(0) * COLS, c1 = min(c0 + COLS, dim);
    uint n0 = get_global_id(1) * ROWS, n1 = min(n0 + ROWS, num_tokens);
    for (uint n = n0; n < n1; ++n) {
        __global const int *position = position_ + position_off + (ulong)n * CHOICES;
        __global float *dx = dx_ + dx_off + (ulong)n * dim;
        ulong from[CHOICES];
        for (int x = 0; x < CHOICES; ++x)
            from[x] = (ulong)position[x] * dim;
        uint c = c0;
        for (; c + VEC <= c1; c += VEC) {
            FLOATV sum = ACCUMULATE ? VLOAD(dx + c) : (FLOATV)(0.0f);
            for (int x = 0; x < CHOICES; ++x)
                sum += VLOAD(drows + from[x] + c);
            VSTORE(sum, dx + c);
        }
        for (; c < c1; ++c) {
            float sum = ACCUMULATE ? dx[c] : 0.0f;
            for (int x = 0; x < CHOICES; ++x)
                sum += drows[from[x] + c];
            dx[c] = sum;
        }
    }
}

__kernel void moe_combine(__global const float *rows_, ulong rows_off, __global const int *position_,
                          ulong position_off, __global const float *weights_, ulong weights_off, __global float *out_,
                          ulong out_off, uint num_tokens, uint dim)
{
    __global const float *rows = rows_ + rows_off;
    uint c0 = get_global_id(0) * COLS, c1 = min(c0 + COLS, dim);
    uint n0 = get_global_id(1) * ROWS, n1 = min(n0 + ROWS, num_tokens);
    for (uint n = n0; n < n1; ++n) {
        __global const int *position = position_ + position_off + (ulong)n * CHOICES;
        __global const float *weights = weights_ + weights_off + (ulong)n * CHOICES;
        __global float *out = out_ + out_off + (ulong)n * dim;
        ulong from[CHOICES];
        float w[CHOICES];
        for (int x = 0; x < CHOICES; ++x) {
            from[x] = (ulong)position[x] * dim;
            w[x] = weights[x];
        }
        uint c = c0;
        for (; c + VEC <= c1; c += VEC) {
            FLOATV sum = (FLOATV)(0.0f);
            for (int x = 0; x < CHOICES; ++x)
                sum = fma((FLOATV)(w[x]), VLOAD(rows + from[x] + c), sum);
            VSTORE(sum, out + c);
        }
        for (; c < c1; ++c) {
            float sum = 0.0f;
            for (int x = 0; x < CHOICES; ++x)
                sum = fma(w[x], rows[from[x] + c], sum);
            out[c] = sum;
        }
    }
}

// Sum over a FLOATV's lanes, through memory so that any VEC will do.
inline float lanes_sum(FLOATV v)
{
    float lane[VEC];
    VSTORE(v, lane);
    for (int width = VEC / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i)
            lane[i] += lane[i + width];
    return lane[0];
}

__kernel void moe_combine_backward(__global const float *rows_, ulong rows_off, __global const int *position_,
                                   ulong position_off, __global const float *weights_, ulong weights_off,
                                   __global const float *dout_, ulong dout_off, __global float *drows_,
                                   ulong drows_off, __global float *dweights_, ulong dweights_off, uint num_tokens,
                                   uint dim)
{
    __local float partial[CHOICES][WG];
    uint lane = get_local_id(0);
    __global const float *rows = rows_ + rows_off;
    __global float *drows = drows_ + drows_off;
    for (uint i = 0; i < ROWS; ++i) { // the same for all work-items: there are barriers inside
        uint n = get_group_id(0) * ROWS + i;
        bool live = n < num_tokens;
        ulong first = live ? (ulong)n * CHOICES : 0;
        __global const float *dout = dout_ + dout_off + (live ? (ulong)n * dim : 0);
        ulong row[CHOICES];
        float w[CHOICES], tail[CHOICES];
        FLOATV sum[CHOICES];
        for (int x = 0; x < CHOICES; ++x) {
            row[x] = (ulong)position_[position_off + first + x] * dim;
            w[x] = weights_[weights_off + first + x];
            sum[x] = (FLOATV)(0.0f);
            tail[x] = 0.0f;
        }
        for (uint c = lane * VEC; live && c < dim; c += WG * VEC) {
            if (c + VEC <= dim) {
                FLOATV g = VLOAD(dout + c), y[CHOICES];
                for (int x = 0; x < CHOICES; ++x)
                    y[x] = VLOAD(rows + row[x] + c);
                for (int x = 0; x < CHOICES; ++x) {
                    sum[x] = fma(y[x], g, sum[x]);
                    VSTORE(w[x] * g, drows + row[x] + c);
                }
            } else {
                for (uint t = c; t < dim; ++t)
                    for (int x = 0; x < CHOICES; ++x) {
                        tail[x] = fma(rows[row[x] + t], dout[t], tail[x]);
                        drows[row[x] + t] = w[x] * dout[t];
                    }
            }
        }
        for (int x = 0; x < CHOICES; ++x)
            partial[x][lane] = lanes_sum(sum[x]) + tail[x];
        for (uint width = WG / 2; width > 0; width /= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (lane < width)
                for (int x = 0; x < CHOICES; ++x)
                    partial[x][lane] += partial[x][lane + width];
        }
        if (lane == 0 && live)
            for (int x = 0; x < CHOICES; ++x)
                dweights_[dweights_off + first + x] = partial[x][0];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
