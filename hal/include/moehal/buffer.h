/*
 * buffer.h: device memory. Threads: any. A buffer may be released while work that uses it is in
 * flight: the memory is freed when that work is done.
 */
#ifndef MOEHAL_BUFFER_H
#define MOEHAL_BUFFER_H

#include <moehal/device.h>

MH_BEGIN_DECLS

enum {
    MH_BUFFER_DEVICE = 0,       /* the device's own memory */
    MH_BUFFER_HOST_VISIBLE = 1, /* also mapped for the host, where the device can; mh_buffer_host */
    MH_BUFFER_IMPORTED = 2,     /* by mh_buffer_import only */
};

/* `size` bytes, aligned to 256, contents undefined. Size 0 is allowed. MH_OUT_OF_MEMORY names the
 * size and what is available. The caller owns *out. */
MH_API mh_status mh_buffer_create(mh_device *device, uint64_t size, uint32_t kind, mh_buffer **out);

enum { MH_IMPORT_READ_ONLY = 1u };

/* Host memory as a buffer, without a copy; only where the device runs on host memory
 * (MH_DEVICE_HOST_MEMORY), else MH_UNSUPPORTED. The memory stays the caller's and must stay valid
 * until `released(user)` is called (once, from any thread, when the last reference and the last
 * work are gone; may be NULL). A read-only import is refused as an output. */
MH_API mh_status mh_buffer_import(mh_device *device, void *memory, uint64_t size, uint32_t flags,
                                  void (*released)(void *user), void *user, mh_buffer **out);

/* The vendor's own memory (CUdeviceptr, cl_mem as an integer) as a buffer; flags, `released` and
 * lifetime as above; accounting leaves it out. MH_UNSUPPORTED where the backend cannot. */
MH_API mh_status mh_buffer_wrap(mh_device *device, uint64_t native, uint64_t size, uint32_t flags,
                                void (*released)(void *user), void *user, mh_buffer **out);

MH_API mh_buffer *mh_buffer_retain(mh_buffer *buffer);
MH_API void mh_buffer_release(mh_buffer *buffer); /* NULL is allowed */

MH_API uint64_t mh_buffer_size(const mh_buffer *buffer);
MH_API mh_device *mh_buffer_device(mh_buffer *buffer); /* borrowed */
/* The host's pointer to a host-visible buffer or to any buffer of a device on host memory, else
 * NULL. Work in flight is the caller's to wait for. */
MH_API void *mh_buffer_host(mh_buffer *buffer);

/* Blocking copies between host memory and [offset, offset + size) of a buffer; in no order with
 * streams' work, so wait for what matters first. Use mh_stream_write and _read inside a stream. */
MH_API mh_status mh_buffer_write(mh_buffer *buffer, uint64_t offset, const void *data,
                                 uint64_t size);
MH_API mh_status mh_buffer_read(mh_buffer *buffer, uint64_t offset, void *data, uint64_t size);

/* How bytes get from a buffer of one device to one of another; with mh_stream_copy on a stream of
 * the latter. */
enum {
    MH_LINK_SAME = 1,   /* one device: its own copy */
    MH_LINK_HOST = 2,   /* one of the two runs on host memory: one copy */
    MH_LINK_STAGED = 3, /* through host memory, in pieces; the caller waits */
    MH_LINK_THREAD = 4, /* the same by a thread of the runtime; the caller goes on */
};

/* Both devices of one runtime, else MH_INVALID_ARGUMENT. */
MH_API mh_status mh_device_link(mh_device *from, mh_device *to, uint32_t *link);

/* Blocking copy between any two buffers of one runtime, whatever their devices; in no order with
 * streams' work. Ranges of one buffer must not overlap. */
MH_API mh_status mh_buffer_copy(mh_buffer *to, uint64_t to_offset, mh_buffer *from,
                                uint64_t from_offset, uint64_t size);

MH_END_DECLS

#endif
