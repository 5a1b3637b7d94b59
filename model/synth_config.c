#include "synth_config.h"

#include <string.h>

/* The sizes of the releases' own config.json; 0 stands for null or absent. */
struct shape {
    const char *name, *type, *architecture, *scoring, *method;
    int vocab, hidden, layers, heads, q_lora, intermediate, moe_intermediate, first_dense;
    int experts, shared, per_token, groups, top_groups, norm;
    double scaling, eps, theta;
    int positions, mtp, bos, eos;
    double mscale; /* of YaRN factor 40 over 4096; 0: plain RoPE */
};

static const struct shape shapes[] = {
    {"v3",
     "deepseek_v3",
     "DeepseekV3ForCausalLM",
     "sigmoid",
     "noaux_tc",
     129280,
     7168,
     61,
     128,
     1536,
     18432,
     2048,
     3,
     256,
     1,
     8,
     8,
     4,
     1,
     2.5,
     1e-6,
     10000,
     163840,
     1,
     0,
     1,
     1.0},
    {"v2-lite",
     "deepseek_v2",
     "DeepseekV2ForCausalLM",
     "softmax",
     "greedy",
     102400,
     2048,
     27,
     16,
     0,
     10944,
     1408,
     1,
     64,
     2,
     6,
     1,
     1,
     0,
     1.0,
     1e-6,
     10000,
     163840,
     0,
     100000,
     100001,
     0.707},
    {"v2",
     "deepseek_v2",
     "DeepseekV2ForCausalLM",
     "softmax",
     "group_limited_greedy",
     102400,
     5120,
     60,
     128,
     1536,
     12288,
     1536,
     1,
     160,
     2,
     6,
     8,
     3,
     0,
     16.0,
     1e-6,
     10000,
     163840,
     0,
     100000,
     100001,
     0.707},
    {"moonlight",
     "deepseek_v3",
     "DeepseekV3ForCausalLM",
     "sigmoid",
     "noaux_tc",
     163840,
     2048,
     27,
     16,
     0,
     11264,
     1408,
     1,
     64,
     2,
     6,
     1,
     1,
     1,
     2.446,
     1e-5,
     50000,
     8192,
     0,
     163584,
     163586,
     0},
};

static json_t *rope_scaling(double mscale)
{
    if (mscale == 0)
        return json_null();
    return json_pack("{s:s, s:f, s:i, s:i, s:i, s:f, s:f}", "type", "yarn", "factor", 40.0,
                     "original_max_position_embeddings", 4096, "beta_fast", 32, "beta_slow", 1,
                     "mscale", mscale, "mscale_all_dim", mscale);
}

json_t *synth_named_config(const char *name)
{
    const struct shape *s = NULL;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        if (!strcmp(shapes[i].name, name))
            s = &shapes[i];
    if (!s)
        return NULL;
    json_t *c = json_pack(
        "{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}",
        "architectures", s->architecture, "model_type", s->type, "vocab_size", s->vocab,
        "hidden_size", s->hidden, "num_hidden_layers", s->layers, "num_attention_heads", s->heads,
        "num_key_value_heads", s->heads, "kv_lora_rank", 512, "qk_nope_head_dim", 128,
        "qk_rope_head_dim", 64, "v_head_dim", 128, "intermediate_size", s->intermediate,
        "moe_intermediate_size", s->moe_intermediate, "first_k_dense_replace", s->first_dense,
        "moe_layer_freq", 1);
    json_t *more = json_pack(
        "{s:i, s:i, s:i, s:s, s:s, s:i, s:i, s:b, s:f, s:f, s:f, s:o, s:i, s:i, s:i, s:i, s:s, "
        "s:b}",
        "n_routed_experts", s->experts, "n_shared_experts", s->shared, "num_experts_per_tok",
        s->per_token, "scoring_func", s->scoring, "topk_method", s->method, "n_group", s->groups,
        "topk_group", s->top_groups, "norm_topk_prob", s->norm, "routed_scaling_factor", s->scaling,
        "rms_norm_eps", s->eps, "rope_theta", s->theta, "rope_scaling", rope_scaling(s->mscale),
        "max_position_embeddings", s->positions, "num_nextn_predict_layers", s->mtp, "bos_token_id",
        s->bos, "eos_token_id", s->eos, "hidden_act", "silu", "tie_word_embeddings", 0);
    json_object_set_new(c, "q_lora_rank", s->q_lora ? json_integer(s->q_lora) : json_null());
    json_object_set_new(c, "torch_dtype", json_string("bfloat16"));
    json_object_update(c, more);
    json_decref(more);
    return c;
}
