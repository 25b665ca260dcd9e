/* A call's place in the tuning database: params and dtypes. */
#include "host/ops/tuning_database.h"

#include <stdio.h>
#include <string.h>

/* ---- params and dtypes ----------------------------------------------------------------------------------------- */

static bool is_flag(const cldsa_field *field) {
    return field->kind == CLDSA_FIELD_ENUM || field->kind == CLDSA_FIELD_BOOL;
}

/* Required, and of more than one float dtype. */
static bool is_typed(const cldsa_field *field) {
    unsigned floats = field->dtypes & CLDSA_ACCEPT_FLOAT;
    return cldsa_field_is_tensor(field) && !field->optional && (floats & (floats - 1)) != 0;
}

int tuning_traits(const cldsa_run *run, unsigned char traits[CLDSA_MAX_FIELDS]) {
    int count = 0;
    for (const cldsa_field *field = run->op->fields; field->name; ++field) {
        const void *at = (const char *)run->args + field->at;
        if (is_flag(field))
            traits[count++] = (unsigned char)cldsa_field_get(field, run->args);
        else if (is_typed(field))
            traits[count++] = (unsigned char)((const cldsa_tensor *)at)->dtype;
    }
    return count;
}

static void append(char *text, size_t size, const char *name, const char *value) {
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s%s%s%s", used ? "," : "", name, *name ? "=" : "", value);
}

void cldsa_tuning_params(const cldsa_run *run, char *text, size_t size) {
    *text = '\0';
    for (const cldsa_field *field = run->op->fields; field->name; ++field) {
        int value = is_flag(field) ? (int)cldsa_field_get(field, run->args) : 0;
        if (field->kind == CLDSA_FIELD_ENUM)
            append(text, size, field->name, field->names[value]);
        else if (is_flag(field))
            append(text, size, field->name, value ? "1" : "0");
    }
}

void cldsa_tuning_dtypes(const cldsa_run *run, char *text, size_t size) {
    *text = '\0';
    for (const cldsa_field *field = run->op->fields; field->name; ++field)
        if (is_typed(field))
            append(text, size, "",
                   cldsa_dtype_name(((const cldsa_tensor *)((const char *)run->args + field->at))->dtype));
}

/* The value of "name=value" among others, copied; false if it is not there. */
static bool find_param(const char *params, const char *name, char value[64]) {
    for (size_t length = strlen(name); *params; params += strcspn(params, ","), params += *params == ',')
        if (strncmp(params, name, length) == 0 && params[length] == '=') {
            const char *from = params + length + 1;
            snprintf(value, 64, "%.*s", (int)strcspn(from, ","), from);
            return true;
        }
    return false;
}

/* Flags that the text does not name, because they are newer than it, have their default. */
static bool parse_flag(const cldsa_field *field, const char *params, unsigned char *trait) {
    char value[64];
    *trait = field->kind == CLDSA_FIELD_BOOL && field->fallback != 0;
    if (!find_param(params, field->name, value))
        return true;
    if (field->kind == CLDSA_FIELD_BOOL) {
        *trait = value[0] == '1';
        return strcmp(value, "0") == 0 || strcmp(value, "1") == 0;
    }
    for (int i = 0; field->names[i]; ++i)
        if (strcmp(field->names[i], value) == 0) {
            *trait = (unsigned char)i;
            return true;
        }
    return false;
}

static bool parse_dtype(const char **dtypes, unsigned char *trait) {
    size_t length = strcspn(*dtypes, ",");
    for (int d = 0; d < CLDSA_NUM_DTYPES; ++d) {
        const char *name = cldsa_dtype_name((cldsa_dtype)d);
        if (strlen(name) == length && memcmp(name, *dtypes, length) == 0) {
            *trait = (unsigned char)d;
            *dtypes += length + ((*dtypes)[length] == ',');
            return true;
        }
    }
    return false;
}

bool tuning_parse_traits(const cldsa_op *op, const char *params, const char *dtypes,
                         unsigned char traits[CLDSA_MAX_FIELDS]) {
    int count = 0;
    for (const cldsa_field *field = op->fields; field->name; ++field)
        if (is_flag(field) ? !parse_flag(field, params, &traits[count++])
                           : is_typed(field) && !parse_dtype(&dtypes, &traits[count++]))
            return false;
    return *dtypes == '\0';
}
