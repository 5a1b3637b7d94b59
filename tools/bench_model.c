/*
 * bench_model.c: prefill and decode of a whole model. Each round runs, one after the other: the
 * limits, then every side's prefill, then every side's decode. What is printed are medians over the
 * rounds, and medians of the rounds' ratios: a machine that gets slower slows both sides of a
 * ratio.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct side {
    struct setup setup;
    bool open; /* setup is filled */
    struct bench_weights weights;
    mh_session *session;
    int32_t *ids;
    double prefill[BENCH_ROUNDS], decode[BENCH_ROUNDS]; /* seconds of a whole phase */
    double launches, graph_launches;                    /* a token */
};

struct bench {
    const struct bench_options *o;
    struct side sides[2];
    int side_count;
    struct limits *limits;
    double bandwidth[BENCH_ROUNDS], fma[BENCH_ROUNDS];
    int64_t rounds;
};

/* ---- setting up ---- */

/* The model's weights, where ops read them: in the checkpoint's files, unless the backend made a
 * copy of its own. */
static mh_status open_limits(struct bench *b)
{
    struct side *s = &b->sides[0];
    mh_memory_info memory = MH_INIT(mh_memory_info);
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    uint64_t count = mh_checkpoint_count(s->setup.checkpoint), bytes = 0;
    struct bench_span *spans = calloc(count + 1, sizeof(*spans));
    if (!spans)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %llu tensors",
                       (unsigned long long)count);
    for (uint64_t i = 0; !mh_checkpoint_at(s->setup.checkpoint, i, &t); i++) {
        spans[i] = (struct bench_span){t.data, t.bytes};
        bytes += t.bytes;
    }
    mh_status status = mh_device_memory(s->setup.device, &memory);
    bool copied = memory.used > bytes / 2;
    if (!status)
        status = limits_open(s->setup.device, spans, copied ? 0 : count,
                             bench_threads(b->o, &s->setup.info), &b->limits);
    free(spans);
    return status;
}

static mh_status open_session(struct bench *b, struct side *s)
{
    const mh_config *c = s->setup.config;
    int64_t count = b->o->prefill + b->o->decode;
    uint32_t state = 1;
    if (count > c->max_position_embeddings)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "--prefill + --decode: %lld tokens, the model's limit is %lld",
                       (long long)count, (long long)c->max_position_embeddings);
    bench_weights(s->setup.checkpoint, &s->weights);
    s->ids = malloc((size_t)count * sizeof(*s->ids));
    if (!s->ids)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for the tokens");
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        s->ids[i] = (int32_t)((uint64_t)state * (uint64_t)c->vocab_size >> 32);
    }
    return setup_session(&s->setup, &b->o->setup, count, NULL, &s->session);
}

/* ---- measuring ---- */

static mh_status prefill(struct bench *b, struct side *s, double *seconds)
{
    mh_status status = mh_session_rewind(s->session, 0);
    double begin = now_seconds();
    if (!status && b->o->prefill)
        status = mh_session_run(s->session, s->ids, (uint64_t)b->o->prefill, NULL);
    *seconds = now_seconds() - begin;
    return status;
}

static mh_status decode(struct bench *b, struct side *s, double *seconds)
{
    mh_device_counters before = MH_INIT(mh_device_counters), after = before;
    mh_device_get_counters(s->setup.device, &before);
    mh_status status = MH_OK;
    double begin = now_seconds();
    for (int64_t i = 0; !status && i < b->o->decode; i++)
        status = mh_session_run(s->session, s->ids + b->o->prefill + i, 1, NULL);
    *seconds = now_seconds() - begin;
    mh_device_get_counters(s->setup.device, &after);
    double tokens = b->o->decode ? (double)b->o->decode : 1;
    s->launches =
        (double)(after.native + after.fallback - before.native - before.fallback) / tokens;
    s->graph_launches = (double)(after.graph_launches - before.graph_launches) / tokens;
    return status;
}

static double step_bytes(const struct side *s, double rows)
{
    double experts = bench_expected_experts(s->setup.config, rows);
    return bench_step_bytes(&s->weights, s->setup.config, rows, experts);
}

static mh_status round_of(struct bench *b, int64_t at)
{
    /* As much as a decode step reads, within reason. */
    double bytes = step_bytes(&b->sides[0], 1);
    uint64_t sample = bytes < 0x1p26   ? UINT64_C(1) << 26
                      : bytes > 0x1p30 ? UINT64_C(1) << 30
                                       : (uint64_t)bytes;
    mh_status status = limits_fma(b->limits, &b->fma[at]);
    for (int i = 0; !status && i < b->side_count; i++)
        status = prefill(b, &b->sides[i], &b->sides[i].prefill[at]);
    if (!status)
        status = limits_read(b->limits, sample, &b->bandwidth[at]);
    for (int i = 0; !status && i < b->side_count; i++)
        status = decode(b, &b->sides[i], &b->sides[i].decode[at]);
    return status;
}

static mh_status measure(struct bench *b)
{
    /* Graphs are made, pages touched and caches filled before the first round. */
    mh_status status = round_of(b, 0);
    double begin = now_seconds();
    while (!status && bench_goes_on(b->o, b->rounds, begin)) {
        status = round_of(b, b->rounds);
        b->rounds += !status;
    }
    return !status && interrupted() ? mh_fail(MH_CANCELLED, "interrupted") : status;
}

/* ---- what comes of it ---- */

struct results {
    double prefill_rate, decode_rate, bytes, read, bandwidth, read_share, flops, fma, flops_share,
        attention;
};

/* Of each round: numerator[r] * scale / (times[r] * limit[r]), limits NULL being 1; the median. */
static double median_rate(const struct bench *b, double amount, const double *seconds,
                          const double *limit)
{
    double values[BENCH_ROUNDS];
    for (int64_t r = 0; r < b->rounds; r++)
        values[r] = amount / (seconds[r] * (limit ? limit[r] : 1));
    return bench_median(values, b->rounds);
}

static struct results results_of(const struct bench *b, const struct side *s)
{
    const mh_config *c = s->setup.config;
    double tokens = (double)b->o->prefill, steps = (double)b->o->decode;
    double bytes = step_bytes(s, 1), flop = bench_prefill_flop(&s->weights, c, tokens);
    struct results r = {
        .bytes = bytes,
        .bandwidth = bench_median(b->bandwidth, b->rounds),
        .fma = bench_median(b->fma, b->rounds),
    };
    if (b->o->prefill) {
        r.prefill_rate = median_rate(b, tokens, s->prefill, NULL);
        r.flops = median_rate(b, 1e-9 * flop, s->prefill, NULL);
        r.flops_share = median_rate(b, 1e-9 * flop, s->prefill, b->fma);
        r.attention = 1e-9 * bench_attention_flop(c, tokens);
    }
    if (b->o->decode) {
        r.decode_rate = median_rate(b, steps, s->decode, NULL);
        r.read = median_rate(b, 1e-9 * bytes * steps, s->decode, NULL);
        r.read_share = median_rate(b, 1e-9 * bytes * steps, s->decode, b->bandwidth);
    }
    return r;
}

/* Seconds of the first side over seconds of the second. */
static double time_ratio(const struct bench *b, const double *first, const double *second)
{
    double values[BENCH_ROUNDS];
    for (int64_t r = 0; r < b->rounds; r++)
        values[r] = first[r] / second[r];
    return bench_median(values, b->rounds);
}

static json_t *side_json(const struct bench *b, const struct side *s)
{
    struct results r = results_of(b, s);
    bool prefills = b->o->prefill, decodes = b->o->decode, limits = limits_known(b->limits);
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o}", "model",
                     mh_checkpoint_dir(s->setup.checkpoint), "prefill_tokens_per_s",
                     bench_number(prefills, r.prefill_rate), "decode_tokens_per_s",
                     bench_number(decodes, r.decode_rate), "launches_per_token",
                     bench_number(decodes, s->launches), "graph_launches_per_token",
                     bench_number(decodes, s->graph_launches), "weight_bytes_per_token",
                     (json_int_t)r.bytes, "read_GBps", bench_number(decodes, r.read), "read_share",
                     bench_number(decodes && limits, r.read_share), "prefill_GFLOPS",
                     bench_number(prefills, r.flops), "fma_share",
                     bench_number(prefills && limits, r.flops_share), "attention_GFLOP",
                     bench_number(prefills, r.attention));
}

static json_t *fallbacks_json(mh_device *device)
{
    json_t *object = json_object();
    for (mh_op_id op = 1; mh_op_size(op); op++)
        if (mh_device_fallbacks(device, op))
            json_object_set_new(object, mh_op_name(op),
                                json_integer((json_int_t)mh_device_fallbacks(device, op)));
    return object;
}

static json_t *whole_json(const struct bench *b)
{
    const struct side *s = &b->sides[0];
    json_t *object = side_json(b, s);
    json_t *run = json_pack(
        "{s:s, s:b, s:s, s:s, s:I, s:I, s:I, s:o, s:s, s:o, s:s, s:s, s:o}", "device",
        mh_device_uri(s->setup.device), "virtual", !!(s->setup.info.flags & MH_DEVICE_IS_VIRTUAL),
        "profile", s->setup.profile == MH_PROFILE_FAST ? "fast" : "exact", "kv",
        mh_dtype_name(s->setup.kv), "prefill", (json_int_t)b->o->prefill, "decode",
        (json_int_t)b->o->decode, "rounds", (json_int_t)b->rounds, "bandwidth_GBps",
        bench_number(limits_known(b->limits), bench_median(b->bandwidth, b->rounds)),
        "bandwidth_kernel", limits_best_read(b->limits), "fma_GFLOPS",
        bench_number(limits_known(b->limits), bench_median(b->fma, b->rounds)), "fma_kernel",
        limits_best_fma(b->limits), "limits", limits_how(b->limits), "fallbacks",
        fallbacks_json(s->setup.device));
    json_object_update(object, run);
    json_decref(run);
    if (b->side_count > 1) {
        const struct side *other = &b->sides[1];
        json_object_set_new(object, "against", side_json(b, other));
        json_object_set_new(object, "prefill_time_ratio",
                            bench_number(b->o->prefill, time_ratio(b, s->prefill, other->prefill)));
        json_object_set_new(object, "decode_time_ratio",
                            bench_number(b->o->decode, time_ratio(b, s->decode, other->decode)));
    }
    return object;
}

static void print_rate(const char *phase, int64_t tokens, double rate, double reached,
                       const char *unit, double limit, double share)
{
    printf("  %-7s %5lld  %9.1f tokens/s  %8.1f %-6s", phase, (long long)tokens, rate, reached,
           unit);
    if (limit > 0)
        printf(" of %7.1f  %5.1f %%", limit, 100 * share);
}

static void print_side(const struct bench *b, const struct side *s)
{
    struct results r = results_of(b, s);
    printf("%s\n", mh_checkpoint_dir(s->setup.checkpoint));
    if (b->o->prefill) {
        print_rate("prefill", b->o->prefill, r.prefill_rate, r.flops, "GFLOPS", r.fma,
                   r.flops_share);
        printf("  (attention, apart: %.2f GFLOP)\n", r.attention);
    }
    if (b->o->decode) {
        print_rate("decode", b->o->decode, r.decode_rate, r.read, "GB/s", r.bandwidth,
                   r.read_share);
        printf("  (%.1f MB of weights a token; %.0f launches)\n", 1e-6 * r.bytes, s->launches);
    }
}

static void print_text(const struct bench *b)
{
    const struct side *s = &b->sides[0], *other = &b->sides[1];
    bench_print_device(s->setup.device, &s->setup.info, s->setup.profile);
    for (int i = 0; i < b->side_count; i++)
        print_side(b, &b->sides[i]);
    if (b->side_count > 1 && b->o->prefill)
        printf("prefill takes %.3f of the second's time\n",
               time_ratio(b, s->prefill, other->prefill));
    if (b->side_count > 1 && b->o->decode)
        printf("a decode step takes %.3f of the second's time\n",
               time_ratio(b, s->decode, other->decode));
    printf("limits with %s (read: %s; FMA: %s); medians of %lld rounds\n", limits_how(b->limits),
           limits_best_read(b->limits), limits_best_fma(b->limits), (long long)b->rounds);
    for (mh_op_id op = 1; mh_op_size(op); op++)
        if (mh_device_fallbacks(s->setup.device, op))
            printf("fell back to the host: %s, %llu times\n", mh_op_name(op),
                   (unsigned long long)mh_device_fallbacks(s->setup.device, op));
}

int bench_model(const struct bench_options *o)
{
    struct bench b = {.o = o, .side_count = o->against ? 2 : 1};
    int code = -1;
    mh_status status = MH_OK;
    if (!o->prefill && !o->decode)
        return usage_error(&command_bench, "--prefill and --decode are both 0: nothing to measure");
    for (int i = 0; code < 0 && !status && i < b.side_count; i++) {
        struct setup_options options = o->setup;
        options.model = i ? o->against : o->setup.model;
        code = setup_open(&b.sides[i].setup, &command_bench, &options);
        b.sides[i].open = true;
        if (code < 0)
            status = open_session(&b, &b.sides[i]);
    }
    if (code < 0 && !status)
        status = open_limits(&b);
    if (code < 0 && !status)
        status = measure(&b);
    if (code < 0 && status)
        code = report_failure(status);
    if (code < 0)
        code = o->setup.json ? bench_print_json(whole_json(&b)) : (print_text(&b), EXIT_DONE);
    limits_close(b.limits);
    for (int i = 0; i < b.side_count; i++) {
        mh_session_release(b.sides[i].session);
        free(b.sides[i].ids);
        if (b.sides[i].open)
            code = setup_close(&b.sides[i].setup, code);
    }
    return code;
}
