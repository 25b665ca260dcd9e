/*
 * What the subcommands of `cldsa` share: the option tables from which parsing and --help are made, exit codes, error
 * lines, and a device opened as --device says.
 *
 * A subcommand is one file with one cli_command; main.c lists them. Its run function parses with cli_parse, then works.
 */
#ifndef CLDSA_CLI_H
#define CLDSA_CLI_H

#include "host/runtime/runtime.h"

enum {
    CLI_OK = 0,
    CLI_FAILED = 1, /* a check did not hold */
    CLI_USAGE = 2,  /* the command line or an input is wrong */
    CLI_ERROR = 3,  /* the device or the system failed */
    CLI_GO = -1     /* of cli_parse: nothing to report, go on */
};

/* Option keys; a subcommand's own start at CLI_KEY. */
enum { CLI_END = 0, CLI_POSITIONAL = 1, CLI_DEVICE, CLI_JSON, CLI_KEY = 16 };

typedef struct cli_option {
    int key;
    const char *name;     /* without the dashes */
    const char *argument; /* what follows, for --help: "FILE"; NULL for a flag */
    const char *help;     /* NULL for what cldsa gives to itself: --help does not list it */
} cli_option;

#define CLI_OPTION_DEVICE                                                                                              \
    { CLI_DEVICE, "device", "DEVICE", "index, type (cpu, gpu) or part of the name; default $CLDSA_DEVICE, then a GPU" }
#define CLI_OPTION_JSON                                                                                                \
    { CLI_JSON, "json", NULL, "print JSON instead of a table" }

typedef struct cli_command {
    const char *name;
    const char *summary;       /* one line */
    const char *usage;         /* what follows "cldsa NAME": "FILE... [OPTIONS]" */
    const char *details;       /* paragraphs between usage and options; may be NULL */
    const cli_option *options; /* terminated by a zero key */
    const char *examples;      /* lines of commands, each indented by two blanks */
    int (*run)(int argc, char **argv);
} cli_command;

/*
 * Reads argv[1]... by the command's table and calls `take` for each option and positional argument; take returns
 * CLI_GO or an exit code. Handles --help. Options may stand anywhere; "--" ends them.
 * Returns CLI_GO, or the exit code with which to end.
 */
int cli_parse(const cli_command *command, int argc, char **argv, int (*take)(void *user, int key, const char *value),
              void *user);

/* Prints "cldsa: ..." and returns CLI_USAGE. */
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints the thread's message for a failed call and returns the exit code that fits the status. */
int cli_report(cldsa_status status);

/* The same for a training run; where it was stopped on request, the line also says how to go on. */
int cli_report_run(cldsa_status status, const char *continues);

/* Numbers on the command line: the whole text must be one, within the range. CLI_GO or CLI_USAGE. */
int cli_integer(const char *option, const char *text, int64_t min, int64_t max, int64_t *value);
int cli_number(const char *option, const char *text, double min, double max, double *value);

/* ---- a device to work with ------------------------------------------------------------------------------------- */

typedef struct cli_session {
    cldsa_device_info info;
    cl_context context;
    cl_command_queue queue; /* in order */
    cldsa_context *ctx;
} cli_session;

/* `spec` as for cldsa_select_device. With profiling the queue and the context record kernel times. */
cldsa_status cli_session_open(const char *spec, bool profiling, cli_session *session);
void cli_session_close(cli_session *session);

/* ---- the subcommands ------------------------------------------------------------------------------------------- */

extern const cli_command cli_devices, cli_op, cli_check, cli_train, cli_experiment, cli_bench, cli_report_command,
    cli_compare, cli_tune;

#endif
