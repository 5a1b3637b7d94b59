/* product.c: which weights meet which rows, stretch by stretch, spread over the threads. */
#include "product.h"

void K(finish_rows)(const struct product *p, int which, int64_t g, int64_t i, int64_t rows,
                    int64_t o, int64_t count, const float *dots, int64_t pitch)
{
    for (int64_t r = 0; r < rows; r++)
        p->finish[which](p->op, product_id(p, g, i + r), o, count, dots + r * pitch);
}

void K(multiply_in_place)(const struct product_job *job, int which, int64_t g, int64_t o,
                          int64_t count, const struct next *next)
{
    const struct product *p = job->p;
    struct group group = product_group(p, g);
    struct matrix m = product_matrix(p, which, &group);
    for (int64_t i = group.begin; i < group.end; i += PANEL_ROWS) {
        int64_t rows = group.end - i < PANEL_ROWS ? group.end - i : PANEL_ROWS;
        const float *x[PANEL_ROWS];
        float out[PANEL_ROWS][LONGEST];
        for (int64_t r = 0; r < rows; r++) {
            int64_t input = product_id(p, g, i + r) / p->ids_per_input;
            x[r] = job->ordered ? job->ordered + input * ordered_floats(p->in)
                                : p->input(p->op, input);
        }
        K(dots)(&m, o, count, x, rows, next, out);
        K(finish_rows)(p, which, g, i, rows, o, count, out[0], LONGEST);
    }
}

void K(product)(const struct host_run *run, const struct product *p, char *shared)
{
    struct product_job job = {run, p, NULL, NULL, shared, (p->out + STRETCH - 1) / STRETCH};
    int64_t rows = 0, fewest = INT64_MAX, most = 0;
    for (int64_t g = 0; g < p->group_count; g++) {
        struct group group = product_group(p, g);
        int64_t count = group.end - group.begin;
        rows += count;
        fewest = count < fewest ? count : fewest;
        most = count > most ? count : most;
    }
    if (!rows)
        return;
    K(prepare_inputs)(&job, fewest, most);
    int64_t cost = STRETCH * p->in * (p->w[1] ? 2 : 1) * rows / p->group_count;
    spread(run, p->group_count * job.stretches, cost, K(multiply_items), &job);
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
