/*
 * OpenCL as a device that is not there would answer it: limits come from the description, buffers have a size and no
 * memory, programs are never built, launches are only noted. This program's definitions stand before the ICD loader's;
 * what a call of the library does not use is not defined here.
 */
#include "tests/vendors/vendors.h"

#include <stdlib.h>
#include <string.h>

struct _cl_program {
    char *source, *options;
};

enum { MAX_ARGUMENTS = 64 };

struct _cl_kernel {
    struct _cl_program *program;
    char *name;
    size_t local[MAX_ARGUMENTS]; /* bytes of local memory given as an argument */
};

struct _cl_mem {
    size_t bytes;
};

struct _cl_event {
    vendors_launch launch;
    int references;
};

static const vendors_target *described;
static int handle; /* its address stands for context, device and queue */

void vendors_describe(const vendors_target *target) {
    described = target;
}

cl_device_id vendors_device(void) {
    return (cl_device_id)&handle;
}

cl_context vendors_context(void) {
    return (cl_context)&handle;
}

cl_command_queue vendors_queue(void) {
    return (cl_command_queue)&handle;
}

const vendors_launch *vendors_launch_of(cl_event event) {
    return &event->launch;
}

/* ---- what is said of the device ---------------------------------------------------------------------------------- */

static cl_int answer(const void *from, size_t bytes, size_t size, void *value, size_t *size_ret) {
    if (size_ret)
        *size_ret = bytes;
    if (value && size < bytes)
        return CL_INVALID_VALUE;
    if (value)
        memcpy(value, from, bytes);
    return CL_SUCCESS;
}

#define ANSWER(type, x) answer(&(type){(x)}, sizeof(type), size, value, size_ret)
#define ANSWER_TEXT(x)  answer((x), strlen(x) + 1, size, value, size_ret)

CL_API_ENTRY cl_int CL_API_CALL clGetPlatformInfo(cl_platform_id platform, cl_platform_info what, size_t size,
                                                  void *value, size_t *size_ret) {
    (void)platform;
    (void)what;
    return ANSWER_TEXT(described->platform);
}

CL_API_ENTRY cl_int CL_API_CALL clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t size, void *value,
                                                size_t *size_ret) {
    (void)device;
    switch (what) {
    case CL_DEVICE_PLATFORM:
        return ANSWER(cl_platform_id, NULL);
    case CL_DEVICE_NAME:
        return ANSWER_TEXT(described->device);
    case CL_DEVICE_VENDOR:
        return ANSWER_TEXT(described->vendor);
    case CL_DRIVER_VERSION:
        return ANSWER_TEXT("described");
    case CL_DEVICE_VERSION:
        return ANSWER_TEXT("OpenCL 1.2");
    case CL_DEVICE_OPENCL_C_VERSION:
        return ANSWER_TEXT("OpenCL C 1.2");
    case CL_DEVICE_EXTENSIONS:
        return ANSWER_TEXT("");
    case CL_DEVICE_TYPE:
        return ANSWER(cl_device_type, described->cpu_floats ? CL_DEVICE_TYPE_CPU : CL_DEVICE_TYPE_GPU);
    case CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT:
        return ANSWER(cl_uint, described->cpu_floats ? (cl_uint)described->cpu_floats : 1);
    case CL_DEVICE_MAX_COMPUTE_UNITS:
        return ANSWER(cl_uint, described->compute_units);
    case CL_DEVICE_MAX_CLOCK_FREQUENCY:
        return ANSWER(cl_uint, 1000);
    case CL_DEVICE_GLOBAL_MEM_SIZE:
        return ANSWER(cl_ulong, (cl_ulong)16 << 30);
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
        return ANSWER(cl_ulong, (cl_ulong)16 << 30);
    case CL_DEVICE_LOCAL_MEM_SIZE:
        return ANSWER(cl_ulong, described->local_bytes);
    case CL_DEVICE_MAX_WORK_GROUP_SIZE:
        return ANSWER(size_t, described->work_group_size);
    case CL_DEVICE_AVAILABLE:
        return ANSWER(cl_bool, CL_TRUE);
    case CL_DEVICE_HOST_UNIFIED_MEMORY:
        return ANSWER(cl_bool, CL_FALSE);
    default:
        return CL_INVALID_VALUE;
    }
}

CL_API_ENTRY cl_int CL_API_CALL clGetCommandQueueInfo(cl_command_queue queue, cl_command_queue_info what, size_t size,
                                                      void *value, size_t *size_ret) {
    (void)queue;
    return what == CL_QUEUE_DEVICE    ? ANSWER(cl_device_id, vendors_device())
           : what == CL_QUEUE_CONTEXT ? ANSWER(cl_context, vendors_context())
                                      : ANSWER(cl_command_queue_properties, CL_QUEUE_PROFILING_ENABLE);
}

CL_API_ENTRY cl_int CL_API_CALL clGetMemObjectInfo(cl_mem mem, cl_mem_info what, size_t size, void *value,
                                                   size_t *size_ret) {
    (void)what;
    return ANSWER(size_t, mem->bytes);
}

/* ---- objects ------------------------------------------------------------------------------------------------------
 */

#define NOTHING(name, parameters)                                                                                      \
    CL_API_ENTRY cl_int CL_API_CALL name parameters {                                                                  \
        return CL_SUCCESS;                                                                                             \
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
NOTHING(clRetainContext, (cl_context c))
NOTHING(clReleaseContext, (cl_context c))
NOTHING(clRetainCommandQueue, (cl_command_queue q))
NOTHING(clReleaseCommandQueue, (cl_command_queue q))
NOTHING(clFinish, (cl_command_queue q))
NOTHING(clFlush, (cl_command_queue q))
NOTHING(clWaitForEvents, (cl_uint n, const cl_event *events))
#pragma GCC diagnostic pop

CL_API_ENTRY cl_mem CL_API_CALL clCreateBuffer(cl_context c, cl_mem_flags flags, size_t bytes, void *host,
                                               cl_int *code) {
    (void)c;
    (void)flags;
    (void)host;
    cl_mem mem = calloc(1, sizeof *mem);
    mem->bytes = bytes;
    *code = CL_SUCCESS;
    return mem;
}

CL_API_ENTRY cl_int CL_API_CALL clReleaseMemObject(cl_mem mem) {
    free(mem);
    return CL_SUCCESS;
}

CL_API_ENTRY cl_program CL_API_CALL clCreateProgramWithSource(cl_context c, cl_uint count, const char **strings,
                                                              const size_t *lengths, cl_int *code) {
    (void)c;
    (void)count;
    (void)lengths;
    cl_program program = calloc(1, sizeof *program);
    program->source = strdup(strings[0]);
    *code = CL_SUCCESS;
    return program;
}

/* The probes of capabilities have no file: none of them works, vendors_collect knows what does. */
CL_API_ENTRY cl_int CL_API_CALL clBuildProgram(cl_program program, cl_uint n, const cl_device_id *devices,
                                               const char *options, void(CL_CALLBACK *notify)(cl_program, void *),
                                               void *user) {
    (void)n;
    (void)devices;
    (void)notify;
    (void)user;
    program->options = strdup(options);
    return strncmp(program->source, "#line 1 ", 8) == 0 ? CL_SUCCESS : CL_BUILD_PROGRAM_FAILURE;
}

CL_API_ENTRY cl_int CL_API_CALL clGetProgramBuildInfo(cl_program program, cl_device_id device,
                                                      cl_program_build_info what, size_t size, void *value,
                                                      size_t *size_ret) {
    (void)program;
    (void)device;
    (void)what;
    return ANSWER_TEXT("");
}

CL_API_ENTRY cl_int CL_API_CALL clReleaseProgram(cl_program program) {
    free(program->source);
    free(program->options);
    free(program);
    return CL_SUCCESS;
}

CL_API_ENTRY cl_kernel CL_API_CALL clCreateKernel(cl_program program, const char *name, cl_int *code) {
    cl_kernel kernel = calloc(1, sizeof *kernel);
    kernel->program = program;
    kernel->name = strdup(name);
    *code = CL_SUCCESS;
    return kernel;
}

CL_API_ENTRY cl_int CL_API_CALL clReleaseKernel(cl_kernel kernel) {
    free(kernel->name);
    free(kernel);
    return CL_SUCCESS;
}

CL_API_ENTRY cl_int CL_API_CALL clSetKernelArg(cl_kernel kernel, cl_uint index, size_t size, const void *value) {
    if (index >= MAX_ARGUMENTS)
        return CL_INVALID_ARG_INDEX;
    kernel->local[index] = value ? 0 : size;
    return CL_SUCCESS;
}

/* ---- commands -----------------------------------------------------------------------------------------------------
 */

static void give_event(cl_event *event) {
    if (event) {
        *event = calloc(1, sizeof **event);
        (*event)->references = 1;
    }
}

CL_API_ENTRY cl_int CL_API_CALL clRetainEvent(cl_event event) {
    ++event->references;
    return CL_SUCCESS;
}

CL_API_ENTRY cl_int CL_API_CALL clReleaseEvent(cl_event event) {
    if (--event->references == 0)
        free(event);
    return CL_SUCCESS;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dims,
                                                       const size_t *offset, const size_t *global, const size_t *local,
                                                       cl_uint n, const cl_event *wait, cl_event *event) {
    (void)queue;
    (void)offset;
    (void)global;
    (void)n;
    (void)wait;
    give_event(event);
    if (!event)
        return CL_SUCCESS;
    vendors_launch *launch = &(*event)->launch;
    *launch = (vendors_launch){kernel->program->source, kernel->program->options, kernel->name, local != NULL, 0};
    for (cl_uint i = 0; local && i < dims; ++i)
        launch->group_items *= local[i];
    for (int i = 0; i < MAX_ARGUMENTS; ++i)
        launch->local_argument_bytes += kernel->local[i];
    return launch->group_items > described->work_group_size ? CL_INVALID_WORK_GROUP_SIZE : CL_SUCCESS;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueReadBuffer(cl_command_queue queue, cl_mem mem, cl_bool blocking, size_t at,
                                                    size_t bytes, void *to, cl_uint n, const cl_event *wait,
                                                    cl_event *event) {
    (void)queue;
    (void)blocking;
    (void)n;
    (void)wait;
    memset(to, 0, bytes);
    give_event(event);
    return at + bytes <= mem->bytes ? CL_SUCCESS : CL_INVALID_VALUE;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueWriteBuffer(cl_command_queue queue, cl_mem mem, cl_bool blocking, size_t at,
                                                     size_t bytes, const void *from, cl_uint n, const cl_event *wait,
                                                     cl_event *event) {
    (void)queue;
    (void)blocking;
    (void)from;
    (void)n;
    (void)wait;
    give_event(event);
    return at + bytes <= mem->bytes ? CL_SUCCESS : CL_INVALID_VALUE;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueFillBuffer(cl_command_queue queue, cl_mem mem, const void *pattern,
                                                    size_t pattern_size, size_t at, size_t bytes, cl_uint n,
                                                    const cl_event *wait, cl_event *event) {
    (void)queue;
    (void)pattern;
    (void)pattern_size;
    (void)n;
    (void)wait;
    give_event(event);
    return at + bytes <= mem->bytes ? CL_SUCCESS : CL_INVALID_VALUE;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueMarkerWithWaitList(cl_command_queue queue, cl_uint n, const cl_event *wait,
                                                            cl_event *event) {
    (void)queue;
    (void)n;
    (void)wait;
    give_event(event);
    return CL_SUCCESS;
}
