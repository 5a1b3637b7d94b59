/* case.c: names of op cases, both ways, and the list of them all. */
#include "case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers from a seed: splitmix64 ---- */

struct conf_random conf_random_of(uint64_t seed, const char *text)
{
    struct conf_random r = {seed ^ 0x9E3779B97F4A7C15u};
    for (; *text; text++)
        r.state = (r.state ^ (unsigned char)*text) * 0x100000001B3u;
    conf_draw(&r);
    return r;
}

uint64_t conf_draw(struct conf_random *r)
{
    uint64_t z = r->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

uint32_t conf_below(struct conf_random *r, uint32_t n)
{
    return (uint32_t)((conf_draw(r) >> 32) * n >> 32);
}

float conf_uniform(struct conf_random *r)
{
    return (float)((int32_t)(conf_draw(r) >> 40) - (1 << 23)) * 0x1p-23f;
}

/* ---- names ---- */

static const char *const layout_names[LAYOUTS] = {"dense", "gaps", "shifted", "inplace"};
static const char *const value_names[VALUES_KINDS] = {"random", "ints", "special",
                                                      "tiny",   "wide", "ties"};

const char *conf_format_name(const struct conf_case *c, char text[32])
{
    if (c->to)
        snprintf(text, 32, "%s-%s", mh_dtype_name(c->dtype), mh_dtype_name(c->to));
    else if (c->format && c->dtype)
        snprintf(text, 32, "%s-%s", mh_format_name(c->format), mh_dtype_name(c->dtype));
    else
        snprintf(text, 32, "%s",
                 c->format  ? mh_format_name(c->format)
                 : c->dtype ? mh_dtype_name(c->dtype)
                            : "f32");
    return text;
}

void conf_case_name(struct conf_case *c)
{
    const struct op_rule *rule = conf_rule(c->op);
    char sizes[96], format[32];
    size_t used = 0;
    sizes[0] = 0;
    for (const char *l = rule->letters; *l; l++)
        used += (size_t)snprintf(sizes + used, sizeof(sizes) - used, "%s%c%lld", used ? "." : "",
                                 *l, (long long)c->dim[(unsigned char)*l]);
    snprintf(c->name, sizeof(c->name), "%s/%s/%s/%s/%s/%s", mh_op_name(c->op),
             conf_format_name(c, format), sizes, layout_names[c->layout], value_names[c->values],
             rule->variants[c->variant]);
}

static int index_of(const char *const *names, size_t count, const char *text)
{
    for (size_t i = 0; i < count && names[i]; i++)
        if (!strcmp(names[i], text))
            return (int)i;
    return -1;
}

static bool parse_sizes(const struct op_rule *rule, const char *text, struct conf_case *c)
{
    for (const char *l = rule->letters; *l; l++) {
        char *end;
        if (*text++ != *l)
            return false;
        long long size = strtoll(text, &end, 10);
        if (end == text || size < (*l == 'T' ? 0 : 1) || size > 1 << 24 || (*end && *end != '.'))
            return false;
        c->dim[(unsigned char)*l] = size;
        text = *end ? end + 1 : end;
    }
    return !*text;
}

/* Weight formats, then dtypes, by the text of the format column. */
static bool parse_format(const char *text, struct conf_case *c)
{
    struct conf_case probe;
    for (c->format = 0; c->format <= MH_FORMAT_FP8; c->format++)
        for (c->dtype = 0; c->dtype <= MH_U32; c->dtype++)
            for (c->to = 0; c->to <= MH_BF16; c->to++) {
                char name[32];
                probe = *c;
                if (!strcmp(conf_format_name(&probe, name), text) &&
                    conf_takes_format(c->op, c->format, c->dtype, c->to))
                    return true;
            }
    return false;
}

bool conf_case_parse(const char *name, struct conf_case *c)
{
    char copy[CASE_NAME], *part[6];
    memset(c, 0, sizeof(*c));
    if (strlen(name) >= sizeof(copy))
        return false;
    strcpy(copy, name);
    char *at = copy;
    for (int i = 0; i < 6; i++) {
        if (!at)
            return false;
        part[i] = strsep(&at, "/");
    }
    const struct op_rule *rule = NULL;
    for (uint32_t i = 0; i < conf_rule_count; i++)
        if (!strcmp(mh_op_name(conf_rules[i].op), part[0]))
            rule = &conf_rules[i];
    if (at || !rule)
        return false;
    c->op = rule->op;
    int layout = index_of(layout_names, LAYOUTS, part[3]);
    int values = index_of(value_names, VALUES_KINDS, part[4]);
    int variant = index_of(rule->variants, 16, part[5]);
    if (layout < 0 || values < 0 || variant < 0 || !parse_format(part[1], c) ||
        !parse_sizes(rule, part[2], c))
        return false;
    c->layout = (enum conf_layout)layout;
    c->values = (enum conf_values)values;
    c->variant = (uint32_t)variant;
    if (rule->derive && !rule->derive(c))
        return false;
    conf_case_name(c);
    return !strcmp(c->name, name);
}

/* ---- formats ---- */

bool conf_takes_format(mh_op_id op, mh_format format, mh_dtype dtype, mh_dtype to)
{
    bool weights = false;
    uint32_t dtypes = 0, targets = 0;
    mh_operand operand = MH_INIT(mh_operand);
    for (uint32_t i = 0; !mh_op_operand(op, i, &operand); i++) {
        weights |= (operand.flags & MH_OPERAND_WEIGHT) != 0;
        if (!strcmp(operand.name, "cache") || (op == MH_OP_FILL && !i) || (op == MH_OP_COPY && i) ||
            (op == MH_OP_CAST && i))
            dtypes = operand.dtypes;
        else if (op == MH_OP_CAST)
            targets = operand.dtypes;
    }
    return !format == !weights && !dtype == !dtypes && !to == !targets &&
           (!dtype || dtypes >> dtype & 1) && (!to || targets >> to & 1);
}

/* ---- the list ---- */

static const struct {
    const char *name;
    const int16_t sizes[24]; /* 0 ends */
} pools[] = {
    {"rows", {1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33}},
    {"short", {1, 1, 2, 3, 5, 9}},
    {"any", {1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 65, 97, 127, 128, 129, 200}},
    {"deep", {1, 3, 7, 63, 64, 65, 100, 127, 128, 129, 130, 191, 193, 255, 257, 300}},
    {"even", {2, 4, 6, 8, 16, 32, 64, 34}},
    {"few", {1, 2, 3, 4, 5, 8}},
    {"groups", {1, 2, 3, 4, 8}},
    {"page", {1, 2, 3, 7, 16, 64}},
    {"pages", {1, 2, 3, 5, 9, 17}},
    {"part", {1, 1, 2, 3}},
};

static int64_t draw_size(struct conf_random *r, const char *sizes, char letter)
{
    char pattern[3] = {letter, ':', 0};
    const char *pool = strstr(sizes, pattern) + 2;
    for (size_t p = 0; p < sizeof(pools) / sizeof(pools[0]); p++) {
        size_t length = strlen(pools[p].name);
        if (strncmp(pool, pools[p].name, length) || (pool[length] && pool[length] != ' '))
            continue;
        uint32_t count = 0;
        while (count < 24 && pools[p].sizes[count])
            count++;
        return pools[p].sizes[conf_below(r, count)];
    }
    return 1;
}

struct listing {
    uint64_t seed;
    bool quick;
    int (*visit)(void *user, struct conf_case *c);
    void *user;
    struct conf_random random;
    uint64_t combination; /* counts format x layout x values x variant */
};

static int offer(struct listing *l, const struct op_rule *rule, struct conf_case *c)
{
    if (rule->derive && !rule->derive(c))
        return 0;
    conf_case_name(c);
    return l->visit(l->user, c);
}

/* Sizes drawn for one combination. The first has no rows, now and then. */
static int list_sizes(struct listing *l, const struct op_rule *rule, const struct conf_case *base)
{
    /* The quick form takes one size for every second combination; which half, the seed says. */
    int count = !l->quick ? 9 : (l->combination + l->seed) % 2 ? 0 : 1;
    bool empty = rule->letters[0] == 'T' && l->combination % (l->quick ? 32 : 8) == 0;
    int status = 0;
    l->combination++;
    for (int i = 0; !status && i < count + empty; i++) {
        struct conf_case c = *base;
        for (const char *letter = rule->letters; *letter; letter++)
            c.dim[(unsigned char)*letter] = draw_size(&l->random, rule->sizes, *letter);
        if (i == count)
            c.dim['T'] = 0;
        status = offer(l, rule, &c);
    }
    return status;
}

/* Sizes of released models: dense and random, in quick form only the first; that one tiny, too, but
 * for banks of experts, which take long and are folded as other rows are. */
static int list_real(struct listing *l, const struct op_rule *rule, const struct conf_case *base)
{
    int status = 0;
    bool random = base->values == VALUES_RANDOM;
    bool tiny = base->values == VALUES_TINY && !strchr(rule->letters, 'S');
    bool first = l->quick || tiny;
    bool suits = base->layout == LAYOUT_DENSE && (random || tiny) && (!first || !base->variant);
    for (int i = 0; suits && !status && rule->real && rule->real[i] && (!first || !i); i++) {
        struct conf_case c = *base;
        if (parse_sizes(rule, rule->real[i], &c))
            status = offer(l, rule, &c);
    }
    return status;
}

static int list_format(struct listing *l, const struct op_rule *rule, struct conf_case *base)
{
    int status = 0;
    for (base->variant = 0; rule->variants[base->variant]; base->variant++)
        for (base->layout = 0; base->layout < LAYOUTS; base->layout++)
            for (base->values = 0; base->values < VALUES_KINDS; base->values++) {
                if (!(rule->values >> base->values & 1) ||
                    (base->layout == LAYOUT_INPLACE && !rule->in_place))
                    continue;
                status = list_sizes(l, rule, base);
                if (!status)
                    status = list_real(l, rule, base);
                if (status)
                    return status;
            }
    return status;
}

int conf_enumerate(uint64_t seed, bool quick, int (*visit)(void *user, struct conf_case *c),
                   void *user)
{
    struct listing l = {seed, quick, visit, user, conf_random_of(seed, "sizes"), 0};
    for (uint32_t r = 0; r < conf_rule_count; r++)
        for (mh_format format = 0; format <= MH_FORMAT_FP8; format++)
            for (mh_dtype dtype = 0; dtype <= MH_U32; dtype++)
                for (mh_dtype to = 0; to <= MH_BF16; to++) {
                    if (!conf_takes_format(conf_rules[r].op, format, dtype, to))
                        continue;
                    struct conf_case base = {.op = conf_rules[r].op,
                                             .format = format,
                                             .dtype = dtype,
                                             .to = to,
                                             .seed = seed};
                    int status = list_format(&l, &conf_rules[r], &base);
                    if (status)
                        return status;
                }
    return 0;
}
