/*
 * Inside of the runtime: what operations use to report, build and launch. Knows nothing of attention.
 */
#ifndef CLDSA_RUNTIME_H
#define CLDSA_RUNTIME_H

#include <cldsa/context.h>
#include <cldsa/device.h>
#include <cldsa/profile.h>

/* ---- messages (status.c) ------------------------------------------------------------------------------------- */

/* Records the thread's error message, printf-style, and returns `status`. */
cldsa_status cldsa_fail(cldsa_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Replaces control characters: a message is one line whatever names it holds, and none of a file's names reaches the
 * terminal as a command. The functions here do it by themselves.
 */
void cldsa_one_line(char *text);

/* Prepends "prefix: " to the thread's message; returns `status`. For adding the file or operation on the way up. */
cldsa_status cldsa_fail_prefix(cldsa_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Sends a line to the context's log callback. */
void cldsa_log(const cldsa_context *ctx, cldsa_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The nearest of `names` to `word` by edit distance, or NULL if none is near. For "did you mean". */
const char *cldsa_nearest_name(const char *word, const char *const *names, size_t count);

#define CLDSA_TRY(expression)                                                                                          \
    do {                                                                                                               \
        cldsa_status try_status_ = (expression);                                                                       \
        if (try_status_ != CLDSA_SUCCESS)                                                                              \
            return try_status_;                                                                                        \
    } while (0)

/* ---- kernels (program.c) ------------------------------------------------------------------------------------- */

/* What every kernel on the context's device is built with, before its own options. */
enum { CLDSA_BUILD_OPTIONS_MAX = 128 };
void cldsa_build_options(const cldsa_context *ctx, char text[CLDSA_BUILD_OPTIONS_MAX]);

/* A kernel object shared by all threads of a context; its lock is held from the first argument to the enqueue. */
typedef struct cldsa_kernel cldsa_kernel;

/*
 * The kernel `name` of cl/`file` built with `options` ("-DX=1 -DY=2"). Built on first use, then found in memory; the
 * binary comes from the disk cache where possible. Owned by the context.
 */
cldsa_status cldsa_get_kernel(cldsa_context *ctx, const char *file, const char *name, const char *options,
                              cldsa_kernel **out);

/* Source of an embedded file with its #include "..." lines expanded (source.c); malloc'ed. kernel_dir may be NULL. */
cldsa_status cldsa_kernel_source(const char *kernel_dir, const char *file, char **source);

/* Names of all embedded files, NULL-terminated. */
const char *const *cldsa_kernel_files(void);

/* CL_KERNEL_WORK_GROUP_SIZE, _LOCAL_MEM_SIZE and _PREFERRED_WORK_GROUP_SIZE_MULTIPLE of a built kernel. */
typedef struct cldsa_kernel_limits {
    size_t work_group_size;
    size_t preferred_multiple;
    cl_ulong local_mem_bytes;
    cl_ulong private_mem_bytes;
} cldsa_kernel_limits;
cldsa_status cldsa_get_kernel_limits(cldsa_context *ctx, cldsa_kernel *kernel, cldsa_kernel_limits *out);

/* ---- launches (launch.c) ------------------------------------------------------------------------------------- */

typedef struct cldsa_arg {
    size_t size;
    const void *value;
} cldsa_arg;

#define CLDSA_ARG_I32(x)    ((cldsa_arg){sizeof(cl_int), &(cl_int){(cl_int)(x)}})
#define CLDSA_ARG_U32(x)    ((cldsa_arg){sizeof(cl_uint), &(cl_uint){(cl_uint)(x)}})
#define CLDSA_ARG_I64(x)    ((cldsa_arg){sizeof(cl_long), &(cl_long){(cl_long)(x)}})
#define CLDSA_ARG_U64(x)    ((cldsa_arg){sizeof(cl_ulong), &(cl_ulong){(cl_ulong)(x)}})
#define CLDSA_ARG_F32(x)    ((cldsa_arg){sizeof(cl_float), &(cl_float){(cl_float)(x)}})
#define CLDSA_ARG_MEM(x)    ((cldsa_arg){sizeof(cl_mem), &(cl_mem){(x)}})
#define CLDSA_ARG_LOCAL(n)  ((cldsa_arg){(n), NULL})
/* A tensor is two kernel arguments: the buffer and the offset in elements (ulong). NULL mem is legal. */
#define CLDSA_ARG_TENSOR(t) CLDSA_ARG_MEM((t).mem), CLDSA_ARG_U64((t).offset)

/*
 * The launches of one call in order: they wait for the call's events first, are chained if the queue is out of order,
 * and the last one's event becomes the call's.
 */
typedef struct cldsa_stream {
    cldsa_context *ctx;
    const cldsa_call *call;
    const char *label; /* "op/variant", for profiles and messages */
    cl_event last;     /* of the previous launch, where chaining or the call's event needs it */
    bool chain;        /* the queue is out of order */
    int launches;
} cldsa_stream;

cldsa_status cldsa_stream_begin(cldsa_stream *stream, cldsa_context *ctx, const cldsa_call *call, const char *label);

/*
 * Enqueues one kernel over `dims` dimensions. local may be NULL. global is rounded up to a multiple of local, so
 * kernels guard their range. A global size of 0 enqueues nothing.
 */
cldsa_status cldsa_enqueue(cldsa_stream *stream, cldsa_kernel *kernel, int dims, const size_t *global,
                           const size_t *local, const cldsa_arg *args, int num_args);
#define CLDSA_ENQUEUE(stream, kernel, dims, global, local, ...)                                                        \
    cldsa_enqueue((stream), (kernel), (dims), (global), (local), (const cldsa_arg[]){__VA_ARGS__},                     \
                  (int)(sizeof((const cldsa_arg[]){__VA_ARGS__}) / sizeof(cldsa_arg)))

/*
 * Lets another library enqueue on the call's queue in this order: gives it the events to wait for, and takes the
 * event it returns (which the stream then owns). Used for CLBlast.
 */
void cldsa_stream_wait_list(const cldsa_stream *stream, cl_uint *num_wait, const cl_event **wait);
void cldsa_stream_took(cldsa_stream *stream, const char *kernel_name, cl_event event);

/* Hands the last event to the caller. Call exactly once, also after a failure (`status` passes through). */
cldsa_status cldsa_stream_end(cldsa_stream *stream, cldsa_status status);

/* ---- the context (context.c) --------------------------------------------------------------------------------- */

cl_context cldsa_context_cl(const cldsa_context *ctx);
cl_device_id cldsa_context_device(const cldsa_context *ctx);
const cldsa_device_info *cldsa_context_device_info(const cldsa_context *ctx);
const char *cldsa_context_kernel_dir(const cldsa_context *ctx); /* NULL: embedded kernels only */

/*
 * Whether programs are built with optimisation from now on, as they are by default. For tests: CPUs' compilers take three
 * times as long to optimise a GPU's kernels, which nobody runs there for their speed. Not while another thread enqueues.
 */
void cldsa_context_optimize(cldsa_context *ctx, bool optimize);

/*
 * A forced variant and tunables under a key (an operation's address); variant NULL removes. The getter copies into
 * buffers of 32 and 256 bytes and returns false where nothing is forced.
 */
cldsa_status cldsa_override_set(cldsa_context *ctx, const void *key, const char *variant, const char *tunables);
bool cldsa_override_get(cldsa_context *ctx, const void *key, char *variant, char *tunables);

/*
 * State that a room above keeps with the context (the tuning database): made on first use, by whichever thread comes
 * first, and released with the context. NULL if `create` gave NULL.
 */
void *cldsa_context_extension(cldsa_context *ctx, void *(*create)(void), void (*release)(void *state));

/* ---- kinds of devices (device.c) ------------------------------------------------------------------------------ */

/* "cpu", "gpu", "accelerator" or "other". */
const char *cldsa_device_type_name(cl_device_type type);

/* Mesa's rasteriser on the CPU as an OpenCL device. */
bool cldsa_device_is_llvmpipe(const cldsa_device_info *info);

/*
 * What kernels are fitted to, beyond vendor and model: "sm_90" (NVIDIA: compute capability), "gfx90a" (AMD), "xe_12.60"
 * (Intel GPUs: IP version), "simd512" (CPUs: the compiler's native float vectors; 512 bits is AVX-512). Where nothing
 * of that is known, the device's name.
 */
enum { CLDSA_ARCHITECTURE_MAX = 128 };
void cldsa_device_architecture(const cldsa_device_info *info, char text[CLDSA_ARCHITECTURE_MAX]);

/* Ceiling division and rounding up, for launch shapes. */
static inline int64_t cldsa_ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static inline int64_t cldsa_round_up(int64_t a, int64_t b) {
    return cldsa_ceil_div(a, b) * b;
}

#endif
