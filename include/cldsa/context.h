/*
 * The context: what cldsa keeps per device (built programs, probed capabilities, tuning).
 *
 * The caller owns the cl_context, device, queues and buffers. One cldsa_context may be used from
 * several threads at once; a program is built once whoever asks first.
 */
#ifndef CLDSA_CONTEXT_H
#define CLDSA_CONTEXT_H

#include <cldsa/tensor.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_context cldsa_context;

/* All members may be zero. */
typedef struct cldsa_context_options {
    const char *cache_dir;  /* programs and probe results; default $CLDSA_CACHE_DIR, else $XDG_CACHE_HOME/cldsa, else
                               ~/.cache/cldsa; to the last two PoCL's programs do not go: PoCL has a cache too */
    const char *kernel_dir; /* .cl/.clh files found here replace the embedded ones; default $CLDSA_KERNEL_DIR */
    bool no_disk_cache;     /* build everything anew */
    bool profiling;         /* keep every kernel's event: see profile.h; queues need CL_QUEUE_PROFILING_ENABLE */
    cldsa_log_fn log;       /* default: silence */
    void *log_user;
    cldsa_log_level log_level; /* the least that is reported; compilers are asked for warnings at CLDSA_LOG_DEBUG only,
                                  since some print them by themselves too */
} cldsa_context_options;

/*
 * Wraps `device` of `context` (both retained). `options` may be NULL.
 * Probes the device on first sight (a few tiny kernels, cached on disk).
 */
CLDSA_API cldsa_status cldsa_context_create(cl_context context, cl_device_id device,
                                            const cldsa_context_options *options, cldsa_context **out);

/* Releases everything the context built. NULL is ignored. No call may be in flight. */
CLDSA_API void cldsa_context_destroy(cldsa_context *ctx);

/*
 * How one operation is enqueued. Nothing blocks: the operation has happened when `event` completes.
 * Several kernels may be enqueued; on an out-of-order queue they are chained by events.
 */
typedef struct cldsa_call {
    cl_command_queue queue;  /* of the context's cl_context and device */
    cl_mem workspace;        /* scratch, at least what the operation's _workspace query says; NULL if that is 0 */
    size_t workspace_offset; /* bytes, a multiple of 256 */
    size_t workspace_bytes;  /* bytes available behind the offset */
    cl_uint num_wait;        /* events to wait for ... */
    const cl_event *wait;    /* ... before the first kernel */
    cl_event *event;         /* receives an event of the last kernel, to be released by the caller; or NULL */
} cldsa_call;

#ifdef __cplusplus
}
#endif
#endif
