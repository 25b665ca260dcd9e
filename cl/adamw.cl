// AdamW over a flat range, one launch (host/ops/adamw.c), in PyTorch's order:
//   g *= min(1, max_norm / sqrt(norm2))                      where clipping is on
//   p *= 1 - lr * weight_decay;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p -= step_size * m / (sqrt(v) * v_scale + eps),   step_size = lr / (1 - b1^step),  v_scale = 1 / sqrt(1 - b2^step)
// The host finds the last two in double. Per element 16 bytes are read and 12 written: memory is all that counts.
#include "inline.clh"

#ifndef ITEMS
#define ITEMS 1024 // elements per work-item, vec; a multiple of 16 (256 .. 8192)
#endif
#ifndef WG
#define WG 256 // work-items per group, simt (64 .. 256)
#endif
#ifndef CLIP
#define CLIP 0 // scale the gradient by the norm found on the device
#endif

typedef struct adamw_rates {
    float decay, b1, one_minus_b1, b2, one_minus_b2, step_size, v_scale, eps;
} adamw_rates;

#define ADAMW_UPDATE(F, p, g, m, v, rate)                                                                              \
    {                                                                                                                  \
        m = fma(m, (F)((rate).b1), g * (rate).one_minus_b1);                                                           \
        v = fma(v, (F)((rate).b2), g * g * (rate).one_minus_b2);                                                       \
        p = p * (rate).decay - (rate).step_size * m / fma(sqrt(v), (F)((rate).v_scale), (F)((rate).eps));              \
    }

#define ADAMW_ARGS                                                                                                     \
    __global float *p_, ulong p_off, __global const float *g_, ulong g_off, __global float *m_, ulong m_off,           \
        __global float *v_, ulong v_off, __global const float *norm2, ulong norm2_off, ulong numel, float decay,       \
        float b1, float one_minus_b1, float b2, float one_minus_b2, float step_size, float v_scale, float eps,         \
        float max_norm
#define ADAMW_RATES {decay, b1, one_minus_b1, b2, one_minus_b2, step_size, v_scale, eps}

// The factor of the gradient; 1 if the norm is within bounds. As PyTorch's clip_grad_norm_, without its 1e-6.
inline float clip_factor(__global const float *norm2, float max_norm)
{
#if CLIP
    float norm = sqrt(*norm2);
    return norm > max_norm ? max_norm / norm : 1.0f;
#else
    return 1.0f;
#endif
}

__kernel void adamw_vec(ADAMW_ARGS)
{
    adamw_rates rate = ADAMW_RATES;
    float factor = clip_factor(norm2 + norm2_off, max_norm);
    size_t e = get_global_id(0) * ITEMS, last = min(e + ITEMS, (size_t)numel);
    __global float *p = p_ + p_off, *m = m_ + m_off, *v = v_ + v_off;
    __global const float *g = g_ + g_off;
    for (; e + 16 <= last; e += 16) {
        float16 pe = vload16(0, p + e), ge = vload16(0, g + e) * factor, me = vload16(0, m + e), ve = vload16(0, v + e);
        ADAMW_UPDATE(float16, pe, ge, me, ve, rate);
        vstore16(pe, 0, p + e);
        vstore16(me, 0, m + e);
        vstore16(ve, 0, v + e);
    }
    for (; e < last; ++e) {
        float pe = p[e], ge = g[e] * factor, me = m[e], ve = v[e];
        ADAMW_UPDATE(float, pe, ge, me, ve, rate);
        p[e] = pe;
        m[e] = me;
        v[e] = ve;
    }
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void adamw_simt(ADAMW_ARGS)
{
    adamw_rates rate = ADAMW_RATES;
    size_t e = get_global_id(0);
    if (e >= numel)
        return;
    float pe = p_[p_off + e], ge = g_[g_off + e] * clip_factor(norm2 + norm2_off, max_norm), me = m_[m_off + e],
          ve = v_[v_off + e];
    ADAMW_UPDATE(float, pe, ge, me, ve, rate);
    p_[p_off + e] = pe;
    m_[m_off + e] = me;
    v_[v_off + e] = ve;
}
