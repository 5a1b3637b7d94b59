/* core_weights.c: weights written whole, by pieces and ranges, and read back bit for bit. */
#include <stdlib.h>
#include <string.h>

#include "core.h"

/* A weight's planes in host memory, dense. */
struct image {
    mh_format format;
    int64_t experts, out, in;
    uint32_t planes;
    mh_plane plane[MH_MAX_PLANES];
    uint8_t *data[MH_MAX_PLANES];
    int64_t row[MH_MAX_PLANES], expert[MH_MAX_PLANES]; /* bytes */
};

static void free_image(void *user)
{
    struct image *m = user;
    for (uint32_t p = 0; p < m->planes; p++)
        free(m->data[p]);
    free(m);
}

static struct image *make_image(struct core *c, mh_format format, int64_t experts, int64_t out,
                                int64_t in)
{
    struct image *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    *m = (struct image){.format = format, .experts = experts, .out = out, .in = in};
    core_keep(c, free_image, m);
    m->planes = mh_format_planes(format, m->plane);
    for (uint32_t p = 0; p < m->planes; p++) {
        const mh_plane *plane = &m->plane[p];
        int64_t rows = (out + plane->rows - 1) / plane->rows;
        m->row[p] = (in + plane->cols - 1) / plane->cols * plane->bytes;
        m->expert[p] = rows * m->row[p];
        m->data[p] = malloc((size_t)(experts * m->expert[p]));
        for (int64_t i = 0; m->data[p] && i < experts * m->expert[p]; i++)
            m->data[p][i] = (uint8_t)conf_draw(&c->random);
    }
    return m;
}

static void release_weight(void *weight)
{
    mh_weight_release(weight);
}

static mh_weight *make_weight(struct core *c, const struct image *m)
{
    mh_weight *weight = NULL;
    mh_weight_params params = MH_INIT(mh_weight_params);
    params.format = m->format, params.label = "conformance";
    params.experts = m->experts, params.out = m->out, params.in = m->in;
    if (mh_weight_create(c->device, &params, &weight))
        core_fail(c, "mh_weight_create: %s", mh_last_message());
    else
        core_keep(c, release_weight, weight);
    return weight;
}

/* The piece of an image: experts and rows from .. */
static mh_weight_piece piece_of(const struct image *m, int64_t expert, int64_t experts, int64_t row,
                                int64_t rows)
{
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_begin = expert, piece.expert_count = experts;
    piece.row_begin = row, piece.row_count = rows;
    for (uint32_t p = 0; p < m->planes; p++) {
        piece.plane[p] = m->data[p] + expert * m->expert[p] + row / m->plane[p].rows * m->row[p];
        piece.expert_stride[p] = m->expert[p];
        piece.row_stride[p] = m->row[p];
    }
    return piece;
}

static bool reads_back(struct core *c, mh_weight *weight, const struct image *m)
{
    struct image *got = make_image(c, m->format, m->experts, m->out, m->in);
    CHECK(got, "no host memory");
    mh_weight_piece all = piece_of(got, 0, m->experts, 0, m->out);
    TRY(mh_weight_read(weight, &all));
    for (uint32_t p = 0; p < m->planes; p++)
        CHECK(!memcmp(got->data[p], m->data[p], (size_t)(m->experts * m->expert[p])),
              "%s [%lld, %lld, %lld]: plane %u reads back otherwise", mh_format_name(m->format),
              (long long)m->experts, (long long)m->out, (long long)m->in, p);
    return true;
}

static const int64_t shapes[][3] = {{1, 1, 1},     {1, 7, 5},     {3, 130, 129},
                                    {2, 256, 128}, {5, 300, 257}, {1, 1025, 64}};

static bool whole(struct core *c)
{
    for (mh_format format = MH_FORMAT_F32; format <= MH_FORMAT_FP8; format++)
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
            struct image *m = make_image(c, format, shapes[s][0], shapes[s][1], shapes[s][2]);
            mh_weight *weight = m ? make_weight(c, m) : NULL;
            if (!weight)
                return false;
            mh_weight_piece piece = piece_of(m, 0, m->experts, 0, m->out);
            piece.flags = s % 2 ? MH_PIECE_STAYS : 0;
            TRY(mh_weight_write(weight, &piece));
            TRY(mh_weight_seal(weight));
            if (!reads_back(c, weight, m))
                return false;
            core_release_from(c, 0);
        }
    return true;
}

/* Experts one at a time, rows by block, in a shuffled order. */
static bool pieces(struct core *c)
{
    for (mh_format format = MH_FORMAT_F32; format <= MH_FORMAT_FP8; format++) {
        struct image *m = make_image(c, format, 3, 700, 190);
        mh_weight *weight = m ? make_weight(c, m) : NULL;
        if (!weight)
            return false;
        int64_t step = format == MH_FORMAT_FP8 ? 128 : 100, blocks = (700 + step - 1) / step;
        uint32_t start = conf_below(&c->random, 30);
        for (uint32_t i = 0; i < 3 * blocks; i++) {
            /* 11 divides no number of pieces here: every piece once, out of order. */
            uint32_t at = (start + 11 * i) % (uint32_t)(3 * blocks);
            int64_t row = at / 3 * step, rows = 700 - row < step ? 700 - row : step;
            mh_weight_piece piece = piece_of(m, at % 3, 1, row, rows);
            if (i + 1 == 3 * blocks)
                REFUSES(MH_WRONG_STATE, mh_weight_seal(weight));
            TRY(mh_weight_write(weight, &piece));
        }
        TRY(mh_weight_seal(weight));
        REFUSES(MH_WRONG_STATE, mh_weight_seal(weight));
        if (!reads_back(c, weight, m))
            return false;
        core_release_from(c, 0);
    }
    return true;
}

static bool ranges_read(struct core *c)
{
    for (mh_format format = MH_FORMAT_F32; format <= MH_FORMAT_FP8; format++) {
        struct image *m = make_image(c, format, 4, 400, 150);
        struct image *got = make_image(c, format, 4, 400, 150);
        mh_weight *weight = m && got ? make_weight(c, m) : NULL;
        if (!weight)
            return false;
        mh_weight_piece piece = piece_of(m, 0, 4, 0, 400);
        TRY(mh_weight_write(weight, &piece));
        TRY(mh_weight_seal(weight));
        piece = piece_of(got, 1, 2, 128, 256);
        TRY(mh_weight_read(weight, &piece));
        for (int64_t e = 1; e < 3; e++)
            for (uint32_t p = 0; p < m->planes; p++) {
                int64_t at = e * m->expert[p] + 128 / m->plane[p].rows * m->row[p];
                int64_t bytes = 256 / m->plane[p].rows * m->row[p];
                CHECK(!memcmp(got->data[p] + at, m->data[p] + at, (size_t)bytes),
                      "%s: rows 128 to 383 of expert %lld read back otherwise",
                      mh_format_name(format), (long long)e);
            }
        core_release_from(c, 0);
    }
    return true;
}

/* Pieces whose rows lie apart, at odd addresses. */
static bool strides(struct core *c)
{
    for (mh_format format = MH_FORMAT_F32; format <= MH_FORMAT_FP8; format++) {
        struct image *m = make_image(c, format, 2, 129, 131),
                     *wide = make_image(c, format, 2, 129, 531);
        mh_weight *weight = m && wide ? make_weight(c, m) : NULL;
        if (!weight)
            return false;
        mh_weight_piece piece = piece_of(m, 0, 2, 0, 129);
        for (uint32_t p = 0; p < m->planes; p++) {
            int64_t rows = m->expert[p] / m->row[p];
            for (int64_t r = 0; r < 2 * rows; r++)
                memcpy(wide->data[p] + 1 + r * wide->row[p], m->data[p] + r * m->row[p],
                       (size_t)m->row[p]);
            piece.plane[p] = wide->data[p] + 1;
            piece.row_stride[p] = wide->row[p];
            piece.expert_stride[p] = wide->expert[p];
        }
        TRY(mh_weight_write(weight, &piece));
        memset(wide->data[0], 0, (size_t)wide->expert[0]); /* the memory is ours again */
        /* The same from memory that stays: rows that lie apart are no matrix to use in place. */
        mh_weight *stays = make_weight(c, m);
        if (!stays)
            return false;
        for (uint32_t p = 0; p < m->planes; p++)
            for (int64_t r = 0; r < 2 * (m->expert[p] / m->row[p]); r++)
                memcpy(wide->data[p] + 1 + r * wide->row[p], m->data[p] + r * m->row[p],
                       (size_t)m->row[p]);
        piece.flags = MH_PIECE_STAYS;
        TRY(mh_weight_write(stays, &piece));
        TRY(mh_weight_seal(stays));
        if (!reads_back(c, stays, m))
            return false;
        TRY(mh_weight_seal(weight));
        if (!reads_back(c, weight, m))
            return false;
        core_release_from(c, 0);
    }
    return true;
}

static bool accounting(struct core *c)
{
    mh_device *device = c->device;
    mh_memory_info before = MH_INIT(mh_memory_info), during = before, after = before;
    struct image *m = make_image(c, MH_FORMAT_FP8, 2, 300, 300);
    CHECK(m, "no host memory");
    TRY(mh_device_memory(device, &before));
    mh_weight *weight = make_weight(c, m);
    if (!weight)
        return false;
    mh_weight_piece piece = piece_of(m, 0, 2, 0, 300);
    TRY(mh_weight_write(weight, &piece));
    TRY(mh_weight_seal(weight));
    mh_weight_info info = MH_INIT(mh_weight_info);
    TRY(mh_weight_get_info(weight, &info));
    TRY(mh_device_memory(device, &during));
    CHECK(during.used - before.used == info.device_bytes, "used grew by %llu, the weight has %llu",
          (unsigned long long)(during.used - before.used), (unsigned long long)info.device_bytes);
    CHECK(info.device_bytes >= 2 * mh_format_bytes(MH_FORMAT_FP8, 300, 300),
          "%llu bytes are less than the values take", (unsigned long long)info.device_bytes);
    core_release_from(c, 0);
    TRY(mh_device_memory(device, &after));
    CHECK(after.used == before.used, "used is %llu after the release, was %llu",
          (unsigned long long)after.used, (unsigned long long)before.used);
    return true;
}

const struct core_case core_weights[] = {
    {"weights/whole", whole},           {"weights/pieces", pieces},
    {"weights/ranges", ranges_read},    {"weights/strides", strides},
    {"weights/accounting", accounting}, {0},
};
