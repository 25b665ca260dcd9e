#include "host/train/checkpoint.h"
#include "host/io/file.h"
#include "host/io/json.h"
#include "host/runtime/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 4096, LATEST_LIMIT = 256 };

static const char prefix[] = "checkpoint-";

static void remove_directory(const char *path) {
    DIR *directory = opendir(path);
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char file[PATH_SIZE];
        if (snprintf(file, sizeof file, "%s/%s", path, entry->d_name) < (int)sizeof file)
            unlink(file); /* "." and ".." refuse */
    }
    closedir(directory);
    rmdir(path);
}

/* Checkpoints other than the one just written, half-written ones of a killed run included. */
static void remove_others(const char *directory, const char *keep) {
    DIR *stream = opendir(directory);
    if (!stream)
        return;
    for (struct dirent *entry; (entry = readdir(stream));) {
        char path[PATH_SIZE];
        if (strncmp(entry->d_name, prefix, sizeof prefix - 1) == 0 && strcmp(entry->d_name, keep) != 0 &&
            snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) < (int)sizeof path)
            remove_directory(path);
    }
    closedir(stream);
}

static cldsa_status write_state(const char *path, const cldsa_run_config *config, int64_t step) {
    cJSON *state = cJSON_CreateObject();
    cJSON_AddNumberToObject(state, "step", (double)step);
    cJSON_AddItemToObject(state, "run", cldsa_run_config_to_json(config));
    cldsa_status status = cldsa_json_write(path, state);
    cJSON_Delete(state);
    return status;
}

/* The newest checkpoint's directory; path is "" if there is none. */
static cldsa_status find_latest(const char *directory, char *path, size_t size) {
    char file[PATH_SIZE];
    path[0] = 0;
    snprintf(file, sizeof file, "%s/latest", directory);
    if (access(file, F_OK))
        return CLDSA_SUCCESS;
    char *name;
    size_t length;
    CLDSA_TRY(cldsa_file_read(file, LATEST_LIMIT, &name, &length));
    bool plausible = strncmp(name, prefix, sizeof prefix - 1) == 0 && !strchr(name, '/');
    if (plausible)
        snprintf(path, size, "%s/%s", directory, name);
    free(name);
    return plausible ? CLDSA_SUCCESS
                     : cldsa_fail(CLDSA_INVALID_FILE, "%s: names no checkpoint; remove it to start anew", file);
}

static cldsa_status write_checkpoint(cldsa_model *model, const cldsa_run_config *config, const char *path) {
    char file[PATH_SIZE + 64];
    CLDSA_TRY(cldsa_make_directories(path));
    CLDSA_TRY(cldsa_model_save(model, path));
    CLDSA_TRY(cldsa_model_save_optimizer(model, path));
    snprintf(file, sizeof file, "%s/state.json", path);
    return write_state(file, config, cldsa_model_step(model));
}

cldsa_status cldsa_checkpoint_save(cldsa_model *model, const cldsa_run_config *config) {
    char name[64], path[PATH_SIZE], file[PATH_SIZE + 64], before[PATH_SIZE];
    snprintf(name, sizeof name, "%s%lld", prefix, (long long)cldsa_model_step(model));
    snprintf(path, sizeof path, "%s/%s", config->directory, name);
    snprintf(file, sizeof file, "%s/latest", config->directory);
    cldsa_status status = write_checkpoint(model, config, path);
    if (status == CLDSA_SUCCESS)
        status = cldsa_file_write_all(file, name, strlen(name));
    if (status == CLDSA_SUCCESS)
        remove_others(config->directory, name);
    else if (find_latest(config->directory, before, sizeof before) == CLDSA_SUCCESS && strcmp(before, path) != 0)
        remove_directory(path); /* a full disk: leave nothing half-written */
    return status;
}

cldsa_status cldsa_checkpoint_load(cldsa_model *model, const cldsa_run_config *config, int64_t *step) {
    char path[PATH_SIZE], file[PATH_SIZE + 64];
    *step = 0;
    CLDSA_TRY(find_latest(config->directory, path, sizeof path));
    if (!*path)
        return CLDSA_SUCCESS;
    snprintf(file, sizeof file, "%s/state.json", path);
    cJSON *state;
    CLDSA_TRY(cldsa_json_read(file, &state));
    int64_t stored = 0;
    cldsa_status status = cldsa_json_get_i64(state, file, "step", 0, INT64_C(1) << 53, &stored);
    if (status == CLDSA_SUCCESS)
        status = cldsa_run_config_compare(cJSON_GetObjectItemCaseSensitive(state, "run"), file, config, true);
    cJSON_Delete(state);
    CLDSA_TRY(status);
    CLDSA_TRY(cldsa_model_load(model, path));
    CLDSA_TRY(cldsa_model_load_optimizer(model, path));
    if (cldsa_model_step(model) != stored)
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: says step %lld, the optimiser's file says %lld", file,
                          (long long)stored, (long long)cldsa_model_step(model));
    *step = stored;
    return CLDSA_SUCCESS;
}

void cldsa_checkpoint_remove_all(const char *directory) {
    char file[PATH_SIZE];
    snprintf(file, sizeof file, "%s/latest", directory);
    unlink(file); /* first: no reader finds a half-removed checkpoint */
    remove_others(directory, "");
}

cldsa_status cldsa_checkpoint_none(const char *directory) {
    char path[PATH_SIZE];
    CLDSA_TRY(find_latest(directory, path, sizeof path));
    return *path ? cldsa_fail(CLDSA_INVALID_ARGUMENT,
                              "%s is there already; --resume continues it, another directory keeps it", path)
                 : CLDSA_SUCCESS;
}
