/*
 * Every OpenCL call fails in turn, under an operation, a training step and the tuner's checks: the failure is reported
 * with a message, nothing crashes or leaks, and the next try succeeds with the same result.
 * ctest: full, for the kernels it builds
 */
#include "autotune/session.h"
#include "host/nn/model.h"
#include "host/runtime/runtime.h"
#include "tests/fault_layer.h"

#include <cldsa/topk.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROWS = 3, KEYS = 40, KEPT = 7, BATCH = 2, LENGTH = 8 };

static cldsa_device_info info;
static cl_context cl;
static cl_command_queue queue;
static fault_layer_arm_fn arm;
static fault_layer_calls_fn calls;
static fault_layer_failed_fn failed;
static fault_layer_alive_fn alive;

/* A loader that asks for a variable has its name among its strings. */
static bool loader_reads_layers(void) {
    const char variable[] = "OPENCL_LAYERS";
    Dl_info library;
    if (!dladdr(dlsym(RTLD_DEFAULT, "clGetPlatformIDs"), &library))
        return false;
    int file = open(library.dli_fname, O_RDONLY | O_CLOEXEC);
    struct stat status;
    bool found = false;
    if (file >= 0 && fstat(file, &status) == 0) {
        size_t size = (size_t)status.st_size;
        void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
        found = bytes != MAP_FAILED && memmem(bytes, size, variable, sizeof variable);
        if (bytes != MAP_FAILED)
            munmap(bytes, size);
    }
    if (file >= 0)
        close(file);
    return found;
}

static void need_layers(void) {
    if (loader_reads_layers())
        return;
    print_message("skipped: this OpenCL loader does not read OPENCL_LAYERS\n");
    skip();
}

static int begin(void **state) {
    (void)state;
    cl_int error = cldsa_select_device(NULL, &info);
    if (!error)
        cl = clCreateContext(NULL, 1, &info.device, NULL, NULL, &error);
    if (!error)
        queue = clCreateCommandQueue(cl, info.device, 0, &error);
    if (!error && !loader_reads_layers())
        return 0; /* what needs it is skipped */
    void *layer = dlopen(CLDSA_FAULT_LAYER, RTLD_NOW | RTLD_NOLOAD);
    if (error || !layer)
        return -1; /* the loader passes over a layer that it cannot load, in silence */
    *(void **)&arm = dlsym(layer, "fault_layer_arm");
    *(void **)&calls = dlsym(layer, "fault_layer_calls");
    *(void **)&failed = dlsym(layer, "fault_layer_failed");
    *(void **)&alive = dlsym(layer, "fault_layer_alive");
    return !arm || !calls || !failed || !alive || alive() != 1; /* it saw the queue being made */
}

static int end(void **state) {
    (void)state;
    clReleaseCommandQueue(queue);
    clReleaseContext(cl);
    return 0;
}

/* ---- what is tried ------------------------------------------------------------------------------------------------
 */

/* All of it, from a new context to its end; `result` is what must come out each time. */
typedef cldsa_status (*work_fn)(cldsa_context *ctx, void *result);

static cldsa_status select_keys(cldsa_context *ctx, void *result) {
    float scores[ROWS * KEYS];
    for (int i = 0; i < ROWS * KEYS; ++i)
        scores[i] = (float)(i * 37 % 101);
    cl_int error = CL_SUCCESS, unused;
    cl_mem in = clCreateBuffer(cl, CL_MEM_COPY_HOST_PTR, sizeof scores, scores, &error);
    cl_mem out = clCreateBuffer(cl, 0, ROWS * KEPT * sizeof(cl_int), NULL, &unused);
    cl_mem scratch = NULL;
    cldsa_topk_args args = {.scores = CLDSA_TENSOR(in, 0, CLDSA_F32, ROWS, KEYS),
                            .indices = CLDSA_TENSOR(out, 0, CLDSA_I32, ROWS, KEPT),
                            .k = KEPT};
    size_t bytes = 0;
    cldsa_status status = in && out ? cldsa_topk_workspace(ctx, &args, &bytes)
                                    : cldsa_fail(CL_OUT_OF_RESOURCES, "the test's own buffers");
    if (status == CLDSA_SUCCESS && bytes) {
        scratch = clCreateBuffer(cl, 0, bytes, NULL, &error);
        status = scratch ? CLDSA_SUCCESS : cldsa_fail(error, "the test's own workspace");
    }
    if (status == CLDSA_SUCCESS)
        status = cldsa_topk(ctx, &args, &(cldsa_call){.queue = queue, .workspace = scratch, .workspace_bytes = bytes});
    if (status == CLDSA_SUCCESS) {
        error = clEnqueueReadBuffer(queue, out, CL_TRUE, 0, ROWS * KEPT * sizeof(cl_int), result, 0, NULL, NULL);
        status = error ? cldsa_fail(error, "the test's own reading") : CLDSA_SUCCESS;
    }
    cl_mem made[] = {in, out, scratch};
    for (int i = 0; i < 3; ++i)
        if (made[i])
            clReleaseMemObject(made[i]);
    return status;
}

static cldsa_status train(cldsa_context *ctx, void *result) {
    cldsa_config config = {.vocab_size = 16,
                           .hidden_size = 16,
                           .num_layers = 1,
                           .num_heads = 2,
                           .max_positions = LENGTH,
                           .q_lora_rank = 4,
                           .kv_lora_rank = 4,
                           .qk_nope_head_dim = 4,
                           .qk_rope_head_dim = 4,
                           .v_head_dim = 4,
                           .num_experts = 2,
                           .experts_per_token = 1,
                           .expert_size = 8,
                           .index_heads = 2,
                           .index_head_dim = 4,
                           .controller_dim = 4,
                           .controller_length_dim = 4,
                           .controller_adapter_dim = 4,
                           .controller_heads = 2,
                           .attention_dropout = 0.1,
                           .expert_dropout = 0.1,
                           .router_noise = 0.1,
                           .rope_theta = 10000,
                           .layer_norm_eps = 1e-5,
                           .rms_norm_eps = 1e-6,
                           .initializer_range = 0.02,
                           .causal = true};
    CLDSA_TRY(cldsa_config_set_variant(&config, "adaptive"));
    int32_t ids[BATCH * LENGTH], labels[BATCH * LENGTH];
    for (int i = 0; i < BATCH * LENGTH; ++i) {
        ids[i] = i * 7 % 16;
        labels[i] = (i * 7 + 7) % 16;
    }
    const cldsa_batch batch = {
        .batch = BATCH, .seq_len = LENGTH, .ids = ids, .labels = labels, .loss_scale = 1.0 / (BATCH * LENGTH)};
    cldsa_train_options options = cldsa_train_options_default();
    options.max_norm = 1;
    cldsa_model *model = NULL;
    CLDSA_TRY(cldsa_model_create(ctx, queue, &config, true, &model));
    cldsa_status status = cldsa_model_init(model, 1);
    for (int i = 0; i < 2 && status == CLDSA_SUCCESS; ++i)
        status = cldsa_model_train_step(model, &batch, &options);
    if (status == CLDSA_SUCCESS)
        status = cldsa_model_read_results(model, 2, result);
    cldsa_model_destroy(model);
    return status;
}

/* How many checks there are of a case of the tuner: a failure must not leave one out. */
static cldsa_status place_checks(cldsa_context *ctx, void *result) {
    const bench_case test = {.op = "topk", .spec = {.params = "k=7", .give = "indices"}};
    tuner_checks checks;
    double error = 0;
    cldsa_status status = tuner_checks_place(ctx, queue, &test, "R=4 T=40 K=7", &checks);
    if (status == CLDSA_SUCCESS)
        status = tuner_checks_run(&checks, &error);
    *(int *)result = checks.count;
    tuner_checks_release(&checks);
    return status;
}

/* ---- one failure after the other ------------------------------------------------------------------------------------
 */

static cldsa_status attempt(work_fn work, void *result) {
    cldsa_context *ctx;
    CLDSA_TRY(cldsa_context_create(cl, info.device, NULL, &ctx));
    cldsa_status status = work(ctx, result);
    clFinish(queue);
    cldsa_context_destroy(ctx);
    return status;
}

/* At most about `most` of the calls are made to fail, evenly spread, so that long works take seconds. */
static void fail_each(work_fn work, size_t result_bytes, long most) {
    need_layers();
    unsigned char want[256] = {0}, have[256] = {0};
    assert_true(result_bytes <= sizeof want);
    arm(0);
    if (attempt(work, want) != CLDSA_SUCCESS)
        fail_msg("%s", cldsa_error_message());
    long before = alive(), total;
    arm(0);
    assert_int_equal(attempt(work, have), CLDSA_SUCCESS); /* its probes and programs are in the cache now */
    assert_memory_equal(have, want, result_bytes);
    assert_int_equal(alive(), before);
    total = calls();
    long step = total / most + 1, survived = 0;
    for (long n = 1; n <= total; n += step) {
        cldsa_fail(CLDSA_SUCCESS, "no message");
        arm(n);
        cldsa_status status = attempt(work, have);
        const char *what = failed();
        arm(0);
        assert_non_null(what);
        if (status != CLDSA_SUCCESS && (!*cldsa_error_message() || strstr(cldsa_error_message(), "no message")))
            fail_msg("call %ld, %s, failed without a message", n, what);
        if (status == CLDSA_SUCCESS && memcmp(have, want, result_bytes) != 0)
            fail_msg("call %ld, %s, failed, and the work went on to a wrong result", n, what);
        survived += status == CLDSA_SUCCESS;
        if (alive() != before)
            fail_msg("call %ld, %s: %ld objects are left behind; the message was: %s", n, what, alive() - before,
                     cldsa_error_message());
    }
    memset(have, 0, sizeof have);
    assert_int_equal(attempt(work, have), CLDSA_SUCCESS);
    assert_memory_equal(have, want, result_bytes);
    print_message("             %ld calls, every %ld. made to fail; %ld of these did no harm\n", total, step, survived);
}

static void operation(void **state) {
    (void)state;
    fail_each(select_keys, ROWS * KEPT * sizeof(cl_int), 1000);
}

static void training_step(void **state) {
    (void)state;
    fail_each(train, 2 * sizeof(cldsa_step_result), 150);
}

static void checks_of_candidates(void **state) {
    (void)state;
    fail_each(place_checks, sizeof(int), 1000);
}

/* Extents that the operation refuses are no failure: 40 keys do not fit in 39, and 4 numbers of keys divide neither 7
 * rows nor 9. */
static void odd_checks_are_left_out_only_where_there_is_no_call(void **state) {
    (void)state;
    cldsa_context *ctx;
    tuner_checks checks;
    const bench_case tied = {.op = "topk",
                             .spec = {.give = "k_rows indices", .shapes = "k_rows=4", .fill = "k_rows=const 5"}};
    const bench_case free_of_it = {.op = "topk", .spec = {.params = "k=7", .give = "indices"}};
    const bench_case whole = {.op = "topk", .spec = {.params = "k=40", .give = "indices"}};
    assert_int_equal(cldsa_context_create(cl, info.device, NULL, &ctx), CLDSA_SUCCESS);
    assert_int_equal(tuner_checks_place(ctx, queue, &free_of_it, "R=4 T=40 K=7", &checks), CLDSA_SUCCESS);
    assert_int_equal(checks.count, 2);
    assert_string_equal(checks.placed[1].work.spec.dims, "R=3 T=39 K=7");
    tuner_checks_release(&checks);
    assert_int_equal(tuner_checks_place(ctx, queue, &whole, "R=4 T=40 K=40", &checks), CLDSA_SUCCESS);
    assert_int_equal(checks.count, 2);
    assert_string_equal(checks.placed[1].work.spec.dims, "R=5 T=41 K=40");
    tuner_checks_release(&checks);
    assert_int_equal(tuner_checks_place(ctx, queue, &tied, "R=8 T=40 K=7", &checks), CLDSA_SUCCESS);
    assert_int_equal(checks.count, 1);
    tuner_checks_release(&checks);
    cldsa_context_destroy(ctx);
}

int main(void) {
    setenv("OPENCL_LAYERS", CLDSA_FAULT_LAYER, 1);  /* before the first OpenCL call */
    setenv("CLDSA_CACHE_DIR", CLDSA_TEST_CACHE, 1); /* PoCL's programs too: each attempt would compile anew */
    const struct CMUnitTest tests[] = {cmocka_unit_test(operation), cmocka_unit_test(training_step),
                                       cmocka_unit_test(checks_of_candidates),
                                       cmocka_unit_test(odd_checks_are_left_out_only_where_there_is_no_call)};
    return cmocka_run_group_tests(tests, begin, end);
}
