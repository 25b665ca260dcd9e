/*
 * Storage dtypes on the host: rounding, packing, unpacking, and the comparison of results with the fp64 reference.
 * What tests, `cldsa check` and the tuner agree on.
 */
#ifndef CLDSA_HOST_TENSOR_H
#define CLDSA_HOST_TENSOR_H

#include "host/ops/op.h"

/* The value a dtype stores for x: to nearest, ties to even; floats beyond the largest become infinite. */
double cldsa_round_to(cldsa_dtype dtype, double x);

/* n values to and from their storage form. cldsa_pack rounds. */
void cldsa_pack(cldsa_dtype dtype, const double *values, int64_t n, void *raw);
void cldsa_unpack(cldsa_dtype dtype, const void *raw, int64_t n, double *values);

/*
 * How far `got` is from `want` in units of what the operation allows: at most 1 is right. Integers, NaN and infinities
 * must be equal (0 or infinity is returned). `scale` widens the tolerance (1 usually).
 */
double cldsa_error(const cldsa_op *op, cldsa_dtype dtype, double got, double want, double scale);

int64_t cldsa_host_numel(const cldsa_host_tensor *tensor);

#endif
