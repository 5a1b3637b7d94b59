#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"

mh_sampling choose_sampling(const struct sampling_options *o, const mh_config *c)
{
    double temperature = o->has_temperature ? o->temperature : c->do_sample ? c->temperature : 0;
    double top_p = o->has_top_p ? o->top_p : c->do_sample ? c->top_p : 1;
    int64_t top_k = o->has_top_k ? o->top_k : c->do_sample ? c->top_k : 0;
    return (mh_sampling){
        .temperature = (float)temperature,
        .top_p = (uint32_t)lround(top_p * 65536),
        .top_k = (uint32_t)top_k,
        .seed = (uint64_t)o->seed,
    };
}

/* ---- the hash of logits: f32 bits, little-endian, any NaN as 0x7FC00000 ---- */

static void hash_logits(SHA2_CTX *hash, const float *logits, int64_t count)
{
    uint8_t bytes[4 * 256];
    for (int64_t begin = 0; begin < count; begin += 256) {
        int64_t n = count - begin < 256 ? count - begin : 256;
        for (int64_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, &logits[begin + i], 4);
            if (isnan(logits[begin + i]))
                bits = 0x7FC00000;
            for (int b = 0; b < 4; b++)
                bytes[4 * i + b] = (uint8_t)(bits >> 8 * b);
        }
        SHA256Update(hash, bytes, (size_t)n * 4);
    }
}

static void finish_hash(SHA2_CTX *hash, char text[65])
{
    uint8_t digest[32];
    SHA256Final(digest, hash);
    for (int i = 0; i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

/* ---- the loop ---- */

static bool is_eos(const mh_config *c, int32_t id)
{
    for (uint32_t i = 0; i < c->eos_count; i++)
        if (c->eos_token_ids[i] == id)
            return true;
    return false;
}

static mh_status emit_text(struct generation *g, mh_detokenizer *detokenizer, int32_t id)
{
    if (!g->stream)
        return MH_OK;
    if (g->count == 1 && g->echo)
        fputs(g->echo, stdout);
    if (!detokenizer) {
        printf("%s%d", g->count > 1 ? " " : "", id);
    } else if (!is_eos(g->config, id)) {
        const char *text;
        uint64_t bytes;
        mh_status status = mh_detokenizer_push(detokenizer, id, &text, &bytes);
        if (status)
            return status;
        fwrite(text, 1, bytes, stdout);
    }
    fflush(stdout);
    return MH_OK;
}

static void finish_text(struct generation *g, mh_detokenizer *detokenizer)
{
    const char *text;
    uint64_t bytes;
    if (!g->stream)
        return;
    if (detokenizer && !mh_detokenizer_finish(detokenizer, &text, &bytes))
        fwrite(text, 1, bytes, stdout);
    putchar('\n');
    fflush(stdout);
}

struct loop {
    mh_detokenizer *detokenizer;
    float *logits; /* NULL: no hash wanted */
    SHA2_CTX hash;
    uint64_t room;
};

/* The token chosen by the last run: hashed, kept, shown. */
static mh_status take_token(struct generation *g, struct loop *loop, int32_t *id)
{
    mh_status status = mh_session_next(g->session, id);
    if (!status && loop->logits) {
        status = mh_session_logits(g->session, loop->logits);
        if (!status)
            hash_logits(&loop->hash, loop->logits, g->config->vocab_size);
    }
    if (status)
        return status;
    if (!g->ids || g->count == loop->room) {
        loop->room = loop->room ? 2 * loop->room : 256;
        int32_t *grown = realloc(g->ids, loop->room * sizeof(*grown));
        if (!grown)
            return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for the tokens");
        g->ids = grown;
    }
    g->ids[g->count++] = *id;
    return emit_text(g, loop->detokenizer, *id);
}

/* Of all devices so far. */
static void count_launches(const struct generation *g, uint64_t *launches, uint64_t *graphs)
{
    *launches = *graphs = 0;
    for (uint64_t i = 0; i < g->device_count; i++) {
        mh_device_counters c = MH_INIT(mh_device_counters);
        mh_device_get_counters(g->devices[i], &c);
        *launches += c.native + c.fallback;
        *graphs += c.graph_launches;
    }
}

static mh_status write_tokens(struct generation *g, struct loop *loop)
{
    uint64_t launches, graph_launches;
    count_launches(g, &launches, &graph_launches);
    int32_t id;
    mh_status status = take_token(g, loop, &id);
    g->first_token_ms = 1e3 * seconds_since_process_start();
    double begin = now_seconds();
    while (!status) {
        if (is_eos(g->config, id)) {
            g->stop = "eos";
            break;
        }
        if (interrupted()) {
            g->stop = "interrupted";
            break;
        }
        if ((int64_t)g->count >= g->max_tokens ||
            mh_session_position(g->session) >= mh_session_context(g->session))
            break;
        uint64_t span = mh_timeline_now(g->timeline);
        status = mh_session_run(g->session, &id, 1, NULL);
        mh_timeline_span(g->timeline, "decode step", span);
        if (status == MH_CANCELLED) {
            g->stop = "interrupted";
            status = MH_OK;
            break;
        }
        if (!status)
            status = take_token(g, loop, &id);
    }
    g->decode_seconds = now_seconds() - begin;
    count_launches(g, &g->launches, &g->graph_launches);
    g->launches -= launches, g->graph_launches -= graph_launches;
    return status;
}

mh_status generate(struct generation *g, const int32_t *prompt, uint64_t count)
{
    struct loop loop = {0};
    mh_status status = MH_OK;
    g->stop = "length";
    g->ids = NULL;
    g->count = 0;
    if (g->tokenizer)
        status = mh_detokenizer_create(g->tokenizer, MH_DECODE_SKIP_SPECIAL, &loop.detokenizer);
    if (!status && g->want_hash) {
        loop.logits = malloc((size_t)g->config->vocab_size * sizeof(float));
        if (!loop.logits)
            status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for the logits");
        SHA256Init(&loop.hash);
    }
    double begin = now_seconds();
    uint64_t span = mh_timeline_now(g->timeline);
    if (!status)
        status = mh_session_run(g->session, prompt, count, NULL);
    mh_timeline_span(g->timeline, "prefill", span);
    g->prefill_seconds = now_seconds() - begin;
    if (!status)
        status = write_tokens(g, &loop);
    if (!status)
        finish_text(g, loop.detokenizer);
    if (!status && g->want_hash)
        finish_hash(&loop.hash, g->logit_hash);
    free(loop.logits);
    mh_detokenizer_release(loop.detokenizer);
    return status;
}

void generation_free(struct generation *g)
{
    free(g->ids);
    g->ids = NULL;
}

/* ---- what ran ---- */

static void print_fallbacks(const struct setup *setup)
{
    const char *separator = "; fell back to the host: ";
    for (mh_op_id op = 1; mh_op_size(op); op++) {
        uint64_t count = setup_fallbacks(setup, op);
        if (count) {
            fprintf(stderr, "%s%s %llu x", separator, mh_op_name(op), (unsigned long long)count);
            separator = ", ";
        }
    }
}

void print_summary(const struct generation *g, const struct setup *setup, uint64_t prompt_tokens)
{
    fprintf(stderr, "%s%s (%s), %s: %llu prompt tokens at %.1f tokens/s, ", setup->uri,
            setup->info.flags & MH_DEVICE_IS_VIRTUAL ? " (virtual)" : "", setup->info.name,
            setup->profile == MH_PROFILE_FAST ? "fast" : "exact", (unsigned long long)prompt_tokens,
            (double)prompt_tokens / g->prefill_seconds);
    fprintf(stderr, "%llu written", (unsigned long long)g->count);
    if (g->count > 1)
        fprintf(stderr, " at %.1f tokens/s", (double)(g->count - 1) / g->decode_seconds);
    print_fallbacks(setup);
    mh_model_fetches f = MH_INIT(mh_model_fetches);
    if (!mh_model_get_fetches(setup->model, &f) && f.ranks)
        fprintf(stderr,
                "; %lld places a layer for experts: %.1f %% of those chosen were there, "
                "%.1f MB were fetched",
                (long long)f.places, 100 * (double)f.hits / (double)(f.hits + f.misses),
                1e-6 * (double)f.bytes);
    fputc('\n', stderr);
}
