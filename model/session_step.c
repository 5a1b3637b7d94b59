/* session_step.c: launches, and the two ways to them: a run of one sequence, a step of several. */
#include <stdlib.h>
#include <string.h>

#include "session_impl.h"

mh_status session_steps_create(mh_session *s)
{
    mh_step_params p = MH_INIT(mh_step_params);
    p.rows = s->rows, p.slots = s->sequence_count, p.pages = s->slot_pages;
    s->next_ids = malloc((size_t)s->rows * sizeof(*s->next_ids));
    if (s->load)
        s->choices = malloc(model_choices_bytes(s->model->config, s->rows));
    if (!s->next_ids || (s->load && !s->choices))
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %lld rows", (long long)s->rows);
    struct model_step sizes = {.rows = s->rows, .head_rows = s->heads};
    sizes.split = s->model->split, sizes.segments = s->segments, sizes.parts = s->shares;
    uint64_t bytes = model_lay_out(s->model->config, NULL, &sizes);
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < s->rank_count; i++) {
        struct session_rank *r = &s->ranks[i];
        status = mh_step_create(r->model->device, &p, &r->step);
        if (!status)
            status = mh_buffer_create(r->model->device, bytes, 0, &r->activations);
    }
    return status;
}

void session_steps_destroy(mh_session *s)
{
    mh_buffer_release(s->all_logits);
    mh_buffer_release(s->hidden);
    free(s->next_ids);
    free(s->choices);
}

/* ---- one launch ---- */

/* One row of a launch. */
struct row {
    uint32_t sequence;
    int32_t token, position;
};

static void fill_inputs(const mh_session *s, const struct session_rank *r, const struct row *rows,
                        int64_t count, int64_t padding)
{
    mh_step *step = r->step;
    int32_t *tokens = mh_step_input(step, MH_STEP_TOKENS);
    int32_t *positions = mh_step_input(step, MH_STEP_POSITIONS);
    int32_t *slots = mh_step_input(step, MH_STEP_SLOTS);
    int32_t *writes = mh_step_input(step, MH_STEP_WRITES);
    mh_sampling *sampling = mh_step_input(step, MH_STEP_SAMPLING);
    memcpy(mh_step_input(step, MH_STEP_PAGE_TABLE), s->page_tables,
           s->sequence_count * (size_t)s->slot_pages * sizeof(*s->page_tables));
    for (int64_t i = 0; i < padding; i++) {
        tokens[i] = positions[i] = 0;
        slots[i] = writes[i] = -1;
        sampling[i] = (mh_sampling){0};
    }
    for (int64_t i = 0; i < count; i++) {
        tokens[padding + i] = rows[i].token;
        positions[padding + i] = rows[i].position;
        slots[padding + i] = (int32_t)rows[i].sequence;
        sampling[padding + i] = s->sequences[rows[i].sequence].sampling;
        sampling[padding + i].counter = (uint64_t)rows[i].position;
        bool here = session_has(s, r, rows[i].position / MODEL_PAGE);
        writes[padding + i] = here ? slots[padding + i] : -1;
    }
}

/* Of a split cache: graphs are for the next power of two. */
static void count_segments(mh_session *s, const struct row *rows, int64_t count)
{
    if (s->shares == 1)
        return;
    int64_t most = 0, segments = 1, all = model_segments(s->context, s->shares);
    for (int64_t i = 0; i < count; i++)
        most = rows[i].position > most ? rows[i].position : most;
    while (segments < model_segments(most + 1, s->shares))
        segments *= 2;
    s->segments = segments < all ? segments : all;
}

static mh_status read_tensor(mh_session *s, mh_tensor t, float *to)
{
    uint64_t bytes = 4 * (uint64_t)(t.shape[0] * t.shape[1]);
    return mh_stream_read(s->ranks[0].stream, t.buffer, t.offset, to, bytes);
}

/* What a run asked for, of `count` rows that begin with its token `first`. */
static mh_status read_outputs(mh_session *s, const mh_session_outputs *outputs, int64_t first,
                              int64_t count, int64_t head_rows)
{
    const mh_config *c = s->model->config;
    int64_t padding = session_bucket(s, count) - count;
    mh_status status = MH_OK;
    if (outputs->logits && head_rows) {
        int64_t row = first + count - head_rows - (int64_t)outputs->logits_begin;
        mh_tensor logits = mh_tensor_slice(s->logits, 0, s->logits.shape[0] - head_rows, head_rows);
        status = read_tensor(s, logits, outputs->logits + row * c->vocab_size);
    }
    for (int64_t i = 0; !status && outputs->hidden && i <= c->num_hidden_layers; i++) {
        mh_tensor hidden = session_hidden(s, i, padding + count);
        status = read_tensor(s, mh_tensor_slice(hidden, 0, padding, count),
                             outputs->hidden[i] + first * c->hidden_size);
    }
    return status;
}

/* What the last `count` of `rows` rows chose. */
static mh_status read_choices(mh_session *s, int64_t rows)
{
    mh_tensor t = session_operands(s, &s->ranks[0], rows, 0).experts;
    return mh_stream_read(s->ranks[0].stream, t.buffer, t.offset, s->choices,
                          model_choices_bytes(s->model->config, rows));
}

static void count_choices(mh_session *s, int64_t rows, int64_t count)
{
    const mh_config *c = s->model->config;
    int64_t k = c->num_experts_per_tok;
    int64_t stride = (int64_t)(model_choices_bytes(c, rows) / 4) / c->num_hidden_layers;
    for (int64_t l = 0; l < c->num_hidden_layers; l++) {
        uint64_t *counts = mh_expert_load_layer(s->load, l);
        const int32_t *chosen = s->choices + l * stride + (rows - count) * k;
        for (int64_t i = 0; counts && i < count * k; i++)
            if (chosen[i] >= 0 && chosen[i] < c->n_routed_experts)
                counts[chosen[i]]++;
    }
}

/* At most `chunk` rows; the last `head_rows` of them get logits and a next token: the last rows of
 * s->logits and of next_ids, padding counted. */
static mh_status launch(mh_session *s, const struct row *rows, int64_t count, int64_t head_rows,
                        const mh_session_outputs *outputs, int64_t first)
{
    int64_t total = session_bucket(s, count), heads = session_bucket(s, head_rows);
    heads = heads < total ? heads : total;
    mh_status status = MH_OK;
    s->steps++;
    count_segments(s, rows, count);
    s->logits = session_operands(s, &s->ranks[0], total, heads).logits;
    for (uint32_t i = 0; !status && i < s->rank_count; i++) {
        fill_inputs(s, &s->ranks[i], rows, count, total - count);
        status = mh_step_write(s->ranks[i].step, s->ranks[i].stream);
    }
    if (!status)
        status = session_launch(s, total, heads, outputs->hidden != NULL);
    if (!status)
        status = read_outputs(s, outputs, first, count, head_rows);
    if (!status && s->comm) /* an error of one while others wait for it */
        status = mh_comm_wait(s->comm, MH_FOREVER);
    if (!status && s->load)
        status = read_choices(s, total);
    if (!status)
        status = mh_step_read(s->ranks[0].step, s->ranks[0].stream, heads ? s->next_ids : NULL,
                              heads ? total : 0);
    for (uint32_t i = 1; !status && i < s->rank_count; i++) /* their errors */
        status = mh_step_read(s->ranks[i].step, s->ranks[i].stream, NULL, 0);
    if (!status && s->load)
        count_choices(s, total, count);
    return status;
}

/* The sequence's newest row was head row `index` of `head_rows` in the launch of `count` rows. */
static void take_next(mh_session *s, struct sequence *q, int64_t count, int64_t head_rows,
                      int64_t index)
{
    q->has_next = true;
    q->next = s->next_ids[session_bucket(s, count) - head_rows + index];
    q->logits_step = s->steps;
    q->logits_row = s->logits.shape[0] - head_rows + index;
}

/* What was stopped cannot go on. Where there is no new one, the old one refuses the next step. */
static void meet_again(mh_session *s, mh_status status)
{
    mh_error cause = MH_INIT(mh_error);
    mh_last_error(&cause);
    session_graphs_destroy(s);
    if (session_meet(s))
        mh_fail(status, "%s", cause.message);
}

/* Ends what was prepared; after a failure nothing of it may still be on its way. */
static mh_status settle(mh_session *s, mh_status status)
{
    if (status) {
        if (s->linked) /* ranks may wait for one that was not launched */
            mh_comm_stop(s->comm);
        for (uint32_t i = 0; i < s->rank_count; i++)
            mh_stream_wait(s->ranks[i].stream, MH_FOREVER);
        if (s->linked)
            meet_again(s, status);
        session_pages_undo(s);
        if (status ==
            MH_CANCELLED) /* ranks that did not come to it: the next step is another one */
            mh_session_cancel(s, 0);
    } else {
        session_pages_keep(s);
    }
    return status;
}

static void append(struct sequence *q, const int32_t *ids, int64_t count)
{
    memcpy(q->ids + q->position, ids, (size_t)count * sizeof(*ids));
    q->position += count;
    q->has_next = false;
}

/* ---- a run ---- */

static mh_status run_chunk(mh_session *s, const int32_t *ids, int64_t first, int64_t count,
                           int64_t head_rows, const mh_session_outputs *outputs)
{
    struct sequence *q = &s->sequences[0];
    struct row *rows = malloc((size_t)count * sizeof(*rows));
    if (!rows)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %lld rows", (long long)count);
    for (int64_t i = 0; i < count; i++)
        rows[i] = (struct row){0, ids[first + i], (int32_t)(q->position + i)};
    mh_status status = session_pages_take(s, 0, count);
    if (!status)
        status = session_pages_copy(s);
    if (!status)
        status = launch(s, rows, count, head_rows, outputs, first);
    status = settle(s, status);
    if (!status)
        append(q, ids + first, count);
    if (!status && head_rows)
        take_next(s, q, count, head_rows, head_rows - 1);
    free(rows);
    return status;
}

static mh_status check_run(mh_session *s, const int32_t *ids, uint64_t count,
                           const mh_session_outputs *outputs)
{
    const struct sequence *q = session_find(s, 0, "mh_session_run");
    if (!q)
        return MH_INVALID_ARGUMENT;
    if (!ids || !count)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_run: no tokens given");
    if (count > (uint64_t)(s->context - q->position))
        return mh_fail(MH_INVALID_ARGUMENT,
                       "prompt: %llu tokens after %lld do not fit into a context of %lld",
                       (unsigned long long)count, (long long)q->position, (long long)s->context);
    mh_status status = session_check_ids(s, ids, count);
    if (!status && outputs->logits && outputs->logits_begin >= count)
        status =
            mh_fail(MH_INVALID_ARGUMENT, "mh_session_outputs: logits_begin is %llu of %llu tokens",
                    (unsigned long long)outputs->logits_begin, (unsigned long long)count);
    return status;
}

/* Memory for outputs that most sessions never ask for. */
static mh_status make_outputs(mh_session *s, const mh_session_outputs *outputs)
{
    const mh_config *c = s->model->config;
    mh_device *device = s->model->ranks[0].device;
    mh_status status = MH_OK;
    if (outputs->logits && !s->all_logits)
        status =
            mh_buffer_create(device, 4 * (uint64_t)(s->rows * c->vocab_size), 0, &s->all_logits);
    if (!status && outputs->hidden && !s->hidden)
        status = mh_buffer_create(
            device, 4 * (uint64_t)((c->num_hidden_layers + 1) * s->rows * c->hidden_size), 0,
            &s->hidden);
    return status;
}

mh_status mh_session_run(mh_session *s, const int32_t *ids, uint64_t count,
                         const mh_session_outputs *outputs)
{
    if (!s)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_run: session is NULL");
    mh_session_outputs wanted = MH_INIT(mh_session_outputs);
    mh_status status = MH_OK;
    if (outputs)
        status = mh_struct_in(&wanted, outputs, sizeof(wanted), "mh_session_outputs");
    if (!status)
        status = check_run(s, ids, count, &wanted);
    if (!status)
        status = make_outputs(s, &wanted);
    int64_t total = (int64_t)count;
    for (int64_t first = 0; !status && first < total; first += s->chunk) {
        int64_t rows = total - first < s->chunk ? total - first : s->chunk;
        int64_t end = first + rows;
        int64_t head_rows = end == total ? 1 : 0;
        if (wanted.logits && end > (int64_t)wanted.logits_begin) {
            int64_t from = (int64_t)wanted.logits_begin;
            head_rows = end - (from > first ? from : first);
        }
        status = run_chunk(s, ids, first, rows, head_rows, &wanted);
        if (!status && s->progress && count > 1 &&
            s->progress(s->progress_user, (uint64_t)end, count))
            status = mh_fail(MH_CANCELLED, "the run was cancelled after %lld of %lld tokens",
                             (long long)end, (long long)total);
    }
    return status;
}

/* ---- a step ---- */

static mh_status check_rows(mh_session *s, const mh_sequence_rows *r, uint64_t index)
{
    const struct sequence *q = session_find(s, r->sequence, "mh_session_step");
    if (!q)
        return MH_INVALID_ARGUMENT;
    if (!r->ids || !r->count)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_step: rows[%llu] has no tokens",
                       (unsigned long long)index);
    if (r->count > (uint64_t)(s->context - q->position))
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_session_step: rows[%llu]: %llu tokens after %lld do not fit into a "
                       "context of %lld",
                       (unsigned long long)index, (unsigned long long)r->count,
                       (long long)q->position, (long long)s->context);
    return session_check_ids(s, r->ids, r->count);
}

/* The caller's rows, of any version, as this library's; `taken` marks sequences. */
static mh_status read_rows(mh_session *s, const mh_sequence_rows *from, uint64_t count,
                           mh_sequence_rows *to)
{
    mh_status status = MH_OK;
    for (uint64_t i = 0; !status && i < count; i++) {
        const char *at = (const char *)from + i * from->struct_size;
        status = mh_struct_in(&to[i], at, sizeof(*to), "mh_sequence_rows");
        if (!status &&
            ((const mh_sequence_rows *)(const void *)at)->struct_size != from->struct_size)
            status = mh_fail(MH_INVALID_ARGUMENT,
                             "mh_session_step: rows[%llu] has another struct_size than rows[0]",
                             (unsigned long long)i);
        if (!status)
            status = check_rows(s, &to[i], i);
        for (uint64_t j = 0; !status && j < i; j++)
            if (to[j].sequence == to[i].sequence)
                status = mh_fail(MH_INVALID_ARGUMENT,
                                 "mh_session_step: sequence %u is in rows[%llu] and in rows[%llu]",
                                 to[i].sequence, (unsigned long long)j, (unsigned long long)i);
    }
    return status;
}

/* Rows of a launch may be in any order, since keys are written before any row attends: those that
 * get logits come last, and all in the last launch, where s->logits is of all of them. */
static void order_rows(const mh_session *s, const mh_sequence_rows *r, uint64_t count,
                       struct row *rows, int64_t bodies)
{
    int64_t at = 0;
    for (uint64_t i = 0; i < count; i++) {
        int32_t position = (int32_t)s->sequences[r[i].sequence].position;
        for (uint64_t j = 0; j < r[i].count; j++) {
            struct row *row = j + 1 < r[i].count ? &rows[at++] : &rows[bodies + (int64_t)i];
            *row = (struct row){r[i].sequence, r[i].ids[j], position + (int32_t)j};
        }
    }
}

static mh_status run_step(mh_session *s, const mh_sequence_rows *r, uint64_t count,
                          struct row *rows, int64_t total)
{
    const mh_session_outputs none = MH_INIT(mh_session_outputs);
    int64_t heads = (int64_t)count, first = 0;
    mh_status status = MH_OK;
    order_rows(s, r, count, rows, total - heads);
    for (uint64_t i = 0; !status && i < count; i++)
        status = session_pages_take(s, r[i].sequence, (int64_t)r[i].count);
    if (!status)
        status = session_pages_copy(s);
    while (!status && total - first > s->chunk) {
        int64_t bodies = total - first - heads;
        int64_t n = bodies < s->chunk ? bodies : s->chunk;
        status = launch(s, rows + first, n, 0, &none, 0);
        first += n;
    }
    if (!status)
        status = launch(s, rows + first, total - first, heads, &none, 0);
    status = settle(s, status);
    for (uint64_t i = 0; !status && i < count; i++) {
        struct sequence *q = &s->sequences[r[i].sequence];
        append(q, r[i].ids, (int64_t)r[i].count);
        take_next(s, q, total - first, heads, (int64_t)i);
    }
    return status;
}

mh_status mh_session_step(mh_session *s, const mh_sequence_rows *rows, uint64_t count)
{
    if (!s || !rows || !count)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_step: %s",
                       !s      ? "session is NULL"
                       : !rows ? "rows is NULL"
                               : "no rows given");
    if (count > s->sequence_count)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_step: rows of %llu sequences, at most %u",
                       (unsigned long long)count, s->sequence_count);
    mh_sequence_rows *r = malloc(count * sizeof(*r));
    struct row *ordered = NULL;
    uint64_t total = 0;
    mh_status status = r ? read_rows(s, rows, count, r)
                         : mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a step");
    for (uint64_t i = 0; !status && i < count; i++)
        total += r[i].count;
    if (!status && !(ordered = malloc(total * sizeof(*ordered))))
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %llu rows",
                         (unsigned long long)total);
    if (!status)
        status = run_step(s, r, count, ordered, (int64_t)total);
    free(ordered);
    free(r);
    return status;
}
