/* Names and scopes, and the small parts of syntax everything uses. */
#include <stdlib.h>
#include <string.h>

#include "parser.h"

const struct ptx_type_info ptx_types[PTX_TYPES] = {
    {"", 0, 0},
#define TYPE(id, name, bytes, cls) {name, bytes, cls},
#include "types.def"
#undef TYPE
};

enum ptx_type ptx_type_of(const char *text, size_t length)
{
    for (int t = 1; t < PTX_TYPES; t++) {
        if (strlen(ptx_types[t].name) == length && !memcmp(ptx_types[t].name, text, length))
            return (enum ptx_type)t;
    }
    return PTX_NO_TYPE;
}

void *ptx_need(struct ptx_parser *parser, size_t size)
{
    void *p = ptx_alloc(parser->arena, size);
    if (!p)
        ptx_error(&parser->lexer, &parser->lexer.token,
                  "out of memory: the module needs over 1 GiB");
    return p;
}

void *ptx_grow(struct ptx_parser *parser, void *items, uint32_t count, uint32_t *capacity,
               size_t size)
{
    if (count < *capacity)
        return items;
    uint32_t want = *capacity ? *capacity * 2 : 16;
    if (want < *capacity)
        ptx_error(&parser->lexer, &parser->lexer.token, "module is too large");
    void *fresh = ptx_need(parser, want * size);
    if (count)
        memcpy(fresh, items, count * size);
    *capacity = want;
    return fresh;
}

static uint32_t hash(const char *text, uint32_t length)
{
    uint32_t h = 2166136261u;
    for (uint32_t i = 0; i < length; i++)
        h = (h ^ (unsigned char)text[i]) * 16777619u;
    return h;
}

static struct ptx_decl *find_hashed(struct ptx_parser *parser, const char *name, uint32_t length,
                                    uint32_t h)
{
    struct ptx_decl *d = parser->buckets[h % PTX_BUCKETS];
    while (d && !(d->hash == h && d->length == length && !memcmp(d->name, name, length)))
        d = d->next_in_bucket;
    return d;
}

struct ptx_decl *ptx_find(struct ptx_parser *parser, const char *name, uint32_t length)
{
    return find_hashed(parser, name, length, hash(name, length));
}

/* A name as declared, or the member of a range: %r12 of `%r<100>`, which is kept under the name
 * `%r<`. */
struct ptx_decl *ptx_find_register(struct ptx_parser *parser, const char *name, uint32_t length,
                                   uint32_t *index)
{
    *index = 0;
    struct ptx_decl *d = ptx_find(parser, name, length);
    if (d)
        return d;
    uint32_t value = 0, scale = 1;
    for (uint32_t n = 1; n < length && n <= 7; n++) {
        char c = name[length - n];
        if (c < '0' || c > '9')
            break;
        value += (uint32_t)(c - '0') * scale;
        scale *= 10;
        if (c == '0' && n > 1)
            continue; /* a number does not begin with 0 */
        uint32_t h = (hash(name, length - n) ^ '<') * 16777619u;
        struct ptx_decl *r = parser->buckets[h % PTX_BUCKETS];
        while (r && !(r->hash == h && r->length == length - n + 1 && r->name[length - n] == '<' &&
                      !memcmp(r->name, name, length - n)))
            r = r->next_in_bucket;
        if (r && value < r->range) {
            *index = value;
            return r;
        }
    }
    return NULL;
}

struct ptx_decl *ptx_declare(struct ptx_parser *parser, const struct ptx_token *name,
                             enum ptx_decl_kind kind, struct ptx_scope *scope)
{
    uint32_t h = hash(name->text, name->length);
    struct ptx_decl *old = find_hashed(parser, name->text, name->length, h);
    if (old && old->scope == scope)
        ptx_error(&parser->lexer, name, "'%.*s' is declared twice (first on line %u)",
                  (int)name->length, name->text, old->line);
    struct ptx_decl *d = ptx_need(parser, sizeof *d);
    d->name = ptx_strndup(parser->arena, name->text, name->length);
    if (!d->name)
        ptx_error(&parser->lexer, name, "out of memory");
    d->length = name->length;
    d->hash = h;
    d->kind = kind;
    d->vec = 1;
    d->line = name->line;
    d->scope = scope;
    d->next_in_scope = scope->decls;
    scope->decls = d;
    /* Newest first: inner scopes hide outer ones. A declaration for an outer scope is never made
     * while an inner one that holds the same name is open. */
    d->next_in_bucket = parser->buckets[h % PTX_BUCKETS];
    parser->buckets[h % PTX_BUCKETS] = d;
    return d;
}

void ptx_push_scope(struct ptx_parser *parser)
{
    struct ptx_scope *scope = ptx_need(parser, sizeof *scope);
    scope->outer = parser->scope;
    parser->scope = scope;
}

static void resolve_labels(struct ptx_parser *parser, struct ptx_scope *scope)
{
    struct ptx_scope *outer = scope->outer;
    for (struct ptx_label_ref *r = scope->label_refs, *next; r; r = next) {
        next = r->next;
        struct ptx_decl *d = ptx_find(parser, r->token.text, r->token.length);
        if (d && (d->scope != scope || d->kind != PTX_DECL_LABEL))
            d = NULL;
        if (d) {
            if (r->entry)
                *r->entry = d->index;
            else
                parser->body.insns[r->insn].imm = d->index;
        } else if (outer && outer != &parser->global_scope && outer != parser->file_scope) {
            r->next = outer->label_refs;
            outer->label_refs = r;
        } else {
            ptx_error(&parser->lexer, &r->token, "label '%.*s' is not defined",
                      (int)r->token.length, r->token.text);
        }
    }
    scope->label_refs = NULL;
}

void ptx_pop_scope(struct ptx_parser *parser)
{
    struct ptx_scope *scope = parser->scope;
    resolve_labels(parser, scope);
    for (struct ptx_decl *d = scope->decls; d; d = d->next_in_scope) {
        struct ptx_decl **link = &parser->buckets[d->hash % PTX_BUCKETS];
        while (*link != d)
            link = &(*link)->next_in_bucket;
        *link = d->next_in_bucket;
    }
    parser->scope = scope->outer;
}

int64_t ptx_int(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    bool negative = false;
    while (lexer->token.kind == PTX_PUNCT &&
           (lexer->token.punct == '-' || lexer->token.punct == '+')) {
        negative ^= lexer->token.punct == '-';
        ptx_next(lexer);
    }
    if (lexer->token.kind != PTX_INT)
        ptx_error(lexer, &lexer->token, "an integer constant is expected here");
    uint64_t value = lexer->token.value;
    ptx_next(lexer);
    return (int64_t)(negative ? 0 - value : value);
}

uint32_t ptx_uint(struct ptx_parser *parser, uint64_t limit, const char *what)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_token at = lexer->token;
    if (at.kind != PTX_INT)
        ptx_error(lexer, &at, "%s: an integer constant is expected", what);
    if (at.value > limit)
        ptx_error(lexer, &at, "%s: %llu is over the limit of %llu", what,
                  (unsigned long long)at.value, (unsigned long long)limit);
    ptx_next(lexer);
    return (uint32_t)at.value;
}
