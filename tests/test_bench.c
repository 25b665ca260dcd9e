/* The bench's tables and helpers: every case of every preset can be called, samples, child processes. */
#include "bench/bench.h"
#include "bench/place.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static cldsa_status make(const cldsa_op *op, const bench_case *test, const char *dims) {
    cldsa_workload_spec spec = test->spec;
    cldsa_workload work;
    spec.dims = dims;
    if (test->forward && cldsa_find_op(test->forward, &spec.forward) != CLDSA_SUCCESS)
        return CLDSA_NOT_FOUND;
    cldsa_status status = cldsa_workload_make(op, &spec, 1, &work);
    if (status == CLDSA_SUCCESS)
        status = cldsa_workload_store(&work);
    cldsa_workload_free(&work);
    return status;
}

static void presets_make_calls(void **state) {
    (void)state;
    for (int p = 0; bench_presets[p]; ++p)
        for (size_t i = 0; i < bench_presets[p]->count; ++i) {
            const bench_case *test = &bench_presets[p]->cases[i];
            const cldsa_op *op;
            assert_int_equal(cldsa_find_op(test->op, &op), CLDSA_SUCCESS);
            if (make(op, test, test->check_dims ? test->check_dims : test->spec.dims) != CLDSA_SUCCESS)
                fail_msg("%s, case %zu (%s %s): %s", bench_presets[p]->name, i, test->op, test->spec.dims,
                         cldsa_error_message());
        }
}

/* On CPUs and elsewhere: every operation is in some preset, and knows what it costs. */
static void presets_hold_all_operations(void **state) {
    (void)state;
    for (int is_cpu = 0; is_cpu < 2; ++is_cpu)
        for (int o = 0; cldsa_catalogue[o]; ++o) {
            bool found = false;
            for (int p = 0; bench_presets[p]; ++p) {
                const bench_preset *preset = bench_presets[p];
                if (preset->kind != BENCH_ON_ANY && (preset->kind == BENCH_ON_CPU) != is_cpu)
                    continue;
                for (size_t i = 0; i < preset->count; ++i)
                    found = found || strcmp(preset->cases[i].op, cldsa_catalogue[o]->name) == 0;
            }
            if (!found || !cldsa_catalogue[o]->flops || !cldsa_catalogue[o]->bytes)
                fail_msg("%s is in no preset, or does not say what it costs", cldsa_catalogue[o]->name);
        }
}

/* Rows of a preset are told apart by these words alone, by whoever compares two results. */
static void presets_repeat_nothing(void **state) {
    (void)state;
    for (int p = 0; bench_presets[p]; ++p)
        for (size_t i = 0; i < bench_presets[p]->count; ++i)
            for (size_t j = 0; j < i; ++j) {
                const bench_case *a = &bench_presets[p]->cases[i], *b = &bench_presets[p]->cases[j];
                const char *of_a[] = {a->op, a->spec.dims, a->spec.params, a->spec.give, a->spec.dtypes};
                const char *of_b[] = {b->op, b->spec.dims, b->spec.params, b->spec.give, b->spec.dtypes};
                bool same = true;
                for (int w = 0; w < 5; ++w)
                    same = same && strcmp(of_a[w] ? of_a[w] : "", of_b[w] ? of_b[w] : "") == 0;
                if (same)
                    fail_msg("%s: %s %s stands twice", bench_presets[p]->name, a->op, a->spec.dims);
            }
}

static void presets_are_found(void **state) {
    (void)state;
    const bench_preset *preset;
    assert_int_equal(bench_find_preset(NULL, true, &preset), CLDSA_SUCCESS);
    assert_string_equal(preset->name, "cpu");
    const char *const names[] = {"cpu", "gpu", "experiment", "dsa-prefill", "dsa-decode", "long-context"};
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
        for (int is_cpu = 0; is_cpu < 2; ++is_cpu) {
            assert_int_equal(bench_find_preset(names[i], is_cpu, &preset), CLDSA_SUCCESS);
            assert_string_equal(preset->name, names[i]);
            assert_true(preset->kind == BENCH_ON_ANY || (preset->kind == BENCH_ON_CPU) == is_cpu);
        }
    assert_int_equal(bench_find_preset("gpv", true, &preset), CLDSA_NOT_FOUND);
    assert_non_null(strstr(cldsa_error_message(), "did you mean gpu"));
    assert_int_equal(bench_find_preset("something else", true, &preset), CLDSA_NOT_FOUND);
    assert_non_null(strstr(cldsa_error_message(), "known are cpu, gpu, experiment, memory, dsa-prefill"));
}

static void quantiles(void **state) {
    (void)state;
    bench_samples samples = {0};
    assert_true(isnan(bench_samples_quantile(&samples, 0.5)));
    for (int i = 100; i >= 0; --i)
        bench_samples_add(&samples, i);
    assert_true(fabs(bench_samples_quantile(&samples, 0.5) - 50) < 1e-9);
    assert_true(fabs(bench_samples_quantile(&samples, 0.1) - 10) < 1e-9);
    assert_true(samples.values[0] == 100); /* still in the order of measuring */
    bench_samples_free(&samples);
}

static cldsa_status fill(void *user, const cldsa_call *call) {
    const cl_uint zero = 0;
    return clEnqueueFillBuffer(call->queue, *(cl_mem *)user, &zero, sizeof zero, 0, 1 << 20, 0, NULL, call->event);
}

typedef struct opened {
    cl_context context;
    cl_command_queue queue;
    cldsa_device_info info;
} opened;

static void open_device(opened *on) {
    cl_int code;
    assert_int_equal(cldsa_select_device(NULL, &on->info), CLDSA_SUCCESS);
    on->context =
        clCreateContext((cl_context_properties[]){CL_CONTEXT_PLATFORM, (cl_context_properties)on->info.platform, 0}, 1,
                        &on->info.device, NULL, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    on->queue = clCreateCommandQueue(on->context, on->info.device, CL_QUEUE_PROFILING_ENABLE, &code);
    assert_int_equal(code, CL_SUCCESS);
}

static void close_device(opened *on) {
    clReleaseCommandQueue(on->queue);
    clReleaseContext(on->context);
}

/* Both clocks on whatever device there is: the events of a GPU's measurement exist on CPUs too. */
static void measures_by_wall_and_by_events(void **state) {
    (void)state;
    opened on;
    open_device(&on);
    cl_int code;
    cl_mem buffer = clCreateBuffer(on.context, CL_MEM_READ_WRITE, 1 << 20, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    const bench_task task = {.enqueue = fill, .user = &buffer, .call = {.queue = on.queue}};
    for (int on_cpu = 0; on_cpu < 2; ++on_cpu) {
        bench_samples samples = {0};
        assert_int_equal(bench_warm_up(&task, 0), CLDSA_SUCCESS);
        assert_int_equal(bench_measure(&task, on_cpu, 0.01, &samples), CLDSA_SUCCESS);
        assert_true(samples.count >= 3);
        assert_true(bench_samples_quantile(&samples, 0.5) > 0);
        assert_true(bench_samples_quantile(&samples, 0.9) < 1);
        bench_samples_free(&samples);
    }
    clReleaseMemObject(buffer);
    close_device(&on);
}

typedef struct timeless_task {
    cl_mem buffer;
    cl_event event; /* of every run: none seems to take time */
} timeless_task;

static cldsa_status fill_without_time(void *user, const cldsa_call *call) {
    timeless_task *task = user;
    const cldsa_call quiet = {.queue = call->queue};
    if (call->event) {
        clRetainEvent(task->event);
        *call->event = task->event;
    }
    return fill(&task->buffer, &quiet);
}

/* llvmpipe's events end one unit after another, whatever was run. */
static void measures_by_the_wall_where_events_tell_no_time(void **state) {
    (void)state;
    opened on;
    open_device(&on);
    cl_int code;
    timeless_task timeless = {.buffer = clCreateBuffer(on.context, CL_MEM_READ_WRITE, 1 << 20, NULL, &code)};
    assert_int_equal(code, CL_SUCCESS);
    const cldsa_call first = {.queue = on.queue, .event = &timeless.event};
    assert_int_equal(fill(&timeless.buffer, &first), CL_SUCCESS);
    const bench_task task = {.enqueue = fill_without_time, .user = &timeless, .call = {.queue = on.queue}};
    bench_samples samples = {0};
    bench_samples_add(&samples, 1.0);
    assert_int_equal(bench_measure(&task, false, 0.01, &samples), CLDSA_SUCCESS);
    assert_true(samples.count >= 4);
    assert_true(samples.values[0] == 1.0); /* of a measurement before */
    for (size_t i = 1; i < samples.count; ++i)
        assert_true(samples.values[i] > 0);
    bench_samples_free(&samples);
    clReleaseEvent(timeless.event);
    clReleaseMemObject(timeless.buffer);
    close_device(&on);
}

/* A row is checked at smaller extents than it is timed at: the variant chosen for the large ones must be able to run
 * there. Of the presets, the experiment's fits into any device. */
static void chosen_variants_can_be_checked(void **state) {
    (void)state;
    const bench_preset *preset;
    opened on;
    open_device(&on);
    cldsa_context *ctx;
    assert_int_equal(cldsa_context_create(on.context, on.info.device, NULL, &ctx), CLDSA_SUCCESS);
    assert_int_equal(bench_find_preset("experiment", true, &preset), CLDSA_SUCCESS);
    for (size_t i = 0; i < preset->count; ++i) {
        const bench_case *test = &preset->cases[i];
        if (!test->check_dims)
            continue;
        bench_placed large, small;
        cldsa_run run;
        assert_int_equal(bench_place(ctx, on.queue, test, test->spec.dims, false, &large), CLDSA_SUCCESS);
        assert_int_equal(cldsa_op_plan(ctx, large.work.op, large.work.args, &run), CLDSA_SUCCESS);
        const char *variant = run.variant->name;
        assert_int_equal(cldsa_op_force(ctx, large.work.op, variant, NULL), CLDSA_SUCCESS);
        if (bench_place(ctx, on.queue, test, test->check_dims, false, &small) != CLDSA_SUCCESS)
            fail_msg("%s %s, variant %s: %s", test->op, test->spec.dims, variant, cldsa_error_message());
        assert_int_equal(cldsa_op_force(ctx, large.work.op, NULL, NULL), CLDSA_SUCCESS);
        bench_place_release(&small);
        bench_place_release(&large);
    }
    cldsa_context_destroy(ctx);
    close_device(&on);
}

static void processes_answer_in_lines(void **state) {
    (void)state;
    bench_process process;
    cJSON *request = cJSON_CreateObject(), *answer;
    cJSON_AddNumberToObject(request, "x", 7);
    assert_int_equal(bench_process_start((char *[]){"cat", NULL}, &process), CLDSA_SUCCESS);
    for (int i = 0; i < 3; ++i) {
        assert_int_equal(bench_process_ask(&process, request, 10, &answer), CLDSA_SUCCESS);
        assert_true(cJSON_Compare(request, answer, true));
        cJSON_Delete(answer);
    }
    bench_process_stop(&process);
    assert_int_equal(bench_process_start((char *[]){"true", NULL}, &process), CLDSA_SUCCESS);
    assert_int_equal(bench_process_ask(&process, NULL, 10, &answer), CLDSA_IO_ERROR);
    bench_process_stop(&process);
    assert_int_equal(bench_process_start((char *[]){"cldsa-no-such-program", NULL}, &process), CLDSA_NOT_FOUND);
    cJSON_Delete(request);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presets_make_calls),
        cmocka_unit_test(presets_hold_all_operations),
        cmocka_unit_test(presets_repeat_nothing),
        cmocka_unit_test(presets_are_found),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(measures_by_wall_and_by_events),
        cmocka_unit_test(measures_by_the_wall_where_events_tell_no_time),
        cmocka_unit_test(chosen_variants_can_be_checked),
        cmocka_unit_test(processes_answer_in_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
