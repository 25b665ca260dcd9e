/* Offline compilers: where they are, how they are called, and what their reports say. */
#include "host/io/file.h"
#include "tests/vendors/vendors.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

enum { PATH_SIZE = 1024, COMMAND_SIZE = 8192, LONGEST_LOG = 64 << 20 };

/* ---- finding ------------------------------------------------------------------------------------------------------
 */

/* What `./bootstrap vendors` unpacked comes first, then the system's. */
#define UNPACKED CLDSA_VENDORS_DIR "/root/usr"

static const char *const clang_places[] = {UNPACKED "/bin/clang-22", "/usr/bin/clang-22", NULL};
static const char *const lld_places[] = {UNPACKED "/bin/ld.lld-22", "/usr/bin/ld.lld-22", NULL};
static const char *const amd_library_places[] = {UNPACKED "/lib/clc/amdgcn-amd-amdhsa.bc",
                                                 "/usr/lib/clc/amdgcn-amd-amdhsa.bc", NULL};
static const char *const nvidia_library_places[] = {UNPACKED "/lib/clc/nvptx64--nvidiacl.bc",
                                                    "/usr/lib/clc/nvptx64--nvidiacl.bc", NULL};
static const char *const ptxas_places[] = {CLDSA_VENDORS_DIR
                                           "/venv/lib/python3*/site-packages/nvidia/cuda_nvcc/bin/ptxas",
                                           "/usr/local/cuda/bin/ptxas", "/usr/bin/ptxas", NULL};
static const char *const libdevice_places[] = {
    CLDSA_VENDORS_DIR "/venv/lib/python3*/site-packages/nvidia/cuda_nvcc/nvvm/libdevice/libdevice.10.bc",
    "/usr/local/cuda/nvvm/libdevice/libdevice.10.bc", "/usr/lib/nvidia-cuda-toolkit/libdevice/libdevice.10.bc", NULL};
static const char *const ocloc_places[] = {UNPACKED "/bin/ocloc", "/usr/bin/ocloc", NULL};
static const char *const clang15_places[] = {UNPACKED "/bin/clang-15", "/usr/bin/clang-15", NULL};
static const char *const translator_places[] = {UNPACKED "/bin/llvm-spirv-15", "/usr/bin/llvm-spirv-15", NULL};
static const char *const validator_places[] = {UNPACKED "/bin/spirv-val", "/usr/bin/spirv-val", NULL};

static bool find_file(const char *const *places, char path[PATH_SIZE]) {
    for (; *places; ++places) {
        glob_t found;
        bool good = glob(*places, 0, NULL, &found) == 0;
        if (good) {
            snprintf(path, PATH_SIZE, "%s", found.gl_pathv[0]);
            globfree(&found);
            return true;
        }
    }
    return false;
}

typedef struct part {
    const char *name;
    const char *const *places;
} part;

enum { MAX_PARTS = 5 };

/* In the order in which the commands use them. */
static const part parts_of[][MAX_PARTS] = {
    [VENDORS_AMD] = {{"clang-22", clang_places}, {"libclc-22", amd_library_places}, {"lld-22", lld_places}},
    [VENDORS_INTEL] = {{"ocloc (intel-opencl-icd)", ocloc_places}},
    [VENDORS_NVIDIA] = {{"clang-22", clang_places},
                        {"libclc-22", nvidia_library_places},
                        {"libdevice (nvidia-cuda-nvcc)", libdevice_places},
                        {"ptxas (nvidia-cuda-nvcc)", ptxas_places}},
    [VENDORS_SPIRV] = {{"clang-15", clang15_places},
                       {"llvm-spirv-15", translator_places},
                       {"spirv-val (spirv-tools)", validator_places}},
    [VENDORS_C] = {{"clang-15", clang15_places}},
};

/* For programs that were unpacked and not installed. */
#define ENVIRONMENT "LD_LIBRARY_PATH=" UNPACKED "/lib/x86_64-linux-gnu "

static void first_line_of(const char *command, char *line, size_t size) {
    FILE *pipe = popen(command, "r");
    if (!pipe || !fgets(line, (int)size, pipe))
        snprintf(line, size, "version unknown");
    line[strcspn(line, "\n")] = '\0';
    if (pipe)
        pclose(pipe);
}

bool vendors_compiler_about(const vendors_target *target, char *about, size_t size) {
    const part *parts = parts_of[target->compiler];
    char path[PATH_SIZE], command[COMMAND_SIZE], line[256] = "", more[256] = "";
    for (const part *p = parts; p->name; ++p)
        if (!find_file(p->places, path)) {
            snprintf(about, size, "%s is not installed; ./bootstrap vendors installs it", p->name);
            return false;
        }
    find_file(parts[0].places, path);
    snprintf(command, sizeof command, ENVIRONMENT "%s --version 2>/dev/null", path);
    if (target->compiler == VENDORS_INTEL) /* ocloc names no version of its own: its library does */
        snprintf(command, sizeof command, "ls %s/../lib/*/libigc.so.1.* | sed 's/.*libigc.so.1/IGC 1/' | tail -1",
                 (path[strlen(path) - strlen("/ocloc")] = '\0', path));
    first_line_of(command, line, sizeof line);
    if (target->compiler == VENDORS_NVIDIA) {
        find_file(ptxas_places, path);
        snprintf(command, sizeof command, "%s --version | tail -1", path);
        first_line_of(command, more, sizeof more);
    }
    snprintf(about, size, "%s%s%s", line, *more ? ", ptxas " : "", more);
    return true;
}

/* ---- calling ------------------------------------------------------------------------------------------------------
 */

static void make_command(const vendors_target *target, const char *options, char command[COMMAND_SIZE]) {
    char at[MAX_PARTS][PATH_SIZE];
    const part *parts = parts_of[target->compiler];
    for (int i = 0; parts[i].name; ++i)
        find_file(parts[i].places, at[i]);
    switch (target->compiler) {
    case VENDORS_AMD: /* linked, so that a function which is in no library fails */
        snprintf(command, COMMAND_SIZE,
                 "%s -x cl %s -target amdgcn-amd-amdhsa -mcpu=%s -nogpulib -Xclang -mlink-builtin-bitcode -Xclang %s "
                 "-O3 -Rpass-analysis=kernel-resource-usage --ld-path=%s k.cl -o k.out",
                 at[0], options, target->name, at[1], at[2]);
        break;
    case VENDORS_INTEL:
        snprintf(command, COMMAND_SIZE,
                 "%s compile -file k.cl -device %s -options '%s' --format zebin -output k.out "
                 "-output_no_suffix",
                 at[0], target->name, options);
        break;
    case VENDORS_NVIDIA:
        snprintf(command, COMMAND_SIZE,
                 "%s -x cl %s -target nvptx64-nvidia-nvcl -Xclang -target-cpu -Xclang %s -nogpulib "
                 "-Xclang -mlink-builtin-bitcode -Xclang %s -Xclang -mlink-builtin-bitcode -Xclang %s -O3 -S k.cl "
                 "-o k.ptx && %s -v -arch=%s k.ptx -o k.out",
                 at[0], options, target->name, at[1], at[2], at[3], target->name);
        break;
    case VENDORS_SPIRV:
        snprintf(command, COMMAND_SIZE,
                 "%s -x cl %s -Xclang -finclude-default-header -target spir64-unknown-unknown -O0 "
                 "-Xclang -disable-O0-optnone -emit-llvm -c k.cl -o k.bc && "
                 "%s --spirv-max-version=1.2 k.bc -o k.out && %s --target-env opencl2.2 k.out",
                 at[0], options, at[1], at[2]);
        break;
    case VENDORS_C: /* neither clang's extensions of the language nor OpenCL's; our options silence warnings: drop that
                     */
        snprintf(command, COMMAND_SIZE,
                 "%s -x cl $(echo ' %s' | sed 's/ -w / /') -pedantic-errors -Wno-keyword-macro "
                 "-target spir64-unknown-unknown -Xclang -cl-ext=-all -fsyntax-only k.cl",
                 at[0], options);
        break;
    }
}

/* Intel's numbers are a text inside of the binary. */
static void append_intel_info(const char *binary, FILE *log) {
    static const char begin[] = "\nkernels:\n", end[] = "\nkernels_misc_info:";
    char *data;
    size_t size;
    if (cldsa_file_read(binary, LONGEST_LOG, &data, &size) != CLDSA_SUCCESS)
        return;
    const char *from = memmem(data, size, begin, sizeof begin - 1);
    const char *to = from ? memmem(from, size - (size_t)(from - data), end, sizeof end - 1) : NULL;
    if (to)
        fprintf(log, "%.*s\n", (int)(to - from), from);
    free(data);
}

/* Runs the compiler in a directory of its own; its output and, as the last line, its exit status end in `log_path`. */
static cldsa_status run_compiler(const vendors_target *target, const vendors_program *program, const char *log_path) {
    char command[COMMAND_SIZE], line[COMMAND_SIZE + 2 * PATH_SIZE], dir[PATH_SIZE + 16], path[PATH_SIZE + 32];
    snprintf(dir, sizeof dir, "%s.%d", log_path, (int)getpid()); /* another test may be at the same program */
    CLDSA_TRY(cldsa_make_directories(dir));
    snprintf(path, sizeof path, "%s/k.cl", dir);
    CLDSA_TRY(cldsa_file_write_all(path, program->source, strlen(program->source)));
    make_command(target, program->options, command);
    snprintf(line, sizeof line, "cd %s && export " ENVIRONMENT "&& { %s ; } > log 2>&1 </dev/null", dir, command);
    int code = system(line);
    snprintf(path, sizeof path, "%s/log", dir);
    FILE *log = fopen(path, "a");
    if (!log)
        return cldsa_fail(CLDSA_IO_ERROR, "cannot write %s", path);
    if (target->compiler == VENDORS_INTEL) {
        char binary[PATH_SIZE + 32];
        snprintf(binary, sizeof binary, "%s/k.out", dir);
        append_intel_info(binary, log);
    }
    fprintf(log, "\nexit %d\n", WIFEXITED(code) ? WEXITSTATUS(code) : 128);
    fclose(log);
    if (rename(path, log_path) != 0)
        return cldsa_fail(CLDSA_IO_ERROR, "cannot write %s", log_path);
    snprintf(line, sizeof line, "rm -r %s", dir);
    return system(line) == 0 ? CLDSA_SUCCESS : cldsa_fail(CLDSA_IO_ERROR, "cannot remove %s", dir);
}

/* ---- reading ------------------------------------------------------------------------------------------------------
 */

static vendors_report *begin_kernel(vendors_compiled *out, const char *name, size_t length) {
    static vendors_report overflow;
    vendors_report *report = out->num_kernels < VENDORS_MAX_KERNELS ? &out->kernels[out->num_kernels++] : &overflow;
    *report = (vendors_report){.registers = -1, .lanes = -1};
    snprintf(report->kernel, sizeof report->kernel, "%.*s", (int)length, name);
    return report;
}

static bool number_after(const char *line, const char *what, int *value) {
    const char *at = strstr(line, what);
    if (at)
        *value = atoi(at + strlen(what));
    return at != NULL;
}

/* clang's remarks, a line per number under each function's name. */
static vendors_report *read_amd(const char *line, vendors_compiled *out, vendors_report *kernel) {
    static const char name[] = "remark: Function Name: ";
    const char *at = strstr(line, name);
    int value;
    if (at)
        return begin_kernel(out, at + sizeof name - 1, strcspn(at + sizeof name - 1, " "));
    if (!kernel || !strstr(line, "remark:"))
        return kernel;
    if (number_after(line, " VGPRs: ", &value) || number_after(line, " AGPRs: ", &value))
        kernel->registers = (kernel->registers < 0 ? 0 : kernel->registers) + value;
    number_after(line, "ScratchSize [bytes/lane]: ", &kernel->private_bytes);
    number_after(line, "SGPRs Spill: ", &kernel->scalar_spills);
    number_after(line, "VGPRs Spill: ", &kernel->spills);
    number_after(line, "LDS Size [bytes/block]: ", &kernel->local_bytes);
    return kernel;
}

/* The text of the binary, which comes behind warnings about spills; scratch is per thread of `lanes` work-items. */
static vendors_report *read_intel(const char *line, vendors_compiled *out, vendors_report *kernel) {
    static const char name[] = "  - name:            ";
    if (strncmp(line, name, sizeof name - 1) == 0)
        return begin_kernel(out, line + sizeof name - 1, strcspn(line + sizeof name - 1, "\n"));
    if (!kernel)
        return NULL;
    number_after(line, "      grf_count:       ", &kernel->registers);
    number_after(line, "      simd_size:       ", &kernel->lanes);
    number_after(line, "      slm_size:        ", &kernel->local_bytes);
    int bytes;
    if (strstr(line, "- type:            scratch"))
        kernel->private_bytes = -1; /* until its size comes, two lines further down */
    else if (kernel->private_bytes < 0 && number_after(line, "        size:            ", &bytes))
        kernel->private_bytes = bytes / kernel->lanes;
    return kernel;
}

static void read_intel_spills(const char *log, vendors_compiled *out) {
    for (int i = 0; i < out->num_kernels; ++i) {
        char head[96];
        snprintf(head, sizeof head, "warning: kernel %s ", out->kernels[i].kernel);
        const char *at = strstr(log, head);
        const char *end = at ? strchr(at, '\n') : NULL;
        if (end) {
            char line[256];
            snprintf(line, sizeof line, "%.*s", (int)(end - at), at);
            number_after(line, "spilled around ", &out->kernels[i].spills);
        }
    }
}

/* ptxas: the entry's name, then its stack and spills, then its registers; functions that are no entries in between. */
static vendors_report *read_nvidia(const char *line, vendors_compiled *out, vendors_report *kernel) {
    static const char entry[] = "Compiling entry function '", other[] = "Function properties for ";
    const char *at = strstr(line, entry);
    if (at)
        return begin_kernel(out, at + sizeof entry - 1, strcspn(at + sizeof entry - 1, "'"));
    at = strstr(line, other);
    if (!kernel || (at && strncmp(at + sizeof other - 1, kernel->kernel, strlen(kernel->kernel)) != 0))
        return NULL;
    int stack, stores, loads;
    if (sscanf(line, " %d bytes stack frame, %d bytes spill stores, %d bytes spill loads", &stack, &stores, &loads) ==
        3) {
        kernel->private_bytes = stack;
        kernel->spills = stores + loads;
    }
    number_after(line, ": Used ", &kernel->registers);
    const char *shared = strstr(line, " bytes smem");
    if (shared) {
        while (shared > line && shared[-1] != ' ')
            --shared;
        kernel->local_bytes = atoi(shared);
    }
    return kernel;
}

/* The first errors, or whatever came last. */
static void take_message(const char *log, vendors_compiled *out) {
    const char *at = strstr(log, "error");
    while (at && at > log && at[-1] != '\n')
        --at;
    snprintf(out->message, sizeof out->message, "%.400s", at ? at : log);
    for (char *c = out->message; *c; ++c)
        if (*c == '\n')
            *c = ' ';
}

static void read_log(const vendors_target *target, const char *log, vendors_compiled *out) {
    const char *last = strstr(log, "\nexit ");
    for (const char *next = last; next; next = strstr(next + 1, "\nexit "))
        last = next;
    out->failed = !last || atoi(last + strlen("\nexit ")) != 0;
    if (out->failed) {
        take_message(log, out);
        return;
    }
    vendors_report *kernel = NULL;
    for (const char *line = log; *line;) {
        size_t length = strcspn(line, "\n");
        char text[1024];
        snprintf(text, sizeof text, "%.*s", (int)length, line);
        kernel = target->compiler == VENDORS_AMD     ? read_amd(text, out, kernel)
                 : target->compiler == VENDORS_INTEL ? read_intel(text, out, kernel)
                                                     : read_nvidia(text, out, kernel);
        line += length + (line[length] == '\n');
    }
    if (target->compiler == VENDORS_INTEL)
        read_intel_spills(log, out);
}

void vendors_compile(const vendors_target *target, const vendors_program *program, const char *about,
                     const char *work_dir, vendors_compiled *out) {
    *out = (vendors_compiled){0};
    char command[COMMAND_SIZE], path[PATH_SIZE];
    make_command(target, program->options, command);
    XXH64_hash_t hash = XXH3_64bits(program->source, strlen(program->source));
    hash = XXH3_64bits_withSeed(command, strlen(command), hash);
    hash = XXH3_64bits_withSeed(about, strlen(about), hash);
    snprintf(path, sizeof path, "%s/%s-%.40s-%016llx", work_dir, target->name, program->file, (unsigned long long)hash);
    char *log;
    size_t size;
    cldsa_status status = access(path, R_OK) == 0 ? CLDSA_SUCCESS : run_compiler(target, program, path);
    if (status == CLDSA_SUCCESS)
        status = cldsa_file_read(path, LONGEST_LOG, &log, &size);
    if (status != CLDSA_SUCCESS) {
        out->failed = true;
        snprintf(out->message, sizeof out->message, "%s", cldsa_error_message());
        return;
    }
    read_log(target, log, out);
    if (out->failed)
        unlink(path); /* it may not have been the program's fault */
    free(log);
}
