/* Rows as lines of a table and as JSON. docs/performance.md documents the JSON. */
#include "bench/bench.h"

#include <cldsa/cldsa.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

cJSON *bench_system_json(cldsa_context *ctx) {
    const cldsa_device_info *info = cldsa_context_device_info(ctx);
    cJSON *out = cJSON_CreateObject();
    char text[BENCH_TEXT];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    cJSON_AddStringToObject(out, "date", text);
    snprintf(text, sizeof text, "%d.%d.%d", CLDSA_VERSION_MAJOR, CLDSA_VERSION_MINOR, CLDSA_VERSION_PATCH);
    cJSON_AddStringToObject(out, "cldsa", text);
    cJSON_AddStringToObject(out, "platform", info->platform_name);
    cJSON_AddStringToObject(out, "device", info->name);
    cJSON_AddStringToObject(out, "vendor", info->vendor);
    cJSON_AddStringToObject(out, "driver", info->driver);
    cJSON_AddStringToObject(out, "opencl", info->version);
    cJSON_AddNumberToObject(out, "compute_units", info->compute_units);
    cJSON_AddNumberToObject(out, "max_clock_mhz", info->max_clock_mhz);
    cJSON_AddNumberToObject(out, "global_mem_bytes", (double)info->global_mem_bytes);
    return out;
}

/* At most BENCH_KEPT_SAMPLES of them, evenly spaced in time, to six digits: what a comparison draws its intervals from. */
static void add_values(cJSON *out, const bench_samples *samples) {
    cJSON *values = cJSON_AddArrayToObject(out, "values");
    size_t kept = samples->count < BENCH_KEPT_SAMPLES ? samples->count : BENCH_KEPT_SAMPLES;
    for (size_t i = 0; i < kept; ++i) {
        char text[32];
        snprintf(text, sizeof text, "%.6g", samples->values[i * samples->count / kept]);
        cJSON_AddItemToArray(values, cJSON_CreateNumber(strtod(text, NULL)));
    }
}

static void add_samples(cJSON *out, const bench_samples *samples) {
    cJSON_AddNumberToObject(out, "median", bench_samples_quantile(samples, 0.5));
    cJSON_AddNumberToObject(out, "p10", bench_samples_quantile(samples, 0.1));
    cJSON_AddNumberToObject(out, "p90", bench_samples_quantile(samples, 0.9));
    cJSON_AddNumberToObject(out, "samples", (double)samples->count);
    add_values(out, samples);
}

static void add_status(cJSON *out, bench_status status, const char *reason) {
    cJSON_AddStringToObject(out, "status", bench_status_names[status]);
    if (*reason)
        cJSON_AddStringToObject(out, "reason", reason);
}

/* How much better cldsa is: more than 1 is. */
static double ratio(const bench_samples *own, const bench_samples *peer, bool less_is_better) {
    double ours = bench_samples_quantile(own, 0.5), theirs = bench_samples_quantile(peer, 0.5);
    return less_is_better ? theirs / ours : ours / theirs;
}

static void add_peers(cJSON *out, const bench_peer_result *peers, int count, const bench_samples *own, bool seconds) {
    cJSON *list = cJSON_AddArrayToObject(out, "peers");
    for (int i = 0; i < count; ++i) {
        cJSON *peer = cJSON_CreateObject();
        cJSON_AddStringToObject(peer, "peer", peers[i].name);
        add_status(peer, peers[i].status, peers[i].reason);
        if (peers[i].samples.count) {
            cJSON *time = cJSON_AddObjectToObject(peer, seconds ? "seconds" : "tokens_per_second");
            add_samples(time, &peers[i].samples);
            if (own->count)
                cJSON_AddNumberToObject(peer, "ratio", ratio(own, &peers[i].samples, seconds));
        }
        if (isfinite(peers[i].peak_bytes))
            cJSON_AddNumberToObject(peer, "peak_bytes", peers[i].peak_bytes);
        cJSON_AddItemToArray(list, peer);
    }
}

static const char *or_empty(const char *text) {
    return text ? text : "";
}

cJSON *bench_op_row_json(const bench_op_row *row) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "suite", "ops");
    cJSON_AddStringToObject(out, "op", row->test->op);
    cJSON_AddStringToObject(out, "shape", row->test->spec.dims);
    cJSON_AddStringToObject(out, "params", or_empty(row->test->spec.params));
    cJSON_AddStringToObject(out, "give", or_empty(row->test->spec.give));
    cJSON_AddStringToObject(out, "dtypes", or_empty(row->test->spec.dtypes));
    add_status(out, row->status, row->reason);
    cJSON_AddStringToObject(out, "variant", row->variant);
    cJSON_AddStringToObject(out, "tunables", row->tunables);
    if (row->samples.count) {
        double median = bench_samples_quantile(&row->samples, 0.5);
        add_samples(cJSON_AddObjectToObject(out, "seconds"), &row->samples);
        cJSON_AddNumberToObject(out, "gflops", 1e-9 * row->flops / median);
        cJSON_AddNumberToObject(out, "gbytes_per_second", 1e-9 * row->bytes / median);
        cJSON_AddNumberToObject(out, "error_of_allowed", row->error);
        cJSON_AddNumberToObject(out, "worst_abs_error", row->worst_abs);
        cJSON_AddStringToObject(out, "checked_at", row->checked);
    }
    cJSON_AddNumberToObject(out, "workspace_bytes", (double)row->workspace);
    add_peers(out, row->peers, row->num_peers, &row->samples, true);
    if (row->kernels) {
        cJSON *kernels = cJSON_AddArrayToObject(out, "kernels");
        for (size_t i = 0; i < row->num_kernels; ++i) {
            cJSON *kernel = cJSON_CreateObject();
            cJSON_AddStringToObject(kernel, "kernel", row->kernels[i].name);
            cJSON_AddNumberToObject(kernel, "launches", (double)row->kernels[i].launches);
            cJSON_AddNumberToObject(kernel, "milliseconds", 1e3 * row->kernels[i].seconds);
            cJSON_AddItemToArray(kernels, kernel);
        }
    }
    return out;
}

cJSON *bench_train_row_json(const bench_train_row *row) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "suite", "train");
    cJSON_AddNumberToObject(out, "length", row->length);
    cJSON_AddStringToObject(out, "variant", row->variant);
    add_status(out, row->status, row->reason);
    if (row->samples.count) {
        add_samples(cJSON_AddObjectToObject(out, "tokens_per_second"), &row->samples);
        cJSON_AddNumberToObject(out, "first_loss", row->first_loss);
        cJSON_AddNumberToObject(out, "last_loss", row->last_loss);
        cJSON_AddNumberToObject(out, "peak_device_bytes", row->peak_device_bytes);
        cJSON_AddNumberToObject(out, "peak_rss_bytes", row->peak_rss_bytes);
    }
    add_peers(out, row->peers, row->num_peers, &row->samples, false);
    if (row->kernels)
        cJSON_AddItemToObject(out, "kernels", cJSON_Duplicate(row->kernels, true));
    return out;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

void bench_ops_head(void) {
    printf("%-26s %-58s %-8s %9s %9s %9s %9s %8s %9s %8s\n", "operation", "shape", "variant", "ms", "p10", "p90",
           "GFLOP/s", "GB/s", "work MiB", "error");
}

/* Extents, parameters, and what else sets cases of one operation apart. */
static void describe(const bench_op_row *row, char *text, size_t size) {
    const cldsa_workload_spec *spec = &row->test->spec;
    const char *dtype = spec->dtypes ? strchr(spec->dtypes, '=') + 1 : "F32";
    bool masked = spec->give && strstr(spec->give, "mask");
    snprintf(text, size, "%s%s%s%s %.*s", spec->dims, spec->params ? " " : "", or_empty(spec->params),
             masked ? " mask" : "", (int)strcspn(dtype, " "), dtype);
}

static void print_peers(const bench_peer_result *peers, int count, const bench_samples *own, bool seconds) {
    for (int i = 0; i < count; ++i) {
        const bench_samples *samples = &peers[i].samples;
        if (!samples->count)
            printf("    %-24s %s: %s\n", peers[i].name, bench_status_names[peers[i].status], peers[i].reason);
        else if (seconds)
            printf("    %-24s %9.3f ms, cldsa %.2f x\n", peers[i].name, 1e3 * bench_samples_quantile(samples, 0.5),
                   ratio(own, &peers[i].samples, true));
        else
            printf("    %-24s %9.0f tokens/s, cldsa %.2f x; peak %.0f MiB\n", peers[i].name,
                   bench_samples_quantile(samples, 0.5), ratio(own, &peers[i].samples, false),
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
    printf(" %9.3f %9.3f %9.3f %9.1f %8.1f %9.1f %8.2g\n", 1e3 * median,
           1e3 * bench_samples_quantile(&row->samples, 0.1), 1e3 * bench_samples_quantile(&row->samples, 0.9),
           1e-9 * row->flops / median, 1e-9 * row->bytes / median, (double)row->workspace / (1 << 20), row->error);
    print_peers(row->peers, row->num_peers, &row->samples, true);
    for (size_t i = 0; i < row->num_kernels; ++i)
        printf("    %-60s %5llu x %10.3f ms\n", row->kernels[i].name, (unsigned long long)row->kernels[i].launches,
               1e3 * row->kernels[i].seconds);
    fflush(stdout);
}

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
               or_empty(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(kernel, "kernel"))),
               cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(kernel, "launches")),
               cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(kernel, "milliseconds")));
    fflush(stdout);
}
