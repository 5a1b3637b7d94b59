/*
 * runtime.h: the root object. Nothing below it is process-wide: two runtimes do not meet.
 *
 * Threads: a runtime may be used from any thread. After fork() the child's handles fail with
 * MH_STALE_HANDLE; a child makes its own runtime.
 */
#ifndef MOEHAL_RUNTIME_H
#define MOEHAL_RUNTIME_H

#include <moehal/error.h>

MH_BEGIN_DECLS

typedef struct mh_runtime mh_runtime;

enum { MH_LOG_ERROR = 1, MH_LOG_WARNING = 2, MH_LOG_INFO = 3, MH_LOG_DEBUG = 4 };

enum {
    /* Ignore every environment variable (MOEHAL_BACKENDS, MOEHAL_DEVICE, and what backends read).
     */
    MH_RUNTIME_NO_ENVIRONMENT = 1u,
};

/* Everything may be zero. Strings are copied, `user` pointers are borrowed until the runtime's
 * last reference is gone. Callbacks run unlocked, on any thread, and must not call moehal. */
typedef struct mh_runtime_params {
    uint64_t struct_size;
    uint32_t flags;
    uint32_t reserved;
    /* Host memory of the runtime and its backends. Both or neither. `allocate` returns memory
     * aligned for any type, or NULL. */
    void *(*allocate)(void *user, uint64_t size);
    void (*deallocate)(void *user, void *memory);
    void *allocator_user;
    void (*log)(void *user, uint32_t level, const char *text);
    void *log_user;
    /* Called for every failure raised below this runtime, with what mh_last_error will say; not of
     * backends that cannot be used here, which are listed with their reason. */
    void (*error)(void *user, const mh_error *error);
    void *error_user;
    /* Backend modules to load, absolute paths, before those of the search path. */
    const char *const *modules;
    uint64_t module_count;
} mh_runtime_params;

/* Makes a runtime and loads its backends: the given modules, then every module of the folders in
 * MOEHAL_BACKENDS (absolute, ':' between; unless the environment is off), then of the folder
 * moehal/backends beside the library. A module that cannot be used is not an error here: it stays
 * listed with its reason (mh_runtime_backend). params may be NULL. The caller owns *out. */
MH_API mh_status mh_runtime_create(const mh_runtime_params *params, mh_runtime **out);
MH_API mh_runtime *mh_runtime_retain(mh_runtime *runtime);
MH_API void mh_runtime_release(mh_runtime *runtime); /* NULL is allowed */

/* A backend and its report. */
typedef struct mh_backend_info {
    uint64_t struct_size;
    mh_status status;      /* MH_OK: loaded and initialised */
    uint32_t device_count; /* devices it lists, usable or not */
    char name[32];
    char description[128];
    char path[512];   /* of its module; "" if linked in */
    char reason[512]; /* why it cannot be used; "" if it can */
} mh_backend_info;

/* The backend of the given index, host first; MH_NOT_FOUND past the last. */
MH_API mh_status mh_runtime_backend(mh_runtime *runtime, uint32_t index, mh_backend_info *out);

MH_END_DECLS

#endif
