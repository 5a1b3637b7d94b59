/* shadow.c: which bytes of device memory have been written. */
#include "memmap.h"

#include <string.h>

/* Kernels on several threads mark and read neighbouring bytes: each byte only ever becomes 1 while
 * a kernel runs, so an order is of no consequence, and plain stores are fast. */
#if defined(__SANITIZE_THREAD__)
#define UNORDERED __attribute__((no_sanitize("thread"), noinline))
#else
#define UNORDERED
#endif

UNORDERED static void fill(uint8_t *at, uint8_t value, uint64_t bytes)
{
#if defined(__SANITIZE_THREAD__)
    for (uint64_t i = 0; i < bytes; i++)
        ((volatile uint8_t *)at)[i] = value;
#else
    memset(at, value, bytes);
#endif
}

UNORDERED static uint64_t first_zero(const uint8_t *at, uint64_t bytes)
{
#if defined(__SANITIZE_THREAD__)
    uint64_t i = 0;
    while (i < bytes && ((const volatile uint8_t *)at)[i])
        i++;
    return i;
#else
    const uint8_t *zero = memchr(at, 0, bytes);
    return zero ? (uint64_t)(zero - at) : bytes;
#endif
}

static uint64_t piece(uint64_t offset, uint64_t bytes)
{
    uint64_t left = VC_PAGE - (offset & (VC_PAGE - 1));
    return bytes < left ? bytes : left;
}

void vc_mark_slow(struct vc_map *map, uint64_t address, uint64_t bytes)
{
    uint64_t offset = address - map->base;
    if (offset >= map->bytes || bytes > map->bytes - offset)
        return;
    while (bytes) {
        uint64_t n = piece(offset, bytes);
        _Atomic uint8_t *state = &map->page[offset >> VC_PAGE_BITS];
        if (n == VC_PAGE) {
            *state = VC_ALL;
        } else if (*state != VC_ALL) {
            uint8_t none = VC_NONE;
            __atomic_compare_exchange_n((uint8_t *)state, &none, VC_SOME, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED);
            fill(map->shadow + offset, 1, n);
        }
        offset += n;
        bytes -= n;
    }
}

static void unmark(struct vc_map *map, uint64_t offset, uint64_t bytes)
{
    _Atomic uint8_t *state = &map->page[offset >> VC_PAGE_BITS];
    if (*state == VC_ALL) {
        fill(map->shadow + (offset & ~(uint64_t)(VC_PAGE - 1)), 1, VC_PAGE);
        *state = VC_SOME;
    }
    if (*state == VC_SOME)
        fill(map->shadow + offset, 0, bytes);
}

uint64_t vc_uninitialised_slow(struct vc_map *map, uint64_t address, uint64_t bytes)
{
    uint64_t offset = address - map->base, done = 0;
    if (offset >= map->bytes || bytes > map->bytes - offset)
        return bytes;
    while (done < bytes) {
        uint64_t n = piece(offset + done, bytes - done);
        uint64_t page = (offset + done) >> VC_PAGE_BITS;
        uint8_t state = map->page[page];
        if (state == VC_NONE)
            return done;
        if (state == VC_SOME) {
            uint64_t good = first_zero(map->shadow + offset + done, n);
            if (good < n)
                return done + good;
            /* A reader that reaches the end of a page has likely seen it all: remember that. */
            bool at_end = ((offset + done + n) & (VC_PAGE - 1)) == 0;
            if (at_end && first_zero(map->shadow + (page << VC_PAGE_BITS), VC_PAGE) == VC_PAGE)
                map->page[page] = VC_ALL;
        }
        done += n;
    }
    return bytes;
}

static void copy_piece(struct vc_map *map, uint64_t to, uint64_t from, uint64_t bytes)
{
    if (map->page[from >> VC_PAGE_BITS] == VC_NONE) {
        unmark(map, to, bytes);
        return;
    }
    for (uint64_t i = 0; i < bytes;) { /* runs of written and unwritten bytes */
        const uint8_t *at = map->shadow + from + i;
        uint64_t good = first_zero(at, bytes - i), bad = 0;
        if (good)
            vc_mark_slow(map, map->base + to + i, good);
        while (i + good + bad < bytes && !at[good + bad])
            bad++;
        if (bad)
            unmark(map, to + i + good, bad);
        i += good + bad;
    }
}

void vc_copy_marks(struct vc_map *map, uint64_t to, uint64_t from, uint64_t bytes)
{
    uint64_t target = to - map->base, source = from - map->base;
    if (target >= map->bytes)
        return;
    if (source >= map->bytes) {
        vc_mark(map, to, bytes);
        return;
    }
    for (uint64_t done = 0; done < bytes;) {
        uint64_t n = piece(source + done, bytes - done);
        if (map->page[(source + done) >> VC_PAGE_BITS] == VC_ALL) {
            vc_mark(map, to + done, n);
        } else {
            n = piece(target + done, n);
            copy_piece(map, target + done, source + done, n);
        }
        done += n;
    }
}
