/* Branches, barriers and exchanges between lanes. */
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

static void barrier_limits(struct ptx_parser *parser, const struct ptx_operand *id,
                           const struct ptx_operand *threads)
{
    if (id->kind == PTX_OPERAND_INT && id->value > 15)
        ptx_error(&parser->lexer, &id->token, "a block has barriers 0 to 15");
    if (threads && threads->kind == PTX_OPERAND_INT && threads->value % 32)
        ptx_error(&parser->lexer, &threads->token, "a barrier is of a multiple of 32 threads");
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
    barrier_limits(parser, &s->operands[first], first + 1 < last ? &s->operands[first + 1] : NULL);
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
