/* cldsa: finds the subcommand and runs it. */
#include "host/cli/cli.h"

#include <stdio.h>
#include <string.h>

static const cli_command *const commands[] = {
    &cli_devices,        &cli_op,      &cli_check, &cli_train, &cli_experiment, &cli_bench,
    &cli_report_command, &cli_compare, &cli_tune,
};

enum { NUM_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(void) {
    printf("usage: cldsa COMMAND [ARGUMENTS]\n\n"
           "Dynamic sparse attention on every OpenCL device.\n\ncommands:\n");
    for (int i = 0; i < NUM_COMMANDS; ++i)
        printf("  %-12s %s\n", commands[i]->name, commands[i]->summary);
    printf("\n`cldsa COMMAND --help` explains each. CLDSA_DEVICE chooses the device where --device is not given.\n\n"
           "examples:\n  cldsa devices\n  cldsa check tests/data/topk.ties.safetensors\n"
           "  cldsa op --list\n");
}

static int unknown(const char *name) {
    const char *names[NUM_COMMANDS];
    for (int i = 0; i < NUM_COMMANDS; ++i)
        names[i] = commands[i]->name;
    const char *near = cldsa_nearest_name(name, names, NUM_COMMANDS);
    return cli_usage("there is no command \"%s\"%s%s; see cldsa --help", name, near ? "; did you mean " : "",
                     near ? near : "");
}

/* Results that did not reach their file or pipe are a failure even if all else went well. */
static int finish(int code) {
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "cldsa: cannot write to standard output\n");
        return code == CLI_OK ? CLI_ERROR : code;
    }
    return code;
}

int main(int argc, char **argv) {
    if (argc < 2)
        return cli_usage("a command is needed; see cldsa --help");
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help();
        return finish(CLI_OK);
    }
    if (strcmp(name, "--version") == 0) {
        printf("cldsa %d.%d.%d\n", CLDSA_VERSION_MAJOR, CLDSA_VERSION_MINOR, CLDSA_VERSION_PATCH);
        return finish(CLI_OK);
    }
    for (int i = 0; i < NUM_COMMANDS; ++i)
        if (strcmp(name, commands[i]->name) == 0)
            return finish(commands[i]->run(argc - 1, argv + 1));
    return unknown(name);
}
