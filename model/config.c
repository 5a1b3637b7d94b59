/* config.c: config.json and generation_config.json. */
#include <moehal-model/config.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

/* Errors stick; readers after one do nothing. */
struct reader {
    const char *file;
    const json_t *object;
    const char *prefix; /* "rope_scaling." */
    mh_status status;
};

static const json_t *get(const struct reader *r, const char *key)
{
    const json_t *value = json_object_get(r->object, key);
    return json_is_null(value) ? NULL : value;
}

static bool is_given(const struct reader *r, const char *key)
{
    return get(r, key) != NULL;
}

static int64_t integer(struct reader *r, const char *key, int64_t fallback, int64_t least,
                       int64_t most)
{
    const json_t *value = get(r, key);
    if (r->status)
        return least;
    if (!value && fallback >= 0)
        return fallback;
    if (!value) {
        r->status = mh_fail(MH_BAD_DATA, "%s: %s%s is missing", r->file, r->prefix, key);
        return least;
    }
    /* Some configs write whole numbers as 40.0. */
    double number = json_number_value(value);
    if (!json_is_number(value) || number != floor(number) || number < (double)least ||
        number > (double)most) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        r->status =
            mh_fail(MH_BAD_DATA, "%s: %s%s is %.60s, must be an integer from %lld to %lld", r->file,
                    r->prefix, key, text ? text : "?", (long long)least, (long long)most);
        free(text);
        return least;
    }
    return (int64_t)number;
}

static double number(struct reader *r, const char *key, double fallback, double least, double most)
{
    const json_t *value = get(r, key);
    if (r->status || (!value && !isnan(fallback)))
        return fallback;
    if (!value) {
        r->status = mh_fail(MH_BAD_DATA, "%s: %s%s is missing", r->file, r->prefix, key);
        return least;
    }
    double n = json_number_value(value);
    if (!json_is_number(value) || !(n >= least) || !(n <= most)) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        r->status = mh_fail(MH_BAD_DATA, "%s: %s%s is %.60s, must be a number from %g to %g",
                            r->file, r->prefix, key, text ? text : "?", least, most);
        free(text);
        return least;
    }
    return n;
}

static uint32_t boolean(struct reader *r, const char *key, bool fallback)
{
    const json_t *value = get(r, key);
    if (r->status || !value)
        return fallback;
    if (!json_is_boolean(value))
        r->status = mh_fail(MH_BAD_DATA, "%s: %s%s must be true or false", r->file, r->prefix, key);
    return json_is_true(value);
}

/* One of `choices` ("a|b|c"); returns its place, or `fallback` where the key is missing. */
static int choice(struct reader *r, const char *key, const char *choices, int fallback)
{
    const json_t *value = get(r, key);
    if (r->status || (!value && fallback >= 0))
        return fallback;
    const char *text = json_is_string(value) ? json_string_value(value) : NULL;
    int place = 0;
    for (const char *c = choices; text && *c; place++) {
        size_t length = strcspn(c, "|");
        if (strlen(text) == length && !memcmp(text, c, length))
            return place;
        c += length + (c[length] == '|');
    }
    r->status = mh_fail(MH_BAD_DATA, "%s: %s%s is %s%.60s%s, must be %s", r->file, r->prefix, key,
                        text ? "'" : "",
                        text    ? text
                        : value ? "no string"
                                : "missing",
                        text ? "'" : "", choices);
    return 0;
}

/* ---- parts ---- */

static void read_family(struct reader *r, mh_config *c)
{
    uint32_t by_type = 0, by_architecture = 0;
    if (is_given(r, "model_type"))
        by_type =
            choice(r, "model_type", "deepseek_v3|deepseek_v2", -1) ? MH_FAMILY_V2 : MH_FAMILY_V3;
    if (!by_type || is_given(r, "architectures")) {
        struct reader first = *r;
        json_t *names = json_object_get(r->object, "architectures");
        json_t *wrapper = json_pack("{s:O?}", "architectures[0]", json_array_get(names, 0));
        first.object = wrapper;
        by_architecture =
            choice(&first, "architectures[0]", "DeepseekV3ForCausalLM|DeepseekV2ForCausalLM", -1)
                ? MH_FAMILY_V2
                : MH_FAMILY_V3;
        r->status = first.status;
        json_decref(wrapper);
    }
    c->family = by_type ? by_type : by_architecture;
    if (!r->status && by_architecture && by_architecture != c->family)
        r->status =
            mh_fail(MH_BAD_DATA, "%s: model_type and architectures[0] name two families", r->file);
    choice(r, "hidden_act", "silu", 0);
    if (boolean(r, "attention_bias", false) && !r->status)
        r->status =
            mh_fail(MH_BAD_DATA, "%s: attention_bias is true, only false is supported", r->file);
    if (boolean(r, "tie_word_embeddings", false) && !r->status)
        r->status = mh_fail(MH_BAD_DATA, "%s: tie_word_embeddings is true, only false is supported",
                            r->file);
    if (!boolean(r, "rope_interleave", true) && !r->status)
        r->status =
            mh_fail(MH_BAD_DATA, "%s: rope_interleave is false, only true is supported", r->file);
}

/* Limits far above any release, low enough that the sums over all parameters fit in 64 bits. */
#define MOST_LAYERS 1024
#define MOST_EXPERTS 4096
#define MOST_WIDTH ((int64_t)1 << 20)

static void read_sizes(struct reader *r, mh_config *c)
{
    c->vocab_size = integer(r, "vocab_size", -1, 1, 1 << 18);
    c->hidden_size = integer(r, "hidden_size", -1, 1, MOST_WIDTH);
    c->num_hidden_layers = integer(r, "num_hidden_layers", -1, 1, MOST_LAYERS);
    c->num_attention_heads = integer(r, "num_attention_heads", -1, 1, 4096);
    c->q_lora_rank = integer(r, "q_lora_rank", 0, 0, MOST_WIDTH);
    c->kv_lora_rank = integer(r, "kv_lora_rank", -1, 1, 1 << 16);
    c->qk_nope_head_dim = integer(r, "qk_nope_head_dim", -1, 1, 1 << 16);
    c->qk_rope_head_dim = integer(r, "qk_rope_head_dim", -1, 2, 1 << 16);
    c->v_head_dim = integer(r, "v_head_dim", -1, 1, 1 << 16);
    c->intermediate_size = integer(r, "intermediate_size", -1, 1, MOST_WIDTH);
    c->max_position_embeddings = integer(r, "max_position_embeddings", -1, 1, 1 << 24);
    c->num_nextn_predict_layers = integer(r, "num_nextn_predict_layers", 0, 0, 64);
    c->rms_norm_eps = number(r, "rms_norm_eps", 1e-6, 0, 1);
    c->latent_norm_eps = 1e-6;
    if (!r->status && c->qk_rope_head_dim % 2)
        r->status = mh_fail(MH_BAD_DATA, "%s: qk_rope_head_dim is %lld, must be even", r->file,
                            (long long)c->qk_rope_head_dim);
}

static void read_experts(struct reader *r, mh_config *c)
{
    bool v3 = c->family == MH_FAMILY_V3;
    c->n_routed_experts = integer(r, "n_routed_experts", 0, 0, MOST_EXPERTS);
    c->first_k_dense_replace = integer(r, "first_k_dense_replace", 0, 0, MOST_LAYERS);
    c->moe_layer_freq = integer(r, "moe_layer_freq", 1, 1, MOST_LAYERS);
    c->routed_scaling_factor = 1;
    c->n_group = c->topk_group = 1;
    c->scoring = v3 ? MH_SCORING_SIGMOID : MH_SCORING_SOFTMAX;
    if (r->status || !c->n_routed_experts)
        return;
    c->moe_intermediate_size = integer(r, "moe_intermediate_size", -1, 1, MOST_WIDTH);
    c->n_shared_experts = integer(r, "n_shared_experts", 0, 0, 64);
    c->num_experts_per_tok = integer(r, "num_experts_per_tok", -1, 1, c->n_routed_experts);
    c->n_group = integer(r, "n_group", 1, 1, c->n_routed_experts);
    c->topk_group = integer(r, "topk_group", 1, 1, c->n_group);
    c->norm_topk_prob = boolean(r, "norm_topk_prob", v3);
    c->routed_scaling_factor = number(r, "routed_scaling_factor", 1, 1e-6, 1e6);
    int scoring = choice(r, "scoring_func", "softmax|sigmoid", v3);
    int method = choice(r, "topk_method", "greedy|group_limited_greedy|noaux_tc", v3 ? 2 : 0);
    if (r->status)
        return;
    if ((scoring == 1) != (method == 2)) {
        r->status =
            mh_fail(MH_BAD_DATA,
                    "%s: scoring_func %s with topk_method %s: sigmoid goes with noaux_tc, "
                    "softmax with greedy and group_limited_greedy",
                    r->file, scoring ? "sigmoid" : "softmax", method == 2 ? "noaux_tc" : "greedy");
        return;
    }
    c->scoring = scoring ? MH_SCORING_SIGMOID : MH_SCORING_SOFTMAX;
    c->grouped = method != 0 && c->n_group > 1;
    if (c->n_routed_experts % c->n_group)
        r->status = mh_fail(MH_BAD_DATA, "%s: n_group is %lld, must divide n_routed_experts = %lld",
                            r->file, (long long)c->n_group, (long long)c->n_routed_experts);
    else if (c->grouped &&
             c->num_experts_per_tok > c->n_routed_experts / c->n_group * c->topk_group)
        r->status =
            mh_fail(MH_BAD_DATA, "%s: num_experts_per_tok is %lld, but topk_group groups hold %lld",
                    r->file, (long long)c->num_experts_per_tok,
                    (long long)(c->n_routed_experts / c->n_group * c->topk_group));
}

/* rope_theta and rope_scaling, or the newer rope_parameters that holds both. */
static void read_rope(struct reader *r, mh_config *c)
{
    bool newer = is_given(r, "rope_parameters");
    const char *key = newer ? "rope_parameters" : "rope_scaling";
    struct reader part = {.file = r->file,
                          .object = get(r, key),
                          .prefix = newer ? "rope_parameters." : "rope_scaling.",
                          .status = r->status};
    if (!part.status && part.object && !json_is_object(part.object))
        part.status = mh_fail(MH_BAD_DATA, "%s: %s must be an object or null", r->file, key);
    c->rope_theta = newer && is_given(&part, "rope_theta")
                        ? number(&part, "rope_theta", NAN, 2, 1e12)
                        : number(r, "rope_theta", 10000, 2, 1e12);
    c->rope_factor = 1;
    if (part.object) {
        const char *type = is_given(&part, "rope_type") ? "rope_type" : "type";
        c->rope_yarn = choice(&part, type, "default|yarn", 0) == 1;
    }
    if (c->rope_yarn) {
        c->rope_factor = number(&part, "factor", NAN, 1, 1e6);
        c->rope_original_max = number(&part, "original_max_position_embeddings", NAN, 1, 1e9);
        c->rope_beta_fast = number(&part, "beta_fast", 32, 1e-6, 1e6);
        c->rope_beta_slow = number(&part, "beta_slow", 1, 1e-6, 1e6);
        if (!part.status && c->rope_beta_slow > c->rope_beta_fast)
            part.status =
                mh_fail(MH_BAD_DATA, "%s: %sbeta_slow is %g, must be at most beta_fast = %g",
                        part.file, part.prefix, c->rope_beta_slow, c->rope_beta_fast);
        c->rope_mscale = number(&part, "mscale", 1, 0, 1e3);
        c->rope_mscale_all_dim = number(&part, "mscale_all_dim", 0, 0, 1e3);
    }
    if (!r->status)
        r->status = part.status;
}

static void read_quantization(struct reader *r, mh_config *c)
{
    struct reader part = {.file = r->file,
                          .object = get(r, "quantization_config"),
                          .prefix = "quantization_config.",
                          .status = r->status};
    if (!part.object || part.status)
        return;
    choice(&part, "quant_method", "fp8", -1);
    choice(&part, "fmt", "e4m3", 0);
    choice(&part, "activation_scheme", "dynamic", 0);
    const json_t *block = get(&part, "weight_block_size");
    if (!part.status &&
        (json_array_size(block) != 2 || json_integer_value(json_array_get(block, 0)) != 128 ||
         json_integer_value(json_array_get(block, 1)) != 128))
        part.status = mh_fail(
            MH_BAD_DATA, "%s: quantization_config.weight_block_size must be [128, 128]", r->file);
    c->fp8 = 1;
    r->status = part.status;
}

static void read_eos(struct reader *r, mh_config *c)
{
    const json_t *value = get(r, "eos_token_id");
    if (r->status || !value)
        return;
    c->eos_count = 0;
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;
        json_int_t n = json_integer_value(id);
        if (!json_is_integer(id) || n < 0 || n >= c->vocab_size || i >= MH_MAX_EOS) {
            r->status = mh_fail(MH_BAD_DATA,
                                "%s: eos_token_id must be at most %d ids below vocab_size = %lld",
                                r->file, MH_MAX_EOS, (long long)c->vocab_size);
            return;
        }
        c->eos_token_ids[c->eos_count++] = (int32_t)n;
    }
}

mh_status mh_config_parse(const char *json, uint64_t bytes, const char *file, mh_config *out)
{
    if (!json || !file || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_config_parse: an argument is NULL");
    json_t *object;
    mh_status status = model_parse_object(json, bytes, file, &object);
    if (status)
        return status;
    mh_config c = MH_INIT(mh_config);
    struct reader reader = {.file = file, .object = object, .prefix = ""}, *r = &reader;
    c.temperature = 1, c.top_p = 1;
    read_family(r, &c);
    read_sizes(r, &c);
    read_experts(r, &c);
    read_rope(r, &c);
    read_quantization(r, &c);
    c.bos_token_id = is_given(r, "bos_token_id")
                         ? (int32_t)integer(r, "bos_token_id", -1, 0, c.vocab_size - 1)
                         : -1;
    read_eos(r, &c);
    json_decref(object);
    return r->status ? r->status : mh_struct_out(out, &c, sizeof(c));
}

/* ---- files ---- */

static mh_status read_generation(const char *dir, mh_config *c)
{
    char path[4096], *text;
    uint64_t bytes;
    if (snprintf(path, sizeof(path), "%s/generation_config.json", dir) >= (int)sizeof(path))
        return mh_fail(MH_INVALID_ARGUMENT, "%.64s...: the path is too long", dir);
    mh_status status = model_read_file(path, 1 << 20, &text, &bytes);
    if (status)
        return status == MH_NOT_FOUND ? MH_OK : status;
    json_t *object;
    status = model_parse_object(text, bytes, path, &object);
    free(text);
    if (status)
        return status;
    struct reader reader = {.file = path, .object = object, .prefix = ""}, *r = &reader;
    c->do_sample = boolean(r, "do_sample", false);
    c->temperature = number(r, "temperature", 1, 0, 1e6);
    c->top_p = number(r, "top_p", 1, 0, 1);
    c->top_k = integer(r, "top_k", 0, 0, INT32_MAX);
    read_eos(r, c); /* the fuller list, where there are two */
    json_decref(object);
    return r->status;
}

mh_status mh_config_load(const char *dir, mh_config *out)
{
    char path[4096], *text;
    uint64_t bytes;
    if (!dir || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_config_load: %s is NULL", dir ? "out" : "dir");
    if (snprintf(path, sizeof(path), "%s/config.json", dir) >= (int)sizeof(path))
        return mh_fail(MH_INVALID_ARGUMENT, "%.64s...: the path is too long", dir);
    mh_status status = model_read_file(path, 1 << 20, &text, &bytes);
    if (status)
        return status;
    mh_config config = MH_INIT(mh_config);
    status = mh_config_parse(text, bytes, path, &config);
    free(text);
    if (!status)
        status = read_generation(dir, &config);
    return status ? status : mh_struct_out(out, &config, sizeof(config));
}
