/* bundle.c: which code object of an image is the device's: the image is one, or a bundle of several
 * that clang-offload-bundler made. */
#include <stdio.h>
#include <string.h>

#include "loader.h"

static const char bundle_magic[] = "__CLANG_OFFLOAD_BUNDLE__";
enum { MAGIC = sizeof bundle_magic - 1, ELF_HEADER = 64, MAX_ENTRIES = 4096, MAX_ID = 4096 };

static uint64_t read_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* An ELF file ends with the last of its tables, segments and sections. */
static size_t elf_size(const uint8_t *elf)
{
    uint64_t end = ELF_HEADER, programs = read_u64(elf + 32), sections = read_u64(elf + 40);
    uint16_t program_size, program_count, section_size, section_count;
    memcpy(&program_size, elf + 54, 2);
    memcpy(&program_count, elf + 56, 2);
    memcpy(&section_size, elf + 58, 2);
    memcpy(&section_count, elf + 60, 2);
    if (programs > 1 << 30 || sections > 1 << 30)
        return ELF_HEADER;
    end = later(end, programs + (uint64_t)program_size * program_count);
    if (sections)
        end = later(end, sections + (uint64_t)section_size * section_count);
    for (uint16_t i = 0; i < program_count && program_size == 56; i++) {
        const uint8_t *p = elf + programs + (uint64_t)i * program_size;
        end = later(end, read_u64(p + 8) + read_u64(p + 32));
    }
    for (uint16_t i = 0; sections && i < section_count && section_size == 64; i++) {
        const uint8_t *s = elf + sections + (uint64_t)i * section_size;
        uint32_t type;
        memcpy(&type, s + 4, 4);
        if (type != 8) /* NOBITS has no bytes */
            end = later(end, read_u64(s + 24) + read_u64(s + 32));
    }
    return end;
}

struct entry {
    uint64_t offset, size;
    const char *id;
    size_t id_size;
};

/* Reads entry at *at and moves it on; false: the bundle ends before. */
static bool next_entry(const uint8_t *image, size_t size, size_t *at, struct entry *entry)
{
    if (size - *at < 24)
        return false;
    uint64_t id_size = read_u64(image + *at + 16);
    entry->offset = read_u64(image + *at);
    entry->size = read_u64(image + *at + 8);
    if (id_size > MAX_ID || id_size > size - *at - 24)
        return false;
    entry->id = (const char *)image + *at + 24;
    entry->id_size = id_size;
    *at += 24 + id_size;
    return true;
}

static size_t bundle_size(const uint8_t *image)
{
    uint64_t count = read_u64(image + MAGIC);
    size_t at = MAGIC + 8, end;
    struct entry entry;
    if (count > MAX_ENTRIES)
        return MAGIC + 8;
    end = at;
    for (uint64_t i = 0; i < count; i++) {
        if (!next_entry(image, at + 24 + MAX_ID, &at, &entry))
            break;
        if (entry.offset < 1u << 31 && entry.size < 1u << 31)
            end = later(end, entry.offset + entry.size);
    }
    return later(end, at);
}

static bool known(const void *image, size_t size, char why[static VL_WHY])
{
    static const char compressed[] = "CCOB";
    if (size >= 4 && !memcmp(image, compressed, 4))
        return vl_say(why, "it is a compressed bundle (CCOB), which is not supported: build with "
                           "--no-offload-compress, or unpack it with clang-offload-bundler");
    return size >= 4 && (!memcmp(image, "\177ELF", 4) || !memcmp(image, bundle_magic, 4));
}

size_t vl_image_size(const void *image, char why[static VL_WHY])
{
    why[0] = 0;
    if (known(image, 4, why)) {
        if (!memcmp(image, "\177ELF", 4))
            return elf_size(image);
        if (!memcmp(image, bundle_magic, MAGIC))
            return bundle_size(image);
    }
    if (!why[0])
        vl_say(why, "it is neither an ELF code object nor a bundle");
    return 0;
}

/* ---- targets: "gfx942", perhaps with ":sramecc+:xnack-" ---- */

/* The processor's part of an entry's id, "hipv4-amdgcn-amd-amdhsa--gfx942:xnack-"; NULL: the host's
 * entry, or another triple. */
static const char *target_of(const struct entry *entry, size_t *size)
{
    const char *id = entry->id;
    for (size_t i = 0; i + 4 <= entry->id_size; i++)
        if (!memcmp(id + i, "-gfx", 4)) {
            *size = entry->id_size - i - 1;
            return id + i + 1;
        }
    return NULL;
}

/* -1: not for the device; else how many features it names. */
static int match(const char *target, size_t size, const char *device)
{
    size_t name = strlen(device);
    const char *end = target + size;
    int features = 0;
    bool generic = size >= 14 && !memcmp(target, "gfx9-4-generic", 14);
    if (generic)
        name = 14;
    else if (size < name || memcmp(target, device, name))
        return -1;
    for (const char *at = target + name; at < end; features++) {
        const char *next = memchr(at + 1, ':', (size_t)(end - at - 1));
        size_t n = (size_t)((next ? next : end) - at);
        if (!((n == 7 && !memcmp(at, ":xnack-", 7)) || (n == 9 && !memcmp(at, ":sramecc+", 9))))
            return -1;
        at += n;
    }
    return generic ? features : features + 1;
}

static void add_target(char *list, size_t room, const char *target, size_t size)
{
    size_t used = strlen(list);
    snprintf(list + used, room - used, "%s%.*s", used ? ", " : "", (int)(size < 40 ? size : 40),
             target);
}

const void *vl_image_pick(const void *image, size_t size, const char *device, size_t *picked,
                          bool *wrong_target, char why[static VL_WHY])
{
    const uint8_t *bytes = image;
    size_t at = MAGIC + 8;
    char list[200] = "";
    int best = -1;
    *wrong_target = false;
    why[0] = 0;
    if (!known(image, size, why) || size < MAGIC + 8) {
        if (!why[0])
            vl_say(why, "it is neither an ELF code object nor a bundle");
        return NULL;
    }
    if (!memcmp(image, "\177ELF", 4)) {
        *picked = size;
        return image;
    }
    if (memcmp(image, bundle_magic, MAGIC)) {
        vl_say(why, "it is neither an ELF code object nor a bundle");
        return NULL;
    }
    const void *found = NULL;
    uint64_t count = read_u64(bytes + MAGIC);
    for (uint64_t i = 0; i < count; i++) {
        struct entry entry;
        size_t target_size;
        if (!next_entry(bytes, size, &at, &entry)) {
            vl_say(why, "the bundle ends in its list of entries");
            return NULL;
        }
        const char *target = target_of(&entry, &target_size);
        if (!target)
            continue;
        add_target(list, sizeof list, target, target_size);
        int m = match(target, target_size, device);
        if (m <= best)
            continue;
        if (entry.offset > size || entry.size > size - entry.offset) {
            vl_say(why, "the bundle's entry for %.*s lies beyond its end",
                   (int)(target_size < 40 ? target_size : 40), target);
            return NULL;
        }
        best = m;
        found = bytes + entry.offset;
        *picked = entry.size;
    }
    if (!found) {
        *wrong_target = true;
        vl_say(why, "built for %s, device is %s", list[0] ? list : "the host only", device);
    }
    return found;
}
