/* cmd_inspect.c: what a checkpoint holds and needs. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

struct facts {
    mh_config_sizes sizes;
    mh_checkpoint_extras extras;
    uint64_t tensors, bytes;
    uint64_t by_dtype[32];
};

static mh_status gather(const mh_checkpoint *cp, struct facts *f)
{
    *f = (struct facts){.sizes = MH_INIT(mh_config_sizes), .extras = MH_INIT(mh_checkpoint_extras)};
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    for (uint64_t i = 0; mh_checkpoint_at(cp, i, &t) == MH_OK; i++) {
        f->tensors++;
        f->bytes += t.bytes;
        if (t.dtype < 32)
            f->by_dtype[t.dtype] += t.bytes;
    }
    mh_status status = mh_config_get_sizes(mh_checkpoint_config(cp), &f->sizes);
    if (!status)
        status = mh_checkpoint_get_extras(cp, &f->extras);
    return status ? status : mh_checkpoint_check(cp);
}

static void print_text(const mh_checkpoint *cp, const struct facts *f)
{
    const mh_config *c = mh_checkpoint_config(cp);
    printf("%s: %s, %lld layers, hidden %lld, %lld heads, vocabulary %lld, context %lld\n",
           mh_checkpoint_dir(cp),
           c->family == MH_FAMILY_V3 ? "DeepSeek-V3 family" : "DeepSeek-V2 family",
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
    printf("weights      %.1f MB in %llu tensors:", 1e-6 * (double)f->bytes,
           (unsigned long long)f->tensors);
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

static json_t *facts_json(const mh_checkpoint *cp, const struct facts *f)
{
    const mh_config *c = mh_checkpoint_config(cp);
    json_t *dtypes = json_object();
    for (uint32_t d = 0; d < 32; d++)
        if (f->by_dtype[d])
            json_object_set_new(dtypes, mh_safetensors_dtype_name(d),
                                json_integer((json_int_t)f->by_dtype[d]));
    /* A directory's name may be any bytes, a JSON string not. */
    json_t *dir = json_string(mh_checkpoint_dir(cp));
    return json_pack(
        "{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I}", "dir",
        dir ? dir : json_null(), "family", c->family == MH_FAMILY_V3 ? "v3" : "v2", "layers",
        (json_int_t)c->num_hidden_layers, "experts", (json_int_t)c->n_routed_experts, "parameters",
        (json_int_t)f->sizes.parameters, "active_parameters", (json_int_t)f->sizes.active,
        "tensors", (json_int_t)f->tensors, "weight_bytes", (json_int_t)f->bytes, "dtypes", dtypes,
        "cache_bytes_per_token", 4 * (json_int_t)f->sizes.latent_elements, "mtp_tensors",
        (json_int_t)f->extras.mtp, "unknown_tensors", (json_int_t)f->extras.unknown);
}

/* Do the weights and a cache of the whole context fit? */
static mh_status judge_device(mh_runtime *runtime, const char *uri, const mh_checkpoint *cp,
                              const struct facts *f, json_t *list)
{
    mh_device *device;
    mh_memory_info memory = MH_INIT(mh_memory_info);
    mh_status status = mh_device_open(runtime, uri, NULL, &device);
    if (status)
        return status;
    status = mh_device_memory(device, &memory);
    uint64_t context = (uint64_t)mh_checkpoint_config(cp)->max_position_embeddings;
    uint64_t token = 4 * f->sizes.latent_elements;
    uint64_t room = memory.total > f->bytes ? (memory.total - f->bytes) / (token ? token : 1) : 0;
    bool fits = !memory.total || memory.total > f->bytes;
    if (!status && list)
        json_array_append_new(
            list, json_pack("{s:s, s:I, s:b, s:I}", "device", mh_device_uri(device), "memory_bytes",
                            (json_int_t)memory.total, "fits", fits, "context_tokens",
                            (json_int_t)(room < context ? room : context)));
    else if (!status && !memory.total)
        printf("%-12s does not say how much memory it has\n", mh_device_uri(device));
    else if (!status)
        printf("%-12s %.1f MB of memory: %s; room for %llu tokens of f32 cache\n",
               mh_device_uri(device), 1e-6 * (double)memory.total,
               fits ? "the weights fit" : "the weights do not fit",
               (unsigned long long)(room < context ? room : context));
    mh_device_release(device);
    return status;
}

static mh_status judge_devices(const char *uris, const mh_checkpoint *cp, const struct facts *f,
                               json_t *list)
{
    mh_runtime *runtime;
    mh_status status = mh_runtime_create(NULL, &runtime);
    if (status)
        return status;
    while (!status && *uris) {
        char uri[128];
        size_t length = strcspn(uris, ",");
        snprintf(uri, sizeof(uri), "%.*s", (int)length, uris);
        status = judge_device(runtime, uri, cp, f, list);
        uris += length + (uris[length] == ',');
    }
    mh_runtime_release(runtime);
    return status;
}

static int run(int argc, char **argv)
{
    const char *dir = NULL, *device = NULL;
    bool json = false, is_virtual = false;
    const struct option options[] = {
        {"device", OPTION_TEXT, &device, "URI[,URI...]", "does it fit there?"},
        {"virtual", OPTION_FLAG, &is_virtual, NULL, "use the virtual GPUs"},
        {"json", OPTION_FLAG, &json, NULL, "one JSON object on stdout"},
        {0},
    };
    int code = parse_options(&command_inspect, options, argc, argv, &dir, 1);
    if (code >= 0)
        return code;
    if (!dir)
        return usage_error(&command_inspect, "DIR is needed");
    mh_checkpoint *cp;
    struct facts facts;
    mh_status status = mh_checkpoint_open(dir, &cp);
    if (!status)
        status = gather(cp, &facts);
    if (status) {
        mh_checkpoint_release(cp);
        return report_bad_input(status);
    }
    json_t *object = json ? facts_json(cp, &facts) : NULL;
    json_t *list = json ? json_array() : NULL;
    if (!json)
        print_text(cp, &facts);
    if (device)
        status = judge_devices(device, cp, &facts, list);
    if (json && !status) {
        json_object_set(object, "devices", list);
        json_dumpf(object, stdout, JSON_INDENT(1));
        putchar('\n');
    }
    json_decref(list);
    json_decref(object);
    mh_checkpoint_release(cp);
    return status ? report_failure(status) : EXIT_DONE;
}

const struct command command_inspect = {
    "inspect",
    "DIR [--device URI,URI...] [--json]",
    "what a checkpoint holds and needs",
    "  moehal inspect models/fairy\n  moehal inspect DIR --device host --json",
    run,
};
