/* Files of a model: parameters and config, and the optimiser's state beside them. */
#include "host/nn/model_state.h"

#include "host/io/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_MAX_BYTES = 4096 };

static cldsa_status path_in(char path[PATH_MAX_BYTES], const char *directory, const char *file) {
    if (snprintf(path, PATH_MAX_BYTES, "%s/%s", directory, file) >= PATH_MAX_BYTES)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "the path %.60s... is too long", directory);
    return CLDSA_SUCCESS;
}

/* Writes up to two buffers of parameters under their prefixes. */
static cldsa_status write_buffers(cldsa_model *model, const char *path, const cl_mem *buffers,
                                  const char *const *prefixes, int count, const cldsa_st_metadata *metadata,
                                  size_t num_metadata) {
    cldsa_params_entries *entries = NULL;
    CLDSA_TRY(cldsa_params_entries_create(&model->params, &entries));
    cldsa_status status = CLDSA_SUCCESS;
    for (int i = 0; i < count && status == CLDSA_SUCCESS; ++i)
        status = cldsa_params_entries_add(entries, buffers[i], prefixes[i]);
    if (status == CLDSA_SUCCESS) {
        size_t num_entries = 0;
        const cldsa_st_entry *list = cldsa_params_entries_list(entries, &num_entries);
        status = cldsa_safetensors_write(path, list, num_entries, metadata, num_metadata);
    }
    cldsa_params_entries_free(entries);
    return status;
}

cldsa_status cldsa_model_save(cldsa_model *model, const char *directory) {
    char path[PATH_MAX_BYTES];
    CLDSA_TRY(path_in(path, directory, "config.json"));
    CLDSA_TRY(cldsa_config_write(path, &model->config));
    CLDSA_TRY(path_in(path, directory, "model.safetensors"));
    const char *const prefix = "";
    const cldsa_st_metadata format = {"format", "pt"};
    return write_buffers(model, path, &model->params.value, &prefix, 1, &format, 1);
}

cldsa_status cldsa_model_save_optimizer(cldsa_model *model, const char *directory) {
    char path[PATH_MAX_BYTES], step[32];
    if (!model->trains)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "model: it was created without training");
    CLDSA_TRY(path_in(path, directory, "optimizer.safetensors"));
    snprintf(step, sizeof step, "%lld", (long long)model->step);
    const cl_mem buffers[] = {model->params.m, model->params.v};
    const char *const prefixes[] = {"exp_avg.", "exp_avg_sq."};
    const cldsa_st_metadata metadata[] = {{"format", "pt"}, {"step", step}};
    return write_buffers(model, path, buffers, prefixes, 2, metadata, 2);
}

cldsa_status cldsa_model_load(cldsa_model *model, const char *directory) {
    char path[PATH_MAX_BYTES];
    CLDSA_TRY(path_in(path, directory, "model.safetensors"));
    cldsa_safetensors *file = NULL;
    CLDSA_TRY(cldsa_safetensors_open(path, &file));
    cldsa_status status = cldsa_params_read(&model->params, model->params.value, file, "", true);
    cldsa_safetensors_close(file);
    return status;
}

static cldsa_status read_step(const cldsa_safetensors *file, int64_t *step) {
    const char *text = cldsa_safetensors_metadata(file, "step");
    char *end = NULL;
    long long value = text ? strtoll(text, &end, 10) : -1;
    if (!text || end == text || *end || value < 0)
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: the metadata's step is %s; it must be a number of updates",
                          cldsa_safetensors_path(file), text ? text : "missing");
    *step = value;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_model_load_optimizer(cldsa_model *model, const char *directory) {
    char path[PATH_MAX_BYTES];
    if (!model->trains)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "model: it was created without training");
    CLDSA_TRY(path_in(path, directory, "optimizer.safetensors"));
    cldsa_safetensors *file = NULL;
    CLDSA_TRY(cldsa_safetensors_open(path, &file));
    int64_t step = 0;
    cldsa_status status = read_step(file, &step);
    if (status == CLDSA_SUCCESS)
        status = cldsa_params_read(&model->params, model->params.m, file, "exp_avg.", true);
    if (status == CLDSA_SUCCESS)
        status = cldsa_params_read(&model->params, model->params.v, file, "exp_avg_sq.", true);
    cldsa_safetensors_close(file);
    if (status == CLDSA_SUCCESS)
        model->step = step;
    return status;
}
