/* Shared by the report's forms: tables as text. */
#ifndef CLDSA_REPORT_HTML_H
#define CLDSA_REPORT_HTML_H

#include "host/train/experiment.h"

enum { CLDSA_MAX_COLUMNS = 12, CLDSA_CELL_MAX = 512 };

typedef struct cldsa_table_text {
    int columns;
    char cell[CLDSA_MAX_COLUMNS][CLDSA_CELL_MAX];
} cldsa_table_text;

/* Titles; returns how many. */
int cldsa_result_header(const cldsa_experiment_config *config, const char **titles);
int cldsa_comparison_header(const char **titles);

void cldsa_result_row(const cldsa_experiment_config *config, const cldsa_table_row *row, cldsa_table_text *out);
void cldsa_comparison_row(const cldsa_experiment_config *config, const cldsa_table_comparison *row,
                          cldsa_table_text *out);

/* A sentence that says what was run. */
void cldsa_report_heading(const cldsa_experiment_config *config, const cldsa_experiment_result *result, char *text,
                          size_t size);

#endif
