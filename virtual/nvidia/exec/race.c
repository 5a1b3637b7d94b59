/* Races in shared memory, and the clocks that global ones are judged by too. */
#include "race.h"

#include <stdlib.h>

enum { KIND = 3, ACQUIRES = 8, RELEASES = 4, RMW = VN_ATOMIC | ACQUIRES | RELEASES };

struct vn_race *vn_race_create(struct vn_launch_state *s)
{
    struct vn_race *race = calloc(1, sizeof *race);
    if (!race)
        return NULL;
    race->base = 1;
    race->word_count = s->checks & VN_CHECK_SHARED_RACES ? (s->shared_size + 3) / 4 : 0;
    race->words = calloc(race->word_count + 1, sizeof *race->words);
    if (!race->words) {
        free(race);
        return NULL;
    }
    return race;
}

void vn_race_destroy(struct vn_race *race)
{
    if (!race)
        return;
    free(race->foreign.items);
    for (int i = 0; i < VN_MAX_WARPS; i++)
        free(race->read[i].items);
    free(race->words);
    free(race);
}

/* A new block in the same memory: clocks go on from above all that were used. */
void vn_race_start(struct vn_block *block)
{
    struct vn_race *r = block->race;
    uint32_t top = r->base;
    for (uint32_t i = 0; i < block->warp_count; i++)
        top = r->know[i].of[i] > top ? r->know[i].of[i] : top;
    r->base = top + 1;
    memset(r->arrived, 0, sizeof r->arrived);
    memset(r->released, 0, sizeof r->released);
    memset(r->arrived_released, 0, sizeof r->arrived_released);
    r->foreign.count = 0;
    for (uint32_t i = 0; i < block->warp_count; i++)
        r->read[i].count = 0;
    for (uint32_t i = 0; i < block->warp_count; i++) {
        for (uint32_t k = 0; k < block->warp_count; k++)
            r->know[i].of[k] = r->base;
    }
}

void vn_clocks_join(struct vn_clocks *to, const struct vn_clocks *from)
{
    for (int i = 0; i < VN_MAX_WARPS; i++)
        to->of[i] = from->of[i] > to->of[i] ? from->of[i] : to->of[i];
}

void vn_knowledge_join(struct vn_knowledge *to, uint64_t block, const struct vn_clocks *clocks)
{
    for (uint32_t i = 0; i < to->count; i++) {
        if (to->items[i].block == block) {
            vn_clocks_join(&to->items[i].clocks, clocks);
            return;
        }
    }
    if (to->count == to->capacity) {
        uint32_t capacity = to->capacity ? to->capacity * 2 : 8;
        struct vn_known *more = realloc(to->items, capacity * sizeof *more);
        if (!more)
            return; /* less is known: at worst a report too many */
        to->items = more;
        to->capacity = capacity;
    }
    to->items[to->count++] = (struct vn_known){.block = block, .clocks = *clocks};
}

static void tick(struct vn_warp *w)
{
    w->block->race->know[w->index].of[w->index]++;
}

void vn_race_arrive(struct vn_warp *w, uint32_t id)
{
    struct vn_race *r = w->block->race;
    tick(w);
    vn_clocks_join(&r->arrived[id], &r->know[w->index]);
    /* A fence before the barrier serves a flag that another warp sets behind it. */
    vn_clocks_join(&r->arrived_released[id], &r->released[w->index]);
}

/* The barrier opens: whoever waits at it knows what all knew. */
void vn_race_join(struct vn_warp *w, uint32_t id)
{
    struct vn_race *r = w->block->race;
    vn_clocks_join(&r->know[w->index], &r->arrived[id]);
    vn_clocks_join(&r->released[w->index], &r->arrived_released[id]);
}

void vn_race_barrier(struct vn_block *block, uint32_t id)
{
    memset(&block->race->arrived[id], 0, sizeof block->race->arrived[id]);
    memset(&block->race->arrived_released[id], 0, sizeof block->race->arrived_released[id]);
}

void vn_race_warp(struct vn_warp *w, uint32_t mask)
{
    (void)mask;
    tick(w);
}

/* A fence: what was read before it counts now, and what is written after it carries what came
 * before. */
void vn_race_fence(struct vn_warp *w, uint16_t order)
{
    struct vn_race *r = w->block->race;
    (void)order;
    if (!r)
        return;
    if (w->launch->global_race)
        vn_global_race_fence(w);
    tick(w);
    r->released[w->index] = r->know[w->index];
    tick(w);
}

bool vn_race_before(const struct vn_warp *w, uint32_t lane, const struct vn_event *e)
{
    const struct vn_race *r = w->block->race;
    if (e->block == (uint32_t)w->block->linear) {
        if (e->clock < r->base)
            return true; /* of a block that had this number in another memory: cannot be */
        if (e->warp == w->index && e->lane == lane)
            return true;
        return e->clock < r->know[w->index].of[e->warp];
    }
    for (uint32_t i = 0; i < r->foreign.count; i++) {
        if ((uint32_t)r->foreign.items[i].block == e->block)
            return e->clock < r->foreign.items[i].clocks.of[e->warp];
    }
    return false;
}

struct vn_event vn_race_now(const struct vn_warp *w, uint32_t lane, int kind)
{
    const struct vn_insn *insn = w->next - 1;
    bool strong = (kind & KIND) == VN_ATOMIC;
    bool wide = strong && insn->q >> 4 != VN_SCOPE_CTA;
    return (struct vn_event){.clock = w->block->race->know[w->index].of[w->index],
                             .block = (uint32_t)w->block->linear,
                             .warp = (uint8_t)w->index,
                             .lane = (uint8_t)lane,
                             .strong = (uint8_t)(strong ? 1 + wide : 0),
                             .update = strong && (kind & RMW) == RMW,
                             .guess = insn->flags & VN_GUESS &&
                                      !(w->launch->checks & VN_CHECK_CAS_LOADS),
                             .insn = insn};
}

static bool conflict(const struct vn_warp *w, uint32_t lane, const struct vn_event *before,
                     const struct vn_event *now)
{
    /* Clocks only grow in one memory: what an earlier block did to shared memory lies below the
     * base. */
    if (!before->clock || (now->shared && before->clock < w->block->race->base))
        return false;
    if (before->strong && now->strong) { /* morally strong if each one's scope holds the other */
        bool same_block = before->block == now->block;
        if (same_block || (before->strong == 2 && now->strong == 2))
            return false;
    }
    if ((before->guess && now->update) || (before->update && now->guess))
        return false;
    /* Lanes of one instruction: who wins is compared by value, after the stores. */
    if (before->insn == now->insn && before->warp == now->warp && before->clock == now->clock &&
        before->block == now->block)
        return false;
    return !vn_race_before(w, lane, before);
}

bool vn_race_cell(struct vn_warp *w, struct vn_cell *cell, const struct vn_event *now, bool write,
                  struct vn_event *other)
{
    uint32_t lane = now->lane;
    if (conflict(w, lane, &cell->write, now)) {
        *other = cell->write;
        cell->write = write ? *now : (struct vn_event){0};
        return true;
    }
    if (write) {
        for (int i = 0; i < VN_READERS; i++) {
            if (conflict(w, lane, &cell->reads[i], now)) {
                *other = cell->reads[i];
                memset(cell->reads, 0, sizeof cell->reads);
                cell->write = *now;
                return true;
            }
        }
        memset(cell->reads, 0, sizeof cell->reads);
        cell->write = *now;
        return false;
    }
    /* Keep the reads that a later write may not be ordered after: those of other threads first. */
    int at = VN_READERS - 1;
    for (int i = 0; i < VN_READERS; i++) {
        const struct vn_event *e = &cell->reads[i];
        if (!e->clock || (e->block == now->block && e->warp == now->warp && e->lane == now->lane)) {
            at = i;
            break;
        }
        if (vn_race_before(w, lane, e))
            at = i;
    }
    cell->reads[at] = *now;
    return false;
}

static void tell(struct vn_warp *w, const struct vn_event *now, const struct vn_event *other,
                 uint64_t address, uint32_t size, int kind, const char *check, const char *space)
{
    static const char *const kinds[] = {"load", "store", "atomic"};
    struct vn_access access = {space, kinds[kind & KIND], address, size, now->lane};
    /* The other's block may be gone: its coordinates come from its number. */
    vn_find_race(w, check, &access, other->insn, other->block, other->warp * 32u + other->lane);
}

void vn_race_words(struct vn_warp *w, struct vn_word *words, uint64_t address, uint32_t size,
                   uint32_t lane, int kind, const char *check, const char *space)
{
    struct vn_event now = vn_race_now(w, lane, kind), other;
    now.shared = space[0] == 's';
    bool write = (kind & KIND) == VN_WRITE || ((kind & KIND) == VN_ATOMIC && kind & RELEASES);
    for (uint64_t at = address; at < address + size;) {
        struct vn_word *word = &words[(at - (address & ~(uint64_t)3)) / 4];
        uint32_t first = at & 3, n = 4 - first;
        n = n > address + size - at ? (uint32_t)(address + size - at) : n;
        if (n == 4 && !word->split) {
            if (vn_race_cell(w, &word->bytes[0], &now, write, &other))
                tell(w, &now, &other, at, 4, kind, check, space);
        } else {
            if (!word->split) {
                for (int k = 1; k < 4; k++)
                    word->bytes[k] = word->bytes[0];
                word->split = true;
            }
            for (uint32_t k = first; k < first + n; k++) {
                if (vn_race_cell(w, &word->bytes[k], &now, write, &other)) {
                    tell(w, &now, &other, at - first + k, 1, kind, check, space);
                    break;
                }
            }
        }
        at += n;
    }
}

void vn_race_shared(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                    int kind)
{
    struct vn_race *r = w->block->race;
    if (!r->word_count)
        return;
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        vn_race_words(w, r->words + a->at[l] / 4, a->at[l], size, l, kind, "shared-race", "shared");
    }
    /* Within a block, strong accesses order through the block's own memory. */
    if ((kind & KIND) == VN_ATOMIC)
        vn_race_strong(w, a, mask, kind, true);
}

/* Lanes of one store that wrote the same bytes: they must have agreed. */
void vn_race_same_store(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask,
                        uint32_t size, const uint8_t *base, const uint32_t *regs, uint32_t bytes,
                        bool shared)
{
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        for (uint32_t k = 0; k * bytes < size; k++) {
            uint32_t file = regs[k] & VN_FILE_MASK;
            const void *p = vn_at(w, regs[k]);
            uint64_t v = file == VN_R64 || (bytes == 8 && file == VN_CONSTANT)
                             ? ((const uint64_t *)p)[l]
                             : ((const uint32_t *)p)[l];
            if (memcmp(base + a->at[l] + k * bytes, &v, bytes)) {
                struct vn_access access = {shared ? "shared" : "global", "store", a->at[l], size,
                                           l};
                vn_find_report(w, shared ? "shared-race" : "global-race", &access, mask,
                               w->next - 1, w, -1,
                               "lanes of one instruction store different values to one place");
                return;
            }
        }
    }
}
