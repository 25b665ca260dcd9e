#include "host/io/safetensors.h"

#include "host/io/file.h"
#include "host/io/json.h"
#include "host/runtime/runtime.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* The reference implementation's bound on the header, against files that only claim to be ours. */
enum { HEADER_LIMIT = 100 * 1000 * 1000, PIECE_BYTES = 1 << 20, PREFIX_BYTES = 8, NAME_SHOWN = 80 };

static const char METADATA[] = "__metadata__";

static const struct {
    const char *name;
    size_t size;
} dtypes[CLDSA_ST_NUM_DTYPES] = {
    [CLDSA_ST_F64] = {"F64", 8},   [CLDSA_ST_F32] = {"F32", 4}, [CLDSA_ST_F16] = {"F16", 2},
    [CLDSA_ST_BF16] = {"BF16", 2}, [CLDSA_ST_I64] = {"I64", 8}, [CLDSA_ST_I32] = {"I32", 4},
    [CLDSA_ST_I16] = {"I16", 2},   [CLDSA_ST_I8] = {"I8", 1},   [CLDSA_ST_U64] = {"U64", 8},
    [CLDSA_ST_U32] = {"U32", 4},   [CLDSA_ST_U16] = {"U16", 2}, [CLDSA_ST_U8] = {"U8", 1},
    [CLDSA_ST_BOOL] = {"BOOL", 1},
};

const char *cldsa_st_dtype_name(cldsa_st_dtype dtype) {
    return dtypes[dtype].name;
}
size_t cldsa_st_dtype_size(cldsa_st_dtype dtype) {
    return dtypes[dtype].size;
}

struct cldsa_safetensors {
    char *path;
    char *data; /* the tensors' bytes, in a block of their own so that they are aligned whatever the header's length */
    size_t data_bytes;
    cJSON *header; /* owns the names and the metadata */
    const cJSON *metadata;
    cldsa_st_tensor *tensors; /* by name */
    size_t count;
};

/* ---- values -------------------------------------------------------------------------------------------------- */

static double half_value(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude = exponent == 31  ? (fraction ? (double)NAN : (double)INFINITY)
                       : exponent == 0 ? ldexp(fraction, -24)
                                       : ldexp(fraction + 1024, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static double bfloat_value(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

double cldsa_st_value(const cldsa_st_tensor *tensor, int64_t i) {
    switch (tensor->dtype) {
    case CLDSA_ST_F64:
        return ((const double *)tensor->data)[i];
    case CLDSA_ST_F32:
        return ((const float *)tensor->data)[i];
    case CLDSA_ST_F16:
        return half_value(((const uint16_t *)tensor->data)[i]);
    case CLDSA_ST_BF16:
        return bfloat_value(((const uint16_t *)tensor->data)[i]);
    case CLDSA_ST_I64:
        return (double)((const int64_t *)tensor->data)[i];
    case CLDSA_ST_I32:
        return ((const int32_t *)tensor->data)[i];
    case CLDSA_ST_I16:
        return ((const int16_t *)tensor->data)[i];
    case CLDSA_ST_I8:
        return ((const int8_t *)tensor->data)[i];
    case CLDSA_ST_U64:
        return (double)((const uint64_t *)tensor->data)[i];
    case CLDSA_ST_U32:
        return ((const uint32_t *)tensor->data)[i];
    case CLDSA_ST_U16:
        return ((const uint16_t *)tensor->data)[i];
    default:
        return ((const uint8_t *)tensor->data)[i];
    }
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* Names come from the file: control characters would break the one-line message, a long one would bury it. */
typedef struct shown_name {
    char text[NAME_SHOWN + 4];
} shown_name;

static shown_name show_name(const char *name) {
    shown_name shown;
    size_t length = 0;
    for (; name[length] && length < NAME_SHOWN; ++length)
        shown.text[length] = (unsigned char)name[length] < ' ' || name[length] == 127 ? '?' : name[length];
    memcpy(shown.text + length, name[length] ? "..." : "", name[length] ? 4 : 1);
    return shown;
}

static cldsa_status bad_tensor(const cldsa_safetensors *file, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static cldsa_status bad_tensor(const cldsa_safetensors *file, const char *name, const char *format, ...) {
    char text[256];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return cldsa_fail(CLDSA_INVALID_FILE, "%s: tensor \"%s\": %s", file->path, show_name(name).text, text);
}

/* A whole number from 0 to 2^53, beyond which JSON's doubles would be inexact. */
static bool is_size(const cJSON *item) {
    return cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble <= 9007199254740992.0 &&
           item->valuedouble == floor(item->valuedouble);
}

static cldsa_status read_dtype(const cldsa_safetensors *file, const cJSON *item, cldsa_st_tensor *tensor) {
    if (!cJSON_IsString(item))
        return bad_tensor(file, tensor->name, "dtype is missing or not a string");
    for (int i = 0; i < CLDSA_ST_NUM_DTYPES; ++i)
        if (strcmp(item->valuestring, dtypes[i].name) == 0) {
            tensor->dtype = (cldsa_st_dtype)i;
            return CLDSA_SUCCESS;
        }
    return bad_tensor(file, tensor->name,
                      "unknown dtype \"%s\"; known are F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL",
                      show_name(item->valuestring).text);
}

static cldsa_status read_shape(const cldsa_safetensors *file, const cJSON *item, cldsa_st_tensor *tensor) {
    if (!cJSON_IsArray(item))
        return bad_tensor(file, tensor->name, "shape is missing or not an array");
    tensor->numel = 1;
    bool overflow = false;
    const cJSON *extent;
    cJSON_ArrayForEach(extent, item) {
        if (tensor->rank == CLDSA_ST_MAX_RANK)
            return bad_tensor(file, tensor->name, "rank is %d; at most %d is supported", cJSON_GetArraySize(item),
                              CLDSA_ST_MAX_RANK);
        if (!is_size(extent))
            return bad_tensor(file, tensor->name,
                              "extent %d of shape is %.17g; it must be a whole number from 0 to 2^53", tensor->rank,
                              cJSON_IsNumber(extent) ? extent->valuedouble : NAN);
        tensor->shape[tensor->rank++] = (int64_t)extent->valuedouble;
        overflow |= __builtin_mul_overflow(tensor->numel, (int64_t)extent->valuedouble, &tensor->numel);
    }
    int64_t bytes = 0;
    overflow |= __builtin_mul_overflow(tensor->numel, (int64_t)dtypes[tensor->dtype].size, &bytes);
    if (overflow)
        return bad_tensor(file, tensor->name, "the product of its extents does not fit 63 bits");
    tensor->bytes = (size_t)bytes;
    return CLDSA_SUCCESS;
}

static cldsa_status read_offsets(const cldsa_safetensors *file, const cJSON *item, cldsa_st_tensor *tensor) {
    const cJSON *first = cJSON_IsArray(item) ? item->child : NULL;
    const cJSON *second = first ? first->next : NULL;
    if (!second || second->next || !is_size(first) || !is_size(second))
        return bad_tensor(file, tensor->name, "data_offsets is not an array of two whole numbers [begin, end]");
    uint64_t begin = (uint64_t)first->valuedouble, end = (uint64_t)second->valuedouble;
    if (begin > end || end > file->data_bytes)
        return bad_tensor(file, tensor->name, "data_offsets are [%llu, %llu]; the file has %zu bytes of data",
                          (unsigned long long)begin, (unsigned long long)end, file->data_bytes);
    if (end - begin != tensor->bytes)
        return bad_tensor(file, tensor->name, "data_offsets span %llu bytes; its dtype %s and shape need %zu",
                          (unsigned long long)(end - begin), dtypes[tensor->dtype].name, tensor->bytes);
    if (begin % dtypes[tensor->dtype].size)
        return bad_tensor(file, tensor->name, "begins at byte %llu; dtype %s needs a multiple of %zu",
                          (unsigned long long)begin, dtypes[tensor->dtype].name, dtypes[tensor->dtype].size);
    tensor->data = file->data + begin;
    return CLDSA_SUCCESS;
}

static cldsa_status read_tensor(const cldsa_safetensors *file, const cJSON *entry, cldsa_st_tensor *tensor) {
    tensor->name = entry->string;
    if (!cJSON_IsObject(entry))
        return bad_tensor(file, tensor->name, "its entry is not an object {dtype, shape, data_offsets}");
    const cJSON *parts[3] = {NULL, NULL, NULL};
    static const char *const keys[3] = {"dtype", "shape", "data_offsets"};
    const cJSON *item;
    cJSON_ArrayForEach(item, entry) {
        int which = 0;
        while (which < 3 && strcmp(item->string, keys[which]) != 0)
            ++which;
        if (which == 3)
            return bad_tensor(file, tensor->name, "unknown key \"%s\"; known are dtype, shape, data_offsets",
                              show_name(item->string).text);
        if (parts[which])
            return bad_tensor(file, tensor->name, "%s is given twice", keys[which]);
        parts[which] = item;
    }
    CLDSA_TRY(read_dtype(file, parts[0], tensor));
    CLDSA_TRY(read_shape(file, parts[1], tensor));
    return read_offsets(file, parts[2], tensor);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static cldsa_status read_metadata(cldsa_safetensors *file, const cJSON *entry) {
    if (file->metadata)
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: %s is given twice", file->path, METADATA);
    file->metadata = entry;
    if (!cJSON_IsObject(entry))
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: %s is not an object of strings", file->path, METADATA);
    size_t count = (size_t)cJSON_GetArraySize(entry);
    const char **keys = calloc(count ? count : 1, sizeof *keys);
    if (!keys)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for its metadata", file->path);
    cldsa_status status = CLDSA_SUCCESS;
    const cJSON *item;
    size_t taken = 0;
    cJSON_ArrayForEach(item, entry) {
        keys[taken++] = item->string;
        if (!cJSON_IsString(item) && status == CLDSA_SUCCESS)
            status = cldsa_fail(CLDSA_INVALID_FILE, "%s: %s value of \"%s\" is not a string", file->path, METADATA,
                                show_name(item->string).text);
    }
    /* Sorted, because a header of 100 MB must not cost the square of its keys. */
    qsort(keys, count, sizeof *keys, by_text);
    for (size_t i = 1; i < count && status == CLDSA_SUCCESS; ++i)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            status = cldsa_fail(CLDSA_INVALID_FILE, "%s: %s key \"%s\" is given twice", file->path, METADATA,
                                show_name(keys[i]).text);
    free(keys);
    return status;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const cldsa_st_tensor *)a)->name, ((const cldsa_st_tensor *)b)->name);
}

/* Empty tensors first at equal places, so that a neighbour check suffices. */
static int by_place(const void *a, const void *b) {
    const cldsa_st_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The tensors must cover the data exactly: neither a byte twice nor one not at all. */
static cldsa_status check_layout(const cldsa_safetensors *file) {
    qsort(file->tensors, file->count, sizeof *file->tensors, by_place);
    size_t covered = 0;
    for (size_t i = 0; i < file->count; ++i) {
        const cldsa_st_tensor *tensor = &file->tensors[i];
        size_t begin = (size_t)((const char *)tensor->data - file->data);
        if (begin < covered)
            return bad_tensor(file, tensor->name, "its data overlaps that of \"%s\"",
                              show_name(file->tensors[i - 1].name).text);
        if (begin > covered)
            return bad_tensor(file, tensor->name, "begins at byte %zu of the data, but no tensor holds bytes %zu to it",
                              begin, covered);
        covered = begin + tensor->bytes;
    }
    if (covered != file->data_bytes)
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: %zu bytes of data belong to no tensor; the tensors end at byte %zu",
                          file->path, file->data_bytes - covered, covered);
    return CLDSA_SUCCESS;
}

static cldsa_status read_header(cldsa_safetensors *file, const char *text, size_t length) {
    CLDSA_TRY(cldsa_json_parse(file->path, text, length, &file->header));
    size_t entries = (size_t)cJSON_GetArraySize(file->header);
    file->tensors = calloc(entries ? entries : 1, sizeof *file->tensors);
    if (!file->tensors)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for its %zu entries", file->path, entries);
    const cJSON *entry;
    cJSON_ArrayForEach(entry, file->header) {
        if (strcmp(entry->string, METADATA) == 0)
            CLDSA_TRY(read_metadata(file, entry));
        else
            CLDSA_TRY(read_tensor(file, entry, &file->tensors[file->count++]));
    }
    CLDSA_TRY(check_layout(file));
    qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
    for (size_t i = 1; i < file->count; ++i)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            return bad_tensor(file, file->tensors[i].name, "the name is given twice");
    return CLDSA_SUCCESS;
}

/* Splits the file's bytes: the header is parsed where it lies, the data moved to the front of the block. */
static cldsa_status parse(cldsa_safetensors *file, size_t size) {
    if (size < PREFIX_BYTES)
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: truncated: has %zu bytes; a safetensors file has at least 10",
                          file->path, size);
    uint64_t length = 0;
    for (int i = 0; i < PREFIX_BYTES; ++i)
        length |= (uint64_t)(unsigned char)file->data[i] << 8 * i;
    if (length > HEADER_LIMIT)
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: header length is %llu; at most %d is accepted", file->path,
                          (unsigned long long)length, HEADER_LIMIT);
    if (length > size - PREFIX_BYTES)
        return cldsa_fail(CLDSA_INVALID_FILE, "%s: truncated: header length is %llu, but only %zu bytes follow",
                          file->path, (unsigned long long)length, size - PREFIX_BYTES);
    char *header = malloc((size_t)length + 1);
    if (!header)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for its header", file->path);
    memcpy(header, file->data + PREFIX_BYTES, (size_t)length);
    header[length] = '\0';
    file->data_bytes = size - PREFIX_BYTES - (size_t)length;
    memmove(file->data, file->data + PREFIX_BYTES + length, file->data_bytes);
    cldsa_status status = read_header(file, header, (size_t)length);
    free(header);
    return status;
}

cldsa_status cldsa_safetensors_open(const char *path, cldsa_safetensors **out) {
    *out = NULL;
    cldsa_safetensors *file = calloc(1, sizeof *file);
    if (!file || !(file->path = strdup(path))) {
        free(file);
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory to open it", path);
    }
    size_t size;
    cldsa_status status = cldsa_file_read(path, (size_t)1 << 46, &file->data, &size);
    if (status == CLDSA_SUCCESS)
        status = parse(file, size);
    if (status != CLDSA_SUCCESS) {
        cldsa_safetensors_close(file);
        return status;
    }
    *out = file;
    return CLDSA_SUCCESS;
}

void cldsa_safetensors_close(cldsa_safetensors *file) {
    if (!file)
        return;
    cJSON_Delete(file->header);
    free(file->tensors);
    free(file->data);
    free(file->path);
    free(file);
}

const char *cldsa_safetensors_path(const cldsa_safetensors *file) {
    return file->path;
}
size_t cldsa_safetensors_count(const cldsa_safetensors *file) {
    return file->count;
}
const cldsa_st_tensor *cldsa_safetensors_at(const cldsa_safetensors *file, size_t i) {
    return &file->tensors[i];
}

const cldsa_st_tensor *cldsa_safetensors_find(const cldsa_safetensors *file, const char *name) {
    cldsa_st_tensor key = {.name = name};
    return bsearch(&key, file->tensors, file->count, sizeof key, by_name);
}

cldsa_status cldsa_safetensors_get(const cldsa_safetensors *file, const char *name, const cldsa_st_tensor **out) {
    *out = cldsa_safetensors_find(file, name);
    if (*out)
        return CLDSA_SUCCESS;
    const char **names = calloc(file->count ? file->count : 1, sizeof *names);
    const char *near = NULL;
    if (names) {
        for (size_t i = 0; i < file->count; ++i)
            names[i] = file->tensors[i].name;
        near = cldsa_nearest_name(name, names, file->count);
    }
    cldsa_status status = near ? cldsa_fail(CLDSA_MISSING_TENSOR, "%s: tensor \"%s\" is missing; there is \"%s\"",
                                            file->path, name, show_name(near).text)
                               : cldsa_fail(CLDSA_MISSING_TENSOR, "%s: tensor \"%s\" is missing", file->path, name);
    free(names);
    return status;
}

const char *cldsa_safetensors_metadata(const cldsa_safetensors *file, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(file->metadata, key));
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static int by_layout(const void *a, const void *b) {
    const cldsa_st_entry *x = *(const cldsa_st_entry *const *)a, *y = *(const cldsa_st_entry *const *)b;
    size_t x_size = dtypes[x->dtype].size, y_size = dtypes[y->dtype].size;
    return x_size != y_size ? (x_size < y_size) - (x_size > y_size) : strcmp(x->name, y->name);
}

static size_t entry_bytes(const cldsa_st_entry *entry) {
    size_t bytes = dtypes[entry->dtype].size;
    for (int i = 0; i < entry->rank; ++i)
        bytes *= (size_t)entry->shape[i];
    return bytes;
}

/* The header's text, padded with blanks so that the data begins at a multiple of 8; NULL without memory. */
static char *header_text(const cldsa_st_entry *const *entries, size_t count, const cldsa_st_metadata *metadata,
                         size_t num_metadata) {
    cJSON *header = cJSON_CreateObject();
    if (num_metadata) {
        cJSON *strings = cJSON_AddObjectToObject(header, METADATA);
        for (size_t i = 0; i < num_metadata; ++i)
            cJSON_AddStringToObject(strings, metadata[i].key, metadata[i].value);
    }
    size_t at = 0;
    for (size_t i = 0; i < count; ++i) {
        const cldsa_st_entry *entry = entries[i];
        cJSON *item = cJSON_AddObjectToObject(header, entry->name);
        cJSON_AddStringToObject(item, "dtype", dtypes[entry->dtype].name);
        cJSON *shape = cJSON_AddArrayToObject(item, "shape");
        for (int d = 0; d < entry->rank; ++d)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)entry->shape[d]));
        cJSON *offsets = cJSON_AddArrayToObject(item, "data_offsets");
        cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)at));
        at += entry_bytes(entry);
        cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)at));
    }
    char *text = cJSON_PrintUnformatted(header);
    cJSON_Delete(header);
    if (!text)
        return NULL;
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    char *result = malloc(padded + 1);
    if (result) {
        memcpy(result, text, length);
        memset(result + length, ' ', padded - length);
        result[padded] = '\0';
    }
    cJSON_free(text);
    return result;
}

static cldsa_status write_entry(cldsa_file_writer *writer, const cldsa_st_entry *entry, char *piece) {
    size_t bytes = entry_bytes(entry);
    if (entry->data)
        return cldsa_file_write(writer, entry->data, bytes);
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        size_t part = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        CLDSA_TRY(entry->read(entry->user, at, piece, part));
        CLDSA_TRY(cldsa_file_write(writer, piece, part));
    }
    return CLDSA_SUCCESS;
}

static cldsa_status write_content(cldsa_file_writer *writer, const cldsa_st_entry *const *entries, size_t count,
                                  const char *header, char *piece) {
    unsigned char prefix[PREFIX_BYTES];
    uint64_t length = strlen(header);
    for (int i = 0; i < PREFIX_BYTES; ++i)
        prefix[i] = (unsigned char)(length >> 8 * i);
    CLDSA_TRY(cldsa_file_write(writer, prefix, sizeof prefix));
    CLDSA_TRY(cldsa_file_write(writer, header, length));
    for (size_t i = 0; i < count; ++i)
        CLDSA_TRY(write_entry(writer, entries[i], piece));
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_safetensors_write(const char *path, const cldsa_st_entry *entries, size_t count,
                                     const cldsa_st_metadata *metadata, size_t num_metadata) {
    const cldsa_st_entry **sorted = calloc(count ? count : 1, sizeof *sorted);
    char *piece = malloc(PIECE_BYTES), *header = NULL;
    cldsa_status status = CLDSA_SUCCESS;
    if (sorted && piece) {
        for (size_t i = 0; i < count; ++i)
            sorted[i] = &entries[i];
        qsort(sorted, count, sizeof *sorted, by_layout);
        header = header_text(sorted, count, metadata, num_metadata);
    }
    if (!header) {
        status = cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for its header", path);
        goto done;
    }
    cldsa_file_writer writer;
    status = cldsa_file_begin(&writer, path);
    if (status == CLDSA_SUCCESS)
        status = cldsa_file_end(&writer, write_content(&writer, sorted, count, header, piece));
done:
    free(header);
    free(piece);
    free(sorted);
    return status;
}
