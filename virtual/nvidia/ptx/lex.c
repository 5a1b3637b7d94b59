#include "lex.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../machine.h"

static bool name_start(unsigned char c)
{
    return isalpha(c) || c == '_' || c == '%' || c == '$';
}

static bool name_part(unsigned char c)
{
    return isalnum(c) || c == '_' || c == '$';
}

void ptx_lexer_init(struct ptx_lexer *lexer, const char *text, size_t size,
                    struct vn_diagnostic *diagnostic, jmp_buf *fail)
{
    *lexer = (struct ptx_lexer){.at = text,
                                .end = text + size,
                                .line_start = text,
                                .line = 1,
                                .diagnostic = diagnostic,
                                .fail = fail};
    /* The driver's own convention: PTX passed as a C string ends at its NUL. */
    const char *nul = memchr(text, 0, size);
    if (nul)
        lexer->end = nul;
}

void ptx_error(struct ptx_lexer *lexer, const struct ptx_token *at, const char *format, ...)
{
    struct vn_diagnostic *d = lexer->diagnostic;
    if (d) {
        d->line = at ? at->line : 0;
        d->column = at ? at->column : 0;
        va_list list;
        va_start(list, format);
        vsnprintf(d->text, sizeof d->text, format, list);
        va_end(list);
    }
    longjmp(*lexer->fail, 1);
}

static void newline(struct ptx_lexer *lexer)
{
    lexer->line++;
    lexer->line_start = lexer->at;
}

/* `# 12 "file"` and `#line 12 "file"`. */
static void line_marker(struct ptx_lexer *lexer)
{
    const char *p = lexer->at, *end = memchr(p, '\n', (size_t)(lexer->end - p));
    if (!end)
        end = lexer->end;
    p++;
    if (end - p > 4 && !memcmp(p, "line", 4))
        p += 4;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    uint32_t number = 0;
    while (p < end && isdigit((unsigned char)*p) && number < 100000000)
        number = number * 10 + (uint32_t)(*p++ - '0');
    const char *open = memchr(p, '"', (size_t)(end - p));
    const char *close = open ? memchr(open + 1, '"', (size_t)(end - open - 1)) : NULL;
    if (number) {
        if (close) {
            lexer->source_file = open + 1;
            lexer->source_length = (uint32_t)(close - open - 1);
        }
        lexer->source_line = number;
        lexer->source_at = lexer->line + 1;
    }
    lexer->at = end;
}

static void skip_space(struct ptx_lexer *lexer)
{
    while (lexer->at < lexer->end) {
        char c = *lexer->at;
        if (c == '\n') {
            lexer->at++;
            newline(lexer);
        } else if (isspace((unsigned char)c)) {
            lexer->at++;
        } else if (c == '/' && lexer->end - lexer->at > 1 && lexer->at[1] == '/') {
            while (lexer->at < lexer->end && *lexer->at != '\n')
                lexer->at++;
        } else if (c == '/' && lexer->end - lexer->at > 1 && lexer->at[1] == '*') {
            struct ptx_token open = {.line = lexer->line,
                                     .column = (uint32_t)(lexer->at - lexer->line_start) + 1};
            lexer->at += 2;
            while (lexer->end - lexer->at > 1 && !(lexer->at[0] == '*' && lexer->at[1] == '/')) {
                if (*lexer->at++ == '\n')
                    newline(lexer);
            }
            if (lexer->end - lexer->at < 2)
                ptx_error(lexer, &open, "comment is not closed");
            lexer->at += 2;
        } else if (c == '#') {
            line_marker(lexer);
        } else {
            break;
        }
    }
}

static void hex_float(struct ptx_lexer *lexer, struct ptx_token *token, int digits)
{
    const char *p = lexer->at + 2;
    uint64_t bits = 0;
    for (int i = 0; i < digits; i++, p++) {
        if (p >= lexer->end || !isxdigit((unsigned char)*p))
            ptx_error(lexer, token, "0%c needs %d hexadecimal digits", lexer->at[1], digits);
        int c = tolower((unsigned char)*p);
        bits = bits << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    token->kind = PTX_FLOAT;
    token->value = bits;
    token->single = digits == 8;
    lexer->at = p;
}

static void number(struct ptx_lexer *lexer, struct ptx_token *token)
{
    const char *p = lexer->at;
    size_t left = (size_t)(lexer->end - p);
    if (left > 2 && p[0] == '0' && (p[1] == 'f' || p[1] == 'F')) {
        hex_float(lexer, token, 8);
        return;
    }
    if (left > 2 && p[0] == '0' && (p[1] == 'd' || p[1] == 'D')) {
        hex_float(lexer, token, 16);
        return;
    }
    unsigned base = 10;
    if (left > 1 && p[0] == '0') {
        if (p[1] == 'x' || p[1] == 'X')
            base = 16, p += 2;
        else if (p[1] == 'b' || p[1] == 'B')
            base = 2, p += 2;
        else
            base = 8;
    }
    if (base == 10 || base == 8) { /* a decimal float? */
        const char *q = p;
        while (q < lexer->end && isdigit((unsigned char)*q))
            q++;
        if (q < lexer->end && (*q == '.' || *q == 'e' || *q == 'E')) {
            char copy[64];
            size_t n = 0;
            for (q = p; q < lexer->end && n < sizeof copy - 1; q++) {
                bool sign = (*q == '+' || *q == '-') && n && (copy[n - 1] | 32) == 'e';
                if (!isdigit((unsigned char)*q) && *q != '.' && (*q | 32) != 'e' && !sign)
                    break;
                copy[n++] = *q;
            }
            copy[n] = 0;
            char *tail;
            double value = strtod(copy, &tail);
            if (*tail)
                ptx_error(lexer, token, "'%s' is not a number", copy);
            token->kind = PTX_FLOAT;
            memcpy(&token->value, &value, 8);
            lexer->at = q;
            return;
        }
    }
    uint64_t value = 0;
    const char *start = p;
    for (; p < lexer->end; p++) {
        int c = tolower((unsigned char)*p);
        unsigned digit = isdigit(c)             ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                                                : 99;
        if (digit >= base)
            break;
        if (value > (UINT64_MAX - digit) / base)
            ptx_error(lexer, token, "integer constant does not fit 64 bits");
        value = value * base + digit;
    }
    if (p == start)
        ptx_error(lexer, token, "digits expected after '0%c'", start[-1]);
    token->kind = PTX_INT;
    token->value = value;
    if (p < lexer->end && (*p == 'U' || *p == 'u')) {
        token->is_unsigned = true;
        p++;
    }
    if (p < lexer->end && name_part((unsigned char)*p))
        ptx_error(lexer, token, "'%c' does not belong in a number", *p);
    if (value > INT64_MAX)
        token->is_unsigned = true;
    lexer->at = p;
}

void ptx_next(struct ptx_lexer *lexer)
{
    skip_space(lexer);
    struct ptx_token *token = &lexer->token;
    *token = (struct ptx_token){.line = lexer->line,
                                .text = lexer->at,
                                .column = (uint32_t)(lexer->at - lexer->line_start) + 1};
    if (lexer->at >= lexer->end)
        return;
    unsigned char c = (unsigned char)*lexer->at;
    if (name_start(c)) {
        token->kind = PTX_NAME;
        lexer->at++;
        while (lexer->at < lexer->end && name_part((unsigned char)*lexer->at))
            lexer->at++;
    } else if (isdigit(c)) {
        number(lexer, token);
    } else if (c == '.') {
        lexer->at++;
        token->kind = PTX_DOT;
        token->text++;
        while (lexer->at < lexer->end) {
            if (name_part((unsigned char)*lexer->at))
                lexer->at++;
            else if (lexer->end - lexer->at > 2 && lexer->at[0] == ':' && lexer->at[1] == ':')
                lexer->at += 2;
            else
                break;
        }
        token->length = (uint32_t)(lexer->at - token->text);
        if (token->length == 0)
            ptx_error(lexer, token, "'.' without a word");
        return;
    } else if (c == '"') {
        const char *p = ++lexer->at;
        while (p < lexer->end && *p != '"' && *p != '\n')
            p += *p == '\\' && lexer->end - p > 1 && p[1] != '\n' ? 2 : 1;
        if (p >= lexer->end || *p != '"')
            ptx_error(lexer, token, "string is not closed");
        token->kind = PTX_STRING;
        token->text = lexer->at;
        token->length = (uint32_t)(p - lexer->at);
        lexer->at = p + 1;
        return;
    } else if (strchr("[]{}()<>,;:=+-*/!~|&^?@%", c)) {
        token->kind = PTX_PUNCT;
        token->punct = (char)c;
        lexer->at++;
    } else if (isprint(c)) {
        ptx_error(lexer, token, "unexpected character '%c'", c);
    } else {
        ptx_error(lexer, token, "unexpected byte 0x%02x", c);
    }
    token->length = (uint32_t)(lexer->at - token->text);
}

bool ptx_accept(struct ptx_lexer *lexer, char punct)
{
    if (lexer->token.kind != PTX_PUNCT || lexer->token.punct != punct)
        return false;
    ptx_next(lexer);
    return true;
}

void ptx_expect(struct ptx_lexer *lexer, char punct)
{
    if (ptx_accept(lexer, punct))
        return;
    const struct ptx_token *t = &lexer->token;
    if (t->kind == PTX_END)
        ptx_error(lexer, t, "'%c' expected before the end of the text", punct);
    ptx_error(lexer, t, "'%c' expected before '%.*s'", punct,
              (int)(t->length > 60 ? 60 : t->length), t->text);
}

static bool same(const struct ptx_token *token, const char *name)
{
    return token->length == strlen(name) && !memcmp(token->text, name, token->length);
}

bool ptx_is_name(const struct ptx_token *token, const char *name)
{
    return token->kind == PTX_NAME && same(token, name);
}

bool ptx_is_dot(const struct ptx_token *token, const char *name)
{
    return token->kind == PTX_DOT && same(token, name);
}
