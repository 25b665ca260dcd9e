/*
 * This side of a trial: the worker process, its deadline, and what its answers mean; and the crew. Where compiling and
 * checking takes longer than timing, as on GPUs, many candidates can be made ready at once, and only the timing needs
 * the device for itself.
 */
#include "autotune/tuner.h"

#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often a new process may fail to come up before its device counts as gone. */
enum { OPENINGS = 3 };

/* Computing references and placing tensors is not the candidates' fault: a case may take longer to open. */
static const double open_factor = 10;

const char *const tuner_outcome_names[] = {"ok", "slow", "wrong", "build", "resources", "hang", "crash", "error", NULL};

void tuner_worker_begin(const cldsa_device_info *device, double deadline, tuner_worker *worker) {
    *worker = (tuner_worker){.deadline = deadline, .process = {.pid = -1, .in = -1, .out = -1}};
    snprintf(worker->device, sizeof worker->device, "%d", device->index);
}

static void stop(tuner_worker *worker, bool by_force) {
    if (by_force && worker->process.pid > 0)
        kill(worker->process.pid, SIGKILL);
    bench_process_stop(&worker->process);
}

void tuner_worker_end(tuner_worker *worker) {
    stop(worker, false);
    cJSON_Delete(worker->open);
    worker->open = NULL;
}

static cldsa_status start(tuner_worker *worker) {
    char program[] = "/proc/self/exe", command[] = "tune", hidden[] = "--worker", option[] = "--device";
    char *const argv[] = {program, command, hidden, option, worker->device, NULL};
    return bench_process_start(argv, &worker->process);
}

static cldsa_status status_of(const cJSON *answer) {
    const cJSON *status = cJSON_GetObjectItemCaseSensitive(answer, "status");
    const char *reason = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "reason"));
    if (!cJSON_IsNumber(status))
        return cldsa_fail(CLDSA_IO_ERROR, "the worker's answer has no status");
    return status->valueint ? cldsa_fail(status->valueint, "%s", reason ? reason : "") : CLDSA_SUCCESS;
}

/* Starts the process if there is none and asks it to open the present case. */
static cldsa_status ask_to_open(tuner_worker *worker) {
    if (worker->process.pid <= 0)
        CLDSA_TRY(start(worker));
    return bench_process_tell(&worker->process, worker->open);
}

/* What it says to that; `answer` may be NULL. */
static cldsa_status hear_of_open(tuner_worker *worker, cJSON **answer) {
    cJSON *own = NULL;
    cldsa_status status = bench_process_ask(&worker->process, NULL, open_factor * worker->deadline, &own);
    if (status == CLDSA_SUCCESS)
        status = status_of(own);
    bool gone = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(own, "gone"));
    if (!own || gone)
        stop(worker, true);
    if (answer && status == CLDSA_SUCCESS)
        *answer = own;
    else
        cJSON_Delete(own);
    return gone ? cldsa_fail_prefix(CL_DEVICE_NOT_AVAILABLE, "the device no longer answers") : status;
}

static cldsa_status open_once(tuner_worker *worker, cJSON **answer) {
    cldsa_status status = ask_to_open(worker);
    if (status == CLDSA_SUCCESS)
        return hear_of_open(worker, answer);
    stop(worker, true);
    return status;
}

/* A driver may need a moment after what a candidate did to it. */
static cldsa_status open_again(tuner_worker *worker, cJSON **answer) {
    cldsa_status status = open_once(worker, answer);
    for (int i = 1; i < OPENINGS && worker->process.pid <= 0; ++i) {
        sleep(1);
        status = open_once(worker, answer);
    }
    return status;
}

/* ---- opening a case ---------------------------------------------------------------------------------------------- */

static cldsa_status copy_string(const cJSON *answer, const char *key, char *to, size_t size) {
    const char *text = "";
    CLDSA_TRY(cldsa_json_get_string(answer, "the worker's answer", key, &text));
    snprintf(to, size, "%s", text);
    return CLDSA_SUCCESS;
}

static cldsa_status parse_case(const cJSON *answer, tuner_case_info *info) {
    CLDSA_TRY(copy_string(answer, "op", info->op, sizeof info->op));
    CLDSA_TRY(copy_string(answer, "dims", info->dims, sizeof info->dims));
    CLDSA_TRY(copy_string(answer, "params", info->params, sizeof info->params));
    CLDSA_TRY(copy_string(answer, "dtypes", info->dtypes, sizeof info->dtypes));
    CLDSA_TRY(copy_string(answer, "chosen", info->chosen, sizeof info->chosen));
    CLDSA_TRY(cldsa_json_get_number(answer, "the worker's answer", "flops", 0, HUGE_VAL, &info->flops));
    CLDSA_TRY(cldsa_json_get_number(answer, "the worker's answer", "bytes", 0, HUGE_VAL, &info->bytes));
    const cJSON *space;
    cJSON_ArrayForEach(space, cJSON_GetObjectItemCaseSensitive(answer, "spaces")) {
        if (info->num_spaces < TUNER_MAX_VARIANTS)
            CLDSA_TRY(tuner_space_parse(space, &info->spaces[info->num_spaces++]));
    }
    return CLDSA_SUCCESS;
}

static void set_case(tuner_worker *worker, cJSON *request) {
    cJSON_Delete(worker->open);
    worker->open = request;
}

cldsa_status tuner_worker_open(tuner_worker *worker, cJSON *request, tuner_case_info *info) {
    *info = (tuner_case_info){0};
    set_case(worker, request);
    cJSON *answer = NULL;
    cldsa_status status = open_again(worker, &answer);
    if (status == CLDSA_SUCCESS)
        status = parse_case(answer, info);
    cJSON_Delete(answer);
    if (status != CLDSA_SUCCESS)
        tuner_case_info_free(info);
    return status;
}

void tuner_case_info_free(tuner_case_info *info) {
    for (int i = 0; i < info->num_spaces; ++i)
        tuner_space_free(&info->spaces[i]);
    info->num_spaces = 0;
}

/* ---- trials ------------------------------------------------------------------------------------------------------ */

static cJSON *request_of(const tuner_trial *trial) {
    cJSON *request = cJSON_CreateObject();
    cJSON_AddStringToObject(request, "do", "try");
    cJSON_AddStringToObject(request, "variant", trial->variant);
    cJSON_AddStringToObject(request, "tunables", trial->tunables);
    cJSON_AddBoolToObject(request, "check", trial->check);
    cJSON_AddBoolToObject(request, "written", trial->written);
    cJSON_AddNumberToObject(request, "budget", trial->budget);
    cJSON_AddNumberToObject(request, "limit", trial->limit);
    if (trial->overrides)
        cJSON_AddItemToObject(request, "overrides", cJSON_Duplicate(trial->overrides, true));
    return request;
}

static double number(const cJSON *answer, const char *key) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(answer, key);
    return cJSON_IsNumber(value) ? value->valuedouble : NAN;
}

static void parse_result(const cJSON *answer, tuner_result *result) {
    const char *outcome = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "outcome"));
    const char *reason = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "reason"));
    result->outcome = TUNER_ERROR;
    for (int i = 0; outcome && tuner_outcome_names[i]; ++i)
        if (strcmp(outcome, tuner_outcome_names[i]) == 0)
            result->outcome = (tuner_outcome)i;
    result->seconds = number(answer, "seconds");
    result->p10 = number(answer, "p10");
    result->p90 = number(answer, "p90");
    result->error = number(answer, "error");
    snprintf(result->reason, sizeof result->reason, "%s", reason ? reason : "");
}

static bool send_trial(tuner_worker *worker, const tuner_trial *trial) {
    cJSON *request = request_of(trial);
    worker->asked = bench_now();
    cldsa_status status = bench_process_tell(&worker->process, request);
    cJSON_Delete(request);
    return status == CLDSA_SUCCESS;
}

/* The outcome of the trial that was sent, or why there is no answer. */
static void hear_of_trial(tuner_worker *worker, const tuner_trial *trial, bool sent, tuner_result *result) {
    cJSON *answer = NULL;
    double patience = worker->deadline + 2 * trial->budget - (bench_now() - worker->asked);
    if (sent && bench_process_ask(&worker->process, NULL, fmax(patience, 0), &answer) == CLDSA_SUCCESS) {
        parse_result(answer, result);
        cJSON_Delete(answer);
        /* Some drivers fail every call after a fault: the next candidate gets a process of its own. */
        if (result->outcome == TUNER_ERROR || result->outcome == TUNER_RESOURCES)
            stop(worker, true);
        return;
    }
    bool late = bench_now() - worker->asked >= worker->deadline;
    result->outcome = late ? TUNER_HANG : TUNER_CRASH;
    if (late)
        snprintf(result->reason, sizeof result->reason, "no answer within %.0f s", worker->deadline);
    else
        snprintf(result->reason, sizeof result->reason, "it ended its process");
    stop(worker, true);
}

static const tuner_result no_result = {.outcome = TUNER_ERROR, .seconds = NAN, .p10 = NAN, .p90 = NAN, .error = NAN};

cldsa_status tuner_worker_try(tuner_worker *worker, const tuner_trial *trial, tuner_result *result) {
    *result = no_result;
    if (worker->process.pid <= 0)
        CLDSA_TRY(open_again(worker, NULL));
    hear_of_trial(worker, trial, send_trial(worker, trial), result);
    return CLDSA_SUCCESS;
}

/* ---- many at once ------------------------------------------------------------------------------------------------ */

void tuner_crew_begin(const cldsa_device_info *device, double deadline, int jobs, tuner_crew *crew) {
    *crew = (tuner_crew){.size = jobs ? jobs : (int)sysconf(_SC_NPROCESSORS_ONLN) / 2};
    if (crew->size > TUNER_MAX_CREW)
        crew->size = TUNER_MAX_CREW;
    if (crew->size < 2)
        crew->size = 0;
    for (int i = 0; i < crew->size; ++i)
        tuner_worker_begin(device, deadline, &crew->members[i]);
}

void tuner_crew_end(tuner_crew *crew) {
    for (int i = 0; i < crew->size; ++i)
        tuner_worker_end(&crew->members[i]);
    *crew = (tuner_crew){0};
}

void tuner_crew_case(tuner_crew *crew, cJSON *request) {
    for (int i = 0; i < crew->size; ++i) {
        set_case(&crew->members[i], cJSON_Duplicate(request, true));
        crew->late[i] = true;
    }
    cJSON_Delete(request);
}

/* Opens the present case in the first `count` members that have not done so yet. */
static void catch_up(tuner_crew *crew, int count) {
    bool asked[TUNER_MAX_CREW] = {false};
    for (int i = 0; i < count; ++i) {
        tuner_worker *member = &crew->members[i];
        crew->late[i] |= member->process.pid <= 0;
        asked[i] = crew->late[i] && ask_to_open(member) == CLDSA_SUCCESS;
    }
    for (int i = 0; i < count; ++i)
        if (asked[i])
            crew->late[i] = hear_of_open(&crew->members[i], NULL) != CLDSA_SUCCESS;
}

void tuner_crew_check(tuner_crew *crew, const char *variant, const char texts[][TUNER_TEXT], int count,
                      tuner_result *results) {
    tuner_trial trials[TUNER_MAX_CREW];
    bool sent[TUNER_MAX_CREW];
    catch_up(crew, count);
    for (int i = 0; i < count; ++i) {
        results[i] = no_result;
        trials[i] = (tuner_trial){.variant = variant, .tunables = texts[i], .check = true};
        sent[i] = !crew->late[i] && send_trial(&crew->members[i], &trials[i]);
    }
    for (int i = 0; i < count; ++i) {
        if (!crew->late[i])
            hear_of_trial(&crew->members[i], &trials[i], sent[i], &results[i]);
        /* Memory and time are shared: too little of them says nothing of the candidate. */
        if (results[i].outcome == TUNER_RESOURCES || results[i].outcome == TUNER_HANG)
            results[i].outcome = TUNER_ERROR;
    }
}

/* ---- building ahead ---------------------------------------------------------------------------------------------- */

/* What a member is at. */
typedef struct preparing {
    enum { IDLE, OPENING, RUNNING } at;
    int number; /* of its case */
    double began, until;
    tuner_trial trial;
    char tunables[TUNER_TEXT], variant[32];
} preparing;

/* The next case that this member can open; false: there is none. */
static bool begin_preparing(tuner_worker *member, const tuner_preparation *what, preparing *state) {
    cJSON *request;
    while (state->at == IDLE && (request = what->next(what->user, &state->number)) != NULL) {
        set_case(member, request);
        state->began = bench_now();
        state->until = state->began + open_factor * member->deadline;
        if (ask_to_open(member) == CLDSA_SUCCESS)
            state->at = OPENING;
        else
            stop(member, true);
    }
    return state->at != IDLE;
}

/* The defaults of the variant that is usual there, given up on after the first run at full size. */
static bool send_defaults(tuner_worker *member, const tuner_case_info *info, preparing *state) {
    const tuner_space *space = NULL;
    for (int i = 0; i < info->num_spaces; ++i)
        if (strcmp(info->spaces[i].variant, info->chosen) == 0)
            space = &info->spaces[i];
    if (!space)
        return false;
    tuner_space_text(space, space->fallback, state->tunables);
    snprintf(state->variant, sizeof state->variant, "%s", space->variant);
    state->trial = (tuner_trial){
        .variant = state->variant, .tunables = state->tunables, .check = true, .budget = 1e-3, .limit = 1e-9};
    state->until = bench_now() + member->deadline;
    return send_trial(member, &state->trial);
}

/* Hears a member that has an answer or none in time. What is wrong with a default is found again where it counts. */
static void go_on_preparing(tuner_worker *member, const tuner_preparation *what, preparing *state) {
    if (state->at == OPENING) {
        tuner_case_info info = {0};
        cJSON *answer = NULL;
        bool opened = hear_of_open(member, &answer) == CLDSA_SUCCESS && parse_case(answer, &info) == CLDSA_SUCCESS;
        state->at = opened && send_defaults(member, &info, state) ? RUNNING : IDLE;
        cJSON_Delete(answer);
        tuner_case_info_free(&info);
        return;
    }
    tuner_result result = no_result;
    hear_of_trial(member, &state->trial, true, &result);
    state->at = IDLE;
    what->built(what->user, state->number, bench_now() - state->began);
}

/* A busy member that has something to say, or whose time is over. */
static int wait_for_one(const tuner_crew *crew, const preparing *states) {
    struct pollfd files[TUNER_MAX_CREW];
    int who[TUNER_MAX_CREW], count = 0, first = -1;
    for (int i = 0; i < crew->size; ++i) {
        if (states[i].at == IDLE)
            continue;
        first = first < 0 || states[i].until < states[first].until ? i : first;
        files[count] = (struct pollfd){.fd = crew->members[i].process.out, .events = POLLIN};
        who[count++] = i;
    }
    double left = states[first].until - bench_now();
    poll(files, (nfds_t)count, left > 0 ? (int)(1e3 * left) + 1 : 0);
    for (int i = 0; i < count; ++i)
        if (files[i].revents)
            return who[i];
    return bench_now() >= states[first].until ? first : -1;
}

void tuner_crew_prepare(tuner_crew *crew, const tuner_preparation *what) {
    preparing states[TUNER_MAX_CREW] = {{0}};
    for (;;) {
        bool busy = false;
        for (int i = 0; i < crew->size; ++i)
            busy |= begin_preparing(&crew->members[i], what, &states[i]);
        if (!busy)
            return;
        int one = wait_for_one(crew, states);
        if (one >= 0)
            go_on_preparing(&crew->members[one], what, &states[one]);
    }
}
