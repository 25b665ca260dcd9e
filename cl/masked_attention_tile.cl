// Attention over the keys that a mask or range leaves visible, forward, on GPUs, where many heads share a kv head, of few
// queries (attention_tile.clh). Called by cldsa_masked_attention (variant tile).

#include "masked_attention_keys.clh"

#define KERNEL masked_attention_tile
#include "attention_tile.clh"
