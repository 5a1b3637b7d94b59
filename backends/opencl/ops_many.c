/* ops_many.c: kernel `many`: several tokens times a matrix. */
#include "ops.h"

/* As in many.cl. */
#define PANEL 48
#define ROWS 4 /* of a group */
#define MANY 8

static int64_t terms_of(int64_t in)
{
    return blocks(in, 64);
}

/* Of a work-item in the cpu form. */
static int64_t panel_floats(int64_t in)
{
    return 64 * (terms_of(in) * PANEL + 16);
}

/* A counter, the panels, then the inputs in the kernel's order. */
#define PANELS_AT 256

uint64_t many_bytes(const struct device *device, int64_t tokens, int64_t slots, int64_t in)
{
    if (device->form != FORM_CPU || tokens < FEW)
        return 0;
    return PANELS_AT + 4 * (uint64_t)(device->compute_units * panel_floats(in) +
                                      tokens * slots * 64 * terms_of(in));
}

/* Where the inputs lie in the scratch. */
static uint64_t ordered_at(const struct device *device, const struct many *m, int64_t in)
{
    return m->scratch_at + PANELS_AT + 4 * (uint64_t)(device->compute_units * panel_floats(in));
}

static void arg_ordered(struct launch *l, const struct many *m, int64_t in)
{
    int64_t pitch = 64 * terms_of(in), each = m->x->rank == 3 ? m->x->shape[1] : 1;
    arg_scratch3(l, ordered_at(l->run->device, m, in), each * pitch, pitch);
}

static void arg_counter(struct launch *l, const struct many *m)
{
    arg_word(l, m->scratch_at);
}

static mh_status launch_order(const struct run *run, const struct many *m, int64_t in)
{
    struct launch l = launch_begin(run, KERNEL_order, 0);
    arg_ordered(&l, m, in);
    arg_tensor(&l, m->x);
    arg_counter(&l, m);
    arg_long(&l, in);
    return launch_end(&l, m->x->rank == 3 ? m->x->shape[1] : 1, m->x->shape[0], 1);
}

mh_status launch_many(const struct run *run, const struct many *m)
{
    const mh_weight_view *w = mh_view_weight(m->w);
    const struct device *device = run->device;
    int64_t in = m->down ? m->rows : w->in, out = m->down ? w->in : m->rows;
    bool cpu = device->form == FORM_CPU;
    mh_status status = cpu ? launch_order(run, m, in) : MH_OK;
    if (status)
        return status;
    struct launch l = launch_begin(run, KERNEL_many, w->format);
    if (m->y)
        arg_tensor(&l, m->y);
    else
        arg_scratch3(&l, m->y_at, m->slots * out, out);
    if (cpu)
        arg_ordered(&l, m, in);
    else
        arg_tensor(&l, m->x);
    arg_int(&l, m->x->rank == 3);
    arg_tensor(&l, m->residual ? m->residual : m->x);
    arg_int(&l, m->residual != NULL);
    if (m->lists)
        arg_scratch(&l, m->lists_at, 0);
    else
        arg_tensor(&l, m->x);
    arg_int(&l, m->lists);
    arg_weight(&l, m->w);
    arg_weight(&l, m->up ? m->up : m->w);
    arg_int(&l, m->up != NULL);
    arg_int(&l, m->down);
    if (cpu)
        arg_scratch(&l, m->scratch_at + PANELS_AT, panel_floats(in));
    else
        arg_tensor(&l, m->x);
    if (cpu)
        arg_counter(&l, m);
    else
        arg_fault(&l, m->x); /* no counter */
    arg_long(&l, m->groups);
    arg_long(&l, out);
    arg_long(&l, in);
    arg_long(&l, m->head_rows);
    arg_long(&l, m->first);
    arg_long(&l, m->x->shape[0]);
    arg_long(&l, m->slots);
    if (cpu)
        return launch_end(&l, device->compute_units, 1, 1);
    return launch_end(&l, blocks(out, ROWS), m->lists ? 1 : blocks(m->x->shape[0], MANY),
                      m->groups);
}
