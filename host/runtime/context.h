/* The context's members, for the runtime's own files. */
#ifndef CLDSA_RUNTIME_CONTEXT_H
#define CLDSA_RUNTIME_CONTEXT_H

#include "host/runtime/runtime.h"

#include <pthread.h>

/* A built program and its kernels, found by file and options. */
typedef struct cldsa_program {
    char *key; /* file + '\n' + options */
    cl_program program;
    struct cldsa_kernel *kernels; /* singly linked */
    struct cldsa_program *next;
} cldsa_program;

struct cldsa_kernel {
    char *name;
    cl_kernel kernel;
    pthread_mutex_t lock; /* clSetKernelArg is not thread-safe on one kernel object */
    struct cldsa_kernel *next;
};

/* An event kept for cldsa_profile_collect. */
typedef struct cldsa_profile_record {
    char name[96];
    cl_event event;
} cldsa_profile_record;

/* A forced variant and tunables of one operation (cldsa_op_force). */
typedef struct cldsa_override {
    const void *key;
    char variant[32];
    char tunables[256];
    struct cldsa_override *next;
} cldsa_override;

enum { CLDSA_PROGRAM_BUCKETS = 256 };

struct cldsa_context {
    cl_context cl;
    cl_device_id device;
    cldsa_device_info info;
    cldsa_capabilities caps;
    char *cache_dir;  /* NULL: no disk cache */
    bool own_cache;   /* the caller or the user named cache_dir */
    char *kernel_dir; /* NULL: embedded kernels only */
    cldsa_log_fn log;
    void *log_user;
    cldsa_log_level log_level;
    bool profiling;
    bool unoptimized; /* cldsa_context_optimize */

    pthread_mutex_t lock; /* guards everything below */
    cldsa_program *programs[CLDSA_PROGRAM_BUCKETS];
    cldsa_override *overrides;
    void *extension; /* cldsa_context_extension */
    void (*release_extension)(void *state);
    cldsa_profile_record *records;
    size_t num_records, max_records;
};

/* What is different on PoCL and cannot be probed. */
bool cldsa_is_pocl(const cldsa_context *ctx);

/* Fills caps by running tiny kernels, or from the disk cache (caps.c). */
cldsa_status cldsa_probe_capabilities(cldsa_context *ctx);

/* Remembers an event for profiling; takes a reference of its own (profile.c). */
void cldsa_profile_add(cldsa_context *ctx, const char *label, const char *kernel, cl_event event);

/*
 * The disk cache of binaries (cache.c). The key is made of source, options, device and driver. Reading returns false
 * for whatever reason; writing never fails aloud: a damaged or read-only cache costs time, nothing else.
 */
bool cldsa_cache_read(cldsa_context *ctx, const char *source, const char *options, unsigned char **data, size_t *size);
void cldsa_cache_write(cldsa_context *ctx, const char *source, const char *options, const unsigned char *data,
                       size_t size);

/* Whether anybody hears of this. */
static inline bool cldsa_logs(const cldsa_context *ctx, cldsa_log_level level) {
    return ctx->log && level >= ctx->log_level;
}

#endif
