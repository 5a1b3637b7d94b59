/* A block: its warps take turns; barriers join them. */
#include <stdio.h>

#include "exec.h"

static void fill(uint8_t (*specials)[128], uint32_t which, uint32_t value)
{
    uint32_t *v = (uint32_t *)(void *)specials[which];
    for (int l = 0; l < 32; l++)
        v[l] = value;
}

static void start_warp(struct vn_block *block, uint32_t index)
{
    struct vn_warp *w = &block->warps[index];
    const struct vn_launch_state *s = block->launch;
    const struct vn_launch *l = s->launch;
    fill(w->specials, VN_CTAID_X, block->id[0]);
    fill(w->specials, VN_CTAID_Y, block->id[1]);
    fill(w->specials, VN_CTAID_Z, block->id[2]);
    fill(w->specials, VN_SMID, l->sm_count ? (uint32_t)(block->linear % l->sm_count) : 0);
    uint32_t first = index * 32, left = s->threads - first;
    w->live = left >= 32 ? UINT32_MAX : ((uint32_t)1 << left) - 1;
    w->async_count = 0;
    memset(w->async_groups, 0, sizeof w->async_groups);
    vn_warp_start(w);
}

/* What stays the same for all blocks that this memory serves. */
void vn_warp_specials(struct vn_warp *w, const struct vn_launch_state *s)
{
    const struct vn_launch *l = s->launch;
    for (uint32_t lane = 0; lane < 32; lane++) {
        uint32_t t = w->index * 32 + lane;
        uint32_t values[VN_PER_WARP] = {
            [VN_TID_X] = t % l->block[0],
            [VN_TID_Y] = t / l->block[0] % l->block[1],
            [VN_TID_Z] = t / (l->block[0] * l->block[1]),
            [VN_LANEID] = lane,
            [VN_LANEMASK_EQ] = 1u << lane,
            [VN_LANEMASK_LT] = (1u << lane) - 1,
            [VN_LANEMASK_LE] = (1u << lane) | ((1u << lane) - 1),
            [VN_LANEMASK_GE] = ~((1u << lane) - 1),
            [VN_LANEMASK_GT] = ~((1u << lane) | ((1u << lane) - 1)),
            [VN_WARPID] = w->index,
        };
        for (uint32_t i = 0; i < VN_PER_WARP; i++)
            ((uint32_t *)(void *)w->specials[i])[lane] = values[i];
    }
    for (int i = 0; i < 3; i++) {
        fill(w->specials, VN_NTID_X + (uint32_t)i, l->block[i]);
        fill(w->specials, VN_NCTAID_X + (uint32_t)i, l->grid[i]);
    }
    fill(w->specials, VN_NWARPID, 64);
    fill(w->specials, VN_NSMID, l->sm_count);
    fill(w->specials, VN_DYNAMIC_SMEM_SIZE, l->dynamic_shared);
    fill(w->specials, VN_TOTAL_SMEM_SIZE, (s->shared_size + 127) & ~127u); /* as it is allocated */
    fill(w->specials, VN_DYNAMIC_SHARED, s->static_shared);
    fill(w->specials, VN_ENVREG1, (uint32_t)(s->workspace >> 32));
    fill(w->specials, VN_ENVREG2, (uint32_t)s->workspace);
    fill(w->specials, VN_ZERO, 0);
    fill(w->specials, VN_ONE, 1);
}

void vn_block_start(struct vn_block *block, uint64_t linear)
{
    const struct vn_launch *l = block->launch->launch;
    block->linear = linear;
    block->id[0] = (uint32_t)(linear % l->grid[0]);
    block->id[1] = (uint32_t)(linear / l->grid[0] % l->grid[1]);
    block->id[2] = (uint32_t)(linear / ((uint64_t)l->grid[0] * l->grid[1]));
    block->turn = 0;
    block->quanta = 0;
    block->async_pending = 0;
    block->resident = true;
    memset(block->barriers, 0, sizeof block->barriers);
    if (block->shared_written)
        memset(block->shared_written, 0, block->shared_size);
    block->shared_unwritten = block->shared_written ? block->shared_size : 0;
    if (block->local_written)
        memset(block->local_written, 0, (size_t)block->launch->local_size * 32 * block->warp_count);
    block->live_warps = block->warp_count;
    if (block->race)
        vr_start(block->race, linear, block->warp_count);
    for (uint32_t i = 0; i < block->warp_count; i++)
        start_warp(block, i);
}

/* ---- barriers ---- */

static bool complete(const struct vn_block *block, uint32_t id)
{
    const struct vn_barrier *b = &block->barriers[id];
    if (b->expected)
        return b->arrived >= b->expected;
    for (uint32_t i = 0; i < block->warp_count; i++) {
        const struct vn_warp *w = &block->warps[i];
        if (w->live & ~w->at_barrier)
            return false;
        for (uint32_t m = w->live; m; m &= m - 1) {
            if (w->barrier[__builtin_ctz(m)] != id)
                return false;
        }
    }
    return true;
}

static void write_result(struct vn_warp *w, const struct vn_insn *insn, uint32_t lane,
                         const struct vn_barrier *b)
{
    if (insn->op != VN_OP_bar || insn->mode < 2)
        return;
    uint32_t here = w->frame;
    vn_enter_frame(w, w->lane_frame[lane]);
    if (insn->mode == 2) {
        ((uint32_t *)vn_at(w, insn->d))[lane] = b->popc;
    } else if (insn->p != VN_NO_PRED) {
        bool v = insn->mode == 3 ? b->all : b->any;
        w->pred[insn->p] = (w->pred[insn->p] & ~(1u << lane)) | (uint32_t)v << lane;
    }
    vn_enter_frame(w, here);
}

static void release(struct vn_block *block, uint32_t id)
{
    struct vn_barrier done = block->barriers[id];
    memset(&block->barriers[id], 0, sizeof block->barriers[id]);
    for (uint32_t i = 0; i < block->warp_count; i++) {
        struct vn_warp *w = &block->warps[i];
        for (uint32_t m = w->at_barrier; m; m &= m - 1) {
            uint32_t l = (uint32_t)__builtin_ctz(m);
            if (w->barrier[l] != id)
                continue;
            write_result(w, w->pc[l] - 1, l, &done);
            w->at_barrier &= ~(1u << l);
            if (block->race)
                vn_race_join(w, id);
        }
    }
    if (block->race)
        vr_clear(block->race, id);
}

void vn_barrier_arrive(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask)
{
    struct vn_block *block = w->block;
    int first = __builtin_ctz(mask);
    const uint32_t *ids = vn_at(w, insn->a),
                   *counts = insn->b == VN_NONE ? NULL : vn_at(w, insn->b);
    uint32_t id = ids[first], count = counts ? counts[first] : 0;
    for (uint32_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        if (ids[l] != id || (counts && counts[l] != count))
            vn_fault(w, VN_ILLEGAL_INSTRUCTION, "barrier", NULL, mask,
                     "lanes of a warp name different barriers");
    }
    if (id >= VN_BARRIERS)
        vn_fault(w, VN_ILLEGAL_INSTRUCTION, "barrier", NULL, mask, "barrier %u does not exist", id);
    if (counts && (count == 0 || count % 32))
        vn_fault(w, VN_ILLEGAL_INSTRUCTION, "barrier", NULL, mask,
                 "barrier %u for %u threads: a multiple of the warp size is needed", id, count);
    struct vn_barrier *b = &block->barriers[id];
    /* Lanes that come later to the same barrier are no mistake; to another one they are. */
    if (w->partial && w->partial != insn)
        vn_divergent_barrier(w, "lanes 0x%08x of the warp wait at it, others at another barrier");
    w->partial = insn->vec && (mask | w->at_barrier) != w->live ? insn : NULL;
    if (!b->open) {
        *b = (struct vn_barrier){.open = true,
                                 .all = true,
                                 .expected = count,
                                 .insn = insn,
                                 .first = w,
                                 .first_function = w->frames[w->frame].function};
    } else if (b->expected != count && block->launch->checks & VN_CHECK_BARRIERS) {
        vn_find_report(w, "barrier", NULL, mask, b->insn, b->first, -1,
                       "barrier %u is for %u threads here and for %u elsewhere", id, count,
                       b->expected);
    }
    uint32_t lanes = (uint32_t)__builtin_popcount(mask);
    b->arrived += mask == w->live ? 32 : lanes;
    if (insn->mode >= 2) {
        uint32_t p = w->pred[insn->q];
        p = insn->flags & VN_PRED_NEGATED ? ~p : p;
        b->popc += (uint32_t)__builtin_popcount(p & mask);
        b->any |= (p & mask) != 0;
        b->all &= (p & mask) == mask;
    }
    if (block->race)
        vn_race_arrive(w, id);
    if (insn->mode != 1) {
        for (uint32_t m = mask; m; m &= m - 1) {
            int l = __builtin_ctz(m);
            w->pc[l] = insn + 1;
            w->lane_frame[l] = w->frame;
            w->barrier[l] = id;
        }
        w->at_barrier |= mask;
        w->active &= ~mask;
        vn_leave(w);
    }
    w->worker->barriers++;
    if (complete(block, id))
        release(block, id);
}

void vn_divergent_barrier(struct vn_warp *w, const char *text)
{
    const struct vn_insn *next = w->next;
    if (w->block->launch->checks & VN_CHECK_BARRIERS && w->at_barrier) {
        w->next = w->partial + 1;
        vn_find_divergence(w, text, w->at_barrier);
        w->next = next;
    }
    w->partial = NULL;
}

void vn_barrier_exit(struct vn_warp *w)
{
    struct vn_block *block = w->block;
    if (w->partial && w->live)
        vn_divergent_barrier(w, "lanes 0x%08x of the warp wait at it, others have exited");
    if (!w->live)
        block->live_warps--;
    for (uint32_t id = 0; id < VN_BARRIERS; id++) {
        if (block->barriers[id].open && !block->barriers[id].expected && block->live_warps &&
            complete(block, id))
            release(block, id);
    }
}

/* ---- scheduling ---- */

uint64_t vn_random(struct vn_worker *worker)
{
    uint64_t x = worker->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return worker->random = x;
}

static bool runnable(const struct vn_warp *w)
{
    return (w->live & ~w->waiting & ~w->at_barrier) != 0;
}

static void deadlock(struct vn_block *block)
{
    char text[360];
    size_t n = 0;
    struct vn_warp *worst = block->warps; /* the first that lives; one does */
    while (!worst->live)
        worst++;
    for (uint32_t i = 0; i < block->warp_count && n < sizeof text - 1; i++) {
        struct vn_warp *w = &block->warps[i];
        if (!w->live)
            continue;
        for (uint32_t seen = 0; seen != w->live && n < sizeof text - 1;) {
            int l = __builtin_ctz(w->live & ~seen);
            uint32_t same = 0;
            bool bar = w->at_barrier >> l & 1;
            for (uint32_t m = w->live; m; m &= m - 1) {
                int k = __builtin_ctz(m);
                same |= w->pc[k] == w->pc[l] && (w->at_barrier >> k & 1) == bar ? 1u << k : 0;
            }
            seen |= same;
            if (bar)
                n += (size_t)snprintf(text + n, sizeof text - n,
                                      "%swarp %u lanes 0x%08x at barrier %u, line %u",
                                      n ? "; " : "", i, same, w->barrier[l], (w->pc[l] - 1)->line);
            else
                n += (size_t)snprintf(text + n, sizeof text - n,
                                      "%swarp %u lanes 0x%08x wait for 0x%08x, line %u",
                                      n ? "; " : "", i, same, w->sync_mask[l], w->pc[l]->line);
        }
    }
    int lane = __builtin_ctz(worst->live);
    bool bar = worst->at_barrier >> lane & 1;
    worst->next = worst->pc[lane] + (bar ? 0 : 1);
    vn_enter_frame(worst, worst->lane_frame[lane]);
    vn_fault(worst, VN_DEADLOCK, "deadlock", NULL, worst->live,
             "no thread of the block can go on: %s", text);
}

static void check_limits(struct vn_block *block)
{
    struct vn_launch_state *s = block->launch;
    if (atomic_load_explicit(&s->status, memory_order_relaxed) != VN_OK)
        longjmp(block->worker->fail, 1);
    if (s->launch->stop && atomic_load_explicit(s->launch->stop, memory_order_relaxed)) {
        int ok = VN_OK;
        atomic_compare_exchange_strong(&s->status, &ok, VN_STOPPED);
        longjmp(block->worker->fail, 1);
    }
    if (s->deadline_ns && (block->quanta & 15) == 0 && vn_now_ns() > s->deadline_ns) {
        for (uint32_t i = 0; i < block->warp_count; i++) {
            struct vn_warp *w = &block->warps[i];
            if (!w->at_barrier || !(s->checks & VN_CHECK_BARRIERS))
                continue;
            int lane = __builtin_ctz(w->at_barrier);
            w->next = w->pc[lane]; /* behind the barrier; the launch ends here anyway */
            vn_enter_frame(w, w->lane_frame[lane]);
            vn_find_report(
                w, "barrier", NULL, w->at_barrier, NULL, NULL, -1,
                "the time limit passed while lanes 0x%08x waited at barrier %u for others",
                w->at_barrier, w->barrier[lane]);
        }
        for (uint32_t i = 0; i < block->warp_count; i++) {
            struct vn_warp *w = &block->warps[i];
            if (!runnable(w))
                continue;
            if (!w->active) {
                int lane = __builtin_ctz(w->live);
                w->next = w->pc[lane];
                vn_enter_frame(w, w->lane_frame[lane]);
            }
            w->next++; /* a report is of the instruction before */
            vn_fault(w, VN_TIMEOUT, "timeout", NULL, w->live,
                     "the kernel ran over its limit of %llu ms",
                     (unsigned long long)s->launch->time_limit_ms);
        }
    }
}

enum { QUANTUM = 4096 };

/* One turn: each warp that can run gets a quantum, in the schedule's order. */
bool vn_block_run(struct vn_block *block)
{
    struct vn_worker *worker = block->worker;
    const struct vn_launch_state *s = block->launch;
    vn_run_fn run = s->isa->run;
    enum vn_schedule schedule = s->launch->schedule;
    uint32_t count = block->warp_count;
    bool any = false;
    check_limits(block);
    for (uint32_t k = 0; k < count; k++) {
        uint32_t at = k;
        uint64_t steps = QUANTUM;
        if (schedule != VN_ROUND_ROBIN) {
            uint64_t r = vn_random(worker);
            at = (uint32_t)(r >> 32) % count;
            steps = schedule == VN_RANDOM ? 1 + r % 61 : (r & 7) ? 1 + (r >> 8) % 3 : 200;
            /* The adversary starves one warp of each block for long stretches. */
            if (schedule == VN_ADVERSARIAL && at == (block->quanta >> 6) % count && count > 1 &&
                (r >> 16 & 31))
                continue;
        }
        struct vn_warp *w = &block->warps[at];
        if (!runnable(w))
            continue;
        any = true;
        run(w, steps);
        if (w->live)
            vn_warp_rotate(w);
    }
    block->quanta++;
    if (!block->live_warps)
        return false;
    if (!any) {
        for (uint32_t i = 0; i < count; i++)
            any |= runnable(&block->warps[i]);
        if (!any)
            deadlock(block);
    }
    return true;
}
