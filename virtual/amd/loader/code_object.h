/* code_object.h: AMD code objects: ELF files for amdgcn-amd-amdhsa, and bundles of them.
 *
 * Everything here reads bytes it does not trust. What is parsed is copied: the input may go. An
 * object is immutable and may be used by several threads. */
#ifndef VIRTUAL_AMD_CODE_OBJECT_H
#define VIRTUAL_AMD_CODE_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VL_WHY = 400 }; /* bytes of a reason, one line in words */

enum vl_arg_kind {
    VL_ARG_BY_VALUE,
    VL_ARG_POINTER, /* global_buffer and the like: eight bytes */
    VL_ARG_DYNAMIC_LDS,
    VL_ARG_FIRST_HIDDEN,
    VL_ARG_NONE = VL_ARG_FIRST_HIDDEN, /* hidden, and left zero */
    VL_ARG_GLOBAL_OFFSET_X,
    VL_ARG_GLOBAL_OFFSET_Y,
    VL_ARG_GLOBAL_OFFSET_Z,
    VL_ARG_BLOCK_COUNT_X,
    VL_ARG_BLOCK_COUNT_Y,
    VL_ARG_BLOCK_COUNT_Z,
    VL_ARG_GROUP_SIZE_X,
    VL_ARG_GROUP_SIZE_Y,
    VL_ARG_GROUP_SIZE_Z,
    VL_ARG_REMAINDER_X,
    VL_ARG_REMAINDER_Y,
    VL_ARG_REMAINDER_Z,
    VL_ARG_GRID_DIMS,
    VL_ARG_DYNAMIC_LDS_SIZE,
    VL_ARG_PRIVATE_BASE,
    VL_ARG_SHARED_BASE,
    VL_ARG_QUEUE,
    VL_ARG_MULTIGRID_SYNC,
    VL_ARG_REFUSED, /* printf buffers, host calls, a device heap: `refused` names it */
};

struct vl_arg {
    uint32_t offset, size;
    enum vl_arg_kind kind;
    const char *refused;
};

/* The kernel descriptor: 64 bytes in the image, as the hardware's packet processor reads it. */
struct vl_descriptor {
    uint32_t group_segment, private_segment, kernarg_size; /* bytes; private: a lane */
    uint32_t rsrc1, rsrc2, rsrc3;
    uint16_t properties;
    uint8_t preload_length; /* kernarg preload, in dwords */
    uint16_t preload_offset;
};

struct vl_kernel {
    const char *name;
    uint64_t descriptor_at, entry; /* offsets in the image */
    struct vl_descriptor descriptor;
    /* of the metadata */
    uint32_t kernarg_size, kernarg_align;
    uint32_t vgprs, agprs, sgprs; /* vgprs: both kinds, as allocated */
    uint32_t max_threads;         /* a workgroup */
    uint32_t required[3];         /* workgroup size, 0: not given */
    bool dynamic_stack;
    uint32_t arg_count, explicit_args, explicit_bytes;
    const struct vl_arg *args; /* those the program gives first, by offset */
};

struct vl_variable {
    const char *name;
    uint64_t at, size; /* offset in the image, bytes */
};

struct vl_code {
    char target[64];             /* "gfx942:xnack-" */
    uint32_t version;            /* 4, 5, 6 */
    uint64_t span, align;        /* bytes of the image when loaded */
    uint64_t text_at, text_size; /* the executable segment */
    size_t kernel_count, variable_count;
    const struct vl_kernel *kernels;
    const struct vl_variable *variables;
    struct vl_code_private *p;
};

/* How long an image in memory is, by its own headers, where the caller was given none. 0 and a
 * line in `why` if it is neither ELF nor a bundle. */
size_t vl_image_size(const void *image, char why[static VL_WHY]);

/* The code object for `device` ("gfx942") in a bundle, or the ELF itself. NULL and a line in `why`
 * if there is none; *wrong_target says if it is for want of a target. */
const void *vl_image_pick(const void *image, size_t size, const char *device, size_t *picked,
                          bool *wrong_target, char why[static VL_WHY]);

/* An ELF code object. NULL and a line in `why`; *wrong_target as above. */
struct vl_code *vl_code_parse(const void *elf, size_t size, const char *device, bool *wrong_target,
                              char why[static VL_WHY]);
void vl_code_free(struct vl_code *code); /* NULL is accepted */

/* Writes the image to `to` (span bytes, zeros), relocated for where `address` says it lives. */
void vl_code_place(const struct vl_code *code, void *to, uint64_t address);

const struct vl_kernel *vl_code_kernel(const struct vl_code *code, const char *name);
const struct vl_variable *vl_code_variable(const struct vl_code *code, const char *name);

/* Source file and line of the instruction at an offset in the image, by the object's DWARF (-g or
 * -gline-tables-only). false: not known. */
bool vl_code_line(const struct vl_code *code, uint64_t offset, const char **file, uint32_t *line);

#endif
