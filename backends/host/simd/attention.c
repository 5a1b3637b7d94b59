/*
 * attention.c: rule 3 for a block of tokens of one sequence times some heads: the keys of a
 * chunk are repacked once for all of them. Scores have keys in the lanes, the weighted sums have
 * latent dimensions.
 */
#include "../cache.h"
#include "../panel.h"
#include "../part.h"
#include "simd.h"

struct block {
    const mh_op_attention *op;
    const mh_op_attention_part
        *part;             /* NULL: of the whole op; else op has the same operands but y */
    int64_t first, tokens; /* rows of the op, all of one slot */
    int64_t head, heads;
    int64_t latent, width;
    float *panel, *decoded;     /* of a chunk's keys */
    float *queries, *sums;      /* [tokens * heads]: permuted queries; two latents each */
    struct part *all, *segment; /* [tokens * heads] */
};

/* ---- scratch ---- */

static void *take(char **scratch, uint64_t bytes)
{
    void *taken = *scratch;
    *scratch += (bytes + 63) & ~UINT64_C(63);
    return taken;
}

static void lay_out(struct block *b, char *scratch)
{
    uint64_t rows = (uint64_t)(b->tokens * b->heads);
    b->panel = take(&scratch, key_panel_bytes(b->width));
    b->decoded = take(&scratch, 4 * CHUNK * (uint64_t)b->width);
    b->queries = take(&scratch, 4 * rows * (uint64_t)permuted_floats(b->width));
    b->sums = take(&scratch, 8 * rows * (uint64_t)b->latent);
    b->all = take(&scratch, rows * sizeof(struct part));
    b->segment = take(&scratch, rows * sizeof(struct part));
    for (uint64_t r = 0; r < rows; r++) {
        b->all[r].o = b->sums + 2 * r * (uint64_t)b->latent;
        b->segment[r].o = b->all[r].o + b->latent;
    }
}

/* ---- one chunk of keys ---- */

/* p = exp(scores - m) and its fold, absent keys 0. `scores` has CHUNK places. */
static float soften(float *scores, int64_t count, float scale, const float *before, float *most)
{
    vf s[STEP], m;
    for (int64_t i = count; i < CHUNK; i++)
        scores[i] = scores[0];
    for (int j = 0; j < STEP; j++) {
        s[j] = v_mul(v_load(scores + j * LANES), v_set1(scale));
        v_store(scores + j * LANES, s[j]);
    }
    m = s[0];
    for (int j = 1; j < STEP; j++)
        m = v_max(m, s[j]);
    float lanes[LANES];
    v_store(lanes, m);
    *most = lanes[0];
    for (int j = 1; j < LANES; j++)
        *most = lanes[j] > *most ? lanes[j] : *most;
    if (before)
        *most = *before > *most ? *before : *most;
    for (int j = 0; j < STEP; j++)
        v_store(scores + j * LANES, v_exp(v_sub(s[j], v_set1(*most))));
    for (int64_t i = count; i < CHUNK; i++)
        scores[i] = 0;
    for (int j = 0; j < STEP; j++)
        s[j] = v_load(scores + j * LANES);
    return v_fold(s);
}

/* o = o * alpha (or +0), then the chain of fma over the keys, for `rows` rows. */
static inline __attribute__((always_inline)) void
add_values(int rows, const float *const *keys, int64_t count, float (*p)[CHUNK], const float *alpha,
           const struct part *parts, int64_t latent, bool first)
{
    int64_t d = 0;
    for (; d + 2 * LANES <= latent; d += 2 * LANES) {
        vf a[ROW_BLOCK][2];
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < 2; v++)
                a[r][v] =
                    first ? v_zero() : v_mul(v_load(parts[r].o + d + v * LANES), v_set1(alpha[r]));
        for (int64_t t = 0; t < count; t++) {
            vf c0 = v_load(keys[t] + d), c1 = v_load(keys[t] + d + LANES);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                vf weight = v_set1(p[r][t]);
                a[r][0] = v_fma(weight, c0, a[r][0]);
                a[r][1] = v_fma(weight, c1, a[r][1]);
            }
        }
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < 2; v++)
                v_store(parts[r].o + d + v * LANES, a[r][v]);
    }
    for (; d < latent; d++)
        for (int r = 0; r < rows; r++) {
            float o = first ? 0 : parts[r].o[d] * alpha[r];
            for (int64_t t = 0; t < count; t++)
                o = fmaf(p[r][t], keys[t][d], o);
            parts[r].o[d] = o;
        }
}

/* Some heads of one token, all over the same `count` keys. */
static void attend_heads(const struct block *b, const float *const *keys, int64_t count, bool first,
                         int64_t row, int64_t rows, struct part *parts)
{
    float p[ROW_BLOCK][CHUNK], alpha[ROW_BLOCK];
    const float *x[ROW_BLOCK] = {0}; /* gcc does not see that rows >= 1 */
    for (int64_t r = 0; r < rows; r++)
        x[r] = b->queries + (row + r) * permuted_floats(b->width);
    K(panel_scores)(b->panel, b->width, x, rows, p);
    for (int64_t r = 0; r < rows; r++) {
        struct part *part = &parts[row + r];
        float m, sum = soften(p[r], count, b->op->scale, first ? NULL : &part->m, &m);
        alpha[r] = first ? 0 : exp_exact(part->m - m);
        part->l = first ? sum : fmaf(part->l, alpha[r], sum);
        part->m = m;
    }
    int64_t r = 0;
#ifdef __AVX512F__
    for (; r + 8 <= rows; r += 8)
        add_values(8, keys, count, p + r, alpha + r, parts + row + r, b->latent, first);
#endif
    for (; r + 4 <= rows; r += 4)
        add_values(4, keys, count, p + r, alpha + r, parts + row + r, b->latent, first);
    for (; r < rows; r++)
        add_values(1, keys, count, p + r, alpha + r, parts + row + r, b->latent, first);
}

/* ---- a block ---- */

/* A chunk's rows of the cache: as weights to repack, and as f32. */
static void find_keys(const struct block *b, const struct cache_place *place, int64_t begin,
                      int64_t count, struct weight_row *rows, const float **values)
{
    bool halves = b->op->cache.dtype == MH_BF16;
    for (int64_t i = 0; i < count; i++) {
        const void *row = cache_row_unchecked(place, begin + i);
        rows[i] = (struct weight_row){halves ? MH_FORMAT_BF16 : MH_FORMAT_F32, row, NULL};
        values[i] = row;
        if (!halves)
            continue;
        float *decoded = b->decoded + i * b->width;
        for (int64_t k = 0; k < b->latent; k++)
            decoded[k] = from_bf16(((const uint16_t *)row)[k]);
        values[i] = decoded;
    }
}

/* One token over a chunk of its keys. */
static void attend_token(const struct block *b, const float *const *keys, int64_t begin,
                         int64_t token, int64_t position, struct part *parts)
{
    int64_t count = position + 1 - begin, row = token * b->heads;
    count = count < CHUNK ? count : CHUNK;
    for (int64_t h = 0; h < b->heads; h += ROW_BLOCK)
        attend_heads(b, keys, count, begin % SEGMENT == 0, row + h,
                     b->heads - h < ROW_BLOCK ? b->heads - h : ROW_BLOCK, parts);
}

/* A chunk of keys ends a token's segment. */
static bool ends_segment(int64_t begin, int64_t position)
{
    return position < begin + CHUNK || (begin + CHUNK) % SEGMENT == 0;
}

static void attend_all(const struct block *b, const float *const *keys, int64_t begin,
                       int64_t token, int64_t position)
{
    struct part *parts = begin < SEGMENT ? b->all : b->segment;
    int64_t row = token * b->heads;
    attend_token(b, keys, begin, token, position, parts);
    for (int64_t h = 0; h < b->heads; h++) {
        if (parts == b->segment && ends_segment(begin, position))
            part_merge(&b->all[row + h], &b->segment[row + h], b->latent);
        if (position < begin + CHUNK)
            part_finish(&b->all[row + h], row2(&b->op->y, b->first + token, b->head + h),
                        b->latent);
    }
}

/* Segment `index` of the op's. */
static void attend_part(const struct block *b, const float *const *keys, int64_t begin,
                        int64_t token, int64_t position, int64_t index)
{
    attend_token(b, keys, begin, token, position, b->segment);
    for (int64_t h = 0; h < b->heads && ends_segment(begin, position); h++) {
        const struct part *part = &b->segment[token * b->heads + h];
        float *y = row3(&b->part->y, b->first + token, b->head + h, index);
        memcpy(y, part->o, (size_t)b->latent * sizeof(*y));
        part_write_sums(part, y + b->latent);
    }
}

static void permute_queries(const struct block *b, int64_t token)
{
    for (int64_t h = 0; h < b->heads; h++)
        K(permute)
    (b->queries + (token * b->heads + h) * permuted_floats(b->width),
     row2(&b->op->q, b->first + token, b->head + h), b->width);
}

/* The keys of a chunk, repacked; their values. */
static void take_chunk(const struct block *b, const struct cache_place *place, int64_t begin,
                       int64_t keys, const float **values)
{
    struct weight_row rows[CHUNK];
    int64_t count = keys - begin < CHUNK ? keys - begin : CHUNK;
    find_keys(b, place, begin, count, rows, values);
    K(panel_keys)(rows, count, b->width, b->panel);
}

static void attend_block(const struct block *b)
{
    const mh_op_attention *o = b->op;
    struct cache_place place = {&o->cache, &o->page_table, index_at(&o->slots, b->first)};
    const float *values[CHUNK];
    int64_t keys = 0;
    for (int64_t t = 0; t < b->tokens; t++) {
        int32_t position = index_at(&o->positions, b->first + t);
        if (cache_check(&place, 0, position) != 1)
            continue;
        keys = position >= keys ? (int64_t)position + 1 : keys;
        permute_queries(b, t);
    }
    for (int64_t begin = 0; begin < keys; begin += CHUNK) {
        take_chunk(b, &place, begin, keys, values);
        for (int64_t t = 0; t < b->tokens; t++) {
            int32_t position = index_at(&o->positions, b->first + t);
            if (position >= begin && cache_check(&place, 0, position) == 1)
                attend_all(b, values, begin, t, position);
        }
    }
}

/* The same of some segments, each of the tokens that have all its pages. */
static void attend_block_parts(const struct block *b)
{
    const mh_op_attention *o = b->op;
    struct cache_place place = {&o->cache, &o->page_table, index_at(&o->slots, b->first)};
    const float *values[CHUNK];
    for (int64_t t = 0; t < b->tokens; t++)
        permute_queries(b, t);
    for (int64_t j = 0; j < b->part->y.shape[2]; j++) {
        int64_t first = (b->part->first + j * b->part->stride) * SEGMENT, keys = 0;
        bool has[ATTENTION_TOKENS] = {false};
        for (int64_t t = 0; t < b->tokens; t++) {
            int32_t position = index_at(&o->positions, b->first + t);
            has[t] = position >= first && cache_check_segment(&place, first, position) == 1;
            keys = has[t] && position >= keys ? (int64_t)position + 1 : keys;
        }
        keys = keys < first + SEGMENT ? keys : first + SEGMENT;
        for (int64_t begin = first; begin < keys; begin += CHUNK) {
            take_chunk(b, &place, begin, keys, values);
            for (int64_t t = 0; t < b->tokens; t++) {
                int32_t position = index_at(&o->positions, b->first + t);
                if (has[t] && position >= begin)
                    attend_part(b, values, begin, t, position, j);
            }
        }
    }
}

/* ---- the op ---- */

struct job {
    const struct host_run *run;
    const mh_op_attention *op;
    const mh_op_attention_part *part; /* or NULL */
    int64_t heads, head_groups;       /* of an item */
};

/* How many rows from t on are one block: of one sequence, up to a border of ATTENTION_TOKENS; 0 if
 * an earlier row's block has t. */
static int64_t block_at(const mh_op_attention *o, int64_t t)
{
    int32_t slot = index_at(&o->slots, t);
    if (t % ATTENTION_TOKENS && index_at(&o->slots, t - 1) == slot)
        return 0;
    int64_t tokens = 1;
    while ((t + tokens) % ATTENTION_TOKENS && t + tokens < o->y.shape[0] &&
           index_at(&o->slots, t + tokens) == slot)
        tokens++;
    return tokens;
}

static void attend_items(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = context;
    const mh_op_attention *o = job->op;
    for (int64_t i = begin; i < end; i++) {
        struct block b = {.op = o, .part = job->part};
        b.first = i / job->head_groups, b.heads = job->heads;
        b.head = i % job->head_groups * job->heads;
        b.tokens = block_at(o, b.first);
        if (b.heads > o->y.shape[1] - b.head)
            b.heads = o->y.shape[1] - b.head;
        b.latent = o->y.shape[2], b.width = o->q.shape[2];
        if (!b.tokens)
            continue;
        lay_out(&b, thread_scratch(job->run, thread));
        if (b.part)
            attend_block_parts(&b);
        else
            attend_block(&b);
    }
}

static void run_op(const struct host_run *run, const mh_op_attention *o,
                   const mh_op_attention_part *part)
{
    struct job job = {run, o, part, attention_heads(o->y.shape[1]), 0};
    int64_t rows = o->y.shape[0], heads = o->y.shape[1];
    /* Few tokens: fewer heads an item, that all threads have some. */
    int64_t blocks = (rows + ATTENTION_TOKENS - 1) / ATTENTION_TOKENS;
    while (job.heads > 4 && blocks * (heads / job.heads) < pool_threads(run->pool))
        job.heads /= 2;
    job.head_groups = (heads + job.heads - 1) / job.heads;
    spread(run, rows * job.head_groups, 64 * o->q.shape[2] * job.heads, attend_items, &job);
}

void K(attention)(const struct host_run *run, const mh_op *op)
{
    const mh_op_attention *o = (const void *)op;
    for (int64_t t = 0; t < o->y.shape[0]; t++) {
        struct cache_place place = {&o->cache, &o->page_table, index_at(&o->slots, t)};
        if (!cache_check(&place, 0, index_at(&o->positions, t)))
            raise_fault(&o->fault);
    }
    run_op(run, o, NULL);
}

void K(attention_part)(const struct host_run *run, const mh_op *op)
{
    const mh_op_attention_part *o = (const void *)op;
    mh_op_attention whole = part_whole_op(o);
    for (int64_t t = 0; t < o->y.shape[0]; t++) {
        struct cache_place place = {&o->cache, &o->page_table, index_at(&o->slots, t)};
        for (int64_t j = 0; j < o->y.shape[2]; j++)
            if (!cache_check_segment(&place, (o->first + j * o->stride) * SEGMENT,
                                     index_at(&o->positions, t)))
                raise_fault(&o->fault);
    }
    run_op(run, &whole, o);
}
