/* Files: safetensors, honest and hostile; JSON getters; writing that leaves nothing half done. */
#include "host/io/file.h"
#include "host/io/json.h"
#include "host/io/safetensors.h"
#include "host/runtime/runtime.h"

#include <dirent.h>
#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/cldsa-io-XXXXXX";
static char path[64];

static int make_directory(void **state) {
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/x.safetensors", directory);
    return 0;
}

static size_t files_in_directory(void) {
    DIR *dir = opendir(directory);
    assert_non_null(dir);
    size_t count = 0;
    for (const struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static int remove_directory(void **state) {
    (void)state;
    unlink(path);
    return rmdir(directory);
}

/* ---- safetensors --------------------------------------------------------------------------------------------- */

/* A file from a header's text, its claimed length (0: the true one) and a number of zero bytes. */
static void write_raw(const char *header, uint64_t claimed, size_t data_bytes) {
    size_t length = strlen(header);
    uint64_t prefix = claimed ? claimed : length;
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    for (int i = 0; i < 8; ++i)
        fputc((int)(prefix >> 8 * i & 255), stream);
    fwrite(header, 1, length, stream);
    for (size_t i = 0; i < data_bytes; ++i)
        fputc(0, stream);
    fclose(stream);
}

/* Refused with one line that names the file and says `part`. */
static void assert_refused(const char *part) {
    cldsa_safetensors *file;
    cldsa_status status = cldsa_safetensors_open(path, &file);
    const char *message = cldsa_error_message();
    if (status != CLDSA_INVALID_FILE || !strstr(message, part) || !strstr(message, path) || strchr(message, '\n'))
        fail_msg("wanted \"%s\", got %s: %s", part, cldsa_status_name(status), message);
    assert_null(file);
}

typedef struct hostile {
    const char *header;
    uint64_t claimed;
    size_t data_bytes;
    const char *part; /* of the message */
} hostile;

static void refuses_hostile_files(void **state) {
    (void)state;
    static const hostile cases[] = {
        {"{}", 1000, 0, "truncated: header length is 1000"},
        {"{}", UINT64_MAX, 0, "header length is 18446744073709551615"},
        {"{}", 100000001, 0, "header length is 100000001"},
        {"", 0, 0, "not valid JSON"},
        {"{\"a\":", 0, 0, "not valid JSON"},
        {"{} x", 0, 0, "not valid JSON"},
        {"[]", 0, 0, "an object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 3, "the file has 3 bytes of data"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 0, 4, "data_offsets are [4, 0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 0, 8, "span 8 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 0, 4, "two whole numbers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 0, 4, "two whole numbers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,1e300]}}", 0, 4, "two whole numbers"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, "unknown dtype \"F31\""},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, "dtype is missing"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, "dtype is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 0, 4, "extent 0 of shape is -1"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 0, 4, "extent 0 of shape is 1.5"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 0, 4, "shape is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,4]}}", 0, 4, "63 bits"},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[2097152,2097152,1048576],\"data_offsets\":[0,0]}}", 0, 0, "63 bits"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 0, 4, "rank is 9"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
         0, 6, "overlaps that of \"a\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
         0, 12, "no tensor holds bytes 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 9, "5 bytes of data belong to no"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}",
         0, 5, "a multiple of 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         0, 8, "given twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4,
         "dtype is given twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 0, 4, "unknown key \"x\""},
        {"{\"a\":7}", 0, 0, "not an object"},
        {"{\"bad\\nname\":7}", 0, 0, "\"bad?name\""},
        {"{\"__metadata__\":{\"k\":7}}", 0, 0, "\"k\" is not a string"},
        {"{\"__metadata__\":{\"k\":\"a\",\"k\":\"b\"}}", 0, 0, "\"k\" is given twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, 0, "__metadata__ is given twice"},
        {"{\"__metadata__\":[]}", 0, 0, "not an object of strings"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        write_raw(cases[i].header, cases[i].claimed, cases[i].data_bytes);
        assert_refused(cases[i].part);
    }
}

/* A golden file cut at every length up to its header's end, and at some beyond. */
static void refuses_truncated_files(void **state) {
    (void)state;
    char *content;
    size_t size;
    assert_int_equal(cldsa_file_read(CLDSA_TEST_DATA "/topk.dsa_causal.safetensors", 1 << 20, &content, &size), 0);
    for (size_t length = 0; length < size; length += length < 400 ? 1 : 97) {
        FILE *stream = fopen(path, "wb");
        fwrite(content, 1, length, stream);
        fclose(stream);
        assert_refused("");
    }
    free(content);
}

/* Every byte of a header damaged in turn: refused or read, never a crash (run with AddressSanitizer, too). */
static void survives_damaged_headers(void **state) {
    (void)state;
    char *content;
    size_t size;
    assert_int_equal(cldsa_file_read(CLDSA_TEST_DATA "/topk.dsa_causal.safetensors", 1 << 20, &content, &size), 0);
    static const char replacements[] = {0, '"', '{', '}', '9', '-', ',', (char)0xff};
    for (size_t at = 0; at < 344; ++at)
        for (size_t r = 0; r < sizeof replacements; ++r) {
            char kept = content[at];
            content[at] = replacements[r];
            FILE *stream = fopen(path, "wb");
            fwrite(content, 1, size, stream);
            fclose(stream);
            content[at] = kept;
            cldsa_safetensors *file;
            if (cldsa_safetensors_open(path, &file) == CLDSA_SUCCESS)
                for (size_t i = 0; i < cldsa_safetensors_count(file); ++i) {
                    const cldsa_st_tensor *tensor = cldsa_safetensors_at(file, i);
                    if (tensor->numel)
                        (void)cldsa_st_value(tensor, tensor->numel - 1);
                }
            cldsa_safetensors_close(file);
        }
    free(content);
}

static void reads_goldens(void **state) {
    (void)state;
    glob_t files;
    assert_int_equal(glob(CLDSA_TEST_DATA "/*.safetensors", 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; ++i) {
        cldsa_safetensors *file;
        if (cldsa_safetensors_open(files.gl_pathv[i], &file) != CLDSA_SUCCESS)
            fail_msg("%s", cldsa_error_message());
        assert_non_null(cldsa_safetensors_metadata(file, "op"));
        assert_true(cldsa_safetensors_count(file) > 0);
        cldsa_safetensors_close(file);
    }
    globfree(&files);
}

static cldsa_status read_counted(void *user, size_t offset, void *destination, size_t bytes) {
    size_t *next = user;
    assert_int_equal(offset, *next);
    *next += bytes;
    memset(destination, 1, bytes);
    return CLDSA_SUCCESS;
}

static void returns_what_was_written(void **state) {
    (void)state;
    static const uint16_t halves[] = {0x3c00, 0xc000, 0x7c00, 0x0001, 0x7e00};
    static const uint16_t bfloats[] = {0x3f80, 0xc000};
    static const float floats[] = {1.5f, -2, 3, 4, 5, 6};
    static const int64_t big = -(INT64_C(1) << 40);
    static const double scalar = 0.1;
    static const unsigned char bytes[] = {1, 2, 255};
    size_t streamed = 0;
    const cldsa_st_entry entries[] = {
        {.name = "u8", .dtype = CLDSA_ST_U8, .rank = 1, .shape = {3}, .data = bytes},
        {.name = "half", .dtype = CLDSA_ST_F16, .rank = 1, .shape = {5}, .data = halves},
        {.name = "bfloat", .dtype = CLDSA_ST_BF16, .rank = 1, .shape = {2}, .data = bfloats},
        {.name = "quote\" \\ \xc3\xa9", .dtype = CLDSA_ST_F32, .rank = 2, .shape = {2, 3}, .data = floats},
        {.name = "big", .dtype = CLDSA_ST_I64, .rank = 1, .shape = {1}, .data = &big},
        {.name = "scalar", .dtype = CLDSA_ST_F64, .data = &scalar},
        {.name = "empty", .dtype = CLDSA_ST_F32, .rank = 2, .shape = {0, 7}, .data = floats},
        {.name = "streamed",
         .dtype = CLDSA_ST_BOOL,
         .rank = 1,
         .shape = {3000000},
         .read = read_counted,
         .user = &streamed},
    };
    const cldsa_st_metadata metadata[] = {{"op", "none"}, {"params", "{\"a\": \"\\u00e9\"}"}};
    assert_int_equal(cldsa_safetensors_write(path, entries, sizeof entries / sizeof entries[0], metadata, 2), 0);
    assert_int_equal(streamed, 3000000);

    cldsa_safetensors *file;
    if (cldsa_safetensors_open(path, &file) != CLDSA_SUCCESS)
        fail_msg("%s", cldsa_error_message());
    assert_int_equal(cldsa_safetensors_count(file), sizeof entries / sizeof entries[0]);
    assert_string_equal(cldsa_safetensors_metadata(file, "params"), metadata[1].value);
    assert_null(cldsa_safetensors_metadata(file, "other"));
    const cldsa_st_tensor *tensor = cldsa_safetensors_find(file, "quote\" \\ \xc3\xa9");
    assert_non_null(tensor);
    assert_int_equal(tensor->rank, 2);
    assert_int_equal(tensor->shape[1], 3);
    assert_memory_equal(tensor->data, floats, sizeof floats);
    tensor = cldsa_safetensors_find(file, "half");
    assert_true(cldsa_st_value(tensor, 0) == 1 && cldsa_st_value(tensor, 1) == -2);
    assert_true(isinf(cldsa_st_value(tensor, 2)) && cldsa_st_value(tensor, 3) == ldexp(1, -24));
    assert_true(isnan(cldsa_st_value(tensor, 4)));
    assert_true(cldsa_st_value(cldsa_safetensors_find(file, "bfloat"), 1) == -2);
    assert_true(cldsa_st_value(cldsa_safetensors_find(file, "big"), 0) == (double)big);
    assert_true(cldsa_st_value(cldsa_safetensors_find(file, "scalar"), 0) == scalar);
    assert_int_equal(cldsa_safetensors_find(file, "empty")->numel, 0);
    assert_int_equal(cldsa_safetensors_get(file, "scalr", &tensor), CLDSA_MISSING_TENSOR);
    assert_non_null(strstr(cldsa_error_message(), "scalar"));
    cldsa_safetensors_close(file);
    assert_int_equal(files_in_directory(), 1);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* A file size limit stands for the full disk: write() fails the same way, with EFBIG for ENOSPC. */
static void full_disk_keeps_the_old_file(void **state) {
    (void)state;
    assert_int_equal(cldsa_file_write_all(path, "old", 3), CLDSA_SUCCESS);
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    limit = (struct rlimit){4096, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    char *large = calloc(1, 1 << 20);
    cldsa_status status = cldsa_file_write_all(path, large, 1 << 20);
    setrlimit(RLIMIT_FSIZE, &before);
    free(large);
    assert_int_equal(status, CLDSA_IO_ERROR);
    assert_non_null(strstr(cldsa_error_message(), path));
    char *content;
    size_t size;
    assert_int_equal(cldsa_file_read(path, 100, &content, &size), CLDSA_SUCCESS);
    assert_string_equal(content, "old");
    free(content);
    assert_int_equal(files_in_directory(), 1); /* no temporary file is left */
}

static cldsa_status fails_midway(void *user, size_t offset, void *destination, size_t bytes) {
    (void)user;
    memset(destination, 0, bytes);
    return offset == 0 ? CLDSA_SUCCESS : cldsa_fail(CLDSA_INTERRUPTED, "stopped");
}

static void failing_source_keeps_the_old_file(void **state) {
    (void)state;
    assert_int_equal(cldsa_file_write_all(path, "old", 3), CLDSA_SUCCESS);
    const cldsa_st_entry entry = {
        .name = "x", .dtype = CLDSA_ST_U8, .rank = 1, .shape = {4 << 20}, .read = fails_midway};
    assert_int_equal(cldsa_safetensors_write(path, &entry, 1, NULL, 0), CLDSA_INTERRUPTED);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, 3);
    assert_int_equal(files_in_directory(), 1);
}

static void reports_system_errors(void **state) {
    (void)state;
    char *content;
    size_t size;
    assert_int_equal(cldsa_file_read("/nonexistent/x", 10, &content, &size), CLDSA_NOT_FOUND);
    assert_int_equal(cldsa_file_read(directory, 10, &content, &size), CLDSA_INVALID_FILE);
    assert_int_equal(cldsa_file_write_all(path, "12345", 5), CLDSA_SUCCESS);
    assert_int_equal(cldsa_file_read(path, 4, &content, &size), CLDSA_INVALID_FILE);
    assert_int_equal(cldsa_file_write_all("/nonexistent/x", "1", 1), CLDSA_NOT_FOUND);
    assert_non_null(strstr(cldsa_error_message(), "/nonexistent/x"));
    char nested[128];
    snprintf(nested, sizeof nested, "%s/x.safetensors/y", directory);
    assert_int_equal(cldsa_make_directories(nested), CLDSA_IO_ERROR);
}

/* /dev/full would become a file, for everybody on the machine, and a link would lose what it leads to. */
static void replaces_files_only(void **state) {
    (void)state;
    char pipe_path[128], link_path[128], *content;
    size_t size;
    struct stat info;
    snprintf(pipe_path, sizeof pipe_path, "%s/pipe", directory);
    snprintf(link_path, sizeof link_path, "%s/link", directory);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(cldsa_file_write_all(pipe_path, "1", 1), CLDSA_INVALID_ARGUMENT);
    assert_non_null(strstr(cldsa_error_message(), "/pipe: is not a regular file"));
    assert_true(stat(pipe_path, &info) == 0 && S_ISFIFO(info.st_mode));
    assert_int_equal(cldsa_file_write_all(directory, "1", 1), CLDSA_INVALID_ARGUMENT);

    assert_int_equal(cldsa_file_write_all(path, "before", 6), CLDSA_SUCCESS);
    assert_int_equal(symlink(path, link_path), 0);
    assert_int_equal(cldsa_file_write_all(link_path, "after", 5), CLDSA_SUCCESS);
    assert_true(lstat(link_path, &info) == 0 && S_ISLNK(info.st_mode));
    assert_int_equal(cldsa_file_read(path, 10, &content, &size), CLDSA_SUCCESS);
    assert_string_equal(content, "after");
    free(content);
    unlink(pipe_path);
    unlink(link_path);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static cJSON *parse(const char *text) {
    cJSON *value;
    if (cldsa_json_parse("config.json", text, strlen(text), &value) != CLDSA_SUCCESS)
        fail_msg("%s", cldsa_error_message());
    return value;
}

static void json_getters(void **state) {
    (void)state;
    static const char *const kinds[] = {"dense", "fixed", NULL};
    cJSON *object = parse("{\"n\": 3, \"x\": 0.5, \"on\": true, \"kind\": \"fixed\", \"text\": \"hello\"}");
    int n = 7, kind = 0, absent = 9;
    double x = 0;
    bool on = false;
    const char *text = NULL;
    assert_int_equal(cldsa_json_get_int(object, "config.json", "n", 0, 10, &n), CLDSA_SUCCESS);
    assert_int_equal(n, 3);
    assert_int_equal(cldsa_json_get_int(object, "config.json", "absent", 0, 10, &absent), CLDSA_SUCCESS);
    assert_int_equal(absent, 9);
    assert_int_equal(cldsa_json_get_number(object, "config.json", "x", 0, 1, &x), CLDSA_SUCCESS);
    assert_true(x == 0.5);
    assert_int_equal(cldsa_json_get_bool(object, "config.json", "on", &on), CLDSA_SUCCESS);
    assert_true(on);
    assert_int_equal(cldsa_json_get_enum(object, "config.json", "kind", kinds, &kind), CLDSA_SUCCESS);
    assert_int_equal(kind, 1);
    assert_int_equal(cldsa_json_get_string(object, "config.json", "text", &text), CLDSA_SUCCESS);
    assert_string_equal(text, "hello");

    assert_int_equal(cldsa_json_get_int(object, "config.json", "x", 0, 10, &n), CLDSA_INVALID_ARGUMENT);
    assert_string_equal(cldsa_error_message(), "config.json: x is 0.5; it must be an integer from 0 to 10");
    assert_int_equal(cldsa_json_get_int(object, "config.json", "n", 5, 10, &n), CLDSA_INVALID_ARGUMENT);
    assert_int_equal(cldsa_json_get_int(object, "config.json", "text", 5, 10, &n), CLDSA_INVALID_ARGUMENT);
    assert_int_equal(cldsa_json_get_enum(object, "config.json", "text", kinds, &kind), CLDSA_INVALID_ARGUMENT);
    assert_non_null(strstr(cldsa_error_message(), "dense, fixed"));
    cJSON_Delete(object);
}

static void json_keys(void **state) {
    (void)state;
    static const char *const names[] = {"learning_rate", "batch"};
    cJSON *object = parse("{\"lerning_rate\": 1}");
    assert_int_equal(cldsa_json_check_keys(object, "config.json", names, 2), CLDSA_INVALID_ARGUMENT);
    assert_string_equal(cldsa_error_message(),
                        "config.json: unknown key \"lerning_rate\"; did you mean \"learning_rate\"?");
    cJSON_Delete(object);
    object = parse("{\"batch\": 1, \"batch\": 2}");
    assert_int_equal(cldsa_json_check_keys(object, "config.json", names, 2), CLDSA_INVALID_ARGUMENT);
    cJSON_Delete(object);
    const char *broken = "{\n  \"a\": 1,\n  b\n}";
    assert_int_equal(cldsa_json_parse("config.json", broken, strlen(broken), &object), CLDSA_INVALID_FILE);
    assert_non_null(strstr(cldsa_error_message(), "line 3"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_hostile_files),
        cmocka_unit_test(refuses_truncated_files),
        cmocka_unit_test(survives_damaged_headers),
        cmocka_unit_test(reads_goldens),
        cmocka_unit_test(returns_what_was_written),
        cmocka_unit_test(full_disk_keeps_the_old_file),
        cmocka_unit_test(failing_source_keeps_the_old_file),
        cmocka_unit_test(reports_system_errors),
        cmocka_unit_test(replaces_files_only),
        cmocka_unit_test(json_getters),
        cmocka_unit_test(json_keys),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
