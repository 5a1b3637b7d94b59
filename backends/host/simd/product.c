/*
 * product.c: what a group's rows are many enough for: the bf16 units, an exact panel, or the
 * weights in place.
 */
#include "../fast.h"
#include "../panel.h"

static struct ahead ahead_of(const struct next *next)
{
    if (!next->count)
        return (struct ahead){NULL, 0};
    return (struct ahead){
        weight_row(next->m.w, next->m.slot, next->m.first + next->begin).data,
        next->count * next->m.w->row_stride[0],
    };
}

static int64_t group_rows(const struct product *p, int64_t g)
{
    struct group group = product_group(p, g);
    return group.end - group.begin;
}

static bool wants_fast(const struct product_job *job, int64_t rows)
{
    return job->fast && rows >= job->fast->least;
}

/* Columns are repacked sooner: rows of activations do not share what is read in place. */
#define COLUMN_ROWS 3

static bool wants_panel(const struct product_job *job, int64_t rows)
{
    return rows >= (job->p->transposed ? COLUMN_ROWS : PANEL_ROWS);
}

static void multiply_panel(const struct product_job *job, int which, int64_t g, int64_t o,
                           int64_t count, float *panel, const struct next *next)
{
    const struct product *p = job->p;
    struct group group = product_group(p, g);
    struct matrix m = product_matrix(p, which, &group);
    const float *permuted = (const float *)(const void *)job->shared;
    /* Blocks as equal as can be: the panel is read once for each, however few its rows. */
    int64_t all = group.end - group.begin, blocks = (all + ROW_BLOCK - 1) / ROW_BLOCK;
    struct ahead ahead = ahead_of(next);
    K(panel_pack)(&m, o, count, panel);
    for (int64_t b = 0; b < blocks; b++) {
        int64_t i = group.begin + all * b / blocks;
        int64_t rows = group.begin + all * (b + 1) / blocks - i;
        const float *x[ROW_BLOCK];
        float out[ROW_BLOCK][STRETCH];
        for (int64_t r = 0; r < rows; r++)
            x[r] = permuted + product_id(p, g, i + r) / p->ids_per_input * permuted_floats(p->in);
        K(panel_rows)(panel, p->in, count, x, rows, ahead_part(ahead, b, blocks), out);
        K(finish_rows)(p, which, g, i, rows, o, count, out[0], STRETCH);
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
    const struct product_job *job = context;
    const struct product *p = job->p;
    int64_t pitch = fast_pitch(p->in);
    (void)thread;
    for (int64_t g = begin; g < end; g++) {
        struct group group = product_group(p, g);
        uint16_t *to = (uint16_t *)(void *)job->shared + place_at(p, g, group.begin) * pitch;
        for (int64_t i = group.begin; i < group.end; i++, to += pitch)
            job->fast->convert(to, p->input(p->op, product_id(p, g, i) / p->ids_per_input), p->in);
    }
}

static void multiply_fast(const struct product_job *job, int which, int64_t g, int64_t o,
                          int64_t count, char *panel, const struct next *next)
{
    const struct product *p = job->p;
    struct group group = product_group(p, g);
    struct matrix m = product_matrix(p, which, &group);
    const uint16_t *x = (const uint16_t *)(void *)job->shared;
    int64_t blocks = (group.end - group.begin + FAST_BLOCK - 1) / FAST_BLOCK;
    struct ahead ahead = ahead_of(next);
    job->fast->pack(&m, o, count, panel);
    for (int64_t i = group.begin; i < group.end; i += FAST_BLOCK) {
        int64_t rows = group.end - i < FAST_BLOCK ? group.end - i : FAST_BLOCK;
        float out[FAST_BLOCK][STRETCH];
        job->fast->rows(panel, p->in, x + place_at(p, g, i) * fast_pitch(p->in), rows,
                        ahead_part(ahead, (i - group.begin) / FAST_BLOCK, blocks), out);
        K(finish_rows)(p, which, g, i, rows, o, count, out[0], STRETCH);
    }
}

static void permute_inputs(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct product_job *job = context;
    const struct product *p = job->p;
    float *permuted = (float *)(void *)job->shared;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        K(permute)(permuted + i * permuted_floats(p->in), p->input(p->op, i), p->in);
}

static void multiply_stretch(const struct product_job *job, int which, int64_t g, int64_t o,
                             int64_t count, const struct next *next, uint32_t thread)
{
    int64_t rows = group_rows(job->p, g);
    char *panel = thread_scratch(job->run, thread);
    if (wants_fast(job, rows))
        multiply_fast(job, which, g, o, count, panel, next);
    else if (!job->fast && wants_panel(job, rows))
        multiply_panel(job, which, g, o, count, (float *)(void *)panel, next);
    else
        K(multiply_in_place)(job, which, g, o, count, next);
}

/* Of `items` of one group. */
static int64_t outputs_at(const struct product_job *job, int64_t item, int64_t items)
{
    int64_t o = item % job->stretches * STRETCH;
    return job->p->out - o < items * STRETCH ? job->p->out - o : items * STRETCH;
}

/* The form reads weights in place once for so many rows. */
#ifdef __AVX512F__
#define READ_ONCE 2
#else
#define READ_ONCE 1
#endif

/* Items from i on that are multiplied together: one, but where weights are read once as many as
 * LONGEST allows. */
static int64_t items_together(const struct product_job *job, int64_t i, int64_t end)
{
    int64_t left = job->stretches - i % job->stretches;
    if (job->p->transposed || group_rows(job->p, i / job->stretches) > READ_ONCE)
        return 1;
    left = left < end - i ? left : end - i;
    return left < LONGEST / STRETCH ? left : LONGEST / STRETCH;
}

/* What follows product `which` of items: the second product, or the next item's first. */
static struct next after(const struct product_job *job, int which, int64_t item, int64_t items,
                         int64_t end)
{
    const struct product *p = job->p;
    bool second = !which && p->w[1];
    item += second ? 0 : items;
    if (item >= end || p->transposed)
        return (struct next){.count = 0};
    struct group group = product_group(p, item / job->stretches);
    return (struct next){product_matrix(p, second, &group), item % job->stretches * STRETCH,
                         outputs_at(job, item, items_together(job, item, end))};
}

void K(multiply_items)(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct product_job *job = context;
    const struct product *p = job->p;
    if (job->fast)
        job->fast->enter();
    for (int64_t i = begin, items; i < end; i += items) {
        items = items_together(job, i, end);
        for (int which = 0; which < 2 && p->w[which]; which++) {
            struct next next = after(job, which, i, items, end);
            multiply_stretch(job, which, i / job->stretches, i % job->stretches * STRETCH,
                             outputs_at(job, i, items), &next, thread);
        }
    }
    if (job->fast)
        job->fast->leave();
}

static void order_inputs(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct product_job *job = context;
    const struct product *p = job->p;
    int64_t pitch = ordered_floats(p->in);
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        K(order)
    (p->w[0]->format, (float *)(uintptr_t)job->ordered + i * pitch, p->input(p->op, i), p->in);
}

void K(prepare_inputs)(struct product_job *job, int64_t fewest, int64_t most)
{
    const struct product *p = job->p;
    job->fast = p->op->flags & MH_OP_FAST ? job->run->fast : NULL;
    if (!wants_fast(job, most))
        job->fast = NULL;
    bool in_place = job->fast ? !wants_fast(job, fewest) : !wants_panel(job, fewest);
    if (in_place && !p->transposed && K(wants_order)()) {
        job->ordered = (const float *)(const void *)job->shared;
        spread(job->run, p->inputs, p->in, order_inputs, job);
    }
    job->shared += product_ordered(p->inputs, p->in, p->transposed);
    if (job->fast)
        spread(job->run, p->group_count, p->in * most, convert_groups, job);
    else if (wants_panel(job, most))
        spread(job->run, p->inputs, p->in, permute_inputs, job);
}
