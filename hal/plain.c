/*
 * plain.c: the checks of ops as nearly all are: a function an op, straight from ops.def, so that
 * ranks, dtypes and the names of sizes are constants in it. It says no more than yes; what it does
 * not take, validate.c looks at, and has the words for.
 */
#include "validate.h"

#define INLINE static inline __attribute__((always_inline))
#define UNLIKELY(condition) __builtin_expect((condition), 0)

/* What is known so far: in registers, so not a part of the checker. */
struct known {
    uint64_t seen;
    uint32_t operand, reach_count, written;
};

/* From the innermost dimension out. */
struct extent {
    uint64_t element, bytes; /* bytes: from the first element's begin to the last one's end */
    uint64_t bits;           /* of offset and strides */
    uint64_t large;          /* of sizes and strides */
};

/* The size is what operands before this one have, or the first of its name. */
INLINE bool fits(struct checker *c, struct known *k, char name, int64_t size)
{
    if (name <= '9')
        return size == name - '0';
    uint32_t dim = hal_dim(name);
    if (k->seen >> dim & 1)
        return c->dims[dim] == size;
    k->seen |= UINT64_C(1) << dim;
    c->dims[dim] = size;
    return true;
}

/* Dimension i from inside; a name of '*' has no size of its own. */
INLINE bool take_dim(struct checker *c, struct known *k, const mh_tensor *t, uint32_t i, char name,
                     bool inner, struct extent *e)
{
    uint64_t steps = (uint64_t)t->shape[i] - 1, stride = (uint64_t)t->stride[i];
    if (name != '*' && UNLIKELY(!fits(c, k, name, t->shape[i])))
        return false;
    if (UNLIKELY(inner ? stride != e->element : stride < e->bytes) && steps)
        return false;
    e->bits |= stride;
    e->large |= steps | stride;
    e->bytes += steps * stride;
    return true;
}

INLINE bool take_memory(struct checker *c, struct known *k, const mh_tensor *t, uint32_t access,
                        const struct extent *e)
{
    const mh_buffer *b = t->buffer;
    uint64_t end = t->offset + e->bytes;
    if (c->question)
        return true;
    if (!b || b->device != c->device || b->generation != c->generation || end > b->view.size ||
        (access & HAL_OUT && b->flags & MH_IMPORT_READ_ONLY))
        return false;
    k->written |= (access & HAL_OUT ? UINT32_C(1) : 0) << k->reach_count;
    c->reach[k->reach_count++] = (struct reach){c->info->operands + k->operand, b, t->offset, end};
    return true;
}

/* `rank` is that of ops.def; 0: any. */
INLINE bool take_tensor(struct checker *c, struct known *k, const mh_tensor *t, uint32_t access,
                        bool optional, uint32_t dtypes, const char *shape, uint32_t rank)
{
    bool one = !(dtypes & (dtypes - 1));
    struct extent e = {.bits = t->offset};
    if (optional && !t->rank && !t->dtype)
        return true;
    const mh_dtype dtype = one ? (mh_dtype)__builtin_ctz(dtypes) : t->dtype;
    if (one ? t->dtype != dtype : dtype > 7 || !(dtypes >> dtype & 1))
        return false;
    e.bytes = e.element = hal_dtype_size(dtype);
    if (t->offset > INT64_MAX || t->reserved[0] | t->reserved[1])
        return false;
    if (!rank) {
        if (!t->rank || t->rank > MH_MAX_RANK)
            return false;
        for (uint32_t i = t->rank; i-- > 0;)
            if (!take_dim(c, k, t, i, '*', false, &e))
                return false;
    } else if (t->rank != rank ||
               (rank > 3 && !take_dim(c, k, t, 3, shape[3 % rank], rank == 4, &e)) ||
               (rank > 2 && !take_dim(c, k, t, 2, shape[2 % rank], rank == 3, &e)) ||
               (rank > 1 && !take_dim(c, k, t, 1, shape[1 % rank], rank == 2, &e)) ||
               !take_dim(c, k, t, 0, shape[0], rank == 1, &e)) {
        return false;
    }
    return !(e.bits & (e.element - 1)) && e.large < INT32_MAX && take_memory(c, k, t, access, &e);
}

INLINE bool take_weight(struct checker *c, struct known *k, const mh_weight *w, bool optional,
                        const char *shape, bool bank)
{
    if (!w)
        return optional;
    return w->device == c->device && w->generation == c->generation && w->sealed &&
           (bank ? fits(c, k, shape[0], w->view.experts) : w->view.experts == 1) &&
           fits(c, k, shape[bank], w->view.out) && fits(c, k, shape[bank + 1], w->view.in);
}

#define TENSOR(field, access, optional, dtypes, shape)                                             \
    &&take_tensor(c, &k, &o->field, access, optional, dtypes, shape,                               \
                  (shape)[0] == '*' ? 0 : sizeof(shape) - 1) &&                                    \
        ++k.operand
#define WEIGHT(field, optional, shape)                                                             \
    &&take_weight(c, &k, o->field, optional, shape, sizeof(shape) - 1 == 3) && ++k.operand
#define MH_OUT(op, field, dtypes, shape) TENSOR(field, HAL_OUT, false, dtypes, shape)
#define MH_OPT_OUT(op, field, dtypes, shape) TENSOR(field, HAL_OUT, true, dtypes, shape)
#define MH_IN(op, field, dtypes, shape) TENSOR(field, HAL_IN, false, dtypes, shape)
#define MH_OPT_IN(op, field, dtypes, shape) TENSOR(field, HAL_IN, true, dtypes, shape)
#define MH_INOUT(op, field, dtypes, shape) TENSOR(field, HAL_IN | HAL_OUT, false, dtypes, shape)
#define MH_WEIGHT(op, field, shape) WEIGHT(field, false, shape)
#define MH_OPT_WEIGHT(op, field, shape) WEIGHT(field, true, shape)

#define MH_OP(value, NAME, name, kind, doc, operands)                                              \
    static bool is_plain_##name(struct checker *c, const mh_op_##name *o)                          \
    {                                                                                              \
        struct known k = {0, 0, 0, 0};                                                             \
        bool plain = true operands;                                                                \
        c->seen = k.seen, c->reach_count = k.reach_count, c->written = k.written;                  \
        return plain;                                                                              \
    }
#include <moehal/ops.def>
#undef MH_OP

bool hal_is_plain(struct checker *c)
{
    switch (c->op->op) {
#define MH_OP(value, NAME, name, kind, doc, operands)                                              \
    case value:                                                                                    \
        return is_plain_##name(c, (const void *)c->op);
#include <moehal/ops.def>
#undef MH_OP
    default:
        return false;
    }
}
