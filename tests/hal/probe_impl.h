/* probe_impl.h: what the files of the probe share. One lock guards everything: the runtime's thread
 * waits for streams while others enqueue. */
#ifndef PROBE_IMPL_H
#define PROBE_IMPL_H

#include <pthread.h>

#include "probe.h"

struct buffer {
    struct buffer *next; /* of its device: a reset takes all */
    char *memory;
    uint64_t pending; /* queued work that names it */
    int wrapped;      /* the memory is a test's */
};

struct device {
    struct buffer *buffers;
    struct stream *streams;
    uint64_t used;
    int lost;
};

struct work {
    struct work *next;
    mh_copy copy;
    union {
        mh_op base;
        mh_op_add add;
        mh_op_copy copy;
        mh_op_fill fill;
        mh_op_linear linear;
        mh_op_kernel kernel;
    } op;
    mh_kernel_arg args[4];
    /* What an op needs is resolved when it is encoded: neither it nor the views outlive that call.
     */
    struct buffer *buffers[4];
    mh_weight_view weight;
    uint64_t mark;
    struct graph *graph;  /* a launch of it */
    struct event *record; /* a point to remember */
    struct event *wait;   /* begins when that point has been passed `target` times */
    uint64_t target;
    struct gate *gate; /* begins when it is open */
};

struct stream {
    struct stream *next;
    struct device *device;
    struct work *first, **tail;
    uint64_t next_mark, done;
    struct probe_queue *queue; /* wrapped */
};

struct event {
    struct stream *stream;       /* where it was last recorded; NULL: the embedder did */
    struct probe_event own, *at; /* at: own, or the embedder's */
    uint64_t when;
    uint64_t waits; /* enqueued */
    int destroyed;
};

struct gate {
    int open;
};

struct graph {
    struct work *works; /* of one launch */
    uint32_t count;
    uint64_t pending;
};

struct kernel {
    char name[32];
    struct module *module;
};

struct module {
    char names[256];
};

extern const mh_core *probe_core;
extern pthread_mutex_t probe_lock;
extern pthread_cond_t probe_gate_opened;

#define FAIL(status, ...)                                                                          \
    probe_core->fail(probe_core->context, __FILE__, __LINE__, (status), "probeCall", 42,           \
                     "PROBE_ERROR", __VA_ARGS__)

struct probe_control *probe_control(void);
struct work *probe_push(struct stream *s);
void probe_fill(struct work *w, const mh_op *op); /* resolves what an op names */
void probe_pend(struct work *w, int by);
/* Runs the first piece of work; MH_TIMEOUT where a closed gate holds it. Locked. */
mh_status probe_advance(struct stream *s);
void probe_run(struct work *w);
void probe_buffer_destroy(void *device, mh_buffer_view *view);
mh_status probe_stream_create(void *device, void **out);
/* probe_groups.c */
void probe_run_kernel(const struct work *w);
int probe_run_other(struct stream *s, struct work *w, mh_status *status);
void probe_drop_other(struct work *w); /* work that is never run */
void probe_set_groups(mh_backend_table *table, uint32_t groups);

#endif
