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

/* What a table of compilers says of one build. */
static double registers_of(const cJSON *kernel) {
    return bench_number(kernel, "registers");
}

static double spills_of(const cJSON *kernel) {
    double bytes = bench_number(kernel, "spill_bytes");
    return isnan(bytes) ? bench_number(kernel, "spills") : bytes;
}

static double occupancy_of(const cJSON *kernel) {
    return bench_number(kernel, "occupancy_percent");
}

static double local_of(const cJSON *kernel) {
    return bench_number(kernel, "local_bytes") / 1024;
}

/* Of a variant that the library takes on that target by itself. */
static bool is_chosen(const cJSON *kernel) {
    return !cJSON_IsFalse(bench_member(kernel, "chosen"));
}

/* The target's build with the largest value (or smallest), of chosen variants only or of all; NULL without any. */
static const cJSON *find_extreme(const cJSON *kernels, const char *target, double (*value)(const cJSON *), bool least,
                                 bool chosen) {
    const cJSON *kernel, *worst = NULL;
    cJSON_ArrayForEach(kernel, kernels) {
        double number = value(kernel);
        if (isnan(number) || !bench_is(kernel, "target", target) || (chosen && !is_chosen(kernel)))
            continue;
        if (!worst || (least ? number < value(worst) : number > value(worst)))
            worst = kernel;
    }
    return worst;
}

/* A kernel's name under a figure, which may break behind underscores. */
static void put_kernel_name(FILE *out, const char *name) {
    fputs("<div class=\"muted kernel\">", out);
    for (size_t length; *name; name += length) {
        char part[64];
        length = strcspn(name, "_");
        length += name[length] == '_';
        length = length < sizeof part ? length : sizeof part - 1;
        snprintf(part, sizeof part, "%.*s", (int)length, name);
        cldsa_html_text(out, part);
        if (name[length])
            fputs("<wbr>", out);
    }
    fputs("</div>", out);
}

/* A figure with the kernel that it is of. */
static void put_extreme(FILE *out, const cJSON *kernel, double (*value)(const cJSON *), const char *format) {
    char text[64];
    if (!kernel || !(value(kernel) > 0)) {
        fputs("<td class=muted>–</td>", out);
        return;
    }
    snprintf(text, sizeof text, format, value(kernel));
    fputs("<td>", out);
    cldsa_html_text(out, text);
    put_kernel_name(out, bench_text(kernel, "kernel"));
    fputs("</td>", out);
}

/* "12 builds" / "574, rope_vec", in red where a chosen variant spills. */
static void put_spills(FILE *out, const cJSON *kernels, const char *target) {
    const cJSON *kernel, *most = find_extreme(kernels, target, spills_of, false, false);
    int builds = 0, chosen = 0;
    char text[96];
    if (!most || !(spills_of(most) > 0)) {
        cldsa_html_element(out, "td class=muted", most ? "none" : "–");
        return;
    }
    cJSON_ArrayForEach(kernel, kernels) if (bench_is(kernel, "target", target) && spills_of(kernel) > 0) {
        ++builds;
        chosen += is_chosen(kernel);
    }
    snprintf(text, sizeof text, "%d, %d chosen", builds, chosen);
    fputs(chosen ? "<td class=bad>" : "<td>", out);
    cldsa_html_text(out, text);
    snprintf(text, sizeof text, "%.60s: %.0f%s", bench_text(most, "kernel"), spills_of(most),
             bench_member(most, "spill_bytes") ? " B" : "");
    put_kernel_name(out, text);
    fputs("</td>", out);
}

static void put_target(FILE *out, const cJSON *target, const cJSON *kernels) {
    const char *name = bench_text(target, "target");
    char text[256];
    fputs("<tr><th scope=row>", out);
    cldsa_html_text(out, name);
    cldsa_html_element(out, "div class=muted", bench_text(target, "device"));
    fputs("</th>", out);
    cldsa_html_element(out, "td class=compiler", bench_text(target, "compiler"));
    if (!bench_is(target, "status", "ok")) {
        snprintf(text, sizeof text, "%.20s%s%.200s", bench_text(target, "status"),
                 *bench_text(target, "reason") ? ": " : "", bench_text(target, "reason"));
        cldsa_html_element(out, bench_is(target, "status", "error") ? "td class=\"reason bad\"" : "td class=reason",
                           text);
    } else {
        fputs("<td class=left>ok</td>", out);
    }
    snprintf(text, sizeof text, "%.0f, %.0f fail", bench_number(target, "kernels"), bench_number(target, "failed"));
    cldsa_html_element(out, bench_number(target, "failed") > 0 ? "td class=bad" : "td", text);
    put_extreme(out, find_extreme(kernels, name, registers_of, false, true), registers_of, "%.0f");
    put_spills(out, kernels, name);
    put_extreme(out, find_extreme(kernels, name, occupancy_of, true, true), occupancy_of, "%.0f %%");
    put_extreme(out, find_extreme(kernels, name, local_of, false, true), local_of, "%.1f KiB");
    fputs("</tr>\n", out);
}

static void put_targets(FILE *out, const cJSON *targets, const cJSON *kernels) {
    static const char *const titles[] = {"target",         "compiler",          "result",          "builds",
                                         "most registers", "builds that spill", "least occupancy", "most local memory"};
    const cJSON *target;
    begin_table(out, titles, sizeof titles / sizeof *titles, 3);
    cJSON_ArrayForEach(target, targets) put_target(out, target, kernels);
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
    fputs("<p>Kernels through other vendors' offline compilers, without their devices. Registers per work-item, local "
          "memory and occupancy are the worst of the variants that the library chooses there by itself; spills are "
          "counted over all builds, and no hot kernel of a chosen variant may have any.</p>\n",
          out);
    put_targets(out, targets, kernels);
    fputs("<details><summary>Every kernel on every target: registers, spills, occupancy and local memory; of several "
          "builds of a kernel the worst</summary>\n",
          out);
    put_kernels(out, targets, kernels);
    fputs("</details>\n", out);
    put_failed_builds(out, kernels);
}
