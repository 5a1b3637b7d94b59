/* mpi.c: processes joined by MPI. Built against Open MPI; any that keeps its ABI will do. */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef OPEN_MPI
#include <mpi-ext.h> /* what it was built with */
#endif

#include <moehal/transport.h>

#define REASON 256
#define PIECE ((uint64_t)1 << 30) /* bytes that a count of type int can tell */

struct instance {
    MPI_Comm comm; /* of our own: what else the process does with MPI does not meet it */
    int size;
    int initialised; /* here, so it is to be ended here */
    int *counts, *begins;
};

static mh_status failed(int code, const char *call, char *reason)
{
    char text[MPI_MAX_ERROR_STRING] = "?";
    int length;
    MPI_Error_string(code, text, &length);
    snprintf(reason, REASON, "%s: %s", call, text);
    return MH_VENDOR_ERROR;
}

static void leave(void *self)
{
    struct instance *mpi = self;
    if (mpi->comm != MPI_COMM_NULL)
        MPI_Comm_free(&mpi->comm);
    if (mpi->initialised)
        MPI_Finalize();
    free(mpi->counts);
    free(mpi->begins);
    free(mpi);
}

static mh_status join(void **out, uint32_t *process, uint32_t *processes, char *reason)
{
    struct instance *mpi = calloc(1, sizeof(*mpi));
    if (!mpi) {
        snprintf(reason, REASON, "host memory: no room");
        return MH_OUT_OF_MEMORY;
    }
    mpi->comm = MPI_COMM_NULL;
    int there = 0, level, rank = 0, code = MPI_Initialized(&there);
    if (!code && !there) {
        code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
        mpi->initialised = !code;
    }
    if (!code)
        code = MPI_Comm_dup(MPI_COMM_WORLD, &mpi->comm);
    if (!code)
        code = MPI_Comm_set_errhandler(mpi->comm, MPI_ERRORS_RETURN);
    if (!code)
        code = MPI_Comm_rank(mpi->comm, &rank);
    if (!code)
        code = MPI_Comm_size(mpi->comm, &mpi->size);
    mh_status status = code ? failed(code, "joining", reason) : MH_OK;
    if (!status) {
        mpi->counts = calloc((size_t)mpi->size, sizeof(*mpi->counts));
        mpi->begins = calloc((size_t)mpi->size, sizeof(*mpi->begins));
        if (!mpi->counts || !mpi->begins) {
            snprintf(reason, REASON, "host memory: no room for %d processes", mpi->size);
            status = MH_OUT_OF_MEMORY;
        }
    }
    if (status) {
        leave(mpi);
        return status;
    }
    *out = mpi;
    *process = (uint32_t)rank;
    *processes = (uint32_t)mpi->size;
    return MH_OK;
}

/* More than one call can take: every part in pieces. */
static int gather_much(const struct instance *mpi, char *all, const uint64_t *parts)
{
    int code = MPI_SUCCESS;
    for (int p = 0; p < mpi->size; all += parts[p++])
        for (uint64_t done = 0; !code && done < parts[p]; done += PIECE) {
            uint64_t bytes = parts[p] - done < PIECE ? parts[p] - done : PIECE;
            code = MPI_Bcast(all + done, (int)bytes, MPI_BYTE, p, mpi->comm);
        }
    return code;
}

static mh_status gather(void *self, void *all, const uint64_t *parts, char *reason)
{
    struct instance *mpi = self;
    uint64_t total = 0;
    for (int p = 0; p < mpi->size && total <= PIECE; p++) {
        mpi->begins[p] = (int)total;
        mpi->counts[p] = (int)(parts[p] < PIECE ? parts[p] : PIECE);
        total += parts[p] < PIECE ? parts[p] : PIECE + 1;
    }
    if (total > PIECE) {
        int code = gather_much(mpi, all, parts);
        return code ? failed(code, "MPI_Bcast", reason) : MH_OK;
    }
    int code = MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all, mpi->counts, mpi->begins,
                              MPI_BYTE, mpi->comm);
    return code ? failed(code, "MPI_Allgatherv", reason) : MH_OK;
}

static void end_all(void *self, int32_t exit_status)
{
    struct instance *mpi = self;
    MPI_Abort(mpi->comm, exit_status);
    abort(); /* it does not return */
}

/* GPU-aware MPI. Untested: Debian's is not, and no virtual GPU can show it. */
static uint32_t takes(void *self, const char *backend)
{
    (void)self, (void)backend;
#if defined(MPIX_CUDA_AWARE_SUPPORT) && MPIX_CUDA_AWARE_SUPPORT
    if (!strcmp(backend, "nvidia"))
        return MPIX_Query_cuda_support() == 1;
#endif
#if defined(MPIX_ROCM_AWARE_SUPPORT) && MPIX_ROCM_AWARE_SUPPORT
    if (!strcmp(backend, "amd"))
        return MPIX_Query_rocm_support() == 1;
#endif
    return 0;
}

static const mh_transport_table table = {
    .abi = MH_TRANSPORT_ABI,
    .struct_size = sizeof(table),
    .name = "mpi",
    .open = join,
    .close = leave,
    .gather = gather,
    .abort = end_all,
    .takes = takes,
};

MH_API const mh_transport_table *mh_transport_entry(void);

const mh_transport_table *mh_transport_entry(void)
{
    return &table;
}
