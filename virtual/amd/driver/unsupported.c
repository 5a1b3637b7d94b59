/* unsupported.c: the entry points of HIP that a virtual device does not have: arrays and textures,
 * other processes, graphics, run-time compilation, tools' callbacks. They are called with whatever
 * arguments they have, which they do not look at. */
#include "driver.h"

static void log_call(const char *name)
{
    if (driver_start() == hipSuccess)
        vc_log(driver.reports, "%s: not supported", name);
}

enum { HIPRTC_ERROR_INTERNAL_ERROR = 11 };

#define U(name)                                                                                    \
    HIP_API hipError_t name(void)                                                                  \
    {                                                                                              \
        log_call(#name);                                                                           \
        return done(hipErrorNotSupported);                                                         \
    }
#define R(name)                                                                                    \
    HIP_API int name(void)                                                                         \
    {                                                                                              \
        log_call(#name);                                                                           \
        return HIPRTC_ERROR_INTERNAL_ERROR;                                                        \
    }
#define T(name)                                                                                    \
    HIP_API const char *name(void)                                                                 \
    {                                                                                              \
        log_call(#name);                                                                           \
        return "not supported";                                                                    \
    }
#define V(name)                                                                                    \
    HIP_API void name(void)                                                                        \
    {                                                                                              \
        log_call(#name);                                                                           \
    }
#include "unsupported.def"
