/* cldsa devices: every device of every platform, what it was seen to do, and which kernel variants can run there. */
#include "host/cli/cli.h"
#include "host/cli/op_file.h"
#include "host/io/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct devices_options {
    const char *device; /* list this one only */
    bool json;
} devices_options;

/* The same names in text and JSON. */
static void list_capabilities(const cldsa_capabilities *caps, cJSON *out) {
    cJSON_AddBoolToObject(out, "fp16", caps->fp16);
    cJSON_AddBoolToObject(out, "fp64", caps->fp64);
    cJSON_AddBoolToObject(out, "int64_atomics", caps->int64_atomics);
    cJSON_AddBoolToObject(out, "sub_groups", caps->sub_groups);
    cJSON_AddNumberToObject(out, "sub_group_size", caps->sub_group_size);
    cJSON_AddBoolToObject(out, "nv_ptx", caps->nv_ptx);
    cJSON_AddNumberToObject(out, "vector_width", caps->vector_width);
    cJSON_AddNumberToObject(out, "local_mem_bytes", (double)caps->local_mem_bytes);
    cJSON_AddBoolToObject(out, "unified_memory", caps->unified_memory);
    cJSON_AddBoolToObject(out, "short_loops", caps->short_loops);
    cJSON_AddBoolToObject(out, "slow_fma", caps->slow_fma);
}

/* For each operation the variants that say yes to a call of ordinary shape. */
static void list_variants(cldsa_context *ctx, cJSON *out) {
    for (int i = 0; cldsa_catalogue[i]; ++i) {
        cJSON *names = cJSON_AddArrayToObject(out, cldsa_catalogue[i]->name);
        for (int v = 0; cldsa_catalogue[i]->variants[v]; ++v)
            if (op_variant_can_run(ctx, cldsa_catalogue[i], cldsa_catalogue[i]->variants[v]))
                cJSON_AddItemToArray(names, cJSON_CreateString(cldsa_catalogue[i]->variants[v]->name));
    }
}

static cJSON *describe(const cldsa_device_info *info, int default_index) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "index", info->index);
    cJSON_AddBoolToObject(out, "default", info->index == default_index);
    cJSON_AddStringToObject(out, "platform", info->platform_name);
    cJSON_AddStringToObject(out, "name", info->name);
    cJSON_AddStringToObject(out, "vendor", info->vendor);
    cJSON_AddStringToObject(out, "type", cldsa_device_type_name(info->type));
    char architecture[CLDSA_ARCHITECTURE_MAX];
    cldsa_device_architecture(info, architecture);
    cJSON_AddStringToObject(out, "architecture", architecture);
    cJSON_AddStringToObject(out, "driver", info->driver);
    cJSON_AddStringToObject(out, "version", info->version);
    cJSON_AddStringToObject(out, "c_version", info->c_version);
    cJSON_AddNumberToObject(out, "compute_units", info->compute_units);
    cJSON_AddNumberToObject(out, "max_clock_mhz", info->max_clock_mhz);
    cJSON_AddNumberToObject(out, "global_mem_bytes", (double)info->global_mem_bytes);
    cJSON_AddNumberToObject(out, "max_alloc_bytes", (double)info->max_alloc_bytes);
    cJSON_AddNumberToObject(out, "local_mem_bytes", (double)info->local_mem_bytes);
    cJSON_AddNumberToObject(out, "max_work_group_size", (double)info->max_work_group_size);
    cJSON_AddBoolToObject(out, "available", info->available);
    char spec[16];
    snprintf(spec, sizeof spec, "%d", info->index);
    cli_session session;
    if (cli_session_open(spec, false, &session) == CLDSA_SUCCESS) {
        list_capabilities(cldsa_context_capabilities(session.ctx), cJSON_AddObjectToObject(out, "capabilities"));
        list_variants(session.ctx, cJSON_AddObjectToObject(out, "variants"));
        cli_session_close(&session);
    } else { /* the device is listed all the same, with the reason */
        cJSON_AddStringToObject(out, "error", cldsa_error_message());
    }
    return out;
}

static double number_of(const cJSON *object, const char *key) {
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static void print_device(const cJSON *device) {
    printf("%g: %s / %s%s\n", number_of(device, "index"), cldsa_json_text(device, "platform"),
           cldsa_json_text(device, "name"), cJSON_IsTrue(cJSON_GetObjectItem(device, "default")) ? "  (default)" : "");
    printf("   %s (%s), %s, %s, driver %s\n", cldsa_json_text(device, "type"), cldsa_json_text(device, "architecture"),
           cldsa_json_text(device, "vendor"), cldsa_json_text(device, "version"), cldsa_json_text(device, "driver"));
    printf("   %g compute units at %g MHz, %.1f GiB memory (%.1f GiB in one buffer), %g KiB local, work-groups to %g\n",
           number_of(device, "compute_units"), number_of(device, "max_clock_mhz"),
           number_of(device, "global_mem_bytes") / (1 << 30), number_of(device, "max_alloc_bytes") / (1 << 30),
           number_of(device, "local_mem_bytes") / 1024, number_of(device, "max_work_group_size"));
    if (*cldsa_json_text(device, "error")) {
        printf("   cannot be used: %s\n", cldsa_json_text(device, "error"));
        return;
    }
    printf("   probed:");
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(device, "capabilities")) {
        if (cJSON_IsNumber(item))
            printf(" %s=%.0f", item->string, item->valuedouble);
        else if (cJSON_IsTrue(item))
            printf(" %s", item->string);
    }
    printf("\n   kernel variants that can run:\n");
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(device, "variants")) {
        printf("     %-28s", item->string);
        const cJSON *name;
        cJSON_ArrayForEach(name, item) printf(" %s", name->valuestring);
        printf("\n");
    }
}

static int take(void *user, int key, const char *value) {
    devices_options *options = user;
    switch (key) {
    case CLI_DEVICE:
        options->device = value;
        return CLI_GO;
    case CLI_JSON:
        options->json = true;
        return CLI_GO;
    default:
        return cli_usage("devices: unexpected argument \"%s\"; see cldsa devices --help", value);
    }
}

static int run(int argc, char **argv) {
    devices_options options = {0};
    int code = cli_parse(&cli_devices, argc, argv, take, &options);
    if (code != CLI_GO)
        return code;
    cldsa_device_info *list, chosen;
    size_t count;
    cldsa_status status = cldsa_devices(&list, &count);
    if (status != CLDSA_SUCCESS)
        return cli_report(status);
    /* Without any device this gives the message to end with: no platform, or none that fits. */
    status = cldsa_select_device(options.device, &chosen);
    if (status != CLDSA_SUCCESS) {
        free(list);
        return cli_report(status);
    }
    cJSON *devices = cJSON_CreateArray();
    for (size_t i = 0; i < count; ++i)
        if (!options.device || list[i].index == chosen.index)
            cJSON_AddItemToArray(devices, describe(&list[i], chosen.index));
    free(list);
    if (options.json) {
        char *text = cJSON_Print(devices);
        printf("%s\n", text ? text : "");
        cJSON_free(text);
    } else {
        const cJSON *device;
        cJSON_ArrayForEach(device, devices) print_device(device);
    }
    cJSON_Delete(devices);
    return CLI_OK;
}

static const cli_option options_table[] = {CLI_OPTION_DEVICE, CLI_OPTION_JSON, {0}};

const cli_command cli_devices = {
    .name = "devices",
    .summary = "List OpenCL devices, what they were seen to do, and the kernel variants that can run",
    .usage = "[--device DEVICE] [--json]",
    .details = "Capabilities are probed by compiling and running tiny kernels (once; the results are cached), because\n"
               "drivers under-report. With --device only that device is listed.",
    .options = options_table,
    .examples = "  cldsa devices\n  cldsa devices --device gpu --json",
    .run = run,
};
