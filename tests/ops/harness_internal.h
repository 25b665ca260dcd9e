/* Between the harness' own files. */
#ifndef CLDSA_HARNESS_INTERNAL_H
#define CLDSA_HARNESS_INTERNAL_H

#include "host/ops/fields.h"
#include "host/ops/host_tensor.h"
#include "tests/ops/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { HARNESS_TEXT = 256 };

struct harness_data {
    const harness_suite *suite;
    const harness_case *test;
    const cldsa_op *op;
    int index; /* of the case in its suite: seeds and offsets follow it */
    void *args;
    int64_t dims[CLDSA_MAX_DIMS];
    int num_fields;
    bool given[CLDSA_MAX_FIELDS];
    int alias[CLDSA_MAX_FIELDS];                 /* field whose buffer is used, or -1 */
    cldsa_host_tensor tensors[CLDSA_MAX_FIELDS]; /* inputs; after the reference, the wanted outputs */
    void *raw[CLDSA_MAX_FIELDS];                 /* storage form of inputs before the call */
    double *unrounded[CLDSA_MAX_FIELDS];         /* forward outputs that a backward operation reads, in fp64 */
    int failures;
};

/* An output element that the reference did not write: a NaN that no arithmetic produces. */
#define HARNESS_UNTOUCHED UINT64_C(0x7ff80000deadbeef)
void harness_untouch(double *values, int64_t n);
bool harness_is_untouched(double value);

static inline bool harness_is_input(const cldsa_field *field) {
    return field->kind == CLDSA_FIELD_IN || field->kind == CLDSA_FIELD_INOUT;
}
static inline bool harness_is_output(const cldsa_field *field) {
    return field->kind == CLDSA_FIELD_OUT || field->kind == CLDSA_FIELD_INOUT;
}
static inline bool harness_is_float(cldsa_dtype dtype) {
    return (CLDSA_ACCEPT(dtype) & CLDSA_ACCEPT_FLOAT) != 0;
}

/* Index of a field by name, or -1. */
int harness_field(const cldsa_op *op, const char *name);

/* The value of `key` in "key=value..." items separated by `separator`; false if absent. */
bool harness_option(const char *list, char separator, const char *key, char value[HARNESS_TEXT]);

/* A number, or a dimension of the case with an optional +n or -n. */
double harness_operand(const harness_data *data, const char *text);

/* harness_fill.c: one input tensor as the case asks. */
void harness_fill(harness_data *data, int field);

/* harness_forward.c: the forward's outputs that the case's backward operation reads. */
void harness_forward_outputs(harness_data *data);
/* The backward reference against central differences of the forward's; counts failures. */
void harness_check_differences(harness_data *data);

/* harness_run.c: every variant on the device; counts failures. */
void harness_run_device(harness_data *data);
void harness_release_device(void);

/* Prints "op: case: ..." and counts a failure. */
void harness_failed(harness_data *data, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
