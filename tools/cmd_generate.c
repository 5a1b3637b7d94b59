#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"

struct inputs {
    struct setup_options setup;
    struct sampling_options sampling;
    const char *prompt, *ids;
};

/* ---- output ---- */

static json_t *ids_json(const int32_t *ids, uint64_t count)
{
    json_t *array = json_array();
    for (uint64_t i = 0; i < count; i++)
        json_array_append_new(array, json_integer(ids[i]));
    return array;
}

static json_t *text_json(const struct generation *g)
{
    char *text;
    uint64_t bytes;
    if (!g->tokenizer ||
        mh_tokenizer_decode(g->tokenizer, g->ids, g->count, MH_DECODE_SKIP_SPECIAL, &text, &bytes))
        return json_null();
    json_t *value = json_stringn(text, bytes);
    mh_model_free(text);
    return value;
}

static json_t *fallbacks_json(const struct setup *setup)
{
    json_t *object = json_object();
    for (mh_op_id op = 1; mh_op_size(op); op++) {
        uint64_t count = setup_fallbacks(setup, op);
        if (count)
            json_object_set_new(object, mh_op_name(op), json_integer((json_int_t)count));
    }
    return object;
}

/* How many of a layer's experts each rank has, at most. */
static json_t *experts_json(const mh_model *model)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < mh_model_ranks(model); i++) {
        int64_t most = 0, count;
        for (int64_t l = 0; l < mh_model_config(model)->num_hidden_layers; l++)
            if (!mh_model_experts(model, i, l, NULL, &count) && count > most)
                most = count;
        json_array_append_new(list, json_integer((json_int_t)most));
    }
    return list;
}

/* What was fetched, of this process; null where nothing is. */
static json_t *offload_json(const mh_model *model, uint64_t tokens)
{
    mh_model_fetches f = MH_INIT(mh_model_fetches);
    if (mh_model_get_fetches(model, &f) || !f.ranks)
        return json_null();
    double asked = (double)(f.hits + f.misses);
    return json_pack("{s:I, s:I, s:I, s:f, s:f}", "places", (json_int_t)f.places, "hits",
                     (json_int_t)f.hits, "misses", (json_int_t)f.misses, "hit_rate",
                     asked > 0 ? (double)f.hits / asked : 0, "bytes_per_token",
                     (double)f.bytes / (double)(tokens ? tokens : 1));
}

static double rate(double count, double seconds)
{
    return seconds > 0 ? count / seconds : 0;
}

static void print_json(const struct generation *g, const struct setup *setup, const int32_t *prompt,
                       uint64_t prompt_count)
{
    double steps = g->count > 1 ? (double)(g->count - 1) : 0;
    json_t *object = json_pack(
        "{s:s, s:b, s:s, s:o, s:o, s:o, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:o, s:i, s:o, s:o}",
        "device", setup->uri, "virtual", !!(setup->info.flags & MH_DEVICE_IS_VIRTUAL), "profile",
        setup->profile == MH_PROFILE_FAST ? "fast" : "exact", "prompt_ids",
        ids_json(prompt, prompt_count), "token_ids", ids_json(g->ids, g->count), "text",
        text_json(g), "stop", g->stop, "logit_hash", g->logit_hash, "first_token_ms",
        g->first_token_ms, "prefill_tokens_per_s", rate((double)prompt_count, g->prefill_seconds),
        "decode_tokens_per_s", rate(steps, g->decode_seconds), "launches_per_token",
        rate((double)g->launches, steps), "graph_launches_per_token",
        rate((double)g->graph_launches, steps), "fallbacks", fallbacks_json(setup), "processes",
        (int)mh_transport_processes(setup->transport), "experts", experts_json(setup->model),
        "offload", offload_json(setup->model, prompt_count + (uint64_t)steps));
    if (object && !json_dumpf(object, stdout, JSON_REAL_PRECISION(9)))
        putchar('\n');
    json_decref(object);
}

/* ---- the command ---- */

static int prompt_ids(const struct inputs *in, const struct setup *setup, int32_t **ids,
                      uint64_t *count)
{
    if (in->ids)
        return parse_ids(&command_generate, in->ids, ids, count);
    if (!setup->tokenizer) {
        fprintf(stderr, "moehal: --prompt: %s; give token ids with --ids\n",
                setup->tokenizer_reason);
        return EXIT_USAGE;
    }
    mh_status status = mh_tokenizer_encode(setup->tokenizer, in->prompt, strlen(in->prompt),
                                           MH_ENCODE_BOS, ids, count);
    if (!status && !*count)
        return usage_error(&command_generate, "--prompt: '%s' holds no token", in->prompt);
    return status ? report_bad_input(status) : -1;
}

static int run_session(const struct inputs *in, struct setup *setup, const int32_t *prompt,
                       uint64_t count)
{
    struct progress progress = {.what = "reading the prompt"};
    struct generation g = {
        .tokenizer = setup->tokenizer,
        .config = setup->config,
        .devices = setup->devices,
        .device_count = setup->device_count,
        .timeline = setup->timeline,
        .max_tokens = in->sampling.has_max_tokens ? in->sampling.max_tokens : 256,
        .echo = in->prompt,
        .stream = !in->setup.json,
        .want_hash = in->setup.json,
    };
    mh_sampling sampling = choose_sampling(&in->sampling, setup->config);
    mh_status status =
        setup_session(setup, &in->setup, (int64_t)count + g.max_tokens, &progress, &g.session);
    if (!status)
        status = mh_session_set_sampling(g.session, &sampling);
    interrupt_cancels(g.session);
    if (!status)
        status = generate(&g, prompt, count);
    interrupt_cancels(NULL);
    end_progress(&progress);
    int code = EXIT_DONE;
    if (status)
        code = report_failure(status);
    else if (in->setup.json)
        print_json(&g, setup, prompt, count);
    else if (!setup->quiet)
        print_summary(&g, setup, count);
    if (!status && interrupted())
        code = EXIT_FAILED;
    generation_free(&g);
    mh_session_release(g.session);
    return code;
}

static int run(int argc, char **argv)
{
    struct inputs in = {.setup = {.spreads = true, .joins = true}};
    const struct option options[] = {
        SETUP_OPTIONS(in.setup),
        EXPERT_LOAD_OPTION(in.setup),
        OFFLOAD_OPTION(in.setup),
        ATTENTION_OPTION(in.setup),
        {"prompt", OPTION_TEXT, &in.prompt, "TEXT", "text to continue"},
        {"ids", OPTION_TEXT, &in.ids, "\"0 17 4\"", "token ids in its place"},
        SAMPLING_OPTIONS(in.sampling),
        {0},
    };
    int code = parse_options(&command_generate, options, argc, argv, NULL, 0);
    if (code >= 0)
        return code;
    if (!in.prompt == !in.ids)
        return usage_error(&command_generate, "one of --prompt and --ids is needed");
    struct setup setup;
    int32_t *prompt = NULL;
    uint64_t count;
    code = setup_open(&setup, &command_generate, &in.setup);
    if (code < 0)
        code = prompt_ids(&in, &setup, &prompt, &count);
    if (code < 0)
        code = run_session(&in, &setup, prompt, count);
    if (in.ids)
        free(prompt);
    else
        mh_model_free(prompt);
    return setup_close(&setup, code);
}

const struct command command_generate = {
    "generate",
    "--model DIR (--prompt TEXT | --ids \"0 17 4\") [options]",
    "continue a text, streamed",
    "  moehal generate --model models/fairy --prompt \"Once upon a time\"\n"
    "  moehal generate --model models/fairy --ids \"0 17 4\" --temperature 0 --json\n"
    "  moehal generate --model DIR --prompt Hello --device host --threads 2 --max-tokens 40",
    run,
};
