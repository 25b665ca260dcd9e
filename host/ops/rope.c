/* Rotary position embedding and the packing of latent attention's heads. Kernels: cl/rope.cl. */
#include <cldsa/rope.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/ops/op.h"

#define F32 CLDSA_ACCEPT_F32
#define I32 CLDSA_ACCEPT(CLDSA_I32)

static const char *const style_names[] = {"half", "interleaved", "regroup", NULL};

/* Positions of pair i before and after the rotation. */
static void pair(cldsa_rope_style style, int rope_dim, int i, int plain[2], int turned[2]) {
    int half = rope_dim / 2;
    plain[0] = style == CLDSA_ROPE_HALF ? i : 2 * i;
    plain[1] = style == CLDSA_ROPE_HALF ? i + half : 2 * i + 1;
    turned[0] = style == CLDSA_ROPE_INTERLEAVED ? 2 * i : i;
    turned[1] = style == CLDSA_ROPE_INTERLEAVED ? 2 * i + 1 : i + half;
}

/* x and y hold rope_dim elements and do not overlap. The inverse is the transpose. */
static void rotate(cldsa_rope_style style, int rope_dim, double theta, double position, bool inverse, const double *x,
                   double *y) {
    for (int i = 0; i < rope_dim / 2; ++i) {
        int plain[2], turned[2];
        pair(style, rope_dim, i, plain, turned);
        double angle = position * pow(theta, -2.0 * i / rope_dim), c = cos(angle), s = sin(angle);
        if (inverse) {
            y[plain[0]] = x[turned[0]] * c + x[turned[1]] * s;
            y[plain[1]] = x[turned[1]] * c - x[turned[0]] * s;
        } else {
            y[turned[0]] = x[plain[0]] * c - x[plain[1]] * s;
            y[turned[1]] = x[plain[1]] * c + x[plain[0]] * s;
        }
    }
}

static cldsa_status check_rope_dim(const cldsa_run *run, int rope_dim, int64_t width) {
    if (rope_dim % 2 || rope_dim > width)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: rope_dim is %d; it must be even and at most %lld", run->op->name,
                          rope_dim, (long long)width);
    return CLDSA_SUCCESS;
}

static bool is_vec(const cldsa_run *run) {
    return strcmp(run->variant->name, "vec") == 0;
}

/* vec: a work-item per ROWS rows. simt: groups of WG for a row's units. */
static void launch_shape(const cldsa_run *run, int64_t rows, int64_t units, size_t *global, size_t *local) {
    bool vec = is_vec(run);
    *local = vec ? 1 : (size_t)cldsa_run_tune(run, "WG");
    *global = (size_t)(vec ? cldsa_ceil_div(rows, cldsa_run_tune(run, "ROWS"))
                           : rows * cldsa_round_up(units, (int64_t)*local));
}

/* simt: work-items that share one unit of a row's heads. */
static int64_t head_blocks(const cldsa_run *run, int64_t heads) {
    return is_vec(run) ? heads : cldsa_ceil_div(heads, cldsa_run_tune(run, "HEADS"));
}

/* theta^(-2/rope_dim), the ratio of neighbouring pairs' frequencies, as the sum of two floats. */
typedef struct two_floats {
    float high, low;
} two_floats;

static two_floats angle_ratio(float theta, int rope_dim) {
    double ratio = pow((double)theta, -2.0 / rope_dim);
    float high = (float)ratio;
    return (two_floats){high, (float)(ratio - (double)high)};
}

#define TUNABLES_VEC                                                                                                   \
    {                                                                                                                  \
        { "ROWS", 8, {2, 4, 8, 16, 32}, "rows per work-item" }                                                         \
    }
#define TUNABLES_SIMT                                                                                                  \
    {                                                                                                                  \
        {"WG", 128, {32, 64, 128, 256}, "work-items per group"}, {                                                     \
            "HEADS", 8, {1, 2, 4, 8, 16}, "heads per work-item"                                                        \
        }                                                                                                              \
    }

/* ---- rope ------------------------------------------------------------------------------------------------------ */

enum { B, S, H, D };
static const char *const rope_dims[] = {"B", "S", "H", "D", NULL};

static const cldsa_field rope_fields[] = {
    CLDSA_IN(cldsa_rope_args, x, "B S H D", F32, "heads"),
    CLDSA_IN_OPT(cldsa_rope_args, positions, "B S", I32, "position of each row, else 0 .. S-1"),
    CLDSA_OUT(cldsa_rope_args, y, "B S H D", F32, "heads with their last rope_dim elements rotated"),
    CLDSA_PARAM(cldsa_rope_args, rope_dim, INT, 16, 2, 65536, "rotated elements, even"),
    CLDSA_PARAM(cldsa_rope_args, theta, FLOAT, 10000, 1e-3, 1e12, "base of the angles"),
    CLDSA_PARAM_ENUM(cldsa_rope_args, style, style_names, "which elements form a pair"),
    CLDSA_PARAM(cldsa_rope_args, inverse, BOOL, 0, 0, 1, "rotate back (the transpose)"),
    {0},
};

static cldsa_status rope_check(const cldsa_run *run) {
    const cldsa_rope_args *a = run->args;
    return check_rope_dim(run, a->rope_dim, run->dims[D]);
}

/* EXACT_FMA: angles are kept in two floats, whose products need all bits that fma gives. */
static cldsa_status rope_enqueue(cldsa_run *run) {
    const cldsa_rope_args *a = run->args;
    const int64_t *d = run->dims;
    char options[CLDSA_OPTIONS_MAX];
    cldsa_run_options(run, options, "-DEXACT_FMA -DROPE=%d -DSTYLE=%d -DINVERSE=%d -DHAS_POSITIONS=%d", a->rope_dim,
                      a->style, a->inverse, a->positions.mem != NULL);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, is_vec(run) ? "rope_vec" : "rope_simt", options, &kernel));
    size_t global, local;
    launch_shape(run, d[B] * d[S], head_blocks(run, d[H]) * (d[D] - a->rope_dim / 2), &global, &local);
    two_floats ratio = angle_ratio(a->theta, a->rope_dim);
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(a->x),
                         CLDSA_ARG_TENSOR(a->positions), CLDSA_ARG_TENSOR(a->y), CLDSA_ARG_F32(ratio.high),
                         CLDSA_ARG_F32(ratio.low), CLDSA_ARG_U32(d[B] * d[S]), CLDSA_ARG_U32(d[S]), CLDSA_ARG_U32(d[H]),
                         CLDSA_ARG_U32(d[D]));
}

static void rope_reference(const cldsa_reference_call *call) {
    const cldsa_rope_args *a = call->args;
    const int64_t *d = call->dims;
    int64_t plain = d[D] - a->rope_dim;
    for (int64_t item = 0; item < d[B] * d[S] * d[H]; ++item) {
        int64_t row = item / d[H];
        double position = call->tensors[1].data ? call->tensors[1].data[row] : (double)(row % d[S]);
        const double *x = call->tensors[0].data + item * d[D];
        double *y = call->tensors[2].data + item * d[D];
        for (int64_t i = 0; i < plain; ++i)
            y[i] = x[i];
        rotate(a->style, a->rope_dim, (double)a->theta, position, a->inverse, x + plain, y + plain);
    }
}

static double rope_flops(const cldsa_run *run) {
    const cldsa_rope_args *a = run->args;
    return 3.0 * a->rope_dim * (double)(run->dims[B] * run->dims[S] * run->dims[H]);
}

static double rope_bytes(const cldsa_run *run) {
    return 8.0 * (double)(run->dims[B] * run->dims[S] * run->dims[H] * run->dims[D]);
}

static const cldsa_variant rope_vec = {
    .name = "vec", .file = "rope.cl", .tunables = TUNABLES_VEC, .enqueue = rope_enqueue};
static const cldsa_variant rope_simt = {
    .name = "simt", .file = "rope.cl", .tunables = TUNABLES_SIMT, .enqueue = rope_enqueue};
static const cldsa_variant *const rope_variants[] = {&rope_vec, &rope_simt, NULL};

const cldsa_op cldsa_op_rope = {
    .name = "rope",
    .summary = "rotary position embedding of heads",
    .args_size = sizeof(cldsa_rope_args),
    .dims = rope_dims,
    .fields = rope_fields,
    .variants = rope_variants,
    .choose = cldsa_choose_vec_or_simt,
    .check = rope_check,
    .reference = rope_reference,
    .flops = rope_flops,
    .bytes = rope_bytes,
    .tolerance_abs = 5e-6,
    .tolerance_rel = 1e-6,
};
CLDSA_DEFINE_OP(rope)

/* ---- mla_pack --------------------------------------------------------------------------------------------------- */

extern const cldsa_op cldsa_op_mla_pack_backward;

enum { PB, PS, PH, PP, PW, PV, PA };
static const char *const pack_dims[] = {"B", "S", "H", "P", "W", "V", "A", NULL};

/* The shapes are those of the forward call in both directions. */
#define PACK_PARAMS(T)                                                                                                 \
    CLDSA_PARAM(T, rope_dim, INT, 16, 2, 65536, "rotated elements per head, even"),                                    \
        CLDSA_PARAM(T, theta, FLOAT, 10000, 1e-3, 1e12, "base of the angles"),                                         \
        CLDSA_PARAM_ENUM(T, style, style_names, "which elements form a pair"), {                                       \
        0                                                                                                              \
    }

static const cldsa_field pack_fields[] = {
    CLDSA_IN(cldsa_mla_pack_args, q_in, "B S H P", F32, "queries: nope ++ rope per head"),
    CLDSA_IN(cldsa_mla_pack_args, kv, "B S H W", F32, "key nope ++ value per head; W = P - rope_dim + V"),
    CLDSA_IN(cldsa_mla_pack_args, kv_a, "B S A", F32, "its last rope_dim columns are the shared rotary key"),
    CLDSA_OUT(cldsa_mla_pack_args, q, "B S H P", F32, "queries"),
    CLDSA_OUT(cldsa_mla_pack_args, k, "B S H P", F32, "keys"),
    CLDSA_OUT(cldsa_mla_pack_args, v, "B S H V", F32, "values"),
    PACK_PARAMS(cldsa_mla_pack_args),
};

static const cldsa_field pack_backward_fields[] = {
    CLDSA_GRAD(cldsa_mla_pack_backward_args, dq, "B S H P", F32, "in.dq", "gradient of q"),
    CLDSA_GRAD(cldsa_mla_pack_backward_args, dk, "B S H P", F32, "in.dk", "gradient of k"),
    CLDSA_GRAD(cldsa_mla_pack_backward_args, dv, "B S H V", F32, "in.dv", "gradient of v"),
    CLDSA_OUT(cldsa_mla_pack_backward_args, dq_in, "B S H P", F32, "gradient of q_in"),
    CLDSA_OUT(cldsa_mla_pack_backward_args, dkv, "B S H W", F32, "gradient of kv"),
    CLDSA_OUT(cldsa_mla_pack_backward_args, dkv_a, "B S A", F32, "gradient of kv_a: the last rope_dim columns only"),
    PACK_PARAMS(cldsa_mla_pack_backward_args),
};

/* The same members in both args structs' order: three inputs, three outputs, the parameters. */
typedef cldsa_mla_pack_args pack_args;
_Static_assert(sizeof(cldsa_mla_pack_args) == sizeof(cldsa_mla_pack_backward_args) &&
                   offsetof(cldsa_mla_pack_args, rope_dim) == offsetof(cldsa_mla_pack_backward_args, rope_dim),
               "both directions are enqueued by one function");

static cldsa_status pack_check(const cldsa_run *run) {
    const pack_args *a = run->args;
    const int64_t *d = run->dims;
    CLDSA_TRY(check_rope_dim(run, a->rope_dim, d[PP] < d[PA] ? d[PP] : d[PA]));
    int64_t width = d[PP] - a->rope_dim + d[PV];
    if (d[PW] != width)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: rows of kv have %lld elements per head; key and value need %lld",
                          run->op->name, (long long)d[PW], (long long)width);
    return CLDSA_SUCCESS;
}

static cldsa_status pack_enqueue(cldsa_run *run) {
    const pack_args *a = run->args;
    const int64_t *d = run->dims;
    bool backward = run->op == &cldsa_op_mla_pack_backward;
    char options[CLDSA_OPTIONS_MAX], name[32];
    cldsa_run_options(run, options, "-DEXACT_FMA -DROPE=%d -DSTYLE=%d", a->rope_dim, a->style);
    snprintf(name, sizeof name, "%s_%s", run->op->name, run->variant->name);
    cldsa_kernel *kernel;
    CLDSA_TRY(cldsa_run_kernel(run, name, options, &kernel));
    int64_t rows = d[PB] * d[PS], nope = d[PP] - a->rope_dim, pairs = a->rope_dim / 2;
    int64_t per_head = 2 * nope + (backward ? 1 : 2) * pairs + d[PV];
    int64_t units = head_blocks(run, d[PH]) * per_head + (backward ? pairs : 0);
    size_t global, local;
    launch_shape(run, rows, units, &global, &local);
    two_floats ratio = angle_ratio(a->theta, a->rope_dim);
    return CLDSA_ENQUEUE(&run->stream, kernel, 1, &global, &local, CLDSA_ARG_TENSOR(a->q_in), CLDSA_ARG_TENSOR(a->kv),
                         CLDSA_ARG_TENSOR(a->kv_a), CLDSA_ARG_TENSOR(a->q), CLDSA_ARG_TENSOR(a->k),
                         CLDSA_ARG_TENSOR(a->v), CLDSA_ARG_F32(ratio.high), CLDSA_ARG_F32(ratio.low),
                         CLDSA_ARG_U32(rows), CLDSA_ARG_U32(d[PS]), CLDSA_ARG_U32(d[PH]), CLDSA_ARG_U32(nope),
                         CLDSA_ARG_U32(d[PV]), CLDSA_ARG_U32(d[PA]));
}

static void pack_reference(const cldsa_reference_call *call) {
    const pack_args *a = call->args;
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    int64_t nope = d[PP] - a->rope_dim;
    for (int64_t head = 0; head < d[PB] * d[PS] * d[PH]; ++head) {
        int64_t row = head / d[PH];
        double position = (double)(row % d[PS]), theta = (double)a->theta;
        const double *q = t[0].data + head * d[PP], *kv = t[1].data + head * d[PW];
        for (int64_t i = 0; i < nope; ++i) {
            t[3].data[head * d[PP] + i] = q[i];
            t[4].data[head * d[PP] + i] = kv[i];
        }
        rotate(a->style, a->rope_dim, theta, position, false, q + nope, t[3].data + head * d[PP] + nope);
        rotate(a->style, a->rope_dim, theta, position, false, t[2].data + (row + 1) * d[PA] - a->rope_dim,
               t[4].data + head * d[PP] + nope);
        for (int64_t i = 0; i < d[PV]; ++i)
            t[5].data[head * d[PV] + i] = kv[nope + i];
    }
}

enum { MAX_REFERENCE_ROPE = 65536 };

static void pack_backward_reference(const cldsa_reference_call *call) {
    const pack_args *a = call->args;
    const int64_t *d = call->dims;
    const cldsa_host_tensor *t = call->tensors;
    int64_t nope = d[PP] - a->rope_dim;
    static _Thread_local double sum[MAX_REFERENCE_ROPE];
    for (int64_t row = 0; row < d[PB] * d[PS]; ++row) {
        double position = (double)(row % d[PS]), theta = (double)a->theta;
        for (int i = 0; i < a->rope_dim; ++i)
            sum[i] = 0;
        for (int64_t head = row * d[PH]; head < (row + 1) * d[PH]; ++head) {
            const double *dq = t[0].data + head * d[PP], *dk = t[1].data + head * d[PP];
            for (int64_t i = 0; i < nope; ++i) {
                t[3].data[head * d[PP] + i] = dq[i];
                t[4].data[head * d[PW] + i] = dk[i];
            }
            rotate(a->style, a->rope_dim, theta, position, true, dq + nope, t[3].data + head * d[PP] + nope);
            for (int i = 0; i < a->rope_dim; ++i)
                sum[i] += dk[nope + i];
            for (int64_t i = 0; i < d[PV]; ++i)
                t[4].data[head * d[PW] + nope + i] = t[2].data[head * d[PV] + i];
        }
        rotate(a->style, a->rope_dim, theta, position, true, sum, t[5].data + (row + 1) * d[PA] - a->rope_dim);
    }
}

static double pack_flops(const cldsa_run *run) {
    const pack_args *a = run->args;
    return 6.0 * a->rope_dim * (double)(run->dims[PB] * run->dims[PS] * run->dims[PH]);
}

static double pack_bytes(const cldsa_run *run) {
    const pack_args *a = run->args;
    const int64_t *d = run->dims;
    return 4.0 * (double)(d[PB] * d[PS]) * (double)(d[PH] * (3 * d[PP] + d[PW] + d[PV]) + a->rope_dim);
}

static const cldsa_variant pack_vec = {
    .name = "vec", .file = "rope.cl", .tunables = TUNABLES_VEC, .enqueue = pack_enqueue};
static const cldsa_variant pack_simt = {
    .name = "simt", .file = "rope.cl", .tunables = TUNABLES_SIMT, .enqueue = pack_enqueue};
static const cldsa_variant *const pack_variants[] = {&pack_vec, &pack_simt, NULL};

const cldsa_op cldsa_op_mla_pack = {
    .name = "mla_pack",
    .summary = "latent attention's queries, keys and values from its projections, rotated on the way",
    .args_size = sizeof(cldsa_mla_pack_args),
    .dims = pack_dims,
    .fields = pack_fields,
    .variants = pack_variants,
    .choose = cldsa_choose_vec_or_simt,
    .check = pack_check,
    .reference = pack_reference,
    .flops = pack_flops,
    .bytes = pack_bytes,
    .tolerance_abs = 5e-6,
    .tolerance_rel = 1e-6,
};
CLDSA_DEFINE_OP(mla_pack)

const cldsa_op cldsa_op_mla_pack_backward = {
    .name = "mla_pack_backward",
    .summary = "gradients of mla_pack",
    .args_size = sizeof(cldsa_mla_pack_backward_args),
    .dims = pack_dims,
    .fields = pack_backward_fields,
    .variants = pack_variants,
    .choose = cldsa_choose_vec_or_simt,
    .check = pack_check,
    .reference = pack_backward_reference,
    .flops = pack_flops,
    .bytes = pack_bytes,
    .tolerance_abs = 5e-6,
    .tolerance_rel = 1e-6,
};
CLDSA_DEFINE_OP(mla_pack_backward)
