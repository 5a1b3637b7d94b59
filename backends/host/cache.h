/* cache.h: finding rows of the paged cache (layout: moehal/op.h). */
#ifndef HOST_CACHE_H
#define HOST_CACHE_H

#include "kernels.h"

struct cache_place {
    const mh_tensor *cache;      /* [pages, P, row] */
    const mh_tensor *page_table; /* [slots, pages a slot] */
    int32_t slot;
};

/* The row's address without any check. */
static inline void *cache_row_unchecked(const struct cache_place *p, int64_t position)
{
    int64_t page_size = p->cache->shape[1];
    int32_t page = index_at2(p->page_table, p->slot, position / page_size);
    return address2(p->cache, page, position % page_size);
}

/* Is the slot real and every page up to `position`'s there? -1 says padding, 0 no. */
static inline int cache_check(const struct cache_place *p, int64_t first_page, int32_t position)
{
    int64_t page_size = p->cache->shape[1];
    if (p->slot == -1)
        return -1;
    if (p->slot < 0 || p->slot >= p->page_table->shape[0] || position < 0 ||
        position / page_size >= p->page_table->shape[1])
        return 0;
    for (int64_t page = first_page; page <= position / page_size; page++) {
        int32_t index = index_at2(p->page_table, p->slot, page);
        if (index < 0 || index >= p->cache->shape[0])
            return 0;
    }
    return 1;
}

/* The same of the pages of the segment of 256 keys that begins at `first`, up to `position`; one
 * behind it has none. */
static inline int cache_check_segment(const struct cache_place *p, int64_t first, int32_t position)
{
    int found = cache_check(p, INT64_MAX, position);
    if (found != 1 || first > position)
        return found;
    return cache_check(p, first / p->cache->shape[1],
                       position < first + 255 ? position : (int32_t)first + 255);
}

/* The row to write; NULL for padding, and with a fault if there is no such row. */
static inline void *cache_row(const struct cache_place *p, int32_t position, const mh_tensor *fault)
{
    int found = cache_check(p, position < 0 ? 0 : position / p->cache->shape[1], position);
    if (!found)
        raise_fault(fault);
    return found == 1 ? cache_row_unchecked(p, position) : NULL;
}

#endif
