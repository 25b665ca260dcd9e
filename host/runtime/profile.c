/* Device time per kernel, aggregated by name. */
#include "host/runtime/context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cldsa_profile_add(cldsa_context *ctx, const char *label, const char *kernel, cl_event event) {
    pthread_mutex_lock(&ctx->lock);
    if (ctx->num_records == ctx->max_records) {
        size_t max = ctx->max_records ? ctx->max_records * 2 : 1024;
        cldsa_profile_record *grown = realloc(ctx->records, max * sizeof *grown);
        if (!grown) { /* losing a record is better than failing the call */
            pthread_mutex_unlock(&ctx->lock);
            return;
        }
        ctx->records = grown;
        ctx->max_records = max;
    }
    cldsa_profile_record *record = &ctx->records[ctx->num_records++];
    snprintf(record->name, sizeof record->name, "%s/%s", label, kernel);
    record->event = event;
    clRetainEvent(event);
    pthread_mutex_unlock(&ctx->lock);
}

static int slower_first(const void *a, const void *b) {
    double x = ((const cldsa_profile_row *)a)->seconds, y = ((const cldsa_profile_row *)b)->seconds;
    return (x < y) - (x > y);
}

static cldsa_profile_row *find_row(cldsa_profile_row *rows, size_t *count, const char *name) {
    for (size_t i = 0; i < *count; ++i)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    cldsa_profile_row *row = &rows[(*count)++];
    memset(row, 0, sizeof *row);
    memcpy(row->name, name, sizeof row->name);
    return row;
}

cldsa_status cldsa_profile_collect(cldsa_context *ctx, cldsa_profile_row **rows, size_t *count) {
    pthread_mutex_lock(&ctx->lock);
    *count = 0;
    *rows = calloc(ctx->num_records + 1, sizeof **rows);
    cldsa_status status = *rows ? CLDSA_SUCCESS : cldsa_fail(CLDSA_OUT_OF_MEMORY, "profile: out of memory");
    for (size_t i = 0; i < ctx->num_records; ++i) {
        cldsa_profile_record *record = &ctx->records[i];
        cl_ulong start = 0, end = 0;
        cl_int code = clWaitForEvents(1, &record->event);
        if (!code)
            code = clGetEventProfilingInfo(record->event, CL_PROFILING_COMMAND_START, sizeof start, &start, NULL);
        if (!code)
            code = clGetEventProfilingInfo(record->event, CL_PROFILING_COMMAND_END, sizeof end, &end, NULL);
        if (code && status == CLDSA_SUCCESS)
            status = cldsa_fail(code, "profile of %s: %s", record->name, cldsa_status_text(code));
        if (!code && *rows) {
            cldsa_profile_row *row = find_row(*rows, count, record->name);
            row->launches++;
            row->seconds += 1e-9 * (double)(end - start);
        }
        clReleaseEvent(record->event);
    }
    ctx->num_records = 0;
    pthread_mutex_unlock(&ctx->lock);
    if (status != CLDSA_SUCCESS) {
        free(*rows);
        *rows = NULL;
        return status;
    }
    qsort(*rows, *count, sizeof **rows, slower_first);
    return CLDSA_SUCCESS;
}
