#include "host/nn/policy_run.h"

#include <stdlib.h>

static cldsa_status buffer_of(const cldsa_nn *nn, size_t bytes, cl_mem *out) {
    cl_int error = CL_SUCCESS;
    *out = clCreateBuffer(cldsa_context_cl(nn->ctx), CL_MEM_READ_WRITE, bytes ? bytes : 4, NULL, &error);
    return error ? cldsa_fail(error, "allocating %zu bytes failed", bytes) : CLDSA_SUCCESS;
}

static void release_memory(cldsa_policy_run *run) {
    clFinish(run->nn.call.queue);
    if (run->arena.mem)
        clReleaseMemObject(run->arena.mem);
    if (run->nn.call.workspace)
        clReleaseMemObject(run->nn.call.workspace);
    run->arena.mem = run->nn.call.workspace = NULL;
}

cldsa_status cldsa_policy_run_open(cldsa_policy_run *run, cldsa_context *ctx, cl_command_queue queue,
                                   const cldsa_config *config, const cldsa_policy *policy) {
    run->policy = policy;
    run->nn = (cldsa_nn){.ctx = ctx, .config = config, .params = &run->params, .call = {.queue = queue}};
    run->layer = calloc(1, policy->layer_bytes);
    if (!run->layer)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "policy %s: out of memory", policy->name);
    if (policy->declare)
        CLDSA_TRY(policy->declare(run->layer, &run->params, config, ""));
    cldsa_params_layout(&run->params);
    return cldsa_params_allocate(&run->params, cldsa_context_cl(ctx), queue, false);
}

cldsa_status cldsa_policy_run_shape(cldsa_policy_run *run, int64_t batch, int64_t seq_len) {
    cldsa_nn *nn = &run->nn;
    release_memory(run);
    nn->batch = batch;
    nn->seq_len = seq_len;
    nn->tokens = batch * seq_len;
    nn->workspace_needed = 0;
    for (int placing = 0; placing < 2; ++placing) { /* measured, then placed */
        run->arena.used = run->arena.peak = 0;
        run->view.hidden = CLDSA_PLACE(&run->arena, CLDSA_F32, batch, seq_len, nn->config->hidden_size);
        if (run->policy->place)
            run->policy->place(run->layer, nn, &run->arena, &run->arena);
        if (placing == 0)
            CLDSA_TRY(buffer_of(nn, run->arena.peak, &run->arena.mem));
    }
    if (run->policy->prepare)
        CLDSA_TRY(run->policy->prepare(run->layer, nn));
    nn->planning = true;
    cldsa_status status = run->policy->forward ? run->policy->forward(run->layer, nn, &run->view) : CLDSA_SUCCESS;
    nn->planning = false;
    CLDSA_TRY(status);
    CLDSA_TRY(buffer_of(nn, nn->workspace_needed, &nn->call.workspace));
    nn->call.workspace_bytes = nn->workspace_needed;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_policy_run_forward(cldsa_policy_run *run, const void *hidden) {
    const cldsa_tensor *to = &run->view.hidden;
    cl_int error = clEnqueueWriteBuffer(run->nn.call.queue, to->mem, CL_TRUE, to->offset * sizeof(float),
                                        (size_t)cldsa_tensor_numel(to) * sizeof(float), hidden, 0, NULL, NULL);
    if (error)
        return cldsa_fail(error, "writing hidden states failed: %s", cldsa_status_text(error));
    return run->policy->forward ? run->policy->forward(run->layer, &run->nn, &run->view) : CLDSA_SUCCESS;
}

cldsa_status cldsa_policy_run_read_k(cldsa_policy_run *run, int32_t *k, size_t count) {
    const cldsa_tensor *from = &run->layer->k_rows;
    cl_int error = clEnqueueReadBuffer(run->nn.call.queue, from->mem, CL_TRUE, from->offset * sizeof *k,
                                       count * sizeof *k, k, 0, NULL, NULL);
    return error ? cldsa_fail(error, "reading k failed: %s", cldsa_status_text(error)) : CLDSA_SUCCESS;
}

void cldsa_policy_run_close(cldsa_policy_run *run) {
    if (!run->policy)
        return;
    release_memory(run);
    free(run->layer);
    cldsa_params_free(&run->params);
    run->policy = NULL;
}
