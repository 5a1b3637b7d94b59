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
            memcpy(to, d->contents, d->contents_size < d->info.size ? d->contents_size : d->info.size);
        for (uint32_t k = 0; k < d->initialiser_count; k++) {
            const struct vn_initialiser *in = &d->initialisers[k];
            const struct vn_symbol *s = &m->symbols[in->symbol];
            uint64_t v = (symbol_address(image, s) + (uint64_t)in->addend) >> in->shift;
            if (in->generic && s->space == VN_SHARED)
                v = (symbol_address(image, s) + VN_SHARED_WINDOW + (uint64_t)in->addend) >> in->shift;
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
    image->module = vn_module_retain(module);
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
        memcpy(image->code[f].insns, code->insns, (size_t)code->insn_count * sizeof(struct vn_insn));
        for (uint32_t i = 0; i < code->insn_count; i++)
            image->code[f].insns[i].fn = image->isa->handlers[code->insns[i].op];
        struct vn_insn *end = &image->code[f].insns[code->insn_count];
        *end = (struct vn_insn){.op = VN_OP_trap, .fn = image->isa->handlers[VN_OP_trap],
                                .guard = VN_NO_PRED};
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
    for (uint32_t f = 0; image->code && f < image->module->function_count; f++)
        free(image->code[f].insns);
    vn_maps_destroy(atomic_load(&image->spare));
    free(image->code);
    free(image->constants);
    free(image->addresses);
    vn_module_release(image->module);
    free(image);
}
