/*
 * Binaries on disk. One file per program, named by a hash over source, options, device, driver and format version;
 * written to a temporary name and renamed. A file that is damaged or was made for something else is ignored.
 */
#include "host/runtime/context.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { CACHE_FORMAT = 1 };

typedef struct cache_header {
    char magic[8];
    uint64_t key_low, key_high; /* the file name's hash again: a renamed file is foreign */
    uint64_t size;
    uint64_t data_hash;
} cache_header;

static const char cache_magic[8] = "CLDSA01";

static XXH128_hash_t cache_key(const cldsa_context *ctx, const char *source, const char *options) {
    int format = CACHE_FORMAT;
    const char *const parts[] = {source,           options,          ctx->info.platform_name, ctx->info.name,
                                 ctx->info.vendor, ctx->info.driver, ctx->info.version};
    XXH3_state_t *state = XXH3_createState();
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, &format, sizeof format);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i)
        XXH3_128bits_update(state, parts[i], strlen(parts[i]) + 1); /* the NUL keeps neighbours apart */
    XXH128_hash_t key = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    return key;
}

static void cache_path(const cldsa_context *ctx, XXH128_hash_t key, char *path, size_t size) {
    snprintf(path, size, "%s/%016llx%016llx.bin", ctx->cache_dir, (unsigned long long)key.high64,
             (unsigned long long)key.low64);
}

static bool read_whole(FILE *file, const cache_header *expected, unsigned char **data, size_t *size) {
    cache_header header;
    if (fread(&header, sizeof header, 1, file) != 1 || memcmp(header.magic, cache_magic, sizeof cache_magic) != 0 ||
        header.key_low != expected->key_low || header.key_high != expected->key_high)
        return false;
    struct stat stat;
    if (fstat(fileno(file), &stat) || (uint64_t)stat.st_size != sizeof header + header.size || header.size == 0)
        return false;
    *data = malloc(header.size);
    *size = header.size;
    if (*data && fread(*data, 1, header.size, file) == header.size &&
        XXH3_64bits(*data, header.size) == header.data_hash)
        return true;
    free(*data);
    return false;
}

bool cldsa_cache_read(cldsa_context *ctx, const char *source, const char *options, unsigned char **data, size_t *size) {
    if (!ctx->cache_dir)
        return false;
    XXH128_hash_t key = cache_key(ctx, source, options);
    char path[4200];
    cache_path(ctx, key, path, sizeof path);
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    cache_header expected = {.key_low = key.low64, .key_high = key.high64};
    bool good = read_whole(file, &expected, data, size);
    fclose(file);
    if (!good)
        cldsa_log(ctx, CLDSA_LOG_WARNING, "cache file %s is damaged or foreign; it is replaced", path);
    return good;
}

static bool make_directories(const char *path) {
    char copy[4096];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(copy, 0777) && errno != EEXIST)
            return false;
        *slash = '/';
    }
    return mkdir(copy, 0777) == 0 || errno == EEXIST;
}

void cldsa_cache_write(cldsa_context *ctx, const char *source, const char *options, const unsigned char *data,
                       size_t size) {
    if (!ctx->cache_dir || !make_directories(ctx->cache_dir))
        return;
    XXH128_hash_t key = cache_key(ctx, source, options);
    char path[4200], temporary[4300];
    cache_path(ctx, key, path, sizeof path);
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    int descriptor = mkstemp(temporary);
    if (descriptor < 0)
        return;
    FILE *file = fdopen(descriptor, "wb");
    cache_header header = {
        .key_low = key.low64, .key_high = key.high64, .size = size, .data_hash = XXH3_64bits(data, size)};
    memcpy(header.magic, cache_magic, sizeof cache_magic);
    bool good = file && fwrite(&header, sizeof header, 1, file) == 1 && fwrite(data, 1, size, file) == size;
    good = file && fclose(file) == 0 && good;
    if (!good || rename(temporary, path) != 0)
        unlink(temporary);
}
