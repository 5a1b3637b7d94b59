#include "race.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "turns.h"

/* ---- what is known ---- */

static void vr_clocks_join(struct vr_clocks *to, const struct vr_clocks *from)
{
    for (int i = 0; i < VR_WARPS; i++)
        to->of[i] = from->of[i] > to->of[i] ? from->of[i] : to->of[i];
}

static void vr_knowledge_join(struct vr_knowledge *to, uint32_t block,
                              const struct vr_clocks *clocks)
{
    for (uint32_t i = 0; i < to->count; i++) {
        if (to->items[i].block == block) {
            vr_clocks_join(&to->items[i].clocks, clocks);
            return;
        }
    }
    if (to->count == to->capacity) {
        uint32_t capacity = to->capacity ? to->capacity * 2 : 8;
        struct vr_known *more = realloc(to->items, capacity * sizeof *more);
        if (!more)
            return; /* less is known: at worst a report too many */
        to->items = more;
        to->capacity = capacity;
    }
    to->items[to->count++] = (struct vr_known){.block = block, .clocks = *clocks};
}

static bool is_over(const struct vr_knowledge *k, uint32_t block)
{
    uint32_t over = k->over[vr_device_of(block)];
    return over && (int32_t)((block - over) << 4) < 0;
}

/* Of blocks that are over it need not be known how far they had come. */
static void vr_knowledge_add(struct vr_knowledge *to, const struct vr_knowledge *from)
{
    uint32_t kept = 0;
    for (int d = 0; d < VC_MAX_DEVICES; d++)
        to->over[d] = vr_later(from->over[d], to->over[d]);
    for (uint32_t i = 0; i < to->count; i++)
        if (!is_over(to, to->items[i].block))
            to->items[kept++] = to->items[i];
    to->count = kept;
    for (uint32_t i = 0; i < from->count; i++)
        if (!is_over(to, from->items[i].block))
            vr_knowledge_join(to, from->items[i].block, &from->items[i].clocks);
}

static void vr_knowledge_clear(struct vr_knowledge *k)
{
    memset(k->over, 0, sizeof k->over);
    k->count = 0;
}

static void vr_knowledge_copy(struct vr_knowledge *to, const struct vr_knowledge *from)
{
    vr_knowledge_clear(to);
    vr_knowledge_add(to, from);
}

static bool vr_knows(const struct vr_knowledge *k, uint32_t block, uint32_t warp, uint32_t clock)
{
    if (is_over(k, block))
        return true;
    for (uint32_t i = 0; i < k->count; i++)
        if (k->items[i].block == block)
            return clock < k->items[i].clocks.of[warp];
    return false;
}

/* ---- what is remembered ---- */

enum { PAGE_WORDS = 1024 };

struct page {
    struct page *next;
    uint64_t number;
    struct vr_word words[PAGE_WORDS];
};

struct published { /* at an address that strong accesses use */
    struct published *next;
    uint64_t address;
    uint32_t block; /* of the last write, and how far that reaches */
    enum vr_reach reach;
    struct vr_knowledge knowledge, near; /* near: for the device of the block alone */
};

enum { BUCKETS = 1 << 14, MOST_LAUNCHES = 64 };

/* A launch: for reports, and what those know that come after it. */
struct known_launch {
    uint32_t first, count;
    struct vr_knowledge known; /* when it was over */
    const void *code;          /* NULL: it has been unloaded */
    char kernel[64];
    uint32_t grid[3], block[3];
};

/* Of all devices, which share memory. Who has the turn (turns.h) uses it, or nobody runs. */
static struct {
    struct page *pages[BUCKETS];
    struct published *places[BUCKETS];
    uint32_t next[VC_MAX_DEVICES];                 /* blocks that began, and 1 */
    struct vr_knowledge collected[VC_MAX_DEVICES]; /* from blocks of the launch that runs */
    uint32_t used; /* devices with anything remembered, a bit each */
    struct known_launch launches[VC_MAX_DEVICES][MOST_LAUNCHES];
} races;

/* Around what reports need of launches: code is unloaded at any time. */
static pthread_mutex_t launches_lock = PTHREAD_MUTEX_INITIALIZER;

static void forget(void)
{
    for (int i = 0; i < BUCKETS; i++) {
        for (struct page *p = races.pages[i], *next; p; p = next) {
            next = p->next;
            free(p);
        }
        for (struct published *p = races.places[i], *next; p; p = next) {
            next = p->next;
            free(p->knowledge.items);
            free(p->near.items);
            free(p);
        }
        races.pages[i] = NULL;
        races.places[i] = NULL;
    }
    races.used = 0;
}

/* Whether an access of one block has the other in its scope. */
static bool vr_reaches(enum vr_reach reach, uint32_t block, uint32_t other)
{
    return reach == VR_REACH_ALL || block == other ||
           (reach == VR_REACH_DEVICE && vr_device_of(block) == vr_device_of(other));
}

/* ---- launches ---- */

uint32_t vr_reached(unsigned device)
{
    uint32_t next = __atomic_load_n(&races.next[device], __ATOMIC_RELAXED);
    return (uint32_t)device << VR_DEVICE_SHIFT | ((next + 1) & VR_NUMBERS);
}

static void note_launch(const struct vr_launch *l)
{
    struct known_launch *list = races.launches[l->device];
    pthread_mutex_lock(&launches_lock);
    free(list[MOST_LAUNCHES - 1].known.items);
    memmove(&list[1], &list[0], (MOST_LAUNCHES - 1) * sizeof list[0]);
    list[0] = (struct known_launch){.first = l->first, .count = l->count, .code = l->code};
    snprintf(list[0].kernel, sizeof list[0].kernel, "%s", l->kernel);
    memcpy(list[0].grid, l->grid, sizeof list[0].grid);
    memcpy(list[0].block, l->block, sizeof list[0].block);
    pthread_mutex_unlock(&launches_lock);
}

/* Blocks below `over` come before. */
static void come_after(struct vr_knowledge *before, unsigned device, uint32_t over)
{
    const struct known_launch *list = races.launches[device];
    struct vr_knowledge now = {0};
    now.over[device] = over;
    if (over == before->over[device] || vr_later(over, before->over[device]) != over)
        return;
    before->over[device] = over;
    for (int i = 0; i < MOST_LAUNCHES; i++)
        if (list[i].count && vr_knows(&now, list[i].first, 0, 0)) {
            vr_knowledge_add(before, &list[i].known);
            return;
        }
}

/* It comes after those of its device too, and knows what all of them knew. */
bool vr_launch_begin(struct vr_launch *l, const uint32_t after[VC_MAX_DEVICES])
{
    struct vr_knowledge *before = calloc(1, sizeof *before);
    if (!before)
        return false;
    l->first = vr_reached(l->device);
    come_after(before, l->device, l->first);
    for (unsigned d = 0; d < VC_MAX_DEVICES; d++)
        come_after(before, d, after[d]);
    l->before = before;
    races.used |= 1u << l->device;
    __atomic_store_n(&races.next[l->device], races.next[l->device] + l->count, __ATOMIC_RELAXED);
    note_launch(l);
    return true;
}

void vr_launch_end(struct vr_launch *l)
{
    struct vr_knowledge *known = &races.launches[l->device][0].known;
    vr_knowledge_copy(known, l->before);
    vr_knowledge_add(known, &races.collected[l->device]);
    known->over[l->device] = vr_reached(l->device);
    vr_knowledge_clear(&races.collected[l->device]);
    free(l->before->items);
    free(l->before);
    l->before = NULL;
    /* Nobody else has been there, or has anything to do: what comes is of this device. */
    if (races.used == 1u << l->device && vc_turns_alone(l->device))
        forget();
}

void vr_forget(const uint32_t seen[VC_MAX_DEVICES])
{
    for (unsigned d = 0; d < VC_MAX_DEVICES; d++)
        if (races.used >> d & 1 && seen[d] != vr_reached(d))
            return;
    forget();
}

void vr_ended(struct vr_ends *ends, uint64_t ticket, unsigned device)
{
    memmove(&ends->of[1], &ends->of[0], sizeof ends->of - sizeof ends->of[0]);
    ends->of[0].ticket = ticket;
    ends->of[0].reached = vr_reached(device);
}

/* 0: nothing. */
static uint32_t reached_by(const struct vr_ends *ends, uint64_t ticket)
{
    enum { COUNT = sizeof ends->of / sizeof ends->of[0] };
    uint32_t reached = 0;
    for (size_t i = 0; i < COUNT; i++) {
        if (!ends->of[i].ticket)
            break;
        reached = ends->of[i].reached; /* of long ago: of the last that is known */
        if (ends->of[i].ticket <= ticket)
            return reached;
    }
    return ends->of[COUNT - 1].ticket ? reached : 0;
}

void vr_wait_for(uint32_t after[VC_MAX_DEVICES], const struct vr_ends *ends, uint64_t ticket,
                 unsigned device)
{
    after[device] = vr_later(reached_by(ends, ticket), after[device]);
}

void vr_unload(const void *code)
{
    pthread_mutex_lock(&launches_lock);
    for (unsigned d = 0; d < VC_MAX_DEVICES; d++)
        for (int i = 0; i < MOST_LAUNCHES; i++)
            if (races.launches[d][i].code == code)
                races.launches[d][i].code = NULL;
    pthread_mutex_unlock(&launches_lock);
}

/* With the lock held: of which launch the other side was. */
static void find_party(const struct vr_event *e, struct vr_party *party)
{
    party->device = vr_device_of(e->block);
    party->kernel = "of long ago";
    for (int i = 0; i < MOST_LAUNCHES; i++) {
        const struct known_launch *l = &races.launches[party->device][i];
        party->block = (e->block - l->first) & VR_NUMBERS;
        if (party->block >= l->count)
            continue;
        party->kernel = l->kernel;
        party->code = l->code;
        memcpy(party->grid, l->grid, sizeof party->grid);
        memcpy(party->size, l->block, sizeof party->size);
        return;
    }
}

/* ---- memory ---- */

static uint32_t bucket(uint64_t x)
{
    return (uint32_t)(x * 0x9e3779b97f4a7c15u >> 50);
}

static struct vr_word *find_word(uint64_t address)
{
    uint64_t number = address / (4 * PAGE_WORDS);
    struct page **list = &races.pages[bucket(number)], *p = *list;
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

static struct published *find_place(uint64_t address)
{
    struct published **list = &races.places[bucket(address)], *p = *list;
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

/* ---- blocks ---- */

struct vr_block *vr_create(const struct vr_launch *launch, uint32_t shared_bytes)
{
    struct vr_block *race = calloc(1, sizeof *race);
    if (!race)
        return NULL;
    race->base = 1;
    race->launch = launch;
    race->word_count = (shared_bytes + 3) / 4;
    race->words = calloc(race->word_count + 1, sizeof *race->words);
    if (!race->words) {
        free(race);
        return NULL;
    }
    return race;
}

void vr_destroy(struct vr_block *race)
{
    if (!race)
        return;
    for (int i = 0; i < VR_WARPS; i++) {
        free(race->foreign[i].items);
        free(race->read[i].items);
        for (int m = 0; m < VR_MESSAGES; m++)
            free(race->told[i][m].foreign.items);
    }
    for (int i = 0; i < VR_BARRIERS; i++) {
        free(race->met[i].items);
        for (int m = 0; m < VR_MESSAGES; m++)
            free(race->met_told[i][m].foreign.items);
    }
    free(race->words);
    free(race);
}

static void message_clear(struct vr_message *m)
{
    memset(&m->clocks, 0, sizeof m->clocks);
    vr_knowledge_clear(&m->foreign);
}

static bool is_empty(const struct vr_message *m)
{
    uint32_t any = 0;
    for (int i = 0; i < VR_WARPS; i++)
        any |= m->clocks.of[i];
    return !any;
}

static void message_add(struct vr_message *to, const struct vr_message *from)
{
    vr_clocks_join(&to->clocks, &from->clocks);
    vr_knowledge_add(&to->foreign, &from->foreign);
}

/* A new block in the same memory: clocks go on from above all that were used. */
void vr_start(struct vr_block *r, uint64_t linear, uint32_t warps)
{
    const struct vr_launch *l = r->launch;
    uint32_t top = r->base;
    r->warps = warps;
    r->number =
        l ? (l->first & ~(uint32_t)VR_NUMBERS) | ((l->first + (uint32_t)linear) & VR_NUMBERS)
          : (uint32_t)linear;
    for (uint32_t i = 0; i < warps; i++)
        top = r->know[i].of[i] > top ? r->know[i].of[i] : top;
    r->base = top + 1;
    for (uint32_t i = 0; i < warps; i++) {
        vr_knowledge_clear(&r->foreign[i]);
        vr_knowledge_clear(&r->read[i]);
        for (int m = 0; m < VR_MESSAGES; m++)
            message_clear(&r->told[i][m]);
        for (uint32_t k = 0; k < warps; k++)
            r->know[i].of[k] = r->base;
        r->done[i] = r->know[i];
    }
    for (uint32_t i = 0; i < VR_BARRIERS; i++)
        vr_clear(r, i);
}

void vr_end(struct vr_block *r)
{
    for (uint32_t i = 0; r->launch && i < r->warps; i++)
        vr_knowledge_add(&races.collected[r->launch->device], &r->foreign[i]);
}

static void tick(struct vr_warp *w)
{
    w->block->know[w->index].of[w->index]++;
}

void vr_arrive(struct vr_warp *w, uint32_t id)
{
    struct vr_block *r = w->block;
    tick(w);
    vr_clocks_join(&r->arrived[id], &r->know[w->index]);
    if (!r->launch)
        return;
    vr_clocks_join(&r->arrived_done[id], &r->done[w->index]);
    vr_knowledge_add(&r->met[id], &r->foreign[w->index]);
    /* A fence before the barrier serves a flag that another warp sets behind it. */
    for (int m = 0; m < VR_MESSAGES; m++)
        message_add(&r->met_told[id][m], &r->told[w->index][m]);
}

/* The barrier opens: whoever waits at it knows what all knew. */
void vr_join(struct vr_warp *w, uint32_t id)
{
    struct vr_block *r = w->block;
    vr_clocks_join(&r->know[w->index], &r->arrived[id]);
    if (!r->launch)
        return;
    vr_clocks_join(&r->done[w->index], &r->arrived_done[id]);
    vr_knowledge_add(&r->foreign[w->index], &r->met[id]);
    for (int m = 0; m < VR_MESSAGES; m++)
        message_add(&r->told[w->index][m], &r->met_told[id][m]);
}

void vr_clear(struct vr_block *r, uint32_t id)
{
    memset(&r->arrived[id], 0, sizeof r->arrived[id]);
    memset(&r->arrived_done[id], 0, sizeof r->arrived_done[id]);
    vr_knowledge_clear(&r->met[id]);
    for (int m = 0; m < VR_MESSAGES; m++)
        message_clear(&r->met_told[id][m]);
}

void vr_meet(struct vr_warp *w)
{
    tick(w);
}

/* What another warp has read of this block, and of others, becomes known. */
static void take(struct vr_warp *w, const struct vr_knowledge *k)
{
    struct vr_block *r = w->block;
    vr_knowledge_add(&r->foreign[w->index], k);
    for (uint32_t i = 0; i < k->count; i++)
        if (k->items[i].block == r->number)
            vr_clocks_join(&r->know[w->index], &k->items[i].clocks);
}

/* Of one device alone, if it reaches no further. */
void vr_acquire(struct vr_warp *w, enum vr_reach reach)
{
    struct vr_block *r = w->block;
    struct vr_knowledge *read = &r->read[w->index];
    if (!r->launch)
        return;
    uint32_t kept = 0;
    for (unsigned d = 0; d < VC_MAX_DEVICES && reach != VR_REACH_ALL; d++)
        read->over[d] = d == r->launch->device ? read->over[d] : 0;
    for (uint32_t i = 0; i < read->count; i++)
        if (vr_reaches(reach, read->items[i].block, r->number))
            read->items[kept++] = read->items[i];
    read->count = kept;
    take(w, read);
    vr_knowledge_clear(read);
}

static void release(struct vr_warp *w, int which, const struct vr_clocks *clocks)
{
    struct vr_block *r = w->block;
    struct vr_message *told = &r->told[w->index][which];
    told->clocks = *clocks;
    if (!r->launch)
        return;
    vr_knowledge_copy(&told->foreign, &r->foreign[w->index]);
    vr_knowledge_add(&told->foreign, r->launch->before);
}

void vr_release(struct vr_warp *w)
{
    tick(w);
    release(w, VR_FAR, &w->block->know[w->index]);
    tick(w);
}

uint32_t vr_next(struct vr_warp *w)
{
    tick(w);
    return w->block->know[w->index].of[w->index] - 1;
}

void vr_done(struct vr_warp *w, uint32_t below)
{
    w->block->done[w->index].of[w->index] = below;
}

/* What all devices have been told, the own one need not be. */
void vr_release_done(struct vr_warp *w, enum vr_reach reach)
{
    release(w, reach == VR_REACH_ALL ? VR_FAR : VR_NEAR, &w->block->done[w->index]);
    if (reach == VR_REACH_ALL)
        message_clear(&w->block->told[w->index][VR_NEAR]);
}

/* Whether the event comes before what warp w does now. */
static bool comes_before(const struct vr_warp *w, uint32_t lane, const struct vr_event *e)
{
    const struct vr_block *r = w->block;
    if (e->block == w->block->number) {
        if (e->clock < r->base)
            return true; /* of a block that had this number in another memory: cannot be */
        if (e->warp == w->index && (r->lockstep || (e->lane == lane && e->first == lane)))
            return true;
        return e->clock < r->know[w->index].of[e->warp];
    }
    return r->launch && (vr_knows(&r->foreign[w->index], e->block, e->warp, e->clock) ||
                         vr_knows(r->launch->before, e->block, e->warp, e->clock));
}

/* The access in question, as an event of lane. */
static struct vr_event event_of(const struct vr_warp *w, const struct vr_access *access,
                                uint32_t lane)
{
    const struct vr_block *r = w->block;
    return (struct vr_event){.clock = r->know[w->index].of[w->index],
                             .block = r->number,
                             .turn = r->turn,
                             .warp = (uint8_t)w->index,
                             .lane = (uint8_t)lane,
                             .first = (uint8_t)lane,
                             .shared = access->shared,
                             .write = access->writes,
                             .update = access->strong && access->reads && access->writes,
                             .guess = access->guess,
                             .strong = (uint8_t)(access->strong ? 1 + access->reach : 0),
                             .insn = access->insn};
}

/* Lanes of one instruction: who wins is compared by value, after the stores. */
static bool same_turn(const struct vr_event *a, const struct vr_event *b)
{
    return a->turn == b->turn && a->warp == b->warp && a->block == b->block && a->insn == b->insn &&
           a->clock == b->clock;
}

static bool conflict(const struct vr_warp *w, uint32_t lane, const struct vr_event *before,
                     const struct vr_event *now)
{
    /* Clocks only grow in one memory: what an earlier block did to shared memory lies below the
     * base. */
    if (!before->clock || (now->shared && before->clock < w->block->base))
        return false;
    if (before->strong && now->strong) { /* morally strong if each one's scope holds the other */
        uint32_t less = before->strong < now->strong ? before->strong : now->strong;
        if (vr_reaches(less - 1, before->block, now->block))
            return false;
    }
    if ((before->guess && now->update) || (before->update && now->guess))
        return false;
    return !same_turn(before, now) && !comes_before(w, lane, before);
}

/* How well `now` takes the place of one of its kind that is remembered. Those stay that a later
 * access is least likely to be ordered after: of other warps. */
static int fitness(const struct vr_warp *w, const struct vr_event *e, const struct vr_event *now)
{
    if (!e->clock)
        return 3;
    if (comes_before(w, now->lane, e))
        return 2;
    return e->warp == now->warp && e->block == now->block;
}

static void remember(const struct vr_warp *w, struct vr_event *events, int count,
                     const struct vr_event *now)
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

static struct vr_event *find_conflict(const struct vr_warp *w, struct vr_event *events, int count,
                                      const struct vr_event *now)
{
    for (int i = 0; i < count; i++) {
        if (conflict(w, now->lane, &events[i], now))
            return &events[i];
    }
    return NULL;
}

/* True if the access races with *other, which is forgotten: it is told once. */
static bool check_cell(const struct vr_warp *w, struct vr_cell *cell, const struct vr_event *now,
                       struct vr_event *other)
{
    struct vr_event *found = find_conflict(w, &cell->write, 1, now);
    if (!found)
        found = find_conflict(w, cell->stores, VR_STORES, now);
    if (!found && now->write)
        found = find_conflict(w, cell->reads, VR_READERS, now);
    if (!found && now->write)
        found = find_conflict(w, cell->watches, VR_WATCHERS, now);
    if (!found)
        return false;
    *other = *found;
    *found = (struct vr_event){0};
    return true;
}

static void record_cell(const struct vr_warp *w, struct vr_cell *cell, const struct vr_event *now)
{
    if (now->write && !now->strong) {
        uint8_t first = same_turn(&cell->write, now) ? cell->write.first : now->first;
        *cell = (struct vr_cell){.write = *now};
        cell->write.first = first;
    } else if (now->write) {
        remember(w, cell->stores, VR_STORES, now);
    } else if (now->strong || now->guess) {
        remember(w, cell->watches, VR_WATCHERS, now);
    } else {
        remember(w, cell->reads, VR_READERS, now);
    }
}

/* The other's block may be gone: its coordinates come from its number. */
static void report(struct vr_warp *w, const struct vr_access *access, const struct vr_event *now,
                   const struct vr_event *other, uint64_t address, uint32_t size, vr_tell *tell)
{
    const struct vr_launch *l = w->block->launch;
    bool itself =
        other->block == now->block && other->warp == now->warp && other->lane == now->lane;
    struct vr_party party = {.insn = other->insn,
                             .warp = other->warp,
                             .lane = itself ? other->first : other->lane,
                             .block = l ? (other->block - l->first) & VR_NUMBERS : other->block};
    pthread_mutex_lock(&launches_lock);
    party.apart = l && (vr_device_of(other->block) != l->device || party.block >= l->count);
    if (party.apart)
        find_party(other, &party);
    tell(w->user, access, now->lane, address, size, &party);
    pthread_mutex_unlock(&launches_lock);
}

static void split(struct vr_word *word)
{
    for (int k = 1; k < 4 && !word->split; k++)
        word->bytes[k] = word->bytes[0];
    word->split = true;
}

enum { CHECK = 1, RECORD = 2 };

/* Bytes [first, first + count) of a word at `address`. */
static void go_through(struct vr_warp *w, const struct vr_access *access, struct vr_word *word,
                       uint64_t address, uint32_t first, uint32_t count, const struct vr_event *now,
                       int steps, vr_tell *tell)
{
    struct vr_event other;
    bool told = false;
    if (count < 4)
        split(word);
    uint32_t cells = word->split ? first + count : 1;
    for (uint32_t k = first; k < cells; k++) {
        if (steps & CHECK && !told && check_cell(w, &word->bytes[k], now, &other)) {
            report(w, access, now, &other, address + k, word->split ? 1 : 4, tell);
            told = true;
        }
        if (steps & RECORD)
            record_cell(w, &word->bytes[k], now);
    }
}

static void touch_lane(struct vr_warp *w, const struct vr_access *access, uint64_t address,
                       uint32_t size, uint32_t lane, int steps, vr_tell *tell)
{
    struct vr_event now = event_of(w, access, lane);
    uint64_t end = address + size;
    for (uint64_t at = address & ~(uint64_t)3; at < end; at += 4) {
        uint32_t first = at < address ? (uint32_t)(address - at) : 0;
        uint32_t last = end - at < 4 ? (uint32_t)(end - at) : 4;
        struct vr_word *word = access->shared ? &w->block->words[at / 4] : find_word(at);
        if (word)
            go_through(w, access, word, at, first, last - first, &now, steps, tell);
    }
}

/* ---- order ---- */

static void publish(struct vr_warp *w, const struct vr_access *access, struct published *p)
{
    const struct vr_block *r = w->block;
    enum vr_reach reach = access->reach;
    if (access->release)
        vr_release(w);
    /* A read-modify-write continues what was published before it. */
    if (access->reads && p->block)
        reach = p->reach < reach ? p->reach : reach;
    else {
        vr_knowledge_clear(&p->knowledge);
        vr_knowledge_clear(&p->near);
    }
    p->block = r->number;
    p->reach = reach;
    const struct vr_message *told = r->told[w->index];
    vr_knowledge_join(&p->knowledge, r->number, &told[VR_FAR].clocks);
    vr_knowledge_add(&p->knowledge, &told[VR_FAR].foreign);
    if (!is_empty(&told[VR_NEAR])) {
        vr_knowledge_join(&p->near, r->number, &told[VR_NEAR].clocks);
        vr_knowledge_add(&p->near, &told[VR_NEAR].foreign);
    }
}

/* Strong accesses carry order: a write publishes what its warp knew at its last release, a read
 * takes it over at the next acquire. Those of shared memory too, under addresses of their own. */
static void carry(struct vr_warp *w, const struct vr_access *access, uint64_t address)
{
    struct vr_block *r = w->block;
    struct published *p =
        find_place(access->shared ? address | 1ull << 63 | (uint64_t)r->number << 31 : address);
    if (!p)
        return;
    if (access->reads && p->block &&
        vr_reaches(p->reach < access->reach ? p->reach : access->reach, p->block, r->number)) {
        if (access->acquire)
            take(w, &p->knowledge);
        else
            vr_knowledge_add(&r->read[w->index], &p->knowledge);
        if (p->near.count && vr_device_of(p->block) == vr_device_of(r->number))
            vr_knowledge_add(&r->read[w->index], &p->near);
    }
    if (access->writes)
        publish(w, access, p);
}

void vr_touch(struct vr_warp *w, const struct vr_access *access, const uint64_t *at, uint64_t mask,
              uint32_t size, vr_tell *tell)
{
    /* A plain store ends what was before it: all lanes are checked before one is recorded. */
    bool twice = access->writes && !access->strong && mask & (mask - 1);
    w->block->turn++;
    for (int steps = twice ? CHECK : CHECK | RECORD;; steps = RECORD) {
        for (uint64_t m = mask; m; m &= m - 1) {
            uint32_t l = (uint32_t)__builtin_ctzll(m);
            touch_lane(w, access, at[l], size, l, steps, tell);
        }
        if (steps & RECORD)
            break;
    }
    for (uint64_t m = access->strong && w->block->launch ? mask : 0; m; m &= m - 1)
        carry(w, access, at[__builtin_ctzll(m)]);
}
