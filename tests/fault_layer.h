/*
 * An OpenCL layer (OPENCL_LAYERS) whose N-th call fails, and which counts the objects that are alive. A test loads it
 * into its own process and finds these functions by dlsym.
 */
#ifndef CLDSA_FAULT_LAYER_H
#define CLDSA_FAULT_LAYER_H

/* The n-th of the calls that follow, counted from 1, fails with CL_OUT_OF_RESOURCES; 0: none. Sets the count to 0. */
typedef void (*fault_layer_arm_fn)(long n);
/* Calls since then that could have failed. */
typedef long (*fault_layer_calls_fn)(void);
/* Name of the call that failed since then, or NULL. */
typedef const char *(*fault_layer_failed_fn)(void);
/* Buffers, programs, kernels, queues, contexts and events that were made and not yet released. */
typedef long (*fault_layer_alive_fn)(void);

#endif
