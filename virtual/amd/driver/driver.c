/* driver.c: the state of the process, entry into calls, errors. */
#include "driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct driver driver = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .work = PTHREAD_COND_INITIALIZER,
};

static hipError_t start_device(struct device *d)
{
    d->pool = NULL;
    hipError_t result = stream_create(d, 0, 0, false, &d->legacy);
    if (result == hipSuccess)
        d->legacy->legacy = true;
    return result;
}

static hipError_t start(void)
{
    char why[200];
    if (!driver.reports)
        driver.reports = vc_reports_create("virtual AMD");
    if (!driver.faults)
        driver.faults = vc_faults_create();
    if (!driver.map && !(driver.map = vc_map_create(why))) {
        fprintf(stderr, "virtual AMD: %s\n", why);
        return hipErrorOutOfMemory;
    }
    if (!driver.reports || !driver.faults)
        return hipErrorOutOfMemory;
    if (!settings_read())
        return hipErrorInvalidValue;
    for (int i = 0; i < driver.count; i++) {
        hipError_t result = start_device(&driver.device[i]);
        if (result != hipSuccess)
            return result;
    }
    driver.initialised = true;
    return hipSuccess;
}

hipError_t driver_start(void)
{
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    if (driver.initialised)
        return hipSuccess;
    pthread_mutex_lock(&once);
    hipError_t result = driver.initialised ? hipSuccess : start();
    pthread_mutex_unlock(&once);
    return result;
}

/* ---- calls ---- */

hipError_t refuse(hipError_t result, const char *format, ...)
{
    char text[VL_WHY + 100];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    vc_log(driver.reports, "%s", text);
    return result;
}

hipError_t call_enter(const char *name)
{
    int code;
    hipError_t result = driver_start();
    if (result != hipSuccess)
        return result;
    if (vc_faults_call(driver.faults, name, &code)) {
        vc_log(driver.reports, "%s: fails on request", name);
        return code < 0 ? hipErrorOperatingSystem : (hipError_t)code;
    }
    return hipSuccess;
}

hipError_t call_device(const char *name, struct device **device)
{
    hipError_t result = call_enter(name);
    if (result != hipSuccess)
        return result;
    *device = device_current();
    return (hipError_t)(*device)->error;
}

void device_set_error(struct device *device, hipError_t error)
{
    int none = hipSuccess;
    atomic_compare_exchange_strong(&device->error, &none, (int)error);
}

/* ---- errors ---- */

static _Thread_local hipError_t last_error;

void error_keep(hipError_t result)
{
    if (result != hipSuccess && result != hipErrorNotReady)
        last_error = result;
}

HIP_API hipError_t hipGetLastError(void)
{
    hipError_t result = last_error;
    last_error = hipSuccess;
    return result;
}

HIP_API hipError_t hipPeekAtLastError(void)
{
    return last_error;
}

static const struct {
    int value;
    const char *name;
} names[] = {
#define E(name, value) {value, #name},
#include "errors.def"
#undef E
};

enum { NAMES = sizeof names / sizeof names[0] };

static int name_index(hipError_t error)
{
    for (int i = 0; i < NAMES; i++)
        if (names[i].value == (int)error)
            return i;
    return -1;
}

const char *error_name(hipError_t error)
{
    int i = name_index(error);
    return i < 0 ? NULL : names[i].name;
}

HIP_API const char *hipGetErrorName(hipError_t error)
{
    const char *name = error_name(error);
    return name ? name : "hipErrorUnknown";
}

static char texts[NAMES][64];
static pthread_once_t texts_once = PTHREAD_ONCE_INIT;

/* The name in words: hipErrorOutOfMemory, "out of memory". */
static void make_texts(void)
{
    for (int i = 0; i < NAMES; i++) {
        const char *name = names[i].name + strlen("hip");
        char *to = texts[i];
        if (!strncmp(name, "Error", 5))
            name += 5;
        for (size_t n = 0; *name && n + 2 < sizeof texts[i]; name++) {
            bool upper = *name >= 'A' && *name <= 'Z';
            if (upper && n)
                to[n++] = ' ';
            to[n++] = (char)(upper ? *name | 0x20 : *name);
        }
    }
}

HIP_API const char *hipGetErrorString(hipError_t error)
{
    int i = name_index(error);
    pthread_once(&texts_once, make_texts);
    return i < 0 ? "unknown error" : texts[i];
}

HIP_API hipError_t hipInit(unsigned flags)
{
    ENTER("hipInit");
    return done(flags ? hipErrorInvalidValue : hipSuccess);
}

enum { VERSION = 50221153 }; /* major, minor, patch as Debian 12's */

static hipError_t version(const char *name, int *out)
{
    ENTER(name);
    if (!out)
        return done(hipErrorInvalidValue);
    *out = VERSION;
    return hipSuccess;
}

HIP_API hipError_t hipDriverGetVersion(int *out)
{
    return version("hipDriverGetVersion", out);
}

HIP_API hipError_t hipRuntimeGetVersion(int *out)
{
    return version("hipRuntimeGetVersion", out);
}
