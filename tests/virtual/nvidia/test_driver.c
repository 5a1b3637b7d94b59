/* The driver without kernels: devices, contexts, memory, copies, streams, events, graphs, faults.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_calls.h"
#include "moehal_virtual.h"

#define ok(call) assert_int_equal(call, CUDA_SUCCESS)

static CUcontext context;

static int setup(void **state)
{
    (void)state;
    moehal_virtual_reports_clear();
    moehal_virtual_reports_quiet(1);
    moehal_virtual_faults(NULL);
    return cuCtxCreate_v2(&context, 0, 0) != CUDA_SUCCESS;
}

static int teardown(void **state)
{
    (void)state;
    moehal_virtual_faults(NULL);
    return cuCtxDestroy_v2(context) != CUDA_SUCCESS;
}

static uint64_t counter(int device, const char *name)
{
    uint64_t value;
    assert_int_equal(moehal_virtual_counter(device, name, &value), 0);
    return value;
}

/* How many reports of a check there are. */
static int reported(const char *check)
{
    const char *name;
    int n = 0;
    for (uint64_t i = 0; !moehal_virtual_report_at(i, &name, NULL, NULL, NULL); i++)
        n += !strcmp(name, check);
    return n;
}

static void devices(void **state)
{
    (void)state;
    int count, value;
    char name[100];
    size_t bytes;
    CUdevice device;
    ok(cuDeviceGetCount(&count));
    assert_int_equal(count, 4); /* the test's environment */
    ok(cuDeviceGetName(name, sizeof name, 3));
    assert_non_null(strstr(name, "Virtual"));
    assert_int_equal(cuDeviceGet(&device, 4), CUDA_ERROR_INVALID_DEVICE);
    assert_int_equal(cuDeviceGet(&device, -1), CUDA_ERROR_INVALID_DEVICE);
    ok(cuDeviceTotalMem_v2(&bytes, 0));
    assert_int_equal(bytes, (size_t)1 << 30);
    ok(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0));
    assert_int_equal(value, 9);
    assert_int_equal(cuDeviceGetAttribute(&value, 0, 0), CUDA_ERROR_INVALID_VALUE);
    assert_non_null(dlsym(RTLD_DEFAULT, "moehal_virtual_driver"));
}

static void contexts(void **state)
{
    (void)state;
    CUcontext other, now, primary, again;
    CUdeviceptr p;
    ok(cuCtxCreate_v2(&other, 0, 1));
    ok(cuCtxGetCurrent(&now));
    assert_ptr_equal(now, other);
    ok(cuMemAlloc_v2(&p, 100));
    ok(cuCtxDestroy_v2(other));
    assert_int_equal(reported("leak"), 1);
    ok(cuCtxGetCurrent(&now));
    assert_ptr_equal(now, context);
    assert_int_equal(cuCtxSetCurrent(other), CUDA_ERROR_INVALID_CONTEXT);
    ok(cuDevicePrimaryCtxRetain(&primary, 1));
    ok(cuDevicePrimaryCtxRetain(&again, 1));
    assert_ptr_equal(primary, again);
    ok(cuDevicePrimaryCtxRelease_v2(1));
    ok(cuCtxPushCurrent_v2(primary));
    ok(cuCtxPopCurrent_v2(&now));
    assert_ptr_equal(now, primary);
    ok(cuDevicePrimaryCtxRelease_v2(1));
    assert_int_equal(cuDevicePrimaryCtxRelease_v2(1), CUDA_ERROR_INVALID_CONTEXT);
}

static void memory(void **state)
{
    (void)state;
    CUdeviceptr p, q, base;
    size_t size, before, after, total;
    unsigned char bytes[300], back[300];
    unsigned type;
    for (int i = 0; i < 300; i++)
        bytes[i] = (unsigned char)(i * 7);
    ok(cuMemGetInfo_v2(&before, &total));
    ok(cuMemAlloc_v2(&p, 300));
    ok(cuMemAlloc_v2(&q, 300));
    ok(cuMemGetInfo_v2(&after, &total));
    assert_int_equal(before - after, 600);
    assert_int_equal(p % 256, 0);
    ok(cuMemcpyHtoD_v2(p, bytes, 300));
    ok(cuMemcpyDtoD_v2(q, p, 300));
    ok(cuMemcpyDtoH_v2(back, q, 300));
    assert_memory_equal(bytes, back, 300);
    ok(cuMemsetD32_v2(q, 0x01020304, 75));
    ok(cuMemsetD16_v2(q + 2, 0xa0b0, 1));
    ok(cuMemsetD8_v2(q, 9, 1));
    ok(cuMemcpyDtoH_v2(back, q, 300));
    const unsigned char want[] = {9, 3, 0xb0, 0xa0, 4, 3, 2, 1};
    assert_memory_equal(back, want, 8);
    ok(cuMemGetAddressRange_v2(&base, &size, p + 299));
    assert_int_equal(base, p);
    assert_int_equal(size, 300);
    ok(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p));
    assert_int_equal(type, CU_MEMORYTYPE_DEVICE);
    /* To the byte. */
    assert_int_equal(cuMemcpyHtoD_v2(p, bytes, 301), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemsetD8_v2(p + 300, 0, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyHtoD_v2((uintptr_t)back, bytes, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFree_v2(p + 1), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemFree_v2(p));
    assert_int_equal(cuMemFree_v2(p), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyDtoH_v2(back, p, 1), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemFree_v2(q));
    ok(cuMemFree_v2(0));
    assert_int_equal(cuMemAlloc_v2(&p, (size_t)1 << 31), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAlloc_v2(&p, 0), CUDA_ERROR_INVALID_VALUE);
}

static void host_memory(void **state)
{
    (void)state;
    void *pinned;
    CUdeviceptr p, q, managed;
    char *mine = malloc(5000);
    ok(cuMemHostAlloc(&pinned, 1000, 0));
    memset(pinned, 5, 1000);
    ok(cuMemHostGetDevicePointer_v2(&p, pinned, 0));
    ok(cuMemHostRegister_v2(mine, 5000, 0));
    assert_int_equal(cuMemHostRegister_v2(mine + 100, 10, 0),
                     CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    ok(cuMemHostGetDevicePointer_v2(&q, mine, 0));
    ok(cuMemcpyDtoD_v2(q, p, 1000));
    assert_memory_equal(mine, pinned, 1000);
    ok(cuMemHostUnregister(mine));
    assert_int_equal(cuMemHostUnregister(mine), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    ok(cuMemAllocManaged(&managed, 64, CU_MEM_ATTACH_GLOBAL));
    ok(cuMemsetD8_v2(managed, 3, 64));
    assert_int_equal(*(char *)(uintptr_t)managed, 3); /* the host reads it directly */
    ok(cuMemFree_v2(managed));
    ok(cuMemFreeHost(pinned));
    free(mine);
}

static void rectangles(void **state)
{
    (void)state;
    CUdeviceptr p;
    size_t pitch;
    uint32_t host[5][7], back[5][7];
    for (int i = 0; i < 35; i++)
        host[i / 7][i % 7] = (uint32_t)i;
    ok(cuMemAllocPitch_v2(&p, &pitch, sizeof host[0], 5, 4));
    assert_true(pitch >= 28 && pitch % 512 == 0);
    ok(cuMemsetD2D32_v2(p, pitch, 77, 7, 5));
    CUDA_MEMCPY2D c = {.srcMemoryType = CU_MEMORYTYPE_HOST,
                       .srcHost = host,
                       .srcPitch = sizeof host[0],
                       .srcXInBytes = 4,
                       .srcY = 1,
                       .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                       .dstDevice = p,
                       .dstPitch = pitch,
                       .WidthInBytes = 8,
                       .Height = 3};
    ok(cuMemcpy2D_v2(&c));
    CUDA_MEMCPY3D d = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                       .srcDevice = p,
                       .srcPitch = pitch,
                       .srcHeight = 5,
                       .dstMemoryType = CU_MEMORYTYPE_HOST,
                       .dstHost = back,
                       .dstPitch = sizeof back[0],
                       .dstHeight = 5,
                       .WidthInBytes = sizeof back[0],
                       .Height = 5,
                       .Depth = 1};
    ok(cuMemcpy3D_v2(&d));
    for (int y = 0; y < 5; y++)
        for (int x = 0; x < 7; x++)
            assert_int_equal(back[y][x], y < 3 && x < 2 ? host[y + 1][x + 1] : 77);
    c.dstPitch = 4; /* less than a row */
    assert_int_equal(cuMemcpy2D_v2(&c), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemFree_v2(p));
}

static void pools(void **state)
{
    (void)state;
    CUdeviceptr p;
    CUmemoryPool pool;
    CUstream s;
    cuuint64_t used;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(cuDeviceGetDefaultMemPool(&pool, 0));
    ok(cuMemAllocAsync(&p, 1 << 20, s));
    ok(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
    assert_int_equal(used, 1 << 20);
    ok(cuMemsetD32Async(p, 1, 1 << 18, s));
    ok(cuMemFreeAsync(p, s));
    ok(cuStreamSynchronize(s));
    ok(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
    assert_int_equal(used, 0);
    ok(cuStreamDestroy_v2(s));
}

static void virtual_addresses(void **state)
{
    (void)state;
    const size_t unit = 2 << 20;
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, 0}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUmemGenericAllocationHandle a;
    CUdeviceptr p;
    uint32_t word;
    ok(cuMemAddressReserve(&p, 4 * unit, 0, 0, 0));
    ok(cuMemCreate(&a, unit, &prop, 0));
    ok(cuMemMap(p, unit, 0, a, 0));
    ok(cuMemMap(p + unit, unit, 0, a, 0)); /* the same memory again */
    assert_int_equal(cuMemMap(p, unit, 0, a, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemsetD32_v2(p, 1, 1), CUDA_ERROR_INVALID_VALUE); /* no access yet */
    ok(cuMemSetAccess(p, 2 * unit, &access, 1));
    ok(cuMemsetD32_v2(p + 64, 42, 1));
    ok(cuMemcpyDtoH_v2(&word, p + unit + 64, 4));
    assert_int_equal(word, 42);
    ok(cuMemsetD32_v2(p, 1, unit / 2)); /* over the border of the two */
    assert_int_equal(cuMemsetD32_v2(p + unit, 1, unit / 2), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAddressFree(p, 4 * unit), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemUnmap(p, 2 * unit));
    ok(cuMemRelease(a));
    assert_int_equal(cuMemRelease(a), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemAddressFree(p, 4 * unit));
}

static void peers(void **state)
{
    (void)state;
    CUcontext other;
    CUdeviceptr here, there;
    int can;
    ok(cuMemAlloc_v2(&here, 64));
    ok(cuCtxCreate_v2(&other, 0, 1));
    ok(cuMemAlloc_v2(&there, 64));
    ok(cuMemsetD8_v2(there, 7, 64));
    ok(cuMemcpyPeer(here, context, there, other, 64)); /* needs no peer access */
    ok(cuDeviceCanAccessPeer(&can, 0, 1)); /* 0-1 and 2-3 are linked in the test's environment */
    assert_int_equal(can, 1);
    ok(cuDeviceCanAccessPeer(&can, 0, 2));
    assert_int_equal(can, 0);
    ok(cuCtxEnablePeerAccess(context, 0));
    assert_int_equal(cuCtxEnablePeerAccess(context, 0), CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
    ok(cuCtxDisablePeerAccess(context));
    assert_int_equal(cuCtxDisablePeerAccess(context), CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
    ok(cuMemFree_v2(there));
    ok(cuCtxDestroy_v2(other));
    unsigned char byte;
    ok(cuMemcpyDtoH_v2(&byte, here + 63, 1));
    assert_int_equal(byte, 7);
    ok(cuMemFree_v2(here));
}

/* ---- streams: a gate in one of them holds it back ---- */

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int at_gate;
static int order[8], orders;

static void wait_gate(void *user)
{
    (void)user;
    at_gate = 1;
    pthread_mutex_lock(&gate_lock);
    pthread_mutex_unlock(&gate_lock);
}

static void note(void *user)
{
    order[__atomic_fetch_add(&orders, 1, __ATOMIC_SEQ_CST)] = (int)(intptr_t)user;
}

static void on_callback(CUstream stream, CUresult status, void *user)
{
    (void)stream;
    note((void *)((intptr_t)user + status));
}

static void stream_order(void **state)
{
    (void)state;
    CUstream a, b;
    CUevent e;
    orders = 0;
    ok(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
    ok(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
    ok(cuEventCreate(&e, 0));
    ok(cuEventQuery(e)); /* never recorded: done */
    pthread_mutex_lock(&gate_lock);
    ok(cuLaunchHostFunc(a, wait_gate, NULL));
    ok(cuLaunchHostFunc(a, note, (void *)1));
    ok(cuEventRecord(e, a));
    ok(cuStreamWaitEvent(b, e, 0));
    ok(cuStreamAddCallback(b, on_callback, (void *)2, 0));
    assert_int_equal(cuStreamQuery(a), CUDA_ERROR_NOT_READY);
    assert_int_equal(cuStreamQuery(b), CUDA_ERROR_NOT_READY);
    assert_int_equal(cuEventQuery(e), CUDA_ERROR_NOT_READY);
    pthread_mutex_unlock(&gate_lock);
    ok(cuStreamSynchronize(b));
    ok(cuEventSynchronize(e));
    ok(cuStreamQuery(a));
    assert_int_equal(orders, 2);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 2);
    ok(cuEventDestroy_v2(e));
    ok(cuStreamDestroy_v2(a));
    assert_int_equal(cuStreamSynchronize(a), CUDA_ERROR_INVALID_HANDLE);
    ok(cuStreamDestroy_v2(b));
}

/* The legacy stream waits for blocking streams and they for it; non-blocking ones do neither. */
static void legacy_stream(void **state)
{
    (void)state;
    CUstream a, free_one;
    orders = 0;
    moehal_virtual_set("streams", "newest"); /* what may overtake does */
    ok(cuStreamCreate(&a, 0));
    ok(cuStreamCreate(&free_one, CU_STREAM_NON_BLOCKING));
    pthread_mutex_lock(&gate_lock);
    at_gate = 0;
    ok(cuLaunchHostFunc(free_one, wait_gate, NULL));
    while (!at_gate) /* the device's thread stands there */
        usleep(100);
    ok(cuLaunchHostFunc(a, note, (void *)1));
    ok(cuLaunchHostFunc(NULL, note, (void *)2));
    ok(cuLaunchHostFunc(a, note, (void *)3));
    ok(cuLaunchHostFunc(free_one, note, (void *)4));
    pthread_mutex_unlock(&gate_lock);
    ok(cuCtxSynchronize());
    assert_int_equal(orders, 4);
    assert_int_equal(order[0], 4); /* newest first, as nothing holds it */
    assert_int_equal(order[1], 1);
    assert_int_equal(order[2], 2);
    assert_int_equal(order[3], 3);
    moehal_virtual_set("streams", "submitted");
    ok(cuStreamDestroy_v2(a));
    ok(cuStreamDestroy_v2(free_one));
}

static void memory_values(void **state)
{
    (void)state;
    CUdeviceptr p;
    CUstream a, b;
    uint32_t word = 0;
    ok(cuMemAlloc_v2(&p, 8));
    ok(cuMemsetD32_v2(p, 0, 2));
    ok(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
    ok(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
    ok(cuStreamWaitValue32_v2(a, p, 5, CU_STREAM_WAIT_VALUE_GEQ));
    ok(cuMemsetD32Async(p + 4, 1, 1, a));
    usleep(2000);
    assert_int_equal(cuStreamQuery(a), CUDA_ERROR_NOT_READY);
    ok(cuStreamWriteValue32_v2(b, p, 6, 0));
    ok(cuStreamSynchronize(a));
    ok(cuMemcpyDtoH_v2(&word, p + 4, 4));
    assert_int_equal(word, 1);
    ok(cuStreamDestroy_v2(a));
    ok(cuStreamDestroy_v2(b));
    ok(cuMemFree_v2(p));
}

/* An asynchronous copy from pinned memory reads it when its turn comes; from pageable memory at
 * once. */
static void staging(void **state)
{
    (void)state;
    int *pinned, pageable = 1, back[2];
    CUdeviceptr p;
    CUstream s;
    ok(cuMemHostAlloc((void **)&pinned, 4, 0));
    ok(cuMemAlloc_v2(&p, 8));
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    *pinned = 1;
    pthread_mutex_lock(&gate_lock);
    ok(cuLaunchHostFunc(s, wait_gate, NULL));
    ok(cuMemcpyHtoDAsync_v2(p, pinned, 4, s));
    ok(cuMemcpyHtoDAsync_v2(p + 4, &pageable, 4, s));
    *pinned = pageable = 2;
    pthread_mutex_unlock(&gate_lock);
    ok(cuMemcpyDtoHAsync_v2(back, p, 8, s)); /* to pageable memory: waited for */
    assert_int_equal(back[0], 2);
    assert_int_equal(back[1], 1);
    ok(cuStreamDestroy_v2(s));
    ok(cuMemFreeHost(pinned));
    ok(cuMemFree_v2(p));
}

static void model_time(void **state)
{
    (void)state;
    CUevent a, b;
    CUdeviceptr p;
    float small, large;
    ok(cuEventCreate(&a, 0));
    ok(cuEventCreate(&b, 0));
    ok(cuMemAlloc_v2(&p, 64 << 20));
    assert_int_equal(cuEventElapsedTime(&small, a, b), CUDA_ERROR_INVALID_HANDLE);
    ok(cuEventRecord(a, NULL));
    ok(cuMemsetD8_v2(p, 0, 1 << 20));
    ok(cuEventRecord(b, NULL));
    ok(cuEventSynchronize(b));
    ok(cuEventElapsedTime(&small, a, b));
    ok(cuEventRecord(a, NULL));
    ok(cuMemsetD8_v2(p, 0, 64 << 20));
    ok(cuEventRecord(b, NULL));
    ok(cuEventSynchronize(b));
    ok(cuEventElapsedTime(&large, a, b));
    assert_true(small > 0 && large > 10 * small);
    ok(cuMemFree_v2(p));
    ok(cuEventDestroy_v2(a));
    ok(cuEventDestroy_v2(b));
}

/* ---- graphs ---- */

static void graphs(void **state)
{
    (void)state;
    CUdeviceptr p;
    CUgraph graph, child;
    CUgraphNode set, copy, host, inner, nodes[8];
    CUgraphExec exec;
    CUgraphNodeType type;
    uint32_t word = 0;
    size_t count = 8;
    orders = 0;
    ok(cuMemAlloc_v2(&p, 8));
    ok(cuGraphCreate(&graph, 0));
    ok(cuGraphCreate(&child, 0));
    CUDA_MEMSET_NODE_PARAMS fill = {p, 0, 5, 4, 1, 1};
    CUDA_HOST_NODE_PARAMS call = {note, (void *)9};
    CUDA_MEMCPY3D c = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                       .srcDevice = p,
                       .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                       .dstDevice = p + 4,
                       .WidthInBytes = 4,
                       .Height = 1,
                       .Depth = 1};
    ok(cuGraphAddHostNode(&inner, child, NULL, 0, &call));
    ok(cuGraphAddMemcpyNode(&copy, graph, NULL, 0, &c, context));
    ok(cuGraphAddMemsetNode(&set, graph, NULL, 0, &fill, context));
    ok(cuGraphAddDependencies(graph, &set, &copy, 1));
    ok(cuGraphAddChildGraphNode(&host, graph, &copy, 1, child));
    ok(cuGraphDestroy(child));
    ok(cuGraphGetNodes(graph, nodes, &count));
    assert_int_equal(count, 3);
    ok(cuGraphNodeGetType(host, &type));
    assert_int_equal(type, CU_GRAPH_NODE_TYPE_GRAPH);
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    moehal_virtual_counters_reset(0);
    ok(cuGraphLaunch(exec, NULL));
    fill.value = 6; /* for the next launch; the first may not have run yet */
    ok(cuGraphExecMemsetNodeSetParams(exec, set, &fill, context));
    ok(cuMemcpyDtoH_v2(&word, p + 4, 4));
    assert_int_equal(word, 5);
    ok(cuGraphLaunch(exec, NULL));
    ok(cuMemcpyDtoH_v2(&word, p + 4, 4));
    assert_int_equal(word, 6);
    assert_int_equal(orders, 2);
    assert_int_equal(counter(0, "graph_launches"), 2);
    assert_int_equal(counter(0, "graph_nodes"), 8);
    /* An edge back makes a cycle. */
    CUgraphExec bad;
    ok(cuGraphAddDependencies(graph, &host, &set, 1));
    assert_int_equal(cuGraphInstantiateWithFlags(&bad, graph, 0), CUDA_ERROR_INVALID_VALUE);
    ok(cuGraphDestroy(graph));
    ok(cuGraphLaunch(exec, NULL)); /* lives without its graph */
    ok(cuCtxSynchronize());
    ok(cuGraphExecDestroy(exec));
    ok(cuMemFree_v2(p));
}

static CUgraph capture_two_streams(CUstream a, CUstream b, CUevent e, CUevent f, CUdeviceptr p,
                                   unsigned value)
{
    CUgraph graph;
    ok(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
    ok(cuMemsetD32Async(p, value, 1, a));
    ok(cuEventRecord(e, a));
    ok(cuStreamWaitEvent(b, e, 0));
    ok(cuMemcpyDtoDAsync_v2(p + 4, p, 4, b));
    ok(cuEventRecord(f, b));
    ok(cuStreamWaitEvent(a, f, 0));
    ok(cuMemcpyDtoDAsync_v2(p + 8, p + 4, 4, a));
    ok(cuStreamEndCapture(a, &graph));
    return graph;
}

static void capture(void **state)
{
    (void)state;
    CUstream a, b;
    CUevent e, f;
    CUdeviceptr p;
    CUgraphExec exec;
    CUgraphExecUpdateResultInfo info;
    CUgraphNode from[8], to[8];
    size_t count = 8;
    uint32_t word;
    ok(cuStreamCreate(&a, 0));
    ok(cuStreamCreate(&b, 0));
    ok(cuEventCreate(&e, 0));
    ok(cuEventCreate(&f, 0));
    ok(cuMemAlloc_v2(&p, 12));
    ok(cuMemsetD32_v2(p, 0, 3));
    CUgraph graph = capture_two_streams(a, b, e, f, p, 11);
    ok(cuGraphGetEdges(graph, from, to, &count));
    assert_int_equal(count, 3); /* set -> copy, copy -> copy, and set -> copy in its own stream */
    ok(cuMemcpyDtoH_v2(&word, p + 8, 4));
    assert_int_equal(word, 0); /* nothing has run */
    assert_int_equal(cuEventQuery(e), CUDA_ERROR_CAPTURED_EVENT);
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    for (int i = 0; i < 3; i++) { /* in each legal order of nodes */
        moehal_virtual_set("streams", i == 0 ? "submitted" : i == 1 ? "newest" : "random:3");
        ok(cuMemsetD32_v2(p, 0, 3));
        ok(cuGraphLaunch(exec, a));
        ok(cuStreamSynchronize(a));
        ok(cuMemcpyDtoH_v2(&word, p + 8, 4));
        assert_int_equal(word, 11);
    }
    moehal_virtual_set("streams", "submitted");
    CUgraph next = capture_two_streams(a, b, e, f, p, 12);
    ok(cuGraphExecUpdate_v2(exec, next, &info));
    ok(cuGraphLaunch(exec, a));
    ok(cuStreamSynchronize(a));
    ok(cuMemcpyDtoH_v2(&word, p + 8, 4));
    assert_int_equal(word, 12);
    ok(cuGraphDestroy(next));
    ok(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
    ok(cuMemsetD32Async(p, 1, 1, a));
    ok(cuStreamEndCapture(a, &next));
    assert_int_equal(cuGraphExecUpdate_v2(exec, next, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    assert_int_equal(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
    ok(cuGraphDestroy(next));
    ok(cuGraphDestroy(graph));
    ok(cuGraphExecDestroy(exec));
    ok(cuStreamDestroy_v2(a));
    ok(cuStreamDestroy_v2(b));
    ok(cuEventDestroy_v2(e));
    ok(cuEventDestroy_v2(f));
    ok(cuMemFree_v2(p));
}

static void capture_rules(void **state)
{
    (void)state;
    CUstream a, b;
    CUevent e;
    CUgraph graph = NULL;
    CUdeviceptr p;
    CUstreamCaptureStatus status;
    ok(cuMemAlloc_v2(&p, 8));
    ok(cuStreamCreate(&a, 0));
    ok(cuStreamCreate(&b, 0));
    ok(cuEventCreate(&e, 0));
    assert_int_equal(cuStreamBeginCapture_v2(NULL, 0), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_int_equal(cuStreamEndCapture(a, &graph), CUDA_ERROR_ILLEGAL_STATE);
    /* The legacy stream may not be used meanwhile. */
    ok(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
    assert_int_equal(cuMemsetD32_v2(p, 0, 1), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    ok(cuStreamIsCapturing(a, &status));
    assert_int_equal(status, CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    assert_int_equal(cuStreamEndCapture(a, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert_null(graph);
    /* Nor may one wait for a stream that captures. */
    ok(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_RELAXED));
    assert_int_equal(cuStreamSynchronize(a), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_int_equal(cuStreamEndCapture(a, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    /* A stream that joined and did not come back. */
    ok(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
    ok(cuMemsetD32Async(p, 1, 1, a));
    ok(cuEventRecord(e, a));
    ok(cuStreamWaitEvent(b, e, 0));
    ok(cuMemsetD32Async(p, 2, 1, b));
    assert_int_equal(cuStreamEndCapture(b, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    assert_int_equal(cuStreamEndCapture(a, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    ok(cuMemsetD32Async(p, 3, 1, b)); /* back to normal */
    ok(cuStreamSynchronize(b));
    /* An event from outside. */
    ok(cuEventRecord(e, b));
    ok(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
    assert_int_equal(cuStreamWaitEvent(a, e, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    assert_int_equal(cuStreamEndCapture(a, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    ok(cuStreamDestroy_v2(a));
    ok(cuStreamDestroy_v2(b));
    ok(cuEventDestroy_v2(e));
    ok(cuMemFree_v2(p));
}

/* ---- faults, names, refusals ---- */

static void faults(void **state)
{
    (void)state;
    CUdeviceptr p, q;
    size_t bytes;
    assert_int_equal(moehal_virtual_faults("fail:cuMemAlloc:2:2"), 0);
    ok(cuMemAlloc_v2(&p, 8));
    assert_int_equal(cuMemAlloc_v2(&q, 8), CUDA_ERROR_OUT_OF_MEMORY);
    ok(cuMemAlloc_v2(&q, 8));
    assert_int_equal(moehal_virtual_faults("oom:1M"), 0);
    ok(cuDeviceTotalMem_v2(&bytes, 0));
    assert_int_equal(bytes, 1 << 20);
    ok(cuMemFree_v2(q));
    assert_int_equal(cuMemAlloc_v2(&q, 1 << 20), CUDA_ERROR_OUT_OF_MEMORY);
    ok(cuMemAlloc_v2(&q, (1 << 20) - 8));
    ok(cuMemFree_v2(q));
    ok(cuMemFree_v2(p));
    assert_int_equal(moehal_virtual_faults("fail:cuMemAlloc"), -1);
    assert_int_equal(moehal_virtual_faults("oom:12Q"), -1);
    assert_int_equal(moehal_virtual_faults("fire:1"), -1);
    assert_int_equal(moehal_virtual_set("checks", "bounds,rases"), -1);
}

static bool is_function(const void *p, void (*function)(void))
{
    return !memcmp(&p, &function, sizeof p);
}

static void names(void **state)
{
    (void)state;
    void *p, *q;
    CUdriverProcAddressQueryResult found;
    const char *text;
    ok(cuGetProcAddress_v2("cuMemAlloc", &p, 12000, 0, &found));
    assert_true(is_function(p, (void (*)(void))cuMemAlloc_v2));
    assert_int_equal(found, CU_GET_PROC_ADDRESS_FOUND);
    ok(cuGetProcAddress_v2("cuStreamSynchronize", &p, 12000, 1, NULL));
    ok(cuGetProcAddress_v2("cuStreamSynchronize", &q, 12000, 2, NULL));
    assert_true(is_function(p, (void (*)(void))cuStreamSynchronize));
    assert_ptr_not_equal(p, q); /* the thread's own default stream */
    ok(cuGetProcAddress_v2("cuMemAllocAsync", &p, 11010, 0, &found));
    assert_int_equal(found, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
    assert_null(p);
    ok(cuGetProcAddress_v2("cuNoSuchThing", &p, 13000, 0, &found));
    assert_int_equal(found, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    assert_int_equal(cuGetProcAddress_v2("cuNoSuchThing", &p, 13000, 0, NULL),
                     CUDA_ERROR_NOT_FOUND);
    ok(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
    assert_string_equal(text, "CUDA_ERROR_ILLEGAL_ADDRESS");
    ok(cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text));
    assert_string_equal(text, "out of memory");
    assert_int_equal(cuGetErrorName((CUresult)12345, &text), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuTexObjectCreate(), CUDA_ERROR_NOT_SUPPORTED);
}

static void refused_images(void **state)
{
    (void)state;
    CUmodule module;
    char log[400] = "";
    CUjit_option option[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    const char elf[64] = "\177ELF\2\1\1";
    const unsigned char fat[64] = {0x50, 0xed, 0x55, 0xba, 1};
    const unsigned char junk[64] = {1, 2, 0, 0};
    const void *images[] = {elf, fat, junk};
    const char *words[] = {"cubin", "fat binary", "PTX"};
    for (int i = 0; i < 3; i++) {
        void *values[] = {log, (void *)sizeof log};
        assert_int_equal(cuModuleLoadDataEx(&module, images[i], 2, option, values),
                         CUDA_ERROR_NO_BINARY_FOR_GPU);
        assert_non_null(strstr(log, words[i]));
        assert_int_equal((size_t)values[1], strlen(log));
    }
    assert_int_equal(cuModuleLoadData(&module, ""), CUDA_ERROR_INVALID_IMAGE);
}

static void *hammer(void *arg)
{
    CUdeviceptr p[16];
    CUstream s;
    if (cuCtxSetCurrent(arg) || cuStreamCreate(&s, CU_STREAM_NON_BLOCKING))
        return "no stream";
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 16; i++) {
            uint32_t word = 0, want = (uint32_t)(round * 16 + i);
            if (cuMemAlloc_v2(&p[i], 64 + 1000 * (unsigned)i) ||
                cuMemsetD32Async(p[i], want, 16, s) || cuMemcpyDtoHAsync_v2(&word, p[i] + 60, 4, s))
                return "a call failed";
            if (word != want)
                return "another value came back";
        }
        for (int i = 0; i < 16; i++)
            if (cuMemFree_v2(p[i]))
                return "a free failed";
    }
    return cuStreamDestroy_v2(s) ? "no end" : NULL;
}

static void threads(void **state)
{
    (void)state;
    pthread_t id[4];
    void *said;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&id[i], NULL, hammer, context), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(id[i], &said);
        if (said)
            fail_msg("%s", (char *)said);
    }
}

int main(void)
{
    setenv("MOEHAL_VIRTUAL_DEVICES", "4", 1);
    setenv("MOEHAL_VIRTUAL_MEMORY", "1G", 1);
    setenv("MOEHAL_VIRTUAL_TOPOLOGY", "0-1,2-3", 1);
    CUcontext none;
    if (cuCtxGetCurrent(&none) != CUDA_ERROR_NOT_INITIALIZED || cuInit(1) == CUDA_SUCCESS ||
        cuInit(0) != CUDA_SUCCESS)
        return 1;
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(devices),           T(contexts),      T(memory),
        T(host_memory),       T(rectangles),    T(pools),
        T(virtual_addresses), T(peers),         T(stream_order),
        T(legacy_stream),     T(memory_values), T(staging),
        T(model_time),        T(graphs),        T(capture),
        T(capture_rules),     T(faults),        T(names),
        T(refused_images),    T(threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
