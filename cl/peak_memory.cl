// What a device's memory reaches: reading and copying a set of words again and again, reading local memory, and how
// long nothing takes. All in whole numbers modulo 2^32, so that the host knows every result exactly.
//
//     word e of the set is e * WORD_FACTOR                               peak_fill
//     out[i] = sum of the words that work-item i read, all passes        peak_read
//     target = source, once per pass                                     peak_copy
//     out[i] = sum of what it read of its group's local words            peak_local
//     *count = *count + 1                                                peak_launch, one work-item
//
// A pass goes over `quads` vectors of four words. CPUs (BLOCKED): a work-item owns a stretch of them, which stays in
// its core's cache if it fits. GPUs: neighbours read neighbours, and each pass starts elsewhere, so that what a
// compute unit has read before is not what it reads next: the sets find the caches that all of them share.
#include "inline.clh"

#ifndef BLOCKED
#define BLOCKED 0
#endif
#ifndef WG
#define WG 256 // work-items per group, peak_local (64 .. 256)
#endif
#ifndef LOCAL_QUADS
#define LOCAL_QUADS 1024 // vectors of four words in local memory (a multiple of WG, and a power of two)
#endif

#define WORD_FACTOR 2654435761u

__kernel void peak_fill(__global uint *words, ulong count)
{
    for (ulong e = get_global_id(0); e < count; e += get_global_size(0))
        words[e] = (uint)e * WORD_FACTOR;
}

#if BLOCKED

// Stretches are whole sixteens of words: `quads` is a multiple of 4 times the number of work-items.
__kernel void peak_read(__global const uint *words, __global uint *out, uint quads, uint passes)
{
    uint items = (uint)get_global_size(0), item = (uint)get_global_id(0), own = quads / items / 4u;
    __global const uint *first = words + (ulong)item * own * 16u;
    uint16 a = 0u, b = 0u, c = 0u, d = 0u;
    for (uint p = 0; p < passes; ++p) {
        uint i = 0;
        for (; i + 4u <= own; i += 4u) {
            a += vload16(i, first);
            b += vload16(i + 1u, first);
            c += vload16(i + 2u, first);
            d += vload16(i + 3u, first);
        }
        for (; i < own; ++i)
            a += vload16(i, first);
    }
    uint16 sum = a + b + c + d;
    uint8 s8 = sum.lo + sum.hi;
    uint4 s4 = s8.lo + s8.hi;
    out[item] = s4.x + s4.y + s4.z + s4.w;
}

__kernel void peak_copy(__global const uint *source, __global uint *target, uint quads, uint passes)
{
    uint items = (uint)get_global_size(0), item = (uint)get_global_id(0), own = quads / items / 4u;
    source += (ulong)item * own * 16u;
    target += (ulong)item * own * 16u;
    for (uint p = 0; p < passes; ++p)
        for (uint i = 0; i < own; ++i)
            vstore16(vload16(i, source), i, target);
}

#else

// The next pass starts about a third of the set further. `quads` is at least the number of work-items.
inline uint next_start(uint start, uint quads)
{
    start += quads / 3u + 1u;
    return start < quads ? start : start - quads;
}

__kernel void peak_read(__global const uint4 *words, __global uint *out, uint quads, uint passes)
{
    uint items = (uint)get_global_size(0), item = (uint)get_global_id(0);
    uint4 sum = 0u;
    for (uint p = 0, start = 0; p < passes; ++p, start = next_start(start, quads)) {
#pragma unroll 8
        for (uint i = item; i < quads; i += items) {
            uint at = i + start;
            sum += words[at < quads ? at : at - quads];
        }
    }
    out[item] = sum.x + sum.y + sum.z + sum.w;
}

__kernel void peak_copy(__global const uint4 *source, __global uint4 *target, uint quads, uint passes)
{
    uint items = (uint)get_global_size(0), item = (uint)get_global_id(0);
    for (uint p = 0, start = 0; p < passes; ++p, start = next_start(start, quads)) {
#pragma unroll 4
        for (uint i = item; i < quads; i += items) {
            uint at = i + start;
            at = at < quads ? at : at - quads;
            target[at] = source[at];
        }
    }
}

#endif

// passes is a multiple of LOCAL_QUADS: every work-item reads every vector equally often, from its own place on.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void peak_local(__global uint *out, uint factor, uint passes)
{
    __local uint4 tile[LOCAL_QUADS];
    uint lane = (uint)get_local_id(0);
    for (uint i = lane; i < LOCAL_QUADS; i += WG)
        tile[i] = ((uint4)(i * 4u) + (uint4)(0u, 1u, 2u, 3u)) * factor;
    barrier(CLK_LOCAL_MEM_FENCE);
    uint4 a = 0u, b = 0u;
    for (uint p = 0; p < passes; p += 8u) {
        uint at = lane + p;
        a += tile[at % LOCAL_QUADS];
        b += tile[(at + 1u) % LOCAL_QUADS];
        a += tile[(at + 2u) % LOCAL_QUADS];
        b += tile[(at + 3u) % LOCAL_QUADS];
        a += tile[(at + 4u) % LOCAL_QUADS];
        b += tile[(at + 5u) % LOCAL_QUADS];
        a += tile[(at + 6u) % LOCAL_QUADS];
        b += tile[(at + 7u) % LOCAL_QUADS];
    }
    a += b;
    out[get_global_id(0)] = a.x + a.y + a.z + a.w;
}

__kernel void peak_launch(__global uint *count)
{
    *count += 1u;
}
