/* case_of_op.c: the case that tries an op of these sizes, for whoever has found one that is wrong.
 */
#include <string.h>

#include "build.h"

static void take_letters(struct conf_case *c, const char *letters, const int64_t *sizes,
                         uint32_t count)
{
    for (uint32_t i = 0; i < count && letters[i]; i++)
        if (letters[i] >= 'A' && letters[i] <= 'Z')
            c->dim[(unsigned char)letters[i]] = sizes[i];
}

static void take_operands(const union conf_op *op, struct conf_case *c)
{
    mh_operand info = MH_INIT(mh_operand);
    for (uint32_t i = 0; !mh_op_operand(op->base.op, i, &info); i++) {
        const void *field = (const char *)op + info.offset;
        if (info.flags & MH_OPERAND_WEIGHT) {
            mh_weight_info w = MH_INIT(mh_weight_info);
            if (mh_weight_get_info(*(mh_weight *const *)field, &w))
                continue;
            const int64_t bank[] = {w.experts, w.out, w.in};
            uint32_t rank = strlen(info.shape) == 3 ? 3 : 2;
            take_letters(c, info.shape, bank + 3 - rank, rank);
            c->format = w.format;
            continue;
        }
        const mh_tensor *t = field;
        if (t->rank && info.shape[0] != '*')
            take_letters(c, info.shape, t->shape, t->rank);
        if (!strcmp(info.name, "cache"))
            c->dtype = t->dtype;
    }
}

static uint32_t variant_named(const struct conf_case *c, const char *name)
{
    const char *const *variants = conf_rule(c->op)->variants;
    for (uint32_t i = 0; variants[i]; i++)
        if (!strcmp(variants[i], name))
            return i;
    return 0;
}

static void take_router(struct conf_case *c, const mh_router_rule *rule, bool bias)
{
    bool sigmoid = rule->scoring == MH_ROUTER_SIGMOID, groups = rule->group_score != MH_GROUPS_NONE;
    c->dim['G'] = groups ? rule->groups : 1;
    c->dim['W'] = groups ? rule->top_groups : 1;
    c->variant = variant_named(c, !sigmoid ? (groups            ? "softmax-groups"
                                              : rule->normalise ? "softmax-norm"
                                                                : "softmax")
                                  : bias   ? (groups ? "sigmoid-bias-groups" : "sigmoid-bias")
                                           : (rule->normalise ? "sigmoid-norm" : "sigmoid"));
}

/* Letters of the names that are no operand's, and the variant. */
static void take_rest(const union conf_op *op, struct conf_case *c)
{
    switch (c->op) {
    case MH_OP_RMSNORM:
        c->variant = op->rmsnorm.residual.rank != 0;
        break;
    case MH_OP_ATTENTION:
        c->dim['R'] = c->dim['K'] - c->dim['L'];
        break;
    case MH_OP_ATTENTION_PART:
        c->dim['L'] = c->dim['W'] - 2;
        c->dim['R'] = c->dim['K'] - c->dim['L'];
        c->dim['F'] = op->attention_part.first + 1;
        c->dim['N'] = op->attention_part.stride;
        break;
    case MH_OP_ATTENTION_MERGE:
        c->dim['N'] = op->attention_merge.parts;
        break;
    case MH_OP_HEAD_LINEAR:
        c->dim['C'] = op->head_linear.row_count;
        c->dim['F'] = op->head_linear.head_rows;
        c->variant = op->head_linear.transposed;
        break;
    case MH_OP_MLA_QUERY:
        c->dim['N'] = c->dim['F'] - c->dim['R'];
        c->dim['U'] = op->mla_query.head_rows - c->dim['N'];
        break;
    case MH_OP_NORM_LINEAR:
        c->variant = op->norm_linear.y2.rank != 0;
        if (!c->variant)
            c->dim['U'] = 1;
        break;
    case MH_OP_MLA_QKV:
        c->dim['N'] = c->dim['F'] - c->dim['R'];
        c->dim['U'] = op->mla_qkv.head_rows - c->dim['N'];
        break;
    case MH_OP_NORM_ROUTER:
        take_router(c, &op->norm_router.rule, op->norm_router.bias.rank);
        break;
    case MH_OP_ROUTER:
        take_router(c, &op->router.rule, op->router.bias.rank);
        break;
    case MH_OP_ROUTER_LINEAR:
        take_router(c, &op->router_linear.rule, op->router_linear.bias.rank);
        break;
    case MH_OP_COMBINE:
        c->dim['E'] = op->combine.expert_count ? op->combine.expert_count : c->dim['J'];
        c->dim['S'] = op->combine.resident_count ? op->combine.resident_count : c->dim['E'];
        c->variant = variant_named(c, op->combine.experts.rank  ? "experts"
                                      : op->combine.shared.rank ? "shared"
                                                                : "plain");
        break;
    default:
        if (c->dim['S'])
            c->variant = variant_named(c, c->dim['E'] ? "map" : "plain");
        if (c->dim['S'] && !c->dim['E'])
            c->dim['E'] = c->dim['S'];
    }
}

bool conf_case_of_op(const mh_op *op, struct conf_case *c)
{
    union conf_op local;
    const struct op_rule *rule = conf_rule(op->op);
    memset(c, 0, sizeof(*c));
    if (!rule || op->struct_size > sizeof(local))
        return false;
    memset(&local, 0, sizeof(local));
    memcpy(&local, op, op->struct_size);
    c->op = op->op;
    take_operands(&local, c);
    take_rest(&local, c);
    struct conf_case wanted = *c;
    conf_case_name(&wanted);
    return conf_case_parse(wanted.name, c);
}
