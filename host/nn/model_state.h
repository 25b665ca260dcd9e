/* The model's inside, shared by model.c (memory), step.c (forward, backward, update) and checkpoint.c (files). */
#ifndef CLDSA_MODEL_STATE_H
#define CLDSA_MODEL_STATE_H

#include "host/nn/block.h"
#include "host/nn/model.h"

enum {
    CLDSA_STAGING_SLOTS = 4, /* batches in flight: how far the host may run ahead of the device */
    CLDSA_RESULT_WIDTH = 3   /* loss, correct, squared gradient norm */
};

/* A batch's host copy, which must live until the device has read it. */
typedef struct cldsa_staging {
    int32_t *data; /* ids, then labels */
    size_t count;  /* elements allocated */
    cl_event read; /* completes when the device has it; NULL: free */
} cldsa_staging;

struct cldsa_model {
    cldsa_context *ctx;
    cl_command_queue queue;
    cldsa_config config;
    cldsa_params params;
    bool trains;   /* has gradients and moments */
    int64_t step;  /* updates made */
    uint64_t runs; /* results written to the ring so far */

    int token_embedding, position_embedding, head_weight, head_bias; /* handles of parameters */
    cldsa_block *blocks;                                             /* [num_layers] */
    cldsa_residual_norm final_norm;

    cldsa_nn nn;        /* environment of the current batch shape; nn.batch 0: none yet */
    cldsa_arena *kept;  /* [num_layers]: what a layer keeps for its backward pass */
    cldsa_arena shared; /* everything else, and all layers' scratch */
    size_t *kept_bytes; /* [num_layers], allocated */
    size_t shared_bytes, workspace_bytes;
    size_t device_bytes, peak_device_bytes; /* without params */

    cldsa_tensor ids, labels;           /* i32 [B,S] */
    cldsa_tensor embedded;              /* f32 [B,S,d] */
    cldsa_tensor logits, dlogits;       /* f32 [N,V]; the same memory unless capturing */
    cldsa_tensor row_loss, row_correct; /* f32 [N] */
    cldsa_tensor dx, dh;                /* f32 [N,d] */
    cl_mem results;                     /* f32 [CLDSA_RESULT_RING, CLDSA_RESULT_WIDTH] */
    bool has_norm[CLDSA_RESULT_RING];
    cldsa_staging staging[CLDSA_STAGING_SLOTS];
    int next_staging;
};

/* Makes memory, constants and workspace fit this batch shape; nothing to do if they do. */
cldsa_status cldsa_model_fit(cldsa_model *model, int batch, int seq_len);

/* Walks a training step or an evaluation once without enqueuing, for the workspace. */
cldsa_status cldsa_model_plan(cldsa_model *model);

#endif
