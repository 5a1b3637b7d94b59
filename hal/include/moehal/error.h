/*
 * error.h: what went wrong, in words. The last failure of the calling thread is kept in
 * thread-local storage until the next failure on that thread; success does not clear it.
 */
#ifndef MOEHAL_ERROR_H
#define MOEHAL_ERROR_H

#include <moehal/base.h>

MH_BEGIN_DECLS

typedef struct mh_error {
    uint64_t struct_size;
    mh_status status;
    int32_t vendor_code; /* the vendor's own number, 0 if none */
    uint32_t line;       /* where in moehal it was raised */
    uint32_t reserved;
    char file[64];        /* base name of that source file */
    char vendor_call[64]; /* "cuMemAlloc", or "" */
    char vendor_name[64]; /* "CUDA_ERROR_OUT_OF_MEMORY", or "" */
    char
        message[768]; /* one line: names the op, file, field or argument, the value and the limit */
} mh_error;

/* Copies the calling thread's last failure to *out (struct_size set by the caller).
 * Returns MH_OK, or MH_NOT_FOUND where this thread has seen no failure. */
MH_API mh_status mh_last_error(mh_error *out);

/* The message of the calling thread's last failure; "" if there was none. Borrowed, valid until
 * the next failure on this thread. */
MH_API const char *mh_last_message(void);

/* Records a failure of the calling thread and returns `status`. For libraries built on moehal
 * (moehal-model is one); call it through mh_fail. Control characters of the message are shown as
 * "?", since parts of it may come from files. */
MH_API mh_status mh_fail_at(const char *file, uint32_t line, mh_status status, const char *format,
                            ...) MH_PRINTF(4, 5);

#ifdef __clang_analyzer__ /* which is told that what is returned is not MH_OK */
#define mh_fail(status, ...) (mh_fail_at(__FILE__, __LINE__, (status), __VA_ARGS__), (status))
#else
#define mh_fail(status, ...) mh_fail_at(__FILE__, __LINE__, (status), __VA_ARGS__)
#endif

/* Struct versioning (base.h), for libraries built on moehal too. `known` is sizeof() as that library
 * was built. mh_struct_in copies the caller's struct into a local one, a short one extended with
 * zeros; an unknown tail that is not zero is refused, naming the struct. mh_struct_out fills as much
 * of the caller's as it has room for. */
MH_API mh_status mh_struct_in(void *local, const void *caller, uint64_t known, const char *name);
MH_API mh_status mh_struct_out(void *caller, const void *local, uint64_t known);

MH_END_DECLS

#endif
