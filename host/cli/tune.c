/* cldsa tune: fitting kernels to a device, and the database of what was found. */
#include "autotune/tuner.h"
#include "host/cli/cli.h"

#include <stdio.h>

enum { KEY_SHOW = CLI_KEY, KEY_EXPORT, KEY_IMPORT, KEY_DATABASE };

typedef struct tune_options {
    const char *device, *database; /* database NULL: the user's */
    const char *export_to, *import_from;
    bool show, json;
} tune_options;

static const cli_option options_table[] = {
    CLI_OPTION_DEVICE,
    CLI_OPTION_JSON,
    {KEY_SHOW, "show", NULL, "what was tuned for the device, in the user's file and the shipped ones"},
    {KEY_EXPORT, "export", "FILE", "write what was tuned for exactly this device to a file of its own"},
    {KEY_IMPORT, "import", "FILE", "add what another file holds, for whichever devices"},
    {KEY_DATABASE, "database", "FILE", "instead of the user's file (see ENVIRONMENT in cldsa(1))"},
    {0},
};

static int take(void *user, int key, const char *value) {
    tune_options *options = user;
    switch (key) {
    case CLI_DEVICE:
        options->device = value;
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
    case KEY_DATABASE:
        options->database = value;
        return CLI_GO;
    default:
        return cli_usage("tune: unexpected argument \"%s\"; see cldsa tune --help", value);
    }
}

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

static int run(int argc, char **argv) {
    tune_options options = {0};
    int code = cli_parse(&cli_tune, argc, argv, take, &options);
    if (code != CLI_GO)
        return code;
    if (!options.show && !options.export_to && !options.import_from)
        return cli_usage("tune: one of --show, --export and --import is needed; see cldsa tune --help");
    return cli_report(work_on_database(&options));
}

const cli_command cli_tune = {
    .name = "tune",
    .summary = "Show, export and import what was tuned for a device",
    .usage = "--show | --export FILE | --import FILE [OPTIONS]",
    .details =
        "Kernels take the variant and tunables that were measured to be fastest at the nearest shape: on exactly\n"
        "this device, else on its architecture, else on its vendor's; else their defaults.",
    .options = options_table,
    .examples = "  cldsa tune --show\n  cldsa tune --export h200.json\n  cldsa tune --import h200.json --show",
    .run = run,
};
