/*
 * cldsa bench from outside: words that mean nothing are refused before anything is measured, and what was measured is
 * not lost when it ends early.
 * ctest: full, for the peaks that every run of operations measures first
 */
#include "bench/schema.h"
#include "tests/cli_runner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* There is no device, so whatever is refused by its words alone was refused before one was asked for. */
static void refuse(const char *words, const char *parts) {
    cli_run_in("OCL_ICD_VENDORS=/nonexistent", "bench %s", words);
    cli_assert_error(2, parts);
}

static void wrong_words_are_named(void **state) {
    (void)state;
    refuse("", "a suite is needed");
    refuse("opps", "opps|did you mean ops");
    refuse("ops gemmm", "gemmm|did you mean gemm");
    refuse("ops --budget 0", "--budget|\"0\"");
    refuse("ops gemm --variant smt", "gemm|\"smt\"|did you mean simt");
    refuse("ops topk --variant qqqqqq", "topk|qqqqqq|known are vec, bitonic, radix");
    refuse("ops gemm --tune WG=64", "--tune|--variant");
    refuse("ops gemm --extents M=0", "--extents|M=0");
    refuse("ops gemm --extents ''", "--extents");
    refuse("train --extents S=64", "train|--extents");
    refuse("peak gemm", "peak|gemm");
    refuse("train topk", "train|topk");
    refuse("train --lengths 64,1", "--lengths|\"1\"");
    refuse("train --lengths 64,,128", "--lengths|commas");
    refuse("train --variants dense,fixed5O", "fixed5O|fixed50");
}

/* The file is needed at the end of what may be hours. */
static void an_unwritable_result_is_found_at_once(void **state) {
    (void)state;
    cli_run("bench ops reduce --preset experiment --budget 0.01 --out '%s'", cli_path("absent/result.json"));
    cli_assert_error(3, "absent/result.json");
    assert_string_equal(cli_result.out, "");
}

/* A program on its own has no peers beside it. */
static void a_missing_peer_is_a_line(void **state) {
    (void)state;
    cli_shell("cp '%s' '%s' && '%s' bench ops gemm --device cpu --preset cpu --budget 0.01 --peers "
              "--peer-dir '" CLDSA_KERNELS "/../bench/peers' --python false",
              CLDSA_TEST_CLI, cli_path("alone"), cli_path("alone"));
    cli_assert_ok();
    assert_non_null(strstr(cli_result.out, "torch "));
    assert_non_null(strstr(cli_result.out, "error: the other program ended"));
    assert_non_null(strstr(cli_result.out, "OpenBLAS "));
    assert_non_null(strstr(cli_result.out, "skipped: cldsa-peer-openblas is not built"));
}

/* Kernels for few rows must be checked with few rows. */
static void products_of_few_rows_are_measured(void **state) {
    (void)state;
    cli_run("bench ops gemm --preset dsa-decode --budget 0.01");
    cli_assert_ok();
    assert_non_null(strstr(cli_result.out, "M=1 N=1536 K=2048"));
    assert_null(strstr(cli_result.out, "unsupported"));
}

static void extents_replace_those_of_the_preset(void **state) {
    (void)state;
    cli_run("bench ops rms_norm --preset experiment --extents R=77,D=130,X=130 --budget 0.01");
    cli_assert_ok();
    assert_non_null(strstr(cli_result.out, "R=77 X=130 D=130"));
    assert_null(strstr(cli_result.out, "R=512"));
    assert_null(strstr(strstr(cli_result.out, "R=77") + 1, "R=77")); /* the preset's sizes all become the same call */
    cli_run("bench ops gemm --extents M=64,Q=3");
    cli_assert_error(2, "--extents|gemm|\"Q\"|M=");
}

static void a_killed_run_keeps_its_rows(void **state) {
    (void)state;
    static const char bench[] = "bench ops reduce --preset experiment --budget 0.01 --out";
    char result[CLI_PATH_SIZE], partial[CLI_PATH_SIZE + 16];
    cJSON *document;
    snprintf(result, sizeof result, "%s", cli_write("result.json", "old\n", 4));
    snprintf(partial, sizeof partial, "%s.partial", result);
    cli_shell("'%s' %s '%s' >/dev/null & pid=$!\n"
              "for i in $(seq 1200); do [ -e '%s' ] && break; sleep 0.05; done\n"
              "kill -9 $pid; wait $pid 2>/dev/null; grep -qx old '%s'",
              CLDSA_TEST_CLI, bench, result, partial, result);
    cli_assert_ok(); /* the old result is still there */
    assert_int_equal(bench_load(partial, &document), CLDSA_SUCCESS);
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(document, "rows")) > 0);
    assert_true(cJSON_IsObject(cJSON_GetObjectItem(cJSON_GetObjectItem(document, "system"), "peaks")));
    cJSON_Delete(document);
    cli_run("%s '%s'", bench, result);
    cli_assert_ok();
    assert_int_equal(bench_load(result, &document), CLDSA_SUCCESS);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(document, "rows")), 4);
    cJSON_Delete(document);
    assert_int_not_equal(access(partial, F_OK), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_words_are_named),
        cmocka_unit_test(an_unwritable_result_is_found_at_once),
        cmocka_unit_test(a_missing_peer_is_a_line),
        cmocka_unit_test(products_of_few_rows_are_measured),
        cmocka_unit_test(extents_replace_those_of_the_preset),
        cmocka_unit_test(a_killed_run_keeps_its_rows),
    };
    return cmocka_run_group_tests(tests, cli_make_directory, cli_remove_directory);
}
