/* What the parts of masked_attention share: the call, as forward and backward pass see it. */
#ifndef CLDSA_OPS_MASKED_ATTENTION_H
#define CLDSA_OPS_MASKED_ATTENTION_H

#include "host/ops/op.h"

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

/* In fp64, of plain loops. */
void cldsa_masked_attention_reference(const cldsa_reference_call *reference);
void cldsa_masked_attention_backward_reference(const cldsa_reference_call *reference);

#endif
