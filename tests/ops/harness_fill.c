/* Values for inputs, reproducible from case and field. */
#include "tests/ops/harness_internal.h"

#include "host/ops/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Fills of prepare hooks must not repeat those of fields. */
enum { HOOK_STREAMS = 1000, PAIR_STREAM = 500, MAX_OPERANDS = 3 };

static uint32_t word(const harness_data *data, uint32_t stream, uint64_t e) {
    return cldsa_philox_element(e, stream, 0x5eed0000u + (uint64_t)data->index);
}

static double uniform(const harness_data *data, uint32_t stream, uint64_t e) {
    return word(data, stream, e) / 4294967296.0;
}

/* Box-Muller on two words. */
static double normal(const harness_data *data, uint32_t stream, uint64_t e) {
    double radius = (word(data, stream, 2 * e) + 1.0) / 4294967296.0;
    return sqrt(-2 * log(radius)) * cos(6.283185307179586 * uniform(data, stream, 2 * e + 1));
}

double harness_uniform(const harness_data *data, uint32_t stream, uint64_t e) {
    return uniform(data, HOOK_STREAMS + stream, e);
}

double harness_normal(const harness_data *data, uint32_t stream, uint64_t e) {
    return normal(data, HOOK_STREAMS + stream, e);
}

/* ---- the named fills ----------------------------------------------------------------------------------------- */

typedef struct fill_call {
    const harness_data *data;
    cldsa_host_tensor *tensor;
    int64_t numel;
    uint32_t stream; /* of the field */
    int num;
    double operands[MAX_OPERANDS];
} fill_call;

static void fill_normal(const fill_call *c) {
    double sigma = c->num > 0 ? c->operands[0] : 1, mean = c->num > 1 ? c->operands[1] : 0;
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = mean + sigma * normal(c->data, c->stream, (uint64_t)i);
}

static void fill_uniform(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] =
            c->operands[0] + (c->operands[1] - c->operands[0]) * uniform(c->data, c->stream, (uint64_t)i);
}

static void fill_whole(const fill_call *c) {
    double choices = c->operands[1] - c->operands[0] + 1;
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = c->operands[0] + floor(choices * uniform(c->data, c->stream, (uint64_t)i));
}

static void fill_const(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = c->operands[0];
}

static void fill_positive(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = 0.5 + uniform(c->data, c->stream, (uint64_t)i);
}

static void fill_ties(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = rint(normal(c->data, c->stream, (uint64_t)i) * c->operands[0]) / c->operands[0];
}

static void fill_special(const fill_call *c) {
    static const double strange[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1e-40, -1e-40, 3e38};
    for (int64_t i = 0; i < c->numel; ++i) {
        uint32_t draw = word(c->data, c->stream + PAIR_STREAM, (uint64_t)i);
        c->tensor->data[i] = draw % 4 == 0 ? strange[draw / 4 % 8] : normal(c->data, c->stream, (uint64_t)i);
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
            value |= (uint32_t)(uniform(c->data, c->stream, (uint64_t)i * 32 + b) < c->operands[0]) << b;
        /* Any byte but 0 is on. */
        c->tensor->data[i] = bits ? value : value ? 1 + word(c->data, c->stream, (uint64_t)i * 32 + 1) % 255 : 0;
    }
}

static int64_t last_extent(const cldsa_host_tensor *tensor) {
    return tensor->rank ? tensor->shape[tensor->rank - 1] : 1;
}

/* Selection sampling: each t is taken with probability wanted/left, which gives distinct ascending ones. */
static void fill_indices(const fill_call *c) {
    int64_t width = last_extent(c->tensor), limit = (int64_t)c->operands[0];
    for (int64_t row = 0; row < c->numel / width; ++row) {
        double *places = c->tensor->data + row * width;
        int64_t filled = 0, wanted = width < limit ? width : limit;
        if (row % 3 == 1)
            wanted = (int64_t)(uniform(c->data, c->stream + PAIR_STREAM, (uint64_t)row) * (double)(wanted + 1));
        for (int64_t t = 0; t < limit && filled < wanted; ++t)
            if (uniform(c->data, c->stream, (uint64_t)(row * limit + t)) * (double)(limit - t) <
                (double)(wanted - filled))
                places[filled++] = (double)t;
        for (; filled < width; ++filled)
            places[filled] = -1;
    }
}

static void fill_wild(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = floor(uniform(c->data, c->stream, (uint64_t)i) * (c->operands[0] + 7)) - 3;
}

/* Start and end must be drawn together, whatever the fields' order: both from one stream. */
static void fill_range(const fill_call *c, bool end) {
    double limit = c->operands[0];
    for (int64_t i = 0; i < c->numel; ++i) {
        double a = floor(uniform(c->data, PAIR_STREAM, 2 * (uint64_t)i) * (limit + 1));
        double b = floor(uniform(c->data, PAIR_STREAM, 2 * (uint64_t)i + 1) * (limit + 1));
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
        c->tensor->data[i] = floor(uniform(c->data, c->stream, (uint64_t)i) * (c->operands[0] + 1));
    qsort(c->tensor->data, (size_t)c->numel, sizeof(double), ascending);
    if (c->numel > 3) /* an empty group */
        c->tensor->data[2] = c->tensor->data[1];
    c->tensor->data[0] = 0;
    c->tensor->data[c->numel - 1] = c->operands[0];
}

static void fill_labels(const fill_call *c) {
    for (int64_t i = 0; i < c->numel; ++i)
        c->tensor->data[i] = i % 5 == 3 ? -100 : floor(uniform(c->data, c->stream, (uint64_t)i) * c->operands[0]);
}

static const struct {
    const char *name;
    int least, most; /* operands */
    void (*fill)(const fill_call *call);
} fills[] = {
    {"normal", 0, 2, fill_normal},   {"uniform", 2, 2, fill_uniform},     {"whole", 2, 2, fill_whole},
    {"const", 1, 1, fill_const},     {"positive", 0, 0, fill_positive},   {"ties", 1, 1, fill_ties},
    {"special", 0, 0, fill_special}, {"iota", 0, 0, fill_iota},           {"mask", 1, 1, fill_mask},
    {"indices", 1, 1, fill_indices}, {"wild", 1, 1, fill_wild},           {"range_start", 1, 1, fill_range_start},
    {"offsets", 1, 1, fill_offsets}, {"range_end", 1, 1, fill_range_end}, {"labels", 1, 1, fill_labels},
};

void harness_fill(harness_data *data, int field) {
    const char *name = data->op->fields[field].name;
    cldsa_host_tensor *tensor = &data->tensors[field];
    fill_call call = {data, tensor, harness_numel(tensor), (uint32_t)field, 0, {0}};
    char text[HARNESS_TEXT] = "normal";
    if (!harness_option(data->test->fill, ';', name, text) && !harness_is_float(tensor->dtype)) {
        if (data->test->prepare) /* which then fills it */
            return;
        fail_msg("case \"%s\": integer tensor %s needs an entry in .fill", data->test->name, name);
    }
    char *rest = NULL, *kind = strtok_r(text, " ", &rest), *operand;
    while ((operand = strtok_r(NULL, " ", &rest)) && call.num < MAX_OPERANDS)
        call.operands[call.num++] = harness_operand(data, operand);
    for (size_t i = 0; kind && i < sizeof fills / sizeof fills[0]; ++i)
        if (strcmp(fills[i].name, kind) == 0) {
            if (call.num < fills[i].least || call.num > fills[i].most)
                fail_msg("case \"%s\": fill %s of %s takes %d to %d operands", data->test->name, kind, name,
                         fills[i].least, fills[i].most);
            fills[i].fill(&call);
            return;
        }
    fail_msg("case \"%s\": there is no fill \"%s\" for %s", data->test->name, kind ? kind : "", name);
}
