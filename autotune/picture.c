/* The search as a page: best over time, time by value of each parameter, and what each parameter is worth. */
#include "autotune/session.h"

#include "host/io/file.h"
#include "host/io/html.h"
#include "host/io/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GROUPS = 1024, FEWEST_TRIALS = 3 };

/* The trials of one variant for one case. */
typedef struct group {
    const char *label, *variant;
    const cJSON **trials;
    size_t count, capacity;
} group;

static double number(const cJSON *record, const char *key) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(record, key);
    return cJSON_IsNumber(value) ? value->valuedouble : NAN;
}

/* ---- trials by case and variant ---------------------------------------------------------------------------------- */

static group *group_of(group *groups, int *count, const char *label, const char *variant) {
    for (int i = 0; i < *count; ++i)
        if (strcmp(groups[i].label, label) == 0 && strcmp(groups[i].variant, variant) == 0)
            return &groups[i];
    if (*count == MAX_GROUPS)
        return NULL;
    groups[*count] = (group){.label = label, .variant = variant};
    return &groups[(*count)++];
}

static int gather(const tuner_log *log, group *groups) {
    int count = 0;
    const cJSON *record;
    cJSON_ArrayForEach(record, log->records) {
        if (!cJSON_HasObjectItem(record, "trial"))
            continue;
        group *g = group_of(groups, &count, cldsa_json_text(record, "trial"), cldsa_json_text(record, "variant"));
        if (g && g->count == g->capacity) {
            size_t capacity = g->capacity ? 2 * g->capacity : 64;
            const cJSON **grown = realloc(g->trials, capacity * sizeof *grown);
            if (!grown)
                continue;
            g->trials = grown;
            g->capacity = capacity;
        }
        if (g)
            g->trials[g->count++] = record;
    }
    return count;
}

static double best_seconds(const group *g) {
    double best = INFINITY;
    for (size_t i = 0; i < g->count; ++i)
        best = fmin(best, number(g->trials[i], "seconds"));
    return best;
}

/* ---- plots ------------------------------------------------------------------------------------------------------- */

static void put_plot(FILE *out, const cldsa_plot *plot) {
    char *svg;
    if (cldsa_plot_svg(plot, &svg) == CLDSA_SUCCESS) {
        fputs(svg, out);
        free(svg);
        return;
    }
    cldsa_html_element(out, "p", cldsa_error_message());
}

static void put_progress(FILE *out, const group *g) {
    double *x = calloc(2 * g->count, sizeof *x), *best = x + g->count, so_far = INFINITY;
    double *each = calloc(g->count, sizeof *each);
    if (x && each) {
        for (size_t i = 0; i < g->count; ++i) {
            double seconds = number(g->trials[i], "seconds");
            so_far = fmin(so_far, seconds);
            x[i] = number(g->trials[i], "at") - number(g->trials[0], "at");
            each[i] = 1e3 * seconds;
            best[i] = 1e3 * so_far;
        }
        const cldsa_plot_series series[] = {
            {.name = "best so far", .x = x, .y = best, .count = g->count},
            {.name = "candidate", .x = x, .y = each, .count = g->count, .style = CLDSA_PLOT_POINTS}};
        put_plot(out, &(cldsa_plot){.title = "the search",
                                    .x_label = "seconds of tuning",
                                    .y_label = "ms per call",
                                    .series = series,
                                    .num_series = 2,
                                    .points = true,
                                    .log_y = true});
    }
    free(x);
    free(each);
}

/* The tunables' names in their order, from a candidate's text. */
static int names_of(const group *g, char names[TUNER_MAX_TUNABLES][32]) {
    int count = 0;
    for (const char *at = cldsa_json_text(g->trials[0], "tunables"); *at && count < TUNER_MAX_TUNABLES;
         at += *at == ',') {
        snprintf(names[count++], 32, "%.*s", (int)strcspn(at, "="), at);
        at += strcspn(at, ",");
    }
    return count;
}

static bool value_of(const cJSON *trial, const char *name, double *value) {
    char text[CLDSA_WORKLOAD_TEXT];
    bool found = cldsa_workload_option(cldsa_json_text(trial, "tunables"), ',', name, text);
    *value = found ? atof(text) : NAN;
    return found;
}

/* For each value of a tunable the best time with it; ascending values. */
static size_t best_by_value(const group *g, const char *name, double *values, double *best) {
    size_t count = 0;
    for (size_t i = 0; i < g->count; ++i) {
        double value, seconds = number(g->trials[i], "seconds");
        size_t at = 0;
        if (!value_of(g->trials[i], name, &value) || !isfinite(seconds))
            continue;
        while (at < count && values[at] < value)
            ++at;
        if (at == count || values[at] != value) {
            if (count == TUNER_MAX_VALUES)
                continue;
            memmove(values + at + 1, values + at, (count - at) * sizeof *values);
            memmove(best + at + 1, best + at, (count - at) * sizeof *best);
            values[at] = value;
            best[at] = seconds;
            ++count;
        }
        best[at] = fmin(best[at], seconds);
    }
    return count;
}

static void put_parameters(FILE *out, const group *g) {
    static const double shown_as_zero = 0.5; /* the axis is logarithmic */
    char names[TUNER_MAX_TUNABLES][32];
    double values[TUNER_MAX_TUNABLES][TUNER_MAX_VALUES], best[TUNER_MAX_TUNABLES][TUNER_MAX_VALUES];
    cldsa_plot_series series[TUNER_MAX_TUNABLES];
    int count = names_of(g, names), shown = 0;
    for (int t = 0; t < count; ++t) {
        size_t points = best_by_value(g, names[t], values[t], best[t]);
        for (size_t i = 0; i < points; ++i) {
            values[t][i] = fmax(values[t][i], shown_as_zero);
            best[t][i] *= 1e3;
        }
        if (points > 1)
            series[shown++] = (cldsa_plot_series){.name = names[t], .x = values[t], .y = best[t], .count = points};
    }
    if (shown)
        put_plot(out, &(cldsa_plot){.title = "best time with each value",
                                    .x_label = "value (0 stands at 0.5)",
                                    .y_label = "ms per call",
                                    .series = series,
                                    .num_series = shown,
                                    .points = true,
                                    .log_x = true,
                                    .log_y = true});
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

/* What is lost by leaving one tunable at its default and choosing the others freely. The first trial is the default. */
static void put_worth(FILE *out, const group *g) {
    char names[TUNER_MAX_TUNABLES][32];
    double values[TUNER_MAX_VALUES], best[TUNER_MAX_VALUES], overall = best_seconds(g), fallback;
    int count = names_of(g, names);
    fputs("<div class=scroll><table><tr><th>parameter<th>default<th>best<th>worth<th>range\n", out);
    for (int t = 0; t < count; ++t) {
        size_t points = best_by_value(g, names[t], values, best), fastest = 0, usual = points;
        double slowest = 0;
        for (size_t i = 0; i < points; ++i) {
            fastest = best[i] < best[fastest] ? i : fastest;
            slowest = fmax(slowest, best[i]);
            if (value_of(g->trials[0], names[t], &fallback) && values[i] == fallback)
                usual = i;
        }
        if (!points || !value_of(g->trials[0], names[t], &fallback))
            continue;
        fprintf(out, "<tr><td>%s<td>%g<td>%g<td>", names[t], fallback, values[fastest]);
        if (usual < points)
            fprintf(out, "%.2f x", best[usual] / overall);
        fprintf(out, "<td>%.2f x over %zu values</tr>\n", slowest / overall, points);
    }
    fputs("</table></div>\n", out);
}

static void put_failures(FILE *out, const group *g) {
    size_t failed = 0;
    for (size_t i = 0; i < g->count; ++i)
        failed += !isfinite(number(g->trials[i], "seconds"));
    if (!failed)
        return;
    fprintf(out, "<details><summary>%zu of %zu candidates failed</summary><ul>\n", failed, g->count);
    for (size_t i = 0; i < g->count; ++i) {
        if (isfinite(number(g->trials[i], "seconds")))
            continue;
        fputs("<li>", out);
        cldsa_html_text(out, cldsa_json_text(g->trials[i], "tunables"));
        fprintf(out, ": %s. ", cldsa_json_text(g->trials[i], "outcome"));
        cldsa_html_text(out, cldsa_json_text(g->trials[i], "reason"));
    }
    fputs("</ul></details>\n", out);
}

static void put_winners(FILE *out, const tuner_log *log) {
    const cJSON *record;
    fputs("<h2>Winners</h2><p>Each variant's winner for a case against its default, measured in turns; the fastest "
          "variant in bold.</p>\n<div class=scroll><table><tr><th>case<th class=l>variant<th "
          "class=l>tunables<th>default ms<th>ms"
          "<th>gain\n",
          out);
    cJSON_ArrayForEach(record, log->records) {
        if (!cJSON_HasObjectItem(record, "winner"))
            continue;
        const char *bold = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(record, "fastest")) ? "b" : "span";
        fputs("<tr><td>", out);
        cldsa_html_text(out, cldsa_json_text(record, "winner"));
        fprintf(out, "<td class=l><%s>%s</%s><td class=l>%s<td>%.4g<td>%.4g<td>%.2f x</tr>\n", bold,
                cldsa_json_text(record, "variant"), bold, cldsa_json_text(record, "tunables"),
                1e3 * number(record, "default_seconds"), 1e3 * number(record, "seconds"),
                number(record, "default_seconds") / number(record, "seconds"));
    }
    fputs("</table></div>\n", out);
}

/* Too few to tell anything of parameters. */
static void put_line(FILE *out, const group *g) {
    char text[32];
    fputs("<p class=muted>", out);
    cldsa_html_text(out, g->label);
    fprintf(out, ", %s: %zu %s, best %s</p>\n", g->variant, g->count, g->count == 1 ? "candidate" : "candidates",
            tuner_duration(best_seconds(g), text));
    put_failures(out, g);
}

static void put_group(FILE *out, const group *g) {
    if (g->count < FEWEST_TRIALS || !isfinite(best_seconds(g)) || !*cldsa_json_text(g->trials[0], "tunables")) {
        put_line(out, g);
        return;
    }
    fputs("<h2>", out);
    cldsa_html_text(out, g->label);
    fprintf(out, ", %s</h2>\n", g->variant);
    put_failures(out, g);
    fputs("<div class=plots>\n", out);
    put_progress(out, g);
    put_parameters(out, g);
    fputs("</div>\n", out);
    put_worth(out, g);
}

cldsa_status tuner_picture(const tuner_log *log, char path[4096]) {
    char *text = NULL;
    size_t size = 0;
    group *groups = calloc(MAX_GROUPS, sizeof *groups);
    FILE *out = groups ? open_memstream(&text, &size) : NULL;
    if (!out) {
        free(groups);
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for the picture of the search");
    }
    const cJSON *head = cJSON_GetArrayItem(log->records, 0);
    cldsa_html_begin(out, "Tuning", cldsa_json_text(head, "device"), "td:first-child,.l{text-align:left}");
    fputs("<p>Worth: how much slower the best candidate is that keeps the parameter's default. Range: between the "
          "parameter's best and worst value, the others chosen for each.</p>\n",
          out);
    put_winners(out, log);
    int count = gather(log, groups);
    for (int i = 0; i < count; ++i) {
        put_group(out, &groups[i]);
        free(groups[i].trials);
    }
    free(groups);
    cldsa_html_end(out);
    if (fclose(out))
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for the picture of the search");
    int stem = (int)strlen(log->path);
    if (stem > 6 && strcmp(log->path + stem - 6, ".jsonl") == 0)
        stem -= 6;
    snprintf(path, 4096, "%.*s.html", stem < 4080 ? stem : 4080, log->path);
    cldsa_status status = cldsa_file_write_all(path, text, size);
    free(text);
    return status;
}
