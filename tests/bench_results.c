#include "tests/bench_results.h"

#include <gsl/gsl_randist.h>
#include <gsl/gsl_rng.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static cJSON *parse(const char *text) {
    cJSON *json = cJSON_Parse(text);
    if (!json)
        abort();
    return json;
}

void result_set(cJSON *object, const char *key, cJSON *value) {
    cJSON_DeleteItemFromObjectCaseSensitive(object, key);
    cJSON_AddItemToObject(object, key, value);
}

cJSON *result_file(const char *device, const char *date) {
    cJSON *file = parse(
        "{\"schema\": 2,"
        " \"run\": {\"suite\": \"all\", \"budget\": 1, \"peers\": true, \"gain\": true, \"preset\": \"experiment\"},"
        " \"system\": {\"cldsa\": \"0.1.0\", \"platform\": \"Made-up OpenCL\", \"vendor\": \"Nobody\","
        "  \"driver\": \"1.2\", \"opencl\": \"OpenCL 3.0\", \"type\": \"cpu\", \"compute_units\": 2,"
        "  \"max_clock_mhz\": 2600, \"global_mem_bytes\": 8589934592, \"max_alloc_bytes\": 4294967296,"
        "  \"local_mem_bytes\": 32768, \"fp16\": false, \"fp64\": true, \"tuned_here\": false, \"compiler\": "
        "\"-cl-std=CL1.2\","
        "  \"host\": {\"os\": \"Linux\", \"cpu\": \"A processor\", \"threads\": 2, \"load_before\": 0.5},"
        "  \"clocks\": {\"governor\": \"performance\"},"
        "  \"peaks\": {\"f32_flops_per_second\": 1e11, \"launch_seconds\": 2e-5,"
        "   \"levels\": [{\"bytes\": 32768, \"bytes_per_second\": 1e11}, {\"bytes\": 1e8, \"bytes_per_second\": "
        "2e10}]}},"
        " \"rows\": [], \"crossovers\": []}");
    cJSON *system = cJSON_GetObjectItem(file, "system");
    cJSON_AddStringToObject(system, "device", device);
    cJSON_AddStringToObject(system, "date", date);
    return file;
}

cJSON *result_statistics(double middle, double spread, int count, unsigned seed) {
    gsl_rng *random = gsl_rng_alloc(gsl_rng_taus2);
    gsl_rng_set(random, seed);
    bench_samples samples = {0};
    for (int i = 0; i < count; ++i)
        bench_samples_add(&samples, middle * exp(gsl_ran_gaussian(random, spread)));
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "median", bench_samples_quantile(&samples, 0.5));
    cJSON_AddNumberToObject(out, "p10", bench_samples_quantile(&samples, 0.1));
    cJSON_AddNumberToObject(out, "p90", bench_samples_quantile(&samples, 0.9));
    cJSON_AddNumberToObject(out, "samples", count);
    cJSON_AddItemToObject(out, "values", cJSON_CreateDoubleArray(samples.values, count));
    bench_samples_free(&samples);
    gsl_rng_free(random);
    return out;
}

static cJSON *append(cJSON *file, cJSON *row) {
    cJSON_AddItemToArray(cJSON_GetObjectItem(file, "rows"), row);
    return row;
}

cJSON *result_add_op(cJSON *file, const char *op, const char *shape, double seconds, double spread, unsigned seed) {
    cJSON *row =
        append(file, parse("{\"suite\": \"ops\", \"status\": \"ok\", \"params\": \"\", \"give\": \"\","
                           " \"dtypes\": \"\", \"dtype\": \"F32\", \"variant\": \"vec\", \"tunables\": \"WG=1\","
                           " \"tuning\": {\"match\": \"none\", \"from\": \"\"}, \"gflops\": 50,"
                           " \"gbytes_per_second\": 5, \"error_of_allowed\": 0.5, \"worst_abs_error\": 1e-6,"
                           " \"checked_at\": \"\", \"workspace_bytes\": 0, \"peers\": [],"
                           " \"roofline\": {\"seconds\": 1e-4, \"limit\": \"compute\", \"percent\": 50,"
                           "  \"bytes_per_second\": 2e10, \"working_set_bytes\": 1e6}}"));
    cJSON_AddStringToObject(row, "op", op);
    cJSON_AddStringToObject(row, "shape", shape);
    cJSON_AddItemToObject(row, "seconds", result_statistics(seconds, spread, 60, seed));
    return row;
}

cJSON *result_add_train(cJSON *file, int length, const char *variant, double tokens_per_second) {
    cJSON *row = append(file, parse("{\"suite\": \"train\", \"status\": \"ok\", \"first_loss\": 7, \"last_loss\": 6,"
                                    " \"peak_device_bytes\": 1e8, \"peak_rss_bytes\": 2e8, \"peers\": []}"));
    cJSON_AddNumberToObject(row, "length", length);
    cJSON_AddStringToObject(row, "variant", variant);
    cJSON_AddItemToObject(row, "tokens_per_second", result_statistics(tokens_per_second, 0.01, 10, 1));
    return row;
}

cJSON *result_add_peak(cJSON *file, const char *name, const char *unit, double bytes, double value) {
    cJSON *row = append(file, parse("{\"suite\": \"peak\", \"status\": \"ok\", \"how\": \"somehow\"}"));
    bool latency = strcmp(unit, "s") == 0;
    cJSON_AddStringToObject(row, "name", name);
    cJSON_AddStringToObject(row, "unit", unit);
    cJSON_AddNumberToObject(row, "bytes", bytes);
    cJSON_AddNumberToObject(row, "value", value);
    cJSON_AddItemToObject(row, "seconds", result_statistics(latency ? value : 1e9 / value, 0.01, 20, 1));
    return row;
}

cJSON *result_add_end_to_end(cJSON *file, const char *mode, int T, double sparse, double dense) {
    cJSON *row = append(file, parse("{\"suite\": \"end-to-end\", \"status\": \"ok\", \"S\": 1, \"K\": 512,"
                                    " \"shape\": \"H=8\", \"dtype\": \"F32\", \"workspace_bytes\": 0}"));
    cJSON_AddStringToObject(row, "mode", mode);
    cJSON_AddNumberToObject(row, "T", T);
    cJSON *half = cJSON_AddObjectToObject(row, "sparse");
    cJSON_AddItemToObject(half, "seconds", result_statistics(sparse, 0.01, 20, 1));
    cJSON_AddItemToObject(half, "select_seconds", result_statistics(0.7 * sparse, 0.01, 20, 2));
    cJSON_AddItemToObject(half, "attend_seconds", result_statistics(0.3 * sparse, 0.01, 20, 3));
    cJSON_AddItemToObject(cJSON_AddObjectToObject(row, "dense"), "seconds", result_statistics(dense, 0.01, 20, 4));
    cJSON_AddNumberToObject(row, "ratio", dense / sparse);
    return row;
}

void result_fail(cJSON *row, const char *status, const char *reason) {
    static const char *const measured[] = {"seconds", "tokens_per_second", "value", "roofline", "sparse", "dense"};
    for (size_t i = 0; i < sizeof measured / sizeof *measured; ++i)
        cJSON_DeleteItemFromObjectCaseSensitive(row, measured[i]);
    result_set(row, "status", cJSON_CreateString(status));
    result_set(row, "reason", cJSON_CreateString(reason));
}
