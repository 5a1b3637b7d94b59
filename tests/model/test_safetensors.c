/*
 * Single safetensors files: what is written is read back, and a table of broken headers, each
 * refused with a message that names file, tensor and reason. Then damage at every place.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moehal-model/checkpoint.h>

#include "support.h"

static char *dir;

static int make_dir(void **state)
{
    (void)state;
    dir = test_make_dir();
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    test_remove_dir(dir);
    return 0;
}

static const char *file_path(void)
{
    return test_path(dir, "t.safetensors");
}

/* ---- reading ---- */

static void every_dtype_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t dtype;
        uint64_t bytes;
    } dtypes[] = {
        {"F32", MH_ST_F32, 4},         {"F16", MH_ST_F16, 2},         {"BF16", MH_ST_BF16, 2},
        {"F8_E4M3", MH_ST_F8_E4M3, 1}, {"F8_E5M2", MH_ST_F8_E5M2, 1}, {"F64", MH_ST_F64, 8},
        {"I64", MH_ST_I64, 8},         {"I32", MH_ST_I32, 4},         {"I16", MH_ST_I16, 2},
        {"I8", MH_ST_I8, 1},           {"U64", MH_ST_U64, 8},         {"U32", MH_ST_U32, 4},
        {"U16", MH_ST_U16, 2},         {"U8", MH_ST_U8, 1},           {"BOOL", MH_ST_BOOL, 1},
    };
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        char header[256];
        mh_checkpoint *cp;
        mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
        snprintf(header, sizeof(header),
                 "{\"a\":{\"dtype\":\"%s\",\"shape\":[3,5],\"data_offsets\":[0,%" PRIu64 "]}}",
                 dtypes[i].name, 15 * dtypes[i].bytes);
        test_write_safetensors(file_path(), header, 15 * dtypes[i].bytes);
        OK(mh_checkpoint_open_file(file_path(), &cp));
        OK(mh_checkpoint_find(cp, "a", &t));
        assert_int_equal(t.dtype, dtypes[i].dtype);
        assert_int_equal(t.bytes, 15 * dtypes[i].bytes);
        assert_int_equal(mh_safetensors_dtype_size(t.dtype), dtypes[i].bytes);
        assert_string_equal(mh_safetensors_dtype_name(t.dtype), dtypes[i].name);
        mh_checkpoint_release(cp);
    }
    assert_string_equal(mh_safetensors_dtype_name(0), "?");
    assert_int_equal(mh_safetensors_dtype_size(99), 0);
}

/* Order in the header, order of the data and order of names are three things; scalars and empty
 * tensors take part; metadata is passed over; the data begins at an odd place. */
static void order_scalars_and_metadata(void **state)
{
    (void)state;
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"c\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[8,12]},"
        "\"empty\":{\"dtype\":\"F32\",\"shape\":[2,0,3],\"data_offsets\":[8,8]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2,1,1],\"data_offsets\":[0,4]}} ";
    static const struct {
        const char *name;
        uint32_t rank;
        uint64_t begin, bytes;
    } want[] = {{"a", 0, 8, 4}, {"b", 4, 0, 4}, {"c", 1, 4, 4}, {"empty", 3, 8, 0}};
    uint64_t data = 8 + strlen(header);
    assert_int_equal(data % 2, 1);
    test_write_safetensors(file_path(), header, 12);
    uint64_t bytes;
    unsigned char *file = test_read(file_path(), &bytes);
    for (uint64_t i = 0; i < 12; i++)
        file[data + i] = (unsigned char)(100 + i);
    test_write(file_path(), file, bytes);
    free(file);
    mh_checkpoint *cp;
    OK(mh_checkpoint_open_file(file_path(), &cp));
    assert_null(mh_checkpoint_config(cp));
    assert_int_equal(mh_checkpoint_count(cp), 4);
    for (uint64_t i = 0; i < 4; i++) {
        mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
        OK(mh_checkpoint_at(cp, i, &t));
        assert_string_equal(t.name, want[i].name);
        assert_int_equal(t.rank, want[i].rank);
        assert_int_equal(t.bytes, want[i].bytes);
        assert_int_equal(t.offset, data + want[i].begin);
        assert_non_null(strstr(t.file, "t.safetensors"));
        if (t.bytes)
            assert_int_equal(*(const unsigned char *)t.data, 100 + want[i].begin);
    }
    mh_checkpoint_release(cp);
}

static void a_file_without_tensors(void **state)
{
    (void)state;
    mh_checkpoint *cp;
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    test_write_safetensors(file_path(), "{}", 0);
    OK(mh_checkpoint_open_file(file_path(), &cp));
    assert_int_equal(mh_checkpoint_count(cp), 0);
    test_failed("find", mh_checkpoint_find(cp, "a", &t), MH_NOT_FOUND, "t.safetensors|'a'");
    mh_checkpoint_release(cp);
}

/* ---- refusals ---- */

#define T(name, dtype, shape, offsets)                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const struct bad_header {
    const char *header;
    uint64_t data;
    const char *words;
} bad_headers[] = {
    {"", 0, "not valid JSON"},
    {"[1]", 0, "not an object"},
    {"{\"w\":", 0, "not valid JSON"},
    {"{" T("w", "F32", "[2]", "[0,8]") "} 1", 8, "not valid JSON"},
    {"{" T("w", "F32", "[2]", "[0,8]") "," T("w", "F32", "[2]", "[8,16]") "}", 16, "duplicate"},
    {"{\"w\":7}", 0, "'w'|not an object"},
    {"{" T("w", "F31", "[2]", "[0,8]") "}", 8, "'w'|dtype|F31"},
    {"{" T("w", "f32", "[2]", "[0,8]") "}", 8, "'w'|dtype|f32"},
    {"{\"w\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "'w'|dtype|none"},
    {"{\"w\":{\"dtype\":3,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "'w'|dtype|none"},
    {"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "'w'|shape"},
    {"{" T("w", "F32", "2", "[0,8]") "}", 8, "'w'|shape"},
    {"{" T("w", "F32", "[-2]", "[0,8]") "}", 8, "'w'|shape|at least 0"},
    {"{" T("w", "F32", "[2.0]", "[0,8]") "}", 8, "'w'|shape|integer"},
    {"{" T("w", "F32", "[\"2\"]", "[0,8]") "}", 8, "'w'|shape|integer"},
    {"{" T("w", "F32", "[1,1,1,1,2]", "[0,8]") "}", 8, "'w'|shape|at most 4"},
    {"{" T("w", "F32", "[4611686018427387904,4]", "[0,0]") "}", 0, "'w'|2^64"},
    {"{" T("w", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, "'w'|2^64"},
    {"{" T("w", "F32", "[99999999999999999999]", "[0,8]") "}", 8, "not valid JSON|integer"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "'w'|data_offsets"},
    {"{" T("w", "F32", "[2]", "[8]") "}", 8, "'w'|data_offsets|two"},
    {"{" T("w", "F32", "[2]", "[0,4,8]") "}", 8, "'w'|data_offsets|two"},
    {"{" T("w", "F32", "[2]", "[0,\"8\"]") "}", 8, "'w'|data_offsets"},
    {"{" T("w", "F32", "[2]", "[-8,0]") "}", 8, "'w'|data_offsets"},
    {"{" T("w", "F32", "[2]", "[8,0]") "}", 8, "'w'|data_offsets|rising"},
    {"{" T("w", "F32", "[2]", "[0,8]") "}", 7, "'w'|data_offsets|8|7"},
    {"{" T("w", "F32", "[2]", "[9223372036854775799,9223372036854775807]") "}", 8,
     "'w'|data_offsets|9223372036854775807|8"},
    {"{" T("w", "F32", "[3]", "[0,8]") "}", 8, "'w'|want 12|hold 8"},
    {"{" T("w", "BF16", "[2]", "[0,8]") "}", 8, "'w'|want 4|hold 8"},
    {"{" T("v", "F32", "[2]", "[0,8]") "," T("w", "F32", "[2]", "[4,12]") "}", 12, "'w'|overlap"},
    {"{" T("v", "F32", "[2]", "[0,8]") "," T("w", "F32", "[2]", "[0,8]") "}", 8, "overlap"},
    {"{" T("v", "F32", "[2]", "[0,8]") "," T("w", "F32", "[2]", "[12,20]") "}", 20, "'w'|hole"},
    {"{" T("w", "F32", "[2]", "[4,12]") "}", 12, "'w'|hole"},
    {"{" T("w", "F32", "[2]", "[0,8]") "}", 9, "1 bytes follow"},
    {"{}", 3, "3 bytes follow"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "duplicate"},
};

static void broken_headers_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_headers) / sizeof(bad_headers[0]); i++) {
        const struct bad_header *b = &bad_headers[i];
        mh_checkpoint *cp = (mh_checkpoint *)(uintptr_t)1;
        test_write_safetensors(file_path(), b->header, b->data);
        mh_status status = mh_checkpoint_open_file(file_path(), &cp);
        test_failed(b->header, status, MH_BAD_DATA, "t.safetensors");
        test_failed(b->header, status, MH_BAD_DATA, b->words);
        assert_null(cp);
    }
}

static void header_lengths(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        const char *words;
    } cases[] = {
        {(uint64_t)1 << 60, "header length|1152921504606846976|100000000"},
        {UINT64_MAX, "header length|18446744073709551615"},
        {UINT64_MAX - 7, "header length|18446744073709551608"}, /* + 8 wraps to 0 */
        {100000001, "header length|100000001"},
        {17, "header length|17|24"}, /* of 16 bytes after the length */
    };
    unsigned char file[24] = "........{}              ";
    mh_checkpoint *cp;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int b = 0; b < 8; b++)
            file[b] = (unsigned char)(cases[i].length >> 8 * b);
        test_write(file_path(), file, sizeof(file));
        test_failed(cases[i].words, mh_checkpoint_open_file(file_path(), &cp), MH_BAD_DATA,
                    cases[i].words);
    }
    /* A file may be long enough for it, and its header is still not read. */
    for (int b = 0; b < 8; b++)
        file[b] = (unsigned char)(UINT64_C(100000001) >> 8 * b);
    test_write(file_path(), file, sizeof(file));
    if (!truncate(file_path(), 200000000))
        test_failed("limit", mh_checkpoint_open_file(file_path(), &cp), MH_BAD_DATA,
                    "header length|100000001|200000000|100000000");
    memset(file, 0, 8);
    file[0] = 16;
    test_write(file_path(), file, sizeof(file));
    OK(mh_checkpoint_open_file(file_path(), &cp)); /* the same file with its true length */
    mh_checkpoint_release(cp);
}

static void files_that_are_none(void **state)
{
    (void)state;
    mh_checkpoint *cp = (mh_checkpoint *)(uintptr_t)1;
    test_failed("missing", mh_checkpoint_open_file(test_path(dir, "none"), &cp), MH_NOT_FOUND,
                "/none");
    assert_null(cp);
    test_failed("folder", mh_checkpoint_open_file(dir, &cp), MH_IO_ERROR, "not a file");
    test_failed("NULL", mh_checkpoint_open_file(NULL, &cp), MH_INVALID_ARGUMENT, "path");
    test_failed("NULL", mh_checkpoint_open_file(dir, NULL), MH_INVALID_ARGUMENT, "out");
}

/* Every prefix of a good file is refused; no byte behind its end is read (a sanitizer sees it). */
static void truncated_anywhere(void **state)
{
    (void)state;
    mh_checkpoint *cp;
    uint64_t bytes;
    test_write_safetensors(
        file_path(), "{" T("v", "F32", "[2,2]", "[0,16]") "," T("w", "U8", "[3]", "[16,19]") "}",
        19);
    char *file = test_read(file_path(), &bytes);
    OK(mh_checkpoint_open_file(file_path(), &cp));
    mh_checkpoint_release(cp);
    for (uint64_t i = 0; i < bytes; i++) {
        char what[32];
        snprintf(what, sizeof(what), "%" PRIu64 " bytes", i);
        test_write(file_path(), file, i);
        test_failed(what, mh_checkpoint_open_file(file_path(), &cp), MH_BAD_DATA, "t.safetensors");
    }
    free(file);
}

/* Any flipped bit of the header is either refused, naming the file, or gives tensors that lie
 * inside the file and do not share a byte. */
static void flipped_bits(void **state)
{
    (void)state;
    static const char header[] =
        "{" T("v", "F32", "[2,2]", "[0,16]") "," T("w", "U8", "[3]", "[16,19]") "}";
    uint64_t bytes, refused = 0;
    test_write_safetensors(file_path(), header, 19);
    unsigned char *file = test_read(file_path(), &bytes);
    for (uint64_t bit = 0; bit < 8 * (bytes - 19); bit++) {
        mh_checkpoint *cp;
        file[bit / 8] ^= (unsigned char)(1 << bit % 8);
        test_write(file_path(), file, bytes);
        file[bit / 8] ^= (unsigned char)(1 << bit % 8);
        mh_status status = mh_checkpoint_open_file(file_path(), &cp);
        if (status) {
            test_failed("flipped bit", status, MH_BAD_DATA, "t.safetensors");
            refused++;
            continue;
        }
        uint64_t covered = 0;
        mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
        for (uint64_t i = 0; i < mh_checkpoint_count(cp); i++) {
            OK(mh_checkpoint_at(cp, i, &t));
            assert_true(t.offset >= 8 && t.offset <= bytes && t.bytes <= bytes - t.offset);
            covered += t.bytes;
        }
        assert_int_equal(covered, 19);
        mh_checkpoint_release(cp);
    }
    assert_true(refused > 4 * (bytes - 19)); /* names may change, and little else */
    free(file);
}

/* ---- writing ---- */

static const float floats[6] = {1, -2, 3.5f, 0, 1e-40f, 7};
static const uint8_t few[3] = {9, 8, 7};
static const int64_t one = -5;
static const mh_safetensors_entry entries[] = {
    {"z", MH_ST_F32, 2, {2, 3}, floats},
    {"a name with \"quotes\" and \xc3\xa9", MH_ST_U8, 1, {3}, few},
    {"scalar", MH_ST_I64, 0, {0}, &one},
    {"empty", MH_ST_F32, 2, {0, 3}, NULL},
};

static void assert_entries(const char *path)
{
    mh_checkpoint *cp;
    OK(mh_checkpoint_open_file(path, &cp));
    assert_int_equal(mh_checkpoint_count(cp), 4);
    for (size_t i = 0; i < 4; i++) {
        mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
        OK(mh_checkpoint_find(cp, entries[i].name, &t));
        assert_int_equal(t.dtype, entries[i].dtype);
        assert_int_equal(t.rank, entries[i].rank);
        assert_memory_equal(t.shape, entries[i].shape, sizeof(t.shape));
        if (t.bytes)
            assert_memory_equal(t.data, entries[i].data, t.bytes);
        if (i == 0)
            assert_int_equal(t.offset % 8, 0); /* the header is padded */
    }
    mh_checkpoint_release(cp);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    char *own = test_make_dir();
    const char *path = test_path(own, "whole");
    OK(mh_safetensors_write(path, entries, 4));
    assert_entries(path);
    OK(mh_safetensors_write(path, entries, 4)); /* in place of the former */
    assert_entries(path);
    assert_int_equal(test_count_files(own), 1); /* no temporary file is left */
    test_remove_dir(own);
}

static void written_in_pieces(void **state)
{
    (void)state;
    char *own = test_make_dir();
    mh_safetensors_writer *w;
    OK(mh_safetensors_begin(test_path(own, "whole"), entries, 4, &w));
    assert_false(test_exists(test_path(own, "whole"))); /* not before it is whole */
    for (int i = 0; i < 6; i++)
        OK(mh_safetensors_append(w, &floats[i], 4));
    OK(mh_safetensors_append(w, few, 1));
    OK(mh_safetensors_append(w, NULL, 0));
    OK(mh_safetensors_append(w, few + 1, 2));
    OK(mh_safetensors_append(w, &one, 8));
    test_failed("one more", mh_safetensors_append(w, few, 1), MH_WRONG_STATE, "whole|1 bytes more");
    OK(mh_safetensors_finish(w));
    assert_entries(test_path(own, "whole"));
    test_remove_dir(own);
}

/* A file that is given up, or ends early, leaves what was there. */
static void unfinished_files(void **state)
{
    (void)state;
    char *own = test_make_dir();
    const char *path = test_path(own, "whole");
    mh_safetensors_writer *w;
    OK(mh_safetensors_write(path, entries, 4));
    OK(mh_safetensors_begin(path, entries, 4, &w));
    OK(mh_safetensors_append(w, floats, 24));
    mh_safetensors_abandon(w);
    assert_int_equal(test_count_files(own), 1);
    OK(mh_safetensors_begin(path, entries, 4, &w));
    OK(mh_safetensors_append(w, floats, 24));
    test_failed("short", mh_safetensors_finish(w), MH_WRONG_STATE, "whole|24 of 35");
    assert_int_equal(test_count_files(own), 1);
    assert_entries(path);
    mh_safetensors_abandon(NULL);
    test_remove_dir(own);
}

static void entries_that_cannot_be_written(void **state)
{
    (void)state;
    char *own = test_make_dir();
    const mh_safetensors_entry good = entries[0];
    struct {
        const char *words;
        mh_safetensors_entry entry;
    } cases[] = {
        {"entry 1|'z'", good}, /* twice the same name */
        {"entry 1|''", {NULL, MH_ST_F32, 1, {1}, floats}},
        {"entry 1|'__metadata__'", {"__metadata__", MH_ST_F32, 1, {1}, floats}},
        {"entry 1|'x'", {"x", 99, 1, {1}, floats}},
        {"entry 1|'x'", {"x", MH_ST_F32, 5, {1}, floats}},
        {"entry 1|'x'", {"x", MH_ST_F32, 1, {-1}, floats}},
        {"entry 1|'x'", {"x", MH_ST_F32, 2, {(int64_t)1 << 61, 4}, floats}},
        {"entry 1|'x'", {"x", MH_ST_U8, 1, {INT64_MAX}, floats}},
        {"UTF-8", {"x\xff", MH_ST_F32, 1, {1}, floats}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mh_safetensors_entry both[] = {good, cases[i].entry};
        test_failed(cases[i].words, mh_safetensors_write(test_path(own, "x"), both, 2),
                    MH_INVALID_ARGUMENT, cases[i].words);
    }
    assert_int_equal(test_count_files(own), 0);
    test_failed("no folder", mh_safetensors_write(test_path(own, "no/x"), entries, 4), MH_IO_ERROR,
                "no/x");
    test_remove_dir(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dtype_is_read),
        cmocka_unit_test(order_scalars_and_metadata),
        cmocka_unit_test(a_file_without_tensors),
        cmocka_unit_test(broken_headers_are_named),
        cmocka_unit_test(header_lengths),
        cmocka_unit_test(files_that_are_none),
        cmocka_unit_test(truncated_anywhere),
        cmocka_unit_test(flipped_bits),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(written_in_pieces),
        cmocka_unit_test(unfinished_files),
        cmocka_unit_test(entries_that_cannot_be_written),
    };
    return cmocka_run_group_tests_name("safetensors", tests, make_dir, remove_dir);
}
