/* The shared style, and escaping. */
#include "host/io/html.h"

#include <string.h>

/* Plots come from gnuplot in black on nothing, so that they can take the page's colours. */
static const char style[] =
    ":root{color-scheme:light dark;--ink:#1d2125;--soft:#667;--rule:#d9dce0;--page:#fff;--card:#f5f6f8;--good:#00734f;"
    "--bad:#b83b00}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e4e6ea;--soft:#9aa3ad;--rule:#3a4048;--page:#16191d;--card:#20252b;"
    "--good:#3ec994;--bad:#ff8a50}}\n"
    "*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1.2em;"
    "color:var(--ink);background:var(--page)}\n"
    "h1{font-size:1.7em;line-height:1.2;margin-bottom:.3em}h2{margin:2.2em 0 .3em;font-size:1.3em;"
    "border-top:1px solid var(--rule);padding-top:.8em}h3{margin:1.4em 0 .3em;font-size:1.05em}p{max-width:56em}\n"
    "a{color:inherit}code{font-size:.92em}.muted{color:var(--soft);font-size:.87em}\n"
    "table{border-collapse:collapse;margin:.8em 0;font-variant-numeric:tabular-nums;font-size:.93em}\n"
    "th,td{padding:.3em .7em;border-bottom:1px solid "
    "var(--rule);text-align:right;vertical-align:top;white-space:nowrap}"
    "th{border-bottom:2px solid var(--soft);vertical-align:bottom}th[scope=row]{border-bottom:1px solid var(--rule);"
    "font-weight:inherit;vertical-align:top}\n"
    "th:first-child{text-align:left}.scroll{overflow-x:auto}\n"
    ".plots{display:flex;flex-wrap:wrap;gap:1em}.plots svg{width:560px;height:auto;max-width:100%}\n"
    "svg text{fill:var(--ink)}svg [stroke=black],svg [stroke='rgb(  0,   0,   0)']{stroke:var(--ink)}"
    "svg [color='#dddddd'] path,svg [stroke='rgb(221, 221, 221)']{stroke:var(--rule)}\n"
    "@media print{body{max-width:none;margin:0;font-size:10px;-webkit-print-color-adjust:exact;"
    "print-color-adjust:exact}.scroll{overflow:visible}tr,svg{break-inside:avoid}h2,h3{break-after:avoid}}\n";

void cldsa_html_text(FILE *out, const char *text) {
    static const char special[] = "<>&\"";
    static const char *const escaped[] = {"&lt;", "&gt;", "&amp;", "&quot;"};
    for (; *text; ++text) {
        const char *found = strchr(special, *text);
        if (found)
            fputs(escaped[found - special], out);
        else
            fputc(*text, out);
    }
}

void cldsa_html_element(FILE *out, const char *tag, const char *text) {
    fprintf(out, "<%s>", tag);
    cldsa_html_text(out, text);
    fprintf(out, "</%.*s>", (int)strcspn(tag, " "), tag);
}

void cldsa_html_begin(FILE *out, const char *title, const char *heading, const char *more) {
    fputs("<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">",
          out);
    cldsa_html_element(out, "title", title);
    fprintf(out, "<style>%s%s</style>\n", style, more);
    cldsa_html_element(out, "h1", heading);
    fputc('\n', out);
}

void cldsa_html_end(FILE *out) {
    fputs("</html>\n", out);
}
