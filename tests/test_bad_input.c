/*
 * Bad input through the command line: every mistake gives one line that names the file, the value and what would be
 * right, an exit code that is not 0, and nothing half-written. What the library itself refuses is tested with each
 * operation, the parser's cases in test_io.c; what counts here is what a user sees.
 */
#include "host/io/safetensors.h"
#include "tests/cli_runner.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROWS = 3, KEYS = 5 };

/* A model small enough that a step takes a millisecond. */
static const char config_text[] =
    "{\"model\": {\"hidden_size\": 32, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"q_lora_rank\": 8,"
    " \"kv_lora_rank\": 8, \"qk_nope_head_dim\": 8, \"qk_rope_head_dim\": 8, \"v_head_dim\": 8,"
    " \"n_routed_experts\": 2, \"num_experts_per_tok\": 1, \"moe_intermediate_size\": 32, \"index_n_heads\": 2,"
    " \"index_head_dim\": 8}, \"batch\": 4, \"seq_len\": 32, \"steps\": 4, \"evaluate_batches\": 1}";

static char config_path[CLI_PATH_SIZE], text_path[CLI_PATH_SIZE];

static int begin(void **state) {
    if (cli_make_directory(state))
        return -1;
    char text[20000];
    for (size_t i = 0; i < sizeof text; ++i)
        text[i] = (char)('a' + i * i % 23 % 7);
    snprintf(config_path, sizeof config_path, "%s", cli_write("config.json", config_text, sizeof config_text - 1));
    snprintf(text_path, sizeof text_path, "%s", cli_write("text", text, sizeof text));
    /* The device's driver may need space for what it compiles: the tests that leave none find it done. */
    cli_run("train --config '%s' --text '%s' --variant fixed50 --out '%s'", config_path, text_path, cli_path("warm"));
    return cli_result.code;
}

static bool is_there(const char *name) {
    return access(cli_path(name), F_OK) == 0;
}

/* No file but those that a run with success would leave; .tmp files are half-written ones. */
static void assert_nothing_left(const char *name) {
    cli_shell("find '%s' -name '*.tmp.*' 2>/dev/null", cli_directory);
    assert_string_equal(cli_result.out, "");
    if (is_there(name))
        fail_msg("%s was written", name);
}

/* ---- operations ------------------------------------------------------------------------------------------------- */

static const float scores[ROWS * KEYS] = {1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0, NAN, 2, -INFINITY, 1};

static cldsa_st_entry scores_entry(void) {
    return (cldsa_st_entry){
        .name = "in.scores", .dtype = CLDSA_ST_F32, .rank = 2, .shape = {ROWS, KEYS}, .data = scores};
}

static void write_tensors(const cldsa_st_entry *entries, size_t count) {
    assert_int_equal(cldsa_safetensors_write(cli_path("in"), entries, count, NULL, 0), CLDSA_SUCCESS);
}

static void refuse(const char *settings, const char *parts) {
    cli_run("op topk --in '%s' --out '%s' %s", cli_path("in"), cli_path("out"), settings);
    cli_assert_error(2, parts);
    assert_nothing_left("out");
}

static void tensors(void **state) {
    (void)state;
    static const int32_t whole[ROWS * KEYS] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    cldsa_st_entry entry = scores_entry();
    entry.dtype = CLDSA_ST_I32;
    entry.data = whole;
    write_tensors(&entry, 1);
    refuse("--set K=2", "scores|I32|F32");

    entry = scores_entry();
    entry.rank = 0;
    write_tensors(&entry, 1);
    refuse("--set K=2", "scores|R* T");

    cldsa_st_entry two[] = {scores_entry(),
                            {.name = "in.ks", .dtype = CLDSA_ST_I32, .rank = 1, .shape = {4}, .data = whole}};
    write_tensors(two, 2);
    refuse("--set K=2", "ks|4|3");

    entry = scores_entry();
    entry.name = "in.score";
    write_tensors(&entry, 1);
    refuse("--set K=2", "in|score|scores");

    entry = scores_entry();
    entry.name = "in.\033[31m\nscores";
    write_tensors(&entry, 1);
    refuse("--set K=2", "no input \"?[31m scores\"");

    write_tensors(&(cldsa_st_entry){.name = "in.ks", .dtype = CLDSA_ST_I32, .rank = 1, .shape = {3}, .data = whole}, 1);
    refuse("--set K=2", "/in: |in.scores");
}

static void numbers_of_keys(void **state) {
    (void)state;
    cldsa_st_entry entry = scores_entry();
    write_tensors(&entry, 1);
    refuse("--set K=2 --set k=0", "k is 0|1 to 5");
    refuse("--set K=2 --set k=-3", "k is -3");
    refuse("--set K=2 --set k=6", "k is 6|1 to 5");
    refuse("--set K=2 --set k=2.5", "k|2.5");
    refuse("--set K=0 --set k=1", "K|0");
    refuse("--set K=2 --set ordr=score", "ordr|\"order\"");
    refuse("--set K=2 --set order=scor", "order|scor|score");
    refuse("--set indices=I32", "indices|R* K|--set");
    refuse("--set K=2 --set neither=1", "neither|it has k, order, indices");
    refuse("--set K=2 --variant non", "\"non\"; it has vec");
    refuse("--set K=2 --backward", "topk has no backward form");
}

/* Neither NaN nor -inf is ever selected: a row with fewer others keeps fewer. */
static void scores_without_order(void **state) {
    (void)state;
    cldsa_st_entry entry = scores_entry();
    write_tensors(&entry, 1);
    cli_run("op topk --in '%s' --out '%s' --set k=5 --set K=9", cli_path("in"), cli_path("out"));
    cli_assert_ok();
    cldsa_safetensors *file;
    assert_int_equal(cldsa_safetensors_open(cli_path("out"), &file), CLDSA_SUCCESS);
    const cldsa_st_tensor *indices = cldsa_safetensors_find(file, "out.indices");
    assert_non_null(indices);
    static const double last_row[9] = {0, 2, 4, -1, -1, -1, -1, -1, -1};
    for (int i = 0; i < 9; ++i) {
        assert_true(cldsa_st_value(indices, i) == (i < KEYS ? i : -1));
        assert_true(cldsa_st_value(indices, 18 + i) == last_row[i]);
    }
    cldsa_safetensors_close(file);
    unlink(cli_path("out"));
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static void write_header(const char *header, size_t data_bytes) {
    unsigned char bytes[1024] = {0};
    uint64_t length = strlen(header);
    for (int i = 0; i < 8; ++i)
        bytes[i] = (unsigned char)(length >> 8 * i);
    memcpy(bytes + 8, header, length);
    cli_write("in", bytes, 8 + length + data_bytes);
}

static void hostile_files(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *parts;
    } hostile[] = {
        {"{\"in.scores\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 12, "in.scores"},
        {"{\"in.scores\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,12]}}", 12, "in.scores"},
        {"{\"in.scores\":{\"dtype\":\"F33\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16, "in.scores|F33"},
        {"{\"in.scores\":{\"dtype\":\"F32\",\"shape\":[-2,2],\"data_offsets\":[0,16]}}", 16, "in.scores"},
        {"{\"in.scores\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,16]}}", 16,
         "in.scores"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],"
         "\"data_offsets\":[4,12]}}",
         12, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],"
         "\"data_offsets\":[4,8]}}",
         8, "\"a\"|twice"},
        {"{\"in.scores\\u0000x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "JSON|column 12"},
        {"{\"in.scores\":", 0, "JSON"},
        {"[1]", 0, "object"},
    };
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; ++i) {
        write_header(hostile[i].header, hostile[i].data_bytes);
        char parts[256];
        snprintf(parts, sizeof parts, "/in: |%s", hostile[i].parts);
        refuse("--set K=2", parts);
        cli_run("check '%s'", cli_path("in"));
        cli_assert_error(2, parts);
    }
    cli_write("in", "\x10\0\0\0\0\0\0\0{}", 10);
    refuse("", "/in: |header|16");
    cli_write("in", "", 0);
    refuse("", "/in: |0 bytes");
    cli_run("op topk --in '%s' --out '%s'", cli_directory, cli_path("out"));
    cli_assert_error(2, "not a regular file");
}

/* ---- text and configuration ------------------------------------------------------------------------------------- */

static void refuse_training(const char *arguments, int code, const char *parts) {
    cli_run("train --config '%s' --out '%s' %s", config_path, cli_path("run"), arguments);
    cli_assert_error(code, parts);
    assert_nothing_left("run");
}

static void texts(void **state) {
    (void)state;
    char arguments[2 * CLI_PATH_SIZE];
    refuse_training("", 2, "--text");
    refuse_training("--text /nonexistent", 3, "/nonexistent: ");
    snprintf(arguments, sizeof arguments, "--text '%s'", cli_write("empty", "", 0));
    refuse_training(arguments, 2, "/empty: |empty");
    snprintf(arguments, sizeof arguments, "--text '%s'", cli_write("short", "hello", 5));
    refuse_training(arguments, 2, "32|33");
    snprintf(arguments, sizeof arguments, "--text '%s'", cli_write("binary", "a\0b", 3));
    refuse_training(arguments, 2, "/binary: |no text");
    cli_shell("mkdir -p '%s'", cli_path("nothing"));
    snprintf(arguments, sizeof arguments, "--text '%s'", cli_path("nothing"));
    refuse_training(arguments, 2, "/nothing|no text file");
    refuse_training("--task recall --pairs 40 --length 32", 2, "40 pairs|32");
    refuse_training("--task uniform --text book", 2, "--text book|uniform|--task text");
    cli_run("experiment --recipe seed --text book --out '%s'", cli_path("run"));
    cli_assert_error(2, "--text book|uniform");
    assert_nothing_left("run");
}

static void refuse_config(const char *text, const char *parts) {
    char with_name[256];
    const char *path = cli_write("bad.json", text, strlen(text));
    snprintf(with_name, sizeof with_name, "/bad.json: |%s", parts);
    cli_run("train --config '%s' --text '%s' --out '%s'", path, text_path, cli_path("run"));
    cli_assert_error(2, with_name);
    assert_nothing_left("run");
    cli_run("experiment --config '%s' --text '%s' --out '%s'", path, text_path, cli_path("run"));
    cli_assert_error(2, with_name);
    assert_nothing_left("run");
}

static void configurations(void **state) {
    (void)state;
    refuse_config("{\"stesp\": 4}", "stesp|\"steps\"");
    refuse_config("{\"model\": {\"hiden_size\": 4}}", "hiden_size|\"hidden_size\"");
    refuse_config("{\"model\": {\"wings\": 4}}", "wings|known are|hidden_size");
    refuse_config("{\"model\": {\"hidden_size\": 0}}", "hidden_size is 0");
    refuse_config("{\"model\": {\"sparsity_policy\": \"fixd\"}}", "fixd|fixed");
    refuse_config("{\"model\": []}", "model|object");
    refuse_config("{\"steps\": \"4\"}", "steps");
    refuse_config("{\"batch\": 0}", "batch is 0");
    refuse_config("{\"lr\": -1}", "lr is -1");
    refuse_config("{\"steps\": 4", "JSON");
    refuse_config("[]", "object");
    refuse_training("--variant fixd25 --text x", 2, "fixd25|fixed25");
    refuse_training("--variant topk33 --length 32 --text x", 2, "index_topk is 33|1 to 32");
    cli_run("experiment --text x --variants dense,topk65 --lengths 128,64 --out '%s'", cli_path("run"));
    cli_assert_error(2, "topk65|index_topk is 65|1 to 64");
    assert_nothing_left("run");
    static const char *const axes[] = {"--seeds 1,2,1|seed 1", "--lengths 32,32|length 32",
                                       "--variants dense,dense|variant dense"};
    for (size_t i = 0; i < sizeof axes / sizeof *axes; ++i) {
        int end = (int)strcspn(axes[i], "|");
        cli_run("experiment --recipe seed --out '%s' %.*s", cli_path("run"), end, axes[i]);
        cli_assert_error(2, axes[i] + end + 1);
        assert_nothing_left("run");
    }
    cli_run("train --config /nonexistent.json --text '%s' --out '%s'", text_path, cli_path("run"));
    cli_assert_error(3, "/nonexistent.json: ");
}

static void checkpoints(void **state) {
    (void)state;
    /* Of another model, with other data: named. */
    cli_run("train --config '%s' --text '%s' --variant dense --out '%s' --resume", config_path, text_path,
            cli_path("warm"));
    cli_assert_error(2, "/warm/checkpoint-4/state.json: |sparsity_policy = \"fixed\"|\"dense\"");
    cli_run("train --config '%s' --text '%s' --text '%s' --variant fixed50 --out '%s' --resume", config_path, text_path,
            text_path, cli_path("warm"));
    cli_assert_error(2, "/warm/checkpoint-4/state.json: |text = ");
    /* Not asked to continue: nothing is thrown away in silence. */
    cli_run("train --config '%s' --text '%s' --variant fixed50 --out '%s'", config_path, text_path, cli_path("warm"));
    cli_assert_error(2, "/warm|checkpoint-4|--resume");
    cli_run("train --config '%s' --text '%s' --variant fixed50 --out '%s' --steps 3 --resume", config_path, text_path,
            cli_path("warm"));
    cli_assert_error(2, "/warm: |step 4|steps is 3");
    /* Damaged. */
    cli_shell("cp -r '%s' '%s'", cli_path("warm"), cli_path("damaged"));
    cli_shell("truncate -s 2000 '%s'", cli_path("damaged/checkpoint-4/model.safetensors"));
    cli_run("train --config '%s' --text '%s' --variant fixed50 --out '%s' --steps 8 --resume", config_path, text_path,
            cli_path("damaged"));
    cli_assert_error(2, "/damaged/checkpoint-4/model.safetensors: ");
    cli_write("damaged/latest", "../x", 4);
    cli_run("train --config '%s' --text '%s' --variant fixed50 --out '%s' --steps 8 --resume", config_path, text_path,
            cli_path("damaged"));
    cli_assert_error(2, "/damaged/latest: ");
}

/* ---- the machine --------------------------------------------------------------------------------------------------
 */

/* Every command that needs a device, one after the other: false after the last. */
static bool device_command(size_t i, char command[4 * CLI_PATH_SIZE]) {
    static const char *const commands[] = {"devices", "op topk --in '%s' --out '%s'", "check '%s'",
                                           "train --text '%s' --out '%s'", "experiment --text '%s' --out '%s'"};
    if (i >= sizeof commands / sizeof *commands)
        return false;
    if (i == 0)
        write_tensors(
            &(cldsa_st_entry){
                .name = "in.scores", .dtype = CLDSA_ST_F32, .rank = 2, .shape = {ROWS, KEYS}, .data = scores},
            1);
    const char *first =
        strncmp(commands[i], "op", 2) == 0 || strncmp(commands[i], "ch", 2) == 0 ? cli_path("in") : text_path;
    snprintf(command, 4 * CLI_PATH_SIZE, commands[i], first, cli_path("run"));
    return true;
}

static void no_platform(void **state) {
    (void)state;
    cli_must_hide_drivers();
    char command[4 * CLI_PATH_SIZE];
    for (size_t i = 0; device_command(i, command); ++i) {
        cli_run_in("OCL_ICD_VENDORS=/nonexistent", "%s", command);
        cli_assert_error(3, "no OpenCL device|install");
        assert_nothing_left("run");
    }
}

static void no_such_device(void **state) {
    (void)state;
    char command[4 * CLI_PATH_SIZE];
    for (size_t i = 0; device_command(i, command); ++i) {
        cli_run_in("CLDSA_DEVICE=77", "%s", command);
        cli_assert_error(3, "\"77\"|0: ");
        cli_run("%s --device 'no such'", command);
        cli_assert_error(3, "\"no such\"|0: ");
        assert_nothing_left("run");
    }
}

/* A cache that cannot be written costs time and nothing else. */
static void unwritable_cache(void **state) {
    (void)state;
    char setting[2 * CLI_PATH_SIZE];
    cldsa_st_entry entry = scores_entry();
    write_tensors(&entry, 1);
    const char *places[] = {cli_path("in"), cli_path("read-only"), "/proc/none"};
    cli_shell("mkdir -p '%s' && chmod 555 '%s'", places[1], places[1]);
    for (size_t i = 0; i < sizeof places / sizeof *places; ++i) {
        snprintf(setting, sizeof setting, "CLDSA_CACHE_DIR='%s'", places[i]);
        cli_run_in(setting, "op topk --in '%s' --out '%s' --set K=2", cli_path("in"), cli_path("out"));
        cli_assert_ok();
        assert_true(is_there("out"));
        unlink(cli_path("out"));
    }
}

/* A file may grow to 4 KiB only: as on a full disk, but without the need of one. */
static void full_disk(void **state) {
    (void)state;
    static const char limit[] = "trap '' XFSZ; ulimit -f 8;";
    float large[64 * 64] = {0};
    write_tensors(
        &(cldsa_st_entry){.name = "in.scores", .dtype = CLDSA_ST_F32, .rank = 2, .shape = {64, 64}, .data = large}, 1);
    cli_run_in(limit, "op topk --in '%s' --out '%s' --set K=64", cli_path("in"), cli_path("out"));
    cli_assert_error(3, "/out: |write");
    assert_nothing_left("out");
    cli_run("op --list >/dev/full");
    cli_assert_error(3, "standard output");
    cli_run("op topk --in '%s' --out /nonexistent/out --set K=64", cli_path("in"));
    cli_assert_error(3, "/nonexistent/out: ");

    cli_run_in(limit, "train --config '%s' --text '%s' --variant fixed50 --steps 40 --checkpoint-every 2 --out '%s'",
               config_path, text_path, cli_path("full"));
    cli_assert_error(3, "/full/checkpoint-2/|write");
    assert_nothing_left("full/latest");
    assert_nothing_left("full/checkpoint-2");

    /* A run that had a checkpoint still has it, whole. */
    cli_shell("cp -r '%s' '%s'", cli_path("warm"), cli_path("half"));
    cli_run_in(limit,
               "train --config '%s' --text '%s' --variant fixed50 --steps 40 --checkpoint-every 6 --out '%s' --resume",
               config_path, text_path, cli_path("half"));
    cli_assert_error(3, "/half/checkpoint-6/|write");
    assert_nothing_left("half/checkpoint-6");
    cli_run("train --config '%s' --text '%s' --variant fixed50 --steps 8 --out '%s' --resume", config_path, text_path,
            cli_path("half"));
    cli_assert_ok();
    assert_true(is_there("half/checkpoint-8/model.safetensors"));
}

int main(void) {
    setenv("CLDSA_CACHE_DIR", CLDSA_TEST_CACHE, 1); /* PoCL's programs too: on a full disk it can compile nothing */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors),          cmocka_unit_test(numbers_of_keys), cmocka_unit_test(scores_without_order),
        cmocka_unit_test(hostile_files),    cmocka_unit_test(texts),           cmocka_unit_test(configurations),
        cmocka_unit_test(checkpoints),      cmocka_unit_test(no_platform),     cmocka_unit_test(no_such_device),
        cmocka_unit_test(unwritable_cache), cmocka_unit_test(full_disk),
    };
    return cmocka_run_group_tests(tests, begin, cli_remove_directory);
}
