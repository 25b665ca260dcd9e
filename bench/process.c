/* Child processes that answer in lines of JSON. */
#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { READ_SIZE = 1 << 16, STOP_POLLS = 200, STOP_POLL_MICROSECONDS = 10000 };

cldsa_status bench_process_start(char *const argv[], bench_process *process) {
    int to[2] = {-1, -1}, from[2] = {-1, -1};
    pid_t pid = -1;
    *process = (bench_process){.pid = -1, .in = -1, .out = -1};
    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC)) {
        if (to[0] >= 0)
            close(to[0]), close(to[1]);
        return cldsa_fail(CLDSA_IO_ERROR, "pipe: %s", strerror(errno));
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
    int code = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
    if (code) {
        close(to[1]);
        close(from[0]);
        return cldsa_fail(CLDSA_NOT_FOUND, "%s: %s", argv[0], strerror(code));
    }
    *process = (bench_process){.pid = pid, .in = to[1], .out = from[0]};
    signal(SIGPIPE, SIG_IGN); /* a child that died is an error of write(), not the end of this process */
    return CLDSA_SUCCESS;
}

cldsa_status bench_process_tell(bench_process *process, const cJSON *request) {
    char *text = cJSON_PrintUnformatted(request);
    if (!text)
        return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for a request");
    size_t length = strlen(text);
    text[length] = '\n'; /* in the terminator's place: only `length` bytes more are sent */
    bool sent = write(process->in, text, length + 1) == (ssize_t)length + 1;
    cJSON_free(text);
    return sent ? CLDSA_SUCCESS : cldsa_fail(CLDSA_IO_ERROR, "the other program ended");
}

/* The next line in process->buffer, NUL-terminated; false if there is none yet. */
static bool take_line(bench_process *process, char **line) {
    char *end = process->used ? memchr(process->buffer, '\n', process->used) : NULL;
    if (!end)
        return false;
    size_t length = (size_t)(end - process->buffer);
    *line = strndup(process->buffer, length);
    process->used -= length + 1;
    memmove(process->buffer, end + 1, process->used);
    return *line != NULL;
}

static cldsa_status read_more(bench_process *process, double timeout) {
    if (process->capacity - process->used < READ_SIZE) {
        char *grown = realloc(process->buffer, process->capacity + 2 * READ_SIZE);
        if (!grown)
            return cldsa_fail(CLDSA_OUT_OF_MEMORY, "no memory for an answer");
        process->buffer = grown;
        process->capacity += 2 * READ_SIZE;
    }
    struct pollfd poll_out = {.fd = process->out, .events = POLLIN};
    if (poll(&poll_out, 1, (int)(1000 * timeout)) == 0)
        return cldsa_fail(CLDSA_IO_ERROR, "no answer within %.0f s", timeout);
    ssize_t got = read(process->out, process->buffer + process->used, READ_SIZE);
    if (got <= 0)
        return cldsa_fail(CLDSA_IO_ERROR, "the other program ended without an answer");
    process->used += (size_t)got;
    return CLDSA_SUCCESS;
}

cldsa_status bench_process_ask(bench_process *process, const cJSON *request, double timeout, cJSON **answer) {
    *answer = NULL;
    if (request)
        CLDSA_TRY(bench_process_tell(process, request));
    double until = bench_now() + timeout;
    while (!*answer) {
        char *line;
        if (take_line(process, &line)) {
            if (line[strspn(line, " ")] == '{') /* anything else is chatter */
                *answer = cJSON_Parse(line);
            free(line);
            continue;
        }
        double left = until - bench_now();
        CLDSA_TRY(read_more(process, left > 0 ? left : 0));
    }
    return CLDSA_SUCCESS;
}

void bench_process_stop(bench_process *process) {
    if (process->pid > 0) {
        close(process->in); /* the end of its input asks it to go */
        close(process->out);
        int waited = 0;
        for (int i = 0; i < STOP_POLLS && waited == 0; ++i) {
            waited = waitpid(process->pid, NULL, WNOHANG);
            if (waited == 0)
                usleep(STOP_POLL_MICROSECONDS);
        }
        if (waited == 0) {
            kill(process->pid, SIGKILL);
            waitpid(process->pid, NULL, 0);
        }
    }
    free(process->buffer);
    *process = (bench_process){.pid = -1, .in = -1, .out = -1};
}
