/* Attention rows in parts. Kernel: cl/attention_combine.cl. */
#include "host/ops/attention_combine.h"

#include <stdio.h>

int cldsa_attention_default_split(const cldsa_run *run, int64_t groups, int64_t tiles, int per_unit) {
    const int64_t units = cldsa_context_device_info(run->ctx)->compute_units;
    int split = 1;
    while (groups * split < units * per_unit && split < tiles && split < 128)
        split *= 2;
    return split;
}

cldsa_attention_parts cldsa_attention_cut(int64_t places, int64_t tile, int split) {
    const int64_t tiles = cldsa_ceil_div(places, tile);
    const int64_t most = split < 1 ? 1 : split;
    const int64_t size = cldsa_ceil_div(tiles, most < tiles ? most : tiles);
    return (cldsa_attention_parts){.count = cldsa_ceil_div(tiles, size), .size = size * tile};
}

static int64_t part_floats(const cldsa_attention_rows *rows) {
    enum { STATS = 2 }; /* maximum and sum */
    return rows->rows * (rows->columns + STATS);
}

size_t cldsa_attention_parts_bytes(const cldsa_attention_rows *rows, int64_t count) {
    return count > 1 ? (size_t)(count * part_floats(rows)) * sizeof(cl_float) : 0;
}

cldsa_attention_parts cldsa_attention_cut_to_fit(const cldsa_run *run, const cldsa_attention_rows *rows, int64_t places,
                                                 int64_t tile, int split) {
    const int64_t held = run->workspace ? (int64_t)(run->workspace_bytes / sizeof(cl_float)) / part_floats(rows) : 1;
    return cldsa_attention_cut(places, tile, held < split ? (int)held : split);
}

cldsa_tensor cldsa_attention_scratch(const cldsa_run *run, const cldsa_attention_rows *rows, int64_t count) {
    return count > 1 ? cldsa_run_scratch(run, 0, CLDSA_F32, count * part_floats(rows)) : (cldsa_tensor){0};
}

cldsa_status cldsa_attention_combine(cldsa_run *run, const cldsa_attention_rows *rows, int64_t count) {
    enum { WG = 64 };
    char options[CLDSA_OPTIONS_MAX];
    snprintf(options, sizeof options, "-DDV=%d -DO_DTYPE=%s -DHAS_LSE=%d -DHAS_SINK=%d", (int)rows->columns,
             cldsa_dtype_macro(rows->out.dtype), rows->lse.mem != NULL, rows->attn_sink.mem != NULL);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_get_kernel(run->ctx, "attention_combine.cl", "attention_combine", options, &kernel));
    const size_t local[2] = {WG, 1};
    const size_t global[2] = {(size_t)cldsa_round_up(rows->columns, WG), (size_t)rows->rows};
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local,
                         CLDSA_ARG_TENSOR(cldsa_attention_scratch(run, rows, count)), CLDSA_ARG_TENSOR(rows->attn_sink),
                         CLDSA_ARG_TENSOR(rows->out), CLDSA_ARG_TENSOR(rows->lse), CLDSA_ARG_U32(rows->heads),
                         CLDSA_ARG_U32(count));
}
