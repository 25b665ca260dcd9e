/* cross_entropy: losses, hits and gradients; ties, large and infinite logits, rows that are not scored. */
#include "tests/ops/harness.h"

#include <math.h>

extern const cldsa_op cldsa_op_cross_entropy;

/* -inf rules classes out, as a mask does: never the label's. */
static void rule_out_classes(harness_data *data) {
    cldsa_host_tensor *logits = harness_tensor(data, "logits"), *labels = harness_tensor(data, "labels");
    int64_t classes = harness_dim(data, "V");
    for (int64_t i = 0; i < harness_numel(logits); ++i)
        if (i % 3 == 0 && labels->data[i / classes] != (double)(i % classes))
            logits->data[i] = -INFINITY;
}

static const harness_case cases[] = {
    {.name = "the experiment's vocabulary",
     .dims = "N=24 V=1000",
     .shapes = "logits=3 8 V; labels=3 8; row_loss=3 8",
     .fill = "labels=labels V"},
    {.name = "gradient and hits",
     .dims = "N=37 V=259",
     .give = "*",
     .fill = "labels=labels V",
     .params = "grad_scale=0.03"},
    {.name = "gradient in place",
     .dims = "N=11 V=256",
     .give = "*",
     .fill = "labels=labels V",
     .alias = "dlogits=logits"},
    {.name = "ties", .dims = "N=64 V=9", .give = "*", .fill = "logits=whole 0 2; labels=labels V"},
    {.name = "large", .dims = "N=9 V=50", .give = "*", .fill = "logits=normal 10000; labels=labels V"},
    {.name = "far from zero",
     .dims = "N=9 V=50",
     .give = "*",
     .fill = "logits=normal 1 -3000; labels=labels V",
     .tolerance = 30},
    {.name = "classes ruled out",
     .dims = "N=9 V=50",
     .give = "*",
     .fill = "labels=labels V",
     .prepare = rule_out_classes},
    {.name = "not finite", .dims = "N=40 V=20", .give = "*", .fill = "logits=special; labels=labels V"},
    {.name = "wild labels", .dims = "N=20 V=7", .give = "*", .fill = "labels=wild V"},
    {.name = "more classes than a group holds in registers",
     .dims = "N=3 V=40000",
     .give = "*",
     .fill = "labels=labels V",
     .prepare = rule_out_classes},
    {.name = "one class", .dims = "N=3 V=1", .give = "*", .fill = "labels=const 0"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {{.op = &cldsa_op_cross_entropy, HARNESS_CASES(cases)}};
    return harness_main(suites, 1, argc, argv);
}
