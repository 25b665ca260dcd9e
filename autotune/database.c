/* The database's writing side: winners merged into a file under a lock, and files shown, exported and imported. */
#include "autotune/tuner.h"
#include "host/io/file.h"
#include "host/ops/tuning_database.h"
#include "host/runtime/embedded.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static bool same_text(const cJSON *a, const cJSON *b, const char *key) {
    return strcmp(cldsa_json_text(a, key), cldsa_json_text(b, key)) == 0;
}

static bool same_value(const cJSON *a, const cJSON *b, const char *key) {
    return cJSON_Compare(cJSON_GetObjectItemCaseSensitive(a, key), cJSON_GetObjectItemCaseSensitive(b, key), true);
}

static cJSON *array_of(cJSON *object, const char *key) {
    cJSON *array = cJSON_GetObjectItemCaseSensitive(object, key);
    if (cJSON_IsArray(array))
        return array;
    cJSON_DeleteItemFromObjectCaseSensitive(object, key);
    return cJSON_AddArrayToObject(object, key);
}

/* ---- databases from what was measured -------------------------------------------------------------------------- */

static cJSON *device_json(const cldsa_device_info *info) {
    char architecture[CLDSA_ARCHITECTURE_MAX];
    cldsa_device_architecture(info, architecture);
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "platform", info->platform_name);
    cJSON_AddStringToObject(out, "vendor", info->vendor);
    cJSON_AddStringToObject(out, "name", info->name);
    cJSON_AddStringToObject(out, "type", cldsa_device_type_name(info->type));
    cJSON_AddStringToObject(out, "architecture", architecture);
    cJSON_AddStringToObject(out, "driver", info->driver);
    cJSON_AddNumberToObject(out, "compute_units", info->compute_units);
    return out;
}

static cJSON *database_json(const cldsa_device_info *info) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "schema", CLDSA_TUNING_SCHEMA);
    cJSON_AddItemToObject(out, "device", device_json(info));
    return out;
}

/* {"M": 64, "N": 64} from "M=64 N=64" or "M=64,N=64". */
static cldsa_status numbers_json(const char *text, cJSON **out) {
    *out = cJSON_CreateObject();
    for (text += strspn(text, " ,"); *text; text += strspn(text, " ,")) {
        char name[64];
        long long value;
        int used = 0;
        if (sscanf(text, "%63[^= ,]=%lld%n", name, &value, &used) != 2) {
            cJSON_Delete(*out);
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, "tuning database: \"%s\" is not NAME=NUMBER", text);
        }
        cJSON_AddNumberToObject(*out, name, (double)value);
        text += used;
    }
    return CLDSA_SUCCESS;
}

static void add_measured(cJSON *out, double seconds, double default_seconds) {
    char date[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    cJSON_AddNumberToObject(out, "seconds", seconds);
    cJSON_AddNumberToObject(out, "default_seconds", default_seconds);
    cJSON_AddStringToObject(out, "date", date);
}

static cldsa_status add_winner(cJSON *entries, const tuner_winner *winner) {
    cJSON *dims, *tunables;
    CLDSA_TRY(numbers_json(winner->dims, &dims));
    cldsa_status status = numbers_json(winner->tunables, &tunables);
    if (status != CLDSA_SUCCESS) {
        cJSON_Delete(dims);
        return status;
    }
    cJSON *entry = cJSON_CreateObject();
    cJSON_AddItemToArray(entries, entry);
    cJSON_AddStringToObject(entry, "op", winner->op);
    cJSON_AddStringToObject(entry, "class", winner->shape_class);
    cJSON_AddItemToObject(entry, "dims", dims);
    cJSON_AddStringToObject(entry, "params", winner->params);
    cJSON_AddStringToObject(entry, "dtypes", winner->dtypes);
    if (winner->fastest)
        cJSON_AddStringToObject(entry, "variant", winner->variant);
    cJSON *variant = cJSON_CreateObject();
    cJSON_AddItemToArray(cJSON_AddArrayToObject(entry, "variants"), variant);
    cJSON_AddStringToObject(variant, "variant", winner->variant);
    cJSON_AddItemToObject(variant, "tunables", tunables);
    cJSON_AddStringToObject(variant, "source", winner->source);
    add_measured(variant, winner->seconds, winner->default_seconds);
    cJSON_AddNumberToObject(variant, "spread", winner->spread);
    return CLDSA_SUCCESS;
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

/* What is new takes the place of the first item that is about the same. */
static void put(cJSON *array, const cJSON *fresh, bool (*same)(const cJSON *a, const cJSON *b)) {
    int index = 0;
    const cJSON *old;
    cJSON_ArrayForEach(old, array) {
        if (same(old, fresh)) {
            cJSON_ReplaceItemInArray(array, index, cJSON_Duplicate(fresh, true));
            return;
        }
        ++index;
    }
    cJSON_AddItemToArray(array, cJSON_Duplicate(fresh, true));
}

static bool same_variant(const cJSON *a, const cJSON *b) {
    return same_text(a, b, "variant");
}

static bool same_kernel(const cJSON *a, const cJSON *b) {
    return same_text(a, b, "kernel") && same_value(a, b, "precision");
}

static bool same_call(const cJSON *a, const cJSON *b) {
    return same_text(a, b, "op") && same_text(a, b, "params") && same_text(a, b, "dtypes") && same_value(a, b, "dims");
}

static bool same_device(const cJSON *a, const cJSON *b) {
    return same_text(a, b, "name") && same_text(a, b, "driver") && same_value(a, b, "compute_units");
}

static void merge_entry(cJSON *entries, const cJSON *fresh) {
    cJSON *entry;
    cJSON_ArrayForEach(entry, entries) if (same_call(entry, fresh)) break;
    if (!entry) {
        cJSON_AddItemToArray(entries, cJSON_Duplicate(fresh, true));
        return;
    }
    static const char *const replaced[] = {"class", "variant"};
    for (size_t i = 0; i < sizeof replaced / sizeof *replaced; ++i) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(fresh, replaced[i]);
        if (!value)
            continue;
        cJSON_DeleteItemFromObjectCaseSensitive(entry, replaced[i]);
        cJSON_AddItemToObject(entry, replaced[i], cJSON_Duplicate(value, true));
    }
    const cJSON *variant;
    cJSON_ArrayForEach(variant, cJSON_GetObjectItemCaseSensitive(fresh, "variants"))
        put(array_of(entry, "variants"), variant, same_variant);
}

static void merge_database(cJSON *databases, const cJSON *fresh) {
    const cJSON *device = cJSON_GetObjectItemCaseSensitive(fresh, "device"), *item;
    cJSON *database;
    cJSON_ArrayForEach(database,
                       databases) if (same_device(cJSON_GetObjectItemCaseSensitive(database, "device"), device)) break;
    if (!database) {
        database = cJSON_CreateObject();
        cJSON_AddItemToArray(databases, database);
    }
    cJSON_DeleteItemFromObjectCaseSensitive(database, "device");
    cJSON_AddItemToObject(database, "device", cJSON_Duplicate(device, true));
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(fresh, "entries"))
        merge_entry(array_of(database, "entries"), item);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(fresh, "clblast"))
        put(array_of(database, "clblast"), item, same_kernel);
}

/* ---- the file under its lock ------------------------------------------------------------------------------------ */

static cldsa_status resolve(const char *path, char out[PATH_BYTES]) {
    if (path)
        return (size_t)snprintf(out, PATH_BYTES, "%s", path) < PATH_BYTES
                   ? CLDSA_SUCCESS
                   : cldsa_fail(CLDSA_INVALID_ARGUMENT, "%.60s...: the path is too long", path);
    return cldsa_tuning_user_path(out, PATH_BYTES)
               ? CLDSA_SUCCESS
               : cldsa_fail(CLDSA_INVALID_ARGUMENT, "there is no tuning file to use: CLDSA_TUNING is \"none\", or "
                                                    "neither XDG_DATA_HOME nor HOME is set");
}

typedef struct update {
    char path[PATH_BYTES];
    int lock;
    cJSON *root;
} update;

static void append_database(void *user, const cJSON *database) {
    cJSON_AddItemToArray(user, cJSON_Duplicate(database, true));
}

/* What is not JSON is kept aside; JSON of another kind or schema was never ours to replace. */
static cldsa_status read_for_update(update *u) {
    cJSON *root = NULL;
    cldsa_status status = cldsa_json_read(u->path, &root);
    struct stat info;
    if (status == CLDSA_INVALID_FILE && stat(u->path, &info) == 0 && S_ISREG(info.st_mode)) {
        char aside[PATH_BYTES + 16];
        snprintf(aside, sizeof aside, "%s.damaged", u->path);
        if (rename(u->path, aside) != 0)
            return cldsa_fail(CLDSA_IO_ERROR, "%s: cannot rename to %s: %s", u->path, aside, strerror(errno));
        fprintf(stderr, "cldsa: %s; it is kept as %s\n", cldsa_error_message(), aside);
    } else if (status != CLDSA_SUCCESS && status != CLDSA_NOT_FOUND) {
        return status;
    }
    u->root = cJSON_CreateObject(); /* a list of databases, whichever form the file has */
    cJSON_AddNumberToObject(u->root, "schema", CLDSA_TUNING_SCHEMA);
    cJSON *databases = cJSON_AddArrayToObject(u->root, "databases");
    status = root ? tuning_each_database(root, u->path, append_database, databases) : CLDSA_SUCCESS;
    cJSON_Delete(root);
    if (status != CLDSA_SUCCESS)
        cJSON_Delete(u->root);
    return status;
}

static cldsa_status make_parent(const char *path) {
    char parent[PATH_BYTES];
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return CLDSA_SUCCESS;
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
    return cldsa_make_directories(parent);
}

static cldsa_status begin_update(update *u, const char *path) {
    *u = (update){.lock = -1};
    CLDSA_TRY(resolve(path, u->path));
    CLDSA_TRY(make_parent(u->path));
    char lock[PATH_BYTES + 8];
    snprintf(lock, sizeof lock, "%s.lock", u->path);
    u->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (u->lock < 0)
        return cldsa_fail(CLDSA_IO_ERROR, "%s: cannot create: %s", lock, strerror(errno));
    int failed;
    do
        failed = flock(u->lock, LOCK_EX);
    while (failed && errno == EINTR);
    cldsa_status status =
        failed ? cldsa_fail(CLDSA_IO_ERROR, "%s: cannot lock: %s", lock, strerror(errno)) : read_for_update(u);
    if (status != CLDSA_SUCCESS)
        close(u->lock);
    return status;
}

/* The lock goes when its file is closed; the file itself stays, or two could hold locks on different ones. */
static cldsa_status end_update(update *u, cldsa_status status) {
    if (status == CLDSA_SUCCESS)
        status = cldsa_json_write(u->path, u->root);
    cJSON_Delete(u->root);
    close(u->lock);
    return status;
}

cldsa_status tuner_database_check(const char *path) {
    update u;
    cldsa_file_writer writer;
    CLDSA_TRY(begin_update(&u, path));
    cldsa_status status = cldsa_file_begin(&writer, u.path);
    if (status == CLDSA_SUCCESS)
        cldsa_file_end(&writer, CLDSA_INTERRUPTED); /* takes the temporary file away again */
    cJSON_Delete(u.root);
    close(u.lock);
    return status;
}

static void merge_visited(void *user, const cJSON *database) {
    merge_database(user, database);
}

static cldsa_status merge(const char *path, const cJSON *fresh, const char *source) {
    update u;
    CLDSA_TRY(begin_update(&u, path));
    return end_update(&u, tuning_each_database(fresh, source, merge_visited, array_of(u.root, "databases")));
}

cldsa_status tuner_database_add(const char *path, const cldsa_device_info *device, const tuner_winner *winners,
                                size_t count) {
    cJSON *fresh = database_json(device), *entries = cJSON_AddArrayToObject(fresh, "entries");
    cldsa_status status = CLDSA_SUCCESS;
    for (size_t i = 0; i < count && status == CLDSA_SUCCESS; ++i)
        status = add_winner(entries, &winners[i]);
    if (status == CLDSA_SUCCESS)
        status = merge(path, fresh, "tuning");
    cJSON_Delete(fresh);
    return status;
}

cldsa_status tuner_database_add_clblast(const char *path, const cldsa_device_info *device, const char *kernel,
                                        int precision, const char *parameters, double seconds, double default_seconds) {
    cJSON *numbers;
    CLDSA_TRY(numbers_json(parameters, &numbers));
    cJSON *fresh = database_json(device), *entry = cJSON_CreateObject();
    cJSON_AddItemToArray(cJSON_AddArrayToObject(fresh, "clblast"), entry);
    cJSON_AddStringToObject(entry, "kernel", kernel);
    cJSON_AddNumberToObject(entry, "precision", precision);
    cJSON_AddItemToObject(entry, "parameters", numbers);
    add_measured(entry, seconds, default_seconds);
    cldsa_status status = merge(path, fresh, "tuning");
    cJSON_Delete(fresh);
    return status;
}

cldsa_status tuner_database_import(const char *path, const char *from) {
    cJSON *fresh;
    CLDSA_TRY(cldsa_json_read(from, &fresh));
    cldsa_status status = merge(path, fresh, from);
    cJSON_Delete(fresh);
    return status;
}

/* ---- what there is for a device --------------------------------------------------------------------------------- */

/* Databases that concern a device, copied, each with "match" and "file". */
typedef struct collection {
    const cldsa_device_info *device;
    const char *file;
    cldsa_tuning_match least;
    cJSON *databases;
} collection;

static const char *const match_names[] = {"none", "vendor", "architecture", "exact"};

static void collect(void *user, const cJSON *database) {
    collection *c = user;
    cldsa_tuning_match match = tuning_match_device(cJSON_GetObjectItemCaseSensitive(database, "device"), c->device);
    if (match < c->least)
        return;
    cJSON *copy = cJSON_Duplicate(database, true);
    cJSON_AddStringToObject(copy, "file", c->file);
    cJSON_AddStringToObject(copy, "match", match_names[match]);
    cJSON_AddItemToArray(c->databases, copy);
}

static cldsa_status collect_file(collection *c, const char *path) {
    cJSON *root;
    CLDSA_TRY(cldsa_json_read(path, &root));
    c->file = path;
    cldsa_status status = tuning_each_database(root, path, collect, c);
    cJSON_Delete(root);
    return status;
}

static void collect_shipped(collection *c) {
    for (const cldsa_embedded_file *file = cldsa_embedded_devices; file->name; ++file) {
        cJSON *root;
        if (cldsa_json_parse(file->name, file->text, strlen(file->text), &root) != CLDSA_SUCCESS)
            continue;
        c->file = file->name;
        tuning_each_database(root, file->name, collect, c);
        cJSON_Delete(root);
    }
}

cldsa_status tuner_database_export(const char *path, const cldsa_device_info *device, const char *to) {
    char resolved[PATH_BYTES];
    struct stat from, target;
    CLDSA_TRY(resolve(path, resolved));
    if (stat(resolved, &from) == 0 && stat(to, &target) == 0 && from.st_dev == target.st_dev &&
        from.st_ino == target.st_ino)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT,
                          "%s: is the database itself, which may hold other devices too; --export names another file",
                          to);
    collection c = {.device = device, .least = CLDSA_TUNING_EXACT, .databases = cJSON_CreateArray()};
    cldsa_status status = collect_file(&c, resolved);
    cJSON *database = cJSON_GetArrayItem(c.databases, 0);
    if (status == CLDSA_SUCCESS && !database)
        status = cldsa_fail(CLDSA_NOT_FOUND, "%s: nothing was tuned for %s, driver %s", resolved, device->name,
                            device->driver);
    if (status == CLDSA_SUCCESS) {
        cJSON *out = cJSON_CreateObject();
        cJSON_AddNumberToObject(out, "schema", CLDSA_TUNING_SCHEMA);
        static const char *const members[] = {"device", "entries", "clblast"};
        for (size_t i = 0; i < sizeof members / sizeof *members; ++i)
            cJSON_AddItemReferenceToObject(out, members[i], cJSON_GetObjectItemCaseSensitive(database, members[i]));
        status = cldsa_json_write(to, out);
        cJSON_Delete(out);
    }
    cJSON_Delete(c.databases);
    return status;
}

/* Is a measurement of the kernel as it is built in? */
static bool is_current(const cJSON *entry, const cJSON *measured) {
    const cldsa_op *op;
    char hash[17] = "?";
    if (cldsa_find_op(cldsa_json_text(entry, "op"), &op) != CLDSA_SUCCESS)
        return false;
    const cldsa_variant *variant = cldsa_find_variant(op, cldsa_json_text(measured, "variant"));
    if (variant)
        cldsa_tuning_source_hash(NULL, variant, hash);
    return strcmp(cldsa_json_text(measured, "source"), hash) == 0;
}

static void numbers_text(const cJSON *object, const char *separator, char *text, size_t size) {
    *text = '\0';
    const cJSON *item;
    cJSON_ArrayForEach(item, object) {
        size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%s=%g", used ? separator : "", item->string ? item->string : "?",
                 item->valuedouble);
    }
}

static void print_measured(const cJSON *measured, const char *what, const char *values, const char *note) {
    double seconds = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(measured, "seconds"));
    double usual = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(measured, "default_seconds"));
    printf("    %-10s %10.4g ms  %5.2f x  %s%s\n", what, 1e3 * seconds, usual / seconds, values, note);
}

static void print_entry(const cJSON *entry) {
    char text[512];
    numbers_text(cJSON_GetObjectItemCaseSensitive(entry, "dims"), " ", text, sizeof text);
    printf("  %s %s (%s%s%s%s%s)\n", cldsa_json_text(entry, "op"), text, cldsa_json_text(entry, "class"),
           *cldsa_json_text(entry, "params") ? "; " : "", cldsa_json_text(entry, "params"),
           *cldsa_json_text(entry, "dtypes") ? "; " : "", cldsa_json_text(entry, "dtypes"));
    const cJSON *measured;
    cJSON_ArrayForEach(measured, cJSON_GetObjectItemCaseSensitive(entry, "variants")) {
        char name[48];
        snprintf(name, sizeof name, "%s%.32s", same_text(entry, measured, "variant") ? "*" : " ",
                 cldsa_json_text(measured, "variant"));
        numbers_text(cJSON_GetObjectItemCaseSensitive(measured, "tunables"), ",", text, sizeof text);
        print_measured(measured, name, *text ? text : "defaults",
                       is_current(entry, measured) ? "" : "  (of another kernel source: unused)");
    }
}

static void print_database(const cJSON *database) {
    const cJSON *device = cJSON_GetObjectItemCaseSensitive(database, "device"), *item;
    printf("%s (%s): %s / %s, %s, driver %s\n", cldsa_json_text(database, "file"), cldsa_json_text(database, "match"),
           cldsa_json_text(device, "platform"), cldsa_json_text(device, "name"),
           cldsa_json_text(device, "architecture"), cldsa_json_text(device, "driver"));
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(database, "entries")) print_entry(item);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(database, "clblast")) {
        char text[512];
        printf("  CLBlast's %s, %g bits\n", cldsa_json_text(item, "kernel"),
               cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "precision")));
        numbers_text(cJSON_GetObjectItemCaseSensitive(item, "parameters"), ",", text, sizeof text);
        print_measured(item, "clblast", text, "");
    }
}

static void print_collection(const collection *c) {
    printf("%s / %s, driver %s\n", c->device->platform_name, c->device->name, c->device->driver);
    if (cJSON_GetArraySize(c->databases) == 0)
        printf("nothing was tuned for it: kernels use their defaults; `cldsa tune` measures\n");
    else
        printf("* is the fastest variant; time per call, and how much faster than the variant's defaults\n");
    static const cldsa_tuning_match nearest_first[] = {CLDSA_TUNING_EXACT, CLDSA_TUNING_ARCHITECTURE,
                                                       CLDSA_TUNING_VENDOR};
    const cJSON *database;
    for (size_t i = 0; i < sizeof nearest_first / sizeof *nearest_first; ++i)
        cJSON_ArrayForEach(
            database, c->databases) if (strcmp(cldsa_json_text(database, "match"), match_names[nearest_first[i]]) == 0)
            print_database(database);
}

cldsa_status tuner_database_show(const char *path, const cldsa_device_info *device, bool json) {
    char resolved[PATH_BYTES];
    collection c = {.device = device, .least = CLDSA_TUNING_VENDOR, .databases = cJSON_CreateArray()};
    cldsa_status status = CLDSA_SUCCESS;
    if (path || (cldsa_tuning_user_path(resolved, sizeof resolved) && access(resolved, F_OK) == 0))
        status = collect_file(&c, path ? path : resolved);
    if (!path)
        collect_shipped(&c);
    if (status == CLDSA_SUCCESS && json) {
        cJSON *root = cJSON_CreateObject();
        cJSON_AddNumberToObject(root, "schema", CLDSA_TUNING_SCHEMA);
        cJSON_AddItemReferenceToObject(root, "databases", c.databases);
        char *text = cJSON_Print(root);
        printf("%s\n", text ? text : "");
        cJSON_free(text);
        cJSON_Delete(root);
    } else if (status == CLDSA_SUCCESS) {
        print_collection(&c);
    }
    cJSON_Delete(c.databases);
    return status;
}
