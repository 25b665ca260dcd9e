/* What the users of cl/pair_tile.clh share on the host. */
#ifndef CLDSA_PAIR_TILE_H
#define CLDSA_PAIR_TILE_H

#include "host/ops/attention_tile.h"

/* The first of a variant's tunables. */
enum { PAIR_ROWS, PAIR_WG, PAIR_DEPTH, PAIR_TUNABLES };
#define CLDSA_TUNE_PAIR_TILE                                                                                           \
    {"ROWS", 4, {1, 2, 4, 8}, "query rows of a work-item"}, {"WG", 256, {128, 256}, "work-items"}, {                   \
        "DEPTH", 32, {16, 32}, "columns of a score product in local memory at a time"                                  \
    }

enum { PAIR_TILE_KEYS = 64 };

static inline int64_t cldsa_pair_tile_queries(const int *tune) {
    return tune[PAIR_WG] / 16 * tune[PAIR_ROWS];
}

/* Whether `stage`, `weights` and what else a kernel has for each query fit into local memory. */
static inline bool cldsa_pair_tile_legal(const cldsa_run *run, const int *tune, int64_t floats_per_query) {
    const int64_t queries = cldsa_pair_tile_queries(tune), rows = queries > PAIR_TILE_KEYS ? queries : PAIR_TILE_KEYS;
    const int64_t floats = 64 * rows + (PAIR_TILE_KEYS + 4 + floats_per_query) * queries;
    return (size_t)floats * sizeof(cl_float) <= cldsa_context_capabilities(run->ctx)->local_mem_bytes &&
           (size_t)tune[PAIR_WG] <= cldsa_context_device_info(run->ctx)->max_work_group_size;
}

#endif
