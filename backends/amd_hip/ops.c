/* ops.c: which ops there are kernels for, and their launches. */
#include <stdio.h>

#include "amd.h"

extern const char amd_code_linear[]; /* the code object, embedded by the build */

enum { ROWS_A_BLOCK = 4, BLOCK = 256, MOST_TILES = 65535 };

mh_status amd_load(struct device *device)
{
    static const char *const formats[FORMATS] = {NULL, "f32", "f16", "bf16", "fp8"};
    mh_status status = HIP(device, ModuleLoadData(&device->module, amd_code_linear));
    if (status == MH_UNSUPPORTED)
        return FAIL(device->core, status,
                    "amd: the kernels are for gfx942 (MI300), this GPU is "
                    "another");
    for (int f = 1; f < FORMATS && !status; f++)
        for (int many = 0; many < 2 && !status; many++) {
            char name[32];
            snprintf(name, sizeof(name), "linear_%s_%d", formats[f], many ? TOKENS_MANY : 1);
            status = HIP(device, ModuleGetFunction(&device->linear[f][many], device->module, name));
        }
    return status;
}

struct linear {
    const mh_tensor *y, *x, *residual;
    const mh_weight_view *w;
};

/* false: the op is none of these. */
static bool linear_of(const mh_op *op, struct linear *out)
{
    if (op->op == MH_OP_LINEAR) {
        const mh_op_linear *o = (const void *)op;
        *out = (struct linear){&o->y, &o->x, NULL, mh_view_weight(o->w)};
        return true;
    }
    if (op->op == MH_OP_LINEAR_ADD) {
        const mh_op_linear_add *o = (const void *)op;
        *out = (struct linear){&o->y, &o->x, &o->residual, mh_view_weight(o->w)};
        return true;
    }
    return false;
}

static int64_t tokens_a_tile(const struct linear *l)
{
    return l->x->shape[0] > 1 ? TOKENS_MANY : 1;
}

static int64_t tiles(const struct linear *l)
{
    return (l->x->shape[0] + tokens_a_tile(l) - 1) / tokens_a_tile(l);
}

mh_status amd_supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    struct linear l;
    (void)user;
    if (!linear_of(op, &l)) {
        *missing = MH_MISSING_KERNEL;
        snprintf(reason, 192, "amd has no kernel for it yet");
    } else if (l.w->format >= FORMATS) {
        *missing = MH_MISSING_DTYPE;
        snprintf(reason, 192, "amd: weight format %u", l.w->format);
    } else if (tiles(&l) > MOST_TILES) {
        *missing = MH_MISSING_LIMIT;
        snprintf(reason, 192, "amd: %lld tokens, the limit is %d", (long long)l.x->shape[0],
                 MOST_TILES * TOKENS_MANY);
    }
    return MH_OK;
}

static const char *address(const mh_tensor *t)
{
    return (const char *)mh_view_buffer(t->buffer)->handle + t->offset;
}

static mh_status launch_linear(struct stream *stream, const struct linear *l)
{
    struct device *device = stream->device;
    const mh_weight_view *w = l->w;
    const char *planes = w->buffer->handle;
    struct linear_arguments a = {
        .y = address(l->y),
        .x = address(l->x),
        .residual = l->residual ? address(l->residual) : NULL,
        .w = planes + w->offset[0],
        .scales = planes + w->offset[w->plane_count - 1],
        .y_stride = l->y->stride[0],
        .x_stride = l->x->stride[0],
        .residual_stride = l->residual ? l->residual->stride[0] : 0,
        .w_stride = w->row_stride[0],
        .scales_stride = w->row_stride[w->plane_count - 1],
        .tokens = l->x->shape[0],
        .rows = w->out,
        .columns = w->in,
    };
    void *params[] = {&a};
    if (!a.tokens || !a.rows)
        return MH_OK;
    return HIP(device, ModuleLaunchKernel(device->linear[w->format][tokens_a_tile(l) > 1],
                                          (unsigned)((w->out + ROWS_A_BLOCK - 1) / ROWS_A_BLOCK),
                                          (unsigned)tiles(l), 1, BLOCK, 1, 1, 0, stream->stream,
                                          params, NULL));
}

mh_status amd_encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct stream *stream = user;
    struct linear l;
    int before;
    (void)scratch;
    if (!linear_of(op, &l))
        return FAIL(stream->device->core, MH_INTERNAL, "amd: op %u was never supported", op->op);
    mh_status status = amd_enter(stream->device, &before);
    if (status)
        return status;
    status = launch_linear(stream, &l);
    amd_leave(stream->device, before);
    return status;
}
