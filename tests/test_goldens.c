/* Golden files through the device, as `cldsa check` does it: every operation's, every variant that can run. */
/* ctest: full, for the kernels it builds */
#include "host/cli/check.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int open_session(void **state) {
    *state = calloc(1, sizeof(cli_session));
    return *state && cli_session_open(NULL, false, *state) == CLDSA_SUCCESS ? 0 : -1;
}

static int close_session(void **state) {
    cli_session_close(*state);
    free(*state);
    return 0;
}

/* All files of one operation. A file of which nothing here computes the content skips the test, visibly. */
static void check_pattern(const cli_session *session, const char *pattern) {
    glob_t files;
    char path[512];
    int failures = 0, unsupported = 0;
    snprintf(path, sizeof path, "%s/%s.*safetensors", CLDSA_TEST_DATA, pattern);
    assert_int_equal(glob(path, 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; ++i) {
        check_report report;
        cldsa_status status = check_file(files.gl_pathv[i], session, &report);
        if (status != CLDSA_SUCCESS)
            print_error("%s: %s\n", files.gl_pathv[i], cldsa_error_message());
        if (*report.unsupported)
            print_error("%s: %s\n", files.gl_pathv[i], report.unsupported);
        for (size_t r = 0; r < report.count; ++r)
            if (!(report.rows[r].ratio <= 1))
                print_error("%s: %s: %s: error %g, %g of allowed\n", files.gl_pathv[i], report.rows[r].what,
                            report.rows[r].tensor, report.rows[r].error, report.rows[r].ratio);
        failures += status != CLDSA_SUCCESS || (report.count > 0 && !check_passed(&report));
        unsupported += *report.unsupported != '\0';
        check_release(&report);
    }
    globfree(&files);
    assert_int_equal(failures, 0);
    if (unsupported)
        skip();
}

static void indexer_scores(void **state) {
    check_pattern(*state, "indexer_scores");
}
static void indexer_kl(void **state) {
    check_pattern(*state, "indexer_kl");
}
static void topk(void **state) {
    check_pattern(*state, "topk");
}
static void masked_attention(void **state) {
    check_pattern(*state, "masked_attention");
}
static void sparse_attention(void **state) {
    check_pattern(*state, "sparse_attention");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(indexer_scores),
        cmocka_unit_test(indexer_kl),
        cmocka_unit_test(topk),
        cmocka_unit_test(masked_attention),
        cmocka_unit_test(sparse_attention),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, open_session, close_session);
}
