/* From a case in a table to a workload; the tests' main function. */
#include "tests/ops/harness_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- for prepare hooks ----------------------------------------------------------------------------------------- */

/* Fills of prepare hooks must not repeat those of fields. */
enum { HOOK_STREAMS = 1000 };

int64_t harness_dim(const harness_data *data, const char *name) {
    int64_t value = 0;
    if (!cldsa_workload_dim(&data->work, name, &value))
        fail_msg("case \"%s\": %s", data->test->name, cldsa_error_message());
    return value;
}

cldsa_host_tensor *harness_tensor(harness_data *data, const char *field) {
    int index = cldsa_op_field(data->work.op, field);
    if (index < 0 || !data->work.given[index])
        fail_msg("case \"%s\": no tensor \"%s\" is given", data->test->name, field);
    return &data->work.tensors[index];
}

int64_t harness_numel(const cldsa_host_tensor *tensor) {
    return cldsa_host_numel(tensor);
}

double harness_uniform(const harness_data *data, uint32_t stream, uint64_t e) {
    return cldsa_workload_uniform(&data->work, HOOK_STREAMS + stream, e);
}

double harness_normal(const harness_data *data, uint32_t stream, uint64_t e) {
    return cldsa_workload_normal(&data->work, HOOK_STREAMS + stream, e);
}

/* ---- from a case to wanted results ------------------------------------------------------------------------------- */

static void need(const harness_data *data, cldsa_status status) {
    if (status != CLDSA_SUCCESS)
        fail_msg("case \"%s\": %s", data->test->name, cldsa_error_message());
}

/* ".alias": pairs "out=in" separated by blanks. */
static void set_alias(harness_data *data) {
    for (int i = 0; i < CLDSA_MAX_FIELDS; ++i)
        data->alias[i] = -1;
    for (int i = 0; i < data->work.num_fields; ++i) {
        char target[HARNESS_TEXT];
        if (cldsa_workload_option(data->test->alias, ' ', data->work.op->fields[i].name, target))
            data->alias[i] = cldsa_op_field(data->work.op, target);
    }
}

static void build(harness_data *data) {
    const harness_case *test = data->test;
    const cldsa_workload_spec spec = {.dims = test->dims,
                                      .params = test->params,
                                      .give = test->give,
                                      .dtypes = test->dtypes,
                                      .shapes = test->shapes,
                                      .fill = test->fill,
                                      .forward = data->suite->forward,
                                      .unchecked = test->expect != CLDSA_SUCCESS,
                                      .leave_blank = test->prepare != NULL};
    need(data, cldsa_workload_make(data->suite->op, &spec, 0x5eed0000u + (uint64_t)data->index, &data->work));
    set_alias(data);
    if (test->prepare)
        test->prepare(data);
    need(data, cldsa_workload_store(&data->work));
}

/* ---- tests --------------------------------------------------------------------------------------------------- */

void harness_failed(harness_data *data, const char *format, ...) {
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    print_error("%s: %s: %s\n", data->work.op->name, data->test->name, text);
    ++data->failures;
}

double harness_work_limit(void) {
    const char *limit = getenv("CLDSA_TEST_WORK");
    return limit ? strtod(limit, NULL) : 0;
}

/* Arithmetic operations and elements of the case. */
static double work_of(const harness_data *data) {
    const cldsa_op *op = data->work.op;
    cldsa_run run = {.op = op, .args = data->work.args};
    memcpy(run.dims, data->work.dims, sizeof run.dims);
    double work = op->flops ? op->flops(&run) : 0;
    for (int i = 0; i < data->work.num_fields; ++i)
        if (data->work.given[i])
            work += (double)harness_numel(&data->work.tensors[i]);
    return work;
}

typedef struct test_state {
    const harness_suite *suite;
    int index;
    bool left_out; /* as too large */
} test_state;

static void check_finite(harness_data *data) {
    for (int i = 0; i < data->work.num_fields; ++i) {
        const cldsa_host_tensor *want = &data->work.tensors[i];
        if (!data->work.given[i] || !cldsa_field_is_output(&data->work.op->fields[i]))
            continue;
        for (int64_t e = 0; e < harness_numel(want); ++e)
            if (!isfinite(want->data[e])) {
                harness_failed(data, "the reference wants %s[%lld] to be %g", data->work.op->fields[i].name,
                               (long long)e, want->data[e]);
                break;
            }
    }
}

static void run_case(void **state) {
    test_state *which = *state;
    harness_data data = {.suite = which->suite, .test = &which->suite->cases[which->index], .index = which->index};
    double limit = harness_work_limit();
    build(&data);
    which->left_out = limit > 0 && (data.test->expect || work_of(&data) > limit);
    if (which->left_out) {
        cldsa_workload_free(&data.work);
        skip();
    }
    if (!data.test->expect) {
        need(&data, cldsa_workload_reference(&data.work));
        if (data.test->finite)
            check_finite(&data);
        if (data.suite->forward && !data.test->no_differences && limit == 0)
            harness_check_differences(&data);
    }
    harness_run_device(&data);
    int failures = data.failures;
    cldsa_workload_free(&data.work);
    if (failures)
        fail_msg("%d comparisons failed", failures);
}

/* With a limit on the work: every operation must have a case within it, in one of its suites. */
static int count_untried(const harness_suite *suites, size_t num_suites, const test_state *states, size_t num_states) {
    int untried = 0;
    for (size_t s = 0; s < num_suites && harness_work_limit() > 0; ++s) {
        bool tried = false;
        for (size_t i = 0; i < num_states; ++i)
            tried = tried || (states[i].suite->op == suites[s].op && !states[i].left_out);
        if (!tried)
            print_error("%s has no case within CLDSA_TEST_WORK: add a small one\n", suites[s].op->name);
        untried += !tried;
    }
    return untried;
}

int harness_main(const harness_suite *suites, size_t num_suites, int argc, char **argv) {
    size_t count = 0, at = 0;
    for (size_t s = 0; s < num_suites; ++s)
        count += suites[s].num_cases;
    struct CMUnitTest *tests = calloc(count ? count : 1, sizeof *tests);
    test_state *states = calloc(count ? count : 1, sizeof *states);
    if (!tests || !states)
        return EXIT_FAILURE;
    for (size_t s = 0; s < num_suites; ++s)
        for (size_t c = 0; c < suites[s].num_cases; ++c, ++at) {
            char name[HARNESS_TEXT];
            snprintf(name, sizeof name, "%s: %s", suites[s].op->name, suites[s].cases[c].name);
            states[at] = (test_state){.suite = &suites[s], .index = (int)c};
            tests[at] = (struct CMUnitTest){.name = strdup(name), .test_func = run_case, .initial_state = &states[at]};
        }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int failed = _cmocka_run_group_tests(num_suites ? suites[0].op->name : "none", tests, count, NULL, NULL);
    if (argc <= 1)
        failed += count_untried(suites, num_suites, states, count);
    for (size_t i = 0; i < count; ++i)
        free((void *)tests[i].name);
    free(tests);
    free(states);
    harness_release_device();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
