/* Reading rows of result files. */
#include "bench/result.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const cJSON *bench_member(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

const char *bench_text(const cJSON *object, const char *key) {
    const char *text = cJSON_GetStringValue(bench_member(object, key));
    return text ? text : "";
}

double bench_number(const cJSON *object, const char *key) {
    const cJSON *number = bench_member(object, key);
    return cJSON_IsNumber(number) ? number->valuedouble : NAN;
}

bool bench_is(const cJSON *object, const char *key, const char *text) {
    return strcmp(bench_text(object, key), text) == 0;
}

bool bench_row_is_ok(const cJSON *row) {
    return bench_is(row, "status", bench_status_names[BENCH_OK]);
}

void bench_row_key(const cJSON *row, char key[BENCH_KEY_SIZE]) {
    /* The variant names a cell of training; of an operation it only says what ran. */
    static const char *const call[] = {"suite", "op", "shape", "params", "give", "dtypes", NULL};
    static const char *const peak[] = {"suite", "name", "bytes", NULL};
    static const char *const train[] = {"suite", "length", "variant", NULL};
    static const char *const end[] = {"suite", "mode", "S", "T", "K", "shape", "dtype", NULL};
    const char *const *parts = bench_is(row, "suite", "ops")     ? call
                               : bench_is(row, "suite", "peak")  ? peak
                               : bench_is(row, "suite", "train") ? train
                                                                 : end;
    size_t used = 0;
    key[0] = '\0';
    for (; *parts && used < BENCH_KEY_SIZE; ++parts) {
        const char *text = bench_text(row, *parts);
        double number = bench_number(row, *parts);
        if (*text)
            used += (size_t)snprintf(key + used, BENCH_KEY_SIZE - used, "%s%s", used ? " " : "", text);
        else if (number != 0 && !isnan(number))
            used += (size_t)snprintf(key + used, BENCH_KEY_SIZE - used, " %s=%.10g", *parts, number);
    }
}

/* ---- quantities ----------------------------------------------------------------------------------------------------
 */

static bench_quantity quantity_of(const char *name, const char *unit, const cJSON *statistics) {
    bench_quantity quantity = {
        .name = name, .unit = unit, .rate = strcmp(unit, "s") != 0, .middle = bench_number(statistics, "median")};
    const cJSON *value;
    cJSON_ArrayForEach(value, bench_member(statistics, "values")) if (cJSON_IsNumber(value) && value->valuedouble > 0 &&
                                                                      quantity.count < BENCH_KEPT_SAMPLES)
        quantity.values[quantity.count++] = value->valuedouble;
    return quantity;
}

/* Samples are seconds of some amount of work, which is the one that makes the best of them the value. */
static bench_quantity peak_quantity(const cJSON *row) {
    bench_quantity quantity = quantity_of("peak", bench_text(row, "unit"), bench_member(row, "seconds"));
    quantity.middle = bench_number(row, "value");
    double best = INFINITY;
    for (size_t i = 0; i < quantity.count; ++i)
        best = fmin(best, quantity.values[i]);
    for (size_t i = 0; i < quantity.count && quantity.rate; ++i)
        quantity.values[i] = quantity.middle * best / quantity.values[i];
    return quantity;
}

int bench_row_quantities(const cJSON *row, bench_quantity quantities[BENCH_MAX_QUANTITIES]) {
    if (!bench_row_is_ok(row))
        return 0;
    if (bench_is(row, "suite", "end-to-end")) {
        quantities[0] = quantity_of("sparse", "s", bench_member(bench_member(row, "sparse"), "seconds"));
        quantities[1] = quantity_of("dense", "s", bench_member(bench_member(row, "dense"), "seconds"));
        return 2;
    }
    if (bench_is(row, "suite", "peak"))
        quantities[0] = peak_quantity(row);
    else if (bench_is(row, "suite", "train"))
        quantities[0] = quantity_of("rate", "token/s", bench_member(row, "tokens_per_second"));
    else
        quantities[0] = quantity_of("time", "s", bench_member(row, "seconds"));
    return 1;
}

void bench_format(double value, const char *unit, char *text, size_t size) {
    static const struct {
        double scale;
        const char *prefix;
    } prefixes[] = {{1e15, "P"}, {1e12, "T"}, {1e9, "G"},  {1e6, "M"}, {1e3, "k"},
                    {1, ""},     {1e-3, "m"}, {1e-6, "µ"}, {1e-9, "n"}};
    enum { COUNT = sizeof prefixes / sizeof *prefixes };
    if (isnan(value)) {
        snprintf(text, size, "-");
        return;
    }
    int i = 0;
    while (i + 1 < COUNT && fabs(value) < 0.9995 * prefixes[i].scale)
        ++i;
    if (value == 0)
        i = 5;
    double scaled = value / prefixes[i].scale;
    int digits = fabs(scaled) < 9.995 ? 2 : fabs(scaled) < 99.95 ? 1 : 0;
    snprintf(text, size, "%.*f %s%s", digits, scaled, prefixes[i].prefix, unit);
}
