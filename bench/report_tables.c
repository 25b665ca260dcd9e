/* The page's tables: a column per device, bars under the figures that are read against each other. */
#include "bench/report.h"
#include "host/io/html.h"
#include "host/io/plot.h"

#include <math.h>
#include <string.h>

/* ---- cells ------------------------------------------------------------------------------------------------------- */

static void put_device_head(FILE *out, const bench_report *report, int d) {
    fprintf(out, "<th><i class=dot style=\"background:%s\"></i>", cldsa_plot_colour(d + 1));
    cldsa_html_text(out, report->devices[d].label);
    fputs("</th>", out);
}

static void begin_table(FILE *out, const bench_report *report, const char *first) {
    const char *kind = !*first ? "words" : strcmp(first, "call") == 0 ? "calls" : "figures";
    fprintf(out, "<div class=scroll><table class=%s><thead><tr>", kind);
    cldsa_html_element(out, "th", first);
    for (int d = 0; d < report->num_devices; ++d)
        put_device_head(out, report, d);
    fputs("</tr></thead>\n", out);
}

static void end_table(FILE *out) {
    fputs("</table></div>\n", out);
}

static void put_empty(FILE *out) {
    fputs("<td class=muted>–</td>", out);
}

static void put_text_cell(FILE *out, const char *text) {
    if (*text)
        cldsa_html_element(out, "td", text);
    else
        put_empty(out);
}

/* A figure, a bar of `part` of the cell below it (NaN: none), and what explains it. */
static void put_bar(FILE *out, const char *text, double part, int colour, const char *below) {
    fputs("<td>", out);
    cldsa_html_text(out, text);
    if (!isnan(part))
        fprintf(out, "<span class=track><i style=\"width:%.1f%%;background:%s\"></i></span>", 100 * fmin(part, 1),
                cldsa_plot_colour(colour));
    if (*below)
        cldsa_html_element(out, "div class=muted", below);
    fputs("</td>", out);
}

/* In place of a figure: what became of the row. */
static void put_status(FILE *out, const cJSON *row) {
    fprintf(out, "<td class=%s title=\"", bench_is(row, "status", "error") ? "bad" : "muted");
    cldsa_html_text(out, bench_text(row, "reason"));
    fputs("\">", out);
    cldsa_html_text(out, bench_text(row, "status"));
    fputs("</td>", out);
}

static void begin_row(FILE *out, const char *text) {
    fputs("<tr>", out);
    cldsa_html_element(out, "th scope=row", text);
}

/* Whether this key is the first of its operation; `op` is set in any case. */
static bool starts_op(const bench_report *report, size_t key, const char **op) {
    *op = bench_text(report_any(report, report->keys[key]), "op");
    return key == 0 || strcmp(bench_text(report_any(report, report->keys[key - 1]), "op"), *op) != 0;
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

typedef void (*put_property)(const report_device *device, char *text, size_t size);

static void platform(const report_device *device, char *text, size_t size) {
    snprintf(text, size, "%s", bench_text(device->system, "platform"));
}

static void name(const report_device *device, char *text, size_t size) {
    snprintf(text, size, "%s", bench_text(device->system, "device"));
}

static void driver(const report_device *device, char *text, size_t size) {
    snprintf(text, size, "%s", bench_text(device->system, "driver"));
}

static void size_of(const report_device *device, char *text, size_t size) {
    snprintf(text, size, "%.0f units, %.0f MHz", bench_number(device->system, "compute_units"),
             bench_number(device->system, "max_clock_mhz"));
}

static void memory(const report_device *device, char *text, size_t size) {
    snprintf(text, size, "%.1f GiB, local %.0f KiB", bench_number(device->system, "global_mem_bytes") / (1 << 30),
             bench_number(device->system, "local_mem_bytes") / 1024);
}

static void host(const report_device *device, char *text, size_t size) {
    const cJSON *machine = bench_member(device->system, "host");
    double before = bench_number(machine, "load_before");
    int used = snprintf(text, size, "%s, %.0f threads", bench_text(machine, "cpu"), bench_number(machine, "threads"));
    if (!isnan(before) && used > 0 && (size_t)used < size)
        snprintf(text + used, size - (size_t)used, ", load %.1f before", before);
}

static void clocks(const report_device *device, char *text, size_t size) {
    const cJSON *read = bench_member(device->system, "clocks");
    double mhz = bench_number(read, "mhz");
    snprintf(text, size, "%s", bench_text(read, "governor"));
    if (!isnan(mhz))
        snprintf(text + strlen(text), size - strlen(text), "%s%.0f MHz", *text ? ", " : "", mhz);
}

static void measured(const report_device *device, char *text, size_t size) {
    snprintf(text, size, "%.10s, cldsa %s", bench_text(device->system, "date"), bench_text(device->system, "cldsa"));
}

static void compiler(const report_device *device, char *text, size_t size) {
    snprintf(text, size, "%s", bench_text(device->system, "compiler"));
}

/* Where the tunables of its calls come from: "12 exact, 3 none". */
static void tuning(const report_device *device, char *text, size_t size) {
    static const char *const matches[] = {"exact", "architecture", "vendor", "forced", "none"};
    size_t used = 0;
    for (size_t m = 0; m < sizeof matches / sizeof *matches && used < size; ++m) {
        int count = 0;
        for (size_t i = 0; i < device->num_rows; ++i)
            count += bench_is(bench_member(device->rows[i].json, "tuning"), "match", matches[m]);
        if (count)
            used += (size_t)snprintf(text + used, size - used, "%s%d %s", used ? ", " : "", count, matches[m]);
    }
}

static void merged(const report_device *device, char *text, size_t size) {
    int used = snprintf(text, size, "%zu", device->num_rows);
    if (device->num_replaced)
        snprintf(text + used, size - (size_t)used, " (%zu more, older, not shown)", device->num_replaced);
}

static void peak_flops(const report_device *device, char *text, size_t size) {
    bench_format(bench_number(device->peaks, "f32_flops_per_second"), "FLOP/s", text, size);
}

static void memory_bandwidth(const report_device *device, char *text, size_t size) {
    bench_format(report_memory_bandwidth(device), "B/s", text, size);
}

static void cache_bandwidth(const report_device *device, char *text, size_t size) {
    bench_format(report_cache_bandwidth(device), "B/s", text, size);
}

static void launch(const report_device *device, char *text, size_t size) {
    bench_format(bench_number(device->peaks, "launch_seconds"), "s", text, size);
}

void report_put_systems(FILE *out, const bench_report *report) {
    static const struct {
        const char *title;
        put_property put;
    } lines[] = {{"device", name},
                 {"platform", platform},
                 {"driver", driver},
                 {"as the driver says", size_of},
                 {"memory", memory},
                 {"host", host},
                 {"host's clock", clocks},
                 {"build options", compiler},
                 {"calls by tuning", tuning},
                 {"measured", measured},
                 {"rows", merged},
                 {"peak f32 arithmetic", peak_flops},
                 {"bandwidth, memory", memory_bandwidth},
                 {"bandwidth, smallest set", cache_bandwidth},
                 {"empty launch", launch}};
    begin_table(out, report, "");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; ++i) {
        begin_row(out, lines[i].title);
        for (int d = 0; d < report->num_devices; ++d) {
            char text[256] = "";
            lines[i].put(&report->devices[d], text, sizeof text);
            put_text_cell(out, strcmp(text, "-") == 0 ? "" : text);
        }
        fputs("</tr>\n", out);
    }
    end_table(out);
}

/* ---- peaks ------------------------------------------------------------------------------------------------------- */

void report_put_peaks(FILE *out, const bench_report *report) {
    begin_table(out, report, "peak");
    for (size_t i = 0; i < report->num_keys; ++i) {
        const cJSON *any = report_any(report, report->keys[i]);
        if (!bench_is(any, "suite", "peak"))
            continue;
        char text[96], size[32] = "";
        if (bench_number(any, "bytes") > 0)
            snprintf(size, sizeof size, ", %.0f KiB", bench_number(any, "bytes") / 1024);
        snprintf(text, sizeof text, "%.60s%s", bench_text(any, "name"), size);
        begin_row(out, text);
        for (int d = 0; d < report->num_devices; ++d) {
            const cJSON *row = report_find(&report->devices[d], report->keys[i]);
            if (!row) {
                put_empty(out);
            } else if (!bench_row_is_ok(row)) {
                put_status(out, row);
            } else {
                bench_format(bench_number(row, "value"), bench_text(row, "unit"), text, sizeof text);
                put_bar(out, text, NAN, 0, bench_text(row, "how"));
            }
        }
        fputs("</tr>\n", out);
    }
    end_table(out);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

/* How many of the device's calls of an operation (NULL: all) have no time. */
static int count_failed(const report_device *device, const char *op) {
    int failed = 0;
    for (size_t i = 0; i < device->num_rows; ++i) {
        const cJSON *row = device->rows[i].json;
        failed += bench_is(row, "suite", "ops") && (!op || bench_is(row, "op", op)) && !bench_row_is_ok(row);
    }
    return failed;
}

/* The mean of a value over an operation's calls (NULL: all), with the number of calls; a bar of `full` fills the cell.
 */
static void put_mean_row(FILE *out, const bench_report *report, const char *op, report_value value, double full,
                         const char *unit) {
    begin_row(out, op ? op : "geometric mean of all calls");
    for (int d = 0; d < report->num_devices; ++d) {
        int count, all;
        char text[64];
        report_mean(&report->devices[d], NULL, value, &all); /* a device that was not asked for it has no failures */
        int failed = all || value == report_percent ? count_failed(&report->devices[d], op) : 0;
        double mean = report_mean(&report->devices[d], op, value, &count);
        int digits = full < 10 ? 2 : mean < full / 10 ? 1 : 0;
        size_t used = count ? (size_t)snprintf(text, sizeof text, "%.*f %s (%d)", digits, mean, unit, count) : 0;
        if (failed)
            snprintf(text + used, sizeof text - used, "%s%d without a time", used ? ", " : "", failed);
        if (count || failed)
            put_bar(out, text, mean / full, d + 1, "");
        else
            put_empty(out);
    }
    fputs("</tr>\n", out);
}

static void put_summaries(FILE *out, const bench_report *report) {
    const char *op;
    begin_table(out, report, "operation");
    for (size_t i = 0; i < report->num_keys; ++i)
        if (starts_op(report, i, &op) && *op)
            put_mean_row(out, report, op, report_percent, 100, "%");
    end_table(out);
}

/* "0.672 ms" / "63 % of memory's" / "0.66 to 0.69 ms, 3.1 TFLOP/s". */
static void put_call(FILE *out, const cJSON *row, int colour) {
    const cJSON *seconds = bench_member(row, "seconds"), *roof = bench_member(row, "roofline");
    char text[32], low[32], high[32], rate[32], below[160];
    double percent = report_percent(row), gflops = bench_number(row, "gflops");
    bool by_bytes = bench_is(roof, "limit", "memory") || !(gflops > 0);
    bench_format(bench_number(seconds, "median"), "s", text, sizeof text);
    bench_format(bench_number(seconds, "p10"), "s", low, sizeof low);
    bench_format(bench_number(seconds, "p90"), "s", high, sizeof high);
    bench_format(1e9 * (by_bytes ? bench_number(row, "gbytes_per_second") : gflops), by_bytes ? "B/s" : "FLOP/s", rate,
                 sizeof rate);
    int used = snprintf(below, sizeof below, "%s to %s\n%s", low, high, rate);
    if (!isnan(percent))
        snprintf(below + used, sizeof below - (size_t)used, ", %.*f %% of %s", percent < 10 ? 1 : 0, percent,
                 bench_text(roof, "limit"));
    put_bar(out, text, percent / 100, colour, below);
}

void report_put_calls(FILE *out, const bench_report *report) {
    fputs(
        "<p>Median; below it the 10th to 90th percentile, the rate of useful arithmetic or compulsory traffic, and the "
        "percent of what limits the call: compute, memory or launch.</p>\n",
        out);
    begin_table(out, report, "call");
    for (size_t i = 0; i < report->num_keys; ++i) {
        const char *op;
        const cJSON *any = report_any(report, report->keys[i]);
        if (!bench_is(any, "suite", "ops"))
            continue;
        if (starts_op(report, i, &op))
            fprintf(out, "<tr class=group><th colspan=%d>%s</th></tr>\n", report->num_devices + 1, op);
        char text[BENCH_KEY_SIZE];
        report_call(any, text, sizeof text);
        begin_row(out, text);
        for (int d = 0; d < report->num_devices; ++d) {
            const cJSON *row = report_find(&report->devices[d], report->keys[i]);
            if (!row)
                put_empty(out);
            else if (!bench_row_is_ok(row))
                put_status(out, row);
            else
                put_call(out, row, d + 1);
        }
        fputs("</tr>\n", out);
    }
    end_table(out);
}

void report_put_operations(FILE *out, const bench_report *report) {
    fputs("<p>Percent of the roofline: the least time in which the device could do a call by its own measured peaks, "
          "over "
          "the median. Geometric mean over an operation's calls, whose number follows; each is listed <a "
          "href=\"#calls\">below</a>.</p>\n",
          out);
    put_summaries(out, report);
}

/* ---- end to end -------------------------------------------------------------------------------------------------- */

static void put_pair(FILE *out, const cJSON *row) {
    char dense[32], sparse[32], ratio[32], below[128];
    double times = bench_number(row, "ratio");
    bench_format(bench_number(bench_member(bench_member(row, "dense"), "seconds"), "median"), "s", dense, sizeof dense);
    bench_format(bench_number(bench_member(bench_member(row, "sparse"), "seconds"), "median"), "s", sparse,
                 sizeof sparse);
    snprintf(ratio, sizeof ratio, "%.2f x", times);
    const char *form = bench_text(bench_member(row, "dense"), "form");
    snprintf(below, sizeof below, "sparse %s\ndense %s%s%.40s", sparse, dense, *form ? ", " : "", form);
    fprintf(out, "<td class=%s>%s", times > 1 ? "good" : "bad", ratio);
    cldsa_html_element(out, "div class=muted", below);
    fputs("</td>", out);
}

void report_put_end_to_end(FILE *out, const bench_report *report) {
    begin_table(out, report, "dense over sparse");
    for (size_t i = 0; i < report->num_keys; ++i) {
        const cJSON *any = report_any(report, report->keys[i]);
        if (!bench_is(any, "suite", "end-to-end"))
            continue;
        char text[256];
        snprintf(text, sizeof text, "%.40s T=%.0f S=%.0f K=%.0f %.120s %.20s", bench_text(any, "mode"),
                 bench_number(any, "T"), bench_number(any, "S"), bench_number(any, "K"), bench_text(any, "shape"),
                 bench_text(any, "dtype"));
        begin_row(out, text);
        for (int d = 0; d < report->num_devices; ++d) {
            const cJSON *row = report_find(&report->devices[d], report->keys[i]);
            if (!row)
                put_empty(out);
            else if (!bench_row_is_ok(row))
                put_status(out, row);
            else
                put_pair(out, row);
        }
        fputs("</tr>\n", out);
    }
    end_table(out);
}

/* ---- training ---------------------------------------------------------------------------------------------------- */

static double tokens(const cJSON *row) {
    return bench_number(bench_member(row, "tokens_per_second"), "median");
}

static double most_tokens(const report_device *device) {
    double most = 0;
    for (size_t i = 0; i < device->num_rows; ++i)
        most = fmax(most, tokens(device->rows[i].json));
    return most;
}

static void put_cell(FILE *out, const report_device *device, const cJSON *row, int colour) {
    const cJSON *rate = bench_member(row, "tokens_per_second");
    char text[32], below[160], memory_text[32];
    snprintf(text, sizeof text, "%.0f", tokens(row));
    bench_format(bench_number(row, "peak_device_bytes"), "B", memory_text, sizeof memory_text);
    snprintf(below, sizeof below, "%.0f to %.0f\n%s", bench_number(rate, "p10"), bench_number(rate, "p90"),
             memory_text);
    put_bar(out, text, tokens(row) / most_tokens(device), colour, below);
}

void report_put_training(FILE *out, const bench_report *report) {
    begin_table(out, report, "tokens per second");
    for (size_t i = 0; i < report->num_keys; ++i) {
        const cJSON *any = report_any(report, report->keys[i]);
        if (!bench_is(any, "suite", "train"))
            continue;
        char text[96];
        snprintf(text, sizeof text, "S=%.0f, %.40s", bench_number(any, "length"), bench_text(any, "variant"));
        begin_row(out, text);
        for (int d = 0; d < report->num_devices; ++d) {
            const cJSON *row = report_find(&report->devices[d], report->keys[i]);
            if (!row)
                put_empty(out);
            else if (!bench_row_is_ok(row))
                put_status(out, row);
            else
                put_cell(out, &report->devices[d], row, d + 1);
        }
        fputs("</tr>\n", out);
    }
    end_table(out);
}

/* ---- variants and tuning ----------------------------------------------------------------------------------------- */

/* "vec 4, simt 1": how often each variant was the one that ran. */
static void list_variants(const report_device *device, const char *op, char *text, size_t size) {
    const char *names[8];
    int counts[8] = {0}, num = 0;
    for (size_t i = 0; i < device->num_rows; ++i) {
        const cJSON *row = device->rows[i].json;
        const char *variant = bench_text(row, "variant");
        if (!bench_is(row, "suite", "ops") || !bench_is(row, "op", op) || !bench_row_is_ok(row))
            continue;
        int v = 0;
        while (v < num && strcmp(names[v], variant) != 0)
            ++v;
        if (v == 8)
            continue;
        if (v == num)
            names[num++] = variant;
        ++counts[v];
    }
    size_t used = 0;
    text[0] = '\0';
    for (int v = 0; v < num && used < size; ++v)
        used += (size_t)snprintf(text + used, size - used, num > 1 ? "%s%s %d" : "%s%s", v ? ", " : "", names[v],
                                 counts[v]);
}

static void put_choices(FILE *out, const bench_report *report) {
    fputs("<details><summary>Every call's variant and tunables</summary>\n", out);
    begin_table(out, report, "call");
    for (size_t i = 0; i < report->num_keys; ++i) {
        const cJSON *any = report_any(report, report->keys[i]);
        if (!bench_is(any, "suite", "ops"))
            continue;
        begin_row(out, report->keys[i] + strlen("ops "));
        for (int d = 0; d < report->num_devices; ++d) {
            const cJSON *row = report_find(&report->devices[d], report->keys[i]);
            char below[400], match[64] = "";
            if (!*bench_text(row, "variant")) {
                put_empty(out);
                continue;
            }
            if (*bench_text(bench_member(row, "tuning"), "match"))
                snprintf(match, sizeof match, "\ntuned: %.40s", bench_text(bench_member(row, "tuning"), "match"));
            snprintf(below, sizeof below, "%.300s%s", bench_text(row, "tunables"), match);
            put_bar(out, bench_text(row, "variant"), NAN, 0, below);
        }
        fputs("</tr>\n", out);
    }
    end_table(out);
    fputs("</details>\n", out);
}

void report_put_variants(FILE *out, const bench_report *report) {
    const char *op;
    begin_table(out, report, "operation");
    for (size_t i = 0; i < report->num_keys; ++i) {
        if (!starts_op(report, i, &op) || !*op)
            continue;
        begin_row(out, op);
        for (int d = 0; d < report->num_devices; ++d) {
            char text[160];
            list_variants(&report->devices[d], op, text, sizeof text);
            put_text_cell(out, text);
        }
        fputs("</tr>\n", out);
    }
    end_table(out);
    put_choices(out, report);
}

static bool has_gain(const bench_report *report, const char *op) {
    int count = 0;
    for (int d = 0; d < report->num_devices && !count; ++d)
        report_mean(&report->devices[d], op, report_gain, &count);
    return count > 0;
}

void report_put_gain(FILE *out, const bench_report *report) {
    const char *op;
    if (!has_gain(report, NULL)) {
        fputs("<p>No file was measured with <code>--gain</code>.</p>\n", out);
        return;
    }
    fputs("<p>Time with default tunables over time as tuned, measured in turn; geometric mean, with the number of "
          "calls. The bar "
          "ends at 4 x.</p>\n",
          out);
    begin_table(out, report, "operation");
    put_mean_row(out, report, NULL, report_gain, 4, "x");
    for (size_t i = 0; i < report->num_keys; ++i)
        if (starts_op(report, i, &op) && *op && has_gain(report, op))
            put_mean_row(out, report, op, report_gain, 4, "x");
    end_table(out);
}
