/* What the workers counted, added up. */
#include <stdlib.h>

#include "exec.h"

/* Different segments: the map of touched ones is sparse, and read by live allocation. */
struct unique {
    const struct va_launch_state *s;
    uint64_t n64, n128;
};

static void count_unique(const struct vc_alloc *a, void *context)
{
    struct unique *u = context;
    const struct va_launch_state *s = u->s;
    uint64_t first = (a->base - s->range_base) >> 6, end = first + (a->size + 63) / 64;
    if (a->base - s->range_base >= s->range_bytes)
        return;
    for (uint64_t k = first & ~7ull; k < end; k += 8) {
        unsigned bits = s->touched[k >> 3];
        u->n64 += (uint64_t)__builtin_popcount(bits);
        u->n128 += (uint64_t)__builtin_popcount((bits | bits >> 1) & 0x55);
    }
}

static void add_pc(struct va_counters *out, const struct va_launch_state *s, uint64_t at,
                   const struct va_pc_count *c)
{
    const struct va_insn *i = &s->code->insns[at];
    out->wave_instructions += c->issued;
    out->lane_instructions += c->lanes;
    out->by_class[i->op == VA_NO_OP ? VA_CLASS_SALU : i->class] += c->issued;
    out->segments64 += c->segments64;
    out->segments128 += c->segments128;
    out->ideal64 += c->ideal64;
    out->lds_bytes += c->lds_bytes;
    out->lds_passes += c->lds_passes;
    if (!out->pcs)
        return;
    out->pcs[out->pc_count++] = (struct va_pc_counters){.pc = s->code->address + at * 4,
                                                        .instructions = c->issued,
                                                        .lanes = c->lanes,
                                                        .global_bytes = c->bytes,
                                                        .segments64 = c->segments64,
                                                        .segments128 = c->segments128,
                                                        .ideal64 = c->ideal64,
                                                        .lds_bytes = c->lds_bytes,
                                                        .lds_passes = c->lds_passes};
}

bool va_counters_collect(struct va_launch_state *s, int workers, struct va_counters *out)
{
    uint64_t words = s->code->bytes / 4, used = 0;
    for (int k = 0; k < workers; k++) {
        const struct va_worker *w = &s->workers[k];
        out->load_bytes += w->load_bytes;
        out->store_bytes += w->store_bytes;
        out->scratch_bytes += w->scratch_bytes;
        out->atomics += w->atomics;
        out->barriers += w->barriers;
        out->valu_flops += w->valu_flops;
        out->mfma_flops += w->mfma_flops;
        out->lds_accesses += w->lds_accesses;
    }
    struct va_pc_count *sum = s->workers[0].counts;
    if (!sum)
        return false;
    for (uint64_t at = 0; at < words; at++) {
        for (int k = 1; k < workers; k++) {
            const struct va_pc_count *c = s->workers[k].counts ? &s->workers[k].counts[at] : NULL;
            if (!c || !c->issued)
                continue;
            sum[at].issued += c->issued;
            sum[at].lanes += c->lanes;
            sum[at].bytes += c->bytes;
            sum[at].segments64 += c->segments64;
            sum[at].segments128 += c->segments128;
            sum[at].ideal64 += c->ideal64;
            sum[at].lds_bytes += c->lds_bytes;
            sum[at].lds_passes += c->lds_passes;
        }
        used += sum[at].issued != 0;
    }
    if (s->launch->count_pcs && used && !(out->pcs = calloc(used, sizeof *out->pcs)))
        return false;
    for (uint64_t at = 0; at < words; at++)
        if (sum[at].issued)
            add_pc(out, s, at, &sum[at]);
    struct unique u = {.s = s};
    vc_each(s->launch->map, count_unique, &u);
    out->unique64 = u.n64;
    out->unique128 = u.n128;
    return true;
}

void va_counters_free(struct va_counters *counters)
{
    free(counters->pcs);
    counters->pcs = NULL;
    counters->pc_count = 0;
}
