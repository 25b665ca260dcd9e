/* Peers that measure the same rows in processes of their own, and what they answer. */
#include "bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double answer_timeout = 600; /* a first answer may have to compile */

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static bench_peer_result *find_peer(bench_peer_result *peers, int *count, const char *name) {
    for (int i = 0; i < *count; ++i)
        if (strcmp(peers[i].name, name) == 0)
            return &peers[i];
    if (*count == BENCH_MAX_PEERS)
        return NULL;
    bench_peer_result *peer = &peers[(*count)++];
    *peer = (bench_peer_result){.peak_bytes = NAN};
    snprintf(peer->name, sizeof peer->name, "%s", name);
    return peer;
}

static const char *text_of(const cJSON *object, const char *key, const char *fallback) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return text ? text : fallback;
}

void bench_peers_add(bench_peer_result *peers, int *count, const cJSON *answer) {
    bench_peer_result *peer = find_peer(peers, count, text_of(answer, "peer", "peer"));
    if (!peer)
        return;
    const char *status = text_of(answer, "status", "ok");
    peer->status = BENCH_ERROR;
    for (int i = 0; bench_status_names[i]; ++i)
        if (strcmp(status, bench_status_names[i]) == 0)
            peer->status = (bench_status)i;
    snprintf(peer->reason, sizeof peer->reason, "%s", text_of(answer, "reason", ""));
    const cJSON *peak = cJSON_GetObjectItemCaseSensitive(answer, "peak_bytes");
    if (cJSON_IsNumber(peak))
        peer->peak_bytes = peak->valuedouble;
    const cJSON *sample;
    cJSON_ArrayForEach(sample, cJSON_GetObjectItemCaseSensitive(answer, "samples")) if (cJSON_IsNumber(sample))
        bench_samples_add(&peer->samples, sample->valuedouble);
}

void bench_peers_add_failure(bench_peer_result *peers, int *count, const char *name, bench_status status,
                             const char *reason) {
    bench_peer_result *peer = find_peer(peers, count, name);
    if (!peer)
        return;
    peer->status = status;
    snprintf(peer->reason, sizeof peer->reason, "%s", reason);
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

/* "A=1 B=x c" as an object; numbers as numbers, a word alone as 1. */
static cJSON *words_json(const char *list) {
    cJSON *object = cJSON_CreateObject();
    char text[BENCH_TEXT], *rest = NULL;
    snprintf(text, sizeof text, "%s", list ? list : "");
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(word, '='), *end = NULL;
        if (value)
            *value++ = '\0';
        double number = value ? strtod(value, &end) : 1;
        if (!value || !*end)
            cJSON_AddNumberToObject(object, word, number);
        else
            cJSON_AddStringToObject(object, word, value);
    }
    return object;
}

static cJSON *request_json(const bench_op_peers *peers, const bench_op_row *row, double budget) {
    cJSON *request = cJSON_CreateObject();
    cJSON_AddStringToObject(request, "op", row->test->op);
    cJSON_AddItemToObject(request, "dims", words_json(row->test->spec.dims));
    cJSON_AddItemToObject(request, "params", words_json(row->test->spec.params));
    cJSON_AddItemToObject(request, "dtypes", words_json(row->test->spec.dtypes));
    cJSON_AddItemToObject(request, "give", words_json(row->test->spec.give));
    cJSON_AddNumberToObject(request, "budget", budget);
    cJSON_AddStringToObject(request, "device", peers->on_cpu ? "cpu" : "gpu");
    return request;
}

static void ask(bench_process *process, const char *name, const cJSON *request, bench_op_row *row) {
    if (process->pid < 0)
        return;
    cJSON *answer;
    if (bench_process_ask(process, request, answer_timeout, &answer) == CLDSA_SUCCESS) {
        const cJSON *one;
        cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(answer, "results"))
            bench_peers_add(row->peers, &row->num_peers, one);
    } else {
        bench_peers_add_failure(row->peers, &row->num_peers, name, BENCH_ERROR, cldsa_error_message());
        bench_process_stop(process);
    }
    cJSON_Delete(answer);
}

void bench_op_peers_ask(bench_op_peers *peers, double budget, bench_op_row *row) {
    cJSON *request = request_json(peers, row, budget);
    ask(&peers->torch, "torch", request, row);
    const cldsa_workload_spec *spec = &row->test->spec;
    bool plain = strcmp(row->test->op, "gemm") == 0 && !spec->give && !spec->dtypes; /* no groups, bias or halves */
    if (plain && peers->blas_missing)
        bench_peers_add_failure(row->peers, &row->num_peers, "OpenBLAS", BENCH_SKIPPED,
                                "cldsa-peer-openblas is not built; bench/peers/README.md says how");
    else if (plain)
        ask(&peers->gemm, "OpenBLAS", request, row);
    cJSON_Delete(request);
}

void bench_op_peers_start(const bench_peer_paths *paths, bool on_cpu, bench_op_peers *peers) {
    *peers = (bench_op_peers){.on_cpu = on_cpu, .torch = {.pid = -1}, .gemm = {.pid = -1}};
    if (!paths)
        return;
    if (paths->python && paths->scripts) {
        char script[4096];
        snprintf(script, sizeof script, "%s/operations.py", paths->scripts);
        char *argv[] = {(char *)paths->python, script, NULL};
        bench_process_start(argv, &peers->torch);
    }
    peers->blas_missing = on_cpu && !paths->gemm;
    if (on_cpu && paths->gemm) {
        char *argv[] = {(char *)paths->gemm, NULL};
        bench_process_start(argv, &peers->gemm);
    }
}

void bench_op_peers_stop(bench_op_peers *peers) {
    bench_process_stop(&peers->torch);
    bench_process_stop(&peers->gemm);
}
