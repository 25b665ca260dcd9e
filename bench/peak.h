/*
 * What a device reaches, measured by kernels that do one thing only: arithmetic, memory by the size of what is touched,
 * launches, transfers. The roofline of every other row.
 *
 * Every kernel's results are compared with what they must be; a wrong one makes an error of its row, not a peak. A peak
 * is the best of its samples: what the device reaches when nothing else is in its way.
 */
#ifndef CLDSA_BENCH_PEAK_H
#define CLDSA_BENCH_PEAK_H

#include "bench/bench.h"

enum { BENCH_MAX_PEAK_ROWS = 96, BENCH_MAX_LEVELS = 32 };

typedef struct bench_peak_row {
    char name[32];    /* "f32", "read", "copy", "local", "launch", ... */
    const char *unit; /* "FLOP/s", "op/s", "B/s" or "s" */
    bench_status status;
    char reason[BENCH_TEXT];
    char how[64];          /* "float16 x 12 chains" */
    double bytes;          /* of the memory touched; 0 where that means nothing */
    double work;           /* operations or bytes of one sample; 0 for latencies */
    double value;          /* in `unit`, of the best sample */
    bench_samples samples; /* seconds */
} bench_peak_row;

/* Bandwidth over a set of this many bytes, by the better of reading and copying. */
typedef struct bench_level {
    double bytes, bytes_per_second;
} bench_level;

typedef struct bench_peaks {
    double flops;                         /* f32 per second; 0: not known */
    double launch;                        /* seconds of an empty launch, by the clock of the rows */
    bench_level levels[BENCH_MAX_LEVELS]; /* by ascending size, bandwidth never rising */
    int num_levels;
    bench_peak_row *rows[BENCH_MAX_PEAK_ROWS]; /* as measured */
    int num_rows;
} bench_peaks;

typedef struct bench_peak_options {
    bool whole;                                         /* everything; else only what a roofline needs */
    void (*row)(void *user, const bench_peak_row *row); /* as each is done; NULL: nobody asks */
    void *user;
} bench_peak_options;

/* Failures are rows. `peaks` is to be freed also after a failure. */
cldsa_status bench_peaks_measure(cldsa_context *ctx, const bench_peak_options *options, bench_peaks *peaks);
void bench_peaks_free(bench_peaks *peaks);

/*
 * The largest of flops / peak, bytes / bandwidth and one empty launch. The bandwidth is that over a set of
 * `working_set` bytes, between measured sizes by interpolation: what fits into a cache may come from there.
 */
bench_roofline bench_roofline_of(const bench_peaks *peaks, double flops, double bytes, double working_set,
                                 double median);

cJSON *bench_peaks_json(const bench_peaks *peaks); /* of the system: what rooflines are made of; null if not known */
cJSON *bench_peak_row_json(const bench_peak_row *row);
void bench_peak_head(void);
void bench_peak_row_print(const bench_peak_row *row);

/* ---- between peak*.c --------------------------------------------------------------------------------------------- */

typedef struct peak_suite {
    cldsa_context *ctx;
    const cldsa_capabilities *caps;
    const cldsa_device_info *info;
    cl_command_queue queue; /* with profiling */
    bool on_cpu;
    const bench_peak_options *options;
    bench_peaks *peaks;
    bench_peak_row early; /* f32, measured before all else */
} peak_suite;

/* Fills name, unit and work; the row is then measured and handed to peak_done. Never NULL: without room it is lost. */
bench_peak_row *peak_row(peak_suite *suite, const char *name, const char *unit);
/* Sets status, reason and value; passes the row on. */
void peak_done(peak_suite *suite, bench_peak_row *row, cldsa_status status);

/* Warms up and measures within about `budget` seconds, adding samples of `row`. */
cldsa_status peak_measure(peak_suite *suite, const bench_task *task, double budget, bench_peak_row *row);
/* Seconds of one run of the task by the clock on the wall, after another run. */
cldsa_status peak_time_once(const bench_task *task, double *seconds);

cldsa_status peak_buffer(peak_suite *suite, size_t bytes, cl_mem *out);
cldsa_status peak_download(peak_suite *suite, cl_mem buffer, size_t bytes, void *to);

/* How long one launch should take, so that what surrounds it does not count. */
double peak_launch_seconds(const peak_suite *suite);

/* peak_compute.c. Early: f32 for the first time, so that a disturbance of a second is not taken for the device. */
void peak_compute(peak_suite *suite, bool early);
void peak_memory(peak_suite *suite);    /* peak_memory.c: levels, local memory */
void peak_launches(peak_suite *suite);  /* peak_launch.c */
void peak_transfers(peak_suite *suite); /* peak_launch.c */

#endif
