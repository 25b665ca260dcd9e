/*
 * Measuring: suites of rows, each with its time, its accuracy and how both were got.
 *
 *   peak        what the device reaches at all (peak.h): the roofline of the other rows
 *   ops         operations of the catalogue at named shapes (presets.c)
 *   train       training steps of the experiment's model, lengths x variants
 *   end-to-end  scoring, selecting and attending against dense attention, over the context's length (end_to_end.h)
 *
 * A row says ok, unsupported, skipped or error, and why; a wrong result has no time. Peers (bench/peers) are measured
 * between the repeats of the same row, so that a machine's mood hits both alike.
 */
#ifndef CLDSA_BENCH_H
#define CLDSA_BENCH_H

#include "host/io/json.h"
#include "host/ops/workload.h"

enum { BENCH_TEXT = 256, BENCH_MAX_PEERS = 4, BENCH_KEPT_SAMPLES = 100 };

typedef enum bench_status {
    BENCH_OK,
    BENCH_UNSUPPORTED, /* nothing here can run it */
    BENCH_SKIPPED,     /* it could run, but not within this machine's limits */
    BENCH_ERROR        /* it failed, or its result is wrong */
} bench_status;
extern const char *const bench_status_names[];

/* What the failure of a row says about it: not supported, beyond this machine's memory, or an error. */
bench_status bench_status_of(cldsa_status status);

/* ---- samples (measure.c) ----------------------------------------------------------------------------------------- */

typedef struct bench_samples {
    double *values; /* seconds per call, or tokens per second; in the order they were measured */
    size_t count, capacity;
} bench_samples;

void bench_samples_add(bench_samples *samples, double value);          /* without memory the sample is lost */
double bench_samples_quantile(const bench_samples *samples, double p); /* NaN without samples */
void bench_samples_free(bench_samples *samples);

double bench_now(void); /* seconds of a steady clock */

/* One enqueue of what is measured on `call`'s queue; call->event is set where the measurement needs it. */
typedef struct bench_task {
    cldsa_status (*enqueue)(void *user, const cldsa_call *call);
    void *user;
    cldsa_call call; /* queue and workspace */
} bench_task;

/*
 * Runs the task for about `budget` seconds, at least three times, and adds a sample per run. On CPUs: wall time from
 * enqueue to clFinish. Elsewhere: device time, from the end of one run's last kernel to the end of the next one's, in
 * bursts without pause; gaps between kernels therefore count. The queue must have profiling enabled then. A device
 * whose events tell no time is measured by the wall.
 */
cldsa_status bench_measure(const bench_task *task, bool on_cpu, double budget, bench_samples *samples);

/* Runs without samples until kernels are built and clocks are up: at least once, about `seconds` long. */
cldsa_status bench_warm_up(const bench_task *task, double seconds);

/* ---- presets (presets.c) ----------------------------------------------------------------------------------------- */

typedef struct bench_case {
    const char *op;      /* by name, so that a preset may be ahead of the catalogue */
    const char *forward; /* of a backward operation */
    cldsa_workload_spec spec;
    const char *check_dims; /* smaller extents at which the result is compared; NULL: the same */
    const char *partial;    /* an output of which the operation writes only a part, by its definition */
} bench_case;

typedef enum bench_device_kind { BENCH_ON_ANY, BENCH_ON_CPU, BENCH_ON_GPU } bench_device_kind;

/* Presets of one name for CPUs and for all else have the same forms at different sizes. */
typedef struct bench_preset {
    const char *name, *summary;
    const bench_case *cases;
    size_t count;
    bench_device_kind kind;
} bench_preset;
extern const bench_preset *const bench_presets[]; /* NULL-terminated */

/* By name and kind of device, NULL for the usual one there; CLDSA_NOT_FOUND names the nearest. */
cldsa_status bench_find_preset(const char *name, bool is_cpu, const bench_preset **out);

/* ---- extents in place of a preset's (extents.c) ------------------------------------------------------------------ */

/* "S=512,H=64" as the words of a workload, "S=512 H=64"; CLDSA_INVALID_ARGUMENT. */
cldsa_status bench_parse_extents(const char *list, char out[BENCH_TEXT]);

/* CLDSA_INVALID_ARGUMENT unless a call of these `dims` has all of them. NULL: none. */
cldsa_status bench_check_extents(const char *op, const char *dims, const char *extents);

/* What the case becomes with them. NULL: none. */
void bench_replace_extents(const bench_case *test, const char *extents, char dims[BENCH_TEXT],
                           char check_dims[BENCH_TEXT]);

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* What a peer made of the same row. */
typedef struct bench_peer_result {
    char name[BENCH_TEXT];
    bench_status status;
    char reason[BENCH_TEXT];
    bench_samples samples; /* ops: seconds; train: tokens per second */
    double peak_bytes;     /* train: of the peer's process; NaN if unknown */
} bench_peer_result;

/* What limits a call, and the least time in which this device could do it (peak.h). */
typedef struct bench_roofline {
    double seconds;          /* 0: not known */
    const char *limit;       /* "compute", "memory" or "launch" */
    double bytes_per_second; /* of the level that the working set fits in */
    double percent;          /* of the median */
} bench_roofline;

typedef struct bench_op_row {
    const bench_case *test;
    bench_status status;
    char reason[2 * BENCH_TEXT];
    char variant[32], tunables[BENCH_TEXT];
    char tuning[16];       /* where they came from: "none", "vendor", "architecture", "exact" or "forced" */
    char tuned_from[64];   /* the same for people */
    bench_samples samples; /* seconds per call */
    bool has_default;      /* defaults were measured in turn with the above */
    char default_variant[32], default_tunables[BENCH_TEXT];
    bench_samples default_samples;
    double flops, bytes; /* per call: useful arithmetic, compulsory traffic */
    double working_set;  /* bytes of its tensors, or what it touches of them */
    bench_roofline roofline;
    size_t workspace;           /* bytes given, the preferred size */
    double error, worst_abs;    /* of what is allowed; largest |got - want| of the floats */
    char checked[BENCH_TEXT];   /* the extents of the comparison */
    cldsa_profile_row *kernels; /* with profiling: of one call; malloc'ed */
    size_t num_kernels;
    bench_peer_result peers[BENCH_MAX_PEERS];
    int num_peers;
} bench_op_row;

typedef struct bench_train_row {
    int length;
    char variant[32];
    bench_status status;
    char reason[2 * BENCH_TEXT];
    bench_samples samples; /* tokens per second, one per reading of losses */
    double first_loss, last_loss;
    double peak_device_bytes, peak_rss_bytes;
    cJSON *kernels; /* with profiling: [{"kernel","launches","milliseconds"}] per step */
    bench_peer_result peers[BENCH_MAX_PEERS];
    int num_peers;
} bench_train_row;

/* ---- other programs (process.c) ---------------------------------------------------------------------------------- */

/* A child that is talked to in lines of JSON over its standard input and output. */
typedef struct bench_process {
    int pid, in, out;
    char *buffer;
    size_t used, capacity;
} bench_process;

cldsa_status bench_process_start(char *const argv[], bench_process *process);
/* Sends one line. */
cldsa_status bench_process_tell(bench_process *process, const cJSON *request);
/* Sends one line (NULL: nothing) and reads the next line of the answer that is a JSON object. */
cldsa_status bench_process_ask(bench_process *process, const cJSON *request, double timeout, cJSON **answer);
void bench_process_stop(bench_process *process);

/* ---- peers (peers.c) --------------------------------------------------------------------------------------------- */

/* A peer's answer {"peer","status","reason","samples":[...],"peak_bytes"} joins what it said before. */
void bench_peers_add(bench_peer_result *peers, int *count, const cJSON *answer);
void bench_peers_add_failure(bench_peer_result *peers, int *count, const char *name, bench_status status,
                             const char *reason);

/* Where peers are found; NULL members: not there. */
typedef struct bench_peer_paths {
    const char *python;  /* an interpreter with PyTorch */
    const char *scripts; /* the directory bench/peers */
    const char *gemm;    /* the OpenBLAS program */
} bench_peer_paths;

/* The peers of the operations' suite: processes that stay for the whole run; pid -1: not there. */
typedef struct bench_op_peers {
    bool on_cpu, blas_missing; /* asked for, and not built */
    bench_process torch, gemm;
} bench_op_peers;

void bench_op_peers_start(const bench_peer_paths *paths, bool on_cpu, bench_op_peers *peers); /* NULL: none */
void bench_op_peers_ask(bench_op_peers *peers, double budget, bench_op_row *row);
void bench_op_peers_stop(bench_op_peers *peers);

/* ---- the suites -------------------------------------------------------------------------------------------------- */

struct bench_peaks;

typedef struct bench_ops_options {
    const char *const *ops; /* only these; count 0: all of the preset */
    size_t num_ops;
    const bench_preset *preset;
    const char *extents;                              /* words, in place of the preset's; NULL: none */
    const char *variant, *tunables;                   /* force; NULL: as chosen */
    double budget;                                    /* seconds of measuring per row */
    const struct bench_peaks *peaks;                  /* for the roofline; NULL: none */
    bool profile;                                     /* device time per kernel too */
    bool gain;                                        /* measure with defaults too */
    const bench_peer_paths *peers;                    /* NULL: none */
    void (*row)(void *user, const bench_op_row *row); /* as each is done */
    void *user;
} bench_ops_options;

/* CLDSA_INVALID_ARGUMENT if a call of the preset does not have the extents. */
cldsa_status bench_ops_check(const bench_ops_options *options);

/* Measures what bench_ops_check passes; failures are rows. `ctx` without profiling: queues are made here. */
cldsa_status bench_ops(cldsa_context *ctx, const bench_ops_options *options);
void bench_op_row_free(bench_op_row *row);

typedef struct bench_train_options {
    const char *device; /* as for cldsa_select_device, passed on to the processes */
    int length;
    const char *variant;
    int batch, steps; /* measured steps; a few more come before */
    bool profile;
    const bench_peer_paths *peers; /* NULL: none */
} bench_train_options;

/* One cell in this process; its peak memory is the process'. With profiling `ctx` must have it. */
void bench_train_here(cldsa_context *ctx, cl_command_queue queue, const bench_train_options *options,
                      bench_train_row *row);
/* One cell in a process of its own, for an honest peak of memory, beside its peers. */
void bench_train(const bench_train_options *options, bench_train_row *row);
void bench_train_row_free(bench_train_row *row);

/* ---- results as JSON (json.c, system.c) and text (print.c) --------------------------------------------------------
 */

/*
 * Device, host, clocks, versions, date: travels with every result. To be asked for before anything is measured, since
 * the load is that of the minute before; what is known afterwards (peaks, the clocks under work) is then put in.
 */
cJSON *bench_system_json(cldsa_context *ctx);
void bench_system_finish(cJSON *system, const struct bench_peaks *peaks);
cJSON *bench_statistics_json(const bench_samples *samples); /* NULL members without samples */
void bench_add_status(cJSON *row, bench_status status, const char *reason);
cJSON *bench_op_row_json(const bench_op_row *row);
cJSON *bench_train_row_json(const bench_train_row *row);

/* How much better cldsa is, by medians: more than 1 is. */
double bench_ratio(const bench_samples *own, const bench_samples *peer, bool less_is_better);
/* The storage type of the row's first tensor that names one, as in the preset's words: "F32", "BF16". */
void bench_op_row_dtype(const bench_op_row *row, char dtype[16]);

void bench_op_row_print(const bench_op_row *row);
void bench_train_row_print(const bench_train_row *row);
/* What the columns mean, for the head of a table. */
void bench_ops_head(void);
void bench_train_head(void);

#endif
