/*
 * kernel.h: kernels of your own, in the vendor's language (PTX or cubin, code object, OpenCL C),
 * launched as ops: the way to an op that moehal does not have, in streams and graphs alike. The
 * core checks what it can (ownership and bounds of tensors, read-only buffers, sizes); what the
 * kernel does with its arguments is its author's business.
 */
#ifndef MOEHAL_KERNEL_H
#define MOEHAL_KERNEL_H

#include <moehal/stream.h>

MH_BEGIN_DECLS

typedef struct mh_module mh_module;
typedef struct mh_kernel mh_kernel;

typedef struct mh_module_params {
    uint64_t struct_size;
    const void *image;   /* text or binary; read before mh_module_load returns */
    uint64_t size;       /* bytes; 0: `image` is text that ends with a NUL */
    const char *options; /* of the vendor's compiler; may be NULL */
    char *log;           /* what the compiler said, NUL-terminated, cut where it is longer; may be
                            NULL. The first lines of a failure are in the error's message too */
    uint64_t log_size;   /* bytes of log */
} mh_module_params;

/* MH_UNSUPPORTED where the backend takes no kernels, MH_BAD_DATA where the image is refused.
 * Threads: any. The caller owns *out. */
MH_API mh_status mh_module_load(mh_device *device, const mh_module_params *params, mh_module **out);
MH_API mh_module *mh_module_retain(mh_module *module);
MH_API void mh_module_release(mh_module *module); /* NULL is allowed; also with work in flight */

/* MH_NOT_FOUND if the module has none of that name. Retains the module. The caller owns *out. */
MH_API mh_status mh_kernel_create(mh_module *module, const char *name, mh_kernel **out);
MH_API mh_kernel *mh_kernel_retain(mh_kernel *kernel);
MH_API void mh_kernel_release(mh_kernel *kernel); /* NULL is allowed; also with work in flight */

enum {
    MH_ARG_TENSOR =
        1, /* the address of its first element. OpenCL: the cl_mem; its offset must be 0 */
    MH_ARG_VALUE = 2, /* `size` bytes of `value` */
    MH_ARG_LOCAL = 3, /* OpenCL: local memory of `size` bytes */
};

typedef struct mh_kernel_arg {
    uint32_t kind;    /* MH_ARG_TENSOR, ... */
    uint32_t access;  /* of a tensor: MH_OPERAND_READ, MH_OPERAND_WRITTEN or both */
    mh_tensor tensor; /* of this device; any dtype, any strides */
    uint64_t size;    /* of a value: 1 to 16 */
    unsigned char value[16];
} mh_kernel_arg;

#define MH_MAX_KERNEL_ARGS 32

/* The id lies apart from those of ops.def. */
#define MH_OP_KERNEL ((mh_op_id)0x10000)

/* An op: mh_encode(encoder, &op.base). Never runs elsewhere: what the device refuses is
 * MH_UNSUPPORTED with the reason. `args` is read before mh_encode returns. */
typedef struct mh_op_kernel {
    mh_op base;
    mh_kernel *kernel;
    uint32_t grid[3];          /* blocks (work-groups), each at least 1 */
    uint32_t block[3];         /* threads (work-items) of one, each at least 1 */
    uint64_t shared_bytes;     /* dynamic shared memory of a block; OpenCL: 0, see MH_ARG_LOCAL */
    const mh_kernel_arg *args; /* in the kernel's order */
    uint32_t arg_count;
    uint32_t reserved;
} mh_op_kernel;

/* How a backend sees a kernel: every mh_kernel begins with this. */
typedef struct mh_kernel_view {
    void *handle; /* the backend's own */
} mh_kernel_view;

static inline const mh_kernel_view *mh_view_kernel(const mh_kernel *kernel)
{
    return (const mh_kernel_view *)(const void *)kernel;
}

MH_END_DECLS

#endif
