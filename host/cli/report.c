/* cldsa report: results of the bench as a page and as Markdown. */
#include "bench/report.h"
#include "host/cli/cli.h"
#include "host/io/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_HTML = CLI_KEY, KEY_MARKDOWN };

typedef struct report_options {
    const char **paths;
    size_t num_paths;
    const char *html, *markdown;
} report_options;

static const cli_option options_table[] = {
    {KEY_HTML, "html", "FILE", "write the page there"},
    {KEY_MARKDOWN, "markdown", "FILE", "write Markdown there (default: print it, if --html is not given)"},
    {0},
};

static int take(void *user, int key, const char *value) {
    report_options *options = user;
    if (key == KEY_HTML)
        options->html = value;
    else if (key == KEY_MARKDOWN)
        options->markdown = value;
    else
        options->paths[options->num_paths++] = value;
    return CLI_GO;
}

static cldsa_status write_form(const bench_report *report, const char *path,
                               cldsa_status (*make)(const bench_report *report, char **text)) {
    char *text;
    CLDSA_TRY(make(report, &text));
    cldsa_status status = path ? cldsa_file_write_all(path, text, strlen(text)) : CLDSA_SUCCESS;
    if (!path)
        fputs(text, stdout);
    free(text);
    return status;
}

static int work(const report_options *options) {
    bench_report report;
    if (bench_report_load(options->paths, options->num_paths, &report) != CLDSA_SUCCESS)
        return cli_usage("%s", cldsa_error_message());
    cldsa_status status = CLDSA_SUCCESS;
    if (options->html)
        status = write_form(&report, options->html, bench_report_html);
    if (status == CLDSA_SUCCESS && (options->markdown || !options->html))
        status = write_form(&report, options->markdown, bench_report_markdown);
    bench_report_free(&report);
    return cli_report(status);
}

static int run(int argc, char **argv) {
    report_options options = {.paths = calloc((size_t)argc + 1, sizeof *options.paths)};
    if (!options.paths)
        return cli_report(cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %d arguments", argc));
    int code = cli_parse(&cli_report_command, argc, argv, take, &options);
    if (code == CLI_GO && !options.num_paths)
        code = cli_usage("report: a result file is needed; see cldsa report --help");
    if (code == CLI_GO)
        code = work(&options);
    free(options.paths);
    return code;
}

const cli_command cli_report_command = {
    .name = "report",
    .summary = "Put results of cldsa bench side by side: a page, or Markdown",
    .usage = "RESULT.json... [OPTIONS]",
    .details =
        "Files of the same device and driver become one column; of rows measured twice the newest counts. The page\n"
        "is one file without scripts or network. A table of other vendors' compilers (the vendors tests write\n"
        "it) may be among the files.",
    .options = options_table,
    .examples = "  cldsa report cpu.json h200.json --html report.html --markdown report.md\n"
                "  cldsa report cpu.json",
    .run = run,
};
