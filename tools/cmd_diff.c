/* cmd_diff.c: the first op of a model's graph that differs between two devices, or from a trace. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "case.h"
#include "trace.h"

struct inputs {
    const char *model, *a, *b, *against, *ids, *kv;
    bool is_virtual, json;
    int64_t threads;
};

/* The first difference; found_at is NULL while there is none. */
struct comparing {
    const struct trace *first;
    bool first_is_b; /* it was read from a file: the device is side a */
    uint64_t values;
    bool found;
    struct trace_value v; /* its pointers are not kept */
    char name[160], label[64], operand[32], case_name[CASE_NAME];
    mh_op_id op;
    int32_t layer;
    uint64_t element, elements, differing;
    int32_t expert, slot, position; /* -1: none */
    uint32_t bits[2];
    double number[2];
};

static double number_of(mh_dtype dtype, uint32_t bits)
{
    float value;
    if (dtype == MH_I32)
        return (double)(int32_t)bits;
    if (dtype == MH_U32)
        return (double)bits;
    if (dtype == MH_BF16)
        bits <<= 16;
    memcpy(&value, &bits, 4);
    return (double)value;
}

static bool same(mh_dtype dtype, uint32_t a, uint32_t b)
{
    bool real = dtype == MH_F32 || dtype == MH_BF16;
    return a == b || (real && isnan(number_of(dtype, a)) && isnan(number_of(dtype, b)));
}

static void describe(struct comparing *c, const struct trace_value *v)
{
    struct conf_case op_case;
    c->found = true;
    c->v = *v;
    c->op = v->op->op;
    c->layer = v->op->layer;
    snprintf(c->name, sizeof(c->name), "%s", v->name);
    snprintf(c->label, sizeof(c->label), "%s", v->op->label ? v->op->label : "");
    snprintf(c->operand, sizeof(c->operand), "%s", v->operand);
    snprintf(c->case_name, sizeof(c->case_name), "%s",
             conf_case_of_op(v->op, &op_case) ? op_case.name : "");
    uint64_t row = v->rank > 2 ? (uint64_t)v->shape[2] : 1;
    c->expert = v->experts ? v->experts[c->element / row] : -1;
    c->slot = v->slots ? *v->slots : -1;
    c->position = v->positions ? *v->positions : -1;
}

static mh_status compare(void *user, const struct trace_value *v)
{
    struct comparing *c = user;
    uint64_t bytes, size = mh_dtype_size(v->dtype);
    const char *first = trace_find(c->first, v->name, &bytes);
    if (!first && !strcmp(v->operand, "slots"))
        return MH_OK; /* the other device has no such primitive */
    if (!first || bytes != v->bytes)
        return mh_fail(MH_BAD_DATA, "%s: %s in the other trace", v->name,
                       first ? "is of another size" : "is not");
    c->values++;
    for (uint64_t i = 0; i < bytes / size; i++) {
        uint32_t a = 0, b = 0;
        memcpy(&a, first + i * size, size);
        memcpy(&b, (const char *)v->data + i * size, size);
        if (same(v->dtype, a, b))
            continue;
        if (!c->differing++) {
            c->element = i;
            c->bits[c->first_is_b] = a, c->bits[!c->first_is_b] = b;
            for (int side = 0; side < 2; side++)
                c->number[side] = number_of(v->dtype, c->bits[side]);
        }
    }
    c->elements = bytes / size;
    if (!c->differing)
        return MH_OK;
    describe(c, v);
    return mh_fail(MH_CANCELLED, "a difference was found");
}

/* ---- telling ---- */

/* Index by dimension; of a cache row, its dimension alone. */
static uint32_t index_of(const struct comparing *c, int64_t index[MH_MAX_RANK])
{
    uint64_t rest = c->element;
    if (c->slot >= 0) {
        index[0] = (int64_t)c->element;
        return 1;
    }
    for (uint32_t i = c->v.rank; i-- > 0; rest /= (uint64_t)c->v.shape[i])
        index[i] = (int64_t)(rest % (uint64_t)c->v.shape[i]);
    return c->v.rank;
}

static void print_text(const struct comparing *c, const char *a, const char *b, uint64_t ops)
{
    int64_t index[MH_MAX_RANK];
    if (!c->found) {
        printf("%s and %s agree: %llu ops, %llu values\n", a, b, (unsigned long long)ops,
               (unsigned long long)c->values);
        return;
    }
    printf("%s and %s differ first at op %llu, step %u: %s", a, b, (unsigned long long)c->v.number,
           c->v.step, mh_op_name(c->op));
    if (c->layer >= 0)
        printf(", layer %d", c->layer);
    if (*c->label)
        printf(", %s", c->label);
    if (c->expert >= 0)
        printf(", expert %d", c->expert);
    printf("\n  %s[", c->operand);
    for (uint32_t i = 0, rank = index_of(c, index); i < rank; i++)
        printf("%s%lld", i ? ", " : "", (long long)index[i]);
    printf("]");
    if (c->slot >= 0)
        printf(" of slot %d, position %d", c->slot, c->position);
    printf(" is %.9g (%08x) and %.9g (%08x); %llu of %llu elements differ\n", c->number[0],
           c->bits[0], c->number[1], c->bits[1], (unsigned long long)c->differing,
           (unsigned long long)c->elements);
    if (*c->case_name)
        printf("  moehal check --device %s --filter '%s'\n",
               c->first_is_b || !strncmp(b, "host:", 5) ? a : b, c->case_name);
}

static json_t *first_json(const struct comparing *c)
{
    int64_t index[MH_MAX_RANK];
    char bits[2][16];
    json_t *at = json_array();
    for (uint32_t i = 0, rank = index_of(c, index); i < rank; i++)
        json_array_append_new(at, json_integer(index[i]));
    snprintf(bits[0], sizeof(bits[0]), "%08x", c->bits[0]);
    snprintf(bits[1], sizeof(bits[1]), "%08x", c->bits[1]);
    json_t *first =
        json_pack("{s:s, s:i, s:s, s:i, s:s, s:o, s:s, s:s, s:I, s:s}", "op", mh_op_name(c->op),
                  "layer", c->layer, "label", c->label, "step", (int)c->v.step, "operand",
                  c->operand, "index", at, "a_bits", bits[0], "b_bits", bits[1], "differing",
                  (json_int_t)c->differing, "case", c->case_name);
    /* JSON has neither NaN nor infinities. */
    for (int i = 0; i < 2; i++)
        json_object_set_new(first, i ? "b" : "a",
                            isfinite(c->number[i]) ? json_real(c->number[i]) : json_null());
    json_object_set_new(first, "expert", c->expert >= 0 ? json_integer(c->expert) : json_null());
    return first;
}

static void print_json(const struct comparing *c, const char *a, const char *b, bool is_virtual,
                       uint64_t ops)
{
    json_t *report = json_pack("{s:b, s:s, s:s, s:b, s:I, s:o}", "equal", !c->found, "a", a, "b", b,
                               "virtual", is_virtual, "ops", (json_int_t)ops, "first",
                               c->found ? first_json(c) : json_null());
    if (report && !json_dumpf(report, stdout, JSON_INDENT(1)))
        putchar('\n');
    json_decref(report);
}

/* ---- running ---- */

static struct setup_options options_for(const struct inputs *in, const char *device)
{
    return (struct setup_options){.model = in->model,
                                  .device = device,
                                  .kv = in->kv,
                                  .threads = in->threads,
                                  .is_virtual = in->is_virtual};
}

/* Side a's trace: recorded now, in memory, or read. Returns -1, or the exit status. */
static int first_trace(const struct inputs *in, char uri[64], struct trace **out)
{
    struct setup setup;
    struct trace_key key;
    struct setup_options options = options_for(in, in->a);
    *out = NULL;
    int code = setup_open(&setup, &command_diff, &options);
    if (code < 0)
        code = trace_key_make(&command_diff, &setup, in->ids, &key);
    if (code < 0) {
        mh_status status = MH_OK;
        snprintf(uri, 64, "%s", mh_device_uri(setup.device));
        *out = trace_create();
        if (!*out)
            status = mh_fail(MH_OUT_OF_MEMORY, "no memory for a trace");
        if (!status)
            status = trace_run(&setup, &key, trace_add, *out, NULL);
        code = status ? report_failure(status) : -1;
        free(key.ids);
    }
    return setup_close(&setup, code);
}

/* Runs `device` and compares as it goes. */
static int second_side(const struct inputs *in, const char *device, const char *first_name,
                       struct trace *first)
{
    struct setup setup;
    struct trace_key key = {0};
    struct comparing c = {
        .expert = -1, .slot = -1, .position = -1, .first_is_b = in->against != NULL};
    struct setup_options options = options_for(in, device);
    uint64_t ops = 0;
    int code = setup_open(&setup, &command_diff, &options);
    if (code < 0)
        code = trace_key_make(&command_diff, &setup, in->ids, &key);
    if (code < 0) {
        mh_status status = in->against ? trace_load(in->against, &key, &first) : MH_OK;
        c.first = first;
        if (!status)
            status = trace_run(&setup, &key, compare, &c, &ops);
        bool is_virtual = setup.info.flags & MH_DEVICE_IS_VIRTUAL;
        const char *uri = mh_device_uri(setup.device);
        const char *a = in->against ? uri : first_name, *b = in->against ? first_name : uri;
        if (status && !c.found)
            code = in->against ? report_bad_input(status) : report_failure(status);
        else if (in->json)
            print_json(&c, a, b, is_virtual, ops);
        else
            print_text(&c, a, b, ops);
        if (code < 0)
            code = c.found ? EXIT_FAILED : EXIT_DONE;
        if (in->against)
            trace_free(first);
    }
    free(key.ids);
    return setup_close(&setup, code);
}

static int run(int argc, char **argv)
{
    struct inputs in = {0};
    char uri[64];
    struct trace *first = NULL;
    const struct option options[] = {
        {"model", OPTION_TEXT, &in.model, "DIR", "the model's directory (Hugging Face layout)"},
        {"a", OPTION_TEXT, &in.a, "URI", "a device: host, nvidia:0, ..."},
        {"b", OPTION_TEXT, &in.b, "URI", "the device to compare with it"},
        {"against", OPTION_TEXT, &in.against, "FILE", "or a trace recorded elsewhere"},
        {"virtual", OPTION_FLAG, &in.is_virtual, NULL, "use the project's virtual GPUs"},
        {"kv", OPTION_TEXT, &in.kv, "f32|bf16", "dtype of the cache; default f32"},
        {"threads", OPTION_INTEGER, &in.threads, "N", "host threads; default one a core", 0, 4096},
        {"ids", OPTION_TEXT, &in.ids, "\"0 17 4\"",
         "the tokens; default eight that every machine takes"},
        {"json", OPTION_FLAG, &in.json, NULL, "one JSON object on stdout instead of text"},
        {0},
    };
    int code = parse_options(&command_diff, options, argc, argv, NULL, 0);
    if (code >= 0)
        return code;
    if (!in.a)
        return usage_error(&command_diff, "--a URI is needed");
    if (!in.b == !in.against)
        return usage_error(&command_diff, "one of --b and --against is needed");
    catch_interrupt();
    if (in.against)
        return second_side(&in, in.a, in.against, NULL);
    code = first_trace(&in, uri, &first);
    if (code < 0)
        code = second_side(&in, in.b, uri, first);
    trace_free(first);
    return code;
}

const struct command command_diff = {
    "diff",
    "--model DIR --a URI (--b URI | --against FILE) [options]",
    "the first op of a model that differs between two devices, or from a trace",
    "  moehal diff --model models/fairy --a host --b nvidia:0\n"
    "  moehal diff --model models/fairy --a amd:0 --against host.trace --json",
    run,
};
