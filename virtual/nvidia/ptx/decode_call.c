/* Calls: arguments, results, and what they must be. */
#include <string.h>

#include "decode.h"

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

/* Whether one argument or result is what the signature has: by size, kind of number, and, of a
 * .param variable, alignment. */
static void match(struct ptx_parser *parser, const struct ptx_operand *o,
                  const struct ptx_formal *formal, const char *what)
{
    struct ptx_lexer *lexer = &parser->lexer;
    const struct ptx_type_info *want = &ptx_types[formal->type];
    bool array = formal->size != want->bytes, fits = true;
    if (o->kind == PTX_OPERAND_SYMBOL) { /* that it is a .param variable has been checked */
        const struct ptx_decl *d = o->decl;
        bool own_array = d->size != ptx_types[d->type].bytes;
        fits = d->size == formal->size && own_array == array &&
               (array || ptx_fits(d->type, formal->type, PTX_STRICT));
        if (fits && d->align != formal->align)
            ptx_error(lexer, &o->token, "'%s' is aligned to %llu and the %s to %llu", d->name,
                      (unsigned long long)d->align, what, (unsigned long long)formal->align);
    } else if (o->kind == PTX_OPERAND_REG) {
        fits = !array && ptx_fits(o->type, formal->type, PTX_STRICT);
    } else if (o->kind == PTX_OPERAND_INT || o->kind == PTX_OPERAND_FLOAT) {
        fits = !array && (o->kind == PTX_OPERAND_FLOAT || want->cls != 'F');
    }
    if (!fits)
        ptx_error(lexer, &o->token, "the %s is .%s of %llu bytes: '%.*s' does not fit", what,
                  want->name, (unsigned long long)formal->size, (int)o->token.length,
                  o->token.text);
}

static void match_list(struct ptx_parser *parser, const struct ptx_operand *callee,
                       const struct ptx_operand *list, const struct ptx_formal *formals,
                       uint32_t count, const char *what)
{
    uint32_t given = list ? list->count : 0;
    if (given != count)
        ptx_error(&parser->lexer, &callee->token, "the call has %u %ss, and '%.*s' has %u", given,
                  what, (int)callee->token.length, callee->token.text, count);
    for (uint32_t k = 0; k < count; k++)
        match(parser, &list->elements[k], &formals[k], what);
}

static void match_signature(struct ptx_parser *parser, const struct ptx_operand *callee,
                            const struct ptx_operand *results, const struct ptx_operand *arguments,
                            const struct ptx_signature *signature)
{
    match_list(parser, callee, arguments, signature->params, signature->param_count, "argument");
    match_list(parser, callee, results, signature->returns, signature->return_count, "result");
}

/* An indirect call: by the prototype, or by each function of the list that it may call. */
static void match_prototype(struct ptx_parser *parser, const struct ptx_operand *callee,
                            const struct ptx_operand *results, const struct ptx_operand *arguments,
                            const struct ptx_operand *proto)
{
    const struct ptx_decl *d =
        proto && proto->kind == PTX_OPERAND_SYMBOL && proto->decl ? proto->decl : NULL;
    if (d && d->kind == PTX_DECL_PROTOTYPE) {
        match_signature(parser, callee, results, arguments, d->signature);
    } else if (d && d->kind == PTX_DECL_TARGETS && d->functions) {
        for (uint32_t i = 0; i < d->list_count; i++)
            match_signature(parser, callee, results, arguments, d->functions[i]->signature);
    } else {
        ptx_error(&parser->lexer, &callee->token, "an indirect call needs a prototype");
    }
}

/* call (results), function, (arguments); call (results), register, (arguments), prototype; */
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
    if (direct && proto)
        ptx_error(&parser->lexer, &proto->token, "a prototype is for a call through a register");
    if (direct)
        match_signature(parser, callee, results, arguments, callee->decl->signature);
    else
        match_prototype(parser, callee, results, arguments, proto);
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
