/* session_pages.c: pages of the cache, shared by forks until one of them writes. */
#include <stdlib.h>
#include <string.h>

#include "session_impl.h"

/* ---- life ---- */

uint64_t model_cache_bytes(const mh_config *c, mh_dtype dtype, int64_t pages)
{
    int64_t values = pages * MODEL_PAGE * (c->kv_lora_rank + c->qk_rope_head_dim);
    return ((uint64_t)values * mh_dtype_size(dtype) + 255) & ~UINT64_C(255);
}

static mh_status make_cache(const mh_session *s, struct session_rank *r)
{
    const mh_config *c = s->model->config;
    int64_t row = c->kv_lora_rank + c->qk_rope_head_dim;
    const int64_t shape[] = {s->pages, MODEL_PAGE, row};
    uint64_t bytes = model_cache_bytes(c, s->kv_dtype, s->pages);
    mh_status status =
        mh_buffer_create(r->model->device, bytes * (uint64_t)c->num_hidden_layers, 0, &r->cache);
    r->cache_tensors = calloc((size_t)c->num_hidden_layers, sizeof(*r->cache_tensors));
    if (!status && !r->cache_tensors)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %lld layers",
                         (long long)c->num_hidden_layers);
    for (int64_t i = 0; !status && i < c->num_hidden_layers; i++)
        r->cache_tensors[i] = mh_tensor_make(r->cache, bytes * (uint64_t)i, s->kv_dtype, 3, shape);
    return status;
}

/* Of each share. */
static int64_t cache_pages(const mh_session *s, int64_t cache_tokens)
{
    const int64_t in_segment = MODEL_SEGMENT / MODEL_PAGE;
    if (s->shares == 1)
        return cache_tokens ? (cache_tokens + MODEL_PAGE - 1) / MODEL_PAGE
                            : s->sequence_count * s->slot_pages;
    if (cache_tokens)
        return in_segment * model_segments(cache_tokens, s->shares);
    return s->sequence_count * in_segment * model_segments(s->context, s->shares);
}

mh_status session_pages_create(mh_session *s, int64_t cache_tokens)
{
    s->slot_pages = (s->context + MODEL_PAGE - 1) / MODEL_PAGE;
    size_t count = s->sequence_count, slots = count * (size_t)s->slot_pages, shares = s->shares;
    s->pages = cache_pages(s, cache_tokens);
    size_t pages = shares * (size_t)s->pages;
    s->sequences = calloc(count, sizeof(*s->sequences));
    s->page_tables = malloc(slots * sizeof(*s->page_tables));
    s->ids = calloc(count * (size_t)s->context, sizeof(*s->ids));
    s->free_counts = calloc(shares, sizeof(*s->free_counts));
    s->free_pages = malloc(pages * sizeof(*s->free_pages));
    s->page_refs = calloc(pages, sizeof(*s->page_refs));
    s->changes = malloc(pages * sizeof(*s->changes));
    if (!s->sequences || !s->page_tables || !s->ids || !s->free_counts || !s->free_pages ||
        !s->page_refs || !s->changes)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %u sequences of %lld tokens",
                       s->sequence_count, (long long)s->context);
    for (size_t i = 0; i < slots; i++)
        s->page_tables[i] = -1;
    for (size_t i = 0; i < count; i++) {
        s->sequences[i].pages = s->page_tables + i * (size_t)s->slot_pages;
        s->sequences[i].ids = s->ids + i * (size_t)s->context;
    }
    for (size_t share = 0; share < shares; share++)
        for (int64_t i = 0; i < s->pages; i++)
            s->free_pages[(int64_t)share * s->pages + s->free_counts[share]++] =
                (int32_t)(s->pages - 1 - i);
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < s->rank_count; i++)
        status = make_cache(s, &s->ranks[i]);
    return status;
}

void session_pages_destroy(mh_session *s)
{
    free(s->changes);
    free(s->page_refs);
    free(s->free_pages);
    free(s->free_counts);
    free(s->ids);
    free(s->page_tables);
    free(s->sequences);
}

/* ---- counting ---- */

static uint32_t *refs_of(const mh_session *s, int64_t index, int32_t page)
{
    return &s->page_refs[session_share(s, index) * s->pages + page];
}

/* A sequence's page of that index. */
static void let_go(mh_session *s, int64_t index, int32_t page)
{
    uint32_t share = session_share(s, index);
    if (page >= 0 && --*refs_of(s, index, page) == 0)
        s->free_pages[share * s->pages + s->free_counts[share]++] = page;
}

static int64_t pages_of(int64_t positions)
{
    return (positions + MODEL_PAGE - 1) / MODEL_PAGE;
}

void session_pages_trim(mh_session *s, struct sequence *q, int64_t position)
{
    for (int64_t i = pages_of(position); i < s->slot_pages && q->pages[i] >= 0; i++) {
        let_go(s, i, q->pages[i]);
        q->pages[i] = -1;
    }
}

mh_status session_pages_check(const mh_session *s, const struct sequence *q, int64_t tokens,
                              const char *what)
{
    for (uint32_t share = 0; share < s->shares; share++) {
        int64_t available = s->free_counts[share], needed = 0;
        for (int64_t i = 0; i < s->slot_pages; i++) {
            if (session_share(s, i) != share)
                continue;
            needed += i < pages_of(tokens);
            available += q->pages[i] >= 0 && *refs_of(s, i, q->pages[i]) == 1;
        }
        if (needed > available)
            return mh_fail(MH_OUT_OF_MEMORY,
                           "cache: %s takes %lld pages of %d tokens, %lld are free", what,
                           (long long)needed, MODEL_PAGE, (long long)available);
    }
    return MH_OK;
}

void session_pages_share(mh_session *s, const struct sequence *from, int64_t position,
                         struct sequence *to)
{
    for (int64_t i = 0; i < pages_of(position); i++) {
        to->pages[i] = from->pages[i];
        ++*refs_of(s, i, to->pages[i]);
    }
}

/* ---- what a step takes ---- */

mh_status session_pages_take(mh_session *s, uint32_t sequence, int64_t count)
{
    struct sequence *q = &s->sequences[sequence];
    int64_t last = (q->position + count - 1) / MODEL_PAGE;
    for (int64_t i = q->position / MODEL_PAGE; i <= last; i++) {
        int32_t page = q->pages[i];
        int64_t *free_count = &s->free_counts[session_share(s, i)];
        if (page >= 0 && *refs_of(s, i, page) == 1)
            continue;
        if (!*free_count)
            return mh_fail(MH_OUT_OF_MEMORY,
                           "cache: sequence %u needs %lld pages of %d tokens more, and none of the "
                           "%lld is free",
                           sequence, (long long)(last - i + 1), MODEL_PAGE, (long long)s->pages);
        int32_t taken = s->free_pages[session_share(s, i) * s->pages + --*free_count];
        *refs_of(s, i, taken) = 1;
        /* The old one stays counted until the step is done: a step that fails leaves no trace. */
        s->changes[s->change_count++] =
            (struct page_change){.sequence = sequence, .from = page, .to = taken, .index = i};
        q->pages[i] = taken;
    }
    return MH_OK;
}

static mh_status copy_pages(const mh_session *s, const struct session_rank *r)
{
    mh_status status = MH_OK;
    for (int64_t i = 0; i < s->change_count; i++) {
        const struct page_change *change = &s->changes[i];
        if (change->from < 0 || !session_has(s, r, change->index))
            continue;
        int64_t rows = s->sequences[change->sequence].position - change->index * MODEL_PAGE;
        for (int64_t l = 0; !status && l < s->model->config->num_hidden_layers; l++) {
            const mh_tensor *t = &r->cache_tensors[l];
            status = mh_stream_copy(r->stream, t->buffer,
                                    t->offset + (uint64_t)(change->to * t->stride[0]), t->buffer,
                                    t->offset + (uint64_t)(change->from * t->stride[0]),
                                    (uint64_t)(rows * t->stride[1]));
        }
    }
    return status;
}

mh_status session_pages_copy(mh_session *s)
{
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < s->rank_count; i++)
        status = copy_pages(s, &s->ranks[i]);
    return status;
}

void session_pages_keep(mh_session *s)
{
    while (s->change_count) {
        const struct page_change *change = &s->changes[--s->change_count];
        let_go(s, change->index, change->from);
    }
}

void session_pages_undo(mh_session *s)
{
    while (s->change_count) {
        const struct page_change *change = &s->changes[--s->change_count];
        s->sequences[change->sequence].pages[change->index] = change->from;
        let_go(s, change->index, change->to);
    }
}
