#include "host/cli/op_file.h"

#include "host/io/json.h"
#include "host/ops/fields.h"
#include "host/ops/host_tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 96, ORDINARY_EXTENT = 64 };

static const char BACKWARD[] = "_backward";

/* ---- names --------------------------------------------------------------------------------------------------- */

/* Where the golden files' names are older than the operations' own. */
static const struct {
    const char *op, *field, *name;
} aliases[] = {
    {"topk", "k_rows", "in.k"},
    {"sparse_attention", "k", "in.kv"},
    {"sparse_attention_backward", "k", "in.kv"},
    {"sparse_attention_backward", "dk", "grad.kv"},
    {"sparse_attention_backward", "dsink", "grad.attn_sink"},
    {"indexer_scores_backward", "dscores", "in.dI"},
};

/* Parameters of golden files that say how they were made and are no parameters of the operation. */
static const char *const descriptive[] = {"mask", "reduction"};

static bool is_backward(const cldsa_op *op) {
    size_t length = strlen(op->name), suffix = sizeof BACKWARD - 1;
    return length > suffix && strcmp(op->name + length - suffix, BACKWARD) == 0;
}

static int field_index(const cldsa_op *op, const char *name) {
    for (int i = 0; op->fields[i].name; ++i)
        if (strcmp(op->fields[i].name, name) == 0)
            return i;
    return -1;
}

void op_file_name(const cldsa_op *op, const cldsa_field *field, char *name, size_t size) {
    bool output = field->kind == CLDSA_FIELD_OUT;
    if (output && is_backward(op) && field->name[0] == 'd')
        snprintf(name, size, "grad.%s", field->name + 1);
    else
        snprintf(name, size, "%s.%s", output ? "out" : "in", field->name);
}

/* Under the operation's own name, an older one, or for a backward operation among the forward's outputs. */
static const cldsa_st_tensor *find_source(const cldsa_safetensors *file, const cldsa_op *op, const cldsa_field *field) {
    char name[NAME_SIZE];
    op_file_name(op, field, name, sizeof name);
    const cldsa_st_tensor *found = cldsa_safetensors_find(file, name);
    for (size_t i = 0; !found && i < sizeof aliases / sizeof aliases[0]; ++i)
        if (strcmp(aliases[i].op, op->name) == 0 && strcmp(aliases[i].field, field->name) == 0)
            found = cldsa_safetensors_find(file, aliases[i].name);
    if (!found && field->grad)
        found = cldsa_safetensors_find(file, field->grad);
    if (!found && is_backward(op) && field->kind == CLDSA_FIELD_IN) {
        snprintf(name, sizeof name, "out.%s", field->name);
        found = cldsa_safetensors_find(file, name);
    }
    return found;
}

static cldsa_status missing(const op_file_call *call, const cldsa_safetensors *file, const cldsa_field *field) {
    char name[NAME_SIZE];
    const cldsa_st_tensor *unused;
    op_file_name(call->op, field, name, sizeof name);
    return cldsa_safetensors_get(file, name, &unused);
}

/* Does the operation, or its partner in the other direction, read this tensor of the file? */
static bool is_read(const cldsa_safetensors *file, const cldsa_op *op, const cldsa_st_tensor *tensor) {
    for (int i = 0; op->fields[i].name; ++i)
        if (cldsa_field_is_tensor(&op->fields[i]) && find_source(file, op, &op->fields[i]) == tensor)
            return true;
    return false;
}

static const cldsa_op *partner(const cldsa_op *op) {
    char name[NAME_SIZE];
    const cldsa_op *found = NULL;
    snprintf(name, sizeof name, "%s%s", op->name, BACKWARD);
    if (is_backward(op))
        name[strlen(op->name) - (sizeof BACKWARD - 1)] = '\0';
    for (int i = 0; cldsa_catalogue[i]; ++i)
        if (strcmp(cldsa_catalogue[i]->name, name) == 0)
            found = cldsa_catalogue[i];
    return found;
}

/* Names the nearest known one, or all where none is near. */
static cldsa_status unknown_name(const op_file_call *call, const char *source, const char *what, const char *name,
                                 const char *const *names, size_t count) {
    char known[1024] = "";
    const char *near = cldsa_nearest_name(name, names, count);
    for (size_t i = 0; i < count && !near; ++i) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", names[i]);
    }
    return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s has no %s \"%.100s\"; %s%s%s", source, call->op->name, what, name,
                      near ? "did you mean \"" : "it has ", near ? near : known, near ? "\"?" : "");
}

/* A misspelt optional input must not be left out in silence. */
static cldsa_status check_unread(const op_file_call *call, const cldsa_safetensors *file) {
    const cldsa_op *other = partner(call->op);
    for (size_t i = 0; i < cldsa_safetensors_count(file); ++i) {
        const cldsa_st_tensor *tensor = cldsa_safetensors_at(file, i);
        bool upstream = strncmp(tensor->name, "in.d", 4) == 0; /* of a backward form that need not exist */
        if (strncmp(tensor->name, "in.", 3) != 0 || is_read(file, call->op, tensor) ||
            (other ? is_read(file, other, tensor) : upstream))
            continue;
        const char *names[CLDSA_MAX_FIELDS];
        size_t count = 0;
        for (int f = 0; call->op->fields[f].name; ++f)
            if (call->op->fields[f].kind != CLDSA_FIELD_OUT && cldsa_field_is_tensor(&call->op->fields[f]))
                names[count++] = call->op->fields[f].name;
        return unknown_name(call, call->path, "input", tensor->name + 3, names, count);
    }
    return CLDSA_SUCCESS;
}

/* ---- parameters ---------------------------------------------------------------------------------------------- */

static cldsa_status unknown_key(const op_file_call *call, const char *source, const char *key) {
    const char *names[CLDSA_MAX_FIELDS + CLDSA_MAX_DIMS];
    size_t count = 0;
    for (int i = 0; call->op->fields[i].name; ++i)
        if (!cldsa_field_is_tensor(&call->op->fields[i]))
            names[count++] = call->op->fields[i].name;
    for (int i = 0; call->op->fields[i].name; ++i)
        if (call->op->fields[i].kind == CLDSA_FIELD_OUT)
            names[count++] = call->op->fields[i].name;
    return unknown_name(call, source, "parameter", key, names, count);
}

static cldsa_status set_enum(op_file_call *call, const char *source, const cldsa_field *field, const char *text) {
    /* "range" is the golden files' word for ranges given per row. */
    const char *wanted = strcmp(field->name, "range") == 0 && strcmp(text, "range") == 0 ? "rows" : text;
    char choices[256] = "";
    for (int i = 0; field->names[i]; ++i) {
        if (strcmp(field->names[i], wanted) == 0)
            return cldsa_field_set(call->op, field, call->args, i);
        size_t used = strlen(choices);
        snprintf(choices + used, sizeof choices - used, "%s%s", i ? ", " : "", field->names[i]);
    }
    return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is \"%s\"; it must be one of %s", source, field->name, text,
                      choices);
}

static cldsa_status set_number(op_file_call *call, const char *source, const cldsa_field *field, double value) {
    if (field->kind != CLDSA_FIELD_FLOAT && value != floor(value))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is %g; it must be a whole number", source, field->name,
                          value);
    return cldsa_field_set(call->op, field, call->args, value);
}

static cldsa_status set_from_json(op_file_call *call, const cJSON *item) {
    for (size_t i = 0; i < sizeof descriptive / sizeof descriptive[0]; ++i)
        if (strcmp(item->string, descriptive[i]) == 0)
            return CLDSA_SUCCESS;
    int index = field_index(call->op, item->string);
    if (index < 0 || cldsa_field_is_tensor(&call->op->fields[index])) {
        const cldsa_op *other = partner(call->op);
        return other && field_index(other, item->string) >= 0 ? CLDSA_SUCCESS
                                                              : unknown_key(call, call->path, item->string);
    }
    const cldsa_field *field = &call->op->fields[index];
    if (field->kind == CLDSA_FIELD_ENUM && cJSON_IsString(item))
        return set_enum(call, call->path, field, item->valuestring);
    if (cJSON_IsBool(item))
        return set_number(call, call->path, field, cJSON_IsTrue(item));
    if (cJSON_IsNumber(item))
        return set_number(call, call->path, field, item->valuedouble);
    char *value = cJSON_PrintUnformatted(item);
    cldsa_status status =
        cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: params: %s is %.100s; it must be a %s", call->path, field->name,
                   value ? value : "?", field->kind == CLDSA_FIELD_ENUM ? "string" : "number");
    cJSON_free(value);
    return status;
}

static cldsa_status set_from_metadata(op_file_call *call, const cldsa_safetensors *file) {
    const char *text = cldsa_safetensors_metadata(file, "params");
    if (!text)
        return CLDSA_SUCCESS;
    char source[512];
    snprintf(source, sizeof source, "%s: params", call->path);
    cJSON *params;
    CLDSA_TRY(cldsa_json_parse(source, text, strlen(text), &params));
    cldsa_status status = CLDSA_SUCCESS;
    const cJSON *item;
    cJSON_ArrayForEach(item, params) {
        if (status == CLDSA_SUCCESS)
            status = set_from_json(call, item);
    }
    cJSON_Delete(params);
    return status;
}

/* "BF16" or "64x32" for an output. */
static cldsa_status set_output(op_file_call *call, int index, const char *value) {
    const cldsa_field *field = &call->op->fields[index];
    cldsa_tensor *view = cldsa_field_tensor(call->args, field);
    for (int i = 0; i < CLDSA_NUM_DTYPES; ++i)
        if (strcmp(value, cldsa_dtype_name((cldsa_dtype)i)) == 0) {
            view->dtype = (cldsa_dtype)i;
            call->given[index] = true;
            return CLDSA_SUCCESS;
        }
    view->rank = 0;
    for (const char *at = value; view->rank < CLDSA_MAX_RANK;) {
        char *end;
        view->shape[view->rank++] = strtoll(at, &end, 10);
        if (end == at || view->shape[view->rank - 1] < 1 || (*end && *end != 'x'))
            break;
        if (!*end) {
            call->given[index] = true;
            return CLDSA_SUCCESS;
        }
        at = end + 1;
    }
    return cldsa_fail(CLDSA_INVALID_ARGUMENT,
                      "--set %s=%s: an output takes a dtype (F32, F16, BF16, I32, U8, U32) or a shape like 64x32",
                      field->name, value);
}

static cldsa_status apply_setting(op_file_call *call, const char *setting) {
    char key[NAME_SIZE];
    size_t length = strcspn(setting, "=");
    if (setting[length] != '=' || length >= sizeof key)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "--set \"%s\": key=value is needed", setting);
    snprintf(key, sizeof key, "%.*s", (int)length, setting);
    const char *value = setting + length + 1;
    char *end;
    double number = strtod(value, &end);
    bool numeric = end != value && !*end;
    int index = field_index(call->op, key), dim = cldsa_op_dim(call->op, key, length);
    if (index < 0 && dim >= 0 && numeric && number >= 1 && number == floor(number)) {
        call->dims[dim] = (int64_t)number;
        return CLDSA_SUCCESS;
    }
    if (index < 0)
        return dim >= 0 ? cldsa_fail(CLDSA_INVALID_ARGUMENT, "--set %s: an extent is a whole number from 1", setting)
                        : unknown_key(call, "--set", key);
    const cldsa_field *field = &call->op->fields[index];
    if (field->kind == CLDSA_FIELD_OUT)
        return set_output(call, index, value);
    if (cldsa_field_is_tensor(field))
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "--set %s: %s is an input; it comes from the file", setting, key);
    if (field->kind == CLDSA_FIELD_ENUM)
        return set_enum(call, "--set", field, value);
    if (field->kind == CLDSA_FIELD_BOOL && (strcmp(value, "true") == 0 || strcmp(value, "false") == 0))
        return set_number(call, "--set", field, *value == 't');
    if (!numeric)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "--set %s: a number is needed", setting);
    return set_number(call, "--set", field, number);
}

/* ---- shapes -------------------------------------------------------------------------------------------------- */

void op_file_dtypes(const cldsa_field *field, char *text, size_t size) {
    *text = '\0';
    for (int i = 0; i < CLDSA_NUM_DTYPES; ++i)
        if (field->dtypes & CLDSA_ACCEPT(i)) {
            size_t used = strlen(text);
            snprintf(text + used, size - used, "%s%s", used ? "," : "", cldsa_dtype_name((cldsa_dtype)i));
        }
}

/* The file's own dtype where the operation takes it, else the plainest that it does. */
static cldsa_dtype accepted_dtype(const cldsa_field *field, const cldsa_st_tensor *tensor) {
    static const cldsa_dtype preference[] = {CLDSA_F32, CLDSA_I32, CLDSA_U8, CLDSA_U32, CLDSA_F16, CLDSA_BF16};
    for (int i = 0; tensor && i < CLDSA_NUM_DTYPES; ++i)
        if ((field->dtypes & CLDSA_ACCEPT(i)) &&
            strcmp(cldsa_dtype_name((cldsa_dtype)i), cldsa_st_dtype_name(tensor->dtype)) == 0)
            return (cldsa_dtype)i;
    for (size_t i = 0; i < sizeof preference / sizeof preference[0]; ++i)
        if (field->dtypes & CLDSA_ACCEPT(preference[i]))
            return preference[i];
    return CLDSA_F32;
}

/* Other widths are converted; whole numbers where the operation takes fractions, or the reverse, are a mistake. */
static cldsa_status check_kind(const op_file_call *call, const cldsa_field *field, const cldsa_st_tensor *tensor) {
    const char *name = cldsa_st_dtype_name(tensor->dtype);
    bool is_float = name[0] == 'F' || strcmp(name, "BF16") == 0;
    char accepted[NAME_SIZE];
    if (is_float == ((field->dtypes & CLDSA_ACCEPT_FLOAT) != 0))
        return CLDSA_SUCCESS;
    op_file_dtypes(field, accepted, sizeof accepted);
    return cldsa_fail(CLDSA_INVALID_DTYPE, "%s: tensor \"%s\" is %s; %s takes %s there", call->path, tensor->name, name,
                      call->op->name, accepted);
}

static cldsa_status take_shape(op_file_call *call, int index, const cldsa_st_tensor *tensor) {
    const cldsa_field *field = &call->op->fields[index];
    CLDSA_TRY(check_kind(call, field, tensor));
    if (tensor->rank > CLDSA_MAX_RANK)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: tensor \"%s\" has rank %d; at most %d is supported", call->path,
                          tensor->name, tensor->rank, CLDSA_MAX_RANK);
    cldsa_tensor *view = cldsa_field_tensor(call->args, field);
    view->dtype = accepted_dtype(field, tensor);
    view->rank = tensor->rank;
    memcpy(view->shape, tensor->shape, (size_t)tensor->rank * sizeof *view->shape);
    call->given[index] = true;
    return CLDSA_SUCCESS;
}

static cldsa_status take_inputs(op_file_call *call, const cldsa_safetensors *file, unsigned *bound) {
    for (int i = 0; call->op->fields[i].name; ++i) {
        const cldsa_field *field = &call->op->fields[i];
        if (!cldsa_field_is_tensor(field) || field->kind == CLDSA_FIELD_OUT)
            continue;
        call->source[i] = find_source(file, call->op, field);
        if (!call->source[i]) {
            if (!field->optional)
                return missing(call, file, field);
            continue;
        }
        CLDSA_TRY(take_shape(call, i, call->source[i]));
        cldsa_status status =
            cldsa_bind_tensor(call->op, field, cldsa_field_tensor(call->args, field), call->dims, bound);
        if (status != CLDSA_SUCCESS)
            return cldsa_fail_prefix(status, "%s", call->path);
    }
    return CLDSA_SUCCESS;
}

/* Leading extents "R*" of an input, to give the output the same; [R] if there is none. */
static void leading_extents(const op_file_call *call, const char *word, size_t length, int64_t extent,
                            cldsa_tensor *view) {
    for (int i = 0; call->op->fields[i].name; ++i) {
        const cldsa_field *field = &call->op->fields[i];
        if (!call->source[i] || !field->shape || strncmp(field->shape, word, length) != 0)
            continue;
        int trailing = 0;
        for (const char *at = field->shape; *at && *at != '|'; ++at)
            trailing += *at == ' ';
        const cldsa_tensor *input = cldsa_field_tensor(call->args, field);
        for (int d = 0; d < input->rank - trailing; ++d)
            view->shape[view->rank++] = input->shape[d];
        return;
    }
    view->shape[view->rank++] = extent;
}

/* The first alternative of a rule all of whose dimensions are known; false if there is none. */
static bool shape_from_rule(const op_file_call *call, const char *rule, cldsa_tensor *view) {
    while (rule) {
        const char *end = rule + strcspn(rule, "|");
        view->rank = 0;
        bool known = true;
        for (const char *at = rule; at < end && known;) {
            bool packed = *at == '#';
            const char *word = at + packed;
            size_t length = strcspn(word, " |"), name = strcspn(word, " |*");
            int dim = cldsa_op_dim(call->op, word, name);
            int64_t extent = dim >= 0 ? call->dims[dim] : strtoll(word, NULL, 10);
            known = extent > 0 && view->rank < CLDSA_MAX_RANK;
            if (known && name < length)
                leading_extents(call, at, length, extent, view);
            else if (known)
                view->shape[view->rank++] = packed && view->dtype == CLDSA_U32 ? cldsa_ceil_div(extent, 32) : extent;
            at = word + length;
            at += strspn(at, " ");
        }
        if (known && view->rank)
            return true;
        rule = *end ? end + 1 : NULL;
    }
    view->rank = 0;
    return false;
}

/* A gradient dX has the shape of X, and exists only if X was given. */
static int gradient_input(const cldsa_op *op, const cldsa_field *field) {
    int index = is_backward(op) && field->name[0] == 'd' ? field_index(op, field->name + 1) : -1;
    return index >= 0 && op->fields[index].kind == CLDSA_FIELD_IN ? index : -1;
}

static bool derive_output(op_file_call *call, int index) {
    const cldsa_field *field = &call->op->fields[index];
    cldsa_tensor *view = cldsa_field_tensor(call->args, field);
    if (!call->given[index])
        view->dtype = accepted_dtype(field, NULL);
    else if (view->rank)
        return true;
    int input = gradient_input(call->op, field);
    if (input >= 0) {
        const cldsa_tensor *like = cldsa_field_tensor(call->args, &call->op->fields[input]);
        view->rank = like->rank;
        memcpy(view->shape, like->shape, sizeof view->shape);
        return call->given[input];
    }
    return field->shape && shape_from_rule(call, field->shape, view);
}

static cldsa_status take_outputs(op_file_call *call, const cldsa_safetensors *file) {
    bool any = false;
    for (int i = 0; call->op->fields[i].name; ++i)
        if (call->op->fields[i].kind == CLDSA_FIELD_OUT) {
            call->want[i] = find_source(file, call->op, &call->op->fields[i]);
            any |= call->want[i] != NULL;
        }
    for (int i = 0; call->op->fields[i].name; ++i) {
        const cldsa_field *field = &call->op->fields[i];
        if (field->kind != CLDSA_FIELD_OUT)
            continue;
        cldsa_tensor *view = cldsa_field_tensor(call->args, field);
        if (call->want[i]) {
            cldsa_dtype set = view->dtype;
            bool was_set = call->given[i];
            CLDSA_TRY(take_shape(call, i, call->want[i]));
            view->dtype = was_set ? set : view->dtype;
        } else if (!field->optional || call->given[i] || !any) {
            bool asked = call->given[i];
            call->given[i] = derive_output(call, i);
            if (!call->given[i] && (asked || !field->optional))
                return cldsa_fail(
                    CLDSA_INVALID_ARGUMENT,
                    "%s: the extents of output %s [%s] are not known from the inputs; give them with --set", call->path,
                    field->name, field->shape ? field->shape : "free");
        }
    }
    return CLDSA_SUCCESS;
}

cldsa_status op_file_begin(op_file_call *call, const cldsa_safetensors *file, const cldsa_op *op,
                           const char *const *settings, size_t num_settings) {
    *call = (op_file_call){.op = op, .path = cldsa_safetensors_path(file), .args = calloc(1, op->args_size)};
    if (!call->args)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for a call of %s", op->name);
    cldsa_op_default_args(op, call->args);
    unsigned bound = 0;
    cldsa_status status = set_from_metadata(call, file);
    if (status == CLDSA_SUCCESS)
        status = check_unread(call, file);
    if (status == CLDSA_SUCCESS)
        status = take_inputs(call, file, &bound);
    for (size_t i = 0; status == CLDSA_SUCCESS && i < num_settings; ++i)
        status = apply_setting(call, settings[i]);
    if (status == CLDSA_SUCCESS)
        status = take_outputs(call, file);
    if (status != CLDSA_SUCCESS)
        op_file_end(call);
    return status;
}

void op_file_end(op_file_call *call) {
    for (int i = 0; i < CLDSA_MAX_FIELDS; ++i) {
        if (call->buffers[i])
            clReleaseMemObject(call->buffers[i]);
        free(call->results[i]);
    }
    free(call->args);
    *call = (op_file_call){0};
}

/* ---- running --------------------------------------------------------------------------------------------------- */

/* The file's values in the call's storage dtype. */
static cldsa_status convert(const op_file_call *call, const cldsa_st_tensor *tensor, cldsa_dtype dtype, void *raw) {
    if (strcmp(cldsa_dtype_name(dtype), cldsa_st_dtype_name(tensor->dtype)) == 0) {
        memcpy(raw, tensor->data, tensor->bytes);
        return CLDSA_SUCCESS;
    }
    for (int64_t i = 0; i < tensor->numel; ++i) {
        double value = cldsa_st_value(tensor, i);
        if (dtype == CLDSA_U8) /* a mask: anything but 0 is on */
            value = value != 0;
        else if (dtype == CLDSA_I32 && !(value >= INT32_MIN && value <= INT32_MAX && value == floor(value)))
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: tensor \"%s\" holds %g; I32 is needed there", call->path,
                              tensor->name, value);
        cldsa_pack(dtype, &value, 1, (char *)raw + (size_t)i * cldsa_dtype_size(dtype));
    }
    return CLDSA_SUCCESS;
}

/* Outputs start as NaNs, so that a place left unwritten shows. */
static cldsa_status make_buffers(op_file_call *call, const cli_session *session) {
    for (int i = 0; call->op->fields[i].name; ++i) {
        if (!call->given[i] || call->buffers[i])
            continue;
        cldsa_tensor *view = cldsa_field_tensor(call->args, &call->op->fields[i]);
        size_t bytes = (size_t)cldsa_tensor_numel(view) * cldsa_dtype_size(view->dtype);
        if (!bytes)
            return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: %s has an extent of 0; it must be at least 1", call->path,
                              call->op->fields[i].name);
        call->results[i] = malloc(bytes);
        if (!call->results[i])
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for %s (%zu bytes)", call->path,
                              call->op->fields[i].name, bytes);
        memset(call->results[i], 0xff, bytes);
        if (call->source[i])
            CLDSA_TRY(convert(call, call->source[i], view->dtype, call->results[i]));
        cl_int code;
        call->buffers[i] =
            clCreateBuffer(session->context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, bytes, call->results[i], &code);
        if (code)
            return cldsa_fail(code, "%s: %s (%zu bytes) does not fit the device: %s", call->path,
                              call->op->fields[i].name, bytes, cldsa_status_text(code));
        view->mem = call->buffers[i];
    }
    return CLDSA_SUCCESS;
}

static cldsa_status read_results(op_file_call *call, const cli_session *session) {
    for (int i = 0; call->op->fields[i].name; ++i) {
        if (!call->given[i] || call->op->fields[i].kind == CLDSA_FIELD_IN)
            continue;
        const cldsa_tensor *view = cldsa_field_tensor(call->args, &call->op->fields[i]);
        size_t bytes = (size_t)cldsa_tensor_numel(view) * cldsa_dtype_size(view->dtype);
        cl_int code =
            clEnqueueReadBuffer(session->queue, call->buffers[i], CL_TRUE, 0, bytes, call->results[i], 0, NULL, NULL);
        if (code)
            return cldsa_fail(code, "%s: reading %s back: %s", call->op->name, call->op->fields[i].name,
                              cldsa_status_text(code));
    }
    return CLDSA_SUCCESS;
}

cldsa_status op_file_run(op_file_call *call, const cli_session *session) {
    CLDSA_TRY(make_buffers(call, session));
    size_t bytes = 0;
    CLDSA_TRY(cldsa_op_workspace(session->ctx, call->op, call->args, &bytes, NULL));
    cl_mem workspace = NULL;
    cl_int code = CL_SUCCESS;
    if (bytes)
        workspace = clCreateBuffer(session->context, CL_MEM_READ_WRITE, bytes, NULL, &code);
    if (code)
        return cldsa_fail(code, "%s: workspace of %zu bytes: %s", call->op->name, bytes, cldsa_status_text(code));
    cldsa_status status =
        cldsa_op_enqueue(session->ctx, call->op, call->args,
                         &(cldsa_call){.queue = session->queue, .workspace = workspace, .workspace_bytes = bytes});
    if (status == CLDSA_SUCCESS)
        status = read_results(call, session);
    if (workspace)
        clReleaseMemObject(workspace);
    return status;
}

/* ---- which variants ---------------------------------------------------------------------------------------------- */

bool op_variant_can_run(cldsa_context *ctx, const cldsa_op *op, const cldsa_variant *variant) {
    if (!variant->can_run)
        return true;
    op_file_call call = {.op = op, .args = calloc(1, op->args_size)};
    if (!call.args)
        return false;
    cldsa_op_default_args(op, call.args);
    for (int i = 0; op->dims[i]; ++i)
        call.dims[i] = ORDINARY_EXTENT;
    for (int i = 0; op->fields[i].name; ++i) {
        const cldsa_field *field = &op->fields[i];
        if (!cldsa_field_is_tensor(field) || field->optional)
            continue;
        cldsa_tensor *view = cldsa_field_tensor(call.args, field);
        view->dtype = accepted_dtype(field, NULL);
        if (!field->shape || !shape_from_rule(&call, field->shape, view))
            *view = (cldsa_tensor){.dtype = view->dtype, .rank = 2, .shape = {ORDINARY_EXTENT, ORDINARY_EXTENT}};
    }
    cldsa_run run = {.ctx = ctx, .op = op, .variant = variant, .args = call.args};
    memcpy(run.dims, call.dims, sizeof run.dims);
    bool can = variant->can_run(&run);
    free(call.args);
    return can;
}
