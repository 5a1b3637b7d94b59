/*
 * A backend with one kernel, add, that is right or wrong as MOEHAL_WRONG says: the suite must see
 * each mistake. The rest is the skeleton.
 *   (unset)    right                    value    one element is one unit in the last place off
 *   outside    writes behind its rows   fails    returns an error
 *   sometimes  only even widths are supported
 *   expert     experts_down of bf16 instead of add: right, but that expert 5 of layer 2 begins a
 * row too early
 */
#include <math.h>
#include <stdlib.h>

#include <moehal/backend.h>

#undef MH_DEFINE_BACKEND
#define MH_DEFINE_BACKEND(table)
#include "../../backends/null/null.c"

static const char *mistake(const mh_core *core)
{
    const char *text = core->environment(core->context, "MOEHAL_WRONG");
    return text ? text : "";
}

static mh_status supports_add(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    const mh_op_add *o = (const void *)op;
    const char *wrong = mistake(((struct device *)user)->core);
    if (!strcmp(wrong, "expert")) {
        const mh_op_experts_down *down = (const void *)op;
        if (op->op == MH_OP_EXPERTS_DOWN && !down->expert_map.rank &&
            mh_view_weight(down->w)->format == MH_FORMAT_BF16)
            return MH_OK;
        return supports(user, op, missing, reason);
    }
    if (op->op != MH_OP_ADD)
        return supports(user, op, missing, reason);
    if (!strcmp(wrong, "sometimes") && o->y.shape[1] % 2) {
        *missing = MH_MISSING_SHAPE;
        snprintf(reason, 192, "odd widths have no kernel");
    }
    return MH_OK;
}

static struct memory *memory_of(const mh_tensor *t)
{
    return mh_view_buffer(t->buffer)->handle;
}

static float *element(const mh_tensor *t, int64_t i, int64_t j)
{
    return (float *)(void *)(memory_of(t)->pages + t->offset + i * t->stride[0] + j * 4);
}

static void run_add(const mh_op_add *o, const char *wrong)
{
    for (int64_t i = 0; i < o->y.shape[0]; i++)
        for (int64_t j = 0; j < o->y.shape[1]; j++)
            *element(&o->y, i, j) = *element(&o->a, i, j) + *element(&o->b, i, j);
    uint32_t *last = (uint32_t *)(void *)element(&o->y, o->y.shape[0] - 1, o->y.shape[1] - 1);
    if (!strcmp(wrong, "value"))
        *last ^= 1;
    if (!strcmp(wrong, "outside"))
        last[1] ^= 1;
}

/* Rule 2 of docs/numerics.md. */
static float dot(const float *x, const uint16_t *w, int64_t count)
{
    float a[64] = {0};
    for (int64_t k = 0; k < count; k++) {
        uint32_t bits = (uint32_t)w[k] << 16;
        float value;
        memcpy(&value, &bits, 4);
        a[k % 64] = fmaf(x[k], value, a[k % 64]);
    }
    for (int h = 32; h; h /= 2)
        for (int j = 0; j < h; j++)
            a[j] += a[j + h];
    return a[0] + 0.0f;
}

static char *at(const mh_tensor *t, int64_t i, int64_t j)
{
    return memory_of(t)->pages + t->offset + i * t->stride[0] + j * t->stride[1];
}

static void run_experts(const mh_op_experts_down *o)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    const struct memory *bank = w->buffer->handle;
    for (int64_t t = 0; t < o->y.shape[0]; t++)
        for (int64_t j = 0; j < o->y.shape[1]; j++) {
            int32_t e = *(int32_t *)(void *)at(&o->experts, t, j);
            int64_t begin = (int64_t)w->offset[0] + e * w->expert_stride[0];
            if (e == 5 && o->base.layer == 2)
                begin -= w->row_stride[0];
            for (int64_t r = 0; r < w->out; r++)
                ((float *)(void *)at(&o->y, t, j))[r] = dot(
                    (float *)(void *)at(&o->x, t, j),
                    (const uint16_t *)(const void *)(bank->pages + begin + r * w->row_stride[0]),
                    w->in);
        }
}

static mh_status encode_experts(struct device *device, const mh_op_experts_down *o)
{
    struct memory *opened[] = {memory_of(&o->y), memory_of(&o->x), memory_of(&o->experts),
                               mh_view_weight(o->w)->buffer->handle};
    pthread_mutex_lock(&device->lock);
    for (int i = 0; i < 4; i++)
        open_memory(opened[i], PROT_READ | PROT_WRITE);
    run_experts(o);
    for (int i = 0; i < 4; i++)
        open_memory(opened[i], PROT_NONE);
    pthread_mutex_unlock(&device->lock);
    return MH_OK;
}

static mh_status encode_add(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct device *device = ((struct stream *)user)->device;
    const mh_op_add *o = (const void *)op;
    const mh_tensor *operands[] = {&o->y, &o->a, &o->b};
    const char *wrong = mistake(device->core);
    if (op->op == MH_OP_EXPERTS_DOWN)
        return encode_experts(device, (const void *)op);
    if (op->op != MH_OP_ADD)
        return encode(user, op, scratch);
    if (!strcmp(wrong, "fails"))
        return FAIL(device->core, MH_VENDOR_ERROR, "wrongLaunch", 13, "WRONG_13", "wrong: no");
    pthread_mutex_lock(&device->lock);
    for (int i = 0; i < 3; i++)
        open_memory(memory_of(operands[i]), PROT_READ | PROT_WRITE);
    run_add(o, wrong);
    for (int i = 0; i < 3; i++)
        open_memory(memory_of(operands[i]), PROT_NONE);
    pthread_mutex_unlock(&device->lock);
    return MH_OK;
}

MH_API const mh_backend_table *mh_backend_entry(void);
const mh_backend_table *mh_backend_entry(void)
{
    static mh_backend_table wrong;
    wrong = table;
    wrong.name = "wrong";
    wrong.description = "adds, rightly or not";
    wrong.supports = supports_add;
    wrong.encode = encode_add;
    return &wrong;
}
