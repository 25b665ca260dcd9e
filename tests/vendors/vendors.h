/*
 * Every kernel through every vendor's offline compiler, without their devices.
 *
 *   targets.c      the devices, as their drivers would describe them, and what limits occupancy there
 *   described.c    an OpenCL without a device: it answers as a target is described, and notes programs and launches
 *   calls.c        which calls are made on a target; what they made the library build becomes a list of programs
 *   compile.c      one program through a target's compiler; its report as numbers per kernel
 *   test_vendors.c walks all of it, judges, writes the table
 *
 * The library itself decides what is built: the calls run through its own planning, variants, defaults and options,
 * with the described device's limits and capabilities.
 */
#ifndef CLDSA_TESTS_VENDORS_H
#define CLDSA_TESTS_VENDORS_H

#include "host/ops/op.h"

/* ---- targets.c ------------------------------------------------------------------------------------------------- */

typedef enum vendors_compiler { VENDORS_AMD, VENDORS_INTEL, VENDORS_NVIDIA, VENDORS_SPIRV, VENDORS_C } vendors_compiler;

/* One multiprocessor, compute unit, work-group processor or Xe core: where work-groups share local memory. */
typedef struct vendors_unit {
    int lanes;           /* work-items of a wave; Intel: 0, the compiler chooses */
    int schedulers;      /* SIMD units, partitions, execution units */
    int waves;           /* most per scheduler */
    int registers;       /* per scheduler, counted per lane */
    int granule;         /* in which registers are given */
    size_t local_bytes;  /* of all its work-groups together */
    size_t local_step;   /* in which local memory is given */
    size_t local_hidden; /* taken from every work-group by the system */
    int groups;          /* most at a time */
} vendors_unit;

typedef struct vendors_target {
    const char *name; /* as the compiler calls it */
    vendors_compiler compiler;
    const char *platform, *vendor, *device; /* as the driver calls them, by which shipped tunings are found */
    cl_uint compute_units;
    size_t work_group_size;
    size_t local_bytes; /* of one work-group: CL_DEVICE_LOCAL_MEM_SIZE */
    size_t local_most;  /* what capabilities report; more than the driver's figure on NVIDIA */
    int sub_group_size;
    int fewest_lanes;  /* of sub-groups that a kernel may ask for; 0: no choice */
    int cpu_floats;    /* of a vector register; 0: a GPU */
    vendors_unit unit; /* zeros: no occupancy */
} vendors_target;

extern const vendors_target vendors_targets[]; /* terminated by a NULL name */

/*
 * Percent of a unit's waves that can be resident, by registers, local memory and the numbers of waves and groups; -1 if
 * unknown. `lanes` is the wave's width where the target does not fix it.
 */
int vendors_occupancy(const vendors_target *target, int lanes, int registers, size_t local_bytes, size_t group_items);

/* ---- described.c ----------------------------------------------------------------------------------------------- */

/* A launch, as noted: the handle of its event. */
typedef struct vendors_launch {
    const char *source, *options, *kernel; /* valid as long as the context's programs */
    size_t group_items;                    /* of the local size; 0 where the driver would choose */
    size_t local_argument_bytes;
} vendors_launch;

/* From here on the OpenCL functions speak of this device. */
void vendors_describe(const vendors_target *target);
cl_device_id vendors_device(void);
cl_context vendors_context(void);
cl_command_queue vendors_queue(void);
const vendors_launch *vendors_launch_of(cl_event event);

/* ---- calls.c --------------------------------------------------------------------------------------------------- */

typedef struct vendors_kernel {
    char name[64];
    char op[64], variant[32]; /* whose first launch it was */
    bool chosen;              /* this variant is what the library takes there without being told */
    size_t group_items;       /* the largest that was launched */
    size_t local_argument_bytes;
} vendors_kernel;

enum { VENDORS_MAX_KERNELS = 16 };

typedef struct vendors_program {
    char file[64];
    char *source, *options; /* options without those of the front end that all programs have */
    vendors_kernel kernels[VENDORS_MAX_KERNELS];
    int num_kernels;
} vendors_program;

typedef struct vendors_programs {
    vendors_program *items;
    size_t count, capacity;
    int calls; /* that led to them */
} vendors_programs;

/*
 * Everything that the presets, the extra cases and training make the library build on this target. Fails if a call
 * fails, or if a variant of the catalogue that the target can run was never launched.
 */
cldsa_status vendors_collect(const vendors_target *target, vendors_programs *out);

/* Fails if a variant of the catalogue was launched on none of the targets so far. */
cldsa_status vendors_all_launched(void);
void vendors_programs_free(vendors_programs *programs);

/* ---- compile.c ------------------------------------------------------------------------------------------------- */

/* A compiler's report of one kernel; -1 where it does not say. */
typedef struct vendors_report {
    char kernel[64];
    int registers;     /* per lane; Intel: of the thread's register file */
    int lanes;         /* of a wave as compiled */
    int spills;        /* registers that went to memory; NVIDIA: bytes of spill loads and stores */
    int scalar_spills; /* AMD: scalar registers that went to vector registers */
    int private_bytes; /* of memory per work-item, spills included */
    int local_bytes;   /* static */
} vendors_report;

typedef struct vendors_compiled {
    bool failed;
    char message[512]; /* the compiler's first lines, if it failed */
    vendors_report kernels[VENDORS_MAX_KERNELS];
    int num_kernels;
} vendors_compiled;

/* False if the target's compiler is not there; `about` then says what is missing, else name and version. */
bool vendors_compiler_about(const vendors_target *target, char *about, size_t size);

/*
 * Compiles one program. `work_dir` takes the source and the compiler's output; a report that is already there for the
 * same source, options and compiler is read again instead.
 */
void vendors_compile(const vendors_target *target, const vendors_program *program, const char *about,
                     const char *work_dir, vendors_compiled *out);

#endif
