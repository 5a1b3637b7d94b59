/* setup.c: from options to a loaded model. */
#include <stdlib.h>
#include <string.h>

#include "tool.h"

int parse_choice(const struct command *command, const char *name, const char *text,
                 const char *first, const char *second, bool *is_second)
{
    *is_second = text && !strcmp(text, second);
    if (!text || *is_second || !strcmp(text, first))
        return -1;
    return usage_error(command, "--%s: '%s', must be %s or %s", name, text, first, second);
}

int parse_offload(const struct command *command, const char *text,
                  const struct placement_words *words, int64_t *places)
{
    *places = 0;
    if (!text)
        return -1;
    if (words->redundant)
        return usage_error(command, "--offload: not together with --placement redundant=N");
    *places = -1;
    if (!strcmp(text, "auto"))
        return -1;
    char *end;
    *places = strtol(text, &end, 10);
    if (*end || *places < 1 || *places > 1 << 20)
        return usage_error(command, "--offload: '%s', must be auto or 1 to 2^20", text);
    return -1;
}

static int check_options(struct setup *setup, const struct command *command,
                         const struct setup_options *o)
{
    if (!o->model)
        return usage_error(command, "--model DIR is needed");
    bool fast, bf16 = false, split = false;
    int code = parse_choice(command, "profile", o->profile, "exact", "fast", &fast);
    if (code < 0)
        code = parse_choice(command, "kv", o->kv, "f32", "bf16", &bf16);
    if (code < 0)
        code = parse_placement(command, o->placement, &setup->placement);
    if (code < 0)
        code = parse_choice(command, "attention", o->attention, "replicated", "split", &split);
    if (code < 0)
        code = parse_offload(command, o->offload, &setup->placement, &setup->expert_places);
    if (code >= 0)
        return code;
    setup->profile = fast ? MH_PROFILE_FAST : MH_PROFILE_EXACT;
    setup->kv = bf16 ? MH_BF16 : MH_F32;
    setup->attention = split ? MH_ATTENTION_SPLIT : MH_ATTENTION_REPLICATED;
    size_t length = o->device ? strlen(o->device) : 0;
    if (length && (o->device[0] == ',' || o->device[length - 1] == ',' || strstr(o->device, ",,")))
        return usage_error(command, "--device: '%s': an empty name in the list", o->device);
    if (o->device && strchr(o->device, ',') && !o->spreads)
        return usage_error(command, "--device: '%s': %s runs on one device", o->device,
                           command->name);
    return -1;
}

struct opening {
    struct setup *setup;
    const mh_device_params *params;
};

static mh_status open_one(void *user, const char *uri)
{
    const struct opening *opening = user;
    struct setup *setup = opening->setup;
    const uint64_t most = sizeof(setup->devices) / sizeof(setup->devices[0]);
    if (setup->device_count == most)
        return mh_fail(MH_INVALID_ARGUMENT, "--device: more than %llu devices",
                       (unsigned long long)most);
    mh_device **device = &setup->devices[setup->device_count];
    mh_device_info info = MH_INIT(mh_device_info);
    mh_status status = mh_device_open(setup->runtime, uri, opening->params, device);
    if (status)
        return status;
    setup->device_count++;
    status = mh_device_get_info(*device, &info);
    if (setup->device_count == 1)
        setup->device = *device, setup->info = info;
    setup->info.flags |= info.flags & MH_DEVICE_IS_VIRTUAL;
    size_t used = strlen(setup->uri);
    snprintf(setup->uri + used, sizeof(setup->uri) - used, "%s%s", used ? "," : "",
             mh_device_uri(*device));
    return status;
}

/* What a launcher of processes says in the environment, under the names of Open MPI and MPICH. */
static uint32_t told(const char *open_mpi, const char *mpich, long least, uint32_t otherwise)
{
    const char *text = getenv(open_mpi);
    if (!text)
        text = getenv(mpich);
    long value = text ? strtol(text, NULL, 10) : -1;
    return value < least || value > 1 << 20 ? otherwise : (uint32_t)value;
}

/* Under mpirun: MPI; else, and with MOEHAL_TRANSPORT=none, nothing. */
mh_status open_transport(mh_runtime *runtime, bool joins, mh_transport **out)
{
    const char *name = getenv("MOEHAL_TRANSPORT");
    if (!name)
        name = told("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", 1, 1) > 1 ? "mpi" : "none";
    if (!strcmp(name, "none"))
        return MH_OK;
    if (!joins)
        return mh_fail(MH_UNSUPPORTED, "transport %s: this command runs in one process", name);
    mh_status status = mh_transport_open(runtime, name, out);
    if (!status && mh_transport_process(*out) && !freopen("/dev/null", "w", stdout))
        status = mh_fail(MH_IO_ERROR, "/dev/null could not be opened");
    return status;
}

mh_status for_each_device(const char *uris, const mh_transport *transport,
                          mh_status (*take)(void *user, const char *uri), void *user)
{
    uint32_t self = 0, count = 1, given = 1, number = 0;
    if (!uris)
        return take(user, NULL);
    if (transport) {
        self = told("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", 0,
                    mh_transport_process(transport));
        count = told("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", 1,
                     mh_transport_processes(transport));
    }
    for (const char *at = uris; (at = strchr(at, ',')); at++)
        given++;
    mh_status status = MH_OK;
    for (const char *at = uris; !status && number < given; number++) {
        char uri[256];
        size_t length = strcspn(at, ",");
        if (length >= sizeof(uri))
            return mh_fail(MH_INVALID_ARGUMENT, "--device: '%s': a name is too long", uris);
        memcpy(uri, at, length);
        uri[length] = '\0';
        if (given < count ? number == self % given : number % count == self)
            status = take(user, uri);
        at += length + 1;
    }
    return status;
}

static mh_status open_device(struct setup *setup, const struct setup_options *o)
{
    mh_device_params params = MH_INIT(mh_device_params);
    params.threads = (uint32_t)o->threads;
    bool strict = o->strict || setup->placement.strict;
    params.placement = strict ? MH_PLACEMENT_STRICT : MH_PLACEMENT_AUTO;
    mh_status status = mh_runtime_create(NULL, &setup->runtime);
    if (!status && o->timeline) {
        const char *end = strrchr(o->timeline, '.');
        bool lines = end && !strcmp(end, ".jsonl");
        status =
            mh_timeline_create(setup->runtime, o->timeline,
                               lines ? MH_TIMELINE_LINES : MH_TIMELINE_CHROME, &setup->timeline);
    }
    params.timeline = setup->timeline;
    if (!status)
        status = open_transport(setup->runtime, o->joins, &setup->transport);
    setup->quiet = mh_transport_process(setup->transport) != 0;
    return status ? status
                  : for_each_device(o->device, setup->transport, open_one,
                                    &(struct opening){setup, &params});
}

static mh_status open_tokenizer(struct setup *setup, const char *dir)
{
    mh_status status = mh_tokenizer_load(dir, &setup->tokenizer);
    if (status != MH_NOT_FOUND)
        return status;
    snprintf(setup->tokenizer_reason, sizeof(setup->tokenizer_reason), "%s", mh_last_message());
    return MH_OK;
}

static mh_status load_model(struct setup *setup, mh_expert_load *load)
{
    struct progress progress = {.what = "loading", .bytes = true};
    mh_model_params params = MH_INIT(mh_model_params);
    params.profile = setup->profile;
    params.transport = setup->transport;
    params.progress = show_progress;
    params.progress_user = &progress;
    params.redundant = setup->placement.redundant;
    params.expert_load = load;
    params.expert_places = setup->expert_places;
    mh_status status = mh_model_load(setup->checkpoint, setup->devices, setup->device_count,
                                     &params, &setup->model);
    end_progress(&progress);
    return status;
}

int setup_open(struct setup *setup, const struct command *command, const struct setup_options *o)
{
    *setup = (struct setup){0};
    int code = check_options(setup, command, o);
    if (code >= 0)
        return code;
    catch_interrupt();
    mh_status status = mh_checkpoint_open(o->model, &setup->checkpoint);
    if (!status)
        status = open_tokenizer(setup, o->model);
    if (status)
        return report_bad_input(status);
    setup->config = mh_checkpoint_config(setup->checkpoint);
    mh_expert_load *load = NULL;
    if (setup->placement.load[0])
        status = mh_expert_load_read(setup->config, setup->placement.load, &load);
    if (status)
        return report_bad_input(status);
    status = open_device(setup, o);
    setup->counted_path = o->expert_load;
    if (!status && setup->counted_path)
        status = mh_expert_load_create(setup->config, &setup->counted);
    if (!status)
        status = load_model(setup, load);
    mh_expert_load_release(load);
    return status ? report_failure(status) : -1;
}

/* Every process has counted the same; the first writes it. */
static int write_counted(const struct setup *setup, int code)
{
    mh_status status = MH_OK;
    if (setup->counted && code <= EXIT_DONE && !setup->quiet)
        status = mh_expert_load_write(setup->counted, setup->counted_path);
    return status ? report_failure(status) : code;
}

int setup_close(struct setup *setup, int code)
{
    code = write_counted(setup, code);
    mh_expert_load_release(setup->counted);
    mh_model_release(setup->model);
    mh_tokenizer_release(setup->tokenizer);
    mh_checkpoint_release(setup->checkpoint);
    for (uint64_t i = 0; i < setup->device_count; i++)
        mh_device_release(setup->devices[i]);
    mh_status status = setup->timeline ? mh_timeline_finish(setup->timeline) : MH_OK;
    if (status && code <= 0)
        code = report_failure(status);
    mh_timeline_release(setup->timeline);
    if (code > 0) /* the others may be waiting for this process */
        mh_transport_abort(setup->transport, code);
    mh_transport_release(setup->transport);
    mh_runtime_release(setup->runtime);
    return code;
}

uint64_t setup_fallbacks(const struct setup *setup, mh_op_id op)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < setup->device_count; i++)
        count += mh_device_fallbacks(setup->devices[i], op);
    return count;
}

mh_status setup_session(struct setup *setup, const struct setup_options *o, int64_t context,
                        struct progress *progress, mh_session **out)
{
    mh_session_params params = MH_INIT(mh_session_params);
    int64_t limit = setup->config->max_position_embeddings;
    params.kv_dtype = setup->kv;
    params.context = context < limit ? context : limit;
    params.chunk = o->chunk;
    params.progress = progress ? show_progress : NULL;
    params.progress_user = progress;
    params.expert_load = setup->counted;
    params.attention = setup->attention;
    return mh_session_create(setup->model, &params, out);
}
