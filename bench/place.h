/*
 * A case of a preset on the device: placed, run, and compared with its fp64 reference. What the bench and the tuner
 * share; both measure what was found to be right.
 */
#ifndef CLDSA_BENCH_PLACE_H
#define CLDSA_BENCH_PLACE_H

#include "bench/bench.h"

/* A workload on the device. */
typedef struct bench_placed {
    cldsa_context *ctx;
    cl_command_queue queue;
    cldsa_workload work;
    const char *partial;     /* as the case says */
    const cldsa_op *forward; /* of a backward operation */
    cl_mem buffers[CLDSA_MAX_FIELDS];
    cl_mem workspace;
    size_t workspace_bytes;
} bench_placed;

/*
 * Draws and uploads the inputs of `test` at extents `dims` (its own, or smaller), poisons the outputs, and gives the
 * workspace that the call prefers. With `reference` the wanted outputs are computed too, on the host. Release `on`
 * whatever is returned.
 */
cldsa_status bench_place(cldsa_context *ctx, cl_command_queue queue, const bench_case *test, const char *dims,
                         bool reference, bench_placed *on);
void bench_place_release(bench_placed *on);

/* After another variant or other tunables were forced: the workspace grows to what the call prefers now. */
cldsa_status bench_place_workspace(bench_placed *on);

/* Outputs poisoned again, tensors that are read and written as they were drawn. */
cldsa_status bench_place_reset(bench_placed *on);

/* Bytes of all its tensors; the workspace is not counted. */
double bench_place_bytes(const bench_placed *on);

/* The call's queue and workspace; and its enqueueing as a bench_task wants it, `user` being the bench_placed. */
cldsa_call bench_place_call(const bench_placed *on);
cldsa_status bench_place_enqueue(void *user, const cldsa_call *call);

/* How far outputs are from the reference. */
typedef struct bench_accuracy {
    double error;     /* of what is allowed: up to 1 is right */
    double worst_abs; /* largest |got - want| of the floats */
} bench_accuracy;

/* Runs the call and compares. Only where placed with `reference`; CLDSA_CHECK_FAILED names the worst element. */
cldsa_status bench_place_check(bench_placed *on, bench_accuracy *accuracy);

/* For extents too large for the reference: nothing left unwritten, nothing NaN. Bytes and bit words cannot show it. */
cldsa_status bench_place_check_written(bench_placed *on);

/* "NAME=VALUE,..." of the run's tunables. */
void bench_describe_tunables(const cldsa_run *run, char *text, size_t size);

#endif
