/*
 * The model's config: one table of keys that reading, writing and checking walk.
 */
#include "host/nn/config.h"

#include "host/io/json.h"
#include "host/nn/policy.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const factor_names[] = {"length", "complexity", "entropy", "hybrid", NULL};
static const int factor_bits[] = {CLDSA_CONTROLLER_LENGTH, CLDSA_CONTROLLER_COMPLEXITY, CLDSA_CONTROLLER_ENTROPY,
                                  CLDSA_CONTROLLER_HYBRID};

typedef struct int_key {
    const char *key;
    size_t at;
    int min, max;
} int_key;

typedef struct number_key {
    const char *key;
    size_t at;
    double min, max;
} number_key;

/* Upper limits keep every product of two sizes well inside 63 bits and refuse slips of the keyboard. */
static const int_key int_keys[] = {
    {"vocab_size", offsetof(cldsa_config, vocab_size), 2, 1 << 24},
    {"hidden_size", offsetof(cldsa_config, hidden_size), 2, 1 << 16},
    {"num_hidden_layers", offsetof(cldsa_config, num_layers), 1, 1024},
    {"num_attention_heads", offsetof(cldsa_config, num_heads), 1, 1024},
    {"max_position_embeddings", offsetof(cldsa_config, max_positions), 2, 1 << 24},
    {"q_lora_rank", offsetof(cldsa_config, q_lora_rank), 1, 1 << 16},
    {"kv_lora_rank", offsetof(cldsa_config, kv_lora_rank), 1, 1 << 16},
    {"qk_nope_head_dim", offsetof(cldsa_config, qk_nope_head_dim), 1, 4096},
    {"qk_rope_head_dim", offsetof(cldsa_config, qk_rope_head_dim), 2, 4096},
    {"v_head_dim", offsetof(cldsa_config, v_head_dim), 1, 4096},
    {"n_routed_experts", offsetof(cldsa_config, num_experts), 1, 256},
    {"num_experts_per_tok", offsetof(cldsa_config, experts_per_token), 1, 256},
    {"moe_intermediate_size", offsetof(cldsa_config, expert_size), 1, 1 << 20},
    {"index_n_heads", offsetof(cldsa_config, index_heads), 1, 1024},
    {"index_head_dim", offsetof(cldsa_config, index_head_dim), 1, 4096},
    {"index_topk", offsetof(cldsa_config, index_topk), 0, 1 << 24},
    {"controller_complexity_dim", offsetof(cldsa_config, controller_dim), 1, 1 << 16},
    {"controller_length_dim", offsetof(cldsa_config, controller_length_dim), 1, 1 << 16},
    {"controller_adapter_dim", offsetof(cldsa_config, controller_adapter_dim), 1, 1 << 16},
    {"controller_entropy_heads", offsetof(cldsa_config, controller_heads), 1, 1024},
};

static const number_key number_keys[] = {
    {"attention_dropout", offsetof(cldsa_config, attention_dropout), 0, 0.999},
    {"hidden_dropout_prob", offsetof(cldsa_config, expert_dropout), 0, 0.999},
    {"router_jitter_noise", offsetof(cldsa_config, router_noise), 0, 1e3},
    {"rope_theta", offsetof(cldsa_config, rope_theta), 1, 1e12},
    {"layer_norm_eps", offsetof(cldsa_config, layer_norm_eps), 1e-20, 1},
    {"rms_norm_eps", offsetof(cldsa_config, rms_norm_eps), 1e-20, 1},
    {"initializer_range", offsetof(cldsa_config, initializer_range), 0, 1e3},
    {"keep_ratio", offsetof(cldsa_config, keep_ratio), 0, 1},
};

enum { NUM_INTS = sizeof int_keys / sizeof *int_keys, NUM_NUMBERS = sizeof number_keys / sizeof *number_keys };

/* Keys outside the two tables. The first two only say to other programs what kind of model this is. */
static const char *const other_keys[] = {"model_type",      "architectures",      "is_causal",
                                         "sparsity_policy", "controller_factors", "torch_dtype"};
enum { NUM_OTHERS = sizeof other_keys / sizeof *other_keys };

static int *int_at(cldsa_config *config, const int_key *key) {
    return (int *)((char *)config + key->at);
}
static double *number_at(cldsa_config *config, const number_key *key) {
    return (double *)((char *)config + key->at);
}

cldsa_config cldsa_config_default(void) {
    return (cldsa_config){
        .vocab_size = 1000,
        .hidden_size = 256,
        .num_layers = 4,
        .num_heads = 8,
        .max_positions = 2048,
        .q_lora_rank = 64,
        .kv_lora_rank = 64,
        .qk_nope_head_dim = 16,
        .qk_rope_head_dim = 16,
        .v_head_dim = 32,
        .num_experts = 4,
        .experts_per_token = 2,
        .expert_size = 1024,
        .index_heads = 4,
        .index_head_dim = 64,
        .controller_dim = 64,
        .controller_length_dim = 32,
        .controller_adapter_dim = 16,
        .controller_heads = 4,
        .controller_use = CLDSA_CONTROLLER_HYBRID,
        .attention_dropout = 0.1,
        .expert_dropout = 0.1,
        .router_noise = 0.1,
        .rope_theta = 10000,
        .layer_norm_eps = 1e-5,
        .rms_norm_eps = 1e-6,
        .initializer_range = 0.02,
        .policy = "fixed",
        .keep_ratio = 0.5,
    };
}

static void set_policy(cldsa_config *config, const char *name) {
    snprintf(config->policy, sizeof config->policy, "%s", name);
}

/* The whole decimal number behind `stem`; -1 if `text` has another form. */
static long suffix_number(const char *text, const char *stem) {
    size_t length = strlen(stem);
    if (strncmp(text, stem, length) != 0 || text[length] < '0' || text[length] > '9')
        return -1;
    char *end = NULL;
    long value = strtol(text + length, &end, 10);
    return *end == '\0' ? value : -1;
}

cldsa_status cldsa_config_set_variant(cldsa_config *config, const char *variant) {
    static const char *const forms[] = {"dense",           "fixed25",  "fixed50",         "fixed75",
                                        "topk64",          "adaptive", "adaptive-length", "adaptive-complexity",
                                        "adaptive-entropy"};
    long number = 0;
    if (strcmp(variant, "dense") == 0) {
        set_policy(config, "dense");
        return CLDSA_SUCCESS;
    }
    if ((number = suffix_number(variant, "fixed")) >= 1 && number <= 100) {
        set_policy(config, "fixed");
        config->keep_ratio = (double)number / 100;
        config->index_topk = 0;
        return CLDSA_SUCCESS;
    }
    if ((number = suffix_number(variant, "topk")) >= 1 && number <= 1 << 24) {
        set_policy(config, "fixed");
        config->index_topk = (int)number;
        return CLDSA_SUCCESS;
    }
    if (strcmp(variant, "adaptive") == 0) {
        set_policy(config, "controller");
        config->controller_use = CLDSA_CONTROLLER_HYBRID;
        return CLDSA_SUCCESS;
    }
    for (int i = 0; i < 3 && strncmp(variant, "adaptive-", 9) == 0; ++i)
        if (strcmp(variant + 9, factor_names[i]) == 0) {
            set_policy(config, "controller");
            config->controller_use = factor_bits[i];
            return CLDSA_SUCCESS;
        }
    const char *near = cldsa_nearest_name(variant, forms, sizeof forms / sizeof *forms);
    return cldsa_fail(
        CLDSA_INVALID_ARGUMENT,
        "variant \"%s\" is unknown%s%s; known are dense, fixedN (N per cent kept, 1 to 100), topkN (N keys kept, from "
        "1), adaptive, adaptive-length, adaptive-complexity and adaptive-entropy",
        variant, near ? "; perhaps " : "", near ? near : "");
}

/* ---- checks --------------------------------------------------------------------------------------------------- */

cldsa_status cldsa_config_check(const cldsa_config *config, const char *source) {
    cldsa_config copy = *config;
    for (int i = 0; i < NUM_INTS; ++i) {
        int value = *int_at(&copy, &int_keys[i]);
        if (value < int_keys[i].min || value > int_keys[i].max)
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is %d; it must be %d .. %d", source, int_keys[i].key,
                              value, int_keys[i].min, int_keys[i].max);
    }
    for (int i = 0; i < NUM_NUMBERS; ++i) {
        double value = *number_at(&copy, &number_keys[i]);
        if (!(value >= number_keys[i].min && value <= number_keys[i].max))
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is %g; it must be %g .. %g", source, number_keys[i].key,
                              value, number_keys[i].min, number_keys[i].max);
    }
    if (config->qk_rope_head_dim % 2 != 0)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: qk_rope_head_dim is %d; it must be even", source,
                          config->qk_rope_head_dim);
    if (config->experts_per_token > config->num_experts)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT,
                          "%s: num_experts_per_tok is %d; it must be at most n_routed_experts (%d)", source,
                          config->experts_per_token, config->num_experts);
    const cldsa_policy *policy = NULL;
    cldsa_status status = cldsa_find_policy(config->policy, &policy);
    if (status != CLDSA_SUCCESS)
        return cldsa_fail_prefix(CLDSA_INVALID_ARGUMENT, "%s: sparsity_policy", source);
    if (policy == &cldsa_policy_controller && config->hidden_size % config->controller_heads != 0)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: controller_entropy_heads is %d; it must divide hidden_size (%d)",
                          source, config->controller_heads, config->hidden_size);
    if (policy == &cldsa_policy_controller && (config->controller_use < 1 || config->controller_use > 7))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: controller_factors names no factor", source);
    if (policy == &cldsa_policy_fixed && config->index_topk == 0 && config->keep_ratio <= 0)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: keep_ratio is %g; it must be above 0", source,
                          config->keep_ratio);
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_config_check_length(const cldsa_config *config, int length) {
    if (strcmp(config->policy, cldsa_policy_fixed.name) == 0 && config->index_topk > length)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "index_topk is %d; it must be 1 to %d, the length of a sequence",
                          config->index_topk, length);
    return CLDSA_SUCCESS;
}

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

cldsa_status cldsa_config_from_json(const cJSON *object, const char *source, cldsa_config *config) {
    const char *names[NUM_INTS + NUM_NUMBERS + NUM_OTHERS];
    size_t count = 0;
    for (int i = 0; i < NUM_INTS; ++i)
        names[count++] = int_keys[i].key;
    for (int i = 0; i < NUM_NUMBERS; ++i)
        names[count++] = number_keys[i].key;
    for (int i = 0; i < NUM_OTHERS; ++i)
        names[count++] = other_keys[i];
    CLDSA_TRY(cldsa_json_check_keys(object, source, names, count));

    for (int i = 0; i < NUM_INTS; ++i)
        CLDSA_TRY(cldsa_json_get_int(object, source, int_keys[i].key, int_keys[i].min, int_keys[i].max,
                                     int_at(config, &int_keys[i])));
    for (int i = 0; i < NUM_NUMBERS; ++i)
        CLDSA_TRY(cldsa_json_get_number(object, source, number_keys[i].key, number_keys[i].min, number_keys[i].max,
                                        number_at(config, &number_keys[i])));
    CLDSA_TRY(cldsa_json_get_bool(object, source, "is_causal", &config->causal));
    const char *policy = config->policy;
    CLDSA_TRY(cldsa_json_get_string(object, source, "sparsity_policy", &policy));
    if (policy != config->policy) {
        const cldsa_policy *known = NULL;
        cldsa_status status = cldsa_find_policy(policy, &known);
        if (status != CLDSA_SUCCESS)
            return cldsa_fail_prefix(CLDSA_INVALID_ARGUMENT, "%s: sparsity_policy", source);
        set_policy(config, known->name);
    }
    int form = -1;
    CLDSA_TRY(cldsa_json_get_enum(object, source, "controller_factors", factor_names, &form));
    if (form >= 0)
        config->controller_use = factor_bits[form];
    return cldsa_config_check(config, source);
}

cldsa_status cldsa_config_read(const char *path, cldsa_config *out) {
    cJSON *root = NULL;
    CLDSA_TRY(cldsa_json_read(path, &root));
    *out = cldsa_config_default();
    cldsa_status status = cldsa_config_from_json(root, path, out);
    cJSON_Delete(root);
    return status;
}

static const char *factor_name(int use) {
    for (int i = 0; i < 3; ++i)
        if (factor_bits[i] == use)
            return factor_names[i];
    return "hybrid";
}

cJSON *cldsa_config_to_json(const cldsa_config *config) {
    cldsa_config copy = *config;
    cJSON *root = cJSON_CreateObject();
    bool ok = root && cJSON_AddStringToObject(root, "model_type", "cldsa") &&
              cJSON_AddStringToObject(root, "torch_dtype", "float32");
    for (int i = 0; ok && i < NUM_INTS; ++i)
        ok = cJSON_AddNumberToObject(root, int_keys[i].key, *int_at(&copy, &int_keys[i]));
    for (int i = 0; ok && i < NUM_NUMBERS; ++i)
        ok = cJSON_AddNumberToObject(root, number_keys[i].key, *number_at(&copy, &number_keys[i]));
    ok = ok && cJSON_AddBoolToObject(root, "is_causal", config->causal) &&
         cJSON_AddStringToObject(root, "sparsity_policy", config->policy) &&
         cJSON_AddStringToObject(root, "controller_factors", factor_name(config->controller_use));
    if (ok)
        return root;
    cJSON_Delete(root);
    return NULL;
}

cldsa_status cldsa_config_write(const char *path, const cldsa_config *config) {
    cJSON *root = cldsa_config_to_json(config);
    if (!root)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for the config", path);
    cldsa_status status = cldsa_json_write(path, root);
    cJSON_Delete(root);
    return status;
}
