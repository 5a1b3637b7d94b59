/*
 * selfcheck.c: kernels that were just compiled, each run once against the definition on a small
 * case before an op uses it. A driver that miscompiles one is named; its op expands or falls back.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops.h"

/* ---- operands, as ops.def lists them ---- */

enum { READ, WRITTEN, WEIGHT };
enum {
    ONLY_F32 = MH_F32,
    ONLY_I32 = MH_I32,
    ONLY_U32 = MH_U32,
    F32_OR_BF16 = MH_BF16,
    ANY = MH_F32,
    FLOATS = MH_F32
};

/* Ids by the name that ops.def gives operands. */
enum {
#define MH_OP(value, NAME, name, kind, doc, operands) ID_##name = value,
#include <moehal/ops.def>
#undef MH_OP
};

struct operand {
    uint16_t op, use, dtype;
    uint32_t offset; /* of the field */
    const char *name, *shape;
};

static const struct operand operands[] = {
#define TENSOR(op, field, use, types, shape)                                                       \
    {ID_##op, use, types, offsetof(mh_op_##op, field), #field, shape},
#define MH_OUT(op, field, types, shape) TENSOR(op, field, WRITTEN, types, shape)
#define MH_INOUT(op, field, types, shape) TENSOR(op, field, WRITTEN, types, shape)
#define MH_OPT_OUT(op, field, types, shape) TENSOR(op, field, WRITTEN, types, shape)
#define MH_IN(op, field, types, shape) TENSOR(op, field, READ, types, shape)
#define MH_OPT_IN(op, field, types, shape) TENSOR(op, field, READ, types, shape)
#define MH_WEIGHT(op, field, shape) TENSOR(op, field, WEIGHT, 0, shape)
#define MH_OP(value, NAME, name, kind, doc, operands) operands
#define MH_OPT_WEIGHT(op, field, shape)
#include <moehal/ops.def>
#undef MH_OPT_WEIGHT
#undef MH_OP
#undef MH_OUT
#undef MH_INOUT
#undef MH_OPT_OUT
#undef MH_IN
#undef MH_OPT_IN
#undef MH_WEIGHT
};
#undef TENSOR

#define OPERANDS (sizeof(operands) / sizeof(operands[0]))

/* Sizes of the letters; small, uneven, and such that tails of stripes, blocks and pages are met. */
static int64_t size_of(mh_op_id op, char letter, int64_t rows)
{
    static const char letters[] = "DOIHRXKLGPQMJESVANW18";
    static const int64_t sizes[] = {70, 9, 130, 2, 4,  64, 70, 66, 4, 16, 2,
                                    2,  2, 8,   8, 40, 14, 70, 68, 1, 8};
    if (letter == 'T')
        return rows;
    if (letter == 'U')
        return 2 * rows; /* parts of attention_merge */
    if (letter == 'F')
        return 9; /* N + R of mla_query, N = 5 */
    if (op == MH_OP_HEAD_LINEAR && strchr("NMB", letter))
        return letter == 'N' ? 5 : 66; /* transposed: N rows down, M = B columns */
    return sizes[strchr(letters, letter) - letters];
}

/* ---- a case: the op twice, on the host's memory and on the device's ---- */

#define MOST_OPERANDS 16

struct memory {
    mh_dtype dtype; /* of a tensor */
    mh_buffer_view host, device;
    mh_weight_view host_weight, device_weight;
    const void *planes[8 * MH_MAX_PLANES];
};

struct check {
    struct device *device;
    struct stream *stream;
    mh_op_id op;
    mh_format format;
    int64_t rows;
    uint32_t seed;
    struct memory memory[MOST_OPERANDS];
    union {
        mh_op base;
#define MH_OP(value, NAME, name, kind, doc, operands) mh_op_##name name;
#include <moehal/ops.def>
#undef MH_OP
    } host, there;
};

static uint32_t draw(struct check *c)
{
    c->seed = c->seed * 1664525 + 1013904223;
    return c->seed >> 8;
}

static float uniform(struct check *c)
{
    return (float)((int32_t)draw(c) - (1 << 23)) * 0x1p-23f;
}

static void fill_indices(const struct operand *o, int32_t *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = !strcmp(o->name, "page_table")   ? (int32_t)((i + 1) % 4)
                : o->op == ID_attention_merge    ? (int32_t)(400 * i + 3)
                : !strcmp(o->name, "positions")  ? (int32_t)(5 * i + 3)
                : !strcmp(o->name, "slots")      ? (int32_t)(i % 2)
                : !strcmp(o->name, "expert_map") ? (int32_t)(count - 1 - i)
                                                 : (int32_t)(3 * i % 8);
}

static void fill_sampling(struct check *c, uint32_t *to, int64_t rows)
{
    float temperature = 0.7f;
    for (int64_t t = 0; t < rows; t++, to += 8) {
        memcpy(to, &temperature, 4);
        to[1] = 60000, to[2] = 10, to[3] = 0;
        to[4] = draw(c), to[5] = 7, to[6] = (uint32_t)t, to[7] = 0;
    }
}

static void fill_tensor(struct check *c, const struct operand *o, void *to, int64_t count)
{
    if (o->dtype == MH_I32)
        fill_indices(o, to, count);
    else if (o->dtype == MH_U32 && o->use == READ)
        fill_sampling(c, to, c->rows);
    else if (o->dtype == MH_F32)
        for (int64_t i = 0; i < count; i++)
            ((float *)to)[i] = uniform(c);
    else /* a cache of bf16, a fault word */
        memset(to, 0, (size_t)(count * bytes_of(o->dtype)));
}

/* Memory on both sides with the same content. */
static mh_status mirror(struct check *c, struct memory *m, uint64_t bytes)
{
    const mh_core *core = c->device->core;
    m->host.size = m->device.size = bytes;
    m->host.host = core->allocate(core->context, bytes);
    if (!m->host.host)
        return MH_OUT_OF_MEMORY;
    memset(m->host.host, 0, bytes);
    return opencl_buffer_create(c->device, bytes, MH_BUFFER_DEVICE, &m->device);
}

static mh_status upload(struct check *c, struct memory *m)
{
    const mh_copy copy = {.direction = MH_COPY_TO_DEVICE,
                          .to = m->device.handle,
                          .from = m->host.host,
                          .size = m->host.size};
    return opencl_copy(c->stream, &copy);
}

static mh_status make_tensor(struct check *c, const struct operand *o, struct memory *m)
{
    mh_tensor t = {.dtype = o->dtype, .rank = (uint32_t)strlen(o->shape)};
    if (o->shape[0] == '*')
        t.rank = 2, t.shape[0] = c->rows, t.shape[1] = 70;
    else
        for (uint32_t i = 0; i < t.rank; i++)
            t.shape[i] = size_of(c->op, o->shape[i], c->rows);
    if (c->op == MH_OP_CAST && o->use == WRITTEN)
        t.dtype = MH_F16;
    m->dtype = t.dtype;
    int64_t count = 1;
    for (uint32_t i = t.rank; i-- > 0; count *= t.shape[i])
        t.stride[i] = count * bytes_of(t.dtype);
    mh_status status = mirror(c, m, (uint64_t)(count * bytes_of(t.dtype)));
    if (status)
        return status;
    if (o->use == READ || o->dtype != MH_F32)
        fill_tensor(c, o, m->host.host, count);
    t.buffer = (mh_buffer *)(void *)&m->host;
    memcpy((char *)&c->host + o->offset, &t, sizeof(t));
    t.buffer = (mh_buffer *)(void *)&m->device;
    memcpy((char *)&c->there + o->offset, &t, sizeof(t));
    return upload(c, m);
}

static uint32_t planes_of(mh_format format, mh_plane out[MH_MAX_PLANES])
{
    uint32_t count = 0;
    switch (format) {
#define MH_PLANE(rows, cols, bytes) out[count++] = (mh_plane){rows, cols, bytes};
#define MH_FORMAT(value, NAME, name, planes)                                                       \
    case value:                                                                                    \
        planes break;
#include <moehal/formats.def>
#undef MH_FORMAT
#undef MH_PLANE
    default:
        break;
    }
    return count;
}

/* Any bits that are neither NaN nor large: magnitudes below 2 in f16, bf16 and fp8. */
static void fill_weight(struct check *c, const mh_weight_view *w, char *to, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        bool top = w->format == MH_FORMAT_FP8 || i % 2;
        to[i] = (char)(draw(c) & (top ? 0xBF : 0xFF));
    }
    if (w->format == MH_FORMAT_F32)
        for (uint64_t i = 0; i < bytes / 4; i++)
            ((float *)(void *)to)[i] = uniform(c);
    for (uint64_t at = w->offset[1]; w->plane_count > 1 && at < bytes; at += 4)
        *(float *)(void *)(to + at) = uniform(c);
}

static mh_status make_weight(struct check *c, const struct operand *o, struct memory *m)
{
    size_t rank = strlen(o->shape);
    mh_weight_view w = {.format = c->format};
    w.experts = rank == 3 ? size_of(c->op, o->shape[0], 0) : 1;
    w.out = size_of(c->op, o->shape[rank - 2], 0);
    w.in = size_of(c->op, o->shape[rank - 1], 0);
    w.plane_count = planes_of(c->format, w.plane);
    uint64_t bytes = 0;
    for (uint32_t p = 0; p < w.plane_count; p++) {
        const mh_plane *plane = &w.plane[p];
        w.row_stride[p] = blocks(w.in, plane->cols) * plane->bytes;
        w.expert_stride[p] = blocks(w.out, plane->rows) * w.row_stride[p];
        w.offset[p] = bytes;
        bytes += ((uint64_t)(w.expert_stride[p] * w.experts) + 255) & ~UINT64_C(255);
    }
    mh_status status = mirror(c, m, bytes);
    if (status)
        return status;
    fill_weight(c, &w, m->host.host, bytes);
    for (int64_t e = 0; e < w.experts; e++)
        for (uint32_t p = 0; p < w.plane_count; p++)
            m->planes[e * w.plane_count + p] =
                (char *)m->host.host + w.offset[p] + (uint64_t)(e * w.expert_stride[p]);
    w.buffer = &m->device;
    m->device_weight = m->host_weight = w;
    m->host_weight.buffer = &m->host;
    m->host_weight.host = m->planes;
    void *host = &m->host_weight, *there = &m->device_weight;
    memcpy((char *)&c->host + o->offset, &host, sizeof(host));
    memcpy((char *)&c->there + o->offset, &there, sizeof(there));
    return upload(c, m);
}

static void set_scalars(struct check *c)
{
    mh_router_rule rule = {MH_ROUTER_SIGMOID, MH_GROUPS_TOP2, 4, 2, 1, 2.5f};
    c->host.base.op = c->op;
    c->host.base.struct_size = sizeof(c->host);
    switch (c->op) {
    case MH_OP_RMSNORM:
        c->host.rmsnorm.eps = 1e-5f;
        break;
    case MH_OP_MLA_KV:
        c->host.mla_kv.eps = 1e-5f;
        break;
    case MH_OP_ATTENTION:
        c->host.attention.scale = 0.125f;
        break;
    case MH_OP_ATTENTION_MERGE:
        c->host.attention_merge.parts = 2;
        break;
    case MH_OP_ROUTER:
        c->host.router.rule = rule;
        break;
    case MH_OP_HEAD_LINEAR:
        c->host.head_linear.head_rows = 7, c->host.head_linear.row_begin = 1;
        c->host.head_linear.row_count = 5, c->host.head_linear.transposed = 1;
        break;
    case MH_OP_MLA_QUERY:
        c->host.mla_query.head_rows = 7;
        break;
    case MH_OP_COMBINE:
        c->host.combine.expert_count = c->host.combine.resident_count = 8;
        break;
    case MH_OP_FILL:
        c->host.fill.bits = 0x3FC00000;
        break;
    default:
        break;
    }
    c->there = c->host;
}

static mh_status make_operands(struct check *c)
{
    mh_status status = MH_OK;
    uint32_t n = 0;
    set_scalars(c);
    for (size_t i = 0; !status && i < OPERANDS; i++)
        if (operands[i].op == c->op)
            status = operands[i].use == WEIGHT ? make_weight(c, &operands[i], &c->memory[n++])
                                               : make_tensor(c, &operands[i], &c->memory[n++]);
    return status;
}

static mh_status run_there(struct check *c)
{
    mh_buffer_view arena = {0};
    uint64_t mark, bytes = opencl_scratch(c->device, &c->there.base);
    mh_status status =
        bytes ? opencl_buffer_create(c->device, bytes, MH_BUFFER_DEVICE, &arena) : MH_OK;
    const mh_scratch scratch = {.handle = arena.handle, .size = bytes};
    if (!status)
        status = opencl_encode(c->stream, &c->there.base, &scratch);
    if (!status)
        status = opencl_mark(c->stream, &mark);
    if (!status)
        status = opencl_wait(c->stream, mark, UINT64_MAX);
    if (arena.handle)
        opencl_buffer_destroy(c->device, &arena);
    return status;
}

static float value_at(mh_dtype dtype, const char *at)
{
    uint32_t bits = 0;
    float value;
    memcpy((char *)&bits + (dtype == MH_F32 ? 0 : 2), at, dtype == MH_F32 ? 4 : 2);
    memcpy(&value, &bits, 4);
    return value;
}

/* Floats within 2^-7 of the largest, a bit of bf16: enough for the fast profile. */
static bool is_near(const struct memory *m, const char *got)
{
    const char *want = m->host.host;
    uint64_t step = (uint64_t)bytes_of(m->dtype), size = m->host.size;
    float most = 0;
    if (m->dtype != MH_F32 && m->dtype != MH_BF16)
        return false;
    for (uint64_t at = 0; at < size; at += step)
        most = fmaxf(most, fabsf(value_at(m->dtype, want + at)));
    for (uint64_t at = 0; at < size; at += step)
        if (!(fabsf(value_at(m->dtype, got + at) - value_at(m->dtype, want + at)) <=
              0x1p-7f * most)) /* or NaN */
            return false;
    return true;
}

/* Reads what was written and compares; "" in `reason` where all is well. */
static mh_status compare(struct check *c, const struct operand *o, struct memory *m,
                         char reason[160])
{
    const mh_core *core = c->device->core;
    uint64_t mark, first = 0;
    char *got = core->allocate(core->context, m->host.size);
    if (!got)
        return MH_OUT_OF_MEMORY;
    const mh_copy copy = {
        .direction = MH_COPY_TO_HOST, .to = got, .from = m->device.handle, .size = m->host.size};
    mh_status status = opencl_copy(c->stream, &copy);
    if (!status)
        status = opencl_mark(c->stream, &mark);
    if (!status)
        status = opencl_wait(c->stream, mark, UINT64_MAX);
    while (!status && first < m->host.size && got[first] == ((char *)m->host.host)[first])
        first++;
    bool near = !status && first < m->host.size && is_near(m, got);
    if (!status && first < m->host.size && !(near && reason[0]))
        snprintf(reason, 160, "%s%s, byte %llu of %llu, is %02x, must be %02x",
                 near ? NOT_EXACT : "", o->name, (unsigned long long)first,
                 (unsigned long long)m->host.size, (unsigned char)got[first],
                 ((unsigned char *)m->host.host)[first]);
    core->deallocate(core->context, got);
    return status;
}

static void forget(struct check *c)
{
    const mh_core *core = c->device->core;
    for (int i = 0; i < MOST_OPERANDS; i++) {
        if (c->memory[i].device.handle)
            opencl_buffer_destroy(c->device, &c->memory[i].device);
        core->deallocate(core->context, c->memory[i].host.host);
    }
}

static mh_status run_check(struct check *c, char reason[160])
{
    const mh_core *core = c->device->core;
    mh_status status = make_operands(c);
    if (!status)
        status = core->define(core->context, &c->host.base);
    if (!status)
        status = run_there(c);
    for (size_t i = 0, n = 0; !status && i < OPERANDS; i++)
        if (operands[i].op == c->op) {
            if (operands[i].use == WRITTEN && (!reason[0] || opencl_is_near(reason)))
                status = compare(c, &operands[i], &c->memory[n], reason);
            n++;
        }
    forget(c);
    return status;
}

/* The op, and for how many tokens, that shows what a kernel does. Kernels that need another one
 * stand behind it. */
static const struct {
    enum kernel_id kernel;
    mh_op_id op;
    int64_t rows;
} shown_by[] = {
    {KERNEL_add, MH_OP_ADD, 5},
    {KERNEL_swiglu, MH_OP_SWIGLU, 5},
    {KERNEL_rmsnorm, MH_OP_RMSNORM, 5},
    {KERNEL_combine, MH_OP_COMBINE, 3},
    {KERNEL_copy, MH_OP_COPY, 5},
    {KERNEL_cast, MH_OP_CAST, 5},
    {KERNEL_fill, MH_OP_FILL, 5},
    {KERNEL_rope, MH_OP_ROPE, 5},
    {KERNEL_kv_write, MH_OP_KV_WRITE, 5},
    {KERNEL_mla_kv, MH_OP_MLA_KV, 5},
    {KERNEL_attention, MH_OP_ATTENTION, 5},
    {KERNEL_attention_merge, MH_OP_ATTENTION_MERGE, 3},
    {KERNEL_router, MH_OP_ROUTER, 5},
    {KERNEL_argmax, MH_OP_ARGMAX, 5},
    {KERNEL_sample, MH_OP_SAMPLE, 5},
    {KERNEL_linear, MH_OP_LINEAR_SWIGLU, 2},
    {KERNEL_embed, MH_OP_EMBED, 5},
    {KERNEL_head_columns, MH_OP_MLA_QUERY, 2},
    {KERNEL_experts_linear, MH_OP_EXPERTS_GATE_UP, 2},
    {KERNEL_experts_down_combine, MH_OP_EXPERTS_DOWN_COMBINE, 3},
    {KERNEL_many, MH_OP_LINEAR_SWIGLU, 13},
    {KERNEL_many, MH_OP_HEAD_LINEAR, 5},
    {KERNEL_many, MH_OP_EXPERTS_GATE_UP, 5},
};

mh_status opencl_check_kernel(struct device *device, enum kernel_id kernel, mh_format format,
                              char reason[160])
{
    const mh_core *core = device->core;
    mh_status first = MH_OK;
    reason[0] = 0;
    for (size_t i = 0; i < sizeof(shown_by) / sizeof(shown_by[0]); i++) {
        if (shown_by[i].kernel != kernel)
            continue;
        void *stream = NULL;
        struct check *c = core->allocate(core->context, sizeof(*c));
        mh_status status = c ? opencl_stream_create(device, &stream) : MH_OUT_OF_MEMORY;
        if (!status) {
            memset(c, 0, sizeof(*c));
            c->device = device, c->stream = stream, c->seed = 1;
            c->op = shown_by[i].op, c->format = format, c->rows = shown_by[i].rows;
            status = run_check(c, reason);
            opencl_stream_destroy(stream);
        }
        core->deallocate(core->context, c);
        if (status)
            snprintf(reason, 160, "it does not run (status %u)", status);
        first = first ? first : status;
    }
    return first;
}
