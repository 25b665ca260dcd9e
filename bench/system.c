/* On what a result was measured. */
#include "bench/peak.h"
#include "host/ops/tuning.h"

#include <cldsa/cldsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* ---- the host's own words ---------------------------------------------------------------------------------------- */

/* The first line of a file that begins with `key`, without it, quotes and blanks; false if there is none. */
static bool line_of(const char *path, const char *key, char text[BENCH_TEXT]) {
    FILE *file = fopen(path, "r");
    char line[1024];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        char *value = line + strlen(key);
        value += strspn(value, " \t:=\"");
        value[strcspn(value, "\"\n")] = '\0';
        snprintf(text, BENCH_TEXT, "%.*s", BENCH_TEXT - 1, value);
        found = true;
    }
    if (file)
        fclose(file);
    return found;
}

static void add_line(cJSON *out, const char *name, const char *path, const char *key) {
    char text[BENCH_TEXT];
    if (line_of(path, key, text))
        cJSON_AddStringToObject(out, name, text);
}

static cJSON *host_json(void) {
    cJSON *out = cJSON_CreateObject();
    struct utsname name;
    double load[1];
    add_line(out, "os", "/etc/os-release", "PRETTY_NAME");
    if (uname(&name) == 0)
        cJSON_AddStringToObject(out, "kernel", name.release);
    add_line(out, "cpu", "/proc/cpuinfo", "model name");
    cJSON_AddNumberToObject(out, "threads", (double)sysconf(_SC_NPROCESSORS_ONLN));
    if (getloadavg(load, 1) == 1)
        cJSON_AddNumberToObject(out, "load_before", load[0]);
    return out;
}

static void add_mhz(cJSON *out, const char *name, const char *path, const char *key, double factor) {
    char text[BENCH_TEXT];
    if (!cJSON_GetObjectItemCaseSensitive(out, name) && line_of(path, key, text))
        cJSON_AddNumberToObject(out, name, strtod(text, NULL) * factor);
}

/* Virtual machines have no cpufreq, but say at times what they run at. */
static cJSON *clocks_json(void) {
    cJSON *out = cJSON_CreateObject();
    add_line(out, "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "");
    add_mhz(out, "mhz", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "", 1e-3);
    add_mhz(out, "mhz", "/proc/cpuinfo", "cpu MHz", 1);
    add_mhz(out, "max_mhz", "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "", 1e-3);
    return out;
}

/* ---- the device -------------------------------------------------------------------------------------------------- */

static const char *type_name(cl_device_type type) {
    return type & CL_DEVICE_TYPE_GPU ? "gpu" : type & CL_DEVICE_TYPE_CPU ? "cpu" : "accelerator";
}

static void add_device(cJSON *out, cldsa_context *ctx) {
    const cldsa_device_info *info = cldsa_context_device_info(ctx);
    const cldsa_capabilities *caps = cldsa_context_capabilities(ctx);
    cJSON_AddStringToObject(out, "platform", info->platform_name);
    cJSON_AddStringToObject(out, "device", info->name);
    cJSON_AddStringToObject(out, "vendor", info->vendor);
    cJSON_AddStringToObject(out, "driver", info->driver);
    cJSON_AddStringToObject(out, "opencl", info->version);
    cJSON_AddStringToObject(out, "type", type_name(info->type));
    cJSON_AddNumberToObject(out, "compute_units", info->compute_units);
    cJSON_AddNumberToObject(out, "max_clock_mhz", info->max_clock_mhz);
    cJSON_AddNumberToObject(out, "global_mem_bytes", (double)info->global_mem_bytes);
    cJSON_AddNumberToObject(out, "max_alloc_bytes", (double)info->max_alloc_bytes);
    cJSON_AddNumberToObject(out, "local_mem_bytes", (double)caps->local_mem_bytes);
    cJSON_AddBoolToObject(out, "fp16", caps->fp16);
    cJSON_AddBoolToObject(out, "fp64", caps->fp64);
}

cJSON *bench_system_json(cldsa_context *ctx) {
    cJSON *out = cJSON_CreateObject();
    char text[BENCH_TEXT];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    cJSON_AddStringToObject(out, "date", text);
    snprintf(text, sizeof text, "%d.%d.%d", CLDSA_VERSION_MAJOR, CLDSA_VERSION_MINOR, CLDSA_VERSION_PATCH);
    cJSON_AddStringToObject(out, "cldsa", text);
    add_device(out, ctx);
    char options[CLDSA_BUILD_OPTIONS_MAX];
    cldsa_build_options(ctx, options);
    cJSON_AddStringToObject(out, "compiler", options);
    char path[4096];
    cJSON_AddBoolToObject(out, "tuned_here", cldsa_tuning_user_path(path, sizeof path) && access(path, R_OK) == 0);
    cJSON_AddItemToObject(out, "host", host_json());
    cJSON_AddItemToObject(out, "clocks", clocks_json());
    cJSON_AddNullToObject(out, "peaks");
    return out;
}

void bench_system_finish(cJSON *system, const bench_peaks *peaks) {
    cJSON_ReplaceItemInObjectCaseSensitive(system, "clocks", clocks_json());
    cJSON_ReplaceItemInObjectCaseSensitive(system, "peaks", bench_peaks_json(peaks));
}
