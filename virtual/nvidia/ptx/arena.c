#include <stdlib.h>
#include <string.h>

#include "module.h"

struct block {
    struct block *next;
    size_t used, size;
    _Alignas(64) unsigned char bytes[];
};

struct ptx_arena {
    struct block *blocks;
    size_t total, limit;
};

struct ptx_arena *ptx_arena_create(size_t limit)
{
    struct ptx_arena *arena = calloc(1, sizeof *arena);
    if (arena)
        arena->limit = limit;
    return arena;
}

void ptx_arena_destroy(struct ptx_arena *arena)
{
    if (!arena)
        return;
    for (struct block *b = arena->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(arena);
}

void *ptx_alloc(struct ptx_arena *arena, size_t size)
{
    if (size > arena->limit)
        return NULL;
    size_t align = size >= 64 ? 64 : 16;
    struct block *b = arena->blocks;
    size_t at = b ? (b->used + align - 1) & ~(align - 1) : 0;
    if (!b || at > b->size || size > b->size - at) {
        size_t want = size > 65536 ? size : 65536;
        if (want > arena->limit - arena->total)
            return NULL;
        size_t bytes = (sizeof *b + want + 63) & ~(size_t)63;
        struct block *fresh = aligned_alloc(64, bytes);
        if (!fresh)
            return NULL;
        fresh->used = 0;
        fresh->size = want;
        arena->total += want;
        if (b && size > 65536) { /* a big one does not end the current block */
            fresh->next = b->next;
            b->next = fresh;
        } else {
            fresh->next = b;
            arena->blocks = fresh;
        }
        b = fresh;
        at = 0;
    }
    b->used = at + size;
    memset(b->bytes + at, 0, size);
    return b->bytes + at;
}

char *ptx_strndup(struct ptx_arena *arena, const char *text, size_t length)
{
    char *copy = ptx_alloc(arena, length + 1);
    if (copy)
        memcpy(copy, text, length);
    return copy;
}
