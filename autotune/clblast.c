/*
 * Fitting CLBlast's gemm through its own mechanism. A large product goes through Xgemm (behind copies that pad and
 * transpose), a small one through XgemmDirect; GemmRoutine says where one ends and the other begins.
 *
 * Each kernel is searched at a shape that it is for, then the border between them, and last all of it against CLBlast
 * as it comes, in a process that was told nothing.
 */
#include "autotune/session.h"

#include <clblast_c.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARAMETERS = 20, DIRECT_SIZE = 192, ROUNDS = 5 };

static const char indirect_always[] = "XGEMM_MIN_INDIRECT_SIZE=1", direct_always[] = "XGEMM_MIN_INDIRECT_SIZE=1000000";

/* ---- in the worker ----------------------------------------------------------------------------------------------- */

cldsa_status tuner_clblast_override(cldsa_context *ctx, const char *kernel, const char *text) {
    char copy[TUNER_TEXT], *save = NULL;
    const char *names[MAX_PARAMETERS];
    size_t values[MAX_PARAMETERS], count = 0;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok_r(copy, ",", &save); word && count < MAX_PARAMETERS; word = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(word, '=');
        if (!equals)
            return cldsa_fail(CLDSA_INVALID_ARGUMENT, "clblast: \"%s\" is not NAME=VALUE", word);
        *equals = '\0';
        names[count] = word;
        values[count++] = (size_t)strtoull(equals + 1, NULL, 10);
    }
    CLBlastStatusCode code =
        CLBlastOverrideParameters(cldsa_context_device(ctx), kernel, CLBlastPrecisionSingle, count, names, values);
    return code == CLBlastSuccess ? CLDSA_SUCCESS
                                  : cldsa_fail(CLDSA_INVALID_ARGUMENT, "clblast: %s does not take %s (status %d)",
                                               kernel, text, (int)code);
}

/* ---- spaces ------------------------------------------------------------------------------------------------------ */

/* One parameter; its values end with a 0, with which it may begin too. */
typedef struct parameter {
    const char *name;
    int values[8], fallback;
} parameter;

typedef struct kernel_space {
    const char *kernel;
    parameter parameters[MAX_PARAMETERS];
    tuner_legal_fn legal;
    const char *rest; /* of the parameters: "NAME=VALUE" or "NAME=OTHER" */
} kernel_space;

/* Work-groups of one or few items are what CPUs like: no barriers, tiles in registers, vectors as wide as they are. */
enum { C_GEMMK, C_KREG, C_KWG, C_KWI, C_MDIMC, C_MWG, C_NDIMC, C_NWG, C_VWM, C_VWN };

static bool xgemm_cpu_legal(const void *user, const int *v) {
    (void)user;
    const int registers = v[C_MWG] / v[C_MDIMC] * (v[C_NWG] / v[C_NDIMC]);
    bool tiles = v[C_MWG] % (v[C_MDIMC] * v[C_VWM]) == 0 && v[C_NWG] % (v[C_NDIMC] * v[C_VWN]) == 0;
    bool steps = v[C_GEMMK] == 1 ? v[C_KREG] % v[C_VWN] == 0 && v[C_KWG] == 1 && v[C_KWI] == 1
                                 : v[C_KREG] == 1 && v[C_KWG] > 1 && v[C_KWI] > 1 && v[C_KWG] % v[C_NDIMC] == 0 &&
                                       v[C_KWG] % v[C_MDIMC] == 0;
    return tiles && steps && registers >= 16 && registers <= 512;
}

static const kernel_space xgemm_cpu = {
    .kernel = "Xgemm",
    .parameters = {{"GEMMK", {0, 1}, 0},
                   {"KREG", {1, 2, 4, 8}, 1},
                   {"KWG", {1, 16, 32}, 32},
                   {"KWI", {1, 2, 8}, 2},
                   {"MDIMC", {1, 2, 4, 8}, 1},
                   {"MWG", {16, 32, 64, 128}, 32},
                   {"NDIMC", {1, 2, 4, 8}, 1},
                   {"NWG", {4, 8, 16, 32, 64}, 8},
                   {"VWM", {1, 4, 8, 16}, 8},
                   {"VWN", {1, 2, 4, 8}, 8}},
    .legal = xgemm_cpu_legal,
    .rest = "MDIMA=MDIMC,NDIMB=NDIMC,SA=0,SB=0,STRM=0,STRN=0",
};

enum { G_KWG, G_KWI, G_MDIMA, G_MDIMC, G_MWG, G_NDIMB, G_NDIMC, G_NWG, G_SA, G_SB, G_VWM, G_VWN };

static bool xgemm_gpu_legal(const void *user, const int *v) {
    const cldsa_device_info *device = user;
    const int items = v[G_MDIMC] * v[G_NDIMC], registers = v[G_MWG] / v[G_MDIMC] * (v[G_NWG] / v[G_NDIMC]);
    size_t local = sizeof(cl_float) * (size_t)(v[G_KWG] * (v[G_SA] * v[G_MWG] + v[G_SB] * v[G_NWG]));
    return v[G_MWG] % (v[G_MDIMC] * v[G_VWM]) == 0 && v[G_NWG] % (v[G_NDIMC] * v[G_VWN]) == 0 &&
           v[G_MWG] % (v[G_MDIMA] * v[G_VWM]) == 0 && v[G_NWG] % (v[G_NDIMB] * v[G_VWN]) == 0 &&
           items % v[G_MDIMA] == 0 && items % v[G_NDIMB] == 0 && v[G_KWG] % (items / v[G_MDIMA]) == 0 &&
           v[G_KWG] % (items / v[G_NDIMB]) == 0 && v[G_KWG] % v[G_KWI] == 0 && registers <= 128 &&
           (v[G_SA] || v[G_MDIMA] == v[G_MDIMC]) && (v[G_SB] || v[G_NDIMB] == v[G_NDIMC]) &&
           (size_t)items <= device->max_work_group_size && local <= device->local_mem_bytes;
}

static const kernel_space xgemm_gpu = {
    .kernel = "Xgemm",
    .parameters = {{"KWG", {16, 32}, 16},
                   {"KWI", {2, 8}, 2},
                   {"MDIMA", {8, 16, 32}, 16},
                   {"MDIMC", {8, 16, 32}, 16},
                   {"MWG", {32, 64, 128}, 64},
                   {"NDIMB", {8, 16, 32}, 16},
                   {"NDIMC", {8, 16, 32}, 16},
                   {"NWG", {32, 64, 128}, 64},
                   {"SA", {0, 1}, 1},
                   {"SB", {0, 1}, 1},
                   {"VWM", {1, 2, 4, 8}, 4},
                   {"VWN", {1, 2, 4, 8}, 4}},
    .legal = xgemm_gpu_legal,
    .rest = "GEMMK=0,KREG=1,STRM=0,STRN=0",
};

enum { D_KWID, D_MDIMCD, D_NDIMCD, D_VWMD, D_VWND, D_WGD };

static bool direct_legal(const void *user, const int *v) {
    const cldsa_device_info *device = user;
    const int items = v[D_MDIMCD] * v[D_NDIMCD];
    size_t local = 2 * sizeof(cl_float) * (size_t)(v[D_WGD] * (v[D_WGD] + 1));
    return v[D_WGD] % (v[D_MDIMCD] * v[D_VWMD]) == 0 && v[D_WGD] % (v[D_NDIMCD] * v[D_VWND]) == 0 &&
           v[D_WGD] % v[D_KWID] == 0 && (size_t)items <= device->max_work_group_size &&
           v[D_WGD] * v[D_WGD] / items <= 256 && local <= device->local_mem_bytes;
}

static const kernel_space direct = {
    .kernel = "XgemmDirect",
    .parameters = {{"KWID", {2, 8, 16}, 2},
                   {"MDIMCD", {1, 2, 4, 8, 16, 32}, 8},
                   {"NDIMCD", {1, 2, 4, 8, 16, 32}, 8},
                   {"VWMD", {1, 2, 4, 8}, 1},
                   {"VWND", {1, 2, 4, 8}, 1},
                   {"WGD", {8, 16, 32, 64}, 8}},
    .legal = direct_legal,
    .rest = "MDIMAD=MDIMCD,NDIMBD=NDIMCD,PADA=1,PADB=1",
};

static const kernel_space *space_of(const cldsa_device_info *device, const char *kernel) {
    if (strcmp(kernel, direct.kernel) == 0)
        return &direct;
    return device->type & CL_DEVICE_TYPE_CPU ? &xgemm_cpu : &xgemm_gpu;
}

static cldsa_status make_space(const cldsa_device_info *device, const char *kernel, tuner_space *space) {
    const kernel_space *from = space_of(device, kernel);
    int fallback[TUNER_MAX_TUNABLES] = {0};
    *space = (tuner_space){.variant = "clblast"};
    for (int i = 0; from->parameters[i].name; ++i) {
        const parameter *p = &from->parameters[i];
        int count = p->values[0] == 0; /* a list may begin with a 0 */
        while (count < 8 && p->values[count])
            ++count;
        fallback[i] = p->fallback;
        tuner_space_tunable(space, p->name, p->values, count, p->fallback);
    }
    return tuner_space_enumerate(space, fallback, from->legal, device);
}

void tuner_clblast_complete(const cldsa_device_info *device, const char *kernel, const char *text,
                            char full[TUNER_TEXT]) {
    char copy[TUNER_TEXT], value[CLDSA_WORKLOAD_TEXT], *save = NULL;
    snprintf(copy, sizeof copy, "%s", space_of(device, kernel)->rest);
    size_t used = (size_t)snprintf(full, TUNER_TEXT, "%s", text);
    for (char *word = strtok_r(copy, ",", &save); word && used < TUNER_TEXT; word = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        const bool follows = cldsa_workload_option(text, ',', equals + 1, value);
        used += (size_t)snprintf(full + used, TUNER_TEXT - used, ",%s=%s", word, follows ? value : equals + 1);
    }
}

/* ---- the search -------------------------------------------------------------------------------------------------- */

static void set_override(tuner_session *session, const char *kernel, const char *text) {
    if (!session->overrides)
        session->overrides = cJSON_CreateObject();
    cJSON_DeleteItemFromObjectCaseSensitive(session->overrides, kernel);
    cJSON_AddStringToObject(session->overrides, kernel, text);
}

/* A square product of this size, under a label of its own. */
static cldsa_status open_square(tuner_session *session, const tuner_case *product, int size, tuner_case *square) {
    tuner_case_info info;
    *square = *product;
    snprintf(square->dims, sizeof square->dims, "M=%d N=%d K=%d", size, size, size);
    snprintf(square->label, sizeof square->label, "clblast %s", square->dims);
    session->now = square;
    CLDSA_TRY(tuner_worker_open(&session->worker, tuner_open_request(session, square, NULL), &info));
    tuner_case_info_free(&info);
    return CLDSA_SUCCESS;
}

/* Searches the open case; the best parameters become an override. */
static cldsa_status search_kernel(tuner_session *session, const char *kernel, double until) {
    tuner_space space;
    tuner_target target = {.space = &space, .kernel = kernel};
    double seconds;
    cldsa_status status = make_space(session->device, kernel, &space);
    if (status == CLDSA_SUCCESS)
        status = tuner_search_begin(&space, session->options->strategy, session->options->seed, &target.search);
    if (status == CLDSA_SUCCESS)
        status = tuner_evaluate(session, &target, space.fallback, NULL, &seconds);
    if (status == CLDSA_SUCCESS)
        status = tuner_explore(session, &target, 1, until);
    if (status == CLDSA_SUCCESS && target.search.best < space.count) {
        char text[TUNER_TEXT], full[TUNER_TEXT];
        tuner_space_text(&space, target.search.best, text);
        tuner_clblast_complete(session->device, kernel, text, full);
        set_override(session, kernel, full);
    }
    tuner_search_end(&target.search);
    tuner_space_free(&space);
    return status;
}

/* The worker's case with the parameters that it was opened with. */
static cldsa_status time_once(tuner_worker *worker, tuner_result *result) {
    const tuner_trial trial = {.variant = "clblast", .tunables = "", .check = true, .budget = 0.1};
    CLDSA_TRY(tuner_worker_try(worker, &trial, result));
    if (result->outcome != TUNER_OK)
        result->seconds = result->p10 = INFINITY;
    return CLDSA_SUCCESS;
}

/* The smallest size from which on the large kernel is the faster one. */
static cldsa_status find_border(tuner_session *session, const tuner_case *product, int most) {
    static const int sizes[] = {64, 96, 128, 192, 256, 384, 512, 768, 1024};
    enum { NUM_SIZES = sizeof sizes / sizeof *sizes };
    double seconds[2][NUM_SIZES];
    int border = 0;
    for (int mode = 0; mode < 2; ++mode) { /* each compiles once */
        set_override(session, "GemmRoutine", mode ? indirect_always : direct_always);
        for (int i = 0; i < NUM_SIZES && sizes[i] <= most; ++i) {
            tuner_case square;
            CLDSA_TRY(open_square(session, product, sizes[i], &square));
            tuner_result result;
            CLDSA_TRY(time_once(&session->worker, &result));
            seconds[mode][i] = result.p10;
        }
    }
    for (int i = 0; i < NUM_SIZES && sizes[i] <= most; ++i)
        if (seconds[0][i] < seconds[1][i])
            border = sizes[i] + 1;
    char text[64];
    snprintf(text, sizeof text, "XGEMM_MIN_INDIRECT_SIZE=%d", border > 1 ? border : 1);
    set_override(session, "GemmRoutine", text);
    return CLDSA_SUCCESS;
}

/* ---- against CLBlast as it comes --------------------------------------------------------------------------------- */

static cldsa_status store(tuner_session *session, double seconds, double before) {
    const cJSON *item;
    cJSON_ArrayForEach(item, session->overrides) {
        CLDSA_TRY(tuner_database_add_clblast(session->options->database, session->device, item->string, 32,
                                             item->valuestring, seconds, before));
    }
    return CLDSA_SUCCESS;
}

static cldsa_status decide(tuner_session *session, const tuner_case *product) {
    tuner_worker plain;
    tuner_case_info info;
    tuner_rounds tuned = {0}, untuned = {0};
    tuner_result result;
    char old[32], new[32];
    cJSON *request = tuner_open_request(session, product, NULL);
    cJSON_DeleteItemFromObjectCaseSensitive(request, "overrides");
    tuner_worker_begin(session->device, session->options->deadline, &plain);
    cldsa_status status = tuner_worker_open(&plain, request, &info);
    if (status == CLDSA_SUCCESS) {
        tuner_case_info_free(&info);
        status = tuner_worker_open(&session->worker, tuner_open_request(session, product, NULL), &info);
    }
    if (status == CLDSA_SUCCESS)
        tuner_case_info_free(&info);
    for (int round = 0; round < ROUNDS && status == CLDSA_SUCCESS; ++round) {
        status = time_once(&plain, &result);
        tuner_rounds_add(&untuned, &result);
        if (status == CLDSA_SUCCESS)
            status = time_once(&session->worker, &result);
        tuner_rounds_add(&tuned, &result);
    }
    tuner_worker_end(&plain);
    if (status == CLDSA_SUCCESS) {
        const bool faster = tuner_clearly_faster(&tuned, &untuned); /* not where both fail */
        double before = bench_samples_quantile(&untuned.medians, 0.5);
        double after = bench_samples_quantile(&tuned.medians, 0.5);
        if (faster)
            status = store(session, after, before);
        else {
            cJSON_Delete(session->overrides);
            session->overrides = NULL;
        }
        tuner_progress_line(session, "CLBlast, %s: %s -> %s, %.2f x%s", product->dims, tuner_duration(before, old),
                            tuner_duration(after, new), before / after, faster ? "" : "; its defaults stay");
    }
    tuner_rounds_free(&tuned);
    tuner_rounds_free(&untuned);
    return status;
}

/* What a tuning that goes on has found already. */
static bool done_before(tuner_session *session, const char *label) {
    const cJSON *record = tuner_log_find(session->log, "done", label, NULL, NULL, NULL);
    if (record)
        session->overrides = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(record, "overrides"), true);
    return record != NULL;
}

cldsa_status tuner_tune_clblast(tuner_session *session, const tuner_case *product, double budget) {
    tuner_case large = *product, square;
    int most = 1024, m = 0;
    snprintf(large.label, sizeof large.label, "clblast %s", product->dims);
    if (sscanf(product->dims, "M=%d", &m) == 1 && m < most)
        most = m;
    if (done_before(session, large.label))
        return CLDSA_SUCCESS;
    const double began = tuner_log_clock(session->log);
    session->now = &large;
    session->default_seconds = NAN;
    set_override(session, "GemmRoutine", indirect_always);
    tuner_case_info info;
    CLDSA_TRY(tuner_worker_open(&session->worker, tuner_open_request(session, &large, NULL), &info));
    tuner_case_info_free(&info);
    CLDSA_TRY(search_kernel(session, "Xgemm", began + 0.6 * budget));
    set_override(session, "GemmRoutine", direct_always);
    CLDSA_TRY(open_square(session, product, DIRECT_SIZE, &square));
    CLDSA_TRY(search_kernel(session, "XgemmDirect", began + 0.8 * budget));
    CLDSA_TRY(find_border(session, product, most));
    session->now = &large;
    CLDSA_TRY(decide(session, &large));
    cJSON *record = cJSON_CreateObject();
    cJSON_AddStringToObject(record, "done", large.label);
    cJSON_AddItemToObject(record, "overrides", cJSON_Duplicate(session->overrides, true));
    tuner_log_add(session->log, record);
    return CLDSA_SUCCESS;
}
