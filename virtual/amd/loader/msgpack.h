/* msgpack.h: a reader of MessagePack, for the metadata of code objects.
 *
 * It walks bytes it does not trust: every read is bounded, nesting too, and after the first mistake
 * the reader is spent: `failed` says why, and every further read answers nothing. */
#ifndef VIRTUAL_AMD_MSGPACK_H
#define VIRTUAL_AMD_MSGPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vl_pack {
    const uint8_t *at, *end;
    const char *failed; /* a static text, or NULL */
};

enum vl_pack_type {
    VL_PACK_NONE, /* the end, or a mistake */
    VL_PACK_NIL,
    VL_PACK_BOOL,
    VL_PACK_UNSIGNED,
    VL_PACK_SIGNED, /* below zero */
    VL_PACK_FLOAT,
    VL_PACK_STRING,
    VL_PACK_BINARY,
    VL_PACK_ARRAY, /* count elements follow */
    VL_PACK_MAP,   /* 2 x count elements follow */
};

struct vl_item {
    enum vl_pack_type type;
    uint64_t value;    /* of numbers and booleans */
    uint32_t count;    /* of an array or a map: no more than bytes are left; of a string: bytes */
    const char *bytes; /* of strings and binaries, inside the input, without NUL */
};

struct vl_item vl_pack_next(struct vl_pack *pack);
/* Steps over the next value with all that is in it. */
void vl_pack_skip(struct vl_pack *pack);
/* The next value, which has to be of the type; else the reader fails with `what`. */
struct vl_item vl_pack_expect(struct vl_pack *pack, enum vl_pack_type type, const char *what);
bool vl_item_is(const struct vl_item *item, const char *text);

#endif
