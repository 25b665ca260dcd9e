/* The indexer's scores in slabs, for operations that must not hold all of them at once: select, indexer_kl. */
#ifndef CLDSA_OPS_SLAB_H
#define CLDSA_OPS_SLAB_H

#include "host/ops/indexer_scores.h"

/*
 * Queries first_row .. first_row + rows of `batches` sequences, and the first `keys` keys. More than one sequence only
 * with all their rows. A causal slab needs no key behind its last query's; that makes its own end the place where
 * the causal range ends, so the slab is an ordinary causal call. Its keys may be 0 or fewer: none is seen.
 */
typedef struct cldsa_slab {
    int64_t first_batch, batches, first_row, rows, keys;
} cldsa_slab;

/* `tensor` [B,S,...] or [B,T,...] cut to the slab; not given stays so. */
cldsa_tensor cldsa_slab_rows(cldsa_tensor tensor, const cldsa_slab *slab);
cldsa_tensor cldsa_slab_keys(cldsa_tensor tensor, const cldsa_slab *slab);

/* The call that computes a slab's scores [batches,rows,keys] into `scratch`. */
cldsa_indexer_scores_args cldsa_slab_scores(const cldsa_indexer_inputs *in, const cldsa_slab *slab,
                                            cldsa_tensor scratch);

/* Bytes of these scores, rounded up so that other scratch may follow. */
size_t cldsa_slab_scores_bytes(const cldsa_slab *slab);

/* All keys, and the first rows. */
cldsa_slab cldsa_slab_of(const cldsa_indexer_inputs *in, int64_t batches, int64_t rows);

/* The largest slab for which `need` bytes of scratch are at most `bytes`; one row if there is none. */
cldsa_slab cldsa_slab_largest(const cldsa_run *run, const cldsa_indexer_inputs *in, size_t bytes,
                              size_t (*need)(const cldsa_run *run, const cldsa_slab *slab));

/* Calls `enqueue` for slabs of the size of `size` that make up the whole, in order. */
cldsa_status cldsa_slab_each(cldsa_run *run, const cldsa_indexer_inputs *in, const cldsa_slab *size,
                             cldsa_status (*enqueue)(cldsa_run *run, const cldsa_slab *slab));

#endif
