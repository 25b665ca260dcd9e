/* The files inside the library, generated at build time by cl/embed.cmake. */
#ifndef CLDSA_EMBEDDED_H
#define CLDSA_EMBEDDED_H

typedef struct cldsa_embedded_file {
    const char *name; /* without its directory */
    const char *text;
} cldsa_embedded_file;

/* Both end with a NULL name. */
extern const cldsa_embedded_file cldsa_embedded_kernels[]; /* cl/ */
extern const cldsa_embedded_file cldsa_embedded_devices[]; /* autotune/devices/, in alphabetical order */

#endif
