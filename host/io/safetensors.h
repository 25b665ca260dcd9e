/*
 * The safetensors format: 8 bytes little-endian header length, a JSON header, the tensors' bytes.
 *
 * The reader takes nothing on trust: whatever it hands out lies inside the file, is aligned to its element size and
 * has exactly the bytes its dtype and shape ask for. A refused file gives CLDSA_INVALID_FILE and a message with file,
 * tensor, value and what would be right. Knows nothing of operations or devices.
 */
#ifndef CLDSA_SAFETENSORS_H
#define CLDSA_SAFETENSORS_H

#include <cldsa/status.h>
#include <stddef.h>
#include <stdint.h>

enum { CLDSA_ST_MAX_RANK = 8 };

typedef enum cldsa_st_dtype {
    CLDSA_ST_F64,
    CLDSA_ST_F32,
    CLDSA_ST_F16,
    CLDSA_ST_BF16,
    CLDSA_ST_I64,
    CLDSA_ST_I32,
    CLDSA_ST_I16,
    CLDSA_ST_I8,
    CLDSA_ST_U64,
    CLDSA_ST_U32,
    CLDSA_ST_U16,
    CLDSA_ST_U8,
    CLDSA_ST_BOOL,
    CLDSA_ST_NUM_DTYPES
} cldsa_st_dtype;

const char *cldsa_st_dtype_name(cldsa_st_dtype dtype); /* as in the file: "F32" */
size_t cldsa_st_dtype_size(cldsa_st_dtype dtype);

/* One tensor of an open file. */
typedef struct cldsa_st_tensor {
    const char *name;
    cldsa_st_dtype dtype;
    int rank; /* 0 is a scalar */
    int64_t shape[CLDSA_ST_MAX_RANK];
    int64_t numel;
    size_t bytes;
    const void *data; /* aligned to the element size; valid until the file is closed */
} cldsa_st_tensor;

/* Element i as a double; 64-bit integers beyond 2^53 are rounded. */
double cldsa_st_value(const cldsa_st_tensor *tensor, int64_t i);

/* ---- reading ------------------------------------------------------------------------------------------------- */

typedef struct cldsa_safetensors cldsa_safetensors;

/*
 * Reads and checks a whole file. It is read rather than mapped: a file that another process cuts short would
 * otherwise end this one with SIGBUS.
 */
cldsa_status cldsa_safetensors_open(const char *path, cldsa_safetensors **out);
void cldsa_safetensors_close(cldsa_safetensors *file); /* NULL is ignored */

const char *cldsa_safetensors_path(const cldsa_safetensors *file);
size_t cldsa_safetensors_count(const cldsa_safetensors *file);

/* Tensors in order of their names, i < count. */
const cldsa_st_tensor *cldsa_safetensors_at(const cldsa_safetensors *file, size_t i);

/* By name; NULL if the file has none. */
const cldsa_st_tensor *cldsa_safetensors_find(const cldsa_safetensors *file, const char *name);

/* By name; CLDSA_MISSING_TENSOR names file, tensor and the nearest name there is. */
cldsa_status cldsa_safetensors_get(const cldsa_safetensors *file, const char *name, const cldsa_st_tensor **out);

/* The string of a key of __metadata__; NULL if absent. */
const char *cldsa_safetensors_metadata(const cldsa_safetensors *file, const char *key);

/* ---- writing ------------------------------------------------------------------------------------------------- */

/*
 * A tensor to write: its bytes lie at `data`, or, if that is NULL, `read` delivers them in ascending pieces of at
 * most 1 MiB, so that a device buffer need not be copied whole.
 */
typedef struct cldsa_st_entry {
    const char *name;
    cldsa_st_dtype dtype;
    int rank;
    int64_t shape[CLDSA_ST_MAX_RANK];
    const void *data;
    cldsa_status (*read)(void *user, size_t offset, void *destination, size_t bytes);
    void *user;
} cldsa_st_entry;

typedef struct cldsa_st_metadata {
    const char *key, *value;
} cldsa_st_metadata;

/*
 * Writes atomically. Tensors are laid out by descending element size, then name, as the reference implementation
 * does, so each is aligned; the same content gives the same bytes whatever the order of `entries`.
 */
cldsa_status cldsa_safetensors_write(const char *path, const cldsa_st_entry *entries, size_t count,
                                     const cldsa_st_metadata *metadata, size_t num_metadata);

#endif
