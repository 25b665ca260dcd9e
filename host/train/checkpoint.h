/* Checkpoints of a training run: directories that are complete or not there. */
#ifndef CLDSA_CHECKPOINT_H
#define CLDSA_CHECKPOINT_H

#include "host/train/trainer.h"

/* Writes checkpoint-STEP, points `latest` to it, then removes older ones. After a failure nothing of it is left. */
cldsa_status cldsa_checkpoint_save(cldsa_model *model, const cldsa_run_config *config);

/*
 * Loads the newest checkpoint into `model`; *step is 0 if there is none. A checkpoint of another configuration is
 * refused and the first differing key named.
 */
cldsa_status cldsa_checkpoint_load(cldsa_model *model, const cldsa_run_config *config, int64_t *step);

/* CLDSA_INVALID_ARGUMENT if the directory holds a checkpoint: a new run there would throw it away. */
cldsa_status cldsa_checkpoint_none(const char *directory);

/* Removes all checkpoints of a directory and `latest`. */
void cldsa_checkpoint_remove_all(const char *directory);

#endif
