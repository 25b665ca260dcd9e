/*
 * Pages of HTML that stand alone: one file, no network, no scripts, legible in light and dark and on paper.
 */
#ifndef CLDSA_HTML_H
#define CLDSA_HTML_H

#include <stdio.h>

/*
 * Head with the style that all pages share and `more` of the page's own, and the heading. The shared style knows tables
 * (in .scroll; first cells of rows are th scope=row), .plots, .muted, and colours as variables (html.c).
 */
void cldsa_html_begin(FILE *out, const char *title, const char *heading, const char *more);
void cldsa_html_end(FILE *out);

/* Text with what HTML would take as markup escaped; also within quoted attributes. */
void cldsa_html_text(FILE *out, const char *text);

/* <tag>text</tag>; the tag may have attributes: "td class=muted". */
void cldsa_html_element(FILE *out, const char *tag, const char *text);

#endif
