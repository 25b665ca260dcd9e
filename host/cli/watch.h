/* What a person sees of a long run on standard error: a progress bar on a terminal, plain lines elsewhere; and Ctrl-C.
 */
#ifndef CLDSA_CLI_WATCH_H
#define CLDSA_CLI_WATCH_H

#include "host/train/trainer.h"

#include <stdbool.h>

typedef struct cli_watch {
    bool terminal;
    bool line_open;     /* the bar's line has not ended yet */
    double start;       /* of this run, seconds */
    double last_line;   /* when the last plain line was printed */
    int64_t first_step; /* where this run began (a resumed one: not 0); -1 before the first call */
    char label[96];     /* before the bar; may be "" */
} cli_watch;

void cli_watch_begin(cli_watch *watch, const char *label);
void cli_watch_end(cli_watch *watch); /* ends the bar's line */

/* Hooks that draw on `watch` and stop on the first Ctrl-C; a second one ends the process as usual. */
cldsa_run_hooks cli_watch_hooks(cli_watch *watch);

#endif
