#include "host/io/json.h"

#include "host/io/file.h"
#include "host/runtime/runtime.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_FILE_LIMIT = 256 << 20, SHOWN_VALUE = 60 };

/* How a value stands in the file, cut short for a message. */
typedef struct shown_value {
    char text[SHOWN_VALUE + 4];
} shown_value;

static shown_value show(const cJSON *item) {
    shown_value shown = {"?"};
    char *text = cJSON_PrintUnformatted(item);
    if (text) {
        snprintf(shown.text, sizeof shown.text, "%.*s%s", SHOWN_VALUE, text, strlen(text) > SHOWN_VALUE ? "..." : "");
        cJSON_free(text);
    }
    return shown;
}

static cldsa_status syntax_error(const char *source, const char *text, size_t length, const char *at) {
    size_t end = at && at >= text && at <= text + length ? (size_t)(at - text) : length;
    int line = 1, column = 1;
    for (size_t i = 0; i < end; ++i) {
        column = text[i] == '\n' ? 1 : column + 1;
        line += text[i] == '\n';
    }
    return cldsa_fail(CLDSA_INVALID_FILE, "%s: not valid JSON at line %d, column %d", source, line, column);
}

/* Where text that cJSON took holds a 0, as such or escaped: the strings it makes would end there. NULL if nowhere. */
static const char *find_zero(const char *text, size_t length) {
    static const char escape[] = "\\u0000";
    for (const char *at = text, *end = text + length; at < end; ++at) {
        if (*at == '\0' || ((size_t)(end - at) >= sizeof escape - 1 && memcmp(at, escape, sizeof escape - 1) == 0))
            return at;
        at += *at == '\\';
    }
    return NULL;
}

cldsa_status cldsa_json_parse(const char *source, const char *text, size_t length, cJSON **out) {
    const char *end = NULL;
    *out = cJSON_ParseWithLengthOpts(text, length, &end, 0);
    if (!*out)
        return syntax_error(source, text, length, end);
    cldsa_status status = CLDSA_SUCCESS;
    const char *rest = end, *zero = find_zero(text, length);
    while (rest < text + length && strchr(" \t\r\n", *rest) && *rest)
        ++rest;
    if (zero)
        status = syntax_error(source, text, length, zero);
    else if (rest < text + length)
        status = syntax_error(source, text, length, rest);
    else if (!cJSON_IsObject(*out))
        status = cldsa_fail(CLDSA_INVALID_FILE, "%s: the JSON value is %s; an object {...} is needed", source,
                            show(*out).text);
    if (status != CLDSA_SUCCESS) {
        cJSON_Delete(*out);
        *out = NULL;
    }
    return status;
}

cldsa_status cldsa_json_read(const char *path, cJSON **out) {
    *out = NULL;
    char *text;
    size_t length;
    CLDSA_TRY(cldsa_file_read(path, JSON_FILE_LIMIT, &text, &length));
    cldsa_status status = cldsa_json_parse(path, text, length, out);
    free(text);
    return status;
}

cldsa_status cldsa_json_write(const char *path, const cJSON *value) {
    char *text = cJSON_Print(value);
    if (!text)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for its text", path);
    cldsa_file_writer writer;
    cldsa_status status = cldsa_file_begin(&writer, path);
    if (status == CLDSA_SUCCESS) {
        status = cldsa_file_write(&writer, text, strlen(text));
        if (status == CLDSA_SUCCESS)
            status = cldsa_file_write(&writer, "\n", 1);
        status = cldsa_file_end(&writer, status);
    }
    cJSON_free(text);
    return status;
}

static bool is_known(const char *key, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; ++i)
        if (strcmp(key, names[i]) == 0)
            return true;
    return false;
}

/* Names the nearest known key, or all where none is near. */
static cldsa_status unknown_key(const char *key, const char *source, const char *const *names, size_t count) {
    const char *near = cldsa_nearest_name(key, names, count);
    if (near)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: unknown key \"%s\"; did you mean \"%s\"?", source, key, near);
    char known[1024];
    size_t used = 0;
    for (size_t i = 0; i < count && used < sizeof known; ++i)
        used += (size_t)snprintf(known + used, sizeof known - used, " %s", names[i]);
    return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: unknown key \"%s\"; known are%s", source, key, known);
}

cldsa_status cldsa_json_check_keys(const cJSON *object, const char *source, const char *const *names, size_t count) {
    const cJSON *item;
    cJSON_ArrayForEach(item, object) {
        if (!is_known(item->string, names, count))
            return unknown_key(item->string, source, names, count);
        for (const cJSON *later = item->next; later; later = later->next)
            if (strcmp(later->string, item->string) == 0)
                return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: key \"%s\" is given twice", source, item->string);
    }
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_json_require(const cJSON *object, const char *source, const char *key, const cJSON **out) {
    *out = cJSON_GetObjectItemCaseSensitive(object, key);
    return *out ? CLDSA_SUCCESS : cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: key \"%s\" is missing", source, key);
}

cldsa_status cldsa_json_get_number(const cJSON *object, const char *source, const char *key, double min, double max,
                                   double *value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item)
        return CLDSA_SUCCESS;
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is %s; it must be a number from %.9g to %.9g", source, key,
                          show(item).text, min, max);
    *value = item->valuedouble;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_json_get_i64(const cJSON *object, const char *source, const char *key, int64_t min, int64_t max,
                                int64_t *value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item)
        return CLDSA_SUCCESS;
    double number = item->valuedouble;
    bool whole = cJSON_IsNumber(item) && fabs(number) <= 9007199254740992.0 && number == floor(number);
    if (!whole || (int64_t)number < min || (int64_t)number > max)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is %s; it must be an integer from %lld to %lld", source, key,
                          show(item).text, (long long)min, (long long)max);
    *value = (int64_t)number;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_json_get_int(const cJSON *object, const char *source, const char *key, int min, int max,
                                int *value) {
    int64_t wide = *value;
    CLDSA_TRY(cldsa_json_get_i64(object, source, key, min, max, &wide));
    *value = (int)wide;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_json_get_bool(const cJSON *object, const char *source, const char *key, bool *value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item)
        return CLDSA_SUCCESS;
    if (!cJSON_IsBool(item))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is %s; it must be true or false", source, key,
                          show(item).text);
    *value = cJSON_IsTrue(item);
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_json_get_string(const cJSON *object, const char *source, const char *key, const char **value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item)
        return CLDSA_SUCCESS;
    if (!cJSON_IsString(item))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is %s; it must be a string", source, key, show(item).text);
    *value = item->valuestring;
    return CLDSA_SUCCESS;
}

const char *cldsa_json_text(const cJSON *object, const char *key) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return text ? text : "";
}

cldsa_status cldsa_json_get_enum(const cJSON *object, const char *source, const char *key, const char *const *names,
                                 int *value) {
    const char *text = NULL;
    CLDSA_TRY(cldsa_json_get_string(object, source, key, &text));
    if (!text)
        return CLDSA_SUCCESS;
    char choices[256] = "";
    for (int i = 0; names[i]; ++i) {
        if (strcmp(names[i], text) == 0) {
            *value = i;
            return CLDSA_SUCCESS;
        }
        size_t used = strlen(choices);
        snprintf(choices + used, sizeof choices - used, "%s%s", i ? ", " : "", names[i]);
    }
    return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is \"%s\"; it must be one of %s", source, key, text, choices);
}
