/*
 * The crew: where compiling and checking takes longer than timing, as on GPUs, many candidates can be made ready at
 * once, and only the timing needs the device for itself.
 */
#include "autotune/tuner.h"

#include <pthread.h>
#include <unistd.h>

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
    cJSON_Delete(crew->open);
    *crew = (tuner_crew){0};
}

void tuner_crew_case(tuner_crew *crew, cJSON *request) {
    cJSON_Delete(crew->open);
    crew->open = request;
    for (int i = 0; i < crew->size; ++i)
        crew->late[i] = true;
}

/* What one member does with one candidate, on a thread of its own. */
typedef struct job {
    tuner_worker *worker;
    bool *late;
    cJSON *open;
    tuner_trial trial;
    tuner_result *result;
} job;

static cldsa_status open_present_case(job *j) {
    tuner_case_info info;
    cJSON *request = j->open;
    j->open = NULL;
    CLDSA_TRY(tuner_worker_open(j->worker, request, &info));
    tuner_case_info_free(&info);
    *j->late = false;
    return CLDSA_SUCCESS;
}

static void *do_job(void *user) {
    job *j = user;
    *j->result = (tuner_result){.outcome = TUNER_ERROR};
    cldsa_status status = *j->late ? open_present_case(j) : CLDSA_SUCCESS;
    if (status == CLDSA_SUCCESS)
        status = tuner_worker_try(j->worker, &j->trial, j->result);
    tuner_outcome outcome = j->result->outcome;
    /* Memory and time are shared: too little of them says nothing of the candidate. */
    if (status != CLDSA_SUCCESS || outcome == TUNER_RESOURCES || outcome == TUNER_HANG)
        j->result->outcome = TUNER_ERROR;
    return NULL;
}

void tuner_crew_check(tuner_crew *crew, const char *variant, const char texts[][TUNER_TEXT], int count,
                      tuner_result *results) {
    job jobs[TUNER_MAX_CREW];
    pthread_t threads[TUNER_MAX_CREW];
    bool started[TUNER_MAX_CREW];
    for (int i = 0; i < count; ++i) {
        jobs[i] = (job){.worker = &crew->members[i],
                        .late = &crew->late[i],
                        .open = crew->late[i] ? cJSON_Duplicate(crew->open, true) : NULL,
                        .trial = {.variant = variant, .tunables = texts[i], .check = true},
                        .result = &results[i]};
        started[i] = pthread_create(&threads[i], NULL, do_job, &jobs[i]) == 0;
        if (!started[i])
            do_job(&jobs[i]);
    }
    for (int i = 0; i < count; ++i)
        if (started[i])
            pthread_join(threads[i], NULL);
}
