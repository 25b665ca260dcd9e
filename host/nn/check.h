/*
 * Golden files of whole models and of the controller, run through the device and compared.
 *
 * A model file holds parameters, a batch, every layer's intermediate values, loss, all gradients, the parameters after
 * one AdamW step and the losses of eight; a controller file holds parameters and batches of hidden states.
 */
#ifndef CLDSA_NN_CHECK_H
#define CLDSA_NN_CHECK_H

#include "host/io/safetensors.h"

#include <cldsa/context.h>
#include <stdbool.h>

/* One tensor's comparison. */
typedef struct cldsa_check_row {
    char name[192];   /* as in the file */
    double error;     /* worst of |got - want| / allowed, so 1 is the limit; infinite where one is not finite */
    double worst_abs; /* worst |got - want| */
    bool ok;
} cldsa_check_row;

typedef struct cldsa_check_report {
    cldsa_check_row *rows;
    size_t count, capacity;
    bool ok; /* all rows are */
} cldsa_check_report;

void cldsa_check_report_free(cldsa_check_report *report);

/*
 * Runs a file whose metadata's "op" is "model" or "controller" (CLDSA_NOT_FOUND for another) and appends a row per
 * tensor to the zero-initialised report. A difference is no failure of the call: look at report->ok.
 */
cldsa_status cldsa_check_golden(cldsa_context *ctx, cl_command_queue queue, const cldsa_safetensors *file,
                                cldsa_check_report *report);

#endif
