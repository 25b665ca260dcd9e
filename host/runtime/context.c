/* Creating and destroying contexts. */
#include "host/runtime/context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *default_cache_dir(void) {
    const char *own = getenv("CLDSA_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char path[4096];
    if (own && *own)
        snprintf(path, sizeof path, "%s", own);
    else if (xdg && *xdg)
        snprintf(path, sizeof path, "%s/cldsa", xdg);
    else if (home && *home)
        snprintf(path, sizeof path, "%s/.cache/cldsa", home);
    else
        return NULL;
    return strdup(path);
}

static void take_options(cldsa_context *ctx, const cldsa_context_options *options) {
    const char *kernel_dir = options->kernel_dir ? options->kernel_dir : getenv("CLDSA_KERNEL_DIR");
    ctx->kernel_dir = kernel_dir && *kernel_dir ? strdup(kernel_dir) : NULL;
    if (!options->no_disk_cache)
        ctx->cache_dir = options->cache_dir ? strdup(options->cache_dir) : default_cache_dir();
    ctx->own_cache = options->cache_dir || getenv("CLDSA_CACHE_DIR");
    ctx->log = options->log;
    ctx->log_user = options->log_user;
    ctx->log_level = options->log_level;
    ctx->profiling = options->profiling;
}

cldsa_status cldsa_context_create(cl_context context, cl_device_id device, const cldsa_context_options *options,
                                  cldsa_context **out) {
    if (!out)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "context: there is no place for it: out is NULL");
    *out = NULL;
    if (!context || !device)
        return cldsa_fail(context ? CL_INVALID_DEVICE : CL_INVALID_CONTEXT, "context: the %s is NULL",
                          context ? "cl_device_id" : "cl_context");
    cldsa_context *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "context: out of memory");
    pthread_mutex_init(&ctx->lock, NULL);
    cl_int code = clRetainContext(context);
    if (code) {
        free(ctx);
        return cldsa_fail(code, "context: %s", cldsa_status_text(code));
    }
    ctx->cl = context;
    ctx->device = device; /* root devices need no retaining; sub-devices are the caller's to keep */
    take_options(ctx, options ? options : &(cldsa_context_options){0});
    cldsa_status status = cldsa_get_device_info(device, &ctx->info);
    if (status == CLDSA_SUCCESS)
        status = cldsa_probe_capabilities(ctx);
    if (status != CLDSA_SUCCESS) {
        cldsa_context_destroy(ctx);
        return status;
    }
    if (ctx->caps.short_loops)
        cldsa_log(ctx, CLDSA_LOG_WARNING,
                  "%s ends a work-item's loops early, without notice: large calls compute wrong results there",
                  ctx->info.name);
    *out = ctx;
    return CLDSA_SUCCESS;
}

static void free_program(cldsa_program *program) {
    while (program->kernels) {
        cldsa_kernel *kernel = program->kernels;
        program->kernels = kernel->next;
        clReleaseKernel(kernel->kernel);
        pthread_mutex_destroy(&kernel->lock);
        free(kernel->name);
        free(kernel);
    }
    clReleaseProgram(program->program);
    free(program->key);
    free(program);
}

void cldsa_context_destroy(cldsa_context *ctx) {
    if (!ctx)
        return;
    for (int i = 0; i < CLDSA_PROGRAM_BUCKETS; ++i)
        while (ctx->programs[i]) {
            cldsa_program *program = ctx->programs[i];
            ctx->programs[i] = program->next;
            free_program(program);
        }
    while (ctx->overrides) {
        cldsa_override *override = ctx->overrides;
        ctx->overrides = override->next;
        free(override);
    }
    if (ctx->extension)
        ctx->release_extension(ctx->extension);
    for (size_t i = 0; i < ctx->num_records; ++i)
        clReleaseEvent(ctx->records[i].event);
    free(ctx->records);
    free(ctx->cache_dir);
    free(ctx->kernel_dir);
    clReleaseContext(ctx->cl);
    pthread_mutex_destroy(&ctx->lock);
    free(ctx);
}

cldsa_status cldsa_override_set(cldsa_context *ctx, const void *key, const char *variant, const char *tunables) {
    cldsa_override *fresh = variant ? calloc(1, sizeof *fresh) : NULL;
    if (variant && !fresh)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "override: out of memory");
    pthread_mutex_lock(&ctx->lock);
    for (cldsa_override **link = &ctx->overrides; *link; link = &(*link)->next)
        if ((*link)->key == key) {
            cldsa_override *old = *link;
            *link = old->next;
            free(old);
            break;
        }
    if (fresh) {
        fresh->key = key;
        snprintf(fresh->variant, sizeof fresh->variant, "%s", variant);
        snprintf(fresh->tunables, sizeof fresh->tunables, "%s", tunables ? tunables : "");
        fresh->next = ctx->overrides;
        ctx->overrides = fresh;
    }
    pthread_mutex_unlock(&ctx->lock);
    return CLDSA_SUCCESS;
}

bool cldsa_override_get(cldsa_context *ctx, const void *key, char *variant, char *tunables) {
    bool found = false;
    pthread_mutex_lock(&ctx->lock);
    for (const cldsa_override *o = ctx->overrides; o && !found; o = o->next)
        if (o->key == key) {
            memcpy(variant, o->variant, sizeof o->variant);
            memcpy(tunables, o->tunables, sizeof o->tunables);
            found = true;
        }
    pthread_mutex_unlock(&ctx->lock);
    return found;
}

void *cldsa_context_extension(cldsa_context *ctx, void *(*create)(void), void (*release)(void *state)) {
    pthread_mutex_lock(&ctx->lock);
    if (!ctx->extension) {
        ctx->extension = create();
        ctx->release_extension = release;
    }
    void *state = ctx->extension;
    pthread_mutex_unlock(&ctx->lock);
    return state;
}

cl_context cldsa_context_cl(const cldsa_context *ctx) {
    return ctx->cl;
}
cl_device_id cldsa_context_device(const cldsa_context *ctx) {
    return ctx->device;
}
bool cldsa_is_pocl(const cldsa_context *ctx) {
    return strcmp(ctx->info.platform_name, "Portable Computing Language") == 0;
}

const cldsa_device_info *cldsa_context_device_info(const cldsa_context *ctx) {
    return &ctx->info;
}
const char *cldsa_context_kernel_dir(const cldsa_context *ctx) {
    return ctx->kernel_dir;
}

void cldsa_context_optimize(cldsa_context *ctx, bool optimize) {
    ctx->unoptimized = !optimize;
}
const cldsa_capabilities *cldsa_context_capabilities(const cldsa_context *ctx) {
    return &ctx->caps;
}
