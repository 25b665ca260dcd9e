#include "host/train/experiment.h"
#include "host/io/file.h"
#include "host/io/json.h"
#include "host/runtime/runtime.h"
#include "host/train/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *const cldsa_recipe_names[] = {"causal", "seed", NULL};

enum { PATH_SIZE = 4096, PUBLISHED_VOCAB = 1000, TEXT_VOCAB = 256, RESULT_FORMAT = 1 };

cldsa_experiment_config cldsa_experiment_config_default(cldsa_recipe recipe, bool quick) {
    static const int lengths[] = {64, 128, 256};
    static const char *const full_variants[] = {"dense", "fixed25", "fixed50", "fixed75", "adaptive"};
    static const char *const quick_variants[] = {"dense", "fixed25", "adaptive"};
    static const uint64_t seeds[] = {42, 123, 456};
    cldsa_experiment_config config = {.recipe = recipe, .run = cldsa_run_config_default()};
    config.num_lengths = quick ? 2 : 3;
    memcpy(config.lengths, lengths, sizeof lengths);
    config.num_variants = quick ? 3 : 5;
    for (int i = 0; i < config.num_variants; ++i)
        snprintf(config.variants[i], CLDSA_VARIANT_MAX, "%s", quick ? quick_variants[i] : full_variants[i]);
    config.num_seeds = 3;
    memcpy(config.seeds, seeds, sizeof seeds);
    config.run.steps = quick ? 60 : 500;
    config.run.evaluate_every = quick ? 20 : 50;
    config.run.checkpoint_every = 100;
    config.run.resume = true;
    config.run.data.task = recipe == CLDSA_RECIPE_SEED ? CLDSA_TASK_UNIFORM : CLDSA_TASK_TEXT;
    return config;
}

void cldsa_experiment_settle(cldsa_experiment_config *config) {
    bool published = config->recipe == CLDSA_RECIPE_SEED;
    cldsa_data_config *data = &config->run.data;
    config->run.model.causal = !published;
    data->shifted_twice = published;
    data->vocab = data->task == CLDSA_TASK_UNIFORM ? PUBLISHED_VOCAB : TEXT_VOCAB;
    config->run.model.vocab_size = data->vocab;
}

void cldsa_cell_directory(const cldsa_experiment_config *config, const cldsa_cell *cell, char *path, size_t size) {
    snprintf(path, size, "%s/cells/S%d-%s-%llu", config->out, cell->length, config->variants[cell->variant],
             (unsigned long long)cell->seed);
}

/* ---- a cell's result on disk ----------------------------------------------------------------------------------- */

/* NaN has no JSON form: such values are left out and come back as NaN. */
static void put_number(cJSON *object, const char *key, double value) {
    if (isfinite(value))
        cJSON_AddNumberToObject(object, key, value);
}

static double get_number(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

static cldsa_status store_cell(const char *path, const cldsa_run_config *run, const cldsa_cell *cell) {
    const cldsa_run_result *r = &cell->result;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "format", RESULT_FORMAT);
    cJSON_AddItemToObject(object, "run", cldsa_run_config_to_json(run));
    cJSON_AddStringToObject(object, "device", cell->device);
    put_number(object, "steps", (double)r->steps);
    put_number(object, "validation_loss", r->validation_loss);
    put_number(object, "validation_accuracy", r->validation_accuracy);
    put_number(object, "bits_per_byte", r->bits_per_byte);
    put_number(object, "train_loss", r->train_loss);
    put_number(object, "tokens_per_second", r->tokens_per_second);
    put_number(object, "peak_device_bytes", (double)r->peak_device_bytes);
    put_number(object, "num_parameters", (double)r->num_parameters);
    put_number(object, "seconds", cell->seconds);
    cJSON *layers = cJSON_AddArrayToObject(object, "layers");
    for (int i = 0; i < r->num_layers; ++i) {
        cJSON *layer = cJSON_CreateObject();
        put_number(layer, "mean_k", r->layers[i].mean_k);
        put_number(layer, "std_k", r->layers[i].std_k);
        put_number(layer, "min_k", r->layers[i].min_k);
        put_number(layer, "max_k", r->layers[i].max_k);
        put_number(layer, "sparsity", r->layers[i].sparsity);
        cJSON_AddItemToArray(layers, layer);
    }
    cldsa_status status = cldsa_json_write(path, object);
    cJSON_Delete(object);
    return status;
}

static void read_layers(const cJSON *object, cldsa_run_result *r) {
    const cJSON *layer;
    cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(object, "layers")) {
        if (r->num_layers == CLDSA_MAX_REPORTED_LAYERS)
            break;
        r->layers[r->num_layers++] = (cldsa_layer_sparsity){.mean_k = get_number(layer, "mean_k"),
                                                            .std_k = get_number(layer, "std_k"),
                                                            .min_k = get_number(layer, "min_k"),
                                                            .max_k = get_number(layer, "max_k"),
                                                            .sparsity = get_number(layer, "sparsity")};
    }
}

/* *stored says whether the cell was finished before, under the same settings. */
static cldsa_status load_cell(const char *path, const cldsa_run_config *run, cldsa_cell *cell, bool *stored) {
    *stored = false;
    if (access(path, F_OK))
        return CLDSA_SUCCESS;
    cJSON *object;
    CLDSA_TRY(cldsa_json_read(path, &object));
    cldsa_status status = cldsa_run_config_compare(cJSON_GetObjectItemCaseSensitive(object, "run"), path, run, false);
    if (status == CLDSA_SUCCESS) {
        cldsa_run_result *r = &cell->result;
        *r = (cldsa_run_result){.steps = (int64_t)get_number(object, "steps"),
                                .validation_loss = get_number(object, "validation_loss"),
                                .validation_accuracy = get_number(object, "validation_accuracy"),
                                .bits_per_byte = get_number(object, "bits_per_byte"),
                                .train_loss = get_number(object, "train_loss"),
                                .tokens_per_second = get_number(object, "tokens_per_second"),
                                .peak_device_bytes = (size_t)get_number(object, "peak_device_bytes"),
                                .num_parameters = (int64_t)get_number(object, "num_parameters")};
        read_layers(object, r);
        const char *device = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "device"));
        snprintf(cell->device, sizeof cell->device, "%s", device ? device : "unknown device");
        cell->seconds = get_number(object, "seconds");
        *stored = true;
    }
    cJSON_Delete(object);
    return status;
}

/* ---- the grid ---------------------------------------------------------------------------------------------------- */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static cldsa_status cell_config(const cldsa_experiment_config *config, const cldsa_cell *cell, const char *directory,
                                cldsa_run_config *run) {
    *run = config->run;
    run->data.seq_len = cell->length;
    run->seed = cell->seed;
    run->directory = directory;
    if (run->model.max_positions < cell->length)
        run->model.max_positions = cell->length;
    return cldsa_config_set_variant(&run->model, config->variants[cell->variant]);
}

static cldsa_status run_cell(cldsa_context *ctx, cl_command_queue queue, const cldsa_experiment_config *config,
                             const cldsa_experiment_hooks *hooks, int number, int count, cldsa_cell *cell) {
    char directory[PATH_SIZE], path[PATH_SIZE + 32];
    cldsa_cell_directory(config, cell, directory, sizeof directory);
    snprintf(path, sizeof path, "%s/result.json", directory);
    cldsa_run_config run;
    CLDSA_TRY(cell_config(config, cell, directory, &run));
    if (config->fresh) {
        unlink(path);
        cldsa_checkpoint_remove_all(directory);
    }
    bool stored;
    CLDSA_TRY(load_cell(path, &run, cell, &stored));
    if (hooks && hooks->cell)
        hooks->cell(hooks->user, number, count, cell, config->variants[cell->variant], stored);
    if (stored) {
        cldsa_checkpoint_remove_all(directory); /* a run killed right after it ended had no time for that */
        return CLDSA_SUCCESS;
    }
    const cldsa_device_info *info = cldsa_context_device_info(ctx);
    snprintf(cell->device, sizeof cell->device, "%.100s / %.100s (driver %.40s)", info->platform_name, info->name,
             info->driver);
    double start = now();
    CLDSA_TRY(cldsa_train(ctx, queue, &run, hooks ? &hooks->run : NULL, &cell->result));
    cell->seconds = now() - start;
    CLDSA_TRY(store_cell(path, &run, cell));
    cldsa_checkpoint_remove_all(directory); /* only needed to continue; a full grid would keep gigabytes */
    return CLDSA_SUCCESS;
}

/* A cell that counted twice would pass for two independent runs: no spread, and significance out of nothing. */
static cldsa_status check_axes(const cldsa_experiment_config *config) {
    for (int i = 0; i < config->num_lengths; ++i)
        for (int k = 0; k < i; ++k)
            if (config->lengths[i] == config->lengths[k])
                return cldsa_fail(CLDSA_INVALID_ARGUMENT, "experiment: length %d is given twice; each counts once",
                                  config->lengths[i]);
    for (int i = 0; i < config->num_variants; ++i)
        for (int k = 0; k < i; ++k)
            if (strcmp(config->variants[i], config->variants[k]) == 0)
                return cldsa_fail(CLDSA_INVALID_ARGUMENT, "experiment: variant %s is given twice; each counts once",
                                  config->variants[i]);
    for (int i = 0; i < config->num_seeds; ++i)
        for (int k = 0; k < i; ++k)
            if (config->seeds[i] == config->seeds[k])
                return cldsa_fail(CLDSA_INVALID_ARGUMENT, "experiment: seed %llu is given twice; each counts once",
                                  (unsigned long long)config->seeds[i]);
    return CLDSA_SUCCESS;
}

/* Before the first cell, not hours later at the one that is wrong. */
static cldsa_status check_variants(const cldsa_experiment_config *config) {
    for (int v = 0; v < config->num_variants; ++v) {
        cldsa_config model = config->run.model;
        CLDSA_TRY(cldsa_config_set_variant(&model, config->variants[v]));
        for (int l = 0; l < config->num_lengths; ++l) {
            cldsa_status status = cldsa_config_check_length(&model, config->lengths[l]);
            if (status != CLDSA_SUCCESS)
                return cldsa_fail_prefix(status, "experiment: variant %s", config->variants[v]);
        }
    }
    return CLDSA_SUCCESS;
}

/* Seeds outermost: a grid stopped early has every length and variant once. */
static void lay_out_cells(const cldsa_experiment_config *config, cldsa_experiment_result *result) {
    for (int s = 0; s < config->num_seeds; ++s)
        for (int l = 0; l < config->num_lengths; ++l)
            for (int v = 0; v < config->num_variants; ++v)
                result->cells[result->num_cells++] =
                    (cldsa_cell){.length = config->lengths[l], .variant = v, .seed = config->seeds[s]};
}

/* ---- what the cells add up to ------------------------------------------------------------------------------------ */

static int gather(const cldsa_experiment_result *result, int length, int variant, size_t at, double *values) {
    int count = 0;
    for (int i = 0; i < result->num_cells; ++i)
        if (result->cells[i].length == length && result->cells[i].variant == variant) {
            double value = *(const double *)((const char *)&result->cells[i].result + at);
            if (!isnan(value))
                values[count++] = value;
        }
    return count;
}

static cldsa_summary summarise(const cldsa_experiment_result *result, int length, int variant, size_t at) {
    double values[CLDSA_MAX_AXIS];
    return cldsa_summarise(values, gather(result, length, variant, at, values));
}

static cldsa_table_row table_row(const cldsa_experiment_result *result, int length, int variant) {
    cldsa_table_row row = {.length = length, .variant = variant};
#define SUMMARISE(member) summarise(result, length, variant, offsetof(cldsa_run_result, member))
    row.loss = SUMMARISE(validation_loss);
    row.accuracy = SUMMARISE(validation_accuracy);
    row.bits_per_byte = SUMMARISE(bits_per_byte);
    row.tokens_per_second = SUMMARISE(tokens_per_second);
    row.train_loss = SUMMARISE(train_loss);
#undef SUMMARISE
    int count = 0;
    for (int i = 0; i < result->num_cells; ++i) {
        const cldsa_cell *cell = &result->cells[i];
        if (cell->length != length || cell->variant != variant)
            continue;
        ++count;
        row.peak_device_bytes = fmax(row.peak_device_bytes, (double)cell->result.peak_device_bytes);
        row.num_layers = cell->result.num_layers;
        for (int k = 0; k < row.num_layers; ++k) {
            row.mean_k[k] += cell->result.layers[k].mean_k;
            row.sparsity[k] += cell->result.layers[k].sparsity;
        }
    }
    for (int k = 0; k < row.num_layers; ++k) {
        row.mean_k[k] /= count;
        row.sparsity[k] /= count;
    }
    return row;
}

static void compare(const cldsa_experiment_config *config, cldsa_experiment_result *result) {
    double ours[CLDSA_MAX_AXIS], theirs[CLDSA_MAX_AXIS];
    size_t at = offsetof(cldsa_run_result, validation_loss);
    cldsa_comparison tests[CLDSA_MAX_AXIS * CLDSA_MAX_AXIS * CLDSA_MAX_AXIS];
    for (int l = 0; l < config->num_lengths; ++l)
        for (int a = 0; a < config->num_variants; ++a)
            for (int b = 0; b < config->num_variants; ++b) {
                bool adaptive = strncmp(config->variants[a], "adaptive", 8) == 0;
                if (!adaptive || strncmp(config->variants[b], "adaptive", 8) == 0)
                    continue;
                int length = config->lengths[l];
                int n = gather(result, length, a, at, ours), m = gather(result, length, b, at, theirs);
                tests[result->num_comparisons] = cldsa_welch(ours, n, theirs, m);
                result->comparisons[result->num_comparisons++] =
                    (cldsa_table_comparison){.length = length, .variant = a, .against = b};
            }
    cldsa_holm(tests, result->num_comparisons);
    for (int i = 0; i < result->num_comparisons; ++i)
        result->comparisons[i].loss = tests[i];
}

/* A grid may have been continued on another device: each is named once. */
static void name_devices(cldsa_experiment_result *result) {
    for (int i = 0; i < result->num_cells; ++i) {
        const char *device = result->cells[i].device;
        size_t used = strlen(result->device);
        if (!strstr(result->device, device))
            snprintf(result->device + used, sizeof result->device - used, "%s%s", used ? " + " : "", device);
    }
}

cldsa_status cldsa_experiment_run(cldsa_context *ctx, cl_command_queue queue, const cldsa_experiment_config *config,
                                  const cldsa_experiment_hooks *hooks, cldsa_experiment_result **out) {
    *out = NULL;
    CLDSA_TRY(check_axes(config));
    CLDSA_TRY(check_variants(config));
    int count = config->num_lengths * config->num_variants * config->num_seeds;
    cldsa_experiment_result *result = calloc(1, sizeof *result);
    cldsa_cell *cells = calloc((size_t)count + 1, sizeof *cells);
    if (!result || !cells) {
        free(result);
        free(cells);
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "experiment: out of memory");
    }
    result->cells = cells;
    lay_out_cells(config, result);
    cldsa_status status = CLDSA_SUCCESS;
    for (int i = 0; i < count && status == CLDSA_SUCCESS; ++i)
        status = run_cell(ctx, queue, config, hooks, i, count, &cells[i]);
    if (status != CLDSA_SUCCESS) {
        cldsa_experiment_free(result);
        return status;
    }
    for (int l = 0; l < config->num_lengths; ++l)
        for (int v = 0; v < config->num_variants; ++v)
            result->rows[result->num_rows++] = table_row(result, config->lengths[l], v);
    compare(config, result);
    name_devices(result);
    *out = result;
    return CLDSA_SUCCESS;
}

void cldsa_experiment_free(cldsa_experiment_result *result) {
    if (!result)
        return;
    free(result->cells);
    free(result);
}
