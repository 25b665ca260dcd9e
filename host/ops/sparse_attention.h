/* What the forward and backward operations of sparse attention share on the host. */
#ifndef CLDSA_OPS_SPARSE_ATTENTION_H
#define CLDSA_OPS_SPARSE_ATTENTION_H

#include "host/ops/op.h"

/* dims of both operations, in this order */
enum { SPARSE_B, SPARSE_S, SPARSE_T, SPARSE_H, SPARSE_HK, SPARSE_D, SPARSE_DV, SPARSE_K };
extern const char *const cldsa_sparse_dims[];

/* The inputs that both args structs begin with. v.mem NULL means latent. */
typedef struct cldsa_sparse_inputs {
    cldsa_tensor q, k, v, indices, topk_length, attn_sink;
    int v_dim;
    float softmax_scale; /* never 0 */
} cldsa_sparse_inputs;

#define CLDSA_SPARSE_INPUTS(run, a)                                                                                    \
    ((cldsa_sparse_inputs){(a)->q, (a)->k, (a)->v, (a)->indices, (a)->topk_length, (a)->attn_sink, (a)->v_dim,         \
                           cldsa_sparse_scale((run)->dims, (a)->softmax_scale)})
float cldsa_sparse_scale(const int64_t *dims, float softmax_scale);

/* Hk divides H, the value's width, one dtype for k and v. */
cldsa_status cldsa_sparse_check(const cldsa_run *run, const cldsa_sparse_inputs *in);

/* Heads per kv head. */
static inline int64_t cldsa_sparse_group(const cldsa_run *run) {
    return run->dims[SPARSE_H] / run->dims[SPARSE_HK];
}

/* Bytes of the keys and values that the selection can name: at most S K rows per kv head. */
double cldsa_sparse_key_bytes(const cldsa_run *run, const cldsa_sparse_inputs *in);

/* What every kernel of this operation is built with. */
void cldsa_sparse_options(const cldsa_run *run, const cldsa_sparse_inputs *in, bool packed, int heads, char *options);

/* Where the kernels find a kv head's rows: strides in elements. */
typedef struct cldsa_sparse_rows {
    cldsa_tensor tensor;
    int64_t batch, head, row;
} cldsa_sparse_rows;
#define CLDSA_ARG_STRIDES(r) CLDSA_ARG_U64((r).batch), CLDSA_ARG_U64((r).head)

/* ---- CPUs: packed rows (vec) ---------------------------------------------------------------------------------- */

/* Steps and rows of several heads lie in private memory: a GPU has little of it. */
static inline bool cldsa_sparse_vec_can_run(const cldsa_run *run) {
    return cldsa_context_capabilities(run->ctx)->is_cpu;
}

/* Scratch for packed k and v, or 0 where reading them in place is as good. */
size_t cldsa_sparse_pack_bytes(const cldsa_run *run, const cldsa_sparse_inputs *in);

/* Sets the rows of k and v (latent: the same); with `packed` enqueues their copies into scratch from byte 0 on. */
cldsa_status cldsa_sparse_rows_of(cldsa_run *run, const cldsa_sparse_inputs *in, bool packed, cldsa_sparse_rows *k,
                                  cldsa_sparse_rows *v);

/* Appends the distances of their rows to the options. */
void cldsa_sparse_row_options(const cldsa_sparse_rows *k, const cldsa_sparse_rows *v, char *options);

/* Heads of a kv head that one work-item takes, at most `most`. */
int cldsa_sparse_heads(const cldsa_run *run, int most);

/* A register tile is as many accumulators as a vector has lanes (cl/lanes_vec.clh). By default vectors are those of the
 * CPU: of 16 floats, or of 8, since vectors of 16 in 16 registers of 8 spill. */
#define CLDSA_SPARSE_LANES                                                                                             \
    { "LANES", 16, {8, 16}, "floats of a vector, accumulators of a register tile" }

/* QUERIES, KEYS, MAX_HEADS and LANES are the first tunables of both operations. Where few heads share a gathered row,
 * queries must: as many as leave every compute unit several work-items, and as a thread's stack holds. */
void cldsa_sparse_vec_defaults(const cldsa_run *run, int *tune);
bool cldsa_sparse_vec_legal(const cldsa_run *run, const int *tune);

/* ---- GPUs (sparse_attention_gpu.c, sparse_attention_backward_gpu.c) --------------------------------------------- */

/* Work-items per group of the kernels of rows and of the index. */
enum { SPARSE_ROWS_WG = 128, SPARSE_INDEX_WG = 256 };
bool cldsa_sparse_simt_can_run(const cldsa_run *run);

/* cldsa_sparse_options, and which rows are read four elements at a time. */
void cldsa_sparse_gpu_options(const cldsa_run *run, const cldsa_sparse_inputs *in, int heads, char *options);

/* Heads per work-group: the power of two that holds a kv head's, at most `most`. */
int cldsa_sparse_simt_heads(const cldsa_run *run, int most);

/*
 * The first tunables of both passes. Heads by what a work-item keeps in registers: its columns of so many rows of D and
 * of Dv columns for each head. Small groups wait least at their barriers, so a group is one sub-group where that is
 * known (on an H100, 8 heads of 64 and K = 256, forward: 0.158, 0.179 and 0.230 ms with groups of 32, 64 and 128).
 */
enum { SIMT_MAX_HEADS, SIMT_LANES, SIMT_WG, SIMT_OWN /* the pass' own tunables begin here */ };
// clang-format off
#define CLDSA_SPARSE_SIMT_TUNABLES                                              \
    {"MAX_HEADS", 4, {1, 2, 4, 8}, "heads per work-group, at most"},            \
    {"LANES", 16, {4, 8, 16, 32}, "work-items that read a row together"},       \
    {"WG", 64, {32, 64, 128}, "work-items per group"}
// clang-format on
void cldsa_sparse_simt_defaults(const cldsa_run *run, int rows_of_d, int rows_of_dv, int *tune);

/* Whether teams are large enough for so many kinds of dot products (KINDS of cl/sparse_attention_simt.clh). */
bool cldsa_sparse_simt_legal(const cldsa_run *run, int kinds, const int *tune);

/* The forward pass: few heads to a kv head, many, and many of many queries. */
extern const cldsa_variant cldsa_sparse_attention_simt, cldsa_sparse_attention_tile, cldsa_sparse_attention_slab;

/* Whether slab is the default. */
bool cldsa_sparse_slab_pays(const cldsa_run *run);

/* The backward pass: in general, and many heads of one latent key head. */
extern const cldsa_variant cldsa_sparse_attention_backward_simt, cldsa_sparse_attention_backward_tile;

#endif
