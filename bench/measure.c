/* Timing one task: warm-up, repeats within a budget, robust statistics. */
#include "bench/bench.h"

#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LEAST_REPEATS = 3, MOST_REPEATS = 1000, LONGEST_BURST = 64 };

/* A burst is read back after about this long, so that the budget is kept. */
static const double burst_seconds = 0.05;

const char *const bench_status_names[] = {"ok", "unsupported", "skipped", "error", NULL};

bench_status bench_status_of(cldsa_status status) {
    switch (status) {
    case CLDSA_SUCCESS:
        return BENCH_OK;
    case CLDSA_UNSUPPORTED:
        return BENCH_UNSUPPORTED;
    case CLDSA_OUT_OF_MEMORY:
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_INVALID_BUFFER_SIZE:
        return BENCH_SKIPPED;
    default:
        return BENCH_ERROR;
    }
}

double bench_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void bench_samples_add(bench_samples *samples, double value) {
    if (samples->count == samples->capacity) {
        size_t capacity = samples->capacity ? 2 * samples->capacity : 64;
        double *grown = realloc(samples->values, capacity * sizeof *grown);
        if (!grown)
            return;
        samples->values = grown;
        samples->capacity = capacity;
    }
    samples->values[samples->count++] = value;
}

double bench_samples_quantile(const bench_samples *samples, double p) {
    if (!samples->count)
        return NAN;
    double *sorted = malloc(samples->count * sizeof *sorted);
    if (!sorted)
        return NAN;
    memcpy(sorted, samples->values, samples->count * sizeof *sorted);
    gsl_sort(sorted, 1, samples->count);
    double quantile = gsl_stats_quantile_from_sorted_data(sorted, 1, samples->count, p);
    free(sorted);
    return quantile;
}

void bench_samples_free(bench_samples *samples) {
    free(samples->values);
    *samples = (bench_samples){0};
}

static cldsa_status finish(const bench_task *task) {
    cl_int code = clFinish(task->call.queue);
    return code ? cldsa_fail(code, "clFinish: %s", cldsa_status_text(code)) : CLDSA_SUCCESS;
}

static cldsa_status run_once(const bench_task *task) {
    CLDSA_TRY(task->enqueue(task->user, &task->call));
    return finish(task);
}

cldsa_status bench_warm_up(const bench_task *task, double seconds) {
    CLDSA_TRY(run_once(task)); /* builds */
    double start = bench_now();
    for (int i = 0; i < MOST_REPEATS && bench_now() - start < seconds; ++i)
        CLDSA_TRY(run_once(task));
    return CLDSA_SUCCESS;
}

static cldsa_status measure_wall(const bench_task *task, double budget, bench_samples *samples) {
    double begin = bench_now();
    for (int i = 0; i < MOST_REPEATS && (i < LEAST_REPEATS || bench_now() - begin < budget); ++i) {
        double start = bench_now();
        CLDSA_TRY(run_once(task));
        bench_samples_add(samples, bench_now() - start);
    }
    return CLDSA_SUCCESS;
}

static cldsa_status event_end(cl_event event, double *seconds) {
    cl_ulong end = 0;
    cl_int code = clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof end, &end, NULL);
    *seconds = 1e-9 * (double)end;
    return code ? cldsa_fail(code, "reading an event's time: %s", cldsa_status_text(code)) : CLDSA_SUCCESS;
}

/* `count` + 1 runs without pause: the first gives the start of the second's time. */
static cldsa_status measure_burst(const bench_task *task, int count, bench_samples *samples) {
    cl_event events[LONGEST_BURST + 1];
    int made = 0;
    cldsa_status status = CLDSA_SUCCESS;
    while (made <= count && status == CLDSA_SUCCESS) {
        cldsa_call call = task->call;
        call.event = &events[made];
        status = task->enqueue(task->user, &call);
        made += status == CLDSA_SUCCESS;
    }
    cldsa_status finished = finish(task);
    status = status == CLDSA_SUCCESS ? finished : status;
    double last = 0;
    for (int i = 0; i < made; ++i) {
        double end = 0;
        if (status == CLDSA_SUCCESS)
            status = event_end(events[i], &end);
        if (i && status == CLDSA_SUCCESS)
            bench_samples_add(samples, end - last);
        last = end;
        clReleaseEvent(events[i]);
    }
    return status;
}

/* Some drivers count events instead of timing them (llvmpipe): next to the wall's time, theirs is none. */
static bool tells_time(const bench_samples *samples, size_t first, double wall) {
    double device = 0;
    for (size_t i = first; i < samples->count; ++i)
        device += samples->values[i];
    return device > 1e-3 * wall;
}

static cldsa_status measure_events(const bench_task *task, double budget, bench_samples *samples) {
    double begin = bench_now();
    const size_t first = samples->count;
    int count = LEAST_REPEATS;
    for (int total = 0; total < MOST_REPEATS && (total == 0 || bench_now() - begin < budget); total += count) {
        double start = bench_now();
        CLDSA_TRY(measure_burst(task, count, samples));
        double wall = bench_now() - start;
        if (!tells_time(samples, first, wall)) {
            samples->count = first;
            return measure_wall(task, budget, samples);
        }
        double each = wall / (count + 1), fitting = burst_seconds / (each > 0 ? each : burst_seconds);
        count = fitting < 1 ? 1 : fitting > LONGEST_BURST ? LONGEST_BURST : (int)fitting;
    }
    return CLDSA_SUCCESS;
}

cldsa_status bench_measure(const bench_task *task, bool on_cpu, double budget, bench_samples *samples) {
    return on_cpu ? measure_wall(task, budget, samples) : measure_events(task, budget, samples);
}
