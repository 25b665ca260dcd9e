/*
 * A device, a context whose database the test chooses, and calls that ask it: what the tests of the tuning database
 * share.
 *
 * Calls are products of gemm's variant simt, which runs everywhere; its default tiles are 64 or 128, so tiles of 32
 * came from a database.
 */
#ifndef CLDSA_TUNING_FIXTURE_H
#define CLDSA_TUNING_FIXTURE_H

#include "host/ops/tuning.h"

#include <cldsa/gemm.h>

#define TILES_32 "{\"TM\":32,\"TN\":32,\"TK\":16,\"WM\":4,\"WN\":4,\"SPLIT\":1}"
#define TILES_64 "{\"TM\":64,\"TN\":32,\"TK\":16,\"WM\":4,\"WN\":4,\"SPLIT\":1}"

extern const cldsa_op cldsa_op_gemm;

/* Made by tuning_begin, released by tuning_end: setup and teardown of the group. */
extern cldsa_device_info device;
extern cl_context context;
extern cldsa_context *ctx;   /* whose calls are planned below */
extern cl_mem buffer;        /* of all their tensors */
extern char log_text[16384]; /* warnings of every context */
extern char source[17];      /* hash of simt's kernel */

int tuning_begin(void **state);
int tuning_end(void **state);

/* Another context on the device; it logs to the same text. */
cldsa_context *new_context(void);

cldsa_gemm_args product(int64_t m, int64_t n, int64_t k);
cldsa_run plan_args(const cldsa_gemm_args *args);
/* A square product. run.args is not for use afterwards. */
cldsa_run plan(int64_t size);
/* Rows of the tile if the call is simt's by the database, else 0. */
int tuned_tile(int64_t size);

/* Writes a file of the test's own directory; gives its path. */
const char *write_text(const char *name, const char *text);

#endif
