/* Training data: what a batch holds, that it is repeatable, and what bad input says. */
#include "host/train/data.h"
#include "host/train/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[64];

static const char *write_file(const char *name, const void *data, size_t size) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
    return path;
}

static int make_directory(void **state) {
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/cldsa-data-XXXXXX");
    return mkdtemp(directory) == NULL;
}

static int remove_directory(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command);
}

/* 5000 bytes whose value tells their place, in three files, beside a binary and a hidden one that must be skipped. */
static void text_crosses_files(void **state) {
    (void)state;
    char bytes[5000];
    for (int i = 0; i < 5000; ++i)
        bytes[i] = (char)(1 + i % 251);
    write_file("a", bytes, 1000);
    write_file("b.txt", bytes + 1000, 7);
    write_file("c", bytes + 1007, 3993);
    write_file("binary.dat", "\0\1\2\3", 4);
    write_file(".hidden", "hidden", 6);
    write_file("empty", "", 0);
    const char *paths[] = {directory};
    cldsa_text *text;
    assert_int_equal(cldsa_text_open(paths, 1, CLDSA_SPLIT_OFFSET, &text), CLDSA_SUCCESS);
    assert_int_equal(cldsa_text_size(text, false), 4500);
    assert_int_equal(cldsa_text_size(text, true), 500);
    unsigned char copy[4500];
    cldsa_text_copy(text, false, 0, 4500, copy);
    assert_memory_equal(copy, bytes, 4500);
    cldsa_text_copy(text, false, 990, 100, copy);
    assert_memory_equal(copy, bytes + 990, 100);
    cldsa_text_copy(text, true, 0, 500, copy);
    assert_memory_equal(copy, bytes + 4500, 500);
    cldsa_text_close(text);

    cldsa_data_config config = {.task = CLDSA_TASK_TEXT, .paths = paths, .num_paths = 1, .seq_len = 16, .seed = 1};
    cldsa_data *data;
    assert_int_equal(cldsa_data_open(&config, &data), CLDSA_SUCCESS);
    int32_t ids[64], labels[64], again[64];
    assert_int_equal(cldsa_data_batch(data, false, 3, 4, ids, labels), 64);
    for (int i = 0; i < 64; ++i) /* each label is the byte that follows */
        assert_int_equal(labels[i], ids[i] % 251 + 1);
    cldsa_data_batch(data, false, 3, 4, again, labels);
    assert_memory_equal(ids, again, sizeof ids);
    cldsa_data_batch(data, false, 4, 4, again, labels);
    assert_memory_not_equal(ids, again, sizeof ids);
    cldsa_data_close(data);
}

static void uniform_is_shuffled_and_shifted(void **state) {
    (void)state;
    cldsa_data_config config = {.task = CLDSA_TASK_UNIFORM,
                                .train_sequences = 24,
                                .validation_sequences = 8,
                                .vocab = 1000,
                                .shifted_twice = true,
                                .seq_len = 8,
                                .seed = 42};
    cldsa_data *data;
    assert_int_equal(cldsa_data_open(&config, &data), CLDSA_SUCCESS);
    int32_t ids[24 * 8], labels[24 * 8];
    assert_int_equal(cldsa_data_batch(data, false, 0, 24, ids, labels), 24 * 7);
    for (int row = 0; row < 24; ++row) {
        assert_int_equal(labels[row * 8 + 7], -100);
        for (int i = 0; i + 2 < 8; ++i)
            assert_int_equal(labels[row * 8 + i], ids[row * 8 + i + 2]);
        for (int other = 0; other < row; ++other) /* an epoch shows every sequence once */
            assert_memory_not_equal(ids + row * 8, ids + other * 8, 8 * sizeof *ids);
    }
    int32_t next[24 * 8];
    cldsa_data_batch(data, false, 1, 24, next, labels);
    assert_memory_not_equal(ids, next, sizeof ids); /* the next epoch has another order */
    cldsa_data_close(data);
}

static void recall_answers_are_in_the_sequence(void **state) {
    (void)state;
    cldsa_data_config config = {
        .task = CLDSA_TASK_RECALL, .vocab = 64, .pairs = 5, .distance = 7, .seq_len = 32, .seed = 7};
    cldsa_data *data;
    assert_int_equal(cldsa_data_open(&config, &data), CLDSA_SUCCESS);
    int32_t ids[32], labels[32];
    assert_int_equal(cldsa_data_batch(data, true, 9, 1, ids, labels), 32 - 17);
    for (int i = 0; i < 17; ++i)
        assert_int_equal(labels[i], -100);
    for (int i = 17; i < 32; ++i) {
        int found = 0;
        for (int p = 0; p < 5; ++p)
            if (ids[2 * p] == ids[i]) {
                assert_int_equal(labels[i], ids[2 * p + 1]);
                ++found;
            }
        assert_int_equal(found, 1);
    }
    cldsa_data_close(data);
}

static void expect_refusal(const char *path, const char *part) {
    const char *paths[] = {path};
    cldsa_data_config config = {.task = CLDSA_TASK_TEXT, .paths = paths, .num_paths = 1, .seq_len = 64};
    cldsa_data *data;
    assert_int_not_equal(cldsa_data_open(&config, &data), CLDSA_SUCCESS);
    assert_null(data);
    assert_non_null(strstr(cldsa_error_message(), part));
}

static void bad_text_is_refused(void **state) {
    (void)state;
    expect_refusal("/no/such/file", "/no/such/file");
    expect_refusal(write_file("empty", "", 0), "empty");
    expect_refusal(write_file("short", "too short", 9), "at least 65");
    expect_refusal(write_file("binary.dat", "\0\1", 2), "no text");
    cldsa_data_config recall = {.task = CLDSA_TASK_RECALL, .vocab = 64, .pairs = 16, .distance = 4, .seq_len = 32};
    cldsa_data *data;
    assert_int_not_equal(cldsa_data_open(&recall, &data), CLDSA_SUCCESS);
    assert_non_null(strstr(cldsa_error_message(), "at least 37"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_crosses_files),
        cmocka_unit_test(uniform_is_shuffled_and_shifted),
        cmocka_unit_test(recall_answers_are_in_the_sequence),
        cmocka_unit_test(bad_text_is_refused),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
