// Attention over the keys that a mask or range leaves visible, forward, on GPUs, where many heads share a kv head, of
// many queries (attention_slab.clh). Called by cldsa_masked_attention (variant slab).

#include "masked_attention_keys.clh"

#include "attention_slab.clh"
