/* Rows as JSON; docs/bench-schema.md says what the keys mean. */
#include "bench/end_to_end.h"
#include "bench/peak.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bench_op_row_dtype(const bench_op_row *row, char dtype[16]) {
    snprintf(dtype, 16, "F32");
    for (const char *at = row->test->spec.dtypes; at && (at = strchr(at, '='));) {
        size_t length = strcspn(++at, " ");
        if (*at == 'U' || length >= 16) /* a mask's words */
            continue;
        snprintf(dtype, 16, "%.*s", (int)length, at);
        return;
    }
}

/* At most BENCH_KEPT_SAMPLES of them, evenly spaced in time, to six digits: what a comparison draws its intervals from.
 */
static void add_values(cJSON *out, const bench_samples *samples) {
    cJSON *values = cJSON_AddArrayToObject(out, "values");
    size_t kept = samples->count < BENCH_KEPT_SAMPLES ? samples->count : BENCH_KEPT_SAMPLES;
    for (size_t i = 0; i < kept; ++i) {
        char text[32];
        snprintf(text, sizeof text, "%.6g", samples->values[i * samples->count / kept]);
        cJSON_AddItemToArray(values, cJSON_CreateNumber(strtod(text, NULL)));
    }
}

cJSON *bench_statistics_json(const bench_samples *samples) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "median", bench_samples_quantile(samples, 0.5));
    cJSON_AddNumberToObject(out, "p10", bench_samples_quantile(samples, 0.1));
    cJSON_AddNumberToObject(out, "p90", bench_samples_quantile(samples, 0.9));
    cJSON_AddNumberToObject(out, "samples", (double)samples->count);
    add_values(out, samples);
    return out;
}

void bench_add_status(cJSON *row, bench_status status, const char *reason) {
    cJSON_AddStringToObject(row, "status", bench_status_names[status]);
    if (status != BENCH_OK || *reason)
        cJSON_AddStringToObject(row, "reason", reason);
}

double bench_ratio(const bench_samples *own, const bench_samples *peer, bool less_is_better) {
    double ours = bench_samples_quantile(own, 0.5), theirs = bench_samples_quantile(peer, 0.5);
    return less_is_better ? theirs / ours : ours / theirs;
}

static void add_peers(cJSON *out, const bench_peer_result *peers, int count, const bench_samples *own, bool seconds) {
    cJSON *list = cJSON_AddArrayToObject(out, "peers");
    for (int i = 0; i < count; ++i) {
        cJSON *peer = cJSON_CreateObject();
        cJSON_AddStringToObject(peer, "peer", peers[i].name);
        bench_add_status(peer, peers[i].status, peers[i].reason);
        if (peers[i].samples.count) {
            cJSON_AddItemToObject(peer, seconds ? "seconds" : "tokens_per_second",
                                  bench_statistics_json(&peers[i].samples));
            if (own->count)
                cJSON_AddNumberToObject(peer, "ratio", bench_ratio(own, &peers[i].samples, seconds));
        }
        if (isfinite(peers[i].peak_bytes))
            cJSON_AddNumberToObject(peer, "peak_bytes", peers[i].peak_bytes);
        cJSON_AddItemToArray(list, peer);
    }
}

static const char *or_empty(const char *text) {
    return text ? text : "";
}

static cJSON *roofline_json(const bench_op_row *row) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "seconds", row->roofline.seconds);
    cJSON_AddStringToObject(out, "limit", row->roofline.limit);
    cJSON_AddNumberToObject(out, "percent", row->roofline.percent);
    cJSON_AddNumberToObject(out, "bytes_per_second", row->roofline.bytes_per_second);
    cJSON_AddNumberToObject(out, "working_set_bytes", row->working_set);
    return out;
}

static cJSON *tuning_json(const bench_op_row *row) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "match", row->tuning);
    cJSON_AddStringToObject(out, "from", row->tuned_from);
    return out;
}

static cJSON *default_json(const bench_op_row *row) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "variant", row->default_variant);
    cJSON_AddStringToObject(out, "tunables", row->default_tunables);
    cJSON_AddItemToObject(out, "seconds", bench_statistics_json(&row->default_samples));
    return out;
}

cJSON *bench_op_row_json(const bench_op_row *row) {
    char dtype[16];
    bench_op_row_dtype(row, dtype);
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "suite", "ops");
    cJSON_AddStringToObject(out, "op", row->test->op);
    cJSON_AddStringToObject(out, "shape", row->test->spec.dims);
    cJSON_AddStringToObject(out, "params", or_empty(row->test->spec.params));
    cJSON_AddStringToObject(out, "give", or_empty(row->test->spec.give));
    cJSON_AddStringToObject(out, "dtypes", or_empty(row->test->spec.dtypes));
    cJSON_AddStringToObject(out, "dtype", dtype);
    bench_add_status(out, row->status, row->reason);
    cJSON_AddStringToObject(out, "variant", row->variant);
    cJSON_AddStringToObject(out, "tunables", row->tunables);
    if (*row->tuning)
        cJSON_AddItemToObject(out, "tuning", tuning_json(row));
    if (row->samples.count) {
        double median = bench_samples_quantile(&row->samples, 0.5);
        cJSON_AddItemToObject(out, "seconds", bench_statistics_json(&row->samples));
        cJSON_AddNumberToObject(out, "gflops", 1e-9 * row->flops / median);
        cJSON_AddNumberToObject(out, "gbytes_per_second", 1e-9 * row->bytes / median);
        if (row->roofline.seconds > 0)
            cJSON_AddItemToObject(out, "roofline", roofline_json(row));
        cJSON_AddNumberToObject(out, "error_of_allowed", row->error);
        cJSON_AddNumberToObject(out, "worst_abs_error", row->worst_abs);
        cJSON_AddStringToObject(out, "checked_at", row->checked);
    }
    if (row->default_samples.count) {
        cJSON_AddItemToObject(out, "default", default_json(row));
        cJSON_AddNumberToObject(out, "gain", bench_ratio(&row->samples, &row->default_samples, true));
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

cJSON *bench_peak_row_json(const bench_peak_row *row) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "suite", "peak");
    cJSON_AddStringToObject(out, "name", row->name);
    cJSON_AddStringToObject(out, "unit", row->unit);
    cJSON_AddNumberToObject(out, "bytes", row->bytes);
    cJSON_AddStringToObject(out, "how", row->how);
    bench_add_status(out, row->status, row->reason);
    if (row->status == BENCH_OK) {
        cJSON_AddNumberToObject(out, "value", row->value);
        cJSON_AddItemToObject(out, "seconds", bench_statistics_json(&row->samples));
    }
    return out;
}

cJSON *bench_peaks_json(const bench_peaks *peaks) {
    if (!(peaks->flops > 0 && peaks->launch > 0 && peaks->num_levels > 0))
        return cJSON_CreateNull();
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "f32_flops_per_second", peaks->flops);
    cJSON_AddNumberToObject(out, "launch_seconds", peaks->launch);
    cJSON *levels = cJSON_AddArrayToObject(out, "levels");
    for (int i = 0; i < peaks->num_levels; ++i) {
        cJSON *level = cJSON_CreateObject();
        cJSON_AddNumberToObject(level, "bytes", peaks->levels[i].bytes);
        cJSON_AddNumberToObject(level, "bytes_per_second", peaks->levels[i].bytes_per_second);
        cJSON_AddItemToArray(levels, level);
    }
    return out;
}

static void add_timed(cJSON *out, const char *name, const bench_samples *samples) {
    cJSON_AddItemToObject(out, name, bench_statistics_json(samples));
}

cJSON *bench_end_row_json(const bench_end_row *row) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "suite", "end-to-end");
    cJSON_AddStringToObject(out, "mode", row->mode);
    cJSON_AddNumberToObject(out, "S", (double)row->s);
    cJSON_AddNumberToObject(out, "T", (double)row->t);
    cJSON_AddNumberToObject(out, "K", (double)row->k);
    cJSON_AddStringToObject(out, "shape", row->shape);
    cJSON_AddStringToObject(out, "dtype", row->dtype);
    bench_add_status(out, row->status, row->reason);
    if (row->status == BENCH_OK) {
        cJSON *sparse = cJSON_AddObjectToObject(out, "sparse"), *dense = cJSON_AddObjectToObject(out, "dense");
        add_timed(sparse, "seconds", &row->sparse);
        add_timed(sparse, "select_seconds", &row->select);
        add_timed(sparse, "attend_seconds", &row->attend);
        cJSON_AddStringToObject(dense, "form", row->dense_form);
        add_timed(dense, "seconds", &row->dense);
        cJSON_AddNumberToObject(out, "ratio", bench_ratio(&row->sparse, &row->dense, true));
        cJSON_AddNumberToObject(out, "workspace_bytes", (double)row->workspace);
    }
    return out;
}

cJSON *bench_crossover_json(const bench_crossover *crossover) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "mode", crossover->mode);
    cJSON_AddNumberToObject(out, "K", (double)crossover->k);
    cJSON_AddNumberToObject(out, "from", (double)crossover->from);
    cJSON_AddNumberToObject(out, "to", (double)crossover->to);
    cJSON_AddItemToObject(out, "T", crossover->t ? cJSON_CreateNumber((double)crossover->t) : cJSON_CreateNull());
    return out;
}

cJSON *bench_train_row_json(const bench_train_row *row) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "suite", "train");
    cJSON_AddNumberToObject(out, "length", row->length);
    cJSON_AddStringToObject(out, "variant", row->variant);
    bench_add_status(out, row->status, row->reason);
    if (row->samples.count) {
        cJSON_AddItemToObject(out, "tokens_per_second", bench_statistics_json(&row->samples));
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
