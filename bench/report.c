/* From files to devices, and to keys under which their rows stand side by side. */
#include "bench/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- looking up -------------------------------------------------------------------------------------------------- */

const cJSON *report_find(const report_device *device, const char *key) {
    for (size_t i = 0; i < device->num_rows; ++i)
        if (strcmp(device->rows[i].key, key) == 0)
            return device->rows[i].json;
    return NULL;
}

const cJSON *report_any(const bench_report *report, const char *key) {
    const cJSON *row = NULL;
    for (int d = 0; d < report->num_devices && !row; ++d)
        row = report_find(&report->devices[d], key);
    return row;
}

bool report_has_suite(const bench_report *report, const char *suite) {
    for (int d = 0; d < report->num_devices; ++d)
        for (size_t i = 0; i < report->devices[d].num_rows; ++i)
            if (bench_is(report->devices[d].rows[i].json, "suite", suite))
                return true;
    return false;
}

void report_call(const cJSON *row, char *text, size_t size) {
    static const char *const parts[] = {"shape", "params", "give", "dtypes"};
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizeof parts / sizeof *parts && used < size; ++i) {
        const char *part = bench_text(row, parts[i]);
        if (*part)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "", part);
    }
}

double report_percent(const cJSON *row) {
    return bench_number(bench_member(row, "roofline"), "percent");
}

double report_gain(const cJSON *row) {
    return bench_number(row, "gain");
}

double report_seconds(const cJSON *row) {
    return bench_number(bench_member(row, "seconds"), "median");
}

double report_mean(const report_device *device, const char *op, report_value value, int *count) {
    double sum = 0;
    *count = 0;
    for (size_t i = 0; i < device->num_rows; ++i) {
        const cJSON *row = device->rows[i].json;
        if (!bench_is(row, "suite", "ops") || !bench_row_is_ok(row) || (op && !bench_is(row, "op", op)))
            continue;
        double number = value(row);
        if (!(number > 0))
            continue;
        sum += log(number);
        ++*count;
    }
    return *count ? exp(sum / *count) : NAN;
}

double report_crossover(const report_device *device, const char *mode, double *from, double *to, double *K) {
    const report_crossing *newest = NULL;
    for (size_t i = 0; i < device->num_crossovers; ++i) {
        const report_crossing *one = &device->crossovers[i];
        if (bench_is(one->json, "mode", mode) && bench_number(one->json, "to") > 0 &&
            (!newest || strcmp(one->date, newest->date) >= 0))
            newest = one;
    }
    if (!newest)
        return NAN;
    *from = bench_number(newest->json, "from");
    *to = bench_number(newest->json, "to");
    *K = bench_number(newest->json, "K");
    double T = bench_number(newest->json, "T");
    return isnan(T) ? 0 : T;
}

static double bandwidth_at(const report_device *device, bool largest) {
    const cJSON *levels = bench_member(device->peaks, "levels");
    int count = cJSON_GetArraySize(levels);
    return count ? bench_number(cJSON_GetArrayItem(levels, largest ? count - 1 : 0), "bytes_per_second") : NAN;
}

double report_memory_bandwidth(const report_device *device) {
    return bandwidth_at(device, true);
}

double report_cache_bandwidth(const report_device *device) {
    return bandwidth_at(device, false);
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static bool is_same_device(const cJSON *a, const cJSON *b) {
    static const char *const keys[] = {"platform", "device", "driver"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i)
        if (!bench_is(a, keys[i], bench_text(b, keys[i])))
            return false;
    return true;
}

static cldsa_status find_device(bench_report *report, const cJSON *system, report_device **out) {
    for (int d = 0; d < report->num_devices; ++d)
        if (is_same_device(report->devices[d].system, system)) {
            *out = &report->devices[d];
            return CLDSA_SUCCESS;
        }
    if (report->num_devices == REPORT_MAX_DEVICES)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "the files are of more than %d devices", REPORT_MAX_DEVICES);
    *out = &report->devices[report->num_devices++];
    (*out)->system = system;
    return CLDSA_SUCCESS;
}

/* A row joins; of two with the same key the newer counts. */
static void join(report_device *device, const cJSON *json, const char *date) {
    report_row row = {.json = json, .date = date};
    bench_row_key(json, row.key);
    for (size_t i = 0; i < device->num_rows; ++i)
        if (strcmp(device->rows[i].key, row.key) == 0) {
            ++device->num_replaced;
            if (strcmp(date, device->rows[i].date) >= 0)
                device->rows[i] = row;
            return;
        }
    device->rows[device->num_rows++] = row;
}

static cldsa_status take_file(bench_report *report, const cJSON *file) {
    const cJSON *system = bench_member(file, "system"), *rows = bench_member(file, "rows"), *item;
    const cJSON *crossovers = bench_member(file, "crossovers"), *peaks = bench_member(system, "peaks");
    report_device *device = NULL;
    CLDSA_TRY(find_device(report, system, &device));
    report_row *grown =
        realloc(device->rows, (device->num_rows + (size_t)cJSON_GetArraySize(rows) + 1) * sizeof *grown);
    if (grown)
        device->rows = grown;
    report_crossing *more = realloc(
        device->crossovers, (device->num_crossovers + (size_t)cJSON_GetArraySize(crossovers) + 1) * sizeof *more);
    if (more)
        device->crossovers = more;
    if (!grown || !more)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory");
    const char *date = bench_text(system, "date");
    cJSON_ArrayForEach(item, rows) join(device, item, date);
    cJSON_ArrayForEach(item, crossovers) device->crossovers[device->num_crossovers++] = (report_crossing){item, date};
    bool newest = strcmp(date, bench_text(device->system, "date")) >= 0;
    if (cJSON_IsObject(peaks) && (newest || !device->peaks))
        device->peaks = peaks;
    if (newest)
        device->system = system;
    return CLDSA_SUCCESS;
}

/* What people call a platform, where its own name is long or says little. */
static const char *short_platform(const char *platform) {
    static const char *const names[][2] = {{"Portable Computing Language", "PoCL"},
                                           {"Intel(R) OpenCL", "Intel OpenCL"},
                                           {"AMD Accelerated Parallel Processing", "AMD"},
                                           {"NVIDIA CUDA", "CUDA"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
        if (strcmp(names[i][0], platform) == 0)
            return names[i][1];
    return platform;
}

/* CPUs differ by what drives them, other devices by their names; whatever is left is counted. */
static void name_devices(bench_report *report) {
    for (int d = 0; d < report->num_devices; ++d) {
        report_device *device = &report->devices[d];
        const char *platform = short_platform(bench_text(device->system, "platform"));
        bool by_platform = bench_is(device->system, "type", "cpu");
        snprintf(device->label, REPORT_LABEL, "%.80s", by_platform ? platform : bench_text(device->system, "device"));
        for (int other = 0; other < d; ++other)
            if (strcmp(report->devices[other].label, device->label) == 0) {
                snprintf(device->label, REPORT_LABEL, "%.80s #%d",
                         by_platform ? platform : bench_text(device->system, "device"), d + 1);
                break;
            }
    }
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static bool is_known(const bench_report *report, const char *key) {
    for (size_t i = 0; i < report->num_keys; ++i)
        if (strcmp(report->keys[i], key) == 0)
            return true;
    return false;
}

static size_t same_length(const char *a, const char *b) {
    size_t length = 0;
    while (a[length] && a[length] == b[length])
        ++length;
    return length;
}

/* "ops gemm" of "ops gemm M=...": what keys of one operation share. */
static bool is_same_group(const char *a, const char *b) {
    size_t word = strcspn(a, " ");
    size_t length = word + (a[word] ? 1 + strcspn(a + word + 1, " ") : 0);
    return same_length(a, b) >= length && (!b[length] || b[length] == ' ');
}

/* Behind the last key of its group; a group that is new goes to the end. */
static void insert_key(bench_report *report, const char *key) {
    size_t at = report->num_keys;
    while (at > 0 && !is_same_group(report->keys[at - 1], key))
        --at;
    at = at ? at : report->num_keys;
    memmove(report->keys[at + 1], report->keys[at], (report->num_keys - at) * sizeof *report->keys);
    snprintf(report->keys[at], BENCH_KEY_SIZE, "%s", key);
    ++report->num_keys;
}

static cldsa_status collect_keys(bench_report *report) {
    size_t most = 1;
    for (int d = 0; d < report->num_devices; ++d)
        most += report->devices[d].num_rows;
    report->keys = calloc(most, sizeof *report->keys);
    if (!report->keys)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory");
    for (int d = 0; d < report->num_devices; ++d)
        for (size_t i = 0; i < report->devices[d].num_rows; ++i)
            if (!is_known(report, report->devices[d].rows[i].key))
                insert_key(report, report->devices[d].rows[i].key);
    return CLDSA_SUCCESS;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

enum { VENDORS_SCHEMA = 1 };

static cldsa_status take_vendors(bench_report *report, const char *path, const cJSON *file) {
    if (bench_number(file, "schema") != VENDORS_SCHEMA)
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: its table of compilers is of schema %g; this cldsa reads %d", path,
                          bench_number(file, "schema"), VENDORS_SCHEMA);
    if (!cJSON_IsArray(bench_member(file, "targets")) || !cJSON_IsArray(bench_member(file, "kernels")))
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: a table of compilers needs \"targets\" and \"kernels\"", path);
    if (report->vendors)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: is a second table of compilers; one is shown", path);
    report->vendors = file;
    return CLDSA_SUCCESS;
}

static cldsa_status load_file(bench_report *report, const char *path) {
    cJSON *file;
    CLDSA_TRY(cldsa_json_read(path, &file));
    report->files[report->num_files++] = file;
    if (bench_is(file, "kind", "vendors"))
        return take_vendors(report, path, file);
    CLDSA_TRY(bench_validate(file, path));
    return take_file(report, file);
}

cldsa_status bench_report_load(const char *const *paths, size_t count, bench_report *report) {
    *report = (bench_report){.files = calloc(count + 1, sizeof(cJSON *))};
    cldsa_status status = report->files ? CLDSA_SUCCESS : cldsa_fail(CLDSA_OUT_OF_MEMORY, "report: out of memory");
    for (size_t i = 0; i < count && status == CLDSA_SUCCESS; ++i)
        status = load_file(report, paths[i]);
    if (status == CLDSA_SUCCESS) {
        name_devices(report);
        status = collect_keys(report);
    }
    if (status == CLDSA_SUCCESS)
        report_find_out(report);
    else
        bench_report_free(report);
    return status;
}

void bench_report_free(bench_report *report) {
    for (size_t i = 0; i < report->num_files; ++i)
        cJSON_Delete(report->files[i]);
    for (int d = 0; d < report->num_devices; ++d) {
        free(report->devices[d].rows);
        free(report->devices[d].crossovers);
    }
    free(report->files);
    free(report->keys);
    *report = (bench_report){0};
}
