/* memmap.h: the memory of virtual GPUs.
 *
 * One reserved range of addresses holds all devices' memory, each device a part of it, and one part
 * more for pinned host memory. A device pointer is a real address of this process. Allocations take
 * whole pages and are kept apart by at least one page that belongs to nobody (the red zone), so
 * that every address is either inside one allocation, inside a freed one, or nobody's; which one is
 * a table lookup. Sizes are kept to the byte: an access just past the end is out of bounds.
 *
 * Threads: every function may be called from any thread. The inline ones take no lock; the
 * allocation they return stays readable as long as the map lives. */
#ifndef VIRTUAL_MEMMAP_H
#define VIRTUAL_MEMMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VC_PAGE_BITS = 12,
    VC_PAGE = 1 << VC_PAGE_BITS,
    VC_MAX_DEVICES = 16,
    VC_HOST = VC_MAX_DEVICES, /* the part of pinned host memory */
    VC_PARTS
};

enum vc_kind {
    VC_GLOBAL,     /* cuMemAlloc and its like */
    VC_POOLED,     /* from a stream-ordered pool */
    VC_MODULE,     /* a module's global or constant; `name` says which */
    VC_MAPPED,     /* a mapping of physical memory into a reserved range */
    VC_PINNED,     /* host memory allocated by the driver */
    VC_REGISTERED, /* the program's own memory, registered */
    VC_MANAGED,
    VC_HEAP, /* device-side malloc */
};

/* A record per allocation. Read it freely; only memmap.c writes it. */
struct vc_alloc {
    uint64_t base, size;
    uint64_t serial;         /* counts allocations: "allocation 17" in reports */
    uint64_t stream;         /* of a pooled one: id of the stream it was allocated in */
    void *owner;             /* the context, as the driver sees it */
    _Atomic uint32_t access; /* bit d: device d may read and write */
    uint16_t device;         /* or VC_HOST */
    uint8_t kind;
    _Atomic uint8_t live; /* 0: freed, in quarantine or gone */
    char name[40];        /* of a module's variable, else "" */
};

/* What is known of the bytes of a page. A page that is VC_SOME has a byte of shadow for each byte.
 */
enum vc_page_state { VC_NONE = 0, VC_SOME = 1, VC_ALL = 2 };

struct vc_map {
    uint64_t base, bytes;      /* the reserved range; bytes is a multiple of VC_PAGE */
    uint8_t *shadow;           /* [bytes]: non-zero = the byte has been written */
    _Atomic uint8_t *page;     /* [bytes / VC_PAGE]: enum vc_page_state */
    _Atomic uint32_t *page_id; /* [bytes / VC_PAGE]: index into allocs, 0 = nobody's */
    struct vc_alloc *allocs;   /* its storage never moves */
    struct vc_map_private *p;
};

/* NULL and a line in `why` if the addresses cannot be reserved. */
struct vc_map *vc_map_create(char why[static 200]);
void vc_map_destroy(struct vc_map *map);

/* The allocation that holds `address`, live or freed; NULL: nobody's (a red zone, or never
 * allocated). Registered host memory lies outside the range and is found by vc_find_slow. */
struct vc_alloc *vc_find_slow(struct vc_map *map, uint64_t address);

static inline struct vc_alloc *vc_find(struct vc_map *map, uint64_t address)
{
    uint64_t offset = address - map->base;
    if (__builtin_expect(offset >= map->bytes, 0))
        return vc_find_slow(map, address);
    uint32_t id =
        __atomic_load_n((uint32_t *)&map->page_id[offset >> VC_PAGE_BITS], __ATOMIC_RELAXED);
    return id ? &map->allocs[id] : NULL;
}

/* Whether device `device` may access [address, address + bytes), all inside allocation `a`. */
static inline bool vc_may_access(const struct vc_alloc *a, uint64_t address, uint64_t bytes,
                                 unsigned device)
{
    return a && address >= a->base && bytes <= a->size && address - a->base <= a->size - bytes &&
           __atomic_load_n((const uint8_t *)&a->live, __ATOMIC_RELAXED) &&
           (__atomic_load_n((const uint32_t *)&a->access, __ATOMIC_RELAXED) >> device & 1);
}

/* Initialised bytes. Addresses outside the range count as initialised. */
void vc_mark_slow(struct vc_map *map, uint64_t address, uint64_t bytes);
uint64_t vc_uninitialised_slow(struct vc_map *map, uint64_t address, uint64_t bytes);

/* Whether the bytes lie in one page all of which has been written; false tells nothing. */
static inline bool vc_page_written(struct vc_map *map, uint64_t address, uint64_t bytes)
{
    uint64_t offset = address - map->base;
    return offset < map->bytes && (offset & (VC_PAGE - 1)) + bytes <= VC_PAGE &&
           __atomic_load_n((uint8_t *)&map->page[offset >> VC_PAGE_BITS], __ATOMIC_RELAXED) ==
               VC_ALL;
}

/* Marks [address, address + bytes) as written. */
static inline void vc_mark(struct vc_map *map, uint64_t address, uint64_t bytes)
{
    if (vc_page_written(map, address, bytes))
        return;
    vc_mark_slow(map, address, bytes);
}

/* The offset of the first byte of [address, address + bytes) that was never written, or `bytes`. */
static inline uint64_t vc_uninitialised(struct vc_map *map, uint64_t address, uint64_t bytes)
{
    if (vc_page_written(map, address, bytes))
        return bytes;
    return vc_uninitialised_slow(map, address, bytes);
}

struct vc_alloc_info {
    uint64_t bytes, align; /* align: a power of two, at least 1; VC_PAGE is always granted */
    unsigned device;       /* or VC_HOST */
    enum vc_kind kind;
    uint32_t access;
    void *owner;
    uint64_t stream;
    const char *name; /* copied, cut; may be NULL */
};

/* 0 if there is no room. The bytes are uninitialised (VC_MODULE, and host memory, are initialised
 * to zeros). */
uint64_t vc_alloc(struct vc_map *map, const struct vc_alloc_info *info);
/* By the base address. false: no live allocation begins there. The freed one stays in quarantine
 * for a while, so that its use is reported for what it is. */
bool vc_free(struct vc_map *map, uint64_t base);

/* The program's own memory: no bytes are allocated, only the record. */
bool vc_register(struct vc_map *map, void *host, uint64_t bytes, uint32_t access, void *owner);
bool vc_unregister(struct vc_map *map, void *host);

/* Reserved ranges, and files mapped into them. `at` is a hint and may be 0. */
uint64_t vc_reserve(struct vc_map *map, uint64_t bytes, uint64_t align, uint64_t at);
bool vc_unreserve(struct vc_map *map, uint64_t base, uint64_t bytes);
/* Maps `bytes` of file `fd` from `offset` at `address`, inside a reserved range; the mapping is an
 * allocation of kind VC_MAPPED with no access for anybody, initialised (its bytes have other
 * names). */
bool vc_map_file(struct vc_map *map, uint64_t address, uint64_t bytes, int fd, uint64_t offset,
                 unsigned device, void *owner);
bool vc_unmap_file(struct vc_map *map, uint64_t address, uint64_t bytes);

/* Peer access: gives or takes, for device `device`, access to all that `owner_device` holds now
 * (driver's part: what it holds later gets its access mask at allocation). */
void vc_set_peer(struct vc_map *map, unsigned device, unsigned owner_device, bool on);
void vc_set_access(struct vc_alloc *a, uint32_t access);

/* Copies of what is known of bytes, for copies from device to device. */
void vc_copy_marks(struct vc_map *map, uint64_t to, uint64_t from, uint64_t bytes);

/* For reports: the allocation, live or freed, that ends nearest before or begins nearest after. */
struct vc_alloc *vc_nearest(struct vc_map *map, uint64_t address);
/* "4 bytes past the end of allocation 17 (4096 bytes at 0x7f..., device 0)": into text. */
void vc_describe(struct vc_map *map, uint64_t address, char *text, size_t size);

/* Calls fn for each live allocation, under the map's lock: fn must not call back. */
void vc_each(struct vc_map *map, void (*fn)(const struct vc_alloc *a, void *context),
             void *context);

/* Bytes of live allocations of a part: those of VC_MODULE and VC_HEAP too. */
uint64_t vc_used(struct vc_map *map, unsigned device);

#endif
