/* The checks of candidates: a case placed at small and at odd extents, run, and compared with its fp64 reference. */
#include "autotune/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- odd extents ------------------------------------------------------------------------------------------------- */

/* An extent of these; 0 if there is none of that name. */
static long long extent_of(const char *dims, const char *name) {
    char text[CLDSA_WORKLOAD_TEXT];
    return cldsa_workload_option(dims, ' ', name, text) ? atoll(text) : 0;
}

/* Extents along which kernels loop or launch; the others shape the kernels themselves, and stay. */
static bool may_be_odd(const char *dims, const char *name, size_t length) {
    if (*name == 'P' && extent_of(dims, "W")) /* part of a width W, not positions */
        return false;
    return length == 1 && strchr("MNPRST", *name);
}

static long long odd_of(long long value, int step) {
    return value % 2 || value == 0 ? value : value + step;
}

/* Rows R are choices of tokens N, or belong to sequences B: they stay a multiple. */
static long long odd_rows(const char *dims, long long rows, int step) {
    const long long n = extent_of(dims, "N"), b = extent_of(dims, "B");
    if (n)
        return rows / n * odd_of(n, step);
    return b && rows % b == 0 ? b * odd_of(rows / b, step) : odd_of(rows, step);
}

void tuner_odd_dims(const char *dims, int step, char odd[TUNER_TEXT]) {
    size_t used = 0;
    *odd = '\0';
    for (const char *at = dims; *at && used < TUNER_TEXT; at += strspn(at, " ")) {
        size_t word = strcspn(at, " "), name = strcspn(at, "=");
        long long value = atoll(at + name + 1);
        if (may_be_odd(dims, at, name))
            value = *at == 'R' ? odd_rows(dims, value, step) : odd_of(value, step);
        used += (size_t)snprintf(odd + used, TUNER_TEXT - used, "%s%.*s=%lld", used ? " " : "", (int)name, at, value);
        at += word;
    }
}

/* ---- placing and running ----------------------------------------------------------------------------------------- */

/* Parameters may tie extents to each other. The same words were a call before, so it is the extents that are refused.
 */
static bool is_no_call(cldsa_status status) {
    return status == CLDSA_INVALID_SHAPE || status == CLDSA_INVALID_ARGUMENT || status == CLDSA_UNSUPPORTED;
}

/* The odd extents below, or above; where they are no call either, the even ones must do. */
static cldsa_status place_odd(cldsa_context *ctx, cl_command_queue queue, const bench_case *test, tuner_checks *out) {
    char *odd = out->dims[1];
    for (int step = -1; step <= 1; step += 2) {
        tuner_odd_dims(out->dims[0], step, odd);
        if (strcmp(odd, out->dims[0]) == 0)
            return CLDSA_SUCCESS;
        cldsa_status status = bench_place(ctx, queue, test, odd, true, &out->placed[1]);
        if (status == CLDSA_SUCCESS) {
            out->count = 2;
            return CLDSA_SUCCESS;
        }
        if (!is_no_call(status))
            return cldsa_fail_prefix(status, "placing the check at %s", odd);
        bench_place_release(&out->placed[1]);
    }
    return CLDSA_SUCCESS;
}

cldsa_status tuner_checks_place(cldsa_context *ctx, cl_command_queue queue, const bench_case *test, const char *dims,
                                tuner_checks *out) {
    *out = (tuner_checks){0};
    snprintf(out->dims[0], TUNER_TEXT, "%s", dims);
    CLDSA_TRY(bench_place(ctx, queue, test, out->dims[0], true, &out->placed[0]));
    out->count = 1;
    return place_odd(ctx, queue, test, out);
}

void tuner_checks_release(tuner_checks *checks) {
    for (int i = 0; i < 2; ++i)
        bench_place_release(&checks->placed[i]);
    checks->count = 0;
}

cldsa_status tuner_checks_run(tuner_checks *checks, double *error) {
    for (int i = 0; i < checks->count; ++i) {
        bench_accuracy accuracy = {0};
        CLDSA_TRY(bench_place_workspace(&checks->placed[i]));
        CLDSA_TRY(bench_place_reset(&checks->placed[i]));
        cldsa_status status = bench_place_check(&checks->placed[i], &accuracy);
        if (accuracy.error > *error)
            *error = accuracy.error;
        if (status != CLDSA_SUCCESS)
            return status;
    }
    return CLDSA_SUCCESS;
}
