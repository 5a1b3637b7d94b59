/* abi.c: prints the numbers and layouts of HIP's API that programs have in them. Compiled once with
 * the virtual runtime's header and once with Debian's: the two must print the same. */
#include <stddef.h>
#include <stdio.h>

#ifdef OURS
#include <hip_abi.h>
enum {
#define A(name, number, value) name = number,
#include <attributes.def>
#undef A
};
#else
#include <hip/hip_runtime_api.h>
#endif

#define VALUE(name) printf("%s %lld\n", #name, (long long)(name))
#define SIZE(type) printf("%s: %zu bytes\n", #type, sizeof(type))
#define AT(type, field)                                                                            \
    printf("%s.%s at %zu, %zu bytes\n", #type, #field, offsetof(type, field),                      \
           sizeof(((type *)0)->field))

static void errors(void)
{
#define E(name, value) VALUE(name);
#include <errors.def>
#undef E
}

static void attributes(void)
{
#define A(name, number, value) VALUE(name);
#include <attributes.def>
#undef A
}

static void values(void)
{
    VALUE((size_t)hipStreamPerThread);
    VALUE((size_t)HIP_LAUNCH_PARAM_BUFFER_POINTER);
    VALUE((size_t)HIP_LAUNCH_PARAM_BUFFER_SIZE);
    VALUE((size_t)HIP_LAUNCH_PARAM_END);
    VALUE(hipStreamNonBlocking);
    VALUE(hipEventBlockingSync);
    VALUE(hipEventDisableTiming);
    VALUE(hipEventInterprocess);
    VALUE(hipStreamWaitValueGte);
    VALUE(hipStreamWaitValueNor);
    VALUE(hipMemAttachGlobal);
    VALUE(hipMemAttachSingle);
    VALUE(hipLimitMallocHeapSize);
    VALUE(hipMemcpyHostToHost);
    VALUE(hipMemcpyDefault);
    VALUE(hipMemoryTypeHost);
    VALUE(hipMemoryTypeUnified);
    VALUE(HIP_POINTER_ATTRIBUTE_MEMORY_TYPE);
    VALUE(HIP_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
    VALUE(HIP_POINTER_ATTRIBUTE_MAPPED);
    VALUE(HIP_FUNC_ATTRIBUTE_NUM_REGS);
    VALUE(HIP_FUNC_ATTRIBUTE_MAX);
    VALUE(hipFuncAttributeMaxDynamicSharedMemorySize);
    VALUE(hipGraphNodeTypeKernel);
    VALUE(hipGraphNodeTypeMemcpy1D);
    VALUE(hipStreamCaptureModeRelaxed);
    VALUE(hipStreamCaptureStatusInvalidated);
    VALUE(hipMemPoolReuseFollowEventDependencies);
    VALUE(hipMemPoolAttrReleaseThreshold);
    VALUE(hipMemPoolAttrUsedMemHigh);
}

static void properties(void)
{
    SIZE(hipDeviceProp_t);
    AT(hipDeviceProp_t, totalGlobalMem);
    AT(hipDeviceProp_t, sharedMemPerBlock);
    AT(hipDeviceProp_t, regsPerBlock);
    AT(hipDeviceProp_t, warpSize);
    AT(hipDeviceProp_t, maxThreadsDim);
    AT(hipDeviceProp_t, maxGridSize);
    AT(hipDeviceProp_t, memoryBusWidth);
    AT(hipDeviceProp_t, totalConstMem);
    AT(hipDeviceProp_t, minor);
    AT(hipDeviceProp_t, multiProcessorCount);
    AT(hipDeviceProp_t, computeMode);
    AT(hipDeviceProp_t, arch);
    AT(hipDeviceProp_t, pciBusID);
    AT(hipDeviceProp_t, maxSharedMemoryPerMultiProcessor);
    AT(hipDeviceProp_t, gcnArch);
    AT(hipDeviceProp_t, gcnArchName);
    AT(hipDeviceProp_t, cooperativeLaunch);
    AT(hipDeviceProp_t, maxTexture3D);
    AT(hipDeviceProp_t, hdpRegFlushCntl);
    AT(hipDeviceProp_t, texturePitchAlignment);
    AT(hipDeviceProp_t, ECCEnabled);
    AT(hipDeviceProp_t, isLargeBar);
    AT(hipDeviceProp_t, managedMemory);
    AT(hipDeviceProp_t, pageableMemoryAccessUsesHostPageTables);
}

static void structs(void)
{
    SIZE(dim3);
    SIZE(hipUUID);
    SIZE(hipPitchedPtr);
    SIZE(hipExtent);
    SIZE(hipPointerAttribute_t);
    AT(hipPointerAttribute_t, device);
    AT(hipPointerAttribute_t, hostPointer);
    AT(hipPointerAttribute_t, allocationFlags);
    SIZE(hipFuncAttributes);
    AT(hipFuncAttributes, localSizeBytes);
    AT(hipFuncAttributes, numRegs);
    AT(hipFuncAttributes, sharedSizeBytes);
    SIZE(hipMemcpy3DParms);
    AT(hipMemcpy3DParms, srcPtr);
    AT(hipMemcpy3DParms, dstPos);
    AT(hipMemcpy3DParms, extent);
    AT(hipMemcpy3DParms, kind);
    SIZE(hip_Memcpy2D);
    AT(hip_Memcpy2D, srcDevice);
    AT(hip_Memcpy2D, dstMemoryType);
    AT(hip_Memcpy2D, Height);
    SIZE(hipKernelNodeParams);
    AT(hipKernelNodeParams, extra);
    AT(hipKernelNodeParams, gridDim);
    AT(hipKernelNodeParams, sharedMemBytes);
    SIZE(hipMemsetParams);
    AT(hipMemsetParams, height);
    AT(hipMemsetParams, width);
    SIZE(hipHostNodeParams);
}

int main(void)
{
    errors();
    attributes();
    values();
    properties();
    structs();
    return 0;
}
