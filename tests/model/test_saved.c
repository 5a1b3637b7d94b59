/*
 * Saved sequences: restored, they go on with the bits of one that was never saved, in any session
 * of the model; a file that is damaged, cut or of another model is refused with its reason, and
 * changes nothing.
 *
 * argv: MODEL_DIR V2_LITE_DIR
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../model/crc64.h"
#include "texts.h"

static const char *model_dir, *lite_dir;
static char folder[] = "saved.XXXXXX", path[64], other_path[64];

static void the_checksum_is_the_standard_one(void **state)
{
    (void)state;
    struct crc64 crc;
    crc64_begin(&crc);
    crc64_add(&crc, "12345", 5); /* the check value of CRC-64/XZ, in two pieces */
    crc64_add(&crc, "6789", 4);
    assert_true(crc64_value(&crc) == UINT64_C(0x995DC9BBDF1939FA));
    char zeros[1000] = {0};
    crc64_begin(&crc);
    for (size_t i = 0; i < sizeof(zeros); i++) /* bytes and words agree */
        crc64_add(&crc, zeros + i, 1);
    uint64_t bytes = crc64_value(&crc);
    crc64_begin(&crc);
    crc64_add(&crc, zeros, sizeof(zeros));
    assert_true(bytes == crc64_value(&crc));
}

/* ---- files ---- */

static size_t read_file(const char *name, unsigned char **bytes)
{
    FILE *file = fopen(name, "rb");
    assert_non_null(file);
    *bytes = malloc(1 << 24);
    size_t length = fread(*bytes, 1, 1 << 24, file);
    fclose(file);
    return length;
}

static void write_file(const char *name, const unsigned char *bytes, size_t length)
{
    FILE *file = fopen(name, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static void fix_header(unsigned char *bytes)
{
    struct crc64 crc;
    crc64_begin(&crc);
    crc64_add(&crc, bytes, 120);
    for (int i = 0; i < 8; i++)
        bytes[120 + i] = (unsigned char)(crc64_value(&crc) >> 8 * i);
}

/* ---- saving and restoring ---- */

static void restored_sequences_go_on(void **state)
{
    (void)state;
    struct world w = open_world(model_dir, "host", 2);
    struct text a = make_text(3, 130), b = make_text(4, 20);
    write_alone(&w, &a);
    write_alone(&w, &b);
    mh_session *session = make_session(&w, 3, 64, 0);
    uint32_t fork;
    mh_sequence_rows r = MH_INIT(mh_sequence_rows);
    r.ids = a.prompt, r.count = 100;
    OK(mh_sequence_set_sampling(session, 0, &a.sampling));
    OK(mh_session_step(session, &r, 1));
    OK(mh_sequence_fork(session, 0, 100, &fork));
    r.sequence = fork, r.ids = a.prompt + 100, r.count = 30;
    OK(mh_session_step(session, &r, 1));
    OK(mh_sequence_save(session, fork, path)); /* of pages shared and its own */
    OK(mh_sequence_rewind(session, 0, 0));
    go_on(session, &b, 0, 0);
    OK(mh_sequence_restore(session, 0, path)); /* over another one */
    int32_t ids[130], next;
    OK(mh_sequence_tokens(session, 0, 0, 130, ids));
    assert_memory_equal(ids, a.prompt, sizeof(ids));
    OK(mh_sequence_next(session, 0, &next));
    assert_int_equal(next, a.want[0]);
    float *logits = malloc(VOCABULARY * sizeof(float));
    REFUSED(MH_WRONG_STATE, mh_sequence_logits(session, 0, logits), "no part");
    mh_session_release(session);
    close_world(&w);

    texts_isa = "avx2";
    w = open_world(model_dir, "host,host", 3); /* another process would look like this */
    texts_isa = NULL;
    session = make_session(&w, 2, 5, 0);
    OK(mh_sequence_restore(session, 0, path));
    for (int i = 0; i < WRITTEN; i++) { /* sampling came along */
        OK(mh_session_next(session, &next));
        assert_int_equal(next, a.want[i]);
        if (i)
            OK(mh_session_logits(session, logits));
        if (i)
            assert_memory_equal(logits, a.logits + i * VOCABULARY, VOCABULARY * sizeof(float));
        OK(mh_session_run(session, &next, 1, NULL));
    }
    OK(mh_session_rewind(session, 30));
    go_on(session, &a, 0, 30);
    OK(mh_session_rewind(session, 0)); /* nothing at all can be saved, too */
    OK(mh_sequence_save(session, 0, path));
    OK(mh_sequence_restore(session, 0, path));
    assert_int_equal(mh_session_position(session), 0);
    go_on(session, &b, 0, 0);
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_size, 128 + 8);
    mh_session_release(session);
    close_world(&w);
    free(logits);
    free(a.logits);
    free(b.logits);
}

/* ---- refusals ---- */

static void damage_is_found(void **state)
{
    (void)state;
    struct world w = open_world(model_dir, "host", 2);
    struct text a = make_text(5, 20), b = make_text(6, 30);
    write_alone(&w, &b);
    mh_session *session = make_session(&w, 1, 64, 0);
    unsigned char *good, *bad;
    OK(mh_session_run(session, a.prompt, 20, NULL));
    OK(mh_sequence_save(session, 0, path));
    size_t length = read_file(path, &good);
    bad = malloc(length + 1);
    OK(mh_session_rewind(session, 0));
    OK(mh_session_run(session, b.prompt, 29, NULL));
    for (size_t at = 0; at < length; at += at < 220 ? 1 : 9973) {
        memcpy(bad, good, length);
        bad[at] ^= 0x20;
        write_file(other_path, bad, length);
        REFUSED(MH_BAD_DATA, mh_sequence_restore(session, 0, other_path), other_path);
    }
    static const size_t lengths[] = {0, 1, 127, 128, 200, 5000};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        write_file(other_path, good, lengths[i]);
        REFUSED(MH_BAD_DATA, mh_sequence_restore(session, 0, other_path), " bytes");
    }
    memcpy(bad, good, length);
    bad[length] = 0;
    write_file(other_path, bad, length + 1);
    REFUSED(MH_BAD_DATA, mh_sequence_restore(session, 0, other_path), " bytes");

    /* Fields that lie, under a checksum that is right. */
    static const struct {
        int at;
        unsigned char value[8];
        int bytes;
        const char *said;
    } lies[] = {
        {8, {2}, 1, "version is 2"},
        {12, {64}, 1, "header bytes is 64"},
        {32, {9}, 1, "dtype is 9"},
        {40, {0, 0, 0, 0}, 4, "layers is 0"},
        {44, {0xff, 0xff, 0xff, 0xff}, 4, "values of a cache row is 4294967295"},
        {48, {0, 0, 0, 0}, 4, "vocabulary is 0"},
        {52, {2}, 1, "next is 2"},
        {56, {0, 0, 0, 0, 0, 0, 0, 0x80}, 8, "tokens is 9223372036854775808"},
        {56, {0xff, 0xff, 0xff, 0x7f}, 4, "its content takes"},
        {64, {0xff, 0xff, 0xff, 0xff}, 4, "next token is 4294967295"},
        {72, {0, 0, 0xc0, 0x7f}, 4, "temperature is nan"},
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        memcpy(bad, good, length);
        memcpy(bad + lies[i].at, lies[i].value, (size_t)lies[i].bytes);
        fix_header(bad);
        write_file(other_path, bad, length);
        REFUSED(MH_BAD_DATA, mh_sequence_restore(session, 0, other_path), lies[i].said);
    }
    assert_int_equal(mh_session_position(session), 29);
    go_on(session, &b, 0, 29);
    mh_session_release(session);
    close_world(&w);
    free(good);
    free(bad);
    free(a.logits);
    free(b.logits);
}

static char tuned_files[2][80];

/* The V2-Lite model with one bit changed in its last tensor. */
static struct world open_tuned(void)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    for (int i = 0; i < 2; i++) {
        char from[512];
        unsigned char *bytes;
        snprintf(from, sizeof(from), "%s/%s", lite_dir, names[i]);
        snprintf(tuned_files[i], sizeof(tuned_files[i]), "%s/%s", folder, names[i]);
        size_t length = read_file(from, &bytes);
        bytes[length - 1] ^= (unsigned char)i;
        write_file(tuned_files[i], bytes, length);
        free(bytes);
    }
    return open_world(folder, "host", 1);
}

static void other_models_are_refused(void **state)
{
    (void)state;
    struct world fairy = open_world(model_dir, "host", 1), lite = open_world(lite_dir, "host", 1);
    struct world tuned = open_tuned();
    struct text a = make_text(5, 100);
    mh_session *session = make_session(&fairy, 2, 64, 3 * 64), *other;
    REFUSED(MH_NOT_FOUND, mh_sequence_restore(session, 0, "no-such-file"), "no-such-file: ");
    REFUSED(MH_INVALID_ARGUMENT, mh_sequence_restore(session, 1, path), "not in use");
    REFUSED(MH_IO_ERROR, mh_sequence_save(session, 0, "no-such-folder/x"), "no-such-folder/x");
    unlink(other_path);
    assert_int_equal(mkdir(other_path, 0700), 0); /* cannot be replaced by a file */
    REFUSED(MH_IO_ERROR, mh_sequence_save(session, 0, other_path), other_path);
    rmdir(other_path);
    OK(mh_session_run(session, a.prompt, 100, NULL));
    OK(mh_sequence_save(session, 0, path));

    other = make_session(&lite, 1, 64, 0);
    REFUSED(MH_INVALID_ARGUMENT, mh_sequence_restore(other, 0, path), "of another model: ");
    OK(mh_session_run(other, (const int32_t[]){1, 2, 3}, 3, NULL));
    OK(mh_sequence_save(other, 0, other_path));
    mh_session_release(other);
    other = make_session(&tuned, 1, 64, 0);
    REFUSED(MH_INVALID_ARGUMENT, mh_sequence_restore(other, 0, other_path), "other weights");
    mh_session_release(other);

    mh_session_params p = MH_INIT(mh_session_params);
    p.context = 99;
    OK(mh_session_create(fairy.model, &p, &other));
    REFUSED(MH_INVALID_ARGUMENT, mh_sequence_restore(other, 0, path), "100 tokens do not fit");
    mh_session_release(other);
    p.context = 100, p.kv_dtype = MH_BF16;
    OK(mh_session_create(fairy.model, &p, &other));
    REFUSED(MH_INVALID_ARGUMENT, mh_sequence_restore(other, 0, path), "is f32, this session's is");
    OK(mh_session_run(other, a.prompt, 64, NULL));
    OK(mh_sequence_save(other, 0, other_path));
    mh_session_release(other);

    uint32_t second;
    OK(mh_sequence_add(session, &second)); /* two pages are taken, one is free */
    REFUSED(MH_OUT_OF_MEMORY, mh_sequence_restore(session, second, path), "takes 2 pages");
    OK(mh_sequence_restore(session, 0, path)); /* its own give room */
    mh_session_release(session);
    close_world(&fairy);
    close_world(&lite);
    close_world(&tuned);
    free(a.logits);
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/sequence", folder);
    snprintf(other_path, sizeof(other_path), "%s/other", folder);
    return 0;
}

/* Also says whether a save left its temporary file behind. */
static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    unlink(other_path);
    unlink(tuned_files[0]);
    unlink(tuned_files[1]);
    return rmdir(folder);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    model_dir = argv[1], lite_dir = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_the_standard_one),
        cmocka_unit_test(restored_sequences_go_on),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(other_models_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
