/*
 * Golden files against the device: `cldsa check` and the test of the goldens. A file's metadata "op" says what it holds
 * and so which checker reads it (check.c's table); every checker reports rows of the same form.
 */
#ifndef CLDSA_CHECK_H
#define CLDSA_CHECK_H

#include "host/cli/cli.h"
#include "host/io/safetensors.h"

/* One tensor of one way to compute it. */
typedef struct check_row {
    char what[64];    /* "topk/vec", "model" */
    char tensor[192]; /* the file's name for it */
    double error;     /* the largest |got - want|; infinity where NaN, infinities or integers differ */
    double ratio;     /* the largest error as a part of what is allowed there: at most 1 is right */
} check_row;

typedef struct check_report {
    check_row *rows;
    size_t count, capacity;
    char unsupported[160]; /* why the file was not checked; "" if it was */
} check_report;

typedef cldsa_status (*check_fn)(const cldsa_safetensors *file, const cli_session *session, check_report *report);

/* Runs a file's checker. A wrong result is no failure of the call: see check_passed. */
cldsa_status check_file(const char *path, const cli_session *session, check_report *report);

/* Every row is right, and there is at least one. */
bool check_passed(const check_report *report);
void check_release(check_report *report);

/* ---- for checkers -------------------------------------------------------------------------------------------- */

cldsa_status check_add(check_report *report, const char *what, const char *tensor, double error, double ratio);

/* Adds the row for `want`'s elements against `got` with |got - want| <= abs + rel * |want|; NaN and inf exactly. */
cldsa_status check_compare(check_report *report, const char *what, const cldsa_st_tensor *want, const float *got,
                           double abs, double rel);

#endif
