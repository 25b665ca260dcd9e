/*
 * Fitting kernels to a device.
 *
 *   space     the candidates of a variant: its tunables' values, the legal ones (op.h has the description)
 *   trial     one candidate, in a child process with a watchdog: checked against fp64 on odd shapes, then timed
 *   search    which candidate to try next: exhaustive where small, else random start, local search, annealing
 *   log       every trial as a line of JSON, from which an interrupted tuning resumes
 *   database  winners, merged into the user's file (host/ops/tuning.h reads it)
 *   picture   an HTML page of the search: best over time, time by parameter, what each parameter is worth
 */
#ifndef CLDSA_TUNER_H
#define CLDSA_TUNER_H

#include "bench/bench.h"
#include "host/ops/tuning.h"

/* ---- the database's writing side (database.c) -------------------------------------------------------------------- */

/* A winner as it goes into the file. */
typedef struct tuner_winner {
    const char *op, *shape_class, *dims, *params, *dtypes; /* dims: "M=1024 N=1024 K=1024" */
    const char *variant, *tunables, *source;
    double seconds, default_seconds, spread; /* spread: (p90 - p10) / median */
    bool fastest;                            /* of all variants of this call */
} tuner_winner;

/*
 * Merges winners into the file at `path` (NULL: the user's) under an exclusive lock beside it, by temporary file and
 * rename: two tuners at once lose nothing. A damaged file is kept as PATH.damaged and a new one begun.
 */
cldsa_status tuner_database_add(const char *path, const cldsa_device_info *device, const tuner_winner *winners,
                                size_t count);
/* The same for one CLBlast kernel: parameters "MWG=64,NWG=64". */
cldsa_status tuner_database_add_clblast(const char *path, const cldsa_device_info *device, const char *kernel,
                                        int precision, const char *parameters, double seconds, double default_seconds);
/* cldsa tune --show, --export FILE, --import FILE. */
cldsa_status tuner_database_show(const char *path, const cldsa_device_info *device, bool json);
cldsa_status tuner_database_export(const char *path, const cldsa_device_info *device, const char *to);
cldsa_status tuner_database_import(const char *path, const char *from);

/* ---- the rest of this header is the search's (tuner.c) ----------------------------------------------------------- */

#endif
