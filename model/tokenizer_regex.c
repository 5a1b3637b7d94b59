/*
 * Patterns of tokenizer.json are written for Oniguruma in its Ruby syntax. PCRE2 reads nearly all
 * of it the same way; this file rewrites what differs and can be said in PCRE2, and refuses by name
 * what cannot, so that a pattern never matches something else in silence:
 *   \s \S      PCRE2's also holds U+180E: rewritten to White_Space
 *   \p{Script} PCRE2's holds script extensions: rewritten to the script itself
 *   ^ $        match at every line: PCRE2_MULTILINE
 *   \v \uHHHH  one character
 *   refused    \w \b \h and other escapes, set operations, groups with unusual options, {,n} {n}?
 * {n}+
 */
#include "tokenizer_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

typedef struct {
    const char *where, *pattern;
    uint64_t at;
    bool in_set, set_is_new;
    mh_blob out;
    uint64_t *origin; /* for each byte of out, its place in the pattern */
    uint64_t origin_capacity;
} translation;

static mh_status refuse(const translation *t, const char *what, uint64_t bytes)
{
    return mh_fail(MH_UNSUPPORTED, "%s: \"%.*s\" at offset %llu is not supported, in \"%s\"",
                   t->where, (int)bytes, what, (unsigned long long)t->at, t->pattern);
}

/* Emits `text` for the next `taken` bytes of the pattern. */
static mh_status put(translation *t, const char *text, uint64_t bytes, uint64_t taken)
{
    mh_status status = mh_grow(&t->origin, &t->origin_capacity, t->out.bytes + bytes, 8);
    for (uint64_t i = 0; status == MH_OK && i < bytes; i++)
        t->origin[t->out.bytes + i] = t->at;
    if (status == MH_OK)
        status = mh_blob_add(&t->out, text, bytes);
    t->at += taken;
    return status;
}

static mh_status copy(translation *t, uint64_t bytes)
{
    return put(t, t->pattern + t->at, bytes, bytes);
}

/* \p{L}, \p{^Lu}, \pL: general categories have names of one or two letters, the rest are scripts.
 */
static mh_status property(translation *t)
{
    const char *p = t->pattern + t->at;
    if (p[2] != '{')
        return p[2] >= 'A' && p[2] <= 'Z' ? copy(t, 3) : refuse(t, p, 2);
    const char *name = p + 3 + (p[3] == '^'), *end = strchr(name, '}');
    if (!end || end == name ||
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_") !=
            (size_t)(end - name))
        return refuse(t, p, 3);
    if (end - name <= 2)
        return copy(t, (uint64_t)(end - p) + 1);
    char script[64];
    int length = snprintf(script, sizeof(script), "\\%c{%ssc:%.*s}", p[1], p[3] == '^' ? "^" : "",
                          (int)(end - name), name);
    if (length < 0 || length >= (int)sizeof(script))
        return refuse(t, p, (uint64_t)(end - p) + 1);
    return put(t, script, (uint64_t)length, (uint64_t)(end - p) + 1);
}

static mh_status hex_escape(translation *t)
{
    const char *p = t->pattern + t->at;
    if (p[1] == 'x')
        return copy(t, 2); /* the digits that follow mean the same to both */
    char code[16];
    if (strspn(p + 2, "0123456789abcdefABCDEF") < 4)
        return refuse(t, p, 2);
    snprintf(code, sizeof(code), "\\x{%.4s}", p + 2);
    return put(t, code, strlen(code), 6);
}

static mh_status escape(translation *t)
{
    static const char white[] = "\\p{White_Space}", not_white[] = "\\P{White_Space}";
    const char *p = t->pattern + t->at;
    unsigned char c = (unsigned char)p[1];
    if (c == 's')
        return put(t, white, sizeof(white) - 1, 2);
    if (c == 'S')
        return put(t, not_white, sizeof(not_white) - 1, 2);
    if (c == 'p' || c == 'P')
        return property(t);
    if (c == 'x' || c == 'u')
        return hex_escape(t);
    if (c == 'v')
        return put(t, "\\x0b", 4, 2);
    if (c && strchr("dDnrtfae", c))
        return copy(t, 2);
    if (!t->in_set && c && strchr("AzZ", c))
        return copy(t, 2);
    if (c >= 0x80 || (c > ' ' && c < 0x7f && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') &&
                      !(c >= 'a' && c <= 'z')))
        return copy(t, 2);
    return refuse(t, p, c ? 2 : 1);
}

static mh_status in_set(translation *t)
{
    const char *p = t->pattern + t->at;
    bool is_new = t->set_is_new;
    t->set_is_new = false;
    if (*p == '\\')
        return escape(t);
    if (*p == '[' || (*p == '&' && p[1] == '&'))
        return refuse(t, p, *p == '[' ? 1 : 2); /* a nested set, [:class:] or an intersection */
    if (*p == ']') {
        if (is_new)
            return refuse(t, p, 1);
        t->in_set = false;
    }
    return copy(t, 1);
}

static mh_status group(translation *t)
{
    static const char *const known[] = {"(?:",  "(?=",  "(?!",  "(?>",
                                        "(?<=", "(?<!", "(?i:", "(?-i:"};
    const char *p = t->pattern + t->at;
    if (p[1] != '?' && p[1] != '*')
        return copy(t, 1);
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (!strncmp(p, known[i], strlen(known[i])))
            return copy(t, strlen(known[i]));
    return refuse(t, p, strlen(p) < 3 ? strlen(p) : 3);
}

static mh_status translate(translation *t)
{
    mh_status status = MH_OK;
    while (status == MH_OK && t->pattern[t->at]) {
        const char *p = t->pattern + t->at;
        if (t->in_set) {
            status = in_set(t);
        } else if (*p == '\\') {
            status = escape(t);
        } else if (*p == '(') {
            status = group(t);
        } else if (*p == '[') {
            t->in_set = t->set_is_new = true;
            status = copy(t, p[1] == '^' ? 2 : 1);
        } else if ((*p == '{' && p[1] == ',') || (*p == '}' && (p[1] == '+' || p[1] == '?'))) {
            status = refuse(t, p, 2);
        } else {
            status = copy(t, 1);
        }
    }
    return status;
}

static mh_status compile(const translation *t, const uint8_t *text, uint64_t bytes,
                         uint32_t options, pcre2_code **out)
{
    int error;
    PCRE2_SIZE offset;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return mh_fail(MH_OUT_OF_MEMORY, "%s: no memory to compile a pattern", t->where);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    *out = pcre2_compile(text, bytes, options, &error, &offset, context);
    pcre2_compile_context_free(context);
    if (!*out) {
        char reason[128];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)reason, sizeof(reason));
        uint64_t at = !t->origin ? offset : offset < bytes ? t->origin[offset] : t->at;
        return mh_fail(MH_BAD_DATA, "%s: %s at offset %llu of \"%s\"", t->where, reason,
                       (unsigned long long)at, t->pattern);
    }
    /* Where there is no JIT, or it declines a pattern, pcre2_match interprets it. */
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return MH_OK;
}

mh_status mh_pattern_compile(const char *where, const char *pattern, pcre2_code **out)
{
    translation t = {.where = where, .pattern = pattern};
    mh_status status = translate(&t);
    if (status == MH_OK)
        status = mh_blob_terminate(&t.out);
    if (status == MH_OK)
        status = compile(&t, t.out.data, t.out.bytes,
                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, out);
    free(t.out.data);
    free(t.origin);
    return status;
}

mh_status mh_literal_compile(const char *where, const char *literal, pcre2_code **out)
{
    const translation t = {.where = where, .pattern = literal};
    return compile(&t, (const uint8_t *)literal, strlen(literal), PCRE2_UTF | PCRE2_LITERAL, out);
}

void mh_pattern_free(pcre2_code *pattern)
{
    pcre2_code_free(pattern);
}
