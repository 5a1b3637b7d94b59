/* loader.h: what the loader's files share. */
#ifndef VIRTUAL_AMD_LOADER_H
#define VIRTUAL_AMD_LOADER_H

#include "code_object.h"

struct vl_relocation {
    uint64_t at, addend;
    uint64_t symbol; /* offset in the image; 0 where the addend is all */
    uint32_t type;
    bool absolute; /* the symbol's value is no address in the image */
};

struct vl_segment {
    uint64_t at, bytes, file_at;
};

struct vl_line { /* holds from `address` to the next one's */
    uint64_t address;
    uint32_t file, line; /* line 0: none */
    uint32_t order;      /* of rows with one address the last counts */
};

struct vl_lines {
    struct vl_line *rows; /* by address */
    const char **files;   /* inside the copy of the input */
    size_t count, file_count;
};

struct vl_code_private {
    uint8_t *file; /* a copy of the input */
    size_t file_size;
    struct vl_segment *segments;
    size_t segment_count;
    struct vl_relocation *relocations;
    size_t relocation_count;
    struct vl_kernel *kernels;
    size_t kernel_room;
    struct vl_variable *variables;
    struct vl_arg **args; /* [kernel_room]: what the kernels' args point to */
    struct vl_lines lines;
};

/* Writes the reason; always false. */
bool vl_say(char why[static VL_WHY], const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The names of the targets. */
const char *vl_target_name(uint32_t machine); /* NULL: none that we know */

/* The metadata note: fills target, and kernels with names and sizes. The kernels' descriptors are
 * the ELF's business; `symbols[i]` becomes the name of kernel i's descriptor, to be freed. */
bool vl_metadata_read(struct vl_code *code, const uint8_t *bytes, size_t size, char ***symbols,
                      char why[static VL_WHY]);
/* A copy of n bytes with a NUL behind; NULL: out of memory, or a NUL within. */
char *vl_text(const char *bytes, size_t n);

/* The object's DWARF; without any, or where it does not read: no rows, or fewer. */
void vl_lines_read(struct vl_lines *lines, const uint8_t *file, size_t size);
void vl_lines_free(struct vl_lines *lines);

#endif
