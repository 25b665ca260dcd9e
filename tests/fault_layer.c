#include "tests/fault_layer.h"

#include <stdatomic.h>
#include <string.h>

#include <CL/cl_icd.h>
#include <CL/cl_layer.h>

#define EXPORT __attribute__((visibility("default")))

static const struct _cl_icd_dispatch *next; /* the driver, or another layer */
static struct _cl_icd_dispatch ours;
static atomic_long calls, fails_at, alive;
static const char *_Atomic failed;

EXPORT void fault_layer_arm(long n);
EXPORT long fault_layer_calls(void);
EXPORT const char *fault_layer_failed(void);
EXPORT long fault_layer_alive(void);

void fault_layer_arm(long n) {
    atomic_store(&calls, 0);
    atomic_store(&failed, NULL);
    atomic_store(&fails_at, n);
}

long fault_layer_calls(void) {
    return atomic_load(&calls);
}

const char *fault_layer_failed(void) {
    return atomic_load(&failed);
}

long fault_layer_alive(void) {
    return atomic_load(&alive);
}

static int fails(const char *name) {
    if (atomic_fetch_add(&calls, 1) + 1 != atomic_load(&fails_at))
        return 0;
    atomic_store(&failed, name);
    return 1;
}

/* ---- calls that return a code, those that make an object, those that release one -------------------------------- */

#define CODE(name, parameters, arguments)                                                                              \
    static CL_API_ENTRY cl_int CL_API_CALL layer_##name parameters {                                                   \
        return fails(#name) ? CL_OUT_OF_RESOURCES : next->name arguments;                                              \
    }

#define MAKE(type, name, parameters, arguments)                                                                        \
    static CL_API_ENTRY type CL_API_CALL layer_##name parameters {                                                     \
        if (fails(#name)) {                                                                                            \
            if (errcode_ret)                                                                                           \
                *errcode_ret = CL_OUT_OF_RESOURCES;                                                                    \
            return NULL;                                                                                               \
        }                                                                                                              \
        type made = next->name arguments;                                                                              \
        alive += made != NULL;                                                                                         \
        return made;                                                                                                   \
    }

/* Also counts the event that it gives out. */
#define ENQUEUE(name, parameters, arguments)                                                                           \
    static CL_API_ENTRY cl_int CL_API_CALL layer_##name parameters {                                                   \
        if (fails(#name))                                                                                              \
            return CL_OUT_OF_RESOURCES;                                                                                \
        cl_int code = next->name arguments;                                                                            \
        alive += code == CL_SUCCESS && event;                                                                          \
        return code;                                                                                                   \
    }

#define COUNT(name, type, change)                                                                                      \
    static CL_API_ENTRY cl_int CL_API_CALL layer_##name(type object) {                                                 \
        cl_int code = next->name(object);                                                                              \
        alive += code == CL_SUCCESS ? (change) : 0;                                                                    \
        return code;                                                                                                   \
    }

MAKE(cl_mem, clCreateBuffer, (cl_context c, cl_mem_flags flags, size_t size, void *host, cl_int *errcode_ret),
     (c, flags, size, host, errcode_ret))
MAKE(cl_command_queue, clCreateCommandQueue,
     (cl_context c, cl_device_id d, cl_command_queue_properties properties, cl_int *errcode_ret),
     (c, d, properties, errcode_ret))
MAKE(cl_program, clCreateProgramWithSource,
     (cl_context c, cl_uint count, const char **strings, const size_t *lengths, cl_int *errcode_ret),
     (c, count, strings, lengths, errcode_ret))
MAKE(cl_program, clCreateProgramWithBinary,
     (cl_context c, cl_uint n, const cl_device_id *devices, const size_t *lengths, const unsigned char **binaries,
      cl_int *status, cl_int *errcode_ret),
     (c, n, devices, lengths, binaries, status, errcode_ret))
MAKE(cl_kernel, clCreateKernel, (cl_program p, const char *kernel_name, cl_int *errcode_ret),
     (p, kernel_name, errcode_ret))
CODE(clBuildProgram,
     (cl_program p, cl_uint n, const cl_device_id *devices, const char *options,
      void(CL_CALLBACK *notify)(cl_program, void *), void *user),
     (p, n, devices, options, notify, user))
CODE(clSetKernelArg, (cl_kernel k, cl_uint index, size_t size, const void *value), (k, index, size, value))
CODE(clFinish, (cl_command_queue q), (q))
CODE(clWaitForEvents, (cl_uint n, const cl_event *events), (n, events))
ENQUEUE(clEnqueueNDRangeKernel,
        (cl_command_queue q, cl_kernel k, cl_uint dims, const size_t *offset, const size_t *global, const size_t *local,
         cl_uint n, const cl_event *wait, cl_event *event),
        (q, k, dims, offset, global, local, n, wait, event))
ENQUEUE(clEnqueueReadBuffer,
        (cl_command_queue q, cl_mem m, cl_bool blocking, size_t offset, size_t size, void *to, cl_uint n,
         const cl_event *wait, cl_event *event),
        (q, m, blocking, offset, size, to, n, wait, event))
ENQUEUE(clEnqueueWriteBuffer,
        (cl_command_queue q, cl_mem m, cl_bool blocking, size_t offset, size_t size, const void *from, cl_uint n,
         const cl_event *wait, cl_event *event),
        (q, m, blocking, offset, size, from, n, wait, event))
ENQUEUE(clEnqueueFillBuffer,
        (cl_command_queue q, cl_mem m, const void *pattern, size_t pattern_size, size_t offset, size_t size, cl_uint n,
         const cl_event *wait, cl_event *event),
        (q, m, pattern, pattern_size, offset, size, n, wait, event))
ENQUEUE(clEnqueueCopyBuffer,
        (cl_command_queue q, cl_mem from, cl_mem to, size_t from_offset, size_t to_offset, size_t size, cl_uint n,
         const cl_event *wait, cl_event *event),
        (q, from, to, from_offset, to_offset, size, n, wait, event))
ENQUEUE(clEnqueueMarkerWithWaitList, (cl_command_queue q, cl_uint n, const cl_event *wait, cl_event *event),
        (q, n, wait, event))
ENQUEUE(clEnqueueBarrierWithWaitList, (cl_command_queue q, cl_uint n, const cl_event *wait, cl_event *event),
        (q, n, wait, event))
COUNT(clReleaseMemObject, cl_mem, -1)
COUNT(clReleaseCommandQueue, cl_command_queue, -1)
COUNT(clReleaseProgram, cl_program, -1)
COUNT(clReleaseKernel, cl_kernel, -1)
COUNT(clReleaseEvent, cl_event, -1)
COUNT(clRetainMemObject, cl_mem, 1)
COUNT(clRetainCommandQueue, cl_command_queue, 1)
COUNT(clRetainProgram, cl_program, 1)
COUNT(clRetainKernel, cl_kernel, 1)
COUNT(clRetainEvent, cl_event, 1)

/* ---- what the loader asks for -------------------------------------------------------------------------------------
 */

EXPORT CL_API_ENTRY cl_int CL_API_CALL clGetLayerInfo(cl_layer_info name, size_t size, void *value, size_t *size_ret) {
    static const cl_layer_api_version version = CL_LAYER_API_VERSION_100;
    static const char title[] = "cldsa fault layer";
    const void *from = name == CL_LAYER_API_VERSION ? (const void *)&version : title;
    size_t bytes = name == CL_LAYER_API_VERSION ? sizeof version : sizeof title;
    if (name != CL_LAYER_API_VERSION && name != CL_LAYER_NAME)
        return CL_INVALID_VALUE;
    if (size_ret)
        *size_ret = bytes;
    if (value && size < bytes)
        return CL_INVALID_VALUE;
    if (value)
        memcpy(value, from, bytes);
    return CL_SUCCESS;
}

EXPORT CL_API_ENTRY cl_int CL_API_CALL clInitLayer(cl_uint entries, const struct _cl_icd_dispatch *target,
                                                   cl_uint *entries_ret, const struct _cl_icd_dispatch **ret) {
    if (!target || !entries_ret || !ret || entries < sizeof ours / sizeof(void *))
        return CL_INVALID_VALUE;
    next = target;
    memcpy(&ours, target, sizeof ours);
#define TAKE(name) ours.name = layer_##name
    TAKE(clCreateBuffer);
    TAKE(clCreateCommandQueue);
    TAKE(clCreateProgramWithSource);
    TAKE(clCreateProgramWithBinary);
    TAKE(clCreateKernel);
    TAKE(clBuildProgram);
    TAKE(clSetKernelArg);
    TAKE(clFinish);
    TAKE(clWaitForEvents);
    TAKE(clEnqueueNDRangeKernel);
    TAKE(clEnqueueReadBuffer);
    TAKE(clEnqueueWriteBuffer);
    TAKE(clEnqueueFillBuffer);
    TAKE(clEnqueueCopyBuffer);
    TAKE(clEnqueueMarkerWithWaitList);
    TAKE(clEnqueueBarrierWithWaitList);
    TAKE(clReleaseMemObject);
    TAKE(clReleaseCommandQueue);
    TAKE(clReleaseProgram);
    TAKE(clReleaseKernel);
    TAKE(clReleaseEvent);
    TAKE(clRetainMemObject);
    TAKE(clRetainCommandQueue);
    TAKE(clRetainProgram);
    TAKE(clRetainKernel);
    TAKE(clRetainEvent);
#undef TAKE
    *entries_ret = sizeof ours / sizeof(void *);
    *ret = &ours;
    return CL_SUCCESS;
}
