/* session_save.c: a sequence to a file, and back into a session of the same model. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session_file.h"
#include "session_impl.h"

/* ---- which model ---- */

static void add_number(struct crc64 *crc, uint64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    crc64_add(crc, bytes, 8);
}

/* Name, shape and both ends of every tensor but the routed experts': what tells models apart, a
 * fine-tuned one from its base too, without reading all of one. */
static uint64_t fingerprint(const struct mh_model *model)
{
    enum { END = 256 };
    struct crc64 crc;
    crc64_begin(&crc);
    for (uint64_t i = 0; i < mh_checkpoint_count(model->checkpoint); i++) {
        mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
        if (mh_checkpoint_at(model->checkpoint, i, &t) || strstr(t.name, ".experts."))
            continue;
        crc64_add(&crc, t.name, strlen(t.name) + 1);
        add_number(&crc, t.dtype);
        for (uint32_t d = 0; d < t.rank; d++)
            add_number(&crc, (uint64_t)t.shape[d]);
        uint64_t end = t.bytes < END ? t.bytes : END;
        crc64_add(&crc, t.data, end);
        crc64_add(&crc, (const char *)t.data + t.bytes - end, end);
    }
    /* Of the config what changes results and is in no tensor. */
    const mh_config *c = model->config;
    double angle[512];
    int64_t half = c->qk_rope_head_dim / 2;
    if (half <= 512) {
        mh_config_rope_frequencies(c, angle);
        crc64_add(&crc, angle, (size_t)half * sizeof(*angle));
    }
    double scalars[] = {c->rms_norm_eps, c->latent_norm_eps, c->routed_scaling_factor,
                        mh_config_softmax_scale(c), mh_config_rope_amplitude(c)};
    crc64_add(&crc, scalars, sizeof(scalars));
    add_number(&crc, (uint64_t)c->num_experts_per_tok);
    add_number(&crc, (uint64_t)c->n_group);
    add_number(&crc, (uint64_t)c->topk_group);
    add_number(&crc, c->grouped);
    add_number(&crc, c->scoring);
    add_number(&crc, c->norm_topk_prob);
    return crc64_value(&crc);
}

static struct session_file describe(const mh_session *s, const struct sequence *q)
{
    const mh_config *c = s->model->config;
    struct session_file f = {
        .fingerprint = fingerprint(s->model),
        .tokens = (uint64_t)q->position,
        .dtype = s->kv_dtype,
        .profile = s->model->profile,
        .layers = (uint32_t)c->num_hidden_layers,
        .values = (uint32_t)(c->kv_lora_rank + c->qk_rope_head_dim),
        .vocabulary = (uint32_t)c->vocab_size,
        .has_next = q->has_next,
        .next = q->has_next ? q->next : 0,
        .sampling = q->sampling,
    };
    f.bytes = session_file_size(&f);
    return f;
}

/* ---- the content, piece by piece ---- */

struct transfer {
    FILE *file;
    const char *path; /* for errors */
    struct crc64 crc;
    void *piece; /* one page of one layer */
};

static mh_status transfer_begin(struct transfer *t, const mh_session *s, FILE *file,
                                const char *path)
{
    t->file = file;
    t->path = path;
    crc64_begin(&t->crc);
    t->piece = malloc((size_t)s->ranks[0].cache_tensors[0].stride[0]);
    return t->piece ? MH_OK : mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a page");
}

static mh_status write_bytes(struct transfer *t, const void *data, size_t bytes)
{
    crc64_add(&t->crc, data, bytes);
    if (!bytes || fwrite(data, 1, bytes, t->file) == bytes)
        return MH_OK;
    return mh_fail(MH_IO_ERROR, "%s: %s", t->path, strerror(errno));
}

static mh_status read_bytes(struct transfer *t, void *data, size_t bytes)
{
    if (bytes && fread(data, 1, bytes, t->file) != bytes)
        return mh_fail(MH_IO_ERROR, "%s: %s", t->path,
                       ferror(t->file) ? strerror(errno) : "ended while it was read");
    crc64_add(&t->crc, data, bytes);
    return MH_OK;
}

/* `bytes` of a sequence's page of that index, at `offset` in the layer's cache of the ranks that
 * have it. */
typedef mh_status (*page_fn)(struct transfer *t, const mh_session *s, int64_t layer, int64_t index,
                             uint64_t offset, size_t bytes);

static mh_status save_page(struct transfer *t, const mh_session *s, int64_t layer, int64_t index,
                           uint64_t offset, size_t bytes)
{
    const struct session_rank *r = s->ranks;
    while (!session_has(s, r, index)) /* one does: it is of one process */
        r++;
    const mh_tensor *c = &r->cache_tensors[layer];
    mh_status status = mh_buffer_read(c->buffer, c->offset + offset, t->piece, bytes);
    return status ? status : write_bytes(t, t->piece, bytes);
}

static mh_status load_page(struct transfer *t, const mh_session *s, int64_t layer, int64_t index,
                           uint64_t offset, size_t bytes)
{
    mh_status status = read_bytes(t, t->piece, bytes);
    for (uint32_t i = 0; !status && i < s->rank_count; i++) {
        const mh_tensor *c = &s->ranks[i].cache_tensors[layer];
        if (session_has(s, &s->ranks[i], index))
            status = mh_buffer_write(c->buffer, c->offset + offset, t->piece, bytes);
    }
    return status;
}

/* Only reads, for the checksum. */
static mh_status skim_page(struct transfer *t, const mh_session *s, int64_t layer, int64_t index,
                           uint64_t offset, size_t bytes)
{
    (void)s, (void)layer, (void)index, (void)offset;
    return read_bytes(t, t->piece, bytes);
}

/* The cache in the file's order. `pages` may be NULL for skim_page. */
static mh_status each_page(struct transfer *t, const mh_session *s, const int32_t *pages,
                           int64_t tokens, page_fn act)
{
    mh_status status = MH_OK;
    for (int64_t l = 0; !status && l < s->model->config->num_hidden_layers; l++) {
        const mh_tensor *c = &s->ranks[0].cache_tensors[l];
        for (int64_t first = 0; !status && first < tokens; first += MODEL_PAGE) {
            int64_t rows = tokens - first < MODEL_PAGE ? tokens - first : MODEL_PAGE;
            int64_t index = first / MODEL_PAGE, page = pages ? pages[index] : 0;
            status =
                act(t, s, l, index, (uint64_t)(page * c->stride[0]), (size_t)(rows * c->stride[1]));
        }
    }
    return status;
}

/* ---- saving ---- */

static mh_status write_content(struct transfer *t, const mh_session *s, const struct sequence *q)
{
    struct session_file f = describe(s, q);
    uint8_t header[SESSION_FILE_HEADER], sum[8];
    session_file_write_header(&f, header);
    mh_status status = write_bytes(t, header, sizeof(header));
    crc64_begin(&t->crc); /* the header has its own */
    if (!status)
        status = write_bytes(t, q->ids, (size_t)q->position * sizeof(*q->ids));
    if (!status)
        status = each_page(t, s, q->pages, q->position, save_page);
    uint64_t value = crc64_value(&t->crc);
    for (int i = 0; i < 8; i++)
        sum[i] = (uint8_t)(value >> 8 * i);
    if (!status)
        status = write_bytes(t, sum, sizeof(sum));
    if (!status && (fflush(t->file) || fsync(fileno(t->file))))
        status = mh_fail(MH_IO_ERROR, "%s: %s", t->path, strerror(errno));
    return status;
}

mh_status mh_sequence_save(mh_session *s, uint32_t sequence, const char *path)
{
    const struct sequence *q = session_find(s, sequence, "mh_sequence_save");
    if (!q)
        return MH_INVALID_ARGUMENT;
    if (!path)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_sequence_save: path is NULL");
    if (s->shares > s->rank_count)
        return mh_fail(MH_UNSUPPORTED,
                       "mh_sequence_save: the cache is split, and part of it in another process");
    struct transfer t = {0};
    size_t length = strlen(path) + 8;
    char *temporary = malloc(length);
    if (!temporary)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a name");
    snprintf(temporary, length, "%s.part", path);
    FILE *file = fopen(temporary, "wb");
    mh_status status = file ? transfer_begin(&t, s, file, temporary)
                            : mh_fail(MH_IO_ERROR, "%s: %s", temporary, strerror(errno));
    if (!status)
        status = write_content(&t, s, q);
    if (file && fclose(file) && !status)
        status = mh_fail(MH_IO_ERROR, "%s: %s", temporary, strerror(errno));
    if (!status && rename(temporary, path))
        status = mh_fail(MH_IO_ERROR, "%s: %s", path, strerror(errno));
    if (status && file)
        unlink(temporary);
    free(t.piece);
    free(temporary);
    return status;
}

/* ---- restoring ---- */

static mh_status check_model(const mh_session *s, const struct session_file *f, const char *path)
{
    const mh_config *c = s->model->config;
    const struct {
        const char *name;
        uint64_t file, model;
    } fields[] = {
        {"layers", f->layers, (uint64_t)c->num_hidden_layers},
        {"values of a cache row", f->values, (uint64_t)(c->kv_lora_rank + c->qk_rope_head_dim)},
        {"vocabulary", f->vocabulary, (uint64_t)c->vocab_size},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].file != fields[i].model)
            return mh_fail(MH_INVALID_ARGUMENT, "%s: of another model: %s: %llu there, %llu here",
                           path, fields[i].name, (unsigned long long)fields[i].file,
                           (unsigned long long)fields[i].model);
    uint64_t here = fingerprint(s->model);
    if (f->fingerprint != here)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "%s: of another model: same shapes, other weights or configuration "
                       "(fingerprint %016llx there, %016llx here)",
                       path, (unsigned long long)f->fingerprint, (unsigned long long)here);
    if (f->dtype != s->kv_dtype)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: its cache is %s, this session's is %s", path,
                       mh_dtype_name(f->dtype), mh_dtype_name(s->kv_dtype));
    if (f->profile != s->model->profile)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "%s: was computed under profile %u, this model runs under %u", path,
                       f->profile, s->model->profile);
    if (f->tokens > (uint64_t)s->context)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: its %llu tokens do not fit into a context of %lld",
                       path, (unsigned long long)f->tokens, (long long)s->context);
    return MH_OK;
}

static mh_status read_header(FILE *file, const char *path, struct session_file *out)
{
    uint8_t header[SESSION_FILE_HEADER];
    if (fseeko(file, 0, SEEK_END))
        return mh_fail(MH_IO_ERROR, "%s: %s", path, strerror(errno));
    off_t length = ftello(file);
    if (fseeko(file, 0, SEEK_SET))
        return mh_fail(MH_IO_ERROR, "%s: %s", path, strerror(errno));
    if (length < SESSION_FILE_HEADER)
        return mh_fail(MH_BAD_DATA, "%s: has %lld bytes, less than a header", path,
                       (long long)length);
    if (fread(header, 1, sizeof(header), file) != sizeof(header))
        return mh_fail(MH_IO_ERROR, "%s: could not be read", path);
    return session_file_read_header(header, (uint64_t)length, path, out);
}

/* The content once from the front: ids, pages, checksum. */
static mh_status read_content(struct transfer *t, const mh_session *s, const struct session_file *f,
                              int32_t *ids, const int32_t *pages, page_fn act)
{
    uint8_t sum[8];
    crc64_begin(&t->crc);
    if (fseeko(t->file, SESSION_FILE_HEADER, SEEK_SET))
        return mh_fail(MH_IO_ERROR, "%s: %s", t->path, strerror(errno));
    mh_status status = read_bytes(t, ids, f->tokens * sizeof(*ids));
    if (!status)
        status = each_page(t, s, pages, (int64_t)f->tokens, act);
    uint64_t want = 0, value = crc64_value(&t->crc);
    if (!status)
        status = read_bytes(t, sum, sizeof(sum));
    for (int i = 0; !status && i < 8; i++)
        want |= (uint64_t)sum[i] << 8 * i;
    if (!status && want != value)
        status = mh_fail(MH_BAD_DATA, "%s: the checksum does not match: it is damaged", t->path);
    return status;
}

/* Everything about the file is known to be good: its content takes the sequence's place. */
static mh_status replace(struct transfer *t, mh_session *s, uint32_t sequence,
                         const struct session_file *f, int32_t *ids)
{
    struct sequence *q = &s->sequences[sequence];
    int64_t tokens = (int64_t)f->tokens;
    session_pages_trim(s, q, 0);
    q->position = 0;
    q->has_next = false;
    mh_status status = tokens ? session_pages_take(s, sequence, tokens) : MH_OK;
    if (!status)
        status = read_content(t, s, f, ids, q->pages, load_page);
    if (status) {
        session_pages_undo(s);
        return status;
    }
    session_pages_keep(s);
    memcpy(q->ids, ids, (size_t)tokens * sizeof(*ids));
    q->position = tokens;
    q->has_next = f->has_next, q->next = f->next;
    q->logits_step = s->steps + 1; /* of no step */
    q->sampling = f->sampling;
    return MH_OK;
}

static mh_status restore(struct transfer *t, mh_session *s, uint32_t sequence,
                         const struct session_file *f)
{
    int32_t *ids = malloc(f->tokens ? f->tokens * sizeof(*ids) : 1);
    mh_status status = ids ? MH_OK
                           : mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %llu ids",
                                     (unsigned long long)f->tokens);
    if (!status)
        status = read_content(t, s, f, ids, NULL, skim_page);
    if (!status && session_check_ids(s, ids, f->tokens))
        status = mh_fail(MH_BAD_DATA, "%s: %s", t->path, mh_last_message());
    if (!status)
        status = session_pages_check(s, &s->sequences[sequence], (int64_t)f->tokens, t->path);
    if (!status)
        status = replace(t, s, sequence, f, ids);
    free(ids);
    return status;
}

mh_status mh_sequence_restore(mh_session *s, uint32_t sequence, const char *path)
{
    if (!session_find(s, sequence, "mh_sequence_restore"))
        return MH_INVALID_ARGUMENT;
    if (!path)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_sequence_restore: path is NULL");
    FILE *file = fopen(path, "rb");
    if (!file)
        return mh_fail(errno == ENOENT ? MH_NOT_FOUND : MH_IO_ERROR, "%s: %s", path,
                       strerror(errno));
    struct session_file f;
    struct transfer t = {0};
    mh_status status = read_header(file, path, &f);
    if (!status)
        status = check_model(s, &f, path);
    if (!status)
        status = transfer_begin(&t, s, file, path);
    if (!status)
        status = restore(&t, s, sequence, &f);
    free(t.piece);
    fclose(file);
    return status;
}
