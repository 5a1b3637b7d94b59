/* lame_start.c: driver libraries that are wrong in one way each: LAME 1 has no GPU, 2 is too old, 3
 * cannot start and says so as the toolkit's stub does; so does 4, but its cuGetProcAddress names
 * another cuInit, which has no GPU. */
#include <string.h>

#define API __attribute__((visibility("default")))

API int cuInit(unsigned int flags);
API int cuDriverGetVersion(int *version);
API int cuGetErrorName(int error, const char **text);
API int cuGetErrorString(int error, const char **text);

int cuInit(unsigned int flags)
{
    (void)flags;
    return LAME == 1 ? 100 : LAME >= 3 ? 34 : 0;
}

int cuDriverGetVersion(int *version)
{
    *version = LAME == 2 ? 10020 : 12000;
    return 0;
}

int cuGetErrorName(int error, const char **text)
{
    *text = error == 34 ? "CUDA_ERROR_STUB_LIBRARY" : "CUDA_ERROR_UNKNOWN";
    return 0;
}

int cuGetErrorString(int error, const char **text)
{
    *text = error == 34 ? "CUDA driver is a stub library" : "unknown error";
    return 0;
}

#if LAME == 4
API int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags);

static int init_without_a_gpu(unsigned int flags)
{
    (void)flags;
    return 100;
}

int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags)
{
    int (*init)(unsigned int) = init_without_a_gpu;
    if (strcmp(name, "cuInit") || version != 2000 || flags)
        return 500;
    memcpy(function, &init, sizeof(init));
    return 0;
}
#endif
