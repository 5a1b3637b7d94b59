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
 * Bytes go through host memory: a call waits for what its streams have before it, and for the other
 * processes. A process that fails alone leaves the others waiting: mh_transport_abort ends them
 * all. Threads: one at a time, as for the streams.
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

/* x of rank `root` becomes x of every rank. Any dtype and shape. */
MH_API mh_status mh_comm_broadcast(mh_comm *comm, const mh_tensor *x, uint32_t root);

/* y of every rank is the x of all ranks one behind the other: x [n, ...], y [ranks * n, ...]. */
MH_API mh_status mh_comm_all_gather(mh_comm *comm, const mh_tensor *y, const mh_tensor *x);

/* y of every rank is the sum of all x. f32 or bf16; y may be x. */
MH_API mh_status mh_comm_all_reduce(mh_comm *comm, const mh_tensor *y, const mh_tensor *x);

/* y of rank r is its part of the sum: x [ranks * n, ...], y [n, ...]. f32 or bf16. */
MH_API mh_status mh_comm_reduce_scatter(mh_comm *comm, const mh_tensor *y, const mh_tensor *x);

/* Outputs of experts, unsummed, from the ranks that have them to all. e f32 [T, k, D]; experts i32
 * [T, k], on the process's first rank, the same in all processes. owners[expert], of expert_count,
 * is a rank: e[t, j] of every rank becomes that of the owner of experts[t, j]. Out-of-range experts
 * leave e[t, j] as it was. */
MH_API mh_status mh_comm_combine(mh_comm *comm, const mh_tensor *e, const mh_tensor *experts,
                                 const uint32_t *owners, int64_t expert_count);

typedef struct mh_comm_info {
    uint64_t struct_size;
    uint32_t ranks; /* of all processes */
    uint32_t first; /* of this one, */
    uint32_t count; /* which has so many */
    uint32_t reserved;
    uint64_t operations; /* begun */
    uint64_t bytes_out;  /* that left a rank of this process, all together */
    uint64_t bytes_in;   /* that came to one */
} mh_comm_info;

MH_API mh_status mh_comm_get_info(const mh_comm *comm, mh_comm_info *out);

MH_END_DECLS

#endif
