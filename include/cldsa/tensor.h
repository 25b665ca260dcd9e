/*
 * Tensors: a typed, row-major, contiguous view of a caller's cl_mem.
 */
#ifndef CLDSA_TENSOR_H
#define CLDSA_TENSOR_H

#include <cldsa/status.h> /* first: it sets CL_TARGET_OPENCL_VERSION */

#include <CL/cl.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CLDSA_MAX_RANK 6

typedef enum cldsa_dtype {
    CLDSA_F32 = 0,
    CLDSA_F16,  /* IEEE half, storage only: arithmetic is f32 */
    CLDSA_BF16, /* upper half of an f32, storage only */
    CLDSA_I32,
    CLDSA_U8,  /* byte masks: 0 is off, anything else on */
    CLDSA_U32, /* bit masks: bit t%32 of word t/32 */
    CLDSA_NUM_DTYPES
} cldsa_dtype;

/*
 * A view. `mem` NULL means "not given", which optional arguments accept. `offset` counts elements
 * from the start of the buffer. The last extent is contiguous; there are no strides.
 */
typedef struct cldsa_tensor {
    cl_mem mem;
    size_t offset;
    cldsa_dtype dtype;
    int rank;
    int64_t shape[CLDSA_MAX_RANK];
} cldsa_tensor;

/* CLDSA_TENSOR(mem, offset, CLDSA_F32, 8, 256, 64): a view of shape [8, 256, 64]. */
#define CLDSA_TENSOR(mem_, offset_, dtype_, ...)                                                                       \
    ((cldsa_tensor){                                                                                                   \
        (mem_), (offset_), (dtype_), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), {__VA_ARGS__}})

/* Bytes of one element. */
CLDSA_API size_t cldsa_dtype_size(cldsa_dtype dtype);

/* The name as safetensors writes it ("F32", "BF16", "I32", ...). */
CLDSA_API const char *cldsa_dtype_name(cldsa_dtype dtype);

/* Number of elements; 1 for rank 0. */
CLDSA_API int64_t cldsa_tensor_numel(const cldsa_tensor *tensor);

#ifdef __cplusplus
}
#endif
#endif
