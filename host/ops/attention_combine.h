/* Attention rows whose keys several work-groups share: parts in scratch, and the pass that combines them. */
#ifndef CLDSA_OPS_ATTENTION_COMBINE_H
#define CLDSA_OPS_ATTENTION_COMBINE_H

#include "host/ops/op.h"

/* The kernels' scores are logarithms to base 2. */
#define CLDSA_LOG2_E 1.44269504088896340736

typedef struct cldsa_attention_rows {
    cldsa_tensor out, lse, attn_sink; /* [rows,columns], [rows] or no mem, [heads] or no mem */
    int64_t rows, heads, columns;     /* rows = B*S*H */
} cldsa_attention_rows;

/* How the places (keys) of a row are cut: part p has those from p * size on. */
typedef struct cldsa_attention_parts {
    int64_t count, size;
} cldsa_attention_parts;

/* The tunable of variants that can cut rows, and its default: the power of two that gives `per_unit` groups to each
 * compute unit, if `groups` would run without it and there are `tiles` tiles of keys. */
#define CLDSA_TUNE_ATTENTION_SPLIT                                                                                     \
    { "SPLIT", 1, {1, 2, 4, 8, 16, 32, 64, 128}, "parts into which a row's keys are cut, at most" }
int cldsa_attention_default_split(const cldsa_run *run, int64_t groups, int64_t tiles, int per_unit);

/* `split` parts of whole tiles of `tile` places, no more than there are tiles. */
cldsa_attention_parts cldsa_attention_cut(int64_t places, int64_t tile, int split);

/* Scratch for `count` parts; 0 for one. */
size_t cldsa_attention_parts_bytes(const cldsa_attention_rows *rows, int64_t count);

/* As _cut, with as many parts as the call's workspace holds. */
cldsa_attention_parts cldsa_attention_cut_to_fit(const cldsa_run *run, const cldsa_attention_rows *rows, int64_t places,
                                                 int64_t tile, int split);

/* The parts as a tensor, for the kernel that writes them; without mem for one part. */
cldsa_tensor cldsa_attention_scratch(const cldsa_run *run, const cldsa_attention_rows *rows, int64_t count);

/* Enqueues the second pass (cl/attention_combine.cl). */
cldsa_status cldsa_attention_combine(cldsa_run *run, const cldsa_attention_rows *rows, int64_t count);

#endif
