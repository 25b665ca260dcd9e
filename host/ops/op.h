/*
 * One description per operation. Everything that walks the catalogue (cldsa op, tests, tuner, bench, fault tests,
 * offline compiler checks) reads these tables; nothing about an operation is written down twice.
 *
 * An operation's public args struct holds its tensors and parameters; the field table says where each lies, its shape
 * rule, accepted dtypes, default and range. cldsa_op_enqueue checks the args against the table, binds the
 * dimensions, picks a kernel variant and calls its enqueue function.
 */
#ifndef CLDSA_OP_H
#define CLDSA_OP_H

#include "host/runtime/runtime.h"

enum { CLDSA_MAX_DIMS = 12, CLDSA_MAX_FIELDS = 40, CLDSA_MAX_TUNABLES = 12 };

typedef enum cldsa_field_kind {
    CLDSA_FIELD_IN,    /* tensor, read */
    CLDSA_FIELD_OUT,   /* tensor, every documented element overwritten */
    CLDSA_FIELD_INOUT, /* tensor, read and written */
    CLDSA_FIELD_INT,   /* int */
    CLDSA_FIELD_I64,   /* int64_t */
    CLDSA_FIELD_U64,   /* uint64_t */
    CLDSA_FIELD_U32,   /* uint32_t */
    CLDSA_FIELD_FLOAT, /* float */
    CLDSA_FIELD_BOOL,  /* bool */
    CLDSA_FIELD_ENUM   /* an enum; `names` lists its values' names in order */
} cldsa_field_kind;

/* dtype masks for tensor fields */
#define CLDSA_ACCEPT(d)    (1u << (d))
#define CLDSA_ACCEPT_F32   CLDSA_ACCEPT(CLDSA_F32)
#define CLDSA_ACCEPT_FLOAT (CLDSA_ACCEPT(CLDSA_F32) | CLDSA_ACCEPT(CLDSA_F16) | CLDSA_ACCEPT(CLDSA_BF16))
#define CLDSA_ACCEPT_I32   CLDSA_ACCEPT(CLDSA_I32)
#define CLDSA_ACCEPT_MASK  (CLDSA_ACCEPT(CLDSA_U8) | CLDSA_ACCEPT(CLDSA_U32))

typedef struct cldsa_field {
    const char *name; /* as in the args struct, in goldens ("in.q", "out.scores") and in --set */
    cldsa_field_kind kind;
    size_t at; /* offsetof in the args struct */
    /*
     * Tensors: the shape rule. Names of dimensions separated by blanks, e.g. "B S H D"; a number stands for itself;
     * alternatives are separated by '|' ("H|B S H"); "R*" first matches any number of leading extents, whose product
     * is R; "#name" is a dimension the mask dtypes pack: T bytes or ceil(T/32) words. A dimension is bound by
     * the first tensor that names it, in table order, and must agree everywhere else. The first alternative that
     * agrees with the rank and with what is bound already is taken. NULL leaves the tensor to op->bind.
     */
    const char *shape;
    unsigned dtypes;  /* tensors: accepted dtypes */
    bool optional;    /* tensors: mem may be NULL */
    const char *grad; /* IN tensors of a backward op that are upstream gradients, else NULL: the golden's name, e.g.
                         "in.dout" */
    double fallback, min, max; /* parameters: default and range (inclusive) */
    const char *const *names;  /* enums, NULL-terminated */
    const char *help;
} cldsa_field;

/* Shorthands for field tables: T is the args struct. */
#define CLDSA_IN(T, f, shape_, dtypes_, help_)                                                                         \
    {                                                                                                                  \
        .name = #f, .kind = CLDSA_FIELD_IN, .at = offsetof(T, f), .shape = (shape_), .dtypes = (dtypes_),              \
        .help = (help_)                                                                                                \
    }
#define CLDSA_IN_OPT(T, f, shape_, dtypes_, help_)                                                                     \
    {                                                                                                                  \
        .name = #f, .kind = CLDSA_FIELD_IN, .at = offsetof(T, f), .shape = (shape_), .dtypes = (dtypes_),              \
        .optional = true, .help = (help_)                                                                              \
    }
#define CLDSA_OUT(T, f, shape_, dtypes_, help_)                                                                        \
    {                                                                                                                  \
        .name = #f, .kind = CLDSA_FIELD_OUT, .at = offsetof(T, f), .shape = (shape_), .dtypes = (dtypes_),             \
        .help = (help_)                                                                                                \
    }
#define CLDSA_OUT_OPT(T, f, shape_, dtypes_, help_)                                                                    \
    {                                                                                                                  \
        .name = #f, .kind = CLDSA_FIELD_OUT, .at = offsetof(T, f), .shape = (shape_), .dtypes = (dtypes_),             \
        .optional = true, .help = (help_)                                                                              \
    }
#define CLDSA_GRAD(T, f, shape_, dtypes_, grad_, help_)                                                                \
    {                                                                                                                  \
        .name = #f, .kind = CLDSA_FIELD_IN, .at = offsetof(T, f), .shape = (shape_), .dtypes = (dtypes_),              \
        .grad = (grad_), .help = (help_)                                                                               \
    }
#define CLDSA_INOUT(T, f, shape_, dtypes_, help_)                                                                      \
    {                                                                                                                  \
        .name = #f, .kind = CLDSA_FIELD_INOUT, .at = offsetof(T, f), .shape = (shape_), .dtypes = (dtypes_),           \
        .help = (help_)                                                                                                \
    }
#define CLDSA_PARAM(T, f, kind_, fallback_, min_, max_, help_)                                                         \
    {                                                                                                                  \
        .name = #f, .kind = CLDSA_FIELD_##kind_, .at = offsetof(T, f), .fallback = (fallback_), .min = (min_),         \
        .max = (max_), .help = (help_)                                                                                 \
    }
#define CLDSA_PARAM_ENUM(T, f, names_, help_)                                                                          \
    { .name = #f, .kind = CLDSA_FIELD_ENUM, .at = offsetof(T, f), .names = (names_), .help = (help_) }

typedef struct cldsa_op cldsa_op;
typedef struct cldsa_variant cldsa_variant;

/* How near the device is for which the tuning database has a call's tunables (tuning.h). */
typedef enum cldsa_tuning_match {
    CLDSA_TUNING_NONE, /* not from the database */
    CLDSA_TUNING_VENDOR,
    CLDSA_TUNING_ARCHITECTURE,
    CLDSA_TUNING_EXACT
} cldsa_tuning_match;

/* One checked call on its way to the device. */
typedef struct cldsa_run {
    cldsa_context *ctx;
    const cldsa_op *op;
    const cldsa_variant *variant;
    const void *args;             /* the op's args struct */
    int64_t dims[CLDSA_MAX_DIMS]; /* bound extents, in the order of op->dims; 0 where nothing bound it */
    int tune[CLDSA_MAX_TUNABLES]; /* values of variant->tunables, in their order */
    cldsa_tuning_match match;
    char tuned_from[64]; /* for people: "defaults", "forced", "dsa-decode, user file" */
    cl_mem workspace;    /* the call's scratch, or the part a calling operation gives to this one */
    size_t workspace_offset, workspace_bytes;
    char label[64]; /* "op/variant" */
    cldsa_stream stream;
} cldsa_run;

/* A parameter of a kernel variant: a -D of the same name, and whatever the launch shape makes of it. */
typedef struct cldsa_tunable {
    const char *name; /* the macro, e.g. "WG" */
    int fallback;     /* default where the database is silent */
    int values[16];   /* candidates, 0-terminated */
    const char *help;
} cldsa_tunable;

struct cldsa_variant {
    const char *name; /* "vec", "simt", "bitonic", "clblast", ... */
    const char *file; /* the main kernel file in cl/, NULL if none of ours */
    cldsa_tunable tunables[CLDSA_MAX_TUNABLES];
    /* Can it run at all: capabilities, shapes, dtypes. Never a preference. NULL means always. */
    bool (*can_run)(const cldsa_run *run);
    /* Device-dependent defaults for tunables (optional). */
    void (*defaults)(const cldsa_run *run, int *tune);
    /* Is this combination of tunables legal on this device (local memory, divisibility)? NULL means always. */
    bool (*legal)(const cldsa_run *run, const int *tune);
    /* Scratch bytes: what the call would like, and the least it works with. NULL means none. */
    void (*workspace)(const cldsa_run *run, size_t *preferred, size_t *minimum);
    /* Enqueues the kernels on run->stream. */
    cldsa_status (*enqueue)(cldsa_run *run);
};

/* op->choose for variants {vec, simt}. */
static inline int cldsa_choose_vec_or_simt(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->is_cpu ? 0 : 1;
}

/* Intel's GPUs, whose work-items have 128 registers where others have 255 and more: smaller tiles by default. */
static inline bool cldsa_few_registers(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->fewest_lanes > 0;
}

/* The tunable of cl/registers.clh, and its default: what compilers other than NVIDIA's keep in registers. */
#define CLDSA_TUNE_UNROLL                                                                                              \
    { "UNROLL", 16, {1, 2, 4, 8, 16}, "steps of a reduction unrolled together; 16: no limit" }
static inline int cldsa_default_unroll(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->nv_ptx ? 16 : 2;
}

/* Scratch of so many MiB by default: half of what the device gives in one buffer at most, but not below `least`. */
static inline void cldsa_halve_to_fit(const cldsa_run *run, int *mib, int least) {
    while (*mib > least && ((cl_ulong)*mib << 20) > cldsa_context_device_info(run->ctx)->max_alloc_bytes / 2)
        *mib /= 2;
}

/* Can rows of `width` elements be read four at a time? */
static inline bool cldsa_rows_in_fours(const cldsa_tensor *tensor, int64_t width) {
    return tensor->offset % 4 == 0 && width % 4 == 0;
}

/* A tensor on the host for the fp64 reference: every dtype widened to double, masks as their raw words. */
typedef struct cldsa_host_tensor {
    double *data; /* NULL if not given */
    cldsa_dtype dtype;
    int rank;
    int64_t shape[CLDSA_MAX_RANK];
} cldsa_host_tensor;

/* tensors[i] belongs to fields[i] (parameters' entries are unused); args has the parameters, its cl_mems are not used.
 */
typedef struct cldsa_reference_call {
    const void *args;
    const int64_t *dims;
    cldsa_host_tensor *tensors;
} cldsa_reference_call;

struct cldsa_op {
    const char *name;    /* "topk", "topk_backward" */
    const char *summary; /* one line for --help */
    size_t args_size;
    const char *const *dims;              /* names of dimensions, NULL-terminated */
    const cldsa_field *fields;            /* terminated by a NULL name */
    const cldsa_variant *const *variants; /* NULL-terminated, in order of preference */
    /* Index into variants for this device and shape where the database is silent; NULL means the first that can run. */
    int (*choose)(const cldsa_run *run);
    /* Binds dims that the table's rules cannot express (fields with a NULL shape), e.g. by layout. NULL means none. */
    cldsa_status (*bind)(cldsa_run *run);
    /* Checks beyond the table ("Hk must be 1 or H"); sets the message. NULL means none. */
    cldsa_status (*check)(const cldsa_run *run);
    /* Plain fp64 definition, the truth for tests and tuner. */
    void (*reference)(const cldsa_reference_call *call);
    /* What the work costs, for GFLOP/s and GB/s: useful arithmetic and compulsory traffic. */
    double (*flops)(const cldsa_run *run);
    double (*bytes)(const cldsa_run *run);
    /* Allowed error of f32 results: |x - ref| <= abs + rel * |ref|; f16/bf16 outputs add half an ulp of theirs. */
    double tolerance_abs, tolerance_rel;
};

/* The catalogue: every operation, NULL-terminated (catalogue.c). */
extern const cldsa_op *const cldsa_catalogue[];

/* By name; CLDSA_NOT_FOUND names the nearest. */
cldsa_status cldsa_find_op(const char *name, const cldsa_op **out);

/* Checks args, picks variant and tunables, enqueues. What the public functions are made of. */
cldsa_status cldsa_op_enqueue(cldsa_context *ctx, const cldsa_op *op, const void *args, const cldsa_call *call);

/* Preferred and least scratch of the same call; either may be NULL. */
cldsa_status cldsa_op_workspace(cldsa_context *ctx, const cldsa_op *op, const void *args, size_t *preferred,
                                size_t *minimum);

/* The first half of cldsa_op_enqueue: validated dims, chosen variant and tunables. `run->stream` is not begun. */
cldsa_status cldsa_op_plan(cldsa_context *ctx, const cldsa_op *op, const void *args, cldsa_run *run);

/*
 * Forces variant and tunables for calls of `op` on this context ("NAME=VALUE,..." or NULL), as tests, tuner and bench
 * do. variant NULL removes the override.
 */
cldsa_status cldsa_op_force(cldsa_context *ctx, const cldsa_op *op, const char *variant, const char *tunables);

/* The defaults of every parameter field; tensors zeroed. */
void cldsa_op_default_args(const cldsa_op *op, void *args);

/* Access to fields by table entry. */
static inline cldsa_tensor *cldsa_field_tensor(void *args, const cldsa_field *field) {
    return (cldsa_tensor *)((char *)args + field->at);
}
static inline bool cldsa_field_is_tensor(const cldsa_field *field) {
    return field->kind <= CLDSA_FIELD_INOUT;
}
/* Sets a parameter from a number; CLDSA_INVALID_ARGUMENT outside its range. */
cldsa_status cldsa_field_set(const cldsa_op *op, const cldsa_field *field, void *args, double value);

/* A parameter's value as one writes it: whole numbers in full. Returns `text`. */
enum { CLDSA_FIELD_VALUE_MAX = 32 };
const char *cldsa_field_text(const cldsa_field *field, double value, char text[CLDSA_FIELD_VALUE_MAX]);
double cldsa_field_get(const cldsa_field *field, const void *args);

/* ---- for enqueue functions --------------------------------------------------------------------------------- */

/* The "-D..." of all tunables, then of the printf-style rest. The buffer is `options`, of CLDSA_OPTIONS_MAX bytes. */
enum { CLDSA_OPTIONS_MAX = 1024 };
void cldsa_run_options(const cldsa_run *run, char *options, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* cldsa_get_kernel with the variant's file and cldsa_run_options' options. */
cldsa_status cldsa_run_kernel(cldsa_run *run, const char *name, const char *options, cldsa_kernel **out);

/* The tunables of `variant` (any of the op's) for this call where nothing is forced or measured. */
void cldsa_run_defaults(const cldsa_run *run, const cldsa_variant *variant, int tune[CLDSA_MAX_TUNABLES]);

/* By name, NULL if there is none. */
const cldsa_variant *cldsa_find_variant(const cldsa_op *op, const char *name);

/* Index in variant->tunables, or -1. */
int cldsa_find_tunable(const cldsa_variant *variant, const char *name, size_t length);

/* Value of a tunable by name (asserts that it exists). */
int cldsa_run_tune(const cldsa_run *run, const char *name);

/* The OpenCL macro suffix of a storage dtype for cl/dtype.clh: "F32", "F16", "BF16". */
const char *cldsa_dtype_macro(cldsa_dtype dtype);

/* Scratch of the call as tensors: byte offset `at` from the workspace's start (a multiple of the element size). */
cldsa_tensor cldsa_run_scratch(const cldsa_run *run, size_t at, cldsa_dtype dtype, int64_t numel);

/*
 * Enqueues another operation inside this call's stream (e.g. select uses indexer_scores and topk), with
 * `scratch_at`.. of the workspace as its own.
 */
cldsa_status cldsa_run_sub(cldsa_run *run, const cldsa_op *op, const void *args, size_t scratch_at,
                           size_t scratch_bytes);

/*
 * Scratch that cldsa_run_sub will need. Tensors' buffers need not exist yet: their mem says only whether they are
 * given (any value but NULL), and their size is not checked.
 */
cldsa_status cldsa_run_sub_workspace(const cldsa_run *run, const cldsa_op *op, const void *args, size_t *preferred,
                                     size_t *minimum);

/* Defines the two public functions of an operation. */
#define CLDSA_DEFINE_OP(stem)                                                                                          \
    cldsa_status cldsa_##stem(cldsa_context *ctx, const cldsa_##stem##_args *args, const cldsa_call *call) {           \
        return cldsa_op_enqueue(ctx, &cldsa_op_##stem, args, call);                                                    \
    }                                                                                                                  \
    cldsa_status cldsa_##stem##_workspace(cldsa_context *ctx, const cldsa_##stem##_args *args, size_t *bytes) {        \
        return cldsa_op_workspace(ctx, &cldsa_op_##stem, args, bytes, NULL);                                           \
    }

#endif
