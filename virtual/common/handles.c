#include "handles.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

/* Open addressing; `filled` counts the slots that were used once too. */
struct slot {
    const void *pointer; /* NULL: never used; with type 0: was used */
    unsigned type;
};

static struct {
    pthread_mutex_t lock;
    struct slot *slots;
    size_t room, filled;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static size_t first_slot(const void *pointer, size_t room)
{
    uint64_t hash = (uintptr_t)pointer * 0x9e3779b97f4a7c15u;
    return (size_t)(hash >> 20) & (room - 1);
}

static struct slot *find(const void *pointer)
{
    if (!table.room)
        return NULL;
    for (size_t i = first_slot(pointer, table.room);; i = (i + 1) & (table.room - 1)) {
        struct slot *s = &table.slots[i];
        if (!s->pointer)
            return NULL;
        if (s->pointer == pointer && s->type)
            return s;
    }
}

static void put(struct slot *slots, size_t room, const void *pointer, unsigned type)
{
    size_t i = first_slot(pointer, room);
    while (slots[i].pointer)
        i = (i + 1) & (room - 1);
    slots[i] = (struct slot){pointer, type};
}

static bool grow(void)
{
    size_t live = 0, room = 256;
    for (size_t i = 0; i < table.room; i++)
        live += table.slots[i].type != 0;
    while (room < 4 * (live + 1))
        room *= 2;
    struct slot *grown = calloc(room, sizeof *grown);
    if (!grown)
        return false;
    for (size_t i = 0; i < table.room; i++)
        if (table.slots[i].type)
            put(grown, room, table.slots[i].pointer, table.slots[i].type);
    free(table.slots);
    table.slots = grown;
    table.room = room;
    table.filled = live;
    return true;
}

bool vc_handle_add(const void *pointer, unsigned type)
{
    pthread_mutex_lock(&table.lock);
    bool ok = 2 * (table.filled + 1) <= table.room || grow();
    if (ok) {
        put(table.slots, table.room, pointer, type);
        table.filled++;
    }
    pthread_mutex_unlock(&table.lock);
    return ok;
}

void vc_handle_remove(const void *pointer)
{
    pthread_mutex_lock(&table.lock);
    struct slot *s = find(pointer);
    if (s)
        s->type = 0;
    pthread_mutex_unlock(&table.lock);
}

bool vc_handle_is(const void *pointer, unsigned type)
{
    if (!pointer)
        return false;
    pthread_mutex_lock(&table.lock);
    const struct slot *s = find(pointer);
    bool is = s && s->type == type;
    pthread_mutex_unlock(&table.lock);
    return is;
}
