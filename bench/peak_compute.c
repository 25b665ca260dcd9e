/* Peaks of arithmetic, per element type: the fastest of several widths. */
#include "bench/peak.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    CPU_STEPS = 16384,
    GPU_STEPS = 4096,
    HALF_STEPS = 1984, /* with lane, chain and item at most 2048, half's last whole number in a row */
    ITEM_KINDS = 8,    /* items start at item % 8, as the kernel does */
    MOST_ITEMS = 1 << 23,
    MAX_FORMS = 3
};

static const double form_budget = 0.08;

/* One way to write the same arithmetic. */
typedef struct form {
    int width, chains;
    size_t local;
} form;

typedef struct element {
    const char *name, *type, *unit;
    int bytes;
    bool fused;
} element;

static const element elements[] = {
    {"f32", "float", "FLOP/s", 4, true},
    {"f16", "half", "FLOP/s", 2, false},
    {"f64", "double", "FLOP/s", 8, true},
    {"i32", "int", "op/s", 4, false},
};

typedef struct arithmetic {
    peak_suite *suite;
    cldsa_kernel *kernel;
    form form;
    int steps;
    size_t items;
    cl_mem out;
} arithmetic;

static cldsa_status enqueue(void *user, const cldsa_call *call) {
    arithmetic *a = user;
    cldsa_stream stream;
    CLDSA_TRY(cldsa_stream_begin(&stream, a->suite->ctx, call, "peak"));
    cldsa_status status = CLDSA_ENQUEUE(&stream, a->kernel, 1, &a->items, &a->form.local, CLDSA_ARG_MEM(a->out),
                                        CLDSA_ARG_F32(1), CLDSA_ARG_I32(a->steps));
    return cldsa_stream_end(&stream, status);
}

/* Lanes l, chains c: the sum of l + c + item % 8 + steps. */
static double expected(const arithmetic *a, size_t item) {
    double w = a->form.width, chains = a->form.chains;
    return chains * w * (w - 1) / 2 + w * chains * (chains - 1) / 2 +
           w * chains * ((double)(item % ITEM_KINDS) + a->steps);
}

static cldsa_status check(const arithmetic *a, const char *type) {
    float *out = malloc(a->items * sizeof *out);
    cldsa_status status = out ? peak_download(a->suite, a->out, a->items * sizeof *out, out)
                              : cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %zu results", a->items);
    for (size_t i = 0; i < a->items && status == CLDSA_SUCCESS; ++i)
        if ((double)out[i] != expected(a, i))
            status = cldsa_fail(CLDSA_CHECK_FAILED, "wrong: %s%d, work-item %zu is %.9g, want %.9g", type,
                                a->form.width, i, (double)out[i], expected(a, i));
    free(out);
    return status;
}

/* Builds a form, finds how many work-items keep the device busy long enough, checks and measures. */
static cldsa_status measure_form(arithmetic *a, const element *e, bench_peak_row *row) {
    peak_suite *suite = a->suite;
    char options[128];
    snprintf(options, sizeof options, "%s-DTYPE=%s -DWIDTH=%d -DCHAINS=%d -DFUSED=%d",
             e->bytes == 2 ? "-DPEAK_HALF " : "", e->type, a->form.width, a->form.chains, e->fused);
    CLDSA_TRY(cldsa_get_kernel(suite->ctx, "peak_compute.cl", "peak_compute", options, &a->kernel));
    bench_task task = {.enqueue = enqueue, .user = a, .call = {.queue = suite->queue}};
    double seconds;
    a->items = suite->info->compute_units * a->form.local * (suite->on_cpu ? 1 : 8);
    CLDSA_TRY(peak_time_once(&task, &seconds));
    CLDSA_TRY(peak_time_once(&task, &seconds));
    while (seconds < peak_launch_seconds(suite) && 2 * a->items <= MOST_ITEMS) {
        a->items *= 2;
        CLDSA_TRY(peak_time_once(&task, &seconds));
    }
    CLDSA_TRY(check(a, e->type));
    CLDSA_TRY(peak_measure(suite, &task, form_budget, row));
    row->work = 2.0 * a->form.width * a->form.chains * a->steps * (double)a->items;
    snprintf(row->how, sizeof row->how, "%s%d x %d chains", e->type, a->form.width, a->form.chains);
    return CLDSA_SUCCESS;
}

/*
 * CPUs: a vector register or more per chain, or work-items side by side for compilers that make vectors of those; 12
 * chains fill two units of latency 5 and fit into 16 registers. GPUs: scalars, or pairs and fours where those are
 * units.
 */
static int forms_of(const peak_suite *suite, const element *e, form forms[MAX_FORMS]) {
    if (!suite->on_cpu) {
        const form gpu[MAX_FORMS] = {{1, 8, 256}, {2, 8, 256}, {4, 4, 256}};
        for (int i = 0; i < MAX_FORMS; ++i)
            forms[i] = gpu[i];
        return MAX_FORMS;
    }
    int native = suite->caps->vector_width * 4 / e->bytes;
    native = native > 16 ? 16 : native < 2 ? 2 : native;
    forms[0] = (form){native, 12, 1};
    forms[1] = (form){native < 16 ? 2 * native : 16, 8, 1};
    forms[2] = (form){1, 12, 64};
    return MAX_FORMS;
}

/* A form that does not build is no loss where another does; a wrong result is. */
static cldsa_status measure_element(arithmetic *a, const element *e, bench_peak_row *row) {
    form forms[MAX_FORMS];
    int count = forms_of(a->suite, e, forms);
    double best = 0;
    cldsa_status failure = CLDSA_SUCCESS;
    for (int i = 0; i < count && failure != CLDSA_CHECK_FAILED; ++i) {
        bench_peak_row tried = {0};
        a->form = forms[i];
        a->steps = e->bytes == 2 ? HALF_STEPS : a->suite->on_cpu ? CPU_STEPS : GPU_STEPS;
        cldsa_status status = measure_form(a, e, &tried);
        failure = status != CLDSA_SUCCESS ? status : failure;
        double rate = status == CLDSA_SUCCESS ? tried.work / bench_samples_quantile(&tried.samples, 0) : 0;
        if (rate > best) {
            best = rate;
            row->work = tried.work;
            snprintf(row->how, sizeof row->how, "%s", tried.how);
            const bench_samples slower = row->samples;
            row->samples = tried.samples;
            tried.samples = slower;
        }
        bench_samples_free(&tried.samples);
    }
    return best > 0 && failure != CLDSA_CHECK_FAILED ? CLDSA_SUCCESS : failure;
}

static cldsa_status can_compute(const peak_suite *suite, const element *e) {
    if ((e->bytes == 2 && !suite->caps->fp16) || (e->bytes == 8 && !suite->caps->fp64))
        return cldsa_fail(CLDSA_UNSUPPORTED, "the device does not compute in %s", e->type);
    return CLDSA_SUCCESS;
}

/* The better of two measurements. */
static void keep_better(bench_peak_row *row, bench_peak_row *other) {
    double own = row->work / bench_samples_quantile(&row->samples, 0);
    double theirs = other->work / bench_samples_quantile(&other->samples, 0);
    if (!row->samples.count || theirs > own) { /* false where the other has no samples: NaN */
        const bench_samples mine = row->samples;
        row->samples = other->samples;
        row->work = other->work;
        snprintf(row->how, sizeof row->how, "%s", other->how);
        other->samples = mine;
    }
    bench_samples_free(&other->samples);
}

void peak_compute(peak_suite *suite, bool early) {
    arithmetic a = {.suite = suite};
    cldsa_status buffer = peak_buffer(suite, (size_t)MOST_ITEMS * sizeof(cl_float), &a.out);
    size_t count = suite->options->whole && !early ? sizeof elements / sizeof *elements : 1;
    for (size_t i = 0; i < count; ++i) {
        bench_peak_row *row = early ? &suite->early : peak_row(suite, elements[i].name, elements[i].unit);
        cldsa_status status = buffer;
        if (status == CLDSA_SUCCESS)
            status = can_compute(suite, &elements[i]);
        if (status == CLDSA_SUCCESS)
            status = measure_element(&a, &elements[i], row);
        if (early)
            break;
        if (i == 0 && status == CLDSA_SUCCESS)
            keep_better(row, &suite->early);
        peak_done(suite, row, status);
        if (i == 0)
            suite->peaks->flops = row->value;
    }
    if (a.out)
        clReleaseMemObject(a.out);
}
