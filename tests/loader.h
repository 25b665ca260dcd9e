/* What the OpenCL loader listens to. Debian's and Khronos' obey OCL_ICD_VENDORS and OPENCL_LAYERS; others need not. */
#ifndef CLDSA_TEST_LOADER_H
#define CLDSA_TEST_LOADER_H

#include <stdbool.h>

/* Whether the loader in use asks for this environment variable. */
bool loader_reads(const char *variable);
/* Skips the running cmocka test, with its reason, if it does not. */
void loader_must_read(const char *variable);

#endif
