/*
 * JSON files through cJSON, with messages that name file, key, value and what would be right.
 *
 * Getters leave *value as it is when the key is absent, so a default is what the caller put there; `source` is the
 * file's name (or "--set", ...) for messages.
 */
#ifndef CLDSA_JSON_H
#define CLDSA_JSON_H

#include <cjson/cJSON.h>
#include <cldsa/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads a file whose root is an object. The caller deletes *out with cJSON_Delete. */
cldsa_status cldsa_json_read(const char *path, cJSON **out);

/* The same from memory; `length` bytes of text. A message names line and column. */
cldsa_status cldsa_json_parse(const char *source, const char *text, size_t length, cJSON **out);

/* Writes a value as indented text with a final newline, atomically. */
cldsa_status cldsa_json_write(const char *path, const cJSON *value);

/*
 * Refuses keys that are not among `names`, naming the nearest known one, and keys that occur twice (of which cJSON
 * would silently use the first).
 */
cldsa_status cldsa_json_check_keys(const cJSON *object, const char *source, const char *const *names, size_t count);

/* The value of a key that must be there. */
cldsa_status cldsa_json_require(const cJSON *object, const char *source, const char *key, const cJSON **out);

/* Ranges are inclusive. Integers must be whole numbers; JSON numbers are doubles, so exact to 2^53. */
cldsa_status cldsa_json_get_number(const cJSON *object, const char *source, const char *key, double min, double max,
                                   double *value);
cldsa_status cldsa_json_get_int(const cJSON *object, const char *source, const char *key, int min, int max, int *value);
cldsa_status cldsa_json_get_i64(const cJSON *object, const char *source, const char *key, int64_t min, int64_t max,
                                int64_t *value);
cldsa_status cldsa_json_get_bool(const cJSON *object, const char *source, const char *key, bool *value);

/* *value points into `object`. */
cldsa_status cldsa_json_get_string(const cJSON *object, const char *source, const char *key, const char **value);

/* For files that are trusted, or where anything will do: a string, "" where there is none. */
const char *cldsa_json_text(const cJSON *object, const char *key);

/* *value becomes the position in `names` (NULL-terminated). */
cldsa_status cldsa_json_get_enum(const cJSON *object, const char *source, const char *key, const char *const *names,
                                 int *value);

#endif
