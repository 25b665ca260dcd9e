/*
 * The model's parameters: a table of names and shapes over one flat device buffer.
 *
 * Those that receive a gradient come first, so that gradients and AdamW's two moments are flat buffers of that part
 * alone and the optimiser is one launch. The others (indexer and controller, which top-k and rounding cut off)
 * follow; no weight decay touches them, as PyTorch skips parameters without a gradient.
 *
 * Every parameter starts at a multiple of 64 elements unless it is joined to the one before: joined parameters are one
 * matrix to a product that serves all of them. The gaps are zero and stay zero.
 */
#ifndef CLDSA_PARAMS_H
#define CLDSA_PARAMS_H

#include "host/io/safetensors.h"

#include <cldsa/context.h>

enum { CLDSA_PARAM_NAME_MAX = 128, CLDSA_PARAM_ALIGN = 64 };

typedef enum cldsa_init_kind {
    CLDSA_INIT_CONSTANT,   /* scale */
    CLDSA_INIT_NORMAL,     /* N(0, scale^2) */
    CLDSA_INIT_ABS_NORMAL, /* |N(0, 1)| * scale */
    CLDSA_INIT_XAVIER      /* uniform, +-scale * sqrt(6 / (rows + columns)) */
} cldsa_init_kind;

/* What a part of the model asks for. */
typedef struct cldsa_param_spec {
    int rank;
    int64_t shape[2];
    cldsa_init_kind init;
    float scale;
    bool trainable; /* receives a gradient */
    bool joined;    /* directly behind the previous parameter of the same kind (trainable or not) */
} cldsa_param_spec;

typedef struct cldsa_param {
    char name[CLDSA_PARAM_NAME_MAX]; /* the reference's name, which files use */
    cldsa_param_spec spec;
    uint32_t stream; /* of the generator: a hash of the name common to all variants, so equal parts start equal */
    int64_t numel;
    int64_t offset; /* elements, into the flat buffer; valid after cldsa_params_layout */
} cldsa_param;

typedef struct cldsa_params {
    cldsa_param *list;
    int count, capacity;
    int64_t trainable;      /* elements of the first part, gaps included */
    int64_t total;          /* elements of the whole, gaps included */
    int64_t numel;          /* elements without gaps: the model's parameter count */
    cl_mem value;           /* f32 [total] */
    cl_mem grad, m, v;      /* f32 [trainable]; NULL in a model that is not trained */
    cl_command_queue queue; /* in order; retained */
    size_t device_bytes;
} cldsa_params;

/*
 * Appends a parameter called `name`; *index is its handle. `common` is the name the generator's stream is made of: the
 * same for the same part of every variant.
 */
cldsa_status cldsa_params_add(cldsa_params *params, const char *name, const char *common, cldsa_param_spec spec,
                              int *index);

/* The same with names made of a prefix each and a shared rest. */
cldsa_status cldsa_params_add_in(cldsa_params *params, const char *prefix, const char *common_prefix, const char *rest,
                                 cldsa_param_spec spec, int *index);

/* Assigns offsets. No parameter may be added afterwards. */
void cldsa_params_layout(cldsa_params *params);

/* Allocates the buffers, zeroed: all four, or the values alone. */
cldsa_status cldsa_params_allocate(cldsa_params *params, cl_context context, cl_command_queue queue, bool training);
void cldsa_params_free(cldsa_params *params);

/* Views of a value or gradient. With a shape of its own a view may run on over the parameters joined behind. */
cldsa_tensor cldsa_param_value(const cldsa_params *params, int index);
cldsa_tensor cldsa_param_grad(const cldsa_params *params, int index);

/* By name, for tests and files; -1 if there is none. */
int cldsa_params_find(const cldsa_params *params, const char *name);

/* Fills all values as each spec says: the same seed, the same values. Zeroes gradients and moments. */
cldsa_status cldsa_params_init(cldsa_params *params, uint64_t seed);

/*
 * Files. `buffer` is one of value, grad, m, v; names in the file are prefix + name. Reading accepts F32, F16 and BF16,
 * refuses other shapes and missing names, and, with `strict`, names that belong to no parameter.
 */
cldsa_status cldsa_params_read(cldsa_params *params, cl_mem buffer, const cldsa_safetensors *file, const char *prefix,
                               bool strict);

/* Entries for cldsa_safetensors_write that read the buffer piece by piece; *entries is malloc'ed, freed by _free. */
typedef struct cldsa_params_entries cldsa_params_entries;
cldsa_status cldsa_params_entries_create(cldsa_params *params, cldsa_params_entries **out);
cldsa_status cldsa_params_entries_add(cldsa_params_entries *entries, cl_mem buffer, const char *prefix);
const cldsa_st_entry *cldsa_params_entries_list(const cldsa_params_entries *entries, size_t *count);
void cldsa_params_entries_free(cldsa_params_entries *entries);

#endif
