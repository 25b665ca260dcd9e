/* What a person sees while it runs: one line that changes on a terminal, one now and then elsewhere. */
#include "autotune/session.h"

#include <math.h>
#include <stdarg.h>
#include <unistd.h>

/* Between two lines of a log that nobody watches. */
static const double quiet_seconds = 20;

const char *tuner_duration(double seconds, char text[32]) {
    if (!isfinite(seconds))
        snprintf(text, 32, "-");
    else if (seconds < 1e-3)
        snprintf(text, 32, "%.1f us", 1e6 * seconds);
    else if (seconds < 1)
        snprintf(text, 32, "%.3g ms", 1e3 * seconds);
    else
        snprintf(text, 32, "%.3g s", seconds);
    return text;
}

void tuner_progress_trial(tuner_session *session, const tuner_target *target) {
    const tuner_search *search = &target->search;
    const bool terminal = isatty(STDOUT_FILENO);
    double now = tuner_log_clock(session->log), left = session->end - now;
    if (now - session->printed < (terminal ? 0.1 : quiet_seconds))
        return;
    session->printed = now;
    double best = search->best < search->space->count ? search->seconds[search->best] : NAN;
    char text[32], before[32];
    char number[32] = "";
    if (session->case_number)
        snprintf(number, sizeof number, "[%d/%d] ", session->case_number, session->num_cases);
    printf("%s%s%.48s %s: best %s (default %s), tried %zu, failed %zu, left %zu, %d:%02d left%s",
           terminal ? "\r\033[K" : "", number, session->now->label,
           target->kernel ? target->kernel : target->space->variant, tuner_duration(best, text),
           tuner_duration(session->default_seconds, before), session->tried, session->failed,
           search->space->count - search->tried, (int)fmax(left, 0) / 60, (int)fmax(left, 0) % 60,
           terminal ? "" : "\n");
    session->line_open = terminal;
    fflush(stdout);
}

void tuner_progress_line(tuner_session *session, const char *format, ...) {
    va_list list;
    if (session->line_open)
        fputs("\r\033[K", stdout);
    session->line_open = false;
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    putchar('\n');
    fflush(stdout);
    session->printed = tuner_log_clock(session->log);
}
