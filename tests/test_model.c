/*
 * The model: goldens, parameter counts, gradients against central differences, repeatability, files. Tiny shapes.
 * (ctest: full, for the kernels it builds) */
#include "host/nn/check.h"
#include "host/nn/model.h"
#include "host/runtime/runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { BATCH = 2, LENGTH = 11 };

static cl_context cl;
static cl_command_queue queue;
static cldsa_context *ctx;
static char directory[64];

static void succeeds(cldsa_status status) {
    if (status != CLDSA_SUCCESS)
        fail_msg("%s: %s", cldsa_status_name(status), cldsa_error_message());
}

static int open_device(void **state) {
    (void)state;
    cldsa_device_info info;
    cl_int error = cldsa_select_device(NULL, &info);
    if (!error)
        cl = clCreateContext(NULL, 1, &info.device, NULL, NULL, &error);
    if (!error)
        queue = clCreateCommandQueue(cl, info.device, 0, &error);
    if (!error)
        error = cldsa_context_create(cl, info.device, NULL, &ctx);
    snprintf(directory, sizeof directory, "/tmp/cldsa-model-XXXXXX");
    return error || !mkdtemp(directory);
}

static int close_device(void **state) {
    (void)state;
    cldsa_context_destroy(ctx);
    clReleaseCommandQueue(queue);
    clReleaseContext(cl);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command);
}

/* ---- config and counts ---------------------------------------------------------------------------------------- */

static void counts_parameters(void **state) {
    (void)state;
    cldsa_config config = cldsa_config_default();
    assert_int_equal(cldsa_config_num_parameters(&config), 10534904);
    succeeds(cldsa_config_set_variant(&config, "dense"));
    assert_int_equal(cldsa_config_num_parameters(&config), 10534904);
    succeeds(cldsa_config_set_variant(&config, "adaptive"));
    assert_int_equal(cldsa_config_num_parameters(&config), 11789288);
}

static void reads_config(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", directory);
    cldsa_config config = cldsa_config_default(), back;
    succeeds(cldsa_config_set_variant(&config, "adaptive-entropy"));
    config.hidden_size = 96;
    config.causal = true;
    config.rope_theta = 5e5;
    succeeds(cldsa_config_write(path, &config));
    succeeds(cldsa_config_read(path, &back));
    assert_string_equal(back.policy, "controller");
    assert_int_equal(back.controller_use, CLDSA_CONTROLLER_ENTROPY);
    assert_int_equal(back.hidden_size, 96);
    assert_true(back.causal && back.rope_theta == 5e5);
}

static void refuses_config(void **state) {
    (void)state;
    const struct {
        const char *text, *says;
    } bad[] = {
        {"{\"hiden_size\": 64}", "hidden_size"},
        {"{\"hidden_size\": 0}", "hidden_size is 0"},
        {"{\"hidden_size\": \"64\"}", "hidden_size"},
        {"{\"qk_rope_head_dim\": 7}", "even"},
        {"{\"sparsity_policy\": \"fixd\"}", "fixed"},
        {"{\"n_routed_experts\": 2, \"num_experts_per_tok\": 3}", "at most"},
        {"{\"keep_ratio\": 0}", "keep_ratio"},
    };
    char path[128];
    snprintf(path, sizeof path, "%s/bad.json", directory);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(bad[i].text, file);
        fclose(file);
        cldsa_config config;
        assert_int_not_equal(cldsa_config_read(path, &config), CLDSA_SUCCESS);
        if (!strstr(cldsa_error_message(), bad[i].says) || !strstr(cldsa_error_message(), path))
            fail_msg("%s: \"%s\" says neither %s nor the file", bad[i].text, cldsa_error_message(), bad[i].says);
    }
    cldsa_config config = cldsa_config_default();
    assert_int_not_equal(cldsa_config_set_variant(&config, "adaptve"), CLDSA_SUCCESS);
    assert_non_null(strstr(cldsa_error_message(), "adaptive"));
}

/* ---- goldens -------------------------------------------------------------------------------------------------- */

static void check_file(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.safetensors", CLDSA_TEST_DATA, name);
    cldsa_safetensors *file = NULL;
    cldsa_check_report report = {0};
    succeeds(cldsa_safetensors_open(path, &file));
    succeeds(cldsa_check_golden(ctx, queue, file, &report));
    cldsa_safetensors_close(file);
    assert_true(report.count > 10);
    for (size_t i = 0; i < report.count; ++i)
        if (!report.rows[i].ok)
            print_error("%s: %s is off by %g, %.3g of what is allowed\n", name, report.rows[i].name,
                        report.rows[i].worst_abs, report.rows[i].error);
    const bool ok = report.ok;
    cldsa_check_report_free(&report);
    assert_true(ok);
}

static void golden_dense(void **state) {
    (void)state, check_file("model.dense");
}
static void golden_fixed(void **state) {
    (void)state, check_file("model.fixed50");
}
static void golden_adaptive(void **state) {
    (void)state, check_file("model.adaptive");
}
static void golden_controller(void **state) {
    (void)state, check_file("controller");
}

/* ---- a tiny model --------------------------------------------------------------------------------------------- */

static cldsa_config tiny_config(const char *variant, bool causal) {
    cldsa_config config = cldsa_config_default();
    config.vocab_size = 13;
    config.hidden_size = 24;
    config.num_layers = 2;
    config.num_heads = 3;
    config.max_positions = 16;
    config.q_lora_rank = 10;
    config.kv_lora_rank = 9;
    config.qk_nope_head_dim = 5;
    config.qk_rope_head_dim = 4;
    config.v_head_dim = 7;
    config.num_experts = 3;
    config.expert_size = 18;
    config.index_heads = 2;
    config.index_head_dim = 6;
    config.controller_dim = 8;
    config.initializer_range = 0.3; /* large enough for every part to matter */
    config.causal = causal;
    succeeds(cldsa_config_set_variant(&config, variant));
    return config;
}

static const cldsa_batch *tiny_batch(void) {
    static int32_t ids[BATCH * LENGTH], labels[BATCH * LENGTH];
    static const cldsa_batch batch = {.batch = BATCH, .seq_len = LENGTH, .ids = ids, .labels = labels};
    for (int i = 0; i < BATCH * LENGTH; ++i) {
        ids[i] = (7 * i + 3) % 13;
        labels[i] = i % 5 == 4 ? -100 : (5 * i + 1) % 13;
    }
    return &batch;
}

static cldsa_model *tiny_model(const char *variant, bool causal) {
    const cldsa_config config = tiny_config(variant, causal);
    cldsa_model *model = NULL;
    succeeds(cldsa_model_create(ctx, queue, &config, true, &model));
    succeeds(cldsa_model_init(model, 7));
    return model;
}

static void read_floats(cl_mem buffer, int64_t offset, int64_t count, float *out) {
    assert_int_equal(clEnqueueReadBuffer(queue, buffer, CL_TRUE, (size_t)offset * sizeof(float),
                                         (size_t)count * sizeof(float), out, 0, NULL, NULL),
                     CL_SUCCESS);
}

static void write_floats(cl_mem buffer, int64_t offset, int64_t count, const float *in) {
    assert_int_equal(clEnqueueWriteBuffer(queue, buffer, CL_TRUE, (size_t)offset * sizeof(float),
                                          (size_t)count * sizeof(float), in, 0, NULL, NULL),
                     CL_SUCCESS);
}

static double loss_of(cldsa_model *model) {
    cldsa_step_result result;
    succeeds(cldsa_model_evaluate(model, tiny_batch()));
    succeeds(cldsa_model_read_results(model, 1, &result));
    return result.loss;
}

/* The loss along +-step * direction from a parameter's value, as a central difference. */
static double difference_along(cldsa_model *model, const cldsa_param *param, const float *value, const float *direction,
                               double step) {
    cl_mem buffer = cldsa_model_params(model)->value;
    float *moved = malloc((size_t)param->numel * sizeof *moved);
    assert_non_null(moved);
    double loss[2];
    for (int side = 0; side < 2; ++side) {
        for (int64_t i = 0; i < param->numel; ++i)
            moved[i] = (float)(value[i] + (side ? -step : step) * direction[i]);
        write_floats(buffer, param->offset, param->numel, moved);
        loss[side] = loss_of(model);
    }
    write_floats(buffer, param->offset, param->numel, value);
    free(moved);
    return (loss[0] - loss[1]) / (2 * step);
}

/*
 * Along the gradient itself the slope is its length. A step may cross a point where a selection or a routing changes,
 * where the loss jumps; so two steps are tried and one must agree.
 */
static void check_slope(cldsa_model *model, const cldsa_param *param, const float *value, const float *grad) {
    double length = 0;
    for (int64_t i = 0; i < param->numel; ++i)
        length += (double)grad[i] * grad[i];
    length = sqrt(length);
    if (length < 1e-4)
        return; /* below what f32 losses can show */
    float *direction = malloc((size_t)param->numel * sizeof *direction);
    assert_non_null(direction);
    for (int64_t i = 0; i < param->numel; ++i)
        direction[i] = (float)(grad[i] / length);
    double slope = 0, error = INFINITY;
    for (double step = 4e-3; step > 5e-4 && error > 0.02; step /= 2) {
        slope = difference_along(model, param, value, direction, step);
        error = fabs(slope - length) / (length + 2e-4 / step);
    }
    free(direction);
    if (error > 0.02)
        fail_msg("%s: the gradient's length is %g, the loss rises by %g", param->name, length, slope);
}

static void check_gradients(const char *variant, bool causal) {
    cldsa_model *model = tiny_model(variant, causal);
    succeeds(cldsa_model_gradients(model, tiny_batch(), false, 1));
    const cldsa_params *params = cldsa_model_params(model);
    float *values = malloc((size_t)params->total * sizeof *values);
    float *grads = malloc((size_t)params->trainable * sizeof *grads);
    assert_true(values && grads);
    read_floats(params->value, 0, params->total, values);
    read_floats(params->grad, 0, params->trainable, grads);
    for (int i = 0; i < params->count; ++i) {
        const cldsa_param *param = &params->list[i];
        if (param->spec.trainable)
            check_slope(model, param, values + param->offset, grads + param->offset);
    }
    free(values);
    free(grads);
    cldsa_model_destroy(model);
}

static void gradients_dense(void **state) {
    (void)state, check_gradients("dense", false);
}
static void gradients_causal(void **state) {
    (void)state, check_gradients("fixed50", true);
}
static void gradients_adaptive(void **state) {
    (void)state, check_gradients("adaptive", true);
}

/* ---- causality ------------------------------------------------------------------------------------------------ */

/* A later token must not move an earlier row's logits. */
static void looks_back_only(void **state) {
    (void)state;
    const char *const variants[] = {"dense", "fixed50", "topk3"};
    for (int v = 0; v < 3; ++v) {
        cldsa_model *model = tiny_model(variants[v], true);
        succeeds(cldsa_model_capture(model, true));
        const cldsa_batch *batch = tiny_batch();
        int32_t ids[BATCH * LENGTH];
        float logits[2][BATCH * LENGTH * 13];
        memcpy(ids, batch->ids, sizeof ids);
        for (int round = 0; round < 2; ++round) {
            cldsa_batch changed = *batch;
            changed.ids = ids;
            cldsa_tensor tensor;
            succeeds(cldsa_model_evaluate(model, &changed));
            succeeds(cldsa_model_inspect(model, "logits", &tensor));
            read_floats(tensor.mem, (int64_t)tensor.offset, BATCH * LENGTH * 13, logits[round]);
            ids[LENGTH - 1] = (ids[LENGTH - 1] + 1) % 13;
        }
        assert_memory_equal(logits[0], logits[1], (LENGTH - 1) * 13 * sizeof(float));
        assert_memory_not_equal(logits[0] + (LENGTH - 1) * 13, logits[1] + (LENGTH - 1) * 13, 13 * sizeof(float));
        cldsa_layer_sparsity sparsity;
        succeeds(cldsa_model_read_sparsity(model, 1, &sparsity));
        assert_true(sparsity.min_k == 1 && sparsity.max_k == (v == 0 ? LENGTH : v == 1 ? 6 : 3));
        cldsa_model_destroy(model);
    }
}

/* ---- repeatability and files ---------------------------------------------------------------------------------- */

static void train(cldsa_model *model, int steps) {
    cldsa_train_options options = cldsa_train_options_default();
    options.max_norm = 1;
    for (int i = 0; i < steps; ++i)
        succeeds(cldsa_model_train_step(model, tiny_batch(), &options));
}

static void assert_same_parameters(cldsa_model *a, cldsa_model *b) {
    const cldsa_params *first = cldsa_model_params(a), *second = cldsa_model_params(b);
    assert_int_equal(first->total, second->total);
    float *values[2] = {malloc((size_t)first->total * sizeof(float)), malloc((size_t)first->total * sizeof(float))};
    assert_true(values[0] && values[1]);
    read_floats(first->value, 0, first->total, values[0]);
    read_floats(second->value, 0, first->total, values[1]);
    assert_memory_equal(values[0], values[1], (size_t)first->total * sizeof(float));
    free(values[0]);
    free(values[1]);
}

static void repeats_to_the_bit(void **state) {
    (void)state;
    const char *const variants[] = {"dense", "fixed50", "adaptive"};
    for (int v = 0; v < 3; ++v) {
        cldsa_model *models[2];
        for (int i = 0; i < 2; ++i) {
            models[i] = tiny_model(variants[v], true);
            train(models[i], 3);
        }
        assert_same_parameters(models[0], models[1]);
        cldsa_step_result results[3];
        succeeds(cldsa_model_read_results(models[0], 3, results));
        assert_true(results[2].loss < results[0].loss && results[2].grad_norm > 0);
        cldsa_model_destroy(models[0]);
        cldsa_model_destroy(models[1]);
    }
}

/* Saved after two steps and resumed elsewhere, the third step is the same; so is one after a change of batch shape. */
static void resumes_to_the_bit(void **state) {
    (void)state;
    cldsa_model *model = tiny_model("adaptive", false), *resumed = tiny_model("adaptive", false);
    train(model, 2);
    succeeds(cldsa_model_save(model, directory));
    succeeds(cldsa_model_save_optimizer(model, directory));
    succeeds(cldsa_model_init(resumed, 99));
    succeeds(cldsa_model_load(resumed, directory));
    succeeds(cldsa_model_load_optimizer(resumed, directory));
    assert_int_equal(cldsa_model_step(resumed), 2);
    const int32_t short_ids[] = {1, 2, 3};
    succeeds(cldsa_model_evaluate(resumed, &(cldsa_batch){.batch = 1, .seq_len = 3, .ids = short_ids}));
    train(model, 1);
    train(resumed, 1);
    assert_same_parameters(model, resumed);
    cldsa_model_destroy(model);
    cldsa_model_destroy(resumed);

    cldsa_model *other = tiny_model("fixed50", false);
    assert_int_not_equal(cldsa_model_load(other, directory), CLDSA_SUCCESS);
    assert_non_null(strstr(cldsa_error_message(), "model.safetensors"));
    cldsa_model_destroy(other);
}

static void refuses_batches(void **state) {
    (void)state;
    cldsa_model *model = tiny_model("dense", false);
    const int32_t ids[17] = {0};
    assert_int_equal(cldsa_model_evaluate(model, &(cldsa_batch){.batch = 1, .seq_len = 17, .ids = ids}),
                     CLDSA_INVALID_SHAPE);
    assert_int_equal(cldsa_model_evaluate(model, &(cldsa_batch){.batch = 1, .seq_len = 1, .ids = ids}),
                     CLDSA_INVALID_SHAPE);
    succeeds(cldsa_model_evaluate(model, &(cldsa_batch){.batch = 1, .seq_len = 16, .ids = ids}));
    cldsa_step_result result;
    assert_int_equal(cldsa_model_read_results(model, 1, &result), CLDSA_INVALID_ARGUMENT); /* no labels, no loss */
    cldsa_model_destroy(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_parameters),  cmocka_unit_test(reads_config),    cmocka_unit_test(refuses_config),
        cmocka_unit_test(golden_controller),  cmocka_unit_test(golden_dense),    cmocka_unit_test(golden_fixed),
        cmocka_unit_test(golden_adaptive),    cmocka_unit_test(gradients_dense), cmocka_unit_test(gradients_causal),
        cmocka_unit_test(gradients_adaptive), cmocka_unit_test(looks_back_only), cmocka_unit_test(repeats_to_the_bit),
        cmocka_unit_test(resumes_to_the_bit), cmocka_unit_test(refuses_batches),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
