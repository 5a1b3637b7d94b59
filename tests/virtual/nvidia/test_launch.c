/* The driver with kernels: modules, the linker, launches and their errors, graphs of kernels,
 * faults, counters. */
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

/* out[i] = in[i] + value; each PTX line is a line of this text: 1 is .version. */
static const char add_ptx[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".global .align 4 .u32 calls = 3;\n"
    ".visible .entry add(.param .u64 in, .param .u64 out, .param .u32 value)\n{\n"
    ".reg .b64 %a<4>;\n.reg .b32 %r<4>;\n"
    "ld.param.u64 %a0, [in];\nld.param.u64 %a1, [out];\nld.param.u32 %r0, [value];\n"
    "mov.u32 %r1, %tid.x;\nmul.wide.u32 %a2, %r1, 4;\nadd.u64 %a0, %a0, %a2;\n"
    "add.u64 %a1, %a1, %a2;\nld.global.u32 %r2, [%a0];\nadd.u32 %r2, %r2, %r0;\n"
    "st.global.u32 [%a1], %r2;\nret;\n}\n"
    ".visible .entry spin()\n{\nL: bra L;\n}\n"
    ".visible .entry small() .maxntid 64, 1, 1\n{\nret;\n}\n"
    ".visible .entry shared()\n{\n.extern .shared .align 4 .b8 buffer[];\nret;\n}\n";
static const char twice_ptx[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".visible .func (.param .b32 r) twice(.param .b32 x)\n{\n.reg .b32 %r<2>;\n"
    "ld.param.b32 %r0, [x];\nshl.b32 %r1, %r0, 1;\nst.param.b32 [r], %r1;\nret;\n}\n";
static const char caller_ptx[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".extern .func (.param .b32 r) twice(.param .b32 x);\n"
    ".visible .entry caller(.param .u64 out)\n{\n.reg .b64 %a<2>;\n.reg .b32 %r<2>;\n"
    "ld.param.u64 %a0, [out];\n{\n.param .b32 x;\n.param .b32 r;\nst.param.b32 [x], 21;\n"
    "call.uni (r), twice, (x);\nld.param.b32 %r0, [r];\n}\nst.global.b32 [%a0], %r0;\nret;\n}\n";

static CUcontext context;
static CUmodule module;
static CUfunction add, spin, small_one, shared_one;
static CUdeviceptr in, out;

static int setup(void **state)
{
    (void)state;
    uint32_t zeros[32] = {0};
    moehal_virtual_reports_clear();
    moehal_virtual_reports_quiet(1);
    moehal_virtual_faults(NULL);
    moehal_virtual_set("time_limit_ms", "0");
    return cuCtxCreate_v2(&context, 0, 0) || cuModuleLoadData(&module, add_ptx) ||
           cuModuleGetFunction(&add, module, "add") || cuModuleGetFunction(&spin, module, "spin") ||
           cuModuleGetFunction(&small_one, module, "small") ||
           cuModuleGetFunction(&shared_one, module, "shared") || cuMemAlloc_v2(&in, 128) ||
           cuMemAlloc_v2(&out, 128) || cuMemcpyHtoD_v2(in, zeros, 128);
}

static int teardown(void **state)
{
    (void)state;
    moehal_virtual_faults(NULL);
    return cuCtxDestroy_v2(context) != CUDA_SUCCESS;
}

static CUresult run_add(CUdeviceptr from, CUdeviceptr to, uint32_t value, unsigned threads)
{
    void *params[] = {&from, &to, &value};
    CUresult result = cuLaunchKernel(add, 1, 1, 1, threads, 1, 1, 0, NULL, params, NULL);
    return result ? result : cuCtxSynchronize();
}

static uint32_t first_word(CUdeviceptr p)
{
    uint32_t word;
    ok(cuMemcpyDtoH_v2(&word, p, 4));
    return word;
}

static int reported(const char *check)
{
    const char *name;
    int n = 0;
    for (uint64_t i = 0; !moehal_virtual_report_at(i, &name, NULL, NULL, NULL); i++)
        n += !strcmp(name, check);
    return n;
}

static void arguments(void **state)
{
    (void)state;
    uint32_t value = 7;
    int n;
    size_t bytes;
    CUdeviceptr p;
    ok(run_add(in, out, 5, 32));
    assert_int_equal(first_word(out), 5);
    struct {
        CUdeviceptr in, out;
        uint32_t value;
    } packed = {in, out, 9};
    size_t size = 20;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size,
                     CU_LAUNCH_PARAM_END};
    ok(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra));
    assert_int_equal(first_word(out), 9);
    size = 16;
    assert_int_equal(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra),
                     CUDA_ERROR_INVALID_VALUE);
    void *params[] = {&in, &out, &value};
    assert_int_equal(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL),
                     CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuLaunchKernel(add, 0, 1, 1, 32, 1, 1, 0, NULL, params, NULL),
                     CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuLaunchKernel(add, 1, 1, 1, 1025, 1, 1, 0, NULL, params, NULL),
                     CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuLaunchKernel(add, 1, 65536, 1, 1, 1, 1, 0, NULL, params, NULL),
                     CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuLaunchKernel((CUfunction)&value, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL),
                     CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuLaunchKernel(small_one, 1, 1, 1, 96, 1, 1, 0, NULL, NULL, NULL),
                     CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    ok(cuFuncGetAttribute(&n, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, small_one));
    assert_int_equal(n, 64);
    /* Shared memory beyond 48 KB has to be asked for. */
    assert_int_equal(cuLaunchKernel(shared_one, 1, 1, 1, 1, 1, 1, 64 << 10, NULL, NULL, NULL),
                     CUDA_ERROR_INVALID_VALUE);
    ok(cuFuncSetAttribute(shared_one, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 64 << 10));
    ok(cuLaunchKernel(shared_one, 1, 1, 1, 1, 1, 1, 64 << 10, NULL, NULL, NULL));
    assert_int_equal(
        cuFuncSetAttribute(shared_one, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 228 << 10),
        CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuLaunchCooperativeKernel(small_one, 100000, 1, 1, 64, 1, 1, 0, NULL, NULL),
                     CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    ok(cuOccupancyMaxActiveBlocksPerMultiprocessor(&n, small_one, 64, 0));
    assert_int_equal(n, 32);
    ok(cuModuleGetGlobal_v2(&p, &bytes, module, "calls"));
    assert_int_equal(bytes, 4);
    assert_int_equal(first_word(p), 3);
    assert_int_equal(cuModuleGetGlobal_v2(&p, &bytes, module, "missing"), CUDA_ERROR_NOT_FOUND);
    assert_int_equal(moehal_virtual_report_count(), 0);
}

static void errors_stick(void **state)
{
    (void)state;
    CUdeviceptr p;
    uint32_t word;
    assert_int_equal(run_add(in, out, 1, 33), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_int_equal(reported("out-of-bounds"), 1);
    assert_int_equal(cuMemAlloc_v2(&p, 4), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_int_equal(cuMemcpyDtoH_v2(&word, in, 4), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_int_equal(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    CUcontext other; /* another context lives on */
    ok(cuCtxCreate_v2(&other, 0, 0));
    ok(cuMemAlloc_v2(&p, 4));
    ok(cuMemFree_v2(p));
    ok(cuCtxDestroy_v2(other));
}

static void freed_and_foreign(void **state)
{
    (void)state;
    CUcontext other;
    CUdeviceptr theirs;
    ok(cuCtxCreate_v2(&other, 0, 1));
    ok(cuMemAlloc_v2(&theirs, 128));
    ok(cuMemsetD8_v2(theirs, 0, 128));
    ok(cuCtxPopCurrent_v2(NULL));
    ok(cuCtxEnablePeerAccess(other, 0));
    ok(run_add(theirs, out, 2, 32));
    ok(cuCtxDisablePeerAccess(other));
    assert_int_equal(run_add(theirs, out, 2, 32), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_int_equal(reported("peer"), 1);
    ok(cuCtxDestroy_v2(other));
}

static void freed(void **state)
{
    (void)state;
    CUdeviceptr p;
    ok(cuMemAlloc_v2(&p, 128));
    ok(cuMemFree_v2(p));
    assert_int_equal(run_add(in, p, 2, 32), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_int_equal(reported("use-after-free"), 1);
}

static void time_limit(void **state)
{
    (void)state;
    CUdeviceptr p;
    moehal_virtual_set("time_limit_ms", "200");
    ok(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    assert_int_equal(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_TIMEOUT);
    assert_int_equal(cuMemAlloc_v2(&p, 4), CUDA_ERROR_LAUNCH_TIMEOUT);
}

static void launch_faults(void **state)
{
    (void)state;
    CUcontext other;
    CUdeviceptr p;
    moehal_virtual_faults("ecc:2");
    ok(run_add(in, out, 1, 32));
    assert_int_equal(run_add(in, out, 1, 32), CUDA_ERROR_ECC_UNCORRECTABLE);
    assert_int_equal(cuMemAlloc_v2(&p, 4), CUDA_ERROR_ECC_UNCORRECTABLE);
    ok(cuCtxCreate_v2(&other, 0, 0));
    moehal_virtual_faults("hang:1");
    CUmodule m;
    CUfunction f;
    ok(cuModuleLoadData(&m, add_ptx));
    ok(cuModuleGetFunction(&f, m, "small"));
    ok(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    assert_int_equal(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_TIMEOUT);
    ok(cuCtxDestroy_v2(other));
}

/* Last but one: device 1 is gone for good. */
static void lost_device(void **state)
{
    (void)state;
    CUcontext other, again;
    CUmodule m;
    CUfunction f;
    ok(cuCtxCreate_v2(&other, 0, 1));
    ok(cuModuleLoadData(&m, add_ptx));
    ok(cuModuleGetFunction(&f, m, "small"));
    moehal_virtual_faults("lost:1");
    ok(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    assert_int_equal(cuCtxSynchronize(), CUDA_ERROR_UNKNOWN);
    ok(cuCtxDestroy_v2(other));
    assert_int_equal(cuCtxCreate_v2(&again, 0, 1), CUDA_ERROR_UNKNOWN);
    ok(run_add(in, out, 4, 32)); /* device 0 is not concerned */
}

static void bad_text(void **state)
{
    (void)state;
    CUmodule m;
    char log[300];
    CUjit_option option[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)sizeof log};
    static const char text[] =
        ".version 8.0\n.target sm_80\n.address_size 64\n"
        ".visible .entry f()\n{\n.reg .b32 %r<1>;\n  frobnicate.u32 %r0, 1;\n}\n";
    assert_int_equal(cuModuleLoadDataEx(&m, text, 2, option, values), CUDA_ERROR_INVALID_PTX);
    assert_non_null(strstr(log, "line 7"));
    assert_non_null(strstr(log, "frobnicate"));
    /* Made for a newer device than this one. */
    values[1] = (void *)sizeof log;
    static const char newer[] = ".version 8.7\n.target sm_120\n.address_size 64\n"
                                ".visible .entry f()\n{\nret;\n}\n";
    assert_int_equal(cuModuleLoadDataEx(&m, newer, 2, option, values), CUDA_ERROR_INVALID_PTX);
    assert_non_null(strstr(log, "sm_120"));
}

static void linker(void **state)
{
    (void)state;
    CUlinkState link;
    CUmodule m;
    CUfunction f;
    void *image, *copy;
    size_t size;
    assert_int_equal(cuModuleLoadData(&m, caller_ptx), CUDA_ERROR_INVALID_PTX); /* unresolved */
    ok(cuLinkCreate_v2(0, NULL, NULL, &link));
    ok(cuLinkAddData_v2(link, CU_JIT_INPUT_PTX, (void *)caller_ptx, sizeof caller_ptx, "a", 0, NULL,
                        NULL));
    ok(cuLinkAddData_v2(link, CU_JIT_INPUT_PTX, (void *)twice_ptx, sizeof twice_ptx, "b", 0, NULL,
                        NULL));
    assert_int_equal(
        cuLinkAddData_v2(link, CU_JIT_INPUT_CUBIN, (void *)"\177ELF", 4, "c", 0, NULL, NULL),
        CUDA_ERROR_NO_BINARY_FOR_GPU);
    ok(cuLinkComplete(link, &image, &size));
    copy = malloc(size);
    memcpy(copy, image, size);
    ok(cuLinkDestroy(link));
    ok(cuModuleLoadData(&m, copy)); /* as a cubin may, it outlives the linker */
    free(copy);
    ok(cuModuleGetFunction(&f, m, "caller"));
    void *params[] = {&out};
    ok(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
    assert_int_equal(first_word(out), 42);
    ok(cuModuleUnload(m));
    assert_int_equal(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL),
                     CUDA_ERROR_INVALID_HANDLE);
}

static void libraries(void **state)
{
    (void)state;
    CUlibrary library;
    CUkernel kernel;
    uint32_t value = 8;
    ok(cuLibraryLoadData(&library, add_ptx, NULL, NULL, 0, NULL, NULL, 0));
    ok(cuLibraryGetKernel(&kernel, library, "add"));
    assert_int_equal(cuLibraryGetKernel(&kernel, library, "none"), CUDA_ERROR_NOT_FOUND);
    void *params[] = {&in, &out, &value};
    ok(cuLaunchKernel((CUfunction)kernel, 1, 1, 1, 32, 1, 1, 0, NULL, params, NULL));
    assert_int_equal(first_word(out), 8);
    ok(cuLibraryUnload(library));
}

static void graphs_of_kernels(void **state)
{
    (void)state;
    CUgraph graph;
    CUgraphNode first, second;
    CUgraphExec exec;
    uint32_t value = 3;
    void *one[] = {&in, &out, &value}, *two[] = {&out, &out, &value};
    CUDA_KERNEL_NODE_PARAMS p = {.func = add,
                                 .gridDimX = 1,
                                 .gridDimY = 1,
                                 .gridDimZ = 1,
                                 .blockDimX = 32,
                                 .blockDimY = 1,
                                 .blockDimZ = 1,
                                 .kernelParams = one};
    ok(cuGraphCreate(&graph, 0));
    ok(cuGraphAddKernelNode_v2(&first, graph, NULL, 0, &p));
    p.kernelParams = two;
    ok(cuGraphAddKernelNode_v2(&second, graph, &first, 1, &p));
    value = 100; /* the nodes have taken theirs */
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    ok(cuGraphLaunch(exec, NULL));
    assert_int_equal(first_word(out), 6);
    ok(cuGraphExecKernelNodeSetParams_v2(exec, second, &p));
    ok(cuGraphLaunch(exec, NULL));
    assert_int_equal(first_word(out), 103);
    CUDA_KERNEL_NODE_PARAMS q;
    ok(cuGraphKernelNodeGetParams_v2(second, &q));
    assert_ptr_equal(q.func, add);
    assert_int_equal(*(uint32_t *)q.kernelParams[2], 3);
    ok(cuGraphExecDestroy(exec));
    ok(cuGraphDestroy(graph));
}

static void counts(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t value;
    } want[] = {
        /* one warp: 11 instructions; 32 words each way are four sectors */
        {"launches", 1},       {"load_bytes", 128},       {"store_bytes", 128},
        {"load_sectors", 4},   {"store_sectors", 4},      {"unique_load_sectors", 4},
        {"unique_sectors", 8}, {"ideal_load_sectors", 4}, {"atomics", 0},
        {"divergences", 0},
    };
    uint64_t value, warp, lanes;
    moehal_virtual_counters_reset(0);
    ok(run_add(in, out, 1, 32));
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_int_equal(moehal_virtual_counter(0, want[i].name, &value), 0);
        if (value != want[i].value)
            fail_msg("%s is %d", want[i].name, (int)value);
    }
    ok(moehal_virtual_kernel_counter(0, "add", "warp_instructions", &warp));
    ok(moehal_virtual_kernel_counter(0, "add", "lane_instructions", &lanes));
    assert_int_equal(lanes, 32 * warp);
    assert_int_equal(moehal_virtual_counter(0, "nonsense", &value), -1);
}

/* A table of text, a row a line: line 16 loads, line 18 stores, and line 13 does neither. */
static void counts_by_line(void **state)
{
    (void)state;
    moehal_virtual_counters_reset(0);
    assert_int_equal(moehal_virtual_set("count", "lines"), 0);
    ok(run_add(in, out, 1, 32));
    assert_int_equal(moehal_virtual_set("count", "on"), 0);
    char *table = moehal_virtual_kernel_lines(0, "add");
    assert_non_null(table);
    uint64_t seen = 0;
    char *rest = table;
    for (char *row; (row = strtok_r(rest, "\n", &rest));) {
        unsigned line, warps, lanes, bytes, sectors;
        if (sscanf(row, "%u %u %u %u %u", &line, &warps, &lanes, &bytes, &sectors) != 5)
            continue; /* the head */
        seen |= 1u << line;
        assert_int_equal(warps, 1);
        assert_int_equal(lanes, 32);
        assert_int_equal(bytes, line == 16 || line == 18 ? 128 : 0);
        assert_int_equal(sectors, line == 16 || line == 18 ? 4 : 0);
    }
    assert_int_equal(seen, 0xffe00); /* lines 9 to 19 */
    free(table);
    assert_null(moehal_virtual_kernel_lines(0, "nonsense"));
}

static char report_path[] = "/tmp/moehal-reports-XXXXXX.jsonl";

/* What MOEHAL_VIRTUAL_REPORT names holds each finding as a line of JSON, as the functions give it.
 */
static void report_file(void **state)
{
    (void)state;
    const char *json, *text;
    char line[1000];
    moehal_virtual_reports_quiet(0);
    assert_int_equal(run_add(in, in, 5, 64), CUDA_ERROR_ILLEGAL_ADDRESS);
    moehal_virtual_reports_quiet(1);
    assert_int_equal(moehal_virtual_report_at(0, NULL, &json, &text, NULL), 0);
    FILE *f = fopen(report_path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    assert_null(fgets(line + strlen(line), 10, f)); /* only that one */
    fclose(f);
    line[strcspn(line, "\n")] = 0;
    assert_string_equal(line, json);
    assert_non_null(
        strstr(line, "{\"check\": \"out-of-bounds\", \"device\": 0, \"kernel\": \"add\""));
    assert_non_null(
        strstr(line, "\"code_line\": 16, \"block\": [0, 0, 0], \"thread\": [32, 0, 0]"));
    assert_non_null(strstr(text, "[kernel add, block (0,0,0), thread (32,0,0)"));
    assert_non_null(strstr(text, "PTX line 16]"));
}

int main(void)
{
    int file = mkstemps(report_path, 6);
    if (file < 0)
        return 1;
    close(file);
    setenv("MOEHAL_VIRTUAL_DEVICES", "2", 1);
    setenv("MOEHAL_VIRTUAL_REPORT", report_path, 1);
    if (cuInit(0))
        return 1;
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(arguments),      T(errors_stick),  T(freed_and_foreign),
        T(freed),          T(time_limit),    T(bad_text),
        T(linker),         T(libraries),     T(graphs_of_kernels),
        T(counts),         T(launch_faults), T(lost_device),
        T(counts_by_line), T(report_file),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(report_path);
    return failed;
}
