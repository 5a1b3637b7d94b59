#include "memmap.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    MAX_ALLOCS = 1 << 22,
    QUARANTINE = 1 << 12, /* freed allocations that are still recognised */
    MAX_REGISTERED = 1 << 12,
};

struct range {
    uint64_t first, pages;
};

/* The addresses of a part that nobody holds, in order. */
struct part {
    struct range *free;
    size_t count, room;
    uint64_t used; /* bytes of live allocations */
};

struct vc_map_private {
    pthread_mutex_t lock;
    struct part part[VC_PARTS];
    uint64_t serial;
    uint32_t next_id; /* ids from here on were never used */
    uint32_t *spare;  /* ids that were, a stack */
    size_t spares, spare_room;
    uint32_t quarantine[QUARANTINE]; /* a ring, oldest first */
    size_t quarantine_at, quarantined;
    uint32_t registered[MAX_REGISTERED]; /* ids, ordered by base */
    size_t registered_count;
};

static void *reserve_memory(uint64_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    madvise(at, bytes, MADV_DONTDUMP);
    return at;
}

static void release_memory(void *at, uint64_t bytes)
{
    if (at)
        munmap(at, bytes);
}

static uint64_t part_pages(const struct vc_map *map)
{
    return (map->bytes >> VC_PAGE_BITS) / VC_PARTS;
}

/* Gives the range back, joined with its neighbours. */
static bool range_give(struct part *part, uint64_t first, uint64_t pages)
{
    size_t i = 0, end = part->count;
    while (i < end) {
        size_t middle = i + (end - i) / 2;
        if (part->free[middle].first < first)
            i = middle + 1;
        else
            end = middle;
    }
    bool before = i > 0 && part->free[i - 1].first + part->free[i - 1].pages == first;
    bool after = i < part->count && first + pages == part->free[i].first;
    if (before) {
        part->free[i - 1].pages += pages;
        if (after) {
            part->free[i - 1].pages += part->free[i].pages;
            memmove(&part->free[i], &part->free[i + 1], (--part->count - i) * sizeof part->free[0]);
        }
        return true;
    }
    if (after) {
        part->free[i].first = first;
        part->free[i].pages += pages;
        return true;
    }
    if (part->count == part->room) {
        size_t room = part->room ? 2 * part->room : 64;
        struct range *grown = realloc(part->free, room * sizeof *grown);
        if (!grown)
            return false; /* the addresses are lost, nothing else */
        part->free = grown;
        part->room = room;
    }
    memmove(&part->free[i + 1], &part->free[i], (part->count++ - i) * sizeof part->free[0]);
    part->free[i] = (struct range){first, pages};
    return true;
}

/* The first free page of `pages`, aligned to `align` pages; with `at` exactly there. 0: none. */
static uint64_t range_take(struct part *part, uint64_t pages, uint64_t align, uint64_t base_page,
                           uint64_t at)
{
    for (size_t i = 0; i < part->count; i++) {
        struct range *r = &part->free[i];
        uint64_t first = at ? at : ((base_page + r->first + align - 1) & ~(align - 1)) - base_page;
        if (first < r->first || first - r->first > r->pages ||
            r->pages - (first - r->first) < pages)
            continue;
        uint64_t head = first - r->first, tail = r->pages - head - pages;
        if (!head) {
            r->first += pages;
            r->pages -= pages;
            if (!r->pages)
                memmove(r, r + 1, (--part->count - i) * sizeof *r);
        } else {
            r->pages = head;
            if (tail)
                range_give(part, first + pages, tail);
        }
        return first;
    }
    return 0;
}

static void map_release(struct vc_map *map)
{
    uint64_t pages = map->bytes >> VC_PAGE_BITS;
    release_memory((void *)(uintptr_t)map->base, map->bytes);
    release_memory(map->shadow, map->bytes);
    release_memory((void *)map->page, pages);
    release_memory((void *)map->page_id, pages * 4);
    release_memory(map->allocs, MAX_ALLOCS * sizeof map->allocs[0]);
    map->base = 0;
}

static bool map_reserve(struct vc_map *map, uint64_t bytes)
{
    uint64_t pages = bytes >> VC_PAGE_BITS;
    map->bytes = bytes;
    map->base = (uintptr_t)reserve_memory(bytes);
    map->shadow = reserve_memory(bytes);
    map->page = reserve_memory(pages);
    map->page_id = reserve_memory(pages * 4);
    map->allocs = reserve_memory(MAX_ALLOCS * sizeof map->allocs[0]);
    if (map->base && map->shadow && map->page && map->page_id && map->allocs)
        return true;
    map_release(map);
    return false;
}

struct vc_map *vc_map_create(char why[static 200])
{
    struct vc_map *map = calloc(1, sizeof *map);
    struct vc_map_private *p = calloc(1, sizeof *p);
    if (!map || !p) {
        snprintf(why, 200, "out of host memory");
        goto fail;
    }
    map->p = p;
    /* 256 GiB a part; a sanitizer or a limit on addresses leaves less, down to 1 GiB. */
    uint64_t bytes = (uint64_t)VC_PARTS << 38;
    while (!map_reserve(map, bytes)) {
        bytes >>= 1;
        if (bytes < (uint64_t)VC_PARTS << 30) {
            snprintf(why, 200, "cannot reserve %d GiB of addresses (ulimit -v, overcommit?)",
                     2 * VC_PARTS);
            goto fail;
        }
    }
    pthread_mutex_init(&p->lock, NULL);
    p->next_id = 1;
    uint64_t per_part = part_pages(map);
    for (unsigned i = 0; i < VC_PARTS; i++) /* its first page is nobody's */
        range_give(&p->part[i], i * per_part + 1, per_part - 1);
    return map;
fail:
    free(map);
    free(p);
    return NULL;
}

void vc_map_destroy(struct vc_map *map)
{
    if (!map)
        return;
    map_release(map);
    pthread_mutex_destroy(&map->p->lock);
    for (unsigned i = 0; i < VC_PARTS; i++)
        free(map->p->part[i].free);
    free(map->p->spare);
    free(map->p);
    free(map);
}

static uint32_t id_take(struct vc_map *map)
{
    struct vc_map_private *p = map->p;
    if (p->spares)
        return p->spare[--p->spares];
    return p->next_id < MAX_ALLOCS ? p->next_id++ : 0;
}

static void id_give(struct vc_map *map, uint32_t id)
{
    struct vc_map_private *p = map->p;
    if (p->spares == p->spare_room) {
        size_t room = p->spare_room ? 2 * p->spare_room : 256;
        uint32_t *grown = realloc(p->spare, room * sizeof *grown);
        if (!grown)
            return;
        p->spare = grown;
        p->spare_room = room;
    }
    p->spare[p->spares++] = id;
}

static uint64_t pages_of(uint64_t bytes)
{
    return (bytes + VC_PAGE - 1) >> VC_PAGE_BITS;
}

static void set_pages(struct vc_map *map, const struct vc_alloc *a, uint32_t id,
                      enum vc_page_state state)
{
    uint64_t first = (a->base - map->base) >> VC_PAGE_BITS, pages = pages_of(a->size);
    for (uint64_t i = first; i < first + pages; i++) {
        map->page[i] = state;
        map->page_id[i] = id;
    }
}

static void record_fill(struct vc_map *map, struct vc_alloc *a, uint64_t base,
                        const struct vc_alloc_info *info)
{
    *a = (struct vc_alloc){
        .base = base,
        .size = info->bytes,
        .serial = ++map->p->serial,
        .stream = info->stream,
        .owner = info->owner,
        .access = info->access,
        .device = info->device,
        .kind = info->kind,
        .live = 1,
    };
    if (info->name)
        snprintf(a->name, sizeof a->name, "%s", info->name);
}

/* The bytes after the end count as written, so that a page can become VC_ALL. */
static void mark_slack(struct vc_map *map, const struct vc_alloc *a)
{
    uint64_t end = a->base + a->size;
    if (end & (VC_PAGE - 1))
        vc_mark_slow(map, end, VC_PAGE - (end & (VC_PAGE - 1)));
}

uint64_t vc_alloc(struct vc_map *map, const struct vc_alloc_info *info)
{
    struct vc_map_private *p = map->p;
    if (!info->bytes || info->bytes > map->bytes || info->device >= VC_PARTS)
        return 0;
    uint64_t base = 0, align = info->align > VC_PAGE ? info->align >> VC_PAGE_BITS : 1;
    pthread_mutex_lock(&p->lock);
    struct part *part = &p->part[info->device];
    uint64_t first =
        range_take(part, pages_of(info->bytes) + 1, align, map->base >> VC_PAGE_BITS, 0);
    uint32_t id = first ? id_take(map) : 0;
    if (id) {
        base = map->base + (first << VC_PAGE_BITS);
        record_fill(map, &map->allocs[id], base, info);
        bool known = info->kind == VC_MODULE || info->device == VC_HOST;
        set_pages(map, &map->allocs[id], id, known ? VC_ALL : VC_NONE);
        if (!known)
            mark_slack(map, &map->allocs[id]);
        part->used += info->bytes;
    } else if (first) {
        range_give(part, first, pages_of(info->bytes) + 1);
    }
    pthread_mutex_unlock(&p->lock);
    return base;
}

/* Makes the bytes zero and unknown again, and gives the memory back to the system. */
static void forget_bytes(struct vc_map *map, const struct vc_alloc *a)
{
    uint64_t offset = a->base - map->base, bytes = pages_of(a->size) << VC_PAGE_BITS;
    madvise((void *)(uintptr_t)a->base, bytes, MADV_DONTNEED);
    madvise(map->shadow + offset, bytes, MADV_DONTNEED);
}

static void leave_quarantine(struct vc_map *map)
{
    struct vc_map_private *p = map->p;
    uint32_t id = p->quarantine[p->quarantine_at];
    p->quarantine_at = (p->quarantine_at + 1) % QUARANTINE;
    p->quarantined--;
    struct vc_alloc *a = &map->allocs[id];
    set_pages(map, a, 0, VC_NONE);
    range_give(&p->part[a->device], (a->base - map->base) >> VC_PAGE_BITS, pages_of(a->size) + 1);
    id_give(map, id);
}

static void enter_quarantine(struct vc_map *map, uint32_t id)
{
    struct vc_map_private *p = map->p;
    if (p->quarantined == QUARANTINE)
        leave_quarantine(map);
    p->quarantine[(p->quarantine_at + p->quarantined++) % QUARANTINE] = id;
}

bool vc_free(struct vc_map *map, uint64_t base)
{
    struct vc_map_private *p = map->p;
    uint64_t offset = base - map->base;
    if (offset >= map->bytes)
        return false;
    pthread_mutex_lock(&p->lock);
    uint32_t id = map->page_id[offset >> VC_PAGE_BITS];
    struct vc_alloc *a = &map->allocs[id];
    bool found = id && a->live && a->base == base && a->kind != VC_MAPPED;
    if (found) {
        a->live = 0;
        p->part[a->device].used -= a->size;
        forget_bytes(map, a);
        set_pages(map, a, id, VC_NONE);
        enter_quarantine(map, id);
    }
    pthread_mutex_unlock(&p->lock);
    return found;
}

/* The place of `address` among the registered: the first whose base lies above it. */
static size_t registered_after(const struct vc_map *map, uint64_t address)
{
    size_t i = 0;
    while (i < map->p->registered_count && map->allocs[map->p->registered[i]].base <= address)
        i++;
    return i;
}

bool vc_register(struct vc_map *map, void *host, uint64_t bytes, uint32_t access, void *owner)
{
    struct vc_map_private *p = map->p;
    uint64_t base = (uintptr_t)host;
    bool ok = false;
    if (!bytes || base + bytes < base || base - map->base < map->bytes)
        return false;
    pthread_mutex_lock(&p->lock);
    size_t at = registered_after(map, base);
    const struct vc_alloc *a = map->allocs;
    const uint32_t *r = p->registered; /* by address: at - 1 lies before, at behind */
    bool overlaps = (at && a[r[at - 1]].base + a[r[at - 1]].size > base) ||
                    (at < p->registered_count && base + bytes > a[r[at]].base);
    uint32_t id = overlaps || p->registered_count == MAX_REGISTERED ? 0 : id_take(map);
    if (id) {
        const struct vc_alloc_info info = {.bytes = bytes,
                                           .device = VC_HOST,
                                           .kind = VC_REGISTERED,
                                           .access = access,
                                           .owner = owner};
        record_fill(map, &map->allocs[id], base, &info);
        memmove(&p->registered[at + 1], &p->registered[at],
                (p->registered_count++ - at) * sizeof p->registered[0]);
        p->registered[at] = id;
        ok = true;
    }
    pthread_mutex_unlock(&p->lock);
    return ok;
}

bool vc_unregister(struct vc_map *map, void *host)
{
    struct vc_map_private *p = map->p;
    pthread_mutex_lock(&p->lock);
    size_t at = registered_after(map, (uintptr_t)host);
    bool found = at && map->allocs[p->registered[at - 1]].base == (uintptr_t)host;
    if (found) {
        map->allocs[p->registered[at - 1]].live = 0;
        id_give(map, p->registered[at - 1]);
        memmove(&p->registered[at - 1], &p->registered[at],
                (p->registered_count-- - at) * sizeof p->registered[0]);
    }
    pthread_mutex_unlock(&p->lock);
    return found;
}

struct vc_alloc *vc_find_slow(struct vc_map *map, uint64_t address)
{
    struct vc_alloc *found = NULL;
    pthread_mutex_lock(&map->p->lock);
    size_t at = registered_after(map, address);
    if (at) {
        struct vc_alloc *a = &map->allocs[map->p->registered[at - 1]];
        if (address - a->base < a->size)
            found = a;
    }
    pthread_mutex_unlock(&map->p->lock);
    return found;
}

uint64_t vc_reserve(struct vc_map *map, uint64_t bytes, uint64_t align, uint64_t at)
{
    if (!bytes || bytes > map->bytes)
        return 0;
    uint64_t pages = pages_of(bytes) + 1, first = 0, base_page = map->base >> VC_PAGE_BITS;
    uint64_t align_pages = align > VC_PAGE ? align >> VC_PAGE_BITS : 1;
    struct part *part = &map->p->part[VC_HOST];
    pthread_mutex_lock(&map->p->lock);
    if (at - map->base < map->bytes && at > map->base)
        first = range_take(part, pages, align_pages, base_page, (at - map->base) >> VC_PAGE_BITS);
    if (!first)
        first = range_take(part, pages, align_pages, base_page, 0);
    pthread_mutex_unlock(&map->p->lock);
    return first ? map->base + (first << VC_PAGE_BITS) : 0;
}

/* Whether a page of the range belongs to a live allocation. */
static bool any_live(const struct vc_map *map, uint64_t first, uint64_t pages)
{
    for (uint64_t i = first; i < first + pages; i++)
        if (map->page_id[i] && map->allocs[map->page_id[i]].live)
            return true;
    return false;
}

bool vc_unreserve(struct vc_map *map, uint64_t base, uint64_t bytes)
{
    uint64_t first = (base - map->base) >> VC_PAGE_BITS;
    if (base - map->base >= map->bytes || bytes > map->bytes)
        return false;
    pthread_mutex_lock(&map->p->lock);
    bool ok = !any_live(map, first, pages_of(bytes));
    if (ok)
        range_give(&map->p->part[VC_HOST], first, pages_of(bytes) + 1);
    pthread_mutex_unlock(&map->p->lock);
    return ok;
}

bool vc_map_file(struct vc_map *map, uint64_t address, uint64_t bytes, int fd, uint64_t offset,
                 unsigned device, void *owner)
{
    bool ok = false;
    uint64_t first = (address - map->base) >> VC_PAGE_BITS;
    if (address - map->base >= map->bytes || (address | bytes) & (VC_PAGE - 1))
        return false;
    pthread_mutex_lock(&map->p->lock);
    uint32_t id = any_live(map, first, pages_of(bytes)) ? 0 : id_take(map);
    if (id && mmap((void *)(uintptr_t)address, bytes, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_FIXED, fd, (off_t)offset) != MAP_FAILED) {
        const struct vc_alloc_info info = {
            .bytes = bytes, .device = device, .kind = VC_MAPPED, .owner = owner};
        record_fill(map, &map->allocs[id], address, &info);
        set_pages(map, &map->allocs[id], id, VC_ALL);
        ok = true;
    } else if (id) {
        id_give(map, id);
    }
    pthread_mutex_unlock(&map->p->lock);
    return ok;
}

bool vc_unmap_file(struct vc_map *map, uint64_t address, uint64_t bytes)
{
    bool ok = true;
    if (address - map->base >= map->bytes || bytes > map->base + map->bytes - address)
        return false;
    pthread_mutex_lock(&map->p->lock);
    for (uint64_t at = address; ok && at < address + bytes;) { /* whole mappings, no gaps */
        const struct vc_alloc *a = &map->allocs[map->page_id[(at - map->base) >> VC_PAGE_BITS]];
        ok = a->live && a->kind == VC_MAPPED && a->base == at;
        at += a->size ? a->size : VC_PAGE;
        ok = ok && at <= address + bytes;
    }
    for (uint64_t at = address; ok && at < address + bytes;) {
        uint32_t id = map->page_id[(at - map->base) >> VC_PAGE_BITS];
        struct vc_alloc *a = &map->allocs[id];
        at += a->size;
        a->live = 0;
        set_pages(map, a, 0, VC_NONE);
        id_give(map, id);
    }
    if (ok)
        ok = mmap((void *)(uintptr_t)address, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
    pthread_mutex_unlock(&map->p->lock);
    return ok;
}

void vc_set_access(struct vc_alloc *a, uint32_t access)
{
    __atomic_store_n((uint32_t *)&a->access, access, __ATOMIC_RELAXED);
}

void vc_set_peer(struct vc_map *map, unsigned device, unsigned owner_device, bool on)
{
    uint32_t bit = (uint32_t)1 << device;
    pthread_mutex_lock(&map->p->lock);
    for (uint32_t id = 1; id < map->p->next_id; id++) {
        struct vc_alloc *a = &map->allocs[id];
        if (!a->live || a->device != owner_device || (a->kind != VC_GLOBAL && a->kind != VC_MODULE))
            continue;
        if (on)
            a->access |= bit;
        else
            a->access &= ~bit;
    }
    pthread_mutex_unlock(&map->p->lock);
}

void vc_each(struct vc_map *map, void (*fn)(const struct vc_alloc *a, void *context), void *context)
{
    pthread_mutex_lock(&map->p->lock);
    for (uint32_t id = 1; id < map->p->next_id; id++)
        if (map->allocs[id].live)
            fn(&map->allocs[id], context);
    pthread_mutex_unlock(&map->p->lock);
}

uint64_t vc_used(struct vc_map *map, unsigned device)
{
    pthread_mutex_lock(&map->p->lock);
    uint64_t used = map->p->part[device].used;
    pthread_mutex_unlock(&map->p->lock);
    return used;
}

static uint64_t distance(const struct vc_alloc *a, uint64_t address)
{
    if (address < a->base)
        return a->base - address;
    return address - a->base < a->size ? 0 : address - a->base - a->size + 1;
}

struct vc_alloc *vc_nearest(struct vc_map *map, uint64_t address)
{
    struct vc_alloc *best = NULL;
    pthread_mutex_lock(&map->p->lock);
    for (uint32_t id = 1; id < map->p->next_id; id++) {
        struct vc_alloc *a = &map->allocs[id];
        if (a->base && a->size &&
            (!best || distance(a, address) < distance(best, address) ||
             (distance(a, address) == distance(best, address) && a->live)))
            best = a;
    }
    pthread_mutex_unlock(&map->p->lock);
    return best;
}

void vc_describe(struct vc_map *map, uint64_t address, char *text, size_t size)
{
    static const char *const kinds[] = {
        [VC_GLOBAL] = "allocation",
        [VC_POOLED] = "pooled allocation",
        [VC_MODULE] = "variable",
        [VC_MAPPED] = "mapping",
        [VC_PINNED] = "pinned host allocation",
        [VC_REGISTERED] = "registered host memory",
        [VC_MANAGED] = "managed allocation",
        [VC_HEAP] = "device heap block",
    };
    const struct vc_alloc *a = vc_nearest(map, address);
    if (!a) {
        snprintf(text, size, "0x%" PRIx64 ", and nothing is allocated", address);
        return;
    }
    char where[64];
    uint64_t away = distance(a, address);
    if (!away)
        snprintf(where, sizeof where, "at byte %" PRIu64 " of", address - a->base);
    else if (address < a->base)
        snprintf(where, sizeof where, "%" PRIu64 " bytes before", away);
    else
        snprintf(where, sizeof where, "%" PRIu64 " bytes past the end of", away - 1);
    char device[24] = "host";
    if (a->device < VC_HOST)
        snprintf(device, sizeof device, "device %u", a->device);
    snprintf(text, size,
             "0x%" PRIx64 ", %s %s%s %s%s%" PRIu64 " (%" PRIu64 " bytes at 0x%" PRIx64 ", %s)",
             address, where, a->live ? "" : "freed ", kinds[a->kind], a->name,
             a->name[0] ? " #" : "#", a->serial, a->size, a->base, device);
}
