/* The end of a body: registers get places. Each virtual register lives from definition to last use
 * along the flow of a thread; those that do not meet share a slot, so that a warp's registers stay
 * in the caches. Correct for diverged warps, since a lane only ever touches its own column. */
#include <stdlib.h>
#include <string.h>

#include "../exec/ops.h"
#include "parser.h"

struct interval { /* of instructions, last exclusive */
    uint32_t first, last, reg;
};

struct flow {
    struct ptx_parser *parser;
    struct ptx_body *b;
    uint32_t regs, words, blocks;
    uint32_t *block_first; /* first instruction, by block; [blocks] = end */
    uint32_t *block_of;
    uint64_t *in, *use, *def;
    struct interval *intervals;
};

static bool is_register(uint32_t code)
{
    return code != VN_NONE && (code & VN_FILE_MASK) <= VN_R64;
}

/* Both files share one numbering. */
static uint32_t number(const struct ptx_body *b, uint32_t code)
{
    uint32_t n = code >> 7;
    return (code & VN_FILE_MASK) == VN_R64 ? b->ids32 + n : n;
}

typedef void (*visitor)(struct flow *f, uint32_t code, bool write, uint32_t at);

static void visit(struct flow *f, uint32_t at, visitor fn)
{
    struct ptx_body *b = f->b;
    struct vn_insn *i = &b->insns[at];
    uint32_t reads[3] = {i->a, i->b, i->c};
    for (int k = 0; k < 3; k++) {
        if (is_register(reads[k]))
            fn(f, reads[k], false, at);
    }
    uint32_t writes = b->pool_writes[at], all = writes + b->pool_reads[at];
    for (uint32_t k = writes; k < all; k++) {
        if (is_register(b->pool[i->pool + k]))
            fn(f, b->pool[i->pool + k], false, at);
    }
    struct vn_code *code = &f->parser->module->functions[b->function];
    if (i->op == VN_OP_ret) {
        for (uint32_t k = 0; k < code->return_chunk_count; k++)
            fn(f, code->return_chunks[k], false, at);
    }
    if (is_register(i->d))
        fn(f, i->d, true, at);
    for (uint32_t k = 0; k < writes; k++) {
        if (is_register(b->pool[i->pool + k]))
            fn(f, b->pool[i->pool + k], true, at);
    }
}

static void collect(struct flow *f, uint32_t code, bool write, uint32_t at)
{
    uint32_t n = number(f->b, code);
    uint64_t *use = f->use + (size_t)f->block_of[at] * f->words;
    uint64_t *def = f->def + (size_t)f->block_of[at] * f->words;
    uint64_t bit = (uint64_t)1 << (n & 63);
    if (!write) {
        if (!(def[n >> 6] & bit))
            use[n >> 6] |= bit;
    } else if (f->b->insns[at].guard == VN_NO_PRED) { /* a guarded write keeps the old value */
        def[n >> 6] |= bit;
    }
}

static uint32_t successors(struct flow *f, uint32_t block, uint32_t out[2], bool *table)
{
    struct ptx_body *b = f->b;
    struct vn_insn *last = &b->insns[f->block_first[block + 1] - 1];
    uint32_t n = 0;
    bool falls = true;
    *table = false;
    if (last->op == VN_OP_bra) {
        out[n++] = f->block_of[last->imm];
        falls = last->guard != VN_NO_PRED;
    } else if (last->op == VN_OP_brx) {
        *table = true;
        falls = last->guard != VN_NO_PRED;
    } else if (last->op == VN_OP_ret || last->op == VN_OP_exit || last->op == VN_OP_trap) {
        falls = last->guard != VN_NO_PRED;
    }
    if (falls && block + 1 < f->blocks)
        out[n++] = block + 1;
    return n;
}

static void find_blocks(struct flow *f)
{
    struct ptx_body *b = f->b;
    uint8_t *leader = ptx_need(f->parser, b->insn_count + 1);
    leader[0] = 1;
    for (uint32_t i = 0; i < b->insn_count; i++) {
        uint16_t op = b->insns[i].op;
        if (op == VN_OP_bra)
            leader[b->insns[i].imm] = 1;
        if (op == VN_OP_bra || op == VN_OP_brx || op == VN_OP_ret || op == VN_OP_exit ||
            op == VN_OP_trap)
            leader[i + 1] = 1;
    }
    for (uint32_t k = 0; k < b->target_count; k++)
        leader[b->targets[k]] = 1;
    f->block_of = ptx_need(f->parser, (b->insn_count + 1) * sizeof(uint32_t));
    for (uint32_t i = 0; i < b->insn_count; i++) {
        f->blocks += leader[i];
        f->block_of[i] = f->blocks - 1;
    }
    f->block_first = ptx_need(f->parser, (f->blocks + 1) * sizeof(uint32_t));
    for (uint32_t i = 0, n = 0; i < b->insn_count; i++) {
        if (leader[i])
            f->block_first[n++] = i;
    }
    f->block_first[f->blocks] = b->insn_count;
}

static void merge(struct flow *f, uint64_t *out, uint32_t block)
{
    const uint64_t *in = f->in + (size_t)block * f->words;
    for (uint32_t k = 0; k < f->words; k++)
        out[k] |= in[k];
}

static void live_out(struct flow *f, uint32_t block, uint64_t *out)
{
    memset(out, 0, f->words * 8);
    uint32_t next[2];
    bool table;
    uint32_t n = successors(f, block, next, &table);
    for (uint32_t k = 0; k < n; k++)
        merge(f, out, next[k]);
    if (table) {
        struct vn_insn *last = &f->b->insns[f->block_first[block + 1] - 1];
        for (uint32_t k = 0; k < last->pool; k++)
            merge(f, out, f->block_of[f->b->targets[last->imm + k]]);
    }
}

static void solve(struct flow *f)
{
    size_t bytes = (size_t)f->blocks * f->words * 8;
    f->in = ptx_need(f->parser, bytes);
    f->use = ptx_need(f->parser, bytes);
    f->def = ptx_need(f->parser, bytes);
    for (uint32_t i = 0; i < f->b->insn_count; i++)
        visit(f, i, collect);
    uint64_t *out = ptx_need(f->parser, f->words * 8);
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t block = f->blocks; block-- > 0;) {
            live_out(f, block, out);
            uint64_t *in = f->in + (size_t)block * f->words;
            const uint64_t *use = f->use + (size_t)block * f->words;
            const uint64_t *def = f->def + (size_t)block * f->words;
            for (uint32_t k = 0; k < f->words; k++) {
                uint64_t v = use[k] | (out[k] & ~def[k]);
                changed |= v != in[k];
                in[k] = v;
            }
        }
    }
}

static void touch(struct flow *f, uint32_t reg, uint32_t at)
{
    struct interval *v = &f->intervals[reg];
    if (at < v->first)
        v->first = at;
    if (at + 1 > v->last)
        v->last = at + 1;
}

static void touch_operand(struct flow *f, uint32_t code, bool write, uint32_t at)
{
    (void)write;
    touch(f, number(f->b, code), at);
}

static void touch_set(struct flow *f, const uint64_t *set, uint32_t at)
{
    for (uint32_t w = 0; w < f->words; w++) {
        for (uint64_t bits = set[w]; bits; bits &= bits - 1)
            touch(f, w * 64 + (uint32_t)__builtin_ctzll(bits), at);
    }
}

static int by_first(const void *x, const void *y)
{
    const struct interval *a = x, *b = y;
    return a->first != b->first ? (a->first < b->first ? -1 : 1) : (a->reg < b->reg ? -1 : 1);
}

static void find_intervals(struct flow *f)
{
    f->intervals = ptx_need(f->parser, (f->regs + 1) * sizeof *f->intervals);
    for (uint32_t r = 0; r < f->regs; r++)
        f->intervals[r] = (struct interval){.first = UINT32_MAX, .reg = r};
    uint64_t *out = ptx_need(f->parser, f->words * 8 + 8);
    for (uint32_t block = 0; block < f->blocks; block++) {
        touch_set(f, f->in + (size_t)block * f->words, f->block_first[block]);
        live_out(f, block, out);
        touch_set(f, out, f->block_first[block + 1] - 1);
    }
    for (uint32_t i = 0; i < f->b->insn_count; i++)
        visit(f, i, touch_operand);
    struct vn_code *code = &f->parser->module->functions[f->b->function];
    for (uint32_t k = 0; k < code->param_chunk_count; k++)
        touch(f, number(f->b, code->param_chunks[k]), 0);
}

struct slots { /* of one register file: which interval's end frees each, smallest end first */
    struct {
        uint32_t end, slot;
    } * heap;
    uint32_t count, total;
};

static uint32_t take_slot(struct slots *s, uint32_t first, uint32_t last)
{
    uint32_t slot, at;
    if (s->count && s->heap[0].end <= first) {
        slot = s->heap[0].slot;
        at = 0;
        for (;;) { /* sift down with the new end */
            uint32_t child = 2 * at + 1;
            if (child >= s->count)
                break;
            if (child + 1 < s->count && s->heap[child + 1].end < s->heap[child].end)
                child++;
            if (s->heap[child].end >= last)
                break;
            s->heap[at] = s->heap[child];
            at = child;
        }
    } else {
        slot = s->total++;
        at = s->count++;
        while (at && s->heap[(at - 1) / 2].end > last) {
            s->heap[at] = s->heap[(at - 1) / 2];
            at = (at - 1) / 2;
        }
    }
    s->heap[at].end = last;
    s->heap[at].slot = slot;
    return slot;
}

enum { MAX_SLOTS = 16384 };

static uint32_t *assign(struct flow *f, uint32_t *slots32, uint32_t *slots64)
{
    struct ptx_body *b = f->b;
    uint32_t *place = ptx_need(f->parser, (f->regs + 1) * sizeof *place);
    if ((uint64_t)f->blocks * f->words > (1u << 22)) { /* too large to be worth it */
        for (uint32_t r = 0; r < f->regs; r++)
            place[r] = r < b->ids32 ? r : r - b->ids32;
        *slots32 = b->ids32;
        *slots64 = b->ids64;
        return place;
    }
    solve(f);
    find_intervals(f);
    qsort(f->intervals, f->regs, sizeof *f->intervals, by_first);
    struct slots files[2] = {{0}};
    for (int k = 0; k < 2; k++)
        files[k].heap = ptx_need(f->parser, (f->regs + 1) * sizeof *files[k].heap);
    for (uint32_t n = 0; n < f->regs; n++) {
        const struct interval *v = &f->intervals[n];
        if (v->first == UINT32_MAX)
            continue;
        place[v->reg] = take_slot(&files[v->reg >= b->ids32], v->first, v->last);
    }
    *slots32 = files[0].total;
    *slots64 = files[1].total;
    return place;
}

static uint32_t placed(const struct ptx_body *b, const uint32_t *place, uint32_t code)
{
    if (!is_register(code))
        return code;
    uint32_t slot = place[number(b, code)];
    return (code & VN_FILE_MASK) == VN_R64 ? slot << 8 | VN_R64 : slot << 7 | VN_R32;
}

void ptx_finish_body(struct ptx_parser *parser)
{
    struct ptx_body *b = &parser->body;
    struct vn_code *code = &parser->module->functions[b->function];
    /* Running off the end is a return. */
    ptx_emit(parser, NULL, b->entry ? VN_OP_exit : VN_OP_ret);
    for (uint32_t k = 0; k < b->table_count; k++)
        memcpy(b->targets + b->tables[k].first, b->tables[k].decl->list,
               b->tables[k].decl->list_count * sizeof(uint32_t));
    struct flow f = {.parser = parser, .b = b, .regs = b->ids32 + b->ids64};
    f.words = (f.regs + 63) / 64;
    find_blocks(&f);
    uint32_t slots32, slots64;
    uint32_t *place = assign(&f, &slots32, &slots64);
    if (slots32 > MAX_SLOTS || slots64 > MAX_SLOTS)
        ptx_error(&parser->lexer, &parser->facts[b->function].token,
                  "'%s' keeps more than %d registers alive at once", code->info.name, MAX_SLOTS);
    for (uint32_t n = 0; n < b->insn_count; n++) {
        struct vn_insn *i = &b->insns[n];
        i->d = placed(b, place, i->d);
        i->a = placed(b, place, i->a);
        i->b = placed(b, place, i->b);
        i->c = placed(b, place, i->c);
    }
    for (uint32_t n = 0; n < b->pool_count; n++)
        b->pool[n] = placed(b, place, b->pool[n]);
    for (uint32_t n = 0; n < code->param_chunk_count; n++)
        code->param_chunks[n] = placed(b, place, code->param_chunks[n]);
    for (uint32_t n = 0; n < code->return_chunk_count; n++)
        code->return_chunks[n] = placed(b, place, code->return_chunks[n]);
    code->insns = b->insns;
    code->insn_count = b->insn_count;
    code->pool = b->pool;
    code->pool_count = b->pool_count;
    code->targets = b->targets;
    code->target_count = b->target_count;
    code->size32 = slots32 * 128;
    code->size64 = slots64 * 256;
    code->preds = b->preds;
    code->local_frame = (uint32_t)((b->local + 15) & ~(uint64_t)15);
    code->indirect = b->indirect;
    uint32_t registers = slots32 + 2 * slots64 + 2;
    code->info.registers = registers > 255 ? 255 : registers < 16 ? 16 : registers;
    struct ptx_function_facts *facts = &parser->facts[b->function];
    facts->shared_count = b->shared_count;
    facts->callees = b->callees;
    facts->callee_count = b->callee_count;
    facts->uses_module_shared = b->uses_module_shared;
    facts->local = b->local;
}
