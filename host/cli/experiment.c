/* cldsa experiment: the grid of runs, its table and its report. */
#include "host/cli/cli.h"
#include "host/cli/run_options.h"
#include "host/cli/watch.h"
#include "host/io/json.h"
#include "host/train/controller_table.h"
#include "host/train/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_RECIPE = CLI_KEY,
    KEY_QUICK,
    KEY_LENGTHS,
    KEY_VARIANTS,
    KEY_SEEDS,
    KEY_OUT,
    KEY_FRESH,
    KEY_CONFIG,
    KEY_DRAWS
};

typedef struct experiment_options {
    const char *config_file, *device, *lengths, *variants, *seeds; /* lists as given; NULL until then */
    const char *of_grid;                                           /* an option given that only the grid has use for */
    bool json, quick, controller, draws_given;
    int recipe, draws;
    cldsa_experiment_config config;
    run_paths paths;
    cJSON *file; /* the parsed configuration; its strings are in use */
} experiment_options;

static const cli_option options_table[] = {
    CLI_OPTION_DEVICE,
    CLI_OPTION_JSON,
    {KEY_RECIPE, "recipe", "NAME",
     "causal: corrected (default); seed: as published, faults included (uniform tokens, no mask, labels shifted "
     "twice)"},
    {KEY_QUICK, "quick", NULL, "minutes instead of the full protocol"},
    {KEY_LENGTHS, "lengths", "LIST", "sequence lengths, e.g. 64,128,256"},
    {KEY_VARIANTS, "variants", "LIST", "e.g. dense,fixed25,fixed50,topk32,adaptive"},
    {KEY_SEEDS, "seeds", "LIST", "e.g. 42,123,456"},
    {KEY_OUT, "out", "DIR", "where results are stored; a rerun continues there (default cldsa-experiment)"},
    {KEY_FRESH, "fresh", NULL, "throw away what --out holds of this grid"},
    {KEY_DRAWS, "draws", "N", "experiment controller: initialisations (default 100)"},
    {KEY_CONFIG, "config", "FILE",
     "what all runs share, as JSON (as for cldsa train); options, axes, task and recipe win"},
    RUN_OPTIONS,
    {0},
};

/* First pass: what the defaults depend on. */
static int take_recipe(void *user, int key, const char *value) {
    experiment_options *options = user;
    if (key == KEY_RECIPE)
        return cli_choice("recipe", value, cldsa_recipe_names, &options->recipe);
    if (key == KEY_QUICK)
        options->quick = true;
    if (key == KEY_CONFIG)
        options->config_file = value;
    return CLI_GO;
}

static int take_draws(experiment_options *options, const char *value) {
    int64_t draws = 0;
    options->draws_given = true;
    int code = cli_integer("draws", value, 1, 1000000, &draws);
    options->draws = (int)draws;
    return code;
}

static const char *option_name(int key) {
    for (const cli_option *option = options_table; option->name; ++option)
        if (option->key == key)
            return option->name;
    return NULL;
}

static int take(void *user, int key, const char *value) {
    experiment_options *options = user;
    if (key != CLI_DEVICE && key != CLI_JSON && key != KEY_DRAWS && key != CLI_POSITIONAL)
        options->of_grid = option_name(key);
    switch (key) {
    case CLI_DEVICE:
        options->device = value;
        return CLI_GO;
    case CLI_JSON:
        options->json = true;
        return CLI_GO;
    case KEY_RECIPE:
    case KEY_QUICK:
    case KEY_CONFIG:
        return CLI_GO;
    case KEY_LENGTHS:
        options->lengths = value;
        return CLI_GO;
    case KEY_VARIANTS:
        options->variants = value;
        return CLI_GO;
    case KEY_SEEDS:
        options->seeds = value;
        return CLI_GO;
    case KEY_OUT:
        options->config.out = value;
        return CLI_GO;
    case KEY_FRESH:
        options->config.fresh = true;
        return CLI_GO;
    case KEY_DRAWS:
        return take_draws(options, value);
    case CLI_POSITIONAL:
        options->controller = strcmp(value, "controller") == 0;
        return options->controller ? CLI_GO
                                   : cli_usage("experiment: unknown study \"%s\"; there is: controller", value);
    default:
        return run_options_take(&options->config.run, &options->paths, key, value);
    }
}

/* Cuts "a,b,c" into items. CLI_GO or CLI_USAGE. */
static int split_list(const char *option, const char *text, char items[][CLDSA_VARIANT_MAX], int *count) {
    *count = 0;
    for (;;) {
        size_t length = strcspn(text, ",");
        if (length == 0 || length >= CLDSA_VARIANT_MAX || *count == CLDSA_MAX_AXIS)
            return cli_usage("--%s must be 1 to %d items with commas between them", option, CLDSA_MAX_AXIS);
        memcpy(items[*count], text, length);
        items[(*count)++][length] = 0;
        if (!text[length])
            return CLI_GO;
        text += length + 1;
    }
}

static int split_numbers(const char *option, const char *text, int64_t min, int64_t max, int64_t *numbers, int *count) {
    char items[CLDSA_MAX_AXIS][CLDSA_VARIANT_MAX];
    int code = split_list(option, text, items, count);
    for (int i = 0; i < *count && code == CLI_GO; ++i)
        code = cli_integer(option, items[i], min, max, &numbers[i]);
    return code;
}

static int check_variants(const cldsa_experiment_config *config) {
    for (int i = 0; i < config->num_variants; ++i) {
        cldsa_config model = config->run.model;
        if (cldsa_config_set_variant(&model, config->variants[i]) != CLDSA_SUCCESS)
            return cli_usage("%s", cldsa_error_message());
    }
    return CLI_GO;
}

static int apply_lists(experiment_options *options) {
    cldsa_experiment_config *config = &options->config;
    int64_t numbers[CLDSA_MAX_AXIS];
    int code = CLI_GO;
    if (options->lengths) {
        code = split_numbers("lengths", options->lengths, 2, 1 << 24, numbers, &config->num_lengths);
        for (int i = 0; i < config->num_lengths && code == CLI_GO; ++i)
            config->lengths[i] = (int)numbers[i];
    }
    if (options->seeds && code == CLI_GO) {
        code = split_numbers("seeds", options->seeds, 0, INT64_C(1) << 53, numbers, &config->num_seeds);
        for (int i = 0; i < config->num_seeds && code == CLI_GO; ++i)
            config->seeds[i] = (uint64_t)numbers[i];
    }
    if (options->variants && code == CLI_GO)
        code = split_list("variants", options->variants, config->variants, &config->num_variants);
    return code == CLI_GO ? check_variants(config) : code;
}

static void announce(void *user, int number, int count, const cldsa_cell *cell, const char *variant, bool stored) {
    cli_watch *watch = user;
    char label[96];
    cli_watch_end(watch);
    snprintf(label, sizeof label, "[%d/%d] S=%d %s seed %llu", number + 1, count, cell->length, variant,
             (unsigned long long)cell->seed);
    if (stored)
        fprintf(stderr, "%s: finished before, validation loss %.4f\n", label, cell->result.validation_loss);
    else
        cli_watch_begin(watch, label);
}

static int print_tables(const experiment_options *options, const cldsa_experiment_result *result) {
    const cldsa_experiment_config *config = &options->config;
    char *text;
    cldsa_status status = cldsa_report_write(config, result);
    if (status == CLDSA_SUCCESS)
        status =
            options->json ? cldsa_report_json(config, result, &text) : cldsa_report_markdown(config, result, &text);
    if (status != CLDSA_SUCCESS)
        return cli_report(status);
    fputs(text, stdout);
    free(text);
    char *out = realpath(config->out, NULL);
    fprintf(options->json ? stderr : stdout, "\nreport: %s/report.html\n", out ? out : config->out);
    free(out);
    return CLI_OK;
}

/* ---- settings of --config that runs do not have ------------------------------------------------------------------ */

/* Keys that --config may have, since files for cldsa train do, and who decides them here. */
typedef struct decided_key {
    const char *key;
    const char *by;
    bool of_model;
    bool given; /* --lengths and the like on the command line: it is no surprise that they win */
} decided_key;

/* Number `i` of as many runs as the longest axis has values: each value of each axis is in one. */
static cJSON *sample_run(const cldsa_experiment_config *config, int i) {
    cldsa_run_config run = config->run;
    run.data.seq_len = config->lengths[i % config->num_lengths];
    run.seed = config->seeds[i % config->num_seeds];
    cldsa_config_set_variant(&run.model, config->variants[i % config->num_variants]); /* checked before */
    return cldsa_run_config_to_json(&run);
}

static const cJSON *find_key(const cJSON *run, const decided_key *key) {
    const cJSON *object = key->of_model ? cJSON_GetObjectItemCaseSensitive(run, "model") : run;
    return cJSON_GetObjectItemCaseSensitive(object, key->key);
}

/* Is there a run whose value is another one than the file's? */
static bool is_overruled(const experiment_options *options, const decided_key *key) {
    const cldsa_experiment_config *config = &options->config;
    const cJSON *wanted = find_key(options->file, key);
    int count = config->num_lengths > config->num_seeds ? config->num_lengths : config->num_seeds;
    count = count > config->num_variants ? count : config->num_variants;
    bool differs = false;
    for (int i = 0; i < count && wanted && !key->given && !differs; ++i) {
        cJSON *run = sample_run(config, i);
        const cJSON *used = find_key(run, key);
        differs = used && !cJSON_Compare(wanted, used, true);
        cJSON_Delete(run);
    }
    return differs;
}

static void warn_of_overruled(const experiment_options *options) {
    const bool lengths = options->lengths != NULL, seeds = options->seeds != NULL, variants = options->variants != NULL;
    const decided_key keys[] = {{"seq_len", "--lengths", false, lengths},
                                {"seed", "--seeds", false, seeds},
                                {"sparsity_policy", "--variants", true, variants},
                                {"keep_ratio", "--variants", true, variants},
                                {"index_topk", "--variants", true, variants},
                                {"controller_factors", "--variants", true, variants},
                                {"vocab_size", "--task", true, false},
                                {"is_causal", "--recipe", true, false},
                                {"shifted_twice", "--recipe", false, false}};
    char text[1024] = "";
    for (size_t i = 0, used = 0; options->file && i < sizeof keys / sizeof *keys && used < sizeof text; ++i) {
        if (!is_overruled(options, &keys[i]))
            continue;
        char *value = cJSON_PrintUnformatted(find_key(options->file, &keys[i]));
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s %.40s (%s decides)", used ? ", " : "",
                                 keys[i].key, value ? value : "?", keys[i].by);
        cJSON_free(value);
    }
    if (*text)
        fprintf(stderr, "cldsa: warning: %s: not used in an experiment: %s\n", options->config_file, text);
}

static int run_experiment(experiment_options *options) {
    cli_session session;
    cldsa_status status = cli_session_open(options->device, false, &session);
    if (status != CLDSA_SUCCESS)
        return cli_report(status);
    warn_of_overruled(options);
    cli_watch watch;
    cli_watch_begin(&watch, "");
    cldsa_experiment_hooks hooks = {.cell = announce, .user = &watch, .run = cli_watch_hooks(&watch)};
    cldsa_experiment_result *result = NULL;
    status = cldsa_experiment_run(session.ctx, session.queue, &options->config, &hooks, &result);
    cli_watch_end(&watch);
    cli_session_close(&session);
    if (status != CLDSA_SUCCESS)
        return cli_report_run(status, "the same command continues the experiment");
    int code = print_tables(options, result);
    cldsa_experiment_free(result);
    return code;
}

/* experiment controller: the published table of k as a distribution. */
static int run_controller(const experiment_options *options) {
    cli_session session;
    cldsa_status status = cli_session_open(options->device, false, &session);
    if (status != CLDSA_SUCCESS)
        return cli_report(status);
    cldsa_config config = cldsa_config_default();
    cldsa_controller_row rows[CLDSA_CONTROLLER_ROWS];
    char *text = NULL;
    status = cldsa_config_set_variant(&config, "adaptive");
    if (status == CLDSA_SUCCESS)
        status = cldsa_controller_table(session.ctx, session.queue, &config, options->draws, 1, rows);
    if (status == CLDSA_SUCCESS)
        status = cldsa_controller_table_text(rows, options->draws, options->json, &text);
    cli_session_close(&session);
    if (status != CLDSA_SUCCESS)
        return cli_report(status);
    fputs(text, stdout);
    free(text);
    return CLI_OK;
}

static cldsa_status read_config(experiment_options *options) {
    if (!options->config_file)
        return CLDSA_SUCCESS;
    CLDSA_TRY(cldsa_json_read(options->config_file, &options->file));
    return cldsa_run_config_from_json(options->file, options->config_file, &options->config.run);
}

/* Either study has options that the other would not use. */
static int check_study(const experiment_options *options) {
    if (options->controller && options->of_grid)
        return cli_usage("experiment controller draws fresh controllers and trains nothing; --%s is for the grid, "
                         "leave it out",
                         options->of_grid);
    if (!options->controller && options->draws_given)
        return cli_usage("--draws is for `cldsa experiment controller`; the grid has --seeds");
    return CLI_GO;
}

static int run(int argc, char **argv) {
    experiment_options options = {.draws = 100};
    int code = cli_parse(&cli_experiment, argc, argv, take_recipe, &options);
    if (code != CLI_GO)
        return code;
    options.config = cldsa_experiment_config_default((cldsa_recipe)options.recipe, options.quick);
    options.config.out = "cldsa-experiment";
    cldsa_status status = read_config(&options);
    const char *const *file_paths = options.config.run.data.paths;
    if (status != CLDSA_SUCCESS)
        code = cli_report(status);
    else
        code = cli_parse(&cli_experiment, argc, argv, take, &options);
    if (code == CLI_GO)
        code = check_study(&options);
    if (code == CLI_GO)
        code = run_options_check(&options.config.run, &options.paths);
    if (code == CLI_GO)
        code = apply_lists(&options);
    if (code == CLI_GO) {
        cldsa_experiment_settle(&options.config);
        code = options.controller ? run_controller(&options) : run_experiment(&options);
    }
    free((void *)file_paths);
    cJSON_Delete(options.file);
    return code;
}

const cli_command cli_experiment = {
    .name = "experiment",
    .summary = "Compare dense, fixed and adaptive sparsity: the table and its report",
    .usage = "[controller] [--recipe causal|seed] [--quick] [--text PATH...] [OPTIONS]",
    .details =
        "Trains every combination of length, variant and seed, then prints the table with confidence intervals and\n"
        "writes table.md, table.json and report.html into --out. Finished cells are kept: a rerun continues.\n"
        "`experiment controller` prints how many keys a freshly initialised controller keeps, over many draws.",
    .options = options_table,
    .examples =
        "  cldsa experiment --quick --text /usr/share/games/fortunes\n"
        "  cldsa experiment --recipe seed\n"
        "  cldsa experiment controller --draws 100\n"
        "  cldsa experiment --task recall --pairs 16 --lengths 128 --variants dense,fixed25,adaptive --seeds 1,2,3",
    .run = run,
};
