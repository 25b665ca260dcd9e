/* The tuner's cases, spaces and strategies, on made-up times. */
#include "autotune/session.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool not_both_large(const void *user, const int *values) {
    (void)user;
    return values[0] * values[1] <= 64;
}

/* A 5, of {2, 8, 32}, is not among the values: the default takes its place. */
static tuner_space make_space(void) {
    tuner_space space = {.variant = "simt"};
    tuner_space_tunable(&space, "A", (const int[]){1, 2, 4, 8, 16, 32, 0}, 0, 4);
    tuner_space_tunable(&space, "B", (const int[]){2, 8, 32, 0}, 0, 5);
    tuner_space_tunable(&space, "C", (const int[]){0, 1}, 2, 1);
    assert_int_equal(tuner_space_enumerate(&space, (const int[]){4, 5, 1}, not_both_large, NULL), CLDSA_SUCCESS);
    return space;
}

static void spaces_hold_what_is_legal(void **state) {
    (void)state;
    tuner_space space = make_space(), copy;
    char text[TUNER_TEXT];
    size_t wanted = 0;
    const int b[] = {2, 5, 8, 32};
    for (int i = 1; i <= 32; i *= 2)
        for (int j = 0; j < 4; ++j)
            wanted += i * b[j] <= 64 ? 2 : 0;
    assert_int_equal(space.count, wanted);
    tuner_space_text(&space, space.fallback, text);
    assert_string_equal(text, "A=4,B=5,C=1");
    assert_int_equal(tuner_space_find(&space, "A=32,B=32,C=0"), space.count);
    size_t a = tuner_space_find(&space, "A=4,B=8,C=0");
    assert_true(a < space.count);
    assert_int_equal(tuner_space_distance(&space, a, space.fallback), 2);
    cJSON *json = tuner_space_json(&space);
    assert_int_equal(tuner_space_parse(json, &copy), CLDSA_SUCCESS);
    assert_int_equal(copy.count, space.count);
    assert_int_equal(copy.fallback, space.fallback);
    assert_int_equal(tuner_space_find(&copy, "A=4,B=8,C=0"), a);
    cJSON_Delete(json);
    tuner_space_free(&copy);
    tuner_space_free(&space);
}

/* One valley: fastest where A is 8 and B is 8; C fails where it is 0 and A is 1. */
static double made_up(const tuner_space *space, size_t candidate) {
    int a, b, c;
    char text[TUNER_TEXT];
    tuner_space_text(space, candidate, text);
    assert_int_equal(sscanf(text, "A=%d,B=%d,C=%d", &a, &b, &c), 3);
    if (a == 1 && c == 0)
        return INFINITY;
    return 1 + fabs(log2(a / 8.0)) + fabs(log2(b / 8.0)) + 0.1 * c;
}

/* Candidates tried until the best one is found, beginning at the default; all are tried once. */
static size_t trials_to_best(tuner_strategy strategy, unsigned long seed) {
    tuner_space space = make_space();
    tuner_search search;
    size_t candidate = space.fallback, found = 0, tried = 0;
    const size_t best = tuner_space_find(&space, "A=8,B=8,C=0");
    assert_int_equal(tuner_search_begin(&space, strategy, seed, &search), CLDSA_SUCCESS);
    do {
        assert_true(isnan(search.seconds[candidate]));
        tuner_search_tell(&search, candidate, made_up(&space, candidate));
        ++tried;
        if (candidate == best)
            found = tried;
        search.done = (double)tried / (double)space.count;
    } while (tuner_search_next(&search, &candidate));
    assert_int_equal(tried, space.count);
    assert_int_equal(search.best, best);
    tuner_search_end(&search);
    tuner_space_free(&space);
    return found;
}

/* Asked for several at a time, a strategy proposes none twice, tries all, and finds the same best. */
static void batches_lose_nothing(void **state) {
    (void)state;
    enum { BATCH = 5 };
    for (int strategy = TUNER_AUTO; strategy <= TUNER_ANNEAL; ++strategy) {
        tuner_space space = make_space();
        tuner_search search;
        size_t batch[BATCH], tried = 1, count;
        assert_int_equal(tuner_search_begin(&space, (tuner_strategy)strategy, 3, &search), CLDSA_SUCCESS);
        tuner_search_tell(&search, space.fallback, made_up(&space, space.fallback));
        do {
            for (count = 0; count < BATCH && tuner_search_next(&search, &batch[count]); ++count) {
                assert_true(isnan(search.seconds[batch[count]]));
                for (size_t i = 0; i < count; ++i)
                    assert_int_not_equal(batch[i], batch[count]);
            }
            for (size_t i = 0; i < count; ++i)
                tuner_search_tell(&search, batch[i], made_up(&space, batch[i]));
            tried += count;
        } while (count);
        assert_int_equal(tried, space.count);
        assert_int_equal(search.best, tuner_space_find(&space, "A=8,B=8,C=0"));
        tuner_search_end(&search);
        tuner_space_free(&space);
    }
}

static void strategies_find_the_best(void **state) {
    (void)state;
    size_t total[TUNER_ANNEAL + 1] = {0};
    for (int strategy = TUNER_AUTO; strategy <= TUNER_ANNEAL; ++strategy)
        for (unsigned long seed = 1; seed <= 40; ++seed)
            total[strategy] += trials_to_best((tuner_strategy)strategy, seed);
    /* Going downhill beats drawing lots. */
    assert_true(total[TUNER_LOCAL] * 3 < total[TUNER_RANDOM] * 2);
    assert_true(total[TUNER_ANNEAL] < total[TUNER_RANDOM]);
    assert_int_equal(trials_to_best(TUNER_ANNEAL, 7), trials_to_best(TUNER_ANNEAL, 7));
}

/* Rounds of these medians; at its best each is a tenth faster. */
static tuner_rounds rounds_of(const double *medians, size_t count) {
    tuner_rounds out = {0};
    for (size_t i = 0; i < count; ++i)
        tuner_rounds_add(&out, &(tuner_result){.seconds = medians[i], .p10 = 0.9 * medians[i]});
    return out;
}

static void assert_faster(bool wanted, const double *a, const double *b, size_t count) {
    tuner_rounds x = rounds_of(a, count), y = rounds_of(b, count);
    assert_int_equal(tuner_clearly_faster(&x, &y), wanted);
    assert_false(tuner_clearly_faster(&y, &x) && wanted);
    tuner_rounds_free(&x);
    tuner_rounds_free(&y);
}

static void a_default_stays_unless_clearly_beaten(void **state) {
    (void)state;
    const double standard[] = {1.0, 1.1, 1.2, 1.0, 1.1, 1.0, 1.1, 1.2, 1.0};
    const double close[] = {0.99, 1.09, 1.19, 0.99, 1.09, 0.99, 1.09, 1.19, 0.99};
    const double lucky[] = {0.5, 0.5, 0.5, 1.2, 1.3, 0.5, 0.5, 0.5, 0.5};
    const double faster[] = {0.9, 0.95, 0.9, 1.01, 0.9, 0.9, 0.9, 0.9, 0.9};
    const double busy[] = {1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0};
    assert_faster(false, close, standard, 9); /* by 1 % */
    assert_faster(false, lucky, standard, 9); /* not in two rounds of nine */
    assert_faster(true, lucky, standard, 3);
    assert_faster(true, faster, standard, 9);  /* but one */
    assert_faster(false, faster, standard, 5); /* one of five is too many */
    assert_faster(false, standard, busy, 9);   /* whose best round is as good */
    assert_faster(false, standard, standard, 9);
    tuner_rounds none = {0};
    assert_false(tuner_clearly_faster(&none, &none));
}

static void odd_extents_keep_what_ties_them(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"S=64 T=64 D=32", "S=63 T=63 D=32", "S=65 T=65 D=32"},
        {"Z=1 M=8 N=34 K=8", "Z=1 M=7 N=33 K=8", "Z=1 M=9 N=35 K=8"},       /* 9 are not few rows any more */
        {"N=64 R=128 E=8", "N=63 R=126 E=8", "N=65 R=130 E=8"},             /* two choices each */
        {"R=512 T=64 B=8", "R=504 T=63 B=8", "R=520 T=65 B=8"},             /* rows of 8 sequences */
        {"R=9 T=64 B=8", "R=9 T=63 B=8", "R=9 T=65 B=8"},                   /* not evenly */
        {"B=8 S=64 P=2048", "B=8 S=63 P=2047", "B=8 S=65 P=2049"},          /* positions */
        {"S=2 P=32 W=48 V=16", "S=1 P=32 W=48 V=16", "S=3 P=32 W=48 V=16"}, /* part of a width */
        {"D=32 Hk=8", "D=32 Hk=8", "D=32 Hk=8"},
        {"", "", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        char odd[TUNER_TEXT];
        tuner_odd_dims(cases[i][0], -1, odd);
        assert_string_equal(odd, cases[i][1]);
        tuner_odd_dims(cases[i][0], 1, odd);
        assert_string_equal(odd, cases[i][2]);
    }
}

/* What one call shows of a variant counts for those like it, less with every doubling, and for no other operation. */
static void variants_far_behind_are_remembered(void **state) {
    (void)state;
    assert_float_equal(tuner_doublings("R=64 T=1024", "R=16 T=2048"), 3, 1e-12);
    assert_true(isinf(tuner_doublings("R=64 T=1024", "R=64")));
    tuner_log log = {.records = cJSON_CreateArray()};
    tuner_case here = {.op = "topk", .dims = "R=64 T=1024"}, near = {.op = "topk", .dims = "R=128 T=1024"},
               away = {.op = "topk", .dims = "R=4 T=1024"}, other = {.op = "select", .dims = "R=64 T=1024"};
    tuner_session session = {.log = &log, .now = &here, .default_seconds = 1e-3};
    tuner_note_behind(&session, "radix", 2e-3);
    tuner_note_behind(&session, "broken", INFINITY);
    assert_int_equal(cJSON_GetArraySize(log.records), 0);
    tuner_note_behind(&session, "bitonic", 8e-3);
    assert_true(tuner_is_behind(&session, "bitonic"));
    assert_false(tuner_is_behind(&session, "radix"));
    session.now = &near;
    assert_true(tuner_is_behind(&session, "bitonic"));
    session.now = &away;
    assert_false(tuner_is_behind(&session, "bitonic"));
    session.now = &other;
    assert_false(tuner_is_behind(&session, "bitonic"));
    cJSON_Delete(log.records);
}

/* Extents of the command line, and what candidates are checked at: odd ones, but few rows where few are tuned, as some
 * variants are for few rows only. */
static void named_extents_reach_the_check(void **state) {
    (void)state;
    static const bench_case products[] = {
        {.op = "gemm", .spec = {.dims = "M=1024 N=1024 K=1024"}, .check_dims = "M=203 N=187 K=1024"}};
    static const bench_preset made_up_preset = {.name = "made up", .cases = products, .count = 1};
    static const struct {
        const char *named, *dims, *check_dims;
    } expected[] = {
        {NULL, "M=1024 N=1024 K=1024", "M=203 N=187 K=1024"},
        {"M=1536 N=4 K=512", "M=1536 N=4 K=512", "M=203 N=4 K=512"}, /* K is the case's own: it follows */
        {"N=187", "M=1024 N=187 K=1024", "M=203 N=187 K=1024"},
        {"N=188", "M=1024 N=188 K=1024", "M=203 N=187 K=1024"},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; ++i) {
        const bench_preset *presets[] = {&made_up_preset};
        tuner_case *cases;
        int count;
        assert_int_equal(
            tuner_list_cases(&(tuner_options){.presets = presets, .num_presets = 1, .dims = expected[i].named}, &cases,
                             &count),
            CLDSA_SUCCESS);
        assert_int_equal(count, 1);
        assert_string_equal(cases[0].dims, expected[i].dims);
        assert_string_equal(cases[0].check_dims, expected[i].check_dims);
        free(cases);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spaces_hold_what_is_legal),
        cmocka_unit_test(strategies_find_the_best),
        cmocka_unit_test(batches_lose_nothing),
        cmocka_unit_test(a_default_stays_unless_clearly_beaten),
        cmocka_unit_test(odd_extents_keep_what_ties_them),
        cmocka_unit_test(variants_far_behind_are_remembered),
        cmocka_unit_test(named_extents_reach_the_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
