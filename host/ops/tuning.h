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
 *                   "dtypes": "F32",                           of the float tensors, in table order
 *                   "variant": "radix",                        the fastest of all variants
 *                   "variants": [{"variant", "tunables": {"WG": 256}, "source": "<kernel source hash>",
 *                                 "seconds", "default_seconds", "spread", "date"}]}],
 *      "clblast": [{"kernel": "Xgemm", "precision": 32, "parameters": {"MWG": 64}, "seconds", "default_seconds"}]}
 *
 * Files in order of trust: the user's ($XDG_DATA_HOME/cldsa/tuning.json, or $CLDSA_TUNING; several devices in one file:
 * {"schema": 1, "databases": [...]}), then the shipped ones. Per file the best matching device counts: exactly this
 * one (name, driver, compute units), then this architecture, then vendor and type. Entries whose source hash differs
 * from the kernel in use, whose tunables do not exist or are not legal here, are passed over. A file that is
 * damaged or of another schema is logged once and skipped.
 */
#ifndef CLDSA_TUNING_H
#define CLDSA_TUNING_H

#include "host/ops/op.h"

enum { CLDSA_TUNING_SCHEMA = 1 };

typedef enum cldsa_tuning_match {
    CLDSA_TUNING_NONE, /* defaults */
    CLDSA_TUNING_VENDOR,
    CLDSA_TUNING_ARCHITECTURE,
    CLDSA_TUNING_EXACT
} cldsa_tuning_match;

typedef struct cldsa_tuning_choice {
    cldsa_tuning_match match;
    char variant[32];
    char tunables[256]; /* "NAME=VALUE,..." */
    char from[64];      /* for people: "dsa-decode, user file" */
} cldsa_tuning_choice;

/*
 * What the database says of this call: dims, args and op of `run` are bound. variant NULL asks for the fastest variant
 * and its tunables; else for that variant's. match is CLDSA_TUNING_NONE where it is silent. Never fails.
 */
void cldsa_tuning_lookup(const cldsa_run *run, const char *variant, cldsa_tuning_choice *out);

/*
 * Uses the file at `path` for this context instead of the usual ones; "" uses none, NULL the usual ones again. The
 * tuner and the bench measure defaults with "". CLDSA_NOT_FOUND, CLDSA_INVALID_ARGUMENT (damaged, other schema).
 */
cldsa_status cldsa_tuning_use(cldsa_context *ctx, const char *path);

/* The user's file, whether it exists or not; false if the system names no home. */
bool cldsa_tuning_user_path(char *path, size_t size);

/* A call's place in the database: class-independent keys, as stored in "params" and "dtypes". */
void cldsa_tuning_params(const cldsa_run *run, char *text, size_t size);
void cldsa_tuning_dtypes(const cldsa_run *run, char *text, size_t size);

/* Hash of a variant's kernel file with its includes expanded, 16 hex digits; "" where the variant has no file. */
void cldsa_tuning_source_hash(cldsa_context *ctx, const cldsa_variant *variant, char text[17]);

#endif
