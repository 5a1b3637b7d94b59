/* cmd_inspect.c: what a checkpoint holds, and what it takes of devices. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <moehal-model/plan.h>
#include <moehal-model/synth.h>

#include "tool.h"

struct inputs {
    const char *name, *device, *dtype, *kv, *placement, *attention, *offload;
    int64_t context, chunk, layers, expert_places;
    mh_dtype kv_dtype;
    uint32_t attention_kind;
    bool json, is_virtual;
    struct placement_words words;
};

/* A checkpoint, or a config alone. */
struct subject {
    mh_checkpoint *checkpoint; /* NULL: there is none */
    mh_config own;
    const mh_config *config;
};

struct facts {
    mh_config_sizes sizes;
    mh_checkpoint_extras extras;
    uint64_t tensors, bytes; /* no tensors: of a config alone */
    uint64_t by_dtype[32];
};

/* A folder holds a checkpoint. A file, or a name without folders, is what synth makes one of. */
static mh_status open_subject(const struct inputs *in, struct subject *subject)
{
    struct stat info;
    bool there = !stat(in->name, &info);
    if (there ? S_ISDIR(info.st_mode) : strchr(in->name, '/') != NULL) {
        mh_status status = mh_checkpoint_open(in->name, &subject->checkpoint);
        subject->config = status ? NULL : mh_checkpoint_config(subject->checkpoint);
        return status;
    }
    uint32_t dtype = MH_SYNTH_AS_GIVEN;
    if (in->dtype)
        dtype = strcmp(in->dtype, "fp8") ? MH_SYNTH_BF16 : MH_SYNTH_FP8;
    subject->own = MH_INIT(mh_config);
    subject->config = &subject->own;
    return mh_synth_config(in->name, in->layers, dtype, &subject->own);
}

static mh_plan_params plan_params(const struct inputs *in, const struct subject *subject)
{
    mh_plan_params p = MH_INIT(mh_plan_params);
    p.config = subject->config;
    p.checkpoint = subject->checkpoint;
    p.kv_dtype = in->kv_dtype;
    p.context = in->context;
    p.chunk = in->chunk;
    return p;
}

static mh_status gather(const struct inputs *in, const struct subject *subject, struct facts *f)
{
    *f = (struct facts){.sizes = MH_INIT(mh_config_sizes), .extras = MH_INIT(mh_checkpoint_extras)};
    mh_status status = mh_config_get_sizes(subject->config, &f->sizes);
    if (!subject->checkpoint) {
        mh_plan_params params = plan_params(in, subject);
        mh_plan_rank all = MH_INIT(mh_plan_rank);
        int64_t missing;
        if (!status)
            status = mh_plan(&params, &all, 1, &missing);
        f->bytes = all.weight_bytes + all.expert_bytes;
        return status;
    }
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    for (uint64_t i = 0; mh_checkpoint_at(subject->checkpoint, i, &t) == MH_OK; i++) {
        f->tensors++;
        f->bytes += t.bytes;
        if (t.dtype < 32)
            f->by_dtype[t.dtype] += t.bytes;
    }
    if (!status)
        status = mh_checkpoint_get_extras(subject->checkpoint, &f->extras);
    return status ? status : mh_checkpoint_check(subject->checkpoint);
}

static void print_text(const struct inputs *in, const mh_config *c, const struct facts *f)
{
    printf("%s: %s, %lld layers, hidden %lld, %lld heads, vocabulary %lld, context %lld\n",
           in->name, c->family == MH_FAMILY_V3 ? "DeepSeek-V3 family" : "DeepSeek-V2 family",
           (long long)c->num_hidden_layers, (long long)c->hidden_size,
           (long long)c->num_attention_heads, (long long)c->vocab_size,
           (long long)c->max_position_embeddings);
    if (c->n_routed_experts)
        printf("experts      %lld, %lld a token, %lld shared; %s, groups %lld of %lld\n",
               (long long)c->n_routed_experts, (long long)c->num_experts_per_tok,
               (long long)c->n_shared_experts,
               c->scoring == MH_SCORING_SIGMOID ? "sigmoid" : "softmax", (long long)c->topk_group,
               (long long)c->n_group);
    printf("parameters   %.3f M, %.3f M active a token\n", 1e-6 * (double)f->sizes.parameters,
           1e-6 * (double)f->sizes.active);
    printf("weights      %.1f MB", 1e-6 * (double)f->bytes);
    if (f->tensors)
        printf(" in %llu tensors:", (unsigned long long)f->tensors);
    else
        printf(" as %s", c->fp8 ? "FP8 with bf16" : "bf16");
    for (uint32_t d = 0; d < 32; d++)
        if (f->by_dtype[d])
            printf(" %s %.1f MB", mh_safetensors_dtype_name(d), 1e-6 * (double)f->by_dtype[d]);
    unsigned long long values = f->sizes.latent_elements;
    printf("\ncache        %llu bytes a token in f32, %llu in bf16\n", 4 * values, 2 * values);
    if (f->extras.mtp)
        printf("left alone   %llu tensors of multi-token-prediction layers\n",
               (unsigned long long)f->extras.mtp);
    if (f->extras.unknown)
        printf("unknown      %llu tensors, the first is %s\n",
               (unsigned long long)f->extras.unknown, f->extras.first_unknown);
}

static json_t *facts_json(const struct inputs *in, const mh_config *c, const struct facts *f)
{
    json_t *dtypes = json_object();
    for (uint32_t d = 0; d < 32; d++)
        if (f->by_dtype[d])
            json_object_set_new(dtypes, mh_safetensors_dtype_name(d),
                                json_integer((json_int_t)f->by_dtype[d]));
    /* A directory's name may be any bytes, a JSON string not. */
    json_t *dir = json_string(in->name);
    return json_pack(
        "{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I}", "dir",
        dir ? dir : json_null(), "family", c->family == MH_FAMILY_V3 ? "v3" : "v2", "layers",
        (json_int_t)c->num_hidden_layers, "experts", (json_int_t)c->n_routed_experts, "parameters",
        (json_int_t)f->sizes.parameters, "active_parameters", (json_int_t)f->sizes.active,
        "tensors", (json_int_t)f->tensors, "weight_bytes", (json_int_t)f->bytes, "dtypes", dtypes,
        "cache_bytes_per_token", 4 * (json_int_t)f->sizes.latent_elements, "mtp_tensors",
        (json_int_t)f->extras.mtp, "unknown_tensors", (json_int_t)f->extras.unknown);
}

/* ---- the plan ---- */

#define MOST_DEVICES 64

struct rank {
    char uri[64];
    uint64_t memory;
    uint32_t flags, process;
};

struct devices {
    mh_runtime *runtime;
    mh_transport *transport; /* or NULL */
    struct rank asked[MOST_DEVICES];
    mh_plan_rank ranks[MOST_DEVICES];
    uint32_t count;
    int64_t missing; /* experts of a layer that have no place */
};

static mh_status ask_device(void *user, const char *uri)
{
    struct devices *d = user;
    mh_device *device;
    mh_device_info info = MH_INIT(mh_device_info);
    mh_memory_info memory = MH_INIT(mh_memory_info);
    if (d->count == MOST_DEVICES)
        return mh_fail(MH_INVALID_ARGUMENT, "--device: more than %d devices", MOST_DEVICES);
    mh_status status = mh_device_open(d->runtime, uri, NULL, &device);
    if (status)
        return status;
    status = mh_device_get_info(device, &info);
    if (!status)
        status = mh_device_memory(device, &memory);
    struct rank *r = &d->asked[d->count];
    r->memory = memory.available;
    r->flags = info.flags | (d->count ? 0 : MH_PLAN_FIRST);
    r->process = mh_transport_process(d->transport);
    snprintf(r->uri, sizeof(r->uri), "%s", mh_device_uri(device));
    d->count++;
    mh_device_release(device);
    return status;
}

/* What the other processes were told of their devices. */
static mh_status ask_processes(struct devices *d)
{
    uint32_t processes = mh_transport_processes(d->transport), first, all;
    uint32_t *counts = calloc(processes, sizeof(*counts));
    uint64_t *parts = calloc(processes, sizeof(*parts));
    mh_status status =
        counts && parts
            ? mh_transport_ranks(d->transport, d->count, counts, &first, &all)
            : mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %u processes", processes);
    if (!status && all > MOST_DEVICES)
        status = mh_fail(MH_INVALID_ARGUMENT, "--device: %u devices of %u processes, at most %d",
                         all, processes, MOST_DEVICES);
    if (!status) {
        memmove(&d->asked[first], d->asked, d->count * sizeof(d->asked[0]));
        for (uint32_t p = 0; p < processes; p++)
            parts[p] = counts[p] * sizeof(d->asked[0]);
        status = mh_transport_gather(d->transport, d->asked, parts);
        d->count = all;
    }
    free(counts);
    free(parts);
    return status;
}

static mh_status ask_devices(const char *uris, struct devices *d)
{
    mh_status status = mh_runtime_create(NULL, &d->runtime);
    if (!status)
        status = open_transport(d->runtime, true, &d->transport);
    if (!status)
        status = for_each_device(uris, d->transport, ask_device, d);
    if (!status && d->transport)
        status = ask_processes(d);
    for (uint32_t i = 0; i < d->count; i++) {
        d->ranks[i] = MH_INIT(mh_plan_rank);
        d->ranks[i].memory = d->asked[i].memory;
        d->ranks[i].flags = d->asked[i].flags;
    }
    return status;
}

static uint64_t taken(const mh_plan_rank *r)
{
    uint64_t weights = r->flags & MH_DEVICE_HOST_MEMORY ? 0 : r->weight_bytes + r->expert_bytes;
    return weights + r->cache_bytes + r->scratch_bytes;
}

/* Tokens of cache that fit beside all else, at most what was planned for. */
static int64_t cache_tokens(const mh_plan_rank *r, int64_t context)
{
    uint64_t rest = taken(r) - r->cache_bytes, each = r->cache_bytes / (uint64_t)context;
    if (!r->memory || !each)
        return context;
    uint64_t room = r->memory > rest ? (r->memory - rest) / each : 0;
    return room < (uint64_t)context ? (int64_t)room : context;
}

static void print_plan(const struct devices *d, const mh_config *c, int64_t context)
{
    double mb = 1e-6;
    uint64_t exchanged = 0;
    bool alone = mh_transport_processes(d->transport) == 1;
    if (!alone)
        printf("process ");
    printf("%-12s %12s %10s %8s %12s %10s %10s  MB, for a context of %lld\n", "device", "memory",
           "weights", "experts", "of them", "cache", "scratch", (long long)context);
    for (uint32_t i = 0; i < d->count; i++) {
        const mh_plan_rank *r = &d->ranks[i];
        exchanged += r->bytes_in;
        if (!alone)
            printf("%-7u ", d->asked[i].process);
        printf("%-12s ", d->asked[i].uri);
        if (r->memory)
            printf("%12.1f", mb * (double)r->memory);
        else
            printf("%12s", "not told");
        printf(" %10.1f %8lld %12.1f %10.1f %10.1f  ", mb * (double)r->weight_bytes,
               (long long)r->experts, mb * (double)r->expert_bytes, mb * (double)r->cache_bytes,
               mb * (double)r->scratch_bytes);
        if (r->fits)
            printf("fits%s\n", r->flags & MH_DEVICE_HOST_MEMORY ? ", weights in the files" : "");
        else
            printf("does not fit: %.1f MB too much; %lld tokens of cache would\n",
                   mb * (double)(taken(r) - r->memory), (long long)cache_tokens(r, context));
    }
    for (uint32_t i = 0; i < d->count; i++)
        if (d->ranks[i].places)
            printf("fetched      %s has %lld places a layer; an expert that is in none is %llu "
                   "bytes\n",
                   d->asked[i].uri, (long long)d->ranks[i].places,
                   (unsigned long long)d->ranks[i].miss_bytes);
    if (d->count > 1)
        printf("exchange     %llu bytes a token arrive, on all devices together\n",
               (unsigned long long)exchanged);
    if (d->missing)
        printf("missing      %lld of a layer's %lld experts fit on no device\n",
               (long long)d->missing, (long long)c->n_routed_experts);
}

static json_t *plan_json(const struct devices *d, int64_t context)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < d->count; i++) {
        const mh_plan_rank *r = &d->ranks[i];
        json_array_append_new(
            list,
            json_pack("{s:s, s:i, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
                      "s:I}",
                      "device", d->asked[i].uri, "process", (int)d->asked[i].process,
                      "memory_bytes", (json_int_t)r->memory, "fits", (int)r->fits, "context_tokens",
                      (json_int_t)cache_tokens(r, context), "expert_room", (json_int_t)r->room,
                      "experts", (json_int_t)r->experts, "weight_bytes",
                      (json_int_t)r->weight_bytes, "expert_bytes", (json_int_t)r->expert_bytes,
                      "cache_bytes", (json_int_t)r->cache_bytes, "scratch_bytes",
                      (json_int_t)r->scratch_bytes, "bytes_out_per_token", (json_int_t)r->bytes_out,
                      "bytes_in_per_token", (json_int_t)r->bytes_in, "expert_places",
                      (json_int_t)r->places, "bytes_per_miss", (json_int_t)r->miss_bytes));
    }
    return list;
}

/* ---- the command ---- */

static int check_inputs(struct inputs *in)
{
    if (!in->name)
        return usage_error(&command_inspect, "DIR is needed");
    if (in->dtype && strcmp(in->dtype, "bf16") && strcmp(in->dtype, "fp8"))
        return usage_error(&command_inspect, "--dtype: '%s', must be bf16 or fp8", in->dtype);
    bool bf16, split = false;
    int code = parse_choice(&command_inspect, "kv", in->kv, "f32", "bf16", &bf16);
    if (code < 0)
        code = parse_placement(&command_inspect, in->placement, &in->words);
    if (code < 0)
        code = parse_choice(&command_inspect, "attention", in->attention, "replicated", "split",
                            &split);
    if (code < 0)
        code = parse_offload(&command_inspect, in->offload, &in->words, &in->expert_places);
    in->kv_dtype = bf16 ? MH_BF16 : MH_F32;
    in->attention_kind = split ? MH_ATTENTION_SPLIT : MH_ATTENTION_REPLICATED;
    return code;
}

/* The context as the plan took it. */
static int64_t context_of(const struct inputs *in, const mh_config *c)
{
    return in->context ? in->context : c->max_position_embeddings;
}

static mh_status plan_devices(const struct inputs *in, const struct subject *subject,
                              struct devices *devices)
{
    mh_plan_params params = plan_params(in, subject);
    mh_status status = ask_devices(in->device, devices);
    params.redundant = in->words.redundant;
    params.attention = in->attention_kind;
    params.expert_places = in->expert_places;
    if (!status && in->words.load[0])
        status = mh_expert_load_read(subject->config, in->words.load, &params.expert_load);
    if (!status)
        status = mh_plan(&params, devices->ranks, devices->count, &devices->missing);
    mh_expert_load_release(params.expert_load);
    return status;
}

static void print_all(const struct inputs *in, const mh_config *config, const struct facts *facts,
                      const struct devices *devices)
{
    int64_t context = context_of(in, config);
    if (!in->json) {
        print_text(in, config, facts);
        if (devices->count)
            print_plan(devices, config, context);
        return;
    }
    json_t *object = facts_json(in, config, facts);
    json_object_set_new(object, "devices", plan_json(devices, context));
    json_object_set_new(object, "missing_experts", json_integer((json_int_t)devices->missing));
    json_dumpf(object, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(object);
}

static int show(const struct inputs *in, const struct subject *subject, const struct facts *facts)
{
    struct devices devices = {0};
    mh_status status = in->device ? plan_devices(in, subject, &devices) : MH_OK;
    if (!status)
        print_all(in, subject->config, facts, &devices);
    int code = status ? report_failure(status) : EXIT_DONE;
    if (code) /* the others may be waiting for this process */
        mh_transport_abort(devices.transport, code);
    mh_transport_release(devices.transport);
    mh_runtime_release(devices.runtime);
    return code;
}

static int run(int argc, char **argv)
{
    struct inputs in = {0};
    const struct option options[] = {
        {"device", OPTION_TEXT, &in.device, "URI[,URI...]", "what it takes of these devices"},
        {"virtual", OPTION_FLAG, &in.is_virtual, NULL, "use the virtual GPUs"},
        {"placement", OPTION_TEXT, &in.placement, "load=FILE,redundant=N", "where experts go"},
        {"attention", OPTION_TEXT, &in.attention, "replicated|split", "of several devices"},
        {"offload", OPTION_TEXT, &in.offload, "auto|N", "places for experts that are fetched"},
        {"context", OPTION_INTEGER, &in.context, "N", "tokens of cache; default the model's limit",
         1, 1 << 30},
        {"chunk", OPTION_INTEGER, &in.chunk, "N", "tokens of a prefill step; default 512", 1,
         1 << 20},
        {"kv", OPTION_TEXT, &in.kv, "f32|bf16", "dtype of the cache; default f32"},
        {"layers", OPTION_INTEGER, &in.layers, "N", "of a config alone: other than it says", 1,
         4096},
        {"dtype", OPTION_TEXT, &in.dtype, "bf16|fp8", "of a config alone: other than it says"},
        {"json", OPTION_FLAG, &in.json, NULL, "one JSON object on stdout"},
        {0},
    };
    int code = parse_options(&command_inspect, options, argc, argv, &in.name, 1);
    if (code < 0)
        code = check_inputs(&in);
    if (code >= 0)
        return code;
    struct subject subject = {0};
    struct facts facts;
    mh_status status = open_subject(&in, &subject);
    if (!status)
        status = gather(&in, &subject, &facts);
    if (status) {
        mh_checkpoint_release(subject.checkpoint);
        return report_bad_input(status);
    }
    code = show(&in, &subject, &facts);
    mh_checkpoint_release(subject.checkpoint);
    return code;
}

const struct command command_inspect = {
    "inspect",
    "DIR|CONFIG [--device URI,URI...] [--context N] [--json]",
    "what a checkpoint holds, and what it takes of devices",
    "  moehal inspect models/fairy\n  moehal inspect DIR --device nvidia:0,nvidia:1,host --json\n"
    "  moehal inspect v3 --dtype fp8 --virtual --device nvidia:0,nvidia:1 --context 8192",
    run,
};
