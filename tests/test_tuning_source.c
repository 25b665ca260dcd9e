/* What of a kernel's source the tuning database's hash covers: its code, not how it is worded or laid out. */
#include "host/ops/tuning_database.h"
#include "host/runtime/runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct text_pair {
    const char *a, *b;
} text_pair;

static void hash_text(const char *text, char hash[17]) {
    char *copy = strdup(text);
    assert_non_null(copy);
    tuning_hash_source(copy, hash);
    assert_int_equal(strlen(hash), 16);
    free(copy);
}

static void assert_pairs(const text_pair *pairs, size_t count, bool same) {
    for (size_t i = 0; i < count; ++i) {
        char a[17], b[17];
        hash_text(pairs[i].a, a);
        hash_text(pairs[i].b, b);
        if ((strcmp(a, b) == 0) != same)
            fail_msg("%s hash: <%s> and <%s>", same ? "not the same" : "the same", pairs[i].a, pairs[i].b);
    }
}

#define ASSERT_PAIRS(pairs, same) assert_pairs(pairs, sizeof(pairs) / sizeof *(pairs), same)

static void overlooks_comments(void **state) {
    (void)state;
    static const text_pair pairs[] = {
        {"int a; // one\nint b;", "int a; // another\nint b;"},
        {"int a; // one\nint b;", "int a;\nint b;\n"},
        {"int a; /* one */ int b;", "int a; /* another,\n * longer\n */ int b;"},
        {"int/**/a;", "int a;"},
        {"a = b /* * / */ + c;", "a = b + c;"},
        {"a; /**/ b; /***/ c;", "a; b; c;"},
        {"a; // it's \"quoted\nb;", "a; /* don't */ b;"},
        {"a; // goes on \\\n in this line\nb;", "a; b;"},
        {"a; // goes on \\\r\n in this line\r\nb;", "a; b;"},
        {"/* at the top */\n#define A 1\na;", "#define A 1\na;"},
        {"#define A 1 // why\na;", "#define A 1\na;"},
        {"#define A /* over\n two lines */ 1\na;", "#define A 1\na;"},
        {"/* before */ #define A 1\na;", "#define A 1\na;"},
        {"a; // to the end", "a;"},
        {"a; /* without an end", "a;"},
        {"a; /* without an end *", "a; /*"},
        {"// nothing else", ""},
    };
    ASSERT_PAIRS(pairs, true);
}

static void overlooks_layout(void **state) {
    (void)state;
    static const text_pair pairs[] = {
        {"int  a;\n\n\tint b;\n", "int a; int b;"},
        {"int a;\r\nint b;\r\n", "int a;\nint b;\n"},
        {"f( a,b ) ;", "f(a, b);"},
        {"a=b+c", "a = b + c"},
        {"x = cond\n    ? a\n    : -b;", "x = cond ? a : -b;"},
        {"  #  define A   1\n\n\n#define B 2", "#define A 1\n#define B 2\n"},
        {"#define F(x) \\\n    do { \\\n        g(x); \\\n    } while (0)\n", "#define F(x) do { g(x); } while (0)\n"},
        {"#define F(x) g(x,    \\\n              1)\n", "#define F(x)    \\\n    g(x, 1)\n"},
        {"a;\n#line 7 \"other.cl\"\nb;", "a;\nb;"},
        {"#line 1 \"a.cl\"\n#define A 1\n\n#line 2 \"b.cl\"\nA", "#define A 1\nA"},
    };
    ASSERT_PAIRS(pairs, true);
}

static void sees_code(void **state) {
    (void)state;
    static const text_pair pairs[] = {
        {"a + b", "a - b"},
        {"f(1, 2)", "f(12)"},
        {"int a", "inta"},
        {"else return", "elsereturn"},
        {"1 2", "12"},
        {"1 .5", "1.5"},
        {"a - -b", "a--b"},
        {"a + ++b", "a++ + b"},
        {"a & &b", "a && b"},
        {"a < = b", "a <= b"},
        {"a - > b", "a -> b"},
        {"a / b; c", "a // b; c"},
        {"a / *b; c */ d", "a /*b; c */ d"},
        {"a / b / c", "a / b"},
        {"a // x\n/ b", "a / / b"}, /* one division, and what is none */
        {"#define F(x) x", "#define F (x) x"},
        {"#define A\nb", "#define A b"},
        {"#define A b\nc", "#define A b c"},
        {"#define A\n#define B", "#define A #define B"},
        {"a\n#b", "a #b"},
        {"#define A 1 \\\n 2\n", "#define A 1\n 2\n"},
        {"#define A(x) #x", "#define A(x) x"},
        {"#define A(x) x##1", "#define A(x) x# #1"},
        {"a; /* b; */ c;", "a; b; c;"},
        {"a; // b;", "a; b;"},
        {"#linear 1\na", "a"},
    };
    ASSERT_PAIRS(pairs, false);
}

static void takes_literals_as_they_are(void **state) {
    (void)state;
    static const text_pair same[] = {
        {"f(\"a // b\"); // c", "f(\"a // b\");"},
        {"f(\"\\\"\"); // c", "f(\"\\\"\");"},
        {"f('\"'); // \"", "f('\"');"},
        {"f(\"a\\\nb\")", "f(\"ab\")"},
        {"#error don't // c", "#error don't // c\n"},
        {"f(\"unterminated\nb; // c", "f(\"unterminated\nb;"}, /* it ends with its line */
        {"f(\"\\", "f( \"\\"},
    };
    static const text_pair other[] = {
        {"f(\"a // b\")", "f(\"a // c\")"},
        {"f(\"a /* b */\")", "f(\"a\")"},
        {"f(\"a  b\")", "f(\"a b\")"},
        {"f(\"unroll 2\")", "f(\"unroll2\")"},
        {"f(' ')", "f('')"},
        {"f(\"\\\" //a\")", "f(\"\\\" //b\")"},
    };
    ASSERT_PAIRS(same, true);
    ASSERT_PAIRS(other, false);
}

/* The file with a note behind each line, which a macro's lines that go on have before their backslash. */
static char *annotate(const char *text) {
    char *out = malloc(20 * strlen(text) + 1), *to = out;
    assert_non_null(out);
    for (; *text; ++text) {
        const bool ends = *text == '\n', goes_on = *text == '\\' && text[1] == '\n';
        if (ends && (to == out || to[-1] != '\\'))
            to += sprintf(to, " // it's new");
        else if (goes_on)
            to += sprintf(to, " /* \"new */ ");
        *to++ = *text;
    }
    *to = '\0';
    return out;
}

/* Every kernel that there is: rewording it changes nothing, one token more does. */
static void holds_for_the_kernels(void **state) {
    (void)state;
    int count = 0;
    for (const char *const *file = cldsa_kernel_files(); *file; ++file) {
        char *source, plain[17], annotated[17], edited[17];
        assert_int_equal(cldsa_kernel_source(NULL, *file, &source), CLDSA_SUCCESS);
        hash_text(source, plain);
        char *noted = annotate(source);
        assert_true(strlen(noted) > strlen(source));
        hash_text(noted, annotated);
        assert_string_equal(plain, annotated);
        strcat(noted, "\n;");
        hash_text(noted, edited);
        assert_string_not_equal(plain, edited);
        free(noted);
        free(source);
        ++count;
    }
    assert_true(count > 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlooks_comments),
        cmocka_unit_test(overlooks_layout),
        cmocka_unit_test(sees_code),
        cmocka_unit_test(takes_literals_as_they_are),
        cmocka_unit_test(holds_for_the_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
