/*
 * Status codes and messages.
 *
 * Every function that can fail returns a cldsa_status. OpenCL's own negative codes pass through
 * unchanged; cldsa's codes lie at -5000 and below, away from every range OpenCL uses. The message
 * that goes with the last failure names the offending value and what would be right.
 */
#ifndef CLDSA_STATUS_H
#define CLDSA_STATUS_H

#include <cldsa/export.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int cldsa_status; /* 0, an OpenCL code (-1 ... -1999), or one of the following */

enum {
    CLDSA_SUCCESS = 0,
    CLDSA_INVALID_ARGUMENT = -5001,       /* a parameter is out of its documented range */
    CLDSA_INVALID_SHAPE = -5002,          /* a tensor's rank or extent does not fit the others */
    CLDSA_INVALID_DTYPE = -5003,          /* a tensor's element type is not accepted there */
    CLDSA_MISSING_TENSOR = -5004,         /* a required tensor has no buffer, or is not in the file */
    CLDSA_BUFFER_TOO_SMALL = -5005,       /* a cl_mem ends before the tensor does */
    CLDSA_INSUFFICIENT_WORKSPACE = -5006, /* the call's workspace is smaller than the query said */
    CLDSA_UNSUPPORTED = -5007,            /* no kernel variant runs this on this device */
    CLDSA_NOT_FOUND = -5008,              /* no such device, operation, file or key */
    CLDSA_BUILD_FAILED = -5009,           /* a kernel did not compile; the build log went to the log callback */
    CLDSA_INVALID_FILE = -5010,           /* a file is truncated, hostile or of another format */
    CLDSA_IO_ERROR = -5011,               /* the system could not read or write */
    CLDSA_OUT_OF_MEMORY = -5012,          /* host memory */
    CLDSA_CHECK_FAILED = -5013,           /* a result differs from its reference by more than allowed */
    CLDSA_INTERRUPTED = -5014             /* stopped on request */
};

/* The code's name, e.g. "CLDSA_INVALID_SHAPE" or "CL_OUT_OF_RESOURCES"; never NULL. */
CLDSA_API const char *cldsa_status_name(cldsa_status status);

/* A sentence for the code, e.g. "a tensor's rank or extent does not fit"; never NULL. */
CLDSA_API const char *cldsa_status_text(cldsa_status status);

/*
 * The message of the calling thread's last failed call ("topk: k is 0 for row 17; it must be at
 * least 1"); "" if none failed yet. Valid until the thread's next failing call.
 */
CLDSA_API const char *cldsa_error_message(void);

typedef enum cldsa_log_level { CLDSA_LOG_DEBUG, CLDSA_LOG_INFO, CLDSA_LOG_WARNING, CLDSA_LOG_ERROR } cldsa_log_level;

/* Receives build logs and warnings; may be called from any thread that calls the library. */
typedef void (*cldsa_log_fn)(cldsa_log_level level, const char *text, void *user);

#ifdef __cplusplus
}
#endif
#endif
