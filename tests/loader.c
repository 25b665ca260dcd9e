#include "tests/loader.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A library that asks for a variable has its name among its strings. */
bool loader_reads(const char *variable) {
    void *loader = dlopen("libOpenCL.so.1", RTLD_LAZY); /* what cldsa is linked with */
    void *call = loader ? dlsym(loader, "clGetPlatformIDs") : NULL;
    Dl_info library;
    if (!call || !dladdr(call, &library))
        return false;
    int file = open(library.dli_fname, O_RDONLY | O_CLOEXEC);
    struct stat status;
    bool found = false;
    if (file >= 0 && fstat(file, &status) == 0) {
        size_t size = (size_t)status.st_size;
        void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
        found = bytes != MAP_FAILED && memmem(bytes, size, variable, strlen(variable) + 1);
        if (bytes != MAP_FAILED)
            munmap(bytes, size);
    }
    if (file >= 0)
        close(file);
    return found;
}

void loader_must_read(const char *variable) {
    if (loader_reads(variable))
        return;
    print_message("skipped: this OpenCL loader does not read %s\n", variable);
    skip();
}
