#include "host/ops/slab.h"

/* `extent` entries from `first` on along the second axis. */
static cldsa_tensor cut(cldsa_tensor tensor, const cldsa_slab *slab, int64_t first, int64_t extent) {
    int64_t inner = 1;
    if (!tensor.mem)
        return tensor;
    for (int axis = 2; axis < tensor.rank; ++axis)
        inner *= tensor.shape[axis];
    tensor.offset += (size_t)((slab->first_batch * tensor.shape[1] + first) * inner);
    tensor.shape[0] = slab->batches;
    tensor.shape[1] = extent;
    return tensor;
}

cldsa_tensor cldsa_slab_rows(cldsa_tensor tensor, const cldsa_slab *slab) {
    return cut(tensor, slab, slab->first_row, slab->rows);
}

cldsa_tensor cldsa_slab_keys(cldsa_tensor tensor, const cldsa_slab *slab) {
    return cut(tensor, slab, 0, slab->keys);
}

cldsa_indexer_scores_args cldsa_slab_scores(const cldsa_indexer_inputs *in, const cldsa_slab *slab,
                                            cldsa_tensor scratch) {
    return (cldsa_indexer_scores_args){
        .q = cldsa_slab_rows(*in->q, slab),
        .k = cldsa_slab_keys(*in->k, slab),
        .w = in->w->rank == 1 ? *in->w : cldsa_slab_rows(*in->w, slab),
        .k_scale = cldsa_slab_keys(*in->k_scale, slab),
        .ks = cldsa_slab_rows(*in->ks, slab),
        .ke = cldsa_slab_rows(*in->ke, slab),
        .scores = CLDSA_TENSOR(scratch.mem, scratch.offset, CLDSA_F32, slab->batches, slab->rows, slab->keys),
        .range = in->range,
        .relu_out = in->relu_out,
    };
}

size_t cldsa_slab_scores_bytes(const cldsa_slab *slab) {
    enum { ALIGNMENT = 256 };
    return (size_t)cldsa_round_up(slab->batches * slab->rows * slab->keys * (int64_t)sizeof(cl_float), ALIGNMENT);
}

cldsa_slab cldsa_slab_of(const cldsa_indexer_inputs *in, int64_t batches, int64_t rows) {
    return (cldsa_slab){.batches = batches, .rows = rows, .keys = in->T};
}

cldsa_slab cldsa_slab_largest(const cldsa_run *run, const cldsa_indexer_inputs *in, size_t bytes,
                              size_t (*need)(const cldsa_run *run, const cldsa_slab *slab)) {
    cldsa_slab sequence = cldsa_slab_of(in, 1, in->S);
    bool whole = need(run, &sequence) <= bytes;
    int64_t least = 1, beyond = whole ? in->B + 1 : in->S;
    while (beyond - least > 1) {
        int64_t middle = least + (beyond - least) / 2;
        cldsa_slab slab = whole ? cldsa_slab_of(in, middle, in->S) : cldsa_slab_of(in, 1, middle);
        if (need(run, &slab) <= bytes)
            least = middle;
        else
            beyond = middle;
    }
    return whole ? cldsa_slab_of(in, least, in->S) : cldsa_slab_of(in, 1, least);
}

cldsa_status cldsa_slab_each(cldsa_run *run, const cldsa_indexer_inputs *in, const cldsa_slab *size,
                             cldsa_status (*enqueue)(cldsa_run *run, const cldsa_slab *slab)) {
    cldsa_slab s = *size;
    for (s.first_batch = 0; s.first_batch < in->B; s.first_batch += size->batches) {
        s.batches = size->batches < in->B - s.first_batch ? size->batches : in->B - s.first_batch;
        for (s.first_row = 0; s.first_row < in->S; s.first_row += size->rows) {
            s.rows = size->rows < in->S - s.first_row ? size->rows : in->S - s.first_row;
            if (in->range == CLDSA_RANGE_CAUSAL)
                s.keys = in->T - in->S + s.first_row + s.rows;
            CLDSA_TRY(enqueue(run, &s));
        }
    }
    return CLDSA_SUCCESS;
}
