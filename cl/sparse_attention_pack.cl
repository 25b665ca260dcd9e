// Keys or values [B,T,Hk,WIDTH] of any storage type, copied to f32 rows of [B,Hk,T,...], with zeros behind WIDTH up to a
// whole vector: each kv head's rows together. Pays where a row is gathered several times. Called by
// cldsa_sparse_attention and its backward form (variant vec).

#include "dtype.clh"

#ifndef DTYPE
#define DTYPE F32
#endif
#ifndef WIDTH
#define WIDTH 64 // columns
#endif
#ifndef ROWS
#define ROWS 32 // positions per work-item (8 to 64)
#endif

#define PADDED ((WIDTH + 15) / 16 * 16)

__kernel void sparse_attention_pack(__global const ELEM(DTYPE) *from_, ulong from_off, __global float *to_,
                                    ulong to_off, uint num_keys, uint num_kv_heads)
{
    uint kv_head = get_global_id(1) % num_kv_heads, b = get_global_id(1) / num_kv_heads;
    uint first = get_global_id(0) * ROWS, last = min(first + ROWS, num_keys);
    for (uint t = first; t < last; ++t) {
        ulong from = from_off + (((ulong)b * num_keys + t) * num_kv_heads + kv_head) * WIDTH;
        __global float *to = to_ + to_off + ((ulong)get_global_id(1) * num_keys + t) * PADDED;
        int c = 0;
        for (; c + 16 <= WIDTH; c += 16)
            *(__global float16 *)(to + c) = LOAD16(DTYPE, from_, from + c); // packed rows are aligned
        for (; c < WIDTH; ++c)
            to[c] = LOAD(DTYPE, from_, from + c);
        for (; c < PADDED; ++c)
            to[c] = 0.0f;
    }
}
