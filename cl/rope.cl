// Rotary position embedding, and the packing of multi-head latent attention's heads that goes with it.
//
//   angle(s, i) = position(s) * theta^(-2i / ROPE),  i = 0 .. ROPE/2
//   (a, b) -> (a cos - b sin, a sin + b cos);  the inverse rotates by -angle, which is the transpose
//
// Which elements form pair i, read -> written:
//   HALF        (i, i + ROPE/2)  -> the same
//   INTERLEAVED (2i, 2i + 1)     -> the same
//   REGROUP     (2i, 2i + 1)     -> (i, i + ROPE/2);  its transpose reads halves and writes pairs
//
// rope: one work-item per head of a row. mla_pack and its backward: one work-item per HEADS_PER_ITEM heads of a row, so that a
// CPU computes a row's sines once for all heads and a GPU has enough work-items. Launched by host/ops/rope.c.

#ifndef ROPE
#define ROPE 16 // rotated elements per head (16, 64)
#endif
#ifndef STYLE
#define STYLE 2 // 0 HALF, 1 INTERLEAVED, 2 REGROUP
#endif
#ifndef INVERSE
#define INVERSE 0
#endif
#ifndef HAS_POSITIONS
#define HAS_POSITIONS 0
#endif
#ifndef HEADS_PER_ITEM
#define HEADS_PER_ITEM 1 // heads of a row that one work-item packs (1 on GPUs, all on CPUs)
#endif

#define HALF_ROPE (ROPE / 2)

// Where pair i stands in the untouched and in the rotated vector.
#define PLAIN_A(i) (STYLE == 0 ? (i) : 2 * (i))
#define PLAIN_B(i) (STYLE == 0 ? (i) + HALF_ROPE : 2 * (i) + 1)
#define TURNED_A(i) (STYLE == 1 ? 2 * (i) : (i))
#define TURNED_B(i) (STYLE == 1 ? 2 * (i) + 1 : (i) + HALF_ROPE)

// log2_theta = log2(theta), so that theta^(-2i/ROPE) is one exp2.
inline void angles(float position, float log2_theta, float *cosine, float *sine)
{
    for (int i = 0; i < HALF_ROPE; ++i) {
        float angle = position * exp2(-log2_theta * (float)(2 * i) / (float)ROPE);
        cosine[i] = cos(angle);
        sine[i] = sin(angle);
    }
}

inline void rotate_forward(__global const float *x, __global float *y, const float *cosine, const float *sine)
{
    float in[ROPE];
    for (int i = 0; i < ROPE; ++i)
        in[i] = x[i];
    for (int i = 0; i < HALF_ROPE; ++i) {
        float a = in[PLAIN_A(i)], b = in[PLAIN_B(i)];
        y[TURNED_A(i)] = a * cosine[i] - b * sine[i];
        y[TURNED_B(i)] = b * cosine[i] + a * sine[i];
    }
}

inline void rotate_back(const float *in, __global float *y, const float *cosine, const float *sine)
{
    for (int i = 0; i < HALF_ROPE; ++i) {
        float a = in[TURNED_A(i)], b = in[TURNED_B(i)];
        y[PLAIN_A(i)] = a * cosine[i] + b * sine[i];
        y[PLAIN_B(i)] = b * cosine[i] - a * sine[i];
    }
}

__kernel void rope(__global const float *x, ulong x_off, __global const int *positions, ulong positions_off,
                   __global float *y, ulong y_off, float log2_theta, uint rows, uint S, uint H, uint D)
{
    size_t item = get_global_id(0);
    if (item >= (size_t)rows * H)
        return;
    size_t row = item / H;
#if HAS_POSITIONS
    float position = (float)positions[positions_off + row];
#else
    float position = (float)(row % S);
#endif
    float cosine[HALF_ROPE], sine[HALF_ROPE];
    angles(position, log2_theta, cosine, sine);
    x += x_off + item * D;
    y += y_off + item * D;
    uint plain = D - ROPE;
    for (uint d = 0; d < plain; ++d)
        y[d] = x[d];
#if INVERSE
    float in[ROPE];
    for (int i = 0; i < ROPE; ++i)
        in[i] = x[plain + i];
    rotate_back(in, y + plain, cosine, sine);
#else
    rotate_forward(x + plain, y + plain, cosine, sine);
#endif
}

inline void copy(__global const float *from, __global float *to, uint count)
{
    uint d = 0;
    for (; d + 8 <= count; d += 8)
        vstore8(vload8(0, from + d), 0, to + d);
    for (; d < count; ++d)
        to[d] = from[d];
}

// q_in [N,H,P], kv [N,H,nope+V], kv_a [N,A] (its last ROPE columns) -> q [N,H,P], k [N,H,P], v [N,H,V]; P = nope + ROPE.
__kernel void mla_pack(__global const float *q_in, ulong q_in_off, __global const float *kv, ulong kv_off,
                       __global const float *kv_a, ulong kv_a_off, __global float *q, ulong q_off, __global float *k,
                       ulong k_off, __global float *v, ulong v_off, float log2_theta, uint rows, uint S, uint H, uint P,
                       uint V, uint A)
{
    uint groups = (H + HEADS_PER_ITEM - 1) / HEADS_PER_ITEM;
    size_t item = get_global_id(0), row = item / groups;
    if (row >= rows)
        return;
    float cosine[HALF_ROPE], sine[HALF_ROPE];
    angles((float)(row % S), log2_theta, cosine, sine);
    uint nope = P - ROPE, first = (uint)(item % groups) * HEADS_PER_ITEM, last = min(first + HEADS_PER_ITEM, H);
    __global const float *shared = kv_a + kv_a_off + row * A + A - ROPE;
    for (uint h = first; h < last; ++h) {
        size_t head = row * H + h;
        __global const float *q_from = q_in + q_in_off + head * P, *kv_from = kv + kv_off + head * (nope + V);
        __global float *q_to = q + q_off + head * P, *k_to = k + k_off + head * P;
        copy(q_from, q_to, nope);
        rotate_forward(q_from + nope, q_to + nope, cosine, sine);
        copy(kv_from, k_to, nope);
        rotate_forward(shared, k_to + nope, cosine, sine);
        copy(kv_from + nope, v + v_off + head * V, V);
    }
}

// The transpose: the shared rotary key sums the gradients of all heads, in head order, then turns back.
__kernel void mla_pack_backward(__global const float *dq, ulong dq_off, __global const float *dk, ulong dk_off,
                                __global const float *dv, ulong dv_off, __global float *dq_in, ulong dq_in_off,
                                __global float *dkv, ulong dkv_off, __global float *dkv_a, ulong dkv_a_off,
                                float log2_theta, uint rows, uint S, uint H, uint P, uint V, uint A)
{
    uint groups = (H + HEADS_PER_ITEM - 1) / HEADS_PER_ITEM;
    size_t item = get_global_id(0), row = item / groups;
    if (row >= rows)
        return;
    float cosine[HALF_ROPE], sine[HALF_ROPE], in[ROPE];
    angles((float)(row % S), log2_theta, cosine, sine);
    uint nope = P - ROPE, first = (uint)(item % groups) * HEADS_PER_ITEM, last = min(first + HEADS_PER_ITEM, H);
    for (uint h = first; h < last; ++h) {
        size_t head = row * H + h;
        __global const float *q_from = dq + dq_off + head * P;
        __global float *q_to = dq_in + dq_in_off + head * P, *kv_to = dkv + dkv_off + head * (nope + V);
        copy(q_from, q_to, nope);
        for (int i = 0; i < ROPE; ++i)
            in[i] = q_from[nope + i];
        rotate_back(in, q_to + nope, cosine, sine);
        copy(dk + dk_off + head * P, kv_to, nope);
        copy(dv + dv_off + head * V, kv_to + nope, V);
    }
    if (first != 0)
        return;
    for (int i = 0; i < ROPE; ++i)
        in[i] = 0.0f;
    for (uint h = 0; h < H; ++h) {
        __global const float *from = dk + dk_off + (row * H + h) * P + nope;
        for (int i = 0; i < ROPE; ++i)
            in[i] += from[i];
    }
    rotate_back(in, dkv_a + dkv_a_off + row * A + A - ROPE, cosine, sine);
}
