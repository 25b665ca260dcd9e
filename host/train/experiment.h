/*
 * The experiment: a grid of training runs, lengths x variants x seeds, and what they add up to.
 *
 * Each cell lives in OUT/cells/S<length>-<variant>-<seed>/ and ends with result.json. A rerun skips finished cells and
 * continues the one that was running at its last checkpoint.
 */
#ifndef CLDSA_EXPERIMENT_H
#define CLDSA_EXPERIMENT_H

#include "host/train/stats.h"
#include "host/train/trainer.h"

typedef enum cldsa_recipe {
    CLDSA_RECIPE_CAUSAL = 0, /* corrected: causal mask, labels shifted once, text or recall, ratio of visible keys */
    CLDSA_RECIPE_SEED        /* as published: uniform tokens, no mask, labels shifted twice */
} cldsa_recipe;

extern const char *const cldsa_recipe_names[];

enum { CLDSA_MAX_AXIS = 16, CLDSA_VARIANT_MAX = 32 };

typedef struct cldsa_experiment_config {
    cldsa_recipe recipe;
    int lengths[CLDSA_MAX_AXIS], num_lengths;
    char variants[CLDSA_MAX_AXIS][CLDSA_VARIANT_MAX];
    int num_variants;
    uint64_t seeds[CLDSA_MAX_AXIS];
    int num_seeds;
    cldsa_run_config run; /* what all cells share; model policy, length, seed and directory are set per cell */
    const char *out;
    bool fresh; /* throw away what is stored */
} cldsa_experiment_config;

/*
 * Defaults of a recipe. Full: the published protocol (lengths 64, 128, 256; dense, fixed25, fixed50, fixed75, adaptive;
 * seeds 42, 123, 456; 500 steps). Quick: lengths 64, 128; dense, fixed25, adaptive; the same seeds; 60 steps.
 */
cldsa_experiment_config cldsa_experiment_config_default(cldsa_recipe recipe, bool quick);

/* Follows the task: vocabulary of the model and of the data. Call after task and recipe are final. */
void cldsa_experiment_settle(cldsa_experiment_config *config);

/* One finished run. */
typedef struct cldsa_cell {
    int length;
    int variant; /* index into config->variants */
    uint64_t seed;
    double seconds;   /* wall time of the cell, over all its attempts in this process */
    char device[260]; /* "platform / name, driver" it ran on */
    cldsa_run_result result;
} cldsa_cell;

/* A row of the result table: one length and variant over all seeds. */
typedef struct cldsa_table_row {
    int length, variant;
    cldsa_summary loss, accuracy, bits_per_byte, tokens_per_second, train_loss;
    double peak_device_bytes;
    int num_layers;
    double mean_k[CLDSA_MAX_REPORTED_LAYERS], sparsity[CLDSA_MAX_REPORTED_LAYERS];
} cldsa_table_row;

/* Validation loss of one variant against another at one length. */
typedef struct cldsa_table_comparison {
    int length, variant, against;
    cldsa_comparison loss;
} cldsa_table_comparison;

typedef struct cldsa_experiment_result {
    cldsa_cell *cells;
    int num_cells;
    cldsa_table_row rows[CLDSA_MAX_AXIS * CLDSA_MAX_AXIS];
    int num_rows;
    /* Each adaptive variant against each other variant, per length; Holm's correction over all of them. */
    cldsa_table_comparison comparisons[CLDSA_MAX_AXIS * CLDSA_MAX_AXIS * CLDSA_MAX_AXIS];
    int num_comparisons;
    char device[520]; /* what the cells ran on; several are joined with " + " */
} cldsa_experiment_result;

typedef struct cldsa_experiment_hooks {
    /* Before each cell: its number (from 0), how many there are, and whether it was finished already. */
    void (*cell)(void *user, int number, int count, const cldsa_cell *cell, const char *variant, bool stored);
    void *user;
    cldsa_run_hooks run;
} cldsa_experiment_hooks;

/* Runs the grid. *result is malloc'ed; free with cldsa_experiment_free. */
cldsa_status cldsa_experiment_run(cldsa_context *ctx, cl_command_queue queue, const cldsa_experiment_config *config,
                                  const cldsa_experiment_hooks *hooks, cldsa_experiment_result **result);
void cldsa_experiment_free(cldsa_experiment_result *result);

/* Directory of a cell. */
void cldsa_cell_directory(const cldsa_experiment_config *config, const cldsa_cell *cell, char *path, size_t size);

#endif
