/* op_rules.c: what the shapes of ops.def cannot say, op by op (contracts: op.h). */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "hal.h"

struct rules {
    mh_runtime *runtime;
    const mh_op *op;
    const int64_t *dims;
};

#define DIM(letter) (r->dims[(letter) - 'A'])
#define FAIL(...) fail(r, __LINE__, __VA_ARGS__)
#define UNLESS(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return FAIL(__VA_ARGS__);                                                              \
    } while (0)

MH_PRINTF(3, 4)
static mh_status fail(const struct rules *r, uint32_t line, const char *format, ...)
{
    char label[160], text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return hal_fail_at(r->runtime, __FILE__, line, MH_INVALID_ARGUMENT, NULL, "%s: %s",
                       hal_op_label(r->op, label, sizeof(label)), text);
}

static mh_status eps_is_sane(const struct rules *r, float eps)
{
    UNLESS(eps >= 0 && isfinite(eps), "eps is %g, must be finite and not negative", (double)eps);
    return MH_OK;
}

static mh_status rope_is_even(const struct rules *r)
{
    UNLESS(DIM('R') % 2 == 0, "R is %lld, must be even", (long long)DIM('R'));
    return MH_OK;
}

static mh_status parts_add_up(const struct rules *r, char whole, int64_t a, int64_t b,
                              const char *what)
{
    UNLESS(a + b == DIM(whole), "%c is %lld, must be %s = %lld", whole, (long long)DIM(whole), what,
           (long long)(a + b));
    return MH_OK;
}

static mh_status same_formats(const struct rules *r, const char *name, const mh_weight *weight,
                              const char *other_name, const mh_weight *other)
{
    UNLESS(weight->view.format == other->view.format, "%s is %s, %s is %s: must be the same format",
           name, mh_format_name(weight->view.format), other_name,
           mh_format_name(other->view.format));
    return MH_OK;
}

static mh_status router_rule(const struct rules *r, const mh_router_rule *rule)
{
    int64_t experts = DIM('E'), k = DIM('J');
    UNLESS(rule->scoring == MH_ROUTER_SIGMOID || rule->scoring == MH_ROUTER_SOFTMAX,
           "scoring is %u, unknown", rule->scoring);
    UNLESS(rule->group_score <= MH_GROUPS_MAX, "group_score is %u, unknown", rule->group_score);
    UNLESS(rule->normalise <= 1, "normalise is %u, must be 0 or 1", rule->normalise);
    UNLESS(k <= experts, "k is %lld, at most E = %lld", (long long)k, (long long)experts);
    if (rule->group_score == MH_GROUPS_NONE)
        return MH_OK;
    UNLESS(rule->groups >= 1 && rule->groups <= experts && experts % rule->groups == 0,
           "groups is %lld, must divide E = %lld", (long long)rule->groups, (long long)experts);
    UNLESS(rule->top_groups >= 1 && rule->top_groups <= rule->groups,
           "top_groups is %lld, must be 1 to groups = %lld", (long long)rule->top_groups,
           (long long)rule->groups);
    UNLESS(k <= experts / rule->groups * rule->top_groups,
           "k is %lld, but the chosen groups hold %lld experts", (long long)k,
           (long long)(experts / rule->groups * rule->top_groups));
    return MH_OK;
}

static mh_status rmsnorm(const struct rules *r, const mh_op_rmsnorm *o)
{
    UNLESS(!o->residual.rank == !o->sum.rank, "residual and sum go together");
    return eps_is_sane(r, o->eps);
}

static mh_status attention(const struct rules *r, const mh_op_attention *o)
{
    UNLESS(DIM('L') <= DIM('K'), "y has L = %lld, more than a cache row's %lld",
           (long long)DIM('L'), (long long)DIM('K'));
    UNLESS(isfinite(o->scale), "scale is not finite");
    return MH_OK;
}

static mh_status attention_part(const struct rules *r, const mh_op_attention_part *o)
{
    UNLESS(DIM('W') >= 3 && DIM('W') - 2 <= DIM('K'),
           "y has rows of L + 2 = %lld, must be 3 to %lld", (long long)DIM('W'),
           (long long)DIM('K') + 2);
    const int64_t most = 1 << 23; /* segments that i32 positions have */
    UNLESS(o->first >= 0 && o->first < most, "first is %lld, must be 0 to 2^23 - 1",
           (long long)o->first);
    UNLESS(o->stride >= 1 && o->stride < most, "stride is %lld, must be 1 to 2^23 - 1",
           (long long)o->stride);
    UNLESS(o->first + (DIM('S') - 1) * o->stride < most,
           "segment first + (S - 1) * stride is %lld, must be below 2^23",
           (long long)(o->first + (DIM('S') - 1) * o->stride));
    UNLESS(isfinite(o->scale), "scale is not finite");
    return MH_OK;
}

static mh_status attention_merge(const struct rules *r, const mh_op_attention_merge *o)
{
    UNLESS(DIM('W') == DIM('L') + 2, "x has rows of %lld, must be L + 2 = %lld",
           (long long)DIM('W'), (long long)DIM('L') + 2);
    UNLESS(o->parts >= 1 && o->parts <= 65536, "parts is %lld, must be 1 to 65536",
           (long long)o->parts);
    UNLESS(!DIM('T') || DIM('U') == o->parts * DIM('T'),
           "x has %lld rows, must be parts * T = %lld", (long long)DIM('U'),
           (long long)(o->parts * DIM('T')));
    return MH_OK;
}

static mh_status head_linear(const struct rules *r, const mh_op_head_linear *o)
{
    int64_t rows = o->head_rows;
    UNLESS(o->transposed <= 1, "transposed is %u, must be 0 or 1", o->transposed);
    UNLESS(rows >= 1 && rows <= INT32_MAX && DIM('H') * rows == DIM('A'),
           "w has %lld rows, must be H * head_rows = %lld * %lld", (long long)DIM('A'),
           (long long)DIM('H'), (long long)rows);
    UNLESS(o->row_begin >= 0 && o->row_count >= 1 && o->row_begin < rows &&
               o->row_count <= rows - o->row_begin,
           "rows %lld + %lld are not inside head_rows = %lld", (long long)o->row_begin,
           (long long)o->row_count, (long long)rows);
    int64_t y = o->transposed ? DIM('B') : o->row_count;
    int64_t x = o->transposed ? o->row_count : DIM('B');
    UNLESS(DIM('M') == y, "y: last dimension is %lld, must be %lld", (long long)DIM('M'),
           (long long)y);
    UNLESS(DIM('N') == x, "x: last dimension is %lld, must be %lld", (long long)DIM('N'),
           (long long)x);
    return MH_OK;
}

static mh_status mla_kv(const struct rules *r, const mh_op_mla_kv *o)
{
    UNLESS(DIM('X') >= DIM('M') * DIM('P'), "table has %lld positions, the cache has room for %lld",
           (long long)DIM('X'), (long long)(DIM('M') * DIM('P')));
    mh_status status = rope_is_even(r);
    if (!status)
        status = parts_add_up(r, 'K', DIM('L'), DIM('R'), "L + R");
    return status ? status : eps_is_sane(r, o->eps);
}

static mh_status mla_query(const struct rules *r, const mh_op_mla_query *o)
{
    int64_t nope = DIM('F') - DIM('R');
    UNLESS(o->head_rows >= 1 && o->head_rows <= INT32_MAX && DIM('H') * o->head_rows == DIM('A'),
           "w has %lld rows, must be H * head_rows = %lld * %lld", (long long)DIM('A'),
           (long long)DIM('H'), (long long)o->head_rows);
    UNLESS(nope >= 1 && nope <= o->head_rows, "q leaves N = %lld, must be 1 to head_rows = %lld",
           (long long)nope, (long long)o->head_rows);
    mh_status status = rope_is_even(r);
    return status ? status : parts_add_up(r, 'K', DIM('L'), DIM('R'), "L + R");
}

static mh_status norm_linear(const struct rules *r, const mh_op_norm_linear *o)
{
    UNLESS(!o->w2 == !o->y2.rank, "w2 and y2 go together");
    mh_status status = eps_is_sane(r, o->eps);
    return status || !o->w2 ? status : same_formats(r, "w", o->w, "w2", o->w2);
}

/* The two ops it is made of, by their own rules. */
static mh_status mla_qkv(const struct rules *r, const mh_op_mla_qkv *o)
{
    const mh_op_mla_query query = {.head_rows = o->head_rows};
    const mh_op_mla_kv kv = {.eps = o->eps};
    mh_status status = mla_kv(r, &kv);
    return status ? status : mla_query(r, &query);
}

static mh_status norm_router(const struct rules *r, const mh_op_norm_router *o)
{
    mh_status status = eps_is_sane(r, o->eps);
    return status ? status : router_rule(r, &o->rule);
}

static mh_status moe_gate_up(const struct rules *r, const mh_op_moe_gate_up *o)
{
    mh_status status = same_formats(r, "gate", o->gate, "up", o->up);
    if (!status)
        status = same_formats(r, "gate", o->gate, "shared_gate", o->shared_gate);
    return status ? status : same_formats(r, "gate", o->gate, "shared_up", o->shared_up);
}

static mh_status combine(const struct rules *r, const mh_op_combine *o)
{
    UNLESS(!o->expert_map.rank || o->experts.rank, "expert_map needs experts");
    UNLESS(o->experts.rank ? o->expert_count >= 1 : !o->expert_count,
           "expert_count is %lld, must be %s", (long long)o->expert_count,
           o->experts.rank ? "at least 1" : "0 without experts");
    UNLESS(o->resident_count >= 0 && (!o->resident_count || o->experts.rank),
           "resident_count is %lld, must be 0 without experts, and not negative",
           (long long)o->resident_count);
    UNLESS(!o->expert_map.rank || o->expert_count == DIM('E'),
           "expert_count is %lld, expert_map has %lld", (long long)o->expert_count,
           (long long)DIM('E'));
    return MH_OK;
}

static mh_status same_shapes(const struct rules *r, const mh_tensor *y, const mh_tensor *x)
{
    UNLESS(y->rank == x->rank, "y has rank %u, x has rank %u", y->rank, x->rank);
    for (uint32_t i = 0; i < y->rank; i++)
        UNLESS(y->shape[i] == x->shape[i], "dimension %u is %lld in y, %lld in x", i,
               (long long)y->shape[i], (long long)x->shape[i]);
    return MH_OK;
}

static mh_status copy(const struct rules *r, const mh_op_copy *o)
{
    UNLESS(o->y.dtype == o->x.dtype, "y is %s, x is %s: use cast", mh_dtype_name(o->y.dtype),
           mh_dtype_name(o->x.dtype));
    return same_shapes(r, &o->y, &o->x);
}

static mh_status sample(const struct rules *r, const mh_op_sample *o)
{
    UNLESS(o->params.offset % 8 == 0 && o->params.stride[0] % 8 == 0,
           "params: offset %llu and stride %lld must be multiples of 8",
           (unsigned long long)o->params.offset, (long long)o->params.stride[0]);
    UNLESS(DIM('V') <= 1 << 18, "logits: vocabulary of %lld, at most 2^18 (rule 10's sums)",
           (long long)DIM('V'));
    return MH_OK;
}

mh_status hal_check_rules(mh_runtime *runtime, const mh_op *op, const int64_t *dims)
{
    const struct rules rules = {runtime, op, dims}, *r = &rules;
    switch (op->op) {
#define CASE(NAME, name)                                                                           \
    case MH_OP_##NAME: {                                                                           \
        const mh_op_##name *o = (const void *)op;                                                  \
        (void)o;
#define END }
        CASE(RMSNORM, rmsnorm) return rmsnorm(r, o);
        END CASE(ROPE, rope) return rope_is_even(r);
        END CASE(KV_WRITE, kv_write) return parts_add_up(r, 'K', DIM('L'), DIM('R'), "L + R");
        END CASE(ATTENTION, attention) return attention(r, o);
        END CASE(ATTENTION_PART, attention_part) return attention_part(r, o);
        END CASE(ATTENTION_MERGE, attention_merge) return attention_merge(r, o);
        END CASE(HEAD_LINEAR, head_linear) return head_linear(r, o);
        END CASE(ROUTER, router) return router_rule(r, &o->rule);
        END CASE(ROUTER_LINEAR, router_linear) return router_rule(r, &o->rule);
        END CASE(EXPERTS_GATE_UP, experts_gate_up) return same_formats(r, "gate", o->gate, "up",
                                                                       o->up);
        END CASE(COMBINE, combine) return combine(r, o);
        END CASE(LINEAR_SWIGLU, linear_swiglu) return same_formats(r, "gate", o->gate, "up", o->up);
        END CASE(MLA_KV, mla_kv) return mla_kv(r, o);
        END CASE(MLA_QUERY, mla_query) return mla_query(r, o);
        END CASE(NORM_LINEAR, norm_linear) return norm_linear(r, o);
        END CASE(MLA_QKV, mla_qkv) return mla_qkv(r, o);
        END CASE(NORM_ROUTER, norm_router) return norm_router(r, o);
        END CASE(MOE_GATE_UP, moe_gate_up) return moe_gate_up(r, o);
        END CASE(MOE_DOWN_COMBINE, moe_down_combine) return same_formats(r, "w", o->w, "shared_w",
                                                                         o->shared_w);
        END CASE(COPY, copy) return copy(r, o);
        END CASE(CAST, cast) return same_shapes(r, &o->y, &o->x);
        END CASE(SAMPLE, sample) return sample(r, o);
        END
#undef CASE
#undef END
            default : return MH_OK;
    }
}

bool hal_may_be_in_place(mh_op_id op, const struct hal_operand *output,
                         const struct hal_operand *other)
{
#define PAIR(name, y, x)                                                                           \
    {                                                                                              \
        offsetof(mh_op_##name, y), offsetof(mh_op_##name, x)                                       \
    }
    static const struct {
        uint16_t output, other; /* no operand is at 0 */
    } allowed[HAL_OP_LIMIT][4] = {
        [MH_OP_RMSNORM] = {PAIR(rmsnorm, y, x), PAIR(rmsnorm, sum, x),
                           PAIR(rmsnorm, sum, residual)},
        [MH_OP_LINEAR_ADD] = {PAIR(linear_add, y, residual)},
        [MH_OP_SWIGLU] = {PAIR(swiglu, y, gate), PAIR(swiglu, y, up)},
        [MH_OP_ADD] = {PAIR(add, y, a), PAIR(add, y, b)},
        [MH_OP_ROPE] = {PAIR(rope, y, x)},
        [MH_OP_COMBINE] = {PAIR(combine, y, h)},
        [MH_OP_EXPERTS_DOWN_COMBINE] = {PAIR(experts_down_combine, y, h)},
        [MH_OP_MOE_DOWN_COMBINE] = {PAIR(moe_down_combine, y, h)},
    };
#undef PAIR
    for (int i = 0; allowed[op][i].output; i++)
        if (allowed[op][i].output == output->offset && allowed[op][i].other == other->offset)
            return true;
    return false;
}
