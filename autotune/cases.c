/* Which calls are tuned: the presets' cases, those first from which others take over. */
#include "autotune/session.h"

#include <stdlib.h>
#include <string.h>

/* Cases of one kind whose extents differ by one common factor up to this share a search. */
static const double common_factor = 8;

bool tuner_wants(const tuner_options *options, const char *op) {
    for (size_t i = 0; i < options->num_ops; ++i)
        if (strcmp(options->ops[i], op) == 0)
            return true;
    return options->num_ops == 0;
}

static void make_case(const tuner_options *options, const bench_preset *preset, int index, tuner_case *out) {
    const bench_case *test = &preset->cases[index];
    const char *const words[] = {test->spec.params, test->spec.give, test->spec.dtypes};
    *out = (tuner_case){.preset = preset, .index = index, .op = test->op};
    bench_replace_extents(test, options->dims, out->dims, out->check_dims);
    size_t used = 0;
    for (int i = 0; i < 3; ++i)
        if (words[i] && used < sizeof out->kind)
            used +=
                (size_t)snprintf(out->kind + used, sizeof out->kind - used, " %s", words[i] + strspn(words[i], " "));
    snprintf(out->label, sizeof out->label, "%s %s%s", test->op, out->dims, out->kind);
}

/* Presets share cases, and one shape per operation is enough where the command line gives it. */
static bool is_new(const tuner_options *options, const tuner_case *cases, int count, const tuner_case *test) {
    for (int i = 0; i < count; ++i)
        if (strcmp(cases[i].label, test->label) == 0 || (options->dims && strcmp(cases[i].op, test->op) == 0))
            return false;
    return true;
}

/* The factor by which all extents that differ are larger than the other's; 0 if there is no such factor. */
static double factor_over(const tuner_case *test, const tuner_case *other) {
    double factor = 1;
    for (const char *at = test->dims; *at; at += strspn(at, " ")) {
        char name[32], value[CLDSA_WORKLOAD_TEXT];
        size_t length = strcspn(at, "=");
        snprintf(name, sizeof name, "%.*s", (int)length, at);
        if (!cldsa_workload_option(other->dims, ' ', name, value))
            return 0;
        double ratio = atof(at + length + 1) / atof(value);
        if (ratio != 1 && factor != 1 && ratio != factor)
            return 0;
        factor = ratio != 1 ? ratio : factor;
        at += strcspn(at, " ");
    }
    return factor;
}

/* Whether a larger case of the same kind is searched, whose winners will do as candidates here. */
static bool has_leader(const tuner_case *cases, int count, const tuner_case *test) {
    for (int i = 0; i < count; ++i) {
        double factor = factor_over(&cases[i], test);
        if (strcmp(cases[i].op, test->op) == 0 && strcmp(cases[i].kind, test->kind) == 0 && factor > 1 &&
            factor <= common_factor)
            return true;
    }
    return false;
}

/* All extents multiplied: near enough to what a call costs, for an order. */
static double size_of(const tuner_case *test) {
    double size = 1;
    for (const char *at = strchr(test->dims, '='); at; at = strchr(at + 1, '='))
        size *= atof(at + 1);
    return size;
}

static int leaders_then_size(const void *a, const void *b) {
    const tuner_case *x = a, *y = b;
    if (x->follows != y->follows)
        return x->follows - y->follows;
    double of_x = size_of(x), of_y = size_of(y);
    return of_x != of_y ? (of_x < of_y) - (of_x > of_y) : strcmp(x->label, y->label);
}

/* Leaders before their followers, large before small: if time runs out, it was spent on what takes the most. */
static void order_cases(tuner_case *cases, int count) {
    for (int i = 0; i < count; ++i)
        cases[i].follows = has_leader(cases, count, &cases[i]);
    qsort(cases, (size_t)count, sizeof *cases, leaders_then_size);
}

static cldsa_status append_cases(const tuner_options *options, const bench_preset *preset, tuner_case *cases,
                                 int *count) {
    for (size_t i = 0; i < preset->count && *count < TUNER_MAX_CASES; ++i) {
        if (!tuner_wants(options, preset->cases[i].op))
            continue;
        make_case(options, preset, (int)i, &cases[*count]);
        CLDSA_TRY(bench_check_extents(cases[*count].op, cases[*count].dims, options->dims));
        *count += is_new(options, cases, *count, &cases[*count]);
    }
    return CLDSA_SUCCESS;
}

cldsa_status tuner_list_cases(const tuner_options *options, tuner_case **out, int *count) {
    tuner_case *cases = calloc(TUNER_MAX_CASES, sizeof *cases);
    if (!cases)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for the list of cases");
    cldsa_status status = CLDSA_SUCCESS;
    *count = 0;
    for (size_t p = 0; p < options->num_presets && status == CLDSA_SUCCESS; ++p)
        status = append_cases(options, options->presets[p], cases, count);
    if (status != CLDSA_SUCCESS) {
        free(cases);
        return status;
    }
    order_cases(cases, *count);
    *out = cases;
    return CLDSA_SUCCESS;
}

/* CLBlast has one set of parameters for all shapes: they are not fitted to thin ones. */
static const long long least_product = 256;

/* CLBlast's products are of single precision. */
static bool only_floats(const char *dtypes) {
    return !dtypes || !strstr(dtypes, "16");
}

/* The largest plain product among the presets, whether products are tuned themselves or not. */
bool tuner_find_product(const tuner_options *options, tuner_case *out) {
    double most = 0;
    for (size_t p = 0; p < options->num_presets; ++p)
        for (size_t i = 0; i < options->presets[p]->count; ++i) {
            const bench_case *test = &options->presets[p]->cases[i];
            long long m, n, k;
            const bool plain = strcmp(test->op, "gemm") == 0 && !test->spec.give && only_floats(test->spec.dtypes);
            if (!plain || sscanf(test->spec.dims, "M=%lld N=%lld K=%lld", &m, &n, &k) != 3 || m < least_product ||
                n < least_product || k < least_product || (double)m * (double)n * (double)k <= most)
                continue;
            most = (double)m * (double)n * (double)k;
            make_case(options, options->presets[p], (int)i, out);
        }
    return most > 0;
}
