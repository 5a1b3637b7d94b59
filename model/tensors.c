#include "tensors.h"

#include <stdarg.h>
#include <stdio.h>

struct walk {
    const mh_config *config;
    model_tensor_fn fn;
    void *context;
    int64_t layer, expert;
    mh_status status;
};

MH_PRINTF(6, 7)
static void visit(struct walk *w, enum model_tensor_id id, int64_t rows, int64_t columns,
                  bool may_be_fp8, const char *format, ...)
{
    if (w->status)
        return;
    struct model_tensor t = {id, w->layer, w->expert, rows, columns, may_be_fp8, ""};
    int used =
        w->layer < 0 ? 0 : snprintf(t.name, sizeof(t.name), "model.layers.%d.", (int)w->layer);
    va_list args;
    va_start(args, format);
    vsnprintf(t.name + used, sizeof(t.name) - (size_t)used, format, args);
    va_end(args);
    w->status = w->fn(w->context, &t);
}

static void visit_attention(struct walk *w)
{
    const mh_config *c = w->config;
    int64_t D = c->hidden_size, H = c->num_attention_heads, Q = c->q_lora_rank;
    int64_t L = c->kv_lora_rank, R = c->qk_rope_head_dim, N = c->qk_nope_head_dim;
    visit(w, TENSOR_ATTENTION_NORM, D, 0, false, "input_layernorm.weight");
    if (Q) {
        visit(w, TENSOR_Q_A, Q, D, true, "self_attn.q_a_proj.weight");
        visit(w, TENSOR_Q_A_NORM, Q, 0, false, "self_attn.q_a_layernorm.weight");
        visit(w, TENSOR_Q_B, H * (N + R), Q, true, "self_attn.q_b_proj.weight");
    } else {
        visit(w, TENSOR_Q, H * (N + R), D, true, "self_attn.q_proj.weight");
    }
    visit(w, TENSOR_KV_A, L + R, D, true, "self_attn.kv_a_proj_with_mqa.weight");
    visit(w, TENSOR_KV_A_NORM, L, 0, false, "self_attn.kv_a_layernorm.weight");
    visit(w, TENSOR_KV_B, H * (N + c->v_head_dim), L, true, "self_attn.kv_b_proj.weight");
    visit(w, TENSOR_O, D, H * c->v_head_dim, true, "self_attn.o_proj.weight");
}

static void visit_mlp(struct walk *w, enum model_tensor_id gate, int64_t width, const char *prefix)
{
    int64_t D = w->config->hidden_size;
    visit(w, gate, width, D, true, "%sgate_proj.weight", prefix);
    visit(w, gate + 1, width, D, true, "%sup_proj.weight", prefix);
    visit(w, gate + 2, D, width, true, "%sdown_proj.weight", prefix);
}

static void visit_experts(struct walk *w)
{
    const mh_config *c = w->config;
    visit(w, TENSOR_ROUTER, c->n_routed_experts, c->hidden_size, false, "mlp.gate.weight");
    if (c->scoring == MH_SCORING_SIGMOID)
        visit(w, TENSOR_ROUTER_BIAS, c->n_routed_experts, 0, false,
              "mlp.gate.e_score_correction_bias");
    if (c->n_shared_experts)
        visit_mlp(w, TENSOR_GATE, c->n_shared_experts * c->moe_intermediate_size,
                  "mlp.shared_experts.");
    for (w->expert = 0; !w->status && w->expert < c->n_routed_experts; w->expert++) {
        char prefix[48];
        snprintf(prefix, sizeof(prefix), "mlp.experts.%d.", (int)w->expert);
        visit_mlp(w, TENSOR_EXPERT_GATE, c->moe_intermediate_size, prefix);
    }
    w->expert = -1;
}

mh_status model_for_each_tensor(const mh_config *c, model_tensor_fn fn, void *context)
{
    struct walk walk = {c, fn, context, -1, -1, MH_OK}, *w = &walk;
    visit(w, TENSOR_EMBEDDING, c->vocab_size, c->hidden_size, false, "model.embed_tokens.weight");
    for (w->layer = 0; !w->status && w->layer < c->num_hidden_layers; w->layer++) {
        visit_attention(w);
        visit(w, TENSOR_FFN_NORM, c->hidden_size, 0, false, "post_attention_layernorm.weight");
        if (mh_config_is_moe(c, w->layer))
            visit_experts(w);
        else
            visit_mlp(w, TENSOR_GATE, c->intermediate_size, "mlp.");
    }
    w->layer = -1;
    visit(w, TENSOR_FINAL_NORM, c->hidden_size, 0, false, "model.norm.weight");
    visit(w, TENSOR_HEAD, c->vocab_size, c->hidden_size, false, "lm_head.weight");
    return walk.status;
}

uint64_t model_tensor_bytes(const struct model_tensor *t, bool fp8)
{
    uint64_t rows = (uint64_t)t->rows, columns = (uint64_t)(t->columns ? t->columns : 1);
    if (t->id == TENSOR_ROUTER_BIAS)
        return 4 * rows;
    if (!fp8 || !t->may_be_fp8)
        return 2 * rows * columns;
    return rows * columns + 4 * ((rows + 127) / 128) * ((columns + 127) / 128);
}
