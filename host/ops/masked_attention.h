/* What the parts of masked_attention share: the call, as forward and backward pass see it. */
#ifndef CLDSA_OPS_MASKED_ATTENTION_H
#define CLDSA_OPS_MASKED_ATTENTION_H

#include "host/ops/attention_combine.h"

#include <cldsa/masked_attention.h>

#include <math.h>

enum { MASKED_B, MASKED_S, MASKED_H, MASKED_D, MASKED_T, MASKED_HK, MASKED_DV }; /* the operation's dimensions */

enum { MASKED_KEYS = 64 }; /* of a tile, and of a block of dropout words */

/* What both operations know about a call. */
typedef struct cldsa_masked_call {
    const cldsa_tensor *q, *k, *v, *mask, *ks, *ke, *lse;
    cldsa_range range;
    float softmax_scale, dropout_p;
    uint64_t seed;
    uint32_t stream;
} cldsa_masked_call;

#define CLDSA_MASKED_CALL(args)                                                                                        \
    {                                                                                                                  \
        &(args)->q, &(args)->k, &(args)->v, &(args)->mask, &(args)->ks, &(args)->ke, &(args)->lse, (args)->range,      \
            (args)->softmax_scale, (args)->dropout_p, (args)->dropout_seed, (args)->dropout_stream                     \
    }

static inline double cldsa_masked_scale(const cldsa_masked_call *call, int64_t d) {
    return call->softmax_scale != 0 ? call->softmax_scale : 1 / sqrt((double)d);
}

static inline float cldsa_masked_dropout_scale(const cldsa_masked_call *call) {
    return 1.0f / (1.0f - call->dropout_p);
}

/* What every kernel is built with, and `more`. */
void cldsa_masked_options(const cldsa_run *run, const cldsa_masked_call *call, const char *more, char *options);

#define MASKED_INPUT_ARGS(args)                                                                                        \
    CLDSA_ARG_TENSOR((args)->q), CLDSA_ARG_TENSOR((args)->k), CLDSA_ARG_TENSOR((args)->v),                             \
        CLDSA_ARG_TENSOR((args)->mask), CLDSA_ARG_TENSOR((args)->ks), CLDSA_ARG_TENSOR((args)->ke)

/* The rows of a forward call; room for all parts that SPLIT asks for. Without any, a row's keys stay together. */
cldsa_attention_rows cldsa_masked_rows(const cldsa_run *run);
void cldsa_masked_split_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum);

/* The forward pass where many heads share a kv head, of few queries and of many; whether the latter is the default. */
extern const cldsa_variant cldsa_masked_attention_tile, cldsa_masked_attention_slab;
bool cldsa_masked_slab_pays(const cldsa_run *run);

/* In fp64, of plain loops. */
void cldsa_masked_attention_reference(const cldsa_reference_call *reference);
void cldsa_masked_attention_backward_reference(const cldsa_reference_call *reference);

#endif
