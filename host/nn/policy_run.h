/* A sparsity policy outside a model: one layer of it, its parameters, and one batch's memory. For checks and studies.
 */
#ifndef CLDSA_POLICY_RUN_H
#define CLDSA_POLICY_RUN_H

#include "host/nn/policy.h"

/* Zero-initialise; `policy`, `layer`, `params` and `nn` may be read after _open. */
typedef struct cldsa_policy_run {
    const cldsa_policy *policy;
    cldsa_policy_layer *layer;
    cldsa_params params;
    cldsa_nn nn;
    cldsa_arena arena;
    cldsa_policy_view view;
} cldsa_policy_run;

/* Declares and allocates the parameters (zeroed): follow with cldsa_params_init or _read on run->params. */
cldsa_status cldsa_policy_run_open(cldsa_policy_run *run, cldsa_context *ctx, cl_command_queue queue,
                                   const cldsa_config *config, const cldsa_policy *policy);

/* Plans and allocates for hidden states [batch, seq_len, hidden_size]. Waits for the queue. */
cldsa_status cldsa_policy_run_shape(cldsa_policy_run *run, int64_t batch, int64_t seq_len);

/* Uploads hidden states (f32 of that shape) and runs the policy; results lie in the layer. */
cldsa_status cldsa_policy_run_forward(cldsa_policy_run *run, const void *hidden);

/* Reads k_rows back; count is its number of elements. */
cldsa_status cldsa_policy_run_read_k(cldsa_policy_run *run, int32_t *k, size_t count);

void cldsa_policy_run_close(cldsa_policy_run *run);

#endif
