/* A training run's settings: defaults and their JSON form. */
#include "host/train/run_config.h"
#include "host/io/json.h"
#include "host/runtime/runtime.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

cldsa_run_config cldsa_run_config_default(void) {
    return (cldsa_run_config){
        .model = cldsa_config_default(),
        .data = {.task = CLDSA_TASK_TEXT,
                 .train_sequences = 1000,
                 .validation_sequences = 200,
                 .vocab = 1000,
                 .pairs = 8,
                 .distance = 0,
                 .seq_len = 128},
        .options = cldsa_train_options_default(),
        .batch = 8,
        .steps = 500,
        .log_every = 10,
        .evaluate_batches = 10,
        .seed = 42,
    };
}

struct cJSON *cldsa_run_config_to_json(const cldsa_run_config *config) {
    cJSON *run = cJSON_CreateObject();
    const cldsa_data_config *data = &config->data;
    cJSON_AddItemToObject(run, "model", cldsa_config_to_json(&config->model));
    cJSON_AddStringToObject(run, "task", cldsa_task_names[data->task]);
    if (data->task == CLDSA_TASK_TEXT) {
        cJSON_AddItemToObject(run, "text", cJSON_CreateStringArray(data->paths, data->num_paths));
        cJSON_AddStringToObject(run, "split", cldsa_text_split_names[data->split]);
    }
    if (data->task == CLDSA_TASK_UNIFORM) {
        cJSON_AddNumberToObject(run, "train_sequences", data->train_sequences);
        cJSON_AddNumberToObject(run, "validation_sequences", data->validation_sequences);
        cJSON_AddBoolToObject(run, "shifted_twice", data->shifted_twice);
    }
    if (data->task == CLDSA_TASK_RECALL) {
        cJSON_AddNumberToObject(run, "pairs", data->pairs);
        cJSON_AddNumberToObject(run, "distance", data->distance);
    }
    cJSON_AddNumberToObject(run, "seq_len", data->seq_len);
    cJSON_AddNumberToObject(run, "batch", config->batch);
    cJSON_AddNumberToObject(run, "steps", config->steps);
    cJSON_AddNumberToObject(run, "seed", (double)config->seed);
    cJSON_AddNumberToObject(run, "lr", config->options.lr);
    cJSON_AddNumberToObject(run, "beta1", config->options.beta1);
    cJSON_AddNumberToObject(run, "beta2", config->options.beta2);
    cJSON_AddNumberToObject(run, "eps", config->options.eps);
    cJSON_AddNumberToObject(run, "weight_decay", config->options.weight_decay);
    cJSON_AddNumberToObject(run, "max_norm", config->options.max_norm);
    cJSON_AddNumberToObject(run, "log_every", config->log_every);
    cJSON_AddNumberToObject(run, "evaluate_every", config->evaluate_every);
    cJSON_AddNumberToObject(run, "evaluate_batches", config->evaluate_batches);
    cJSON_AddNumberToObject(run, "checkpoint_every", config->checkpoint_every);
    return run;
}

/* The paths of "text": a string or an array of strings. */
static cldsa_status read_paths(const cJSON *object, const char *source, cldsa_run_config *config) {
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(object, "text");
    if (!text)
        return CLDSA_SUCCESS;
    int count = cJSON_IsArray(text) ? cJSON_GetArraySize(text) : 1;
    const char **paths = calloc((size_t)count + 1, sizeof *paths);
    if (!paths)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: out of memory", source);
    for (int i = 0; i < count; ++i) {
        const cJSON *path = cJSON_IsArray(text) ? cJSON_GetArrayItem(text, i) : text;
        if (!cJSON_IsString(path)) {
            free(paths);
            return cldsa_fail(CLDSA_INVALID_FILE, "%s: text must be a path or a list of paths", source);
        }
        paths[i] = path->valuestring;
    }
    config->data.paths = paths;
    config->data.num_paths = count;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_run_config_from_json(const cJSON *object, const char *source, cldsa_run_config *config) {
    static const char *const keys[] = {"model",
                                       "task",
                                       "text",
                                       "split",
                                       "train_sequences",
                                       "validation_sequences",
                                       "shifted_twice",
                                       "pairs",
                                       "distance",
                                       "seq_len",
                                       "batch",
                                       "steps",
                                       "seed",
                                       "lr",
                                       "beta1",
                                       "beta2",
                                       "eps",
                                       "weight_decay",
                                       "max_norm",
                                       "log_every",
                                       "evaluate_every",
                                       "evaluate_batches",
                                       "checkpoint_every"};
    CLDSA_TRY(cldsa_json_check_keys(object, source, keys, sizeof keys / sizeof *keys));
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(object, "model");
    if (model && !cJSON_IsObject(model))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: model is no object {...} of the model's settings", source);
    if (model)
        CLDSA_TRY(cldsa_config_from_json(model, source, &config->model));
    cldsa_data_config *data = &config->data;
    int task = data->task, split = data->split;
    CLDSA_TRY(cldsa_json_get_enum(object, source, "task", cldsa_task_names, &task));
    CLDSA_TRY(cldsa_json_get_enum(object, source, "split", cldsa_text_split_names, &split));
    data->task = (cldsa_task)task;
    data->split = (cldsa_text_split)split;
    CLDSA_TRY(cldsa_json_get_bool(object, source, "shifted_twice", &data->shifted_twice));
    struct {
        const char *key;
        int min, max, *value;
    } integers[] = {{"train_sequences", 1, 1 << 24, &data->train_sequences},
                    {"validation_sequences", 1, 1 << 24, &data->validation_sequences},
                    {"pairs", 1, 1 << 16, &data->pairs},
                    {"distance", 0, 1 << 24, &data->distance},
                    {"seq_len", 2, 1 << 24, &data->seq_len},
                    {"batch", 1, 1 << 20, &config->batch},
                    {"steps", 1, INT32_MAX, &config->steps},
                    {"log_every", 1, CLDSA_RESULT_RING, &config->log_every},
                    {"evaluate_every", 0, INT32_MAX, &config->evaluate_every},
                    {"evaluate_batches", 1, INT32_MAX, &config->evaluate_batches},
                    {"checkpoint_every", 0, INT32_MAX, &config->checkpoint_every}};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; ++i)
        CLDSA_TRY(
            cldsa_json_get_int(object, source, integers[i].key, integers[i].min, integers[i].max, integers[i].value));
    struct {
        const char *key;
        double min, max, *value;
    } numbers[] = {{"lr", 0, 10, &config->options.lr},
                   {"beta1", 0, 0.999999, &config->options.beta1},
                   {"beta2", 0, 0.99999999, &config->options.beta2},
                   {"eps", 0, 1, &config->options.eps},
                   {"weight_decay", 0, 10, &config->options.weight_decay},
                   {"max_norm", 0, 1e9, &config->options.max_norm}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; ++i)
        CLDSA_TRY(
            cldsa_json_get_number(object, source, numbers[i].key, numbers[i].min, numbers[i].max, numbers[i].value));
    int64_t seed = (int64_t)config->seed;
    CLDSA_TRY(cldsa_json_get_i64(object, source, "seed", 0, INT64_C(1) << 53, &seed));
    config->seed = (uint64_t)seed;
    return read_paths(object, source, config);
}

static cldsa_status differs(const char *source, const cJSON *wanted, const cJSON *stored) {
    char *have = stored ? cJSON_PrintUnformatted(stored) : NULL, *want = cJSON_PrintUnformatted(wanted);
    cldsa_status status =
        cldsa_fail(CLDSA_INVALID_ARGUMENT,
                   "%s: holds a run with %s = %.200s, this one has %.200s; choose another directory or start afresh",
                   source, wanted->string, have ? have : "nothing", want ? want : "?");
    free(have);
    free(want);
    return status;
}

static bool is_pace(const char *key) {
    static const char *const keys[] = {"steps", "log_every", "evaluate_every", "evaluate_batches", "checkpoint_every"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

static cldsa_status compare(const cJSON *stored, const char *source, const cJSON *wanted, bool pace_may_differ) {
    for (const cJSON *item = wanted->child; item; item = item->next) {
        const cJSON *other = cJSON_GetObjectItemCaseSensitive(stored, item->string);
        if ((pace_may_differ && is_pace(item->string)) || cJSON_Compare(item, other, true))
            continue;
        if (cJSON_IsObject(item) && cJSON_IsObject(other))
            CLDSA_TRY(compare(other, source, item, false)); /* names the one setting inside */
        return differs(source, item, other);
    }
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_run_config_compare(const cJSON *stored, const char *source, const cldsa_run_config *config,
                                      bool pace_may_differ) {
    cJSON *wanted = cldsa_run_config_to_json(config);
    if (!wanted)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: out of memory", source);
    cldsa_status status = compare(stored, source, wanted, pace_may_differ);
    cJSON_Delete(wanted);
    return status;
}
