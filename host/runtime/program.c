/* Programs: built once per context, file and options; binaries kept on disk. */
#include "host/runtime/context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned bucket_of(const char *key) {
    unsigned hash = 2166136261u; /* FNV-1a: only spreads the in-memory table */
    for (; *key; ++key)
        hash = (hash ^ (unsigned char)*key) * 16777619u;
    return hash % CLDSA_PROGRAM_BUCKETS;
}

static void log_build(cldsa_context *ctx, cl_program program, const char *file, cldsa_log_level level) {
    size_t size = 0;
    clGetProgramBuildInfo(program, ctx->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &size);
    char *log = malloc(size + 1);
    if (!log)
        return;
    log[0] = log[size] = 0;
    clGetProgramBuildInfo(program, ctx->device, CL_PROGRAM_BUILD_LOG, size, log, NULL);
    if (log[strspn(log, " \t\r\n")] && cldsa_logs(ctx, level)) /* whole: cldsa_log would cut it */
        ctx->log(level, log, ctx->log_user);
    if (level == CLDSA_LOG_ERROR)
        cldsa_fail(CLDSA_BUILD_FAILED, "%s does not compile on %s: %.600s", file, ctx->info.name, log);
    free(log);
}

static cldsa_status build(cldsa_context *ctx, cl_program program, const char *file, const char *options) {
    cl_int code = clBuildProgram(program, 1, &ctx->device, options, NULL, NULL);
    if (code == CL_SUCCESS) {
        log_build(ctx, program, file, CLDSA_LOG_DEBUG);
        return CLDSA_SUCCESS;
    }
    cldsa_fail(CLDSA_BUILD_FAILED, "%s does not compile (%s)", file, cldsa_status_name(code));
    log_build(ctx, program, file, CLDSA_LOG_ERROR);
    return CLDSA_BUILD_FAILED;
}

/*
 * PoCL keeps what it compiles by itself. Asked for a program's binary it compiles all its kernels once more, for
 * local sizes of any extents: layer_norm's test took 47 s instead of 10 with nothing cached.
 */
static bool caches_programs(const cldsa_context *ctx) {
    return ctx->cache_dir && (ctx->own_cache || !cldsa_is_pocl(ctx));
}

static cl_program program_from_cache(cldsa_context *ctx, const char *source, const char *options) {
    unsigned char *binary;
    size_t size;
    if (!caches_programs(ctx) || !cldsa_cache_read(ctx, source, options, &binary, &size))
        return NULL;
    const unsigned char *data = binary;
    cl_int code, loaded = CL_SUCCESS;
    cl_program program = clCreateProgramWithBinary(ctx->cl, 1, &ctx->device, &size, &data, &loaded, &code);
    free(binary);
    if (code != CL_SUCCESS || loaded != CL_SUCCESS || clBuildProgram(program, 1, &ctx->device, options, NULL, NULL)) {
        cldsa_log(ctx, CLDSA_LOG_WARNING, "a cached program was refused by the driver; it is built anew");
        if (program)
            clReleaseProgram(program);
        return NULL;
    }
    return program;
}

static void program_to_cache(cldsa_context *ctx, cl_program program, const char *source, const char *options) {
    size_t size = 0;
    if (!caches_programs(ctx) || clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) ||
        size == 0)
        return;
    unsigned char *binary = malloc(size);
    if (binary && clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS)
        cldsa_cache_write(ctx, source, options, binary, size);
    free(binary);
}

void cldsa_build_options(const cldsa_context *ctx, char text[CLDSA_BUILD_OPTIONS_MAX]) {
    char lanes[32] = "";
    if (ctx->caps.fewest_lanes) /* for cl/registers.clh */
        snprintf(lanes, sizeof lanes, " -DFEWEST_LANES=%d", ctx->caps.fewest_lanes);
    snprintf(text, CLDSA_BUILD_OPTIONS_MAX, "-cl-std=CL1.2 -cl-mad-enable%s%s%s", lanes,
             ctx->caps.slow_fma ? " -DSLOW_FMA" : "", ctx->unoptimized ? " -cl-opt-disable" : "");
}

/*
 * Not by -Dfma=mad: PoCL's headers, which come after the options, define fma themselves. SLOW_FMA among the options is
 * there for the cache, which goes by them. EXACT_FMA is an operation's word that mad would not do.
 */
static const char without_fma[] = "#ifndef EXACT_FMA\n#undef fma\n#define fma mad\n#endif\n#line 1\n";

static cldsa_status create_program(cldsa_context *ctx, const char *file, const char *user_options, cl_program *out) {
    char *source;
    CLDSA_TRY(cldsa_kernel_source(ctx->kernel_dir, file, &source));
    char options[2048], common[CLDSA_BUILD_OPTIONS_MAX];
    cldsa_build_options(ctx, common);
    /* Without a log callback nobody reads warnings, and PoCL would write their number to standard error. */
    snprintf(options, sizeof options, "%s%s %s", common, cldsa_logs(ctx, CLDSA_LOG_DEBUG) ? "" : " -w", user_options);
    cldsa_status status = CLDSA_SUCCESS;
    *out = program_from_cache(ctx, source, options);
    if (!*out) {
        cl_int code;
        const char *texts[] = {without_fma, source};
        int first = ctx->caps.slow_fma ? 0 : 1;
        *out = clCreateProgramWithSource(ctx->cl, (cl_uint)(2 - first), texts + first, NULL, &code);
        status = code ? cldsa_fail(code, "%s: %s", file, cldsa_status_text(code)) : build(ctx, *out, file, options);
        if (status == CLDSA_SUCCESS)
            program_to_cache(ctx, *out, source, options);
        else if (*out)
            clReleaseProgram(*out);
    }
    free(source);
    return status;
}

/* Looks up or builds; the context's lock is held, so a program is built by whoever asks first. */
static cldsa_status get_program(cldsa_context *ctx, const char *file, const char *options, cldsa_program **out) {
    char key[2048];
    snprintf(key, sizeof key, "%s\n%s\n%d", file, options, ctx->unoptimized);
    cldsa_program **bucket = &ctx->programs[bucket_of(key)];
    for (cldsa_program *p = *bucket; p; p = p->next)
        if (strcmp(p->key, key) == 0) {
            *out = p;
            return CLDSA_SUCCESS;
        }
    cldsa_program *program = calloc(1, sizeof *program);
    char *copy = strdup(key);
    if (!program || !copy) {
        free(program);
        free(copy);
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: out of memory", file);
    }
    cldsa_status status = create_program(ctx, file, options, &program->program);
    if (status != CLDSA_SUCCESS) {
        free(program);
        free(copy);
        return status;
    }
    program->key = copy;
    program->next = *bucket;
    *bucket = program;
    *out = program;
    return CLDSA_SUCCESS;
}

static cldsa_status get_kernel(cldsa_context *ctx, cldsa_program *program, const char *file, const char *name,
                               cldsa_kernel **out) {
    for (cldsa_kernel *k = program->kernels; k; k = k->next)
        if (strcmp(k->name, name) == 0) {
            *out = k;
            return CLDSA_SUCCESS;
        }
    cl_int code;
    cl_kernel cl = clCreateKernel(program->program, name, &code);
    if (code)
        return cldsa_fail(code, "kernel %s of %s on %s: %s", name, file, ctx->info.name, cldsa_status_text(code));
    cldsa_kernel *kernel = calloc(1, sizeof *kernel);
    char *copy = strdup(name);
    if (!kernel || !copy) {
        free(kernel);
        free(copy);
        clReleaseKernel(cl);
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: out of memory", file);
    }
    kernel->name = copy;
    kernel->kernel = cl;
    pthread_mutex_init(&kernel->lock, NULL);
    kernel->next = program->kernels;
    program->kernels = kernel;
    *out = kernel;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_get_kernel(cldsa_context *ctx, const char *file, const char *name, const char *options,
                              cldsa_kernel **out) {
    cldsa_program *program;
    pthread_mutex_lock(&ctx->lock);
    cldsa_status status = get_program(ctx, file, options, &program);
    if (status == CLDSA_SUCCESS)
        status = get_kernel(ctx, program, file, name, out);
    pthread_mutex_unlock(&ctx->lock);
    return status;
}

cldsa_status cldsa_get_kernel_limits(cldsa_context *ctx, cldsa_kernel *kernel, cldsa_kernel_limits *out) {
    cl_kernel k = kernel->kernel;
    cl_device_id d = ctx->device;
    cl_int code =
        clGetKernelWorkGroupInfo(k, d, CL_KERNEL_WORK_GROUP_SIZE, sizeof(size_t), &out->work_group_size, NULL);
    if (!code)
        code = clGetKernelWorkGroupInfo(k, d, CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE, sizeof(size_t),
                                        &out->preferred_multiple, NULL);
    if (!code)
        code = clGetKernelWorkGroupInfo(k, d, CL_KERNEL_LOCAL_MEM_SIZE, sizeof(cl_ulong), &out->local_mem_bytes, NULL);
    if (!code)
        code =
            clGetKernelWorkGroupInfo(k, d, CL_KERNEL_PRIVATE_MEM_SIZE, sizeof(cl_ulong), &out->private_mem_bytes, NULL);
    return code ? cldsa_fail(code, "kernel %s: %s", kernel->name, cldsa_status_text(code)) : CLDSA_SUCCESS;
}
