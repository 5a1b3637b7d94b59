/*
 * comm.h: what several devices do together, of one runtime and, over a transport, of several
 * processes.
 *
 * A communicator joins one stream of each device; its ranks are the streams of the first process in
 * order, then those of the second, and so on. An operation is called once in every process, with
 * one tensor for each of its own ranks, on the rank's device, dense and of the same shape
 * everywhere. It begins where each stream stands and is in the streams' order; what it leaves on a
 * rank is the same to the bit whatever the devices, their order in time and the way the bytes go.
 * Sums begin with rank 0 and add the others in order, in f32; a bf16 result is rounded once, at the
 * end.
 *
 * Bytes go one of two ways, to the same bits. Native: the ranks are of one process and their
 * devices write into each other's memory; calls enqueue and return, and operations can be recorded
 * into graphs. Staged: through host memory; a call waits for what its streams have before it, and
 * for the other processes. Which one, and why not the other, is in mh_comm_info.
 *
 * What fails alone leaves others waiting. Processes: mh_transport_abort ends them all. Ranks of one
 * process: mh_comm_wait. Threads: one at a time, as for the streams.
 */
#ifndef MOEHAL_COMM_H
#define MOEHAL_COMM_H

#include <moehal/stream.h>
#include <moehal/transport.h>

MH_BEGIN_DECLS

typedef struct mh_comm mh_comm;

/* Retains the streams; at least one, all of one runtime, each once. The transport, also retained,
 * joins processes, in which the call is collective; NULL: this process is all. The caller owns
 * *out. */
MH_API mh_status mh_comm_create(mh_stream *const *streams, uint32_t count, mh_transport *transport,
                                mh_comm **out);
MH_API mh_comm *mh_comm_retain(mh_comm *comm);
MH_API void mh_comm_release(mh_comm *comm); /* NULL is allowed; waits for what is on its way */

/* How a communicator goes about it; 0 everywhere: its own choice. */
typedef struct mh_comm_params {
    uint64_t struct_size;
    uint64_t capacity;    /* bytes that a device gives as exchange buffer, twice; operations on more
                             are done in parts */
    uint64_t timeout_ns;  /* how long a kernel waits for another rank before it gives up */
    uint64_t chunk_bytes; /* what is signalled at once */
    uint32_t blocks;      /* of a kernel */
    uint32_t staged;      /* 1: never native */
} mh_comm_params;

/* Before the first operation. */
MH_API mh_status mh_comm_set(mh_comm *comm, const mh_comm_params *params);

/* x of rank `root` becomes x of every rank. Any dtype and shape. */
MH_API mh_status mh_comm_broadcast(mh_comm *comm, const mh_tensor *x, uint32_t root);

/* y of every rank is the x of all ranks one behind the other: x [n, ...], y [ranks * n, ...]. */
MH_API mh_status mh_comm_all_gather(mh_comm *comm, const mh_tensor *y, const mh_tensor *x);

/* y of every rank is the sum of all x. f32 or bf16; y may be x. */
MH_API mh_status mh_comm_all_reduce(mh_comm *comm, const mh_tensor *y, const mh_tensor *x);

/* y of rank r is its part of the sum: x [ranks * n, ...], y [n, ...]. f32 or bf16. */
MH_API mh_status mh_comm_reduce_scatter(mh_comm *comm, const mh_tensor *y, const mh_tensor *x);

/* Outputs of experts, unsummed, from the ranks that have them to all. e f32 [T, k, D]; experts i32
 * [T, k], the same on all ranks. owners[expert], of expert_count, is a rank: e[t, j] of every rank
 * becomes that of the owner of experts[t, j]. Out-of-range experts leave e[t, j] as it was. */
MH_API mh_status mh_comm_combine(mh_comm *comm, const mh_tensor *e, const mh_tensor *experts,
                                 const uint32_t *owners, int64_t expert_count);

/* ---- tokens to the experts' owners, and back ---- */

/* What comes to a rank: each an array, of one tensor a rank of this process. The shapes say how
 * many rows there may be; how many there are is known on the device alone. */
typedef struct mh_comm_rows {
    uint64_t struct_size;
    const mh_tensor *y;       /* [capacity, D] */
    const mh_tensor *source;  /* i32 [capacity, 3]: a row's rank, token and slot */
    const mh_tensor *experts; /* i32 [capacity, 1]: as the ops of experts take them */
    const mh_tensor *count;   /* i32 [1]: rows that came */
    const mh_tensor *fault;   /* u32 [1] */
} mh_comm_rows;

/* Every rank has tokens of its own here: x [T, D], of any dtype, and experts i32 [T, k]. x[t] goes
 * to owners[experts[t, j]], once for each slot j, with its expert: a rank's rows are by the rank
 * they come from, then by token, then by slot. Out-of-range experts go nowhere: -1, where a rank
 * has fewer tokens than others. Past the count a row of y is left as it was, source is -1, -1, -1,
 * and the expert is expert_count: an expert_map of so many elements and one more, that is -1, makes
 * the ops of experts pass it over. What comes after the last row that fits is left out, and the
 * fault word of the rank that it was for becomes MH_OUT_OF_MEMORY. */
MH_API mh_status mh_comm_dispatch(mh_comm *comm, const mh_comm_rows *rows, const mh_tensor *x,
                                  const mh_tensor *experts, const uint32_t *owners,
                                  int64_t expert_count);

/* The way back: a row of rows->y, of any dtype and width, becomes e[token, slot] of the rank that
 * its source names: e [T, k, D]. Slots that no row names stay as they were. A source of rank -1 is
 * none; another that is out of range sets the fault word of the rank that has the row to
 * MH_BAD_INDEX. rows->experts and rows->count are not looked at. No two rows name one slot. */
MH_API mh_status mh_comm_return(mh_comm *comm, const mh_tensor *e, const mh_comm_rows *rows);

/* ---- recorded ---- */

enum {
    MH_COMM_BROADCAST = 1,
    MH_COMM_ALL_GATHER,
    MH_COMM_ALL_REDUCE,
    MH_COMM_REDUCE_SCATTER,
    MH_COMM_COMBINE,
    MH_COMM_DISPATCH,
    MH_COMM_RETURN
};
enum { MH_COMM_SEND = 1, MH_COMM_RECEIVE = 2 };

/* An operation as one rank sees it: what the function of its name gets, of this rank alone. */
typedef struct mh_comm_op {
    uint64_t struct_size;
    uint32_t kind; /* MH_COMM_BROADCAST, ... */
    /* MH_COMM_SEND: sends what is this rank's and does not wait. MH_COMM_RECEIVE: waits, and takes
     * what is others'. Both, or one after the other with anything in between but another operation
     * of this communicator and what writes to what this one reads; not of sums. */
    uint32_t phases;
    uint32_t root;
    uint32_t reserved;
    mh_tensor y; /* of combine and return: e; of dispatch: not looked at */
    mh_tensor x; /* of broadcast, combine and return: not looked at */
    mh_tensor experts;
    const uint32_t *owners; /* read before the call returns */
    int64_t expert_count;
    const mh_comm_rows *rows; /* of dispatch and return: arrays of one; read like owners */
} mh_comm_op;

/* Rank `rank`'s part of an operation, at an encoder of its device: a stream, or a graph, which then
 * does it at each launch. The ranks must come to run the same operations in the same order, each on
 * one stream; the host must not wait for one of them in between (a graph with ops that fall back
 * does). MH_UNSUPPORTED where the communicator is not native. */
MH_API mh_status mh_comm_encode(mh_comm *comm, uint32_t rank, mh_encoder *encoder,
                                const mh_comm_op *op);

/* Waits for the streams of all ranks together. What one of them fails with, or a rank that did not
 * come in time, ends the wait and stops the kernels that still wait for it; the communicator is of
 * no use then. MH_TIMEOUT after timeout_ns; nothing is stopped by that.
 * Memory of the devices that was released since the first mh_comm_encode is given back here, or when
 * the communicator is released: some drivers wait for every kernel before they take it back, and a
 * kernel may wait for a rank that is not launched yet. */
MH_API mh_status mh_comm_wait(mh_comm *comm, uint64_t timeout_ns);

/* Kernels that wait for another rank give up, now and from now on, where a rank will not come. */
MH_API void mh_comm_stop(mh_comm *comm);

typedef struct mh_comm_info {
    uint64_t struct_size;
    uint32_t ranks; /* of all processes */
    uint32_t first; /* of this one, */
    uint32_t count; /* which has so many */
    uint32_t reserved;
    uint64_t operations; /* begun */
    uint64_t bytes_out;  /* staged: that left a rank of this process, all together */
    uint64_t bytes_in;   /* staged: that came to one */
    uint64_t launches;   /* native: kernels enqueued or recorded */
    uint32_t native;     /* 1: by the devices themselves; the first call that asks decides */
    uint32_t reserved2;
    char reason[192]; /* why not */
} mh_comm_info;

MH_API mh_status mh_comm_get_info(mh_comm *comm, mh_comm_info *out);

MH_END_DECLS

#endif
