/* The kernel sources inside the library, generated from cl/ at build time. */
#ifndef CLDSA_EMBEDDED_H
#define CLDSA_EMBEDDED_H

typedef struct cldsa_embedded_kernel {
    const char *name; /* file name in cl/ */
    const char *text;
} cldsa_embedded_kernel;

extern const cldsa_embedded_kernel cldsa_embedded_kernels[]; /* ends with a NULL name */

#endif
