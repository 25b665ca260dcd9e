/* What the figures say, in sentences that a reader can check against the tables: one per question, all devices in it.
 */
#include "bench/report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A finding grows clause by clause; one without a clause is not kept. */
static report_finding *begin(bench_report *report, const char *head) {
    static report_finding lost;
    report_finding *finding =
        report->num_findings < REPORT_MAX_FINDINGS ? &report->findings[report->num_findings++] : &lost;
    *finding = (report_finding){{0}, {0}};
    snprintf(finding->head, sizeof finding->head, "%s", head);
    return finding;
}

static void say(report_finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(report_finding *finding, const char *format, ...) {
    size_t used = strlen(finding->text);
    va_list list;
    va_start(list, format);
    vsnprintf(finding->text + used, sizeof finding->text - used, format, list);
    va_end(list);
}

static const char *comma(const report_finding *finding, const char *separator) {
    return *finding->text ? separator : "";
}

static void end(bench_report *report, report_finding *finding) {
    if (*finding->text)
        say(finding, ".");
    else if (report->num_findings)
        --report->num_findings;
}

/* ---- where sparsity pays ----------------------------------------------------------------------------------------- */

static void find_crossovers(bench_report *report, const char *mode) {
    char head[64];
    snprintf(head, sizeof head, "Sparsity pays in %s", mode);
    report_finding *finding = begin(report, head);
    for (int d = 0; d < report->num_devices; ++d) {
        const report_device *device = &report->devices[d];
        double from, to, K, T = report_crossover(device, mode, &from, &to, &K);
        if (isnan(T))
            continue;
        say(finding, "%s%s ", comma(finding, "; "), device->label);
        if (T == 0)
            say(finding, "nowhere");
        else
            say(finding, T == from ? "from T = %.0f, the least measured" : "from T = %.0f on", T);
        say(finding, " (K = %.0f, measured to T = %.0f)", K, to);
    }
    end(report, finding);
}

/* ---- how near the roof ------------------------------------------------------------------------------------------- */

static const char *find_weakest(const report_device *device, double *lowest) {
    const char *weakest = "";
    *lowest = INFINITY;
    for (size_t i = 0; i < device->num_rows; ++i) {
        int count;
        const char *op = bench_text(device->rows[i].json, "op");
        double percent = *op ? report_mean(device, op, report_percent, &count) : NAN;
        if (percent < *lowest) {
            *lowest = percent;
            weakest = op;
        }
    }
    return weakest;
}

static void find_roof(bench_report *report) {
    report_finding *finding = begin(report, "Of their measured rooflines devices reach");
    for (int d = 0; d < report->num_devices; ++d) {
        int count;
        double lowest, mean = report_mean(&report->devices[d], NULL, report_percent, &count);
        if (!count)
            continue;
        const char *weakest = find_weakest(&report->devices[d], &lowest);
        say(finding, "%s%s %.0f %% (geometric mean of %d calls; least: %s, %.1f %%)", comma(finding, "; "),
            report->devices[d].label, mean, count, weakest, lowest);
    }
    end(report, finding);
}

/* ---- tuning ------------------------------------------------------------------------------------------------------ */

static void find_gain(bench_report *report) {
    report_finding *finding = begin(report, "Tuning gains");
    for (int d = 0; d < report->num_devices; ++d) {
        const report_device *device = &report->devices[d];
        int count, slower = 0;
        double mean = report_mean(device, NULL, report_gain, &count), best = 0;
        const char *best_op = "";
        for (size_t i = 0; i < device->num_rows; ++i) {
            double gain = report_gain(device->rows[i].json);
            slower += gain < 0.97;
            if (gain > best) {
                best = gain;
                best_op = bench_text(device->rows[i].json, "op");
            }
        }
        if (count)
            say(finding,
                "%s%s %.2f x over defaults (geometric mean of %d calls; most: %s, %.2f x; %d over 3 %% slower)",
                comma(finding, "; "), device->label, mean, count, best_op, best, slower);
    }
    end(report, finding);
}

/* ---- peers ------------------------------------------------------------------------------------------------------- */

enum { MOST_PEERS = 8 };

typedef struct peer_score {
    const char *name;
    int count, ahead;
    double sum;
} peer_score;

static peer_score *score_of(peer_score *scores, int *count, const char *name) {
    for (int i = 0; i < *count; ++i)
        if (strcmp(scores[i].name, name) == 0)
            return &scores[i];
    if (*count == MOST_PEERS)
        return NULL;
    scores[*count] = (peer_score){.name = name};
    return &scores[(*count)++];
}

static void find_peers(bench_report *report, const report_device *device) {
    peer_score scores[MOST_PEERS];
    int num_scores = 0;
    char head[64];
    for (size_t i = 0; i < device->num_rows; ++i) {
        const cJSON *peer;
        cJSON_ArrayForEach(peer, bench_member(device->rows[i].json, "peers")) {
            double ratio = bench_row_is_ok(peer) ? bench_number(peer, "ratio") : NAN;
            peer_score *score = ratio > 0 ? score_of(scores, &num_scores, bench_text(peer, "peer")) : NULL;
            if (!score)
                continue;
            score->sum += log(ratio);
            score->ahead += ratio > 1;
            ++score->count;
        }
    }
    snprintf(head, sizeof head, "%.40s against peers", device->label);
    report_finding *finding = begin(report, head);
    for (int i = 0; i < num_scores; ++i)
        say(finding, "%s%.2f x %s's speed (geometric mean; faster in %d of %d)", comma(finding, "; "),
            exp(scores[i].sum / scores[i].count), scores[i].name, scores[i].ahead, scores[i].count);
    end(report, finding);
}

/* ---- devices against each other ---------------------------------------------------------------------------------- */

static double tokens(const cJSON *row) {
    return bench_number(bench_member(row, "tokens_per_second"), "median");
}

static const report_row *find_fastest_training(const bench_report *report, int *device) {
    const report_row *best = NULL;
    double most = 0;
    for (int d = 0; d < report->num_devices; ++d)
        for (size_t i = 0; i < report->devices[d].num_rows; ++i)
            if (tokens(report->devices[d].rows[i].json) > most) {
                best = &report->devices[d].rows[i];
                most = tokens(best->json);
                *device = d;
            }
    return best;
}

static void find_training(bench_report *report) {
    int fastest = 0;
    const report_row *best = find_fastest_training(report, &fastest);
    if (!best)
        return;
    report_finding *finding = begin(report, "Training");
    say(finding, "%s leads with %.0f tokens/s (S = %.0f, %s)", report->devices[fastest].label, tokens(best->json),
        bench_number(best->json, "length"), bench_text(best->json, "variant"));
    for (int d = 0; d < report->num_devices; ++d) {
        double other = d == fastest ? NAN : tokens(report_find(&report->devices[d], best->key));
        if (other > 0)
            say(finding, ", %.1f x %s's", tokens(best->json) / other, report->devices[d].label);
    }
    end(report, finding);
}

/* ---- what is missing --------------------------------------------------------------------------------------------- */

static void find_failures(bench_report *report) {
    int rows = 0, of_status[BENCH_ERROR + 1] = {0};
    for (int d = 0; d < report->num_devices; ++d)
        for (size_t i = 0; i < report->devices[d].num_rows; ++i, ++rows)
            for (int s = BENCH_OK; s <= BENCH_ERROR; ++s)
                of_status[s] += bench_is(report->devices[d].rows[i].json, "status", bench_status_names[s]);
    report_finding *finding = begin(report, "Not measured");
    if (!rows)
        return end(report, finding);
    say(finding, "%d of %d rows", rows - of_status[BENCH_OK], rows);
    if (of_status[BENCH_OK] < rows)
        say(finding, " (error: %d, unsupported: %d, skipped: %d; the reasons are listed)", of_status[BENCH_ERROR],
            of_status[BENCH_UNSUPPORTED], of_status[BENCH_SKIPPED]);
    end(report, finding);
}

/* A compute roof that calls break through, or a busy machine: the figures of such a device are worth less. */
static void find_doubts(bench_report *report) {
    static const double allowance = 110;
    report_finding *finding = begin(report, "To be read with care");
    for (int d = 0; d < report->num_devices; ++d) {
        const report_device *device = &report->devices[d];
        const cJSON *host = bench_member(device->system, "host");
        double load = bench_number(host, "load_before"), threads = bench_number(host, "threads");
        int above = 0;
        for (size_t i = 0; i < device->num_rows; ++i)
            above += bench_is(bench_member(device->rows[i].json, "roofline"), "limit", "compute") &&
                     report_percent(device->rows[i].json) > allowance;
        if (above)
            say(finding,
                "%son %s %d calls exceed the measured peak of arithmetic by over 10 %%, so that was measured too low",
                comma(finding, "; "), device->label, above);
        if (load > threads / 2)
            say(finding, "%s%s was busy with other work (load %.1f on %.0f threads before the run)",
                comma(finding, "; "), device->label, load, threads);
    }
    end(report, finding);
}

static void find_vendors(bench_report *report) {
    int targets = 0, good = 0, skipped = 0, kernels = 0, failed = 0;
    const cJSON *target;
    cJSON_ArrayForEach(target, bench_member(report->vendors, "targets")) {
        ++targets;
        skipped += bench_is(target, "status", "skipped");
        good += bench_is(target, "status", "ok");
        kernels += (int)bench_number(target, "kernels");
        failed += (int)bench_number(target, "failed");
    }
    report_finding *finding = begin(report, "Other vendors' compilers");
    if (targets)
        say(finding, "%d of %d targets take every kernel, %d were skipped; of %d builds %d fail", good, targets,
            skipped, kernels, failed);
    end(report, finding);
}

void report_find_out(bench_report *report) {
    find_crossovers(report, "decode");
    find_crossovers(report, "prefill");
    find_roof(report);
    find_training(report);
    find_gain(report);
    for (int d = 0; d < report->num_devices; ++d)
        find_peers(report, &report->devices[d]);
    find_failures(report);
    find_doubts(report);
    find_vendors(report);
}
