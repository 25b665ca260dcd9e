/* How long nothing takes, and what host and device give each other. */
#include "bench/peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAUNCHES = 256, LEAST_REPEATS = 3, TRANSFER_MIB = 64, ROUNDS = 5 };

static const double budget = 0.15;

/* ---- launches ---------------------------------------------------------------------------------------------------- */

/* A kernel of one work-item that counts its launches. */
typedef struct counter {
    peak_suite *suite;
    cldsa_kernel *kernel;
    cl_mem count;
    cl_uint launches;
} counter;

static cldsa_status enqueue(void *user, const cldsa_call *call) {
    counter *c = user;
    const size_t one = 1;
    cldsa_stream stream;
    CLDSA_TRY(cldsa_stream_begin(&stream, c->suite->ctx, call, "peak"));
    cldsa_status status = CLDSA_ENQUEUE(&stream, c->kernel, 1, &one, &one, CLDSA_ARG_MEM(c->count));
    c->launches += status == CLDSA_SUCCESS;
    return cldsa_stream_end(&stream, status);
}

/* Many launches, then one clFinish: seconds per launch. */
static cldsa_status time_back_to_back(const bench_task *task, bench_samples *samples) {
    double begin = bench_now();
    for (int i = 0; i < LEAST_REPEATS || bench_now() - begin < budget / ROUNDS; ++i) {
        double start = bench_now(), last;
        for (int j = 1; j < LAUNCHES; ++j)
            CLDSA_TRY(task->enqueue(task->user, &task->call));
        CLDSA_TRY(peak_time_once(task, &last));
        bench_samples_add(samples, (bench_now() - start) / LAUNCHES);
    }
    return CLDSA_SUCCESS;
}

static cldsa_status open_counter(counter *c) {
    const cl_uint zero = 0;
    CLDSA_TRY(cldsa_get_kernel(c->suite->ctx, "peak_memory.cl", "peak_launch", "", &c->kernel));
    CLDSA_TRY(peak_buffer(c->suite, sizeof zero, &c->count));
    cl_int code = clEnqueueWriteBuffer(c->suite->queue, c->count, CL_TRUE, 0, sizeof zero, &zero, 0, NULL, NULL);
    return code ? cldsa_fail(code, "writing a counter: %s", cldsa_status_text(code)) : CLDSA_SUCCESS;
}

static cldsa_status check_count(const counter *c) {
    cl_uint count = 0;
    CLDSA_TRY(peak_download(c->suite, c->count, sizeof count, &count));
    return count == c->launches
               ? CLDSA_SUCCESS
               : cldsa_fail(CLDSA_CHECK_FAILED, "wrong: %u launches counted, %u made", count, c->launches);
}

static void measure_launch(counter *c, const char *name, const char *how, bool by_wall, bool back_to_back,
                           cldsa_status status) {
    peak_suite *suite = c->suite;
    bench_peak_row *row = peak_row(suite, name, "s");
    bench_task task = {.enqueue = enqueue, .user = c, .call = {.queue = suite->queue}};
    snprintf(row->how, sizeof row->how, "%s", how);
    if (status == CLDSA_SUCCESS)
        status = bench_warm_up(&task, budget / 4);
    /* Apart in time: what disturbs one round is gone in another. */
    for (int round = 0; round < ROUNDS && status == CLDSA_SUCCESS; ++round) {
        status = back_to_back ? time_back_to_back(&task, &row->samples)
                              : bench_measure(&task, by_wall, budget / ROUNDS, &row->samples);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    if (status == CLDSA_SUCCESS)
        status = check_count(c);
    peak_done(suite, row, status);
    /* The clock of the rows: see bench_measure. */
    if (!back_to_back && by_wall == suite->on_cpu)
        suite->peaks->launch = row->value;
}

void peak_launches(peak_suite *suite) {
    counter c = {.suite = suite};
    cldsa_status status = open_counter(&c);
    if (suite->options->whole)
        measure_launch(&c, "launch", "enqueued back to back, by the wall", true, true, status);
    if (suite->options->whole || suite->on_cpu)
        measure_launch(&c, "round trip", "enqueue to clFinish, by the wall", true, false, status);
    if (!suite->on_cpu)
        measure_launch(&c, "launch on device", "back to back, by the device's clock", false, false, status);
    if (c.count)
        clReleaseMemObject(c.count);
}

/* ---- transfers --------------------------------------------------------------------------------------------------- */

typedef struct transfer {
    peak_suite *suite;
    cl_mem device, pinned; /* `pinned`: memory of the host that the driver allocated */
    unsigned char *mapped, *ordinary;
    size_t bytes;
} transfer;

static cldsa_status open_transfer(transfer *t) {
    cl_int code;
    t->bytes = (size_t)TRANSFER_MIB << 20;
    t->ordinary = malloc(t->bytes);
    if (!t->ordinary)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %d MiB", TRANSFER_MIB);
    CLDSA_TRY(peak_buffer(t->suite, t->bytes, &t->device));
    t->pinned = clCreateBuffer(cldsa_context_cl(t->suite->ctx), CL_MEM_READ_WRITE | CL_MEM_ALLOC_HOST_PTR, t->bytes,
                               NULL, &code);
    if (!code)
        t->mapped = clEnqueueMapBuffer(t->suite->queue, t->pinned, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0, t->bytes, 0,
                                       NULL, NULL, &code);
    return code ? cldsa_fail(code, "host memory from the driver: %s", cldsa_status_text(code)) : CLDSA_SUCCESS;
}

static void close_transfer(transfer *t) {
    if (t->mapped)
        clEnqueueUnmapMemObject(t->suite->queue, t->pinned, t->mapped, 0, NULL, NULL);
    clFinish(t->suite->queue);
    if (t->pinned)
        clReleaseMemObject(t->pinned);
    if (t->device)
        clReleaseMemObject(t->device);
    free(t->ordinary);
}

/* What round `seed` sends: different bytes each time. */
static void paint(unsigned char *bytes, size_t count, unsigned seed) {
    for (size_t i = 0; i + sizeof(cl_uint) <= count; i += sizeof(cl_uint)) {
        cl_uint word = ((cl_uint)i + seed) * 2654435761u;
        memcpy(bytes + i, &word, sizeof word);
    }
}

static bool is_painted(const unsigned char *bytes, size_t count, unsigned seed) {
    for (size_t i = 0; i + sizeof(cl_uint) <= count; i += sizeof(cl_uint)) {
        cl_uint word;
        memcpy(&word, bytes + i, sizeof word);
        if (word != ((cl_uint)i + seed) * 2654435761u)
            return false;
    }
    return true;
}

/* There and back, each way timed; what comes back must be what went. */
static cldsa_status exchange(transfer *t, unsigned char *host, unsigned seed, bench_peak_row *there,
                             bench_peak_row *back) {
    paint(host, t->bytes, seed);
    for (int i = 0; i < LEAST_REPEATS; ++i) {
        double start = bench_now();
        cl_int code = clEnqueueWriteBuffer(t->suite->queue, t->device, CL_TRUE, 0, t->bytes, host, 0, NULL, NULL);
        if (code)
            return cldsa_fail(code, "writing to the device: %s", cldsa_status_text(code));
        bench_samples_add(&there->samples, bench_now() - start);
    }
    memset(host, 0, t->bytes);
    for (int i = 0; i < LEAST_REPEATS; ++i) {
        double start = bench_now();
        CLDSA_TRY(peak_download(t->suite, t->device, t->bytes, host));
        bench_samples_add(&back->samples, bench_now() - start);
    }
    return is_painted(host, t->bytes, seed)
               ? CLDSA_SUCCESS
               : cldsa_fail(CLDSA_CHECK_FAILED, "wrong: what came back is not what was sent");
}

void peak_transfers(peak_suite *suite) {
    transfer t = {.suite = suite};
    cldsa_status opened = open_transfer(&t);
    for (int pinned = 0; pinned < 2; ++pinned) {
        bench_peak_row *there = peak_row(suite, pinned ? "to device, pinned" : "to device", "B/s");
        bench_peak_row *back = peak_row(suite, pinned ? "to host, pinned" : "to host", "B/s");
        cldsa_status status = opened;
        there->work = back->work = there->bytes = back->bytes = (double)t.bytes;
        if (status == CLDSA_SUCCESS)
            status = exchange(&t, pinned ? t.mapped : t.ordinary, (unsigned)pinned + 1, there, back);
        peak_done(suite, there, status);
        peak_done(suite, back, status);
    }
    close_transfer(&t);
}
