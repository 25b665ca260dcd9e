/* Spaces: which combinations of a variant's tunables there are. */
#include "autotune/tuner.h"

#include "host/ops/op.h"

#include <stdlib.h>
#include <string.h>

/* More would not be searched in a lifetime; the tables in host/ops stay far below. */
enum { MAX_COMBINATIONS = 1 << 22 };

static int index_of(const int *values, int count, int value) {
    for (int i = 0; i < count; ++i)
        if (values[i] == value)
            return i;
    return -1;
}

void tuner_space_tunable(tuner_space *space, const char *name, const int *values, int count, int fallback) {
    int t = space->num_tunables++;
    snprintf(space->names[t], sizeof space->names[t], "%s", name);
    int *own = space->values[t], *n = &space->num_values[t];
    for (int i = 0; count ? i < count : values[i] != 0; ++i)
        own[(*n)++] = values[i];
    /* In its place: neighbours in the list are neighbours in the search. */
    if (index_of(own, *n, fallback) < 0) {
        int at = *n;
        for (; at > 0 && own[at - 1] > fallback; --at)
            own[at] = own[at - 1];
        own[at] = fallback;
        ++*n;
    }
}

static bool append(tuner_space *space, size_t *capacity, const int *candidate) {
    size_t width = (size_t)space->num_tunables;
    if (space->count == *capacity) {
        *capacity = *capacity ? 2 * *capacity : 256;
        int *grown = realloc(space->candidates, *capacity * (width ? width : 1) * sizeof *grown);
        if (!grown)
            return false;
        space->candidates = grown;
    }
    memcpy(space->candidates + space->count++ * width, candidate, width * sizeof *candidate);
    return true;
}

/* The next combination, the last tunable running fastest; false after the last one. */
static bool advance(const tuner_space *space, int *candidate) {
    for (int t = space->num_tunables - 1; t >= 0; --t) {
        if (++candidate[t] < space->num_values[t])
            return true;
        candidate[t] = 0;
    }
    return false;
}

cldsa_status tuner_space_enumerate(tuner_space *space, const int *fallback, tuner_legal_fn legal, const void *user) {
    int candidate[TUNER_MAX_TUNABLES] = {0};
    size_t capacity = 0, combinations = 1;
    for (int t = 0; t < space->num_tunables; ++t)
        combinations *= (size_t)space->num_values[t];
    if (combinations > MAX_COMBINATIONS)
        return cldsa_fail(CLDSA_INVALID_ARGUMENT, "%s: %zu combinations of tunables; at most %d will do",
                          space->variant, combinations, MAX_COMBINATIONS);
    space->count = 0;
    do {
        int values[TUNER_MAX_TUNABLES] = {0};
        bool is_default = true;
        for (int t = 0; t < space->num_tunables; ++t) {
            values[t] = space->values[t][candidate[t]];
            is_default = is_default && values[t] == fallback[t];
        }
        if (is_default)
            space->fallback = space->count;
        else if (legal && !legal(user, values))
            continue;
        if (!append(space, &capacity, candidate))
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for %zu candidates", space->variant, space->count);
    } while (advance(space, candidate));
    space->known = space->count;
    return CLDSA_SUCCESS;
}

void tuner_space_free(tuner_space *space) {
    free(space->candidates);
    *space = (tuner_space){0};
}

void tuner_space_text(const tuner_space *space, size_t candidate, char text[TUNER_TEXT]) {
    const int *at = space->candidates + candidate * (size_t)space->num_tunables;
    size_t used = 0;
    *text = '\0';
    for (int t = 0; t < space->num_tunables && used < TUNER_TEXT; ++t)
        used += (size_t)snprintf(text + used, TUNER_TEXT - used, "%s%s=%d", t ? "," : "", space->names[t],
                                 space->values[t][at[t]]);
}

size_t tuner_space_find(const tuner_space *space, const char *text) {
    char candidate[TUNER_TEXT];
    for (size_t c = 0; c < space->count; ++c) {
        tuner_space_text(space, c, candidate);
        if (strcmp(candidate, text) == 0)
            return c;
    }
    return space->count;
}

int tuner_space_distance(const tuner_space *space, size_t a, size_t b) {
    size_t width = (size_t)space->num_tunables;
    int differing = 0;
    for (size_t t = 0; t < width; ++t)
        differing += space->candidates[a * width + t] != space->candidates[b * width + t];
    return differing;
}

/* ---- over the pipe ----------------------------------------------------------------------------------------------- */

cJSON *tuner_space_json(const tuner_space *space) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "variant", space->variant);
    cJSON_AddStringToObject(out, "source", space->source);
    cJSON_AddNumberToObject(out, "fallback", (double)space->fallback);
    cJSON_AddNumberToObject(out, "known", (double)space->known);
    cJSON_AddNumberToObject(out, "count", (double)space->count);
    cJSON *tunables = cJSON_AddArrayToObject(out, "tunables");
    for (int t = 0; t < space->num_tunables; ++t) {
        cJSON *tunable = cJSON_CreateObject();
        cJSON_AddStringToObject(tunable, "name", space->names[t]);
        cJSON_AddItemToObject(tunable, "values", cJSON_CreateIntArray(space->values[t], space->num_values[t]));
        cJSON_AddItemToArray(tunables, tunable);
    }
    cJSON_AddItemToObject(out, "candidates",
                          cJSON_CreateIntArray(space->candidates, (int)(space->count * (size_t)space->num_tunables)));
    return out;
}

static void parse_tunable(const cJSON *json, tuner_space *space) {
    int values[TUNER_MAX_VALUES], count = 0;
    const cJSON *value;
    cJSON_ArrayForEach(value, cJSON_GetObjectItemCaseSensitive(json, "values")) {
        if (count < TUNER_MAX_VALUES)
            values[count++] = value->valueint;
    }
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "name"));
    if (count && name && space->num_tunables < TUNER_MAX_TUNABLES)
        tuner_space_tunable(space, name, values, count, values[0]);
}

cldsa_status tuner_space_parse(const cJSON *json, tuner_space *space) {
    *space = (tuner_space){0};
    const char *variant = "", *source = "";
    double fallback = 0, known = 0, count = 0;
    CLDSA_TRY(cldsa_json_get_string(json, "candidates", "variant", &variant));
    CLDSA_TRY(cldsa_json_get_string(json, "candidates", "source", &source));
    CLDSA_TRY(cldsa_json_get_number(json, "candidates", "fallback", 0, MAX_COMBINATIONS, &fallback));
    CLDSA_TRY(cldsa_json_get_number(json, "candidates", "known", 0, MAX_COMBINATIONS, &known));
    CLDSA_TRY(cldsa_json_get_number(json, "candidates", "count", 1, MAX_COMBINATIONS, &count));
    snprintf(space->variant, sizeof space->variant, "%s", variant);
    snprintf(space->source, sizeof space->source, "%s", source);
    space->fallback = (size_t)fallback;
    space->known = (size_t)known;
    space->count = (size_t)count;
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "tunables")) {
        parse_tunable(item, space);
    }
    size_t at = 0, size = space->count * (size_t)space->num_tunables;
    space->candidates = calloc(size ? size : 1, sizeof *space->candidates);
    if (!space->candidates)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "%s: no memory for %zu candidates", variant, space->count);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "candidates")) {
        if (at < size)
            space->candidates[at++] = item->valueint;
    }
    return CLDSA_SUCCESS;
}
