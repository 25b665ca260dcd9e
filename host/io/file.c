#include "host/io/file.h"

#include "host/runtime/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static cldsa_status system_failure(const char *path, const char *what) {
    int error = errno;
    cldsa_status status = error == ENOENT ? CLDSA_NOT_FOUND : CLDSA_IO_ERROR;
    return cldsa_fail(status, "%s: cannot %s: %s", path, what, strerror(error));
}

cldsa_status cldsa_file_read(const char *path, size_t limit, char **data, size_t *size) {
    *data = NULL;
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return system_failure(path, "open");
    cldsa_status status = CLDSA_SUCCESS;
    struct stat info;
    if (fstat(fileno(stream), &info) != 0) {
        status = system_failure(path, "read");
        goto done;
    }
    if (!S_ISREG(info.st_mode)) {
        status = cldsa_fail(CLDSA_INVALID_FILE, "%s: not a regular file", path);
        goto done;
    }
    if ((uint64_t)info.st_size > limit) {
        status = cldsa_fail(CLDSA_INVALID_FILE, "%s: has %lld bytes; at most %zu are read", path,
                            (long long)info.st_size, limit);
        goto done;
    }
    *data = malloc((size_t)info.st_size + 1);
    if (!*data) {
        status = cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for its %lld bytes", path, (long long)info.st_size);
        goto done;
    }
    /* The file may have shrunk since fstat: what was read is what counts. */
    *size = fread(*data, 1, (size_t)info.st_size, stream);
    if (ferror(stream)) {
        status = system_failure(path, "read");
        free(*data);
        *data = NULL;
        goto done;
    }
    (*data)[*size] = '\0';
done:
    fclose(stream);
    return status;
}

cldsa_status cldsa_file_begin(cldsa_file_writer *writer, const char *path) {
    static const char suffix[] = ".tmp.XXXXXX";
    *writer = (cldsa_file_writer){0};
    /* The rename at the end would put a file in the place of a device, a pipe or a link, whoever else uses that. */
    struct stat info;
    const bool exists = stat(path, &info) == 0;
    if (exists && !S_ISREG(info.st_mode))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: is not a regular file and cannot be replaced; name a file",
                          path);
    char *target = exists ? realpath(path, NULL) : NULL;
    const char *at = target ? target : path;
    size_t length = strlen(at);
    *writer = (cldsa_file_writer){.path = malloc(length + 1), .temporary = malloc(length + sizeof suffix)};
    cldsa_status status = CLDSA_SUCCESS;
    int descriptor = -1;
    if (!writer->path || !writer->temporary) {
        status = cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for its name", path);
        goto failed;
    }
    memcpy(writer->path, at, length + 1);
    memcpy(writer->temporary, at, length);
    memcpy(writer->temporary + length, suffix, sizeof suffix);
    descriptor = mkstemp(writer->temporary);
    if (descriptor < 0) {
        status = system_failure(path, "create a temporary file beside it");
        goto failed;
    }
    /* mkstemp makes it private; the final file gets what the umask leaves, as any other. */
    mode_t mask = umask(0);
    umask(mask);
    fchmod(descriptor, 0666 & ~mask);
    writer->stream = fdopen(descriptor, "wb");
    if (!writer->stream) {
        status = system_failure(path, "open");
        close(descriptor);
        unlink(writer->temporary);
        goto failed;
    }
    free(target);
    return CLDSA_SUCCESS;
failed:
    free(target);
    free(writer->path);
    free(writer->temporary);
    *writer = (cldsa_file_writer){0};
    return status;
}

cldsa_status cldsa_file_write(cldsa_file_writer *writer, const void *data, size_t bytes) {
    if (bytes && fwrite(data, 1, bytes, writer->stream) != bytes)
        return system_failure(writer->path, "write");
    return CLDSA_SUCCESS;
}

/* The rename itself is durable only once the directory is; file systems that cannot sync one are no failure. */
static void sync_directory_of(const char *path) {
    const char *slash = strrchr(path, '/');
    char *directory = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!directory)
        return;
    int descriptor = open(directory, O_RDONLY | O_DIRECTORY);
    if (descriptor >= 0) {
        (void)fsync(descriptor);
        close(descriptor);
    }
    free(directory);
}

cldsa_status cldsa_file_end(cldsa_file_writer *writer, cldsa_status status) {
    if (!writer->stream)
        return status;
    if (status == CLDSA_SUCCESS && (fflush(writer->stream) != 0 || fsync(fileno(writer->stream)) != 0))
        status = system_failure(writer->path, "write");
    if (fclose(writer->stream) != 0 && status == CLDSA_SUCCESS)
        status = system_failure(writer->path, "write");
    if (status == CLDSA_SUCCESS && rename(writer->temporary, writer->path) != 0)
        status = system_failure(writer->path, "replace");
    if (status == CLDSA_SUCCESS)
        sync_directory_of(writer->path);
    else
        unlink(writer->temporary);
    free(writer->path);
    free(writer->temporary);
    *writer = (cldsa_file_writer){0};
    return status;
}

cldsa_status cldsa_file_write_all(const char *path, const void *data, size_t bytes) {
    cldsa_file_writer writer;
    CLDSA_TRY(cldsa_file_begin(&writer, path));
    return cldsa_file_end(&writer, cldsa_file_write(&writer, data, bytes));
}

cldsa_status cldsa_make_directories(const char *path) {
    char *copy = strdup(path);
    if (!copy)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for its name", path);
    cldsa_status status = CLDSA_SUCCESS;
    for (char *at = copy + 1; status == CLDSA_SUCCESS; ++at) {
        if (*at != '/' && *at != '\0')
            continue;
        char kept = *at;
        *at = '\0';
        if (copy[0] && mkdir(copy, 0777) != 0 && errno != EEXIST)
            status = system_failure(copy, "create the directory");
        *at = kept;
        if (kept == '\0')
            break;
    }
    struct stat info;
    if (status == CLDSA_SUCCESS && (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)))
        status = cldsa_fail(CLDSA_IO_ERROR, "%s: exists and is not a directory", path);
    free(copy);
    return status;
}
