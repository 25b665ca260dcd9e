/* What the published experiment reported, for printing beside a run of the same protocol. */
#ifndef CLDSA_PUBLISHED_H
#define CLDSA_PUBLISHED_H

typedef struct cldsa_published_row {
    int length;
    const char *variant;
    double loss, loss_std;    /* validation loss, nats; std NaN where the publication gives none */
    double accuracy;          /* 0 .. 1; NaN where the publication says only "about 0.1 %" */
    double tokens_per_second; /* on the authors' machine */
} cldsa_published_row;

/* NULL if nothing was published for this cell. */
const cldsa_published_row *cldsa_published(int length, const char *variant);

#endif
