/* Made-up result files of the bench, for the tests of what reads them. */
#ifndef CLDSA_BENCH_RESULTS_H
#define CLDSA_BENCH_RESULTS_H

#include "bench/result.h"

/* A valid file without rows, of a device of this name; delete with cJSON_Delete. */
cJSON *result_file(const char *device, const char *date);

/* Statistics of `count` samples around `middle`, spread by about `spread` (a part of it); the same for the same seed.
 */
cJSON *result_statistics(double middle, double spread, int count, unsigned seed);

/* Rows that are ok, appended; the row, for further members. */
cJSON *result_add_op(cJSON *file, const char *op, const char *shape, double seconds, double spread, unsigned seed);
cJSON *result_add_train(cJSON *file, int length, const char *variant, double tokens_per_second);
cJSON *result_add_peak(cJSON *file, const char *name, const char *unit, double bytes, double value);
cJSON *result_add_end_to_end(cJSON *file, const char *mode, int T, double sparse, double dense);

/* Takes what was measured out of a row and gives it a status with a reason. */
void result_fail(cJSON *row, const char *status, const char *reason);

/* Replaces or adds a member. */
void result_set(cJSON *object, const char *key, cJSON *value);

#endif
