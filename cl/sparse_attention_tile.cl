// Attention over a selection, forward, on GPUs, where many heads share a kv head (attention_tile.clh).
// Called by cldsa_sparse_attention (variant tile).

#include "dtype.clh"
#include "sparse_attention.clh"

#define KERNEL sparse_attention_tile
#define KEY_PARAMETERS                                                                                                 \
    __global const int *indices_, ulong indices_off, __global const int *topk_length_, ulong topk_length_off,          \
        __global const float *attn_sink_, ulong attn_sink_off, uint topk
#define KEY_ARGUMENTS indices_ + indices_off, topk_length_ + topk_length_off, topk
#define SINKS attn_sink_ + attn_sink_off

inline uint2 row_places(uint b, uint s, uint num_queries, uint num_keys, __global const int *indices,
                        __global const int *topk_length, uint topk)
{
    return (uint2)(0, row_end(topk_length, (ulong)b * num_queries + s, topk));
}

inline uint key_at(uint place, ulong row, uint num_keys, __global const int *indices, __global const int *topk_length,
                   uint topk)
{
    return (uint)indices[row * topk + place];
}

#include "attention_tile.clh"
