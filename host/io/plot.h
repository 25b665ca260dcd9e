/*
 * Line plots as SVG, drawn by gnuplot.
 */
#ifndef CLDSA_PLOT_H
#define CLDSA_PLOT_H

#include <cldsa/status.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum cldsa_plot_style { CLDSA_PLOT_LINE, CLDSA_PLOT_DASHED, CLDSA_PLOT_POINTS } cldsa_plot_style;

/* One line; points with a NaN are left out. */
typedef struct cldsa_plot_series {
    const char *name; /* NULL: not in the key */
    const double *x, *y;
    size_t count;
    cldsa_plot_style style;
    int colour; /* from 1 on, of the palette; 0: by its place */
} cldsa_plot_series;

/* The palette, "#rrggbb", for what stands beside plots; `colour` from 1 on, repeating. */
const char *cldsa_plot_colour(int colour);

typedef struct cldsa_plot {
    const char *title, *x_label, *y_label;
    const cldsa_plot_series *series;
    int num_series;
    bool log_x, log_y;
    bool points;                     /* marks beside the lines: for few points */
    const char *x_format, *y_format; /* gnuplot's, of the axes' numbers; NULL: as usual */
} cldsa_plot;

/*
 * *svg is a malloc'ed <svg> element without an XML header, for embedding in HTML: no background, black text and axes,
 * which a page's style may give its own colours. CLDSA_NOT_FOUND if gnuplot is not installed, CLDSA_IO_ERROR if it
 * fails.
 */
cldsa_status cldsa_plot_svg(const cldsa_plot *plot, char **svg);

#endif
