/*
 * Line plots as SVG, drawn by gnuplot.
 */
#ifndef CLDSA_PLOT_H
#define CLDSA_PLOT_H

#include <cldsa/status.h>
#include <stdbool.h>
#include <stddef.h>

/* One line; points with a NaN are left out. */
typedef struct cldsa_plot_series {
    const char *name;
    const double *x, *y;
    size_t count;
} cldsa_plot_series;

typedef struct cldsa_plot {
    const char *title, *x_label, *y_label;
    const cldsa_plot_series *series;
    int num_series;
    bool log_x, log_y;
    bool points; /* marks beside the lines: for few points */
} cldsa_plot;

/*
 * *svg is a malloc'ed <svg> element without an XML header, for embedding in HTML. CLDSA_NOT_FOUND if gnuplot is not
 * installed, CLDSA_IO_ERROR if it fails.
 */
cldsa_status cldsa_plot_svg(const cldsa_plot *plot, char **svg);

#endif
