/*
 * faults.h: a device that fails on request, to test what stands above it. A layer around the
 * backend's table, put in when the device is opened with mh_device_params.faults; without it the
 * table is the backend's own.
 */
#ifndef MOEHAL_FAULTS_H
#define MOEHAL_FAULTS_H

#include <moehal/error.h>

MH_BEGIN_DECLS

/* Calls of the backend's table that can fail, by kind. */
enum {
    MH_CALL_NONE = 0,
    MH_CALL_MEMORY_INFO = 1,
    MH_CALL_BUFFER_CREATE = 2,
    MH_CALL_STREAM_CREATE = 3,
    MH_CALL_COPY = 4,
    MH_CALL_MARK = 5,
    MH_CALL_WAIT = 6,
    MH_CALL_SUPPORTS = 7,
    MH_CALL_ENCODE = 8,
    MH_CALL_IMPORT = 9,
    MH_CALL_RESET = 10,
    /* of the optional groups */
    MH_CALL_GRAPH_CREATE = 11,
    MH_CALL_GRAPH_LAUNCH = 12,
    MH_CALL_EVENT_RECORD = 13,
    MH_CALL_EVENT_WAIT = 14,
    MH_CALL_GATE_HOLD = 15,
    MH_CALL_BUFFER_WRAP = 16,
    MH_CALL_MODULE_LOAD = 17,
    MH_CALL_KERNEL_CREATE = 18,
    MH_CALL_EVENT_WRAP = 19,
    MH_CALL_KINDS = 20,
};

/* What is to fail, once. Zero injects nothing and only counts. */
typedef struct mh_faults {
    uint64_t struct_size;
    uint32_t call;    /* MH_CALL_...: the kind that fails */
    mh_status status; /* what it returns. MH_DEVICE_LOST: the device is lost there; at an encode the
                         work is swallowed and the loss told by the next wait, as hardware does */
    uint64_t nth;     /* at its nth call, from 1 */
    uint64_t memory_limit; /* bytes of buffers the device holds at most; 0: no limit */
} mh_faults;

typedef struct mh_fault_report {
    uint64_t struct_size;
    uint64_t fired; /* injections so far, refusals by memory_limit among them */
    uint64_t calls[MH_CALL_KINDS];
} mh_fault_report;

/* "buffer_create"; "?" for an unknown kind. */
MH_API const char *mh_call_name(uint32_t call);

MH_END_DECLS

#endif
