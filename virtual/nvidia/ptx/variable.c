/* Declarations: .reg, .global, .const, .shared, .local and .param inside bodies; initialisers. */
#include <string.h>

#include "parser.h"

enum { MAX_REGISTERS = 1 << 20 };

static enum vn_space space_of(const struct ptx_token *t)
{
    static const struct {
        const char *name;
        enum vn_space space;
    } spaces[] = {{"reg", VN_REG},       {"global", VN_GLOBAL},    {"const", VN_CONST},
                  {"shared", VN_SHARED}, {"local", VN_LOCALSPACE}, {"param", VN_PARAM}};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        if (ptx_is_dot(t, spaces[i].name))
            return spaces[i].space;
    }
    return VN_GENERIC;
}

struct values { /* an initialiser being read */
    struct ptx_parser *parser;
    struct vn_data *data;
    enum ptx_type type;
    uint64_t at, size; /* bytes */
    uint32_t initialiser_capacity;
};

static void put_value(struct values *v, const struct ptx_token *at)
{
    struct ptx_parser *parser = v->parser;
    struct ptx_lexer *lexer = &parser->lexer;
    unsigned bytes = ptx_types[v->type].bytes;
    if (v->at + bytes > v->size)
        ptx_error(lexer, at, "more initial values than the %llu bytes of '%s' hold",
                  (unsigned long long)v->size, v->data->info.name);
    uint8_t *to = v->data->contents + v->at;
    v->at += bytes;
    bool negative = false, generic = false;
    uint64_t mask = 0;
    while (ptx_accept(lexer, '-'))
        negative = !negative;
    if (lexer->token.kind == PTX_FLOAT) {
        double d;
        float f;
        uint64_t bits = lexer->token.value;
        if (ptx_types[v->type].cls != 'F')
            ptx_error(lexer, &lexer->token, "a float initialises a variable of type .%s",
                      ptx_types[v->type].name);
        if (lexer->token.single) {
            uint32_t low = (uint32_t)bits;
            memcpy(&f, &low, 4);
            d = f;
        } else {
            memcpy(&d, &bits, 8);
            f = (float)d;
        }
        if (negative)
            d = -d, f = -f;
        if (bytes == 8)
            memcpy(to, &d, 8);
        else if (bytes == 4)
            memcpy(to, &f, 4);
        else
            ptx_error(lexer, &lexer->token, "floats initialise .f32 and .f64 only");
        ptx_next(lexer);
        return;
    }
    if (lexer->token.kind == PTX_INT) {
        uint64_t value = lexer->token.value;
        ptx_next(lexer);
        if (ptx_accept(lexer, '(')) { /* 0xFF00(symbol): one byte of an address */
            mask = value;
            if (mask == 0)
                ptx_error(lexer, at, "mask 0 takes no byte of an address");
        } else {
            if (negative)
                value = 0 - value;
            if (ptx_types[v->type].cls == 'F') {
                double d = negative ? (double)(int64_t)value : (double)value;
                float f = (float)d;
                if (bytes == 8)
                    memcpy(to, &d, 8);
                else if (bytes == 4)
                    memcpy(to, &f, 4);
                return;
            }
            /* NOLINTNEXTLINE(clang-analyzer-core.BitwiseShift): no type has 0 bytes */
            if (bytes < 8 && value >> (8 * bytes) != 0 && (int64_t)value >> (8 * bytes - 1) != -1)
                ptx_error(lexer, at, "value does not fit .%s", ptx_types[v->type].name);
            memcpy(to, &value, bytes > 8 ? 8 : bytes);
            return;
        }
    }
    if (lexer->token.kind != PTX_NAME)
        ptx_error(lexer, &lexer->token, "an initial value is expected here");
    if (ptx_is_name(&lexer->token, "generic")) {
        ptx_next(lexer);
        ptx_expect(lexer, '(');
        generic = true;
    }
    struct ptx_token name = lexer->token;
    struct ptx_decl *d = name.kind == PTX_NAME ? ptx_find(parser, name.text, name.length) : NULL;
    if (!d || (d->kind != PTX_DECL_VARIABLE && d->kind != PTX_DECL_FUNCTION))
        ptx_error(lexer, &name, "'%.*s' is not a variable or function", (int)name.length,
                  name.text);
    ptx_next(lexer);
    if (generic)
        ptx_expect(lexer, ')');
    int64_t addend = 0;
    if (lexer->token.kind == PTX_PUNCT && (lexer->token.punct == '+' || lexer->token.punct == '-'))
        addend = ptx_int(parser);
    uint8_t shift = 0;
    if (mask) {
        ptx_expect(lexer, ')');
        shift = (uint8_t)__builtin_ctzll(mask);
    } else if (bytes < 4) {
        ptx_error(lexer, &name, "an address does not fit .%s", ptx_types[v->type].name);
    }
    uint32_t symbol = d->kind == PTX_DECL_FUNCTION
                          ? ptx_symbol(parser, d->name, VN_SYMBOL_FUNCTION, VN_GENERIC, d->index)
                          : d->index;
    struct vn_initialiser *i = PTX_PUSH(parser, v->data->initialisers, v->data->initialiser_count,
                                        v->initialiser_capacity);
    *i = (struct vn_initialiser){.offset = v->at - bytes,
                                 .symbol = symbol,
                                 .addend = addend,
                                 .bytes = (uint8_t)bytes,
                                 .shift = shift,
                                 .generic = generic};
}

static void read_values(struct values *v, const uint64_t *dims, unsigned count)
{
    struct ptx_lexer *lexer = &v->parser->lexer;
    struct ptx_token at = lexer->token;
    if (!ptx_accept(lexer, '{')) {
        put_value(v, &at);
        return;
    }
    /* A nested list fills one element of the outer dimension. */
    uint64_t inner = ptx_types[v->type].bytes;
    for (unsigned i = 1; i < count; i++)
        inner *= dims[i];
    if (++v->parser->depth > 32)
        ptx_error(lexer, &at, "initialiser is nested too deeply");
    uint64_t start = v->at;
    for (uint64_t n = 0; !ptx_accept(lexer, '}'); n++) {
        if (n)
            ptx_expect(lexer, ',');
        if (lexer->token.kind == PTX_PUNCT && lexer->token.punct == '{') {
            v->at = start + n * inner;
            if (v->at > v->size)
                ptx_error(lexer, &at, "too many initial values");
            read_values(v, dims + (count > 0), count ? count - 1 : 0);
        } else {
            at = lexer->token;
            put_value(v, &at);
        }
    }
    v->parser->depth--;
}

static void declare_registers(struct ptx_parser *parser, enum ptx_type type, uint8_t vec)
{
    struct ptx_lexer *lexer = &parser->lexer;
    do {
        struct ptx_token name = lexer->token;
        if (name.kind != PTX_NAME)
            ptx_error(lexer, &name, "a register name is expected here");
        ptx_next(lexer);
        uint32_t range = 0;
        if (ptx_accept(lexer, '<')) {
            range = ptx_uint(parser, MAX_REGISTERS, "registers in a range");
            if (range == 0)
                ptx_error(lexer, &name, "an empty range of registers");
            ptx_expect(lexer, '>');
            char *with = ptx_need(parser, name.length + 2); /* apart from a register of that name */
            memcpy(with, name.text, name.length);
            with[name.length++] = '<';
            name.text = with;
        }
        struct ptx_decl *d = ptx_declare(parser, &name, PTX_DECL_REG, parser->scope);
        d->type = type;
        d->vec = vec;
        d->space = VN_REG;
        d->range = range;
        d->ids = ptx_need(parser, sizeof(uint32_t) * (range ? range : 1) * vec);
    } while (ptx_accept(lexer, ','));
    ptx_expect(lexer, ';');
}

static void place_variable(struct ptx_parser *parser, struct ptx_decl *d, enum vn_space space,
                           enum vn_linkage linkage, bool in_function)
{
    struct vn_module *m = parser->module;
    struct ptx_lexer *lexer = &parser->lexer;
    if (space == VN_LOCALSPACE) {
        if (!in_function)
            ptx_error(lexer, &lexer->token, ".local variables belong inside functions");
        uint64_t at = (parser->body.local + d->align - 1) & ~(d->align - 1);
        unsigned long long end = at + d->size;
        if (end > 512 * 1024)
            ptx_error(lexer, &lexer->token, "local memory of %llu bytes is over the 512 KiB limit",
                      end);
        d->offset = at;
        parser->body.local = end;
        return;
    }
    uint32_t index = UINT32_MAX;
    if (space == VN_SHARED) {
        if (d->size > 256 * 1024)
            ptx_error(lexer, &lexer->token, "shared memory of %llu bytes is over the limit",
                      (unsigned long long)d->size);
    } else {
        index = m->variable_count;
        struct vn_data *v =
            PTX_PUSH(parser, m->variables, m->variable_count, parser->variable_capacity);
        v->info = (struct vn_variable){.name = d->name,
                                       .space = space,
                                       .linkage = linkage,
                                       .size = d->size,
                                       .align = d->align};
        v->external = linkage == VN_EXTERN;
    }
    d->index = ptx_symbol(parser, d->name, VN_SYMBOL_VARIABLE, space, index);
    if (space == VN_SHARED && linkage != VN_EXTERN) {
        m->symbols[d->index].shared_offset = d->align; /* replaced when offsets are known */
        struct ptx_shared *v = ptx_need(parser, sizeof *v);
        *v = (struct ptx_shared){.symbol = d->index,
                                 .size = d->size,
                                 .function = in_function ? parser->body.function : UINT32_MAX};
        if (!parser->shared_tail)
            parser->shared_tail = &parser->shared;
        *parser->shared_tail = v;
        parser->shared_tail = &v->next;
        parser->body.shared_count += in_function;
    }
}

void ptx_parse_variable(struct ptx_parser *parser, enum vn_linkage linkage, bool in_function)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_token start = lexer->token;
    enum vn_space space = space_of(&start);
    if (space == VN_GENERIC)
        ptx_error(lexer, &start, "'.%.*s' is not a state space or directive that can be used here",
                  (int)start.length, start.text);
    ptx_next(lexer);
    uint64_t given = 0;
    uint8_t vec = 1;
    bool managed = false;
    enum ptx_type type = PTX_NO_TYPE;
    while (lexer->token.kind == PTX_DOT) {
        struct ptx_token t = lexer->token;
        ptx_next(lexer);
        if (ptx_is_dot(&t, "align")) {
            given = ptx_uint(parser, 1 << 20, ".align");
            if (given == 0 || given & (given - 1))
                ptx_error(lexer, &t, ".align needs a power of two");
        } else if (ptx_is_dot(&t, "v2") || ptx_is_dot(&t, "v4")) {
            vec = t.text[1] == '2' ? 2 : 4;
        } else if (ptx_is_dot(&t, "attribute")) {
            ptx_expect(lexer, '(');
            if (ptx_is_dot(&lexer->token, "managed"))
                managed = true;
            else if (!ptx_is_dot(&lexer->token, "unified"))
                ptx_error(lexer, &lexer->token, "unknown attribute");
            ptx_next(lexer);
            if (ptx_accept(lexer, '(')) {
                ptx_int(parser);
                ptx_expect(lexer, ',');
                ptx_int(parser);
                ptx_expect(lexer, ')');
            }
            ptx_expect(lexer, ')');
        } else if (ptx_is_dot(&t, "texref") || ptx_is_dot(&t, "surfref") ||
                   ptx_is_dot(&t, "samplerref")) {
            ptx_error(lexer, &t, "textures and surfaces are not supported by the virtual device");
        } else {
            enum ptx_type found = ptx_type_of(t.text, t.length);
            if (found == PTX_NO_TYPE || type != PTX_NO_TYPE)
                ptx_error(lexer, &t, "'.%.*s' is not expected in a declaration", (int)t.length,
                          t.text);
            type = found;
        }
    }
    if (type == PTX_NO_TYPE)
        ptx_error(lexer, &lexer->token, "a type is expected in the declaration");
    if (ptx_types[type].cls == 'X' && type != PTX_F16X2 && type != PTX_BF16 && type != PTX_BF16X2)
        ptx_error(lexer, &start, "variables of type .%s do not exist", ptx_types[type].name);
    if (space == VN_REG) {
        if (!in_function)
            ptx_error(lexer, &start, ".reg belongs inside functions");
        if (type == PTX_B128)
            ptx_error(lexer, &start, ".b128 registers are not supported by the virtual device");
        declare_registers(parser, type, vec);
        return;
    }
    if (type == PTX_PRED)
        ptx_error(lexer, &start, "predicates live in registers only");
    do {
        struct ptx_token name = lexer->token;
        if (name.kind != PTX_NAME)
            ptx_error(lexer, &name, "a variable's name is expected here");
        ptx_next(lexer);
        struct ptx_decl *d = NULL, *old = ptx_find(parser, name.text, name.length);
        /* A name of another unit, or declared before: the definition completes it. */
        if (!in_function && old && old->kind == PTX_DECL_VARIABLE && old->space == space &&
            (old->global_scope || old->scope == parser->scope) && linkage != VN_LOCAL)
            d = old;
        uint64_t dims[8], size = (uint64_t)ptx_types[type].bytes * vec;
        unsigned dim_count = 0;
        bool open = false;
        while (ptx_accept(lexer, '[')) {
            if (ptx_accept(lexer, ']')) {
                if (dim_count)
                    ptx_error(lexer, &name, "only the first dimension may be left open");
                open = true;
                dims[dim_count++] = 0;
                continue;
            }
            if (dim_count == 8)
                ptx_error(lexer, &name, "more than 8 dimensions");
            uint64_t n = lexer->token.value;
            ptx_uint(parser, (uint64_t)1 << 31, "array size");
            ptx_expect(lexer, ']');
            dims[dim_count++] = n;
            if (n && size > ((uint64_t)1 << 40) / n)
                ptx_error(lexer, &name, "array '%.*s' is too large", (int)name.length, name.text);
            size *= n;
        }
        if (open && linkage != VN_EXTERN &&
            !(lexer->token.kind == PTX_PUNCT && lexer->token.punct == '='))
            ptx_error(lexer, &name, "an array without a size must be .extern or initialised");
        if (open)
            size = 0;
        uint64_t natural = (uint64_t)ptx_types[type].bytes * vec;
        uint64_t align = given ? given : natural;
        if (space == VN_PARAM) {
            if (!in_function)
                ptx_error(lexer, &start, ".param belongs inside functions");
            if (size > 4096 || size == 0)
                ptx_error(lexer, &name, "a parameter of %llu bytes: 1 to 4096 are possible",
                          (unsigned long long)size);
        }
        if (!d) {
            struct ptx_scope *scope =
                !in_function && linkage != VN_LOCAL ? &parser->global_scope : parser->scope;
            d = ptx_declare(parser, &name, space == VN_PARAM ? PTX_DECL_PARAM : PTX_DECL_VARIABLE,
                            scope);
            d->type = type;
            d->space = space;
            d->size = size;
            d->align = align;
            d->global_scope = scope == &parser->global_scope;
            d->is_extern_shared = space == VN_SHARED && linkage == VN_EXTERN;
            if (space == VN_PARAM) {
                uint32_t n = (uint32_t)((size + 7) / 8);
                d->chunks = ptx_need(parser, n * sizeof(uint32_t));
                for (uint32_t i = 0; i < n; i++)
                    d->chunks[i] = ptx_temp(parser, 8);
            } else {
                place_variable(parser, d, space, linkage, in_function);
            }
        } else if (space != VN_SHARED) { /* declared before */
            struct vn_data *v = &parser->module->variables[parser->module->symbols[d->index].index];
            if (linkage != VN_EXTERN) {
                if (!v->external && v->info.linkage != VN_WEAK && linkage != VN_WEAK &&
                    v->info.linkage != VN_COMMON)
                    ptx_error(lexer, &name, "'%s' is defined twice", d->name);
                if (v->external) {
                    v->info.linkage = linkage;
                    v->info.size = d->size = size;
                    if (align > v->info.align)
                        v->info.align = align;
                    v->external = false;
                    v->info.space = space;
                }
            }
        }
        if (managed && (space == VN_GLOBAL))
            parser->module->variables[parser->module->symbols[d->index].index].info.managed = true;
        if (ptx_accept(lexer, '=')) {
            if ((space != VN_GLOBAL && space != VN_CONST) || linkage == VN_EXTERN)
                ptx_error(lexer, &name, "only .global and .const variables have initial values");
            uint32_t index = parser->module->symbols[d->index].index;
            struct vn_data scratch = parser->module->variables[index];
            uint64_t room = size;
            if (open) { /* the values say how many: at most what the text can hold */
                room = (uint64_t)(lexer->end - lexer->at) * 8 + 8;
            }
            if (room > (uint64_t)256 << 20)
                ptx_error(lexer, &name, "an initialised array of more than 256 MiB");
            scratch.contents = ptx_need(parser, room ? room : 1);
            scratch.contents_size = room;
            scratch.initialisers = NULL;
            scratch.initialiser_count = 0;
            struct values v = {.parser = parser, .data = &scratch, .type = type, .size = room};
            if (vec > 1 && dim_count < 8)
                dims[dim_count++] = vec;
            read_values(&v, dims, dim_count);
            if (open) {
                scratch.info.size = scratch.contents_size = d->size = v.at;
            }
            parser->module->variables[index] = scratch;
        }
    } while (ptx_accept(lexer, ','));
    ptx_expect(lexer, ';');
}
