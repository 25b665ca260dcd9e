/*
 * The transformer: latent attention over selected keys, mixture of experts, hand-written backward pass, AdamW.
 *
 *   x = token_embedding[ids] + position_embedding[0..S);  per layer x += attention(LN x); x += experts(LN x);
 *   logits = LN(x) W^T + b;  loss = loss_scale * sum over scored rows of cross-entropy
 *
 * A step only enqueues: losses go to a ring on the device and are read when wanted. Memory is sized when the batch
 * shape changes and never in between. The same parameters, batch, seed and step give the same bits on one device.
 */
#ifndef CLDSA_MODEL_H
#define CLDSA_MODEL_H

#include "host/nn/config.h"
#include "host/nn/params.h"

#include <cldsa/context.h>

typedef struct cldsa_model cldsa_model;

/*
 * Builds a model with zeroed parameters: follow with _init or _load. `queue` must be in order and belong to the
 * context's device; it is retained. `training` false leaves out gradients, moments and the backward pass's memory.
 */
cldsa_status cldsa_model_create(cldsa_context *ctx, cl_command_queue queue, const cldsa_config *config, bool training,
                                cldsa_model **out);

/* Waits for the queue and releases everything. NULL is ignored. */
void cldsa_model_destroy(cldsa_model *model);

const cldsa_config *cldsa_model_config(const cldsa_model *model);
cldsa_params *cldsa_model_params(cldsa_model *model); /* names, counts, buffers: see params.h */

/* Draws all parameters; zeroes the moments and the step count. */
cldsa_status cldsa_model_init(cldsa_model *model, uint64_t seed);

/* One batch, on the host. Copied before the call returns. */
typedef struct cldsa_batch {
    int batch, seq_len;    /* B, S; S at most max_positions, at least 2 */
    const int32_t *ids;    /* [B,S], 0 .. vocab_size-1 */
    const int32_t *labels; /* [B,S], what each position is scored against; negative: not scored. NULL: no loss */
    double loss_scale;     /* 1 / number of scored positions, usually; 0 means exactly that */
} cldsa_batch;

typedef struct cldsa_train_options {
    double lr, beta1, beta2, eps, weight_decay;
    double max_norm; /* clips the global gradient norm; 0: no clipping */
    uint64_t seed;   /* of dropout and router noise; the step number enters besides */
    bool no_noise;   /* neither dropout nor router noise: as in evaluation */
} cldsa_train_options;

/* lr 1e-3, betas 0.9 and 0.999, eps 1e-8, weight decay 0.01, no clipping, seed 42: the published protocol. */
cldsa_train_options cldsa_train_options_default(void);

/* Forward, backward and one update. Enqueues only. The step count (1 for the first) rises by one. */
cldsa_status cldsa_model_train_step(cldsa_model *model, const cldsa_batch *batch, const cldsa_train_options *options);

/* Forward alone, without noise; loss and hits go to the ring like a training step's. Enqueues only. */
cldsa_status cldsa_model_evaluate(cldsa_model *model, const cldsa_batch *batch);

/* Forward and backward without the update: gradients are left in params->grad. With `noise`, dropout as in training. */
cldsa_status cldsa_model_gradients(cldsa_model *model, const cldsa_batch *batch, bool noise, uint64_t seed);

/* What one step or evaluation left behind. */
typedef struct cldsa_step_result {
    float loss;      /* loss_scale * sum of the scored positions' cross-entropy, nats */
    float correct;   /* loss_scale * scored positions whose largest logit is the label: the accuracy */
    float grad_norm; /* global gradient norm before clipping; NaN if max_norm was 0 or in evaluation */
} cldsa_step_result;

/* Results kept on the device; read at least this often to miss none. */
enum { CLDSA_RESULT_RING = 1024 };

/* Waits, then gives the last `count` results, oldest first; count at most CLDSA_RESULT_RING and what was run. */
cldsa_status cldsa_model_read_results(cldsa_model *model, int count, cldsa_step_result *results);

/* The keys kept in the last step, per layer. Waits. */
typedef struct cldsa_layer_sparsity {
    double mean_k; /* keys kept per row, mean over batch and rows */
    double std_k;  /* over batch and rows */
    double min_k, max_k;
    double sparsity; /* 1 - kept / seen, mean over batch and rows */
} cldsa_layer_sparsity;

cldsa_status cldsa_model_read_sparsity(cldsa_model *model, int layer, cldsa_layer_sparsity *out);

/* Device memory this model has allocated, in bytes, and the largest it ever was. */
size_t cldsa_model_device_bytes(const cldsa_model *model);
size_t cldsa_model_peak_device_bytes(const cldsa_model *model);

/* Updates made so far; part of the training state. */
int64_t cldsa_model_step(const cldsa_model *model);

/* ---- files (checkpoint.c) ------------------------------------------------------------------------------------- */

/* DIR/model.safetensors and DIR/config.json, each written atomically. The directory must exist. Waits. */
cldsa_status cldsa_model_save(cldsa_model *model, const char *directory);

/* DIR/optimizer.safetensors: both moments and the step count. Needs a training model. */
cldsa_status cldsa_model_save_optimizer(cldsa_model *model, const char *directory);

/* Reads what the two wrote into a model of the same config; a message names what differs. */
cldsa_status cldsa_model_load(cldsa_model *model, const char *directory);
cldsa_status cldsa_model_load_optimizer(cldsa_model *model, const char *directory);

/* ---- looking inside, for checks ------------------------------------------------------------------------------- */

/* Keeps intermediate values of every forward pass from now on (more memory, and the indexer runs even if not needed).
 */
cldsa_status cldsa_model_capture(cldsa_model *model, bool capture);

/*
 * A value of the last forward pass: "logits", "layers.I.index_scores", "layers.I.k", "layers.I.selected" (u32 bits),
 * "layers.I.attention", "layers.I.moe", "layers.I.out", and what the policy names. Needs capture.
 * CLDSA_NOT_FOUND otherwise.
 */
cldsa_status cldsa_model_inspect(cldsa_model *model, const char *name, cldsa_tensor *out);

#endif
