/*
 * product.h: many dots of rule 2 at once: rows of activations times the outputs of a matrix, the
 * rows grouped by the matrix they meet (an expert, a head). Groups of few rows read the weights
 * where they lie (simd/dots.c); for groups of many a stretch of outputs is repacked first
 * (simd/panel.c).
 */
#ifndef HOST_PRODUCT_H
#define HOST_PRODUCT_H

#include "kernels.h"

#define STRETCH 48   /* outputs an item computes */
#define LONGEST 192  /* of several items together, in place: long streams are read faster */
#define ROW_BLOCK 8  /* rows at a time, of a panel */
#define PANEL_ROWS 9 /* rows from which repacking pays */

/* Output o is the dot over row `first + o` of expert `slot`, or, transposed, over its column o,
 * rows first .. first + in - 1. */
struct matrix {
    const mh_weight_view *w;
    int64_t slot, first, in;
    bool transposed;
    int64_t ahead; /* transposed: bytes to the next group's */
};

struct group {
    int64_t slot, first; /* as in struct matrix */
    int64_t begin, end;  /* of the row list */
};

typedef void (*finish_fn)(const mh_op *op, int64_t id, int64_t o, int64_t count, const float *dots);

struct product {
    const mh_op *op;
    const mh_weight_view *w[2]; /* the second may be NULL; both have one shape */
    finish_fn finish[2];        /* takes outputs o .. o + count - 1 of row `id` */
    int64_t in, out;
    bool transposed;
    /* Row `id` has input id / ids_per_input, of `inputs`. */
    const float *(*input)(const mh_op *op, int64_t index);
    int64_t inputs, ids_per_input;
    /* Without a list, group g has rows g, g + group_count, ... below `inputs` and the matrix that
     * begins at row row_begin + g * group_stride. */
    int64_t group_count, row_begin, group_stride;
    const struct group *groups;
    const int32_t *ids;
};

/* Bytes of scratch: what all threads share, and what each has. `rows` bounds those of a group. */
uint64_t product_shared(const mh_op *op, int64_t rows, int64_t inputs, int64_t in, bool transposed);
uint64_t product_per_thread(const mh_op *op, int64_t rows, int64_t in, bool transposed);

/* Of the shared bytes the first. */
uint64_t product_ordered(int64_t inputs, int64_t in, bool transposed);

/* `shared` has product_shared bytes; a thread's bytes are the first of its scratch. */
void K(product)(const struct host_run *run, const struct product *p, char *shared);

/* Floats of an input whose terms are in another order: whole stripes. */
static inline int64_t permuted_floats(int64_t in)
{
    return (in + 63) / 64 * 64;
}

/* From one ordered input to the next: a line more, since block.c takes every fourth line of eight
 * inputs side by side and the first cache has the same few places for them. */
static inline int64_t ordered_floats(int64_t in)
{
    return permuted_floats(in) + 16;
}

static inline struct group product_group(const struct product *p, int64_t g)
{
    if (p->groups)
        return p->groups[g];
    return (struct group){0, p->row_begin + g * p->group_stride, 0, p->inputs / p->group_count};
}

static inline struct matrix product_matrix(const struct product *p, int which,
                                           const struct group *group)
{
    const mh_weight_view *w = p->w[which];
    return (struct matrix){w,     group->slot,   group->first,
                           p->in, p->transposed, p->group_stride * w->row_stride[0]};
}

/* Of row i of group g. */
static inline int64_t product_id(const struct product *p, int64_t g, int64_t i)
{
    return p->ids ? p->ids[i] : i * p->group_count + g;
}

/* ---- how a form multiplies: scalar.c, simd/ ---- */

struct product_job {
    const struct host_run *run;
    const struct product *p;
    const struct host_fast *fast; /* NULL: exact */
    const float *ordered; /* inputs in the order of the form's dots (dots.c); NULL: as they are */
    char *shared;         /* for repacked groups */
    int64_t stretches;    /* of a group's outputs; item i is stretch i % stretches of its group */
};

/* Before the items: inputs as they are wanted. The groups have `fewest` to `most` rows. */
void K(prepare_inputs)(struct product_job *job, int64_t fewest, int64_t most);
/* A pool_fn; the context is the job. */
void K(multiply_items)(void *job, int64_t begin, int64_t end, uint32_t thread);

/* The rows of weights that come next. */
struct next {
    struct matrix m;
    int64_t begin, count; /* 0: nothing */
};

/* product.c: outputs by the form's dots, of transposed matrices STRETCH at most, else LONGEST; and
 * the outputs of some rows of a group to where they belong. */
void K(multiply_in_place)(const struct product_job *job, int which, int64_t g, int64_t o,
                          int64_t count, const struct next *next);
/* Row i + r has its dots at r * pitch. */
void K(finish_rows)(const struct product *p, int which, int64_t g, int64_t i, int64_t rows,
                    int64_t o, int64_t count, const float *dots, int64_t pitch);

/* SIMD forms: whether their dots want inputs in an order of their own (simd/in_place.h), and it. */
bool K(wants_order)(void);
void K(order)(mh_format format, float *to, const float *x, int64_t in);

/* The form's own: out[i][r] = dot of x[i] and output `begin` + r of m; count as above, rows <=
 * PANEL_ROWS. */
void K(dots)(const struct matrix *m, int64_t begin, int64_t count, const float *const *x,
             int64_t rows, const struct next *next, float (*out)[LONGEST]);

/* ---- groups by expert ---- */

struct grouping {
    struct group *groups;
    int32_t *ids;
    int64_t count;
};

uint64_t grouping_bytes(int64_t ids, int64_t slots);

/* Slots (t, j), id t * k + j, by the bank's slot their expert has; those whose expert is absent are
 * in no group, those out of range raise the fault. `scratch`: grouping_bytes. */
struct grouping K(group_by_expert)(const mh_tensor *experts, const mh_tensor *map, int64_t slots,
                                   const mh_tensor *fault, char *scratch);

#endif
