// Rows of a causal selection that see no key at all (more queries than keys): nothing is selected.
//
//   indices[row, :] = -1   values[row, :] = -inf   count[row] = 0
//
// Enqueued by host/ops/select.c, one work-item per row; other rows come from indexer_scores and topk.

#ifndef HAS_VALUES
#define HAS_VALUES 1 // values are wanted
#endif
#ifndef HAS_COUNT
#define HAS_COUNT 1 // counts are wanted
#endif

__kernel void select_none(__global int *indices, ulong indices_off, __global float *values, ulong values_off,
                          __global int *count, ulong count_off, int rows, int places)
{
    const size_t row = get_global_id(0);
    if (row >= (size_t)rows)
        return;
    for (int n = 0; n < places; ++n) {
        indices[indices_off + row * places + n] = -1;
#if HAS_VALUES
        values[values_off + row * places + n] = -INFINITY;
#endif
    }
#if HAS_COUNT
    count[count_off + row] = 0;
#endif
}
