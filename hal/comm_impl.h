/* comm_impl.h: what comm.c and comm_native.c share. */
#ifndef COMM_IMPL_H
#define COMM_IMPL_H

#include "hal.h"

/* Staging of two operations: when the third begins every stream has passed the first. */
#define TURNS 2

/* Owners of experts, as kernels read them. */
struct comm_owners {
    struct comm_owners *next;
    int64_t count;
    uint32_t *owners;    /* [count], the host's copy */
    mh_buffer **buffers; /* [ranks]: i32 [count] on each device */
};

/* A rank of a native communicator. */
struct comm_rank {
    void *exchange;
    uint32_t generation; /* of its device */
};

struct mh_comm {
    atomic_uint refs;
    mh_runtime *runtime;
    mh_transport *transport; /* NULL: one process */
    mh_stream **streams;     /* of this process: info.count */
    uint32_t *counts;        /* [processes]: their ranks */
    uint64_t *parts;         /* [processes]: bytes, of the operation at hand */
    mh_comm_info info;
    struct {
        char *data;
        uint64_t size;
    } staging[TURNS];
    uint32_t turn;

    mh_comm_params params;
    bool decided; /* whether it is native */
    bool stopped;
    bool holds;              /* an operation was encoded rank by rank: see mh_device.exchanging */
    struct comm_rank *ranks; /* [info.count], of a native one */
    uint64_t capacity;
    struct comm_owners *owners;
};

/* ---- transport.c ---- */

/* Whether it reads and writes a device's memory by itself. */
bool transport_takes(mh_transport *transport, const mh_device *device);

/* ---- comm.c ---- */

/* Bytes of a tensor whose shape has been checked. */
uint64_t comm_bytes(const mh_tensor *t);
mh_status comm_check_tensor(const mh_comm *comm, const char *function, const char *name,
                            uint32_t rank, const mh_tensor *t);
/* The rules of an operation; what op->rows says becomes *rows. */
mh_status comm_check_op(const mh_comm *comm, const char *function, uint32_t rank,
                        const mh_comm_op *op, mh_comm_rows *rows);

/* ---- comm_native.c ---- */

/* Decides at the first call. */
bool comm_is_native(mh_comm *comm);
/* Refuses one that was stopped. */
mh_status comm_check_running(const mh_comm *comm);
/* A checked operation on all ranks, at their streams; y, x and those of op->rows are arrays.
 * MH_UNSUPPORTED, and nothing is done, if the devices' backend has no kernel for its kind. */
mh_status comm_native_run(mh_comm *comm, const mh_comm_op *op, const mh_tensor *y,
                          const mh_tensor *x, const mh_tensor *experts);
void comm_native_close(mh_comm *comm); /* no work is on its way */

#endif
