/* The tuning as a whole: which cases, how long each, which candidates; failures of one do not end the others. */
#include "autotune/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_EARLIER = 3 };

/* A candidate this much slower than the best of its variant cannot win. */
static const double hopeless = 1.3;
/* What a variant that is far behind gets of a case's time, next to another. */
static const double backward_weight = 0.1;
/* Part of a case's time for the search; the rest is for the finals. */
static const double search_part = 0.75;
/* Part of the time for CLBlast's own parameters, where gemm is tuned too. */
static const double clblast_part = 0.15;
/* Part of the time that is kept for the cases that follow others, and what one of them takes at most. */
static const double followers_part = 0.3, follower_seconds = 1.5;
/* Part of a quick tuning's time after which no more defaults are built ahead. */
static const double build_part = 0.6;

static double trial_budget(const tuner_options *options) {
    return options->quick ? 0.03 : 0.1;
}

/* ---- trials ------------------------------------------------------------------------------------------------------ */

cJSON *tuner_open_request(const tuner_session *session, const tuner_case *test, const char *dims) {
    cJSON *request = cJSON_CreateObject();
    cJSON_AddStringToObject(request, "do", "open");
    cJSON_AddStringToObject(request, "preset", test->preset->name);
    cJSON_AddNumberToObject(request, "case", test->index);
    cJSON_AddStringToObject(request, "dims", dims ? dims : test->dims);
    cJSON_AddStringToObject(request, "check_dims", test->check_dims);
    cJSON_AddItemToObject(request, "overrides", cJSON_Duplicate(session->overrides, true));
    return request;
}

static void log_trial(tuner_session *session, const tuner_target *target, const char *text,
                      const tuner_result *result) {
    cJSON *record = cJSON_CreateObject();
    cJSON_AddStringToObject(record, "trial", session->now->label);
    cJSON_AddStringToObject(record, "variant", target->kernel ? target->kernel : target->space->variant);
    cJSON_AddStringToObject(record, "source", target->space->source);
    cJSON_AddStringToObject(record, "tunables", text);
    cJSON_AddStringToObject(record, "outcome", tuner_outcome_names[result->outcome]);
    if (isfinite(result->seconds)) {
        cJSON_AddNumberToObject(record, "seconds", result->seconds);
        cJSON_AddNumberToObject(record, "p10", result->p10);
        cJSON_AddNumberToObject(record, "p90", result->p90);
    }
    if (isfinite(result->error))
        cJSON_AddNumberToObject(record, "error", result->error);
    if (*result->reason)
        cJSON_AddStringToObject(record, "reason", result->reason);
    tuner_log_add(session->log, record);
}

/* Slower than this is not worth measuring well; 0: nothing is known yet. */
static double limit_of(const tuner_session *session, const tuner_target *target) {
    const tuner_search *search = &target->search;
    double own = search->best < search->space->count ? hopeless * search->seconds[search->best] : INFINITY;
    double limit = fmin(own, tuner_far_behind * session->default_seconds); /* fmin passes over a NaN */
    return isfinite(limit) ? limit : 0;
}

/* Runs the candidate and logs it; what the crew has found right or wrong with it already is not checked again. */
static cldsa_status run_trial(tuner_session *session, tuner_target *target, const char *text, const tuner_result *ahead,
                              tuner_result *result) {
    cJSON *overrides = NULL;
    if (ahead && ahead->outcome != TUNER_OK && ahead->outcome != TUNER_ERROR) {
        *result = *ahead;
        log_trial(session, target, text, result);
        return CLDSA_SUCCESS;
    }
    if (target->kernel) {
        overrides = session->overrides ? cJSON_Duplicate(session->overrides, true) : cJSON_CreateObject();
        char full[TUNER_TEXT];
        tuner_clblast_complete(session->device, target->kernel, text, full);
        cJSON_DeleteItemFromObjectCaseSensitive(overrides, target->kernel);
        cJSON_AddStringToObject(overrides, target->kernel, full);
    }
    const tuner_trial trial = {.variant = target->kernel ? "clblast" : target->space->variant,
                               .tunables = target->kernel ? "" : text,
                               .check = !ahead || ahead->outcome != TUNER_OK,
                               .budget = trial_budget(session->options),
                               .limit = limit_of(session, target),
                               .overrides = overrides};
    double start = bench_now();
    cldsa_status status = tuner_worker_try(&session->worker, &trial, result);
    target->spent += bench_now() - start;
    cJSON_Delete(overrides);
    if (!trial.check)
        result->error = ahead->error;
    if (status == CLDSA_SUCCESS)
        log_trial(session, target, text, result);
    return status;
}

/* What else the machine does only ever adds time: the search goes by a low quantile, the finals by medians in turns. */
static double seconds_of(const cJSON *record) {
    const char *outcome = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(record, "outcome"));
    const cJSON *seconds = cJSON_GetObjectItemCaseSensitive(record, "p10");
    bool right = outcome && (strcmp(outcome, tuner_outcome_names[TUNER_OK]) == 0 ||
                             strcmp(outcome, tuner_outcome_names[TUNER_SLOW]) == 0);
    return right && cJSON_IsNumber(seconds) ? seconds->valuedouble : INFINITY;
}

/* The candidate's trial in the log, or NULL; and its text. */
static const cJSON *find_trial(const tuner_session *session, const tuner_target *target, size_t candidate,
                               char text[TUNER_TEXT]) {
    const char *variant = target->kernel ? target->kernel : target->space->variant;
    tuner_space_text(target->space, candidate, text);
    return tuner_log_find(session->log, "trial", session->now->label, variant, target->space->source, text);
}

cldsa_status tuner_evaluate(tuner_session *session, tuner_target *target, size_t candidate, const tuner_result *ahead,
                            double *seconds) {
    char text[TUNER_TEXT];
    const cJSON *known = find_trial(session, target, candidate, text);
    if (!known) {
        tuner_result result;
        CLDSA_TRY(run_trial(session, target, text, ahead, &result));
        known = cJSON_GetArrayItem(session->log->records, cJSON_GetArraySize(session->log->records) - 1);
    }
    *seconds = seconds_of(known);
    ++session->tried;
    session->failed += !isfinite(*seconds);
    tuner_search_tell(&target->search, candidate, *seconds);
    tuner_progress_trial(session, target);
    return CLDSA_SUCCESS;
}

/* ---- one case ---------------------------------------------------------------------------------------------------- */

static double best_of(const tuner_target *targets, int count) {
    double best = INFINITY;
    for (int i = 0; i < count; ++i) {
        const tuner_search *search = &targets[i].search;
        if (search->best < search->space->count && search->seconds[search->best] < best)
            best = search->seconds[search->best];
    }
    return best;
}

/* The one that had the least of its share, and has candidates left; -1 if none has. */
static int most_owed(const tuner_session *session, const tuner_target *targets, int count) {
    double best = best_of(targets, count), least = INFINITY;
    int chosen = -1;
    for (int i = 0; i < count; ++i) {
        const tuner_search *search = &targets[i].search;
        bool hopeful = search->best < search->space->count && search->seconds[search->best] <= tuner_far_behind * best;
        if (search->tried == search->space->count || targets[i].passed_over ||
            (search->tried == 0 && session->options->quick))
            continue;
        double owed = targets[i].spent / (hopeful ? 1 : backward_weight);
        if (owed < least) {
            least = owed;
            chosen = i;
        }
    }
    return chosen;
}

/* Candidates that are looked at together: as many as the crew can check at once. */
typedef struct tuner_batch {
    size_t candidates[TUNER_MAX_CREW];
    tuner_result ahead[TUNER_MAX_CREW];
    int count;
} tuner_batch;

/* The next candidates, checked by the crew unless the log knows them. CLBlast compiles for one process only. */
static void next_batch(tuner_session *session, tuner_target *target, tuner_batch *batch) {
    char texts[TUNER_MAX_CREW][TUNER_TEXT];
    tuner_result results[TUNER_MAX_CREW];
    int where[TUNER_MAX_CREW], asked = 0;
    const int most = session->crew.size && !target->kernel ? session->crew.size : 1;
    for (batch->count = 0; batch->count < most; ++batch->count) {
        const int i = batch->count;
        if (!tuner_search_next(&target->search, &batch->candidates[i]))
            break;
        batch->ahead[i] = (tuner_result){.outcome = TUNER_ERROR};
        if (!find_trial(session, target, batch->candidates[i], texts[asked]))
            where[asked++] = i;
    }
    if (asked < 2)
        return;
    double start = bench_now();
    tuner_crew_check(&session->crew, target->space->variant, (const char(*)[TUNER_TEXT])texts, asked, results);
    target->spent += bench_now() - start;
    for (int i = 0; i < asked; ++i)
        batch->ahead[where[i]] = results[i];
}

cldsa_status tuner_explore(tuner_session *session, tuner_target *targets, int count, double until) {
    const double start = tuner_log_clock(session->log);
    for (int i = most_owed(session, targets, count); i >= 0; i = most_owed(session, targets, count)) {
        double now = tuner_log_clock(session->log), seconds;
        tuner_batch batch;
        targets[i].search.done = until > start ? (now - start) / (until - start) : 1;
        if (now + session->now->build >= until) /* a candidate takes about as long to build as the default */
            break;
        next_batch(session, &targets[i], &batch);
        if (!batch.count)
            break;
        for (int b = 0; b < batch.count && (b == 0 || tuner_log_clock(session->log) < until); ++b)
            CLDSA_TRY(tuner_evaluate(session, &targets[i], batch.candidates[b], &batch.ahead[b], &seconds));
    }
    return CLDSA_SUCCESS;
}

/* What the database says already: a new tuning shall not end below it. */
static cldsa_status try_known(tuner_session *session, tuner_target *target) {
    double seconds;
    const size_t known = target->space->known;
    if (known >= target->space->count || !isnan(target->search.seconds[known]))
        return CLDSA_SUCCESS;
    return tuner_evaluate(session, target, known, NULL, &seconds);
}

/* What won for this variant in other cases, of the same kind first, is a good place to begin. */
static cldsa_status try_earlier_winners(tuner_session *session, tuner_target *target) {
    const int before = cJSON_GetArraySize(session->log->records);
    int left = MOST_EARLIER;
    for (int same_kind = 1; same_kind >= 0; --same_kind) {
        const cJSON *record = session->log->records->child;
        for (int at = 0; at < before && left > 0; ++at, record = record->next) {
            if (!cJSON_HasObjectItem(record, "winner") ||
                strcmp(cldsa_json_text(record, "op"), session->now->op) != 0 ||
                strcmp(cldsa_json_text(record, "variant"), target->space->variant) != 0 ||
                (same_kind && strcmp(cldsa_json_text(record, "kind"), session->now->kind) != 0))
                continue;
            size_t candidate = tuner_space_find(target->space, cldsa_json_text(record, "tunables"));
            double seconds;
            if (candidate == target->space->count || !isnan(target->search.seconds[candidate]))
                continue;
            if (tuner_log_clock(session->log) + session->now->build >= session->case_end)
                return CLDSA_SUCCESS;
            --left;
            CLDSA_TRY(tuner_evaluate(session, target, candidate, NULL, &seconds));
        }
    }
    return CLDSA_SUCCESS;
}

static cldsa_status search_case(tuner_session *session, const tuner_case_info *info, tuner_target *targets, int count) {
    const double began = session->case_began;
    session->default_seconds = NAN;
    for (int pass = 0; pass < 2; ++pass) /* the variant that is taken without a database first */
        for (int i = 0; i < count; ++i) {
            double seconds;
            bool chosen = strcmp(targets[i].space->variant, info->chosen) == 0;
            bool late = tuner_log_clock(session->log) >= session->case_end;
            if (chosen != (pass == 0) || (!chosen && (late || session->options->quick)))
                continue;
            targets[i].passed_over = !chosen && tuner_is_behind(session, targets[i].space->variant);
            if (targets[i].passed_over)
                continue;
            CLDSA_TRY(tuner_evaluate(session, &targets[i], targets[i].space->fallback, NULL, &seconds));
            if (chosen && isfinite(seconds))
                session->default_seconds = seconds;
            else if (!chosen)
                tuner_note_behind(session, targets[i].space->variant, seconds);
        }
    for (int i = 0; i < count; ++i)
        if (targets[i].search.tried) {
            CLDSA_TRY(try_known(session, &targets[i]));
            CLDSA_TRY(try_earlier_winners(session, &targets[i]));
        }
    if (!session->now->follows)
        CLDSA_TRY(tuner_explore(session, targets, count, began + search_part * (session->case_end - began)));
    return tuner_decide(session, info, targets, count);
}

static cldsa_status work_on(tuner_session *session, const tuner_case_info *info) {
    tuner_target targets[TUNER_MAX_VARIANTS] = {0};
    const tuner_options *options = session->options;
    cldsa_status status = CLDSA_SUCCESS;
    int count = 0;
    for (; count < info->num_spaces && status == CLDSA_SUCCESS; ++count) {
        targets[count].space = &info->spaces[count];
        status = tuner_search_begin(&info->spaces[count], options->strategy,
                                    options->seed + (unsigned long)session->case_number, &targets[count].search);
    }
    if (status == CLDSA_SUCCESS)
        status = search_case(session, info, targets, count);
    for (int i = 0; i < count; ++i)
        tuner_search_end(&targets[i].search);
    return status;
}

void tuner_give_up(tuner_session *session, const char *reason) {
    cJSON *record = cJSON_CreateObject();
    cJSON_AddStringToObject(record, "done", session->now->label);
    cJSON_AddStringToObject(record, "reason", reason);
    tuner_log_add(session->log, record);
    ++session->broken;
    tuner_progress_line(session, "[%d/%d] %s: %s", session->case_number, session->num_cases, session->now->label,
                        reason);
}

/* Seconds for the present case: what is left, evenly, with something kept back for the followers. */
static double share_of(const tuner_session *session) {
    const int left = session->num_cases - session->case_number + 1, followers = session->followers;
    double seconds = session->end - session->case_began;
    if (left <= followers)
        return seconds / left;
    return (seconds - fmin(followers_part * seconds, followers * follower_seconds)) / (left - followers);
}

static cldsa_status tune_case(tuner_session *session, const tuner_case *test) {
    tuner_case_info info;
    session->now = test;
    session->case_began = tuner_log_clock(session->log);
    session->case_end = session->case_began + share_of(session);
    cldsa_status status = tuner_worker_open(&session->worker, tuner_open_request(session, test, NULL), &info);
    if (status != CLDSA_SUCCESS) {
        if (status == CL_DEVICE_NOT_AVAILABLE)
            return status;
        tuner_give_up(session, cldsa_error_message());
        return CLDSA_SUCCESS;
    }
    tuner_crew_case(&session->crew, tuner_open_request(session, test, test->check_dims));
    status = work_on(session, &info);
    tuner_case_info_free(&info);
    return status;
}

/* ---- building ahead ---------------------------------------------------------------------------------------------- */

typedef struct preparation {
    tuner_session *session;
    tuner_case *cases;
    int count, given, built;
    double until;
} preparation;

static bool done_before(const tuner_session *session, const char *label) {
    return tuner_log_find(session->log, "done", label, NULL, NULL, NULL) != NULL;
}

static cJSON *next_to_build(void *user, int *number) {
    preparation *p = user;
    while (p->given < p->count && done_before(p->session, p->cases[p->given].label))
        ++p->given;
    if (p->given == p->count || tuner_log_clock(p->session->log) >= p->until)
        return NULL;
    *number = p->given++;
    return tuner_open_request(p->session, &p->cases[*number], NULL);
}

/* Cases of an operation share kernels, so one that found them built says little of what another candidate takes. */
static void is_built(void *user, int number, double seconds) {
    preparation *p = user;
    for (int i = 0; i < p->count; ++i)
        if (strcmp(p->cases[i].op, p->cases[number].op) == 0)
            p->cases[i].build = fmax(p->cases[i].build, seconds);
    ++p->built;
}

/*
 * Little time is best spent on every case once before any is searched, and most of it goes into compilers, which use
 * one processor each: all of them build at the same time, before anything is timed.
 */
static void build_ahead(tuner_session *session, tuner_case *cases, int count) {
    const tuner_options *options = session->options;
    preparation p = {.session = session, .cases = cases, .count = count};
    tuner_crew crew;
    double start = tuner_log_clock(session->log);
    p.until = start + build_part * (session->end - start);
    tuner_crew_begin(session->device, options->deadline,
                     options->jobs ? options->jobs : (int)sysconf(_SC_NPROCESSORS_ONLN), &crew);
    tuner_crew_prepare(&crew, &(tuner_preparation){.next = next_to_build, .built = is_built, .user = &p});
    if (p.built)
        tuner_progress_line(session, "built the defaults of %d cases in %.0f s, in %d processes", p.built,
                            tuner_log_clock(session->log) - start, crew.size);
    tuner_crew_end(&crew);
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static cldsa_status tune_cases(tuner_session *session, const tuner_case *cases, int count) {
    session->num_cases = count;
    for (int i = 0; i < count; ++i)
        session->followers += cases[i].follows;
    for (int i = 0; i < count; ++i) {
        session->case_number = i + 1;
        if (done_before(session, cases[i].label))
            continue;
        if (tuner_log_clock(session->log) >= session->end)
            ++session->missed;
        else
            CLDSA_TRY(tune_case(session, &cases[i]));
    }
    return CLDSA_SUCCESS;
}

static cldsa_status tune_all(tuner_session *session, const tuner_case *cases, int count) {
    const tuner_options *options = session->options;
    tuner_case product;
    bool named = options->num_ops && tuner_wants(options, "clblast");
    if (!count && !named)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "nothing to tune: none of these presets has a case of %s",
                          options->num_ops == 1 ? options->ops[0] : "these operations");
    if (named || (tuner_wants(options, "gemm") && !options->quick && count)) {
        if (!tuner_find_product(options, &product))
            return named ? cldsa_fail(CLDSA_INVALID_ARGUMENT,
                                      "clblast: none of these presets holds a gemm that is large enough to tune by")
                         : tune_cases(session, cases, count);
        double left = session->end - tuner_log_clock(session->log);
        cldsa_status status = tuner_tune_clblast(session, &product, count ? clblast_part * left : left);
        if (status == CL_DEVICE_NOT_AVAILABLE || (status != CLDSA_SUCCESS && !count))
            return status;
        if (status != CLDSA_SUCCESS)
            tuner_progress_line(session, "CLBlast: %s", cldsa_error_message());
    }
    return tune_cases(session, cases, count);
}

/* Over all cases of the log, those before an interruption included. */
static void summarise(tuner_session *session) {
    double log_gain = 0;
    int gains = 0;
    const cJSON *record;
    cJSON_ArrayForEach(record, session->log->records) {
        const cJSON *gain = cJSON_GetObjectItemCaseSensitive(record, "gain");
        if (cJSON_IsNumber(gain)) {
            log_gain += log(gain->valuedouble);
            ++gains;
        }
    }
    if (gains)
        tuner_progress_line(session,
                            "%d cases, %.2f x the defaults' speed (geometric mean); %zu candidates, %zu failed", gains,
                            exp(log_gain / gains), session->tried, session->failed);
    char path[4096];
    if (tuner_picture(session->log, path) == CLDSA_SUCCESS)
        tuner_progress_line(session, "picture: %s", path);
    if (session->missed)
        tuner_progress_line(session, "%d cases were not reached; cldsa tune --resume --budget ... goes on with them",
                            session->missed);
}

cldsa_status tuner_run(const cldsa_device_info *device, const tuner_options *options, tuner_log *log) {
    tuner_session session = {.device = device, .options = options, .log = log, .default_seconds = NAN};
    tuner_case *cases;
    int count;
    CLDSA_TRY(tuner_list_cases(options, &cases, &count));
    while (options->quick && count && cases[count - 1].follows)
        --count; /* calls take the nearest shape's winner */
    session.end = options->budget;
    if (options->quick)
        build_ahead(&session, cases, count);
    tuner_worker_begin(device, options->deadline, &session.worker);
    tuner_crew_begin(device, options->deadline, options->jobs, &session.crew);
    cldsa_status status = tune_all(&session, cases, count);
    tuner_crew_end(&session.crew);
    tuner_worker_end(&session.worker);
    summarise(&session);
    if (status == CLDSA_SUCCESS && !session.missed) {
        cJSON *record = cJSON_CreateObject();
        cJSON_AddTrueToObject(record, "end");
        tuner_log_add(log, record);
    }
    cJSON_Delete(session.overrides);
    free(cases);
    if (status == CLDSA_SUCCESS && session.broken == count && count)
        status = cldsa_fail(CLDSA_UNSUPPORTED, "none of the %d cases could be tuned", session.broken);
    return status;
}
