/* Runs the cldsa command line as a user does, and keeps what it left behind. For tests of it from outside. */
#ifndef CLDSA_CLI_RUNNER_H
#define CLDSA_CLI_RUNNER_H

#include <stddef.h>

enum { CLI_OUTPUT_LIMIT = 1 << 20, CLI_COMMAND_SIZE = 4096, CLI_PATH_SIZE = 128 };

/* What the last command left behind. */
extern struct cli_result {
    int code; /* exit code; -1 if a signal ended it */
    char out[CLI_OUTPUT_LIMIT];
    char error[1 << 16];
} cli_result;

/* A directory of the test's own; group setup and teardown. */
extern char cli_directory[];
int cli_make_directory(void **state);
int cli_remove_directory(void **state);

/* "DIRECTORY/NAME" of the test's own directory; one of a few static buffers in turn. */
const char *cli_path(const char *name);
/* Writes DIRECTORY/NAME; gives its path. */
const char *cli_write(const char *name, const void *data, size_t size);

/* Runs a shell command; its standard error is caught too. */
void cli_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Runs cldsa with these arguments. */
void cli_run(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with what `env` puts before the command: "OCL_ICD_VENDORS=/x", "ulimit -f 1;". */
void cli_run_in(const char *before, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Skips the running test where OCL_ICD_VENDORS hides no drivers: not every vendor's loader obeys it. */
void cli_must_hide_drivers(void);

void cli_assert_ok(void);
/* Exactly one line on standard error, beginning as all do, with every part ("a|b" names several) in it. */
void cli_assert_error(int code, const char *parts);

#endif
