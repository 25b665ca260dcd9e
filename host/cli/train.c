/* cldsa train: one model, one run. */
#include "host/cli/cli.h"
#include "host/cli/run_options.h"
#include "host/cli/watch.h"
#include "host/io/json.h"
#include "host/train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_CONFIG = CLI_KEY, KEY_OUT, KEY_RESUME, KEY_LENGTH, KEY_VARIANT, KEY_SEED, KEY_VOCAB };

typedef struct train_options {
    const char *device, *config_file, *variant;
    bool json, vocab_given; /* else the task says how large the vocabulary is */
    cldsa_run_config run;
    run_paths paths;
    cJSON *file; /* the parsed configuration; its strings are in use */
} train_options;

static const cli_option options_table[] = {
    CLI_OPTION_DEVICE,
    CLI_OPTION_JSON,
    {KEY_CONFIG, "config", "FILE", "settings as JSON (as state.json's \"run\"); options given beside it win"},
    {KEY_OUT, "out", "DIR", "where the run lives: metrics.jsonl and checkpoints (default cldsa-run)"},
    {KEY_RESUME, "resume", NULL, "continue from the newest checkpoint in --out"},
    {KEY_LENGTH, "length", "S", "sequence length (default 128)"},
    {KEY_VARIANT, "variant", "NAME",
     "dense, fixedPP (keep PP %), topkN (keep N), adaptive[-length|-complexity|-entropy]"},
    {KEY_SEED, "seed", "N", "of initialisation, data, dropout and noise (default 42)"},
    {KEY_VOCAB, "vocab", "N", "vocabulary size (default: what the task needs)"},
    RUN_OPTIONS,
    {0},
};

/* First pass over the command line: only --config, so that every other option wins over the file wherever it stands. */
static int take_config(void *user, int key, const char *value) {
    train_options *options = user;
    if (key == KEY_CONFIG)
        options->config_file = value;
    return CLI_GO;
}

static int take(void *user, int key, const char *value) {
    train_options *options = user;
    int64_t number = 0;
    int code;
    switch (key) {
    case CLI_DEVICE:
        options->device = value;
        return CLI_GO;
    case CLI_JSON:
        options->json = true;
        return CLI_GO;
    case KEY_CONFIG:
        return CLI_GO;
    case KEY_OUT:
        options->run.directory = value;
        return CLI_GO;
    case KEY_RESUME:
        options->run.resume = true;
        return CLI_GO;
    case KEY_VARIANT:
        options->variant = value;
        return CLI_GO;
    case KEY_LENGTH:
        code = cli_integer("length", value, 2, 1 << 24, &number);
        options->run.data.seq_len = (int)number;
        return code;
    case KEY_SEED:
        code = cli_integer("seed", value, 0, INT64_C(1) << 53, &number);
        options->run.seed = (uint64_t)number;
        return code;
    case KEY_VOCAB:
        code = cli_integer("vocab", value, 2, 1 << 24, &number);
        options->run.model.vocab_size = (int)number;
        options->vocab_given = true;
        return code;
    default:
        return run_options_take(&options->run, &options->paths, key, value);
    }
}

static cldsa_status read_config(train_options *options) {
    if (!options->config_file)
        return CLDSA_SUCCESS;
    CLDSA_TRY(cldsa_json_read(options->config_file, &options->file));
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(options->file, "model");
    options->vocab_given = cJSON_GetObjectItemCaseSensitive(model, "vocab_size") != NULL;
    return cldsa_run_config_from_json(options->file, options->config_file, &options->run);
}

/* What follows from the rest: the vocabulary from the task, positions from the length, the policy from the variant. */
static cldsa_status settle(train_options *options) {
    enum { UNIFORM_VOCAB = 1000, BYTES_VOCAB = 256 };
    cldsa_run_config *run = &options->run;
    if (!options->vocab_given)
        run->model.vocab_size = run->data.task == CLDSA_TASK_UNIFORM ? UNIFORM_VOCAB : BYTES_VOCAB;
    run->data.vocab = run->model.vocab_size;
    if (run->model.max_positions < run->data.seq_len)
        run->model.max_positions = run->data.seq_len;
    if (options->variant)
        CLDSA_TRY(cldsa_config_set_variant(&run->model, options->variant));
    return cldsa_config_check(&run->model, options->config_file ? options->config_file : "the model");
}

static void print_json(const cldsa_run_result *r) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "steps", (double)r->steps);
    cJSON_AddNumberToObject(out, "validation_loss", r->validation_loss);
    cJSON_AddNumberToObject(out, "validation_accuracy", r->validation_accuracy);
    if (!isnan(r->bits_per_byte))
        cJSON_AddNumberToObject(out, "bits_per_byte", r->bits_per_byte);
    cJSON_AddNumberToObject(out, "train_loss", r->train_loss);
    if (!isnan(r->tokens_per_second))
        cJSON_AddNumberToObject(out, "tokens_per_second", r->tokens_per_second);
    cJSON_AddNumberToObject(out, "peak_device_bytes", (double)r->peak_device_bytes);
    cJSON_AddNumberToObject(out, "parameters", (double)r->num_parameters);
    char *text = cJSON_Print(out);
    puts(text ? text : "{}");
    free(text);
    cJSON_Delete(out);
}

static void print_text(const char *directory, const cldsa_run_result *r) {
    printf("%lld steps, %lld parameters\nvalidation loss  %.4f nats", (long long)r->steps, (long long)r->num_parameters,
           r->validation_loss);
    if (!isnan(r->bits_per_byte))
        printf(" (%.4f bits per byte)", r->bits_per_byte);
    printf("\naccuracy         %.2f %%\ntraining loss    %.4f nats\n", 100 * r->validation_accuracy, r->train_loss);
    if (!isnan(r->tokens_per_second))
        printf("speed            %.0f tokens/s\n", r->tokens_per_second);
    printf("device memory    %.1f MiB\nkeys kept        ", (double)r->peak_device_bytes / (1 << 20));
    for (int i = 0; i < r->num_layers; ++i)
        printf("%s%.1f", i ? ", " : "", r->layers[i].mean_k);
    printf(" per row (layer by layer)\nfiles            %s\n", directory);
}

static int run_training(train_options *options) {
    cli_session session;
    cldsa_status status = settle(options);
    if (status == CLDSA_SUCCESS)
        status = cli_session_open(options->device, false, &session);
    if (status != CLDSA_SUCCESS)
        return cli_report(status);
    cli_watch watch;
    cli_watch_begin(&watch, "training");
    cldsa_run_hooks hooks = cli_watch_hooks(&watch);
    cldsa_run_result result;
    status = cldsa_train(session.ctx, session.queue, &options->run, &hooks, &result);
    cli_watch_end(&watch);
    cli_session_close(&session);
    if (status != CLDSA_SUCCESS)
        return cli_report_run(status, "the same command with --resume continues");
    if (options->json)
        print_json(&result);
    else
        print_text(options->run.directory, &result);
    return CLI_OK;
}

static int run(int argc, char **argv) {
    train_options options = {.run = cldsa_run_config_default()};
    options.run.directory = "cldsa-run";
    options.run.checkpoint_every = 100;
    options.run.model.causal = true;
    int code = cli_parse(&cli_train, argc, argv, take_config, &options);
    if (code != CLI_GO)
        return code;
    cldsa_status status = read_config(&options);
    if (status != CLDSA_SUCCESS) {
        code = cli_report(status);
    } else {
        const char *const *file_paths = options.run.data.paths;
        code = cli_parse(&cli_train, argc, argv, take, &options);
        if (code == CLI_GO)
            code = run_options_check(&options.run, &options.paths);
        if (code == CLI_GO)
            code = run_training(&options);
        free((void *)file_paths);
    }
    cJSON_Delete(options.file);
    return code;
}

const cli_command cli_train = {
    .name = "train",
    .summary = "Train a model on text or on a task",
    .usage = "[--config FILE] [--text PATH...] [OPTIONS]",
    .details =
        "Trains a transformer with latent attention, mixture of experts and sparse attention by the chosen variant.\n"
        "Ctrl-C saves a checkpoint and says how to resume.",
    .options = options_table,
    .examples = "  cldsa train --text book.txt --variant fixed25 --length 256 --steps 2000 --out run1\n"
                "  cldsa train --task recall --pairs 16 --length 128 --variant adaptive\n"
                "  cldsa train --text book.txt --variant fixed25 --length 256 --steps 4000 --out run1 --resume",
    .run = run,
};
