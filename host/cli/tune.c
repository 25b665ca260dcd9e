/* cldsa tune: fitting kernels to a device, and the database of what was found. */
#include "autotune/tuner.h"
#include "host/cli/cli.h"
#include "host/cli/run_options.h"

#include <stdlib.h>
#include <string.h>

enum {
    KEY_SHAPES = CLI_KEY,
    KEY_BUDGET,
    KEY_QUICK,
    KEY_STRATEGY,
    KEY_SEED,
    KEY_DEADLINE,
    KEY_JOBS,
    KEY_RESUME,
    KEY_LOG,
    KEY_DATABASE,
    KEY_WORKER,
    KEY_SHOW,
    KEY_EXPORT,
    KEY_IMPORT,
    MAX_PRESETS = 16,
    QUICK_BUDGET = 160,
    USUAL_BUDGET = 600
};

typedef struct tune_options {
    const char *device, *log, *database; /* database NULL: the user's */
    const char *export_to, *import_from;
    char shapes[TUNER_TEXT]; /* as given; "" the device's usual ones */
    double budget;           /* 0: the usual one */
    double deadline;
    int strategy;
    int64_t jobs;
    int64_t seed;
    bool quick, resume, worker, show, json;
    const char **ops;
    size_t num_ops;
    const bench_preset *presets[MAX_PRESETS];
    size_t num_presets;
    char dims[TUNER_TEXT];
} tune_options;

static const cli_option options_table[] = {
    CLI_OPTION_DEVICE,
    {KEY_SHAPES, "shapes", "LIST", "presets, or extents of one call (M=512,N=512); default cpu or gpu, and experiment"},
    {KEY_BUDGET, "budget", "TIME", "10m, 90s, 1h in all (default 10m; with --quick 160s)"},
    {KEY_QUICK, "quick", NULL, "the experiment's largest calls and usual variants only, short measurements"},
    {KEY_STRATEGY, "strategy", "NAME", "auto, exhaustive, random, local or anneal (default auto)"},
    {KEY_SEED, "seed", "N", "of the search (default 1)"},
    {KEY_DEADLINE, "deadline", "SECONDS", "a candidate that takes longer is killed, compilation included (default 30)"},
    {KEY_JOBS, "jobs", "N", "processes that compile and check ahead (default half the processors, 8 at most; 1: none)"},
    {KEY_RESUME, "resume", NULL, "go on with the last tuning that was cut off (or that of --log)"},
    {KEY_LOG, "log", "FILE", "every trial as a line of JSON (default in $XDG_STATE_HOME/cldsa)"},
    {KEY_SHOW, "show", NULL, "what was tuned for the device, in the user's file and the shipped ones"},
    CLI_OPTION_JSON,
    {KEY_EXPORT, "export", "FILE", "write what was tuned for exactly this device to a file of its own"},
    {KEY_IMPORT, "import", "FILE", "add what another file holds, for whichever devices"},
    {KEY_DATABASE, "database", "FILE", "instead of the user's file (see ENVIRONMENT in cldsa(1))"},
    {KEY_WORKER, "worker", NULL, NULL}, /* runs candidates for another cldsa tune, which starts it by itself */
    {0},
};

/* ---- the command line -------------------------------------------------------------------------------------------- */

static int take_budget(const char *value, double *seconds) {
    char *end;
    double number = strtod(value, &end), unit = 1;
    if (*end && strchr("smh", *end) && !end[1])
        unit = *end == 'm' ? 60 : *end == 'h' ? 3600 : 1;
    else if (*end)
        number = -1;
    if (end == value || !(number > 0) || !(number * unit <= 1e7))
        return cli_usage("--budget is \"%s\"; it must be a time of more than 0, like 90s, 10m or 1h", value);
    *seconds = number * unit;
    return CLI_GO;
}

static int take_op(tune_options *options, const char *value) {
    const cldsa_op *op;
    if (strcmp(value, "clblast") != 0 && cldsa_find_op(value, &op) != CLDSA_SUCCESS)
        return cli_usage("%s", cldsa_error_message());
    options->ops[options->num_ops++] = value;
    return CLI_GO;
}

static int take(void *user, int key, const char *value) {
    tune_options *options = user;
    switch (key) {
    case CLI_DEVICE:
        options->device = value;
        return CLI_GO;
    case KEY_SHAPES:
        if (!*value)
            return cli_usage("--shapes names no preset");
        snprintf(options->shapes, sizeof options->shapes, "%s", value);
        return CLI_GO;
    case KEY_BUDGET:
        return take_budget(value, &options->budget);
    case KEY_QUICK:
        options->quick = true;
        return CLI_GO;
    case KEY_STRATEGY:
        return cli_choice("strategy", value, tuner_strategy_names, &options->strategy);
    case KEY_SEED:
        return cli_integer("seed", value, 0, INT32_MAX, &options->seed);
    case KEY_DEADLINE:
        return cli_number("deadline", value, 1, 3600, &options->deadline);
    case KEY_JOBS:
        return cli_integer("jobs", value, 1, TUNER_MAX_CREW, &options->jobs);
    case KEY_RESUME:
        options->resume = true;
        return CLI_GO;
    case KEY_LOG:
        options->log = value;
        return CLI_GO;
    case KEY_DATABASE:
        options->database = value;
        return CLI_GO;
    case KEY_WORKER:
        options->worker = true;
        return CLI_GO;
    case CLI_JSON:
        options->json = true;
        return CLI_GO;
    case KEY_SHOW:
        options->show = true;
        return CLI_GO;
    case KEY_EXPORT:
        options->export_to = value;
        return CLI_GO;
    case KEY_IMPORT:
        options->import_from = value;
        return CLI_GO;
    }
    return take_op(options, value);
}

static int add_preset(tune_options *options, const char *name, bool is_cpu) {
    const bench_preset *preset;
    if (bench_find_preset(name, is_cpu, &preset) != CLDSA_SUCCESS)
        return cli_usage("--shapes: %s", cldsa_error_message());
    if (options->num_presets < MAX_PRESETS)
        options->presets[options->num_presets++] = preset;
    return CLI_GO;
}

/* Presets by name; or extents, for which the usual presets give the rest of the call. */
static int find_shapes(tune_options *options, bool is_cpu) {
    bool extents = strchr(options->shapes, '=') != NULL;
    if (extents) {
        if (options->num_ops == 0)
            return cli_usage("--shapes %s: name the operations that these extents are for", options->shapes);
        if (bench_parse_extents(options->shapes, options->dims) != CLDSA_SUCCESS)
            return cli_usage("--shapes: %s", cldsa_error_message());
    }
    if (*options->shapes && !extents) {
        char *save = NULL;
        int code = CLI_GO;
        for (char *name = strtok_r(options->shapes, ",", &save); name && code == CLI_GO;
             name = strtok_r(NULL, ",", &save))
            code = add_preset(options, name, is_cpu);
        return code == CLI_GO && !options->num_presets ? cli_usage("--shapes names no preset") : code;
    }
    int code = options->quick ? CLI_GO : add_preset(options, NULL, is_cpu);
    return code == CLI_GO ? add_preset(options, "experiment", is_cpu) : code;
}

/* ---- the database ------------------------------------------------------------------------------------------------ */

/* The options about the database alone; they need no context on the device. */
static cldsa_status work_on_database(const tune_options *options) {
    cldsa_device_info device;
    if (options->import_from)
        CLDSA_TRY(tuner_database_import(options->database, options->import_from));
    if (!options->show && !options->export_to)
        return CLDSA_SUCCESS;
    CLDSA_TRY(cldsa_select_device(options->device, &device));
    if (options->export_to)
        CLDSA_TRY(tuner_database_export(options->database, &device, options->export_to));
    return options->show ? tuner_database_show(options->database, &device, options->json) : CLDSA_SUCCESS;
}

/* ---- the work ---------------------------------------------------------------------------------------------------- */

static int tune(tune_options *options, const cJSON *arguments, tuner_log *log) {
    cldsa_device_info device;
    if (cldsa_select_device(options->device, &device) != CLDSA_SUCCESS)
        return cli_report(CLDSA_NOT_FOUND);
    int code = find_shapes(options, (device.type & CL_DEVICE_TYPE_CPU) != 0);
    if (code != CLI_GO)
        return code;
    const tuner_options run = {.ops = options->ops,
                               .num_ops = options->num_ops,
                               .presets = options->presets,
                               .num_presets = options->num_presets,
                               .dims = *options->dims ? options->dims : NULL,
                               .budget = options->budget > 0 ? options->budget
                                         : options->quick    ? QUICK_BUDGET
                                                             : USUAL_BUDGET,
                               .deadline = options->deadline,
                               .jobs = (int)options->jobs,
                               .strategy = (tuner_strategy)options->strategy,
                               .seed = (unsigned long)options->seed,
                               .quick = options->quick,
                               .database = options->database,
                               .arguments = arguments};
    cldsa_status status = tuner_database_check(options->database);
    if (status == CLDSA_SUCCESS)
        status =
            options->resume ? tuner_log_check_device(log, &device) : tuner_log_begin(options->log, &device, &run, log);
    if (status == CLDSA_SUCCESS) {
        printf("%s / %s, seed %lld, %.0f s; log %s\n", device.platform_name, device.name, (long long)options->seed,
               run.budget, log->path);
        fflush(stdout);
        status = tuner_run(&device, &run, log);
    }
    return status == CLDSA_SUCCESS ? CLI_OK : cli_report(status);
}

/* The command line of the tuning that goes on, with this one's behind it. */
static int parse_again(tune_options *options, int argc, char **argv, const tuner_log *log) {
    const cJSON *stored = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(log->records, 0), "arguments"), *word;
    char **both = calloc((size_t)(cJSON_GetArraySize(stored) + argc + 1), sizeof *both);
    const char **ops = calloc((size_t)(cJSON_GetArraySize(stored) + argc), sizeof *ops);
    int count = 0;
    if (!both || !ops) {
        free(both);
        free(ops);
        return cli_report(cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for the arguments"));
    }
    both[count++] = argv[0];
    cJSON_ArrayForEach(word, stored) {
        if (cJSON_IsString(word))
            both[count++] = word->valuestring;
    }
    for (int i = 1; i < argc; ++i)
        both[count++] = argv[i];
    free(options->ops);
    options->ops = ops;
    options->num_ops = 0;
    int code = cli_parse(&cli_tune, count, both, take, options);
    free(both);
    return code;
}

static int run(int argc, char **argv) {
    tuner_log log = {0};
    tune_options options = {.deadline = 30, .seed = 1, .ops = calloc((size_t)argc, sizeof *options.ops)};
    cJSON *arguments = cJSON_CreateArray();
    for (int i = 1; i < argc; ++i)
        cJSON_AddItemToArray(arguments, cJSON_CreateString(argv[i]));
    if (!options.ops || !arguments)
        return cli_report(cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %d arguments", argc));
    int code = cli_parse(&cli_tune, argc, argv, take, &options);
    if (code == CLI_GO && options.worker)
        code = tuner_worker_main(options.device) == CLDSA_SUCCESS ? CLI_OK : CLI_ERROR;
    if (code == CLI_GO && (options.show || options.export_to || options.import_from))
        code = options.num_ops
                   ? cli_usage("tune: --show, --export and --import are of whole databases; %s has no meaning "
                               "beside them",
                               options.ops[0])
                   : cli_report(work_on_database(&options));
    if (code == CLI_GO && options.resume) {
        cldsa_status status = tuner_log_resume(options.log, &log);
        code = status == CLDSA_SUCCESS ? parse_again(&options, argc, argv, &log) : cli_report(status);
    }
    if (code == CLI_GO)
        code = tune(&options, arguments, &log);
    tuner_log_end(&log);
    cJSON_Delete(arguments);
    free(options.ops);
    return code;
}

const cli_command cli_tune = {
    .name = "tune",
    .summary = "Fit the kernels to a device",
    .usage = "[OP...] [OPTIONS]\n       cldsa tune --show | --export FILE | --import FILE [OPTIONS]",
    .details =
        "Tries the kernels' tunables at named shapes. Every candidate is compared with the fp64 reference before\n"
        "it is timed, in a process of its own that may crash or hang; the best and the defaults are measured\n"
        "again in turns, and a default stays unless another is clearly faster. Winners go to the user's\n"
        "database. From then on kernels take the variant and tunables that were measured to be fastest at the\n"
        "nearest shape: on exactly this device, else on its architecture, else on its vendor's; else their\n"
        "defaults. The operation \"clblast\" stands for CLBlast's own parameters.",
    .options = options_table,
    .examples = "  cldsa tune\n  cldsa tune --quick\n  cldsa tune gemm topk --budget 5m\n"
                "  cldsa tune gemm --shapes M=512,N=512,K=64\n  cldsa tune --resume\n"
                "  cldsa tune --export h200.json\n  cldsa tune --import h200.json --show",
    .run = run,
};
