/* Lanes in groups: divergence, calls, waiting for each other. */
#include <stdlib.h>

#include "exec.h"

#define ALWAYS ((const struct vn_insn *)UINTPTR_MAX)

static void save(struct vn_warp *w)
{
    for (uint32_t m = w->active; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        w->pc[l] = w->next;
        w->lane_frame[l] = w->frame;
    }
}

void vn_enter_frame(struct vn_warp *w, uint32_t frame)
{
    const struct vn_frame *f = &w->frames[frame];
    const struct vn_launch_state *s = w->launch;
    w->frame = frame;
    w->base[VN_R32] = w->r32 + f->base32;
    w->base[VN_R64] = w->r64 + f->base64;
    w->pred = w->preds + f->basep;
    w->code = vn_code_of(s, f->function);
    w->pool = s->image->module->functions[f->function].pool;
    w->counters = w->worker->counters + s->counter_base[f->function];
}

/* Chooses the group that runs: deepest call first, then the lowest pc; after a quantum, first those
 * that did not run in it. */
bool vn_warp_select(struct vn_warp *w)
{
    save(w);
    w->active = 0;
    uint32_t ready = w->live & ~w->waiting & ~w->at_barrier;
    if (!ready)
        return false;
    uint32_t from = ready & ~w->ran ? ready & ~w->ran : ready;
    int best = -1;
    for (uint32_t m = from; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        if (best < 0) {
            best = l;
            continue;
        }
        uint32_t dl = w->frames[w->lane_frame[l]].depth, db = w->frames[w->lane_frame[best]].depth;
        if (dl > db || (dl == db && w->pc[l] < w->pc[best]))
            best = l;
    }
    const struct vn_insn *pc = w->pc[best], *limit = ALWAYS;
    uint32_t frame = w->lane_frame[best], group = 0;
    for (uint32_t m = ready; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        if (w->lane_frame[l] != frame)
            continue;
        if (w->pc[l] == pc)
            group |= 1u << l;
        else if (w->pc[l] > pc && w->pc[l] < limit)
            limit = w->pc[l];
    }
    if (frame != w->frame || !w->code)
        vn_enter_frame(w, frame);
    w->active = group;
    w->next = pc;
    /* With others about, a branch must look again: limit is then never ALWAYS. */
    w->limit = group == ready ? ALWAYS : limit == ALWAYS ? ALWAYS - 1 : limit;
    return true;
}

/* A quantum has passed: others come first now. */
void vn_warp_rotate(struct vn_warp *w)
{
    uint32_t ready = w->live & ~w->waiting & ~w->at_barrier;
    if (!w->active || w->active == ready) {
        w->ran = 0;
        return;
    }
    w->ran |= w->active;
    if (!(ready & ~w->ran))
        w->ran = w->active;
    vn_leave(w);
}

void vn_branch(struct vn_warp *w, uint32_t taken, const struct vn_insn *target)
{
    if (taken == w->active) {
        w->next = target;
        if (w->limit != ALWAYS)
            vn_leave(w);
        return;
    }
    (w->counters + (w->next - 1 - w->code))->divergences++;
    for (uint32_t m = taken; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        w->pc[l] = target;
        w->lane_frame[l] = w->frame;
    }
    w->active &= ~taken;
    vn_leave(w);
}

static uint32_t new_frame(struct vn_warp *w)
{
    for (uint32_t i = 1; i < w->frame_count; i++) {
        if (!w->frames[i].lanes)
            return i;
    }
    if (w->frame_count == w->frame_capacity) {
        uint32_t capacity = w->frame_capacity * 2;
        struct vn_frame *frames = realloc(w->frames, capacity * sizeof *frames);
        if (!frames)
            vn_fault(w, VN_OUT_OF_MEMORY, "invalid", NULL, w->active, "no host memory for frames");
        w->frames = frames;
        w->frame_capacity = capacity;
    }
    return w->frame_count++;
}

static bool grow_stack(uint8_t **stack, uint32_t *size, uint64_t need)
{
    if (need <= *size)
        return true;
    uint64_t want = (uint64_t)*size * 2 > need ? (uint64_t)*size * 2 : need;
    want = (want + 255) & ~(uint64_t)255;
    uint8_t *fresh = want < (1u << 30) ? aligned_alloc(256, want) : NULL;
    if (!fresh)
        return false;
    memcpy(fresh, *stack, *size);
    memset(fresh + *size, 0, want - *size);
    free(*stack);
    *stack = fresh;
    *size = (uint32_t)want;
    return true;
}

static void copy_chunk(const void *from, uint32_t from_file, void *to, uint32_t to_file,
                       uint32_t mask)
{
    for (uint32_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        uint64_t v = from_file == VN_R32 || from_file == VN_SPECIAL ? ((const uint32_t *)from)[l]
                                                                    : ((const uint64_t *)from)[l];
        if (to_file == VN_R32)
            ((uint32_t *)to)[l] = (uint32_t)v;
        else
            ((uint64_t *)to)[l] = v;
    }
}

void vn_call(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask, uint32_t function)
{
    const struct vn_launch_state *s = w->launch;
    const struct vn_code *callee = &s->image->module->functions[function];
    uint32_t from = w->frame;
    const struct vn_code *caller = &s->image->module->functions[w->frames[from].function];
    if (!callee->info.defined)
        vn_fault(w, VN_INVALID_PC, "invalid", NULL, mask, "call of '%s', which has no body",
                 callee->info.name);
    if (callee->param_chunk_count != insn->q || callee->return_chunk_count != insn->mode)
        vn_fault(w, VN_INVALID_PC, "invalid", NULL, mask,
                 "call of '%s' with arguments or results that do not fit it", callee->info.name);
    /* Lanes that come to the same call later join the frame of those before. */
    uint32_t frame = 0;
    for (uint32_t i = 1; i < w->frame_count && !frame; i++) {
        const struct vn_frame *f = &w->frames[i];
        if (f->lanes && f->parent == from && f->ret == insn + 1 && f->function == function)
            frame = i;
    }
    if (!frame) {
        frame = new_frame(w);
        const struct vn_frame *up = &w->frames[from];
        w->frames[frame] = (struct vn_frame){.parent = from,
                                             .function = function,
                                             .ret = insn + 1,
                                             .depth = up->depth + 1,
                                             .base32 = up->base32 + caller->size32,
                                             .base64 = up->base64 + caller->size64,
                                             .basep = up->basep + caller->preds,
                                             .local = up->local + caller->local_frame};
    }
    struct vn_frame *f = &w->frames[frame];
    f->lanes |= mask;
    uint8_t *preds = (uint8_t *)w->preds;
    uint32_t pred_bytes = w->sizep * 4;
    bool room = f->depth < VN_MAX_DEPTH && f->local + callee->local_frame <= s->local_size &&
                grow_stack(&w->r32, &w->size32, (uint64_t)f->base32 + callee->size32) &&
                grow_stack(&w->r64, &w->size64, (uint64_t)f->base64 + callee->size64) &&
                grow_stack(&preds, &pred_bytes, 4 * ((uint64_t)f->basep + callee->preds));
    w->preds = (uint32_t *)(void *)preds;
    w->sizep = pred_bytes / 4;
    if (!room)
        vn_fault(w, VN_STACK, "invalid", NULL, mask, "the stack of %u bytes is full, %u calls deep",
                 s->local_size, f->depth);
    vn_enter_frame(w, from);
    const uint32_t *arguments = w->pool + insn->pool + insn->mode;
    for (uint32_t k = 0; k < callee->param_chunk_count; k++) {
        uint32_t to = callee->param_chunks[k];
        uint8_t *base = (to & VN_FILE_MASK) == VN_R64 ? w->r64 + f->base64 : w->r32 + f->base32;
        copy_chunk(vn_at(w, arguments[k]), arguments[k] & VN_FILE_MASK, base + (to & ~VN_FILE_MASK),
                   to & VN_FILE_MASK, mask);
    }
    if (mask != w->active) {
        save(w);
        w->active = mask;
        vn_enter_frame(w, frame);
        w->next = w->code;
        vn_leave(w);
        return;
    }
    vn_enter_frame(w, frame);
    w->next = w->code;
    if (w->limit != ALWAYS)
        vn_leave(w);
}

void vn_return(struct vn_warp *w, uint32_t mask)
{
    const struct vn_launch_state *s = w->launch;
    struct vn_frame *f = &w->frames[w->frame];
    const struct vn_code *callee = &s->image->module->functions[f->function];
    uint32_t parent = f->parent;
    const struct vn_insn *ret = f->ret, *call = ret - 1;
    bool all = mask == w->active;
    if (!all)
        save(w);
    const uint8_t *r32 = w->r32 + f->base32, *r64 = w->r64 + f->base64;
    f->lanes &= ~mask;
    uint32_t callee_frame = w->frame;
    vn_enter_frame(w, parent);
    for (uint32_t k = 0; k < callee->return_chunk_count; k++) {
        uint32_t from = callee->return_chunks[k], to = w->pool[call->pool + k];
        bool wide = (from & VN_FILE_MASK) == VN_R64;
        copy_chunk((wide ? r64 : r32) + (from & ~VN_FILE_MASK), from & VN_FILE_MASK, vn_at(w, to),
                   to & VN_FILE_MASK, mask);
    }
    if (all) {
        w->next = ret;
        if (w->limit != ALWAYS || w->frames[callee_frame].lanes)
            vn_leave(w);
        return;
    }
    for (uint32_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        w->pc[l] = ret;
        w->lane_frame[l] = parent;
    }
    w->active = 0; /* the others were saved with their frame */
    vn_leave(w);
}

/* Waiting lanes whose partners have exited may go on. */
static void release_waiting(struct vn_warp *w)
{
    for (uint32_t m = w->waiting; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        if (!(w->sync_mask[l] & w->live & ~w->waiting))
            w->waiting &= ~(1u << l); /* they look again */
    }
}

void vn_exit(struct vn_warp *w, uint32_t mask)
{
    w->live &= ~mask;
    w->active &= ~mask;
    for (uint32_t i = 0; i < w->frame_count; i++)
        w->frames[i].lanes &= ~mask;
    if (w->waiting)
        release_waiting(w);
    if (!w->active || w->at_barrier || w->waiting)
        vn_leave(w);
    vn_barrier_exit(w);
}

bool vn_sync(struct vn_warp *w, const struct vn_insn *insn, uint32_t *mask, uint32_t wanted)
{
    uint32_t need = wanted & w->live;
    if ((need & ~*mask) == 0)
        return true;
    /* Not everybody is here: wait at this instruction. */
    w->next = insn;
    save(w);
    for (uint32_t m = *mask; m; m &= m - 1)
        w->sync_mask[__builtin_ctz(m)] = wanted;
    w->waiting |= *mask;
    w->active &= ~*mask;
    /* Lanes of the group that are not in the mask (guarded off) go on. */
    w->next = insn + 1;
    vn_leave(w);
    uint32_t here = 0;
    for (uint32_t m = w->waiting & wanted; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        if (w->sync_mask[l] == wanted && w->pc[l]->op == insn->op)
            here |= 1u << l;
    }
    if (need & ~here)
        return false;
    w->waiting &= ~here;
    int first = __builtin_ctz(here);
    for (uint32_t m = here; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        if (w->pc[l] != w->pc[first] || w->lane_frame[l] != w->lane_frame[first]) {
            save(w);
            w->active = 0;
            vn_exchange_split(w, here);
            break;
        }
    }
    return false;
}

void vn_warp_start(struct vn_warp *w)
{
    const struct vn_launch_state *s = w->launch;
    w->frames[0] =
        (struct vn_frame){.lanes = w->live, .function = (uint32_t)s->launch->function, .parent = 0};
    for (uint32_t i = 1; i < w->frame_count; i++)
        w->frames[i].lanes = 0;
    w->frame_count = 1;
    vn_enter_frame(w, 0);
    w->active = w->live;
    w->next = s->entry;
    w->limit = ALWAYS;
    w->waiting = w->at_barrier = w->ran = 0;
    w->partial = NULL;
}
