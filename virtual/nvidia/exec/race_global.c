/* Races in global memory. Blocks know of each other through what they read: a strong write
 * publishes what its warp knew at its last fence (or now, if it releases), a strong read takes it
 * over at the next fence (or now, if it acquires). The launch runs on one worker while this check
 * is on. */
#include "race.h"

#include <stdlib.h>

enum { PAGE_WORDS = 1024, KIND = 3, ACQUIRES = 8, RELEASES = 4 };

struct page {
    struct page *next;
    uint64_t number;
    struct vn_word words[PAGE_WORDS];
};

struct published { /* at an address that strong accesses use */
    struct published *next;
    uint64_t address;
    struct vn_knowledge knowledge;
};

enum { BUCKETS = 1 << 14 };

struct vn_global_race {
    struct page *pages[BUCKETS];
    struct published *places[BUCKETS];
};

struct vn_global_race *vn_global_race_create(struct vn_launch_state *s)
{
    (void)s;
    return calloc(1, sizeof(struct vn_global_race));
}

void vn_global_race_destroy(struct vn_global_race *race)
{
    if (!race)
        return;
    for (int i = 0; i < BUCKETS; i++) {
        for (struct page *p = race->pages[i], *next; p; p = next) {
            next = p->next;
            free(p);
        }
        for (struct published *p = race->places[i], *next; p; p = next) {
            next = p->next;
            free(p->knowledge.items);
            free(p);
        }
    }
    free(race);
}

static uint32_t bucket(uint64_t x)
{
    return (uint32_t)(x * 0x9e3779b97f4a7c15u >> 50);
}

static struct vn_word *find_word(struct vn_global_race *g, uint64_t address)
{
    uint64_t number = address / (4 * PAGE_WORDS);
    struct page **list = &g->pages[bucket(number)], *p = *list;
    while (p && p->number != number)
        p = p->next;
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p)
            return NULL;
        p->number = number;
        p->next = *list;
        *list = p;
    }
    return &p->words[address / 4 % PAGE_WORDS];
}

static struct published *find_place(struct vn_global_race *g, uint64_t address)
{
    struct published **list = &g->places[bucket(address)], *p = *list;
    while (p && p->address != address)
        p = p->next;
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p)
            return NULL;
        p->address = address;
        p->next = *list;
        *list = p;
    }
    return p;
}

static void join_all(struct vn_knowledge *to, const struct vn_knowledge *from)
{
    for (uint32_t i = 0; i < from->count; i++)
        vn_knowledge_join(to, from->items[i].block, &from->items[i].clocks);
}

/* What a warp has read of others becomes known. */
static void take(struct vn_warp *w, const struct vn_knowledge *k)
{
    struct vn_race *r = w->block->race;
    for (uint32_t i = 0; i < k->count; i++) {
        if (k->items[i].block == w->block->linear)
            vn_clocks_join(&r->know[w->index], &k->items[i].clocks);
        else
            vn_knowledge_join(&r->foreign, k->items[i].block, &k->items[i].clocks);
    }
}

void vn_global_race_fence(struct vn_warp *w)
{
    struct vn_knowledge *read = &w->block->race->read[w->index];
    take(w, read);
    read->count = 0;
}

/* Strong accesses carry order. Shared ones go through here too, under addresses of their own. */
void vn_race_strong(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, int kind,
                    bool shared)
{
    struct vn_global_race *g = w->launch->global_race;
    struct vn_race *r = w->block->race;
    const struct vn_insn *insn = w->next - 1;
    uint32_t order = insn->q & 15;
    bool acquire = order == VN_ACQUIRE || order == VN_ACQ_REL || order == VN_SC;
    bool release = order == VN_RELEASE || order == VN_ACQ_REL || order == VN_SC;
    if (!g)
        return;
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        uint64_t address =
            shared ? VN_SHARED_WINDOW + a->at[l] + (w->block->linear << 32) : a->at[l];
        struct published *p = find_place(g, address);
        if (!p)
            continue;
        if (kind & ACQUIRES && p->knowledge.count) {
            if (acquire) {
                take(w, &p->knowledge);
            } else {
                join_all(&r->read[w->index], &p->knowledge);
            }
        }
        if (kind & RELEASES) {
            if (release) {
                r->know[w->index].of[w->index]++;
                r->released[w->index] = r->know[w->index];
                r->know[w->index].of[w->index]++;
            }
            /* A read-modify-write continues what was published before it. */
            if (!(kind & ACQUIRES))
                p->knowledge.count = 0;
            vn_knowledge_join(&p->knowledge, w->block->linear, &r->released[w->index]);
            join_all(&p->knowledge, &r->foreign);
        }
    }
}

static void global_lane(struct vn_warp *w, uint64_t address, uint32_t size, uint32_t lane, int kind,
                        int steps)
{
    for (uint64_t at = address; at < address + size;) {
        uint32_t n = 4 - (uint32_t)(at & 3);
        n = n > address + size - at ? (uint32_t)(address + size - at) : n;
        struct vn_word *word = find_word(w->launch->global_race, at);
        if (word)
            vn_race_words(w, word, at, n, lane, kind, false, steps);
        at += n;
    }
}

static void global_lanes(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask,
                         uint32_t size, int kind, int steps)
{
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        global_lane(w, a->at[l], size, l, kind, steps);
    }
}

void vn_race_global(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                    int kind)
{
    if (!w->launch->global_race || !w->block->race)
        return;
    w->block->race->turn++;
    if (vn_race_in_two_steps(mask, kind)) {
        global_lanes(w, a, mask, size, kind, VN_RACE_CHECK);
        global_lanes(w, a, mask, size, kind, VN_RACE_RECORD);
    } else {
        global_lanes(w, a, mask, size, kind, VN_RACE_CHECK | VN_RACE_RECORD);
    }
    if ((kind & KIND) == VN_ATOMIC)
        vn_race_strong(w, a, mask, kind, false);
}
