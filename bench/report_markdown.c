/* The compact form, for a README: findings, devices, operations, training, what was not measured. */
#include "bench/report.h"
#include "host/runtime/runtime.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Text in which nothing ends a cell or is taken as a tag. */
static void put(FILE *out, const char *text) {
    for (; *text; ++text)
        if (*text == '|')
            fputs("\\|", out);
        else if (*text == '<')
            fputs("&lt;", out);
        else
            fputc(*text == '\n' ? ' ' : *text, out);
}

static void begin_table(FILE *out, const bench_report *report, const char *first) {
    fprintf(out, "| %s |", first);
    for (int d = 0; d < report->num_devices; ++d) {
        fputc(' ', out);
        put(out, report->devices[d].label);
        fputs(" |", out);
    }
    fputs("\n|---|", out);
    for (int d = 0; d < report->num_devices; ++d)
        fputs("---:|", out);
    fputc('\n', out);
}

static void put_findings(FILE *out, const bench_report *report) {
    for (int i = 0; i < report->num_findings; ++i) {
        fputs("- **", out);
        put(out, report->findings[i].head);
        fputs(":** ", out);
        put(out, report->findings[i].text);
        fputc('\n', out);
    }
}

static void put_devices(FILE *out, const bench_report *report) {
    fputs("\n| device | platform, driver | date | f32 | memory | empty launch |\n|---|---|---|---:|---:|---:|\n", out);
    for (int d = 0; d < report->num_devices; ++d) {
        const report_device *device = &report->devices[d];
        char flops[32], bandwidth[32], launch[32];
        bench_format(bench_number(device->peaks, "f32_flops_per_second"), "FLOP/s", flops, sizeof flops);
        bench_format(report_memory_bandwidth(device), "B/s", bandwidth, sizeof bandwidth);
        bench_format(bench_number(device->peaks, "launch_seconds"), "s", launch, sizeof launch);
        fputs("| ", out);
        put(out, bench_text(device->system, "device"));
        fputs(" | ", out);
        put(out, bench_text(device->system, "platform"));
        fputs(", ", out);
        put(out, bench_text(device->system, "driver"));
        fprintf(out, " | %.10s | %s | %s | %s |\n", bench_text(device->system, "date"), flops, bandwidth, launch);
    }
}

/* "0.672 ms, 63 %" */
static void put_figure(FILE *out, const cJSON *row) {
    char text[32];
    double percent = report_percent(row), tokens = bench_number(bench_member(row, "tokens_per_second"), "median");
    if (!row) {
        fputs(" · |", out);
    } else if (!bench_row_is_ok(row)) {
        fprintf(out, " %s |", bench_text(row, "status"));
    } else if (bench_is(row, "suite", "end-to-end")) {
        fprintf(out, " %.2f x |", bench_number(row, "ratio"));
    } else if (!isnan(tokens)) {
        fprintf(out, " %.0f |", tokens);
    } else {
        bench_format(report_seconds(row), "s", text, sizeof text);
        fprintf(out, " %s", text);
        if (!isnan(percent))
            fprintf(out, ", %.*f %%", percent < 10 ? 1 : 0, percent);
        fputs(" |", out);
    }
}

static void put_suite(FILE *out, const bench_report *report, const char *suite, const char *title, const char *first) {
    if (!report_has_suite(report, suite))
        return;
    fprintf(out, "\n%s\n\n", title);
    begin_table(out, report, first);
    for (size_t i = 0; i < report->num_keys; ++i) {
        if (!bench_is(report_any(report, report->keys[i]), "suite", suite))
            continue;
        fputs("| ", out);
        put(out, report->keys[i] + strlen(suite) + 1);
        fputs(" |", out);
        for (int d = 0; d < report->num_devices; ++d)
            put_figure(out, report_find(&report->devices[d], report->keys[i]));
        fputc('\n', out);
    }
}

static void put_failures(FILE *out, const bench_report *report) {
    bool begun = false;
    for (int d = 0; d < report->num_devices; ++d)
        for (size_t i = 0; i < report->devices[d].num_rows; ++i) {
            const report_row *row = &report->devices[d].rows[i];
            if (bench_row_is_ok(row->json))
                continue;
            if (!begun)
                fputs("\nNot measured:\n\n", out);
            begun = true;
            fputs("- ", out);
            put(out, report->devices[d].label);
            fprintf(out, ", %s: %s: ", row->key, bench_text(row->json, "status"));
            put(out, bench_text(row->json, "reason"));
            fputc('\n', out);
        }
}

/* A line per target; the page has the table of kernels. */
static void put_target(FILE *out, const cJSON *target, const cJSON *kernels) {
    const cJSON *kernel;
    double registers = NAN, local = NAN, occupancy = NAN;
    int spilling = 0;
    cJSON_ArrayForEach(kernel, kernels) {
        if (!bench_is(kernel, "target", bench_text(target, "target")))
            continue;
        /* fmax and fmin take the number where the other is NaN. */
        registers = fmax(registers, bench_number(kernel, "registers"));
        local = fmax(local, bench_number(kernel, "local_bytes") / 1024);
        occupancy = fmin(occupancy, bench_number(kernel, "occupancy_percent"));
        spilling += bench_number(kernel, "spills") > 0 || bench_number(kernel, "spill_bytes") > 0;
    }
    fputs("| ", out);
    put(out, bench_text(target, "target"));
    fputs(" | ", out);
    put(out, bench_text(target, "device"));
    if (bench_is(target, "status", "skipped")) {
        fputs(" | skipped: ", out);
        put(out, bench_text(target, "reason"));
        fputs(" | | | | |\n", out);
        return;
    }
    fprintf(out, " | %.0f, %.0f fail |", bench_number(target, "kernels"), bench_number(target, "failed"));
    /* Where the compiler stops at an intermediate language nothing is known of these. */
    if (isnan(registers))
        fputs(" – | – |", out);
    else
        fprintf(out, " %.0f | %d |", registers, spilling);
    if (isnan(occupancy))
        fputs(" – |", out);
    else
        fprintf(out, " %.0f %% |", occupancy);
    if (isnan(local))
        fputs(" – |\n", out);
    else
        fprintf(out, " %.1f KiB |\n", local);
}

static void put_targets(FILE *out, const bench_report *report) {
    const cJSON *target;
    fputs(
        "\nOther vendors' compilers, without their devices: of all builds the most registers and local memory, and the "
        "least occupancy.\n\n"
        "| target | device | builds | registers | builds that spill | occupancy | local memory |\n"
        "|---|---|---:|---:|---:|---:|---:|\n",
        out);
    cJSON_ArrayForEach(target, bench_member(report->vendors, "targets"))
        put_target(out, target, bench_member(report->vendors, "kernels"));
}

cldsa_status bench_report_markdown(const bench_report *report, char **text) {
    size_t size;
    FILE *out = open_memstream(text, &size);
    if (!out)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory");
    put_findings(out, report);
    if (report->num_devices)
        put_devices(out, report);
    put_suite(out, report, "ops", "Operations: median, and percent of the device's measured roofline.", "call");
    put_suite(out, report, "end-to-end", "Dense time over sparse time (score, select, attend): above 1, sparsity pays.",
              "call");
    put_suite(out, report, "train", "Training, tokens per second.", "cell");
    put_failures(out, report);
    if (report->vendors)
        put_targets(out, report);
    return fclose(out) ? cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory") : CLDSA_SUCCESS;
}
