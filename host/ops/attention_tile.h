/* What the variants on cl/attention_tile.clh share: their launch shape and tunables. */
#ifndef CLDSA_OPS_ATTENTION_TILE_H
#define CLDSA_OPS_ATTENTION_TILE_H

#include "host/ops/attention_combine.h"

enum { ATTENTION_TILE_WG = 256, ATTENTION_TILE_KEYS = 64 };

/* What launch shapes go by; cl/attention_slab.clh's (attention_slab.h) too. */
typedef struct cldsa_attention_shape {
    int64_t queries, kv_heads, group; /* queries of all batch elements; heads of a kv head */
    int64_t columns, places;          /* of the output; keys that a row can have */
} cldsa_attention_shape;

/* The first two tunables of such a variant, in this order. */
#define CLDSA_TUNE_ATTENTION_TILE                                                                                      \
    {"ROWS", 4, {1, 2, 4}, "heads of a work-item; a work-group has 16 times as many"}, CLDSA_TUNE_ATTENTION_SPLIT
void cldsa_attention_tile_defaults(const cldsa_run *run, const cldsa_attention_shape *shape, int *tune);
bool cldsa_attention_tile_legal(const cldsa_run *run, const int *tune);

/* Work-groups for a row of one query's heads. */
int64_t cldsa_attention_tile_head_groups(const cldsa_attention_shape *shape, int rows);

#endif
