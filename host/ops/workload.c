/* From a few words to an args struct, host tensors and wanted results. */
#include "host/ops/workload.h"
#include "host/ops/fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = CLDSA_WORKLOAD_TEXT };

/* A NaN that no arithmetic produces. */
static const uint64_t untouched_bits = UINT64_C(0x7ff80000deadbeef);

/* ---- reading the texts ----------------------------------------------------------------------------------------- */

/* Next item of a list, trimmed, split at '='; false at the end. */
static bool next_item(const char **at, char separator, char key[TEXT], char value[TEXT]) {
    while (**at == ' ' || **at == separator)
        ++*at;
    if (!**at)
        return false;
    const char *end = strchr(*at, separator);
    size_t length = end ? (size_t)(end - *at) : strlen(*at);
    char item[TEXT];
    snprintf(item, sizeof item, "%.*s", (int)length, *at);
    *at += length;
    while (length && item[length - 1] == ' ')
        item[--length] = '\0';
    char *equals = strchr(item, '=');
    snprintf(value, TEXT, "%s", equals ? equals + 1 + strspn(equals + 1, " ") : "");
    if (equals)
        *equals = '\0';
    snprintf(key, TEXT, "%s", item);
    return true;
}

bool cldsa_workload_option(const char *list, char separator, const char *key, char value[TEXT]) {
    char found[TEXT], content[TEXT];
    for (const char *at = list ? list : ""; next_item(&at, separator, found, content);)
        if (strcmp(found, key) == 0) {
            memcpy(value, content, TEXT);
            return true;
        }
    return false;
}

int cldsa_op_field(const cldsa_op *op, const char *name) {
    for (int i = 0; op->fields[i].name; ++i)
        if (strcmp(op->fields[i].name, name) == 0)
            return i;
    return -1;
}

/* Misspelt names must not silently test or measure less. */
static cldsa_status check_names(const cldsa_op *op, const char *what, const char *list, char separator, bool tensors) {
    char key[TEXT], value[TEXT];
    for (const char *at = list ? list : ""; next_item(&at, separator, key, value);) {
        int field = cldsa_op_field(op, key);
        if (strcmp(key, "*") != 0 && (field < 0 || cldsa_field_is_tensor(&op->fields[field]) != tensors))
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, ".%s names \"%s\", which is no %s of %s", what, key,
                              tensors ? "tensor" : "parameter", op->name);
    }
    return CLDSA_SUCCESS;
}

static cldsa_status check_spec(const cldsa_op *op, const cldsa_workload_spec *spec) {
    CLDSA_TRY(check_names(op, "params", spec->params, ' ', false));
    CLDSA_TRY(check_names(op, "give", spec->give, ' ', true));
    CLDSA_TRY(check_names(op, "dtypes", spec->dtypes, ' ', true));
    CLDSA_TRY(check_names(op, "shapes", spec->shapes, ';', true));
    return check_names(op, "fill", spec->fill, ';', true);
}

bool cldsa_workload_dim(const cldsa_workload *work, const char *name, int64_t *value) {
    char text[TEXT];
    if (!cldsa_workload_option(work->spec.dims, ' ', name, text)) {
        cldsa_fail(CLDSA_INVALID_ARGUMENT, ".dims does not give \"%s\"", name);
        return false;
    }
    *value = strtoll(text, NULL, 10);
    return true;
}

cldsa_status cldsa_workload_operand(const cldsa_workload *work, const char *text, double *value) {
    char *end;
    *value = strtod(text, &end);
    if (end != text && *end == '\0')
        return CLDSA_SUCCESS;
    char name[TEXT];
    int64_t extent;
    size_t length = strcspn(text, "+-");
    snprintf(name, sizeof name, "%.*s", (int)length, text);
    if (!cldsa_workload_dim(work, name, &extent))
        return CLDSA_INVALID_ARGUMENT;
    *value = (double)extent + (text[length] ? strtod(text + length, NULL) : 0);
    return CLDSA_SUCCESS;
}

/* ---- the args struct and host tensors -------------------------------------------------------------------------- */

static void set_unchecked(const cldsa_field *field, void *args, double number) {
    void *place = (char *)args + field->at;
    if (field->kind == CLDSA_FIELD_FLOAT)
        *(float *)place = (float)number;
    else if (field->kind == CLDSA_FIELD_I64)
        *(int64_t *)place = (int64_t)number;
    else
        *(int *)place = (int)number;
}

static cldsa_status set_parameters(cldsa_workload *work) {
    char key[TEXT], value[TEXT];
    for (const char *at = work->spec.params ? work->spec.params : ""; next_item(&at, ' ', key, value);) {
        const cldsa_field *field = &work->op->fields[cldsa_op_field(work->op, key)];
        double number = -1;
        if (field->kind == CLDSA_FIELD_ENUM) {
            for (int i = 0; field->names[i]; ++i)
                if (strcmp(field->names[i], value) == 0)
                    number = i;
        } else {
            CLDSA_TRY(cldsa_workload_operand(work, value, &number));
        }
        cldsa_status status = cldsa_field_set(work->op, field, work->args, number);
        if (status != CLDSA_SUCCESS && !work->spec.unchecked)
            return status;
        if (status != CLDSA_SUCCESS)
            set_unchecked(field, work->args, number);
    }
    return CLDSA_SUCCESS;
}

static cldsa_status choose_dtype(const cldsa_workload *work, const cldsa_field *field, cldsa_dtype *out) {
    static const cldsa_dtype preference[] = {CLDSA_F32, CLDSA_I32, CLDSA_U8, CLDSA_U32, CLDSA_F16, CLDSA_BF16};
    char name[TEXT];
    if (cldsa_workload_option(work->spec.dtypes, ' ', field->name, name)) {
        for (int i = 0; i < CLDSA_NUM_DTYPES; ++i)
            if (strcmp(cldsa_dtype_name((cldsa_dtype)i), name) == 0) {
                *out = (cldsa_dtype)i;
                return CLDSA_SUCCESS;
            }
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "\"%s\" is no dtype (F32 F16 BF16 I32 U8 U32)", name);
    }
    *out = CLDSA_F32;
    for (size_t i = 0; i < sizeof preference / sizeof preference[0]; ++i)
        if (field->dtypes & CLDSA_ACCEPT(preference[i])) {
            *out = preference[i];
            break;
        }
    return CLDSA_SUCCESS;
}

static bool is_given(const cldsa_workload *work, const cldsa_field *field) {
    char value[TEXT];
    return !field->optional || cldsa_workload_option(work->spec.give, ' ', field->name, value) ||
           cldsa_workload_option(work->spec.give, ' ', "*", value);
}

cldsa_status cldsa_workload_shape(const cldsa_workload *work, const char *rule, cldsa_host_tensor *tensor) {
    char words[TEXT], *rest = NULL;
    snprintf(words, sizeof words, "%.*s", (int)strcspn(rule, "|"), rule);
    for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        bool packed = *word == '#';
        double extent;
        word += packed;
        word[strcspn(word, "*")] = '\0';
        CLDSA_TRY(cldsa_workload_operand(work, word, &extent));
        tensor->shape[tensor->rank++] =
            packed && tensor->dtype == CLDSA_U32 ? ((int64_t)extent + 31) / 32 : (int64_t)extent;
    }
    return CLDSA_SUCCESS;
}

/* The first alternative of the table's rule, or the spec's own shape. */
static cldsa_status set_shape(const cldsa_workload *work, const cldsa_field *field, cldsa_host_tensor *tensor) {
    char own[TEXT];
    if (cldsa_workload_option(work->spec.shapes, ';', field->name, own))
        return cldsa_workload_shape(work, own, tensor);
    if (!field->shape)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s has no rule in the table; .shapes must give its shape",
                          field->name);
    return cldsa_workload_shape(work, field->shape, tensor);
}

static cldsa_status make_tensor(cldsa_workload *work, int index) {
    const cldsa_field *field = &work->op->fields[index];
    cldsa_host_tensor *tensor = &work->tensors[index];
    CLDSA_TRY(choose_dtype(work, field, &tensor->dtype));
    CLDSA_TRY(set_shape(work, field, tensor));
    int64_t numel = cldsa_host_numel(tensor);
    if (!work->spec.shapes_only && !(tensor->data = calloc((size_t)(numel > 0 ? numel : 1), sizeof(double))))
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %lld elements of %s", (long long)numel, field->name);
    work->given[index] = true;
    cldsa_tensor *view = cldsa_field_tensor(work->args, field);
    view->dtype = tensor->dtype;
    view->rank = tensor->rank;
    memcpy(view->shape, tensor->shape, sizeof view->shape);
    return CLDSA_SUCCESS;
}

/* Does spec.forward write this tensor? */
static bool from_forward(const cldsa_workload *work, const char *name) {
    const cldsa_op *forward = work->spec.forward;
    int field = forward ? cldsa_op_field(forward, name) : -1;
    return field >= 0 && cldsa_field_is_output(&forward->fields[field]);
}

static cldsa_status make(cldsa_workload *work) {
    CLDSA_TRY(check_spec(work->op, &work->spec));
    work->args = calloc(1, work->op->args_size);
    if (!work->args)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for the arguments of %s", work->op->name);
    cldsa_op_default_args(work->op, work->args);
    CLDSA_TRY(set_parameters(work));
    for (int i = 0; work->op->fields[i].name; ++i, ++work->num_fields)
        if (cldsa_field_is_tensor(&work->op->fields[i]) && is_given(work, &work->op->fields[i]))
            CLDSA_TRY(make_tensor(work, i));
    for (int i = 0; i < work->num_fields && !work->spec.shapes_only; ++i)
        if (work->given[i] && cldsa_field_is_input(&work->op->fields[i]) &&
            !from_forward(work, work->op->fields[i].name))
            CLDSA_TRY(cldsa_workload_fill(work, i));
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_workload_make(const cldsa_op *op, const cldsa_workload_spec *spec, uint64_t seed,
                                 cldsa_workload *work) {
    *work = (cldsa_workload){.op = op, .spec = *spec, .seed = seed};
    cldsa_status status = make(work);
    if (status != CLDSA_SUCCESS)
        cldsa_workload_free(work);
    return status;
}

void cldsa_workload_free(cldsa_workload *work) {
    for (int i = 0; i < CLDSA_MAX_FIELDS; ++i) {
        free(work->tensors[i].data);
        free(work->raw[i]);
        free(work->unrounded[i]);
    }
    free(work->args);
    memset(work, 0, sizeof *work);
}

/* ---- storage and the reference ----------------------------------------------------------------------------------- */

/* Keeps the storage form and makes the host's values equal to it. */
static cldsa_status store(cldsa_workload *work, int index) {
    cldsa_host_tensor *tensor = &work->tensors[index];
    int64_t numel = cldsa_host_numel(tensor);
    free(work->raw[index]);
    work->raw[index] = malloc((size_t)(numel > 0 ? numel : 1) * cldsa_dtype_size(tensor->dtype));
    if (!work->raw[index])
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %lld elements of %s", (long long)numel,
                          work->op->fields[index].name);
    cldsa_pack(tensor->dtype, tensor->data, numel, work->raw[index]);
    cldsa_unpack(tensor->dtype, work->raw[index], numel, tensor->data);
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_workload_store(cldsa_workload *work) {
    for (int i = 0; i < work->num_fields; ++i)
        if (work->given[i] && cldsa_field_is_input(&work->op->fields[i]))
            CLDSA_TRY(store(work, i));
    if (work->spec.unchecked)
        return CLDSA_SUCCESS;
    cldsa_run run = {.op = work->op, .args = work->args};
    CLDSA_TRY(cldsa_bind_args(&run, false));
    memcpy(work->dims, run.dims, sizeof work->dims);
    return CLDSA_SUCCESS;
}

void cldsa_untouch(double *values, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
        memcpy(&values[i], &untouched_bits, sizeof untouched_bits);
}

bool cldsa_is_untouched(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits == untouched_bits;
}

/* The forward's outputs that the operation reads: kept in fp64, then rounded like any input. */
static cldsa_status take_forward_outputs(cldsa_workload *work) {
    cldsa_forward_call call;
    CLDSA_TRY(cldsa_forward_begin(work, &call));
    cldsa_forward_compute(&call);
    cldsa_status status = CLDSA_SUCCESS;
    for (int i = 0; call.op->fields[i].name && status == CLDSA_SUCCESS; ++i) {
        int same = cldsa_op_field(work->op, call.op->fields[i].name);
        if (!call.owned[i] || same < 0 || !work->given[same] || !cldsa_field_is_input(&work->op->fields[same]))
            continue;
        size_t bytes = (size_t)cldsa_host_numel(&call.tensors[i]) * sizeof(double);
        work->unrounded[same] = malloc(bytes);
        if (!work->unrounded[same]) {
            status = cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for %zu bytes of %s", bytes, call.op->fields[i].name);
            break;
        }
        memcpy(work->unrounded[same], call.tensors[i].data, bytes);
        memcpy(work->tensors[same].data, call.tensors[i].data, bytes);
        status = store(work, same);
    }
    cldsa_forward_end(&call);
    return status;
}

cldsa_status cldsa_workload_reference(cldsa_workload *work) {
    if (!work->op->reference)
        return cldsa_fail(CLDSA_UNSUPPORTED, "%s has no reference", work->op->name);
    if (work->spec.forward)
        CLDSA_TRY(take_forward_outputs(work));
    for (int i = 0; i < work->num_fields; ++i)
        if (work->given[i] && work->op->fields[i].kind == CLDSA_FIELD_OUT)
            cldsa_untouch(work->tensors[i].data, cldsa_host_numel(&work->tensors[i]));
    work->op->reference(&(cldsa_reference_call){work->args, work->dims, work->tensors});
    return CLDSA_SUCCESS;
}
