/* The machine under the driver: PTX text in, results of launches out.
 *
 * It knows nothing of CUDA's API. libcuda's exports (contexts, streams, handles, error codes) are
 * built on it, as are `moehal-vgpu-nvidia run` and the unit tests. Objects are immutable after
 * creation and may be used by several threads; a launch is one call that returns when the grid has
 * ended.
 */
#ifndef VIRTUAL_NVIDIA_MACHINE_H
#define VIRTUAL_NVIDIA_MACHINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../common/memmap.h"
#include "../common/pool.h"
#include "../common/report.h"

/* ---- modules: parsed PTX ---- */

struct vn_module;
struct vc_finding;

struct vn_diagnostic { /* line and column count from 1; 0: not about a place in the text */
    uint32_t line, column;
    char text[400];
};

/* text need not end in NUL. On failure returns NULL and fills diagnostic (out of memory too). */
struct vn_module *vn_module_parse(const char *text, size_t size, struct vn_diagnostic *diagnostic);
/* One module out of several: externs are resolved, duplicates of strong symbols are errors. The
 * inputs stay the caller's and may be released. */
struct vn_module *vn_module_link(const struct vn_module *const *modules, size_t count,
                                 struct vn_diagnostic *diagnostic);
struct vn_module *vn_module_retain(struct vn_module *module);
void vn_module_release(struct vn_module *module); /* NULL is accepted */

enum vn_linkage { VN_LOCAL, VN_VISIBLE, VN_EXTERN, VN_WEAK, VN_COMMON };
enum vn_space { VN_GENERIC, VN_REG, VN_GLOBAL, VN_CONST, VN_SHARED, VN_LOCALSPACE, VN_PARAM };

struct vn_param {
    const char *name;
    uint32_t offset, size, align;
};

struct vn_function {
    const char *name;
    bool entry;
    bool defined; /* false: a declaration, left unresolved */
    enum vn_linkage linkage;
    uint32_t param_count, param_bytes;
    const struct vn_param *params;
    uint32_t registers;    /* 32-bit registers a thread, at least what PTX declares and uses */
    uint32_t shared_bytes; /* static */
    uint32_t local_bytes;  /* a thread */
    uint32_t const_bytes;  /* the module's constant variables */
    uint32_t maxntid[3], reqntid[3]; /* 0: not given */
    uint32_t minnctapersm, maxnreg;  /* 0: not given */
    bool uses_cluster;               /* refused at launch */
};

struct vn_variable { /* in .global or .const */
    const char *name;
    enum vn_space space;
    enum vn_linkage linkage;
    uint64_t size, align;
    bool managed;
};

uint32_t vn_module_version(const struct vn_module *module); /* .version 8.7: 87 */
uint32_t vn_module_target(const struct vn_module *module);  /* .target sm_90a: 90 */
size_t vn_module_functions(const struct vn_module *module);
const struct vn_function *vn_module_function(const struct vn_module *module, size_t index);
size_t vn_module_variables(const struct vn_module *module);
const struct vn_variable *vn_module_variable(const struct vn_module *module, size_t index);

/* ---- images: a module in a context ---- */

struct vn_image;

/* addresses[i] is where variable i lives: memory of at least its size and alignment that the caller
 * allocated (vc_alloc, VC_MODULE) and keeps until the image is destroyed. Initial contents are
 * written here. Fails on unresolved externs. The image keeps a reference to the module. */
struct vn_image *vn_image_create(struct vn_module *module, struct vc_map *map,
                                 const uint64_t *addresses, struct vn_diagnostic *diagnostic);
void vn_image_destroy(struct vn_image *image);

/* ---- launches ---- */

enum vn_status { /* with the CUresult they become */
                 VN_OK,
                 VN_ILLEGAL_ADDRESS,     /* CUDA_ERROR_ILLEGAL_ADDRESS */
                 VN_MISALIGNED_ADDRESS,  /* CUDA_ERROR_MISALIGNED_ADDRESS */
                 VN_INVALID_SPACE,       /* CUDA_ERROR_INVALID_ADDRESS_SPACE */
                 VN_INVALID_PC,          /* CUDA_ERROR_INVALID_PC */
                 VN_ILLEGAL_INSTRUCTION, /* CUDA_ERROR_ILLEGAL_INSTRUCTION */
                 VN_STACK,               /* CUDA_ERROR_HARDWARE_STACK_ERROR */
                 VN_TRAP,                /* CUDA_ERROR_LAUNCH_FAILED */
                 VN_ASSERT,              /* CUDA_ERROR_ASSERT */
                 VN_DEADLOCK,            /* CUDA_ERROR_LAUNCH_TIMEOUT */
                 VN_TIMEOUT,             /* CUDA_ERROR_LAUNCH_TIMEOUT: time_limit_ms passed */
                 VN_STOPPED,             /* *stop was set */
                 VN_OUT_OF_MEMORY,       /* of the host; CUDA_ERROR_OUT_OF_MEMORY */
};

enum vn_check {
    VN_CHECK_BOUNDS = 1 << 0, /* off: only what would crash this process is caught */
    VN_CHECK_UNINITIALISED = 1 << 1,
    VN_CHECK_SHARED_RACES = 1 << 2,
    VN_CHECK_GLOBAL_RACES = 1 << 3,
    VN_CHECK_ASYNC_COPY = 1 << 4,
    VN_CHECK_BARRIERS = 1 << 5,
    VN_CHECK_LOCAL =
        1 << 6, /* unwritten local memory too: compilers copy padding, so not by default */
    VN_CHECK_CAS_LOADS = 1 << 7, /* races of plain loads that a compare-and-swap makes good */
    VN_CHECK_DEFAULT = VN_CHECK_BOUNDS | VN_CHECK_UNINITIALISED | VN_CHECK_SHARED_RACES |
                       VN_CHECK_ASYNC_COPY | VN_CHECK_BARRIERS,
    VN_CHECK_ALL = 255,
};

/* Words with commas, as MOEHAL_VIRTUAL_CHECKS has them; false: an unknown one. */
bool vn_checks_parse(const char *list, unsigned *checks);

enum vn_schedule { VN_ROUND_ROBIN, VN_RANDOM, VN_ADVERSARIAL };

enum vn_class { /* warp instructions are counted by class */
                VN_CLASS_FLOAT,
                VN_CLASS_DOUBLE,
                VN_CLASS_HALF,
                VN_CLASS_INTEGER,
                VN_CLASS_CONVERT,
                VN_CLASS_SPECIAL, /* .approx functions */
                VN_CLASS_MATRIX,
                VN_CLASS_LOAD,
                VN_CLASS_STORE,
                VN_CLASS_ATOMIC,
                VN_CLASS_CONTROL,
                VN_CLASS_BARRIER,
                VN_CLASS_SHUFFLE, /* shfl, vote, match, redux */
                VN_CLASS_MOVE,
                VN_CLASS_OTHER,
                VN_CLASS_COUNT
};
const char *vn_class_name(enum vn_class c);

struct vn_line_counters { /* of one line of PTX */
    uint32_t line;
    const char *function; /* owned by the module */
    uint64_t warp_instructions, lane_instructions;
    uint64_t global_bytes, global_sectors, ideal_sectors;
    uint64_t bank_passes; /* shared memory: passes needed, one where there is no conflict */
    uint64_t divergences; /* branches at which the lanes parted */
};

struct vn_counters {
    uint64_t warp_instructions, lane_instructions;
    uint64_t by_class[VN_CLASS_COUNT];
    uint64_t load_bytes, store_bytes;     /* global memory, requested */
    uint64_t load_sectors, store_sectors; /* 32 bytes each */
    uint64_t ideal_load_sectors, ideal_store_sectors;
    uint64_t unique_load_sectors, unique_store_sectors, unique_sectors; /* compulsory traffic */
    uint64_t shared_accesses, shared_passes;
    uint64_t matrix_operations, matrix_flops;
    uint64_t float_operations; /* of the scalar pipes; an fma is two */
    uint64_t atomics;
    uint64_t divergences, barriers;
    uint64_t line_count;            /* lines with any count */
    struct vn_line_counters *lines; /* owned by the struct: vn_counters_free */
};
void vn_counters_free(struct vn_counters *counters);

struct vn_sinks { /* called one at a time, from any worker thread */
    void *context;
    void (*report)(void *context, const struct vc_finding *finding);
    void (*print)(void *context, const char *text, size_t size); /* what vprintf formatted */
};

/* The device heap of a context, for malloc in kernels. */
struct vn_heap {
    uint64_t limit;
    _Atomic uint64_t used;
};

struct vn_launch {
    const struct vn_image *image;
    size_t function; /* index in the module */
    uint32_t grid[3], block[3];
    uint32_t dynamic_shared;
    const void *params; /* param_bytes, laid out as the function's params say */
    bool cooperative;   /* all blocks are resident at once */
    struct vc_map *map;
    struct vg_pool *pool;
    unsigned device;             /* ordinal: what memory may be touched is by it */
    uint32_t sm_count;           /* %nsmid; blocks are placed on %smid round robin */
    uint32_t compute_capability; /* 90: informs %..., not what is accepted */
    uint32_t max_shared;         /* bytes a block, for %total_smem_size's bound */
    uint32_t stack_limit;        /* bytes of local memory a thread beyond the static; 0: 16 KiB */
    struct vn_heap *heap;        /* NULL: device malloc returns NULL */
    uint64_t grid_id;

    unsigned checks; /* VN_CHECK_* */
    bool count;      /* fill counters */
    bool count_lines;
    bool fuse; /* bare mul and add pairs become fma, as ptxas may */
    enum vn_schedule schedule;
    uint64_t seed;
    /* By device: what comes before this launch, by the order of streams, events and the host's
     * waits; as vn_races_reached told when it was over. */
    uint32_t after[VC_MAX_DEVICES];
    unsigned max_reports;     /* 0: 100 */
    uint64_t time_limit_ms;   /* 0: none */
    const _Atomic bool *stop; /* may be NULL */
    struct vn_sinks sinks;    /* members may be NULL */
};

/* Valid shapes are the caller's duty: block and grid limits, shared size, params. counters may be
 * NULL. A failing check of the kind CUDA cannot see (races, uninitialised reads, waits) only
 * reports; what hardware would fault on ends the launch with its status. */
enum vn_status vn_execute(const struct vn_launch *launch, struct vn_counters *counters);

#endif
