/* cldsa report on made-up files: every row and reason is shown, findings follow the figures, the page stands alone. */
#include "bench/report.h"
#include "host/io/file.h"
#include "tests/bench_results.h"
#include "tests/cli_runner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char *page, *markdown;

static void save(const char *name, cJSON *file) {
    assert_int_equal(cldsa_json_write(cli_path(name), file), CLDSA_SUCCESS);
    cJSON_Delete(file);
}

static char *load(const char *name) {
    char *text;
    size_t size;
    assert_int_equal(cldsa_file_read(cli_path(name), 1 << 26, &text, &size), CLDSA_SUCCESS);
    return text;
}

static void make_report(const char *files) {
    free(page);
    free(markdown);
    cli_run("report %s --html '%s' --markdown '%s'", files, cli_path("r.html"), cli_path("r.md"));
    cli_assert_ok();
    page = load("r.html");
    markdown = load("r.md");
}

static void assert_has(const char *text, const char *part) {
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in:\n%.3000s", part, text);
}

static int count_of(const char *text, const char *part) {
    int count = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
        ++count;
    return count;
}

static void add_crossover(cJSON *file, const char *mode, double T) {
    cJSON *crossover = cJSON_CreateObject();
    cJSON_AddStringToObject(crossover, "mode", mode);
    cJSON_AddNumberToObject(crossover, "K", 512);
    cJSON_AddNumberToObject(crossover, "from", 1024);
    cJSON_AddNumberToObject(crossover, "to", 65536);
    if (T > 0)
        cJSON_AddNumberToObject(crossover, "T", T);
    else
        cJSON_AddNullToObject(crossover, "T");
    cJSON_AddItemToArray(cJSON_GetObjectItem(file, "crossovers"), crossover);
}

static cJSON *add_peer(cJSON *row, const char *name, double ratio) {
    cJSON *peer = cJSON_CreateObject();
    cJSON_AddStringToObject(peer, "peer", name);
    cJSON_AddStringToObject(peer, "status", "ok");
    cJSON_AddItemToObject(peer, "seconds", result_statistics(ratio * 1e-3, 0.01, 10, 1));
    cJSON_AddNumberToObject(peer, "ratio", ratio);
    cJSON_AddItemToArray(cJSON_GetObjectItem(row, "peers"), peer);
    return peer;
}

static void set_percent(cJSON *row, double percent) {
    result_set(cJSON_GetObjectItem(row, "roofline"), "percent", cJSON_CreateNumber(percent));
}

/* Two devices; the first in two files. */
static cJSON *make_card(void) {
    cJSON *card = result_file("Card <&> \"A\"", "2026-02-01T00:00:00Z");
    result_set(cJSON_GetObjectItem(card, "system"), "type", cJSON_CreateString("gpu"));
    return card;
}

static void make_files(void) {
    cJSON *card = make_card(), *more = make_card(), *cpu = result_file("Processor", "2026-02-01T00:00:00Z");
    cJSON *row = result_add_op(card, "gemm", "M=64 N=64 K=64", 1e-3, 0.01, 1);
    set_percent(row, 80);
    cJSON_AddNumberToObject(row, "gain", 4);
    add_peer(row, "rival", 2);
    row = result_add_op(card, "gemm", "M=128 N=128 K=128", 2e-3, 0.01, 1);
    set_percent(row, 20);
    cJSON_AddNumberToObject(row, "gain", 1);
    result_fail(add_peer(row, "rival", 2), "error", "the rival fell over");
    result_fail(result_add_op(card, "topk", "R=7 T=77", 1e-3, 0.01, 1), "error", "row 3 is <wrong> & lost");
    result_add_peak(card, "f32", "FLOP/s", 0, 9.9e13);
    result_fail(result_add_peak(card, "f16", "FLOP/s", 0, 1), "unsupported", "no halves here");
    result_add_train(more, 256, "dense", 400000);
    result_fail(result_add_train(more, 512, "fixed50", 1), "skipped", "would need a larger card");
    result_add_end_to_end(more, "decode", 4096, 1e-3, 2.5e-3);
    add_crossover(more, "decode", 4096);
    result_add_op(cpu, "gemm", "M=64 N=64 K=64", 5e-3, 0.01, 1);
    result_add_train(cpu, 256, "dense", 4000);
    result_add_end_to_end(cpu, "decode", 4096, 4e-3, 1e-3);
    add_crossover(cpu, "decode", 0);
    add_crossover(cpu, "prefill", 0);
    result_set(cJSON_GetArrayItem(cJSON_GetObjectItem(cpu, "crossovers"), 1), "to", cJSON_CreateNumber(0));
    save("card.json", card);
    save("more.json", more);
    save("cpu.json", cpu);
}

static const char *all_files(void) {
    static char files[3 * CLI_PATH_SIZE + 16];
    make_files();
    snprintf(files, sizeof files, "'%s' '%s' '%s'", cli_path("card.json"), cli_path("more.json"), cli_path("cpu.json"));
    return files;
}

/* ---- what is shown ----------------------------------------------------------------------------------------------- */

static void every_row_is_shown(void **state) {
    (void)state;
    make_report(all_files());
    static const char *const shown[] = {
        "M=64 N=64 K=64", "M=128 N=128 K=128", "R=7 T=77", "9.90",   "FLOP/s", "S=256, dense", "S=512, fixed50",
        "T=4096",         "1.00 ms",           "5.0",      "2.50 x", "0.25 x", "Processor"};
    for (size_t i = 0; i < sizeof shown / sizeof *shown; ++i)
        assert_has(page, shown[i]);
    assert_has(markdown, "| gemm M=128 N=128 K=128 | 2.00 ms, 20 % | · |");
    assert_has(markdown, "| topk R=7 T=77 | error | · |");
    assert_has(markdown, "T=4096 K=512 H=8 F32 | 2.50 x | 0.25 x |");
    assert_has(markdown, "| length=512 fixed50 | skipped | · |");
}

static void every_reason_is_shown(void **state) {
    (void)state;
    make_report(all_files());
    assert_has(page, "row 3 is &lt;wrong&gt; &amp; lost");
    assert_has(page, "no halves here");
    assert_has(page, "would need a larger card");
    assert_has(page, "the rival fell over");
    assert_has(markdown, "topk R=7 T=77: error: row 3 is &lt;wrong> & lost");
    assert_has(markdown, "no halves here");
    assert_has(markdown, "would need a larger card");
}

static void findings_follow_the_figures(void **state) {
    (void)state;
    make_report(all_files());
    /* 80 % and 20 %: 40 in the geometric mean; gains of 4 and 1: 2. */
    assert_has(markdown,
               "Card &lt;&> \"A\" 40 % (geometric mean of 2 calls; least: gemm, 40.0 %); Made-up OpenCL 50 %");
    assert_has(markdown, "2.00 x over defaults (geometric mean of 2 calls; most: gemm, 4.00 x; 0 over 3 % slower)");
    assert_has(markdown, "2.00 x rival's speed (geometric mean; faster in 1 of 1)");
    assert_has(markdown, "from T = 4096 on (K = 512, measured to T = 65536); Made-up OpenCL nowhere (K = 512, ");
    assert_has(markdown, "Not measured:** 3 of 11 rows (error: 1, unsupported: 1, skipped: 1;");
    assert_null(strstr(markdown, "pays in prefill")); /* nothing of it was measured */
    assert_has(page, "3 none");                       /* calls by tuning */
    assert_has(markdown, "(S = 256, dense), ");
    assert_has(page, "geometric mean of 2 calls");
}

static void the_page_stands_alone(void **state) {
    (void)state;
    make_report(all_files());
    static const char *const outside[] = {"src=",     "url(",    "@import",  "<script", "<link",
                                          "href=\"h", "href='h", "href=\"/", "onload",  "<iframe"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; ++i)
        if (strstr(page, outside[i]))
            fail_msg("the page has %s", outside[i]);
    /* Names of XML's vocabularies are the only addresses. */
    assert_int_equal(count_of(page, "http"), count_of(page, "=\"http://www.w3.org/"));
    assert_has(page, "Card &lt;&amp;&gt; &quot;A&quot;");
    assert_null(strstr(page, "<&>"));
    assert_has(page, "prefers-color-scheme:dark");
    assert_true(count_of(page, "<svg") >= 3); /* a roofline each, bandwidth, ... */
}

static void doubts_are_said(void **state) {
    (void)state;
    cJSON *file = result_file("Processor", "2026-02-01T00:00:00Z");
    cJSON *row = result_add_op(file, "gemm", "M=1", 1e-3, 0.01, 1), *system = cJSON_GetObjectItem(file, "system");
    save("sound.json", cJSON_Duplicate(file, true));
    set_percent(row, 180);
    result_set(cJSON_GetObjectItem(system, "host"), "load_before", cJSON_CreateNumber(5));
    save("doubtful.json", file);
    cli_run("report '%s'", cli_path("sound.json"));
    assert_null(strstr(cli_result.out, "with care"));
    cli_run("report '%s'", cli_path("doubtful.json"));
    assert_has(cli_result.out, "1 calls exceed the measured peak of arithmetic");
    assert_has(cli_result.out, "load 5.0 on 2 threads");
}

/* Files of one device are one column; of a row that two of them have, the newer counts, whatever their order. */
static void files_of_a_device_merge(void **state) {
    (void)state;
    cJSON *old = result_file("Processor", "2026-02-01T00:00:00Z"),
          *new = result_file("Processor", "2026-02-02T00:00:00Z");
    result_set(cJSON_GetObjectItem(old, "system"), "compiler", cJSON_CreateString("-old-option"));
    result_add_op(old, "gemm", "M=1", 7e-3, 0, 1);
    result_add_op(old, "gemm", "M=2", 3e-3, 0, 1);
    result_add_op(new, "gemm", "M=1", 5e-3, 0, 1);
    save("old.json", old);
    save("new.json", new);
    for (int order = 0; order < 2; ++order) {
        char files[2 * CLI_PATH_SIZE + 8];
        snprintf(files, sizeof files, "'%s' '%s'", cli_path(order ? "new.json" : "old.json"),
                 cli_path(order ? "old.json" : "new.json"));
        make_report(files);
        assert_has(markdown, "| gemm M=1 | 5.00 ms, 50 % |\n");
        assert_has(markdown, "| gemm M=2 | 3.00 ms, 50 % |\n");
        assert_has(page, "2 (1 more, older, not shown)");
        assert_null(strstr(page, "-old-option"));
    }
}

/* Where sparsity pays says the newest file that measured it, whatever the order. */
static void the_newest_crossover_counts(void **state) {
    (void)state;
    cJSON *old = result_file("Processor", "2026-02-01T00:00:00Z"),
          *new = result_file("Processor", "2026-02-02T00:00:00Z"),
          *without = result_file("Processor", "2026-02-03T00:00:00Z");
    add_crossover(old, "decode", 8192);
    add_crossover(new, "decode", 4096);
    save("old.json", old);
    save("new.json", new);
    save("without.json", without);
    cli_run("report '%s' '%s' '%s'", cli_path("without.json"), cli_path("new.json"), cli_path("old.json"));
    assert_has(cli_result.out, "from T = 4096 on");
    assert_null(strstr(cli_result.out, "8192"));
}

/* A device that was measured without --gain has no failures there; what is much slower keeps its figures. */
static void gains_are_of_those_who_measured_them(void **state) {
    (void)state;
    cJSON *tuned = make_card(), *untuned = result_file("Processor", "2026-02-01T00:00:00Z");
    cJSON_AddNumberToObject(result_add_op(tuned, "gemm", "M=1", 1e-3, 0.01, 1), "gain", 0.27);
    result_add_op(untuned, "gemm", "M=1", 1e-3, 0.01, 1);
    result_fail(result_add_op(untuned, "gemm", "M=2", 1e-3, 0.01, 1), "error", "it is wrong");
    save("tuned.json", tuned);
    save("untuned.json", untuned);
    char files[2 * CLI_PATH_SIZE + 8];
    snprintf(files, sizeof files, "'%s' '%s'", cli_path("tuned.json"), cli_path("untuned.json"));
    make_report(files);
    assert_has(page, "0.27 x (1)");
    assert_int_equal(count_of(page, "1 without a time"), 1); /* of the roofline only */
}

static void training_without_dense_is_plotted(void **state) {
    (void)state;
    cJSON *file = result_file("Processor", "2026-02-01T00:00:00Z");
    cJSON *row = result_add_train(file, 256, "adaptive", 4000);
    char files[CLI_PATH_SIZE + 8];
    save("sparse.json", cJSON_Duplicate(file, true));
    snprintf(files, sizeof files, "'%s'", cli_path("sparse.json"));
    make_report(files);
    assert_has(page, "Training, adaptive");
    result_fail(row, "error", "it is wrong");
    save("sparse.json", file);
    make_report(files);
    assert_null(strstr(page, "Training, "));
}

static void compilers_are_shown(void **state) {
    (void)state;
    make_files();
    static const char table[] =
        "{\"schema\": 1, \"kind\": \"vendors\", \"date\": \"2026-01-01\", \"version\": \"0.1.0\", \"targets\": ["
        "{\"target\": \"gfx1\", \"vendor\": \"V\", \"device\": \"D\", \"compiler\": \"cc 9\", \"status\": \"error\","
        " \"reason\": \"\", \"programs\": 1, \"kernels\": 2, \"failed\": 1},"
        "{\"target\": \"gfx2\", \"vendor\": \"V\", \"device\": \"E\", \"compiler\": \"\", \"status\": \"skipped\","
        " \"reason\": \"no compiler here\", \"programs\": 0, \"kernels\": 0, \"failed\": 0}], \"kernels\": ["
        "{\"op\": \"gemm\", \"variant\": \"simt\", \"file\": \"gemm.cl\", \"kernel\": \"gemm_simt\", \"options\": "
        "\"-DA\","
        " \"target\": \"gfx1\", \"registers\": 77, \"spills\": 0, \"local_bytes\": 2048, \"occupancy_percent\": 50,"
        " \"status\": \"ok\", \"reason\": \"\"},"
        "{\"op\": \"topk\", \"variant\": \"radix\", \"file\": \"topk.cl\", \"kernel\": \"topk_radix\", \"options\": "
        "\"-DB\","
        " \"target\": \"gfx1\", \"registers\": 256, \"spills\": 12, \"status\": \"error\", \"reason\": \"spills 12 "
        "registers\"}]}";
    cli_write("vendors.json", table, strlen(table));
    char files[2 * CLI_PATH_SIZE + 8];
    snprintf(files, sizeof files, "'%s' '%s'", cli_path("cpu.json"), cli_path("vendors.json"));
    make_report(files);
    assert_has(page, "<td>256<div class=\"muted kernel\">topk_<wbr>radix</div></td>");
    assert_has(page, "1, 1 chosen<div class=\"muted kernel\">topk_<wbr>radix: 12</div>");
    assert_has(page, "<td>50 %<div class=\"muted kernel\">gemm_<wbr>simt</div></td>");
    assert_has(page, "77 reg");
    assert_has(page, "50 % occ");
    assert_has(page, "2.0 KiB");
    assert_has(page, "12 spilled");
    assert_has(page, "gfx1: topk_radix of topk.cl, -DB: spills 12 registers");
    assert_has(page, "skipped: no compiler here");
    assert_has(markdown, "0 of 2 targets take every kernel, 1 were skipped; of 2 builds 1 fail");
    assert_has(markdown, "| gfx1 | D | 2, 1 fail | 256 | 1 | 50 % | 2.0 KiB |");
    assert_has(markdown, "| gfx2 | E | skipped: no compiler here |");
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static void prints_markdown_without_files(void **state) {
    (void)state;
    make_files();
    cli_run("report '%s'", cli_path("cpu.json"));
    cli_assert_ok();
    assert_has(cli_result.out, "| gemm M=64 N=64 K=64 | 5.0");
}

static void refuse(const char *name, const char *parts) {
    make_files();
    cli_run("report '%s' '%s' --html '%s'", cli_path("cpu.json"), cli_path(name), cli_path("bad.html"));
    cli_assert_error(2, parts);
    assert_int_not_equal(access(cli_path("bad.html"), F_OK), 0);
}

static void bad_input(void **state) {
    (void)state;
    cli_run("report");
    cli_assert_error(2, "result file");
    cli_run("report --htlm x");
    cli_assert_error(2, "htlm|--html");
    refuse("absent.json", "absent.json");
    cli_write("empty.json", "", 0);
    refuse("empty.json", "empty.json");
    cli_write("other.json", "{\"name\": 1}", 11);
    refuse("other.json", "other.json|schema");
    cli_write("list.json", "[1]", 3);
    refuse("list.json", "list.json|object");
    cli_write("vendors9.json", "{\"kind\": \"vendors\", \"schema\": 9}", 32);
    refuse("vendors9.json", "vendors9.json|schema|9");
    cJSON *file = result_file("Device", "2026-01-01T00:00:00Z");
    result_set(file, "schema", cJSON_CreateNumber(3));
    save("later.json", file);
    refuse("later.json", "later.json|schema|3|2");
    make_files();
    char *text = load("card.json");
    cli_write("cut.json", text, strlen(text) - 100);
    free(text);
    refuse("cut.json", "cut.json|not valid JSON");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_shown),
        cmocka_unit_test(every_reason_is_shown),
        cmocka_unit_test(findings_follow_the_figures),
        cmocka_unit_test(the_page_stands_alone),
        cmocka_unit_test(doubts_are_said),
        cmocka_unit_test(files_of_a_device_merge),
        cmocka_unit_test(the_newest_crossover_counts),
        cmocka_unit_test(gains_are_of_those_who_measured_them),
        cmocka_unit_test(training_without_dense_is_plotted),
        cmocka_unit_test(compilers_are_shown),
        cmocka_unit_test(prints_markdown_without_files),
        cmocka_unit_test(bad_input),
    };
    int failed = cmocka_run_group_tests(tests, cli_make_directory, cli_remove_directory);
    free(page);
    free(markdown);
    return failed;
}
