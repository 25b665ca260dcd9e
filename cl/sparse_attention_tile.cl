// Attention over a selection, forward, on GPUs, where many heads share a kv head (attention_tile.clh).
// Called by cldsa_sparse_attention (variant tile).

#include "sparse_attention_keys.clh"

#define KERNEL sparse_attention_tile
#include "attention_tile.clh"
