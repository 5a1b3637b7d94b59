/* The generic part of the decoder: checks a statement against its row, finds the op by its
 * canonical name, and puts operands where the handler reads them.
 *
 * A pattern has one letter an operand: d the result (first type), w one of twice its size, W a
 * source of twice the first type's size, s a source of the first type, t of the second, u of type
 * .u32, p a predicate result. */
#include "decode.h"

#include <stdio.h>
#include <string.h>

bool ptx_is(const struct ptx_statement *s, enum ptx_group group, const char *text)
{
    return !strcmp(ptx_modifier_text(s->groups[group]), text);
}

/* The statement's opcode as written, for messages. */
static int spelled(const struct ptx_statement *s)
{
    const struct ptx_token *last =
        s->modifier_count ? &s->modifiers[s->modifier_count - 1].token : &s->opcode;
    long n = last->text + last->length - s->opcode.text;
    return n > 160 ? 160 : (int)n;
}

void ptx_unsupported(struct ptx_parser *parser, const struct ptx_statement *s, const char *why)
{
    ptx_error(&parser->lexer, &s->opcode, "instruction '%.*s' is not supported%s%s", spelled(s),
              s->opcode.text, why ? ": " : "", why ? why : "");
}

void ptx_operands(struct ptx_parser *parser, struct ptx_statement *s, uint32_t least, uint32_t most)
{
    if (s->operand_count >= least && s->operand_count <= most)
        return;
    if (least == most)
        ptx_error(&parser->lexer, &s->opcode, "'%.*s' takes %u operand%s, not %u", spelled(s),
                  s->opcode.text, least, least == 1 ? "" : "s", s->operand_count);
    ptx_error(&parser->lexer, &s->opcode, "'%.*s' takes %u to %u operands, not %u", spelled(s),
              s->opcode.text, least, most, s->operand_count);
}

void ptx_expect_vector(struct ptx_parser *parser, struct ptx_operand *o, uint32_t count)
{
    if (o->kind != PTX_OPERAND_VECTOR || o->count != count)
        ptx_error(&parser->lexer, &o->token, "a vector of %u registers is expected here", count);
}

bool ptx_fits(enum ptx_type reg, enum ptx_type want, enum ptx_fit fit)
{
    const struct ptx_type_info *r = &ptx_types[reg], *w = &ptx_types[want];
    if (reg == PTX_PRED || want == PTX_PRED)
        return reg == want;
    if (fit == PTX_WIDER ? r->bytes < w->bytes : r->bytes != w->bytes)
        return false;
    if (r->cls == 'B' || w->cls == 'B' || w->cls == 'X' || r->cls == 'X' || fit == PTX_WIDER)
        return true;
    return (r->cls == 'F') == (w->cls == 'F');
}

static void need_fit(struct ptx_parser *parser, const struct ptx_statement *s,
                     const struct ptx_operand *o, enum ptx_type type, enum ptx_fit fit)
{
    if (!ptx_fits(o->type, type, fit))
        ptx_error(&parser->lexer, &o->token,
                  "register '%.*s' of type .%s does not fit .%s in '%.*s'", (int)o->token.length,
                  o->token.text, ptx_types[o->type].name, ptx_types[type].name, spelled(s),
                  s->opcode.text);
}

static uint32_t special_source(struct ptx_parser *parser, const struct ptx_statement *s,
                               uint32_t special, enum ptx_type type)
{
    unsigned bytes = ptx_types[type].bytes;
    uint32_t vector = special << 7 | VN_SPECIAL;
    if (special < VN_SPECIAL_VECTORS) {
        if (bytes <= 4)
            return vector;
        struct vn_insn *i = ptx_emit(parser, s, ptx_op_named(parser, "cvt_u64_u32"));
        i->a = vector;
        uint32_t wide = ptx_temp(parser, 8);
        parser->body.insns[parser->body.insn_count - 1].d = wide;
        return wide;
    }
    uint32_t code = ptx_temp(parser, special >= VN_SPECIAL_WIDE ? 8 : 4);
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_special);
    i->d = code;
    i->mode = (uint8_t)special;
    bool wide = special >= VN_SPECIAL_WIDE;
    if (wide == (bytes > 4))
        return code;
    uint32_t other = ptx_temp(parser, bytes);
    i = ptx_emit(parser, s, ptx_op_named(parser, wide ? "cvt_u32_u64" : "cvt_u64_u32"));
    i->a = code;
    i->d = other;
    return other;
}

static uint64_t immediate(struct ptx_parser *parser, const struct ptx_operand *o,
                          enum ptx_type type)
{
    const struct ptx_type_info *t = &ptx_types[type];
    if (o->kind == PTX_OPERAND_FLOAT) {
        double d;
        float f;
        if (o->single) {
            uint32_t low = (uint32_t)o->value;
            memcpy(&f, &low, 4);
            d = f;
        } else {
            memcpy(&d, &o->value, 8);
            f = (float)d;
        }
        if (t->cls == 'U' || t->cls == 'S' || t->bytes < 4)
            ptx_error(&parser->lexer, &o->token, "a float constant where .%s is expected", t->name);
        uint32_t single;
        memcpy(&single, &f, 4);
        uint64_t wide;
        memcpy(&wide, &d, 8);
        if (o->single && t->bytes == 4)
            return o->value; /* the bits as written: a NaN keeps its payload */
        return t->bytes == 8 ? wide : single;
    }
    if (t->cls == 'F')
        ptx_error(&parser->lexer, &o->token, "an integer constant where .%s is expected", t->name);
    return o->value;
}

uint32_t ptx_source(struct ptx_parser *parser, struct ptx_statement *s, struct ptx_operand *o,
                    enum ptx_type type, enum ptx_fit fit)
{
    unsigned bytes = ptx_types[type].bytes;
    if (o->inverted)
        ptx_error(&parser->lexer, &o->token, "'!' belongs to predicates");
    switch (o->kind) {
    case PTX_OPERAND_REG: {
        need_fit(parser, s, o, type, fit);
        uint32_t code = ptx_register(parser, o->decl, o->index);
        if ((code & VN_FILE_MASK) == VN_R64 && bytes <= 4) {
            uint32_t narrow = ptx_temp(parser, 4);
            struct vn_insn *i = ptx_emit(parser, s, ptx_op_named(parser, "cvt_u32_u64"));
            i->a = code;
            i->d = narrow;
            return narrow;
        }
        return code;
    }
    case PTX_OPERAND_INT:
    case PTX_OPERAND_FLOAT: {
        uint64_t value = immediate(parser, o, type);
        if (bytes == 2)
            value &= 0xffff;
        return ptx_constant(parser, value, bytes);
    }
    case PTX_OPERAND_SPECIAL:
        return special_source(parser, s, o->special, type);
    default:
        ptx_error(&parser->lexer, &o->token, "a register or constant is expected here");
    }
}

uint32_t ptx_dest(struct ptx_parser *parser, struct ptx_statement *s, struct ptx_operand *o,
                  enum ptx_type type, enum ptx_fit fit)
{
    if (o->kind == PTX_OPERAND_SINK)
        return ptx_temp(parser, ptx_types[type].bytes);
    if (o->kind != PTX_OPERAND_REG || o->inverted)
        ptx_error(&parser->lexer, &o->token, "a register is expected as the destination");
    need_fit(parser, s, o, type, fit);
    return ptx_register(parser, o->decl, o->index);
}

uint16_t ptx_pred(struct ptx_parser *parser, struct ptx_operand *o)
{
    if (o->kind == PTX_OPERAND_SINK)
        return VN_NO_PRED;
    if (o->kind != PTX_OPERAND_REG || o->type != PTX_PRED)
        ptx_error(&parser->lexer, &o->token, "a predicate is expected here");
    return (uint16_t)ptx_register(parser, o->decl, o->index);
}

static enum ptx_type wide(struct ptx_parser *parser, struct ptx_statement *s, enum ptx_type type)
{
    switch (type) {
    case PTX_U16:
        return PTX_U32;
    case PTX_S16:
        return PTX_S32;
    case PTX_U32:
        return PTX_U64;
    case PTX_S32:
        return PTX_S64;
    default:
        ptx_unsupported(parser, s, NULL);
    }
}

static const char *unsigned_name(enum ptx_type type)
{
    static const char *const names[] = {"u8", "u16", "", "u32", "", "", "", "u64"};
    char c = ptx_types[type].cls;
    if (type == PTX_S16X2)
        return "u16x2";
    if (c == 'P' || c == 'X' || c == 'F')
        return ptx_types[type].name;
    return names[ptx_types[type].bytes - 1];
}

uint32_t ptx_named(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    char name[200];
    bool is_float =
        s->type_count && (ptx_types[s->types[0]].cls == 'F' || (ptx_types[s->types[0]].cls == 'X'));
    const char *opcode = row->opcode;
    if (!strcmp(opcode, "mad") && is_float)
        opcode = "fma";
    bool rounds = !strcmp(opcode, "fma") || !strcmp(opcode, "rcp") || !strcmp(opcode, "sqrt") ||
                  !strcmp(opcode, "div");
    if (is_float && rounds && !s->groups[G_ROUND] && !s->groups[G_APPROX])
        ptx_unsupported(parser, s, "a rounding modifier is needed");
    size_t n = (size_t)snprintf(name, sizeof name, "%s", opcode);
    for (int g = 0; g < G_COUNT; g++) {
        if (!s->groups[g] || row->dropped >> g & 1)
            continue;
        const char *text = ptx_modifier_text(s->groups[g]);
        if (g == G_ROUND && !strcmp(text, "rn"))
            continue;
        n += (size_t)snprintf(name + n, sizeof name - n, "_%s", text);
        if (n >= sizeof name)
            ptx_unsupported(parser, s, NULL);
    }
    if (row->names[0] == 'b' && s->type_count && ptx_types[s->types[0]].cls != 'B')
        ptx_error(&parser->lexer, &s->type_tokens[0], "'%s' is of bits: .b and no number", opcode);
    for (uint32_t t = 0; t < s->type_count; t++) {
        /* The sign matters to these; else one op serves .u32, .s32 and .b32. */
        bool sign = row->names[0] == 'k' || s->groups[G_SAT] ||
                    (s->groups[G_WIDTH] && !ptx_is(s, G_WIDTH, "lo"));
        bool kept =
            ptx_types[s->types[t]].cls == 'F' || (sign && ptx_types[s->types[t]].cls != 'B');
        n += (size_t)snprintf(name + n, sizeof name - n, "_%s",
                              kept ? ptx_types[s->types[t]].name : unsigned_name(s->types[t]));
        if (n >= sizeof name)
            ptx_unsupported(parser, s, NULL);
    }
    uint32_t op = ptx_op_named(parser, name);
    if (op == UINT32_MAX)
        ptx_unsupported(parser, s, "no such form");
    return op;
}

void ptx_decode_plain(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    uint32_t op = ptx_named(parser, s, row);
    uint32_t count = (uint32_t)strlen(row->pattern);
    ptx_operands(parser, s, count, count);
    uint32_t d = VN_NONE, sources[3] = {VN_NONE, VN_NONE, VN_NONE}, n = 0;
    uint16_t p = VN_NO_PRED;
    bool widens = ptx_is(s, G_WIDTH, "wide");
    for (uint32_t k = 0; k < count; k++) {
        struct ptx_operand *o = &s->operands[k];
        char letter = row->pattern[k];
        if (widens && (k == 0 || k == 3))
            letter = k ? 'W' : 'w';
        switch (letter) {
        case 'd':
            d = ptx_dest(parser, s, o, s->types[0], PTX_STRICT);
            break;
        case 'w':
            d = ptx_dest(parser, s, o, wide(parser, s, s->types[0]), PTX_STRICT);
            break;
        case 'U':
            d = ptx_dest(parser, s, o, PTX_U32, PTX_STRICT);
            break;
        case 'p':
            p = ptx_pred(parser, o);
            break;
        case 's':
            sources[n++] = ptx_source(parser, s, o, s->types[0], PTX_STRICT);
            break;
        case 't':
            sources[n++] = ptx_source(parser, s, o, s->types[1], PTX_STRICT);
            break;
        case 'W':
            sources[n++] = ptx_source(parser, s, o, wide(parser, s, s->types[0]), PTX_STRICT);
            break;
        case 'u':
            sources[n++] = ptx_source(parser, s, o, PTX_U32, PTX_STRICT);
            break;
        }
    }
    struct vn_insn *i = ptx_emit(parser, s, op);
    i->d = d;
    i->a = sources[0];
    i->b = sources[1];
    i->c = sources[2];
    i->p = p;
    /* Bare: ptxas may fuse it with its neighbour. */
    i->mode = p == VN_NO_PRED && !s->groups[G_ROUND] && !s->groups[G_SAT];
}

void ptx_decode_refused(struct ptx_parser *parser, struct ptx_statement *s,
                        const struct ptx_row *row)
{
    ptx_unsupported(parser, s, row->pattern);
}

void ptx_decode(struct ptx_parser *parser, struct ptx_statement *s)
{
    const struct ptx_row *row = NULL;
    bool known = false;
    for (uint32_t i = 0; i < ptx_row_count; i++) {
        if (ptx_rows[i].opcode[0] != s->opcode.text[0] ||
            !ptx_is_name(&s->opcode, ptx_rows[i].opcode))
            continue;
        known = true;
        row = &ptx_rows[i];
        /* Opcodes with several rows are told apart by their modifiers. */
        uint64_t present = 0;
        for (int g = 0; g < G_COUNT; g++)
            present |= s->groups[g] ? (uint64_t)1 << g : 0;
        if (row->decode == ptx_decode_refused || (present & ~row->groups) == 0)
            break;
    }
    if (!known)
        ptx_error(&parser->lexer, &s->opcode, "unknown instruction '%.*s'",
                  (int)(s->opcode.length > 100 ? 100 : s->opcode.length), s->opcode.text);
    if (row->decode != ptx_decode_refused) {
        for (uint32_t m = 0; m < s->modifier_count; m++) {
            const struct ptx_modifier *mod = &s->modifiers[m];
            if (mod->type)
                continue;
            if (!mod->id)
                ptx_error(&parser->lexer, &mod->token,
                          "modifier '.%.*s' of '%s' is not supported by the virtual device",
                          (int)(mod->token.length > 100 ? 100 : mod->token.length), mod->token.text,
                          row->opcode);
            if (!(row->groups >> ptx_modifiers[mod->id - 1].group & 1))
                ptx_error(&parser->lexer, &mod->token, "'.%.*s' is not a modifier of '%s' here",
                          (int)(mod->token.length > 100 ? 100 : mod->token.length), mod->token.text,
                          row->opcode);
        }
        if (row->types != 255 && s->type_count != row->types)
            ptx_error(&parser->lexer, &s->opcode, "'%s' takes %u type%s, not %u", row->opcode,
                      row->types, row->types == 1 ? "" : "s", s->type_count);
    }
    row->decode(parser, s, row);
}
