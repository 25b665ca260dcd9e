/* The list of all operations. Each is described in its own file; one line here makes it known everywhere. */
#include "host/ops/op.h"

#include <string.h>

/* Per stem: the operations of host/ops/STEM.c. */
extern const cldsa_op cldsa_op_activation, cldsa_op_activation_backward;
extern const cldsa_op cldsa_op_adamw;
/* controller */
extern const cldsa_op cldsa_op_controller_moments;
extern const cldsa_op cldsa_op_controller_perplexity;
extern const cldsa_op cldsa_op_controller_entropy;
extern const cldsa_op cldsa_op_controller_k;
extern const cldsa_op cldsa_op_keep_rows;
extern const cldsa_op cldsa_op_cross_entropy;
extern const cldsa_op cldsa_op_embedding, cldsa_op_embedding_backward;
/* gemm */
extern const cldsa_op cldsa_op_gemm;
extern const cldsa_op cldsa_op_indexer_kl, cldsa_op_indexer_kl_backward;
/* indexer_scores */
extern const cldsa_op cldsa_op_indexer_scores, cldsa_op_indexer_scores_backward;
extern const cldsa_op cldsa_op_layer_norm, cldsa_op_layer_norm_backward;
extern const cldsa_op cldsa_op_masked_attention, cldsa_op_masked_attention_backward;
/* moe */
extern const cldsa_op cldsa_op_moe_route;
extern const cldsa_op cldsa_op_moe_route_backward;
extern const cldsa_op cldsa_op_moe_dispatch;
extern const cldsa_op cldsa_op_moe_dispatch_backward;
extern const cldsa_op cldsa_op_moe_combine;
extern const cldsa_op cldsa_op_moe_combine_backward;
extern const cldsa_op cldsa_op_reduce, cldsa_op_column_sum;
extern const cldsa_op cldsa_op_rms_norm, cldsa_op_rms_norm_backward;
/* rope */
extern const cldsa_op cldsa_op_rope, cldsa_op_mla_pack, cldsa_op_mla_pack_backward;
/* select */
extern const cldsa_op cldsa_op_select;
/* sparse_attention */
extern const cldsa_op cldsa_op_sparse_attention;
extern const cldsa_op cldsa_op_sparse_attention_backward;
extern const cldsa_op cldsa_op_topk;

const cldsa_op *const cldsa_catalogue[] = {
    &cldsa_op_activation,
    &cldsa_op_activation_backward,
    &cldsa_op_adamw,
    /* controller */
    &cldsa_op_controller_moments,
    &cldsa_op_controller_perplexity,
    &cldsa_op_controller_entropy,
    &cldsa_op_controller_k,
    &cldsa_op_keep_rows,
    &cldsa_op_cross_entropy,
    &cldsa_op_embedding,
    &cldsa_op_embedding_backward,
    /* gemm */
    &cldsa_op_gemm,
    &cldsa_op_indexer_kl,
    &cldsa_op_indexer_kl_backward,
    /* indexer_scores */
    &cldsa_op_indexer_scores,
    &cldsa_op_indexer_scores_backward,
    &cldsa_op_layer_norm,
    &cldsa_op_layer_norm_backward,
    &cldsa_op_masked_attention,
    &cldsa_op_masked_attention_backward,
    /* moe */
    &cldsa_op_moe_route,
    &cldsa_op_moe_route_backward,
    &cldsa_op_moe_dispatch,
    &cldsa_op_moe_dispatch_backward,
    &cldsa_op_moe_combine,
    &cldsa_op_moe_combine_backward,
    &cldsa_op_reduce,
    &cldsa_op_column_sum,
    &cldsa_op_rms_norm,
    &cldsa_op_rms_norm_backward,
    /* rope */
    &cldsa_op_rope,
    &cldsa_op_mla_pack,
    &cldsa_op_mla_pack_backward,
    /* select */
    &cldsa_op_select,
    /* sparse_attention */
    &cldsa_op_sparse_attention,
    &cldsa_op_sparse_attention_backward,
    &cldsa_op_topk,
    NULL,
};

enum { MAX_OPS = 128 };

cldsa_status cldsa_find_op(const char *name, const cldsa_op **out) {
    const char *names[MAX_OPS] = {NULL};
    size_t count = 0;
    for (; cldsa_catalogue[count] && count < MAX_OPS; ++count) {
        names[count] = cldsa_catalogue[count]->name;
        if (strcmp(names[count], name) == 0) {
            *out = cldsa_catalogue[count];
            return CLDSA_SUCCESS;
        }
    }
    const char *nearest = cldsa_nearest_name(name, names, count);
    return cldsa_fail(CLDSA_NOT_FOUND, "there is no operation \"%s\"%s%s%s", name, nearest ? "; did you mean " : "",
                      nearest ? nearest : "", nearest ? "?" : "");
}
