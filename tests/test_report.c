/* The report of an experiment, on made-up cells: what the tables say, and that the page stands alone. */
#include "host/io/file.h"
#include "host/train/report.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static cldsa_experiment_config config;
static cldsa_experiment_result result;
static char directory[] = "/tmp/cldsa-report-XXXXXX";

/* Two variants at one length; the adaptive one better by far more than the spread. */
static int make_result(void **state) {
    (void)state;
    if (!mkdtemp(directory))
        return 1;
    config = cldsa_experiment_config_default(CLDSA_RECIPE_SEED, false);
    config.out = directory;
    config.num_lengths = 1;
    config.num_variants = 2;
    snprintf(config.variants[0], CLDSA_VARIANT_MAX, "dense");
    snprintf(config.variants[1], CLDSA_VARIANT_MAX, "adaptive");
    cldsa_experiment_settle(&config);
    snprintf(result.device, sizeof result.device, "Platform <&> / Device");
    for (int v = 0; v < 2; ++v)
        result.rows[result.num_rows++] = (cldsa_table_row){.length = 64,
                                                           .variant = v,
                                                           .loss = {3, 6.9 - v, 0.01},
                                                           .accuracy = {3, 0.25, NAN},
                                                           .bits_per_byte = {0, NAN, NAN},
                                                           .tokens_per_second = {3, 4321, 10},
                                                           .peak_device_bytes = 3 << 20,
                                                           .num_layers = 2,
                                                           .mean_k = {64 - 47 * v, 64 - 30 * v},
                                                           .sparsity = {0.75 * v, 0.5 * v}};
    const double ours[] = {5.89, 5.90, 5.91}, theirs[] = {6.89, 6.90, 6.91};
    result.comparisons[0] = (cldsa_table_comparison){64, 1, 0, cldsa_welch(ours, 3, theirs, 3)};
    result.num_comparisons = 1;
    return 0;
}

static void markdown_says_it_all(void **state) {
    (void)state;
    char *text;
    assert_int_equal(cldsa_report_markdown(&config, &result, &text), CLDSA_SUCCESS);
    assert_non_null(strstr(text, "| 64 | adaptive | 5.9000 ± 0.0100 | 25.00 | 4321 ± 10 | 3.0 | 17.0 34.0 | 75 50 |"));
    assert_non_null(strstr(text, "| 6.497 ± 0.599 | 6.77 | 2016 |")); /* the published figures stand beside ours */
    assert_non_null(strstr(text, "significantly better"));
    assert_non_null(strstr(text, "labels shifted twice"));
    free(text);
}

static void verdicts(void **state) {
    (void)state;
    char text[512];
    const double a[] = {1.0, 1.4, 0.9}, b[] = {1.1, 1.2, 1.3};
    cldsa_table_comparison same = {64, 1, 0, cldsa_welch(a, 3, b, 3)};
    cldsa_report_verdict(&config, &same, text, sizeof text);
    assert_non_null(strstr(text, "not significant"));
    cldsa_table_comparison single = {64, 1, 0, cldsa_welch(a, 1, b, 1)};
    cldsa_report_verdict(&config, &single, text, sizeof text);
    assert_non_null(strstr(text, "one seed"));
}

static void files_are_written(void **state) {
    (void)state;
    assert_int_equal(cldsa_report_write(&config, &result), CLDSA_SUCCESS);
    char path[128], *text;
    size_t size;
    snprintf(path, sizeof path, "%s/report.html", directory);
    assert_int_equal(cldsa_file_read(path, 1 << 24, &text, &size), CLDSA_SUCCESS);
    assert_non_null(strstr(text, "Platform &lt;&amp;&gt;"));
    assert_null(strstr(text, "src=\"http")); /* self-contained */
    free(text);
    snprintf(path, sizeof path, "%s/table.json", directory);
    assert_int_equal(cldsa_file_read(path, 1 << 24, &text, &size), CLDSA_SUCCESS);
    cJSON *json = cJSON_Parse(text);
    const cJSON *row = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "rows"), 1);
    const cJSON *loss = cJSON_GetObjectItem(cJSON_GetObjectItem(row, "validation_loss"), "mean");
    assert_true(fabs(cJSON_GetNumberValue(loss) - 5.9) < 1e-12);
    const cJSON *published = cJSON_GetObjectItem(row, "published");
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(published, "validation_loss")) == 6.497);
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(published, "validation_accuracy")) == 0.0677);
    cJSON_Delete(json);
    free(text);
}

static int remove_directory(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(markdown_says_it_all),
        cmocka_unit_test(verdicts),
        cmocka_unit_test(files_are_written),
    };
    return cmocka_run_group_tests(tests, make_result, remove_directory);
}
