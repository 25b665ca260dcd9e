/* What a measurement is valid for: the code of its kernel. Rewording and reformatting a kernel keeps what was measured.
 */
#include "host/ops/tuning_database.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* White space since the last token: none, some, or the end or beginning of a directive, which a line of its own keeps.
 */
typedef enum gap { GAP_NONE, GAP_BLANK, GAP_LINE } gap;

/* Code is written over the text that it is read from: it is never longer. */
typedef struct compactor {
    char *start, *out;
    gap gap;
    bool line_begins; /* nothing but white space and comments so far: a '#' begins a directive */
    bool directive;
} compactor;

/* ---- what belongs together ------------------------------------------------------------------------------------- */

/* Of identifiers and numbers; beyond ASCII anything. */
static bool is_word(char c) {
    return (unsigned)(c | 0x20) - 'a' < 26 || (unsigned)c - '0' < 10 || c == '_' || (c & 0x80);
}

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_one_of(char c, const char *set) {
    return strchr(set, c) != NULL;
}

/* Would the compiler read something else without white space between the two? */
static bool must_stay_apart(char before, char after, bool directive) {
    if (is_word(before)) /* "#define F (x)" is no "#define F(x)" */
        return is_word(after) || after == '.' || (directive && after == '(');
    if (before == '.')
        return is_word(after) || after == '.';
    return (after == '=' && is_one_of(before, "+-*/%&|^<>=!")) || (after == before && is_one_of(before, "+-&|<>#/")) ||
           (before == '-' && after == '>') || (before == '/' && after == '*');
}

/* ---- tokens ---------------------------------------------------------------------------------------------------- */

/* In place: lines that a backslash ends go on in the next, in macros as in comments and strings. */
static void join_lines(char *text) {
    char *out = text;
    for (const char *at = text; *at;) {
        size_t length = strcspn(at, "\\");
        memmove(out, at, length);
        out += length;
        at += length;
        if (at[0] == '\\' && at[1] == '\n')
            at += 2;
        else if (at[0] == '\\' && at[1] == '\r' && at[2] == '\n')
            at += 3;
        else if (*at)
            *out++ = *at++;
    }
    *out = '\0';
}

/* Past the comment that begins at `at`, or `at` itself. One without an end takes the rest. */
static const char *skip_comment(const char *at) {
    if (at[0] == '/' && at[1] == '/')
        return at + strcspn(at, "\n");
    if (at[0] == '/' && at[1] == '*') {
        const char *end = strstr(at + 2, "*/");
        return end ? end + 2 : at + strlen(at);
    }
    return at;
}

/* Past a string or character; one without an end, as the apostrophe in an #error's text, ends with its line. */
static const char *skip_literal(const char *at) {
    const char quote = *at++;
    for (; *at && *at != '\n'; ++at) {
        if (*at == quote)
            return at + 1;
        if (*at == '\\' && at[1] && at[1] != '\n')
            ++at;
    }
    return at;
}

static const char *skip_token(const char *at) {
    if (*at == '"' || *at == '\'')
        return skip_literal(at);
    if (!is_word(*at))
        return at + 1;
    while (is_word(*at))
        ++at;
    return at;
}

/* ---- the code of a text ---------------------------------------------------------------------------------------- */

static void widen(compactor *c, gap least) {
    if (c->gap < least)
        c->gap = least;
}

/* "#line" says where code comes from, which is not what it does. */
static bool is_line_marker(const char *at) {
    return strncmp(at, "#line", 5) == 0 && !is_word(at[5]);
}

static void put_token(compactor *c, const char *at, size_t length) {
    if (c->out > c->start && c->gap == GAP_LINE)
        *c->out++ = '\n';
    else if (c->out > c->start && c->gap == GAP_BLANK && must_stay_apart(c->out[-1], *at, c->directive))
        *c->out++ = ' ';
    for (size_t i = 0; i < length; ++i) /* too short for memmove to be faster */
        *c->out++ = at[i];
    c->gap = GAP_NONE;
}

static const char *take_token(compactor *c, const char *at) {
    if (*at == '#' && c->line_begins) {
        if (is_line_marker(at))
            return at + strcspn(at, "\n");
        c->directive = true;
        widen(c, GAP_LINE);
    }
    c->line_begins = false;
    const char *end = skip_token(at);
    put_token(c, at, (size_t)(end - at));
    return end;
}

static const char *end_line(compactor *c, const char *at) {
    widen(c, c->directive ? GAP_LINE : GAP_BLANK);
    c->directive = false;
    c->line_begins = true;
    return at + 1;
}

static size_t compact(char *source) {
    compactor c = {.start = source, .out = source, .line_begins = true};
    join_lines(source);
    for (const char *at = source; *at;) {
        const char *after = *at == '/' ? skip_comment(at) : at;
        if (after > at) {
            widen(&c, GAP_BLANK);
            at = after;
        } else if (*at == '\n') {
            at = end_line(&c, at);
        } else if (is_blank(*at)) {
            widen(&c, GAP_BLANK);
            ++at;
        } else {
            at = take_token(&c, at);
        }
    }
    return (size_t)(c.out - source);
}

void tuning_hash_source(char *source, char hash[17]) {
    size_t size = compact(source);
    snprintf(hash, 17, "%016llx", (unsigned long long)XXH3_64bits(source, size));
}

void cldsa_tuning_source_hash(cldsa_context *ctx, const cldsa_variant *variant, char text[17]) {
    char *source;
    text[0] = '\0';
    if (!variant->file ||
        cldsa_kernel_source(ctx ? cldsa_context_kernel_dir(ctx) : NULL, variant->file, &source) != CLDSA_SUCCESS)
        return;
    tuning_hash_source(source, text);
    free(source);
}
