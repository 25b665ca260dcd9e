/* The script goes to a temporary file, the picture comes back through a pipe. */
#include "host/io/plot.h"
#include "host/runtime/runtime.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Colours that stay apart for colour-blind readers (Okabe and Ito). */
static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888"};
enum { NUM_COLOURS = sizeof colours / sizeof *colours };

const char *cldsa_plot_colour(int colour) {
    return colours[(colour - 1) % NUM_COLOURS];
}

/* Inside a gnuplot string: quotes and backslashes would end it. */
static void put_text(FILE *out, const char *text) {
    fputc('"', out);
    for (; *text; ++text)
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else if ((unsigned char)*text >= ' ')
            fputc(*text, out);
    fputc('"', out);
}

static void put_label(FILE *out, const char *what, const char *text) {
    fprintf(out, "set %s ", what);
    put_text(out, text ? text : "");
    fputc('\n', out);
}

static void put_series(FILE *out, const cldsa_plot *plot, int s) {
    static const char *const styles[] = {"lines lw 2", "lines lw 1.5 dt 2", "points pt 7 ps 0.6"};
    const cldsa_plot_series *series = &plot->series[s];
    bool marked = plot->points && series->style == CLDSA_PLOT_LINE;
    fprintf(out, "%s$data%d using 1:2 with %s lc rgb '%s' ", s ? ", " : "", s,
            marked ? "linespoints lw 2 pt 7 ps 0.6" : styles[series->style],
            cldsa_plot_colour(series->colour ? series->colour : s + 1));
    fputs(series->name ? "title " : "notitle", out);
    if (series->name)
        put_text(out, series->name);
}

static void write_script(FILE *out, const cldsa_plot *plot) {
    fputs("set terminal svg size 600,400 dynamic enhanced font 'sans-serif,12'\n"
          "set key tmargin center horizontal noenhanced\nset grid lc rgb '#dddddd'\nset border 3\nset tics nomirror\n"
          "set title noenhanced font ',14'\n",
          out);
    put_label(out, "title", plot->title);
    put_label(out, "xlabel", plot->x_label);
    put_label(out, "ylabel", plot->y_label);
    if (plot->log_x)
        fputs("set logscale x 2\n", out);
    if (plot->log_y)
        fputs("set logscale y\n", out);
    if (plot->x_format)
        put_label(out, "format x", plot->x_format);
    if (plot->y_format)
        put_label(out, "format y", plot->y_format);
    for (int s = 0; s < plot->num_series; ++s) {
        const cldsa_plot_series *series = &plot->series[s];
        fprintf(out, "$data%d << END\n", s);
        for (size_t i = 0; i < series->count; ++i)
            if (isfinite(series->x[i]) && isfinite(series->y[i]))
                fprintf(out, "%.9g %.9g\n", series->x[i], series->y[i]);
        fputs("END\n", out);
    }
    fputs("plot ", out);
    for (int s = 0; s < plot->num_series; ++s)
        put_series(out, plot, s);
    fputc('\n', out);
}

static char *read_all(FILE *in) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    char chunk[4096];
    for (size_t count; (count = fread(chunk, 1, sizeof chunk, in)) > 0;)
        fwrite(chunk, 1, count, out);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

static cldsa_status run_gnuplot(const char *script, char **svg) {
    char command[128];
    snprintf(command, sizeof command, "gnuplot %s 2>/dev/null", script);
    FILE *pipe = popen(command, "r");
    if (!pipe)
        return cldsa_fail(CLDSA_IO_ERROR, "gnuplot cannot be started: %s", strerror(errno));
    char *text = read_all(pipe);
    int code = pclose(pipe);
    char *start = text ? strstr(text, "<svg") : NULL;
    if (code != 0 || !start) {
        free(text);
        bool missing = code == 127 * 256; /* the shell's answer */
        return missing ? cldsa_fail(CLDSA_NOT_FOUND, "gnuplot is not installed; plots are left out")
                       : cldsa_fail(CLDSA_IO_ERROR, "gnuplot failed (status %d); plots are left out", code);
    }
    memmove(text, start, strlen(start) + 1);
    *svg = text;
    return CLDSA_SUCCESS;
}

cldsa_status cldsa_plot_svg(const cldsa_plot *plot, char **svg) {
    *svg = NULL;
    char path[] = "/tmp/cldsa-plot-XXXXXX";
    int descriptor = mkstemp(path);
    FILE *script = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    if (!script)
        return cldsa_fail(CLDSA_IO_ERROR, "%s: cannot be written: %s", path, strerror(errno));
    write_script(script, plot);
    cldsa_status status = fclose(script)
                              ? cldsa_fail(CLDSA_IO_ERROR, "%s: cannot be written: %s", path, strerror(errno))
                              : run_gnuplot(path, svg);
    unlink(path);
    return status;
}
