/* Moves, conversions, comparisons and logic. */
#include <stdio.h>
#include <string.h>

#include "decode.h"

static uint32_t op(struct ptx_parser *parser, const char *name)
{
    return ptx_op_named(parser, name);
}

static struct vn_insn *emit3(struct ptx_parser *parser, struct ptx_statement *s, uint32_t o,
                             uint32_t d, uint32_t a, uint32_t b)
{
    struct vn_insn *i = ptx_emit(parser, s, o);
    i->d = d;
    i->a = a;
    i->b = b;
    return i;
}

static enum ptx_type bits(unsigned bytes)
{
    return bytes == 1 ? PTX_B8 : bytes == 2 ? PTX_B16 : bytes == 4 ? PTX_B32 : PTX_B64;
}

/* mov.b64 {a, b}, c */
static void unpack(struct ptx_parser *parser, struct ptx_statement *s, enum ptx_type type)
{
    struct ptx_operand *v = &s->operands[0];
    const uint32_t count = v->count;
    if (count != 2 && count != 4)
        ptx_error(&parser->lexer, &v->token, "a vector of 2 or 4 registers is expected here");
    unsigned bytes = ptx_types[type].bytes, part = bytes / count;
    if (part == 0)
        ptx_unsupported(parser, s, NULL);
    uint32_t a = ptx_source(parser, s, &s->operands[1], type, PTX_STRICT);
    if (part == 1)
        ptx_unsupported(parser, s, "vectors of bytes");
    for (uint32_t k = 0; k < count; k++) {
        if (v->elements[k].kind == PTX_OPERAND_SINK)
            continue;
        uint32_t d = ptx_dest(parser, s, &v->elements[k], bits(part), PTX_STRICT);
        if (bytes == 8 && part == 4) {
            emit3(parser, s, op(parser, k ? "unpack_hi_u64" : "cvt_u32_u64"), d, a, VN_NONE);
        } else if (bytes == 8) {
            struct vn_insn *i = emit3(parser, s, VN_OP_extract_u32, d, a, VN_NONE);
            i->vec = (uint8_t)(16 * k);
            i->imm = 0xffff;
        } else {
            emit3(parser, s, op(parser, k ? "unpack_hi_u32" : "unpack_lo_u32"), d, a, VN_NONE);
        }
    }
}

static bool names_register(const struct ptx_operand *v, const struct ptx_operand *o)
{
    for (uint32_t k = 0; k < v->count; k++) {
        if (v->elements[k].kind == PTX_OPERAND_REG && v->elements[k].decl == o->decl &&
            v->elements[k].index == o->index)
            return true;
    }
    return false;
}

/* mov.b64 c, {a, b} */
static void pack(struct ptx_parser *parser, struct ptx_statement *s, enum ptx_type type)
{
    struct ptx_operand *v = &s->operands[1];
    const uint32_t count = v->count;
    if (count != 2 && count != 4)
        ptx_error(&parser->lexer, &v->token, "a vector of 2 or 4 registers is expected here");
    unsigned bytes = ptx_types[type].bytes, part = bytes / count;
    if (part < 2)
        ptx_unsupported(parser, s, "vectors of bytes");
    uint32_t code[4];
    for (uint32_t k = 0; k < count; k++)
        code[k] = ptx_source(parser, s, &v->elements[k], bits(part), PTX_STRICT);
    uint32_t d = ptx_dest(parser, s, &s->operands[0], type, PTX_STRICT);
    if (count == 2) {
        emit3(parser, s, op(parser, bytes == 8 ? "pack_u64" : "pack_u32"), d, code[0], code[1]);
        return;
    }
    uint32_t low = ptx_temp(parser, 4), high = ptx_temp(parser, 4);
    emit3(parser, s, op(parser, "pack_u32"), low, code[0], code[1]);
    emit3(parser, s, op(parser, "pack_u32"), high, code[2], code[3]);
    emit3(parser, s, op(parser, "pack_u64"), d, low, high);
}

/* The address of a variable or function, or a parameter of the kernel. */
static void move_address(struct ptx_parser *parser, struct ptx_statement *s, enum ptx_type type)
{
    struct ptx_operand *o = &s->operands[1];
    unsigned bytes = ptx_types[type].bytes;
    struct ptx_decl *d = o->decl;
    if (!d)
        ptx_error(&parser->lexer, &o->token, "'%.*s' is not declared", (int)o->token.length,
                  o->token.text);
    if (bytes < 4)
        ptx_error(&parser->lexer, &o->token, "an address does not fit .%s", ptx_types[type].name);
    const char *move = bytes == 8 ? "mov_u64" : "mov_u32";
    uint32_t to = ptx_dest(parser, s, &s->operands[0], type, PTX_STRICT);
    switch (d->kind) {
    case PTX_DECL_FUNCTION: {
        uint32_t symbol = ptx_symbol(parser, d->name, VN_SYMBOL_FUNCTION, VN_GENERIC, d->index);
        emit3(parser, s, op(parser, move), to, ptx_address(parser, symbol, o->imm, false, bytes),
              VN_NONE);
        parser->body.indirect |= false;
        return;
    }
    case PTX_DECL_VARIABLE:
        if (d->space == VN_LOCALSPACE) {
            emit3(parser, s, op(parser, bytes == 8 ? "local_address_u64" : "local_address_u32"), to,
                  VN_NONE, VN_NONE)
                ->imm = (int64_t)d->offset + o->imm;
        } else if (d->is_extern_shared) {
            uint32_t base = VN_DYNAMIC_SHARED << 7 | VN_SPECIAL;
            parser->body.uses_module_shared |= false;
            if (bytes == 8) {
                uint32_t t = ptx_temp(parser, 8);
                emit3(parser, s, op(parser, "cvt_u64_u32"), t, base, VN_NONE);
                base = t;
            }
            emit3(parser, s, op(parser, bytes == 8 ? "add_u64" : "add_u32"), to, base,
                  ptx_constant(parser, (uint64_t)o->imm, bytes));
        } else {
            if (d->space == VN_SHARED && !d->is_extern_shared)
                parser->body.uses_module_shared |=
                    d->scope == parser->file_scope || d->global_scope;
            emit3(parser, s, op(parser, move), to,
                  ptx_address(parser, d->index, o->imm, false, bytes), VN_NONE);
        }
        return;
    case PTX_DECL_PARAM:
        if (!d->entry_param)
            ptx_error(
                &parser->lexer, &o->token,
                "the address of a function's parameter is not supported by the virtual device");
        if (bytes != 8)
            ptx_error(&parser->lexer, &o->token, "a parameter's address needs 64 bits");
        emit3(parser, s, VN_OP_param_address, to, VN_NONE, VN_NONE)->imm =
            (int64_t)d->offset + o->imm;
        return;
    default:
        ptx_error(&parser->lexer, &o->token, "'%s' has no address", d->name);
    }
}

void ptx_decode_mov(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    ptx_operands(parser, s, 2, 2);
    enum ptx_type type = s->types[0];
    struct ptx_operand *to = &s->operands[0], *from = &s->operands[1];
    if (s->groups[G_VEC])
        ptx_unsupported(parser, s, "vector moves");
    if (type == PTX_PRED) {
        uint16_t p = ptx_pred(parser, to);
        if (p == VN_NO_PRED)
            ptx_error(&parser->lexer, &to->token, "a predicate is expected as the destination");
        if (from->kind == PTX_OPERAND_INT || from->kind == PTX_OPERAND_FALSE) {
            struct vn_insn *i = ptx_emit(parser, s, VN_OP_set_pred_const);
            i->p = p;
            i->imm = from->kind == PTX_OPERAND_INT && from->value != 0;
            return;
        }
        uint16_t q = ptx_pred(parser, from);
        struct vn_insn *i = ptx_emit(parser, s, from->inverted ? VN_OP_not_pred : VN_OP_mov_pred);
        i->p = p;
        i->q = q;
        return;
    }
    unsigned bytes = ptx_types[type].bytes;
    char cls = ptx_types[type].cls;
    if (bytes < 2 || cls == 'X' || type == PTX_F16 || type == PTX_B128)
        ptx_unsupported(parser, s, NULL);
    if (to->kind == PTX_OPERAND_VECTOR && from->kind == PTX_OPERAND_VECTOR)
        ptx_unsupported(parser, s, "a vector to a vector");
    if (to->kind == PTX_OPERAND_VECTOR) {
        /* A destination may be the source too: then it is written last. */
        if (from->kind == PTX_OPERAND_REG && names_register(to, from))
            ptx_unsupported(parser, s, "a register on both sides");
        unpack(parser, s, type);
        return;
    }
    if (from->kind == PTX_OPERAND_VECTOR) {
        pack(parser, s, type);
        return;
    }
    if (from->kind == PTX_OPERAND_SYMBOL) {
        move_address(parser, s, type);
        return;
    }
    uint32_t a = ptx_source(parser, s, from, type, PTX_STRICT);
    uint32_t d = ptx_dest(parser, s, to, type, PTX_STRICT);
    emit3(parser, s, op(parser, bytes == 8 ? "mov_u64" : "mov_u32"), d, a, VN_NONE);
}

void ptx_decode_cvt(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    enum ptx_type dt = s->types[0], at = s->types[1];
    const struct ptx_type_info *d = &ptx_types[dt], *a = &ptx_types[at];
    bool d_float = d->cls == 'F' || d->cls == 'X', a_float = a->cls == 'F' || a->cls == 'X';
    if (d->cls == 'B' || a->cls == 'B' || d->cls == 'P' || a->cls == 'P')
        ptx_unsupported(parser, s, "no such form");
    bool integral = s->groups[G_ROUND] && strlen(ptx_modifier_text(s->groups[G_ROUND])) == 3 &&
                    ptx_modifier_text(s->groups[G_ROUND])[2] == 'i';
    bool needs = (d_float && !a_float) || (!d_float && a_float) ||
                 (d_float && a_float && (d->bytes < a->bytes || d->cls == 'X') && at != dt &&
                  !(a->cls == 'X' && dt == PTX_F32));
    if (needs && !s->groups[G_ROUND])
        ptx_unsupported(parser, s, "a rounding modifier is needed");
    if (!d_float && !a_float && s->groups[G_ROUND])
        ptx_unsupported(parser, s, "integers are not rounded");
    if (!d_float && a_float && !integral)
        ptx_unsupported(parser, s, "an integer rounding modifier is needed");
    if (!d_float && a_float)
        s->groups[G_SAT] = 0; /* they saturate always */
    uint32_t o = ptx_named(parser, s, row);
    /* .x2 forms from f32 take two sources: the first goes to the upper half. */
    bool pair = at == PTX_F32 && d->cls == 'X' && strchr(d->name, 'x');
    ptx_operands(parser, s, pair ? 3 : 2, pair ? 3 : 2);
    uint32_t ca = ptx_source(parser, s, &s->operands[1], at, PTX_WIDER);
    uint32_t cb = pair ? ptx_source(parser, s, &s->operands[2], at, PTX_WIDER) : VN_NONE;
    uint32_t cd = ptx_dest(parser, s, &s->operands[0], dt, PTX_WIDER);
    if ((cd & VN_FILE_MASK) == VN_R64 && d->bytes <= 4) { /* extended over a wider register */
        uint32_t t = ptx_temp(parser, 4);
        emit3(parser, s, o, t, ca, cb);
        emit3(parser, s, op(parser, d->cls == 'S' ? "cvt_s64_s32" : "cvt_u64_u32"), cd, t, VN_NONE);
        return;
    }
    emit3(parser, s, o, cd, ca, cb);
}

static bool is_packed(enum ptx_type type)
{
    return type == PTX_F16X2 || type == PTX_BF16X2;
}

static uint32_t compare_op(struct ptx_parser *parser, struct ptx_statement *s, enum ptx_type type)
{
    const struct ptx_type_info *t = &ptx_types[type];
    const char *cmp = ptx_modifier_text(s->groups[G_CMP]);
    if (s->groups[G_WIDTH] && !s->groups[G_CMP]) { /* lo, hi: unsigned lower, higher */
        cmp = ptx_is(s, G_WIDTH, "lo") ? "lt" : "gt";
        if (ptx_is(s, G_WIDTH, "wide") || t->cls != 'U')
            ptx_unsupported(parser, s, NULL);
    }
    if (!strcmp(cmp, "ls") || !strcmp(cmp, "hs")) {
        if (t->cls != 'U')
            ptx_unsupported(parser, s, NULL);
        cmp = cmp[0] == 'l' ? "le" : "ge";
    }
    if (!*cmp)
        ptx_unsupported(parser, s, "a comparison is needed");
    if (t->cls == 'B' && strcmp(cmp, "eq") && strcmp(cmp, "ne"))
        ptx_unsupported(parser, s, "bits are compared for equality only");
    if (is_packed(type))
        t = &ptx_types[type == PTX_F16X2 ? PTX_F16 : PTX_BF16]; /* half by half */
    char name[64], unsigned_type[8];
    snprintf(unsigned_type, sizeof unsigned_type, "u%d", t->bytes * 8);
    snprintf(name, sizeof name, "setp_%s_%s%s", cmp,
             s->groups[G_FTZ] && type == PTX_F32 ? "ftz_" : "",
             t->cls == 'B' ? unsigned_type : t->name);
    uint32_t o = op(parser, name);
    if (o == UINT32_MAX)
        ptx_unsupported(parser, s, "no such form");
    return o;
}

static void set_bool(struct ptx_parser *parser, struct ptx_statement *s, struct ptx_operand *c,
                     uint32_t insn)
{
    uint16_t p = ptx_pred(parser, c);
    if (p == VN_NO_PRED)
        ptx_error(&parser->lexer, &c->token, "a predicate is expected here");
    struct vn_insn *i = &parser->body.insns[insn];
    i->pool = p;
    i->flags |= c->inverted ? VN_PRED_NEGATED : 0;
    i->mode = ptx_is(s, G_OP, "and") ? 1 : ptx_is(s, G_OP, "or") ? 2 : 3;
    if (i->mode == 3 && !ptx_is(s, G_OP, "xor"))
        ptx_unsupported(parser, s, NULL);
}

static uint16_t new_pred(struct ptx_parser *parser, struct ptx_statement *s)
{
    if (parser->body.preds >= VN_NO_PRED - 8)
        ptx_unsupported(parser, s, "too many predicates");
    return (uint16_t)parser->body.preds++;
}

/* The operands that are compared: f16 with .ftz loses its subnormals first. */
static void comparands(struct ptx_parser *parser, struct ptx_statement *s, enum ptx_type type,
                       uint32_t code[2])
{
    for (int k = 0; k < 2; k++) {
        code[k] = ptx_source(parser, s, &s->operands[k + 1], type, PTX_STRICT);
        if (s->groups[G_FTZ] && (type == PTX_F16 || type == PTX_F16X2)) {
            uint32_t flushed = ptx_temp(parser, 4);
            emit3(parser, s, op(parser, "min_ftz_f16x2"), flushed, code[k], code[k]);
            code[k] = flushed;
        }
    }
}

/* Compares one half (0 low, 1 high) of packed values. */
static void compare_half(struct ptx_parser *parser, struct ptx_statement *s, uint32_t o,
                         const uint32_t code[2], int half, uint16_t p)
{
    uint32_t part[2];
    for (int k = 0; k < 2; k++) {
        part[k] = ptx_temp(parser, 4);
        emit3(parser, s, op(parser, half ? "unpack_hi_u32" : "unpack_lo_u32"), part[k], code[k],
              VN_NONE);
    }
    struct vn_insn *i = emit3(parser, s, o, VN_NONE, part[0], part[1]);
    i->p = p;
    i->q = VN_NO_PRED;
    if (s->groups[G_OP])
        set_bool(parser, s, &s->operands[3], parser->body.insn_count - 1);
}

void ptx_decode_setp(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    enum ptx_type type = s->types[0];
    uint32_t o = compare_op(parser, s, type);
    uint32_t want = s->groups[G_OP] ? 4 : 3, code[2];
    ptx_operands(parser, s, want, want);
    struct ptx_operand *to = &s->operands[0];
    uint16_t p, q = VN_NO_PRED;
    if (to->kind == PTX_OPERAND_PAIR) {
        p = ptx_pred(parser, &to->elements[0]);
        q = ptx_pred(parser, &to->elements[1]);
    } else {
        p = ptx_pred(parser, to);
    }
    comparands(parser, s, type, code);
    if (is_packed(type)) { /* the pair is the two halves' */
        uint16_t both[2] = {new_pred(parser, s), new_pred(parser, s)}, result[2] = {p, q};
        compare_half(parser, s, o, code, 0, both[0]);
        compare_half(parser, s, o, code, 1, both[1]);
        for (int k = 0; k < 2; k++) {
            if (result[k] == VN_NO_PRED)
                continue;
            struct vn_insn *i = ptx_emit(parser, s, VN_OP_mov_pred);
            i->p = result[k];
            i->q = both[k];
        }
        return;
    }
    struct vn_insn *i = emit3(parser, s, o, VN_NONE, code[0], code[1]);
    i->p = p;
    i->q = q;
    if (s->groups[G_OP])
        set_bool(parser, s, &s->operands[3], parser->body.insn_count - 1);
}

/* What "true" is in the destination's type; 0: there is no such destination. */
static uint32_t truth(enum ptx_type to, enum ptx_type compared)
{
    switch (to) {
    case PTX_U32:
    case PTX_S32:
        return is_packed(compared) ? 0xffff : UINT32_MAX;
    case PTX_F32:
        return is_packed(compared) ? 0 : 0x3f800000;
    case PTX_F16:
        return compared == PTX_F16 ? 0x3c00 : 0;
    case PTX_BF16:
        return compared == PTX_BF16 ? 0x3f80 : 0;
    case PTX_F16X2:
        return compared == PTX_F16X2 ? 0x3c00 : 0;
    case PTX_BF16X2:
        return compared == PTX_BF16X2 ? 0x3f80 : 0;
    default:
        return 0;
    }
}

void ptx_decode_set(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    enum ptx_type dt = s->types[0], type = s->types[1];
    uint32_t o = compare_op(parser, s, type), yes = truth(dt, type);
    uint32_t want = s->groups[G_OP] ? 4 : 3, code[2], half[2];
    ptx_operands(parser, s, want, want);
    if (!yes)
        ptx_unsupported(parser, s, "no such form");
    comparands(parser, s, type, code);
    if (!is_packed(type)) {
        uint16_t p = new_pred(parser, s);
        emit3(parser, s, o, VN_NONE, code[0], code[1])->p = p;
        if (s->groups[G_OP])
            set_bool(parser, s, &s->operands[3], parser->body.insn_count - 1);
        uint32_t d = ptx_dest(parser, s, &s->operands[0], dt, PTX_STRICT);
        emit3(parser, s, VN_OP_selp_u32, d, ptx_constant(parser, yes, 4),
              ptx_constant(parser, 0, 4))
            ->p = p;
        return;
    }
    for (int k = 0; k < 2; k++) {
        uint16_t p = new_pred(parser, s);
        compare_half(parser, s, o, code, k, p);
        half[k] = ptx_temp(parser, 4);
        emit3(parser, s, VN_OP_selp_u32, half[k], ptx_constant(parser, yes, 4),
              ptx_constant(parser, 0, 4))
            ->p = p;
    }
    uint32_t d = ptx_dest(parser, s, &s->operands[0], dt, PTX_STRICT);
    emit3(parser, s, op(parser, "pack_u32"), d, half[0], half[1]);
}

void ptx_decode_selp(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    ptx_operands(parser, s, 4, 4);
    enum ptx_type type = s->types[0];
    unsigned bytes = ptx_types[type].bytes;
    if (bytes < 2 || type == PTX_PRED || ptx_types[type].cls == 'X')
        ptx_unsupported(parser, s, NULL);
    uint32_t a = ptx_source(parser, s, &s->operands[1], type, PTX_STRICT);
    uint32_t b = ptx_source(parser, s, &s->operands[2], type, PTX_STRICT);
    uint32_t d = ptx_dest(parser, s, &s->operands[0], type, PTX_STRICT);
    uint16_t p = ptx_pred(parser, &s->operands[3]);
    if (p == VN_NO_PRED)
        ptx_error(&parser->lexer, &s->operands[3].token, "a predicate is expected here");
    bool swap = s->operands[3].inverted;
    emit3(parser, s, bytes == 8 ? VN_OP_selp_u64 : VN_OP_selp_u32, d, swap ? b : a, swap ? a : b)
        ->p = p;
}

void ptx_decode_logic(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    bool is_not = !strcmp(row->opcode, "not");
    ptx_operands(parser, s, is_not ? 2 : 3, is_not ? 2 : 3);
    enum ptx_type type = s->types[0];
    if (type == PTX_PRED) {
        uint16_t p = ptx_pred(parser, &s->operands[0]);
        if (p == VN_NO_PRED)
            ptx_error(&parser->lexer, &s->operands[0].token, "a predicate is expected here");
        uint16_t q[2] = {0, 0};
        for (uint32_t k = 0; k < (is_not ? 1u : 2u); k++) {
            struct ptx_operand *o = &s->operands[k + 1];
            if (o->kind == PTX_OPERAND_INT) {
                q[k] = (uint16_t)parser->body.preds++;
                struct vn_insn *i = ptx_emit(parser, s, VN_OP_set_pred_const);
                i->p = q[k];
                i->imm = o->value != 0;
                continue;
            }
            q[k] = ptx_pred(parser, o);
            if (q[k] == VN_NO_PRED)
                ptx_error(&parser->lexer, &o->token, "a predicate is expected here");
            if (o->inverted) {
                if (parser->body.preds >= VN_NO_PRED - 8)
                    ptx_unsupported(parser, s, "too many predicates");
                uint16_t t = (uint16_t)parser->body.preds++;
                struct vn_insn *i = ptx_emit(parser, s, VN_OP_not_pred);
                i->p = t;
                i->q = q[k];
                q[k] = t;
            }
        }
        char name[32];
        snprintf(name, sizeof name, "%s_pred", row->opcode);
        struct vn_insn *i = ptx_emit(parser, s, op(parser, name));
        i->p = p;
        i->q = q[0];
        i->pool = q[1];
        return;
    }
    unsigned bytes = ptx_types[type].bytes;
    if (ptx_types[type].cls != 'B' || bytes < 2 || bytes > 8)
        ptx_unsupported(parser, s, "logic is for .pred, .b16, .b32 and .b64");
    char name[32];
    snprintf(name, sizeof name, "%s_u%u", row->opcode, bytes * 8);
    uint32_t a = ptx_source(parser, s, &s->operands[1], type, PTX_STRICT);
    uint32_t b = is_not ? VN_NONE : ptx_source(parser, s, &s->operands[2], type, PTX_STRICT);
    uint32_t d = ptx_dest(parser, s, &s->operands[0], type, PTX_STRICT);
    emit3(parser, s, op(parser, name), d, a, b);
}

void ptx_decode_bfi(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    ptx_operands(parser, s, 5, 5);
    enum ptx_type type = s->types[0];
    if (type != PTX_B32 && type != PTX_B64)
        ptx_unsupported(parser, s, NULL);
    uint32_t codes[4];
    for (uint32_t k = 0; k < 4; k++)
        codes[k] = ptx_source(parser, s, &s->operands[k + 1], k < 2 ? type : PTX_U32, PTX_STRICT);
    uint32_t d = ptx_dest(parser, s, &s->operands[0], type, PTX_STRICT);
    emit3(parser, s, type == PTX_B64 ? VN_OP_bfi_u64 : VN_OP_bfi_u32, d, VN_NONE, VN_NONE);
    ptx_pool(parser, codes, 0, 4);
}

void ptx_decode_lop3(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    if (s->groups[G_OP])
        ptx_unsupported(parser, s, "lop3 with a predicate");
    ptx_operands(parser, s, 5, 5);
    if (s->types[0] != PTX_B32)
        ptx_unsupported(parser, s, NULL);
    uint32_t codes[3];
    for (uint32_t k = 0; k < 3; k++)
        codes[k] = ptx_source(parser, s, &s->operands[k + 1], PTX_B32, PTX_STRICT);
    struct ptx_operand *table = &s->operands[4];
    if (table->kind != PTX_OPERAND_INT || table->value > 255)
        ptx_error(&parser->lexer, &table->token, "the truth table is a constant from 0 to 255");
    uint32_t d = ptx_dest(parser, s, &s->operands[0], PTX_B32, PTX_STRICT);
    struct vn_insn *i = emit3(parser, s, op(parser, "lop3_u32"), d, codes[0], codes[1]);
    i->c = codes[2];
    i->imm = (int64_t)table->value;
}
