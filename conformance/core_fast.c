/*
 * core_fast.c: the bounds of the fast profile (docs/numerics.md), what `moehal check --profile
 * fast` runs: (a) sums of small integers and (b) quantisers bit for bit, (c) products against f64
 * over bf16 operands, tile by tile and expert by expert, (d) routing where the margin decides. (e),
 * the perplexity of a model, is a test of `moehal eval`.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bounds.h"
#include "core.h"
#include "values.h"

enum { TOKENS = 40, TERMS = 1000, OUTPUTS = 100, EXPERTS = 4, CHOSEN = 2, HEADS = 3 };

/* ---- operands ---- */

/* One buffer of the device, filled on the host and read back. */
struct memory {
    mh_buffer *buffer;
    char *image;
    uint64_t used, size;
};

static bool memory_open(struct core *c, struct memory *m, uint64_t size)
{
    *m = (struct memory){.size = size};
    m->buffer = core_buffer(c, c->device, size);
    m->image = calloc(1, size);
    if (m->image)
        core_keep(c, free, m->image);
    return m->buffer && m->image;
}

static mh_tensor tensor(struct memory *m, mh_dtype dtype, uint32_t rank, int64_t a, int64_t b,
                        int64_t d)
{
    mh_tensor t = mh_tensor_make(m->buffer, m->used, dtype, rank, (const int64_t[]){a, b, d});
    m->used += ((uint64_t)(t.shape[0] * t.stride[0]) + 255) & ~UINT64_C(255);
    return t;
}

static void *at(const struct memory *m, const mh_tensor *t)
{
    return m->image + t->offset;
}

static mh_tensor random_tensor(struct core *c, struct memory *m, uint32_t rank, int64_t a,
                               int64_t b, int64_t d, bool integers)
{
    mh_tensor t = tensor(m, MH_F32, rank, a, b, d);
    float *values = at(m, &t);
    for (int64_t i = 0; i < a * b * (rank > 2 ? d : 1); i++)
        values[i] = integers ? (float)conf_below(&c->random, 17) - 8 : conf_uniform(&c->random);
    return t;
}

static double as_bf16(double value)
{
    uint16_t half = conf_to_bf16((float)value);
    return conf_decode(MH_BF16, &half);
}

/* A bank of random weights and what its bytes mean. */
struct bank {
    mh_weight *w;
    double *values; /* [experts, out, in], rounded to bf16 */
    int64_t out, in;
};

static double fp8_value(unsigned byte)
{
    int exponent = (int)(byte >> 3 & 15), fraction = (int)(byte & 7);
    double magnitude = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
    return byte & 0x80 ? -magnitude : magnitude;
}

static double encode(struct core *c, mh_format format, bool integers, float scale, char *to)
{
    float value = integers ? (float)conf_below(&c->random, 17) - 8 : conf_uniform(&c->random) / 4;
    uint16_t half;
    uint8_t byte = (uint8_t)conf_below(&c->random, 256);
    switch (format) {
    case MH_FORMAT_F32:
        memcpy(to, &value, 4);
        return (double)value;
    case MH_FORMAT_BF16:
    case MH_FORMAT_F16:
        half = format == MH_FORMAT_BF16 ? conf_to_bf16(value) : conf_to_f16(value);
        memcpy(to, &half, 2);
        return conf_decode(format == MH_FORMAT_BF16 ? MH_BF16 : MH_F16, &half);
    default:
        while (integers ? fp8_value(byte) != (double)value : (byte & 0x7F) == 0x7F)
            byte++;
        *to = (char)byte;
        return (double)(float)(fp8_value(byte) * (double)scale);
    }
}

static void release_weight(void *weight)
{
    mh_weight_release(weight);
}

static bool make_bank(struct core *c, struct bank *bank, mh_format format, int64_t experts,
                      int64_t out, int64_t in, bool integers)
{
    static const int64_t sizes[] = {
        [MH_FORMAT_F32] = 4, [MH_FORMAT_F16] = 2, [MH_FORMAT_BF16] = 2, [MH_FORMAT_FP8] = 1};
    int64_t count = experts * out * in, size = sizes[format];
    int64_t scale_count = experts * ((out + 127) / 128) * ((in + 127) / 128);
    float scale = integers ? 1 : 0.0021f;
    *bank = (struct bank){.out = out, .in = in};
    char *data = malloc((size_t)(count * size));
    float *scales = malloc((size_t)scale_count * 4);
    bank->values = malloc((size_t)count * 8);
    core_keep(c, free, data);
    core_keep(c, free, scales);
    core_keep(c, free, bank->values);
    CHECK(data && scales && bank->values, "no host memory for weights");
    for (int64_t i = 0; i < scale_count; i++)
        scales[i] = scale;
    for (int64_t i = 0; i < count; i++)
        bank->values[i] = as_bf16(encode(c, format, integers, scale, data + i * size));
    mh_weight_params params = MH_INIT(mh_weight_params);
    params.format = format, params.experts = experts, params.out = out, params.in = in;
    TRY(mh_weight_create(c->device, &params, &bank->w));
    core_keep(c, release_weight, bank->w);
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_count = experts, piece.row_count = out;
    piece.plane[0] = data, piece.plane[1] = scales;
    TRY(mh_weight_write(bank->w, &piece));
    TRY(mh_weight_seal(bank->w));
    return true;
}

/* ---- running and judging ---- */

static bool run(struct core *c, struct memory *m, mh_op *op)
{
    mh_support answer = MH_INIT(mh_support);
    op->flags = MH_OP_FAST;
    TRY(mh_device_supports(c->device, op, &answer));
    if (answer.runs != MH_RUNS_NATIVE && answer.runs != MH_RUNS_EXPANDED)
        return core_fallback(c, answer.reason);
    TRY(mh_buffer_write(m->buffer, 0, m->image, m->size));
    TRY(mh_encode(mh_stream_encoder(c->stream), op));
    TRY(mh_stream_wait(c->stream, MH_FOREVER));
    TRY(mh_buffer_read(m->buffer, 0, m->image, m->size));
    return true;
}

/* A product [rows, columns] row by row as it is computed in f64. */
struct judged {
    struct fast_product p;
    float *got;
    double *exact, *energy;
    int64_t room;
};

static bool judged_open(struct core *c, struct judged *j, int64_t rows, int64_t columns)
{
    *j = (struct judged){.p = {.columns = columns}, .room = rows};
    size_t count = (size_t)(rows * columns);
    j->got = malloc(count * 4), j->exact = malloc(count * 8), j->energy = malloc(count * 8);
    core_keep(c, free, j->got);
    core_keep(c, free, j->exact);
    core_keep(c, free, j->energy);
    CHECK(j->got && j->exact && j->energy, "no host memory for the reference");
    j->p.got = j->got, j->p.exact = j->exact, j->p.energy = j->energy;
    return true;
}

/* One more row: of `terms` values of x, weights w[column * step_out + term * step_in]. */
static void judged_add(struct judged *j, const float *x, const double *w, int64_t terms,
                       int64_t step_out, int64_t step_in, const float *got)
{
    int64_t row = j->p.rows++ * j->p.columns;
    double rounded[TERMS];
    for (int64_t k = 0; k < terms; k++)
        rounded[k] = as_bf16((double)x[k]);
    for (int64_t o = 0; o < j->p.columns; o++) {
        double sum = 0, energy = 0;
        for (int64_t k = 0; k < terms; k++) {
            double term = rounded[k] * w[o * step_out + k * step_in];
            sum += term, energy += term * term;
        }
        j->got[row + o] = got[o], j->exact[row + o] = sum, j->energy[row + o] = energy;
    }
}

static bool judge(struct core *c, const struct judged *j, bool integers, const char *what)
{
    char message[300];
    for (int64_t i = 0; integers && i < j->p.rows * j->p.columns; i++)
        CHECK((double)j->got[i] == j->exact[i],
              "%s of integers, element %lld: %.9g, must be exactly %.9g", what, (long long)i,
              (double)j->got[i], j->exact[i]);
    CHECK(integers || conf_fast_within(&j->p, message, sizeof(message)), "%s: %s", what, message);
    return true;
}

/* ---- products ---- */

static bool linear(struct core *c, mh_format format, int64_t tokens, bool integers)
{
    struct memory m;
    struct bank bank;
    struct judged j;
    if (!memory_open(c, &m, 1 << 20) || !make_bank(c, &bank, format, 1, OUTPUTS, TERMS, integers) ||
        !judged_open(c, &j, tokens, OUTPUTS))
        return false;
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    op.x = random_tensor(c, &m, 2, tokens, TERMS, 0, integers);
    op.y = tensor(&m, MH_F32, 2, tokens, OUTPUTS, 0), op.w = bank.w;
    if (!run(c, &m, &op.base))
        return false;
    const float *x = at(&m, &op.x), *y = at(&m, &op.y);
    for (int64_t t = 0; t < tokens; t++)
        judged_add(&j, x + t * TERMS, bank.values, TERMS, TERMS, 1, y + t * OUTPUTS);
    return judge(c, &j, integers, "linear");
}

static bool heads(struct core *c, mh_format format, bool transposed, bool integers)
{
    enum { LATENT = 300, PART = 130, FIRST = 20, ROWS = FIRST + PART + 7 };
    struct memory m;
    struct bank bank;
    struct judged j;
    int64_t in = transposed ? PART : LATENT, out = transposed ? LATENT : PART;
    if (!memory_open(c, &m, 1 << 20) ||
        !make_bank(c, &bank, format, 1, HEADS * ROWS, LATENT, integers))
        return false;
    mh_op_head_linear op = MH_OP_INIT(head_linear, HEAD_LINEAR);
    op.x = random_tensor(c, &m, 3, TOKENS, HEADS, in, integers);
    op.y = tensor(&m, MH_F32, 3, TOKENS, HEADS, out), op.w = bank.w;
    op.head_rows = ROWS, op.row_begin = FIRST, op.row_count = PART, op.transposed = transposed;
    if (!run(c, &m, &op.base))
        return false;
    for (int64_t h = 0; h < HEADS; h++) {
        const double *w = bank.values + (h * ROWS + FIRST) * LATENT;
        if (!judged_open(c, &j, TOKENS, out))
            return false;
        for (int64_t t = 0; t < TOKENS; t++)
            judged_add(&j, (const float *)at(&m, &op.x) + (t * HEADS + h) * in, w, in,
                       transposed ? 1 : LATENT, transposed ? LATENT : 1,
                       (const float *)at(&m, &op.y) + (t * HEADS + h) * out);
        if (!judge(c, &j, integers, transposed ? "head_linear, transposed" : "head_linear"))
            return false;
    }
    return true;
}

static bool experts(struct core *c, mh_format format, bool integers)
{
    struct memory m;
    struct bank bank;
    if (!memory_open(c, &m, 1 << 20) ||
        !make_bank(c, &bank, format, EXPERTS, OUTPUTS, TERMS / 2, integers))
        return false;
    mh_op_experts_down op = MH_OP_INIT(experts_down, EXPERTS_DOWN);
    op.x = random_tensor(c, &m, 3, TOKENS, CHOSEN, TERMS / 2, integers);
    op.y = tensor(&m, MH_F32, 3, TOKENS, CHOSEN, OUTPUTS), op.w = bank.w;
    op.experts = tensor(&m, MH_I32, 2, TOKENS, CHOSEN, 0);
    op.fault = tensor(&m, MH_U32, 1, 1, 0, 0);
    int32_t *chosen = at(&m, &op.experts);
    for (int i = 0; i < TOKENS * CHOSEN; i++) /* the last expert has one row */
        chosen[i] = i ? i % (EXPERTS - 1) : EXPERTS - 1;
    if (!run(c, &m, &op.base))
        return false;
    for (int e = 0; e < EXPERTS; e++) {
        struct judged j;
        if (!judged_open(c, &j, TOKENS * CHOSEN, OUTPUTS))
            return false;
        for (int64_t i = 0; i < TOKENS * CHOSEN; i++)
            if (chosen[i] == e)
                judged_add(&j, (const float *)at(&m, &op.x) + i * (TERMS / 2),
                           bank.values + e * OUTPUTS * (TERMS / 2), TERMS / 2, TERMS / 2, 1,
                           (const float *)at(&m, &op.y) + i * OUTPUTS);
        if (!judge(c, &j, integers, "experts_down"))
            return false;
    }
    return true;
}

static bool products(struct core *c, mh_format format)
{
    for (int integers = 0; integers < 2; integers++)
        if (!linear(c, format, TOKENS, integers) || !linear(c, format, 3, integers) ||
            !heads(c, format, false, integers) || !heads(c, format, true, integers) ||
            !experts(c, format, integers))
            return false;
    return true;
}

static bool products_f32(struct core *c)
{
    return products(c, MH_FORMAT_F32);
}

static bool products_bf16(struct core *c)
{
    return products(c, MH_FORMAT_BF16);
}

static bool products_f16(struct core *c)
{
    return products(c, MH_FORMAT_F16);
}

static bool products_fp8(struct core *c)
{
    return products(c, MH_FORMAT_FP8);
}

/* ---- routing ---- */

/* Softmax keeps the order of logits: of two experts in the wrong order, or one chosen in place of
 * the other, the logits must be closer than what both may err by. */
static bool routing(struct core *c)
{
    enum { MANY = 32, KEPT = 6 };
    struct memory m;
    struct bank bank;
    struct judged j;
    if (!memory_open(c, &m, 1 << 20) ||
        !make_bank(c, &bank, MH_FORMAT_BF16, 1, MANY, TERMS, false) ||
        !judged_open(c, &j, TOKENS, MANY))
        return false;
    mh_op_router_linear op = MH_OP_INIT(router_linear, ROUTER_LINEAR);
    op.x = random_tensor(c, &m, 2, TOKENS, TERMS, 0, false), op.w = bank.w;
    op.experts = tensor(&m, MH_I32, 2, TOKENS, KEPT, 0);
    op.weights = tensor(&m, MH_F32, 2, TOKENS, KEPT, 0);
    op.rule = (mh_router_rule){MH_ROUTER_SOFTMAX, MH_GROUPS_NONE, 0, 0, 0, 1};
    if (!run(c, &m, &op.base))
        return false;
    const int32_t *chosen = at(&m, &op.experts);
    float nothing[MANY] = {0};
    for (int64_t t = 0; t < TOKENS; t++) {
        const double *logit = j.exact + t * MANY, *energy = j.energy + t * MANY;
        bool taken[MANY] = {false};
        judged_add(&j, (const float *)at(&m, &op.x) + t * TERMS, bank.values, TERMS, TERMS, 1,
                   nothing);
        for (int s = 0; s < KEPT; s++) {
            int32_t e = chosen[t * KEPT + s];
            CHECK(e >= 0 && e < MANY && !taken[e], "row %lld, slot %d: expert %d", (long long)t, s,
                  e);
            taken[e] = true;
            for (int o = 0; o < MANY; o++) {
                double room = FAST_MOST * (sqrt(energy[e]) + sqrt(energy[o]));
                CHECK(taken[o] || logit[o] <= logit[e] + room,
                      "row %lld, slot %d: expert %d of logit %.6g, but %d has %.6g, further than "
                      "%.3g",
                      (long long)t, s, e, logit[e], o, logit[o], room);
            }
        }
    }
    return true;
}

/* ---- quantisers ---- */

static bool quantisers(struct core *c)
{
    enum { WIDTH = 96, LATENT = 64 };
    struct memory m;
    if (!memory_open(c, &m, 1 << 20))
        return false;
    mh_op_cast cast = MH_OP_INIT(cast, CAST);
    cast.x = random_tensor(c, &m, 2, TOKENS, WIDTH, 0, false);
    for (int to = 0; to < 2; to++) {
        cast.y = tensor(&m, to ? MH_BF16 : MH_F16, 2, TOKENS, WIDTH, 0);
        if (!run(c, &m, &cast.base))
            return false;
        const float *x = at(&m, &cast.x);
        const uint16_t *y = at(&m, &cast.y);
        for (int64_t i = 0; i < TOKENS * WIDTH; i++)
            CHECK(y[i] == (to ? conf_to_bf16(x[i]) : conf_to_f16(x[i])),
                  "cast of %.9g to %s is %04x", (double)x[i], to ? "bf16" : "f16", y[i]);
    }
    mh_op_kv_write write = MH_OP_INIT(kv_write, KV_WRITE);
    write.latent = random_tensor(c, &m, 2, TOKENS, LATENT, 0, false);
    write.rope = random_tensor(c, &m, 2, TOKENS, WIDTH - LATENT, 0, false);
    write.cache = tensor(&m, MH_BF16, 3, 1, TOKENS, WIDTH);
    write.positions = tensor(&m, MH_I32, 1, TOKENS, 0, 0);
    write.slots = tensor(&m, MH_I32, 1, TOKENS, 0, 0);
    write.page_table = tensor(&m, MH_I32, 2, 1, 1, 0);
    write.fault = tensor(&m, MH_U32, 1, 1, 0, 0);
    for (int32_t t = 0; t < TOKENS; t++)
        ((int32_t *)at(&m, &write.positions))[t] = t;
    if (!run(c, &m, &write.base))
        return false;
    const uint16_t *row = at(&m, &write.cache);
    for (int64_t t = 0; t < TOKENS; t++)
        for (int64_t k = 0; k < WIDTH; k++, row++) {
            const float *from =
                k < LATENT ? (const float *)at(&m, &write.latent) + t * LATENT + k
                           : (const float *)at(&m, &write.rope) + t * (WIDTH - LATENT) + k - LATENT;
            CHECK(*row == conf_to_bf16(*from), "kv_write: row %lld, element %lld: %.9g became %04x",
                  (long long)t, (long long)k, (double)*from, *row);
        }
    return true;
}

const struct core_case core_fast[] = {
    {"fast/products f32", products_f32},
    {"fast/products bf16", products_bf16},
    {"fast/products f16", products_f16},
    {"fast/products fp8", products_fp8},
    {"fast/routing", routing},
    {"fast/quantisers", quantisers},
    {NULL, NULL},
};
