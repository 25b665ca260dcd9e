// Attention over the keys that a mask or range leaves visible, forward, on GPUs, for few queries (attention_tile.clh).
// Places are keys. Called by cldsa_masked_attention (variant tile).

#include "masked_attention.clh"

#define KERNEL masked_attention_tile
#define Q_DTYPE DTYPE
#define KV_DTYPE DTYPE
#define KEY_PARAMETERS                                                                                                 \
    __global const MASK_ELEM *mask_, ulong mask_off, __global const int *ks_, ulong ks_off, __global const int *ke_,   \
        ulong ke_off
#define KEY_ARGUMENTS mask_ + mask_off, ks_ + ks_off, ke_ + ke_off
#define SINKS ((__global const float *)0)

inline uint2 row_places(uint b, uint s, uint num_queries, uint num_keys, __global const MASK_ELEM *mask,
                        __global const int *ks, __global const int *ke)
{
    ulong first = (ulong)b * num_queries;
    return convert_uint2(row_range(s, num_queries, num_keys, ks + first, ke + first));
}

inline uint key_at(uint place, ulong row, uint num_keys, __global const MASK_ELEM *mask, __global const int *ks,
                   __global const int *ke)
{
#if MASK == 1
    return mask[row * MASK_ROW(num_keys) + place] != 0 ? place : num_keys;
#elif MASK == 2
    return (mask[row * MASK_ROW(num_keys) + place / 32] >> (place & 31)) & 1u ? place : num_keys;
#else
    return place;
#endif
}

#include "attention_tile.clh"
