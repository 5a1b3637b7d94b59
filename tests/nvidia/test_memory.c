/*
 * test_memory.c: where the NVIDIA backend's memory comes from, and that each call that takes it may
 * fail: a large weight is mapped, other buffers come from the pool, and what cannot be had so is
 * plain. On the virtual GPU, whose driver says what is in use.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <moehal/moehal.h>

#define OK(call) assert_int_equal((call), MH_OK)
#define CU(call) assert_int_equal((call), 0)

enum { UNIT = 2 << 20, ROWS = 16389, COLUMNS = 1024, SMALL = 100 };

/* The driver, as an embedder sees it. */
static struct {
    int (*Init)(unsigned flags);
    int (*CtxCreate)(void **context, unsigned flags, int device);
    int (*CtxDestroy)(void *context);
    int (*MemGetInfo)(size_t *available, size_t *total);
    int (*GetPool)(void **pool, int device);
    int (*PoolGet)(void *pool, int attribute, void *value);
    int (*AddressReserve)(uint64_t *at, size_t bytes, size_t align, uint64_t hint, uint64_t flags);
    int (*Create)(uint64_t *memory, size_t bytes, const void *want, uint64_t flags);
    int (*Map)(uint64_t at, size_t bytes, size_t offset, uint64_t memory, uint64_t flags);
    int (*SetAccess)(uint64_t at, size_t bytes, const void *access, size_t count);
    int (*Unmap)(uint64_t at, size_t bytes);
    int (*Release)(uint64_t memory);
    int (*AddressFree)(uint64_t at, size_t bytes);
    int (*faults)(const char *list); /* of the virtual driver */
} cu;

static mh_runtime *runtime;
static void *watcher; /* a context to ask in */

static int start(void **state)
{
    void *library = dlopen(getenv("MOEHAL_NVIDIA_DRIVER"), RTLD_NOW);
    const struct {
        void *to;
        const char *name;
    } symbols[] = {{&cu.Init, "cuInit"},
                   {&cu.CtxCreate, "cuCtxCreate_v2"},
                   {&cu.CtxDestroy, "cuCtxDestroy_v2"},
                   {&cu.MemGetInfo, "cuMemGetInfo_v2"},
                   {&cu.GetPool, "cuDeviceGetDefaultMemPool"},
                   {&cu.PoolGet, "cuMemPoolGetAttribute"},
                   {&cu.AddressReserve, "cuMemAddressReserve"},
                   {&cu.Create, "cuMemCreate"},
                   {&cu.Map, "cuMemMap"},
                   {&cu.SetAccess, "cuMemSetAccess"},
                   {&cu.Unmap, "cuMemUnmap"},
                   {&cu.Release, "cuMemRelease"},
                   {&cu.AddressFree, "cuMemAddressFree"},
                   {&cu.faults, "moehal_virtual_faults"}};
    (void)state;
    assert_non_null(library);
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *symbol = dlsym(library, symbols[i].name);
        assert_non_null(symbol);
        memcpy(symbols[i].to, &symbol, sizeof(symbol));
    }
    CU(cu.Init(0));
    CU(cu.CtxCreate(&watcher, 0, 0));
    OK(mh_runtime_create(NULL, &runtime));
    return 0;
}

static int end(void **state)
{
    (void)state;
    mh_runtime_release(runtime);
    CU(cu.CtxDestroy(watcher));
    return 0;
}

static mh_device *open_device(void)
{
    mh_device *device = NULL;
    OK(mh_device_open(runtime, "nvidia:0", NULL, &device));
    return device;
}

static uint64_t in_use(void)
{
    size_t available = 0, total = 0;
    CU(cu.MemGetInfo(&available, &total));
    return total - available;
}

static uint64_t pooled(void)
{
    void *pool = NULL;
    uint64_t bytes = 0;
    CU(cu.GetPool(&pool, 0));
    CU(cu.PoolGet(pool, 7, &bytes)); /* CU_MEMPOOL_ATTR_USED_MEM_CURRENT */
    return bytes;
}

/* What is given back to a pool is there again when its stream has got to it. */
static void settles_at(uint64_t (*bytes)(void), uint64_t must)
{
    for (int i = 0; i < 10000 && bytes() != must; i++)
        usleep(1000);
    assert_int_equal(bytes(), must);
}

static mh_status make_weight(mh_device *device, int64_t rows, mh_weight **out)
{
    mh_weight_params params = MH_INIT(mh_weight_params);
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    uint16_t *data = malloc((size_t)rows * COLUMNS * 2);
    assert_non_null(data);
    for (int64_t i = 0; i < rows * COLUMNS; i++) /* bf16 from 1 to 2 */
        data[i] = (uint16_t)(0x3F80 + (i / COLUMNS * 7 + i) % 128);
    params.format = MH_FORMAT_BF16, params.label = "table";
    params.experts = 1, params.out = rows, params.in = COLUMNS;
    piece.expert_count = 1, piece.row_count = rows, piece.plane[0] = data;
    OK(mh_weight_create(device, &params, out));
    mh_status status = mh_weight_write(*out, &piece);
    if (!status)
        status = mh_weight_seal(*out);
    free(data);
    return status;
}

/* A kernel reads the weight's last row. */
static void check_weight(mh_device *device, mh_weight *table, int32_t rows)
{
    float values[COLUMNS];
    const int32_t token = rows - 1;
    mh_buffer *memory = NULL;
    mh_stream *stream = NULL;
    mh_op_embed op = MH_OP_INIT(embed, EMBED);
    OK(mh_buffer_create(device, sizeof(values) + 8, 0, &memory));
    OK(mh_buffer_write(memory, sizeof(values), (int32_t[]){token, 0}, 8));
    OK(mh_stream_create(device, &stream));
    op.y = mh_tensor_make(memory, 0, MH_F32, 2, (const int64_t[]){1, COLUMNS});
    op.tokens = mh_tensor_make(memory, sizeof(values), MH_I32, 1, (const int64_t[]){1});
    op.fault = mh_tensor_make(memory, sizeof(values) + 4, MH_U32, 1, (const int64_t[]){1});
    op.table = table;
    OK(mh_encode(mh_stream_encoder(stream), &op.base));
    OK(mh_stream_wait(stream, MH_FOREVER));
    OK(mh_buffer_read(memory, 0, values, sizeof(values)));
    for (int32_t k = 0; k < COLUMNS; k++) {
        int64_t i = (int64_t)token * COLUMNS + k;
        float must = 1 + (float)((token * 7 + i) % 128) / 128;
        assert_true(values[k] == must);
    }
    mh_stream_release(stream);
    mh_buffer_release(memory);
}

/* Bytes in use of a mapped weight: whole units of the driver's. */
static uint64_t mapped_bytes(void)
{
    return ((uint64_t)ROWS * COLUMNS * 2 + UNIT - 1) / UNIT * UNIT;
}

static void each_kind_has_its_place(void **state)
{
    mh_weight *large = NULL, *small = NULL;
    mh_buffer *buffer = NULL;
    mh_device *device = open_device();
    (void)state;
    OK(make_weight(device, SMALL,
                   &small)); /* makes the ring of pinned memory and a stream as well */
    const uint64_t used = in_use(), pool = pooled();
    OK(make_weight(device, ROWS, &large));
    assert_int_equal(in_use() - used, mapped_bytes());
    assert_int_equal(pooled(), pool);
    OK(mh_buffer_create(device, 12345, 0, &buffer));
    assert_int_equal(pooled() - pool, 12345);
    check_weight(device, large, ROWS);
    check_weight(device, small, SMALL);
    mh_buffer_release(buffer);
    mh_weight_release(large);
    settles_at(pooled, pool);
    assert_int_equal(in_use(), used);
    mh_weight_release(small);
    mh_device_release(device);
    assert_int_equal(in_use(), 0);
}

/* Each step fails: the weight or buffer is plain instead, and nothing of the attempt is left. */
static void what_cannot_be_mapped_or_pooled_is_plain(void **state)
{
    static const char *const steps[] = {"cuMemGetAllocationGranularity",
                                        "cuMemAddressReserve",
                                        "cuMemCreate",
                                        "cuMemMap",
                                        "cuMemSetAccess",
                                        "cuStreamCreate",
                                        "cuMemAllocAsync",
                                        "cuStreamSynchronize"};
    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        char fault[64];
        mh_weight *weight = NULL;
        mh_buffer *buffer = NULL;
        mh_device *device = open_device();
        snprintf(fault, sizeof(fault), "fail:%s:1", steps[i]);
        CU(cu.faults(fault));
        OK(mh_buffer_create(device, 4096, 0, &buffer));
        settles_at(pooled, i < 5 ? 4096 : 0);
        OK(mh_buffer_write(buffer, 0, steps, 8)); /* makes a stream */
        const uint64_t used = in_use();
        OK(make_weight(device, ROWS, &weight));
        CU(cu.faults(""));
        assert_int_equal(in_use() - used, i < 5 ? (uint64_t)ROWS * COLUMNS * 2 : mapped_bytes());
        check_weight(device, weight, ROWS);
        mh_weight_release(weight);
        mh_buffer_release(buffer);
        mh_device_release(device);
        assert_int_equal(pooled(), 0);
        assert_int_equal(in_use(), 0);
    }
}

static void no_memory_is_said_and_leaves_nothing(void **state)
{
    mh_weight *weight = NULL;
    mh_buffer *buffer = NULL;
    mh_device *device = open_device();
    (void)state;
    CU(cu.faults("oom:16M"));
    assert_int_equal(make_weight(device, ROWS, &weight), MH_OUT_OF_MEMORY);
    assert_non_null(strstr(mh_last_message(), "33564672 bytes could not be had"));
    assert_int_equal(mh_buffer_create(device, 32 << 20, 0, &buffer), MH_OUT_OF_MEMORY);
    assert_non_null(strstr(mh_last_message(), "33554432 bytes could not be had"));
    CU(cu.faults("fail:cuMemMap:1:2")); /* no memory for the tables of addresses */
    mh_weight_release(weight);
    assert_int_equal(make_weight(device, ROWS, &weight), MH_OUT_OF_MEMORY);
    CU(cu.faults(""));
    mh_weight_release(weight);
    OK(make_weight(device, ROWS, &weight));
    check_weight(device, weight, ROWS);
    mh_weight_release(weight);
    mh_device_release(device);
    assert_int_equal(in_use(), 0);
}

/* The memory of a device that was reset is there again, also what belongs to no context. */
static void a_reset_gives_all_back(void **state)
{
    mh_weight *weight = NULL, *again = NULL;
    mh_buffer *buffer = NULL;
    mh_device *device = open_device();
    (void)state;
    OK(make_weight(device, ROWS, &weight));
    OK(mh_buffer_create(device, 4096, 0, &buffer));
    OK(mh_device_reset(device));
    assert_int_equal(in_use(), 0);
    assert_int_equal(pooled(), 0);
    OK(make_weight(device, ROWS, &again));
    mh_weight_release(weight); /* of before: not the new one's memory */
    mh_buffer_release(buffer);
    check_weight(device, again, ROWS);
    mh_weight_release(again);
    mh_device_release(device);
    assert_int_equal(in_use(), 0);
}

/* An embedder's mapped memory is no context's; that of another device is refused. */
static void mapped_memory_of_an_embedder(void **state)
{
    mh_device *device = open_device();
    (void)state;
    for (int ordinal = 0; ordinal < 2; ordinal++) {
        const struct {
            int type, handles, on, id;
            void *none;
            uint64_t flags;
        } want = {.type = 1, .on = 1, .id = ordinal};
        const int access[] = {1, ordinal, 3};
        const float sent[] = {1, 2, 3, 4};
        uint64_t at = 0, memory = 0;
        mh_buffer *buffer = NULL;
        CU(cu.AddressReserve(&at, UNIT, 0, 0, 0));
        CU(cu.Create(&memory, UNIT, &want, 0));
        CU(cu.Map(at, UNIT, 0, memory, 0));
        CU(cu.SetAccess(at, UNIT, access, 1));
        mh_status status = mh_buffer_wrap(device, at, UNIT, 0, NULL, NULL, &buffer);
        assert_int_equal(status, ordinal ? MH_INVALID_ARGUMENT : MH_OK);
        if (!status) {
            float got[4];
            OK(mh_buffer_write(buffer, UNIT - sizeof(sent), sent, sizeof(sent)));
            OK(mh_buffer_read(buffer, UNIT - sizeof(sent), got, sizeof(got)));
            assert_memory_equal(sent, got, sizeof(sent));
        }
        mh_buffer_release(buffer);
        CU(cu.Unmap(at, UNIT));
        CU(cu.Release(memory));
        CU(cu.AddressFree(at, UNIT));
    }
    mh_device_release(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_kind_has_its_place),
                                       cmocka_unit_test(what_cannot_be_mapped_or_pooled_is_plain),
                                       cmocka_unit_test(no_memory_is_said_and_leaves_nothing),
                                       cmocka_unit_test(a_reset_gives_all_back),
                                       cmocka_unit_test(mapped_memory_of_an_embedder)};
    return cmocka_run_group_tests(tests, start, end);
}
