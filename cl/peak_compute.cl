// What a device's arithmetic reaches: independent chains x <- x * a + b, as many as hide the latency of one.
//
// a and b are 1, which only the host knows: each lane counts its steps, so the sum that a work-item writes shows
// exactly that all of them were made. Lanes start apart, so that no two of them are the same computation.
//     out[i] = sum over chains c and lanes l of (l + c + i % 8 + steps)
// Called by bench/peak_compute.c, which takes the fastest of several widths.
#ifdef PEAK_HALF
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#endif
#ifndef TYPE
#define TYPE float // float, half, double or int
#endif
#ifndef WIDTH
#define WIDTH 4 // lanes per chain: 1, 2, 4, 8, 16
#endif
#ifndef CHAINS
#define CHAINS 8 // chains per work-item (4 .. 16)
#endif
#ifndef FUSED
#define FUSED 1 // 1: by fma(), as the operations' kernels; 0: by * and +, for types without it
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#if WIDTH == 1
typedef TYPE vector;
#else
typedef JOIN(TYPE, WIDTH) vector;
#endif
#define SUM JOIN(sum_, WIDTH)
#define LANES JOIN(LANES_, WIDTH)
#define LANES_1 ((vector)(0))
#define LANES_2 ((vector)(0, 1))
#define LANES_4 ((vector)(0, 1, 2, 3))
#define LANES_8 ((vector)(0, 1, 2, 3, 4, 5, 6, 7))
#define LANES_16 ((vector)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))

// Summed as floats: the counts of all lanes together are beyond half's whole numbers.
#define sum_1(v) ((float)(v))
#define sum_2(v) (sum_1((v).x) + sum_1((v).y))
#define sum_4(v) (sum_2((v).lo) + sum_2((v).hi))
#define sum_8(v) (sum_4((v).lo) + sum_4((v).hi))
#define sum_16(v) (sum_8((v).lo) + sum_8((v).hi))

#if FUSED
#define STEP(x) fma(x, a, b)
#else
#define STEP(x) ((x) * a + b)
#endif

__kernel void peak_compute(__global float *out, float one, int steps)
{
    const vector a = (vector)((TYPE)one), b = a;
    vector x[CHAINS];
    uint item = (uint)get_global_id(0);
#pragma unroll
    for (int c = 0; c < CHAINS; ++c)
        x[c] = LANES + (vector)((TYPE)(c + (int)(item % 8u)));
    for (int s = 0; s < steps; s += 4) { // steps is a multiple of 4
#pragma unroll
        for (int c = 0; c < CHAINS; ++c)
            x[c] = STEP(x[c]);
#pragma unroll
        for (int c = 0; c < CHAINS; ++c)
            x[c] = STEP(x[c]);
#pragma unroll
        for (int c = 0; c < CHAINS; ++c)
            x[c] = STEP(x[c]);
#pragma unroll
        for (int c = 0; c < CHAINS; ++c)
            x[c] = STEP(x[c]);
    }
    float sum = 0.0f;
#pragma unroll
    for (int c = 0; c < CHAINS; ++c)
        sum += SUM(x[c]);
    out[item] = sum;
}
