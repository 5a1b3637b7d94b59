/* launch.c: kernels' attributes, occupancy, and launches. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

/* ---- attributes ---- */

/* Registers a thread, for limits and occupancy. PTX names as many as it likes; what ptxas would
 * make of them is a guess: no more than lets the largest block run that the kernel asks for. */
static int registers(const struct CUfunc_st *f)
{
    uint32_t threads = 1;
    for (int i = 0; i < 3; i++) {
        uint32_t n = f->info->reqntid[i] ? f->info->reqntid[i] : f->info->maxntid[i];
        threads *= n ? n : 1;
    }
    if (!f->info->maxntid[0] && !f->info->reqntid[0])
        threads = 1024;
    int most = (int)(65536 / (threads < 64 ? 64 : threads)) & ~7;
    int want = (int)f->info->registers < 16 ? 16 : (int)f->info->registers;
    most = most > 255 ? 255 : most;
    if (f->info->maxnreg && (int)f->info->maxnreg < most)
        most = (int)f->info->maxnreg;
    return want < most ? want : most;
}

static int max_threads(const struct CUfunc_st *f)
{
    const uint32_t *n = f->info->reqntid[0] ? f->info->reqntid : f->info->maxntid;
    uint64_t threads = 1;
    if (!n[0])
        return 1024;
    for (int i = 0; i < 3; i++)
        threads *= n[i] ? n[i] : 1;
    return threads < 1024 ? (int)threads : 1024;
}

CUresult function_attribute(CUfunction f, CUfunction_attribute attribute, int *value)
{
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value = max_threads(f);
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
        *value = (int)f->info->shared_bytes;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
        *value = (int)f->info->const_bytes;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        *value = (int)f->info->local_bytes;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
        *value = registers(f);
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
        *value = (int)vn_module_target(f->module->parsed);
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        *value = f->module->context->device->limits.capability;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value = f->max_dynamic_shared;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        *value = f->carveout;
        return CUDA_SUCCESS;
    default:
        if (attribute < 0 || attribute > CU_FUNC_ATTRIBUTE_LAST)
            return CUDA_ERROR_INVALID_VALUE;
        *value = 0;
        return CUDA_SUCCESS;
    }
}

CU_API CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction handle)
{
    ENTER_CONTEXT("cuFuncGetAttribute", context);
    CUfunction f;
    CUresult result = function_resolve(context, handle, &f);
    return result == CUDA_SUCCESS ? function_attribute(f, attribute, value) : result;
}

CUresult function_set_attribute(CUfunction f, CUfunction_attribute attribute, int value)
{
    const struct limits *l = &f->module->context->device->limits;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        if (value < 0 || value > l->shared_optin - (int)f->info->shared_bytes)
            return CUDA_ERROR_INVALID_VALUE;
        f->max_dynamic_shared = value;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        if (value < -1 || value > 100)
            return CUDA_ERROR_INVALID_VALUE;
        f->carveout = value;
        return CUDA_SUCCESS;
    default:
        if (attribute > CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT &&
            attribute <= CU_FUNC_ATTRIBUTE_LAST)
            return refuse(CUDA_ERROR_NOT_SUPPORTED, "cuFuncSetAttribute: clusters");
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CU_API CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value)
{
    ENTER_CONTEXT("cuFuncSetAttribute", context);
    CUfunction f;
    CUresult result = function_resolve(context, handle, &f);
    return result == CUDA_SUCCESS ? function_set_attribute(f, attribute, value) : result;
}

CU_API CUresult cuFuncSetCacheConfig(CUfunction handle, int config)
{
    ENTER_CONTEXT("cuFuncSetCacheConfig", context);
    CUfunction f;
    if (config < 0 || config > 3)
        return CUDA_ERROR_INVALID_VALUE;
    return function_resolve(context, handle, &f);
}

CU_API CUresult cuFuncSetSharedMemConfig(CUfunction handle, int config)
{
    ENTER_CONTEXT("cuFuncSetSharedMemConfig", context);
    CUfunction f;
    if (config < 0 || config > 2)
        return CUDA_ERROR_INVALID_VALUE;
    return function_resolve(context, handle, &f);
}

CU_API CUresult cuFuncGetModule(CUmodule *module, CUfunction handle)
{
    ENTER_CONTEXT("cuFuncGetModule", context);
    CUfunction f;
    if (!module)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = function_resolve(context, handle, &f);
    if (result == CUDA_SUCCESS)
        *module = f->module;
    return result;
}

CU_API CUresult cuFuncGetName(const char **name, CUfunction handle)
{
    ENTER_CONTEXT("cuFuncGetName", context);
    CUfunction f;
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = function_resolve(context, handle, &f);
    if (result == CUDA_SUCCESS)
        *name = f->info->name;
    return result;
}

CU_API CUresult cuFuncGetParamInfo(CUfunction handle, size_t index, size_t *offset, size_t *size)
{
    ENTER_CONTEXT("cuFuncGetParamInfo", context);
    CUfunction f;
    CUresult result = function_resolve(context, handle, &f);
    if (result != CUDA_SUCCESS)
        return result;
    if (!offset || index >= f->info->param_count)
        return CUDA_ERROR_INVALID_VALUE;
    *offset = f->info->params[index].offset;
    if (size)
        *size = f->info->params[index].size;
    return CUDA_SUCCESS;
}

CU_API CUresult cuFuncIsLoaded(int *state, CUfunction handle)
{
    ENTER_CONTEXT("cuFuncIsLoaded", context);
    CUfunction f;
    if (!state)
        return CUDA_ERROR_INVALID_VALUE;
    *state = 1;
    return function_resolve(context, handle, &f);
}

CU_API CUresult cuFuncLoad(CUfunction handle)
{
    ENTER_CONTEXT("cuFuncLoad", context);
    CUfunction f;
    return function_resolve(context, handle, &f);
}

/* ---- occupancy ---- */

static int floor_to(int value, int unit)
{
    return value / unit * unit;
}

int function_occupancy(const struct CUfunc_st *f, int threads, size_t dynamic_shared)
{
    const struct limits *l = &f->module->context->device->limits;
    int warps = (threads + 31) / 32;
    if (threads <= 0 || threads > max_threads(f))
        return 0;
    size_t shared = f->info->shared_bytes + dynamic_shared;
    if (shared > (size_t)l->shared_optin)
        return 0;
    shared = (shared + 1024 + 127) & ~(size_t)127; /* the system keeps 1 KB of each block */
    int by_warps = l->warps_per_sm / warps;
    int by_shared = (int)((size_t)l->shared_per_sm / shared);
    int warp_registers = (32 * registers(f) + 255) / 256 * 256;
    int by_registers = floor_to(65536 / warp_registers, 4) / warps;
    int blocks = l->blocks_per_sm;
    blocks = by_warps < blocks ? by_warps : blocks;
    blocks = by_shared < blocks ? by_shared : blocks;
    return by_registers < blocks ? by_registers : blocks;
}

static CUresult occupancy(int *blocks, CUfunction handle, int threads, size_t shared,
                          unsigned flags)
{
    ENTER_CONTEXT("cuOccupancyMaxActiveBlocksPerMultiprocessor", context);
    CUfunction f;
    if (!blocks || threads <= 0 || flags > CU_OCCUPANCY_FLAGS)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = function_resolve(context, handle, &f);
    if (result == CUDA_SUCCESS)
        *blocks = function_occupancy(f, threads, shared);
    return result;
}

CU_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction f, int threads,
                                                            size_t shared)
{
    return occupancy(blocks, f, threads, shared, 0);
}

CU_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction f,
                                                                     int threads, size_t shared,
                                                                     unsigned flags)
{
    return occupancy(blocks, f, threads, shared, flags);
}

static CUresult best_block(int *grid, int *block, CUfunction handle, CUoccupancyB2DSize size_of,
                           size_t shared, int limit)
{
    ENTER_CONTEXT("cuOccupancyMaxPotentialBlockSize", context);
    CUfunction f;
    int best = 0;
    if (!grid || !block || limit < 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = function_resolve(context, handle, &f);
    if (result != CUDA_SUCCESS)
        return result;
    int most = max_threads(f);
    if (limit && limit < most)
        most = limit;
    *grid = *block = 0;
    for (int threads = floor_to(most + 31, 32); threads > 0; threads -= 32) {
        int n = threads < most ? threads : most;
        int blocks = function_occupancy(f, n, size_of ? size_of(n) : shared);
        if (blocks * n > best) {
            best = blocks * n;
            *block = n;
            *grid = blocks * context->device->limits.sms;
        }
    }
    return best ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CU_API CUresult cuOccupancyMaxPotentialBlockSize(int *grid, int *block, CUfunction f,
                                                 CUoccupancyB2DSize size_of, size_t shared,
                                                 int limit)
{
    return best_block(grid, block, f, size_of, shared, limit);
}

CU_API CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block, CUfunction f,
                                                          CUoccupancyB2DSize size_of, size_t shared,
                                                          int limit, unsigned flags)
{
    return flags > CU_OCCUPANCY_FLAGS ? CUDA_ERROR_INVALID_VALUE
                                      : best_block(grid, block, f, size_of, shared, limit);
}

CU_API CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t *bytes, CUfunction handle,
                                                        int blocks, int threads)
{
    ENTER_CONTEXT("cuOccupancyAvailableDynamicSMemPerBlock", context);
    CUfunction f;
    if (!bytes || blocks <= 0 || threads <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = function_resolve(context, handle, &f);
    if (result != CUDA_SUCCESS)
        return result;
    const struct limits *l = &context->device->limits;
    int share = floor_to(l->shared_per_sm / blocks, 128) - 1024 - (int)f->info->shared_bytes;
    int most = l->shared_optin - (int)f->info->shared_bytes;
    share = share > most ? most : share;
    *bytes = share > 0 ? (size_t)share : 0;
    return CUDA_SUCCESS;
}

/* ---- launches ---- */

static CUresult check_shape(CUfunction f, const struct kernel_call *k)
{
    const struct limits *l = &f->module->context->device->limits;
    uint64_t threads = (uint64_t)k->block[0] * k->block[1] * k->block[2];
    for (int i = 0; i < 3; i++)
        if (!k->grid[i] || !k->block[i])
            return CUDA_ERROR_INVALID_VALUE;
    if (k->grid[0] > 0x7fffffff || k->grid[1] > 65535 || k->grid[2] > 65535 || k->block[0] > 1024 ||
        k->block[1] > 1024 || k->block[2] > 64 || threads > 1024)
        return CUDA_ERROR_INVALID_VALUE;
    if (f->info->uses_cluster)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "kernel %s: clusters", f->info->name);
    for (int i = 0; i < 3; i++)
        if (f->info->reqntid[0] && k->block[i] != (f->info->reqntid[i] ? f->info->reqntid[i] : 1))
            return refuse(CUDA_ERROR_INVALID_VALUE, "kernel %s: .reqntid wants another block",
                          f->info->name);
    if (threads > (uint64_t)max_threads(f))
        return refuse(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "kernel %s: .maxntid allows %d threads",
                      f->info->name, max_threads(f));
    if (k->shared > (uint32_t)f->max_dynamic_shared ||
        k->shared + f->info->shared_bytes > (uint32_t)l->shared_optin)
        return refuse(CUDA_ERROR_INVALID_VALUE,
                      "kernel %s: %u bytes of dynamic shared memory, and %d are allowed "
                      "(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)",
                      f->info->name, k->shared, f->max_dynamic_shared);
    uint64_t blocks = (uint64_t)k->grid[0] * k->grid[1] * k->grid[2];
    if (k->cooperative &&
        blocks > (uint64_t)function_occupancy(f, (int)threads, k->shared) * (uint64_t)l->sms)
        return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    return CUDA_SUCCESS;
}

/* The buffer form: BUFFER_POINTER, p, BUFFER_SIZE, &n, END in any order. */
static CUresult read_extra(void **extra, const void **buffer, size_t *size)
{
    *buffer = NULL;
    *size = 0;
    for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
        if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER)
            *buffer = extra[1];
        else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE && extra[1])
            *size = *(const size_t *)extra[1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

static CUresult copy_params(const struct vn_function *info, void **params, void **extra, char *to)
{
    const void *buffer;
    size_t size;
    if (extra) {
        if (params || read_extra(extra, &buffer, &size) != CUDA_SUCCESS ||
            size < info->param_bytes || (size && !buffer))
            return CUDA_ERROR_INVALID_VALUE;
        if (info->param_bytes)
            memcpy(to, buffer, info->param_bytes);
        return CUDA_SUCCESS;
    }
    if (!params && info->param_count)
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; i < info->param_count; i++) {
        if (!params[i])
            return CUDA_ERROR_INVALID_VALUE;
        memcpy(to + info->params[i].offset, params[i], info->params[i].size);
    }
    return CUDA_SUCCESS;
}

CUresult kernel_call_make(CUcontext context, CUfunction handle, const unsigned grid[3],
                          const unsigned block[3], unsigned shared, bool cooperative, void **params,
                          void **extra, struct kernel_call *out)
{
    CUfunction f;
    CUresult result = function_resolve(context, handle, &f);
    if (result != CUDA_SUCCESS)
        return result;
    *out = (struct kernel_call){
        .function = f,
        .grid = {grid[0], grid[1], grid[2]},
        .block = {block[0], block[1], block[2]},
        .shared = shared,
        .cooperative = cooperative,
    };
    result = check_shape(f, out);
    if (result != CUDA_SUCCESS)
        return result;
    out->params = calloc(1, f->info->param_bytes ? f->info->param_bytes : 1);
    if (!out->params)
        return CUDA_ERROR_OUT_OF_MEMORY;
    result = copy_params(f->info, params, extra, out->params);
    if (result != CUDA_SUCCESS) {
        free(out->params);
        return result;
    }
    module_hold(f->module);
    return CUDA_SUCCESS;
}

static CUresult launch(const char *name, CUfunction f, const CUlaunchConfig *c, void **params,
                       void **extra, bool cooperative, bool per_thread)
{
    ENTER_CONTEXT(name, context);
    CUstream stream;
    CUresult result = stream_resolve(context, c->hStream, per_thread, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (!c->hStream && !per_thread && (result = capture_forbids(context, stream)) != CUDA_SUCCESS)
        return result;
    const unsigned grid[3] = {c->gridDimX, c->gridDimY, c->gridDimZ};
    const unsigned block[3] = {c->blockDimX, c->blockDimY, c->blockDimZ};
    struct op op = {.kind = OP_KERNEL};
    result = kernel_call_make(stream->context, f, grid, block, c->sharedMemBytes, cooperative,
                              params, extra, &op.kernel);
    if (result != CUDA_SUCCESS)
        return result;
    if (op.kernel.function->module->context != stream->context) {
        op_release(&op);
        return CUDA_ERROR_INVALID_HANDLE;
    }
    return stream_submit(stream, &op, NULL);
}

static CUresult launch_ex(const CUlaunchConfig *c, CUfunction f, void **params, void **extra,
                          bool per_thread)
{
    bool cooperative = false;
    if (!c || (c->numAttrs && !c->attrs))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < c->numAttrs; i++) {
        const CUlaunchAttribute *a = &c->attrs[i];
        if (a->id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
            cooperative = a->value.cooperative != 0;
        else if (a->id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION &&
                 a->value.clusterDim.x * a->value.clusterDim.y * a->value.clusterDim.z > 1)
            return refuse(CUDA_ERROR_NOT_SUPPORTED, "cuLaunchKernelEx: clusters");
        else if (a->id < 0 || a->id > 32)
            return CUDA_ERROR_INVALID_VALUE; /* the others are hints, and are taken as such */
    }
    return launch("cuLaunchKernelEx", f, c, params, extra, cooperative, per_thread);
}

CU_API CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **params, void **extra)
{
    return launch_ex(c, f, params, extra, false);
}

CU_API CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *c, CUfunction f, void **params,
                                      void **extra)
{
    return launch_ex(c, f, params, extra, true);
}

#define LAUNCH(symbol, name, cooperative, per_thread)                                              \
    CU_API CUresult symbol(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,       \
                           unsigned by, unsigned bz, unsigned shared, CUstream stream,             \
                           void **params, void **extra)                                            \
    {                                                                                              \
        const CUlaunchConfig c = {gx, gy, gz, bx, by, bz, shared, stream, NULL, 0};                \
        return launch(name, f, &c, params, extra, cooperative, per_thread);                        \
    }

LAUNCH(cuLaunchKernel, "cuLaunchKernel", false, false)
LAUNCH(cuLaunchKernel_ptsz, "cuLaunchKernel", false, true)

#define LAUNCH_COOPERATIVE(symbol, per_thread)                                                     \
    CU_API CUresult symbol(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,       \
                           unsigned by, unsigned bz, unsigned shared, CUstream stream,             \
                           void **params)                                                          \
    {                                                                                              \
        const CUlaunchConfig c = {gx, gy, gz, bx, by, bz, shared, stream, NULL, 0};                \
        return launch("cuLaunchCooperativeKernel", f, &c, params, NULL, true, per_thread);         \
    }

LAUNCH_COOPERATIVE(cuLaunchCooperativeKernel, false)
LAUNCH_COOPERATIVE(cuLaunchCooperativeKernel_ptsz, true)
