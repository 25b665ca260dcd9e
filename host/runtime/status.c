/* Status names and texts, the thread's message, the log, and "did you mean". */
#include "host/runtime/context.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char thread_message[1024];

typedef struct status_row {
    cldsa_status status;
    const char *name;
    const char *text;
} status_row;

#define OWN(code, text)                                                                                                \
    { code, #code, text }
#define CL(code, text)                                                                                                 \
    { code, #code, text }
static const status_row status_rows[] = {
    OWN(CLDSA_SUCCESS, "success"),
    OWN(CLDSA_INVALID_ARGUMENT, "a parameter is out of its range"),
    OWN(CLDSA_INVALID_SHAPE, "a tensor's rank or extent does not fit"),
    OWN(CLDSA_INVALID_DTYPE, "a tensor's element type is not accepted"),
    OWN(CLDSA_MISSING_TENSOR, "a required tensor is missing"),
    OWN(CLDSA_BUFFER_TOO_SMALL, "a buffer ends before its tensor does"),
    OWN(CLDSA_INSUFFICIENT_WORKSPACE, "the workspace is smaller than the query said"),
    OWN(CLDSA_UNSUPPORTED, "no kernel variant runs this on this device"),
    OWN(CLDSA_NOT_FOUND, "not found"),
    OWN(CLDSA_BUILD_FAILED, "a kernel did not compile"),
    OWN(CLDSA_INVALID_FILE, "a file is damaged or of another format"),
    OWN(CLDSA_IO_ERROR, "the system could not read or write"),
    OWN(CLDSA_OUT_OF_MEMORY, "out of host memory"),
    OWN(CLDSA_CHECK_FAILED, "a result differs from its reference"),
    OWN(CLDSA_INTERRUPTED, "interrupted"),
    CL(CL_DEVICE_NOT_FOUND, "no OpenCL device of the requested kind"),
    CL(CL_DEVICE_NOT_AVAILABLE, "the device is not available"),
    CL(CL_COMPILER_NOT_AVAILABLE, "the platform has no kernel compiler"),
    CL(CL_MEM_OBJECT_ALLOCATION_FAILURE, "the device could not allocate a buffer"),
    CL(CL_OUT_OF_RESOURCES, "the device is out of resources"),
    CL(CL_OUT_OF_HOST_MEMORY, "the driver is out of host memory"),
    CL(CL_PROFILING_INFO_NOT_AVAILABLE, "the queue does not profile"),
    CL(CL_MEM_COPY_OVERLAP, "copied ranges overlap"),
    CL(CL_BUILD_PROGRAM_FAILURE, "a program did not build"),
    CL(CL_MAP_FAILURE, "a buffer could not be mapped"),
    CL(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST, "an event waited for had failed"),
    CL(CL_INVALID_VALUE, "invalid value"),
    CL(CL_INVALID_DEVICE_TYPE, "invalid device type"),
    CL(CL_INVALID_PLATFORM, "invalid platform"),
    CL(CL_INVALID_DEVICE, "invalid device"),
    CL(CL_INVALID_CONTEXT, "invalid OpenCL context"),
    CL(CL_INVALID_QUEUE_PROPERTIES, "queue properties the device does not support"),
    CL(CL_INVALID_COMMAND_QUEUE, "invalid command queue (often a kernel that faulted before)"),
    CL(CL_INVALID_MEM_OBJECT, "invalid buffer"),
    CL(CL_INVALID_BINARY, "invalid program binary"),
    CL(CL_INVALID_BUILD_OPTIONS, "invalid build options"),
    CL(CL_INVALID_PROGRAM, "invalid program"),
    CL(CL_INVALID_PROGRAM_EXECUTABLE, "the program is not built for this device"),
    CL(CL_INVALID_KERNEL_NAME, "no kernel of that name"),
    CL(CL_INVALID_KERNEL, "invalid kernel"),
    CL(CL_INVALID_ARG_INDEX, "invalid kernel argument index"),
    CL(CL_INVALID_ARG_VALUE, "invalid kernel argument value"),
    CL(CL_INVALID_ARG_SIZE, "invalid kernel argument size"),
    CL(CL_INVALID_KERNEL_ARGS, "kernel arguments are missing"),
    CL(CL_INVALID_WORK_DIMENSION, "invalid work dimension"),
    CL(CL_INVALID_WORK_GROUP_SIZE, "the device cannot run this work-group size"),
    CL(CL_INVALID_WORK_ITEM_SIZE, "the device cannot run this work-item size"),
    CL(CL_INVALID_GLOBAL_OFFSET, "invalid global offset"),
    CL(CL_INVALID_EVENT_WAIT_LIST, "invalid event wait list"),
    CL(CL_INVALID_EVENT, "invalid event"),
    CL(CL_INVALID_OPERATION, "invalid operation"),
    CL(CL_INVALID_BUFFER_SIZE, "a buffer larger than the device allows"),
    CL(CL_INVALID_GLOBAL_WORK_SIZE, "invalid global work size"),
    {-1001, "CL_PLATFORM_NOT_FOUND_KHR", "no OpenCL platform is installed"},
};

static const status_row *find_row(cldsa_status status) {
    for (size_t i = 0; i < sizeof status_rows / sizeof *status_rows; ++i)
        if (status_rows[i].status == status)
            return &status_rows[i];
    return NULL;
}

const char *cldsa_status_name(cldsa_status status) {
    const status_row *row = find_row(status);
    return row ? row->name : "CL_UNKNOWN";
}

const char *cldsa_status_text(cldsa_status status) {
    const status_row *row = find_row(status);
    return row ? row->text : "an error code that cldsa does not know";
}

const char *cldsa_error_message(void) {
    return thread_message;
}

void cldsa_one_line(char *text) {
    for (; *text; ++text)
        if ((unsigned char)*text < ' ' || *text == 127)
            *text = *text == '\n' || *text == '\t' ? ' ' : '?';
}

cldsa_status cldsa_fail(cldsa_status status, const char *format, ...) {
    char text[sizeof thread_message]; /* an argument may be the old message itself */
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    cldsa_one_line(text);
    memcpy(thread_message, text, sizeof text);
    return status;
}

cldsa_status cldsa_fail_prefix(cldsa_status status, const char *format, ...) {
    char prefix[256], old[sizeof thread_message];
    va_list list;
    va_start(list, format);
    vsnprintf(prefix, sizeof prefix, format, list);
    va_end(list);
    cldsa_one_line(prefix);
    memcpy(old, thread_message, sizeof old);
    size_t used = (size_t)snprintf(thread_message, sizeof thread_message, "%s: ", prefix);
    strncat(thread_message, old, sizeof thread_message - used - 1);
    return status;
}

void cldsa_log(const cldsa_context *ctx, cldsa_log_level level, const char *format, ...) {
    if (!ctx || !cldsa_logs(ctx, level))
        return;
    char text[4096];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    ctx->log(level, text, ctx->log_user);
}

/*
 * Edits between two words: a letter changed, added, left out, or two neighbours swapped. Words beyond 63 characters are
 * cut, which no name here reaches.
 */
static int edit_distance(const char *a, const char *b) {
    enum { LIMIT = 64 };
    int rows[3][LIMIT], la = (int)strnlen(a, LIMIT - 1), lb = (int)strnlen(b, LIMIT - 1);
    int *before = rows[0], *above = rows[1], *row = rows[2];
    for (int j = 0; j <= lb; ++j)
        row[j] = j;
    for (int i = 1; i <= la; ++i) {
        int *oldest = before;
        before = above;
        above = row;
        row = oldest;
        row[0] = i;
        for (int j = 1; j <= lb; ++j) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
    }
    return row[lb];
}

const char *cldsa_nearest_name(const char *word, const char *const *names, size_t count) {
    const char *nearest = NULL;
    int best = (int)strlen(word) / 2 + 2; /* farther than that is no likely slip */
    for (size_t i = 0; i < count; ++i) {
        int distance = edit_distance(word, names[i]);
        if (distance < best) {
            best = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

size_t cldsa_dtype_size(cldsa_dtype dtype) {
    static const size_t sizes[CLDSA_NUM_DTYPES] = {4, 2, 2, 4, 1, 4};
    return (unsigned)dtype < CLDSA_NUM_DTYPES ? sizes[dtype] : 0;
}

const char *cldsa_dtype_name(cldsa_dtype dtype) {
    static const char *const names[CLDSA_NUM_DTYPES] = {"F32", "F16", "BF16", "I32", "U8", "U32"};
    return (unsigned)dtype < CLDSA_NUM_DTYPES ? names[dtype] : "unknown";
}

int64_t cldsa_tensor_numel(const cldsa_tensor *tensor) {
    int64_t numel = 1;
    for (int i = 0; i < tensor->rank; ++i)
        numel *= tensor->shape[i];
    return numel;
}
