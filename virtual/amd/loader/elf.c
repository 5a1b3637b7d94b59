/* elf.c: an ELF code object: segments, symbols, relocations, kernel descriptors. */
#include <stdlib.h>
#include <string.h>

#include "loader.h"

/* The parts of the ELF standard and of LLVM's AMDGPU usage guide that a code object needs. */
struct elf_header {
    uint8_t ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, programs, sections;
    uint32_t flags;
    uint16_t size, program_size, program_count, section_size, section_count, section_names;
};
struct elf_program {
    uint32_t type, flags;
    uint64_t offset, address, physical, file_bytes, memory_bytes, align;
};
struct elf_dynamic {
    uint64_t tag, value;
};
struct elf_symbol {
    uint32_t name;
    uint8_t info, other;
    uint16_t section;
    uint64_t value, size;
};
struct elf_rela {
    uint64_t offset, info, addend;
};
struct elf_note {
    uint32_t name_bytes, bytes, type;
};

enum {
    ELF_DYN = 3,
    ELF_AMDGPU = 224,
    OSABI_HSA = 64,
    P_LOAD = 1,
    P_DYNAMIC = 2,
    P_NOTE = 4,
    P_EXECUTE = 1,
    NOTE_METADATA = 32,
    D_PLTRELSZ = 2,
    D_HASH = 4,
    D_STRTAB = 5,
    D_SYMTAB = 6,
    D_RELA = 7,
    D_RELASZ = 8,
    D_STRSZ = 10,
    D_GNU_HASH = 0x6ffffef5,
    SYMBOL_OBJECT = 1,
    SYMBOL_FUNCTION = 2,
    SECTION_ABSOLUTE = 0xfff1,
    MACHINE_MASK = 0xff,
    MACHINE_GFX942 = 0x4c,
    MACHINE_GFX9_4_GENERIC = 0x5f,
    XNACK_ON = 0x300,
    XNACK_MASK = 0x300,
    SRAMECC_OFF = 0x800,
    SRAMECC_MASK = 0xc00,
    DESCRIPTOR_BYTES = 64,
    MAX_SYMBOLS = 1 << 20,
};
static const uint64_t max_span = (uint64_t)1 << 30;

/* R_AMDGPU_*: S symbol, A addend, P place, B where the image is. */
enum {
    R_ABS32_LO = 1,   /* S + A */
    R_ABS32_HI = 2,   /* S + A, its high half */
    R_ABS64 = 3,      /* S + A */
    R_REL32 = 4,      /* S + A - P */
    R_REL64 = 5,      /* S + A - P */
    R_ABS32 = 6,      /* S + A */
    R_REL32_LO = 10,  /* S + A - P */
    R_REL32_HI = 11,  /* S + A - P, its high half */
    R_RELATIVE64 = 13 /* B + A */
};

static const struct {
    uint32_t machine;
    const char *name;
} targets[] = {
    {0x2c, "gfx900"},  {0x2d, "gfx902"},  {0x2e, "gfx904"},  {0x2f, "gfx906"},
    {0x30, "gfx908"},  {0x31, "gfx909"},  {0x32, "gfx90c"},  {0x33, "gfx1010"},
    {0x34, "gfx1011"}, {0x35, "gfx1012"}, {0x36, "gfx1030"}, {0x37, "gfx1031"},
    {0x38, "gfx1032"}, {0x39, "gfx1033"}, {0x3d, "gfx1035"}, {0x3e, "gfx1034"},
    {0x3f, "gfx90a"},  {0x40, "gfx940"},  {0x41, "gfx1100"}, {0x42, "gfx1013"},
    {0x43, "gfx1150"}, {0x44, "gfx1103"}, {0x45, "gfx1036"}, {0x46, "gfx1101"},
    {0x47, "gfx1102"}, {0x48, "gfx1200"}, {0x4a, "gfx1151"}, {0x4b, "gfx941"},
    {0x4c, "gfx942"},  {0x4e, "gfx1201"}, {0x4f, "gfx950"},  {0x5f, "gfx9-4-generic"},
};

const char *vl_target_name(uint32_t machine)
{
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (targets[i].machine == machine)
            return targets[i].name;
    return NULL;
}

/* ---- bounded reads ---- */

/* n bytes of the file at an offset; NULL: not all there. */
static const uint8_t *file_at(const struct vl_code *code, uint64_t offset, uint64_t n)
{
    const struct vl_code_private *p = code->p;
    return offset <= p->file_size && n <= p->file_size - offset ? p->file + offset : NULL;
}

static bool read_file(const struct vl_code *code, uint64_t offset, void *to, size_t n)
{
    const uint8_t *from = file_at(code, offset, n);
    if (from)
        memcpy(to, from, n);
    return from != NULL;
}

/* n bytes of the image at an address that the file has; NULL: none, or zeros that it has not. */
static const uint8_t *image_at(const struct vl_code *code, uint64_t address, uint64_t n)
{
    for (size_t i = 0; i < code->p->segment_count; i++) {
        const struct vl_segment *s = &code->p->segments[i];
        if (address >= s->at && address - s->at <= s->bytes && n <= s->bytes - (address - s->at))
            return file_at(code, s->file_at + (address - s->at), n);
    }
    return NULL;
}

/* ---- header and segments ---- */

static bool check_target(struct vl_code *code, const struct elf_header *h, const char *device,
                         bool *wrong_target, char why[static VL_WHY])
{
    uint32_t machine = h->flags & MACHINE_MASK;
    const char *name = vl_target_name(machine);
    bool xnack = (h->flags & XNACK_MASK) == XNACK_ON;
    bool no_ecc = (h->flags & SRAMECC_MASK) == SRAMECC_OFF;
    if (name)
        strcpy(code->target, name);
    else
        strcpy(code->target, "an unknown processor");
    if (xnack)
        strcat(code->target, ":xnack+");
    if (no_ecc)
        strcat(code->target, ":sramecc-");
    bool same = machine == MACHINE_GFX9_4_GENERIC || (name && !strcmp(name, device));
    if (same && !xnack && !no_ecc)
        return true;
    *wrong_target = true;
    return vl_say(why, "built for %s (machine 0x%x), device is %s:sramecc+:xnack-", code->target,
                  machine, device);
}

static bool check_header(struct vl_code *code, const struct elf_header *h, const char *device,
                         bool *wrong_target, char why[static VL_WHY])
{
    if (memcmp(h->ident, "\177ELF", 4))
        return vl_say(why, "it is no ELF file");
    if (h->ident[4] != 2 || h->ident[5] != 1)
        return vl_say(why, "it is no 64-bit little-endian ELF file (class %d, data %d)",
                      h->ident[4], h->ident[5]);
    if (h->machine != ELF_AMDGPU)
        return vl_say(why, "an ELF file for machine %d, not for AMDGPU (%d)", h->machine,
                      ELF_AMDGPU);
    if (h->ident[7] != OSABI_HSA)
        return vl_say(why, "the ELF file's OS ABI is %d, not AMDGPU_HSA (%d)", h->ident[7],
                      OSABI_HSA);
    if (h->type != ELF_DYN)
        return vl_say(why, "an ELF file of type %d: not linked (ld.lld -shared makes type %d)",
                      h->type, ELF_DYN);
    if (h->ident[8] < 2 || h->ident[8] > 4)
        return vl_say(why, "code object version %d: 4 to 6 are supported", h->ident[8] + 2);
    code->version = h->ident[8] + 2u;
    if (h->program_size != sizeof(struct elf_program))
        return vl_say(why, "program headers of %d bytes, not %zu", h->program_size,
                      sizeof(struct elf_program));
    return check_target(code, h, device, wrong_target, why);
}

static bool add_segment(struct vl_code *code, const struct elf_program *s, size_t index,
                        char why[static VL_WHY])
{
    if (s->file_bytes > s->memory_bytes || s->memory_bytes > max_span ||
        s->address > max_span - s->memory_bytes)
        return vl_say(why, "segment %zu: %llu bytes at 0x%llx: more than an image may have", index,
                      (unsigned long long)s->memory_bytes, (unsigned long long)s->address);
    if (!file_at(code, s->offset, s->file_bytes))
        return vl_say(why, "segment %zu: its bytes lie beyond the file's end", index);
    code->p->segments[code->p->segment_count++] =
        (struct vl_segment){s->address, s->file_bytes, s->offset};
    if (s->address + s->memory_bytes > code->span)
        code->span = s->address + s->memory_bytes;
    if (s->flags & P_EXECUTE) {
        code->text_at = s->address;
        code->text_size = s->memory_bytes;
    }
    return true;
}

static bool read_segments(struct vl_code *code, const struct elf_header *h,
                          struct elf_program *dynamic, char why[static VL_WHY])
{
    code->p->segments =
        calloc(h->program_count ? h->program_count : 1, sizeof code->p->segments[0]);
    if (!code->p->segments)
        return vl_say(why, "out of memory");
    for (uint16_t i = 0; i < h->program_count; i++) {
        struct elf_program s;
        if (h->programs > code->p->file_size ||
            !read_file(code, h->programs + (uint64_t)i * sizeof s, &s, sizeof s))
            return vl_say(why, "program header %d lies beyond the file's end", i);
        if (s.type == P_LOAD && !add_segment(code, &s, i, why))
            return false;
        if (s.type == P_DYNAMIC)
            *dynamic = s;
    }
    if (!code->span || !code->text_size)
        return vl_say(why, "the code object has no executable segment");
    code->align = 4096;
    return true;
}

/* ---- notes ---- */

static uint64_t round4(uint64_t n)
{
    return (n + 3) & ~(uint64_t)3;
}

/* The metadata in a segment of notes; NULL: not there. */
static const uint8_t *find_metadata(const struct vl_code *code, const struct elf_program *s,
                                    size_t *size)
{
    uint64_t at = s->offset;
    struct elf_note note;
    if (!file_at(code, s->offset, s->file_bytes))
        return NULL;
    uint64_t end = s->offset + s->file_bytes;
    while (end - at >= sizeof note && read_file(code, at, &note, sizeof note)) {
        uint64_t name = at + sizeof note, bytes = name + round4(note.name_bytes);
        if (bytes > end || note.bytes > end - bytes)
            return NULL;
        if (note.type == NOTE_METADATA && note.name_bytes == 7 &&
            !memcmp(code->p->file + name, "AMDGPU", 7)) {
            *size = note.bytes;
            return code->p->file + bytes;
        }
        at = bytes + round4(note.bytes);
        if (at > end)
            return NULL;
    }
    return NULL;
}

static bool read_metadata(struct vl_code *code, const struct elf_header *h, char ***symbols,
                          char why[static VL_WHY])
{
    for (uint16_t i = 0; i < h->program_count; i++) {
        struct elf_program s;
        size_t size;
        if (!read_file(code, h->programs + (uint64_t)i * sizeof s, &s, sizeof s))
            break;
        const uint8_t *bytes = s.type == P_NOTE ? find_metadata(code, &s, &size) : NULL;
        if (bytes)
            return vl_metadata_read(code, bytes, size, symbols, why);
    }
    return vl_say(why, "the code object has no metadata note (AMDGPU, type %d)", NOTE_METADATA);
}

/* ---- the dynamic section ---- */

struct tables {
    uint64_t symbols, strings, string_bytes, hash, gnu_hash, rela, rela_bytes;
    uint32_t symbol_count;
};

static bool read_dynamic(const struct vl_code *code, const struct elf_program *dynamic,
                         struct tables *t, char why[static VL_WHY])
{
    for (uint64_t at = 0; at + sizeof(struct elf_dynamic) <= dynamic->file_bytes;
         at += sizeof(struct elf_dynamic)) {
        struct elf_dynamic d;
        if (!read_file(code, dynamic->offset + at, &d, sizeof d))
            return vl_say(why, "the dynamic section lies beyond the file's end");
        switch (d.tag) {
        case 0:
            return true;
        case D_HASH:
            t->hash = d.value;
            break;
        case D_GNU_HASH:
            t->gnu_hash = d.value;
            break;
        case D_STRTAB:
            t->strings = d.value;
            break;
        case D_STRSZ:
            t->string_bytes = d.value;
            break;
        case D_SYMTAB:
            t->symbols = d.value;
            break;
        case D_RELA:
            t->rela = d.value;
            break;
        case D_RELASZ:
            t->rela_bytes = d.value;
            break;
        case D_PLTRELSZ:
            if (d.value)
                return vl_say(why, "the code object wants functions of other objects (PLT)");
            break;
        default:
            break;
        }
    }
    return true;
}

static bool read_u32(const struct vl_code *code, uint64_t address, uint32_t *value)
{
    const uint8_t *at = image_at(code, address, 4);
    if (at)
        memcpy(value, at, 4);
    return at != NULL;
}

/* The GNU hash table does not say how many symbols there are: the chain of the last bucket ends
 * with the last. */
static bool count_gnu(const struct vl_code *code, uint64_t table, uint32_t *count)
{
    uint32_t buckets, first, bloom, last = 0, hash = 0;
    if (!read_u32(code, table, &buckets) || !read_u32(code, table + 4, &first) ||
        !read_u32(code, table + 8, &bloom) || buckets > MAX_SYMBOLS || bloom > MAX_SYMBOLS)
        return false;
    uint64_t at = table + 16 + 8 * (uint64_t)bloom, chains = at + 4 * (uint64_t)buckets;
    for (uint32_t i = 0; i < buckets; i++) {
        uint32_t bucket;
        if (!read_u32(code, at + 4 * (uint64_t)i, &bucket))
            return false;
        last = bucket > last ? bucket : last;
    }
    *count = first;
    if (last < first)
        return true;
    do
        if (!read_u32(code, chains + 4 * (uint64_t)(last - first), &hash))
            return false;
    while (last++ < MAX_SYMBOLS && !(hash & 1));
    *count = last;
    return true;
}

static bool count_symbols(const struct vl_code *code, struct tables *t, char why[static VL_WHY])
{
    bool fine = t->hash       ? read_u32(code, t->hash + 4, &t->symbol_count)
                : t->gnu_hash ? count_gnu(code, t->gnu_hash, &t->symbol_count)
                              : false;
    if (!fine || t->symbol_count > MAX_SYMBOLS ||
        !image_at(code, t->symbols, (uint64_t)t->symbol_count * sizeof(struct elf_symbol)))
        return vl_say(why, "the table of symbols is absent, or lies beyond the image");
    return true;
}

static bool read_symbol(const struct vl_code *code, const struct tables *t, uint64_t index,
                        struct elf_symbol *symbol, char why[static VL_WHY])
{
    const uint8_t *at = index < t->symbol_count
                            ? image_at(code, t->symbols + index * sizeof *symbol, sizeof *symbol)
                            : NULL;
    if (!at)
        return vl_say(why, "symbol %llu of %u", (unsigned long long)index, t->symbol_count);
    memcpy(symbol, at, sizeof *symbol);
    return true;
}

/* NULL: not a string of the table. */
static const char *symbol_name(const struct vl_code *code, const struct tables *t,
                               const struct elf_symbol *symbol)
{
    if (symbol->name >= t->string_bytes)
        return NULL;
    uint64_t room = t->string_bytes - symbol->name;
    const uint8_t *at = image_at(code, t->strings + symbol->name, room);
    return at && memchr(at, 0, room) ? (const char *)at : NULL;
}

/* ---- symbols ---- */

static bool read_descriptor(struct vl_code *code, struct vl_kernel *kernel,
                            const struct elf_symbol *symbol, char why[static VL_WHY])
{
    const uint8_t *at = image_at(code, symbol->value, DESCRIPTOR_BYTES);
    struct vl_descriptor *d = &kernel->descriptor;
    int64_t entry;
    uint16_t preload;
    if (!at || symbol->value % DESCRIPTOR_BYTES)
        return vl_say(why,
                      "kernel %.100s: its descriptor lies beyond the image, or not on a "
                      "multiple of 64 bytes",
                      kernel->name);
    memcpy(&d->group_segment, at, 4);
    memcpy(&d->private_segment, at + 4, 4);
    memcpy(&d->kernarg_size, at + 8, 4);
    memcpy(&entry, at + 16, 8);
    memcpy(&d->rsrc3, at + 44, 4);
    memcpy(&d->rsrc1, at + 48, 4);
    memcpy(&d->rsrc2, at + 52, 4);
    memcpy(&d->properties, at + 56, 2);
    memcpy(&preload, at + 58, 2);
    d->preload_length = preload & 127;
    d->preload_offset = preload >> 7;
    kernel->descriptor_at = symbol->value;
    kernel->entry = symbol->value + (uint64_t)entry;
    if (kernel->entry < code->text_at || kernel->entry - code->text_at >= code->text_size ||
        kernel->entry % 4)
        return vl_say(why,
                      "kernel %.100s: its code begins at 0x%llx, which is not in the "
                      "executable segment",
                      kernel->name, (unsigned long long)kernel->entry);
    if (((uint64_t)d->preload_offset + d->preload_length) * 4 > kernel->kernarg_size)
        return vl_say(why,
                      "kernel %.100s: %u dwords are preloaded, and its arguments have %u bytes",
                      kernel->name, d->preload_length, kernel->kernarg_size);
    return true;
}

static bool find_descriptors(struct vl_code *code, const struct tables *t, char **symbols,
                             char why[static VL_WHY])
{
    for (size_t k = 0; k < code->kernel_count; k++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): a kernel comes with its symbol */
        const char *wanted = symbols[k];
        struct elf_symbol symbol;
        bool found = false;
        for (uint32_t i = 1; i < t->symbol_count && !found; i++) {
            if (!read_symbol(code, t, i, &symbol, why))
                return false;
            const char *name = symbol_name(code, t, &symbol);
            found = symbol.section && name && !strcmp(name, wanted);
        }
        if (!found)
            return vl_say(why, "kernel %.100s: there is no symbol %.100s", code->kernels[k].name,
                          wanted);
        if (!read_descriptor(code, &code->p->kernels[k], &symbol, why))
            return false;
    }
    return true;
}

static bool is_descriptor(const char *name)
{
    size_t n = strlen(name);
    return n > 3 && !strcmp(name + n - 3, ".kd");
}

static bool read_variables(struct vl_code *code, const struct tables *t, char why[static VL_WHY])
{
    code->p->variables = calloc(t->symbol_count + 1u, sizeof code->p->variables[0]);
    if (!code->p->variables)
        return vl_say(why, "out of memory");
    code->variables = code->p->variables;
    for (uint32_t i = 1; i < t->symbol_count; i++) {
        struct elf_symbol s;
        if (!read_symbol(code, t, i, &s, why))
            return false;
        const char *name = symbol_name(code, t, &s);
        if (!name || (s.info & 15) != SYMBOL_OBJECT || !s.section ||
            s.section == SECTION_ABSOLUTE || is_descriptor(name))
            continue;
        if (s.value > code->span || s.size > code->span - s.value)
            return vl_say(why, "variable %.100s lies beyond the image", name);
        char *copy = vl_text(name, strlen(name));
        if (!copy)
            return vl_say(why, "out of memory");
        code->p->variables[code->variable_count++] = (struct vl_variable){copy, s.value, s.size};
    }
    return true;
}

/* ---- relocations ---- */

static uint64_t width_of(uint32_t type)
{
    switch (type) {
    case R_ABS64:
    case R_REL64:
    case R_RELATIVE64:
        return 8;
    case R_ABS32_LO:
    case R_ABS32_HI:
    case R_REL32:
    case R_ABS32:
    case R_REL32_LO:
    case R_REL32_HI:
        return 4;
    default:
        return 0;
    }
}

static bool read_relocation(struct vl_code *code, const struct tables *t, const struct elf_rela *r,
                            struct vl_relocation *out, char why[static VL_WHY])
{
    uint32_t type = (uint32_t)r->info;
    uint64_t width = width_of(type), index = r->info >> 32;
    *out = (struct vl_relocation){.at = r->offset, .addend = r->addend, .type = type};
    if (!width)
        return vl_say(why, "relocation type %u is not supported", type);
    if (r->offset > code->span || width > code->span - r->offset)
        return vl_say(why, "a relocation at 0x%llx lies beyond the image",
                      (unsigned long long)r->offset);
    if (type == R_RELATIVE64 || !index)
        return true;
    struct elf_symbol symbol;
    if (!read_symbol(code, t, index, &symbol, why))
        return false;
    const char *name = symbol_name(code, t, &symbol);
    if (!symbol.section)
        return vl_say(why, "symbol %.200s is not defined", name ? name : "?");
    out->absolute = symbol.section == SECTION_ABSOLUTE;
    out->symbol = symbol.value;
    return true;
}

static bool read_relocations(struct vl_code *code, const struct tables *t, char why[static VL_WHY])
{
    size_t count = t->rela_bytes / sizeof(struct elf_rela);
    if (!count)
        return true;
    const uint8_t *at = image_at(code, t->rela, t->rela_bytes);
    if (!at)
        return vl_say(why, "the relocations lie beyond the image");
    code->p->relocations = calloc(count, sizeof code->p->relocations[0]);
    if (!code->p->relocations)
        return vl_say(why, "out of memory");
    for (size_t i = 0; i < count; i++) {
        struct elf_rela r;
        memcpy(&r, at + i * sizeof r, sizeof r);
        if (!read_relocation(code, t, &r, &code->p->relocations[i], why))
            return false;
        code->p->relocation_count++;
    }
    return true;
}

static void relocate(const struct vl_relocation *r, uint8_t *to, uint64_t address)
{
    uint64_t value = r->addend + (r->absolute ? r->symbol : address + r->symbol);
    if (r->type == R_REL32 || r->type == R_REL64 || r->type == R_REL32_LO || r->type == R_REL32_HI)
        value -= address + r->at;
    if (r->type == R_ABS32_HI || r->type == R_REL32_HI)
        value >>= 32;
    memcpy(to + r->at, &value, width_of(r->type));
}

/* ---- the object ---- */

static bool parse(struct vl_code *code, const char *device, bool *wrong_target, char ***symbols,
                  char why[static VL_WHY])
{
    struct elf_header h;
    struct elf_program dynamic = {0};
    struct tables t = {0};
    if (!read_file(code, 0, &h, sizeof h))
        return vl_say(why, "%zu bytes are no ELF file", code->p->file_size);
    return check_header(code, &h, device, wrong_target, why) &&
           read_segments(code, &h, &dynamic, why) && read_metadata(code, &h, symbols, why) &&
           read_dynamic(code, &dynamic, &t, why) && count_symbols(code, &t, why) &&
           find_descriptors(code, &t, *symbols, why) && read_variables(code, &t, why) &&
           read_relocations(code, &t, why);
}

static void free_texts(char **texts, size_t count)
{
    for (size_t i = 0; texts && i < count; i++)
        free(texts[i]);
    free(texts);
}

struct vl_code *vl_code_parse(const void *elf, size_t size, const char *device, bool *wrong_target,
                              char why[static VL_WHY])
{
    struct vl_code *code = calloc(1, sizeof *code);
    char **symbols = NULL;
    *wrong_target = false;
    if (code)
        code->p = calloc(1, sizeof *code->p);
    if (code && code->p)
        code->p->file = malloc(size ? size : 1);
    if (!code || !code->p || !code->p->file) {
        vl_say(why, "out of memory");
        vl_code_free(code);
        return NULL;
    }
    memcpy(code->p->file, elf, size);
    code->p->file_size = size;
    bool fine = parse(code, device, wrong_target, &symbols, why);
    free_texts(symbols, code->p->kernel_room);
    if (!fine) {
        vl_code_free(code);
        return NULL;
    }
    vl_lines_read(&code->p->lines, code->p->file, size);
    return code;
}

void vl_code_free(struct vl_code *code)
{
    if (!code)
        return;
    struct vl_code_private *p = code->p;
    for (size_t i = 0; p && i < p->kernel_room; i++) {
        free((char *)p->kernels[i].name);
        free(p->args ? p->args[i] : NULL);
    }
    for (size_t i = 0; i < code->variable_count; i++)
        free((char *)p->variables[i].name);
    if (p) {
        free(p->file);
        free(p->segments);
        free(p->relocations);
        free(p->kernels);
        free(p->args);
        free(p->variables);
        vl_lines_free(&p->lines);
    }
    free(p);
    free(code);
}

void vl_code_place(const struct vl_code *code, void *to, uint64_t address)
{
    for (size_t i = 0; i < code->p->segment_count; i++) {
        const struct vl_segment *s = &code->p->segments[i];
        memcpy((uint8_t *)to + s->at, code->p->file + s->file_at, s->bytes);
    }
    for (size_t i = 0; i < code->p->relocation_count; i++)
        relocate(&code->p->relocations[i], to, address);
}

const struct vl_kernel *vl_code_kernel(const struct vl_code *code, const char *name)
{
    for (size_t i = 0; i < code->kernel_count; i++)
        if (!strcmp(code->kernels[i].name, name))
            return &code->kernels[i];
    return NULL;
}

const struct vl_variable *vl_code_variable(const struct vl_code *code, const char *name)
{
    for (size_t i = 0; i < code->variable_count; i++)
        if (!strcmp(code->variables[i].name, name))
            return &code->variables[i];
    return NULL;
}
