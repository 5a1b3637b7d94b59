/* compat.c: first names of calls whose later versions take the same arguments; calls that do
 * nothing here. */
#include "driver.h"

#define ALIAS(old, current, params, arguments)                                                     \
    CU_API CUresult current params;                                                                \
    CU_API CUresult old params;                                                                    \
    CU_API CUresult old params                                                                     \
    {                                                                                              \
        return current arguments;                                                                  \
    }

ALIAS(cuCtxDestroy, cuCtxDestroy_v2, (CUcontext context), (context))
ALIAS(cuCtxPopCurrent, cuCtxPopCurrent_v2, (CUcontext * context), (context))
ALIAS(cuCtxPushCurrent, cuCtxPushCurrent_v2, (CUcontext context), (context))
ALIAS(cuStreamDestroy, cuStreamDestroy_v2, (CUstream stream), (stream))
ALIAS(cuEventDestroy, cuEventDestroy_v2, (CUevent event), (event))
ALIAS(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (CUdevice device), (device))
ALIAS(cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2, (CUdevice device), (device))
ALIAS(cuDevicePrimaryCtxSetFlags, cuDevicePrimaryCtxSetFlags_v2, (CUdevice device, unsigned flags),
      (device, flags))
ALIAS(cuMemHostRegister, cuMemHostRegister_v2, (void *host, size_t bytes, unsigned flags),
      (host, bytes, flags))
ALIAS(cuLinkCreate, cuLinkCreate_v2,
      (unsigned count, CUjit_option *options, void **values, CUlinkState *out),
      (count, options, values, out))
ALIAS(cuLinkAddData, cuLinkAddData_v2,
      (CUlinkState state, CUjitInputType type, void *data, size_t bytes, const char *name,
       unsigned count, CUjit_option *options, void **values),
      (state, type, data, bytes, name, count, options, values))
ALIAS(cuLinkAddFile, cuLinkAddFile_v2,
      (CUlinkState state, CUjitInputType type, const char *path, unsigned count,
       CUjit_option *options, void **values),
      (state, type, path, count, options, values))

CU_API CUresult cuProfilerStart(void)
{
    ENTER("cuProfilerStart");
    return CUDA_SUCCESS;
}

CU_API CUresult cuProfilerStop(void)
{
    ENTER("cuProfilerStop");
    return CUDA_SUCCESS;
}
