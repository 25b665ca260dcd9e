/* What an experiment's result looks like: Markdown, JSON, and a self-contained HTML page. */
#ifndef CLDSA_REPORT_H
#define CLDSA_REPORT_H

#include "host/train/experiment.h"

/* Each is a malloc'ed text. */
cldsa_status cldsa_report_markdown(const cldsa_experiment_config *config, const cldsa_experiment_result *result,
                                   char **text);
cldsa_status cldsa_report_json(const cldsa_experiment_config *config, const cldsa_experiment_result *result,
                               char **text);
cldsa_status cldsa_report_html(const cldsa_experiment_config *config, const cldsa_experiment_result *result,
                               char **text);

/* Writes table.md, table.json and report.html into config->out, each atomically. */
cldsa_status cldsa_report_write(const cldsa_experiment_config *config, const cldsa_experiment_result *result);

/* One comparison in words: the difference, its interval, and whether it is significant at 5 % after correction. */
void cldsa_report_verdict(const cldsa_experiment_config *config, const cldsa_table_comparison *comparison, char *text,
                          size_t size);

#endif
