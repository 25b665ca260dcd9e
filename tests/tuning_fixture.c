#include "tests/tuning_fixture.h"

#include "tests/cli_runner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

cldsa_device_info device;
cl_context context;
cldsa_context *ctx;
cl_mem buffer;
char log_text[16384];
char source[17];

static void keep_log(cldsa_log_level level, const char *text, void *user) {
    (void)user;
    size_t used = strlen(log_text);
    if (level >= CLDSA_LOG_WARNING)
        snprintf(log_text + used, sizeof log_text - used, "%s\n", text);
}

cldsa_context *new_context(void) {
    cldsa_context *fresh;
    assert_int_equal(cldsa_context_create(context, device.device, &(cldsa_context_options){.log = keep_log}, &fresh),
                     0);
    return fresh;
}

int tuning_begin(void **state) {
    cl_int code;
    assert_int_equal(cli_make_directory(state), 0);
    assert_int_equal(cldsa_select_device(NULL, &device), CLDSA_SUCCESS);
    context = clCreateContext(NULL, 1, &device.device, NULL, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    buffer = clCreateBuffer(context, CL_MEM_READ_WRITE, 64 << 20, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    ctx = new_context();
    cldsa_tuning_source_hash(ctx, cldsa_find_variant(&cldsa_op_gemm, "simt"), source);
    assert_int_equal(strlen(source), 16);
    return 0;
}

int tuning_end(void **state) {
    cldsa_context_destroy(ctx);
    clReleaseMemObject(buffer);
    clReleaseContext(context);
    return cli_remove_directory(state);
}

cldsa_gemm_args product(int64_t m, int64_t n, int64_t k) {
    cldsa_gemm_args args;
    cldsa_op_default_args(&cldsa_op_gemm, &args);
    args.a = CLDSA_TENSOR(buffer, 0, CLDSA_F32, m, k);
    args.b = CLDSA_TENSOR(buffer, 0, CLDSA_F32, k, n);
    args.c = CLDSA_TENSOR(buffer, 0, CLDSA_F32, m, n);
    return args;
}

cldsa_run plan_args(const cldsa_gemm_args *args) {
    cldsa_run run;
    assert_int_equal(cldsa_op_plan(ctx, &cldsa_op_gemm, args, &run), CLDSA_SUCCESS);
    return run;
}

cldsa_run plan(int64_t size) {
    cldsa_gemm_args args = product(size, size, size);
    return plan_args(&args);
}

int tuned_tile(int64_t size) {
    cldsa_run run = plan(size);
    return run.match ? cldsa_run_tune(&run, "TM") : 0;
}

const char *write_text(const char *name, const char *text) {
    return cli_write(name, text, strlen(text));
}
