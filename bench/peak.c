/* The suite of peaks: what is measured in which order, and what it bounds. */
#include "bench/peak.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- rows -------------------------------------------------------------------------------------------------------- */

bench_peak_row *peak_row(peak_suite *suite, const char *name, const char *unit) {
    static bench_peak_row lost;
    bench_peaks *peaks = suite->peaks;
    bench_peak_row *row = peaks->num_rows < BENCH_MAX_PEAK_ROWS ? calloc(1, sizeof *row) : NULL;
    if (row)
        peaks->rows[peaks->num_rows++] = row;
    else
        row = &lost;
    *row = (bench_peak_row){.unit = unit};
    snprintf(row->name, sizeof row->name, "%s", name);
    return row;
}

void peak_done(peak_suite *suite, bench_peak_row *row, cldsa_status status) {
    row->status = bench_status_of(status);
    if (status == CLDSA_SUCCESS) {
        double best = bench_samples_quantile(&row->samples, 0);
        row->value = row->work > 0 ? row->work / best : best;
    } else {
        snprintf(row->reason, sizeof row->reason, "%.*s", BENCH_TEXT - 1, cldsa_error_message());
        bench_samples_free(&row->samples);
    }
    if (suite->options->row)
        suite->options->row(suite->options->user, row);
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

cldsa_status peak_time_once(const bench_task *task, double *seconds) {
    double start = bench_now();
    CLDSA_TRY(task->enqueue(task->user, &task->call));
    cl_int code = clFinish(task->call.queue);
    *seconds = bench_now() - start;
    return code ? cldsa_fail(code, "clFinish: %s", cldsa_status_text(code)) : CLDSA_SUCCESS;
}

cldsa_status peak_measure(peak_suite *suite, const bench_task *task, double budget, bench_peak_row *row) {
    CLDSA_TRY(bench_warm_up(task, budget / 4));
    return bench_measure(task, suite->on_cpu, budget, &row->samples);
}

cldsa_status peak_buffer(peak_suite *suite, size_t bytes, cl_mem *out) {
    cl_int code;
    *out = clCreateBuffer(cldsa_context_cl(suite->ctx), CL_MEM_READ_WRITE, bytes, NULL, &code);
    return code ? cldsa_fail(code, "a buffer of %.0f MiB: %s", (double)bytes / (1 << 20), cldsa_status_text(code))
                : CLDSA_SUCCESS;
}

cldsa_status peak_download(peak_suite *suite, cl_mem buffer, size_t bytes, void *to) {
    cl_int code = clEnqueueReadBuffer(suite->queue, buffer, CL_TRUE, 0, bytes, to, 0, NULL, NULL);
    return code ? cldsa_fail(code, "reading a result: %s", cldsa_status_text(code)) : CLDSA_SUCCESS;
}

double peak_launch_seconds(const peak_suite *suite) {
    return suite->on_cpu ? 8e-3 : 2e-3;
}

/* ---- the suite --------------------------------------------------------------------------------------------------- */

cldsa_status bench_peaks_measure(cldsa_context *ctx, const bench_peak_options *options, bench_peaks *peaks) {
    *peaks = (bench_peaks){0};
    peak_suite suite = {.ctx = ctx,
                        .caps = cldsa_context_capabilities(ctx),
                        .info = cldsa_context_device_info(ctx),
                        .options = options,
                        .peaks = peaks};
    suite.on_cpu = suite.caps->is_cpu;
    cl_int code;
    suite.queue =
        clCreateCommandQueue(cldsa_context_cl(ctx), cldsa_context_device(ctx), CL_QUEUE_PROFILING_ENABLE, &code);
    if (code)
        return cldsa_fail(code, "clCreateCommandQueue: %s", cldsa_status_text(code));
    peak_compute(&suite, true);
    peak_memory(&suite);
    peak_launches(&suite);
    if (options->whole)
        peak_transfers(&suite);
    peak_compute(&suite, false);
    bench_samples_free(&suite.early.samples);
    clReleaseCommandQueue(suite.queue);
    return CLDSA_SUCCESS;
}

void bench_peaks_free(bench_peaks *peaks) {
    for (int i = 0; i < peaks->num_rows; ++i) {
        bench_samples_free(&peaks->rows[i]->samples);
        free(peaks->rows[i]);
    }
    *peaks = (bench_peaks){0};
}

/* ---- the roofline ------------------------------------------------------------------------------------------------ */

/* Between two measured sizes: along a straight line of logarithms, as caches fade into each other. */
static double bandwidth_for(const bench_peaks *peaks, double working_set) {
    const bench_level *levels = peaks->levels;
    int i = 0;
    while (i < peaks->num_levels && levels[i].bytes < working_set)
        ++i;
    if (i == 0 || i == peaks->num_levels)
        return peaks->num_levels ? levels[i ? i - 1 : 0].bytes_per_second : 0;
    double part = log(working_set / levels[i - 1].bytes) / log(levels[i].bytes / levels[i - 1].bytes);
    return levels[i - 1].bytes_per_second * pow(levels[i].bytes_per_second / levels[i - 1].bytes_per_second, part);
}

bench_roofline bench_roofline_of(const bench_peaks *peaks, double flops, double bytes, double working_set,
                                 double median) {
    bench_roofline line = {.limit = "launch", .bytes_per_second = bandwidth_for(peaks, working_set)};
    if (!(peaks->flops > 0 && line.bytes_per_second > 0 && peaks->launch > 0))
        return line;
    double compute = flops / peaks->flops, memory = bytes / line.bytes_per_second;
    line.seconds = peaks->launch;
    if (memory > line.seconds) {
        line.seconds = memory;
        line.limit = "memory";
    }
    if (compute > line.seconds) {
        line.seconds = compute;
        line.limit = "compute";
    }
    line.percent = median > 0 ? 100 * line.seconds / median : 0;
    return line;
}
