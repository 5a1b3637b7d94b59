/* Matrix instructions. */
#include <string.h>

#include "decode.h"

static void converged(struct ptx_parser *parser, struct ptx_statement *s)
{
    if (!s->groups[G_SYNC] || !s->groups[G_ALIGNED])
        ptx_unsupported(parser, s, ".sync.aligned is needed");
}

static uint8_t address_flag(uint32_t code)
{
    uint32_t file = code & VN_FILE_MASK;
    return file == VN_R64 || file == VN_CONSTANT ? VN_ADDRESS64 : 0;
}

/* A fragment: a vector of count registers, or a bare one. */
static void fragment(struct ptx_parser *parser, struct ptx_statement *s, struct ptx_operand *o,
                     uint32_t count, enum ptx_type type, bool dest, uint32_t *codes)
{
    struct ptx_operand *list = o;
    if (o->kind == PTX_OPERAND_VECTOR)
        list = o->elements;
    if ((o->kind == PTX_OPERAND_VECTOR ? o->count : 1) != count)
        ptx_error(&parser->lexer, &o->token, "the fragment has %u register%s", count,
                  count == 1 ? "" : "s");
    for (uint32_t k = 0; k < count; k++)
        codes[k] = dest ? ptx_dest(parser, s, &list[k], type, PTX_STRICT)
                        : ptx_source(parser, s, &list[k], type, PTX_STRICT);
}

void ptx_decode_ldmatrix(struct ptx_parser *parser, struct ptx_statement *s,
                         const struct ptx_row *row)
{
    converged(parser, s);
    bool load = !strcmp(row->opcode, "ldmatrix"), store = !strcmp(row->opcode, "stmatrix");
    if (!ptx_is(s, G_SHAPE, "m8n8") || s->types[0] != PTX_B16)
        ptx_unsupported(parser, s, "no such form");
    uint32_t codes[4];
    if (!load && !store) {
        if (!s->groups[G_TRANS])
            ptx_unsupported(parser, s, "no such form");
        ptx_operands(parser, s, 2, 2);
        uint32_t a = ptx_source(parser, s, &s->operands[1], PTX_B32, PTX_STRICT);
        uint32_t d = ptx_dest(parser, s, &s->operands[0], PTX_B32, PTX_STRICT);
        struct vn_insn *i = ptx_emit(parser, s, VN_OP_movmatrix);
        i->a = a;
        i->d = d;
        return;
    }
    const char *num = ptx_modifier_text(s->groups[G_NUM]);
    if (!*num)
        ptx_unsupported(parser, s, ".x1, .x2 or .x4 is needed");
    uint32_t count = (uint32_t)(num[1] - '0');
    const char *space = ptx_modifier_text(s->groups[G_SPACE]);
    if (*space && strcmp(space, "shared") && strcmp(space, "shared::cta"))
        ptx_unsupported(parser, s, "the matrices are in .shared");
    ptx_operands(parser, s, 2, 2);
    uint32_t address;
    int64_t imm;
    enum vn_space where = ptx_memory(parser, s, &s->operands[load ? 1 : 0],
                                     *space ? VN_SHARED : VN_GENERIC, &address, &imm);
    fragment(parser, s, &s->operands[load ? 0 : 1], count, PTX_B32, load, codes);
    struct vn_insn *i = ptx_emit(parser, s, load ? VN_OP_ldmatrix : VN_OP_stmatrix);
    i->a = address;
    i->imm = imm;
    i->flags |= address_flag(address);
    i->vec = (uint8_t)count;
    i->mode = (uint8_t)((s->groups[G_TRANS] ? 1 : 0) | (where == VN_SHARED ? 0 : 2));
    i->q = VN_WEAK_ORDER;
    ptx_pool(parser, codes, load ? count : 0, load ? 0 : count);
}

/* An element type of a and b: bits, and what registers hold it. */
static uint32_t element_bits(enum ptx_type t)
{
    switch (t) {
    case PTX_F16:
    case PTX_BF16:
        return 16;
    case PTX_TF32:
    case PTX_F32:
    case PTX_S32:
        return 32;
    case PTX_S8:
    case PTX_U8:
    case PTX_E4M3:
    case PTX_E5M2:
        return 8;
    case PTX_F64:
        return 64;
    default:
        return 0;
    }
}

static bool shape_of(const char *text, uint32_t *m, uint32_t *n, uint32_t *k)
{
    uint32_t *parts[] = {m, n, k};
    const char *letters = "mnk";
    for (int i = 0; i < 3; i++) {
        if (*text++ != letters[i])
            return false;
        *parts[i] = 0;
        while (*text >= '0' && *text <= '9')
            *parts[i] = *parts[i] * 10 + (uint32_t)(*text++ - '0');
    }
    return *text == 0;
}

static bool mma_exists(uint32_t m, uint32_t n, uint32_t k, enum ptx_type d, enum ptx_type a,
                       enum ptx_type b, enum ptx_type c)
{
    bool fp8 = a == PTX_E4M3 || a == PTX_E5M2;
    if (fp8 && b != PTX_E4M3 && b != PTX_E5M2)
        return false;
    bool int8 = a == PTX_S8 || a == PTX_U8;
    if (int8 && b != PTX_S8 && b != PTX_U8)
        return false;
    if (!fp8 && !int8 && a != b)
        return false;
    if (d != c)
        return false;
    uint32_t mnk = m << 16 | n << 8 | k;
    enum {
        M16N8K4 = 0x100804,
        M16N8K8 = 0x100808,
        M16N8K16 = 0x100810,
        M16N8K32 = 0x100820,
        M8N8K16 = 0x080810,
        M8N8K4 = 0x080804
    };
    switch (a) {
    case PTX_F16:
        return (mnk == M16N8K8 || mnk == M16N8K16) && (d == PTX_F16 || d == PTX_F32);
    case PTX_BF16:
        return (mnk == M16N8K8 || mnk == M16N8K16) && d == PTX_F32;
    case PTX_TF32:
        return (mnk == M16N8K4 || mnk == M16N8K8) && d == PTX_F32;
    case PTX_S8:
    case PTX_U8:
        return (mnk == M8N8K16 || mnk == M16N8K16 || mnk == M16N8K32) && d == PTX_S32;
    case PTX_E4M3:
    case PTX_E5M2:
        return (mnk == M16N8K32 || mnk == M16N8K16) && (d == PTX_F32 || d == PTX_F16);
    case PTX_F64:
        return (mnk == M8N8K4 || mnk == M16N8K4 || mnk == M16N8K8 || mnk == M16N8K16) &&
               d == PTX_F64;
    default:
        return false;
    }
}

static uint8_t type_code(enum ptx_type t)
{
    switch (t) {
    case PTX_F16:
        return VN_ELEMENT_F16;
    case PTX_BF16:
        return VN_ELEMENT_BF16;
    case PTX_TF32:
        return VN_ELEMENT_TF32;
    case PTX_S8:
        return VN_ELEMENT_S8;
    case PTX_U8:
        return VN_ELEMENT_U8;
    case PTX_E4M3:
        return VN_ELEMENT_E4M3;
    case PTX_E5M2:
        return VN_ELEMENT_E5M2;
    case PTX_F64:
        return VN_ELEMENT_F64;
    case PTX_S32:
        return VN_ELEMENT_S32;
    default:
        return VN_ELEMENT_F32;
    }
}

static enum ptx_type register_type(enum ptx_type t)
{
    return t == PTX_F64 ? PTX_F64 : t == PTX_F32 ? PTX_F32 : t == PTX_S32 ? PTX_S32 : PTX_B32;
}

/* What the handler needs beside the registers, in imm. */
static int64_t describe(uint32_t m, uint32_t n, uint32_t k, const enum ptx_type *types, bool sat,
                        bool wmma)
{
    uint64_t v = (uint64_t)m | (uint64_t)n << 8 | (uint64_t)k << 16;
    for (uint32_t i = 0; i < 4; i++)
        v |= (uint64_t)type_code(types[i]) << (24 + 4 * i);
    return (int64_t)(v | (uint64_t)sat << 40 | (uint64_t)wmma << 41);
}

void ptx_decode_mma(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    converged(parser, s);
    uint32_t m, n, k;
    const enum ptx_type *t = s->types; /* d a b c */
    if (!shape_of(ptx_modifier_text(s->groups[G_SHAPE]), &m, &n, &k) || s->groups[G_OP] ||
        !mma_exists(m, n, k, t[0], t[1], t[2], t[3]))
        ptx_unsupported(parser, s, "no such shape and types");
    if (!ptx_is(s, G_LAYOUT, "row") || !ptx_is(s, G_LAYOUT2, "col"))
        ptx_unsupported(parser, s, "the layouts are .row.col");
    if (s->groups[G_ROUND] && t[0] != PTX_F64)
        ptx_unsupported(parser, s, NULL);
    ptx_operands(parser, s, 4, 4);
    uint32_t unit = t[1] == PTX_F64 ? 64 : 32;
    uint32_t cunit = t[0] == PTX_F64 ? 64 : 32;
    uint32_t na = m * k * element_bits(t[1]) / (32 * unit);
    uint32_t nb = n * k * element_bits(t[2]) / (32 * unit);
    uint32_t nc = m * n * element_bits(t[3]) / (32 * cunit);
    uint32_t codes[32], at = 0;
    fragment(parser, s, &s->operands[0], nc, register_type(t[0]), true, codes);
    at = nc;
    fragment(parser, s, &s->operands[1], na, register_type(t[1]), false, codes + at);
    at += na;
    fragment(parser, s, &s->operands[2], nb, register_type(t[2]), false, codes + at);
    at += nb;
    fragment(parser, s, &s->operands[3], nc, register_type(t[3]), false, codes + at);
    at += nc;
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_mma);
    i->imm = describe(m, n, k, t, s->groups[G_SATFINITE] != 0, false);
    ptx_pool(parser, codes, nc, at - nc);
}

/* Registers a thread holds of a wmma fragment; 0: no such one. */
static uint32_t wmma_registers(char which, uint32_t m, uint32_t n, uint32_t k, enum ptx_type t)
{
    uint32_t mnk = m << 16 | n << 8 | k;
    enum { A = 0x101010, B = 0x200810, C = 0x082010, TF = 0x101008, D = 0x080804 };
    bool usual = mnk == A || mnk == B || mnk == C;
    if (which == 'c' || which == 'd') {
        if (t == PTX_F64)
            return mnk == D ? 2 : 0;
        if (t == PTX_F16)
            return usual ? 4 : 0;
        if (t == PTX_S32)
            return usual ? 8 : 0;
        return t == PTX_F32 && (usual || mnk == TF) ? 8 : 0;
    }
    uint32_t elements = which == 'a' ? m * k : n * k;
    switch (t) {
    case PTX_F16:
        return usual ? 8 : 0;
    case PTX_BF16:
        return usual ? elements / 64 : 0;
    case PTX_S8:
    case PTX_U8:
        return usual ? elements / 128 : 0;
    case PTX_TF32:
        return mnk == TF ? 4 : 0;
    case PTX_F64:
        return mnk == D ? 1 : 0;
    default:
        return 0;
    }
}

static void wmma_memory(struct ptx_parser *parser, struct ptx_statement *s, bool load, uint32_t m,
                        uint32_t n, uint32_t k)
{
    char which = ptx_modifier_text(s->groups[G_MATRIX])[0];
    if (s->type_count != 1 || (load ? which == 'd' || !which : which != 'd'))
        ptx_unsupported(parser, s, "no such form");
    enum ptx_type t = s->types[0];
    uint32_t count = wmma_registers(which, m, n, k, t);
    if (!count || !s->groups[G_LAYOUT] || s->groups[G_LAYOUT2])
        ptx_unsupported(parser, s, "no such form");
    ptx_operands(parser, s, 2, 3);
    const char *space = ptx_modifier_text(s->groups[G_SPACE]);
    enum vn_space where = !*space                        ? VN_GENERIC
                          : !strcmp(space, "global")     ? VN_GLOBAL
                          : !strncmp(space, "shared", 6) ? VN_SHARED
                                                         : VN_REG;
    if (where == VN_REG)
        ptx_unsupported(parser, s, NULL);
    uint32_t address, codes[8], stride = VN_NONE;
    int64_t imm;
    where = ptx_memory(parser, s, &s->operands[load ? 1 : 0], where, &address, &imm);
    fragment(parser, s, &s->operands[load ? 0 : 1], count, register_type(t), load, codes);
    bool row = ptx_is(s, G_LAYOUT, "row");
    if (s->operand_count == 3) {
        stride = ptx_source(parser, s, &s->operands[2], PTX_U32, PTX_STRICT);
    } else { /* the width of the matrix along the layout */
        uint32_t width = which == 'a'   ? (row ? k : m)
                         : which == 'b' ? (row ? n : k)
                                        : (row ? n : m);
        stride = ptx_constant(parser, width, 4);
    }
    struct vn_insn *i = ptx_emit(parser, s, load ? VN_OP_wmma_load : VN_OP_wmma_store);
    enum ptx_type types[4] = {t, t, t, t};
    i->a = address;
    i->b = stride;
    i->imm = imm;
    i->flags |= address_flag(address);
    i->vec = (uint8_t)count;
    i->mode = (uint8_t)(row | (which - 'a') << 1 |
                        (where == VN_SHARED   ? 0
                         : where == VN_GLOBAL ? 8
                                              : 16));
    /* shape and type: small enough for p and q */
    i->p = (uint16_t)(m | n << 8);
    i->q = (uint16_t)(k | (uint32_t)type_code(types[0]) << 8);
    ptx_pool(parser, codes, load ? count : 0, load ? 0 : count);
}

void ptx_decode_wmma(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row)
{
    (void)row;
    converged(parser, s);
    uint32_t m, n, k;
    if (!shape_of(ptx_modifier_text(s->groups[G_SHAPE]), &m, &n, &k))
        ptx_unsupported(parser, s, "no such shape");
    const char *what = ptx_modifier_text(s->groups[G_WMMA]);
    if (strcmp(what, "mma")) {
        if (!*what)
            ptx_unsupported(parser, s, NULL);
        wmma_memory(parser, s, !strcmp(what, "load"), m, n, k);
        return;
    }
    enum ptx_type t[4];
    if (s->type_count == 2) { /* .f16 a and b: d, c */
        t[0] = s->types[0];
        t[1] = t[2] = PTX_F16;
        t[3] = s->types[1];
    } else if (s->type_count == 4) {
        memcpy(t, s->types, sizeof t);
    } else {
        ptx_unsupported(parser, s, "no such form");
    }
    bool int8 = t[1] == PTX_S8 || t[1] == PTX_U8;
    bool accumulators = t[1] == PTX_F16 ? (t[0] == PTX_F16 || t[0] == PTX_F32) &&
                                              (t[3] == PTX_F16 || t[3] == PTX_F32)
                        : int8            ? t[0] == PTX_S32 && t[3] == PTX_S32
                        : t[1] == PTX_F64 ? t[0] == PTX_F64 && t[3] == PTX_F64
                                          : t[0] == PTX_F32 && t[3] == PTX_F32;
    if (t[1] != t[2] || !accumulators || !s->groups[G_LAYOUT] || !s->groups[G_LAYOUT2])
        ptx_unsupported(parser, s, "no such form");
    uint32_t counts[4] = {wmma_registers('d', m, n, k, t[0]), wmma_registers('a', m, n, k, t[1]),
                          wmma_registers('b', m, n, k, t[2]), wmma_registers('c', m, n, k, t[3])};
    uint32_t codes[32], at = 0;
    ptx_operands(parser, s, 4, 4);
    for (uint32_t i = 0; i < 4; i++) {
        if (!counts[i])
            ptx_unsupported(parser, s, "no such form");
        fragment(parser, s, &s->operands[i], counts[i], register_type(t[i]), i == 0, codes + at);
        at += counts[i];
    }
    struct vn_insn *i = ptx_emit(parser, s, VN_OP_mma);
    i->imm = describe(m, n, k, t, s->groups[G_SATFINITE] != 0, true);
    ptx_pool(parser, codes, counts[0], at - counts[0]);
}
