#include "host/nn/attention.h"

/* Sizes that appear everywhere below. */
typedef struct mla_sizes {
    int64_t d, heads, head, nope, rope, value; /* head = nope + rope */
    int64_t q_rank, kv_rank, latent;           /* latent = q_rank + kv_rank + rope */
} mla_sizes;

static mla_sizes sizes_of(const cldsa_config *config) {
    mla_sizes s = {.d = config->hidden_size,
                   .heads = config->num_heads,
                   .nope = config->qk_nope_head_dim,
                   .rope = config->qk_rope_head_dim,
                   .value = config->v_head_dim,
                   .q_rank = config->q_lora_rank,
                   .kv_rank = config->kv_lora_rank};
    s.head = s.nope + s.rope;
    s.latent = s.q_rank + s.kv_rank + s.rope;
    return s;
}

cldsa_status cldsa_attention_declare(cldsa_attention *attention, cldsa_params *params, const cldsa_config *config,
                                     const char *prefix, const char *common) {
    const mla_sizes s = sizes_of(config);
    const float scale = (float)config->initializer_range;
    const struct {
        const char *name;
        int *index;
        int rank;
        int64_t rows, columns;
        bool joined;
    } list[] = {
        {"q_a_proj.weight", &attention->q_a, 2, s.q_rank, s.d, false},
        {"kv_a_proj_with_mqa.weight", &attention->kv_a, 2, s.kv_rank + s.rope, s.d, true},
        {"q_a_layernorm.weight", &attention->q_norm, 1, s.q_rank, 0, false},
        {"q_b_proj.weight", &attention->q_b, 2, s.heads * s.head, s.q_rank, false},
        {"kv_a_layernorm.weight", &attention->kv_norm, 1, s.kv_rank, 0, false},
        {"kv_b_proj.weight", &attention->kv_b, 2, s.heads * (s.nope + s.value), s.kv_rank, false},
        {"o_proj.weight", &attention->o_proj, 2, s.d, s.heads * s.value, false},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; ++i) {
        const bool norm = list[i].rank == 1;
        const cldsa_param_spec spec = {.rank = list[i].rank,
                                       .shape = {list[i].rows, list[i].columns},
                                       .init = norm ? CLDSA_INIT_CONSTANT : CLDSA_INIT_NORMAL,
                                       .scale = norm ? 1 : scale,
                                       .trainable = true,
                                       .joined = list[i].joined};
        CLDSA_TRY(cldsa_params_add_in(params, prefix, common, list[i].name, spec, list[i].index));
    }
    return CLDSA_SUCCESS;
}

/*
 * The latent rows are q_a x ++ c ++ rope key. RMSNorm reads the first columns of wide rows, so for it the part that
 * starts with c is the same rows seen from q_rank columns further on. That view ends q_rank elements behind the last
 * row; nothing there is touched, but the memory must reach so far: one row more is placed than is used.
 */
static cldsa_tensor place_latent(cldsa_arena *arena, int64_t rows, int64_t columns) {
    return cldsa_as_matrix(CLDSA_PLACE(arena, CLDSA_F32, rows + 1, columns), rows, columns);
}

static cldsa_tensor from_column(cldsa_tensor rows, int64_t column) {
    rows.offset += (size_t)column;
    return rows;
}

void cldsa_attention_place(cldsa_attention *attention, const cldsa_nn *nn, cldsa_arena *kept, cldsa_arena *scratch) {
    const mla_sizes s = sizes_of(nn->config);
    const int64_t b = nn->batch, len = nn->seq_len, n = nn->tokens;
    attention->latent = place_latent(kept, n, s.latent);
    attention->q_latent = CLDSA_PLACE(kept, CLDSA_F32, n, s.q_rank);
    attention->q_rstd = CLDSA_PLACE(kept, CLDSA_F32, n);
    attention->kv_latent = CLDSA_PLACE(kept, CLDSA_F32, n, s.kv_rank);
    attention->kv_rstd = CLDSA_PLACE(kept, CLDSA_F32, n);
    attention->q = CLDSA_PLACE(kept, CLDSA_F32, b, len, s.heads, s.head);
    attention->k = CLDSA_PLACE(kept, CLDSA_F32, b, len, s.heads, s.head);
    attention->v = CLDSA_PLACE(kept, CLDSA_F32, b, len, s.heads, s.value);
    attention->heads = CLDSA_PLACE(kept, CLDSA_F32, b, len, s.heads, s.value);
    attention->lse = CLDSA_PLACE(kept, CLDSA_F32, b, len, s.heads);
    attention->q_flat = CLDSA_PLACE(scratch, CLDSA_F32, b, len, s.heads, s.head);
    attention->kv_flat = CLDSA_PLACE(scratch, CLDSA_F32, b, len, s.heads, s.nope + s.value);
}

void cldsa_attention_place_backward(cldsa_attention *attention, const cldsa_nn *nn, cldsa_arena *scratch) {
    const mla_sizes s = sizes_of(nn->config);
    const int64_t b = nn->batch, len = nn->seq_len, n = nn->tokens;
    attention->dheads = CLDSA_PLACE(scratch, CLDSA_F32, b, len, s.heads, s.value);
    attention->dq = CLDSA_PLACE(scratch, CLDSA_F32, b, len, s.heads, s.head);
    attention->dk = CLDSA_PLACE(scratch, CLDSA_F32, b, len, s.heads, s.head);
    attention->dv = CLDSA_PLACE(scratch, CLDSA_F32, b, len, s.heads, s.value);
    attention->dq_flat = CLDSA_PLACE(scratch, CLDSA_F32, b, len, s.heads, s.head);
    attention->dkv_flat = CLDSA_PLACE(scratch, CLDSA_F32, b, len, s.heads, s.nope + s.value);
    attention->dq_latent = CLDSA_PLACE(scratch, CLDSA_F32, n, s.q_rank);
    attention->dkv_latent = CLDSA_PLACE(scratch, CLDSA_F32, n, s.kv_rank);
    attention->dlatent = place_latent(scratch, n, s.latent);
}

/* The weights of q_a and kv_a as the one matrix they are in memory. */
static cldsa_tensor joined_projection(cldsa_tensor q_a, const mla_sizes *s) {
    return cldsa_as_matrix(q_a, s->latent, s->d);
}

cldsa_status cldsa_attention_forward(cldsa_attention *attention, cldsa_nn *nn, int layer, cldsa_tensor x,
                                     cldsa_tensor mask, cldsa_tensor y) {
    const mla_sizes s = sizes_of(nn->config);
    const cldsa_params *params = nn->params;
    const int64_t n = nn->tokens;
    const float eps = (float)nn->config->rms_norm_eps;
    const cldsa_tensor none = {0};

    CLDSA_TRY(cldsa_linear(nn, x, joined_projection(cldsa_param_value(params, attention->q_a), &s), none,
                           CLDSA_ACT_NONE, attention->latent));
    CLDSA_NN_OP(nn, rms_norm, .x = attention->latent, .weight = cldsa_param_value(params, attention->q_norm),
                .y = attention->q_latent, .rstd = attention->q_rstd, .eps = eps);
    CLDSA_NN_OP(nn, rms_norm, .x = from_column(attention->latent, s.q_rank),
                .weight = cldsa_param_value(params, attention->kv_norm), .y = attention->kv_latent,
                .rstd = attention->kv_rstd, .eps = eps);
    CLDSA_TRY(cldsa_linear(nn, attention->q_latent, cldsa_param_value(params, attention->q_b), none, CLDSA_ACT_NONE,
                           cldsa_as_matrix(attention->q_flat, n, s.heads * s.head)));
    CLDSA_TRY(cldsa_linear(nn, attention->kv_latent, cldsa_param_value(params, attention->kv_b), none, CLDSA_ACT_NONE,
                           cldsa_as_matrix(attention->kv_flat, n, s.heads * (s.nope + s.value))));
    CLDSA_NN_OP(nn, mla_pack, .q_in = attention->q_flat, .kv = attention->kv_flat,
                .kv_a = cldsa_as_rank3(attention->latent, nn->batch, nn->seq_len, s.latent), .q = attention->q,
                .k = attention->k, .v = attention->v, .rope_dim = (int)s.rope, .theta = (float)nn->config->rope_theta,
                .style = CLDSA_ROPE_REGROUP);
    attention->mask = mask;
    CLDSA_NN_OP(nn, masked_attention, .q = attention->q, .k = attention->k, .v = attention->v, .mask = mask,
                .out = attention->heads, .lse = attention->lse,
                .range = nn->config->causal ? CLDSA_RANGE_CAUSAL : CLDSA_RANGE_ALL,
                .dropout_p = nn->training ? (float)nn->config->attention_dropout : 0, .dropout_seed = nn->seed,
                .dropout_stream = cldsa_draw_stream(layer, CLDSA_DRAW_ATTENTION));
    return cldsa_linear(nn, cldsa_as_matrix(attention->heads, n, s.heads * s.value),
                        cldsa_param_value(params, attention->o_proj), none, CLDSA_ACT_NONE, y);
}

cldsa_status cldsa_attention_backward(cldsa_attention *attention, cldsa_nn *nn, int layer, cldsa_tensor x,
                                      cldsa_tensor dy, cldsa_tensor dx) {
    const mla_sizes s = sizes_of(nn->config);
    const cldsa_params *params = nn->params;
    const int64_t n = nn->tokens;

    CLDSA_TRY(cldsa_linear_backward(
        nn, cldsa_as_matrix(attention->heads, n, s.heads * s.value), cldsa_param_value(params, attention->o_proj), dy,
        0, cldsa_as_matrix(attention->dheads, n, s.heads * s.value), cldsa_param_grad(params, attention->o_proj)));
    CLDSA_NN_OP(nn, masked_attention_backward, .q = attention->q, .k = attention->k, .v = attention->v,
                .mask = attention->mask, .out = attention->heads, .lse = attention->lse, .dout = attention->dheads,
                .dq = attention->dq, .dk = attention->dk, .dv = attention->dv,
                .range = nn->config->causal ? CLDSA_RANGE_CAUSAL : CLDSA_RANGE_ALL,
                .dropout_p = nn->training ? (float)nn->config->attention_dropout : 0, .dropout_seed = nn->seed,
                .dropout_stream = cldsa_draw_stream(layer, CLDSA_DRAW_ATTENTION));
    CLDSA_NN_OP(nn, mla_pack_backward, .dq = attention->dq, .dk = attention->dk, .dv = attention->dv,
                .dq_in = attention->dq_flat, .dkv = attention->dkv_flat,
                .dkv_a = cldsa_as_rank3(attention->dlatent, nn->batch, nn->seq_len, s.latent), .rope_dim = (int)s.rope,
                .theta = (float)nn->config->rope_theta, .style = CLDSA_ROPE_REGROUP);
    CLDSA_TRY(cldsa_linear_backward(nn, attention->q_latent, cldsa_param_value(params, attention->q_b),
                                    cldsa_as_matrix(attention->dq_flat, n, s.heads * s.head), 0, attention->dq_latent,
                                    cldsa_param_grad(params, attention->q_b)));
    CLDSA_TRY(cldsa_linear_backward(nn, attention->kv_latent, cldsa_param_value(params, attention->kv_b),
                                    cldsa_as_matrix(attention->dkv_flat, n, s.heads * (s.nope + s.value)), 0,
                                    attention->dkv_latent, cldsa_param_grad(params, attention->kv_b)));

    /* The two norms and the packing each write their own columns of dlatent. */
    CLDSA_NN_OP(nn, rms_norm_backward, .x = attention->latent, .weight = cldsa_param_value(params, attention->q_norm),
                .rstd = attention->q_rstd, .dy = attention->dq_latent, .dx = attention->dlatent,
                .dweight = cldsa_param_grad(params, attention->q_norm));
    CLDSA_NN_OP(nn, rms_norm_backward, .x = from_column(attention->latent, s.q_rank),
                .weight = cldsa_param_value(params, attention->kv_norm), .rstd = attention->kv_rstd,
                .dy = attention->dkv_latent, .dx = from_column(attention->dlatent, s.q_rank),
                .dweight = cldsa_param_grad(params, attention->kv_norm));
    return cldsa_linear_backward(nn, x, joined_projection(cldsa_param_value(params, attention->q_a), &s),
                                 attention->dlatent, 0, dx,
                                 joined_projection(cldsa_param_grad(params, attention->q_a), &s));
}
