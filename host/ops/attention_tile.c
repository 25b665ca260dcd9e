/* Launch shape and tunables of cl/attention_tile.clh. */
#include "host/ops/attention_tile.h"

enum { TUNE_ROWS, TUNE_SPLIT, LANES = 16 };

int64_t cldsa_attention_tile_head_groups(const cldsa_attention_shape *shape, int rows) {
    return shape->kv_heads * cldsa_ceil_div(shape->group, LANES * rows);
}

/* The kernel's local arrays. */
bool cldsa_attention_tile_legal(const cldsa_run *run, const int *tune) {
    const int64_t keys = ATTENTION_TILE_KEYS, depth = 32, pad = 4, heads = LANES * tune[TUNE_ROWS], values = keys * 64;
    int64_t stage = depth * (heads + keys + 2);
    stage = stage > values ? stage : values;
    const int64_t floats = stage + heads * (keys + pad) + heads * LANES + keys;
    return (size_t)floats * sizeof(cl_float) <= cldsa_context_capabilities(run->ctx)->local_mem_bytes;
}

/*
 * Large tiles reuse most; but none of heads that do not exist, none that needs more registers than most devices have,
 * and none so large that there is not a tile for nearly every compute unit.
 */
void cldsa_attention_tile_defaults(const cldsa_run *run, const cldsa_attention_shape *shape, int *tune) {
    enum { GROUPS_PER_UNIT = 2 };
    /* Registers of a work-item for its output columns. */
    const int64_t most_sums = cldsa_context_capabilities(run->ctx)->nv_ptx ? 128 : cldsa_few_registers(run) ? 32 : 64;
    const int64_t units = cldsa_context_device_info(run->ctx)->compute_units;
    const int64_t tiles = cldsa_ceil_div(shape->places, ATTENTION_TILE_KEYS);
    int *rows = &tune[TUNE_ROWS];
    while (*rows > 1 && (!cldsa_attention_tile_legal(run, tune) || shape->group <= LANES * *rows / 2 ||
                         shape->columns / LANES * *rows > most_sums ||
                         shape->queries * cldsa_attention_tile_head_groups(shape, *rows) * tiles < units * 7 / 8))
        *rows /= 2;
    tune[TUNE_SPLIT] = cldsa_attention_default_split(
        run, shape->queries * cldsa_attention_tile_head_groups(shape, *rows), tiles, GROUPS_PER_UNIT);
}
