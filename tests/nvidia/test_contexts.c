/*
 * test_contexts.c: the embedder's own context, stream and memory, the primary context, and kernels
 * of users, on the virtual GPU. The embedder's side is the driver's API, called directly.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <moehal/moehal.h>

#define OK(call) assert_int_equal((call), MH_OK)
#define CU(call) assert_int_equal((call), 0)

/* The driver, as an embedder sees it. */
static struct {
    int (*Init)(unsigned flags);
    int (*CtxCreate)(void **context, unsigned flags, int device);
    int (*CtxDestroy)(void *context);
    int (*CtxGetCurrent)(void **context);
    int (*CtxSetCurrent)(void *context);
    int (*PrimaryState)(int device, unsigned *flags, int *active);
    int (*StreamCreate)(void **stream, unsigned flags);
    int (*StreamDestroy)(void *stream);
    int (*StreamSynchronize)(void *stream);
    int (*MemAlloc)(uint64_t *memory, size_t bytes);
    int (*MemFree)(uint64_t memory);
    int (*MemcpyHtoD)(uint64_t to, const void *from, size_t bytes);
    int (*MemcpyDtoH)(void *to, uint64_t from, size_t bytes);
    int (*faults)(const char *list); /* of the virtual driver */
} cu;

static mh_runtime *runtime;

static int find_driver(void **state)
{
    void *library = dlopen(getenv("MOEHAL_NVIDIA_DRIVER"), RTLD_NOW);
    const struct {
        void *to;
        const char *name;
    } symbols[] = {{&cu.Init, "cuInit"},
                   {&cu.CtxCreate, "cuCtxCreate_v2"},
                   {&cu.CtxDestroy, "cuCtxDestroy_v2"},
                   {&cu.CtxGetCurrent, "cuCtxGetCurrent"},
                   {&cu.CtxSetCurrent, "cuCtxSetCurrent"},
                   {&cu.PrimaryState, "cuDevicePrimaryCtxGetState"},
                   {&cu.StreamCreate, "cuStreamCreate"},
                   {&cu.StreamDestroy, "cuStreamDestroy_v2"},
                   {&cu.StreamSynchronize, "cuStreamSynchronize"},
                   {&cu.MemAlloc, "cuMemAlloc_v2"},
                   {&cu.MemFree, "cuMemFree_v2"},
                   {&cu.MemcpyHtoD, "cuMemcpyHtoD_v2"},
                   {&cu.MemcpyDtoH, "cuMemcpyDtoH_v2"},
                   {&cu.faults, "moehal_virtual_faults"}};
    (void)state;
    assert_non_null(library);
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *symbol = dlsym(library, symbols[i].name);
        assert_non_null(symbol);
        memcpy(symbols[i].to, &symbol, sizeof(symbol));
    }
    CU(cu.Init(0));
    OK(mh_runtime_create(NULL, &runtime));
    return 0;
}

static int drop_runtime(void **state)
{
    (void)state;
    mh_runtime_release(runtime);
    return 0;
}

static mh_device *open_device(uint32_t context, void *native)
{
    mh_device *device = NULL;
    mh_device_params params = MH_INIT(mh_device_params);
    params.context = context, params.native_context = (uint64_t)(uintptr_t)native;
    OK(mh_device_open(runtime, "nvidia:0", &params, &device));
    return device;
}

static mh_op_add sum_of(mh_buffer *memory)
{
    const int64_t shape[] = {2, 8};
    mh_op_add op = MH_OP_INIT(add, ADD);
    op.y = mh_tensor_make(memory, 0, MH_F32, 2, shape);
    op.a = mh_tensor_make(memory, 64, MH_F32, 2, shape);
    op.b = mh_tensor_make(memory, 128, MH_F32, 2, shape);
    return op;
}

static void fill(float image[48])
{
    for (int i = 0; i < 48; i++)
        image[i] = i < 16 ? -1 : (float)i;
}

static void check_sums(const float *sums)
{
    for (int i = 0; i < 16; i++)
        assert_true(sums[i] == (float)(16 + i) + (float)(32 + i));
}

static void work(mh_device *device)
{
    float image[48];
    mh_stream *stream = NULL;
    mh_buffer *memory = NULL;
    fill(image);
    OK(mh_stream_create(device, &stream));
    OK(mh_buffer_create(device, sizeof(image), 0, &memory));
    OK(mh_buffer_write(memory, 0, image, sizeof(image)));
    mh_op_add op = sum_of(memory);
    OK(mh_encode(mh_stream_encoder(stream), &op.base));
    OK(mh_stream_wait(stream, MH_FOREVER));
    OK(mh_buffer_read(memory, 0, image, sizeof(image)));
    check_sums(image);
    mh_buffer_release(memory);
    mh_stream_release(stream);
}

static uint64_t counted(mh_device *device, const char *name)
{
    mh_device_counter counter = MH_INIT(mh_device_counter);
    for (uint32_t i = 0; !mh_device_read_counter(device, i, &counter); i++)
        if (!strcmp(counter.name, name))
            return counter.value;
    fail_msg("no counter %s", name);
    return 0;
}

static void primary_is_held_and_never_reset(void **state)
{
    unsigned flags;
    int active = -1;
    (void)state;
    CU(cu.PrimaryState(0, &flags, &active));
    assert_int_equal(active, 0);
    mh_device *device = open_device(MH_CONTEXT_PRIMARY, NULL);
    CU(cu.PrimaryState(0, &flags, &active));
    assert_int_equal(active, 1);
    work(device);
    assert_int_equal(mh_device_reset(device), MH_UNSUPPORTED);
    assert_non_null(strstr(mh_last_message(), "not moehal's own"));
    CU(cu.PrimaryState(0, &flags, &active));
    assert_int_equal(active, 1);
    mh_device_release(device);
    CU(cu.PrimaryState(0, &flags, &active));
    assert_int_equal(active, 0);
}

/* An op on the embedder's stream and memory, whose result the embedder reads by itself; afterwards
 * all three are still its own, and what is current on the thread has not changed. */
static void wrapped_context_stream_and_memory(void **state)
{
    void *context = NULL, *current = NULL, *native_stream = NULL;
    uint64_t native = 0;
    float image[48];
    mh_stream *stream = NULL;
    mh_buffer *memory = NULL;
    (void)state;
    fill(image);
    CU(cu.CtxCreate(&context, 0, 0));
    CU(cu.StreamCreate(&native_stream, 1));
    CU(cu.MemAlloc(&native, sizeof(image)));
    CU(cu.MemcpyHtoD(native, image, sizeof(image)));
    CU(cu.CtxSetCurrent(NULL));
    mh_device *device = open_device(MH_CONTEXT_WRAP, context);
    work(device);
    OK(mh_stream_wrap(device, (uint64_t)(uintptr_t)native_stream, &stream));
    OK(mh_buffer_wrap(device, native, sizeof(image), 0, NULL, NULL, &memory));
    mh_op_add op = sum_of(memory);
    OK(mh_encode(mh_stream_encoder(stream), &op.base));
    CU(cu.CtxGetCurrent(&current));
    assert_null(current);
    CU(cu.CtxSetCurrent(context));
    CU(cu.StreamSynchronize(native_stream));
    CU(cu.MemcpyDtoH(image, native, sizeof(image)));
    check_sums(image);
    assert_int_equal(mh_device_reset(device), MH_UNSUPPORTED);
    mh_buffer_release(memory);
    mh_stream_release(stream);
    mh_device_release(device);
    CU(cu.CtxGetCurrent(&current));
    assert_ptr_equal(current, context);
    CU(cu.MemcpyDtoH(image, native, sizeof(image)));
    CU(cu.StreamSynchronize(native_stream));
    CU(cu.MemFree(native));
    CU(cu.StreamDestroy(native_stream));
    CU(cu.CtxDestroy(context));
}

static void what_is_of_another_context_is_refused(void **state)
{
    void *mine = NULL, *other = NULL, *native_stream = NULL;
    uint64_t native = 0;
    mh_stream *stream = NULL;
    mh_buffer *memory = NULL;
    mh_device *device = NULL;
    mh_device_params params = MH_INIT(mh_device_params);
    (void)state;
    CU(cu.CtxCreate(&other, 0, 1));
    params.context = MH_CONTEXT_WRAP, params.native_context = (uint64_t)(uintptr_t)other;
    assert_int_equal(mh_device_open(runtime, "nvidia:0", &params, &device), MH_INVALID_ARGUMENT);
    assert_non_null(strstr(mh_last_message(), "of device 1, not 0"));
    CU(cu.StreamCreate(&native_stream, 1));
    CU(cu.MemAlloc(&native, 64));
    CU(cu.CtxCreate(&mine, 0, 0));
    device = open_device(MH_CONTEXT_WRAP, mine);
    assert_int_equal(mh_stream_wrap(device, (uint64_t)(uintptr_t)native_stream, &stream),
                     MH_INVALID_ARGUMENT);
    assert_int_equal(mh_buffer_wrap(device, native, 64, 0, NULL, NULL, &memory),
                     MH_INVALID_ARGUMENT);
    mh_device_release(device);
    CU(cu.CtxDestroy(mine));
    CU(cu.CtxSetCurrent(other));
    CU(cu.MemFree(native));
    CU(cu.CtxDestroy(other));
}

/* By its place on the bus and by its UUID, as nvidia-smi writes them. */
static void a_device_by_its_ids(void **state)
{
    char uri[80];
    mh_device *device = NULL;
    mh_device_info info = MH_INIT(mh_device_info);
    (void)state;
    OK(mh_device_open(runtime, "nvidia:0000:02:00.0", NULL, &device));
    assert_string_equal(mh_device_uri(device), "nvidia:1");
    OK(mh_device_get_info(device, &info));
    mh_device_release(device);
    const char *uuid = strchr(info.id, ' ');
    assert_non_null(uuid);
    assert_int_equal(strlen(uuid + 1), strlen("GPU-00000000-0000-0000-0000-000000000000"));
    assert_memory_equal(uuid + 1, "GPU-", 4);
    snprintf(uri, sizeof(uri), "nvidia:%s", uuid + 1);
    OK(mh_device_open(runtime, uri, NULL, &device));
    assert_string_equal(mh_device_uri(device), "nvidia:1");
    mh_device_release(device);
    uri[strlen(uri) - 1] = 0;
    assert_int_equal(mh_device_open(runtime, uri, NULL, &device), MH_NOT_FOUND);
    assert_int_equal(mh_device_open(runtime, "nvidia:0000:03:00.0", NULL, &device), MH_NOT_FOUND);
}

enum { LARGE = (9 << 20) + 12 };

/* Writes and reads back that many bytes; the copies to the device that it took. */
static uint64_t large_copy(mh_device *device, uint32_t salt, mh_status expected)
{
    mh_buffer *memory = NULL;
    uint32_t *sent = malloc(LARGE), *got = malloc(LARGE);
    assert_true(sent && got);
    for (uint32_t i = 0; i < LARGE / 4; i++)
        sent[i] = i * 2654435761u + salt;
    OK(mh_buffer_create(device, LARGE, 0, &memory));
    uint64_t before = counted(device, "copies_host_to_device");
    assert_int_equal(mh_buffer_write(memory, 0, sent, LARGE), expected);
    uint64_t copies = counted(device, "copies_host_to_device") - before;
    if (!expected) {
        OK(mh_buffer_read(memory, 0, got, LARGE));
        assert_memory_equal(sent, got, LARGE);
    }
    free(sent);
    free(got);
    mh_buffer_release(memory);
    return copies;
}

/* In three pieces, by the ring of pinned memory, which goes around twice. */
static void large_copies_arrive_whole(void **state)
{
    mh_device *device = open_device(MH_CONTEXT_OWN, NULL);
    (void)state;
    for (uint32_t n = 0; n < 3; n++)
        assert_int_equal(large_copy(device, n, MH_OK), 3);
    assert_int_equal(cu.faults("fail:cuMemcpyHtoDAsync:2"), 0);
    large_copy(device, 3, MH_VENDOR_ERROR);
    assert_int_equal(cu.faults(""), 0);
    assert_int_equal(large_copy(device, 4, MH_OK), 3);
    mh_device_release(device);
}

/* Without pinned memory they go at once. */
static void large_copies_without_pinned_memory(void **state)
{
    mh_device *device = open_device(MH_CONTEXT_OWN, NULL);
    (void)state;
    assert_int_equal(cu.faults("fail:cuMemHostAlloc:1"), 0);
    assert_int_equal(large_copy(device, 0, MH_OK), 1);
    assert_int_equal(cu.faults(""), 0);
    mh_device_release(device);
}

/* A name and a version of the table mean the function that the table's name exports. */
static void names_and_versions_agree(void **state)
{
    static const struct {
        const char *name;
        int version;
    } symbols[] = {
#define SYMBOL(need, result, field, name, version, args) {name, version},
#include <driver.def>
#undef SYMBOL
    };
    int (*ask)(const char *name, void **function, int version, uint64_t flags);
    void *library = dlopen(getenv("MOEHAL_NVIDIA_DRIVER"), RTLD_NOW);
    void *found = dlsym(library, "cuGetProcAddress");
    (void)state;
    memcpy(&ask, &found, sizeof(ask));
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        char name[64];
        void *function = NULL;
        const char *suffix = strstr(symbols[i].name, "_v");
        assert_true(strlen(symbols[i].name) < sizeof(name));
        strcpy(name, symbols[i].name);
        if (suffix)
            name[suffix - symbols[i].name] = 0;
        CU(ask(name, &function, symbols[i].version, 0));
        assert_ptr_equal(function, dlsym(library, symbols[i].name));
    }
    dlclose(library);
}

/* ---- kernels of users ---- */

static const char triple[] =
    ".version 7.4\n.target sm_80\n.address_size 64\n"
    ".visible .entry triple(.param .u64 y, .param .u64 x, .param .f32 add)\n"
    "{\n"
    "    .reg .u64 a, b, o;\n"
    "    .reg .u32 i;\n"
    "    .reg .f32 v, c;\n"
    "    ld.param.u64 a, [y];\n"
    "    ld.param.u64 b, [x];\n"
    "    ld.param.f32 c, [add];\n"
    "    mov.u32 i, %tid.x;\n"
    "    mul.wide.u32 o, i, 4;\n"
    "    add.u64 a, a, o;\n"
    "    add.u64 b, b, o;\n"
    "    ld.global.f32 v, [b];\n"
    "    fma.rn.f32 v, v, 0f40400000, c;\n"
    "    st.global.f32 [a], v;\n"
    "    ret;\n"
    "}\n";

static mh_status load(mh_device *device, const char *text, char log[512], mh_module **module)
{
    mh_module_params params = MH_INIT(mh_module_params);
    params.image = text, params.log = log, params.log_size = 512;
    return mh_module_load(device, &params, module);
}

/* y = 3 x + 1 of 32 values, in a stream and then, in place, in a graph. */
static void a_kernel_of_a_user(void **state)
{
    float image[64], add = 1;
    char log[512];
    mh_module *module = NULL;
    mh_kernel *kernel = NULL;
    mh_buffer *memory = NULL;
    mh_stream *stream = NULL;
    mh_graph *graph = NULL;
    mh_device *device = open_device(MH_CONTEXT_OWN, NULL);
    (void)state;
    for (int i = 0; i < 64; i++)
        image[i] = (float)(i % 32);
    OK(load(device, triple, log, &module));
    assert_non_null(strstr(log, "'triple'"));
    OK(mh_kernel_create(module, "triple", &kernel));
    OK(mh_buffer_create(device, sizeof(image), 0, &memory));
    OK(mh_buffer_write(memory, 0, image, sizeof(image)));
    OK(mh_stream_create(device, &stream));
    mh_kernel_arg args[3] = {{.kind = MH_ARG_TENSOR, .access = MH_OPERAND_WRITTEN},
                             {.kind = MH_ARG_TENSOR, .access = MH_OPERAND_READ},
                             {.kind = MH_ARG_VALUE, .size = 4}};
    args[0].tensor = mh_tensor_make(memory, 0, MH_F32, 1, (const int64_t[]){32});
    args[1].tensor = mh_tensor_make(memory, 128, MH_F32, 1, (const int64_t[]){32});
    memcpy(args[2].value, &add, 4);
    mh_op_kernel op = {.base = {.struct_size = sizeof(op), .op = MH_OP_KERNEL, .layer = -1},
                       .kernel = kernel,
                       .grid = {1, 1, 1},
                       .block = {32, 1, 1},
                       .args = args,
                       .arg_count = 3};
    OK(mh_encode(mh_stream_encoder(stream), &op.base));
    args[1].tensor = args[0].tensor; /* in place: 3 (3 x + 1) + 1 */
    args[0].access = args[1].access = MH_OPERAND_READ | MH_OPERAND_WRITTEN;
    OK(mh_graph_create(device, &graph));
    OK(mh_encode(mh_graph_encoder(graph), &op.base));
    OK(mh_graph_seal(graph));
    OK(mh_graph_launch(graph, stream));
    OK(mh_stream_wait(stream, MH_FOREVER));
    OK(mh_buffer_read(memory, 0, image, sizeof(image)));
    for (int i = 0; i < 32; i++)
        assert_true(image[i] == (float)(9 * i + 4));
    /* Another value: the driver's graph takes it, or, if it does not, is made anew. */
    for (int refused = 0; refused < 2; refused++) {
        add = (float)(refused + 2);
        memcpy(args[2].value, &add, 4);
        assert_int_equal(cu.faults(refused ? "fail:cuGraphExecKernelNodeSetParams:1"
                                           : "fail:cuGraphInstantiateWithFlags:1"),
                         0);
        OK(mh_graph_update(graph, 0, &op.base));
        assert_int_equal(cu.faults(""), 0);
        OK(mh_graph_launch(graph, stream));
        OK(mh_stream_wait(stream, MH_FOREVER));
    }
    OK(mh_buffer_read(memory, 0, image, sizeof(image)));
    for (int i = 0; i < 32; i++)
        assert_true(image[i] == (float)(3 * (3 * (9 * i + 4) + 2) + 3));
    /* And where neither can be had, the graph stays what it was. */
    assert_int_equal(cu.faults("fail:cuGraphExecKernelNodeSetParams:1,fail:cuGraphCreate:1"), 0);
    assert_int_not_equal(mh_graph_update(graph, 0, &op.base), MH_OK);
    assert_int_equal(cu.faults(""), 0);
    OK(mh_graph_launch(graph, stream));
    OK(mh_stream_wait(stream, MH_FOREVER));
    op.block[0] = 2048;
    assert_int_equal(mh_encode(mh_stream_encoder(stream), &op.base), MH_UNSUPPORTED);
    assert_non_null(strstr(mh_last_message(), "2048"));
    mh_graph_release(graph);
    mh_stream_release(stream);
    mh_buffer_release(memory);
    mh_kernel_release(kernel);
    mh_module_release(module);
    mh_device_release(device);
}

static void a_text_that_does_not_compile(void **state)
{
    char log[512], text[sizeof(triple)];
    mh_module *module = NULL;
    mh_kernel *kernel = NULL;
    mh_device *device = open_device(MH_CONTEXT_OWN, NULL);
    (void)state;
    memcpy(text, triple, sizeof(triple));
    memcpy(strstr(text, "fma.rn.f32"), "fmo", 3);
    assert_int_equal(load(device, text, log, &module), MH_BAD_DATA);
    assert_non_null(strstr(log, "fmo"));
    OK(load(device, triple, log, &module));
    assert_int_equal(mh_kernel_create(module, "quadruple", &kernel), MH_NOT_FOUND);
    assert_non_null(strstr(mh_last_message(), "quadruple"));
    mh_module_release(module);
    mh_device_release(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_device_by_its_ids),
                                       cmocka_unit_test(primary_is_held_and_never_reset),
                                       cmocka_unit_test(wrapped_context_stream_and_memory),
                                       cmocka_unit_test(what_is_of_another_context_is_refused),
                                       cmocka_unit_test(large_copies_arrive_whole),
                                       cmocka_unit_test(large_copies_without_pinned_memory),
                                       cmocka_unit_test(names_and_versions_agree),
                                       cmocka_unit_test(a_kernel_of_a_user),
                                       cmocka_unit_test(a_text_that_does_not_compile)};
    return cmocka_run_group_tests(tests, find_driver, drop_runtime);
}
