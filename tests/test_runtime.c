/* The runtime by itself: status texts, device selection, the disk cache, sources. */
#include "host/runtime/context.h"

#include <cldsa/topk.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void status_texts(void **state) {
    (void)state;
    assert_string_equal(cldsa_status_name(CLDSA_INVALID_SHAPE), "CLDSA_INVALID_SHAPE");
    assert_string_equal(cldsa_status_name(CL_OUT_OF_RESOURCES), "CL_OUT_OF_RESOURCES");
    assert_non_null(cldsa_status_text(-12345));
    assert_int_equal(cldsa_fail(CLDSA_NOT_FOUND, "row %d", 17), CLDSA_NOT_FOUND);
    cldsa_fail_prefix(CLDSA_NOT_FOUND, "file %s", "x");
    assert_string_equal(cldsa_error_message(), "file x: row 17");
    cldsa_fail(CLDSA_NOT_FOUND, "tensor \"%s\"", "a\nb\033[2J");
    cldsa_fail_prefix(CLDSA_NOT_FOUND, "file %s", "\r");
    assert_string_equal(cldsa_error_message(), "file ?: tensor \"a b?[2J\"");
}

static void nearest_names(void **state) {
    (void)state;
    const char *const names[] = {"topk", "gemm", "masked_attention"};
    assert_string_equal(cldsa_nearest_name("tpk", names, 3), "topk");
    assert_string_equal(cldsa_nearest_name("maskedattention", names, 3), "masked_attention");
    assert_null(cldsa_nearest_name("zzzzzzzzzz", names, 3));
}

static void selects_devices(void **state) {
    (void)state;
    cldsa_device_info *list, info;
    size_t count;
    assert_int_equal(cldsa_devices(&list, &count), CLDSA_SUCCESS);
    assert_true(count > 0);
    for (size_t i = 0; i < count; ++i) {
        char index[24];
        snprintf(index, sizeof index, "%zu", i);
        assert_int_equal(cldsa_select_device(index, &info), CLDSA_SUCCESS);
        assert_string_equal(info.name, list[i].name);
    }
    free(list);
    assert_int_equal(cldsa_select_device("no such thing", &info), CLDSA_NOT_FOUND);
    assert_non_null(strstr(cldsa_error_message(), "no such thing"));
}

static cl_context default_device(cldsa_device_info *info) {
    assert_int_equal(cldsa_select_device(NULL, info), CLDSA_SUCCESS);
    cl_int code;
    cl_context cl = clCreateContext(NULL, 1, &info->device, NULL, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    return cl;
}

static void probes_capabilities(void **state) {
    (void)state;
    cldsa_device_info info;
    cl_context cl = default_device(&info);
    char dir[] = "/tmp/cldsa-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    for (int round = 0; round < 2; ++round) { /* probed, then from the cache */
        cldsa_context *ctx;
        assert_int_equal(cldsa_context_create(cl, info.device, &(cldsa_context_options){.cache_dir = dir}, &ctx), 0);
        const cldsa_capabilities *caps = cldsa_context_capabilities(ctx);
        assert_true(caps->local_mem_bytes > 0);
        assert_true(caps->vector_width >= 1);
        cldsa_context_destroy(ctx);
    }
    clReleaseContext(cl);
}

/* Where fma() is computed in software, programs are built with mad() in its place unless they forbid it. */
static void builds_without_slow_fma(void **state) {
    (void)state;
    cldsa_device_info info;
    cl_context cl = default_device(&info);
    char dir[] = "/tmp/cldsa-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/which.cl", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    /* A kernel named after what fma stands for: drivers' headers may define it, as something else than mad. */
    fputs("#undef mad\n#define mad replaced\n#define NAME_(f) by_##f\n#define NAME(f) NAME_(f)\n"
          "__kernel void NAME(fma)(__global float *x) { *x = 1.0f; }\n",
          file);
    fclose(file);
    for (int slow = 0; slow < 2; ++slow) {
        cldsa_context *ctx;
        cldsa_context_options options = {.kernel_dir = dir, .no_disk_cache = true};
        assert_int_equal(cldsa_context_create(cl, info.device, &options, &ctx), CLDSA_SUCCESS);
        ctx->caps.slow_fma = slow;
        cldsa_kernel *kernel;
        assert_int_equal(cldsa_get_kernel(ctx, "which.cl", "by_replaced", "", &kernel),
                         slow ? CLDSA_SUCCESS : CL_INVALID_KERNEL_NAME);
        assert_int_equal(cldsa_get_kernel(ctx, "which.cl", "by_replaced", "-DEXACT_FMA", &kernel),
                         CL_INVALID_KERNEL_NAME);
        cldsa_context_destroy(ctx);
    }
    clReleaseContext(cl);
    remove(path);
    rmdir(dir);
}

/* What a caller forgot is a status with a message, never a crash. */
static void refuses_null(void **state) {
    (void)state;
    cldsa_device_info info;
    assert_int_equal(cldsa_select_device(NULL, &info), CLDSA_SUCCESS);
    cl_int code;
    cl_context cl = clCreateContext(NULL, 1, &info.device, NULL, NULL, &code);
    cl_command_queue queue = clCreateCommandQueue(cl, info.device, 0, &code);
    cl_mem mem = clCreateBuffer(cl, CL_MEM_READ_WRITE, 64, NULL, &code);
    assert_int_equal(code, CL_SUCCESS);
    cldsa_context *ctx, *none = NULL;
    assert_int_equal(cldsa_context_create(NULL, info.device, NULL, &none), CL_INVALID_CONTEXT);
    assert_int_equal(cldsa_context_create(cl, NULL, NULL, &none), CL_INVALID_DEVICE);
    assert_int_equal(cldsa_context_create(cl, info.device, NULL, NULL), CLDSA_INVALID_ARGUMENT);
    assert_null(none);
    assert_int_equal(cldsa_context_create(cl, info.device, NULL, &ctx), CLDSA_SUCCESS);

    cldsa_topk_args args = {
        .scores = CLDSA_TENSOR(mem, 0, CLDSA_F32, 1, 4), .indices = CLDSA_TENSOR(mem, 4, CLDSA_I32, 1, 4), .k = 4};
    size_t bytes = 0;
    assert_int_equal(cldsa_topk_workspace(ctx, &args, &bytes), CLDSA_SUCCESS);
    cl_mem workspace = bytes ? clCreateBuffer(cl, CL_MEM_READ_WRITE, bytes, NULL, &code) : NULL;
    cldsa_call call = {.queue = queue, .workspace = workspace, .workspace_bytes = bytes};
    assert_int_equal(cldsa_topk(NULL, &args, &call), CLDSA_INVALID_ARGUMENT);
    assert_non_null(strstr(cldsa_error_message(), "topk: the context is NULL"));
    assert_int_equal(cldsa_topk(ctx, NULL, &call), CLDSA_INVALID_ARGUMENT);
    assert_int_equal(cldsa_topk(ctx, &args, NULL), CLDSA_INVALID_ARGUMENT);
    assert_int_equal(cldsa_topk_workspace(NULL, &args, &bytes), CLDSA_INVALID_ARGUMENT);
    call.num_wait = 2;
    assert_int_equal(cldsa_topk(ctx, &args, &call), CL_INVALID_EVENT_WAIT_LIST);
    call.num_wait = 0;
    call.queue = NULL;
    assert_int_equal(cldsa_topk(ctx, &args, &call), CL_INVALID_COMMAND_QUEUE);

    cldsa_context_destroy(ctx);
    if (workspace)
        clReleaseMemObject(workspace);
    clReleaseMemObject(mem);
    clReleaseCommandQueue(queue);
    clReleaseContext(cl);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_texts),
        cmocka_unit_test(nearest_names),
        cmocka_unit_test(selects_devices),
        cmocka_unit_test(probes_capabilities),
        cmocka_unit_test(builds_without_slow_fma),
        cmocka_unit_test(refuses_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
