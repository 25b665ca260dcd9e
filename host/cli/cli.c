/* Option tables at work: parsing, --help, error lines; opening a device. */
#include "host/cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 64, HELP_COLUMN = 26, HELP_KEY = 'h' };

/* ---- parsing ------------------------------------------------------------------------------------------------- */

static void print_option(const char *name, const char *argument, const char *help) {
    int width = printf("  --%s%s%s", name, argument ? " " : "", argument ? argument : "");
    printf("%*s%s\n", width < HELP_COLUMN ? HELP_COLUMN - width : 2, "", help);
}

static void print_help(const cli_command *command) {
    printf("usage: cldsa %s %s\n\n%s.\n", command->name, command->usage, command->summary);
    if (command->details)
        printf("\n%s\n", command->details);
    printf("\noptions:\n");
    for (const cli_option *option = command->options; option->key; ++option)
        if (option->help)
            print_option(option->name, option->argument, option->help);
    print_option("help", NULL, "print this");
    printf("\nexamples:\n%s\n", command->examples);
    printf("\nexit status: 0 ok, 1 a check failed, 2 wrong usage or input, 3 device or system error\n");
}

/* getopt's tables from ours; the value it returns is the index, so that any key is possible. */
static size_t long_options(const cli_command *command, struct option *table) {
    size_t count = 0;
    for (; command->options[count].key && count < MAX_OPTIONS - 2; ++count) {
        const cli_option *option = &command->options[count];
        table[count] = (struct option){option->name, option->argument ? required_argument : no_argument, NULL, 0};
    }
    table[count] = (struct option){"help", no_argument, NULL, HELP_KEY};
    table[count + 1] = (struct option){0};
    return count;
}

static int bad_option(const cli_command *command, const char *text, bool argument_missing) {
    if (argument_missing)
        return cli_usage("%s: %s needs an argument; see cldsa %s --help", command->name, text, command->name);
    const char *names[MAX_OPTIONS];
    size_t count = 0;
    for (const cli_option *option = command->options; option->key && count < MAX_OPTIONS; ++option)
        if (option->help)
            names[count++] = option->name;
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(text + strspn(text, "-"), "="), text + strspn(text, "-"));
    const char *near = cldsa_nearest_name(word, names, count);
    return cli_usage("%s: unknown option %s%s%s; see cldsa %s --help", command->name, text,
                     near ? "; did you mean --" : "", near ? near : "", command->name);
}

int cli_parse(const cli_command *command, int argc, char **argv, int (*take)(void *user, int key, const char *value),
              void *user) {
    struct option table[MAX_OPTIONS];
    long_options(command, table);
    opterr = 0;
    optind = 0; /* starts afresh, in the GNU way */
    for (;;) {
        int index = 0, at = optind ? optind : 1;
        /* '-' delivers positional arguments in their places as option 1; ':' tells a missing argument apart. */
        int found = getopt_long(argc, argv, "-:h", table, &index);
        int code = CLI_GO;
        if (found == -1)
            break;
        if (found == HELP_KEY) {
            print_help(command);
            return CLI_OK;
        }
        if (found == '?' || found == ':')
            return bad_option(command, argv[at], found == ':');
        code = take(user, found == 1 ? CLI_POSITIONAL : command->options[index].key, optarg);
        if (code != CLI_GO)
            return code;
    }
    for (; optind < argc; ++optind) {
        int code = take(user, CLI_POSITIONAL, argv[optind]);
        if (code != CLI_GO)
            return code;
    }
    return CLI_GO;
}

int cli_integer(const char *option, const char *text, int64_t min, int64_t max, int64_t *value) {
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end || errno || number < min || number > max)
        return cli_usage("--%s is \"%s\"; it must be an integer from %lld to %lld", option, text, (long long)min,
                         (long long)max);
    *value = number;
    return CLI_GO;
}

int cli_number(const char *option, const char *text, double min, double max, double *value) {
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !(number >= min && number <= max))
        return cli_usage("--%s is \"%s\"; it must be a number from %g to %g", option, text, min, max);
    *value = number;
    return CLI_GO;
}

/* ---- error lines ------------------------------------------------------------------------------------------------ */

int cli_usage(const char *format, ...) {
    char text[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    cldsa_one_line(text);
    fprintf(stderr, "cldsa: %s\n", text);
    return CLI_USAGE;
}

int cli_report(cldsa_status status) {
    if (status == CLDSA_SUCCESS)
        return CLI_OK;
    const char *message = cldsa_error_message();
    fprintf(stderr, "cldsa: %s\n", *message ? message : cldsa_status_text(status));
    switch (status) {
    case CLDSA_CHECK_FAILED:
        return CLI_FAILED;
    case CLDSA_INVALID_ARGUMENT:
    case CLDSA_INVALID_SHAPE:
    case CLDSA_INVALID_DTYPE:
    case CLDSA_MISSING_TENSOR:
    case CLDSA_INVALID_FILE:
        return CLI_USAGE;
    default:
        return CLI_ERROR;
    }
}

int cli_report_run(cldsa_status status, const char *continues) {
    if (status != CLDSA_INTERRUPTED)
        return cli_report(status);
    fprintf(stderr, "cldsa: %s; %s\n", cldsa_error_message(), continues);
    return CLI_ERROR;
}

/* ---- the device ----------------------------------------------------------------------------------------------- */

static void print_log(cldsa_log_level level, const char *text, void *user) {
    (void)level;
    (void)user;
    fprintf(stderr, "cldsa: %s\n", text);
}

cldsa_status cli_session_open(const char *spec, bool profiling, cli_session *session) {
    *session = (cli_session){0};
    CLDSA_TRY(cldsa_select_device(spec, &session->info));
    cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)session->info.platform, 0};
    cl_int code;
    session->context = clCreateContext(properties, 1, &session->info.device, NULL, NULL, &code);
    if (!code)
        session->queue = clCreateCommandQueue(session->context, session->info.device,
                                              profiling ? CL_QUEUE_PROFILING_ENABLE : 0, &code);
    cldsa_status status = CLDSA_SUCCESS;
    if (code)
        status = cldsa_fail(code, "device %s: %s", session->info.name, cldsa_status_text(code));
    else
        status = cldsa_context_create(
            session->context, session->info.device,
            &(cldsa_context_options){.log = print_log, .log_level = CLDSA_LOG_WARNING, .profiling = profiling},
            &session->ctx);
    if (status != CLDSA_SUCCESS)
        cli_session_close(session);
    return status;
}

void cli_session_close(cli_session *session) {
    cldsa_context_destroy(session->ctx);
    if (session->queue)
        clReleaseCommandQueue(session->queue);
    if (session->context)
        clReleaseContext(session->context);
    *session = (cli_session){0};
}
