#include "host/cli/watch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BAR_WIDTH = 24, LINE_SECONDS = 10 };

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal_number) {
    stop_requested = 1;
    signal(signal_number, SIG_DFL);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void cli_watch_begin(cli_watch *watch, const char *label) {
    *watch = (cli_watch){.terminal = isatty(STDERR_FILENO), .start = now(), .first_step = -1};
    watch->last_line = watch->start;
    snprintf(watch->label, sizeof watch->label, "%s", label);
}

void cli_watch_end(cli_watch *watch) {
    if (watch->line_open)
        fputc('\n', stderr);
    watch->line_open = false;
}

static void put_left(char *text, size_t size, double seconds) {
    if (!isfinite(seconds))
        snprintf(text, size, "--:--");
    else if (seconds >= 3600)
        snprintf(text, size, "%d:%02d:%02d", (int)seconds / 3600, (int)seconds / 60 % 60, (int)seconds % 60);
    else
        snprintf(text, size, "%02d:%02d", (int)seconds / 60, (int)seconds % 60);
}

static void show(void *user, int64_t step, int64_t steps, double loss, double tokens_per_second) {
    cli_watch *watch = user;
    if (watch->first_step < 0) { /* the first stretch builds kernels: it says little about the rest */
        watch->first_step = step;
        watch->start = now();
    }
    double done = (double)(step - watch->first_step);
    char left[32], rate[32] = "-";
    put_left(left, sizeof left, done > 0 ? (now() - watch->start) / done * (double)(steps - step) : NAN);
    if (!isnan(tokens_per_second))
        snprintf(rate, sizeof rate, "%.0f", tokens_per_second);
    if (watch->terminal) {
        char bar[BAR_WIDTH + 1];
        int filled = (int)(step * BAR_WIDTH / steps);
        memset(bar, '#', (size_t)filled);
        memset(bar + filled, '.', (size_t)(BAR_WIDTH - filled));
        bar[BAR_WIDTH] = 0;
        fprintf(stderr, "\r\033[K%s [%s] %lld/%lld  loss %.4f  %s tokens/s  %s left", watch->label, bar,
                (long long)step, (long long)steps, loss, rate, left);
        watch->line_open = true;
    } else if (step == steps || now() - watch->last_line >= LINE_SECONDS) {
        fprintf(stderr, "%s step %lld of %lld  loss %.4f  %s tokens/s  %s left\n", watch->label, (long long)step,
                (long long)steps, loss, rate, left);
        watch->last_line = now();
    }
}

cldsa_run_hooks cli_watch_hooks(cli_watch *watch) {
    signal(SIGINT, request_stop);
    signal(SIGTERM, request_stop);
    return (cldsa_run_hooks){.progress = show, .user = watch, .stop = &stop_requested};
}
