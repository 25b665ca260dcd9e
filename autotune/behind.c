/*
 * Variants that are far behind. A GPU's kernels on a CPU take ten times the time of a CPU's, and seconds to build; what
 * one call has shown need not be measured in every other like it. It is kept in the log, for a tuning that is resumed.
 */
#include "autotune/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const double tuner_far_behind = 3;
/*
 * A ratio says this much less for each doubling of an extent from its call to another. Eight doublings make of a 25
 * what must be measured: kernels for a few rows are that much slower where there are thousands.
 */
static const double fading = 1.5;

double tuner_doublings(const char *dims, const char *others) {
    double sum = 0;
    for (const char *at = dims; *at; at += strspn(at, " ")) {
        char name[32], value[CLDSA_WORKLOAD_TEXT];
        const size_t word = strcspn(at, " "), stem = strcspn(at, "=");
        snprintf(name, sizeof name, "%.*s", (int)stem, at);
        if (stem >= word || !cldsa_workload_option(others, ' ', name, value))
            return INFINITY;
        sum += fabs(log2(strtod(at + stem + 1, NULL) / strtod(value, NULL)));
        at += word;
    }
    return sum;
}

void tuner_note_behind(tuner_session *session, const char *variant, double seconds) {
    const double ratio = seconds / session->default_seconds;
    if (!isfinite(ratio) || ratio < tuner_far_behind)
        return;
    cJSON *record = cJSON_CreateObject();
    cJSON_AddStringToObject(record, "behind", session->now->op);
    cJSON_AddStringToObject(record, "variant", variant);
    cJSON_AddStringToObject(record, "in", session->now->dims);
    cJSON_AddNumberToObject(record, "times", ratio);
    tuner_log_add(session->log, record);
}

bool tuner_is_behind(const tuner_session *session, const char *variant) {
    const cJSON *record;
    cJSON_ArrayForEach(record, session->log->records) {
        if (!cJSON_HasObjectItem(record, "behind") ||
            strcmp(cldsa_json_text(record, "behind"), session->now->op) != 0 ||
            strcmp(cldsa_json_text(record, "variant"), variant) != 0)
            continue;
        const double ratio = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(record, "times"));
        if (ratio / pow(fading, tuner_doublings(session->now->dims, cldsa_json_text(record, "in"))) >= tuner_far_behind)
            return true;
    }
    return false;
}
