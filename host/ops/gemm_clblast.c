/* gemm by CLBlast: f32 products, a batch one by one; bias and activation by cl/gemm_epilogue.cl. */
#include "host/ops/gemm.h"
#include "host/ops/tuning.h"

#include <clblast_c.h>
#include <limits.h>

/* CLBlast's kernels count elements of a buffer in int. */
static bool int_reaches(const gemm_problem *p, const cldsa_tensor *tensor, int64_t ld, int64_t stride) {
    return (double)tensor->offset + (double)p->z * (double)stride +
               (double)tensor->shape[tensor->rank - 2] * (double)ld <
           INT_MAX;
}

static bool can_run(const cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    const cldsa_gemm_args *args = p.args;
    return !p.grouped && args->a.dtype == CLDSA_F32 && args->b.dtype == CLDSA_F32 &&
           int_reaches(&p, &args->a, p.lda, p.stride_a) && int_reaches(&p, &args->b, p.ldb, p.stride_b) &&
           int_reaches(&p, &args->c, p.ldc, p.stride_c);
}

/* CLBlast takes no wait list: a barrier on the queue stands for it. */
static cldsa_status wait_first(cldsa_run *run) {
    cl_uint num_wait;
    const cl_event *wait;
    cldsa_stream_wait_list(&run->stream, &num_wait, &wait);
    if (num_wait == 0)
        return CLDSA_SUCCESS;
    cl_int code = clEnqueueBarrierWithWaitList(run->stream.call->queue, num_wait, wait, NULL);
    return code ? cldsa_fail(code, "%s: waiting for the call's events: %s", run->label, cldsa_status_text(code))
                : CLDSA_SUCCESS;
}

/*
 * One matrix of the batch. CLBlastSgemmStridedBatched would take all in one call, but where a matrix needs no padding
 * its indirect routine forgets the matrix's offset and stride (seen in 1.5.3: BatchedGemmIndirect's a_no_temp).
 */
static CLBlastStatusCode multiply(const gemm_problem *p, int64_t z, cl_command_queue *queue, cl_event *event) {
    const cldsa_gemm_args *args = p->args;
    CLBlastTranspose a = args->layout == CLDSA_GEMM_TN ? CLBlastTransposeYes : CLBlastTransposeNo;
    CLBlastTranspose b = args->layout == CLDSA_GEMM_NT ? CLBlastTransposeYes : CLBlastTransposeNo;
    return CLBlastSgemm(CLBlastLayoutRowMajor, a, b, (size_t)p->m, (size_t)p->n, (size_t)p->k, args->alpha, args->a.mem,
                        args->a.offset + (size_t)(z * p->stride_a), (size_t)p->lda, args->b.mem,
                        args->b.offset + (size_t)(z * p->stride_b), (size_t)p->ldb, args->beta, args->c.mem,
                        args->c.offset + (size_t)(z * p->stride_c), (size_t)p->ldc, queue, event);
}

/* CLBlast keeps parameters per device for the whole process. */
static void override(cldsa_context *ctx, const cldsa_tuning_clblast_kernel *kernel) {
    const char *names[CLDSA_TUNING_MAX_PARAMETERS];
    for (size_t i = 0; i < kernel->count; ++i)
        names[i] = kernel->names[i];
    CLBlastStatusCode code =
        CLBlastOverrideParameters(cldsa_context_device(ctx), kernel->kernel, (CLBlastPrecision)kernel->precision,
                                  kernel->count, names, kernel->values);
    if (code != CLBlastSuccess)
        cldsa_log(ctx, CLDSA_LOG_WARNING, "CLBlast does not take the tuned parameters of %s (status %d)",
                  kernel->kernel, (int)code);
}

static cldsa_status enqueue(cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    cldsa_tuning_clblast(run->ctx, override);
    cl_command_queue queue = run->stream.call->queue;
    for (int64_t z = 0; z < p.z; ++z) {
        CLDSA_TRY(wait_first(run));
        cl_event event = NULL;
        CLBlastStatusCode code = multiply(&p, z, &queue, &event);
        if (code != CLBlastSuccess)
            return cldsa_fail(code > -1024 ? (cldsa_status)code : CLDSA_UNSUPPORTED,
                              "%s: CLBlast failed with status %d", run->label, (int)code);
        cldsa_stream_took(&run->stream, "CLBlastSgemm", event);
    }
    if (!p.has_bias && !p.has_pre && p.args->activation == CLDSA_ACT_NONE)
        return CLDSA_SUCCESS;
    return gemm_enqueue_epilogue(run, &p, (cldsa_tensor){0}, 0);
}

const cldsa_variant gemm_clblast = {.name = "clblast", .can_run = can_run, .enqueue = enqueue};
