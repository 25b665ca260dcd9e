/* The experiment through the command line: the grid, its files, what a rerun does, and that kill -9 loses little. */
#include "host/io/file.h"
#include "host/runtime/runtime.h"
#include "tests/cli_runner.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEXT_BYTES = 20000, FILE_LIMIT = 1 << 24 };

/* A model of two narrow layers; `steps` and the rest come on the command line. */
static const char config_text[] =
    "{\"model\": {\"hidden_size\": 32, \"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"q_lora_rank\": 8,"
    " \"kv_lora_rank\": 8, \"qk_nope_head_dim\": 8, \"qk_rope_head_dim\": 8, \"v_head_dim\": 8,"
    " \"n_routed_experts\": 2, \"num_experts_per_tok\": 1, \"moe_intermediate_size\": 32, \"index_n_heads\": 2,"
    " \"index_head_dim\": 8, \"controller_complexity_dim\": 8, \"controller_length_dim\": 4,"
    " \"controller_adapter_dim\": 4, \"controller_entropy_heads\": 2},"
    " \"batch\": 4, \"lr\": 0.003, \"evaluate_batches\": 2}";

/* Every command of this file: a small grid with these steps, stored there. */
static char common[CLI_COMMAND_SIZE / 4];

static int begin(void **state) {
    if (cli_make_directory(state))
        return -1;
    static char text[TEXT_BYTES];
    for (int i = 0; i < TEXT_BYTES; ++i)
        text[i] = (char)('a' + i * i % 23 % 7);
    const char *config = cli_write("config.json", config_text, sizeof config_text - 1);
    snprintf(common, sizeof common, "experiment --config '%s' --text '%s' --checkpoint-every 20", config,
             cli_write("text", text, sizeof text));
    return 0;
}

static cJSON *read_json(const char *path) {
    char *text;
    size_t size;
    if (cldsa_file_read(path, FILE_LIMIT, &text, &size) != CLDSA_SUCCESS)
        fail_msg("%s", cldsa_error_message());
    cJSON *json = cJSON_Parse(text);
    if (!json)
        fail_msg("%s is no JSON", path);
    free(text);
    return json;
}

static double number(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

static bool is_there(const char *name) {
    return access(cli_path(name), F_OK) == 0;
}

static void forget(const char *name) {
    cli_shell("rm -rf '%s'", cli_path(name));
}

/* ---- the grid and its files ------------------------------------------------------------------------------------ */

static void check_table(const char *path, int num_rows) {
    cJSON *table = read_json(path);
    const cJSON *rows = cJSON_GetObjectItem(table, "rows"), *row;
    assert_int_equal(cJSON_GetArraySize(rows), num_rows);
    cJSON_ArrayForEach(row, rows) {
        const cJSON *loss = cJSON_GetObjectItem(row, "validation_loss");
        double mean = cJSON_IsObject(loss) ? number(loss, "mean") : loss ? loss->valuedouble : NAN;
        assert_true(mean > 0 && mean < 7);
        assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(row, "k")), 2);
    }
    cJSON_Delete(table);
}

static void runs_the_grid(void **state) {
    (void)state;
    cli_run("%s --steps 3 --lengths 8,12 --variants dense,fixed50,adaptive --seeds 1,2 --out '%s'", common,
            cli_path("grid"));
    cli_assert_ok();
    static const char *const cells[] = {"S8-dense-1", "S8-dense-2", "S8-fixed50-1", "S12-adaptive-1", "S12-adaptive-2"};
    for (size_t i = 0; i < sizeof cells / sizeof *cells; ++i) {
        char name[64];
        snprintf(name, sizeof name, "grid/cells/%s/result.json", cells[i]);
        assert_true(is_there(name));
        snprintf(name, sizeof name, "grid/cells/%s/latest", cells[i]);
        assert_false(is_there(name)); /* nothing to continue */
    }
    check_table(cli_path("grid/table.json"), 6);
    char *text;
    size_t size;
    assert_int_equal(cldsa_file_read(cli_path("grid/table.md"), FILE_LIMIT, &text, &size), CLDSA_SUCCESS);
    assert_non_null(strstr(text, "| adaptive"));
    assert_non_null(strstr(cli_result.out, text)); /* what is printed is what is stored */
    free(text);
    assert_int_equal(cldsa_file_read(cli_path("grid/report.html"), FILE_LIMIT, &text, &size), CLDSA_SUCCESS);
    assert_non_null(strstr(text, "<svg"));
    free(text);
    assert_non_null(strstr(cli_result.out, "/grid/report.html"));
}

/* After runs_the_grid. */
static void skips_finished_cells(void **state) {
    (void)state;
    cli_shell("stat -c %%Y.%%i '%s'/grid/cells/*/result.json", cli_directory);
    char *before = strdup(cli_result.out);
    cli_run("%s --steps 3 --lengths 8,12 --variants dense,fixed50,adaptive --seeds 1,2 --out '%s' --json", common,
            cli_path("grid"));
    cli_assert_ok();
    int finished = 0;
    for (const char *at = cli_result.error; (at = strstr(at, "finished before")); ++at)
        ++finished;
    assert_int_equal(finished, 12);
    cJSON *printed = cJSON_Parse(cli_result.out), *stored = read_json(cli_path("grid/table.json"));
    assert_true(cJSON_Compare(printed, stored, true));
    cJSON_Delete(printed);
    cJSON_Delete(stored);
    cli_shell("stat -c %%Y.%%i '%s'/grid/cells/*/result.json", cli_directory);
    assert_string_equal(cli_result.out, before);
    free(before);
}

/* A file may say what the grid decides, as those of cldsa train do; it is not taken in silence. */
static void names_settings_that_are_not_used(void **state) {
    (void)state;
    char text[1024], common_to_these[CLI_COMMAND_SIZE / 4];
    snprintf(text, sizeof text,
             "{\"seq_len\": 48, \"seed\": 1, \"model\": {\"is_causal\": false, \"vocab_size\": 300, %s",
             strstr(config_text, "\"hidden_size"));
    snprintf(common_to_these, sizeof common_to_these,
             "experiment --config '%s' --text '%s' --steps 1 --fresh --out '%s' --variants dense",
             cli_write("overruled.json", text, strlen(text)), cli_path("text"), cli_path("overruled"));
    cli_run("%s --seeds 3", common_to_these);
    cli_assert_ok();
    assert_non_null(strstr(cli_result.error,
                           "overruled.json: not used in an experiment: seq_len 48 (--lengths decides), "
                           "vocab_size 300 (--task decides), is_causal false (--recipe decides)\n"));
    cli_run("%s --lengths 8", common_to_these); /* of the default's seeds none is 1 */
    cli_assert_ok();
    assert_non_null(strstr(cli_result.error, "not used in an experiment: seed 1 (--seeds decides), vocab_size"));
    const char *same = "{\"seed\": 42, \"model\": {\"is_causal\": true, \"vocab_size\": 256, ";
    snprintf(text, sizeof text, "%s%s", same, strstr(config_text, "\"hidden_size"));
    cli_write("overruled.json", text, strlen(text));
    cli_run("%s --lengths 8 --seeds 42", common_to_these);
    cli_assert_ok();
    assert_null(strstr(cli_result.error, "not used"));
    forget("overruled");
}

static void keeps_the_studies_options_apart(void **state) {
    (void)state;
    cli_run("experiment controller --draws 2 --lengths 64");
    cli_assert_error(2, "--lengths is for the grid");
    cli_run("experiment --steps 3 controller");
    cli_assert_error(2, "--steps is for the grid");
    cli_run("%s --draws 3 --out '%s'", common, cli_path("drawn"));
    cli_assert_error(2, "--draws|experiment controller");
    assert_false(is_there("drawn"));
}

/* After runs_the_grid: what is stored came from other settings. */
static void refuses_other_settings(void **state) {
    (void)state;
    cli_run("%s --steps 4 --lengths 8 --variants dense --seeds 1 --out '%s'", common, cli_path("grid"));
    cli_assert_error(2, "S8-dense-1/result.json|steps = 3|has 4|another directory");
    cli_run("%s --steps 3 --lr 0.01 --lengths 8 --variants dense --seeds 1 --out '%s'", common, cli_path("grid"));
    cli_assert_error(2, "S8-dense-1/result.json|lr = 0.003|has 0.01");
    cli_run("%s --steps 4 --lengths 8 --variants dense --seeds 1 --out '%s' --fresh", common, cli_path("grid"));
    cli_assert_ok();
    check_table(cli_path("grid/table.json"), 1);
}

static void refuses_wrong_axes(void **state) {
    (void)state;
    static const struct {
        const char *arguments, *parts;
    } wrong[] = {
        {"--lengths 8,x", "--lengths|x"},
        {"--lengths 8,,12", "--lengths"},
        {"--lengths 1", "--lengths|1"},
        {"--seeds -1", "--seeds|-1"},
        {"--variants dense,fixd25", "fixd25|fixed25"},
        {"--variants fixed0", "fixed0"},
        {"--recipe sed", "--recipe|sed|seed"},
        {"--task recal", "--task|recal|recall"},
        {"--steps 0", "--steps|0"},
        {"--setps 3", "--setps|--steps"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
        cli_run("%s %s --out '%s'", common, wrong[i].arguments, cli_path("wrong"));
        cli_assert_error(2, wrong[i].parts);
        assert_false(is_there("wrong"));
    }
}

/* ---- kill -9 --------------------------------------------------------------------------------------------------- */

static const char *const killed_grid = "--steps 400 --lengths 32 --variants dense,adaptive --seeds 7";

static void pause_briefly(void) {
    nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
}

/*
 * Starts the experiment with these arguments and sends the signal as soon as the file `name` exists and some steps more
 * have gone. Returns the wait status; what it printed on standard error is in the file "log".
 */
static int signal_when(int signal_number, const char *name, const char *arguments) {
    char command[CLI_COMMAND_SIZE];
    snprintf(command, sizeof command, "exec '%s' %s %s >/dev/null 2>'%s'", CLDSA_TEST_CLI, common, arguments,
             cli_path("log"));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    while (!is_there(name))
        if (waitpid(child, &status, WNOHANG) == child)
            fail_msg("the experiment ended before there was %s", name);
        else
            pause_briefly();
    for (int i = 0; i < 20; ++i)
        pause_briefly();
    kill(child, signal_number);
    waitpid(child, &status, 0);
    return status;
}

static void kill_when(const char *name) {
    char arguments[CLI_COMMAND_SIZE / 2];
    snprintf(arguments, sizeof arguments, "%s --out '%s'", killed_grid, cli_path("killed"));
    if (!WIFSIGNALED(signal_when(SIGKILL, name, arguments)))
        fail_msg("the experiment ended before it could be killed at %s", name);
}

static void assert_same_cell(const char *cell) {
    char name[128];
    cJSON *result[2];
    static const char *const runs[] = {"whole", "killed"};
    for (int i = 0; i < 2; ++i) {
        snprintf(name, sizeof name, "%s/cells/%s/result.json", runs[i], cell);
        result[i] = read_json(cli_path(name));
        cJSON_DeleteItemFromObject(result[i], "tokens_per_second");
        cJSON_DeleteItemFromObject(result[i], "seconds");
    }
    if (!cJSON_Compare(result[0], result[1], true))
        fail_msg("the results of %s differ", cell);
    cJSON_Delete(result[0]);
    cJSON_Delete(result[1]);
    cli_shell("cmp '%s/whole/cells/%s/metrics.jsonl' '%s/killed/cells/%s/metrics.jsonl'", cli_directory, cell,
              cli_directory, cell);
    cli_assert_ok();
}

/* Killed in the first cell and, continued, in the second; what comes out is what an undisturbed run gives. */
static void survives_kill_9(void **state) {
    (void)state;
    cli_run("%s %s --out '%s'", common, killed_grid, cli_path("whole"));
    cli_assert_ok();
    kill_when("killed/cells/S32-dense-7/latest");
    assert_false(is_there("killed/cells/S32-dense-7/result.json"));
    kill_when("killed/cells/S32-adaptive-7/latest");
    assert_true(is_there("killed/cells/S32-dense-7/result.json"));
    assert_false(is_there("killed/cells/S32-adaptive-7/result.json"));
    cli_run("%s %s --out '%s'", common, killed_grid, cli_path("killed"));
    cli_assert_ok();
    assert_non_null(strstr(cli_result.error, "S=32 dense seed 7: finished before"));
    assert_same_cell("S32-dense-7");
    assert_same_cell("S32-adaptive-7");
    check_table(cli_path("killed/table.json"), 2);
    cli_shell("find '%s/killed' -name 'checkpoint-*' -o -name 'latest'", cli_directory);
    assert_string_equal(cli_result.out, "");
    forget("killed");
}

/* Ctrl-C: the checkpoint is saved, the message says how to go on, which survives_kill_9 tries. */
static void continues_after_an_interrupt(void **state) {
    (void)state;
    char arguments[CLI_COMMAND_SIZE / 2], *log;
    size_t size;
    snprintf(arguments, sizeof arguments, "--steps 1000000 --lengths 32 --variants dense --seeds 7 --out '%s'",
             cli_path("stopped"));
    int status = signal_when(SIGINT, "stopped/cells/S32-dense-7/metrics.jsonl", arguments);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    assert_int_equal(cldsa_file_read(cli_path("log"), FILE_LIMIT, &log, &size), CLDSA_SUCCESS);
    if (!strstr(log, "stopped after step") || !strstr(log, "continues the experiment"))
        fail_msg("%s", log);
    free(log);
    assert_true(is_there("stopped/cells/S32-dense-7/latest"));
    forget("stopped");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_the_grid),
        cmocka_unit_test(skips_finished_cells),
        cmocka_unit_test(refuses_other_settings),
        cmocka_unit_test(refuses_wrong_axes),
        cmocka_unit_test(survives_kill_9),
        cmocka_unit_test(continues_after_an_interrupt),
        cmocka_unit_test(names_settings_that_are_not_used),
        cmocka_unit_test(keeps_the_studies_options_apart),
    };
    return cmocka_run_group_tests(tests, begin, cli_remove_directory);
}
