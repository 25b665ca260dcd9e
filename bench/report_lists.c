/* The page's lists: against peers, what was not measured, and other vendors' compilers. */
#include "bench/report.h"
#include "host/io/html.h"

#include <math.h>
#include <string.h>

/* The first `left` columns hold words, the others figures. */
static void begin_table(FILE *out, const char *const *titles, int count, int left) {
    fputs("<div class=scroll><table><thead><tr>", out);
    for (int i = 0; i < count; ++i)
        cldsa_html_element(out, i < left ? "th class=left" : "th", titles[i]);
    fputs("</tr></thead>\n", out);
}

static void end_table(FILE *out) {
    fputs("</table></div>\n", out);
}

/* A row's name without the suite, which has a column of its own. */
static const char *without_suite(const char *key) {
    const char *space = strchr(key, ' ');
    return space ? space + 1 : key;
}

/* ---- peers ------------------------------------------------------------------------------------------------------- */

static void put_peer(FILE *out, const report_device *device, const report_row *row, const cJSON *peer) {
    bool train = bench_is(row->json, "suite", "train");
    const char *quantity = train ? "tokens_per_second" : "seconds", *unit = train ? "token/s" : "s";
    double ratio = bench_number(peer, "ratio");
    char ours[32], theirs[32], text[32];
    bench_format(bench_number(bench_member(row->json, quantity), "median"), unit, ours, sizeof ours);
    bench_format(bench_number(bench_member(peer, quantity), "median"), unit, theirs, sizeof theirs);
    fputs("<tr>", out);
    cldsa_html_element(out, "th scope=row", without_suite(row->key));
    cldsa_html_element(out, "td class=left", device->label);
    cldsa_html_element(out, "td class=left", bench_text(peer, "peer"));
    cldsa_html_element(out, "td", ours);
    cldsa_html_element(out, "td", theirs);
    snprintf(text, sizeof text, "%.2f x", ratio);
    cldsa_html_element(out, ratio > 1 ? "td class=good" : "td class=bad", text);
    fputs("</tr>\n", out);
}

void report_put_peers(FILE *out, const bench_report *report) {
    static const char *const titles[] = {"call", "device", "peer", "cldsa", "peer's", "cldsa is faster"};
    bool begun = false;
    for (int d = 0; d < report->num_devices; ++d)
        for (size_t i = 0; i < report->devices[d].num_rows; ++i) {
            const report_row *row = &report->devices[d].rows[i];
            const cJSON *peer;
            cJSON_ArrayForEach(peer, bench_member(row->json, "peers")) {
                if (!bench_row_is_ok(peer) || isnan(bench_number(peer, "ratio")))
                    continue;
                if (!begun)
                    begin_table(out, titles, sizeof titles / sizeof *titles, 3);
                begun = true;
                put_peer(out, &report->devices[d], row, peer);
            }
        }
    if (begun)
        end_table(out);
    else
        fputs("<p>No file was measured with <code>--peers</code>.</p>\n", out);
}

/* ---- not measured ------------------------------------------------------------------------------------------------ */

static void put_failure(FILE *out, const report_device *device, const char *what, const char *whose,
                        const cJSON *failed) {
    fputs("<tr>", out);
    cldsa_html_element(out, "th scope=row", device->label);
    cldsa_html_element(out, bench_is(failed, "status", "error") ? "td class=\"left bad\"" : "td class=left",
                       bench_text(failed, "status"));
    fputs("<td class=reason>", out);
    cldsa_html_text(out, what);
    cldsa_html_text(out, whose);
    fputs("</td>", out);
    cldsa_html_element(out, "td class=reason", bench_text(failed, "reason"));
    fputs("</tr>\n", out);
}

void report_put_failures(FILE *out, const bench_report *report) {
    static const char *const titles[] = {"device", "status", "row", "reason"};
    begin_table(out, titles, sizeof titles / sizeof *titles, 4);
    for (int d = 0; d < report->num_devices; ++d)
        for (size_t i = 0; i < report->devices[d].num_rows; ++i) {
            const report_row *row = &report->devices[d].rows[i];
            const cJSON *peer;
            if (!bench_row_is_ok(row->json))
                put_failure(out, &report->devices[d], row->key, "", row->json);
            cJSON_ArrayForEach(peer, bench_member(row->json, "peers")) {
                char whose[96];
                snprintf(whose, sizeof whose, ", peer %.80s", bench_text(peer, "peer"));
                if (!bench_row_is_ok(peer))
                    put_failure(out, &report->devices[d], row->key, whose, peer);
            }
        }
    end_table(out);
}

/* ---- other vendors' compilers ------------------------------------------------------------------------------------ */

static void put_targets(FILE *out, const cJSON *targets) {
    static const char *const titles[] = {"target", "device", "compiler", "result", "kernels"};
    const cJSON *target;
    begin_table(out, titles, sizeof titles / sizeof *titles, 4);
    cJSON_ArrayForEach(target, targets) {
        char text[256];
        fputs("<tr>", out);
        cldsa_html_element(out, "th scope=row", bench_text(target, "target"));
        cldsa_html_element(out, "td class=left", bench_text(target, "device"));
        cldsa_html_element(out, "td class=reason", bench_text(target, "compiler"));
        snprintf(text, sizeof text, "%.20s%s%.200s", bench_text(target, "status"),
                 *bench_text(target, "reason") ? ": " : "", bench_text(target, "reason"));
        cldsa_html_element(out, bench_is(target, "status", "error") ? "td class=\"reason bad\"" : "td class=reason",
                           text);
        snprintf(text, sizeof text, "%.0f, %.0f fail", bench_number(target, "kernels"), bench_number(target, "failed"));
        cldsa_html_element(out, "td", text);
        fputs("</tr>\n", out);
    }
    end_table(out);
}

/* A target's builds of one kernel: the most registers, spills and local memory, the least occupancy. */
typedef struct vendor_cell {
    int builds, failed;
    double registers, spills, local, occupancy;
    bool in_bytes; /* what is spilled; else in registers */
    const char *reason;
} vendor_cell;

static bool is_same_kernel(const cJSON *a, const cJSON *b) {
    return bench_is(a, "op", bench_text(b, "op")) && bench_is(a, "variant", bench_text(b, "variant")) &&
           bench_is(a, "kernel", bench_text(b, "kernel"));
}

static vendor_cell sum_up(const cJSON *kernels, const cJSON *like, const char *target) {
    vendor_cell cell = {.registers = NAN, .spills = NAN, .local = NAN, .occupancy = NAN, .reason = ""};
    const cJSON *kernel;
    cJSON_ArrayForEach(kernel, kernels) {
        if (!bench_is(kernel, "target", target) || !is_same_kernel(kernel, like))
            continue;
        ++cell.builds;
        if (!bench_row_is_ok(kernel)) {
            ++cell.failed;
            cell.reason = bench_text(kernel, "reason");
        }
        /* fmax and fmin take the number where the other is NaN. */
        cell.registers = fmax(cell.registers, bench_number(kernel, "registers"));
        cell.spills = fmax(fmax(cell.spills, bench_number(kernel, "spills")), bench_number(kernel, "spill_bytes"));
        cell.in_bytes |= bench_member(kernel, "spill_bytes") != NULL;
        cell.local = fmax(cell.local, bench_number(kernel, "local_bytes"));
        cell.occupancy = fmin(cell.occupancy, bench_number(kernel, "occupancy_percent"));
    }
    return cell;
}

static void put_vendor_cell(FILE *out, const vendor_cell *cell) {
    char text[64] = "";
    if (!cell->builds) {
        fputs("<td class=muted>–</td>", out);
        return;
    }
    fputs(cell->failed || cell->spills > 0 ? "<td class=bad title=\"" : "<td title=\"", out);
    cldsa_html_text(out, cell->reason);
    fputs("\">", out);
    if (cell->failed)
        snprintf(text, sizeof text, "%d of %d fail", cell->failed, cell->builds);
    else if (isnan(cell->registers))
        snprintf(text, sizeof text, "compiles");
    else
        snprintf(text, sizeof text, "%.0f reg", cell->registers);
    cldsa_html_text(out, text);
    size_t used = 0;
    text[0] = '\0';
    if (cell->spills > 0)
        used += (size_t)snprintf(text + used, sizeof text - used, "%.0f%s spilled", cell->spills,
                                 cell->in_bytes ? " B" : "");
    if (!isnan(cell->occupancy))
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%.0f %% occ", used ? "\n" : "", cell->occupancy);
    if (cell->local > 0)
        snprintf(text + used, sizeof text - used, "%s%.1f KiB", used ? "\n" : "", cell->local / 1024);
    if (*text)
        cldsa_html_element(out, "div class=muted", text);
    fputs("</td>", out);
}

static bool is_first(const cJSON *kernels, const cJSON *kernel) {
    const cJSON *other = kernels->child;
    while (other != kernel && !is_same_kernel(other, kernel))
        other = other->next;
    return other == kernel;
}

static void put_kernels(FILE *out, const cJSON *targets, const cJSON *kernels) {
    const cJSON *target, *kernel;
    fputs("<div class=scroll><table><thead><tr><th>kernel</th>", out);
    cJSON_ArrayForEach(target, targets) if (!bench_is(target, "status", "skipped"))
        cldsa_html_element(out, "th", bench_text(target, "target"));
    fputs("</tr></thead>\n", out);
    cJSON_ArrayForEach(kernel, kernels) {
        if (!is_first(kernels, kernel))
            continue;
        char text[256];
        snprintf(text, sizeof text, "%.60s %.30s: %.60s", bench_text(kernel, "op"), bench_text(kernel, "variant"),
                 bench_text(kernel, "kernel"));
        fputs("<tr>", out);
        cldsa_html_element(out, "th scope=row", text);
        cJSON_ArrayForEach(target, targets) if (!bench_is(target, "status", "skipped")) {
            vendor_cell cell = sum_up(kernels, kernel, bench_text(target, "target"));
            put_vendor_cell(out, &cell);
        }
        fputs("</tr>\n", out);
    }
    end_table(out);
}

/* Every build that failed, in full. */
static void put_failed_builds(FILE *out, const cJSON *kernels) {
    const cJSON *kernel;
    bool failed = false;
    cJSON_ArrayForEach(kernel, kernels) failed |= !bench_row_is_ok(kernel);
    if (!failed)
        return;
    fputs("<details><summary>Every build that failed, and why</summary><ul>\n", out);
    cJSON_ArrayForEach(kernel, kernels) if (!bench_row_is_ok(kernel)) {
        char text[1400];
        snprintf(text, sizeof text, "%.30s: %.60s of %.60s, %.600s: %.600s", bench_text(kernel, "target"),
                 bench_text(kernel, "kernel"), bench_text(kernel, "file"), bench_text(kernel, "options"),
                 bench_text(kernel, "reason"));
        cldsa_html_element(out, "li", text);
    }
    fputs("</ul></details>\n", out);
}

void report_put_vendors(FILE *out, const bench_report *report) {
    const cJSON *targets = bench_member(report->vendors, "targets"),
                *kernels = bench_member(report->vendors, "kernels");
    fputs(
        "<p>Kernels through other vendors' offline compilers, without their devices: registers per work-item, spills, "
        "occupancy and local memory; of several builds of a kernel the worst.</p>\n",
        out);
    put_targets(out, targets);
    put_kernels(out, targets, kernels);
    put_failed_builds(out, kernels);
}
