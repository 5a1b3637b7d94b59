/* Entry points that programs use beside the common ones: extended launches, kernels of libraries,
 * what is asked of functions and streams, linking files, pools of one's own, uploads and clones of
 * graphs, and that what is not supported says so by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_calls.h"
#include "moehal_virtual.h"

#define ok(call) assert_int_equal(call, CUDA_SUCCESS)

static const char ptx[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n.visible .global .align 4 .u32 calls = 3;\n"
    ".visible .entry bump(.param .u64 p, .param .u32 by)\n{\n.reg .b64 %a;\n.reg .b32 %r<3>;\n"
    "ld.param.u64 %a, [p];\nld.param.u32 %r0, [by];\natom.global.add.u32 %r1, [%a], "
    "%r0;\nret;\n}\n";
static const char caller[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n.extern .func bump2(.param .b64 p);\n"
    ".visible .entry call(.param .u64 p)\n{\n.reg .b64 %a;\nld.param.u64 %a, [p];\n{\n.param .b64 "
    "q;\n"
    "st.param.b64 [q], %a;\ncall bump2, (q);\n}\nret;\n}\n";
static const char callee[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n.visible .func bump2(.param .b64 p)\n{\n.reg "
    ".b64 %a;\n"
    ".reg .b32 %r;\nld.param.b64 %a, [p];\natom.add.u32 %r, [%a], 2;\nret;\n}\n";

static CUcontext context;
static CUmodule module;
static CUfunction bump;
static CUdeviceptr word;

static int setup(void **state)
{
    (void)state;
    return cuCtxCreate_v2(&context, 0, 0) || cuModuleLoadData(&module, ptx) ||
           cuModuleGetFunction(&bump, module, "bump") || cuMemAlloc_v2(&word, 4) ||
           cuMemsetD32_v2(word, 0, 1);
}

static int teardown(void **state)
{
    (void)state;
    return cuMemFree_v2(word) || cuCtxDestroy_v2(context);
}

static uint32_t value(void)
{
    uint32_t v = 0;
    ok(cuCtxSynchronize());
    ok(cuMemcpyDtoH_v2(&v, word, 4));
    return v;
}

static void extended_launches(void **state)
{
    (void)state;
    uint32_t by = 5;
    void *params[] = {&word, &by};
    CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE,
                                   .value = {.cooperative = 1}};
    CUlaunchConfig config = {.gridDimX = 2,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = 32,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .attrs = &attribute,
                             .numAttrs = 1};
    ok(cuLaunchKernelEx(&config, bump, params, NULL));
    assert_int_equal(value(), 2 * 32 * 5);
    config.gridDimX = 1000000;
    assert_int_equal(cuLaunchKernelEx(&config, bump, params, NULL),
                     CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    config.gridDimX = 2;
    attribute = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                                    .value = {.clusterDim = {2, 1, 1}}};
    assert_int_equal(cuLaunchKernelEx(&config, bump, params, NULL), CUDA_ERROR_NOT_SUPPORTED);
    /* the stream of this thread is one of its own */
    ok(cuLaunchKernel_ptsz(bump, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
    assert_int_equal(value(), 2 * 32 * 5 + 5);
}

static void questions(void **state)
{
    (void)state;
    int least, block, n;
    size_t bytes;
    const char *name;
    CUmodule of;
    CUstream stream;
    CUcontext where;
    ok(cuOccupancyMaxPotentialBlockSize(&least, &block, bump, NULL, 0, 0));
    ok(cuOccupancyMaxActiveBlocksPerMultiprocessor(&n, bump, block, 0));
    assert_true(block > 0 && block <= 1024 && block % 32 == 0 && n > 0);
    assert_int_equal(least % n, 0);
    ok(cuOccupancyAvailableDynamicSMemPerBlock(&bytes, bump, 1, 32));
    assert_true(bytes >= 48 << 10);
    ok(cuFuncGetName(&name, bump));
    assert_string_equal(name, "bump");
    ok(cuFuncGetModule(&of, bump));
    assert_ptr_equal(of, module);
    ok(cuStreamCreate(&stream, 0));
    ok(cuStreamGetCtx(stream, &where));
    assert_ptr_equal(where, context);
    ok(cuStreamDestroy_v2(stream));
}

static void kernels_of_libraries(void **state)
{
    (void)state;
    CUlibrary library;
    CUkernel kernel;
    CUfunction f;
    CUmodule m;
    CUdeviceptr calls;
    size_t bytes;
    uint32_t by = 7, v;
    int threads;
    void *params[] = {&word, &by};
    ok(cuLibraryLoadData(&library, ptx, NULL, NULL, 0, NULL, NULL, 0));
    ok(cuLibraryGetKernel(&kernel, library, "bump"));
    ok(cuKernelGetFunction(&f, kernel));
    ok(cuKernelGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, kernel, 0));
    assert_int_equal(threads, 1024);
    ok(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
    assert_int_equal(value(), 7);
    ok(cuLibraryGetGlobal(&calls, &bytes, library, "calls"));
    assert_int_equal(bytes, 4);
    ok(cuMemcpyDtoH_v2(&v, calls, 4));
    assert_int_equal(v, 3);
    assert_int_equal(cuLibraryGetGlobal(&calls, &bytes, library, "none"), CUDA_ERROR_NOT_FOUND);
    ok(cuLibraryGetModule(&m, library));
    ok(cuModuleGetFunction(&f, m, "bump"));
    ok(cuLibraryUnload(library));
}

static void linked_files(void **state)
{
    (void)state;
    char path[] = "/tmp/virtual-callee-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, callee, sizeof callee - 1), sizeof callee - 1);
    close(fd);
    CUlinkState link;
    CUmodule m;
    CUfunction f;
    void *image, *params[] = {&word};
    size_t size;
    ok(cuLinkCreate_v2(0, NULL, NULL, &link));
    ok(cuLinkAddData_v2(link, CU_JIT_INPUT_PTX, (void *)caller, sizeof caller, "caller", 0, NULL,
                        NULL));
    ok(cuLinkAddFile_v2(link, CU_JIT_INPUT_PTX, path, 0, NULL, NULL));
    assert_int_equal(cuLinkAddFile_v2(link, CU_JIT_INPUT_PTX, "/nowhere", 0, NULL, NULL),
                     CUDA_ERROR_FILE_NOT_FOUND);
    unlink(path);
    ok(cuLinkComplete(link, &image, &size));
    ok(cuModuleLoadData(&m, image));
    ok(cuLinkDestroy(link));
    ok(cuModuleGetFunction(&f, m, "call"));
    ok(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, params, NULL));
    assert_int_equal(value(), 64);
    ok(cuModuleUnload(m));
}

static void pools(void **state)
{
    (void)state;
    CUmemPoolProps props = {.allocType = 1, .location = {.type = 1, .id = 0}};
    CUmemoryPool pool;
    CUdeviceptr p;
    cuuint64_t used;
    CUstream stream;
    ok(cuStreamCreate(&stream, 0));
    ok(cuMemPoolCreate(&pool, &props));
    ok(cuMemAllocFromPoolAsync(&p, 1 << 20, pool, stream));
    ok(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
    assert_int_equal(used, 1 << 20);
    ok(cuMemsetD32Async(p, 9, 256, stream));
    ok(cuMemcpyAsync(word, p, 4, stream));
    ok(cuMemFreeAsync(p, stream));
    ok(cuStreamSynchronize(stream));
    assert_int_equal(value(), 9);
    ok(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
    assert_int_equal(used, 0);
    ok(cuMemPoolTrimTo(pool, 0));
    ok(cuMemPoolDestroy(pool));
    ok(cuStreamDestroy_v2(stream));
}

static void graphs(void **state)
{
    (void)state;
    uint32_t by = 4;
    void *params[] = {&word, &by};
    CUDA_KERNEL_NODE_PARAMS p = {.func = bump,
                                 .gridDimX = 1,
                                 .gridDimY = 1,
                                 .gridDimZ = 1,
                                 .blockDimX = 1,
                                 .blockDimY = 1,
                                 .blockDimZ = 1,
                                 .kernelParams = params};
    CUgraph graph, copy;
    CUgraphNode node;
    CUgraphExec exec;
    ok(cuGraphCreate(&graph, 0));
    ok(cuGraphAddKernelNode_v2(&node, graph, NULL, 0, &p));
    ok(cuGraphClone(&copy, graph));
    ok(cuGraphDestroy(graph));
    ok(cuGraphInstantiateWithFlags(&exec, copy, 0));
    ok(cuGraphUpload(exec, NULL));
    assert_int_equal(value(), 0); /* uploaded, not run */
    ok(cuGraphLaunch(exec, NULL));
    ok(cuGraphLaunch(exec, NULL));
    assert_int_equal(value(), 8);
    ok(cuGraphExecDestroy(exec));
    ok(cuGraphDestroy(copy));
}

static void refused(void **state)
{
    (void)state;
    assert_int_equal(cuStreamBatchMemOp_v2(NULL, 0, NULL, 0), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(cuGraphAddMemAllocNode(NULL, NULL, NULL, 0, NULL), CUDA_ERROR_NOT_SUPPORTED);
    FILE *log = fopen(getenv("MOEHAL_VIRTUAL_LOG"), "r");
    char text[4096] = "";
    assert_non_null(log);
    text[fread(text, 1, sizeof text - 1, log)] = 0;
    fclose(log);
    assert_non_null(strstr(text, "cuStreamBatchMemOp_v2"));
    assert_non_null(strstr(text, "cuGraphAddMemAllocNode"));
}

int main(void)
{
    char log[] = "/tmp/virtual-log-XXXXXX";
    int fd = mkstemp(log);
    if (fd < 0)
        return 1;
    close(fd);
    setenv("MOEHAL_VIRTUAL_LOG", log, 1);
    setenv("MOEHAL_VIRTUAL_DEVICES", "1", 1);
    if (cuInit(0))
        return 1;
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(extended_launches), T(questions), T(kernels_of_libraries),
        T(linked_files),      T(pools),     T(graphs),
        T(refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(log);
    return failed;
}
