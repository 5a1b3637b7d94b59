/* Loads, stores, atomics, copies and address conversions. */
#include <string.h>

#include "decode.h"

static uint8_t width_flag(uint32_t code, uint8_t flag)
{
    uint32_t file = code & VN_FILE_MASK;
    return file == VN_R64 || file == VN_CONSTANT ? flag : 0;
}

static enum vn_space space_of(struct ptx_parser *parser, const struct ptx_statement *s)
{
    const char *t = ptx_modifier_text(s->groups[G_SPACE]);
    if (!*t)
        return VN_GENERIC;
    if (!strcmp(t, "global"))
        return VN_GLOBAL;
    if (!strcmp(t, "shared") || !strcmp(t, "shared::cta"))
        return VN_SHARED;
    if (!strcmp(t, "shared::cluster"))
        return VN_SHARED; /* a cluster of one block */
    if (!strcmp(t, "const"))
        return VN_CONST;
    if (!strcmp(t, "local"))
        return VN_LOCALSPACE;
    (void)parser;
    return VN_PARAM;
}

enum vn_space ptx_memory(struct ptx_parser *parser, struct ptx_statement *s, struct ptx_operand *o,
                         enum vn_space space, uint32_t *code, int64_t *imm)
{
    if (o->kind != PTX_OPERAND_MEMORY)
        ptx_error(&parser->lexer, &o->token, "an address in brackets is expected here");
    *imm = o->imm;
    if (!o->has_base) {
        *code = ptx_constant(parser, 0, 8);
        return space;
    }
    struct ptx_decl *d = o->decl;
    if (d->kind == PTX_DECL_REG) {
        unsigned bytes = ptx_types[o->type].bytes;
        char cls = ptx_types[o->type].cls;
        if ((bytes != 4 && bytes != 8) || cls == 'F' || cls == 'X' || cls == 'P')
            ptx_error(&parser->lexer, &o->token, "a register of type .%s cannot be an address",
                      ptx_types[o->type].name);
        if (bytes == 4 && (space == VN_GENERIC || space == VN_GLOBAL))
            ptx_error(&parser->lexer, &o->token, "a 32-bit register addresses no global memory");
        *code = ptx_register(parser, d, o->index);
        return space;
    }
    if (d->kind != PTX_DECL_VARIABLE)
        ptx_error(&parser->lexer, &o->token, "'%s' is not in memory that can be reached here",
                  d->name);
    enum vn_space own = d->space;
    if (space == VN_GENERIC) {
        space = own; /* a variable's address says where it lies */
    } else if (space != own) {
        ptx_error(&parser->lexer, &o->token, "'%s' is not in .%s", d->name,
                  ptx_modifier_text(s->groups[G_SPACE]));
    }
    if (own == VN_LOCALSPACE) {
        uint32_t t = ptx_temp(parser, 8);
        struct vn_insn *i = ptx_emit(parser, s, VN_OP_local_address_u64);
        i->d = t;
        i->imm = (int64_t)d->offset;
        *code = t;
    } else if (d->is_extern_shared) {
        *code = VN_DYNAMIC_SHARED << 7 | VN_SPECIAL;
    } else {
        if (own == VN_SHARED)
            parser->body.uses_module_shared |= d->scope == parser->file_scope || d->global_scope;
        *code = ptx_address(parser, d->index, 0, false, 8);
    }
    return space;
}

static uint16_t order(struct ptx_parser *parser, struct ptx_statement *s, bool atomic)
{
    const char *sem = ptx_modifier_text(s->groups[G_SEM]);
    const char *scope = ptx_modifier_text(s->groups[G_SCOPE]);
    static const char *const sems[] = {"weak",    "relaxed", "acquire", "release",
                                       "acq_rel", "sc",      "volatile"};
    uint16_t o = atomic ? VN_RELAXED : VN_WEAK_ORDER;
    for (uint16_t i = 0; i < 7; i++) {
        if (!strcmp(sem, sems[i]))
            o = i;
    }
    uint16_t where = !strcmp(scope, "cta")       ? VN_SCOPE_CTA
                     : !strcmp(scope, "cluster") ? VN_SCOPE_CLUSTER
                     : !strcmp(scope, "gpu")     ? VN_SCOPE_GPU
                     : !strcmp(scope, "sys")     ? VN_SCOPE_SYS
                                                 : VN_NO_SCOPE;
    if (!atomic && (o == VN_RELAXED || o == VN_ACQUIRE || o == VN_RELEASE) && !where)
        ptx_unsupported(parser, s, "a scope is needed");
    if (!strcmp(scope, "gl"))
        ptx_unsupported(parser, s, NULL);
    if (!where)
        where = o == VN_VOLATILE ? VN_SCOPE_SYS : atomic ? VN_SCOPE_GPU : VN_NO_SCOPE;
    return (uint16_t)(o | where << 4);
}

static uint32_t vec_of(const struct ptx_statement *s)
{
    const char *v = ptx_modifier_text(s->groups[G_VEC]);
    return *v ? (uint32_t)(v[1] - '0') : 1;
}

static uint32_t log2_bytes(unsigned bytes)
{
    return bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3;
}

/* The cache-policy operand that .L2::cache_hint brings: a 64-bit register, otherwise ignored. */
static void policy(struct ptx_parser *parser, struct ptx_statement *s, uint32_t at)
{
    if (s->groups[G_HINT])
        ptx_source(parser, s, &s->operands[at], PTX_B64, PTX_STRICT);
}

static void check_access(struct ptx_parser *parser, struct ptx_statement *s, enum ptx_type type,
                         uint32_t vec)
{
    char cls = ptx_types[type].cls;
    if (cls == 'P' || cls == 'X' || type == PTX_F16 || type == PTX_B128)
        ptx_unsupported(parser, s, NULL);
    if (ptx_types[type].bytes * vec > 32 || (vec == 8 && ptx_types[type].bytes != 4))
        ptx_unsupported(parser, s, "a vector of more than 32 bytes");
}

static void vector_operands(struct ptx_parser *parser, struct ptx_operand *o, uint32_t vec,
                            struct ptx_operand **list)
{
    if (vec == 1) {
        *list = o;
        return;
    }
    ptx_expect_vector(parser, o, vec);
    *list = o->elements;
}

/* A piece of a function's parameter, which lives in registers of 8 bytes. */
static void chunk_access(struct ptx_parser *parser, struct ptx_statement *s, bool store)
{
    struct ptx_operand *m = &s->operands[store ? 0 : 1];
    struct ptx_decl *d = m->decl;
    enum ptx_type type = s->types[0];
    unsigned bytes = ptx_types[type].bytes;
    uint32_t vec = vec_of(s);
    struct ptx_operand *list;
    vector_operands(parser, &s->operands[store ? 1 : 0], vec, &list);
    if (m->imm < 0 || (uint64_t)m->imm + (uint64_t)bytes * vec > d->size)
        ptx_error(&parser->lexer, &m->token, "the access is outside the %llu bytes of '%s'",
                  (unsigned long long)d->size, d->name);
    if (m->imm % bytes)
        ptx_error(&parser->lexer, &m->token, "the access is not aligned to its %u bytes", bytes);
    bool is_signed = ptx_types[type].cls == 'S' && bytes < 4;
    for (uint32_t k = 0; k < vec; k++) {
        uint64_t at = (uint64_t)m->imm + (uint64_t)k * bytes;
        uint32_t chunk = d->chunks[at / 8];
        uint8_t shift = (uint8_t)(at % 8 * 8);
        uint64_t mask = bytes == 8 ? ~(uint64_t)0 : ((uint64_t)1 << 8 * bytes) - 1;
        struct vn_insn *i;
        if (list[k].kind == PTX_OPERAND_SINK)
            continue;
        if (store) {
            uint32_t a = ptx_source(parser, s, &list[k], type, PTX_WIDER);
            if (bytes == 8) {
                i = ptx_emit(parser, s, VN_OP_mov_u64);
                i->d = chunk;
                i->a = a;
                continue;
            }
            uint32_t t = ptx_temp(parser, 8);
            i = ptx_emit(parser, s, VN_OP_cvt_u64_u32);
            i->d = t;
            i->a = a;
            i = ptx_emit(parser, s, VN_OP_insert_u64);
            i->d = chunk;
            i->a = chunk;
            i->b = t;
        } else {
            uint32_t to = ptx_dest(parser, s, &list[k], type, PTX_WIDER);
            bool wide = (to & VN_FILE_MASK) == VN_R64;
            if (is_signed) {
                uint32_t t = ptx_temp(parser, 4);
                i = ptx_emit(parser, s, VN_OP_extract_u32);
                i->d = t;
                i->a = chunk;
                i->imm = (int64_t)mask;
                i->vec = shift;
                i = ptx_emit(parser, s,
                             bytes == 1 ? (wide ? VN_OP_cvt_s64_s8 : VN_OP_cvt_s32_s8)
                                        : (wide ? VN_OP_cvt_s64_s16 : VN_OP_cvt_s32_s16));
                i->d = to;
                i->a = t;
                continue;
            }
            i = ptx_emit(parser, s, wide ? VN_OP_extract_u64 : VN_OP_extract_u32);
            i->d = to;
            i->a = chunk;
        }
        i->imm = (int64_t)mask;
        i->vec = shift;
    }
}

static bool is_chunked(const struct ptx_operand *m)
{
    return m->kind == PTX_OPERAND_MEMORY && m->has_base && m->decl->kind == PTX_DECL_PARAM &&
           !m->decl->entry_param;
}

static bool is_entry_param(const struct ptx_operand *m)
{
    return m->kind == PTX_OPERAND_MEMORY && m->has_base && m->decl->kind == PTX_DECL_PARAM &&
           m->decl->entry_param;
}

void ptx_decode_load(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    uint32_t count = s->groups[G_HINT] ? 3 : 2;
    ptx_operands(parser, s, count, count);
    policy(parser, s, 2);
    enum ptx_type type = s->types[0];
    uint32_t vec = vec_of(s);
    unsigned bytes = ptx_types[type].bytes;
    check_access(parser, s, type, vec);
    enum vn_space space = space_of(parser, s);
    struct ptx_operand *m = &s->operands[1];
    if (s->groups[G_NC] && space != VN_GLOBAL)
        ptx_unsupported(parser, s, ".nc is for .global");
    if (s->groups[G_SEM] && s->groups[G_CACHE])
        ptx_unsupported(parser, s, "a cache operator with an order");
    if (space == VN_PARAM && is_chunked(m)) {
        chunk_access(parser, s, false);
        return;
    }
    struct ptx_operand *list;
    vector_operands(parser, &s->operands[0], vec, &list);
    uint32_t regs[8];
    if (space == VN_PARAM && is_entry_param(m)) {
        struct ptx_decl *d = m->decl;
        if (m->imm < 0 || (uint64_t)m->imm + (uint64_t)bytes * vec > d->size)
            ptx_error(&parser->lexer, &m->token, "the access is outside the %llu bytes of '%s'",
                      (unsigned long long)d->size, d->name);
        for (uint32_t k = 0; k < vec; k++) {
            if (list[k].kind == PTX_OPERAND_SINK)
                continue;
            uint32_t to = ptx_dest(parser, s, &list[k], type, PTX_WIDER);
            struct vn_insn *i = ptx_emit(parser, s, VN_OP_ld_param);
            i->d = to;
            i->imm = (int64_t)d->offset + m->imm + (int64_t)k * bytes;
            i->vec = (uint8_t)bytes;
            i->mode = (uint8_t)(ptx_types[type].cls == 'S');
        }
        return;
    }
    uint32_t address;
    int64_t imm;
    if (space == VN_PARAM) /* through a pointer: the kernel's parameters, in memory */
        space = VN_GENERIC;
    space = ptx_memory(parser, s, m, space, &address, &imm);
    for (uint32_t k = 0; k < vec; k++)
        regs[k] = ptx_dest(parser, s, &list[k], type, PTX_WIDER);
    uint32_t base = space == VN_GLOBAL || space == VN_CONST ? VN_OP_ld_global_8
                    : space == VN_SHARED                    ? VN_OP_ld_shared_8
                    : space == VN_LOCALSPACE                ? VN_OP_ld_local_8
                                                            : VN_OP_ld_generic_8;
    struct vn_insn *i = ptx_emit(parser, s, base + log2_bytes(bytes));
    i->a = address;
    i->imm = imm;
    i->vec = (uint8_t)vec;
    i->flags |= width_flag(address, VN_ADDRESS64);
    i->flags |= ptx_types[type].cls == 'S' ? VN_SIGNED : 0;
    i->mode = (uint8_t)(space == VN_CONST);
    i->q = order(parser, s, false);
    if (vec == 1)
        i->d = regs[0];
    else
        ptx_pool(parser, regs, vec, 0);
}

void ptx_decode_store(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    uint32_t count = s->groups[G_HINT] ? 3 : 2;
    ptx_operands(parser, s, count, count);
    policy(parser, s, 2);
    enum ptx_type type = s->types[0];
    uint32_t vec = vec_of(s);
    unsigned bytes = ptx_types[type].bytes;
    check_access(parser, s, type, vec);
    enum vn_space space = space_of(parser, s);
    struct ptx_operand *m = &s->operands[0];
    if (s->groups[G_ASYNC])
        ptx_unsupported(parser, s, "st.async is not modelled");
    if (space == VN_CONST || s->groups[G_NC] || ptx_is(s, G_SEM, "acquire"))
        ptx_unsupported(parser, s, NULL);
    if (space == VN_PARAM) {
        if (!is_chunked(m))
            ptx_error(&parser->lexer, &m->token, "a kernel's parameters are not written");
        chunk_access(parser, s, true);
        return;
    }
    struct ptx_operand *list;
    vector_operands(parser, &s->operands[1], vec, &list);
    uint32_t address, regs[8];
    int64_t imm;
    space = ptx_memory(parser, s, m, space, &address, &imm);
    if (space == VN_CONST)
        ptx_unsupported(parser, s, ".const is not written");
    for (uint32_t k = 0; k < vec; k++)
        regs[k] = ptx_source(parser, s, &list[k], type, PTX_WIDER);
    uint32_t base = space == VN_GLOBAL       ? VN_OP_st_global_8
                    : space == VN_SHARED     ? VN_OP_st_shared_8
                    : space == VN_LOCALSPACE ? VN_OP_st_local_8
                                             : VN_OP_st_generic_8;
    struct vn_insn *i = ptx_emit(parser, s, base + log2_bytes(bytes));
    i->a = address;
    i->imm = imm;
    i->vec = (uint8_t)vec;
    i->flags |= width_flag(address, VN_ADDRESS64);
    i->q = order(parser, s, false);
    if (vec == 1)
        i->b = regs[0];
    else
        ptx_pool(parser, regs, 0, vec);
}

static int atomic_type(enum ptx_type type)
{
    switch (type) {
    case PTX_U32:
    case PTX_B32:
        return VN_ATOM_U32;
    case PTX_S32:
        return VN_ATOM_S32;
    case PTX_U64:
    case PTX_B64:
        return VN_ATOM_U64;
    case PTX_S64:
        return VN_ATOM_S64;
    case PTX_F32:
        return VN_ATOM_F32;
    case PTX_F64:
        return VN_ATOM_F64;
    case PTX_F16:
        return VN_ATOM_F16;
    case PTX_F16X2:
        return VN_ATOM_F16X2;
    case PTX_BF16:
        return VN_ATOM_BF16;
    case PTX_BF16X2:
        return VN_ATOM_BF16X2;
    case PTX_B16:
        return VN_ATOM_B16;
    default:
        return -1;
    }
}

static const char *const atomics[] = {"add", "min",  "max", "inc", "dec",
                                      "cas", "exch", "and", "or",  "xor"};

static bool atomic_exists(uint32_t op, int t, enum ptx_type type)
{
    bool is_bits = ptx_types[type].cls == 'B', is_float = t >= VN_ATOM_F32 && t <= VN_ATOM_BF16X2;
    switch (op) {
    case VN_ATOM_ADD:
        return !is_bits;
    case VN_ATOM_MIN:
    case VN_ATOM_MAX:
        return !is_bits && (!is_float || t >= VN_ATOM_F16);
    case VN_ATOM_INC:
    case VN_ATOM_DEC:
        return type == PTX_U32;
    case VN_ATOM_CAS:
    case VN_ATOM_EXCH:
        return is_bits;
    default:
        return is_bits && t != VN_ATOM_B16;
    }
}

void ptx_decode_atom(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    bool red = !strcmp(row->opcode, "red");
    uint32_t op = 99;
    for (uint32_t i = 0; i < sizeof atomics / sizeof *atomics; i++) {
        if (ptx_is(s, G_OP, atomics[i]))
            op = i;
    }
    enum ptx_type type = s->types[0];
    int t = atomic_type(type);
    if (op == 99 || t < 0 || !atomic_exists(op, t, type) ||
        (red && (op == VN_ATOM_CAS || op == VN_ATOM_EXCH)))
        ptx_unsupported(parser, s, "no such form");
    if (s->groups[G_VEC])
        ptx_unsupported(parser, s, "vector atomics");
    enum vn_space space = space_of(parser, s);
    if (space != VN_GENERIC && space != VN_GLOBAL && space != VN_SHARED)
        ptx_unsupported(parser, s, NULL);
    uint32_t first = red ? 0 : 1, values = op == VN_ATOM_CAS ? 2 : 1;
    uint32_t count = first + 1 + values + (s->groups[G_HINT] ? 1 : 0);
    ptx_operands(parser, s, count, count);
    policy(parser, s, count - 1);
    uint32_t address;
    int64_t imm;
    space = ptx_memory(parser, s, &s->operands[first], space, &address, &imm);
    uint32_t b = ptx_source(parser, s, &s->operands[first + 1], type, PTX_STRICT);
    uint32_t c = VN_NONE, d = VN_NONE;
    if (values == 2)
        c = ptx_source(parser, s, &s->operands[first + 2], type, PTX_STRICT);
    if (!red && s->operands[0].kind != PTX_OPERAND_SINK)
        d = ptx_dest(parser, s, &s->operands[0], type, PTX_STRICT);
    struct vn_insn *i = ptx_emit(parser, s,
                                 space == VN_SHARED   ? VN_OP_atom_shared
                                 : space == VN_GLOBAL ? VN_OP_atom_global
                                                      : VN_OP_atom_generic);
    i->d = d;
    i->a = address;
    i->b = b;
    i->c = c;
    i->imm = imm;
    i->mode = (uint8_t)op;
    i->p = (uint16_t)t;
    i->vec = ptx_types[type].bytes;
    i->flags |= width_flag(address, VN_ADDRESS64);
    i->q = order(parser, s, true);
}

void ptx_decode_cp(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    if (!s->groups[G_ASYNC])
        ptx_unsupported(parser, s, "only cp.async is modelled");
    const char *group = ptx_modifier_text(s->groups[G_GROUPOP]);
    if (!strcmp(group, "commit_group")) {
        ptx_operands(parser, s, 0, 0);
        ptx_emit(parser, s, VN_OP_cp_async_commit);
        return;
    }
    if (*group) {
        bool all = !strcmp(group, "wait_all");
        ptx_operands(parser, s, all ? 0 : 1, all ? 0 : 1);
        if (!all && s->operands[0].kind != PTX_OPERAND_INT)
            ptx_error(&parser->lexer, &s->operands[0].token, "the number of groups is a constant");
        struct vn_insn *i = ptx_emit(parser, s, VN_OP_cp_async_wait);
        i->imm = all ? -1 : (int64_t)s->operands[0].value;
        return;
    }
    bool cg = ptx_is(s, G_CACHE, "cg");
    if (!cg && !ptx_is(s, G_CACHE, "ca"))
        ptx_unsupported(parser, s, ".ca or .cg is needed");
    /* The two spaces, in this order. */
    bool shared = false, global = false;
    for (uint32_t m = 0; m < s->modifier_count; m++) {
        const struct ptx_token *t = &s->modifiers[m].token;
        shared |= ptx_is_dot(t, "shared") || ptx_is_dot(t, "shared::cta");
        global |= ptx_is_dot(t, "global");
    }
    if (!shared || !global)
        ptx_unsupported(parser, s, "cp.async copies .shared.global");
    uint32_t hint = s->groups[G_HINT] ? 1 : 0;
    ptx_operands(parser, s, 3 + hint, 4 + hint);
    policy(parser, s, s->operand_count - 1);
    struct ptx_operand *size = &s->operands[2];
    if (size->kind != PTX_OPERAND_INT ||
        (size->value != 16 && (cg || (size->value != 4 && size->value != 8))))
        ptx_error(&parser->lexer, &size->token, "the copy's size is %s", cg ? "16" : "4, 8 or 16");
    uint32_t to, from, left = VN_NONE;
    int64_t to_imm, from_imm;
    ptx_memory(parser, s, &s->operands[0], VN_SHARED, &to, &to_imm);
    uint16_t space = s->groups[G_SPACE];
    ptx_memory(parser, s, &s->operands[1], VN_GLOBAL, &from, &from_imm);
    s->groups[G_SPACE] = space;
    uint16_t ignore = VN_NO_PRED;
    if (s->operand_count == 4 + hint) {
        struct ptx_operand *o = &s->operands[3];
        if (o->kind == PTX_OPERAND_REG && o->type == PTX_PRED)
            ignore = ptx_pred(parser, o);
        else
            left = ptx_source(parser, s, o, PTX_U32, PTX_STRICT);
    }
    if (to_imm != (int32_t)to_imm || from_imm != (int32_t)from_imm)
        ptx_error(&parser->lexer, &s->operands[0].token, "an offset does not fit 32 bits");
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_cp_async);
    i->a = to;
    i->b = from;
    i->c = left;
    i->p = ignore;
    i->vec = (uint8_t)size->value;
    i->imm = (int64_t)((uint64_t)(uint32_t)to_imm | (uint64_t)(uint32_t)from_imm << 32);
    i->flags |= width_flag(to, VN_ADDRESS64) | width_flag(from, VN_ADDRESS64_B);
}

void ptx_decode_cvta(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    ptx_operands(parser, s, 2, 2);
    enum vn_space space = space_of(parser, s);
    enum ptx_type type = s->types[0];
    if (space == VN_GENERIC || type != PTX_U64)
        ptx_unsupported(parser, s, "a state space and .u64 are needed");
    struct ptx_operand *from = &s->operands[1];
    uint32_t a;
    if (from->kind == PTX_OPERAND_SYMBOL) { /* cvta.global.u64 d, variable */
        struct ptx_decl *v = from->decl;
        if (!v || (v->kind != PTX_DECL_VARIABLE && v->kind != PTX_DECL_PARAM))
            ptx_error(&parser->lexer, &from->token, "'%.*s' is not a variable",
                      (int)from->token.length, from->token.text);
        struct ptx_statement move = *s;
        uint32_t t = ptx_temp(parser, 8);
        uint32_t id = t + 1;
        struct ptx_decl reg = {
            .kind = PTX_DECL_REG, .type = PTX_B64, .vec = 1, .ids = &id, .name = "address"};
        move.types[0] = PTX_B64;
        move.groups[G_VEC] = 0;
        move.operands[0] = (struct ptx_operand){
            .kind = PTX_OPERAND_REG, .type = PTX_B64, .decl = &reg, .token = from->token};
        ptx_decode_mov(parser, &move, row);
        a = t;
    } else {
        a = ptx_source(parser, s, from, type, PTX_STRICT);
    }
    uint32_t d = ptx_dest(parser, s, &s->operands[0], type, PTX_STRICT);
    bool to = s->groups[G_TO] != 0;
    uint32_t op = space == VN_SHARED       ? (to ? VN_OP_cvta_to_shared : VN_OP_cvta_shared)
                  : space == VN_LOCALSPACE ? (to ? VN_OP_cvta_to_local : VN_OP_cvta_local)
                                           : (uint32_t)VN_OP_mov_u64;
    struct vn_insn *i = ptx_emit(parser, s, op);
    i->d = d;
    i->a = a;
}

void ptx_decode_isspacep(struct ptx_parser *parser, struct ptx_statement *s,
                         const struct ptx_row *row)
{
    (void)row;
    ptx_operands(parser, s, 2, 2);
    uint16_t p = ptx_pred(parser, &s->operands[0]);
    uint32_t a = ptx_source(parser, s, &s->operands[1], PTX_U64, PTX_STRICT);
    enum vn_space space = space_of(parser, s);
    if (space == VN_GENERIC)
        ptx_unsupported(parser, s, "a state space is needed");
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_isspacep);
    i->p = p;
    i->a = a;
    i->mode = (uint8_t)space;
}

void ptx_decode_fence(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    bool membar = !strcmp(row->opcode, "membar");
    ptx_operands(parser, s, 0, 0);
    const char *scope = ptx_modifier_text(s->groups[G_SCOPE]);
    if (!*scope || (membar && !strcmp(scope, "cluster")) || (!membar && !strcmp(scope, "gl")) ||
        (membar && !strcmp(scope, "gpu")))
        ptx_unsupported(parser, s, "a scope is needed");
    if (!membar && s->groups[G_SEM] && !ptx_is(s, G_SEM, "sc") && !ptx_is(s, G_SEM, "acq_rel") &&
        !ptx_is(s, G_SEM, "acquire") && !ptx_is(s, G_SEM, "release"))
        ptx_unsupported(parser, s, NULL);
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_fence);
    uint16_t where = !strcmp(scope, "cta")       ? VN_SCOPE_CTA
                     : !strcmp(scope, "cluster") ? VN_SCOPE_CLUSTER
                     : !strcmp(scope, "sys")     ? VN_SCOPE_SYS
                                                 : VN_SCOPE_GPU;
    i->q = (uint16_t)((membar || ptx_is(s, G_SEM, "sc") ? VN_SC : VN_ACQ_REL) | where << 4);
}

/* Instructions that are hints, or read the state of the warp. */
void ptx_decode_hint(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    const char *name = row->opcode;
    if (!strcmp(name, "nanosleep")) {
        ptx_operands(parser, s, 1, 1);
        uint32_t a = ptx_source(parser, s, &s->operands[0], PTX_U32, PTX_STRICT);
        ptx_emit(parser, s, VN_OP_yield)->a = a;
    } else if (!strcmp(name, "activemask")) {
        ptx_operands(parser, s, 1, 1);
        if (s->types[0] != PTX_B32)
            ptx_unsupported(parser, s, NULL);
        uint32_t d = ptx_dest(parser, s, &s->operands[0], PTX_B32, PTX_STRICT);
        ptx_emit(parser, s, VN_OP_activemask)->d = d;
    } else if (!strcmp(name, "griddepcontrol")) {
        if (!s->groups[G_GRIDDEP])
            ptx_unsupported(parser, s, NULL);
        ptx_operands(parser, s, 0, 0);
        ptx_emit(parser, s, VN_OP_nop); /* launches follow each other anyway */
    } else if (!strcmp(name, "createpolicy")) {
        if (s->types[0] != PTX_B64 || ptx_is(s, G_POLICY, "range"))
            ptx_unsupported(parser, s, NULL);
        ptx_operands(parser, s, 1, 3);
        uint32_t d = ptx_dest(parser, s, &s->operands[0], PTX_B64, PTX_STRICT);
        uint32_t zero = ptx_constant(parser, 0, 8);
        struct vn_insn *i = ptx_emit(parser, s, VN_OP_mov_u64);
        i->d = d;
        i->a = zero;
    } else if (!strcmp(name, "pmevent")) {
        ptx_operands(parser, s, 1, 1);
        ptx_emit(parser, s, VN_OP_nop);
    } else { /* prefetch, prefetchu, applypriority, discard */
        ptx_operands(parser, s, 1, 2);
        uint32_t address;
        int64_t imm;
        enum vn_space space = space_of(parser, s);
        if (!s->groups[G_LEVEL] && !s->groups[G_EVICT2])
            ptx_unsupported(parser, s, "a cache level is needed");
        ptx_memory(parser, s, &s->operands[0], space, &address, &imm);
        ptx_emit(parser, s, VN_OP_nop);
    }
}
