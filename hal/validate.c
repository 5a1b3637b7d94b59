/*
 * validate.c: the front end's checks, driven by ops.def. Done once, here; a backend trusts what
 * reaches it. Each failure names the op, the operand, the value and the limit.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "validate.h"

/* What looks closer, for the message or for what is odd but right. */
#define COLD __attribute__((noinline, cold))

const char *hal_op_label(const mh_op *op, char *text, size_t size)
{
    char layer[32] = "";
    if (op->layer >= 0)
        snprintf(layer, sizeof(layer), "layer %d", op->layer);
    if (*layer || op->label)
        snprintf(text, size, "%s (%s%s%s)", mh_op_name(op->op), layer,
                 *layer && op->label ? ", " : "", op->label ? op->label : "");
    else
        snprintf(text, size, "%s", mh_op_name(op->op));
    return text;
}

#define BAD(c, operand, ...) bad((c), (operand), __LINE__, __VA_ARGS__)
MH_PRINTF(4, 5)
static COLD mh_status bad(struct checker *c, const struct hal_operand *operand, uint32_t line,
                          const char *format, ...)
{
    char label[160], text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return hal_fail_at(c->runtime, __FILE__, line, MH_INVALID_ARGUMENT, NULL, "%s: %s: %s",
                       hal_op_label(c->op, label, sizeof(label)), operand->name, text);
}

static bool is_present(const struct checker *c, const struct hal_operand *operand)
{
    const mh_tensor *t = hal_tensor_at(c->op, operand);
    return operand->kind == HAL_WEIGHT ? hal_weight_at(c->op, operand) != NULL
                                       : t->rank || t->dtype;
}

/* ---- shapes ---- */

/* The size is what operands before this one have, or the first of its name. */
static inline bool fits(struct checker *c, uint8_t dim, int64_t size)
{
    if (c->seen >> dim & 1)
        return c->dims[dim] == size;
    c->seen |= UINT64_C(1) << dim;
    c->dims[dim] = size;
    return true;
}

/* The first operand that has this size in its shape. */
static const char *first_with(const struct checker *c, char letter)
{
    const struct hal_operand *operand = c->info->operands;
    while (!strchr(operand->shape, letter) || !is_present(c, operand))
        operand++;
    return operand->name;
}

static mh_status bind_dim(struct checker *c, const struct hal_operand *operand, uint32_t dim,
                          int64_t size)
{
    unsigned char letter = (unsigned char)operand->shape[dim];
    if (letter >= '0' && letter <= '9') {
        if (size != letter - '0')
            return BAD(c, operand, "dimension %u is %lld, must be %d", dim, (long long)size,
                       letter - '0');
        return MH_OK;
    }
    if (size < (letter == 'T' ? 0 : 1) || size > INT32_MAX)
        return BAD(c, operand, "dimension %u (%c) is %lld, must be %d to 2^31 - 1", dim, letter,
                   (long long)size, letter == 'T' ? 0 : 1);
    if (!fits(c, operand->dim[dim], size))
        return BAD(c, operand, "dimension %u (%c) is %lld, must be %lld as in %s", dim, letter,
                   (long long)size, (long long)c->dims[operand->dim[dim]],
                   first_with(c, (char)letter));
    return MH_OK;
}

static bool has_dtype(const struct hal_operand *operand, mh_dtype dtype)
{
    return dtype < 8 && (operand->dtypes >> dtype & 1);
}

static mh_status check_dtype(struct checker *c, const struct hal_operand *operand,
                             const mh_tensor *t)
{
    if (has_dtype(operand, t->dtype))
        return MH_OK;
    char wanted[64] = "";
    for (mh_dtype d = 1; d < 8; d++)
        if (has_dtype(operand, d)) {
            size_t used = strlen(wanted);
            snprintf(wanted + used, sizeof(wanted) - used, "%s%s", used ? " or " : "",
                     mh_dtype_name(d));
        }
    return BAD(c, operand, "dtype is %s (%u), must be %s", mh_dtype_name(t->dtype), t->dtype,
               wanted);
}

static mh_status check_shape(struct checker *c, const struct hal_operand *operand,
                             const mh_tensor *t)
{
    bool any = operand->rank == HAL_ANY_RANK;
    uint32_t rank = any ? t->rank : operand->rank;
    if (t->rank != rank || rank > MH_MAX_RANK)
        return BAD(c, operand, "rank is %u, must be %u", t->rank, any ? MH_MAX_RANK : rank);
    for (uint32_t i = 0; i < rank; i++) {
        mh_status status = MH_OK;
        if (!any)
            status = bind_dim(c, operand, i, t->shape[i]);
        else if (t->shape[i] < 0 || t->shape[i] > INT32_MAX)
            status = BAD(c, operand, "dimension %u is %lld, must be 0 to 2^31 - 1", i,
                         (long long)t->shape[i]);
        if (status)
            return status;
    }
    return MH_OK;
}

static bool is_empty(const mh_tensor *t)
{
    for (uint32_t i = 0; i < t->rank; i++)
        if (!t->shape[i])
            return true;
    return false;
}

/* Bytes from the first element's begin to the last one's end; false on overflow. */
static bool span_of(const mh_tensor *t, uint64_t *span)
{
    uint64_t last = 0;
    for (uint32_t i = 0; i < t->rank; i++) {
        uint64_t step;
        if (__builtin_mul_overflow((uint64_t)(t->shape[i] - 1), (uint64_t)t->stride[i], &step) ||
            __builtin_add_overflow(last, step, &last))
            return false;
    }
    *span = last + hal_dtype_size(t->dtype);
    return *span >= last;
}

static mh_status check_strides(struct checker *c, const struct hal_operand *operand,
                               const mh_tensor *t)
{
    int64_t size = (int64_t)hal_dtype_size(t->dtype);
    if (t->offset % (uint64_t)size)
        return BAD(c, operand, "offset is %llu, must be a multiple of %lld",
                   (unsigned long long)t->offset, (long long)size);
    for (uint32_t i = 0; i < t->rank; i++) {
        if (t->stride[i] < 0 || t->stride[i] % size)
            return BAD(c, operand, "stride %u is %lld, must be a multiple of %lld and not negative",
                       i, (long long)t->stride[i], (long long)size);
        bool last = i + 1 == t->rank;
        if (last && t->shape[i] > 1 && t->stride[i] != size && operand->rank != HAL_ANY_RANK)
            return BAD(c, operand, "stride of the last dimension is %lld, must be %lld",
                       (long long)t->stride[i], (long long)size);
    }
    return MH_OK;
}

static mh_status check_memory(struct checker *c, const struct hal_operand *operand,
                              const mh_tensor *t)
{
    uint64_t span, end;
    if (!span_of(t, &span) || __builtin_add_overflow(t->offset, span, &end))
        return BAD(c, operand, "its strides reach beyond 2^64 bytes");
    if (c->question)
        return MH_OK;
    if (!t->buffer)
        return BAD(c, operand, "buffer is NULL");
    if (t->buffer->device != c->device)
        return BAD(c, operand, "its buffer is on %s, the op on %s", t->buffer->device->uri,
                   c->device->uri);
    if (t->buffer->generation != c->generation)
        return hal_check_device(c->device, t->buffer->generation, operand->name);
    if (end > t->buffer->view.size)
        return BAD(c, operand, "ends at byte %llu of a buffer of %llu", (unsigned long long)end,
                   (unsigned long long)t->buffer->view.size);
    if (operand->access & HAL_OUT && t->buffer->flags & MH_IMPORT_READ_ONLY)
        return BAD(c, operand, "is written, but its buffer was imported read-only");
    c->written |= (operand->access & HAL_OUT ? UINT32_C(1) : 0) << c->reach_count;
    c->reach[c->reach_count++] = (struct reach){operand, t->buffer, t->offset, end};
    return MH_OK;
}

/* Each stride covers all that lies further in: nearly every tensor. */
static bool is_nested(const mh_tensor *t)
{
    uint64_t inner = hal_dtype_size(t->dtype);
    for (uint32_t i = t->rank; i-- > 0;) {
        if (t->shape[i] < 2)
            continue;
        if ((uint64_t)t->stride[i] < inner)
            return false;
        inner += (uint64_t)(t->shape[i] - 1) * (uint64_t)t->stride[i];
    }
    return true;
}

/* Two elements of an output must not share memory: each stride covers what lies inside it. */
static mh_status check_no_self_overlap(struct checker *c, const struct hal_operand *operand,
                                       const mh_tensor *t)
{
    if (is_nested(t))
        return MH_OK;
    for (uint32_t i = 0; i < t->rank; i++) {
        if (t->shape[i] < 2)
            continue;
        uint64_t inner = hal_dtype_size(t->dtype);
        for (uint32_t j = 0; j < t->rank; j++)
            if (j != i && t->shape[j] > 1 &&
                (t->stride[j] < t->stride[i] || (t->stride[j] == t->stride[i] && j > i)))
                inner += (uint64_t)(t->shape[j] - 1) * (uint64_t)t->stride[j];
        if ((uint64_t)t->stride[i] < inner)
            return BAD(c, operand, "stride %u is %lld: its elements overlap", i,
                       (long long)t->stride[i]);
    }
    return MH_OK;
}

static COLD mh_status check_view(struct checker *c, const struct hal_operand *operand,
                                 const mh_tensor *t)
{
    if (t->reserved[0] || t->reserved[1])
        return BAD(c, operand, "reserved is not zero");
    mh_status status = check_dtype(c, operand, t);
    if (!status)
        status = check_shape(c, operand, t);
    if (status || is_empty(t))
        return status;
    status = check_strides(c, operand, t);
    if (!status)
        status = check_memory(c, operand, t);
    if (!status && operand->access & HAL_OUT)
        status = check_no_self_overlap(c, operand, t);
    return status;
}

static mh_status check_tensor(struct checker *c, const struct hal_operand *operand)
{
    const mh_tensor *t = hal_tensor_at(c->op, operand);
    if (is_present(c, operand))
        return check_view(c, operand, t);
    return operand->optional ? MH_OK : BAD(c, operand, "is absent, but required");
}

static COLD mh_status check_matrix(struct checker *c, const struct hal_operand *operand,
                                   const mh_weight *w)
{
    const int64_t bank[3] = {w->view.experts, w->view.out, w->view.in};
    bool is_bank = operand->rank == 3;
    if (!is_bank && w->view.experts != 1)
        return BAD(c, operand, "has %lld experts, must be a plain matrix",
                   (long long)w->view.experts);
    for (uint32_t i = 0; i < operand->rank; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): the rank is 2 or 3 */
        mh_status status = bind_dim(c, operand, i, bank[is_bank ? i : i + 1]);
        if (status)
            return status;
    }
    if (c->question)
        return MH_OK;
    if (w->device != c->device && w->device != c->device->host)
        return BAD(c, operand, "is on %s, the op on %s", w->device->uri, c->device->uri);
    mh_status status = hal_check_device(w->device, w->generation, operand->name);
    if (!status && !w->sealed)
        status = BAD(c, operand, "weight '%s' is not sealed", w->label);
    return status;
}

static mh_status check_weight(struct checker *c, const struct hal_operand *operand)
{
    const mh_weight *w = hal_weight_at(c->op, operand);
    if (w)
        return check_matrix(c, operand, w);
    return operand->optional ? MH_OK : BAD(c, operand, "is NULL");
}

/* ---- overlap of operands ---- */

static bool same_view(const mh_tensor *a, const mh_tensor *b)
{
    if (a->offset != b->offset || a->rank != b->rank || a->dtype != b->dtype)
        return false;
    for (uint32_t i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i] || (a->shape[i] > 1 && a->stride[i] != b->stride[i]))
            return false;
    return true;
}

/* Views of different columns of the same rows interleave without touching: with a common outer
 * stride, each one's part of a period must stay clear of the other's. */
static bool interleave(const mh_tensor *a, const mh_tensor *b)
{
    if (a->rank < 2 || b->rank < 2 || a->stride[0] != b->stride[0] || !a->stride[0])
        return false;
    mh_tensor row_a = *a, row_b = *b;
    row_a.shape[0] = row_b.shape[0] = 1;
    uint64_t period = (uint64_t)a->stride[0], width_a, width_b;
    if (!span_of(&row_a, &width_a) || !span_of(&row_b, &width_b))
        return false;
    uint64_t from_a_to_b = (b->offset % period + period - a->offset % period) % period;
    bool apart = from_a_to_b >= width_a && period - from_a_to_b >= width_b;
    if (apart || a->rank < 3 || b->rank < 3)
        return apart;
    /* [T, H, ...]: the same again one dimension further in, for slices of heads of the same rows.
     */
    row_a = *a, row_b = *b;
    for (uint32_t i = 0; i + 1 < MH_MAX_RANK; i++) {
        row_a.shape[i] = row_a.shape[i + 1], row_a.stride[i] = row_a.stride[i + 1];
        row_b.shape[i] = row_b.shape[i + 1], row_b.stride[i] = row_b.stride[i + 1];
    }
    row_a.rank--, row_b.rank--;
    /* Row t of one must not reach into row t + 1 of the other. */
    bool a_first = a->offset < b->offset;
    uint64_t shift = a_first ? b->offset - a->offset : a->offset - b->offset;
    uint64_t first = a_first ? width_a : width_b, second = a_first ? width_b : width_a;
    return shift < period && first <= period && shift + second <= period &&
           interleave(&row_a, &row_b);
}

/* `a` is written and shares bytes with `b`. */
static mh_status check_pair(struct checker *c, const struct reach *a, const struct reach *b)
{
    const mh_tensor *t = hal_tensor_at(c->op, a->operand), *u = hal_tensor_at(c->op, b->operand);
    if (same_view(t, u) && hal_may_be_in_place(c->op->op, a->operand, b->operand))
        return MH_OK;
    if (interleave(t, u))
        return MH_OK;
    /* Of two that are written the first is told. */
    if (b->operand->access & HAL_OUT && b < a)
        return MH_OK;
    return BAD(c, a->operand, "overlaps %s", b->operand->name);
}

static mh_status check_overlap(struct checker *c)
{
    const struct reach *last = c->reach + c->reach_count;
    for (uint32_t written = c->written; written; written &= written - 1) {
        const struct reach *const at = c->reach + __builtin_ctz(written), a = *at;
        for (const struct reach *b = c->reach; b < last; b++) {
            if (b->begin >= a.end || a.begin >= b->end || b->buffer != a.buffer || b == at)
                continue;
            mh_status status = check_pair(c, at, b);
            if (status)
                return status;
        }
    }
    return MH_OK;
}

static void begin_check(struct checker *c, mh_device *device, const mh_op *op, bool question)
{
    c->device = device, c->runtime = device->runtime;
    c->generation = atomic_load_explicit(&device->generation, memory_order_relaxed);
    c->op = op, c->info = hal_op_find(op->op), c->question = question;
    c->reach_count = 0;
    c->written = 0;
}

static COLD mh_status look_closer(struct checker *c)
{
    const struct hal_operand *operand = c->info->operands, *end = operand + c->info->operand_count;
    c->reach_count = 0;
    c->written = 0;
    c->seen = UINT64_C(0x3ff) << HAL_LETTERS;
    for (int digit = 0; digit < HAL_DIMS - HAL_LETTERS; digit++)
        c->dims[HAL_LETTERS + digit] = digit;
    mh_status status = MH_OK;
    for (; !status && operand < end; operand++)
        status = operand->kind == HAL_TENSOR ? check_tensor(c, operand) : check_weight(c, operand);
    return status;
}

mh_status hal_validate(mh_device *device, const mh_op *op, bool question, int64_t *rows)
{
    struct checker c;
    begin_check(&c, device, op, question);
    if (op->flags & ~(uint32_t)MH_OP_FAST)
        return hal_fail(c.runtime, MH_INVALID_ARGUMENT, "%s: flags are 0x%x, known is 0x%x",
                        c.info->name, op->flags, MH_OP_FAST);
    mh_status status = hal_is_plain(&c) ? MH_OK : look_closer(&c);
    if (!status)
        status = hal_check_rules(c.runtime, op, c.dims);
    if (!status && !question)
        status = check_overlap(&c);
    *rows = c.seen >> hal_dim('T') & 1 ? c.dims[hal_dim('T')] : 1;
    return status;
}

/* ---- kernels of the embedder's own ---- */

static mh_status check_arg(struct checker *c, const mh_kernel_arg *arg, const char *name)
{
    const struct hal_operand operand = {
        .kind = HAL_TENSOR,
        .access = (uint8_t)((arg->access & MH_OPERAND_READ ? HAL_IN : 0) |
                            (arg->access & MH_OPERAND_WRITTEN ? HAL_OUT : 0)),
        .dtypes = 0xff,
        .rank = HAL_ANY_RANK,
        .name = name,
        .shape = "*",
    };
    const uint32_t known = MH_OPERAND_READ | MH_OPERAND_WRITTEN;
    switch (arg->kind) {
    case MH_ARG_TENSOR:
        if (!arg->access || arg->access & ~known)
            return BAD(c, &operand, "access is 0x%x, must be MH_OPERAND_READ, _WRITTEN or both",
                       arg->access);
        if (!hal_dtype_size(arg->tensor.dtype) || !arg->tensor.rank)
            return BAD(c, &operand, "dtype is %u, rank is %u: no tensor", arg->tensor.dtype,
                       arg->tensor.rank);
        if (is_empty(&arg->tensor))
            return BAD(c, &operand, "is empty");
        c->reach_count = 0; /* nothing is said of overlaps */
        return check_view(c, &operand, &arg->tensor);
    case MH_ARG_VALUE:
        if (arg->size < 1 || arg->size > sizeof(arg->value))
            return BAD(c, &operand, "size is %llu, must be 1 to %zu", (unsigned long long)arg->size,
                       sizeof(arg->value));
        return MH_OK;
    case MH_ARG_LOCAL:
        return arg->size ? MH_OK : BAD(c, &operand, "size is 0");
    default:
        return BAD(c, &operand, "kind is %u, unknown", arg->kind);
    }
}

mh_status hal_validate_kernel(mh_device *device, const mh_op_kernel *op, bool question)
{
    struct checker c;
    begin_check(&c, device, &op->base, question);
    const struct hal_operand kernel = {.name = "kernel"}, args = {.name = "args"};
    if (!op->kernel)
        return BAD(&c, &kernel, "is NULL");
    if (op->kernel->module->device != device)
        return BAD(&c, &kernel, "is on %s, the op on %s", op->kernel->module->device->uri,
                   device->uri);
    if (op->kernel->module->generation != device->generation)
        return hal_check_device(device, op->kernel->module->generation, "kernel");
    if (op->base.flags)
        return BAD(&c, &kernel, "flags are 0x%x, must be 0", op->base.flags);
    for (int i = 0; i < 3; i++)
        if (!op->grid[i] || !op->block[i])
            return BAD(&c, &kernel, "grid[%d] is %u, block[%d] is %u, must be at least 1", i,
                       op->grid[i], i, op->block[i]);
    if (op->arg_count > MH_MAX_KERNEL_ARGS || (op->arg_count && !op->args))
        return BAD(&c, &args, "arg_count is %u, must be at most %d%s", op->arg_count,
                   MH_MAX_KERNEL_ARGS, op->args ? "" : ", and args is NULL");
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < op->arg_count; i++) {
        char name[24];
        snprintf(name, sizeof(name), "args[%u]", i);
        status = check_arg(&c, &op->args[i], name);
    }
    return status;
}
