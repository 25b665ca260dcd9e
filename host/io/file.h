/*
 * Whole-file reading and atomic writing.
 *
 * A file being written has a temporary name beside its final one and is renamed when complete and on disk, so a
 * reader sees the old file or the new one, never half of either; a crash or full disk leaves the old one.
 */
#ifndef CLDSA_FILE_H
#define CLDSA_FILE_H

#include <cldsa/status.h>
#include <stddef.h>
#include <stdio.h>

/*
 * Reads at most `limit` bytes of a regular file. *data is malloc'ed and has a NUL behind its last byte. A longer file
 * is CLDSA_INVALID_FILE; a missing one CLDSA_NOT_FOUND.
 */
cldsa_status cldsa_file_read(const char *path, size_t limit, char **data, size_t *size);

/* A file on its way. Zero-initialise; no member is for the caller. */
typedef struct cldsa_file_writer {
    FILE *stream;
    char *path, *temporary;
} cldsa_file_writer;

/*
 * Opens the temporary file. On failure nothing needs to be closed. Where `path` is a link, what it leads to is
 * replaced; a device, a pipe or a directory is CLDSA_INVALID_ARGUMENT.
 */
cldsa_status cldsa_file_begin(cldsa_file_writer *writer, const char *path);

/* Appends. After a failure the writer is still open: end it with the failure's status. */
cldsa_status cldsa_file_write(cldsa_file_writer *writer, const void *data, size_t bytes);

/*
 * With `status` CLDSA_SUCCESS: flushes to disk and renames. Otherwise removes the temporary file. Closes in any case
 * and returns the first failure.
 */
cldsa_status cldsa_file_end(cldsa_file_writer *writer, cldsa_status status);

/* All of the above for one block of memory. */
cldsa_status cldsa_file_write_all(const char *path, const void *data, size_t bytes);

/* Creates a directory and its missing parents. */
cldsa_status cldsa_make_directories(const char *path);

#endif
