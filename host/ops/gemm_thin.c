/* gemm with few rows on GPUs, layout nt: the reduction of each element within one work-group (cl/gemm_thin.cl). */
#include "host/ops/gemm.h"

#include <stdio.h>

enum { TUNE_WG, TUNE_COLUMNS, TUNE_ROWS };

static bool can_run(const cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    return p.args->layout == CLDSA_GEMM_NT && !p.grouped;
}

static int64_t work_groups(const gemm_problem *p, const int *tune) {
    return p->matrices * cldsa_ceil_div(p->m, tune[TUNE_ROWS]) * cldsa_ceil_div(p->n, tune[TUNE_COLUMNS]);
}

static bool legal(const cldsa_run *run, const int *tune) {
    const cldsa_device_info *info = cldsa_context_device_info(run->ctx);
    size_t local = (size_t)(tune[TUNE_ROWS] * tune[TUNE_COLUMNS] * (tune[TUNE_WG] + 1)) * sizeof(cl_float);
    return (size_t)tune[TUNE_WG] <= info->max_work_group_size && local <= info->local_mem_bytes;
}

/* All rows in one group, so that B is read once; columns side by side as long as every unit has four groups. */
static void defaults(const cldsa_run *run, int *tune) {
    gemm_problem p = gemm_resolve(run);
    const int64_t units = cldsa_context_device_info(run->ctx)->compute_units;
    while (tune[TUNE_ROWS] > 1 && tune[TUNE_ROWS] / 2 >= p.m)
        tune[TUNE_ROWS] /= 2;
    while (tune[TUNE_COLUMNS] > 1 && work_groups(&p, tune) < 4 * units)
        tune[TUNE_COLUMNS] /= 2;
    while (tune[TUNE_WG] > 32 && tune[TUNE_WG] * 2 > p.k)
        tune[TUNE_WG] /= 2;
}

/* Rows of four: see LOAD4_WITHIN of cl/dtype.clh. */
static bool in_fours(const cldsa_tensor *tensor, int64_t ld, int64_t stride, int64_t k) {
    return tensor->offset % 4 == 0 && ld % 4 == 0 && stride % 4 == 0 && k % 4 == 0;
}

static cldsa_status enqueue(cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    const cldsa_gemm_args *args = p.args;
    char options[CLDSA_OPTIONS_MAX], rest[48];
    snprintf(rest, sizeof rest, "-DA_VEC=%d -DB_VEC=%d", in_fours(&args->a, p.lda, p.stride_a, p.k),
             in_fours(&args->b, p.ldb, p.stride_b, p.k));
    gemm_options(run, &p, true, options, rest);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "gemm_thin", options, &kernel));
    const int *tune = run->tune;
    const size_t local[3] = {(size_t)tune[TUNE_WG], 1, 1};
    const size_t global[3] = {(size_t)cldsa_ceil_div(p.n, tune[TUNE_COLUMNS]) * local[0],
                              (size_t)cldsa_ceil_div(p.m, tune[TUNE_ROWS]), (size_t)p.matrices};
    return CLDSA_ENQUEUE(&run->stream, kernel, 3, global, local, GEMM_KERNEL_ARGS(p), CLDSA_ARG_F32(args->alpha),
                         CLDSA_ARG_F32(args->beta));
}

const cldsa_variant gemm_thin = {
    .name = "thin",
    .file = "gemm_thin.cl",
    .tunables = {{"WG", 64, {32, 64, 128}, "work-items that share an element's reduction"},
                 {"COLUMNS", 4, {1, 2, 4, 8}, "columns of a work-group"},
                 {"ROWS", 16, {1, 2, 4, 8, 16}, "rows of a work-group"}},
    .can_run = can_run,
    .defaults = defaults,
    .legal = legal,
    .enqueue = enqueue,
};
