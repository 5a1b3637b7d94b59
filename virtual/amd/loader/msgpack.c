#include "msgpack.h"

#include <string.h>

static struct vl_item fail(struct vl_pack *pack, const char *why)
{
    if (!pack->failed)
        pack->failed = why;
    pack->at = pack->end;
    return (struct vl_item){0};
}

/* A number of `bytes` bytes, the high one first. */
static bool big_endian(struct vl_pack *pack, unsigned bytes, uint64_t *value)
{
    if ((size_t)(pack->end - pack->at) < bytes) {
        fail(pack, "it ends in the middle of a value");
        return false;
    }
    *value = 0;
    while (bytes--)
        *value = *value << 8 | *pack->at++;
    return true;
}

static struct vl_item number(struct vl_pack *pack, unsigned bytes, bool with_sign)
{
    struct vl_item item = {.type = VL_PACK_UNSIGNED};
    if (!big_endian(pack, bytes, &item.value))
        return (struct vl_item){0};
    unsigned above = 64 - 8 * bytes;
    if (with_sign && item.value >> (8 * bytes - 1)) {
        item.type = VL_PACK_SIGNED;
        item.value = (uint64_t)((int64_t)(item.value << above) >> above);
    }
    return item;
}

static struct vl_item bytes_of(struct vl_pack *pack, enum vl_pack_type type, uint64_t count)
{
    if (count > (uint64_t)(pack->end - pack->at))
        return fail(pack, "a string is longer than the metadata");
    struct vl_item item = {type, 0, (uint32_t)count, (const char *)pack->at};
    pack->at += count;
    return item;
}

static struct vl_item sized(struct vl_pack *pack, enum vl_pack_type type, unsigned bytes)
{
    uint64_t count;
    return big_endian(pack, bytes, &count) ? bytes_of(pack, type, count) : (struct vl_item){0};
}

/* An element takes a byte at least, so that no count makes anybody allocate much. */
static struct vl_item many(struct vl_pack *pack, enum vl_pack_type type, uint64_t count)
{
    uint64_t least = type == VL_PACK_MAP ? 2 * count : count;
    if (least > (uint64_t)(pack->end - pack->at))
        return fail(pack, "an array or map has more elements than the metadata has bytes");
    return (struct vl_item){type, 0, (uint32_t)count, NULL};
}

static struct vl_item many_sized(struct vl_pack *pack, enum vl_pack_type type, unsigned bytes)
{
    uint64_t count;
    return big_endian(pack, bytes, &count) ? many(pack, type, count) : (struct vl_item){0};
}

static struct vl_item floating(struct vl_pack *pack, unsigned bytes)
{
    struct vl_item item = {.type = VL_PACK_FLOAT};
    return big_endian(pack, bytes, &item.value) ? item : (struct vl_item){0};
}

struct vl_item vl_pack_next(struct vl_pack *pack)
{
    if (pack->failed)
        return (struct vl_item){0};
    if (pack->at == pack->end)
        return fail(pack, "it ends where a value is expected");
    uint8_t tag = *pack->at++;
    if (tag < 0x80)
        return (struct vl_item){.type = VL_PACK_UNSIGNED, .value = tag};
    if (tag < 0x90)
        return many(pack, VL_PACK_MAP, tag & 15);
    if (tag < 0xa0)
        return many(pack, VL_PACK_ARRAY, tag & 15);
    if (tag < 0xc0)
        return bytes_of(pack, VL_PACK_STRING, tag & 31);
    if (tag >= 0xe0)
        return (struct vl_item){.type = VL_PACK_SIGNED, .value = (uint64_t)(int64_t)(int8_t)tag};
    switch (tag) {
    case 0xc0:
        return (struct vl_item){.type = VL_PACK_NIL};
    case 0xc2:
    case 0xc3:
        return (struct vl_item){.type = VL_PACK_BOOL, .value = tag & 1};
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return sized(pack, VL_PACK_BINARY, 1u << (tag - 0xc4));
    case 0xca:
        return floating(pack, 4);
    case 0xcb:
        return floating(pack, 8);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return number(pack, 1u << (tag - 0xcc), false);
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return number(pack, 1u << (tag - 0xd0), true);
    case 0xd9:
    case 0xda:
    case 0xdb:
        return sized(pack, VL_PACK_STRING, 1u << (tag - 0xd9));
    case 0xdc:
    case 0xdd:
        return many_sized(pack, VL_PACK_ARRAY, 2u << (tag - 0xdc));
    case 0xde:
    case 0xdf:
        return many_sized(pack, VL_PACK_MAP, 2u << (tag - 0xde));
    default:
        return fail(pack, "a value has a type that metadata does not use");
    }
}

/* Without recursion: the values still owed are counted, and each takes a byte at least. */
void vl_pack_skip(struct vl_pack *pack)
{
    uint64_t owed = 1;
    while (owed && !pack->failed) {
        struct vl_item item = vl_pack_next(pack);
        owed--;
        if (item.type == VL_PACK_ARRAY)
            owed += item.count;
        if (item.type == VL_PACK_MAP)
            owed += 2 * (uint64_t)item.count;
    }
}

struct vl_item vl_pack_expect(struct vl_pack *pack, enum vl_pack_type type, const char *what)
{
    struct vl_item item = vl_pack_next(pack);
    if (item.type != type)
        return fail(pack, what);
    return item;
}

bool vl_item_is(const struct vl_item *item, const char *text)
{
    return item->type == VL_PACK_STRING && item->count == strlen(text) &&
           !memcmp(item->bytes, text, item->count);
}
