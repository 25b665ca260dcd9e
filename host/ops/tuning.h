/*
 * Reading the tuning database: which variant and which tunables were measured to be fastest, per operation, dtype and
 * shape class. op.c asks here between a variant's own defaults and what a caller forces; autotune/ writes it.
 *
 * A database is a JSON file, or an embedded one from autotune/devices/:
 *
 *     {"schema": 1,
 *      "device": {"platform", "vendor", "name", "type": "cpu"|"gpu"|"accelerator", "architecture", "driver",
 *                 "compute_units"},
 *      "entries": [{"op": "topk", "class": "dsa-decode",       which preset's shape stood for the class
 *                   "dims": {"R": 1, "T": 65536, "K": 2048},   that shape; calls take the nearest one's entry
 *                   "params": "order=index",                   enums and flags that a call must share
 *                   "dtypes": "F32",                           of the tensors that may have several float dtypes
 *                   "variant": "radix",                        the fastest of all variants
 *                   "variants": [{"variant", "tunables": {"WG": 256},   {}: nothing beat the defaults
 *                                 "source": "<kernel source hash>",
 *                                 "seconds", "default_seconds", "spread", "date"}]}],
 *      "clblast": [{"kernel": "Xgemm", "precision": 32, "parameters": {"MWG": 64}, "seconds", "default_seconds",
 *                   "date"}]}
 *
 * or several of them, as the user's file has it: {"schema": 1, "databases": [...]}.
 *
 * Files: the user's ($CLDSA_TUNING, else $XDG_DATA_HOME/cldsa/tuning.json, else ~/.local/share/cldsa/tuning.json) and
 * the shipped ones; CLDSA_TUNING=none turns both off. Databases are asked in this order: those of exactly this device
 * (name, driver and compute units), then those of its architecture under the same platform, then those of its vendor or
 * platform and type; of equal ones the user's before the shipped ones, else as they stand. The first that has an answer
 * gives it: the entry with equal params and dtypes whose shape is nearest, in doublings summed over the dims, and not
 * beyond CLDSA_TUNING_REACH in sum, or CLDSA_TUNING_REACH_EACH in one of them. Its variant is taken; its tunables only
 * if they gained CLDSA_TUNING_GAIN_PER_DOUBLING or more per doubling, else the defaults. Entries whose kernel source is
 * not the one in use, that name what does not exist, or that cannot run or are not legal for the very call are passed
 * over. A file that is damaged or of another schema is logged once and skipped.
 */
#ifndef CLDSA_TUNING_H
#define CLDSA_TUNING_H

#include "host/ops/op.h"

enum { CLDSA_TUNING_SCHEMA = 1 };

/*
 * Farther shapes say nothing of a call: an extent may be 4 times larger or smaller, and the extents' ratios,
 * multiplied, 2^10. What is best for rows of 32000 was seen to make rows of 1000 eleven times slower than the defaults.
 * An extent that only one of the two has counts as 4 doublings.
 */
enum { CLDSA_TUNING_REACH = 10, CLDSA_TUNING_REACH_EACH = 2, CLDSA_TUNING_UNBOUND = 4 };

/*
 * Defaults follow the shape, measured tunables do not: tiles that gained 7 % for a product of 2048 x 1000 took twice
 * the defaults' time for one of 2048 x 256 on an H100, while what gained 40 or 57 % still gained 7 and 9 % one or two
 * doublings away. So every doubling uses up a tenth of the gain.
 */
#define CLDSA_TUNING_GAIN_PER_DOUBLING 1.1

typedef struct cldsa_tuning_choice {
    cldsa_tuning_match match;     /* CLDSA_TUNING_NONE: nothing else is set */
    const cldsa_variant *chosen;  /* it can run this call */
    int tune[CLDSA_MAX_TUNABLES]; /* all its tunables, legal for this call: the measured ones, defaults for the rest */
    char from[64];      /* for people: "dsa-decode, user file" */
} cldsa_tuning_choice;

/*
 * What the database says of this call: ctx, op, args and dims of `run` are set. variant NULL asks for the fastest
 * variant and its tunables; else for that variant's. match is CLDSA_TUNING_NONE where it is silent. Never fails.
 */
void cldsa_tuning_lookup(const cldsa_run *run, const char *variant, cldsa_tuning_choice *out);

/*
 * Uses the file at `path` for this context instead of the usual ones; "" uses none, NULL the usual ones again. The
 * tuner and the bench measure defaults with "". CLDSA_NOT_FOUND, CLDSA_INVALID_FILE (damaged, other schema); nothing
 * changes then.
 */
cldsa_status cldsa_tuning_use(cldsa_context *ctx, const char *path);

/* The user's file, whether it exists or not; false if it is turned off or the system names no home. */
bool cldsa_tuning_user_path(char *path, size_t size);

/* A call's place in the database: class-independent keys, as stored in "params" and "dtypes". */
void cldsa_tuning_params(const cldsa_run *run, char *text, size_t size);
void cldsa_tuning_dtypes(const cldsa_run *run, char *text, size_t size);

/*
 * Hash of the code of a variant's kernel file, its includes expanded: 16 hex digits; "" where the variant has no file.
 * ctx NULL: of the embedded kernels. Comments, layout (also where a macro's lines are cut by backslashes) and #line do
 * not count; tokens, directives' lines and what strings hold do. Not covered: host code that sets options and launch
 * shapes, and second passes that several operations share and have in files of their own (attention_combine.cl).
 */
void cldsa_tuning_source_hash(cldsa_context *ctx, const cldsa_variant *variant, char text[17]);

/* Parameters of one of CLBlast's kernels. */
enum { CLDSA_TUNING_MAX_PARAMETERS = 24 };
typedef struct cldsa_tuning_clblast_kernel {
    char kernel[32];
    int precision; /* bits, as CLBlast counts: 32, 64, 16 */
    size_t count;
    char names[CLDSA_TUNING_MAX_PARAMETERS][32];
    size_t values[CLDSA_TUNING_MAX_PARAMETERS];
} cldsa_tuning_clblast_kernel;

/*
 * Calls `apply` for each CLBlast kernel that this device, or one of its architecture, has an entry for; once per
 * context and database, the first time this is called.
 */
void cldsa_tuning_clblast(cldsa_context *ctx,
                          void (*apply)(cldsa_context *ctx, const cldsa_tuning_clblast_kernel *kernel));

#endif
