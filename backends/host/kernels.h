/*
 * kernels.h: what kernel files share. They are compiled once for each instruction set (ISA is set
 * by the build); every form has the same bits, since the C says where to round.
 */
#ifndef HOST_KERNELS_H
#define HOST_KERNELS_H

#include <moehal/backend.h>

#include "numerics.h"
#include "pool.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define K(name) JOIN(host_##name, ISA) /* host_linear_avx2 */

/* What a kernel gets besides its op. */
struct host_run {
    struct pool *pool;
    const struct host_fast *fast; /* fast.h; NULL: all is exact */
    char *scratch;                /* scratch_shared bytes, then scratch_thread for each thread */
    uint64_t shared;
    uint64_t per_thread;
};

/* scratch.c: bytes that all threads share, and bytes of each. */
void host_scratch(const mh_op *op, uint64_t *shared, uint64_t *per_thread);

typedef void (*host_kernel)(const struct host_run *run, const mh_op *op);

#define MH_OP(value, NAME, name, kind, doc, operands)                                              \
    void K(name)(const struct host_run *run, const mh_op *op);
#include <moehal/ops.def>
#undef MH_OP

/* By op id; NULL where there is none. */
extern const host_kernel host_kernels_scalar[], host_kernels_avx2[], host_kernels_avx512[];

/* fused.c: a fused step of a layer as ops that have kernels of their own; *count 0: not such an op.
 * What passes between them lies at the beginning of `buffer`; returns its bytes. */
#define HOST_PARTS 3
union host_part {
    mh_op base;
    mh_op_rmsnorm rmsnorm;
    mh_op_linear linear;
    mh_op_linear_swiglu linear_swiglu;
    mh_op_mla_kv mla_kv;
    mh_op_mla_query mla_query;
    mh_op_router_linear router_linear;
    mh_op_experts_gate_up experts_gate_up;
    mh_op_experts_down_combine experts_down_combine;
};
typedef uint64_t host_split(const mh_op *op, mh_buffer *buffer, union host_part part[HOST_PARTS],
                            uint32_t *count);
host_split host_split_scalar, host_split_avx2, host_split_avx512;

static inline char *thread_scratch(const struct host_run *run, uint32_t thread)
{
    return run->scratch + run->shared + thread * run->per_thread;
}

static inline void *address(const mh_tensor *t, int64_t i)
{
    return (char *)mh_view_buffer(t->buffer)->host + t->offset + i * t->stride[0];
}

static inline void *address2(const mh_tensor *t, int64_t i, int64_t j)
{
    return (char *)address(t, i) + j * t->stride[1];
}

/* The last dimension is dense: rows of floats, or of indices. */
static inline float *row1(const mh_tensor *t, int64_t i)
{
    return address(t, i);
}

static inline float *row2(const mh_tensor *t, int64_t i, int64_t j)
{
    return address2(t, i, j);
}

static inline float *row3(const mh_tensor *t, int64_t i, int64_t j, int64_t k)
{
    return (float *)(void *)((char *)address2(t, i, j) + k * t->stride[2]);
}

static inline int32_t index_at(const mh_tensor *t, int64_t i)
{
    return *(const int32_t *)address(t, i);
}

static inline int32_t index_at2(const mh_tensor *t, int64_t i, int64_t j)
{
    return *(const int32_t *)address2(t, i, j);
}

static inline void raise_fault(const mh_tensor *fault)
{
    uint32_t *word = address(fault, 0);
    __atomic_store_n(word, MH_BAD_INDEX, __ATOMIC_RELAXED);
}

/* A dense f32 tensor at byte `offset` of memory. */
static inline mh_tensor f32_tensor(mh_buffer_view *memory, uint64_t offset, uint32_t rank,
                                   int64_t a, int64_t b, int64_t c)
{
    mh_tensor t = {.buffer = (mh_buffer *)(void *)memory,
                   .offset = offset,
                   .dtype = MH_F32,
                   .rank = rank,
                   .shape = {a, b, c}};
    int64_t stride = 4;
    for (uint32_t i = rank; i-- > 0; stride *= t.shape[i])
        t.stride[i] = stride;
    return t;
}

/* Where expert `e` lies in the bank: a slot, -1 elsewhere, -2 out of range. */
static inline int64_t expert_slot(const mh_tensor *map, int64_t experts, int64_t resident,
                                  int32_t e)
{
    if (e < 0 || e >= (map->rank ? map->shape[0] : experts))
        return -2;
    int64_t slot = map->rank ? index_at(map, e) : e;
    return slot < -1 || slot >= resident ? -2 : slot;
}

/* scalar.c, simd/rows.c: rule 5 on one row, y may be either; and rule 8's first largest. */
void K(swiglu_row)(float *y, const float *gate, const float *up, int64_t count);
int32_t K(argmax_row)(const float *logits, int64_t count);
/* norm.c: numerics rule 6 on one row; y may be x. */
void K(norm_row)(float *y, const float *x, const float *w, int64_t size, float eps);

/* Work that is too small to hand over runs on the caller. `cost` is in multiply-adds an item. */
static inline void spread(const struct host_run *run, int64_t items, int64_t cost, pool_fn fn,
                          const void *context)
{
    if (items * cost < 32768)
        fn((void *)(uintptr_t)context, 0, items, 0);
    else
        pool_run(run->pool, items, fn, (void *)(uintptr_t)context);
}

#endif
