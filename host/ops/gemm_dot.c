/* gemm with few rows or columns on CPUs: dot products along the reduction, the large operand unpacked (cl/gemm_dot.cl).
 */
#include "host/ops/gemm.h"

#include <stdio.h>

enum { TUNE_ROWS, TUNE_KC };

enum { MOST_FEW = 8 };

/* The large operand must lie along the reduction: A of nn and nt, B of nt. */
static bool b_is_large(const gemm_problem *p) {
    return p->args->layout == CLDSA_GEMM_NT && p->m <= p->n;
}

static bool can_run(const cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    const int64_t few = b_is_large(&p) ? p.m : p.n;
    return cldsa_context_capabilities(run->ctx)->is_cpu && p.args->layout != CLDSA_GEMM_TN && !p.grouped &&
           few <= MOST_FEW;
}

static bool legal(const cldsa_run *run, const int *tune) {
    (void)run;
    return tune[TUNE_ROWS] % 16 == 0 && tune[TUNE_KC] % 16 == 0;
}

/* Rows enough to copy the small operand for, but four blocks for every compute unit. */
static void defaults(const cldsa_run *run, int *tune) {
    gemm_problem p = gemm_resolve(run);
    const int64_t units = cldsa_context_device_info(run->ctx)->compute_units, rows = b_is_large(&p) ? p.n : p.m;
    while (tune[TUNE_ROWS] > 16 && p.matrices * cldsa_ceil_div(rows, tune[TUNE_ROWS]) < 4 * units)
        tune[TUNE_ROWS] /= 2;
}

static cldsa_status enqueue(cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    const bool swapped = b_is_large(&p);
    char options[CLDSA_OPTIONS_MAX], rest[48];
    snprintf(rest, sizeof rest, "-DFEW=%d -DSWAPPED=%d", (int)(swapped ? p.m : p.n), swapped);
    gemm_options(run, &p, true, options, rest);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "gemm_dot", options, &kernel));
    const size_t global[2] = {(size_t)cldsa_ceil_div(swapped ? p.n : p.m, run->tune[TUNE_ROWS]), (size_t)p.matrices};
    const size_t local[2] = {1, 1};
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, GEMM_KERNEL_ARGS(p), CLDSA_ARG_F32(p.args->alpha),
                         CLDSA_ARG_F32(p.args->beta));
}

const cldsa_variant gemm_dot = {
    .name = "dot",
    .file = "gemm_dot.cl",
    .tunables = {{"ROWS", 128, {16, 32, 64, 128, 256}, "rows of the large operand of a work-item"},
                 {"KC", 1024, {256, 512, 1024, 2048}, "steps of the reduction per block"}},
    .can_run = can_run,
    .defaults = defaults,
    .legal = legal,
    .enqueue = enqueue,
};
