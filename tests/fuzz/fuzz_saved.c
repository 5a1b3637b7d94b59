/*
 * fuzz_saved.c: the file of a saved sequence. The first byte of the input says what is repaired in
 * the rest before it is read, since no fuzzer finds a checksum: 1, the header's checksum; 2, model
 * and shapes; 4, the sizes and the content's checksum. What is restored must run.
 *
 * The environment's FUZZ_MODEL is a model's directory.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <moehal-model/session.h>

#include "../../model/crc64.h"

enum { HEADER = 128, MOST = 1 << 20 };

static int file = -1;
static char path[64];
static mh_session *session;
static uint8_t honest[HEADER], bytes[MOST]; /* the header of an empty sequence; the file */
static struct crc64 crc;

static void make_session(void)
{
    mh_runtime *runtime;
    mh_device *device;
    mh_checkpoint *checkpoint;
    mh_model *model;
    mh_device_params params = MH_INIT(mh_device_params);
    mh_session_params p = MH_INIT(mh_session_params);
    params.threads = 1;
    p.context = 100, p.cache_tokens = 64;
    if (mh_runtime_create(NULL, &runtime) || mh_device_open(runtime, "host", &params, &device) ||
        mh_checkpoint_open(getenv("FUZZ_MODEL"), &checkpoint) ||
        mh_model_load(checkpoint, &device, 1, NULL, &model) ||
        mh_session_create(model, &p, &session)) {
        fprintf(stderr, "FUZZ_MODEL: %s\n", mh_last_message());
        exit(2);
    }
    mh_model_release(model);
    mh_checkpoint_release(checkpoint);
    mh_device_release(device);
    mh_runtime_release(runtime);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char saved[] = "/tmp/moehal-fuzz-XXXXXX";
    (void)argc, (void)argv;
    if (!getenv("FUZZ_MODEL")) {
        fprintf(stderr, "FUZZ_MODEL: names no model\n");
        exit(2);
    }
    make_session();
    int fd = mkstemp(saved);
    close(fd);
    FILE *f = mh_sequence_save(session, 0, saved) ? NULL : fopen(saved, "rb");
    if (!f || fread(honest, 1, HEADER, f) != HEADER)
        abort();
    fclose(f);
    unlink(saved);
    file = memfd_create("fuzz", 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    return 0;
}

static void put_sum(uint8_t *at, const uint8_t *from, size_t size)
{
    crc64_begin(&crc);
    crc64_add(&crc, from, size);
    uint64_t value = crc64_value(&crc);
    memcpy(at, &value, 8);
}

/* Returns the bytes of the file. */
static size_t repair(uint8_t what, size_t size)
{
    if (size < HEADER)
        return size;
    if (what & 2) {
        memcpy(bytes, honest, 16);
        memcpy(bytes + 24, honest + 24, 28); /* fingerprint to vocabulary */
    }
    if (what & 4) {
        uint32_t layers, values;
        uint64_t tokens;
        memcpy(&layers, honest + 40, 4);
        memcpy(&values, honest + 44, 4);
        memcpy(&tokens, bytes + 56, 8);
        tokens %= 120;
        memcpy(bytes + 56, &tokens, 8);
        uint64_t total = HEADER + tokens * (4 + 4 * (uint64_t)layers * values) + 8;
        if (total > MOST)
            return size;
        size = total; /* what the input lacks is zeros */
        memcpy(bytes + 16, &total, 8);
        put_sum(bytes + size - 8, bytes + HEADER, size - HEADER - 8);
    }
    if (what & 1)
        put_sum(bytes + 120, bytes, 120);
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size || size > MOST)
        return 0;
    static size_t used;
    memset(bytes, 0, used);
    memcpy(bytes, data + 1, size - 1);
    size_t length = repair(*data, size - 1);
    used = length > size ? length : size;
    if (ftruncate(file, 0) || pwrite(file, bytes, length, 0) != (ssize_t)length)
        abort();
    int64_t position = mh_session_position(session);
    int32_t token = 1;
    if (mh_sequence_restore(session, 0, path)) {
        if (mh_session_position(session) != position)
            abort();
        return 0;
    }
    if (mh_session_position(session) < mh_session_context(session)) {
        mh_status status = mh_session_run(session, &token, 1, NULL);
        if (status && status != MH_OUT_OF_MEMORY)
            abort();
    }
    return 0;
}
