/*
 * A backend with one kernel, add, that is right or wrong as MOEHAL_WRONG says: the suite must see
 * each mistake. The rest is the skeleton.
 *   (unset)    right                    value    one element is one unit in the last place off
 *   outside    writes behind its rows   fails    returns an error
 *   sometimes  only even widths are supported
 */
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

static mh_status encode_add(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct device *device = ((struct stream *)user)->device;
    const mh_op_add *o = (const void *)op;
    const mh_tensor *operands[] = {&o->y, &o->a, &o->b};
    const char *wrong = mistake(device->core);
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
