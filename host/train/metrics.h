/*
 * metrics.jsonl: one JSON object per line. {"step": 10, "loss": 5.31} after each training step, and
 * {"step": 500, "validation_loss": ..., "validation_accuracy": ..., "bits_per_byte": ..., "k": [...], "sparsity":
 * [...]} after each evaluation (k and sparsity per layer).
 */
#ifndef CLDSA_METRICS_H
#define CLDSA_METRICS_H

#include "host/train/trainer.h"

#include <stdio.h>

typedef struct cldsa_metrics {
    FILE *stream;
    char path[4096];
} cldsa_metrics;

/* Opens DIRECTORY/metrics.jsonl. Lines of steps beyond `step` (left by a run that died after its last checkpoint) go.
 */
cldsa_status cldsa_metrics_open(cldsa_metrics *metrics, const char *directory, int64_t step);
cldsa_status cldsa_metrics_step(cldsa_metrics *metrics, int64_t step, double loss);
cldsa_status cldsa_metrics_evaluation(cldsa_metrics *metrics, int64_t step, const cldsa_run_result *result);
cldsa_status cldsa_metrics_flush(cldsa_metrics *metrics);
void cldsa_metrics_close(cldsa_metrics *metrics);

/* Calls `line` for each parsed object (a cJSON) of a finished or growing file; a last line cut short is skipped. */
struct cJSON;
cldsa_status cldsa_metrics_read(const char *path, void (*line)(void *user, const struct cJSON *object), void *user);

#endif
