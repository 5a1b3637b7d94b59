/* driver.c: the state of the process, entry into calls, handles, errors. */
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

CUresult refuse(CUresult result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_refusal, sizeof last_refusal, format, arguments);
    va_end(arguments);
    vc_log(driver.reports, "%s", last_refusal);
    return result;
}

CUresult call_enter(const char *name)
{
    int code;
    if (!driver.initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (vc_faults_call(driver.faults, name, &code)) {
        vc_log(driver.reports, "%s: fails on request", name);
        return code < 0 ? CUDA_ERROR_UNKNOWN : (CUresult)code;
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
    if (!handle_is(current, HANDLE_CONTEXT))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    *context = current;
    return (CUresult)current->error;
}

/* ---- handles: a table of pointers, open addressing ---- */

static struct {
    pthread_mutex_t lock;
    struct slot {
        const void *pointer; /* NULL: never used; with type 0: was used */
        enum handle type;
    } * slots;
    size_t room, filled; /* filled counts those that were used too */
} handles = {.lock = PTHREAD_MUTEX_INITIALIZER};

static size_t slot_of(const void *pointer, size_t room)
{
    uint64_t h = (uintptr_t)pointer * 0x9e3779b97f4a7c15u;
    return (size_t)(h >> 20) & (room - 1);
}

static struct slot *slot_find(const void *pointer)
{
    if (!handles.room)
        return NULL;
    for (size_t i = slot_of(pointer, handles.room);; i = (i + 1) & (handles.room - 1)) {
        struct slot *s = &handles.slots[i];
        if (!s->pointer)
            return NULL;
        if (s->pointer == pointer && s->type)
            return s;
    }
}

static void slot_put(struct slot *slots, size_t room, const void *pointer, enum handle type)
{
    size_t i = slot_of(pointer, room);
    while (slots[i].pointer)
        i = (i + 1) & (room - 1);
    slots[i] = (struct slot){pointer, type};
}

static bool slots_grow(void)
{
    size_t live = 0;
    for (size_t i = 0; i < handles.room; i++)
        live += handles.slots[i].type != 0;
    size_t room = 256;
    while (room < 4 * (live + 1))
        room *= 2;
    struct slot *grown = calloc(room, sizeof *grown);
    if (!grown)
        return false;
    for (size_t i = 0; i < handles.room; i++)
        if (handles.slots[i].type)
            slot_put(grown, room, handles.slots[i].pointer, handles.slots[i].type);
    free(handles.slots);
    handles.slots = grown;
    handles.room = room;
    handles.filled = live;
    return true;
}

bool handle_add(const void *pointer, enum handle type)
{
    pthread_mutex_lock(&handles.lock);
    bool ok = 2 * (handles.filled + 1) <= handles.room || slots_grow();
    if (ok) {
        slot_put(handles.slots, handles.room, pointer, type);
        handles.filled++;
    }
    pthread_mutex_unlock(&handles.lock);
    return ok;
}

void handle_remove(const void *pointer)
{
    pthread_mutex_lock(&handles.lock);
    struct slot *s = slot_find(pointer);
    if (s)
        s->type = 0;
    pthread_mutex_unlock(&handles.lock);
}

bool handle_is(const void *pointer, enum handle type)
{
    if (!pointer)
        return false;
    pthread_mutex_lock(&handles.lock);
    const struct slot *s = slot_find(pointer);
    bool is = s && s->type == type;
    pthread_mutex_unlock(&handles.lock);
    return is;
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
