/* core.h: cases of the layers above single ops. Each is a function that returns whether it held. */
#ifndef CONFORMANCE_CORE_H
#define CONFORMANCE_CORE_H

#include "suite.h"

/* What a core case works with. Objects made through it are released when the case ends, however it
 * ends. */
struct core {
    struct conf_suite *suite;
    mh_device *device;
    mh_stream *stream;
    struct conf_random random;
    uint64_t limit; /* how often a sweep may inject */
    bool fallback;  /* the device leaves this to the host: no pass */
    struct conf_result *result;
    struct core_object {
        void (*release)(void *object);
        void *object;
    } objects[256];
    uint32_t object_count;
};

struct core_case {
    const char *name; /* GROUP/NAME */
    bool (*run)(struct core *c);
};

/* Records why the case fails; false. */
bool core_fail(struct core *c, const char *format, ...) MH_PRINTF(2, 3);

/* Records that the device would leave the case to the host; false. */
bool core_fallback(struct core *c, const char *reason);

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return core_fail(c, __VA_ARGS__), false;                                               \
    } while (0)
#define TRY(call)                                                                                  \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            return core_fail(c, "%s: %s", #call, mh_last_message()), false;                        \
    } while (0)
/* The call fails with this status. */
#define REFUSES(status, call)                                                                      \
    do {                                                                                           \
        mh_status refused_ = (call);                                                               \
        if (refused_ != (status))                                                                  \
            return core_fail(c, "%s: %s, must be %s", #call, mh_status_text(refused_),             \
                             mh_status_text(status));                                              \
    } while (0)

void core_keep(struct core *c, void (*release)(void *), void *object);
void core_release_from(struct core *c, uint32_t first); /* objects kept since there were so many */

/* Made, kept, or NULL with the case failed. */
mh_buffer *core_buffer(struct core *c, mh_device *device, uint64_t size);
mh_stream *core_stream(struct core *c, mh_device *device);
/* The device under test once more, with the given faults (may be NULL). */
mh_device *core_device(struct core *c, const mh_faults *faults);

/* Calls visit for every core case of the profile. */
int core_enumerate(bool fast, int (*visit)(void *user, const struct core_case *core_case),
                   void *user);
void core_run(struct conf_suite *s, const struct core_case *core_case, struct conf_result *result);

extern const struct core_case core_memory[], core_weights[], core_streams[], core_graphs[],
    core_faults[], core_models[], core_vectors[], core_comm[], core_fast[], core_fast_fused[];

#endif
