/*
 * Capabilities, found by compiling and running tiny kernels: drivers under-report (NVIDIA's lists neither half
 * arithmetic nor sub-groups, and a quarter of its local memory). Results are cached like binaries.
 */
#include "host/runtime/context.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PROBE_VERSION = 4, PROBE_ITEMS = 64 };

/* Each probe kernel writes out[i] for 64 work-items; expected is what out[0] must be. */
typedef struct probe {
    const char *source;
    unsigned expected;
    const char *extension; /* what an honest driver lists where this works; NULL: nothing to list */
} probe;

static const probe fp16_probe = {"#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n"
                                 "__kernel void probe(__global uint *out) {\n"
                                 "    half x = (half)(get_global_id(0) + 1);\n"
                                 "    half y = x * (half)2.0f + (half)0.5f;\n"
                                 "    out[get_global_id(0)] = (uint)((float)y * 2.0f);\n"
                                 "}\n",
                                 5, "cl_khr_fp16"};
static const probe fp64_probe = {"#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n"
                                 "__kernel void probe(__global uint *out) {\n"
                                 "    double x = 1.0 + 1e-12 * (double)(get_global_id(0) + 1);\n"
                                 "    out[get_global_id(0)] = x > 1.0 ? 7u : 0u;\n"
                                 "}\n",
                                 7, "cl_khr_fp64"};
static const probe atomics_probe = {"#pragma OPENCL EXTENSION cl_khr_int64_base_atomics : enable\n"
                                    "__kernel void probe(__global uint *out) {\n"
                                    "    __global volatile ulong *sum = (__global volatile ulong *)(out + 64);\n"
                                    "    atom_add(sum, 1ul);\n"
                                    "    out[get_global_id(0)] = 3u;\n"
                                    "}\n",
                                    3, "cl_khr_int64_base_atomics"};
static const probe sub_group_probe = {"#pragma OPENCL EXTENSION cl_khr_subgroups : enable\n"
                                      "__kernel void probe(__global uint *out) {\n"
                                      "    uint sum = sub_group_reduce_add(1u);\n"
                                      "    out[get_global_id(0)] = sum == get_sub_group_size() ? 9u : 0u;\n"
                                      "}\n",
                                      9, "cl_khr_subgroups"};
static const probe ptx_probe = {
    "__kernel void probe(__global uint *out) {\n"
    "    uint x = get_local_id(0), y;\n"
    "    asm volatile(\"shfl.sync.bfly.b32 %0, %1, 1, 31, 0xffffffff;\" : \"=r\"(y) : \"r\"(x));\n"
    "    out[get_global_id(0)] = y == (x ^ 1u) ? 11u : 0u;\n"
    "}\n",
    11, NULL};
/* More rounds than llvmpipe grants all loops of a work-item together; it ends them early without notice. */
static const probe loops_probe = {"__kernel void probe(__global uint *out) {\n"
                                  "    uint rounds = 0u;\n"
                                  "    for (uint i = 0; get_global_id(0) == 0 && i < 70000u; ++i)\n"
                                  "        rounds = rounds + 1u + out[rounds & 63u];\n" /* zeros */
                                  "    if (get_global_id(0) == 0) out[0] = rounds;\n"
                                  "}\n",
                                  70000, NULL};

/*
 * Eight chains of steps; no compiler can know that the factor is 1. Neither FP_FAST_FMAF nor CL_FP_FMA tells what fma
 * costs: compilers with the instruction were seen to define the one nowhere, and to set the other or not.
 */
#define CHAIN_PROBE(step)                                                                                              \
    {                                                                                                                  \
        "__kernel void probe(__global uint *out) {\n"                                                                  \
        "    float8 one = (float8)(1.0f + (float)out[get_global_id(0)]), half_one = 0.5f * one, x = one;\n"            \
        "    for (uint i = 0; i < 8192u; ++i)\n"                                                                       \
        "        x = " step "(x, one, half_one);\n"                                                                    \
        "    float4 sums = x.lo + x.hi;\n"                                                                             \
        "    out[get_global_id(0)] = (uint)(sums.x + sums.y + sums.z + sums.w);\n"                                     \
        "}\n",                                                                                                         \
            8 * 4097, NULL                                                                                             \
    }
static const probe fma_probe = CHAIN_PROBE("fma");
static const probe mad_probe = CHAIN_PROBE("mad");

/* What a run has shown. */
typedef struct outcome {
    unsigned word;   /* the first that was written */
    size_t multiple; /* the kernel's lockstep width */
    double seconds;  /* from the launch to its end */
} outcome;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static bool build_failed(cl_program program, cl_device_id device) {
    return clBuildProgram(program, 1, &device, "-cl-std=CL1.2 -w", NULL, NULL) != CL_SUCCESS;
}

static bool launch(cl_command_queue queue, cl_kernel kernel, cl_mem out, outcome *seen) {
    unsigned zero[256] = {0};
    size_t items = PROBE_ITEMS;
    if (clEnqueueWriteBuffer(queue, out, CL_TRUE, 0, sizeof zero, zero, 0, NULL, NULL) != CL_SUCCESS ||
        clSetKernelArg(kernel, 0, sizeof out, &out) != CL_SUCCESS)
        return false;
    double begin = now();
    if (clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &items, &items, 0, NULL, NULL) != CL_SUCCESS ||
        clFinish(queue) != CL_SUCCESS)
        return false;
    seen->seconds = now() - begin;
    return clEnqueueReadBuffer(queue, out, CL_TRUE, 0, sizeof seen->word, &seen->word, 0, NULL, NULL) == CL_SUCCESS;
}

/* Runs the kernel several times; seen->seconds is the fastest run's. */
static bool run_kernel(cldsa_context *ctx, cl_program program, int runs, outcome *seen) {
    cl_int code;
    cl_kernel kernel = clCreateKernel(program, "probe", &code);
    if (code)
        return false;
    cl_command_queue queue = clCreateCommandQueue(ctx->cl, ctx->device, 0, &code);
    cl_mem out = code ? NULL : clCreateBuffer(ctx->cl, CL_MEM_READ_WRITE, 1024, NULL, &code);
    bool good = code == CL_SUCCESS;
    double fastest = HUGE_VAL;
    for (int i = 0; i < runs && good; ++i) {
        good = launch(queue, kernel, out, seen);
        fastest = fmin(fastest, seen->seconds);
    }
    seen->seconds = fastest;
    clGetKernelWorkGroupInfo(kernel, ctx->device, CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE, sizeof seen->multiple,
                             &seen->multiple, NULL);
    if (out)
        clReleaseMemObject(out);
    if (queue)
        clReleaseCommandQueue(queue);
    clReleaseKernel(kernel);
    return good;
}

/*
 * PoCL lists what it has, and its compiler writes to standard error past every build log: a probe that must fail there
 * would only make noise.
 */
static bool known_to_fail(const cldsa_context *ctx, const probe *p) {
    if (!p->extension || !cldsa_is_pocl(ctx))
        return false;
    char list[8192] = "";
    clGetDeviceInfo(ctx->device, CL_DEVICE_EXTENSIONS, sizeof list - 1, list, NULL);
    return !strstr(list, p->extension);
}

/* Whether it could be run at all; *seen is then what it did. */
static bool could_run(cldsa_context *ctx, const probe *p, int runs, outcome *seen) {
    *seen = (outcome){.multiple = 1};
    if (known_to_fail(ctx, p))
        return false;
    cl_int code;
    const char *source = p->source;
    cl_program program = clCreateProgramWithSource(ctx->cl, 1, &source, NULL, &code);
    if (code)
        return false;
    bool ran = !build_failed(program, ctx->device) && run_kernel(ctx, program, runs, seen);
    clReleaseProgram(program);
    return ran;
}

static bool run_probe(cldsa_context *ctx, const probe *p) {
    outcome seen;
    return could_run(ctx, p, 1, &seen) && seen.word == p->expected;
}

static bool loops_end_early(cldsa_context *ctx) {
    outcome seen;
    return could_run(ctx, &loops_probe, 1, &seen) && seen.word != loops_probe.expected;
}

static int lockstep_width(cldsa_context *ctx) {
    static const probe plain = {"__kernel void probe(__global uint *out) { out[get_global_id(0)] = 1u; }\n", 1, NULL};
    outcome seen;
    could_run(ctx, &plain, 1, &seen);
    return (int)seen.multiple;
}

/* In software it takes ten times as long or more; the fastest of several runs, as others may use the device. */
static bool fma_is_slow(cldsa_context *ctx) {
    enum { RUNS = 5 };
    outcome fma, mad;
    return could_run(ctx, &mad_probe, RUNS, &mad) && mad.word == mad_probe.expected &&
           could_run(ctx, &fma_probe, RUNS, &fma) && fma.seconds > 4.0 * mad.seconds;
}

/* Does a __local array of this many bytes compile, launch and read back right? */
static bool local_memory_works(cldsa_context *ctx, size_t bytes) {
    char source[640];
    snprintf(
        source, sizeof source,
        "__kernel void probe(__global uint *out) {\n"
        "    __local uint s[%zu];\n"
        "    for (uint i = get_local_id(0); i < %zuu; i += 64u) s[i] = i;\n"
        "    barrier(CLK_LOCAL_MEM_FENCE);\n"
        "    uint sum = 0u;\n"
        "    for (uint i = get_local_id(0); i < %zuu; i += 64u) sum += s[%zuu - 1u - i] == %zuu - 1u - i ? 0u : 1u;\n"
        "    out[get_global_id(0)] = sum + 13u;\n"
        "}\n",
        bytes / 4, bytes / 4, bytes / 4, bytes / 4, bytes / 4);
    return run_probe(ctx, &(probe){source, 13, NULL});
}

static void probe_local_memory(cldsa_context *ctx) {
    cldsa_capabilities *caps = &ctx->caps;
    caps->local_mem_bytes = (size_t)ctx->info.local_mem_bytes;
    if (!caps->nv_ptx) /* elsewhere more than advertised is an error, at times one that only shows later */
        return;
    static const size_t sizes[] = {227, 192, 160, 128, 96, 64};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i)
        if (sizes[i] * 1024 > caps->local_mem_bytes && local_memory_works(ctx, sizes[i] * 1024 - 16)) {
            caps->local_mem_bytes = sizes[i] * 1024 - 16;
            return;
        }
}

static int native_vector_width(cl_device_id device) {
    cl_uint width = 1;
    clGetDeviceInfo(device, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, sizeof width, &width, NULL);
    return width >= 16 ? 16 : width >= 8 ? 8 : 4;
}

/* Of cl_intel_required_subgroup_size: the smallest size in the device's list. */
static int fewest_lanes(cl_device_id device) {
    enum { SUB_GROUP_SIZES_INTEL = 0x4108, MOST = 16 };
    size_t sizes[MOST], bytes = 0, fewest = 0;
    if (clGetDeviceInfo(device, SUB_GROUP_SIZES_INTEL, sizeof sizes, sizes, &bytes) != CL_SUCCESS)
        return 0;
    for (size_t i = 0; i < bytes / sizeof *sizes; ++i)
        if (fewest == 0 || sizes[i] < fewest)
            fewest = sizes[i];
    return (int)fewest;
}

/*
 * llvmpipe is of type CPU, but makes a vector of several work-items, as a GPU does. Kernels with vectors of their
 * own become one instruction for each component there, of which its compiler needs minutes and gigabytes.
 */
static bool runs_as_cpu(const cldsa_device_info *info) {
    return (info->type & CL_DEVICE_TYPE_CPU) && !cldsa_device_is_llvmpipe(info);
}

static void probe_all(cldsa_context *ctx) {
    cldsa_capabilities *caps = &ctx->caps;
    memset(caps, 0, sizeof *caps); /* padding too: the struct is cached as bytes */
    caps->is_cpu = runs_as_cpu(&ctx->info);
    caps->fp16 = run_probe(ctx, &fp16_probe);
    caps->fp64 = run_probe(ctx, &fp64_probe);
    caps->int64_atomics = run_probe(ctx, &atomics_probe);
    caps->sub_groups = run_probe(ctx, &sub_group_probe);
    caps->short_loops = loops_end_early(ctx);
    caps->slow_fma = fma_is_slow(ctx);
    caps->nv_ptx = strstr(ctx->info.vendor, "NVIDIA") && run_probe(ctx, &ptx_probe);
    caps->sub_group_size = caps->is_cpu ? 1 : lockstep_width(ctx);
    caps->vector_width = caps->is_cpu ? native_vector_width(ctx->device) : 1;
    caps->fewest_lanes = caps->is_cpu ? 0 : fewest_lanes(ctx->device);
    cl_bool unified = CL_FALSE;
    clGetDeviceInfo(ctx->device, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof unified, &unified, NULL);
    caps->unified_memory = unified == CL_TRUE;
    probe_local_memory(ctx);
}

cldsa_status cldsa_probe_capabilities(cldsa_context *ctx) {
    char key[64];
    snprintf(key, sizeof key, "capabilities %d/%zu", PROBE_VERSION, sizeof ctx->caps);
    unsigned char *data;
    size_t size;
    if (cldsa_cache_read(ctx, key, "", &data, &size)) {
        bool good = size == sizeof ctx->caps;
        if (good)
            memcpy(&ctx->caps, data, sizeof ctx->caps);
        free(data);
        if (good)
            return CLDSA_SUCCESS;
    }
    probe_all(ctx);
    cldsa_cache_write(ctx, key, "", (const unsigned char *)&ctx->caps, sizeof ctx->caps);
    return CLDSA_SUCCESS;
}
