/* What one training run is: model, data, optimiser, and how often it reports. */
#ifndef CLDSA_RUN_CONFIG_H
#define CLDSA_RUN_CONFIG_H

#include "host/nn/model.h"
#include "host/train/data.h"

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

/* As JSON, for configuration files, state.json and result files; NULL without memory. `directory` and `resume` are left
 * out. */
struct cJSON;
struct cJSON *cldsa_run_config_to_json(const cldsa_run_config *config);

/*
 * Reads the same form over what is in *config; absent keys keep their values, unknown ones are refused with the nearest
 * known name. With "text", config->data.paths becomes a malloc'ed array for the caller to free, whose strings belong to
 * `object`.
 */
cldsa_status cldsa_run_config_from_json(const struct cJSON *object, const char *source, cldsa_run_config *config);

/*
 * CLDSA_INVALID_ARGUMENT unless `stored`, the JSON form of a run found in the file `source`, is the same run; the
 * message names the first setting that differs. With `pace_may_differ` it may run longer and report at other steps.
 */
cldsa_status cldsa_run_config_compare(const struct cJSON *stored, const char *source, const cldsa_run_config *config,
                                      bool pace_may_differ);

#endif
