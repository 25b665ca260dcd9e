/* The field tables at work: defaults, parameter ranges, shape rules. */
#include "host/ops/fields.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void cldsa_op_default_args(const cldsa_op *op, void *args) {
    memset(args, 0, op->args_size);
    for (const cldsa_field *field = op->fields; field->name; ++field)
        if (!cldsa_field_is_tensor(field) && field->kind != CLDSA_FIELD_ENUM)
            cldsa_field_set(op, field, args, field->fallback);
}

double cldsa_field_get(const cldsa_field *field, const void *args) {
    const void *at = (const char *)args + field->at;
    switch (field->kind) {
    case CLDSA_FIELD_INT:
    case CLDSA_FIELD_ENUM:
        return *(const int *)at;
    case CLDSA_FIELD_I64:
        return (double)*(const int64_t *)at;
    case CLDSA_FIELD_U64:
        return (double)*(const uint64_t *)at;
    case CLDSA_FIELD_U32:
        return *(const uint32_t *)at;
    case CLDSA_FIELD_FLOAT:
        return *(const float *)at;
    case CLDSA_FIELD_BOOL:
        return *(const bool *)at;
    default:
        return 0;
    }
}

static int num_names(const cldsa_field *field) {
    int count = 0;
    while (field->names[count])
        ++count;
    return count;
}

const char *cldsa_field_text(const cldsa_field *field, double value, char text[CLDSA_FIELD_VALUE_MAX]) {
    bool whole = field->kind != CLDSA_FIELD_FLOAT && value == floor(value) && fabs(value) < 1e19;
    snprintf(text, CLDSA_FIELD_VALUE_MAX, whole ? "%.0f" : "%g", value);
    return text;
}

/* Parameters are checked at each call too, so that a caller's typo never reaches a kernel. */
static cldsa_status check_value(const cldsa_op *op, const cldsa_field *field, double value) {
    if (field->kind == CLDSA_FIELD_ENUM) {
        int count = num_names(field);
        if (!(value >= 0 && value < count))
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is %g; it must be 0 (%s) to %d (%s)", op->name,
                              field->name, value, field->names[0], count - 1, field->names[count - 1]);
        return CLDSA_SUCCESS;
    }
    if (field->min < field->max && !(value >= field->min && value <= field->max)) {
        char text[3][CLDSA_FIELD_VALUE_MAX];
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is %s; it must be %s to %s", op->name, field->name,
                          cldsa_field_text(field, value, text[0]), cldsa_field_text(field, field->min, text[1]),
                          cldsa_field_text(field, field->max, text[2]));
    }
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_field_set(const cldsa_op *op, const cldsa_field *field, void *args, double value) {
    CLDSA_TRY(check_value(op, field, value));
    void *at = (char *)args + field->at;
    switch (field->kind) {
    case CLDSA_FIELD_INT:
    case CLDSA_FIELD_ENUM:
        *(int *)at = (int)value;
        break;
    case CLDSA_FIELD_I64:
        *(int64_t *)at = (int64_t)value;
        break;
    case CLDSA_FIELD_U64:
        *(uint64_t *)at = (uint64_t)value;
        break;
    case CLDSA_FIELD_U32:
        *(uint32_t *)at = (uint32_t)value;
        break;
    case CLDSA_FIELD_FLOAT:
        *(float *)at = (float)value;
        break;
    case CLDSA_FIELD_BOOL:
        *(bool *)at = value != 0;
        break;
    default:
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %s is a tensor, not a parameter", op->name, field->name);
    }
    return CLDSA_SUCCESS;
}

int cldsa_op_dim(const cldsa_op *op, const char *name, size_t length) {
    for (int i = 0; op->dims[i]; ++i)
        if (strlen(op->dims[i]) == length && memcmp(op->dims[i], name, length) == 0)
            return i;
    return -1;
}

/* What one token of a rule says about an extent. */
static bool match_extent(const cldsa_op *op, const char *token, size_t length, cldsa_dtype dtype, int64_t extent,
                         int64_t *dims, unsigned *bound) {
    if (*token >= '0' && *token <= '9') {
        int64_t number = 0;
        for (size_t i = 0; i < length; ++i)
            number = number * 10 + (token[i] - '0');
        return extent == number;
    }
    bool packed = *token == '#';
    int dim = cldsa_op_dim(op, token + packed, length - packed);
    if (dim < 0)
        return false;
    if (packed && dtype == CLDSA_U32) /* the unpacked extent must be bound before */
        return (*bound & (1u << dim)) && extent == (dims[dim] + 31) / 32;
    if (*bound & (1u << dim))
        return dims[dim] == extent;
    dims[dim] = extent;
    *bound |= 1u << dim;
    return true;
}

/* One alternative of a rule against one tensor; dims and bound change only if it matches. */
static bool match_rule(const cldsa_op *op, const char *rule, const char *end, const cldsa_tensor *tensor, int64_t *dims,
                       unsigned *bound) {
    int64_t new_dims[CLDSA_MAX_DIMS];
    unsigned new_bound = *bound;
    memcpy(new_dims, dims, sizeof new_dims);
    int num_tokens = 0;
    for (const char *p = rule; p < end; ++p)
        num_tokens += *p != ' ' && (p == rule || p[-1] == ' ');
    int axis = 0;
    for (const char *p = rule; p < end;) {
        size_t length = strcspn(p, " |");
        bool leading = length > 1 && p[length - 1] == '*';
        if (leading) {
            int taken = tensor->rank - (num_tokens - 1);
            if (taken < 1)
                return false;
            int64_t product = 1;
            for (; axis < taken; ++axis)
                product *= tensor->shape[axis];
            if (!match_extent(op, p, length - 1, tensor->dtype, product, new_dims, &new_bound))
                return false;
        } else if (axis >= tensor->rank ||
                   !match_extent(op, p, length, tensor->dtype, tensor->shape[axis++], new_dims, &new_bound)) {
            return false;
        }
        p += length;
        p += strspn(p, " ");
    }
    if (axis != tensor->rank)
        return false;
    memcpy(dims, new_dims, sizeof new_dims);
    *bound = new_bound;
    return true;
}

static void format_shape(const cldsa_tensor *tensor, char *text, size_t size) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < tensor->rank && used < size; ++i)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? "," : "", (long long)tensor->shape[i]);
}

static cldsa_status shape_error(const cldsa_op *op, const cldsa_field *field, const cldsa_tensor *tensor,
                                const int64_t *dims, unsigned bound) {
    char shape[128], known[256] = "";
    format_shape(tensor, shape, sizeof shape);
    for (int i = 0, used = 0; op->dims[i] && used < (int)sizeof known; ++i)
        if (bound & (1u << i))
            used += snprintf(known + used, sizeof known - (size_t)used, "%s%s=%lld", used ? ", " : "", op->dims[i],
                             (long long)dims[i]);
    return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: %s has shape [%s]; it must be [%s]%s%s", op->name, field->name, shape,
                      field->shape, *known ? " with " : "", known);
}

cldsa_status cldsa_bind_tensor(const cldsa_op *op, const cldsa_field *field, const cldsa_tensor *tensor, int64_t *dims,
                               unsigned *bound) {
    if (tensor->rank < 0 || tensor->rank > CLDSA_MAX_RANK)
        return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: %s has rank %d; it must be 0 to %d", op->name, field->name,
                          tensor->rank, CLDSA_MAX_RANK);
    for (int i = 0; i < tensor->rank; ++i)
        if (tensor->shape[i] < 1)
            return cldsa_fail(CLDSA_INVALID_SHAPE, "%s: extent %d of %s is %lld; it must be at least 1", op->name, i,
                              field->name, (long long)tensor->shape[i]);
    for (const char *rule = field->shape; rule;) {
        const char *end = rule + strcspn(rule, "|");
        if (match_rule(op, rule, end, tensor, dims, bound))
            return CLDSA_SUCCESS;
        rule = *end ? end + 1 : NULL;
    }
    return field->shape ? shape_error(op, field, tensor, dims, *bound) : CLDSA_SUCCESS;
}

static cldsa_status check_dtype(const cldsa_op *op, const cldsa_field *field, const cldsa_tensor *tensor) {
    if ((unsigned)tensor->dtype < CLDSA_NUM_DTYPES && (field->dtypes & CLDSA_ACCEPT(tensor->dtype)))
        return CLDSA_SUCCESS;
    char accepted[64] = "";
    for (int i = 0, used = 0; i < CLDSA_NUM_DTYPES; ++i)
        if (field->dtypes & CLDSA_ACCEPT(i))
            used += snprintf(accepted + used, sizeof accepted - (size_t)used, "%s%s", used ? ", " : "",
                             cldsa_dtype_name((cldsa_dtype)i));
    return cldsa_fail(CLDSA_INVALID_DTYPE, "%s: %s is %s; it must be %s", op->name, field->name,
                      cldsa_dtype_name(tensor->dtype), accepted);
}

static cldsa_status check_extent(const cldsa_op *op, const cldsa_field *field, const cldsa_tensor *tensor) {
    size_t bytes = 0, element = cldsa_dtype_size(tensor->dtype);
    cl_int code = clGetMemObjectInfo(tensor->mem, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    if (code)
        return cldsa_fail(code, "%s: %s is not a valid buffer", op->name, field->name);
    size_t numel = 1, limit = bytes / element;
    for (int i = 0; i < tensor->rank; ++i)
        if (__builtin_mul_overflow(numel, (size_t)tensor->shape[i], &numel))
            numel = SIZE_MAX;
    if (tensor->offset > limit || numel > limit - tensor->offset)
        return cldsa_fail(CLDSA_BUFFER_TOO_SMALL, "%s: %s needs %zu elements from offset %zu, its buffer holds %zu",
                          op->name, field->name, numel, tensor->offset, limit);
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_bind_args(cldsa_run *run, bool check_buffers) {
    const cldsa_op *op = run->op;
    unsigned bound = 0;
    for (const cldsa_field *field = op->fields; field->name; ++field) {
        if (!cldsa_field_is_tensor(field)) {
            CLDSA_TRY(check_value(op, field, cldsa_field_get(field, run->args)));
            continue;
        }
        const cldsa_tensor *tensor = (const cldsa_tensor *)((const char *)run->args + field->at);
        if (!tensor->mem && check_buffers) {
            if (!field->optional)
                return cldsa_fail(CLDSA_MISSING_TENSOR, "%s: %s has no buffer; it is required", op->name, field->name);
            continue;
        }
        if (!check_buffers && tensor->rank == 0 && field->optional) /* planning without buffers: not given */
            continue;
        CLDSA_TRY(check_dtype(op, field, tensor));
        CLDSA_TRY(cldsa_bind_tensor(op, field, tensor, run->dims, &bound));
        if (check_buffers)
            CLDSA_TRY(check_extent(op, field, tensor));
    }
    return op->bind ? op->bind(run) : CLDSA_SUCCESS;
}
