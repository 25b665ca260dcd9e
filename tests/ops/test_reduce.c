/* reduce and column_sum against their references. */
#include "tests/ops/harness.h"

extern const cldsa_op cldsa_op_reduce, cldsa_op_column_sum;

static const harness_case reduce_cases[] = {
    {.name = "one piece", .dims = "N=1000"},
    {.name = "one element", .dims = "N=1", .params = "scale=-2"},
    {.name = "squares, any shape", .dims = "N=4800", .shapes = "x=30 16 10", .params = "kind=sum_squares scale=0.5"},
    {.name = "two launches, accumulated", .dims = "N=300001", .params = "accumulate=1 scale=0.25", .tolerance = 10},
    {.name = "squares in two launches", .dims = "N=270000", .params = "kind=sum_squares scale=2"},
    {.name = "exact whole numbers", .dims = "N=99999", .fill = "x=whole -7 9"},
    {.name = "not finite", .dims = "N=500", .fill = "x=special"},
};

static const harness_case column_cases[] = {
    {.name = "one launch", .dims = "R=37 D=64"},
    {.name = "one row", .dims = "R=1 D=5"},
    {.name = "one column", .dims = "R=700 D=1"},
    {.name = "odd width, two launches", .dims = "R=1100 D=139", .shapes = "x=11 100 D"},
    {.name = "wide", .dims = "R=33 D=1030"},
};

int main(int argc, char **argv) {
    const harness_suite suites[] = {
        {.op = &cldsa_op_reduce, HARNESS_CASES(reduce_cases)},
        {.op = &cldsa_op_column_sum, HARNESS_CASES(column_cases)},
    };
    return harness_main(suites, 2, argc, argv);
}
