/* gemm by CLBlast: plain and batched f32 products; bias and activation by cl/gemm_epilogue.cl. */
#include "host/ops/gemm.h"
#include "host/ops/tuning.h"

#include <clblast_c.h>

/* A matrix shared by a batch would need stride 0, which CLBlast does not promise. */
static bool can_run(const cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    bool shared = p.z > 1 && (p.stride_a == 0 || p.stride_b == 0);
    return !p.grouped && !shared && p.args->a.dtype == CLDSA_F32 && p.args->b.dtype == CLDSA_F32;
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

static CLBlastStatusCode multiply(const gemm_problem *p, cl_command_queue *queue, cl_event *event) {
    const cldsa_gemm_args *args = p->args;
    CLBlastTranspose a = args->layout == CLDSA_GEMM_TN ? CLBlastTransposeYes : CLBlastTransposeNo;
    CLBlastTranspose b = args->layout == CLDSA_GEMM_NT ? CLBlastTransposeYes : CLBlastTransposeNo;
    size_t m = (size_t)p->m, n = (size_t)p->n, k = (size_t)p->k;
    size_t lda = (size_t)p->lda, ldb = (size_t)p->ldb, ldc = (size_t)p->ldc;
    if (p->z == 1)
        return CLBlastSgemm(CLBlastLayoutRowMajor, a, b, m, n, k, args->alpha, args->a.mem, args->a.offset, lda,
                            args->b.mem, args->b.offset, ldb, args->beta, args->c.mem, args->c.offset, ldc, queue,
                            event);
    return CLBlastSgemmStridedBatched(CLBlastLayoutRowMajor, a, b, m, n, k, args->alpha, args->a.mem, args->a.offset,
                                      lda, (size_t)p->stride_a, args->b.mem, args->b.offset, ldb, (size_t)p->stride_b,
                                      args->beta, args->c.mem, args->c.offset, ldc, (size_t)p->stride_c, (size_t)p->z,
                                      queue, event);
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
    CLDSA_TRY(wait_first(run));
    cl_command_queue queue = run->stream.call->queue;
    cl_event event = NULL;
    CLBlastStatusCode code = multiply(&p, &queue, &event);
    if (code != CLBlastSuccess)
        return cldsa_fail(code > -1024 ? (cldsa_status)code : CLDSA_UNSUPPORTED, "%s: CLBlast failed with status %d",
                          run->label, (int)code);
    cldsa_stream_took(&run->stream, "CLBlastSgemm", event);
    if (!p.has_bias && !p.has_pre && p.args->activation == CLDSA_ACT_NONE)
        return CLDSA_SUCCESS;
    return gemm_enqueue_epilogue(run, &p, (cldsa_tensor){0}, 0);
}

const cldsa_variant gemm_clblast = {.name = "clblast", .can_run = can_run, .enqueue = enqueue};
