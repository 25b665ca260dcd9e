/* Mapped text files. Nothing is copied until a batch asks, so a corpus may be larger than memory. */
#include "host/train/text.h"
#include "host/runtime/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* A run of mapped bytes and where it stands in its part. */
typedef struct text_piece {
    const unsigned char *data;
    uint64_t size, start;
} text_piece;

typedef struct text_part {
    text_piece *pieces;
    size_t count, capacity;
    uint64_t size;
} text_part;

typedef struct text_map {
    unsigned char *data;
    size_t size;
} text_map;

struct cldsa_text {
    text_map *maps;
    char **names;
    size_t count, capacity;
    text_part part[2]; /* training, validation */
};

enum { SNIFF_BYTES = 4096, VALIDATION_SHARE = 10 };

static cldsa_status add_map(cldsa_text *text, const char *path, unsigned char *data, size_t size) {
    if (text->count == text->capacity) {
        size_t capacity = text->capacity ? text->capacity * 2 : 64;
        text_map *maps = realloc(text->maps, capacity * sizeof *maps);
        if (maps)
            text->maps = maps;
        char **names = realloc(text->names, capacity * sizeof *names);
        if (names)
            text->names = names;
        if (!maps || !names)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: out of memory", path);
        text->capacity = capacity;
    }
    char *name = strdup(path);
    if (!name)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: out of memory", path);
    text->names[text->count] = name;
    text->maps[text->count++] = (text_map){data, size};
    return CLDSA_SUCCESS;
}

/*
 * `named`: the user gave this very file, so that it is empty or binary is an error; inside a directory such files
 * are passed over.
 */
static cldsa_status add_file(cldsa_text *text, const char *path, bool named) {
    int descriptor = open(path, O_RDONLY);
    struct stat info;
    if (descriptor < 0 || fstat(descriptor, &info)) {
        int reason = errno;
        if (descriptor >= 0)
            close(descriptor);
        return cldsa_fail(CLDSA_IO_ERROR, "%s: cannot be read: %s", path, strerror(reason));
    }
    if (info.st_size == 0) {
        close(descriptor);
        return named ? cldsa_fail(CLDSA_INVALID_FILE, "%s: the text is empty", path) : CLDSA_SUCCESS;
    }
    unsigned char *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    int reason = errno;
    close(descriptor);
    if (data == MAP_FAILED)
        return cldsa_fail(CLDSA_IO_ERROR, "%s: cannot be mapped: %s", path, strerror(reason));
    size_t sniff = info.st_size < SNIFF_BYTES ? (size_t)info.st_size : SNIFF_BYTES;
    bool binary = memchr(data, 0, sniff) != NULL;
    cldsa_status status = CLDSA_SUCCESS;
    if (!binary)
        status = add_map(text, path, data, (size_t)info.st_size);
    else if (named)
        status = cldsa_fail(CLDSA_INVALID_FILE, "%s: holds zero bytes, so it is no text", path);
    if (binary || status != CLDSA_SUCCESS)
        munmap(data, (size_t)info.st_size);
    return status;
}

static cldsa_status add_path(cldsa_text *text, const char *path, bool named);

static int not_hidden(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static cldsa_status add_directory(cldsa_text *text, const char *path) {
    struct dirent **entries;
    int count = scandir(path, &entries, not_hidden, alphasort);
    if (count < 0)
        return cldsa_fail(CLDSA_IO_ERROR, "%s: cannot be listed: %s", path, strerror(errno));
    cldsa_status status = CLDSA_SUCCESS;
    for (int i = 0; i < count; ++i) {
        char child[4096];
        int length = snprintf(child, sizeof child, "%s/%s", path, entries[i]->d_name);
        struct stat info;
        /* Links inside a directory often name a neighbour: following them would count text twice. */
        if (status == CLDSA_SUCCESS && length < (int)sizeof child && lstat(child, &info) == 0 && !S_ISLNK(info.st_mode))
            status = add_path(text, child, false);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static cldsa_status add_path(cldsa_text *text, const char *path, bool named) {
    struct stat info;
    if (stat(path, &info))
        return cldsa_fail(CLDSA_NOT_FOUND, "%s: there is no such text file or directory", path);
    if (S_ISDIR(info.st_mode))
        return add_directory(text, path);
    if (S_ISREG(info.st_mode))
        return add_file(text, path, named);
    return named ? cldsa_fail(CLDSA_INVALID_FILE, "%s: is neither a file nor a directory", path) : CLDSA_SUCCESS;
}

static cldsa_status add_piece(text_part *part, const unsigned char *data, uint64_t size) {
    if (size == 0)
        return CLDSA_SUCCESS;
    if (part->count == part->capacity) {
        size_t capacity = part->capacity ? part->capacity * 2 : 64;
        text_piece *grown = realloc(part->pieces, capacity * sizeof *grown);
        if (!grown)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "text: out of memory");
        part->pieces = grown;
        part->capacity = capacity;
    }
    part->pieces[part->count++] = (text_piece){data, size, part->size};
    part->size += size;
    return CLDSA_SUCCESS;
}

static cldsa_status split_by_offset(cldsa_text *text) {
    uint64_t total = 0, at = 0;
    for (size_t i = 0; i < text->count; ++i)
        total += text->maps[i].size;
    uint64_t border = total - total / VALIDATION_SHARE;
    for (size_t i = 0; i < text->count; ++i) {
        const text_map *map = &text->maps[i];
        uint64_t first = at >= border ? 0 : border - at < map->size ? border - at : map->size;
        CLDSA_TRY(add_piece(&text->part[0], map->data, first));
        CLDSA_TRY(add_piece(&text->part[1], map->data + first, map->size - first));
        at += map->size;
    }
    return CLDSA_SUCCESS;
}

static cldsa_status split_by_document(cldsa_text *text) {
    for (size_t i = 0; i < text->count; ++i) {
        const char *slash = strrchr(text->names[i], '/'), *name = slash ? slash + 1 : text->names[i];
        bool validation = XXH3_64bits(name, strlen(name)) % VALIDATION_SHARE == 0;
        CLDSA_TRY(add_piece(&text->part[validation], text->maps[i].data, text->maps[i].size));
    }
    if (text->part[0].size == 0 || text->part[1].size == 0)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT,
                          "split by document leaves %s without text: %s and what else is given hold %zu file%s; give "
                          "more files, or split by offset",
                          text->part[0].size == 0 ? "training" : "validation", text->names[0], text->count,
                          text->count == 1 ? "" : "s");
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_text_open(const char *const *paths, int num_paths, cldsa_text_split split, cldsa_text **out) {
    *out = NULL;
    cldsa_text *text = calloc(1, sizeof *text);
    if (!text)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "text: out of memory");
    cldsa_status status = CLDSA_SUCCESS;
    for (int i = 0; i < num_paths && status == CLDSA_SUCCESS; ++i)
        status = add_path(text, paths[i], true);
    if (status == CLDSA_SUCCESS && text->count == 0)
        status = cldsa_fail(CLDSA_INVALID_FILE, "%s holds no text file", num_paths ? paths[0] : "the list of paths");
    if (status == CLDSA_SUCCESS)
        status = split == CLDSA_SPLIT_OFFSET ? split_by_offset(text) : split_by_document(text);
    if (status != CLDSA_SUCCESS) {
        cldsa_text_close(text);
        return status;
    }
    *out = text;
    return CLDSA_SUCCESS;
}

void cldsa_text_close(cldsa_text *text) {
    if (!text)
        return;
    for (size_t i = 0; i < text->count; ++i) {
        munmap(text->maps[i].data, text->maps[i].size);
        free(text->names[i]);
    }
    free(text->maps);
    free(text->names);
    free(text->part[0].pieces);
    free(text->part[1].pieces);
    free(text);
}

uint64_t cldsa_text_size(const cldsa_text *text, bool validation) {
    return text->part[validation].size;
}

void cldsa_text_copy(const cldsa_text *text, bool validation, uint64_t offset, size_t count, unsigned char *out) {
    const text_part *part = &text->part[validation];
    size_t low = 0, high = part->count; /* the last piece that starts at or before offset */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (part->pieces[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    for (; count > 0; ++low) {
        const text_piece *piece = &part->pieces[low];
        uint64_t skip = offset - piece->start, available = piece->size - skip;
        size_t size = count < available ? count : (size_t)available;
        memcpy(out, piece->data + skip, size);
        out += size;
        offset += size;
        count -= size;
    }
}
