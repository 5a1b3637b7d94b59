/* The text of a code object, decoded; and what kernel descriptors say. */
#include <stdlib.h>

#include "exec.h"

struct va_code *va_code_create(uint64_t address, uint64_t bytes)
{
    struct va_code *code = calloc(1, sizeof *code);
    uint64_t words = bytes / 4;
    if (!code || (address | bytes) & 3 || !words || words > UINT32_MAX) {
        free(code);
        return NULL;
    }
    code->insns = malloc(words * sizeof *code->insns);
    if (!code->insns) {
        free(code);
        return NULL;
    }
    atomic_init(&code->references, 1);
    code->address = address;
    code->bytes = bytes;
    code->isa = va_isa_choose();
    const uint32_t *text = (const uint32_t *)(uintptr_t)address;
    for (uint64_t k = 0; k < words; k++) {
        struct va_insn *i = &code->insns[k];
        const char *why;
        va_decode(text + k, words - k, i, &why);
        if (i->op == VA_NO_OP || !code->isa->bind(i))
            i->run = va_not_implemented;
    }
    return code;
}

struct va_code *va_code_retain(struct va_code *code)
{
    atomic_fetch_add(&code->references, 1);
    return code;
}

void va_code_release(struct va_code *code)
{
    if (!code || atomic_fetch_sub(&code->references, 1) != 1)
        return;
    vr_unload(code);
    free(code->insns);
    free(code);
}

void va_kernel_registers(const struct va_kernel *kernel, struct va_registers *r)
{
    r->total = ((kernel->rsrc1 & 63) + 1) * 8;
    r->sgprs = ((kernel->rsrc1 >> 7 & 7) + 1) * 16;
    uint32_t offset = ((kernel->rsrc3 & 63) + 1) * 4;
    r->vgprs = offset < r->total ? offset : r->total;
    r->agprs = r->total - r->vgprs;
    r->vgprs = r->vgprs > 256 ? 256 : r->vgprs;
    r->agprs = r->agprs > 256 ? 256 : r->agprs;
}

const char *va_class_name(enum va_class c)
{
    static const char *const names[] = {
#define C(id, name) [VA_CLASS_##id] = name,
#include "../classes.def"
#undef C
    };
    return (unsigned)c < VA_CLASS_COUNT ? names[c] : "?";
}
