/*
 * old_driver.c: a driver that has what driver.def requires and nothing else: no graphs, no pools,
 * no mapped memory, no UUIDs, no cuGetProcAddress. Each function is that of the driver which
 * MOEHAL_OLD_DRIVER names.
 */
#include <dlfcn.h>
#include <stdlib.h>

__attribute__((visibility("default"))) const char moehal_virtual_driver[] = "what it forwards to";

#define FORWARD_OPTIONAL(field, name)
#define FORWARD_REQUIRED(field, name)                                                              \
    __attribute__((visibility("hidden"))) void *to_##field;                                        \
    __asm__(".text\n.globl " name "\n.type " name ", @function\n" name ": jmp *to_" #field         \
            "(%rip)\n");
#define SYMBOL(need, result, field, name, version, args) FORWARD_##need(field, name)
#include <driver.def>
#undef SYMBOL
#undef FORWARD_REQUIRED

__attribute__((constructor)) static void find(void)
{
    const char *path = getenv("MOEHAL_OLD_DRIVER");
    void *library = path ? dlopen(path, RTLD_NOW) : NULL;
    if (!library)
        abort();
#define FORWARD_REQUIRED(field, name) to_##field = dlsym(library, name);
#define SYMBOL(need, result, field, name, version, args) FORWARD_##need(field, name)
#include <driver.def>
}
