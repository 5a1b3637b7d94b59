/* hip_calls.h: the calls of HIP that the tests of kernels make, and short ways to make them. */
#ifndef HIP_CALLS_H
#define HIP_CALLS_H

#include <stdio.h>
#include <stdlib.h>

#include <hip_abi.h>

hipError_t hipMalloc(void **out, size_t bytes);
hipError_t hipFree(void *pointer);
hipError_t hipMemcpy(void *to, const void *from, size_t bytes, hipMemcpyKind kind);
hipError_t hipMemset(void *to, int value, size_t bytes);
hipError_t hipModuleLoad(hipModule_t *out, const char *path);
hipError_t hipModuleLoadData(hipModule_t *out, const void *image);
hipError_t hipModuleUnload(hipModule_t module);
hipError_t hipModuleGetFunction(hipFunction_t *out, hipModule_t module, const char *name);
hipError_t hipModuleGetGlobal(hipDeviceptr_t *address, size_t *bytes, hipModule_t module,
                              const char *name);
hipError_t hipModuleLaunchKernel(hipFunction_t f, unsigned gx, unsigned gy, unsigned gz,
                                 unsigned bx, unsigned by, unsigned bz, unsigned lds,
                                 hipStream_t stream, void **params, void **extra);
hipError_t ext_module_launch(hipFunction_t f, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx,
                             uint32_t by, uint32_t bz, size_t lds, hipStream_t stream,
                             void **params, void **extra, hipEvent_t begin, hipEvent_t end,
                             uint32_t flags) __asm__("_Z24hipExtModuleLaunchKernelP18ihipModuleSymb"
                                                     "ol_tjjjjjjmP12ihipStream_tPPvS4_"
                                                     "P11ihipEvent_tS6_j"); /* sizes in lanes */
hipError_t hipDeviceSynchronize(void);
hipError_t hipDeviceReset(void);
const char *hipGetErrorName(hipError_t error);

static inline void need(hipError_t result, const char *what)
{
    if (result != hipSuccess) {
        fprintf(stderr, "%s: %s\n", what, hipGetErrorName(result));
        exit(1);
    }
}

/* Memory of the device, with these bytes in it; `from` NULL: zeros. */
static inline void *on_device(const void *from, size_t bytes)
{
    void *memory;
    need(hipMalloc(&memory, bytes), "hipMalloc");
    need(from ? hipMemcpy(memory, from, bytes, hipMemcpyHostToDevice) : hipMemset(memory, 0, bytes),
         "filling memory");
    return memory;
}

/* Back to the host; the memory is freed. */
static inline void take(void *to, void *memory, size_t bytes)
{
    need(hipMemcpy(to, memory, bytes, hipMemcpyDeviceToHost), "hipMemcpy");
    need(hipFree(memory), "hipFree");
}

static inline hipError_t start(hipModule_t module, const char *name, dim3 grid, dim3 block,
                               unsigned lds, void **params)
{
    hipFunction_t f;
    need(hipModuleGetFunction(&f, module, name), name);
    return hipModuleLaunchKernel(f, grid.x, grid.y, grid.z, block.x, block.y, block.z, lds, NULL,
                                 params, NULL);
}

/* Launches and waits; arguments are variables. */
#define RUN(module, name, grid, block, lds, ...)                                                   \
    do {                                                                                           \
        void *params_[] = {__VA_ARGS__};                                                           \
        need(start(module, name, grid, block, lds, params_), name);                                \
        need(hipDeviceSynchronize(), name);                                                        \
    } while (0)
#define D1(x)                                                                                      \
    (dim3)                                                                                         \
    {                                                                                              \
        (x), 1, 1                                                                                  \
    }

#endif
