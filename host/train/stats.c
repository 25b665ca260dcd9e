#include "host/train/stats.h"

#include <gsl/gsl_cdf.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdbool.h>

static const double confidence = 0.95;

cldsa_summary cldsa_summarise(const double *values, int count) {
    cldsa_summary summary = {.count = count, .mean = NAN, .std = NAN};
    if (count > 0)
        summary.mean = gsl_stats_mean(values, 1, (size_t)count);
    if (count > 1)
        summary.std = gsl_stats_sd(values, 1, (size_t)count);
    return summary;
}

/* No spread on either side: t is 0/0 or x/0, and the answer is plain. */
static cldsa_comparison without_spread(double difference) {
    bool equal = difference == 0;
    return (cldsa_comparison){.difference = difference,
                              .ci_low = difference,
                              .ci_high = difference,
                              .t = equal ? 0 : copysign(INFINITY, difference),
                              .df = NAN,
                              .p = equal ? 1 : 0,
                              .p_holm = equal ? 1 : 0,
                              .cohens_d = equal ? 0 : copysign(INFINITY, difference)};
}

cldsa_comparison cldsa_welch(const double *a, int num_a, const double *b, int num_b) {
    cldsa_summary sa = cldsa_summarise(a, num_a), sb = cldsa_summarise(b, num_b);
    cldsa_comparison result = {sa.mean - sb.mean, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    if (num_a < 2 || num_b < 2)
        return result;
    double ea = sa.std * sa.std / num_a, eb = sb.std * sb.std / num_b; /* squared standard errors */
    if (ea + eb == 0)
        return without_spread(result.difference);
    double error = sqrt(ea + eb);
    result.t = result.difference / error;
    result.df = (ea + eb) * (ea + eb) / (ea * ea / (num_a - 1) + eb * eb / (num_b - 1));
    result.p = result.p_holm = 2 * gsl_cdf_tdist_Q(fabs(result.t), result.df);
    double reach = gsl_cdf_tdist_Pinv(0.5 + confidence / 2, result.df) * error;
    result.ci_low = result.difference - reach;
    result.ci_high = result.difference + reach;
    double pooled = sqrt(((num_a - 1) * sa.std * sa.std + (num_b - 1) * sb.std * sb.std) / (num_a + num_b - 2));
    result.cohens_d = result.difference / pooled;
    return result;
}

void cldsa_holm(cldsa_comparison *tests, int count) {
    int valid = 0;
    for (int i = 0; i < count; ++i)
        valid += !isnan(tests[i].p);
    /* Families are small: the rank of each p is counted rather than sorted. */
    double running = 0;
    for (int rank = 0; rank < valid; ++rank)
        for (int i = 0; i < count; ++i) {
            if (isnan(tests[i].p))
                continue;
            int below = 0;
            for (int j = 0; j < count; ++j)
                below += tests[j].p < tests[i].p || (tests[j].p == tests[i].p && j < i);
            if (below != rank)
                continue;
            running = fmax(running, fmin(1, (valid - rank) * tests[i].p));
            tests[i].p_holm = running;
        }
}
