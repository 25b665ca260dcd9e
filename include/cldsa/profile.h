/*
 * Device time per kernel, from events. Enabled by cldsa_context_options.profiling.
 */
#ifndef CLDSA_PROFILE_H
#define CLDSA_PROFILE_H

#include <cldsa/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cldsa_profile_row {
    char name[96]; /* "op/variant/kernel" */
    uint64_t launches;
    double seconds; /* CL_PROFILING_COMMAND_START to _END, summed */
} cldsa_profile_row;

/*
 * Waits for the recorded kernels, aggregates them by name, slowest first, and forgets them.
 * *rows is malloc'ed for the caller to free().
 */
CLDSA_API cldsa_status cldsa_profile_collect(cldsa_context *ctx, cldsa_profile_row **rows, size_t *count);

#ifdef __cplusplus
}
#endif
#endif
