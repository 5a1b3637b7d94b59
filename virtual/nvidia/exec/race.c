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
    for (int i = 0; i < VN_MAX_WARPS; i++) {
        free(race->foreign[i].items);
        free(race->read[i].items);
        free(race->told[i].items);
    }
    for (int i = 0; i < VN_BARRIERS; i++) {
        free(race->met[i].items);
        free(race->met_told[i].items);
    }
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
    memset(r->released, 0, sizeof r->released);
    for (uint32_t i = 0; i < block->warp_count; i++) {
        vn_knowledge_clear(&r->foreign[i]);
        vn_knowledge_clear(&r->read[i]);
        vn_knowledge_clear(&r->told[i]);
    }
    for (uint32_t i = 0; i < VN_BARRIERS; i++)
        vn_race_barrier(block, i);
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

void vn_knowledge_join(struct vn_knowledge *to, uint32_t block, const struct vn_clocks *clocks)
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

static bool is_over(const struct vn_knowledge *k, uint32_t block)
{
    uint32_t over = k->over[vn_device_of(block)];
    return over && (int32_t)((block - over) << 4) < 0;
}

/* Of blocks that are over it need not be known how far they had come. */
void vn_knowledge_add(struct vn_knowledge *to, const struct vn_knowledge *from)
{
    uint32_t kept = 0;
    for (int d = 0; d < VC_MAX_DEVICES; d++)
        to->over[d] = vn_races_later(from->over[d], to->over[d]);
    for (uint32_t i = 0; i < to->count; i++)
        if (!is_over(to, to->items[i].block))
            to->items[kept++] = to->items[i];
    to->count = kept;
    for (uint32_t i = 0; i < from->count; i++)
        if (!is_over(to, from->items[i].block))
            vn_knowledge_join(to, from->items[i].block, &from->items[i].clocks);
}

void vn_knowledge_clear(struct vn_knowledge *k)
{
    memset(k->over, 0, sizeof k->over);
    k->count = 0;
}

void vn_knowledge_copy(struct vn_knowledge *to, const struct vn_knowledge *from)
{
    vn_knowledge_clear(to);
    vn_knowledge_add(to, from);
}

bool vn_knows(const struct vn_knowledge *k, uint32_t block, uint32_t warp, uint32_t clock)
{
    if (is_over(k, block))
        return true;
    for (uint32_t i = 0; i < k->count; i++)
        if (k->items[i].block == block)
            return clock < k->items[i].clocks.of[warp];
    return false;
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
    if (w->launch->global_race) {
        vn_knowledge_add(&r->met[id], &r->foreign[w->index]);
        vn_knowledge_add(&r->met_told[id], &r->told[w->index]);
    }
}

/* The barrier opens: whoever waits at it knows what all knew. */
void vn_race_join(struct vn_warp *w, uint32_t id)
{
    struct vn_race *r = w->block->race;
    vn_clocks_join(&r->know[w->index], &r->arrived[id]);
    vn_clocks_join(&r->released[w->index], &r->arrived_released[id]);
    if (w->launch->global_race) {
        vn_knowledge_add(&r->foreign[w->index], &r->met[id]);
        vn_knowledge_add(&r->told[w->index], &r->met_told[id]);
    }
}

void vn_race_barrier(struct vn_block *block, uint32_t id)
{
    memset(&block->race->arrived[id], 0, sizeof block->race->arrived[id]);
    memset(&block->race->arrived_released[id], 0, sizeof block->race->arrived_released[id]);
    vn_knowledge_clear(&block->race->met[id]);
    vn_knowledge_clear(&block->race->met_told[id]);
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

/* Whether the event comes before what warp w does now. */
static bool comes_before(const struct vn_warp *w, uint32_t lane, const struct vn_event *e)
{
    const struct vn_race *r = w->block->race;
    if (e->block == w->block->number) {
        if (e->clock < r->base)
            return true; /* of a block that had this number in another memory: cannot be */
        if (e->warp == w->index && e->lane == lane && e->first == lane)
            return true;
        return e->clock < r->know[w->index].of[e->warp];
    }
    return vn_knows(&r->foreign[w->index], e->block, e->warp, e->clock) ||
           (w->launch->before && vn_knows(w->launch->before, e->block, e->warp, e->clock));
}

enum vn_reach vn_reach_of(const struct vn_insn *insn)
{
    uint32_t scope = insn->q >> 4;
    return scope == VN_SCOPE_CTA   ? VN_REACH_BLOCK
           : scope == VN_SCOPE_SYS ? VN_REACH_ALL
                                   : VN_REACH_DEVICE;
}

bool vn_reaches(enum vn_reach reach, uint32_t block, uint32_t other)
{
    return reach == VN_REACH_ALL || block == other ||
           (reach == VN_REACH_DEVICE && vn_device_of(block) == vn_device_of(other));
}

/* The access in question, as an event of lane. */
static struct vn_event event_of(const struct vn_warp *w, uint32_t lane, int kind)
{
    const struct vn_insn *insn = w->next - 1;
    bool strong = (kind & KIND) == VN_ATOMIC;
    return (struct vn_event){.clock = w->block->race->know[w->index].of[w->index],
                             .block = w->block->number,
                             .turn = w->block->race->turn,
                             .warp = (uint8_t)w->index,
                             .lane = (uint8_t)lane,
                             .first = (uint8_t)lane,
                             .write = strong ? kind & RELEASES : (kind & KIND) == VN_WRITE,
                             .update = strong && (kind & RMW) == RMW,
                             .guess = insn->flags & VN_GUESS &&
                                      !(w->launch->checks & VN_CHECK_CAS_LOADS),
                             .strong = (uint8_t)(strong ? 1 + vn_reach_of(insn) : 0),
                             .insn = insn};
}

/* Lanes of one instruction: who wins is compared by value, after the stores. */
static bool same_turn(const struct vn_event *a, const struct vn_event *b)
{
    return a->turn == b->turn && a->warp == b->warp && a->block == b->block && a->insn == b->insn &&
           a->clock == b->clock;
}

static bool conflict(const struct vn_warp *w, uint32_t lane, const struct vn_event *before,
                     const struct vn_event *now)
{
    /* Clocks only grow in one memory: what an earlier block did to shared memory lies below the
     * base. */
    if (!before->clock || (now->shared && before->clock < w->block->race->base))
        return false;
    if (before->strong && now->strong) { /* morally strong if each one's scope holds the other */
        uint32_t less = before->strong < now->strong ? before->strong : now->strong;
        if (vn_reaches(less - 1, before->block, now->block))
            return false;
    }
    if ((before->guess && now->update) || (before->update && now->guess))
        return false;
    return !same_turn(before, now) && !comes_before(w, lane, before);
}

/* How well `now` takes the place of one of its kind that is remembered. Those stay that a later
 * access is least likely to be ordered after: of other warps. */
static int fitness(const struct vn_warp *w, const struct vn_event *e, const struct vn_event *now)
{
    if (!e->clock)
        return 3;
    if (comes_before(w, now->lane, e))
        return 2;
    return e->warp == now->warp && e->block == now->block;
}

static void remember(const struct vn_warp *w, struct vn_event *events, int count,
                     const struct vn_event *now)
{
    int best = -1, at = 0;
    for (int i = 0; i < count; i++) {
        if (same_turn(&events[i], now)) {
            events[i].lane = now->lane;
            return;
        }
        int fit = fitness(w, &events[i], now);
        if (fit > best) {
            best = fit;
            at = i;
        }
    }
    events[at] = *now;
}

static struct vn_event *find_conflict(const struct vn_warp *w, struct vn_event *events, int count,
                                      const struct vn_event *now)
{
    for (int i = 0; i < count; i++) {
        if (conflict(w, now->lane, &events[i], now))
            return &events[i];
    }
    return NULL;
}

/* True if the access races with *other, which is forgotten: it is told once. */
static bool check_cell(const struct vn_warp *w, struct vn_cell *cell, const struct vn_event *now,
                       struct vn_event *other)
{
    struct vn_event *found = find_conflict(w, &cell->write, 1, now);
    if (!found)
        found = find_conflict(w, cell->stores, VN_STORES, now);
    if (!found && now->write)
        found = find_conflict(w, cell->reads, VN_READERS, now);
    if (!found && now->write)
        found = find_conflict(w, cell->watches, VN_WATCHERS, now);
    if (!found)
        return false;
    *other = *found;
    *found = (struct vn_event){0};
    return true;
}

static void record_cell(const struct vn_warp *w, struct vn_cell *cell, const struct vn_event *now)
{
    if (now->write && !now->strong) {
        uint8_t first = same_turn(&cell->write, now) ? cell->write.first : now->first;
        *cell = (struct vn_cell){.write = *now};
        cell->write.first = first;
    } else if (now->write) {
        remember(w, cell->stores, VN_STORES, now);
    } else if (now->strong || now->guess) {
        remember(w, cell->watches, VN_WATCHERS, now);
    } else {
        remember(w, cell->reads, VN_READERS, now);
    }
}

static void tell(struct vn_warp *w, const struct vn_event *now, const struct vn_event *other,
                 uint64_t address, uint32_t size)
{
    const char *kind = now->update ? "atomic" : now->write ? "store" : "load";
    struct vn_access access = {now->shared ? "shared" : "global", kind, address, size, now->lane};
    bool itself =
        other->block == now->block && other->warp == now->warp && other->lane == now->lane;
    uint32_t lane = itself ? other->first : other->lane;
    struct vn_party party = {.insn = other->insn,
                             .block = (other->block - w->launch->race_first) & VN_NUMBERS,
                             .thread = other->warp * 32u + lane};
    /* The other's block may be gone: its coordinates come from its number. */
    bool apart =
        vn_device_of(other->block) != vn_device_of(now->block) || party.block >= w->launch->blocks;
    if (apart)
        vn_global_race_party(other, &party);
    vn_find_race(w, now->shared ? "shared-race" : "global-race", &access, &party);
    if (apart)
        vn_global_race_told();
}

static void split(struct vn_word *word)
{
    for (int k = 1; k < 4 && !word->split; k++)
        word->bytes[k] = word->bytes[0];
    word->split = true;
}

/* Bytes [first, first + count) of a word at `address`. */
static void go_through(struct vn_warp *w, struct vn_word *word, uint64_t address, uint32_t first,
                       uint32_t count, const struct vn_event *now, int steps)
{
    struct vn_event other;
    bool told = false;
    if (count < 4)
        split(word);
    uint32_t cells = word->split ? first + count : 1;
    for (uint32_t k = first; k < cells; k++) {
        if (steps & VN_RACE_CHECK && !told && check_cell(w, &word->bytes[k], now, &other)) {
            tell(w, now, &other, address + k, word->split ? 1 : 4);
            told = true;
        }
        if (steps & VN_RACE_RECORD)
            record_cell(w, &word->bytes[k], now);
    }
}

void vn_race_words(struct vn_warp *w, struct vn_word *words, uint64_t address, uint32_t size,
                   uint32_t lane, int kind, bool shared, int steps)
{
    struct vn_event now = event_of(w, lane, kind);
    now.shared = shared;
    uint64_t base = address & ~(uint64_t)3, end = address + size;
    for (uint64_t at = base; at < end; at += 4) {
        uint32_t first = at < address ? (uint32_t)(address - at) : 0;
        uint32_t last = end - at < 4 ? (uint32_t)(end - at) : 4;
        go_through(w, &words[(at - base) / 4], at, first, last - first, &now, steps);
    }
}

bool vn_race_in_two_steps(uint32_t mask, int kind)
{
    return (kind & KIND) == VN_WRITE && mask & (mask - 1);
}

static void shared_lanes(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask,
                         uint32_t size, int kind, int steps)
{
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        vn_race_words(w, w->block->race->words + a->at[l] / 4, a->at[l], size, l, kind, true,
                      steps);
    }
}

void vn_race_shared(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                    int kind)
{
    struct vn_race *r = w->block->race;
    if (!r->word_count)
        return;
    r->turn++;
    if (vn_race_in_two_steps(mask, kind)) {
        shared_lanes(w, a, mask, size, kind, VN_RACE_CHECK);
        shared_lanes(w, a, mask, size, kind, VN_RACE_RECORD);
    } else {
        shared_lanes(w, a, mask, size, kind, VN_RACE_CHECK | VN_RACE_RECORD);
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
