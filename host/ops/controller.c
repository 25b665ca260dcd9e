/* The published sparsity controller. Kernels: cl/controller_statistics.cl, cl/controller_entropy_{vec,simt}.cl. */
#include <cldsa/controller.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/ops/op.h"

enum { B, S, D, W, U, A };
static const char *const controller_dims[] = {"B", "S", "D", "W", "U", "A", NULL};

#define F32 CLDSA_ACCEPT_F32
#define I32 CLDSA_ACCEPT(CLDSA_I32)

static bool on_cpu(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->is_cpu;
}

static cldsa_status two_positions(const cldsa_run *run) {
    if (run->dims[S] < 2)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: h has %lld positions; at least 2", run->op->name,
                          (long long)run->dims[S]);
    return CLDSA_SUCCESS;
}

static double one_pass_bytes(const cldsa_run *run) {
    return 4.0 * (double)run->dims[B] * (double)run->dims[S] * (double)run->dims[D];
}
static double two_pass_bytes(const cldsa_run *run) {
    return 2.0 * one_pass_bytes(run);
}
static double moments_flops(const cldsa_run *run) {
    return one_pass_bytes(run);
}
static double perplexity_flops(const cldsa_run *run) {
    return 2.5 * one_pass_bytes(run);
}

/* ---- controller_moments --------------------------------------------------------------------------------------- */

static const cldsa_field moments_fields[] = {
    CLDSA_IN(cldsa_controller_moments_args, h, "B S D", F32, "hidden states"),
    CLDSA_OUT(cldsa_controller_moments_args, mean, "B D", F32, "mean over positions"),
    CLDSA_OUT(cldsa_controller_moments_args, diversity, "B", F32, "mean over features of the variance over positions"),
    CLDSA_OUT(cldsa_controller_moments_args, variance, "B", F32, "variance over positions and features together"),
    {0},
};

static void moments_defaults(const cldsa_run *run, int *tune) {
    if (on_cpu(run))
        memcpy(tune, (int[]){1, 16}, 2 * sizeof *tune);
}

static bool moments_legal(const cldsa_run *run, const int *tune) {
    (void)run;
    return tune[0] == 1 ? tune[1] == 16 : tune[0] >= tune[1];
}

static void moments_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    *preferred = *minimum = (size_t)(run->dims[B] * run->dims[D]) * sizeof(float);
}

static cldsa_status moments_enqueue(cldsa_run *run) {
    const cldsa_controller_moments_args *a = run->args;
    const int64_t *d = run->dims;
    size_t wg = (size_t)cldsa_run_tune(run, "WG");
    cldsa_tensor m2 = cldsa_run_scratch(run, 0, CLDSA_F32, d[B] * d[D]);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DVEC=1");
    cldsa_kernel *columns, *finish;
    CLDSA_TRY(cldsa_run_kernel(run, "controller_moments_columns", options, &columns));
    CLDSA_TRY(cldsa_run_kernel(run, "controller_moments", options, &finish));

    size_t blocks = (size_t)cldsa_ceil_div(d[D], cldsa_run_tune(run, "LANES"));
    size_t global[2] = {blocks * wg, (size_t)d[B]}, local[2] = {wg, 1};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, columns, 2, global, local, CLDSA_ARG_TENSOR(a->h), CLDSA_ARG_TENSOR(a->mean),
                            CLDSA_ARG_TENSOR(m2), CLDSA_ARG_U32(d[S]), CLDSA_ARG_U32(d[D])));
    size_t per_sequence = (size_t)d[B] * wg;
    return CLDSA_ENQUEUE(&run->stream, finish, 1, &per_sequence, &wg, CLDSA_ARG_TENSOR(a->mean), CLDSA_ARG_TENSOR(m2),
                         CLDSA_ARG_TENSOR(a->diversity), CLDSA_ARG_TENSOR(a->variance), CLDSA_ARG_U32(d[S]),
                         CLDSA_ARG_U32(d[D]));
}

static const cldsa_variant moments_any = {
    .name = "any",
    .file = "controller_statistics.cl",
    .tunables = {{"WG", 256, {1, 64, 128, 256}, "work-items per group"},
                 {"LANES", 32, {16, 32, 64}, "columns per group"}},
    .defaults = moments_defaults,
    .legal = moments_legal,
    .workspace = moments_workspace,
    .enqueue = moments_enqueue,
};

static void moments_reference(const cldsa_reference_call *call) {
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    for (int64_t b = 0; b < d[B]; ++b) {
        const double *h = t[0].data + b * d[S] * d[D];
        double all = 0, within = 0, total = 0;
        for (int64_t c = 0; c < d[D]; ++c) {
            double mean = 0;
            for (int64_t s = 0; s < d[S]; ++s)
                mean += h[s * d[D] + c];
            all += mean;
            t[1].data[b * d[D] + c] = mean /= (double)d[S];
            for (int64_t s = 0; s < d[S]; ++s)
                within += pow(h[s * d[D] + c] - mean, 2);
        }
        all /= (double)(d[S] * d[D]);
        for (int64_t i = 0; i < d[S] * d[D]; ++i)
            total += pow(h[i] - all, 2);
        t[2].data[b] = within / (double)((d[S] - 1) * d[D]);
        t[3].data[b] = total / (double)(d[S] * d[D] - 1);
    }
}

static const cldsa_variant *const moments_variants[] = {&moments_any, NULL};
const cldsa_op cldsa_op_controller_moments = {
    .name = "controller_moments",
    .summary = "mean and variances of a sequence's hidden states",
    .args_size = sizeof(cldsa_controller_moments_args),
    .dims = controller_dims,
    .fields = moments_fields,
    .variants = moments_variants,
    .check = two_positions,
    .reference = moments_reference,
    .flops = moments_flops,
    .bytes = one_pass_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(controller_moments)

/* ---- controller_perplexity ------------------------------------------------------------------------------------ */

static const cldsa_field perplexity_fields[] = {
    CLDSA_IN(cldsa_controller_perplexity_args, pred, "B S D", F32, "predictor's output before its LayerNorm"),
    CLDSA_IN(cldsa_controller_perplexity_args, h, "B S D", F32, "hidden states"),
    CLDSA_IN(cldsa_controller_perplexity_args, weight, "D", F32, "LayerNorm's weight"),
    CLDSA_IN(cldsa_controller_perplexity_args, bias, "D", F32, "LayerNorm's bias"),
    CLDSA_OUT(cldsa_controller_perplexity_args, perplexity, "B", F32, "mean squared error of the next state"),
    CLDSA_PARAM(cldsa_controller_perplexity_args, eps, FLOAT, 1e-5, 0, 1, "LayerNorm's epsilon"),
    {0},
};

static void perplexity_defaults(const cldsa_run *run, int *tune) {
    if (on_cpu(run))
        memcpy(tune, (int[]){1, 16, 16}, 3 * sizeof *tune);
}

static int64_t perplexity_tiles(const cldsa_run *run) {
    return cldsa_ceil_div(run->dims[S] - 1, cldsa_run_tune(run, "ROWS"));
}

static void perplexity_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    *preferred = *minimum = (size_t)(run->dims[B] * perplexity_tiles(run)) * sizeof(float);
}

static cldsa_status perplexity_enqueue(cldsa_run *run) {
    const cldsa_controller_perplexity_args *a = run->args;
    const int64_t *d = run->dims;
    size_t wg = (size_t)cldsa_run_tune(run, "WG");
    int64_t tiles = perplexity_tiles(run);
    cldsa_tensor partial = cldsa_run_scratch(run, 0, CLDSA_F32, d[B] * tiles);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, " ");
    cldsa_kernel *rows, *finish;
    CLDSA_TRY(cldsa_run_kernel(run, "controller_perplexity_rows", options, &rows));
    CLDSA_TRY(cldsa_run_kernel(run, "controller_perplexity", options, &finish));

    size_t global[2] = {(size_t)tiles * wg, (size_t)d[B]}, local[2] = {wg, 1};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, rows, 2, global, local, CLDSA_ARG_TENSOR(a->pred), CLDSA_ARG_TENSOR(a->h),
                            CLDSA_ARG_TENSOR(a->weight), CLDSA_ARG_TENSOR(a->bias), CLDSA_ARG_TENSOR(partial),
                            CLDSA_ARG_U32(d[S]), CLDSA_ARG_U32(d[D]), CLDSA_ARG_F32(a->eps)));
    size_t per_sequence = (size_t)d[B] * wg;
    return CLDSA_ENQUEUE(&run->stream, finish, 1, &per_sequence, &wg, CLDSA_ARG_TENSOR(partial),
                         CLDSA_ARG_TENSOR(a->perplexity), CLDSA_ARG_U32(tiles), CLDSA_ARG_U32(d[S]),
                         CLDSA_ARG_U32(d[D]));
}

static const cldsa_variant perplexity_any = {
    .name = "any",
    .file = "controller_statistics.cl",
    .tunables = {{"WG", 64, {1, 32, 64, 128, 256}, "work-items per group"},
                 {"VEC", 4, {1, 4, 8, 16}, "columns per load"},
                 {"ROWS", 8, {4, 8, 16, 32, 64}, "positions per group"}},
    .defaults = perplexity_defaults,
    .workspace = perplexity_workspace,
    .enqueue = perplexity_enqueue,
};

static double row_error(const double *pred, const double *next, const double *weight, const double *bias, int64_t dim,
                        double eps) {
    double mean = 0, variance = 0, error = 0;
    for (int64_t c = 0; c < dim; ++c)
        mean += pred[c] / (double)dim;
    for (int64_t c = 0; c < dim; ++c)
        variance += pow(pred[c] - mean, 2) / (double)dim;
    for (int64_t c = 0; c < dim; ++c)
        error += pow((pred[c] - mean) / sqrt(variance + eps) * weight[c] + bias[c] - next[c], 2);
    return error;
}

static void perplexity_reference(const cldsa_reference_call *call) {
    const cldsa_controller_perplexity_args *a = call->args;
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    for (int64_t b = 0; b < d[B]; ++b) {
        double sum = 0;
        for (int64_t s = 0; s + 1 < d[S]; ++s) {
            int64_t at = (b * d[S] + s) * d[D];
            sum += row_error(t[0].data + at, t[1].data + at + d[D], t[2].data, t[3].data, d[D], (double)a->eps);
        }
        t[4].data[b] = sum / (double)((d[S] - 1) * d[D]);
    }
}

static const cldsa_variant *const perplexity_variants[] = {&perplexity_any, NULL};
const cldsa_op cldsa_op_controller_perplexity = {
    .name = "controller_perplexity",
    .summary = "how well each hidden state is predicted from the one before",
    .args_size = sizeof(cldsa_controller_perplexity_args),
    .dims = controller_dims,
    .fields = perplexity_fields,
    .variants = perplexity_variants,
    .check = two_positions,
    .reference = perplexity_reference,
    .flops = perplexity_flops,
    .bytes = two_pass_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(controller_perplexity)

/* ---- controller_entropy --------------------------------------------------------------------------------------- */

static const cldsa_field entropy_fields[] = {
    CLDSA_IN(cldsa_controller_entropy_args, qk, "B S W", F32, "packed projection: q, k, anything"),
    CLDSA_OUT(cldsa_controller_entropy_args, entropy, "B", F32, "entropy of the mean attention distribution, nats"),
    CLDSA_PARAM(cldsa_controller_entropy_args, num_heads, INT, 4, 1, 1048576, "heads; divides d_model"),
    CLDSA_PARAM(cldsa_controller_entropy_args, d_model, INT, 0, 1, 1048576, "columns of q, and of k"),
    {0},
};

static cldsa_status entropy_check(const cldsa_run *run) {
    const cldsa_controller_entropy_args *a = run->args;
    if (a->d_model % a->num_heads)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "controller_entropy: num_heads is %d; it must divide d_model (%d)",
                          a->num_heads, a->d_model);
    if (run->dims[W] < 2 * (int64_t)a->d_model)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "controller_entropy: rows of qk have %lld columns; q and k need %lld",
                          (long long)run->dims[W], 2LL * a->d_model);
    return CLDSA_SUCCESS;
}

enum { VEC_QUERIES = 32, SIMT_QUERIES = 64, SIMT_WG = 256 };

/* How many work-items (vec) or groups (simt) share a head's queries: enough to fill the device, no more than tiles. */
static int64_t entropy_splits(const cldsa_run *run, int64_t queries) {
    const cldsa_controller_entropy_args *a = run->args;
    int64_t wanted = (int64_t)cldsa_run_tune(run, "WAVES") * cldsa_context_device_info(run->ctx)->compute_units;
    int64_t splits = cldsa_ceil_div(wanted, run->dims[B] * a->num_heads);
    int64_t tiles = cldsa_ceil_div(run->dims[S], queries);
    return splits < tiles ? splits : tiles;
}

static int64_t entropy_partials(const cldsa_run *run, int64_t queries) {
    const cldsa_controller_entropy_args *a = run->args;
    return run->dims[B] * a->num_heads * entropy_splits(run, queries);
}

/* Floats that one work-item of the vec kernel needs: packed queries and their scores. */
static int64_t vec_scratch(const cldsa_run *run) {
    const cldsa_controller_entropy_args *a = run->args;
    return VEC_QUERIES * (a->d_model / a->num_heads + run->dims[S]);
}

static void entropy_vec_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    int64_t partials = entropy_partials(run, VEC_QUERIES);
    *preferred = *minimum = (size_t)(partials * (run->dims[S] + vec_scratch(run))) * sizeof(float);
}

static void entropy_simt_workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    *preferred = *minimum = (size_t)(entropy_partials(run, SIMT_QUERIES) * run->dims[S]) * sizeof(float);
}

/* Both variants: partial column sums by `queries` at a time with `wg` work-items, then their sum and its entropy. */
static cldsa_status entropy_enqueue(cldsa_run *run, int64_t queries, size_t wg, int64_t scratch_floats,
                                    const char *finish_options, size_t finish_wg) {
    const cldsa_controller_entropy_args *a = run->args;
    const int64_t *d = run->dims;
    int head_dim = a->d_model / a->num_heads;
    int64_t splits = entropy_splits(run, queries), partials = entropy_partials(run, queries);
    cldsa_tensor partial = cldsa_run_scratch(run, 0, CLDSA_F32, partials * d[S]);
    cldsa_tensor scratch =
        cldsa_run_scratch(run, (size_t)(partials * d[S]) * sizeof(float), CLDSA_F32, partials * scratch_floats);
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DHEAD_DIM=%d", head_dim);
    cldsa_kernel *scores, *finish;
    CLDSA_TRY(cldsa_run_kernel(run, "controller_entropy_scores", options, &scores));
    CLDSA_TRY(cldsa_get_kernel(run->ctx, "controller_statistics.cl", "controller_entropy", finish_options, &finish));

    size_t global[2] = {(size_t)splits * wg, (size_t)(d[B] * a->num_heads)}, local[2] = {wg, 1};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, scores, 2, global, local, CLDSA_ARG_TENSOR(a->qk), CLDSA_ARG_TENSOR(partial),
                            CLDSA_ARG_TENSOR(scratch), CLDSA_ARG_U32(a->num_heads), CLDSA_ARG_U32(d[S]),
                            CLDSA_ARG_U32(d[W]), CLDSA_ARG_U32(a->d_model), CLDSA_ARG_F32(1 / sqrt(head_dim))));
    size_t per_sequence = (size_t)d[B] * finish_wg;
    return CLDSA_ENQUEUE(&run->stream, finish, 1, &per_sequence, &finish_wg, CLDSA_ARG_TENSOR(partial),
                         CLDSA_ARG_TENSOR(a->entropy), CLDSA_ARG_U32(a->num_heads * splits), CLDSA_ARG_U32(d[S]),
                         CLDSA_ARG_F32(1 / ((double)a->num_heads * (double)d[S])));
}

static cldsa_status entropy_vec_enqueue(cldsa_run *run) {
    return entropy_enqueue(run, VEC_QUERIES, 1, vec_scratch(run), "-DWG=1 -DVEC=16", 1);
}

static cldsa_status entropy_simt_enqueue(cldsa_run *run) {
    return entropy_enqueue(run, SIMT_QUERIES, SIMT_WG, 0, "-DWG=256 -DVEC=1", SIMT_WG);
}

static bool entropy_simt_can_run(const cldsa_run *run) {
    return cldsa_context_device_info(run->ctx)->max_work_group_size >= SIMT_WG;
}

static const cldsa_variant entropy_vec = {
    .name = "vec",
    .file = "controller_entropy_vec.cl",
    .tunables = {{"KEYS", 12, {6, 8, 10, 12, 13}, "keys per register tile"},
                 {"WAVES", 4, {1, 2, 4, 8}, "work-items per compute unit"}},
    .workspace = entropy_vec_workspace,
    .enqueue = entropy_vec_enqueue,
};

static const cldsa_variant entropy_simt = {
    .name = "simt",
    .file = "controller_entropy_simt.cl",
    .tunables = {{"DEPTH", 16, {8, 16, 32}, "head columns per step through local memory"},
                 {"WAVES", 8, {2, 4, 8, 16}, "work-groups per compute unit"}},
    .can_run = entropy_simt_can_run,
    .workspace = entropy_simt_workspace,
    .enqueue = entropy_simt_enqueue,
};

static int entropy_choose(const cldsa_run *run) {
    return on_cpu(run) ? 0 : 1;
}

/* Adds one query's attention weights to p. */
static void add_attention(const double *q, const double *k, int64_t width, int64_t positions, int64_t head_dim,
                          double *weights, double *p) {
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < positions; ++j) {
        double score = 0;
        for (int64_t c = 0; c < head_dim; ++c)
            score += q[c] * k[j * width + c];
        weights[j] = score / sqrt((double)head_dim);
        top = weights[j] > top ? weights[j] : top;
    }
    for (int64_t j = 0; j < positions; ++j)
        sum += weights[j] = exp(weights[j] - top);
    for (int64_t j = 0; j < positions; ++j)
        p[j] += weights[j] / sum;
}

static void entropy_reference(const cldsa_reference_call *call) {
    const cldsa_controller_entropy_args *a = call->args;
    const int64_t *d = call->dims;
    int64_t head_dim = a->d_model / a->num_heads;
    double *p = calloc(2 * (size_t)d[S], sizeof *p);
    for (int64_t b = 0; b < d[B] && p; ++b) {
        const double *rows = call->tensors[0].data + b * d[S] * d[W];
        memset(p, 0, (size_t)d[S] * sizeof *p);
        for (int64_t h = 0; h < a->num_heads; ++h)
            for (int64_t s = 0; s < d[S]; ++s)
                add_attention(rows + s * d[W] + h * head_dim, rows + a->d_model + h * head_dim, d[W], d[S], head_dim,
                              p + d[S], p);
        double entropy = 0;
        for (int64_t j = 0; j < d[S]; ++j) {
            double mean = p[j] / (double)(a->num_heads * d[S]) + 1e-8;
            entropy -= mean * log(mean);
        }
        call->tensors[1].data[b] = entropy;
    }
    free(p);
}

static double entropy_flops(const cldsa_run *run) {
    const cldsa_controller_entropy_args *a = run->args;
    return (double)run->dims[B] * (double)run->dims[S] * (double)run->dims[S] * (2.0 * a->d_model + 4.0 * a->num_heads);
}
static double entropy_bytes(const cldsa_run *run) {
    const cldsa_controller_entropy_args *a = run->args;
    return 8.0 * (double)run->dims[B] * (double)run->dims[S] * a->d_model;
}

static const cldsa_variant *const entropy_variants[] = {&entropy_vec, &entropy_simt, NULL};
const cldsa_op cldsa_op_controller_entropy = {
    .name = "controller_entropy",
    .summary = "entropy of a small attention, averaged over heads and queries",
    .args_size = sizeof(cldsa_controller_entropy_args),
    .dims = controller_dims,
    .fields = entropy_fields,
    .variants = entropy_variants,
    .choose = entropy_choose,
    .check = entropy_check,
    .reference = entropy_reference,
    .flops = entropy_flops,
    .bytes = entropy_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(controller_entropy)

/* ---- controller_k --------------------------------------------------------------------------------------------- */

static const cldsa_field k_fields[] = {
    CLDSA_IN(cldsa_controller_k_args, mean, "B D", F32, "of controller_moments"),
    CLDSA_IN(cldsa_controller_k_args, diversity, "B", F32, "of controller_moments"),
    CLDSA_IN(cldsa_controller_k_args, perplexity, "B", F32, "of controller_perplexity"),
    CLDSA_IN(cldsa_controller_k_args, variance, "B", F32, "of controller_moments"),
    CLDSA_IN(cldsa_controller_k_args, entropy, "B", F32, "of controller_entropy"),
    CLDSA_IN(cldsa_controller_k_args, length_w1, "U D", F32, "length network, first layer"),
    CLDSA_IN(cldsa_controller_k_args, length_b1, "U", F32, ""),
    CLDSA_IN(cldsa_controller_k_args, length_w2, "1 U", F32, "length network, second layer"),
    CLDSA_IN(cldsa_controller_k_args, length_b2, "1", F32, ""),
    CLDSA_IN(cldsa_controller_k_args, combiner_w, "1 3", F32, "weights of diversity, perplexity and variance"),
    CLDSA_IN(cldsa_controller_k_args, combiner_b, "1", F32, ""),
    CLDSA_IN(cldsa_controller_k_args, adapter_w1, "A 1", F32, "length adapter g, first layer"),
    CLDSA_IN(cldsa_controller_k_args, adapter_b1, "A", F32, ""),
    CLDSA_IN(cldsa_controller_k_args, adapter_w2, "1 A", F32, "length adapter g, second layer"),
    CLDSA_IN(cldsa_controller_k_args, adapter_b2, "1", F32, ""),
    CLDSA_IN(cldsa_controller_k_args, mix, "4", F32, "base sparsity; length, complexity and entropy weight"),
    CLDSA_OUT(cldsa_controller_k_args, factors, "B 3", F32, "length, complexity and entropy factor"),
    CLDSA_OUT(cldsa_controller_k_args, ratio, "B", F32, "keep-ratio before rounding"),
    CLDSA_OUT(cldsa_controller_k_args, k, "B", I32, "keys kept, 1 to S-1"),
    CLDSA_PARAM(cldsa_controller_k_args, seq_len, INT, 2, 2, INT32_MAX, "sequence length S"),
    CLDSA_PARAM(cldsa_controller_k_args, max_seq_len, INT, 2048, 1, INT32_MAX, "length that the adapter divides by"),
    CLDSA_PARAM(cldsa_controller_k_args, use, INT, 7, 1, 7, "bits: 1 length, 2 complexity, 4 entropy"),
    {0},
};

static void k_defaults(const cldsa_run *run, int *tune) {
    if (on_cpu(run))
        tune[0] = 1;
}

static cldsa_status k_enqueue(cldsa_run *run) {
    const cldsa_controller_k_args *a = run->args;
    const int64_t *d = run->dims;
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, " ");
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "controller_k", options, &kernel));
    size_t wg = (size_t)cldsa_run_tune(run, "WG"), global = (size_t)d[B] * wg;
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &wg, CLDSA_ARG_TENSOR(a->mean),
                         CLDSA_ARG_TENSOR(a->diversity), CLDSA_ARG_TENSOR(a->perplexity), CLDSA_ARG_TENSOR(a->variance),
                         CLDSA_ARG_TENSOR(a->entropy), CLDSA_ARG_TENSOR(a->length_w1), CLDSA_ARG_TENSOR(a->length_b1),
                         CLDSA_ARG_TENSOR(a->length_w2), CLDSA_ARG_TENSOR(a->length_b2),
                         CLDSA_ARG_TENSOR(a->combiner_w), CLDSA_ARG_TENSOR(a->combiner_b),
                         CLDSA_ARG_TENSOR(a->adapter_w1), CLDSA_ARG_TENSOR(a->adapter_b1),
                         CLDSA_ARG_TENSOR(a->adapter_w2), CLDSA_ARG_TENSOR(a->adapter_b2), CLDSA_ARG_TENSOR(a->mix),
                         CLDSA_ARG_TENSOR(a->factors), CLDSA_ARG_TENSOR(a->ratio), CLDSA_ARG_TENSOR(a->k),
                         CLDSA_ARG_U32(d[B]), CLDSA_ARG_U32(d[D]), CLDSA_ARG_U32(d[U]), CLDSA_ARG_U32(d[A]),
                         CLDSA_ARG_I32(a->seq_len), CLDSA_ARG_I32(a->max_seq_len), CLDSA_ARG_I32(a->use));
}

static const cldsa_variant k_any = {
    .name = "any",
    .file = "controller_statistics.cl",
    .tunables = {{"WG", 32, {1, 32, 64, 128}, "work-items per sequence"}},
    .defaults = k_defaults,
    .enqueue = k_enqueue,
};

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* sigmoid(w2 . relu(w1 x + b1) + b2) with `width` hidden units. */
static double network(const cldsa_host_tensor *layers, const double *x, int64_t inputs, int64_t width) {
    double sum = layers[3].data[0];
    for (int64_t u = 0; u < width; ++u) {
        double unit = layers[1].data[u];
        for (int64_t c = 0; c < inputs; ++c)
            unit += layers[0].data[u * inputs + c] * x[c];
        sum += layers[2].data[u] * (unit > 0 ? unit : 0);
    }
    return sigmoid(sum);
}

static void k_reference(const cldsa_reference_call *call) {
    const cldsa_controller_k_args *a = call->args;
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    const double *mix = t[15].data, *combiner = t[9].data;
    double fraction = (double)a->seq_len / a->max_seq_len, entropy = 0;
    double adapted = network(t + 11, &fraction, 1, d[A]);
    for (int64_t b = 0; b < d[B]; ++b)
        entropy += t[4].data[b] / (double)d[B];
    double wl = a->use & 1 ? mix[1] : 0, wc = a->use & 2 ? mix[2] : 0, we = a->use & 4 ? mix[3] : 0;
    for (int64_t b = 0; b < d[B]; ++b) {
        double *factors = t[16].data + 3 * b;
        factors[0] = network(t + 5, t[0].data + b * d[D], d[D], d[U]);
        factors[1] = sigmoid(combiner[0] * t[1].data[b] + combiner[1] * t[2].data[b] + combiner[2] * t[3].data[b] +
                             t[10].data[0]);
        factors[2] = sigmoid(entropy);
        double ratio = mix[0] * (wl * factors[0] * adapted + wc * factors[1] + we * factors[2]) / (wl + wc + we);
        ratio = ratio < 0.1 ? 0.1 : ratio > 0.9 ? 0.9 : ratio;
        double k = rint(a->seq_len * ratio);
        t[17].data[b] = ratio;
        t[18].data[b] = k < 1 ? 1 : k > a->seq_len - 1 ? a->seq_len - 1 : k;
    }
}

static double k_flops(const cldsa_run *run) {
    return 2.0 * (double)run->dims[B] * (double)(run->dims[U] * run->dims[D]);
}
static double k_bytes(const cldsa_run *run) {
    return 4.0 * (double)((run->dims[B] + run->dims[U]) * run->dims[D]);
}

static const cldsa_variant *const k_variants[] = {&k_any, NULL};
const cldsa_op cldsa_op_controller_k = {
    .name = "controller_k",
    .summary = "the controller's factors, their mix and the number of keys",
    .args_size = sizeof(cldsa_controller_k_args),
    .dims = controller_dims,
    .fields = k_fields,
    .variants = k_variants,
    .reference = k_reference,
    .flops = k_flops,
    .bytes = k_bytes,
    .tolerance_abs = 1e-6,
    .tolerance_rel = 1e-5,
};
CLDSA_DEFINE_OP(controller_k)

/* ---- keep_rows ------------------------------------------------------------------------------------------------ */

static const cldsa_field keep_rows_fields[] = {
    CLDSA_IN(cldsa_keep_rows_args, ratio, "B", F32, "keep-ratio per sequence"),
    CLDSA_OUT(cldsa_keep_rows_args, k_rows, "B S", I32, "keys kept per row"),
    CLDSA_PARAM(cldsa_keep_rows_args, causal, BOOL, 0, 0, 1, "row i sees i + 1 keys, not S"),
    {0},
};

static cldsa_status keep_rows_enqueue(cldsa_run *run) {
    const cldsa_keep_rows_args *a = run->args;
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DCAUSAL=%d", a->causal);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "keep_rows", options, &kernel));
    size_t global[2] = {(size_t)run->dims[S], (size_t)run->dims[B]}, local[2] = {(size_t)cldsa_run_tune(run, "LX"), 1};
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, CLDSA_ARG_TENSOR(a->ratio),
                         CLDSA_ARG_TENSOR(a->k_rows), CLDSA_ARG_U32(run->dims[B]), CLDSA_ARG_U32(run->dims[S]));
}

static const cldsa_variant keep_rows_any = {
    .name = "any",
    .file = "controller_statistics.cl",
    .tunables = {{"LX", 64, {16, 32, 64, 128}, "work-items per group"}},
    .enqueue = keep_rows_enqueue,
};

static void keep_rows_reference(const cldsa_reference_call *call) {
    const cldsa_keep_rows_args *a = call->args;
    const int64_t *d = call->dims;
    for (int64_t i = 0; i < d[B] * d[S]; ++i) {
        double visible = (double)(a->causal ? i % d[S] + 1 : d[S]);
        double keep = rint(call->tensors[0].data[i / d[S]] * visible);
        call->tensors[1].data[i] = keep < 1 ? 1 : keep > visible ? visible : keep;
    }
}

static double keep_rows_flops(const cldsa_run *run) {
    return (double)(run->dims[B] * run->dims[S]);
}
static double keep_rows_bytes(const cldsa_run *run) {
    return 4.0 * (double)(run->dims[B] * run->dims[S]);
}

static const cldsa_variant *const keep_rows_variants[] = {&keep_rows_any, NULL};
const cldsa_op cldsa_op_keep_rows = {
    .name = "keep_rows",
    .summary = "keys kept per row from a ratio per sequence",
    .args_size = sizeof(cldsa_keep_rows_args),
    .dims = controller_dims,
    .fields = keep_rows_fields,
    .variants = keep_rows_variants,
    .reference = keep_rows_reference,
    .flops = keep_rows_flops,
    .bytes = keep_rows_bytes,
};
CLDSA_DEFINE_OP(keep_rows)
