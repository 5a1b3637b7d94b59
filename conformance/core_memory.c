/* core_memory.c: buffers, their accounting, copies in every direction and between devices. */
#include <string.h>

#include "core.h"

static void pattern(uint8_t *bytes, uint64_t count, uint32_t salt)
{
    for (uint64_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(i * 37 + salt + (i >> 8));
}

static bool memory_of(struct core *c, mh_device *device, mh_memory_info *info)
{
    *info = MH_INIT(mh_memory_info);
    TRY(mh_device_memory(device, info));
    return true;
}

static bool accounting(struct core *c)
{
    mh_memory_info before, during, after;
    mh_device *device = core_device(c, NULL);
    mh_buffer *a, *b;
    if (!device || !memory_of(c, device, &before))
        return false;
    TRY(mh_buffer_create(device, 1000, MH_BUFFER_DEVICE, &a));
    mh_status second = mh_buffer_create(device, 24, MH_BUFFER_HOST_VISIBLE, &b);
    bool asked = memory_of(c, device, &during);
    mh_buffer_release(a);
    mh_buffer_release(second ? NULL : b);
    CHECK(!second, "a host-visible buffer: %s", mh_last_message());
    if (!asked || !memory_of(c, device, &after))
        return false;
    CHECK(during.used == before.used + 1024 && during.buffers == before.buffers + 2,
          "used is %llu and buffers %llu after 1000 and 24 bytes on top of %llu and %llu",
          (unsigned long long)during.used, (unsigned long long)during.buffers,
          (unsigned long long)before.used, (unsigned long long)before.buffers);
    CHECK(after.used == before.used && after.buffers == before.buffers && after.peak >= during.used,
          "used is %llu, peak %llu after the release", (unsigned long long)after.used,
          (unsigned long long)after.peak);
    CHECK(!after.total || after.available <= after.total, "available %llu of %llu",
          (unsigned long long)after.available, (unsigned long long)after.total);
    return true;
}

static bool empty_buffers(struct core *c)
{
    mh_buffer *buffer = core_buffer(c, c->device, 0);
    uint8_t byte = 7;
    if (!buffer)
        return false;
    TRY(mh_buffer_write(buffer, 0, &byte, 0));
    TRY(mh_buffer_read(buffer, 0, &byte, 0));
    REFUSES(MH_INVALID_ARGUMENT, mh_buffer_read(buffer, 0, &byte, 1));
    CHECK(mh_buffer_size(buffer) == 0 && byte == 7, "a byte came out of an empty buffer");
    return true;
}

/* Writes at odd places and sizes; all other bytes stay. */
static bool ranges(struct core *c)
{
    enum { SIZE = 10007 };
    static const uint64_t sizes[] = {1, 2, 3, 5, 63, 64, 65, 255, 4096, 4097};
    uint8_t model[SIZE], got[SIZE], piece[SIZE];
    mh_buffer *buffer = core_buffer(c, c->device, SIZE);
    if (!buffer)
        return false;
    pattern(model, SIZE, 1);
    TRY(mh_buffer_write(buffer, 0, model, SIZE));
    for (uint32_t i = 0; i < 200; i++) {
        uint64_t size = sizes[conf_below(&c->random, 10)];
        uint64_t offset = conf_below(&c->random, (uint32_t)(SIZE - size + 1));
        pattern(piece, size, i);
        memcpy(model + offset, piece, size);
        TRY(mh_buffer_write(buffer, offset, piece, size));
        offset = conf_below(&c->random, (uint32_t)(SIZE - size + 1));
        TRY(mh_buffer_read(buffer, offset, got, size));
        CHECK(!memcmp(got, model + offset, size), "%llu bytes at %llu read back otherwise",
              (unsigned long long)size, (unsigned long long)offset);
    }
    TRY(mh_buffer_read(buffer, 0, got, SIZE));
    CHECK(!memcmp(got, model, SIZE), "a write reached beyond its range");
    return true;
}

static bool out_of_range(struct core *c)
{
    uint8_t bytes[64] = {0};
    mh_buffer *buffer = core_buffer(c, c->device, 64);
    if (!buffer)
        return false;
    REFUSES(MH_INVALID_ARGUMENT, mh_buffer_write(buffer, 1, bytes, 64));
    REFUSES(MH_INVALID_ARGUMENT, mh_buffer_read(buffer, UINT64_MAX, bytes, 2));
    REFUSES(MH_INVALID_ARGUMENT, mh_stream_write(c->stream, buffer, 65, bytes, 0));
    REFUSES(MH_INVALID_ARGUMENT, mh_stream_copy(c->stream, buffer, 0, buffer, 8, 16));
    REFUSES(MH_INVALID_ARGUMENT, mh_buffer_copy(buffer, 0, buffer, 8, 16));
    return true;
}

static bool out_of_memory(struct core *c)
{
    mh_memory_info before, after;
    mh_buffer *buffer = NULL;
    if (!memory_of(c, c->device, &before))
        return false;
    /* More than any address space holds. */
    REFUSES(MH_OUT_OF_MEMORY, mh_buffer_create(c->device, UINT64_C(1) << 60, 0, &buffer));
    CHECK(!buffer, "a buffer came with the failure");
    if (!memory_of(c, c->device, &after))
        return false;
    CHECK(after.used == before.used && after.buffers == before.buffers,
          "the refused buffer is counted");
    return core_buffer(c, c->device, 4096) != NULL;
}

/* Every residue of the alignment that a device address may have. */
static bool alignment(struct core *c)
{
    enum { COUNT = 20 };
    for (uint32_t i = 0; i < COUNT; i++) {
        uint8_t byte = (uint8_t)i, got = 0;
        uint64_t size = 1 + conf_below(&c->random, 5000);
        mh_buffer *buffer = core_buffer(c, c->device, size);
        if (!buffer)
            return false;
        const void *host = mh_buffer_host(buffer);
        CHECK((uintptr_t)host % 256 == 0,
              "a buffer of %llu bytes lies at %p, not a multiple of 256", (unsigned long long)size,
              host);
        TRY(mh_buffer_write(buffer, size - 1, &byte, 1));
        TRY(mh_buffer_read(buffer, size - 1, &got, 1));
        CHECK(got == byte, "the last of %llu bytes reads back otherwise", (unsigned long long)size);
    }
    return true;
}

static bool copies_between(struct core *c, mh_device *from_device, mh_device *to_device)
{
    enum { SIZE = 5 << 20 }; /* more than one staged piece */
    uint32_t link = 0;
    mh_buffer *from = core_buffer(c, from_device, SIZE), *to = core_buffer(c, to_device, SIZE);
    if (!from || !to)
        return false;
    uint8_t model[4096], got[4096];
    static const uint64_t places[] = {0, 4095, (4 << 20) - 100, SIZE - 4096};
    TRY(mh_device_link(from_device, to_device, &link));
    CHECK((link == MH_LINK_SAME) == (from_device == to_device), "the link is %u", link);
    for (int i = 0; i < 4; i++) {
        pattern(model, sizeof(model), (uint32_t)i);
        TRY(mh_buffer_write(from, places[i], model, sizeof(model)));
        memset(got, 0, sizeof(got));
        TRY(mh_buffer_copy(to, 0, from, 0, SIZE));
        TRY(mh_buffer_read(to, places[i], got, sizeof(got)));
        CHECK(!memcmp(got, model, sizeof(got)), "%s to %s: bytes at %llu differ",
              mh_device_uri(from_device), mh_device_uri(to_device), (unsigned long long)places[i]);
    }
    TRY(mh_buffer_copy(to, 17, from, 4095, 1000));
    TRY(mh_buffer_read(from, 4095, model, 1000));
    TRY(mh_buffer_read(to, 17, got, 1000));
    CHECK(!memcmp(got, model, 1000), "a range that begins elsewhere differs");
    return true;
}

static bool across_devices(struct core *c)
{
    mh_device *again = core_device(c, NULL), *host;
    if (!again)
        return false;
    TRY(mh_device_host(c->device, &host));
    return copies_between(c, c->device, c->device) && copies_between(c, c->device, again) &&
           copies_between(c, c->device, host) && copies_between(c, host, c->device);
}

static bool imported_memory(struct core *c)
{
    mh_device_info info = MH_INIT(mh_device_info);
    uint8_t bytes[1000];
    mh_buffer *buffer;
    TRY(mh_device_get_info(c->device, &info));
    pattern(bytes, sizeof(bytes), 3);
    uint8_t got[1000];
    mh_status status =
        mh_buffer_import(c->device, bytes, sizeof(bytes), MH_IMPORT_READ_ONLY, NULL, NULL, &buffer);
    if (status == MH_UNSUPPORTED && !(info.flags & MH_DEVICE_HOST_MEMORY))
        return true; /* a device may take it without running on it */
    TRY(status);
    mh_status read = mh_buffer_read(buffer, 0, got, sizeof(got));
    mh_status written = mh_buffer_write(buffer, 0, got, 1);
    mh_buffer_release(buffer);
    CHECK(!read && !memcmp(got, bytes, sizeof(got)), "imported bytes read back otherwise");
    CHECK(written == MH_INVALID_ARGUMENT, "a read-only import was written");
    return true;
}

const struct core_case core_memory[] = {
    {"memory/accounting", accounting},
    {"memory/empty", empty_buffers},
    {"memory/ranges", ranges},
    {"memory/out-of-range", out_of_range},
    {"memory/out-of-memory", out_of_memory},
    {"memory/alignment", alignment},
    {"memory/across-devices", across_devices},
    {"memory/import", imported_memory},
    {0},
};
