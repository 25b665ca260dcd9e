/* Statistics against values computed by hand and by published tables. */
#include "host/train/stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Reference: scipy.stats.ttest_ind(a, b, equal_var=False) and its confidence_interval(). */
static void welch_matches_scipy(void **state) {
    (void)state;
    const double a[] = {27.5, 21.0, 19.0, 23.6, 17.0, 17.9}, b[] = {27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0};
    cldsa_comparison c = cldsa_welch(a, 6, b, 8);
    assert_float_equal(c.difference, -2.5, 1e-9);
    assert_float_equal(c.t, -1.4069271288584282, 1e-6);
    assert_float_equal(c.df, 7.046874533683051, 1e-6);
    assert_float_equal(c.p, 0.20198867735345505, 1e-6);
    assert_float_equal(c.ci_low, -6.696094052160207, 1e-6);
    assert_float_equal(c.ci_high, 1.6960940521602073, 1e-6);
}

static void holm_steps_down(void **state) {
    (void)state;
    cldsa_comparison tests[4] = {{.p = 0.01}, {.p = 0.04}, {.p = 0.03}, {.p = 0.005}};
    cldsa_holm(tests, 4);
    assert_float_equal(tests[3].p_holm, 0.02, 1e-12);
    assert_float_equal(tests[0].p_holm, 0.03, 1e-12);
    assert_float_equal(tests[2].p_holm, 0.06, 1e-12);
    assert_float_equal(tests[1].p_holm, 0.06, 1e-12); /* never below a smaller p's */
}

static void few_or_equal_values(void **state) {
    (void)state;
    const double one[] = {1}, same[] = {2, 2}, other[] = {3, 3};
    assert_true(isnan(cldsa_welch(one, 1, same, 2).p));
    assert_true(isnan(cldsa_summarise(one, 1).std));
    assert_true(cldsa_welch(same, 2, same, 2).p == 1);
    assert_true(cldsa_welch(same, 2, other, 2).p == 0);
    cldsa_comparison tests[2] = {cldsa_welch(one, 1, same, 2), {.p = 0.04}};
    cldsa_holm(tests, 2);
    assert_float_equal(tests[1].p_holm, 0.04, 1e-12); /* a family of one */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(welch_matches_scipy),
        cmocka_unit_test(holm_steps_down),
        cmocka_unit_test(few_or_equal_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
