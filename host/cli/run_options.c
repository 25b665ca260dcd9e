#include "host/cli/run_options.h"

#include <stdio.h>
#include <string.h>

int cli_choice(const char *option, const char *text, const char *const *names, int *value) {
    size_t count = 0;
    for (; names[count]; ++count)
        if (strcmp(names[count], text) == 0) {
            *value = (int)count;
            return CLI_GO;
        }
    char known[256] = "";
    for (size_t i = 0, used = 0; i < count && used < sizeof known; ++i)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", names[i]);
    const char *near = cldsa_nearest_name(text, names, count);
    return cli_usage("--%s is \"%s\"; it must be one of %s%s%s%s", option, text, known, near ? "; did you mean " : "",
                     near ? near : "", near ? "?" : "");
}

static int take_integer(const char *option, const char *text, int64_t min, int64_t max, int *value) {
    int64_t number;
    int code = cli_integer(option, text, min, max, &number);
    if (code == CLI_GO)
        *value = (int)number;
    return code;
}

static int take_path(cldsa_run_config *config, run_paths *paths, const char *value) {
    if (paths->count == RUN_MAX_PATHS)
        return cli_usage("--text is given more than %d times; name a directory instead", RUN_MAX_PATHS);
    paths->list[paths->count++] = value;
    config->data.paths = paths->list;
    config->data.num_paths = paths->count;
    return CLI_GO;
}

int run_options_take(cldsa_run_config *config, run_paths *paths, int key, const char *value) {
    cldsa_data_config *data = &config->data;
    int choice = 0, code;
    switch (key) {
    case RUN_TEXT:
        return take_path(config, paths, value);
    case RUN_SPLIT:
        code = cli_choice("split", value, cldsa_text_split_names, &choice);
        data->split = (cldsa_text_split)choice;
        return code;
    case RUN_TASK:
        code = cli_choice("task", value, cldsa_task_names, &choice);
        data->task = (cldsa_task)choice;
        return code;
    case RUN_PAIRS:
        return take_integer("pairs", value, 1, 1 << 16, &data->pairs);
    case RUN_DISTANCE:
        return take_integer("distance", value, 0, 1 << 24, &data->distance);
    case RUN_BATCH:
        return take_integer("batch", value, 1, 1 << 20, &config->batch);
    case RUN_STEPS:
        return take_integer("steps", value, 1, INT32_MAX, &config->steps);
    case RUN_LR:
        return cli_number("lr", value, 0, 10, &config->options.lr);
    case RUN_WEIGHT_DECAY:
        return cli_number("weight-decay", value, 0, 10, &config->options.weight_decay);
    case RUN_MAX_NORM:
        return cli_number("max-norm", value, 0, 1e9, &config->options.max_norm);
    case RUN_LOG_EVERY:
        return take_integer("log-every", value, 1, CLDSA_RESULT_RING, &config->log_every);
    case RUN_EVALUATE_EVERY:
        return take_integer("evaluate-every", value, 0, INT32_MAX, &config->evaluate_every);
    case RUN_EVALUATE_BATCHES:
        return take_integer("evaluate-batches", value, 1, INT32_MAX, &config->evaluate_batches);
    case RUN_CHECKPOINT_EVERY:
        return take_integer("checkpoint-every", value, 0, INT32_MAX, &config->checkpoint_every);
    }
    return cli_usage("unexpected argument \"%s\"; see cldsa train --help, cldsa experiment --help", value);
}

int run_options_check(const cldsa_run_config *config, const run_paths *paths) {
    if (paths->count == 0 || config->data.task == CLDSA_TASK_TEXT)
        return CLI_GO;
    return cli_usage("--text %s is given, but task %s reads no text; leave it out, or choose --task text",
                     paths->list[0], cldsa_task_names[config->data.task]);
}
