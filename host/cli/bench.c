/* cldsa bench: how fast, how right, and against whom. */
#include "bench/bench.h"
#include "host/cli/cli.h"
#include "host/cli/run_options.h"
#include "host/train/experiment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    KEY_PRESET = CLI_KEY,
    KEY_VARIANT,
    KEY_TUNE,
    KEY_BUDGET,
    KEY_PROFILE,
    KEY_LENGTHS,
    KEY_VARIANTS,
    KEY_BATCH,
    KEY_STEPS,
    KEY_HERE,
    KEY_PEERS,
    KEY_PYTHON,
    KEY_PEER_DIR,
    KEY_OUT,
    PATH_SIZE = 4096,
    CPU_STEPS = 20,
    GPU_STEPS = 200
};

enum { SUITE_OPS, SUITE_TRAIN, SUITE_ALL };
static const char *const suite_names[] = {"ops", "train", "all", NULL};

typedef struct bench_options {
    int suite; /* -1 until given */
    const char *device, *preset, *variant, *tune, *lengths, *variants, *python, *peer_dir, *out;
    bool json, profile, here, peers;
    double budget;
    int64_t batch, steps; /* steps 0: as fits the device */
    const char **ops;
    size_t num_ops;
    bench_peer_paths paths;
    char scripts[PATH_SIZE], gemm[PATH_SIZE]; /* what paths points to */
    cJSON *rows;
    bool failed; /* some row is an error */
} bench_options;

static const cli_option options_table[] = {
    CLI_OPTION_DEVICE,
    CLI_OPTION_JSON,
    {KEY_OUT, "out", "FILE", "write the JSON there, beside what is printed"},
    {KEY_BUDGET, "budget", "SECONDS", "ops: measuring time per row (default 1)"},
    {KEY_PRESET, "preset", "NAME", "ops: cpu or gpu (default: the device's kind)"},
    {KEY_VARIANT, "variant", "NAME", "ops: this kernel variant instead of the one chosen"},
    {KEY_TUNE, "tune", "N=V,...", "ops, with --variant: these tunables instead of the defaults"},
    {KEY_LENGTHS, "lengths", "LIST", "train: sequence lengths (default 64,128,256)"},
    {KEY_VARIANTS, "variants", "LIST", "train: sparsity variants (default dense,fixed50,adaptive)"},
    {KEY_BATCH, "batch", "N", "train: sequences per step (default 8)"},
    {KEY_STEPS, "steps", "N", "train: measured steps per cell (default 20 on CPUs, 200 elsewhere)"},
    {KEY_HERE, "here", NULL, "train: all cells in this process (peak memory is then not the cell's own)"},
    {KEY_PROFILE, "profile", NULL, "device time per kernel under each row"},
    {KEY_PEERS, "peers", NULL, "measure the peers in the same run: PyTorch, and OpenBLAS for gemm on CPUs"},
    {KEY_PYTHON, "python", "PATH", "an interpreter with PyTorch (default $CLDSA_PEER_PYTHON, then python3)"},
    {KEY_PEER_DIR, "peer-dir", "DIR", "where operations.py lies (default bench/peers here or beside the build)"},
    {0},
};

/* ---- the command line -------------------------------------------------------------------------------------------- */

static int take(void *user, int key, const char *value) {
    bench_options *options = user;
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
    case KEY_VARIANT:
        options->variant = value;
        return CLI_GO;
    case KEY_TUNE:
        options->tune = value;
        return CLI_GO;
    case KEY_LENGTHS:
        options->lengths = value;
        return CLI_GO;
    case KEY_VARIANTS:
        options->variants = value;
        return CLI_GO;
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
        return cli_choice("suite", value, suite_names, &options->suite);
    const cldsa_op *op;
    if (cldsa_find_op(value, &op) != CLDSA_SUCCESS)
        return cli_usage("%s", cldsa_error_message());
    options->ops[options->num_ops++] = value;
    return CLI_GO;
}

/* ---- peers ------------------------------------------------------------------------------------------------------- */

static bool is_peer_dir(const char *directory) {
    char script[PATH_SIZE + 16];
    snprintf(script, sizeof script, "%s/operations.py", directory);
    return access(script, R_OK) == 0;
}

/* Directory of this program's file. */
static bool program_directory(char directory[PATH_SIZE]) {
    ssize_t length = readlink("/proc/self/exe", directory, PATH_SIZE - 1);
    if (length < 0)
        return false;
    directory[length] = '\0';
    char *slash = strrchr(directory, '/');
    if (slash)
        *slash = '\0';
    return slash != NULL;
}

static int find_peers(bench_options *options) {
    char here[PATH_SIZE], candidate[PATH_SIZE + 32];
    if (!options->peers)
        return CLI_GO;
    bool known = program_directory(here);
    options->paths.python = options->python ? options->python : getenv("CLDSA_PEER_PYTHON");
    if (!options->paths.python)
        options->paths.python = "python3";
    snprintf(options->scripts, PATH_SIZE, "%s", options->peer_dir ? options->peer_dir : "bench/peers");
    if (!options->peer_dir && !is_peer_dir(options->scripts) && known)
        snprintf(options->scripts, PATH_SIZE, "%.*s/../bench/peers", PATH_SIZE - 32, here);
    if (!is_peer_dir(options->scripts))
        return cli_usage("--peers: no operations.py in %s; --peer-dir says where bench/peers lies", options->scripts);
    options->paths.scripts = options->scripts;
    snprintf(candidate, sizeof candidate, "%s/cldsa-peer-openblas", here);
    if (known && access(candidate, X_OK) == 0) {
        snprintf(options->gemm, PATH_SIZE, "%.*s", PATH_SIZE - 1, candidate);
        options->paths.gemm = options->gemm;
    }
    return CLI_GO;
}

/* ---- the suites -------------------------------------------------------------------------------------------------- */

static void show_op(void *user, const bench_op_row *row) {
    bench_options *options = user;
    options->failed |= row->status == BENCH_ERROR;
    if (!options->json)
        bench_op_row_print(row);
    cJSON_AddItemToArray(options->rows, bench_op_row_json(row));
}

static int run_ops(bench_options *options, cli_session *session) {
    bench_ops_options suite = {.ops = options->ops,
                               .num_ops = options->num_ops,
                               .variant = options->variant,
                               .tunables = options->tune,
                               .budget = options->budget,
                               .profile = options->profile,
                               .peers = options->peers ? &options->paths : NULL,
                               .row = show_op,
                               .user = options};
    bool is_cpu = cldsa_context_capabilities(session->ctx)->is_cpu;
    if (bench_find_preset(options->preset, is_cpu, &suite.preset) != CLDSA_SUCCESS)
        return cli_usage("%s", cldsa_error_message());
    if (!options->json)
        bench_ops_head();
    cldsa_status status = bench_ops(session->ctx, &suite);
    return status == CLDSA_SUCCESS ? CLI_GO : cli_report(status);
}

static void show_cell(bench_options *options, bench_train_row *row) {
    options->failed |= row->status == BENCH_ERROR;
    if (!options->json)
        bench_train_row_print(row);
    cJSON_AddItemToArray(options->rows, bench_train_row_json(row));
    bench_train_row_free(row);
}

/* The lists' items, cut at commas. */
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

static int run_train(bench_options *options, cli_session *session) {
    char lengths[CLDSA_MAX_AXIS][CLDSA_VARIANT_MAX], variants[CLDSA_MAX_AXIS][CLDSA_VARIANT_MAX];
    int num_lengths, num_variants;
    int code = split("lengths", options->lengths, lengths, &num_lengths);
    if (code == CLI_GO)
        code = split("variants", options->variants, variants, &num_variants);
    bool is_cpu = cldsa_context_capabilities(session->ctx)->is_cpu;
    int64_t steps = options->steps ? options->steps : is_cpu ? CPU_STEPS : GPU_STEPS;
    if (!options->json && code == CLI_GO)
        bench_train_head();
    for (int i = 0; i < num_lengths * num_variants && code == CLI_GO; ++i) {
        int64_t length;
        bench_train_row row;
        code = cli_integer("lengths", lengths[i / num_variants], 2, 1 << 24, &length);
        if (code != CLI_GO)
            break;
        bench_train_options cell = {.device = options->device,
                                    .length = (int)length,
                                    .variant = variants[i % num_variants],
                                    .batch = (int)options->batch,
                                    .steps = (int)steps,
                                    .profile = options->profile,
                                    .peers = options->peers ? &options->paths : NULL};
        if (options->here)
            bench_train_here(session->ctx, session->queue, &cell, &row);
        else
            bench_train(&cell, &row);
        show_cell(options, &row);
    }
    return code;
}

/* The result file: what was measured, and on what. */
static int write_results(const bench_options *options, const cli_session *session) {
    cJSON *document = cJSON_CreateObject();
    cJSON_AddNumberToObject(document, "schema", BENCH_SCHEMA);
    cJSON_AddItemToObject(document, "system", bench_system_json(session->ctx));
    cJSON_AddItemReferenceToObject(document, "rows", options->rows);
    cldsa_status status = options->out ? cldsa_json_write(options->out, document) : CLDSA_SUCCESS;
    if (options->json) { /* in one line, which another process can read */
        char *text = cJSON_PrintUnformatted(document);
        printf("%s\n", text ? text : "");
        cJSON_free(text);
    }
    cJSON_Delete(document);
    return status == CLDSA_SUCCESS ? CLI_GO : cli_report(status);
}

static int work(bench_options *options) {
    cli_session session;
    bool in_train = options->suite != SUITE_OPS;
    cldsa_status status = cli_session_open(options->device, options->profile && options->here && in_train, &session);
    if (status != CLDSA_SUCCESS)
        return cli_report(status);
    options->rows = cJSON_CreateArray();
    if (!options->json)
        printf("%s / %s, driver %s\n", session.info.platform_name, session.info.name, session.info.driver);
    int code = CLI_GO;
    if (options->suite != SUITE_TRAIN)
        code = run_ops(options, &session);
    if (in_train && code == CLI_GO)
        code = run_train(options, &session);
    if (code == CLI_GO)
        code = write_results(options, &session);
    cJSON_Delete(options->rows);
    cli_session_close(&session);
    return code != CLI_GO ? code : options->failed ? CLI_FAILED : CLI_OK;
}

static int run(int argc, char **argv) {
    bench_options options = {.suite = -1,
                             .budget = 1,
                             .batch = 8,
                             .lengths = "64,128,256",
                             .variants = "dense,fixed50,adaptive",
                             .ops = calloc((size_t)argc, sizeof *options.ops)};
    if (!options.ops)
        return cli_report(cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %d arguments", argc));
    int code = cli_parse(&cli_bench, argc, argv, take, &options);
    if (code == CLI_GO && options.suite < 0)
        code = cli_usage("bench: a suite is needed: ops, train or all; see cldsa bench --help");
    if (code == CLI_GO)
        code = find_peers(&options);
    if (code == CLI_GO)
        code = work(&options);
    free(options.ops);
    return code;
}

const cli_command cli_bench = {
    .name = "bench",
    .summary = "Measure operations and training, beside peers",
    .usage = "ops [OP...] [OPTIONS]\n       cldsa bench train [OPTIONS]\n       cldsa bench all [OPTIONS]",
    .details = "Times are medians with the 10th and 90th percentile: device events on GPUs, wall time on CPUs. Every\n"
               "operation is compared with its fp64 reference in the same run, with the variant and tunables that are\n"
               "timed; `error` is the worst difference in units of what is allowed. A wrong result has no time.",
    .options = options_table,
    .examples = "  cldsa bench ops\n  cldsa bench ops gemm topk --peers --python venv/bin/python\n"
                "  cldsa bench train --lengths 64,256 --variants dense,adaptive --profile\n"
                "  cldsa bench all --device gpu --peers --out h200.json",
    .run = run,
};
