/* trace_run.c: runs a model op by op and hands out what each op wrote. */
#include <sha2.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"

/* ---- the key ---- */

static bool hash_file(const char *path, uint8_t hash[32])
{
    SHA2_CTX context;
    uint8_t block[4096];
    size_t count;
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    SHA256Init(&context);
    do {
        count = fread(block, 1, sizeof(block), file);
        SHA256Update(&context, block, count);
    } while (count == sizeof(block));
    SHA256Final(hash, &context);
    bool ok = !ferror(file);
    fclose(file);
    return ok;
}

/* BOS, then seeded ids: every machine takes the same. */
static bool default_ids(const mh_config *config, struct trace_key *key)
{
    uint32_t state = 1;
    key->count = 8;
    key->ids = malloc(key->count * sizeof(*key->ids));
    for (uint64_t i = 0; key->ids && i < key->count; i++) {
        state = state * 1664525u + 1013904223u;
        key->ids[i] = (int32_t)((uint64_t)state * (uint64_t)config->vocab_size >> 32);
    }
    if (key->ids && config->bos_token_id >= 0)
        key->ids[0] = config->bos_token_id;
    return key->ids;
}

int trace_key_make(const struct command *command, const struct setup *setup, const char *ids,
                   struct trace_key *key)
{
    char path[4096];
    *key = (struct trace_key){.kv = (int32_t)setup->kv};
    snprintf(path, sizeof(path), "%s/config.json", mh_checkpoint_dir(setup->checkpoint));
    if (!hash_file(path, key->config))
        return usage_error(command, "%s: could not be read", path);
    if (ids)
        return parse_ids(command, ids, &key->ids, &key->count);
    return default_ids(setup->config, key) ? -1 : usage_error(command, "no memory for the ids");
}

/* ---- observing ---- */

struct observer {
    struct setup *setup;
    trace_visit_fn visit;
    void *user;
    uint64_t ops;
    uint32_t step;
    mh_stream *stream; /* for the slots of a combination */
    mh_buffer *slots;
};

/* The elements of a tensor, dense; the caller frees them. */
static mh_status read_dense(const mh_tensor *t, void **out, uint64_t *bytes)
{
    uint64_t size = mh_dtype_size(t->dtype), span = size, count = 1;
    for (uint32_t i = 0; i < t->rank; i++) {
        span += (uint64_t)((t->shape[i] ? t->shape[i] - 1 : 0) * t->stride[i]);
        count *= (uint64_t)t->shape[i];
    }
    char *raw = malloc(span + 1), *dense = malloc(count * size + 1);
    mh_status status = raw && dense ? MH_OK : mh_fail(MH_OUT_OF_MEMORY, "no memory for a trace");
    if (!status && count)
        status = mh_buffer_read(t->buffer, t->offset, raw, span);
    for (uint64_t e = 0; !status && e < count; e++) {
        uint64_t rest = e, at = 0;
        for (uint32_t i = t->rank; i-- > 0; rest /= (uint64_t)t->shape[i])
            at += rest % (uint64_t)t->shape[i] * (uint64_t)t->stride[i];
        memcpy(dense + e * size, raw + at, size);
    }
    free(raw);
    if (status)
        free(dense);
    *out = status ? NULL : dense;
    *bytes = count * size;
    return status;
}

static const mh_tensor *operand_named(const mh_op *op, const char *name)
{
    mh_operand info = MH_INIT(mh_operand);
    for (uint32_t i = 0; !mh_op_operand(op->op, i, &info); i++)
        if (!strcmp(info.name, name) && !(info.flags & MH_OPERAND_WEIGHT))
            return (const mh_tensor *)(const void *)((const char *)op + info.offset);
    return NULL;
}

static mh_status read_indices(const mh_op *op, const char *name, int32_t **out)
{
    const mh_tensor *t = operand_named(op, name);
    void *data = NULL;
    uint64_t bytes;
    mh_status status = t && t->rank ? read_dense(t, &data, &bytes) : MH_OK;
    *out = data;
    return status;
}

static mh_status hand_out(struct observer *o, const mh_op *op, const char *operand,
                          const mh_tensor *t, struct trace_value *v)
{
    char name[160];
    void *data;
    mh_status status = read_dense(t, &data, &v->bytes);
    if (status)
        return status;
    snprintf(name, sizeof(name), "%05llu.layer.%d.%s.%s.%s", (unsigned long long)o->ops, op->layer,
             mh_op_name(op->op), op->label ? op->label : "", operand);
    v->name = name, v->op = op, v->operand = operand;
    v->number = o->ops, v->step = o->step;
    v->dtype = t->dtype, v->rank = t->rank, v->data = data;
    memcpy(v->shape, t->shape, sizeof(v->shape));
    status = o->visit(o->user, v);
    free(data);
    return status;
}

/* The cache's rows that the op wrote, as [T, K]: what else the cache holds is not its doing. */
static mh_status hand_out_rows(struct observer *o, const mh_op *op, const mh_tensor *cache)
{
    const mh_tensor *pages = operand_named(op, "page_table"), *rows = operand_named(op, "slots");
    int32_t *slots = NULL, *positions = NULL, *table = NULL;
    mh_status status = read_indices(op, "slots", &slots);
    if (!status)
        status = read_indices(op, "positions", &positions);
    if (!status)
        status = read_indices(op, "page_table", &table);
    for (int64_t t = 0; !status && t < rows->shape[0]; t++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): what writes a cache has it */
        int64_t size = cache->shape[1], page = positions[t] / size;
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): and this */
        bool is_row = slots[t] >= 0 && slots[t] < pages->shape[0] && page < pages->shape[1];
        if (!is_row)
            continue;
        char operand[32];
        int64_t at = table[slots[t] * pages->shape[1] + page];
        mh_tensor row =
            mh_tensor_slice(mh_tensor_slice(*cache, 0, at, 1), 1, positions[t] % size, 1);
        struct trace_value v = {.slots = &slots[t], .positions = &positions[t]};
        snprintf(operand, sizeof(operand), "cache.%lld", (long long)t);
        status = hand_out(o, op, operand, &row, &v);
    }
    free(slots), free(positions), free(table);
    return status;
}

/* The routed experts' part of a combination. */
static void routed_part(const mh_op *op, mh_op_experts_down_combine *part)
{
    if (op->op == MH_OP_EXPERTS_DOWN_COMBINE) {
        *part = *(const mh_op_experts_down_combine *)op;
        return;
    }
    const mh_op_moe_down_combine *moe = (const mh_op_moe_down_combine *)op;
    part->base = moe->base, part->y = moe->y, part->x = moe->x;
    part->experts = moe->experts, part->expert_map = moe->expert_map;
    part->fault = moe->fault, part->w = moe->w;
}

/* A combination hides which expert was wrong: its slots are computed once more, alone. A device
 * that has no such primitive is asked for the sum only. */
static mh_status hand_out_slots(struct observer *o, const mh_op *whole_op)
{
    mh_op_experts_down_combine routed = {0};
    const mh_op_experts_down_combine *combine = &routed;
    routed_part(whole_op, &routed);
    mh_op_experts_down op = MH_OP_INIT(experts_down, EXPERTS_DOWN);
    mh_support answer = MH_INIT(mh_support), whole = MH_INIT(mh_support);
    mh_device *device = o->setup->device;
    int64_t k = combine->experts.shape[1];
    const int64_t shape[] = {combine->y.shape[0], k, combine->y.shape[1]};
    uint64_t bytes = 4 * (uint64_t)(shape[0] * shape[1] * shape[2]);
    int32_t *experts = NULL;
    op.base.layer = combine->base.layer, op.base.label = combine->base.label;
    op.x = combine->x, op.experts = combine->experts, op.expert_map = combine->expert_map;
    op.fault = combine->fault, op.w = combine->w;
    op.y = mh_tensor_make(NULL, 0, MH_F32, 3, shape);
    mh_status status = mh_device_supports(device, &op.base, &answer);
    if (!status)
        status = mh_device_supports(device, whole_op, &whole);
    if (status || answer.weights_on_host != (whole.weights_on_host & 1) || !bytes)
        return status;
    mh_buffer_release(o->slots);
    o->slots = NULL;
    status = mh_buffer_create(device, bytes, 0, &o->slots);
    op.y.buffer = o->slots;
    if (!status)
        status = mh_encode(mh_stream_encoder(o->stream), &op.base);
    if (!status)
        status = mh_stream_wait(o->stream, MH_FOREVER);
    if (!status)
        status = read_indices(&op.base, "experts", &experts);
    struct trace_value v = {.experts = experts};
    if (!status)
        status = hand_out(o, &op.base, "slots", &op.y, &v);
    free(experts);
    return status;
}

static mh_status observe(void *user, const mh_op *op)
{
    struct observer *o = user;
    mh_operand info = MH_INIT(mh_operand);
    int32_t *experts = NULL;
    mh_status status = interrupted() ? mh_fail(MH_CANCELLED, "interrupted") : MH_OK;
    if (!status && (op->op == MH_OP_EXPERTS_DOWN_COMBINE || op->op == MH_OP_MOE_DOWN_COMBINE))
        status = hand_out_slots(o, op);
    for (uint32_t i = 0; !status && !mh_op_operand(op->op, i, &info); i++) {
        const mh_tensor *t = (const mh_tensor *)(const void *)((const char *)op + info.offset);
        if (!(info.flags & MH_OPERAND_WRITTEN) || !t->rank)
            continue;
        if (!strcmp(info.name, "cache")) {
            status = hand_out_rows(o, op, t);
            continue;
        }
        bool slotted = t->rank == 3 && info.shape[1] == 'J';
        if (slotted && !experts)
            status = read_indices(op, "experts", &experts);
        struct trace_value v = {.experts = slotted ? experts : NULL};
        if (!status)
            status = hand_out(o, op, info.name, t, &v);
    }
    free(experts);
    o->ops++;
    return status;
}

mh_status trace_run(struct setup *setup, const struct trace_key *key, trace_visit_fn visit,
                    void *user, uint64_t *ops)
{
    struct observer o = {.setup = setup, .visit = visit, .user = user};
    mh_session *session = NULL;
    uint64_t first = key->count > 2 ? key->count - 2 : 1;
    mh_session_params params = MH_INIT(mh_session_params);
    params.kv_dtype = setup->kv, params.context = (int64_t)key->count,
    params.chunk = (int64_t)first;
    mh_status status = mh_stream_create(setup->device, &o.stream);
    if (!status)
        status = mh_session_create(setup->model, &params, &session);
    if (!status)
        status = mh_session_observe(session, observe, &o);
    if (!status)
        status = mh_session_run(session, key->ids, first, NULL);
    for (uint64_t i = first; !status && i < key->count; i++) {
        o.step++;
        status = mh_session_run(session, key->ids + i, 1, NULL);
    }
    if (ops)
        *ops = o.ops;
    mh_session_release(session);
    mh_buffer_release(o.slots);
    mh_stream_release(o.stream);
    return status;
}
