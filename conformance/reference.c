#include "reference.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "values.h"

/* ---- numbers with bounds ---- */

#define HALF_ULP 0x1p-24 /* of f32, relative */
#define LEAST 0x1p-149   /* f32's smallest step */

struct num rounded(double v, double b)
{
    if (isnan(b) && !isnan(v))
        b = INFINITY; /* infinity times zero: nothing is known */
    return (struct num){v, b + (fabs(v) + b) * HALF_ULP + LEAST};
}

struct num num_add(struct num a, struct num b)
{
    return rounded(a.v + b.v, a.b + b.b);
}

struct num num_mul(struct num a, struct num b)
{
    return rounded(a.v * b.v, fabs(a.v) * b.b + fabs(b.v) * a.b + a.b * b.b);
}

/* Rule 5: off by at most one ulp; below -87 it is 0, above its limit infinite. */
struct num num_exp(struct num a)
{
    double v = exp(a.v);
    struct num n = rounded(v, v * expm1(a.b) + v * 2 * HALF_ULP);
    if (a.v - a.b < -86.9)
        n.b += 2e-38;
    if (a.v + a.b > 88.7)
        n.b = INFINITY;
    return n;
}

struct num num_rcp(struct num a)
{
    double v = 1 / a.v, low = fabs(a.v) - a.b;
    return rounded(v, low > 0 ? a.b / (fabs(a.v) * low) : INFINITY);
}

struct num num_sqrt(struct num a)
{
    double v = sqrt(a.v);
    return rounded(v, a.v > 0 ? a.b / v : sqrt(a.b));
}

struct num num_sigmoid(struct num a)
{
    struct num z = {-a.v, a.b};
    if (z.v > 87)
        z.v = 87;
    return num_rcp(num_add(exactly(1), num_exp(z)));
}

struct num num_swiglu(struct num gate, struct num up)
{
    return num_mul(num_mul(gate, num_sigmoid(gate)), up);
}

struct num num_dot(const struct num *x, const double *w, int64_t count)
{
    double sum = 0, magnitude = 0, inherited = 0;
    for (int64_t k = 0; k < count; k++) {
        double term = x[k].v * w[k];
        sum += term;
        magnitude += fabs(term);
        inherited += x[k].b * fabs(w[k]);
    }
    /* Each stripe takes K / 64 steps, the fold six more, the last addition one. Near zero every
     * step of every stripe may be half the smallest number off. */
    int64_t steps = (count + 63) / 64 + 7;
    struct num n = {sum, inherited + (double)steps * magnitude * HALF_ULP * 1.01 +
                             (double)(count + 1) * LEAST / 2};
    if (magnitude > (double)FLT_MAX && !isnan(sum))
        n.b = INFINITY; /* a partial sum may overflow */
    return n;
}

/* ---- access ---- */

static int operand_index(const struct conf_reference *r, const char *name)
{
    for (uint32_t i = 0; i < r->b->operand_count; i++)
        if (!strcmp(r->b->operands[i].info.name, name))
            return (int)i;
    return -1;
}

bool has(const struct conf_reference *r, const char *operand)
{
    return operand_index(r, operand) >= 0;
}

int64_t size_of(const struct conf_reference *r, char letter)
{
    return r->b->c->dim[(unsigned char)letter];
}

double input(const struct conf_reference *r, const char *operand, int64_t i, int64_t j, int64_t k)
{
    return conf_value(r->b, &r->b->operands[operand_index(r, operand)], i, j, k);
}

int32_t index_of(const struct conf_reference *r, const char *operand, int64_t i, int64_t j)
{
    return conf_index(r->b, &r->b->operands[operand_index(r, operand)], i, j);
}

struct expect *expect_at(struct conf_reference *r, const char *operand, int64_t i, int64_t j,
                         int64_t k)
{
    int o = operand_index(r, operand);
    const struct conf_operand *view = &r->b->operands[o];
    int64_t index = i;
    if (view->view.rank > 1)
        index = index * view->view.shape[1] + j;
    if (view->view.rank > 2)
        index = index * view->view.shape[2] + k;
    return &r->of[o][index];
}

void expect_num(struct conf_reference *r, const char *operand, int64_t i, int64_t j, int64_t k,
                struct num n)
{
    struct expect *e = expect_at(r, operand, i, j, k);
    bool overflow = fabs(n.v) + n.b > (double)FLT_MAX || isnan(n.b);
    *e = (struct expect){.value = n.v, .bound = n.b, .kind = EXPECT_NUMBER};
    if (overflow && !(isinf(n.v) && !n.b))
        e->kind = isnan(n.v) ? EXPECT_NUMBER : EXPECT_ANYTHING;
}

void expect_sum(struct conf_reference *r, const char *operand, int64_t i, int64_t j, int64_t k,
                struct num n)
{
    expect_num(r, operand, i, j, k, n);
    expect_at(r, operand, i, j, k)->no_minus_zero = true;
}

void expect_bits(struct conf_reference *r, const char *operand, int64_t i, int64_t j, int64_t k,
                 uint32_t bits)
{
    *expect_at(r, operand, i, j, k) = (struct expect){.bits = bits, .kind = EXPECT_BITS};
}

static void expect_float(struct conf_reference *r, const char *operand, int64_t i, int64_t j,
                         int64_t k, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    expect_bits(r, operand, i, j, k, bits);
}

/* ---- what several ops share ---- */

/* Room for the longest vector of an op. */
struct work {
    struct num *x;
    double *w;
};

static int64_t longest(const struct conf_reference *r)
{
    int64_t most = 1;
    for (int i = 'A'; i <= 'Z'; i++)
        most = r->b->c->dim[i] > most ? r->b->c->dim[i] : most;
    return most;
}

static void load_row(const struct conf_reference *r, const char *operand, int64_t i, int64_t j,
                     bool by_head, int64_t count, struct num *x)
{
    for (int64_t k = 0; k < count; k++)
        x[k] = exactly(by_head ? input(r, operand, i, j, k) : input(r, operand, i, k, 0));
}

/* Rows of `name` against x, one number a row. */
static struct num row_dot(const struct conf_reference *r, const struct work *work, const char *name,
                          int64_t expert, int64_t row, const struct num *x)
{
    const struct conf_weight *w = conf_find_weight(r->b, name);
    if (conf_row_is_zero(w, expert * w->out + row))
        return exactly(0);
    conf_weight_row(w, expert, row, work->w);
    return num_dot(x, work->w, w->in);
}

/* ---- moving ---- */

static void reference_embed(struct conf_reference *r, const struct work *work)
{
    const struct conf_weight *table = conf_find_weight(r->b, "table");
    for (int64_t t = 0; t < size_of(r, 'T'); t++) {
        int32_t token = index_of(r, "tokens", t, 0);
        if (token < 0 || token >= table->out) {
            r->fault = true;
            continue;
        }
        conf_weight_row(table, 0, token, work->w);
        for (int64_t d = 0; d < table->in; d++)
            expect_float(r, "y", t, d, 0, (float)work->w[d]);
    }
}

/* A row-major index into any strided operand. */
static const uint8_t *at_index(const struct conf_reference *r, const struct conf_operand *o,
                               int64_t index)
{
    return r->b->image[o->buffer] + conf_element(o, index);
}

static void reference_move(struct conf_reference *r)
{
    const struct conf_operand *y = conf_find(r->b, "y"), *x = conf_find(r->b, "x");
    struct expect *e = r->of[operand_index(r, "y")];
    uint64_t size = mh_dtype_size(y->view.dtype);
    for (int64_t i = 0, n = conf_count(y); i < n; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): y is written */
        e[i].kind = EXPECT_BITS;
        e[i].bits = 0;
        if (r->b->c->op == MH_OP_FILL) {
            e[i].bits = size == 2 ? r->b->op.fill.bits & 0xFFFF : r->b->op.fill.bits;
        } else if (r->b->c->op == MH_OP_COPY) {
            memcpy(&e[i].bits, at_index(r, x, i), size);
        } else {
            float value = (float)conf_decode(x->view.dtype, at_index(r, x, i));
            if (y->view.dtype == MH_F32)
                memcpy(&e[i].bits, &value, 4);
            else
                e[i].bits = y->view.dtype == MH_F16 ? conf_to_f16(value) : conf_to_bf16(value);
        }
    }
}

static void reference_add(struct conf_reference *r)
{
    for (int64_t t = 0; t < size_of(r, 'T'); t++)
        for (int64_t n = 0; n < size_of(r, 'N'); n++)
            expect_float(r, "y", t, n, 0, (float)(input(r, "a", t, n, 0) + input(r, "b", t, n, 0)));
}

static void reference_swiglu(struct conf_reference *r)
{
    for (int64_t t = 0; t < size_of(r, 'T'); t++)
        for (int64_t n = 0; n < size_of(r, 'N'); n++)
            expect_num(
                r, "y", t, n, 0,
                num_swiglu(exactly(input(r, "gate", t, n, 0)), exactly(input(r, "up", t, n, 0))));
}

/* ---- norms and linear layers ---- */

void num_norm(const struct conf_reference *r, const char *weight, struct num *x, int64_t size,
              float eps, double *squares)
{
    for (int64_t k = 0; k < size; k++)
        squares[k] = x[k].v;
    struct num sum = num_dot(x, squares, size);
    struct num scaled = num_mul(sum, exactly((double)(float)(1.0 / (double)size)));
    struct num factor = num_rcp(num_sqrt(num_add(scaled, exactly((double)eps))));
    for (int64_t k = 0; k < size; k++) {
        x[k] = num_mul(num_mul(x[k], factor), exactly(input(r, weight, k, 0, 0)));
        if (isfinite(x[k].v) && fabs(x[k].v) + x[k].b > (double)FLT_MAX)
            x[k].b = INFINITY; /* it may be infinite, in f32 */
    }
}

static void reference_rmsnorm(struct conf_reference *r, const struct work *work)
{
    int64_t size = size_of(r, 'D');
    bool fused = has(r, "residual");
    for (int64_t t = 0; t < size_of(r, 'T'); t++) {
        load_row(r, "x", t, 0, false, size, work->x);
        for (int64_t d = 0; fused && d < size; d++) {
            float sum = (float)(work->x[d].v + input(r, "residual", t, d, 0));
            work->x[d] = exactly((double)sum);
            expect_float(r, "sum", t, d, 0, sum);
        }
        num_norm(r, "w", work->x, size, r->b->op.rmsnorm.eps, work->w);
        for (int64_t d = 0; d < size; d++)
            expect_num(r, "y", t, d, 0, work->x[d]);
    }
}

static void reference_linear(struct conf_reference *r, const struct work *work)
{
    mh_op_id op = r->b->c->op;
    bool gated = op == MH_OP_LINEAR_SWIGLU;
    int64_t out = size_of(r, gated ? 'N' : 'O'), in = size_of(r, 'I'), rows = size_of(r, 'T');
    const struct conf_weight *w = conf_find_weight(r->b, gated ? "gate" : "w");
    const struct conf_weight *up = gated ? conf_find_weight(r->b, "up") : NULL;
    struct num *x = calloc((size_t)(rows * in) + 1, sizeof(*x));
    double *up_row = calloc((size_t)in, sizeof(*up_row));
    for (int64_t t = 0; x && t < rows; t++)
        load_row(r, "x", t, 0, false, in, x + t * in);
    for (int64_t o = 0; x && up_row && o < out; o++) {
        bool zero = conf_row_is_zero(w, o);
        if (!zero)
            conf_weight_row(w, 0, o, work->w);
        if (!zero && gated)
            conf_weight_row(up, 0, o, up_row);
        for (int64_t t = 0; t < rows; t++) {
            struct num y = zero ? exactly(0) : num_dot(x + t * in, work->w, in);
            if (gated && !zero)
                y = num_swiglu(y, num_dot(x + t * in, up_row, in));
            if (op == MH_OP_LINEAR_ADD)
                y = num_add(exactly(input(r, "residual", t, o, 0)), y);
            (op == MH_OP_LINEAR ? expect_sum : expect_num)(r, "y", t, o, 0, y);
        }
    }
    free(x);
    free(up_row);
}

/* Rows of weight `name` against the normed rows x, [T, in]. */
static void expect_linear(struct conf_reference *r, const struct work *work, const char *name,
                          const char *y, const struct num *x)
{
    const struct conf_weight *w = conf_find_weight(r->b, name);
    for (int64_t o = 0; w && o < w->out; o++) {
        bool zero = conf_row_is_zero(w, o);
        if (!zero)
            conf_weight_row(w, 0, o, work->w);
        for (int64_t t = 0; t < size_of(r, 'T'); t++)
            expect_sum(r, y, t, o, 0, zero ? exactly(0) : num_dot(x + t * w->in, work->w, w->in));
    }
}

static void reference_norm_linear(struct conf_reference *r, const struct work *work)
{
    int64_t in = size_of(r, 'I'), rows = size_of(r, 'T');
    struct num *x = calloc((size_t)(rows * in) + 1, sizeof(*x));
    for (int64_t t = 0; x && t < rows; t++) {
        load_row(r, "x", t, 0, false, in, x + t * in);
        num_norm(r, "norm", x + t * in, in, r->b->op.norm_linear.eps, work->w);
    }
    if (x) {
        expect_linear(r, work, "w", "y", x);
        expect_linear(r, work, "w2", "y2", x);
    }
    free(x);
}

/* What the router's choice is made from; the choice is judged afterwards. */
static void reference_norm_router(struct conf_reference *r, const struct work *work)
{
    int64_t in = size_of(r, 'I');
    reference_router(r);
    for (int64_t t = 0; t < size_of(r, 'T'); t++) {
        load_row(r, "x", t, 0, false, in, work->x);
        num_norm(r, "norm", work->x, in, r->b->op.norm_router.eps, work->w);
        for (int64_t k = 0; k < in; k++)
            expect_num(r, "y", t, k, 0, work->x[k]);
    }
}

/* ---- latent attention ---- */

/* Rule 7 on x[0 .. size), with the table's row. */
static void rotate(const struct conf_reference *r, int64_t position, struct num *x, int64_t size)
{
    for (int64_t i = 0; i < size / 2; i++) {
        struct num c = exactly(input(r, "table", position, i, 0));
        struct num s = exactly(input(r, "table", position, size / 2 + i, 0));
        struct num a = x[2 * i], b = x[2 * i + 1], minus_s = {-s.v, s.b};
        x[2 * i] = num_add(num_mul(a, c), num_mul(b, minus_s));
        x[2 * i + 1] = num_add(num_mul(a, s), num_mul(b, c));
    }
}

static bool position_is_in_table(struct conf_reference *r, int64_t t)
{
    int32_t position = index_of(r, "positions", t, 0);
    bool inside = position >= 0 && position < size_of(r, 'X');
    r->fault |= !inside;
    return inside;
}

static void reference_rope(struct conf_reference *r, const struct work *work)
{
    int64_t size = size_of(r, 'R');
    for (int64_t t = 0; t < size_of(r, 'T'); t++) {
        if (!position_is_in_table(r, t))
            continue;
        for (int64_t h = 0; h < size_of(r, 'H'); h++) {
            load_row(r, "x", t, h, true, size, work->x);
            rotate(r, index_of(r, "positions", t, 0), work->x, size);
            for (int64_t k = 0; k < size; k++)
                expect_num(r, "y", t, h, k, work->x[k]);
        }
    }
}

/* The page of a position, -1: there is none (a fault), -2: the row is padding. */
static int64_t find_page(struct conf_reference *r, int64_t slot, int64_t position)
{
    int64_t page = -1;
    if (slot == -1)
        return -2;
    if (slot >= 0 && slot < size_of(r, 'Q') && position >= 0 &&
        position / size_of(r, 'P') < size_of(r, 'M'))
        page = index_of(r, "page_table", slot, position / size_of(r, 'P'));
    if (page < 0 || page >= size_of(r, 'G'))
        page = -1;
    r->fault |= page < 0;
    return page;
}

/* One element of the cache, rounded to its dtype. */
static void expect_cached(struct conf_reference *r, int64_t page, int64_t row, int64_t k,
                          struct num n)
{
    const struct conf_operand *cache = conf_find(r->b, "cache");
    float value = (float)n.v;
    if (!n.b && cache->view.dtype == MH_F32) {
        expect_float(r, "cache", page, row, k, value);
    } else if (!n.b) {
        expect_bits(r, "cache", page, row, k, conf_to_bf16(value));
    } else {
        if (cache->view.dtype == MH_BF16)
            n.b += (fabs(n.v) + n.b) * 0x1p-8 + 0x1p-134;
        expect_num(r, "cache", page, row, k, n);
    }
}

static void reference_cache(struct conf_reference *r, const struct work *work)
{
    int64_t latent = size_of(r, 'L'), rotary = size_of(r, 'R');
    bool fused = r->b->c->op != MH_OP_KV_WRITE;
    float eps = r->b->c->op == MH_OP_MLA_KV ? r->b->op.mla_kv.eps : r->b->op.mla_qkv.eps;
    for (int64_t t = 0; t < size_of(r, 'T'); t++) {
        int32_t position = index_of(r, "positions", t, 0);
        int64_t page = find_page(r, index_of(r, "slots", t, 0), position);
        if (fused && (position < 0 || position >= size_of(r, 'X')))
            r->fault = true;
        if (page < 0)
            continue;
        if (fused) {
            load_row(r, "kv", t, 0, false, latent + rotary, work->x);
            num_norm(r, "norm", work->x, latent, eps, work->w);
            rotate(r, position, work->x + latent, rotary);
        } else {
            load_row(r, "latent", t, 0, false, latent, work->x);
            load_row(r, "rope", t, 0, false, rotary, work->x + latent);
        }
        for (int64_t k = 0; k < latent + rotary; k++)
            expect_cached(r, page, position % size_of(r, 'P'), k, work->x[k]);
    }
}

/* Softmax of one head of one row over some keys, in f64, before any division. */
struct softmax {
    double most, worst; /* the largest score; how far scores may be off: infinite where one is not
                           finite, when which NaN or infinity wins is the rule's order to say */
    double sum, relative;
};

static struct softmax weigh(struct conf_reference *r, const struct work *work, int64_t t, int64_t h,
                            int64_t begin, int64_t end, float scale, double *weights)
{
    int64_t width = size_of(r, 'K'), page_size = size_of(r, 'P');
    int32_t slot = index_of(r, "slots", t, 0);
    struct softmax x = {.most = -INFINITY};
    load_row(r, "q", t, h, true, width, work->x);
    for (int64_t key = begin; key < end; key++) {
        int32_t page = index_of(r, "page_table", slot, key / page_size);
        for (int64_t k = 0; k < width; k++)
            work->w[k] = input(r, "cache", page, key % page_size, k);
        struct num s = num_mul(num_dot(work->x, work->w, width), exactly((double)scale));
        weights[key] = s.v;
        x.most = fmax(x.most, s.v);
        x.worst = isfinite(s.v) ? fmax(x.worst, s.b + 2 * fabs(s.v) * HALF_ULP) : INFINITY;
    }
    for (int64_t key = begin; key < end; key++)
        x.sum += weights[key] = exp(weights[key] - x.most);
    /* A weight is off by its score's and the maximum's error, and by the roundings of exp, of the
     * rescalings and of the merges; those are fewer than 8 for each 64 keys. */
    int64_t roundings = (end - begin) / 8 + 40;
    x.relative = expm1(2 * x.worst) + (double)roundings * 2 * HALF_ULP;
    return x;
}

/* Column d of the keys, weighted; its bound. */
static struct num weighted(struct conf_reference *r, int64_t t, int64_t begin, int64_t end,
                           int64_t d, const struct softmax *x, const double *weights)
{
    int64_t page_size = size_of(r, 'P');
    double value = 0, magnitude = 0;
    for (int64_t key = begin; key < end; key++) {
        int32_t page = index_of(r, "page_table", index_of(r, "slots", t, 0), key / page_size);
        double term = weights[key] * input(r, "cache", page, key % page_size, d);
        value += term;
        magnitude += fabs(term);
    }
    return (struct num){value, 2 * x->relative * magnitude};
}

static void attend(struct conf_reference *r, const struct work *work, int64_t t, int64_t h,
                   int64_t keys, double *weights)
{
    struct softmax x = weigh(r, work, t, h, 0, keys, r->b->op.attention.scale, weights);
    for (int64_t d = 0; d < size_of(r, 'L'); d++) {
        struct num o = weighted(r, t, 0, keys, d, &x, weights);
        struct num y = {o.v / x.sum, o.b / x.sum + 64 * LEAST};
        if (!isfinite(x.worst))
            y.b = INFINITY;
        expect_sum(r, "y", t, h, d, y);
        if (!isfinite(x.worst))
            expect_at(r, "y", t, h, d)->kind = EXPECT_ANYTHING;
    }
}

/* [o | m | l] of the keys of a segment. */
static void attend_segment(struct conf_reference *r, const struct work *work, int64_t t, int64_t h,
                           int64_t index, int64_t begin, int64_t end, double *weights)
{
    int64_t latent = size_of(r, 'L'), width = latent + 2;
    struct softmax x = weigh(r, work, t, h, begin, end, r->b->op.attention_part.scale, weights);
    struct expect *row = r->of[operand_index(r, "y")] +
                         ((t * size_of(r, 'H') + h) * size_of(r, 'S') + index) * width;
    for (int64_t d = 0; d < width; d++) {
        struct num n = d < latent    ? weighted(r, t, begin, end, d, &x, weights)
                       : d == latent ? (struct num){x.most, x.worst}
                                     : (struct num){x.sum, x.sum * x.relative};
        row[d] = (struct expect){.value = n.v, .bound = n.b + 64 * LEAST, .kind = EXPECT_NUMBER};
        row[d].no_minus_zero = d == latent;
        if (!isfinite(x.worst) || fabs(n.v) + n.b > (double)FLT_MAX)
            row[d].kind = EXPECT_ANYTHING;
    }
}

/* Every page of keys [begin, end) of row t is there. */
static bool has_pages(struct conf_reference *r, int64_t t, int64_t begin, int64_t end)
{
    int64_t page = 0, size = size_of(r, 'P');
    for (int64_t p = begin / size; page >= 0 && p <= (end - 1) / size; p++)
        page = find_page(r, index_of(r, "slots", t, 0), p * size);
    return page >= 0;
}

/* Slot and position of row t are in range. */
static bool has_place(struct conf_reference *r, int64_t t)
{
    int32_t slot = index_of(r, "slots", t, 0), position = index_of(r, "positions", t, 0);
    bool good = slot >= 0 && slot < size_of(r, 'Q') && position >= 0 &&
                position < size_of(r, 'M') * size_of(r, 'P');
    r->fault |= !good && slot != -1;
    return good;
}

static void reference_attention(struct conf_reference *r, const struct work *work)
{
    int64_t room = size_of(r, 'M') * size_of(r, 'P');
    double *weights = malloc((size_t)room * sizeof(*weights));
    for (int64_t t = 0; weights && t < size_of(r, 'T'); t++) {
        int64_t keys = (int64_t)index_of(r, "positions", t, 0) + 1;
        if (has_place(r, t) && has_pages(r, t, 0, keys))
            for (int64_t h = 0; h < size_of(r, 'H'); h++)
                attend(r, work, t, h, keys, weights);
    }
    free(weights);
}

static void reference_attention_part(struct conf_reference *r, const struct work *work)
{
    const mh_op_attention_part *o = &r->b->op.attention_part;
    int64_t room = size_of(r, 'M') * size_of(r, 'P');
    double *weights = malloc((size_t)room * sizeof(*weights));
    for (int64_t t = 0; weights && t < size_of(r, 'T'); t++) {
        int64_t keys = (int64_t)index_of(r, "positions", t, 0) + 1;
        if (!has_place(r, t))
            continue;
        for (int64_t j = 0; j < size_of(r, 'S'); j++) {
            int64_t begin = (o->first + j * o->stride) * 256;
            int64_t end = keys < begin + 256 ? keys : begin + 256;
            if (begin < end && has_pages(r, t, begin, end))
                for (int64_t h = 0; h < size_of(r, 'H'); h++)
                    attend_segment(r, work, t, h, j, begin, end, weights);
        }
    }
    free(weights);
}

/* Element d of segment g, of row t and head h. */
static double segment_value(struct conf_reference *r, int64_t t, int64_t h, int64_t g, int64_t d)
{
    int64_t parts = size_of(r, 'N'), width = size_of(r, 'W');
    int64_t row = ((g % parts * size_of(r, 'T') + t) * size_of(r, 'H') + h) * size_of(r, 'S');
    const struct conf_operand *x = &r->b->operands[operand_index(r, "x")];
    return conf_decode(MH_F32, at_index(r, x, (row + g / parts) * width + d));
}

/* What all segments come to, each scaled by exp(m - the largest m). */
static void reference_attention_merge(struct conf_reference *r)
{
    int64_t latent = size_of(r, 'L');
    for (int64_t t = 0; t < size_of(r, 'T'); t++) {
        int32_t position = index_of(r, "positions", t, 0);
        int64_t segments = position / 256 + 1;
        if (position < 0 || segments > size_of(r, 'N') * size_of(r, 'S')) {
            r->fault = true;
            continue;
        }
        for (int64_t h = 0; h < size_of(r, 'H'); h++) {
            double most = -INFINITY;
            bool finite = true;
            for (int64_t g = 0; g < segments; g++)
                most = fmax(most, segment_value(r, t, h, g, latent));
            struct num l = {0, 0};
            for (int64_t d = latent; d >= 0; d--) { /* the sum of exp first */
                int64_t column = d == latent ? latent + 1 : d;
                double sum = 0, magnitude = 0;
                for (int64_t g = 0; g < segments; g++) {
                    double m = segment_value(r, t, h, g, latent);
                    double term = segment_value(r, t, h, g, column) * exp(m - most);
                    finite &= isfinite(m) && isfinite(term) && fabs(term) < 1e37;
                    sum += term, magnitude += fabs(term);
                }
                /* Each merge rounds a difference of maxima, its exp, and two products. Below -87
                 * exp is 0. */
                double off = (double)segments * (180 + 8) * HALF_ULP;
                struct num n = {sum, magnitude * off + (double)segments * 4e-38 * (1 + magnitude)};
                if (column > latent) {
                    l = n;
                    continue;
                }
                if (segments == 1)
                    n.b = 0, l.b = 0;
                expect_sum(r, "y", t, h, d, num_add(num_mul(n, num_rcp(l)), exactly(0)));
                if (!finite || fabs(l.v) < 1e-30)
                    expect_at(r, "y", t, h, d)->kind = EXPECT_ANYTHING;
            }
        }
    }
}

/* Rows first .. first + count - 1 of w, decoded: [count, in]. */
static double *decode_rows(const struct conf_reference *r, int64_t first, int64_t count)
{
    const struct conf_weight *w = conf_find_weight(r->b, "w");
    double *rows = calloc((size_t)(count * w->in), sizeof(*rows));
    for (int64_t i = 0; rows && i < count; i++)
        conf_weight_row(w, 0, first + i, rows + i * w->in);
    return rows;
}

/* Column c of `count` rows of width `in`, against x. */
static struct num column_dot(const struct work *work, const double *rows, int64_t count, int64_t in,
                             int64_t c, const struct num *x)
{
    for (int64_t i = 0; i < count; i++)
        work->w[i] = rows[i * in + c];
    return num_dot(x, work->w, count);
}

static void reference_head_linear(struct conf_reference *r, const struct work *work)
{
    const mh_op_head_linear *o = &r->b->op.head_linear;
    int64_t in = size_of(r, 'B');
    for (int64_t h = 0; h < size_of(r, 'H'); h++) {
        double *rows = decode_rows(r, h * o->head_rows + o->row_begin, o->row_count);
        for (int64_t t = 0; rows && t < size_of(r, 'T'); t++) {
            load_row(r, "x", t, h, true, size_of(r, 'N'), work->x);
            for (int64_t m = 0; m < size_of(r, 'M'); m++)
                expect_sum(r, "y", t, h, m,
                           o->transposed ? column_dot(work, rows, o->row_count, in, m, work->x)
                                         : num_dot(work->x, rows + m * in, in));
        }
        free(rows);
    }
}

static void reference_mla_query(struct conf_reference *r, const struct work *work)
{
    int64_t nope = size_of(r, 'N'), latent = size_of(r, 'L'), rotary = size_of(r, 'R');
    for (int64_t h = 0; h < size_of(r, 'H'); h++) {
        double *rows = decode_rows(r, h * (nope + size_of(r, 'U')), nope);
        for (int64_t t = 0; rows && t < size_of(r, 'T'); t++) {
            load_row(r, "q", t, h, true, nope + rotary, work->x);
            for (int64_t c = 0; c < latent; c++)
                expect_sum(r, "y", t, h, c, column_dot(work, rows, nope, latent, c, work->x));
            if (!position_is_in_table(r, t))
                continue;
            rotate(r, index_of(r, "positions", t, 0), work->x + nope, rotary);
            for (int64_t k = 0; k < rotary; k++)
                expect_num(r, "y", t, h, latent + k, work->x[nope + k]);
        }
        free(rows);
    }
}

/* ---- experts ---- */

/* Where the expert of a slot lies; -1 elsewhere, -2 nowhere (a fault). */
static int64_t find_expert(struct conf_reference *r, int64_t t, int64_t j)
{
    int32_t e = index_of(r, "experts", t, j);
    if (e < 0 || e >= size_of(r, 'E'))
        return -2;
    int64_t slot = has(r, "expert_map") ? index_of(r, "expert_map", e, 0) : e;
    bool limited = r->b->c->op != MH_OP_COMBINE || has(r, "expert_map");
    return slot < -1 || (limited && slot >= size_of(r, 'S')) ? -2 : slot;
}

/* The shared experts' half of moe_gate_up. */
static void reference_shared(struct conf_reference *r, const struct work *work, int64_t t)
{
    load_row(r, "x", t, 0, false, size_of(r, 'D'), work->x);
    for (int64_t n = 0; n < size_of(r, 'N'); n++)
        expect_num(r, "shared_y", t, n, 0,
                   num_swiglu(row_dot(r, work, "shared_gate", 0, n, work->x),
                              row_dot(r, work, "shared_up", 0, n, work->x)));
}

static void reference_experts(struct conf_reference *r, const struct work *work)
{
    bool up = r->b->c->op != MH_OP_EXPERTS_DOWN;
    int64_t out = size_of(r, up ? 'I' : 'D'), in = size_of(r, up ? 'D' : 'I');
    for (int64_t t = 0; t < size_of(r, 'T'); t++) {
        for (int64_t j = 0; j < size_of(r, 'J'); j++) {
            int64_t slot = find_expert(r, t, j);
            r->fault |= slot == -2;
            if (slot < 0)
                continue;
            load_row(r, "x", t, j, !up, in, work->x);
            for (int64_t o = 0; o < out; o++)
                (up ? expect_num
                    : expect_sum)(r, "y", t, j, o,
                                  up ? num_swiglu(row_dot(r, work, "gate", slot, o, work->x),
                                                  row_dot(r, work, "up", slot, o, work->x))
                                     : row_dot(r, work, "w", slot, o, work->x));
        }
        if (has(r, "shared_y"))
            reference_shared(r, work, t);
    }
}

/* Rule 9 on element d of row t; the slots' values are `stride` apart. */
static void combine_element(struct conf_reference *r, int64_t t, int64_t d, struct num shared,
                            const struct num *e, int64_t stride)
{
    struct num acc = shared;
    double magnitude = fabs(acc.v);
    for (int64_t j = 0; j < size_of(r, 'J'); j++) {
        double w = input(r, "weights", t, j, 0);
        acc = rounded(acc.v + w * e[j * stride].v, acc.b + fabs(w) * e[j * stride].b);
        magnitude += fabs(w * e[j * stride].v);
    }
    if (magnitude > (double)FLT_MAX && !isnan(acc.v))
        acc.b = INFINITY; /* a partial sum may overflow */
    expect_num(r, "y", t, d, 0, num_add(exactly(input(r, "h", t, d, 0)), acc));
}

static bool row_is_whole(struct conf_reference *r, int64_t t)
{
    bool whole = true;
    for (int64_t j = 0; has(r, "experts") && j < size_of(r, 'J'); j++)
        whole &= find_expert(r, t, j) >= 0;
    r->fault |= !whole;
    return whole;
}

/* What the slots of a row hold: [J, D]. */
static void slot_values(struct conf_reference *r, const struct work *work, int64_t t, struct num *e)
{
    bool fused = r->b->c->op != MH_OP_COMBINE;
    int64_t width = size_of(r, 'D');
    for (int64_t j = 0; j < size_of(r, 'J'); j++) {
        if (fused)
            load_row(r, "x", t, j, true, size_of(r, 'I'), work->x);
        for (int64_t d = 0; d < width; d++)
            e[j * width + d] = fused ? row_dot(r, work, "w", find_expert(r, t, j), d, work->x)
                                     : exactly(input(r, "e", t, j, d));
    }
}

/* What the sum begins with; work->x is the row of shared_x, where there is one. */
static struct num shared_value(struct conf_reference *r, const struct work *work, int64_t t,
                               int64_t d)
{
    if (!has(r, "shared_x"))
        return exactly(has(r, "shared") ? input(r, "shared", t, d, 0) : 0);
    return row_dot(r, work, "shared_w", 0, d, work->x);
}

static void reference_combine(struct conf_reference *r, const struct work *work)
{
    int64_t width = size_of(r, 'D');
    struct num *e = calloc((size_t)(size_of(r, 'J') * width), sizeof(*e));
    for (int64_t t = 0; e && t < size_of(r, 'T'); t++) {
        if (!row_is_whole(r, t))
            continue;
        slot_values(r, work, t, e);
        if (has(r, "shared_x"))
            load_row(r, "shared_x", t, 0, false, size_of(r, 'N'), work->x);
        for (int64_t d = 0; d < width; d++)
            combine_element(r, t, d, shared_value(r, work, t, d), e + d, width);
    }
    free(e);
}

/* ---- all ---- */

static void compute(struct conf_reference *r, const struct work *work)
{
    switch (r->b->c->op) {
    case MH_OP_EMBED:
        reference_embed(r, work);
        break;
    case MH_OP_RMSNORM:
        reference_rmsnorm(r, work);
        break;
    case MH_OP_LINEAR:
    case MH_OP_LINEAR_ADD:
    case MH_OP_LINEAR_SWIGLU:
        reference_linear(r, work);
        break;
    case MH_OP_SWIGLU:
        reference_swiglu(r);
        break;
    case MH_OP_ADD:
        reference_add(r);
        break;
    case MH_OP_ROPE:
        reference_rope(r, work);
        break;
    case MH_OP_KV_WRITE:
    case MH_OP_MLA_KV:
        reference_cache(r, work);
        break;
    case MH_OP_ATTENTION:
        reference_attention(r, work);
        break;
    case MH_OP_ATTENTION_PART:
        reference_attention_part(r, work);
        break;
    case MH_OP_ATTENTION_MERGE:
        reference_attention_merge(r);
        break;
    case MH_OP_HEAD_LINEAR:
        reference_head_linear(r, work);
        break;
    case MH_OP_MLA_QUERY:
        reference_mla_query(r, work);
        break;
    case MH_OP_MLA_QKV:
        reference_cache(r, work);
        reference_mla_query(r, work);
        break;
    case MH_OP_NORM_LINEAR:
        reference_norm_linear(r, work);
        break;
    case MH_OP_NORM_ROUTER:
        reference_norm_router(r, work);
        break;
    case MH_OP_EXPERTS_GATE_UP:
    case MH_OP_MOE_GATE_UP:
    case MH_OP_EXPERTS_DOWN:
        reference_experts(r, work);
        break;
    case MH_OP_COMBINE:
    case MH_OP_EXPERTS_DOWN_COMBINE:
    case MH_OP_MOE_DOWN_COMBINE:
        reference_combine(r, work);
        break;
    case MH_OP_ROUTER:
    case MH_OP_ROUTER_LINEAR:
        reference_router(r);
        break;
    case MH_OP_ARGMAX:
        reference_argmax(r);
        break;
    case MH_OP_SAMPLE:
        reference_sample(r);
        break;
    default:
        reference_move(r);
    }
}

bool conf_reference_make(struct conf_reference *r, struct conf_build *b)
{
    *r = (struct conf_reference){.b = b};
    struct work work = {calloc((size_t)longest(r) * 2, sizeof(*work.x)),
                        calloc((size_t)longest(r) * 2, sizeof(*work.w))};
    bool ok = work.x && work.w;
    for (uint32_t i = 0; ok && i < b->operand_count; i++)
        if (b->operands[i].info.flags & MH_OPERAND_WRITTEN) {
            r->of[i] = calloc((size_t)conf_count(&b->operands[i]) + 1, sizeof(*r->of[i]));
            ok = r->of[i];
        }
    if (ok)
        compute(r, &work);
    if (ok && has(r, "fault"))
        expect_bits(r, "fault", 0, 0, 0, r->fault ? MH_BAD_INDEX : 0);
    free(work.x);
    free(work.w);
    return ok;
}

void conf_reference_free(struct conf_reference *r)
{
    for (uint32_t i = 0; i < r->b->operand_count; i++)
        free(r->of[i]);
}

/* ---- judging ---- */

static bool judge(const struct expect *e, mh_dtype dtype, const uint8_t *before,
                  const uint8_t *after, char *text, size_t size)
{
    uint32_t was = 0, is = 0;
    uint64_t bytes = mh_dtype_size(dtype);
    bool real = dtype == MH_F32 || dtype == MH_BF16 || dtype == MH_F16;
    memcpy(&was, before, bytes);
    memcpy(&is, after, bytes);
    double value = real ? conf_decode(dtype, after) : 0;
    switch (e->kind) {
    case EXPECT_KEPT:
        snprintf(text, size, "%08x, must be untouched: %08x", is, was);
        return is == was;
    case EXPECT_BITS: {
        bool both_nan =
            real && isnan(value) && isnan(conf_decode(dtype, (const uint8_t *)&e->bits));
        snprintf(text, size, "%08x, must be %08x", is, e->bits);
        return is == e->bits || both_nan;
    }
    case EXPECT_NUMBER:
        snprintf(text, size, "%.9g (%08x), must be %.9g within %.3g", value, is, e->value,
                 e->bound);
        if (e->no_minus_zero && value == 0 && signbit(value))
            return false;
        return isnan(e->value)   ? isnan(value)
               : isinf(e->value) ? value == e->value
                                 : fabs(value - e->value) <= e->bound;
    default:
        return true;
    }
}

/* "y[2, 0, 17]" */
static void name_element(const struct conf_operand *o, int64_t index, char *text, size_t size)
{
    int64_t at[MH_MAX_RANK] = {0};
    for (uint32_t i = o->view.rank; i-- > 0; index /= o->view.shape[i])
        at[i] = index % o->view.shape[i];
    int used = snprintf(text, size, "%s[", o->info.name);
    for (uint32_t i = 0; i < o->view.rank && used > 0 && (size_t)used < size; i++)
        used +=
            snprintf(text + used, size - (size_t)used, "%s%lld", i ? ", " : "", (long long)at[i]);
    if (used > 0 && (size_t)used < size)
        snprintf(text + used, size - (size_t)used, "]");
}

bool conf_reference_check(const struct conf_reference *r, uint8_t *const *after, char *message,
                          size_t size)
{
    const struct conf_build *b = r->b;
    for (uint32_t i = 0; i < b->operand_count; i++) {
        const struct conf_operand *o = &b->operands[i];
        for (int64_t k = 0, n = r->of[i] ? conf_count(o) : 0; k < n; k++) {
            uint64_t at = conf_element(o, k);
            char text[160], element[80];
            if (judge(&r->of[i][k], o->view.dtype, b->image[o->buffer] + at, after[o->buffer] + at,
                      text, sizeof(text)))
                continue;
            name_element(o, k, element, sizeof(element));
            snprintf(message, size, "%s is %s (f64 reference)", element, text);
            return false;
        }
    }
    if (b->c->op == MH_OP_ROUTER || b->c->op == MH_OP_ROUTER_LINEAR ||
        b->c->op == MH_OP_NORM_ROUTER)
        return check_router(r, after, message, size);
    return b->c->op != MH_OP_SAMPLE || check_sample(r, after, message, size);
}
