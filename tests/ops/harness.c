/* From a case in a table to host tensors and wanted results; the tests' main function. */
#include "tests/ops/harness_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading the tables' texts --------------------------------------------------------------------------------- */

/* Next item of a list, trimmed, split at '='; false at the end. */
static bool next_item(const char **at, char separator, char key[HARNESS_TEXT], char value[HARNESS_TEXT]) {
    while (**at == ' ' || **at == separator)
        ++*at;
    if (!**at)
        return false;
    const char *end = strchr(*at, separator);
    size_t length = end ? (size_t)(end - *at) : strlen(*at);
    char item[HARNESS_TEXT];
    snprintf(item, sizeof item, "%.*s", (int)length, *at);
    *at += length;
    while (length && item[length - 1] == ' ')
        item[--length] = '\0';
    char *equals = strchr(item, '=');
    snprintf(value, HARNESS_TEXT, "%s", equals ? equals + 1 + strspn(equals + 1, " ") : "");
    if (equals)
        *equals = '\0';
    snprintf(key, HARNESS_TEXT, "%s", item);
    return true;
}

bool harness_option(const char *list, char separator, const char *key, char value[HARNESS_TEXT]) {
    char found[HARNESS_TEXT], content[HARNESS_TEXT];
    for (const char *at = list ? list : ""; next_item(&at, separator, found, content);)
        if (strcmp(found, key) == 0) {
            memcpy(value, content, HARNESS_TEXT);
            return true;
        }
    return false;
}

int harness_field(const cldsa_op *op, const char *name) {
    for (int i = 0; op->fields[i].name; ++i)
        if (strcmp(op->fields[i].name, name) == 0)
            return i;
    return -1;
}

/* Misspelt names in a table must not silently test less. */
static void check_names(const harness_data *data, const char *what, const char *list, char separator, bool tensors) {
    char key[HARNESS_TEXT], value[HARNESS_TEXT];
    for (const char *at = list ? list : ""; next_item(&at, separator, key, value);) {
        int field = harness_field(data->op, key);
        if (strcmp(key, "*") != 0 && (field < 0 || cldsa_field_is_tensor(&data->op->fields[field]) != tensors))
            fail_msg("case \"%s\": .%s names \"%s\", which is no %s of %s", data->test->name, what, key,
                     tensors ? "tensor" : "parameter", data->op->name);
    }
}

int64_t harness_dim(const harness_data *data, const char *name) {
    char value[HARNESS_TEXT];
    if (!harness_option(data->test->dims, ' ', name, value))
        fail_msg("case \"%s\": .dims does not give \"%s\"", data->test->name, name);
    return strtoll(value, NULL, 10);
}

double harness_operand(const harness_data *data, const char *text) {
    char *end;
    double number = strtod(text, &end);
    if (end != text && *end == '\0')
        return number;
    char name[HARNESS_TEXT];
    size_t length = strcspn(text, "+-");
    snprintf(name, sizeof name, "%.*s", (int)length, text);
    return (double)harness_dim(data, name) + (text[length] ? strtod(text + length, NULL) : 0);
}

/* ---- the args struct and host tensors -------------------------------------------------------------------------- */

static void set_parameters(harness_data *data) {
    char key[HARNESS_TEXT], value[HARNESS_TEXT];
    for (const char *at = data->test->params ? data->test->params : ""; next_item(&at, ' ', key, value);) {
        const cldsa_field *field = &data->op->fields[harness_field(data->op, key)];
        double number = -1;
        if (field->kind == CLDSA_FIELD_ENUM) {
            for (int i = 0; field->names[i]; ++i)
                if (strcmp(field->names[i], value) == 0)
                    number = i;
        } else {
            number = harness_operand(data, value);
        }
        /* An out-of-range value may be what the case is about: then it goes in unchecked, as a caller would put it. */
        if (cldsa_field_set(data->op, field, data->args, number) != CLDSA_SUCCESS) {
            void *place = (char *)data->args + field->at;
            if (!data->test->expect)
                fail_msg("case \"%s\": %s", data->test->name, cldsa_error_message());
            else if (field->kind == CLDSA_FIELD_FLOAT)
                *(float *)place = (float)number;
            else if (field->kind == CLDSA_FIELD_I64)
                *(int64_t *)place = (int64_t)number;
            else
                *(int *)place = (int)number;
        }
    }
}

static cldsa_dtype dtype_of(const harness_data *data, const cldsa_field *field) {
    static const cldsa_dtype preference[] = {CLDSA_F32, CLDSA_I32, CLDSA_U8, CLDSA_U32, CLDSA_F16, CLDSA_BF16};
    char name[HARNESS_TEXT];
    if (harness_option(data->test->dtypes, ' ', field->name, name)) {
        for (int i = 0; i < CLDSA_NUM_DTYPES; ++i)
            if (strcmp(cldsa_dtype_name((cldsa_dtype)i), name) == 0)
                return (cldsa_dtype)i;
        fail_msg("case \"%s\": \"%s\" is no dtype (F32 F16 BF16 I32 U8 U32)", data->test->name, name);
    }
    for (size_t i = 0; i < sizeof preference / sizeof preference[0]; ++i)
        if (field->dtypes & CLDSA_ACCEPT(preference[i]))
            return preference[i];
    return CLDSA_F32;
}

static bool is_given(const harness_data *data, const cldsa_field *field) {
    char value[HARNESS_TEXT];
    return !field->optional || harness_option(data->test->give, ' ', field->name, value) ||
           harness_option(data->test->give, ' ', "*", value);
}

/* The first alternative of the table's rule, or the case's own shape. */
static void set_shape(const harness_data *data, const cldsa_field *field, cldsa_host_tensor *tensor) {
    char rule[HARNESS_TEXT];
    if (!harness_option(data->test->shapes, ';', field->name, rule)) {
        if (!field->shape)
            fail_msg("case \"%s\": %s has no rule in the table; .shapes must give its shape", data->test->name,
                     field->name);
        snprintf(rule, sizeof rule, "%.*s", (int)strcspn(field->shape, "|"), field->shape);
    }
    char *rest = NULL;
    for (char *word = strtok_r(rule, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        bool packed = *word == '#';
        word += packed;
        word[strcspn(word, "*")] = '\0';
        int64_t extent = (int64_t)harness_operand(data, word);
        tensor->shape[tensor->rank++] = packed && tensor->dtype == CLDSA_U32 ? (extent + 31) / 32 : extent;
    }
}

static void make_tensor(harness_data *data, int index) {
    const cldsa_field *field = &data->op->fields[index];
    cldsa_host_tensor *tensor = &data->tensors[index];
    tensor->dtype = dtype_of(data, field);
    set_shape(data, field, tensor);
    int64_t numel = harness_numel(tensor);
    tensor->data = calloc((size_t)(numel > 0 ? numel : 1), sizeof(double));
    assert_non_null(tensor->data);
    data->given[index] = true;
    cldsa_tensor *view = cldsa_field_tensor(data->args, field);
    view->dtype = tensor->dtype;
    view->rank = tensor->rank;
    memcpy(view->shape, tensor->shape, sizeof view->shape);
}

cldsa_host_tensor *harness_tensor(harness_data *data, const char *field) {
    int index = harness_field(data->op, field);
    if (index < 0 || !data->given[index])
        fail_msg("case \"%s\": no tensor \"%s\" is given", data->test->name, field);
    return &data->tensors[index];
}

int64_t harness_numel(const cldsa_host_tensor *tensor) {
    return cldsa_host_numel(tensor);
}

/* Keeps the storage form and makes the host's values equal to it. */
static void store(harness_data *data, int index) {
    cldsa_host_tensor *tensor = &data->tensors[index];
    int64_t numel = harness_numel(tensor);
    free(data->raw[index]);
    data->raw[index] = malloc((size_t)numel * cldsa_dtype_size(tensor->dtype));
    assert_non_null(data->raw[index]);
    cldsa_pack(tensor->dtype, tensor->data, numel, data->raw[index]);
    cldsa_unpack(tensor->dtype, data->raw[index], numel, tensor->data);
}

static void set_alias(harness_data *data) {
    char key[HARNESS_TEXT], value[HARNESS_TEXT];
    for (const char *at = data->test->alias ? data->test->alias : ""; next_item(&at, ' ', key, value);)
        data->alias[harness_field(data->op, key)] = harness_field(data->op, value);
}

static void build(harness_data *data) {
    const harness_case *test = data->test;
    check_names(data, "params", test->params, ' ', false);
    check_names(data, "give", test->give, ' ', true);
    check_names(data, "dtypes", test->dtypes, ' ', true);
    check_names(data, "shapes", test->shapes, ';', true);
    check_names(data, "fill", test->fill, ';', true);
    check_names(data, "alias", test->alias, ' ', true);
    data->args = calloc(1, data->op->args_size);
    assert_non_null(data->args);
    cldsa_op_default_args(data->op, data->args);
    set_parameters(data);
    for (int i = 0; i < CLDSA_MAX_FIELDS; ++i)
        data->alias[i] = -1;
    for (int i = 0; data->op->fields[i].name; ++i, ++data->num_fields)
        if (cldsa_field_is_tensor(&data->op->fields[i]) && is_given(data, &data->op->fields[i]))
            make_tensor(data, i);
    set_alias(data);
    for (int i = 0; i < data->num_fields; ++i) {
        bool from_forward =
            data->suite->forward && harness_field(data->suite->forward, data->op->fields[i].name) >= 0 &&
            harness_is_output(
                &data->suite->forward->fields[harness_field(data->suite->forward, data->op->fields[i].name)]);
        if (data->given[i] && harness_is_input(&data->op->fields[i]) && !from_forward)
            harness_fill(data, i);
    }
    if (test->prepare)
        test->prepare(data);
}

/* ---- the reference ------------------------------------------------------------------------------------------- */

void harness_untouch(double *values, int64_t n) {
    uint64_t bits = HARNESS_UNTOUCHED;
    for (int64_t i = 0; i < n; ++i)
        memcpy(&values[i], &bits, sizeof bits);
}

bool harness_is_untouched(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits == HARNESS_UNTOUCHED;
}

static void compute_wanted(harness_data *data) {
    for (int i = 0; i < data->num_fields; ++i)
        if (data->given[i] && harness_is_input(&data->op->fields[i]))
            store(data, i);
    cldsa_run run = {.op = data->op, .args = data->args};
    if (cldsa_bind_args(&run, false) != CLDSA_SUCCESS)
        fail_msg("case \"%s\": %s", data->test->name, cldsa_error_message());
    memcpy(data->dims, run.dims, sizeof data->dims);
    if (data->suite->forward) {
        harness_forward_outputs(data);
        for (int i = 0; i < data->num_fields; ++i)
            if (data->unrounded[i])
                store(data, i);
    }
    for (int i = 0; i < data->num_fields; ++i)
        if (data->given[i] && data->op->fields[i].kind == CLDSA_FIELD_OUT)
            harness_untouch(data->tensors[i].data, harness_numel(&data->tensors[i]));
    if (!data->op->reference)
        fail_msg("%s has no reference", data->op->name);
    data->op->reference(&(cldsa_reference_call){data->args, data->dims, data->tensors});
}

/* ---- tests --------------------------------------------------------------------------------------------------- */

void harness_failed(harness_data *data, const char *format, ...) {
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    print_error("%s: %s: %s\n", data->op->name, data->test->name, text);
    ++data->failures;
}

static void release(harness_data *data) {
    for (int i = 0; i < data->num_fields; ++i) {
        free(data->tensors[i].data);
        free(data->raw[i]);
        free(data->unrounded[i]);
    }
    free(data->args);
}

typedef struct test_state {
    const harness_suite *suite;
    int index;
} test_state;

static void run_case(void **state) {
    const test_state *which = *state;
    harness_data data = {.suite = which->suite,
                         .test = &which->suite->cases[which->index],
                         .op = which->suite->op,
                         .index = which->index};
    build(&data);
    if (data.test->expect) {
        for (int i = 0; i < data.num_fields; ++i)
            if (data.given[i] && harness_is_input(&data.op->fields[i]))
                store(&data, i);
    } else {
        compute_wanted(&data);
        if (data.suite->forward && !data.test->no_differences)
            harness_check_differences(&data);
    }
    harness_run_device(&data);
    int failures = data.failures;
    release(&data);
    if (failures)
        fail_msg("%d comparisons failed", failures);
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
            states[at] = (test_state){&suites[s], (int)c};
            tests[at] = (struct CMUnitTest){.name = strdup(name), .test_func = run_case, .initial_state = &states[at]};
        }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int failed = _cmocka_run_group_tests(num_suites ? suites[0].op->name : "none", tests, count, NULL, NULL);
    for (size_t i = 0; i < count; ++i)
        free((void *)tests[i].name);
    free(tests);
    free(states);
    harness_release_device();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
