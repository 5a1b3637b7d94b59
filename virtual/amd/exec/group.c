/* A workgroup: its waves' registers at the start, their turns, their barriers. */
#include "exec.h"

enum { QUANTUM = 4000, POISON = (int)0xbadc0ded };

/* ---- the start of a wave ---- */

static uint32_t put_user(struct va_wave *w, const struct va_launch *l, uint32_t at)
{
    const struct va_kernel *k = l->kernel;
    struct {
        unsigned bit, words;
        uint64_t value;
    } const user[] = {{0, 4, 0},
                      {1, 2, l->dispatch},
                      {2, 2, l->queue},
                      {3, 2, l->kernarg},
                      {4, 2, l->dispatch_id},
                      {5, 2, 0},
                      {6, 1, w->scratch_bytes}};
    for (size_t n = 0; n < sizeof user / sizeof user[0]; n++) {
        if (!(k->properties >> user[n].bit & 1))
            continue;
        for (unsigned x = 0; x < user[n].words && at < 16; x++)
            w->s[at++] = x < 2 ? (uint32_t)(user[n].value >> 32 * x) : 0;
    }
    uint32_t length = k->preload & 127, offset = k->preload >> 7;
    for (uint32_t x = 0; x < length && at < 32; x++)
        memcpy(&w->s[at++], (const void *)(uintptr_t)(l->kernarg + 4ull * (offset + x)), 4);
    return at;
}

/* Returns how many are set up. */
static uint32_t start_scalars(struct va_wave *w, const struct va_launch *l)
{
    uint32_t rsrc2 = l->kernel->rsrc2, at = rsrc2 >> 1 & 31;
    for (int k = 0; k < 128; k++)
        w->s[k] = (uint32_t)POISON;
    put_user(w, l, 0);
    for (int k = 0; k < 3; k++)
        if (rsrc2 >> (7 + k) & 1)
            w->s[at++] = w->group->id[k];
    if (rsrc2 >> 10 & 1)
        w->s[at++] = w->index == 0 ? 1u << 31 : 0;
    w->s64[VA_VCC / 2] = 0;
    w->s[VA_M0] = 0;
    return at;
}

/* The size in lanes of this workgroup: the last ones may be smaller. */
static void size_of(const struct va_group *g, uint32_t size[3])
{
    const struct va_launch *l = g->launch->launch;
    for (int k = 0; k < 3; k++) {
        bool last = g->id[k] == l->grid[k] - 1 && l->last_workgroup[k];
        size[k] = last ? l->last_workgroup[k] : l->workgroup[k];
    }
}

static void start_lanes(struct va_wave *w, const uint32_t size[3])
{
    uint32_t lanes = size[0] * size[1] * size[2], first = w->index * VA_LANES;
    uint64_t exec = 0;
    for (uint32_t l = 0; l < VA_LANES; l++) {
        uint32_t t = first + l, x = t % size[0], y = t / size[0] % size[1];
        uint32_t z = t / size[0] / size[1];
        w->v[0][l] = x | y << 10 | (z & 1023) << 20;
        exec |= (uint64_t)(t < lanes) << l;
    }
    w->s64[VA_EXEC / 2] = w->start_exec = exec;
}

static uint32_t mode_of(uint32_t rsrc1)
{
    return (rsrc1 >> 12 & 255) | (rsrc1 >> 21 & 1 ? VA_MODE_DX10_CLAMP : 0) |
           (rsrc1 >> 23 & 1 ? VA_MODE_IEEE : 0) | (rsrc1 >> 26 & 1 ? VA_MODE_FP16_OVFL : 0);
}

static void wave_start(struct va_wave *w, const uint32_t size[3])
{
    const struct va_launch_state *s = w->launch;
    uint32_t lanes = size[0] * size[1] * size[2];
    w->done = w->index * VA_LANES >= lanes;
    w->at_barrier = w->leave = false;
    w->pc = w->now = s->entry;
    w->scc = w->gpr_index = 0;
    w->queue_count = 0;
    w->access = 0;
    w->access_strong = w->access_releases = false;
    w->mode = mode_of(s->launch->kernel->rsrc1);
    w->slow = (w->mode & VA_MODE_SLOW) != VA_MODE_USUAL;
    for (uint32_t r = 0; r < w->vgprs + w->agprs; r++) {
        uint32_t *row = w->v[r < w->vgprs ? r : VA_ROWS / 2 + r - w->vgprs];
        for (int l = 0; l < VA_LANES; l++)
            row[l] = (uint32_t)POISON;
    }
    uint32_t set_up = start_scalars(w, s->launch);
    start_lanes(w, size);
    if (w->defined) {
        memset(w->defined, 0, VA_ROWS * sizeof w->defined[0]);
        w->defined[0] = UINT64_MAX;
        /* What the hardware sets up, and what the machine itself holds: flat_scratch to EXEC. */
        w->defined_s[0] = set_up < 64 ? (1ull << set_up) - 1 : UINT64_MAX;
        w->defined_s[1] = UINT64_MAX << (102 - 64);
    }
}

void va_group_start(struct va_group *g, uint64_t linear)
{
    const struct va_launch_state *s = g->launch;
    const uint32_t *grid = s->launch->grid;
    uint32_t size[3];
    g->linear = linear;
    g->id[0] = (uint32_t)(linear % grid[0]);
    g->id[1] = (uint32_t)(linear / grid[0] % grid[1]);
    g->id[2] = (uint32_t)(linear / grid[0] / grid[1]);
    g->live = g->waiting = 0;
    g->barrier_insn = NULL;
    g->epoch++;
    g->turn = 0;
    g->quanta = 0;
    memset(g->lds, 0xcd, g->lds_bytes);
    if (g->lds_written)
        memset(g->lds_written, 0, g->lds_bytes);
    if (g->race) {
        vr_start(g->race, linear, g->wave_count);
        g->race->lockstep = true;
    }
    size_of(g, size);
    for (uint32_t k = 0; k < g->wave_count; k++) {
        wave_start(&g->waves[k], size);
        g->live += !g->waves[k].done;
    }
    g->resident = true;
}

/* ---- barriers ---- */

static void release(struct va_group *g)
{
    if (!g->waiting || g->waiting < g->live)
        return;
    for (uint32_t k = 0; k < g->wave_count; k++) {
        if (g->race && g->waves[k].at_barrier)
            va_race_join(&g->waves[k]);
        g->waves[k].at_barrier = false;
    }
    if (g->race)
        vr_clear(g->race, 0);
    g->waiting = 0;
    g->barrier_insn = NULL;
    g->epoch++;
    g->worker->barriers++;
}

void va_barrier(struct va_wave *w, const struct va_insn *insn)
{
    struct va_group *g = w->group;
    if (g->barrier_insn && g->barrier_insn != insn && w->launch->checks & VA_CHECK_BARRIERS)
        va_find(w, "divergent-barrier", -1, 0, 0, g->barrier_insn,
                "waits here while other waves of the workgroup wait at text + 0x%llx",
                (unsigned long long)(g->barrier_insn - w->insns) * 4);
    g->barrier_insn = insn;
    if (g->race)
        va_race_barrier(w);
    w->at_barrier = w->leave = true;
    g->waiting++;
    release(g);
}

/* ---- turns ---- */

static bool can_run(const struct va_wave *w)
{
    return !w->done && !w->at_barrier;
}

static struct va_wave *next_wave(struct va_group *g)
{
    uint32_t n = g->wave_count, first = g->turn;
    enum va_schedule schedule = g->launch->launch->schedule;
    if (schedule == VA_RANDOM)
        first = (uint32_t)(va_random(g->worker) % n);
    for (uint32_t k = 0; k < n; k++) {
        /* Adversarial: the last wave runs as far as it can before any other does. */
        uint32_t at = schedule == VA_ADVERSARIAL ? (first + n - 1 - k) % n : (first + k) % n;
        if (can_run(&g->waves[at])) {
            g->turn = schedule == VA_ADVERSARIAL ? at : (at + 1) % n;
            return &g->waves[at];
        }
    }
    return NULL;
}

static void check_limits(struct va_wave *w)
{
    struct va_launch_state *s = w->launch;
    if (s->launch->stop && atomic_load(s->launch->stop))
        va_fault(w, VA_STOPPED, "stopped", -1, 0, 0, "the launch was stopped");
    if (s->deadline_ns && va_now_ns() > s->deadline_ns)
        va_fault(w, VA_TIMEOUT, "timeout", -1, 0, 0, "the launch took more than %llu ms",
                 (unsigned long long)s->launch->time_limit_ms);
    if (atomic_load_explicit(&s->status, memory_order_relaxed) != VA_OK)
        longjmp(w->worker->fail, 1);
}

bool va_group_run(struct va_group *g)
{
    struct va_worker *worker = g->worker;
    struct va_wave *w = next_wave(g);
    if (!w)
        return false;
    uint64_t steps = QUANTUM;
    if (g->launch->launch->schedule == VA_RANDOM ||
        (g->race && g->launch->launch->schedule == VA_ADVERSARIAL))
        steps = 1 + va_random(worker) % 64;
    check_limits(w);
    w->launch->isa->run(w, steps);
    worker->clock += steps;
    g->quanta++;
    if (w->done) {
        g->live--;
        release(g);
    }
    return g->live > 0;
}
