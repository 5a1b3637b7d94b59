/* PTX text to tokens. */
#ifndef VIRTUAL_NVIDIA_PTX_LEX_H
#define VIRTUAL_NVIDIA_PTX_LEX_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vn_diagnostic;

enum ptx_token_kind {
    PTX_END,
    PTX_NAME,   /* foo, %r1, $L1, _ */
    PTX_DOT,    /* .reg: the text without the dot; may hold "::" */
    PTX_INT,    /* value */
    PTX_FLOAT,  /* bits: of an f64; single: 0f form, bits of an f32 */
    PTX_STRING, /* without the quotes */
    PTX_PUNCT,  /* one character, in punct */
};

struct ptx_token {
    enum ptx_token_kind kind;
    const char *text; /* into the source */
    uint32_t length;
    uint32_t line, column;
    uint64_t value;
    bool is_unsigned, single;
    char punct;
};

struct ptx_lexer {
    const char *at, *end, *line_start;
    uint32_t line;
    struct ptx_token token; /* the current one */
    struct vn_diagnostic *diagnostic;
    jmp_buf *fail; /* errors return here; the arena frees what was built */
    /* `#line N "file"`: of the text that follows. */
    const char *source_file;
    uint32_t source_length, source_line, source_at;
};

void ptx_lexer_init(struct ptx_lexer *lexer, const char *text, size_t size,
                    struct vn_diagnostic *diagnostic, jmp_buf *fail);
void ptx_next(struct ptx_lexer *lexer);

/* Takes the current token if it is this. */
bool ptx_accept(struct ptx_lexer *lexer, char punct);
void ptx_expect(struct ptx_lexer *lexer, char punct);
bool ptx_is_name(const struct ptx_token *token, const char *name);
bool ptx_is_dot(const struct ptx_token *token, const char *name);

_Noreturn void ptx_error(struct ptx_lexer *lexer, const struct ptx_token *at, const char *format,
                         ...) __attribute__((format(printf, 3, 4)));

#endif
