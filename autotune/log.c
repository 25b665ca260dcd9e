/* The log: what was tried, a line of JSON each, from which an interrupted tuning goes on. */
#include "autotune/tuner.h"

#include "host/io/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOG_LIMIT = 1 << 28, PATH_SIZE = 4096 };

/* $XDG_STATE_HOME/cldsa, where logs lie. */
static cldsa_status log_directory(char directory[PATH_SIZE]) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state && *state == '/')
        snprintf(directory, PATH_SIZE, "%s/cldsa", state);
    else if (home && *home)
        snprintf(directory, PATH_SIZE, "%s/.local/state/cldsa", home);
    else
        return cldsa_fail(CLDSA_NOT_FOUND, "neither XDG_STATE_HOME nor HOME says where the log goes; --log does");
    return cldsa_make_directories(directory);
}

/* Opens for appending, as the only writer. */
static cldsa_status open_file(tuner_log *log) {
    log->file = fopen(log->path, "a+e");
    if (!log->file)
        return cldsa_fail(CLDSA_IO_ERROR, "%s: cannot be opened: %s", log->path, strerror(errno));
    if (flock(fileno(log->file), LOCK_EX | LOCK_NB)) {
        fclose(log->file);
        log->file = NULL;
        return cldsa_fail(CLDSA_IO_ERROR, "%s: another tuner writes it", log->path);
    }
    return CLDSA_SUCCESS;
}

/* An old log makes room for the new one; whatever else has that name stays. */
static cldsa_status remove_old(const char *path) {
    static const char head[] = "{\"tuning\":";
    char begun[sizeof head] = "";
    struct stat info = {0};
    if (stat(path, &info) != 0 && errno == ENOENT)
        return CLDSA_SUCCESS;
    FILE *file = S_ISREG(info.st_mode) ? fopen(path, "re") : NULL;
    bool empty = file && !fgets(begun, sizeof begun, file), ours = empty || strcmp(begun, head) == 0;
    if (file)
        fclose(file);
    if (!file || !ours)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT,
                          "%s: is there already and no log of cldsa tune; --log names a new file", path);
    unlink(path); /* not emptied: another tuner may be reading it */
    return CLDSA_SUCCESS;
}

cldsa_status tuner_log_begin(const char *path, const cldsa_device_info *device, const tuner_options *options,
                             tuner_log *log) {
    *log = (tuner_log){.began = bench_now(), .records = cJSON_CreateArray()};
    if (path) {
        snprintf(log->path, sizeof log->path, "%s", path);
        CLDSA_TRY(remove_old(path));
    } else {
        char directory[PATH_SIZE], date[32];
        time_t now = time(NULL);
        struct tm utc;
        CLDSA_TRY(log_directory(directory));
        strftime(date, sizeof date, "%Y%m%d-%H%M%S", gmtime_r(&now, &utc));
        snprintf(log->path, sizeof log->path, "%.4000s/tune-%s-%d.jsonl", directory, date, (int)getpid());
    }
    CLDSA_TRY(open_file(log));
    cJSON *head = cJSON_CreateObject();
    cJSON_AddNumberToObject(head, "tuning", 1);
    cJSON_AddStringToObject(head, "device", device->name);
    cJSON_AddStringToObject(head, "driver", device->driver);
    cJSON_AddNumberToObject(head, "seed", (double)options->seed);
    cJSON_AddItemToObject(head, "arguments", cJSON_Duplicate(options->arguments, true));
    tuner_log_add(log, head);
    return CLDSA_SUCCESS;
}

/* ---- resuming ---------------------------------------------------------------------------------------------------- */

static void read_records(tuner_log *log, char *text) {
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        cJSON *record = cJSON_Parse(line);
        if (cJSON_IsObject(record))
            cJSON_AddItemToArray(log->records, record);
        else
            cJSON_Delete(record); /* the line that a kill cut off */
    }
}

static cldsa_status resume_file(const char *path, tuner_log *log) {
    char *text;
    size_t size;
    *log = (tuner_log){.records = cJSON_CreateArray()};
    snprintf(log->path, sizeof log->path, "%s", path);
    CLDSA_TRY(cldsa_file_read(path, LOG_LIMIT, &text, &size));
    bool torn = size && text[size - 1] != '\n';
    read_records(log, text);
    free(text);
    const cJSON *head = cJSON_GetArrayItem(log->records, 0), *last = NULL, *record;
    if (!cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(head, "tuning")))
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: this is not a log of cldsa tune", path);
    cJSON_ArrayForEach(record, log->records) {
        if (cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(record, "at")))
            last = cJSON_GetObjectItemCaseSensitive(record, "at");
    }
    CLDSA_TRY(open_file(log));
    if (torn)
        fputc('\n', log->file);
    log->began = bench_now() - (last ? last->valuedouble : 0);
    return CLDSA_SUCCESS;
}

static bool unfinished(const tuner_log *log) {
    return tuner_log_find(log, "end", NULL, NULL, NULL, NULL) == NULL;
}

/* Names sort by date. */
static int newest_first(const struct dirent **a, const struct dirent **b) {
    return strcmp((*b)->d_name, (*a)->d_name);
}

static int is_log(const struct dirent *entry) {
    size_t length = strlen(entry->d_name);
    return strncmp(entry->d_name, "tune-", 5) == 0 && length > 6 && strcmp(entry->d_name + length - 6, ".jsonl") == 0;
}

cldsa_status tuner_log_resume(const char *path, tuner_log *log) {
    char directory[PATH_SIZE], candidate[PATH_SIZE + 260];
    struct dirent **names;
    if (path)
        return resume_file(path, log);
    CLDSA_TRY(log_directory(directory));
    int count = scandir(directory, &names, is_log, newest_first);
    bool found = false;
    for (int i = 0; i < count; ++i) {
        snprintf(candidate, sizeof candidate, "%s/%s", directory, names[i]->d_name);
        if (!found) {
            found = resume_file(candidate, log) == CLDSA_SUCCESS && unfinished(log);
            if (!found)
                tuner_log_end(log);
        }
        free(names[i]);
    }
    if (count >= 0)
        free(names);
    return found
               ? CLDSA_SUCCESS
               : cldsa_fail(CLDSA_NOT_FOUND, "%s holds no log of an interrupted tuning: nothing to resume", directory);
}

cldsa_status tuner_log_check_device(const tuner_log *log, const cldsa_device_info *device) {
    const cJSON *head = cJSON_GetArrayItem(log->records, 0);
    const char *name = cldsa_json_text(head, "device"), *driver = cldsa_json_text(head, "driver");
    if (strcmp(name, device->name) == 0 && strcmp(driver, device->driver) == 0)
        return CLDSA_SUCCESS;
    return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: its times are of %s, driver %s, and this is %s, driver %s",
                      log->path, name, driver, device->name, device->driver);
}

/* ---- writing and looking up -------------------------------------------------------------------------------------- */

double tuner_log_clock(const tuner_log *log) {
    return bench_now() - log->began;
}

void tuner_log_add(tuner_log *log, cJSON *record) {
    cJSON_AddNumberToObject(record, "at", tuner_log_clock(log));
    char *line = cJSON_PrintUnformatted(record);
    if (line && log->file) {
        /* One write: a kill leaves whole lines, or one torn at the end. */
        fprintf(log->file, "%s\n", line);
        fflush(log->file);
    }
    cJSON_free(line);
    cJSON_AddItemToArray(log->records, record);
}

static bool matches(const cJSON *record, const char *key, const char *value) {
    const char *own = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(record, key));
    return !value || (own && strcmp(own, value) == 0);
}

const cJSON *tuner_log_find(const tuner_log *log, const char *kind, const char *what, const char *variant,
                            const char *source, const char *tunables) {
    const cJSON *found = NULL, *record;
    cJSON_ArrayForEach(record, log->records) {
        if (cJSON_HasObjectItem(record, kind) && matches(record, kind, what) && matches(record, "variant", variant) &&
            matches(record, "source", source) && matches(record, "tunables", tunables))
            found = record;
    }
    return found;
}

void tuner_log_end(tuner_log *log) {
    if (log->file)
        fclose(log->file);
    cJSON_Delete(log->records);
    *log = (tuner_log){0};
}
