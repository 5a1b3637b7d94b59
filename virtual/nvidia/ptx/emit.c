/* From virtual registers and constants to instructions. */
#include <stdio.h>
#include <string.h>

#include "../exec/ops.h"
#include "parser.h"

uint32_t ptx_op_named(struct ptx_parser *parser, const char *name)
{
    uint32_t h = 2166136261u;
    for (const char *c = name; *c; c++)
        h = (h ^ (unsigned char)*c) * 16777619u;
    if (!parser->op_table) {
        parser->op_table_size = 4096;
        parser->op_table = ptx_need(parser, 4096 * sizeof(uint32_t));
        for (uint32_t op = 0; op < VN_OP_COUNT; op++) {
            uint32_t g = 2166136261u;
            for (const char *c = vn_ops[op].name; *c; c++)
                g = (g ^ (unsigned char)*c) * 16777619u;
            while (parser->op_table[g & 4095])
                g++;
            parser->op_table[g & 4095] = op + 1;
        }
    }
    for (; parser->op_table[h & 4095]; h++) {
        uint32_t op = parser->op_table[h & 4095] - 1;
        if (!strcmp(vn_ops[op].name, name))
            return op;
    }
    return UINT32_MAX;
}

static uint32_t new_constant(struct ptx_parser *parser, uint64_t value, unsigned bytes)
{
    struct vn_module *m = parser->module;
    if (m->constant_count >= (1u << 22))
        ptx_error(&parser->lexer, &parser->lexer.token, "more than 4 million constants");
    uint32_t old = parser->constant_capacity;
    m->constants = ptx_grow(parser, m->constants, m->constant_count, &parser->constant_capacity,
                            sizeof(uint64_t));
    if (old != parser->constant_capacity) {
        uint8_t *width = ptx_need(parser, parser->constant_capacity);
        if (old)
            memcpy(width, parser->constant_width, m->constant_count);
        parser->constant_width = width;
    }
    m->constants[m->constant_count] = value;
    parser->constant_width[m->constant_count] = (uint8_t)bytes;
    return m->constant_count++;
}

static uint32_t constant_code(uint32_t slot)
{
    return slot << 8 | VN_CONSTANT;
}

uint32_t ptx_constant(struct ptx_parser *parser, uint64_t value, unsigned bytes)
{
    struct vn_module *m = parser->module;
    if (bytes <= 4) {
        bytes = 4;
        value &= UINT32_MAX;
    }
    if (!parser->constant_table || m->constant_count * 2 > parser->constant_table_size) {
        uint32_t size = parser->constant_table ? parser->constant_table_size * 2 : 1024;
        uint32_t *table = ptx_need(parser, size * sizeof *table);
        for (uint32_t i = 0; i < m->constant_count; i++) {
            if (parser->constant_width[i] > 8)
                continue;
            uint64_t h = (m->constants[i] + parser->constant_width[i]) * 0x9e3779b97f4a7c15u;
            uint32_t at = (uint32_t)(h >> 32);
            while (table[at & (size - 1)])
                at++;
            table[at & (size - 1)] = i + 1;
        }
        parser->constant_table = table;
        parser->constant_table_size = size;
    }
    uint64_t h = (value + bytes) * 0x9e3779b97f4a7c15u;
    uint32_t at = (uint32_t)(h >> 32), mask = parser->constant_table_size - 1;
    for (uint32_t i; (i = parser->constant_table[at & mask]); at++) {
        if (m->constants[i - 1] == value && parser->constant_width[i - 1] == bytes)
            return constant_code(i - 1);
    }
    uint32_t slot = new_constant(parser, value, bytes);
    parser->constant_table[at & mask] = slot + 1;
    return constant_code(slot);
}

/* Widths over 8 mark slots that wait for an address: they are not shared with plain values. */
uint32_t ptx_address(struct ptx_parser *parser, uint32_t symbol, int64_t addend, bool generic,
                     unsigned bytes)
{
    struct vn_module *m = parser->module;
    uint32_t slot = new_constant(parser, bytes <= 4 ? 4 : 8, bytes <= 4 ? 32 : 64);
    *PTX_PUSH(parser, m->fixups, m->fixup_count, parser->fixup_capacity) =
        (struct vn_fixup){.slot = slot, .symbol = symbol, .addend = addend, .generic = generic};
    return constant_code(slot);
}

uint32_t ptx_temp(struct ptx_parser *parser, unsigned bytes)
{
    struct ptx_body *b = &parser->body;
    uint32_t *ids = bytes > 4 ? &b->ids64 : &b->ids32;
    if (*ids >= (1u << 20))
        ptx_error(&parser->lexer, &parser->lexer.token,
                  "more than 1048576 registers are used in a function");
    return (*ids)++ << 7 | (bytes > 4 ? VN_R64 : VN_R32);
}

/* Of a predicate: its number. */
uint32_t ptx_register(struct ptx_parser *parser, struct ptx_decl *decl, uint32_t index)
{
    uint32_t *id = &decl->ids[index];
    if (!*id) {
        if (decl->type == PTX_PRED) {
            if (parser->body.preds >= VN_NO_PRED - 8)
                ptx_error(&parser->lexer, &parser->lexer.token,
                          "more than 65527 predicates are used in a function");
            *id = ++parser->body.preds;
        } else {
            *id = ptx_temp(parser, ptx_types[decl->type].bytes) + 1;
        }
    }
    return *id - 1;
}

/* The place that `#line` markers give the current statement: they win over .loc. */
static uint32_t marked_source(struct ptx_parser *parser, uint32_t line)
{
    struct vn_module *m = parser->module;
    struct ptx_lexer *lexer = &parser->lexer;
    if (!lexer->source_line || !lexer->source_file || line < lexer->source_at)
        return parser->body.source;
    uint32_t at = lexer->source_line + (line - lexer->source_at);
    const struct vn_source *last = &m->sources[m->source_count - 1];
    if (parser->marked_text == lexer->source_file && last->line == at &&
        last->file == (parser->marked_file | PTX_FILE_INDEX))
        return m->source_count - 1;
    if (parser->marked_text != lexer->source_file) {
        uint32_t old = parser->file_capacity;
        m->files =
            ptx_grow(parser, m->files, m->file_count, &parser->file_capacity, sizeof *m->files);
        if (old != parser->file_capacity) {
            uint32_t *numbers = ptx_need(parser, parser->file_capacity * sizeof *numbers);
            if (old)
                memcpy(numbers, parser->file_numbers, m->file_count * sizeof *numbers);
            parser->file_numbers = numbers;
        }
        char *name = ptx_strndup(parser->arena, lexer->source_file, lexer->source_length);
        if (!name)
            ptx_error(lexer, &lexer->token, "out of memory");
        parser->file_numbers[m->file_count] = UINT32_MAX;
        parser->marked_text = lexer->source_file;
        parser->marked_file = m->file_count;
        m->files[m->file_count++] = name;
    }
    *PTX_PUSH(parser, m->sources, m->source_count, parser->source_capacity) =
        (struct vn_source){.file = parser->marked_file | PTX_FILE_INDEX, .line = at};
    return m->source_count - 1;
}

struct vn_insn *ptx_emit(struct ptx_parser *parser, const struct ptx_statement *s, uint32_t op)
{
    struct ptx_body *b = &parser->body;
    if (op >= VN_OP_COUNT)
        ptx_error(&parser->lexer, s ? &s->opcode : &parser->lexer.token,
                  "internal: no op for this instruction");
    if (b->insn_count >= (1u << 22))
        ptx_error(&parser->lexer, &parser->lexer.token, "function is too long");
    uint32_t old = b->insn_capacity;
    b->insns = ptx_grow(parser, b->insns, b->insn_count, &b->insn_capacity, sizeof *b->insns);
    if (old != b->insn_capacity) {
        uint32_t *writes = ptx_need(parser, b->insn_capacity * sizeof *writes);
        uint32_t *reads = ptx_need(parser, b->insn_capacity * sizeof *reads);
        if (old) {
            memcpy(writes, b->pool_writes, b->insn_count * sizeof *writes);
            memcpy(reads, b->pool_reads, b->insn_count * sizeof *reads);
        }
        b->pool_writes = writes;
        b->pool_reads = reads;
    }
    struct vn_insn *i = &b->insns[b->insn_count++];
    *i = (struct vn_insn){.op = (uint16_t)op,
                          .guard = VN_NO_PRED,
                          .cls = vn_ops[op].cls,
                          .vec = 1,
                          .d = VN_NONE,
                          .a = VN_NONE,
                          .b = VN_NONE,
                          .c = VN_NONE,
                          .p = VN_NO_PRED,
                          .q = VN_NO_PRED,
                          .source = b->source};
    i->line = s ? s->opcode.line : parser->lexer.token.line;
    i->source = marked_source(parser, i->line);
    if (s && s->guarded) {
        i->guard = s->guard;
        i->flags |= s->guard_negated ? VN_GUARD_NEGATED : 0;
    }
    return i;
}

/* Gives the last instruction a list of operand codes: those it writes, then those it reads. */
uint32_t ptx_pool(struct ptx_parser *parser, const uint32_t *codes, uint32_t writes, uint32_t reads)
{
    struct ptx_body *b = &parser->body;
    uint32_t at = b->pool_count;
    for (uint32_t i = 0; i < writes + reads; i++)
        *PTX_PUSH(parser, b->pool, b->pool_count, b->pool_capacity) = codes[i];
    b->pool_writes[b->insn_count - 1] = writes;
    b->pool_reads[b->insn_count - 1] = reads;
    b->insns[b->insn_count - 1].pool = at;
    return at;
}

uint32_t ptx_symbol(struct ptx_parser *parser, const char *name, enum vn_symbol_kind kind,
                    enum vn_space space, uint32_t index)
{
    struct vn_module *m = parser->module;
    *PTX_PUSH(parser, m->symbols, m->symbol_count, parser->symbol_capacity) =
        (struct vn_symbol){.name = name, .kind = kind, .space = space, .index = index};
    return m->symbol_count - 1;
}
