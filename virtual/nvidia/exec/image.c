/* A module in a context: addresses known, handlers chosen. */
#include <stdio.h>
#include <stdlib.h>

#include "exec.h"

static uint64_t symbol_address(const struct vn_image *image, const struct vn_symbol *s)
{
    if (s->kind == VN_SYMBOL_FUNCTION)
        return VN_CODE_WINDOW + ((uint64_t)s->index << 4);
    if (s->space == VN_SHARED)
        return s->shared_offset;
    return image->addresses[s->index];
}

static void fill_constants(struct vn_image *image)
{
    const struct vn_module *m = image->module;
    for (uint32_t i = 0; i < m->constant_count; i++) {
        uint64_t v = m->constants[i];
        uint8_t *slot = image->constants + (size_t)i * 256;
        if (m->constant_widths[i] == 4) {
            for (int l = 0; l < 64; l++)
                ((uint32_t *)(void *)slot)[l] = (uint32_t)v;
        } else {
            for (int l = 0; l < 32; l++)
                ((uint64_t *)(void *)slot)[l] = v;
        }
    }
    for (uint32_t i = 0; i < m->fixup_count; i++) {
        const struct vn_fixup *f = &m->fixups[i];
        uint64_t v = symbol_address(image, &m->symbols[f->symbol]) + (uint64_t)f->addend;
        uint8_t *slot = image->constants + (size_t)f->slot * 256;
        if (m->constants[f->slot] == 4) {
            for (int l = 0; l < 64; l++)
                ((uint32_t *)(void *)slot)[l] = (uint32_t)v;
        } else {
            for (int l = 0; l < 32; l++)
                ((uint64_t *)(void *)slot)[l] = v;
        }
    }
}

static void fill_variables(struct vn_image *image)
{
    const struct vn_module *m = image->module;
    for (uint32_t i = 0; i < m->variable_count; i++) {
        const struct vn_data *d = &m->variables[i];
        uint8_t *to = (uint8_t *)(uintptr_t)image->addresses[i];
        if (!d->info.size)
            continue;
        if (d->contents)
            memcpy(to, d->contents,
                   d->contents_size < d->info.size ? d->contents_size : d->info.size);
        for (uint32_t k = 0; k < d->initialiser_count; k++) {
            const struct vn_initialiser *in = &d->initialisers[k];
            const struct vn_symbol *s = &m->symbols[in->symbol];
            uint64_t v = (symbol_address(image, s) + (uint64_t)in->addend) >> in->shift;
            if (in->generic && s->space == VN_SHARED)
                v = (symbol_address(image, s) + VN_SHARED_WINDOW + (uint64_t)in->addend) >>
                    in->shift;
            memcpy(to + in->offset, &v, in->bytes < 8 ? in->bytes : 8);
        }
    }
}

static bool resolved(const struct vn_module *m, struct vn_diagnostic *diagnostic)
{
    for (uint32_t i = 0; i < m->variable_count; i++) {
        if (m->variables[i].external) {
            snprintf(diagnostic->text, sizeof diagnostic->text, "unresolved extern variable '%s'",
                     m->variables[i].info.name);
            return false;
        }
    }
    for (uint32_t f = 0; f < m->function_count; f++) {
        const struct vn_code *code = &m->functions[f];
        for (uint32_t i = 0; i < code->insn_count; i++) {
            if (code->insns[i].op != VN_OP_call)
                continue;
            const struct vn_code *callee = &m->functions[code->insns[i].imm];
            if (!callee->info.defined) {
                diagnostic->line = code->insns[i].line;
                snprintf(diagnostic->text, sizeof diagnostic->text,
                         "unresolved extern function '%s'", callee->info.name);
                return false;
            }
        }
    }
    return true;
}

/* ---- bare mul and add pairs ---- */

static const struct {
    uint16_t mul, add, sub, fma, fms, fnma;
} fusible[] = {
    {VN_OP_mul_f32, VN_OP_add_f32, VN_OP_sub_f32, VN_OP_fma_f32, VN_OP_fms_f32, VN_OP_fnma_f32},
    {VN_OP_mul_ftz_f32, VN_OP_add_ftz_f32, VN_OP_sub_ftz_f32, VN_OP_fma_ftz_f32, VN_OP_fms_ftz_f32,
     VN_OP_fnma_ftz_f32},
    {VN_OP_mul_f64, VN_OP_add_f64, VN_OP_sub_f64, VN_OP_fma_f64, VN_OP_fms_f64, VN_OP_fnma_f64},
};

static bool ends_straight_line(uint16_t op)
{
    return vn_ops[op].cls == VN_CLASS_CONTROL || vn_ops[op].cls == VN_CLASS_BARRIER;
}

/* Whether the instruction may write one of the registers. Lists are taken to: they are rare here.
 */
static bool writes(const struct vn_insn *i, uint32_t a, uint32_t b, uint32_t c)
{
    return i->d == a || i->d == b || i->d == c || i->vec > 1 || i->op == VN_OP_mma ||
           i->op == VN_OP_ldmatrix || i->op == VN_OP_wmma_load;
}

/* The add becomes an fma of the mul's operands; the mul stays, for others that may use its product.
 */
static bool fuse_at(struct vn_insn *insns, uint32_t count, uint32_t at, const uint8_t *target)
{
    struct vn_insn *m = &insns[at];
    for (size_t k = 0; k < sizeof fusible / sizeof *fusible; k++) {
        if (m->op != fusible[k].mul || !m->mode || m->guard != VN_NO_PRED || m->d == m->a ||
            m->d == m->b)
            continue;
        for (uint32_t n = at + 1; n < count && !target[n]; n++) {
            struct vn_insn *i = &insns[n];
            bool add = i->op == fusible[k].add, sub = i->op == fusible[k].sub;
            if ((add || sub) && i->mode && (i->a == m->d) != (i->b == m->d)) {
                bool first = i->a == m->d;
                i->c = first ? i->b : i->a;
                i->op = add ? fusible[k].fma : first ? fusible[k].fms : fusible[k].fnma;
                i->a = m->a;
                i->b = m->b;
                i->mode = 0;
                return true;
            }
            if (ends_straight_line(i->op) || writes(i, m->a, m->b, m->d))
                break;
        }
    }
    return false;
}

/* Whether the group of lanes may be another one behind the instruction. */
static bool ends_run(const struct vn_insn *i)
{
    switch (vn_ops[i->op].cls) {
    case VN_CLASS_CONTROL:
    case VN_CLASS_BARRIER:
    case VN_CLASS_SHUFFLE:
    case VN_CLASS_MATRIX:
        return true;
    default:
        return i->op == VN_OP_yield || i->op == VN_OP_ldmatrix || i->op == VN_OP_stmatrix ||
               i->op == VN_OP_wmma_load || i->op == VN_OP_wmma_store;
    }
}

/* Whether the access is one that has a short way in memory_fast.c. */
static bool moves_whole(const struct vn_code *code, const struct vn_insn *i)
{
    uint32_t reg = vn_ops[i->op].cls == VN_CLASS_STORE ? i->b : i->d;
    bool wide = (reg & VN_FILE_MASK) == VN_R64;
    switch (i->op) {
    case VN_OP_ld_global_32:
    case VN_OP_ld_generic_32:
    case VN_OP_st_global_32:
    case VN_OP_st_generic_32:
        return i->vec == 1 && !wide && !(i->flags & VN_SIGNED);
    case VN_OP_ld_global_64:
    case VN_OP_ld_generic_64:
    case VN_OP_st_global_64:
    case VN_OP_st_generic_64:
        return i->vec == 1 && wide;
    case VN_OP_ld_shared_32:
    case VN_OP_st_shared_32:
        for (uint32_t k = 0; k < i->vec; k++)
            wide |= i->vec > 1 && (code->pool[i->pool + k] & VN_FILE_MASK) == VN_R64;
        return !wide && !(i->flags & VN_SIGNED);
    default:
        return false;
    }
}

/* What is known when the instruction set is: handlers, runs, and the trap behind the end. */
static void finish(const struct vn_image *image, const struct vn_code *code, struct vn_insn *insns)
{
    uint32_t count = code->insn_count;
    insns[count] = (struct vn_insn){.op = VN_OP_trap, .guard = VN_NO_PRED};
    vn_mark_guesses(image, insns, count);
    for (uint32_t i = count + 1; i-- > 0;) {
        insns[i].fn = image->isa->handlers[insns[i].op];
        insns[i].flags |= moves_whole(code, &insns[i]) ? VN_WHOLE : 0;
        insns[i].run = ends_run(&insns[i]) ? 1 : insns[i + 1].run + 1;
    }
}

/* A second version of the function in which bare pairs are fused, or NULL if there are none. */
static struct vn_insn *fused(const struct vn_image *image, const struct vn_code *code)
{
    size_t bytes = (size_t)(code->insn_count + 1) * sizeof(struct vn_insn);
    struct vn_insn *insns = aligned_alloc(64, bytes);
    uint8_t *target = calloc((size_t)code->insn_count + 1, 1);
    bool any = false;
    if (insns && target) {
        memcpy(insns, code->insns, bytes - sizeof(struct vn_insn));
        for (uint32_t i = 0; i < code->insn_count; i++) {
            if (insns[i].op == VN_OP_bra)
                target[insns[i].imm] = 1;
        }
        for (uint32_t i = 0; i < code->target_count; i++)
            target[code->targets[i]] = 1;
        for (uint32_t i = 0; i < code->insn_count; i++)
            any |= fuse_at(insns, code->insn_count, i, target);
        finish(image, code, insns);
    }
    free(target);
    if (!any) {
        free(insns);
        return NULL;
    }
    return insns;
}

struct vn_image *vn_image_create(struct vn_module *module, struct vc_map *map,
                                 const uint64_t *addresses, struct vn_diagnostic *diagnostic)
{
    struct vn_diagnostic ignored;
    struct vn_diagnostic *d = diagnostic ? diagnostic : &ignored;
    *d = (struct vn_diagnostic){0};
    if (!resolved(module, d))
        return NULL;
    struct vn_image *image = calloc(1, sizeof *image);
    if (!image)
        goto memory;
    image->map = map;
    image->isa = vn_isa_choose();
    image->addresses = calloc(module->variable_count + 1, sizeof *image->addresses);
    image->constants = aligned_alloc(256, ((size_t)module->constant_count + 1) * 256);
    image->code = calloc(module->function_count + 1, sizeof *image->code);
    vn_module_retain(module);
    image->module = module;
    if (!image->addresses || !image->constants || !image->code)
        goto memory;
    for (uint32_t i = 0; i < module->variable_count; i++)
        image->addresses[i] = addresses[i];
    fill_constants(image);
    fill_variables(image);
    for (uint32_t f = 0; f < module->function_count; f++) {
        const struct vn_code *code = &module->functions[f];
        if (!code->info.defined)
            continue;
        image->code[f].insns =
            aligned_alloc(64, (size_t)(code->insn_count + 1) * sizeof(struct vn_insn));
        if (!image->code[f].insns)
            goto memory;
        memcpy(image->code[f].insns, code->insns,
               (size_t)code->insn_count * sizeof(struct vn_insn));
        finish(image, code, image->code[f].insns);
        image->code[f].fused = fused(image, code);
    }
    return image;
memory:
    snprintf(d->text, sizeof d->text, "out of memory");
    vn_image_destroy(image);
    return NULL;
}

void vn_image_destroy(struct vn_image *image)
{
    if (!image)
        return;
    vr_unload(image);
    for (uint32_t f = 0; image->code && f < image->module->function_count; f++) {
        free(image->code[f].insns);
        free(image->code[f].fused);
    }
    vn_maps_destroy(atomic_load(&image->spare));
    free(image->code);
    free(image->constants);
    free(image->addresses);
    vn_module_release(image->module);
    free(image);
}
