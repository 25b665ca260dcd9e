/*
 * Result files read back: rows that can be told apart, and what each of them measured. For `cldsa report` and
 * `cldsa compare`. The files are valid (schema.h), so that required keys are there in their types.
 */
#ifndef CLDSA_BENCH_RESULT_H
#define CLDSA_BENCH_RESULT_H

#include "bench/bench.h"
#include "bench/schema.h"

enum { BENCH_KEY_SIZE = 512, BENCH_MAX_QUANTITIES = 2 };

/* Members of an object; NULL is an object without any. */
const cJSON *bench_member(const cJSON *object, const char *key);
const char *bench_text(const cJSON *object, const char *key); /* "" if there is none */
double bench_number(const cJSON *object, const char *key);    /* NaN if there is none */
bool bench_is(const cJSON *object, const char *key, const char *text);

bool bench_row_is_ok(const cJSON *row);

/*
 * What tells a row from the others of its file, in words: suite, operation, shape, parameters, dtypes, ...; not what
 * was chosen to run it.
 */
void bench_row_key(const cJSON *row, char key[BENCH_KEY_SIZE]);

/* A quantity that a row measured. */
typedef struct bench_quantity {
    const char *name;                  /* "time", "rate", "sparse", "dense" */
    const char *unit;                  /* "s", "token/s", "B/s", ...; points into the row or is constant */
    bool rate;                         /* more is better */
    double middle;                     /* the figure that the row gives: a median, or a peak's best */
    double values[BENCH_KEPT_SAMPLES]; /* samples in the order of measuring, in the unit of `middle` */
    size_t count;
} bench_quantity;

/* The quantities of a row; their number. None of a row that is not ok. */
int bench_row_quantities(const cJSON *row, bench_quantity quantities[BENCH_MAX_QUANTITIES]);

/* "0.672 ms", "3.57 TFLOP/s": four digits at most with a decimal prefix. NaN: "-". */
void bench_format(double value, const char *unit, char *text, size_t size);

#endif
