/*
 * Training as a whole, on tiny models: the loss falls, a stopped run continues to the bit, recall is learnt.
 */
#include "host/io/file.h"
#include "host/runtime/runtime.h"
#include "host/train/trainer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATH_SIZE = 256, TEXT_BYTES = 40000, FILE_LIMIT = 1 << 24 };

static cl_context cl;
static cl_command_queue queue;
static cldsa_context *ctx;
static char directory[64], text_path[PATH_SIZE];

static void succeeds(cldsa_status status) {
    if (status != CLDSA_SUCCESS)
        fail_msg("%s: %s", cldsa_status_name(status), cldsa_error_message());
}

/* Words drawn from a short list: a model of bytes can learn their letters in a few steps. */
static void write_text(void) {
    static const char *const words[] = {"the ", "key ", "query ", "value ", "selects ", "scores ", "attends ", "and "};
    static char text[TEXT_BYTES];
    uint32_t state = 1;
    for (size_t at = 0; at < sizeof text;) {
        state = state * 1664525u + 1013904223u;
        const char *word = words[state >> 29];
        for (; *word && at < sizeof text; ++word)
            text[at++] = *word;
    }
    snprintf(text_path, sizeof text_path, "%s/text", directory);
    succeeds(cldsa_file_write_all(text_path, text, sizeof text));
}

static int begin(void **state) {
    (void)state;
    cldsa_device_info info;
    cl_int error = cldsa_select_device(NULL, &info);
    if (!error)
        cl = clCreateContext(NULL, 1, &info.device, NULL, NULL, &error);
    if (!error)
        queue = clCreateCommandQueue(cl, info.device, 0, &error);
    if (!error)
        error = cldsa_context_create(cl, info.device, NULL, &ctx);
    snprintf(directory, sizeof directory, "/tmp/cldsa-train-XXXXXX");
    if (error || !mkdtemp(directory))
        return -1;
    write_text();
    return 0;
}

static int end(void **state) {
    (void)state;
    cldsa_context_destroy(ctx);
    clReleaseCommandQueue(queue);
    clReleaseContext(cl);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command);
}

/* Two narrow layers, 40 steps of 4 sequences of 32 bytes. `run` names the directory inside the test's own. */
static cldsa_run_config tiny_run(const char *variant, const char *run, char path[PATH_SIZE]) {
    static const char *paths[1];
    paths[0] = text_path;
    cldsa_run_config config = cldsa_run_config_default();
    config.model = (cldsa_config){
        .vocab_size = 256,
        .hidden_size = 32,
        .num_layers = 2,
        .num_heads = 2,
        .max_positions = 32,
        .q_lora_rank = 8,
        .kv_lora_rank = 8,
        .qk_nope_head_dim = 8,
        .qk_rope_head_dim = 8,
        .v_head_dim = 8,
        .num_experts = 2,
        .experts_per_token = 1,
        .expert_size = 32,
        .index_heads = 2,
        .index_head_dim = 8,
        .controller_dim = 8,
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
        .causal = true,
    };
    succeeds(cldsa_config_set_variant(&config.model, variant));
    snprintf(path, PATH_SIZE, "%s/%s-%s", directory, run, variant);
    config.data.paths = paths;
    config.data.num_paths = 1;
    config.data.seq_len = 32;
    config.options.lr = 3e-3;
    config.batch = 4;
    config.steps = 40;
    config.evaluate_batches = 4;
    config.directory = path;
    return config;
}

/* ---- the loss falls -------------------------------------------------------------------------------------------- */

/*
 * An untrained model is at ln 256 = 5.55 nats a byte; the letters' frequencies alone would give 2.9.
 */
static void learns_text(void **state) {
    static const double REACHED = 2.9;
    char path[PATH_SIZE];
    cldsa_run_config config = tiny_run(*state, "learns", path);
    cldsa_run_result result;
    succeeds(cldsa_train(ctx, queue, &config, NULL, &result));
    print_message("             %s: validation %.3f nats, training %.3f\n", (const char *)*state,
                  result.validation_loss, result.train_loss);
    assert_int_equal(result.steps, config.steps);
    assert_true(result.validation_loss < REACHED);
    assert_true(result.train_loss < REACHED);
    assert_true(fabs(result.bits_per_byte - result.validation_loss / log(2)) < 1e-9);
    assert_true(result.num_parameters == cldsa_config_num_parameters(&config.model));
    assert_int_equal(result.num_layers, 2);
}

/*
 * Three pairs of eight keys and eight values. Guessing any value is right once in eight; answering with values that the
 * sequence holds, which only attention can know, is right at least once in three.
 */
static void learns_recall(void **state) {
    static const double ATTENDED = 0.3;
    char path[PATH_SIZE];
    cldsa_run_config config = tiny_run(*state, "recall", path);
    config.data = (cldsa_data_config){.task = CLDSA_TASK_RECALL, .vocab = 16, .pairs = 3, .seq_len = 16};
    config.model.vocab_size = config.data.vocab;
    config.options.lr = 5e-3;
    config.batch = 16;
    config.steps = 300;
    config.evaluate_batches = 8;
    cldsa_run_result result;
    succeeds(cldsa_train(ctx, queue, &config, NULL, &result));
    print_message("             %s: accuracy %.3f\n", (const char *)*state, result.validation_accuracy);
    assert_true(result.validation_accuracy > ATTENDED);
    assert_true(isnan(result.bits_per_byte));
}

/*
 * With larger initial weights the model finds the pair that belongs to a key, and answers right: who sees all keys
 * does, who keeps the keys that an untrained indexer likes is left guessing among the values.
 */
static void recall_needs_the_right_keys(void **state) {
    (void)state;
    static const char *const variants[] = {"dense", "fixed25"};
    double accuracy[2];
    for (int i = 0; i < 2; ++i) {
        char path[PATH_SIZE];
        cldsa_run_config config = tiny_run(variants[i], "association", path);
        config.data = (cldsa_data_config){.task = CLDSA_TASK_RECALL, .vocab = 16, .pairs = 3, .seq_len = 16};
        config.model.vocab_size = config.data.vocab;
        config.model.hidden_size = 64;
        config.model.num_heads = 4;
        config.model.q_lora_rank = config.model.kv_lora_rank = 32;
        config.model.v_head_dim = 16;
        config.model.initializer_range = 0.08;
        config.model.attention_dropout = config.model.expert_dropout = config.model.router_noise = 0;
        config.options.lr = 2e-3;
        config.batch = 64;
        config.steps = 400;
        config.evaluate_batches = 8;
        cldsa_run_result result;
        succeeds(cldsa_train(ctx, queue, &config, NULL, &result));
        print_message("             %s: accuracy %.3f\n", variants[i], result.validation_accuracy);
        accuracy[i] = result.validation_accuracy;
    }
    assert_true(accuracy[0] > 0.9);
    assert_true(accuracy[1] < accuracy[0] - 0.2);
}

/* ---- stopping and continuing ----------------------------------------------------------------------------------- */

typedef struct stopper {
    int64_t at;
    volatile sig_atomic_t stop;
} stopper;

static void stop_at(void *user, int64_t step, int64_t steps, double loss, double tokens_per_second) {
    (void)steps;
    (void)loss;
    (void)tokens_per_second;
    stopper *s = user;
    s->stop = step >= s->at;
}

static void same_file(const char *a, const char *b, const char *name) {
    char path[2][2 * PATH_SIZE], *data[2];
    size_t size[2];
    snprintf(path[0], sizeof path[0], "%s/%s", a, name);
    snprintf(path[1], sizeof path[1], "%s/%s", b, name);
    for (int i = 0; i < 2; ++i)
        succeeds(cldsa_file_read(path[i], FILE_LIMIT, &data[i], &size[i]));
    if (size[0] != size[1] || memcmp(data[0], data[1], size[0]) != 0)
        fail_msg("%s and %s differ", path[0], path[1]);
    free(data[0]);
    free(data[1]);
}

/* Stopped between readings of losses, and at a validation's step; then everything is as if it had not been. */
static void continues_to_the_bit(void **state) {
    char whole_path[PATH_SIZE], parts_path[PATH_SIZE];
    cldsa_run_config whole = tiny_run(*state, "whole", whole_path), parts = tiny_run(*state, "parts", parts_path);
    whole.steps = parts.steps = 24;
    whole.log_every = parts.log_every = 5;
    whole.evaluate_every = parts.evaluate_every = 8;
    cldsa_run_result want, have;
    succeeds(cldsa_train(ctx, queue, &whole, NULL, &want));

    parts.resume = true; /* with nothing there, from the start */
    static const int64_t stops[] = {1, 8, 10};
    for (size_t i = 0; i < sizeof stops / sizeof *stops; ++i) {
        stopper s = {.at = stops[i]};
        cldsa_run_hooks hooks = {.progress = stop_at, .user = &s, .stop = &s.stop};
        assert_int_equal(cldsa_train(ctx, queue, &parts, &hooks, &have), CLDSA_INTERRUPTED);
        assert_int_equal(have.steps, stops[i]);
        assert_non_null(strstr(cldsa_error_message(), parts_path));
    }
    succeeds(cldsa_train(ctx, queue, &parts, NULL, &have));
    succeeds(cldsa_train(ctx, queue, &parts, NULL, &have)); /* at its end already: says the same once more */

    assert_true(have.validation_loss == want.validation_loss && have.train_loss == want.train_loss);
    assert_true(have.validation_accuracy == want.validation_accuracy);
    assert_memory_equal(have.layers, want.layers, sizeof *want.layers * (size_t)want.num_layers);
    same_file(whole_path, parts_path, "metrics.jsonl");
    same_file(whole_path, parts_path, "latest");
    same_file(whole_path, parts_path, "checkpoint-24/model.safetensors");
    same_file(whole_path, parts_path, "checkpoint-24/optimizer.safetensors");
    same_file(whole_path, parts_path, "checkpoint-24/state.json");
}

/* A directory that holds another model's checkpoint is refused, and left as it was. */
static void refuses_other_settings(void **state) {
    (void)state;
    char path[PATH_SIZE], other_path[PATH_SIZE];
    cldsa_run_config config = tiny_run("dense", "other", path);
    config.steps = 2;
    cldsa_run_result result;
    succeeds(cldsa_train(ctx, queue, &config, NULL, &result));
    (void)tiny_run("dense", "before", other_path);
    char command[4 * PATH_SIZE];
    snprintf(command, sizeof command, "cp -r '%s' '%s'", path, other_path);
    assert_int_equal(system(command), 0);

    config.resume = true;
    config.steps = 4;
    config.model.expert_size = 48;
    assert_int_equal(cldsa_train(ctx, queue, &config, NULL, &result), CLDSA_INVALID_ARGUMENT);
    assert_non_null(strstr(cldsa_error_message(), "moe_intermediate_size"));
    config.model.expert_size = 32;
    config.options.lr = 1e-3;
    assert_int_equal(cldsa_train(ctx, queue, &config, NULL, &result), CLDSA_INVALID_ARGUMENT);
    assert_non_null(strstr(cldsa_error_message(), "lr = 0.003, this one has 0.001"));
    same_file(path, other_path, "metrics.jsonl");
    same_file(path, other_path, "latest");
    same_file(path, other_path, "checkpoint-2/model.safetensors");
}

int main(void) {
#define WITH(test, variant)                                                                                            \
    { #test ", " variant, test, NULL, NULL, variant }
    const struct CMUnitTest tests[] = {
        WITH(learns_text, "dense"),
        WITH(learns_text, "fixed25"),
        WITH(learns_text, "adaptive"),
        WITH(learns_recall, "dense"),
        WITH(learns_recall, "fixed50"),
        cmocka_unit_test(recall_needs_the_right_keys),
        WITH(continues_to_the_bit, "dense"),
        WITH(continues_to_the_bit, "fixed25"),
        WITH(continues_to_the_bit, "topk4"),
        WITH(continues_to_the_bit, "adaptive"),
        cmocka_unit_test(refuses_other_settings),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
