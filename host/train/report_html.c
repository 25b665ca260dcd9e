/* The HTML page: tables, verdicts, and curves drawn from the cells' metrics. One file, no network. */
#include "host/train/report_html.h"
#include "host/io/html.h"
#include "host/io/json.h"
#include "host/io/plot.h"
#include "host/runtime/runtime.h"
#include "host/train/metrics.h"
#include "host/train/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put_header(FILE *out, const char *const *titles, int count) {
    fputs("<div class=scroll><table><tr>", out);
    for (int i = 0; i < count; ++i) {
        cldsa_html_element(out, "th", titles[i]);
    }
    fputs("</tr>\n", out);
}

/* A number for each layer makes a wide cell, which may wrap; no other does. */
static void put_row(FILE *out, const char *const *titles, const cldsa_table_text *row) {
    fputs("<tr>", out);
    for (int i = 0; i < row->columns; ++i)
        cldsa_html_element(out, strstr(titles[i], "per layer") ? "td class=layers" : "td", row->cell[i]);
    fputs("</tr>\n", out);
}

/* ---- curves ------------------------------------------------------------------------------------------------------ */

/* A quantity over steps, averaged over the seeds of one length and variant. */
typedef struct curve {
    double *x, *sum;
    int *count;
    size_t used, capacity;
} curve;

/* What to read of a metrics line. */
typedef enum quantity { TRAIN_LOSS, VALIDATION_LOSS, MEAN_K } quantity;

typedef struct curve_reader {
    curve *curve;
    quantity what;
    size_t at; /* the next point of this seed */
} curve_reader;

static double line_value(const cJSON *object, quantity what) {
    if (what != MEAN_K) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, what == TRAIN_LOSS ? "loss" : "validation_loss");
        return cJSON_IsNumber(value) ? value->valuedouble : NAN;
    }
    const cJSON *layers = cJSON_GetObjectItemCaseSensitive(object, "k"), *layer;
    double sum = 0;
    int count = 0;
    cJSON_ArrayForEach(layer, layers) {
        sum += layer->valuedouble;
        ++count;
    }
    return count ? sum / count : NAN;
}

static bool grow(curve *c) {
    size_t capacity = c->capacity ? c->capacity * 2 : 256;
    double *x = realloc(c->x, capacity * sizeof *x);
    if (x)
        c->x = x;
    double *sum = realloc(c->sum, capacity * sizeof *sum);
    if (sum)
        c->sum = sum;
    int *count = realloc(c->count, capacity * sizeof *count);
    if (count)
        c->count = count;
    if (!x || !sum || !count)
        return false;
    c->capacity = capacity;
    return true;
}

static void take_line(void *user, const cJSON *object) {
    curve_reader *reader = user;
    curve *c = reader->curve;
    const cJSON *step = cJSON_GetObjectItemCaseSensitive(object, "step");
    double value = line_value(object, reader->what);
    if (isnan(value) || !cJSON_IsNumber(step) || (reader->at == c->capacity && !grow(c)))
        return;
    if (reader->at == c->used) {
        c->x[c->used] = step->valuedouble;
        c->sum[c->used] = 0;
        c->count[c->used++] = 0;
    }
    c->sum[reader->at] += value;
    c->count[reader->at++]++;
}

static curve read_curve(const cldsa_experiment_config *config, const cldsa_experiment_result *result, int length,
                        int variant, quantity what) {
    curve c = {0};
    for (int i = 0; i < result->num_cells; ++i) {
        const cldsa_cell *cell = &result->cells[i];
        char path[4200];
        if (cell->length != length || cell->variant != variant)
            continue;
        cldsa_cell_directory(config, cell, path, sizeof path - 16);
        strcat(path, "/metrics.jsonl");
        /* A cell whose metrics are gone has no curve; its row in the table stands. */
        cldsa_metrics_read(path, take_line, &(curve_reader){&c, what, 0});
    }
    for (size_t i = 0; i < c.used; ++i)
        c.sum[i] /= c.count[i];
    return c;
}

/* Step-by-step losses are noise at this size: a running mean over a fortieth of the run. */
static void smooth(curve *c) {
    if (!c->used)
        return;
    size_t window = c->used / 40 + 1;
    double sum = 0;
    double *raw = malloc(c->used * sizeof *raw);
    if (!raw)
        return;
    memcpy(raw, c->sum, c->used * sizeof *raw);
    for (size_t i = 0; i < c->used; ++i) {
        sum += raw[i] - (i >= window ? raw[i - window] : 0);
        c->sum[i] = sum / (double)(i + 1 < window ? i + 1 : window);
    }
    free(raw);
}

static void put_plot(FILE *out, const cldsa_experiment_config *config, const cldsa_experiment_result *result,
                     int length, quantity what) {
    static const char *const labels[] = {"training loss (nats)", "validation loss (nats)", "keys kept per row"};
    curve curves[CLDSA_MAX_AXIS];
    cldsa_plot_series series[CLDSA_MAX_AXIS];
    for (int v = 0; v < config->num_variants; ++v) {
        curves[v] = read_curve(config, result, length, v, what);
        if (what == TRAIN_LOSS)
            smooth(&curves[v]);
        series[v] = (cldsa_plot_series){
            .name = config->variants[v], .x = curves[v].x, .y = curves[v].sum, .count = curves[v].used};
    }
    char title[64], *svg;
    snprintf(title, sizeof title, "S = %d", length);
    cldsa_plot plot = {.title = title,
                       .x_label = "step",
                       .y_label = labels[what],
                       .series = series,
                       .num_series = config->num_variants,
                       .points = what != TRAIN_LOSS};
    if (cldsa_plot_svg(&plot, &svg) == CLDSA_SUCCESS) {
        fputs(svg, out);
        free(svg);
    } else {
        cldsa_html_element(out, "p", cldsa_error_message());
    }
    for (int v = 0; v < config->num_variants; ++v) {
        free(curves[v].x);
        free(curves[v].sum);
        free(curves[v].count);
    }
}

static void put_plots(FILE *out, const cldsa_experiment_config *config, const cldsa_experiment_result *result,
                      const char *heading, quantity what) {
    fprintf(out, "<h2>%s</h2><div class=plots>\n", heading);
    for (int l = 0; l < config->num_lengths; ++l)
        put_plot(out, config, result, config->lengths[l], what);
    fputs("</div>\n", out);
}

/* ---- the page ---------------------------------------------------------------------------------------------------- */

static void put_tables(FILE *out, const cldsa_experiment_config *config, const cldsa_experiment_result *result) {
    const char *titles[CLDSA_MAX_COLUMNS];
    cldsa_table_text row;
    char line[1024];
    put_header(out, titles, cldsa_result_header(config, titles));
    for (int i = 0; i < result->num_rows; ++i) {
        cldsa_result_row(config, &result->rows[i], &row);
        put_row(out, titles, &row);
    }
    fputs("</table></div>\n", out);
    if (!result->num_comparisons)
        return;
    fputs("<h2>Adaptive against the others (validation loss)</h2>", out);
    put_header(out, titles, cldsa_comparison_header(titles));
    for (int i = 0; i < result->num_comparisons; ++i) {
        cldsa_comparison_row(config, &result->comparisons[i], &row);
        put_row(out, titles, &row);
    }
    fputs("</table></div><ul>\n", out);
    for (int i = 0; i < result->num_comparisons; ++i) {
        cldsa_report_verdict(config, &result->comparisons[i], line, sizeof line);
        cldsa_html_element(out, "li", line);
    }
    fputs("</ul>\n", out);
}

cldsa_status cldsa_report_html(const cldsa_experiment_config *config, const cldsa_experiment_result *result,
                               char **text) {
    size_t size;
    FILE *out = open_memstream(text, &size);
    if (!out)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory");
    char line[1024];
    snprintf(line, sizeof line, "Adaptive sparsity: %s", cldsa_recipe_names[config->recipe]);
    cldsa_html_begin(out, line, "Dense, fixed and adaptive sparsity",
                     "td:first-child,td:nth-child(2),th:nth-child(2){text-align:left}th{white-space:normal}"
                     "td,th{padding:.3em .5em}.layers{white-space:normal;min-width:6.5em}");
    cldsa_report_heading(config, result, line, sizeof line);
    cldsa_html_element(out, "p", line);
    put_tables(out, config, result);
    put_plots(out, config, result, "Training loss", TRAIN_LOSS);
    put_plots(out, config, result, "Validation loss", VALIDATION_LOSS);
    put_plots(out, config, result, "Keys kept per row, mean over layers", MEAN_K);
    cldsa_html_end(out);
    return fclose(out) ? cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory") : CLDSA_SUCCESS;
}
