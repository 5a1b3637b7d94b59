/* What the parts of the parser share. */
#ifndef VIRTUAL_NVIDIA_PTX_PARSER_H
#define VIRTUAL_NVIDIA_PTX_PARSER_H

#include "lex.h"
#include "module.h"

enum ptx_type {
    PTX_NO_TYPE,
#define TYPE(id, name, bytes, cls) PTX_##id,
#include "types.def"
#undef TYPE
    PTX_TYPES
};

struct ptx_type_info {
    const char *name;
    uint8_t bytes;
    char cls;
};
extern const struct ptx_type_info ptx_types[PTX_TYPES];
enum ptx_type ptx_type_of(const char *text, size_t length); /* PTX_NO_TYPE: none */

enum ptx_decl_kind {
    PTX_DECL_REG,
    PTX_DECL_VARIABLE, /* of .global, .const, .shared, .local */
    PTX_DECL_PARAM,    /* of an entry: an offset; else chunks of registers */
    PTX_DECL_FUNCTION,
    PTX_DECL_LABEL,
    PTX_DECL_TARGETS, /* .branchtargets, .calltargets */
    PTX_DECL_PROTOTYPE,
};

struct ptx_scope;

struct ptx_formal { /* a parameter or result as a header or a prototype has it */
    struct ptx_token name;
    enum ptx_type type;
    uint64_t size, align;
    bool reg;
};

struct ptx_signature {
    struct ptx_formal *returns, *params;
    uint32_t return_count, param_count;
};

struct ptx_decl {
    struct ptx_decl *next_in_bucket, *next_in_scope;
    struct ptx_scope *scope;
    const char *name;
    uint32_t length, hash;
    enum ptx_decl_kind kind;
    enum ptx_type type;
    uint8_t vec; /* elements of a vector register, else 1 */
    bool entry_param, is_extern_shared;
    enum vn_space space;
    uint32_t range;       /* %r<range>; 0: a single one */
    uint32_t *ids;        /* virtual register ids + 1, [max(range, 1) * vec] */
    uint64_t size, align; /* of variables and params */
    uint64_t offset;      /* local variables, entry params */
    uint32_t index;       /* symbol of a variable, function index, label's instruction */
    uint32_t *list;       /* .branchtargets */
    uint32_t list_count;
    struct ptx_decl **functions;     /* .calltargets, list_count */
    struct ptx_signature *signature; /* of functions and prototypes */
    uint32_t *chunks;                /* params of functions: R64 operand codes */
    uint32_t line;
    bool global_scope;
};

enum ptx_operand_kind {
    PTX_OPERAND_REG,
    PTX_OPERAND_INT,
    PTX_OPERAND_FLOAT,
    PTX_OPERAND_SPECIAL, /* code: of base VN_SPECIAL, or an op that reads it */
    PTX_OPERAND_FALSE,   /* a special register that is a predicate, 0 */
    PTX_OPERAND_SYMBOL,  /* decl + imm */
    PTX_OPERAND_MEMORY,  /* [base + imm]; base: reg, symbol or none */
    PTX_OPERAND_VECTOR,
    PTX_OPERAND_SINK,
    PTX_OPERAND_PAIR, /* p|q */
    PTX_OPERAND_LIST, /* (a, b) of calls */
};

struct ptx_operand {
    enum ptx_operand_kind kind;
    struct ptx_token token;
    struct ptx_decl *decl; /* reg, symbol, memory base */
    uint32_t index;        /* in a range times vec + component */
    enum ptx_type type;
    uint64_t value; /* int, float bits (f64, or f32 if single) */
    bool single, negative, inverted, has_base;
    int64_t imm;
    uint32_t special;
    struct ptx_operand *elements;
    uint32_t count;
};

/* One instruction as written. */
struct ptx_modifier {
    struct ptx_token token;
    uint16_t id; /* enum ptx_mod, or 0 for a type */
    enum ptx_type type;
};

enum { PTX_MAX_MODIFIERS = 24, PTX_MAX_OPERANDS = 8 };

struct ptx_statement {
    struct ptx_token opcode;
    struct ptx_modifier modifiers[PTX_MAX_MODIFIERS];
    uint32_t modifier_count;
    enum ptx_type types[6];
    struct ptx_token type_tokens[6];
    uint32_t type_count;
    uint16_t groups[64]; /* by group: the modifier's id, 0: absent */
    struct ptx_operand operands[PTX_MAX_OPERANDS];
    uint32_t operand_count;
    bool guarded, guard_negated;
    uint16_t guard;
};

struct ptx_label_ref {
    struct ptx_label_ref *next;
    struct ptx_token token;
    uint32_t insn;   /* whose imm it becomes, or UINT32_MAX: */
    uint32_t *entry; /* a table's entry */
};

struct ptx_scope {
    struct ptx_scope *outer;
    struct ptx_decl *decls;
    struct ptx_label_ref *label_refs;
};

struct ptx_call_ref { /* checked when every function is known */
    uint32_t function, insn, returns, arguments;
    struct ptx_token token;
    uint32_t return_bytes, argument_bytes;
};

struct ptx_table_ref {
    uint32_t first;
    struct ptx_decl *decl;
};

struct ptx_body { /* of the function being parsed */
    uint32_t function;
    bool entry;
    uint32_t first_scope;
    struct vn_insn *insns;
    uint32_t insn_count, insn_capacity;
    uint32_t *pool;
    uint32_t pool_count, pool_capacity;
    uint32_t *pool_writes; /* of an instruction: entries written, parallel to insns */
    uint32_t *pool_reads;
    uint32_t writes_capacity;
    uint32_t ids32, ids64, preds; /* virtual registers so far */
    uint64_t local;
    uint32_t *targets;
    uint32_t target_count, target_capacity;
    struct ptx_table_ref *tables;
    uint32_t table_count, table_capacity;
    uint32_t shared_count; /* its own shared variables */
    uint32_t *callees;
    uint32_t callee_count, callee_capacity;
    bool uses_module_shared, indirect, takes_param_address;
    uint32_t source;
};

struct ptx_shared { /* a shared variable, in the order of declaration */
    struct ptx_shared *next;
    uint32_t symbol, function; /* UINT32_MAX: of the module */
    uint64_t size;
};

/* A source's file is .loc's number until the text ends, unless this bit makes it an index. */
#define PTX_FILE_INDEX ((uint32_t)1 << 31)

enum { PTX_BUCKETS = 4096 };

struct ptx_parser {
    struct ptx_lexer lexer;
    jmp_buf fail;
    struct ptx_arena *arena;
    struct vn_module *module;
    struct ptx_decl *buckets[PTX_BUCKETS];
    struct ptx_scope *scope, *file_scope;
    struct ptx_scope global_scope;
    struct ptx_body body;
    uint32_t function_capacity, variable_capacity, symbol_capacity, constant_capacity,
        fixup_capacity, source_capacity, file_capacity;
    uint32_t *constant_table; /* hash of value and width to slot + 1 */
    uint32_t constant_table_size;
    uint8_t *constant_width;
    uint32_t *file_numbers;  /* of .file, by file of the module */
    const char *marked_text; /* the `#line` file that has been interned, and its index */
    uint32_t marked_file;
    struct ptx_call_ref *calls;
    uint32_t call_count, call_capacity;
    struct ptx_function_facts {
        uint32_t shared_count;
        uint32_t *callees, callee_count;
        bool uses_module_shared;
        struct ptx_token token;
        uint64_t local;
    } * facts;
    uint32_t facts_capacity;
    uint32_t *op_table, op_table_size; /* names of ops to numbers + 1 */
    struct ptx_shared *shared, **shared_tail;
    uint32_t depth;
    bool in_call; /* parentheses are lists */
};

/* lib */
void *ptx_need(struct ptx_parser *parser, size_t size);
void *ptx_grow(struct ptx_parser *parser, void *items, uint32_t count, uint32_t *capacity,
               size_t size);
#define PTX_PUSH(parser, items, count, capacity)                                                   \
    ((items) = ptx_grow(parser, items, count, &(capacity), sizeof *(items)), &(items)[(count)++])
struct ptx_decl *ptx_find(struct ptx_parser *parser, const char *name, uint32_t length);
struct ptx_decl *ptx_find_register(struct ptx_parser *parser, const char *name, uint32_t length,
                                   uint32_t *index);
struct ptx_decl *ptx_declare(struct ptx_parser *parser, const struct ptx_token *name,
                             enum ptx_decl_kind kind, struct ptx_scope *scope);
void ptx_push_scope(struct ptx_parser *parser);
void ptx_pop_scope(struct ptx_parser *parser);
int64_t ptx_int(struct ptx_parser *parser);        /* an optionally signed constant */
int64_t ptx_expression(struct ptx_parser *parser); /* a constant expression */
int64_t ptx_offset(struct ptx_parser *parser);     /* + or - of terms, behind a base */
uint32_t ptx_uint(struct ptx_parser *parser, uint64_t limit, const char *what);

/* operands */
void ptx_parse_operand(struct ptx_parser *parser, struct ptx_operand *operand);

/* functions and variables */
void ptx_parse_function(struct ptx_parser *parser, enum vn_linkage linkage, bool entry);
void ptx_parse_variable(struct ptx_parser *parser, enum vn_linkage linkage, bool in_function);
void ptx_parse_body(struct ptx_parser *parser);
void ptx_parse_statement(struct ptx_parser *parser);
void ptx_parse_label(struct ptx_parser *parser, const struct ptx_token *name);
void ptx_finish_body(struct ptx_parser *parser);
void ptx_finish_module(struct ptx_parser *parser);
uint32_t ptx_symbol(struct ptx_parser *parser, const char *name, enum vn_symbol_kind kind,
                    enum vn_space space, uint32_t index);

/* emission */
struct vn_insn *ptx_emit(struct ptx_parser *parser, const struct ptx_statement *s, uint32_t op);
uint32_t ptx_op_named(struct ptx_parser *parser, const char *name); /* UINT32_MAX: none */
uint32_t ptx_constant(struct ptx_parser *parser, uint64_t value, unsigned bytes);
uint32_t ptx_address(struct ptx_parser *parser, uint32_t symbol, int64_t addend, bool generic,
                     unsigned bytes);
uint32_t ptx_temp(struct ptx_parser *parser, unsigned bytes);
uint32_t ptx_register(struct ptx_parser *parser, struct ptx_decl *decl, uint32_t index);
uint32_t ptx_pool(struct ptx_parser *parser, const uint32_t *codes, uint32_t writes,
                  uint32_t reads);

/* decoding */
void ptx_decode(struct ptx_parser *parser, struct ptx_statement *s);

#endif
