/* Branches, calls, barriers and exchanges between lanes. */
#include <string.h>

#include "decode.h"

static void label_ref(struct ptx_parser *parser, const struct ptx_operand *o, uint32_t insn)
{
    if (o->kind != PTX_OPERAND_SYMBOL ||
        (o->decl && o->decl->kind != PTX_DECL_LABEL && o->decl->scope->outer == NULL))
        ptx_error(&parser->lexer, &o->token, "a label is expected here");
    struct ptx_label_ref *r = ptx_need(parser, sizeof *r);
    *r = (struct ptx_label_ref){.next = parser->scope->label_refs, .token = o->token, .insn = insn};
    parser->scope->label_refs = r;
}

void ptx_decode_bra(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    const char *name = row->opcode;
    bool bra = !strcmp(name, "bra");
    ptx_operands(parser, s, bra, bra);
    uint32_t op = bra                     ? VN_OP_bra
                  : !strcmp(name, "ret")  ? (parser->body.entry ? VN_OP_exit : VN_OP_ret)
                  : !strcmp(name, "exit") ? VN_OP_exit
                                          : (uint32_t)VN_OP_trap;
    ptx_emit(parser, s, op);
    if (bra)
        label_ref(parser, &s->operands[0], parser->body.insn_count - 1);
}

/* brx.idx index, targets; */
void ptx_decode_brx(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    if (!ptx_is(s, G_SHFL, "idx"))
        ptx_unsupported(parser, s, "no such form");
    ptx_operands(parser, s, 2, 2);
    uint32_t a = ptx_source(parser, s, &s->operands[0], PTX_U32, PTX_STRICT);
    struct ptx_decl *d = s->operands[1].decl;
    if (!d || d->kind != PTX_DECL_TARGETS || !d->list)
        ptx_error(&parser->lexer, &s->operands[1].token, "the name of .branchtargets is expected");
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_brx);
    i->a = a;
    /* Where the list begins in the function's table; filled when all labels are known. */
    i->imm = parser->body.target_count;
    i->pool = d->list_count;
    for (uint32_t k = 0; k < d->list_count; k++)
        *PTX_PUSH(parser, parser->body.targets, parser->body.target_count,
                  parser->body.target_capacity) = 0;
    struct ptx_table_ref *t = PTX_PUSH(parser, parser->body.tables, parser->body.table_count,
                                       parser->body.table_capacity);
    *t = (struct ptx_table_ref){.first = (uint32_t)i->imm, .decl = d};
}

static uint32_t builtin_of(const char *name)
{
    static const struct {
        const char *name;
        uint32_t id;
    } builtins[] = {{"vprintf", VN_BUILTIN_VPRINTF},
                    {"__assertfail", VN_BUILTIN_ASSERTFAIL},
                    {"malloc", VN_BUILTIN_MALLOC},
                    {"free", VN_BUILTIN_FREE}};
    for (size_t i = 0; i < sizeof builtins / sizeof *builtins; i++) {
        if (!strcmp(name, builtins[i].name))
            return builtins[i].id;
    }
    return VN_BUILTIN_NONE;
}

/* The registers of 8 bytes that an argument or result takes. */
static void chunks_of(struct ptx_parser *parser, struct ptx_statement *s, struct ptx_operand *o,
                      bool result, uint32_t **codes, uint32_t *count, uint32_t *capacity)
{
    if (o->kind == PTX_OPERAND_SYMBOL && o->decl && o->decl->kind == PTX_DECL_PARAM &&
        !o->decl->entry_param) {
        for (uint64_t k = 0; k < (o->decl->size + 7) / 8; k++)
            *PTX_PUSH(parser, *codes, *count, *capacity) = o->decl->chunks[k];
        return;
    }
    if (o->kind == PTX_OPERAND_SINK && result) {
        *PTX_PUSH(parser, *codes, *count, *capacity) = ptx_temp(parser, 8);
        return;
    }
    if (result) {
        if (o->kind != PTX_OPERAND_REG || o->type == PTX_PRED)
            ptx_error(&parser->lexer, &o->token, "a .param variable or register is expected here");
        *PTX_PUSH(parser, *codes, *count, *capacity) = ptx_register(parser, o->decl, o->index);
        return;
    }
    uint32_t code;
    if (o->kind == PTX_OPERAND_REG && o->type != PTX_PRED)
        code = ptx_register(parser, o->decl, o->index);
    else if (o->kind == PTX_OPERAND_INT)
        code = ptx_constant(parser, o->value, 8);
    else if (o->kind == PTX_OPERAND_FLOAT && o->single)
        code = ptx_constant(parser, o->value, 8);
    else
        ptx_error(&parser->lexer, &o->token, "a .param variable, register or constant is expected");
    if ((code & VN_FILE_MASK) == VN_R32) {
        uint32_t t = ptx_temp(parser, 8);
        struct vn_insn *i = ptx_emit(parser, s, VN_OP_cvt_u64_u32);
        i->d = t;
        i->a = code;
        code = t;
    }
    *PTX_PUSH(parser, *codes, *count, *capacity) = code;
}

/* call (results), function, (arguments) [, prototype]; */
void ptx_decode_call(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    ptx_operands(parser, s, 1, 4);
    uint32_t at = 0;
    struct ptx_operand *results = NULL, *arguments = NULL;
    if (s->operands[0].kind == PTX_OPERAND_LIST)
        results = &s->operands[at++];
    if (at >= s->operand_count)
        ptx_error(&parser->lexer, &s->opcode, "the function to call is missing");
    struct ptx_operand *callee = &s->operands[at++];
    if (at < s->operand_count && s->operands[at].kind == PTX_OPERAND_LIST)
        arguments = &s->operands[at++];
    struct ptx_operand *proto = at < s->operand_count ? &s->operands[at++] : NULL;
    if (at != s->operand_count)
        ptx_error(&parser->lexer, &s->operands[at].token, "operand is not expected here");
    uint32_t *codes = NULL, count = 0, capacity = 0, writes = 0;
    /* Arguments first: their conversions come before the call. */
    for (uint32_t k = 0; arguments && k < arguments->count; k++)
        chunks_of(parser, s, &arguments->elements[k], false, &codes, &count, &capacity);
    uint32_t reads = count, *list = NULL, total = 0, list_capacity = 0;
    for (uint32_t k = 0; results && k < results->count; k++)
        chunks_of(parser, s, &results->elements[k], true, &list, &total, &list_capacity);
    writes = total;
    for (uint32_t k = 0; k < reads; k++)
        *PTX_PUSH(parser, list, total, list_capacity) = codes[k];
    bool direct = callee->kind == PTX_OPERAND_SYMBOL;
    if (direct && (!callee->decl || callee->decl->kind != PTX_DECL_FUNCTION))
        ptx_error(&parser->lexer, &callee->token, "function '%.*s' is not declared",
                  (int)callee->token.length, callee->token.text);
    if (!direct &&
        (!proto || proto->kind != PTX_OPERAND_SYMBOL || !proto->decl ||
         (proto->decl->kind != PTX_DECL_PROTOTYPE && proto->decl->kind != PTX_DECL_TARGETS)))
        ptx_error(&parser->lexer, &callee->token, "an indirect call needs a prototype");
    struct vn_module *m = parser->module;
    if (direct) {
        uint32_t index = callee->decl->index;
        uint32_t builtin = m->functions[index].info.defined ? 0 : builtin_of(callee->decl->name);
        struct vn_insn *i = ptx_emit(parser, s, builtin ? VN_OP_call_builtin : VN_OP_call);
        i->imm = builtin ? builtin : index;
        *PTX_PUSH(parser, parser->body.callees, parser->body.callee_count,
                  parser->body.callee_capacity) = index;
        if (!builtin && m->functions[index].info.entry)
            ptx_error(&parser->lexer, &callee->token, "a kernel cannot be called");
    } else {
        uint32_t a = ptx_source(parser, s, callee, PTX_U64, PTX_STRICT);
        ptx_emit(parser, s, VN_OP_call_indirect)->a = a;
        parser->body.indirect = true;
    }
    ptx_pool(parser, list, writes, reads);
    parser->body.insns[parser->body.insn_count - 1].vec = 0;
    parser->body.insns[parser->body.insn_count - 1].c = VN_NONE;
    if (writes > 255 || reads > UINT16_MAX - 1)
        ptx_unsupported(parser, s, "results of more than 2040 bytes");
    parser->body.insns[parser->body.insn_count - 1].mode = (uint8_t)writes;
    parser->body.insns[parser->body.insn_count - 1].q = (uint16_t)reads;
    struct ptx_call_ref *r =
        PTX_PUSH(parser, parser->calls, parser->call_count, parser->call_capacity);
    *r = (struct ptx_call_ref){.function = direct ? callee->decl->index : UINT32_MAX,
                               .returns = writes,
                               .arguments = reads,
                               .token = callee->token};
}

/* bar.sync a{, b}; bar.arrive a, b; bar.red.op d, a{, b}, {!}c; bar.warp.sync mask; barrier
 * likewise. */
void ptx_decode_bar(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    if (ptx_is(s, G_SCOPE, "cluster") || ptx_is(s, G_SCOPE, "gpu") || ptx_is(s, G_SCOPE, "sys"))
        ptx_unsupported(parser, s, "clusters are not modelled");
    if (s->groups[G_SEM] || s->groups[G_GRIDDEP])
        ptx_unsupported(parser, s, "no such form");
    if (s->groups[G_WARP]) {
        if (!s->groups[G_SYNC])
            ptx_unsupported(parser, s, NULL);
        ptx_operands(parser, s, 1, 1);
        uint32_t a = ptx_source(parser, s, &s->operands[0], PTX_B32, PTX_STRICT);
        ptx_emit(parser, s, VN_OP_bar_warp)->a = a;
        return;
    }
    bool arrive = ptx_is(s, G_BAROP, "arrive"), red = ptx_is(s, G_BAROP, "red");
    if (!arrive && !red && !s->groups[G_SYNC])
        ptx_unsupported(parser, s, NULL);
    uint32_t first = red ? 1 : 0;
    uint32_t last = s->operand_count - (red ? 1 : 0);
    if (red)
        ptx_operands(parser, s, 3, 4);
    else
        ptx_operands(parser, s, arrive ? 2 : 1, 2);
    uint32_t a = ptx_source(parser, s, &s->operands[first], PTX_U32, PTX_STRICT);
    uint32_t b = VN_NONE, d = VN_NONE;
    uint16_t p = VN_NO_PRED, q = VN_NO_PRED;
    uint8_t mode = arrive ? 1 : 0, flags = 0;
    if (first + 1 < last)
        b = ptx_source(parser, s, &s->operands[first + 1], PTX_U32, PTX_STRICT);
    if (red) {
        bool popc = ptx_is(s, G_OP, "popc");
        if (!popc && !ptx_is(s, G_OP, "and") && !ptx_is(s, G_OP, "or"))
            ptx_unsupported(parser, s, NULL);
        mode = popc ? 2 : ptx_is(s, G_OP, "and") ? 3 : 4;
        q = ptx_pred(parser, &s->operands[last]);
        if (q == VN_NO_PRED)
            ptx_error(&parser->lexer, &s->operands[last].token, "a predicate is expected here");
        flags = s->operands[last].inverted ? VN_PRED_NEGATED : 0;
        if (popc)
            d = ptx_dest(parser, s, &s->operands[0], PTX_U32, PTX_STRICT);
        else
            p = ptx_pred(parser, &s->operands[0]);
    }
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_bar);
    i->a = a;
    i->b = b;
    i->d = d;
    i->p = p;
    i->q = q;
    i->mode = mode;
    i->flags |= flags;
    /* .aligned is the default of bar, and must be written for barrier. */
    i->vec = ptx_is_name(&s->opcode, "bar") || s->groups[G_ALIGNED] ? 1 : 0;
}

void ptx_decode_shfl(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    const char *mode = ptx_modifier_text(s->groups[G_SHFL]);
    if (!s->groups[G_SYNC] || !*mode || s->types[0] != PTX_B32)
        ptx_unsupported(parser, s, "no such form");
    ptx_operands(parser, s, 5, 5);
    struct ptx_operand *to = &s->operands[0];
    uint16_t p = VN_NO_PRED;
    if (to->kind == PTX_OPERAND_PAIR) {
        p = ptx_pred(parser, &to->elements[1]);
        to = &to->elements[0];
    }
    uint32_t codes[4];
    codes[0] = ptx_source(parser, s, &s->operands[1], PTX_B32, PTX_STRICT);
    for (uint32_t k = 1; k < 4; k++)
        codes[k] = ptx_source(parser, s, &s->operands[k + 1], PTX_B32, PTX_STRICT);
    uint32_t d = ptx_dest(parser, s, to, PTX_B32, PTX_STRICT);
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_shfl);
    i->d = d;
    i->p = p;
    i->a = codes[0];
    i->mode = (uint8_t)(!strcmp(mode, "up")     ? 0
                        : !strcmp(mode, "down") ? 1
                        : !strcmp(mode, "bfly") ? 2
                                                : 3);
    ptx_pool(parser, codes + 1, 0, 3);
}

void ptx_decode_vote(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    const char *mode = ptx_modifier_text(s->groups[G_VOTE]);
    bool uni = s->groups[G_UNI] != 0, ballot = !strcmp(mode, "ballot");
    if (!s->groups[G_SYNC] || (!*mode && !uni) || s->types[0] != (ballot ? PTX_B32 : PTX_PRED))
        ptx_unsupported(parser, s, "no such form");
    ptx_operands(parser, s, 3, 3);
    struct ptx_operand *from = &s->operands[1];
    uint16_t q = ptx_pred(parser, from);
    if (q == VN_NO_PRED)
        ptx_error(&parser->lexer, &from->token, "a predicate is expected here");
    uint32_t mask = ptx_source(parser, s, &s->operands[2], PTX_B32, PTX_STRICT);
    uint32_t d = ballot ? ptx_dest(parser, s, &s->operands[0], PTX_B32, PTX_STRICT) : VN_NONE;
    uint16_t p = ballot ? VN_NO_PRED : ptx_pred(parser, &s->operands[0]);
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_vote);
    i->d = d;
    i->p = p;
    i->q = q;
    i->flags |= from->inverted ? VN_PRED_NEGATED : 0;
    i->b = mask;
    i->mode = (uint8_t)(ballot ? 3 : uni ? 2 : !strcmp(mode, "any") ? 1 : 0);
}

void ptx_decode_match(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    const char *mode = ptx_modifier_text(s->groups[G_VOTE]);
    bool all = !strcmp(mode, "all");
    enum ptx_type type = s->types[0];
    if (!s->groups[G_SYNC] || (!all && strcmp(mode, "any")) || (type != PTX_B32 && type != PTX_B64))
        ptx_unsupported(parser, s, "no such form");
    ptx_operands(parser, s, 3, 3);
    struct ptx_operand *to = &s->operands[0];
    uint16_t p = VN_NO_PRED;
    if (to->kind == PTX_OPERAND_PAIR) {
        if (!all)
            ptx_unsupported(parser, s, "match.any gives no predicate");
        p = ptx_pred(parser, &to->elements[1]);
        to = &to->elements[0];
    }
    uint32_t a = ptx_source(parser, s, &s->operands[1], type, PTX_STRICT);
    uint32_t b = ptx_source(parser, s, &s->operands[2], PTX_B32, PTX_STRICT);
    uint32_t d = ptx_dest(parser, s, to, PTX_B32, PTX_STRICT);
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_match);
    i->d = d;
    i->a = a;
    i->b = b;
    i->p = p;
    i->mode = (uint8_t)(all | (type == PTX_B64 ? 2 : 0));
}

void ptx_decode_redux(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    static const char *const ops[] = {"add", "min", "max", "and", "or", "xor"};
    uint8_t op = 99;
    for (uint8_t i = 0; i < 6; i++) {
        if (ptx_is(s, G_OP, ops[i]))
            op = i;
    }
    enum ptx_type type = s->types[0];
    bool bits = type == PTX_B32;
    if (!s->groups[G_SYNC] || op == 99 || s->groups[G_ABS] || s->groups[G_NANMODE] ||
        (op < 3 ? type != PTX_U32 && type != PTX_S32 : !bits))
        ptx_unsupported(parser, s, "no such form");
    ptx_operands(parser, s, 3, 3);
    uint32_t a = ptx_source(parser, s, &s->operands[1], type, PTX_STRICT);
    uint32_t b = ptx_source(parser, s, &s->operands[2], PTX_B32, PTX_STRICT);
    uint32_t d = ptx_dest(parser, s, &s->operands[0], type, PTX_STRICT);
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_redux);
    i->d = d;
    i->a = a;
    i->b = b;
    i->mode = (uint8_t)(op | (type == PTX_S32 ? 8 : 0));
}
