/*
 * One call of an operation with its tensors in a safetensors file, as `cldsa op` and `cldsa check` use it.
 *
 * Names: "in.X" is input X, "out.X" output X, "grad.X" output dX of the backward operation; a backward operation
 * finds the forward's outputs that it reads under "out.X", too. Parameters are the JSON object in the metadata's
 * "params". A file's dtype is converted where the operation does not take it (int32 masks become bytes).
 */
#ifndef CLDSA_OP_FILE_H
#define CLDSA_OP_FILE_H

#include "host/cli/cli.h"
#include "host/io/safetensors.h"
#include "host/ops/op.h"

typedef struct op_file_call {
    const cldsa_op *op;
    const char *path;
    void *args;
    int64_t dims[CLDSA_MAX_DIMS]; /* as far as inputs and settings bind them */
    bool given[CLDSA_MAX_FIELDS];
    const cldsa_st_tensor *source[CLDSA_MAX_FIELDS]; /* of inputs */
    const cldsa_st_tensor *want[CLDSA_MAX_FIELDS];   /* what the file says outputs are, or NULL */
    cl_mem buffers[CLDSA_MAX_FIELDS];
    void *results[CLDSA_MAX_FIELDS]; /* outputs after op_file_run, in storage form */
} op_file_call;

/*
 * Reads parameters, inputs and shapes. `settings` are "key=value": a parameter; a dimension that only outputs have
 * ("K=64"); an output's dtype ("scores=BF16") or shape ("c=64x32"). The outputs are those in the file; if it has none,
 * all whose extents are known. `file` must outlive the call.
 */
cldsa_status op_file_begin(op_file_call *call, const cldsa_safetensors *file, const cldsa_op *op,
                           const char *const *settings, size_t num_settings);

/* Creates the buffers (once), runs the operation and reads the outputs back. Blocks. */
cldsa_status op_file_run(op_file_call *call, const cli_session *session);

void op_file_end(op_file_call *call);

/* The dtypes that a tensor field takes: "F32,F16". */
void op_file_dtypes(const cldsa_field *field, char *text, size_t size);

/* The file's name for a field: "in.q", "out.lse", "grad.q". */
void op_file_name(const cldsa_op *op, const cldsa_field *field, char *name, size_t size);

/* Whether a variant can run a call of ordinary shape on the context's device. */
bool op_variant_can_run(cldsa_context *ctx, const cldsa_op *op, const cldsa_variant *variant);

#endif
