/*
 * core_vectors.c: ops against vectors that are not ours: ops-exact, made by an independent
 * implementation of docs/numerics.md, bit for bit; router, made by transformers' own classes,
 * within 1e-6. An op that would fall back is no pass.
 */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <moehal-model/checkpoint.h>

#include "core.h"
#include "vectors_data.h"

struct vectors {
    struct core *c;
    mh_checkpoint *file;
    json_t *spec;
};

static void release_checkpoint(void *checkpoint)
{
    mh_checkpoint_release(checkpoint);
}

static void release_json(void *json)
{
    json_decref(json);
}

/* The reader wants a path: an anonymous file has one. */
static bool open_vectors(struct core *c, struct conf_vectors data, struct vectors *v)
{
    char path[64];
    int fd = memfd_create("vectors", MFD_CLOEXEC);
    bool written =
        fd >= 0 && write(fd, data.tensors.data, data.tensors.size) == (ssize_t)data.tensors.size;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    mh_status status = written ? mh_checkpoint_open_file(path, &v->file) : MH_IO_ERROR;
    if (fd >= 0)
        close(fd);
    CHECK(written, "an anonymous file could not be made");
    CHECK(!status, "%s", mh_last_message());
    core_keep(c, release_checkpoint, v->file);
    v->c = c;
    v->spec = json_loadb((const char *)data.spec.data, data.spec.size, 0, NULL);
    CHECK(v->spec, "the vectors' JSON does not parse");
    core_keep(c, release_json, v->spec);
    return true;
}

MH_PRINTF(2, 3)
static const mh_checkpoint_tensor *find(struct vectors *v, const char *format, ...)
{
    static _Thread_local mh_checkpoint_tensor t;
    char name[96];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof(name), format, args);
    va_end(args);
    t = MH_INIT(mh_checkpoint_tensor);
    if (!mh_checkpoint_find(v->file, name, &t))
        return &t;
    core_fail(v->c, "%s", mh_last_message());
    return NULL;
}

static mh_tensor room_for(struct vectors *v, mh_dtype dtype, uint32_t rank, int64_t a, int64_t b,
                          int64_t d)
{
    const int64_t shape[] = {a, b, d};
    uint64_t bytes = 4 * (uint64_t)(a * (rank > 1 ? b : 1) * (rank > 2 ? d : 1));
    mh_buffer *buffer = core_buffer(v->c, v->c->device, bytes);
    return mh_tensor_make(buffer, 0, dtype, rank, shape);
}

static mh_tensor given(struct vectors *v, mh_dtype dtype, uint32_t rank, int64_t a, int64_t b,
                       int64_t d, const void *data)
{
    mh_tensor t = room_for(v, dtype, rank, a, b, d);
    if (t.buffer && mh_buffer_write(t.buffer, 0, data, mh_buffer_size(t.buffer)))
        core_fail(v->c, "%s", mh_last_message());
    return t;
}

/* A vector as a tensor of `rank`; leading dimensions of 1 are added. */
static mh_tensor load(struct vectors *v, const mh_checkpoint_tensor *from, uint32_t rank)
{
    int64_t shape[4] = {1, 1, 1, 1};
    if (!from)
        return (mh_tensor){0};
    for (uint32_t i = 0; i < from->rank && from->rank <= rank; i++)
        shape[rank - from->rank + i] = from->shape[i];
    return given(v, from->dtype == MH_ST_F32 ? MH_F32 : MH_I32, rank, shape[0], shape[1], shape[2],
                 from->data);
}

/* False also where the device would leave the op to the host. */
static bool run(struct vectors *v, const mh_op *op)
{
    struct core *c = v->c;
    mh_support answer = MH_INIT(mh_support);
    TRY(mh_device_supports(c->device, op, &answer));
    if (answer.runs != MH_RUNS_NATIVE && answer.runs != MH_RUNS_EXPANDED)
        return core_fallback(c, answer.reason);
    TRY(mh_encode(mh_stream_encoder(c->stream), op));
    TRY(mh_stream_wait(c->stream, MH_FOREVER));
    return true;
}

static bool same(struct vectors *v, mh_tensor got, const mh_checkpoint_tensor *want)
{
    struct core *c = v->c;
    if (!want)
        return false;
    uint32_t *bits = malloc(want->bytes);
    bool ok = bits && mh_buffer_size(got.buffer) == want->bytes &&
              !mh_buffer_read(got.buffer, 0, bits, want->bytes);
    if (!ok)
        core_fail(c, "%s: %llu bytes could not be read", want->name,
                  (unsigned long long)want->bytes);
    for (uint64_t i = 0; ok && i < want->bytes / 4; i++) {
        uint32_t expected;
        float a, b;
        memcpy(&expected, (const char *)want->data + 4 * i, 4);
        memcpy(&a, &bits[i], 4);
        memcpy(&b, &expected, 4);
        if (bits[i] == expected || (want->dtype == MH_ST_F32 && isnan(a) && isnan(b)))
            continue;
        ok = core_fail(c, "%s[%llu]: %08x, must be %08x", want->name, (unsigned long long)i,
                       bits[i], expected);
    }
    free(bits);
    return ok;
}

static const json_t *spec_of(struct vectors *v, const char *name)
{
    size_t i;
    json_t *entry;
    json_array_foreach(
        v->spec, i,
        entry) if (!strcmp(json_string_value(json_object_get(entry, "case")), name)) return entry;
    return NULL;
}

static double number(const json_t *entry, const char *key)
{
    return json_number_value(json_object_get(entry, key));
}

#define OPEN(data)                                                                                 \
    struct vectors v_, *v = &v_;                                                                   \
    if (!open_vectors(c, (data), v))                                                               \
    return false

/* ---- the cases ---- */

static bool swiglu(struct core *c)
{
    OPEN(conf_vectors_ops());
    mh_op_swiglu op = MH_OP_INIT(swiglu, SWIGLU);
    op.gate = load(v, find(v, "swiglu.g"), 2);
    op.up = load(v, find(v, "swiglu.u"), 2);
    op.y = room_for(v, MH_F32, 2, 1, op.gate.shape[1], 0);
    return run(v, &op.base) && same(v, op.y, find(v, "swiglu.y"));
}

/* Weights without normalisation and with scaling 1 are the sigmoids of the logits. */
static bool sigmoid(struct core *c)
{
    OPEN(conf_vectors_ops());
    const mh_checkpoint_tensor *x = find(v, "sigmoid.x");
    if (!x)
        return false;
    int64_t count = (int64_t)x->bytes / 4;
    mh_op_router op = MH_OP_INIT(router, ROUTER);
    op.logits = given(v, MH_F32, 2, count, 1, 0, x->data); /* one expert a row */
    op.experts = room_for(v, MH_I32, 2, count, 1, 0);
    op.weights = room_for(v, MH_F32, 2, count, 1, 0);
    op.rule.scoring = MH_ROUTER_SIGMOID;
    op.rule.scaling = 1;
    return run(v, &op.base) && same(v, op.weights, find(v, "sigmoid.y"));
}

/* Bits of x and of rule 5's exp(x), worked out with exact fractions: where a constant of the rule
 * that is off by its last place, up or down, gives something else. (The first of the polynomial
 * shows nowhere.) */
static const uint32_t exp_places[][2] = {
    {0xC14D2BED, 0x363504E5}, {0xC120CF65, 0x383504FC}, {0xBEB1721E, 0x3F3504F1},
    {0xBEB17219, 0x3F3504F3}, {0xC1A0D33C, 0x30FF8555}, {0xC147A5D9, 0x367FA82E},
    {0xBE71C134, 0x3F4A2A7C}, {0xBEB071BB, 0x3F355FAD}, {0xBDD5F1A3, 0x3F669B41},
    {0xBDE87FC5, 0x3F6486CE}, {0xBD8A97A1, 0x3F6F3FC8}, {0xBD704E25, 0x3F7169BA},
    {0xBD0A35BF, 0x3F778188}, {0xBD0A53DF, 0x3F777FB7}, {0xBD097F46, 0x3F778C90},
    {0xBD097FFB, 0x3F778C84},
};
#define EXP_PLACES (int64_t)(sizeof(exp_places) / sizeof(exp_places[0]))

/*
 * Two keys with scores 0 and x <= 0, and values 0 and 1: attention gives exp(x) / (1 + exp(x)),
 * rounded as rule 3 says; from exp.y that can be worked out here. A row for each x.
 */
static bool exponential(struct core *c)
{
    OPEN(conf_vectors_ops());
    mh_checkpoint_tensor x = MH_INIT(mh_checkpoint_tensor), y = x;
    TRY(mh_checkpoint_find(v->file, "exp.x", &x));
    TRY(mh_checkpoint_find(v->file, "exp.y", &y));
    static const float keys[] = {0, 0, 1, 1}; /* rows [latent | rope] */
    int64_t given_count = (int64_t)x.bytes / 4, count = given_count + EXP_PLACES, rows = 0;
    float *q = calloc((size_t)count * 2, sizeof(*q)), *want = calloc((size_t)count, sizeof(*want));
    int32_t *ones = calloc((size_t)count, sizeof(*ones)), zero = 0;
    core_keep(c, free, q), core_keep(c, free, want), core_keep(c, free, ones);
    CHECK(q && want && ones, "no host memory");
    for (int64_t i = 0; i < count; i++) {
        float score, e;
        const uint32_t *place = exp_places[i < given_count ? 0 : i - given_count];
        memcpy(&score, i < given_count ? (const char *)x.data + 4 * i : (const void *)&place[0], 4);
        memcpy(&e, i < given_count ? (const char *)y.data + 4 * i : (const void *)&place[1], 4);
        if (!(score <= 0) || isinf(score))
            continue; /* the larger score is the maximum, and Inf * 0 would spoil the other */
        float sum = 1.0f + e, r = 1.0f / sum;
        q[2 * rows + 1] = score;
        want[rows] = e * r;
        ones[rows++] = 1;
    }
    CHECK(rows > 1000, "only %lld values could be tried", (long long)rows);
    mh_op_attention op = MH_OP_INIT(attention, ATTENTION);
    op.cache = given(v, MH_F32, 3, 1, 2, 2, keys);
    op.q = given(v, MH_F32, 3, rows, 1, 2, q);
    op.y = room_for(v, MH_F32, 3, rows, 1, 1);
    op.positions = given(v, MH_I32, 1, rows, 0, 0, ones);
    memset(ones, 0, (size_t)count * sizeof(*ones));
    op.slots = given(v, MH_I32, 1, rows, 0, 0, ones);
    op.page_table = given(v, MH_I32, 2, 1, 1, 0, &zero);
    op.fault = given(v, MH_U32, 1, 1, 0, 0, &zero);
    op.scale = 1;
    if (!run(v, &op.base))
        return false;
    TRY(mh_buffer_read(op.y.buffer, 0, q, 4 * (uint64_t)rows));
    for (int64_t i = 0; i < rows; i++)
        CHECK(q[i] == want[i], "row %lld of exp as attention has it: %a, must be %a", (long long)i,
              (double)q[i], (double)want[i]);
    return true;
}

static bool linear(struct core *c)
{
    static const int sizes[] = {1,   3,   63,  64,  65,  72,   127, 128,
                                129, 200, 320, 512, 576, 1408, 2048};
    OPEN(conf_vectors_ops());
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof(sizes) / sizeof(int); i++) {
        mh_op_linear op = MH_OP_INIT(linear, LINEAR);
        op.x = load(v, find(v, "linear.%d.x", sizes[i]), 2);
        const mh_checkpoint_tensor *t = find(v, "linear.%d.w", sizes[i]);
        mh_weight_params p = MH_INIT(mh_weight_params);
        mh_weight_piece piece = MH_INIT(mh_weight_piece);
        CHECK(t, "%s", mh_last_message());
        p.format = MH_FORMAT_F32, p.experts = 1, p.out = t->shape[0], p.in = t->shape[1];
        piece.expert_count = 1, piece.row_count = p.out, piece.plane[0] = t->data;
        op.y = room_for(v, MH_F32, 2, op.x.shape[0], p.out, 0);
        ok = !mh_weight_create(c->device, &p, &op.w) && !mh_weight_write(op.w, &piece) &&
             !mh_weight_seal(op.w);
        if (!ok)
            core_fail(c, "%s", mh_last_message());
        ok = ok && run(v, &op.base) && same(v, op.y, find(v, "linear.%d.y", sizes[i]));
        mh_weight_release(op.w);
    }
    return ok;
}

static bool rmsnorm(struct core *c)
{
    static const int sizes[] = {1, 16, 64, 80, 144, 192, 512, 1536, 2048, 7168};
    OPEN(conf_vectors_ops());
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof(sizes) / sizeof(int); i++) {
        char name[64];
        mh_op_rmsnorm op = MH_OP_INIT(rmsnorm, RMSNORM);
        snprintf(name, sizeof(name), "rmsnorm.%d", sizes[i]);
        op.eps = (float)number(spec_of(v, name), "eps");
        op.x = load(v, find(v, "rmsnorm.%d.x", sizes[i]), 2);
        op.w = load(v, find(v, "rmsnorm.%d.w", sizes[i]), 1);
        op.y = room_for(v, MH_F32, 2, op.x.shape[0], sizes[i], 0);
        ok = run(v, &op.base) && same(v, op.y, find(v, "rmsnorm.%d.y", sizes[i]));
    }
    return ok;
}

static bool rope(struct core *c)
{
    static const int sizes[] = {8, 16, 64};
    OPEN(conf_vectors_ops());
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof(sizes) / sizeof(int); i++) {
        int64_t half = sizes[i] / 2;
        float table[64];
        uint32_t zero = 0;
        mh_op_rope op = MH_OP_INIT(rope, ROPE);
        op.x = load(v, find(v, "rope.%d.x", sizes[i]), 3);
        const mh_checkpoint_tensor *t = find(v, "rope.%d.cos", sizes[i]);
        CHECK(t, "%s", mh_last_message());
        memcpy(table, t->data, 4 * (size_t)half);
        t = find(v, "rope.%d.sin", sizes[i]);
        CHECK(t, "%s", mh_last_message());
        memcpy(table + half, t->data, 4 * (size_t)half);
        op.table = given(v, MH_F32, 2, 1, sizes[i], 0, table);
        op.positions = given(v, MH_I32, 1, 1, 0, 0, &zero);
        op.fault = given(v, MH_U32, 1, 1, 0, 0, &zero);
        op.y = room_for(v, MH_F32, 3, 1, 1, sizes[i]);
        ok = run(v, &op.base) && same(v, op.y, find(v, "rope.%d.y", sizes[i]));
    }
    return ok;
}

/* The file's cache, cut into pages that lie in reverse. */
static bool cut_into_pages(struct vectors *v, mh_op_attention *op, const mh_checkpoint_tensor *flat,
                           int64_t page)
{
    struct core *c = v->c;
    CHECK(flat, "%s", mh_last_message());
    int64_t keys = flat->shape[0], row = flat->shape[1], pages = (keys + page - 1) / page;
    float *rows = calloc((size_t)(pages * page * row), sizeof(*rows));
    int32_t *table = calloc((size_t)pages, sizeof(*table));
    core_keep(c, free, rows), core_keep(c, free, table);
    CHECK(rows && table, "no host memory");
    for (int64_t k = 0; k < keys; k++) {
        int64_t at = pages - 1 - k / page;
        table[k / page] = (int32_t)at;
        memcpy(rows + (at * page + k % page) * row, (const char *)flat->data + 4 * k * row,
               4 * (size_t)row);
    }
    op->cache = given(v, MH_F32, 3, pages, page, row, rows);
    op->page_table = given(v, MH_I32, 2, 1, pages, 0, table);
    return true;
}

static bool attend(struct core *c, int latent, int64_t page, const int32_t *positions)
{
    OPEN(conf_vectors_ops());
    char name[64];
    uint32_t zero = 0;
    mh_op_attention op = MH_OP_INIT(attention, ATTENTION);
    snprintf(name, sizeof(name), "attend.%d", latent);
    op.scale = (float)number(spec_of(v, name), "scale");
    op.q = load(v, find(v, "attend.%d.q", latent), 3);
    if (!cut_into_pages(v, &op, find(v, "attend.%d.cache", latent), page))
        return false;
    op.slots = given(v, MH_I32, 1, 1, 0, 0, &zero);
    op.fault = given(v, MH_U32, 1, 1, 0, 0, &zero);
    op.y = room_for(v, MH_F32, 3, 1, 1, latent);
    op.positions = room_for(v, MH_I32, 1, 1, 0, 0);
    bool ok = true;
    for (; ok && *positions >= 0; positions++) {
        snprintf(name, sizeof(name), "attend.%d.%d.y", latent, *positions);
        TRY(mh_buffer_write(op.positions.buffer, 0, positions, 4));
        ok = run(v, &op.base) && same(v, op.y, find(v, "%s", name));
    }
    return ok;
}

static bool attention(struct core *c)
{
    static const int32_t all[] = {0,   1,   62,  63,  64,  127, 128, 200,
                                  255, 256, 257, 299, 511, 512, 699, -1};
    static const int32_t some[] = {0, 1, 62, 63, 64, 127, 128, 200, 255, 256, 257, 299, -1};
    return attend(c, 64, 16, all) && attend(c, 80, 100, all) && attend(c, 512, 64, some);
}

static bool combine(struct core *c)
{
    static const int sizes[] = {1, 6, 8};
    OPEN(conf_vectors_ops());
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof(sizes) / sizeof(int); i++) {
        uint32_t zero = 0;
        mh_op_combine op = MH_OP_INIT(combine, COMBINE);
        op.h = load(v, find(v, "combine.%d.h", sizes[i]), 2);
        op.e = load(v, find(v, "combine.%d.e", sizes[i]), 3);
        op.weights = load(v, find(v, "combine.%d.w", sizes[i]), 2);
        op.shared = load(v, find(v, "combine.%d.shared", sizes[i]), 2);
        op.fault = given(v, MH_U32, 1, 1, 0, 0, &zero);
        op.y = room_for(v, MH_F32, 2, 1, op.h.shape[1], 0);
        ok = run(v, &op.base) && same(v, op.y, find(v, "combine.%d.y", sizes[i]));
    }
    return ok;
}

/* ---- routers ---- */

static mh_router_rule rule_of(const json_t *spec)
{
    const char *scoring = json_string_value(json_object_get(spec, "scoring"));
    bool is_sigmoid = scoring && !strcmp(scoring, "sigmoid");
    const json_t *normalise = json_object_get(spec, "normalise");
    return (mh_router_rule){
        .scoring = is_sigmoid ? MH_ROUTER_SIGMOID : MH_ROUTER_SOFTMAX,
        .group_score = number(spec, "groups") == 1 ? MH_GROUPS_NONE
                       : is_sigmoid                ? MH_GROUPS_TOP2
                                                   : MH_GROUPS_MAX,
        .groups = (int64_t)number(spec, "groups"),
        .top_groups = (int64_t)number(spec, "top_groups"),
        .normalise = json_is_true(normalise) || json_integer_value(normalise),
        .scaling = (float)number(spec, "scaling"),
    };
}

static mh_op_router make_router(struct vectors *v, const char *prefix, const json_t *spec)
{
    mh_op_router op = MH_OP_INIT(router, ROUTER);
    int64_t k = (int64_t)number(spec, "top_k");
    op.logits = load(v, find(v, "%s.logits", prefix), 2);
    op.bias = load(v, find(v, "%s.bias", prefix), 1);
    op.rule = rule_of(spec);
    op.experts = room_for(v, MH_I32, 2, op.logits.shape[0], k, 0);
    op.weights = room_for(v, MH_F32, 2, op.logits.shape[0], k, 0);
    return op;
}

static bool router(struct core *c)
{
    static const char *const routes[] = {"route.v3_ties", "route.v3_equal", "route.v3_nan",
                                         "route.v3_one",  "route.v2_lite",  "route.v2_groups"};
    OPEN(conf_vectors_ops());
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof(routes) / sizeof(routes[0]); i++) {
        mh_op_router op = make_router(v, routes[i], spec_of(v, routes[i]));
        ok = run(v, &op.base) && same(v, op.experts, find(v, "%s.experts", routes[i])) &&
             same(v, op.weights, find(v, "%s.weights", routes[i]));
    }
    return ok;
}

static bool near(struct vectors *v, mh_tensor got, const mh_checkpoint_tensor *want)
{
    struct core *c = v->c;
    CHECK(want, "%s", mh_last_message());
    float *values = malloc(want->bytes);
    core_keep(c, free, values);
    CHECK(values, "no host memory");
    TRY(mh_buffer_read(got.buffer, 0, values, want->bytes));
    for (uint64_t i = 0; i < want->bytes / 4; i++) {
        float expected;
        memcpy(&expected, (const char *)want->data + 4 * i, 4);
        CHECK(fabs((double)values[i] - (double)expected) <= 1e-6 * fabs((double)expected),
              "%s[%llu]: %.9g, transformers has %.9g", want->name, (unsigned long long)i,
              (double)values[i], (double)expected);
    }
    return true;
}

static bool transformers_router(struct core *c)
{
    OPEN(conf_vectors_router());
    size_t i;
    json_t *spec;
    bool ok = true;
    json_array_foreach(v->spec, i, spec)
    {
        const char *prefix = json_string_value(json_object_get(spec, "name"));
        mh_op_router op = make_router(v, prefix, spec);
        ok = ok && run(v, &op.base) && same(v, op.experts, find(v, "%s.experts", prefix)) &&
             near(v, op.weights, find(v, "%s.weights", prefix));
    }
    CHECK(!ok || i == 7, "%zu routers were tried", i);
    return ok;
}

const struct core_case core_vectors[] = {
    {"vectors/swiglu", swiglu},
    {"vectors/sigmoid", sigmoid},
    {"vectors/exp", exponential},
    {"vectors/linear", linear},
    {"vectors/rmsnorm", rmsnorm},
    {"vectors/rope", rope},
    {"vectors/attention", attention},
    {"vectors/combine", combine},
    {"vectors/router", router},
    {"vectors/transformers-router", transformers_router},
    {0},
};
