/* The top level of PTX, and modules as objects. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../exec/ops.h"
#include "parser.h"

enum { MODULE_LIMIT = 1 << 30 };

static void version(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_token t = lexer->token;
    /* 8.7 reads as a decimal float */
    const char *p = t.text, *end = t.text + t.length;
    uint32_t major = 0, minor = 0;
    while (p < end && *p >= '0' && *p <= '9' && major < 100)
        major = major * 10 + (uint32_t)(*p++ - '0');
    if (p == t.text || p >= end || *p != '.')
        ptx_error(lexer, &t, ".version needs a number like 8.7");
    p++;
    while (p < end && *p >= '0' && *p <= '9' && minor < 100)
        minor = minor * 10 + (uint32_t)(*p++ - '0');
    if (p != end || major < 3 || major > 9 || minor > 9 || (major == 9 && minor > 0))
        ptx_error(lexer, &t, "PTX version %.*s is not supported: 3.0 to 9.0 are", (int)t.length,
                  t.text);
    parser->module->version = major * 10 + minor;
    ptx_next(lexer);
}

static void target(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    bool named = false;
    do {
        struct ptx_token t = lexer->token;
        if (t.kind != PTX_NAME)
            ptx_error(lexer, &t, ".target needs a name like sm_90");
        if (t.length > 3 && !memcmp(t.text, "sm_", 3)) {
            uint32_t sm = 0, i = 3;
            for (; i < t.length && t.text[i] >= '0' && t.text[i] <= '9' && sm < 1000; i++)
                sm = sm * 10 + (uint32_t)(t.text[i] - '0');
            bool suffix = i + 1 == t.length && (t.text[i] == 'a' || t.text[i] == 'f');
            if ((i != t.length && !suffix) || sm < 30 || sm > 129)
                ptx_error(lexer, &t, "unknown target '%.*s'", (int)t.length, t.text);
            parser->module->target = sm;
            named = true;
        } else if (!ptx_is_name(&t, "debug") && !ptx_is_name(&t, "texmode_independent") &&
                   !ptx_is_name(&t, "texmode_unified") && !ptx_is_name(&t, "map_f64_to_f32")) {
            ptx_error(lexer, &t, "unknown target '%.*s'", (int)(t.length > 60 ? 60 : t.length),
                      t.text);
        }
        ptx_next(lexer);
    } while (ptx_accept(lexer, ','));
    if (!named)
        ptx_error(lexer, &lexer->token, ".target names no sm_ architecture");
}

static void file(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    uint32_t number = ptx_uint(parser, UINT32_MAX, ".file");
    struct ptx_token t = lexer->token;
    if (t.kind != PTX_STRING)
        ptx_error(lexer, &t, ".file needs a name");
    ptx_next(lexer);
    if (ptx_accept(lexer, ',')) {
        ptx_int(parser);
        ptx_expect(lexer, ',');
        ptx_int(parser);
    }
    struct vn_module *m = parser->module;
    uint32_t old = parser->file_capacity;
    m->files = ptx_grow(parser, m->files, m->file_count, &parser->file_capacity, sizeof *m->files);
    if (old != parser->file_capacity) {
        uint32_t *numbers = ptx_need(parser, parser->file_capacity * sizeof *numbers);
        if (old)
            memcpy(numbers, parser->file_numbers, m->file_count * sizeof *numbers);
        parser->file_numbers = numbers;
    }
    m->files[m->file_count] = ptx_strndup(parser->arena, t.text, t.length);
    parser->file_numbers[m->file_count] = number;
    if (!m->files[m->file_count])
        ptx_error(lexer, &t, "out of memory");
    m->file_count++;
}

/* Debug information: read for its braces only, and never used. */
static void section(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_token open = lexer->token;
    if (lexer->token.kind != PTX_DOT && lexer->token.kind != PTX_NAME)
        ptx_error(lexer, &open, ".section needs a name");
    ptx_next(lexer);
    open = lexer->token;
    ptx_expect(lexer, '{');
    for (uint32_t depth = 1; depth;) {
        if (lexer->token.kind == PTX_END)
            ptx_error(lexer, &open, "section is not closed before the end of the text");
        if (lexer->token.kind == PTX_PUNCT)
            depth += (lexer->token.punct == '{') - (uint32_t)(lexer->token.punct == '}');
        ptx_next(lexer);
    }
}

static void alias(struct ptx_parser *parser)
{
    struct ptx_token at = parser->lexer.token;
    ptx_error(&parser->lexer, &at, ".alias is not supported by the virtual device");
}

/* .loc's file numbers become indices of the module's files. */
static void resolve_sources(struct ptx_parser *parser, uint32_t first_source, uint32_t first_file)
{
    struct vn_module *m = parser->module;
    for (uint32_t i = first_source; i < m->source_count; i++) {
        uint32_t number = m->sources[i].file;
        if (number != UINT32_MAX && number & PTX_FILE_INDEX) {
            m->sources[i].file = number & ~PTX_FILE_INDEX;
            continue;
        }
        m->sources[i].file = UINT32_MAX;
        for (uint32_t k = first_file; k < m->file_count; k++) {
            if (parser->file_numbers[k] == number)
                m->sources[i].file = k;
        }
    }
}

static void top_level(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    bool has_version = false, has_target = false;
    uint32_t first_source = parser->module->source_count, first_file = parser->module->file_count;
    ptx_next(lexer);
    while (lexer->token.kind != PTX_END) {
        struct ptx_token t = lexer->token;
        if (t.kind == PTX_PUNCT && t.punct == ';') {
            ptx_next(lexer);
            continue;
        }
        if (t.kind != PTX_DOT)
            ptx_error(lexer, &t, "a directive is expected before '%.*s'",
                      (int)(t.length > 60 ? 60 : t.length), t.text);
        if (!has_version && !ptx_is_dot(&t, "version"))
            ptx_error(lexer, &t, "PTX begins with .version");
        if (has_version && !has_target && !ptx_is_dot(&t, "target") && !ptx_is_dot(&t, "version"))
            ptx_error(lexer, &t, ".target is expected after .version");
        if (ptx_is_dot(&t, "version")) {
            ptx_next(lexer);
            version(parser);
            has_version = true;
        } else if (ptx_is_dot(&t, "target")) {
            ptx_next(lexer);
            target(parser);
            has_target = true;
        } else if (ptx_is_dot(&t, "address_size")) {
            ptx_next(lexer);
            struct ptx_token n = lexer->token;
            if (ptx_uint(parser, 64, ".address_size") != 64)
                ptx_error(lexer, &n, "only .address_size 64 is supported");
        } else if (ptx_is_dot(&t, "file")) {
            ptx_next(lexer);
            file(parser);
        } else if (ptx_is_dot(&t, "section")) {
            ptx_next(lexer);
            section(parser);
        } else if (ptx_is_dot(&t, "pragma")) {
            ptx_next(lexer);
            if (lexer->token.kind != PTX_STRING)
                ptx_error(lexer, &lexer->token, "a string is expected after .pragma");
            ptx_next(lexer);
            ptx_expect(lexer, ';');
        } else if (ptx_is_dot(&t, "alias")) {
            alias(parser);
        } else {
            enum vn_linkage linkage = VN_LOCAL;
            static const char *const words[] = {"visible", "extern", "weak", "common"};
            for (int i = 0; i < 4; i++) {
                if (ptx_is_dot(&lexer->token, words[i])) {
                    linkage = (enum vn_linkage)(VN_VISIBLE + i);
                    ptx_next(lexer);
                    break;
                }
            }
            if (ptx_is_dot(&lexer->token, "entry") || ptx_is_dot(&lexer->token, "func")) {
                bool entry = ptx_is_dot(&lexer->token, "entry");
                ptx_next(lexer);
                ptx_parse_function(parser, linkage, entry);
            } else {
                ptx_parse_variable(parser, linkage, false);
            }
        }
    }
    resolve_sources(parser, first_source, first_file);
    if (!has_target)
        ptx_error(lexer, &lexer->token,
                  has_version ? ".target is missing" : "there is no PTX here");
}

/* Everything a kernel reaches, and whether calls go round in a circle. */
struct reach {
    struct ptx_parser *parser;
    uint8_t *state;  /* 1: on the path, 2: done */
    uint32_t *local; /* bytes below and including the function */
    bool module_shared, recursive, indirect;
    uint32_t depth;
};

static uint32_t walk(struct reach *r, uint32_t f)
{
    if (r->state[f] == 2)
        return r->local[f];
    if (r->state[f] == 1) {
        r->recursive = true;
        return 0;
    }
    struct ptx_function_facts *facts = &r->parser->facts[f];
    struct vn_code *code = &r->parser->module->functions[f];
    r->state[f] = 1;
    if (++r->depth > 2000)
        ptx_error(&r->parser->lexer, &facts->token, "calls are nested more than 2000 deep");
    r->module_shared |= facts->uses_module_shared || (facts->shared_count && !code->info.entry);
    r->indirect |= code->indirect;
    uint32_t below = 0;
    for (uint32_t i = 0; i < facts->callee_count; i++) {
        uint32_t n = walk(r, facts->callees[i]);
        below = n > below ? n : below;
    }
    r->depth--;
    r->state[f] = 2;
    r->local[f] = below + code->local_frame;
    return r->local[f];
}

static uint64_t place_shared(struct vn_module *m, uint32_t symbol, uint64_t at,
                             const uint64_t *sizes)
{
    uint64_t align = m->symbols[symbol].shared_offset;
    at = align ? (at + align - 1) & ~(align - 1) : at;
    m->symbols[symbol].shared_offset = at;
    return at + sizes[symbol];
}

void ptx_finish_module(struct ptx_parser *parser)
{
    struct vn_module *m = parser->module;
    struct ptx_lexer *lexer = &parser->lexer;
    /* Calls agree with what they call. */
    for (uint32_t i = 0; i < parser->call_count; i++) {
        struct ptx_call_ref *r = &parser->calls[i];
        if (r->function == UINT32_MAX)
            continue;
        struct vn_code *f = &m->functions[r->function];
        if (f->info.defined &&
            (f->param_chunk_count != r->arguments || f->return_chunk_count != r->returns))
            ptx_error(lexer, &r->token, "the call's arguments or results do not fit '%s'",
                      f->info.name);
    }
    /* Sizes of shared variables, by symbol. */
    uint64_t *sizes = ptx_need(parser, (m->symbol_count + 1) * sizeof *sizes);
    for (struct ptx_shared *v = parser->shared; v; v = v->next)
        sizes[v->symbol] = v->size;
    /* Shared variables of the module and of functions lie first, at the same place for every
     * kernel. */
    uint64_t common = 0;
    for (struct ptx_shared *v = parser->shared; v; v = v->next) {
        if (v->function == UINT32_MAX || !m->functions[v->function].info.entry)
            common = place_shared(m, v->symbol, common, sizes);
    }
    struct reach r = {.parser = parser,
                      .state = ptx_need(parser, m->function_count + 1),
                      .local = ptx_need(parser, (m->function_count + 1) * sizeof(uint32_t))};
    uint64_t const_bytes = 0;
    for (uint32_t i = 0; i < m->variable_count; i++)
        const_bytes += m->variables[i].info.space == VN_CONST ? m->variables[i].info.size : 0;
    for (uint32_t f = 0; f < m->function_count; f++) {
        struct vn_code *code = &m->functions[f];
        if (!code->info.defined)
            continue;
        memset(r.state, 0, m->function_count);
        r.module_shared = r.recursive = r.indirect = false;
        r.depth = 0;
        if (!code->info.entry)
            continue;
        code->info.local_bytes = walk(&r, f);
        code->recursive = r.recursive;
        code->indirect = r.indirect;
        uint64_t at = r.module_shared || r.indirect ? common : 0;
        for (struct ptx_shared *v = parser->shared; v; v = v->next) {
            if (v->function == f)
                at = place_shared(m, v->symbol, at, sizes);
        }
        if (at > 256 * 1024)
            ptx_error(lexer, &parser->facts[f].token, "'%s' has %llu bytes of shared memory",
                      code->info.name, (unsigned long long)at);
        code->info.shared_bytes = (uint32_t)at;
        code->info.const_bytes = const_bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)const_bytes;
    }
    if (const_bytes > 640 * 1024)
        ptx_error(lexer, NULL, "constant variables of %llu bytes are over the limit",
                  (unsigned long long)const_bytes);
}

struct vn_module *vn_module_retain(struct vn_module *module)
{
    atomic_fetch_add(&module->references, 1);
    return module;
}

void vn_module_release(struct vn_module *module)
{
    if (module && atomic_fetch_sub(&module->references, 1) == 1)
        ptx_arena_destroy(module->arena);
}

static struct vn_module *parse(const char *const *texts, const size_t *sizes, size_t count,
                               struct vn_diagnostic *diagnostic)
{
    struct ptx_arena *arena = ptx_arena_create(MODULE_LIMIT);
    struct ptx_parser *parser = calloc(1, sizeof *parser);
    struct vn_module *module = arena ? ptx_alloc(arena, sizeof *module) : NULL;
    if (!parser || !module) {
        if (diagnostic)
            *diagnostic = (struct vn_diagnostic){.text = "out of memory"};
        free(parser);
        ptx_arena_destroy(arena);
        return NULL;
    }
    atomic_init(&module->references, 1);
    module->arena = arena;
    parser->arena = arena;
    parser->module = module;
    if (setjmp(parser->fail)) {
        free(parser);
        ptx_arena_destroy(arena);
        return NULL;
    }
    parser->scope = &parser->global_scope;
    parser->lexer.diagnostic = diagnostic;
    parser->lexer.fail = &parser->fail;
    /* Source 0: no place in a source file. */
    *PTX_PUSH(parser, module->sources, module->source_count, parser->source_capacity) =
        (struct vn_source){.file = UINT32_MAX};
    module->texts = ptx_need(parser, count * sizeof *module->texts);
    module->text_sizes = ptx_need(parser, count * sizeof *module->text_sizes);
    for (size_t i = 0; i < count; i++) {
        char *copy = ptx_strndup(arena, texts[i], sizes[i]);
        if (!copy)
            ptx_error(&parser->lexer, NULL, "out of memory");
        module->texts[i] = copy;
        module->text_sizes[i] = sizes[i];
        module->text_count = i + 1;
        ptx_lexer_init(&parser->lexer, copy, sizes[i], diagnostic, &parser->fail);
        ptx_push_scope(parser);
        parser->file_scope = parser->scope;
        top_level(parser);
        ptx_pop_scope(parser);
    }
    ptx_finish_module(parser);
    module->constant_widths = parser->constant_width;
    free(parser);
    return module;
}

struct vn_module *vn_module_parse(const char *text, size_t size, struct vn_diagnostic *diagnostic)
{
    return parse(&text, &size, 1, diagnostic);
}

struct vn_module *vn_module_link(const struct vn_module *const *modules, size_t count,
                                 struct vn_diagnostic *diagnostic)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += modules[i]->text_count;
    const char **texts = calloc(total + 1, sizeof *texts);
    size_t *sizes = calloc(total + 1, sizeof *sizes), n = 0;
    struct vn_module *linked = NULL;
    if (!total) {
        if (diagnostic)
            *diagnostic = (struct vn_diagnostic){.text = "there is nothing to link"};
    } else if (texts && sizes) {
        for (size_t i = 0; i < count; i++) {
            for (size_t k = 0; k < modules[i]->text_count; k++, n++) {
                texts[n] = modules[i]->texts[k];
                sizes[n] = modules[i]->text_sizes[k];
            }
        }
        linked = parse(texts, sizes, total, diagnostic);
    } else if (diagnostic) {
        *diagnostic = (struct vn_diagnostic){.text = "out of memory"};
    }
    free(texts);
    free(sizes);
    return linked;
}

uint32_t vn_module_version(const struct vn_module *module)
{
    return module->version;
}

uint32_t vn_module_target(const struct vn_module *module)
{
    return module->target;
}

size_t vn_module_functions(const struct vn_module *module)
{
    return module->function_count;
}

const struct vn_function *vn_module_function(const struct vn_module *module, size_t index)
{
    return index < module->function_count ? &module->functions[index].info : NULL;
}

size_t vn_module_variables(const struct vn_module *module)
{
    return module->variable_count;
}

const struct vn_variable *vn_module_variable(const struct vn_module *module, size_t index)
{
    return index < module->variable_count ? &module->variables[index].info : NULL;
}
