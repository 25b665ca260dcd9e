/* cldsa op: one operation on tensors from a file. */
#include "host/cli/op_file.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_LIST = CLI_KEY,
    KEY_DESCRIBE,
    KEY_IN,
    KEY_OUT,
    KEY_SET,
    KEY_BACKWARD,
    KEY_VARIANT,
    KEY_TUNE,
    NAME_SIZE = 96
};

typedef struct op_options {
    const char *device, *name, *in, *out, *variant, *tune;
    bool json, list, describe, backward;
    const char **settings;
    size_t num_settings;
} op_options;

static int take(void *user, int key, const char *value) {
    op_options *options = user;
    switch (key) {
    case CLI_DEVICE:
        options->device = value;
        break;
    case CLI_JSON:
        options->json = true;
        break;
    case KEY_LIST:
        options->list = true;
        break;
    case KEY_DESCRIBE:
        options->describe = true;
        break;
    case KEY_IN:
        options->in = value;
        break;
    case KEY_OUT:
        options->out = value;
        break;
    case KEY_BACKWARD:
        options->backward = true;
        break;
    case KEY_VARIANT:
        options->variant = value;
        break;
    case KEY_TUNE:
        options->tune = value;
        break;
    case KEY_SET:
        options->settings[options->num_settings++] = value;
        break;
    default:
        if (options->name)
            return cli_usage("op: unexpected argument \"%s\" after \"%s\"; see cldsa op --help", value, options->name);
        options->name = value;
    }
    return CLI_GO;
}

/* ---- --list and --describe --------------------------------------------------------------------------------------- */

static const char *kind_name(const cldsa_field *field) {
    static const char *const names[] = {
        "input", "output", "input and output", "int", "int", "uint64", "uint32", "float", "bool", "choice"};
    return names[field->kind];
}

static cJSON *describe_field(const cldsa_op *op, const cldsa_field *field) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "name", field->name);
    cJSON_AddStringToObject(out, "kind", kind_name(field));
    if (cldsa_field_is_tensor(field)) {
        char text[NAME_SIZE];
        op_file_name(op, field, text, sizeof text);
        cJSON_AddStringToObject(out, "file_name", text);
        if (field->shape)
            cJSON_AddStringToObject(out, "shape", field->shape);
        op_file_dtypes(field, text, sizeof text);
        cJSON_AddStringToObject(out, "dtypes", text);
        cJSON_AddBoolToObject(out, "optional", field->optional);
    } else if (field->kind == CLDSA_FIELD_ENUM) {
        cJSON *names = cJSON_AddArrayToObject(out, "values");
        for (int i = 0; field->names[i]; ++i)
            cJSON_AddItemToArray(names, cJSON_CreateString(field->names[i]));
    } else {
        cJSON_AddNumberToObject(out, "default", field->fallback);
        if (field->min < field->max) {
            cJSON_AddNumberToObject(out, "min", field->min);
            cJSON_AddNumberToObject(out, "max", field->max);
        }
    }
    cJSON_AddStringToObject(out, "help", field->help ? field->help : "");
    return out;
}

static cJSON *describe_op(const cldsa_op *op) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "name", op->name);
    cJSON_AddStringToObject(out, "summary", op->summary ? op->summary : "");
    cJSON *variants = cJSON_AddArrayToObject(out, "variants");
    for (int i = 0; op->variants[i]; ++i)
        cJSON_AddItemToArray(variants, cJSON_CreateString(op->variants[i]->name));
    cJSON *fields = cJSON_AddArrayToObject(out, "fields");
    for (const cldsa_field *field = op->fields; field->name; ++field)
        cJSON_AddItemToArray(fields, describe_field(op, field));
    return out;
}

static void print_json(cJSON *value) {
    char *text = cJSON_Print(value);
    printf("%s\n", text ? text : "");
    cJSON_free(text);
    cJSON_Delete(value);
}

static void print_field(const cldsa_op *op, const cldsa_field *field) {
    char where[NAME_SIZE], what[160] = "", text[3][CLDSA_FIELD_VALUE_MAX];
    if (cldsa_field_is_tensor(field)) {
        char dtypes[NAME_SIZE];
        op_file_name(op, field, where, sizeof where);
        op_file_dtypes(field, dtypes, sizeof dtypes);
        snprintf(what, sizeof what, "%s [%s]%s", dtypes, field->shape ? field->shape : "see help",
                 field->optional ? " optional" : "");
    } else {
        snprintf(where, sizeof where, "--set %s", field->name);
        if (field->kind == CLDSA_FIELD_ENUM)
            for (int i = 0; field->names[i]; ++i) {
                size_t used = strlen(what);
                snprintf(what + used, sizeof what - used, "%s%s", i ? " | " : "", field->names[i]);
            }
        else if (field->min < field->max)
            snprintf(what, sizeof what, "%s %s (%s to %s)", kind_name(field),
                     cldsa_field_text(field, field->fallback, text[0]), cldsa_field_text(field, field->min, text[1]),
                     cldsa_field_text(field, field->max, text[2]));
        else
            snprintf(what, sizeof what, "%s %s", kind_name(field), cldsa_field_text(field, field->fallback, text[0]));
    }
    printf("  %-22s %-34s %s\n", where, what, field->help ? field->help : "");
}

static int describe(const cldsa_op *op, bool json) {
    if (json) {
        print_json(describe_op(op));
        return CLI_OK;
    }
    printf("%s: %s\n", op->name, op->summary ? op->summary : "");
    for (const cldsa_field *field = op->fields; field->name; ++field)
        print_field(op, field);
    printf("variants:");
    for (int i = 0; op->variants[i]; ++i)
        printf(" %s", op->variants[i]->name);
    printf("\n");
    return CLI_OK;
}

static int list_ops(bool json) {
    cJSON *all = cJSON_CreateArray();
    for (int i = 0; cldsa_catalogue[i]; ++i) {
        const cldsa_op *op = cldsa_catalogue[i];
        if (json) {
            cJSON_AddItemToArray(all, describe_op(op));
            continue;
        }
        char variants[NAME_SIZE] = "";
        for (int v = 0; op->variants[v]; ++v) {
            size_t used = strlen(variants);
            snprintf(variants + used, sizeof variants - used, "%s%s", v ? " " : "", op->variants[v]->name);
        }
        printf("%-28s %-20s %s\n", op->name, variants, op->summary ? op->summary : "");
    }
    if (json)
        print_json(all);
    else
        cJSON_Delete(all);
    return CLI_OK;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static cldsa_status write_results(const op_file_call *call, const char *path) {
    cldsa_st_entry entries[CLDSA_MAX_FIELDS];
    char names[CLDSA_MAX_FIELDS][NAME_SIZE];
    size_t count = 0;
    for (int i = 0; call->op->fields[i].name; ++i) {
        const cldsa_field *field = &call->op->fields[i];
        if (!call->given[i] || field->kind == CLDSA_FIELD_IN)
            continue;
        const cldsa_tensor *view = cldsa_field_tensor(call->args, field);
        if (field->kind == CLDSA_FIELD_INOUT)
            snprintf(names[count], NAME_SIZE, "out.%s", field->name);
        else
            op_file_name(call->op, field, names[count], NAME_SIZE);
        cldsa_st_entry *entry = &entries[count];
        *entry = (cldsa_st_entry){.name = names[count], .rank = view->rank, .data = call->results[i]};
        for (int d = 0; d < CLDSA_ST_NUM_DTYPES; ++d)
            if (strcmp(cldsa_st_dtype_name((cldsa_st_dtype)d), cldsa_dtype_name(view->dtype)) == 0)
                entry->dtype = (cldsa_st_dtype)d;
        memcpy(entry->shape, view->shape, (size_t)view->rank * sizeof *view->shape);
        ++count;
    }
    return cldsa_safetensors_write(path, entries, count, &(cldsa_st_metadata){"op", call->op->name}, 1);
}

static cldsa_status run_op(const op_options *options, const cldsa_op *op, const cldsa_safetensors *file,
                           const cli_session *session) {
    op_file_call call;
    CLDSA_TRY(op_file_begin(&call, file, op, options->settings, options->num_settings));
    cldsa_status status = cldsa_op_force(session->ctx, op, options->variant, options->tune);
    if (status == CLDSA_SUCCESS)
        status = op_file_run(&call, session);
    if (status == CLDSA_SUCCESS)
        status = write_results(&call, options->out);
    op_file_end(&call);
    return status;
}

static cldsa_status run_on_file(const op_options *options, const cldsa_op *op) {
    cldsa_safetensors *file;
    CLDSA_TRY(cldsa_safetensors_open(options->in, &file));
    cli_session session;
    cldsa_status status = cli_session_open(options->device, false, &session);
    if (status == CLDSA_SUCCESS) {
        status = run_op(options, op, file, &session);
        cli_session_close(&session);
    }
    cldsa_safetensors_close(file);
    return status;
}

static int work(const op_options *options) {
    if (options->list)
        return list_ops(options->json);
    if (!options->name)
        return cli_usage("op: the name of an operation is needed; cldsa op --list shows them");
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%s%s", options->name, options->backward ? "_backward" : "");
    const cldsa_op *op;
    if (cldsa_find_op(name, &op) != CLDSA_SUCCESS) {
        const cldsa_op *forward;
        if (options->backward && cldsa_find_op(options->name, &forward) == CLDSA_SUCCESS)
            return cli_usage("op: %s has no backward form", options->name);
        return cli_usage("%s", cldsa_error_message());
    }
    if (options->describe)
        return describe(op, options->json);
    if (!options->in || !options->out)
        return cli_usage("op %s: %s FILE is needed; see cldsa op --help", name, options->in ? "--out" : "--in");
    return cli_report(run_on_file(options, op));
}

static int run(int argc, char **argv) {
    op_options options = {.settings = calloc((size_t)argc, sizeof *options.settings)};
    if (!options.settings)
        return cli_report(cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %d arguments", argc));
    int code = cli_parse(&cli_op, argc, argv, take, &options);
    if (code == CLI_GO)
        code = work(&options);
    free(options.settings);
    return code;
}

static const cli_option options_table[] = {
    {KEY_IN, "in", "FILE", "safetensors with the inputs \"in.*\"; its metadata \"params\" sets parameters"},
    {KEY_OUT, "out", "FILE", "receives the outputs \"out.*\", or \"grad.*\" of a backward operation"},
    {KEY_SET, "set", "KEY=VALUE", "a parameter, an output's dtype (scores=BF16) or shape, or its extent (K=64)"},
    {KEY_BACKWARD, "backward", NULL, "run the operation's backward form"},
    {KEY_VARIANT, "variant", "NAME", "this kernel variant instead of the one chosen"},
    {KEY_TUNE, "tune", "N=V,...", "with --variant: these tunables instead of the defaults"},
    {KEY_LIST, "list", NULL, "list all operations"},
    {KEY_DESCRIBE, "describe", NULL, "list the operation's tensors and parameters"},
    CLI_OPTION_DEVICE,
    CLI_OPTION_JSON,
    {0},
};

const cli_command cli_op = {
    .name = "op",
    .summary = "Run one operation on tensors from a file",
    .usage = "NAME --in FILE --out FILE [--set KEY=VALUE]... [OPTIONS]\n       cldsa op NAME --describe\n"
             "       cldsa op --list",
    .details = "The outputs computed are those that the input file holds too (as the golden files do); if it holds\n"
               "none, all whose extents are known.",
    .options = options_table,
    .examples = "  cldsa op --list\n  cldsa op topk --describe\n"
                "  cldsa op topk --in scores.safetensors --set k=64 --set K=64 --out selection.safetensors\n"
                "  cldsa op masked_attention --backward --in attention.safetensors --out gradients.safetensors",
    .run = run,
};
