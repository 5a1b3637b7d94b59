/*
 * config.json and what follows from it: the releases' own values, YaRN's golden numbers, parameter
 * counts, and one case for every value that must be refused.
 */
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moehal-model/config.h>

#include "support.h"

/* The releases' config.json, with keys that only training reads. */
static const char v3[] =
    "{'architectures':['DeepseekV3ForCausalLM'],'model_type':'deepseek_v3','vocab_size':129280,"
    "'hidden_size':7168,'num_hidden_layers':61,'num_attention_heads':128,'q_lora_rank':1536,"
    "'kv_lora_rank':512,'qk_nope_head_dim':128,'qk_rope_head_dim':64,'v_head_dim':128,"
    "'intermediate_size':18432,'moe_intermediate_size':2048,'first_k_dense_replace':3,"
    "'moe_layer_freq':1,'n_routed_experts':256,'n_shared_experts':1,'num_experts_per_tok':8,"
    "'scoring_func':'sigmoid','topk_method':'noaux_tc','n_group':8,'topk_group':4,"
    "'norm_topk_prob':true,'routed_scaling_factor':2.5,'rms_norm_eps':1e-06,'rope_theta':10000,"
    "'rope_scaling':{'type':'yarn','factor':40,'original_max_position_embeddings':4096,"
    "'beta_fast':32,'beta_slow':1,'mscale':1.0,'mscale_all_dim':1.0},"
    "'max_position_embeddings':163840,'hidden_act':'silu','attention_bias':false,"
    "'tie_word_embeddings':false,'num_nextn_predict_layers':1,'bos_token_id':0,'eos_token_id':1,"
    "'quantization_config':{'quant_method':'fp8','fmt':'e4m3','weight_block_size':[128,128],"
    "'activation_scheme':'dynamic'},"
    "'ep_size':1,'aux_loss_alpha':0.001,'seq_aux':true,'initializer_range':0.02,"
    "'pretraining_tp':1,'attention_dropout':0.0}";

static const char v2_lite[] =
    "{'architectures':['DeepseekV2ForCausalLM'],'model_type':'deepseek_v2','vocab_size':102400,"
    "'hidden_size':2048,'num_hidden_layers':27,'num_attention_heads':16,'q_lora_rank':null,"
    "'kv_lora_rank':512,'qk_nope_head_dim':128,'qk_rope_head_dim':64,'v_head_dim':128,"
    "'intermediate_size':10944,'moe_intermediate_size':1408,'first_k_dense_replace':1,"
    "'moe_layer_freq':1,'n_routed_experts':64,'n_shared_experts':2,'num_experts_per_tok':6,"
    "'scoring_func':'softmax','topk_method':'greedy','n_group':1,'topk_group':1,"
    "'norm_topk_prob':false,'routed_scaling_factor':1.0,'rms_norm_eps':1e-06,'rope_theta':10000,"
    "'rope_scaling':{'type':'yarn','factor':40,'original_max_position_embeddings':4096,"
    "'beta_fast':32,'beta_slow':1,'mscale':0.707,'mscale_all_dim':0.707},"
    "'max_position_embeddings':163840,'hidden_act':'silu','bos_token_id':100000,"
    "'eos_token_id':100001}";

static const char moonlight[] =
    "{'architectures':['DeepseekV3ForCausalLM'],'model_type':'deepseek_v3','vocab_size':163840,"
    "'hidden_size':2048,'num_hidden_layers':27,'num_attention_heads':16,'q_lora_rank':null,"
    "'kv_lora_rank':512,'qk_nope_head_dim':128,'qk_rope_head_dim':64,'v_head_dim':128,"
    "'intermediate_size':11264,'moe_intermediate_size':1408,'first_k_dense_replace':1,"
    "'moe_layer_freq':1,'n_routed_experts':64,'n_shared_experts':2,'num_experts_per_tok':6,"
    "'scoring_func':'sigmoid','topk_method':'noaux_tc','n_group':1,'topk_group':1,"
    "'norm_topk_prob':true,'routed_scaling_factor':2.446,'rms_norm_eps':1e-05,"
    "'rope_theta':50000,'max_position_embeddings':8192,'hidden_act':'silu',"
    "'num_nextn_predict_layers':0,'bos_token_id':163584,'eos_token_id':163586}";

/* V2 with 236 B parameters, without the keys whose defaults its family gives. */
static const char v2[] =
    "{'architectures':['DeepseekV2ForCausalLM'],'vocab_size':102400,"
    "'hidden_size':5120,'num_hidden_layers':60,'num_attention_heads':128,'q_lora_rank':1536,"
    "'kv_lora_rank':512,'qk_nope_head_dim':128,'qk_rope_head_dim':64,'v_head_dim':128,"
    "'intermediate_size':12288,'moe_intermediate_size':1536,'first_k_dense_replace':1,"
    "'n_routed_experts':160,'n_shared_experts':2,'num_experts_per_tok':6,"
    "'topk_method':'group_limited_greedy','n_group':8,'topk_group':3,"
    "'routed_scaling_factor':16.0,'rms_norm_eps':1e-06,'max_position_embeddings':163840}";

/* ---- texts ---- */

static json_t *load(const char *quoted)
{
    size_t length = strlen(quoted);
    char *text = strdup(quoted);
    for (size_t i = 0; i < length; i++)
        text[i] = text[i] == '\'' ? '"' : text[i];
    json_t *object = json_loadb(text, length, JSON_DECODE_ANY, NULL);
    if (!object)
        fail_msg("the test's own JSON is wrong: %s", quoted);
    free(text);
    return object;
}

/* Sets "a.b" to a value written as JSON; NULL removes it. */
static void set(json_t *object, const char *key, const char *value)
{
    const char *dot = strchr(key, '.');
    if (dot) {
        char first[64];
        snprintf(first, sizeof(first), "%.*s", (int)(dot - key), key);
        set(json_object_get(object, first), dot + 1, value);
    } else if (value) {
        assert_int_equal(json_object_set_new(object, key, load(value)), 0);
    } else {
        json_object_del(object, key);
    }
}

static mh_status parse(const json_t *object, mh_config *out)
{
    char *text = json_dumps(object, 0);
    *out = MH_INIT(mh_config);
    mh_status status = mh_config_parse(text, strlen(text), "the.json", out);
    free(text);
    return status;
}

static mh_config config_of(const char *quoted)
{
    json_t *object = load(quoted);
    mh_config c;
    OK(parse(object, &c));
    json_decref(object);
    return c;
}

/* ---- values ---- */

static void v3_is_read_whole(void **state)
{
    (void)state;
    mh_config c = config_of(v3);
    assert_int_equal(c.struct_size, sizeof(c));
    assert_int_equal(c.family, MH_FAMILY_V3);
    assert_int_equal(c.scoring, MH_SCORING_SIGMOID);
    assert_true(c.fp8 && c.grouped && c.norm_topk_prob && c.rope_yarn);
    const int64_t got[] = {c.vocab_size,
                           c.hidden_size,
                           c.num_hidden_layers,
                           c.num_attention_heads,
                           c.q_lora_rank,
                           c.kv_lora_rank,
                           c.qk_nope_head_dim,
                           c.qk_rope_head_dim,
                           c.v_head_dim,
                           c.intermediate_size,
                           c.moe_intermediate_size,
                           c.first_k_dense_replace,
                           c.moe_layer_freq,
                           c.n_routed_experts,
                           c.n_shared_experts,
                           c.num_experts_per_tok,
                           c.n_group,
                           c.topk_group,
                           c.max_position_embeddings,
                           c.num_nextn_predict_layers,
                           c.bos_token_id,
                           c.eos_count,
                           c.eos_token_ids[0]};
    const int64_t want[] = {129280, 7168, 61, 128, 1536, 512, 128,    64, 128, 18432, 2048, 3,
                            1,      256,  1,  8,   8,    4,   163840, 1,  0,   1,     1};
    assert_memory_equal(got, want, sizeof(want));
    assert_true(c.rms_norm_eps == 1e-6 && c.routed_scaling_factor == 2.5);
    assert_true(c.rope_theta == 10000 && c.rope_factor == 40 && c.rope_original_max == 4096);
    assert_true(c.rope_beta_fast == 32 && c.rope_beta_slow == 1);
    assert_true(c.rope_mscale == 1 && c.rope_mscale_all_dim == 1);
    assert_true(!c.do_sample && c.temperature == 1 && c.top_p == 1 && c.top_k == 0);
}

static void the_others_differ_where_they_should(void **state)
{
    (void)state;
    mh_config c = config_of(v2_lite);
    assert_int_equal(c.family, MH_FAMILY_V2);
    assert_int_equal(c.scoring, MH_SCORING_SOFTMAX);
    assert_true(!c.fp8 && !c.grouped && !c.norm_topk_prob && c.rope_yarn && !c.q_lora_rank);
    c = config_of(moonlight);
    assert_int_equal(c.scoring, MH_SCORING_SIGMOID);
    assert_true(!c.grouped && c.norm_topk_prob && !c.rope_yarn);
    assert_true(c.rms_norm_eps == 1e-5); /* and yet: */
    assert_true(c.latent_norm_eps == 1e-6);
    c = config_of(v2); /* known by its architecture alone */
    assert_int_equal(c.family, MH_FAMILY_V2);
    assert_int_equal(c.scoring, MH_SCORING_SOFTMAX);
    assert_true(c.grouped && !c.norm_topk_prob && c.moe_layer_freq == 1);
    assert_int_equal(c.bos_token_id, -1);
    assert_int_equal(c.eos_count, 0);
}

/* Greedy ignores groups, however many the file names. */
static void greedy_is_not_grouped(void **state)
{
    (void)state;
    json_t *object = load(v2);
    mh_config c;
    set(object, "topk_method", "'greedy'");
    OK(parse(object, &c));
    assert_false(c.grouped);
    json_decref(object);
}

static void moe_layers(void **state)
{
    (void)state;
    mh_config c = config_of(v3);
    assert_false(mh_config_is_moe(&c, 2));
    assert_true(mh_config_is_moe(&c, 3));
    c.moe_layer_freq = 2;
    assert_false(mh_config_is_moe(&c, 3));
    assert_true(mh_config_is_moe(&c, 4));
    c.n_routed_experts = 0;
    assert_false(mh_config_is_moe(&c, 4));
}

/* ---- formulas ---- */

static void assert_close(double got, double want, double relative)
{
    if (!(fabs(got - want) <= relative * fabs(want)))
        fail_msg("%.12g, wanted %.12g", got, want);
}

static void yarn_frequencies(void **state)
{
    (void)state;
    static const struct {
        int i;
        double inv;
    } golden[] = {
        {0, 1},
        {1, 0.7498942093},
        {5, 0.2371373706},
        {9, 0.0749894209},
        {10, 0.0562341325}, /* low: the last that is not touched */
        {11, 0.0390069267},
        {12, 0.0268793601},
        {15, 0.00833450895},
        {16, 0.0055},
        {17, 0.00356199749},
        {20, 7.90569415e-4},
        {22, 1.77827941e-4},
        {23, 3.33380358e-5}, /* high: interpolated wholly from here on */
        {24, 2.5e-5},
        {31, 3.33380358e-6},
    };
    double inv[32];
    const char *both[] = {v3, v2_lite};
    for (size_t m = 0; m < 2; m++) {
        mh_config c = config_of(both[m]);
        mh_config_rope_frequencies(&c, inv);
        for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
            assert_close(inv[golden[i].i], golden[i].inv, 6e-8); /* f32 values */
    }
    mh_config c = config_of(moonlight);
    mh_config_rope_frequencies(&c, inv);
    for (int i = 0; i < 32; i++)
        assert_close(inv[i], pow(50000, -2.0 * i / 64), 1e-15);
}

/* The upper end is clamped to the 63 of the last dimension, not to the 31 of the last pair. */
static void yarn_ramp_beyond_the_last_pair(void **state)
{
    (void)state;
    mh_config c = config_of(v3);
    double inv[32], f = pow(10000, -62.0 / 64), ramp = (31.0 - 23) / (37 - 23);
    c.rope_original_max = 200000; /* dim(32) = 23.98, dim(1) = 36.02 */
    mh_config_rope_frequencies(&c, inv);
    assert_close(inv[31], f * (1 - ramp) + f / 40 * ramp, 1e-12);
}

/* Where low and high coincide the ramp is a step, not a division by zero. */
static void yarn_ramp_without_width(void **state)
{
    (void)state;
    mh_config c = config_of(v3);
    double inv[32];
    c.rope_original_max = 160; /* both ends round to 0 */
    c.rope_beta_slow = c.rope_beta_fast;
    mh_config_rope_frequencies(&c, inv);
    assert_close(inv[0], 1, 1e-12);
    assert_close(inv[1], pow(10000, -2.0 / 64) / 40, 1e-12);
}

static void softmax_scale_and_amplitude(void **state)
{
    (void)state;
    mh_config c = config_of(v3);
    assert_close(mh_config_softmax_scale(&c), 0.1352337789, 1e-9);
    assert_close(mh_config_rope_amplitude(&c), 1, 1e-15);
    c.rope_mscale_all_dim = 0; /* then cos and sin carry the correction, the scores none */
    assert_close(mh_config_softmax_scale(&c), 0.0721687836, 1e-9);
    assert_close(mh_config_rope_amplitude(&c), 1.3688879454, 1e-9);
    c = config_of(v2_lite);
    assert_close(mh_config_softmax_scale(&c), 0.1147213868, 1e-9);
    assert_close(mh_config_rope_amplitude(&c), 1, 1e-15);
    c = config_of(moonlight);
    assert_close(mh_config_softmax_scale(&c), 0.0721687836, 1e-9);
    assert_close(mh_config_rope_amplitude(&c), 1, 1e-15);
}

static void rope_in_both_spellings(void **state)
{
    (void)state;
    json_t *object = load(v2_lite), *rope = json_object_get(object, "rope_scaling");
    mh_config want = config_of(v2_lite), got;
    set(rope, "rope_type", "'yarn'");
    set(rope, "type", NULL);
    OK(parse(object, &got));
    assert_memory_equal(&got, &want, sizeof(got));
    set(rope, "rope_theta", "10000.0");
    json_object_set(object, "rope_parameters", rope);
    set(object, "rope_scaling", NULL);
    set(object, "rope_theta", NULL);
    set(object, "rope_interleave", "true");
    OK(parse(object, &got));
    assert_memory_equal(&got, &want, sizeof(got));
    json_decref(object);
    object = load(moonlight);
    want = config_of(moonlight);
    set(object, "rope_theta", NULL);
    set(object, "rope_parameters", "{'rope_type':'default','rope_theta':50000.0}");
    OK(parse(object, &got));
    assert_memory_equal(&got, &want, sizeof(got));
    json_decref(object);
}

static void sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double total, active; /* 10^9 */
        uint64_t latent;      /* bytes in bf16 */
    } cases[] = {
        {v3, 671.026, 36.63, 70272},
        {v2_lite, 15.706, 2.451, 31104},
        {moonlight, 15.960, 2.579, 31104},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mh_config c = config_of(cases[i].text);
        mh_config_sizes s = MH_INIT(mh_config_sizes);
        OK(mh_config_get_sizes(&c, &s));
        double total = 1e-9 * (double)s.parameters, active = 1e-9 * (double)s.active;
        if (fabs(total - cases[i].total) > 0.0005 || fabs(active - cases[i].active) > 0.005)
            fail_msg("case %zu: %.6f and %.6f, wanted %.3f and %.3f", i, total, active,
                     cases[i].total, cases[i].active);
        assert_int_equal(2 * s.latent_elements, cases[i].latent);
    }
}

/* The largest config that is accepted does not overflow its own sums. */
static void the_largest_config_can_be_added_up(void **state)
{
    (void)state;
    mh_config c = config_of(v3);
    mh_config_sizes s = MH_INIT(mh_config_sizes);
    json_t *object = load(v3);
    set(object, "hidden_size", "1048576");
    set(object, "intermediate_size", "1048576");
    set(object, "moe_intermediate_size", "1048576");
    set(object, "num_hidden_layers", "1024");
    set(object, "n_routed_experts", "4096");
    OK(parse(object, &c));
    OK(mh_config_get_sizes(&c, &s));
    long double experts = 1021.0L * 4096 * 3 * 1048576 * 1048576;
    assert_true((long double)s.parameters > experts);
    json_decref(object);
}

/* ---- what is refused ---- */

static const struct refused {
    const char *key, *value; /* NULL: the key is missing */
    const char *words;
} refused[] = {
    {"hidden_size", "0", "hidden_size|0|from 1"},
    {"hidden_size", "-1", "hidden_size|-1|from 1"},
    {"hidden_size", "2097152", "hidden_size|2097152|1048576"},
    {"hidden_size", "7168.5", "hidden_size|7168.5|integer"},
    {"hidden_size", "'7168'", "hidden_size|\"7168\"|integer"},
    {"hidden_size", "1e300", "hidden_size|integer"},
    {"hidden_size", "[7168]", "hidden_size|[7168]"},
    {"hidden_size", NULL, "hidden_size|missing"},
    {"hidden_size", "null", "hidden_size|missing"},
    {"vocab_size", "0", "vocab_size|0"},
    {"num_hidden_layers", "0", "num_hidden_layers|0"},
    {"num_hidden_layers", "1025", "num_hidden_layers|1025|1024"},
    {"num_attention_heads", "0", "num_attention_heads|0"},
    {"q_lora_rank", "-1", "q_lora_rank|-1"},
    {"kv_lora_rank", "0", "kv_lora_rank|0"},
    {"kv_lora_rank", NULL, "kv_lora_rank|missing"},
    {"qk_nope_head_dim", "0", "qk_nope_head_dim|0"},
    {"qk_rope_head_dim", "63", "qk_rope_head_dim|63|even"},
    {"qk_rope_head_dim", "0", "qk_rope_head_dim|0"},
    {"v_head_dim", "0", "v_head_dim|0"},
    {"intermediate_size", "0", "intermediate_size|0"},
    {"moe_intermediate_size", NULL, "moe_intermediate_size|missing"},
    {"first_k_dense_replace", "-1", "first_k_dense_replace|-1"},
    {"moe_layer_freq", "0", "moe_layer_freq|0"},
    {"n_routed_experts", "-1", "n_routed_experts|-1"},
    {"n_routed_experts", "4104", "n_routed_experts|4104|4096"},
    {"n_shared_experts", "-1", "n_shared_experts|-1"},
    {"num_experts_per_tok", "0", "num_experts_per_tok|0"},
    {"num_experts_per_tok", "257", "num_experts_per_tok|257|256"},
    {"num_experts_per_tok", "129", "num_experts_per_tok|129|128"}, /* four groups of 32 */
    {"n_group", "0", "n_group|0"},
    {"n_group", "7", "n_group|7|divide|256"},
    {"topk_group", "9", "topk_group|9|8"},
    {"topk_group", "0", "topk_group|0"},
    {"max_position_embeddings", "0", "max_position_embeddings|0"},
    {"num_nextn_predict_layers", "-1", "num_nextn_predict_layers|-1"},
    {"norm_topk_prob", "1", "norm_topk_prob|true or false"},
    {"routed_scaling_factor", "0", "routed_scaling_factor|0"},
    {"routed_scaling_factor", "-2.5", "routed_scaling_factor|-2.5"},
    {"routed_scaling_factor", "'big'", "routed_scaling_factor|big"},
    {"rms_norm_eps", "-1e-6", "rms_norm_eps"},
    {"rms_norm_eps", "2", "rms_norm_eps|2|1"},
    {"rope_theta", "0", "rope_theta|0"},
    {"rope_theta", "1", "rope_theta|1"}, /* whose logarithm YaRN divides by */
    {"rope_scaling", "'yarn'", "rope_scaling|object"},
    {"rope_scaling.type", "'linear'", "rope_scaling.type|linear|yarn"},
    {"rope_scaling.type", "7", "rope_scaling.type|no string"},
    {"rope_scaling.rope_type", "'llama3'", "rope_scaling.rope_type|llama3"},
    {"rope_scaling.factor", "0.5", "rope_scaling.factor|0.5"},
    {"rope_scaling.factor", NULL, "rope_scaling.factor|missing"},
    {"rope_scaling.original_max_position_embeddings", "0", "original_max_position_embeddings|0"},
    {"rope_scaling.original_max_position_embeddings", NULL, "original_max_position_embeddings"},
    {"rope_scaling.beta_fast", "0", "rope_scaling.beta_fast|0"},
    {"rope_scaling.beta_slow", "64", "rope_scaling.beta_slow|64|beta_fast|32"},
    {"rope_scaling.mscale", "-1", "rope_scaling.mscale|-1"},
    {"rope_scaling.mscale_all_dim", "'1'", "rope_scaling.mscale_all_dim"},
    {"rope_interleave", "false", "rope_interleave|false"},
    {"model_type", "'llama'", "model_type|llama|deepseek_v3"},
    {"model_type", "'deepseek_v2'", "model_type|architectures[0]"},
    {"model_type", "3", "model_type|no string"},
    {"architectures", "['LlamaForCausalLM']", "architectures[0]|LlamaForCausalLM"},
    {"architectures", "[]", "architectures[0]|missing"},
    {"hidden_act", "'gelu'", "hidden_act|gelu|silu"},
    {"attention_bias", "true", "attention_bias|true"},
    {"attention_bias", "0", "attention_bias|true or false"},
    {"tie_word_embeddings", "true", "tie_word_embeddings|true"},
    {"scoring_func", "'relu'", "scoring_func|relu|softmax|sigmoid"},
    {"scoring_func", "'softmax'", "scoring_func|softmax|noaux_tc"},
    {"topk_method", "'random'", "topk_method|random|noaux_tc"},
    {"topk_method", "'greedy'", "topk_method|greedy|sigmoid"},
    {"quantization_config.quant_method", "'gptq'", "quantization_config.quant_method|gptq|fp8"},
    {"quantization_config.quant_method", NULL, "quantization_config.quant_method|missing"},
    {"quantization_config.fmt", "'e5m2'", "quantization_config.fmt|e5m2|e4m3"},
    {"quantization_config.weight_block_size", "[64,128]", "weight_block_size|[128, 128]"},
    {"quantization_config.weight_block_size", "[128]", "weight_block_size|[128, 128]"},
    {"quantization_config.weight_block_size", NULL, "weight_block_size|[128, 128]"},
    {"quantization_config.activation_scheme", "'static'", "activation_scheme|static|dynamic"},
    {"bos_token_id", "129280", "bos_token_id|129280|129279"},
    {"bos_token_id", "-1", "bos_token_id|-1"},
    {"eos_token_id", "129280", "eos_token_id|129280"},
    {"eos_token_id", "[1,-1]", "eos_token_id"},
    {"eos_token_id", "'x'", "eos_token_id"},
    {"eos_token_id", "[1,2,3,4,5,6,7,8,9]", "eos_token_id|8"},
};

static void values_out_of_range_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        const struct refused *r = &refused[i];
        char what[160];
        mh_config c, untouched = MH_INIT(mh_config);
        json_t *object = load(v3);
        set(object, r->key, r->value);
        snprintf(what, sizeof(what), "%s = %s", r->key, r->value ? r->value : "(missing)");
        test_failed(what, parse(object, &c), MH_BAD_DATA, "the.json: ");
        test_failed(what, MH_BAD_DATA, MH_BAD_DATA, r->words);
        assert_memory_equal(&c, &untouched, sizeof(c));
        json_decref(object);
    }
}

static void what_is_no_config_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "the.json|not valid JSON|line 1"},
        {"{", "the.json|not valid JSON"},
        {"[]", "the.json|not an object"},
        {"{\"a\":1,\"a\":2}", "the.json|duplicate"},
        {"{\"a\":1} x", "the.json|not valid JSON"},
        {"{\"a\":\"\xff\"}", "the.json|not valid JSON"},
        {"{}", "the.json|architectures[0]|missing"},
    };
    mh_config c = MH_INIT(mh_config);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        test_failed(cases[i].text,
                    mh_config_parse(cases[i].text, strlen(cases[i].text), "the.json", &c),
                    MH_BAD_DATA, cases[i].words);
    test_failed("NULL", mh_config_parse(NULL, 0, "the.json", &c), MH_INVALID_ARGUMENT, "NULL");
}

static void out_has_the_callers_size(void **state)
{
    (void)state;
    json_t *object = load(v3);
    char *text = json_dumps(object, 0);
    mh_config c = {.struct_size = offsetof(mh_config, vocab_size)};
    OK(mh_config_parse(text, strlen(text), "the.json", &c));
    assert_int_equal(c.family, MH_FAMILY_V3);
    assert_int_equal(c.vocab_size, 0);
    c.struct_size = 0;
    test_failed("no size", mh_config_parse(text, strlen(text), "the.json", &c), MH_INVALID_ARGUMENT,
                "struct_size|0");
    mh_config_sizes s = {0};
    c = config_of(v3);
    test_failed("no size", mh_config_get_sizes(&c, &s), MH_INVALID_ARGUMENT, "struct_size|0");
    free(text);
    json_decref(object);
}

/* ---- files ---- */

static char *make_dir_of(const char *quoted)
{
    char *dir = test_make_dir();
    json_t *object = load(quoted);
    json_dump_file(object, test_path(dir, "config.json"), 0);
    json_decref(object);
    return dir;
}

static void generation_config(void **state)
{
    (void)state;
    char *dir = make_dir_of(v3);
    const char *path = test_path(dir, "generation_config.json");
    mh_config c = MH_INIT(mh_config), plain = config_of(v3);
    OK(mh_config_load(dir, &c));
    assert_memory_equal(&c, &plain, sizeof(c));
    test_write_text(path, "{\"do_sample\":true,\"temperature\":0.6,\"top_p\":0.95,\"top_k\":20,"
                          "\"eos_token_id\":[1,7]}");
    OK(mh_config_load(dir, &c));
    assert_true(c.do_sample && c.temperature == 0.6 && c.top_p == 0.95 && c.top_k == 20);
    assert_int_equal(c.eos_count, 2);
    assert_int_equal(c.eos_token_ids[1], 7);
    test_write_text(path, "{\"top_p\":0.5}"); /* the rest keeps its defaults, and config's eos */
    OK(mh_config_load(dir, &c));
    assert_true(!c.do_sample && c.temperature == 1 && c.top_p == 0.5 && c.eos_count == 1);
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"{\"top_p\":1.5}", "generation_config.json|top_p|1.5"},
        {"{\"temperature\":-1}", "generation_config.json|temperature|-1"},
        {"{\"top_k\":0.5}", "generation_config.json|top_k|0.5"},
        {"{\"do_sample\":1}", "generation_config.json|do_sample"},
        {"{\"eos_token_id\":129280}", "generation_config.json|eos_token_id"},
        {"nonsense", "generation_config.json|not valid JSON"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        test_write_text(path, bad[i].text);
        test_failed(bad[i].text, mh_config_load(dir, &c), MH_BAD_DATA, bad[i].words);
    }
    test_remove_dir(dir);
}

static void files_that_cannot_be_read(void **state)
{
    (void)state;
    char *dir = test_make_dir(), *text = calloc(1, (1 << 20) + 2);
    mh_config c = MH_INIT(mh_config);
    test_failed("no file", mh_config_load(dir, &c), MH_NOT_FOUND, "config.json");
    memset(text, ' ', (1 << 20) + 1);
    test_write_text(test_path(dir, "config.json"), text);
    test_failed("too large", mh_config_load(dir, &c), MH_BAD_DATA, "config.json|1048577|1048576");
    memset(text, 'x', 5000);
    text[5000] = 0;
    test_failed("long path", mh_config_load(text, &c), MH_INVALID_ARGUMENT, "too long");
    test_failed("no out", mh_config_load(dir, NULL), MH_INVALID_ARGUMENT, "out");
    free(text);
    test_remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(v3_is_read_whole),
        cmocka_unit_test(the_others_differ_where_they_should),
        cmocka_unit_test(greedy_is_not_grouped),
        cmocka_unit_test(moe_layers),
        cmocka_unit_test(yarn_frequencies),
        cmocka_unit_test(yarn_ramp_beyond_the_last_pair),
        cmocka_unit_test(yarn_ramp_without_width),
        cmocka_unit_test(softmax_scale_and_amplitude),
        cmocka_unit_test(rope_in_both_spellings),
        cmocka_unit_test(sizes),
        cmocka_unit_test(the_largest_config_can_be_added_up),
        cmocka_unit_test(values_out_of_range_are_named),
        cmocka_unit_test(what_is_no_config_is_refused),
        cmocka_unit_test(out_has_the_callers_size),
        cmocka_unit_test(generation_config),
        cmocka_unit_test(files_that_cannot_be_read),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
