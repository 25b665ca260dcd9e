/*
 * One training run: data, model, loop, metrics, checkpoints.
 *
 * A run lives in a directory:
 *   metrics.jsonl       one line per step {"step","loss"} and per evaluation {"step","validation_loss",...}
 *   checkpoint-N/       model.safetensors, config.json, optimizer.safetensors, state.json after step N
 *   latest              the name of the newest complete checkpoint, replaced atomically
 * A resumed run continues at the newest checkpoint and gives, on the same device, the bits an uninterrupted one gives:
 * data, dropout and noise depend on the seed and the step alone.
 */
#ifndef CLDSA_TRAINER_H
#define CLDSA_TRAINER_H

#include "host/train/run_config.h"

#include <signal.h>

enum { CLDSA_MAX_REPORTED_LAYERS = 64 };

typedef struct cldsa_run_result {
    int64_t steps;              /* updates made, all told */
    double validation_loss;     /* nats per scored position */
    double validation_accuracy; /* 0 .. 1 */
    double bits_per_byte;       /* text only, else NaN */
    double train_loss;          /* mean over the last tenth of the steps */
    double tokens_per_second;   /* of training steps, evaluation and checkpoints not counted; NaN for a run too short */
    size_t peak_device_bytes;
    int64_t num_parameters;
    int num_layers;
    cldsa_layer_sparsity layers[CLDSA_MAX_REPORTED_LAYERS]; /* of the last evaluation */
} cldsa_run_result;

/* What a caller may watch and stop. All members may be NULL. */
typedef struct cldsa_run_hooks {
    /* After each reading of losses. `loss` is the mean since the last call; tokens_per_second may be NaN at first. */
    void (*progress)(void *user, int64_t step, int64_t steps, double loss, double tokens_per_second);
    void *user;
    const volatile sig_atomic_t *stop; /* non-zero: save a checkpoint and return CLDSA_INTERRUPTED */
} cldsa_run_hooks;

/*
 * Runs to the end, or until stopped. `queue` is in order. A failure leaves the newest checkpoint intact.
 * CLDSA_INVALID_ARGUMENT: a checkpoint in the directory belongs to another configuration (the message says which key),
 * or there is one and the run is not to resume.
 */
cldsa_status cldsa_train(cldsa_context *ctx, cl_command_queue queue, const cldsa_run_config *config,
                         const cldsa_run_hooks *hooks, cldsa_run_result *result);

#endif
