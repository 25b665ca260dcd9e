// Softmax cross-entropy of rows with its gradient, one launch (host/ops/cross_entropy.c).
//
//   loss = log(sum of exp(x - max)) + max - x[label];   dlogits = grad_scale * (softmax - onehot(label))
//   correct = 1 if x[label] is the row's largest, the lowest index deciding ties
//
// vec passes over a row three times: maximum; sum of exponentials, kept in dlogits where it is wanted; scaling. A label
// outside 0 .. V-1 gives zeros. NaN anywhere, or +inf, makes the row's loss NaN, as it should be seen.
// vec: a work-item takes ROWS rows. simt: a work-group per row. dlogits may be logits: what the label's logit is must be
// known before the last pass writes.
#include "math.clh"

#ifndef ROWS
#define ROWS 4 // rows per work-item, vec (1 .. 16)
#endif
#ifndef WG
#define WG 256 // work-items per row, simt; a power of two (64 .. 1024)
#endif
#ifndef PER_LANE
#define PER_LANE 4 // of a row's classes in registers, simt (4 .. 32)
#endif
#ifndef HAS_CORRECT
#define HAS_CORRECT 1
#endif
#ifndef HAS_GRADIENT
#define HAS_GRADIENT 1
#endif
#include "rows.clh"

#define CROSS_ENTROPY_ARGS                                                                                             \
    __global const float *logits, ulong logits_off, __global const int *labels, ulong labels_off,                      \
        __global float *row_loss, ulong row_loss_off, __global float *row_correct, ulong row_correct_off,              \
        __global float *dlogits, ulong dlogits_off, uint rows, uint classes, float grad_scale

// ---- vec --------------------------------------------------------------------------------------------------------

inline float row_max(__global const float *x, uint classes)
{
    float16 acc = (float16)(-INFINITY);
    float best = -INFINITY;
    uint j = 0;
    for (; j + 16 <= classes; j += 16)
        acc = MAX_OF(vload16(0, x + j), acc);
    for (; j < classes; ++j)
        best = MAX_OF(x[j], best);
    return MAX_OF(max16(acc), best);
}

// Sum of exp(x - shift); leaves the terms in `terms` where the gradient is wanted.
inline float row_exp(__global const float *x, __global float *terms, uint classes, float shift)
{
    float16 acc = (float16)(0.0f);
    float rest = 0.0f;
    uint j = 0;
    for (; j + 16 <= classes; j += 16) {
        float16 e = exp_fast16(vload16(0, x + j) - shift);
        acc += e;
#if HAS_GRADIENT
        vstore16(e, 0, terms + j);
#endif
    }
    for (; j < classes; ++j) {
        float e = exp_fast(x[j] - shift);
        rest += e;
#if HAS_GRADIENT
        terms[j] = e;
#endif
    }
    return sum16(acc) + rest;
}

inline void row_scale(__global float *terms, uint classes, float scale)
{
    uint j = 0;
    for (; j + 16 <= classes; j += 16)
        vstore16(vload16(0, terms + j) * scale, 0, terms + j);
    for (; j < classes; ++j)
        terms[j] *= scale;
}

inline int is_first(__global const float *x, uint label, float best)
{
    if (x[label] != best)
        return 0;
    for (uint j = 0; j < label; ++j)
        if (x[j] == best)
            return 0;
    return 1;
}

__kernel void cross_entropy_vec(CROSS_ENTROPY_ARGS)
{
    uint first = get_global_id(0) * ROWS, last = min(first + ROWS, rows);
    for (uint r = first; r < last; ++r) {
        __global const float *x = logits + logits_off + (size_t)r * classes;
        __global float *terms = dlogits + dlogits_off + (size_t)r * classes;
        int label = labels[labels_off + r];
        float loss = 0.0f, correct = 0.0f;
        if (label >= 0 && (uint)label < classes) {
            float best = row_max(x, classes), own = x[label];
#if HAS_CORRECT
            correct = (float)is_first(x, (uint)label, best);
#endif
            float sum = row_exp(x, terms, classes, best);
            loss = log(sum) + (best - own);
#if HAS_GRADIENT
            row_scale(terms, classes, grad_scale / sum);
            terms[label] -= grad_scale;
#endif
        } else {
#if HAS_GRADIENT
            for (uint j = 0; j < classes; ++j)
                terms[j] = 0.0f;
#endif
        }
        row_loss[row_loss_off + r] = loss;
#if HAS_CORRECT
        row_correct[row_correct_off + r] = correct;
#endif
    }
}

// ---- simt -------------------------------------------------------------------------------------------------------

#define STEP (PER_LANE * WG) // classes that a group holds in registers at once; a lane's are WG apart

#define READ_STEP(v, first)                                                                                            \
    _Pragma("unroll") for (uint i = 0; i < PER_LANE; ++i)                                                              \
    {                                                                                                                  \
        uint j = (first) + lane + i * WG;                                                                              \
        v[i] = j < classes ? x[j] : -INFINITY;                                                                         \
    }

// A GPU's own instruction, where exp_fast's dozen would cost more than the memory: on an H200, 2048 rows of 32000, 0.213 ms
// by exp_fast, 0.177 by exp2, 0.170 by native_exp, which is this product and this instruction there, but clang's NVIDIA
// target does not know it. An error of a few ulp is far below what the sum over a row rounds.
inline float exp_of(float x)
{
    return native_exp2(x * 1.44269504f);
}

// What a sum of exp(x - from) is worth as a sum of exp(x - to), from <= to. A sum of nothing but exp(-inf) is 0 or NaN.
// By exp_fast: with exp_of here too the whole took 0.184 ms, perhaps because then no branch leaves it out.
inline float rebased(float sum, float from, float to)
{
    return from == to ? sum : sum * (from == -INFINITY ? 0.0f : exp_fast(from - to));
}

// An unscored row runs the same passes, so that no barrier is skipped, and gets zeros in the end. The first pass finds
// the maximum and the sum together, by the sum's rebasing wherever the maximum grows (Milakov and Gimelshein 2018, "Online
// normalizer calculation for softmax"). The second begins with the classes whose exponentials are still in registers,
// and reads the others again.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void cross_entropy_simt(CROSS_ENTROPY_ARGS)
{
    __local float scratch[WG];
    size_t r = get_group_id(0);
    uint lane = get_local_id(0), last = (classes - 1) / STEP * STEP;
    __global const float *x = logits + logits_off + r * classes;
    int label = labels[labels_off + r];
    int scored = label >= 0 && (uint)label < classes;
    float own = scored ? x[label] : 0.0f, v[PER_LANE];

    float top = -INFINITY, sum = 0.0f, before = 0.0f; // `before` counts equals with a lower index
    for (uint first = 0; first <= last; first += STEP) {
        READ_STEP(v, first)
        float larger = top;
        _Pragma("unroll") for (uint i = 0; i < PER_LANE; ++i)
        {
            larger = MAX_OF(v[i], larger);
#if HAS_CORRECT
            before += (int)(first + lane + i * WG) < label && v[i] == own ? 1.0f : 0.0f;
#endif
        }
        sum = rebased(sum, top, larger);
        top = larger;
        float shift = top == -INFINITY ? 0.0f : top;
        _Pragma("unroll") for (uint i = 0; i < PER_LANE; ++i)
        {
            v[i] = exp_of(v[i] - shift);
            sum += v[i];
        }
    }
    float best = group_max(scratch, top);
    sum = group_sum(scratch, rebased(sum, top, best));
#if HAS_CORRECT
    before = group_sum(scratch, before);
#endif

#if HAS_GRADIENT
    __global float *gradient = dlogits + dlogits_off + r * classes;
    float scale = grad_scale / sum, factor = rebased(scale, top, best); // `factor`: of what v holds
    barrier(CLK_GLOBAL_MEM_FENCE); // in place: all have read x[label] before its lane writes there
    for (uint first = last;; first -= STEP) {
        if (first != last) {
            READ_STEP(v, first)
            _Pragma("unroll") for (uint i = 0; i < PER_LANE; ++i) v[i] = exp_of(v[i] - best);
            factor = scale;
        }
        _Pragma("unroll") for (uint i = 0; i < PER_LANE; ++i)
        {
            uint j = first + lane + i * WG;
            if (j < classes)
                gradient[j] = scored ? v[i] * factor - ((int)j == label ? grad_scale : 0.0f) : 0.0f;
        }
        if (first == 0)
            break;
    }
#endif
    if (lane == 0) {
        row_loss[row_loss_off + r] = scored ? log(sum) + (best - own) : 0.0f;
#if HAS_CORRECT
        row_correct[row_correct_off + r] = scored && own == best && before == 0.0f ? 1.0f : 0.0f;
#endif
    }
}
