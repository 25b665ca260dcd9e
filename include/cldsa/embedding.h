/*
 * Token embedding with learned absolute positions: out[n,:] = table[ids[n],:] + positions[n mod S,:].
 */
#ifndef CLDSA_EMBEDDING_H
#define CLDSA_EMBEDDING_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_embedding_args {
    cldsa_tensor ids;       /* i32 [B,S]; an id outside 0 .. V-1 reads as zeros */
    cldsa_tensor table;     /* f32 [V,D] */
    cldsa_tensor positions; /* f32 [P,D], P >= S, optional */
    cldsa_tensor out;       /* out f32 [B,S,D] */
} cldsa_embedding_args;

CLDSA_API cldsa_status cldsa_embedding(cldsa_context *ctx, const cldsa_embedding_args *args, const cldsa_call *call);
CLDSA_API cldsa_status cldsa_embedding_workspace(cldsa_context *ctx, const cldsa_embedding_args *args, size_t *bytes);

/* Deterministic: the order of a table row's sum depends on the ids alone. Rows without a token get zeros. */
typedef struct cldsa_embedding_backward_args {
    cldsa_tensor ids;        /* i32 [B,S] */
    cldsa_tensor dout;       /* f32 [B,S,D] */
    cldsa_tensor dtable;     /* out f32 [V,D] */
    cldsa_tensor dpositions; /* out f32 [P,D], optional; rows >= S get zeros */
} cldsa_embedding_backward_args;

CLDSA_API cldsa_status cldsa_embedding_backward(cldsa_context *ctx, const cldsa_embedding_backward_args *args,
                                                const cldsa_call *call);
CLDSA_API cldsa_status cldsa_embedding_backward_workspace(cldsa_context *ctx, const cldsa_embedding_backward_args *args,
                                                          size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
