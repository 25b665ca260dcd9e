// Attention over a selection, forward, on GPUs, where many heads share a kv head, of many queries (attention_slab.clh).
// Called by cldsa_sparse_attention (variant slab).

#include "sparse_attention_keys.clh"

#include "attention_slab.clh"
