/*
 * The common test of an operation: cases in a table, everything else from the operation's own description.
 *
 * For each case the harness fills the inputs, rounds them to their storage dtypes, computes the outputs with the fp64
 * reference, and then runs every kernel variant that can run, and the default choice, on $CLDSA_DEVICE:
 *   - outputs poisoned beforehand, each tensor at an odd element offset between guard zones, the workspace exactly as
 *     large as asked for (once the preferred and once the least size), poisoned and guarded too;
 *   - results against the reference (op->tolerance_abs + tolerance_rel * |want|, half an ulp more for f16 and bf16;
 * NaN, infinities and integers exactly); guards and inputs must be unchanged; elements that the reference leaves alone
 *     must be untouched on the device;
 *   - each run repeated: the bits must be the same;
 *   - the suite's first case also on an out-of-order queue behind an event that completes only after the call returned.
 * A backward suite names its forward operation: the forward's outputs that it reads (out, lse, ...) are then filled by
 * the forward's reference, and its own reference is checked against central differences of it.
 *
 *     static const harness_case cases[] = {
 *         {.name = "one key for all heads", .dims = "B=2 S=7 T=33 H=4 Hk=1 D=40", .params = "range=causal relu_out=1"},
 *         {.name = "ranges, half", .dims = "B=1 S=5 T=64 H=2 Hk=2 D=16", .params = "range=rows", .give = "ks ke
 * k_scale", .dtypes = "q=F16 k=F16", .fill = "ks=range_start T; ke=range_end T", .shapes = "w=B S H"},
 *     };
 *     int main(int argc, char **argv) {
 *         const harness_suite suites[] = {{.op = &cldsa_op_indexer_scores, HARNESS_CASES(cases)}};
 *         return harness_main(suites, 1, argc, argv);
 *     }
 *
 * With CLDSA_TEST_WORK=N in the environment only cases of at most N arithmetic operations and elements run, each
 * variant once: what a simulator, which takes microseconds for an operation, gets through. Every operation needs such a
 * case.
 *
 * An argument on the command line runs only the tests whose name ("op: case") matches it (* and ? as wildcards).
 */
#ifndef CLDSA_HARNESS_H
#define CLDSA_HARNESS_H

#include "host/ops/op.h"

typedef struct harness_data harness_data;

typedef struct harness_case {
    const char *name;
    /* What is called: the texts of a cldsa_workload_spec, explained in host/ops/workload.h. */
    const char *dims, *params, *give, *dtypes, *shapes, *fill;
    /* Changes inputs after the fills, before the reference (harness_tensor); may be NULL. */
    void (*prepare)(harness_data *data);
    const char *alias;   /* "y=x": the output y lies in x's own buffer */
    double tolerance;    /* multiplies the op's tolerances; 0 means 1 */
    cldsa_status expect; /* the call must fail with this status, on the default choice; no reference is computed */
    const char *message; /* with expect: a part of the message */
    bool no_differences; /* backward: leave the central differences out (a kink at the given values) */
    bool finite;         /* what the reference wants holds neither NaN nor infinities, whatever the inputs hold */
} harness_case;

typedef struct harness_suite {
    const cldsa_op *op;
    const cldsa_op *forward; /* of a backward operation */
    /* Backward outputs whose forward input is not the name without its 'd': "dsink=attn_sink". */
    const char *gradient_of;
    /*
     * "NAME=VALUE,...": the first variant runs once more with these, e.g. a GPU's launch shape on a CPU.
     * "VARIANT:NAME=VALUE,...": so does the named one. Several are separated by "; ".
     */
    const char *tunables;
    const harness_case *cases;
    size_t num_cases;
} harness_suite;

#define HARNESS_CASES(array) .cases = (array), .num_cases = sizeof(array) / sizeof((array)[0])

/* Runs all cases of all suites as cmocka tests; returns the process' exit status. */
int harness_main(const harness_suite *suites, size_t num_suites, int argc, char **argv);

/* ---- for prepare hooks --------------------------------------------------------------------------------------- */

/* The host tensor of a field; fails the test if the case does not give it. Values are rounded to the dtype later. */
cldsa_host_tensor *harness_tensor(harness_data *data, const char *field);
int64_t harness_numel(const cldsa_host_tensor *tensor);
/* A dimension of the case. */
int64_t harness_dim(const harness_data *data, const char *name);
/* Reproducible numbers: element e of the case's stream `stream`. */
double harness_normal(const harness_data *data, uint32_t stream, uint64_t e);
double harness_uniform(const harness_data *data, uint32_t stream, uint64_t e); /* 0 <= u < 1 */

/* ---- for tests beside the table ------------------------------------------------------------------------------- */

/* The context and its in-order queue on $CLDSA_DEVICE, made on first use; ends the process if there is none. */
cldsa_context *harness_context(cl_command_queue *queue);

/* $CLDSA_TEST_WORK; 0: no limit. Tests beside the table keep to it too, and hold no large buffers. */
double harness_work_limit(void);

#endif
