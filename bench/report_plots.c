/* The page's curves. */
#include "bench/report.h"
#include "host/io/html.h"
#include "host/io/plot.h"
#include "host/runtime/runtime.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_POINTS = 512 };

/* Points of one series. */
typedef struct points {
    double x[MOST_POINTS], y[MOST_POINTS];
    size_t count;
} points;

static void add_point(points *to, double x, double y) {
    if (to->count < MOST_POINTS && x > 0 && y > 0) {
        to->x[to->count] = x;
        to->y[to->count++] = y;
    }
}

static cldsa_plot_series series_of(const char *name, const points *from, cldsa_plot_style style, int colour) {
    return (cldsa_plot_series){
        .name = name, .x = from->x, .y = from->y, .count = from->count, .style = style, .colour = colour};
}

static void put_plot(FILE *out, const cldsa_plot *plot) {
    char *svg;
    if (cldsa_plot_svg(plot, &svg) != CLDSA_SUCCESS) {
        cldsa_html_element(out, "p", cldsa_error_message());
        return;
    }
    fprintf(out, "<figure role=img aria-label=\"");
    cldsa_html_text(out, plot->title);
    fprintf(out, "\">%s</figure>\n", svg);
    free(svg);
}

/* ---- roofline ---------------------------------------------------------------------------------------------------- */

/* min(peak, bandwidth * intensity) between two intensities, with its corner. */
static void add_roof(points *roof, double peak, double bandwidth, double low, double high) {
    double corner = peak / bandwidth;
    add_point(roof, low, fmin(peak, bandwidth * low));
    if (corner > low && corner < high)
        add_point(roof, corner, peak);
    add_point(roof, high, fmin(peak, bandwidth * high));
}

void report_plot_roofline(FILE *out, const report_device *device) {
    enum { LIMITS = 3 };
    static const char *const limits[LIMITS] = {"compute", "memory", "launch"};
    static const char *const names[LIMITS] = {"limited by compute", "limited by memory", "limited by launch"};
    static points drawn[LIMITS + 2];
    double low = 0.25, high = 256;
    memset(drawn, 0, sizeof drawn);
    for (size_t i = 0; i < device->num_rows; ++i) {
        const cJSON *row = device->rows[i].json, *roof = bench_member(row, "roofline");
        double flops = 1e9 * bench_number(row, "gflops"), bytes = 1e9 * bench_number(row, "gbytes_per_second");
        for (int l = 0; l < LIMITS; ++l)
            if (bench_is(roof, "limit", limits[l]) && flops > 0 && bytes > 0) {
                add_point(&drawn[l], flops / bytes, flops);
                low = fmin(low, flops / bytes);
                high = fmax(high, flops / bytes);
            }
    }
    double peak = bench_number(device->peaks, "f32_flops_per_second");
    add_roof(&drawn[LIMITS], peak, report_memory_bandwidth(device), low, high);
    add_roof(&drawn[LIMITS + 1], peak, report_cache_bandwidth(device), low, high);
    cldsa_plot_series series[LIMITS + 2] = {
        series_of("roof, memory", &drawn[LIMITS], CLDSA_PLOT_LINE, 7),
        series_of("roof, smallest set", &drawn[LIMITS + 1], CLDSA_PLOT_DASHED, 7),
    };
    for (int l = 0; l < LIMITS; ++l)
        series[l + 2] = series_of(names[l], &drawn[l], CLDSA_PLOT_POINTS, l + 1);
    put_plot(out, &(cldsa_plot){.title = device->label,
                                .x_label = "useful FLOP per compulsory byte",
                                .y_label = "FLOP/s",
                                .series = series,
                                .num_series = LIMITS + 2,
                                .log_x = true,
                                .log_y = true,
                                .y_format = "%.0s%c"});
}

void report_plot_bandwidth(FILE *out, const bench_report *report) {
    static points drawn[REPORT_MAX_DEVICES];
    cldsa_plot_series series[REPORT_MAX_DEVICES];
    memset(drawn, 0, sizeof drawn);
    for (int d = 0; d < report->num_devices; ++d) {
        const cJSON *level;
        cJSON_ArrayForEach(level, bench_member(report->devices[d].peaks, "levels"))
            add_point(&drawn[d], bench_number(level, "bytes"), bench_number(level, "bytes_per_second"));
        series[d] = series_of(report->devices[d].label, &drawn[d], CLDSA_PLOT_LINE, d + 1);
    }
    put_plot(out, &(cldsa_plot){.title = "Bandwidth by the size of what is touched",
                                .x_label = "bytes touched",
                                .y_label = "bytes per second",
                                .series = series,
                                .num_series = report->num_devices,
                                .log_x = true,
                                .log_y = true,
                                .points = true,
                                .x_format = "%.0b%B",
                                .y_format = "%.0s%c"});
}

/* ---- over T ------------------------------------------------------------------------------------------------------ */

static double median_of(const cJSON *row, const char *side) {
    return bench_number(bench_member(bench_member(row, side), "seconds"), "median");
}

static bool is_measured(const cJSON *row, const char *mode) {
    return bench_is(row, "suite", "end-to-end") && bench_is(row, "mode", mode) && bench_row_is_ok(row);
}

void report_plot_ratio(FILE *out, const bench_report *report, const char *mode) {
    static points drawn[REPORT_MAX_DEVICES + 1];
    cldsa_plot_series series[REPORT_MAX_DEVICES + 1];
    char title[96];
    double low = INFINITY, high = 0;
    memset(drawn, 0, sizeof drawn);
    for (int d = 0; d < report->num_devices; ++d) {
        const report_device *device = &report->devices[d];
        for (size_t i = 0; i < device->num_rows; ++i)
            if (is_measured(device->rows[i].json, mode)) {
                double T = bench_number(device->rows[i].json, "T");
                add_point(&drawn[d], T, bench_number(device->rows[i].json, "ratio"));
                low = fmin(low, T);
                high = fmax(high, T);
            }
        series[d] = series_of(device->label, &drawn[d], CLDSA_PLOT_LINE, d + 1);
    }
    if (!(high > 0))
        return;
    points *one = &drawn[report->num_devices];
    add_point(one, low, 1);
    add_point(one, high, 1);
    series[report->num_devices] = series_of("as fast as dense", one, CLDSA_PLOT_DASHED, 7);
    snprintf(title, sizeof title, "%s: dense time over sparse time", mode);
    put_plot(out, &(cldsa_plot){.title = title,
                                .x_label = "T, keys",
                                .y_label = "times as fast as dense",
                                .series = series,
                                .num_series = report->num_devices + 1,
                                .log_x = true,
                                .log_y = true,
                                .points = true,
                                .x_format = "%.0f"});
}

void report_plot_times(FILE *out, const report_device *device, const char *mode) {
    static points dense, sparse;
    char title[160];
    dense.count = sparse.count = 0;
    for (size_t i = 0; i < device->num_rows; ++i) {
        const cJSON *row = device->rows[i].json;
        if (!is_measured(row, mode))
            continue;
        add_point(&dense, bench_number(row, "T"), median_of(row, "dense"));
        add_point(&sparse, bench_number(row, "T"), median_of(row, "sparse"));
    }
    if (!dense.count)
        return;
    const cldsa_plot_series series[] = {series_of("dense", &dense, CLDSA_PLOT_LINE, 7),
                                        series_of("sparse", &sparse, CLDSA_PLOT_LINE, 1)};
    snprintf(title, sizeof title, "%s, %s", device->label, mode);
    put_plot(out, &(cldsa_plot){.title = title,
                                .x_label = "T, keys",
                                .y_label = "seconds",
                                .series = series,
                                .num_series = 2,
                                .log_x = true,
                                .log_y = true,
                                .points = true,
                                .x_format = "%.0f",
                                .y_format = "%.0s %cs"});
}

/* ---- training ---------------------------------------------------------------------------------------------------- */

/* The variant to plot: dense, which every device can be compared by, or else the first that was measured. */
static const char *find_trained(const bench_report *report) {
    const char *first = NULL;
    for (int d = 0; d < report->num_devices; ++d)
        for (size_t i = 0; i < report->devices[d].num_rows; ++i) {
            const cJSON *row = report->devices[d].rows[i].json;
            if (!bench_is(row, "suite", "train") || !bench_row_is_ok(row))
                continue;
            if (bench_is(row, "variant", "dense"))
                return "dense";
            first = first ? first : bench_text(row, "variant");
        }
    return first;
}

void report_plot_training(FILE *out, const bench_report *report) {
    static points drawn[REPORT_MAX_DEVICES];
    cldsa_plot_series series[REPORT_MAX_DEVICES];
    const char *variant = find_trained(report);
    char title[96];
    if (!variant)
        return;
    memset(drawn, 0, sizeof drawn);
    for (int d = 0; d < report->num_devices; ++d) {
        const report_device *device = &report->devices[d];
        for (size_t i = 0; i < device->num_rows; ++i) {
            const cJSON *row = device->rows[i].json;
            if (bench_is(row, "suite", "train") && bench_is(row, "variant", variant))
                add_point(&drawn[d], bench_number(row, "length"),
                          bench_number(bench_member(row, "tokens_per_second"), "median"));
        }
        series[d] = series_of(device->label, &drawn[d], CLDSA_PLOT_LINE, d + 1);
    }
    snprintf(title, sizeof title, "Training, %.60s", variant);
    put_plot(out, &(cldsa_plot){.title = title,
                                .x_label = "S, sequence length",
                                .y_label = "tokens per second",
                                .series = series,
                                .num_series = report->num_devices,
                                .log_x = true,
                                .log_y = true,
                                .points = true,
                                .y_format = "%.0s%c"});
}
