/* product.c: which weights meet which rows, stretch by stretch, spread over the threads. */
#include "product.h"
#ifdef HOST_SIMD
#include "fast.h"
#include "panel.h"
#endif

struct job {
    const struct host_run *run;
    const struct product *p;
    const struct host_fast *fast; /* NULL: exact */
    char *shared;
    int64_t stretches;
};

static struct group group_at(const struct product *p, int64_t g)
{
    if (p->groups)
        return p->groups[g];
    return (struct group){0, p->row_begin + g * p->group_stride, 0, p->inputs / p->group_count};
}

static int64_t id_at(const struct product *p, int64_t g, int64_t i)
{
    return p->ids ? p->ids[i] : i * p->group_count + g;
}

static void finish_rows(const struct product *p, int which, int64_t g, int64_t i, int64_t rows,
                        int64_t o, int64_t count, float (*dots)[STRETCH])
{
    for (int64_t r = 0; r < rows; r++)
        p->finish[which](p->op, id_at(p, g, i + r), o, count, dots[r]);
}

static void multiply_in_place(const struct product *p, int which, int64_t g, int64_t o,
                              int64_t count)
{
    struct group group = group_at(p, g);
    struct matrix m = {p->w[which], group.slot, group.first, p->in, p->transposed};
    for (int64_t i = group.begin; i < group.end; i += ROW_BLOCK) {
        int64_t rows = group.end - i < ROW_BLOCK ? group.end - i : ROW_BLOCK;
        const float *x[ROW_BLOCK];
        float out[ROW_BLOCK][STRETCH];
        for (int64_t r = 0; r < rows; r++)
            x[r] = p->input(p->op, id_at(p, g, i + r) / p->ids_per_input);
        K(dots)(&m, o, count, x, rows, out);
        finish_rows(p, which, g, i, rows, o, count, out);
    }
}

#ifdef HOST_SIMD

static bool wants_fast(const struct job *job, int64_t rows)
{
    return job->fast && rows >= job->fast->least;
}

static bool wants_panel(const struct job *job, int64_t rows)
{
    return job->p->transposed || rows >= PANEL_ROWS;
}

static void multiply_panel(const struct job *job, int which, int64_t g, int64_t o, int64_t count,
                           float *panel)
{
    const struct product *p = job->p;
    struct group group = group_at(p, g);
    struct matrix m = {p->w[which], group.slot, group.first, p->in, p->transposed};
    const float *permuted = (const float *)(const void *)job->shared;
    K(panel_pack)(&m, o, count, panel);
    for (int64_t i = group.begin; i < group.end; i += ROW_BLOCK) {
        int64_t rows = group.end - i < ROW_BLOCK ? group.end - i : ROW_BLOCK;
        const float *x[ROW_BLOCK];
        float out[ROW_BLOCK][STRETCH];
        for (int64_t r = 0; r < rows; r++)
            x[r] = permuted + id_at(p, g, i + r) / p->ids_per_input * permuted_floats(p->in);
        K(panel_rows)(panel, p->in, x, rows, out);
        finish_rows(p, which, g, i, rows, o, count, out);
    }
}

/* Of rows, in the order of the list. */
static int64_t place_at(const struct product *p, int64_t g, int64_t i)
{
    return p->groups ? i : g * (p->inputs / p->group_count) + i;
}

/* Each row where the list has it: a block of rows lies together. */
static void convert_groups(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = context;
    const struct product *p = job->p;
    int64_t pitch = fast_pitch(p->in);
    (void)thread;
    for (int64_t g = begin; g < end; g++) {
        struct group group = group_at(p, g);
        uint16_t *to = (uint16_t *)(void *)job->shared + place_at(p, g, group.begin) * pitch;
        for (int64_t i = group.begin; i < group.end; i++, to += pitch)
            job->fast->convert(to, p->input(p->op, id_at(p, g, i) / p->ids_per_input), p->in);
    }
}

static void multiply_fast(const struct job *job, int which, int64_t g, int64_t o, int64_t count,
                          char *panel)
{
    const struct product *p = job->p;
    struct group group = group_at(p, g);
    struct matrix m = {p->w[which], group.slot, group.first, p->in, p->transposed};
    const uint16_t *x = (const uint16_t *)(void *)job->shared;
    job->fast->pack(&m, o, count, panel);
    for (int64_t i = group.begin; i < group.end; i += FAST_BLOCK) {
        int64_t rows = group.end - i < FAST_BLOCK ? group.end - i : FAST_BLOCK;
        float out[FAST_BLOCK][STRETCH];
        job->fast->rows(panel, p->in, x + place_at(p, g, i) * fast_pitch(p->in), rows, out);
        finish_rows(p, which, g, i, rows, o, count, out);
    }
}

static void permute_inputs(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = context;
    const struct product *p = job->p;
    float *permuted = (float *)(void *)job->shared;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        K(permute)(permuted + i * permuted_floats(p->in), p->input(p->op, i), p->in);
}

#endif

/* How a group is multiplied: few rows in place, many through a panel. */
static void multiply_stretch(const struct job *job, int which, int64_t g, int64_t o, int64_t count,
                             uint32_t thread)
{
#ifdef HOST_SIMD
    struct group group = group_at(job->p, g);
    char *panel = thread_scratch(job->run, thread);
    if (wants_fast(job, group.end - group.begin))
        multiply_fast(job, which, g, o, count, panel);
    else if (!job->fast && wants_panel(job, group.end - group.begin))
        multiply_panel(job, which, g, o, count, (float *)(void *)panel);
    else
        multiply_in_place(job->p, which, g, o, count);
#else
    (void)thread;
    multiply_in_place(job->p, which, g, o, count);
#endif
}

static void multiply_items(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = context;
    const struct product *p = job->p;
#ifdef HOST_SIMD
    if (job->fast)
        job->fast->enter();
#endif
    for (int64_t i = begin; i < end; i++) {
        int64_t g = i / job->stretches, o = i % job->stretches * STRETCH;
        int64_t count = p->out - o < STRETCH ? p->out - o : STRETCH;
        for (int which = 0; which < 2 && p->w[which]; which++)
            multiply_stretch(job, which, g, o, count, thread);
    }
#ifdef HOST_SIMD
    if (job->fast)
        job->fast->leave();
#endif
}

/* Inputs as the multiplication wants them. */
static void prepare_inputs(struct job *job, int64_t most)
{
#ifdef HOST_SIMD
    const struct product *p = job->p;
    job->fast = p->op->flags & MH_OP_FAST ? job->run->fast : NULL;
    if (!wants_fast(job, most))
        job->fast = NULL;
    if (job->fast)
        spread(job->run, p->group_count, p->in * most, convert_groups, job);
    else if (wants_panel(job, most))
        spread(job->run, p->inputs, p->in, permute_inputs, job);
#else
    (void)job, (void)most;
#endif
}

void K(product)(const struct host_run *run, const struct product *p, char *shared)
{
    struct job job = {run, p, NULL, shared, (p->out + STRETCH - 1) / STRETCH};
    int64_t rows = 0, most = 0;
    for (int64_t g = 0; g < p->group_count; g++) {
        struct group group = group_at(p, g);
        rows += group.end - group.begin;
        most = group.end - group.begin > most ? group.end - group.begin : most;
    }
    if (!rows)
        return;
    prepare_inputs(&job, most);
    int64_t cost = STRETCH * p->in * (p->w[1] ? 2 : 1) * rows / p->group_count;
    spread(run, p->group_count * job.stretches, cost, multiply_items, &job);
}

/* ---- groups by expert ---- */

static char *take(char **scratch, uint64_t bytes)
{
    char *taken = *scratch;
    *scratch += (bytes + 63) & ~UINT64_C(63);
    return taken;
}

struct grouping K(group_by_expert)(const mh_tensor *experts, const mh_tensor *map, int64_t slots,
                                   const mh_tensor *fault, char *scratch)
{
    int64_t k = experts->shape[1], ids = experts->shape[0] * k;
    int64_t limit = ids < slots ? ids : slots;
    struct grouping by = {.groups = (void *)take(&scratch, sizeof(struct group) * (uint64_t)limit),
                          .ids = (void *)take(&scratch, 4 * (uint64_t)ids)};
    int32_t *slot_of = (void *)take(&scratch, 4 * (uint64_t)ids);
    int32_t *next = (void *)take(&scratch, 4 * (uint64_t)slots);
    memset(next, 0, 4 * (size_t)slots);
    for (int64_t i = 0; i < ids; i++) {
        int64_t slot = expert_slot(map, slots, slots, index_at2(experts, i / k, i % k));
        slot_of[i] = (int32_t)slot;
        if (slot == -2)
            raise_fault(fault);
        if (slot >= 0)
            next[slot]++;
    }
    int64_t at = 0;
    for (int64_t s = 0; s < slots; s++) {
        int64_t count = next[s];
        next[s] = (int32_t)at;
        if (count)
            by.groups[by.count++] = (struct group){s, 0, at, at + count};
        at += count;
    }
    for (int64_t i = 0; i < ids; i++)
        if (slot_of[i] >= 0)
            by.ids[next[slot_of[i]]++] = (int32_t)i;
    return by;
}
