/*
 * core_fast.c: the bounds of the fast profile (docs/numerics.md), what `moehal check --profile
 * fast` runs: (a) sums of small integers and (b) quantisers bit for bit, (c) products against f64
 * over bf16 operands, tile by tile and expert by expert, (d) routing where the margin decides. (e),
 * the perplexity of a model, is a test of `moehal eval`.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core_fast.h"
#include "values.h"

enum {
    TOKENS = FAST_TOKENS,
    TERMS = FAST_TERMS,
    OUTPUTS = 150,
    EXPERTS = 4,
    CHOSEN = 2,
    HEADS = 3
};

/* ---- operands ---- */

bool memory_open(struct core *c, struct memory *m, uint64_t size)
{
    *m = (struct memory){.size = size};
    m->buffer = core_buffer(c, c->device, size);
    m->image = calloc(1, size);
    if (m->image)
        core_keep(c, free, m->image);
    return m->buffer && m->image;
}

mh_tensor fast_tensor(struct memory *m, mh_dtype dtype, uint32_t rank, int64_t a, int64_t b,
                      int64_t d)
{
    mh_tensor t = mh_tensor_make(m->buffer, m->used, dtype, rank, (const int64_t[]){a, b, d});
    m->used += ((uint64_t)(t.shape[0] * t.stride[0]) + 255) & ~UINT64_C(255);
    return t;
}

void *memory_at(const struct memory *m, const mh_tensor *t)
{
    return m->image + t->offset;
}

mh_tensor random_tensor(struct core *c, struct memory *m, uint32_t rank, int64_t a, int64_t b,
                        int64_t d, bool integers)
{
    mh_tensor t = fast_tensor(m, MH_F32, rank, a, b, d);
    float *values = memory_at(m, &t);
    for (int64_t i = 0; i < a * b * (rank > 2 ? d : 1); i++)
        values[i] = integers ? (float)conf_below(&c->random, 17) - 8 : conf_uniform(&c->random);
    return t;
}

static double as_bf16(double value)
{
    uint16_t half = conf_to_bf16((float)value);
    return conf_decode(MH_BF16, &half);
}

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

/* The weight on the device of data and scales, which the case keeps. */
static bool place_bank(struct core *c, struct bank *bank, int64_t experts, const void *data,
                       const float *scales)
{
    mh_weight_params params = MH_INIT(mh_weight_params);
    params.format = bank->format, params.experts = experts;
    params.out = bank->out, params.in = bank->in;
    TRY(mh_weight_create(c->device, &params, &bank->w));
    core_keep(c, release_weight, bank->w);
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_count = experts, piece.row_count = bank->out;
    piece.plane[0] = data, piece.plane[1] = scales;
    TRY(mh_weight_write(bank->w, &piece));
    TRY(mh_weight_seal(bank->w));
    return true;
}

bool make_bank(struct core *c, struct bank *bank, mh_format format, int64_t experts, int64_t out,
               int64_t in, bool integers)
{
    static const int64_t sizes[] = {
        [MH_FORMAT_F32] = 4, [MH_FORMAT_F16] = 2, [MH_FORMAT_BF16] = 2, [MH_FORMAT_FP8] = 1};
    int64_t count = experts * out * in, size = sizes[format];
    int64_t scale_count = experts * ((out + 127) / 128) * ((in + 127) / 128);
    float scale = integers ? 1 : 0.0021f;
    *bank = (struct bank){.out = out, .in = in, .format = format};
    char *data = malloc((size_t)(count * size));
    float *scales = malloc((size_t)scale_count * 4);
    bank->rounded = malloc((size_t)count * 8);
    bank->stored = malloc((size_t)count * 8);
    core_keep(c, free, data);
    core_keep(c, free, scales);
    core_keep(c, free, bank->rounded);
    core_keep(c, free, bank->stored);
    CHECK(data && scales && bank->rounded && bank->stored, "no host memory for weights");
    for (int64_t i = 0; i < scale_count; i++)
        scales[i] = scale;
    for (int64_t i = 0; i < count; i++) {
        bank->stored[i] = encode(c, format, integers, scale, data + i * size);
        bank->rounded[i] = as_bf16(bank->stored[i]);
    }
    return place_bank(c, bank, experts, data, scales);
}

/* ---- running and judging ---- */

bool fast_run(struct core *c, struct memory *m, mh_op *op)
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

bool judged_open(struct core *c, struct judged *j, int64_t rows, int64_t columns)
{
    *j = (struct judged){.columns = columns};
    size_t count = (size_t)(rows * columns);
    j->got = malloc(count * 4);
    core_keep(c, free, j->got);
    for (int i = 0; i < 2; i++) {
        j->exact[i] = malloc(count * 8), j->energy[i] = malloc(count * 8);
        core_keep(c, free, j->exact[i]);
        core_keep(c, free, j->energy[i]);
        CHECK(j->got && j->exact[i] && j->energy[i], "no host memory for the reference");
        j->p[i] = (struct fast_product){
            .columns = columns, .got = j->got, .exact = j->exact[i], .energy = j->energy[i]};
    }
    return true;
}

/* The nearest e4m3, ties to even, of a value of at most 448. */
static double as_e4m3(double value)
{
    int exponent = value == 0 ? -6 : ilogb(value);
    double step = ldexp(1, (exponent < -6 ? -6 : exponent) - 3);
    return nearbyint(value / step) * step;
}

/* 128 columns and what is left at the end have a scale: the least power of two of which no value is
 * more than 448. */
static void quantise(const float *x, int64_t terms, double *to)
{
    for (int64_t k = 0; k < terms; k += 128) {
        int64_t end = k + 128 < terms ? k + 128 : terms;
        double most = 0, scale = ldexp(1, -126);
        for (int64_t i = k; i < end; i++)
            most = fabs((double)x[i]) > most ? fabs((double)x[i]) : most;
        while (448 * scale < most)
            scale *= 2;
        for (int64_t i = k; i < end; i++)
            to[i] = as_e4m3((double)x[i] / scale) * scale;
    }
}

void judged_add(struct judged *j, const struct bank *bank, const float *x, int64_t terms,
                int64_t first, int64_t step_out, int64_t step_in, const float *got)
{
    int64_t row = j->rows++ * j->columns;
    double inputs[2][FAST_TERMS];
    const double *weights[2] = {bank->rounded + first, bank->stored + first};
    j->e4m3 = bank->format == MH_FORMAT_FP8;
    for (int64_t k = 0; k < terms; k++)
        inputs[0][k] = as_bf16((double)x[k]);
    quantise(x, terms, inputs[1]);
    for (int64_t o = 0; o < j->columns; o++) {
        j->got[row + o] = got ? got[o] : 0;
        for (int i = 0; i < (j->e4m3 ? 2 : 1); i++) {
            double sum = 0, energy = 0;
            for (int64_t k = 0; k < terms; k++) {
                double term = inputs[i][k] * weights[i][o * step_out + k * step_in];
                sum += term, energy += term * term;
            }
            j->exact[i][row + o] = sum, j->energy[i][row + o] = energy;
        }
    }
    j->p[0].rows = j->p[1].rows = j->rows;
}

bool judge(struct core *c, const struct judged *j, bool integers, const char *what)
{
    char message[300];
    for (int64_t i = 0; integers && i < j->rows * j->columns; i++)
        CHECK((double)j->got[i] == j->exact[0][i],
              "%s of integers, element %lld: %.9g, must be exactly %.9g", what, (long long)i,
              (double)j->got[i], j->exact[0][i]);
    CHECK(integers || (j->e4m3 && conf_fast_within(&j->p[1], message, sizeof(message))) ||
              conf_fast_within(&j->p[0], message, sizeof(message)),
          "%s: %s", what, message);
    return true;
}

/* ---- products ---- */

static bool linear(struct core *c, mh_format format, int64_t tokens, int64_t terms, bool integers)
{
    struct memory m;
    struct bank bank;
    struct judged j;
    if (!memory_open(c, &m, 1 << 20) || !make_bank(c, &bank, format, 1, OUTPUTS, terms, integers) ||
        !judged_open(c, &j, tokens, OUTPUTS))
        return false;
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    op.x = random_tensor(c, &m, 2, tokens, terms, 0, integers);
    op.y = fast_tensor(&m, MH_F32, 2, tokens, OUTPUTS, 0), op.w = bank.w;
    if (!fast_run(c, &m, &op.base))
        return false;
    const float *x = memory_at(&m, &op.x), *y = memory_at(&m, &op.y);
    for (int64_t t = 0; t < tokens; t++)
        judged_add(&j, &bank, x + t * terms, terms, 0, terms, 1, y + t * OUTPUTS);
    return judge(c, &j, integers, "linear");
}

static bool heads(struct core *c, mh_format format, bool transposed, bool integers)
{
    enum { LATENT = 304, PART = 132, FIRST = 128, ROWS = 384 };
    struct memory m;
    struct bank bank;
    struct judged j;
    int64_t in = transposed ? PART : LATENT, out = transposed ? LATENT : PART;
    if (!memory_open(c, &m, 1 << 20) ||
        !make_bank(c, &bank, format, 1, HEADS * ROWS, LATENT, integers))
        return false;
    mh_op_head_linear op = MH_OP_INIT(head_linear, HEAD_LINEAR);
    op.x = random_tensor(c, &m, 3, TOKENS, HEADS, in, integers);
    op.y = fast_tensor(&m, MH_F32, 3, TOKENS, HEADS, out), op.w = bank.w;
    op.head_rows = ROWS, op.row_begin = FIRST, op.row_count = PART, op.transposed = transposed;
    if (!fast_run(c, &m, &op.base))
        return false;
    for (int64_t h = 0; h < HEADS; h++) {
        if (!judged_open(c, &j, TOKENS, out))
            return false;
        for (int64_t t = 0; t < TOKENS; t++)
            judged_add(&j, &bank, (const float *)memory_at(&m, &op.x) + (t * HEADS + h) * in, in,
                       (h * ROWS + FIRST) * LATENT, transposed ? 1 : LATENT,
                       transposed ? LATENT : 1,
                       (const float *)memory_at(&m, &op.y) + (t * HEADS + h) * out);
        if (!judge(c, &j, integers, transposed ? "head_linear, transposed" : "head_linear"))
            return false;
    }
    return true;
}

static bool experts(struct core *c, mh_format format, bool integers)
{
    enum { NO_EXPERT = 5 /* a row whose expert does not exist, which is left as it was */ };
    struct memory m;
    struct bank bank;
    if (!memory_open(c, &m, 1 << 20) ||
        !make_bank(c, &bank, format, EXPERTS, OUTPUTS, TERMS / 2, integers))
        return false;
    mh_op_experts_down op = MH_OP_INIT(experts_down, EXPERTS_DOWN);
    op.x = random_tensor(c, &m, 3, TOKENS, CHOSEN, TERMS / 2, integers);
    op.y = fast_tensor(&m, MH_F32, 3, TOKENS, CHOSEN, OUTPUTS), op.w = bank.w;
    op.experts = fast_tensor(&m, MH_I32, 2, TOKENS, CHOSEN, 0);
    op.fault = fast_tensor(&m, MH_U32, 1, 1, 0, 0);
    int32_t *chosen = memory_at(&m, &op.experts);
    for (int i = 0; i < TOKENS * CHOSEN; i++) /* the last expert has one row */
        chosen[i] = i == NO_EXPERT ? EXPERTS : i ? i % (EXPERTS - 1) : EXPERTS - 1;
    float *untouched = (float *)memory_at(&m, &op.y) + NO_EXPERT * OUTPUTS;
    for (int i = 0; i < OUTPUTS; i++)
        untouched[i] = 77;
    if (!fast_run(c, &m, &op.base))
        return false;
    CHECK(*(uint32_t *)memory_at(&m, &op.fault) == MH_BAD_INDEX,
          "experts_down: an expert that does not exist set no fault");
    for (int i = 0; i < OUTPUTS; i++)
        CHECK(untouched[i] == 77, "experts_down: the row of no expert was written");
    for (int e = 0; e < EXPERTS; e++) {
        struct judged j;
        if (!judged_open(c, &j, TOKENS * CHOSEN, OUTPUTS))
            return false;
        for (int64_t i = 0; i < TOKENS * CHOSEN; i++)
            if (chosen[i] == e)
                judged_add(&j, &bank, (const float *)memory_at(&m, &op.x) + i * (TERMS / 2),
                           TERMS / 2, e * OUTPUTS * (TERMS / 2), TERMS / 2, 1,
                           (const float *)memory_at(&m, &op.y) + i * OUTPUTS);
        if (!judge(c, &j, integers, "experts_down"))
            return false;
    }
    return true;
}

static bool products(struct core *c, mh_format format)
{
    for (int integers = 0; integers < 2; integers++)
        if (!linear(c, format, TOKENS, TERMS, integers) || !linear(c, format, 3, TERMS, integers) ||
            !linear(c, format, TOKENS, 1001, integers) || !linear(c, format, 100, 384, integers) ||
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

/* ---- bytes of FP8 that other forms of it read otherwise ---- */

/* The same weights as one head's, transposed: columns from `whole` on have a NaN. */
static bool fp8_bytes_turned(struct core *c, struct memory *m, const struct bank *bank,
                             int64_t whole, float scale)
{
    enum { TOKENS_HERE = 24 };
    struct judged j;
    if (!judged_open(c, &j, TOKENS_HERE, whole))
        return false;
    mh_op_head_linear op = MH_OP_INIT(head_linear, HEAD_LINEAR);
    op.x = random_tensor(c, m, 3, TOKENS_HERE, 1, bank->out, false);
    op.y = fast_tensor(m, MH_F32, 3, TOKENS_HERE, 1, bank->in), op.w = bank->w;
    op.head_rows = op.row_count = bank->out, op.transposed = true;
    float *x = memory_at(m, &op.x);
    for (int64_t i = 0; i < TOKENS_HERE * bank->out && scale > 1; i++)
        x[i] /= 0x1p30f;
    if (!fast_run(c, m, &op.base))
        return false;
    const float *y = memory_at(m, &op.y);
    for (int64_t t = 0; t < TOKENS_HERE; t++, x += bank->out, y += bank->in) {
        judged_add(&j, bank, x, bank->out, 0, 1, bank->in, y);
        for (int64_t o = whole; o < bank->in; o++)
            CHECK(isnan(y[o]), "row %lld: %.9g, must be NaN, as a weight of column %lld is",
                  (long long)t, (double)y[o], (long long)o);
    }
    return judge(c, &j, false, "head_linear, transposed, all bytes of FP8");
}

/* Of e4m3 in the FNUZ form 0x80 is NaN, 0x7F and 0xFF are values, and values end at 240. The first
 * row of weights is -0 throughout, two more have a NaN, one has the largest values; a row of inputs
 * is 0, one -0, one goes up to 448. With the largest scale twice as much is no float. */
static bool fp8_bytes_scaled(struct core *c, float scale, uint8_t mask)
{
    enum { ROWS = 20, ORDINARY = ROWS - 2, TOKENS_HERE = 24, BLOCKS = 3 };
    enum { TERMS_HERE = 272, WHOLE = TERMS_HERE - 2 /* columns without a NaN */ };
    struct operands {
        double stored[ROWS * TERMS_HERE], rounded[ROWS * TERMS_HERE];
        uint8_t data[ROWS][TERMS_HERE];
        float scales[BLOCKS];
    } *w = calloc(1, sizeof(*w));
    CHECK(w, "no host memory for weights");
    core_keep(c, free, w);
    struct memory m;
    struct judged j;
    struct bank bank = {NULL, w->rounded, w->stored, ROWS, TERMS_HERE, MH_FORMAT_FP8};
    for (int i = 0; i < BLOCKS; i++)
        w->scales[i] = scale;
    for (int o = 0; o < ROWS; o++)
        for (int k = 0; k < TERMS_HERE; k++) {
            uint8_t byte = (uint8_t)(conf_below(&c->random, 256) & mask);
            byte = o == 0 ? 0x80 : o == 1 ? (uint8_t)((0x78 + k % 7) & mask) : byte;
            byte = (byte & 0x7F) == 0x7F ? 0 : byte;
            double value = (double)(float)(fp8_value(byte) * (double)scale);
            w->data[o][k] = byte;
            w->stored[o * TERMS_HERE + k] = value;
            w->rounded[o * TERMS_HERE + k] = as_bf16(value);
        }
    w->data[ORDINARY][WHOLE] = 0x7F, w->data[ORDINARY + 1][TERMS_HERE - 1] = 0xFF;
    if (!memory_open(c, &m, 1 << 20) || !place_bank(c, &bank, 1, w->data, w->scales) ||
        !judged_open(c, &j, TOKENS_HERE, ORDINARY))
        return false;
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    op.x = random_tensor(c, &m, 2, TOKENS_HERE, TERMS_HERE, 0, false);
    op.y = fast_tensor(&m, MH_F32, 2, TOKENS_HERE, ROWS, 0), op.w = bank.w;
    float *inputs = memory_at(&m, &op.x);
    for (int k = 0; k < TERMS_HERE; k++) {
        inputs[k] = 0.0f;
        inputs[TERMS_HERE + k] = -0.0f;
        inputs[2 * TERMS_HERE + k] = (float)(k % 15 * 64 - 448);
    }
    for (int i = 0; i < TOKENS_HERE * TERMS_HERE && scale > 1; i++)
        inputs[i] /= 0x1p30f;
    if (!fast_run(c, &m, &op.base))
        return false;
    const float *x = memory_at(&m, &op.x), *y = memory_at(&m, &op.y);
    for (int t = 0; t < TOKENS_HERE; t++) {
        judged_add(&j, &bank, x + t * TERMS_HERE, TERMS_HERE, 0, TERMS_HERE, 1, y + t * ROWS);
        for (int o = ORDINARY; o < ROWS; o++)
            CHECK(isnan(y[t * ROWS + o]), "row %d: %.9g, must be NaN, as a weight of output %d is",
                  t, (double)y[t * ROWS + o], o);
    }
    return judge(c, &j, false, "linear, all bytes of FP8") &&
           fp8_bytes_turned(c, &m, &bank, WHOLE, scale);
}

static bool fp8_bytes(struct core *c)
{
    return fp8_bytes_scaled(c, 0.0021f, 0xFF) && fp8_bytes_scaled(c, 0x1p127f, 0xBF);
}

/* Times the identity, inputs come back as they were rounded: not at all, to bf16, or by the
 * definition for FP8 weights. Rows of all sizes. */
static bool fp8_inputs(struct core *c)
{
    enum { SIZE = 272, ROWS = 40, BLOCKS = 9, KINDS = 3 };
    struct operands {
        double quantised[SIZE];
        uint8_t data[SIZE][SIZE];
        float scales[BLOCKS];
    } *w = calloc(1, sizeof(*w));
    CHECK(w, "no host memory for weights");
    core_keep(c, free, w);
    struct memory m;
    struct bank bank = {NULL, NULL, NULL, SIZE, SIZE, MH_FORMAT_FP8};
    for (int i = 0; i < SIZE; i++)
        w->data[i][i] = 0x38; /* 1 */
    for (int i = 0; i < BLOCKS; i++)
        w->scales[i] = 1;
    if (!memory_open(c, &m, 1 << 20) || !place_bank(c, &bank, 1, w->data, w->scales))
        return false;
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    op.x = random_tensor(c, &m, 2, ROWS, SIZE, 0, false);
    op.y = fast_tensor(&m, MH_F32, 2, ROWS, SIZE, 0), op.w = bank.w;
    float *inputs = memory_at(&m, &op.x);
    /* Down to what FP8 has as 0 beside the largest, but no denormals, which bf16 units may flush.
     */
    for (int i = 0; i < ROWS * SIZE; i++)
        inputs[i] = ldexpf(inputs[i], i / SIZE * 5 - 80 - (int)conf_below(&c->random, 20));
    if (!fast_run(c, &m, &op.base))
        return false;
    const float *x = memory_at(&m, &op.x), *y = memory_at(&m, &op.y);
    int wrong[KINDS] = {-1, -1, -1};
    for (int i = 0; i < ROWS * SIZE; i++) {
        if (i % SIZE == 0)
            quantise(x + i, SIZE, w->quantised);
        double must[KINDS] = {(double)x[i], as_bf16((double)x[i]), w->quantised[i % SIZE]};
        for (int k = 0; k < KINDS; k++)
            wrong[k] = wrong[k] < 0 && (double)y[i] != must[k] ? i : wrong[k];
    }
    int i = wrong[KINDS - 1];
    CHECK(wrong[0] < 0 || wrong[1] < 0 || i < 0,
          "linear by the identity, element %d: %.9g became %.9g, which no definition makes of it",
          i, (double)x[i], (double)y[i]);
    return true;
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
    op.experts = fast_tensor(&m, MH_I32, 2, TOKENS, KEPT, 0);
    op.weights = fast_tensor(&m, MH_F32, 2, TOKENS, KEPT, 0);
    op.rule = (mh_router_rule){MH_ROUTER_SOFTMAX, MH_GROUPS_NONE, 0, 0, 0, 1};
    if (!fast_run(c, &m, &op.base))
        return false;
    const int32_t *chosen = memory_at(&m, &op.experts);
    for (int64_t t = 0; t < TOKENS; t++) {
        const double *logit = j.exact[0] + t * MANY, *energy = j.energy[0] + t * MANY;
        bool taken[MANY] = {false};
        judged_add(&j, &bank, (const float *)memory_at(&m, &op.x) + t * TERMS, TERMS, 0, TERMS, 1,
                   NULL);
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
        cast.y = fast_tensor(&m, to ? MH_BF16 : MH_F16, 2, TOKENS, WIDTH, 0);
        if (!fast_run(c, &m, &cast.base))
            return false;
        const float *x = memory_at(&m, &cast.x);
        const uint16_t *y = memory_at(&m, &cast.y);
        for (int64_t i = 0; i < TOKENS * WIDTH; i++)
            CHECK(y[i] == (to ? conf_to_bf16(x[i]) : conf_to_f16(x[i])),
                  "cast of %.9g to %s is %04x", (double)x[i], to ? "bf16" : "f16", y[i]);
    }
    mh_op_kv_write write = MH_OP_INIT(kv_write, KV_WRITE);
    write.latent = random_tensor(c, &m, 2, TOKENS, LATENT, 0, false);
    write.rope = random_tensor(c, &m, 2, TOKENS, WIDTH - LATENT, 0, false);
    write.cache = fast_tensor(&m, MH_BF16, 3, 1, TOKENS, WIDTH);
    write.positions = fast_tensor(&m, MH_I32, 1, TOKENS, 0, 0);
    write.slots = fast_tensor(&m, MH_I32, 1, TOKENS, 0, 0);
    write.page_table = fast_tensor(&m, MH_I32, 2, 1, 1, 0);
    write.fault = fast_tensor(&m, MH_U32, 1, 1, 0, 0);
    for (int32_t t = 0; t < TOKENS; t++)
        ((int32_t *)memory_at(&m, &write.positions))[t] = t;
    if (!fast_run(c, &m, &write.base))
        return false;
    const uint16_t *row = memory_at(&m, &write.cache);
    for (int64_t t = 0; t < TOKENS; t++)
        for (int64_t k = 0; k < WIDTH; k++, row++) {
            const float *from =
                k < LATENT
                    ? (const float *)memory_at(&m, &write.latent) + t * LATENT + k
                    : (const float *)memory_at(&m, &write.rope) + t * (WIDTH - LATENT) + k - LATENT;
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
    {"fast/fp8 bytes", fp8_bytes},
    {"fast/fp8 inputs", fp8_inputs},
    {"fast/routing", routing},
    {"fast/quantisers", quantisers},
    {NULL, NULL},
};
