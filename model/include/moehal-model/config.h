/*
 * config.h: a model's config.json (and generation_config.json), in Hugging Face's spelling. Sizes
 * are in elements. Sources of the formulas: docs/numerics.md rule 7 and the DeepSeek models' own
 * code.
 */
#ifndef MOEHAL_MODEL_CONFIG_H
#define MOEHAL_MODEL_CONFIG_H

#include <moehal/error.h>

MH_BEGIN_DECLS

enum { MH_FAMILY_V2 = 2, MH_FAMILY_V3 = 3 };
enum { MH_SCORING_SIGMOID = 1, MH_SCORING_SOFTMAX = 2 };
#define MH_MAX_EOS 8

typedef struct mh_config {
    uint64_t struct_size;
    uint32_t family;  /* MH_FAMILY_V2: DeepseekV2ForCausalLM; MH_FAMILY_V3: V3, R1, Moonlight */
    uint32_t fp8;     /* quantization_config: e4m3 with 128 x 128 scales */
    uint32_t scoring; /* MH_SCORING_SIGMOID (V3), MH_SCORING_SOFTMAX (V2) */
    uint32_t grouped; /* experts are chosen inside the best groups */
    uint32_t norm_topk_prob;
    uint32_t rope_yarn; /* 0: plain RoPE */
    int64_t vocab_size, hidden_size, num_hidden_layers, num_attention_heads;
    int64_t q_lora_rank; /* 0: none */
    int64_t kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim;
    int64_t intermediate_size, moe_intermediate_size;
    int64_t first_k_dense_replace, moe_layer_freq;
    int64_t n_routed_experts; /* 0: every layer is dense */
    int64_t n_shared_experts, num_experts_per_tok, n_group, topk_group;
    int64_t max_position_embeddings, num_nextn_predict_layers;
    int32_t bos_token_id; /* -1: none */
    uint32_t eos_count;
    int32_t eos_token_ids[MH_MAX_EOS];
    double rms_norm_eps;
    double latent_norm_eps; /* of q_a_layernorm and kv_a_layernorm: 1e-6 whatever rms_norm_eps is */
    double routed_scaling_factor;
    double rope_theta, rope_factor, rope_original_max, rope_beta_fast, rope_beta_slow;
    double rope_mscale, rope_mscale_all_dim;
    /* generation_config.json; without it do_sample is 0 */
    uint32_t do_sample;
    uint32_t reserved;
    double temperature, top_p;
    int64_t top_k; /* 0: off */
} mh_config;

/* Reads DIR/config.json and, where present, DIR/generation_config.json. The caller sets
 * out->struct_size (MH_INIT); *out is filled only on success. Unknown or inconsistent values are
 * MH_BAD_DATA naming file, field, value and limit; keys that only matter in training are ignored.
 */
MH_API mh_status mh_config_load(const char *dir, mh_config *out);

/* The same from text; `file` only names it in messages. The defaults of generation apply. */
MH_API mh_status mh_config_parse(const char *json, uint64_t bytes, const char *file,
                                 mh_config *out);

/* 1 if this layer has experts. */
MH_API int mh_config_is_moe(const mh_config *config, int64_t layer);

/* (nope + rope)^-0.5, times YaRN's mscale squared. */
MH_API double mh_config_softmax_scale(const mh_config *config);
/* Angle a position of each pair, f64 [qk_rope_head_dim / 2], YaRN's ramp included. */
MH_API void mh_config_rope_frequencies(const mh_config *config, double *inv);
/* What cos and sin are multiplied with: 1 for every released model. */
MH_API double mh_config_rope_amplitude(const mh_config *config);

/* Parameters of the main model (without MTP layers). */
typedef struct mh_config_sizes {
    uint64_t struct_size;
    uint64_t parameters;      /* all */
    uint64_t active;          /* touched by a token: with lm_head, without the embedding */
    uint64_t latent_elements; /* of the cache, a token, all layers */
} mh_config_sizes;

MH_API mh_status mh_config_get_sizes(const mh_config *config, mh_config_sizes *out);

MH_END_DECLS

#endif
