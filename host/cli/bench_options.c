/* The command line of `cldsa bench`. */
#include "host/cli/bench_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    KEY_PRESET = CLI_KEY,
    KEY_EXTENTS,
    KEY_VARIANT,
    KEY_TUNE,
    KEY_BUDGET,
    KEY_PROFILE,
    KEY_KEYS,
    KEY_GAIN,
    KEY_LENGTHS,
    KEY_VARIANTS,
    KEY_BATCH,
    KEY_STEPS,
    KEY_HERE,
    KEY_PEERS,
    KEY_PYTHON,
    KEY_PEER_DIR,
    KEY_OUT
};

const char *const bench_suite_names[] = {"peak", "ops", "train", "end-to-end", "all", NULL};

const cli_option bench_options_table[] = {
    CLI_OPTION_DEVICE,
    CLI_OPTION_JSON,
    {KEY_OUT, "out", "FILE", "write the JSON there, beside what is printed; until it is complete, FILE.partial"},
    {KEY_BUDGET, "budget", "SECONDS", "ops, end-to-end: measuring time per row (default 1)"},
    {KEY_PRESET, "preset", "NAME",
     "ops: experiment, dsa-prefill, dsa-decode, long-context, memory, cpu or gpu (default: the device's kind)"},
    {KEY_EXTENTS, "extents", "N=V,...", "ops: these extents instead of the preset's (S=512,H=64)"},
    {KEY_VARIANT, "variant", "NAME", "ops: this kernel variant instead of the one chosen"},
    {KEY_TUNE, "tune", "N=V,...", "ops, with --variant: these tunables instead of the defaults"},
    {KEY_KEYS, "keys", "N", "end-to-end: the longest context (default 32768 on CPUs, 131072 elsewhere)"},
    {KEY_LENGTHS, "lengths", "LIST", "train: sequence lengths (default 64,128,256)"},
    {KEY_VARIANTS, "variants", "LIST", "train: sparsity variants (default dense,fixed50,adaptive)"},
    {KEY_BATCH, "batch", "N", "train: sequences per step (default 8)"},
    {KEY_STEPS, "steps", "N", "train: measured steps per cell (default 20 on CPUs, 200 elsewhere)"},
    {KEY_HERE, "here", NULL, "train: all cells in this process (peak memory is then not the cell's own)"},
    {KEY_GAIN, "gain", NULL, "ops: measure defaults in turn with what the tuning database gives"},
    {KEY_PROFILE, "profile", NULL, "device time per kernel under each row"},
    {KEY_PEERS, "peers", NULL, "measure the peers in the same run: PyTorch, and OpenBLAS for gemm on CPUs"},
    {KEY_PYTHON, "python", "PATH", "an interpreter with PyTorch (default $CLDSA_PEER_PYTHON, then python3)"},
    {KEY_PEER_DIR, "peer-dir", "DIR", "where operations.py lies (default bench/peers here or beside the build)"},
    {0},
};

/* ---- the command line -------------------------------------------------------------------------------------------- */

static int take_suite(const char *value, int *suite) {
    int count = 0;
    for (; bench_suite_names[count]; ++count)
        if (strcmp(bench_suite_names[count], value) == 0) {
            *suite = count;
            return CLI_GO;
        }
    const char *near = cldsa_nearest_name(value, bench_suite_names, (size_t)count);
    return cli_usage("bench: there is no suite \"%s\"; %s%s%s", value, near ? "did you mean " : "known are ",
                     near ? near : "peak, ops, train, end-to-end and all", near ? "?" : "");
}

/* A list's items, cut at commas. */
static int split(const char *option, const char *text, char items[][CLDSA_VARIANT_MAX], int *count) {
    for (*count = 0; *count < CLDSA_MAX_AXIS; text += strcspn(text, ",") + 1) {
        size_t length = strcspn(text, ",");
        if (length == 0 || length >= CLDSA_VARIANT_MAX)
            return cli_usage("--%s must be 1 to %d items with commas between them", option, CLDSA_MAX_AXIS);
        snprintf(items[(*count)++], CLDSA_VARIANT_MAX, "%.*s", (int)length, text);
        if (!text[length])
            return CLI_GO;
    }
    return cli_usage("--%s has more than %d items", option, CLDSA_MAX_AXIS);
}

static int take_lengths(const char *value, bench_cli_options *options) {
    char items[CLDSA_MAX_AXIS][CLDSA_VARIANT_MAX];
    int code = split("lengths", value, items, &options->num_lengths);
    for (int i = 0; i < options->num_lengths && code == CLI_GO; ++i)
        code = cli_integer("lengths", items[i], 2, 1 << 24, &options->lengths[i]);
    return code;
}

static int take_variants(const char *value, bench_cli_options *options) {
    int code = split("variants", value, options->variants, &options->num_variants);
    for (int i = 0; i < options->num_variants && code == CLI_GO; ++i) {
        cldsa_config config = {0};
        if (cldsa_config_set_variant(&config, options->variants[i]) != CLDSA_SUCCESS)
            code = cli_usage("--variants: %s", cldsa_error_message());
    }
    return code;
}

static int take(void *user, int key, const char *value) {
    bench_cli_options *options = user;
    switch (key) {
    case CLI_DEVICE:
        options->device = value;
        return CLI_GO;
    case CLI_JSON:
        options->json = true;
        return CLI_GO;
    case KEY_OUT:
        options->out = value;
        return CLI_GO;
    case KEY_BUDGET:
        return cli_number("budget", value, 0.01, 600, &options->budget);
    case KEY_PRESET:
        options->preset = value;
        return CLI_GO;
    case KEY_EXTENTS:
        return bench_parse_extents(value, options->extents) == CLDSA_SUCCESS
                   ? CLI_GO
                   : cli_usage("--extents: %s", cldsa_error_message());
    case KEY_VARIANT:
        options->variant = value;
        return CLI_GO;
    case KEY_TUNE:
        options->tune = value;
        return CLI_GO;
    case KEY_LENGTHS:
        return take_lengths(value, options);
    case KEY_VARIANTS:
        return take_variants(value, options);
    case KEY_BATCH:
        return cli_integer("batch", value, 1, 1 << 20, &options->batch);
    case KEY_STEPS:
        return cli_integer("steps", value, 1, 1 << 20, &options->steps);
    case KEY_HERE:
        options->here = true;
        return CLI_GO;
    case KEY_PROFILE:
        options->profile = true;
        return CLI_GO;
    case KEY_KEYS:
        return cli_integer("keys", value, 256, 1 << 24, &options->most_keys);
    case KEY_GAIN:
        options->gain = true;
        return CLI_GO;
    case KEY_PEERS:
        options->peers = true;
        return CLI_GO;
    case KEY_PYTHON:
        options->python = value;
        return CLI_GO;
    case KEY_PEER_DIR:
        options->peer_dir = value;
        return CLI_GO;
    }
    if (options->suite < 0)
        return take_suite(value, &options->suite);
    const cldsa_op *op;
    if (cldsa_find_op(value, &op) != CLDSA_SUCCESS)
        return cli_usage("%s", cldsa_error_message());
    options->ops[options->num_ops++] = value;
    return CLI_GO;
}

/* ---- peers ------------------------------------------------------------------------------------------------------- */

static bool is_peer_dir(const char *directory) {
    char script[BENCH_PATH_SIZE + 16];
    snprintf(script, sizeof script, "%s/operations.py", directory);
    return access(script, R_OK) == 0;
}

/* Directory of this program's file. */
static bool program_directory(char directory[BENCH_PATH_SIZE]) {
    ssize_t length = readlink("/proc/self/exe", directory, BENCH_PATH_SIZE - 1);
    if (length < 0)
        return false;
    directory[length] = '\0';
    char *slash = strrchr(directory, '/');
    if (slash)
        *slash = '\0';
    return slash != NULL;
}

static int find_peers(bench_cli_options *options) {
    char here[BENCH_PATH_SIZE], candidate[BENCH_PATH_SIZE + 32];
    if (!options->peers)
        return CLI_GO;
    bool known = program_directory(here);
    options->paths.python = options->python ? options->python : getenv("CLDSA_PEER_PYTHON");
    if (!options->paths.python)
        options->paths.python = "python3";
    snprintf(options->scripts, BENCH_PATH_SIZE, "%s", options->peer_dir ? options->peer_dir : "bench/peers");
    if (!options->peer_dir && !is_peer_dir(options->scripts) && known)
        snprintf(options->scripts, BENCH_PATH_SIZE, "%.*s/../bench/peers", BENCH_PATH_SIZE - 32, here);
    if (!is_peer_dir(options->scripts))
        return cli_usage("--peers: no operations.py in %s; --peer-dir says where bench/peers lies", options->scripts);
    options->paths.scripts = options->scripts;
    snprintf(candidate, sizeof candidate, "%s/cldsa-peer-openblas", here);
    if (known && access(candidate, X_OK) == 0) {
        snprintf(options->gemm, BENCH_PATH_SIZE, "%.*s", BENCH_PATH_SIZE - 1, candidate);
        options->paths.gemm = options->gemm;
    }
    return CLI_GO;
}

/* ---- what does not fit together ---------------------------------------------------------------------------------- */

/* A variant that none of the operations has was mistyped. */
static int check_variant(const bench_cli_options *options) {
    enum { MOST = 64 };
    const char *names[MOST] = {0};
    char known[256] = "";
    size_t count = 0;
    for (size_t o = 0; o < options->num_ops; ++o) {
        const cldsa_op *op;
        if (cldsa_find_op(options->ops[o], &op) != CLDSA_SUCCESS)
            continue;
        if (cldsa_find_variant(op, options->variant))
            return CLI_GO;
        for (int v = 0; op->variants[v] && count < MOST; ++v)
            names[count++] = op->variants[v]->name;
    }
    for (size_t i = 0; i < count; ++i)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", names[i]);
    const char *near = cldsa_nearest_name(options->variant, names, count);
    return cli_usage("--variant: %s has no variant \"%s\"; %s%s%s", options->ops[0], options->variant,
                     near ? "did you mean " : "known are ", near ? near : known, near ? "?" : "");
}

static int check_together(const bench_cli_options *options) {
    const char *suite = bench_suite_names[options->suite];
    if (options->num_ops && options->suite != SUITE_OPS && options->suite != SUITE_ALL)
        return cli_usage("bench %s: %s is an operation, which only ops and all measure", suite, options->ops[0]);
    if (*options->extents && options->suite != SUITE_OPS)
        return cli_usage("bench %s: --extents are for ops", suite);
    if (options->tune && !options->variant)
        return cli_usage("--tune needs --variant, whose tunables they are");
    return options->variant && options->num_ops ? check_variant(options) : CLI_GO;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

int bench_options_read(const cli_command *command, int argc, char **argv, bench_cli_options *options) {
    *options = (bench_cli_options){.suite = -1,
                                   .budget = 1,
                                   .batch = 8,
                                   .lengths = {64, 128, 256},
                                   .num_lengths = 3,
                                   .variants = {"dense", "fixed50", "adaptive"},
                                   .num_variants = 3,
                                   .ops = calloc((size_t)argc, sizeof *options->ops)};
    if (!options->ops)
        return cli_report(cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %d arguments", argc));
    int code = cli_parse(command, argc, argv, take, options);
    if (code == CLI_GO && options->suite < 0)
        code = cli_usage("bench: a suite is needed: peak, ops, train, end-to-end or all; see cldsa bench --help");
    if (code == CLI_GO)
        code = check_together(options);
    return code == CLI_GO ? find_peers(options) : code;
}

void bench_options_free(bench_cli_options *options) {
    free(options->ops);
}
