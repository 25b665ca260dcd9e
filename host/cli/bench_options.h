/* What `cldsa bench` is asked for: its command line, and where the peers are found. */
#ifndef CLDSA_CLI_BENCH_OPTIONS_H
#define CLDSA_CLI_BENCH_OPTIONS_H

#include "bench/bench.h"
#include "host/cli/cli.h"
#include "host/train/experiment.h"

enum { BENCH_PATH_SIZE = 4096 };

typedef enum bench_suite { SUITE_PEAK, SUITE_OPS, SUITE_TRAIN, SUITE_END_TO_END, SUITE_ALL } bench_suite;
extern const char *const bench_suite_names[];

typedef struct bench_cli_options {
    int suite; /* -1 until given */
    const char *device, *preset, *variant, *tune, *python, *peer_dir, *out;
    int64_t lengths[CLDSA_MAX_AXIS];
    char variants[CLDSA_MAX_AXIS][CLDSA_VARIANT_MAX];
    int num_lengths, num_variants;
    char extents[BENCH_TEXT]; /* words; empty: none */
    bool json, profile, here, peers, gain;
    double budget;
    int64_t most_keys;    /* 0: as fits the device */
    int64_t batch, steps; /* steps 0: as fits the device */
    const char **ops;     /* room for all arguments */
    size_t num_ops;
    bench_peer_paths paths;
    char scripts[BENCH_PATH_SIZE], gemm[BENCH_PATH_SIZE]; /* what paths points to */
} bench_cli_options;

extern const cli_option bench_options_table[];

/* Defaults, then the command line, then the peers if asked for. CLI_GO or an exit code; free in either case. */
int bench_options_read(const cli_command *command, int argc, char **argv, bench_cli_options *options);
void bench_options_free(bench_cli_options *options);

#endif
