/* One tuning on its way: what tuner.c, finals.c and clblast.c share. */
#ifndef CLDSA_AUTOTUNE_SESSION_H
#define CLDSA_AUTOTUNE_SESSION_H

#include "autotune/tuner.h"
#include "bench/place.h"

/* What is being searched: a variant's space, or that of one of CLBlast's kernels. */
typedef struct tuner_target {
    const tuner_space *space;
    const char *kernel; /* CLBlast's; NULL: the space is a variant's */
    tuner_search search;
    double spent;     /* seconds on its trials */
    bool passed_over; /* far behind in calls like this one */
} tuner_target;

/* One call to tune for. */
typedef struct tuner_case {
    const bench_preset *preset; /* its name is the shape class */
    int index;
    const char *op;
    char dims[TUNER_TEXT], check_dims[TUNER_TEXT];
    char kind[TUNER_TEXT];      /* " k=2048 indices": what is more than extents */
    char label[3 * TUNER_TEXT]; /* "topk R=256 T=65536 K=2048 k=2048 indices": its name in the log */
    bool follows;               /* only chooses among the winners of its kind */
    double build;               /* seconds that building the defaults took ahead of all cases; 0: not known */
} tuner_case;

enum { TUNER_MAX_CASES = 512 };

/*
 * The presets' cases that the options ask for, no call twice. Where cases differ by a common factor of their extents
 * only, the largest is searched, and the others follow: they stand behind. Free *out.
 */
cldsa_status tuner_list_cases(const tuner_options *options, tuner_case **out, int *count);
bool tuner_wants(const tuner_options *options, const char *op);

/* The largest plain product among the presets, whether products are to be tuned or not; false: there is none. */
bool tuner_find_product(const tuner_options *options, tuner_case *out);

typedef struct tuner_session {
    const cldsa_device_info *device;
    const tuner_options *options;
    tuner_log *log;
    tuner_worker worker;
    tuner_crew crew;
    cJSON *overrides; /* CLBlast's parameters so far: {"Xgemm": "MWG=64,..."} */
    double end;       /* of the tuning, by the log's clock */

    /* the present case */
    const tuner_case *now;
    double case_began, case_end;

    /* for the progress line */
    int case_number, num_cases, followers;
    size_t tried, failed;
    double default_seconds;
    bool line_open; /* a line without its end stands on the terminal */
    double printed; /* when the last line was */

    /* for the summary */
    int missed, broken;
} tuner_session;

/*
 * A target's candidate, from the log if it is there; INFINITY where it fails. `ahead` is what the crew found of it, or
 * NULL. Fails only if the device is gone.
 */
cldsa_status tuner_evaluate(tuner_session *session, tuner_target *target, size_t candidate, const tuner_result *ahead,
                            double *seconds);

/* Candidates by strategy until the clock stands at `until` or all were tried. */
cldsa_status tuner_explore(tuner_session *session, tuner_target *targets, int count, double until);

/* The present case is done with, for this reason. */
void tuner_give_up(tuner_session *session, const char *reason);

/* The request that opens a case, at other extents if given. */
cJSON *tuner_open_request(const tuner_session *session, const tuner_case *test, const char *dims);

/* ---- variants that are far behind (behind.c) --------------------------------------------------------------------- */

/* A variant this many times slower than the usual one's default is searched only a little, and passed over elsewhere.
 */
extern const double tuner_far_behind;
/* Doublings of extents from one call of an operation to another: sums |log2| over "S=64 T=64"; INFINITY if others lie
 * in other extents. */
double tuner_doublings(const char *dims, const char *others);
/* Remembers a variant whose defaults took `seconds` in the present case, if that is far more than the usual one's. */
void tuner_note_behind(tuner_session *session, const char *variant, double seconds);
/* Whether earlier cases leave it no chance in the present one. */
bool tuner_is_behind(const tuner_session *session, const char *variant);

/* ---- the decision (finals.c) ------------------------------------------------------------------------------------- */

/* What one competitor did, a round each: in the same order for all that compete. */
typedef struct tuner_rounds {
    bench_samples medians, lows; /* lows: 10th percentiles */
} tuner_rounds;

void tuner_rounds_add(tuner_rounds *rounds, const tuner_result *result);
void tuner_rounds_free(tuner_rounds *rounds);

/*
 * Whether `a` beats `b` beyond doubt: in all rounds they share, or in all but one of eight and more; and by more than 2
 * % both in the median round and at their best, which a busy machine hides least.
 */
bool tuner_clearly_faster(const tuner_rounds *a, const tuner_rounds *b);

/*
 * Defaults and best candidates of a case measured again in turns; merges the winners into the database and prints the
 * case's line.
 */
cldsa_status tuner_decide(tuner_session *session, const tuner_case_info *info, tuner_target *targets, int count);

/* ---- in the worker: is a candidate right (checks.c) -------------------------------------------------------------- */

/* A case at the small extents that its reference is computed for, and at odd ones where there is such a call. */
typedef struct tuner_checks {
    bench_placed placed[2];
    char dims[2][TUNER_TEXT]; /* which the workloads point to */
    int count;
} tuner_checks;

/*
 * "S=64 T=64 D=32" to "S=63 T=63 D=32" (step -1) or "S=65 T=65 D=32" (1): the extents along which kernels loop or
 * launch. Extents that come out as others say keep to them. Below is to be preferred: some variants are for few rows or
 * for short ones only, up to a power of two.
 */
void tuner_odd_dims(const char *dims, int step, char odd[TUNER_TEXT]);

/*
 * Odd extents below, or above where the operation refuses those or no variant can run them; where it is the same with
 * both, the odd check is left out. Any other failure is one of the case. Release `out` whatever is returned.
 */
cldsa_status tuner_checks_place(cldsa_context *ctx, cl_command_queue queue, const bench_case *test, const char *dims,
                                tuner_checks *out);
void tuner_checks_release(tuner_checks *checks);

/* Runs what is forced on all of them; *error is the largest, of what is allowed. CLDSA_CHECK_FAILED: wrong. */
cldsa_status tuner_checks_run(tuner_checks *checks, double *error);

/* ---- CLBlast (clblast.c) ----------------------------------------------------------------------------------------- */

/* In the worker: "NAME=VALUE,..." for one of CLBlast's kernels in single precision. */
cldsa_status tuner_clblast_override(cldsa_context *ctx, const char *kernel, const char *text);

/* A candidate's text with the parameters that are not searched: all of the kernel's, as CLBlast wants them. */
void tuner_clblast_complete(const cldsa_device_info *device, const char *kernel, const char *text,
                            char full[TUNER_TEXT]);

/* Fits CLBlast's gemm kernels on the product `test`, within `budget` seconds or little more. */
cldsa_status tuner_tune_clblast(tuner_session *session, const tuner_case *product, double budget);

/* ---- the progress line (progress.c) ------------------------------------------------------------------------------ */

void tuner_progress_trial(tuner_session *session, const tuner_target *target);
/* A line that stays. */
void tuner_progress_line(tuner_session *session, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "1.23 ms" */
const char *tuner_duration(double seconds, char text[32]);

#endif
