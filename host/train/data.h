/*
 * Training data: batches of token ids and the labels they are scored against.
 *
 * A batch depends on (seed, split, number) alone, so "where the data stands" is a step number: a resumed run, or a
 * rerun with another model, sees the same batches in the same order.
 */
#ifndef CLDSA_DATA_H
#define CLDSA_DATA_H

#include <cldsa/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cldsa_task {
    CLDSA_TASK_TEXT = 0, /* bytes of files: vocabulary 256, next-byte prediction */
    CLDSA_TASK_UNIFORM,  /* the published experiment's: uniform random tokens over `vocab` symbols */
    CLDSA_TASK_RECALL    /* multi-query associative recall: which keys are attended to decides */
} cldsa_task;

/* The tasks' names, in order, NULL-terminated. */
extern const char *const cldsa_task_names[];

typedef enum cldsa_text_split {
    CLDSA_SPLIT_OFFSET = 0, /* the last tenth of all bytes validates */
    CLDSA_SPLIT_DOCUMENT    /* every tenth file (by a hash of its name) validates */
} cldsa_text_split;

extern const char *const cldsa_text_split_names[];

typedef struct cldsa_data_config {
    cldsa_task task;
    /* text */
    const char *const *paths; /* files or directories (walked in name order; binary and hidden files are skipped) */
    int num_paths;
    cldsa_text_split split;
    /* uniform */
    int train_sequences, validation_sequences; /* 1000 and 200 in the published protocol */
    int vocab;                                 /* 1000; recall: 256 (keys and values share half each) */
    bool shifted_twice; /* the published fault: position i is scored against token i+2 (else i+1); last not scored */
    /* recall */
    int pairs;    /* key-value pairs at the start, at least 1 */
    int distance; /* filler tokens between the pairs and the queries */

    int seq_len; /* S */
    uint64_t seed;
} cldsa_data_config;

typedef struct cldsa_data cldsa_data;

/*
 * Opens (text: maps files; uniform: draws the sequences). Fails with a message that names the file when there is no
 * text, a file is empty or unreadable, or the text is shorter than a sequence.
 */
cldsa_status cldsa_data_open(const cldsa_data_config *config, cldsa_data **out);
void cldsa_data_close(cldsa_data *data); /* NULL is ignored */

/* Tokens the model must know: ids and labels are 0 .. vocab-1. */
int cldsa_data_vocab(const cldsa_data *data);

/* Bytes of text in the training part and the validation part; 0 for other tasks. */
void cldsa_data_sizes(const cldsa_data *data, uint64_t *train_bytes, uint64_t *validation_bytes);

/*
 * Batch `number` (0, 1, ...): ids and labels [batch, S]; labels are -100 where nothing is scored. Returns the number of
 * scored positions.
 */
int cldsa_data_batch(const cldsa_data *data, bool validation, int64_t number, int batch, int32_t *ids, int32_t *labels);

#endif
