/* masked_attention and its backward pass in fp64: what kernels are compared with. */
#include "host/ops/masked_attention.h"
#include "host/ops/philox.h"

#include <stdlib.h>

typedef cldsa_masked_attention_args forward_args;
typedef cldsa_masked_attention_backward_args backward_args;

/* Positions of the tensors in the field tables; the first six are the same in both. */
enum { F_Q, F_K, F_V, F_MASK, F_KS, F_KE, F_OUT, F_LSE, F_DOUT, F_DQ, F_DK, F_DV };

typedef struct row_view {
    const cldsa_masked_call *call;
    const int64_t *dims;
    const cldsa_host_tensor *tensors;
    int64_t b, i, h;
} row_view;

static bool row_sees(const row_view *row, int64_t j) {
    const int64_t s = row->dims[MASKED_S], t = row->dims[MASKED_T], at = row->b * s + row->i;
    if (row->call->range == CLDSA_RANGE_CAUSAL && j >= t - s + row->i + 1)
        return false;
    if (row->call->range == CLDSA_RANGE_ROWS && (j < row->tensors[F_KS].data[at] || j >= row->tensors[F_KE].data[at]))
        return false;
    const cldsa_host_tensor *mask = &row->tensors[F_MASK];
    if (!mask->data)
        return true;
    if (mask->dtype == CLDSA_U8)
        return mask->data[at * t + j] != 0;
    return (uint32_t)mask->data[at * ((t + 31) / 32) + j / 32] >> (j % 32) & 1;
}

static const double *query_row(const row_view *row, int field, int64_t columns) {
    return row->tensors[field].data +
           ((row->b * row->dims[MASKED_S] + row->i) * row->dims[MASKED_H] + row->h) * columns;
}

static const double *key_row(const row_view *row, int field, int64_t j, int64_t columns) {
    const int64_t hk = row->h / (row->dims[MASKED_H] / row->dims[MASKED_HK]);
    return row->tensors[field].data + ((row->b * row->dims[MASKED_T] + j) * row->dims[MASKED_HK] + hk) * columns;
}

static double dot(const double *x, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t c = 0; c < n; ++c)
        sum += x[c] * y[c];
    return sum;
}

static bool dropped(const row_view *row, int64_t j) {
    if (row->call->dropout_p == 0)
        return false;
    const uint64_t index = (uint64_t)((row->b * row->dims[MASKED_H] + row->h) * row->dims[MASKED_S] + row->i);
    const uint64_t element = index * (uint64_t)cldsa_round_up(row->dims[MASKED_T], MASKED_KEYS) + (uint64_t)j;
    const uint32_t word = cldsa_philox_element(element, row->call->stream, row->call->seed);
    return word < cldsa_dropout_threshold(row->call->dropout_p);
}

/*
 * Weights of one row before dropout, and its lse; all 0 and +inf for a row that sees no key. A NaN among the scores
 * makes all visible weights NaN. A weight of 0 hides its key: what stands in k and v there has no effect.
 */
static double row_weights(const row_view *row, double *p) {
    const int64_t t = row->dims[MASKED_T], d = row->dims[MASKED_D];
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < t; ++j) {
        p[j] = row_sees(row, j)
                   ? cldsa_masked_scale(row->call, d) * dot(query_row(row, F_Q, d), key_row(row, F_K, j, d), d)
                   : -INFINITY;
        top = p[j] > top ? p[j] : top;
    }
    for (int64_t j = 0; j < t; ++j) {
        p[j] = p[j] == -INFINITY ? 0 : exp(p[j] - top);
        sum += p[j];
    }
    if (sum == 0)
        return INFINITY;
    for (int64_t j = 0; j < t; ++j)
        p[j] = row_sees(row, j) ? p[j] / sum : 0;
    return top + log(sum);
}

#define FOR_EACH_ROW(row, dims)                                                                                        \
    for ((row).b = 0; (row).b < (dims)[MASKED_B]; ++(row).b)                                                           \
        for ((row).i = 0; (row).i < (dims)[MASKED_S]; ++(row).i)                                                       \
            for ((row).h = 0; (row).h < (dims)[MASKED_H]; ++(row).h)

void cldsa_masked_attention_reference(const cldsa_reference_call *reference) {
    const cldsa_masked_call call = CLDSA_MASKED_CALL((const forward_args *)reference->args);
    const int64_t *n = reference->dims;
    double *p = calloc((size_t)n[MASKED_T] + 1, sizeof *p);
    row_view row = {.call = &call, .dims = n, .tensors = reference->tensors};
    FOR_EACH_ROW(row, n) {
        double *out = (double *)query_row(&row, F_OUT, n[MASKED_DV]);
        const double lse = row_weights(&row, p);
        if (reference->tensors[F_LSE].data)
            *(double *)query_row(&row, F_LSE, 1) = lse;
        for (int64_t c = 0; c < n[MASKED_DV]; ++c)
            out[c] = 0;
        for (int64_t j = 0; j < n[MASKED_T]; ++j) {
            const double weight = dropped(&row, j) ? 0 : p[j] * cldsa_masked_dropout_scale(&call);
            for (int64_t c = 0; c < n[MASKED_DV] && weight != 0; ++c)
                out[c] += weight * key_row(&row, F_V, j, n[MASKED_DV])[c];
        }
    }
    free(p);
}

/* The softmax's own derivative, from p itself: neither out nor lse is read. */
void cldsa_masked_attention_backward_reference(const cldsa_reference_call *reference) {
    const cldsa_masked_call call = CLDSA_MASKED_CALL((const backward_args *)reference->args);
    const int64_t *n = reference->dims;
    cldsa_host_tensor *tensors = reference->tensors;
    const double scale = cldsa_masked_scale(&call, n[MASKED_D]);
    double *p = calloc((size_t)n[MASKED_T] + 1, sizeof *p), *dp = calloc((size_t)n[MASKED_T] + 1, sizeof *dp);
    for (int64_t e = 0; e < n[MASKED_B] * n[MASKED_T] * n[MASKED_HK] * n[MASKED_D]; ++e)
        tensors[F_DK].data[e] = 0;
    for (int64_t e = 0; e < n[MASKED_B] * n[MASKED_T] * n[MASKED_HK] * n[MASKED_DV]; ++e)
        tensors[F_DV].data[e] = 0;
    row_view row = {.call = &call, .dims = n, .tensors = tensors};
    FOR_EACH_ROW(row, n) {
        const double *q = query_row(&row, F_Q, n[MASKED_D]), *dout = query_row(&row, F_DOUT, n[MASKED_DV]);
        double *dq = (double *)query_row(&row, F_DQ, n[MASKED_D]), mean = 0;
        row_weights(&row, p);
        for (int64_t j = 0; j < n[MASKED_T]; ++j) {
            dp[j] = p[j] == 0 || dropped(&row, j) ? 0
                                                  : cldsa_masked_dropout_scale(&call) *
                                                        dot(dout, key_row(&row, F_V, j, n[MASKED_DV]), n[MASKED_DV]);
            mean += p[j] * dp[j];
        }
        for (int64_t c = 0; c < n[MASKED_D]; ++c)
            dq[c] = 0;
        for (int64_t j = 0; j < n[MASKED_T]; ++j) {
            const double ds = p[j] * (dp[j] - mean) * scale, weight = p[j] * cldsa_masked_dropout_scale(&call);
            const double *k = key_row(&row, F_K, j, n[MASKED_D]);
            double *dk = (double *)key_row(&row, F_DK, j, n[MASKED_D]),
                   *dv = (double *)key_row(&row, F_DV, j, n[MASKED_DV]);
            if (p[j] == 0)
                continue;
            for (int64_t c = 0; c < n[MASKED_D]; ++c) {
                dq[c] += ds * k[c];
                dk[c] += ds * q[c];
            }
            for (int64_t c = 0; c < n[MASKED_DV] && !dropped(&row, j); ++c)
                dv[c] += weight * dout[c];
        }
    }
    free(p);
    free(dp);
}
