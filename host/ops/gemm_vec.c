/* gemm on CPUs: how C is cut into blocks for cl/gemm_vec.cl. */
#include "host/ops/gemm.h"

enum { TUNE_MR, TUNE_NV, TUNE_KC, TUNE_NB, TUNE_AT, TUNE_PREFETCH };

typedef struct block_plan {
    int64_t splits;  /* row blocks per matrix */
    int64_t columns; /* per column block, a multiple of a panel */
} block_plan;

/*
 * The cheapest cut by a small model of the kernel, in columns' worth of multiply-adds: a block of r rows and c columns
 * takes r * c for its tiles, COPY_A * r for copying A and COPY_B * c for its panels of B (dearer where B must be
 * transposed). The blocks go to the compute units in equal numbers; the last ones wait for a part of a block.
 */
static block_plan plan_blocks(const cldsa_run *run, const gemm_problem *p) {
    const double copy_a = 16, copy_b = p->args->layout == CLDSA_GEMM_NT ? 24 : 16, tail = 0.03;
    const int mr = run->tune[TUNE_MR], panel = 16 * run->tune[TUNE_NV];
    const int64_t units = cldsa_context_device_info(run->ctx)->compute_units, panels = cldsa_ceil_div(p->n, panel);
    const bool rows_grouped = p->grouped && p->args->layout != CLDSA_GEMM_TN;
    const int64_t rows = rows_grouped ? cldsa_ceil_div(p->m, p->matrices) : p->m, tiles = cldsa_ceil_div(rows, mr);
    block_plan best = {1, panel};
    double best_cost = 0;
    for (int64_t width = 1; width <= run->tune[TUNE_NB] / panel && width <= panels; ++width)
        for (int64_t splits = 1; splits <= tiles && splits <= 4 * units; ++splits) {
            double r = (double)(cldsa_ceil_div(tiles, splits) * mr), c = (double)(width * panel);
            /* Groups may be unequal: only columns and splits can be counted on to share the work out evenly. */
            int64_t blocks = cldsa_ceil_div(panels, width) * splits * (p->grouped ? 1 : p->matrices);
            double cost = ((double)cldsa_ceil_div(blocks, units) + tail) * (r * c + copy_a * r + copy_b * c);
            if (best_cost == 0 || cost < best_cost) {
                best_cost = cost;
                best = (block_plan){splits, width * panel};
            }
        }
    return best;
}

/* A work-item keeps its panels, half a megabyte, in private memory: a stack on CPUs, more than a GPU's driver grants.
 */
static bool can_run(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->is_cpu;
}

static bool legal(const cldsa_run *run, const int *tune) {
    (void)run;
    return tune[TUNE_MR] >= 5 && tune[TUNE_MR] <= 16 && (tune[TUNE_NV] == 1 || tune[TUNE_NV] == 2) &&
           tune[TUNE_KC] % 16 == 0 && tune[TUNE_NB] % (16 * tune[TUNE_NV]) == 0;
}

/* 32 vector registers hold 12 x 2 vectors of sums; the 16 of AVX hold 6 rows of one 16-wide vector (two registers). */
static void defaults(const cldsa_run *run, int *tune) {
    const cldsa_gemm_args *args = run->args;
    tune[TUNE_AT] = args->layout == CLDSA_GEMM_TN ? 4 : 1;
    const int width = cldsa_context_capabilities(run->ctx)->vector_width;
    tune[TUNE_PREFETCH] = width >= 8; /* simulators report less, and do not know the builtin */
    if (width < 16) {
        tune[TUNE_MR] = 6;
        tune[TUNE_NV] = 1;
    }
}

static cldsa_status enqueue(cldsa_run *run) {
    gemm_problem p = gemm_resolve(run);
    block_plan plan = plan_blocks(run, &p);
    char options[CLDSA_OPTIONS_MAX];
    gemm_options(run, &p, true, options, "");
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, "gemm_vec", options, &kernel));
    const size_t global[2] = {(size_t)(p.matrices * plan.splits), (size_t)cldsa_ceil_div(p.n, plan.columns)};
    const size_t local[2] = {1, 1};
    return CLDSA_ENQUEUE(&run->stream, kernel, 2, global, local, GEMM_KERNEL_ARGS(p), CLDSA_ARG_I32(p.matrices),
                         CLDSA_ARG_I32(plan.splits), CLDSA_ARG_I32(plan.columns), CLDSA_ARG_F32(p.args->alpha),
                         CLDSA_ARG_F32(p.args->beta));
}

const cldsa_variant gemm_vec = {
    .name = "vec",
    .file = "gemm_vec.cl",
    .tunables = {{"MR", 12, {6, 8, 10, 12, 14}, "rows of a register tile"},
                 {"NV", 2, {1, 2}, "vectors of 16 columns of a register tile"},
                 {"KC", 256, {128, 192, 256, 384, 512}, "steps of the reduction per block"},
                 {"NB", 512, {128, 256, 384, 512}, "most columns per work-item"},
                 {"AT", 1, {1, 2, 4, 8}, "register tiles of rows copied together"},
                 {"PREFETCH", 0, {0, 1}, "ask for lines of C before they are written"}},
    .can_run = can_run,
    .defaults = defaults,
    .legal = legal,
    .enqueue = enqueue,
};
