/* Races in global memory (common/race.h): what gfx942 says of an access, by the table of its memory
 * model in LLVM's guide to the AMDGPU backend.
 *
 * Bits sc0 and sc1 say how far an atomic access reaches: sc0 the workgroup, sc1 the agent, both the
 * system; a read-modify-write, whose sc0 asks for the old value, the agent, or with sc1 the system.
 * Volatile accesses look like those of the system. A release is buffer_wbl2 and an s_waitcnt vmcnt
 * that waits for it, an acquire an s_waitcnt for the load and buffer_inv.
 *
 * Waves of a workgroup use one cache, in order: among them barriers are enough. But a release of
 * one wave is not one of what others have not waited for. */
#include <stdio.h>

#include "../../common/race.h"
#include "exec.h"

static struct vr_warp who(struct va_wave *w)
{
    return (struct vr_warp){w->group->race, w->index, w};
}

static void tell(void *user, const struct vr_access *did, uint32_t lane, uint64_t address,
                 uint32_t size, const struct vr_party *other)
{
    struct va_wave *w = user;
    const struct va_code *code = other->apart ? other->code : w->launch->code;
    char where[160] = "", line[40] = "";
    bool atomic = did->strong && did->reads && did->writes;
    if (other->apart)
        snprintf(where, sizeof where, " of kernel %s, device %u", other->kernel, other->device);
    if (code)
        snprintf(line, sizeof line, " at text + 0x%llx",
                 (unsigned long long)((const struct va_insn *)other->insn - code->insns) * 4);
    va_find(
        w, "global-race", (int)lane, address, size, NULL,
        "%s %u bytes at 0x%llx: race with the access%s by wave %u, lane %u of workgroup %llu%s: "
        "nothing orders them",
        atomic        ? "changes"
        : did->writes ? "writes"
                      : "reads",
        size, (unsigned long long)address, line, other->warp, other->lane,
        (unsigned long long)other->block, where);
}

static enum vr_reach reach_of(bool sc0, bool sc1)
{
    return !sc1 ? VR_REACH_BLOCK : sc0 ? VR_REACH_ALL : VR_REACH_DEVICE;
}

/* What the next result that is deferred belongs to. */
static void count(struct va_wave *w)
{
    struct vr_warp warp = who(w);
    w->access = vr_next(&warp);
}

/* What a device's caches hold the host does not see, nor the device what the host writes. */
static void check_host(struct va_wave *w, uint64_t address, uint32_t bytes)
{
    const struct vc_alloc *a = vc_find(w->launch->launch->map, address);
    if (a && (a->kind == VC_PINNED || a->kind == VC_REGISTERED))
        va_find(w, "global-race", -1, address, bytes, NULL,
                "race with the host: an atomic access of its memory, 0x%llx, that reaches no "
                "further than the device",
                (unsigned long long)address);
}

void va_race_access(struct va_wave *w, const struct va_insn *i, const uint64_t *at, uint64_t mask,
                    uint32_t bytes, int write)
{
    bool scalar = i->encoding == VA_SMEM, sc0 = !scalar && va_sc0(i), sc1 = !scalar && va_sc1(i);
    enum vr_reach reach = write != 2 ? reach_of(sc0, sc1) : sc1 ? VR_REACH_ALL : VR_REACH_DEVICE;
    struct vr_access access = {
        .insn = i,
        .strong = write == 2 || sc0 || sc1,
        .reads = write != 1,
        .writes = write != 0,
        .reach = reach,
    };
    /* Among waves of a workgroup. */
    access.acquire = access.release = access.strong && reach == VR_REACH_BLOCK;
    if (access.strong && reach != VR_REACH_ALL)
        check_host(w, at[__builtin_ctzll(mask)], bytes);
    struct vr_warp warp = who(w);
    vr_touch(&warp, &access, at, mask, bytes, tell);
    count(w);
    w->access_strong = access.strong && access.reads;
}

/* All that was before the oldest access that is on its way is done. */
static void note_done(struct va_wave *w)
{
    struct vr_warp warp = who(w);
    uint32_t below = w->group->race->know[w->index].of[w->index];
    for (uint32_t k = w->queue_count; k--;)
        if (w->queue[k].access)
            below = w->queue[k].access;
    vr_done(&warp, below);
}

void va_race_barrier(struct va_wave *w)
{
    struct vr_warp warp = who(w);
    note_done(w);
    vr_arrive(&warp, 0);
}

void va_race_join(struct va_wave *w)
{
    struct vr_warp warp = who(w);
    vr_join(&warp, 0);
}

/* buffer_wbl2 has been waited for, and so has what was before it. */
void va_race_released(struct va_wave *w, const struct va_insn *i, uint32_t access)
{
    struct vr_warp warp = who(w);
    vr_done(&warp, access);
    vr_release_done(&warp, reach_of(va_sc0(i), va_sc1(i)));
}

void va_race_fence(struct va_wave *w, const struct va_insn *i)
{
    struct vr_warp warp = who(w);
    bool on_its_way = false;
    count(w);
    if (i->op == VA_MUBUF_buffer_wbl2) {
        if (w->queue)
            w->access_releases = true;
        else
            va_race_released(w, i, w->access);
        return;
    }
    for (uint32_t k = 0; k < w->queue_count; k++)
        on_its_way |= w->queue[k].strong;
    if (!on_its_way)
        vr_acquire(&warp, reach_of(va_sc0(i), va_sc1(i)));
}
