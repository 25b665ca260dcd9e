/*
 * Result files as a page and as Markdown: devices side by side.
 *
 *   report.c           files become devices, rows that mean the same stand side by side
 *   report_findings.c  what the figures say, in sentences
 *   report_html.c      the page; report_tables.c its tables, report_plots.c its curves
 *   report_markdown.c  the compact form
 */
#ifndef CLDSA_BENCH_REPORT_H
#define CLDSA_BENCH_REPORT_H

#include "bench/result.h"

enum { REPORT_MAX_DEVICES = 12, REPORT_MAX_FINDINGS = 32, REPORT_LABEL = 96 };

/* A row of a device, with what tells it apart. */
typedef struct report_row {
    char key[BENCH_KEY_SIZE];
    const cJSON *json;
    const char *date; /* of its file */
} report_row;

/* Where sparsity begins to pay, by one file. */
typedef struct report_crossing {
    const cJSON *json;
    const char *date; /* of its file */
} report_crossing;

/* A device as driven by one platform; several files of it are merged, the newest row counts. */
typedef struct report_device {
    char label[REPORT_LABEL]; /* short, unique */
    const cJSON *system;      /* of the newest file */
    const cJSON *peaks;       /* of the newest file that has them; may be NULL */
    report_row *rows;
    size_t num_rows, num_replaced;
    report_crossing *crossovers; /* of all its files; the newest of a mode counts */
    size_t num_crossovers;
} report_device;

typedef struct report_finding {
    char head[64], text[2000];
} report_finding;

typedef struct bench_report {
    cJSON **files;
    size_t num_files;
    report_device devices[REPORT_MAX_DEVICES];
    int num_devices;
    const cJSON *vendors;         /* the compilers' table; NULL without one */
    char (*keys)[BENCH_KEY_SIZE]; /* of all devices, those of an operation together, else in order of appearance */
    size_t num_keys;
    report_finding findings[REPORT_MAX_FINDINGS];
    int num_findings;
} bench_report;

/* Reads result files and tables of compilers. CLDSA_INVALID_FILE names the first that is neither. */
cldsa_status bench_report_load(const char *const *paths, size_t count, bench_report *report);
void bench_report_free(bench_report *report);

/* Each is a malloc'ed text. */
cldsa_status bench_report_html(const bench_report *report, char **text);
cldsa_status bench_report_markdown(const bench_report *report, char **text);

/* ---- between report*.c ------------------------------------------------------------------------------------------- */

/* The device's row of this key, or NULL. */
const cJSON *report_find(const report_device *device, const char *key);
/* Any device's row of this key. */
const cJSON *report_any(const bench_report *report, const char *key);
/* Whether any device has a row of this suite. */
bool report_has_suite(const bench_report *report, const char *suite);

/* An operation's call without its name: "R=2048 T=256 k=128 x=BF16". */
void report_call(const cJSON *row, char *text, size_t size);

/* The value of a row for a mean: NaN if it has none. */
typedef double (*report_value)(const cJSON *row);
double report_percent(const cJSON *row); /* of the roofline */
double report_gain(const cJSON *row);    /* of tuning */
double report_seconds(const cJSON *row); /* an operation's median */

/* The geometric mean of a value over the device's rows of an operation (NULL: of all); NaN without any. */
double report_mean(const report_device *device, const char *op, report_value value, int *count);

/* The smallest T from which sparsity pays: 0 if measured and never, NaN if not measured. Sets the range and K. */
double report_crossover(const report_device *device, const char *mode, double *from, double *to, double *K);

/* The measured bandwidth of the largest set, and of the smallest. */
double report_memory_bandwidth(const report_device *device);
double report_cache_bandwidth(const report_device *device);

void report_find_out(bench_report *report);

/* Sections of the page. */
#include <stdio.h>
void report_put_systems(FILE *out, const bench_report *report);
void report_put_peaks(FILE *out, const bench_report *report);
void report_put_operations(FILE *out, const bench_report *report);
void report_put_calls(FILE *out, const bench_report *report);
void report_put_end_to_end(FILE *out, const bench_report *report);
void report_put_training(FILE *out, const bench_report *report);
void report_put_variants(FILE *out, const bench_report *report);
void report_put_gain(FILE *out, const bench_report *report);
void report_put_peers(FILE *out, const bench_report *report);
void report_put_failures(FILE *out, const bench_report *report);
void report_put_vendors(FILE *out, const bench_report *report);

/* Plots; a missing gnuplot is a sentence in their place. */
void report_plot_roofline(FILE *out, const report_device *device);
void report_plot_bandwidth(FILE *out, const bench_report *report);
void report_plot_ratio(FILE *out, const bench_report *report, const char *mode);
void report_plot_times(FILE *out, const report_device *device, const char *mode);
void report_plot_training(FILE *out, const bench_report *report);

#endif
