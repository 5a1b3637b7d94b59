/* driver.c: the state of the process, entry into calls, errors. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct driver driver = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .work = PTHREAD_COND_INITIALIZER,
};

/* ---- calls ---- */

static _Thread_local char last_refusal[256];

const char *last_refusal_text(void)
{
    return last_refusal;
}

void refusal_log(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_refusal, sizeof last_refusal, format, arguments);
    va_end(arguments);
    vc_log(driver.reports, "%s", last_refusal);
}

CUresult call_enter(const char *name)
{
    int code;
    if (!driver.initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (vc_faults_call(driver.faults, name, &code)) {
        vc_log(driver.reports, "%s: fails on request", name);
        return code < 0 ? CUDA_ERROR_OPERATING_SYSTEM : (CUresult)code;
    }
    return CUDA_SUCCESS;
}

CUresult call_context(const char *name, CUcontext *context)
{
    CUresult result = call_enter(name);
    if (result != CUDA_SUCCESS)
        return result;
    CUcontext current = context_current();
    if (!current)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!vc_handle_is(current, HANDLE_CONTEXT))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    *context = current;
    return (CUresult)current->error;
}

/* ---- errors ---- */

struct result_name {
    int value;
    const char *name;
};

static const struct result_name result_names[] = {
#define E(name, value) {value, #name},
#include "errors.def"
#undef E
};

enum { RESULT_NAMES = sizeof result_names / sizeof result_names[0] };

static int result_index(CUresult result)
{
    for (int i = 0; i < RESULT_NAMES; i++)
        if (result_names[i].value == (int)result)
            return i;
    return -1;
}

CU_API CUresult cuGetErrorName(CUresult error, const char **text)
{
    int i = result_index(error);
    if (!text)
        return CUDA_ERROR_INVALID_VALUE;
    *text = i < 0 ? NULL : result_names[i].name;
    return i < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static char result_texts[RESULT_NAMES][48];
static pthread_once_t texts_once = PTHREAD_ONCE_INIT;

/* The name in words: CUDA_ERROR_OUT_OF_MEMORY, "out of memory". */
static void make_texts(void)
{
    for (int i = 0; i < RESULT_NAMES; i++) {
        const char *name = result_names[i].name + strlen("CUDA_ERROR_");
        if (result_names[i].value == CUDA_SUCCESS)
            name = "NO_ERROR";
        char *to = result_texts[i];
        for (size_t j = 0; name[j] && j + 1 < sizeof result_texts[i]; j++)
            to[j] = (char)(name[j] == '_' ? ' ' : name[j] | 0x20);
    }
}

CU_API CUresult cuGetErrorString(CUresult error, const char **text)
{
    int i = result_index(error);
    if (!text)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_once(&texts_once, make_texts);
    *text = i < 0 ? NULL : result_texts[i];
    return i < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CU_API CUresult cuInit(unsigned flags)
{
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    return driver_start();
}

CU_API CUresult cuDriverGetVersion(int *version)
{
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}
