/* Operands and instructions as written; their meaning is found in decode.c. */
#include <string.h>

#include "modifiers.h"
#include "parser.h"
#include "special.h"

const struct ptx_modifier_info ptx_modifiers[] = {
#define MOD(text, group) {text, G_##group},
#include "modifiers.def"
#undef MOD
};
const uint16_t ptx_modifier_count = sizeof ptx_modifiers / sizeof *ptx_modifiers;

uint16_t ptx_modifier_of(const char *text, uint32_t length)
{
    for (uint16_t i = 0; i < ptx_modifier_count; i++) {
        const char *m = ptx_modifiers[i].text;
        if (m[0] == text[0] && strlen(m) == length && !memcmp(m, text, length))
            return (uint16_t)(i + 1);
    }
    return 0;
}

const char *ptx_modifier_text(uint16_t id)
{
    return id ? ptx_modifiers[id - 1].text : "";
}

static int component(const struct ptx_token *t)
{
    if (t->kind != PTX_DOT || t->length != 1)
        return -1;
    switch (t->text[0]) {
    case 'x':
    case 'r':
        return 0;
    case 'y':
    case 'g':
        return 1;
    case 'z':
    case 'b':
        return 2;
    case 'w':
    case 'a':
        return 3;
    default:
        return -1;
    }
}

static void name_operand(struct ptx_parser *parser, struct ptx_operand *o)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_token t = lexer->token;
    ptx_next(lexer);
    if (t.length == 1 && t.text[0] == '_') {
        o->kind = PTX_OPERAND_SINK;
        return;
    }
    uint32_t index;
    struct ptx_decl *d = ptx_find_register(parser, t.text, t.length, &index);
    if (!d && t.text[0] == '%') {
        if (ptx_is_name(&t, "%is_explicit_cluster")) {
            o->kind = PTX_OPERAND_FALSE; /* clusters are of one block */
            return;
        }
        int c = component(&lexer->token);
        if (ptx_special_named(t.text, t.length, c, &o->special)) {
            if (c >= 0)
                ptx_next(lexer);
            o->kind = PTX_OPERAND_SPECIAL;
            return;
        }
        ptx_error(lexer, &t, "'%.*s' is neither a declared register nor a special register",
                  (int)t.length, t.text);
    }
    if (!d && ptx_is_name(&t, "WARP_SZ")) {
        o->kind = PTX_OPERAND_INT;
        o->value = 32;
        return;
    }
    if (!d) { /* a label, perhaps not yet seen */
        o->kind = PTX_OPERAND_SYMBOL;
        return;
    }
    o->decl = d;
    if (d->kind != PTX_DECL_REG) {
        o->kind = PTX_OPERAND_SYMBOL;
        if (lexer->token.kind == PTX_PUNCT &&
            (lexer->token.punct == '+' || lexer->token.punct == '-'))
            o->imm = ptx_offset(parser);
        return;
    }
    o->kind = PTX_OPERAND_REG;
    o->type = d->type;
    o->index = index * d->vec;
    if (d->vec > 1) {
        int c = component(&lexer->token);
        if (c >= 0) {
            if (c >= d->vec)
                ptx_error(lexer, &lexer->token, "'%s' has %d components", d->name, d->vec);
            o->index += (uint32_t)c;
            ptx_next(lexer);
        } else { /* the whole vector: as if written {v.x, v.y, ...} */
            struct ptx_operand *e = ptx_need(parser, sizeof *e * d->vec);
            for (uint32_t i = 0; i < d->vec; i++) {
                e[i] = *o;
                e[i].index = o->index + i;
            }
            o->kind = PTX_OPERAND_VECTOR;
            o->elements = e;
            o->count = d->vec;
        }
    }
}

static void memory_operand(struct ptx_parser *parser, struct ptx_operand *o)
{
    struct ptx_lexer *lexer = &parser->lexer;
    o->kind = PTX_OPERAND_MEMORY;
    if (lexer->token.kind == PTX_NAME) {
        struct ptx_operand base = {.token = lexer->token};
        name_operand(parser, &base);
        if (base.kind != PTX_OPERAND_REG && !(base.kind == PTX_OPERAND_SYMBOL && base.decl) &&
            base.kind != PTX_OPERAND_INT)
            ptx_error(lexer, &base.token, "'%.*s' cannot be an address", (int)base.token.length,
                      base.token.text);
        o->has_base = base.kind != PTX_OPERAND_INT;
        o->decl = base.decl;
        o->index = base.index;
        o->type = base.type;
        o->imm = base.imm;
        if (lexer->token.kind == PTX_PUNCT &&
            (lexer->token.punct == '+' || lexer->token.punct == '-'))
            o->imm += ptx_offset(parser);
    } else {
        o->imm = ptx_expression(parser);
    }
    ptx_expect(lexer, ']');
    if (ptx_is_dot(&lexer->token, "unified"))
        ptx_next(lexer);
}

static void list_operand(struct ptx_parser *parser, struct ptx_operand *o, char close)
{
    struct ptx_lexer *lexer = &parser->lexer;
    uint32_t capacity = 0;
    if (++parser->depth > 256)
        ptx_error(lexer, &o->token, "operands are nested too deeply");
    while (!ptx_accept(lexer, close)) {
        if (o->count)
            ptx_expect(lexer, ',');
        if (o->count == 1024)
            ptx_error(lexer, &o->token, "more than 1024 operands in a list");
        struct ptx_operand *e = PTX_PUSH(parser, o->elements, o->count, capacity);
        memset(e, 0, sizeof *e);
        struct ptx_operand one = {0};
        ptx_parse_operand(parser, &one);
        o->elements[o->count - 1] = one;
    }
    parser->depth--;
}

static bool negates_name(const struct ptx_lexer *lexer)
{
    struct ptx_lexer ahead = *lexer;
    ptx_next(&ahead);
    return ahead.token.kind == PTX_NAME;
}

/* A float with signs, or a constant expression. */
static void constant_operand(struct ptx_parser *parser, struct ptx_operand *o)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_lexer start = *lexer;
    bool negative = false;
    while (lexer->token.kind == PTX_PUNCT &&
           (lexer->token.punct == '-' || lexer->token.punct == '+')) {
        negative ^= lexer->token.punct == '-';
        ptx_next(lexer);
    }
    if (lexer->token.kind == PTX_FLOAT) {
        o->kind = PTX_OPERAND_FLOAT;
        o->single = lexer->token.single;
        o->value = lexer->token.value;
        if (negative)
            o->value ^= o->single ? 0x80000000u : (uint64_t)1 << 63;
        ptx_next(lexer);
        return;
    }
    *lexer = start;
    bool begins = lexer->token.kind == PTX_INT ||
                  (lexer->token.kind == PTX_PUNCT && strchr("-+~!(", lexer->token.punct));
    if (lexer->token.kind == PTX_END)
        ptx_error(lexer, &lexer->token, "an operand is expected before the end of the text");
    if (!begins)
        ptx_error(lexer, &lexer->token, "an operand is expected before '%.*s'",
                  (int)(lexer->token.length > 60 ? 60 : lexer->token.length), lexer->token.text);
    o->kind = PTX_OPERAND_INT;
    o->value = (uint64_t)ptx_expression(parser);
}

void ptx_parse_operand(struct ptx_parser *parser, struct ptx_operand *o)
{
    struct ptx_lexer *lexer = &parser->lexer;
    memset(o, 0, sizeof *o);
    o->token = lexer->token;
    if (ptx_accept(lexer, '[')) {
        memory_operand(parser, o);
    } else if (ptx_accept(lexer, '{')) {
        o->kind = PTX_OPERAND_VECTOR;
        list_operand(parser, o, '}');
    } else if (parser->in_call && ptx_accept(lexer, '(')) {
        o->kind = PTX_OPERAND_LIST;
        list_operand(parser, o, ')');
    } else if (lexer->token.kind == PTX_PUNCT && lexer->token.punct == '!' && negates_name(lexer)) {
        ptx_next(lexer);
        name_operand(parser, o);
        o->inverted = true;
    } else if (lexer->token.kind == PTX_NAME) {
        name_operand(parser, o);
        if (ptx_accept(lexer, '|')) {
            struct ptx_operand *e = ptx_need(parser, sizeof *e * 2);
            e[0] = *o;
            ptx_parse_operand(parser, &e[1]);
            o->kind = PTX_OPERAND_PAIR;
            o->elements = e;
            o->count = 2;
        }
    } else {
        constant_operand(parser, o);
    }
}

static void parse_modifiers(struct ptx_parser *parser, struct ptx_statement *s)
{
    struct ptx_lexer *lexer = &parser->lexer;
    while (lexer->token.kind == PTX_DOT) {
        struct ptx_token t = lexer->token;
        if (s->modifier_count == PTX_MAX_MODIFIERS)
            ptx_error(lexer, &t, "more than %d modifiers", PTX_MAX_MODIFIERS);
        struct ptx_modifier *m = &s->modifiers[s->modifier_count++];
        m->token = t;
        m->id = ptx_modifier_of(t.text, t.length);
        m->type = ptx_type_of(t.text, t.length);
        if (m->type) {
            if (s->type_count == 6)
                ptx_error(lexer, &t, "more than 6 types");
            s->type_tokens[s->type_count] = t;
            s->types[s->type_count++] = m->type;
        } else if (m->id) {
            uint16_t group = ptx_modifiers[m->id - 1].group;
            if (group == G_LAYOUT && s->groups[G_LAYOUT])
                group = G_LAYOUT2;
            bool copy = group == G_SPACE && ptx_is_name(&s->opcode, "cp"); /* from one to one */
            if (s->groups[group] && !copy)
                ptx_error(lexer, &t, "'.%.*s' and '.%s' exclude each other", (int)t.length, t.text,
                          ptx_modifier_text(s->groups[group]));
            s->groups[group] = m->id;
        }
        ptx_next(lexer);
    }
}

void ptx_parse_statement(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_statement s;
    memset(&s, 0, offsetof(struct ptx_statement, operands));
    s.operand_count = 0;
    s.guarded = s.guard_negated = false;
    s.guard = VN_NO_PRED;
    if (ptx_accept(lexer, '@')) {
        s.guarded = true;
        s.guard_negated = ptx_accept(lexer, '!');
        struct ptx_operand guard;
        ptx_parse_operand(parser, &guard);
        if (guard.kind != PTX_OPERAND_REG || guard.type != PTX_PRED)
            ptx_error(lexer, &guard.token, "a guard must be a predicate register");
        s.guard = (uint16_t)ptx_register(parser, guard.decl, guard.index);
    }
    s.opcode = lexer->token;
    if (s.opcode.kind != PTX_NAME) {
        if (s.opcode.kind == PTX_END)
            ptx_error(lexer, &s.opcode, "an instruction is expected before the end of the text");
        ptx_error(lexer, &s.opcode, "an instruction is expected before '%.*s'",
                  (int)(s.opcode.length > 60 ? 60 : s.opcode.length), s.opcode.text);
    }
    ptx_next(lexer);
    if (!s.guarded && ptx_accept(lexer, ':')) {
        ptx_parse_label(parser, &s.opcode);
        return;
    }
    parse_modifiers(parser, &s);
    parser->in_call = ptx_is_name(&s.opcode, "call");
    while (!(lexer->token.kind == PTX_PUNCT && lexer->token.punct == ';')) {
        if (s.operand_count)
            ptx_expect(lexer, ',');
        if (s.operand_count == PTX_MAX_OPERANDS)
            ptx_error(lexer, &lexer->token, "more than %d operands", PTX_MAX_OPERANDS);
        ptx_parse_operand(parser, &s.operands[s.operand_count++]);
    }
    ptx_decode(parser, &s);
    ptx_expect(lexer, ';');
}
