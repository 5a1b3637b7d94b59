#include "values.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>

/* ---- single values ---- */

uint16_t conf_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (isnan(value))
        return 0x7FC0;
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* By the definition: the nearest multiple of the last place, ties to even. */
uint16_t conf_to_f16(float value)
{
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double magnitude = fabs((double)value);
    int exponent;
    if (isnan(value))
        return 0x7E00;
    if (magnitude == 0)
        return sign;
    if (magnitude >= 65520)
        return sign | 0x7C00;
    frexp(magnitude, &exponent);
    int place = exponent - 11 < -24 ? -24 : exponent - 11;
    double units = rint(ldexp(magnitude, -place)); /* to even, in the default mode */
    /* Denormals and normals lie in one sequence of integers. */
    int base = place == -24 ? 0 : (place + 24) * 1024;
    return (uint16_t)(sign | (uint16_t)(base + (int)units));
}

/* The last are halfway between two of bf16, and of f16. */
static const float specials[] = {NAN,        INFINITY,         -INFINITY, -0.0f,      0.0f,
                                 FLT_MAX,    -FLT_MAX,         0x1p-149f, -0x1p-130f, 1e-40f,
                                 -NAN,       0x1.fffffep-127f, 0x1.01p0f, -0x1.03p3f, 0x1.05p1f,
                                 0x1.002p0f, -0x1.006p3f,      0x1.00ap1f};

/* Does this operand hold the case's special values? One does, so that others stay readable. */
static bool is_special(const struct conf_build *b, const char *name)
{
    struct conf_random r = conf_random_of(b->c->seed, b->c->name);
    mh_operand info = MH_INIT(mh_operand);
    const char *names[16];
    uint32_t count = 0;
    for (uint32_t i = 0; !mh_op_operand(b->c->op, i, &info) && count < 16; i++)
        if (info.flags & MH_OPERAND_WEIGHT ||
            (info.flags & MH_OPERAND_READ && info.dtypes & (1u << MH_F32 | 1u << MH_BF16)))
            names[count++] = info.name;
    return b->c->values == VALUES_SPECIAL && count && !strcmp(names[conf_below(&r, count)], name);
}

/* Always where rows of weights are whole stripes of rule 2: there every stripe vanishes. */
static bool underflows(const struct conf_build *b)
{
    struct conf_random r = conf_random_of(b->c->seed, b->c->name);
    return (b->weight_count && b->weights[0].in % 64 == 0) || conf_draw(&r) % 3 == 0;
}

/* `exponent` scales TINY values. */
static float draw_value(struct conf_build *b, bool special, int exponent)
{
    static const float few[] = {-1, -0.0f, 0, 0.5f, 1};
    struct conf_random *r = &b->random;
    switch (b->c->values) {
    case VALUES_INTS:
        return (float)((int)conf_below(r, 9) - 4);
    case VALUES_SPECIAL:
        if (special && !conf_below(r, 40))
            return specials[conf_below(r, sizeof(specials) / sizeof(specials[0]))];
        return conf_uniform(r);
    case VALUES_TINY:
        if (!underflows(b))
            return ldexpf(conf_uniform(r), exponent);
        /* Negative activations so small that every product is -0: sums must be +0. */
        return exponent < -70 ? -ldexpf(fabsf(conf_uniform(r)), -140)
                              : ldexpf(fabsf(conf_uniform(r)), exponent);
    case VALUES_WIDE:
        return ldexpf(conf_uniform(r), (int)conf_below(r, 41) - 20);
    case VALUES_TIES:
        return few[conf_below(r, 5)];
    default:
        return conf_uniform(r);
    }
}

/* ---- weights ---- */

static uint8_t fp8_of_int(int value)
{
    static const uint8_t magnitudes[] = {0x00, 0x38, 0x40, 0x44, 0x48}; /* 0 to 4 */
    return (uint8_t)(magnitudes[value < 0 ? -value : value] | (value < 0 ? 0x80 : 0));
}

static void fill_unit(struct conf_build *b, const struct conf_weight *w, bool special, uint8_t *at)
{
    float value;
    uint16_t half;
    if (w->format == MH_FORMAT_FP8) {
        *at = (uint8_t)conf_draw(&b->random);
        if (b->c->values == VALUES_TINY && underflows(b))
            *at &= 0x7E; /* no sign, no NaN */
        if (b->c->values == VALUES_INTS)
            *at = fp8_of_int((int)(*at % 9) - 4);
        else if ((*at & 0x7F) == 0x7F && !special)
            *at ^= 1;
        return;
    }
    value = draw_value(b, special, w->format == MH_FORMAT_F16 ? -18 : -70);
    if (b->c->values == VALUES_RANDOM)
        value /= 4;
    if (w->format == MH_FORMAT_F32) {
        memcpy(at, &value, 4);
        return;
    }
    half = w->format == MH_FORMAT_F16 ? conf_to_f16(value) : conf_to_bf16(value);
    memcpy(at, &half, 2);
}

static float draw_scale(struct conf_build *b)
{
    float scale = 0.001f + (float)conf_below(&b->random, 1000) * 1e-6f;
    switch (b->c->values) {
    case VALUES_INTS:
        return 1;
    case VALUES_TINY:
        return ldexpf(scale, conf_below(&b->random, 4) ? -60 : -127);
    case VALUES_WIDE:
        return ldexpf(scale, (int)conf_below(&b->random, 41) - 20);
    default:
        return scale;
    }
}

void conf_fill_weight(struct conf_build *b, struct conf_weight *w)
{
    int64_t size = w->format == MH_FORMAT_F32 ? 4 : w->format == MH_FORMAT_FP8 ? 1 : 2;
    bool special = is_special(b, w->info.name);
    int64_t rows = w->experts * w->out;
    for (int64_t r = 0; r < rows; r++) {
        if (conf_row_is_zero(w, r))
            continue;
        for (int64_t k = 0; k < w->in; k++)
            fill_unit(b, w, special, w->data + (r * w->in + k) * size);
    }
    if (w->format != MH_FORMAT_FP8)
        return;
    int64_t scales = w->experts * ((w->out + 127) / 128) * ((w->in + 127) / 128);
    for (int64_t i = 0; i < scales; i++) {
        float scale = draw_scale(b);
        memcpy(w->scales + 4 * i, &scale, 4);
    }
}

/* ---- indices ---- */

static bool variant_is(const struct conf_build *b, const char *name)
{
    return !strcmp(conf_rule(b->c->op)->variants[b->c->variant], name);
}

/* May this operand's indices be none? One operand's in most cases, any in the others: the fault
 * that one raises must not hide that another raises none. */
static bool may_be_none(const struct conf_build *b, const char *name)
{
    struct conf_random r = conf_random_of(b->c->seed, b->c->name);
    const char *names[BUILD_OPERANDS] = {NULL};
    uint32_t count = 0;
    for (uint32_t i = 0; i < b->operand_count; i++) {
        const mh_operand *info = &b->operands[i].info;
        if (info->flags & MH_OPERAND_READ && info->dtypes == 1u << MH_I32)
            names[count++] = info->name;
    }
    uint32_t chosen = conf_below(&r, count + 1);
    return variant_is(b, "bad") && (chosen == count || !strcmp(names[chosen], name));
}

/* Positions of attention lie around the borders of pages, chunks and segments. */
static int32_t draw_position(struct conf_build *b, int64_t room)
{
    static const int32_t borders[] = {0,   1,   63,  64,  65,  127, 128,
                                      255, 256, 257, 319, 320, 511, 512};
    int32_t border = borders[conf_below(&b->random, 14)];
    if (border < room && conf_below(&b->random, 4))
        return border;
    return (int32_t)conf_below(&b->random, (uint32_t)room);
}

static void shuffle(struct conf_build *b, int32_t *values, int64_t count)
{
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t j = conf_below(&b->random, (uint32_t)i + 1);
        int32_t swap = values[i];
        values[i] = values[j];
        values[j] = swap;
    }
}

/* values[i], i < count: a permutation of `of` numbers, cut or filled up with -1. */
static void permute(struct conf_build *b, int32_t *values, int64_t count, int64_t of)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = i < of ? (int32_t)i : -1;
    shuffle(b, values, count);
}

#define MOST 65536

static int32_t index_value(struct conf_build *b, const char *name, int64_t i, const int32_t *order)
{
    const int64_t *dim = b->c->dim;
    bool merges = b->c->op == MH_OP_ATTENTION_MERGE;
    bool reads_all = b->c->op == MH_OP_ATTENTION || b->c->op == MH_OP_ATTENTION_PART;
    bool writes = dim['Q'] && !reads_all;
    if (!strcmp(name, "positions"))
        return reads_all ? draw_position(b, dim['M'] * dim['P'])
               : merges  ? draw_position(b, 256 * dim['N'] * dim['S'])
               : writes  ? order[i] / (int32_t)dim['Q']
                         : (int32_t)conf_below(&b->random, (uint32_t)dim['X']);
    if (!strcmp(name, "slots")) {
        if (variant_is(b, "padding") && !conf_below(&b->random, 3))
            return -1;
        return writes ? order[i] % (int32_t)dim['Q']
                      : (int32_t)conf_below(&b->random, (uint32_t)dim['Q']);
    }
    if (!strcmp(name, "tokens"))
        return (int32_t)conf_below(&b->random, (uint32_t)dim['V']);
    if (!strcmp(name, "experts"))
        return variant_is(b, "one") ? (int32_t)(dim['E'] - 1)
                                    : (int32_t)conf_below(&b->random, (uint32_t)dim['E']);
    /* expert_map: all of the bank, and -1 for the rest; "map" has every expert it uses. */
    if (variant_is(b, "map"))
        return (int32_t)(order[i] < 0 ? i % dim['S'] : order[i]);
    return order[i];
}

/* What indices of an operand are below. */
static int64_t index_limit(const struct conf_build *b, const char *name)
{
    static const struct {
        const char *name;
        unsigned char letter;
    } limits[] = {{"tokens", 'V'},  {"slots", 'Q'},      {"page_table", 'G'},
                  {"experts", 'E'}, {"expert_map", 'S'}, {"positions", 'X'}};
    const int64_t *dim = b->c->dim;
    if (!strcmp(name, "positions") && b->c->op == MH_OP_ATTENTION_MERGE)
        return 256 * dim['N'] * dim['S'];
    if (!strcmp(name, "positions") && dim['Q'])
        return dim['M'] * dim['P'];
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        if (!strcmp(name, limits[i].name))
            return dim[limits[i].letter];
    return 0;
}

/* kv_write and mla_kv: rows of one op name different places; a place is slot + Q * position. */
static void fill_indices(struct conf_build *b, struct conf_operand *o)
{
    static _Thread_local int32_t order[MOST];
    const int64_t *dim = b->c->dim;
    int64_t count = conf_count(o);
    const char *name = o->info.name;
    struct conf_random saved = b->random;
    if (!strcmp(name, "positions") || !strcmp(name, "slots")) {
        /* The same order for both. */
        b->random = conf_random_of(b->c->seed, b->c->name);
        int64_t places = dim['Q'] * dim['M'] * dim['P'];
        places = places < MOST ? places : MOST;
        permute(b, order, places, places);
        b->random = saved;
    } else if (!strcmp(name, "page_table")) {
        int64_t of = dim['G'] < MOST ? dim['G'] : MOST;
        permute(b, order, of, of);
    } else {
        permute(b, order, count < MOST ? count : MOST, dim['S']);
    }
    /* Behind rows of experts lies an expert's number, which one row too many would find. */
    if (conf_is_table(name) || (!strcmp(name, "experts") && b->c->layout != LAYOUT_DENSE))
        memset(b->image[o->buffer] + o->view.offset, 0,
               (size_t)(o->view.shape[0] * o->view.stride[0]) + GUARD);
    /* The first that is none is the limit itself. */
    const int32_t limit = (int32_t)index_limit(b, name), none[] = {-2, limit, INT_MAX, INT_MIN};
    const bool bad = may_be_none(b, name);
    for (int64_t i = 0; i < count; i++) {
        int32_t value = index_value(b, name, i, order);
        if (bad && !i && count > 1)
            value = limit;
        else if (bad && !conf_below(&b->random, 8))
            value = none[conf_below(&b->random, 4)];
        memcpy(b->image[o->buffer] + conf_element(o, i), &value, 4);
    }
}

/* Rows with an even number of equal weights, the last of an odd row being none: half of their sum
 * is a sum of weights, and the shortest prefix ends exactly there. */
static bool all_alike(const struct conf_build *b, int64_t row)
{
    return b->c->op == MH_OP_SAMPLE && b->c->values == VALUES_TIES && variant_is(b, "top-p") &&
           row % 2 == 0;
}

/* Rows of scores so small that what rule 8 adds to their sum counts. */
static bool are_hopeless(const struct conf_build *b, const char *name, int64_t row)
{
    return b->c->op == MH_OP_ROUTER && b->c->values == VALUES_WIDE && !strcmp(name, "logits") &&
           row % 4 == 3;
}

/* Rows whose largest are zeros, at first with a sign: none is larger, and the lowest index wins. */
static bool zeros_win(const struct conf_build *b, int64_t row)
{
    return b->c->op == MH_OP_ARGMAX && b->c->values == VALUES_TIES && row % 3 == 1;
}

/* Rows whose largest are neighbours: the last place decides. */
static bool neighbours_win(const struct conf_build *b, int64_t row)
{
    return b->c->op == MH_OP_ARGMAX && b->c->values == VALUES_TIES && row % 3 == 2;
}

/* Rows that have no weight: of NaN alone, and such with an infinity, which is the token. */
static bool weighs_nothing(const struct conf_build *b, int64_t row)
{
    return b->c->op == MH_OP_SAMPLE && b->c->values == VALUES_SPECIAL && row % 3 == 1;
}

/* Columns of the cache of which a third is the smallest number below 0: means that round to -0, and
 * must be +0. */
static bool nearly_vanishes(const struct conf_build *b, const char *name, int64_t column)
{
    return b->c->op == MH_OP_ATTENTION && b->c->values == VALUES_TINY && !strcmp(name, "cache") &&
           column % 4 == 3;
}

static void fill_params(struct conf_build *b, const struct conf_operand *o)
{
    for (int64_t t = 0; t < b->c->dim['T']; t++) {
        mh_sampling s = {.temperature = 0.25f + 2 * fabsf(conf_uniform(&b->random)),
                         .top_p = 65536,
                         .seed = conf_draw(&b->random),
                         .counter = conf_below(&b->random, 5000)};
        bool all = variant_is(b, "all");
        if (variant_is(b, "greedy") || (all && !conf_below(&b->random, 4)))
            s.temperature = 0;
        if (variant_is(b, "top-k") || all)
            s.top_k = 1 + conf_below(&b->random, (uint32_t)b->c->dim['V'] + 3);
        if (variant_is(b, "top-p") || all)
            s.top_p = conf_below(&b->random, 65600);
        if (all_alike(b, t))
            s.top_p = 32768;
        if (variant_is(b, "temperature") && b->c->values == VALUES_SPECIAL && t % 3 == 2)
            s.temperature = INFINITY; /* finite logits weigh alike, infinite ones nothing */
        memcpy(b->image[o->buffer] + o->view.offset + t * o->view.stride[0], &s, 32);
    }
}

/* ---- the rest ---- */

static void fill_free(struct conf_build *b, const struct conf_operand *o)
{
    uint64_t size = mh_dtype_size(o->view.dtype);
    for (int64_t i = 0, n = conf_count(o); i < n; i++) {
        uint64_t bits = conf_draw(&b->random); /* copy moves bits of any kind */
        if (b->c->op == MH_OP_CAST) {
            float value = draw_value(b, true, -18);
            uint16_t half = o->view.dtype == MH_F16 ? conf_to_f16(value) : conf_to_bf16(value);
            bits = half;
            if (o->view.dtype == MH_F32)
                memcpy(&bits, &value, 4);
        }
        memcpy(b->image[o->buffer] + conf_element(o, i), &bits, size);
    }
}

void conf_fill_operand(struct conf_build *b, struct conf_operand *o)
{
    const char *name = o->info.name;
    uint8_t *image = b->image[o->buffer];
    if (o->info.shape[0] == '*') {
        fill_free(b, o);
        return;
    }
    if (!strcmp(name, "params")) {
        fill_params(b, o);
        return;
    }
    if (o->view.dtype == MH_I32) {
        fill_indices(b, o);
        return;
    }
    if (o->view.dtype == MH_U32) { /* the fault word */
        memset(image + o->view.offset, 0, 4);
        return;
    }
    bool special = is_special(b, name);
    int exponent = b->weight_count ? -75 : -130;
    int64_t width = o->view.shape[o->view.rank - 1];
    for (int64_t i = 0, n = conf_count(o); i < n; i++) {
        float value = draw_value(b, special, exponent);
        if (are_hopeless(b, name, i / width))
            value = -64 - fabsf(value);
        if (nearly_vanishes(b, name, i % width))
            value = conf_below(&b->random, 3) ? 0 : -0x1p-149f;
        if (zeros_win(b, i / width) && value > -1)
            value = i % width < width / 2 ? -0.0f : 0.0f;
        if (neighbours_win(b, i / width) && value > 0 && i % width >= width / 2)
            value = nextafterf(value, 2);
        if (all_alike(b, i / width))
            value = i % width == width - 1 && width % 2 ? -INFINITY : 0.5f;
        if (weighs_nothing(b, i / width))
            value = i % width == width / 2 && i / width % 2 == 0 ? INFINITY : NAN;
        uint16_t half = conf_to_bf16(value);
        if (o->view.dtype == MH_F32)
            memcpy(image + conf_element(o, i), &value, 4);
        else
            memcpy(image + conf_element(o, i), &half, 2);
    }
}

static mh_router_rule router_rule(struct conf_build *b)
{
    const char *variant = conf_rule(b->c->op)->variants[b->c->variant];
    bool sigmoid = !strncmp(variant, "sigmoid", 7), all = strstr(variant, "all") != NULL;
    return (mh_router_rule){
        .scoring = sigmoid ? MH_ROUTER_SIGMOID : MH_ROUTER_SOFTMAX,
        .group_score = !strstr(variant, "groups") ? MH_GROUPS_NONE
                       : sigmoid                  ? MH_GROUPS_TOP2
                                                  : MH_GROUPS_MAX,
        .groups = b->c->dim['G'],
        .top_groups = all ? b->c->dim['G'] : b->c->dim['W'],
        .normalise = strstr(variant, "norm") != NULL,
        .scaling = b->c->dim['E'] % 2 ? 2.5f : 1.0f,
    };
}

void conf_set_scalars(struct conf_build *b)
{
    const struct conf_case *c = b->c;
    union conf_op *op = &b->op;
    switch (c->op) {
    case MH_OP_RMSNORM:
        op->rmsnorm.eps = 1e-6f;
        break;
    case MH_OP_MLA_KV:
        op->mla_kv.eps = 1e-6f;
        break;
    case MH_OP_ATTENTION:
        op->attention.scale = 0.7f / sqrtf((float)c->dim['K']);
        break;
    case MH_OP_ATTENTION_PART:
        op->attention_part.scale = 0.7f / sqrtf((float)c->dim['K']);
        op->attention_part.first = c->dim['F'] - 1;
        op->attention_part.stride = c->dim['N'];
        break;
    case MH_OP_ATTENTION_MERGE:
        op->attention_merge.parts = c->dim['N'];
        break;
    case MH_OP_HEAD_LINEAR:
        op->head_linear.head_rows = c->dim['F'];
        op->head_linear.row_count = c->dim['C'];
        op->head_linear.transposed = c->variant == 1;
        /* Many rows as a model's values have them, behind the keys': there FP8's blocks begin. */
        op->head_linear.row_begin =
            c->dim['C'] < 128 ? conf_below(&b->random, (uint32_t)(c->dim['F'] - c->dim['C'] + 1))
                              : c->dim['F'] - c->dim['C'];
        break;
    case MH_OP_MLA_QUERY:
        op->mla_query.head_rows = c->dim['N'] + c->dim['U'];
        break;
    case MH_OP_ROUTER:
        op->router.rule = router_rule(b);
        break;
    case MH_OP_ROUTER_LINEAR:
        op->router_linear.rule = router_rule(b);
        break;
    case MH_OP_NORM_LINEAR:
        op->norm_linear.eps = 1e-6f;
        break;
    case MH_OP_MLA_QKV:
        op->mla_qkv.head_rows = c->dim['N'] + c->dim['U'];
        op->mla_qkv.eps = 1e-6f;
        break;
    case MH_OP_NORM_ROUTER:
        op->norm_router.rule = router_rule(b);
        op->norm_router.eps = 1e-6f;
        break;
    case MH_OP_COMBINE:
        op->combine.expert_count = c->variant >= 2 ? c->dim['E'] : 0;
        op->combine.resident_count = c->variant >= 3 ? c->dim['S'] : 0;
        break;
    case MH_OP_FILL:
        op->fill.bits = (uint32_t)conf_draw(&b->random);
        break;
    default:
        break;
    }
}
