/*
 * OpenBLAS' sgemm, as a peer to measure against. Speaks as operations.py does: a JSON request per line in, a JSON line
 * with samples out; ends with its input.
 */
#include <cblas.h>
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_REPEATS = 1000, LEAST_REPEATS = 3, LINE = 1 << 14 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static float *matrix(size_t numel) {
    float *values = malloc(numel * sizeof *values);
    for (size_t i = 0; values && i < numel; ++i)
        values[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    return values;
}

static int extent(const cJSON *request, const char *name) {
    const cJSON *dims = cJSON_GetObjectItemCaseSensitive(request, "dims");
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(dims, name);
    return cJSON_IsNumber(number) ? number->valueint : 1;
}

static void measure(const cJSON *request, cJSON *samples) {
    int m = extent(request, "M"), n = extent(request, "N"), k = extent(request, "K");
    const char *layout = cJSON_GetStringValue(
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(request, "params"), "layout"));
    const cJSON *budget = cJSON_GetObjectItemCaseSensitive(request, "budget");
    bool a_transposed = layout && strcmp(layout, "tn") == 0, b_transposed = layout && strcmp(layout, "nt") == 0;
    float *a = matrix((size_t)m * (size_t)k), *b = matrix((size_t)k * (size_t)n), *c = matrix((size_t)m * (size_t)n);
    double begin = 0;
    for (int i = -1; a && b && c && i < MOST_REPEATS; ++i) { /* the first one warms up */
        if (i == 0)
            begin = now();
        else if (i >= LEAST_REPEATS && now() - begin > (budget ? budget->valuedouble : 1))
            break;
        double start = now();
        cblas_sgemm(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans, b_transposed ? CblasTrans : CblasNoTrans,
                    m, n, k, 1, a, a_transposed ? m : k, b, b_transposed ? k : n, 0, c, n);
        if (i >= 0)
            cJSON_AddItemToArray(samples, cJSON_CreateNumber(now() - start));
    }
    free(a);
    free(b);
    free(c);
}

int main(void) {
    static char line[LINE];
    while (fgets(line, sizeof line, stdin)) {
        cJSON *request = cJSON_Parse(line), *answer = cJSON_CreateObject();
        cJSON *result = cJSON_CreateObject();
        cJSON_AddItemToArray(cJSON_AddArrayToObject(answer, "results"), result);
        cJSON_AddStringToObject(result, "peer", "OpenBLAS");
        measure(request, cJSON_AddArrayToObject(result, "samples"));
        char *text = cJSON_PrintUnformatted(answer);
        printf("%s\n", text ? text : "{}");
        fflush(stdout);
        cJSON_free(text);
        cJSON_Delete(answer);
        cJSON_Delete(request);
    }
    return 0;
}
