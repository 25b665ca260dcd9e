/*
 * The parameter table: names, the flat buffer's layout, initialisation, files.
 */
#include "host/nn/params.h"

#include "host/ops/philox.h"
#include "host/runtime/runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 18 }; /* elements moved between host and device at a time: 1 MiB */

/* ---- the table ------------------------------------------------------------------------------------------------ */

/* FNV-1a: streams depend on names alone, so a new parameter leaves the others' initial values as they were. */
static uint32_t name_stream(const char *name) {
    uint32_t hash = 2166136261u;
    for (; *name; ++name)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return hash;
}

cldsa_status cldsa_params_add(cldsa_params *params, const char *name, const char *common, cldsa_param_spec spec,
                              int *index) {
    if (params->count == params->capacity) {
        int capacity = params->capacity ? 2 * params->capacity : 64;
        cldsa_param *list = realloc(params->list, (size_t)capacity * sizeof *list);
        if (!list)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %d parameters' names", capacity);
        params->list = list;
        params->capacity = capacity;
    }
    cldsa_param *param = &params->list[params->count];
    *param = (cldsa_param){.spec = spec, .stream = name_stream(common), .numel = 1, .offset = -1};
    if (snprintf(param->name, sizeof param->name, "%s", name) >= (int)sizeof param->name)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "parameter name \"%s\" is longer than %d", name,
                          CLDSA_PARAM_NAME_MAX - 1);
    for (int i = 0; i < spec.rank; ++i)
        param->numel *= spec.shape[i];
    *index = params->count++;
    params->numel += param->numel;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_params_add_in(cldsa_params *params, const char *prefix, const char *common_prefix, const char *rest,
                                 cldsa_param_spec spec, int *index) {
    char name[2 * CLDSA_PARAM_NAME_MAX], common[2 * CLDSA_PARAM_NAME_MAX];
    snprintf(name, sizeof name, "%s%s", prefix, rest);
    snprintf(common, sizeof common, "%s%s", common_prefix, rest);
    return cldsa_params_add(params, name, common, spec, index);
}

static int64_t lay_out_part(cldsa_params *params, bool trainable, int64_t at) {
    for (int i = 0; i < params->count; ++i) {
        cldsa_param *param = &params->list[i];
        if (param->spec.trainable != trainable)
            continue;
        if (!param->spec.joined)
            at = cldsa_round_up(at, CLDSA_PARAM_ALIGN);
        param->offset = at;
        at += param->numel;
    }
    return cldsa_round_up(at, CLDSA_PARAM_ALIGN);
}

void cldsa_params_layout(cldsa_params *params) {
    params->trainable = lay_out_part(params, true, 0);
    params->total = lay_out_part(params, false, params->trainable);
}

static cldsa_tensor view_of(const cldsa_param *param, cl_mem mem) {
    cldsa_tensor tensor = {.mem = mem, .offset = (size_t)param->offset, .dtype = CLDSA_F32, .rank = param->spec.rank};
    memcpy(tensor.shape, param->spec.shape, sizeof param->spec.shape);
    return tensor;
}

cldsa_tensor cldsa_param_value(const cldsa_params *params, int index) {
    return view_of(&params->list[index], params->value);
}

cldsa_tensor cldsa_param_grad(const cldsa_params *params, int index) {
    return view_of(&params->list[index], params->grad);
}

int cldsa_params_find(const cldsa_params *params, const char *name) {
    for (int i = 0; i < params->count; ++i)
        if (strcmp(params->list[i].name, name) == 0)
            return i;
    return -1;
}

/* ---- buffers -------------------------------------------------------------------------------------------------- */

static cldsa_status allocate_zeroed(cldsa_params *params, cl_context context, int64_t numel, cl_mem *out) {
    size_t bytes = (size_t)numel * sizeof(float);
    cl_int error = CL_SUCCESS;
    *out = clCreateBuffer(context, CL_MEM_READ_WRITE, bytes, NULL, &error);
    if (!error)
        error = clEnqueueFillBuffer(params->queue, *out, &(cl_float){0}, sizeof(cl_float), 0, bytes, 0, NULL, NULL);
    if (error)
        return cldsa_fail(error, "allocating %.1f MiB for parameters failed", (double)bytes / 1048576);
    params->device_bytes += bytes;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_params_allocate(cldsa_params *params, cl_context context, cl_command_queue queue, bool training) {
    clRetainCommandQueue(queue);
    params->queue = queue;
    CLDSA_TRY(allocate_zeroed(params, context, params->total, &params->value));
    if (!training)
        return CLDSA_SUCCESS;
    CLDSA_TRY(allocate_zeroed(params, context, params->trainable, &params->grad));
    CLDSA_TRY(allocate_zeroed(params, context, params->trainable, &params->m));
    return allocate_zeroed(params, context, params->trainable, &params->v);
}

void cldsa_params_free(cldsa_params *params) {
    cl_mem *buffers[] = {&params->value, &params->grad, &params->m, &params->v};
    for (int i = 0; i < 4; ++i)
        if (*buffers[i])
            clReleaseMemObject(*buffers[i]);
    if (params->queue)
        clReleaseCommandQueue(params->queue);
    free(params->list);
    *params = (cldsa_params){0};
}

static cldsa_status write_buffer(const cldsa_params *params, cl_mem buffer, int64_t offset, const float *data,
                                 int64_t count) {
    cl_int error = clEnqueueWriteBuffer(params->queue, buffer, CL_TRUE, (size_t)offset * sizeof(float),
                                        (size_t)count * sizeof(float), data, 0, NULL, NULL);
    return error ? cldsa_fail(error, "writing parameters to the device failed") : CLDSA_SUCCESS;
}

/* ---- initial values ------------------------------------------------------------------------------------------- */

/* Two normals per pair of words (Box-Muller); u1 lies in (0, 1], so its logarithm is finite. */
static void normal_pair(uint32_t a, uint32_t b, double out[2]) {
    double radius = sqrt(-2.0 * log(((double)a + 1.0) / 4294967296.0));
    double angle = 6.283185307179586476925 * ((double)b / 4294967296.0);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

/* Elements [first, first + count) of a parameter; `first` is a multiple of 4. */
static void draw(const cldsa_param *param, uint64_t seed, int64_t first, int64_t count, float *out) {
    const cldsa_param_spec *spec = &param->spec;
    double bound = spec->rank == 2 ? spec->scale * sqrt(6.0 / (double)(spec->shape[0] + spec->shape[1])) : spec->scale;
    for (int64_t i = 0; i < count; i += 4) {
        uint32_t words[4] = {0};
        double value[4] = {spec->scale, spec->scale, spec->scale, spec->scale};
        if (spec->init != CLDSA_INIT_CONSTANT)
            cldsa_philox((uint64_t)(first + i) / 4, param->stream, seed, words);
        if (spec->init == CLDSA_INIT_NORMAL || spec->init == CLDSA_INIT_ABS_NORMAL) {
            normal_pair(words[0], words[1], value);
            normal_pair(words[2], words[3], value + 2);
        }
        for (int j = 0; j < 4 && i + j < count; ++j) {
            if (spec->init == CLDSA_INIT_NORMAL)
                value[j] *= spec->scale;
            else if (spec->init == CLDSA_INIT_ABS_NORMAL)
                value[j] = fabs(value[j]) * spec->scale;
            else if (spec->init == CLDSA_INIT_XAVIER)
                value[j] = bound * (2.0 * ((double)words[j] + 0.5) / 4294967296.0 - 1.0);
            out[i + j] = (float)value[j];
        }
    }
}

cldsa_status cldsa_params_init(cldsa_params *params, uint64_t seed) {
    float *piece = malloc(PIECE * sizeof *piece);
    if (!piece)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory to draw parameters");
    cldsa_status status = CLDSA_SUCCESS;
    for (int i = 0; i < params->count && status == CLDSA_SUCCESS; ++i) {
        const cldsa_param *param = &params->list[i];
        for (int64_t at = 0; at < param->numel && status == CLDSA_SUCCESS; at += PIECE) {
            int64_t count = param->numel - at < PIECE ? param->numel - at : PIECE;
            draw(param, seed, at, count, piece);
            status = write_buffer(params, params->value, param->offset + at, piece, count);
        }
    }
    free(piece);
    cl_mem zeroed[] = {params->grad, params->m, params->v};
    for (int i = 0; i < 3 && status == CLDSA_SUCCESS; ++i) {
        cl_int error = zeroed[i] ? clEnqueueFillBuffer(params->queue, zeroed[i], &(cl_float){0}, sizeof(cl_float), 0,
                                                       (size_t)params->trainable * sizeof(float), 0, NULL, NULL)
                                 : CL_SUCCESS;
        if (error)
            status = cldsa_fail(error, "zeroing the optimiser's moments failed");
    }
    return status;
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static cldsa_status read_one(cldsa_params *params, cl_mem buffer, const cldsa_safetensors *file, const char *name,
                             const cldsa_param *param, float *piece) {
    const char *path = cldsa_safetensors_path(file);
    const cldsa_st_tensor *tensor = NULL;
    CLDSA_TRY(cldsa_safetensors_get(file, name, &tensor));
    if (tensor->dtype != CLDSA_ST_F32 && tensor->dtype != CLDSA_ST_F16 && tensor->dtype != CLDSA_ST_BF16)
        return cldsa_fail(CLDSA_INVALID_DTYPE, "%s: %s is %s; it must be F32, F16 or BF16", path, name,
                          cldsa_st_dtype_name(tensor->dtype));
    bool same = tensor->rank == param->spec.rank;
    for (int i = 0; same && i < tensor->rank; ++i)
        same = tensor->shape[i] == param->spec.shape[i];
    if (!same) {
        const int64_t *has = tensor->shape, *wants = param->spec.shape;
        return cldsa_fail(
            CLDSA_INVALID_SHAPE, "%s: %s has rank %d and starts %lld x %lld; the config wants rank %d, %lld x %lld",
            path, name, tensor->rank, (long long)(tensor->rank > 0 ? has[0] : 1),
            (long long)(tensor->rank > 1 ? has[1] : 1), param->spec.rank,
            (long long)(param->spec.rank > 0 ? wants[0] : 1), (long long)(param->spec.rank > 1 ? wants[1] : 1));
    }
    for (int64_t at = 0; at < param->numel; at += PIECE) {
        int64_t count = param->numel - at < PIECE ? param->numel - at : PIECE;
        for (int64_t i = 0; i < count; ++i)
            piece[i] = (float)cldsa_st_value(tensor, at + i);
        CLDSA_TRY(write_buffer(params, buffer, param->offset + at, piece, count));
    }
    return CLDSA_SUCCESS;
}

/* Whether this buffer holds the parameter: gradients and moments exist for the trainable part alone. */
static bool buffer_holds(const cldsa_params *params, cl_mem buffer, const cldsa_param *param) {
    return buffer == params->value || param->spec.trainable;
}

static cldsa_status refuse_strangers(const cldsa_params *params, const cldsa_safetensors *file, const char *prefix) {
    size_t skip = strlen(prefix);
    for (size_t i = 0; i < cldsa_safetensors_count(file); ++i) {
        const char *name = cldsa_safetensors_at(file, i)->name;
        if (strncmp(name, prefix, skip) == 0 && cldsa_params_find(params, name + skip) < 0)
            return cldsa_fail(CLDSA_INVALID_FILE,
                              "%s: %s is not a parameter of this config (%d parameters, the first is %s)",
                              cldsa_safetensors_path(file), name, params->count, params->list[0].name);
    }
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_params_read(cldsa_params *params, cl_mem buffer, const cldsa_safetensors *file, const char *prefix,
                               bool strict) {
    if (strict)
        CLDSA_TRY(refuse_strangers(params, file, prefix));
    float *piece = malloc(PIECE * sizeof *piece);
    if (!piece)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory to read parameters");
    cldsa_status status = CLDSA_SUCCESS;
    for (int i = 0; i < params->count && status == CLDSA_SUCCESS; ++i) {
        char name[CLDSA_PARAM_NAME_MAX + 64];
        snprintf(name, sizeof name, "%s%s", prefix, params->list[i].name);
        if (buffer_holds(params, buffer, &params->list[i]))
            status = read_one(params, buffer, file, name, &params->list[i], piece);
    }
    free(piece);
    return status;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

/* Where an entry's bytes come from. */
typedef struct entry_source {
    cl_command_queue queue;
    cl_mem buffer;
    size_t offset; /* bytes */
    char name[CLDSA_PARAM_NAME_MAX + 64];
} entry_source;

struct cldsa_params_entries {
    cldsa_params *params;
    cldsa_st_entry *list;
    entry_source *sources;
    size_t count, capacity;
};

static cldsa_status read_entry(void *user, size_t offset, void *destination, size_t bytes) {
    const entry_source *source = user;
    cl_int error = clEnqueueReadBuffer(source->queue, source->buffer, CL_TRUE, source->offset + offset, bytes,
                                       destination, 0, NULL, NULL);
    return error ? cldsa_fail(error, "reading %s from the device failed", source->name) : CLDSA_SUCCESS;
}

cldsa_status cldsa_params_entries_create(cldsa_params *params, cldsa_params_entries **out) {
    /* Values, gradients and two moments at most, so that neither list ever moves: entries point into sources. */
    size_t capacity = 4 * (size_t)params->count;
    cldsa_params_entries *entries = calloc(1, sizeof *entries);
    if (entries) {
        *entries = (cldsa_params_entries){params, calloc(capacity, sizeof *entries->list),
                                          calloc(capacity, sizeof *entries->sources), 0, capacity};
        if (entries->list && entries->sources) {
            *out = entries;
            return CLDSA_SUCCESS;
        }
    }
    cldsa_params_entries_free(entries);
    return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory to list %d parameters", params->count);
}

cldsa_status cldsa_params_entries_add(cldsa_params_entries *entries, cl_mem buffer, const char *prefix) {
    const cldsa_params *params = entries->params;
    for (int i = 0; i < params->count; ++i) {
        const cldsa_param *param = &params->list[i];
        if (!buffer_holds(params, buffer, param))
            continue;
        if (entries->count == entries->capacity)
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, "more than four sets of parameters in one file");
        entry_source *source = &entries->sources[entries->count];
        *source = (entry_source){params->queue, buffer, (size_t)param->offset * sizeof(float), ""};
        snprintf(source->name, sizeof source->name, "%s%s", prefix, param->name);
        cldsa_st_entry *entry = &entries->list[entries->count++];
        *entry = (cldsa_st_entry){
            .name = source->name, .dtype = CLDSA_ST_F32, .rank = param->spec.rank, .read = read_entry, .user = source};
        memcpy(entry->shape, param->spec.shape, sizeof param->spec.shape);
    }
    return CLDSA_SUCCESS;
}

const cldsa_st_entry *cldsa_params_entries_list(const cldsa_params_entries *entries, size_t *count) {
    *count = entries->count;
    return entries->list;
}

void cldsa_params_entries_free(cldsa_params_entries *entries) {
    if (!entries)
        return;
    free(entries->list);
    free(entries->sources);
    free(entries);
}
