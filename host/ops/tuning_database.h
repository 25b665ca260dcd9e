/* Between the files of the tuning database's reading side: the database of one context in memory. */
#ifndef CLDSA_OPS_TUNING_DATABASE_H
#define CLDSA_OPS_TUNING_DATABASE_H

#include "host/ops/tuning.h"

#include <cjson/cJSON.h>

/* What was measured for one variant: values[i] of tunables[i] where bit i of `given` is set, for calls at most `reach`
 * doublings away. */
typedef struct tuning_values {
    const cldsa_variant *variant;
    unsigned given;
    float reach;
    int values[CLDSA_MAX_TUNABLES];
} tuning_values;

typedef struct tuning_entry {
    const cldsa_op *op;
    cldsa_tuning_match match;
    int source;                             /* position of its database among those asked */
    unsigned char traits[CLDSA_MAX_FIELDS]; /* cldsa_tuning_traits */
    float log_dims[CLDSA_MAX_DIMS];         /* log2; -1 where the extent is not bound */
    const cldsa_variant *fastest;
    tuning_values *variants;
    int num_variants;
    char from[64];
} tuning_entry;

typedef struct tuning_database {
    int users;             /* contexts' states and lookups in flight; guarded by the state's lock */
    tuning_entry *entries; /* by operation, then in the order in which their databases are asked */
    size_t count;
    size_t first[128], end[128]; /* per operation of the catalogue */
    cldsa_tuning_clblast_kernel *kernels;
    size_t num_kernels;
} tuning_database;

/* The numbers behind params and dtypes: calls that share them share entries. Returns how many. */
int tuning_traits(const cldsa_run *run, unsigned char traits[CLDSA_MAX_FIELDS]);
/* The same from the texts of an entry; false where they do not fit the operation. */
bool tuning_parse_traits(const cldsa_op *op, const char *params, const char *dtypes,
                         unsigned char traits[CLDSA_MAX_FIELDS]);

/* The hash of a source text, of which only the code counts (tuning_source.c). Spoils the text. */
void tuning_hash_source(char *source, char hash[17]);

/* How near the device of a database is to `info`. */
cldsa_tuning_match tuning_match_device(const cJSON *device, const cldsa_device_info *info);

/* The databases of a file's root, one or several, in order: calls `visit` for each. CLDSA_INVALID_FILE: other schema.
 */
cldsa_status tuning_each_database(const cJSON *root, const char *source,
                                  void (*visit)(void *user, const cJSON *database), void *user);

/* Reads the usual files (path NULL) or one; path "" makes an empty database. */
cldsa_status tuning_load(cldsa_context *ctx, const char *path, tuning_database **out);
void tuning_free(tuning_database *database);

#endif
