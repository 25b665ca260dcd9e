/* The decision: defaults and best candidates measured in turns, so that a machine's mood hits all alike. */
#include "autotune/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROUNDS = 9,
    QUICK_ROUNDS = 5,
    FIRST_ROUNDS = 3, /* then those leave that cannot win any more */
    MANY_ROUNDS = 8,  /* from here on one of them may be lost */
    BEST = 3,
    QUICK_BEST = 2,
    MAX_FINALISTS = TUNER_MAX_VARIANTS * (BEST + 1)
};

/* Variants and candidates this much slower than the best stay out, defaults excepted. */
static const double far_variant = 2, far_candidate = 1.15;
/* A difference smaller than this is no reason to leave the default. */
static const double least_gain = 0.02;

typedef struct tuner_finalist {
    int target; /* index */
    size_t candidate;
    bool is_default;
    bool out;  /* failed */
    bool lost; /* not faster than its default at its best: rests */
    tuner_rounds rounds;
    bench_samples spreads;
    double seconds, spread;
} tuner_finalist;

/* ---- competing --------------------------------------------------------------------------------------------------- */

void tuner_rounds_add(tuner_rounds *rounds, const tuner_result *result) {
    bench_samples_add(&rounds->medians, result->seconds);
    bench_samples_add(&rounds->lows, result->p10);
}

void tuner_rounds_free(tuner_rounds *rounds) {
    bench_samples_free(&rounds->medians);
    bench_samples_free(&rounds->lows);
}

/* Of the first `count`, whose order must stay: quantiles sort. */
static double quantile(const bench_samples *samples, size_t count, double p) {
    bench_samples copy = {0};
    for (size_t i = 0; i < count && i < samples->count; ++i)
        bench_samples_add(&copy, samples->values[i]);
    double value = bench_samples_quantile(&copy, p);
    bench_samples_free(&copy);
    return value;
}

static bool faster_at_best(const tuner_rounds *a, const tuner_rounds *b, size_t count) {
    return quantile(&a->lows, count, 0) < (1 - least_gain) * quantile(&b->lows, count, 0);
}

bool tuner_clearly_faster(const tuner_rounds *a, const tuner_rounds *b) {
    const bench_samples *x = &a->medians, *y = &b->medians;
    size_t count = x->count < y->count ? x->count : y->count, losses = 0;
    for (size_t i = 0; i < count; ++i)
        losses += x->values[i] >= y->values[i];
    return count && losses <= (count >= MANY_ROUNDS) &&
           quantile(x, count, 0.5) < (1 - least_gain) * quantile(y, count, 0.5) && faster_at_best(a, b, count);
}

/* ---- who takes part ---------------------------------------------------------------------------------------------- */

static bool is_in(const tuner_finalist *finalists, int count, int target, size_t candidate) {
    for (int i = 0; i < count; ++i)
        if (finalists[i].target == target && finalists[i].candidate == candidate)
            return true;
    return false;
}

static double best_seconds(const tuner_search *search) {
    return search->best < search->space->count ? search->seconds[search->best] : INFINITY;
}

/* The next best candidate that is not in yet; count if none is near the best. */
static size_t next_best(const tuner_search *search, const tuner_finalist *finalists, int count, int target) {
    size_t chosen = search->space->count;
    for (size_t c = 0; c < search->space->count; ++c) {
        double seconds = search->seconds[c];
        if (isfinite(seconds) && seconds <= far_candidate * best_seconds(search) &&
            !is_in(finalists, count, target, c) &&
            (chosen == search->space->count || seconds < search->seconds[chosen]))
            chosen = c;
    }
    return chosen;
}

static int choose_finalists(const tuner_session *session, const tuner_case_info *info, const tuner_target *targets,
                            int num_targets, tuner_finalist *finalists) {
    const int most = session->options->quick ? QUICK_BEST : BEST;
    double best = INFINITY;
    int count = 0;
    for (int t = 0; t < num_targets; ++t)
        best = fmin(best, best_seconds(&targets[t].search));
    for (int t = 0; t < num_targets; ++t) {
        const tuner_search *search = &targets[t].search;
        bool near = isfinite(best) && best_seconds(search) <= far_variant * best;
        bool chosen = strcmp(targets[t].space->variant, info->chosen) == 0;
        if ((near || chosen) && isfinite(search->seconds[targets[t].space->fallback]))
            finalists[count++] =
                (tuner_finalist){.target = t, .candidate = targets[t].space->fallback, .is_default = true};
        for (int i = 0; i < most && near; ++i) {
            size_t candidate = next_best(search, finalists, count, t);
            if (candidate < targets[t].space->count)
                finalists[count++] = (tuner_finalist){.target = t, .candidate = candidate};
        }
    }
    return count;
}

/* ---- the rounds -------------------------------------------------------------------------------------------------- */

static void log_finalist(tuner_session *session, const tuner_target *targets, const tuner_finalist *finalist,
                         const char *text, const char *reason) {
    cJSON *record = cJSON_CreateObject();
    cJSON_AddStringToObject(record, "final", session->now->label);
    cJSON_AddStringToObject(record, "variant", targets[finalist->target].space->variant);
    cJSON_AddStringToObject(record, "tunables", text);
    if (finalist->rounds.medians.count) {
        const bench_samples *medians = &finalist->rounds.medians;
        cJSON_AddItemToObject(record, "rounds", cJSON_CreateDoubleArray(medians->values, (int)medians->count));
        cJSON_AddNumberToObject(record, "spread", finalist->spread);
    }
    if (reason)
        cJSON_AddStringToObject(record, "reason", reason);
    tuner_log_add(session->log, record);
}

static cldsa_status run_round(tuner_session *session, const tuner_target *targets, tuner_finalist *finalist,
                              bool first) {
    char text[TUNER_TEXT];
    tuner_result result;
    tuner_space_text(targets[finalist->target].space, finalist->candidate, text);
    const tuner_trial trial = {.variant = targets[finalist->target].space->variant,
                               .tunables = text,
                               .written = first,
                               .budget = session->options->quick ? 0.03 : 0.08};
    CLDSA_TRY(tuner_worker_try(&session->worker, &trial, &result));
    finalist->out = result.outcome != TUNER_OK;
    if (finalist->out) {
        log_finalist(session, targets, finalist, text, result.reason);
        return CLDSA_SUCCESS;
    }
    tuner_rounds_add(&finalist->rounds, &result);
    bench_samples_add(&finalist->spreads, (result.p90 - result.p10) / result.seconds);
    return CLDSA_SUCCESS;
}

static int default_of(const tuner_finalist *finalists, int count, int target) {
    for (int i = 0; i < count; ++i)
        if (finalists[i].target == target && finalists[i].is_default && !finalists[i].out)
            return i;
    return -1;
}

/* Marks who cannot win any more; how many others still compete. */
static int rest_losers(tuner_finalist *finalists, int count) {
    int left = 0;
    for (int i = 0; i < count; ++i) {
        int standard = default_of(finalists, count, finalists[i].target);
        const tuner_rounds *own = &finalists[i].rounds;
        if (finalists[i].out || finalists[i].lost)
            continue;
        finalists[i].lost =
            standard >= 0 && standard != i && !faster_at_best(own, &finalists[standard].rounds, own->lows.count);
        left += !finalists[i].lost;
    }
    return left;
}

static cldsa_status run_rounds(tuner_session *session, const tuner_target *targets, tuner_finalist *finalists,
                               int count) {
    const int rounds = session->options->quick ? QUICK_ROUNDS : ROUNDS;
    int left = count;
    for (int round = 0; round < rounds && (round < FIRST_ROUNDS || left > 1); ++round) {
        for (int i = 0; i < count; ++i)
            if (!finalists[i].out && !finalists[i].lost)
                CLDSA_TRY(run_round(session, targets, &finalists[i], round == 0));
        if (round + 1 >= FIRST_ROUNDS)
            left = rest_losers(finalists, count);
    }
    for (int i = 0; i < count; ++i) {
        char text[TUNER_TEXT];
        tuner_finalist *finalist = &finalists[i];
        if (finalist->out)
            continue;
        finalist->seconds = quantile(&finalist->rounds.medians, finalist->rounds.medians.count, 0.5);
        finalist->spread = bench_samples_quantile(&finalist->spreads, 0.5);
        tuner_space_text(targets[finalist->target].space, finalist->candidate, text);
        log_finalist(session, targets, finalist, text, NULL);
    }
    return CLDSA_SUCCESS;
}

/* ---- who wins ---------------------------------------------------------------------------------------------------- */

/* The fastest of those that clearly beat their default, else that; -1 if none is left. */
static int winner_of(const tuner_finalist *finalists, int count, int target) {
    const int standard = default_of(finalists, count, target);
    int best = standard;
    for (int i = 0; i < count; ++i) {
        const tuner_finalist *finalist = &finalists[i];
        if (finalist->target != target || finalist->out || finalist->lost || finalist->is_default)
            continue;
        if (standard >= 0 && !tuner_clearly_faster(&finalist->rounds, &finalists[standard].rounds))
            continue;
        if (best < 0 || finalist->seconds < finalists[best].seconds)
            best = i;
    }
    return best;
}

static void log_winner(tuner_session *session, const tuner_winner *winner) {
    cJSON *record = cJSON_CreateObject();
    cJSON_AddStringToObject(record, "winner", session->now->label);
    cJSON_AddStringToObject(record, "op", winner->op);
    cJSON_AddStringToObject(record, "kind", session->now->kind);
    cJSON_AddStringToObject(record, "variant", winner->variant);
    cJSON_AddStringToObject(record, "tunables", winner->tunables);
    cJSON_AddNumberToObject(record, "seconds", winner->seconds);
    cJSON_AddNumberToObject(record, "default_seconds", winner->default_seconds);
    cJSON_AddBoolToObject(record, "fastest", winner->fastest);
    tuner_log_add(session->log, record);
}

static void report(tuner_session *session, double before, const tuner_winner *fastest) {
    char old[32], new[32];
    double gain = before / fastest->seconds;
    cJSON *record = cJSON_CreateObject();
    cJSON_AddStringToObject(record, "done", session->now->label);
    cJSON_AddNumberToObject(record, "gain", gain);
    tuner_log_add(session->log, record);
    tuner_progress_line(session, "[%d/%d] %s: %s -> %s, %.2f x, %s %s", session->case_number, session->num_cases,
                        session->now->label, tuner_duration(before, old), tuner_duration(fastest->seconds, new), gain,
                        fastest->variant, fastest->tunables);
}

static cldsa_status store(tuner_session *session, const tuner_case_info *info, const tuner_target *targets,
                          int num_targets, const tuner_finalist *finalists, int count) {
    tuner_winner winners[TUNER_MAX_VARIANTS];
    char texts[TUNER_MAX_VARIANTS][TUNER_TEXT];
    int finalist[TUNER_MAX_VARIANTS], num_winners = 0, fastest = -1;
    double before = NAN;
    for (int t = 0; t < num_targets; ++t) {
        int best = winner_of(finalists, count, t), standard = default_of(finalists, count, t);
        if (best < 0)
            continue;
        double seconds = standard >= 0 ? finalists[standard].seconds : 0;
        const bool chosen = strcmp(targets[t].space->variant, info->chosen) == 0;
        tuner_space_text(targets[t].space, finalists[best].candidate, texts[num_winners]);
        winners[num_winners] = (tuner_winner){.op = info->op,
                                              .shape_class = session->now->preset->name,
                                              .dims = info->dims,
                                              .params = info->params,
                                              .dtypes = info->dtypes,
                                              .variant = targets[t].space->variant,
                                              .tunables = texts[num_winners],
                                              .source = targets[t].space->source,
                                              .seconds = finalists[best].seconds,
                                              .default_seconds = seconds,
                                              .spread = finalists[best].spread};
        finalist[num_winners] = best;
        if (chosen) {
            fastest = num_winners;
            before = standard >= 0 ? seconds : NAN;
        }
        ++num_winners;
    }
    /* The usual variant keeps its place as a default does. */
    for (int w = 0; w < num_winners; ++w)
        if (fastest < 0 || (winners[w].seconds < winners[fastest].seconds &&
                            tuner_clearly_faster(&finalists[finalist[w]].rounds, &finalists[finalist[fastest]].rounds)))
            fastest = w;
    if (fastest < 0)
        return CLDSA_SUCCESS;
    winners[fastest].fastest = true;
    /* A default that nothing beat goes in as such: at the shapes near this one the variant may have others. */
    tuner_winner kept[TUNER_MAX_VARIANTS];
    for (int w = 0; w < num_winners; ++w) {
        kept[w] = winners[w];
        if (finalists[finalist[w]].is_default)
            kept[w].tunables = "";
    }
    CLDSA_TRY(tuner_database_add(session->options->database, session->device, kept, (size_t)num_winners));
    for (int w = 0; w < num_winners; ++w)
        log_winner(session, &winners[w]);
    report(session, isfinite(before) ? before : winners[fastest].seconds, &winners[fastest]);
    return CLDSA_SUCCESS;
}

cldsa_status tuner_decide(tuner_session *session, const tuner_case_info *info, tuner_target *targets, int num_targets) {
    tuner_finalist finalists[MAX_FINALISTS];
    int count = choose_finalists(session, info, targets, num_targets, finalists);
    cldsa_status status = run_rounds(session, targets, finalists, count);
    if (status == CLDSA_SUCCESS)
        status = store(session, info, targets, num_targets, finalists, count);
    int left = 0;
    for (int i = 0; i < count; ++i) {
        left += !finalists[i].out;
        tuner_rounds_free(&finalists[i].rounds);
        bench_samples_free(&finalists[i].spreads);
    }
    if (status == CLDSA_SUCCESS && left == 0)
        tuner_give_up(session, "no candidate is right, the default included");
    return status;
}
