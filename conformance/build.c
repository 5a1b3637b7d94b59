/* build.c: from the name of an op case to its memory. Sizes come from the letters of ops.def. */
#include "build.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "values.h"

struct conf_operand *conf_find(struct conf_build *b, const char *name)
{
    for (uint32_t i = 0; i < b->operand_count; i++)
        if (!strcmp(b->operands[i].info.name, name))
            return &b->operands[i];
    return NULL;
}

struct conf_weight *conf_find_weight(struct conf_build *b, const char *name)
{
    for (uint32_t i = 0; i < b->weight_count; i++)
        if (!strcmp(b->weights[i].info.name, name))
            return &b->weights[i];
    return NULL;
}

/* ---- elements ---- */

int64_t conf_count(const struct conf_operand *o)
{
    int64_t count = 1;
    for (uint32_t i = 0; i < o->view.rank; i++)
        count *= o->view.shape[i];
    return count;
}

uint64_t conf_element(const struct conf_operand *o, int64_t index)
{
    uint64_t at = o->view.offset;
    for (uint32_t i = o->view.rank; i-- > 0; index /= o->view.shape[i])
        at += (uint64_t)(index % o->view.shape[i] * o->view.stride[i]);
    return at;
}

double conf_decode(mh_dtype dtype, const void *bytes)
{
    uint16_t half;
    uint32_t bits;
    float value;
    if (dtype == MH_F32) {
        memcpy(&value, bytes, 4);
        return (double)value;
    }
    memcpy(&half, bytes, 2);
    if (dtype == MH_BF16) {
        bits = (uint32_t)half << 16;
        memcpy(&value, &bits, 4);
        return (double)value;
    }
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double magnitude = exponent == 31 ? (fraction ? NAN : INFINITY)
                       : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                      : ldexp(fraction, -24);
    return half >> 15 ? -magnitude : magnitude;
}

static const void *place(const struct conf_build *b, const struct conf_operand *o, int64_t i,
                         int64_t j, int64_t k)
{
    const mh_tensor *v = &o->view;
    return b->image[o->buffer] + v->offset + i * v->stride[0] +
           (v->rank > 1 ? j * v->stride[1] : 0) + (v->rank > 2 ? k * v->stride[2] : 0);
}

double conf_value(const struct conf_build *b, const struct conf_operand *o, int64_t i, int64_t j,
                  int64_t k)
{
    return conf_decode(o->view.dtype, place(b, o, i, j, k));
}

int32_t conf_index(const struct conf_build *b, const struct conf_operand *o, int64_t i, int64_t j)
{
    int32_t value;
    memcpy(&value, place(b, o, i, j, 0), 4);
    return value;
}

/* ---- weights ---- */

static double fp8_value(uint8_t byte)
{
    int exponent = byte >> 3 & 15, fraction = byte & 7;
    double magnitude = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
    if ((byte & 0x7F) == 0x7F)
        return NAN;
    return byte & 0x80 ? -magnitude : magnitude;
}

void conf_weight_row(const struct conf_weight *w, int64_t expert, int64_t row, double *out)
{
    int64_t size = w->format == MH_FORMAT_F32 ? 4 : w->format == MH_FORMAT_FP8 ? 1 : 2;
    const uint8_t *data = w->data + (expert * w->out + row) * w->in * size;
    static const mh_dtype dtypes[] = {0, MH_F32, MH_F16, MH_BF16};
    int64_t across = (w->in + 127) / 128, down = (w->out + 127) / 128;
    for (int64_t k = 0; k < w->in; k++) {
        if (w->format != MH_FORMAT_FP8) {
            out[k] = conf_decode(dtypes[w->format], data + k * size);
            continue;
        }
        float scale;
        memcpy(&scale, w->scales + 4 * ((expert * down + row / 128) * across + k / 128), 4);
        out[k] = (double)(float)(fp8_value(data[k]) * (double)scale); /* exact in f64 */
    }
}

static bool make_weight(struct conf_build *b, const mh_operand *info)
{
    struct conf_weight *w = &b->weights[b->weight_count++];
    const int64_t *dim = b->c->dim;
    bool bank = strlen(info->shape) == 3;
    const unsigned char *letter = (const unsigned char *)info->shape;
    *w = (struct conf_weight){.info = *info, .format = b->c->format};
    w->experts = bank ? dim[*letter++] : 1;
    w->out = dim[letter[0]];
    w->in = dim[letter[1]];
    int64_t size = w->format == MH_FORMAT_F32 ? 4 : w->format == MH_FORMAT_FP8 ? 1 : 2;
    uint64_t count = (uint64_t)(w->experts * w->out * w->in), data = count * (uint64_t)size;
    uint64_t scales = 4 * (uint64_t)(w->experts * ((w->out + 127) / 128) * ((w->in + 127) / 128));
    w->mapped = data + scales + 64;
    w->memory = mmap(NULL, w->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (w->memory == MAP_FAILED) {
        w->memory = NULL;
        return false;
    }
    w->data = w->memory + (b->c->layout == LAYOUT_SHIFTED ? 1 : 0);
    w->scales = w->data + data + (b->c->layout == LAYOUT_SHIFTED ? 1 : 0);
    w->keep = count > 1 << 21 ? 1 + (int64_t)(count >> 21) : 1;
    conf_fill_weight(b, w);
    return true;
}

mh_status conf_weight_create(const struct conf_weight *w, mh_device *device, bool write,
                             mh_weight **out)
{
    mh_weight_params params = MH_INIT(mh_weight_params);
    params.format = w->format, params.label = w->info.name;
    params.experts = w->experts, params.out = w->out, params.in = w->in;
    mh_status status = mh_weight_create(device, &params, out);
    if (status || !write)
        return status;
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.flags = MH_PIECE_STAYS; /* the build outlives the weight */
    piece.expert_count = w->experts, piece.row_count = w->out;
    piece.plane[0] = w->data, piece.plane[1] = w->scales;
    status = mh_weight_write(*out, &piece);
    return status ? status : mh_weight_seal(*out);
}

/* ---- tensors ---- */

/* Optional operands by variant. */
static bool is_present(const struct conf_case *c, const mh_operand *info)
{
    if (!(info->flags & MH_OPERAND_OPTIONAL))
        return true;
    const char *variant = conf_rule(c->op)->variants[c->variant];
    if (!strcmp(info->name, "residual") || !strcmp(info->name, "sum"))
        return !strcmp(variant, "residual");
    if (!strcmp(info->name, "y2") || !strcmp(info->name, "w2"))
        return !strcmp(variant, "pair");
    if (!strcmp(info->name, "bias"))
        return strstr(variant, "bias") != NULL;
    if (!strcmp(info->name, "shared"))
        return c->op == MH_OP_COMBINE ? c->variant == 1 : c->variant % 2 == 0;
    if (!strcmp(info->name, "experts"))
        return c->variant >= 2;
    return c->variant >= (c->op == MH_OP_COMBINE ? 3u : 2u); /* expert_map */
}

static mh_dtype dtype_of(const struct conf_case *c, const mh_operand *info)
{
    if (!strcmp(info->name, "cache"))
        return c->dtype;
    if (info->shape[0] == '*')
        return c->to && info->flags & MH_OPERAND_WRITTEN ? c->to : c->dtype;
    return info->dtypes >> MH_F32 & 1 ? MH_F32 : info->dtypes >> MH_I32 & 1 ? MH_I32 : MH_U32;
}

/* Shapes of copy, cast and fill by variant: rank1, rank2, rank4, transposed. */
static uint32_t free_shape(const struct conf_case *c, int64_t shape[MH_MAX_RANK])
{
    static const char letters[] = "ABCD";
    uint32_t rank = c->variant == 0 ? 1 : c->variant == 1 ? 2 : c->variant == 2 ? 4 : 2;
    for (uint32_t i = 0; i < rank; i++)
        shape[i] = c->dim[(unsigned char)letters[(rank < 3 ? 2 : 0) + i]];
    return rank;
}

static uint32_t shape_of(const struct conf_case *c, const mh_operand *info,
                         int64_t shape[MH_MAX_RANK])
{
    if (info->shape[0] == '*')
        return free_shape(c, shape);
    uint32_t rank = (uint32_t)strlen(info->shape);
    for (uint32_t i = 0; i < rank; i++) {
        unsigned char letter = (unsigned char)info->shape[i];
        shape[i] = letter >= '0' && letter <= '9' ? letter - '0' : c->dim[letter];
    }
    return rank;
}

/* Strides of the layout; transposed copies have their dimensions the other way round in x. */
static uint64_t set_strides(struct conf_build *b, mh_tensor *t, const mh_operand *info)
{
    const struct conf_case *c = b->c;
    int64_t size = (int64_t)mh_dtype_size(t->dtype), stride = size;
    bool any = info->shape[0] == '*';
    bool turned = any && c->variant == 3 && !(info->flags & MH_OPERAND_WRITTEN);
    /* params (mh_sampling) hold 8-byte values. */
    int64_t unit = !strcmp(info->name, "params") ? 8 : size;
    for (uint32_t i = 0; i < t->rank; i++) {
        uint32_t d = turned ? i : t->rank - 1 - i;
        if (c->layout != LAYOUT_DENSE && (i || (any && c->variant >= 2)))
            stride += (int64_t)conf_below(&b->random, 4) * unit;
        t->stride[d] = stride;
        stride *= t->shape[d] ? t->shape[d] : 1;
    }
    return (uint64_t)stride;
}

/* "y=x,sum=residual": the input whose place `name` takes, if it has one. */
static const struct conf_operand *in_place_of(struct conf_build *b, const char *name)
{
    const char *list = conf_rule(b->c->op)->in_place;
    for (uint32_t i = 0; b->c->layout == LAYOUT_INPLACE && i < b->operand_count; i++) {
        char pair[64];
        size_t length = strlen(name) + strlen(b->operands[i].info.name) + 1;
        if (length >= sizeof(pair))
            continue;
        strcpy(pair, name);
        strcat(pair, "=");
        strcat(pair, b->operands[i].info.name);
        const char *found = strstr(list, pair);
        if (found && (!found[length] || found[length] == ','))
            return &b->operands[i];
    }
    return NULL;
}

bool conf_is_table(const char *name)
{
    return !strcmp(name, "page_table") || !strcmp(name, "expert_map");
}

/* Inputs first, so that outputs find whose place they may take. */
static void lay_out(struct conf_build *b, const mh_operand *info)
{
    const struct conf_case *c = b->c;
    struct conf_operand *o = &b->operands[b->operand_count];
    const struct conf_operand *shared = in_place_of(b, info->name);
    *o = (struct conf_operand){.info = *info};
    b->operand_count++;
    if (shared) {
        o->view = shared->view;
        o->buffer = shared->buffer;
        return;
    }
    o->view.dtype = dtype_of(c, info);
    o->view.rank = shape_of(c, info, o->view.shape);
    uint64_t span = set_strides(b, &o->view, info);
    bool own = c->layout == LAYOUT_DENSE;
    o->buffer = own ? b->buffer_count++ : 0;
    b->buffer_count = own ? b->buffer_count : 1;
    uint64_t at = own ? 0 : (b->bytes[0] + GUARD + 63) & ~UINT64_C(63);
    uint64_t unit = !strcmp(info->name, "params") ? 8 : mh_dtype_size(o->view.dtype);
    if (c->layout == LAYOUT_SHIFTED)
        at += unit * (1 + conf_below(&b->random, 15));
    o->view.offset = at;
    /* What is only read ends where its buffer does, which shows who reads on. */
    bool guarded = own && (info->flags & MH_OPERAND_WRITTEN || !span || conf_is_table(info->name));
    b->bytes[o->buffer] = at + span + (guarded ? GUARD : 0);
}

static bool make_images(struct conf_build *b)
{
    if (b->c->layout != LAYOUT_DENSE)
        b->bytes[0] += GUARD;
    for (uint32_t i = 0; i < b->buffer_count; i++) {
        b->image[i] = malloc(b->bytes[i]);
        if (!b->image[i])
            return false;
        for (uint64_t k = 0; k < b->bytes[i]; k++)
            b->image[i][k] = (uint8_t)(0xA5 ^ k % 251);
    }
    return true;
}

bool conf_build_make(struct conf_build *b, const struct conf_case *c)
{
    memset(b, 0, sizeof(*b));
    b->c = c;
    b->random = conf_random_of(c->seed, c->name);
    b->op.base.struct_size = mh_op_size(c->op);
    b->op.base.op = c->op;
    b->op.base.layer = -1;
    mh_operand info = MH_INIT(mh_operand);
    for (int outputs = 0; outputs < 2; outputs++)
        for (uint32_t i = 0; !mh_op_operand(c->op, i, &info); i++) {
            if (info.flags & MH_OPERAND_WEIGHT || !is_present(c, &info))
                continue;
            if ((info.flags & MH_OPERAND_READ ? 0 : 1) == outputs)
                lay_out(b, &info);
        }
    if (!make_images(b))
        return false;
    for (uint32_t i = 0; !mh_op_operand(c->op, i, &info); i++)
        if (info.flags & MH_OPERAND_WEIGHT && is_present(c, &info) && !make_weight(b, &info))
            return false;
    for (uint32_t i = 0; i < b->operand_count; i++)
        if (b->operands[i].info.flags & MH_OPERAND_READ)
            conf_fill_operand(b, &b->operands[i]);
    conf_set_scalars(b);
    return true;
}

void conf_build_free(struct conf_build *b)
{
    for (uint32_t i = 0; i < b->buffer_count; i++)
        free(b->image[i]);
    for (uint32_t i = 0; i < b->weight_count; i++)
        if (b->weights[i].memory)
            munmap(b->weights[i].memory, b->weights[i].mapped);
}

void conf_op_for(const struct conf_build *b, mh_buffer *const *buffers, mh_weight *const *weights,
                 union conf_op *op)
{
    *op = b->op;
    for (uint32_t i = 0; i < b->operand_count; i++) {
        mh_tensor view = b->operands[i].view;
        view.buffer = buffers ? buffers[b->operands[i].buffer] : NULL;
        memcpy((char *)op + b->operands[i].info.offset, &view, sizeof(view));
    }
    for (uint32_t i = 0; i < b->weight_count; i++)
        memcpy((char *)op + b->weights[i].info.offset, &weights[i], sizeof(weights[i]));
}
