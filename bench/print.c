/* Rows as lines of a table. */
#include "bench/end_to_end.h"
#include "bench/peak.h"

#include <stdio.h>
#include <string.h>

/* ---- peaks ------------------------------------------------------------------------------------------------------- */

void bench_peak_head(void) {
    printf("%-18s %10s %12s %-8s %12s %6s  %s\n", "peak", "KiB", "best", "", "median", "runs", "how");
}

/* Billions per second, or microseconds. */
static double shown(const bench_peak_row *row, double seconds) {
    return row->work > 0 ? 1e-9 * row->work / seconds : 1e6 * seconds;
}

void bench_peak_row_print(const bench_peak_row *row) {
    printf("%-18s ", row->name);
    if (row->bytes > 0)
        printf("%10.0f ", row->bytes / 1024);
    else
        printf("%10s ", "");
    if (row->status != BENCH_OK) {
        printf("%s: %s\n", bench_status_names[row->status], row->reason);
        return;
    }
    char unit[16];
    snprintf(unit, sizeof unit, "%s%s", row->work > 0 ? "G" : "us", row->work > 0 ? row->unit : "");
    printf("%12.2f %-8s %12.2f %6zu  %s\n", shown(row, bench_samples_quantile(&row->samples, 0)), unit,
           shown(row, bench_samples_quantile(&row->samples, 0.5)), row->samples.count, row->how);
    fflush(stdout);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

void bench_ops_head(void) {
    printf("%-26s %-58s %-8s %9s %9s %9s %9s %8s %6s %-8s %9s %8s\n", "operation", "shape", "variant", "ms", "p10",
           "p90", "GFLOP/s", "GB/s", "roof %", "limit", "work MiB", "error");
}

/* Extents, parameters, and what else sets cases of one operation apart. */
static void describe(const bench_op_row *row, char *text, size_t size) {
    const cldsa_workload_spec *spec = &row->test->spec;
    char dtype[16];
    bench_op_row_dtype(row, dtype);
    bool masked = spec->give && strstr(spec->give, "mask");
    snprintf(text, size, "%s%s%s%s %s", spec->dims, spec->params ? " " : "", spec->params ? spec->params : "",
             masked ? " mask" : "", dtype);
}

static void print_peers(const bench_peer_result *peers, int count, const bench_samples *own, bool seconds) {
    for (int i = 0; i < count; ++i) {
        const bench_samples *samples = &peers[i].samples;
        if (!samples->count)
            printf("    %-24s %s: %s\n", peers[i].name, bench_status_names[peers[i].status], peers[i].reason);
        else if (seconds)
            printf("    %-24s %9.3f ms, cldsa %.2f x\n", peers[i].name, 1e3 * bench_samples_quantile(samples, 0.5),
                   bench_ratio(own, &peers[i].samples, true));
        else
            printf("    %-24s %9.0f tokens/s, cldsa %.2f x; peak %.0f MiB\n", peers[i].name,
                   bench_samples_quantile(samples, 0.5), bench_ratio(own, &peers[i].samples, false),
                   peers[i].peak_bytes / (1 << 20));
    }
}

void bench_op_row_print(const bench_op_row *row) {
    char shape[2 * BENCH_TEXT];
    describe(row, shape, sizeof shape);
    printf("%-26s %-58s %-8s", row->test->op, shape, row->variant);
    if (row->status != BENCH_OK) {
        printf(" %s: %s\n", bench_status_names[row->status], row->reason);
        return;
    }
    double median = bench_samples_quantile(&row->samples, 0.5);
    printf(" %9.3f %9.3f %9.3f %9.1f %8.1f", 1e3 * median, 1e3 * bench_samples_quantile(&row->samples, 0.1),
           1e3 * bench_samples_quantile(&row->samples, 0.9), 1e-9 * row->flops / median, 1e-9 * row->bytes / median);
    if (row->roofline.seconds > 0)
        printf(" %6.1f %-8s", row->roofline.percent, row->roofline.limit);
    else
        printf(" %6s %-8s", "-", "-");
    printf(" %9.1f %8.2g\n", (double)row->workspace / (1 << 20), row->error);
    if (row->default_samples.count)
        printf("    %-24s %9.3f ms, tuning gains %.2f x (%s)\n", "with defaults",
               1e3 * bench_samples_quantile(&row->default_samples, 0.5),
               bench_ratio(&row->samples, &row->default_samples, true), row->tuned_from);
    print_peers(row->peers, row->num_peers, &row->samples, true);
    for (size_t i = 0; i < row->num_kernels; ++i)
        printf("    %-60s %5llu x %10.3f ms\n", row->kernels[i].name, (unsigned long long)row->kernels[i].launches,
               1e3 * row->kernels[i].seconds);
    fflush(stdout);
}

/* ---- training ---------------------------------------------------------------------------------------------------- */

void bench_train_head(void) {
    printf("%6s %-10s %10s %10s %10s %12s %12s\n", "length", "variant", "tokens/s", "p10", "p90", "device MiB",
           "process MiB");
}

void bench_train_row_print(const bench_train_row *row) {
    printf("%6d %-10s", row->length, row->variant);
    if (row->status != BENCH_OK) {
        printf(" %s: %s\n", bench_status_names[row->status], row->reason);
        return;
    }
    printf(" %10.0f %10.0f %10.0f %12.1f %12.1f\n", bench_samples_quantile(&row->samples, 0.5),
           bench_samples_quantile(&row->samples, 0.1), bench_samples_quantile(&row->samples, 0.9),
           row->peak_device_bytes / (1 << 20), row->peak_rss_bytes / (1 << 20));
    print_peers(row->peers, row->num_peers, &row->samples, false);
    const cJSON *kernel;
    cJSON_ArrayForEach(kernel, row->kernels)
        printf("    %-60s %7.1f x %10.3f ms a step\n",
               cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(kernel, "kernel")),
               cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(kernel, "launches")),
               cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(kernel, "milliseconds")));
    fflush(stdout);
}

/* ---- sparse against dense ---------------------------------------------------------------------------------------- */

void bench_end_head(void) {
    printf("%-8s %8s %8s %6s %10s %10s %10s %10s %8s\n", "mode", "queries", "keys", "kept", "select ms", "attend ms",
           "sparse ms", "dense ms", "ratio");
}

void bench_end_row_print(const bench_end_row *row) {
    printf("%-8s %8lld %8lld %6lld", row->mode, (long long)row->s, (long long)row->t, (long long)row->k);
    if (row->status != BENCH_OK) {
        printf(" %s: %s\n", bench_status_names[row->status], row->reason);
        return;
    }
    const bench_samples *samples[] = {&row->select, &row->attend, &row->sparse, &row->dense};
    for (int i = 0; i < 4; ++i)
        printf(" %10.3f", 1e3 * bench_samples_quantile(samples[i], 0.5));
    printf(" %7.2fx\n", bench_ratio(&row->sparse, &row->dense, true));
    fflush(stdout);
}

void bench_crossover_print(const bench_crossover *crossover) {
    if (!crossover->to)
        printf("%s: nothing was measured\n", crossover->mode);
    else if (crossover->t)
        printf("%s: keeping %lld keys pays from T = %lld on (measured: %lld to %lld)\n", crossover->mode,
               (long long)crossover->k, (long long)crossover->t, (long long)crossover->from, (long long)crossover->to);
    else
        printf("%s: keeping %lld keys does not pay up to T = %lld\n", crossover->mode, (long long)crossover->k,
               (long long)crossover->to);
}
