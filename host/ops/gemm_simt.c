/* gemm on GPUs: tile sizes by shape, slices of the reduction where C has too few tiles (cl/gemm_simt.cl). */
#include "host/ops/gemm.h"

#include <stdio.h>

enum { TUNE_TM, TUNE_TN, TUNE_TK, TUNE_WM, TUNE_WN, TUNE_SPLIT, TUNE_UNROLL };

/* Rows of one group are not known here: what is left of each costs up to one tile more. */
static bool rows_grouped(const gemm_problem *p) {
    return p->grouped && p->args->layout != CLDSA_GEMM_TN;
}

static int64_t row_tiles(const gemm_problem *p, int64_t tile) {
    return rows_grouped(p) ? p->m / tile + p->matrices : cldsa_ceil_div(p->m, tile);
}

static int64_t work_groups(const gemm_problem *p, int64_t tm, int64_t tn) {
    return row_tiles(p, tm) * cldsa_ceil_div(p->n, tn) * (rows_grouped(p) ? 1 : p->matrices);
}

static bool legal(const cldsa_run *run, const int *tune) {
    int tm = tune[TUNE_TM], tn = tune[TUNE_TN], tk = tune[TUNE_TK], wm = tune[TUNE_WM], wn = tune[TUNE_WN];
    if (wm % 4 || wn % 4 || tm % wm || tn % wn || tk % 4 || tune[TUNE_SPLIT] < 1)
        return false;
    int items = tm / wm * (tn / wn);
    size_t local = (size_t)(2 * tk * (tm + tn + 8)) * sizeof(cl_float);
    const cldsa_device_info *info = cldsa_context_device_info(run->ctx);
    return tm * tk / 4 % items == 0 && tn * tk / 4 % items == 0 && (size_t)items <= info->max_work_group_size &&
           local <= info->local_mem_bytes;
}

/*
 * Large tiles reuse most, as long as registers and local memory take them and most compute units get one (an H200 has
 * 132: 128 tiles take 32 us, four times as many small ones 36); else small ones, and if these are too few as well, the
 * reduction is cut into slices of at least 64 steps until two work-groups per unit are there. Rows left alone behind
 * the last group forbid the second pass, which writes all of C.
 *
 * Large tiles of 16 steps, with what is fetched meanwhile, take more registers than two work-groups of an H200 have
 * room for: 4096^3 of 8 steps in 3.2 ms, of 16 in 4.6. Rows in groups times B as it is take more than that either way,
 * and 16 steps wait half as often: 4096 x 1024 x 256 in 66 us instead of 74.
 *
 * Slices cost a second launch, about what 512 steps of the reduction take: an H100 does 512 x 256 x 256 in 17 us whole
 * and in 29 us in slices, 2048 x 256 x 1000 in 45 us by 4 slices and in 49 us by 2.
 */
static void defaults(const cldsa_run *run, int *tune) {
    enum { LARGE = 128, SMALL = 64, SLICE = 64, WHOLE = 512, MORE_STEPS = 16 };
    gemm_problem p = gemm_resolve(run);
    const int64_t units = cldsa_context_device_info(run->ctx)->compute_units;
    tune[TUNE_SPLIT] = 1;
    tune[TUNE_UNROLL] = cldsa_default_unroll(run);
    bool fits = legal(run, tune) && !cldsa_few_registers(run);
    if (fits && 4 * work_groups(&p, LARGE, LARGE) >= 3 * units && p.m > SMALL && p.n > SMALL) {
        const int few_steps = tune[TUNE_TK];
        if (rows_grouped(&p) && p.args->layout == CLDSA_GEMM_NN)
            tune[TUNE_TK] = MORE_STEPS;
        if (!legal(run, tune))
            tune[TUNE_TK] = few_steps;
        return;
    }
    tune[TUNE_TM] = tune[TUNE_TN] = SMALL;
    tune[TUNE_TK] = MORE_STEPS;
    if (cldsa_few_registers(run))
        tune[TUNE_WM] = 4;
    tune[TUNE_WN] = 4;
    int64_t groups = work_groups(&p, SMALL, SMALL), steps = p.grouped ? p.k / p.matrices : p.k;
    int64_t split = cldsa_ceil_div(2 * units, groups), most = steps / SLICE;
    /* Powers of two: each value is a program of its own. */
    while (!rows_grouped(&p) && steps > WHOLE && tune[TUNE_SPLIT] < split && 2 * tune[TUNE_SPLIT] <= most)
        tune[TUNE_SPLIT] *= 2;
}

static size_t partial_bytes(const gemm_problem *p, int parts) {
    return (size_t)(p->matrices * p->m * p->n) * (size_t)parts * sizeof(cl_float);
}

/* Without scratch the reduction stays whole. */
static void workspace(const cldsa_run *run, size_t *preferred, size_t *minimum) {
    gemm_problem p = gemm_resolve(run);
    int parts = rows_grouped(&p) ? 1 : run->tune[TUNE_SPLIT];
    *preferred = parts > 1 ? partial_bytes(&p, parts) : 0;
    *minimum = 0;
}

static bool rows_aligned(const cldsa_tensor *tensor, int64_t ld, int64_t stride) {
    return tensor->offset % 4 == 0 && ld % 4 == 0 && stride % 4 == 0;
}

/* Whether whole rows can be read four elements at a time. */
static bool rows_in_fours(const cldsa_tensor *tensor, int64_t ld, int64_t stride) {
    return rows_aligned(tensor, ld, stride) && tensor->shape[tensor->rank - 1] % 4 == 0;
}

/* Without checks of extents. On an H200, 4096^3 in f32: nt 2.95 instead of 3.23 ms; nn 3.91 instead of 3.34, since it
 * takes two registers more than two work-groups have room for. */
static bool whole_tiles(const gemm_problem *p, const int *tune) {
    return p->args->layout == CLDSA_GEMM_NT && !p->grouped && p->m % tune[TUNE_TM] == 0 && p->n % tune[TUNE_TN] == 0 &&
           p->k % tune[TUNE_TK] == 0;
}

static cldsa_status enqueue(cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    const cldsa_gemm_args *args = p.args;
    size_t preferred, minimum;
    workspace(run, &preferred, &minimum);
    bool split = preferred > 0 && run->workspace && run->workspace_bytes >= preferred;
    int parts = split ? run->tune[TUNE_SPLIT] : 1;
    cldsa_tensor partial =
        split ? cldsa_run_scratch(run, 0, CLDSA_F32, (int64_t)(preferred / sizeof(cl_float))) : (cldsa_tensor){0};

    bool c_vec = split ? p.n % 4 == 0 && partial.offset % 4 == 0 : rows_aligned(&args->c, p.ldc, p.stride_c);
    if (!split && p.has_pre)
        c_vec = c_vec && rows_aligned(&args->pre, p.ldc, p.stride_c);
    char options[CLDSA_OPTIONS_MAX], rest[96];
    snprintf(rest, sizeof rest, "-DPARTIAL=%d -DWHOLE=%d -DA_VEC=%d -DB_VEC=%d -DC_VEC=%d", split,
             whole_tiles(&p, run->tune), rows_in_fours(&args->a, p.lda, p.stride_a),
             rows_in_fours(&args->b, p.ldb, p.stride_b), c_vec);
    gemm_options(run, &p, !split, options, rest);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "gemm_simt", options, &kernel));

    const int *tune = run->tune;
    const size_t local[3] = {(size_t)(tune[TUNE_TM] / tune[TUNE_WM] * (tune[TUNE_TN] / tune[TUNE_WN])), 1, 1};
    const size_t global[3] = {(size_t)cldsa_ceil_div(p.n, tune[TUNE_TN]) * local[0],
                              (size_t)row_tiles(&p, tune[TUNE_TM]),
                              (size_t)(rows_grouped(&p) ? 1 : p.matrices * parts)};
    CLDSA_TRY(CLDSA_ENQUEUE(&run->stream, kernel, 3, global, local, GEMM_KERNEL_ARGS(p), CLDSA_ARG_I32(p.matrices),
                            CLDSA_ARG_I32(parts), CLDSA_ARG_TENSOR(partial), CLDSA_ARG_F32(args->alpha),
                            CLDSA_ARG_F32(args->beta)));
    return split ? gemm_enqueue_epilogue(run, &p, partial, parts) : CLDSA_SUCCESS;
}

const cldsa_variant gemm_simt = {
    .name = "simt",
    .file = "gemm_simt.cl",
    .tunables = {{"TM", 128, {32, 64, 128}, "rows of a work-group's tile"},
                 {"TN", 128, {32, 64, 128}, "columns of a work-group's tile"},
                 {"TK", 8, {8, 16, 32}, "steps of the reduction per local tile"},
                 {"WM", 8, {4, 8}, "rows per work-item"},
                 {"WN", 8, {4, 8}, "columns per work-item"},
                 {"SPLIT", 1, {1, 2, 4, 8, 16, 32}, "slices of the reduction"},
                 CLDSA_TUNE_UNROLL},
    .defaults = defaults,
    .legal = legal,
    .workspace = workspace,
    .enqueue = enqueue,
};
