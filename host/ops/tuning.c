/* Asking the tuning database: the state that hangs on a context, and the choice for a call. */
#include "host/ops/tuning_database.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the context's database ---------------------------------------------------------------------------------------
 */

typedef struct tuning_state {
    pthread_mutex_t lock;
    tuning_database *database; /* NULL until the first call */
    bool clblast_told;
} tuning_state;

static void *create_state(void) {
    tuning_state *state = calloc(1, sizeof *state);
    if (state)
        pthread_mutex_init(&state->lock, NULL);
    return state;
}

static void release_state(void *opaque) {
    tuning_state *state = opaque;
    tuning_free(state->database);
    pthread_mutex_destroy(&state->lock);
    free(state);
}

/* NULL without memory: then there is no database. */
static tuning_state *state_of(cldsa_context *ctx) {
    return cldsa_context_extension(ctx, create_state, release_state);
}

/* With the lock held: loaded when first asked for. Damage was reported, and what is left of it is empty. */
static tuning_database *database_of(cldsa_context *ctx, tuning_state *state) {
    if (!state->database && tuning_load(ctx, NULL, &state->database) == CLDSA_SUCCESS)
        state->database->users = 1;
    return state->database;
}

/* Lookups call back into operations, which may look up in turn: so they hold the database, not the lock. */
static tuning_database *acquire(cldsa_context *ctx, tuning_state *state) {
    pthread_mutex_lock(&state->lock);
    tuning_database *database = database_of(ctx, state);
    if (database)
        database->users++;
    pthread_mutex_unlock(&state->lock);
    return database;
}

static void release(tuning_state *state, tuning_database *database) {
    pthread_mutex_lock(&state->lock);
    bool last = --database->users == 0;
    pthread_mutex_unlock(&state->lock);
    if (last)
        tuning_free(database);
}

cldsa_status cldsa_tuning_use(cldsa_context *ctx, const char *path) {
    tuning_state *state = state_of(ctx);
    if (!state)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "tuning database: out of memory");
    tuning_database *fresh;
    CLDSA_TRY(tuning_load(ctx, path, &fresh));
    fresh->users = 1;
    pthread_mutex_lock(&state->lock);
    tuning_database *old = state->database;
    state->database = fresh;
    state->clblast_told = false;
    pthread_mutex_unlock(&state->lock);
    if (old)
        release(state, old);
    return CLDSA_SUCCESS;
}

void cldsa_tuning_clblast(cldsa_context *ctx,
                          void (*apply)(cldsa_context *ctx, const cldsa_tuning_clblast_kernel *kernel)) {
    tuning_state *state = state_of(ctx);
    if (!state)
        return;
    pthread_mutex_lock(&state->lock); /* to the end: another thread's first product waits for the parameters */
    const tuning_database *database = state->clblast_told ? NULL : database_of(ctx, state);
    for (size_t i = 0; database && i < database->num_kernels; ++i)
        apply(ctx, &database->kernels[i]);
    state->clblast_told = true;
    pthread_mutex_unlock(&state->lock);
}

/* ---- the choice for a call ----------------------------------------------------------------------------------------
 */

/* A call's place, against which entries are held. */
typedef struct call_place {
    const cldsa_run *run;
    unsigned char traits[CLDSA_MAX_FIELDS];
    int num_traits, num_dims;
    float log_dims[CLDSA_MAX_DIMS];
} call_place;

static void find_place(const cldsa_run *run, call_place *out) {
    out->run = run;
    out->num_traits = tuning_traits(run, out->traits);
    out->num_dims = 0;
    for (int i = 0; run->op->dims[i]; ++i)
        out->log_dims[out->num_dims++] = run->dims[i] > 0 ? log2f((float)run->dims[i]) : -1;
}

/* In doublings; INFINITY where an entry does not concern the call. */
static float distance(const tuning_entry *entry, const call_place *place) {
    if (memcmp(entry->traits, place->traits, (size_t)place->num_traits) != 0)
        return INFINITY;
    float sum = 0;
    for (int i = 0; i < place->num_dims; ++i) {
        float a = entry->log_dims[i], b = place->log_dims[i];
        const bool both = (a < 0) == (b < 0);
        if (both && fabsf(a - b) > CLDSA_TUNING_REACH_EACH)
            return INFINITY;
        sum += both ? fabsf(a - b) : (float)CLDSA_TUNING_UNBOUND;
    }
    return sum <= CLDSA_TUNING_REACH ? sum : INFINITY;
}

/* One that the variant lists, or that its defaults give: any other would be a guess at what a kernel can do. */
static bool is_value(const cldsa_tunable *tunable, int fallback, int value) {
    bool found = value == fallback || value == tunable->fallback;
    for (int i = 0; i < 16 && tunable->values[i] && !found; ++i)
        found = tunable->values[i] == value;
    return found;
}

/* Those of the tunables that are `given`, defaults for the rest. */
static bool fits(const cldsa_run *call, const tuning_values *tuned, unsigned given, int tune[CLDSA_MAX_TUNABLES]) {
    const cldsa_variant *variant = tuned->variant;
    cldsa_run run = *call;
    run.variant = variant;
    if (variant->can_run && !variant->can_run(&run))
        return false;
    cldsa_run_defaults(&run, variant, tune);
    for (int i = 0; i < CLDSA_MAX_TUNABLES && variant->tunables[i].name; ++i)
        if (given & (1u << i)) {
            if (!is_value(&variant->tunables[i], tune[i], tuned->values[i]))
                return false;
            tune[i] = tuned->values[i];
        }
    return !variant->legal || variant->legal(&run, tune);
}

/* The entry's fastest variant, or the one that is asked for; its tunables too, if they reach as far as the call. */
static bool take(const tuning_entry *entry, float away, const cldsa_run *run, const char *variant,
                 cldsa_tuning_choice *out) {
    for (int i = 0; i < entry->num_variants; ++i) {
        const tuning_values *tuned = &entry->variants[i];
        if (variant ? strcmp(tuned->variant->name, variant) != 0 : tuned->variant != entry->fastest)
            continue;
        const bool reached = away <= tuned->reach;
        if (!fits(run, tuned, reached ? tuned->given : 0, out->tune))
            return false;
        out->match = entry->match;
        out->chosen = tuned->variant;
        memcpy(out->from, entry->from, sizeof out->from);
        return true;
    }
    return false;
}

/* The nearest of [first, end) that fits: in order of distance, equal ones as they stand. */
static bool take_nearest(const tuning_entry *first, const tuning_entry *end, const call_place *place,
                         const char *variant, cldsa_tuning_choice *out) {
    float last = -1;
    const tuning_entry *tried = NULL;
    for (;;) {
        const tuning_entry *nearest = NULL;
        float best = INFINITY;
        for (const tuning_entry *entry = first; entry < end; ++entry) {
            float d = distance(entry, place);
            if (d < best && (d > last || (d == last && entry > tried))) {
                best = d;
                nearest = entry;
            }
        }
        if (!nearest)
            return false;
        if (take(nearest, best, place->run, variant, out))
            return true;
        last = best;
        tried = nearest;
    }
}

static void look_up(const tuning_database *database, const cldsa_run *run, const char *variant,
                    cldsa_tuning_choice *out) {
    size_t op = 0;
    while (cldsa_catalogue[op] && cldsa_catalogue[op] != run->op)
        ++op;
    const tuning_entry *entry = database->entries + database->first[op], *end = database->entries + database->end[op];
    if (entry == end)
        return;
    call_place place;
    find_place(run, &place);
    while (entry < end) { /* database by database */
        const tuning_entry *next = entry;
        while (next < end && next->source == entry->source)
            ++next;
        if (take_nearest(entry, next, &place, variant, out))
            return;
        entry = next;
    }
}

void cldsa_tuning_lookup(const cldsa_run *run, const char *variant, cldsa_tuning_choice *out) {
    out->match = CLDSA_TUNING_NONE;
    tuning_state *state = state_of(run->ctx);
    tuning_database *database = state ? acquire(run->ctx, state) : NULL;
    if (!database)
        return;
    if (database->count)
        look_up(database, run, variant, out);
    release(state, database);
}
