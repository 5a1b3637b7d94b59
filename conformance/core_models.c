/* core_models.c: whole models: tokens and hashes of logits equal to the host's. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moehal-model/synth.h>

#include "core_model.h"

/* ---- checkpoints ---- */

static const char v3[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"deepseek_v3\","
    " \"hidden_size\": 144, \"intermediate_size\": 200, \"moe_intermediate_size\": 72,"
    " \"num_hidden_layers\": 3, \"first_k_dense_replace\": 1, \"num_attention_heads\": 3,"
    " \"num_key_value_heads\": 3, \"q_lora_rank\": 40, \"kv_lora_rank\": 48,"
    " \"qk_nope_head_dim\": 24, \"qk_rope_head_dim\": 8, \"v_head_dim\": 20,"
    " \"n_routed_experts\": 8, \"n_shared_experts\": 1, \"num_experts_per_tok\": 3,"
    " \"n_group\": 4, \"topk_group\": 2, \"topk_method\": \"noaux_tc\","
    " \"scoring_func\": \"sigmoid\", \"norm_topk_prob\": true, \"routed_scaling_factor\": 2.5,"
    " \"rms_norm_eps\": 1e-06, \"rope_theta\": 10000, \"rope_scaling\": null,"
    " \"max_position_embeddings\": 512, \"vocab_size\": 211, \"tie_word_embeddings\": false,"
    " \"hidden_act\": \"silu\", \"attention_bias\": false, \"bos_token_id\": 0,"
    " \"eos_token_id\": 1, \"torch_dtype\": \"bfloat16\", \"num_nextn_predict_layers\": 0}";

static const char v2[] =
    "{\"architectures\": [\"DeepseekV2ForCausalLM\"], \"model_type\": \"deepseek_v2\","
    " \"hidden_size\": 96, \"intermediate_size\": 160, \"moe_intermediate_size\": 40,"
    " \"num_hidden_layers\": 3, \"first_k_dense_replace\": 1, \"num_attention_heads\": 2,"
    " \"num_key_value_heads\": 2, \"q_lora_rank\": null, \"kv_lora_rank\": 32,"
    " \"qk_nope_head_dim\": 16, \"qk_rope_head_dim\": 8, \"v_head_dim\": 16,"
    " \"n_routed_experts\": 6, \"n_shared_experts\": 2, \"num_experts_per_tok\": 2,"
    " \"n_group\": 1, \"topk_group\": 1, \"topk_method\": \"greedy\","
    " \"scoring_func\": \"softmax\", \"norm_topk_prob\": false, \"routed_scaling_factor\": 1.0,"
    " \"rms_norm_eps\": 1e-06, \"rope_theta\": 10000,"
    " \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"beta_fast\": 32, \"beta_slow\": 1,"
    "  \"mscale\": 0.707, \"mscale_all_dim\": 0.707, \"original_max_position_embeddings\": 128},"
    " \"max_position_embeddings\": 512, \"vocab_size\": 211, \"tie_word_embeddings\": false,"
    " \"hidden_act\": \"silu\", \"attention_bias\": false, \"bos_token_id\": 0,"
    " \"eos_token_id\": 1, \"torch_dtype\": \"bfloat16\"}";

static void release_checkpoint(void *checkpoint)
{
    mh_checkpoint_release(checkpoint);
}

static bool write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    bool ok = file && fputs(text, file) >= 0;
    return file ? fclose(file) == 0 && ok : false;
}

/* Its files stay mapped after their names are gone. */
static mh_status make_checkpoint(const char *folder, enum core_model_kind kind, mh_checkpoint **out)
{
    char given[600], made[600], tensors[600];
    mh_synth_params params = MH_INIT(mh_synth_params);
    snprintf(given, sizeof(given), "%s/given.json", folder);
    snprintf(made, sizeof(made), "%s/config.json", folder);
    snprintf(tensors, sizeof(tensors), "%s/model.safetensors", folder);
    if (!write_text(given, kind == MODEL_V3_FP8 ? v3 : v2))
        return mh_fail(MH_IO_ERROR, "%s: %s", given, strerror(errno));
    params.name = given, params.out = folder, params.seed = 7;
    params.dtype = kind == MODEL_V3_FP8 ? MH_SYNTH_FP8 : MH_SYNTH_BF16;
    mh_status status = mh_synth(&params);
    if (!status)
        status = mh_checkpoint_open(folder, out);
    unlink(given), unlink(made), unlink(tensors);
    return status;
}

mh_checkpoint *core_checkpoint(struct core *c, enum core_model_kind kind)
{
    const char *temporary = getenv("TMPDIR");
    char folder[512];
    mh_checkpoint *checkpoint = NULL;
    snprintf(folder, sizeof(folder), "%s/moehal-check-XXXXXX",
             temporary && *temporary ? temporary : "/tmp");
    if (!mkdtemp(folder)) {
        core_fail(c, "%s: %s", folder, strerror(errno));
        return NULL;
    }
    if (make_checkpoint(folder, kind, &checkpoint))
        core_fail(c, "%s", mh_last_message());
    else
        core_keep(c, release_checkpoint, checkpoint);
    rmdir(folder);
    return checkpoint;
}

/* ---- stories ---- */

static void add_to_hash(uint64_t *hash, const float *values, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        *hash = (*hash ^ (isnan(values[i]) ? 0x7FC00000 : bits)) * 0x100000001B3u;
    }
}

static mh_status tell(mh_session *session, struct core_story *story, float *logits)
{
    int32_t prompt[256];
    mh_session_outputs outputs = MH_INIT(mh_session_outputs);
    mh_sampling sampling = {.temperature = story->temperature, .top_p = 60000, .seed = 5};
    for (uint64_t i = 0; i < story->prompt; i++)
        prompt[i] = (int32_t)(i * 37 % MODEL_VOCABULARY);
    outputs.logits = logits;
    story->hash = 0xCBF29CE484222325u;
    mh_status status = mh_session_set_sampling(session, &sampling);
    if (!status)
        status = mh_session_run(session, prompt, story->prompt, &outputs);
    if (!status)
        add_to_hash(&story->hash, logits, story->prompt * MODEL_VOCABULARY);
    for (uint64_t i = 0; !status && i < story->decoded; i++) {
        status = mh_session_next(session, &story->tokens[i]);
        if (!status)
            status = mh_session_run(session, &story->tokens[i], 1, NULL);
        if (!status)
            status = mh_session_logits(session, logits);
        if (!status)
            add_to_hash(&story->hash, logits, MODEL_VOCABULARY);
    }
    return status;
}

mh_status core_tell(mh_device *device, mh_checkpoint *checkpoint, struct core_story *story)
{
    mh_model *model = NULL;
    mh_session *session = NULL;
    mh_session_params params = MH_INIT(mh_session_params);
    params.kv_dtype = story->kv, params.chunk = story->chunk;
    params.context = (int64_t)(story->prompt + story->decoded) + 2;
    float *logits = malloc(story->prompt * MODEL_VOCABULARY * sizeof(*logits));
    mh_status status = logits ? MH_OK : mh_fail(MH_OUT_OF_MEMORY, "no host memory");
    if (!status)
        status = mh_model_load(checkpoint, &device, 1, NULL, &model);
    if (!status)
        status = mh_session_create(model, &params, &session);
    if (!status)
        status = tell(session, story, logits);
    mh_session_release(session);
    mh_model_release(model);
    free(logits);
    return status;
}

/* ---- the cases ---- */

static bool compare(struct core *c, mh_device *device, mh_device *host, mh_checkpoint *checkpoint,
                    struct core_story story, int64_t chunk)
{
    struct core_story want = story, got = story;
    got.chunk = chunk;
    TRY(core_tell(host, checkpoint, &want));
    TRY(core_tell(device, checkpoint, &got));
    for (uint64_t i = 0; i < story.decoded; i++)
        CHECK(got.tokens[i] == want.tokens[i], "token %llu is %d, the host has %d",
              (unsigned long long)i, got.tokens[i], want.tokens[i]);
    CHECK(got.hash == want.hash, "the tokens agree, the logits do not: %016llx and %016llx",
          (unsigned long long)got.hash, (unsigned long long)want.hash);
    return true;
}

static bool run_kind(struct core *c, enum core_model_kind kind)
{
    mh_device *device = core_device(c, NULL), *host;
    mh_checkpoint *checkpoint = core_checkpoint(c, kind);
    if (!device || !checkpoint)
        return false;
    TRY(mh_device_open(c->suite->runtime, "host", NULL, &host));
    struct core_story stories[] = {
        {.prompt = 70, .decoded = 6, .chunk = 64, .kv = MH_F32},
        {.prompt = 70, .decoded = 6, .chunk = 64, .kv = MH_BF16, .temperature = 0.9f},
        {.prompt = 200, .decoded = 3, .chunk = 200, .kv = MH_F32},
    };
    static const int64_t chunks[] = {64, 7, 33};
    bool ok = true;
    for (int i = 0; ok && i < (c->suite->options->quick ? 2 : 3); i++)
        ok = compare(c, device, host, checkpoint, stories[i], chunks[i]);
    mh_device_release(host);
    return ok;
}

static bool v3_fp8(struct core *c)
{
    return run_kind(c, MODEL_V3_FP8);
}

static bool v2_bf16(struct core *c)
{
    return run_kind(c, MODEL_V2_BF16);
}

/* Two sessions of one model in turns: neither disturbs the other. */
static bool two_sessions(struct core *c)
{
    mh_device *device = core_device(c, NULL);
    mh_checkpoint *checkpoint = core_checkpoint(c, MODEL_V3_FP8);
    mh_model *model;
    mh_session *sessions[2] = {0};
    struct core_story alone = {.prompt = 9, .decoded = 5, .chunk = 64, .kv = MH_F32};
    if (!device || !checkpoint)
        return false;
    TRY(core_tell(device, checkpoint, &alone));
    TRY(mh_model_load(checkpoint, &device, 1, NULL, &model));
    int32_t token, prompt[9], other[3] = {4, 200, 17}, got[5] = {0};
    for (int i = 0; i < 9; i++)
        prompt[i] = i * 37 % MODEL_VOCABULARY;
    mh_status status = mh_session_create(model, NULL, &sessions[0]);
    if (!status)
        status = mh_session_create(model, NULL, &sessions[1]);
    if (!status)
        status = mh_session_run(sessions[0], prompt, 9, NULL);
    for (int i = 0; !status && i < 5; i++) {
        status = mh_session_run(sessions[1], other, 3, NULL);
        if (!status)
            status = mh_session_next(sessions[0], &token);
        got[i] = token;
        if (!status)
            status = mh_session_run(sessions[0], &token, 1, NULL);
    }
    mh_session_release(sessions[0]);
    mh_session_release(sessions[1]);
    mh_model_release(model);
    CHECK(!status, "%s", mh_last_message());
    CHECK(!memcmp(got, alone.tokens, sizeof(got)), "a session beside another tells another story");
    return true;
}

const struct core_case core_models[] = {
    {"models/v3-fp8", v3_fp8},
    {"models/v2-bf16", v2_bf16},
    {"models/two-sessions", two_sessions},
    {0},
};
