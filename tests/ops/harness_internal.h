/* Between the harness' own files. */
#ifndef CLDSA_HARNESS_INTERNAL_H
#define CLDSA_HARNESS_INTERNAL_H

#include "host/ops/fields.h"
#include "host/ops/workload.h"
#include "tests/ops/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { HARNESS_TEXT = CLDSA_WORKLOAD_TEXT };

struct harness_data {
    const harness_suite *suite;
    const harness_case *test;
    int index;                   /* of the case in its suite: seeds and offsets follow it */
    cldsa_workload work;         /* inputs; after the reference, the wanted outputs */
    int alias[CLDSA_MAX_FIELDS]; /* field whose buffer is used, or -1 */
    int failures;
};

/* harness_forward.c: the backward reference against central differences of the forward's; counts failures. */
void harness_check_differences(harness_data *data);

/* harness_run.c: every variant on the device; counts failures. */
void harness_run_device(harness_data *data);
void harness_release_device(void);

/* Prints "op: case: ..." and counts a failure. */
void harness_failed(harness_data *data, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
