/*
 * Sparsity policies: how many keys each row keeps.
 *
 * The indexer ranks the keys; a policy says, on the device, how far down the ranking a row goes. One file per policy
 * (policy_*.c) and a line in policy.c; blocks and attention know none of them by name. A policy may own parameters, per
 * layer, and take part in the backward pass. k never travels to the host inside a step.
 */
#ifndef CLDSA_POLICY_H
#define CLDSA_POLICY_H

#include "host/nn/nn.h"

/* One layer's state of a policy. Policies with more to remember embed this as the first member of their own struct. */
typedef struct cldsa_policy_layer {
    /* out: i32 [B], or [B,S] for a count per row; values above what a row sees count as all of it. */
    cldsa_tensor k_rows;
} cldsa_policy_layer;

/* What a policy may look at, all on the device. The second half is given in the backward pass only. */
typedef struct cldsa_policy_view {
    int layer;
    cldsa_tensor hidden; /* f32 [B,S,d]: what the indexer sees */
    cldsa_tensor scores; /* f32 [B,S,S]: index scores, -inf where a row may not look; forward only */

    cldsa_tensor q, k, v;  /* f32 [B,S,H,*]: attention's inputs */
    cldsa_tensor mask;     /* u32 [B,S,ceil(S/32)]: the selection */
    cldsa_tensor out, lse; /* f32 [B,S,H,Dv], [B,S,H] */
    cldsa_tensor dout;     /* f32 [B,S,H,Dv] */
} cldsa_policy_view;

typedef struct cldsa_policy {
    const char *name;    /* in config.json and on the command line */
    const char *summary; /* one line */
    size_t layer_bytes;  /* size of its layer struct, which starts with cldsa_policy_layer */

    /* Every row keeps every key it sees: no scores, no selection, no mask. k_rows is not used then. */
    bool keeps_all;

    /*
     * The reference built its adaptive variant as a module of its own: the indexer sees the normalised hidden state,
     * and names nest one level deeper. false: the fixed variant, whose indexer sees the block's raw input.
     */
    bool wrapped;

    /* Adds the layer's parameters, whose names start with `prefix` (NULL: it has none). */
    cldsa_status (*declare)(cldsa_policy_layer *layer, cldsa_params *params, const cldsa_config *config,
                            const char *prefix);

    /*
     * Places k_rows and whatever must last until the layer's backward pass in `kept`, and temporaries of the forward
     * call in `scratch`, which other parts reuse afterwards (NULL: it needs no memory). Called whenever the batch shape
     * changes, once to measure and once to place.
     */
    void (*place)(cldsa_policy_layer *layer, const cldsa_nn *nn, cldsa_arena *kept, cldsa_arena *scratch);

    /* Once per batch shape, after placing: writes constants. May block. */
    cldsa_status (*prepare)(cldsa_policy_layer *layer, cldsa_nn *nn);

    /* Once per step: fills k_rows (NULL: prepare did). Only enqueues. */
    cldsa_status (*forward)(cldsa_policy_layer *layer, cldsa_nn *nn, const cldsa_policy_view *view);

    /* Once per training step, after attention's backward pass: gradients of its own parameters (NULL: none). */
    cldsa_status (*backward)(cldsa_policy_layer *layer, cldsa_nn *nn, const cldsa_policy_view *view);

    /* Named intermediate values, for checks and reports; mem NULL if there is none of that name. May be NULL. */
    cldsa_tensor (*inspect)(const cldsa_policy_layer *layer, const char *name);
} cldsa_policy;

/* All policies, NULL-terminated. */
extern const cldsa_policy *const cldsa_policies[];

/* By name; CLDSA_NOT_FOUND names the nearest. */
cldsa_status cldsa_find_policy(const char *name, const cldsa_policy **out);

extern const cldsa_policy cldsa_policy_dense;
extern const cldsa_policy cldsa_policy_fixed;
extern const cldsa_policy cldsa_policy_controller;

#endif
