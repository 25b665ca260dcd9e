#include "host/train/metrics.h"
#include "host/io/file.h"
#include "host/io/json.h"
#include "host/runtime/runtime.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static cldsa_status write_error(const cldsa_metrics *metrics) {
    return cldsa_fail(CLDSA_IO_ERROR, "%s: cannot be written: %s", metrics->path, strerror(errno));
}

/*
 * Length of the leading lines up to the loss of `step`; lines are in step order. The validation of `step` goes too: it
 * comes after the step, so that a run stopped there may or may not have done it, and one that continues does it.
 */
static size_t kept_length(const char *text, int64_t step) {
    const char *line = text;
    for (const char *end; (end = strchr(line, '\n')); line = end + 1) {
        cJSON *object = cJSON_ParseWithLength(line, (size_t)(end - line));
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "step");
        bool validation = cJSON_HasObjectItem(object, "validation_loss");
        bool keep = cJSON_IsNumber(value) && value->valuedouble <= (double)(validation ? step - 1 : step);
        cJSON_Delete(object);
        if (!keep)
            break;
    }
    return (size_t)(line - text);
}

cldsa_status cldsa_metrics_open(cldsa_metrics *metrics, const char *directory, int64_t step) {
    snprintf(metrics->path, sizeof metrics->path, "%s/metrics.jsonl", directory);
    if (step > 0 && access(metrics->path, F_OK) == 0) {
        char *text;
        size_t size;
        CLDSA_TRY(cldsa_file_read(metrics->path, SIZE_MAX / 2, &text, &size));
        cldsa_status status = cldsa_file_write_all(metrics->path, text, kept_length(text, step));
        free(text);
        CLDSA_TRY(status);
    }
    metrics->stream = fopen(metrics->path, step > 0 ? "a" : "w");
    return metrics->stream ? CLDSA_SUCCESS : write_error(metrics);
}

cldsa_status cldsa_metrics_step(cldsa_metrics *metrics, int64_t step, double loss) {
    int written = fprintf(metrics->stream, "{\"step\": %lld, \"loss\": %.9g}\n", (long long)step, loss);
    return written < 0 ? write_error(metrics) : CLDSA_SUCCESS;
}

cldsa_status cldsa_metrics_evaluation(cldsa_metrics *metrics, int64_t step, const cldsa_run_result *result) {
    FILE *out = metrics->stream;
    fprintf(out, "{\"step\": %lld, \"validation_loss\": %.9g, \"validation_accuracy\": %.9g", (long long)step,
            result->validation_loss, result->validation_accuracy);
    if (!isnan(result->bits_per_byte))
        fprintf(out, ", \"bits_per_byte\": %.9g", result->bits_per_byte);
    fprintf(out, ", \"k\": [");
    for (int i = 0; i < result->num_layers; ++i)
        fprintf(out, "%s%.6g", i ? ", " : "", result->layers[i].mean_k);
    fprintf(out, "], \"sparsity\": [");
    for (int i = 0; i < result->num_layers; ++i)
        fprintf(out, "%s%.6g", i ? ", " : "", result->layers[i].sparsity);
    return fprintf(out, "]}\n") < 0 ? write_error(metrics) : CLDSA_SUCCESS;
}

cldsa_status cldsa_metrics_flush(cldsa_metrics *metrics) {
    return fflush(metrics->stream) ? write_error(metrics) : CLDSA_SUCCESS;
}

void cldsa_metrics_close(cldsa_metrics *metrics) {
    if (metrics->stream)
        fclose(metrics->stream);
    metrics->stream = NULL;
}

cldsa_status cldsa_metrics_read(const char *path, void (*line)(void *user, const struct cJSON *object), void *user) {
    char *text;
    size_t size;
    CLDSA_TRY(cldsa_file_read(path, SIZE_MAX / 2, &text, &size));
    const char *start = text;
    for (const char *end; (end = strchr(start, '\n')); start = end + 1) {
        cJSON *object = cJSON_ParseWithLength(start, (size_t)(end - start));
        if (object)
            line(user, object);
        cJSON_Delete(object);
    }
    free(text);
    return CLDSA_SUCCESS;
}
