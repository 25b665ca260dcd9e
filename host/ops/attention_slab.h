/* What the variants on cl/attention_slab.clh share: scratch, launches and tunables. */
#ifndef CLDSA_OPS_ATTENTION_SLAB_H
#define CLDSA_OPS_ATTENTION_SLAB_H

#include "host/ops/attention_tile.h"

/* The tunables of such a variant, in this order. */
enum { SLAB_HEAD_TILE, SLAB_KEY_TILE, SLAB_COLUMN_TILE, SLAB_TK, SLAB_WM, SLAB_WN, SLAB_MIB, SLAB_UNROLL };
// clang-format off
#define CLDSA_TUNE_ATTENTION_SLAB                                                                                      \
    {"HEAD_TILE", 128, {16, 32, 64, 128}, "heads of a work-group"},                                                    \
    {"KEY_TILE", 128, {64, 128}, "places of a work-group that computes scores"},                                       \
    {"COLUMN_TILE", 128, {64, 128}, "columns of a work-group that sums values"},                                       \
    {"TK", 16, {8, 16, 32}, "steps of a reduction per local tile"},                                                    \
    {"WM", 8, {4, 8}, "places of a work-item in the scores, heads in the sums"},                                       \
    {"WN", 8, {4, 8}, "heads of a work-item in the scores, columns in the sums"},                                      \
    {"SLAB_MIB", 512, {32, 128, 256, 512, 2048}, "MiB of scratch for the queries taken together, at most"},            \
    CLDSA_TUNE_UNROLL
// clang-format on
void cldsa_attention_slab_defaults(const cldsa_run *run, const cldsa_attention_shape *shape, int *tune);
bool cldsa_attention_slab_legal(const cldsa_run *run, const int *tune);

/* Whether any tunables are legal here, and a row's numbers fit into the kernels' 32 bits. */
bool cldsa_attention_slab_can_run(const cldsa_run *run, const cldsa_attention_shape *shape);

/* Whether it pays, by default: a kv head has as many heads, and there are tiles enough for the device. */
bool cldsa_attention_slab_pays(const cldsa_run *run, const cldsa_attention_shape *shape, int64_t many_heads);

/* Scratch for as many queries as SLAB_MIB holds, and for one. */
void cldsa_attention_slab_workspace(const cldsa_run *run, const cldsa_attention_shape *shape, size_t *preferred,
                                    size_t *minimum);

/* What the kernels are given. */
typedef struct cldsa_attention_slab_call {
    cldsa_attention_shape shape;
    cldsa_tensor q, k, v, out, lse; /* in latent form v is k; lse may have no mem */
    int64_t num_queries, num_keys;  /* of a batch element */
    double scale;                   /* of scores that are natural logarithms */
    const char *options;            /* what all are built with */
    const cldsa_arg *keys;          /* KEY_PARAMETERS */
    int num_keys_args;
} cldsa_attention_slab_call;

/* Enqueues the passes for as many queries at a time as the workspace holds. */
cldsa_status cldsa_attention_slab_enqueue(cldsa_run *run, const cldsa_attention_slab_call *call);

#endif
