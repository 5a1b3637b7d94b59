/*
 * plan.h: parts of the files that turn an op into launches of kernels/: which kernel, its grid, its
 * arguments. Shapes, dtypes and bounds have been validated by the core. `supports` asks with
 * tensors and weights that have no memory: their addresses are then NULL.
 */
#ifndef AMD_PLAN_H
#define AMD_PLAN_H

#include <string.h>

#include "amd.h"
#include "kernels/experts.h"
#include "kernels/normed.h"

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- arguments ---- */

static inline void *address(const mh_tensor *t)
{
    return t->rank && t->buffer ? (char *)mh_view_buffer(t->buffer)->handle + t->offset : NULL;
}

/* A tensor; absent (rank 0, or NULL) it is all zero. */
static inline struct view view(const mh_tensor *t)
{
    struct view v = {0};
    if (t && t->rank) {
        v.at = address(t);
        v.row = t->stride[0];
        v.mid = t->rank > 2 ? t->stride[1] : 0;
    }
    return v;
}

static inline const char *plane(const mh_weight_view *w, uint32_t p)
{
    return p < w->plane_count && w->buffer ? (const char *)w->buffer->handle + w->offset[p] : NULL;
}

/* A weight; NULL: all zero. */
static inline struct weight weight(const mh_weight_view *w)
{
    struct weight a = {0};
    if (w) {
        a.data = plane(w, 0);
        a.row = w->row_stride[0];
        a.expert = w->expert_stride[0];
        if (w->plane_count > 1) {
            a.scales = plane(w, 1);
            a.scale_row = w->row_stride[1];
            a.scale_expert = w->expert_stride[1];
        }
    }
    return a;
}

/* Whether every row of a tensor may be read 16 bytes at a time. */
static inline bool tensor_aligned(const mh_tensor *t, int64_t columns)
{
    uint64_t bits = (uint64_t)(uintptr_t)address(t);
    for (uint32_t i = 0; i + 1 < t->rank; i++)
        bits |= (uint64_t)t->stride[i];
    return bits % 16 == 0 && columns % 4 == 0;
}

/* ALIGNED_... */
static inline uint32_t alignment(const mh_weight_view *w, const mh_tensor *x)
{
    return (w->in % 8 == 0 ? ALIGNED_WEIGHTS : 0) | /* planes are aligned, rows dense */
           (tensor_aligned(x, w->in) ? ALIGNED_INPUTS : 0);
}

/* ---- launches ---- */

static inline void begin(struct launch *l, uint32_t kernel, uint32_t format, uint32_t block)
{
    memset(l, 0, offsetof(struct launch, arguments));
    l->kernel = kernel;
    l->format = format;
    l->grid[0] = l->grid[1] = l->grid[2] = 1;
    l->block = block;
}

static inline void set_grid(struct launch *l, int64_t x, int64_t y, int64_t z)
{
    l->grid[0] = x;
    l->grid[1] = y;
    l->grid[2] = z;
}

/* ARGUMENTS(l, linear, .y = ..., ...): the kernel's struct linear_arguments. */
#define ARGUMENTS(l, name, ...)                                                                    \
    do {                                                                                           \
        const struct name##_arguments arguments_ = {__VA_ARGS__};                                  \
        _Static_assert(sizeof(arguments_) <= sizeof((l)->arguments), "room");                      \
        memcpy((l)->arguments, &arguments_, sizeof(arguments_));                                   \
    } while (0)

/* log2 of the tokens that share the reading of weights: as many as there are, up to 8. */
static inline uint32_t tokens_log2(int64_t tokens)
{
    uint32_t log2 = 0;
    while (log2 < 3 && (1 << log2) < tokens)
        log2++;
    return log2;
}

/* ---- ops, by the file that plans them: each fills l[0], ... and returns how many ---- */

/* There is no kernel (yet). */
#define NO_KERNEL UINT32_MAX

#define PLAN_ARGUMENTS(name)                                                                       \
    const struct device *device __attribute__((unused)), const mh_op_##name *o,                    \
        struct launch_memory *memory __attribute__((unused)), struct launch *l

#define MH_OP(value, NAME, name, kind, doc, operands) uint32_t plan_##name(PLAN_ARGUMENTS(name));
#include <moehal/ops.def>
#undef MH_OP

/* Defines plan_<name>. */
#define PLAN_OP(name) uint32_t plan_##name(PLAN_ARGUMENTS(name))

/* Takes `bytes` of the op's scratch, for this op alone: its address, aligned to 256 bytes. */
static inline char *take_scratch(struct launch_memory *memory, uint64_t bytes)
{
    char *at = memory->scratch ? memory->scratch + memory->used : NULL;
    memory->used += (bytes + 255) / 256 * 256;
    return at;
}

/* A dense f32 matrix in scratch, as what view() would make of it. */
static inline struct view scratch_rows(struct launch_memory *memory, int64_t rows, int64_t columns)
{
    return (struct view){take_scratch(memory, (uint64_t)(4 * rows * columns)), 4 * columns, 0};
}

/* May this op go to gemm.hip? */
static inline bool has_products(const struct device *device, const mh_op *op)
{
    return device->units >= MATRIX && op->flags & MH_OP_FAST;
}

/* The launches of an op by the matrix units, if it has_products; 0: its exact ones serve. */
uint32_t plan_fast(const struct device *device, const mh_op *op, struct launch_memory *memory,
                   struct launch *l);

/* The transposed products of heads by the matrix units; 0: too few rows, or unaligned weights. */
uint32_t launch_head_columns(struct view y, const mh_tensor *x, const mh_weight_view *w,
                             int64_t heads, int64_t rows, int64_t head_rows, int64_t first_row,
                             struct launch_memory *memory, struct launch *l);

/* ---- exchange.c ---- */

uint32_t plan_exchange(const mh_op_exchange *op, struct launch *l);

/* ---- pieces that several files need ---- */

struct choice choice(const mh_tensor *experts, const mh_tensor *map, const mh_tensor *fault,
                     const mh_weight_view *w);
void launch_combine(const struct combine_arguments *a, int64_t tokens, struct launch *l);

/* y = x w^T of `tokens` rows. */
void launch_linear(const struct device *device, struct view y, struct view x, bool x_aligned,
                   const mh_weight_view *w, int64_t tokens, struct launch *l);
/* head_linear that is not transposed: products with rows of each head. */
void launch_head_rows(const mh_op_head_linear *o, struct launch *l);
/* What norm.hiph needs; `rows` of weights decide how many waves a workgroup has. */
struct normed plan_normed(const struct device *device, const mh_tensor *x, const mh_tensor *norm,
                          float eps, int64_t rows);
/* y = rmsnorm(x, norm). */
void launch_rmsnorm(struct view y, struct view x, const float *norm, int64_t rows, int64_t columns,
                    float eps, struct launch *l);

#endif
