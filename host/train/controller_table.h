/*
 * How many keys a freshly initialised controller keeps: the published table, as a distribution over initialisations.
 *
 * The publication shows one unseeded draw per length and kind of hidden state; a draw says little, as the controller is
 * never trained and its k is a function of its initial weights.
 */
#ifndef CLDSA_CONTROLLER_TABLE_H
#define CLDSA_CONTROLLER_TABLE_H

#include "host/nn/config.h"

#include <cldsa/context.h>

enum { CLDSA_CONTROLLER_LENGTHS = 3, CLDSA_CONTROLLER_KINDS = 3, CLDSA_CONTROLLER_ROWS = 9 };

typedef struct cldsa_controller_row {
    int length;
    const char *kind; /* "uniform", "sparse", "dense": Gaussian hidden states of scale 1, 0.1, 10 */
    double scale;
    int published;                      /* the publication's one draw */
    double mean, std, min, median, max; /* of k over the initialisations */
    double low, high;                   /* 2.5 and 97.5 percentiles */
    double published_rank;              /* share of initialisations whose k is below or equal to the published one */
} cldsa_controller_row;

/* Runs `draws` initialisations (seeds first_seed, first_seed + 1, ...) on the device. rows has CLDSA_CONTROLLER_ROWS.
 */
cldsa_status cldsa_controller_table(cldsa_context *ctx, cl_command_queue queue, const cldsa_config *config, int draws,
                                    uint64_t first_seed, cldsa_controller_row *rows);

/* The table as Markdown or JSON; malloc'ed. */
cldsa_status cldsa_controller_table_text(const cldsa_controller_row *rows, int draws, bool json, char **text);

#endif
