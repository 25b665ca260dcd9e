/* Named sets of shapes. A new case is one entry; a new preset one table and a line at the end. */
#include "bench/presets.h"

#include "bench/cases.h"

#include <stdio.h>
#include <string.h>

static const bench_case cpu_cases[] = {
    GEMM_NN("1024", "1024", "1024"),
    GEMM_NT("1024", "1024", "1024"),
    GEMM_NN("2048", "1024", "256"),
    GEMM_NT("2048", "1024", "256"),
    SCORES_EXPERIMENT("8", "256", "67"),
    SCORES_EXPERIMENT("1", "2048", "67"),
    SCORES_DSA("256", "4096", "F32", "all"),
    TOPK("2048", "256", "128", "2048"),
    TOPK("2048", "2048", "512", "100"),
    TOPK("1024", "8192", "2048", "32"),
    TOPK("256", "65536", "2048", "8"),
    ATTENTION("8", "256", "8", "32", "", NULL, "100"),
    ATTENTION("8", "256", "8", "32", " mask", "mask=mask 0.5", "100"),
    ATTENTION("1", "2048", "8", "64", "", NULL, "150"),
    ATTENTION("1", "2048", "8", "64", " mask", "mask=mask 0.5", "150"),
    ATTENTION_BACKWARD("8", "256", "8", "32", "", NULL, "100"),
    ATTENTION_BACKWARD("8", "256", "8", "32", "mask", "mask=mask 0.5", "100"),
    ATTENTION_BACKWARD("1", "2048", "8", "64", "", NULL, "150"),
    ATTENTION_BACKWARD("1", "2048", "8", "64", "mask", "mask=mask 0.5", "150"),
    SPARSE("2048", "2048", "256", "8", "8", "64"),
    SPARSE_BACKWARD("2048", "2048", "256", "8", "8", "64"),
    LATENT("128", "8192", "512", "16", "F32"),
    LATENT_BACKWARD("128", "8192", "512", "16", "F32"),
};

static const bench_case gpu_cases[] = {
    GEMM_NN("4096", "4096", "4096"),
    GEMM_NT("4096", "4096", "4096"),
    GEMM_NT("2048", "1024", "256"),
    SCORES_EXPERIMENT("8", "256", "67"),
    SCORES_DSA("4096", "4096", "F32", "causal"),
    SCORES_DSA("4096", "32768", "F32", "causal"),
    SCORES_DSA("4096", "32768", "BF16", "causal"),
    TOPK("4096", "4096", "2048", "64"),
    TOPK("4096", "32768", "2048", "16"),
    TOPK("4096", "65536", "2048", "8"),
    TOPK("4096", "131072", "2048", "4"),
    SELECT("4096", "32768", "2048", "F32"),
    ATTENTION("8", "256", "8", "32", "", NULL, "100"),
    ATTENTION("1", "2048", "8", "64", "", NULL, "150"),
    ATTENTION("1", "2048", "8", "64", " mask", "mask=mask 0.5", "150"),
    ATTENTION_BACKWARD("8", "256", "8", "32", "", NULL, "100"),
    ATTENTION_BACKWARD("1", "2048", "8", "64", "", NULL, "150"),
    SPARSE("2048", "2048", "256", "8", "8", "64"),
    SPARSE_BACKWARD("2048", "2048", "256", "8", "8", "64"),
    LATENT("4096", "8192", "2048", "128", "BF16"),
    LATENT("4096", "32768", "2048", "128", "BF16"),
    LATENT_BACKWARD("4096", "8192", "2048", "128", "BF16"),
};

static const bench_preset cpu_preset = {
    .name = "cpu",
    .summary = "shapes that take a CPU milliseconds: the experiment's, and small ones of long contexts",
    CASES(cpu_cases)};
static const bench_preset gpu_preset = {.name = "gpu",
                                        .summary =
                                            "shapes that fill a GPU: the experiment's, and prefill over long contexts",
                                        CASES(gpu_cases)};

const bench_preset *const bench_presets[] = {
    &cpu_preset,
    &gpu_preset,
    &bench_preset_experiment,
    &bench_preset_memory,
    &bench_preset_prefill_gpu,
    &bench_preset_prefill_cpu,
    &bench_preset_decode_gpu,
    &bench_preset_decode_cpu,
    &bench_preset_long_gpu,
    &bench_preset_long_cpu,
    NULL,
};

enum { MAX_PRESETS = 32 };

static bool fits(const bench_preset *preset, bool is_cpu) {
    return preset->kind == BENCH_ON_ANY || (preset->kind == BENCH_ON_CPU) == is_cpu;
}

cldsa_status bench_find_preset(const char *name, bool is_cpu, const bench_preset **out) {
    const char *names[MAX_PRESETS];
    char list[BENCH_TEXT] = "";
    size_t count = 0;
    if (!name)
        name = is_cpu ? "cpu" : "gpu";
    for (int i = 0; bench_presets[i]; ++i) {
        if (!fits(bench_presets[i], is_cpu))
            continue;
        size_t used = strlen(list);
        names[count] = bench_presets[i]->name;
        snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", names[count]);
        if (strcmp(names[count++], name) == 0) {
            *out = bench_presets[i];
            return CLDSA_SUCCESS;
        }
    }
    const char *near = cldsa_nearest_name(name, names, count);
    return cldsa_fail(CLDSA_NOT_FOUND, "there is no preset \"%s\"; %s%s%s", name, near ? "did you mean " : "known are ",
                      near ? near : list, near ? "?" : "");
}
