/* A launch: blocks spread over the pool's workers, and what they counted brought together. */
#include <stdlib.h>
#include <sys/mman.h>

#include "../../common/turns.h"
#include "exec.h"

struct resident { /* blocks of one worker, with all their memory */
    struct vn_block *blocks;
    uint32_t count;
};

static void free_block(struct vn_block *b)
{
    for (uint32_t i = 0; b->warps && i < b->warp_count; i++) {
        struct vn_warp *w = &b->warps[i];
        free(w->r32);
        free(w->r64);
        free(w->preds);
        free(w->frames);
        free(w->async);
    }
    if (b->warps && b->warps[0].local)
        munmap(b->warps[0].local, (size_t)b->launch->local_size * 32 * b->warp_count);
    free(b->warps);
    free(b->shared);
    free(b->shared_written);
    free(b->local_written);
    vr_destroy(b->race);
}

static size_t padded(size_t bytes)
{
    return (bytes + 256) & ~(size_t)255;
}

static bool make_block(struct vn_block *b, struct vn_worker *worker)
{
    struct vn_launch_state *s = worker->launch;
    memset(b, 0, sizeof *b);
    b->launch = s;
    b->worker = worker;
    b->warps = aligned_alloc(64, padded(s->warps * sizeof *b->warps));
    if (!b->warps)
        return false;
    memset(b->warps, 0, s->warps * sizeof *b->warps);
    b->warp_count = s->warps;
    b->shared_size = s->shared_size;
    b->shared = aligned_alloc(256, padded(s->shared_size));
    if (!b->shared)
        return false;
    memset(b->shared, 0, s->shared_size);
    if (s->checks & VN_CHECK_UNINITIALISED && s->shared_size) {
        b->shared_written = malloc(padded(s->shared_size));
        if (!b->shared_written)
            return false;
    }
    if ((s->checks & VN_CHECK_SHARED_RACES && s->shared_size && s->threads > 1) ||
        s->checks & VN_CHECK_GLOBAL_RACES) {
        b->race = vr_create(s->global_races ? &s->race : NULL,
                            s->checks & VN_CHECK_SHARED_RACES ? s->shared_size : 0);
        if (!b->race)
            return false;
    }
    uint8_t *local = NULL;
    if (s->local_size) {
        local = mmap(NULL, (size_t)s->local_size * 32 * s->warps, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (local == MAP_FAILED)
            return false;
    }
    if (local && s->checks & VN_CHECK_LOCAL) {
        b->local_written = malloc((size_t)s->local_size * 32 * s->warps);
        if (!b->local_written)
            return false;
    }
    const struct vn_code *code = s->code;
    for (uint32_t i = 0; i < s->warps; i++) {
        struct vn_warp *w = &b->warps[i];
        w->worker = worker;
        w->block = b;
        w->launch = s;
        w->index = i;
        w->local = local ? local + (size_t)i * 32 * s->local_size : NULL;
        w->local_written =
            b->local_written ? b->local_written + (size_t)i * 32 * s->local_size : NULL;
        w->size32 = (uint32_t)padded(code->size32);
        w->size64 = (uint32_t)padded(code->size64);
        w->sizep = (uint32_t)padded(code->preds * 4) / 4;
        w->r32 = aligned_alloc(256, w->size32);
        w->r64 = aligned_alloc(256, w->size64);
        w->preds = aligned_alloc(256, w->sizep * 4);
        w->frame_capacity = 16;
        w->frames = calloc(w->frame_capacity, sizeof *w->frames);
        if (!w->r32 || !w->r64 || !w->preds || !w->frames)
            return false;
        memset(w->r32, 0, w->size32);
        memset(w->r64, 0, w->size64);
        memset(w->preds, 0, w->sizep * 4);
        w->frame_count = 1;
        w->base[VN_CONSTANT] = s->image->constants;
        w->base[VN_SPECIAL] = (uint8_t *)w->specials;
        vn_warp_specials(w, s);
    }
    return true;
}

/* A block that runs this many turns may be waiting for one that has not begun: the next joins it.
 */
enum { LONG_RUN = 4000, MOST_RESIDENT = 64, MOST_MIXED = 8 };

static bool start_next(struct vn_launch_state *s, struct resident *r, struct vn_worker *worker,
                       uint32_t capacity)
{
    uint32_t at = 0;
    while (at < r->count && r->blocks[at].resident)
        at++;
    if (at == capacity)
        return false;
    if (atomic_load_explicit(&s->next_block, memory_order_relaxed) >= s->blocks)
        return false;
    uint64_t linear = atomic_fetch_add(&s->next_block, 1);
    if (linear >= s->blocks)
        return false;
    if (at == r->count) {
        if (!make_block(&r->blocks[at], worker)) {
            r->count++;
            int ok = VN_OK;
            atomic_compare_exchange_strong(&s->status, &ok, VN_OUT_OF_MEMORY);
            longjmp(worker->fail, 1);
        }
        r->count++;
    }
    vn_block_start(&r->blocks[at], linear);
    return true;
}

/* Where races are looked for, devices take turns, and blocks, unless all go in order. */
static bool take_turn(const struct vn_launch_state *s, struct vn_worker *worker)
{
    vc_turns_pass(s->launch->device);
    return s->launch->schedule == VN_ROUND_ROBIN || s->blocks == 1 || vn_random(worker) >> 32 & 1;
}

static void run_blocks(struct vn_launch_state *s, struct resident *r, struct vn_worker *worker,
                       uint32_t capacity)
{
    uint32_t wanted = 1;
    if (s->global_races && s->launch->schedule != VN_ROUND_ROBIN)
        wanted = 1 + (uint32_t)(vn_random(worker) >> 32) % MOST_MIXED;
    if (s->cooperative) { /* all at once: an equal share for each worker, taken in order */
        while (start_next(s, r, worker, capacity) && r->count < s->share) {
        }
        wanted = 0;
    }
    for (;;) {
        uint32_t running = 0;
        for (uint32_t i = 0; i < r->count; i++)
            running += r->blocks[i].resident;
        while (running < wanted && start_next(s, r, worker, capacity))
            running++;
        if (!running)
            return;
        bool all_long = true;
        for (uint32_t i = 0; i < r->count; i++) {
            struct vn_block *b = &r->blocks[i];
            if (!b->resident)
                continue;
            if (s->global_races && !take_turn(s, worker))
                continue;
            if (!vn_block_run(b)) {
                b->resident = false;
                if (s->global_races)
                    vr_end(b->race);
                all_long = false;
            } else if (b->quanta < LONG_RUN * (uint64_t)wanted) {
                all_long = false;
            }
        }
        if (all_long && wanted && wanted < capacity)
            wanted++;
        else if (!all_long && wanted > 1 && running < wanted)
            wanted = 1;
    }
}

static void work(void *context, int index)
{
    struct vn_launch_state *s = context;
    struct vn_worker *worker = &s->workers[index];
    worker->launch = s;
    worker->index = index;
    worker->random = (s->launch->seed + 1) * 0x9e3779b97f4a7c15u ^ ((uint64_t)(index + 1) << 32) ^
                     88172645463325252u;
    uint32_t capacity = s->cooperative ? s->share : MOST_RESIDENT;
    struct resident r = {.blocks = calloc(capacity, sizeof *r.blocks)};
    worker->counters = calloc(s->counter_count + 1, sizeof *worker->counters);
    if (!r.blocks || !worker->counters) {
        int ok = VN_OK;
        atomic_compare_exchange_strong(&s->status, &ok, VN_OUT_OF_MEMORY);
    } else {
        struct resident *volatile held = &r;
        if (!setjmp(worker->fail))
            run_blocks(s, held, worker, capacity);
    }
    for (uint32_t i = 0; r.blocks && i < r.count; i++)
        free_block(&r.blocks[i]);
    free(r.blocks);
}

static uint32_t local_size(const struct vn_launch *l, const struct vn_code *code)
{
    /* Calls through pointers and recursion need room that cannot be computed. */
    uint32_t extra =
        code->recursive || code->indirect ? (l->stack_limit ? l->stack_limit : 16384) : 0;
    return (code->info.local_bytes + extra + 15) & ~15u;
}

enum vn_status vn_execute(const struct vn_launch *l, struct vn_counters *counters)
{
    struct vn_launch_state *s = calloc(1, sizeof *s);
    if (!s)
        return VN_OUT_OF_MEMORY;
    const struct vn_image *image = l->image;
    const struct vn_module *m = image->module;
    int status = VN_OUT_OF_MEMORY;
    s->launch = l;
    s->image = image;
    s->isa = image->isa;
    s->code = &m->functions[l->function];
    s->entry = vn_code_of(s, (uint32_t)l->function);
    s->checks = l->checks;
    s->count = l->count;
    s->cooperative = l->cooperative;
    s->threads = l->block[0] * l->block[1] * l->block[2];
    s->warps = (s->threads + 31) / 32;
    s->static_shared =
        (s->code->info.shared_bytes + 127) & ~127u; /* as wide as extern arrays ask */
    s->shared_size =
        (l->dynamic_shared ? s->static_shared : s->code->info.shared_bytes) + l->dynamic_shared;
    s->local_size = local_size(l, s->code);
    s->blocks = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
    s->range_base = l->map->base;
    s->range_bytes = l->map->bytes;
    s->started_ns = vn_now_ns();
    if (l->time_limit_ms)
        s->deadline_ns = s->started_ns + l->time_limit_ms * 1000000;
    pthread_mutex_init(&s->lock, NULL);
    int workers = l->pool ? vg_pool_threads(l->pool) : 1;
    if (s->checks & VN_CHECK_GLOBAL_RACES)
        workers = 1;
    if ((uint64_t)workers > s->blocks)
        workers = (int)s->blocks;
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): a valid shape has a block */
    s->share = (uint32_t)((s->blocks + (uint64_t)workers - 1) / (uint64_t)workers);
    s->workers = calloc((size_t)workers, sizeof *s->workers);
    for (int i = 0; s->workers && i < workers; i++)
        s->workers[i].touched_first = UINT64_MAX;
    s->counter_base = calloc(m->function_count + 1, sizeof *s->counter_base);
    s->params = aligned_alloc(256, padded(s->code->info.param_bytes));
    if (!s->workers || !s->counter_base || !s->params)
        goto out;
    memset(s->params, 0, padded(s->code->info.param_bytes));
    if (s->code->info.param_bytes)
        memcpy(s->params, l->params, s->code->info.param_bytes);
    if (l->cooperative) {
        struct vc_alloc_info info = {.bytes = 64,
                                     .align = 64,
                                     .device = l->device,
                                     .kind = VC_MODULE,
                                     .access = 1u << l->device,
                                     .name = "cooperative workspace"};
        s->workspace = vc_alloc(l->map, &info);
        if (!s->workspace)
            goto out;
        memcpy((void *)(uintptr_t)s->workspace, &(uint32_t){64}, 4);
    }
    for (uint32_t f = 0; f < m->function_count; f++) {
        s->counter_base[f] = (uint32_t)s->counter_count;
        s->counter_count += m->functions[f].insn_count + 1;
    }
    if (s->count && !vn_maps_create(s, workers))
        goto out;
    if (s->checks & VN_CHECK_GLOBAL_RACES) {
        vc_turns_begin(l->device, (enum vc_order)l->schedule, l->seed);
        s->race = (struct vr_launch){.device = l->device,
                                     .count = (uint32_t)s->blocks,
                                     .code = image,
                                     .kernel = s->code->info.name};
        memcpy(s->race.grid, l->grid, sizeof l->grid);
        memcpy(s->race.block, l->block, sizeof l->block);
        s->global_races = vr_launch_begin(&s->race, l->after);
        if (!s->global_races) {
            vc_turns_end(l->device);
            goto out;
        }
    }
    if (l->pool && workers > 1)
        vg_pool_run(l->pool, workers, work, s);
    else
        work(s, 0);
    status = atomic_load(&s->status);
    if (counters)
        memset(counters, 0, sizeof *counters);
    if (counters && s->count && !vn_counters_collect(s, workers, counters) && status == VN_OK)
        status = VN_OUT_OF_MEMORY;
out:
    if (s->workspace)
        vc_free(l->map, s->workspace);
    if (s->workers)
        vn_maps_release(s, workers);
    if (s->global_races) {
        vr_launch_end(&s->race);
        vc_turns_end(l->device);
    }
    for (int i = 0; s->workers && i < workers; i++) {
        free(s->workers[i].counters);
    }
    free(s->workers);
    free(s->counter_base);
    free(s->params);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return (enum vn_status)status;
}
