/* The options that `cldsa train` and `cldsa experiment` share: data, steps, optimiser. */
#ifndef CLDSA_CLI_RUN_OPTIONS_H
#define CLDSA_CLI_RUN_OPTIONS_H

#include "host/cli/cli.h"
#include "host/train/run_config.h"

/* Option keys, behind those of the subcommands themselves. */
enum {
    RUN_TEXT = 64,
    RUN_SPLIT,
    RUN_TASK,
    RUN_PAIRS,
    RUN_DISTANCE,
    RUN_BATCH,
    RUN_STEPS,
    RUN_LR,
    RUN_WEIGHT_DECAY,
    RUN_MAX_NORM,
    RUN_LOG_EVERY,
    RUN_EVALUATE_EVERY,
    RUN_EVALUATE_BATCHES,
    RUN_CHECKPOINT_EVERY
};

#define RUN_OPTIONS                                                                                                    \
    {RUN_TEXT, "text", "PATH", "file or directory of plain text; may be given several times"},                         \
        {RUN_SPLIT, "split", "HOW", "offset (the last tenth validates; default) or document (every tenth file does)"}, \
        {RUN_TASK, "task", "TASK", "text, uniform (random tokens) or recall (associative recall)"},                    \
        {RUN_PAIRS, "pairs", "N", "task recall: key-value pairs per sequence (default 8)"},                            \
        {RUN_DISTANCE, "distance", "N", "task recall: filler tokens between pairs and queries (default 0)"},           \
        {RUN_BATCH, "batch", "N", "sequences per step (default 8)"},                                                   \
        {RUN_STEPS, "steps", "N", "updates (default 500; a quick experiment: 60)"},                                    \
        {RUN_LR, "lr", "X", "learning rate (default 0.001)"},                                                          \
        {RUN_WEIGHT_DECAY, "weight-decay", "X", "AdamW's weight decay (default 0.01)"},                                \
        {RUN_MAX_NORM, "max-norm", "X", "clip the global gradient norm (default 0: no clipping)"},                     \
        {RUN_LOG_EVERY, "log-every", "N", "steps between readings of the loss (default 10)"},                          \
        {RUN_EVALUATE_EVERY, "evaluate-every", "N", "steps between validations (0: only at the end)"},                 \
        {RUN_EVALUATE_BATCHES, "evaluate-batches", "N", "validation batches (default 10)"}, {                          \
        RUN_CHECKPOINT_EVERY, "checkpoint-every", "N", "steps between checkpoints (0: only at the end)"                \
    }

enum { RUN_MAX_PATHS = 256 };

/* Paths given on the command line; config->data.paths points here once one was given. */
typedef struct run_paths {
    const char *list[RUN_MAX_PATHS];
    int count;
} run_paths;

/* Takes one of the options above. CLI_GO, or CLI_USAGE with a message printed. */
int run_options_take(cldsa_run_config *config, run_paths *paths, int key, const char *value);

/* CLI_USAGE where a text was named and the task reads none: better said now than found out after a day. */
int run_options_check(const cldsa_run_config *config, const run_paths *paths);

/* A position in a list of names; prints the nearest and returns CLI_USAGE if there is none. */
int cli_choice(const char *option, const char *text, const char *const *names, int *value);

#endif
