/*
 * Fitting kernels to a device.
 *
 *   space     the candidates of a variant: its tunables' values, the legal ones (op.h has the description)
 *   trial     one candidate, in a child process with a watchdog: checked against fp64 on odd shapes, then timed
 *   crew      candidates compiled and checked side by side, before they are timed one after another
 *   search    which candidate to try next: exhaustive where small, else random start, local search, annealing
 *   log       every trial as a line of JSON, from which an interrupted tuning resumes
 *   database  winners, merged into the user's file (host/ops/tuning.h reads it)
 *   picture   an HTML page of the search: best over time, time by parameter, what each parameter is worth
 */
#ifndef CLDSA_TUNER_H
#define CLDSA_TUNER_H

#include "bench/bench.h"
#include "host/ops/tuning.h"

#include <gsl/gsl_rng.h>
#include <stdio.h>

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
/* Whether winners could be written there: better known before they are searched for. */
cldsa_status tuner_database_check(const char *path);
/* cldsa tune --show, --export FILE, --import FILE. */
cldsa_status tuner_database_show(const char *path, const cldsa_device_info *device, bool json);
cldsa_status tuner_database_export(const char *path, const cldsa_device_info *device, const char *to);
cldsa_status tuner_database_import(const char *path, const char *from);

/* ---- what is tuned ----------------------------------------------------------------------------------------------- */

typedef enum tuner_strategy { TUNER_AUTO, TUNER_EXHAUSTIVE, TUNER_RANDOM, TUNER_LOCAL, TUNER_ANNEAL } tuner_strategy;
extern const char *const tuner_strategy_names[]; /* NULL-terminated */

typedef struct tuner_options {
    const char *const *ops; /* only these operations' cases; count 0: all. "clblast" is CLBlast's own parameters */
    size_t num_ops;
    const bench_preset *const *presets;
    size_t num_presets;
    const char *dims; /* extents that replace a case's ("M=512 N=512"), one case per operation; NULL: as they are */
    double budget;    /* seconds in all */
    double deadline;  /* seconds after which a candidate counts as hanging, compilation included */
    int jobs;         /* processes that compile and check ahead; 0: as many as half the processors, at most 8 */
    tuner_strategy strategy;
    unsigned long seed;
    bool quick;             /* short measurements, fewer finalists */
    const char *database;   /* NULL: the user's */
    const cJSON *arguments; /* of the command line, kept in the log for --resume */
} tuner_options;

/*
 * Tunes and prints its progress on standard output. Failing candidates and cases are lines of the log; what was won
 * before a failure of the tuner itself is in the database.
 * CLDSA_INVALID_ARGUMENT: nothing to tune. CL_DEVICE_NOT_AVAILABLE: the device is gone. CLDSA_UNSUPPORTED: no case
 * could be tuned.
 */
typedef struct tuner_log tuner_log;
cldsa_status tuner_run(const cldsa_device_info *device, const tuner_options *options, tuner_log *log);

/* The hidden other end: answers requests on standard input until it ends. `device` as for cldsa_select_device. */
cldsa_status tuner_worker_main(const char *device);

/* ---- spaces (space.c) -------------------------------------------------------------------------------------------- */

enum { TUNER_MAX_TUNABLES = 20, TUNER_MAX_VALUES = 17, TUNER_MAX_VARIANTS = 8, TUNER_TEXT = 256 };

/* The legal combinations of a variant's tunables. */
typedef struct tuner_space {
    char variant[32], source[17]; /* source: hash of the kernel file */
    int num_tunables;
    char names[TUNER_MAX_TUNABLES][32];
    int values[TUNER_MAX_TUNABLES][TUNER_MAX_VALUES], num_values[TUNER_MAX_TUNABLES];
    int *candidates;               /* [count, num_tunables], as indices into values */
    size_t count, fallback, known; /* which one is the default, and which the database gives; count: none */
} tuner_space;

typedef bool (*tuner_legal_fn)(const void *user, const int *values);

/* One more tunable: its `values` end with a 0, unless `count` is given; the default's is added if it is not there. */
void tuner_space_tunable(tuner_space *space, const char *name, const int *values, int count, int fallback);
/* All legal combinations; the default is one in any case, and none is known. CLDSA_OUT_OF_MEMORY. */
cldsa_status tuner_space_enumerate(tuner_space *space, const int *fallback, tuner_legal_fn legal, const void *user);
void tuner_space_free(tuner_space *space);

/* "NAME=VALUE,..." of a candidate; and the candidate of such a text, or count if there is none. */
void tuner_space_text(const tuner_space *space, size_t candidate, char text[TUNER_TEXT]);
size_t tuner_space_find(const tuner_space *space, const char *text);
/* In how many tunables two candidates differ. */
int tuner_space_distance(const tuner_space *space, size_t a, size_t b);

cJSON *tuner_space_json(const tuner_space *space);
cldsa_status tuner_space_parse(const cJSON *json, tuner_space *space);

/* ---- searching (search.c) ---------------------------------------------------------------------------------------- */

/* Which candidate next. Knows nothing but times: NAN untried, INFINITY failed. */
typedef struct tuner_search {
    const tuner_space *space;
    tuner_strategy strategy;
    gsl_rng *rng;
    double *seconds;
    bool *proposed;              /* by tuner_search_next, and not told of yet */
    size_t outstanding;          /* how many of these */
    size_t tried, best, current; /* best, current: count while there is none */
    double done;                 /* part of the time that is used up, 0 to 1: annealing cools by it */
} tuner_search;

cldsa_status tuner_search_begin(const tuner_space *space, tuner_strategy strategy, unsigned long seed,
                                tuner_search *search);
void tuner_search_end(tuner_search *search);
/*
 * Several may be asked for before the first is told of. False when all were tried, or when the next one depends on what
 * is outstanding.
 */
bool tuner_search_next(tuner_search *search, size_t *candidate);
void tuner_search_tell(tuner_search *search, size_t candidate, double seconds);

/* ---- trials (trial.c: this side; worker.c: the other) ------------------------------------------------------------ */

typedef enum tuner_outcome {
    TUNER_OK,
    TUNER_SLOW,      /* right, and given up on early: it cannot win */
    TUNER_WRONG,     /* differs from the reference */
    TUNER_BUILD,     /* does not compile */
    TUNER_RESOURCES, /* more local memory, registers, buffers or work-items than there are */
    TUNER_HANG,      /* no answer before the deadline */
    TUNER_CRASH,     /* took its process with it */
    TUNER_ERROR
} tuner_outcome;
extern const char *const tuner_outcome_names[];

typedef struct tuner_result {
    tuner_outcome outcome;
    double seconds, p10, p90; /* median and quantiles per call */
    double error;             /* of what is allowed */
    char reason[TUNER_TEXT];
} tuner_result;

/* What the other side says of a case. */
typedef struct tuner_case_info {
    char op[64], dims[TUNER_TEXT], params[TUNER_TEXT], dtypes[TUNER_TEXT]; /* the database's keys */
    char chosen[32];                                                       /* the variant taken without a database */
    double flops, bytes;
    tuner_space spaces[TUNER_MAX_VARIANTS];
    int num_spaces;
} tuner_case_info;

/* A process that runs candidates. Started when needed, killed at a deadline, started again. */
typedef struct tuner_worker {
    char device[16];
    double deadline, asked; /* asked: when the trial was sent that it works on */
    bench_process process;
    cJSON *open; /* the request that opened the present case; repeated after a restart */
} tuner_worker;

void tuner_worker_begin(const cldsa_device_info *device, double deadline, tuner_worker *worker);
void tuner_worker_end(tuner_worker *worker);
/* Takes the request. CL_DEVICE_NOT_AVAILABLE: the device is gone; other failures: the case cannot be placed. */
cldsa_status tuner_worker_open(tuner_worker *worker, cJSON *request, tuner_case_info *info);
void tuner_case_info_free(tuner_case_info *info);

typedef struct tuner_trial {
    const char *variant, *tunables;
    bool check;             /* against the reference first */
    bool written;           /* look for unwritten and NaN elements at full size */
    double budget;          /* seconds of measuring; 0: not measured */
    double limit;           /* given up on when slower than this; 0: never */
    const cJSON *overrides; /* of CLBlast's parameters: {"Xgemm": "MWG=64,..."}, NULL: none */
} tuner_trial;
/* What the candidate does is in *result; this fails only where no process can be had for it. */
cldsa_status tuner_worker_try(tuner_worker *worker, const tuner_trial *trial, tuner_result *result);

/* ---- ahead of the trials (trial.c) ------------------------------------------------------------------------------- */

enum { TUNER_MAX_CREW = 8 };

/* Workers that compile candidates into the kernel cache and check them, side by side, while nothing is timed. */
typedef struct tuner_crew {
    tuner_worker members[TUNER_MAX_CREW];
    bool late[TUNER_MAX_CREW]; /* has not opened the present case yet */
    int size;                  /* 0: there is nothing to be won by fewer than 2 */
} tuner_crew;

/* Starts nobody yet. `jobs` as in tuner_options. */
void tuner_crew_begin(const cldsa_device_info *device, double deadline, int jobs, tuner_crew *crew);
void tuner_crew_end(tuner_crew *crew);
/* The next case. Takes the request. */
void tuner_crew_case(tuner_crew *crew, cJSON *request);
/*
 * Checks up to crew->size candidates ("NAME=VALUE,...") of one variant. results[i].outcome is TUNER_OK, or what is
 * wrong with the candidate itself; TUNER_ERROR is what may be the others' fault, and worth another try alone.
 */
void tuner_crew_check(tuner_crew *crew, const char *variant, const char texts[][TUNER_TEXT], int count,
                      tuner_result *results);

/*
 * Cases side by side, one in each member: opens it and runs its usual variant with the defaults, once checked and once
 * at full size, so that these kernels are built and in the caches. next() gives a request and sets the case's number,
 * or NULL when there is no more; built() hears how long one took. Nothing may be timed meanwhile.
 */
typedef struct tuner_preparation {
    cJSON *(*next)(void *user, int *number);
    void (*built)(void *user, int number, double seconds);
    void *user;
} tuner_preparation;
void tuner_crew_prepare(tuner_crew *crew, const tuner_preparation *what);

/* ---- the log (log.c) --------------------------------------------------------------------------------------------- */

/*
 * One JSON object a line, flushed as each is added; damaged lines are passed over on reading.
 *   {"tuning": 1, "device", "seed", "arguments"}                                        the first line
 *   {"trial": case, "variant", "source", "tunables", "outcome", "seconds", "p10", "p90", "error", "reason", "at"}
 *   {"final": case, ... as a trial}    a finalist over all rounds
 *   {"winner": case, "op", "kind", "variant", "tunables", "seconds", "default_seconds", "fastest"}   of each variant
 *   {"done": case, "gain"}             of the fastest over the usual variant's default; or a "reason" why there is none
 *   {"end": true}
 * "at" is the tuning's own clock, which stands still between a kill and its resumption.
 */
struct tuner_log {
    char path[4096];
    FILE *file;
    cJSON *records; /* of the file, the first line included */
    double began;   /* bench_now() - began is the tuning's clock */
};

/*
 * Begins `path` (in place of an older log, but of nothing else; NULL: a new file in $XDG_STATE_HOME/cldsa), or, to
 * resume, opens it again (NULL: the newest there that has no end and nobody writes). CLDSA_NOT_FOUND: nothing to
 * resume.
 */
cldsa_status tuner_log_begin(const char *path, const cldsa_device_info *device, const tuner_options *options,
                             tuner_log *log);
cldsa_status tuner_log_resume(const char *path, tuner_log *log);
/* CLDSA_INVALID_ARGUMENT: the log to go on with was made on another device or driver. */
cldsa_status tuner_log_check_device(const tuner_log *log, const cldsa_device_info *device);
void tuner_log_add(tuner_log *log, cJSON *record); /* takes it */
double tuner_log_clock(const tuner_log *log);
/* The newest record that has `kind` with the value `what` ({"trial": "topk ..."}) and is of this candidate; NULL
 * matches all. */
const cJSON *tuner_log_find(const tuner_log *log, const char *kind, const char *what, const char *variant,
                            const char *source, const char *tunables);
void tuner_log_end(tuner_log *log);

/* ---- for people -------------------------------------------------------------------------------------------------- */

/* picture.c: PATH.html beside the log. */
cldsa_status tuner_picture(const tuner_log *log, char path[4096]);

#endif
