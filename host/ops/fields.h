/* Checking and binding an args struct against its operation's field table. */
#ifndef CLDSA_FIELDS_H
#define CLDSA_FIELDS_H

#include "host/ops/op.h"

/*
 * Checks every field of run->args and binds run->dims. With check_buffers false, tensors need shapes but no cl_mem
 * (references, cost estimates); an optional tensor of rank 0 is then not given.
 */
cldsa_status cldsa_bind_args(cldsa_run *run, bool check_buffers);

/* Matches one tensor with its field's rule; dims and the bit set `bound` receive what it names. */
cldsa_status cldsa_bind_tensor(const cldsa_op *op, const cldsa_field *field, const cldsa_tensor *tensor, int64_t *dims,
                               unsigned *bound);

/* Index of a dimension's name in op->dims, or -1. */
int cldsa_op_dim(const cldsa_op *op, const char *name, size_t length);

#endif
