/* wave32.c: the virtual runtime, which it is linked with, but its GPU has waves of 32, as RDNA. */
#include <dlfcn.h>

int hipInit(unsigned flags);
__attribute__((visibility("default"))) int (*const so_that_it_is_linked)(unsigned) = hipInit;

__attribute__((visibility("default"))) int hipDeviceGetAttribute(int *value, int attribute,
                                                                 int device)
{
    int (*real)(int *, int, int);
    *(void **)&real = dlsym(RTLD_NEXT, "hipDeviceGetAttribute");
    int result = real ? real(value, attribute, device) : 1;
    if (!result && attribute == 87)
        *value = 32;
    return result;
}
