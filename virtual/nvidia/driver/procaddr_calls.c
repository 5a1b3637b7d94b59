/* procaddr_calls.c: cuGetProcAddress; apart from the table, which declares every entry point its
 * own way. */
#include "driver.h"

CU_API CUresult cuGetProcAddress(const char *name, void **out, int version, cuuint64_t flags)
{
    return proc_address(name, out, version, flags, NULL);
}

CU_API CUresult cuGetProcAddress_v2(const char *name, void **out, int version, cuuint64_t flags,
                                    CUdriverProcAddressQueryResult *status)
{
    return proc_address(name, out, version, flags, status);
}

CU_API CUresult cuGetExportTable(const void **table, const void *id)
{
    (void)id;
    if (!table)
        return CUDA_ERROR_INVALID_VALUE;
    *table = NULL; /* private tables of the vendor's own libraries */
    return refuse(CUDA_ERROR_NOT_SUPPORTED,
                  "cuGetExportTable: the CUDA runtime library needs NVIDIA's own driver; programs "
                  "that use the driver API run");
}
