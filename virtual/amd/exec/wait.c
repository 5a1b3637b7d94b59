/* Results that have not arrived. With VA_CHECK_WAITS they arrive as late as s_waitcnt allows, so
 * that a wait that is missing shows: in wrong data, and as a report where the register is used. */
#include "exec.h"

static void arrive(struct va_wave *w, struct va_pending *p)
{
    if (p->releases)
        va_race_released(w, p->insn, p->access);
    if (p->lds) {
        for (uint64_t m = p->mask; m; m &= m - 1) {
            int l = __builtin_ctzll(m);
            memcpy(w->group->lds + p->to[l], &p->data[0][l], 4);
        }
    } else if (p->code != VA_NONE && p->scalar) {
        memcpy(&w->s[p->code], p->data[0], p->width * 4u);
    } else if (p->code != VA_NONE) {
        uint32_t *d = va_row(w, p->code);
        for (unsigned k = 0; k < p->width; k++) {
            if (p->merge) {
                uint32_t keep = p->merge == 1 ? 0xffff0000 : 0xffff;
                for (int l = 0; l < VA_LANES; l++)
                    if (p->mask >> l & 1)
                        d[l] = (d[l] & keep) | (p->data[k][l] & ~keep);
                continue;
            }
            for (int l = 0; l < VA_LANES; l++)
                if (p->mask >> l & 1)
                    d[(int)k * VA_LANES + l] = p->data[k][l];
        }
    }
}

static void drop(struct va_wave *w, uint32_t index)
{
    struct va_pending old = w->queue[index];
    w->queue_count--;
    memmove(&w->queue[index], &w->queue[index + 1], (w->queue_count - index) * sizeof w->queue[0]);
    w->queue[w->queue_count] = old; /* its rows are used again */
}

void va_wait(struct va_wave *w, unsigned vm, unsigned lgkm)
{
    unsigned vms = 0, lgkms = 0;
    for (uint32_t k = 0; k < w->queue_count; k++) {
        vms += w->queue[k].vm;
        lgkms += w->queue[k].lgkm;
    }
    /* Vector memory and LDS come back in order. */
    for (uint32_t k = 0; k < w->queue_count;) {
        struct va_pending *p = &w->queue[k];
        if ((p->vm && vms > vm) || (p->lgkm && !p->scalar && lgkms > lgkm)) {
            vms -= p->vm;
            lgkms -= p->lgkm;
            arrive(w, p);
            drop(w, k);
        } else {
            k++;
        }
    }
    /* Scalar memory comes in any order: the last first, so that only a wait for all is enough. */
    for (uint32_t k = w->queue_count; k-- && lgkms > lgkm;) {
        if (w->queue[k].scalar) {
            lgkms--;
            arrive(w, &w->queue[k]);
            drop(w, k);
        }
    }
}

struct va_pending *va_defer(struct va_wave *w, const struct va_insn *insn, bool vm, bool lgkm,
                            bool scalar, uint16_t code, unsigned width)
{
    if (!w->queue)
        return NULL;
    if (w->queue_count == VA_QUEUE) {
        arrive(w, &w->queue[0]);
        drop(w, 0);
    }
    struct va_pending *p = &w->queue[w->queue_count++];
    uint32_t(*data)[VA_LANES] = p->data;
    *p = (struct va_pending){.vm = vm,
                             .lgkm = lgkm,
                             .scalar = scalar,
                             .width = (uint8_t)width,
                             .code = code,
                             .mask = va_exec(w),
                             .insn = insn,
                             .access = w->access,
                             .strong = w->access_strong,
                             .releases = w->access_releases,
                             .data = data};
    w->access = 0;
    w->access_strong = w->access_releases = false;
    if (!scalar && code != VA_NONE) /* of what memory.c bound */
        p->merge = insn->kinds[1] >> 1 & 3;
    return p;
}

/* Constants have codes too, below those of vector registers: a wide one does not reach into them. */
static bool overlaps(uint16_t code, unsigned width, const struct va_pending *p)
{
    return code != VA_NONE && (code < VA_V0) == (p->code < VA_V0) && code < p->code + p->width &&
           p->code < code + width;
}

void va_check_pending(struct va_wave *w, const struct va_insn *i)
{
    for (uint32_t k = 0; k < w->queue_count; k++) {
        const struct va_pending *p = &w->queue[k];
        if (p->code == VA_NONE)
            continue;
        bool source =
            overlaps(i->a, i->wa, p) || overlaps(i->b, i->wb, p) || overlaps(i->c, i->wc, p);
        bool target = overlaps(i->d, i->wd, p) || (i->sd != VA_NONE && overlaps(i->sd, 2, p));
        /* A later result of the same kind comes later, and d16 halves meet in one register. */
        bool ordered = target && !source && i->class == p->insn->class && !p->scalar;
        if ((!source && !target) || ordered)
            continue;
        va_find(w, "missing-wait", -1, 0, 0, p->insn,
                "%s %s%u, whose load at text + 0x%llx no s_waitcnt has waited for",
                source ? "reads" : "writes",
                p->code >= VA_A0   ? "a"
                : p->code >= VA_V0 ? "v"
                                   : "s",
                p->code >= VA_A0   ? p->code - VA_A0
                : p->code >= VA_V0 ? p->code - VA_V0
                                   : p->code,
                (unsigned long long)(p->insn - w->insns) * 4);
        return;
    }
}
