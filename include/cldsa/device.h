/*
 * Finding devices, and what cldsa knows of them.
 */
#ifndef CLDSA_DEVICE_H
#define CLDSA_DEVICE_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the driver says. Strings are NUL-terminated, trimmed and cut at their array's size. */
typedef struct cldsa_device_info {
    cl_platform_id platform;
    cl_device_id device;
    int index; /* position in cldsa_devices' list, platforms in the ICD loader's order */
    char platform_name[128];
    char name[128];
    char vendor[128];
    char driver[128];    /* CL_DRIVER_VERSION */
    char version[128];   /* CL_DEVICE_VERSION */
    char c_version[128]; /* CL_DEVICE_OPENCL_C_VERSION */
    cl_device_type type;
    cl_uint compute_units;
    cl_uint max_clock_mhz;
    cl_ulong global_mem_bytes;
    cl_ulong max_alloc_bytes;
    cl_ulong local_mem_bytes;
    size_t max_work_group_size;
    cl_bool available;
} cldsa_device_info;

/* What tiny programs, compiled and run on the device, have shown to work. */
typedef struct cldsa_capabilities {
    bool is_cpu;            /* work-items are threads with vectors of their own, not lanes of one */
    bool fp16;              /* arithmetic on half */
    bool fp64;              /* arithmetic on double */
    bool int64_atomics;     /* 64-bit integer atomics on global memory */
    bool sub_groups;        /* sub_group_reduce_add and shuffles through some extension */
    int sub_group_size;     /* work-items that run in lockstep; 1 on CPUs */
    int fewest_lanes;       /* of the sub-groups that a kernel may ask for (Intel's GPUs); 0: no choice */
    bool nv_ptx;            /* inline PTX compiles and runs */
    int vector_width;       /* floats in a native vector register: 4, 8 or 16 on CPUs, 1 on GPUs */
    size_t local_mem_bytes; /* the largest __local array that compiled and ran */
    bool unified_memory;    /* host and device share memory */
    bool short_loops;       /* a defect: long loops end early, so that large calls compute wrong results */
    bool slow_fma;          /* fma() is computed in software: kernels are built with mad() in its place */
} cldsa_capabilities;

/*
 * Lists all devices of all platforms. *list is malloc'ed for the caller to free(); *count may be 0
 * (no platform installed is not an error here).
 */
CLDSA_API cldsa_status cldsa_devices(cldsa_device_info **list, size_t *count);

/*
 * Picks a device. `spec`: an index into cldsa_devices' list, a type ("cpu", "gpu", "accelerator"), or
 * a case-insensitive substring of "platform / name". NULL or "": $CLDSA_DEVICE if set, else the
 * fastest GPU (compute units x clock), else a CPU; Mesa's llvmpipe only if there is nothing else.
 * CLDSA_NOT_FOUND names the devices that exist, or says that there is no OpenCL platform.
 */
CLDSA_API cldsa_status cldsa_select_device(const char *spec, cldsa_device_info *out);

/* Fills `out` for one device. */
CLDSA_API cldsa_status cldsa_get_device_info(cl_device_id device, cldsa_device_info *out);

/* The probed capabilities of the context's device; valid as long as the context. */
CLDSA_API const cldsa_capabilities *cldsa_context_capabilities(const cldsa_context *ctx);

#ifdef __cplusplus
}
#endif
#endif
