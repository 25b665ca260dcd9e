/* Strategies: which candidate to try next. */
#include "autotune/tuner.h"

#include <math.h>
#include <stdlib.h>

enum { SMALL_SPACE = 24, MOST_PROPOSALS = 400 };

/* Annealing: a candidate this much slower (as a logarithm) is taken with probability 1/e at the start and the end. */
static const double hot = 0.3, cold = 0.01;

const char *const tuner_strategy_names[] = {"auto", "exhaustive", "random", "local", "anneal", NULL};

cldsa_status tuner_search_begin(const tuner_space *space, tuner_strategy strategy, unsigned long seed,
                                tuner_search *search) {
    if (strategy == TUNER_AUTO)
        strategy = space->count <= SMALL_SPACE ? TUNER_EXHAUSTIVE : TUNER_LOCAL;
    *search = (tuner_search){.space = space, .strategy = strategy, .best = space->count, .current = space->count};
    search->seconds = malloc(space->count * sizeof *search->seconds);
    search->proposed = calloc(space->count, sizeof *search->proposed);
    search->rng = gsl_rng_alloc(gsl_rng_mt19937);
    if (!search->seconds || !search->proposed || !search->rng) {
        tuner_search_end(search);
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for a search of %zu candidates", space->count);
    }
    gsl_rng_set(search->rng, seed);
    for (size_t c = 0; c < space->count; ++c)
        search->seconds[c] = NAN;
    return CLDSA_SUCCESS;
}

void tuner_search_end(tuner_search *search) {
    free(search->seconds);
    free(search->proposed);
    if (search->rng)
        gsl_rng_free(search->rng);
    *search = (tuner_search){0};
}

static bool untried(const tuner_search *search, size_t candidate) {
    return isnan(search->seconds[candidate]) && !search->proposed[candidate];
}

static size_t num_untried(const tuner_search *search) {
    return search->space->count - search->tried - search->outstanding;
}

static size_t draw(const tuner_search *search, size_t below) {
    return (size_t)gsl_rng_uniform_int(search->rng, below);
}

/* Any untried one. */
static size_t random_untried(const tuner_search *search) {
    size_t left = draw(search, num_untried(search));
    for (size_t c = 0;; ++c)
        if (untried(search, c) && left-- == 0)
            return c;
}

/*
 * An untried neighbour of the current candidate: one other value of one tunable. Those next in the list of values are
 * twice as likely as the rest. count if there is none.
 */
static size_t neighbour(const tuner_search *search) {
    const tuner_space *space = search->space;
    const size_t width = (size_t)space->num_tunables;
    size_t chosen = space->count, weight = 0;
    for (size_t c = 0; c < space->count; ++c) {
        if (!untried(search, c) || tuner_space_distance(space, c, search->current) != 1)
            continue;
        int step = 0;
        for (size_t t = 0; t < width; ++t)
            step += abs(space->candidates[c * width + t] - space->candidates[search->current * width + t]);
        size_t own = step == 1 ? 2 : 1;
        weight += own;
        if (draw(search, weight) < own) /* of a stream of unknown length */
            chosen = c;
    }
    return chosen;
}

/*
 * Goes down from where it is; at the bottom it begins again somewhere else. Whether this is the bottom is not known
 * while times of neighbours are outstanding: count.
 */
static size_t next_local(tuner_search *search) {
    if (search->current < search->space->count) {
        size_t c = neighbour(search);
        if (c < search->space->count || search->outstanding)
            return c;
    }
    search->current = search->space->count;
    return random_untried(search);
}

/* Moves to a tried candidate, or not, as Metropolis would. */
static void accept(tuner_search *search, size_t candidate) {
    double now = search->seconds[search->current], then = search->seconds[candidate];
    double temperature = hot * pow(cold / hot, fmin(fmax(search->done, 0), 1));
    if (isfinite(then) && (then <= now || gsl_rng_uniform(search->rng) < exp(log(now / then) / temperature)))
        search->current = candidate;
}

/* Proposals differ in one or two tunables; those tried before are decided by what is known of them. */
static size_t next_anneal(tuner_search *search) {
    const tuner_space *space = search->space;
    if (search->current == space->count)
        return random_untried(search);
    for (int i = 0; i < MOST_PROPOSALS; ++i) {
        size_t c = draw(search, space->count);
        int distance = tuner_space_distance(space, c, search->current);
        if (distance < 1 || distance > 2)
            continue;
        if (untried(search, c))
            return c;
        accept(search, c);
    }
    return random_untried(search);
}

bool tuner_search_next(tuner_search *search, size_t *candidate) {
    if (num_untried(search) == 0)
        return false;
    switch (search->strategy) {
    case TUNER_LOCAL:
        *candidate = next_local(search);
        break;
    case TUNER_ANNEAL:
        *candidate = next_anneal(search);
        break;
    default: /* exhaustive too: in random order, so that an end before the end has seen of all */
        *candidate = random_untried(search);
        break;
    }
    if (*candidate == search->space->count)
        return false;
    search->proposed[*candidate] = true;
    ++search->outstanding;
    return true;
}

void tuner_search_tell(tuner_search *search, size_t candidate, double seconds) {
    const size_t none = search->space->count;
    search->tried += isnan(search->seconds[candidate]);
    search->outstanding -= search->proposed[candidate];
    search->proposed[candidate] = false;
    search->seconds[candidate] = seconds;
    if (!isfinite(seconds))
        return;
    if (search->best == none || seconds < search->seconds[search->best])
        search->best = candidate;
    if (search->current == none || seconds < search->seconds[search->current])
        search->current = candidate;
    else if (search->strategy == TUNER_ANNEAL)
        accept(search, candidate);
}
