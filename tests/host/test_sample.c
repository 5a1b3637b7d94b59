/*
 * argmax and sampling against a second, plain implementation of numerics rule 10 (sort everything,
 * add up), whose generator is checked with Random123's published answers.
 */
#include "harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Philox4x32-10, from its paper ---- */

static void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t k[2] = {key[0], key[1]};
    memcpy(out, counter, 16);
    for (int round = 0; round < 10; round++) {
        uint64_t left = out[0] * (uint64_t)0xD2511F53, right = out[2] * (uint64_t)0xCD9E8D57;
        uint32_t next[4] = {(uint32_t)(right >> 32) ^ out[1] ^ k[0], (uint32_t)right,
                            (uint32_t)(left >> 32) ^ out[3] ^ k[1], (uint32_t)left};
        memcpy(out, next, 16);
        k[0] += 0x9E3779B9, k[1] += 0xBB67AE85;
    }
}

static void generator_gives_the_published_answers(void **state)
{
    (void)state;
    uint32_t out[4];
    const uint32_t zero[4] = {0}, ones[4] = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    const uint32_t pi[4] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
    const uint32_t pi_key[2] = {0xa4093822, 0x299f31d0};
    const uint32_t zero_answer[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    const uint32_t ones_answer[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    const uint32_t pi_answer[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    philox(zero, zero, out);
    assert_memory_equal(out, zero_answer, 16);
    philox(ones, ones, out);
    assert_memory_equal(out, ones_answer, 16);
    philox(pi, pi_key, out);
    assert_memory_equal(out, pi_answer, 16);
}

/* ---- rule 10, plainly ---- */

struct entry {
    uint32_t weight;
    int32_t id;
};

static int by_weight(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->weight != y->weight ? (x->weight < y->weight) - (x->weight > y->weight)
                                  : (x->id > y->id) - (x->id < y->id);
}

/* exp by rule 5, as docs/numerics.md has it. */
static float rule5(float x)
{
    static const uint32_t constants[] = {0x39502BDA, 0x3AB696C9, 0x3C0888A6,
                                         0x3D2AAA7A, 0x3E2AAAAB, 0x3F000000};
    float log2e, high, low, u, coefficient, p;
    uint32_t bits, i;
    if (!(x >= -87.0f))
        return x != x ? x : 0;
    memcpy(&log2e, &(uint32_t){0x3FB8AA3B}, 4);
    memcpy(&high, &(uint32_t){0x3F317200}, 4);
    memcpy(&low, &(uint32_t){0x35BFBE8E}, 4);
    float t = fmaf(x, log2e, 12582912.0f);
    memcpy(&i, &t, 4);
    i -= 0x4B400000;
    float n = t - 12582912.0f;
    float r = fmaf(n, -low, fmaf(n, -high, x));
    memcpy(&u, &constants[0], 4);
    for (int c = 1; c < 6; c++) {
        memcpy(&coefficient, &constants[c], 4);
        u = fmaf(u, r, coefficient);
    }
    float square = r * r;
    p = fmaf(square, u, r) + 1;
    memcpy(&bits, &p, 4);
    bits += i << 23;
    memcpy(&p, &bits, 4);
    return p;
}

static int32_t plain_argmax(const float *logits, int32_t count)
{
    int32_t found = -1;
    for (int32_t i = 0; i < count; i++)
        if (logits[i] == logits[i] && (found < 0 || logits[i] > logits[found]))
            found = i;
    return found < 0 ? 0 : found;
}

static int32_t plain_sample(const float *logits, int32_t count, const mh_sampling *p)
{
    struct entry *list = malloc((size_t)count * sizeof(*list));
    float r = 1 / p->temperature, most = -INFINITY;
    uint32_t out[4], counter[4] = {(uint32_t)p->counter, (uint32_t)(p->counter >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)p->seed, (uint32_t)(p->seed >> 32)};
    if (p->temperature == 0) {
        free(list);
        return plain_argmax(logits, count);
    }
    for (int32_t i = 0; i < count; i++) {
        float s = logits[i] * r;
        most = s > most ? s : most;
    }
    uint64_t total = 0, sum = 0;
    for (int32_t i = 0; i < count; i++) {
        float s = logits[i] * r, e = rule5(s - most) * 0x1p30f;
        list[i] = (struct entry){e == e ? (uint32_t)e : 0, i};
    }
    qsort(list, (size_t)count, sizeof(*list), by_weight);
    int32_t kept = p->top_k && p->top_k < (uint32_t)count ? (int32_t)p->top_k : count;
    for (int32_t i = 0; i < kept; i++)
        total += list[i].weight;
    if (p->top_p < 65536) {
        int32_t n = 0;
        do
            sum += list[n++].weight;
        while (n < kept && sum * 65536 < p->top_p * total);
        kept = n;
        total = sum;
    }
    philox(counter, key, out);
    uint64_t random = out[0] | (uint64_t)out[1] << 32, running = 0;
    /* mulhi64 by long multiplication in halves. */
    uint64_t a = random >> 32, b = random & UINT32_MAX, c = total >> 32, d = total & UINT32_MAX;
    uint64_t middle = a * d + (b * d >> 32), other = b * c + (middle & UINT32_MAX);
    uint64_t target = a * c + (middle >> 32) + (other >> 32);
    int32_t chosen = plain_argmax(logits, count);
    for (int32_t i = 0; i < kept; i++) {
        running += list[i].weight;
        if (running > target) {
            chosen = list[i].id;
            break;
        }
    }
    free(list);
    return chosen;
}

/* ---- the cases ---- */

enum { T = 40, V = 700 };

static mh_op_sample make_sample(struct harness *h)
{
    mh_op_sample op = MH_OP_INIT(sample, SAMPLE);
    op.logits = make(h, MH_F32, 3, 2, T, V, 0);
    op.params = make(h, MH_U32, 0, 2, T, 8, 0);
    op.y = make(h, MH_I32, 0, 1, T, 0, 0);
    return op;
}

static void compare(struct harness *h, mh_op_sample *op)
{
    mh_op_argmax top = MH_OP_INIT(argmax, ARGMAX);
    top.logits = op->logits, top.y = make(h, MH_I32, 0, 1, T, 0, 0);
    RUN(h, *op, op->y);
    RUN(h, top, top.y);
    for (int t = 0; t < T; t++) {
        const mh_sampling *p = (const void *)i32_at(h, &op->params, t, 0);
        const float *logits = f32_at(h, &op->logits, t, 0, 0);
        int32_t got = *i32_at(h, &op->y, t, 0), want = plain_sample(logits, V, p);
        if (got != want)
            fail_msg("T %g, top_p %u, top_k %u: token %d, must be %d", (double)p->temperature,
                     p->top_p, p->top_k, got, want);
        assert_int_equal(*i32_at(h, &top.y, t, 0), plain_argmax(logits, V));
    }
}

static void samples(struct harness *h)
{
    static const float temperatures[] = {0, 0.1f, 0.7f, 1, 1.3f, 20};
    static const uint32_t top_ps[] = {65536, 62259, 32768, 1, 0, 100000};
    static const uint32_t top_ks[] = {0, 1, 2, 40, V, V + 5};
    for (int round = 0; round < 30; round++) {
        mh_op_sample op = make_sample(h);
        for (int t = 0; t < T; t++) {
            mh_sampling p = {.temperature = temperatures[below(h, 6)],
                             .top_p = top_ps[below(h, 6)],
                             .top_k = top_ks[below(h, 6)],
                             .seed = (uint64_t)below(h, 1u << 30) << 20,
                             .counter = below(h, 5000)};
            memcpy(i32_at(h, &op.params, t, 0), &p, sizeof(p));
            for (int i = 0; i < V; i++) {
                float *logit = f32_at(h, &op.logits, t, i, 0);
                *logit = *logit * 12;
                if (round % 3 == 1)
                    *logit = roundf(*logit / 3); /* many ties */
                if (round % 3 == 2 && below(h, 10) == 0)
                    *logit = below(h, 2) ? NAN : below(h, 20) ? -INFINITY : -0.0f;
            }
        }
        compare(h, &op);
        harness_clear(h);
    }
}

static void hopeless_rows(struct harness *h)
{
    mh_op_sample op = make_sample(h);
    for (int t = 0; t < T; t++) {
        mh_sampling p = {.temperature = (float)(t % 2), .top_p = 60000, .top_k = 5};
        memcpy(i32_at(h, &op.params, t, 0), &p, sizeof(p));
        for (int i = 0; i < V; i++)
            *f32_at(h, &op.logits, t, i, 0) = t < 10 ? NAN : t < 20 ? -INFINITY : t < 30 ? 3 : -87;
        if (t >= 30)
            *f32_at(h, &op.logits, t, t, 0) = INFINITY;
    }
    RUN(h, op, op.y);
    for (int t = 0; t < T; t++) /* nothing to weigh: the argmax */
        assert_int_equal(*i32_at(h, &op.y, t, 0), t < 20   ? 0
                                                  : t < 30 ? (t % 2 ? *i32_at(h, &op.y, t, 0) : 0)
                                                           : t);
    harness_clear(h);
}

/* With 2^17 equal logits the token is the generator's top 17 bits. */
static void the_generator_is_seen_through_the_op(struct harness *h)
{
    enum { COUNT = 1 << 17 };
    mh_op_sample op = MH_OP_INIT(sample, SAMPLE);
    op.logits = make(h, MH_F32, 0, 2, 1, COUNT, 0);
    op.params = make(h, MH_U32, 0, 2, 1, 8, 0);
    op.y = make(h, MH_I32, 0, 1, 1, 0, 0);
    for (int i = 0; i < COUNT; i++)
        *f32_at(h, &op.logits, 0, i, 0) = 2.5f;
    mh_sampling p = {.temperature = 1, .top_p = 65536};
    memcpy(i32_at(h, &op.params, 0, 0), &p, sizeof(p));
    RUN(h, op, op.y);
    assert_int_equal(*i32_at(h, &op.y, 0, 0), (int)(0xe169c58d6627e8d5 >> 47));
    harness_clear(h);
}

/* Rule 8's key: -0 is +0, NaN is below -inf, the first of equals wins. */
static void largest_logits(struct harness *h)
{
    enum { CASES = 9, WIDE = 600 };
    static const struct {
        float elsewhere;
        int at[3];
        float value[3];
        int32_t want;
    } cases[CASES] = {
        {-1, {400, 500, 599}, {-0.0f, 0, 0}, 400},
        {-1, {400, 500, 599}, {0, -0.0f, 0x1p-149f}, 599},
        {-1, {63, 64, 599}, {0x1p-149f, 0x1p-149f, -0x1p-149f}, 63},
        {NAN, {7, 590, 591}, {-INFINITY, -INFINITY, NAN}, 7},
        {NAN, {0, 1, 599}, {NAN, NAN, -INFINITY}, 599},
        {-INFINITY, {0, 1, 2}, {NAN, NAN, -INFINITY}, 2},
        {1, {5, 64, 300}, {NAN, INFINITY, INFINITY}, 64},
        {-2, {0, 598, 599}, {-3, -1, -1}, 598},
        {3e38f, {0, 300, 599}, {-INFINITY, 3.4e38f, 3.3e38f}, 300},
    };
    mh_op_argmax op = MH_OP_INIT(argmax, ARGMAX);
    op.logits = make(h, MH_F32, 5, 2, CASES, WIDE, 0), op.y = make(h, MH_I32, 0, 1, CASES, 0, 0);
    mh_op_sample cold = MH_OP_INIT(sample, SAMPLE), single = cold;
    cold.logits = single.logits = op.logits;
    cold.params = make(h, MH_U32, 0, 2, CASES, 8, 0);
    single.params = make(h, MH_U32, 4, 2, CASES, 8, 0);
    cold.y = make(h, MH_I32, 0, 1, CASES, 0, 0), single.y = make(h, MH_I32, 0, 1, CASES, 0, 0);
    for (int t = 0; t < CASES; t++) {
        mh_sampling p = {.top_p = 40000, .top_k = 3, .seed = 5, .counter = (uint64_t)t};
        memcpy(i32_at(h, &cold.params, t, 0), &p, sizeof(p));
        p.temperature = 0.9f, p.top_k = t % 2, p.top_p = t % 2 ? 65536 : 0;
        memcpy(i32_at(h, &single.params, t, 0), &p, sizeof(p));
        for (int i = 0; i < WIDE; i++)
            *f32_at(h, &op.logits, t, i, 0) = cases[t].elsewhere;
        for (int i = 0; i < 3; i++)
            *f32_at(h, &op.logits, t, cases[t].at[i], 0) = cases[t].value[i];
    }
    RUN(h, op, op.y);
    RUN(h, cold, cold.y);
    RUN(h, single, single.y);
    for (int t = 0; t < CASES; t++) {
        assert_int_equal(*i32_at(h, &op.y, t, 0), cases[t].want);
        assert_int_equal(*i32_at(h, &cold.y, t, 0), cases[t].want);
        if (t != 1 && t != 2) /* temperature may make denormals one weight: the first wins */
            assert_int_equal(*i32_at(h, &single.y, t, 0), cases[t].want);
    }
    harness_clear(h);
}

/* 20,000 draws against the softmax. */
static void frequencies_are_the_softmax(struct harness *h)
{
    enum { DRAWS = 20000, TOKENS = 8, ROWS = 100 };
    static const float logits[TOKENS] = {0, 1, 2, -1, 0.5f, 1.5f, -3, 2};
    int seen[TOKENS] = {0};
    double sum = 0;
    mh_op_sample op = MH_OP_INIT(sample, SAMPLE);
    op.logits = make(h, MH_F32, 0, 2, ROWS, TOKENS, 0);
    op.params = make(h, MH_U32, 0, 2, ROWS, 8, 0);
    op.y = make(h, MH_I32, 0, 1, ROWS, 0, 0);
    for (int draw = 0; draw < DRAWS; draw += ROWS) {
        for (int t = 0; t < ROWS; t++) {
            mh_sampling p = {
                .temperature = 1, .top_p = 65536, .seed = 99, .counter = (uint64_t)(draw + t)};
            memcpy(i32_at(h, &op.params, t, 0), &p, sizeof(p));
            memcpy(f32_at(h, &op.logits, t, 0, 0), logits, sizeof(logits));
        }
        RUN(h, op, op.y);
        for (int t = 0; t < ROWS; t++)
            seen[*i32_at(h, &op.y, t, 0)]++;
    }
    for (int i = 0; i < TOKENS; i++)
        sum += exp(logits[i]);
    double chi = 0; /* 7 degrees of freedom: mean 7, variance 14 */
    for (int i = 0; i < TOKENS; i++) {
        double share = exp(logits[i]) / sum, sigma = sqrt(DRAWS * share * (1 - share));
        if (fabs(seen[i] - DRAWS * share) > 5 * sigma)
            fail_msg("token %d came %d times, %.0f expected", i, seen[i], DRAWS * share);
        chi += pow(seen[i] - DRAWS * share, 2) / (DRAWS * share);
    }
    if (chi > 7 + 5 * sqrt(14))
        fail_msg("chi-square is %.1f", chi);
    harness_clear(h);
}

#define TEST(body)                                                                                 \
    static void test_##body(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        for_each_form(body);                                                                       \
    }
TEST(samples)
TEST(hopeless_rows)
TEST(the_generator_is_seen_through_the_op)
TEST(largest_logits)
TEST(frequencies_are_the_softmax)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generator_gives_the_published_answers),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_hopeless_rows),
        cmocka_unit_test(test_the_generator_is_seen_through_the_op),
        cmocka_unit_test(test_largest_logits),
        cmocka_unit_test(test_frequencies_are_the_softmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
