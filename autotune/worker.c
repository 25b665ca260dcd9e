/*
 * The process that candidates run in. It answers requests, a line of JSON each, until its input ends:
 *   {"do": "open", "preset", "case", "dims", "check_dims", "overrides"}   places a case, answers with its spaces
 *   {"do": "try", "variant", "tunables", "check", "written", "budget", "limit", "overrides"}
 *                                                                         a budget of 0 measures nothing
 * A candidate that crashes or hangs takes this process with it and nothing else.
 */
#include "autotune/session.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Compiling lets a GPU's clocks fall. */
static const double warm_up_cpu = 0.03, warm_up_gpu = 0.1;

/* Of wall time, which launches and waits add to what device events count. */
static const double overhead_seconds = 1e-3;

typedef struct worker {
    cldsa_context *ctx;
    cl_context cl;
    cl_command_queue queue;
    bool on_cpu;
    bench_case test;
    char dims[TUNER_TEXT], check_dims[TUNER_TEXT];
    bench_placed full;
    tuner_checks checks;
    cJSON *overrides; /* given to CLBlast: it compiles anew after each, needed or not */
} worker;

static cldsa_status override(worker *w, const cJSON *request) {
    const cJSON *overrides = cJSON_GetObjectItemCaseSensitive(request, "overrides"), *item;
    cJSON_ArrayForEach(item, overrides) {
        const cJSON *last = cJSON_GetObjectItemCaseSensitive(w->overrides, item->string);
        if (!cJSON_IsString(item) || cJSON_Compare(item, last, true))
            continue;
        CLDSA_TRY(tuner_clblast_override(w->ctx, item->string, item->valuestring));
        cJSON_DeleteItemFromObjectCaseSensitive(w->overrides, item->string);
        cJSON_AddItemToObject(w->overrides, item->string, cJSON_Duplicate(item, true));
    }
    return CLDSA_SUCCESS;
}

/* ---- opening a case ---------------------------------------------------------------------------------------------- */

static void close_case(worker *w) {
    bench_place_release(&w->full);
    tuner_checks_release(&w->checks);
}

static cldsa_status find_case(worker *w, const cJSON *request) {
    const char *name = "", *dims = NULL, *check_dims = NULL;
    int index = 0;
    const bench_preset *preset;
    CLDSA_TRY(cldsa_json_get_string(request, "request", "preset", &name));
    CLDSA_TRY(bench_find_preset(name, w->on_cpu, &preset));
    CLDSA_TRY(cldsa_json_get_int(request, "request", "case", 0, (int)preset->count - 1, &index));
    CLDSA_TRY(cldsa_json_get_string(request, "request", "dims", &dims));
    CLDSA_TRY(cldsa_json_get_string(request, "request", "check_dims", &check_dims));
    w->test = preset->cases[index];
    snprintf(w->dims, sizeof w->dims, "%s", dims ? dims : w->test.spec.dims);
    snprintf(w->check_dims, sizeof w->check_dims, "%s", check_dims ? check_dims : w->dims);
    w->test.spec.dims = w->dims;
    w->test.check_dims = w->check_dims;
    return CLDSA_SUCCESS;
}

static bool legal(const void *user, const int *values) {
    cldsa_run run = *(const cldsa_run *)user;
    memcpy(run.tune, values, sizeof run.tune);
    return !run.variant->legal || run.variant->legal(&run, run.tune);
}

/* The candidate with these values of all tunables. */
static size_t find_values(const tuner_space *space, const int *values) {
    size_t c = 0;
    for (; c < space->count; ++c) {
        const int *at = space->candidates + c * (size_t)space->num_tunables;
        int t = 0;
        while (t < space->num_tunables && space->values[t][at[t]] == values[t])
            ++t;
        if (t == space->num_tunables)
            break;
    }
    return c;
}

static cldsa_status describe_variant(worker *w, const cldsa_run *run, const cldsa_tuning_choice *known, cJSON *list) {
    tuner_space space = {0};
    const cldsa_variant *variant = run->variant;
    int fallback[TUNER_MAX_TUNABLES] = {0};
    snprintf(space.variant, sizeof space.variant, "%s", variant->name);
    cldsa_tuning_source_hash(w->ctx, variant, space.source);
    for (int t = 0; t < CLDSA_MAX_TUNABLES && variant->tunables[t].name; ++t) {
        fallback[t] = run->tune[t];
        tuner_space_tunable(&space, variant->tunables[t].name, variant->tunables[t].values, 0, fallback[t]);
    }
    cldsa_status status = tuner_space_enumerate(&space, fallback, legal, run);
    if (status == CLDSA_SUCCESS && known->match != CLDSA_TUNING_NONE)
        space.known = find_values(&space, known->tune);
    if (status == CLDSA_SUCCESS)
        cJSON_AddItemToArray(list, tuner_space_json(&space));
    tuner_space_free(&space);
    return status;
}

/* What the usual databases say of each variant: earlier tunings of this device, shipped ones of its like. */
static cldsa_status look_up_variants(worker *w, const cldsa_run *run, cldsa_tuning_choice *known) {
    CLDSA_TRY(cldsa_tuning_use(w->ctx, NULL));
    for (int v = 0; run->op->variants[v] && v < TUNER_MAX_VARIANTS; ++v)
        cldsa_tuning_lookup(run, run->op->variants[v]->name, &known[v]);
    return cldsa_tuning_use(w->ctx, "");
}

static cldsa_status describe(worker *w, cJSON *answer) {
    const cldsa_op *op = w->full.work.op;
    cldsa_run run;
    char text[TUNER_TEXT];
    cldsa_tuning_choice known[TUNER_MAX_VARIANTS];
    CLDSA_TRY(cldsa_op_plan(w->ctx, op, w->full.work.args, &run));
    CLDSA_TRY(look_up_variants(w, &run, known));
    cJSON_AddStringToObject(answer, "op", op->name);
    cJSON_AddStringToObject(answer, "chosen", run.variant->name);
    cJSON_AddStringToObject(answer, "dims", w->dims);
    cldsa_tuning_params(&run, text, sizeof text);
    cJSON_AddStringToObject(answer, "params", text);
    cldsa_tuning_dtypes(&run, text, sizeof text);
    cJSON_AddStringToObject(answer, "dtypes", text);
    cJSON_AddNumberToObject(answer, "flops", op->flops ? op->flops(&run) : 0);
    cJSON_AddNumberToObject(answer, "bytes", op->bytes ? op->bytes(&run) : 0);
    cJSON *list = cJSON_AddArrayToObject(answer, "spaces");
    for (int v = 0; op->variants[v] && v < TUNER_MAX_VARIANTS; ++v) {
        CLDSA_TRY(cldsa_op_force(w->ctx, op, op->variants[v]->name, NULL));
        cldsa_status status = cldsa_op_plan(w->ctx, op, w->full.work.args, &run);
        if (status == CLDSA_SUCCESS)
            status = describe_variant(w, &run, &known[v], list);
        if (status != CLDSA_SUCCESS && status != CLDSA_UNSUPPORTED)
            return status;
    }
    return cldsa_op_force(w->ctx, op, NULL, NULL);
}

static cldsa_status open_case(worker *w, const cJSON *request, cJSON *answer) {
    close_case(w);
    CLDSA_TRY(find_case(w, request));
    CLDSA_TRY(override(w, request));
    CLDSA_TRY(bench_place(w->ctx, w->queue, &w->test, w->dims, false, &w->full));
    CLDSA_TRY(tuner_checks_place(w->ctx, w->queue, &w->test, w->check_dims, &w->checks));
    return describe(w, answer);
}

/* ---- a trial ----------------------------------------------------------------------------------------------------- */

static tuner_outcome outcome_of(cldsa_status status) {
    switch (status) {
    case CLDSA_SUCCESS:
        return TUNER_OK;
    case CLDSA_CHECK_FAILED:
        return TUNER_WRONG;
    case CLDSA_BUILD_FAILED:
        return TUNER_BUILD;
    case CLDSA_OUT_OF_MEMORY:
    case CL_OUT_OF_RESOURCES:
    case CL_OUT_OF_HOST_MEMORY:
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_INVALID_BUFFER_SIZE:
    case CL_INVALID_WORK_GROUP_SIZE:
    case CL_INVALID_WORK_ITEM_SIZE:
        return TUNER_RESOURCES;
    default:
        return TUNER_ERROR;
    }
}

static void take_samples(const bench_samples *samples, tuner_result *result) {
    result->seconds = bench_samples_quantile(samples, 0.5);
    result->p10 = bench_samples_quantile(samples, 0.1);
    result->p90 = bench_samples_quantile(samples, 0.9);
}

/* A few runs tell whether more are worth their time. */
static cldsa_status measure(worker *w, double budget, double limit, tuner_result *result) {
    bench_task task = {.enqueue = bench_place_enqueue, .user = &w->full, .call = bench_place_call(&w->full)};
    bench_samples samples = {0};
    CLDSA_TRY(bench_warm_up(&task, 0));
    double start = bench_now();
    cldsa_status status = bench_warm_up(&task, 0);
    double once = bench_now() - start;
    bool slow = limit > 0 && once > 2 * limit + overhead_seconds;
    if (slow)
        bench_samples_add(&samples, once);
    if (status == CLDSA_SUCCESS && !slow)
        status = bench_warm_up(&task, w->on_cpu ? warm_up_cpu : warm_up_gpu);
    if (status == CLDSA_SUCCESS && !slow)
        status = bench_measure(&task, w->on_cpu, budget / 8, &samples);
    slow = slow || (limit > 0 && bench_samples_quantile(&samples, 0) > limit);
    if (status == CLDSA_SUCCESS && !slow)
        status = bench_measure(&task, w->on_cpu, budget, &samples);
    if (slow)
        result->outcome = TUNER_SLOW;
    take_samples(&samples, result);
    bench_samples_free(&samples);
    return status;
}

static bool flag(const cJSON *request, const char *name) {
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, name));
}

static cldsa_status try_candidate(worker *w, const cJSON *request, tuner_result *result) {
    const char *variant = "", *tunables = "";
    double budget = 0.1, limit = 0;
    const cldsa_op *op = w->full.work.op;
    if (!op)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "no case is open");
    CLDSA_TRY(cldsa_json_get_string(request, "request", "variant", &variant));
    CLDSA_TRY(cldsa_json_get_string(request, "request", "tunables", &tunables));
    CLDSA_TRY(cldsa_json_get_number(request, "request", "budget", 0, 3600, &budget));
    CLDSA_TRY(cldsa_json_get_number(request, "request", "limit", 0, 3600, &limit));
    CLDSA_TRY(override(w, request));
    CLDSA_TRY(cldsa_op_force(w->ctx, op, variant, tunables));
    if (flag(request, "check"))
        CLDSA_TRY(tuner_checks_run(&w->checks, &result->error));
    if (budget == 0)
        return CLDSA_SUCCESS;
    CLDSA_TRY(bench_place_workspace(&w->full));
    bool written = flag(request, "written");
    if (written)
        CLDSA_TRY(bench_place_reset(&w->full));
    CLDSA_TRY(measure(w, budget, limit, result));
    return written ? bench_place_check_written(&w->full) : CLDSA_SUCCESS;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static cldsa_status answer_request(worker *w, const cJSON *request, cJSON *answer) {
    const char *what = "";
    CLDSA_TRY(cldsa_json_get_string(request, "request", "do", &what));
    if (strcmp(what, "open") == 0)
        return open_case(w, request, answer);
    tuner_result result = {0};
    cldsa_status status = try_candidate(w, request, &result);
    if (w->full.work.op)
        cldsa_op_force(w->ctx, w->full.work.op, NULL, NULL);
    if (status != CLDSA_SUCCESS)
        result.outcome = outcome_of(status);
    cJSON_AddStringToObject(answer, "outcome", tuner_outcome_names[result.outcome]);
    cJSON_AddNumberToObject(answer, "error", result.error);
    if (status == CLDSA_SUCCESS) {
        cJSON_AddNumberToObject(answer, "seconds", result.seconds);
        cJSON_AddNumberToObject(answer, "p10", result.p10);
        cJSON_AddNumberToObject(answer, "p90", result.p90);
    }
    return status;
}

/* Takes the answer. */
static void put_line(FILE *out, cJSON *answer) {
    char *text = cJSON_PrintUnformatted(answer);
    if (text)
        fprintf(out, "%s\n", text);
    fflush(out);
    cJSON_free(text);
    cJSON_Delete(answer);
}

static void serve(worker *w, FILE *in, FILE *out) {
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, in) > 0) {
        cJSON *request = cJSON_Parse(line), *answer = cJSON_CreateObject();
        cldsa_status status = answer_request(w, request, answer);
        cJSON_AddNumberToObject(answer, "status", status);
        if (status != CLDSA_SUCCESS)
            cJSON_AddStringToObject(answer, "reason", cldsa_error_message());
        put_line(out, answer);
        cJSON_Delete(request);
    }
    free(line);
}

static cldsa_status open_device(worker *w, const char *device) {
    cldsa_device_info info;
    CLDSA_TRY(cldsa_select_device(device, &info));
    cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)info.platform, 0};
    cl_int code;
    w->cl = clCreateContext(properties, 1, &info.device, NULL, NULL, &code);
    if (!code)
        w->queue = clCreateCommandQueue(w->cl, info.device, CL_QUEUE_PROFILING_ENABLE, &code);
    if (code)
        return cldsa_fail(code, "device %s: %s", info.name, cldsa_status_text(code));
    CLDSA_TRY(cldsa_context_create(w->cl, info.device, &(cldsa_context_options){0}, &w->ctx));
    w->on_cpu = cldsa_context_capabilities(w->ctx)->is_cpu;
    return cldsa_tuning_use(w->ctx, ""); /* defaults are what the tables say */
}

/* The answer to whatever was asked. */
static void say_gone(FILE *out, cldsa_status status) {
    cJSON *answer = cJSON_CreateObject();
    cJSON_AddNumberToObject(answer, "status", status);
    cJSON_AddTrueToObject(answer, "gone");
    cJSON_AddStringToObject(answer, "reason", cldsa_error_message());
    put_line(out, answer);
}

cldsa_status tuner_worker_main(const char *device) {
    worker w = {.overrides = cJSON_CreateObject()};
    /* A tuner that is killed leaves no candidate hanging. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Compilers and drivers print as they like: answers have a channel of their own, and candidates fail in silence. */
    FILE *answers = fdopen(dup(STDOUT_FILENO), "w");
    int nowhere = open("/dev/null", O_WRONLY);
    if (!answers || nowhere < 0)
        return cldsa_fail(CLDSA_IO_ERROR, "the worker has no standard output");
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    close(nowhere);
    cldsa_status status = open_device(&w, device);
    if (status == CLDSA_SUCCESS)
        serve(&w, stdin, answers);
    else
        say_gone(answers, status);
    fclose(answers);
    close_case(&w);
    cJSON_Delete(w.overrides);
    cldsa_context_destroy(w.ctx);
    if (w.queue)
        clReleaseCommandQueue(w.queue);
    if (w.cl)
        clReleaseContext(w.cl);
    return status;
}
