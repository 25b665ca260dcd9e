/* The page: findings first, then a section per question. */
#include "bench/report.h"
#include "host/io/html.h"
#include "host/runtime/runtime.h"

#include <stdlib.h>

static const char style[] =
    "nav{margin:1em 0;font-size:.93em}nav a{margin-right:1.1em}"
    "td,th{position:relative}.track{display:block;height:5px;margin:.25em 0 .1em "
    "auto;min-width:7em;background:var(--rule);"
    "border-radius:2px}.track i{display:block;height:100%;border-radius:2px}"
    ".dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em}"
    ".good{color:var(--good)}.bad{color:var(--bad)}.left{text-align:left}"
    ".reason{text-align:left;white-space:normal;min-width:20em;max-width:44em}"
    ".group th{padding-top:1.1em;text-align:left}th[scope=row]{white-space:normal;min-width:9em;max-width:24em}.calls "
    "th[scope=row]{min-width:15em}.words td{white-space:normal}td .muted{white-space:pre}.calls td "
    ".muted{white-space:pre-line;min-width:13em;max-width:16em;margin-left:auto;overflow-wrap:anywhere}"
    ".findings{background:var(--card);padding:.8em 1em .8em 2.2em;border-radius:6px}.findings li{margin:.2em 0}"
    ".compiler{text-align:left;white-space:normal;min-width:9em;max-width:14em;overflow-wrap:anywhere}"
    "td .muted.kernel{white-space:normal;min-width:8em;max-width:12em;margin-left:auto}"
    "figure{margin:0}details summary{cursor:pointer}";

static void put_findings(FILE *out, const bench_report *report) {
    fputs("<ul class=findings>\n", out);
    for (int i = 0; i < report->num_findings; ++i) {
        fputs("<li>", out);
        cldsa_html_element(out, "b", report->findings[i].head);
        fputs(": ", out);
        cldsa_html_text(out, report->findings[i].text);
        fputs("</li>\n", out);
    }
    fputs("</ul>\n", out);
}

static bool has_peaks(const bench_report *report) {
    for (int d = 0; d < report->num_devices; ++d)
        if (report->devices[d].peaks)
            return true;
    return false;
}

static void put_rooflines(FILE *out, const bench_report *report) {
    fputs("<p>Each device against its own measured peaks: the lines are what f32 arithmetic and bandwidth allow, the "
          "points "
          "are calls of operations. A point above the memory line worked from a cache.</p><div class=plots>\n",
          out);
    for (int d = 0; d < report->num_devices; ++d)
        if (report->devices[d].peaks)
            report_plot_roofline(out, &report->devices[d]);
    report_plot_bandwidth(out, report);
    fputs("</div>\n", out);
    if (!report_has_suite(report, "peak"))
        return;
    fputs("<details><summary>Every peak: the best sample, which the device reaches when nothing else is in its "
          "way</summary>\n",
          out);
    report_put_peaks(out, report);
    fputs("</details>\n", out);
}

static void put_scaling(FILE *out, const bench_report *report) {
    static const char *const modes[] = {"decode", "prefill"};
    fputs("<p>Score, select and attend to K keys, against dense attention over all T. Above 1, sparsity pays.</p>"
          "<div class=plots>\n",
          out);
    for (int m = 0; m < 2; ++m)
        report_plot_ratio(out, report, modes[m]);
    for (int m = 0; m < 2; ++m)
        for (int d = 0; d < report->num_devices; ++d)
            report_plot_times(out, &report->devices[d], modes[m]);
    fputs("</div>\n", out);
    report_put_end_to_end(out, report);
}

static void put_training(FILE *out, const bench_report *report) {
    fputs(
        "<p>Training steps of the experiment's model; median with the 10th to 90th percentile, and device memory. Bars "
        "compare the cells of one device.</p><div class=plots>\n",
        out);
    report_plot_training(out, report);
    fputs("</div>\n", out);
    report_put_training(out, report);
}

typedef struct section {
    const char *anchor, *title;
    void (*put)(FILE *out, const bench_report *report);
    const char *suite; /* needed for it; NULL: none */
} section;

static const section sections[] = {
    {"devices", "Devices", report_put_systems, NULL},
    {"rooflines", "Measured rooflines", put_rooflines, NULL},
    {"operations", "Operations", report_put_operations, "ops"},
    {"scaling", "Where sparsity begins to pay", put_scaling, "end-to-end"},
    {"training", "Training", put_training, "train"},
    {"variants", "Kernel variants that ran", report_put_variants, "ops"},
    {"tuning", "What tuning gains", report_put_gain, "ops"},
    {"peers", "Against peers", report_put_peers, NULL},
    {"calls", "Every call", report_put_calls, "ops"},
    {"failures", "Not measured, and why", report_put_failures, NULL},
    {"compilers", "Other vendors' compilers", report_put_vendors, NULL},
};
enum { NUM_SECTIONS = sizeof sections / sizeof *sections };

static bool is_shown(const bench_report *report, const section *s) {
    if (s->put == report_put_vendors)
        return report->vendors != NULL;
    if (s->put == put_rooflines)
        return has_peaks(report);
    return report->num_devices && (!s->suite || report_has_suite(report, s->suite));
}

cldsa_status bench_report_html(const bench_report *report, char **text) {
    size_t size;
    FILE *out = open_memstream(text, &size);
    if (!out)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory");
    cldsa_html_begin(out, "cldsa: devices side by side", "Dynamic sparse attention, devices side by side", style);
    put_findings(out, report);
    fputs("<nav>", out);
    for (int s = 0; s < NUM_SECTIONS; ++s)
        if (is_shown(report, &sections[s]))
            fprintf(out, "<a href=\"#%s\">%s</a> ", sections[s].anchor, sections[s].title);
    fputs("</nav>\n", out);
    for (int s = 0; s < NUM_SECTIONS; ++s)
        if (is_shown(report, &sections[s])) {
            fprintf(out, "<section id=%s><h2>%s</h2>\n", sections[s].anchor, sections[s].title);
            sections[s].put(out, report);
            fputs("</section>\n", out);
        }
    cldsa_html_end(out);
    return fclose(out) ? cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory") : CLDSA_SUCCESS;
}
