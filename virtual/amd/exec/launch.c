/* A launch: workgroups spread over the pool's workers, and what they counted brought together. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "../../common/turns.h"
#include "exec.h"

enum { MOST_MIXED = 8, MOST_RESIDENT = 64, LONG_RUN = 2000, MOST_LDS = 65536 };

struct resident {
    struct va_group *groups;
    uint32_t count;
};

static void *pages(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static size_t scratch_size(const struct va_launch_state *s)
{
    return (((size_t)s->scratch_bytes + 3) & ~(size_t)3) * VA_LANES;
}

static void free_group(struct va_group *g)
{
    for (uint32_t k = 0; g->waves && k < g->wave_count; k++) {
        struct va_wave *w = &g->waves[k];
        if (w->v)
            munmap(w->v, VA_ROWS * sizeof w->v[0]);
        if (w->scratch)
            munmap(w->scratch, scratch_size(g->launch));
        free(w->defined);
        free(w->queue_rows);
        free(w->queue);
    }
    free(g->waves);
    free(g->lds);
    free(g->lds_written);
    free(g->marks);
    vr_destroy(g->race);
}

uint64_t va_random(struct va_worker *worker)
{
    uint64_t x = worker->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return worker->random = x;
}

static bool make_queue(struct va_wave *w)
{
    w->queue = calloc(VA_QUEUE, sizeof *w->queue);
    if (!w->queue)
        return false;
    w->queue_rows = aligned_alloc(64, sizeof(uint32_t[VA_QUEUE * VA_PENDING_ROWS][VA_LANES]));
    for (unsigned k = 0; w->queue_rows && k < VA_QUEUE; k++)
        w->queue[k].data = w->queue_rows + k * VA_PENDING_ROWS;
    return w->queue_rows;
}

static bool make_wave(struct va_wave *w, struct va_group *g, uint32_t index)
{
    struct va_launch_state *s = g->launch;
    w->index = index;
    w->group = g;
    w->launch = s;
    w->worker = g->worker;
    w->counts = g->worker->counts;
    w->insns = s->code->insns;
    w->text = s->code->address;
    w->text_bytes = s->code->bytes;
    w->vgprs = s->registers.vgprs;
    w->agprs = s->registers.agprs;
    w->sgprs = s->registers.sgprs;
    w->scratch_bytes = s->scratch_bytes;
    w->v = pages(VA_ROWS * sizeof w->v[0]);
    if (s->scratch_bytes && !(w->scratch = pages(scratch_size(s))))
        return false;
    if (s->checks & VA_CHECK_WAITS && !make_queue(w))
        return false;
    if (s->checks & VA_CHECK_REGISTERS && !(w->defined = calloc(VA_ROWS, sizeof *w->defined)))
        return false;
    return w->v;
}

static bool make_group(struct va_group *g, struct va_worker *worker)
{
    struct va_launch_state *s = worker->launch;
    memset(g, 0, sizeof *g);
    g->launch = s;
    g->worker = worker;
    g->wave_count = s->waves;
    g->lds_bytes = s->lds_bytes;
    g->waves = calloc(s->waves, sizeof *g->waves);
    g->lds = aligned_alloc(64, (s->lds_bytes + 127u) & ~63u);
    if (!g->waves || !g->lds)
        return false;
    if (s->checks & VA_CHECK_UNINITIALISED && s->lds_bytes &&
        !(g->lds_written = malloc(s->lds_bytes)))
        return false;
    if (s->checks & VA_CHECK_LDS_RACES && s->lds_bytes && s->waves > 1 &&
        !(g->marks = calloc(s->lds_bytes, sizeof *g->marks)))
        return false;
    if (s->races && !(g->race = vr_create(&s->race, 0)))
        return false;
    for (uint32_t k = 0; k < s->waves; k++)
        if (!make_wave(&g->waves[k], g, k))
            return false;
    return true;
}

static void out_of_memory(struct va_launch_state *s)
{
    int ok = VA_OK;
    atomic_compare_exchange_strong(&s->status, &ok, VA_OUT_OF_MEMORY);
}

static bool start_next(struct va_launch_state *s, struct resident *r, struct va_worker *worker,
                       uint32_t capacity)
{
    uint32_t at = 0;
    while (at < r->count && r->groups[at].resident)
        at++;
    if (at == capacity || atomic_load_explicit(&s->next_group, memory_order_relaxed) >= s->groups)
        return false;
    uint64_t linear = atomic_fetch_add(&s->next_group, 1);
    if (linear >= s->groups)
        return false;
    if (at == r->count) {
        r->count++;
        if (!make_group(&r->groups[at], worker)) {
            out_of_memory(s);
            longjmp(worker->fail, 1);
        }
    }
    va_group_start(&r->groups[at], linear);
    return true;
}

/* Where races are looked for, devices take turns, and workgroups, unless all go in order. */
static bool take_turn(const struct va_launch_state *s, struct va_worker *worker)
{
    vc_turns_pass(s->launch->device);
    return s->launch->schedule == VA_ROUND_ROBIN || s->groups == 1 || va_random(worker) >> 32 & 1;
}

/* One workgroup at a time; more if those that run may be waiting for one that has not begun. */
static void run_groups(struct va_launch_state *s, struct resident *r, struct va_worker *worker,
                       uint32_t capacity)
{
    uint32_t wanted = 1;
    if (s->races && s->launch->schedule != VA_ROUND_ROBIN)
        wanted = 1 + (uint32_t)(va_random(worker) >> 32) % MOST_MIXED;
    if (s->launch->cooperative) {
        while (start_next(s, r, worker, capacity) && r->count < capacity) {
        }
        wanted = 0;
    }
    for (;;) {
        uint32_t running = 0;
        for (uint32_t k = 0; k < r->count; k++)
            running += r->groups[k].resident;
        while (running < wanted && start_next(s, r, worker, capacity))
            running++;
        if (!running)
            return;
        bool all_long = true;
        for (uint32_t k = 0; k < r->count; k++) {
            struct va_group *g = &r->groups[k];
            if (!g->resident)
                continue;
            if (s->races && !take_turn(s, worker))
                continue;
            if (!va_group_run(g)) {
                g->resident = false;
                if (s->races)
                    vr_end(g->race);
                all_long = false;
            } else if (g->quanta < (uint64_t)LONG_RUN * wanted) {
                all_long = false;
            }
        }
        if (all_long && wanted && wanted < capacity)
            wanted++;
    }
}

static void work(void *context, int index)
{
    struct va_launch_state *s = context;
    struct va_worker *worker = &s->workers[index];
    worker->launch = s;
    worker->index = index;
    worker->random = (s->launch->seed + 1) * 0x9e3779b97f4a7c15u ^ ((uint64_t)(index + 1) << 32) ^
                     88172645463325252u;
    uint32_t capacity = s->launch->cooperative ? (uint32_t)s->share : MOST_RESIDENT;
    struct resident r = {.groups = calloc(capacity, sizeof *r.groups)};
    worker->counts = calloc(s->code->bytes / 4 + 1, sizeof *worker->counts);
    if (!r.groups || !worker->counts) {
        out_of_memory(s);
    } else {
        struct resident *volatile held = &r;
        if (!setjmp(worker->fail))
            run_groups(s, held, worker, capacity);
    }
    for (uint32_t k = 0; r.groups && k < r.count; k++)
        free_group(&r.groups[k]);
    free(r.groups);
}

/* What no kernel could run with. */
static bool refused(const struct va_launch_state *s, char *why, size_t size)
{
    const struct va_launch *l = s->launch;
    uint64_t lanes = (uint64_t)l->workgroup[0] * l->workgroup[1] * l->workgroup[2];
    if (!lanes || lanes > 1024) {
        snprintf(why, size, "kernel %s: workgroup of %u x %u x %u lanes: 1 to 1024 are possible",
                 l->kernel->name, l->workgroup[0], l->workgroup[1], l->workgroup[2]);
        return true;
    }
    if (s->lds_bytes > MOST_LDS) {
        snprintf(why, size, "kernel %s: %u bytes of LDS: a workgroup has %d", l->kernel->name,
                 s->lds_bytes, MOST_LDS);
        return true;
    }
    if (l->kernel->entry < s->code->address || l->kernel->entry & 3 ||
        l->kernel->entry - s->code->address >= s->code->bytes) {
        snprintf(why, size, "kernel %s: entry 0x%llx outside of the code", l->kernel->name,
                 (unsigned long long)l->kernel->entry);
        return true;
    }
    if (l->kernel->properties >> 10 & 1) {
        snprintf(why, size, "kernel %s: waves of 32 lanes: gfx942 has 64", l->kernel->name);
        return true;
    }
    return false;
}

/* Races are followed on one thread, whose turn it is. */
static bool follow(struct va_launch_state *s, const struct va_launch *l)
{
    vc_turns_begin(l->device, (enum vc_order)l->schedule, l->seed);
    s->race = (struct vr_launch){.device = l->device,
                                 .count = (uint32_t)s->groups,
                                 .code = l->code,
                                 .kernel = l->kernel->name ? l->kernel->name : "?"};
    memcpy(s->race.grid, l->grid, sizeof l->grid);
    memcpy(s->race.block, l->workgroup, sizeof l->workgroup);
    s->races = vr_launch_begin(&s->race, l->after);
    if (!s->races)
        vc_turns_end(l->device);
    return s->races;
}

static void set_up(struct va_launch_state *s, const struct va_launch *l)
{
    const struct va_kernel *k = l->kernel;
    s->launch = l;
    s->code = l->code;
    s->isa = l->code->isa;
    s->checks = l->checks;
    s->count = l->count;
    s->lanes = l->workgroup[0] * l->workgroup[1] * l->workgroup[2];
    s->waves = (s->lanes + VA_LANES - 1) / VA_LANES;
    s->lds_bytes = k->lds_bytes + l->dynamic_lds;
    bool dynamic = k->dynamic_stack || k->properties >> 11 & 1;
    uint32_t limit = l->scratch_limit ? l->scratch_limit : 16384;
    s->scratch_bytes = dynamic && k->scratch_bytes < limit ? limit : k->scratch_bytes;
    s->groups = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
    s->range_base = l->map->base;
    s->range_bytes = l->map->bytes;
    if (l->time_limit_ms)
        s->deadline_ns = va_now_ns() + l->time_limit_ms * 1000000;
    va_kernel_registers(k, &s->registers);
}

enum va_status va_execute(const struct va_launch *l, struct va_counters *counters,
                          struct va_fault *fault)
{
    struct va_launch_state *s = calloc(1, sizeof *s);
    int status = VA_OUT_OF_MEMORY, workers = l->pool ? vg_pool_threads(l->pool) : 1;
    if (counters)
        memset(counters, 0, sizeof *counters);
    if (fault)
        memset(fault, 0, sizeof *fault);
    if (!s)
        return VA_OUT_OF_MEMORY;
    set_up(s, l);
    pthread_mutex_init(&s->lock, NULL);
    if (refused(s, s->fault.text, sizeof s->fault.text)) {
        status = VA_INVALID_CONFIGURATION;
        goto out;
    }
    /* With preloaded arguments the first 256 bytes only load them for older firmware. */
    uint64_t entry = (l->kernel->entry - s->code->address) / 4;
    s->entry = s->code->insns + entry + (l->kernel->preload & 127 ? 64 : 0);
    if (l->checks & VA_CHECK_GLOBAL_RACES)
        workers = 1;
    if ((uint64_t)workers > s->groups)
        workers = (int)s->groups;
    if (!workers) {
        status = VA_OK;
        goto out;
    }
    s->share = (s->groups + (uint64_t)workers - 1) / (uint64_t)workers;
    s->workers = calloc((size_t)workers, sizeof *s->workers);
    if (!s->workers)
        goto out;
    if (s->count && !(s->touched = pages(s->range_bytes >> 9)))
        goto out;
    if (l->checks & VA_CHECK_GLOBAL_RACES && !follow(s, l))
        goto out;
    if (l->pool && workers > 1)
        vg_pool_run(l->pool, workers, work, s);
    else
        work(s, 0);
    status = atomic_load(&s->status);
    if (counters && s->count && !va_counters_collect(s, workers, counters) && status == VA_OK)
        status = VA_OUT_OF_MEMORY;
out:
    if (s->races) {
        vr_launch_end(&s->race);
        vc_turns_end(l->device);
    }
    if (fault)
        *fault = s->fault;
    for (int k = 0; s->workers && k < workers; k++)
        free(s->workers[k].counts);
    free(s->workers);
    if (s->touched)
        munmap(s->touched, s->range_bytes >> 9);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return (enum va_status)status;
}
