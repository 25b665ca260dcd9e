/*
 * The statistics that a comparison of training runs needs, on GSL.
 */
#ifndef CLDSA_STATS_H
#define CLDSA_STATS_H

#include <stddef.h>

typedef struct cldsa_summary {
    int count;
    double mean;
    double std; /* unbiased; NaN for fewer than two values */
} cldsa_summary;

cldsa_summary cldsa_summarise(const double *values, int count);

/*
 * Welch's unequal-variance t-test of mean(a) - mean(b). Everything but `difference` is NaN when either side has fewer
 * than two values. Two sides without any spread give p = 1 if equal, else 0.
 */
typedef struct cldsa_comparison {
    double difference;      /* mean(a) - mean(b) */
    double ci_low, ci_high; /* 95 % confidence interval of the difference */
    double t, df;           /* Welch's t and Satterthwaite's degrees of freedom */
    double p;               /* two-sided */
    double p_holm;          /* after cldsa_holm */
    double cohens_d;        /* difference / pooled standard deviation */
} cldsa_comparison;

cldsa_comparison cldsa_welch(const double *a, int num_a, const double *b, int num_b);

/* Holm's step-down correction over a family of tests: fills p_holm from p. NaN stays NaN and does not count. */
void cldsa_holm(cldsa_comparison *tests, int count);

#endif
