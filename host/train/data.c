/* The three tasks. Every draw comes from the counter-based generator at (seed, stream, counter). */
#include "host/train/data.h"
#include "host/ops/philox.h"
#include "host/runtime/runtime.h"
#include "host/train/text.h"

#include <stdlib.h>
#include <string.h>

const char *const cldsa_task_names[] = {"text", "uniform", "recall", NULL};
const char *const cldsa_text_split_names[] = {"offset", "document", NULL};

enum { NOT_SCORED = -100, TEXT_VOCAB = 256 };

/* Streams of the generator: one per kind of draw and split. */
enum {
    STREAM_WINDOW = 0x64617461,
    STREAM_TOKENS = STREAM_WINDOW + 2,
    STREAM_ORDER = STREAM_TOKENS + 2,
    STREAM_RECALL = STREAM_ORDER + 2
};

struct cldsa_data {
    cldsa_data_config config;
    cldsa_text *text;
    int32_t *sequences[2]; /* uniform: [sequences, S+1] of each split */
    int num_sequences[2];
};

static uint64_t draw64(const cldsa_data *data, uint32_t stream, uint64_t counter) {
    uint32_t words[4];
    cldsa_philox(counter, stream, data->config.seed, words);
    return (uint64_t)words[0] << 32 | words[1];
}

/* Uniform over 0 .. bound-1; the bias of the remainder is below bound / 2^64. */
static uint64_t draw_below(const cldsa_data *data, uint32_t stream, uint64_t counter, uint64_t bound) {
    return draw64(data, stream, counter) % bound;
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

static cldsa_status open_text(cldsa_data *data) {
    const cldsa_data_config *config = &data->config;
    if (config->num_paths == 0)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "task text needs --text FILE or --text DIRECTORY");
    CLDSA_TRY(cldsa_text_open(config->paths, config->num_paths, config->split, &data->text));
    for (int validation = 0; validation < 2; ++validation)
        if (cldsa_text_size(data->text, validation) < (uint64_t)config->seq_len + 1)
            return cldsa_fail(
                CLDSA_INVALID_FILE, "%s: the %s text is %llu bytes; a sequence of length %d needs at least %d",
                config->paths[0], validation ? "validation" : "training",
                (unsigned long long)cldsa_text_size(data->text, validation), config->seq_len, config->seq_len + 1);
    return CLDSA_SUCCESS;
}

/* Training windows start anywhere; validation windows are spread evenly, the same for every run. */
static uint64_t window_start(const cldsa_data *data, bool validation, int64_t row) {
    uint64_t starts = cldsa_text_size(data->text, validation) - (uint64_t)data->config.seq_len;
    if (!validation)
        return draw_below(data, STREAM_WINDOW, (uint64_t)row, starts);
    return (uint64_t)row * 7919u * (uint64_t)data->config.seq_len % starts; /* a prime stride visits all of it */
}

static int text_row(const cldsa_data *data, bool validation, int64_t row, int32_t *ids, int32_t *labels) {
    int seq_len = data->config.seq_len;
    uint64_t start = window_start(data, validation, row);
    for (int at = 0; at <= seq_len;) {
        unsigned char bytes[4096];
        int count = seq_len + 1 - at < (int)sizeof bytes ? seq_len + 1 - at : (int)sizeof bytes;
        cldsa_text_copy(data->text, validation, start + (uint64_t)at, (size_t)count, bytes);
        for (int i = 0; i < count; ++i, ++at) {
            if (at < seq_len)
                ids[at] = bytes[i];
            if (at > 0)
                labels[at - 1] = bytes[i];
        }
    }
    return seq_len;
}

/* ---- uniform ---------------------------------------------------------------------------------------------------- */

static cldsa_status open_uniform(cldsa_data *data) {
    const cldsa_data_config *config = &data->config;
    data->num_sequences[0] = config->train_sequences;
    data->num_sequences[1] = config->validation_sequences;
    for (int validation = 0; validation < 2; ++validation) {
        size_t numel = (size_t)data->num_sequences[validation] * ((size_t)config->seq_len + 1);
        int32_t *tokens = malloc(numel * sizeof *tokens);
        if (!tokens)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "task uniform: out of memory for %zu tokens", numel);
        for (size_t i = 0; i < numel; ++i)
            tokens[i] = (int32_t)draw_below(data, STREAM_TOKENS + (uint32_t)validation, i, (uint64_t)config->vocab);
        data->sequences[validation] = tokens;
    }
    return CLDSA_SUCCESS;
}

/*
 * Which sequence stands at `row` of an endless run of shuffled epochs: a four-round Feistel network permutes each
 * epoch (cycle walking keeps it inside), so no state and no table are needed.
 */
static int64_t shuffled(const cldsa_data *data, int64_t row, int64_t count) {
    uint64_t epoch = (uint64_t)(row / count), x = (uint64_t)(row % count);
    int half = 1;
    while ((1ull << (2 * half)) < (uint64_t)count)
        ++half;
    uint64_t mask = (1ull << half) - 1;
    do {
        for (uint64_t round = 0; round < 4; ++round) {
            uint64_t left = x >> half, right = x & mask;
            x = right << half | (left ^ (draw64(data, STREAM_ORDER, (epoch * 4 + round) << 24 | right) & mask));
        }
    } while (x >= (uint64_t)count);
    return (int64_t)x;
}

static int uniform_row(const cldsa_data *data, bool validation, int64_t row, int32_t *ids, int32_t *labels) {
    int seq_len = data->config.seq_len, shift = data->config.shifted_twice ? 2 : 1, scored = 0;
    int64_t count = data->num_sequences[validation];
    int64_t which = validation ? row % count : shuffled(data, row, count);
    const int32_t *tokens = data->sequences[validation] + which * (seq_len + 1);
    for (int i = 0; i < seq_len; ++i) {
        ids[i] = tokens[i];
        labels[i] = i + shift <= seq_len ? tokens[i + shift] : NOT_SCORED;
        scored += labels[i] >= 0;
    }
    return scored;
}

/* ---- recall ----------------------------------------------------------------------------------------------------- */

static cldsa_status open_recall(const cldsa_data *data) {
    const cldsa_data_config *config = &data->config;
    int keys = config->vocab / 2, queries = config->seq_len - 2 * config->pairs - config->distance;
    if (config->pairs < 1 || config->pairs > keys)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "task recall: pairs is %d; it must be 1 to %d (half the vocabulary)",
                          config->pairs, keys);
    if (config->distance < 0 || queries < 1)
        return cldsa_fail(
            CLDSA_INVALID_ARGUMENT,
            "task recall: %d pairs and distance %d leave no query in a sequence of %d; at least %d is needed",
            config->pairs, config->distance, config->seq_len,
            2 * config->pairs + (config->distance > 0 ? config->distance : 0) + 1);
    return CLDSA_SUCCESS;
}

/*
 * pairs x (key, value), then `distance` filler tokens (values that belong to no key), then queries: keys already seen,
 * each to be answered with its value. Keys are 0 .. V/2-1, distinct within a sequence; values V/2 .. V-1.
 */
static int recall_row(const cldsa_data *data, bool validation, int64_t row, int32_t *ids, int32_t *labels) {
    const cldsa_data_config *config = &data->config;
    uint32_t stream = STREAM_RECALL + (uint32_t)validation;
    uint64_t counter = (uint64_t)row << 24;
    int keys = config->vocab / 2, at = 0, scored = 0;

    for (int p = 0; p < config->pairs; ++p) {
        int32_t key;
        bool taken;
        do {
            key = (int32_t)draw_below(data, stream, counter++, (uint64_t)keys);
            taken = false;
            for (int o = 0; o < p && !taken; ++o)
                taken = ids[2 * o] == key;
        } while (taken);
        ids[at++] = key;
        ids[at++] = keys + (int32_t)draw_below(data, stream, counter++, (uint64_t)keys);
    }
    for (int i = 0; i < config->distance; ++i)
        ids[at++] = keys + (int32_t)draw_below(data, stream, counter++, (uint64_t)keys);
    for (int i = 0; i < at; ++i)
        labels[i] = NOT_SCORED;
    for (; at < config->seq_len; ++at, ++scored) {
        int pair = (int)draw_below(data, stream, counter++, (uint64_t)config->pairs);
        ids[at] = ids[2 * pair];
        labels[at] = ids[2 * pair + 1];
    }
    return scored;
}

/* ---- the interface ---------------------------------------------------------------------------------------------- */

static cldsa_status open_task(cldsa_data *data) {
    const cldsa_data_config *config = &data->config;
    if (config->seq_len < 2)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "the sequence length is %d; it must be at least 2", config->seq_len);
    switch (config->task) {
    case CLDSA_TASK_TEXT:
        return open_text(data);
    case CLDSA_TASK_UNIFORM:
        return open_uniform(data);
    case CLDSA_TASK_RECALL:
        return open_recall(data);
    }
    return cldsa_fail(CLDSA_INVALID_ARGUMENT, "unknown task %d", (int)config->task);
}

cldsa_status cldsa_data_open(const cldsa_data_config *config, cldsa_data **out) {
    *out = NULL;
    cldsa_data *data = calloc(1, sizeof *data);
    if (!data)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "data: out of memory");
    data->config = *config;
    cldsa_status status = open_task(data);
    if (status != CLDSA_SUCCESS) {
        cldsa_data_close(data);
        return status;
    }
    data->config.paths = NULL; /* the caller's; not kept */
    *out = data;
    return CLDSA_SUCCESS;
}

void cldsa_data_close(cldsa_data *data) {
    if (!data)
        return;
    cldsa_text_close(data->text);
    free(data->sequences[0]);
    free(data->sequences[1]);
    free(data);
}

int cldsa_data_vocab(const cldsa_data *data) {
    return data->config.task == CLDSA_TASK_TEXT ? TEXT_VOCAB : data->config.vocab;
}

void cldsa_data_sizes(const cldsa_data *data, uint64_t *train_bytes, uint64_t *validation_bytes) {
    *train_bytes = data->text ? cldsa_text_size(data->text, false) : 0;
    *validation_bytes = data->text ? cldsa_text_size(data->text, true) : 0;
}

int cldsa_data_batch(const cldsa_data *data, bool validation, int64_t number, int batch, int32_t *ids,
                     int32_t *labels) {
    int scored = 0;
    for (int b = 0; b < batch; ++b) {
        int64_t row = number * batch + b;
        int32_t *row_ids = ids + (int64_t)b * data->config.seq_len,
                *row_labels = labels + (int64_t)b * data->config.seq_len;
        switch (data->config.task) {
        case CLDSA_TASK_TEXT:
            scored += text_row(data, validation, row, row_ids, row_labels);
            break;
        case CLDSA_TASK_UNIFORM:
            scored += uniform_row(data, validation, row, row_ids, row_labels);
            break;
        case CLDSA_TASK_RECALL:
            scored += recall_row(data, validation, row, row_ids, row_labels);
            break;
        }
    }
    return scored;
}
