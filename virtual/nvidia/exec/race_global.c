/* Races in global memory. Blocks know of each other through what they read: a strong write
 * publishes what its warp knew at its last fence (or now, if it releases), a strong read takes it
 * over at the next fence (or now, if it acquires).
 *
 * A launch runs on one worker while this check is on, and devices take turns between instructions
 * (turns.h), so that what is known of an access and the access itself are one step: who reads a
 * flag's value takes over what was published with that value, no more and no less. */
#include "race.h"

#include <stdio.h>
#include <stdlib.h>

#include "../../common/turns.h"

enum { PAGE_WORDS = 1024, KIND = 3, ACQUIRES = 8, RELEASES = 4 };

struct page {
    struct page *next;
    uint64_t number;
    struct vn_word words[PAGE_WORDS];
};

struct published { /* at an address that strong accesses use */
    struct published *next;
    uint64_t address;
    uint32_t block; /* of the last write, and how far that reaches */
    enum vn_reach reach;
    struct vn_knowledge knowledge;
};

enum { BUCKETS = 1 << 14, MOST_LAUNCHES = 64 };

/* A launch: for reports, and what those know that come after it. */
struct known_launch {
    uint32_t first, count;
    struct vn_knowledge known;    /* when it was over */
    const struct vn_image *image; /* NULL: it has been unloaded */
    char kernel[64];
    uint32_t grid[3], block[3];
};

/* Of all devices, which share memory. Who has the turn (turns.h) uses it, or nobody runs. */
struct vn_global_race {
    struct page *pages[BUCKETS];
    struct published *places[BUCKETS];
    uint32_t next[VC_MAX_DEVICES]; /* blocks that began, and 1 */
    struct vn_knowledge collected; /* from blocks of the launch that ends */
    uint32_t used;                 /* devices with anything remembered, a bit each */
    struct known_launch launches[VC_MAX_DEVICES][MOST_LAUNCHES];
};

static struct vn_global_race races;
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
            free(p);
        }
        races.pages[i] = NULL;
        races.places[i] = NULL;
    }
    races.used = 0;
}

/* ---- launches ---- */

uint32_t vn_races_reached(unsigned device)
{
    uint32_t next = __atomic_load_n(&races.next[device], __ATOMIC_RELAXED);
    return (uint32_t)device << VN_DEVICE_SHIFT | ((next + 1) & VN_NUMBERS);
}

uint32_t vn_race_number(const struct vn_launch_state *s, uint64_t linear)
{
    return (s->race_first & ~(uint32_t)VN_NUMBERS) |
           ((s->race_first + (uint32_t)linear) & VN_NUMBERS);
}

static void note_launch(const struct vn_launch_state *s)
{
    struct known_launch *list = races.launches[s->launch->device];
    pthread_mutex_lock(&launches_lock);
    free(list[MOST_LAUNCHES - 1].known.items);
    memmove(&list[1], &list[0], (MOST_LAUNCHES - 1) * sizeof list[0]);
    list[0] = (struct known_launch){
        .first = s->race_first, .count = (uint32_t)s->blocks, .image = s->image};
    snprintf(list[0].kernel, sizeof list[0].kernel, "%s", s->code->info.name);
    memcpy(list[0].grid, s->launch->grid, sizeof list[0].grid);
    memcpy(list[0].block, s->launch->block, sizeof list[0].block);
    pthread_mutex_unlock(&launches_lock);
}

/* Blocks below `over` come before. */
static void come_after(struct vn_knowledge *before, unsigned device, uint32_t over)
{
    const struct known_launch *list = races.launches[device];
    struct vn_knowledge now = {0};
    now.over[device] = over;
    if (over == before->over[device] || vn_races_later(over, before->over[device]) != over)
        return;
    before->over[device] = over;
    for (int i = 0; i < MOST_LAUNCHES; i++)
        if (list[i].count && vn_knows(&now, list[i].first, 0, 0)) {
            vn_knowledge_add(before, &list[i].known);
            return;
        }
}

/* It comes after those of its device, and those that its stream waited for or the host saw end; and
 * knows what they knew. */
bool vn_global_race_begin(struct vn_launch_state *s)
{
    unsigned device = s->launch->device;
    struct vn_knowledge *before = calloc(1, sizeof *before);
    if (!before)
        return false;
    s->race_first = vn_races_reached(device);
    come_after(before, device, s->race_first);
    for (unsigned d = 0; d < VC_MAX_DEVICES; d++)
        come_after(before, d, s->launch->after[d]);
    s->before = before;
    s->global_race = &races;
    races.used |= 1u << device;
    __atomic_store_n(&races.next[device], races.next[device] + (uint32_t)s->blocks,
                     __ATOMIC_RELAXED);
    note_launch(s);
    return true;
}

void vn_global_race_block(struct vn_block *block)
{
    if (!block->launch->global_race)
        return;
    for (uint32_t i = 0; i < block->warp_count; i++)
        vn_knowledge_add(&races.collected, &block->race->foreign[i]);
}

void vn_global_race_end(struct vn_launch_state *s)
{
    unsigned device = s->launch->device;
    struct vn_knowledge *known = &races.launches[device][0].known;
    vn_knowledge_copy(known, s->before);
    vn_knowledge_add(known, &races.collected);
    known->over[device] = vn_races_reached(device);
    vn_knowledge_clear(&races.collected);
    free(s->before->items);
    free(s->before);
    /* Nobody else has been there, or has anything to do: what comes is of this device. */
    if (races.used == 1u << device && vc_turns_alone(device))
        forget();
}

void vn_races_forget(const uint32_t seen[VC_MAX_DEVICES])
{
    for (unsigned d = 0; d < VC_MAX_DEVICES; d++)
        if (races.used >> d & 1 && seen[d] != vn_races_reached(d))
            return;
    forget();
}

void vn_global_race_unload(const struct vn_image *image)
{
    pthread_mutex_lock(&launches_lock);
    for (unsigned d = 0; d < VC_MAX_DEVICES; d++)
        for (int i = 0; i < MOST_LAUNCHES; i++)
            if (races.launches[d][i].image == image)
                races.launches[d][i].image = NULL;
    pthread_mutex_unlock(&launches_lock);
}

void vn_global_race_party(const struct vn_event *e, struct vn_party *party)
{
    party->device = vn_device_of(e->block);
    party->insn = NULL;
    party->kernel = "of long ago";
    pthread_mutex_lock(&launches_lock);
    for (int i = 0; i < MOST_LAUNCHES; i++) {
        const struct known_launch *l = &races.launches[party->device][i];
        party->block = (e->block - l->first) & VN_NUMBERS;
        if (party->block >= l->count)
            continue;
        party->kernel = l->kernel;
        party->insn = l->image ? e->insn : NULL;
        party->image = l->image;
        memcpy(party->grid, l->grid, sizeof party->grid);
        memcpy(party->block_size, l->block, sizeof party->block_size);
        break;
    }
}

void vn_global_race_told(void)
{
    pthread_mutex_unlock(&launches_lock);
}

/* ---- memory ---- */

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

/* What a warp has read of others becomes known. */
static void take(struct vn_warp *w, const struct vn_knowledge *k)
{
    struct vn_race *r = w->block->race;
    vn_knowledge_add(&r->foreign[w->index], k);
    for (uint32_t i = 0; i < k->count; i++)
        if (k->items[i].block == w->block->number)
            vn_clocks_join(&r->know[w->index], &k->items[i].clocks);
}

static void remember_told(struct vn_warp *w)
{
    struct vn_race *r = w->block->race;
    vn_knowledge_copy(&r->told[w->index], &r->foreign[w->index]);
    vn_knowledge_add(&r->told[w->index], w->launch->before);
}

void vn_global_race_fence(struct vn_warp *w)
{
    struct vn_knowledge *read = &w->block->race->read[w->index];
    take(w, read);
    vn_knowledge_clear(read);
    remember_told(w);
}

static void publish(struct vn_warp *w, struct published *p, enum vn_reach reach, bool release,
                    bool goes_on)
{
    struct vn_race *r = w->block->race;
    if (release) {
        r->know[w->index].of[w->index]++;
        r->released[w->index] = r->know[w->index];
        r->know[w->index].of[w->index]++;
        remember_told(w);
    }
    if (goes_on && p->block)
        reach = p->reach < reach ? p->reach : reach;
    else
        vn_knowledge_clear(&p->knowledge);
    p->block = w->block->number;
    p->reach = reach;
    vn_knowledge_join(&p->knowledge, p->block, &r->released[w->index]);
    vn_knowledge_add(&p->knowledge, &r->told[w->index]);
}

/* Strong accesses carry order. Shared ones go through here too, under addresses of their own. */
void vn_race_strong(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, int kind,
                    bool shared)
{
    struct vn_global_race *g = w->launch->global_race;
    const struct vn_insn *insn = w->next - 1;
    uint32_t order = insn->q & 15;
    enum vn_reach reach = vn_reach_of(insn);
    bool acquire = order == VN_ACQUIRE || order == VN_ACQ_REL || order == VN_SC;
    bool release = order == VN_RELEASE || order == VN_ACQ_REL || order == VN_SC;
    if (!g)
        return;
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        uint64_t address =
            shared ? VN_SHARED_WINDOW + a->at[l] + ((uint64_t)w->block->number << 32) : a->at[l];
        struct published *p = find_place(g, address);
        if (!p)
            continue;
        if (kind & ACQUIRES && p->block &&
            vn_reaches(p->reach < reach ? p->reach : reach, p->block, w->block->number)) {
            if (acquire)
                take(w, &p->knowledge);
            else
                vn_knowledge_add(&w->block->race->read[w->index], &p->knowledge);
        }
        /* A read-modify-write continues what was published before it. */
        if (kind & RELEASES)
            publish(w, p, reach, release, kind & ACQUIRES);
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
