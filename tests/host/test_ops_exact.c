/*
 * Single ops against vectors that are not ours: ops-exact.safetensors, made by an independent
 * implementation of docs/numerics.md, bit for bit in every form of the kernels; router.safetensors,
 * made by transformers' own router classes, within 1e-6.
 *
 * argv: the folder of the vectors
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moehal-model/checkpoint.h>
#include <moehal/moehal.h>

static const char *folder;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)

struct world {
    mh_runtime *runtime;
    mh_device *device;
    mh_stream *stream;
    mh_checkpoint *vectors;
    json_t *spec;
    uint64_t compared; /* tensors of the file that took part */
};

/* NULL if this processor lacks the form. */
static struct world *open_world(const char *isa, uint32_t threads, const char *file)
{
    char path[4096];
    struct world *w = calloc(1, sizeof(*w));
    mh_device_params params = MH_INIT(mh_device_params);
    params.threads = threads;
    OK(mh_runtime_create(NULL, &w->runtime));
    setenv("MOEHAL_HOST_ISA", isa, 1);
    mh_status status = mh_device_open(w->runtime, "host", &params, &w->device);
    unsetenv("MOEHAL_HOST_ISA");
    if (status) {
        print_message("%s: not tried: %s\n", isa, mh_last_message());
        mh_runtime_release(w->runtime);
        free(w);
        return NULL;
    }
    OK(mh_stream_create(w->device, &w->stream));
    snprintf(path, sizeof(path), "%s/%s.safetensors", folder, file);
    OK(mh_checkpoint_open_file(path, &w->vectors));
    snprintf(path, sizeof(path), "%s/%s.json", folder, file);
    w->spec = json_load_file(path, 0, NULL);
    assert_non_null(w->spec);
    return w;
}

static void close_world(struct world *w)
{
    json_decref(w->spec);
    mh_checkpoint_release(w->vectors);
    mh_stream_release(w->stream);
    mh_device_release(w->device);
    mh_runtime_release(w->runtime);
    free(w);
}

/* A vector of the file as a device tensor of the given rank (leading dimensions of 1 are added). */
static mh_tensor load(struct world *w, const char *name, uint32_t rank)
{
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    mh_buffer *buffer;
    int64_t shape[4] = {1, 1, 1, 1};
    OK(mh_checkpoint_find(w->vectors, name, &t));
    assert_true(t.rank <= rank);
    for (uint32_t i = 0; i < t.rank; i++)
        shape[rank - t.rank + i] = t.shape[i];
    OK(mh_buffer_create(w->device, t.bytes, 0, &buffer));
    OK(mh_buffer_write(buffer, 0, t.data, t.bytes));
    w->compared++;
    return mh_tensor_make(buffer, 0, t.dtype == MH_ST_F32 ? MH_F32 : MH_I32, rank, shape);
}

static mh_tensor output(struct world *w, mh_dtype dtype, uint32_t rank, int64_t a, int64_t b,
                        int64_t c)
{
    const int64_t shape[] = {a, b, c};
    mh_buffer *buffer;
    OK(mh_buffer_create(w->device, 4 * (uint64_t)(a * (rank > 1 ? b : 1) * (rank > 2 ? c : 1)), 0,
                        &buffer));
    return mh_tensor_make(buffer, 0, dtype, rank, shape);
}

static void drop(mh_tensor t)
{
    mh_buffer_release(t.buffer);
}

static void run(struct world *w, const mh_op *op)
{
    OK(mh_encode(mh_stream_encoder(w->stream), op));
    OK(mh_stream_wait(w->stream, MH_FOREVER));
}

static void assert_bits(struct world *w, mh_tensor got, const char *name)
{
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    OK(mh_checkpoint_find(w->vectors, name, &t));
    assert_int_equal(mh_buffer_size(got.buffer), t.bytes);
    const uint32_t *values = mh_buffer_host(got.buffer);
    for (uint64_t i = 0; i < t.bytes / 4; i++) {
        uint32_t want;
        float a, b;
        memcpy(&want, (const char *)t.data + 4 * i, 4);
        memcpy(&a, &values[i], 4);
        memcpy(&b, &want, 4);
        if (values[i] != want && !(t.dtype == MH_ST_F32 && isnan(a) && isnan(b)))
            fail_msg("%s[%llu]: %08x, must be %08x", name, (unsigned long long)i, values[i], want);
    }
    w->compared++;
}

static const json_t *spec_of(struct world *w, const char *key, const char *name)
{
    size_t i;
    json_t *entry;
    json_array_foreach(
        w->spec, i,
        entry) if (!strcmp(json_string_value(json_object_get(entry, key)), name)) return entry;
    fail_msg("%s is not described", name);
    return NULL;
}

static double number(const json_t *entry, const char *key)
{
    return json_number_value(json_object_get(entry, key));
}

/* ---- the cases ---- */

static void check_swiglu(struct world *w)
{
    mh_op_swiglu op = MH_OP_INIT(swiglu, SWIGLU);
    op.gate = load(w, "swiglu.g", 2);
    op.up = load(w, "swiglu.u", 2);
    op.y = output(w, MH_F32, 2, 1, op.gate.shape[1], 0);
    run(w, &op.base);
    assert_bits(w, op.y, "swiglu.y");
    drop(op.gate), drop(op.up), drop(op.y);
}

/* The router's weights without normalisation and with scaling 1 are the sigmoids of its logits. */
static void check_sigmoid(struct world *w)
{
    mh_op_router op = MH_OP_INIT(router, ROUTER);
    mh_tensor x = load(w, "sigmoid.x", 2);
    int64_t count = x.shape[1];
    mh_checkpoint_tensor want = MH_INIT(mh_checkpoint_tensor);
    OK(mh_checkpoint_find(w->vectors, "sigmoid.y", &want));
    const int64_t shape[] = {count, 1};
    op.logits = mh_tensor_make(x.buffer, 0, MH_F32, 2, shape); /* one expert a row */
    op.experts = output(w, MH_I32, 2, count, 1, 0);
    op.weights = output(w, MH_F32, 2, count, 1, 0);
    op.rule.scoring = MH_ROUTER_SIGMOID;
    op.rule.scaling = 1;
    run(w, &op.base);
    assert_bits(w, op.weights, "sigmoid.y");
    drop(x), drop(op.experts), drop(op.weights);
}

/* With one key of score m and one of score m + x <= m, the latent [1, 0] of the second key comes
 * out as exp(x) / (1 + exp(x)), rounded as rule 3 says: from exp.y that can be worked out here. */
static void check_exp(struct world *w)
{
    mh_tensor x = load(w, "exp.x", 2);
    mh_checkpoint_tensor y = MH_INIT(mh_checkpoint_tensor);
    OK(mh_checkpoint_find(w->vectors, "exp.y", &y));
    const float *xs = mh_buffer_host(x.buffer);
    int64_t tried = 0;
    /* cache: two keys a sequence, rows [latent 1 | rope 1] = [0 | 0] and [1 | 1]; q = [0 | x]. */
    mh_op_attention op = MH_OP_INIT(attention, ATTENTION);
    op.cache = output(w, MH_F32, 3, 1, 2, 2);
    float *cache = mh_buffer_host(op.cache.buffer);
    cache[0] = 0, cache[1] = 0, cache[2] = 1, cache[3] = 1;
    op.q = output(w, MH_F32, 3, 1, 1, 2);
    op.y = output(w, MH_F32, 3, 1, 1, 1);
    op.positions = output(w, MH_I32, 1, 1, 0, 0);
    op.slots = output(w, MH_I32, 1, 1, 0, 0);
    op.page_table = output(w, MH_I32, 2, 1, 1, 0);
    op.fault = output(w, MH_U32, 1, 1, 0, 0);
    *(int32_t *)mh_buffer_host(op.positions.buffer) = 1;
    op.scale = 1;
    float *q = mh_buffer_host(op.q.buffer), *got = mh_buffer_host(op.y.buffer);
    for (int64_t i = 0; i < x.shape[1]; i++) {
        float e;
        memcpy(&e, (const char *)y.data + 4 * i, 4);
        if (!(xs[i] <= 0) || isinf(xs[i]))
            continue; /* the larger score is the maximum, and Inf * 0 would spoil the other */
        q[0] = 0, q[1] = xs[i];
        run(w, &op.base);
        float sum = 1.0f + e, r = 1.0f / sum, want = e * r;
        if (memcmp(&want, got, 4) && !(want == 0 && got[0] == 0))
            fail_msg("exp(%a) as attention has it: %a, must be %a", (double)xs[i], (double)got[0],
                     (double)want);
        tried++;
    }
    assert_true(tried > 1000);
    w->compared++;
    drop(x), drop(op.cache), drop(op.q), drop(op.y), drop(op.positions), drop(op.slots);
    drop(op.page_table), drop(op.fault);
}

static void check_linear(struct world *w, int k)
{
    char name[64];
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    snprintf(name, sizeof(name), "linear.%d.x", k);
    op.x = load(w, name, 2);
    snprintf(name, sizeof(name), "linear.%d.w", k);
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    OK(mh_checkpoint_find(w->vectors, name, &t));
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = MH_FORMAT_F32, p.experts = 1, p.out = t.shape[0], p.in = t.shape[1];
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_count = 1, piece.row_count = p.out, piece.plane[0] = t.data;
    OK(mh_weight_create(w->device, &p, &op.w));
    OK(mh_weight_write(op.w, &piece));
    OK(mh_weight_seal(op.w));
    op.y = output(w, MH_F32, 2, op.x.shape[0], p.out, 0);
    run(w, &op.base);
    snprintf(name, sizeof(name), "linear.%d.y", k);
    assert_bits(w, op.y, name);
    w->compared++;
    mh_weight_release(op.w);
    drop(op.x), drop(op.y);
}

static void check_rmsnorm(struct world *w, int size)
{
    char name[64];
    mh_op_rmsnorm op = MH_OP_INIT(rmsnorm, RMSNORM);
    snprintf(name, sizeof(name), "rmsnorm.%d", size);
    op.eps = (float)number(spec_of(w, "case", name), "eps");
    snprintf(name, sizeof(name), "rmsnorm.%d.x", size);
    op.x = load(w, name, 2);
    snprintf(name, sizeof(name), "rmsnorm.%d.w", size);
    op.w = load(w, name, 1);
    op.y = output(w, MH_F32, 2, op.x.shape[0], size, 0);
    run(w, &op.base);
    snprintf(name, sizeof(name), "rmsnorm.%d.y", size);
    assert_bits(w, op.y, name);
    drop(op.x), drop(op.w), drop(op.y);
}

static void check_rope(struct world *w, int size)
{
    char name[64];
    mh_op_rope op = MH_OP_INIT(rope, ROPE);
    snprintf(name, sizeof(name), "rope.%d.x", size);
    op.x = load(w, name, 3);
    snprintf(name, sizeof(name), "rope.%d.cos", size);
    mh_tensor cosines = load(w, name, 1);
    snprintf(name, sizeof(name), "rope.%d.sin", size);
    mh_tensor sines = load(w, name, 1);
    op.table = output(w, MH_F32, 2, 1, size, 0);
    float *table = mh_buffer_host(op.table.buffer);
    memcpy(table, mh_buffer_host(cosines.buffer), 2 * (size_t)size);
    memcpy(table + size / 2, mh_buffer_host(sines.buffer), 2 * (size_t)size);
    op.positions = output(w, MH_I32, 1, 1, 0, 0);
    op.fault = output(w, MH_U32, 1, 1, 0, 0);
    op.y = output(w, MH_F32, 3, 1, 1, size);
    run(w, &op.base);
    snprintf(name, sizeof(name), "rope.%d.y", size);
    assert_bits(w, op.y, name);
    drop(op.x), drop(cosines), drop(sines), drop(op.table), drop(op.positions), drop(op.fault);
    drop(op.y);
}

/* The cache of the file, cut into pages that lie in reverse. */
static void check_attention(struct world *w, int latent, const int *positions, int64_t page)
{
    char name[64];
    mh_op_attention op = MH_OP_INIT(attention, ATTENTION);
    snprintf(name, sizeof(name), "attend.%d", latent);
    op.scale = (float)number(spec_of(w, "case", name), "scale");
    snprintf(name, sizeof(name), "attend.%d.q", latent);
    op.q = load(w, name, 3);
    snprintf(name, sizeof(name), "attend.%d.cache", latent);
    mh_tensor flat = load(w, name, 2);
    int64_t keys = flat.shape[0], row = flat.shape[1], pages = (keys + page - 1) / page;
    op.cache = output(w, MH_F32, 3, pages, page, row);
    op.page_table = output(w, MH_I32, 2, 1, pages, 0);
    for (int64_t k = 0; k < keys; k++) {
        int64_t at = pages - 1 - k / page;
        ((int32_t *)mh_buffer_host(op.page_table.buffer))[k / page] = (int32_t)at;
        memcpy((float *)mh_buffer_host(op.cache.buffer) + (at * page + k % page) * row,
               (const float *)mh_buffer_host(flat.buffer) + k * row, 4 * (size_t)row);
    }
    op.positions = output(w, MH_I32, 1, 1, 0, 0);
    op.slots = output(w, MH_I32, 1, 1, 0, 0);
    op.fault = output(w, MH_U32, 1, 1, 0, 0);
    op.y = output(w, MH_F32, 3, 1, 1, latent);
    for (; *positions >= 0; positions++) {
        *(int32_t *)mh_buffer_host(op.positions.buffer) = *positions;
        run(w, &op.base);
        snprintf(name, sizeof(name), "attend.%d.%d.y", latent, *positions);
        assert_bits(w, op.y, name);
    }
    drop(op.q), drop(flat), drop(op.cache), drop(op.page_table), drop(op.positions);
    drop(op.slots), drop(op.fault), drop(op.y);
}

static void check_combine(struct world *w, int k)
{
    char name[64];
    mh_op_combine op = MH_OP_INIT(combine, COMBINE);
    const struct {
        const char *field;
        mh_tensor *to;
        uint32_t rank;
    } inputs[] = {
        {"h", &op.h, 2}, {"e", &op.e, 3}, {"w", &op.weights, 2}, {"shared", &op.shared, 2}};
    for (size_t i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "combine.%d.%s", k, inputs[i].field);
        *inputs[i].to = load(w, name, inputs[i].rank);
    }
    op.fault = output(w, MH_U32, 1, 1, 0, 0);
    op.y = output(w, MH_F32, 2, 1, op.h.shape[1], 0);
    run(w, &op.base);
    snprintf(name, sizeof(name), "combine.%d.y", k);
    assert_bits(w, op.y, name);
    drop(op.h), drop(op.e), drop(op.weights), drop(op.shared), drop(op.fault), drop(op.y);
}

static mh_router_rule rule_of(const json_t *spec)
{
    bool sigmoid = !strcmp(json_string_value(json_object_get(spec, "scoring")), "sigmoid");
    const json_t *normalise = json_object_get(spec, "normalise");
    return (mh_router_rule){
        .scoring = sigmoid ? MH_ROUTER_SIGMOID : MH_ROUTER_SOFTMAX,
        .group_score = number(spec, "groups") == 1 ? MH_GROUPS_NONE
                       : sigmoid                   ? MH_GROUPS_TOP2
                                                   : MH_GROUPS_MAX,
        .groups = (int64_t)number(spec, "groups"),
        .top_groups = (int64_t)number(spec, "top_groups"),
        .normalise = json_is_true(normalise) || json_integer_value(normalise),
        .scaling = (float)number(spec, "scaling"),
    };
}

static mh_op_router make_router(struct world *w, const char *prefix, const json_t *spec)
{
    char name[64];
    mh_op_router op = MH_OP_INIT(router, ROUTER);
    snprintf(name, sizeof(name), "%s.logits", prefix);
    op.logits = load(w, name, 2);
    snprintf(name, sizeof(name), "%s.bias", prefix);
    op.bias = load(w, name, 1);
    op.rule = rule_of(spec);
    int64_t k = (int64_t)number(spec, "top_k");
    op.experts = output(w, MH_I32, 2, op.logits.shape[0], k, 0);
    op.weights = output(w, MH_F32, 2, op.logits.shape[0], k, 0);
    return op;
}

static void check_route(struct world *w, const char *prefix)
{
    char name[64];
    mh_op_router op = make_router(w, prefix, spec_of(w, "case", prefix));
    run(w, &op.base);
    snprintf(name, sizeof(name), "%s.experts", prefix);
    assert_bits(w, op.experts, name);
    snprintf(name, sizeof(name), "%s.weights", prefix);
    assert_bits(w, op.weights, name);
    drop(op.logits), drop(op.bias), drop(op.experts), drop(op.weights);
}

static void check_all(struct world *w)
{
    static const int linears[] = {1,   3,   63,  64,  65,  72,   127, 128,
                                  129, 200, 320, 512, 576, 1408, 2048};
    static const int norms[] = {1, 16, 64, 80, 144, 192, 512, 1536, 2048, 7168};
    static const int ropes[] = {8, 16, 64};
    static const int combines[] = {1, 6, 8};
    static const char *const routes[] = {"route.v3_ties", "route.v3_equal", "route.v3_nan",
                                         "route.v3_one",  "route.v2_lite",  "route.v2_groups"};
    static const int positions[] = {0,   1,   62,  63,  64,  127, 128, 200,
                                    255, 256, 257, 299, 511, 512, 699, -1};
    static const int short_positions[] = {0, 1, 62, 63, 64, 127, 128, 200, 255, 256, 257, 299, -1};
    check_exp(w);
    check_sigmoid(w);
    check_swiglu(w);
    for (size_t i = 0; i < sizeof(linears) / sizeof(int); i++)
        check_linear(w, linears[i]);
    for (size_t i = 0; i < sizeof(norms) / sizeof(int); i++)
        check_rmsnorm(w, norms[i]);
    for (size_t i = 0; i < sizeof(ropes) / sizeof(int); i++)
        check_rope(w, ropes[i]);
    for (size_t i = 0; i < sizeof(combines) / sizeof(int); i++)
        check_combine(w, combines[i]);
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
        check_route(w, routes[i]);
    check_attention(w, 64, positions, 16);
    check_attention(w, 80, positions, 100);
    check_attention(w, 512, short_positions, 64);
    /* Nothing in the file was left out. */
    assert_int_equal(w->compared, mh_checkpoint_count(w->vectors));
}

static void ops_equal_the_vectors(void **state)
{
    (void)state;
    static const char *const isas[] = {"scalar", "avx2", "avx512"};
    int tried = 0;
    for (size_t i = 0; i < 3; i++)
        for (uint32_t threads = 1; threads <= 3; threads += 2) {
            struct world *w = open_world(isas[i], threads, "ops-exact");
            if (!w)
                continue;
            check_all(w);
            close_world(w);
            tried++;
        }
    assert_true(tried >= 2);
}

static void routing_agrees_with_transformers(void **state)
{
    (void)state;
    struct world *w = open_world("scalar", 1, "router");
    size_t i;
    json_t *spec;
    json_array_foreach(w->spec, i, spec)
    {
        char name[64];
        mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
        const char *prefix = json_string_value(json_object_get(spec, "name"));
        mh_op_router op = make_router(w, prefix, spec);
        run(w, &op.base);
        snprintf(name, sizeof(name), "%s.experts", prefix);
        assert_bits(w, op.experts, name);
        snprintf(name, sizeof(name), "%s.weights", prefix);
        OK(mh_checkpoint_find(w->vectors, name, &t));
        const float *got = mh_buffer_host(op.weights.buffer);
        for (uint64_t j = 0; j < t.bytes / 4; j++) {
            float want;
            memcpy(&want, (const char *)t.data + 4 * j, 4);
            if (!(fabs((double)got[j] - (double)want) <= 1e-6 * fabs((double)want)))
                fail_msg("%s[%llu]: %.9g, transformers has %.9g", name, (unsigned long long)j,
                         (double)got[j], (double)want);
        }
        drop(op.logits), drop(op.bias), drop(op.experts), drop(op.weights);
    }
    assert_true(i == 7);
    close_world(w);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    folder = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ops_equal_the_vectors),
        cmocka_unit_test(routing_agrees_with_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
