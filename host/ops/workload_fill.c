/* Values for a workload's inputs, reproducible from its seed and the field. */
#include "host/ops/philox.h"
#include "host/ops/workload.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PAIR_STREAM = 500, MAX_OPERANDS = 3 };

static uint32_t word(const cldsa_workload *work, uint32_t stream, uint64_t e) {
    return cldsa_philox_element(e, stream, work->seed);
}

double cldsa_workload_uniform(const cldsa_workload *work, uint32_t stream, uint64_t e) {
    return word(work, stream, e) / 4294967296.0;
}

/* Box-Muller on two words. */
double cldsa_workload_normal(const cldsa_workload *work, uint32_t stream, uint64_t e) {
    double radius = (word(work, stream, 2 * e) + 1.0) / 4294967296.0;
    return sqrt(-2 * log(radius)) * cos(6.283185307179586 * cldsa_workload_uniform(work, stream, 2 * e + 1));
}

/* ---- the named fills ----------------------------------------------------------------------------------------- */

typedef struct fill_call {
    const cldsa_workload *work;
    cldsa_host_tensor *tensor;
    int64_t numel;
    uint32_t stream; /* of the field */
    int num;
    double operands[MAX_OPERANDS];
} fill_call;

static void fill_normal(const fill_call *c) {
    double sigma = c->num > 0 ? c->operands[0] : 1, mean = c->num > 1 ? c->operands[1] : 0;
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = mean + sigma * cldsa_workload_normal(c->work, c->stream, (uint64_t)i);
}

static void fill_uniform(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = c->operands[0] + (c->operands[1] - c->operands[0]) *
                                                  cldsa_workload_uniform(c->work, c->stream, (uint64_t)i);
}

static void fill_whole(const fill_call *c) {
    double choices = c->operands[1] - c->operands[0] + 1;
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = c->operands[0] + floor(choices * cldsa_workload_uniform(c->work, c->stream, (uint64_t)i));
}

static void fill_const(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = c->operands[0];
}

static void fill_positive(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = 0.5 + cldsa_workload_uniform(c->work, c->stream, (uint64_t)i);
}

static void fill_ties(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] =
            rint(cldsa_workload_normal(c->work, c->stream, (uint64_t)i) * c->operands[0]) / c->operands[0];
}

static void fill_special(const fill_call *c) {
    static const double strange[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1e-40, -1e-40, 3e38};
    for (int64_t i = 0; i < c->numel; ++i) {
        uint32_t draw = word(c->work, c->stream + PAIR_STREAM, (uint64_t)i);
        c->tensor->data[i] =
            draw % 4 == 0 ? strange[draw / 4 % 8] : cldsa_workload_normal(c->work, c->stream, (uint64_t)i);
    }
}

static void fill_iota(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = (double)i;
}

static void fill_mask(const fill_call *c) {
    bool bits = c->tensor->dtype == CLDSA_U32;
    for (int64_t i = 0; i < c->numel; ++i) {
        uint32_t value = 0;
        for (uint64_t b = 0; b < (bits ? 32 : 1); ++b)
            value |= (uint32_t)(cldsa_workload_uniform(c->work, c->stream, (uint64_t)i * 32 + b) < c->operands[0]) << b;
        /* Any byte but 0 is on. */
        c->tensor->data[i] = bits ? value : value ? 1 + word(c->work, c->stream, (uint64_t)i * 32 + 1) % 255 : 0;
    }
}

static int64_t last_extent(const cldsa_host_tensor *tensor) {
    return tensor->rank ? tensor->shape[tensor->rank - 1] : 1;
}

/* Selection sampling: each t is taken with probability wanted/left, which gives distinct ascending ones. */
static void fill_rows(const fill_call *c, bool tails) {
    int64_t width = last_extent(c->tensor), limit = (int64_t)c->operands[0];
    for (int64_t row = 0; row < c->numel / width; ++row) {
        double *places = c->tensor->data + row * width;
        int64_t filled = 0, wanted = width < limit ? width : limit;
        if (tails && row % 3 == 1)
            wanted = (int64_t)(cldsa_workload_uniform(c->work, c->stream + PAIR_STREAM, (uint64_t)row) *
                               (double)(wanted + 1));
        for (int64_t t = 0; t < limit && filled < wanted; ++t)
            if (cldsa_workload_uniform(c->work, c->stream, (uint64_t)(row * limit + t)) * (double)(limit - t) <
                (double)(wanted - filled))
                places[filled++] = (double)t;
        for (; filled < width; ++filled)
            places[filled] = -1;
    }
}

static void fill_indices(const fill_call *c) {
    fill_rows(c, true);
}
static void fill_distinct(const fill_call *c) {
    fill_rows(c, false);
}

static void fill_wild(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = floor(cldsa_workload_uniform(c->work, c->stream, (uint64_t)i) * (c->operands[0] + 7)) - 3;
}

/* Start and end must be drawn together, whatever the fields' order: both from one stream. */
static void fill_range(const fill_call *c, bool end) {
    double limit = c->operands[0];
    for (int64_t i = 0; i < c->numel; ++i) {
        double a = floor(cldsa_workload_uniform(c->work, PAIR_STREAM, 2 * (uint64_t)i) * (limit + 1));
        double b = floor(cldsa_workload_uniform(c->work, PAIR_STREAM, 2 * (uint64_t)i + 1) * (limit + 1));
        double low = fmin(a, b), high = fmax(a, b);
        switch (i % 8) {
        case 2: /* empty */
            high = low;
            break;
        case 4: /* outside */
            low = -3, high = limit + 5;
            break;
        case 6: /* reversed */
            low = fmax(a, b), high = fmin(a, b);
            break;
        default:
            break;
        }
        c->tensor->data[i] = end ? high : low;
    }
}
static void fill_range_start(const fill_call *c) {
    fill_range(c, false);
}
static void fill_range_end(const fill_call *c) {
    fill_range(c, true);
}

static int ascending(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void fill_offsets(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = floor(cldsa_workload_uniform(c->work, c->stream, (uint64_t)i) * (c->operands[0] + 1));
    qsort(c->tensor->data, (size_t)c->numel, sizeof(double), ascending);
    if (c->numel > 3) /* an empty group */
        c->tensor->data[2] = c->tensor->data[1];
    c->tensor->data[0] = 0;
    c->tensor->data[c->numel - 1] = c->operands[0];
}

static void fill_labels(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] =
            i % 5 == 3 ? -100 : floor(cldsa_workload_uniform(c->work, c->stream, (uint64_t)i) * c->operands[0]);
}

static void fill_steps(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = floor(c->operands[0] * (double)i / (double)(c->numel > 1 ? c->numel - 1 : 1));
}

static void fill_permutation(const fill_call *c) {
    double *data = c->tensor->data;
    fill_iota(c);
    for (int64_t i = c->numel - 1; i > 0; --i) {
        int64_t j = (int64_t)(cldsa_workload_uniform(c->work, c->stream, (uint64_t)i) * (double)(i + 1));
        double swap = data[i];
        data[i] = data[j];
        data[j] = swap;
    }
}

static const struct {
    const char *name;
    int least, most; /* operands */
    void (*fill)(const fill_call *call);
} fills[] = {
    {"normal", 0, 2, fill_normal},     {"uniform", 2, 2, fill_uniform},     {"whole", 2, 2, fill_whole},
    {"const", 1, 1, fill_const},       {"positive", 0, 0, fill_positive},   {"ties", 1, 1, fill_ties},
    {"special", 0, 0, fill_special},   {"iota", 0, 0, fill_iota},           {"mask", 1, 1, fill_mask},
    {"indices", 1, 1, fill_indices},   {"wild", 1, 1, fill_wild},           {"range_start", 1, 1, fill_range_start},
    {"offsets", 1, 1, fill_offsets},   {"range_end", 1, 1, fill_range_end}, {"labels", 1, 1, fill_labels},
    {"distinct", 1, 1, fill_distinct}, {"steps", 1, 1, fill_steps},         {"permutation", 0, 0, fill_permutation},
};

/* Copies the first elements, whole rows of them, over the rest. */
static void repeat(const fill_call *c, int64_t numel) {
    for (int64_t i = c->numel; i < numel; ++i)
        c->tensor->data[i] = c->tensor->data[i - c->numel];
}

/* How much of a tensor is drawn: all of it, or about spec.period elements. */
static int64_t drawn(const cldsa_workload *work, const cldsa_host_tensor *tensor) {
    int64_t numel = cldsa_host_numel(tensor), row = last_extent(tensor), period = work->spec.period;
    if (period <= 0 || numel <= 2 * period || row <= 0)
        return numel;
    int64_t rows = period / row > 0 ? period / row : 1;
    return (rows % 2 || rows * row >= numel - row ? rows : rows + 1) * row;
}

cldsa_status cldsa_workload_fill(cldsa_workload *work, int field) {
    const char *name = work->op->fields[field].name;
    cldsa_host_tensor *tensor = &work->tensors[field];
    fill_call call = {work, tensor, drawn(work, tensor), (uint32_t)field, 0, {0}};
    char text[CLDSA_WORKLOAD_TEXT] = "normal";
    if (!cldsa_workload_option(work->spec.fill, ';', name, text) && !cldsa_dtype_is_float(tensor->dtype))
        return work->spec.leave_blank
                   ? CLDSA_SUCCESS
                   : cldsa_fail(CLDSA_INVALID_ARGUMENT, "integer tensor %s needs an entry in .fill", name);
    char *rest = NULL, *kind = strtok_r(text, " ", &rest), *operand;
    while ((operand = strtok_r(NULL, " ", &rest)) && call.num < MAX_OPERANDS)
        CLDSA_TRY(cldsa_workload_operand(work, operand, &call.operands[call.num++]));
    for (size_t i = 0; kind && i < sizeof fills / sizeof fills[0]; ++i)
        if (strcmp(fills[i].name, kind) == 0) {
            if (call.num < fills[i].least || call.num > fills[i].most)
                return cldsa_fail(CLDSA_INVALID_ARGUMENT, "fill %s of %s takes %d to %d operands", kind, name,
                                  fills[i].least, fills[i].most);
            fills[i].fill(&call);
            repeat(&call, cldsa_host_numel(tensor));
            return CLDSA_SUCCESS;
        }
    return cldsa_fail(CLDSA_INVALID_ARGUMENT, "there is no fill \"%s\" for %s", kind ? kind : "", name);
}
