/* cldsa check: golden files through the device, every kernel variant that can run. */
#include "host/cli/check.h"

#include "host/cli/op_file.h"
#include "host/nn/check.h"
#include "host/ops/host_tensor.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reports --------------------------------------------------------------------------------------------------- */

cldsa_status check_add(check_report *report, const char *what, const char *tensor, double error, double ratio) {
    if (report->count == report->capacity) {
        size_t capacity = report->capacity ? 2 * report->capacity : 16;
        check_row *rows = realloc(report->rows, capacity * sizeof *rows);
        if (!rows)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %zu rows of a report", capacity);
        report->rows = rows;
        report->capacity = capacity;
    }
    check_row *row = &report->rows[report->count++];
    *row = (check_row){.error = error, .ratio = ratio};
    snprintf(row->what, sizeof row->what, "%s", what);
    snprintf(row->tensor, sizeof row->tensor, "%s", tensor);
    return CLDSA_SUCCESS;
}

cldsa_status check_compare(check_report *report, const char *what, const cldsa_st_tensor *want, const float *got,
                           double abs, double rel) {
    const cldsa_op tolerance = {.tolerance_abs = abs, .tolerance_rel = rel};
    double error = 0, ratio = 0;
    for (int64_t i = 0; i < want->numel; ++i) {
        double value = cldsa_st_value(want, i), part = cldsa_error(&tolerance, CLDSA_F32, got[i], value, 1);
        ratio = fmax(ratio, part);
        error = fmax(error, part == 0 ? 0 : isfinite(part) ? fabs(got[i] - value) : INFINITY);
    }
    return check_add(report, what, want->name, error, ratio);
}

bool check_passed(const check_report *report) {
    for (size_t i = 0; i < report->count; ++i)
        if (!(report->rows[i].ratio <= 1))
            return false;
    return report->count > 0;
}

void check_release(check_report *report) {
    free(report->rows);
    *report = (check_report){0};
}

/* ---- operations ------------------------------------------------------------------------------------------------ */

static cldsa_status compare_output(const op_file_call *call, int field, const char *label, check_report *report) {
    const cldsa_st_tensor *want = call->want[field];
    const cldsa_tensor *view = cldsa_field_tensor(call->args, &call->op->fields[field]);
    double error = 0, ratio = 0;
    for (int64_t i = 0; i < want->numel; ++i) {
        double got, value = cldsa_st_value(want, i);
        cldsa_unpack(view->dtype, (const char *)call->results[field] + (size_t)i * cldsa_dtype_size(view->dtype), 1,
                     &got);
        double part = cldsa_error(call->op, view->dtype, got, value, 1);
        ratio = fmax(ratio, part);
        error = fmax(error, part == 0 ? 0 : isfinite(got) && isfinite(value) ? fabs(got - value) : INFINITY);
    }
    return check_add(report, label, want->name, error, ratio);
}

/* `variant` NULL is the choice that a caller gets. */
static cldsa_status check_variant(op_file_call *call, const cli_session *session, const cldsa_variant *variant,
                                  check_report *report) {
    CLDSA_TRY(cldsa_op_force(session->ctx, call->op, variant ? variant->name : NULL, NULL));
    cldsa_status status = op_file_run(call, session);
    cldsa_op_force(session->ctx, call->op, NULL, NULL);
    if (variant && status == CLDSA_UNSUPPORTED) /* it says itself that it cannot run this */
        return CLDSA_SUCCESS;
    CLDSA_TRY(status);
    char label[64];
    snprintf(label, sizeof label, "%s/%s", call->op->name, variant ? variant->name : "default");
    for (int i = 0; call->op->fields[i].name; ++i)
        if (call->want[i])
            CLDSA_TRY(compare_output(call, i, label, report));
    return CLDSA_SUCCESS;
}

static cldsa_status check_op(const cldsa_safetensors *file, const cli_session *session, const cldsa_op *op,
                             check_report *report) {
    op_file_call call;
    CLDSA_TRY(op_file_begin(&call, file, op, NULL, 0));
    cldsa_status status = check_variant(&call, session, NULL, report);
    for (int i = 0; status == CLDSA_SUCCESS && op->variants[i]; ++i)
        status = check_variant(&call, session, op->variants[i], report);
    op_file_end(&call);
    return status;
}

static const cldsa_op *op_by_name(const char *name) {
    for (int i = 0; cldsa_catalogue[i]; ++i)
        if (strcmp(cldsa_catalogue[i]->name, name) == 0)
            return cldsa_catalogue[i];
    return NULL;
}

static bool has_gradients(const cldsa_safetensors *file) {
    for (size_t i = 0; i < cldsa_safetensors_count(file); ++i)
        if (strncmp(cldsa_safetensors_at(file, i)->name, "grad.", 5) == 0)
            return true;
    return false;
}

/* Forward, and backward where the file has gradients. */
static cldsa_status check_operation(const cldsa_safetensors *file, const cli_session *session, check_report *report) {
    const char *name = cldsa_safetensors_metadata(file, "op");
    const cldsa_op *op = op_by_name(name);
    if (!op) {
        snprintf(report->unsupported, sizeof report->unsupported, "there is no operation \"%.80s\"", name);
        return CLDSA_SUCCESS;
    }
    CLDSA_TRY(check_op(file, session, op, report));
    if (!has_gradients(file))
        return CLDSA_SUCCESS;
    char backward[96];
    snprintf(backward, sizeof backward, "%s_backward", name);
    op = op_by_name(backward);
    if (!op) {
        snprintf(report->unsupported, sizeof report->unsupported, "there is no operation \"%.80s\"", backward);
        return CLDSA_SUCCESS;
    }
    return check_op(file, session, op, report);
}

/* ---- models and the controller ----------------------------------------------------------------------------------- */

static cldsa_status check_network(const cldsa_safetensors *file, const cli_session *session, check_report *report) {
    cldsa_check_report found = {0};
    cldsa_status status = cldsa_check_golden(session->ctx, session->queue, file, &found);
    const char *what = cldsa_safetensors_metadata(file, "op");
    for (size_t i = 0; i < found.count && status == CLDSA_SUCCESS; ++i)
        status = check_add(report, what, found.rows[i].name, found.rows[i].worst_abs, found.rows[i].error);
    cldsa_check_report_free(&found);
    return status;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* What is no single operation has its own checker, by the metadata's "op". */
static const struct {
    const char *op;
    check_fn check;
} checkers[] = {
    {"model", check_network},
    {"controller", check_network},
    {NULL, check_operation}, /* everything else; last */
};

cldsa_status check_file(const char *path, const cli_session *session, check_report *report) {
    *report = (check_report){0};
    cldsa_safetensors *file;
    CLDSA_TRY(cldsa_safetensors_open(path, &file));
    const char *op = cldsa_safetensors_metadata(file, "op");
    cldsa_status status;
    if (op) {
        size_t which = 0;
        while (checkers[which].op && strcmp(checkers[which].op, op) != 0)
            ++which;
        status = checkers[which].check(file, session, report);
    } else {
        status =
            cldsa_fail(CLDSA_INVALID_FILE, "%s: its metadata has no \"op\"; a golden file says what it holds", path);
    }
    cldsa_safetensors_close(file);
    return status;
}

/* ---- the subcommand -------------------------------------------------------------------------------------------- */

typedef struct check_options {
    const char *device;
    bool json;
    const char **paths;
    size_t num_paths;
} check_options;

static int take(void *user, int key, const char *value) {
    check_options *options = user;
    if (key == CLI_DEVICE)
        options->device = value;
    else if (key == CLI_JSON)
        options->json = true;
    else
        options->paths[options->num_paths++] = value;
    return CLI_GO;
}

static const char *verdict(const check_report *report) {
    if (*report->unsupported && (report->count == 0 || check_passed(report)))
        return "unsupported";
    return check_passed(report) ? "ok" : "FAILED";
}

static void print_report(const char *path, const check_report *report) {
    printf("%s: %s%s%s\n", path, verdict(report), *report->unsupported ? "; " : "", report->unsupported);
    for (size_t i = 0; i < report->count; ++i) {
        const check_row *row = &report->rows[i];
        printf("  %-36s %-24s error %-10.3g %8.3f of allowed  %s\n", row->what, row->tensor, row->error, row->ratio,
               row->ratio <= 1 ? "ok" : "FAILED");
    }
}

/* JSON has no infinity: such an error becomes null. */
static void add_number(cJSON *object, const char *key, double value) {
    cJSON_AddItemToObject(object, key, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull());
}

static cJSON *json_report(const char *path, const check_report *report) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "file", path);
    cJSON_AddStringToObject(out, "result", verdict(report));
    if (*report->unsupported)
        cJSON_AddStringToObject(out, "reason", report->unsupported);
    cJSON *rows = cJSON_AddArrayToObject(out, "tensors");
    for (size_t i = 0; i < report->count; ++i) {
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "what", report->rows[i].what);
        cJSON_AddStringToObject(row, "tensor", report->rows[i].tensor);
        add_number(row, "error", report->rows[i].error);
        add_number(row, "of_allowed", report->rows[i].ratio);
        cJSON_AddBoolToObject(row, "ok", report->rows[i].ratio <= 1);
        cJSON_AddItemToArray(rows, row);
    }
    return out;
}

/* All files are looked at, whatever becomes of one; the worst outcome is the exit code. */
static int check_files(const check_options *options, const cli_session *session) {
    size_t passed = 0, failed = 0, unsupported = 0;
    int code = CLI_OK;
    cJSON *all = options->json ? cJSON_CreateArray() : NULL;
    for (size_t i = 0; i < options->num_paths; ++i) {
        check_report report;
        cldsa_status status = check_file(options->paths[i], session, &report);
        if (status != CLDSA_SUCCESS) {
            int failure = cli_report(status);
            code = failure > code ? failure : code;
            ++failed;
        } else if (strcmp(verdict(&report), "unsupported") == 0) {
            ++unsupported;
        } else if (check_passed(&report)) {
            ++passed;
        } else {
            ++failed;
            code = code == CLI_OK ? CLI_FAILED : code;
        }
        if (status == CLDSA_SUCCESS && options->json)
            cJSON_AddItemToArray(all, json_report(options->paths[i], &report));
        else if (status == CLDSA_SUCCESS)
            print_report(options->paths[i], &report);
        check_release(&report);
    }
    if (options->json) {
        char *text = cJSON_Print(all);
        printf("%s\n", text ? text : "");
        cJSON_free(text);
        cJSON_Delete(all);
    } else {
        printf("%s: %zu ok, %zu failed, %zu unsupported\n", session->info.name, passed, failed, unsupported);
    }
    return code;
}

static int run(int argc, char **argv) {
    check_options options = {.paths = calloc((size_t)argc, sizeof *options.paths)};
    if (!options.paths)
        return cli_report(cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %d arguments", argc));
    int code = cli_parse(&cli_check, argc, argv, take, &options);
    if (code == CLI_GO && options.num_paths == 0)
        code = cli_usage("check: a file is needed; see cldsa check --help");
    if (code == CLI_GO) {
        cli_session session;
        cldsa_status status = cli_session_open(options.device, false, &session);
        code = status == CLDSA_SUCCESS ? check_files(&options, &session) : cli_report(status);
        if (status == CLDSA_SUCCESS)
            cli_session_close(&session);
    }
    free(options.paths);
    return code;
}

static const cli_option options_table[] = {CLI_OPTION_DEVICE, CLI_OPTION_JSON, {0}};

const cli_command cli_check = {
    .name = "check",
    .summary = "Run golden files through the device and compare with the values they hold",
    .usage = "FILE... [--device DEVICE] [--json]",
    .details = "Each file's metadata say what it holds: an operation (every kernel variant that can run is checked,\n"
               "and the backward operation if the file has gradients), the sparsity controller, or a whole model.\n"
               "For each tensor the largest error is printed, also as a part of what is allowed. Files of which\n"
               "nothing here computes the content are reported as unsupported.",
    .options = options_table,
    .examples = "  cldsa check tests/data/*.safetensors\n  cldsa check --device gpu --json topk.ties.safetensors",
    .run = run,
};
