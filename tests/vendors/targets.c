#include "tests/vendors/vendors.h"

/*
 * Limits of a unit, from the vendors' tuning and programming guides. Registers are per lane and scheduler: an AMD SIMD
 * of 64 lanes has 512 (gfx90a and gfx942 count accumulation registers in), one of 32 lanes 1024 or 1536; a quarter of
 * an NVIDIA multiprocessor has 16384 / 32; an Intel execution unit's threads have 128 each.
 */
#define KIB(n) ((size_t)(n) << 10)
#define AMD_CDNA                                                                                                       \
    {                                                                                                                  \
        .lanes = 64, .schedulers = 4, .waves = 8, .registers = 512, .granule = 8, .local_bytes = KIB(64),              \
        .local_step = 512, .groups = 32                                                                                \
    }
#define AMD_RDNA(registers_, granule_)                                                                                 \
    {                                                                                                                  \
        .lanes = 32, .schedulers = 4, .waves = 16, .registers = (registers_), .granule = (granule_),                   \
        .local_bytes = KIB(128), .local_step = 1024, .groups = 32                                                      \
    }
#define NVIDIA(local, hidden)                                                                                          \
    {                                                                                                                  \
        .lanes = 32, .schedulers = 4, .waves = 16, .registers = 512, .granule = 8, .local_bytes = KIB(local),          \
        .local_step = 256, .local_hidden = (hidden), .groups = 32                                                      \
    }
#define INTEL(units, threads)                                                                                          \
    {                                                                                                                  \
        .schedulers = (units), .waves = (threads), .registers = 128 * (threads), .granule = 128,                       \
        .local_bytes = KIB(128), .local_step = 1024, .groups = 64                                                      \
    }

#define AMD_TARGET(name_, device_, units, wave, unit_)                                                                 \
    {                                                                                                                  \
        .name = (name_), .compiler = VENDORS_AMD, .platform = "AMD Accelerated Parallel Processing",                   \
        .vendor = "Advanced Micro Devices, Inc.", .device = (device_), .compute_units = (units),                       \
        .work_group_size = 256, .local_bytes = KIB(64), .local_most = KIB(64), .sub_group_size = (wave), .unit = unit_ \
    }
#define INTEL_TARGET(name_, device_, units, items, local, fewest, unit_)                                               \
    {                                                                                                                  \
        .name = (name_), .compiler = VENDORS_INTEL, .platform = "Intel(R) OpenCL Graphics",                            \
        .vendor = "Intel(R) Corporation", .device = (device_), .compute_units = (units), .work_group_size = (items),   \
        .local_bytes = KIB(local), .local_most = KIB(local), .sub_group_size = 16, .fewest_lanes = (fewest),           \
        .unit = unit_                                                                                                  \
    }
#define NVIDIA_TARGET(name_, device_, units, most, unit_)                                                              \
    {                                                                                                                  \
        .name = (name_), .compiler = VENDORS_NVIDIA, .platform = "NVIDIA CUDA", .vendor = "NVIDIA Corporation",        \
        .device = (device_), .compute_units = (units), .work_group_size = 1024, .local_bytes = KIB(48),                \
        .local_most = (most), .sub_group_size = 32, .unit = unit_                                                      \
    }

/* A small device with OpenCL's least limits of a full profile; and a CPU: with 16 floats to a vector the one whose
 * tuning is shipped; with 4 it prefetches nothing, which SPIR-V's translator of LLVM 15 does not know. */
#define GENERIC_TARGETS(name_, compiler_, floats)                                                                      \
    {.name = (name_),                                                                                                  \
     .compiler = (compiler_),                                                                                          \
     .platform = "any",                                                                                                \
     .vendor = "any",                                                                                                  \
     .device = "any GPU",                                                                                              \
     .compute_units = 8,                                                                                               \
     .work_group_size = 256,                                                                                           \
     .local_bytes = KIB(32),                                                                                           \
     .local_most = KIB(32),                                                                                            \
     .sub_group_size = 32},                                                                                            \
    {                                                                                                                  \
        .name = name_ "-cpu", .compiler = (compiler_), .platform = "Portable Computing Language",                      \
        .vendor = "AuthenticAMD", .device = "pthread-skylake-avx512-AMD EPYC", .compute_units = 2,                     \
        .work_group_size = 4096, .local_bytes = KIB(512), .local_most = KIB(512), .sub_group_size = 1,                 \
        .cpu_floats = (floats)                                                                                         \
    }

/* AMD's driver reports compute units, not the pairs of RDNA, and work-groups of up to 256 unless a kernel asks. */
const vendors_target vendors_targets[] = {
    AMD_TARGET("gfx90a", "gfx90a:sramecc+:xnack-", 104, 64, AMD_CDNA), /* Instinct MI250X, one die */
    AMD_TARGET("gfx942", "gfx942:sramecc+:xnack-", 304, 64, AMD_CDNA), /* Instinct MI300X */
    AMD_TARGET("gfx1030", "gfx1030", 40, 32, AMD_RDNA(1024, 16)),      /* Radeon RX 6800 to 6950 */
    AMD_TARGET("gfx1100", "gfx1100", 48, 32, AMD_RDNA(1536, 24)),      /* Radeon RX 7900 */
    AMD_TARGET("gfx1201", "gfx1201", 32, 32, AMD_RDNA(1536, 24)),      /* Radeon RX 9070 */
    INTEL_TARGET("tgllp", "Intel(R) Iris(R) Xe Graphics", 96, 512, 64, 8, INTEL(16, 7)),
    INTEL_TARGET("dg2", "Intel(R) Arc(TM) A770 Graphics", 512, 1024, 64, 8, INTEL(16, 8)),
    INTEL_TARGET("pvc", "Intel(R) Data Center GPU Max 1550", 512, 1024, 128, 16, INTEL(8, 8)),
    NVIDIA_TARGET("sm_70", "Tesla V100-SXM2-16GB", 80, KIB(96) - 16, NVIDIA(96, 0)),
    NVIDIA_TARGET("sm_80", "NVIDIA A100-SXM4-80GB", 108, KIB(160) - 16, NVIDIA(164, 1024)),
    NVIDIA_TARGET("sm_90", "NVIDIA H200", 132, KIB(227) - 16, NVIDIA(228, 1024)),
    /* Whoever takes SPIR-V, and the language itself. */
    GENERIC_TARGETS("spir64", VENDORS_SPIRV, 4),
    GENERIC_TARGETS("c", VENDORS_C, 16),
    {0},
};

static int least(int a, int b) {
    return a < b ? a : b;
}

int vendors_occupancy(const vendors_target *target, int lanes, int registers, size_t local_bytes, size_t group_items) {
    const vendors_unit *unit = &target->unit;
    if (unit->lanes)
        lanes = unit->lanes;
    if (!unit->schedulers || lanes <= 0 || registers < 0 || group_items == 0)
        return -1;
    int given = (int)cldsa_round_up(registers > 0 ? registers : 1, unit->granule);
    int waves = unit->schedulers * least(unit->waves, unit->registers / given);
    int waves_per_group = (int)cldsa_ceil_div((int64_t)group_items, lanes);
    int groups = least(unit->groups, waves / waves_per_group);
    size_t local = (size_t)cldsa_round_up((int64_t)(local_bytes + unit->local_hidden), (int64_t)unit->local_step);
    if (local)
        groups = least(groups, (int)(unit->local_bytes / local));
    return 100 * groups * waves_per_group / (unit->schedulers * unit->waves);
}
