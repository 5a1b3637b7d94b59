/* A program against Debian's HIP headers, linked with -lamdhip64 and run on the
 * virtual runtime: every part of the API but the kernels' results
 * (test_kernels.c).
 *
 *   test_runtime OBJECTS KERNELS    (tests/fuzz/seeds/code_object, and where
 * basic-O3.co lies) */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <hip/hip_runtime_api.h>
#include <moehal_virtual.h>

static const char *objects, *kernels;

#define OK(call) assert_int_equal(call, hipSuccess)
#define REFUSED(call, code) assert_int_equal(call, code)

static hipModule_t load(const char *folder, const char *name)
{
    char path[4096];
    hipModule_t module = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    OK(hipModuleLoad(&module, path));
    return module;
}

static int reset(void **state)
{
    (void)state;
    moehal_virtual_faults(NULL);
    for (int d = 1; d >= 0; d--) {
        OK(hipSetDevice(d));
        OK(hipDeviceReset());
    }
    moehal_virtual_reports_clear();
    moehal_virtual_reports_quiet(0);
    hipGetLastError();
    return 0;
}

/* ---- devices ---- */

static void devices(void **state)
{
    int count, value, device;
    char text[256];
    hipDeviceProp_t p;
    (void)state;
    OK(hipInit(0));
    OK(hipGetDeviceCount(&count));
    assert_int_equal(count, 2); /* by the environment */
    OK(hipGetDeviceProperties(&p, 1));
    assert_memory_equal(p.name, "Virtual ", 8);
    assert_string_equal(p.gcnArchName, "gfx942:sramecc+:xnack-");
    assert_int_equal(p.warpSize, 64);
    assert_int_equal(p.multiProcessorCount, 304);
    assert_int_equal(p.sharedMemPerBlock, 65536);
    assert_true(p.arch.hasDoubles && p.arch.hasWarpShuffle && !p.arch.hasDynamicParallelism);
    OK(hipDeviceGetAttribute(&value, hipDeviceAttributeWarpSize, 0));
    assert_int_equal(value, 64);
    OK(hipDeviceGetAttribute(&value, hipDeviceAttributeComputeCapabilityMajor, 0));
    assert_int_equal(value, 9);
    REFUSED(hipDeviceGetAttribute(&value, hipDeviceAttributeWarpSize, 2), hipErrorInvalidDevice);
    REFUSED(hipSetDevice(2), hipErrorInvalidDevice);
    OK(hipSetDevice(1));
    OK(hipGetDevice(&device));
    assert_int_equal(device, 1);
    OK(hipDeviceGetPCIBusId(text, sizeof text, 1));
    OK(hipDeviceGetByPCIBusId(&device, text));
    assert_int_equal(device, 1);
    OK(hipSetDevice(0));
}

static void errors(void **state)
{
    (void)state;
    hipGetLastError();
    assert_string_equal(hipGetErrorName(hipErrorNoBinaryForGpu), "hipErrorNoBinaryForGpu");
    assert_string_equal(hipGetErrorString(hipErrorOutOfMemory), "out of memory");
    REFUSED(hipMalloc(NULL, 1), hipErrorInvalidValue);
    assert_int_equal(hipPeekAtLastError(), hipErrorInvalidValue);
    assert_int_equal(hipGetLastError(), hipErrorInvalidValue);
    assert_int_equal(hipGetLastError(), hipSuccess);
    hipArray_t array;
    REFUSED(hipMallocArray(&array, NULL, 1, 1, 0), hipErrorNotSupported);
}

/* ---- memory ---- */

static void memory(void **state)
{
    size_t before, after, total, size;
    hipPointerAttribute_t a;
    hipDeviceptr_t base;
    void *p, *host;
    (void)state;
    OK(hipMemGetInfo(&before, &total));
    OK(hipMalloc(&p, 1000000));
    OK(hipMemGetInfo(&after, &total));
    assert_true(before - after >= 1000000);
    OK(hipPointerGetAttributes(&a, (char *)p + 10));
    assert_int_equal(a.memoryType, hipMemoryTypeDevice);
    OK(hipMemGetAddressRange(&base, &size, (char *)p + 999999));
    assert_ptr_equal(base, p);
    assert_int_equal(size, 1000000);
    REFUSED(hipMemGetAddressRange(&base, &size, (char *)p + 1000000), hipErrorInvalidDevicePointer);
    REFUSED(hipFree((char *)p + 4), hipErrorInvalidValue);
    REFUSED(hipHostFree(p), hipErrorInvalidValue);
    OK(hipFree(p));
    REFUSED(hipFree(p), hipErrorInvalidValue);
    OK(hipFree(NULL));
    OK(hipHostMalloc(&host, 100, 0));
    OK(hipPointerGetAttributes(&a, host));
    assert_int_equal(a.memoryType, hipMemoryTypeHost);
    OK(hipHostFree(host));
    REFUSED(hipPointerGetAttributes(&a, &size), hipErrorInvalidValue);
    OK(hipHostRegister(&size, sizeof size, 0));
    OK(hipPointerGetAttributes(&a, &size));
    OK(hipHostUnregister(&size));
    REFUSED(hipMalloc(&p, (size_t)1 << 60), hipErrorOutOfMemory);
    moehal_virtual_faults("oom:1M");
    REFUSED(hipMalloc(&p, 2 << 20), hipErrorOutOfMemory);
    OK(hipMalloc(&p, 512 << 10));
    OK(hipFree(p));
}

static void copies(void **state)
{
    uint8_t in[600], out[600];
    uint16_t words[100];
    void *p, *q;
    (void)state;
    for (int i = 0; i < 600; i++)
        in[i] = (uint8_t)(i * 7);
    OK(hipMalloc(&p, 600));
    OK(hipMalloc(&q, 600));
    OK(hipMemcpy(p, in, 600, hipMemcpyHostToDevice));
    OK(hipMemcpy(q, p, 600, hipMemcpyDeviceToDevice));
    OK(hipMemcpy(out, q, 600, hipMemcpyDefault));
    assert_memory_equal(in, out, 600);
    /* rows of 20 out of rows of 30, to rows of 25 */
    OK(hipMemcpy2D(q, 25, in, 30, 20, 20, hipMemcpyHostToDevice));
    OK(hipMemcpyDtoH(out, q, 500));
    for (int y = 0; y < 20; y++)
        assert_memory_equal(out + 25 * y, in + 30 * y, 20);
    OK(hipMemsetD16(p, 0x1234, 100));
    OK(hipMemcpyDtoH(words, p, 200));
    assert_int_equal(words[99], 0x1234);
    OK(hipMemset2D(p, 30, 9, 10, 2));
    OK(hipMemcpyDtoH(out, p, 60));
    assert_true(out[9] == 9 && out[39] == 9 && out[10] == 0x34);
    REFUSED(hipMemcpy2D(q, 10, in, 30, 20, 20, hipMemcpyHostToDevice), hipErrorInvalidPitchValue);
    REFUSED(hipMemcpy(p, in, 1, 7), hipErrorInvalidMemcpyDirection);
    /* out of bounds: refused, and said */
    moehal_virtual_reports_quiet(1);
    REFUSED(hipMemcpy(p, in, 601, hipMemcpyHostToDevice), hipErrorInvalidValue);
    REFUSED(hipMemset((char *)p + 599, 0, 2), hipErrorInvalidValue);
    OK(hipFree(p));
    REFUSED(hipMemcpy(p, in, 1, hipMemcpyHostToDevice), hipErrorInvalidValue);
    const char *check;
    assert_int_equal(moehal_virtual_report_count(), 3);
    assert_int_equal(moehal_virtual_report_at(2, &check, NULL, NULL, NULL), 0);
    assert_string_equal(check, "use-after-free");
    OK(hipFree(q));
}

static void pools(void **state)
{
    uint64_t used;
    hipMemPool_t pool;
    void *p;
    (void)state;
    OK(hipDeviceGetDefaultMemPool(&pool, 0));
    OK(hipMallocAsync(&p, 4096, NULL));
    OK(hipMemPoolGetAttribute(pool, hipMemPoolAttrUsedMemCurrent, &used));
    assert_int_equal(used, 4096);
    OK(hipMemsetAsync(p, 1, 4096, NULL));
    OK(hipFreeAsync(p, NULL));
    OK(hipStreamSynchronize(NULL));
    OK(hipMemPoolGetAttribute(pool, hipMemPoolAttrUsedMemCurrent, &used));
    assert_int_equal(used, 0);
}

/* ---- streams and events ---- */

static int order[16], order_count;

static void note(void *user)
{
    order[order_count++ & 15] = (int)(intptr_t)user;
}

static void slow_note(void *user)
{
    usleep(20000);
    note(user);
}

static void on_stream(hipStream_t stream, hipError_t status, void *user)
{
    (void)stream;
    note(user);
    order[order_count++ & 15] = (int)status;
}

static void streams(void **state)
{
    hipStream_t a, b, free_stream;
    hipEvent_t event, early;
    float ms;
    (void)state;
    order_count = 0;
    OK(hipStreamCreateWithFlags(&a, hipStreamNonBlocking));
    OK(hipStreamCreateWithFlags(&b, hipStreamNonBlocking));
    OK(hipEventCreate(&event));
    OK(hipEventCreate(&early));
    OK(hipEventRecord(early, a));
    OK(hipLaunchHostFunc(a, slow_note, (void *)1));
    OK(hipEventRecord(event, a));
    OK(hipStreamWaitEvent(b, event, 0));
    OK(hipLaunchHostFunc(b, note, (void *)2));
    OK(hipStreamAddCallback(b, on_stream, (void *)3, 0));
    OK(hipStreamSynchronize(b));
    assert_int_equal(order_count, 4);
    assert_true(order[0] == 1 && order[1] == 2 && order[2] == 3 && order[3] == hipSuccess);
    OK(hipEventQuery(event));
    OK(hipEventElapsedTime(&ms, early, event));
    assert_true(ms >= 0);
    /* the null stream waits for blocking streams */
    OK(hipStreamCreate(&free_stream));
    OK(hipLaunchHostFunc(free_stream, slow_note, (void *)4));
    REFUSED(hipStreamQuery(free_stream), hipErrorNotReady);
    OK(hipLaunchHostFunc(NULL, note, (void *)5));
    OK(hipStreamSynchronize(NULL));
    assert_true(order[4] == 4 && order[5] == 5);
    OK(hipStreamDestroy(a));
    OK(hipStreamDestroy(b));
    OK(hipStreamDestroy(free_stream));
    REFUSED(hipStreamSynchronize(a), hipErrorInvalidHandle);
    OK(hipEventDestroy(event));
    OK(hipEventDestroy(early));
    REFUSED(hipEventQuery(event), hipErrorInvalidHandle);
}

static void values(void **state)
{
    hipStream_t stream;
    uint32_t *flag;
    (void)state;
    order_count = 0;
    OK(hipStreamCreateWithFlags(&stream, hipStreamNonBlocking));
    OK(hipHostMalloc((void **)&flag, 4, 0));
    *flag = 0;
    OK(hipStreamWaitValue32(stream, flag, 3, hipStreamWaitValueGte, ~0u));
    OK(hipLaunchHostFunc(stream, note, (void *)1));
    REFUSED(hipStreamQuery(stream), hipErrorNotReady);
    OK(hipStreamWriteValue32(NULL, flag, 3, 0));
    OK(hipStreamSynchronize(stream));
    assert_int_equal(order_count, 1);
    OK(hipStreamDestroy(stream));
    OK(hipHostFree(flag));
}

static void *thread_body(void *arg)
{
    int mine = (int)(intptr_t)arg, got;
    void *p;
    OK(hipSetDevice(mine & 1));
    for (int i = 0; i < 50; i++) {
        OK(hipMalloc(&p, 64));
        int value = 1000 * mine + i;
        OK(hipMemcpyAsync(p, &value, 4, hipMemcpyHostToDevice, hipStreamPerThread));
        OK(hipMemcpyAsync(&got, p, 4, hipMemcpyDeviceToHost, hipStreamPerThread));
        OK(hipStreamSynchronize(hipStreamPerThread));
        assert_int_equal(got, value);
        OK(hipFree(p));
    }
    return NULL;
}

static void threads(void **state)
{
    pthread_t thread[4];
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, thread_body, (void *)(intptr_t)i), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
}

/* ---- modules ---- */

static void modules(void **state)
{
    hipModule_t module;
    hipFunction_t f;
    hipDeviceptr_t at;
    size_t bytes;
    int value;
    char path[4096];
    (void)state;
    snprintf(path, sizeof path, "%s/gfx90a.co", objects);
    REFUSED(hipModuleLoad(&module, path), hipErrorNoBinaryForGpu);
    snprintf(path, sizeof path, "%s/compressed.hipfb", objects);
    REFUSED(hipModuleLoad(&module, path), hipErrorInvalidImage);
    REFUSED(hipModuleLoad(&module, "/no/such/file"), hipErrorFileNotFound);
    REFUSED(hipModuleLoadData(&module, "neither ELF nor a bundle"), hipErrorInvalidImage);
    module = load(objects, "two.hipfb");
    OK(hipModuleGetFunction(&f, module, "add"));
    REFUSED(hipModuleGetFunction(&f, module, "subtract"), hipErrorNotFound);
    OK(hipModuleGetGlobal(&at, &bytes, module, "counter"));
    assert_int_equal(bytes, 4);
    OK(hipMemcpyDtoH(&value, at, 4));
    assert_int_equal(value, 5);
    OK(hipFuncGetAttribute(&value, HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, f));
    assert_int_equal(value, 256);
    OK(hipFuncGetAttribute(&value, HIP_FUNC_ATTRIBUTE_NUM_REGS, f));
    assert_true(value >= 4 && value <= 64);
    OK(hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(&value, f, 256, 0));
    assert_int_equal(value, 8); /* 32 waves a compute unit, 4 a block */
    OK(hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(&value, f, 64, 32768 - 256));
    assert_int_equal(value, 2); /* by LDS */
    int grid, block;
    OK(hipModuleOccupancyMaxPotentialBlockSize(&grid, &block, f, 0, 0));
    assert_true(block == 1024 && grid == 2 * 304);
    OK(hipModuleUnload(module));
    REFUSED(hipFuncGetAttribute(&value, HIP_FUNC_ATTRIBUTE_NUM_REGS, f),
            hipErrorInvalidDeviceFunction);
    REFUSED(hipModuleUnload(module), hipErrorInvalidHandle);
}

/* ---- launches ---- */

enum { N = 100 };

/* a[i] += b[rotated by one in its 64] + table[i & 3] + 5 */
static float added(int i)
{
    int block = i / 64 * 64, next = block + (i + 1) % 64;
    return (float)i + (next < N ? 10.0f * (float)next : 0) + (float)(1 + (i & 3)) + 5;
}

struct buffers {
    float *a, *b;
};

static struct buffers make_buffers(void)
{
    struct buffers x;
    float a[128], b[128];
    for (int i = 0; i < 128; i++) {
        a[i] = (float)i;
        b[i] = i < N ? 10.0f * (float)i : 0;
    }
    OK(hipMalloc((void **)&x.a, sizeof a));
    OK(hipMalloc((void **)&x.b, sizeof b));
    OK(hipMemcpy(x.a, a, sizeof a, hipMemcpyHostToDevice));
    OK(hipMemcpy(x.b, b, sizeof b, hipMemcpyHostToDevice));
    return x;
}

static void check_buffers(struct buffers x, bool ran)
{
    float a[128];
    OK(hipMemcpy(a, x.a, sizeof a, hipMemcpyDeviceToHost));
    for (int i = 0; i < 128; i++)
        assert_true(a[i] == (ran && i < N ? added(i) : (float)i));
    OK(hipFree(x.a));
    OK(hipFree(x.b));
}

static void launches(void **state)
{
    hipModule_t module = load(objects, "v5-O3.co");
    hipFunction_t f;
    int n = N;
    (void)state;
    OK(hipModuleGetFunction(&f, module, "add"));
    struct buffers x = make_buffers();
    void *params[] = {&x.a, &x.b, &n};
    OK(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    check_buffers(x, true);

    x = make_buffers();
    struct {
        float *a, *b;
        int n;
    } packed = {x.a, x.b, n};
    size_t size = sizeof packed, short_size = 16;
    void *extra[] = {HIP_LAUNCH_PARAM_BUFFER_POINTER, &packed, HIP_LAUNCH_PARAM_BUFFER_SIZE, &size,
                     HIP_LAUNCH_PARAM_END};
    OK(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, NULL, extra));
    check_buffers(x, true);
    extra[3] = &short_size;
    REFUSED(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, NULL, extra),
            hipErrorInvalidValue);

    REFUSED(hipModuleLaunchKernel(f, 0, 1, 1, 64, 1, 1, 0, NULL, params, NULL),
            hipErrorInvalidConfiguration);
    REFUSED(hipModuleLaunchKernel(f, 1, 1, 1, 1025, 1, 1, 0, NULL, params, NULL),
            hipErrorInvalidConfiguration);
    REFUSED(hipModuleLaunchKernel(f, 1, 1, 1, 64, 1, 1, 65536, NULL, params, NULL),
            hipErrorInvalidConfiguration);
    REFUSED(hipModuleLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, NULL, NULL), hipErrorInvalidValue);
    REFUSED(hipLaunchCooperativeKernel(f, (dim3){1000000, 1, 1}, (dim3){64, 1, 1}, params, 0, NULL),
            hipErrorCooperativeLaunchTooLarge);
    hipStream_t other;
    OK(hipSetDevice(1));
    OK(hipStreamCreate(&other));
    OK(hipSetDevice(0));
    REFUSED(hipModuleLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, other, params, NULL),
            hipErrorInvalidHandle);
    OK(hipStreamDestroy(other));
    OK(hipModuleUnload(module));
}

/* A module may go while its kernel waits in a queue. */
static void unload_early(void **state)
{
    hipModule_t module = load(objects, "v4-O0.co");
    hipFunction_t f;
    int n = N;
    (void)state;
    OK(hipModuleGetFunction(&f, module, "add"));
    struct buffers x = make_buffers();
    void *params[] = {&x.a, &x.b, &n};
    OK(hipLaunchHostFunc(NULL, slow_note, NULL));
    OK(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    OK(hipModuleUnload(module));
    check_buffers(x, true);
}

/* ---- graphs ---- */

static void graphs(void **state)
{
    hipModule_t module = load(objects, "v6-preload.co");
    hipFunction_t f;
    hipGraph_t graph;
    hipGraphExec_t exec;
    hipGraphNode_t zero, kernel, copy;
    float *out;
    int n = N;
    size_t count;
    (void)state;
    OK(hipModuleGetFunction(&f, module, "add"));
    struct buffers x = make_buffers();
    OK(hipHostMalloc((void **)&out, 512, 0));
    void *params[] = {&x.a, &x.b, &n};
    hipMemsetParams fill = {.dst = x.a, .elementSize = 4, .height = 1, .width = 128};
    hipKernelNodeParams launch = {
        .func = f, .gridDim = {2, 1, 1}, .blockDim = {64, 1, 1}, .kernelParams = params};
    OK(hipGraphCreate(&graph, 0));
    OK(hipGraphAddMemsetNode(&zero, graph, NULL, 0, &fill));
    OK(hipGraphAddKernelNode(&kernel, graph, &zero, 1, &launch));
    OK(hipGraphAddMemcpyNode1D(&copy, graph, NULL, 0, out, x.a, 512, hipMemcpyDeviceToHost));
    OK(hipGraphAddDependencies(graph, &kernel, &copy, 1));
    OK(hipGraphGetNodes(graph, NULL, &count));
    assert_int_equal(count, 3);
    OK(hipGraphGetRootNodes(graph, NULL, &count));
    assert_int_equal(count, 1);
    OK(hipGraphInstantiate(&exec, graph, NULL, NULL, 0));
    for (int round = 0; round < 2; round++) {
        memset(out, 0, 512);
        OK(hipGraphLaunch(exec, NULL));
        OK(hipStreamSynchronize(NULL));
        for (int i = 0; i < N; i++)
            assert_true(out[i] == added(i) - (float)i);
    }
    n = 1; /* parameters were copied; now one element only */
    OK(hipGraphExecKernelNodeSetParams(exec, kernel, &launch));
    OK(hipGraphLaunch(exec, NULL));
    OK(hipStreamSynchronize(NULL));
    assert_true(out[0] == added(0) && out[1] == 0);
    OK(hipGraphAddDependencies(graph, &copy, &zero, 1));
    hipGraphExec_t circle;
    REFUSED(hipGraphInstantiate(&circle, graph, NULL, NULL, 0), hipErrorInvalidValue);
    OK(hipGraphExecDestroy(exec));
    OK(hipGraphDestroy(graph));
    OK(hipModuleUnload(module));
    OK(hipHostFree(out));
    OK(hipFree(x.a));
    OK(hipFree(x.b));
}

/* A graph in a graph, cloned: its nodes come between what is before and after
 * it. */
static void child_graphs(void **state)
{
    hipGraph_t child, parent, clone;
    hipGraphNode_t first, inner[2], node, last;
    hipGraphNodeType type;
    hipGraphExec_t exec;
    hipHostNodeParams say = {.fn = note};
    size_t count;
    (void)state;
    order_count = 0;
    OK(hipGraphCreate(&child, 0));
    OK(hipGraphCreate(&parent, 0));
    say.userData = (void *)2;
    OK(hipGraphAddHostNode(&inner[0], child, NULL, 0, &say));
    say.userData = (void *)3;
    OK(hipGraphAddHostNode(&inner[1], child, &inner[0], 1, &say));
    say.userData = (void *)4;
    OK(hipGraphAddHostNode(&last, parent, NULL, 0, &say));
    say.userData = (void *)1;
    OK(hipGraphAddHostNode(&first, parent, NULL, 0, &say));
    OK(hipGraphAddChildGraphNode(&node, parent, &first, 1, child));
    OK(hipGraphAddDependencies(parent, &node, &last, 1));
    OK(hipGraphNodeGetType(node, &type));
    assert_int_equal(type, hipGraphNodeTypeGraph);
    OK(hipGraphNodeGetDependentNodes(first, NULL, &count));
    assert_int_equal(count, 1);
    OK(hipGraphDestroy(child)); /* it was copied */
    OK(hipGraphClone(&clone, parent));
    OK(hipGraphDestroy(parent));
    REFUSED(hipGraphNodeGetType(node, &type), hipErrorInvalidValue);
    OK(hipGraphInstantiate(&exec, clone, NULL, NULL, 0));
    OK(hipGraphLaunch(exec, NULL));
    OK(hipGraphExecDestroy(exec)); /* it runs still */
    OK(hipStreamSynchronize(NULL));
    assert_int_equal(order_count, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(order[i], i + 1);
    OK(hipGraphDestroy(clone));
}

static void captures(void **state)
{
    hipStream_t stream, side;
    hipEvent_t fork, join;
    hipGraph_t graph;
    hipGraphExec_t exec;
    hipStreamCaptureStatus status;
    size_t nodes, edges;
    (void)state;
    order_count = 0;
    OK(hipStreamCreateWithFlags(&stream, hipStreamNonBlocking));
    OK(hipStreamCreateWithFlags(&side, hipStreamNonBlocking));
    OK(hipEventCreate(&fork));
    OK(hipEventCreate(&join));
    OK(hipStreamBeginCapture(stream, hipStreamCaptureModeGlobal));
    OK(hipLaunchHostFunc(stream, note, (void *)1));
    OK(hipEventRecord(fork, stream));
    OK(hipStreamWaitEvent(side, fork, 0));
    OK(hipLaunchHostFunc(side, note, (void *)2));
    OK(hipStreamIsCapturing(side, &status));
    assert_int_equal(status, hipStreamCaptureStatusActive);
    OK(hipEventRecord(join, side));
    OK(hipStreamWaitEvent(stream, join, 0));
    OK(hipLaunchHostFunc(stream, note, (void *)3));
    REFUSED(hipStreamSynchronize(stream), hipErrorStreamCaptureUnsupported);
    OK(hipStreamEndCapture(stream, &graph));
    assert_int_equal(order_count, 0); /* nothing ran */
    OK(hipGraphGetNodes(graph, NULL, &nodes));
    OK(hipGraphGetEdges(graph, NULL, NULL, &edges));
    assert_int_equal(nodes, 3);
    assert_int_equal(edges, 3); /* 1-2, 1-3, 2-3 */
    OK(hipGraphInstantiateWithFlags(&exec, graph, 0));
    OK(hipGraphDestroy(graph));
    OK(hipGraphLaunch(exec, stream));
    OK(hipStreamSynchronize(stream));
    assert_true(order_count == 3 && order[0] == 1 && order[1] == 2 && order[2] == 3);
    OK(hipGraphExecDestroy(exec));
    /* a fork that is not joined */
    OK(hipStreamBeginCapture(stream, hipStreamCaptureModeGlobal));
    OK(hipEventRecord(fork, stream));
    OK(hipStreamWaitEvent(side, fork, 0));
    OK(hipLaunchHostFunc(side, note, (void *)2));
    REFUSED(hipStreamEndCapture(stream, &graph), hipErrorStreamCaptureUnjoined);
    REFUSED(hipStreamEndCapture(stream, &graph), hipErrorIllegalState);
    OK(hipStreamDestroy(stream));
    OK(hipStreamDestroy(side));
    OK(hipEventDestroy(fork));
    OK(hipEventDestroy(join));
}

/* ---- peers ---- */

static void peers(void **state)
{
    hipModule_t module;
    hipFunction_t f;
    int can, n = N;
    (void)state;
    OK(hipDeviceCanAccessPeer(&can, 0, 1));
    assert_int_equal(can, 1);
    OK(hipSetDevice(1));
    struct buffers x = make_buffers(); /* memory of device 1 */
    OK(hipSetDevice(0));
    module = load(objects, "v5-O3.co");
    OK(hipModuleGetFunction(&f, module, "add"));
    void *params[] = {&x.a, &x.b, &n};
    OK(hipDeviceEnablePeerAccess(1, 0));
    REFUSED(hipDeviceEnablePeerAccess(1, 0), hipErrorPeerAccessAlreadyEnabled);
    OK(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    OK(hipDeviceSynchronize());
    OK(hipDeviceDisablePeerAccess(1));
    REFUSED(hipDeviceDisablePeerAccess(1), hipErrorPeerAccessNotEnabled);
    moehal_virtual_reports_quiet(1);
    OK(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    REFUSED(hipDeviceSynchronize(), hipErrorIllegalAddress);
    OK(hipDeviceReset());
    OK(hipSetDevice(1));
    check_buffers(x, true);
    OK(hipSetDevice(0));
}

/* ---- faults ---- */

static void faults(void **state)
{
    hipModule_t module;
    hipFunction_t f;
    int n = N, zero[64] = {-1};
    void *p;
    (void)state;
    moehal_virtual_faults("fail:hipMalloc:2:2");
    OK(hipMalloc(&p, 16));
    OK(hipFree(p));
    REFUSED(hipMalloc(&p, 16), hipErrorOutOfMemory);
    OK(hipMalloc(&p, 16));

    /* a kernel that traps: the error sticks until the reset */
    module = load(kernels, "basic-O3.co");
    OK(hipModuleGetFunction(&f, module, "trap_if"));
    OK(hipMalloc(&p, sizeof zero));
    OK(hipMemcpy(p, zero, sizeof zero, hipMemcpyHostToDevice));
    void *trap_params[] = {&p};
    OK(hipModuleLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, trap_params, NULL));
    REFUSED(hipDeviceSynchronize(), hipErrorLaunchFailure);
    REFUSED(hipMalloc(&p, 16), hipErrorLaunchFailure);
    OK(hipDeviceReset());
    OK(hipMalloc(&p, 16));

    /* one that never ends */
    module = load(kernels, "basic-O3.co");
    OK(hipModuleGetFunction(&f, module, "endless"));
    OK(hipMemset(p, 0, 16));
    moehal_virtual_set("time_limit_ms", "200");
    OK(hipModuleLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, trap_params, NULL));
    REFUSED(hipDeviceSynchronize(), hipErrorLaunchTimeOut);
    moehal_virtual_set("time_limit_ms", "0");
    OK(hipDeviceReset());

    module = load(objects, "v5-O3.co");
    OK(hipModuleGetFunction(&f, module, "add"));
    struct buffers x = make_buffers();
    void *params[] = {&x.a, &x.b, &n};
    moehal_virtual_faults("ecc:1");
    OK(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    REFUSED(hipDeviceSynchronize(), hipErrorECCNotCorrectable);
    OK(hipDeviceReset());

    module = load(objects, "v5-O3.co");
    OK(hipModuleGetFunction(&f, module, "add"));
    x = make_buffers(); /* params point to it */
    assert_non_null(x.a);
    moehal_virtual_set("time_limit_ms", "50");
    moehal_virtual_faults("hang:2");
    OK(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    OK(hipDeviceSynchronize());
    OK(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    REFUSED(hipDeviceSynchronize(), hipErrorLaunchTimeOut);
    moehal_virtual_set("time_limit_ms", "0");
    OK(hipDeviceReset());
}

/* Last: the device does not come back. */
static void lost(void **state)
{
    hipModule_t module;
    hipFunction_t f;
    int n = N;
    (void)state;
    OK(hipSetDevice(1));
    module = load(objects, "v5-O3.co");
    OK(hipModuleGetFunction(&f, module, "add"));
    struct buffers x = make_buffers();
    void *params[] = {&x.a, &x.b, &n};
    moehal_virtual_faults("lost:1");
    OK(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    REFUSED(hipDeviceSynchronize(), hipErrorUnknown);
    OK(hipSetDevice(0));
    x = make_buffers(); /* the other is well */
    check_buffers(x, false);
}

static void counters(void **state)
{
    hipModule_t module = load(objects, "v5-O3.co");
    hipFunction_t f;
    uint64_t value;
    const char *kernel;
    int n = N;
    (void)state;
    OK(hipModuleGetFunction(&f, module, "add"));
    struct buffers x = make_buffers();
    void *params[] = {&x.a, &x.b, &n};
    moehal_virtual_counters_reset(0);
    OK(hipModuleLaunchKernel(f, 2, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    OK(hipDeviceSynchronize());
    assert_int_equal(moehal_virtual_counter(0, "launches", &value), 0);
    assert_int_equal(value, 1);
    assert_int_equal(moehal_virtual_counter(0, "store_bytes", &value), 0);
    assert_int_equal(value, 4 * N);
    assert_int_equal(moehal_virtual_counter(0, "barriers", &value), 0);
    assert_int_equal(value, 2);
    assert_int_equal(moehal_virtual_kernel_at(0, 0, &kernel, &value), 0);
    assert_string_equal(kernel, "add");
    check_buffers(x, true);
    OK(hipModuleUnload(module));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, reset)
        TEST(devices),      TEST(errors), TEST(memory),       TEST(copies),   TEST(pools),
        TEST(streams),      TEST(values), TEST(threads),      TEST(modules),  TEST(launches),
        TEST(unload_early), TEST(graphs), TEST(child_graphs), TEST(captures), TEST(peers),
        TEST(counters),     TEST(faults), TEST(lost),
    };
    objects = argc > 1 ? argv[1] : ".";
    kernels = argc > 2 ? argv[2] : ".";
    if (argc > 3)
        cmocka_set_test_filter(argv[3]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
