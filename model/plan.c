/* plan.c: what a model takes of devices, reckoned by what loading and sessions go by. */
#include <moehal-model/plan.h>

#include <stdlib.h>
#include <string.h>

#include "model.h"

struct plan {
    const mh_config *config;
    mh_plan_params params;
    struct model_sizes sizes;
    mh_plan_rank *ranks;    /* as this library knows them */
    int64_t *room, *places; /* of each: experts it may get; where it fetches, places for them */
    struct placement placement;
    uint32_t count;
    bool fetches; /* a rank does */
};

static mh_status check_params(struct plan *plan, const mh_plan_params *params)
{
    mh_plan_params *p = &plan->params;
    mh_status status = mh_struct_in(p, params, sizeof(*p), "mh_plan_params");
    if (status)
        return status;
    plan->config = p->checkpoint ? mh_checkpoint_config(p->checkpoint) : p->config;
    if (!plan->config)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_plan_params: no config given");
    if (p->redundant > 1 << 20)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_plan_params: redundant is %u, at most 2^20",
                       p->redundant);
    mh_session_params session = MH_INIT(mh_session_params);
    session.kv_dtype = p->kv_dtype, session.context = p->context, session.chunk = p->chunk;
    session.attention = p->attention;
    if (p->expert_places < -1 || p->reserved || (p->expert_places && p->redundant))
        return mh_fail(
            MH_INVALID_ARGUMENT,
            "mh_plan_params: expert_places is %lld, must be -1 or more, and not together "
            "with redundant",
            (long long)p->expert_places);
    status = model_session_params(plan->config, &session);
    p->kv_dtype = session.kv_dtype, p->context = session.context, p->chunk = session.chunk;
    return status;
}

static uint64_t moe_layers(const mh_config *c)
{
    uint64_t layers = 0;
    for (int64_t i = 0; i < c->num_hidden_layers; i++)
        layers += mh_config_is_moe(c, i) != 0;
    return layers;
}

/* Of what a token's layers choose: what this rank gives, and gets. */
static void count_exchange(const struct plan *plan, uint32_t index, mh_plan_rank *r)
{
    const mh_config *c = plan->config;
    double slots =
        (double)moe_layers(c) * (double)c->num_experts_per_tok * 4 * (double)c->hidden_size;
    double share = placement_share(&plan->placement, index, plan->params.expert_load);
    r->bytes_out += (uint64_t)(slots * share + 0.5);
    r->bytes_in += (uint64_t)(slots * (1 - share) + 0.5);
}

/* Where there is a place for each of a rank's experts, none is fetched. */
static void count_experts(struct plan *plan, uint32_t index)
{
    const mh_config *c = plan->config;
    mh_plan_rank *r = &plan->ranks[index];
    for (int64_t i = 0; i < c->num_hidden_layers; i++) {
        int64_t count = mh_config_is_moe(c, i) ? placement_count(&plan->placement, index, i) : 0;
        r->experts = count > r->experts ? count : r->experts;
    }
    if (plan->places[index] >= r->experts)
        plan->places[index] = 0;
    r->places = plan->places[index];
    plan->fetches |= r->places != 0;
}

static bool has_head(const mh_plan_rank *r, uint32_t index)
{
    return !index || r->flags & MH_PLAN_FIRST;
}

static void fill_rank(const struct plan *plan, uint32_t index)
{
    const mh_config *c = plan->config;
    const mh_plan_params *p = &plan->params;
    mh_plan_rank *r = &plan->ranks[index];
    bool on_host = r->flags & MH_DEVICE_HOST_MEMORY;
    bool spread = plan->count > 1;
    uint64_t pages = (uint64_t)(p->context + MODEL_PAGE - 1) / MODEL_PAGE, cached = pages;
    struct model_step step = {.rows = p->chunk, .head_rows = 1, .split = spread || plan->fetches};
    if (spread && p->attention == MH_ATTENTION_SPLIT) {
        step.segments = model_segments(p->context, plan->count), step.parts = plan->count;
        step.rows = model_split_chunk(c, step.segments, step.parts, step.rows, 1);
        cached = (uint64_t)step.segments * (MODEL_SEGMENT / MODEL_PAGE);
        r->bytes_out = (uint64_t)(c->num_hidden_layers * model_part_bytes(c, step.segments));
        r->bytes_in = r->bytes_out * (plan->count - 1);
    }
    if (!on_host && step.rows > 8)
        step.rows = (step.rows + 7) / 8 * 8;
    r->weight_bytes = plan->sizes.others + (has_head(r, index) ? plan->sizes.head : 0);
    uint64_t layers = moe_layers(c);
    if (layers) {
        uint64_t each = plan->sizes.experts / (uint64_t)c->n_routed_experts;
        r->expert_bytes = each * (uint64_t)(r->places ? r->places : r->experts);
        r->miss_bytes = r->places ? each / layers : 0;
    }
    r->cache_bytes =
        (uint64_t)c->num_hidden_layers * model_cache_bytes(c, p->kv_dtype, (int64_t)cached);
    r->scratch_bytes = model_lay_out(c, NULL, &step);
    r->scratch_bytes += 4 * pages * MODEL_PAGE * (uint64_t)c->qk_rope_head_dim;
    uint64_t taken = r->cache_bytes + r->scratch_bytes;
    if (!on_host)
        taken += r->weight_bytes + r->expert_bytes;
    r->fits = !r->memory || taken <= r->memory;
    if (spread && c->n_routed_experts)
        count_exchange(plan, index, r);
}

static mh_status read_ranks(struct plan *plan, const mh_plan_rank *from)
{
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < plan->count; i++) {
        const char *at = (const char *)from + i * from->struct_size;
        mh_plan_rank *r = &plan->ranks[i];
        status = mh_struct_in(r, at, sizeof(*r), "mh_plan_rank");
        uint64_t memory = r->memory;
        uint32_t flags = r->flags;
        *r = (mh_plan_rank){.struct_size = sizeof(*r), .memory = memory, .flags = flags};
        bool on_host = flags & MH_DEVICE_HOST_MEMORY;
        r->room = plan->room[i] =
            model_room(plan->config, &plan->sizes, memory, on_host, has_head(r, i));
        if (!plan->params.expert_places || on_host || !r->room)
            continue;
        bool all = plan->params.expert_places < 0 || plan->params.expert_places > r->room;
        plan->places[i] = all ? r->room : plan->params.expert_places;
        plan->room[i] = plan->config->n_routed_experts;
    }
    return status;
}

mh_status mh_plan(const mh_plan_params *params, mh_plan_rank *ranks, uint32_t count,
                  int64_t *missing)
{
    if (!ranks || !missing || !count || count > MODEL_DEVICES)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_plan: NULL given, or %u ranks, must be 1 to %d",
                       count, MODEL_DEVICES);
    struct plan plan = {.count = count};
    mh_status status = check_params(&plan, params);
    if (!status)
        status = model_measure(plan.config, plan.params.checkpoint, &plan.sizes);
    if (status)
        return status;
    plan.ranks = calloc(count, sizeof(*plan.ranks));
    plan.room = calloc(count, sizeof(*plan.room));
    plan.places = calloc(count, sizeof(*plan.places));
    if (!plan.ranks || !plan.room || !plan.places)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a plan");
    if (!status)
        status = read_ranks(&plan, ranks);
    if (!status) {
        int64_t all = plan.config->n_routed_experts;
        if (count == 1) { /* it gets them all, or loading says what is missing */
            *missing = all - plan.room[0];
            plan.room[0] = all;
        }
        int64_t left;
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): freed below */
        status = placement_make(&plan.placement, plan.config, plan.room, count,
                                plan.params.expert_load, plan.params.redundant, &left);
        *missing = count == 1 ? *missing : left;
    }
    for (uint32_t i = 0; !status && i < count; i++)
        count_experts(&plan, i);
    for (uint32_t i = 0; !status && i < count; i++) {
        fill_rank(&plan, i);
        status = mh_struct_out((char *)ranks + i * ranks->struct_size, &plan.ranks[i],
                               sizeof(plan.ranks[i]));
    }
    free(plan.ranks);
    free(plan.room);
    free(plan.places);
    placement_free(&plan.placement);
    return status;
}
