/* A parsed module: functions as pre-decoded instructions, variables, and what is needed to place
 * them. Internal to the machine. */
#ifndef VIRTUAL_NVIDIA_PTX_MODULE_H
#define VIRTUAL_NVIDIA_PTX_MODULE_H

#include "../machine.h"

/* Operand codes: where 32 lanes of a value lie. The low bits choose a base, the rest is an offset
 * in bytes from it, always a multiple of 128. */
enum vn_file {
    VN_R32,      /* 32 u32: registers up to 32 bits */
    VN_R64,      /* 32 u64 */
    VN_CONSTANT, /* immediates and addresses, broadcast; of the image */
    VN_SPECIAL,  /* %tid.x and its kin; of the warp */
    VN_FILES
};
#define VN_FILE_BITS 2u
#define VN_FILE_MASK 3u
#define VN_NONE UINT32_MAX
#define VN_NO_PRED UINT16_MAX

struct vn_warp;
struct vn_insn;
typedef void (*vn_handler)(struct vn_warp *warp, const struct vn_insn *insn, uint32_t mask);

enum vn_insn_flags {
    VN_GUARD_NEGATED = 1,
    VN_PRED_NEGATED = 2, /* of c, a predicate source */
    VN_ADDRESS64 = 4,    /* the address operand is 64 bits wide */
    VN_ADDRESS64_B = 8,  /* that of b, for cp.async */
    VN_SIGNED = 16,      /* a load extends the sign */
    VN_GUESS = 64,       /* a plain load whose value a compare-and-swap will check */
    VN_WHOLE = 32,       /* an access of one element, as wide as its register */
};

/* q of a memory access: order | scope << 4 */
enum vn_order { VN_WEAK_ORDER, VN_RELAXED, VN_ACQUIRE, VN_RELEASE, VN_ACQ_REL, VN_SC, VN_VOLATILE };
enum vn_scope { VN_NO_SCOPE, VN_SCOPE_CTA, VN_SCOPE_CLUSTER, VN_SCOPE_GPU, VN_SCOPE_SYS };

enum vn_element { /* of matrices */
                  VN_ELEMENT_F16,
                  VN_ELEMENT_BF16,
                  VN_ELEMENT_TF32,
                  VN_ELEMENT_S8,
                  VN_ELEMENT_U8,
                  VN_ELEMENT_E4M3,
                  VN_ELEMENT_E5M2,
                  VN_ELEMENT_F64,
                  VN_ELEMENT_F32,
                  VN_ELEMENT_S32
};

enum vn_atomic { /* mode of an atomic */
                 VN_ATOM_ADD,
                 VN_ATOM_MIN,
                 VN_ATOM_MAX,
                 VN_ATOM_INC,
                 VN_ATOM_DEC,
                 VN_ATOM_CAS,
                 VN_ATOM_EXCH,
                 VN_ATOM_AND,
                 VN_ATOM_OR,
                 VN_ATOM_XOR
};
enum vn_atomic_type { /* p of an atomic */
                      VN_ATOM_U32,
                      VN_ATOM_S32,
                      VN_ATOM_U64,
                      VN_ATOM_S64,
                      VN_ATOM_F32,
                      VN_ATOM_F64,
                      VN_ATOM_F16,
                      VN_ATOM_F16X2,
                      VN_ATOM_BF16,
                      VN_ATOM_BF16X2,
                      VN_ATOM_B16
};

struct vn_insn { /* one cache line */
    vn_handler fn;
    uint16_t op;    /* enum vn_op */
    uint16_t guard; /* predicate, or VN_NO_PRED */
    uint8_t flags, cls;
    uint8_t vec;  /* elements of a vector access */
    uint8_t mode; /* the op's own: comparison, scope, rounding, shape */
    uint32_t d, a, b, c;
    uint16_t p, q;         /* predicate destination, or source */
    uint32_t pool;         /* index of further operand codes */
    int64_t imm;           /* address offset, target */
    uint32_t line, source; /* source: index of vn_source */
    uint32_t run;      /* instructions from here to where lanes may part or wait, that one too */
    uint32_t reserved; /* to 64 bytes */
};

struct vn_source {
    uint32_t file, line; /* file: index in the module's files */
};

/* Constants that are known when the image is made: variable `symbol`'s address plus addend. */
struct vn_fixup {
    uint32_t slot; /* of the constant pool, 256 bytes each */
    uint32_t symbol;
    int64_t addend;
    bool generic;
};

struct vn_initialiser { /* an address inside a variable's contents */
    uint64_t offset;
    uint32_t symbol;
    int64_t addend;
    uint8_t bytes, shift; /* mask(): `bytes` low bytes of the address >> shift */
    bool generic;
};

enum vn_symbol_kind { VN_SYMBOL_VARIABLE, VN_SYMBOL_FUNCTION };

struct vn_symbol { /* what fixups name; shared variables too */
    const char *name;
    enum vn_symbol_kind kind;
    uint32_t index; /* in variables or functions; UINT32_MAX: shared variable */
    enum vn_space space;
    uint64_t shared_offset;
};

struct vn_data {
    struct vn_variable info;
    uint8_t *contents; /* NULL: zeros */
    uint64_t contents_size;
    struct vn_initialiser *initialisers;
    uint32_t initialiser_count;
    bool external;
};

struct vn_code {
    struct vn_function info;
    struct vn_insn *insns;
    uint32_t insn_count;
    uint32_t *pool;
    uint32_t pool_count;
    uint32_t size32, size64, preds; /* frame: bytes, bytes, words */
    uint32_t local_frame;           /* bytes a lane */
    uint32_t *param_chunks;         /* formal parameters as R64 operand codes, 8 bytes each */
    uint32_t param_chunk_count;
    uint32_t *return_chunks;
    uint32_t return_chunk_count;
    uint32_t *targets; /* brx tables: instruction indices */
    uint32_t target_count;
    bool takes_param_address, recursive, indirect;
    uint32_t builtin; /* enum vn_builtin, of vprintf and its kin */
};

enum vn_builtin {
    VN_BUILTIN_NONE,
    VN_BUILTIN_VPRINTF,
    VN_BUILTIN_ASSERTFAIL,
    VN_BUILTIN_MALLOC,
    VN_BUILTIN_FREE
};

struct vn_module {
    _Atomic uint32_t references;
    struct ptx_arena *arena;
    uint32_t version, target;
    struct vn_code *functions;
    uint32_t function_count;
    struct vn_data *variables;
    uint32_t variable_count;
    struct vn_symbol *symbols;
    uint32_t symbol_count;
    uint64_t *constants;      /* values of the pool's slots */
    uint8_t *constant_widths; /* bytes: 4 or 8; more: an address will follow */
    uint32_t constant_count;
    struct vn_fixup *fixups;
    uint32_t fixup_count;
    struct vn_source *sources;
    uint32_t source_count;
    const char **files;
    uint32_t file_count;
    char **texts; /* as given, for the linker */
    size_t *text_sizes, text_count;
};

/* Memory that is freed as one. All functions return NULL when the host is out of memory, and fail
 * past the limit given. */
struct ptx_arena;
struct ptx_arena *ptx_arena_create(size_t limit);
void ptx_arena_destroy(struct ptx_arena *arena);
void *ptx_alloc(struct ptx_arena *arena, size_t size); /* zeroed */
char *ptx_strndup(struct ptx_arena *arena, const char *text, size_t length);

#endif
