/* A driver that an ICD loader finds and that has no device: the first entries of the dispatch table
 * that every object begins with. */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <string.h>

static cl_int CL_API_CALL platform_ids(cl_uint room, cl_platform_id *out, cl_uint *count);

static cl_int CL_API_CALL platform_info(cl_platform_id platform, cl_platform_info what, size_t room,
                                        void *out, size_t *size)
{
    const char *text = what == CL_PLATFORM_EXTENSIONS       ? "cl_khr_icd"
                       : what == CL_PLATFORM_ICD_SUFFIX_KHR ? "EMPTY"
                       : what == CL_PLATFORM_VERSION        ? "OpenCL 1.2 "
                                                            : "A driver without devices";
    (void)platform;
    if (out && room > strlen(text))
        memcpy(out, text, strlen(text) + 1);
    if (size)
        *size = strlen(text) + 1;
    return CL_SUCCESS;
}

static cl_int CL_API_CALL device_ids(cl_platform_id platform, cl_device_type type, cl_uint room,
                                     cl_device_id *out, cl_uint *count)
{
    (void)platform, (void)type, (void)room, (void)out;
    if (count)
        *count = 0;
    return CL_DEVICE_NOT_FOUND;
}

static const void *dispatch[256] = {(void *)platform_ids, (void *)platform_info,
                                    (void *)device_ids};
static const void *platform[] = {dispatch};

static cl_int CL_API_CALL platform_ids(cl_uint room, cl_platform_id *out, cl_uint *count)
{
    if (out && room)
        *out = (cl_platform_id)platform;
    if (count)
        *count = 1;
    return CL_SUCCESS;
}

CL_API_ENTRY cl_int CL_API_CALL clIcdGetPlatformIDsKHR(cl_uint room, cl_platform_id *out,
                                                       cl_uint *count)
{
    return platform_ids(room, out, count);
}

CL_API_ENTRY cl_int CL_API_CALL clGetPlatformInfo(cl_platform_id p, cl_platform_info what,
                                                  size_t room, void *out, size_t *size)
{
    return platform_info(p, what, room, out, size);
}

CL_API_ENTRY void *CL_API_CALL clGetExtensionFunctionAddress(const char *name)
{
    return !strcmp(name, "clIcdGetPlatformIDsKHR") ? (void *)clIcdGetPlatformIDsKHR
           : !strcmp(name, "clGetPlatformInfo")    ? (void *)clGetPlatformInfo
                                                   : NULL;
}
