/* Databases from JSON to memory: which files, which of their databases concern this device, what in them is usable. */
#include "host/io/json.h"
#include "host/ops/fields.h"
#include "host/ops/tuning_database.h"
#include "host/runtime/embedded.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_DATABASES = 256, PATH_MAX_BYTES = 4096 };

/* A database that concerns this device. */
typedef struct candidate {
    const cJSON *json;
    cldsa_tuning_match match;
    const char *where; /* "user file", or the shipped file's name */
} candidate;

/* A source hash that is known already: many entries share a kernel file. */
typedef struct known_hash {
    const char *file;
    char text[17];
} known_hash;

typedef struct loader {
    cldsa_context *ctx;
    tuning_database *database;
    size_t entries_capacity;
    candidate candidates[MAX_DATABASES];
    int num_candidates;
    cJSON *roots[MAX_DATABASES];
    int num_roots;
    const char *where; /* of the file that is being read */
    known_hash hashes[128];
    int num_hashes;
    int stale, unusable; /* variants passed over */
} loader;

/* ---- where ----------------------------------------------------------------------------------------------------- */

bool cldsa_tuning_user_path(char *path, size_t size) {
    const char *own = getenv("CLDSA_TUNING"), *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (own && *own)
        return strcmp(own, "none") != 0 && (size_t)snprintf(path, size, "%s", own) < size;
    if (xdg && *xdg)
        return (size_t)snprintf(path, size, "%s/cldsa/tuning.json", xdg) < size;
    if (home && *home)
        return (size_t)snprintf(path, size, "%s/.local/share/cldsa/tuning.json", home) < size;
    return false;
}

/* Only of objects have all members names. */
static const cJSON *object_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsObject(item) ? item : NULL;
}

static bool says(const cJSON *device, const char *key, const char *value) {
    return *value && strcmp(cldsa_json_text(device, key), value) == 0;
}

cldsa_tuning_match tuning_match_device(const cJSON *device, const cldsa_device_info *info) {
    char architecture[CLDSA_ARCHITECTURE_MAX];
    cldsa_device_architecture(info, architecture);
    const cJSON *units = cJSON_GetObjectItemCaseSensitive(device, "compute_units");
    if (!says(device, "type", cldsa_device_type_name(info->type)))
        return CLDSA_TUNING_NONE;
    if (says(device, "name", info->name) && says(device, "driver", info->driver) && cJSON_IsNumber(units) &&
        units->valuedouble == info->compute_units)
        return CLDSA_TUNING_EXACT;
    bool platform = says(device, "platform", info->platform_name);
    if (platform && says(device, "architecture", architecture))
        return CLDSA_TUNING_ARCHITECTURE;
    return platform || says(device, "vendor", info->vendor) ? CLDSA_TUNING_VENDOR : CLDSA_TUNING_NONE;
}

cldsa_status tuning_each_database(const cJSON *root, const char *source,
                                  void (*visit)(void *user, const cJSON *database), void *user) {
    int schema = 0;
    if (cldsa_json_get_int(root, source, "schema", 0, 1 << 30, &schema) != CLDSA_SUCCESS ||
        schema != CLDSA_TUNING_SCHEMA)
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: no tuning database of schema %d%s", source, CLDSA_TUNING_SCHEMA,
                          schema ? "; another version of cldsa wrote it" : "");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "databases");
    if (!list && !cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(root, "device")))
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: has neither \"device\" nor \"databases\"", source);
    if (!list)
        visit(user, root);
    const cJSON *database;
    cJSON_ArrayForEach(database, list) visit(user, database);
    return CLDSA_SUCCESS;
}

/* ---- which ----------------------------------------------------------------------------------------------------- */

static void consider(void *user, const cJSON *json) {
    loader *l = user;
    cldsa_tuning_match match =
        tuning_match_device(cJSON_GetObjectItemCaseSensitive(json, "device"), cldsa_context_device_info(l->ctx));
    if (match == CLDSA_TUNING_NONE || l->num_candidates == MAX_DATABASES)
        return;
    int at = l->num_candidates++; /* behind those that are as near or nearer */
    for (; at > 0 && l->candidates[at - 1].match < match; --at)
        l->candidates[at] = l->candidates[at - 1];
    l->candidates[at] = (candidate){json, match, l->where};
}

/* Takes the root, whose databases the candidates point into. */
static cldsa_status consider_file(loader *l, cJSON *root, const char *source, const char *where) {
    if (l->num_roots == MAX_DATABASES) {
        cJSON_Delete(root);
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: more than %d tuning files", source, MAX_DATABASES);
    }
    l->roots[l->num_roots++] = root;
    l->where = where;
    return tuning_each_database(root, source, consider, l);
}

static void report(const loader *l, cldsa_status status) {
    if (status != CLDSA_SUCCESS)
        cldsa_log(l->ctx, CLDSA_LOG_WARNING, "%s; it is passed over", cldsa_error_message());
}

static cldsa_status consider_path(loader *l, const char *path, const char *where) {
    cJSON *root;
    CLDSA_TRY(cldsa_json_read(path, &root));
    return consider_file(l, root, path, where);
}

/* What is not there is no failure, unless it was asked for by name. */
static void consider_usual(loader *l) {
    char path[PATH_MAX_BYTES];
    const char *own = getenv("CLDSA_TUNING");
    bool named = own && *own;
    if (named && strcmp(own, "none") == 0)
        return;
    if (cldsa_tuning_user_path(path, sizeof path) && (named || access(path, F_OK) == 0))
        report(l, consider_path(l, path, "user file"));
    for (const cldsa_embedded_file *file = cldsa_embedded_devices; file->name; ++file) {
        cJSON *root;
        cldsa_status status = cldsa_json_parse(file->name, file->text, strlen(file->text), &root);
        report(l, status == CLDSA_SUCCESS ? consider_file(l, root, file->name, file->name) : status);
    }
}

/* ---- what ------------------------------------------------------------------------------------------------------ */

static const char *hash_of(loader *l, const cldsa_variant *variant) {
    if (!variant->file)
        return "";
    for (int i = 0; i < l->num_hashes; ++i)
        if (strcmp(l->hashes[i].file, variant->file) == 0)
            return l->hashes[i].text;
    if (l->num_hashes == sizeof l->hashes / sizeof *l->hashes)
        return "?";
    known_hash *hash = &l->hashes[l->num_hashes++];
    hash->file = variant->file;
    cldsa_tuning_source_hash(l->ctx, variant, hash->text);
    return hash->text;
}

/* Without times nobody knows what the tunables gain: they hold for the shape itself. */
static float read_reach(const cJSON *json) {
    const double seconds = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "seconds"));
    const double fallback = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "default_seconds"));
    const double gain = fallback / seconds;
    return gain > 1 && isfinite(gain) ? (float)(log(gain) / log(CLDSA_TUNING_GAIN_PER_DOUBLING)) : 0;
}

static bool read_values(loader *l, const cldsa_op *op, const cJSON *json, tuning_values *out) {
    const char *name = cldsa_json_text(json, "variant");
    *out = (tuning_values){.variant = cldsa_find_variant(op, name)};
    if (!out->variant) {
        cldsa_log(l->ctx, CLDSA_LOG_WARNING, "tuning in %s: %s has no variant \"%s\"; it is passed over", l->where,
                  op->name, name);
        return false;
    }
    if (strcmp(cldsa_json_text(json, "source"), hash_of(l, out->variant)) != 0) {
        ++l->stale;
        return false;
    }
    out->reach = read_reach(json);
    const cJSON *value;
    cJSON_ArrayForEach(value, object_of(json, "tunables")) {
        int index = cldsa_find_tunable(out->variant, value->string, strlen(value->string));
        bool whole = cJSON_IsNumber(value) && value->valuedouble == value->valueint;
        if (index < 0 || !whole) {
            cldsa_log(l->ctx, CLDSA_LOG_WARNING, "tuning in %s: %s/%s %s \"%s\"; it is passed over", l->where, op->name,
                      name, index < 0 ? "has no tunable" : "needs a whole number for", value->string);
            return false;
        }
        out->values[index] = value->valueint;
        out->given |= 1u << index;
    }
    return true;
}

static void read_dims(const cldsa_op *op, const cJSON *dims, float logs[CLDSA_MAX_DIMS]) {
    for (int i = 0; i < CLDSA_MAX_DIMS; ++i)
        logs[i] = -1;
    for (int i = 0; op->dims[i]; ++i) {
        const cJSON *extent = cJSON_GetObjectItemCaseSensitive(dims, op->dims[i]);
        if (cJSON_IsNumber(extent) && extent->valuedouble >= 1)
            logs[i] = log2f((float)extent->valuedouble);
    }
}

/* False where nothing of the entry is usable. */
static bool read_entry(loader *l, const cJSON *json, int source, tuning_entry *out) {
    const candidate *from = &l->candidates[source];
    const cJSON *variants = cJSON_GetObjectItemCaseSensitive(json, "variants"), *item;
    *out = (tuning_entry){.match = from->match, .source = source};
    if (cldsa_find_op(cldsa_json_text(json, "op"), &out->op) != CLDSA_SUCCESS ||
        !tuning_parse_traits(out->op, cldsa_json_text(json, "params"), cldsa_json_text(json, "dtypes"), out->traits)) {
        ++l->unusable;
        return false;
    }
    read_dims(out->op, cJSON_GetObjectItemCaseSensitive(json, "dims"), out->log_dims);
    snprintf(out->from, sizeof out->from, "%.30s, %.30s", cldsa_json_text(json, "class"), from->where);
    out->variants = calloc((size_t)cJSON_GetArraySize(variants) + 1, sizeof *out->variants);
    if (!out->variants)
        return false;
    cJSON_ArrayForEach(item, variants) if (read_values(l, out->op, item, &out->variants[out->num_variants]))
        out->num_variants++;
    for (int i = 0; i < out->num_variants; ++i)
        if (strcmp(out->variants[i].variant->name, cldsa_json_text(json, "variant")) == 0)
            out->fastest = out->variants[i].variant;
    if (out->num_variants == 0)
        free(out->variants);
    return out->num_variants > 0;
}

static cldsa_status add_entry(loader *l, const cJSON *json, int source) {
    tuning_database *database = l->database;
    if (database->count == l->entries_capacity) {
        size_t capacity = l->entries_capacity ? 2 * l->entries_capacity : 64;
        tuning_entry *grown = realloc(database->entries, capacity * sizeof *grown);
        if (!grown)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "tuning database: out of memory");
        database->entries = grown;
        l->entries_capacity = capacity;
    }
    if (read_entry(l, json, source, &database->entries[database->count]))
        database->count++;
    return CLDSA_SUCCESS;
}

static bool read_kernel(const cJSON *json, cldsa_tuning_clblast_kernel *out) {
    *out = (cldsa_tuning_clblast_kernel){0};
    snprintf(out->kernel, sizeof out->kernel, "%s", cldsa_json_text(json, "kernel"));
    out->precision = (int)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "precision"));
    const cJSON *value;
    cJSON_ArrayForEach(value, object_of(json, "parameters")) {
        if (out->count == CLDSA_TUNING_MAX_PARAMETERS || !cJSON_IsNumber(value) || !(value->valuedouble >= 0))
            return false;
        snprintf(out->names[out->count], sizeof out->names[0], "%s", value->string);
        out->values[out->count++] = (size_t)value->valuedouble;
    }
    return *out->kernel && out->count > 0;
}

/* CLBlast has defaults per device of its own: only what was measured on this architecture is better. */
static cldsa_status add_kernels(loader *l, const candidate *from) {
    tuning_database *database = l->database;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(from->json, "clblast"), *json;
    if (from->match < CLDSA_TUNING_ARCHITECTURE || cJSON_GetArraySize(list) == 0)
        return CLDSA_SUCCESS;
    cldsa_tuning_clblast_kernel *grown = realloc(
        database->kernels, (database->num_kernels + (size_t)cJSON_GetArraySize(list)) * sizeof *database->kernels);
    if (!grown)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "tuning database: out of memory");
    database->kernels = grown;
    cJSON_ArrayForEach(json, list) {
        cldsa_tuning_clblast_kernel *kernel = &grown[database->num_kernels];
        bool known = !read_kernel(json, kernel);
        for (size_t i = 0; i < database->num_kernels && !known; ++i)
            known = grown[i].precision == kernel->precision && strcmp(grown[i].kernel, kernel->kernel) == 0;
        if (!known) /* what a nearer database says stands */
            database->num_kernels++;
    }
    return CLDSA_SUCCESS;
}

static int by_operation(const void *a, const void *b) {
    const tuning_entry *x = a, *y = b;
    if (x->op != y->op)
        return x->op < y->op ? -1 : 1;
    return x->source - y->source;
}

static void index_operations(tuning_database *database) {
    qsort(database->entries, database->count, sizeof *database->entries, by_operation);
    for (size_t i = 0; i < database->count; ++i)
        for (size_t op = 0; cldsa_catalogue[op]; ++op)
            if (cldsa_catalogue[op] == database->entries[i].op) {
                if (database->end[op] == 0)
                    database->first[op] = i;
                database->end[op] = i + 1;
            }
}

static cldsa_status read_candidates(loader *l) {
    for (int i = 0; i < l->num_candidates; ++i) {
        const cJSON *entry;
        l->where = l->candidates[i].where;
        cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(l->candidates[i].json, "entries"))
            CLDSA_TRY(add_entry(l, entry, i));
        CLDSA_TRY(add_kernels(l, &l->candidates[i]));
    }
    if (l->database->count)
        index_operations(l->database);
    if (l->stale)
        cldsa_log(l->ctx, CLDSA_LOG_INFO,
                  "tuning: %d measurements are of other kernel sources and passed over; "
                  "`cldsa tune` measures anew",
                  l->stale);
    if (l->unusable)
        cldsa_log(l->ctx, CLDSA_LOG_WARNING,
                  "tuning: %d entries name operations, params or dtypes that do not exist; "
                  "they are passed over",
                  l->unusable);
    return CLDSA_SUCCESS;
}

cldsa_status tuning_load(cldsa_context *ctx, const char *path, tuning_database **out) {
    loader *l = calloc(1, sizeof *l);
    *out = calloc(1, sizeof **out);
    cldsa_status status = l && *out ? CLDSA_SUCCESS : cldsa_fail(CLDSA_OUT_OF_MEMORY, "tuning database: out of memory");
    if (status == CLDSA_SUCCESS) {
        l->ctx = ctx;
        l->database = *out;
        if (!path)
            consider_usual(l);
        else if (*path)
            status = consider_path(l, path, "given file");
        if (status == CLDSA_SUCCESS)
            status = read_candidates(l);
    }
    for (int i = 0; l && i < l->num_roots; ++i)
        cJSON_Delete(l->roots[i]);
    free(l);
    if (status != CLDSA_SUCCESS) {
        tuning_free(*out);
        *out = NULL;
    }
    return status;
}

void tuning_free(tuning_database *database) {
    if (!database)
        return;
    for (size_t i = 0; i < database->count; ++i)
        free(database->entries[i].variants);
    free(database->entries);
    free(database->kernels);
    free(database);
}
