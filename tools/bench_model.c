/*
 * bench_model.c: prefill and decode of a whole model. Each round runs, one after the other: the
 * limits, then every side's prefill, then every side's decode. What is printed are medians over the
 * rounds, and medians of the rounds' ratios: a machine that gets slower slows both sides of a
 * ratio.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define BATCHES 8

struct side {
    struct setup setup;
    bool open; /* setup is filled */
    struct bench_weights weights;
    mh_session *session;
    int32_t *ids;
    double prefill[BENCH_ROUNDS], decode[BATCHES][BENCH_ROUNDS]; /* seconds of a whole phase */
    double launches, graph_launches;                             /* a step of the first batch */
};

struct bench {
    const struct bench_options *o;
    int64_t batches[BATCHES]; /* sequences that decode side by side */
    int batch_count;
    struct side sides[2];
    int side_count;
    struct limits *limits;
    double bandwidth[BENCH_ROUNDS], fma[BENCH_ROUNDS];
    int64_t rounds;
    struct bench_counters counters; /* of one decode step of the first side */
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
    int64_t most = 1;
    for (int i = 0; i < b->batch_count; i++)
        most = b->batches[i] > most ? b->batches[i] : most;
    /* The prompt; then for each step a token a sequence. */
    int64_t ids = b->o->prefill + b->o->decode * most;
    s->ids = malloc((size_t)ids * sizeof(*s->ids));
    if (!s->ids)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for the tokens");
    for (int64_t i = 0; i < ids; i++) {
        state = state * 1664525u + 1013904223u;
        s->ids[i] = (int32_t)((uint64_t)state * (uint64_t)c->vocab_size >> 32);
    }
    mh_session_params params = MH_INIT(mh_session_params);
    params.kv_dtype = s->setup.kv, params.context = count, params.chunk = b->o->setup.chunk;
    params.sequences = (uint32_t)most;
    /* Room for a page more than is filled: forks share the prompt's last one until they write. */
    if (most > 1 && params.context + 64 <= c->max_position_embeddings)
        params.context += 64;
    return mh_session_create(s->setup.model, &params, &s->session);
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

/* Sequences 1 and up begin as the prompt that sequence 0 has read. */
static mh_status fork_sequences(struct bench *b, struct side *s, int64_t batch)
{
    mh_status status = mh_session_rewind(s->session, b->o->prefill);
    for (int64_t i = 1; !status && i < batch; i++) {
        uint32_t sequence;
        status = b->o->prefill ? mh_sequence_fork(s->session, 0, b->o->prefill, &sequence)
                               : mh_sequence_add(s->session, &sequence);
    }
    return status;
}

static mh_status decode(struct bench *b, struct side *s, int at, double *seconds)
{
    mh_device_counters before = MH_INIT(mh_device_counters), after = before;
    int64_t batch = b->batches[at];
    mh_sequence_rows rows[BENCH_MOST_SEQUENCES];
    mh_status status = fork_sequences(b, s, batch);
    mh_device_get_counters(s->setup.device, &before);
    double begin = now_seconds();
    for (int64_t i = 0; !status && i < b->o->decode; i++) {
        const int32_t *ids = s->ids + b->o->prefill + i * batch;
        for (int64_t j = 0; j < batch; j++)
            rows[j] = (mh_sequence_rows){sizeof(rows[0]), (uint32_t)j, 0, ids + j, 1};
        status = mh_session_step(s->session, rows, (uint64_t)batch);
    }
    *seconds = now_seconds() - begin;
    mh_device_get_counters(s->setup.device, &after);
    double steps = b->o->decode ? (double)b->o->decode : 1;
    if (!at) {
        s->launches =
            (double)(after.native + after.fallback - before.native - before.fallback) / steps;
        s->graph_launches = (double)(after.graph_launches - before.graph_launches) / steps;
    }
    for (int64_t j = 1; !status && j < batch; j++)
        status = mh_sequence_remove(s->session, (uint32_t)j);
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
    double bytes = step_bytes(&b->sides[0], (double)b->batches[0]);
    uint64_t sample = bytes < 0x1p26   ? UINT64_C(1) << 26
                      : bytes > 0x1p30 ? UINT64_C(1) << 30
                                       : (uint64_t)bytes;
    mh_status status = limits_fma(b->limits, &b->fma[at]);
    for (int i = 0; !status && i < b->side_count; i++)
        status = prefill(b, &b->sides[i], &b->sides[i].prefill[at]);
    if (!status)
        status = limits_read(b->limits, sample, &b->bandwidth[at]);
    for (int n = 0; !status && b->o->decode && n < b->batch_count; n++)
        for (int i = 0; !status && i < b->side_count; i++)
            status = decode(b, &b->sides[i], n, &b->sides[i].decode[n][at]);
    return status;
}

static mh_status count_step(struct bench *b)
{
    struct side *s = &b->sides[0];
    if (!b->o->counters || !b->o->decode)
        return MH_OK;
    mh_status status = mh_session_rewind(s->session, b->o->prefill);
    bench_counters_begin(s->setup.device, &b->counters);
    if (!status)
        status = mh_session_run(s->session, s->ids + b->o->prefill, 1, NULL);
    bench_counters_end(s->setup.device, &b->counters);
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
    if (!status)
        status = count_step(b);
    return !status && interrupted() ? mh_fail(MH_CANCELLED, "interrupted") : status;
}

/* ---- what comes of it ---- */

struct results {
    double prefill_rate, bandwidth, flops, fma, flops_share, attention;
};

/* Of one size of batch. */
struct decode_results {
    double rate, bytes, read, read_share; /* tokens a second, bytes a step */
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
    double tokens = (double)b->o->prefill;
    double flop = bench_prefill_flop(&s->weights, c, tokens);
    struct results r = {
        .bandwidth = bench_median(b->bandwidth, b->rounds),
        .fma = bench_median(b->fma, b->rounds),
    };
    if (b->o->prefill) {
        r.prefill_rate = median_rate(b, tokens, s->prefill, NULL);
        r.flops = median_rate(b, 1e-9 * flop, s->prefill, NULL);
        r.flops_share = median_rate(b, 1e-9 * flop, s->prefill, b->fma);
        r.attention = 1e-9 * bench_attention_flop(c, tokens);
    }
    return r;
}

static struct decode_results decode_results_of(const struct bench *b, const struct side *s, int n)
{
    double steps = (double)b->o->decode, batch = (double)b->batches[n];
    struct decode_results r = {.bytes = step_bytes(s, batch)};
    if (b->o->decode) {
        r.rate = median_rate(b, steps * batch, s->decode[n], NULL);
        r.read = median_rate(b, 1e-9 * r.bytes * steps, s->decode[n], NULL);
        r.read_share = median_rate(b, 1e-9 * r.bytes * steps, s->decode[n], b->bandwidth);
    }
    return r;
}

/* Tokens a second of batch n over those of the first batch, round by round. */
static double batch_gain(const struct bench *b, const struct side *s, int n)
{
    double more = (double)b->batches[n] / (double)b->batches[0];
    double values[BENCH_ROUNDS];
    for (int64_t r = 0; r < b->rounds; r++)
        values[r] = more * s->decode[0][r] / s->decode[n][r];
    return bench_median(values, b->rounds);
}

/* Seconds of the first side over seconds of the second. */
static double time_ratio(const struct bench *b, const double *first, const double *second)
{
    double values[BENCH_ROUNDS];
    for (int64_t r = 0; r < b->rounds; r++)
        values[r] = first[r] / second[r];
    return bench_median(values, b->rounds);
}

static json_t *batches_json(const struct bench *b, const struct side *s)
{
    json_t *array = json_array();
    bool limits = limits_known(b->limits);
    for (int n = 0; b->o->decode && n < b->batch_count; n++) {
        struct decode_results d = decode_results_of(b, s, n);
        json_array_append_new(
            array, json_pack("{s:I, s:f, s:f, s:I, s:f, s:o}", "batch", (json_int_t)b->batches[n],
                             "decode_tokens_per_s", d.rate, "gain", batch_gain(b, s, n),
                             "weight_bytes_per_step", (json_int_t)d.bytes, "read_GBps", d.read,
                             "read_share", bench_number(limits, d.read_share)));
    }
    return array;
}

static json_t *side_json(const struct bench *b, const struct side *s)
{
    struct results r = results_of(b, s);
    struct decode_results d = decode_results_of(b, s, 0);
    bool prefills = b->o->prefill, decodes = b->o->decode, limits = limits_known(b->limits);
    return json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "model",
        mh_checkpoint_dir(s->setup.checkpoint), "prefill_tokens_per_s",
        bench_number(prefills, r.prefill_rate), "decode_tokens_per_s",
        bench_number(decodes, d.rate), "launches_per_token",
        bench_number(decodes, s->launches / (double)b->batches[0]), "graph_launches_per_token",
        bench_number(decodes, s->graph_launches / (double)b->batches[0]), "weight_bytes_per_token",
        (json_int_t)(d.bytes / (double)b->batches[0]), "read_GBps", bench_number(decodes, d.read),
        "read_share", bench_number(decodes && limits, d.read_share), "prefill_GFLOPS",
        bench_number(prefills, r.flops), "fma_share",
        bench_number(prefills && limits, r.flops_share), "attention_GFLOP",
        bench_number(prefills, r.attention), "batches", batches_json(b, s));
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
    json_object_set_new(object, "counters", bench_counters_json(&b->counters));
    json_decref(run);
    if (b->side_count > 1) {
        const struct side *other = &b->sides[1];
        json_object_set_new(object, "against", side_json(b, other));
        json_object_set_new(object, "prefill_time_ratio",
                            bench_number(b->o->prefill, time_ratio(b, s->prefill, other->prefill)));
        json_object_set_new(
            object, "decode_time_ratio",
            bench_number(b->o->decode, time_ratio(b, s->decode[0], other->decode[0])));
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
    for (int n = 0; b->o->decode && n < b->batch_count; n++) {
        struct decode_results d = decode_results_of(b, s, n);
        print_rate("decode", b->o->decode, d.rate, d.read, "GB/s", r.bandwidth, d.read_share);
        printf("  (%.1f MB of weights a step", 1e-6 * d.bytes);
        if (b->batches[n] == 1)
            printf("; %.0f launches)\n", s->launches);
        else
            printf(", as expected; batch of %lld)\n", (long long)b->batches[n]);
    }
    for (int n = 1; b->o->decode && n < b->batch_count; n++)
        printf("  a batch of %lld gives %.2f x the tokens of a batch of %lld\n",
               (long long)b->batches[n], batch_gain(b, s, n), (long long)b->batches[0]);
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
               time_ratio(b, s->decode[0], other->decode[0]));
    printf("limits with %s (read: %s; FMA: %s); medians of %lld rounds\n", limits_how(b->limits),
           limits_best_read(b->limits), limits_best_fma(b->limits), (long long)b->rounds);
    for (mh_op_id op = 1; mh_op_size(op); op++)
        if (mh_device_fallbacks(s->setup.device, op))
            printf("fell back to the host: %s, %llu times\n", mh_op_name(op),
                   (unsigned long long)mh_device_fallbacks(s->setup.device, op));
    bench_counters_print(b->o, &b->counters, "of one decode step");
}

/* "1,8" */
static int parse_batches(struct bench *b, const char *text)
{
    const char *at = text ? text : "1";
    do {
        char *end;
        long long batch = strtoll(at, &end, 10);
        if (end == at || (*end && *end != ',') || batch < 1 || batch > BENCH_MOST_SEQUENCES)
            return usage_error(&command_bench, "--batch: '%s', must be sizes of 1 to %d, like 1,8",
                               text, BENCH_MOST_SEQUENCES);
        if (b->batch_count == BATCHES)
            return usage_error(&command_bench, "--batch: '%s', at most %d sizes", text, BATCHES);
        b->batches[b->batch_count++] = batch;
        at = *end ? end + 1 : end;
    } while (*at);
    return -1;
}

int bench_model(const struct bench_options *o)
{
    struct bench b = {.o = o, .side_count = o->against ? 2 : 1};
    mh_status status = MH_OK;
    int code = parse_batches(&b, o->batch);
    if (code >= 0)
        return code;
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
