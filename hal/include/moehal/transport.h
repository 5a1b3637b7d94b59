/*
 * transport.h: what joins processes, for communicators that reach over several of them (comm.h).
 *
 * A transport is a module that is opened at run time, such as moehal_mpi.so; it exports one symbol,
 * mh_transport_entry, and links with nothing of moehal. Every process opens the same one, and calls
 * what is collective in the same order. Threads: one at a time.
 */
#ifndef MOEHAL_TRANSPORT_H
#define MOEHAL_TRANSPORT_H

#include <moehal/runtime.h>

MH_BEGIN_DECLS

/* ---- for modules ---- */

#define MH_TRANSPORT_ENTRY "mh_transport_entry"
#define MH_TRANSPORT_ABI 1u

/* Functions return MH_OK, or a failure with its words in reason[0 .. 255]. */
typedef struct mh_transport_table {
    uint32_t abi; /* MH_TRANSPORT_ABI */
    uint32_t reserved;
    uint64_t struct_size;
    const char *name;
    /* Joins the others: this process's number, and how many there are. */
    mh_status (*open)(void **instance, uint32_t *process, uint32_t *processes, char *reason);
    void (*close)(void *instance);
    /* Collective. `all` has a part for each process, one behind the other, of parts[process] bytes;
     * in: this process's own part; out: all of them. In host memory, or see `takes`. */
    mh_status (*gather)(void *instance, void *all, const uint64_t *parts, char *reason);
    /* Ends all processes with this exit status. Does not return. */
    void (*abort)(void *instance, int32_t exit_status);
    /* May `all` be memory of this backend's devices: "nvidia", pointers of CUDA, "amd", of HIP? Not
     * where it is NULL. Asked only where MOEHAL_GPU_AWARE=1 allows it. */
    uint32_t (*takes)(void *instance, const char *backend);
} mh_transport_table;

typedef const mh_transport_table *(*mh_transport_entry_fn)(void);

/* ---- for users ---- */

typedef struct mh_transport mh_transport;

/* `name` is an absolute path, or as "mpi" one of moehal_mpi.so, looked for in the folders of
 * MOEHAL_TRANSPORTS (absolute, ':' between; unless the environment is off), then in
 * moehal/transports beside the library. Collective: waits for the other processes. */
MH_API mh_status mh_transport_open(mh_runtime *runtime, const char *name, mh_transport **out);
MH_API mh_transport *mh_transport_retain(mh_transport *transport);
MH_API void mh_transport_release(mh_transport *transport); /* NULL is allowed */

/* Which of how many processes this is. */
MH_API uint32_t mh_transport_process(const mh_transport *transport);
MH_API uint32_t mh_transport_processes(const mh_transport *transport);

/* As of the table. */
MH_API mh_status mh_transport_gather(mh_transport *transport, void *all, const uint64_t *parts);

/* Collective: says that this process has `own` ranks, one at least, and how many each has. counts
 * [processes]; *first is how many the processes before this one have, *all how many there are, at
 * most 65536. NULL as transport: this process is all. */
MH_API mh_status mh_transport_ranks(mh_transport *transport, uint32_t own, uint32_t *counts,
                                    uint32_t *first, uint32_t *all);

/* Ends every process, this one too: where one has failed and the others would wait for it. */
MH_API void mh_transport_abort(mh_transport *transport, int32_t exit_status);

MH_END_DECLS

#endif
