/*
 * A call of an operation from a few words: extents, parameters, dtypes and how the inputs are filled. What the tests,
 * the bench and the tuner make their calls from.
 *
 *     const cldsa_workload_spec spec = {.dims = "B=1 S=5 T=64 H=2 Hk=2 D=16", .params = "range=rows",
 *                                       .give = "ks ke", .dtypes = "q=F16 k=F16",
 *                                       .fill = "ks=range_start T; ke=range_end T"};
 *     cldsa_workload work;
 *     cldsa_workload_make(&cldsa_op_indexer_scores, &spec, 1, &work);   inputs on the host
 *     cldsa_workload_reference(&work);                                  wanted outputs, by the fp64 reference
 */
#ifndef CLDSA_WORKLOAD_H
#define CLDSA_WORKLOAD_H

#include "host/ops/host_tensor.h"

enum { CLDSA_WORKLOAD_TEXT = 256 };

typedef struct cldsa_workload_spec {
    const char *dims;   /* extents by name: "B=2 S=7 T=33"; also those that only appear in .shapes */
    const char *params; /* parameters that differ from their defaults: "range=causal k=5 p=0.1"; enums by name */
    const char *give;   /* the optional tensors that are given: "k_scale lse"; "*" gives all */
    /* "q=F16 mask=U32"; otherwise F32, I32 or U8, whichever the field accepts first in that order. */
    const char *dtypes;
    /*
     * Shapes where the table's first alternative is not meant, separated by ';': "w=B S H; scores=2 3 T". Words are
     * dimensions or numbers; #T is packed as the field's dtype asks.
     */
    const char *shapes;
    /*
     * How input tensors are filled, separated by ';': "k_rows=whole 0 T; mask=mask 0.3". Operands are numbers, inf,
     * nan, or dimensions with an optional +n or -n ("T-1"). Without an entry float tensors are normal(0,1).
     *   normal [SIGMA [MEAN]]  uniform A B      floats
     *   whole A B              whole numbers, A and B included; any dtype (exact sums, ties)
     *   const V                every element
     *   positive               0.5 .. 1.5
     *   ties N                 normal, rounded to N steps per unit
     *   special                normal with NaN, +-inf, signed zeros, denormals strewn in
     *   iota                   0, 1, 2, ...
     *   mask P                 on with probability P: bytes 0 or not 0, or bits
     *   indices T              rows of the last extent: distinct, ascending, the tail of some rows -1
     *   distinct T             the same, every row full (where T allows)
     *   wild T                 -3 .. T+3, in any order, repeated
     *   range_start T, range_end T   a pair for ks and ke: some ranges empty, reversed or reaching outside 0..T
     *   offsets N              ascending from 0 to N, some equal
     *   steps N                ascending from 0 to N, as evenly as whole numbers can
     *   permutation            0, 1, 2, ... in another order
     *   labels V               0 .. V-1, some -100
     */
    const char *fill;
    /* Of a backward operation: its forward, whose outputs (out, lse, ...) are then not filled: see _forward. */
    const cldsa_op *forward;
    bool unchecked;   /* parameters outside their ranges go in as they are: such a call must be refused */
    bool shapes_only; /* no values: host tensors have shapes and no data; for planning calls that are never computed */
    bool leave_blank; /* integer tensors without an entry in .fill stay 0, for the caller; else they are an error */
    /* Large tensors repeat after about this many elements (whole rows), which saves drawing them all; 0: never. */
    int64_t period;
} cldsa_workload_spec;

typedef struct cldsa_workload {
    const cldsa_op *op;
    cldsa_workload_spec spec;
    uint64_t seed;
    void *args; /* parameters and shapes; cl_mems are the caller's to set */
    int64_t dims[CLDSA_MAX_DIMS];
    int num_fields;
    bool given[CLDSA_MAX_FIELDS];
    cldsa_host_tensor tensors[CLDSA_MAX_FIELDS]; /* inputs; after _reference, the wanted outputs */
    void *raw[CLDSA_MAX_FIELDS];                 /* storage form of inputs, after _store */
    double *unrounded[CLDSA_MAX_FIELDS];         /* forward outputs that a backward operation reads, in fp64 */
} cldsa_workload;

/*
 * Makes args and host tensors, fills the inputs. On failure nothing is left to free.
 * CLDSA_INVALID_ARGUMENT: the spec names what the operation does not have, or misses what it needs.
 */
cldsa_status cldsa_workload_make(const cldsa_op *op, const cldsa_workload_spec *spec, uint64_t seed,
                                 cldsa_workload *work);
void cldsa_workload_free(cldsa_workload *work);

/* Rounds the inputs to their storage dtypes, keeps that form in work->raw, and binds work->dims. */
cldsa_status cldsa_workload_store(cldsa_workload *work);

/*
 * Everything that the fp64 reference can say, after _store: the outputs of spec.forward that the operation reads, then
 * its own. Elements that the reference leaves alone hold a NaN which cldsa_is_untouched knows.
 */
cldsa_status cldsa_workload_reference(cldsa_workload *work);

/* A NaN that no arithmetic produces. */
void cldsa_untouch(double *values, int64_t n);
bool cldsa_is_untouched(double value);

/* A dimension of the spec; false (with a message) if it is not given. */
bool cldsa_workload_dim(const cldsa_workload *work, const char *name, int64_t *value);

/* Reproducible numbers: element e of the workload's stream `stream`; below 1000 they are the fills'. */
double cldsa_workload_normal(const cldsa_workload *work, uint32_t stream, uint64_t e);
double cldsa_workload_uniform(const cldsa_workload *work, uint32_t stream, uint64_t e); /* 0 <= u < 1 */

/* ---- the forward call beside a backward one (workload_forward.c) ----------------------------------------------- */

/*
 * The forward call that belongs to a backward workload. Inputs are shared with the backward's tensors of the same name;
 * outputs, and inputs that the backward does not read because the forward is linear in them (zeros), are its own.
 */
typedef struct cldsa_forward_call {
    const cldsa_op *op;
    void *args;
    cldsa_run run; /* dims */
    cldsa_host_tensor tensors[CLDSA_MAX_FIELDS];
    bool owned[CLDSA_MAX_FIELDS]; /* allocated here */
} cldsa_forward_call;

cldsa_status cldsa_forward_begin(const cldsa_workload *work, cldsa_forward_call *call);
void cldsa_forward_compute(cldsa_forward_call *call); /* by the forward's reference */
void cldsa_forward_end(cldsa_forward_call *call);

/* ---- reading the texts ----------------------------------------------------------------------------------------- */

/* Index of a field by name, or -1. */
int cldsa_op_field(const cldsa_op *op, const char *name);

/* The value of `key` in "key=value..." items separated by `separator`; false if absent. */
bool cldsa_workload_option(const char *list, char separator, const char *key, char value[CLDSA_WORKLOAD_TEXT]);

/* A number, or a dimension of the spec with an optional +n or -n. */
cldsa_status cldsa_workload_operand(const cldsa_workload *work, const char *text, double *value);

/* A shape rule's words ("B S #T") as extents of `tensor`, whose dtype is set. */
cldsa_status cldsa_workload_shape(const cldsa_workload *work, const char *rule, cldsa_host_tensor *tensor);

/* workload_fill.c: one input tensor as the spec asks. */
cldsa_status cldsa_workload_fill(cldsa_workload *work, int field);

static inline bool cldsa_field_is_input(const cldsa_field *field) {
    return field->kind == CLDSA_FIELD_IN || field->kind == CLDSA_FIELD_INOUT;
}
static inline bool cldsa_field_is_output(const cldsa_field *field) {
    return field->kind == CLDSA_FIELD_OUT || field->kind == CLDSA_FIELD_INOUT;
}
static inline bool cldsa_dtype_is_float(cldsa_dtype dtype) {
    return (CLDSA_ACCEPT(dtype) & CLDSA_ACCEPT_FLOAT) != 0;
}

#endif
