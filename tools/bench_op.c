/*
 * bench_op.c: one op alone, on a case of the conformance suite, so that names and sizes are its
 * own. The op's weights are there several times, as much as caches do not hold, and taken in turn:
 * in a model too they come from memory.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "build.h"

#define SPREAD (UINT64_C(512) << 20) /* bytes of weights to take in turn */
#define COPIES 64

/* What a decode step of V2-Lite and of V3 asks of an op; V3's experts as many as fit. */
static const struct shape {
    mh_op_id op;
    const char *lite, *v3;
    const char *lite_variant, *v3_variant; /* NULL: the op's first */
} shapes[] = {
    {MH_OP_EMBED, "T1.D2048.V102400", "T1.D7168.V129280", NULL, NULL},
    {MH_OP_RMSNORM, "T1.D2048", "T1.D7168", NULL, NULL},
    {MH_OP_LINEAR, "T1.O3072.I2048", "T1.O24576.I1536", NULL, NULL},
    {MH_OP_LINEAR_ADD, "T1.O2048.I2048", "T1.O7168.I16384", NULL, NULL},
    {MH_OP_LINEAR_SWIGLU, "T1.N2816.I2048", "T1.N2048.I7168", NULL, NULL},
    {MH_OP_SWIGLU, "T1.N10944", "T1.N18432", NULL, NULL},
    {MH_OP_ADD, "T1.N2048", "T1.N7168", NULL, NULL},
    {MH_OP_ROPE, "T1.H16.R64.X4096", "T1.H128.R64.X4096", NULL, NULL},
    {MH_OP_KV_WRITE, "T1.L512.R64.P64.Q1.M64", "T1.L512.R64.P64.Q1.M64", NULL, NULL},
    {MH_OP_MLA_KV, "T1.L512.R64.P64.Q1.M64", "T1.L512.R64.P64.Q1.M64", NULL, NULL},
    {MH_OP_ATTENTION, "T1.H16.L512.R64.P64.Q1.M64", "T1.H128.L512.R64.P64.Q1.M64", NULL, NULL},
    {MH_OP_HEAD_LINEAR, "T1.H16.B512.C128.F256", "T1.H128.B512.C128.F256", NULL, NULL},
    {MH_OP_MLA_QUERY, "T1.H16.L512.N128.R64.U128.X4096", "T1.H128.L512.N128.R64.U128.X4096", NULL,
     NULL},
    {MH_OP_ROUTER, "T1.E64.J6.G1.W1", "T1.E256.J8.G8.W4", "softmax", "sigmoid-bias-groups"},
    {MH_OP_ROUTER_LINEAR, "T1.E64.I2048.J6.G1.W1", "T1.E256.I7168.J8.G8.W4", "softmax",
     "sigmoid-bias-groups"},
    {MH_OP_EXPERTS_GATE_UP, "T1.J6.D2048.I1408.S64.E64", "T1.J8.D7168.I2048.S32.E32", NULL, NULL},
    {MH_OP_EXPERTS_DOWN, "T1.J6.D2048.I1408.S64.E64", "T1.J8.D7168.I2048.S32.E32", NULL, NULL},
    {MH_OP_EXPERTS_DOWN_COMBINE, "T1.J6.D2048.I1408.S64.E64", "T1.J8.D7168.I2048.S32.E32", NULL,
     NULL},
    {MH_OP_COMBINE, "T1.J6.D2048.S64.E64", "T1.J8.D7168.S256.E256", NULL, NULL},
    {MH_OP_NORM_LINEAR, "T1.O3072.U576.I2048", "T1.O1536.U576.I7168", "pair", "pair"},
    {MH_OP_MLA_QKV, "T1.H16.L512.R64.P64.Q1.M64.N128.U128", "T1.H128.L512.R64.P64.Q1.M64.N128.U128",
     NULL, NULL},
    {MH_OP_NORM_ROUTER, "T1.E64.I2048.J6.G1.W1", "T1.E256.I7168.J8.G8.W4", "softmax",
     "sigmoid-bias-groups"},
    {MH_OP_MOE_GATE_UP, "T1.J6.D2048.I1408.N2816.S64.E64", "T1.J8.D7168.I2048.N2048.S32.E32", NULL,
     NULL},
    {MH_OP_MOE_DOWN_COMBINE, "T1.J6.D2048.I1408.N2816.S64.E64", "T1.J8.D7168.I2048.N2048.S32.E32",
     NULL, NULL},
    {MH_OP_ARGMAX, "T1.V102400", "T1.V129280", NULL, NULL},
    {MH_OP_SAMPLE, "T1.V102400", "T1.V129280", "all", "all"},
    {MH_OP_COPY, "A1.B64.C1.D16384", "A1.B64.C1.D16384", "rank2", "rank2"},
    {MH_OP_CAST, "A1.B64.C1.D16384", "A1.B64.C1.D16384", "rank2", "rank2"},
    {MH_OP_FILL, "A1.B64.C1.D16384", "A1.B64.C1.D16384", "rank2", "rank2"},
};

/* ---- from words to a case ---- */

static const char *first_format(mh_op_id op, bool v3)
{
    if (op == MH_OP_CAST)
        return "f32-bf16";
    if (conf_takes_format(op, MH_FORMAT_BF16, MH_F32, 0)) /* with a cache */
        return v3 ? "fp8-f32" : "bf16-f32";
    if (v3 && conf_takes_format(op, MH_FORMAT_FP8, 0, 0))
        return "fp8";
    return conf_takes_format(op, MH_FORMAT_BF16, 0, 0) ? "bf16" : "f32";
}

/* "v3", "v2-lite", "T4.O576.I7168", "fp8/T4.O576.I7168", or the whole name of a case. */
static int choose_case(const char *name, const char *shape, struct conf_case *c)
{
    const struct op_rule *rule = NULL;
    const struct shape *known = NULL;
    for (uint32_t i = 0; i < conf_rule_count; i++)
        if (!strcmp(mh_op_name(conf_rules[i].op), name))
            rule = &conf_rules[i];
    if (!rule)
        return usage_error(&command_bench, "op: '%s' is no op; docs/ops.md lists them", name);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        if (shapes[i].op == rule->op)
            known = &shapes[i];
    if (shape && conf_case_parse(shape, c) && c->op == rule->op)
        return -1;
    char text[CASE_NAME];
    bool v3 = shape && !strcmp(shape, "v3");
    bool named = !shape || v3 || !strcmp(shape, "v2-lite");
    const char *slash = named ? NULL : strchr(shape, '/');
    const char *variant = known ? (v3 ? known->v3_variant : known->lite_variant) : NULL;
    const char *sizes = known ? (v3 ? known->v3 : known->lite) : rule->real ? rule->real[0] : "";
    snprintf(text, sizeof(text), "%s/%.*s/%s/dense/random/%s", name,
             slash ? (int)(slash - shape) : 32, slash ? shape : first_format(rule->op, v3),
             named ? sizes : (slash ? slash + 1 : shape), variant ? variant : rule->variants[0]);
    if (conf_case_parse(text, c))
        return -1;
    return usage_error(
        &command_bench,
        "--shape: '%s', must be v2-lite, v3, or sizes like %s, a format and / before "
        "them if not %s",
        shape ? shape : "", sizes, first_format(rule->op, v3));
}

/* ---- what it moves and computes ---- */

static double experts_used(struct conf_build *b)
{
    struct conf_operand *experts = conf_find(b, "experts");
    bool used[4096] = {false};
    double count = 0;
    for (int64_t t = 0; experts && t < conf_size(experts, 0); t++)
        for (int64_t j = 0; j < conf_size(experts, 1); j++) {
            int32_t e = conf_index(b, experts, t, j);
            if (e < 0 || e >= 4096 || used[e])
                continue;
            used[e] = true;
            count++;
        }
    return count;
}

/* Keys that attention looks at, over all rows. */
static double keys_seen(struct conf_build *b)
{
    struct conf_operand *positions = conf_find(b, "positions");
    double keys = 0;
    for (int64_t t = 0; positions && t < conf_size(positions, 0); t++)
        keys += 1 + (double)conf_index(b, positions, t, 0);
    return keys;
}

/* Of a weight: absorbing takes the rows of one side of each head. */
static double part_used(const struct conf_build *b)
{
    const int64_t *d = b->c->dim;
    switch (b->c->op) {
    case MH_OP_HEAD_LINEAR:
        return (double)d['C'] / (double)d['F'];
    case MH_OP_MLA_QUERY:
    case MH_OP_MLA_QKV:
        return (double)d['N'] / (double)(d['N'] + d['U']);
    default:
        return 1;
    }
}

/* As far as they are touched. */
static double weight_bytes_of(struct conf_build *b)
{
    double bytes = 0;
    for (uint32_t i = 0; i < b->weight_count; i++) {
        const struct conf_weight *w = &b->weights[i];
        double one = part_used(b) * (double)mh_format_bytes(w->format, w->out, w->in);
        if (b->c->op == MH_OP_EMBED)
            one *= (double)b->c->dim['T'] / (double)w->out;
        bytes += one * (w->experts > 1 ? experts_used(b) : 1);
    }
    return bytes;
}

/* Weights, keys as often as a row looks at them, and every other operand but tables once. */
static double bytes_of(struct conf_build *b)
{
    double bytes = weight_bytes_of(b);
    for (uint32_t i = 0; i < b->operand_count; i++) {
        const struct conf_operand *o = &b->operands[i];
        double size = (double)mh_dtype_size(o->view.dtype);
        bool table = strstr(o->info.name, "table") != NULL;
        if (!strcmp(o->info.name, "cache"))
            bytes += size * (double)conf_size(o, 2) *
                     (b->c->op == MH_OP_ATTENTION ? keys_seen(b) : (double)b->c->dim['T']);
        else if (!table)
            bytes += size * (double)conf_count(o);
    }
    return bytes;
}

/* Of products alone; 0: the op has none. */
static double flop_of(struct conf_build *b)
{
    const int64_t *d = b->c->dim;
    double flop = 0;
    if (b->c->op == MH_OP_ATTENTION)
        return 2 * keys_seen(b) * (double)(d['H'] * (d['K'] + d['L']));
    if (b->c->op == MH_OP_EMBED)
        return 0;
    for (uint32_t i = 0; i < b->weight_count; i++) {
        const struct conf_weight *w = &b->weights[i];
        double rows = (double)(w->experts > 1 ? d['T'] * d['J'] : d['T']);
        flop += 2 * rows * part_used(b) * (double)(w->out * w->in);
    }
    return flop;
}

/* As a router chooses: the experts of a row all differ; those of the rows overlap. */
static void choose_experts(struct conf_build *b)
{
    struct conf_operand *experts = conf_find(b, "experts");
    int64_t bank = b->c->dim['S'], k = b->c->dim['J'];
    if (!experts || !b->weight_count || !(experts->info.flags & MH_OPERAND_READ))
        return;
    for (int64_t t = 0; t < conf_size(experts, 0); t++)
        for (int64_t j = 0; j < k; j++) {
            int32_t e = (int32_t)((7 * t + j * (k <= bank ? bank / k : 1)) % bank);
            memcpy(b->image[experts->buffer] + conf_element(experts, t * k + j), &e, sizeof(e));
        }
}

/* FP8 as a checkpoint has it, with the range used evenly: bytes drawn evenly would be denormals a
 * thousand times as often, and those cost a processor time. */
static void draw_fp8(struct conf_weight *w)
{
    uint32_t state = 1;
    for (int64_t r = 0; r < w->experts * w->out; r++)
        for (int64_t k = 0; k < w->in && !conf_row_is_zero(w, r); k++) {
            state = state * 1664525u + 1013904223u;
            float value = 448 * 0x1p-24f * (float)(state >> 8);
            uint32_t bits, sign = state & 0x80;
            memcpy(&bits, &value, 4);
            w->data[r * w->in + k] =
                (uint8_t)(sign | (value < 0x1p-6f ? (uint32_t)(512 * value) : (bits >> 20) - 960));
        }
}

/* ---- running ---- */

struct op_bench {
    const struct bench_options *o;
    bool fast;
    mh_runtime *runtime;
    mh_device *device;
    mh_device_info info;
    mh_stream *stream;
    struct conf_build build;
    bool built;
    mh_buffer *buffers[BUILD_OPERANDS];
    mh_weight *weights[COPIES][BUILD_WEIGHTS];
    uint32_t copies;
    union conf_op ops[COPIES];
    struct limits *limits;
    double seconds[BENCH_ROUNDS], bandwidth[BENCH_ROUNDS], fma[BENCH_ROUNDS];
    int64_t rounds;
    double bytes, weight_bytes, flop;
};

static mh_status make_weights(struct op_bench *b)
{
    uint64_t bytes = 0;
    mh_status status = MH_OK;
    for (uint32_t i = 0; i < b->build.weight_count; i++) {
        const struct conf_weight *w = &b->build.weights[i];
        bytes += (uint64_t)w->experts * mh_format_bytes(w->format, w->out, w->in);
    }
    bool cold = bytes && !(b->info.flags & MH_DEVICE_IS_VIRTUAL);
    b->copies = cold ? (uint32_t)(1 + SPREAD / bytes) : 1;
    if (b->copies > COPIES)
        b->copies = COPIES;
    for (uint32_t n = 0; n < b->copies; n++)
        for (uint32_t i = 0; !status && i < b->build.weight_count; i++) {
            const struct conf_weight *w = &b->build.weights[i];
            mh_weight_piece piece = MH_INIT(mh_weight_piece);
            piece.expert_count = w->experts, piece.row_count = w->out;
            piece.plane[0] = w->data, piece.plane[1] = w->scales;
            status = conf_weight_create(w, b->device, false, &b->weights[n][i]);
            if (!status)
                status = mh_weight_write(b->weights[n][i], &piece);
            if (!status)
                status = mh_weight_seal(b->weights[n][i]);
        }
    return status;
}

static mh_status set_up(struct op_bench *b, const struct conf_case *c)
{
    mh_device_params params = MH_INIT(mh_device_params);
    params.threads = (uint32_t)b->o->setup.threads;
    params.placement = MH_PLACEMENT_STRICT; /* another device's speed is not this one's */
    b->info = MH_INIT(mh_device_info);
    mh_status status = mh_runtime_create(NULL, &b->runtime);
    if (!status)
        status = mh_device_open(b->runtime, b->o->setup.device, &params, &b->device);
    if (!status)
        status = mh_device_get_info(b->device, &b->info);
    if (!status)
        status = mh_stream_create(b->device, &b->stream);
    b->built = true;
    if (!status && !conf_build_make(&b->build, c))
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %s", c->name);
    if (!status)
        choose_experts(&b->build);
    for (uint32_t i = 0; !status && i < b->build.weight_count; i++)
        if (b->build.weights[i].format == MH_FORMAT_FP8)
            draw_fp8(&b->build.weights[i]);
    for (uint32_t i = 0; !status && i < b->build.buffer_count; i++) {
        status = mh_buffer_create(b->device, b->build.bytes[i], 0, &b->buffers[i]);
        if (!status)
            status = mh_buffer_write(b->buffers[i], 0, b->build.image[i], b->build.bytes[i]);
    }
    if (!status)
        status = make_weights(b);
    for (uint32_t n = 0; !status && n < b->copies; n++) {
        conf_op_for(&b->build, b->buffers, b->weights[n], &b->ops[n]);
        b->ops[n].base.flags = b->fast ? MH_OP_FAST : 0;
    }
    if (!status)
        status = limits_open(b->device, NULL, 0, bench_threads(b->o, &b->info), &b->limits);
    if (status)
        return status;
    b->bytes = bytes_of(&b->build);
    b->weight_bytes = weight_bytes_of(&b->build);
    b->flop = flop_of(&b->build);
    return MH_OK;
}

/* `count` of them, over all copies; seconds of one. */
static mh_status run_ops(struct op_bench *b, int64_t count, double *seconds)
{
    mh_status status = MH_OK;
    double begin = now_seconds();
    for (int64_t i = 0; !status && i < count; i++)
        status = mh_encode(mh_stream_encoder(b->stream), &b->ops[i % b->copies].base);
    if (!status)
        status = mh_stream_wait(b->stream, MH_FOREVER);
    *seconds = (now_seconds() - begin) / (double)count;
    return status;
}

static mh_status measure(struct op_bench *b)
{
    double once;
    mh_status status = run_ops(b, b->copies, &once);
    int64_t count = once > 0 ? (int64_t)(0.05 / once) : 1;
    count = count < b->copies ? b->copies : count > 100000 ? 100000 : count;
    if (b->info.flags & MH_DEVICE_IS_VIRTUAL) { /* counts are the same each time */
        b->seconds[0] = once, b->rounds = 1;
        return status;
    }
    double begin = now_seconds();
    while (!status && bench_goes_on(b->o, b->rounds, begin)) {
        int64_t r = b->rounds;
        status = limits_read(b->limits, UINT64_C(1) << 28, &b->bandwidth[r]);
        if (!status)
            status = run_ops(b, count, &b->seconds[r]);
        if (!status)
            status = limits_fma(b->limits, &b->fma[r]);
        b->rounds += !status;
    }
    return !status && interrupted() ? mh_fail(MH_CANCELLED, "interrupted") : status;
}

/* Of each round: amount / (seconds x limit); the median. */
static double share(const struct op_bench *b, double amount, const double *limit)
{
    double values[BENCH_ROUNDS];
    for (int64_t r = 0; r < b->rounds; r++)
        values[r] = 1e-9 * amount / (b->seconds[r] * (limit ? limit[r] : 1));
    return bench_median(values, b->rounds);
}

static mh_status count_one(struct op_bench *b, struct bench_counters *counters)
{
    double seconds;
    mh_status status = MH_OK;
    *counters = (struct bench_counters){0};
    if (b->o->counters) {
        bench_counters_begin(b->device, counters);
        status = run_ops(b, 1, &seconds);
        bench_counters_end(b->device, counters);
    }
    return status;
}

static int print(const struct op_bench *b, const struct conf_case *c,
                 const struct bench_counters *counters)
{
    bool limits = limits_known(b->limits), products = b->flop > 0;
    bool from_memory = limits && b->build.weight_count; /* other operands stay in caches */
    double microseconds = 1e6 * bench_median(b->seconds, b->rounds);
    double bandwidth = bench_median(b->bandwidth, b->rounds), fma = bench_median(b->fma, b->rounds);
    if (b->o->setup.json)
        return bench_print_json(json_pack(
            "{s:s, s:b, s:s, s:s, s:s, s:f, s:I, s:I, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:I, "
            "s:o}",
            "device", mh_device_uri(b->device), "virtual", !!(b->info.flags & MH_DEVICE_IS_VIRTUAL),
            "op", mh_op_name(c->op), "case", c->name, "profile", b->fast ? "fast" : "exact",
            "microseconds", microseconds, "bytes", (json_int_t)b->bytes, "weight_bytes",
            (json_int_t)b->weight_bytes, "GBps", share(b, b->bytes, NULL), "bandwidth_GBps",
            bench_number(limits, bandwidth), "read_share",
            bench_number(from_memory, share(b, b->bytes, b->bandwidth)), "flop",
            bench_number(products, b->flop), "GFLOPS",
            bench_number(products, share(b, b->flop, NULL)), "fma_GFLOPS",
            bench_number(limits, fma), "fma_share",
            bench_number(limits && products, share(b, b->flop, b->fma)), "limits",
            limits_how(b->limits), "rounds", (json_int_t)b->rounds, "counters",
            bench_counters_json(counters)));
    bench_print_device(b->device, &b->info,
                       b->ops[0].base.flags & MH_OP_FAST ? MH_PROFILE_FAST : MH_PROFILE_EXACT);
    printf("%s\n  %10.2f us\n  %10.2f GB/s   ", c->name, microseconds, share(b, b->bytes, NULL));
    if (from_memory)
        printf(" of %7.1f  %5.1f %%", bandwidth, 100 * share(b, b->bytes, b->bandwidth));
    printf("  (%.3f MB)\n", 1e-6 * b->bytes);
    if (products) {
        printf("  %10.2f GFLOPS ", share(b, b->flop, NULL));
        if (limits)
            printf(" of %7.1f  %5.1f %%", fma, 100 * share(b, b->flop, b->fma));
        printf("  (%.3f GFLOP)\n", 1e-9 * b->flop);
    }
    printf("limits with %s; medians of %lld rounds\n", limits_how(b->limits), (long long)b->rounds);
    bench_counters_print(b->o, counters, "of one launch");
    return EXIT_DONE;
}

int bench_op(const struct bench_options *o, const char *name)
{
    struct conf_case c = {0};
    struct bench_counters counters;
    bool fast;
    int code = parse_choice(&command_bench, "profile", o->setup.profile, "exact", "fast", &fast);
    if (code < 0)
        code = choose_case(name, o->shape, &c);
    if (code >= 0)
        return code;
    struct op_bench *b = calloc(1, sizeof(*b));
    if (!b)
        return report_failure(mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a measurement"));
    b->o = o;
    b->fast = fast;
    mh_status status = set_up(b, &c);
    if (!status)
        status = measure(b);
    if (!status)
        status = count_one(b, &counters);
    code = status ? report_failure(status) : print(b, &c, &counters);
    limits_close(b->limits);
    for (uint32_t n = 0; n < COPIES; n++)
        for (uint32_t i = 0; i < BUILD_WEIGHTS; i++)
            mh_weight_release(b->weights[n][i]);
    for (uint32_t i = 0; i < BUILD_OPERANDS; i++)
        mh_buffer_release(b->buffers[i]);
    if (b->built)
        conf_build_free(&b->build);
    mh_stream_release(b->stream);
    mh_device_release(b->device);
    mh_runtime_release(b->runtime);
    free(b);
    return code;
}
