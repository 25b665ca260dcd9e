/*
 * The result file's form, as docs/bench-schema.md describes it: checked before anything reads it.
 */
#ifndef CLDSA_BENCH_SCHEMA_H
#define CLDSA_BENCH_SCHEMA_H

#include "host/io/json.h"

enum { BENCH_SCHEMA = 2 };

/*
 * CLDSA_INVALID_FILE, with a message that begins with `source` and names what is missing, mistyped or of another
 * schema version. What is valid has every required key of docs/bench-schema.md in its type, so that readers need not
 * ask again; further keys are allowed.
 */
cldsa_status bench_validate(const cJSON *document, const char *source);

/* Reads and validates; the caller deletes *out with cJSON_Delete. *out is NULL after a failure. */
cldsa_status bench_load(const char *path, cJSON **out);

#endif
