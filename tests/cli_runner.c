#include "tests/cli_runner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

struct cli_result cli_result;
char cli_directory[] = "/tmp/cldsa-test-XXXXXX";

int cli_make_directory(void **state) {
    (void)state;
    return mkdtemp(cli_directory) ? 0 : -1;
}

int cli_remove_directory(void **state) {
    (void)state;
    char command[CLI_PATH_SIZE];
    snprintf(command, sizeof command, "chmod -R u+w '%s'; rm -rf '%s'", cli_directory, cli_directory);
    return system(command);
}

const char *cli_path(const char *name) {
    static char paths[8][CLI_PATH_SIZE];
    static int next;
    next = (next + 1) % 8;
    snprintf(paths[next], CLI_PATH_SIZE, "%s/%s", cli_directory, name);
    return paths[next];
}

const char *cli_write(const char *name, const void *data, size_t size) {
    const char *path = cli_path(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

static void read_all(FILE *stream, char *text, size_t size) {
    size_t length = fread(text, 1, size - 1, stream);
    text[length] = '\0';
}

static void execute(const char *command) {
    char redirected[CLI_COMMAND_SIZE + CLI_PATH_SIZE];
    const char *error_path = cli_path(".error");
    snprintf(redirected, sizeof redirected, "{ %s\n} 2>'%s'", command, error_path);
    FILE *pipe = popen(redirected, "r");
    assert_non_null(pipe);
    read_all(pipe, cli_result.out, sizeof cli_result.out);
    int status = pclose(pipe);
    cli_result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    FILE *errors = fopen(error_path, "rb");
    assert_non_null(errors);
    read_all(errors, cli_result.error, sizeof cli_result.error);
    fclose(errors);
}

void cli_shell(const char *format, ...) {
    char command[CLI_COMMAND_SIZE];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command, format, list);
    va_end(list);
    execute(command);
}

static void run(const char *before, const char *format, va_list list) {
    char arguments[CLI_COMMAND_SIZE / 2], command[CLI_COMMAND_SIZE];
    vsnprintf(arguments, sizeof arguments, format, list);
    snprintf(command, sizeof command, "%s '%s' %s", before, CLDSA_TEST_CLI, arguments);
    execute(command);
}

void cli_run(const char *format, ...) {
    va_list list;
    va_start(list, format);
    run("", format, list);
    va_end(list);
}

void cli_run_in(const char *before, const char *format, ...) {
    va_list list;
    va_start(list, format);
    run(before, format, list);
    va_end(list);
}

void cli_must_hide_drivers(void) {
    cli_shell("OCL_ICD_VENDORS=/nonexistent clinfo -l");
    if (!*cli_result.out)
        return;
    print_message("skipped: this OpenCL loader does not obey OCL_ICD_VENDORS\n");
    skip();
}

void cli_assert_ok(void) {
    if (cli_result.code != 0)
        fail_msg("exit code %d: %s", cli_result.code, cli_result.error);
}

void cli_assert_error(int code, const char *parts) {
    const char *end = strchr(cli_result.error, '\n');
    bool good = cli_result.code == code && strncmp(cli_result.error, "cldsa: ", 7) == 0 && end && !end[1];
    char copy[CLI_COMMAND_SIZE], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", parts);
    for (char *part = strtok_r(copy, "|", &rest); part; part = strtok_r(NULL, "|", &rest))
        good = good && strstr(cli_result.error, part);
    if (!good)
        fail_msg("wanted %d and one line with \"%s\", got %d: %s", code, parts, cli_result.code, cli_result.error);
}
