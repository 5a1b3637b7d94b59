/* procaddr.c: entry points by name and version; those that are not there, named in the log. */
#include "driver.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

/* A call of what this library does not have: the log names it. */
#define U(symbol)                                                                                  \
    CU_API CUresult symbol(void);                                                                  \
    CU_API CUresult symbol(void)                                                                   \
    {                                                                                              \
        return driver.initialised ? refuse(CUDA_ERROR_NOT_SUPPORTED,                               \
                                           "%s is not supported by "                               \
                                           "the virtual driver",                                   \
                                           #symbol)                                                \
                                  : CUDA_ERROR_NOT_INITIALIZED;                                    \
    }
#include "unsupported.def"
#undef U

#define X(symbol) CU_API CUresult symbol(void);
#include "exports.def"
#undef X

typedef CUresult (*entry_point)(void);

static const struct {
    const char *symbol;
    entry_point function;
} symbols[] = {
#define X(symbol) {#symbol, (entry_point)symbol},
#include "exports.def"
#undef X
#define U(symbol) {#symbol, (entry_point)symbol},
#include "unsupported.def"
#undef U
};

/* Which symbol a name means from which version of the API on. */
static const struct {
    const char *name;
    int version;
    const char *symbol;
} versions[] = {
#define V(name, version, symbol) {#name, version, #symbol},
#include "versions.def"
#undef V
};

static entry_point find_symbol(const char *symbol)
{
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++)
        if (!strcmp(symbols[i].symbol, symbol))
            return symbols[i].function;
    return NULL;
}

/* The form with the thread's own default stream, where there is one. */
static entry_point find_form(const char *symbol, bool per_thread)
{
    char name[96];
    size_t n = strlen(symbol);
    if (per_thread && n + 6 < sizeof name) {
        static const char *const endings[] = {"_ptsz", "_ptds"};
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "%s%s", symbol, endings[i]);
            entry_point found = find_symbol(name);
            if (found)
                return found;
        }
    }
    return find_symbol(symbol);
}

static CUdriverProcAddressQueryResult find(const char *name, int version, bool per_thread,
                                           entry_point *out)
{
    const char *symbol = NULL;
    bool known = false;
    int newest = 0;
    *out = NULL;
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        if (strcmp(versions[i].name, name))
            continue;
        known = true;
        if (versions[i].version <= version && versions[i].version >= newest) {
            newest = versions[i].version;
            symbol = versions[i].symbol;
        }
    }
    if (!known)
        symbol = name;
    if (symbol)
        *out = find_form(symbol, per_thread);
    if (*out)
        return CU_GET_PROC_ADDRESS_FOUND;
    return known && !symbol ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                            : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
}

static CUresult get(const char *name, void **out, int version, cuuint64_t flags,
                    CUdriverProcAddressQueryResult *status)
{
    if (!name || !out || flags > 2)
        return CUDA_ERROR_INVALID_VALUE;
    entry_point function;
    CUdriverProcAddressQueryResult found =
        find(name, version, flags == CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, &function);
    memcpy(out, &function, sizeof function);
    if (status)
        *status = found;
    return found == CU_GET_PROC_ADDRESS_FOUND || status ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult proc_address(const char *name, void **out, int version, cuuint64_t flags,
                      CUdriverProcAddressQueryResult *status)
{
    return get(name, out, version, flags, status);
}
