/* What indexer_scores, its backward pass and select share on the host. */
#ifndef CLDSA_OPS_INDEXER_SCORES_H
#define CLDSA_OPS_INDEXER_SCORES_H

#include <cldsa/indexer_scores.h>

#include "host/ops/op.h"

extern const cldsa_op cldsa_op_indexer_scores, cldsa_op_indexer_scores_backward;
extern const char *const cldsa_range_names[];

/* The inputs of a call, whichever of the operations it is for. */
typedef struct cldsa_indexer_inputs {
    const cldsa_tensor *q, *k, *w, *k_scale, *ks, *ke;
    cldsa_range range;
    bool relu_out;
    int64_t B, S, T, H, Hk, D;
} cldsa_indexer_inputs;

#define CLDSA_INDEXER_INPUTS(a, dims)                                                                                  \
    ((cldsa_indexer_inputs){&(a)->q, &(a)->k, &(a)->w, &(a)->k_scale, &(a)->ks, &(a)->ke, (a)->range, (a)->relu_out,   \
                            (dims)[0], (dims)[1], (dims)[2], (dims)[3], (dims)[4], (dims)[5]})

/* The first fields of the three operations' tables, in CLDSA_INDEXER_DIMS. */
#define CLDSA_INDEXER_DIMS "B", "S", "T", "H", "Hk", "D"
#define CLDSA_INDEXER_FIELDS(args)                                                                                     \
    CLDSA_IN(args, q, "B S H D", CLDSA_ACCEPT_FLOAT, "queries"),                                                       \
        CLDSA_IN(args, k, "B T Hk D", CLDSA_ACCEPT_FLOAT, "keys, one per head or (Hk = 1) one for all; dtype of q"),   \
        CLDSA_IN(args, w, "H|B S H", CLDSA_ACCEPT_F32, "weights of the heads"),                                        \
        CLDSA_IN_OPT(args, k_scale, "B T", CLDSA_ACCEPT_F32, "factor of a key's scores"),                              \
        CLDSA_IN_OPT(args, ks, "B S", CLDSA_ACCEPT_I32, "first visible key, for range=rows"),                          \
        CLDSA_IN_OPT(args, ke, "B S", CLDSA_ACCEPT_I32, "end of the visible keys, for range=rows")
enum { CLDSA_INDEXER_KS = 4, CLDSA_INDEXER_KE, CLDSA_INDEXER_NUM_INPUTS }; /* places in the table */
#define CLDSA_INDEXER_PARAMS(args)                                                                                     \
    CLDSA_PARAM_ENUM(args, range, cldsa_range_names, "which keys a query sees"),                                       \
        CLDSA_PARAM(args, relu_out, BOOL, 0, 0, 1, "relu of the weighted sum")

/* What the field tables cannot say: Hk, dtypes, ks and ke, extents that fit the kernels' ints. */
cldsa_status cldsa_indexer_check(const cldsa_run *run, const cldsa_indexer_inputs *in);

/* The -D of tunables and inputs for cl/indexer_scores.clh, and whatever `more` says. */
void cldsa_indexer_options(const cldsa_run *run, const cldsa_indexer_inputs *in, char *options, const char *more);

/* Options that say whether rows of q and k can be read four elements at a time. */
enum { INDEXER_FOURS = 32 };
void cldsa_indexer_fours(const cldsa_indexer_inputs *in, char options[INDEXER_FOURS]);

/* Whether query i of batch b sees key j; `tensors` are those of the table's fields. */
bool cldsa_indexer_visible(const cldsa_indexer_inputs *in, const cldsa_host_tensor *tensors, int64_t b, int64_t i,
                           int64_t j);

static inline double cldsa_indexer_relu(double x) {
    return x < 0 ? 0 : x; /* NaN stays */
}

/* Pairs of a query and a key it sees, as far as the host knows: ranges per row count as dense. */
double cldsa_indexer_pairs(const cldsa_indexer_inputs *in);

#endif
