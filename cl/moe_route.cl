// Routing of tokens to experts: top-X choice, softmax weights, and a stable counting sort of the rows by expert.
//
//   l = logits[n,:] + noise;  experts[n,:] = the CHOICES largest, descending, ties to the lowest expert
//   weights[n,:] = softmax over the chosen l;  position[n,x] = row of (n,x) when sorted by (expert, token)
//
// Two launches over blocks of BLOCK tokens, one work-group of WG work-items each:
//
//   moe_route_choose   experts, weights, and count[block][expert] of the block      (integers: any order, same sum)
//   moe_route_place    start of the block's rows of expert e = all rows of experts < e
//                      + rows of e in earlier blocks; then each row's rank inside its block
//
// Every block sums the counts it needs itself, which is cheaper than a third launch. WG = 1 (CPUs) walks the block in
// order; wider groups (GPUs) give each work-item a token and count its predecessors.
// Called by cldsa_moe_route, moe_route_backward by cldsa_moe_route_backward.

#include "philox.clh"

#ifndef EXPERTS
#define EXPERTS 4 // number of experts E (1 to 256)
#endif
#ifndef CHOICES
#define CHOICES 2 // experts per token X (1 to EXPERTS)
#endif
#ifndef NOISE
#define NOISE 0 // 1: add N(0, noise_std^2) to the logits
#endif
#ifndef BLOCK
#define BLOCK 128 // tokens per work-group (64 to 512; a multiple of WG)
#endif
#ifndef WG
#define WG 1 // work-items per group (1 on CPUs, BLOCK on GPUs)
#endif

// Inserts expert e into the descending list; an equal value stays behind those already there, which are lower experts.
inline void insert_choice(float *value, int *expert, float v, int e)
{
    int placed = 0;
    for (int x = 0; x < CHOICES; ++x) {
        placed |= expert[x] < 0 || v > value[x];
        float v_out = value[x];
        int e_out = expert[x];
        value[x] = placed ? v : v_out;
        expert[x] = placed ? e : e_out;
        v = placed ? v_out : v;
        e = placed ? e_out : e;
    }
}

inline void choose_experts(__global const float *logits, ulong first, float noise_std, ulong seed, uint stream,
                           float *value, int *expert)
{
    for (int x = 0; x < CHOICES; ++x) {
        value[x] = -INFINITY;
        expert[x] = -1;
    }
#if NOISE
    float4 normals = (float4)(0.0f);
#endif
    for (int e = 0; e < EXPERTS; ++e) {
        float v = logits[first + e];
#if NOISE
        ulong element = first + e;
        uint lane = (uint)element & 3u;
        if (e == 0 || lane == 0u)
            normals = philox_normal4(element >> 2, stream, seed);
        v += noise_std * (lane == 0u ? normals.x : lane == 1u ? normals.y : lane == 2u ? normals.z : normals.w);
#endif
        insert_choice(value, expert, isnan(v) ? -INFINITY : v, e);
    }
}

__kernel void moe_route_choose(__global const float *logits_, ulong logits_off, __global int *experts_,
                               ulong experts_off, __global float *weights_, ulong weights_off, __global int *count_,
                               ulong count_off, uint num_tokens, float noise_std, ulong seed, uint stream)
{
    __global const float *logits = logits_ + logits_off;
    __local int count[EXPERTS];
    uint lane = get_local_id(0), block = get_group_id(0);

    for (uint e = lane; e < EXPERTS; e += WG)
        count[e] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);

    for (uint i = lane; i < BLOCK; i += WG) {
        uint token = block * BLOCK + i;
        if (token >= num_tokens)
            continue;
        float value[CHOICES];
        int expert[CHOICES];
        choose_experts(logits, (ulong)token * EXPERTS, noise_std, seed, stream, value, expert);

        // Equal values differ by 0, infinite ones too.
        float weight[CHOICES], sum = 0.0f;
        for (int x = 0; x < CHOICES; ++x) {
            weight[x] = value[x] == value[0] ? 1.0f : exp(value[x] - value[0]);
            sum += weight[x];
        }
        for (int x = 0; x < CHOICES; ++x) {
            experts_[experts_off + (ulong)token * CHOICES + x] = expert[x];
            weights_[weights_off + (ulong)token * CHOICES + x] = weight[x] / sum;
#if WG == 1
            ++count[expert[x]];
#else
            atomic_inc(&count[expert[x]]);
#endif
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint e = lane; e < EXPERTS; e += WG)
        count_[count_off + (ulong)block * EXPERTS + e] = count[e];
}

__kernel void moe_route_place(__global const int *experts_, ulong experts_off, __global const int *count_,
                              ulong count_off, __global int *group_offsets_, ulong group_offsets_off,
                              __global int *position_, ulong position_off, uint num_tokens, uint num_blocks)
{
    __global const int *experts = experts_ + experts_off;
    __global const int *count = count_ + count_off;
    __local int total[EXPERTS]; // rows of the expert
    __local int next[EXPERTS];  // rows of the expert in earlier blocks, then the first free row
    uint lane = get_local_id(0), block = get_group_id(0);

    for (uint e = lane; e < EXPERTS; e += WG) {
        int before = 0, all = 0;
        for (uint b = 0; b < num_blocks; ++b) {
            int c = count[(ulong)b * EXPERTS + e];
            before += b < block ? c : 0;
            all += c;
        }
        next[e] = before;
        total[e] = all;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lane == 0) {
        int start = 0;
        for (int e = 0; e < EXPERTS; ++e) {
            if (block == 0)
                group_offsets_[group_offsets_off + e] = start;
            next[e] += start;
            start += total[e];
        }
        if (block == 0)
            group_offsets_[group_offsets_off + EXPERTS] = start;
    }

#if WG == 1
    for (uint i = 0; i < BLOCK; ++i) {
        uint token = block * BLOCK + i;
        if (token >= num_tokens)
            break;
        for (int x = 0; x < CHOICES; ++x) {
            ulong at = (ulong)token * CHOICES + x;
            position_[position_off + at] = next[experts[at]]++;
        }
    }
#else
    __local int chosen[BLOCK * CHOICES];
    for (uint i = lane; i < BLOCK * CHOICES; i += WG) {
        ulong at = (ulong)block * BLOCK * CHOICES + i;
        chosen[i] = at < (ulong)num_tokens * CHOICES ? experts[at] : -1;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = lane; i < BLOCK * CHOICES; i += WG) {
        int e = chosen[i];
        if (e < 0)
            continue;
        int row = next[e];
        for (uint j = 0; j < i; ++j)
            row += chosen[j] == e;
        ulong at = (ulong)block * BLOCK * CHOICES + i;
        position_[position_off + at] = row;
    }
#endif
}

// dlogits[n,e] = w_x (dw_x - sum_y w_y dw_y) where e is choice x of the token, else 0. One work-item per token and
// expert; a CPU's work-item takes ROWS whole tokens instead.
#ifndef ROWS
#define ROWS 1 // tokens per work-item (1 on GPUs, 64 on CPUs)
#endif
#ifndef COLS
#define COLS 1 // experts per work-item (1 on GPUs, all on CPUs)
#endif

__kernel void moe_route_backward(__global const int *experts_, ulong experts_off, __global const float *weights_,
                                 ulong weights_off, __global const float *dweights_, ulong dweights_off,
                                 __global float *dlogits_, ulong dlogits_off, uint num_tokens)
{
    uint e0 = get_global_id(0) * COLS, e1 = min(e0 + COLS, (uint)EXPERTS);
    uint n0 = get_global_id(1) * ROWS, n1 = min(n0 + ROWS, num_tokens);
    for (uint n = n0; n < n1; ++n) {
        __global const int *expert = experts_ + experts_off + (ulong)n * CHOICES;
        __global const float *w = weights_ + weights_off + (ulong)n * CHOICES;
        __global const float *dw = dweights_ + dweights_off + (ulong)n * CHOICES;
        __global float *dlogits = dlogits_ + dlogits_off + (ulong)n * EXPERTS;
        float mean = 0.0f;
        for (int x = 0; x < CHOICES; ++x)
            mean = fma(w[x], dw[x], mean);
        for (uint e = e0; e < e1; ++e) {
            float g = 0.0f;
            for (int x = 0; x < CHOICES; ++x)
                g = (uint)expert[x] == e ? w[x] * (dw[x] - mean) : g;
            dlogits[e] = g;
        }
    }
}
