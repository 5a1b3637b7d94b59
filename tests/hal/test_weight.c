/* Weights: pieces, ranges, in place or copied, read back. */
#include "world.h"

static mh_weight *make(mh_device *device, mh_format format, int64_t experts, int64_t out,
                       int64_t in)
{
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = format, p.experts = experts, p.out = out, p.in = in, p.label = "w";
    mh_weight *weight;
    OK(mh_weight_create(device, &p, &weight));
    return weight;
}

static mh_weight_piece piece(int64_t expert, int64_t experts, int64_t row, int64_t rows)
{
    mh_weight_piece p = MH_INIT(mh_weight_piece);
    p.expert_begin = expert, p.expert_count = experts, p.row_begin = row, p.row_count = rows;
    return p;
}

/* FP8, 2 experts of 300 x 200: blocks ragged both ways (3 x 2 scales). */
enum { E = 2, OUT = 300, IN = 200, SR = 3, SC = 2 };
static uint8_t data[E][OUT][IN];
static float scale[E][SR][SC];

static void fill_bank(void)
{
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof(data); i++)
        ((uint8_t *)data)[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
    for (int i = 0; i < E * SR * SC; i++)
        ((float *)scale)[i] = (float)(i + 1) / 7;
}

static void check_bank(mh_weight *weight)
{
    static uint8_t got[E][OUT][IN];
    static float got_scale[E][SR][SC];
    memset(got, 0, sizeof(got));
    mh_weight_piece p = piece(0, E, 0, OUT);
    p.plane[0] = got, p.plane[1] = got_scale;
    OK(mh_weight_read(weight, &p));
    assert_memory_equal(got, data, sizeof(data));
    assert_memory_equal(got_scale, scale, sizeof(scale));
    /* A range: rows 128.. of expert 1, into strided memory. */
    static uint8_t rows[OUT - 128][IN + 5];
    mh_weight_piece part = piece(1, 1, 128, OUT - 128);
    part.plane[0] = rows, part.row_stride[0] = IN + 5, part.plane[1] = got_scale;
    OK(mh_weight_read(weight, &part));
    for (int r = 0; r < OUT - 128; r++)
        assert_memory_equal(rows[r], data[1][128 + r], IN);
    assert_memory_equal(got_scale, scale[1][1], sizeof(scale[1][1]) * 2);
}

static void whole_and_by_range(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_device *devices[] = {w->host, w->probe};
    fill_bank();
    for (int d = 0; d < 2; d++) {
        mh_weight *weight = make(devices[d], MH_FORMAT_FP8, E, OUT, IN);
        mh_weight_piece p = piece(0, E, 0, OUT);
        p.plane[0] = data, p.plane[1] = scale;
        OK(mh_weight_write(weight, &p));
        OK(mh_weight_seal(weight));
        check_bank(weight);
        REFUSED(MH_WRONG_STATE, mh_weight_write(weight, &p), "sealed already");
        mh_weight_release(weight);

        weight = make(devices[d], MH_FORMAT_FP8, E, OUT, IN);
        for (int e = E - 1; e >= 0; e--)
            for (int row = 0; row < OUT; row += 128) {
                p = piece(e, 1, row, row + 128 < OUT ? 128 : OUT - row);
                p.plane[0] = data[e][row], p.plane[1] = scale[e][row / 128];
                assert_int_equal(mh_weight_seal(weight), MH_WRONG_STATE);
                OK(mh_weight_write(weight, &p));
            }
        OK(mh_weight_seal(weight));
        check_bank(weight);
        mh_weight_release(weight);
    }
    world_free(w);
}

static void in_place_where_the_device_can(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    fill_bank();
    mh_weight *weight = make(w->host, MH_FORMAT_FP8, E, OUT, IN);
    mh_weight_info info = MH_INIT(mh_weight_info);
    static uint8_t odd[OUT * IN + 1]; /* files align nothing */
    memcpy(odd + 1, data[1], sizeof(data[1]));
    mh_weight_piece p = piece(0, 1, 0, OUT);
    p.flags = MH_PIECE_STAYS, p.plane[0] = data[0], p.plane[1] = scale[0];
    OK(mh_weight_write(weight, &p));
    p = piece(1, 1, 0, OUT);
    p.flags = MH_PIECE_STAYS, p.plane[0] = odd + 1, p.plane[1] = scale[1];
    OK(mh_weight_write(weight, &p));
    OK(mh_weight_get_info(weight, &info));
    assert_int_equal(info.in_place, 2);
    assert_int_equal(info.device_bytes, 0);
    /* Writing a part of an expert in place takes a copy; the caller's memory is not touched. */
    static uint8_t before[OUT][IN];
    static const uint8_t zeros[128][IN];
    memcpy(before, data[0], sizeof(before));
    p = piece(0, 1, 0, 128);
    p.plane[0] = zeros, p.plane[1] = scale[0][0];
    OK(mh_weight_write(weight, &p));
    assert_memory_equal(before, data[0], sizeof(before));
    p.plane[0] = before; /* and back */
    OK(mh_weight_write(weight, &p));
    OK(mh_weight_seal(weight));
    OK(mh_weight_get_info(weight, &info));
    assert_int_equal(info.in_place, 1);
    check_bank(weight);
    mh_weight_release(weight);
    /* The first rows of an expert alone are copied, too. */
    weight = make(w->host, MH_FORMAT_FP8, E, OUT, IN);
    p.flags = MH_PIECE_STAYS;
    OK(mh_weight_write(weight, &p));
    OK(mh_weight_get_info(weight, &info));
    assert_int_equal(info.in_place, 0);
    assert_int_equal(mh_view_weight(weight)->offset[0], 0);
    assert_int_equal(mh_view_weight(weight)->offset[1], (E * OUT * IN + 255) / 256 * 256);
    mh_weight_release(weight);
    world_free(w);
}

static void bad_pieces_are_named(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_weight_params p = MH_INIT(mh_weight_params);
    mh_weight *weight;
    p.format = 99, p.experts = 1, p.out = 1, p.in = 1;
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_create(w->host, &p, &weight), "format 99");
    p.format = MH_FORMAT_F32, p.out = 0;
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_create(w->host, &p, &weight), "out is 0");
    p.out = INT32_MAX, p.in = INT32_MAX, p.experts = INT32_MAX;
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_create(w->host, &p, &weight), "2^62");

    weight = make(w->probe, MH_FORMAT_FP8, E, OUT, IN);
    mh_weight_piece q = piece(0, 1, 100, 28);
    q.plane[0] = data, q.plane[1] = scale;
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_write(weight, &q), "row_begin is 100");
    q = piece(0, 1, 0, 100);
    q.plane[0] = data, q.plane[1] = scale;
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_write(weight, &q), "row_count is 100");
    q = piece(1, 2, 0, OUT);
    q.plane[0] = data, q.plane[1] = scale;
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_write(weight, &q), "expert_begin");
    q = piece(0, 1, 0, INT64_MAX);
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_write(weight, &q), "row_begin + row_count");
    q = piece(0, 1, 0, OUT);
    q.plane[0] = data;
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_write(weight, &q), "plane is 1");
    q.plane[1] = scale, q.row_stride[0] = IN - 1;
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_write(weight, &q), "row_stride");
    q.row_stride[0] = 0;
    OK(mh_weight_write(weight, &q));
    REFUSED(MH_WRONG_STATE, mh_weight_seal(weight), "row 0 of expert 1");
    mh_weight_release(weight);
    world_free(w);
}

static void experts_are_replaced_after_the_seal(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_weight *weight = make(w->probe, MH_FORMAT_FP8, E, OUT, IN);
    mh_weight_piece all = piece(0, E, 0, OUT), q = piece(0, 1, 0, OUT);
    static uint8_t swapped[E][OUT][IN];
    static float swapped_scale[E][SR][SC];
    fill_bank();
    for (int e = 0; e < E; e++) {
        memcpy(swapped[e], data[E - 1 - e], sizeof(data[0]));
        memcpy(swapped_scale[e], scale[E - 1 - e], sizeof(scale[0]));
    }
    all.plane[0] = swapped, all.plane[1] = swapped_scale;
    q.plane[0] = data[0], q.plane[1] = scale[0];
    REFUSED(MH_WRONG_STATE, mh_weight_replace(weight, &q), "not sealed");
    OK(mh_weight_write(weight, &all));
    OK(mh_weight_seal(weight));
    for (int e = 0; e < E; e++) {
        q = piece(e, 1, 0, OUT);
        q.plane[0] = data[e], q.plane[1] = scale[e];
        OK(mh_weight_replace(weight, &q));
    }
    check_bank(weight);
    q = piece(0, 1, 0, 128);
    q.plane[0] = data[0], q.plane[1] = scale[0];
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_replace(weight, &q), "not all rows");
    q = piece(E, 1, 0, OUT);
    q.plane[0] = data[0], q.plane[1] = scale[0];
    REFUSED(MH_INVALID_ARGUMENT, mh_weight_replace(weight, &q), "expert_begin");
    check_bank(weight);
    mh_weight_release(weight);
    weight = make(w->host, MH_FORMAT_FP8, E, OUT, IN);
    OK(mh_weight_write(weight, &all));
    OK(mh_weight_seal(weight));
    q = piece(0, 1, 0, OUT);
    q.plane[0] = data[0], q.plane[1] = scale[0];
    REFUSED(MH_UNSUPPORTED, mh_weight_replace(weight, &q), "host memory");
    mh_weight_release(weight);
    world_free(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_and_by_range),
        cmocka_unit_test(in_place_where_the_device_can),
        cmocka_unit_test(bad_pieces_are_named),
        cmocka_unit_test(experts_are_replaced_after_the_seal),
    };
    return WORLD_MAIN(tests);
}
