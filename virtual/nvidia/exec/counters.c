/* Counters: what the workers counted by instruction becomes sums by class and line. */
#include <stdlib.h>
#include <sys/mman.h>

#include "exec.h"

static uint64_t map_bytes(uint64_t range_bytes)
{
    return (range_bytes >> 8) + 4096; /* a bit a sector of 32 bytes */
}

static uint64_t piece_bytes(uint64_t range_bytes)
{
    return (range_bytes >> 20) + 4096;
}

static void *zeros(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void destroy_one(struct vn_maps *m)
{
    if (m->load)
        munmap(m->load, map_bytes(m->range_bytes));
    if (m->store)
        munmap(m->store, map_bytes(m->range_bytes));
    if (m->touched)
        munmap(m->touched, piece_bytes(m->range_bytes));
    free(m);
}

void vn_maps_destroy(struct vn_maps *maps)
{
    while (maps) {
        struct vn_maps *next = maps->next;
        destroy_one(maps);
        maps = next;
    }
}

static struct vn_maps *create_one(uint64_t range_bytes)
{
    struct vn_maps *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->range_bytes = range_bytes;
    m->load = zeros(map_bytes(range_bytes));
    m->store = zeros(map_bytes(range_bytes));
    m->touched = zeros(piece_bytes(range_bytes));
    if (m->load && m->store && m->touched)
        return m;
    destroy_one(m);
    return NULL;
}

bool vn_maps_create(struct vn_launch_state *s, int workers)
{
    struct vn_image *image =
        (struct vn_image *)(uintptr_t)s->image; /* the spare is not seen outside */
    s->maps = atomic_exchange(&image->spare, NULL);
    struct vn_maps **at = &s->maps;
    for (int i = 0; i < workers; i++, at = &(*at)->next) {
        if (!*at && !(*at = create_one(s->range_bytes)))
            return false;
        s->workers[i].maps = *at;
    }
    return true;
}

/* The pieces that any worker touched. */
static void touched_range(const struct vn_worker *worker, int workers, uint64_t *first,
                          uint64_t *last)
{
    *first = UINT64_MAX;
    *last = 0;
    for (int i = 0; i < workers; i++) {
        const struct vn_worker *w = &worker[i];
        *first = w->touched_first < *first ? w->touched_first : *first;
        *last = w->touched_last > *last ? w->touched_last : *last;
    }
}

void vn_maps_release(struct vn_launch_state *s, int workers)
{
    struct vn_image *image = (struct vn_image *)(uintptr_t)s->image;
    uint64_t first, last;
    if (!s->maps)
        return;
    for (int i = 0; i < workers && s->workers[i].maps; i++) {
        struct vn_maps *m = s->workers[i].maps;
        touched_range(&s->workers[i], 1, &first, &last);
        for (uint64_t p = first; p <= last && first != UINT64_MAX; p++) {
            if (!m->touched[p])
                continue;
            memset(m->load + p * 512, 0, 4096);
            memset(m->store + p * 512, 0, 4096);
            m->touched[p] = 0;
        }
    }
    vn_maps_destroy(atomic_exchange(&image->spare, s->maps));
}

static void unique(const struct vn_launch_state *s, int workers, struct vn_counters *out)
{
    uint64_t first, last;
    touched_range(s->workers, workers, &first, &last);
    for (uint64_t p = first; p <= last && first != UINT64_MAX; p++) {
        bool any = false;
        for (int i = 0; i < workers; i++)
            any |= s->workers[i].maps->touched[p];
        if (any)
            s->isa->sectors(s, workers, p, out);
    }
}

static uint64_t flops_of(const struct vn_insn *i)
{
    const char *name = vn_ops[i->op].name;
    uint8_t cls = i->cls;
    if (cls != VN_CLASS_FLOAT && cls != VN_CLASS_DOUBLE && cls != VN_CLASS_HALF)
        return 0;
    if (!strncmp(name, "abs", 3) || !strncmp(name, "neg", 3) || !strncmp(name, "copysign", 8))
        return 0;
    bool fused = !strncmp(name, "fma", 3) || !strncmp(name, "fms", 3) || !strncmp(name, "fnma", 4);
    uint64_t n = fused ? 2 : 1;
    return strstr(name, "x2") ? 2 * n : n;
}

static uint64_t matrix_flops(const struct vn_insn *i)
{
    uint64_t v = (uint64_t)i->imm;
    return 2 * (v & 255) * (v >> 8 & 255) * (v >> 16 & 255);
}

static void add(struct vn_insn_counters *to, const struct vn_insn_counters *from)
{
    to->issued += from->issued;
    to->lanes += from->lanes;
    to->off += from->off;
    to->whole += from->whole;
    to->bytes += from->bytes;
    to->sectors += from->sectors;
    to->ideal += from->ideal;
    to->passes += from->passes;
    to->divergences += from->divergences;
}

static void add_whole(const struct vn_insn *i, struct vn_insn_counters *c)
{
    uint32_t code = i->cls == VN_CLASS_STORE ? i->b : i->d;
    uint64_t bytes = (code & VN_FILE_MASK) == VN_R64 ? 8 : 4;
    c->bytes += c->whole * 32 * bytes;
    c->sectors += c->whole * bytes;
    c->ideal += c->whole * bytes;
}

static void sum_up(const struct vn_insn *i, const struct vn_insn_counters *c,
                   struct vn_counters *out)
{
    out->warp_instructions += (uint64_t)c->issued;
    out->lane_instructions += (uint64_t)c->lanes;
    out->by_class[i->cls] += (uint64_t)c->issued;
    out->divergences += c->divergences;
    out->float_operations += flops_of(i) * (uint64_t)c->lanes;
    bool store = i->cls == VN_CLASS_STORE || i->cls == VN_CLASS_ATOMIC;
    *(store ? &out->store_bytes : &out->load_bytes) += c->bytes;
    *(store ? &out->store_sectors : &out->load_sectors) += c->sectors;
    *(store ? &out->ideal_store_sectors : &out->ideal_load_sectors) += c->ideal;
    out->shared_passes += c->passes;
    out->shared_accesses += c->passes ? (uint64_t)c->issued : 0;
    if (i->op == VN_OP_mma) {
        out->matrix_operations += (uint64_t)c->issued;
        out->matrix_flops += matrix_flops(i) * (uint64_t)c->issued;
    }
    out->atomics += i->cls == VN_CLASS_ATOMIC ? (uint64_t)c->lanes : 0;
}

static bool push_line(struct vn_counters *out, const char *function, const struct vn_insn *i,
                      const struct vn_insn_counters *c)
{
    uint64_t n = out->line_count;
    if (!n || out->lines[n - 1].line != i->line || out->lines[n - 1].function != function) {
        if ((n & (n - 1)) == 0) {
            uint64_t room = n ? n * 2 : 1;
            void *lines = realloc(out->lines, room * sizeof *out->lines);
            if (!lines)
                return false;
            out->lines = lines;
        }
        out->lines[out->line_count++] =
            (struct vn_line_counters){.line = i->line, .function = function};
    }
    struct vn_line_counters *last = &out->lines[out->line_count - 1];
    last->warp_instructions += (uint64_t)c->issued;
    last->lane_instructions += (uint64_t)c->lanes;
    last->global_bytes += c->bytes;
    last->global_sectors += c->sectors;
    last->ideal_sectors += c->ideal;
    last->bank_passes += c->passes;
    last->divergences += c->divergences;
    return true;
}

bool vn_counters_collect(struct vn_launch_state *s, int workers, struct vn_counters *out)
{
    const struct vn_module *m = s->image->module;
    for (uint32_t f = 0; f < m->function_count; f++) {
        int64_t issued = 0, lanes = 0;
        for (uint32_t k = 0; k < m->functions[f].insn_count; k++) {
            struct vn_insn_counters c = {0};
            for (int i = 0; i < workers; i++) {
                if (s->workers[i].counters)
                    add(&c, &s->workers[i].counters[s->counter_base[f] + k]);
            }
            c.issued = issued += c.issued;
            lanes += c.lanes;
            c.lanes = lanes - (int64_t)c.off;
            if (!c.issued)
                continue;
            const struct vn_insn *insn = &vn_code_of(s, f)[k];
            add_whole(insn, &c);
            sum_up(insn, &c, out);
            if (s->launch->count_lines && !push_line(out, m->functions[f].info.name, insn, &c))
                return false;
        }
    }
    for (int i = 0; i < workers; i++)
        out->barriers += s->workers[i].barriers;
    unique(s, workers, out);
    return true;
}

void vn_counters_free(struct vn_counters *counters)
{
    if (!counters)
        return;
    free(counters->lines);
    *counters = (struct vn_counters){0};
}
