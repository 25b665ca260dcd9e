#include "host/train/controller_table.h"
#include "host/nn/policy_run.h"
#include "host/ops/philox.h"

#include <cjson/cJSON.h>
#include <gsl/gsl_sort_double.h>
#include <gsl/gsl_statistics_double.h>
#include <stdio.h>
#include <stdlib.h>

enum { HIDDEN_STREAM = 0x6b746162, MAX_LENGTH = 256 };

/* k of the publication (blueberry-llm, experiment_3): one draw each, unseeded. */
static const struct {
    int length;
    int k[CLDSA_CONTROLLER_KINDS];
} published[CLDSA_CONTROLLER_LENGTHS] = {{64, {17, 17, 13}}, {128, {35, 35, 38}}, {256, {70, 70, 56}}};

static const struct {
    const char *name;
    double scale;
} kinds[CLDSA_CONTROLLER_KINDS] = {{"uniform", 1}, {"sparse", 0.1}, {"dense", 10}};

static void summarise(cldsa_controller_row *row, double *k, int draws) {
    size_t n = (size_t)draws;
    int below = 0;
    for (int i = 0; i < draws; ++i)
        below += k[i] <= row->published;
    gsl_sort(k, 1, n);
    row->mean = gsl_stats_mean(k, 1, n);
    row->std = draws > 1 ? gsl_stats_sd(k, 1, n) : 0;
    row->min = k[0];
    row->max = k[n - 1];
    row->median = gsl_stats_median_from_sorted_data(k, 1, n);
    row->low = gsl_stats_quantile_from_sorted_data(k, 1, n, 0.025);
    row->high = gsl_stats_quantile_from_sorted_data(k, 1, n, 0.975);
    row->published_rank = (double)below / draws;
}

/* Fresh weights and fresh hidden states for every draw, as the publication's were. */
static cldsa_status draw_row(cldsa_policy_run *run, cldsa_controller_row *row, int draws, uint64_t first_seed,
                             float *hidden, double *k) {
    int64_t numel = (int64_t)row->length * run->nn.config->hidden_size;
    CLDSA_TRY(cldsa_policy_run_shape(run, 1, row->length));
    for (int i = 0; i < draws; ++i) {
        uint64_t seed = first_seed + (uint64_t)i;
        CLDSA_TRY(cldsa_params_init(&run->params, seed));
        for (int64_t e = 0; e < numel; ++e)
            hidden[e] = (float)(row->scale * cldsa_philox_normal((uint64_t)e, HIDDEN_STREAM, seed));
        CLDSA_TRY(cldsa_policy_run_forward(run, hidden));
        int32_t value;
        CLDSA_TRY(cldsa_policy_run_read_k(run, &value, 1));
        k[i] = value;
    }
    summarise(row, k, draws);
    return CLDSA_SUCCESS;
}

static cldsa_status draw_all(cldsa_policy_run *run, int draws, uint64_t first_seed, cldsa_controller_row *rows) {
    float *hidden = malloc((size_t)MAX_LENGTH * (size_t)run->nn.config->hidden_size * sizeof *hidden);
    double *k = malloc((size_t)draws * sizeof *k);
    cldsa_status status = hidden && k ? CLDSA_SUCCESS : cldsa_fail(CLDSA_OUT_OF_MEMORY, "controller: out of memory");
    for (int l = 0; l < CLDSA_CONTROLLER_LENGTHS; ++l)
        for (int s = 0; s < CLDSA_CONTROLLER_KINDS && status == CLDSA_SUCCESS; ++s) {
            cldsa_controller_row *row = &rows[l * CLDSA_CONTROLLER_KINDS + s];
            *row = (cldsa_controller_row){.length = published[l].length,
                                          .kind = kinds[s].name,
                                          .scale = kinds[s].scale,
                                          .published = published[l].k[s]};
            status = draw_row(run, row, draws, first_seed, hidden, k);
        }
    free(hidden);
    free(k);
    return status;
}

cldsa_status cldsa_controller_table(cldsa_context *ctx, cl_command_queue queue, const cldsa_config *config, int draws,
                                    uint64_t first_seed, cldsa_controller_row *rows) {
    cldsa_policy_run run = {0};
    cldsa_status status = cldsa_policy_run_open(&run, ctx, queue, config, &cldsa_policy_controller);
    if (status == CLDSA_SUCCESS)
        status = draw_all(&run, draws, first_seed, rows);
    cldsa_policy_run_close(&run);
    return status;
}

static char *as_json(const cldsa_controller_row *rows, int draws) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "draws", draws);
    cJSON *list = cJSON_AddArrayToObject(root, "rows");
    for (int i = 0; i < CLDSA_CONTROLLER_ROWS; ++i) {
        const cldsa_controller_row *r = &rows[i];
        cJSON *row = cJSON_CreateObject();
        cJSON_AddNumberToObject(row, "length", r->length);
        cJSON_AddStringToObject(row, "hidden", r->kind);
        cJSON_AddNumberToObject(row, "scale", r->scale);
        cJSON_AddNumberToObject(row, "published_k", r->published);
        cJSON_AddNumberToObject(row, "mean", r->mean);
        cJSON_AddNumberToObject(row, "std", r->std);
        cJSON_AddNumberToObject(row, "min", r->min);
        cJSON_AddNumberToObject(row, "low", r->low);
        cJSON_AddNumberToObject(row, "median", r->median);
        cJSON_AddNumberToObject(row, "high", r->high);
        cJSON_AddNumberToObject(row, "max", r->max);
        cJSON_AddNumberToObject(row, "published_rank", r->published_rank);
        cJSON_AddItemToArray(list, row);
    }
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    return text;
}

static char *as_markdown(const cldsa_controller_row *rows, int draws) {
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    fprintf(
        out,
        "k of a freshly initialised controller over %d initialisations. The published table is one draw; its rank is "
        "the share of ours at or below it.\n\n"
        "| S | hidden states | published k | mean ± std | median | 95 %% of draws | min … max | rank |\n"
        "|---|---|---|---|---|---|---|---|\n",
        draws);
    for (int i = 0; i < CLDSA_CONTROLLER_ROWS; ++i) {
        const cldsa_controller_row *r = &rows[i];
        fprintf(out, "| %d | %s (scale %g) | %d | %.1f ± %.1f | %.0f | %.0f … %.0f | %.0f … %.0f | %.0f %% |\n",
                r->length, r->kind, r->scale, r->published, r->mean, r->std, r->median, r->low, r->high, r->min, r->max,
                100 * r->published_rank);
    }
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

cldsa_status cldsa_controller_table_text(const cldsa_controller_row *rows, int draws, bool json, char **text) {
    *text = json ? as_json(rows, draws) : as_markdown(rows, draws);
    return *text ? CLDSA_SUCCESS : cldsa_fail(CLDSA_OUT_OF_MEMORY, "controller: out of memory");
}
