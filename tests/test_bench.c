/* The bench's tables and helpers: every case of every preset can be called, samples, child processes. */
#include "bench/bench.h"

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
    for (const bench_preset *preset = bench_presets; preset->name; ++preset)
        for (size_t i = 0; i < preset->count; ++i) {
            const bench_case *test = &preset->cases[i];
            const cldsa_op *op;
            assert_int_equal(cldsa_find_op(test->op, &op), CLDSA_SUCCESS);
            if (make(op, test, test->check_dims) != CLDSA_SUCCESS)
                fail_msg("%s, case %zu (%s): %s", preset->name, i, test->spec.dims, cldsa_error_message());
        }
}

static void presets_are_found(void **state) {
    (void)state;
    const bench_preset *preset;
    assert_int_equal(bench_find_preset(NULL, true, &preset), CLDSA_SUCCESS);
    assert_string_equal(preset->name, "cpu");
    assert_int_equal(bench_find_preset("gpv", true, &preset), CLDSA_NOT_FOUND);
    assert_non_null(strstr(cldsa_error_message(), "did you mean gpu"));
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

/* Both clocks on whatever device there is: the events of a GPU's measurement exist on CPUs too. */
static void measures_by_wall_and_by_events(void **state) {
    (void)state;
    cldsa_device_info info;
    cl_int code;
    assert_int_equal(cldsa_select_device(NULL, &info), CLDSA_SUCCESS);
    cl_context context =
        clCreateContext((cl_context_properties[]){CL_CONTEXT_PLATFORM, (cl_context_properties)info.platform, 0}, 1,
                        &info.device, NULL, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    cl_command_queue queue = clCreateCommandQueue(context, info.device, CL_QUEUE_PROFILING_ENABLE, &code);
    assert_int_equal(code, CL_SUCCESS);
    cl_mem buffer = clCreateBuffer(context, CL_MEM_READ_WRITE, 1 << 20, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    const bench_task task = {.enqueue = fill, .user = &buffer, .call = {.queue = queue}};
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
    clReleaseCommandQueue(queue);
    clReleaseContext(context);
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
        cmocka_unit_test(presets_are_found),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(measures_by_wall_and_by_events),
        cmocka_unit_test(processes_answer_in_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
