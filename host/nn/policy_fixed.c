/*
 * A fixed number of keys per row: index_topk, or keep_ratio of the keys the row sees.
 *
 * Not causal: k = floor(ratio * S), at least 1, as published. Causal: k = round(ratio * seen), at least 1, with
 * cldsa_keep_rows' rounding, so that a controller that arrives at the same ratio keeps the same number.
 */
#include "host/nn/policy.h"

#include <math.h>
#include <stdlib.h>

static void place(cldsa_policy_layer *layer, const cldsa_nn *nn, cldsa_arena *kept, cldsa_arena *scratch) {
    (void)scratch;
    layer->k_rows = nn->config->causal ? CLDSA_PLACE(kept, CLDSA_I32, nn->batch, nn->seq_len)
                                       : CLDSA_PLACE(kept, CLDSA_I32, nn->batch);
}

static int32_t keys_kept(const cldsa_config *config, int64_t seen) {
    if (config->index_topk > 0)
        return config->index_topk < seen ? config->index_topk : (int32_t)seen;
    /* The published floor was taken in double; rounding happens in f32 on the device. */
    int64_t k = config->causal ? (int64_t)rintf((float)config->keep_ratio * (float)seen)
                               : (int64_t)floor(config->keep_ratio * (double)seen);
    return (int32_t)(k < 1 ? 1 : k > seen ? seen : k);
}

/* k depends on the shape alone, so it is written once. */
static cldsa_status prepare(cldsa_policy_layer *layer, cldsa_nn *nn) {
    int64_t count = cldsa_tensor_numel(&layer->k_rows);
    int32_t *k = malloc((size_t)count * sizeof *k);
    if (!k)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %lld row counts", (long long)count);
    for (int64_t i = 0; i < count; ++i)
        k[i] = keys_kept(nn->config, nn->config->causal ? i % nn->seq_len + 1 : nn->seq_len);
    cl_int error = clEnqueueWriteBuffer(nn->call.queue, layer->k_rows.mem, CL_TRUE, layer->k_rows.offset * sizeof *k,
                                        (size_t)count * sizeof *k, k, 0, NULL, NULL);
    free(k);
    return error ? cldsa_fail(error, "writing the row counts of a layer failed") : CLDSA_SUCCESS;
}

const cldsa_policy cldsa_policy_fixed = {
    .name = "fixed",
    .summary = "a fixed number (index_topk) or part (keep_ratio) of the keys a row sees",
    .layer_bytes = sizeof(cldsa_policy_layer),
    .place = place,
    .prepare = prepare,
};
