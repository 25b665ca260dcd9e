/* Extents that the command line gives, in place of a preset's. */
#include "bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cldsa_status bench_parse_extents(const char *list, char out[BENCH_TEXT]) {
    const size_t length = strlen(list);
    if (length == 0 || length >= BENCH_TEXT)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "extents are NAME=NUMBER,...: 1 to %d characters", BENCH_TEXT - 1);
    for (size_t i = 0; i <= length; ++i)
        out[i] = list[i] == ',' ? ' ' : list[i];
    for (const char *at = out + strspn(out, " "); *at; at += strspn(at, " ")) {
        long long value = 0;
        int used = 0;
        if (sscanf(at, "%*[^= ]=%lld%n", &value, &used) != 1 || value < 1 || (at[used] && at[used] != ' '))
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %.*s is not NAME=NUMBER with a number from 1 on", list,
                              (int)strcspn(at, " "), at);
        at += used;
    }
    return CLDSA_SUCCESS;
}

cldsa_status bench_check_extents(const char *op, const char *dims, const char *extents) {
    char value[CLDSA_WORKLOAD_TEXT], name[32];
    for (const char *at = extents ? extents : ""; *at; at += strspn(at, " ")) {
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, "="), at);
        if (!cldsa_workload_option(dims, ' ', name, value))
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s has no extent \"%s\" here; it has %s", op, name, dims);
        at += strcspn(at, " ");
    }
    return CLDSA_SUCCESS;
}

/*
 * `dims` with the extents that `extents` names changed. For the smaller extents of a check, `same` gives the case's
 * own: only extents that are not made smaller there follow, and those that become smaller still, as some variants are
 * for few rows only.
 */
static void replace(const char *dims, const char *extents, const char *same, char out[BENCH_TEXT]) {
    size_t used = 0;
    *out = '\0';
    for (const char *at = dims; *at && used < BENCH_TEXT; at += strspn(at, " ")) {
        char name[32], value[CLDSA_WORKLOAD_TEXT], own[CLDSA_WORKLOAD_TEXT], here[CLDSA_WORKLOAD_TEXT];
        size_t word = strcspn(at, " ");
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, "="), at);
        snprintf(here, sizeof here, "%.*s", (int)(word - strlen(name) - 1), at + strlen(name) + 1);
        bool follows = !same || (cldsa_workload_option(same, ' ', name, own) && strcmp(own, here) == 0);
        bool replaced =
            extents && cldsa_workload_option(extents, ' ', name, value) && (follows || atoll(value) < atoll(here));
        used +=
            (size_t)snprintf(out + used, BENCH_TEXT - used, "%s%s=%s", used ? " " : "", name, replaced ? value : here);
        at += word;
    }
}

void bench_replace_extents(const bench_case *test, const char *extents, char dims[BENCH_TEXT],
                           char check_dims[BENCH_TEXT]) {
    replace(test->spec.dims, extents, NULL, dims);
    replace(test->check_dims ? test->check_dims : test->spec.dims, extents, test->spec.dims, check_dims);
}
