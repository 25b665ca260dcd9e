/* Peaks of memory: reading and copying sets of every size, and local memory. */
#include "bench/peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GROUP = 256,               /* work-items per group on GPUs */
    GPU_ITEMS_PER_UNIT = 2048, /* enough to hide the latency of memory */
    CPU_LEAST_SET = 16384,     /* bytes per core */
    GPU_LEAST_SET = 1 << 20,
    MOST_PASSES = 1 << 20,
    LOCAL_QUADS = 1024, /* as the kernel's */
    LOCAL_GROUPS_PER_UNIT = 32
};

static const cl_uint word_factor = 2654435761u; /* as the kernels' */

static const double level_budget = 0.04;

/* Sets whose levels are all known end at this; caches beyond an eighth of it do not exist. */
static const double cpu_most_set = 256 << 20, gpu_most_set = 1 << 30;

typedef struct memory {
    peak_suite *suite;
    cldsa_kernel *read, *copy, *fill;
    cl_mem a, b, out; /* the copy's source and target, and a word per work-item */
    size_t most;      /* bytes of a, and of b */
    size_t items, local;
    cl_uint quads, passes; /* of one launch: vectors of four words per pass */
    cl_mem source, target; /* of the launch; target NULL: it reads */
} memory;

/* Sum of the first `count` words of a filled buffer, modulo 2^32. */
static cl_uint sum_of_words(uint64_t count) {
    uint64_t pairs = count % 2 ? (count - 1) / 2 * count : count / 2 * (count - 1);
    return (cl_uint)pairs * word_factor;
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

static cldsa_status enqueue(void *user, const cldsa_call *call) {
    memory *m = user;
    cldsa_stream stream;
    CLDSA_TRY(cldsa_stream_begin(&stream, m->suite->ctx, call, "peak"));
    cldsa_status status =
        CLDSA_ENQUEUE(&stream, m->target ? m->copy : m->read, 1, &m->items, &m->local, CLDSA_ARG_MEM(m->source),
                      CLDSA_ARG_MEM(m->target ? m->target : m->out), CLDSA_ARG_U32(m->quads), CLDSA_ARG_U32(m->passes));
    return cldsa_stream_end(&stream, status);
}

static bench_task task_of(memory *m) {
    return (bench_task){.enqueue = enqueue, .user = m, .call = {.queue = m->suite->queue}};
}

static cldsa_status fill_words(memory *m) {
    const cldsa_call call = {.queue = m->suite->queue};
    size_t global = m->suite->on_cpu ? m->suite->info->compute_units : (size_t)GROUP * 1024;
    size_t local = m->suite->on_cpu ? 1 : GROUP;
    cldsa_stream stream;
    CLDSA_TRY(cldsa_stream_begin(&stream, m->suite->ctx, &call, "peak"));
    cldsa_status status =
        CLDSA_ENQUEUE(&stream, m->fill, 1, &global, &local, CLDSA_ARG_MEM(m->a), CLDSA_ARG_U64(m->most / 4));
    return cldsa_stream_end(&stream, status);
}

/* ---- is it right ------------------------------------------------------------------------------------------------- */

static cldsa_status check_read(memory *m) {
    cl_uint *sums = malloc(m->items * sizeof *sums), sum = 0;
    cldsa_status status = sums ? peak_download(m->suite, m->out, m->items * sizeof *sums, sums)
                               : cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %zu sums", m->items);
    for (size_t i = 0; i < m->items && status == CLDSA_SUCCESS; ++i)
        sum += sums[i];
    free(sums);
    cl_uint want = sum_of_words(4ull * m->quads) * m->passes;
    if (status == CLDSA_SUCCESS && sum != want)
        status = cldsa_fail(CLDSA_CHECK_FAILED, "wrong: the words read sum to %u, want %u", sum, want);
    return status;
}

static cldsa_status check_copy(memory *m) {
    size_t bytes = 16 * (size_t)m->quads;
    cl_uint *words = malloc(bytes);
    cldsa_status status = words ? peak_download(m->suite, m->target, bytes, words)
                                : cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for a copy of %zu bytes", bytes);
    for (size_t e = 0; e < bytes / 4 && status == CLDSA_SUCCESS; ++e)
        if (words[e] != (cl_uint)e * word_factor)
            status = cldsa_fail(CLDSA_CHECK_FAILED, "wrong: word %zu of the copy is %u, want %u", e, words[e],
                                (cl_uint)e * word_factor);
    free(words);
    return status;
}

/* ---- one set ----------------------------------------------------------------------------------------------------- */

/* As many passes as keep the device busy for long enough that a launch does not count. */
static cldsa_status find_passes(memory *m) {
    bench_task task = task_of(m);
    double seconds, least = peak_launch_seconds(m->suite);
    m->passes = 1;
    CLDSA_TRY(peak_time_once(&task, &seconds));
    CLDSA_TRY(peak_time_once(&task, &seconds));
    while (seconds < least && m->passes < MOST_PASSES) {
        m->passes *= seconds < least / 8 ? 8 : 2;
        CLDSA_TRY(peak_time_once(&task, &seconds));
    }
    return CLDSA_SUCCESS;
}

static cldsa_status measure_set(memory *m, bench_peak_row *row, size_t bytes) {
    const peak_suite *suite = m->suite;
    size_t each = m->target ? bytes / 2 : bytes;
    m->quads = (cl_uint)(each / 16);
    m->local = suite->on_cpu ? 1 : GROUP;
    m->items = suite->on_cpu ? suite->info->compute_units : (size_t)suite->info->compute_units * GPU_ITEMS_PER_UNIT;
    if (m->items > m->quads)
        m->items = m->quads / m->local * m->local;
    if (suite->on_cpu) /* whole stretches of 64 bytes */
        m->quads = (cl_uint)(m->quads / (4 * m->items) * (4 * m->items));
    row->bytes = (double)bytes;
    CLDSA_TRY(find_passes(m));
    CLDSA_TRY(m->target ? check_copy(m) : check_read(m));
    bench_task task = task_of(m);
    CLDSA_TRY(peak_measure(m->suite, &task, level_budget, row));
    row->work = 16.0 * m->quads * m->passes * (m->target ? 2 : 1);
    snprintf(row->how, sizeof row->how, "%u passes", m->passes);
    return CLDSA_SUCCESS;
}

static double measure_one(memory *m, const char *name, cl_mem source, cl_mem target, size_t bytes,
                          cldsa_status before) {
    bench_peak_row *row = peak_row(m->suite, name, "B/s");
    m->source = source;
    m->target = target;
    peak_done(m->suite, row, before == CLDSA_SUCCESS ? measure_set(m, row, bytes) : before);
    return row->value;
}

/* ---- all sets ---------------------------------------------------------------------------------------------------- */

static size_t power_of_two_above(double value) {
    size_t power = 1;
    while ((double)power < value)
        power *= 2;
    return power;
}

static size_t largest_set(const peak_suite *suite) {
    cl_ulong cache = 0;
    clGetDeviceInfo(cldsa_context_device(suite->ctx), CL_DEVICE_GLOBAL_MEM_CACHE_SIZE, sizeof cache, &cache, NULL);
    double most = suite->on_cpu ? cpu_most_set : gpu_most_set, memory_bytes = (double)suite->info->global_mem_bytes;
    if (8.0 * (double)cache > most)
        most = 8.0 * (double)cache;
    most = (double)power_of_two_above(most);
    /* Two buffers of this size, of which copying uses half each. */
    while (most > memory_bytes / 8 || most > (double)suite->info->max_alloc_bytes)
        most /= 2;
    return (size_t)most;
}

static cldsa_status open_memory(memory *m) {
    peak_suite *suite = m->suite;
    const char *options = suite->on_cpu ? "-DBLOCKED=1" : "-DBLOCKED=0";
    m->most = largest_set(suite);
    CLDSA_TRY(cldsa_get_kernel(suite->ctx, "peak_memory.cl", "peak_fill", options, &m->fill));
    CLDSA_TRY(cldsa_get_kernel(suite->ctx, "peak_memory.cl", "peak_read", options, &m->read));
    CLDSA_TRY(cldsa_get_kernel(suite->ctx, "peak_memory.cl", "peak_copy", options, &m->copy));
    CLDSA_TRY(peak_buffer(suite, m->most, &m->a));
    CLDSA_TRY(peak_buffer(suite, m->most / 2, &m->b));
    CLDSA_TRY(peak_buffer(suite, (size_t)suite->info->compute_units * GPU_ITEMS_PER_UNIT * sizeof(cl_uint), &m->out));
    return fill_words(m);
}

static void close_memory(memory *m) {
    cl_mem buffers[] = {m->a, m->b, m->out};
    for (int i = 0; i < 3; ++i)
        if (buffers[i])
            clReleaseMemObject(buffers[i]);
}

/* A smaller set is never slower: what says so was disturbed. */
static void smooth(bench_peaks *peaks) {
    for (int i = peaks->num_levels - 2; i >= 0; --i)
        if (peaks->levels[i].bytes_per_second < peaks->levels[i + 1].bytes_per_second)
            peaks->levels[i].bytes_per_second = peaks->levels[i + 1].bytes_per_second;
}

static void measure_levels(memory *m) {
    peak_suite *suite = m->suite;
    bench_peaks *peaks = suite->peaks;
    cldsa_status status = open_memory(m);
    size_t least = suite->on_cpu ? (size_t)CPU_LEAST_SET * suite->info->compute_units : GPU_LEAST_SET;
    if (status != CLDSA_SUCCESS)
        least = m->most = power_of_two_above((double)least);
    for (size_t bytes = power_of_two_above((double)least); bytes <= m->most && peaks->num_levels < BENCH_MAX_LEVELS;
         bytes *= 2) {
        double read = measure_one(m, "read", m->a, NULL, bytes, status);
        double copied = measure_one(m, "copy", m->a, m->b, bytes, status);
        if (read > 0 || copied > 0)
            peaks->levels[peaks->num_levels++] = (bench_level){(double)bytes, read > copied ? read : copied};
    }
    smooth(peaks);
}

/* ---- local memory ------------------------------------------------------------------------------------------------ */

typedef struct local_memory {
    peak_suite *suite;
    cldsa_kernel *kernel;
    cl_mem out;
    size_t items, local;
    cl_uint passes;
} local_memory;

static cldsa_status enqueue_local(void *user, const cldsa_call *call) {
    local_memory *m = user;
    cldsa_stream stream;
    CLDSA_TRY(cldsa_stream_begin(&stream, m->suite->ctx, call, "peak"));
    cldsa_status status = CLDSA_ENQUEUE(&stream, m->kernel, 1, &m->items, &m->local, CLDSA_ARG_MEM(m->out),
                                        CLDSA_ARG_U32(word_factor), CLDSA_ARG_U32(m->passes));
    return cldsa_stream_end(&stream, status);
}

/* Every work-item has read all words passes / LOCAL_QUADS times. */
static cldsa_status check_local(const local_memory *m) {
    cl_uint *sums = malloc(m->items * sizeof *sums);
    cl_uint want = sum_of_words(4 * LOCAL_QUADS) * (m->passes / LOCAL_QUADS);
    cldsa_status status = sums ? peak_download(m->suite, m->out, m->items * sizeof *sums, sums)
                               : cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %zu sums", m->items);
    for (size_t i = 0; i < m->items && status == CLDSA_SUCCESS; ++i)
        if (sums[i] != want)
            status = cldsa_fail(CLDSA_CHECK_FAILED, "wrong: work-item %zu has the sum %u, want %u", i, sums[i], want);
    free(sums);
    return status;
}

static cldsa_status measure_local(local_memory *m, bench_peak_row *row) {
    peak_suite *suite = m->suite;
    cl_device_local_mem_type type = CL_LOCAL;
    clGetDeviceInfo(cldsa_context_device(suite->ctx), CL_DEVICE_LOCAL_MEM_TYPE, sizeof type, &type, NULL);
    if (type != CL_LOCAL)
        return cldsa_fail(CLDSA_UNSUPPORTED, "local memory is ordinary memory on this device");
    m->local = GROUP;
    m->items = (size_t)suite->info->compute_units * LOCAL_GROUPS_PER_UNIT * GROUP;
    m->passes = LOCAL_QUADS;
    CLDSA_TRY(peak_buffer(suite, m->items * sizeof(cl_uint), &m->out));
    CLDSA_TRY(cldsa_get_kernel(suite->ctx, "peak_memory.cl", "peak_local", "", &m->kernel));
    bench_task task = {.enqueue = enqueue_local, .user = m, .call = {.queue = suite->queue}};
    double seconds;
    CLDSA_TRY(peak_time_once(&task, &seconds));
    CLDSA_TRY(peak_time_once(&task, &seconds));
    while (seconds < peak_launch_seconds(suite) && m->passes < MOST_PASSES) {
        m->passes *= 2;
        CLDSA_TRY(peak_time_once(&task, &seconds));
    }
    CLDSA_TRY(check_local(m));
    CLDSA_TRY(peak_measure(suite, &task, level_budget, row));
    row->work = 16.0 * m->passes * (double)m->items;
    row->bytes = 16.0 * LOCAL_QUADS;
    snprintf(row->how, sizeof row->how, "%zu work-items", m->items);
    return CLDSA_SUCCESS;
}

void peak_memory(peak_suite *suite) {
    memory m = {.suite = suite};
    measure_levels(&m);
    close_memory(&m);
    if (!suite->options->whole)
        return;
    local_memory local = {.suite = suite};
    bench_peak_row *row = peak_row(suite, "local", "B/s");
    peak_done(suite, row, measure_local(&local, row));
    if (local.out)
        clReleaseMemObject(local.out);
}
