/*
 * fuzz_safetensors.c: one safetensors file. The first byte of the input says what the rest is:
 * even, the file itself; odd, a header, to which its length and some data are added.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <moehal-model/checkpoint.h>

static int file = -1;
static char path[64];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    file = memfd_create("fuzz", 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    return file < 0 ? -1 : 0;
}

static int put(const void *data, size_t size, off_t at)
{
    return pwrite(file, data, size, at) == (ssize_t)size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size || ftruncate(file, 0))
        return 0;
    size_t rest = size - 1;
    if (*data & 1) {
        static const uint8_t zeros[64];
        uint64_t length = rest;
        if (!put(&length, 8, 0) || !put(data + 1, rest, 8) || !put(zeros, 64, 8 + (off_t)rest))
            abort();
    } else if (!put(data + 1, rest, 0)) {
        abort();
    }
    mh_checkpoint *checkpoint;
    if (mh_checkpoint_open_file(path, &checkpoint))
        return 0;
    for (uint64_t i = 0; i < mh_checkpoint_count(checkpoint); i++) {
        mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor), same = t;
        if (mh_checkpoint_at(checkpoint, i, &t) || mh_checkpoint_find(checkpoint, t.name, &same) ||
            t.data != same.data)
            abort();
        volatile const uint8_t *bytes = t.data; /* what is promised is mapped */
        if (t.bytes)
            (void)(bytes[0] + bytes[t.bytes - 1]);
    }
    mh_checkpoint_release(checkpoint);
    return 0;
}
