// The inverse of a selection: for every key the places that name it, in the order of their queries.
//
//   indices [B,S,K]  ->  start [B,T+1], entry [B,S*K]: places entry[start[t]] .. entry[start[t+1]-1] name key t; place
//                        s*K + i is the i-th of query s
//
// A counting sort by blocks of CHUNK queries:
//   index_count    count[b][chunk][t] = how often the chunk's queries chose t
//   index_offsets  count becomes the number in earlier chunks; total[b][t]
//   index_starts   start = running sum of total; one work-group per batch
//   index_fill     each chunk writes its places behind those of earlier chunks, one query after the other
// Integer atomics only decide which of one query's places stands first where it names a key twice. Such places have
// gradients of the same bits, so the sum over a key's entries is the same in every run.
// Called by cldsa_sparse_attention_backward (variants simt and tile).

#include "inline.clh"

#ifndef HAS_LENGTH
#define HAS_LENGTH 0 // 1: topk_length is given
#endif

#define WG 256

inline uint row_end(__global const int *topk_length, ulong row, uint topk)
{
#if HAS_LENGTH
    return (uint)clamp(topk_length[row], 0, (int)topk);
#else
    return topk;
#endif
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
index_count(__global const int *indices_, ulong indices_off, __global const int *topk_length_, ulong topk_length_off,
            __global uint *count_, ulong count_off, uint num_queries, uint num_keys, uint topk, uint chunk)
{
    uint lane = get_local_id(0), b = get_group_id(1);
    __global uint *count = count_ + count_off + ((ulong)b * get_num_groups(0) + get_group_id(0)) * num_keys;
    for (uint t = lane; t < num_keys; t += WG)
        count[t] = 0;
    barrier(CLK_GLOBAL_MEM_FENCE);
    uint first = get_group_id(0) * chunk, last = min(first + chunk, num_queries);
    for (uint s = first; s < last; ++s) {
        ulong row = (ulong)b * num_queries + s;
        uint end = row_end(topk_length_ + topk_length_off, row, topk);
        for (uint i = lane; i < end; i += WG) {
            uint t = (uint)indices_[indices_off + row * topk + i];
            if (t < num_keys)
                atomic_inc(count + t);
        }
    }
}

__kernel void index_offsets(__global uint *count_, ulong count_off, __global uint *total_, ulong total_off,
                            uint num_keys, uint num_chunks)
{
    uint t = get_global_id(0), b = get_global_id(1);
    if (t >= num_keys)
        return;
    uint sum = 0;
    for (uint i = 0; i < num_chunks; ++i) {
        ulong at = count_off + ((ulong)b * num_chunks + i) * num_keys + t;
        uint c = count_[at];
        count_[at] = sum;
        sum += c;
    }
    total_[total_off + (ulong)b * num_keys + t] = sum;
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
index_starts(__global const uint *total_, ulong total_off, __global uint *start_, ulong start_off, uint num_keys)
{
    __local uint sums[WG];
    uint lane = get_local_id(0), b = get_group_id(0), share = (num_keys + WG - 1) / WG;
    __global const uint *total = total_ + total_off + (ulong)b * num_keys;
    __global uint *start = start_ + start_off + (ulong)b * (num_keys + 1);
    uint first = min(lane * share, num_keys), last = min(first + share, num_keys), sum = 0;
    for (uint t = first; t < last; ++t)
        sum += total[t];
    sums[lane] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    uint before = 0;
    for (uint i = 0; i < lane; ++i)
        before += sums[i];
    for (uint t = first; t < last; ++t) {
        start[t] = before;
        before += total[t];
    }
    if (lane == WG - 1)
        start[num_keys] = before;
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
index_fill(__global const int *indices_, ulong indices_off, __global const int *topk_length_, ulong topk_length_off,
           __global uint *count_, ulong count_off, __global const uint *start_, ulong start_off,
           __global uint *entry_, ulong entry_off, uint num_queries, uint num_keys, uint topk, uint chunk)
{
    uint lane = get_local_id(0), b = get_group_id(1);
    __global uint *count = count_ + count_off + ((ulong)b * get_num_groups(0) + get_group_id(0)) * num_keys;
    __global const uint *start = start_ + start_off + (ulong)b * (num_keys + 1);
    __global uint *entry = entry_ + entry_off + (ulong)b * num_queries * topk;
    uint first = get_group_id(0) * chunk, last = min(first + chunk, num_queries);
    for (uint s = first; s < last; ++s) {
        ulong row = (ulong)b * num_queries + s;
        uint end = row_end(topk_length_ + topk_length_off, row, topk);
        for (uint i = lane; i < end; i += WG) {
            uint t = (uint)indices_[indices_off + row * topk + i];
            if (t < num_keys)
                entry[start[t] + atomic_inc(count + t)] = s * topk + i;
        }
        barrier(CLK_GLOBAL_MEM_FENCE); // the next query's entries come behind
    }
}
