/*
 * reference_choice.c: argmax, router, sample. What is chosen is an integer; where two candidates
 * lie within each other's bounds the formula cannot say which wins, and only the rest is judged.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reference.h"

/* ---- argmax ---- */

static int32_t argmax_of(const struct conf_reference *r, int64_t t)
{
    int32_t best = -1;
    double most = 0;
    for (int64_t v = 0; v < size_of(r, 'V'); v++) {
        double x = input(r, "logits", t, v, 0);
        if (!isnan(x) && (best < 0 || x > most)) {
            best = (int32_t)v;
            most = x;
        }
    }
    return best < 0 ? 0 : best; /* NaN lies below everything; all of them: the first */
}

void reference_argmax(struct conf_reference *r)
{
    for (int64_t t = 0; t < size_of(r, 'T'); t++)
        expect_bits(r, "y", t, 0, 0, (uint32_t)argmax_of(r, t));
}

/* ---- router ---- */

struct candidate {
    struct num score, selection;
    int64_t expert;
};

static bool unclear(struct num a, struct num b)
{
    return a.v != b.v && !(fabs(a.v - b.v) > a.b + b.b);
}

/* Descending, ties to the lowest index. */
static int by_selection(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;
    if (a->selection.v != b->selection.v)
        return a->selection.v > b->selection.v ? -1 : 1;
    return a->expert < b->expert ? -1 : 1;
}

static const mh_router_rule *rule_of(const struct conf_reference *r)
{
    return r->b->c->op == MH_OP_ROUTER          ? &r->b->op.router.rule
           : r->b->c->op == MH_OP_ROUTER_LINEAR ? &r->b->op.router_linear.rule
                                                : &r->b->op.norm_router.rule;
}

/* What the logits of a row are made from, where they are made. */
static void load_input(const struct conf_reference *r, int64_t t, struct num *x, double *room)
{
    int64_t in = size_of(r, 'I');
    for (int64_t k = 0; k < in; k++)
        x[k] = exactly(input(r, "x", t, k, 0));
    if (r->b->c->op == MH_OP_NORM_ROUTER)
        num_norm(r, "norm", x, in, r->b->op.norm_router.eps, room);
}

static struct num logit_of(const struct conf_reference *r, int64_t t, int64_t e,
                           const struct num *x, double *row)
{
    if (r->b->c->op == MH_OP_ROUTER)
        return exactly(input(r, "logits", t, e, 0));
    const struct conf_weight *w = conf_find_weight(r->b, "w");
    conf_weight_row(w, 0, e, row);
    return num_dot(x, row, w->in);
}

/* Scores of a row; false where a value is none the bounds could speak of. */
static bool score_row(const struct conf_reference *r, int64_t t, struct candidate *c)
{
    int64_t count = size_of(r, 'E'), in = size_of(r, 'I');
    struct num *x = calloc((size_t)in + 1, sizeof(*x));
    double *row = calloc((size_t)in + 1, sizeof(*row)), most = -INFINITY;
    bool sigmoid = rule_of(r)->scoring == MH_ROUTER_SIGMOID, sane = x && row;
    struct num sum = {0, 0};
    if (sane && has(r, "x"))
        load_input(r, t, x, row);
    for (int64_t e = 0; sane && e < count; e++) {
        c[e].score = logit_of(r, t, e, x, row);
        most = fmax(most, c[e].score.v);
        sane &= sigmoid || isfinite(c[e].score.v);
    }
    free(x);
    free(row);
    int64_t roundings = count / 64 + 8;
    for (int64_t e = 0; sane && e < count; e++) {
        struct num l = c[e].score, minus_max = {-most, l.b};
        c[e].score = sigmoid ? num_sigmoid(l) : num_exp(num_add(l, minus_max));
        sum.v += c[e].score.v;
        sum.b += c[e].score.b + c[e].score.v * (double)roundings * 0x1p-24;
    }
    for (int64_t e = 0; sane && e < count; e++) {
        if (!sigmoid)
            c[e].score = num_mul(c[e].score, num_rcp(sum));
        c[e].selection = c[e].score;
        if (has(r, "bias"))
            c[e].selection = num_add(c[e].score, exactly(input(r, "bias", e, 0, 0)));
        c[e].expert = e;
        bool grouped = rule_of(r)->group_score != MH_GROUPS_NONE;
        sane &= !grouped || isfinite(c[e].selection.v);
        if (isnan(c[e].selection.v))
            c[e].selection = exactly(-INFINITY);
    }
    return sane;
}

/* Takes losing groups out by selection -2e300; false where the bounds cannot say which lose. */
static bool drop_groups(const struct conf_reference *r, struct candidate *c)
{
    const mh_router_rule *rule = rule_of(r);
    int64_t groups = rule->groups, size = size_of(r, 'E') / groups;
    struct candidate *g = calloc((size_t)groups, sizeof(*g)),
                     *members = calloc((size_t)size, sizeof(*members));
    bool clear = g && members;
    for (int64_t i = 0; clear && i < groups; i++) {
        memcpy(members, c + i * size, (size_t)size * sizeof(*members));
        qsort(members, (size_t)size, sizeof(*members), by_selection);
        g[i].expert = i;
        g[i].selection = members[0].selection;
        if (rule->group_score == MH_GROUPS_TOP2 && size > 1)
            g[i].selection = num_add(members[0].selection, members[1].selection);
    }
    if (clear)
        qsort(g, (size_t)groups, sizeof(*g), by_selection);
    for (int64_t i = 0; clear && i < rule->top_groups; i++)
        for (int64_t m = rule->top_groups; m < groups; m++)
            clear &= !unclear(g[i].selection, g[m].selection);
    for (int64_t i = rule->top_groups; clear && i < groups; i++)
        for (int64_t e = 0; e < size; e++)
            c[g[i].expert * size + e].selection = exactly(-2e300);
    free(g);
    free(members);
    return clear;
}

static void output_row(const struct conf_reference *r, uint8_t *const *after, const char *name,
                       int64_t t, int64_t j, uint32_t *bits)
{
    const struct conf_operand *o = conf_find(r->b, name);
    memcpy(bits,
           after[o->buffer] + conf_element(o, o->view.rank > 1 ? t * o->view.shape[1] + j : t), 4);
}

/* The weights of the experts that were chosen, whichever they are. */
static bool check_weights(const struct conf_reference *r, uint8_t *const *after, int64_t t,
                          const struct candidate *scores, const int32_t *chosen, char *message,
                          size_t size)
{
    const mh_router_rule *rule = rule_of(r);
    int64_t k = size_of(r, 'J');
    struct num sum = exactly(0);
    for (int64_t j = 0; j < k; j++)
        sum = num_add(sum, scores[chosen[j]].score);
    struct num factor = num_rcp(num_add(sum, exactly(1e-20)));
    for (int64_t j = 0; j < k; j++) {
        uint32_t bits;
        float got;
        struct num w = scores[chosen[j]].score;
        if (rule->normalise)
            w = num_mul(w, factor);
        w = num_mul(w, exactly((double)rule->scaling));
        output_row(r, after, "weights", t, j, &bits);
        memcpy(&got, &bits, 4);
        if (isnan(w.v) ? isnan(got) : isnan(w.b) || fabs((double)got - w.v) <= w.b)
            continue;
        snprintf(message, size,
                 "weights[%lld, %lld] is %.9g, must be %.9g within %.3g (f64 reference)",
                 (long long)t, (long long)j, (double)got, w.v, w.b);
        return false;
    }
    return true;
}

static bool check_chosen(const struct conf_reference *r, uint8_t *const *after, int64_t t,
                         struct candidate *c, const int32_t *chosen, char *message, size_t size)
{
    int64_t k = size_of(r, 'J'), count = size_of(r, 'E');
    bool clear = rule_of(r)->group_score == MH_GROUPS_NONE || drop_groups(r, c);
    (void)after;
    if (!clear)
        return true;
    qsort(c, (size_t)count, sizeof(*c), by_selection);
    for (int64_t j = 0; j < k; j++) {
        for (int64_t m = j + 1; m < count; m++)
            if (unclear(c[j].selection, c[m].selection))
                return true;
        if (chosen[j] == c[j].expert)
            continue;
        snprintf(message, size, "experts[%lld, %lld] is %d, must be %lld (f64 reference)",
                 (long long)t, (long long)j, chosen[j], (long long)c[j].expert);
        return false;
    }
    return true;
}

static bool check_router_row(const struct conf_reference *r, uint8_t *const *after, int64_t t,
                             struct candidate *c, char *message, size_t size)
{
    int64_t k = size_of(r, 'J'), count = size_of(r, 'E');
    int32_t *chosen = calloc((size_t)k, sizeof(*chosen));
    uint8_t *seen = calloc((size_t)count, 1);
    bool ok = chosen && seen;
    for (int64_t j = 0; ok && j < k; j++) {
        output_row(r, after, "experts", t, j, (uint32_t *)&chosen[j]);
        ok = chosen[j] >= 0 && chosen[j] < count && !seen[chosen[j]];
        if (ok)
            seen[chosen[j]] = 1;
        else
            snprintf(message, size, "experts[%lld, %lld] is %d: twice, or not below %lld",
                     (long long)t, (long long)j, chosen[j], (long long)count);
    }
    if (ok && score_row(r, t, c))
        ok = check_weights(r, after, t, c, chosen, message, size) &&
             check_chosen(r, after, t, c, chosen, message, size);
    free(chosen);
    free(seen);
    return ok;
}

static void leave_to_check(struct conf_reference *r, const char *operand)
{
    for (uint32_t i = 0; i < r->b->operand_count; i++)
        for (int64_t k = 0;
             !strcmp(r->b->operands[i].info.name, operand) && k < conf_count(&r->b->operands[i]);
             k++)
            r->of[i][k].kind = EXPECT_ANYTHING;
}

void reference_router(struct conf_reference *r)
{
    leave_to_check(r, "experts");
    leave_to_check(r, "weights");
}

bool check_router(const struct conf_reference *r, uint8_t *const *after, char *message, size_t size)
{
    struct candidate *c = calloc((size_t)size_of(r, 'E'), sizeof(*c));
    bool ok = c;
    for (int64_t t = 0; ok && t < size_of(r, 'T'); t++)
        ok = check_router_row(r, after, t, c, message, size);
    free(c);
    return ok;
}

/* ---- sample: rule 10 ---- */

/* Philox4x32-10 of the counter's block. */
static uint64_t philox(uint64_t seed, uint64_t counter)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = UINT64_C(0xD2511F53) * c[0], p1 = UINT64_C(0xCD9E8D57) * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ key[0], (uint32_t)p1,
                            (uint32_t)(p0 >> 32) ^ c[3] ^ key[1], (uint32_t)p0};
        memcpy(c, next, sizeof(c));
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return c[0] | (uint64_t)c[1] << 32;
}

struct token {
    double weight, error;
    int32_t id;
};

static int by_weight(const void *left, const void *right)
{
    const struct token *a = left, *b = right;
    if (a->weight != b->weight)
        return a->weight > b->weight ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

/* Weights of a row; 0 tokens where its largest logit is none the bounds could speak of. */
static int64_t weigh(const struct conf_reference *r, int64_t t, float temperature,
                     struct token *tokens)
{
    double most = -INFINITY, rcp = 1 / (double)temperature;
    int64_t count = size_of(r, 'V');
    for (int64_t v = 0; v < count; v++)
        most = fmax(most, input(r, "logits", t, v, 0) * rcp);
    for (int64_t v = 0; isfinite(most) && v < count; v++) {
        double s = input(r, "logits", t, v, 0) * rcp - most;
        double weight = isnan(s) ? 0 : floor(exp(s) * 0x1p30);
        double slack = (fabs(s) + fabs(most) * 2) * 0x1p-22 + 0x1p-22;
        tokens[v] = (struct token){weight, weight * expm1(slack) + 2, (int32_t)v};
    }
    if (!isfinite(most) || most > 3e38)
        return 0;
    qsort(tokens, (size_t)count, sizeof(*tokens), by_weight);
    while (count && !(tokens[count - 1].weight > 0))
        count--;
    return count;
}

/* Is `id` a token the rule may choose, sums being as uncertain as they are? */
static bool may_choose(const struct token *tokens, int64_t count, const mh_sampling *p, int32_t id)
{
    int64_t kept = p->top_k && p->top_k < count ? p->top_k : count;
    double total = 0, error = 0, sum = 0;
    for (int64_t i = 0; i < kept; i++) {
        total += tokens[i].weight;
        error += tokens[i].error;
    }
    /* The prefix may end at any of these. */
    int64_t least = kept, most = kept;
    for (int64_t i = 0; p->top_p < 65536 && i < kept; i++) {
        sum += tokens[i].weight;
        double wanted = (double)p->top_p / 65536 * total;
        if (sum + error + error >= wanted && i + 1 < least)
            least = i + 1;
        if (sum - error - error >= wanted) {
            most = i + 1;
            break;
        }
    }
    double u = (double)philox(p->seed, p->counter) * 0x1p-64;
    for (int64_t end = least; end <= most; end++) {
        double prefix = 0, running = 0;
        for (int64_t i = 0; i < end; i++)
            prefix += tokens[i].weight;
        for (int64_t i = 0; i < end; i++) {
            double before = running;
            running += tokens[i].weight;
            double slack = 3 * error + 2;
            if (tokens[i].id == id && u * prefix >= before - slack && u * prefix <= running + slack)
                return true;
        }
    }
    return false;
}

void reference_sample(struct conf_reference *r)
{
    leave_to_check(r, "y");
}

bool check_sample(const struct conf_reference *r, uint8_t *const *after, char *message, size_t size)
{
    const struct conf_operand *params = conf_find(r->b, "params");
    int64_t vocabulary = size_of(r, 'V');
    struct token *tokens = calloc((size_t)vocabulary, sizeof(*tokens));
    bool ok = tokens;
    for (int64_t t = 0; ok && t < size_of(r, 'T'); t++) {
        uint32_t bits;
        mh_sampling p;
        memcpy(&p, r->b->image[params->buffer] + params->view.offset + t * params->view.stride[0],
               sizeof(p));
        output_row(r, after, "y", t, 0, &bits);
        int64_t count = p.temperature > 0 ? weigh(r, t, p.temperature, tokens) : 0;
        if (!(p.temperature > 0))
            ok = (int32_t)bits == argmax_of(r, t);
        else if (count)
            ok = may_choose(tokens, count, &p, (int32_t)bits);
        else
            ok = bits < (uint32_t)vocabulary;
        if (!ok)
            snprintf(message, size, "y[%lld] is %d, which rule 10 cannot choose (f64 reference)",
                     (long long)t, (int32_t)bits);
    }
    free(tokens);
    return ok;
}
