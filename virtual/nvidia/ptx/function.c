/* .entry and .func: headers, parameters, directives, and the statements of bodies. */
#include <string.h>

#include "parser.h"

enum { MAX_PARAMS = 1024 };

static struct ptx_formal parse_param(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_formal p = {0};
    if (ptx_is_dot(&lexer->token, "reg"))
        p.reg = true;
    else if (!ptx_is_dot(&lexer->token, "param"))
        ptx_error(lexer, &lexer->token, "a parameter begins with .param or .reg");
    ptx_next(lexer);
    uint64_t vec = 1;
    while (lexer->token.kind == PTX_DOT) {
        struct ptx_token t = lexer->token;
        ptx_next(lexer);
        if (ptx_is_dot(&t, "align")) {
            uint64_t n = ptx_uint(parser, 1 << 20, ".align");
            if (n == 0 || n & (n - 1))
                ptx_error(lexer, &t, ".align needs a power of two");
            p.align = p.align ? p.align : n;
        } else if (ptx_is_dot(&t, "ptr")) {
            while (lexer->token.kind == PTX_DOT) { /* what it points to: a hint */
                struct ptx_token hint = lexer->token;
                ptx_next(lexer);
                if (ptx_is_dot(&hint, "align"))
                    ptx_uint(parser, 1 << 20, ".align");
                else if (!ptx_is_dot(&hint, "global") && !ptx_is_dot(&hint, "const") &&
                         !ptx_is_dot(&hint, "shared") && !ptx_is_dot(&hint, "local") &&
                         !ptx_is_dot(&hint, "generic"))
                    ptx_error(lexer, &hint, "'.%.*s' is not a state space of .ptr",
                              (int)hint.length, hint.text);
            }
        } else if (ptx_is_dot(&t, "v2") || ptx_is_dot(&t, "v4")) {
            vec = t.text[1] == '2' ? 2 : 4;
        } else if (ptx_is_dot(&t, "texref") || ptx_is_dot(&t, "surfref") ||
                   ptx_is_dot(&t, "samplerref")) {
            ptx_error(lexer, &t, "textures and surfaces are not supported by the virtual device");
        } else {
            p.type = ptx_type_of(t.text, t.length);
            if (p.type == PTX_NO_TYPE)
                ptx_error(lexer, &t, "'.%.*s' is not a parameter's type", (int)t.length, t.text);
        }
    }
    if (p.type == PTX_NO_TYPE)
        ptx_error(lexer, &lexer->token, "a parameter's type is expected here");
    if (p.type == PTX_PRED && !p.reg)
        ptx_error(lexer, &lexer->token, "a parameter of type .pred");
    p.size = ptx_types[p.type].bytes * vec;
    if (!p.align)
        p.align = p.size;
    p.name = lexer->token;
    if (p.name.kind != PTX_NAME)
        ptx_error(lexer, &p.name, "a parameter's name is expected here");
    ptx_next(lexer);
    if (ptx_accept(lexer, '[')) {
        uint64_t n = lexer->token.value;
        if (ptx_accept(lexer, ']'))
            ptx_error(lexer, &p.name, "variadic parameters are not supported");
        ptx_uint(parser, 32764, "parameter size");
        ptx_expect(lexer, ']');
        p.size *= n;
        if (p.size > 32764 || p.size == 0)
            ptx_error(lexer, &p.name, "a parameter of %llu bytes", (unsigned long long)p.size);
    }
    return p;
}

static uint32_t parse_params(struct ptx_parser *parser, struct ptx_formal **out)
{
    struct ptx_lexer *lexer = &parser->lexer;
    uint32_t count = 0, capacity = 0;
    struct ptx_formal *list = NULL;
    ptx_expect(lexer, '(');
    while (!ptx_accept(lexer, ')')) {
        if (count)
            ptx_expect(lexer, ',');
        struct ptx_formal p = parse_param(parser);
        if (count == MAX_PARAMS)
            ptx_error(lexer, &p.name, "more than %d parameters", MAX_PARAMS);
        *PTX_PUSH(parser, list, count, capacity) = p;
    }
    *out = list;
    return count;
}

static struct ptx_decl *declare_function(struct ptx_parser *parser, const struct ptx_token *name,
                                         enum vn_linkage linkage, bool entry)
{
    struct vn_module *m = parser->module;
    struct ptx_decl *d = ptx_find(parser, name->text, name->length);
    if (d && d->kind != PTX_DECL_FUNCTION)
        ptx_error(&parser->lexer, name, "'%.*s' is already a variable", (int)name->length,
                  name->text);
    if (d && m->functions[d->index].info.entry != entry)
        ptx_error(&parser->lexer, name, "'%s' is declared as .entry and as .func", d->name);
    if (d)
        return d;
    struct ptx_scope *scope =
        linkage == VN_LOCAL && !entry ? parser->file_scope : &parser->global_scope;
    d = ptx_declare(parser, name, PTX_DECL_FUNCTION, scope);
    d->global_scope = scope == &parser->global_scope;
    d->index = m->function_count;
    struct vn_code *f =
        PTX_PUSH(parser, m->functions, m->function_count, parser->function_capacity);
    f->info = (struct vn_function){.name = d->name, .entry = entry, .linkage = linkage};
    struct ptx_function_facts *facts = parser->facts;
    uint32_t n = m->function_count - 1;
    parser->facts = ptx_grow(parser, facts, n, &parser->facts_capacity, sizeof *facts);
    memset(&parser->facts[n], 0, sizeof *facts);
    parser->facts[n].token = *name;
    return d;
}

static void dims(struct ptx_parser *parser, uint32_t out[3], const struct ptx_token *name)
{
    uint64_t product = 1;
    for (int i = 0; i < 3; i++)
        out[i] = 1;
    for (int i = 0; i < 3; i++) {
        if (i && !ptx_accept(&parser->lexer, ','))
            break;
        out[i] = ptx_uint(parser, 1024, "block dimension");
        product *= out[i];
    }
    if (product == 0 || product > 1024)
        ptx_error(&parser->lexer, name, "'.%.*s' of %llu threads: 1 to 1024 are possible",
                  (int)name->length, name->text, (unsigned long long)product);
}

static void directives(struct ptx_parser *parser, struct vn_function *info)
{
    struct ptx_lexer *lexer = &parser->lexer;
    uint32_t ignored[3];
    while (lexer->token.kind == PTX_DOT) {
        struct ptx_token t = lexer->token;
        ptx_next(lexer);
        if (ptx_is_dot(&t, "maxntid")) {
            dims(parser, info->maxntid, &t);
        } else if (ptx_is_dot(&t, "reqntid")) {
            dims(parser, info->reqntid, &t);
        } else if (ptx_is_dot(&t, "minnctapersm")) {
            info->minnctapersm = ptx_uint(parser, 1024, ".minnctapersm");
        } else if (ptx_is_dot(&t, "maxnctapersm")) {
            ptx_uint(parser, 1024, ".maxnctapersm");
        } else if (ptx_is_dot(&t, "maxnreg")) {
            info->maxnreg = ptx_uint(parser, 1024, ".maxnreg");
        } else if (ptx_is_dot(&t, "noreturn")) {
        } else if (ptx_is_dot(&t, "pragma")) {
            ptx_next(lexer);
            ptx_accept(lexer, ';');
        } else if (ptx_is_dot(&t, "reqnctapercluster") || ptx_is_dot(&t, "maxclusterrank")) {
            info->uses_cluster = true;
            if (ptx_is_dot(&t, "maxclusterrank"))
                ptx_uint(parser, 1024, ".maxclusterrank");
            else
                dims(parser, ignored, &t);
        } else if (ptx_is_dot(&t, "explicitcluster") || ptx_is_dot(&t, "blocksareclusters")) {
            info->uses_cluster = true;
        } else if (ptx_is_dot(&t, "attribute")) {
            ptx_expect(lexer, '(');
            ptx_next(lexer);
            if (ptx_accept(lexer, '(')) {
                ptx_int(parser);
                ptx_expect(lexer, ',');
                ptx_int(parser);
                ptx_expect(lexer, ')');
            }
            ptx_expect(lexer, ')');
        } else {
            ptx_error(lexer, &t, "unknown performance directive '.%.*s'", (int)t.length, t.text);
        }
    }
}

/* The formal's chunks, declared in the body's scope. */
static uint32_t *formal(struct ptx_parser *parser, const struct ptx_formal *p, uint32_t *count,
                        uint32_t *chunks, bool returned)
{
    uint32_t n = (uint32_t)((p->size + 7) / 8);
    uint32_t *all = ptx_need(parser, (*count + n) * sizeof *all);
    if (*count)
        memcpy(all, chunks, *count * sizeof *all);
    struct ptx_decl *d =
        ptx_declare(parser, &p->name, p->reg ? PTX_DECL_REG : PTX_DECL_PARAM, parser->scope);
    d->type = p->type;
    d->size = p->size;
    d->align = p->align;
    d->space = p->reg ? VN_REG : VN_PARAM;
    d->chunks = ptx_need(parser, n * sizeof(uint32_t));
    for (uint32_t i = 0; i < n; i++)
        all[(*count)++] = d->chunks[i] = ptx_temp(parser, 8);
    if (p->reg) {
        d->ids = ptx_need(parser, sizeof(uint32_t));
        if (p->type == PTX_PRED)
            ptx_error(&parser->lexer, &p->name,
                      "predicates as register parameters are not "
                      "supported by the virtual device");
        uint32_t reg = ptx_register(parser, d, 0);
        bool wide = (reg & VN_FILE_MASK) == VN_R64;
        if (!returned) {
            struct vn_insn *i =
                ptx_emit(parser, NULL, ptx_op_named(parser, wide ? "mov_u64" : "cvt_u32_u64"));
            i->d = reg;
            i->a = d->chunks[0];
        }
    }
    return all;
}

static uint32_t parse_returns(struct ptx_parser *parser, struct ptx_formal **out)
{
    uint32_t count = parse_params(parser, out);
    for (uint32_t i = 0; i < count && count > 1; i++) {
        if (!(*out)[i].reg)
            ptx_error(&parser->lexer, &(*out)[i].name, "several results are in .reg");
    }
    return count;
}

/* `name: .callprototype (ret) _ (params);` */
static struct ptx_signature *prototype(struct ptx_parser *parser)
{
    struct ptx_signature *all = ptx_need(parser, sizeof *all);
    struct ptx_lexer *lexer = &parser->lexer;
    if (lexer->token.kind == PTX_PUNCT && lexer->token.punct == '(')
        all->return_count = parse_returns(parser, &all->returns);
    if (!ptx_is_name(&lexer->token, "_"))
        ptx_error(lexer, &lexer->token, "'_' is expected in a .callprototype");
    ptx_next(lexer);
    if (lexer->token.kind == PTX_PUNCT && lexer->token.punct == '(')
        all->param_count = parse_params(parser, &all->params);
    while (lexer->token.kind == PTX_DOT) {
        struct ptx_token t = lexer->token;
        if (!ptx_is_dot(&t, "noreturn") && !ptx_is_dot(&t, "abi_preserve") &&
            !ptx_is_dot(&t, "abi_preserve_control"))
            ptx_error(lexer, &t, "'.%.*s' in a .callprototype", (int)t.length, t.text);
        ptx_next(lexer);
        if (lexer->token.kind == PTX_INT)
            ptx_next(lexer);
    }
    ptx_expect(lexer, ';');
    return all;
}

static struct ptx_decl *call_target(struct ptx_parser *parser, const struct ptx_token *name)
{
    struct ptx_decl *d = ptx_find(parser, name->text, name->length);
    if (!d || d->kind != PTX_DECL_FUNCTION || parser->module->functions[d->index].info.entry)
        ptx_error(&parser->lexer, name, "'%.*s' is no function that can be called",
                  (int)name->length, name->text);
    return d;
}

static void targets(struct ptx_parser *parser, const struct ptx_token *name, bool branches)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_decl *d = ptx_declare(parser, name, PTX_DECL_TARGETS, parser->scope);
    uint32_t capacity = 0;
    struct ptx_token *labels = NULL;
    uint32_t count = 0;
    do {
        if (lexer->token.kind != PTX_NAME)
            ptx_error(lexer, &lexer->token, "a target's name is expected here");
        *PTX_PUSH(parser, labels, count, capacity) = lexer->token;
        ptx_next(lexer);
    } while (ptx_accept(lexer, ','));
    ptx_expect(lexer, ';');
    d->list_count = count;
    if (!branches) {
        d->functions = ptx_need(parser, count * sizeof *d->functions);
        for (uint32_t i = 0; i < count; i++)
            d->functions[i] = call_target(parser, &labels[i]);
        return;
    }
    d->list = ptx_need(parser, count * sizeof(uint32_t));
    for (uint32_t i = 0; i < count; i++) {
        struct ptx_label_ref *r = ptx_need(parser, sizeof *r);
        *r = (struct ptx_label_ref){.next = parser->scope->label_refs,
                                    .token = labels[i],
                                    .entry = &d->list[i],
                                    .insn = UINT32_MAX};
        parser->scope->label_refs = r;
    }
}

static void loc(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    uint32_t number = ptx_uint(parser, UINT32_MAX, ".loc file");
    uint32_t line = ptx_uint(parser, UINT32_MAX, ".loc line");
    ptx_uint(parser, UINT32_MAX, ".loc column");
    while (ptx_accept(lexer, ',')) { /* function_name label, inlined_at file line column */
        struct ptx_token t = lexer->token;
        ptx_next(lexer);
        if (ptx_is_name(&t, "function_name")) {
            ptx_next(lexer);
            if (lexer->token.kind == PTX_PUNCT && lexer->token.punct == '+') {
                ptx_next(lexer);
                ptx_int(parser);
            }
        } else if (ptx_is_name(&t, "inlined_at")) {
            for (int i = 0; i < 3; i++)
                ptx_uint(parser, UINT32_MAX, "inlined_at");
        } else {
            ptx_error(lexer, &t, "'%.*s' in .loc", (int)t.length, t.text);
        }
    }
    struct vn_module *m = parser->module;
    /* The number becomes an index when the text ends: .file may come after. */
    *PTX_PUSH(parser, m->sources, m->source_count, parser->source_capacity) =
        (struct vn_source){.file = number, .line = line};
    parser->body.source = m->source_count - 1;
}

static void block(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_token open = lexer->token;
    ptx_expect(lexer, '{');
    if (++parser->depth > 256)
        ptx_error(lexer, &open, "blocks are nested too deeply");
    ptx_push_scope(parser);
    while (!(lexer->token.kind == PTX_PUNCT && lexer->token.punct == '}')) {
        struct ptx_token t = lexer->token;
        if (t.kind == PTX_END)
            ptx_error(lexer, &open, "block is not closed before the end of the text");
        if (t.kind == PTX_PUNCT && t.punct == '{') {
            block(parser);
        } else if (t.kind == PTX_PUNCT && t.punct == ';') {
            ptx_next(lexer);
        } else if (ptx_is_dot(&t, "loc")) {
            ptx_next(lexer);
            loc(parser);
        } else if (ptx_is_dot(&t, "pragma")) {
            ptx_next(lexer);
            if (lexer->token.kind != PTX_STRING)
                ptx_error(lexer, &lexer->token, "a string is expected after .pragma");
            ptx_next(lexer);
            ptx_expect(lexer, ';');
        } else if (t.kind == PTX_DOT) {
            enum vn_linkage linkage = VN_LOCAL;
            if (ptx_is_dot(&t, "extern")) {
                linkage = VN_EXTERN;
                ptx_next(lexer);
            }
            ptx_parse_variable(parser, linkage, true);
        } else {
            ptx_parse_statement(parser);
        }
    }
    ptx_pop_scope(parser);
    parser->depth--;
    ptx_next(lexer);
}

/* `name :` in front of a statement was read; what the name stands for follows. */
void ptx_parse_label(struct ptx_parser *parser, const struct ptx_token *name)
{
    struct ptx_lexer *lexer = &parser->lexer;
    if (ptx_is_dot(&lexer->token, "branchtargets")) {
        ptx_next(lexer);
        targets(parser, name, true);
    } else if (ptx_is_dot(&lexer->token, "calltargets")) {
        ptx_next(lexer);
        targets(parser, name, false);
    } else if (ptx_is_dot(&lexer->token, "callprototype")) {
        ptx_next(lexer);
        ptx_declare(parser, name, PTX_DECL_PROTOTYPE, parser->scope)->signature = prototype(parser);
    } else {
        struct ptx_decl *d = ptx_declare(parser, name, PTX_DECL_LABEL, parser->scope);
        d->index = parser->body.insn_count;
    }
}

void ptx_parse_function(struct ptx_parser *parser, enum vn_linkage linkage, bool entry)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct vn_module *m = parser->module;
    struct ptx_formal *returns = NULL, *params = NULL;
    uint32_t return_count = 0, param_count = 0;
    while (ptx_is_dot(&lexer->token, "attribute") || ptx_is_dot(&lexer->token, "noreturn")) {
        bool attribute = ptx_is_dot(&lexer->token, "attribute");
        ptx_next(lexer);
        while (attribute && !ptx_accept(lexer, ')')) {
            if (lexer->token.kind == PTX_END)
                ptx_error(lexer, &lexer->token, "')' expected before the end of the text");
            ptx_next(lexer);
        }
    }
    if (!entry && lexer->token.kind == PTX_PUNCT && lexer->token.punct == '(')
        return_count = parse_returns(parser, &returns);
    struct ptx_token name = lexer->token;
    if (name.kind != PTX_NAME)
        ptx_error(lexer, &name, "a function's name is expected here");
    ptx_next(lexer);
    if (lexer->token.kind == PTX_PUNCT && lexer->token.punct == '(')
        param_count = parse_params(parser, &params);
    struct ptx_decl *decl = declare_function(parser, &name, linkage, entry);
    decl->signature = ptx_need(parser, sizeof *decl->signature);
    *decl->signature = (struct ptx_signature){returns, params, return_count, param_count};
    uint32_t index = decl->index;
    struct vn_function info = {.name = decl->name, .entry = entry, .linkage = linkage};
    directives(parser, &info);
    uint64_t offset = 0;
    struct vn_param *list = ptx_need(parser, (param_count + 1) * sizeof *list);
    for (uint32_t i = 0; i < param_count; i++) {
        const struct ptx_formal *p = &params[i];
        if (entry && p->reg)
            ptx_error(lexer, &p->name, "a kernel's parameters are in .param");
        offset = (offset + p->align - 1) & ~(p->align - 1);
        list[i] =
            (struct vn_param){.name = ptx_strndup(parser->arena, p->name.text, p->name.length),
                              .offset = (uint32_t)offset,
                              .size = (uint32_t)p->size,
                              .align = (uint32_t)p->align};
        offset += p->size;
    }
    if (entry && offset > 32764)
        ptx_error(lexer, &name, "kernel parameters of %llu bytes are over the limit of 32764",
                  (unsigned long long)offset);
    info.params = list;
    info.param_count = param_count;
    info.param_bytes = (uint32_t)offset;
    if (ptx_accept(lexer, ';')) {
        if (!m->functions[index].info.defined) {
            m->functions[index].info = info;
        }
        return;
    }
    struct vn_code *f = &m->functions[index];
    bool skip = false;
    if (f->info.defined) {
        if (linkage != VN_WEAK && f->info.linkage != VN_WEAK)
            ptx_error(lexer, &name, "'%s' is defined twice", decl->name);
        skip = linkage == VN_WEAK;
    }
    if (f->info.linkage == VN_EXTERN && linkage == VN_LOCAL)
        ptx_error(lexer, &name, "'%s' was declared .extern", decl->name);
    struct vn_code kept = *f;
    struct ptx_function_facts kept_facts = parser->facts[index];
    info.defined = true;
    f->info = info;
    parser->body = (struct ptx_body){.function = index, .entry = entry};
    struct ptx_token open = lexer->token;
    if (!(open.kind == PTX_PUNCT && open.punct == '{'))
        ptx_error(lexer, &open, "'{' or ';' is expected after a function's header");
    ptx_push_scope(parser);
    uint32_t *chunks = NULL, chunk_count = 0, *back = NULL, back_count = 0;
    for (uint32_t i = 0; i < return_count; i++)
        back = formal(parser, &returns[i], &back_count, back, true);
    for (uint32_t i = 0; i < param_count; i++) {
        if (entry) {
            struct ptx_decl *d =
                ptx_declare(parser, &params[i].name, PTX_DECL_PARAM, parser->scope);
            d->type = params[i].type;
            d->size = params[i].size;
            d->align = params[i].align;
            d->space = VN_PARAM;
            d->entry_param = true;
            d->offset = list[i].offset;
        } else {
            chunks = formal(parser, &params[i], &chunk_count, chunks, false);
        }
    }
    block(parser);
    f = &m->functions[index];
    f->param_chunks = chunks;
    f->param_chunk_count = chunk_count;
    f->return_chunks = back;
    f->return_chunk_count = back_count;
    if (return_count == 1 && returns[0].reg) { /* its register goes to the chunk at every ret */
        struct ptx_decl *d = ptx_find(parser, returns[0].name.text, returns[0].name.length);
        f->return_chunks[0] = ptx_register(parser, d, 0);
    } else {
        for (uint32_t i = 0; i < return_count; i++) {
            if (returns[i].reg)
                ptx_error(lexer, &returns[i].name,
                          "several results in registers are not "
                          "supported by the virtual device");
        }
    }
    ptx_finish_body(parser);
    ptx_pop_scope(parser);
    if (skip) {
        m->functions[index] = kept;
        parser->facts[index] = kept_facts;
    }
}
