/* The tables: cells of text made once, then laid out as Markdown or HTML; and the JSON form. */
#include "host/train/report.h"
#include "host/io/file.h"
#include "host/io/json.h"
#include "host/runtime/runtime.h"
#include "host/train/published.h"
#include "host/train/report_html.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double significance = 0.05;

void cldsa_report_verdict(const cldsa_experiment_config *config, const cldsa_table_comparison *comparison, char *text,
                          size_t size) {
    const cldsa_comparison *c = &comparison->loss;
    const char *ours = config->variants[comparison->variant], *theirs = config->variants[comparison->against];
    if (isnan(c->p)) {
        snprintf(text, size, "S=%d: %s against %s: %+.4f nats; one seed says nothing about significance.",
                 comparison->length, ours, theirs, c->difference);
        return;
    }
    bool significant = c->p_holm < significance;
    snprintf(text, size,
             "S=%d: %s against %s: %+.4f nats (95 %% CI %+.4f to %+.4f): %s (p = %.3g after Holm's correction).",
             comparison->length, ours, theirs, c->difference, c->ci_low, c->ci_high,
             !significant          ? "the difference is not significant"
             : c->difference < 0.0 ? "significantly better"
                                   : "significantly worse",
             c->p_holm);
}

/* ---- cells of the tables ----------------------------------------------------------------------------------------- */

static void put_summary(char *text, size_t size, const cldsa_summary *summary, double factor, const char *format) {
    char mean[32], std[32];
    snprintf(mean, sizeof mean, format, summary->mean * factor);
    snprintf(std, sizeof std, format, summary->std * factor);
    if (isnan(summary->mean))
        snprintf(text, size, "–");
    else if (isnan(summary->std))
        snprintf(text, size, "%s", mean);
    else
        snprintf(text, size, "%s ± %s", mean, std);
}

static void put_layers(char *text, size_t size, const double *values, int count, double factor, const char *format) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < count && used < size; ++i) {
        if (i)
            used += (size_t)snprintf(text + used, size - used, " ");
        used += (size_t)snprintf(text + used, size - used, format, values[i] * factor);
    }
}

static void put_published(const cldsa_experiment_config *config, const cldsa_table_row *row, cldsa_table_text *out) {
    const cldsa_published_row *published = cldsa_published(row->length, config->variants[row->variant]);
    char *cell = out->cell[out->columns++];
    if (!published)
        snprintf(cell, CLDSA_CELL_MAX, "–");
    else if (isnan(published->loss_std))
        snprintf(cell, CLDSA_CELL_MAX, "%.3f", published->loss);
    else
        snprintf(cell, CLDSA_CELL_MAX, "%.3f ± %.3f", published->loss, published->loss_std);
    bool accuracy = published && !isnan(published->accuracy);
    snprintf(out->cell[out->columns++], CLDSA_CELL_MAX,
             accuracy    ? "%.2f"
             : published ? "about 0.1"
                         : "–",
             accuracy ? 100 * published->accuracy : 0.0);
    snprintf(out->cell[out->columns++], CLDSA_CELL_MAX, published ? "%.0f" : "–",
             published ? published->tokens_per_second : 0.0);
}

int cldsa_result_header(const cldsa_experiment_config *config, const char **titles) {
    bool text = config->run.data.task == CLDSA_TASK_TEXT;
    int count = 0;
    titles[count++] = "S";
    titles[count++] = "variant";
    titles[count++] = "validation loss";
    titles[count++] = "accuracy %";
    if (text)
        titles[count++] = "bits per byte";
    titles[count++] = "tokens/s";
    titles[count++] = "peak device MiB";
    titles[count++] = "k per layer";
    titles[count++] = "sparsity % per layer";
    if (config->recipe == CLDSA_RECIPE_SEED) {
        titles[count++] = "published loss";
        titles[count++] = "published accuracy %";
        titles[count++] = "published tokens/s";
    }
    return count;
}

void cldsa_result_row(const cldsa_experiment_config *config, const cldsa_table_row *row, cldsa_table_text *out) {
    out->columns = 0;
#define NEXT out->cell[out->columns++], CLDSA_CELL_MAX
    snprintf(NEXT, "%d", row->length);
    snprintf(NEXT, "%s", config->variants[row->variant]);
    put_summary(NEXT, &row->loss, 1, "%.4f");
    put_summary(NEXT, &row->accuracy, 100, "%.2f");
    if (config->run.data.task == CLDSA_TASK_TEXT)
        put_summary(NEXT, &row->bits_per_byte, 1, "%.4f");
    put_summary(NEXT, &row->tokens_per_second, 1, "%.0f");
    snprintf(NEXT, "%.1f", row->peak_device_bytes / (1 << 20));
    put_layers(NEXT, row->mean_k, row->num_layers, 1, "%.1f");
    put_layers(NEXT, row->sparsity, row->num_layers, 100, "%.0f");
#undef NEXT
    if (config->recipe == CLDSA_RECIPE_SEED)
        put_published(config, row, out);
}

int cldsa_comparison_header(const char **titles) {
    static const char *const names[] = {"S",       "variant",   "against", "difference (nats)",
                                        "95 % CI", "Welch's t", "Holm p",  "Cohen's d"};
    memcpy(titles, names, sizeof names);
    return (int)(sizeof names / sizeof *names);
}

void cldsa_comparison_row(const cldsa_experiment_config *config, const cldsa_table_comparison *row,
                          cldsa_table_text *out) {
    const cldsa_comparison *c = &row->loss;
    out->columns = 0;
#define NEXT out->cell[out->columns++], CLDSA_CELL_MAX
    snprintf(NEXT, "%d", row->length);
    snprintf(NEXT, "%s", config->variants[row->variant]);
    snprintf(NEXT, "%s", config->variants[row->against]);
    snprintf(NEXT, "%+.4f", c->difference);
    if (isnan(c->p)) {
        for (int i = 0; i < 4; ++i)
            snprintf(NEXT, "–");
    } else {
        snprintf(NEXT, "%+.4f … %+.4f", c->ci_low, c->ci_high);
        snprintf(NEXT, "%.3f", c->t);
        snprintf(NEXT, "%.3g", c->p_holm);
        snprintf(NEXT, "%.2f", c->cohens_d);
    }
#undef NEXT
}

/* ---- Markdown -----------------------------------------------------------------------------------------------------
 */

static void markdown_header(FILE *out, const char *const *titles, int count) {
    for (int i = 0; i < count; ++i)
        fprintf(out, "| %s ", titles[i]);
    fputs("|\n", out);
    for (int i = 0; i < count; ++i)
        fputs("|---", out);
    fputs("|\n", out);
}

static void markdown_row(FILE *out, const cldsa_table_text *row) {
    for (int i = 0; i < row->columns; ++i)
        fprintf(out, "| %s ", row->cell[i]);
    fputs("|\n", out);
}

void cldsa_report_heading(const cldsa_experiment_config *config, const cldsa_experiment_result *result, char *text,
                          size_t size) {
    const cldsa_run_config *run = &config->run;
    snprintf(text, size,
             "Recipe %s, task %s, %d steps of batch %d, %d seed%s; %s causal mask, labels shifted %s. "
             "Mean ± standard deviation over seeds. Device: %s.",
             cldsa_recipe_names[config->recipe], cldsa_task_names[run->data.task], run->steps, run->batch,
             config->num_seeds, config->num_seeds == 1 ? "" : "s", run->model.causal ? "with" : "no",
             run->data.shifted_twice ? "twice" : "once", result->device);
}

cldsa_status cldsa_report_markdown(const cldsa_experiment_config *config, const cldsa_experiment_result *result,
                                   char **text) {
    size_t size;
    FILE *out = open_memstream(text, &size);
    if (!out)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory");
    const char *titles[CLDSA_MAX_COLUMNS];
    cldsa_table_text row;
    char line[1024];
    cldsa_report_heading(config, result, line, sizeof line);
    fprintf(out, "%s\n\n", line);
    markdown_header(out, titles, cldsa_result_header(config, titles));
    for (int i = 0; i < result->num_rows; ++i) {
        cldsa_result_row(config, &result->rows[i], &row);
        markdown_row(out, &row);
    }
    if (result->num_comparisons) {
        fputs("\n", out);
        markdown_header(out, titles, cldsa_comparison_header(titles));
        for (int i = 0; i < result->num_comparisons; ++i) {
            cldsa_comparison_row(config, &result->comparisons[i], &row);
            markdown_row(out, &row);
        }
        fputs("\n", out);
        for (int i = 0; i < result->num_comparisons; ++i) {
            cldsa_report_verdict(config, &result->comparisons[i], line, sizeof line);
            fprintf(out, "- %s\n", line);
        }
    }
    return fclose(out) ? cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory") : CLDSA_SUCCESS;
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------
 */

static void put_number(cJSON *object, const char *key, double value) {
    if (isnan(value))
        cJSON_AddNullToObject(object, key);
    else
        cJSON_AddNumberToObject(object, key, value);
}

static void put_json_summary(cJSON *object, const char *key, const cldsa_summary *summary) {
    cJSON *item = cJSON_AddObjectToObject(object, key);
    put_number(item, "mean", summary->mean);
    put_number(item, "std", summary->std);
    put_number(item, "count", summary->count);
}

/* NaN, and so null, where the publication says less. */
static void put_json_published(cJSON *item, const cldsa_published_row *published) {
    cJSON *object = published ? cJSON_AddObjectToObject(item, "published") : NULL;
    if (!object)
        return;
    put_number(object, "validation_loss", published->loss);
    put_number(object, "validation_loss_std", published->loss_std);
    put_number(object, "validation_accuracy", published->accuracy);
    put_number(object, "tokens_per_second", published->tokens_per_second);
}

static cJSON *json_row(const cldsa_experiment_config *config, const cldsa_table_row *row) {
    cJSON *item = cJSON_CreateObject();
    cJSON_AddNumberToObject(item, "length", row->length);
    cJSON_AddStringToObject(item, "variant", config->variants[row->variant]);
    put_json_summary(item, "validation_loss", &row->loss);
    put_json_summary(item, "validation_accuracy", &row->accuracy);
    put_json_summary(item, "bits_per_byte", &row->bits_per_byte);
    put_json_summary(item, "tokens_per_second", &row->tokens_per_second);
    put_json_summary(item, "train_loss", &row->train_loss);
    put_number(item, "peak_device_bytes", row->peak_device_bytes);
    cJSON_AddItemToObject(item, "k", cJSON_CreateDoubleArray(row->mean_k, row->num_layers));
    cJSON_AddItemToObject(item, "sparsity", cJSON_CreateDoubleArray(row->sparsity, row->num_layers));
    if (config->recipe == CLDSA_RECIPE_SEED)
        put_json_published(item, cldsa_published(row->length, config->variants[row->variant]));
    return item;
}

static cJSON *json_comparison(const cldsa_experiment_config *config, const cldsa_table_comparison *row) {
    const cldsa_comparison *c = &row->loss;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddNumberToObject(item, "length", row->length);
    cJSON_AddStringToObject(item, "variant", config->variants[row->variant]);
    cJSON_AddStringToObject(item, "against", config->variants[row->against]);
    put_number(item, "difference", c->difference);
    put_number(item, "ci_low", c->ci_low);
    put_number(item, "ci_high", c->ci_high);
    put_number(item, "t", c->t);
    put_number(item, "df", c->df);
    put_number(item, "p", c->p);
    put_number(item, "p_holm", c->p_holm);
    put_number(item, "cohens_d", c->cohens_d);
    return item;
}

cldsa_status cldsa_report_json(const cldsa_experiment_config *config, const cldsa_experiment_result *result,
                               char **text) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "format", 1);
    cJSON_AddStringToObject(root, "recipe", cldsa_recipe_names[config->recipe]);
    cJSON_AddStringToObject(root, "task", cldsa_task_names[config->run.data.task]);
    cJSON_AddNumberToObject(root, "steps", config->run.steps);
    cJSON_AddNumberToObject(root, "batch", config->run.batch);
    cJSON_AddNumberToObject(root, "seeds", config->num_seeds);
    cJSON_AddStringToObject(root, "device", result->device);
    cJSON *rows = cJSON_AddArrayToObject(root, "rows");
    for (int i = 0; i < result->num_rows; ++i)
        cJSON_AddItemToArray(rows, json_row(config, &result->rows[i]));
    cJSON *comparisons = cJSON_AddArrayToObject(root, "comparisons");
    for (int i = 0; i < result->num_comparisons; ++i)
        cJSON_AddItemToArray(comparisons, json_comparison(config, &result->comparisons[i]));
    *text = cJSON_Print(root);
    cJSON_Delete(root);
    return *text ? CLDSA_SUCCESS : cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory");
}

/* ---- files --------------------------------------------------------------------------------------------------------
 */

typedef cldsa_status (*make_text)(const cldsa_experiment_config *config, const cldsa_experiment_result *result,
                                  char **text);

cldsa_status cldsa_report_write(const cldsa_experiment_config *config, const cldsa_experiment_result *result) {
    static const struct {
        const char *name;
        make_text make;
    } files[] = {
        {"table.md", cldsa_report_markdown}, {"table.json", cldsa_report_json}, {"report.html", cldsa_report_html}};
    for (size_t i = 0; i < sizeof files / sizeof *files; ++i) {
        char path[4096], *text = NULL;
        snprintf(path, sizeof path, "%s/%s", config->out, files[i].name);
        cldsa_status status = files[i].make(config, result, &text);
        if (status == CLDSA_SUCCESS)
            status = cldsa_file_write_all(path, text, strlen(text));
        free(text);
        CLDSA_TRY(status);
    }
    return CLDSA_SUCCESS;
}
