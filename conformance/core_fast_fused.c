/*
 * core_fast_fused.c: ops of several products under the fast profile. With integers, sums and what
 * is added to them are exact; the error of swiglu is at most what those of its two products make of
 * it.
 */
#include <math.h>
#include <string.h>

#include "core_fast.h"
#include "values.h"

enum { TOKENS = FAST_TOKENS, TERMS = 528, OUTPUTS = 82, EXPERTS = 5, CHOSEN = 3, SHARED = 146 };

static float *floats(const struct memory *m, const mh_tensor *t)
{
    return memory_at(m, t);
}

/* ---- swiglu of two products ---- */

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* Whether the outputs are near enough by definition `i` of the products' operands. */
static bool gated_within(const struct judged *gate, const struct judged *up, int i, int64_t *where)
{
    for (int64_t k = 0; k < gate->rows * gate->columns; k++) {
        double g = gate->exact[i][k], u = up->exact[i][k];
        double room_g = 1.1 * FAST_MOST * sqrt(gate->energy[i][k]); /* silu's slope is below 1.1 */
        double room_u = FAST_MOST * sqrt(up->energy[i][k]);
        double room = room_g * fabs(u) + (fabs(silu(g)) + room_g) * room_u;
        *where = k;
        if (!(fabs((double)gate->got[k] - silu(g) * u) <= room))
            return false;
    }
    return true;
}

static bool judge_gated(struct core *c, const struct judged *gate, const struct judged *up,
                        const char *what)
{
    int64_t k = 0;
    CHECK((gate->e4m3 && gated_within(gate, up, 1, &k)) || gated_within(gate, up, 0, &k),
          "%s: element %lld: %.9g, must be near %.9g", what, (long long)k, (double)gate->got[k],
          silu(gate->exact[0][k]) * up->exact[0][k]);
    return true;
}

/* A row of expert `e` of both banks. */
static void gated_add(struct judged *gate, struct judged *up, const struct bank *gates,
                      const struct bank *ups, int64_t e, const float *x, const float *got)
{
    int64_t first = e * gates->out * gates->in;
    judged_add(gate, gates, x, gates->in, first, gates->in, 1, got);
    judged_add(up, ups, x, ups->in, first, ups->in, 1, got);
}

static bool linear_swiglu(struct core *c, mh_format format, int64_t tokens)
{
    struct memory m;
    struct bank gate, up;
    struct judged g, u;
    if (!memory_open(c, &m, 1 << 20) || !make_bank(c, &gate, format, 1, OUTPUTS, TERMS, false) ||
        !make_bank(c, &up, format, 1, OUTPUTS, TERMS, false) ||
        !judged_open(c, &g, tokens, OUTPUTS) || !judged_open(c, &u, tokens, OUTPUTS))
        return false;
    mh_op_linear_swiglu op = MH_OP_INIT(linear_swiglu, LINEAR_SWIGLU);
    op.x = random_tensor(c, &m, 2, tokens, TERMS, 0, false);
    op.y = fast_tensor(&m, MH_F32, 2, tokens, OUTPUTS, 0), op.gate = gate.w, op.up = up.w;
    if (!fast_run(c, &m, &op.base))
        return false;
    for (int64_t t = 0; t < tokens; t++)
        gated_add(&g, &u, &gate, &up, 0, floats(&m, &op.x) + t * TERMS,
                  floats(&m, &op.y) + t * OUTPUTS);
    return judge_gated(c, &g, &u, "linear_swiglu");
}

/* One of the five experts has more rows than a small tile, two have some, one has one, and one is
 * elsewhere. */
static void choose(const struct memory *m, const mh_tensor *experts, const mh_tensor *map)
{
    int32_t *chosen = memory_at(m, experts), *place = memory_at(m, map);
    for (int32_t e = 0; e < EXPERTS; e++)
        place[e] = e == 3 ? -1 : e < 3 ? 2 - e : 3;
    for (int64_t i = 0; i < TOKENS * CHOSEN; i++)
        chosen[i] = i == 7 ? 4 : i % 8 == 1 ? 1 : i % 8 == 2 ? 2 : 0;
}

static bool moe_gate_up(struct core *c, mh_format format)
{
    struct memory m;
    struct bank gate, up, shared_gate, shared_up;
    struct judged g, u;
    if (!memory_open(c, &m, 1 << 21) || !make_bank(c, &gate, format, 4, OUTPUTS, TERMS, false) ||
        !make_bank(c, &up, format, 4, OUTPUTS, TERMS, false) ||
        !make_bank(c, &shared_gate, format, 1, SHARED, TERMS, false) ||
        !make_bank(c, &shared_up, format, 1, SHARED, TERMS, false))
        return false;
    mh_op_moe_gate_up op = MH_OP_INIT(moe_gate_up, MOE_GATE_UP);
    op.x = random_tensor(c, &m, 2, TOKENS, TERMS, 0, false);
    op.y = fast_tensor(&m, MH_F32, 3, TOKENS, CHOSEN, OUTPUTS);
    op.shared_y = fast_tensor(&m, MH_F32, 2, TOKENS, SHARED, 0);
    op.experts = fast_tensor(&m, MH_I32, 2, TOKENS, CHOSEN, 0);
    op.expert_map = fast_tensor(&m, MH_I32, 1, EXPERTS, 0, 0);
    op.fault = fast_tensor(&m, MH_U32, 1, 1, 0, 0);
    op.gate = gate.w, op.up = up.w, op.shared_gate = shared_gate.w, op.shared_up = shared_up.w;
    choose(&m, &op.experts, &op.expert_map);
    int32_t *chosen = memory_at(&m, &op.experts), *place = memory_at(&m, &op.expert_map);
    chosen[20] = 3; /* elsewhere: its row is left as it was */
    for (int64_t o = 0; o < OUTPUTS; o++)
        floats(&m, &op.y)[20 * OUTPUTS + o] = 77;
    if (!fast_run(c, &m, &op.base))
        return false;
    for (int64_t o = 0; o < OUTPUTS; o++)
        CHECK(floats(&m, &op.y)[20 * OUTPUTS + o] == 77, "the row of an absent expert was written");
    for (int32_t e = 0; e < EXPERTS; e++) {
        if (!judged_open(c, &g, TOKENS * CHOSEN, OUTPUTS) ||
            !judged_open(c, &u, TOKENS * CHOSEN, OUTPUTS))
            return false;
        for (int64_t i = 0; i < TOKENS * CHOSEN; i++)
            if (chosen[i] == e && place[e] >= 0)
                gated_add(&g, &u, &gate, &up, place[e], floats(&m, &op.x) + i / CHOSEN * TERMS,
                          floats(&m, &op.y) + i * OUTPUTS);
        if (!judge_gated(c, &g, &u, "moe_gate_up, routed"))
            return false;
    }
    if (!judged_open(c, &g, TOKENS, SHARED) || !judged_open(c, &u, TOKENS, SHARED))
        return false;
    for (int64_t t = 0; t < TOKENS; t++)
        gated_add(&g, &u, &shared_gate, &shared_up, 0, floats(&m, &op.x) + t * TERMS,
                  floats(&m, &op.shared_y) + t * SHARED);
    return judge_gated(c, &g, &u, "moe_gate_up, shared");
}

/* ---- sums of products and other things, of integers ---- */

static double dot(const struct bank *bank, int64_t expert, int64_t row, const float *x)
{
    double sum = 0;
    const double *w = bank->stored + (expert * bank->out + row) * bank->in;
    for (int64_t k = 0; k < bank->in; k++)
        sum += (double)x[k] * w[k];
    return sum;
}

static bool linear_add(struct core *c, mh_format format, int64_t outputs)
{
    struct memory m;
    struct bank bank;
    if (!memory_open(c, &m, 1 << 20) || !make_bank(c, &bank, format, 1, outputs, TERMS, true))
        return false;
    mh_op_linear_add op = MH_OP_INIT(linear_add, LINEAR_ADD);
    op.x = random_tensor(c, &m, 2, TOKENS, TERMS, 0, true);
    op.residual = random_tensor(c, &m, 2, TOKENS, outputs, 0, true);
    op.y = fast_tensor(&m, MH_F32, 2, TOKENS, outputs, 0), op.w = bank.w;
    if (!fast_run(c, &m, &op.base))
        return false;
    for (int64_t i = 0; i < TOKENS * outputs; i++) {
        double must = (double)floats(&m, &op.residual)[i] +
                      dot(&bank, 0, i % outputs, floats(&m, &op.x) + i / outputs * TERMS);
        CHECK((double)floats(&m, &op.y)[i] == must, "linear_add, element %lld: %.9g, must be %.9g",
              (long long)i, (double)floats(&m, &op.y)[i], must);
    }
    return true;
}

static bool moe_down_combine(struct core *c, mh_format format)
{
    struct memory m;
    struct bank bank, shared;
    if (!memory_open(c, &m, 1 << 20) || !make_bank(c, &bank, format, 4, OUTPUTS, TERMS, true) ||
        !make_bank(c, &shared, format, 1, OUTPUTS, SHARED - 2, true))
        return false;
    mh_op_moe_down_combine op = MH_OP_INIT(moe_down_combine, MOE_DOWN_COMBINE);
    op.x = random_tensor(c, &m, 3, TOKENS, CHOSEN, TERMS, true);
    op.shared_x = random_tensor(c, &m, 2, TOKENS, SHARED - 2, 0, true);
    op.weights = random_tensor(c, &m, 2, TOKENS, CHOSEN, 0, true);
    op.h = random_tensor(c, &m, 2, TOKENS, OUTPUTS, 0, true);
    op.y = fast_tensor(&m, MH_F32, 2, TOKENS, OUTPUTS, 0);
    op.experts = fast_tensor(&m, MH_I32, 2, TOKENS, CHOSEN, 0);
    op.expert_map = fast_tensor(&m, MH_I32, 1, EXPERTS, 0, 0);
    op.fault = fast_tensor(&m, MH_U32, 1, 1, 0, 0), op.w = bank.w, op.shared_w = shared.w;
    choose(&m, &op.experts, &op.expert_map);
    if (!fast_run(c, &m, &op.base))
        return false;
    const int32_t *chosen = memory_at(&m, &op.experts), *place = memory_at(&m, &op.expert_map);
    for (int64_t i = 0; i < TOKENS * OUTPUTS; i++) {
        int64_t t = i / OUTPUTS, o = i % OUTPUTS;
        double must = (double)floats(&m, &op.h)[i] +
                      dot(&shared, 0, o, floats(&m, &op.shared_x) + t * (SHARED - 2));
        for (int64_t j = t * CHOSEN; j < (t + 1) * CHOSEN; j++)
            must += (double)floats(&m, &op.weights)[j] *
                    dot(&bank, place[chosen[j]], o, floats(&m, &op.x) + j * TERMS);
        CHECK((double)floats(&m, &op.y)[i] == must,
              "moe_down_combine, element %lld: %.9g, must be %.9g", (long long)i,
              (double)floats(&m, &op.y)[i], must);
    }
    return true;
}

/* ---- a norm first ---- */

static bool norm_linear(struct core *c, mh_format format)
{
    struct memory m;
    struct bank bank[2];
    struct judged j;
    if (!memory_open(c, &m, 1 << 20) || !make_bank(c, &bank[0], format, 1, OUTPUTS, TERMS, false) ||
        !make_bank(c, &bank[1], format, 1, SHARED, TERMS, false))
        return false;
    mh_op_norm_linear op = MH_OP_INIT(norm_linear, NORM_LINEAR);
    op.x = random_tensor(c, &m, 2, TOKENS, TERMS, 0, false);
    op.norm = random_tensor(c, &m, 1, TERMS, 1, 0, false);
    op.y = fast_tensor(&m, MH_F32, 2, TOKENS, OUTPUTS, 0);
    op.y2 = fast_tensor(&m, MH_F32, 2, TOKENS, SHARED, 0);
    op.w = bank[0].w, op.w2 = bank[1].w, op.eps = 1e-6f;
    if (!fast_run(c, &m, &op.base))
        return false;
    for (int i = 0; i < 2; i++) {
        if (!judged_open(c, &j, TOKENS, bank[i].out))
            return false;
        for (int64_t t = 0; t < TOKENS; t++) {
            const float *x = floats(&m, &op.x) + t * TERMS;
            float normed[TERMS];
            double sum = 0;
            for (int64_t k = 0; k < TERMS; k++)
                sum += (double)x[k] * (double)x[k];
            double r = 1 / sqrt(sum / TERMS + (double)op.eps);
            for (int64_t k = 0; k < TERMS; k++)
                normed[k] =
                    (float)((double)(float)((double)x[k] * r) * (double)floats(&m, &op.norm)[k]);
            judged_add(&j, &bank[i], normed, TERMS, 0, TERMS, 1,
                       floats(&m, i ? &op.y2 : &op.y) + t * bank[i].out);
        }
        if (!judge(c, &j, false, i ? "norm_linear, second" : "norm_linear"))
            return false;
    }
    return true;
}

/* ---- attention's query and cache rows ---- */

/* Whether `got` is x rotated, to a share of its size. */
static bool rotated(const double *got, const float *x, const float *angles, int64_t size,
                    double share)
{
    for (int64_t k = 0; k < size / 2; k++) {
        double a = (double)x[2 * k], b = (double)x[2 * k + 1];
        double cosine = (double)angles[k], sine = (double)angles[size / 2 + k];
        double room = share * (fabs(a) + fabs(b));
        if (!(fabs(got[2 * k] - (a * cosine - b * sine)) <= room) ||
            !(fabs(got[2 * k + 1] - (a * sine + b * cosine)) <= room))
            return false;
    }
    return true;
}

/* A head's rows are more than the kernels take at a time, and no multiple of the scales'. */
static bool mla_qkv(struct core *c, mh_format format)
{
    enum { HEADS = 3, LATENT = 304, ROPE = 8, PART = 132, HEAD_ROWS = 140, PAGE = 16, PAGES = 3 };
    struct memory m;
    struct bank bank;
    struct judged j;
    if (!memory_open(c, &m, 1 << 20) ||
        !make_bank(c, &bank, format, 1, HEADS * HEAD_ROWS, LATENT, false))
        return false;
    mh_op_mla_qkv op = MH_OP_INIT(mla_qkv, MLA_QKV);
    op.q = random_tensor(c, &m, 3, TOKENS, HEADS, PART + ROPE, false);
    op.kv = random_tensor(c, &m, 2, TOKENS, LATENT + ROPE, 0, false);
    op.norm = random_tensor(c, &m, 1, LATENT, 0, 0, false);
    op.table = random_tensor(c, &m, 2, PAGES * PAGE, ROPE, 0, false);
    op.y = fast_tensor(&m, MH_F32, 3, TOKENS, HEADS, LATENT + ROPE);
    op.cache = fast_tensor(&m, MH_BF16, 3, PAGES, PAGE, LATENT + ROPE);
    op.positions = fast_tensor(&m, MH_I32, 1, TOKENS, 0, 0);
    op.slots = fast_tensor(&m, MH_I32, 1, TOKENS, 0, 0);
    op.page_table = fast_tensor(&m, MH_I32, 2, 1, PAGES, 0);
    op.fault = fast_tensor(&m, MH_U32, 1, 1, 0, 0);
    op.w = bank.w, op.head_rows = HEAD_ROWS, op.eps = 1e-6f;
    for (int32_t t = 0; t < TOKENS; t++)
        ((int32_t *)memory_at(&m, &op.positions))[t] = t;
    for (int32_t i = 0; i < PAGES; i++)
        ((int32_t *)memory_at(&m, &op.page_table))[i] = PAGES - 1 - i;
    if (!fast_run(c, &m, &op.base))
        return false;
    const float *q = floats(&m, &op.q), *y = floats(&m, &op.y);
    for (int64_t h = 0; h < HEADS; h++) {
        if (!judged_open(c, &j, TOKENS, LATENT))
            return false;
        for (int64_t t = 0; t < TOKENS; t++) {
            const float *x = q + (t * HEADS + h) * (PART + ROPE);
            const float *got = y + (t * HEADS + h) * (LATENT + ROPE);
            double tail[ROPE];
            judged_add(&j, &bank, x, PART, h * HEAD_ROWS * LATENT, 1, LATENT, got);
            for (int i = 0; i < ROPE; i++)
                tail[i] = (double)got[LATENT + i];
            CHECK(rotated(tail, x + PART, floats(&m, &op.table) + t * ROPE, ROPE, 1e-6),
                  "mla_qkv: row %lld, head %lld: the rotated part is wrong", (long long)t,
                  (long long)h);
        }
        if (!judge(c, &j, false, "mla_qkv"))
            return false;
    }
    for (int64_t t = 0; t < TOKENS; t++) {
        const float *x = floats(&m, &op.kv) + t * (LATENT + ROPE);
        int64_t place = (PAGES - 1 - t / PAGE) * PAGE + t % PAGE;
        const uint16_t *row = (const uint16_t *)memory_at(&m, &op.cache) + place * (LATENT + ROPE);
        double got[LATENT + ROPE], sum = 0;
        for (int i = 0; i < LATENT + ROPE; i++)
            got[i] = conf_decode(MH_BF16, &row[i]);
        for (int i = 0; i < LATENT; i++)
            sum += (double)x[i] * (double)x[i];
        for (int i = 0; i < LATENT; i++) {
            double must = (double)x[i] / sqrt(sum / LATENT + (double)op.eps) *
                          (double)floats(&m, &op.norm)[i];
            CHECK(fabs(got[i] - must) <= fabs(must) / 256,
                  "mla_qkv: row %lld of the cache, element %d: %.9g, must be near %.9g",
                  (long long)t, i, got[i], must);
        }
        CHECK(rotated(got + LATENT, x + LATENT, floats(&m, &op.table) + t * ROPE, ROPE, 1.0 / 256),
              "mla_qkv: row %lld of the cache: the rotated part is wrong", (long long)t);
    }
    return true;
}

/* ---- attention ---- */

/* Rows of three sequences, pages in a wild order, some not there where nothing is to be read; one
 * row is padding, one names no sequence. The operands are queries and cache in bf16; a row's energy
 * is that of its weighted keys. */
static bool attention_of(struct core *c, int64_t heads, const int32_t *positions, int64_t tokens)
{
    enum {
        LATENT = 512,
        WIDTH = 576,
        PAGE = 16,
        SLOTS = 3,
        PAGES_OF = 41,
        PAGES = SLOTS * PAGES_OF
    };
    struct memory m;
    struct judged j;
    if (!memory_open(c, &m, 5 << 20))
        return false;
    mh_op_attention op = MH_OP_INIT(attention, ATTENTION);
    op.q = random_tensor(c, &m, 3, tokens, heads, WIDTH, false);
    op.y = fast_tensor(&m, MH_F32, 3, tokens, heads, LATENT);
    op.cache = fast_tensor(&m, MH_BF16, 3, PAGES, PAGE, WIDTH);
    op.positions = fast_tensor(&m, MH_I32, 1, tokens, 0, 0);
    op.slots = fast_tensor(&m, MH_I32, 1, tokens, 0, 0);
    op.page_table = fast_tensor(&m, MH_I32, 2, SLOTS, PAGES_OF, 0);
    op.fault = fast_tensor(&m, MH_U32, 1, 1, 0, 0), op.scale = 0.11f;
    uint16_t *cache = memory_at(&m, &op.cache);
    int32_t *slots = memory_at(&m, &op.slots), *pages = memory_at(&m, &op.page_table);
    for (int64_t i = 0; i < PAGES * PAGE * WIDTH; i++)
        cache[i] = conf_to_bf16(conf_uniform(&c->random));
    for (int32_t i = 0; i < PAGES; i++)
        pages[i] = i * 7 % PAGES;
    for (int64_t t = 0; t < tokens; t++) {
        ((int32_t *)memory_at(&m, &op.positions))[t] = positions[t];
        slots[t] = t == 6 ? -1 : t == 7 ? SLOTS : t < 4 ? 1 : (int32_t)(t % SLOTS);
    }
    for (int64_t i = 0; tokens > 1 && i < PAGES_OF; i++) /* behind what is read */
        pages[PAGES_OF + i] = i > 130 / PAGE ? -1 : pages[PAGES_OF + i];
    for (int64_t i = 0; i < tokens * heads * LATENT; i++)
        floats(&m, &op.y)[i] = 77;
    if (!fast_run(c, &m, &op.base) || !judged_open(c, &j, tokens * heads, LATENT))
        return false;
    for (int64_t i = 0; i < tokens * heads; i++) {
        const float *q = floats(&m, &op.q) + i * WIDTH, *y = floats(&m, &op.y) + i * LATENT;
        int64_t t = i / heads;
        double weights[PAGE * PAGES_OF], sum = 0;
        const uint16_t *rows[PAGE * PAGES_OF];
        bool none = slots[t] < 0 || slots[t] >= SLOTS;
        for (int64_t o = 0; none && o < LATENT; o++)
            CHECK(y[o] == 77, "attention: row %lld has no sequence and was written", (long long)t);
        for (int64_t k = 0; !none && k <= positions[t]; k++) {
            double dot = 0;
            rows[k] = cache + (pages[slots[t] * PAGES_OF + k / PAGE] * PAGE + k % PAGE) * WIDTH;
            for (int64_t o = 0; o < WIDTH; o++) {
                uint16_t half = conf_to_bf16(q[o]);
                dot += conf_decode(MH_BF16, &half) * conf_decode(MH_BF16, &rows[k][o]);
            }
            sum += weights[k] = exp(dot * (double)op.scale);
        }
        int64_t to = j.rows * LATENT;
        for (int64_t o = 0; !none && o < LATENT; o++) {
            j.got[to + o] = y[o];
            j.exact[0][to + o] = j.energy[0][to + o] = 0;
            for (int64_t k = 0; k <= positions[t]; k++) {
                double term = weights[k] / sum * conf_decode(MH_BF16, &rows[k][o]);
                j.exact[0][to + o] += term, j.energy[0][to + o] += term * term;
            }
        }
        j.p[0].rows = j.rows += !none;
    }
    CHECK(tokens < 8 || *(uint32_t *)memory_at(&m, &op.fault) == MH_BAD_INDEX,
          "attention: a row of no sequence set no fault");
    return judge(c, &j, false, "attention");
}

static bool attention(struct core *c)
{
    static const int32_t few[] = {128, 129, 130, 3, 63, 64, 5, 6, 655}, one[] = {575};
    return attention_of(c, 16, few, 9) && attention_of(c, 5, few, 9) && attention_of(c, 70, one, 1);
}

static bool fused(struct core *c, mh_format format)
{
    return linear_swiglu(c, format, TOKENS) && linear_swiglu(c, format, 100) &&
           moe_gate_up(c, format) && linear_add(c, format, OUTPUTS) && linear_add(c, format, 136) &&
           moe_down_combine(c, format) && norm_linear(c, format) && mla_qkv(c, format);
}

static bool fused_f32(struct core *c)
{
    return fused(c, MH_FORMAT_F32);
}

static bool fused_f16(struct core *c)
{
    return fused(c, MH_FORMAT_F16);
}

static bool fused_bf16(struct core *c)
{
    return fused(c, MH_FORMAT_BF16);
}

static bool fused_fp8(struct core *c)
{
    return fused(c, MH_FORMAT_FP8);
}

const struct core_case core_fast_fused[] = {
    {"fast/fused f32", fused_f32}, {"fast/fused f16", fused_f16}, {"fast/fused bf16", fused_bf16},
    {"fast/fused fp8", fused_fp8}, {"fast/attention", attention}, {NULL, NULL},
};
