/* cldsa compare: did anything become slower? */
#include "bench/compare.h"
#include "host/cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_THRESHOLD = CLI_KEY };

typedef struct compare_options {
    const char *path[2];
    int num_paths;
    bool json;
    double threshold; /* 0.05 is 5 % */
} compare_options;

static const cli_option options_table[] = {
    {KEY_THRESHOLD, "threshold", "PERCENT", "slower by more than this is a regression (default 5%)"},
    CLI_OPTION_JSON,
    {0},
};

static int take_threshold(const char *value, compare_options *options) {
    char number[32];
    size_t length = strlen(value);
    length -= length && value[length - 1] == '%';
    snprintf(number, sizeof number, "%.*s", (int)length, value);
    double percent;
    int code = cli_number("threshold", number, 0, 1000, &percent);
    if (code == CLI_GO)
        options->threshold = percent / 100;
    return code;
}

static int take(void *user, int key, const char *value) {
    compare_options *options = user;
    switch (key) {
    case CLI_JSON:
        options->json = true;
        return CLI_GO;
    case KEY_THRESHOLD:
        return take_threshold(value, options);
    }
    if (options->num_paths == 2)
        return cli_usage("compare: takes two files; \"%s\" is a third", value);
    options->path[options->num_paths++] = value;
    return CLI_GO;
}

/* ---- as a table -------------------------------------------------------------------------------------------------- */

static void print_file(char side, const char *path, const cJSON *file) {
    const cJSON *system = bench_member(file, "system");
    printf("%c: %s\n   %s / %s, driver %s, cldsa %s, %s\n", side, path, bench_text(system, "platform"),
           bench_text(system, "device"), bench_text(system, "driver"), bench_text(system, "cldsa"),
           bench_text(system, "date"));
}

/* What else than cldsa may be behind a difference. */
static void print_cautions(cJSON *const file[2]) {
    static const char *const keys[] = {"platform", "device", "driver"};
    const cJSON *before = bench_member(file[0], "system"), *after = bench_member(file[1], "system");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i)
        if (!bench_is(before, keys[i], bench_text(after, keys[i])))
            printf("note: another %s: %s, %s\n", keys[i], bench_text(before, keys[i]), bench_text(after, keys[i]));
    for (int i = 0; i < 2; ++i) {
        const cJSON *host = bench_member(bench_member(file[i], "system"), "host");
        double load = bench_number(host, "load_before"), threads = bench_number(host, "threads");
        if (load > threads / 2)
            printf("note: %c was measured on a busy machine: load %.1f on %.0f threads before it began\n", 'A' + i,
                   load, threads);
    }
}

/* Bytes beyond the letters, for padding. */
static int extra(const char *text) {
    int count = 0;
    for (; *text; ++text)
        count += (*text & 0xc0) == 0x80;
    return count;
}

static void print_difference(const bench_difference *difference) {
    char a[32], b[32], change[32] = "", interval[48] = "";
    bench_format(difference->a, difference->unit, a, sizeof a);
    bench_format(difference->b, difference->unit, b, sizeof b);
    if (!isnan(difference->change))
        snprintf(change, sizeof change, "%+.1f %%", 100 * difference->change);
    if (!isnan(difference->low))
        snprintf(interval, sizeof interval, "[%+.1f, %+.1f]", 100 * difference->low, 100 * difference->high);
    printf("%-10s %*s %*s %10s %18s  %s%s%s\n", bench_verdict_names[difference->verdict], 13 + extra(a), a,
           13 + extra(b), b, change, interval, difference->row, *difference->quantity ? ": " : "",
           difference->quantity);
    if (*difference->reason_a)
        printf("%11sA: %s\n", "", difference->reason_a);
    if (*difference->reason_b)
        printf("%11sB: %s\n", "", difference->reason_b);
}

static void print_lone(const char *side, char (*keys)[BENCH_KEY_SIZE], size_t count) {
    for (size_t i = 0; i < count; ++i)
        printf("%-10s %s\n", side, keys[i]);
}

static void print_table(const compare_options *options, cJSON *const file[2], const bench_comparison *comparison) {
    print_file('A', options->path[0], file[0]);
    print_file('B', options->path[1], file[1]);
    print_cautions(file);
    printf("\n%-10s %13s %13s %10s %18s  what\n", "verdict", "A", "B", "time", "99 % interval");
    for (size_t i = 0; i < comparison->count; ++i)
        print_difference(&comparison->differences[i]);
    print_lone("only in A", comparison->only_a, comparison->num_only_a);
    print_lone("only in B", comparison->only_b, comparison->num_only_b);
    printf("\n%zu compared", comparison->count);
    for (int i = 0; i < BENCH_NUM_VERDICTS; ++i)
        if (comparison->of_verdict[i])
            printf(", %zu %s", comparison->of_verdict[i], bench_verdict_names[i]);
    printf("; %zu only in A, %zu only in B; a regression is more than %g %% slower\n", comparison->num_only_a,
           comparison->num_only_b, 100 * options->threshold);
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

static void add_number(cJSON *object, const char *key, double value) {
    if (isfinite(value))
        cJSON_AddNumberToObject(object, key, value);
}

static void add_text(cJSON *object, const char *key, const char *value) {
    if (*value)
        cJSON_AddStringToObject(object, key, value);
}

static cJSON *difference_json(const bench_difference *difference) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "verdict", bench_verdict_names[difference->verdict]);
    cJSON_AddStringToObject(out, "row", difference->row);
    add_text(out, "quantity", difference->quantity);
    add_text(out, "unit", difference->unit);
    add_number(out, "a", difference->a);
    add_number(out, "b", difference->b);
    add_number(out, "change", difference->change);
    add_number(out, "low", difference->low);
    add_number(out, "high", difference->high);
    add_text(out, "reason_a", difference->reason_a);
    add_text(out, "reason_b", difference->reason_b);
    return out;
}

static void add_keys(cJSON *out, const char *name, char (*keys)[BENCH_KEY_SIZE], size_t count) {
    cJSON *list = cJSON_AddArrayToObject(out, name);
    for (size_t i = 0; i < count; ++i)
        cJSON_AddItemToArray(list, cJSON_CreateString(keys[i]));
}

static void print_json(const compare_options *options, cJSON *const file[2], const bench_comparison *comparison) {
    cJSON *out = cJSON_CreateObject();
    static const char *const sides[] = {"a", "b"};
    for (int i = 0; i < 2; ++i) {
        cJSON *side = cJSON_AddObjectToObject(out, sides[i]);
        cJSON_AddStringToObject(side, "file", options->path[i]);
        cJSON_AddItemReferenceToObject(side, "system", cJSON_GetObjectItemCaseSensitive(file[i], "system"));
    }
    cJSON_AddNumberToObject(out, "threshold", options->threshold);
    cJSON_AddNumberToObject(out, "confidence", bench_compare_confidence);
    cJSON_AddNumberToObject(out, "regressions", (double)bench_comparison_regressions(comparison));
    cJSON *rows = cJSON_AddArrayToObject(out, "rows");
    for (size_t i = 0; i < comparison->count; ++i)
        cJSON_AddItemToArray(rows, difference_json(&comparison->differences[i]));
    add_keys(out, "only_a", comparison->only_a, comparison->num_only_a);
    add_keys(out, "only_b", comparison->only_b, comparison->num_only_b);
    char *text = cJSON_Print(out);
    printf("%s\n", text ? text : "");
    cJSON_free(text);
    cJSON_Delete(out);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int work(const compare_options *options, cJSON *const file[2]) {
    bench_comparison comparison;
    cldsa_status status = bench_compare(file[0], file[1], options->threshold, &comparison);
    if (status != CLDSA_SUCCESS)
        return cli_report(status);
    (options->json ? print_json : print_table)(options, file, &comparison);
    int code = bench_comparison_regressions(&comparison) ? CLI_FAILED : CLI_OK;
    bench_comparison_free(&comparison);
    return code;
}

static int run(int argc, char **argv) {
    compare_options options = {.threshold = 0.05};
    int code = cli_parse(&cli_compare, argc, argv, take, &options);
    if (code != CLI_GO)
        return code;
    if (options.num_paths < 2)
        return cli_usage("compare: two result files are needed; see cldsa compare --help");
    cJSON *file[2] = {NULL, NULL};
    for (int i = 0; i < 2 && code == CLI_GO; ++i)
        if (bench_load(options.path[i], &file[i]) != CLDSA_SUCCESS)
            code = cli_usage("%s", cldsa_error_message());
    if (code == CLI_GO)
        code = work(&options, file);
    cJSON_Delete(file[0]);
    cJSON_Delete(file[1]);
    return code;
}

const cli_command cli_compare = {
    .name = "compare",
    .summary = "Say what became slower or faster between two results of cldsa bench",
    .usage = "A.json B.json [OPTIONS]",
    .details =
        "Rows are matched by suite, operation, shape, parameters and dtypes. The change is that of the time: +10 %\n"
        "is a tenth slower, also where the figure is a rate. Its 99 % interval is a bootstrap of the ratio of\n"
        "medians, in blocks of samples that follow each other; a change is significant if the interval excludes\n"
        "0. The interval knows what varied within the runs, not from run to run: on a busy machine, raise the\n"
        "threshold. Regressions, for which the exit status is 1, are significant changes beyond the threshold,\n"
        "and rows that had a time and are an error or unsupported now. Rows of one file only are named.",
    .options = options_table,
    .examples = "  cldsa compare main.json branch.json --threshold 10%\n"
                "  cldsa compare main.json branch.json --json > changes.json",
    .run = run,
};
