/* cldsa bench: how fast, how right, and against whom. */
#include "bench/end_to_end.h"
#include "bench/peak.h"
#include "bench/schema.h"
#include "host/cli/bench_options.h"
#include "host/io/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CPU_STEPS = 20, GPU_STEPS = 200 };

/* One run of the command: what was asked, and what came of it so far. */
typedef struct bench_run {
    bench_cli_options options;
    cli_session session;
    const bench_preset *preset; /* of ops */
    bench_peaks peaks;
    cJSON *system, *rows, *crossovers;
    bool failed;                   /* some row is an error */
    char partial[BENCH_PATH_SIZE]; /* what is measured so far; "" without --out */
} bench_run;

static bool asks_for(const bench_run *run, bench_suite suite) {
    return run->options.suite == (int)suite || run->options.suite == SUITE_ALL;
}

/* ---- the result -------------------------------------------------------------------------------------------------- */

static cJSON *run_json(const bench_run *run) {
    const bench_cli_options *options = &run->options;
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "suite", bench_suite_names[options->suite]);
    if (asks_for(run, SUITE_OPS))
        cJSON_AddStringToObject(out, "preset", run->preset->name);
    if (*options->extents)
        cJSON_AddStringToObject(out, "extents", options->extents);
    cJSON_AddNumberToObject(out, "budget", options->budget);
    cJSON_AddBoolToObject(out, "peers", options->peers);
    cJSON_AddBoolToObject(out, "gain", options->gain);
    return out;
}

/* What was asked, on what it was measured, and the rows so far. */
static cJSON *document_json(const bench_run *run) {
    cJSON *document = cJSON_CreateObject();
    bench_system_finish(run->system, &run->peaks);
    cJSON_AddNumberToObject(document, "schema", BENCH_SCHEMA);
    cJSON_AddItemToObject(document, "run", run_json(run));
    cJSON_AddItemReferenceToObject(document, "system", run->system);
    cJSON_AddItemReferenceToObject(document, "rows", run->rows);
    cJSON_AddItemReferenceToObject(document, "crossovers", run->crossovers);
    return document;
}

/* Finds out before anything is measured whether the result can be written. */
static int begin_results(bench_run *run) {
    const char *out = run->options.out;
    cldsa_file_writer writer;
    if (!out)
        return CLI_GO;
    if (snprintf(run->partial, sizeof run->partial, "%s.partial", out) >= (int)sizeof run->partial)
        return cli_usage("--out %.60s...: the path is too long", out);
    cldsa_status status = cldsa_file_begin(&writer, out);
    if (status != CLDSA_SUCCESS)
        return cli_report(status);
    cldsa_file_end(&writer, CLDSA_INTERRUPTED);
    return CLI_GO;
}

/*
 * A run of hours may be killed or lose its device: every row is in a file at once. That of --out stays what it was
 * until the new one is complete.
 */
static void keep_row(bench_run *run, bench_status status, cJSON *row) {
    run->failed |= status == BENCH_ERROR;
    cJSON_AddItemToArray(run->rows, row);
    if (!*run->partial)
        return;
    cJSON *document = document_json(run);
    if (cldsa_json_write(run->partial, document) != CLDSA_SUCCESS) {
        fprintf(stderr, "cldsa: %s; rows are written at the end only\n", cldsa_error_message());
        *run->partial = '\0';
    }
    cJSON_Delete(document);
}

static int write_results(const bench_run *run) {
    const bench_cli_options *options = &run->options;
    cJSON *document = document_json(run);
    cldsa_status status = options->out ? cldsa_json_write(options->out, document) : CLDSA_SUCCESS;
    if (status == CLDSA_SUCCESS && *run->partial)
        remove(run->partial);
    if (options->json) { /* in one line, which another process can read */
        char *text = cJSON_PrintUnformatted(document);
        printf("%s\n", text ? text : "");
        cJSON_free(text);
    }
    cJSON_Delete(document);
    return status == CLDSA_SUCCESS ? CLI_GO : cli_report(status);
}

/* ---- the suites -------------------------------------------------------------------------------------------------- */

static void show_peak(void *user, const bench_peak_row *row) {
    bench_run *run = user;
    if (!run->options.json)
        bench_peak_row_print(row);
    keep_row(run, row->status, bench_peak_row_json(row));
}

/* Whole where it is a suite, else only what the other rows' roofline needs. */
static int run_peaks(bench_run *run) {
    bool whole = asks_for(run, SUITE_PEAK);
    if (whole && !run->options.json)
        bench_peak_head();
    const bench_peak_options options = {.whole = whole, .row = whole ? show_peak : NULL, .user = run};
    cldsa_status status = bench_peaks_measure(run->session.ctx, &options, &run->peaks);
    return status == CLDSA_SUCCESS ? CLI_GO : cli_report(status);
}

static void show_op(void *user, const bench_op_row *row) {
    bench_run *run = user;
    if (!run->options.json)
        bench_op_row_print(row);
    keep_row(run, row->status, bench_op_row_json(row));
}

static bench_ops_options ops_options(bench_run *run) {
    const bench_cli_options *options = &run->options;
    return (bench_ops_options){.ops = options->ops,
                               .num_ops = options->num_ops,
                               .preset = run->preset,
                               .extents = *options->extents ? options->extents : NULL,
                               .variant = options->variant,
                               .tunables = options->tune,
                               .budget = options->budget,
                               .profile = options->profile,
                               .gain = options->gain,
                               .peaks = &run->peaks,
                               .peers = options->peers ? &options->paths : NULL,
                               .row = show_op,
                               .user = run};
}

static int run_ops(bench_run *run) {
    const bench_ops_options suite = ops_options(run);
    if (!run->options.json)
        bench_ops_head();
    cldsa_status status = bench_ops(run->session.ctx, &suite);
    return status == CLDSA_SUCCESS ? CLI_GO : cli_report(status);
}

/* What the operations are measured with. */
static int find_calls(bench_run *run, bool is_cpu) {
    if (bench_find_preset(run->options.preset, is_cpu, &run->preset) != CLDSA_SUCCESS)
        return cli_usage("%s", cldsa_error_message());
    const bench_ops_options suite = ops_options(run);
    if (asks_for(run, SUITE_OPS) && bench_ops_check(&suite) != CLDSA_SUCCESS)
        return cli_usage("--extents: %s", cldsa_error_message());
    return CLI_GO;
}

static void show_cell(bench_run *run, bench_train_row *row) {
    if (!run->options.json)
        bench_train_row_print(row);
    keep_row(run, row->status, bench_train_row_json(row));
    bench_train_row_free(row);
}

static int run_train(bench_run *run) {
    const bench_cli_options *options = &run->options;
    bool is_cpu = cldsa_context_capabilities(run->session.ctx)->is_cpu;
    int64_t steps = options->steps ? options->steps : is_cpu ? CPU_STEPS : GPU_STEPS;
    if (!options->json)
        bench_train_head();
    for (int i = 0; i < options->num_lengths * options->num_variants; ++i) {
        bench_train_row row;
        bench_train_options cell = {.device = options->device,
                                    .length = (int)options->lengths[i / options->num_variants],
                                    .variant = options->variants[i % options->num_variants],
                                    .batch = (int)options->batch,
                                    .steps = (int)steps,
                                    .profile = options->profile,
                                    .peers = options->peers ? &options->paths : NULL};
        if (options->here)
            bench_train_here(run->session.ctx, run->session.queue, &cell, &row);
        else
            bench_train(&cell, &row);
        show_cell(run, &row);
    }
    return CLI_GO;
}

static void show_end(void *user, const bench_end_row *row) {
    bench_run *run = user;
    if (!run->options.json)
        bench_end_row_print(row);
    keep_row(run, row->status, bench_end_row_json(row));
}

static int run_end_to_end(bench_run *run) {
    const bench_cli_options *options = &run->options;
    const bench_end_options suite = {
        .most_keys = options->most_keys, .budget = options->budget, .row = show_end, .user = run};
    bench_crossover crossovers[BENCH_END_MODES];
    if (!options->json)
        bench_end_head();
    cldsa_status status = bench_end_to_end(run->session.ctx, &suite, crossovers);
    for (int i = 0; i < BENCH_END_MODES && status == CLDSA_SUCCESS; ++i) {
        if (!options->json)
            bench_crossover_print(&crossovers[i]);
        cJSON_AddItemToArray(run->crossovers, bench_crossover_json(&crossovers[i]));
    }
    return status == CLDSA_SUCCESS ? CLI_GO : cli_report(status);
}

static int work(bench_run *run) {
    const bench_cli_options *options = &run->options;
    int code = CLI_GO;
    if (!options->json)
        printf("%s / %s, driver %s\n", run->session.info.platform_name, run->session.info.name,
               run->session.info.driver);
    if (asks_for(run, SUITE_PEAK) || asks_for(run, SUITE_OPS))
        code = run_peaks(run);
    if (asks_for(run, SUITE_OPS) && code == CLI_GO)
        code = run_ops(run);
    if (asks_for(run, SUITE_END_TO_END) && code == CLI_GO)
        code = run_end_to_end(run);
    if (asks_for(run, SUITE_TRAIN) && code == CLI_GO)
        code = run_train(run);
    if (code == CLI_GO)
        return write_results(run);
    if (*run->partial && cJSON_GetArraySize(run->rows))
        fprintf(stderr, "cldsa: what was measured until then is in %s\n", run->partial);
    return code;
}

static int open_and_work(bench_run *run) {
    const bench_cli_options *options = &run->options;
    bool profiling = options->profile && options->here && asks_for(run, SUITE_TRAIN);
    cldsa_status status = cli_session_open(options->device, profiling, &run->session);
    if (status != CLDSA_SUCCESS)
        return cli_report(status);
    bool is_cpu = cldsa_context_capabilities(run->session.ctx)->is_cpu;
    int code = find_calls(run, is_cpu);
    run->system = bench_system_json(run->session.ctx);
    run->rows = cJSON_CreateArray();
    run->crossovers = cJSON_CreateArray();
    if (code == CLI_GO)
        code = begin_results(run);
    if (code == CLI_GO)
        code = work(run);
    cJSON_Delete(run->system);
    cJSON_Delete(run->rows);
    cJSON_Delete(run->crossovers);
    bench_peaks_free(&run->peaks);
    cli_session_close(&run->session);
    return code != CLI_GO ? code : run->failed ? CLI_FAILED : CLI_OK;
}

static int run_bench(int argc, char **argv) {
    bench_run run = {.rows = NULL};
    int code = bench_options_read(&cli_bench, argc, argv, &run.options);
    if (code == CLI_GO)
        code = open_and_work(&run);
    bench_options_free(&run.options);
    return code;
}

const cli_command cli_bench = {
    .name = "bench",
    .summary = "Measure the device, operations and training, beside peers",
    .usage = "peak [OPTIONS]\n       cldsa bench ops [OP...] [OPTIONS]\n       cldsa bench train [OPTIONS]\n"
             "       cldsa bench end-to-end [OPTIONS]\n"
             "       cldsa bench all [OPTIONS]",
    .details =
        "peak shows what the device reaches: arithmetic, memory by the size of what is touched, launches,\n"
        "transfers. It is the roofline of ops: `roof %` is the least time that the device could take, by what\n"
        "limits it (compute, memory or launch), in percent of the measured one.\n\n"
        "end-to-end times select and sparse_attention together against dense attention, context by context, and\n"
        "says from which length on sparsity pays.\n\n"
        "Times are medians with the 10th and 90th percentile: device events on GPUs, wall time on CPUs. Every\n"
        "operation is compared with its fp64 reference in the same run, with the variant and tunables that are\n"
        "timed; `error` is the worst difference in units of what is allowed. A wrong result has no time.",
    .options = bench_options_table,
    .examples = "  cldsa bench peak\n  cldsa bench ops --preset experiment\n  cldsa bench end-to-end --keys 8192\n  "
                "cldsa bench ops gemm topk --peers --python venv/bin/python\n"
                "  cldsa bench train --lengths 64,256 --variants dense,adaptive --profile\n"
                "  cldsa bench all --device gpu --peers --out h200.json",
    .run = run_bench,
};
