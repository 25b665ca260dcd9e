/*
 * The calls whose programs are compiled: every case of every preset of the bench and the extra ones below, each in
 * every variant that the target can run, with the most and the least workspace; and a training step per sparsity
 * policy.
 */
#include "bench/bench.h"
#include "host/runtime/context.h"
#include "tests/vendors/vendors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Operations that no preset measures, at the experiment's sizes, and storage types that the presets leave out. */
static const bench_case extra_cases[] = {
    {"activation", .spec = {.dims = "N=524288", .params = "activation=silu dropout_p=0.1"}},
    {"activation_backward", .forward = "activation",
     .spec = {.dims = "N=524288", .params = "activation=silu dropout_p=0.1"}},
    {"adamw", .spec = {.dims = "P=3000000", .give = "norm2"}},
    {"controller_moments", .spec = {.dims = "B=8 S=256 D=256"}},
    {"controller_perplexity", .spec = {.dims = "B=8 S=256 D=256"}},
    {"controller_entropy", .spec = {.dims = "B=8 S=256 W=768", .params = "num_heads=4 d_model=256"}},
    {"controller_k", .spec = {.dims = "B=8 D=256 U=32 A=16", .params = "seq_len=256 max_seq_len=2048 use=7"}},
    {"keep_rows", .spec = {.dims = "B=8 S=256 T=256"}},
    {"cross_entropy", .spec = {.dims = "N=2048 V=1000", .give = "*"}},
    {"embedding", .spec = {.dims = "B=8 S=256 V=1000 D=256 P=2048", .give = "positions"}},
    {"embedding_backward", .forward = "embedding",
     .spec = {.dims = "B=8 S=256 V=1000 D=256 P=2048", .give = "dpositions"}},
    {"gemm", .spec = {.dims = "M=4096 N=4096 K=4096",
                      .params = "layout=nt",
                      .shapes = "a=M K; b=N K; c=M N",
                      .dtypes = "a=F16 b=F16"}},
    {"gemm", .spec = {.dims = "M=4096 N=4096 K=4096",
                      .params = "layout=tn",
                      .shapes = "a=K M; b=K N; c=M N",
                      .dtypes = "a=BF16 b=BF16"}},
    {"gemm", .spec = {.dims = "M=4095 N=1023 K=517",
                      .params = "layout=nt activation=silu",
                      .shapes = "a=M K; b=N K; c=M N; pre=M N",
                      .give = "bias pre"}},
    {"indexer_scores", .spec = {.dims = "B=1 S=4096 T=4096 H=64 Hk=1 D=128",
                                .params = "range=causal",
                                .shapes = "w=B S H",
                                .dtypes = "q=F16 k=F16"}},
    {"indexer_scores_backward", .forward = "indexer_scores",
     .spec = {.dims = "B=8 S=256 T=256 H=4 Hk=4 D=64", .params = "relu_out=1"}},
    {"indexer_scores_backward", .forward = "indexer_scores",
     .spec = {.dims = "B=1 S=1024 T=1024 H=64 Hk=1 D=128", .params = "range=causal", .shapes = "w=B S H; dw=B S H"}},
    {"layer_norm", .spec = {.dims = "R=2048 D=256", .give = "*"}},
    {"layer_norm_backward", .forward = "layer_norm", .spec = {.dims = "R=2048 D=256", .give = "*"}},
    {"masked_attention", .spec = {.dims = "B=1 S=2048 T=2048 H=32 Hk=8 D=128 Dv=128",
                                  .params = "range=causal",
                                  .give = "lse",
                                  .dtypes = "q=F16 k=F16 v=F16 out=F16"}},
    {"masked_attention_backward", .forward = "masked_attention",
     .spec = {.dims = "B=1 S=2048 T=2048 H=32 Hk=8 D=128 Dv=128", .params = "range=causal"}},
    {"moe_route", .spec = {.dims = "N=2048 E=4 X=2 G=5", .params = "noise_std=0.5"}},
    {"moe_route_backward", .forward = "moe_route", .spec = {.dims = "N=2048 E=4 X=2"}},
    {"moe_dispatch", .spec = {.dims = "N=2048 X=2 D=256 R=4096"}},
    {"moe_dispatch_backward", .forward = "moe_dispatch", .spec = {.dims = "N=2048 X=2 D=256 R=4096"}},
    {"moe_combine", .spec = {.dims = "N=2048 X=2 D=256 R=4096"}},
    {"moe_combine_backward", .forward = "moe_combine", .spec = {.dims = "N=2048 X=2 D=256 R=4096"}},
    {"reduce", .spec = {.dims = "N=3000000", .params = "kind=sum_squares"}},
    {"column_sum", .spec = {.dims = "R=2048 D=256"}},
    {"rms_norm", .spec = {.dims = "R=2048 X=80 D=64", .give = "rstd"}},
    {"rms_norm_backward", .forward = "rms_norm", .spec = {.dims = "R=2048 X=80 D=64"}},
    {"rope", .spec = {.dims = "B=8 S=256 H=8 D=32", .params = "rope_dim=16 style=half", .give = "positions"}},
    {"mla_pack", .spec = {.dims = "B=8 S=256 H=8 P=32 W=48 V=32 A=80", .params = "rope_dim=16 style=regroup"}},
    {"mla_pack_backward", .forward = "mla_pack",
     .spec = {.dims = "B=8 S=256 H=8 P=32 W=48 V=32 A=80", .params = "rope_dim=16"}},
    {"select", .spec = {.dims = "B=1 S=64 T=32 H=4 Hk=1 D=64 K=16", .params = "range=causal", .shapes = "w=B S H"}},
    {"sparse_attention", .spec = {.dims = "B=1 S=4096 T=8192 K=2048 H=128 Hk=1 D=576 Dv=512",
                                  .params = "v_dim=512",
                                  .give = "lse topk_length attn_sink",
                                  .dtypes = "q=F16 k=F16 out=F16"}},
    {"topk", .spec = {.dims = "R=4096 T=32768 K=2048", .params = "order=score", .give = "indices values count"}},
};

static const char *const policies[] = {"dense", "fixed50", "topk64", "adaptive"};

/* ---- from launches to programs ----------------------------------------------------------------------------------- */

typedef struct walk {
    const vendors_target *target;
    cldsa_context *ctx;
    vendors_programs *programs;
    const cldsa_op *forced; /* to a variant that is not its choice; NULL: none */
    bool seen[64][8];       /* variants of the catalogue, launched or not able to run */
} walk;

static bool launched[64][8]; /* on any target */

static vendors_program *find_program(vendors_programs *list, const vendors_launch *launch) {
    for (size_t i = 0; i < list->count; ++i)
        if (strcmp(list->items[i].options, launch->options) == 0 && strcmp(list->items[i].source, launch->source) == 0)
            return &list->items[i];
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 64;
        list->items = realloc(list->items, list->capacity * sizeof *list->items);
    }
    vendors_program *program = &list->items[list->count++];
    *program = (vendors_program){.source = strdup(launch->source), .options = strdup(launch->options)};
    sscanf(launch->source, "#line 1 \"%63[^\"]", program->file);
    return program;
}

static cldsa_status note(walk *w, const char *label, const vendors_launch *launch) {
    char op[64], variant[32];
    if (sscanf(label, "%63[^/]/%31[^/]/", op, variant) != 2)
        return cldsa_fail(CLDSA_CHECK_FAILED, "a launch is called \"%s\"", label);
    vendors_program *program = find_program(w->programs, launch);
    vendors_kernel *kernel = program->kernels, *end = kernel + program->num_kernels;
    while (kernel < end && strcmp(kernel->name, launch->kernel) != 0)
        ++kernel;
    if (kernel == end) {
        if (program->num_kernels++ == VENDORS_MAX_KERNELS)
            return cldsa_fail(CLDSA_CHECK_FAILED, "%s has more than %d kernels", program->file, VENDORS_MAX_KERNELS);
        snprintf(kernel->name, sizeof kernel->name, "%s", launch->kernel);
        memcpy(kernel->op, op, sizeof op);
        memcpy(kernel->variant, variant, sizeof variant);
    }
    kernel->chosen |= !w->forced || strcmp(w->forced->name, op) != 0;
    if (launch->group_items > kernel->group_items)
        kernel->group_items = launch->group_items;
    if (launch->local_argument_bytes > kernel->local_argument_bytes)
        kernel->local_argument_bytes = launch->local_argument_bytes;
    for (int i = 0; cldsa_catalogue[i]; ++i)
        for (int v = 0; cldsa_catalogue[i]->variants[v]; ++v)
            if (strcmp(cldsa_catalogue[i]->name, op) == 0 &&
                strcmp(cldsa_catalogue[i]->variants[v]->name, variant) == 0)
                w->seen[i][v] = launched[i][v] = true;
    return CLDSA_SUCCESS;
}

/* The context's profile says which operation launched what, also inside of others. */
static cldsa_status take_launches(walk *w) {
    cldsa_status status = CLDSA_SUCCESS;
    for (size_t i = 0; i < w->ctx->num_records; ++i) {
        cldsa_profile_record *record = &w->ctx->records[i];
        if (status == CLDSA_SUCCESS)
            status = note(w, record->name, vendors_launch_of(record->event));
        clReleaseEvent(record->event);
    }
    w->ctx->num_records = 0;
    return status;
}

/* ---- calls --------------------------------------------------------------------------------------------------------
 */

static cldsa_status enqueue_with(walk *w, const cldsa_workload *work, size_t workspace_bytes) {
    cl_int code;
    cldsa_call call = {.queue = vendors_queue(), .workspace_bytes = workspace_bytes};
    if (workspace_bytes)
        call.workspace = clCreateBuffer(vendors_context(), CL_MEM_READ_WRITE, workspace_bytes, NULL, &code);
    cldsa_status status = cldsa_op_enqueue(w->ctx, work->op, work->args, &call);
    if (call.workspace)
        clReleaseMemObject(call.workspace);
    ++w->programs->calls;
    cldsa_status taken = take_launches(w);
    return status != CLDSA_SUCCESS ? status : taken;
}

static cldsa_status run_variant(walk *w, const cldsa_workload *work, const cldsa_variant *variant) {
    cldsa_run run;
    const cldsa_op *op = work->op;
    CLDSA_TRY(cldsa_op_force(w->ctx, op, NULL, NULL));
    CLDSA_TRY(cldsa_op_plan(w->ctx, op, work->args, &run));
    if (variant->can_run && !variant->can_run(&run))
        return CLDSA_SUCCESS;
    w->forced = run.variant == variant ? NULL : op;
    CLDSA_TRY(cldsa_op_force(w->ctx, op, variant->name, NULL));
    size_t preferred, minimum;
    cldsa_status status = cldsa_op_workspace(w->ctx, op, work->args, &preferred, &minimum);
    if (status == CLDSA_SUCCESS)
        status = enqueue_with(w, work, preferred);
    if (status == CLDSA_SUCCESS && minimum != preferred)
        status = enqueue_with(w, work, minimum);
    cldsa_op_force(w->ctx, op, NULL, NULL);
    w->forced = NULL;
    return status;
}

static cldsa_status run_variants(walk *w, const cldsa_workload *work) {
    int index = 0;
    while (cldsa_catalogue[index] != work->op)
        ++index;
    for (int v = 0; work->op->variants[v]; ++v) {
        const cldsa_variant *variant = work->op->variants[v];
        cldsa_status status = variant->file ? run_variant(w, work, variant) : CLDSA_SUCCESS; /* CLBlast's own are not */
        if (status != CLDSA_SUCCESS)
            return cldsa_fail_prefix(status, "%s/%s %s", work->op->name, variant->name, work->spec.dims);
        w->seen[index][v] = true;
    }
    return CLDSA_SUCCESS;
}

static cldsa_status run_case(walk *w, const bench_case *test) {
    const cldsa_op *op, *forward = NULL;
    CLDSA_TRY(cldsa_find_op(test->op, &op));
    if (test->forward)
        CLDSA_TRY(cldsa_find_op(test->forward, &forward));
    cldsa_workload_spec spec = test->spec;
    spec.shapes_only = true;
    spec.forward = forward;
    cldsa_workload work;
    cldsa_status status = cldsa_workload_make(op, &spec, 1, &work);
    if (status != CLDSA_SUCCESS)
        return cldsa_fail_prefix(status, "%s %s", test->op, spec.dims);
    cl_mem buffers[CLDSA_MAX_FIELDS] = {0};
    for (int i = 0; i < work.num_fields; ++i)
        if (work.given[i]) {
            cldsa_tensor *tensor = cldsa_field_tensor(work.args, &op->fields[i]);
            size_t bytes = (size_t)cldsa_tensor_numel(tensor) * cldsa_dtype_size(tensor->dtype);
            cl_int code;
            tensor->mem = buffers[i] = clCreateBuffer(vendors_context(), CL_MEM_READ_WRITE, bytes, NULL, &code);
        }
    status = run_variants(w, &work);
    for (int i = 0; i < work.num_fields; ++i)
        if (buffers[i])
            clReleaseMemObject(buffers[i]);
    cldsa_workload_free(&work);
    return status;
}

static cldsa_status run_training(walk *w) {
    for (size_t i = 0; i < sizeof policies / sizeof *policies; ++i) {
        bench_train_row row;
        bench_train_here(w->ctx, vendors_queue(),
                         &(bench_train_options){.length = 256, .variant = policies[i], .batch = 8, .steps = 1}, &row);
        ++w->programs->calls;
        cldsa_status status = row.status == BENCH_OK
                                  ? CLDSA_SUCCESS
                                  : cldsa_fail(CLDSA_CHECK_FAILED, "training, %s: %s", policies[i], row.reason);
        bench_train_row_free(&row);
        cldsa_status taken = take_launches(w);
        CLDSA_TRY(status);
        CLDSA_TRY(taken);
    }
    return CLDSA_SUCCESS;
}

static cldsa_status all_seen(const walk *w) {
    for (int i = 0; cldsa_catalogue[i]; ++i)
        for (int v = 0; cldsa_catalogue[i]->variants[v]; ++v)
            if (!w->seen[i][v])
                return cldsa_fail(CLDSA_CHECK_FAILED, "%s is in no preset: add a case to tests/vendors/calls.c",
                                  cldsa_catalogue[i]->name);
    return CLDSA_SUCCESS;
}

static cldsa_status run_all(walk *w) {
    for (const bench_preset *const *preset = bench_presets; *preset; ++preset)
        for (size_t i = 0; i < (*preset)->count; ++i)
            CLDSA_TRY(run_case(w, &(*preset)->cases[i]));
    for (size_t i = 0; i < sizeof extra_cases / sizeof *extra_cases; ++i)
        CLDSA_TRY(run_case(w, &extra_cases[i]));
    CLDSA_TRY(all_seen(w));
    return run_training(w);
}

cldsa_status vendors_collect(const vendors_target *target, vendors_programs *out) {
    *out = (vendors_programs){0};
    walk w = {.target = target, .programs = out};
    vendors_describe(target);
    cldsa_context_options options = {.no_disk_cache = true, .profiling = true};
    CLDSA_TRY(cldsa_context_create(vendors_context(), vendors_device(), &options, &w.ctx));
    /* What the probes would have found on the device. */
    w.ctx->caps.sub_group_size = target->sub_group_size;
    w.ctx->caps.fewest_lanes = target->fewest_lanes;
    w.ctx->caps.local_mem_bytes = target->local_most;
    w.ctx->caps.nv_ptx = target->compiler == VENDORS_NVIDIA;
    w.ctx->caps.fp16 = w.ctx->caps.int64_atomics = target->compiler < VENDORS_SPIRV;
    cldsa_status status = run_all(&w);
    take_launches(&w);
    cldsa_context_destroy(w.ctx);
    return status;
}

cldsa_status vendors_all_launched(void) {
    for (int i = 0; cldsa_catalogue[i]; ++i)
        for (int v = 0; cldsa_catalogue[i]->variants[v]; ++v)
            if (cldsa_catalogue[i]->variants[v]->file && !launched[i][v])
                return cldsa_fail(CLDSA_CHECK_FAILED, "%s/%s was not launched on any target: see tests/vendors/calls.c",
                                  cldsa_catalogue[i]->name, cldsa_catalogue[i]->variants[v]->name);
    return CLDSA_SUCCESS;
}

void vendors_programs_free(vendors_programs *programs) {
    for (size_t i = 0; i < programs->count; ++i) {
        free(programs->items[i].source);
        free(programs->items[i].options);
    }
    free(programs->items);
    *programs = (vendors_programs){0};
}
