// Elementwise y = dropout(act(x)) and its gradient dx = dropout(dy) * act'(x), one pass (host/ops/activation.c).
//
// Dropout keeps element e where its random word (cl/philox.clh) reaches the threshold p * 2^32, and scales by 1/(1-p).
// vec: a work-item takes ITEMS elements in blocks of 64, for which one vector run of the generator gives the words.
// simt: a work-item runs COUNTERS counters, a group's size apart, and takes their four elements each, 16 apart;
// neighbours read neighbours.
// In place is fine (y = x, dx = dy): an element is read before it is written, by the same work-item.
#include "math.clh"
#include "philox.clh"

#ifndef ITEMS
#define ITEMS 1024 // elements per work-item, vec; a multiple of 64 (64 .. 8192)
#endif
#ifndef WG
#define WG 256 // work-items per group, simt (64 .. 256)
#endif
#ifndef COUNTERS
#define COUNTERS 1 // counters of the generator per work-item, simt (1 .. 4)
#endif
#ifndef ACT
#define ACT 2 // cldsa_act: 0 none, 1 relu, 2 silu, 3 sigmoid
#endif
#ifndef DROPOUT
#define DROPOUT 0
#endif

// exp of a number that is not positive cannot overflow, so both tails are exact; NaN passes through.
inline float16 sigmoid16(float16 x)
{
    float16 e = exp_fast16(-fabs(x));
    float16 s = (x >= 0.0f ? (float16)(1.0f) : e) / (1.0f + e);
    return x != x ? x : s;
}

inline float sigmoid1(float x)
{
    float e = exp_fast(-fabs(x));
    float s = (x >= 0.0f ? 1.0f : e) / (1.0f + e);
    return x != x ? x : s;
}

#if ACT == 0
#define FORWARD(F, SIGMOID, x) (x)
#define BACKWARD(F, SIGMOID, x, dy) (dy)
#elif ACT == 1
#define FORWARD(F, SIGMOID, x) ((x) < 0.0f ? (F)(0.0f) : (x))
#define BACKWARD(F, SIGMOID, x, dy) ((x) <= 0.0f ? (F)(0.0f) : (dy))
#elif ACT == 2
#define FORWARD(F, SIGMOID, x) ((x) * SIGMOID(x))
#define BACKWARD(F, SIGMOID, x, dy) silu_gradient_##F(x, dy)
#else
#define FORWARD(F, SIGMOID, x) SIGMOID(x)
#define BACKWARD(F, SIGMOID, x, dy) sigmoid_gradient_##F(x, dy)
#endif

#define DEFINE_GRADIENTS(F, SIGMOID)                                                                                   \
    inline F silu_gradient_##F(F x, F dy)                                                                              \
    {                                                                                                                  \
        F s = SIGMOID(x);                                                                                              \
        return dy * s * fma(x, 1.0f - s, (F)(1.0f));                                                                   \
    }                                                                                                                  \
    inline F sigmoid_gradient_##F(F x, F dy)                                                                           \
    {                                                                                                                  \
        F s = SIGMOID(x);                                                                                              \
        return dy * s * (1.0f - s);                                                                                    \
    }
DEFINE_GRADIENTS(float, sigmoid1)
DEFINE_GRADIENTS(float16, sigmoid16)

// The forward kernels read `in` = x; the backward ones read x and `in` = dy.
#ifndef GRADIENT
#define GRADIENT 0
#endif
#if GRADIENT
#define VALUE16(e) BACKWARD(float16, sigmoid16, vload16(0, x + (e)), vload16(0, in + (e)))
#define VALUE(e) BACKWARD(float, sigmoid1, x[e], in[e])
#else
#define VALUE16(e) forward16(vload16(0, in + (e)))
#define VALUE(e) forward1(in[e])
#endif

inline float16 forward16(float16 x)
{
    return FORWARD(float16, sigmoid16, x);
}

inline float forward1(float x)
{
    return FORWARD(float, sigmoid1, x);
}

#define ACTIVATION_ARGS                                                                                                \
    __global const float *x, ulong x_off, __global const float *in, ulong in_off, __global float *out, ulong out_off,  \
        ulong numel, uint threshold, float scale, uint stream, ulong seed

// Element i of a counter of the generator: it gives words to i * 16 + c % 16 of block c / 16 of 64 elements.
#define ELEMENT(c, i) ((c) / 16 * 64 + (c) % 16 + 16 * (i))

#define DROP(word, value) (DROPOUT_KEEP(word, threshold) ? (value) * scale : 0.0f)

__kernel void activation_vec(ACTIVATION_ARGS)
{
    size_t e = get_global_id(0) * ITEMS, last = min(e + ITEMS, (size_t)numel);
#if GRADIENT
    x += x_off;
#endif
    in += in_off;
    out += out_off;
    for (; e + 64 <= last; e += 64) {
#if DROPOUT
        uint16 w0, w1, w2, w3;
        philox_block(e / 64, stream, seed, &w0, &w1, &w2, &w3);
        float16 zero = (float16)(0.0f);
        vstore16(DROPOUT_KEEP(w0, threshold) ? VALUE16(e) * scale : zero, 0, out + e);
        vstore16(DROPOUT_KEEP(w1, threshold) ? VALUE16(e + 16) * scale : zero, 0, out + e + 16);
        vstore16(DROPOUT_KEEP(w2, threshold) ? VALUE16(e + 32) * scale : zero, 0, out + e + 32);
        vstore16(DROPOUT_KEEP(w3, threshold) ? VALUE16(e + 48) * scale : zero, 0, out + e + 48);
#else
        for (uint i = 0; i < 64; i += 16)
            vstore16(VALUE16(e + i), 0, out + e + i);
#endif
    }
#if DROPOUT
    uint16 words[4]; // an unfinished block, only behind the last whole one
    if (e < last)
        philox_block(e / 64, stream, seed, &words[0], &words[1], &words[2], &words[3]);
#endif
    for (uint i = 0; e < last; ++i, ++e) {
        float value = VALUE(e);
#if DROPOUT
        value = DROP(((uint *)words)[i], value);
#endif
        out[e] = value;
    }
}

// All is read before anything is written: `out` may be `in`, so a compiler cannot move a read past a write.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void activation_simt(ACTIVATION_ARGS)
{
    size_t counter = get_group_id(0) * (WG * COUNTERS) + get_local_id(0);
    float v[COUNTERS][4];
#if GRADIENT
    float at[COUNTERS][4];
    x += x_off;
#endif
    in += in_off;
    out += out_off;
    for (uint c = 0; c < COUNTERS; ++c)
        for (uint i = 0; i < 4; ++i) {
            size_t e = ELEMENT(counter + c * WG, i);
            v[c][i] = e < numel ? in[e] : 0.0f;
#if GRADIENT
            at[c][i] = e < numel ? x[e] : 0.0f;
#endif
        }
    for (uint c = 0; c < COUNTERS; ++c) {
#if DROPOUT
        uint4 w = philox(counter + c * WG, stream, seed);
        uint words[4] = {w.x, w.y, w.z, w.w};
#endif
        for (uint i = 0; i < 4; ++i) {
            size_t e = ELEMENT(counter + c * WG, i);
#if GRADIENT
            float value = BACKWARD(float, sigmoid1, at[c][i], v[c][i]);
#else
            float value = forward1(v[c][i]);
#endif
#if DROPOUT
            value = DROP(words[i], value);
#endif
            if (e < numel)
                out[e] = value;
        }
    }
}
