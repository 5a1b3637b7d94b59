/* runtime.c: an embedder's allocator, log and error callbacks, and its own choice of backends. */
#include <stdio.h>
#include <stdlib.h>

#include <moehal/moehal.h>

struct embedder {
    long live; /* allocations */
    int errors;
};

static void *allocate(void *user, uint64_t size)
{
    void *memory = malloc(size);
    __atomic_add_fetch(&((struct embedder *)user)->live, memory != NULL, __ATOMIC_RELAXED);
    return memory;
}

static void deallocate(void *user, void *memory)
{
    __atomic_sub_fetch(&((struct embedder *)user)->live, memory != NULL, __ATOMIC_RELAXED);
    free(memory);
}

/* Any thread, unlocked; it must not call moehal. */
static void on_error(void *user, const mh_error *error)
{
    ((struct embedder *)user)->errors++;
    printf("error callback: %s\n", error->message);
}

static void on_log(void *user, uint32_t level, const char *text)
{
    (void)user;
    if (level <= MH_LOG_WARNING)
        fprintf(stderr, "moehal: %s\n", text);
}

int main(void)
{
    struct embedder me = {0, 0};
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.flags = MH_RUNTIME_NO_ENVIRONMENT; /* MOEHAL_BACKENDS and others have no say */
    params.allocate = allocate, params.deallocate = deallocate, params.allocator_user = &me;
    params.log = on_log;
    params.error = on_error, params.error_user = &me;
    /* params.modules and module_count name backend modules by absolute path. */

    int ok = !mh_runtime_create(&params, &runtime);
    mh_backend_info backend = MH_INIT(mh_backend_info);
    for (uint32_t i = 0; ok && !mh_runtime_backend(runtime, i, &backend); i++) {
        printf("%s: %s\n", backend.name, backend.status ? backend.reason : "usable");
        backend = MH_INIT(mh_backend_info);
    }
    ok = ok && mh_device_open(runtime, "no-such-backend", NULL, &device) == MH_NOT_FOUND;
    ok = ok && me.errors == 1 && me.live > 0;
    mh_runtime_release(runtime);
    return !ok || me.live != 0;
}
