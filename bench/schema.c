/* Is this a result file of ours, whole and of this version? */
#include "bench/schema.h"

#include "bench/bench.h"

#include <stdio.h>
#include <string.h>

typedef enum kind {
    NUMBER,
    NUMBER_OR_NULL,
    TEXT,
    FLAG,
    OBJECT,
    LIST,
    STATISTICS /* an object with median, p10, p90 and samples */
} kind;

typedef enum presence {
    ALWAYS,
    WHEN_OK, /* of rows whose status is ok */
    OPTIONAL
} presence;

typedef struct key {
    const char *name;
    kind kind;
    presence presence;
} key;

static const key run_keys[] = {{"suite", TEXT, ALWAYS},
                               {"budget", NUMBER, ALWAYS},
                               {"peers", FLAG, ALWAYS},
                               {"gain", FLAG, ALWAYS},
                               {"preset", TEXT, OPTIONAL},
                               {"extents", TEXT, OPTIONAL},
                               {0}};

static const key system_keys[] = {{"date", TEXT, ALWAYS},
                                  {"cldsa", TEXT, ALWAYS},
                                  {"platform", TEXT, ALWAYS},
                                  {"device", TEXT, ALWAYS},
                                  {"vendor", TEXT, ALWAYS},
                                  {"driver", TEXT, ALWAYS},
                                  {"opencl", TEXT, ALWAYS},
                                  {"type", TEXT, ALWAYS},
                                  {"compute_units", NUMBER, ALWAYS},
                                  {"max_clock_mhz", NUMBER, ALWAYS},
                                  {"global_mem_bytes", NUMBER, ALWAYS},
                                  {"max_alloc_bytes", NUMBER, ALWAYS},
                                  {"local_mem_bytes", NUMBER, ALWAYS},
                                  {"fp16", FLAG, ALWAYS},
                                  {"fp64", FLAG, ALWAYS},
                                  {"compiler", TEXT, ALWAYS},
                                  {"host", OBJECT, ALWAYS},
                                  {"clocks", OBJECT, ALWAYS},
                                  {"tuned_here", FLAG, ALWAYS},
                                  {0}};

static const key peaks_keys[] = {
    {"f32_flops_per_second", NUMBER, ALWAYS}, {"launch_seconds", NUMBER, ALWAYS}, {"levels", LIST, ALWAYS}, {0}};
static const key level_keys[] = {{"bytes", NUMBER, ALWAYS}, {"bytes_per_second", NUMBER, ALWAYS}, {0}};

static const key peak_keys[] = {{"name", TEXT, ALWAYS},
                                {"unit", TEXT, ALWAYS},
                                {"bytes", NUMBER, ALWAYS},
                                {"how", TEXT, ALWAYS},
                                {"value", NUMBER, WHEN_OK},
                                {"seconds", STATISTICS, WHEN_OK},
                                {0}};

static const key op_keys[] = {{"op", TEXT, ALWAYS},
                              {"shape", TEXT, ALWAYS},
                              {"params", TEXT, ALWAYS},
                              {"give", TEXT, ALWAYS},
                              {"dtypes", TEXT, ALWAYS},
                              {"dtype", TEXT, ALWAYS},
                              {"variant", TEXT, ALWAYS},
                              {"tunables", TEXT, ALWAYS},
                              {"workspace_bytes", NUMBER, ALWAYS},
                              {"peers", LIST, ALWAYS},
                              {"seconds", STATISTICS, WHEN_OK},
                              {"gflops", NUMBER, WHEN_OK},
                              {"gbytes_per_second", NUMBER, WHEN_OK},
                              {"error_of_allowed", NUMBER, WHEN_OK},
                              {"worst_abs_error", NUMBER, WHEN_OK},
                              {"checked_at", TEXT, WHEN_OK},
                              {"tuning", OBJECT, OPTIONAL},
                              {"roofline", OBJECT, OPTIONAL},
                              {"default", OBJECT, OPTIONAL},
                              {"gain", NUMBER, OPTIONAL},
                              {"kernels", LIST, OPTIONAL},
                              {0}};
static const key roofline_keys[] = {{"seconds", NUMBER, ALWAYS},           {"limit", TEXT, ALWAYS},
                                    {"percent", NUMBER, ALWAYS},           {"bytes_per_second", NUMBER, ALWAYS},
                                    {"working_set_bytes", NUMBER, ALWAYS}, {0}};
static const key default_keys[] = {
    {"variant", TEXT, ALWAYS}, {"tunables", TEXT, ALWAYS}, {"seconds", STATISTICS, ALWAYS}, {0}};
static const key tuning_keys[] = {{"match", TEXT, ALWAYS}, {"from", TEXT, ALWAYS}, {0}};

static const key train_keys[] = {{"length", NUMBER, ALWAYS},
                                 {"variant", TEXT, ALWAYS},
                                 {"peers", LIST, ALWAYS},
                                 {"tokens_per_second", STATISTICS, WHEN_OK},
                                 {"first_loss", NUMBER, WHEN_OK},
                                 {"last_loss", NUMBER, WHEN_OK},
                                 {"peak_device_bytes", NUMBER_OR_NULL, WHEN_OK},
                                 {"peak_rss_bytes", NUMBER_OR_NULL, WHEN_OK},
                                 {"kernels", LIST, OPTIONAL},
                                 {0}};

static const key end_keys[] = {{"mode", TEXT, ALWAYS},
                               {"S", NUMBER, ALWAYS},
                               {"T", NUMBER, ALWAYS},
                               {"K", NUMBER, ALWAYS},
                               {"shape", TEXT, ALWAYS},
                               {"dtype", TEXT, ALWAYS},
                               {"sparse", OBJECT, WHEN_OK},
                               {"dense", OBJECT, WHEN_OK},
                               {"ratio", NUMBER, WHEN_OK},
                               {"workspace_bytes", NUMBER, WHEN_OK},
                               {0}};
static const key sparse_keys[] = {{"seconds", STATISTICS, ALWAYS},
                                  {"select_seconds", STATISTICS, ALWAYS},
                                  {"attend_seconds", STATISTICS, ALWAYS},
                                  {0}};
static const key dense_keys[] = {{"seconds", STATISTICS, ALWAYS}, {"form", TEXT, OPTIONAL}, {0}};

static const key peer_keys[] = {{"peer", TEXT, ALWAYS},
                                {"status", TEXT, ALWAYS},
                                {"reason", TEXT, OPTIONAL},
                                {"seconds", STATISTICS, OPTIONAL},
                                {"tokens_per_second", STATISTICS, OPTIONAL},
                                {"ratio", NUMBER, OPTIONAL},
                                {0}};

static const key crossover_keys[] = {{"mode", TEXT, ALWAYS}, {"K", NUMBER, ALWAYS},         {"from", NUMBER, ALWAYS},
                                     {"to", NUMBER, ALWAYS}, {"T", NUMBER_OR_NULL, ALWAYS}, {0}};

static const key statistics_keys[] = {{"median", NUMBER, ALWAYS},  {"p10", NUMBER, ALWAYS},  {"p90", NUMBER, ALWAYS},
                                      {"samples", NUMBER, ALWAYS}, {"values", LIST, ALWAYS}, {0}};

static const struct {
    const char *name;
    const key *keys;
} suites[] = {{"peak", peak_keys}, {"ops", op_keys}, {"train", train_keys}, {"end-to-end", end_keys}};

/* Objects within rows, with keys of their own. */
static const struct {
    const char *name;
    const key *keys;
} parts[] = {{"roofline", roofline_keys},
             {"default", default_keys},
             {"tuning", tuning_keys},
             {"sparse", sparse_keys},
             {"dense", dense_keys}};

static bool is_kind(const cJSON *item, kind wanted) {
    switch (wanted) {
    case NUMBER:
        return cJSON_IsNumber(item);
    case NUMBER_OR_NULL:
        return cJSON_IsNumber(item) || cJSON_IsNull(item);
    case TEXT:
        return cJSON_IsString(item);
    case FLAG:
        return cJSON_IsBool(item);
    case LIST:
        return cJSON_IsArray(item);
    default:
        return cJSON_IsObject(item);
    }
}

static const char *const kind_names[] = {
    [NUMBER] = "a number",      [NUMBER_OR_NULL] = "a number or null",
    [TEXT] = "a string",        [FLAG] = "true or false",
    [OBJECT] = "an object",     [LIST] = "an array",
    [STATISTICS] = "an object",
};

/* `where` names the object in messages: "system", "rows[3]". */
static cldsa_status check_keys(const cJSON *object, const key *keys, bool is_ok, const char *where) {
    if (!cJSON_IsObject(object))
        return cldsa_fail(CLDSA_INVALID_FILE, "%s is missing or not an object", where);
    for (; keys->name; ++keys) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, keys->name);
        if (!item && (keys->presence == OPTIONAL || (keys->presence == WHEN_OK && !is_ok)))
            continue;
        if (!item)
            return cldsa_fail(CLDSA_INVALID_FILE, "%s lacks \"%s\"", where, keys->name);
        if (!is_kind(item, keys->kind))
            return cldsa_fail(CLDSA_INVALID_FILE, "%s.%s must be %s", where, keys->name, kind_names[keys->kind]);
        if (keys->kind == STATISTICS) {
            char inner[96];
            snprintf(inner, sizeof inner, "%s.%s", where, keys->name);
            CLDSA_TRY(check_keys(item, statistics_keys, true, inner));
        }
    }
    return CLDSA_SUCCESS;
}

static cldsa_status check_list(const cJSON *list, const key *keys, const char *where) {
    int i = 0;
    const cJSON *item;
    char name[96];
    cJSON_ArrayForEach(item, list) {
        snprintf(name, sizeof name, "%.64s[%d]", where, i++);
        CLDSA_TRY(check_keys(item, keys, true, name));
    }
    return CLDSA_SUCCESS;
}

static cldsa_status check_parts(const cJSON *row, const char *where) {
    char name[64];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i) {
        const cJSON *part = cJSON_GetObjectItemCaseSensitive(row, parts[i].name);
        snprintf(name, sizeof name, "%s.%s", where, parts[i].name);
        if (part)
            CLDSA_TRY(check_keys(part, parts[i].keys, true, name));
    }
    snprintf(name, sizeof name, "%s.peers", where);
    return check_list(cJSON_GetObjectItemCaseSensitive(row, "peers"), peer_keys, name);
}

static cldsa_status check_row(const cJSON *row, const char *where) {
    static const key common[] = {{"suite", TEXT, ALWAYS}, {"status", TEXT, ALWAYS}, {"reason", TEXT, OPTIONAL}, {0}};
    CLDSA_TRY(check_keys(row, common, true, where));
    int status;
    CLDSA_TRY(cldsa_json_get_enum(row, where, "status", bench_status_names, &status));
    if (status != BENCH_OK && !cJSON_GetObjectItemCaseSensitive(row, "reason"))
        return cldsa_fail(CLDSA_INVALID_FILE, "%s lacks \"reason\": its status is %s", where,
                          bench_status_names[status]);
    const char *suite = cJSON_GetObjectItemCaseSensitive(row, "suite")->valuestring;
    for (size_t i = 0; i < sizeof suites / sizeof *suites; ++i)
        if (strcmp(suite, suites[i].name) == 0) {
            CLDSA_TRY(check_keys(row, suites[i].keys, status == BENCH_OK, where));
            return check_parts(row, where);
        }
    return cldsa_fail(CLDSA_INVALID_FILE, "%s: there is no suite \"%s\"", where, suite);
}

static cldsa_status check_system(const cJSON *system) {
    CLDSA_TRY(check_keys(system, system_keys, true, "system"));
    const cJSON *peaks = cJSON_GetObjectItemCaseSensitive(system, "peaks");
    if (!peaks || cJSON_IsNull(peaks))
        return CLDSA_SUCCESS;
    CLDSA_TRY(check_keys(peaks, peaks_keys, true, "system.peaks"));
    return check_list(cJSON_GetObjectItemCaseSensitive(peaks, "levels"), level_keys, "system.peaks.levels");
}

static cldsa_status check_document(const cJSON *document) {
    const cJSON *schema = cJSON_GetObjectItemCaseSensitive(document, "schema");
    const char *what = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "kind"));
    if (what)
        return cldsa_fail(CLDSA_INVALID_FILE, "it is no result of cldsa bench but of kind \"%.40s\"", what);
    if (!cJSON_IsNumber(schema))
        return cldsa_fail(CLDSA_INVALID_FILE, "it is no result of cldsa bench: it has no \"schema\"");
    if (schema->valuedouble != BENCH_SCHEMA)
        return cldsa_fail(CLDSA_INVALID_FILE, "its schema is %g; this cldsa reads %d: measure again with it",
                          schema->valuedouble, BENCH_SCHEMA);
    CLDSA_TRY(check_keys(cJSON_GetObjectItemCaseSensitive(document, "run"), run_keys, true, "run"));
    CLDSA_TRY(check_system(cJSON_GetObjectItemCaseSensitive(document, "system")));
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(document, "rows"), *row;
    if (!cJSON_IsArray(rows))
        return cldsa_fail(CLDSA_INVALID_FILE, "\"rows\" is missing or not an array");
    int i = 0;
    char where[32];
    cJSON_ArrayForEach(row, rows) {
        snprintf(where, sizeof where, "rows[%d]", i++);
        CLDSA_TRY(check_row(row, where));
    }
    return check_list(cJSON_GetObjectItemCaseSensitive(document, "crossovers"), crossover_keys, "crossovers");
}

cldsa_status bench_validate(const cJSON *document, const char *source) {
    cldsa_status status = check_document(document);
    return status == CLDSA_SUCCESS ? status : cldsa_fail_prefix(CLDSA_INVALID_FILE, "%s", source);
}

cldsa_status bench_load(const char *path, cJSON **out) {
    CLDSA_TRY(cldsa_json_read(path, out));
    cldsa_status status = bench_validate(*out, path);
    if (status != CLDSA_SUCCESS) {
        cJSON_Delete(*out);
        *out = NULL;
    }
    return status;
}
