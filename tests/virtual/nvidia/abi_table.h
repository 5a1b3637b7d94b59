/* abi_table.h: numbers and layouts, one line each. Included by two files of abi.c's test: one on
 * top of the toolkit's cuda.h, one on top of this library's own header; the two tables must agree.
 */
#define N(name) {#name, (long long)(name)},
#define S(type) {"sizeof " #type, (long long)sizeof(type)},
#define O(type, field) {#type "." #field, (long long)offsetof(type, field)},

static const struct abi_row {
    const char *name;
    long long value;
} ABI_TABLE[] = {
#define E(name, value) N(name)
#include "errors.def"
#undef E
    N(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK) N(CU_DEVICE_ATTRIBUTE_WARP_SIZE) N(
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT) N(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) N(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
        N(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR) N(CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR) N(
            CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH) N(CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS) N(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED)
            N(CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED) N(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE) N(CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID) N(
                CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED) N(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
                N(CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) N(CU_JIT_ERROR_LOG_BUFFER) N(
                    CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) N(CU_JIT_INFO_LOG_BUFFER) N(CU_JIT_WALL_TIME)
                    N(CU_JIT_NUM_OPTIONS) N(CU_JIT_INPUT_PTX) N(CU_LIMIT_STACK_SIZE) N(CU_LIMIT_MALLOC_HEAP_SIZE) N(
                        CU_LIMIT_PERSISTING_L2_CACHE_SIZE) N(CU_MEMORYTYPE_UNIFIED) N(CU_POINTER_ATTRIBUTE_CONTEXT)
                        N(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) N(CU_POINTER_ATTRIBUTE_RANGE_SIZE) N(
                            CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE) N(CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
                            N(CU_MEMPOOL_ATTR_USED_MEM_HIGH) N(CU_MEM_ACCESS_FLAGS_PROT_READWRITE) N(
                                CU_MEM_ALLOCATION_TYPE_PINNED) N(CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
                                N(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) N(CU_LAUNCH_ATTRIBUTE_PRIORITY) N(
                                    CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) N(CU_STREAM_CAPTURE_STATUS_INVALIDATED)
                                    N(CU_STREAM_CAPTURE_MODE_RELAXED) N(CU_STREAM_WAIT_VALUE_NOR) N(
                                        CU_GRAPH_NODE_TYPE_BATCH_MEM_OP) N(CU_GRAPH_EXEC_UPDATE_ERROR_NOT_SUPPORTED)
                                        N(CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) N(
                                            CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT) S(CUresult) S(CUdeviceptr)
                                            S(CUuuid) S(CUDA_MEMCPY2D) O(CUDA_MEMCPY2D, srcArray) O(
                                                CUDA_MEMCPY2D,
                                                dstXInBytes) O(CUDA_MEMCPY2D,
                                                               Height) S(CUDA_MEMCPY3D)
                                                O(CUDA_MEMCPY3D, srcPitch) O(CUDA_MEMCPY3D, dstDevice) O(
                                                    CUDA_MEMCPY3D,
                                                    Depth) S(CUDA_MEMCPY3D_PEER) O(CUDA_MEMCPY3D_PEER,
                                                                                   dstContext) S(CUmemLocation)
                                                    S(CUmemAccessDesc) S(CUmemAllocationProp) O(
                                                        CUmemAllocationProp,
                                                        location) O(CUmemAllocationProp, allocFlags)
                                                        S(CUmemPoolProps) O(CUmemPoolProps, maxSize) S(
                                                            CUlaunchAttribute) O(CUlaunchAttribute,
                                                                                 value) S(CUlaunchConfig)
                                                            O(CUlaunchConfig, hStream) O(
                                                                CUlaunchConfig,
                                                                numAttrs) S(CUDA_KERNEL_NODE_PARAMS)
                                                                O(CUDA_KERNEL_NODE_PARAMS, kernelParams) O(
                                                                    CUDA_KERNEL_NODE_PARAMS,
                                                                    kern) S(CUDA_MEMSET_NODE_PARAMS)
                                                                    O(CUDA_MEMSET_NODE_PARAMS,
                                                                      width) S(CUDA_HOST_NODE_PARAMS)
                                                                        S(CUDA_MEM_ALLOC_NODE_PARAMS) O(
                                                                            CUDA_MEM_ALLOC_NODE_PARAMS,
                                                                            dptr) S(CUgraphNodeParams)
                                                                            O(CUgraphNodeParams, kernel) O(
                                                                                CUgraphNodeParams,
                                                                                memcpy
                                                                                    .copyParams) O(CUgraphNodeParams,
                                                                                                   reserved2)
                                                                                S(CUgraphEdgeData) S(
                                                                                    CUDA_GRAPH_INSTANTIATE_PARAMS)
                                                                                    O(CUDA_GRAPH_INSTANTIATE_PARAMS,
                                                                                      result_out) S(CUgraphExecUpdateResultInfo)
                                                                                        O(CUgraphExecUpdateResultInfo,
                                                                                          errorFromNode)
                                                                                            S(CUctxCreateParams)};

const struct abi_row *ABI_ROWS(int *count);
const struct abi_row *ABI_ROWS(int *count)
{
    *count = (int)(sizeof ABI_TABLE / sizeof ABI_TABLE[0]);
    return ABI_TABLE;
}
