/* Memory placement, views and the linear layer. */
#include "host/nn/nn.h"

#include <string.h>

enum { PLACE_ALIGN = 256 };

cldsa_tensor cldsa_arena_place(cldsa_arena *arena, cldsa_dtype dtype, int rank, const int64_t *shape) {
    cldsa_tensor tensor = {.mem = arena->mem, .dtype = dtype, .rank = rank};
    memcpy(tensor.shape, shape, (size_t)rank * sizeof *shape);
    size_t size = cldsa_dtype_size(dtype);
    tensor.offset = arena->used / size; /* places are aligned far beyond any element */
    arena->used += (size_t)cldsa_round_up(cldsa_tensor_numel(&tensor) * (int64_t)size, PLACE_ALIGN);
    if (arena->used > arena->peak)
        arena->peak = arena->used;
    return tensor;
}

cldsa_tensor cldsa_as_matrix(cldsa_tensor tensor, int64_t rows, int64_t columns) {
    tensor.rank = 2;
    tensor.shape[0] = rows, tensor.shape[1] = columns;
    return tensor;
}

cldsa_tensor cldsa_as_rank3(cldsa_tensor tensor, int64_t a, int64_t b, int64_t c) {
    tensor.rank = 3;
    tensor.shape[0] = a, tensor.shape[1] = b, tensor.shape[2] = c;
    return tensor;
}

cldsa_tensor cldsa_as_rank4(cldsa_tensor tensor, int64_t a, int64_t b, int64_t c, int64_t d) {
    tensor.rank = 4;
    tensor.shape[0] = a, tensor.shape[1] = b, tensor.shape[2] = c, tensor.shape[3] = d;
    return tensor;
}

cldsa_status cldsa_linear(cldsa_nn *nn, cldsa_tensor x, cldsa_tensor weight, cldsa_tensor bias, cldsa_act activation,
                          cldsa_tensor y) {
    CLDSA_NN_OP(nn, gemm, .a = x, .b = weight, .c = y, .bias = bias, .layout = CLDSA_GEMM_NT, .activation = activation,
                .alpha = 1);
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_linear_backward(cldsa_nn *nn, cldsa_tensor x, cldsa_tensor weight, cldsa_tensor dy, float beta,
                                   cldsa_tensor dx, cldsa_tensor dweight) {
    CLDSA_NN_OP(nn, gemm, .a = dy, .b = x, .c = dweight, .layout = CLDSA_GEMM_TN, .alpha = 1);
    CLDSA_NN_OP(nn, gemm, .a = dy, .b = weight, .c = dx, .layout = CLDSA_GEMM_NN, .alpha = 1, .beta = beta);
    return CLDSA_SUCCESS;
}
