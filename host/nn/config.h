/*
 * What a model is: sizes, attention form and sparsity policy. Stored as config.json with Hugging Face's field names
 * where those exist (the DeepSeek-V3.2 family's), so that other programs read it.
 */
#ifndef CLDSA_CONFIG_H
#define CLDSA_CONFIG_H

#include <cldsa/status.h>
#include <stdbool.h>
#include <stdint.h>

enum { CLDSA_POLICY_NAME_MAX = 32 };

/* Factors of the published controller that take part (bits, as in cldsa_controller_k_args.use). */
enum {
    CLDSA_CONTROLLER_LENGTH = 1,
    CLDSA_CONTROLLER_COMPLEXITY = 2,
    CLDSA_CONTROLLER_ENTROPY = 4,
    CLDSA_CONTROLLER_HYBRID = 7
};

/* The comment gives the key in config.json and the default, which is the published experiment's. */
typedef struct cldsa_config {
    int vocab_size;                     /* vocab_size: 1000 */
    int hidden_size;                    /* hidden_size: 256; even */
    int num_layers;                     /* num_hidden_layers: 4 */
    int num_heads;                      /* num_attention_heads: 8 */
    int max_positions;                  /* max_position_embeddings: 2048; the longest sequence */
    int q_lora_rank;                    /* q_lora_rank: 64 */
    int kv_lora_rank;                   /* kv_lora_rank: 64 */
    int qk_nope_head_dim;               /* qk_nope_head_dim: 16 */
    int qk_rope_head_dim;               /* qk_rope_head_dim: 16; even */
    int v_head_dim;                     /* v_head_dim: 32 */
    int num_experts;                    /* n_routed_experts: 4 */
    int experts_per_token;              /* num_experts_per_tok: 2 */
    int expert_size;                    /* moe_intermediate_size: 1024 */
    int index_heads;                    /* index_n_heads: 4 */
    int index_head_dim;                 /* index_head_dim: 64 */
    int controller_dim;                 /* controller_complexity_dim: 64; hidden width of the next-state predictor */
    int controller_length_dim;          /* controller_length_dim: 32 */
    int controller_adapter_dim;         /* controller_adapter_dim: 16 */
    int controller_heads;               /* controller_entropy_heads: 4; divides hidden_size */
    int controller_use;                 /* controller_factors: "hybrid" ("length", "complexity", "entropy") */
    double attention_dropout;           /* attention_dropout: 0.1, on the attention weights */
    double expert_dropout;              /* hidden_dropout_prob: 0.1, inside the experts */
    double router_noise;                /* router_jitter_noise: 0.1, standard deviation while training */
    double rope_theta;                  /* rope_theta: 10000 */
    double layer_norm_eps;              /* layer_norm_eps: 1e-5 */
    double rms_norm_eps;                /* rms_norm_eps: 1e-6 */
    double initializer_range;           /* initializer_range: 0.02 */
    bool causal;                        /* is_causal: false; a row then sees itself and what precedes it */
    char policy[CLDSA_POLICY_NAME_MAX]; /* sparsity_policy: "fixed"; see policy.h for the names */
    double keep_ratio;                  /* keep_ratio: 0.5, of the keys a row sees; policy "fixed" with index_topk 0 */
    int index_topk;                     /* index_topk: 0; above 0 the number of keys each row keeps, policy "fixed" */
} cldsa_config;

/* The published experiment's model with a fixed keep-ratio of one half. */
cldsa_config cldsa_config_default(void);

/*
 * Sets policy and its settings from a variant's name: "dense", "fixed25" (any whole per cent), "topk64" (any k),
 * "adaptive", and the controller's forms "adaptive-length", "adaptive-complexity", "adaptive-entropy".
 * CLDSA_INVALID_ARGUMENT names the nearest known form.
 */
cldsa_status cldsa_config_set_variant(cldsa_config *config, const char *variant);

/* Ranges and what must divide what; the message says "SOURCE: key is V; it must be ...". */
cldsa_status cldsa_config_check(const cldsa_config *config, const char *source);

/* A row of `length` keys must have as many as the policy wants to keep: a number above it would pass for dense. */
cldsa_status cldsa_config_check_length(const cldsa_config *config, int length);

/* Reads a whole file; absent keys keep their defaults, unknown keys are refused with the nearest known one. */
cldsa_status cldsa_config_read(const char *path, cldsa_config *out);
cldsa_status cldsa_config_write(const char *path, const cldsa_config *config);

/* The same inside another JSON object, which trainers' files embed; `object` is a cJSON object. */
struct cJSON;
cldsa_status cldsa_config_from_json(const struct cJSON *object, const char *source, cldsa_config *config);
struct cJSON *cldsa_config_to_json(const cldsa_config *config); /* NULL without memory */

/* Number of parameters: 10,534,904 by default, 11,789,288 with policy "controller". 0 if the policy is unknown. */
int64_t cldsa_config_num_parameters(const cldsa_config *config);

#endif
