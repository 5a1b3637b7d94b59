/* graph.c: the DeepSeek graph as ops, once for every use: asking, recording, sizing. */
#include <string.h>

#include "model.h"

struct builder {
    struct mh_model *model;
    struct model_rank *rank;
    const mh_config *config;
    const struct model_step *step;
    model_emit_fn emit;
    void *context;
    int32_t layer;
    mh_status status;
};

/* One op: its header's small print and its weights. Errors stick, so that the graph reads straight.
 */
static void put(struct builder *b, mh_op *op, const char *label, mh_weight ***slots)
{
    if (b->status)
        return;
    op->layer = b->layer;
    op->label = label;
    op->flags = b->model->profile == MH_PROFILE_FAST ? MH_OP_FAST : 0;
    b->status = b->emit(b->context, op, slots);
}

/* PUT(op, label, &weight, ...): the places its weights come from, or NULL. */
#define PUT(op, label, ...) put(b, &(op).base, (label), (mh_weight * *[]){__VA_ARGS__, NULL})

/* Fused ops want their weights in one format; a checkpoint may mix them. */
static bool same_format(mh_weight *a, mh_weight *b)
{
    mh_weight_info first = MH_INIT(mh_weight_info), second = first;
    return !mh_weight_get_info(a, &first) && !mh_weight_get_info(b, &second) &&
           first.format == second.format;
}

static void norm(struct builder *b, mh_tensor y, mh_tensor x, mh_tensor w, const char *label)
{
    mh_op_rmsnorm op = MH_OP_INIT(rmsnorm, RMSNORM);
    op.y = y, op.x = x, op.w = w, op.eps = (float)b->config->rms_norm_eps;
    PUT(op, label, NULL);
}

static void linear(struct builder *b, mh_tensor y, mh_tensor x, mh_weight **w, const char *label)
{
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    op.y = y, op.x = x, op.w = *w;
    PUT(op, label, w);
}

static void linear_add(struct builder *b, mh_tensor h, mh_tensor x, mh_weight **w,
                       const char *label)
{
    mh_op_linear_add op = MH_OP_INIT(linear_add, LINEAR_ADD);
    op.y = h, op.x = x, op.residual = h, op.w = *w;
    PUT(op, label, w);
}

static void norm_linear(struct builder *b, mh_tensor y, mh_tensor x, mh_tensor w_norm, double eps,
                        mh_weight **w, const char *label)
{
    mh_op_norm_linear op = MH_OP_INIT(norm_linear, NORM_LINEAR);
    op.y = y, op.x = x, op.norm = w_norm, op.eps = (float)eps, op.w = *w;
    PUT(op, label, w);
}

static void gated(struct builder *b, mh_tensor y, mh_tensor x, struct model_layer *l,
                  const char *label)
{
    mh_op_linear_swiglu op = MH_OP_INIT(linear_swiglu, LINEAR_SWIGLU);
    op.y = y, op.x = x, op.gate = l->gate, op.up = l->up;
    PUT(op, label, &l->gate, &l->up);
}

/* [rows, heads * n] seen as [rows, heads, n], and back. */
static mh_tensor as_heads(mh_tensor t, int64_t heads)
{
    t.rank = 3;
    t.shape[2] = t.shape[1] / heads, t.stride[2] = t.stride[1];
    t.shape[1] = heads, t.stride[1] = t.shape[2] * t.stride[2];
    return t;
}

/* What attention takes from the residual: q (or its first half), and the latent row. */
static void project(struct builder *b, struct model_layer *l)
{
    const mh_config *c = b->config;
    const struct model_step *s = b->step;
    bool low_rank = c->q_lora_rank != 0;
    mh_weight **q = low_rank ? &l->q_a : &l->q;
    mh_op_norm_linear op = MH_OP_INIT(norm_linear, NORM_LINEAR);
    op.y = low_rank ? s->q_a : s->q, op.x = s->h, op.norm = l->attention_norm;
    op.eps = (float)c->rms_norm_eps, op.w = *q;
    if (same_format(*q, l->kv_a)) {
        op.y2 = s->kv, op.w2 = l->kv_a;
        PUT(op, "qkv_a_proj", q, &l->kv_a);
    } else {
        PUT(op, low_rank ? "q_a_proj" : "q_proj", q);
        op.y = s->kv, op.w = l->kv_a;
        PUT(op, "kv_a_proj_with_mqa", &l->kv_a);
    }
    if (low_rank)
        norm_linear(b, s->q, s->q_a, l->q_a_norm, c->latent_norm_eps, &l->q_b, "q_b_proj");
}

const mh_op model_gather, model_fetch, model_send, model_receive;

static void mark(struct builder *b, const mh_op *which)
{
    if (!b->status)
        b->status = b->emit(b->context, which, NULL);
}

/* What attention takes, of all keys or of some. */
#define TAKE_KEYS(op)                                                                              \
    do {                                                                                           \
        (op).q = b->step->query, (op).cache = b->step->cache[b->layer];                            \
        (op).positions = b->step->positions, (op).slots = b->step->slots;                          \
        (op).page_table = b->step->page_table, (op).fault = b->step->fault;                        \
        (op).scale = (float)mh_config_softmax_scale(b->config);                                    \
    } while (0)

static void attend_all(struct builder *b)
{
    mh_op_attention op = MH_OP_INIT(attention, ATTENTION);
    TAKE_KEYS(op);
    op.y = b->step->attended;
    PUT(op, "attention", NULL);
}

/* To the keys that this rank has; then all that was found of all keys is merged. */
static void attend_part(struct builder *b)
{
    const struct model_step *s = b->step;
    mh_op_attention_part op = MH_OP_INIT(attention_part, ATTENTION_PART);
    TAKE_KEYS(op);
    op.y = s->own_part;
    op.first = b->rank->number, op.stride = s->parts;
    PUT(op, "attention", NULL);
    mark(b, &model_gather);
    mh_op_attention_merge merge = MH_OP_INIT(attention_merge, ATTENTION_MERGE);
    merge.y = s->attended, merge.x = s->all_parts, merge.positions = s->positions;
    merge.fault = s->fault, merge.parts = s->parts;
    PUT(merge, "attention", NULL);
}

static void attention(struct builder *b, struct model_layer *l)
{
    const mh_config *c = b->config;
    const struct model_step *s = b->step;
    int64_t heads = c->num_attention_heads;
    project(b, l);

    mh_op_mla_qkv qkv = MH_OP_INIT(mla_qkv, MLA_QKV);
    qkv.y = s->query, qkv.cache = s->cache[b->layer];
    qkv.q = as_heads(s->q, heads), qkv.kv = s->kv, qkv.norm = l->kv_a_norm;
    qkv.table = s->rope_table, qkv.positions = s->positions;
    qkv.slots = s->segments ? s->writes : s->slots;
    qkv.page_table = s->page_table, qkv.fault = s->fault, qkv.w = l->kv_b;
    qkv.head_rows = c->qk_nope_head_dim + c->v_head_dim;
    qkv.eps = (float)c->latent_norm_eps;
    PUT(qkv, "kv_b_proj", &l->kv_b);

    if (s->segments)
        attend_part(b);
    else
        attend_all(b);

    mh_op_head_linear values = MH_OP_INIT(head_linear, HEAD_LINEAR);
    values.y = as_heads(s->values, heads), values.x = s->attended, values.w = l->kv_b;
    values.head_rows = c->qk_nope_head_dim + c->v_head_dim;
    values.row_begin = c->qk_nope_head_dim, values.row_count = c->v_head_dim;
    PUT(values, "kv_b_proj", &l->kv_b);

    linear_add(b, s->h, s->values, &l->o, "o_proj");
}

static mh_router_rule router_rule(const mh_config *c)
{
    bool grouped = c->grouped && c->n_group > 1;
    bool v3 = c->scoring == MH_SCORING_SIGMOID;
    return (mh_router_rule){
        .scoring = v3 ? MH_ROUTER_SIGMOID : MH_ROUTER_SOFTMAX,
        .group_score = !grouped ? MH_GROUPS_NONE
                       : v3     ? MH_GROUPS_TOP2
                                : MH_GROUPS_MAX,
        .groups = c->n_group,
        .top_groups = c->topk_group,
        .normalise = c->norm_topk_prob,
        .scaling = (float)c->routed_scaling_factor,
    };
}

static void routed_experts(struct builder *b, struct model_layer *l)
{
    const struct model_step *s = b->step;
    mh_op_experts_gate_up up = MH_OP_INIT(experts_gate_up, EXPERTS_GATE_UP);
    up.y = s->expert_ffn, up.x = s->x, up.experts = model_layer_experts(s, b->layer);
    up.fault = s->fault, up.gate = l->expert_gate, up.up = l->expert_up;
    PUT(up, "experts", &l->expert_gate, &l->expert_up);
}

/* The experts that this rank serves to one group of rows. */
static void serve_group(struct builder *b, struct model_layer *l, uint32_t group)
{
    const struct model_step *s = b->step;
    int64_t experts = b->config->n_routed_experts;
    uint32_t groups = b->model->placement.groups;
    int64_t first = placement_row(s->rows, group, groups);
    int64_t rows = placement_row(s->rows, group + 1, groups) - first;
    if (!rows)
        return;
    mh_tensor chosen = mh_tensor_slice(model_layer_experts(s, b->layer), 0, first, rows);
    mh_tensor map = mh_tensor_slice(l->expert_map, 0, group * experts, experts);
    mh_tensor ffn = mh_tensor_slice(s->expert_ffn, 0, first, rows);
    mh_op_experts_gate_up up = MH_OP_INIT(experts_gate_up, EXPERTS_GATE_UP);
    up.y = ffn, up.x = mh_tensor_slice(s->x, 0, first, rows), up.experts = chosen;
    up.expert_map = map, up.fault = s->fault, up.gate = l->expert_gate, up.up = l->expert_up;
    PUT(up, "experts", &l->expert_gate, &l->expert_up);
    mh_op_experts_down down = MH_OP_INIT(experts_down, EXPERTS_DOWN);
    down.y = mh_tensor_slice(s->expert_slots, 0, first, rows), down.x = ffn;
    down.experts = chosen, down.expert_map = map, down.fault = s->fault, down.w = l->expert_down;
    PUT(down, "experts.down_proj", &l->expert_down);
}

static void combine_experts(struct builder *b, struct model_layer *l, const mh_tensor *shared)
{
    const struct model_step *s = b->step;
    mh_op_experts_down_combine down = MH_OP_INIT(experts_down_combine, EXPERTS_DOWN_COMBINE);
    down.y = s->h, down.h = s->h, down.x = s->expert_ffn, down.weights = s->weights;
    down.experts = model_layer_experts(s, b->layer), down.fault = s->fault, down.w = l->expert_down;
    if (shared)
        down.shared = *shared;
    PUT(down, "experts.down_proj", &l->expert_down);
}

/* Every rank runs the experts it has, and sums the slots of all. They are on their way while the
 * shared experts run. */
static void split_experts(struct builder *b, struct model_layer *l, mh_tensor shared_ffn)
{
    const struct model_step *s = b->step;
    if (b->model->fetches)
        mark(b, &model_fetch);
    for (uint32_t g = 0; l->expert_count && g < b->model->placement.groups; g++)
        serve_group(b, l, g);
    mark(b, &model_send);
    mh_op_combine combine = MH_OP_INIT(combine, COMBINE);
    combine.y = s->h, combine.h = s->h, combine.e = s->expert_slots, combine.weights = s->weights;
    combine.fault = s->fault;
    if (b->config->n_shared_experts) {
        gated(b, shared_ffn, s->x, l, "shared_experts");
        linear(b, s->shared, shared_ffn, &l->down, "shared_experts.down_proj");
        combine.shared = s->shared;
    }
    mark(b, &model_receive);
    PUT(combine, "experts.combine", NULL);
}

static void experts(struct builder *b, struct model_layer *l)
{
    const mh_config *c = b->config;
    const struct model_step *s = b->step;
    mh_op_norm_router route = MH_OP_INIT(norm_router, NORM_ROUTER);
    route.experts = model_layer_experts(s, b->layer), route.weights = s->weights, route.y = s->x,
    route.x = s->h;
    route.norm = l->ffn_norm, route.eps = (float)c->rms_norm_eps;
    route.bias = l->router_bias, route.w = l->router, route.rule = router_rule(c);
    PUT(route, "gate", &l->router);

    mh_tensor ffn = mh_tensor_slice(s->ffn, 1, 0, c->n_shared_experts * c->moe_intermediate_size);
    bool shared = c->n_shared_experts != 0;
    if (s->split) {
        split_experts(b, l, ffn);
        return;
    }
    if (shared && same_format(l->gate, l->expert_gate)) {
        mh_op_moe_gate_up up = MH_OP_INIT(moe_gate_up, MOE_GATE_UP);
        up.y = s->expert_ffn, up.shared_y = ffn, up.x = s->x;
        up.experts = model_layer_experts(s, b->layer);
        up.fault = s->fault, up.gate = l->expert_gate, up.up = l->expert_up;
        up.shared_gate = l->gate, up.shared_up = l->up;
        PUT(up, "experts", &l->expert_gate, &l->expert_up, &l->gate, &l->up);
    } else {
        routed_experts(b, l);
        if (shared)
            gated(b, ffn, s->x, l, "shared_experts");
    }
    if (shared && same_format(l->down, l->expert_down)) {
        mh_op_moe_down_combine down = MH_OP_INIT(moe_down_combine, MOE_DOWN_COMBINE);
        down.y = s->h, down.h = s->h, down.x = s->expert_ffn, down.shared_x = ffn;
        down.weights = s->weights, down.experts = model_layer_experts(s, b->layer),
        down.fault = s->fault;
        down.w = l->expert_down, down.shared_w = l->down;
        PUT(down, "experts.down_proj", &l->expert_down, &l->down);
    } else {
        if (shared)
            linear(b, s->shared, ffn, &l->down, "shared_experts.down_proj");
        combine_experts(b, l, shared ? &s->shared : NULL);
    }
}

static void keep_hidden(struct builder *b, int64_t index, mh_tensor h)
{
    if (!b->step->hidden)
        return;
    mh_op_copy op = MH_OP_INIT(copy, COPY);
    op.y = b->step->hidden[index], op.x = h;
    PUT(op, "hidden", NULL);
}

static void head(struct builder *b)
{
    const struct model_step *s = b->step;
    int64_t first = s->rows - s->head_rows;
    bool all = s->hidden != NULL; /* hidden states want every row normed */
    if (!s->head_rows && !all)
        return;
    mh_tensor last = mh_tensor_slice(s->h, 0, first, s->head_rows);
    if (all) {
        norm(b, s->x, s->h, b->rank->final_norm, "norm");
        keep_hidden(b, b->config->num_hidden_layers, s->x);
    }
    if (!s->head_rows)
        return;
    norm_linear(b, s->logits, last, b->rank->final_norm, b->config->rms_norm_eps, &b->rank->head,
                "lm_head");
    mh_op_sample sample = MH_OP_INIT(sample, SAMPLE);
    sample.y = mh_tensor_slice(s->next, 0, first, s->head_rows);
    sample.params = mh_tensor_slice(s->sampling, 0, first, s->head_rows);
    sample.logits = s->logits;
    PUT(sample, "sample", NULL);
}

mh_status model_build(struct mh_model *model, struct model_rank *rank,
                      const struct model_step *step, model_emit_fn emit, void *context)
{
    struct builder builder = {model, rank, model->config, step, emit, context, -1, MH_OK};
    struct builder *b = &builder;
    const mh_config *c = b->config;
    mh_op_embed embed = MH_OP_INIT(embed, EMBED);
    embed.y = step->h, embed.tokens = step->tokens, embed.table = rank->embedding;
    embed.fault = step->fault;
    PUT(embed, "embed_tokens", &rank->embedding);
    for (int64_t i = 0; i < c->num_hidden_layers; i++) {
        struct model_layer *l = &rank->layers[i];
        keep_hidden(b, i, step->h);
        b->layer = (int32_t)i;
        attention(b, l);
        if (mh_config_is_moe(c, i)) {
            experts(b, l);
        } else {
            norm(b, step->x, step->h, l->ffn_norm, "post_attention_layernorm");
            mh_tensor ffn = mh_tensor_slice(step->ffn, 1, 0, c->intermediate_size);
            gated(b, ffn, step->x, l, "mlp");
            linear_add(b, step->h, ffn, &l->down, "mlp.down_proj");
        }
    }
    b->layer = -1;
    head(b);
    return b->status;
}

/* ---- activations ---- */

static mh_tensor lay(mh_buffer *buffer, uint64_t *used, mh_dtype dtype, uint32_t rank, int64_t a,
                     int64_t b, int64_t c)
{
    const int64_t shape[] = {a, b, c};
    mh_tensor t = mh_tensor_make(buffer, *used, dtype, rank, shape);
    uint64_t bytes = 4 * (uint64_t)a * (uint64_t)b * (rank > 2 ? (uint64_t)c : 1);
    *used += (bytes + 255) & ~UINT64_C(255);
    return t;
}

static mh_tensor lay_part(const mh_config *c, mh_buffer *buffer, uint64_t *used, int64_t rows,
                          int64_t segments)
{
    const int64_t shape[] = {rows, c->num_attention_heads, segments, c->kv_lora_rank + 2};
    mh_tensor t = mh_tensor_make(buffer, *used, MH_F32, 4, shape);
    uint64_t bytes = (uint64_t)(rows * t.stride[0]);
    *used += (bytes + 255) & ~UINT64_C(255);
    return t;
}

static int64_t max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Each layer's begin at 256 bytes. */
uint64_t model_choices_bytes(const mh_config *c, int64_t rows)
{
    int64_t layer = (4 * rows * max(c->num_experts_per_tok, 1) + 255) / 256 * 256;
    return (uint64_t)(layer * c->num_hidden_layers);
}

mh_tensor model_layer_experts(const struct model_step *step, int64_t layer)
{
    mh_tensor t = mh_tensor_slice(step->experts, 0, layer, 1);
    t.rank = 2;
    for (uint32_t i = 0; i < 2; i++)
        t.shape[i] = t.shape[i + 1], t.stride[i] = t.stride[i + 1];
    return t;
}

uint64_t model_lay_out(const mh_config *c, mh_buffer *buffer, struct model_step *s)
{
    int64_t rows = s->rows, heads = c->num_attention_heads, k = max(c->num_experts_per_tok, 1);
    int64_t row = c->kv_lora_rank + c->qk_rope_head_dim;
    uint64_t used = 0;
#define LAY2(b) lay(buffer, &used, MH_F32, 2, rows, b, 0)
#define LAY3(b, c) lay(buffer, &used, MH_F32, 3, rows, b, c)
    s->h = LAY2(c->hidden_size);
    s->x = LAY2(c->hidden_size);
    s->q_a = LAY2(max(c->q_lora_rank, 1));
    s->q = LAY2(heads * (c->qk_nope_head_dim + c->qk_rope_head_dim));
    s->kv = LAY2(row);
    s->query = LAY3(heads, row);
    s->attended = LAY3(heads, c->kv_lora_rank);
    s->values = LAY2(heads * c->v_head_dim);
    s->ffn = LAY2(max(c->intermediate_size, c->n_shared_experts * c->moe_intermediate_size));
    s->shared = LAY2(c->hidden_size);
    s->expert_ffn = LAY3(k, max(c->moe_intermediate_size, 1));
    s->weights = LAY2(k);
    const int64_t chosen[] = {c->num_hidden_layers, rows, k};
    uint64_t choices = model_choices_bytes(c, rows);
    s->experts = mh_tensor_make(buffer, used, MH_I32, 3, chosen);
    s->experts.stride[0] = (int64_t)choices / c->num_hidden_layers;
    used += choices;
    if (s->split)
        s->expert_slots = LAY3(k, c->hidden_size);
    s->logits = lay(buffer, &used, MH_F32, 2, max(s->head_rows, 1), c->vocab_size, 0);
    if (s->segments) {
        s->own_part = lay_part(c, buffer, &used, rows, s->segments);
        s->all_parts = lay_part(c, buffer, &used, s->parts * rows, s->segments);
    }
#undef LAY2
#undef LAY3
    return used;
}
