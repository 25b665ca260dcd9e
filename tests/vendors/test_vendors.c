/*
 * Compiles what the library would build on every target of one vendor and judges the reports:
 *
 *     test_vendors amd|intel|nvidia|spirv|c WORK_DIR [TABLE.json]
 *
 * Fails on whatever does not compile, on local memory over the device's limit, and on spills in hot kernels of a
 * variant that the library chooses there by itself; `c`, on whatever is not OpenCL C 1.2 itself. Exits 77 where the
 * compiler is not installed. The rows of the vendor's targets replace those in the table, whose schema is in
 * docs/results/vendors.md.
 */
#include "host/io/file.h"
#include "host/io/json.h"
#include "tests/vendors/vendors.h"

#include <cldsa/cldsa.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SCHEMA = 1, SKIPPED = 77, MAX_THREADS = 64 };

static const char *const compiler_names[] = {"amd", "intel", "nvidia", "spirv", "c", NULL};

/* Where the time goes: their kernels must keep to registers. */
static const char *const hot_operations[] = {"gemm", "indexer_scores", "topk", "masked_attention", "sparse_attention",
                                             NULL};

static bool is_hot(const char *file) {
    for (const char *const *name = hot_operations; *name; ++name)
        if (strncmp(file, *name, strlen(*name)) == 0)
            return true;
    return false;
}

/* ---- compiling, on all cores --------------------------------------------------------------------------------------
 */

typedef struct batch {
    const vendors_target *target;
    const vendors_programs *programs;
    const char *about, *work_dir;
    vendors_compiled *results; /* one per program */
    atomic_size_t next;
} batch;

static void *work(void *user) {
    batch *b = user;
    for (size_t i; (i = atomic_fetch_add(&b->next, 1)) < b->programs->count;)
        vendors_compile(b->target, &b->programs->items[i], b->about, b->work_dir, &b->results[i]);
    return NULL;
}

static void compile_all(batch *b) {
    pthread_t threads[MAX_THREADS];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int started = 0, wanted = cores < 1 ? 1 : cores > MAX_THREADS ? MAX_THREADS : (int)cores;
    while (started < wanted - 1 && pthread_create(&threads[started], NULL, work, b) == 0)
        ++started;
    work(b);
    while (started > 0)
        pthread_join(threads[--started], NULL);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------
 */

typedef struct counts {
    int programs, kernels, failed, spilling, cold_spilling;
} counts;

static const vendors_report *find_report(const vendors_compiled *compiled, const char *kernel) {
    for (int i = 0; i < compiled->num_kernels; ++i)
        if (strcmp(compiled->kernels[i].kernel, kernel) == 0)
            return &compiled->kernels[i];
    return NULL;
}

static void add_number(cJSON *row, const char *key, int value) {
    if (value >= 0)
        cJSON_AddNumberToObject(row, key, value);
}

/* Adds the numbers to the row; `reason` stays empty if they are good. */
static void judge(const vendors_target *target, const vendors_program *program, const vendors_kernel *kernel,
                  const vendors_report *report, cJSON *row, counts *n, char *reason, size_t size) {
    int local = report->local_bytes + (int)kernel->local_argument_bytes;
    add_number(row, "registers", report->registers);
    add_number(row, "lanes", report->lanes);
    add_number(row, target->compiler == VENDORS_NVIDIA ? "spill_bytes" : "spills", report->spills);
    if (target->compiler == VENDORS_AMD)
        add_number(row, "scalar_spills", report->scalar_spills);
    add_number(row, "private_bytes", report->private_bytes);
    add_number(row, "local_bytes", local);
    add_number(row, "occupancy_percent",
               vendors_occupancy(target, report->lanes, report->registers, (size_t)local, kernel->group_items));
    bool must_not = kernel->chosen && is_hot(program->file);
    if ((size_t)local > target->local_most)
        snprintf(reason, size, "%d bytes of local memory; the device has %zu", local, target->local_most);
    else if (must_not && report->spills > 0)
        snprintf(reason, size, "spills %d %s", report->spills,
                 target->compiler == VENDORS_NVIDIA ? "bytes" : "registers");
    n->spilling += must_not && report->spills > 0;
    n->cold_spilling += !must_not && report->spills > 0;
}

static void add_row(const vendors_target *target, const vendors_program *program, const vendors_kernel *kernel,
                    const vendors_compiled *compiled, cJSON *rows, counts *n) {
    char reason[600] = "";
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "op", kernel->op);
    cJSON_AddStringToObject(row, "variant", kernel->variant);
    cJSON_AddStringToObject(row, "file", program->file);
    cJSON_AddStringToObject(row, "kernel", kernel->name);
    cJSON_AddStringToObject(row, "options", program->options);
    cJSON_AddStringToObject(row, "target", target->name);
    cJSON_AddBoolToObject(row, "chosen", kernel->chosen);
    cJSON_AddBoolToObject(row, "hot", is_hot(program->file));
    const vendors_report *report = find_report(compiled, kernel->name);
    if (compiled->failed)
        snprintf(reason, sizeof reason, "%s", compiled->message);
    else if (report)
        judge(target, program, kernel, report, row, n, reason, sizeof reason);
    else if (target->compiler < VENDORS_SPIRV) /* the others have nothing to report */
        snprintf(reason, sizeof reason, "the compiler's report does not name this kernel");
    cJSON_AddStringToObject(row, "status", *reason ? "error" : "ok");
    cJSON_AddStringToObject(row, "reason", reason);
    cJSON_AddItemToArray(rows, row);
    ++n->kernels;
    if (*reason) {
        ++n->failed;
        printf("%s: %s/%s %s of %s: %s\n    %s\n", target->name, kernel->op, kernel->variant, kernel->name,
               program->file, reason, program->options);
    }
}

static cldsa_status run_target(const vendors_target *target, const char *about, const char *work_dir, cJSON *rows,
                               counts *n) {
    vendors_programs programs;
    cldsa_status status = vendors_collect(target, &programs);
    batch b = {.target = target, .programs = &programs, .about = about, .work_dir = work_dir};
    b.results = calloc(programs.count + 1, sizeof *b.results);
    if (status == CLDSA_SUCCESS && b.results) {
        compile_all(&b);
        for (size_t i = 0; i < programs.count; ++i)
            for (int k = 0; k < programs.items[i].num_kernels; ++k)
                add_row(target, &programs.items[i], &programs.items[i].kernels[k], &b.results[i], rows, n);
        n->programs = (int)programs.count;
        printf("%-8s %4d programs of %d calls, %d kernels: %d fail; %d hot ones spill, and %d others\n", target->name,
               n->programs, programs.calls, n->kernels, n->failed, n->spilling, n->cold_spilling);
    } else {
        printf("%s: %s\n", target->name, cldsa_error_message());
    }
    free(b.results);
    vendors_programs_free(&programs);
    return status;
}

/* ---- the table ----------------------------------------------------------------------------------------------------
 */

/* What the file has of other vendors' targets stays. */
static void keep_others(const char *path, const char *list, vendors_compiler compiler, cJSON *into) {
    cJSON *old = NULL, *item;
    if (cldsa_json_read(path, &old) != CLDSA_SUCCESS)
        return;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(old, list)) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "target"));
        for (const vendors_target *t = vendors_targets; name && t->name; ++t)
            if (strcmp(t->name, name) == 0 && t->compiler != compiler)
                cJSON_AddItemToArray(into, cJSON_Duplicate(item, true));
    }
    cJSON_Delete(old);
}

static void add_target(cJSON *targets, const vendors_target *target, const char *about, bool there, const counts *n) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "target", target->name);
    cJSON_AddStringToObject(object, "vendor", target->vendor);
    cJSON_AddStringToObject(object, "device", target->device);
    cJSON_AddStringToObject(object, "compiler", there ? about : "");
    cJSON_AddStringToObject(object, "status", !there ? "skipped" : n->failed || !n->kernels ? "error" : "ok");
    cJSON_AddStringToObject(object, "reason", there ? "" : about);
    cJSON_AddNumberToObject(object, "programs", n->programs);
    cJSON_AddNumberToObject(object, "kernels", n->kernels);
    cJSON_AddNumberToObject(object, "failed", n->failed);
    cJSON_AddItemToArray(targets, object);
}

static cJSON *begin_table(void) {
    char date[32], version[32];
    time_t now = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    snprintf(version, sizeof version, "%d.%d.%d", CLDSA_VERSION_MAJOR, CLDSA_VERSION_MINOR, CLDSA_VERSION_PATCH);
    cJSON *table = cJSON_CreateObject();
    cJSON_AddNumberToObject(table, "schema", SCHEMA);
    cJSON_AddStringToObject(table, "kind", "vendors");
    cJSON_AddStringToObject(table, "date", date);
    cJSON_AddStringToObject(table, "version", version);
    return table;
}

int main(int argc, char **argv) {
    int compiler = 0;
    while (argc >= 3 && compiler_names[compiler] && strcmp(compiler_names[compiler], argv[1]) != 0)
        ++compiler;
    if (argc < 3 || argc > 4 || !compiler_names[compiler]) {
        fprintf(stderr, "usage: test_vendors amd|intel|nvidia|spirv|c WORK_DIR [TABLE.json]\n");
        return 2;
    }
    const char *work_dir = argv[2], *path = argc == 4 ? argv[3] : NULL;
    cJSON *table = begin_table(), *targets = cJSON_AddArrayToObject(table, "targets"),
          *rows = cJSON_AddArrayToObject(table, "kernels");
    if (path) {
        keep_others(path, "targets", (vendors_compiler)compiler, targets);
        keep_others(path, "kernels", (vendors_compiler)compiler, rows);
    }
    bool good = cldsa_make_directories(work_dir) == CLDSA_SUCCESS, skipped = false;
    for (const vendors_target *target = vendors_targets; target->name; ++target) {
        if (target->compiler != (vendors_compiler)compiler)
            continue;
        char about[1024];
        counts n = {0};
        bool there = vendors_compiler_about(target, about, sizeof about);
        if (there)
            good &= run_target(target, about, work_dir, rows, &n) == CLDSA_SUCCESS && n.failed == 0;
        else if (!skipped)
            printf("skipped: %s\n", about);
        skipped |= !there;
        add_target(targets, target, about, there, &n);
    }
    if (!skipped && compiler >= VENDORS_SPIRV && vendors_all_launched() != CLDSA_SUCCESS) { /* on its GPU and CPU */
        printf("%s\n", cldsa_error_message());
        good = false;
    }
    if (path && cldsa_json_write(path, table) != CLDSA_SUCCESS) {
        printf("%s: %s\n", path, cldsa_error_message());
        good = false;
    }
    cJSON_Delete(table);
    return !good ? 1 : skipped ? SKIPPED : 0;
}
