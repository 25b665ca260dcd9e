/* Finding and choosing devices. */
#include "host/runtime/runtime.h"

#include <CL/cl_ext.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLATFORM_NOT_FOUND_KHR = -1001 };

static void trim(char *text) {
    size_t lead = strspn(text, " \t");
    memmove(text, text + lead, strlen(text + lead) + 1);
    for (size_t n = strlen(text); n > 0 && isspace((unsigned char)text[n - 1]);)
        text[--n] = 0;
}

/* Driver strings may be longer than our arrays, which the query would refuse: fetch whole, then cut. */
static void device_string(cl_device_id device, cl_device_info what, char *out, size_t size) {
    char text[1024] = "";
    if (clGetDeviceInfo(device, what, sizeof text - 1, text, NULL) != CL_SUCCESS)
        snprintf(text, sizeof text, "?");
    trim(text);
    snprintf(out, size, "%.*s", (int)size - 1, text);
}

cldsa_status cldsa_get_device_info(cl_device_id device, cldsa_device_info *out) {
    memset(out, 0, sizeof *out);
    out->device = device;
    cl_int code = clGetDeviceInfo(device, CL_DEVICE_PLATFORM, sizeof out->platform, &out->platform, NULL);
    if (code)
        return cldsa_fail(code, "the device cannot be queried: %s", cldsa_status_text(code));
    char platform[1024] = "?";
    clGetPlatformInfo(out->platform, CL_PLATFORM_NAME, sizeof platform - 1, platform, NULL);
    trim(platform);
    snprintf(out->platform_name, sizeof out->platform_name, "%.*s", (int)sizeof out->platform_name - 1, platform);
    device_string(device, CL_DEVICE_NAME, out->name, sizeof out->name);
    device_string(device, CL_DEVICE_VENDOR, out->vendor, sizeof out->vendor);
    device_string(device, CL_DRIVER_VERSION, out->driver, sizeof out->driver);
    device_string(device, CL_DEVICE_VERSION, out->version, sizeof out->version);
    device_string(device, CL_DEVICE_OPENCL_C_VERSION, out->c_version, sizeof out->c_version);
    clGetDeviceInfo(device, CL_DEVICE_TYPE, sizeof out->type, &out->type, NULL);
    clGetDeviceInfo(device, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof out->compute_units, &out->compute_units, NULL);
    clGetDeviceInfo(device, CL_DEVICE_MAX_CLOCK_FREQUENCY, sizeof out->max_clock_mhz, &out->max_clock_mhz, NULL);
    clGetDeviceInfo(device, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof out->global_mem_bytes, &out->global_mem_bytes, NULL);
    clGetDeviceInfo(device, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof out->max_alloc_bytes, &out->max_alloc_bytes, NULL);
    clGetDeviceInfo(device, CL_DEVICE_LOCAL_MEM_SIZE, sizeof out->local_mem_bytes, &out->local_mem_bytes, NULL);
    clGetDeviceInfo(device, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof out->max_work_group_size, &out->max_work_group_size,
                    NULL);
    clGetDeviceInfo(device, CL_DEVICE_AVAILABLE, sizeof out->available, &out->available, NULL);
    return CLDSA_SUCCESS;
}

/* Appends one platform's devices; a platform that lists none, or fails, is skipped: others may work. */
static cldsa_status add_platform(cl_platform_id platform, cldsa_device_info **list, size_t *count) {
    cl_uint num = 0;
    if (clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, NULL, &num) != CL_SUCCESS || num == 0)
        return CLDSA_SUCCESS;
    cl_device_id *ids = calloc(num, sizeof *ids);
    cldsa_device_info *grown = realloc(*list, (*count + num) * sizeof *grown);
    if (grown)
        *list = grown;
    if (!ids || !grown) {
        free(ids);
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "listing devices: out of memory");
    }
    if (clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, num, ids, NULL) == CL_SUCCESS)
        for (cl_uint i = 0; i < num; ++i)
            if (cldsa_get_device_info(ids[i], &(*list)[*count]) == CLDSA_SUCCESS) {
                (*list)[*count].index = (int)*count;
                ++*count;
            }
    free(ids);
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_devices(cldsa_device_info **list, size_t *count) {
    *list = NULL;
    *count = 0;
    cl_uint num = 0;
    cl_int code = clGetPlatformIDs(0, NULL, &num);
    if (code == PLATFORM_NOT_FOUND_KHR || (code == CL_SUCCESS && num == 0))
        return CLDSA_SUCCESS;
    if (code)
        return cldsa_fail(code, "listing platforms: %s", cldsa_status_text(code));
    cl_platform_id *platforms = calloc(num, sizeof(cl_platform_id));
    if (!platforms)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "listing platforms: out of memory");
    code = clGetPlatformIDs(num, platforms, NULL);
    cldsa_status status = code ? cldsa_fail(code, "listing platforms: %s", cldsa_status_text(code)) : CLDSA_SUCCESS;
    for (cl_uint i = 0; i < num && status == CLDSA_SUCCESS; ++i)
        status = add_platform(platforms[i], list, count);
    free(platforms);
    if (status != CLDSA_SUCCESS) {
        free(*list);
        *list = NULL;
        *count = 0;
    }
    return status;
}

static bool contains_ignoring_case(const char *text, const char *part) {
    size_t length = strlen(part);
    for (; *text; ++text) {
        size_t i = 0;
        while (i < length && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            ++i;
        if (i == length)
            return true;
    }
    return false;
}

static bool matches(const cldsa_device_info *info, const char *spec) {
    char *end;
    long index = strtol(spec, &end, 10);
    if (*spec && !*end)
        return index == info->index;
    if (strcmp(spec, "cpu") == 0)
        return (info->type & CL_DEVICE_TYPE_CPU) != 0;
    if (strcmp(spec, "gpu") == 0)
        return (info->type & CL_DEVICE_TYPE_GPU) != 0;
    if (strcmp(spec, "accelerator") == 0)
        return (info->type & CL_DEVICE_TYPE_ACCELERATOR) != 0;
    char full[300];
    snprintf(full, sizeof full, "%s / %s", info->platform_name, info->name);
    return contains_ignoring_case(full, spec);
}

bool cldsa_device_is_llvmpipe(const cldsa_device_info *info) {
    return strstr(info->name, "llvmpipe") != NULL;
}

/* GPUs before everything else, then by compute units x clock; llvmpipe (see short_loops) after everything else. */
static double preference(const cldsa_device_info *info) {
    if (cldsa_device_is_llvmpipe(info))
        return 0;
    double speed = (double)info->compute_units * (info->max_clock_mhz ? info->max_clock_mhz : 1000);
    return (info->type & CL_DEVICE_TYPE_GPU) ? 1e12 + speed : speed;
}

static cldsa_status no_such_device(const char *spec, const cldsa_device_info *list, size_t count) {
    if (count == 0)
        return cldsa_fail(CLDSA_NOT_FOUND, "there is no OpenCL device: install a driver (pocl-opencl-icd runs on any "
                                           "CPU) and check with clinfo -l");
    char names[700] = "";
    for (size_t i = 0, used = 0; i < count && used < sizeof names - 1; ++i)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%zu: %s / %s", i ? "; " : "", i,
                                 list[i].platform_name, list[i].name);
    return cldsa_fail(CLDSA_NOT_FOUND, "no available device matches \"%s\"; there are: %s", spec, names);
}

cldsa_status cldsa_select_device(const char *spec, cldsa_device_info *out) {
    if (!spec || !*spec)
        spec = getenv("CLDSA_DEVICE");
    if (!spec)
        spec = "";
    cldsa_device_info *list;
    size_t count;
    CLDSA_TRY(cldsa_devices(&list, &count));
    const cldsa_device_info *best = NULL;
    for (size_t i = 0; i < count; ++i)
        if (list[i].available && (!*spec || matches(&list[i], spec)) &&
            (!best || preference(&list[i]) > preference(best)))
            best = &list[i];
    cldsa_status status = best ? CLDSA_SUCCESS : no_such_device(spec, list, count);
    if (best)
        *out = *best;
    free(list);
    return status;
}

/* ---- kinds of devices ----------------------------------------------------------------------------------------- */

const char *cldsa_device_type_name(cl_device_type type) {
    return type & CL_DEVICE_TYPE_GPU           ? "gpu"
           : type & CL_DEVICE_TYPE_CPU         ? "cpu"
           : type & CL_DEVICE_TYPE_ACCELERATOR ? "accelerator"
                                               : "other";
}

static bool query_uint(const cldsa_device_info *info, cl_device_info what, cl_uint *value) {
    return info->device && clGetDeviceInfo(info->device, what, sizeof *value, value, NULL) == CL_SUCCESS && *value;
}

/* "gfx90a" in "gfx90a:sramecc+:xnack-". */
static bool gfx_name(const char *name, char text[CLDSA_ARCHITECTURE_MAX]) {
    const char *at = strstr(name, "gfx");
    if (!at || !isdigit((unsigned char)at[3]))
        return false;
    size_t length = 3;
    while (isalnum((unsigned char)at[length]))
        ++length;
    snprintf(text, CLDSA_ARCHITECTURE_MAX, "%.*s", (int)length, at);
    return true;
}

void cldsa_device_architecture(const cldsa_device_info *info, char text[CLDSA_ARCHITECTURE_MAX]) {
    enum { IP_VERSION_INTEL = 0x4250 }; /* cl_intel_device_attribute_query, which older headers lack */
    bool gpu = (info->type & CL_DEVICE_TYPE_GPU) != 0;
    cl_uint major, minor = 0, version, width;
    snprintf(text, CLDSA_ARCHITECTURE_MAX, "%s", info->name);
    if (gpu && strstr(info->vendor, "NVIDIA") && query_uint(info, CL_DEVICE_COMPUTE_CAPABILITY_MAJOR_NV, &major)) {
        query_uint(info, CL_DEVICE_COMPUTE_CAPABILITY_MINOR_NV, &minor);
        snprintf(text, CLDSA_ARCHITECTURE_MAX, "sm_%u%u", major, minor);
    } else if (gpu && strstr(info->vendor, "Intel") && query_uint(info, IP_VERSION_INTEL, &version)) {
        snprintf(text, CLDSA_ARCHITECTURE_MAX, "xe_%u.%u", version >> 22, version >> 14 & 0xff);
    } else if (gpu) {
        gfx_name(info->name, text);
    } else if ((info->type & CL_DEVICE_TYPE_CPU) && query_uint(info, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, &width)) {
        snprintf(text, CLDSA_ARCHITECTURE_MAX, "simd%u", width * 32);
    }
}
