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

#include "host/nn/model.h"
#include "host/train/data.h"

#include <signal.h>

typedef struct cldsa_run_config {
    cldsa_config model;
    cldsa_data_config data;
    cldsa_train_options options;
    int batch;             /* sequences per step */
    int steps;             /* updates in all */
    int log_every;         /* steps between reading losses back */
    int evaluate_every;    /* steps between evaluations; 0: only at the end */
    int evaluate_batches;  /* validation batches per evaluation */
    int checkpoint_every;  /* steps between checkpoints; 0: only at the end */
    uint64_t seed;         /* of initialisation, data, dropout and noise alike */
    const char *directory; /* made if missing */
    bool resume;           /* continue from the newest checkpoint if there is one */
} cldsa_run_config;

/* Batch 8, 500 steps, losses read every 10, 10 validation batches, seed 42: the published protocol. */
cldsa_run_config cldsa_run_config_default(void);

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
 * CLDSA_INVALID_ARGUMENT: a checkpoint in the directory belongs to another configuration (the message says which key).
 */
cldsa_status cldsa_train(cldsa_context *ctx, cl_command_queue queue, const cldsa_run_config *config,
                         const cldsa_run_hooks *hooks, cldsa_run_result *result);

/* The run's settings as JSON, for state.json, result files and messages; a cJSON object, NULL without memory. */
struct cJSON;
struct cJSON *cldsa_run_config_to_json(const cldsa_run_config *config);

#endif
