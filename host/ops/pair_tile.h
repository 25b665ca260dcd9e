/* What the users of cl/pair_tile.clh share on the host. */
#ifndef CLDSA_PAIR_TILE_H
#define CLDSA_PAIR_TILE_H

#include "host/ops/attention_tile.h"

/* In this order, first of a variant's tunables. */
#define CLDSA_TUNE_PAIR_TILE                                                                                           \
    {"ROWS", 4, {1, 2, 4, 8}, "query rows of a work-item"}, {"WG", 256, {128, 256}, "work-items"}, {                   \
        "DEPTH", 32, {16, 32}, "columns of a score product in local memory at a time"                                  \
    }

enum { PAIR_TILE_KEYS = 64 };

/* Of the arrays `stage` and `weights`. */
static inline size_t cldsa_pair_tile_bytes(int64_t queries) {
    const int64_t rows = queries > PAIR_TILE_KEYS ? queries : PAIR_TILE_KEYS;
    return sizeof(cl_float) * (size_t)(64 * rows + (PAIR_TILE_KEYS + 4) * queries);
}

#endif
