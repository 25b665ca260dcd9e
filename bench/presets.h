/* The tables of presets.c that have files of their own. */
#ifndef CLDSA_BENCH_PRESETS_H
#define CLDSA_BENCH_PRESETS_H

#include "bench/bench.h"

extern const bench_preset bench_preset_experiment, bench_preset_memory;
extern const bench_preset bench_preset_prefill_gpu, bench_preset_prefill_cpu;
extern const bench_preset bench_preset_decode_gpu, bench_preset_decode_cpu;
extern const bench_preset bench_preset_long_gpu, bench_preset_long_cpu;

#endif
