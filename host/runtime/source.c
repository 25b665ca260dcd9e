/* Kernel sources: embedded, or from a directory while developing; #include "..." expanded here, once per file. */
#include "host/runtime/context.h"
#include "host/runtime/embedded.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INCLUDED = 32 };

typedef struct text_buffer {
    char *data;
    size_t size, capacity;
} text_buffer;

typedef struct expansion {
    const char *kernel_dir;
    const char *included[MAX_INCLUDED]; /* names already expanded: every header acts as if guarded */
    char *owned[MAX_INCLUDED];
    int num_included;
    text_buffer out;
} expansion;

static bool append(text_buffer *buffer, const char *data, size_t size) {
    if (buffer->size + size + 1 > buffer->capacity) {
        size_t capacity = (buffer->size + size + 1) * 2;
        char *grown = realloc(buffer->data, capacity);
        if (!grown)
            return false;
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    buffer->data[buffer->size] = 0;
    return true;
}

static char *read_text(const char *dir, const char *file) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return NULL;
    text_buffer text = {0};
    char chunk[4096];
    size_t size;
    while ((size = fread(chunk, 1, sizeof chunk, stream)) > 0)
        if (!append(&text, chunk, size))
            break;
    fclose(stream);
    return text.data;
}

static cldsa_status find_text(const expansion *e, const char *file, char **text) {
    if (e->kernel_dir && (*text = read_text(e->kernel_dir, file)))
        return CLDSA_SUCCESS;
    for (const cldsa_embedded_file *k = cldsa_embedded_kernels; k->name; ++k)
        if (strcmp(k->name, file) == 0) {
            *text = strdup(k->text);
            return *text ? CLDSA_SUCCESS : cldsa_fail(CLDSA_OUT_OF_MEMORY, "kernel source %s: out of memory", file);
        }
    return cldsa_fail(CLDSA_NOT_FOUND, "kernel file %s is neither embedded nor in %s", file,
                      e->kernel_dir ? e->kernel_dir : "a kernel directory (none is set)");
}

/* The name inside #include "name", or NULL if the line is none. */
static char *included_name(const char *line, size_t length) {
    static const char directive[] = "#include \"";
    if (length < sizeof directive || strncmp(line, directive, sizeof directive - 1) != 0)
        return NULL;
    const char *start = line + sizeof directive - 1;
    const char *end = memchr(start, '"', length - (size_t)(start - line));
    return end ? strndup(start, (size_t)(end - start)) : NULL;
}

static cldsa_status expand(expansion *e, const char *file);

static cldsa_status expand_include(expansion *e, char *name) {
    for (int i = 0; i < e->num_included; ++i)
        if (strcmp(e->included[i], name) == 0) {
            free(name);
            return CLDSA_SUCCESS;
        }
    if (e->num_included == MAX_INCLUDED) {
        free(name);
        return cldsa_fail(CLDSA_BUILD_FAILED, "more than %d kernel headers in one program", MAX_INCLUDED);
    }
    e->owned[e->num_included] = name;
    e->included[e->num_included++] = name;
    return expand(e, name);
}

static cldsa_status expand(expansion *e, const char *file) {
    char *text;
    CLDSA_TRY(find_text(e, file, &text));
    cldsa_status status = CLDSA_SUCCESS;
    int number = 0;
    char marker[300];
    /* #line keeps the compiler's messages pointing at the right file. */
    append(&e->out, marker, (size_t)snprintf(marker, sizeof marker, "#line 1 \"%s\"\n", file));
    for (const char *line = text; *line && status == CLDSA_SUCCESS;) {
        const char *end = strchr(line, '\n');
        size_t length = end ? (size_t)(end - line) + 1 : strlen(line);
        ++number;
        char *name = included_name(line, length);
        if (name) {
            status = expand_include(e, name);
            append(&e->out, marker, (size_t)snprintf(marker, sizeof marker, "\n#line %d \"%s\"\n", number + 1, file));
        } else if (!append(&e->out, line, length)) {
            status = cldsa_fail(CLDSA_OUT_OF_MEMORY, "kernel source %s: out of memory", file);
        }
        line += length;
    }
    free(text);
    return status;
}

cldsa_status cldsa_kernel_source(const char *kernel_dir, const char *file, char **source) {
    expansion e = {.kernel_dir = kernel_dir};
    cldsa_status status = expand(&e, file);
    for (int i = 0; i < e.num_included; ++i)
        free(e.owned[i]);
    if (status != CLDSA_SUCCESS) {
        free(e.out.data);
        return status;
    }
    *source = e.out.data;
    return CLDSA_SUCCESS;
}

const char *const *cldsa_kernel_files(void) {
    static const char *names[128];
    if (!names[0]) /* the same values whoever writes them first */
        for (int i = 0; cldsa_embedded_kernels[i].name && i < 127; ++i)
            names[i] = cldsa_embedded_kernels[i].name;
    return names;
}
