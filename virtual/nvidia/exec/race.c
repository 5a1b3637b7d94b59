/* Races (common/race.h): what PTX says of an access, and who is told. */
#include "../../common/race.h"
#include "memory.h"

enum { KIND = 3, ACQUIRES = 8, RELEASES = 4 };

static void tell(void *user, const struct vr_access *did, uint32_t lane, uint64_t address,
                 uint32_t size, const struct vr_party *other)
{
    bool atomic = did->strong && did->reads && did->writes;
    struct vn_access access = {did->shared ? "shared" : "global",
                               atomic        ? "atomic"
                               : did->writes ? "store"
                                             : "load",
                               address, size, lane};
    vn_find_race(user, did->shared ? "shared-race" : "global-race", &access, other);
}

static void touch(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                  int kind, bool shared)
{
    const struct vn_insn *insn = w->next - 1;
    bool strong = (kind & KIND) == VN_ATOMIC;
    uint32_t order = insn->q & 15, scope = insn->q >> 4;
    struct vr_access access = {
        .insn = insn,
        .shared = shared,
        .guess = insn->flags & VN_GUESS && !(w->launch->checks & VN_CHECK_CAS_LOADS),
        .strong = strong,
        .reads = strong ? kind & ACQUIRES : (kind & KIND) == VN_READ,
        .writes = strong ? kind & RELEASES : (kind & KIND) == VN_WRITE,
        .acquire = order == VN_ACQUIRE || order == VN_ACQ_REL || order == VN_SC,
        .release = order == VN_RELEASE || order == VN_ACQ_REL || order == VN_SC,
        .reach = scope == VN_SCOPE_CTA   ? VR_REACH_BLOCK
                 : scope == VN_SCOPE_SYS ? VR_REACH_ALL
                                         : VR_REACH_DEVICE,
    };
    struct vr_warp who = {w->block->race, w->index, w};
    vr_touch(&who, &access, a->at, mask, size, tell);
}

void vn_race_shared(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                    int kind)
{
    if (w->block->race->word_count)
        touch(w, a, mask, size, kind, true);
}

void vn_race_global(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                    int kind)
{
    if (w->block->race && w->block->race->launch)
        touch(w, a, mask, size, kind, false);
}

void vn_race_arrive(struct vn_warp *w, uint32_t id)
{
    vr_arrive(&(struct vr_warp){w->block->race, w->index, w}, id);
}

void vn_race_join(struct vn_warp *w, uint32_t id)
{
    vr_join(&(struct vr_warp){w->block->race, w->index, w}, id);
}

void vn_race_warp(struct vn_warp *w)
{
    vr_meet(&(struct vr_warp){w->block->race, w->index, w});
}

void vn_race_fence(struct vn_warp *w)
{
    struct vr_warp who = {w->block->race, w->index, w};
    vr_acquire(&who, VR_REACH_ALL);
    vr_release(&who);
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
